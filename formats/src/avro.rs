//! Avro: messages with the prefix of Confluent's registry or bare, resolved from the schema that each was written with to the one of the source.
//!
//! Owns the schemas that messages name and the programs made of them. Must not know registries: whoever has one asks which ids are missing
//! ([`AvroDecoder::missing_ids`]), fetches them and hands them in.
//! Called by [`crate::Decoder`] and by sinks.
//!
//! The decoder is ours rather than `arrow-avro`, which fails whole batches, knows neither `connect.name` nor `jsonb`, and would need a second pass into our
//! types. A schema is compiled once; a message is then read in one pass straight into the columns.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::envelope::layout::ChangeLayout;
use crate::error::{Error, Fault};
use crate::relation::Relation;
use crate::rows::{Decoded, Limits, Rows};

mod default;
mod encode;
mod program;
mod resolve;
mod schema;
mod shape;
mod wire;

pub use encode::{AvroEncoder, AvroOptions, AvroRows, NullDefaults};

use program::Program;
use resolve::resolve;
use schema::Schema;
use shape::Shape;
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
}

/// The relation that a schema describes: of the rows that change, if it is an envelope.
///
/// # Errors
/// [`Error::Definition`] if it is no Avro schema, or no envelope; [`Error::Unsupported`] if it has nothing to make columns of.
pub fn describe(
    schema: &str,
    references: &[String],
    content: AvroContent,
) -> Result<Relation, Error> {
    let schema = Schema::parse(schema, references)?;
    match content {
        AvroContent::Row => Ok(shape::plain(&schema)?.relation),
        AvroContent::Envelope => Ok(shape::envelope(&schema)?.0.row().clone()),
    }
}

/// Reads messages of one topic.
#[derive(Debug)]
pub struct AvroDecoder {
    reader: Schema,
    shape: Shape,
    layout: Option<ChangeLayout>,
    framing: Framing,
    /// How messages of the reader's own schema are read.
    own: Program,
    /// By id; of those that cannot be used, why.
    programs: HashMap<u32, Result<Program, String>>,
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
        };
        let own = resolve(reader.clone(), &reader, &shape)?;
        Ok(Self {
            reader,
            shape,
            layout,
            framing,
            own,
            programs: HashMap::new(),
            limits,
        })
    }

    /// The columns that [`AvroDecoder::decode`] yields.
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
            .and_then(|writer| resolve(writer, &self.reader, &self.shape));
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

    fn keep(&mut self, id: u32, program: Result<Program, String>) {
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
        let mut last: Option<(u32, &Program)> = None;
        Rows::decode(
            &self.shape.relation,
            self.limits,
            payloads,
            |payload, columns| {
                if self.framing == Framing::Bare {
                    return self.own.run(payload, self.limits, columns);
                }
                let (id, message) = split_prefix(payload)?;
                let program = match last {
                    Some((known, program)) if known == id => program,
                    _ => self.program(id)?,
                };
                last = Some((id, program));
                program.run(message, self.limits, columns)
            },
        )
    }

    fn program(&self, id: u32) -> Result<&Program, Fault> {
        match self.programs.get(&id) {
            Some(Ok(program)) => Ok(program),
            Some(Err(reason)) => Err(Fault::from(format!("schema {id} cannot be used: {reason}"))),
            None => Err(Fault::from(format!("schema {id} is not known"))),
        }
    }
}

#[cfg(test)]
mod tests;
