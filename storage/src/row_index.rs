//! Where a row stands in a data file, by its hash: what a delete needs to write a deletion vector.
//!
//! Owns the index files in `<table>/_flowstone/` and their cache of open files. An index is a cache: it can be deleted at any time and is rebuilt from
//! the data file. Must not know which rows are already deleted. Called by commits and compaction, on blocking threads.
//!
//! Format of `<data file stem>.rows`: a header (magic, format version, hash version, rows), entries of 20 bytes (128-bit hash of the stored row,
//! 32-bit position) sorted by both, then for each block of 512 entries the high half of its first hash and the CRC of its bytes, then the CRC of header
//! and blocks. All integers are little endian. Nothing is synced: what a power cut tears, a CRC finds.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_types::hash::{HASH_VERSION, hash_rows_128};

use crate::Error;

const MAGIC: [u8; 8] = *b"FSROWS\r\n";
const FORMAT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 4 + 8;
const ENTRY_BYTES: usize = 20;
const FENCE_BYTES: usize = 12;
const BLOCK_ENTRIES: usize = 512;
const BLOCK_BYTES: usize = BLOCK_ENTRIES * ENTRY_BYTES;
/// Open index files kept by one node; far below the usual limit of 1024 descriptors.
const OPEN_FILES_MAX: usize = 256;

/// The hashes of stored rows.
pub(crate) fn hash_stored(rows: &arrow_array::RecordBatch) -> Result<Vec<u128>, Error> {
    Ok(hash_rows_128(rows.columns(), rows.num_rows())?)
}

/// One open index.
#[derive(Debug)]
pub(crate) struct RowIndex {
    file: File,
    rows: usize,
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    first_high: u64,
    crc: u32,
}

/// The index was missing, torn, of another version or of another file.
#[derive(Debug)]
pub(crate) struct Unusable;

const fn high(hash: u128) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.to_be_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Writes the index of a file whose rows have these hashes, in order of position.
///
/// # Errors
/// [`Error::Io`]; the caller may ignore it, since the index is rebuilt when it is missing.
pub(crate) fn write(path: &Path, hashes: &[u128]) -> Result<(), Error> {
    let mut entries = Vec::with_capacity(hashes.len());
    for (position, hash) in hashes.iter().enumerate() {
        let position = u32::try_from(position)
            .map_err(|_| Error::Invariant("data file of more than 2^32 rows".to_owned()))?;
        entries.push((*hash, position));
    }
    entries.sort_unstable();
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    }
    let temporary = path.with_extension(format!("tmp-{}", uuid::Uuid::new_v4().simple()));
    let write = || -> std::io::Result<()> {
        failpoint::reached(Kind::RowIndex, Step::Write)?;
        let mut file = BufWriter::new(File::create(&temporary)?);
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        header.extend_from_slice(&HASH_VERSION.to_le_bytes());
        header.extend_from_slice(
            &u64::try_from(entries.len())
                .unwrap_or(u64::MAX)
                .to_le_bytes(),
        );
        file.write_all(&header)?;
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let mut fences = Vec::new();
        for chunk in entries.chunks(BLOCK_ENTRIES) {
            block.clear();
            for (hash, position) in chunk {
                block.extend_from_slice(&hash.to_le_bytes());
                block.extend_from_slice(&position.to_le_bytes());
            }
            file.write_all(&block)?;
            let first = chunk.first().map_or(0, |(hash, _)| high(*hash));
            fences.extend_from_slice(&first.to_le_bytes());
            fences.extend_from_slice(&crc32fast::hash(&block).to_le_bytes());
        }
        file.write_all(&fences)?;
        file.write_all(&footer_crc(&header, &fences).to_le_bytes())?;
        file.flush()?;
        failpoint::reached(Kind::RowIndex, Step::Name)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _removed = std::fs::remove_file(&temporary);
        Error::io("write", path)(error)
    })
}

fn footer_crc(header: &[u8], fences: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(fences);
    hasher.finalize()
}

impl RowIndex {
    /// Opens the index of a file of `rows` rows.
    pub(crate) fn open(path: &Path, rows: u64) -> Result<Self, Unusable> {
        let file = File::open(path).map_err(|_| Unusable)?;
        let rows = usize::try_from(rows).map_err(|_| Unusable)?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(|_| Unusable)?;
        let mut expected = Vec::with_capacity(HEADER_BYTES);
        expected.extend_from_slice(&MAGIC);
        expected.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        expected.extend_from_slice(&HASH_VERSION.to_le_bytes());
        expected.extend_from_slice(&u64::try_from(rows).map_err(|_| Unusable)?.to_le_bytes());
        if header.as_slice() != expected {
            return Err(Unusable);
        }
        let count = rows.div_ceil(BLOCK_ENTRIES);
        let mut footer = vec![0; count * FENCE_BYTES + 4];
        let offset = u64::try_from(HEADER_BYTES + rows * ENTRY_BYTES).map_err(|_| Unusable)?;
        file.read_exact_at(&mut footer, offset)
            .map_err(|_| Unusable)?;
        let (fences, crc) = footer
            .split_at_checked(count * FENCE_BYTES)
            .ok_or(Unusable)?;
        if footer_crc(&header, fences).to_le_bytes() != crc {
            return Err(Unusable);
        }
        let (fences, _) = fences.as_chunks::<FENCE_BYTES>();
        let blocks = fences
            .iter()
            .map(|[a, b, c, d, e, f, g, h, crc @ ..]| Block {
                first_high: u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
                crc: u32::from_le_bytes(*crc),
            })
            .collect();
        Ok(Self { file, rows, blocks })
    }

    /// Calls `visit` with the position in `sought` and the position in the file of every row whose hash is sought, in ascending order of both.
    ///
    /// `sought` ascends without duplicates. `visit` returns whether it wants more positions of that hash.
    pub(crate) fn lookup(
        &self,
        sought: &[u128],
        mut visit: impl FnMut(usize, u32) -> bool,
    ) -> Result<(), Unusable> {
        let mut loaded: Option<(usize, Vec<(u128, u32)>)> = None;
        for (index, hash) in sought.iter().enumerate() {
            let key = high(*hash);
            // The first block that can hold the hash is the one before the first block that starts at or above it.
            let mut at = self
                .blocks
                .partition_point(|block| block.first_high < key)
                .saturating_sub(1);
            'blocks: while self
                .blocks
                .get(at)
                .is_some_and(|block| block.first_high <= key)
            {
                if loaded.as_ref().is_none_or(|(block, _)| *block != at) {
                    loaded = Some((at, self.read_block(at)?));
                }
                let entries = loaded.as_ref().map_or(&[][..], |(_, entries)| entries);
                let start = entries.partition_point(|(entry, _)| entry < hash);
                for (entry, position) in entries.get(start..).unwrap_or_default() {
                    if entry != hash || !visit(index, *position) {
                        break 'blocks;
                    }
                }
                at += 1;
            }
        }
        Ok(())
    }

    fn read_block(&self, at: usize) -> Result<Vec<(u128, u32)>, Unusable> {
        let block = self.blocks.get(at).ok_or(Unusable)?;
        let first = at * BLOCK_ENTRIES;
        let count = self.rows.saturating_sub(first).min(BLOCK_ENTRIES);
        let mut bytes = vec![0; count * ENTRY_BYTES];
        let offset = u64::try_from(HEADER_BYTES + first * ENTRY_BYTES).map_err(|_| Unusable)?;
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|_| Unusable)?;
        if crc32fast::hash(&bytes) != block.crc {
            return Err(Unusable);
        }
        let mut entries = Vec::with_capacity(count);
        for entry in bytes.chunks_exact(ENTRY_BYTES) {
            let (hash, position) = entry.split_at_checked(16).ok_or(Unusable)?;
            let hash = u128::from_le_bytes(hash.try_into().map_err(|_| Unusable)?);
            entries.push((
                hash,
                u32::from_le_bytes(position.try_into().map_err(|_| Unusable)?),
            ));
        }
        Ok(entries)
    }
}

/// Open indexes, bounded by their number; the one opened first goes first.
#[derive(Debug, Default)]
pub(crate) struct IndexCache {
    open: Mutex<OpenIndexes>,
}

#[derive(Debug, Default)]
struct OpenIndexes {
    by_path: HashMap<PathBuf, Arc<RowIndex>>,
    /// In the order they were opened.
    paths: VecDeque<PathBuf>,
}

impl IndexCache {
    /// The index at `path`, opened if need be.
    pub(crate) fn get(&self, path: &Path, rows: u64) -> Result<Arc<RowIndex>, Unusable> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = open.by_path.get(path) {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(RowIndex::open(path, rows)?);
        while open.paths.len() >= OPEN_FILES_MAX {
            if let Some(oldest) = open.paths.pop_front() {
                open.by_path.remove(&oldest);
            }
        }
        open.by_path.insert(path.to_owned(), Arc::clone(&index));
        open.paths.push_back(path.to_owned());
        Ok(index)
    }

    /// Forgets the index at `path`.
    pub(crate) fn forget(&self, path: &Path) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.by_path.remove(path).is_some() {
            open.paths.retain(|other| other != path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(index: &RowIndex, hash: u128) -> Result<Vec<u32>, Unusable> {
        let mut found = Vec::new();
        index.lookup(&[hash], |_, position| {
            found.push(position);
            true
        })?;
        Ok(found)
    }

    #[test]
    fn every_copy_is_found_also_across_blocks_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.rows");
        let spread = |value: u128| value.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        // Every third row is a copy of one row, so its copies fill more than one block.
        let hashes = (0..6000_u128)
            .map(|row| if row % 3 == 0 { spread(1) } else { spread(row) })
            .collect::<Vec<_>>();
        write(&path, &hashes).unwrap();
        let index = RowIndex::open(&path, 6000).unwrap();
        for hash in [
            spread(1),
            spread(2),
            spread(5999),
            spread(9_999_999),
            0,
            u128::MAX,
        ] {
            let expected = (0..6000_u32)
                .filter(|row| hashes[usize::try_from(*row).unwrap()] == hash)
                .collect::<Vec<_>>();
            assert_eq!(positions(&index, hash).unwrap(), expected);
        }
        assert!(RowIndex::open(&path, 5999).is_err());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEADER_BYTES + 5] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let index = RowIndex::open(&path, 6000).unwrap();
        let smallest = hashes.iter().min().unwrap();
        assert!(positions(&index, *smallest).is_err());
    }
}
