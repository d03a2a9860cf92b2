//! Segments on disk: each an Arrow IPC stream in a file of its own, compressed, in a directory of its source.
//!
//! Owns the files and when they go. Must not know what becomes of what they hold. Called by [`super::Spiller`] and [`super::Spilled`], on threads that may
//! wait for a disk.
//!
//! Invariants. Nothing here survives a crash, or has to: no file is synced, and what an earlier process left is removed unread. A file lives as long as
//! something refers to it.

use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::UInt8Type;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt8Array};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use flowstone_types::{ObjectId, SourceOp};

use super::segment::{Closed, Outline};
use crate::Error;

/// The directory of all sources within that of their state.
const DIRECTORY: &str = "spill";
/// The metadata of a stream that has everything but the rows and their operations, as JSON.
const OUTLINE: &str = "flowstone.outline";
/// The column after those of the table: what each row says.
const OP: &str = "op";

/// Where segments of one source are written.
#[derive(Debug)]
pub(crate) struct SpillDirectory {
    path: PathBuf,
    next: AtomicU64,
}

/// A segment on disk. The file goes with it.
#[derive(Debug)]
pub(crate) struct SpillFile {
    path: PathBuf,
    /// That of the table.
    schema: SchemaRef,
    bytes: u64,
}

/// Removes what an earlier process, or a source that was dropped, has left.
///
/// # Errors
/// [`Error::State`] if that fails.
pub(crate) fn remove_leftovers(state_dir: &Path, source: ObjectId) -> Result<(), Error> {
    let path = directory_of(state_dir, source);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::State {
            path,
            source: error,
        }),
        _ => {
            // It may hold the files of other sources, or not be there at all.
            let _removed = std::fs::remove_dir(state_dir.join(DIRECTORY));
            Ok(())
        }
    }
}

fn directory_of(state_dir: &Path, source: ObjectId) -> PathBuf {
    state_dir.join(DIRECTORY).join(source.to_string())
}

impl SpillDirectory {
    /// It is made when something is written.
    pub(crate) fn new(state_dir: &Path, source: ObjectId) -> Self {
        Self {
            path: directory_of(state_dir, source),
            next: AtomicU64::new(0),
        }
    }

    /// Writes a segment. Blocks.
    ///
    /// # Errors
    /// [`Error::State`]: the disk may be full. Nothing is left of the file then.
    pub(super) fn write(&self, closed: &Closed) -> Result<SpillFile, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}.arrow"));
        let failed = |source| Error::State {
            path: path.clone(),
            source,
        };
        let mut directory = DirBuilder::new();
        directory.recursive(true).mode(0o700);
        directory.create(&self.path).map_err(failed)?;
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        // From here on it goes if something fails.
        let mut written = SpillFile {
            path: path.clone(),
            schema: closed.rows.schema(),
            bytes: 0,
        };
        written.bytes = encode(file, closed).map_err(|error| match error {
            ArrowError::IoError(_, error) => failed(error),
            error => Error::Invariant(error.to_string()),
        })?;
        Ok(written)
    }
}

impl SpillFile {
    /// Its size.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The segment as it was written. Blocks.
    ///
    /// # Errors
    /// [`Error::State`] if the disk does not give it, [`Error::Damaged`] if it is not what was written.
    pub(super) fn read(&self) -> Result<Closed, Error> {
        let damaged = |reason| Error::Damaged {
            path: self.path.clone(),
            reason,
        };
        let file = File::open(&self.path).map_err(ArrowError::from);
        file.and_then(|file| self.decode(file))
            .map_err(|error| match error {
                ArrowError::IoError(_, error) if may_be_read_later(&error) => Error::State {
                    path: self.path.clone(),
                    source: error,
                },
                error => damaged(error.to_string()),
            })?
            .ok_or_else(|| damaged("it does not hold changes".to_owned()))
    }

    fn decode(&self, file: File) -> Result<Option<Closed>, ArrowError> {
        let mut reader = StreamReader::try_new_buffered(file, None)?;
        let schema = reader.schema();
        let outline = schema.metadata().get(OUTLINE);
        let outline = outline.and_then(|json| serde_json::from_str::<Outline>(json).ok());
        let Some(mut outline) = outline else {
            return Ok(None);
        };
        let Some(batch) = reader.next().transpose()? else {
            return Ok(None);
        };
        let Some((ops, columns)) = batch.columns().split_last() else {
            return Ok(None);
        };
        let Some(ops) = ops_of(ops) else {
            return Ok(None);
        };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns.to_vec(),
            &options,
        )?;
        outline.ops = ops;
        Ok(Some(Closed { rows, outline }))
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a file that is not needed any more could not be removed");
        }
    }
}

/// Whether the answer of the operating system says nothing of what is in the file.
fn may_be_read_later(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound
    )
}

/// Writes one stream of one batch; returns the size of the file.
fn encode(file: File, closed: &Closed) -> Result<u64, ArrowError> {
    let batch = with_outline(closed)?;
    let options =
        IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer =
        StreamWriter::try_new_with_options(BufWriter::new(file), batch.schema_ref(), options)?;
    writer.write(&batch)?;
    let file = writer.into_inner()?.into_inner()?;
    Ok(file.metadata()?.len())
}

/// The rows and their operations, with everything else as metadata.
fn with_outline(closed: &Closed) -> Result<RecordBatch, ArrowError> {
    let schema = closed.rows.schema();
    let outline = serde_json::to_string(&closed.outline)
        .map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(OP, DataType::UInt8, false)));
    let mut metadata = schema.metadata().clone();
    metadata.insert(OUTLINE.to_owned(), outline);
    let mut columns = closed.rows.columns().to_vec();
    let codes = closed.outline.ops.iter().map(|op| code(*op));
    columns.push(Arc::new(UInt8Array::from_iter_values(codes)));
    RecordBatch::try_new(
        Arc::new(Schema::new_with_metadata(fields, metadata)),
        columns,
    )
}

fn ops_of(column: &ArrayRef) -> Option<Vec<SourceOp>> {
    let codes = column.as_primitive_opt::<UInt8Type>()?;
    codes.values().iter().map(|code| op(*code)).collect()
}

const fn code(op: SourceOp) -> u8 {
    match op {
        SourceOp::Insert => 0,
        SourceOp::Delete => 1,
        SourceOp::DeleteByKey => 2,
        SourceOp::Upsert => 3,
    }
}

const fn op(code: u8) -> Option<SourceOp> {
    match code {
        0 => Some(SourceOp::Insert),
        1 => Some(SourceOp::Delete),
        2 => Some(SourceOp::DeleteByKey),
        3 => Some(SourceOp::Upsert),
        _ => None,
    }
}
