//! Record batches as bytes: one Arrow IPC stream.

use std::io::Cursor;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, SchemaRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// Encodes batches of one schema as an Arrow IPC stream.
///
/// # Errors
/// [`ArrowError`] if a batch does not have `schema`.
pub fn encode_batches(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}

/// Decodes what [`encode_batches`] wrote.
///
/// # Errors
/// [`ArrowError`] if the bytes are not an Arrow IPC stream.
pub fn decode_batches(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    Ok((schema, reader.collect::<Result<Vec<_>, _>>()?))
}

/// A batch in a message: as it is within a process, an Arrow IPC stream of one batch between processes.
#[derive(Clone, Debug, PartialEq)]
pub struct WireBatch(pub RecordBatch);

impl Serialize for WireBatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = encode_batches(&self.0.schema(), std::slice::from_ref(&self.0))
            .map_err(ser::Error::custom)?;
        bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WireBatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let (schema, batches) = decode_batches(&bytes).map_err(de::Error::custom)?;
        match <[RecordBatch; 1]>::try_from(batches) {
            Ok([batch]) => Ok(Self(batch)),
            Err(batches) => Err(de::Error::custom(format!(
                "{} batches of {} columns instead of one batch",
                batches.len(),
                schema.fields().len()
            ))),
        }
    }
}
