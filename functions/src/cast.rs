//! Casts by PostgreSQL's rules.
//!
//! Owns which casts DataFusion's own cast does right, and the kernels of all others, behind the function `pg_cast(value, from, to)`:
//! the type names are literal arguments, so that a cast survives the codec. Must not know SQL text.
//! Called by `sql` ([`cast_expr`]) and by every function here that converts its arguments.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, ListArray, PrimitiveArray, StringArray,
    new_null_array,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, FieldRef, TimeUnit};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use flowstone_types::datetime::TimeZone;
use flowstone_types::sql_type::NUMERIC_DEFAULT;
use flowstone_types::{ColumnBuilder, ColumnFormatter, EvalError, EvalErrorKind, SqlType};

use crate::errors::{
    EvalResult, from_arrow, from_type_error, numeric_overflow, out_of_range, raise,
};
use crate::interval::{DAY, Interval, date_of, midnight, time_of};
use crate::json;
use crate::numeric::{Lost, Numeric};
use crate::registry::scalar_function;
use crate::udf::{
    Call, Days, Json, Micros, Ret, TimeOfDay, evaluate, map1, opt1, primitive, texts,
};
use crate::zone::{to_local, to_utc};

/// The function behind the casts that DataFusion's own does not do as PostgreSQL.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::new_from_impl(PgCast {
        signature: Signature::any(3, Volatility::Immutable),
    })]
}

/// `expr::to` for an expression of type `from`: an explicit cast.
///
/// # Errors
/// If PostgreSQL has no cast between the types.
pub fn cast_expr(expr: Expr, from: &SqlType, to: &SqlType) -> Result<Expr> {
    if from == to {
        return Ok(expr);
    }
    if !can_cast(from, to) {
        return plan_err!("cannot cast type {from} to {to}");
    }
    if same_in_datafusion(from, to) {
        let name = expr.schema_name().to_string();
        return Ok(Expr::Cast(Cast::new_from_field(
            Box::new(expr),
            Arc::new(to.to_field(&name, true)),
        )));
    }
    let args = vec![expr, lit(from.to_string()), lit(to.to_string())];
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(
        scalar_function("pg_cast")?,
        args,
    )))
}

/// Whether PostgreSQL has a cast, explicit ones included. NULL literals are of type text and cast to everything.
#[must_use]
pub fn can_cast(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::{Array, Bool, Bytea, Date, Int4, Interval, Jsonb, Time, Timestamp, TimestampTz};
    if from == to || is_text(from) || is_text(to) || (is_number(from) && is_number(to)) {
        return true;
    }
    match (from, to) {
        (Bool, Int4) | (Int4 | SqlType::Int8, Bool) => true,
        (Jsonb, Bool) => true,
        (Jsonb, to) => is_number(to),
        (Bytea, Bytea) => true,
        (Date | Timestamp | TimestampTz, Date | Timestamp | TimestampTz) => true,
        (Timestamp | TimestampTz | Interval, Time) | (Time, Interval) => true,
        (Array(from), Array(to)) => can_cast(from, to),
        (SqlType::Int2Vector | SqlType::OidVector, Array(to)) => {
            from.element().is_some_and(|element| can_cast(&element, to))
        }
        _ => false,
    }
}

/// Whether DataFusion's cast gives what PostgreSQL's gives for every value: no rounding, no failure, no text.
fn same_in_datafusion(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::{Float4, Float8, Int2, Int4, Int8, Name, Text, VarChar};
    matches!(
        (from, to),
        (Int2, Int4 | Int8 | Float4 | Float8)
            | (Int4, Int8 | Float8)
            | (Int8, Float8)
            | (Float4, Float8)
            | (Text | VarChar(_) | Name, Text | VarChar(None))
    )
}

fn is_text(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Text
            | SqlType::VarChar(_)
            | SqlType::Char(_)
            | SqlType::Name
            | SqlType::QuotedChar
    )
}

fn is_integer(sql_type: &SqlType) -> bool {
    use SqlType::{Int2, Int4, Int8, MzTimestamp, Oid, Reg, UInt2, UInt4, UInt8};
    matches!(
        sql_type,
        Int2 | Int4 | Int8 | UInt2 | UInt4 | UInt8 | Oid | Reg(_) | MzTimestamp
    )
}

fn is_number(sql_type: &SqlType) -> bool {
    is_integer(sql_type)
        || matches!(
            sql_type,
            SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_)
        )
}

/// `pg_cast(value, 'from', 'to')`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PgCast {
    signature: Signature,
}

fn type_argument(value: Option<&ScalarValue>) -> Result<SqlType> {
    match value {
        Some(ScalarValue::Utf8(Some(name))) => name
            .parse()
            .map_err(|error: flowstone_types::TypeError| DataFusionError::Plan(error.to_string())),
        _ => plan_err!("the types of pg_cast must be literals"),
    }
}

impl ScalarUDFImpl for PgCast {
    fn name(&self) -> &str {
        "pg_cast"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [value, _, Expr::Literal(ScalarValue::Utf8(Some(to)), _)] => {
                Ok(format!("{}::{to}", value.schema_name()))
            }
            _ => plan_err!("the types of pg_cast must be literals"),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        plan_err!("the type of pg_cast depends on its arguments")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let to = type_argument(args.scalar_arguments.get(2).copied().flatten())?;
        Ok(Arc::new(to.to_field(self.name(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Self::invoke_in(&args, &TimeZone::UTC)
    }
}

impl PgCast {
    /// Evaluates a call in a time zone.
    fn invoke_in(args: &ScalarFunctionArgs, zone: &TimeZone) -> Result<ColumnarValue> {
        let scalar = |index: usize| match args.args.get(index) {
            Some(ColumnarValue::Scalar(value)) => Some(value),
            _ => None,
        };
        let (from, to) = (type_argument(scalar(1))?, type_argument(scalar(2))?);
        let value = args.args.get(..1).unwrap_or_default();
        evaluate(value, args.number_rows, |arrays, _| match arrays {
            [array] => cast_array_in(array, &from, &to, zone),
            _ => plan_err!("pg_cast takes three arguments"),
        })
    }
}

/// Evaluates a call of `pg_cast` in a time zone.
pub(crate) fn invoke_in(args: &ScalarFunctionArgs, zone: &TimeZone) -> Result<ColumnarValue> {
    PgCast::invoke_in(args, zone)
}

/// Whether the time zone decides what a value becomes.
#[must_use]
pub fn casts_in_zone(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::{Date, Time, Timestamp, TimestampTz};
    match (from, to) {
        (SqlType::Array(from), SqlType::Array(to)) => casts_in_zone(from, to),
        (TimestampTz, TimestampTz) => false,
        (TimestampTz, Date | Time | Timestamp) | (Date | Timestamp, TimestampTz) => true,
        (TimestampTz, other) | (other, TimestampTz) => is_text(other),
        (SqlType::Array(item), other) | (other, SqlType::Array(item)) => {
            is_text(other) && casts_in_zone(item, other)
        }
        _ => false,
    }
}

/// [`convert_in`] UTC, for types that have nothing to do with it.
pub(crate) fn convert(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    convert_in(array, target, &TimeZone::UTC)
}

/// Converts an argument to the Arrow type of a parameter, by the rules of casts.
pub(crate) fn convert_in(array: &ArrayRef, target: &DataType, zone: &TimeZone) -> Result<ArrayRef> {
    if array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    if *array.data_type() == DataType::Null {
        return Ok(new_null_array(target, array.len()));
    }
    let sql_type = |data_type: &DataType| {
        SqlType::from_arrow(data_type).map_err(|error| raise(from_type_error(&error)))
    };
    cast_array_in(
        array,
        &sql_type(array.data_type())?,
        &sql_type(target)?,
        zone,
    )
}

/// [`cast_array_in`] UTC, for types that have nothing to do with it.
fn cast_array(array: &ArrayRef, from: &SqlType, to: &SqlType) -> Result<ArrayRef> {
    cast_array_in(array, from, to, &TimeZone::UTC)
}

/// Casts every value of `array`, which is of type `from`, in a time zone.
///
/// # Errors
/// An evaluation error for the first value that has no counterpart.
pub(crate) fn cast_array_in(
    array: &ArrayRef,
    from: &SqlType,
    to: &SqlType,
    zone: &TimeZone,
) -> Result<ArrayRef> {
    let target = to.to_arrow();
    if *array.data_type() == DataType::Null {
        return Ok(new_null_array(&target, array.len()));
    }
    let array = &micros(array)?;
    let rows = array.len();
    let args = [Arc::clone(array)];
    let call = Call {
        args: &args,
        rows,
        returns: &target,
        zone,
    };
    match (from, to) {
        (from, to) if from == to => arrow_cast(array, &target),
        (from, to) if is_text(from) && is_text(to) => text_to_text(array, from, to),
        (from, to) if is_text(from) => text_to_any(array, to, zone),
        (from, to) if is_text(to) => {
            text_to_text(&any_to_text(array, from, zone)?, &SqlType::Text, to)
        }
        (SqlType::Jsonb, to) => json_to_scalar(array, to),
        (from, to) if is_number(from) && is_number(to) => number_to_number(array, from, to),
        (SqlType::Bool, _) | (_, SqlType::Bool) => arrow_cast(array, &target),
        (SqlType::Date, SqlType::Timestamp) => {
            map1(&call, |days: Days| midnight(days.0).map(Micros))
        }
        (SqlType::Date, SqlType::TimestampTz) => map1(&call, |days: Days| {
            to_utc(zone, midnight(days.0)?).map(Micros)
        }),
        (SqlType::Timestamp, SqlType::Date) => map1(&call, |at: Micros| date_of(at.0).map(Days)),
        (SqlType::TimestampTz, SqlType::Date) => {
            map1(&call, |at: Micros| date_of(to_local(zone, at.0)?).map(Days))
        }
        (SqlType::Timestamp, SqlType::Time) => {
            opt1(&call, |at: Micros| Ok(time_of(at.0).map(TimeOfDay)))
        }
        (SqlType::TimestampTz, SqlType::Time) => opt1(&call, |at: Micros| {
            Ok(time_of(to_local(zone, at.0)?).map(TimeOfDay))
        }),
        (SqlType::Timestamp, SqlType::TimestampTz) | (SqlType::TimestampTz, SqlType::Timestamp)
            if zone.is_utc() =>
        {
            Ok(Arc::new(
                primitive::<TimestampMicrosecondType>(array)?
                    .clone()
                    .with_data_type(target.clone()),
            ))
        }
        (SqlType::Timestamp, SqlType::TimestampTz) => {
            map1(&call, |at: Micros| to_utc(zone, at.0).map(Micros))
        }
        (SqlType::TimestampTz, SqlType::Timestamp) => {
            map1(&call, |at: Micros| to_local(zone, at.0).map(Micros))
        }
        (SqlType::Interval, SqlType::Time) => map1(&call, |interval: Interval| {
            Ok(TimeOfDay(interval.micros.rem_euclid(DAY)))
        }),
        (SqlType::Time, SqlType::Interval) => map1(&call, |time: TimeOfDay| {
            Ok(Interval {
                micros: time.0,
                ..Interval::default()
            })
        }),
        (SqlType::Array(from), SqlType::Array(to)) => list_to_list(array, from, to, zone),
        (SqlType::Int2Vector, SqlType::Array(to)) => {
            list_to_list(&vector_to_list(array)?, &SqlType::Int2, to, zone)
        }
        (SqlType::OidVector, SqlType::Array(to)) => {
            list_to_list(&vector_to_list(array)?, &SqlType::Oid, to, zone)
        }
        _ => arrow_cast(array, &target),
    }
}

/// Timestamps of other units, as functions of DataFusion give them, in microseconds.
fn micros(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(Arc::clone(array)),
        DataType::Timestamp(_, zone) => arrow_cast(
            array,
            &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        ),
        _ => Ok(Arc::clone(array)),
    }
}

/// Arrow's cast, failing on what does not fit.
fn arrow_cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, target, &options).map_err(|error| raise(from_arrow(&error)))
}

/// A vector as a list of the same items.
pub(crate) fn vector_to_list(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::LargeList(item) => arrow_cast(array, &DataType::List(Arc::clone(item))),
        _ => Err(crate::udf::broken("a vector is not a large list")),
    }
}

fn list_to_list(
    array: &ArrayRef,
    from: &SqlType,
    to: &SqlType,
    zone: &TimeZone,
) -> Result<ArrayRef> {
    let list = array
        .as_list_opt::<i32>()
        .ok_or_else(|| crate::udf::broken("an array value is not a list"))?;
    let values = cast_array_in(list.values(), from, to, zone)?;
    let item = Arc::new(to.to_field("item", true));
    Ok(Arc::new(ListArray::try_new(
        item,
        list.offsets().clone(),
        values,
        list.nulls().cloned(),
    )?))
}

fn text_to_text(array: &ArrayRef, from: &SqlType, to: &SqlType) -> Result<ArrayRef> {
    let array = arrow_cast(array, &DataType::Utf8)?;
    let blank_padded = matches!(from, SqlType::Char(_)) && !matches!(to, SqlType::Char(_));
    let change: Box<dyn Fn(&str) -> String> = match to {
        SqlType::VarChar(Some(length)) => {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            Box::new(move |text| text.chars().take(length).collect())
        }
        SqlType::Char(0) => return Ok(array),
        SqlType::Char(length) => {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            Box::new(move |text| {
                let cut: String = text.chars().take(length).collect();
                format!("{cut:<length$}")
            })
        }
        SqlType::Name => Box::new(|text| {
            text.get(..text.floor_char_boundary(63))
                .unwrap_or(text)
                .to_owned()
        }),
        SqlType::QuotedChar => Box::new(|text| text.chars().take(1).collect()),
        _ if blank_padded => Box::new(str::to_owned),
        _ => return Ok(array),
    };
    let result: StringArray = texts(&array)?
        .iter()
        .map(|text| {
            text.map(|text| {
                change(if blank_padded {
                    text.trim_end_matches(' ')
                } else {
                    text
                })
            })
        })
        .collect();
    Ok(Arc::new(result))
}

/// The text form that `::text` gives: the output format, but `true` and `false` in full.
pub(crate) fn any_to_text(array: &ArrayRef, from: &SqlType, zone: &TimeZone) -> Result<ArrayRef> {
    if let Some(booleans) = array.as_boolean_opt() {
        let result: StringArray = booleans
            .iter()
            .map(|value| value.map(|value| if value { "true" } else { "false" }))
            .collect();
        return Ok(Arc::new(result));
    }
    let formatter =
        ColumnFormatter::new(array, from).map_err(|error| raise(from_type_error(&error)))?;
    let formatter = formatter.with_time_zone(zone.clone());
    let mut texts = StringBuilder::with_capacity(array.len(), array.len().saturating_mul(16));
    let mut text = String::new();
    for row in 0..array.len() {
        text.clear();
        let present = formatter
            .write_text(row, &mut text)
            .map_err(|error| raise(from_type_error(&error)))?;
        texts.append_option(present.then_some(&text));
    }
    Ok(Arc::new(texts.finish()))
}

/// Parses every text as a value of `to`.
pub(crate) fn text_to_any(array: &ArrayRef, to: &SqlType, zone: &TimeZone) -> Result<ArrayRef> {
    let array = arrow_cast(array, &DataType::Utf8)?;
    let mut builder = ColumnBuilder::new(to, array.len()).with_time_zone(zone.clone());
    for text in texts(&array)?.iter() {
        match text {
            Some(text) => builder
                .append_text(text)
                .map_err(|error| raise(from_type_error(&error)))?,
            None => builder.append_null(),
        }
    }
    Ok(builder.finish())
}

fn json_to_scalar(array: &ArrayRef, to: &SqlType) -> Result<ArrayRef> {
    let target = to.to_arrow();
    let args = [Arc::clone(array)];
    let call = Call {
        args: &args,
        rows: array.len(),
        returns: &target,
        zone: &TimeZone::UTC,
    };
    if *to == SqlType::Bool {
        return crate::udf::opt1(&call, |value: Json<'_>| json::to_bool(value));
    }
    // Rounded once, to the scale it is to have.
    let modifier = match to {
        SqlType::Numeric(modifier) => *modifier,
        _ => Some((38, 0)),
    };
    let numeric = SqlType::Numeric(modifier);
    let type_name = match to {
        SqlType::Numeric(_) => "numeric".to_owned(),
        other => other.to_string(),
    };
    if matches!(to, SqlType::Float4 | SqlType::Float8) {
        let wide = DataType::Float64;
        let call = Call {
            args: &args,
            rows: array.len(),
            returns: &wide,
            zone: &TimeZone::UTC,
        };
        let floats = crate::udf::opt1(&call, |value: Json<'_>| json::to_f64(value, &type_name))?;
        return cast_array(&floats, &SqlType::Float8, to);
    }
    let wide = numeric.to_arrow();
    let call = Call {
        args: &args,
        rows: array.len(),
        returns: &wide,
        zone: &TimeZone::UTC,
    };
    let numbers = crate::udf::opt1(&call, |value: Json<'_>| {
        json::to_numeric(value, &type_name, modifier)
    })?;
    cast_array(&numbers, &numeric, to)
}

/// A number in the widest form of its kind.
enum Numbers<'a> {
    Numeric(&'a Decimal128Array),
    Float(&'a PrimitiveArray<Float64Type>),
}

fn number_to_number(array: &ArrayRef, from: &SqlType, to: &SqlType) -> Result<ArrayRef> {
    let target = to.to_arrow();
    if is_integer(from) && is_integer(to) {
        return arrow_cast(array, &target).map_err(|_| raise(out_of_range(&to.to_string())));
    }
    if is_integer(from) && matches!(to, SqlType::Float4 | SqlType::Float8) {
        return arrow_cast(array, &target);
    }
    if let (SqlType::Float4, SqlType::Float8) = (from, to) {
        return arrow_cast(array, &target);
    }
    let rows = array.len();
    let wide = match from {
        SqlType::Float4 if matches!(to, SqlType::Numeric(_)) => float4_digits(array)?,
        SqlType::Float4 | SqlType::Float8 => arrow_cast(array, &DataType::Float64)?,
        SqlType::Numeric(_) => Arc::clone(array),
        _ => arrow_cast(array, &DataType::Decimal128(38, 0))?,
    };
    let numbers = match wide.data_type() {
        DataType::Float64 => Numbers::Float(wide.as_primitive::<Float64Type>()),
        DataType::Decimal128(..) => Numbers::Numeric(wide.as_primitive::<Decimal128Type>()),
        other => return plan_err!("cannot cast {other} to {to}"),
    };
    match (numbers, to) {
        (Numbers::Float(values), SqlType::Float4) => {
            let narrow = values
                .iter()
                .map(|value| value.map(float_to_real).transpose());
            let narrow: PrimitiveArray<Float32Type> =
                narrow.collect::<EvalResult<_>>().map_err(raise)?;
            Ok(Arc::new(narrow))
        }
        (Numbers::Numeric(values), SqlType::Float8) => f64::build(
            values.iter().map(|value| {
                Ok(value.map(|value| {
                    Numeric {
                        value,
                        scale: values.scale(),
                    }
                    .to_f64()
                }))
            }),
            rows,
            &target,
        ),
        (Numbers::Numeric(values), SqlType::Float4) => {
            let narrow = values.iter().map(|value| {
                value
                    .map(|value| {
                        float_to_real(
                            Numeric {
                                value,
                                scale: values.scale(),
                            }
                            .to_f64(),
                        )
                    })
                    .transpose()
            });
            f32::build(narrow, rows, &target)
        }
        (Numbers::Float(values), SqlType::Numeric(_)) => {
            let DataType::Decimal128(precision, scale) = target else {
                return plan_err!("numeric is a decimal");
            };
            let is_declared = matches!(to, SqlType::Numeric(Some(_)));
            let decimal = |value: f64| {
                if !is_declared {
                    return Numeric::from_f64(value, scale, Lost::Refused);
                }
                match Numeric::from_f64(value, scale, Lost::Rounded) {
                    Ok(number) => declared(number, precision, scale),
                    // PostgreSQL's declared precisions hold NaN, and no infinity.
                    Err(error) if value.is_nan() => Err(error),
                    Err(_) => Err(numeric_overflow()),
                }
            };
            Numeric::build(
                values.iter().map(|value| value.map(decimal).transpose()),
                rows,
                &target,
            )
        }
        // Plain numeric keeps all digits or refuses them.
        (Numbers::Numeric(values), SqlType::Numeric(None)) => {
            let scale = values.scale();
            let kept = values.iter().map(|value| {
                value
                    .map(|value| {
                        flowstone_types::numeric::rescale_to(value, scale, None)
                            .map(|value| Numeric {
                                value,
                                scale: NUMERIC_DEFAULT.1,
                            })
                            .map_err(|error| from_type_error(&error))
                    })
                    .transpose()
            });
            Numeric::build(kept, rows, &target)
        }
        (Numbers::Numeric(values), SqlType::Numeric(Some((precision, scale)))) => Numeric::build(
            values.iter().map(|value| {
                let number = value.map(|value| Numeric {
                    value,
                    scale: values.scale(),
                });
                number
                    .map(|number| declared(number, *precision, *scale))
                    .transpose()
            }),
            rows,
            &target,
        ),
        (numbers, to) => {
            let integers = to_integers(&numbers, to).map_err(raise)?;
            arrow_cast(&integers, &target).map_err(|_| raise(out_of_range(&to.to_string())))
        }
    }
}

/// The number as one of a declared precision and scale.
fn declared(number: Numeric, precision: u8, scale: i8) -> EvalResult<Numeric> {
    number
        .rescale(precision, scale)
        .map(|value| Numeric { value, scale })
        .map_err(|_| numeric_overflow())
}

/// Rounds to integers: floats half to even, numerics half away from zero. `uint8` beyond `bigint` goes through decimals.
fn to_integers(numbers: &Numbers<'_>, to: &SqlType) -> EvalResult<ArrayRef> {
    let too_large = || out_of_range(&to.to_string());
    let integers: Vec<Option<i128>> = match numbers {
        Numbers::Float(values) => values
            .iter()
            .map(|value| {
                value
                    .map(|value| float_to_integer(value).ok_or_else(too_large))
                    .transpose()
            })
            .collect::<EvalResult<_>>()?,
        Numbers::Numeric(values) => values
            .iter()
            .map(|value| {
                value
                    .map(|value| {
                        Numeric {
                            value,
                            scale: values.scale(),
                        }
                        .rescale(38, 0)
                        .map_err(|_| too_large())
                    })
                    .transpose()
            })
            .collect::<EvalResult<_>>()?,
    };
    if integers
        .iter()
        .flatten()
        .all(|value| i64::try_from(*value).is_ok())
    {
        let narrow: PrimitiveArray<Int64Type> = integers
            .into_iter()
            .map(|value| value.and_then(|value| i64::try_from(value).ok()))
            .collect();
        return Ok(Arc::new(narrow));
    }
    let wide: Decimal128Array = integers.into_iter().collect();
    let wide = wide
        .with_precision_and_scale(38, 0)
        .map_err(|_| too_large())?;
    Ok(Arc::new(wide))
}

fn float_to_integer(value: f64) -> Option<i128> {
    let rounded = value.round_ties_even();
    if !(-1.7e38..1.7e38).contains(&rounded) {
        return None;
    }
    #[expect(
        clippy::as_conversions,
        reason = "the range was checked on the line above"
    )]
    let integer = rounded as i128;
    Some(integer)
}

fn float_to_real(value: f64) -> EvalResult<f32> {
    #[expect(
        clippy::as_conversions,
        reason = "rounding to the nearest float4 is what the cast means"
    )]
    let narrow = value as f32;
    if narrow.is_infinite() && value.is_finite() {
        return Err(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "value out of range: overflow",
        ));
    }
    if narrow == 0.0 && value != 0.0 {
        return Err(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "value out of range: underflow",
        ));
    }
    Ok(narrow)
}

/// A float4 becomes a numeric with the six digits it is sure of.
fn float4_digits(array: &ArrayRef) -> Result<ArrayRef> {
    let floats = array
        .as_primitive_opt::<Float32Type>()
        .ok_or_else(|| crate::udf::broken("real is not Float32"))?;
    let digits: PrimitiveArray<Float64Type> = floats
        .iter()
        .map(|value| value.map(|value| format!("{value:.5e}").parse().unwrap_or(f64::NAN)))
        .collect();
    Ok(Arc::new(digits))
}

/// The booleans of `array`, which has that type.
pub(crate) fn booleans(array: &ArrayRef) -> Result<&BooleanArray> {
    array
        .as_boolean_opt()
        .ok_or_else(|| crate::udf::broken("boolean is not Boolean"))
}
