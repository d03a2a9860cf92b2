//! Numbers as bytes: seven bits in each, the least significant first, and only as many as are needed.
//!
//! Must not know what the numbers mean. Called by [`super`].
//!
//! Invariants. A number has one form; a longer one is damage. Nothing is reserved for a count that was read: what it promises has to be there.

use super::DecodeError;

/// All but the bit which says that another byte follows.
const BITS: u8 = 0x7f;

/// Appends a number.
pub(super) fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value > u64::from(BITS) {
        let [low, ..] = value.to_le_bytes();
        out.push(low | !BITS);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    out.push(low);
}

/// Appends a number that may be negative: small ones of both signs are short.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_number(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends how many there are of something in memory.
pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    put_number(out, u64::try_from(count).unwrap_or(u64::MAX));
}

/// What is left to read.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Damaged("it is cut short"))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let [byte] = self.array::<1>()?;
        Ok(byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0_u32..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & BITS);
            if ((bits << shift) >> shift) != bits {
                break;
            }
            value |= bits << shift;
            if byte <= BITS {
                let needed = byte > 0 || shift == 0;
                return needed
                    .then_some(value)
                    .ok_or(DecodeError::Damaged("a number is longer than it has to be"));
            }
        }
        Err(DecodeError::Damaged("a number is out of range"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, DecodeError> {
        let value = self.number()?;
        let sign = (value & 1).wrapping_neg();
        Ok(((value >> 1) ^ sign).cast_signed())
    }

    /// Nothing is left.
    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Damaged("it goes on after its end"))
        }
    }
}
