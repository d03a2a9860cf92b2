//! Mathematical functions on integers, numerics and floats.
//!
//! Owns the rounding and the errors of each. Trigonometry that takes every value is DataFusion's, which is PostgreSQL's.

mod buckets;
mod degrees;
mod digits;

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use crate::cast::convert;
use crate::errors::{EvalResult, division_by_zero, no_logarithm, no_power, out_of_range, raise};
use crate::numeric::{Numeric, Op, Rounding, powers};
use crate::udf::{Call, Kernel, P, R, aliased, function, map1, map2, overload};

fn float8() -> R {
    R::Sql(SqlType::Float8)
}

fn numeric() -> R {
    R::Sql(SqlType::Numeric(None))
}

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    [
        rounding(),
        signs(),
        division(),
        powers(),
        trigonometry(),
        degrees::functions(),
        buckets::functions(),
        digits::functions(),
    ]
    .concat()
}

fn whole(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::Decimal128(38, 0))
}

/// As many digits as a literal second argument asks for, else as many as the first has.
fn asked_digits(types: &[DataType], literals: &[Option<&ScalarValue>]) -> Result<DataType> {
    let digits = match literals.get(1).copied().flatten() {
        Some(ScalarValue::Int64(Some(digits))) => Some(*digits),
        Some(ScalarValue::Int32(Some(digits))) => Some(i64::from(*digits)),
        _ => None,
    };
    let own = match types.first() {
        Some(DataType::Decimal128(_, scale)) => *scale,
        _ => 0,
    };
    let scale = digits.map_or(own, |digits| {
        i8::try_from(digits.clamp(0, 38)).unwrap_or(own)
    });
    Ok(DataType::Decimal128(38, scale))
}

fn scale_of(data_type: &DataType) -> i8 {
    if let DataType::Decimal128(_, scale) = data_type {
        *scale
    } else {
        0
    }
}

fn reduce(call: &Call<'_>, rounding: Rounding) -> Result<ArrayRef> {
    map1(call, |value: Numeric| value.reduce(0, 0, rounding))
}

fn reduce_to(call: &Call<'_>, rounding: Rounding) -> Result<ArrayRef> {
    let scale = scale_of(call.returns);
    map2(call, |value: Numeric, digits: i32| {
        value.reduce(digits, scale, rounding)
    })
}

fn rounding() -> Vec<ScalarUDF> {
    vec![
        function(
            "round",
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| Ok(value.round_ties_even()))
                }),
                overload(&[P::Numeric], R::Fn(whole), |call| {
                    reduce(call, Rounding::HalfAway)
                }),
                overload(&[P::Numeric, P::Int4], R::Literals(asked_digits), |call| {
                    reduce_to(call, Rounding::HalfAway)
                }),
            ],
        ),
        function(
            "trunc",
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| Ok(value.trunc()))
                }),
                overload(&[P::Numeric], R::Fn(whole), |call| {
                    reduce(call, Rounding::Truncate)
                }),
                overload(&[P::Numeric, P::Int4], R::Literals(asked_digits), |call| {
                    reduce_to(call, Rounding::Truncate)
                }),
            ],
        ),
        aliased(
            "ceil",
            &["ceiling"],
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| Ok(value.ceil()))
                }),
                overload(&[P::Numeric], R::Fn(whole), |call| {
                    reduce(call, Rounding::Ceiling)
                }),
            ],
        ),
        function(
            "floor",
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| Ok(value.floor()))
                }),
                overload(&[P::Numeric], R::Fn(whole), |call| {
                    reduce(call, Rounding::Floor)
                }),
            ],
        ),
    ]
}

/// An integer function computed in 64 bits and checked against its own type.
fn integer(call: &Call<'_>, f: impl Fn(i64) -> Option<i64>) -> Result<ArrayRef> {
    let name = SqlType::from_arrow(call.returns)
        .map_or_else(|_| "integer".to_owned(), |sql| sql.to_string());
    let wide: ArrayRef = convert(call.arg(0)?, &DataType::Int64)?;
    let values = crate::udf::primitive::<arrow_array::types::Int64Type>(&wide)?;
    let result: arrow_array::Int64Array = values
        .iter()
        .map(|value| {
            value
                .map(|value| f(value).ok_or_else(|| out_of_range(&name)))
                .transpose()
        })
        .collect::<EvalResult<_>>()
        .map_err(raise)?;
    let result: ArrayRef = Arc::new(result);
    convert(&result, call.returns)
}

fn signs() -> Vec<ScalarUDF> {
    vec![
        function(
            "abs",
            vec![
                overload(&[P::Integer], R::Same(0), |call| {
                    integer(call, i64::checked_abs)
                }),
                overload(&[P::Float4], R::Same(0), |call| {
                    map1(call, |value: f32| Ok(value.abs()))
                }),
                overload(&[P::Float8], R::Same(0), |call| {
                    map1(call, |value: f64| Ok(value.abs()))
                }),
                overload(&[P::Numeric], R::Same(0), |call| {
                    map1(call, |value: Numeric| {
                        Ok(Numeric {
                            value: value.value.abs(),
                            ..value
                        })
                    })
                }),
            ],
        ),
        aliased(
            "sign",
            &["signum"],
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| {
                        Ok(if value > 0.0 {
                            1.0
                        } else if value < 0.0 {
                            -1.0
                        } else {
                            0.0
                        })
                    })
                }),
                overload(&[P::Numeric], R::Fn(whole), |call| {
                    map1(call, |value: Numeric| {
                        Ok(Numeric::integer(value.value.signum()))
                    })
                }),
            ],
        ),
    ]
}

fn division() -> Vec<ScalarUDF> {
    let numeric_pair = |types: &[DataType]| match types {
        [left, right] => Ok(DataType::Decimal128(
            38,
            scale_of(left).max(scale_of(right)),
        )),
        _ => Err(crate::udf::broken("mod takes two arguments")),
    };
    vec![
        function(
            "mod",
            vec![
                overload(&[P::Int4, P::Int4], R::Sql(SqlType::Int4), |call| {
                    map2(call, |a: i32, b: i32| {
                        if b == 0 {
                            Err(division_by_zero())
                        } else {
                            Ok(a.wrapping_rem(b))
                        }
                    })
                }),
                overload(&[P::Int8, P::Int8], R::Sql(SqlType::Int8), |call| {
                    map2(call, |a: i64, b: i64| {
                        if b == 0 {
                            Err(division_by_zero())
                        } else {
                            Ok(a.wrapping_rem(b))
                        }
                    })
                }),
                overload(&[P::Numeric, P::Numeric], R::Fn(numeric_pair), |call| {
                    map2(call, |a: Numeric, b: Numeric| a.apply(Op::Modulo, b))
                }),
            ],
        ),
        function(
            "div",
            vec![overload(
                &[P::Numeric, P::Numeric],
                R::Fn(|_| Ok(DataType::Decimal128(38, 0))),
                |call| {
                    map2(call, |a: Numeric, b: Numeric| {
                        // The quotient toward zero: (a - a % b) / b is exact.
                        let rest = a.apply(Op::Modulo, b)?;
                        a.apply(Op::Subtract, rest)?.apply(Op::Divide, b)?.reduce(
                            0,
                            0,
                            Rounding::HalfAway,
                        )
                    })
                },
            )],
        ),
    ]
}

fn not_zero(value: f64) -> EvalResult<f64> {
    if value == 0.0 {
        return Err(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "value out of range: underflow",
        ));
    }
    Ok(value)
}

fn finite(value: f64) -> EvalResult<f64> {
    if value.is_infinite() {
        return Err(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "value out of range: overflow",
        ));
    }
    Ok(value)
}

fn check_logarithm(negative: bool, zero: bool) -> EvalResult<()> {
    if zero {
        return Err(no_logarithm("cannot take logarithm of zero"));
    }
    if negative {
        return Err(no_logarithm("cannot take logarithm of a negative number"));
    }
    Ok(())
}

fn logarithm(value: f64, f: fn(f64) -> f64) -> EvalResult<f64> {
    check_logarithm(value < 0.0, value == 0.0)?;
    Ok(f(value))
}

/// What a function gives for a value that it takes; NaN is taken.
fn where_taken(value: f64, is_taken: bool, function: fn(f64) -> f64) -> EvalResult<f64> {
    if is_taken || value.is_nan() {
        Ok(function(value))
    } else {
        Err(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "input is out of range",
        ))
    }
}

fn of_float8(name: &'static str, kernel: Kernel) -> ScalarUDF {
    function(name, vec![overload(&[P::Float8], float8(), kernel)])
}

fn trigonometry() -> Vec<ScalarUDF> {
    vec![
        of_float8("degrees", |call| {
            map1(call, |value: f64| {
                if value.is_finite() {
                    finite(value.to_degrees())
                } else {
                    Ok(value)
                }
            })
        }),
        of_float8("sin", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.is_finite(), f64::sin)
            })
        }),
        of_float8("cos", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.is_finite(), f64::cos)
            })
        }),
        of_float8("tan", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.is_finite(), f64::tan)
            })
        }),
        of_float8("cot", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.is_finite(), |angle| 1.0 / angle.tan())
            })
        }),
        of_float8("asin", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.abs() <= 1.0, f64::asin)
            })
        }),
        of_float8("acos", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.abs() <= 1.0, f64::acos)
            })
        }),
        of_float8("acosh", |call| {
            map1(call, |value: f64| {
                where_taken(value, value >= 1.0, f64::acosh)
            })
        }),
        of_float8("atanh", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.abs() <= 1.0, f64::atanh)
            })
        }),
    ]
}

fn square_root(value: f64) -> EvalResult<f64> {
    if value < 0.0 {
        return Err(no_power("cannot take square root of a negative number"));
    }
    Ok(value.sqrt())
}

fn power(base: f64, exponent: f64) -> EvalResult<f64> {
    if base == 0.0 && exponent < 0.0 {
        return Err(no_power("zero raised to a negative power is undefined"));
    }
    if base < 0.0 && base.is_finite() && exponent.is_finite() && exponent.fract() != 0.0 {
        return Err(no_power(
            "a negative number raised to a non-integer power yields a complex result",
        ));
    }
    let value = base.powf(exponent);
    if base.is_finite() && exponent.is_finite() {
        finite(if base == 0.0 { value } else { not_zero(value)? })
    } else {
        Ok(value)
    }
}

fn powers() -> Vec<ScalarUDF> {
    vec![
        aliased(
            "power",
            &["pow"],
            vec![
                overload(&[P::Float8, P::Float8], float8(), |call| map2(call, power)),
                overload(&[P::Numeric, P::Numeric], numeric(), |call| {
                    map2(call, powers::power)
                }),
            ],
        ),
        function(
            "sqrt",
            vec![
                overload(&[P::Float8], float8(), |call| map1(call, square_root)),
                overload(&[P::Numeric], numeric(), |call| {
                    map1(call, powers::square_root)
                }),
            ],
        ),
        function(
            "cbrt",
            vec![overload(&[P::Float8], float8(), |call| {
                map1(call, |value: f64| Ok(value.cbrt()))
            })],
        ),
        function(
            "exp",
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| {
                        if value.is_finite() {
                            finite(not_zero(value.exp())?)
                        } else {
                            Ok(value.exp())
                        }
                    })
                }),
                overload(&[P::Numeric], numeric(), |call| {
                    map1(call, powers::exponential)
                }),
            ],
        ),
        function(
            "ln",
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| logarithm(value, f64::ln))
                }),
                overload(&[P::Numeric], numeric(), |call| {
                    map1(call, powers::natural_logarithm)
                }),
            ],
        ),
        function(
            "log",
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| logarithm(value, f64::log10))
                }),
                overload(&[P::Numeric], numeric(), |call| {
                    map1(call, powers::common_logarithm)
                }),
                overload(&[P::Numeric, P::Numeric], numeric(), |call| {
                    map2(call, powers::logarithm)
                }),
            ],
        ),
        function(
            "log10",
            vec![
                overload(&[P::Float8], float8(), |call| {
                    map1(call, |value: f64| logarithm(value, f64::log10))
                }),
                overload(&[P::Numeric], numeric(), |call| {
                    map1(call, powers::common_logarithm)
                }),
            ],
        ),
    ]
}
