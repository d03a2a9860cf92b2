//! Set-returning functions of jsonb as functions to arrays: the planner unnests them.
//!
//! Owns which parts of a document are rows. What has two columns in FROM is an array for each of them, and an array of records elsewhere.

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, LargeBinaryBuilder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::jsonb::{Jsonb, JsonbKind};
use flowstone_types::{SqlType, budget};

use super::{documents, shown};
use crate::errors::{EvalResult, invalid_parameter, raise};
use crate::growth::Growth;
use crate::udf::{Call, P, R, broken, function, overload};

/// What an item of a list takes beside its bytes.
const ITEM_BYTES: usize = size_of::<i64>();

fn list_of(item: SqlType) -> R {
    R::Sql(SqlType::Array(Box::new(item)))
}

/// The type of an array of documents.
pub(crate) fn json_list() -> R {
    list_of(SqlType::Jsonb)
}

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let documents_of =
        |name, kernel| function(name, vec![overload(&[P::Jsonb], json_list(), kernel)]);
    let texts_of = |name, kernel| {
        function(
            name,
            vec![overload(&[P::Jsonb], list_of(SqlType::Text), kernel)],
        )
    };
    let records_of =
        |name, returns, kernel| function(name, vec![overload(&[P::Jsonb], R::Fn(returns), kernel)]);
    vec![
        documents_of("jsonb_array_elements_list", |call| {
            json_lists(call, |value, rows| {
                array_items(value)?.try_for_each(|item| rows.document(item))
            })
        }),
        texts_of("jsonb_array_elements_text_list", |call| {
            text_lists(call, |value, rows| {
                array_items(value)?.try_for_each(|item| rows.shown(item))
            })
        }),
        texts_of("jsonb_object_keys_list", |call| {
            text_lists(call, |value, rows| match value.kind() {
                JsonbKind::Object => value.entries().try_for_each(|(key, _)| rows.text(key)),
                JsonbKind::Array => Err(invalid_parameter(
                    "cannot call jsonb_object_keys on an array",
                )),
                _ => Err(invalid_parameter(
                    "cannot call jsonb_object_keys on a scalar",
                )),
            })
        }),
        texts_of("jsonb_each_keys", |call| keys(call, "jsonb_each")),
        texts_of("jsonb_each_text_keys", |call| keys(call, "jsonb_each_text")),
        documents_of("jsonb_each_values", json_values),
        texts_of("jsonb_each_text_values", text_values),
        records_of(
            "jsonb_each_rows",
            |_| Ok(record_list(SqlType::Jsonb)),
            |call| records(call, &keys(call, "jsonb_each")?, &json_values(call)?),
        ),
        records_of(
            "jsonb_each_text_rows",
            |_| Ok(record_list(SqlType::Text)),
            |call| records(call, &keys(call, "jsonb_each_text")?, &text_values(call)?),
        ),
    ]
}

/// The items of a list that is being made.
pub(crate) struct Rows<'b, B> {
    items: &'b mut B,
    growth: &'b mut Growth,
}

impl Rows<'_, LargeBinaryBuilder> {
    /// Adds a document.
    pub(crate) fn document(&mut self, value: Jsonb<'_>) -> EvalResult<()> {
        let document = value.to_buf();
        self.growth.add(document.as_bytes().len() + ITEM_BYTES)?;
        self.items.append_value(document.as_bytes());
        Ok(())
    }
}

impl Rows<'_, StringBuilder> {
    fn text(&mut self, text: &str) -> EvalResult<()> {
        self.growth.add(text.len() + ITEM_BYTES)?;
        self.items.append_value(text);
        Ok(())
    }

    fn shown(&mut self, value: Jsonb<'_>) -> EvalResult<()> {
        let text = shown(Some(value));
        self.growth
            .add(text.as_ref().map_or(0, String::len) + ITEM_BYTES)?;
        self.items.append_option(text);
        Ok(())
    }
}

/// The field of the items of an array.
fn item_of(item: SqlType) -> Result<FieldRef> {
    match SqlType::Array(Box::new(item)).to_arrow() {
        DataType::List(item) => Ok(item),
        other => Err(broken(&format!("an array is {other}"))),
    }
}

/// A list for each row: what `append` gives, or NULL where it says so.
pub(super) fn lists_of<B: ArrayBuilder>(
    call: &Call<'_>,
    items: B,
    item: FieldRef,
    mut append: impl FnMut(usize, &mut Rows<'_, B>) -> EvalResult<bool>,
) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(items).with_field(item);
    let mut growth = Growth::default();
    for row in 0..call.rows {
        let mut rows = Rows {
            items: builder.values(),
            growth: &mut growth,
        };
        let is_valid = budget::check()
            .map_err(Into::into)
            .and_then(|()| append(row, &mut rows))
            .map_err(raise)?;
        builder.append(is_valid);
    }
    Ok(Arc::new(builder.finish()))
}

/// A list of documents for each row.
pub(crate) fn document_lists(
    call: &Call<'_>,
    append: impl FnMut(usize, &mut Rows<'_, LargeBinaryBuilder>) -> EvalResult<bool>,
) -> Result<ArrayRef> {
    let item = item_of(SqlType::Jsonb)?;
    lists_of(call, LargeBinaryBuilder::new(), item, append)
}

fn json_lists(
    call: &Call<'_>,
    append: impl Fn(Jsonb<'_>, &mut Rows<'_, LargeBinaryBuilder>) -> EvalResult<()>,
) -> Result<ArrayRef> {
    let documents = documents(call.arg(0)?)?;
    document_lists(call, |row, rows| {
        if documents.is_valid(row) {
            append(Jsonb::from_canonical(documents.value(row)), rows)?;
        }
        Ok(documents.is_valid(row))
    })
}

fn text_lists(
    call: &Call<'_>,
    append: impl Fn(Jsonb<'_>, &mut Rows<'_, StringBuilder>) -> EvalResult<()>,
) -> Result<ArrayRef> {
    let documents = documents(call.arg(0)?)?;
    let item = item_of(SqlType::Text)?;
    lists_of(call, StringBuilder::new(), item, |row, rows| {
        if documents.is_valid(row) {
            append(Jsonb::from_canonical(documents.value(row)), rows)?;
        }
        Ok(documents.is_valid(row))
    })
}

fn array_items(value: Jsonb<'_>) -> EvalResult<impl Iterator<Item = Jsonb<'_>>> {
    match value.kind() {
        JsonbKind::Array => Ok(value.items()),
        JsonbKind::Object => Err(invalid_parameter("cannot extract elements from an object")),
        _ => Err(invalid_parameter("cannot extract elements from a scalar")),
    }
}

/// The members of an object; `function` is what asks for them.
fn members<'a>(
    value: Jsonb<'a>,
    function: &str,
) -> EvalResult<impl Iterator<Item = (&'a str, Jsonb<'a>)>> {
    match value.kind() {
        JsonbKind::Object => Ok(value.entries()),
        _ => Err(invalid_parameter(format!(
            "cannot call {function} on a non-object"
        ))),
    }
}

fn keys(call: &Call<'_>, function: &str) -> Result<ArrayRef> {
    text_lists(call, |value, rows| {
        members(value, function)?.try_for_each(|(key, _)| rows.text(key))
    })
}

fn json_values(call: &Call<'_>) -> Result<ArrayRef> {
    json_lists(call, |value, rows| {
        members(value, "jsonb_each")?.try_for_each(|(_, item)| rows.document(item))
    })
}

fn text_values(call: &Call<'_>) -> Result<ArrayRef> {
    text_lists(call, |value, rows| {
        members(value, "jsonb_each_text")?.try_for_each(|(_, item)| rows.shown(item))
    })
}

/// Lists of records with a key and a value.
fn record_list(value: SqlType) -> DataType {
    let fields = vec![
        SqlType::Text.to_field("key", true),
        value.to_field("value", true),
    ];
    let record = DataType::Struct(fields.into());
    DataType::List(Arc::new(Field::new("item", record, true)))
}

/// Two lists of the same length for each row as one of records.
fn records(call: &Call<'_>, keys: &ArrayRef, values: &ArrayRef) -> Result<ArrayRef> {
    let DataType::List(record) = call.returns else {
        return Err(broken("records are no list"));
    };
    let DataType::Struct(fields) = record.data_type() else {
        return Err(broken("a record has no fields"));
    };
    let (keys, values) = (keys.as_list::<i32>(), values.as_list::<i32>());
    let columns = vec![Arc::clone(keys.values()), Arc::clone(values.values())];
    let items = StructArray::try_new(fields.clone(), columns, None)?;
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(record),
        keys.offsets().clone(),
        Arc::new(items),
        keys.nulls().cloned(),
    )?))
}
