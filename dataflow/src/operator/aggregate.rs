//! Grouping with aggregates, maintained in place: a table of groups with one accumulator column per aggregate.
//!
//! Per tick: the groups that the delta touches are found, their old results noted, the delta added, and −old/+new emitted where they differ.
//! A group goes when it has no rows; without group columns there is always exactly one row, also over no input.
//! State: one slot per group; for `min` and `max` none, but the input's rows are kept, with an ordered index ([`super::extreme`]).
//! Cost: O(|δ| + touched groups), with `min` or `max` O(|δ| log n).
#![expect(
    clippy::indexing_slicing,
    reason = "slots and positions are handed out here"
)]

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, UInt32Array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::{DataType, SchemaRef};
use flowstone_proto::plan;
use flowstone_types::hash::values_equal;
use flowstone_types::{DeltaBatch, EvalError, Weights};
use hashbrown::HashTable;

use super::accumulator::{Accumulator, Results};
use super::extreme::Extreme;
use super::{Arrangement, Kept, Needs, Operator, Placement, RelationId, Tick, merge, settled};
use crate::Error;
use crate::batch::{Changes, add_weights, index, make_batch};
use crate::held::{Held, allocated};
use crate::partition::select;
use crate::relation::{Moment, Relation};

#[derive(Debug)]
pub(crate) struct Aggregate {
    group: Vec<usize>,
    /// Relaxed schema of the output.
    schema: SchemaRef,
    groups: Groups,
    /// One per aggregate.
    columns: Vec<Column>,
    /// The input's rows, if an aggregate needs them.
    relation: Option<RelationId>,
    /// Rows per slot.
    rows: Vec<i64>,
    /// Whether this shard has the one group of an aggregate without group columns.
    owns_global: bool,
    /// Whether that group has been emitted.
    global: bool,
}

/// One aggregate over all groups.
#[derive(Debug)]
enum Column {
    Accumulated(Accumulator),
    Extreme(Extreme),
}

impl Column {
    /// `index`: the number of the one it asked for.
    fn new(
        spec: &plan::Aggregate,
        argument: DataType,
        output: DataType,
        index: Option<usize>,
    ) -> Result<Self, Error> {
        if let Some(index) = index
            && argument == output
            && let Some(extreme) = Extreme::new(spec, output.clone(), index)
        {
            return Ok(Self::Extreme(extreme));
        }
        let accumulator = Accumulator::new(spec.clone(), argument, output)?;
        Ok(Self::Accumulated(accumulator))
    }

    const fn accumulated(&self) -> Option<&Accumulator> {
        match self {
            Self::Accumulated(accumulator) => Some(accumulator),
            Self::Extreme(_) => None,
        }
    }

    const fn accumulated_mut(&mut self) -> Option<&mut Accumulator> {
        match self {
            Self::Accumulated(accumulator) => Some(accumulator),
            Self::Extreme(_) => None,
        }
    }
}

impl Operator for Aggregate {
    fn run(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        self.update(tick, inputs, false)
    }

    fn hydrate(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        self.update(tick, inputs, true)
    }

    /// The group without columns is there although there is no input.
    fn hydrates_alone(&self) -> bool {
        self.owns_global
    }

    fn reads(&self) -> Vec<(RelationId, usize)> {
        let extremes = self.columns.iter().filter_map(|column| match column {
            Column::Accumulated(_) => None,
            Column::Extreme(extreme) => Some((self.relation?, extreme.index)),
        });
        extremes.collect()
    }

    /// Number of groups.
    fn state(&self) -> usize {
        self.groups.slots() - self.groups.free.len()
    }

    fn state_bytes(&self, _: &Held) -> Option<(&'static str, usize)> {
        let accumulators = self.columns.iter().filter_map(Column::accumulated);
        let accumulators = accumulators.map(Accumulator::bytes);
        let bytes = self.groups.bytes()
            + self.rows.capacity() * size_of::<i64>()
            + accumulators.sum::<usize>();
        Some(("aggregate", bytes))
    }
}

impl Aggregate {
    /// `input`: its schema, and where it is kept, as [`Self::needs`] says. `shard`: the number of the shard that this is on.
    pub(crate) fn new(
        (input, arrangement): (&SchemaRef, Option<&Arrangement>),
        group: Vec<usize>,
        aggregates: &[plan::Aggregate],
        schema: SchemaRef,
        shard: usize,
    ) -> Result<Self, Error> {
        let mut fields = Vec::with_capacity(group.len());
        for column in &group {
            fields.push(SortField::new(data_type(input, *column)?));
        }
        let indexes = arrangement.map_or(&[][..], |arrangement| &arrangement.indexes[..]);
        let mut indexes = indexes.iter().copied();
        let mut columns = Vec::with_capacity(aggregates.len());
        for (number, spec) in aggregates.iter().enumerate() {
            let argument = match spec.argument {
                Some(argument) => data_type(input, argument)?,
                None => DataType::Null,
            };
            let output = schema
                .fields()
                .get(group.len() + number)
                .ok_or_else(|| Error::Plan("aggregate without output column".to_owned()))?;
            let index = Extreme::index_of(&group, spec).and_then(|_| indexes.next());
            columns.push(Column::new(
                spec,
                argument,
                output.data_type().clone(),
                index,
            )?);
        }
        Ok(Self {
            owns_global: shard == 0 && group.is_empty(),
            group,
            schema,
            groups: Groups::new(fields)?,
            columns,
            relation: arrangement.map(|arrangement| arrangement.relation),
            rows: Vec::new(),
            global: false,
        })
    }

    /// The rows of a group together; with an index for each aggregate that needs one, in order.
    ///
    /// # Errors
    /// [`Error::Plan`] if a column is not there, or no filter.
    pub(crate) fn needs(
        input: &SchemaRef,
        group: &[usize],
        aggregates: &[plan::Aggregate],
    ) -> Result<Needs, Error> {
        for column in group {
            data_type(input, *column)?;
        }
        let mut indexes = Vec::new();
        for spec in aggregates {
            if let Some(argument) = spec.argument {
                data_type(input, argument)?;
            }
            if let Some(filter) = spec.filter
                && data_type(input, filter)? != DataType::Boolean
            {
                return Err(Error::Plan(
                    "filter of an aggregate is not boolean".to_owned(),
                ));
            }
            indexes.extend(Extreme::index_of(group, spec));
        }
        let at = Placement::Grouped(group.to_vec());
        if indexes.is_empty() {
            return Ok(Needs::changes(at));
        }
        let kept = Kept {
            without_nulls: Vec::new(),
            indexes,
        };
        Ok(Needs::rows(at, kept))
    }

    fn update(
        &mut self,
        tick: Tick<'_>,
        inputs: Vec<Changes>,
        hydrating: bool,
    ) -> Result<Changes, Error> {
        let input = merge(inputs);
        let mut output = Changes {
            deltas: Vec::new(),
            errors: input.errors,
        };
        let mut slots = Vec::with_capacity(input.deltas.len());
        for delta in &input.deltas {
            let keys = select(delta.rows.columns(), &self.group)?;
            slots.push(self.groups.intern(&keys, delta.len())?);
        }
        if self.owns_global && hydrating {
            self.groups.intern(&[], 1)?;
        }
        let touched = self.groups.take_touched();
        if touched.is_empty() {
            return Ok(output);
        }
        let slots_now = self.groups.slots();
        self.rows.resize(slots_now, 0);
        for accumulator in self.columns.iter_mut().filter_map(Column::accumulated_mut) {
            accumulator.resize(slots_now);
        }
        let relation = match self.relation {
            Some(relation) => Some(tick.relations.get(relation)?),
            None => None,
        };
        // The relation of one that hydrates holds everything already, and there was nothing before.
        let delta = match relation {
            Some(relation) if !hydrating => settled(relation, &input.deltas, tick.epoch)?,
            _ => None,
        };
        let before = relation.filter(|_| !hydrating).map(Relation::before);
        let after = match (relation, &delta) {
            (Some(relation), Some(delta)) => Some(relation.after(delta)?),
            (Some(relation), None) => Some(relation.before()),
            (None, _) => None,
        };

        let existed = self.existing(&touched);
        let old = self.evaluate(&touched, before.as_ref())?;
        for (delta, slots) in itertools::zip_eq(&input.deltas, &slots) {
            for (row, slot) in slots.iter().enumerate() {
                let rows = &mut self.rows[slot_number(*slot)];
                *rows = add_weights(*rows, delta.weights.get(row))?;
            }
            for accumulator in self.columns.iter_mut().filter_map(Column::accumulated_mut) {
                accumulator.update(delta, slots)?;
            }
        }
        if touched.iter().any(|slot| self.rows[slot_number(*slot)] < 0) {
            return Err(Error::NegativeWeight(
                "the input of an aggregate".to_owned(),
            ));
        }
        self.global |= self.owns_global && hydrating;
        let exists = self.existing(&touched);
        let new = self.evaluate(&touched, after.as_ref())?;
        self.emit(
            tick,
            &touched,
            (&existed, &old),
            (&exists, &new),
            &mut output,
        )?;

        for (slot, exists) in itertools::zip_eq(&touched, exists) {
            if !exists {
                for accumulator in self.columns.iter_mut().filter_map(Column::accumulated_mut) {
                    accumulator.reset(slot_number(*slot));
                }
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

    /// The results of groups. `moment`: the input's rows, if they are kept and there were any.
    fn evaluate(&self, slots: &[u32], moment: Option<&Moment<'_>>) -> Result<Vec<Results>, Error> {
        let results = self.columns.iter().map(|column| match column {
            Column::Accumulated(accumulator) => accumulator.evaluate(slots),
            Column::Extreme(extreme) => {
                let groups = slots.iter().map(|slot| self.groups.key(*slot));
                extreme.evaluate(moment, groups)
            }
        });
        results.collect()
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

fn data_type(input: &SchemaRef, column: usize) -> Result<DataType, Error> {
    let field = input.fields().get(column);
    let field = field.ok_or_else(|| Error::Plan(format!("aggregate reads column {column}")))?;
    Ok(field.data_type().clone())
}

fn slot_number(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

/// Group keys and their slots. Slots of groups that went are used again.
#[derive(Debug)]
struct Groups {
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
    fn new(fields: Vec<SortField>) -> Result<Self, Error> {
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
    fn slots(&self) -> usize {
        self.keys.len()
    }

    /// A group in the row format of its columns: as an ordered index has it.
    fn key(&self, slot: u32) -> &[u8] {
        &self.keys[slot_number(slot)].1
    }

    /// The slot of each row's group; new groups get one. All of them count as touched.
    fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<u32>, Error> {
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
    fn bytes(&self) -> usize {
        self.table.allocation_size()
            + self.keys.capacity() * size_of::<(u64, Box<[u8]>)>()
            + self.free.capacity() * size_of::<u32>()
            + self.is_touched.capacity()
            + self.heap
    }

    /// The slots touched since the last call, in order of first touch.
    fn take_touched(&mut self) -> Vec<u32> {
        let touched = std::mem::take(&mut self.touched);
        touched
            .iter()
            .for_each(|slot| self.is_touched[slot_number(*slot)] = false);
        touched
    }

    /// The key columns of `slots`.
    fn decode(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, Error> {
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
    fn remove(&mut self, slot: u32) {
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
