//! The bounds of arrays as text, and arrays without their ends.

use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::{EvalError, EvalErrorKind, SqlType};

use super::{Taken, length_in, of_vector, places, text};
use crate::errors::raise;
use crate::udf::{Call, P, R, function, lists, map_rows, overload, primitive};

/// Most dimensions of an array.
const DIMENSIONS_MAX: i32 = 6;

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![
        function(
            "array_dims",
            vec![
                overload(&[P::List], text(), |call| bounds(call, 1)),
                overload(&[P::Vector], text(), |call| {
                    of_vector(call, |call| bounds(call, 0))
                }),
            ],
        ),
        function(
            "array_ndims",
            vec![overload(&[P::List], R::Sql(SqlType::Int4), dimensions)],
        ),
        function(
            "trim_array",
            vec![overload(&[P::List, P::Int4], R::Same(0), trimmed)],
        ),
    ]
}

/// `[1:3]`: the subscripts of each dimension; an array without items has none.
fn bounds(call: &Call<'_>, first: i32) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    map_rows(call, |row| {
        if list.is_null(row) || list.value_length(row) == 0 {
            return Ok(None);
        }
        let items = list.value(row);
        let mut shown = String::new();
        for depth in 1..=DIMENSIONS_MAX {
            let Some(length) = length_in(&items, depth)? else {
                break;
            };
            shown.push_str(&format!("[{first}:{}]", length - 1 + first));
        }
        Ok(Some(shown))
    })
}

/// How many dimensions there are; an array without items has none.
fn dimensions(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    map_rows(call, |row| {
        if list.is_null(row) || list.value_length(row) == 0 {
            return Ok(None);
        }
        let items = list.value(row);
        let mut depth = 0;
        while depth < DIMENSIONS_MAX && length_in(&items, depth + 1)?.is_some() {
            depth += 1;
        }
        Ok(Some(depth))
    })
}

/// Arrays without so many of their last items.
fn trimmed(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let counts = primitive::<Int32Type>(call.arg(1)?)?;
    let mut taken = Taken::new(call.rows);
    for row in 0..call.rows {
        if list.is_null(row) || counts.is_null(row) {
            taken.push(false, []);
            continue;
        }
        let items = places(list, row);
        let kept = usize::try_from(counts.value(row))
            .ok()
            .and_then(|count| items.len().checked_sub(count))
            .ok_or_else(|| {
                let message = format!(
                    "number of elements to trim must be between 0 and {}",
                    items.len()
                );
                raise(EvalError::new(EvalErrorKind::Subscript, message))
            })?;
        taken.push(true, items.take(kept));
    }
    taken.finish(call.returns, list.values())
}
