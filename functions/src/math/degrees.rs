//! Trigonometry of angles in degrees, exact where the value is: at multiples of 30 and 45 degrees.
//!
//! A value at such an angle is divided by what the library gives there, so that its error goes away. Angles are first brought to a quarter of the circle.

use datafusion::logical_expr::ScalarUDF;

use super::{float8, of_float8, where_taken};
use crate::udf::{P, function, map1, map2, overload};

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![
        of_float8("sind", |call| {
            map1(call, |angle: f64| {
                where_taken(angle, angle.is_finite(), sine)
            })
        }),
        of_float8("cosd", |call| {
            map1(call, |angle: f64| {
                where_taken(angle, angle.is_finite(), cosine)
            })
        }),
        of_float8("tand", |call| {
            map1(call, |angle: f64| {
                where_taken(angle, angle.is_finite(), tangent)
            })
        }),
        of_float8("cotd", |call| {
            map1(call, |angle: f64| {
                where_taken(angle, angle.is_finite(), cotangent)
            })
        }),
        of_float8("asind", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.abs() <= 1.0, arc_sine)
            })
        }),
        of_float8("acosd", |call| {
            map1(call, |value: f64| {
                where_taken(value, value.abs() <= 1.0, arc_cosine)
            })
        }),
        of_float8("atand", |call| {
            map1(call, |value: f64| Ok(eighths(value.atan())))
        }),
        function(
            "atan2d",
            vec![overload(&[P::Float8, P::Float8], float8(), |call| {
                map2(call, |y: f64, x: f64| Ok(eighths(y.atan2(x))))
            })],
        ),
    ]
}

/// Radians as degrees, of which an eighth of the circle has 45.
fn eighths(radians: f64) -> f64 {
    radians / 1.0_f64.atan() * 45.0
}

fn sine_up_to_30(angle: f64) -> f64 {
    angle.to_radians().sin() / 30.0_f64.to_radians().sin() / 2.0
}

fn cosine_up_to_60(angle: f64) -> f64 {
    let below_one = 1.0 - angle.to_radians().cos();
    1.0 - below_one / (1.0 - 60.0_f64.to_radians().cos()) / 2.0
}

fn sine_up_to_90(angle: f64) -> f64 {
    if angle <= 30.0 {
        sine_up_to_30(angle)
    } else {
        cosine_up_to_60(90.0 - angle)
    }
}

fn cosine_up_to_90(angle: f64) -> f64 {
    if angle <= 60.0 {
        cosine_up_to_60(angle)
    } else {
        sine_up_to_30(90.0 - angle)
    }
}

/// An angle in the first quarter of the circle, and the signs of its sine and cosine in its own.
struct Quarter {
    angle: f64,
    sine: f64,
    cosine: f64,
}

impl Quarter {
    fn of(angle: f64) -> Self {
        let mut quarter = Self {
            angle: (angle % 360.0).abs(),
            sine: if angle < 0.0 { -1.0 } else { 1.0 },
            cosine: 1.0,
        };
        if quarter.angle > 180.0 {
            quarter.angle = 360.0 - quarter.angle;
            quarter.sine = -quarter.sine;
        }
        if quarter.angle > 90.0 {
            quarter.angle = 180.0 - quarter.angle;
            quarter.cosine = -1.0;
        }
        quarter
    }
}

fn sine(angle: f64) -> f64 {
    let quarter = Quarter::of(angle);
    quarter.sine * sine_up_to_90(quarter.angle)
}

fn cosine(angle: f64) -> f64 {
    let quarter = Quarter::of(angle);
    quarter.cosine * cosine_up_to_90(quarter.angle)
}

fn tangent(angle: f64) -> f64 {
    let quarter = Quarter::of(angle);
    let ratio = |angle: f64| sine_up_to_90(angle) / cosine_up_to_90(angle);
    // One zero, also under a sign.
    quarter.sine * quarter.cosine * (ratio(quarter.angle) / ratio(45.0)) + 0.0
}

fn cotangent(angle: f64) -> f64 {
    let quarter = Quarter::of(angle);
    let ratio = |angle: f64| cosine_up_to_90(angle) / sine_up_to_90(angle);
    quarter.sine * quarter.cosine * (ratio(quarter.angle) / ratio(45.0)) + 0.0
}

fn arc_sine(value: f64) -> f64 {
    arc_sine_of_positive(value.abs()).copysign(value)
}

fn arc_cosine(value: f64) -> f64 {
    if value >= 0.0 {
        arc_cosine_of_positive(value)
    } else {
        90.0 + arc_sine_of_positive(-value)
    }
}

fn arc_sine_of_positive(value: f64) -> f64 {
    if value <= 0.5 {
        value.asin() / 0.5_f64.asin() * 30.0
    } else {
        90.0 - value.acos() / 0.5_f64.acos() * 60.0
    }
}

fn arc_cosine_of_positive(value: f64) -> f64 {
    if value <= 0.5 {
        90.0 - value.asin() / 0.5_f64.asin() * 30.0
    } else {
        value.acos() / 0.5_f64.acos() * 60.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exact_is_exact_in_every_quarter() {
        assert_eq!(
            [30.0, 150.0, 210.0, -30.0].map(sine),
            [0.5, 0.5, -0.5, -0.5]
        );
        assert_eq!(
            [60.0, 120.0, 300.0, 420.0].map(cosine),
            [0.5, -0.5, 0.5, 0.5]
        );
        assert_eq!(
            [45.0, 135.0, 225.0, 180.0].map(tangent),
            [1.0, -1.0, 1.0, 0.0]
        );
        assert_eq!([45.0, 90.0].map(cotangent), [1.0, 0.0]);
        assert_eq!(
            [tangent(90.0), tangent(-90.0)],
            [f64::INFINITY, f64::NEG_INFINITY]
        );
        assert_eq!([0.5, -0.5, 1.0].map(arc_sine), [30.0, -30.0, 90.0]);
        assert_eq!([0.5, -0.5, -1.0].map(arc_cosine), [60.0, 120.0, 180.0]);
        assert_eq!(eighths(1.0_f64.atan2(-1.0)), 135.0);
    }
}
