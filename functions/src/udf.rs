//! The frame every scalar function of ours is written in: a name, overloads, and a kernel over Arrow arrays for each.
//!
//! Owns overload resolution as PostgreSQL does it (exact types first, then the least implicit conversion), the conversion of arguments, and
//! the row-wise helpers kernels are made of. Must not know any function.
//!
//! Invariants. Arguments are never cast by DataFusion: [`PgFunction`] takes them as they come and converts them by PostgreSQL's rules.
//! A kernel sees arrays of exactly its parameters' types, all of `rows` values.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, LargeBinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
    UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray,
    LargeBinaryArray, ListArray, PrimitiveArray, StringArray, new_null_array,
};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use flowstone_types::datetime::TimeZone;
use flowstone_types::normalize::normalize_array;
use flowstone_types::{SqlType, budget};

use crate::cast::convert_in;
use crate::errors::{EvalResult, internal, numeric_not_held, raise};
use crate::execution::NarrowerBatches;
use crate::growth::{Growth, allowed};
use crate::interval::Interval;
use crate::numeric::Numeric;

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum P {
    /// A signed integer of any width, not converted
    Integer,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric` of any precision and scale
    Numeric,
    /// `boolean`
    Bool,
    /// Any type of characters
    Text,
    /// `bytea`
    Bytea,
    /// `jsonb`
    Jsonb,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    TimestampTz,
    /// `interval`
    Interval,
    /// `uuid`
    Uuid,
    /// An array of any type
    List,
    /// An array in catalogs, whose subscripts count from 0
    Vector,
    /// An array of text
    TextList,
    /// Anything, not converted
    Any,
}

/// The type of a result.
#[derive(Clone)]
pub(crate) enum R {
    /// Always this one.
    Sql(SqlType),
    /// The type of the argument at this position after conversion.
    Same(usize),
    /// The type of the items of the argument at this position, an array.
    Item(usize),
    /// Computed from the types of the arguments after conversion.
    Fn(fn(&[DataType]) -> Result<DataType>),
    /// Computed from the types after conversion and from those arguments that are literals.
    Literals(fn(&[DataType], &[Option<&ScalarValue>]) -> Result<DataType>),
}

/// What a kernel is given.
pub(crate) struct Call<'a> {
    /// The arguments, converted to the parameters' types, each of `rows` values.
    pub(crate) args: &'a [ArrayRef],
    /// Number of rows.
    pub(crate) rows: usize,
    /// The result's type.
    pub(crate) returns: &'a DataType,
    /// The time zone of the session that the call is for.
    pub(crate) zone: &'a TimeZone,
}

impl<'a> Call<'a> {
    /// Argument `index`.
    pub(crate) fn arg(&self, index: usize) -> Result<&'a ArrayRef> {
        self.args
            .get(index)
            .ok_or_else(|| raise(internal(format!("kernel without argument {index}"))))
    }
}

/// Computes a result from the arguments of a call.
pub(crate) type Kernel = fn(&Call<'_>) -> Result<ArrayRef>;

/// One way to call a function.
pub(crate) struct Overload {
    params: Vec<P>,
    /// Whether the last parameter may be given any number of times, zero included.
    variadic: bool,
    returns: R,
    kernel: Kernel,
    /// Whether the kernel asks for the time zone whatever its arguments are.
    zoned: bool,
}

impl Overload {
    /// The same, with a kernel that asks for the time zone.
    pub(crate) fn zoned(mut self) -> Self {
        self.zoned = true;
        self
    }
}

/// An overload with exactly these parameters.
pub(crate) fn overload(params: &[P], returns: R, kernel: Kernel) -> Overload {
    Overload {
        params: params.to_vec(),
        variadic: false,
        returns,
        kernel,
        zoned: false,
    }
}

/// Overloads with the first `least` of these parameters, and with each more.
pub(crate) fn up_to(params: &[P], least: usize, returns: R, kernel: Kernel) -> Vec<Overload> {
    (least..=params.len())
        .filter_map(|count| params.get(..count))
        .map(|params| overload(params, returns.clone(), kernel))
        .collect()
}

/// An overload whose last parameter repeats, zero times included.
pub(crate) fn variadic(params: &[P], returns: R, kernel: Kernel) -> Overload {
    Overload {
        params: params.to_vec(),
        variadic: true,
        returns,
        kernel,
        zoned: false,
    }
}

/// A scalar function of ours.
pub(crate) struct PgFunction {
    name: &'static str,
    aliases: Vec<String>,
    signature: Signature,
    overloads: Vec<Overload>,
}

/// An immutable function.
pub(crate) fn function(name: &'static str, overloads: Vec<Overload>) -> ScalarUDF {
    aliased(name, &[], overloads)
}

/// An immutable function with other names.
pub(crate) fn aliased(name: &'static str, aliases: &[&str], overloads: Vec<Overload>) -> ScalarUDF {
    ScalarUDF::new_from_impl(PgFunction {
        name,
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        signature: Signature::user_defined(Volatility::Immutable),
        overloads,
    })
}

impl std::fmt::Debug for PgFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgFunction")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl PartialEq for PgFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for PgFunction {}

impl Hash for PgFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PgFunction {
    fn resolve(&self, types: &[DataType]) -> Result<&Overload> {
        let best = self
            .overloads
            .iter()
            .filter_map(|overload| Some((overload.cost(types)?, overload)))
            .min_by_key(|(cost, _)| *cost);
        match best {
            Some((_, overload)) => Ok(overload),
            None => plan_err!(
                "function {}({}) does not exist",
                self.name,
                type_names(types)
            ),
        }
    }
}

impl PgFunction {
    /// Whether a call with arguments of these types has a result that depends on the time zone.
    pub(crate) fn asks_for_zone(&self, types: &[DataType]) -> bool {
        let Ok(overload) = self.resolve(types) else {
            return false;
        };
        overload.zoned
            || types.iter().enumerate().any(|(index, data_type)| {
                overload
                    .param(index)
                    .is_some_and(|param| param.converts_in_zone(data_type))
            })
    }

    /// Evaluates a call in a time zone.
    pub(crate) fn invoke_in(
        &self,
        args: &ScalarFunctionArgs,
        zone: &TimeZone,
    ) -> Result<ColumnarValue> {
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        let overload = self.resolve(&types)?;
        let returns = args.return_field.data_type();
        evaluate(&args.args, args.number_rows, |arrays, rows| {
            let converted = arrays
                .iter()
                .enumerate()
                .map(|(index, array)| match overload.param(index) {
                    Some(param) => convert_in(array, &param.target(array.data_type()), zone),
                    None => Ok(Arc::clone(array)),
                })
                .collect::<Result<Vec<_>>>()?;
            let result = (overload.kernel)(&Call {
                args: &converted,
                rows,
                returns,
                zone,
            })?;
            Ok(normal(result))
        })
    }

    /// The parameters of its overloads, and whether the last one repeats.
    pub(crate) fn declared(&self) -> impl Iterator<Item = (&[P], bool)> {
        self.overloads
            .iter()
            .map(|overload| (overload.params.as_slice(), overload.variadic))
    }
}

fn type_names(types: &[DataType]) -> String {
    let name = |data_type: &DataType| match data_type {
        DataType::Null => "unknown".to_owned(),
        other => {
            SqlType::from_arrow(other).map_or_else(|_| other.to_string(), |sql| sql.to_string())
        }
    };
    types.iter().map(name).collect::<Vec<_>>().join(", ")
}

impl Overload {
    fn param(&self, index: usize) -> Option<P> {
        let last = self.params.len().checked_sub(1)?;
        if self.variadic && index >= last {
            self.params.last().copied()
        } else {
            self.params.get(index).copied()
        }
    }

    fn accepts_count(&self, count: usize) -> bool {
        if self.variadic {
            count + 1 >= self.params.len()
        } else {
            count == self.params.len()
        }
    }

    fn cost(&self, types: &[DataType]) -> Option<u32> {
        if !self.accepts_count(types.len()) {
            return None;
        }
        types
            .iter()
            .enumerate()
            .map(|(index, data_type)| self.param(index).and_then(|param| param.cost(data_type)))
            .sum()
    }

    fn converted_types(&self, types: &[DataType]) -> Vec<DataType> {
        types
            .iter()
            .enumerate()
            .map(|(index, data_type)| {
                self.param(index)
                    .map_or_else(|| data_type.clone(), |param| param.target(data_type))
            })
            .collect()
    }

    fn return_type(
        &self,
        converted: &[DataType],
        literals: &[Option<&ScalarValue>],
    ) -> Result<DataType> {
        match &self.returns {
            R::Sql(sql) => Ok(sql.to_arrow()),
            R::Same(index) => converted
                .get(*index)
                .cloned()
                .ok_or_else(|| raise(internal("no such argument"))),
            R::Item(index) => converted
                .get(*index)
                .and_then(item_field)
                .map(|item| item.data_type().clone())
                .ok_or_else(|| raise(internal("an argument is not an array"))),
            R::Fn(compute) => compute(converted),
            R::Literals(compute) => compute(converted, literals),
        }
    }
}

/// The field of the items of an array.
fn item_field(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) => Some(item),
        _ => None,
    }
}

/// Position of a numeric type in the order of implicit conversion.
fn numeric_rank(data_type: &DataType) -> Option<u32> {
    Some(match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => 1,
        DataType::Int32 | DataType::UInt16 => 2,
        DataType::Int64 | DataType::UInt32 => 3,
        DataType::UInt64 => 4,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) => 5,
        DataType::Float16 | DataType::Float32 => 6,
        DataType::Float64 => 7,
        _ => return None,
    })
}

impl P {
    /// How much converting an argument of `data_type` to this parameter costs; `None` if that is not implicit.
    fn cost(self, data_type: &DataType) -> Option<u32> {
        if self == Self::Any {
            return Some(9);
        }
        if *data_type == DataType::Null {
            return Some(if self == Self::Text { 0 } else { 1 });
        }
        let is_text = matches!(
            data_type,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        );
        if is_text {
            // A literal of unknown type takes any type, text first.
            return match self {
                Self::Text => Some(0),
                Self::List | Self::Vector | Self::TextList => None,
                _ => Some(20),
            };
        }
        let numeric = |rank: u32| numeric_rank(data_type).and_then(|from| rank.checked_sub(from));
        match (self, data_type) {
            (Self::Bool, DataType::Boolean)
            | (Self::Bytea, DataType::Binary | DataType::BinaryView)
            | (Self::Jsonb, DataType::LargeBinary)
            | (Self::Date, DataType::Date32)
            | (Self::Time, DataType::Time64(_))
            | (Self::Timestamp, DataType::Timestamp(_, None))
            | (Self::TimestampTz, DataType::Timestamp(_, Some(_)))
            | (Self::Interval, DataType::Interval(_))
            | (Self::Uuid, DataType::FixedSizeBinary(16)) => Some(0),
            (Self::Integer, other) if other.is_signed_integer() => Some(0),
            // An integer literal arrives as bigint; its value is checked when it is converted.
            (Self::Int4, DataType::Int64) => Some(5),
            (Self::Int4, _) => numeric(2),
            (Self::Int8, _) => numeric(3),
            (Self::Numeric, _) => numeric(5),
            (Self::Float4, _) => numeric(6),
            // The preferred type of its category: cheaper than numeric for an integer, dearer than a wider integer.
            (Self::Float8, DataType::Float64) => Some(0),
            (Self::Float8, DataType::Float32 | DataType::Float16) => Some(1),
            (
                Self::Float8,
                DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..),
            ) => Some(1),
            (Self::Float8, _) => numeric(4),
            (Self::Timestamp, DataType::Date32) => Some(3),
            (Self::TimestampTz, DataType::Date32 | DataType::Timestamp(..)) => Some(2),
            (Self::Interval, DataType::Time64(_)) => Some(2),
            (Self::List, DataType::List(_)) | (Self::Vector, DataType::LargeList(_)) => Some(0),
            (Self::List, DataType::LargeList(_)) => Some(1),
            (Self::TextList, DataType::List(item)) => match item.data_type() {
                DataType::Utf8 => Some(0),
                DataType::Null => Some(1),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the time zone decides what an argument of `data_type` becomes: as an instant, or as text where the kernel makes text of anything.
    fn converts_in_zone(self, data_type: &DataType) -> bool {
        match self {
            Self::TimestampTz => matches!(
                data_type,
                DataType::Utf8 | DataType::Date32 | DataType::Timestamp(_, None)
            ),
            Self::Any | Self::List | Self::TextList => has_instants(data_type),
            _ => false,
        }
    }

    /// The Arrow type an argument of `data_type` is converted to.
    fn target(self, data_type: &DataType) -> DataType {
        match self {
            Self::Integer if data_type.is_signed_integer() => data_type.clone(),
            Self::Integer | Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float4 => DataType::Float32,
            Self::Float8 => DataType::Float64,
            Self::Numeric => match data_type {
                DataType::Decimal128(..) => data_type.clone(),
                DataType::Null | DataType::Utf8 => SqlType::Numeric(None).to_arrow(),
                _ => DataType::Decimal128(38, 0),
            },
            Self::Bool => DataType::Boolean,
            Self::Text => DataType::Utf8,
            Self::Bytea => DataType::Binary,
            Self::Jsonb => DataType::LargeBinary,
            Self::Date => DataType::Date32,
            Self::Time => SqlType::Time.to_arrow(),
            Self::Timestamp => SqlType::Timestamp.to_arrow(),
            Self::TimestampTz => SqlType::TimestampTz.to_arrow(),
            Self::Interval => SqlType::Interval.to_arrow(),
            Self::Uuid => DataType::FixedSizeBinary(16),
            Self::TextList => SqlType::Array(Box::new(SqlType::Text)).to_arrow(),
            Self::List => match data_type {
                DataType::LargeList(item) => DataType::List(Arc::clone(item)),
                DataType::Null => SqlType::Array(Box::new(SqlType::Text)).to_arrow(),
                other => other.clone(),
            },
            Self::Vector | Self::Any => data_type.clone(),
        }
    }
}

/// Whether values of a type are instants or contain some.
pub(crate) fn has_instants(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(_, zone) => zone.is_some(),
        DataType::List(item) | DataType::LargeList(item) => has_instants(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_instants(field.data_type())),
        _ => false,
    }
}

/// The value of a row. A list keeps the field of its items, which says what SQL type they have; DataFusion's own conversion forgets it.
///
/// # Errors
/// If the type has no scalar.
pub fn scalar_at(array: &ArrayRef, row: usize) -> Result<ScalarValue> {
    let cell = || array.slice(row, 1);
    Ok(match array.data_type() {
        DataType::List(_) => ScalarValue::List(Arc::new(cell().as_list().clone())),
        DataType::LargeList(_) => ScalarValue::LargeList(Arc::new(cell().as_list().clone())),
        _ => ScalarValue::try_from_array(array, row)?,
    })
}

/// What constants among arguments take as arrays of `rows` values.
pub(crate) fn spread_bytes(args: &[ColumnarValue], rows: usize) -> usize {
    args.iter()
        .map(|arg| match arg {
            ColumnarValue::Scalar(value) => value.size().saturating_mul(rows),
            ColumnarValue::Array(_) => 0,
        })
        .fold(0, usize::saturating_add)
}

/// What constants may take once they are repeated for every row of a call; beyond that, rows go in parts.
const SPREAD_BYTES: usize = 8 << 20;

/// Functions of DataFusion's that take a value of any type, or do with text what their caller means.
const TAKE_ANYTHING: [&str; 8] = [
    "coalesce",
    "get_field",
    "greatest",
    "least",
    "named_struct",
    "nullif",
    "raise_error",
    "struct",
];

/// Whether argument `index` of a call of `function` is converted to text: what it prints as is not what the function works on.
#[must_use]
pub fn takes_text(function: &ScalarUDF, types: &[DataType], index: usize) -> bool {
    let name = function.name();
    // The cast knows what it casts from; the length in bytes sees the padding, and so does what is matched with a pattern, but no pattern has any.
    match name {
        "pg_cast" | "octet_length" => return false,
        "text_like" | "text_ilike" | "regexp_like" if index == 0 => return false,
        _ => {}
    }
    // They quote anything, and characters as text.
    if matches!(name, "quote_literal" | "quote_nullable") {
        return true;
    }
    match function.inner().downcast_ref::<PgFunction>() {
        Some(ours) => ours
            .resolve(types)
            .is_ok_and(|overload| overload.param(index) == Some(P::Text)),
        None => !name.contains("array") && !TAKE_ANYTHING.contains(&name),
    }
}

/// Evaluates a call on constants once, and any other call on arrays.
pub(crate) fn evaluate(
    args: &[ColumnarValue],
    rows: usize,
    compute: impl Fn(&[ArrayRef], usize) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let constant = args
        .iter()
        .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let count = if constant { 1 } else { rows };
    let spread = spread_bytes(args, count);
    let part_rows = if spread > SPREAD_BYTES {
        (SPREAD_BYTES / (spread / count.max(1)).max(1)).max(1)
    } else {
        count
    };
    // One row of them is spread in any case.
    allowed(spread.min(SPREAD_BYTES.max(spread / count.max(1))))?;
    let part = |from: usize, length: usize| -> Result<ArrayRef> {
        let arrays = args
            .iter()
            .map(|arg| match arg {
                ColumnarValue::Array(array) if length < count => Ok(array.slice(from, length)),
                other => {
                    allowed(0)?;
                    other.to_array(length)
                }
            })
            .collect::<Result<Vec<_>>>()?;
        compute(&arrays, length)
    };
    if constant {
        let value = scalar_at(&part(0, 1)?, 0)?;
        may_be_repeated(value.size(), rows)?;
        return Ok(ColumnarValue::Scalar(value));
    }
    if part_rows >= count {
        return part(0, count).map(ColumnarValue::Array);
    }
    let mut parts = Vec::new();
    let mut from = 0;
    while from < count {
        let length = part_rows.min(count - from);
        parts.push(part(from, length)?);
        from += length;
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(ColumnarValue::Array(arrow_select::concat::concat(&parts)?))
}

/// A constant of `bytes` may stand in each of `rows` rows: whoever asked for it may repeat it.
fn may_be_repeated(bytes: usize, rows: usize) -> Result<()> {
    if rows <= 1 || budget::is_constants_only() || budget::current().is_none() {
        return Ok(());
    }
    match NarrowerBatches::for_rows_of(bytes) {
        Some(narrower) if narrower.rows < rows => Err(narrower.into()),
        _ => Ok(()),
    }
}

impl ScalarUDFImpl for PgFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let overload = self.resolve(arg_types)?;
        overload.return_type(&overload.converted_types(arg_types), &[])
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        // Planning asks this of every call, again and again.
        budget::check().map_err(|exceeded| raise(exceeded.into()))?;
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let overload = self.resolve(&types)?;
        Ok(Arc::new(match &overload.returns {
            R::Sql(sql) => sql.to_field(self.name, true),
            R::Item(index) => overload
                .converted_types(&types)
                .get(*index)
                .and_then(item_field)
                .map(|item| {
                    item.as_ref()
                        .clone()
                        .with_name(self.name)
                        .with_nullable(true)
                })
                .ok_or_else(|| raise(internal("an argument is not an array")))?,
            _ => Field::new(
                self.name,
                overload.return_type(&overload.converted_types(&types), args.scalar_arguments)?,
                true,
            ),
        }))
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.resolve(arg_types)?;
        Ok(arg_types.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.invoke_in(&args, &TimeZone::UTC)
    }
}

/// Floats as the rest of the engine expects them: one zero and one NaN, because Arrow's comparisons tell others apart.
pub(crate) fn normal(result: ArrayRef) -> ArrayRef {
    if result.data_type().is_floating() {
        normalize_array(&result)
    } else {
        result
    }
}

/// A value read from an Arrow array of its type.
pub(crate) trait Arg<'a>: Sized {
    /// The array that holds such values.
    type Array: Array + 'static;

    /// The value at `row`, which is in range and not null.
    fn read(array: &'a Self::Array, row: usize) -> Self;
}

/// A value that a result array is built of.
pub(crate) trait Ret: Sized {
    /// An array of `returns` from one optional value per row.
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        rows: usize,
        returns: &DataType,
    ) -> Result<ArrayRef>;
}

macro_rules! primitive_value {
    ($($native:ty => $arrow:ty),* $(,)?) => {$(
        impl Arg<'_> for $native {
            type Array = PrimitiveArray<$arrow>;

            fn read(array: &Self::Array, row: usize) -> Self {
                array.value(row)
            }
        }

        impl Ret for $native {
            fn build(values: impl Iterator<Item = EvalResult<Option<Self>>>, _rows: usize, _returns: &DataType) -> Result<ArrayRef> {
                Ok(Arc::new(values.collect::<EvalResult<PrimitiveArray<$arrow>>>().map_err(raise)?))
            }
        }
    )*};
}

primitive_value!(
    i16 => Int16Type,
    i32 => Int32Type,
    i64 => Int64Type,
    u32 => UInt32Type,
    u64 => UInt64Type,
    f32 => Float32Type,
    f64 => Float64Type,
);

/// Newtypes for values that share a Rust type with a number.
macro_rules! wrapped_value {
    ($($(#[$doc:meta])* $name:ident($native:ty) => $arrow:ty),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(pub(crate) $native);

        impl Arg<'_> for $name {
            type Array = PrimitiveArray<$arrow>;

            fn read(array: &Self::Array, row: usize) -> Self {
                Self(array.value(row))
            }
        }

        impl Ret for $name {
            fn build(values: impl Iterator<Item = EvalResult<Option<Self>>>, _rows: usize, returns: &DataType) -> Result<ArrayRef> {
                let values = values.map(|value| Ok(value?.map(|value| value.0))).collect::<EvalResult<PrimitiveArray<$arrow>>>().map_err(raise)?;
                Ok(Arc::new(values.with_data_type(returns.clone())))
            }
        }
    )*};
}

wrapped_value!(
    /// Days since 1970-01-01.
    Days(i32) => Date32Type,
    /// Microseconds since midnight.
    TimeOfDay(i64) => Time64MicrosecondType,
    /// Microseconds since 1970-01-01, of either timestamp type.
    Micros(i64) => TimestampMicrosecondType,
);

impl Arg<'_> for Interval {
    type Array = PrimitiveArray<IntervalMonthDayNanoType>;

    fn read(array: &Self::Array, row: usize) -> Self {
        Self::from_arrow(array.value(row))
    }
}

impl Ret for Interval {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        _rows: usize,
        _returns: &DataType,
    ) -> Result<ArrayRef> {
        let values = values
            .map(|value| value?.map(Self::to_arrow).transpose())
            .collect::<EvalResult<PrimitiveArray<IntervalMonthDayNanoType>>>()
            .map_err(raise)?;
        Ok(Arc::new(values))
    }
}

impl Arg<'_> for bool {
    type Array = BooleanArray;

    fn read(array: &Self::Array, row: usize) -> Self {
        array.value(row)
    }
}

impl Ret for bool {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        _rows: usize,
        _returns: &DataType,
    ) -> Result<ArrayRef> {
        Ok(Arc::new(
            values
                .collect::<EvalResult<BooleanArray>>()
                .map_err(raise)?,
        ))
    }
}

impl<'a> Arg<'a> for &'a str {
    type Array = StringArray;

    fn read(array: &'a Self::Array, row: usize) -> Self {
        array.value(row)
    }
}

impl Ret for String {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        rows: usize,
        _returns: &DataType,
    ) -> Result<ArrayRef> {
        let mut builder = StringBuilder::with_capacity(rows, rows.saturating_mul(16));
        let mut growth = Growth::default();
        for value in values {
            let value = value.map_err(raise)?;
            growth
                .add(value.as_ref().map_or(0, String::len))
                .map_err(raise)?;
            builder.append_option(value);
        }
        Ok(Arc::new(builder.finish()))
    }
}

impl<'a> Arg<'a> for &'a [u8] {
    type Array = BinaryArray;

    fn read(array: &'a Self::Array, row: usize) -> Self {
        array.value(row)
    }
}

impl Ret for Vec<u8> {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        rows: usize,
        _returns: &DataType,
    ) -> Result<ArrayRef> {
        let mut builder = BinaryBuilder::with_capacity(rows, rows.saturating_mul(16));
        let mut growth = Growth::default();
        for value in values {
            let value = value.map_err(raise)?;
            growth
                .add(value.as_ref().map_or(0, Self::len))
                .map_err(raise)?;
            builder.append_option(value);
        }
        Ok(Arc::new(builder.finish()))
    }
}

/// A jsonb value in canonical form, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Json<'a>(pub(crate) &'a [u8]);

impl<'a> Arg<'a> for Json<'a> {
    type Array = LargeBinaryArray;

    fn read(array: &'a Self::Array, row: usize) -> Self {
        Self(array.value(row))
    }
}

/// A jsonb value in canonical form.
#[derive(Clone, Debug)]
pub(crate) struct JsonBuf(pub(crate) Vec<u8>);

impl Ret for JsonBuf {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        rows: usize,
        _returns: &DataType,
    ) -> Result<ArrayRef> {
        let mut builder = LargeBinaryBuilder::with_capacity(rows, rows.saturating_mul(32));
        let mut growth = Growth::default();
        for value in values {
            let value = value.map_err(raise)?.map(|value| value.0);
            growth
                .add(value.as_ref().map_or(0, Vec::len))
                .map_err(raise)?;
            builder.append_option(value);
        }
        Ok(Arc::new(builder.finish()))
    }
}

/// A uuid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UuidBytes(pub(crate) [u8; 16]);

impl Arg<'_> for UuidBytes {
    type Array = FixedSizeBinaryArray;

    fn read(array: &Self::Array, row: usize) -> Self {
        Self(array.value(row).try_into().unwrap_or_default())
    }
}

impl Ret for UuidBytes {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        _rows: usize,
        _returns: &DataType,
    ) -> Result<ArrayRef> {
        let values = values
            .map(|value| Ok(value?.map(|value| value.0)))
            .collect::<EvalResult<Vec<_>>>()
            .map_err(raise)?;
        Ok(Arc::new(
            FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), 16)?,
        ))
    }
}

impl Arg<'_> for Numeric {
    type Array = Decimal128Array;

    fn read(array: &Self::Array, row: usize) -> Self {
        Self {
            value: array.value(row),
            scale: array.scale(),
        }
    }
}

impl Ret for Numeric {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        _rows: usize,
        returns: &DataType,
    ) -> Result<ArrayRef> {
        let DataType::Decimal128(precision, scale) = returns else {
            return Err(raise(internal(format!(
                "numeric result declared as {returns}"
            ))));
        };
        let values = values
            .map(|value| {
                value?
                    .map(|value| value.rescale(*precision, *scale))
                    .transpose()
            })
            .collect::<EvalResult<PrimitiveArray<Decimal128Type>>>()
            .map_err(raise)?;
        values
            .with_precision_and_scale(*precision, *scale)
            .map(|array| -> ArrayRef { Arc::new(array) })
            .map_err(|_| raise(numeric_not_held()))
    }
}

/// What an item of a list takes beside its text.
pub(crate) const ITEM_BYTES: usize = size_of::<Option<String>>();

/// A list of optional texts.
pub(crate) type TextList = Vec<Option<String>>;

impl Ret for TextList {
    fn build(
        values: impl Iterator<Item = EvalResult<Option<Self>>>,
        _rows: usize,
        returns: &DataType,
    ) -> Result<ArrayRef> {
        let DataType::List(item) = returns else {
            return Err(raise(internal(format!(
                "list result declared as {returns}"
            ))));
        };
        let mut builder = arrow_array::builder::ListBuilder::new(StringBuilder::new())
            .with_field(Arc::clone(item));
        let mut growth = Growth::default();
        for value in values {
            match value.map_err(raise)? {
                Some(list) => {
                    for text in list {
                        growth
                            .add(text.as_ref().map_or(0, String::len) + ITEM_BYTES)
                            .map_err(raise)?;
                        builder.values().append_option(text);
                    }
                    builder.append(true);
                }
                None => builder.append(false),
            }
        }
        Ok(Arc::new(builder.finish()))
    }
}

impl Arg<'_> for ArrayRef {
    type Array = ListArray;

    fn read(array: &Self::Array, row: usize) -> Self {
        array.value(row)
    }
}

fn typed<'a, A: Arg<'a>>(call: &Call<'a>, index: usize) -> Result<&'a A::Array> {
    let array = call.arg(index)?;
    array.as_any().downcast_ref::<A::Array>().ok_or_else(|| {
        raise(internal(format!(
            "argument {index} of a kernel is {}",
            array.data_type()
        )))
    })
}

/// Rows between two looks whether anybody still waits for the result.
const ROWS_PER_CHECK: usize = 64;

/// The numbers of a call's rows; an error instead once nobody waits for the result.
fn rows(call: &Call<'_>) -> impl Iterator<Item = EvalResult<usize>> {
    (0..call.rows).map(|row| {
        if row % ROWS_PER_CHECK == 0 {
            budget::check()?;
        }
        Ok(row)
    })
}

/// Kernel of one strict argument.
pub(crate) fn map1<'a, A, T>(
    call: &Call<'a>,
    mut f: impl FnMut(A) -> EvalResult<T>,
) -> Result<ArrayRef>
where
    A: Arg<'a>,
    T: Ret,
{
    opt1(call, |value| f(value).map(Some))
}

/// Kernel of one strict argument that may give NULL.
pub(crate) fn opt1<'a, A, T>(
    call: &Call<'a>,
    mut f: impl FnMut(A) -> EvalResult<Option<T>>,
) -> Result<ArrayRef>
where
    A: Arg<'a>,
    T: Ret,
{
    let first = typed::<A>(call, 0)?;
    T::build(
        rows(call).map(|row| {
            let row = row?;
            if first.is_null(row) {
                Ok(None)
            } else {
                f(A::read(first, row))
            }
        }),
        call.rows,
        call.returns,
    )
}

/// Kernel of two strict arguments.
pub(crate) fn map2<'a, A, B, T>(
    call: &Call<'a>,
    mut f: impl FnMut(A, B) -> EvalResult<T>,
) -> Result<ArrayRef>
where
    A: Arg<'a>,
    B: Arg<'a>,
    T: Ret,
{
    opt2(call, |a, b| f(a, b).map(Some))
}

/// Kernel of two strict arguments that may give NULL.
pub(crate) fn opt2<'a, A, B, T>(
    call: &Call<'a>,
    mut f: impl FnMut(A, B) -> EvalResult<Option<T>>,
) -> Result<ArrayRef>
where
    A: Arg<'a>,
    B: Arg<'a>,
    T: Ret,
{
    let (first, second) = (typed::<A>(call, 0)?, typed::<B>(call, 1)?);
    T::build(
        rows(call).map(|row| {
            let row = row?;
            if first.is_null(row) || second.is_null(row) {
                Ok(None)
            } else {
                f(A::read(first, row), B::read(second, row))
            }
        }),
        call.rows,
        call.returns,
    )
}

/// Kernel of three strict arguments.
pub(crate) fn map3<'a, A, B, C, T>(
    call: &Call<'a>,
    mut f: impl FnMut(A, B, C) -> EvalResult<T>,
) -> Result<ArrayRef>
where
    A: Arg<'a>,
    B: Arg<'a>,
    C: Arg<'a>,
    T: Ret,
{
    let (first, second, third) = (
        typed::<A>(call, 0)?,
        typed::<B>(call, 1)?,
        typed::<C>(call, 2)?,
    );
    T::build(
        rows(call).map(|row| {
            let row = row?;
            if first.is_null(row) || second.is_null(row) || third.is_null(row) {
                Ok(None)
            } else {
                f(
                    A::read(first, row),
                    B::read(second, row),
                    C::read(third, row),
                )
                .map(Some)
            }
        }),
        call.rows,
        call.returns,
    )
}

/// Kernel of four strict arguments.
pub(crate) fn map4<'a, A, B, C, D, T>(
    call: &Call<'a>,
    mut f: impl FnMut(A, B, C, D) -> EvalResult<T>,
) -> Result<ArrayRef>
where
    A: Arg<'a>,
    B: Arg<'a>,
    C: Arg<'a>,
    D: Arg<'a>,
    T: Ret,
{
    let (first, second, third, fourth) = (
        typed::<A>(call, 0)?,
        typed::<B>(call, 1)?,
        typed::<C>(call, 2)?,
        typed::<D>(call, 3)?,
    );
    T::build(
        rows(call).map(|row| {
            let row = row?;
            if first.is_null(row)
                || second.is_null(row)
                || third.is_null(row)
                || fourth.is_null(row)
            {
                Ok(None)
            } else {
                f(
                    A::read(first, row),
                    B::read(second, row),
                    C::read(third, row),
                    D::read(fourth, row),
                )
                .map(Some)
            }
        }),
        call.rows,
        call.returns,
    )
}

/// Kernel over rows of any number of arguments: `f` is given the row.
pub(crate) fn map_rows<T: Ret>(
    call: &Call<'_>,
    f: impl FnMut(usize) -> EvalResult<Option<T>>,
) -> Result<ArrayRef> {
    let mut f = f;
    T::build(rows(call).map(|row| f(row?)), call.rows, call.returns)
}

/// Primitive values of `array`, which has that type.
pub(crate) fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> Result<&PrimitiveArray<T>> {
    array.as_primitive_opt::<T>().ok_or_else(|| {
        raise(internal(format!(
            "unexpected array of {}",
            array.data_type()
        )))
    })
}

/// Texts of `array`, which has that type.
pub(crate) fn texts(array: &ArrayRef) -> Result<&StringArray> {
    array.as_string_opt::<i32>().ok_or_else(|| {
        raise(internal(format!(
            "unexpected array of {}",
            array.data_type()
        )))
    })
}

/// Lists of `array`, which has that type.
pub(crate) fn lists(array: &ArrayRef) -> Result<&ListArray> {
    array.as_list_opt::<i32>().ok_or_else(|| {
        raise(internal(format!(
            "unexpected array of {}",
            array.data_type()
        )))
    })
}

/// All NULL.
pub(crate) fn nulls(call: &Call<'_>) -> ArrayRef {
    new_null_array(call.returns, call.rows)
}

/// An error that no caller can do anything about.
pub(crate) fn broken(message: &str) -> DataFusionError {
    raise(internal(message))
}
