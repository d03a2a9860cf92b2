//! What is known to be in the log: a file of its own says up to which record it was acknowledged, so that a record that is missing can be told from one that
//! a crash cut short.
//!
//! Owns the file `acknowledged`, its format and its two slots. Must not know records. Called by [`super::LogStore`].
//!
//! Format. Two slots of 4096 bytes, written in turn, so that a torn write leaves the other one: magic, format version, identity of the log, sequence number,
//! epoch of the newest acknowledged record, first epoch of the segment it is in, where it ends there, the epoch that the log was cut for, the epoch that the
//! tables were said to hold, CRC of all these. Version 1 has no last epoch.
//! The valid slot with the larger sequence number counts. All integers are little endian.
//!
//! Invariants. A slot is written after the record it speaks of is on disk, and is on disk before anybody hears of the record. It is written in place: neither
//! a full disk nor a crash of the file system can take the room that it has.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_types::Epoch;

use crate::Error;

const MAGIC: [u8; 8] = *b"FSACK\r\n\0";
/// The format this release writes, and the newest it reads.
const FORMAT_VERSION: u32 = 2;
/// What one write of the disk may tear.
const SLOT_BYTES: u64 = 4096;
/// magic, format version, identity, sequence, five epochs and positions, CRC.
const CONTENT_BYTES: usize = 8 + 4 + 16 + 8 + 8 + 8 + 8 + 8 + 8 + 4;
/// The same in version 1.
const CONTENT_BYTES_V1: usize = CONTENT_BYTES - 8;

/// What was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Epoch of the newest acknowledged record; [`Epoch::MIN`] if there never was one.
    pub(super) epoch: Epoch,
    /// First epoch of the segment that the record is in.
    pub(super) segment: Epoch,
    /// Where the record ends in its segment.
    pub(super) length: u64,
    /// The newest epoch that the log was cut for: the tables hold everything up to it.
    pub(super) cut_through: Epoch,
    /// The newest epoch of which the tables were about to be said to hold everything up to it; `None` if an earlier release wrote this.
    pub(super) committed: Option<Epoch>,
}

/// The file and what it says.
#[derive(Debug)]
pub(super) struct AcknowledgedFile {
    path: PathBuf,
    file: File,
    identity: [u8; 16],
    sequence: u64,
    content: Acknowledged,
}

impl AcknowledgedFile {
    pub(super) fn path_in(dir: &Path) -> PathBuf {
        dir.join("acknowledged")
    }

    /// Opens the file in `dir`, if there is one.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path_in(dir);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io("read", &path))?,
        };
        let second = usize::try_from(SLOT_BYTES).unwrap_or(usize::MAX);
        let mut newest: Option<(u64, [u8; 16], Acknowledged)> = None;
        for start in [0, second] {
            let slot = bytes.get(start..);
            let Some(read) = slot.and_then(decode) else {
                continue;
            };
            if read.version > FORMAT_VERSION {
                return Err(Error::NewerFormat {
                    file: path,
                    found: read.version,
                    supported: FORMAT_VERSION,
                });
            }
            if newest
                .as_ref()
                .is_none_or(|(sequence, ..)| read.sequence > *sequence)
            {
                newest = Some((read.sequence, read.identity, read.content));
            }
        }
        let (sequence, identity, content) =
            newest.ok_or_else(|| Error::damaged(&path, "it is not as it was written"))?;
        let file = open(&path)?;
        Ok(Some(Self {
            path,
            file,
            identity,
            sequence,
            content,
        }))
    }

    /// Makes the file in `dir`, complete or not at all.
    pub(super) fn create(dir: &Path, content: Acknowledged) -> Result<Self, Error> {
        let path = Self::path_in(dir);
        let identity = *uuid::Uuid::new_v4().as_bytes();
        let mut bytes = vec![0; usize::try_from(2 * SLOT_BYTES).unwrap_or_default()];
        let slot = encode(identity, 0, content);
        if let Some(first) = bytes.get_mut(..slot.len()) {
            first.copy_from_slice(&slot);
        }
        flowstone_disk::replace(&path, &bytes, Kind::AcknowledgedFile)
            .map_err(Error::io("write", &path))?;
        let file = open(&path)?;
        Ok(Self {
            path,
            file,
            identity,
            sequence: 0,
            content,
        })
    }

    pub(super) const fn content(&self) -> Acknowledged {
        self.content
    }

    pub(super) const fn identity(&self) -> [u8; 16] {
        self.identity
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Says something else from now on; on disk when it returns.
    pub(super) fn write(&mut self, content: Acknowledged) -> Result<(), Error> {
        if content == self.content {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let offset = if sequence.is_multiple_of(2) {
            0
        } else {
            SLOT_BYTES
        };
        let slot = encode(self.identity, sequence, content);
        failpoint::reached(Kind::AcknowledgedSlot, Step::Write)
            .and_then(|()| self.file.write_all_at(&slot, offset))
            .map_err(Error::io("write", &self.path))?;
        failpoint::reached(Kind::AcknowledgedSlot, Step::Sync)
            .and_then(|()| self.file.sync_data())
            .map_err(Error::io("sync", &self.path))?;
        failpoint::reached(Kind::AcknowledgedSlot, Step::Tell)
            .map_err(Error::io("sync", &self.path))?;
        self.sequence = sequence;
        self.content = content;
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::io("open", path))
}

fn encode(identity: [u8; 16], sequence: u64, content: Acknowledged) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CONTENT_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&identity);
    for number in [
        sequence,
        content.epoch.0,
        content.segment.0,
        content.length,
        content.cut_through.0,
        content.committed.unwrap_or(Epoch::MIN).0,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// A slot that is whole.
struct Slot {
    version: u32,
    identity: [u8; 16],
    sequence: u64,
    content: Acknowledged,
}

fn decode(slot: &[u8]) -> Option<Slot> {
    [CONTENT_BYTES, CONTENT_BYTES_V1]
        .into_iter()
        .find_map(|length| decode_content(slot.get(..length)?))
}

fn decode_content(bytes: &[u8]) -> Option<Slot> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (magic, rest) = content.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (identity, rest) = rest.split_first_chunk::<16>()?;
    let mut numbers = rest.chunks_exact(8).map(|bytes| {
        bytes
            .try_into()
            .map_or(0, |bytes: [u8; 8]| u64::from_le_bytes(bytes))
    });
    let mut next = || numbers.next();
    (*magic == MAGIC).then_some(())?;
    Some(Slot {
        version: u32::from_le_bytes(*version),
        identity: *identity,
        sequence: next()?,
        content: Acknowledged {
            epoch: Epoch(next()?),
            segment: Epoch(next()?),
            length: next()?,
            cut_through: Epoch(next()?),
            committed: next().map(Epoch),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_of_version_1_is_read_and_written_in_the_newest_version() {
        let dir = tempfile::tempdir().unwrap();
        let content = Acknowledged {
            epoch: Epoch(7),
            segment: Epoch(5),
            length: 300,
            cut_through: Epoch(4),
            committed: Some(Epoch(4)),
        };
        let file = AcknowledgedFile::create(dir.path(), content).unwrap();
        let mut bytes = std::fs::read(file.path()).unwrap();
        let mut old = bytes[..CONTENT_BYTES_V1 - 4].to_vec();
        old[8] = 1;
        let crc = crc32fast::hash(&old).to_le_bytes();
        bytes[..old.len()].copy_from_slice(&old);
        bytes[old.len()..old.len() + 4].copy_from_slice(&crc);
        std::fs::write(file.path(), bytes).unwrap();
        let mut file = AcknowledgedFile::open(dir.path()).unwrap().unwrap();
        let before = Acknowledged {
            committed: None,
            ..content
        };
        assert_eq!(file.content(), before);
        let after = Acknowledged {
            epoch: Epoch(8),
            ..content
        };
        file.write(after).unwrap();
        let file = AcknowledgedFile::open(dir.path()).unwrap().unwrap();
        assert_eq!(file.content(), after);
    }
}
