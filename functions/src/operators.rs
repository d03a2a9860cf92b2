//! The arithmetic operators `+ - * / %` and unary `-`, checked as PostgreSQL checks them.
//!
//! Owns the result type of each pair of operand types and its kernel. Called through the functions `pg_add` … `pg_negate`, which the planner
//! puts in place of DataFusion's operators, because those wrap on overflow and have other result types.

use std::sync::Arc;

use arrow::compute::kernels::numeric as arrow_numeric;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{ArrayRef, Datum, PrimitiveArray};
use arrow_schema::{ArrowError, DataType};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use flowstone_types::datetime::TimeZone;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use crate::cast::{convert, convert_in};
use crate::errors::{EvalResult, datetime_error, division_by_zero, out_of_range, raise};
use crate::interval::{
    Interval, add_interval, add_time, check_date, is_infinite_date, midnight, timestamp_difference,
};
use crate::numeric::{Numeric, Op, result_scale};
use crate::udf::{
    Call, Days, Micros, P, R, TimeOfDay, evaluate, function, map1, map2, normal, overload,
    primitive,
};
use crate::zone::add_interval_in;

/// The functions behind the operators.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let mut functions: Vec<ScalarUDF> =
        [Op::Add, Op::Subtract, Op::Multiply, Op::Divide, Op::Modulo]
            .into_iter()
            .map(|op| {
                ScalarUDF::new_from_impl(Arithmetic {
                    op,
                    signature: Signature::user_defined(Volatility::Immutable),
                })
            })
            .collect();
    functions.push(negate());
    functions
}

/// Name of the function behind an operator.
pub(crate) const fn function_name(op: Op) -> &'static str {
    match op {
        Op::Add => "pg_add",
        Op::Subtract => "pg_subtract",
        Op::Multiply => "pg_multiply",
        Op::Divide => "pg_divide",
        Op::Modulo => "pg_modulo",
    }
}

/// How an operator is written.
pub(crate) const fn symbol(op: Op) -> &'static str {
    match op {
        Op::Add => "+",
        Op::Subtract => "-",
        Op::Multiply => "*",
        Op::Divide => "/",
        Op::Modulo => "%",
    }
}

/// One binary operator as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Arithmetic {
    op: Op,
    signature: Signature,
}

/// How an operation is computed: the types its operands are converted to, its result, its kernel.
struct Plan {
    left: DataType,
    right: DataType,
    result: DataType,
    kernel: BinaryKernel,
}

type BinaryKernel = fn(Op, &Call<'_>) -> Result<ArrayRef>;

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        function_name(self.op)
    }

    fn schema_name(&self, args: &[datafusion::logical_expr::Expr]) -> Result<String> {
        match args {
            [left, right] => Ok(format!(
                "({} {} {})",
                left.schema_name(),
                symbol(self.op),
                right.schema_name()
            )),
            _ => plan_err!("operator {} takes two operands", symbol(self.op)),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(plan(self.op, arg_types)?.result)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        plan(self.op, arg_types)?;
        Ok(arg_types.to_vec())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow_schema::FieldRef> {
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        Ok(Arc::new(arrow_schema::Field::new(
            self.name(),
            self.return_type(&types)?,
            true,
        )))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.invoke_in(&args, &TimeZone::UTC)
    }
}

impl Arithmetic {
    /// Evaluates a call in a time zone.
    pub(crate) fn invoke_in(
        &self,
        args: &ScalarFunctionArgs,
        zone: &TimeZone,
    ) -> Result<ColumnarValue> {
        let types: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        let plan = plan(self.op, &types)?;
        if let Some(result) = self.numbers_with_a_constant(&plan, &args.args)? {
            return Ok(result);
        }
        evaluate(&args.args, args.number_rows, |arrays, rows| {
            let converted = match arrays {
                [left, right] => [
                    convert_in(left, &plan.left, zone)?,
                    convert_in(right, &plan.right, zone)?,
                ],
                _ => return plan_err!("operator {} takes two operands", symbol(self.op)),
            };
            let result = (plan.kernel)(
                self.op,
                &Call {
                    args: &converted,
                    rows,
                    returns: &plan.result,
                    zone,
                },
            )?;
            Ok(normal(result))
        })
    }

    /// The common case `column op constant` over integers, without spreading the constant over the rows.
    fn numbers_with_a_constant(
        &self,
        plan: &Plan,
        args: &[ColumnarValue],
    ) -> Result<Option<ColumnarValue>> {
        if !plan.result.is_integer() || plan.left != plan.result || plan.right != plan.result {
            return Ok(None);
        }
        let result = match args {
            [ColumnarValue::Array(left), ColumnarValue::Scalar(right)] => {
                let right = convert(&right.to_array()?, &plan.right)?;
                integers(
                    self.op,
                    &convert(left, &plan.left)?,
                    &arrow_array::Scalar::new(right),
                    &plan.result,
                )?
            }
            [ColumnarValue::Scalar(left), ColumnarValue::Array(right)] => {
                let left = convert(&left.to_array()?, &plan.left)?;
                integers(
                    self.op,
                    &arrow_array::Scalar::new(left),
                    &convert(right, &plan.right)?,
                    &plan.result,
                )?
            }
            _ => return Ok(None),
        };
        Ok(Some(ColumnarValue::Array(result)))
    }
}

/// Whether the operator is defined for these operands, and its result type.
pub(crate) fn result_type(op: Op, left: &DataType, right: &DataType) -> Result<DataType> {
    Ok(plan(op, &[left.clone(), right.clone()])?.result)
}

fn plan(op: Op, types: &[DataType]) -> Result<Plan> {
    let [left, right] = types else {
        return plan_err!("operator {} takes two operands", symbol(op));
    };
    let (known_left, known_right) = resolve_unknown(op, left, right);
    if let Some(plan) =
        numbers(op, &known_left, &known_right).or_else(|| dates(op, &known_left, &known_right))
    {
        return Ok(plan);
    }
    let name = |data_type: &DataType| {
        SqlType::from_arrow(data_type).map_or_else(|_| data_type.to_string(), |sql| sql.to_string())
    };
    plan_err!(
        "operator does not exist: {} {} {}",
        name(left),
        symbol(op),
        name(right)
    )
}

fn is_unknown(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Null | DataType::Utf8)
}

/// A literal of unknown type takes the type of the other side, or interval next to a date or time it cannot be added to.
fn resolve_unknown(op: Op, left: &DataType, right: &DataType) -> (DataType, DataType) {
    let interval = SqlType::Interval.to_arrow();
    let other = |known: &DataType| match known {
        DataType::Timestamp(..) | DataType::Time64(_) if op == Op::Add => interval.clone(),
        DataType::Date32 if op == Op::Add => DataType::Int32,
        DataType::Interval(_) if matches!(op, Op::Multiply | Op::Divide) => DataType::Float64,
        other => other.clone(),
    };
    match (is_unknown(left), is_unknown(right)) {
        (true, false) => (other(right), right.clone()),
        (false, true) => (left.clone(), other(left)),
        (true, true) => (DataType::Int32, DataType::Int32),
        (false, false) => (left.clone(), right.clone()),
    }
}

/// A number's type, as far as arithmetic tells them apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Signed(u8),
    Unsigned(u8),
    Numeric(i8),
    Float4,
    Float8,
}

fn number(data_type: &DataType) -> Option<Number> {
    Some(match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Number::Signed(2),
        DataType::Int32 => Number::Signed(4),
        DataType::Int64 => Number::Signed(8),
        DataType::UInt16 => Number::Unsigned(2),
        DataType::UInt32 => Number::Unsigned(4),
        DataType::UInt64 => Number::Unsigned(8),
        DataType::Decimal128(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal32(_, scale) => Number::Numeric(*scale),
        DataType::Float32 => Number::Float4,
        DataType::Float64 => Number::Float8,
        _ => return None,
    })
}

fn signed(bytes: u8) -> DataType {
    match bytes {
        2 => DataType::Int16,
        4 => DataType::Int32,
        _ => DataType::Int64,
    }
}

fn unsigned(bytes: u8) -> DataType {
    match bytes {
        2 => DataType::UInt16,
        4 => DataType::UInt32,
        _ => DataType::UInt64,
    }
}

fn numbers(op: Op, left: &DataType, right: &DataType) -> Option<Plan> {
    let both = |data_type: DataType, kernel: BinaryKernel| Plan {
        left: data_type.clone(),
        right: data_type.clone(),
        result: data_type,
        kernel,
    };
    let decimal = |left: i8, right: i8| Plan {
        left: DataType::Decimal128(38, left),
        right: DataType::Decimal128(38, right),
        result: DataType::Decimal128(38, result_scale(op, left, right)),
        kernel: numerics,
    };
    let (l, r) = (number(left)?, number(right)?);
    if op == Op::Modulo
        && (matches!(l, Number::Float4 | Number::Float8)
            || matches!(r, Number::Float4 | Number::Float8))
    {
        return None;
    }
    Some(match (l, r) {
        (Number::Float4, Number::Float4) => both(DataType::Float32, floats),
        (Number::Float4 | Number::Float8, _) | (_, Number::Float4 | Number::Float8) => {
            both(DataType::Float64, floats)
        }
        (Number::Numeric(a), Number::Numeric(b)) => decimal(a, b),
        (Number::Numeric(a), _) => decimal(a, 0),
        (_, Number::Numeric(b)) => decimal(0, b),
        (Number::Signed(a), Number::Signed(b)) => both(signed(a.max(b)), integer_arrays),
        (Number::Unsigned(a), Number::Unsigned(b)) => both(unsigned(a.max(b)), integer_arrays),
        (Number::Signed(_), Number::Unsigned(8)) | (Number::Unsigned(8), Number::Signed(_)) => {
            decimal(0, 0)
        }
        (Number::Signed(a), Number::Unsigned(b)) | (Number::Unsigned(b), Number::Signed(a)) => {
            both(signed(a.max(b.saturating_mul(2))), integer_arrays)
        }
    })
}

fn dates(op: Op, left: &DataType, right: &DataType) -> Option<Plan> {
    use DataType::{Date32, Time64, Timestamp};
    let interval = SqlType::Interval.to_arrow();
    let timestamp = SqlType::Timestamp.to_arrow();
    let is_interval = |data_type: &DataType| matches!(data_type, DataType::Interval(_));
    let plan = |left: &DataType, right: &DataType, result: &DataType, kernel: BinaryKernel| {
        Some(Plan {
            left: left.clone(),
            right: right.clone(),
            result: result.clone(),
            kernel,
        })
    };
    match (op, left, right) {
        (Op::Subtract, Date32, Date32) => plan(left, right, &DataType::Int32, |_, call| {
            map2(call, |a: Days, b: Days| {
                if is_infinite_date(a.0) || is_infinite_date(b.0) {
                    return Err(datetime_error("cannot subtract infinite dates"));
                }
                a.0.checked_sub(b.0).ok_or_else(|| out_of_range("integer"))
            })
        }),
        (Op::Add | Op::Subtract, Date32, other) if other.is_integer() => {
            plan(left, &DataType::Int64, &Date32, |op, call| {
                map2(call, |a: Days, b: i64| shift_date(op, a, b))
            })
        }
        (Op::Add, other, Date32) if other.is_integer() => {
            plan(&DataType::Int64, right, &Date32, |op, call| {
                map2(call, |a: i64, b: Days| shift_date(op, b, a))
            })
        }
        (Op::Add, Date32, Time64(_)) => plan(left, right, &timestamp, |_, call| {
            map2(call, |a: Days, b: TimeOfDay| {
                add_time(midnight(a.0)?, b.0).map(Micros)
            })
        }),
        (Op::Add, Time64(_), Date32) => plan(left, right, &timestamp, |_, call| {
            map2(call, |a: TimeOfDay, b: Days| {
                add_time(midnight(b.0)?, a.0).map(Micros)
            })
        }),
        (Op::Add | Op::Subtract, Date32, other) if is_interval(other) => {
            plan(&timestamp, &interval, &timestamp, shift_timestamp)
        }
        (Op::Add, other, Date32) if is_interval(other) => {
            plan(&interval, &timestamp, &timestamp, shift_timestamp_right)
        }
        (Op::Add | Op::Subtract, Timestamp(_, zone), other) if is_interval(other) => {
            let target = timestamp_type(zone.is_some());
            let kernel = if zone.is_some() {
                shift_instant
            } else {
                shift_timestamp
            };
            plan(&target, &interval, &target, kernel)
        }
        (Op::Add, other, Timestamp(_, zone)) if is_interval(other) => {
            let target = timestamp_type(zone.is_some());
            let kernel = if zone.is_some() {
                shift_instant_right
            } else {
                shift_timestamp_right
            };
            plan(&interval, &target, &target, kernel)
        }
        (Op::Subtract, Timestamp(..) | Date32, Timestamp(..) | Date32) => {
            let with_zone =
                matches!(left, Timestamp(_, Some(_))) || matches!(right, Timestamp(_, Some(_)));
            let target = timestamp_type(with_zone);
            plan(&target, &target, &interval, |_, call| {
                map2(call, |a: Micros, b: Micros| timestamp_difference(a.0, b.0))
            })
        }
        (Op::Subtract, Time64(_), Time64(_)) => plan(left, right, &interval, |_, call| {
            map2(call, |a: TimeOfDay, b: TimeOfDay| {
                Ok(Interval {
                    micros: a.0.saturating_sub(b.0),
                    ..Interval::default()
                })
            })
        }),
        (Op::Add | Op::Subtract, Time64(_), other) if is_interval(other) => {
            plan(left, &interval, left, |op, call| {
                map2(call, |a: TimeOfDay, b: Interval| Ok(shift_time(op, a, b)))
            })
        }
        (Op::Add, other, Time64(_)) if is_interval(other) => {
            plan(&interval, right, right, |op, call| {
                map2(call, |a: Interval, b: TimeOfDay| Ok(shift_time(op, b, a)))
            })
        }
        (Op::Add | Op::Subtract, a, b) if is_interval(a) && is_interval(b) => {
            plan(&interval, &interval, &interval, |op, call| {
                map2(call, |a: Interval, b: Interval| {
                    a.add(if op == Op::Add { b } else { b.negate()? })
                })
            })
        }
        (Op::Multiply, a, b) if is_interval(a) && number(b).is_some() => {
            plan(&interval, &DataType::Float64, &interval, |_, call| {
                map2(call, |a: Interval, b: f64| a.multiply(b))
            })
        }
        (Op::Multiply, a, b) if number(a).is_some() && is_interval(b) => {
            plan(&DataType::Float64, &interval, &interval, |_, call| {
                map2(call, |a: f64, b: Interval| b.multiply(a))
            })
        }
        (Op::Divide, a, b) if is_interval(a) && number(b).is_some() => {
            plan(&interval, &DataType::Float64, &interval, |_, call| {
                map2(call, |a: Interval, b: f64| {
                    if b == 0.0 {
                        Err(division_by_zero())
                    } else {
                        a.divide(b)
                    }
                })
            })
        }
        _ => None,
    }
}

fn timestamp_type(with_zone: bool) -> DataType {
    if with_zone {
        SqlType::TimestampTz.to_arrow()
    } else {
        SqlType::Timestamp.to_arrow()
    }
}

fn shift_date(op: Op, date: Days, days: i64) -> EvalResult<Days> {
    if is_infinite_date(date.0) {
        return Ok(date);
    }
    let days = if op == Op::Subtract {
        days.saturating_neg()
    } else {
        days
    };
    check_date(i64::from(date.0).saturating_add(days)).map(Days)
}

fn shift_time(op: Op, time: TimeOfDay, interval: Interval) -> TimeOfDay {
    let micros = if op == Op::Subtract {
        interval.micros.wrapping_neg()
    } else {
        interval.micros
    };
    TimeOfDay(
        time.0
            .wrapping_add(micros % crate::interval::DAY)
            .rem_euclid(crate::interval::DAY),
    )
}

fn shift_timestamp(op: Op, call: &Call<'_>) -> Result<ArrayRef> {
    map2(call, |a: Micros, b: Interval| {
        add_interval(a.0, if op == Op::Subtract { b.negate()? } else { b }).map(Micros)
    })
}

fn shift_timestamp_right(_: Op, call: &Call<'_>) -> Result<ArrayRef> {
    map2(call, |a: Interval, b: Micros| {
        add_interval(b.0, a).map(Micros)
    })
}

fn shift_instant(op: Op, call: &Call<'_>) -> Result<ArrayRef> {
    map2(call, |a: Micros, b: Interval| {
        let by = if op == Op::Subtract { b.negate()? } else { b };
        add_interval_in(call.zone, a.0, by).map(Micros)
    })
}

fn shift_instant_right(_: Op, call: &Call<'_>) -> Result<ArrayRef> {
    map2(call, |a: Interval, b: Micros| {
        add_interval_in(call.zone, b.0, a).map(Micros)
    })
}

fn numerics(op: Op, call: &Call<'_>) -> Result<ArrayRef> {
    map2(call, |a: Numeric, b: Numeric| a.apply(op, b))
}

fn integer_arrays(op: Op, call: &Call<'_>) -> Result<ArrayRef> {
    integers(op, call.arg(0)?, call.arg(1)?, call.returns)
}

fn integers(op: Op, left: &dyn Datum, right: &dyn Datum, data_type: &DataType) -> Result<ArrayRef> {
    let result = match op {
        Op::Add => arrow_numeric::add(left, right),
        Op::Subtract => arrow_numeric::sub(left, right),
        Op::Multiply => arrow_numeric::mul(left, right),
        Op::Divide => arrow_numeric::div(left, right),
        Op::Modulo => arrow_numeric::rem(left, right),
    };
    result.map_err(|error| match error {
        ArrowError::ArithmeticOverflow(_) => raise(out_of_range(&integer_name(data_type))),
        ArrowError::DivideByZero => raise(division_by_zero()),
        other => other.into(),
    })
}

fn integer_name(data_type: &DataType) -> String {
    SqlType::from_arrow(data_type).map_or_else(|_| data_type.to_string(), |sql| sql.to_string())
}

fn floats(op: Op, call: &Call<'_>) -> Result<ArrayRef> {
    let (left, right) = (call.arg(0)?, call.arg(1)?);
    if *call.returns == DataType::Float32 {
        let (left, right) = (
            primitive::<Float32Type>(left)?,
            primitive::<Float32Type>(right)?,
        );
        let result: PrimitiveArray<Float32Type> =
            arrow::compute::try_binary(left, right, |a, b| {
                let value = match op {
                    Op::Add => a + b,
                    Op::Subtract => a - b,
                    Op::Multiply => a * b,
                    Op::Divide if b == 0.0 => return Err(external(division_by_zero())),
                    Op::Divide | Op::Modulo => a / b,
                };
                let underflow = value == 0.0
                    && a != 0.0
                    && (op == Op::Multiply && b != 0.0 || op == Op::Divide && b.is_finite());
                check_float(
                    value.is_infinite() && a.is_finite() && b.is_finite(),
                    underflow,
                )
                .map(|()| value)
            })?;
        return Ok(Arc::new(result));
    }
    let (left, right) = (
        primitive::<Float64Type>(left)?,
        primitive::<Float64Type>(right)?,
    );
    let result: PrimitiveArray<Float64Type> = arrow::compute::try_binary(left, right, |a, b| {
        let value = match op {
            Op::Add => a + b,
            Op::Subtract => a - b,
            Op::Multiply => a * b,
            Op::Divide if b == 0.0 => return Err(external(division_by_zero())),
            Op::Divide | Op::Modulo => a / b,
        };
        let underflow = value == 0.0
            && a != 0.0
            && (op == Op::Multiply && b != 0.0 || op == Op::Divide && b.is_finite());
        check_float(
            value.is_infinite() && a.is_finite() && b.is_finite(),
            underflow,
        )
        .map(|()| value)
    })?;
    Ok(Arc::new(result))
}

fn check_float(overflow: bool, underflow: bool) -> Result<(), ArrowError> {
    if overflow {
        return Err(external(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "value out of range: overflow",
        )));
    }
    if underflow {
        return Err(external(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "value out of range: underflow",
        )));
    }
    Ok(())
}

fn external(error: EvalError) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

fn negate() -> ScalarUDF {
    let integer = |call: &Call<'_>| {
        let zero: ArrayRef = Arc::new(arrow_array::Int16Array::from(vec![0]));
        let zero = convert(&zero, call.returns)?;
        integers(
            Op::Subtract,
            &arrow_array::Scalar::new(zero),
            call.arg(0)?,
            call.returns,
        )
    };
    function(
        "pg_negate",
        vec![
            overload(&[P::Integer], R::Same(0), integer),
            overload(&[P::Numeric], R::Same(0), |call| {
                map1(call, |a: Numeric| {
                    Ok(Numeric {
                        value: a.value.saturating_neg(),
                        scale: a.scale,
                    })
                })
            }),
            overload(&[P::Float4], R::Same(0), |call| map1(call, |a: f32| Ok(-a))),
            overload(&[P::Float8], R::Same(0), |call| map1(call, |a: f64| Ok(-a))),
            overload(&[P::Interval], R::Same(0), |call| {
                map1(call, Interval::negate)
            }),
        ],
    )
}
