//! Functions and operators of jsonb.
//!
//! Owns PostgreSQL's rules for what an operator gives on which kind of document. The form and the edits of documents are `flowstone_types::jsonb`'s.

mod edits;
mod elements;
mod made;

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, LargeBinaryArray, ListArray};
use arrow_schema::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::datetime::TimeZone;
use flowstone_types::jsonb::{Jsonb, JsonbBuf, JsonbBuilder, JsonbKind};
use flowstone_types::numeric::precision_and_scale;
use flowstone_types::{ColumnFormatter, EvalError, EvalErrorKind, SqlType, TypeError};

pub(crate) use elements::{document_lists, json_list};

use crate::errors::{EvalResult, eval_error, from_type_error, invalid_parameter, raise};
use crate::numeric::Numeric;
use crate::udf::{
    Call, Json, JsonBuf, P, R, aliased, function, lists, map_rows, map1, map2, opt2, overload,
    texts, variadic,
};

fn jsonb() -> R {
    R::Sql(SqlType::Jsonb)
}

fn text() -> R {
    R::Sql(SqlType::Text)
}

fn bool() -> R {
    R::Sql(SqlType::Bool)
}

impl<'a> Json<'a> {
    pub(crate) fn view(self) -> Jsonb<'a> {
        Jsonb::from_canonical(self.0)
    }
}

impl From<JsonbBuf> for JsonBuf {
    fn from(value: JsonbBuf) -> Self {
        Self(value.into_bytes())
    }
}

fn failed(error: TypeError) -> EvalError {
    from_type_error(&error)
}

fn edited(result: Result<JsonbBuf, TypeError>) -> EvalResult<JsonBuf> {
    result.map(JsonBuf::from).map_err(failed)
}

fn owned(value: Option<Jsonb<'_>>) -> Option<JsonBuf> {
    value.map(|value| value.to_buf().into())
}

/// The item that `->` gives for a number: a scalar is like an array of it alone.
fn item(value: Jsonb<'_>, index: i64) -> Option<Jsonb<'_>> {
    match value.kind() {
        JsonbKind::Array => value.get_index(index),
        JsonbKind::Object => None,
        _ => matches!(index, 0 | -1).then_some(value),
    }
}

/// What `->>` shows: a string without quotes, NULL for JSON null, any other document as text.
fn shown(value: Option<Jsonb<'_>>) -> Option<String> {
    let value = value?;
    match value.as_str() {
        Some(text) => Some(text.to_owned()),
        None => (!value.is_null()).then(|| value.to_string()),
    }
}

/// PostgreSQL's order of documents.
pub(crate) fn compare(left: &[u8], right: &[u8]) -> Ordering {
    Jsonb::from_canonical(left).compare(Jsonb::from_canonical(right))
}

fn cannot_cast(value: Jsonb<'_>, type_name: &str) -> EvalError {
    let kind = match value.kind() {
        JsonbKind::Bool => "boolean",
        JsonbKind::Number => "numeric",
        other => other.name(),
    };
    EvalError::new(
        EvalErrorKind::InvalidParameter,
        format!("cannot cast jsonb {kind} to type {type_name}"),
    )
}

/// `jsonb::boolean`
pub(crate) fn to_bool(value: Json<'_>) -> EvalResult<Option<bool>> {
    let value = value.view();
    value
        .as_bool()
        .map(Some)
        .ok_or_else(|| cannot_cast(value, "boolean"))
}

/// `jsonb::double precision`
pub(crate) fn to_f64(value: Json<'_>, type_name: &str) -> EvalResult<Option<f64>> {
    let value = value.view();
    let number = value
        .as_number()
        .ok_or_else(|| cannot_cast(value, type_name))?
        .to_f64();
    if number.is_infinite() {
        return Err(EvalError::new(
            EvalErrorKind::NumericOutOfRange,
            "value out of range: overflow",
        ));
    }
    Ok(Some(number))
}

/// `jsonb::numeric`, or what becomes `type_name` of it, at the scale of `modifier`.
pub(crate) fn to_numeric(
    value: Json<'_>,
    type_name: &str,
    modifier: Option<(u8, i8)>,
) -> EvalResult<Option<Numeric>> {
    let value = value.view();
    let number = value
        .as_number()
        .ok_or_else(|| cannot_cast(value, type_name))?;
    let digits = number.to_numeric(modifier).map_err(|error| match error {
        TypeError::OutOfRange { .. } if type_name != "numeric" => {
            crate::errors::out_of_range(type_name)
        }
        other => failed(other),
    })?;
    Ok(Some(Numeric {
        value: digits,
        scale: precision_and_scale(modifier).1,
    }))
}

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    [
        access(),
        tests(),
        edits::functions(),
        inspection(),
        construction(),
        elements::functions(),
        made::functions(),
    ]
    .concat()
}

/// Steps of a path argument; NULL if the array or one of its items is.
fn path(list: &ListArray, row: usize) -> Option<Vec<String>> {
    if list.is_null(row) {
        return None;
    }
    let items = list.value(row);
    let items = items.as_string_opt::<i32>()?;
    items.iter().map(|item| item.map(str::to_owned)).collect()
}

/// The keys that an array has; those that are NULL are none. `None` if the array is NULL.
fn keys(list: &ListArray, row: usize) -> Option<Vec<String>> {
    if list.is_null(row) {
        return None;
    }
    let items = list.value(row);
    let items = items.as_string_opt::<i32>()?;
    Some(items.iter().flatten().map(str::to_owned).collect())
}

/// `f` over a document and a path.
fn with_path<T: crate::udf::Ret>(
    call: &Call<'_>,
    f: impl FnMut(Jsonb<'_>, &[&str]) -> EvalResult<Option<T>>,
) -> Result<ArrayRef> {
    with_texts(call, path, f)
}

/// `f` over a document and keys.
fn with_keys<T: crate::udf::Ret>(
    call: &Call<'_>,
    f: impl FnMut(Jsonb<'_>, &[&str]) -> EvalResult<Option<T>>,
) -> Result<ArrayRef> {
    with_texts(call, keys, f)
}

/// `f` over a document and what `read` reads of an array of texts.
fn with_texts<T: crate::udf::Ret>(
    call: &Call<'_>,
    read: fn(&ListArray, usize) -> Option<Vec<String>>,
    mut f: impl FnMut(Jsonb<'_>, &[&str]) -> EvalResult<Option<T>>,
) -> Result<ArrayRef> {
    let documents = documents(call.arg(0)?)?;
    let arrays = lists(call.arg(1)?)?;
    map_rows(call, |row| match read(arrays, row) {
        Some(steps) if documents.is_valid(row) => {
            let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
            f(Jsonb::from_canonical(documents.value(row)), &steps)
        }
        _ => Ok(None),
    })
}

/// The documents of an array of them.
pub(crate) fn documents(array: &ArrayRef) -> Result<&LargeBinaryArray> {
    array
        .as_binary_opt::<i64>()
        .ok_or_else(|| crate::udf::broken("jsonb is not LargeBinary"))
}

fn access() -> Vec<ScalarUDF> {
    vec![
        function(
            "jsonb_get",
            vec![
                overload(&[P::Jsonb, P::Text], jsonb(), |call| {
                    opt2(call, |value: Json<'_>, key: &str| {
                        Ok(owned(value.view().get_key(key)))
                    })
                }),
                overload(&[P::Jsonb, P::Int8], jsonb(), |call| {
                    opt2(call, |value: Json<'_>, index: i64| {
                        Ok(owned(item(value.view(), index)))
                    })
                }),
            ],
        ),
        function(
            "jsonb_get_text",
            vec![
                overload(&[P::Jsonb, P::Text], text(), |call| {
                    opt2(call, |value: Json<'_>, key: &str| {
                        Ok(shown(value.view().get_key(key)))
                    })
                }),
                overload(&[P::Jsonb, P::Int8], text(), |call| {
                    opt2(call, |value: Json<'_>, index: i64| {
                        Ok(shown(item(value.view(), index)))
                    })
                }),
            ],
        ),
        // A subscript is a step of a path, whether it is a number or a text.
        function(
            "jsonb_subscript",
            vec![
                overload(&[P::Jsonb, P::Text], jsonb(), |call| {
                    opt2(call, |value: Json<'_>, step: &str| {
                        Ok(owned(value.view().get_path([step])))
                    })
                }),
                overload(&[P::Jsonb, P::Int8], jsonb(), |call| {
                    opt2(call, |value: Json<'_>, index: i64| {
                        Ok(owned(value.view().get_path([index.to_string().as_str()])))
                    })
                }),
            ],
        ),
        function(
            "jsonb_get_path",
            vec![overload(&[P::Jsonb, P::TextList], jsonb(), |call| {
                with_path(call, |value, path| {
                    Ok(owned(value.get_path(path.iter().copied())))
                })
            })],
        ),
        function(
            "jsonb_get_path_text",
            vec![overload(&[P::Jsonb, P::TextList], text(), |call| {
                with_path(call, |value, path| {
                    Ok(shown(value.get_path(path.iter().copied())))
                })
            })],
        ),
        aliased(
            "jsonb_extract_path",
            &["json_extract_path"],
            vec![variadic(&[P::Jsonb, P::Text], jsonb(), |call| {
                along_arguments(call, owned)
            })],
        ),
        aliased(
            "jsonb_extract_path_text",
            &["json_extract_path_text"],
            vec![variadic(&[P::Jsonb, P::Text], text(), |call| {
                along_arguments(call, shown)
            })],
        ),
    ]
}

fn along_arguments<T: crate::udf::Ret>(
    call: &Call<'_>,
    f: impl Fn(Option<Jsonb<'_>>) -> Option<T>,
) -> Result<ArrayRef> {
    let documents = documents(call.arg(0)?)?;
    let steps = call
        .args
        .iter()
        .skip(1)
        .map(texts)
        .collect::<Result<Vec<_>>>()?;
    map_rows(call, |row| {
        if documents.is_null(row) || steps.iter().any(|step| step.is_null(row)) {
            return Ok(None);
        }
        Ok(f(Jsonb::from_canonical(documents.value(row))
            .get_path(steps.iter().map(|step| step.value(row)))))
    })
}

fn tests() -> Vec<ScalarUDF> {
    let comparison =
        |name, kernel| function(name, vec![overload(&[P::Jsonb, P::Jsonb], bool(), kernel)]);
    vec![
        comparison("jsonb_contains", |call| {
            map2(call, |a: Json<'_>, b: Json<'_>| {
                Ok(a.view().contains(b.view()))
            })
        }),
        comparison("jsonb_contained", |call| {
            map2(call, |a: Json<'_>, b: Json<'_>| {
                Ok(b.view().contains(a.view()))
            })
        }),
        comparison("jsonb_lt", |call| {
            map2(call, |a: Json<'_>, b: Json<'_>| {
                Ok(a.view().compare(b.view()).is_lt())
            })
        }),
        comparison("jsonb_le", |call| {
            map2(call, |a: Json<'_>, b: Json<'_>| {
                Ok(a.view().compare(b.view()).is_le())
            })
        }),
        comparison("jsonb_gt", |call| {
            map2(call, |a: Json<'_>, b: Json<'_>| {
                Ok(a.view().compare(b.view()).is_gt())
            })
        }),
        comparison("jsonb_ge", |call| {
            map2(call, |a: Json<'_>, b: Json<'_>| {
                Ok(a.view().compare(b.view()).is_ge())
            })
        }),
        function(
            "jsonb_exists",
            vec![overload(&[P::Jsonb, P::Text], bool(), |call| {
                map2(call, |value: Json<'_>, key: &str| {
                    Ok(value.view().exists(key))
                })
            })],
        ),
        function(
            "jsonb_exists_any",
            vec![overload(&[P::Jsonb, P::TextList], bool(), |call| {
                with_keys(call, |value, keys| {
                    Ok(Some(keys.iter().any(|key| value.exists(key))))
                })
            })],
        ),
        function(
            "jsonb_exists_all",
            vec![overload(&[P::Jsonb, P::TextList], bool(), |call| {
                with_keys(call, |value, keys| {
                    Ok(Some(keys.iter().all(|key| value.exists(key))))
                })
            })],
        ),
    ]
}

fn inspection() -> Vec<ScalarUDF> {
    vec![
        aliased(
            "jsonb_typeof",
            &["json_typeof"],
            vec![overload(&[P::Jsonb], text(), |call| {
                map1(call, |value: Json<'_>| {
                    Ok(match value.view().kind() {
                        JsonbKind::Null => "null",
                        JsonbKind::Bool => "boolean",
                        JsonbKind::Number => "number",
                        JsonbKind::String => "string",
                        JsonbKind::Array => "array",
                        JsonbKind::Object => "object",
                    }
                    .to_owned())
                })
            })],
        ),
        aliased(
            "jsonb_array_length",
            &["json_array_length"],
            vec![overload(&[P::Jsonb], R::Sql(SqlType::Int4), |call| {
                map1(call, |value: Json<'_>| {
                    let value = value.view();
                    match value.kind() {
                        JsonbKind::Array => i32::try_from(value.len())
                            .map_err(|_| crate::errors::out_of_range("integer")),
                        JsonbKind::Object => {
                            Err(invalid_parameter("cannot get array length of a non-array"))
                        }
                        _ => Err(invalid_parameter("cannot get array length of a scalar")),
                    }
                })
            })],
        ),
        function(
            "jsonb_pretty",
            vec![overload(&[P::Jsonb], text(), |call| {
                map1(call, |value: Json<'_>| Ok(value.view().pretty()))
            })],
        ),
    ]
}

fn construction() -> Vec<ScalarUDF> {
    vec![
        aliased(
            "to_jsonb",
            &["to_json"],
            vec![overload(&[P::Any], jsonb(), |call| {
                let array = call.arg(0)?;
                let column = JsonColumn::new(array, call.zone)?;
                map_rows(call, |row| {
                    if array.is_null(row) {
                        Ok(None)
                    } else {
                        build(|builder| column.append(row, builder)).map(Some)
                    }
                })
            })],
        ),
        aliased(
            "jsonb_build_array",
            &["json_build_array"],
            vec![variadic(&[P::Any], jsonb(), |call| {
                let columns = call
                    .args
                    .iter()
                    .map(|array| JsonColumn::new(array, call.zone))
                    .collect::<Result<Vec<_>>>()?;
                map_rows(call, |row| {
                    build(|builder| {
                        builder.begin_array();
                        for column in &columns {
                            column.append(row, builder)?;
                        }
                        builder.end();
                        Ok(())
                    })
                    .map(Some)
                })
            })],
        ),
        aliased(
            "jsonb_build_object",
            &["json_build_object"],
            vec![variadic(&[P::Any], jsonb(), build_objects)],
        ),
        // The keys and values that jsonb_object_agg collected.
        function(
            "jsonb_object_lists",
            vec![overload(&[P::TextList, P::List], jsonb(), |call| {
                let (keys, values) = (lists(call.arg(0)?)?, lists(call.arg(1)?)?);
                map_rows(call, |row| {
                    if keys.is_null(row) || values.is_null(row) {
                        return Ok(None);
                    }
                    let (keys, values) = (keys.value(row), values.value(row));
                    let names =
                        JsonColumn::new(&keys, call.zone).map_err(|error| eval_error(&error))?;
                    let items =
                        JsonColumn::new(&values, call.zone).map_err(|error| eval_error(&error))?;
                    build(|builder| {
                        builder.begin_object();
                        for pair in 0..keys.len().min(values.len()) {
                            builder.key(&names.key(pair)?);
                            items.append(pair, builder)?;
                        }
                        builder.end();
                        Ok(())
                    })
                    .map(Some)
                })
            })],
        ),
    ]
}

fn build_objects(call: &Call<'_>) -> Result<ArrayRef> {
    if !call.args.len().is_multiple_of(2) {
        return Err(raise(invalid_parameter(
            "argument list must have even number of elements",
        )));
    }
    let columns = call
        .args
        .iter()
        .map(|array| JsonColumn::new(array, call.zone))
        .collect::<Result<Vec<_>>>()?;
    map_rows(call, |row| {
        build(|builder| {
            builder.begin_object();
            let mut pairs = columns.iter();
            while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
                builder.key(&key.key(row)?);
                value.append(row, builder)?;
            }
            builder.end();
            Ok(())
        })
        .map(Some)
    })
}

/// A document made by `f`.
pub(crate) fn build(f: impl FnOnce(&mut JsonbBuilder) -> EvalResult<()>) -> EvalResult<JsonBuf> {
    let mut builder = JsonbBuilder::new();
    f(&mut builder)?;
    edited(builder.finish())
}

/// A timestamp as JSON has it: `T` before the time, and the zone with its minutes.
fn iso_8601(text: &str) -> String {
    let (moment, era) = match text.strip_suffix(" BC") {
        Some(moment) => (moment, " BC"),
        None => (text, ""),
    };
    let Some((date, clock)) = moment.split_once(' ') else {
        return text.to_owned();
    };
    let hours_only = clock
        .find(['+', '-'])
        .is_some_and(|sign| !clock.get(sign..).unwrap_or_default().contains(':'));
    let minutes = if hours_only { ":00" } else { "" };
    format!("{date}T{clock}{minutes}{era}")
}

/// A column whose values become JSON as `to_jsonb` makes them.
pub(crate) enum JsonColumn<'a> {
    /// All NULL.
    Null,
    Bool(&'a BooleanArray),
    Json(&'a LargeBinaryArray),
    List(&'a ListArray, Box<JsonColumn<'a>>),
    /// Numbers: JSON numbers if finite.
    Number(ColumnFormatter<'a>),
    /// Timestamps: ISO 8601 strings.
    Timestamp(ColumnFormatter<'a>),
    /// Anything else: a string.
    Text(ColumnFormatter<'a>),
}

impl<'a> JsonColumn<'a> {
    /// Prepares a column.
    ///
    /// # Errors
    /// If no SQL type has the array's type.
    pub(crate) fn new(array: &'a ArrayRef, zone: &TimeZone) -> Result<Self> {
        let sql_type =
            SqlType::from_arrow(array.data_type()).map_err(|error| raise(failed(error)))?;
        let formatter = || {
            ColumnFormatter::new(array.as_ref(), &sql_type)
                .map(|formatter| formatter.with_time_zone(zone.clone()))
                .map_err(|error| raise(failed(error)))
        };
        Ok(match array.data_type() {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::LargeBinary => Self::Json(array.as_binary::<i64>()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Self::List(list, Box::new(Self::new(list.values(), zone)?))
            }
            data_type if data_type.is_numeric() => Self::Number(formatter()?),
            DataType::Timestamp(..) => Self::Timestamp(formatter()?),
            _ => Self::Text(formatter()?),
        })
    }

    /// The text of a formatted cell; `None` for NULL.
    fn cell(formatter: &ColumnFormatter<'_>, row: usize) -> EvalResult<Option<String>> {
        let mut text = String::new();
        Ok(formatter
            .write_text(row, &mut text)
            .map_err(failed)?
            .then_some(text))
    }

    /// Appends the value at `row`; NULL becomes JSON null.
    ///
    /// # Errors
    /// If the value cannot be formatted.
    pub(crate) fn append(&self, row: usize, builder: &mut JsonbBuilder) -> EvalResult<()> {
        match self {
            Self::Bool(values) if values.is_valid(row) => {
                builder.bool(values.value(row));
            }
            Self::Json(values) if values.is_valid(row) => {
                builder.value(Jsonb::from_canonical(values.value(row)));
            }
            Self::List(list, items) if list.is_valid(row) => {
                let offsets = list.value_offsets();
                let bound = |index: usize| {
                    offsets
                        .get(index)
                        .and_then(|offset| usize::try_from(*offset).ok())
                        .unwrap_or(0)
                };
                builder.begin_array();
                for item in bound(row)..bound(row + 1) {
                    items.append(item, builder)?;
                }
                builder.end();
            }
            Self::Null | Self::Bool(_) | Self::Json(_) | Self::List(..) => {
                builder.null();
            }
            Self::Number(formatter) => match Self::cell(formatter, row)? {
                Some(text) if text.ends_with(|last: char| last.is_ascii_digit()) => {
                    builder.number(&text);
                }
                Some(text) => {
                    builder.string(&text);
                }
                None => {
                    builder.null();
                }
            },
            Self::Timestamp(formatter) => match Self::cell(formatter, row)? {
                Some(text) => {
                    builder.string(&iso_8601(&text));
                }
                None => {
                    builder.null();
                }
            },
            Self::Text(formatter) => match Self::cell(formatter, row)? {
                Some(text) => {
                    builder.string(&text);
                }
                None => {
                    builder.null();
                }
            },
        }
        Ok(())
    }

    /// The value at `row` as an object key.
    ///
    /// # Errors
    /// For NULL, and for documents and arrays.
    pub(crate) fn key(&self, row: usize) -> EvalResult<String> {
        let absent = || {
            EvalError::new(
                EvalErrorKind::InvalidParameter,
                "argument 1: key must not be null",
            )
        };
        match self {
            Self::Bool(values) if values.is_valid(row) => Ok(values.value(row).to_string()),
            Self::Timestamp(formatter) => Self::cell(formatter, row)?
                .map(|text| iso_8601(&text))
                .ok_or_else(absent),
            Self::Number(formatter) | Self::Text(formatter) => {
                Self::cell(formatter, row)?.ok_or_else(absent)
            }
            Self::Json(_) | Self::List(..) => Err(invalid_parameter(
                "key value must be scalar, not array, composite, or json",
            )),
            Self::Null | Self::Bool(_) => Err(absent()),
        }
    }
}
