//! Avro's binary encoding, one value at a time, and the prefix of Confluent's registry.
//!
//! Must not know columns. Called by the programs and the encoder of [`crate::avro`].
//!
//! Invariants. Nothing is reserved for a length before the bytes are there. Items and depth are counted across a whole message.

use super::schema::{Kind, NodeId, Schema};
use crate::error::Fault;
use crate::rows::Limits;

/// The first byte of a message with the id of its schema.
const MAGIC: u8 = 0;
/// Bytes of the prefix: the magic and the id.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The id of the schema, and the rest of the message.
pub(crate) fn split_prefix(payload: &[u8]) -> Result<(u32, &[u8]), Fault> {
    match payload.split_first_chunk::<PREFIX_BYTES>() {
        Some(([MAGIC, a, b, c, d], rest)) => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        Some(([magic, ..], _)) => Err(Fault::from(format!(
            "wrong magic byte: expected 0, got {magic}"
        ))),
        None => Err(Fault::from("message is too short for the id of a schema")),
    }
}

/// Appends the prefix.
pub(crate) fn put_prefix(id: u32, out: &mut Vec<u8>) {
    out.push(MAGIC);
    out.extend_from_slice(&id.to_be_bytes());
}

/// Appends an integer of either kind.
pub(crate) fn put_long(value: i64, out: &mut Vec<u8>) {
    // Zigzag: the sign is the lowest bit.
    let mut word = value
        .unsigned_abs()
        .wrapping_mul(2)
        .wrapping_sub(u64::from(value < 0));
    loop {
        let low = u8::try_from(word & 0x7f).unwrap_or(0);
        word >>= 7;
        if word == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends bytes with their length.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_long(i64::try_from(bytes.len()).unwrap_or(i64::MAX), out);
    out.extend_from_slice(bytes);
}

/// Where a message is being read.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// Items that may still come.
    items: usize,
    /// Levels that may still be entered.
    depth: usize,
}

const SHORT: &str = "message ends before its schema does";

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8], limits: Limits) -> Self {
        Self {
            rest: bytes,
            items: limits.items_max,
            depth: limits.depth_max,
        }
    }

    /// Refuses bytes after the end.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            let count = self.rest.len();
            Err(Fault::from(format!(
                "message has {count} bytes more than its schema"
            )))
        }
    }

    pub(crate) fn enter(&mut self) -> Result<(), Fault> {
        self.depth = self
            .depth
            .checked_sub(1)
            .ok_or_else(|| Fault::from("message is nested too deep"))?;
        Ok(())
    }

    pub(crate) fn leave(&mut self) {
        self.depth += 1;
    }

    /// Counts one item.
    pub(crate) fn item(&mut self) -> Result<(), Fault> {
        self.items = self
            .items
            .checked_sub(1)
            .ok_or_else(|| Fault::from("message has too many items"))?;
        Ok(())
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| Fault::from(SHORT))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn long(&mut self) -> Result<i64, Fault> {
        // Lengths and numbers of branches are one byte nearly always.
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                let half = i64::from(byte >> 1);
                Ok(if byte & 1 == 0 { half } else { !half })
            }
            _ => self.long_of_many(),
        }
    }

    /// An integer of more bytes than one, or of none.
    fn long_of_many(&mut self) -> Result<i64, Fault> {
        let mut word = 0_u64;
        let mut shift = 0_u32;
        for (count, byte) in self.rest.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            word |= bits << shift;
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(count + 1..).unwrap_or_default();
                // Both halves fit: the lowest bit is the sign.
                let half = i64::try_from(word >> 1).unwrap_or(i64::MAX);
                return Ok(if word & 1 == 0 { half } else { !half });
            }
            shift += 7;
            if shift > 63 {
                break;
            }
        }
        if shift < 63 {
            return Err(Fault::from(SHORT));
        }
        Err(Fault::from("integer is longer than 64 bits"))
    }

    pub(crate) fn int(&mut self) -> Result<i64, Fault> {
        let value = self.long()?;
        if i32::try_from(value).is_ok() {
            Ok(value)
        } else {
            Err(Fault::from("integer is longer than 32 bits"))
        }
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Fault::from("boolean is neither 0 nor 1")),
        }
    }

    pub(crate) fn float(&mut self) -> Result<f32, Fault> {
        let bytes = self.take(4)?.try_into().map_err(|_| Fault::from(SHORT))?;
        Ok(f32::from_le_bytes(bytes))
    }

    pub(crate) fn double(&mut self) -> Result<f64, Fault> {
        let bytes = self.take(8)?.try_into().map_err(|_| Fault::from(SHORT))?;
        Ok(f64::from_le_bytes(bytes))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| Fault::from("length is negative"))?;
        self.take(length)
    }

    /// The number of a branch or a symbol, below `count`.
    pub(crate) fn index(&mut self, count: usize) -> Result<usize, Fault> {
        let index = self.long()?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index < count)
            .ok_or_else(|| Fault::from("number of a branch or symbol is out of range"))
    }

    /// The next block of an array or map: how many items, and how many bytes they are if that is said. `None` at the end.
    pub(crate) fn block(&mut self) -> Result<Option<(u64, Option<usize>)>, Fault> {
        let count = self.long()?;
        if count == 0 {
            return Ok(None);
        }
        let size = if count < 0 {
            let size = self.long()?;
            Some(usize::try_from(size).map_err(|_| Fault::from("length is negative"))?)
        } else {
            None
        };
        Ok(Some((count.unsigned_abs(), size)))
    }

    /// Skips a value.
    pub(crate) fn skip(&mut self, schema: &Schema, node: NodeId) -> Result<(), Fault> {
        match &schema.node(node).kind {
            Kind::Null => {}
            Kind::Boolean => {
                self.take(1)?;
            }
            Kind::Int | Kind::Long | Kind::Enum { .. } => {
                self.long()?;
            }
            Kind::Float => {
                self.take(4)?;
            }
            Kind::Double => {
                self.take(8)?;
            }
            Kind::Bytes | Kind::String => {
                self.bytes()?;
            }
            Kind::Fixed(size) => {
                self.take(*size)?;
            }
            Kind::Array(items) => self.skip_blocks(schema, *items, false)?,
            Kind::Map(values) => self.skip_blocks(schema, *values, true)?,
            Kind::Union(branches) => {
                let index = self.index(branches.len())?;
                let branch = branches.get(index).copied().unwrap_or(node);
                self.enter()?;
                self.skip(schema, branch)?;
                self.leave();
            }
            Kind::Record(fields) => {
                self.enter()?;
                for field in fields {
                    self.skip(schema, field.node)?;
                }
                self.leave();
            }
        }
        Ok(())
    }

    fn skip_blocks(&mut self, schema: &Schema, item: NodeId, keyed: bool) -> Result<(), Fault> {
        self.enter()?;
        while let Some((count, size)) = self.block()? {
            if let Some(size) = size {
                self.take(size)?;
                continue;
            }
            for _ in 0..count {
                self.item()?;
                if keyed {
                    self.bytes()?;
                }
                self.skip(schema, item)?;
            }
        }
        self.leave();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_survive() {
        for value in [0, 1, -1, 63, 64, -64, -65, 1 << 40, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_long(value, &mut bytes);
            let mut cursor = Cursor::new(&bytes, Limits::default());
            assert_eq!(cursor.long(), Ok(value));
            cursor.finish().unwrap();
        }
        let mut bytes = Vec::new();
        put_long(-1, &mut bytes);
        put_long(64, &mut bytes);
        assert_eq!(bytes, [1, 0x80, 1]);
    }

    #[test]
    fn integers_that_never_end_are_refused() {
        for bytes in [vec![0x80; 3], vec![0x80; 40], vec![0xff; 10]] {
            assert!(Cursor::new(&bytes, Limits::default()).long().is_err());
        }
    }

    #[test]
    fn a_hostile_count_costs_its_limit_at_most() {
        let schema = Schema::parse(r#"{"type":"array","items":"null"}"#, &[]).unwrap();
        let mut bytes = Vec::new();
        put_long(i64::MAX, &mut bytes);
        let limits = Limits {
            items_max: 100,
            ..Limits::default()
        };
        assert!(
            Cursor::new(&bytes, limits)
                .skip(&schema, schema.root())
                .is_err()
        );
    }
}
