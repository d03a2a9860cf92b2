//! Functions of whole numbers and of the digits of `numeric`: common divisors and multiples, factorials, scales.
//!
//! How many digits a `numeric` has behind the point is a matter of its type, so a number whose type does not say it has as many as it shows: no zeros at the end.

use arrow_buffer::i256;
use arrow_schema::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use crate::errors::{EvalResult, numeric_format_overflow, numeric_not_held, out_of_range};
use crate::numeric::{Numeric, narrow, rescale};
use crate::udf::{P, R, broken, function, map1, map2, overload};

/// The largest number whose factorial PostgreSQL's `numeric` holds.
const FACTORIAL_MAX: i64 = 32_177;

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let int4 = || R::Sql(SqlType::Int4);
    let int8 = || R::Sql(SqlType::Int8);
    vec![
        function(
            "gcd",
            vec![
                overload(&[P::Int4, P::Int4], int4(), |call| {
                    map2(call, |a: i32, b: i32| {
                        narrowed::<i32>(divisor(i128::from(a), i128::from(b)), "integer")
                    })
                }),
                overload(&[P::Int8, P::Int8], int8(), |call| {
                    map2(call, |a: i64, b: i64| {
                        narrowed::<i64>(divisor(i128::from(a), i128::from(b)), "bigint")
                    })
                }),
                overload(&[P::Numeric, P::Numeric], R::Fn(wider), |call| {
                    map2(call, |a: Numeric, b: Numeric| {
                        let (a, b, scale) = aligned(a, b)?;
                        let value = narrow(wide_divisor(a, b)?, 38)?;
                        Ok(Numeric { value, scale })
                    })
                }),
            ],
        ),
        function(
            "lcm",
            vec![
                overload(&[P::Int4, P::Int4], int4(), |call| {
                    map2(call, |a: i32, b: i32| {
                        narrowed::<i32>(multiple(i128::from(a), i128::from(b)), "integer")
                    })
                }),
                overload(&[P::Int8, P::Int8], int8(), |call| {
                    map2(call, |a: i64, b: i64| {
                        narrowed::<i64>(multiple(i128::from(a), i128::from(b)), "bigint")
                    })
                }),
                overload(&[P::Numeric, P::Numeric], R::Fn(wider), |call| {
                    map2(call, |a: Numeric, b: Numeric| {
                        let (a, b, scale) = aligned(a, b)?;
                        let value = narrow(wide_multiple(a, b)?, 38)?;
                        Ok(Numeric { value, scale })
                    })
                }),
            ],
        ),
        function(
            "factorial",
            vec![overload(
                &[P::Int8],
                R::Sql(SqlType::Numeric(Some((38, 0)))),
                |call| map1(call, factorial),
            )],
        ),
        function(
            "scale",
            vec![overload(&[P::Numeric], int4(), |call| {
                let of_type = match call.arg(0)?.data_type() {
                    plain if *plain == SqlType::Numeric(None).to_arrow() => None,
                    DataType::Decimal128(_, scale) => Some(i32::from(*scale)),
                    _ => None,
                };
                map1(call, |value: Numeric| {
                    Ok(of_type.unwrap_or_else(|| i32::from(least_scale(value))))
                })
            })],
        ),
        function(
            "min_scale",
            vec![overload(&[P::Numeric], int4(), |call| {
                map1(call, |value: Numeric| Ok(i32::from(least_scale(value))))
            })],
        ),
        function(
            "trim_scale",
            vec![overload(&[P::Numeric], R::Fn(trimmed), |call| {
                let scale = match call.returns {
                    DataType::Decimal128(_, scale) => *scale,
                    _ => 0,
                };
                map1(call, |value: Numeric| {
                    if least_scale(value) > scale {
                        return Err(numeric_not_held());
                    }
                    Ok(value)
                })
            })],
        ),
    ]
}

fn wider(types: &[DataType]) -> Result<DataType> {
    match types {
        [
            DataType::Decimal128(_, left),
            DataType::Decimal128(_, right),
        ] => Ok(DataType::Decimal128(38, *left.max(right))),
        _ => Err(broken("gcd and lcm take two numbers")),
    }
}

/// What is shown without zeros at the end, which nothing but a type without a declared scale is.
fn trimmed(types: &[DataType]) -> Result<DataType> {
    Ok(match types {
        [whole @ DataType::Decimal128(_, 0)] => whole.clone(),
        _ => SqlType::Numeric(None).to_arrow(),
    })
}

/// Digits after the point without the zeros at the end.
fn least_scale(number: Numeric) -> i8 {
    let Numeric {
        mut value,
        mut scale,
    } = number;
    if value == 0 {
        return 0;
    }
    while scale > 0 && value % 10 == 0 {
        value /= 10;
        scale -= 1;
    }
    scale
}

fn narrowed<T: TryFrom<i128>>(value: i128, name: &str) -> EvalResult<T> {
    T::try_from(value).map_err(|_| out_of_range(name))
}

/// The greatest common divisor, which is not negative. The arguments have 64 bits.
fn divisor(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.abs(), b.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The least common multiple, which is not negative. The arguments have 64 bits.
fn multiple(a: i128, b: i128) -> i128 {
    if a == 0 || b == 0 {
        return 0;
    }
    (a / divisor(a, b) * b).abs()
}

/// Two numbers at the same scale.
fn aligned(a: Numeric, b: Numeric) -> EvalResult<(i256, i256, i8)> {
    let scale = a.scale.max(b.scale);
    let wide = |number: Numeric| rescale(i256::from_i128(number.value), number.scale, scale);
    Ok((wide(a)?, wide(b)?, scale))
}

fn wide_divisor(a: i256, b: i256) -> EvalResult<i256> {
    let (mut a, mut b) = (a.wrapping_abs(), b.wrapping_abs());
    while b != i256::ZERO {
        (a, b) = (b, a.checked_rem(b).ok_or_else(numeric_not_held)?);
    }
    Ok(a)
}

fn wide_multiple(a: i256, b: i256) -> EvalResult<i256> {
    if a == i256::ZERO || b == i256::ZERO {
        return Ok(i256::ZERO);
    }
    a.checked_div(wide_divisor(a, b)?)
        .and_then(|part| part.checked_mul(b))
        .map(i256::wrapping_abs)
        .ok_or_else(numeric_not_held)
}

fn factorial(number: i64) -> EvalResult<Numeric> {
    if number < 0 {
        return Err(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "factorial of a negative number is undefined",
        ));
    }
    if number > FACTORIAL_MAX {
        return Err(numeric_format_overflow());
    }
    let mut product = 1_i128;
    for factor in 2..=i128::from(number) {
        product = product.checked_mul(factor).ok_or_else(numeric_not_held)?;
    }
    Ok(Numeric::integer(product))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_and_multiples_are_not_negative() {
        assert_eq!(divisor(-12, 18), 6);
        assert_eq!(divisor(0, 0), 0);
        assert_eq!(multiple(-4, 6), 12);
        assert_eq!(multiple(0, 5), 0);
        assert!(narrowed::<i32>(divisor(i128::from(i32::MIN), 0), "integer").is_err());
    }

    #[test]
    fn factorials_end_where_digits_do() {
        assert_eq!(factorial(0).unwrap(), Numeric::integer(1));
        let thirty = 265_252_859_812_191_058_636_308_480_000_000;
        assert_eq!(factorial(30).unwrap(), Numeric::integer(thirty));
        assert_eq!(factorial(40).unwrap_err(), numeric_not_held());
        assert_eq!(factorial(40_000).unwrap_err(), numeric_format_overflow());
        assert_eq!(
            factorial(-1).unwrap_err().kind,
            EvalErrorKind::NumericOutOfRange
        );
    }

    #[test]
    fn zeros_at_the_end_need_no_scale() {
        let least = |value, scale| least_scale(Numeric { value, scale });
        assert_eq!(least(84_100, 4), 2);
        assert_eq!(least(100, 0), 0);
        assert_eq!(least(0, 3), 0);
    }
}
