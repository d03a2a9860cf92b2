//! Functions that change documents.
//!
//! Owns what arguments of `jsonb_set` and its like mean, and what of them may be NULL.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, LargeBinaryArray, ListArray, StringArray};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::jsonb::{Edit, EditError, Jsonb};
use flowstone_types::{EvalError, EvalErrorKind};

use super::{documents, edited, failed, jsonb, with_keys};
use crate::errors::{EvalResult, invalid_parameter};
use crate::udf::{
    Call, Json, JsonBuf, Overload, P, aliased, broken, function, lists, map_rows, map1, map2,
    overload, texts,
};

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![
        function(
            "jsonb_concat",
            vec![overload(&[P::Jsonb, P::Jsonb], jsonb(), |call| {
                map2(call, |a: Json<'_>, b: Json<'_>| {
                    edited(a.view().concat(b.view()))
                })
            })],
        ),
        function(
            "jsonb_delete",
            vec![
                overload(&[P::Jsonb, P::Text], jsonb(), |call| {
                    map2(call, |value: Json<'_>, key: &str| {
                        edited(value.view().delete_key(key))
                    })
                }),
                overload(&[P::Jsonb, P::Int8], jsonb(), |call| {
                    map2(call, |value: Json<'_>, index: i64| {
                        edited(value.view().delete_index(index))
                    })
                }),
                overload(&[P::Jsonb, P::TextList], jsonb(), |call| {
                    with_keys(call, |value, keys| {
                        edited(value.delete_keys(keys)).map(Some)
                    })
                }),
            ],
        ),
        function(
            "jsonb_delete_path",
            vec![overload(&[P::Jsonb, P::TextList], jsonb(), |call| {
                at_paths(call, |_| Ok(Some(Change::Edit(Edit::Delete))))
            })],
        ),
        function("jsonb_set", with_flag(set_values)),
        function("jsonb_insert", with_flag(insert_values)),
        function("jsonb_set_lax", set_lax()),
        aliased(
            "jsonb_strip_nulls",
            &["json_strip_nulls"],
            vec![overload(&[P::Jsonb], jsonb(), |call| {
                map1(call, |value: Json<'_>| edited(value.view().strip_nulls()))
            })],
        ),
    ]
}

/// What becomes of a document.
enum Change<'v> {
    Edit(Edit<'v>),
    Nothing,
}

fn edit_failed(error: EditError) -> EvalError {
    let kind = match &error {
        EditError::NullStep(_) => EvalErrorKind::NullNotAllowed,
        EditError::NotAnInteger(..) => EvalErrorKind::InvalidText,
        EditError::ExistingKey | EditError::Scalar(_) => EvalErrorKind::InvalidParameter,
        EditError::Document(cause) => return failed(cause.clone()),
    };
    EvalError::new(kind, error.to_string())
}

/// The documents of a call, changed at their paths as `change` says of each row; NULL where it says nothing.
fn at_paths<'a>(
    call: &Call<'a>,
    change: impl Fn(usize) -> EvalResult<Option<Change<'a>>>,
) -> Result<ArrayRef> {
    let targets = documents(call.arg(0)?)?;
    let paths = lists(call.arg(1)?)?;
    map_rows(call, |row| {
        if targets.is_null(row) || paths.is_null(row) {
            return Ok(None);
        }
        let Some(change) = change(row)? else {
            return Ok(None);
        };
        let target = Jsonb::from_canonical(targets.value(row));
        changed(target, paths, row, change).map(Some)
    })
}

fn changed(
    target: Jsonb<'_>,
    paths: &ListArray,
    row: usize,
    change: Change<'_>,
) -> EvalResult<JsonBuf> {
    let Change::Edit(edit) = change else {
        return Ok(target.to_buf().into());
    };
    let steps = paths.value(row);
    let steps: Vec<Option<&str>> = steps
        .as_string_opt::<i32>()
        .map(|steps| steps.iter().collect())
        .unwrap_or_default();
    target
        .edited_at(&steps, edit)
        .map(JsonBuf::from)
        .map_err(edit_failed)
}

/// A document, a path, a value, and maybe a truth.
fn with_flag(kernel: crate::udf::Kernel) -> Vec<Overload> {
    vec![
        overload(&[P::Jsonb, P::TextList, P::Jsonb], jsonb(), kernel),
        overload(&[P::Jsonb, P::TextList, P::Jsonb, P::Bool], jsonb(), kernel),
    ]
}

/// An optional argument.
fn flags<'a>(call: &Call<'a>, index: usize) -> Result<Option<&'a BooleanArray>> {
    match call.args.get(index) {
        None => Ok(None),
        Some(array) => array
            .as_boolean_opt()
            .map(Some)
            .ok_or_else(|| broken("a truth is no boolean")),
    }
}

/// The truth of a row, which is `default` without the argument; `None` for NULL.
fn flag(flags: Option<&BooleanArray>, row: usize, default: bool) -> Option<bool> {
    match flags {
        None => Some(default),
        Some(flags) => flags.is_valid(row).then(|| flags.value(row)),
    }
}

fn value(values: &LargeBinaryArray, row: usize) -> Option<Jsonb<'_>> {
    values
        .is_valid(row)
        .then(|| Jsonb::from_canonical(values.value(row)))
}

const fn set_or_replace(value: Jsonb<'_>, creates: bool) -> Edit<'_> {
    if creates {
        Edit::Set(value)
    } else {
        Edit::Replace(value)
    }
}

fn set_values(call: &Call<'_>) -> Result<ArrayRef> {
    let values = documents(call.arg(2)?)?;
    let creates = flags(call, 3)?;
    at_paths(call, |row| {
        Ok(match (value(values, row), flag(creates, row, true)) {
            (Some(value), Some(creates)) => Some(Change::Edit(set_or_replace(value, creates))),
            _ => None,
        })
    })
}

fn insert_values(call: &Call<'_>) -> Result<ArrayRef> {
    let values = documents(call.arg(2)?)?;
    let behind = flags(call, 3)?;
    at_paths(call, |row| {
        Ok(match (value(values, row), flag(behind, row, false)) {
            (Some(value), Some(true)) => Some(Change::Edit(Edit::InsertAfter(value))),
            (Some(value), Some(false)) => Some(Change::Edit(Edit::InsertBefore(value))),
            _ => None,
        })
    })
}

fn set_lax() -> Vec<Overload> {
    let mut overloads = with_flag(set_lax_values);
    overloads.push(overload(
        &[P::Jsonb, P::TextList, P::Jsonb, P::Bool, P::Text],
        jsonb(),
        set_lax_values,
    ));
    overloads
}

/// `jsonb_set_lax`: the last argument says what to do with a value that is NULL.
fn set_lax_values(call: &Call<'_>) -> Result<ArrayRef> {
    let values = documents(call.arg(2)?)?;
    let creates = flags(call, 3)?;
    let treatments = call.args.get(4).map(texts).transpose()?;
    at_paths(call, |row| {
        let Some(creates) = flag(creates, row, true) else {
            return Ok(None);
        };
        let treatment = treatment(treatments, row)?;
        let change = match value(values, row) {
            Some(value) => Change::Edit(set_or_replace(value, creates)),
            None => of_null(treatment, creates)?,
        };
        Ok(Some(change))
    })
}

fn unknown_treatment() -> EvalError {
    invalid_parameter(
        "null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\"",
    )
}

fn treatment(treatments: Option<&StringArray>, row: usize) -> EvalResult<&str> {
    match treatments {
        None => Ok("use_json_null"),
        Some(treatments) if treatments.is_valid(row) => Ok(treatments.value(row)),
        Some(_) => Err(unknown_treatment()),
    }
}

fn of_null(treatment: &str, creates: bool) -> EvalResult<Change<'static>> {
    Ok(match treatment {
        "use_json_null" => Change::Edit(set_or_replace(Jsonb::null(), creates)),
        "delete_key" => Change::Edit(Edit::Delete),
        "return_target" => Change::Nothing,
        "raise_exception" => {
            return Err(EvalError::new(
                EvalErrorKind::NullNotAllowed,
                "JSON value must not be null",
            ));
        }
        _ => return Err(unknown_treatment()),
    })
}
