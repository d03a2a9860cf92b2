//! Reading cells into a column.

mod typed;

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, LargeBinaryArray, LargeListArray,
    ListArray, PrimitiveArray, StringArray,
};
use arrow_buffer::{
    BooleanBufferBuilder, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer,
};
use arrow_schema::DataType;

use super::array::{Token, check_lower_bound, tokens};
use super::formatter::JSONB_WIRE_VERSION;
use super::scalar::{invalid, out_of_range, parse_bool, parse_bytea, parse_float4, parse_float8};
use crate::datetime::{self, TimeZone};
use crate::interval;
use crate::jsonb;
use crate::normalize::{normalize_f32, normalize_f64};
use crate::numeric;
use crate::{SqlType, TypeError};

/// Collects cells in text or binary format into one Arrow array of exactly the type [`SqlType::to_arrow`].
///
/// An append that fails leaves the column as it was.
#[derive(Debug)]
pub struct ColumnBuilder {
    sql_type: SqlType,
    time_zone: TimeZone,
    nulls: NullBufferBuilder,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Bool(BooleanBufferBuilder),
    Int2(Vec<i16>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    UInt2(Vec<u16>),
    UInt4(Vec<u32>),
    UInt8(Vec<u64>),
    Float4(Vec<f32>),
    Float8(Vec<f64>),
    Numeric {
        values: Vec<i128>,
        modifier: Option<(u8, i8)>,
    },
    Text {
        bytes: Vec<u8>,
        offsets: Vec<i32>,
        limit: Limit,
    },
    Bytea {
        bytes: Vec<u8>,
        offsets: Vec<i32>,
    },
    Jsonb {
        bytes: Vec<u8>,
        offsets: Vec<i64>,
    },
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    TimestampTz(Vec<i64>),
    Interval(Vec<IntervalMonthDayNano>),
    Uuid(Vec<u8>),
    List {
        items: Box<ColumnBuilder>,
        offsets: Vec<i32>,
    },
}

/// What a string type allows.
#[derive(Clone, Copy, Debug)]
enum Limit {
    None,
    /// `varchar(n)`
    AtMost(usize),
    /// `char(n)`
    Padded(usize),
    /// `name`: cut to 63 bytes.
    Name,
    /// `"char"`: cut to one character.
    One,
}

const NAME_BYTES_MAX: usize = 63;

impl ColumnBuilder {
    /// A column of `sql_type` with room for `capacity` cells. `timestamptz` without a zone is taken as UTC.
    #[must_use]
    pub fn new(sql_type: &SqlType, capacity: usize) -> Self {
        let offsets32 = || {
            let mut offsets = Vec::with_capacity(capacity + 1);
            offsets.push(0_i32);
            offsets
        };
        let text = |limit| Cells::Text {
            bytes: Vec::new(),
            offsets: offsets32(),
            limit,
        };
        let length = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let cells = match sql_type {
            SqlType::Bool => Cells::Bool(BooleanBufferBuilder::new(capacity)),
            SqlType::Int2 => Cells::Int2(Vec::with_capacity(capacity)),
            SqlType::Int4 => Cells::Int4(Vec::with_capacity(capacity)),
            SqlType::Int8 => Cells::Int8(Vec::with_capacity(capacity)),
            SqlType::UInt2 => Cells::UInt2(Vec::with_capacity(capacity)),
            SqlType::UInt4 | SqlType::Oid | SqlType::Reg(_) => {
                Cells::UInt4(Vec::with_capacity(capacity))
            }
            SqlType::UInt8 | SqlType::MzTimestamp => Cells::UInt8(Vec::with_capacity(capacity)),
            SqlType::Float4 => Cells::Float4(Vec::with_capacity(capacity)),
            SqlType::Float8 => Cells::Float8(Vec::with_capacity(capacity)),
            SqlType::Numeric(modifier) => Cells::Numeric {
                values: Vec::with_capacity(capacity),
                modifier: *modifier,
            },
            SqlType::Text | SqlType::VarChar(None) | SqlType::Char(0) => text(Limit::None),
            SqlType::VarChar(Some(n)) => text(Limit::AtMost(length(*n))),
            SqlType::Char(n) => text(Limit::Padded(length(*n))),
            SqlType::Name => text(Limit::Name),
            SqlType::QuotedChar => text(Limit::One),
            SqlType::Bytea => Cells::Bytea {
                bytes: Vec::new(),
                offsets: offsets32(),
            },
            SqlType::Jsonb => {
                let mut offsets = Vec::with_capacity(capacity + 1);
                offsets.push(0_i64);
                Cells::Jsonb {
                    bytes: Vec::new(),
                    offsets,
                }
            }
            SqlType::Date => Cells::Date(Vec::with_capacity(capacity)),
            SqlType::Time => Cells::Time(Vec::with_capacity(capacity)),
            SqlType::Timestamp => Cells::Timestamp(Vec::with_capacity(capacity)),
            SqlType::TimestampTz => Cells::TimestampTz(Vec::with_capacity(capacity)),
            SqlType::Interval => Cells::Interval(Vec::with_capacity(capacity)),
            SqlType::Uuid => Cells::Uuid(Vec::with_capacity(capacity * 16)),
            SqlType::Array(element) => Cells::List {
                items: Box::new(Self::new(element, capacity)),
                offsets: offsets32(),
            },
            SqlType::Int2Vector => Cells::List {
                items: Box::new(Self::new(&SqlType::Int2, capacity)),
                offsets: offsets32(),
            },
            SqlType::OidVector => Cells::List {
                items: Box::new(Self::new(&SqlType::Oid, capacity)),
                offsets: offsets32(),
            },
        };
        Self {
            sql_type: sql_type.clone(),
            time_zone: TimeZone::UTC,
            nulls: NullBufferBuilder::new(capacity),
            cells,
        }
    }

    /// Reads `timestamptz` texts without a zone as clocks of this zone show them.
    #[must_use]
    pub fn with_time_zone(mut self, time_zone: TimeZone) -> Self {
        self.set_time_zone(time_zone);
        self
    }

    fn set_time_zone(&mut self, time_zone: TimeZone) {
        if let Cells::List { items, .. } = &mut self.cells {
            items.set_time_zone(time_zone.clone());
        }
        self.time_zone = time_zone;
    }

    /// The type of the column.
    #[must_use]
    pub const fn sql_type(&self) -> &SqlType {
        &self.sql_type
    }

    /// Number of cells.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Whether there are no cells.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nulls.is_empty()
    }

    /// Appends NULL.
    pub fn append_null(&mut self) {
        match &mut self.cells {
            Cells::Bool(values) => values.append(false),
            Cells::Int2(values) => values.push(0),
            Cells::Int4(values) | Cells::Date(values) => values.push(0),
            Cells::Int8(values)
            | Cells::Time(values)
            | Cells::Timestamp(values)
            | Cells::TimestampTz(values) => values.push(0),
            Cells::UInt2(values) => values.push(0),
            Cells::UInt4(values) => values.push(0),
            Cells::UInt8(values) => values.push(0),
            Cells::Float4(values) => values.push(0.0),
            Cells::Float8(values) => values.push(0.0),
            Cells::Numeric { values, .. } => values.push(0),
            Cells::Text { offsets, .. }
            | Cells::Bytea { offsets, .. }
            | Cells::List { offsets, .. } => repeat_last(offsets),
            Cells::Jsonb { offsets, .. } => repeat_last(offsets),
            Cells::Interval(values) => values.push(IntervalMonthDayNano::default()),
            Cells::Uuid(bytes) => bytes.extend_from_slice(&[0; 16]),
        }
        self.nulls.append_null();
    }

    /// Keeps the first `len` cells. Nothing happens if there are fewer.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        match &mut self.cells {
            Cells::Bool(values) => values.truncate(len),
            Cells::Int2(values) => values.truncate(len),
            Cells::Int4(values) | Cells::Date(values) => values.truncate(len),
            Cells::Int8(values)
            | Cells::Time(values)
            | Cells::Timestamp(values)
            | Cells::TimestampTz(values) => values.truncate(len),
            Cells::UInt2(values) => values.truncate(len),
            Cells::UInt4(values) => values.truncate(len),
            Cells::UInt8(values) => values.truncate(len),
            Cells::Float4(values) => values.truncate(len),
            Cells::Float8(values) => values.truncate(len),
            Cells::Numeric { values, .. } => values.truncate(len),
            Cells::Text { bytes, offsets, .. } | Cells::Bytea { bytes, offsets } => {
                offsets.truncate(len + 1);
                bytes.truncate(last_offset(offsets));
            }
            Cells::Jsonb { bytes, offsets } => {
                offsets.truncate(len + 1);
                bytes.truncate(last_offset(offsets));
            }
            Cells::Interval(values) => values.truncate(len),
            Cells::Uuid(bytes) => bytes.truncate(len * 16),
            Cells::List { items, offsets } => {
                offsets.truncate(len + 1);
                items.truncate(last_offset(offsets));
            }
        }
        self.nulls.truncate(len);
    }

    /// Appends a cell in text format.
    ///
    /// # Errors
    /// [`TypeError::InvalidText`], [`TypeError::OutOfRange`], [`TypeError::TooLong`]
    pub fn append_text(&mut self, text: &str) -> Result<(), TypeError> {
        match &mut self.cells {
            Cells::Bool(values) => values.append(parse_bool(text)?),
            Cells::Int2(values) => values.push(parse_integer(text, &self.sql_type)?),
            Cells::Int4(values) => values.push(parse_integer(text, &self.sql_type)?),
            Cells::Int8(values) => values.push(parse_integer(text, &self.sql_type)?),
            Cells::UInt2(values) => values.push(parse_integer(text, &self.sql_type)?),
            Cells::UInt4(values) => values.push(parse_integer(text, &self.sql_type)?),
            Cells::UInt8(values) => values.push(parse_integer(text, &self.sql_type)?),
            Cells::Float4(values) => values.push(parse_float4(text)?),
            Cells::Float8(values) => values.push(parse_float8(text)?),
            Cells::Numeric { values, modifier } => {
                values.push(numeric::parse_numeric(text, *modifier)?);
            }
            Cells::Text {
                bytes,
                offsets,
                limit,
            } => {
                append_string(text, *limit, bytes, offsets, &self.sql_type)?;
            }
            Cells::Bytea { bytes, offsets } => {
                parse_bytea(text, bytes)?;
                push_offset(bytes, offsets)?;
            }
            Cells::Jsonb { bytes, offsets } => append_jsonb(text, bytes, offsets)?,
            Cells::Date(values) => values.push(datetime::parse_date(text)?),
            Cells::Time(values) => values.push(datetime::parse_time(text)?),
            Cells::Timestamp(values) => values.push(datetime::parse_timestamp(text)?),
            Cells::TimestampTz(values) => {
                values.push(datetime::parse_timestamptz(text, &self.time_zone)?);
            }
            Cells::Interval(values) => values.push(interval::parse_interval(text)?),
            Cells::Uuid(bytes) => {
                let uuid = text.trim_ascii().parse::<uuid::Uuid>();
                bytes.extend_from_slice(uuid.map_err(|_| invalid("uuid", text))?.as_bytes());
            }
            Cells::List { .. } if self.sql_type.is_vector() => {
                let plain = |byte: u8| byte.is_ascii_digit() || byte == b'-';
                let items: Vec<&str> = text.split_ascii_whitespace().collect();
                if !items.iter().all(|item| item.bytes().all(plain)) {
                    return Err(invalid(&self.sql_type.to_string(), text));
                }
                return self.append_list_text(&format!("{{{}}}", items.join(",")));
            }
            Cells::List { .. } => return self.append_list_text(text),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn append_list_text(&mut self, text: &str) -> Result<(), TypeError> {
        let before = self.len();
        // The lists that are open, by depth: this one, a list inside it, and so on.
        let mut depth = 0_usize;
        let sql_type = self.sql_type.clone();
        let type_name = || sql_type.to_string();
        let levels = list_levels(&sql_type);
        let items_before = self.item_count();
        let result = tokens(text, &type_name, &mut |token| {
            match token {
                Token::Open => {
                    depth += 1;
                    if depth > levels && !sql_type.is_vector() {
                        Err(TypeError::NotSupported(
                            "arrays of more than one dimension are not supported in columns and casts"
                                .to_owned(),
                        ))
                    } else if depth > levels {
                        Err(invalid(&type_name(), text))
                    } else {
                        Ok(())
                    }
                }
                Token::Close => {
                    let closed = self.list_at(depth);
                    depth -= 1;
                    closed
                        .ok_or_else(|| invalid(&type_name(), text))?
                        .close_list()
                }
                Token::Null | Token::Item(_) => {
                    let list = self
                        .list_at(depth)
                        .ok_or_else(|| invalid(&type_name(), text))?;
                    let Cells::List { items, .. } = &mut list.cells else {
                        return Err(invalid(&type_name(), text));
                    };
                    match token {
                        Token::Item(item) if depth == levels => items.append_text(item),
                        // An item where a list must be.
                        Token::Item(_) => Err(invalid(&type_name(), text)),
                        _ => {
                            items.append_null();
                            Ok(())
                        }
                    }
                }
            }
        });
        if result.is_err() {
            self.truncate(before);
            self.truncate_open(before, items_before);
        }
        result
    }

    /// The list builder `depth` levels down, 1 being this one.
    fn list_at(&mut self, depth: usize) -> Option<&mut Self> {
        match depth {
            0 => None,
            1 => Some(self),
            _ => match &mut self.cells {
                Cells::List { items, .. } => items.list_at(depth - 1),
                _ => None,
            },
        }
    }

    fn item_count(&self) -> usize {
        match &self.cells {
            Cells::List { items, .. } => items.len(),
            _ => 0,
        }
    }

    /// Drops items of a list that was not closed, at every level.
    fn truncate_open(&mut self, len: usize, item_count: usize) {
        debug_assert_eq!(self.len(), len);
        if let Cells::List { items, .. } = &mut self.cells {
            items.truncate(item_count);
            if let Cells::List { offsets, .. } = &items.cells {
                let kept = last_offset(offsets);
                items.truncate_open(item_count, kept);
            }
        }
    }

    /// Ends the cell made of the items appended since the last one.
    fn close_list(&mut self) -> Result<(), TypeError> {
        if let Cells::List { items, offsets } = &mut self.cells {
            let end = i32::try_from(items.len()).map_err(|_| too_large())?;
            offsets.push(end);
            self.nulls.append_non_null();
        }
        Ok(())
    }

    /// Appends a cell in PostgreSQL's binary ("receive") format.
    ///
    /// # Errors
    /// [`TypeError::InvalidBinary`], [`TypeError::OutOfRange`], [`TypeError::TooLong`], [`TypeError::InvalidText`] for JSON that is none
    pub fn append_binary(&mut self, bytes: &[u8]) -> Result<(), TypeError> {
        match &mut self.cells {
            Cells::Bool(values) => {
                let [byte] = fixed(bytes, &self.sql_type)?;
                values.append(byte != 0);
            }
            Cells::Int2(values) => values.push(i16::from_be_bytes(fixed(bytes, &self.sql_type)?)),
            Cells::Int4(values) => values.push(i32::from_be_bytes(fixed(bytes, &self.sql_type)?)),
            Cells::Int8(values) => values.push(i64::from_be_bytes(fixed(bytes, &self.sql_type)?)),
            Cells::UInt2(values) => values.push(u16::from_be_bytes(fixed(bytes, &self.sql_type)?)),
            Cells::UInt4(values) => values.push(u32::from_be_bytes(fixed(bytes, &self.sql_type)?)),
            Cells::UInt8(values) => values.push(u64::from_be_bytes(fixed(bytes, &self.sql_type)?)),
            Cells::Float4(values) => {
                values.push(normalize_f32(f32::from_be_bytes(fixed(
                    bytes,
                    &self.sql_type,
                )?)));
            }
            Cells::Float8(values) => {
                values.push(normalize_f64(f64::from_be_bytes(fixed(
                    bytes,
                    &self.sql_type,
                )?)));
            }
            Cells::Numeric { values, modifier } => {
                values.push(numeric::numeric_from_binary(bytes, *modifier)?);
            }
            Cells::Text {
                bytes: all,
                offsets,
                limit,
            } => {
                let text = utf8(bytes, &self.sql_type)?;
                append_string(text, *limit, all, offsets, &self.sql_type)?;
            }
            Cells::Bytea {
                bytes: all,
                offsets,
            } => {
                all.extend_from_slice(bytes);
                push_offset(all, offsets)?;
            }
            Cells::Jsonb {
                bytes: all,
                offsets,
            } => {
                let Some((&JSONB_WIRE_VERSION, text)) = bytes.split_first() else {
                    return Err(invalid_binary(&self.sql_type, "unsupported version number"));
                };
                append_jsonb(utf8(text, &self.sql_type)?, all, offsets)?;
            }
            Cells::Date(values) => {
                let days = i32::from_be_bytes(fixed(bytes, &self.sql_type)?);
                values.push(datetime::date_from_postgres(days)?);
            }
            Cells::Time(values) => {
                let micros = i64::from_be_bytes(fixed(bytes, &self.sql_type)?);
                if !(0..=datetime::MICROS_PER_DAY).contains(&micros) {
                    return Err(out_of_range("time", &micros.to_string()));
                }
                values.push(micros);
            }
            Cells::Timestamp(values) | Cells::TimestampTz(values) => {
                let micros = i64::from_be_bytes(fixed(bytes, &self.sql_type)?);
                values.push(datetime::timestamp_from_postgres(micros)?);
            }
            Cells::Interval(values) => values.push(interval::interval_from_binary(bytes)?),
            Cells::Uuid(all) => {
                all.extend_from_slice(&fixed::<16>(bytes, &self.sql_type)?);
            }
            Cells::List { .. } => {
                let before = self.len();
                let items_before = self.item_count();
                let result = self.append_list_binary(bytes);
                if result.is_err() {
                    self.truncate(before);
                    self.truncate_open(before, items_before);
                }
                return result;
            }
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn append_list_binary(&mut self, bytes: &[u8]) -> Result<(), TypeError> {
        let sql_type = self.sql_type.clone();
        let damaged = |reason: &str| invalid_binary(&sql_type, reason);
        let mut reader = Reader { bytes };
        let next = |reader: &mut Reader<'_>| reader.i32().ok_or_else(|| damaged("too short"));
        let count = next(&mut reader)?;
        next(&mut reader)?;
        next(&mut reader)?;
        let count = usize::try_from(count).map_err(|_| damaged("negative number of dimensions"))?;
        if count > list_levels(&sql_type) {
            return Err(damaged("too many dimensions"));
        }
        let mut dimensions = Vec::with_capacity(count);
        for _ in 0..count {
            let length = next(&mut reader)?;
            dimensions.push(usize::try_from(length).map_err(|_| damaged("negative dimension"))?);
            let lower = next(&mut reader)?;
            if !sql_type.is_vector() {
                check_lower_bound(lower.into())?;
            }
        }
        if count == 0 {
            self.close_list()?;
        } else if count < list_levels(&sql_type) {
            return Err(damaged("too few dimensions"));
        } else {
            self.read_items(&dimensions, &mut reader)?;
        }
        if reader.bytes.is_empty() {
            Ok(())
        } else {
            Err(damaged("bytes after the last item"))
        }
    }

    fn read_items(
        &mut self,
        dimensions: &[usize],
        reader: &mut Reader<'_>,
    ) -> Result<(), TypeError> {
        let Some((length, inner)) = dimensions.split_first() else {
            return Ok(());
        };
        let short = || invalid_binary(&self.sql_type, "too short");
        // Each item takes at least four bytes, so a false length cannot make us loop for long.
        if inner
            .iter()
            .try_fold(*length, |total, length| total.checked_mul(*length))
            .is_none_or(|total| total > reader.bytes.len() / 4)
        {
            return Err(short());
        }
        let Cells::List { items, .. } = &mut self.cells else {
            return Ok(());
        };
        let sql_type = &self.sql_type;
        let short = || invalid_binary(sql_type, "too short");
        for _ in 0..*length {
            if !inner.is_empty() {
                if inner.contains(&0) {
                    return Err(invalid_binary(sql_type, "a dimension is empty"));
                }
                items.read_items(inner, reader)?;
                continue;
            }
            let length = reader.i32().ok_or_else(short)?;
            match usize::try_from(length) {
                Ok(length) => items.append_binary(reader.take(length).ok_or_else(short)?)?,
                Err(_) => items.append_null(),
            }
        }
        self.close_list()
    }

    /// The column.
    ///
    /// # Panics
    /// Never: lengths agree and text is UTF-8 by construction.
    #[must_use]
    pub fn finish(self) -> ArrayRef {
        let Self {
            sql_type,
            mut nulls,
            cells,
            ..
        } = self;
        let len = nulls.len();
        let nulls = nulls.finish();
        let data_type = sql_type.to_arrow();
        match cells {
            Cells::Bool(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Cells::Int2(values) => primitive::<Int16Type>(values, nulls, data_type),
            Cells::Int4(values) => primitive::<Int32Type>(values, nulls, data_type),
            Cells::Int8(values) => primitive::<Int64Type>(values, nulls, data_type),
            Cells::UInt2(values) => primitive::<UInt16Type>(values, nulls, data_type),
            Cells::UInt4(values) => primitive::<UInt32Type>(values, nulls, data_type),
            Cells::UInt8(values) => primitive::<UInt64Type>(values, nulls, data_type),
            Cells::Float4(values) => primitive::<Float32Type>(values, nulls, data_type),
            Cells::Float8(values) => primitive::<Float64Type>(values, nulls, data_type),
            Cells::Numeric { values, .. } => primitive::<Decimal128Type>(values, nulls, data_type),
            Cells::Date(values) => primitive::<Date32Type>(values, nulls, data_type),
            Cells::Time(values) => primitive::<Time64MicrosecondType>(values, nulls, data_type),
            Cells::Timestamp(values) | Cells::TimestampTz(values) => {
                primitive::<TimestampMicrosecondType>(values, nulls, data_type)
            }
            Cells::Interval(values) => {
                primitive::<IntervalMonthDayNanoType>(values, nulls, data_type)
            }
            Cells::Text { bytes, offsets, .. } => Arc::new(StringArray::new(
                offset_buffer(offsets),
                Buffer::from_vec(bytes),
                nulls,
            )),
            Cells::Bytea { bytes, offsets } => Arc::new(BinaryArray::new(
                offset_buffer(offsets),
                Buffer::from_vec(bytes),
                nulls,
            )),
            Cells::Jsonb { bytes, offsets } => Arc::new(LargeBinaryArray::new(
                OffsetBuffer::new(ScalarBuffer::from(offsets)),
                Buffer::from_vec(bytes),
                nulls,
            )),
            Cells::Uuid(bytes) => {
                debug_assert_eq!(bytes.len(), len * 16);
                Arc::new(FixedSizeBinaryArray::new(
                    16,
                    Buffer::from_vec(bytes),
                    nulls,
                ))
            }
            Cells::List { items, offsets } => match data_type {
                DataType::List(field) => Arc::new(ListArray::new(
                    field,
                    offset_buffer(offsets),
                    items.finish(),
                    nulls,
                )),
                DataType::LargeList(field) => Arc::new(LargeListArray::new(
                    field,
                    OffsetBuffer::new(
                        offsets
                            .into_iter()
                            .map(i64::from)
                            .collect::<Vec<_>>()
                            .into(),
                    ),
                    items.finish(),
                    nulls,
                )),
                _ => unreachable!("arrays are lists: SqlType::to_arrow"),
            },
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: DataType,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(data_type))
}

fn offset_buffer(offsets: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(offsets))
}

fn repeat_last<T: Copy + Default>(offsets: &mut Vec<T>) {
    offsets.push(offsets.last().copied().unwrap_or_default());
}

fn last_offset<T: Copy + TryInto<usize>>(offsets: &[T]) -> usize {
    offsets
        .last()
        .and_then(|offset| (*offset).try_into().ok())
        .unwrap_or(0)
}

fn list_levels(sql_type: &SqlType) -> usize {
    match sql_type {
        SqlType::Array(element) => 1 + list_levels(element),
        SqlType::Int2Vector | SqlType::OidVector => 1,
        _ => 0,
    }
}

fn too_large() -> TypeError {
    TypeError::InvalidParameter("a column holds more than 2 GB in one batch".to_owned())
}

fn invalid_binary(sql_type: &SqlType, reason: &str) -> TypeError {
    TypeError::InvalidBinary {
        type_name: sql_type.to_string(),
        reason: reason.to_owned(),
    }
}

/// Ends a cell at the end of `bytes`; if that is too far, takes its bytes away again.
fn push_offset(bytes: &mut Vec<u8>, offsets: &mut Vec<i32>) -> Result<(), TypeError> {
    match i32::try_from(bytes.len()) {
        Ok(end) => offsets.push(end),
        Err(_) => {
            bytes.truncate(last_offset(offsets));
            return Err(too_large());
        }
    }
    Ok(())
}

fn append_jsonb(text: &str, bytes: &mut Vec<u8>, offsets: &mut Vec<i64>) -> Result<(), TypeError> {
    bytes.extend_from_slice(jsonb::parse(text)?.as_bytes());
    offsets.push(i64::try_from(bytes.len()).map_err(|_| too_large())?);
    Ok(())
}

fn fixed<const N: usize>(bytes: &[u8], sql_type: &SqlType) -> Result<[u8; N], TypeError> {
    bytes.try_into().map_err(|_| {
        invalid_binary(
            sql_type,
            &format!("expected {N} bytes, got {}", bytes.len()),
        )
    })
}

fn utf8<'a>(bytes: &'a [u8], sql_type: &SqlType) -> Result<&'a str, TypeError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| invalid_binary(sql_type, "invalid byte sequence for encoding \"UTF8\""))?;
    if bytes.contains(&0) {
        return Err(invalid_binary(
            sql_type,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    Ok(text)
}

fn parse_integer<T: std::str::FromStr>(text: &str, sql_type: &SqlType) -> Result<T, TypeError> {
    let parse = |text: &str| text.parse::<T>().ok();
    if let Some(value) = parse(text) {
        return Ok(value);
    }
    let body = text.trim_ascii();
    if let Some(value) = parse(body) {
        return Ok(value);
    }
    let digits = body.strip_prefix(['-', '+']).unwrap_or(body);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // `-0` of an unsigned type.
        if digits.bytes().all(|byte| byte == b'0') {
            return parse("0").ok_or_else(|| invalid(&sql_type.to_string(), text));
        }
        return Err(out_of_range(&sql_type.to_string(), body));
    }
    Err(invalid(&sql_type.to_string(), text))
}

/// Appends a string as its type allows: cut, padded, or refused.
fn append_string(
    text: &str,
    limit: Limit,
    bytes: &mut Vec<u8>,
    offsets: &mut Vec<i32>,
    sql_type: &SqlType,
) -> Result<(), TypeError> {
    match limit {
        Limit::None => bytes.extend_from_slice(text.as_bytes()),
        Limit::AtMost(max) => {
            bytes.extend_from_slice(within(text, max, sql_type)?.as_bytes());
        }
        Limit::Padded(max) => {
            let kept = within(text, max, sql_type)?;
            bytes.extend_from_slice(kept.as_bytes());
            let missing = max.saturating_sub(kept.chars().count());
            bytes.extend(std::iter::repeat_n(b' ', missing));
        }
        Limit::Name => {
            let end = text.floor_char_boundary(NAME_BYTES_MAX);
            bytes.extend_from_slice(text.get(..end).unwrap_or(text).as_bytes());
        }
        Limit::One => {
            let end = text.chars().next().map_or(0, char::len_utf8);
            bytes.extend_from_slice(text.get(..end).unwrap_or(text).as_bytes());
        }
    }
    push_offset(bytes, offsets)
}

/// The first `max` characters; the rest may only be blanks.
fn within<'a>(text: &'a str, max: usize, sql_type: &SqlType) -> Result<&'a str, TypeError> {
    if text.len() <= max {
        return Ok(text);
    }
    let Some((end, _)) = text.char_indices().nth(max) else {
        return Ok(text);
    };
    let (kept, rest) = text.split_at(end);
    if rest.bytes().all(|byte| byte == b' ') {
        Ok(kept)
    } else {
        Err(TypeError::TooLong {
            type_name: sql_type.to_string(),
        })
    }
}
