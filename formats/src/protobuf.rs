//! Protobuf: messages of one type, by a schema in text or compiled, into columns in one pass.
//!
//! Owns the columns of a message and the reading of the wire format. Must not know registries. Called by [`crate::Decoder`].
//!
//! Scalars are columns of their types, enums texts, repeated scalars arrays; messages, maps and repeated messages are `jsonb`. A scalar that is absent is
//! zero, unless the schema says that absence can be told (`optional`, `oneof`, proto2): then it is NULL. Unknown fields and groups are skipped.
//! Schemas may change by the rules of Protobuf without being handed in again, since fields go by their numbers.

use flowstone_types::SqlType;

use crate::error::{Error, Fault};
use crate::relation::{Column, Relation};
use crate::rows::{Decoded, Limits, Rows};

mod read;
mod schema;

use read::{Occurrences, Reader, fill};
use schema::{Catalog, Kind};

/// Whether payloads say which schema and message they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtobufFraming {
    /// A zero byte, the id of the schema in four bytes, and the indexes of the message come first.
    Confluent,
    /// Nothing does.
    Bare,
}

/// A schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtobufSchema<'a> {
    /// `.proto` text, and the files that it imports: (name as imported, text).
    Text {
        /// The text.
        schema: &'a str,
        /// The files.
        references: &'a [(String, String)],
    },
    /// A `FileDescriptorSet`.
    Descriptors(&'a [u8]),
}

/// Reads messages of one type.
#[derive(Clone, Debug)]
pub struct ProtobufDecoder {
    catalog: Catalog,
    message: usize,
    relation: Relation,
    framing: ProtobufFraming,
    limits: Limits,
}

fn scalar_type(kind: Kind) -> SqlType {
    match kind {
        Kind::Double => SqlType::Float8,
        Kind::Float => SqlType::Float4,
        Kind::Int32 | Kind::SInt32 | Kind::SFixed32 => SqlType::Int4,
        Kind::Int64 | Kind::SInt64 | Kind::SFixed64 => SqlType::Int8,
        Kind::UInt32 | Kind::Fixed32 => SqlType::UInt4,
        Kind::UInt64 | Kind::Fixed64 => SqlType::UInt8,
        Kind::Bool => SqlType::Bool,
        Kind::String | Kind::Enum(_) => SqlType::Text,
        Kind::Bytes => SqlType::Bytea,
        Kind::Message(_) | Kind::Group => SqlType::Jsonb,
    }
}

impl ProtobufDecoder {
    /// A decoder of the message with a full name; without one, of the only message of the schema.
    ///
    /// # Errors
    /// [`Error::Definition`] if it is no schema, or has no such message; [`Error::Unsupported`] for a message without fields that we read.
    pub fn new(
        schema: ProtobufSchema<'_>,
        message: Option<&str>,
        framing: ProtobufFraming,
        limits: Limits,
    ) -> Result<Self, Error> {
        let catalog = match schema {
            ProtobufSchema::Text { schema, references } => Catalog::compile(schema, references)?,
            ProtobufSchema::Descriptors(bytes) => Catalog::from_descriptors(bytes)?,
        };
        let message = match message {
            Some(name) => catalog.by_name(name).ok_or_else(|| {
                Error::definition(format!("Protobuf schema has no message \"{name}\""))
            })?,
            None => catalog.only().ok_or_else(|| {
                Error::definition("Protobuf schema has several messages: say which one")
            })?,
        };
        let described = catalog.message(message);
        let columns = described.order.iter().filter_map(|place| {
            let field = described.fields.get(*place)?;
            let scalar = scalar_type(field.kind);
            let sql_type = match (field.repeated, scalar) {
                (true, SqlType::Jsonb) => SqlType::Jsonb,
                (true, scalar) => SqlType::Array(Box::new(scalar)),
                (false, scalar) => scalar,
            };
            let nullable = field.presence || field.kind == Kind::Group;
            Some(Column::new(&field.name, sql_type, nullable))
        });
        let relation = Relation::new(columns.collect());
        if relation.columns.is_empty() {
            return Err(Error::unsupported("the Protobuf message has no fields"));
        }
        Ok(Self {
            catalog,
            message,
            relation,
            framing,
            limits,
        })
    }

    /// The columns of a row.
    #[must_use]
    pub const fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Decodes payloads.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub fn decode(&self, payloads: &[Option<&[u8]>]) -> Result<Decoded, Error> {
        let described = self.catalog.message(self.message);
        let mut occurrences = Occurrences::new(described.fields.len());
        Rows::decode(&self.relation, self.limits, payloads, |payload, columns| {
            let message = match self.framing {
                ProtobufFraming::Bare => payload,
                ProtobufFraming::Confluent => self.unframed(payload)?,
            };
            let mut reader = Reader::new(&self.catalog, self.limits);
            occurrences.clear();
            reader.scan(described, message, &mut occurrences)?;
            for (column, place) in columns.iter_mut().zip(&described.order) {
                if let Some(field) = described.fields.get(*place) {
                    fill(&mut reader, field, occurrences.of(*place), column)
                        .map_err(|fault| fault.of(&field.name))?;
                }
            }
            Ok(())
        })
    }

    /// The message behind Confluent's prefix. Indexes are those of the writer's schema, whose id we do not look up: the message must be where ours is.
    fn unframed<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], Fault> {
        let Some(([0, ..], rest)) = payload.split_first_chunk::<5>() else {
            return Err(Fault::from("message has no prefix with the id of a schema"));
        };
        let (path, message) = read::message_indexes(rest)?;
        if self.catalog.by_path(&path) != Some(self.message) {
            return Err(Fault::from("message is of another type than the source's"));
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests;
