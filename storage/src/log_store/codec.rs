//! The bytes of the local log: segment headers, record frames, record payloads.
//!
//! Owns the format described in [`super`]; knows no files, only slices. Everything read is checked: a length is never trusted.

use super::blob::Reference;
use super::{
    Cursor, DeltaBatch, Epoch, Error, HASH_VERSION, LogRecord, ObjectId, Path, StreamReader,
    StreamWriter, Weights,
};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"FSLOG\r\n\0";
/// The format this release writes, and the newest it reads.
pub(super) const FORMAT_VERSION: u32 = 3;
/// magic, format version, hash version, first epoch, epoch before it, CRC.
pub(super) const HEADER_BYTES: usize = HEADER_BYTES_1 + 8;
/// In version 1 no segment says what it follows.
const HEADER_BYTES_1: usize = 8 + 4 + 4 + 8 + 4;
/// payload length, payload CRC, header CRC.
pub(super) const RECORD_HEADER_BYTES: usize = 12;

/// The file name of the segment that starts with `first_epoch`; names sort as epochs do.
pub(super) fn segment_name(first_epoch: Epoch) -> String {
    format!("log-{:020}.fslog", first_epoch.0)
}

/// The first epoch of a segment by its name; `None` for any other file.
pub(super) fn segment_epoch(path: &Path) -> Option<Epoch> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("log-")?
        .strip_suffix(".fslog")?
        .parse()
        .ok()
        .map(Epoch)
}

/// The header of a segment whose first record follows one of epoch `follows`, in whatever segment.
pub(super) fn header(first_epoch: Epoch, follows: Epoch) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&HASH_VERSION.to_le_bytes());
    bytes.extend_from_slice(&first_epoch.0.to_le_bytes());
    bytes.extend_from_slice(&follows.0.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// What the header of a segment says.
pub(super) struct Header {
    pub(super) version: u32,
    /// Where the first record begins.
    pub(super) length: usize,
    /// The epoch of the record before the first; not known in version 1.
    pub(super) follows: Option<Epoch>,
}

/// Whether a segment holds nothing but an incomplete header: short, or allocated but never written.
pub(super) fn is_torn_header(bytes: &[u8]) -> bool {
    bytes.len() < HEADER_BYTES_1
        || (bytes.len() <= HEADER_BYTES && bytes.iter().all(|byte| *byte == 0))
        || (bytes.len() < HEADER_BYTES
            && (2..=FORMAT_VERSION).any(|version| bytes.get(8..12) == Some(&version.to_le_bytes())))
}

pub(super) fn check_header(path: &Path, bytes: &[u8], first_epoch: Epoch) -> Result<Header, Error> {
    let mut reader = Reader { path, bytes };
    if reader.take(8)? != MAGIC {
        return Err(Error::damaged(path, "not a segment of the local log"));
    }
    let version = reader.u32()?;
    if version > FORMAT_VERSION {
        return Err(Error::NewerFormat {
            file: path.to_owned(),
            found: version,
            supported: FORMAT_VERSION,
        });
    }
    let _hash_version = reader.u32()?;
    let epoch = reader.u64()?;
    let (length, follows) = if version == 1 {
        (HEADER_BYTES_1, None)
    } else {
        (HEADER_BYTES, Some(Epoch(reader.u64()?)))
    };
    let crc = reader.u32()?;
    if bytes.get(..length - 4).map(crc32fast::hash) != Some(crc) {
        return Err(Error::damaged(path, "the header is not as it was written"));
    }
    if epoch != first_epoch.0 {
        return Err(Error::damaged(
            path,
            format!("the header says epoch {epoch}, the name {first_epoch}"),
        ));
    }
    Ok(Header {
        version,
        length,
        follows,
    })
}

/// What stands at a position of a segment.
pub(super) enum Frame<'a> {
    /// A whole record: its payload.
    Complete(&'a [u8]),
    /// Not a whole record.
    Broken,
}

/// The bytes of a record with this payload.
pub(super) fn frame(payload: &[u8], segment: Epoch) -> Result<Vec<u8>, Error> {
    let length = length_of(payload.len())?;
    let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc = frame_crc(&bytes, segment);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

fn frame_crc(head: &[u8], segment: Epoch) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.0.to_le_bytes());
    hasher.update(head);
    hasher.finalize()
}

pub(super) fn read_frame(bytes: &[u8], segment: Epoch) -> Frame<'_> {
    let complete = || {
        let head = bytes.get(..8)?;
        let (length, crc) = head.split_at(4);
        let header_crc = u32::from_le_bytes(bytes.get(8..RECORD_HEADER_BYTES)?.try_into().ok()?);
        if frame_crc(head, segment) != header_crc {
            return None;
        }
        let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
        let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES.checked_add(length)?)?;
        (crc32fast::hash(payload) == u32::from_le_bytes(crc.try_into().ok()?)).then_some(payload)
    };
    complete().map_or(Frame::Broken, Frame::Complete)
}

/// Whether a whole record starts anywhere after the first byte: then the broken one before it is damage and not a torn tail.
pub(super) fn has_later_frame(bytes: &[u8], segment: Epoch) -> bool {
    (1..bytes.len()).any(|at| {
        matches!(
            read_frame(bytes.get(at..).unwrap_or_default(), segment),
            Frame::Complete(_)
        )
    })
}

/// How the weights of rows are written: a byte, and the weight of all of them if they have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WeightsKind {
    AllOne,
    Const(i64),
    /// In a column behind the others.
    Column,
}

/// In the place of a kind of weights: the rows are elsewhere. Since version 3.
const BLOB: u8 = 3;

impl WeightsKind {
    fn read_tagged(reader: &mut Reader<'_>) -> Result<(u8, i64), Error> {
        let tag = reader.take(1)?.first().copied().unwrap_or_default();
        let weight = i64::from_le_bytes(reader.u64()?.to_le_bytes());
        Ok((tag, weight))
    }

    fn of(path: &Path, (tag, weight): (u8, i64)) -> Result<Self, Error> {
        match tag {
            0 => Ok(Self::AllOne),
            1 => Ok(Self::Const(weight)),
            2 => Ok(Self::Column),
            other => Err(Error::damaged(path, format!("weights of kind {other}"))),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let tagged = Self::read_tagged(reader)?;
        Self::of(reader.path, tagged)
    }

    pub(super) fn write(self, bytes: &mut Vec<u8>) {
        let (tag, weight): (u8, i64) = match self {
            Self::AllOne => (0, 1),
            Self::Const(weight) => (1, weight),
            Self::Column => (2, 0),
        };
        bytes.push(tag);
        bytes.extend_from_slice(&weight.to_le_bytes());
    }

    /// Rows as they were, and their weights.
    pub(super) fn split(
        self,
        path: &Path,
        rows: RecordBatch,
    ) -> Result<(RecordBatch, Weights), Error> {
        match self {
            Self::AllOne => Ok((rows, Weights::AllOne)),
            Self::Const(weight) => Ok((rows, Weights::Const(weight))),
            Self::Column => split_column(path, &rows),
        }
    }
}

impl WeightsKind {
    pub(super) const fn of_weights(weights: &Weights) -> Self {
        match weights {
            Weights::AllOne => Self::AllOne,
            Weights::Const(weight) => Self::Const(*weight),
            Weights::Array(_) => Self::Column,
        }
    }
}

/// The rows of a batch with their weights, as they are written.
pub(super) fn with_weights(batch: &DeltaBatch) -> Result<(WeightsKind, RecordBatch), Error> {
    Ok(match &batch.weights {
        Weights::AllOne => (WeightsKind::AllOne, batch.rows.clone()),
        Weights::Const(weight) => (WeightsKind::Const(*weight), batch.rows.clone()),
        Weights::Array(weights) => {
            let rows = with_column(&batch.rows, Arc::new(weights.clone()))?;
            (WeightsKind::Column, rows)
        }
    })
}

pub(super) fn encode_record(record: &LogRecord) -> Result<Vec<u8>, Error> {
    let beside: usize = record.blobs.iter().map(|blob| blob.changes.len()).sum();
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&record.epoch.0.to_le_bytes());
    let here = record.changes.len().saturating_sub(beside);
    push_length(&mut bytes, here + record.blobs.len())?;
    let mut blobs = record.blobs.iter().peekable();
    let mut at = 0;
    while let Some((table, delta)) = record.changes.get(at) {
        let table = table.to_string();
        push_length(&mut bytes, table.len())?;
        bytes.extend_from_slice(table.as_bytes());
        bytes.extend_from_slice(&delta.epoch.0.to_le_bytes());
        let stream = if let Some(blob) = blobs.next_if(|blob| blob.changes.start == at) {
            bytes.push(BLOB);
            bytes.extend_from_slice(&0_i64.to_le_bytes());
            at = blob.changes.end;
            encode_reference(blob.reference)
        } else {
            let (kind, rows) = with_weights(delta)?;
            kind.write(&mut bytes);
            let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
            writer.write(&rows)?;
            at += 1;
            writer.into_inner()?
        };
        push_length(&mut bytes, stream.len())?;
        bytes.extend_from_slice(&stream);
    }
    // Refused before any segment is touched.
    length_of(bytes.len())?;
    Ok(bytes)
}

fn encode_reference(reference: Reference) -> Vec<u8> {
    let Reference { name, length, crc } = reference;
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_reference(path: &Path, bytes: &[u8]) -> Result<Reference, Error> {
    let mut reader = Reader { path, bytes };
    let (low, high) = (reader.u64()?, reader.u64()?);
    Ok(Reference {
        name: u128::from(low) | (u128::from(high) << 64),
        length: reader.u64()?,
        crc: reader.u32()?,
    })
}

/// A record as it stands in a segment.
pub(super) struct Decoded {
    pub(super) epoch: Epoch,
    pub(super) changes: Vec<(ObjectId, Content)>,
}

impl Decoded {
    /// What is beside the segment.
    pub(super) fn references(&self) -> impl Iterator<Item = Reference> {
        self.changes
            .iter()
            .filter_map(|(_, content)| match content {
                Content::Here(_) => None,
                Content::Blob(reference, _) => Some(*reference),
            })
    }
}

/// Changes as they stand in a segment.
pub(super) enum Content {
    Here(DeltaBatch),
    /// One or more, elsewhere, and of this epoch.
    Blob(Reference, Epoch),
}

pub(super) fn decode_record(path: &Path, payload: &[u8]) -> Result<Decoded, Error> {
    let mut reader = Reader {
        path,
        bytes: payload,
    };
    let epoch = Epoch(reader.u64()?);
    let count = reader.length()?;
    let mut changes = Vec::new();
    for _ in 0..count {
        let length = reader.length()?;
        let id = std::str::from_utf8(reader.take(length)?)
            .ok()
            .and_then(|id| id.parse::<ObjectId>().ok());
        let id = id.ok_or_else(|| Error::damaged(path, "a record names no object"))?;
        let batch_epoch = Epoch(reader.u64()?);
        let tagged = WeightsKind::read_tagged(&mut reader)?;
        let length = reader.length()?;
        let stream = reader.take(length)?;
        let content = if tagged.0 == BLOB {
            Content::Blob(decode_reference(path, stream)?, batch_epoch)
        } else {
            let rows = StreamReader::try_new(Cursor::new(stream), None)
                .and_then(|mut stream| stream.next().transpose())
                .map_err(|error| Error::damaged(path, error.to_string()))?
                .ok_or_else(|| Error::damaged(path, "a record without rows"))?;
            let (rows, weights) = WeightsKind::of(path, tagged)?.split(path, rows)?;
            Content::Here(DeltaBatch::new(rows, weights, batch_epoch))
        };
        changes.push((id, content));
    }
    Ok(Decoded { epoch, changes })
}

fn with_column(rows: &RecordBatch, weights: ArrayRef) -> Result<RecordBatch, Error> {
    let schema = rows.schema();
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new("weight", DataType::Int64, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(weights);
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())),
        columns,
    )?)
}

fn split_column(path: &Path, rows: &RecordBatch) -> Result<(RecordBatch, Weights), Error> {
    let (last, columns) = rows
        .columns()
        .split_last()
        .ok_or_else(|| Error::damaged(path, "a record without its weights"))?;
    let weights = last
        .as_primitive_opt::<Int64Type>()
        .filter(|weights| weights.null_count() == 0)
        .ok_or_else(|| Error::damaged(path, "weights that are not integers"))?;
    let schema = rows.schema();
    let fields = schema
        .fields()
        .iter()
        .take(columns.len())
        .cloned()
        .collect::<Vec<_>>();
    let rows = RecordBatch::try_new_with_options(
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())),
        columns.to_vec(),
        &RecordBatchOptions::new().with_row_count(Some(rows.num_rows())),
    )?;
    Ok((rows, Weights::Array(weights.clone())))
}

fn push_length(bytes: &mut Vec<u8>, length: usize) -> Result<(), Error> {
    bytes.extend_from_slice(&length_of(length)?.to_le_bytes());
    Ok(())
}

/// A length as records have it.
fn length_of(length: usize) -> Result<u32, Error> {
    u32::try_from(length).map_err(|_| Error::TooLarge {
        bytes: u64::try_from(length).unwrap_or(u64::MAX),
        limit: u64::from(u32::MAX),
    })
}

/// Takes values off the front of a slice; running out of bytes is damage.
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes }
    }

    /// What was not taken.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| Error::damaged(self.path, "it ends too early"))?;
        self.bytes = rest;
        Ok(head)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| {
            Error::damaged(self.path, "it ends too early")
        })?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| {
            Error::damaged(self.path, "it ends too early")
        })?))
    }

    fn length(&mut self) -> Result<usize, Error> {
        usize::try_from(self.u32()?)
            .map_err(|_| Error::damaged(self.path, "a length beyond memory"))
    }
}
