//! Appending values that have a type already: what formats other than PostgreSQL's hand over without going through text.
//!
//! Must not know those formats. An append that fails leaves the column as it was; one whose kind of value the column does not take is
//! [`TypeError::Kernel`], a bug of the caller.

use arrow_array::types::IntervalMonthDayNano;

use super::{Cells, ColumnBuilder, last_offset, out_of_range, too_large};
use crate::datetime;
use crate::jsonb::JsonbBuf;
use crate::normalize::{normalize_f32, normalize_f64};
use crate::numeric;
use crate::{SqlType, TypeError};

impl ColumnBuilder {
    fn mismatch(&self, given: &str) -> TypeError {
        TypeError::Kernel(format!("a column of {} was given {given}", self.sql_type))
    }

    /// Appends a boolean.
    ///
    /// # Errors
    /// [`TypeError::Kernel`] unless the column is `bool`.
    pub fn append_bool(&mut self, value: bool) -> Result<(), TypeError> {
        let Cells::Bool(values) = &mut self.cells else {
            return Err(self.mismatch("a boolean"));
        };
        values.append(value);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends an integer to a column of integers or `numeric`.
    ///
    /// # Errors
    /// [`TypeError::OutOfRange`], [`TypeError::Kernel`]
    pub fn append_i64(&mut self, value: i64) -> Result<(), TypeError> {
        let range = |sql_type: &SqlType| out_of_range(&sql_type.to_string(), &value.to_string());
        match &mut self.cells {
            Cells::Int2(values) => {
                values.push(i16::try_from(value).map_err(|_| range(&self.sql_type))?);
            }
            Cells::Int4(values) => {
                values.push(i32::try_from(value).map_err(|_| range(&self.sql_type))?);
            }
            Cells::Int8(values) => values.push(value),
            Cells::UInt2(values) => {
                values.push(u16::try_from(value).map_err(|_| range(&self.sql_type))?);
            }
            Cells::UInt4(values) => {
                values.push(u32::try_from(value).map_err(|_| range(&self.sql_type))?);
            }
            Cells::UInt8(values) => {
                values.push(u64::try_from(value).map_err(|_| range(&self.sql_type))?);
            }
            Cells::Numeric { values, modifier } => {
                values.push(numeric::rescale_to(i128::from(value), 0, *modifier)?);
            }
            _ => return Err(self.mismatch("an integer")),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends an unsigned integer to a column of integers or `numeric`.
    ///
    /// # Errors
    /// [`TypeError::OutOfRange`], [`TypeError::Kernel`]
    pub fn append_u64(&mut self, value: u64) -> Result<(), TypeError> {
        match &mut self.cells {
            Cells::UInt8(values) => values.push(value),
            Cells::Numeric { values, modifier } => {
                values.push(numeric::rescale_to(i128::from(value), 0, *modifier)?);
            }
            _ => {
                let value = i64::try_from(value)
                    .map_err(|_| out_of_range(&self.sql_type.to_string(), &value.to_string()))?;
                return self.append_i64(value);
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends a `real`, normalised; a column of `double precision` takes it as well.
    ///
    /// # Errors
    /// [`TypeError::Kernel`]
    pub fn append_f32(&mut self, value: f32) -> Result<(), TypeError> {
        match &mut self.cells {
            Cells::Float4(values) => values.push(normalize_f32(value)),
            Cells::Float8(values) => values.push(normalize_f64(f64::from(value))),
            _ => return Err(self.mismatch("a real")),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends a `double precision`, normalised.
    ///
    /// # Errors
    /// [`TypeError::Kernel`]
    pub fn append_f64(&mut self, value: f64) -> Result<(), TypeError> {
        let Cells::Float8(values) = &mut self.cells else {
            return Err(self.mismatch("a double"));
        };
        values.push(normalize_f64(value));
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends `value / 10^scale` to a column of `numeric`.
    ///
    /// # Errors
    /// [`TypeError::OutOfRange`] and [`TypeError::NumericNotHeld`] as [`numeric::rescale_to`]; [`TypeError::Kernel`]
    pub fn append_decimal(&mut self, value: i128, scale: i8) -> Result<(), TypeError> {
        let Cells::Numeric { values, modifier } = &mut self.cells else {
            return Err(self.mismatch("a decimal"));
        };
        values.push(numeric::rescale_to(value, scale, *modifier)?);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends bytes to a column of `bytea`, or UTF-8 to a column of a string type.
    ///
    /// # Errors
    /// [`TypeError::InvalidBinary`] for what is not text, [`TypeError::TooLong`], [`TypeError::Kernel`]
    pub fn append_bytes(&mut self, bytes: &[u8]) -> Result<(), TypeError> {
        match &self.cells {
            Cells::Text { .. } | Cells::Bytea { .. } => self.append_binary(bytes),
            _ => Err(self.mismatch("bytes")),
        }
    }

    /// Appends a document.
    ///
    /// # Errors
    /// [`TypeError::Kernel`] unless the column is `jsonb`.
    pub fn append_jsonb(&mut self, document: &JsonbBuf) -> Result<(), TypeError> {
        let Cells::Jsonb { bytes, offsets } = &mut self.cells else {
            return Err(self.mismatch("a document"));
        };
        bytes.extend_from_slice(document.as_bytes());
        offsets.push(i64::try_from(bytes.len()).map_err(|_| too_large())?);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends a date in days since 1970-01-01.
    ///
    /// # Errors
    /// [`TypeError::OutOfRange`], [`TypeError::Kernel`]
    pub fn append_days(&mut self, days: i32) -> Result<(), TypeError> {
        let Cells::Date(values) = &mut self.cells else {
            return Err(self.mismatch("a date"));
        };
        values.push(datetime::date_from_postgres(datetime::date_to_postgres(
            days,
        )?)?);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends microseconds: since midnight to a `time`, since 1970-01-01 00:00 (UTC) to a time stamp.
    ///
    /// # Errors
    /// [`TypeError::OutOfRange`], [`TypeError::Kernel`]
    pub fn append_micros(&mut self, micros: i64) -> Result<(), TypeError> {
        match &mut self.cells {
            Cells::Time(values) => {
                if !(0..=datetime::MICROS_PER_DAY).contains(&micros) {
                    return Err(out_of_range("time", &micros.to_string()));
                }
                values.push(micros);
            }
            Cells::Timestamp(values) | Cells::TimestampTz(values) => {
                let wire = datetime::timestamp_to_postgres(micros)?;
                values.push(datetime::timestamp_from_postgres(wire)?);
            }
            _ => return Err(self.mismatch("a time")),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends an interval, whose nanoseconds are a multiple of 1000.
    ///
    /// # Errors
    /// [`TypeError::Kernel`]
    pub fn append_interval(&mut self, value: IntervalMonthDayNano) -> Result<(), TypeError> {
        let Cells::Interval(values) = &mut self.cells else {
            return Err(self.mismatch("an interval"));
        };
        values.push(value);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends a UUID.
    ///
    /// # Errors
    /// [`TypeError::Kernel`]
    pub fn append_uuid(&mut self, value: &[u8; 16]) -> Result<(), TypeError> {
        let Cells::Uuid(bytes) = &mut self.cells else {
            return Err(self.mismatch("a uuid"));
        };
        bytes.extend_from_slice(value);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Where the items of the next list go, if the column is one of lists; [`ColumnBuilder::append_list`] makes a cell of them.
    pub fn items(&mut self) -> Option<&mut Self> {
        match &mut self.cells {
            Cells::List { items, .. } => Some(items),
            _ => None,
        }
    }

    /// Appends the list of the items that were appended to [`ColumnBuilder::items`] since the last one.
    ///
    /// # Errors
    /// [`TypeError::InvalidParameter`] for more items than a column holds, [`TypeError::Kernel`]
    pub fn append_list(&mut self) -> Result<(), TypeError> {
        match &self.cells {
            Cells::List { .. } => self.close_list(),
            _ => Err(self.mismatch("a list")),
        }
    }

    /// Keeps the first `len` cells, and nothing of a list that was not finished.
    pub fn roll_back(&mut self, len: usize) {
        self.truncate(len);
        if let Cells::List { items, offsets } = &mut self.cells {
            let kept = last_offset(offsets);
            items.roll_back(kept);
        }
    }

    /// Appends something that means nothing: NULL where that is possible, else some value of the type.
    ///
    /// # Errors
    /// As [`ColumnBuilder::append_text`]; none for the types there are.
    pub fn append_filler(&mut self, nullable: bool) -> Result<(), TypeError> {
        if nullable {
            self.append_null();
            return Ok(());
        }
        self.append_text(filler(&self.sql_type))
    }
}

/// Text of some value of the type.
const fn filler(sql_type: &SqlType) -> &'static str {
    match sql_type {
        SqlType::Bool => "f",
        SqlType::Int2
        | SqlType::Int4
        | SqlType::Int8
        | SqlType::UInt2
        | SqlType::UInt4
        | SqlType::UInt8
        | SqlType::Float4
        | SqlType::Float8
        | SqlType::Numeric(_)
        | SqlType::Oid
        | SqlType::Reg(_)
        | SqlType::MzTimestamp => "0",
        SqlType::Text
        | SqlType::VarChar(_)
        | SqlType::Char(_)
        | SqlType::Name
        | SqlType::Bytea
        | SqlType::QuotedChar
        | SqlType::Int2Vector
        | SqlType::OidVector => "",
        SqlType::Jsonb => "null",
        SqlType::Date => "2000-01-01",
        SqlType::Time => "00:00:00",
        SqlType::Timestamp => "2000-01-01 00:00:00",
        SqlType::TimestampTz => "2000-01-01 00:00:00+00",
        SqlType::Interval => "00:00:00",
        SqlType::Uuid => "00000000-0000-0000-0000-000000000000",
        SqlType::Array(_) => "{}",
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;

    use super::*;

    #[test]
    fn a_list_that_was_not_finished_leaves_nothing() {
        let mut builder = ColumnBuilder::new(&SqlType::Array(Box::new(SqlType::Int8)), 2);
        builder.items().unwrap().append_i64(1).unwrap();
        builder.append_list().unwrap();
        builder.items().unwrap().append_i64(2).unwrap();
        builder.roll_back(1);
        builder.items().unwrap().append_i64(3).unwrap();
        builder.append_list().unwrap();
        let lists = builder.finish();
        let second = lists.as_list::<i32>().value(1);
        assert_eq!(second.len(), 1);
        assert_eq!(second.as_primitive::<Int64Type>().value(0), 3);
    }

    #[test]
    fn values_beyond_the_type_are_refused() {
        let mut builder = ColumnBuilder::new(&SqlType::Int2, 1);
        assert!(builder.append_i64(40_000).is_err());
        assert!(builder.append_bool(true).is_err());
        builder.append_u64(7).unwrap();
        let mut builder = ColumnBuilder::new(&SqlType::Time, 1);
        assert!(builder.append_micros(-1).is_err());
        builder.append_filler(false).unwrap();
        assert_eq!(builder.finish().len(), 1);
    }
}
