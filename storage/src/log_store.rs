//! The local log: changes that no upstream can send again, kept until the Delta tables hold them.
//!
//! Owns the segment files of one directory, their format, and the repair of a torn tail.
//! Must not know which statement made a change, or when it may be dropped: the caller says so by [`LogStore::truncate_through`].
//! Called by `worker`'s log thread. Everything here blocks; nothing awaits.
//!
//! Format. A segment is a file `log-<first epoch, 20 digits>.fslog`: a header (magic, format version, hash version, first epoch, epoch of the record before it,
//! CRC of these), then records. The file `acknowledged` says which record was acknowledged last ([`acknowledged`]).
//! A record is a length, the CRC of the payload and the CRC of these two seeded with the segment's first epoch, then the payload: the epoch and, for each
//! table, its id, the weights and the rows as one Arrow IPC stream, or the name of a file that has them ([`blob`]). All integers are little endian.
//!
//! Invariants. Epochs strictly increase over all segments. A record is acknowledged only after `fdatasync`, a segment's name after the directory's `fsync`,
//! and a record counts only after [`LogStore::acknowledge`], which says so in the file `acknowledged`. So only a last record that was not acknowledged can be
//! incomplete: anything else is damage and refused, and what was acknowledged is there or its absence is refused.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_types::hash::HASH_VERSION;
use flowstone_types::{DeltaBatch, Epoch, ObjectId, Weights};

use crate::Error;

mod acknowledged;
mod blob;
mod codec;
#[cfg(test)]
mod tests;

use acknowledged::{Acknowledged, AcknowledgedFile};
use blob::Reference;
pub use blob::{LogBlob, LogBlobs};
use codec::{Content, Decoded, HEADER_BYTES, RECORD_HEADER_BYTES};

/// A segment past this size is closed and the next append opens a new one.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// `truncate_through` closes a segment it cannot drop from this size on, so that the next call can.
const SEGMENT_BYTES_ROTATE: u64 = 4 << 20;

/// Durable log of changes that no upstream can replay. One per node; synchronous: the caller runs it on its own thread.
#[derive(Debug)]
pub struct LogStore {
    dir: PathBuf,
    /// Closed segments, oldest first.
    closed: Vec<Segment>,
    open: Option<OpenSegment>,
    last_epoch: Epoch,
    /// `None` before [`LogStore::recover`] if no release that knows the file has opened the log.
    acknowledged: Option<AcknowledgedFile>,
    /// A segment that a crash left without a whole header.
    headless: Option<PathBuf>,
    /// Blobs of segments that were dropped.
    unneeded: Vec<PathBuf>,
    /// Segments were dropped, which a crash could bring back.
    dropped: bool,
    #[cfg(test)]
    bytes_free: Option<u64>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    /// Epoch of the record before the first, if the segment says it.
    follows: Option<Epoch>,
    last_epoch: Epoch,
    /// What its records name.
    blobs: Vec<PathBuf>,
}

#[derive(Debug)]
struct OpenSegment {
    segment: Segment,
    file: File,
    first_epoch: Epoch,
    /// Its format.
    version: u32,
    /// Bytes of acknowledged content.
    length: u64,
    /// Bytes of the blobs that its records name.
    blob_bytes: u64,
    /// Whether bytes past `length` may exist, left by a failed append.
    dirty_tail: bool,
}

/// What [`LogStore::recover`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Identity of the log, chosen when it was made.
    pub identity: [u8; 16],
    /// Epoch of the newest record that was ever acknowledged.
    pub newest: Epoch,
    /// The newest epoch that the log was cut for.
    pub cut_through: Epoch,
}

impl LogState {
    const fn of(file: &AcknowledgedFile) -> Self {
        let content = file.content();
        Self {
            identity: file.identity(),
            newest: content.epoch,
            cut_through: content.cut_through,
        }
    }
}

/// The changes of one epoch.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// The epoch. Batches carry their own, which is kept as it is.
    pub epoch: Epoch,
    /// The changes, by table. A table may occur more than once.
    pub changes: Vec<(ObjectId, DeltaBatch)>,
    /// Which of them are on disk already, but for their epochs. None of what was read from the log.
    pub blobs: Vec<LogBlob>,
}

impl LogStore {
    /// Opens the log in `dir`, which is made if it does not exist, and returns its records in the order of their epochs.
    ///
    /// A record that a crash left incomplete at the very end is left out: it was never acknowledged. Nothing is changed on disk before [`LogStore::recover`].
    ///
    /// # Errors
    /// [`Error::Damaged`] if anything that was acknowledged is not as written; [`Error::NewerFormat`]; [`Error::Io`].
    pub fn open(dir: &Path) -> Result<(Self, Vec<LogRecord>), Error> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let path = entry.map_err(Error::io("list", dir))?.path();
            if let Some(first) = codec::segment_epoch(&path) {
                paths.push((first, path));
            }
        }
        paths.sort();
        let mut store = Self {
            dir: dir.to_owned(),
            closed: Vec::new(),
            open: None,
            last_epoch: Epoch::MIN,
            acknowledged: AcknowledgedFile::open(dir)?,
            headless: None,
            unneeded: Vec::new(),
            dropped: false,
            #[cfg(test)]
            bytes_free: None,
        };
        let mut records = Vec::new();
        let count = paths.len();
        for (position, (first_epoch, path)) in paths.into_iter().enumerate() {
            let is_last = position + 1 == count;
            store.read_segment(first_epoch, path, is_last, &mut records)?;
        }
        store.check_acknowledged(&records)?;
        Ok((store, records))
    }

    /// Whether the file `acknowledged` is of this log and not of an earlier state of it: at most one record can be newer.
    fn check_acknowledged(&self, records: &[LogRecord]) -> Result<(), Error> {
        let Some(file) = &self.acknowledged else {
            return Ok(());
        };
        let acknowledged = file.content().epoch;
        let newer = records
            .iter()
            .filter(|record| record.epoch > acknowledged)
            .count();
        if newer > 1 {
            let reason = format!("it is older than the log: {newer} records are newer");
            return Err(Error::damaged(file.path(), reason));
        }
        Ok(())
    }

    /// Checks that everything that was acknowledged and is not in the tables is there; then settles what a crash left half done. To be called once, before
    /// anything is appended.
    ///
    /// `commit_point`: the tables hold everything up to it. `identity`: that of the log that must be there, if it is known. If the log was cut for a later
    /// epoch than `commit_point`, nothing is checked and nothing is changed: the caller's state is too old and must not be used.
    ///
    /// # Errors
    /// [`Error::Damaged`], naming the file that is missing or lacks something; [`Error::Io`].
    pub fn recover(
        &mut self,
        commit_point: Epoch,
        identity: Option<[u8; 16]>,
    ) -> Result<LogState, Error> {
        let path = AcknowledgedFile::path_in(&self.dir);
        match (&self.acknowledged, identity) {
            (None, Some(_)) => return Err(Error::damaged(&path, "it is missing")),
            (Some(file), Some(expected)) if file.identity() != expected => {
                return Err(Error::damaged(&path, "it is of another log"));
            }
            _ => {}
        }
        if let Some(file) = &self.acknowledged
            && file.content().cut_through > commit_point
        {
            // What the caller knows is older than the tables: whatever is missing here is not the log's fault.
            return Ok(LogState::of(file));
        }
        if let Some(file) = &self.acknowledged
            && let Some(committed) = file.content().committed
            && committed < commit_point
        {
            let reason = format!(
                "it is older than the tables, which were committed up to epoch {commit_point} after epoch {committed}: records may be missing"
            );
            return Err(Error::damaged(file.path(), reason));
        }
        self.check_chain(commit_point)?;
        if let Some(path) = self.headless.take() {
            // The crash hit between making the segment and its first record.
            failpoint::reached(Kind::LogCut, Step::Remove)
                .and_then(|()| std::fs::remove_file(&path))
                .map_err(Error::io("remove", &path))?;
            failpoint::reached(Kind::LogCut, Step::Directory)
                .and_then(|()| flowstone_disk::sync_directory(&self.dir))
                .map_err(Error::io("sync", &self.dir))?;
        }
        self.settle()?;
        self.remove_unnamed_blobs()?;
        if self.acknowledged.is_none() {
            let content = Acknowledged {
                committed: Some(commit_point),
                ..self.newest_record(Acknowledged::default())
            };
            self.acknowledged = Some(AcknowledgedFile::create(&self.dir, content)?);
        }
        if self.acknowledged_file()?.content().committed.is_none() {
            self.note_commit(commit_point)?;
        }
        // A record whose acknowledgement was cut short is run again, and counts from then on.
        self.acknowledge()?;
        let state = LogState::of(self.acknowledged_file()?);
        self.last_epoch = self.last_epoch.max(state.newest);
        Ok(state)
    }

    /// Each segment follows the one before it, and the last acknowledged record is there, as far as the tables do not have it anyway.
    fn check_chain(&self, commit_point: Epoch) -> Result<(), Error> {
        let segments = || {
            self.closed
                .iter()
                .chain(self.open.as_ref().map(|open| &open.segment))
        };
        let mut before = None;
        for segment in segments() {
            if let Some(follows) = segment.follows
                && before.map_or(follows > commit_point, |before| before != follows)
            {
                let reason = format!("the records before it, up to epoch {follows}, are missing");
                return Err(Error::damaged(&segment.path, reason));
            }
            before = Some(segment.last_epoch);
        }
        let Some(file) = &self.acknowledged else {
            return Ok(());
        };
        let content = file.content();
        if content.epoch > commit_point && self.last_epoch < content.epoch {
            let path = self.dir.join(codec::segment_name(content.segment));
            let reason = if path.exists() {
                format!(
                    "the record of epoch {}, which was acknowledged, is missing",
                    content.epoch
                )
            } else {
                "it is missing".to_owned()
            };
            return Err(Error::damaged(&path, reason));
        }
        Ok(())
    }

    /// Where changes can be written that are too large to be written with their record.
    #[must_use]
    pub fn blobs(&self) -> LogBlobs {
        LogBlobs::in_dir(&self.dir)
    }

    /// Removes what a crash has left of writes that never got a record. What cannot be removed stays until the next start: it only takes room.
    fn remove_unnamed_blobs(&self) -> Result<(), Error> {
        let open = self.open.iter().map(|open| &open.segment);
        let segments = self.closed.iter().chain(open);
        let named: BTreeSet<&PathBuf> = segments.flat_map(|segment| &segment.blobs).collect();
        for entry in std::fs::read_dir(&self.dir).map_err(Error::io("list", &self.dir))? {
            let path = entry.map_err(Error::io("list", &self.dir))?.path();
            if blob::is_blob(&path) && !named.contains(&path) {
                blob::remove_unneeded(&path);
            }
        }
        Ok(())
    }

    fn acknowledged_file(&self) -> Result<&AcknowledgedFile, Error> {
        self.acknowledged
            .as_ref()
            .ok_or_else(|| Error::Invariant("the local log was not recovered".to_owned()))
    }

    /// What the file `acknowledged` is to say of the newest record.
    fn newest_record(&self, before: Acknowledged) -> Acknowledged {
        self.open
            .as_ref()
            .map_or_else(Acknowledged::default, |open| Acknowledged {
                epoch: open.segment.last_epoch,
                segment: open.first_epoch,
                length: open.length,
                ..before
            })
    }

    /// Notes that the newest record is acknowledged from now on; to be called before anybody hears of it. Returns once that is on disk.
    ///
    /// # Errors
    /// [`Error::Io`]; to be tried again. [`Error::Invariant`] before [`LogStore::recover`].
    pub fn acknowledge(&mut self) -> Result<(), Error> {
        let before = self.acknowledged_file()?.content();
        let content = self.newest_record(before);
        match &mut self.acknowledged {
            Some(file) if content.epoch > before.epoch => file.write(content),
            _ => Ok(()),
        }
    }

    fn read_segment(
        &mut self,
        first_epoch: Epoch,
        path: PathBuf,
        is_last: bool,
        records: &mut Vec<LogRecord>,
    ) -> Result<(), Error> {
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let content = self.acknowledged.as_ref().map(AcknowledgedFile::content);
        let acknowledged = content
            .filter(|content| content.segment == first_epoch && content.epoch >= first_epoch)
            .map_or(0, |content| content.length);
        if is_last && acknowledged == 0 && codec::is_torn_header(&bytes) {
            self.headless = Some(path);
            return Ok(());
        }
        let header = codec::check_header(&path, &bytes, first_epoch)?;
        let mut at = header.length;
        let before = self.last_epoch;
        let (mut blobs, mut blob_bytes) = (Vec::new(), 0_u64);
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let may_be_torn = || {
                is_last && !codec::has_later_frame(rest, first_epoch) && is_past(at, acknowledged)
            };
            let codec::Frame::Complete(payload) = codec::read_frame(rest, first_epoch) else {
                if may_be_torn() {
                    break;
                }
                return Err(Error::damaged(
                    &path,
                    format!("the record at byte {at} is not as it was written"),
                ));
            };
            let decoded = codec::decode_record(&path, payload)?;
            if decoded.epoch <= self.last_epoch {
                return Err(Error::damaged(
                    &path,
                    format!("epoch {} follows {}", decoded.epoch, self.last_epoch),
                ));
            }
            let named: Vec<Reference> = decoded.references().collect();
            if let Some(missing) = named
                .iter()
                .find(|named| !named.path_in(&self.dir).exists())
            {
                // Who wrote it removed it again when the record could not be made durable.
                if may_be_torn() {
                    break;
                }
                let missing = missing.path_in(&self.dir);
                return Err(Error::damaged(&missing, "it is missing"));
            }
            self.last_epoch = decoded.epoch;
            records.push(self.complete(decoded)?);
            blob_bytes += named.iter().map(|named| named.length).sum::<u64>();
            blobs.extend(named.iter().map(|named| named.path_in(&self.dir)));
            at += RECORD_HEADER_BYTES + payload.len();
        }
        let length = u64::try_from(at)
            .map_err(|_| Error::Invariant("segment longer than 2^64 bytes".to_owned()))?;
        if length < acknowledged {
            return Err(Error::damaged(
                &path,
                format!(
                    "the record at byte {at}, which was acknowledged, is not as it was written"
                ),
            ));
        }
        let segment = Segment {
            path,
            follows: header.follows,
            last_epoch: if self.last_epoch > before {
                self.last_epoch
            } else {
                header.follows.unwrap_or(self.last_epoch)
            },
            blobs,
        };
        if !is_last {
            self.closed.push(segment);
            return Ok(());
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&segment.path)
            .map_err(Error::io("open", &segment.path))?;
        self.open = Some(OpenSegment {
            segment,
            file,
            first_epoch,
            version: header.version,
            length,
            blob_bytes,
            dirty_tail: at < bytes.len(),
        });
        Ok(())
    }

    /// A record with what is beside its segment.
    fn complete(&self, decoded: Decoded) -> Result<LogRecord, Error> {
        let mut changes = Vec::new();
        for (table, content) in decoded.changes {
            match content {
                Content::Here(delta) => changes.push((table, delta)),
                Content::Blob(reference, epoch) => {
                    let deltas = blob::read(&self.dir, reference, epoch)?;
                    changes.extend(deltas.into_iter().map(|delta| (table, delta)));
                }
            }
        }
        Ok(LogRecord {
            epoch: decoded.epoch,
            changes,
            blobs: Vec::new(),
        })
    }

    /// Appends a record and returns once it is on disk.
    ///
    /// After an error the log is as it was before the call, and appending again is allowed.
    ///
    /// # Errors
    /// [`Error::Io`], for instance when the disk is full; [`Error::TooLarge`]; [`Error::Invariant`] if the epoch is not above all earlier ones.
    pub fn append(&mut self, record: &LogRecord) -> Result<(), Error> {
        if record.epoch <= self.last_epoch {
            return Err(Error::Invariant(format!(
                "log record of epoch {} after epoch {}",
                record.epoch, self.last_epoch
            )));
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.length >= SEGMENT_BYTES_MAX)
        {
            self.close_segment();
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.version < codec::FORMAT_VERSION)
        {
            // An earlier release could not read what is written from now on, and would take it for damage.
            self.settle()?;
            self.close_segment();
        }
        let payload = codec::encode_record(record)?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.create_segment(record.epoch)?,
        };
        let result = self.append_frame(&mut open, &payload);
        if result.is_ok() {
            open.segment.last_epoch = record.epoch;
            self.last_epoch = record.epoch;
            for blob in &record.blobs {
                let reference = blob.name();
                open.blob_bytes += reference.length;
                open.segment.blobs.push(reference.path_in(&self.dir));
            }
        } else {
            open.dirty_tail = true;
            if let Err(error) = open.cut_tail() {
                // The next append tries again before it writes.
                tracing::warn!(%error, "could not cut off a partial log record");
            }
        }
        self.open = Some(open);
        result
    }

    /// Cuts off what a failed append may have left behind, if it could not do so itself: until then it may come back after a restart.
    ///
    /// # Errors
    /// [`Error::Io`]; to be tried again.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.open.as_mut().map_or(Ok(()), OpenSegment::cut_tail)
    }

    fn append_frame(&self, open: &mut OpenSegment, payload: &[u8]) -> Result<(), Error> {
        open.cut_tail()?;
        let frame = codec::frame(payload, open.first_epoch)?;
        let path = open.segment.path.clone();
        failpoint::reached(Kind::LogRecord, Step::Write)
            .and_then(|()| self.write_at(&open.file, &frame, open.length))
            .map_err(Error::io("write", &path))?;
        failpoint::reached(Kind::LogRecord, Step::Sync)
            .and_then(|()| open.file.sync_data())
            .map_err(Error::io("sync", &path))?;
        open.length += u64::try_from(frame.len()).unwrap_or_default();
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        reason = "tests look up the free space of their pretended disk here"
    )]
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    #[cfg(test)]
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let room = self.bytes_free.map_or(bytes.len(), |free| {
            usize::try_from(free).unwrap().min(bytes.len())
        });
        file.write_all_at(&bytes[..room], offset)?;
        if room < bytes.len() {
            Err(std::io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn create_segment(&self, first_epoch: Epoch) -> Result<OpenSegment, Error> {
        let path = self.dir.join(codec::segment_name(first_epoch));
        let created = self.write_segment_header(&path, first_epoch);
        if created.is_err() {
            // An incomplete header is forgiven in the last segment only, and the next epoch makes a segment after this one.
            let _removed = std::fs::remove_file(&path);
        }
        Ok(OpenSegment {
            file: created?,
            segment: Segment {
                path,
                follows: Some(self.last_epoch),
                last_epoch: self.last_epoch,
                blobs: Vec::new(),
            },
            first_epoch,
            version: codec::FORMAT_VERSION,
            length: u64::try_from(HEADER_BYTES).unwrap_or_default(),
            blob_bytes: 0,
            dirty_tail: false,
        })
    }

    fn write_segment_header(&self, path: &Path, first_epoch: Epoch) -> Result<File, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(Error::io("create", path))?;
        failpoint::reached(Kind::LogSegment, Step::Write)
            .and_then(|()| self.write_at(&file, &codec::header(first_epoch, self.last_epoch), 0))
            .map_err(Error::io("write", path))?;
        failpoint::reached(Kind::LogSegment, Step::Sync)
            .and_then(|()| file.sync_all())
            .map_err(Error::io("sync", path))?;
        failpoint::reached(Kind::LogSegment, Step::Directory)
            .and_then(|()| flowstone_disk::sync_directory(&self.dir))
            .map_err(Error::io("sync", &self.dir))?;
        Ok(file)
    }

    fn close_segment(&mut self) {
        if let Some(open) = self.open.take() {
            self.closed.push(open.segment);
        }
    }

    /// Notes that the tables are about to be said to hold everything up to `epoch`; to be called before anybody hears of it. So a log that does not know of
    /// what the tables hold is an older one. Returns once that is on disk.
    ///
    /// # Errors
    /// [`Error::Io`]; to be tried again. [`Error::Invariant`] before [`LogStore::recover`].
    pub fn note_commit(&mut self, epoch: Epoch) -> Result<(), Error> {
        let before = self.acknowledged_file()?.content();
        match &mut self.acknowledged {
            Some(file) => file.write(Acknowledged {
                committed: before.committed.max(Some(epoch)),
                ..before
            }),
            None => Ok(()),
        }
    }

    /// Drops the segments whose epochs are all at or below `epoch`: the tables hold them now. Records above stay. That the log was cut for this epoch is noted
    /// first, so that an older state of the tables is never taken for the newest.
    ///
    /// # Errors
    /// [`Error::Io`]; what could not be dropped is dropped by a later call. [`Error::Invariant`] before [`LogStore::recover`].
    pub fn truncate_through(&mut self, epoch: Epoch) -> Result<(), Error> {
        let before = self.acknowledged_file()?.content();
        if let Some(file) = &mut self.acknowledged {
            file.write(Acknowledged {
                cut_through: before.cut_through.max(epoch),
                committed: before.committed.max(Some(epoch)),
                ..before
            })?;
        }
        let whole = self
            .open
            .as_ref()
            .is_some_and(|open| open.segment.last_epoch <= epoch);
        let large = self.open.as_ref().is_some_and(|open| {
            open.length + open.blob_bytes >= SEGMENT_BYTES_ROTATE && !open.dirty_tail
        });
        if whole || large {
            self.close_segment();
        }
        while let Some(segment) = self
            .closed
            .first()
            .filter(|segment| segment.last_epoch <= epoch)
        {
            let removed = failpoint::reached(Kind::LogCut, Step::Remove)
                .and_then(|()| std::fs::remove_file(&segment.path));
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &segment.path)(error));
                }
                _ => self.dropped = true,
            }
            self.unneeded.append(&mut self.closed.remove(0).blobs);
        }
        if self.dropped {
            failpoint::reached(Kind::LogCut, Step::Directory)
                .and_then(|()| flowstone_disk::sync_directory(&self.dir))
                .map_err(Error::io("sync", &self.dir))?;
            self.dropped = false;
        }
        // Not before the records that name them are gone for good.
        while let Some(path) = self.unneeded.last() {
            blob::remove(path)?;
            self.unneeded.pop();
        }
        Ok(())
    }
}

/// Whether a position of a segment is behind what was acknowledged.
fn is_past(at: usize, acknowledged: u64) -> bool {
    u64::try_from(at).is_ok_and(|at| at >= acknowledged)
}

impl OpenSegment {
    /// Cuts the file back to the acknowledged records.
    fn cut_tail(&mut self) -> Result<(), Error> {
        if self.dirty_tail {
            failpoint::reached(Kind::LogTail, Step::Write)
                .and_then(|()| self.file.set_len(self.length))
                .map_err(Error::io("truncate", &self.segment.path))?;
            failpoint::reached(Kind::LogTail, Step::Sync)
                .and_then(|()| self.file.sync_all())
                .map_err(Error::io("sync", &self.segment.path))?;
            self.dirty_tail = false;
        }
        Ok(())
    }
}
