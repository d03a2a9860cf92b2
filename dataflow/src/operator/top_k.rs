//! The first rows of each group in a total order: ORDER BY with LIMIT and OFFSET per group, `DISTINCT ON`.
//!
//! Per tick only touched groups are looked at: the window before and the window after are walked and their difference emitted.
//! State: every row, encoded in order, in one ordered multiset per group. Cost: O(touched groups · (offset + limit) + |δ| log n).
//! Without a limit the rows passed over are the window that is kept, and the output is the input without them.
#![expect(
    clippy::indexing_slicing,
    reason = "slots and positions are handed out here"
)]

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow_array::{ArrayRef, UInt32Array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{SchemaRef, SortOptions};
use flowstone_proto::plan::OrderColumn;
use flowstone_types::{DeltaBatch, budget};

use super::Tick;
use super::accumulator::add_to_multiset;
use super::aggregate::Groups;
use crate::Error;
use crate::batch::{Changes, index, make_batch, weights_of, with_schema};
use crate::partition::select;

/// Rows of a window with their multiplicities, in order.
type Window = Vec<(Box<[u8]>, i64)>;

#[derive(Debug)]
pub(crate) struct TopK {
    group: Vec<usize>,
    /// The columns that are not group columns: first those of the order, then the others, which make it total.
    ordered: Vec<usize>,
    converter: RowConverter,
    limit: Option<u64>,
    offset: u64,
    /// Relaxed schema of input and output.
    schema: SchemaRef,
    groups: Groups,
    rows: Vec<BTreeMap<Box<[u8]>, i64>>,
    /// Bytes that the rows take.
    heap: usize,
}

impl TopK {
    pub(crate) fn new(
        schema: SchemaRef,
        group: Vec<usize>,
        order: &[OrderColumn],
        limit: Option<u64>,
        offset: u64,
    ) -> Result<Self, Error> {
        let width = schema.fields().len();
        let data_type = |column: usize| {
            schema
                .fields()
                .get(column)
                .map(|field| field.data_type().clone())
                .ok_or_else(|| Error::Plan(format!("top k reads column {column}")))
        };
        let group_fields = group
            .iter()
            .map(|column| Ok(SortField::new(data_type(*column)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let (mut ordered, mut fields) = (Vec::new(), Vec::new());
        for column in order {
            if !group.contains(&column.column) && !ordered.contains(&column.column) {
                let options = SortOptions {
                    descending: column.descending,
                    nulls_first: column.nulls_first,
                };
                fields.push(SortField::new_with_options(
                    data_type(column.column)?,
                    options,
                ));
                ordered.push(column.column);
            }
        }
        for column in 0..width {
            if !group.contains(&column) && !ordered.contains(&column) {
                fields.push(SortField::new(data_type(column)?));
                ordered.push(column);
            }
        }
        Ok(Self {
            groups: Groups::new(group_fields)?,
            group,
            converter: RowConverter::new(fields)?,
            ordered,
            limit,
            offset,
            schema,
            rows: Vec::new(),
            heap: 0,
        })
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.bytes()
            + self.rows.capacity() * size_of::<BTreeMap<Box<[u8]>, i64>>()
            + self.heap
    }

    /// Number of groups.
    pub(crate) fn len(&self) -> usize {
        self.rows.iter().filter(|rows| !rows.is_empty()).count()
    }

    pub(crate) fn run(&mut self, tick: Tick<'_>, input: Changes) -> Result<Changes, Error> {
        let mut output = Changes {
            deltas: Vec::new(),
            errors: input.errors,
        };
        if self.limit.is_none() {
            for delta in &input.deltas {
                output.push(with_schema(delta, &self.schema)?);
            }
            if self.offset == 0 {
                return Ok(output);
            }
        }
        let mut slots = Vec::with_capacity(input.deltas.len());
        for delta in &input.deltas {
            slots.push(
                self.groups
                    .intern(&select(delta.rows.columns(), &self.group)?, delta.len())?,
            );
        }
        let touched = self.groups.take_touched();
        self.rows.resize_with(self.groups.slots(), BTreeMap::new);
        let old = touched
            .iter()
            .map(|slot| self.window(*slot))
            .collect::<Result<Vec<_>, _>>()?;
        for (delta, slots) in itertools::zip_eq(&input.deltas, &slots) {
            self.update(delta, slots)?;
        }
        let sign = if self.limit.is_some() { 1 } else { -1 };
        let mut differences = Vec::new();
        for (position, (slot, old)) in itertools::zip_eq(&touched, old).enumerate() {
            differ(old, self.window(*slot)?, &mut |row, weight| {
                differences.push((index(position), row, sign * weight))
            });
        }
        if !differences.is_empty() {
            output.push(self.decode(tick, &touched, &differences)?);
        }
        for slot in touched {
            if self.rows[slot_number(slot)].is_empty() {
                self.groups.remove(slot);
            }
        }
        Ok(output)
    }

    fn update(&mut self, delta: &DeltaBatch, slots: &[u32]) -> Result<(), Error> {
        let encoded = if self.ordered.is_empty() {
            None
        } else {
            Some(
                self.converter
                    .convert_columns(&select(delta.rows.columns(), &self.ordered)?)?,
            )
        };
        for (row, slot) in slots.iter().enumerate() {
            let encoded = encoded.as_ref().map(|encoded| encoded.row(row));
            let bytes = encoded.as_ref().map_or(&[][..], |row| row.data());
            add_to_multiset(
                &mut self.rows[slot_number(*slot)],
                bytes,
                delta.weights.get(row),
                &mut self.heap,
            )?;
        }
        Ok(())
    }

    /// The rows at positions `offset..offset + limit`, or `0..offset` if there is no limit.
    fn window(&self, slot: u32) -> Result<Window, Error> {
        budget::check()?;
        let (mut skip, mut take) = match self.limit {
            Some(limit) => (
                i64::try_from(self.offset).unwrap_or(i64::MAX),
                i64::try_from(limit).unwrap_or(i64::MAX),
            ),
            None => (0, i64::try_from(self.offset).unwrap_or(i64::MAX)),
        };
        let mut window = Vec::new();
        for (row, weight) in &self.rows[slot_number(slot)] {
            if take == 0 {
                break;
            }
            if *weight < 0 {
                return Err(Error::NegativeWeight("the input of a top k".to_owned()));
            }
            let passed = skip.min(*weight);
            skip -= passed;
            let taken = take.min(*weight - passed);
            take -= taken;
            if taken > 0 {
                window.push((row.clone(), taken));
            }
        }
        Ok(window)
    }

    fn decode(
        &self,
        tick: Tick<'_>,
        touched: &[u32],
        differences: &[(u32, Box<[u8]>, i64)],
    ) -> Result<DeltaBatch, Error> {
        let parser = self.converter.parser();
        let ordered = if self.ordered.is_empty() {
            Vec::new()
        } else {
            self.converter
                .convert_rows(differences.iter().map(|(_, row, _)| parser.parse(row)))?
        };
        let positions =
            UInt32Array::from_iter_values(differences.iter().map(|(position, ..)| *position));
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        for (column, values) in itertools::zip_eq(&self.group, self.groups.decode(touched)?) {
            columns[*column] = Some(arrow_select::take::take(&values, &positions, None)?);
        }
        for (column, values) in itertools::zip_eq(&self.ordered, ordered) {
            columns[*column] = Some(values);
        }
        let columns = columns
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::invariant("top k lost a column"))?;
        let rows = make_batch(&self.schema, columns, differences.len())?;
        Ok(DeltaBatch::new(
            rows,
            weights_of(differences.iter().map(|(.., weight)| *weight).collect()),
            tick.epoch,
        ))
    }
}

/// Calls `emit` with each row whose multiplicity differs, and by how much. Both windows are sorted.
fn differ(old: Window, new: Window, emit: &mut dyn FnMut(Box<[u8]>, i64)) {
    let (mut old, mut new) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, _)), Some((new, _))) => old.cmp(new),
        };
        let before = if order == Ordering::Greater {
            None
        } else {
            old.next()
        };
        let after = if order == Ordering::Less {
            None
        } else {
            new.next()
        };
        let change = after.as_ref().map_or(0, |(_, weight)| *weight)
            - before.as_ref().map_or(0, |(_, weight)| *weight);
        if let Some((row, _)) = before.or(after)
            && change != 0
        {
            emit(row, change);
        }
    }
}

fn slot_number(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
