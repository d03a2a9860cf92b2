//! An ordered index: the rows of each group by a sort key.
//!
//! Owns the keys of the rows in one tree: group, sort key (both as Arrow's row format normalises them, so that bytes compare as values do) and the place of the row.
//! Must not know rows or weights: keys are made of columns that it is given.
//!
//! Invariants. It holds every live row that its order takes in, up to where the index is built, and no dead one: whoever pops the extreme of a group again and
//! again never passes over what is gone. Of two groups neither's encoding begins with the other's, for each column's ends by itself: a group is what begins
//! with it. Rows of equal group and sort key come in the order of their places, which no result may depend on: an order that must be total ends with all columns.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{DataType, SchemaRef, SortOptions};
use flowstone_proto::plan::OrderColumn;

use super::RowId;
use crate::Error;
use crate::held::allocated;
use crate::partition::select;

/// Bytes of the place at the end of a key.
const PLACE: usize = size_of::<u64>();

/// Entries that a node of the tree has room for.
const NODE_ENTRIES: usize = 11;
/// What a leaf takes: a parent, two short numbers and the entries. Inner nodes have an edge more than entries besides.
const LEAF_BYTES: usize = allocated(size_of::<Box<[u8]>>() * NODE_ENTRIES + 2 * size_of::<usize>());
const INNER_BYTES: usize = LEAF_BYTES + size_of::<usize>() * (NODE_ENTRIES + 1);
/// Entries of a node on average, if there is more than one: two thirds of its room.
const NODE_FILL: usize = 7;

/// What the nodes of a tree of so many entries take.
const fn nodes_bytes(entries: usize) -> usize {
    match entries {
        0 => 0,
        1..=NODE_ENTRIES => LEAF_BYTES,
        _ => {
            let leaves = entries.div_ceil(NODE_FILL);
            leaves * LEAF_BYTES + leaves.div_ceil(NODE_FILL) * INNER_BYTES
        }
    }
}

/// Which rows an ordered index takes in, and how it orders them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Rows that agree in these columns are one group.
    pub(crate) group: Vec<usize>,
    pub(crate) by: Vec<OrderColumn>,
    /// Rows with NULL in this column are left out.
    pub(crate) present: Option<usize>,
    /// A boolean column: rows in which it is not true are left out.
    pub(crate) filter: Option<usize>,
}

impl Order {
    /// One in which no two rows of `width` columns are equal: by these columns, each once, then by all others but the group's.
    pub(crate) fn total(group: &[usize], by: &[OrderColumn], width: usize) -> Self {
        let others = (0..width).map(|column| OrderColumn {
            column,
            descending: false,
            nulls_first: true,
        });
        let mut total: Vec<OrderColumn> = Vec::with_capacity(width);
        for next in by.iter().copied().chain(others) {
            let known = total.iter().any(|column| column.column == next.column);
            if !known && !group.contains(&next.column) {
                total.push(next);
            }
        }
        Self {
            group: group.to_vec(),
            by: total,
            present: None,
            filter: None,
        }
    }

    /// One by the values of a column, of rows that have one and in which `filter` is true.
    pub(crate) fn of_values(group: &[usize], column: usize, filter: Option<usize>) -> Self {
        let by = OrderColumn {
            column,
            descending: false,
            nulls_first: false,
        };
        Self {
            group: group.to_vec(),
            by: vec![by],
            present: Some(column),
            filter,
        }
    }
}

/// Makes keys.
#[derive(Debug)]
struct Encoder {
    order: Order,
    /// `None` if there are no columns.
    group: Option<RowConverter>,
    by: Option<RowConverter>,
    by_columns: Vec<usize>,
}

impl Encoder {
    fn new(order: &Order, schema: &SchemaRef) -> Result<Self, Error> {
        let data_type = |column: usize| {
            let field = schema.fields().get(column);
            let field = field.ok_or_else(|| {
                Error::invariant(format!("column {column} of {}", schema.fields().len()))
            })?;
            Ok::<_, Error>(field.data_type().clone())
        };
        let mut group = Vec::with_capacity(order.group.len());
        for column in &order.group {
            group.push(SortField::new(data_type(*column)?));
        }
        let mut by = Vec::with_capacity(order.by.len());
        for column in &order.by {
            let options = SortOptions {
                descending: column.descending,
                nulls_first: column.nulls_first,
            };
            by.push(SortField::new_with_options(
                data_type(column.column)?,
                options,
            ));
        }
        if let Some(column) = order.present {
            data_type(column)?;
        }
        if let Some(column) = order.filter
            && data_type(column)? != DataType::Boolean
        {
            return Err(Error::invariant(format!("column {column} is no filter")));
        }
        Ok(Self {
            group: converter(group)?,
            by: converter(by)?,
            by_columns: order.by.iter().map(|column| column.column).collect(),
            order: order.clone(),
        })
    }

    /// The key of each row, with room for its place; `None` of rows that are left out.
    fn keys(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<Option<Box<[u8]>>>, Error> {
        let group = encode(self.group.as_ref(), columns, &self.order.group)?;
        let by = encode(self.by.as_ref(), columns, &self.by_columns)?;
        let column = |column: Option<usize>| column.and_then(|column| columns.get(column));
        let present = column(self.order.present).and_then(|column| column.logical_nulls());
        let filter = column(self.order.filter).map(|column| column.as_boolean());
        let keys = (0..rows).map(|row| {
            let taken = present.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if !taken {
                return None;
            }
            let (group, by) = (bytes_of(group.as_ref(), row), bytes_of(by.as_ref(), row));
            let mut key = Vec::with_capacity(group.len() + by.len() + PLACE);
            key.extend_from_slice(group);
            key.extend_from_slice(by);
            key.extend_from_slice(&[0; PLACE]);
            Some(key.into_boxed_slice())
        });
        Ok(keys.collect())
    }
}

fn converter(fields: Vec<SortField>) -> Result<Option<RowConverter>, Error> {
    if fields.is_empty() {
        return Ok(None);
    }
    Ok(Some(RowConverter::new(fields)?))
}

fn encode(
    converter: Option<&RowConverter>,
    columns: &[ArrayRef],
    numbers: &[usize],
) -> Result<Option<Rows>, Error> {
    let Some(converter) = converter else {
        return Ok(None);
    };
    Ok(Some(converter.convert_columns(&select(columns, numbers)?)?))
}

fn bytes_of(rows: Option<&Rows>, row: usize) -> &[u8] {
    rows.map_or(&[][..], |rows| rows.row(row).data())
}

/// Keys in order, each with the number of a row.
#[derive(Debug, Default)]
pub(super) struct Entries {
    keys: BTreeSet<Box<[u8]>>,
    /// Bytes that the keys take.
    heap: usize,
}

impl Entries {
    /// `key`: as an [`OrderedIndex`] makes it.
    pub(super) fn insert(&mut self, key: Box<[u8]>, row: u64) {
        let key = at(key, row);
        let bytes = allocated(key.len());
        if self.keys.insert(key) {
            self.heap += bytes;
        }
    }

    /// Nothing if it is not there.
    fn remove(&mut self, key: Box<[u8]>, row: u64) {
        let key = at(key, row);
        if self.keys.remove(&key) {
            self.heap -= allocated(key.len());
        }
    }

    /// The rows of one group, in order, with their encoded sort keys. Cost: O(log rows), and the rows that are looked at.
    pub(super) fn of_group<'a>(
        &'a self,
        group: &'a [u8],
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], u64)> {
        let end = successor(group);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.keys.range::<[u8], _>((Bound::Included(group), to));
        keys.filter_map(move |key| {
            let (key, row) = key.split_last_chunk::<PLACE>()?;
            Some((key.get(group.len()..)?, u64::from_be_bytes(*row)))
        })
    }
}

/// A key with the number of a row in its place.
fn at(mut key: Box<[u8]>, row: u64) -> Box<[u8]> {
    if let Some(place) = key.last_chunk_mut::<PLACE>() {
        *place = row.to_be_bytes();
    }
    key
}

/// The least bytes that are greater than all that begin with `prefix`; `None` if there are none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

/// One ordered index of a relation.
#[derive(Debug)]
pub(crate) struct OrderedIndex {
    encoder: Arc<Encoder>,
    entries: Entries,
}

impl OrderedIndex {
    /// # Errors
    /// [`Error::Invariant`] if a column is not there, [`Error::Type`] if one has no order.
    pub(super) fn new(order: &Order, schema: &SchemaRef) -> Result<Self, Error> {
        Ok(Self {
            encoder: Arc::new(Encoder::new(order, schema)?),
            entries: Entries::default(),
        })
    }

    /// One of the same order over no rows.
    pub(super) fn hollow(&self) -> Self {
        Self {
            encoder: Arc::clone(&self.encoder),
            entries: Entries::default(),
        }
    }

    pub(super) fn order(&self) -> &Order {
        &self.encoder.order
    }

    /// The key of each row, for [`Self::insert`] and [`Self::remove`]; `None` of rows that are left out.
    pub(super) fn keys(
        &self,
        columns: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<Option<Box<[u8]>>>, Error> {
        self.encoder.keys(columns, rows)
    }

    pub(super) fn insert(&mut self, key: Box<[u8]>, id: RowId) {
        self.entries.insert(key, id.0);
    }

    /// Nothing if the row is not there.
    pub(super) fn remove(&mut self, key: Box<[u8]>, id: RowId) {
        self.entries.remove(key, id.0);
    }

    /// The encoded group of each row: the row format of the group's columns, ascending, which is empty if there are none.
    pub(crate) fn groups(
        &self,
        columns: &[ArrayRef],
        rows: usize,
    ) -> Result<Vec<Box<[u8]>>, Error> {
        let group = encode(
            self.encoder.group.as_ref(),
            columns,
            &self.encoder.order.group,
        )?;
        let groups = (0..rows).map(|row| bytes_of(group.as_ref(), row).into());
        Ok(groups.collect())
    }

    /// The rows of one group, in order, with their encoded sort keys.
    pub(super) fn of_group<'a>(
        &'a self,
        group: &'a [u8],
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], RowId)> {
        let entries = self.entries.of_group(group);
        entries.map(|(order, row)| (order, RowId(row)))
    }

    /// Forgets all rows: there are none any more.
    pub(super) fn clear(&mut self) {
        self.entries = Entries::default();
    }

    pub(super) fn bytes(&self) -> usize {
        nodes_bytes(self.entries.keys.len()) + self.entries.heap
    }
}

#[cfg(test)]
mod tests;
