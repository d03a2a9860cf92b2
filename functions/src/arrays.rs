//! Functions of arrays whose result or NULL rules differ from DataFusion's: lengths are `integer`, an empty array has none, subscripts count
//! from 1 and give NULL outside, NULL is an item like others to what looks for items, and an array of nothing to what adds some.

mod shape;

use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, UInt32Builder};
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int32Array, Int64Array, ListArray, StructArray, UInt32Array};
use arrow_buffer::OffsetBuffer;
use arrow_ord::ord::make_comparator;
use arrow_schema::{DataType, Field, SortOptions};
use arrow_select::concat::concat;
use arrow_select::take::take;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::SqlType;

use crate::cast::{any_to_text, convert, vector_to_list};
use crate::errors::{
    EvalResult, data_error, from_type_error, internal, not_supported, null_not_allowed,
    out_of_range, raise,
};
use crate::growth::allowed;
use crate::udf::{Call, P, R, function, lists, map_rows, overload, primitive, texts};

fn int4() -> R {
    R::Sql(SqlType::Int4)
}

fn text() -> R {
    R::Sql(SqlType::Text)
}

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let mut functions = shape::functions();
    functions.extend(items());
    functions
}

fn items() -> Vec<ScalarUDF> {
    vec![
        function(
            "array_length",
            vec![overload(&[P::List, P::Int4], int4(), |call| {
                dimension(call, |length| (length > 0).then_some(length))
            })],
        ),
        function(
            "array_upper",
            vec![
                overload(&[P::List, P::Int4], int4(), |call| {
                    dimension(call, |length| (length > 0).then_some(length))
                }),
                overload(&[P::Vector, P::Int4], int4(), |call| {
                    of_vector(call, |call| {
                        dimension(call, |length| (length > 0).then_some(length - 1))
                    })
                }),
            ],
        ),
        function(
            "array_lower",
            vec![
                overload(&[P::List, P::Int4], int4(), |call| {
                    dimension(call, |length| (length > 0).then_some(1))
                }),
                overload(&[P::Vector, P::Int4], int4(), |call| {
                    of_vector(call, |call| {
                        dimension(call, |length| (length > 0).then_some(0))
                    })
                }),
            ],
        ),
        function(
            "cardinality",
            vec![overload(&[P::List], int4(), |call| {
                let list = lists(call.arg(0)?)?;
                map_rows(call, |row| {
                    if list.is_null(row) {
                        Ok(None)
                    } else {
                        leaves(&list.value(row)).map(Some)
                    }
                })
            })],
        ),
        function(
            "array_append",
            vec![overload(&[P::List, P::Any], R::Same(0), |call| {
                with_item(call, 0, 1, End::Last)
            })],
        ),
        function(
            "array_prepend",
            vec![overload(&[P::Any, P::List], R::Same(1), |call| {
                with_item(call, 1, 0, End::First)
            })],
        ),
        function(
            "array_cat",
            vec![overload(&[P::List, P::List], R::Same(0), concatenated)],
        ),
        function(
            "array_remove",
            vec![overload(&[P::List, P::Any], R::Same(0), without_item)],
        ),
        function(
            "array_replace",
            vec![overload(&[P::List, P::Any, P::Any], R::Same(0), replaced)],
        ),
        function(
            "array_positions",
            vec![overload(&[P::List, P::Any], R::Fn(int4_list), positions)],
        ),
        function(
            "array_position",
            vec![
                overload(&[P::List, P::Any], int4(), |call| {
                    position(call, |_| Some(1))
                }),
                overload(&[P::List, P::Any, P::Int4], int4(), |call| {
                    let starts = primitive::<Int32Type>(call.arg(2)?)?;
                    let list = lists(call.arg(0)?)?;
                    if (0..call.rows).any(|row| list.is_valid(row) && starts.is_null(row)) {
                        return Err(raise(null_not_allowed("initial position must not be null")));
                    }
                    position(call, |row| starts.is_valid(row).then(|| starts.value(row)))
                }),
            ],
        ),
        function(
            "array_eq_any",
            vec![overload(
                &[P::List, P::Any],
                R::Sql(SqlType::Bool),
                equals_any,
            )],
        ),
        function(
            "array_holds_all",
            vec![overload(
                &[P::List, P::List],
                R::Sql(SqlType::Bool),
                |call| holds(call, Sought::All),
            )],
        ),
        function(
            "array_holds_any",
            vec![overload(
                &[P::List, P::List],
                R::Sql(SqlType::Bool),
                |call| holds(call, Sought::Any),
            )],
        ),
        function(
            "array_to_string",
            vec![
                overload(&[P::List, P::Text], text(), |call| join(call, |_| None)),
                overload(&[P::List, P::Text, P::Text], text(), |call| {
                    let nulls = texts(call.arg(2)?)?;
                    join(call, |row| nulls.is_valid(row).then(|| nulls.value(row)))
                }),
            ],
        ),
        function(
            "array_subscript",
            vec![
                overload(&[P::List, P::Int8], R::Item(0), |call| subscript(call, 1)),
                overload(&[P::Vector, P::Int8], R::Item(0), |call| {
                    of_vector(call, |call| subscript(call, 0))
                }),
            ],
        ),
        function(
            "array_slice_range",
            vec![overload(&[P::List, P::Int8, P::Int8], R::Same(0), slice)],
        ),
        function(
            "generate_subscripts",
            vec![
                overload(&[P::List, P::Int4], R::Fn(int4_list), |call| {
                    subscripts(call, false, 1)
                }),
                overload(&[P::Vector, P::Int4], R::Fn(int4_list), |call| {
                    of_vector(call, |call| subscripts(call, false, 0))
                }),
                overload(&[P::List, P::Int4, P::Any], R::Fn(int4_list), |call| {
                    let reverse = crate::cast::booleans(call.arg(2)?)?;
                    subscripts(call, reverse.iter().next().flatten().unwrap_or(false), 1)
                }),
            ],
        ),
        // The numbers of the items of an array, whatever its subscripts are.
        function(
            "array_ordinals",
            vec![
                overload(&[P::List], R::Fn(int8_list), ordinals),
                overload(&[P::Vector], R::Fn(int8_list), |call| {
                    of_vector(call, ordinals)
                }),
            ],
        ),
        // The items of an array with their subscripts, as records of `x` and `n`.
        function(
            "_pg_expandarray",
            vec![overload(&[P::List], R::Fn(numbered_items), |call| {
                let list = lists(call.arg(0)?)?;
                let numbers: Vec<i32> = (0..list.len())
                    .flat_map(|row| 1..=list.value_length(row))
                    .collect();
                let DataType::List(record) = call.returns else {
                    return Err(raise(internal("numbered items are a list")));
                };
                let DataType::Struct(fields) = record.data_type() else {
                    return Err(raise(internal("numbered items are records")));
                };
                let first = list.value_offsets().first().copied().unwrap_or(0);
                let items = usize::try_from(first)
                    .map(|first| list.values().slice(first, numbers.len()))
                    .map_err(|_| raise(internal("a negative offset")))?;
                let records = StructArray::try_new(
                    fields.clone(),
                    vec![items, Arc::new(Int32Array::from(numbers))],
                    None,
                )?;
                let lengths =
                    (0..list.len()).map(|row| usize::try_from(list.value_length(row)).unwrap_or(0));
                let present = (0..list.len()).map(|row| list.is_valid(row));
                list_of(
                    call.returns,
                    Arc::new(records),
                    lengths.collect(),
                    present.collect(),
                )
            })],
        ),
        function(
            "array_fill",
            vec![
                overload(&[P::Any, P::List], R::Fn(list_of_first), fill),
                overload(&[P::Any, P::List, P::List], R::Fn(list_of_first), |call| {
                    check_bounds(lists(call.arg(2)?)?)?;
                    fill(call)
                }),
            ],
        ),
    ]
}

fn list_of_first(types: &[DataType]) -> Result<DataType> {
    match types.first() {
        Some(item) => Ok(DataType::List(Arc::new(Field::new(
            "item",
            item.clone(),
            true,
        )))),
        None => Err(raise(internal("array_fill takes two arguments"))),
    }
}

fn int4_list(_: &[DataType]) -> Result<DataType> {
    Ok(SqlType::Array(Box::new(SqlType::Int4)).to_arrow())
}

fn int8_list(_: &[DataType]) -> Result<DataType> {
    Ok(SqlType::Array(Box::new(SqlType::Int8)).to_arrow())
}

fn ordinals(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let length = |row: usize| i64::from(list.value_length(row));
    let numbers = (0..list.len()).flat_map(|row| 1..=length(row));
    list_of(
        call.returns,
        Arc::new(Int64Array::from_iter_values(numbers)),
        (0..list.len())
            .map(|row| usize::try_from(length(row)).unwrap_or(0))
            .collect(),
        (0..list.len()).map(|row| list.is_valid(row)).collect(),
    )
}

fn numbered_items(types: &[DataType]) -> Result<DataType> {
    let Some(DataType::List(item)) = types.first() else {
        return Err(raise(internal("an expanded value is not a list")));
    };
    let fields = vec![
        item.as_ref().clone().with_name("x").with_nullable(true),
        SqlType::Int4.to_field("n", true),
    ];
    let record = DataType::Struct(fields.into());
    Ok(DataType::List(Arc::new(Field::new("item", record, true))))
}

/// The subscripts of arrays in one dimension, from `first` on or from the last one down.
fn subscripts(call: &Call<'_>, reverse: bool, first: i32) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let dimensions = primitive::<Int32Type>(call.arg(1)?)?;
    let mut numbers = Vec::new();
    let (mut lengths, mut present) = (Vec::with_capacity(call.rows), Vec::with_capacity(call.rows));
    for row in 0..call.rows {
        let valid = list.is_valid(row) && dimensions.is_valid(row);
        let length = if valid {
            length_in(&list.value(row), dimensions.value(row)).map_err(raise)?
        } else {
            None
        };
        let length = length.unwrap_or(0);
        if reverse {
            numbers.extend((first..first + length).rev());
        } else {
            numbers.extend(first..first + length);
        }
        lengths.push(usize::try_from(length).unwrap_or(0));
        present.push(valid);
    }
    list_of(
        call.returns,
        Arc::new(Int32Array::from(numbers)),
        lengths,
        present,
    )
}

fn to_int4(length: usize) -> EvalResult<i32> {
    i32::try_from(length).map_err(|_| out_of_range("integer"))
}

/// The length of `items` in dimension `depth` below it, from 1.
fn length_in(items: &ArrayRef, depth: i32) -> EvalResult<Option<i32>> {
    if depth < 1 {
        return Ok(None);
    }
    if depth == 1 {
        return to_int4(items.len()).map(Some);
    }
    match lists(items) {
        Ok(inner) if !inner.is_empty() && inner.is_valid(0) => {
            length_in(&inner.value(0), depth - 1)
        }
        _ => Ok(None),
    }
}

fn dimension(call: &Call<'_>, f: impl Fn(i32) -> Option<i32>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let depths = primitive::<Int32Type>(call.arg(1)?)?;
    map_rows(call, |row| {
        if list.is_null(row) || depths.is_null(row) {
            return Ok(None);
        }
        Ok(length_in(&list.value(row), depths.value(row))?.and_then(&f))
    })
}

/// Number of items over all dimensions.
fn leaves(items: &ArrayRef) -> EvalResult<i32> {
    match lists(items) {
        Ok(inner) => {
            inner
                .iter()
                .flatten()
                .map(|inner| leaves(&inner))
                .try_fold(0_i32, |sum, count| {
                    sum.checked_add(count?)
                        .ok_or_else(|| out_of_range("integer"))
                })
        }
        Err(_) => to_int4(items.len()),
    }
}

/// The items of the array in `row`, by their places in the values of `list`; none of NULL.
fn places(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    let bound = |index: usize| {
        list.value_offsets()
            .get(index)
            .and_then(|offset| usize::try_from(*offset).ok())
            .unwrap_or(0)
    };
    if list.is_null(row) {
        return 0..0;
    }
    bound(row)..bound(row + 1)
}

/// Arrays of items that are taken from `values`.
struct Taken {
    places: UInt32Builder,
    lengths: Vec<usize>,
    present: Vec<bool>,
}

impl Taken {
    fn new(rows: usize) -> Self {
        Self {
            places: UInt32Builder::new(),
            lengths: Vec::with_capacity(rows),
            present: Vec::with_capacity(rows),
        }
    }

    /// The array of the next row.
    fn push(&mut self, present: bool, places: impl IntoIterator<Item = usize>) {
        let before = self.places.len();
        for place in places {
            self.places.append_option(u32::try_from(place).ok());
        }
        self.lengths.push(self.places.len() - before);
        self.present.push(present);
    }

    fn finish(mut self, list: &DataType, values: &ArrayRef) -> Result<ArrayRef> {
        let taken = take(values, &self.places.finish(), None)?;
        list_of(list, taken, self.lengths, self.present)
    }
}

/// The items of arrays, and behind them the values of another argument.
fn with_values(list: &ListArray, others: &ArrayRef) -> Result<ArrayRef> {
    let others = convert(others, list.values().data_type())?;
    let bytes = |array: &ArrayRef| {
        array
            .to_data()
            .get_slice_memory_size()
            .unwrap_or(usize::MAX)
    };
    allowed(bytes(list.values()).saturating_add(bytes(&others)))?;
    Ok(concat(&[list.values().as_ref(), others.as_ref()])?)
}

/// Where an item is added.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// Arrays, which are arguments number `list`, with the values of argument `item`. NULL is an array of nothing.
fn with_item(call: &Call<'_>, list: usize, item: usize, end: End) -> Result<ArrayRef> {
    let list = lists(call.arg(list)?)?;
    let values = with_values(list, call.arg(item)?)?;
    let first_item = list.values().len();
    let mut taken = Taken::new(call.rows);
    for row in 0..call.rows {
        let item = std::iter::once(first_item + row);
        match end {
            End::First => taken.push(true, item.chain(places(list, row))),
            End::Last => taken.push(true, places(list, row).chain(item)),
        }
    }
    taken.finish(call.returns, &values)
}

/// Two arrays as one. One that is NULL is an array of nothing beside the other.
fn concatenated(call: &Call<'_>) -> Result<ArrayRef> {
    let left = lists(call.arg(0)?)?;
    let right = convert(call.arg(1)?, left.data_type())?;
    let right = lists(&right)?;
    let values = with_values(left, right.values())?;
    let first_right = left.values().len();
    let mut taken = Taken::new(call.rows);
    for row in 0..call.rows {
        let behind = places(right, row).map(|place| first_right + place);
        let present = left.is_valid(row) || right.is_valid(row);
        taken.push(present, places(left, row).chain(behind));
    }
    taken.finish(call.returns, &values)
}

/// Arrays without the items that are not distinct from a value.
fn without_item(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let unwanted = convert(call.arg(1)?, list.values().data_type())?;
    let compare = make_comparator(list.values(), &unwanted, SortOptions::default())?;
    let mut taken = Taken::new(call.rows);
    for row in 0..call.rows {
        let kept = places(list, row).filter(|place| compare(*place, row).is_ne());
        taken.push(list.is_valid(row), kept);
    }
    taken.finish(call.returns, list.values())
}

/// Arrays with a value in place of the items that are not distinct from another one.
fn replaced(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let unwanted = convert(call.arg(1)?, list.values().data_type())?;
    let values = with_values(list, call.arg(2)?)?;
    let first_new = list.values().len();
    let compare = make_comparator(list.values(), &unwanted, SortOptions::default())?;
    let mut taken = Taken::new(call.rows);
    for row in 0..call.rows {
        let items = places(list, row).map(|place| {
            if compare(place, row).is_eq() {
                first_new + row
            } else {
                place
            }
        });
        taken.push(list.is_valid(row), items);
    }
    taken.finish(call.returns, &values)
}

/// The positions of the items that are not distinct from a value.
fn positions(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let wanted = convert(call.arg(1)?, list.values().data_type())?;
    let compare = make_comparator(list.values(), &wanted, SortOptions::default())?;
    let mut numbers: Vec<i32> = Vec::new();
    let (mut lengths, mut present) = (Vec::with_capacity(call.rows), Vec::with_capacity(call.rows));
    for row in 0..call.rows {
        let before = numbers.len();
        for (place, number) in places(list, row).zip(1..) {
            if compare(place, row).is_eq() {
                numbers.push(number);
            }
        }
        lengths.push(numbers.len() - before);
        present.push(list.is_valid(row));
    }
    list_of(
        call.returns,
        Arc::new(Int32Array::from(numbers)),
        lengths,
        present,
    )
}

fn position(call: &Call<'_>, start: impl Fn(usize) -> Option<i32>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let wanted = convert(call.arg(1)?, list.values().data_type())?;
    let compare = make_comparator(list.values(), &wanted, SortOptions::default())?;
    let offsets = list.value_offsets();
    let bound = |index: usize| {
        offsets
            .get(index)
            .and_then(|offset| usize::try_from(*offset).ok())
            .unwrap_or(0)
    };
    map_rows(call, |row| {
        let Some(start) = start(row).filter(|_| list.is_valid(row)) else {
            return Ok(None);
        };
        let skip = usize::try_from(start - 1).unwrap_or(0);
        let first = bound(row);
        let found =
            (first.saturating_add(skip)..bound(row + 1)).find(|item| compare(*item, row).is_eq());
        found.map(|item| to_int4(item - first + 1)).transpose()
    })
}

/// `value = ANY (array)`: NULL if no item is equal and the value or an item is NULL.
fn equals_any(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let items = list.values();
    let wanted = convert(call.arg(1)?, items.data_type())?;
    let compare = make_comparator(items, &wanted, SortOptions::default())?;
    let offsets = list.value_offsets();
    let bound = |index: usize| {
        offsets
            .get(index)
            .and_then(|offset| usize::try_from(*offset).ok())
            .unwrap_or(0)
    };
    map_rows(call, |row| {
        if list.is_null(row) {
            return Ok(None);
        }
        let (first, end) = (bound(row), bound(row + 1));
        if wanted.is_null(row) {
            return Ok((first == end).then_some(false));
        }
        if (first..end).any(|item| compare(item, row).is_eq()) {
            return Ok(Some(true));
        }
        Ok((!(first..end).any(|item| items.is_null(item))).then_some(false))
    })
}

/// How many of the items that are looked for must be there.
#[derive(Clone, Copy)]
enum Sought {
    All,
    Any,
}

/// Whether arrays hold the items of others. NULL is equal to no item.
fn holds(call: &Call<'_>, sought: Sought) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let others = convert(call.arg(1)?, list.data_type())?;
    let others = lists(&others)?;
    let (items, wanted) = (list.values(), others.values());
    let compare = make_comparator(items, wanted, SortOptions::default())?;
    map_rows(call, |row| {
        if list.is_null(row) || others.is_null(row) {
            return Ok(None);
        }
        let is_held = |other: usize| {
            wanted.is_valid(other)
                && places(list, row)
                    .any(|item| items.is_valid(item) && compare(item, other).is_eq())
        };
        let mut looked_for = places(others, row);
        Ok(Some(match sought {
            Sought::All => looked_for.all(is_held),
            Sought::Any => looked_for.any(is_held),
        }))
    })
}

fn join<'a>(call: &Call<'a>, null: impl Fn(usize) -> Option<&'a str>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let delimiters = texts(call.arg(1)?)?;
    if matches!(list.values().data_type(), DataType::List(_)) {
        return Err(raise(data_error(
            "array_to_string of nested arrays is not supported",
        )));
    }
    let sql_type = SqlType::from_arrow(list.values().data_type())
        .map_err(|error| raise(from_type_error(&error)))?;
    let shown = any_to_text(list.values(), &sql_type, call.zone)?;
    let shown = texts(&shown)?;
    let offsets = list.value_offsets();
    let bound = |index: usize| {
        offsets
            .get(index)
            .and_then(|offset| usize::try_from(*offset).ok())
            .unwrap_or(0)
    };
    map_rows(call, |row| {
        if list.is_null(row) || delimiters.is_null(row) {
            return Ok(None);
        }
        let absent = null(row);
        let parts: Vec<&str> = (bound(row)..bound(row + 1))
            .filter_map(|item| {
                if shown.is_null(item) {
                    absent
                } else {
                    Some(shown.value(item))
                }
            })
            .collect();
        crate::text::joined(&parts, delimiters.value(row)).map(Some)
    })
}

/// Runs a kernel of arrays on a call whose first argument is a vector.
fn of_vector(call: &Call<'_>, kernel: impl Fn(&Call<'_>) -> Result<ArrayRef>) -> Result<ArrayRef> {
    let mut args = call.args.to_vec();
    if let Some(first) = args.first_mut() {
        *first = vector_to_list(first)?;
    }
    kernel(&Call {
        args: &args,
        rows: call.rows,
        returns: call.returns,
        zone: call.zone,
    })
}

/// `list[subscript]`, where the first item has the number `first`.
fn subscript(call: &Call<'_>, first: i64) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let subscripts = primitive::<Int64Type>(call.arg(1)?)?;
    let offsets = list.value_offsets();
    let mut indices = UInt32Builder::with_capacity(call.rows);
    for row in 0..call.rows {
        let bounds = (
            offsets.get(row).copied().map_or(0, i64::from),
            offsets.get(row + 1).copied().map_or(0, i64::from),
        );
        let index = if list.is_valid(row) && subscripts.is_valid(row) {
            subscripts.value(row).saturating_add(1 - first)
        } else {
            0
        };
        let inside = index >= 1 && index <= bounds.1 - bounds.0;
        indices.append_option(if inside {
            u32::try_from(bounds.0 + index - 1).ok()
        } else {
            None
        });
    }
    Ok(take(list.values(), &indices.finish(), None)?)
}

fn slice(call: &Call<'_>) -> Result<ArrayRef> {
    let list = lists(call.arg(0)?)?;
    let (starts, stops) = (
        primitive::<Int64Type>(call.arg(1)?)?,
        primitive::<Int64Type>(call.arg(2)?)?,
    );
    let offsets = list.value_offsets();
    let mut indices = UInt32Builder::new();
    let mut lengths = Vec::with_capacity(call.rows);
    let mut present = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let (first, last) = (
            offsets.get(row).copied().map_or(0, i64::from),
            offsets.get(row + 1).copied().map_or(0, i64::from),
        );
        let valid = list.is_valid(row) && starts.is_valid(row) && stops.is_valid(row);
        present.push(valid);
        let mut length = 0;
        if valid {
            let start = starts.value(row).max(1);
            let stop = stops.value(row).min(last - first);
            for index in start..=stop {
                indices.append_option(u32::try_from(first + index - 1).ok());
                length += 1;
            }
        }
        lengths.push(length);
    }
    list_of(
        call.returns,
        take(list.values(), &indices.finish(), None)?,
        lengths,
        present,
    )
}

fn list_of(
    list: &DataType,
    values: ArrayRef,
    lengths: Vec<usize>,
    present: Vec<bool>,
) -> Result<ArrayRef> {
    let DataType::List(item) = list else {
        return Err(raise(internal(format!("list declared as {list}"))));
    };
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(item),
        OffsetBuffer::from_lengths(lengths),
        values,
        Some(present.into()),
    )?))
}

/// Most items of an array.
const ITEMS_MAX: usize = 134_217_727;

fn too_many_items() -> flowstone_types::EvalError {
    flowstone_types::EvalError::new(
        flowstone_types::EvalErrorKind::TooLarge,
        format!("array size exceeds the maximum allowed ({ITEMS_MAX})"),
    )
}

/// What the value of a row takes.
fn item_bytes(values: &ArrayRef, row: usize) -> usize {
    values
        .slice(row, 1)
        .to_data()
        .get_slice_memory_size()
        .unwrap_or(usize::MAX)
}

/// Arrays here begin at 1: any other lower bound would make subscripts find other items.
fn check_bounds(bounds: &ListArray) -> Result<()> {
    for row in 0..bounds.len() {
        if bounds.is_valid(row) {
            let bounds = convert(&bounds.value(row), &DataType::Int64)?;
            let bounds = primitive::<Int64Type>(&bounds)?;
            if let Some(bound) = bounds.iter().flatten().find(|bound| *bound != 1) {
                return Err(raise(not_supported(format!(
                    "arrays with the lower bound {bound} are not supported"
                ))));
            }
        }
    }
    Ok(())
}

fn fill(call: &Call<'_>) -> Result<ArrayRef> {
    let values = call.arg(0)?;
    let dimensions = lists(call.arg(1)?)?;
    let mut indices: Vec<u32> = Vec::new();
    let (mut lengths, mut present) = (Vec::with_capacity(call.rows), Vec::with_capacity(call.rows));
    for row in 0..call.rows {
        if dimensions.is_null(row) {
            let message = "dimension array or low bound array cannot be null";
            return Err(raise(null_not_allowed(message)));
        }
        let sizes = convert(&dimensions.value(row), &DataType::Int64)?;
        let sizes = primitive::<Int64Type>(&sizes)?;
        if sizes.null_count() > 0 {
            return Err(raise(null_not_allowed("dimension values cannot be null")));
        }
        if sizes.len() > 1 {
            return Err(raise(not_supported(
                "array_fill makes arrays of one dimension",
            )));
        }
        let size = sizes.iter().flatten().next().unwrap_or(0);
        let length = usize::try_from(size)
            .ok()
            .filter(|size| *size <= ITEMS_MAX)
            .ok_or_else(|| raise(too_many_items()))?;
        allowed(length.saturating_mul(size_of::<u32>() + item_bytes(values, row)))?;
        let index = u32::try_from(row).map_err(|_| raise(too_many_items()))?;
        indices.resize(indices.len() + length, index);
        present.push(true);
        lengths.push(length);
    }
    list_of(
        call.returns,
        take(values, &UInt32Array::from(indices), None)?,
        lengths,
        present,
    )
}
