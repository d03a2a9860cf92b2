//! Payloads as they are: text and bytes.
//!
//! Called by [`crate::Decoder`].

use flowstone_types::SqlType;

use crate::error::Error;
use crate::relation::Relation;
use crate::rows::{Decoded, Limits, Rows, at};

/// Text: one column `text`. A payload that is not UTF-8, or holds a zero character, makes no row.
#[derive(Clone, Debug)]
pub struct TextDecoder {
    relation: Relation,
    limits: Limits,
}

impl TextDecoder {
    /// A decoder.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            relation: Relation::of_one("text", SqlType::Text),
            limits,
        }
    }

    /// The columns of a row.
    #[must_use]
    pub const fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Decodes payloads.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub fn decode(&self, payloads: &[Option<&[u8]>]) -> Result<Decoded, Error> {
        Rows::decode(&self.relation, self.limits, payloads, |payload, columns| {
            Ok(at(columns, 0)?.append_bytes(payload)?)
        })
    }
}

/// Bytes: one column `data`.
#[derive(Clone, Debug)]
pub struct BytesDecoder {
    relation: Relation,
    limits: Limits,
}

impl BytesDecoder {
    /// A decoder.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            relation: Relation::of_one("data", SqlType::Bytea),
            limits,
        }
    }

    /// The columns of a row.
    #[must_use]
    pub const fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Decodes payloads.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub fn decode(&self, payloads: &[Option<&[u8]>]) -> Result<Decoded, Error> {
        Rows::decode(&self.relation, self.limits, payloads, |payload, columns| {
            Ok(at(columns, 0)?.append_bytes(payload)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;

    use super::*;

    #[test]
    fn text_that_is_none_is_a_bad_row_and_not_lost() {
        let payloads = [
            Some(b"caf\xc3\xa9".as_slice()),
            Some(b"\xff"),
            None,
            Some(b"a\0"),
            Some(b""),
        ];
        let decoded = TextDecoder::new(Limits::default())
            .decode(&payloads)
            .unwrap();
        assert_eq!(decoded.rows, [0, 4]);
        assert_eq!(decoded.columns[0].as_string::<i32>().value(0), "café");
        let bad: Vec<u32> = decoded.bad.iter().map(|bad| bad.index).collect();
        assert_eq!(bad, [1, 3]);
    }

    #[test]
    fn bytes_are_kept_whatever_they_are() {
        let decoded = BytesDecoder::new(Limits::default())
            .decode(&[Some(b"\x00\xff"), Some(b"")])
            .unwrap();
        assert_eq!(decoded.columns[0].as_binary::<i32>().value(0), b"\x00\xff");
        assert!(decoded.bad.is_empty());
    }
}
