//! What a raw value means beyond its kind: Avro's logical types, and the names that Kafka Connect and Debezium give their types.
//!
//! Owns the SQL types of these meanings and the appending of raw values under them. Must not know how a format writes raw values, nor its schemas.
//! Called by the Avro decoder and by JSON with a schema of Connect.
//!
//! Invariants. A value is never rounded: what the column cannot hold is a fault of its row. Nanoseconds below a microsecond, which no SQL type has, are cut off
//! (towards the past), as sources that have them do.

use arrow_array::types::IntervalMonthDayNano;
use flowstone_types::datetime::{self, TimeZone};
use flowstone_types::value::ColumnBuilder;
use flowstone_types::{SqlType, jsonb, numeric};

use crate::error::Fault;

/// What Debezium puts in place of a large value that did not change and that the upstream did not send.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Most digits of a decimal.
const DIGITS_MAX: u32 = 38;

/// What an integer of a time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Thousandths of a second.
    Millis,
    /// Millionths.
    Micros,
    /// Thousand-millionths.
    Nanos,
}

impl TimeUnit {
    fn to_micros(self, value: i64) -> Option<i64> {
        match self {
            Self::Millis => value.checked_mul(1_000),
            Self::Micros => Some(value),
            Self::Nanos => Some(value.div_euclid(1_000)),
        }
    }
}

/// What a raw value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Semantic {
    /// Nothing beyond its kind.
    Plain,
    /// An integer: days since 1970-01-01.
    Days,
    /// An integer: a time of day.
    TimeOfDay(TimeUnit),
    /// An integer: a time stamp since 1970-01-01 00:00, as clocks without a zone show it.
    Timestamp(TimeUnit),
    /// A text: a time stamp with its zone, in the notation of ISO 8601.
    ZonedTimestamp,
    /// An integer: microseconds of an interval.
    MicroDuration,
    /// 12 bytes: months, days and milliseconds, little endian.
    Duration,
    /// Bytes: a two's complement number, most significant byte first, at this precision and scale.
    Decimal {
        /// Digits.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// A record of a scale and such bytes.
    VariableDecimal,
    /// A text: a JSON document.
    Json,
    /// A text or 16 bytes: a UUID.
    Uuid,
}

impl Semantic {
    /// The meaning of a type of Kafka Connect (`connect.name` in Avro, `name` in its JSON). Names that mean nothing to us are plain.
    ///
    /// `scale` and `precision` are the parameters of a decimal.
    #[must_use]
    pub fn of_connect_name(name: &str, scale: Option<i8>, precision: Option<u8>) -> Self {
        match name {
            "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => Self::Days,
            "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => {
                Self::TimeOfDay(TimeUnit::Millis)
            }
            "io.debezium.time.MicroTime" => Self::TimeOfDay(TimeUnit::Micros),
            "io.debezium.time.NanoTime" => Self::TimeOfDay(TimeUnit::Nanos),
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
                Self::Timestamp(TimeUnit::Millis)
            }
            "io.debezium.time.MicroTimestamp" => Self::Timestamp(TimeUnit::Micros),
            "io.debezium.time.NanoTimestamp" => Self::Timestamp(TimeUnit::Nanos),
            "io.debezium.time.ZonedTimestamp" | "io.debezium.time.IsoTimestamp" => {
                Self::ZonedTimestamp
            }
            "io.debezium.time.MicroDuration" => Self::MicroDuration,
            "org.apache.kafka.connect.data.Decimal" => Self::decimal(precision, scale.unwrap_or(0)),
            "io.debezium.data.VariableScaleDecimal" => Self::VariableDecimal,
            "io.debezium.data.Json" => Self::Json,
            "io.debezium.data.Uuid" => Self::Uuid,
            _ => Self::Plain,
        }
    }

    /// A decimal; bytes, if we have no type of that many digits.
    #[must_use]
    pub fn decimal(precision: Option<u8>, scale: i8) -> Self {
        let most = u8::try_from(DIGITS_MAX).unwrap_or(u8::MAX);
        let precision = precision.unwrap_or(most).min(most);
        let fits = u8::try_from(scale).is_ok_and(|scale| scale <= precision) && precision > 0;
        if fits {
            Self::Decimal { precision, scale }
        } else {
            Self::Plain
        }
    }

    /// The SQL type of values with this meaning, which would be of `plain` without it.
    #[must_use]
    pub fn sql_type(self, plain: &SqlType) -> SqlType {
        match (self, plain) {
            (Self::Days, SqlType::Int4 | SqlType::Int8) => SqlType::Date,
            (Self::TimeOfDay(_), SqlType::Int4 | SqlType::Int8) => SqlType::Time,
            (Self::Timestamp(_), SqlType::Int4 | SqlType::Int8) => SqlType::Timestamp,
            (Self::ZonedTimestamp, SqlType::Text) => SqlType::TimestampTz,
            (Self::MicroDuration, SqlType::Int8) | (Self::Duration, SqlType::Bytea) => {
                SqlType::Interval
            }
            (Self::Decimal { precision, scale }, SqlType::Bytea) => {
                SqlType::Numeric(Some((precision, scale)))
            }
            (Self::VariableDecimal, SqlType::Jsonb) => SqlType::Numeric(None),
            (Self::Json, SqlType::Text) => SqlType::Jsonb,
            (Self::Uuid, SqlType::Text | SqlType::Bytea) => SqlType::Uuid,
            _ => plain.clone(),
        }
    }
}

/// Appends an integer under its meaning to a column of [`Semantic::sql_type`], or of another one that can hold it.
pub(crate) fn append_integer(
    value: i64,
    semantic: Semantic,
    column: &mut ColumnBuilder,
) -> Result<(), Fault> {
    let range = || Fault::from(format!("value \"{value}\" is out of range"));
    match semantic {
        Semantic::Days if *column.sql_type() == SqlType::Date => {
            column.append_days(i32::try_from(value).map_err(|_| range())?)?;
        }
        Semantic::TimeOfDay(unit) if *column.sql_type() == SqlType::Time => {
            column.append_micros(unit.to_micros(value).ok_or_else(range)?)?;
        }
        Semantic::Timestamp(unit)
            if matches!(column.sql_type(), SqlType::Timestamp | SqlType::TimestampTz) =>
        {
            column.append_micros(unit.to_micros(value).ok_or_else(range)?)?;
        }
        Semantic::MicroDuration if *column.sql_type() == SqlType::Interval => {
            let nanoseconds = value.checked_mul(1_000).ok_or_else(range)?;
            column.append_interval(IntervalMonthDayNano {
                months: 0,
                days: 0,
                nanoseconds,
            })?;
        }
        _ => match column.sql_type() {
            SqlType::Float8 => column.append_f64(float_of(value))?,
            SqlType::Float4 => column.append_f32(single_of(value))?,
            _ => column.append_i64(value)?,
        },
    }
    Ok(())
}

/// The nearest double, as Avro's promotion of integers wants.
#[expect(
    clippy::as_conversions,
    reason = "rounding to the nearest double is what is asked for"
)]
pub(crate) const fn float_of(value: i64) -> f64 {
    value as f64
}

/// The nearest single.
#[expect(
    clippy::as_conversions,
    reason = "rounding to the nearest single is what is asked for"
)]
const fn single_of(value: i64) -> f32 {
    value as f32
}

/// Appends a text under its meaning.
pub(crate) fn append_text(
    text: &[u8],
    semantic: Semantic,
    column: &mut ColumnBuilder,
) -> Result<(), Fault> {
    if matches!(
        column.sql_type(),
        SqlType::Text | SqlType::VarChar(_) | SqlType::Bytea
    ) {
        return Ok(column.append_bytes(text)?);
    }
    let text = std::str::from_utf8(text).map_err(|_| Fault::from("text is not valid UTF-8"))?;
    if text.contains('\0') {
        return Err(Fault::from("text holds a zero character"));
    }
    match semantic {
        Semantic::Json => column.append_jsonb(&document_of(text)?)?,
        Semantic::ZonedTimestamp => {
            let micros = datetime::parse_timestamptz(text, &TimeZone::UTC)?;
            column.append_micros(micros)?;
        }
        _ => column.append_text(text)?,
    }
    Ok(())
}

/// The document that a text is. What stands for a value that was left out is a document of that text.
pub(crate) fn document_of(text: &str) -> Result<jsonb::JsonbBuf, Fault> {
    if text == UNAVAILABLE {
        let mut builder = jsonb::JsonbBuilder::new();
        builder.string(text);
        return Ok(builder.finish()?);
    }
    Ok(jsonb::parse(text)?)
}

/// Appends bytes under their meaning.
pub(crate) fn append_bytes(
    bytes: &[u8],
    semantic: Semantic,
    column: &mut ColumnBuilder,
) -> Result<(), Fault> {
    match semantic {
        Semantic::Decimal { scale, .. } if matches!(column.sql_type(), SqlType::Numeric(_)) => {
            column.append_decimal(integer_of(bytes)?, scale)?;
        }
        Semantic::Uuid if *column.sql_type() == SqlType::Uuid => {
            let uuid = bytes
                .try_into()
                .map_err(|_| Fault::from("a UUID must have 16 bytes"))?;
            column.append_uuid(uuid)?;
        }
        Semantic::Duration if *column.sql_type() == SqlType::Interval => {
            column.append_interval(duration_of(bytes)?)?;
        }
        _ => column.append_bytes(bytes)?,
    }
    Ok(())
}

/// A number at its scale as text, for documents.
pub(crate) fn decimal_text(bytes: &[u8], scale: i8) -> Result<String, Fault> {
    let mut text = String::new();
    numeric::format_numeric(integer_of(bytes)?, scale, None, &mut text);
    Ok(text)
}

/// A two's complement number, most significant byte first; of no bytes it is zero.
pub(crate) fn integer_of(bytes: &[u8]) -> Result<i128, Fault> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let filler = if negative { 0xff } else { 0 };
    let padding = bytes.iter().take_while(|byte| **byte == filler).count();
    let digits = bytes.get(padding..).unwrap_or_default();
    let mut word = [filler; 16];
    let start = word
        .len()
        .checked_sub(digits.len())
        .ok_or_else(|| Fault::from("decimal has more digits than are supported"))?;
    if let Some(tail) = word.get_mut(start..) {
        tail.copy_from_slice(digits);
    }
    let value = i128::from_be_bytes(word);
    if (value < 0) == negative {
        Ok(value)
    } else {
        Err(Fault::from("decimal has more digits than are supported"))
    }
}

/// The shortest bytes of [`integer_of`]; zero has one.
pub(crate) fn integer_to_bytes(value: i128, out: &mut Vec<u8>) {
    let word = value.to_be_bytes();
    let filler = if value < 0 { 0xff_u8 } else { 0 };
    let mut start = word.iter().take_while(|byte| **byte == filler).count();
    // The first byte must show the sign.
    let shows = word
        .get(start)
        .is_some_and(|byte| (byte & 0x80 != 0) == (value < 0));
    if !shows {
        start = start.saturating_sub(1);
    }
    out.extend_from_slice(word.get(start..).unwrap_or_default());
}

fn duration_of(bytes: &[u8]) -> Result<IntervalMonthDayNano, Fault> {
    let bytes: &[u8; 12] = bytes
        .try_into()
        .map_err(|_| Fault::from("a duration must have 12 bytes"))?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
    let range = |_| Fault::from("duration is out of range for type interval");
    let months = i32::try_from(u32::from_le_bytes([a, b, c, d])).map_err(range)?;
    let days = i32::try_from(u32::from_le_bytes([e, f, g, h])).map_err(range)?;
    let millis = u32::from_le_bytes([i, j, k, l]);
    Ok(IntervalMonthDayNano {
        months,
        days,
        nanoseconds: i64::from(millis) * 1_000_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_are_read_and_written_back() {
        for value in [
            0,
            1,
            -1,
            127,
            128,
            -128,
            -129,
            123_450,
            i128::MAX,
            i128::MIN,
        ] {
            let mut bytes = Vec::new();
            integer_to_bytes(value, &mut bytes);
            assert_eq!(integer_of(&bytes), Ok(value), "{value}");
            let mut padded = vec![if value < 0 { 0xff } else { 0 }; 20];
            padded.extend_from_slice(&bytes);
            assert_eq!(integer_of(&padded), Ok(value), "{value}, padded");
        }
        assert_eq!(integer_of(&[]), Ok(0));
        assert!(integer_of(&[1; 17]).is_err());
        assert!(integer_of(&[0x80; 17]).is_err());
    }

    #[test]
    fn times_before_1970_are_cut_towards_the_past() {
        assert_eq!(TimeUnit::Nanos.to_micros(-1), Some(-1));
        assert_eq!(TimeUnit::Millis.to_micros(i64::MAX), None);
    }

    #[test]
    fn a_time_beyond_a_day_is_refused() {
        let mut column = ColumnBuilder::new(&SqlType::Time, 1);
        let semantic = Semantic::TimeOfDay(TimeUnit::Micros);
        append_integer(-45_296_500_000, semantic, &mut column).unwrap_err();
        append_integer(11_045_500_000, semantic, &mut column).unwrap();
    }
}
