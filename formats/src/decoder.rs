//! One decoder for every format.
//!
//! Must not know what each does. Called by sources of messages, which have one for keys and one for values.

use crate::avro::AvroDecoder;
use crate::csv::CsvDecoder;
use crate::envelope::layout::ChangeLayout;
use crate::error::Error;
use crate::json::JsonDecoder;
use crate::plain::{BytesDecoder, TextDecoder};
use crate::protobuf::ProtobufDecoder;
use crate::regex::RegexDecoder;
use crate::relation::Relation;
use crate::rows::Decoded;

/// Reads payloads of one format.
#[derive(Debug)]
pub enum Decoder {
    /// Text as it is.
    Text(TextDecoder),
    /// Bytes as they are.
    Bytes(BytesDecoder),
    /// Groups of a regular expression.
    Regex(RegexDecoder),
    /// Comma-separated values.
    Csv(CsvDecoder),
    /// JSON.
    Json(JsonDecoder),
    /// Avro.
    Avro(Box<AvroDecoder>),
    /// Protobuf.
    Protobuf(Box<ProtobufDecoder>),
}

impl Decoder {
    /// The columns that [`Decoder::decode`] yields.
    #[must_use]
    pub fn relation(&self) -> &Relation {
        match self {
            Self::Text(decoder) => decoder.relation(),
            Self::Bytes(decoder) => decoder.relation(),
            Self::Regex(decoder) => decoder.relation(),
            Self::Csv(decoder) => decoder.relation(),
            Self::Json(decoder) => decoder.relation(),
            Self::Avro(decoder) => decoder.relation(),
            Self::Protobuf(decoder) => decoder.relation(),
        }
    }

    /// Where the parts of a change are among the columns, if payloads are envelopes with images of rows.
    #[must_use]
    pub fn layout(&self) -> Option<&ChangeLayout> {
        match self {
            Self::Json(decoder) => decoder.layout(),
            Self::Avro(decoder) => decoder.layout(),
            Self::Text(_) | Self::Bytes(_) | Self::Regex(_) | Self::Csv(_) | Self::Protobuf(_) => {
                None
            }
        }
    }

    /// The ids of schemas that payloads name and that the decoder was not given: see [`AvroDecoder::add_schema`].
    #[must_use]
    pub fn missing_ids(&self, payloads: &[Option<&[u8]>]) -> Vec<u32> {
        match self {
            Self::Avro(decoder) => decoder.missing_ids(payloads),
            // Fields of Protobuf go by their numbers: the writer's schema is not needed.
            Self::Protobuf(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Regex(_)
            | Self::Csv(_)
            | Self::Json(_) => Vec::new(),
        }
    }

    /// Makes a schema known that messages name; formats without such schemas ignore it.
    ///
    /// # Errors
    /// As [`AvroDecoder::add_schema`].
    pub fn add_schema(
        &mut self,
        id: u32,
        schema: &str,
        references: &[String],
    ) -> Result<(), Error> {
        match self {
            Self::Avro(decoder) => decoder.add_schema(id, schema, references),
            Self::Protobuf(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Regex(_)
            | Self::Csv(_)
            | Self::Json(_) => Ok(()),
        }
    }

    /// Decodes payloads into columns; what cannot be decoded is listed beside them.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`] if there are more bytes than [`crate::rows::BATCH_BYTES_MAX`] in several payloads.
    ///
    /// Cost: O(bytes), beside what a regular expression costs.
    pub fn decode(&self, payloads: &[Option<&[u8]>]) -> Result<Decoded, Error> {
        match self {
            Self::Text(decoder) => decoder.decode(payloads),
            Self::Bytes(decoder) => decoder.decode(payloads),
            Self::Regex(decoder) => decoder.decode(payloads),
            Self::Csv(decoder) => decoder.decode(payloads),
            Self::Json(decoder) => decoder.decode(payloads),
            Self::Avro(decoder) => decoder.decode(payloads),
            Self::Protobuf(decoder) => decoder.decode(payloads),
        }
    }
}
