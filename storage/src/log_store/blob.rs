//! Large changes, in files of their own beside the segments.
//!
//! A record has to be on disk before the records behind it, so that whoever writes a row waits for all that is written before. What takes long to write is
//! therefore written as soon as it is known, while epochs go on, and its record only names it: values apart from the log of their keys, as in WiscKey (Lu et al.,
//! 2016) and in the blob files of RocksDB.
//!
//! Owns these files: names, format, and when they may go. Must not know records.
//!
//! Format. `blob-<32 hexadecimal digits>.fsblob`: magic, format version, the kind of the weights and the weight of all rows, then the rows as one Arrow IPC
//! stream of batches. Length and CRC of the whole are in the record that names it. All integers are little endian.
//!
//! Invariants. A file is on disk, with its name, before a record names it. It is there for as long as a record does; one that none names is removed, by who wrote
//! it or when the log is recovered.

use std::fs::File;
use std::io::{Cursor, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_array::{Array, RecordBatch};
use arrow_schema::ArrowError;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_types::{DeltaBatch, Epoch, ObjectId};
use uuid::Uuid;

use super::codec::{self, Reader, WeightsKind};
use crate::Error;

const MAGIC: [u8; 8] = *b"FSBLOB\r\n";
/// The format this release writes, and the newest it reads.
const FORMAT_VERSION: u32 = 1;

/// Rows of one batch of the stream: what is encoded in memory before it is written.
const BATCH_ROWS: usize = 65_536;
/// What is written goes to the disk after so much: to make all of it durable at the end would keep everything waiting that syncs meanwhile.
const SYNC_BYTES: u64 = 4 << 20;

/// Where large changes are written. Clones are the same place.
#[derive(Clone, Debug)]
pub struct LogBlobs {
    dir: PathBuf,
}

/// Changes of one table that are on disk, without their epoch. Removed when the last clone is dropped, unless a record of the log names them.
#[derive(Clone, Debug)]
pub struct LogBlob {
    /// Which changes, among those that were given.
    pub changes: Range<usize>,
    pub(super) reference: Reference,
    file: Arc<BlobFile>,
}

/// A file that goes if nobody names it.
#[derive(Debug)]
struct BlobFile {
    path: PathBuf,
    named: AtomicBool,
}

/// What a record says of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) name: u128,
    /// Bytes of the file.
    pub(super) length: u64,
    pub(super) crc: u32,
}

impl Reference {
    pub(super) fn path_in(self, dir: &Path) -> PathBuf {
        Self::path_of(self.name, dir)
    }

    fn path_of(name: u128, dir: &Path) -> PathBuf {
        dir.join(format!("blob-{name:032x}.fsblob"))
    }
}

/// Whether a file of the log's directory is a blob.
pub(super) fn is_blob(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let digits = name.and_then(|name| name.strip_prefix("blob-")?.strip_suffix(".fsblob"));
    digits.is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

impl LogBlobs {
    /// Changes with fewer bytes are written with their record.
    pub const LARGE_BYTES: u64 = 4 << 20;

    pub(super) fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Writes those changes that are large: neighbours of one table, with weights of one kind. Returns once they are on disk, which may take long. Blocks. Others
    /// may write meanwhile, and the log may be appended to.
    ///
    /// # Errors
    /// [`Error::Io`], for instance when the disk is full; nothing is left then.
    pub fn write_large(&self, changes: &[(ObjectId, DeltaBatch)]) -> Result<Vec<LogBlob>, Error> {
        let kind = |delta: &DeltaBatch| WeightsKind::of_weights(&delta.weights);
        let neighbours = changes.chunk_by(|(table, delta), (next, next_delta)| {
            table == next
                && kind(delta) == kind(next_delta)
                && delta.rows.schema_ref() == next_delta.rows.schema_ref()
        });
        let (mut blobs, mut start) = (Vec::new(), 0);
        for changes in neighbours {
            let range = start..start + changes.len();
            start = range.end;
            let bytes: u64 = changes.iter().map(|(_, delta)| bytes_of(delta)).sum();
            if bytes >= Self::LARGE_BYTES {
                blobs.push(self.write(range, changes)?);
            }
        }
        Ok(blobs)
    }

    fn write(
        &self,
        range: Range<usize>,
        changes: &[(ObjectId, DeltaBatch)],
    ) -> Result<LogBlob, Error> {
        let name = Uuid::new_v4().as_u128();
        let path = Reference::path_of(name, &self.dir);
        let output = File::create_new(&path).map_err(Error::io("create", &path))?;
        // Goes if something fails.
        let file = BlobFile {
            path,
            named: AtomicBool::new(false),
        };
        let mut output = Output {
            path: &file.path,
            file: output,
            crc: crc32fast::Hasher::new(),
            length: 0,
            unsynced: 0,
        };
        encode(changes, &mut output)?;
        let (length, crc) = output.finish()?;
        failpoint::reached(Kind::LogBlob, Step::Directory)
            .and_then(|()| flowstone_disk::sync_directory(&self.dir))
            .map_err(Error::io("sync", &self.dir))?;
        Ok(LogBlob {
            changes: range,
            reference: Reference { name, length, crc },
            file: Arc::new(file),
        })
    }
}

impl LogBlob {
    /// What a record says of it that is on disk: it stays.
    pub(super) fn name(&self) -> Reference {
        self.file.named.store(true, Ordering::Relaxed);
        self.reference
    }

    /// The same, of changes that stand behind so many others.
    #[must_use]
    pub fn behind(self, others: usize) -> Self {
        Self {
            changes: self.changes.start + others..self.changes.end + others,
            ..self
        }
    }
}

impl Drop for BlobFile {
    fn drop(&mut self) {
        if !self.named.load(Ordering::Relaxed) {
            remove_unneeded(&self.path);
        }
    }
}

/// Bytes of the rows. Columns that came together share a buffer: each counts for what it uses of it.
fn bytes_of(delta: &DeltaBatch) -> u64 {
    let columns = delta.rows.columns().iter();
    let bytes = columns.map(|column| {
        let used = column.to_data().get_slice_memory_size();
        used.unwrap_or_else(|_| column.get_array_memory_size())
    });
    u64::try_from(bytes.sum::<usize>()).unwrap_or(u64::MAX)
}

/// Removes a blob that no record names. One that cannot be removed is left for the next start.
pub(super) fn remove_unneeded(path: &Path) {
    if let Err(error) = remove(path) {
        tracing::warn!(%error, "a file that the local log does not need stays until the next start");
    }
}

/// Removes a blob that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    let removed =
        failpoint::reached(Kind::LogBlob, Step::Remove).and_then(|()| std::fs::remove_file(path));
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Reads what a record names, for the epoch that it says.
///
/// # Errors
/// [`Error::Damaged`] if it is not as it was written; [`Error::NewerFormat`]; [`Error::Io`].
pub(super) fn read(
    dir: &Path,
    reference: Reference,
    epoch: Epoch,
) -> Result<Vec<DeltaBatch>, Error> {
    let path = reference.path_in(dir);
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let whole = u64::try_from(bytes.len()) == Ok(reference.length);
    if !whole || crc32fast::hash(&bytes) != reference.crc {
        return Err(Error::damaged(&path, "it is not as it was written"));
    }
    let mut reader = Reader::new(&path, &bytes);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(Error::damaged(&path, "not a blob of the local log"));
    }
    let version = reader.u32()?;
    if version > FORMAT_VERSION {
        return Err(Error::NewerFormat {
            file: path,
            found: version,
            supported: FORMAT_VERSION,
        });
    }
    let kind = WeightsKind::read(&mut reader)?;
    let damaged = |error: ArrowError| Error::damaged(&path, error.to_string());
    let stream = StreamReader::try_new(Cursor::new(reader.rest()), None).map_err(damaged)?;
    let delta = |rows: Result<RecordBatch, _>| {
        let (rows, weights) = kind.split(&path, rows.map_err(damaged)?)?;
        Ok(DeltaBatch::new(rows, weights, epoch))
    };
    stream.map(delta).collect()
}

fn encode(changes: &[(ObjectId, DeltaBatch)], output: &mut Output<'_>) -> Result<(), Error> {
    let path = output.path;
    let refused = |error| match error {
        ArrowError::IoError(_, source) => Error::io("write", path)(source),
        error => error.into(),
    };
    let Some(((_, first), _)) = changes.split_first() else {
        return Err(Error::Invariant("a blob of nothing".to_owned()));
    };
    let (kind, rows) = codec::with_weights(first)?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    kind.write(&mut head);
    output.write_all(&head).map_err(Error::io("write", path))?;
    let mut writer = StreamWriter::try_new(output, rows.schema_ref()).map_err(refused)?;
    for (_, delta) in changes {
        let (_, rows) = codec::with_weights(delta)?;
        for start in (0..rows.num_rows()).step_by(BATCH_ROWS) {
            let batch = rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start));
            writer.write(&batch).map_err(refused)?;
        }
    }
    writer.finish().map_err(refused)
}

/// A file that goes to the disk while it is written.
struct Output<'a> {
    path: &'a Path,
    file: File,
    crc: crc32fast::Hasher,
    length: u64,
    unsynced: u64,
}

impl Output<'_> {
    fn sync(&mut self) -> std::io::Result<()> {
        failpoint::reached(Kind::LogBlob, Step::Sync)?;
        self.unsynced = 0;
        self.file.sync_data()
    }

    fn finish(mut self) -> Result<(u64, u32), Error> {
        self.sync().map_err(Error::io("sync", self.path))?;
        Ok((self.length, self.crc.finalize()))
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        failpoint::reached(Kind::LogBlob, Step::Write)?;
        let written = self.file.write(bytes)?;
        self.crc.update(bytes.get(..written).unwrap_or_default());
        let written_bytes = u64::try_from(written).unwrap_or_default();
        self.length += written_bytes;
        self.unsynced += written_bytes;
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
