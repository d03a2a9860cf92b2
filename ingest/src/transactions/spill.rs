//! Segments on disk: each an Arrow IPC stream in a file of its own, compressed, in a directory of its source.
//!
//! Owns the files and when they go. Must not know what becomes of what they hold. Called by [`super::Spiller`], [`super::Spilled`] and
//! [`super::remove_unneeded`], on threads that may wait for a disk.
//!
//! Invariants. Nothing here survives a crash, or has to: no file is synced, and what an earlier process left is removed unread. A file lives at least as long
//! as something refers to it. Whoever lets go of one touches no disk: it may hold the lock of the source. Nothing of a file is decoded before its length and
//! its checksum, which are kept in memory, were found to be those of what was written.

use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, UInt8Type};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt8Array};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use flowstone_types::{ObjectId, SourceOp};
use tokio::sync::Notify;

use super::segment::{Closed, Outline};
use crate::Error;

/// The directory of all sources within that of their state.
const DIRECTORY: &str = "spill";
/// The metadata of a stream that has everything but the rows and their operations, as JSON.
const OUTLINE: &str = "flowstone.outline";
/// The column after those of the table: what each row says.
const OP: &str = "op";
/// The column after that, of messages: the offset after each row's.
const NEXT_OFFSET: &str = "next";
/// Bytes of a file that are summed up at once.
const READ_BYTES: usize = 64 * 1024;

/// The number of the next file of any source: what is left of a source that was started again must not take a file of the new one for its own.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Where segments of one source are written.
#[derive(Debug)]
pub(crate) struct SpillDirectory {
    path: PathBuf,
    unneeded: Arc<Unneeded>,
}

/// A segment on disk. The file is unneeded without it.
#[derive(Debug)]
pub(crate) struct SpillFile {
    path: PathBuf,
    /// That of the table.
    schema: SchemaRef,
    sum: Sum,
    unneeded: Arc<Unneeded>,
}

/// What is known of the bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    bytes: u64,
    crc: u32,
}

/// Files that nothing refers to any more, until they are removed. There are never more than files on disk.
#[derive(Debug, Default)]
struct Unneeded {
    paths: Mutex<Vec<PathBuf>>,
    /// There is one more.
    added: Notify,
}

impl Unneeded {
    fn add(&self, path: PathBuf) {
        self.lock().push(path);
        self.added.notify_one();
    }

    fn take(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Unneeded {
    /// Nothing of the source is left, so there is nobody to wait for it but whoever has it last, on whatever thread that is. If the process ends before they
    /// are gone, they go at the next start.
    fn drop(&mut self) {
        let paths = self.take();
        if paths.is_empty() {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || remove_files(paths))),
            Err(_) => remove_files(paths),
        }
    }
}

/// Removes files that are not needed any more. Blocks.
fn remove_files(paths: Vec<PathBuf>) {
    for path in paths {
        // It is not there if the whole directory was removed before.
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file that is not needed any more could not be removed");
        }
    }
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
            unneeded: Arc::default(),
        }
    }

    /// Waits until there is a file that nothing refers to any more.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn has_unneeded(&self) {
        self.unneeded.added.notified().await;
    }

    /// Removes the files that nothing refers to any more. Blocks.
    pub(crate) fn remove_unneeded(&self) {
        remove_files(self.unneeded.take());
    }

    /// Writes a segment. Blocks.
    ///
    /// # Errors
    /// [`Error::State`]: the disk may be full. What is there of the file is unneeded then.
    pub(super) fn write(&self, closed: &Closed) -> Result<SpillFile, Error> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
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
            sum: Sum::default(),
            unneeded: Arc::clone(&self.unneeded),
        };
        written.sum = encode(file, closed).map_err(|error| match error {
            ArrowError::IoError(_, error) => failed(error),
            error => Error::Invariant(error.to_string()),
        })?;
        Ok(written)
    }
}

impl SpillFile {
    /// Its size.
    pub(super) const fn bytes(&self) -> u64 {
        self.sum.bytes
    }

    /// The segment as it was written. Blocks.
    ///
    /// # Errors
    /// [`Error::State`] if the disk does not give it, [`Error::Damaged`] if it is not what was written.
    pub(super) fn read(&self) -> Result<Closed, Error> {
        let (file, found) = opened(&self.path).map_err(|error| self.unreadable(error))?;
        if found.bytes != self.sum.bytes {
            return Err(self.damaged(format!(
                "it has {} bytes, not {}",
                found.bytes, self.sum.bytes
            )));
        }
        if found.crc != self.sum.crc {
            return Err(self.damaged("its checksum does not match".to_owned()));
        }
        self.decode(file)
            .map_err(|error| match error {
                ArrowError::IoError(_, error) => self.unreadable(error),
                error => self.damaged(error.to_string()),
            })?
            .ok_or_else(|| self.damaged("it does not hold changes".to_owned()))
    }

    fn damaged(&self, reason: String) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            reason,
        }
    }

    fn unreadable(&self, error: io::Error) -> Error {
        if !may_be_read_later(&error) {
            return self.damaged(error.to_string());
        }
        Error::State {
            path: self.path.clone(),
            source: error,
        }
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
        let mut columns = batch.columns();
        if let Some(steps) = &mut outline.steps {
            let Some((next, rest)) = columns.split_last() else {
                return Ok(None);
            };
            let Some(next) = next.as_primitive_opt::<Int64Type>() else {
                return Ok(None);
            };
            steps.next = next.values().to_vec();
            columns = rest;
        }
        let Some((ops, columns)) = columns.split_last() else {
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
        self.unneeded.add(std::mem::take(&mut self.path));
    }
}

/// Sums up what goes through it.
#[derive(Debug)]
struct Summed<T> {
    inner: T,
    bytes: u64,
    hasher: crc32fast::Hasher,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            bytes: 0,
            hasher: crc32fast::Hasher::new(),
        }
    }

    fn sum(self) -> Sum {
        Sum {
            bytes: self.bytes,
            crc: self.hasher.finalize(),
        }
    }
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or(buffer));
        self.bytes += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A file at its beginning, and what its bytes come to.
fn opened(path: &Path) -> io::Result<(File, Sum)> {
    let mut file = File::open(path)?;
    let mut read = Summed::new(io::sink());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => read.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    file.rewind()?;
    Ok((file, read.sum()))
}

/// Whether the answer of the operating system says nothing of what is in the file.
fn may_be_read_later(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::NotFound
    )
}

/// Writes one stream of one batch; returns what was written.
fn encode(file: File, closed: &Closed) -> Result<Sum, ArrowError> {
    let batch = with_outline(closed)?;
    let options =
        IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let output = BufWriter::new(Summed::new(file));
    let mut writer = StreamWriter::try_new_with_options(output, batch.schema_ref(), options)?;
    writer.write(&batch)?;
    let written = writer.into_inner()?.into_inner()?;
    Ok(written.sum())
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
    if let Some(steps) = &closed.outline.steps {
        fields.push(Arc::new(Field::new(NEXT_OFFSET, DataType::Int64, false)));
        columns.push(Arc::new(Int64Array::from(steps.next.clone())));
    }
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
