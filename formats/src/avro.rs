//! Avro: messages with the prefix of Confluent's registry or bare, resolved from the schema that each was written with to the one of the source.
//!
//! Owns the schemas that messages name and the programs made of them. Must not know registries: whoever has one asks which ids are missing
//! ([`AvroDecoder::missing_ids`]), fetches them and hands them in.
//! Called by [`crate::Decoder`] and by sinks.
//!
//! The decoder is ours rather than `arrow-avro`, which fails whole batches, knows neither `connect.name` nor `jsonb`, and would need a second pass into our
//! types. A schema is compiled once; a message is then read in one pass straight into the columns.

use std::collections::BTreeSet;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array};
use flowstone_types::TypeError;
use hashbrown::HashMap;

use crate::envelope::layout::ChangeLayout;
use crate::envelope::updates::Progress;
use crate::error::{Error, Fault};
use crate::relation::Relation;
use crate::rows::{BadRow, Decoded, Limits, Rows};

mod default;
mod encode;
mod program;
mod resolve;
mod schema;
mod shape;
mod updates;
mod wire;

pub use encode::{AvroEncoder, AvroOptions, AvroRows, NullDefaults};

use program::Program;
use resolve::resolve;
use schema::Schema;
use shape::Shape;
use updates::UpdatesProgram;
use wire::split_prefix;

/// Schemas that one decoder keeps. Topics have a few; whatever asks for more is not a topic of Avro.
const SCHEMAS_MAX: usize = 10_000;

/// Whether messages say which schema they were written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A zero byte and the id of the schema, four bytes, come first.
    Confluent,
    /// Every message is of the reader's schema.
    Bare,
}

/// Which columns a message yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AvroContent {
    /// Those of the schema itself.
    Row,
    /// Those of a change: see [`ChangeLayout`].
    Envelope,
    /// Those of updates with times; messages are arrays of these, or progress: see [`AvroDecoder::decode_updates`].
    Updates,
}

/// What the payloads of one call became that are updates and progress. Payloads that are absent (null) are in none of the lists.
#[derive(Clone, Debug)]
pub struct DecodedUpdates {
    /// The columns of the rows that are updated, one row for each update.
    pub columns: Vec<ArrayRef>,
    /// The time of each.
    pub times: Int64Array,
    /// How many times each row comes, or goes if it is negative.
    pub weights: Int64Array,
    /// Which payload each is from, ascending; one may have any number.
    pub rows: Vec<u32>,
    /// What payloads state of progress, ascending.
    pub progress: Vec<(u32, Progress)>,
    /// The payloads that say nothing, ascending.
    pub bad: Vec<BadRow>,
}

/// The relation that a schema describes: of the rows that change, if it is an envelope or one of updates.
///
/// # Errors
/// [`Error::Definition`] if it is no Avro schema, or none of an envelope or of updates; [`Error::Unsupported`] if it has nothing to make columns of.
pub fn describe(
    schema: &str,
    references: &[String],
    content: AvroContent,
) -> Result<Relation, Error> {
    let schema = Schema::parse(schema, references)?;
    match content {
        AvroContent::Row => Ok(shape::plain(&schema)?.relation),
        AvroContent::Envelope => Ok(shape::envelope(&schema)?.0.row().clone()),
        AvroContent::Updates => Ok(shape::updates(&schema)?.0),
    }
}

/// How messages of one schema are read.
#[derive(Debug)]
enum Reading {
    Rows(Program),
    Updates(UpdatesProgram),
}

impl Reading {
    fn new(
        writer: Schema,
        reader: &Schema,
        shape: &Shape,
        content: AvroContent,
    ) -> Result<Self, Error> {
        Ok(match content {
            AvroContent::Row | AvroContent::Envelope => Self::Rows(resolve(writer, reader, shape)?),
            AvroContent::Updates => Self::Updates(UpdatesProgram::resolve(writer, reader, shape)?),
        })
    }

    fn rows(&self) -> Result<&Program, Fault> {
        match self {
            Self::Rows(program) => Ok(program),
            Self::Updates(_) => Err(Fault::from("internal error: updates are no rows")),
        }
    }

    fn updates(&self) -> Result<&UpdatesProgram, Fault> {
        match self {
            Self::Updates(program) => Ok(program),
            Self::Rows(_) => Err(Fault::from("internal error: rows are no updates")),
        }
    }
}

/// Reads messages of one topic.
#[derive(Debug)]
pub struct AvroDecoder {
    reader: Schema,
    shape: Shape,
    layout: Option<ChangeLayout>,
    content: AvroContent,
    framing: Framing,
    /// How messages of the reader's own schema are read.
    own: Reading,
    /// By id; of those that cannot be used, why.
    programs: HashMap<u32, Result<Reading, String>>,
    limits: Limits,
}

impl AvroDecoder {
    /// A decoder to a reader's schema; `references` are the schemas that it names, each after those that it names itself.
    ///
    /// # Errors
    /// As [`describe`].
    pub fn new(
        schema: &str,
        references: &[String],
        content: AvroContent,
        framing: Framing,
        limits: Limits,
    ) -> Result<Self, Error> {
        let reader = Schema::parse(schema, references)?;
        let (layout, shape) = match content {
            AvroContent::Row => (None, shape::plain(&reader)?),
            AvroContent::Envelope => {
                let (layout, shape) = shape::envelope(&reader)?;
                (Some(layout), shape)
            }
            AvroContent::Updates => (None, shape::updates(&reader)?.1),
        };
        let own = Reading::new(reader.clone(), &reader, &shape, content)?;
        Ok(Self {
            reader,
            shape,
            layout,
            content,
            framing,
            own,
            programs: HashMap::new(),
            limits,
        })
    }

    /// The columns that [`AvroDecoder::decode`] yields; of updates those of the rows, then `time` and `diff`.
    #[must_use]
    pub const fn relation(&self) -> &Relation {
        &self.shape.relation
    }

    /// Where the parts of a change are among the columns, if messages are envelopes.
    #[must_use]
    pub const fn layout(&self) -> Option<&ChangeLayout> {
        self.layout.as_ref()
    }

    /// The ids that payloads name and that were neither added nor refused, ascending.
    #[must_use]
    pub fn missing_ids(&self, payloads: &[Option<&[u8]>]) -> Vec<u32> {
        if self.framing == Framing::Bare {
            return Vec::new();
        }
        let mut missing = BTreeSet::new();
        let mut last = None;
        for payload in payloads.iter().flatten() {
            let Ok((id, _)) = split_prefix(payload) else {
                continue;
            };
            // Messages come in runs of one schema.
            if last.replace(id) != Some(id) && !self.programs.contains_key(&id) {
                missing.insert(id);
            }
        }
        missing.into_iter().collect()
    }

    /// Makes a schema known. It is not asked for again, even if it cannot be used: its messages then are bad rows.
    ///
    /// # Errors
    /// [`Error::Definition`] if it is no schema, or nothing of its messages could be read with the reader's.
    pub fn add_schema(
        &mut self,
        id: u32,
        schema: &str,
        references: &[String],
    ) -> Result<(), Error> {
        let made = Schema::parse(schema, references)
            .and_then(|writer| Reading::new(writer, &self.reader, &self.shape, self.content));
        match made {
            Ok(program) => {
                self.keep(id, Ok(program));
                Ok(())
            }
            Err(error) => {
                self.refuse_schema(id, &error.to_string());
                Err(error)
            }
        }
    }

    /// Says that an id has no schema: its messages are bad rows.
    pub fn refuse_schema(&mut self, id: u32, reason: &str) {
        self.keep(id, Err(reason.to_owned()));
    }

    fn keep(&mut self, id: u32, program: Result<Reading, String>) {
        if self.programs.len() >= SCHEMAS_MAX {
            // They are asked for again when they are needed.
            self.programs.clear();
        }
        self.programs.insert(id, program);
    }

    /// Decodes payloads. One whose schema is not known yet is a bad row: ask for [`AvroDecoder::missing_ids`] first.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub fn decode(&self, payloads: &[Option<&[u8]>]) -> Result<Decoded, Error> {
        let mut last: Option<(u32, &Reading)> = None;
        Rows::decode(
            &self.shape.relation,
            self.limits,
            payloads,
            |payload, columns| {
                if self.framing == Framing::Bare {
                    return self.own.rows()?.run(payload, self.limits, columns);
                }
                let (id, message) = split_prefix(payload)?;
                let program = match last {
                    Some((known, program)) if known == id => program,
                    _ => self.program(id)?,
                };
                last = Some((id, program));
                program.rows()?.run(message, self.limits, columns)
            },
        )
    }

    /// Decodes payloads of [`AvroContent::Updates`], as [`AvroDecoder::decode`] does others: of one that cannot be read no update counts.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub fn decode_updates(&self, payloads: &[Option<&[u8]>]) -> Result<DecodedUpdates, Error> {
        let mut progress = Vec::new();
        let decoded = Rows::decode_many(
            &self.shape.relation,
            self.limits,
            payloads,
            |index, payload, rows| {
                let (reading, message) = match self.framing {
                    Framing::Bare => (&self.own, payload),
                    Framing::Confluent => {
                        let (id, message) = split_prefix(payload)?;
                        (self.program(id)?, message)
                    }
                };
                let stated = reading.updates()?.run(index, message, self.limits, rows)?;
                progress.extend(stated.map(|stated| (index, stated)));
                Ok(())
            },
        )?;
        let mut columns = decoded.columns;
        let weights = numbers(columns.pop())?;
        let times = numbers(columns.pop())?;
        Ok(DecodedUpdates {
            columns,
            times,
            weights,
            rows: decoded.rows,
            progress,
            bad: decoded.bad,
        })
    }

    fn program(&self, id: u32) -> Result<&Reading, Fault> {
        match self.programs.get(&id) {
            Some(Ok(program)) => Ok(program),
            Some(Err(reason)) => Err(Fault::from(format!("schema {id} cannot be used: {reason}"))),
            None => Err(Fault::from(format!("schema {id} is not known"))),
        }
    }
}

/// A column of `int8`, which times and weights are.
fn numbers(column: Option<ArrayRef>) -> Result<Int64Array, Error> {
    let numbers = column.and_then(|column| column.as_primitive_opt::<Int64Type>().cloned());
    numbers.ok_or_else(|| {
        let message = "the columns of an update are not there".to_owned();
        Error::Value(TypeError::Kernel(message))
    })
}

#[cfg(test)]
mod tests;
