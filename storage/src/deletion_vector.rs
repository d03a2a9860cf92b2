//! Deletion vectors in the Delta protocol's format: which rows of a data file are gone.
//!
//! Owns the bitmap's bytes, the Z85 text of small vectors, and the file layout of large ones. Must not know tables or commits.
//! Format (Delta protocol, "Deletion Vector Format"): magic 1681511377 as `i32` little endian, then a 64-bit roaring bitmap in portable form.
//! Inline: Z85 of that, zero-padded to a multiple of four. In a file: one version byte, then for each vector its size (`i32` big endian), its bytes
//! and their CRC-32 (`i32` big endian).

use std::path::Path;

use roaring::RoaringTreemap;
use serde::{Deserialize, Serialize};

use crate::Error;

const MAGIC: i32 = 1_681_511_377;
/// The largest vector kept inside the log; a larger one goes to a file.
pub(crate) const INLINE_BYTES_MAX: usize = 512;
/// First byte of a file of vectors.
const FILE_VERSION: u8 = 1;
const Z85: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// The `deletionVector` of an `add` or `remove` action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    /// `i` inline, `u` a file named by a UUID, `p` a file named by a path.
    pub(crate) storage_type: String,
    pub(crate) path_or_inline_dv: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) offset: Option<i32>,
    pub(crate) size_in_bytes: i32,
    pub(crate) cardinality: i64,
}

/// The bytes of a bitmap.
pub(crate) fn encode(rows: &RoaringTreemap) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(4 + rows.serialized_size());
    bytes.extend_from_slice(&MAGIC.to_le_bytes());
    rows.serialize_into(&mut bytes)
        .map_err(|error| Error::Invariant(error.to_string()))?;
    Ok(bytes)
}

fn decode(bytes: &[u8], file: &Path) -> Result<RoaringTreemap, Error> {
    let damaged = || Error::damaged(file, "a deletion vector is not readable");
    let (magic, rest) = bytes.split_at_checked(4).ok_or_else(damaged)?;
    if magic != MAGIC.to_le_bytes() {
        return Err(damaged());
    }
    RoaringTreemap::deserialize_from(rest).map_err(|_| damaged())
}

/// The descriptor of a small vector.
pub(crate) fn inline(bytes: &[u8], cardinality: u64) -> Result<Descriptor, Error> {
    Ok(Descriptor {
        storage_type: "i".to_owned(),
        path_or_inline_dv: z85_encode(bytes),
        offset: None,
        size_in_bytes: count(bytes.len())?,
        cardinality: i64::try_from(cardinality)
            .map_err(|_| Error::Invariant("deletion vector too large".to_owned()))?,
    })
}

/// Collects large vectors for one file.
#[derive(Debug)]
pub(crate) struct VectorFile {
    id: uuid::Uuid,
    bytes: Vec<u8>,
}

impl VectorFile {
    pub(crate) fn new(id: uuid::Uuid) -> Self {
        Self {
            id,
            bytes: vec![FILE_VERSION],
        }
    }

    /// Adds a vector and returns its descriptor.
    pub(crate) fn push(&mut self, bytes: &[u8], cardinality: u64) -> Result<Descriptor, Error> {
        let offset = count(self.bytes.len())?;
        let size = count(bytes.len())?;
        self.bytes.extend_from_slice(&size.to_be_bytes());
        self.bytes.extend_from_slice(bytes);
        self.bytes
            .extend_from_slice(&crc32fast::hash(bytes).to_be_bytes());
        Ok(Descriptor {
            storage_type: "u".to_owned(),
            path_or_inline_dv: z85_encode(self.id.as_bytes()),
            offset: Some(offset),
            size_in_bytes: size,
            cardinality: i64::try_from(cardinality)
                .map_err(|_| Error::Invariant("deletion vector too large".to_owned()))?,
        })
    }

    /// The file's name and content; `None` if no vector was added.
    pub(crate) fn finish(self) -> Option<(String, Vec<u8>)> {
        (self.bytes.len() > 1).then(|| (file_name(self.id), self.bytes))
    }
}

fn file_name(id: uuid::Uuid) -> String {
    format!("deletion_vector_{id}.bin")
}

fn count(length: usize) -> Result<i32, Error> {
    i32::try_from(length)
        .map_err(|_| Error::Invariant("deletion vectors of more than 2 GiB".to_owned()))
}

impl Descriptor {
    /// The name of the file that holds the vector, relative to the table; `None` if it is inline.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming `table` if the descriptor is not readable.
    pub(crate) fn file_name(&self, table: &Path) -> Result<Option<String>, Error> {
        match self.storage_type.as_str() {
            "i" => Ok(None),
            "u" => {
                // A random prefix may stand before the 20 characters of the UUID: it is a directory.
                let split = self.path_or_inline_dv.len().checked_sub(20);
                let (prefix, id) = split
                    .and_then(|split| self.path_or_inline_dv.split_at_checked(split))
                    .ok_or_else(|| Error::damaged(table, "a deletion vector has no name"))?;
                let id = z85_decode(id).and_then(|id| uuid::Uuid::from_slice(&id).ok());
                let name = file_name(
                    id.ok_or_else(|| Error::damaged(table, "a deletion vector has no name"))?,
                );
                Ok(Some(if prefix.is_empty() {
                    name
                } else {
                    format!("{prefix}/{name}")
                }))
            }
            other => Err(Error::damaged(
                table,
                format!("a deletion vector of storage type \"{other}\""),
            )),
        }
    }

    /// Reads an inline vector.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming `table`.
    pub(crate) fn read_inline(&self, table: &Path) -> Result<RoaringTreemap, Error> {
        let bytes = z85_decode(&self.path_or_inline_dv);
        let size = usize::try_from(self.size_in_bytes).ok();
        let bytes = bytes
            .as_ref()
            .zip(size)
            .and_then(|(bytes, size)| bytes.get(..size));
        decode(
            bytes.ok_or_else(|| Error::damaged(table, "a deletion vector is not readable"))?,
            table,
        )
    }

    /// Reads the vector out of the content of its file.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming `file`.
    pub(crate) fn read_file(&self, content: &[u8], file: &Path) -> Result<RoaringTreemap, Error> {
        let read = || {
            let offset = usize::try_from(self.offset?).ok()?;
            let size = usize::try_from(self.size_in_bytes).ok()?;
            let rest = content.get(offset..)?;
            let stored = i32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
            let bytes = rest.get(4..size.checked_add(4)?)?;
            let crc =
                u32::from_be_bytes(rest.get(size + 4..size.checked_add(8)?)?.try_into().ok()?);
            (stored == self.size_in_bytes && crc == crc32fast::hash(bytes)).then_some(bytes)
        };
        decode(
            read().ok_or_else(|| {
                Error::damaged(file, "a deletion vector is not as it was written")
            })?,
            file,
        )
    }
}

/// Z85 text; the bytes are padded with zeros to a multiple of four.
fn z85_encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(4) * 5);
    for chunk in bytes.chunks(4) {
        let mut word = [0_u8; 4];
        for (into, from) in word.iter_mut().zip(chunk) {
            *into = *from;
        }
        let word = u32::from_be_bytes(word);
        for power in [85_u32.pow(4), 85_u32.pow(3), 85_u32.pow(2), 85, 1] {
            let digit = usize::try_from(word / power % 85).unwrap_or_default();
            text.push(char::from(Z85.get(digit).copied().unwrap_or_default()));
        }
    }
    text
}

fn z85_decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(5) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 5 * 4);
    for chunk in text.as_bytes().chunks(5) {
        let mut word = 0_u32;
        for character in chunk {
            let digit = Z85.iter().position(|candidate| candidate == character)?;
            word = word
                .checked_mul(85)?
                .checked_add(u32::try_from(digit).ok()?)?;
        }
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z85_gives_the_text_of_its_specification() {
        assert_eq!(
            z85_encode(&[0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B]),
            "HelloWorld"
        );
        assert_eq!(
            z85_decode("HelloWorld").unwrap(),
            [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B]
        );
    }

    #[test]
    fn vectors_survive_both_forms_and_damage_is_noticed() {
        let file = Path::new("t");
        let rows = (0..5000)
            .filter(|row| row % 7 == 0)
            .chain([1 << 33])
            .collect::<RoaringTreemap>();
        let bytes = encode(&rows).unwrap();
        assert_eq!(
            inline(&bytes, rows.len())
                .unwrap()
                .read_inline(file)
                .unwrap(),
            rows
        );
        let id = uuid::Uuid::from_u128(7);
        let mut vectors = VectorFile::new(id);
        let first = vectors.push(&bytes, rows.len()).unwrap();
        let second = vectors
            .push(&encode(&RoaringTreemap::from_iter([3])).unwrap(), 1)
            .unwrap();
        let (name, mut content) = vectors.finish().unwrap();
        assert_eq!(first.file_name(file).unwrap(), Some(name));
        assert_eq!(first.read_file(&content, file).unwrap(), rows);
        assert_eq!(
            second.read_file(&content, file).unwrap(),
            RoaringTreemap::from_iter([3])
        );
        content[20] ^= 1;
        assert!(matches!(
            first.read_file(&content, file),
            Err(Error::Damaged { .. })
        ));
    }
}
