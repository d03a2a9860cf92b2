//! Writing the cells of a column.

use std::fmt::Write;
use std::marker::PhantomData;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, LargeBinaryArray, ListArray,
    PrimitiveArray, StringArray,
};
use arrow_buffer::{Buffer, NullBuffer};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, TimeUnit};

use super::array::quote_item;
use super::scalar::{format_bytea, format_float4, format_float8};
use crate::datetime::{self, TimeZone};
use crate::interval;
use crate::jsonb::Jsonb;
use crate::numeric;
use crate::{SqlType, TypeError};

/// Writes cells of one column in text or binary format. Made once per column, so that a cell costs one match and no downcast.
///
/// The column may be a physical relative of the SQL type's Arrow type, as query engines produce them (views, dictionaries, other time units);
/// it is cast once.
#[derive(Debug)]
pub struct ColumnFormatter<'a> {
    nulls: Option<NullBuffer>,
    cells: Cells,
    time_zone: TimeZone,
    /// The formatter holds its own references to the column's buffers today; the parameter leaves room to borrow them.
    column: PhantomData<&'a dyn Array>,
}

/// A column by type. The arrays share the buffers of the column.
#[derive(Debug)]
enum Cells {
    AllNull,
    Bool(BooleanArray),
    Int2(PrimitiveArray<Int16Type>),
    Int4(PrimitiveArray<Int32Type>),
    Int8(PrimitiveArray<Int64Type>),
    UInt2(PrimitiveArray<UInt16Type>),
    UInt4(PrimitiveArray<UInt32Type>),
    UInt8(PrimitiveArray<UInt64Type>),
    Float4(PrimitiveArray<Float32Type>),
    Float8(PrimitiveArray<Float64Type>),
    Numeric {
        values: PrimitiveArray<Decimal128Type>,
        scale: i8,
        modifier: Option<(u8, i8)>,
    },
    Text(StringArray),
    Bytea(BinaryArray),
    Jsonb(LargeBinaryArray),
    Date(PrimitiveArray<Date32Type>),
    Time(PrimitiveArray<Time64MicrosecondType>),
    Timestamp(PrimitiveArray<TimestampMicrosecondType>),
    TimestampTz(PrimitiveArray<TimestampMicrosecondType>),
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    Uuid(FixedSizeBinaryArray),
    List {
        lists: ListArray,
        items: Box<ColumnFormatter<'static>>,
        element_oid: u32,
        quoting: bool,
        /// Whether subscripts count from 0 and the text is the items, as of a vector in catalogs.
        vector: bool,
    },
}

/// About what a number or a date takes.
const FIXED_CELL_BYTES: usize = 16;

/// The array itself, or cast to `target`; a value that does not fit is an error.
fn cast_to(array: &dyn Array, target: &DataType) -> Result<ArrayRef, TypeError> {
    if array.data_type() == target {
        return Ok(array.slice(0, array.len()));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(array, target, &options)?)
}

impl<'a> ColumnFormatter<'a> {
    /// A formatter of `array` as `sql_type`; `timestamptz` is shown in UTC.
    ///
    /// # Errors
    /// [`TypeError::Unsupported`] if the array cannot be read as the type, [`TypeError::Kernel`] if a value does not fit it.
    pub fn new(array: &'a dyn Array, sql_type: &SqlType) -> Result<Self, TypeError> {
        Self::owning(array, sql_type)
    }

    /// Shows `timestamptz` in this zone.
    #[must_use]
    pub fn with_time_zone(mut self, time_zone: TimeZone) -> Self {
        if let Cells::List { items, .. } = &mut self.cells {
            items.set_time_zone(time_zone.clone());
        }
        self.time_zone = time_zone;
        self
    }

    fn set_time_zone(&mut self, time_zone: TimeZone) {
        if let Cells::List { items, .. } = &mut self.cells {
            items.set_time_zone(time_zone.clone());
        }
        self.time_zone = time_zone;
    }

    fn owning(array: &dyn Array, sql_type: &SqlType) -> Result<Self, TypeError> {
        let cells = cells_of(array, sql_type)?;
        Ok(Self {
            nulls: if matches!(cells, Cells::AllNull) {
                None
            } else {
                array.logical_nulls()
            },
            cells,
            time_zone: TimeZone::UTC,
            column: PhantomData,
        })
    }

    /// Whether the cell at `row` is NULL.
    #[must_use]
    pub fn is_null(&self, row: usize) -> bool {
        matches!(self.cells, Cells::AllNull)
            || self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// The cell at `row` (below the column's length) without a copy, if the format shows it as it is in memory: text, and `bytea` in binary format.
    #[must_use]
    pub fn verbatim(&self, row: usize, binary: bool) -> Option<Buffer> {
        if self.is_null(row) {
            return None;
        }
        let (values, start, length) = match &self.cells {
            Cells::Text(values) => {
                let start = values.value_offsets().get(row).copied()?;
                (values.values(), start, values.value_length(row))
            }
            Cells::Bytea(values) if binary => {
                let start = values.value_offsets().get(row).copied()?;
                (values.values(), start, values.value_length(row))
            }
            _ => return None,
        };
        let (start, length) = (usize::try_from(start).ok()?, usize::try_from(length).ok()?);
        Some(values.slice_with_length(start, length))
    }

    /// About how many bytes the cell at `row` (below the column's length) takes, whatever the format; cheap.
    #[must_use]
    pub fn size_hint(&self, row: usize) -> usize {
        if self.is_null(row) {
            return 0;
        }
        let length = |length: Option<usize>| length.unwrap_or_default();
        match &self.cells {
            Cells::Text(values) => length(usize::try_from(values.value_length(row)).ok()),
            // Two digits for each byte.
            Cells::Bytea(values) => 2 * length(usize::try_from(values.value_length(row)).ok()),
            Cells::Jsonb(values) => length(usize::try_from(values.value_length(row)).ok()),
            Cells::List { lists, items, .. } => {
                let (start, end) = list_bounds(lists, row);
                (start..end).map(|item| 8 + items.size_hint(item)).sum()
            }
            _ => FIXED_CELL_BYTES,
        }
    }

    /// Appends the cell at `row` (below the column's length) in text format. Returns `false`, appending nothing, for NULL.
    ///
    /// # Errors
    /// [`TypeError::InvalidBinary`] for damaged `jsonb`.
    pub fn write_text(&self, row: usize, out: &mut String) -> Result<bool, TypeError> {
        if self.is_null(row) {
            return Ok(false);
        }
        match &self.cells {
            Cells::AllNull => return Ok(false),
            Cells::Bool(values) => out.push(if values.value(row) { 't' } else { 'f' }),
            Cells::Int2(values) => push_integer(values.value(row).into(), out),
            Cells::Int4(values) => push_integer(values.value(row).into(), out),
            Cells::Int8(values) => push_integer(values.value(row), out),
            Cells::UInt2(values) => push_unsigned(values.value(row).into(), out),
            Cells::UInt4(values) => push_unsigned(values.value(row).into(), out),
            Cells::UInt8(values) => push_unsigned(values.value(row), out),
            Cells::Float4(values) => format_float4(values.value(row), out),
            Cells::Float8(values) => format_float8(values.value(row), out),
            Cells::Numeric {
                values,
                scale,
                modifier,
            } => {
                numeric::format_numeric(values.value(row), *scale, *modifier, out);
            }
            Cells::Text(values) => out.push_str(values.value(row)),
            Cells::Bytea(values) => format_bytea(values.value(row), out),
            Cells::Jsonb(values) => {
                let document = Jsonb::from_bytes(values.value(row))?;
                // Writing to a string cannot fail.
                let _ = write!(out, "{document}");
            }
            Cells::Date(values) => datetime::format_date(values.value(row), out),
            Cells::Time(values) => datetime::format_time(values.value(row), out),
            Cells::Timestamp(values) => datetime::format_timestamp(values.value(row), out),
            Cells::TimestampTz(values) => {
                datetime::format_timestamptz(values.value(row), &self.time_zone, out);
            }
            Cells::Interval(values) => interval::format_interval(values.value(row), out),
            Cells::Uuid(values) => {
                let uuid = uuid_of(values, row);
                out.push_str(
                    uuid.hyphenated()
                        .encode_lower(&mut uuid::Uuid::encode_buffer()),
                );
            }
            Cells::List {
                lists,
                items,
                quoting,
                vector,
                ..
            } => {
                let (open, comma, close) = if *vector {
                    ("", ' ', "")
                } else {
                    ("{", ',', "}")
                };
                out.push_str(open);
                let (start, end) = list_bounds(lists, row);
                for item in start..end {
                    if item > start {
                        out.push(comma);
                    }
                    let item_start = out.len();
                    if !items.write_text(item, out)? {
                        out.push_str("NULL");
                    } else if *quoting {
                        quote_item(out, item_start);
                    }
                }
                out.push_str(close);
            }
        }
        Ok(true)
    }

    /// Appends the cell at `row` (below the column's length) in binary format. Returns `false`, appending nothing, for NULL.
    ///
    /// # Errors
    /// [`TypeError::InvalidParameter`] for a nested array that is not rectangular, [`TypeError::OutOfRange`] for times that PostgreSQL lacks,
    /// [`TypeError::InvalidBinary`] for damaged `jsonb`.
    pub fn write_binary(&self, row: usize, out: &mut Vec<u8>) -> Result<bool, TypeError> {
        if self.is_null(row) {
            return Ok(false);
        }
        match &self.cells {
            Cells::AllNull => return Ok(false),
            Cells::Bool(values) => out.push(u8::from(values.value(row))),
            Cells::Int2(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::Int4(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::Int8(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::UInt2(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::UInt4(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::UInt8(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::Float4(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::Float8(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::Numeric {
                values,
                scale,
                modifier,
            } => {
                numeric::numeric_to_binary(values.value(row), *scale, *modifier, out);
            }
            Cells::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Cells::Bytea(values) => out.extend_from_slice(values.value(row)),
            Cells::Jsonb(values) => {
                let document = Jsonb::from_bytes(values.value(row))?;
                out.push(JSONB_WIRE_VERSION);
                out.extend_from_slice(document.to_string().as_bytes());
            }
            Cells::Date(values) => {
                let days = datetime::date_to_postgres(values.value(row))?;
                out.extend_from_slice(&days.to_be_bytes());
            }
            Cells::Time(values) => out.extend_from_slice(&values.value(row).to_be_bytes()),
            Cells::Timestamp(values) | Cells::TimestampTz(values) => {
                let micros = datetime::timestamp_to_postgres(values.value(row))?;
                out.extend_from_slice(&micros.to_be_bytes());
            }
            Cells::Interval(values) => interval::interval_to_binary(values.value(row), out),
            Cells::Uuid(values) => out.extend_from_slice(values.value(row)),
            Cells::List { .. } => {
                let start = out.len();
                if let Err(error) = self.write_binary_list(row, out) {
                    out.truncate(start);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    fn write_binary_list(&self, row: usize, out: &mut Vec<u8>) -> Result<(), TypeError> {
        let mut dimensions = Vec::new();
        self.dimensions(row, &mut dimensions);
        if dimensions.contains(&0) {
            dimensions.clear();
        }
        push_i32(out, dimensions.len())?;
        let flags_at = out.len();
        push_i32(out, 0)?;
        let mut innermost = self;
        while let Cells::List { items, .. } = &innermost.cells
            && matches!(items.cells, Cells::List { .. })
        {
            innermost = items;
        }
        let Cells::List {
            element_oid,
            vector,
            ..
        } = &innermost.cells
        else {
            return Ok(());
        };
        out.extend_from_slice(&element_oid.to_be_bytes());
        for dimension in &dimensions {
            push_i32(out, *dimension)?;
            push_i32(out, usize::from(!vector))?;
        }
        let mut has_null = false;
        self.write_binary_items(row, &dimensions, out, &mut has_null)?;
        if has_null && let Some(flag) = out.get_mut(flags_at + 3) {
            *flag = 1;
        }
        Ok(())
    }

    /// Lengths of the list at `row` and of the first lists inside.
    fn dimensions(&self, row: usize, out: &mut Vec<usize>) {
        if let Cells::List { lists, items, .. } = &self.cells {
            let (start, end) = list_bounds(lists, row);
            out.push(end - start);
            if start < end && !items.is_null(start) {
                items.dimensions(start, out);
            }
        }
    }

    fn write_binary_items(
        &self,
        row: usize,
        dimensions: &[usize],
        out: &mut Vec<u8>,
        has_null: &mut bool,
    ) -> Result<(), TypeError> {
        let Cells::List { lists, items, .. } = &self.cells else {
            return Ok(());
        };
        let (start, end) = list_bounds(lists, row);
        let ragged = || {
            TypeError::InvalidParameter(
                "multidimensional arrays must have sub-arrays with matching dimensions".to_owned(),
            )
        };
        let nested = matches!(items.cells, Cells::List { .. });
        let Some((length, inner)) = dimensions.split_first() else {
            // No dimensions: nothing anywhere inside.
            for item in start..end {
                if !nested || items.is_null(item) {
                    return Err(ragged());
                }
                items.write_binary_items(item, &[], out, has_null)?;
            }
            return Ok(());
        };
        if end - start != *length || nested == inner.is_empty() {
            return Err(ragged());
        }
        for item in start..end {
            if nested {
                if items.is_null(item) {
                    return Err(ragged());
                }
                items.write_binary_items(item, inner, out, has_null)?;
                continue;
            }
            let length_at = out.len();
            push_i32(out, 0)?;
            let length = if items.write_binary(item, out)? {
                i32::try_from(out.len() - length_at - 4).map_err(|_| {
                    TypeError::InvalidParameter("array item is larger than 2 GB".to_owned())
                })?
            } else {
                *has_null = true;
                -1
            };
            if let Some(place) = out.get_mut(length_at..length_at + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// First byte of `jsonb` in binary format.
pub(super) const JSONB_WIRE_VERSION: u8 = 1;

fn push_i32(out: &mut Vec<u8>, number: usize) -> Result<(), TypeError> {
    let number = i32::try_from(number).map_err(|_| {
        TypeError::InvalidParameter("array size exceeds the maximum allowed".to_owned())
    })?;
    out.extend_from_slice(&number.to_be_bytes());
    Ok(())
}

fn push_unsigned(value: u64, out: &mut String) {
    let mut digits = [b'0'; 20];
    let mut rest = value;
    let mut start = digits.len();
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        start = index;
        if rest == 0 {
            break;
        }
    }
    let digits = digits.get(start..).unwrap_or_default();
    out.push_str(std::str::from_utf8(digits).unwrap_or_default());
}

fn push_integer(value: i64, out: &mut String) {
    if value < 0 {
        out.push('-');
    }
    push_unsigned(value.unsigned_abs(), out);
}

fn uuid_of(values: &FixedSizeBinaryArray, row: usize) -> uuid::Uuid {
    uuid::Uuid::from_slice(values.value(row)).unwrap_or_default()
}

fn list_bounds(lists: &ListArray, row: usize) -> (usize, usize) {
    let offset = |index: usize| {
        lists
            .value_offsets()
            .get(index)
            .and_then(|offset| usize::try_from(*offset).ok())
            .unwrap_or(0)
    };
    (offset(row), offset(row + 1))
}

fn cells_of(array: &dyn Array, sql_type: &SqlType) -> Result<Cells, TypeError> {
    if *array.data_type() == DataType::Null {
        return Ok(Cells::AllNull);
    }
    if let DataType::Dictionary(_, value) = array.data_type() {
        return cells_of(cast_to(array, value)?.as_ref(), sql_type);
    }
    let target = sql_type.to_arrow();
    let cast = |target: &DataType| cast_to(array, target);
    Ok(match sql_type {
        SqlType::Bool => Cells::Bool(cast(&target)?.as_boolean().clone()),
        SqlType::Int2 => Cells::Int2(cast(&target)?.as_primitive().clone()),
        SqlType::Int4 => Cells::Int4(cast(&target)?.as_primitive().clone()),
        SqlType::Int8 => Cells::Int8(cast(&target)?.as_primitive().clone()),
        SqlType::UInt2 => Cells::UInt2(cast(&target)?.as_primitive().clone()),
        SqlType::UInt4 | SqlType::Oid | SqlType::Reg(_) => {
            Cells::UInt4(cast(&target)?.as_primitive().clone())
        }
        SqlType::UInt8 | SqlType::MzTimestamp => {
            Cells::UInt8(cast(&target)?.as_primitive().clone())
        }
        SqlType::Float4 => Cells::Float4(cast(&target)?.as_primitive().clone()),
        SqlType::Float8 => Cells::Float8(cast(&target)?.as_primitive().clone()),
        SqlType::Numeric(modifier) => numeric_cells(array, *modifier)?,
        SqlType::Text
        | SqlType::VarChar(_)
        | SqlType::Char(_)
        | SqlType::Name
        | SqlType::QuotedChar => Cells::Text(cast(&target)?.as_string().clone()),
        SqlType::Bytea => Cells::Bytea(cast(&target)?.as_binary().clone()),
        SqlType::Jsonb => match array.data_type() {
            DataType::LargeBinary | DataType::Binary | DataType::BinaryView => {
                Cells::Jsonb(cast(&target)?.as_binary().clone())
            }
            other => return Err(TypeError::Unsupported(format!("{other} as jsonb"))),
        },
        SqlType::Date => Cells::Date(cast(&target)?.as_primitive().clone()),
        SqlType::Time => Cells::Time(cast(&target)?.as_primitive().clone()),
        // The zone of an Arrow type does not change its values, which count from 1970 UTC.
        SqlType::Timestamp => Cells::Timestamp(instants(array)?),
        SqlType::TimestampTz => Cells::TimestampTz(instants(array)?),
        SqlType::Interval => Cells::Interval(cast(&target)?.as_primitive().clone()),
        SqlType::Uuid => Cells::Uuid(cast(&target)?.as_fixed_size_binary().clone()),
        SqlType::Array(element) => list_cells(array, element, false)?,
        SqlType::Int2Vector => list_cells(array, &SqlType::Int2, true)?,
        SqlType::OidVector => list_cells(array, &SqlType::Oid, true)?,
    })
}

fn instants(array: &dyn Array) -> Result<PrimitiveArray<TimestampMicrosecondType>, TypeError> {
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    Ok(
        cast_to(array, &DataType::Timestamp(TimeUnit::Microsecond, zone))?
            .as_primitive()
            .clone(),
    )
}

/// Plain `numeric` is written at whatever scale the array has.
fn numeric_cells(array: &dyn Array, modifier: Option<(u8, i8)>) -> Result<Cells, TypeError> {
    let physical = match array.data_type() {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    };
    let scale = match (modifier, physical) {
        (Some((_, scale)), _) => scale,
        (None, Some(scale)) => scale,
        (None, None) => numeric::precision_and_scale(None).1,
    };
    let fits = matches!(array.data_type(), DataType::Decimal128(_, physical) if *physical == scale);
    let values = if fits {
        array.slice(0, array.len())
    } else {
        cast_to(array, &DataType::Decimal128(38, scale))?
    };
    Ok(Cells::Numeric {
        values: values.as_primitive().clone(),
        scale,
        modifier,
    })
}

fn list_cells(array: &dyn Array, element: &SqlType, vector: bool) -> Result<Cells, TypeError> {
    let lists = match array.data_type() {
        DataType::List(_) => array.slice(0, array.len()),
        DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => cast_to(array, &DataType::List(item.clone()))?,
        other => return Err(TypeError::Unsupported(format!("{other} as {element}[]"))),
    };
    let lists = lists.as_list::<i32>().clone();
    let items = ColumnFormatter::owning(lists.values().as_ref(), element)?;
    let quoting = !matches!(
        element,
        SqlType::Bool
            | SqlType::Int2
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
            | SqlType::MzTimestamp
            | SqlType::Uuid
            | SqlType::Array(_)
            | SqlType::Int2Vector
            | SqlType::OidVector
    );
    Ok(Cells::List {
        lists,
        items: Box::new(items),
        element_oid: element.oid(),
        quoting,
        vector,
    })
}
