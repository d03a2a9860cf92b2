//! Grouping with aggregates, maintained in place: a table of groups with one accumulator column per aggregate.
//!
//! Per tick: the groups that the delta touches are found, their old results noted, the delta added, and −old/+new emitted where they differ.
//! A group goes when it has no rows; without group columns there is always exactly one row, also over no input.
//! State: one slot per group. Cost: O(|δ| + touched groups).
#![expect(
    clippy::indexing_slicing,
    reason = "slots and positions are handed out here"
)]

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, UInt32Array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::SchemaRef;
use flowstone_proto::plan;
use flowstone_types::hash::values_equal;
use flowstone_types::{DeltaBatch, EvalError, Weights};
use hashbrown::HashTable;

use super::Tick;
use super::accumulator::{Accumulator, Results};
use crate::Error;
use crate::batch::{Changes, add_weights, index, make_batch};
use crate::held::allocated;
use crate::partition::select;

#[derive(Debug)]
pub(crate) struct Aggregate {
    group: Vec<usize>,
    /// Relaxed schema of the output.
    schema: SchemaRef,
    groups: Groups,
    accumulators: Vec<Accumulator>,
    /// Rows per slot.
    rows: Vec<i64>,
    /// Whether this shard has the one group of an aggregate without group columns.
    owns_global: bool,
    /// Whether that group has been emitted.
    global: bool,
}

impl Aggregate {
    pub(crate) fn new(
        input: &SchemaRef,
        group: Vec<usize>,
        aggregates: &[plan::Aggregate],
        schema: SchemaRef,
        shard: usize,
    ) -> Result<Self, Error> {
        let field = |column: usize| {
            input
                .fields()
                .get(column)
                .ok_or_else(|| Error::Plan(format!("aggregate reads column {column}")))
        };
        let mut fields = Vec::new();
        for column in &group {
            fields.push(SortField::new(field(*column)?.data_type().clone()));
        }
        let mut accumulators = Vec::new();
        for (number, spec) in aggregates.iter().enumerate() {
            let argument = spec
                .argument
                .map(field)
                .transpose()?
                .map_or(arrow_schema::DataType::Null, |field| {
                    field.data_type().clone()
                });
            if let Some(filter) = spec.filter
                && *field(filter)?.data_type() != arrow_schema::DataType::Boolean
            {
                return Err(Error::Plan(
                    "filter of an aggregate is not boolean".to_owned(),
                ));
            }
            let output = schema
                .fields()
                .get(group.len() + number)
                .ok_or_else(|| Error::Plan("aggregate without output column".to_owned()))?;
            accumulators.push(Accumulator::new(
                spec.clone(),
                argument,
                output.data_type().clone(),
            )?);
        }
        Ok(Self {
            owns_global: shard == 0 && group.is_empty(),
            group,
            schema,
            groups: Groups::new(fields)?,
            accumulators,
            rows: Vec::new(),
            global: false,
        })
    }

    /// Whether the group without columns must be emitted here although there is no input.
    pub(crate) const fn owns_global(&self) -> bool {
        self.owns_global
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.bytes()
            + self.rows.capacity() * size_of::<i64>()
            + self
                .accumulators
                .iter()
                .map(Accumulator::bytes)
                .sum::<usize>()
    }

    /// Number of groups.
    pub(crate) fn len(&self) -> usize {
        self.groups.slots() - self.groups.free.len()
    }

    pub(crate) fn run(&mut self, tick: Tick<'_>, input: Changes) -> Result<Changes, Error> {
        let mut output = Changes {
            deltas: Vec::new(),
            errors: input.errors,
        };
        let mut slots = Vec::with_capacity(input.deltas.len());
        for delta in &input.deltas {
            let keys = select(delta.rows.columns(), &self.group)?;
            slots.push(self.groups.intern(&keys, delta.len())?);
        }
        if self.owns_global && tick.hydrating {
            self.groups.intern(&[], 1)?;
        }
        let touched = self.groups.take_touched();
        if touched.is_empty() {
            return Ok(output);
        }
        self.rows.resize(self.groups.keys.len(), 0);
        self.accumulators
            .iter_mut()
            .for_each(|accumulator| accumulator.resize(self.rows.len()));

        let existed = self.existing(&touched);
        let old = self.evaluate(&touched)?;
        for (delta, slots) in itertools::zip_eq(&input.deltas, &slots) {
            for (row, slot) in slots.iter().enumerate() {
                let rows = &mut self.rows[slot_number(*slot)];
                *rows = add_weights(*rows, delta.weights.get(row))?;
            }
            for accumulator in &mut self.accumulators {
                accumulator.update(delta, slots)?;
            }
        }
        if touched.iter().any(|slot| self.rows[slot_number(*slot)] < 0) {
            return Err(Error::NegativeWeight(
                "the input of an aggregate".to_owned(),
            ));
        }
        self.global |= self.owns_global && tick.hydrating;
        let exists = self.existing(&touched);
        let new = self.evaluate(&touched)?;
        self.emit(
            tick,
            &touched,
            (&existed, &old),
            (&exists, &new),
            &mut output,
        )?;

        for (slot, exists) in itertools::zip_eq(&touched, exists) {
            if !exists {
                self.accumulators
                    .iter_mut()
                    .for_each(|accumulator| accumulator.reset(slot_number(*slot)));
                self.groups.remove(*slot);
            }
        }
        Ok(output)
    }

    fn existing(&self, slots: &[u32]) -> Vec<bool> {
        slots
            .iter()
            .map(|slot| self.global || self.rows[slot_number(*slot)] > 0)
            .collect()
    }

    fn evaluate(&self, slots: &[u32]) -> Result<Vec<Results>, Error> {
        self.accumulators
            .iter()
            .map(|accumulator| accumulator.evaluate(slots))
            .collect()
    }

    fn emit(
        &self,
        tick: Tick<'_>,
        touched: &[u32],
        (existed, old): (&[bool], &[Results]),
        (exists, new): (&[bool], &[Results]),
        output: &mut Changes,
    ) -> Result<(), Error> {
        let (old_errors, new_errors) = (first_errors(old), first_errors(new));
        let (mut retracted, mut inserted) = (Vec::new(), Vec::new());
        for position in 0..touched.len() {
            let (old_error, new_error) = (old_errors.get(&position), new_errors.get(&position));
            if existed[position] && exists[position] && old_error == new_error {
                let mut same = true;
                for (old, new) in itertools::zip_eq(old, new) {
                    same = same && values_equal(&old.values, position, &new.values, position)?;
                }
                if same || old_error.is_some() {
                    continue;
                }
            }
            if existed[position] {
                match old_error {
                    Some(error) => output.errors.push(((*error).clone(), -1)),
                    None => retracted.push(index(position)),
                }
            }
            if exists[position] {
                match new_error {
                    Some(error) => output.errors.push(((*error).clone(), 1)),
                    None => inserted.push(index(position)),
                }
            }
        }
        if retracted.is_empty() && inserted.is_empty() {
            return Ok(());
        }
        let keys = self.groups.decode(touched)?;
        for (positions, results, weights) in [
            (retracted, old, Weights::Const(-1)),
            (inserted, new, Weights::AllOne),
        ] {
            let rows = positions.len();
            let positions = UInt32Array::from(positions);
            let columns = keys
                .iter()
                .chain(results.iter().map(|results| &results.values))
                .map(|column| Ok(arrow_select::take::take(column, &positions, None)?))
                .collect::<Result<Vec<_>, Error>>()?;
            output.push(DeltaBatch::new(
                make_batch(&self.schema, columns, rows)?,
                weights,
                tick.epoch,
            ));
        }
        Ok(())
    }
}

/// Position → the error of its first failing aggregate.
fn first_errors(results: &[Results]) -> BTreeMap<usize, &EvalError> {
    let mut first = BTreeMap::new();
    for results in results {
        for (position, error) in &results.errors {
            first.entry(*position).or_insert(error);
        }
    }
    first
}

fn slot_number(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

/// Group keys and their slots. Slots of groups that went are used again.
#[derive(Debug)]
pub(crate) struct Groups {
    converter: RowConverter,
    width: usize,
    table: HashTable<u32>,
    /// Hash and encoded key per slot.
    keys: Vec<(u64, Box<[u8]>)>,
    free: Vec<u32>,
    /// Slots touched since the last `take_touched`, in order of first touch, and which those are.
    touched: Vec<u32>,
    is_touched: Vec<bool>,
    /// Bytes that the encoded keys take.
    heap: usize,
}

impl Groups {
    pub(crate) fn new(fields: Vec<SortField>) -> Result<Self, Error> {
        Ok(Self {
            width: fields.len(),
            converter: RowConverter::new(fields)?,
            table: HashTable::new(),
            keys: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
            is_touched: Vec::new(),
            heap: 0,
        })
    }

    /// Number of slots, used and free.
    pub(crate) fn slots(&self) -> usize {
        self.keys.len()
    }

    /// The slot of each row's group; new groups get one. All of them count as touched.
    pub(crate) fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>, Error> {
        let hashes = flowstone_types::hash::hash_rows(keys, rows)?;
        let encoded = if self.width == 0 {
            None
        } else {
            Some(self.converter.convert_columns(keys)?)
        };
        let mut slots = Vec::with_capacity(rows);
        for (row, hash) in hashes.into_iter().enumerate() {
            let encoded = encoded.as_ref().map(|encoded| encoded.row(row));
            let key = encoded.as_ref().map_or(&[][..], |row| row.data());
            let all = &self.keys;
            let found = self.table.find(hash, |slot| {
                let (other, bytes) = &all[slot_number(*slot)];
                *other == hash && **bytes == *key
            });
            let slot = match found {
                Some(slot) => *slot,
                None => {
                    self.heap += allocated(key.len());
                    let entry = (hash, Box::from(key));
                    let slot = if let Some(slot) = self.free.pop() {
                        self.keys[slot_number(slot)] = entry;
                        slot
                    } else {
                        self.keys.push(entry);
                        self.is_touched.push(false);
                        index(self.keys.len() - 1)
                    };
                    let all = &self.keys;
                    self.table
                        .insert_unique(hash, slot, |slot| all[slot_number(*slot)].0);
                    slot
                }
            };
            if !std::mem::replace(&mut self.is_touched[slot_number(slot)], true) {
                self.touched.push(slot);
            }
            slots.push(slot);
        }
        Ok(slots)
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.table.allocation_size()
            + self.keys.capacity() * size_of::<(u64, Box<[u8]>)>()
            + self.free.capacity() * size_of::<u32>()
            + self.is_touched.capacity()
            + self.heap
    }

    /// The slots touched since the last call, in order of first touch.
    pub(crate) fn take_touched(&mut self) -> Vec<u32> {
        let touched = std::mem::take(&mut self.touched);
        touched
            .iter()
            .for_each(|slot| self.is_touched[slot_number(*slot)] = false);
        touched
    }

    /// The key columns of `slots`.
    pub(crate) fn decode(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, Error> {
        if self.width == 0 {
            return Ok(Vec::new());
        }
        let parser = self.converter.parser();
        Ok(self.converter.convert_rows(
            slots
                .iter()
                .map(|slot| parser.parse(&self.keys[slot_number(*slot)].1)),
        )?)
    }

    /// Forgets a group; its slot is free.
    pub(crate) fn remove(&mut self, slot: u32) {
        let hash = self.keys[slot_number(slot)].0;
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        let key = std::mem::take(&mut self.keys[slot_number(slot)].1);
        self.heap -= allocated(key.len());
        self.free.push(slot);
        if self.table.is_empty() {
            self.table = HashTable::new();
            self.keys = Vec::new();
            self.free = Vec::new();
            self.is_touched = Vec::new();
        }
    }
}
