//! Formats of messages: payloads to Arrow columns and back, and what they say of a table.
//!
//! Owns the decoding of text, bytes, regular expressions, CSV, JSON, Avro and Protobuf ([`Decoder`]), the relations that schemas describe
//! ([`relation::Relation`]), the envelopes that make changes of rows ([`envelope`]), and the encoding of rows for sinks ([`encode`]).
//! Must not know where payloads come from: no network, no registry (schemas are handed in), no clock, no tokio.
//! Called by sources of messages in `ingest`, by sinks, and by whoever plans a relation from a schema.
//!
//! Invariants. A batch never fails because of one message: a message that cannot be read is a [`rows::BadRow`], and leaves nothing in the columns.
//! Bytes from outside never make us panic, recurse without bound, or reserve memory that they do not back ([`rows::Limits`]).
//! What is decoded is a function of the schemas and the payload alone.

pub mod avro;
pub mod csv;
pub mod decoder;
pub mod encode;
pub mod envelope;
pub mod error;
pub mod json;
pub mod plain;
pub mod protobuf;
pub mod regex;
pub mod relation;
pub mod rows;
pub mod semantic;

pub use decoder::Decoder;
pub use error::Error;
pub use relation::{Column, Relation};
pub use rows::{BadRow, Decoded, Limits};
