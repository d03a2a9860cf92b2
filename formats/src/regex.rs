//! Lines that a regular expression takes apart: its groups are the columns.
//!
//! Called by [`crate::Decoder`].

use flowstone_types::SqlType;
use regex::Regex;

use crate::error::{Error, Fault};
use crate::relation::{Column, Relation};
use crate::rows::{Decoded, Limits, Rows, at, text_of};

/// Bytes of a compiled pattern: it comes from a statement, and repetitions multiply.
const PATTERN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A regular expression: a column of text for each group, named as the group or `column` and its number. The expression may match anywhere in the
/// payload unless it says otherwise. A group that took no part is NULL; a payload without a match makes no row.
#[derive(Clone, Debug)]
pub struct RegexDecoder {
    pattern: Regex,
    relation: Relation,
    limits: Limits,
}

impl RegexDecoder {
    /// A decoder.
    ///
    /// # Errors
    /// [`Error::Definition`] if the pattern is none, is too large, or has no group.
    pub fn new(pattern: &str, limits: Limits) -> Result<Self, Error> {
        let pattern = regex::RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map_err(|error| Error::definition(format!("invalid regular expression: {error}")))?;
        let columns: Vec<Column> = pattern
            .capture_names()
            .enumerate()
            .skip(1)
            .map(|(group, name)| {
                let name = name.map_or_else(|| format!("column{group}"), str::to_owned);
                Column::new(name, SqlType::Text, true)
            })
            .collect();
        if columns.is_empty() {
            return Err(Error::definition("regular expression has no group"));
        }
        Ok(Self {
            pattern,
            relation: Relation::new(columns),
            limits,
        })
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
        let mut places = self.pattern.capture_locations();
        Rows::decode(&self.relation, self.limits, payloads, |payload, columns| {
            let text = text_of(payload)?;
            if self.pattern.captures_read(&mut places, text).is_none() {
                return Err(Fault::from("message does not match the regular expression"));
            }
            for column in 0..columns.len() {
                let builder = at(columns, column)?;
                match places.get(column + 1) {
                    Some((start, end)) => {
                        let group = payload.get(start..end).unwrap_or_default();
                        builder.append_bytes(group)?;
                    }
                    None => builder.append_null(),
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;

    use super::*;

    #[test]
    fn named_and_numbered_groups_are_columns() {
        let decoder =
            RegexDecoder::new(r"^(?P<ip>\S+) (\d+)(?: (?P<tail>.*))?$", Limits::default()).unwrap();
        let names: Vec<&str> = decoder
            .relation()
            .columns
            .iter()
            .map(|c| c.name.as_str())
            .collect();
        assert_eq!(names, ["ip", "column2", "tail"]);
        let decoded = decoder
            .decode(&[Some(b"10.0.0.1 200 ok"), Some(b"nothing"), Some(b"h 1")])
            .unwrap();
        assert_eq!(decoded.rows, [0, 2]);
        assert_eq!(decoded.columns[0].as_string::<i32>().value(1), "h");
        assert!(decoded.columns[2].is_null(1));
        assert_eq!(decoded.bad[0].index, 1);
    }

    #[test]
    fn a_pattern_that_is_none_or_too_large_is_refused() {
        assert!(RegexDecoder::new("(", Limits::default()).is_err());
        assert!(RegexDecoder::new("abc", Limits::default()).is_err());
        assert!(RegexDecoder::new("((a{1000}){1000}){1000}", Limits::default()).is_err());
    }
}
