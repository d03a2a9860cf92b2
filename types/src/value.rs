//! Cells as clients and upstreams write them: PostgreSQL's text and binary formats of every [`SqlType`].
//!
//! Owns reading cells into Arrow columns ([`ColumnBuilder`]) and writing cells of Arrow columns ([`ColumnFormatter`]).
//! Must not know protocols, catalogs (an `oid` is written as a number) or the session; its time zone is passed in.
//! Called by the client protocols (results, parameters, COPY), by sources (row images) and by casts to and from text.
//!
//! Invariants. What is read has exactly the type [`SqlType::to_arrow`] and is normalised ([`crate::normalize`]). What is written round-trips.
//! The type is matched once per cell at most and fixed-width cells allocate nothing.

use arrow_array::Array;

use crate::{SqlType, TypeError};

mod array;
mod builder;
mod formatter;
mod scalar;

pub use builder::ColumnBuilder;
pub use formatter::ColumnFormatter;
pub use scalar::{
    format_float4, format_float8, parse_bool, parse_bytea, parse_float4, parse_float8,
};

/// Appends the cell at `row` in text format. Returns whether there is one: `false` for NULL, and nothing is appended.
///
/// For more than one row of a column use [`ColumnFormatter`].
///
/// # Errors
/// [`TypeError::Unsupported`] or [`TypeError::Kernel`] if `array` cannot be read as `sql_type`.
pub fn text_of(
    array: &dyn Array,
    row: usize,
    sql_type: &SqlType,
    out: &mut String,
) -> Result<bool, TypeError> {
    ColumnFormatter::new(array.slice(row, 1).as_ref(), sql_type)?.write_text(0, out)
}

/// Appends the cell at `row` in PostgreSQL's binary ("send") format. Returns whether there is one, as [`text_of`].
///
/// # Errors
/// As [`text_of`]; [`TypeError::InvalidParameter`] for a nested array that is not rectangular.
pub fn binary_of(
    array: &dyn Array,
    row: usize,
    sql_type: &SqlType,
    out: &mut Vec<u8>,
) -> Result<bool, TypeError> {
    ColumnFormatter::new(array.slice(row, 1).as_ref(), sql_type)?.write_binary(0, out)
}

#[cfg(test)]
pub(crate) mod tests;
