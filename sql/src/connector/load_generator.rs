//! Load generators: upstreams that are made up here, deterministic by seed.
//!
//! Their tables and rows are `ingest::generator`'s business.

use std::time::Duration;

use flowstone_proto::message::{LoadGenerator, SourceKind, UpstreamConnection};
use flowstone_types::{ObjectId, SourcePosition, SqlType};

use super::{
    CatalogSource, Connection, CreateSourceKind, GeneratorKind, NameOf, NewSource, OptionReader,
    SourceItemKind,
};
use crate::error::{Error, ErrorKind};

/// Milliseconds between the ticks of a generator, unless the statement says otherwise.
const TICK_INTERVAL_MS: u64 = 1_000;
/// The scale factor of TPCH, unless the statement says otherwise.
const SCALE_FACTOR: f64 = 0.01;

/// What stands behind `LOAD GENERATOR`.
pub(super) fn source<R: OptionReader>(c: &mut R) -> Result<CreateSourceKind, Error> {
    let position = c.position();
    let generator = if c.take(&["AUCTION"]) {
        GeneratorKind::Auction
    } else if c.take(&["COUNTER"]) {
        GeneratorKind::Counter
    } else if c.take(&["TPCH"]) {
        GeneratorKind::Tpch
    } else if let Some(word) = c
        .bare(0)
        .filter(|word| matches!(word.as_str(), "MARKETING" | "KEY" | "CLOCK" | "DATUMS"))
    {
        let word = if word == "KEY" { "KEY VALUE" } else { &word };
        return Err(
            Error::unsupported(format!("load generator {word} is not supported")).at(position),
        );
    } else {
        return Err(c.error("AUCTION, COUNTER or TPCH"));
    };
    let mut tick_interval = None;
    let mut scale_factor = None;
    let mut max_cardinality = None;
    if c.peek_list() {
        c.parenthesized(|c| {
            let position = c.position();
            if c.take(&["TICK", "INTERVAL"]) {
                c.take_equals();
                let interval = c.duration("TICK INTERVAL")?;
                if interval.as_millis() == 0 {
                    return Err(Error::new(
                        ErrorKind::InvalidParameterValue,
                        "TICK INTERVAL must be at least one millisecond",
                    )
                    .at(position));
                }
                tick_interval = Some(interval);
            } else if generator == GeneratorKind::Tpch && c.take(&["SCALE", "FACTOR"]) {
                let value = c.option_value()?;
                let factor = value
                    .text()
                    .and_then(|text| text.parse::<f64>().ok())
                    .filter(|factor| factor.is_finite() && *factor > 0.0);
                let invalid = || {
                    Error::new(
                        ErrorKind::InvalidParameterValue,
                        "SCALE FACTOR must be a positive number",
                    )
                    .at(position)
                };
                scale_factor = Some(factor.ok_or_else(invalid)?);
            } else if generator == GeneratorKind::Counter && c.take(&["MAX", "CARDINALITY"]) {
                c.take_equals();
                max_cardinality = Some(c.unsigned("MAX CARDINALITY")?);
            } else if c.peek_words(&["AS", "OF"]) || c.peek_words(&["UP", "TO"]) {
                return Err(Error::unsupported(
                    "AS OF and UP TO of a load generator are not supported",
                )
                .at(position));
            } else {
                return Err(c.error("an option of the load generator"));
            }
            Ok(())
        })?;
    }
    Ok(CreateSourceKind::LoadGenerator {
        generator,
        tick_interval,
        scale_factor,
        max_cardinality,
    })
}

/// [`CreateSourceKind::LoadGenerator`].
#[derive(Debug)]
pub(super) struct NewGenerator {
    pub(super) generator: GeneratorKind,
    pub(super) tick_interval: Option<Duration>,
    pub(super) scale_factor: Option<f64>,
    pub(super) max_cardinality: Option<u64>,
}

impl NewSource<'_> for NewGenerator {
    fn single_table(&self) -> Option<&'static str> {
        (self.generator == GeneratorKind::Counter).then_some(
            "a COUNTER has just one table: FOR ALL TABLES and FOR TABLES are not supported for it",
        )
    }

    fn nothing_to_capture(&self) -> Error {
        Error::internal("the generator has no table")
    }

    fn in_catalog(
        &self,
        _connection: Option<(ObjectId, &Connection)>,
        _slot: &str,
    ) -> Result<SourceItemKind, Error> {
        let max_cardinality = self.max_cardinality;
        Ok(SourceItemKind::LoadGenerator {
            generator: match self.generator {
                GeneratorKind::Auction => LoadGenerator::Auction,
                GeneratorKind::Counter => LoadGenerator::Counter { max_cardinality },
                GeneratorKind::Tpch => LoadGenerator::Tpch {
                    scale_factor: self.scale_factor.unwrap_or(SCALE_FACTOR),
                },
            },
            tick_interval_ms: self.tick_interval.map_or(TICK_INTERVAL_MS, |interval| {
                u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
            }),
        })
    }
}

/// [`SourceItemKind::LoadGenerator`].
#[derive(Debug)]
pub(super) struct Generator<'a> {
    pub(super) generator: &'a LoadGenerator,
    pub(super) tick_interval_ms: u64,
}

impl CatalogSource for Generator<'_> {
    fn type_name(&self) -> &'static str {
        "load-generator"
    }

    fn definition(&self, _name_of: NameOf<'_>) -> String {
        let (kind, option) = match self.generator {
            LoadGenerator::Auction => ("AUCTION", None),
            LoadGenerator::Counter { max_cardinality } => (
                "COUNTER",
                max_cardinality.map(|rows| format!(", MAX CARDINALITY = {rows}")),
            ),
            LoadGenerator::Tpch { scale_factor } => {
                ("TPCH", Some(format!(", SCALE FACTOR = {scale_factor}")))
            }
        };
        format!(
            "LOAD GENERATOR {kind} (TICK INTERVAL = '{}ms'{})",
            self.tick_interval_ms,
            option.unwrap_or_default()
        )
    }

    fn progress_columns(&self) -> Vec<(&'static str, SqlType)> {
        vec![("offset", SqlType::UInt8)]
    }

    fn offset_unit(&self) -> &'static str {
        "ticks"
    }

    fn upstream(
        &self,
        id: ObjectId,
        _connection: Option<UpstreamConnection>,
    ) -> Option<SourceKind> {
        let seed = match id {
            ObjectId::User(number) | ObjectId::System(number) | ObjectId::Transient(number) => {
                number
            }
        };
        Some(SourceKind::LoadGenerator {
            generator: self.generator.clone(),
            tick_interval: Duration::from_millis(self.tick_interval_ms),
            seed,
        })
    }

    fn position_without_kind(&self, number: u64) -> Option<SourcePosition> {
        Some(SourcePosition::GeneratorTick(number))
    }
}
