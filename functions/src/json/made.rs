//! Documents that are made of arrays and rows.
//!
//! A row comes as the document that the binder has made of it.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::jsonb::JsonbBuilder;
use flowstone_types::{EvalError, EvalErrorKind};

use super::{JsonColumn, build, jsonb};
use crate::errors::{EvalResult, internal};
use crate::udf::{
    Call, Json, JsonBuf, P, aliased, function, lists, map_rows, map1, map2, overload,
};

/// The functions of this module. How a document is laid out is not kept, so nothing is done for those who ask for lines.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![
        function(
            "array_to_json",
            vec![
                overload(&[P::List], jsonb(), arrays),
                overload(&[P::List, P::Bool], jsonb(), arrays),
            ],
        ),
        function(
            "row_to_json",
            vec![
                overload(&[P::Jsonb], jsonb(), |call| {
                    map1(call, |row: Json<'_>| Ok(JsonBuf(row.0.to_vec())))
                }),
                overload(&[P::Jsonb, P::Bool], jsonb(), |call| {
                    map2(call, |row: Json<'_>, _: bool| Ok(JsonBuf(row.0.to_vec())))
                }),
            ],
        ),
        aliased(
            "jsonb_object",
            &["json_object"],
            vec![
                overload(&[P::TextList], jsonb(), objects_of_pairs),
                overload(&[P::TextList, P::TextList], jsonb(), objects_of_lists),
            ],
        ),
    ]
}

fn arrays(call: &Call<'_>) -> Result<ArrayRef> {
    let array = call.arg(0)?;
    let column = JsonColumn::new(array, call.zone)?;
    let lines = call.args.get(1);
    map_rows(call, |row| {
        if array.is_null(row) || lines.is_some_and(|lines| lines.is_null(row)) {
            return Ok(None);
        }
        build(|builder| column.append(row, builder)).map(Some)
    })
}

fn misshaped(message: &str) -> EvalError {
    EvalError::new(EvalErrorKind::Subscript, message)
}

fn strings(array: &ArrayRef) -> EvalResult<&StringArray> {
    array
        .as_string_opt::<i32>()
        .ok_or_else(|| internal("an array of texts holds others"))
}

/// The member that is at `key` and `value` among texts.
fn member(
    builder: &mut JsonbBuilder,
    (keys, key): (&StringArray, usize),
    (values, value): (&StringArray, usize),
) -> EvalResult<()> {
    if keys.is_null(key) {
        return Err(EvalError::new(
            EvalErrorKind::NullNotAllowed,
            "null value not allowed for object key",
        ));
    }
    builder.key(keys.value(key));
    if values.is_null(value) {
        builder.null();
    } else {
        builder.string(values.value(value));
    }
    Ok(())
}

/// Objects of arrays with a key and a value in turn.
fn objects_of_pairs(call: &Call<'_>) -> Result<ArrayRef> {
    let arrays = lists(call.arg(0)?)?;
    map_rows(call, |row| {
        if arrays.is_null(row) {
            return Ok(None);
        }
        let items = arrays.value(row);
        build(|builder| {
            builder.begin_object();
            let texts = strings(&items)?;
            if !texts.len().is_multiple_of(2) {
                return Err(misshaped("array must have even number of elements"));
            }
            for key in (0..texts.len()).step_by(2) {
                member(builder, (texts, key), (texts, key + 1))?;
            }
            builder.end();
            Ok(())
        })
        .map(Some)
    })
}

fn objects_of_lists(call: &Call<'_>) -> Result<ArrayRef> {
    let (keys, values) = (lists(call.arg(0)?)?, lists(call.arg(1)?)?);
    map_rows(call, |row| {
        if keys.is_null(row) || values.is_null(row) {
            return Ok(None);
        }
        let (keys, values) = (keys.value(row), values.value(row));
        let (keys, values) = (strings(&keys)?, strings(&values)?);
        if keys.len() != values.len() {
            return Err(misshaped(if keys.is_empty() || values.is_empty() {
                "wrong number of array subscripts"
            } else {
                "mismatched array dimensions"
            }));
        }
        build(|builder| {
            builder.begin_object();
            (0..keys.len())
                .try_for_each(|index| member(builder, (keys, index), (values, index)))?;
            builder.end();
            Ok(())
        })
        .map(Some)
    })
}
