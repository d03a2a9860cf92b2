//! Rows on their way from payloads into columns, and the payloads that make none.
//!
//! Owns the columns of one call, the undoing of a row that failed half way, and the limits on what a message may ask for.
//! Must not know any format. Called by every decoder.
//!
//! Invariants. A payload makes one row or none, or as many as it says. One that failed leaves nothing behind. Columns have equal lengths between payloads.

use arrow_array::ArrayRef;
use flowstone_types::value::ColumnBuilder;

use crate::error::{Error, Fault};
use crate::relation::Relation;

/// Bytes of payloads in one call. Columns of text hold 2 GiB; what a payload becomes is not eight times as large.
pub const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What one message may ask for, so that a hostile one costs no more than its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message.
    pub message_bytes_max: usize,
    /// Levels of nested values in a message.
    pub depth_max: usize,
    /// Items of all arrays and maps of a message together. Items of no bytes exist (nulls, records without fields), so bytes alone are no bound.
    pub items_max: usize,
}

impl Default for Limits {
    /// Generous: more than brokers take unless they are told to (1 MB), and what a document may hold.
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1024 * 1024,
            depth_max: 128,
            items_max: 4 * 1024 * 1024,
        }
    }
}

/// A payload that makes no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Which payload of the call.
    pub index: u32,
    /// Why: lower case, no full stop.
    pub reason: String,
}

/// What the payloads of one call became. Payloads that are absent (null) are in neither list.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The columns of the decoder's relation, one row for each entry of `rows`.
    pub columns: Vec<ArrayRef>,
    /// Which payload each row is from, ascending.
    pub rows: Vec<u32>,
    /// The payloads that make no row, ascending.
    pub bad: Vec<BadRow>,
}

impl Decoded {
    /// The row of a payload.
    ///
    /// Cost: O(1) as long as every payload before it made a row, else O(log rows).
    #[must_use]
    pub fn row_of(&self, index: u32) -> Option<usize> {
        let place = usize::try_from(index).ok()?;
        if self.rows.get(place) == Some(&index) {
            return Some(place);
        }
        // Rows are ascending: a payload is never further back than its number.
        let before = self.rows.get(..place).unwrap_or(&self.rows);
        before.binary_search(&index).ok()
    }

    /// Why a payload made no row, if it was there.
    ///
    /// Cost: O(log rows).
    #[must_use]
    pub fn reason_of(&self, index: u32) -> Option<&str> {
        let found = self
            .bad
            .binary_search_by_key(&index, |bad| bad.index)
            .ok()?;
        self.bad.get(found).map(|bad| bad.reason.as_str())
    }
}

/// The columns of a call while they are filled.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Vec<ColumnBuilder>,
    nullable: Vec<bool>,
    rows: Vec<u32>,
    bad: Vec<BadRow>,
}

impl Rows {
    fn new(relation: &Relation, capacity: usize) -> Self {
        Self {
            columns: relation
                .columns
                .iter()
                .map(|column| ColumnBuilder::new(&column.sql_type, capacity))
                .collect(),
            nullable: relation
                .columns
                .iter()
                .map(|column| column.nullable)
                .collect(),
            rows: Vec::with_capacity(capacity),
            bad: Vec::new(),
        }
    }

    /// Decodes each payload with `read`, which appends at most one cell to each column. Columns it left out become NULL.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub(crate) fn decode<'a>(
        relation: &Relation,
        limits: Limits,
        payloads: &[Option<&'a [u8]>],
        mut read: impl FnMut(&'a [u8], &mut [ColumnBuilder]) -> Result<(), Fault>,
    ) -> Result<Decoded, Error> {
        check_size(payloads)?;
        let mut rows = Self::new(relation, payloads.len());
        for (index, payload) in (0_u32..).zip(payloads) {
            let Some(payload) = *payload else { continue };
            let outcome = if payload.len() > limits.message_bytes_max {
                let most = limits.message_bytes_max;
                Err(Fault::from(format!("message is larger than {most} bytes")))
            } else {
                read(payload, &mut rows.columns)
            };
            match outcome.and_then(|()| rows.complete()) {
                Ok(()) => rows.rows.push(index),
                Err(fault) => rows.refuse(index, fault),
            }
        }
        Ok(rows.finish())
    }

    /// As [`Rows::decode`], of payloads that make any number of rows: `read` is given the number of the payload, and ends each row with [`Rows::end_row`].
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub(crate) fn decode_many<'a>(
        relation: &Relation,
        limits: Limits,
        payloads: &[Option<&'a [u8]>],
        mut read: impl FnMut(u32, &'a [u8], &mut Self) -> Result<(), Fault>,
    ) -> Result<Decoded, Error> {
        check_size(payloads)?;
        let mut rows = Self::new(relation, payloads.len());
        for (index, payload) in (0_u32..).zip(payloads) {
            let Some(payload) = *payload else { continue };
            let before = rows.rows.len();
            let outcome = if payload.len() > limits.message_bytes_max {
                let most = limits.message_bytes_max;
                Err(Fault::from(format!("message is larger than {most} bytes")))
            } else {
                read(index, payload, &mut rows)
            };
            if let Err(fault) = outcome {
                rows.rows.truncate(before);
                rows.refuse(index, fault);
            }
        }
        Ok(rows.finish())
    }

    /// The columns, each of which gets at most one cell before the row ends.
    pub(crate) fn columns(&mut self) -> &mut [ColumnBuilder] {
        &mut self.columns
    }

    /// Ends a row of a payload.
    pub(crate) fn end_row(&mut self, index: u32) -> Result<(), Fault> {
        self.complete()?;
        self.rows.push(index);
        Ok(())
    }

    /// Puts NULL into the columns that the row left out.
    fn complete(&mut self) -> Result<(), Fault> {
        let length = self.rows.len() + 1;
        for (column, nullable) in self.columns.iter_mut().zip(&self.nullable) {
            if column.len() == length {
                continue;
            }
            if column.len() > length {
                return Err(Fault::from("internal error: a column was given two values"));
            }
            if !nullable {
                return Err(Fault::from("a value is missing that may not be null"));
            }
            column.append_null();
        }
        Ok(())
    }

    fn refuse(&mut self, index: u32, fault: Fault) {
        let length = self.rows.len();
        for column in &mut self.columns {
            column.roll_back(length);
        }
        self.bad.push(BadRow {
            index,
            reason: fault.into_reason(),
        });
    }

    fn finish(self) -> Decoded {
        Decoded {
            columns: self
                .columns
                .into_iter()
                .map(ColumnBuilder::finish)
                .collect(),
            rows: self.rows,
            bad: self.bad,
        }
    }
}

/// Refuses more bytes than columns are sure to hold.
fn check_size(payloads: &[Option<&[u8]>]) -> Result<(), Error> {
    let bytes = payloads.iter().flatten().map(|payload| payload.len());
    let fits = bytes.fold(0_usize, usize::saturating_add) <= BATCH_BYTES_MAX;
    if (!fits && payloads.len() > 1) || u32::try_from(payloads.len()).is_err() {
        return Err(Error::BatchTooLarge(BATCH_BYTES_MAX));
    }
    Ok(())
}

/// The column at a place that was settled when the decoder was made.
pub(crate) fn at(
    columns: &mut [ColumnBuilder],
    column: usize,
) -> Result<&mut ColumnBuilder, Fault> {
    columns
        .get_mut(column)
        .ok_or_else(|| Fault::from("internal error: no such column"))
}

/// Text of a payload: UTF-8 without a zero character, which SQL's text cannot hold.
pub(crate) fn text_of(payload: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(payload).map_err(|_| Fault::from("message is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use flowstone_types::SqlType;

    use super::*;
    use crate::relation::Column;

    #[test]
    fn a_row_that_fails_half_way_leaves_nothing() {
        let relation = Relation::new(vec![
            Column::new("a", SqlType::Int8, false),
            Column::new("b", SqlType::Text, true),
        ]);
        let payloads = [Some(b"1".as_slice()), None, Some(b"x"), Some(b"2")];
        let decoded = Rows::decode(
            &relation,
            Limits::default(),
            &payloads,
            |payload, columns| {
                at(columns, 0)?.append_i64(7)?;
                if payload == b"x" {
                    return Err(Fault::from("no"));
                }
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(decoded.rows, [0, 3]);
        assert_eq!(decoded.columns[0].len(), 2);
        assert_eq!(decoded.columns[1].null_count(), 2);
        assert_eq!(decoded.reason_of(2), Some("no"));
        assert_eq!((decoded.row_of(3), decoded.row_of(1)), (Some(1), None));
    }

    #[test]
    fn a_message_beyond_the_limit_is_a_bad_row() {
        let limits = Limits {
            message_bytes_max: 2,
            ..Limits::default()
        };
        let relation = Relation::of_one("data", SqlType::Bytea);
        let payloads = [Some(b"abc".as_slice()), Some(b"ab")];
        let decoded = Rows::decode(&relation, limits, &payloads, |payload, columns| {
            Ok(at(columns, 0)?.append_bytes(payload)?)
        })
        .unwrap();
        assert_eq!((decoded.rows.len(), decoded.bad.len()), (1, 1));
    }
}
