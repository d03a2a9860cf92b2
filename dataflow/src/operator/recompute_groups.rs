//! A query of which rows with different keys have nothing to do with each other: windows by their partitions, joins by their keys, groups of any aggregate.
//! It is evaluated anew over all rows of the keys whose rows change, and what is stored of these keys is taken back.
//!
//! The inputs are kept by their keys (shared where they are collections), and so is the output: what is taken back is what was put out, whatever a query makes of
//! ties, of the order of its rows or of rounding the second time. Where NULL matches nothing, rows with NULL in their key stand alone and are no group.
//! State: none of its own but the errors of keys. Cost: O(rows of touched keys), with the fixed cost of a query for each tick.
//! An error is that of its key: it goes when the rows of the key change and are well.

use std::collections::{BTreeMap, HashMap};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use flowstone_types::hash::{hash_rows, rows_equal};
use flowstone_types::sort_key::key_bytes;
use flowstone_types::{DeltaBatch, Epoch, EvalError, budget};

use super::join::Side;
use super::query::Query;
use super::{Kept, Needs, Operator, Placement, RelationId, Tick, merge, settled};
use crate::Error;
use crate::batch::{Changes, consolidate, expand, index, make_batch, weights_of};
use crate::held::Held;
use crate::partition::select;
use crate::relation::{IndexSpec, Relation, RowId};

/// Keys are evaluated together until so many rows are.
const ROWS_TOGETHER: usize = 1 << 18;

#[derive(Debug)]
pub(crate) struct RecomputeGroups {
    pub(crate) query: Query,
    pub(crate) inputs: Vec<Side>,
    /// What was put out.
    pub(crate) output: Side,
    /// Whether rows with NULL in their key have nothing to do with any other row.
    pub(crate) nulls_alone: bool,
    /// Of keys without output, by the bytes of the key.
    pub(crate) errors: BTreeMap<Vec<u8>, EvalError>,
}

impl Operator for RecomputeGroups {
    fn run(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let mut output = Changes::default();
        let mut deltas = Vec::with_capacity(inputs.len());
        for (changes, input) in itertools::zip_eq(inputs, &self.inputs) {
            let changes = merge(vec![changes]);
            output.errors.extend(changes.errors);
            let relation = tick.relations.get(input.relation)?;
            deltas.push(match settled(relation, &changes.deltas, tick.epoch)? {
                Some(delta) => delta,
                None => DeltaBatch::empty(relation.schema().clone(), tick.epoch),
            });
        }
        self.run_alone(&mut deltas, tick.epoch, &mut output)?;
        let touched = Touched::of(&deltas, &self.inputs)?;
        let groups = Groups {
            tick,
            touched: &touched,
            changes: Some(&deltas),
        };
        self.run_groups(&groups, &mut output)?;
        Ok(output)
    }

    fn hydrate(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let mut output = Changes::default();
        let mut deltas = Vec::with_capacity(inputs.len());
        for (changes, input) in itertools::zip_eq(inputs, &self.inputs) {
            output.errors.extend(changes.errors);
            let relation = tick.relations.get(input.relation)?;
            let all = consolidate(relation.schema(), &changes.deltas, tick.epoch)?;
            deltas.push(
                all.unwrap_or_else(|| DeltaBatch::empty(relation.schema().clone(), tick.epoch)),
            );
        }
        // All keys at once, unless one of them fails: there is nothing to be taken back yet.
        let mut rows = Vec::with_capacity(deltas.len());
        for delta in &deltas {
            rows.push(vec![expand(&delta.rows, &delta.weights)?]);
        }
        if let Ok(made) = self.query.evaluate(&rows, tick.epoch)? {
            if let Some(made) = consolidate(&self.query.schema, &made, tick.epoch)? {
                output.push(made);
            }
            return Ok(output);
        }
        drop(rows);
        self.run_alone(&mut deltas, tick.epoch, &mut output)?;
        let touched = Touched::of(&deltas, &self.inputs)?;
        let groups = Groups {
            tick,
            touched: &touched,
            changes: None,
        };
        self.run_groups(&groups, &mut output)?;
        Ok(output)
    }

    fn reads(&self) -> Vec<(RelationId, usize)> {
        let read = self.inputs.iter().chain([&self.output]);
        read.map(|side| (side.relation, side.index)).collect()
    }

    /// Keys in error.
    fn state(&self) -> usize {
        self.errors.len()
    }

    fn state_bytes(&self, _held: &Held) -> Option<(&'static str, usize)> {
        let errors = self.errors.iter();
        let bytes = errors.map(|(key, error)| key.len() + error.message.len() + size_of_val(error));
        Some(("errors of groups", bytes.sum()))
    }
}

impl RecomputeGroups {
    /// Of each input, by its keys: the rows, together with those of the other input that have the same.
    pub(crate) fn needs(keys: &[usize], inputs: usize) -> Needs {
        let at = if inputs == 1 {
            Placement::Grouped(keys.to_vec())
        } else {
            Placement::Matched(keys.to_vec())
        };
        let kept = Kept {
            without_nulls: Vec::new(),
            indexes: vec![IndexSpec::Key(keys.to_vec())],
        };
        Needs::rows(at, kept)
    }

    /// Does what rows that stand alone make of the output, and leaves the others.
    fn run_alone(
        &self,
        deltas: &mut [DeltaBatch],
        epoch: Epoch,
        output: &mut Changes,
    ) -> Result<(), Error> {
        if !self.nulls_alone {
            return Ok(());
        }
        let mut alone = Vec::with_capacity(deltas.len());
        for (delta, input) in itertools::zip_eq(deltas, &self.inputs) {
            let keys = select(delta.rows.columns(), &input.keys)?;
            if keys.iter().all(|key| key.null_count() == 0) {
                alone.push(DeltaBatch::empty(delta.schema(), epoch));
                continue;
            }
            let has_null: BooleanArray = (0..delta.len())
                .map(|row| Some(keys.iter().any(|key| key.is_null(row))))
                .collect();
            alone.push(delta.filter(&has_null)?);
            *delta = delta.filter(&arrow::compute::not(&has_null)?)?;
        }
        self.query.run_alone(&alone, epoch, output)
    }

    fn run_groups(&mut self, groups: &Groups<'_>, output: &mut Changes) -> Result<(), Error> {
        let count = groups.touched.count();
        let mut from = 0;
        while from < count {
            budget::check()?;
            let to = groups.end_of_piece(from, &self.inputs)?;
            self.run_piece(groups, from..to, output)?;
            from = to;
        }
        Ok(())
    }

    /// The keys of a range, all at once unless one of them fails.
    fn run_piece(
        &mut self,
        groups: &Groups<'_>,
        keys: std::ops::Range<usize>,
        output: &mut Changes,
    ) -> Result<(), Error> {
        // Explicit stack: halves in order.
        let mut stack = vec![keys];
        while let Some(keys) = stack.pop() {
            let mut rows = Vec::with_capacity(self.inputs.len());
            for (number, input) in self.inputs.iter().enumerate() {
                rows.push(groups.rows_after(number, input, keys.clone())?);
            }
            let epoch = groups.tick.epoch;
            let any = rows.iter().flatten().any(|batch| batch.num_rows() > 0);
            let made = if any {
                self.query.evaluate(&rows, epoch)?
            } else {
                Ok(Vec::new())
            };
            let mut difference = match made {
                Ok(made) => made,
                Err(error) if keys.len() <= 1 => {
                    let key = groups.touched.bytes(keys.start)?;
                    let before = self.errors.insert(key, error.clone());
                    if before.as_ref() != Some(&error) {
                        output.errors.extend(before.map(|before| (before, -1)));
                        output.errors.push((error, 1));
                    }
                    let gone = groups.output_before(&self.output, keys)?;
                    output
                        .deltas
                        .extend(gone.map(|gone| gone.negate()).transpose()?);
                    continue;
                }
                Err(_) => {
                    let half = keys.start + keys.len() / 2;
                    stack.push(half..keys.end);
                    stack.push(keys.start..half);
                    continue;
                }
            };
            if !self.errors.is_empty() {
                for key in keys.clone() {
                    let healed = self.errors.remove(&groups.touched.bytes(key)?);
                    output.errors.extend(healed.map(|error| (error, -1)));
                }
            }
            let gone = groups.output_before(&self.output, keys)?;
            difference.extend(gone.map(|gone| gone.negate()).transpose()?);
            if let Some(difference) = consolidate(&self.query.schema, &difference, epoch)? {
                output.push(difference);
            }
        }
        Ok(())
    }
}

/// The keys whose rows change, each once, numbered in the order in which they were met.
struct Touched {
    keys: Vec<ArrayRef>,
    hashes: Vec<u64>,
    /// For each input, the rows of its delta by the number of their key: pairs, ascending.
    rows: Vec<Vec<(u32, u32)>>,
}

impl Touched {
    fn of(deltas: &[DeltaBatch], inputs: &[Side]) -> Result<Self, Error> {
        let mut of_inputs = Vec::with_capacity(deltas.len());
        for (delta, input) in itertools::zip_eq(deltas, inputs) {
            of_inputs.push(select(delta.rows.columns(), &input.keys)?);
        }
        let width = inputs.first().map_or(0, |input| input.keys.len());
        let mut all: Vec<ArrayRef> = Vec::with_capacity(width);
        for column in 0..width {
            let parts: Vec<&dyn Array> = of_inputs
                .iter()
                .filter_map(|keys| keys.get(column).map(AsRef::as_ref))
                .collect();
            all.push(arrow_select::concat::concat(&parts)?);
        }
        let count = deltas.iter().map(DeltaBatch::len).sum();
        let mut firsts: Vec<u32> = Vec::new();
        let mut hashes = Vec::new();
        let mut known: HashMap<u64, Vec<u32>> = HashMap::new();
        let mut numbers = Vec::with_capacity(count);
        for (row, hash) in hash_rows(&all, count)?.into_iter().enumerate() {
            let same = known.entry(hash).or_default();
            let mut number = None;
            for candidate in same.iter() {
                let first = firsts.get(at(*candidate)).copied().unwrap_or(u32::MAX);
                if rows_equal(&all, at(first), &all, row)? {
                    number = Some(*candidate);
                    break;
                }
            }
            numbers.push(number.unwrap_or_else(|| {
                let new = index(firsts.len());
                firsts.push(index(row));
                hashes.push(hash);
                same.push(new);
                new
            }));
        }
        let mut numbers = numbers.into_iter();
        let rows = deltas
            .iter()
            .map(|delta| {
                let mut rows: Vec<(u32, u32)> = numbers
                    .by_ref()
                    .take(delta.len())
                    .enumerate()
                    .map(|(row, number)| (number, index(row)))
                    .collect();
                rows.sort_unstable();
                rows
            })
            .collect();
        let firsts = UInt32Array::from(firsts);
        let keys = all
            .iter()
            .map(|column| Ok(arrow_select::take::take(column, &firsts, None)?))
            .collect::<Result<_, Error>>()?;
        Ok(Self { keys, hashes, rows })
    }

    fn count(&self) -> usize {
        self.hashes.len()
    }

    /// The key as bytes, which no other one has.
    fn bytes(&self, key: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        for column in &self.keys {
            if column.is_null(key) {
                bytes.push(0);
            } else {
                bytes.push(1);
                bytes.extend(key_bytes(column, key)?);
            }
        }
        Ok(bytes)
    }

    /// The rows of the delta of input `number` that have a key of the range.
    fn changed(&self, number: usize, keys: &std::ops::Range<usize>) -> &[(u32, u32)] {
        let Some(rows) = self.rows.get(number) else {
            return &[];
        };
        let from = rows.partition_point(|(key, _)| at(*key) < keys.start);
        let to = rows.partition_point(|(key, _)| at(*key) < keys.end);
        rows.get(from..to).unwrap_or_default()
    }
}

fn at(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Touched keys and where their rows are.
struct Groups<'a> {
    tick: Tick<'a>,
    touched: &'a Touched,
    /// What is not in the relations yet.
    changes: Option<&'a [DeltaBatch]>,
}

impl Groups<'_> {
    /// Where the piece that begins at key `from` ends.
    fn end_of_piece(&self, from: usize, inputs: &[Side]) -> Result<usize, Error> {
        let mut indexes = Vec::with_capacity(inputs.len());
        for input in inputs {
            indexes.push(
                self.tick
                    .relations
                    .get(input.relation)?
                    .index(input.index)?,
            );
        }
        let (mut rows, mut to) = (0, from);
        for hash in self.touched.hashes.iter().skip(from) {
            let found: usize = indexes.iter().map(|index| index.get(*hash).len()).sum();
            rows += found + 1;
            if to > from && rows > ROWS_TOGETHER {
                break;
            }
            to += 1;
        }
        Ok(to)
    }

    /// The kept rows of the keys of a range, with their weights.
    fn kept(
        &self,
        relation: &Relation,
        side: &Side,
        keys: std::ops::Range<usize>,
    ) -> Result<Option<DeltaBatch>, Error> {
        let index = relation.index(side.index)?;
        let (mut ids, mut weights) = (Vec::<RowId>::new(), Vec::new());
        for key in keys {
            let hash = self.touched.hashes.get(key).copied().unwrap_or_default();
            for id in index.get(hash) {
                let weight = relation.weight(*id);
                if weight != 0 && relation.matches(*id, &side.keys, &self.touched.keys, key)? {
                    ids.push(*id);
                    weights.push(weight);
                }
            }
        }
        if ids.is_empty() {
            return Ok(None);
        }
        let rows = make_batch(relation.schema(), relation.gather(&ids)?, ids.len())?;
        Ok(Some(DeltaBatch::new(
            rows,
            weights_of(weights),
            self.tick.epoch,
        )))
    }

    /// The rows of input `number` with a key of the range, as they are after the tick, each as often as it is there.
    fn rows_after(
        &self,
        number: usize,
        side: &Side,
        keys: std::ops::Range<usize>,
    ) -> Result<Vec<RecordBatch>, Error> {
        let relation = self.tick.relations.get(side.relation)?;
        let mut rows: Vec<DeltaBatch> = Vec::new();
        rows.extend(self.kept(relation, side, keys.clone())?);
        if let Some(delta) = self.changes.and_then(|changes| changes.get(number)) {
            let changed = self.touched.changed(number, &keys);
            if !changed.is_empty() {
                let weights = changed.iter().map(|(_, row)| delta.weights.get(at(*row)));
                let weights = weights_of(weights.collect());
                let picked = changed.iter().map(|(_, row)| *row);
                let picked = UInt32Array::from_iter_values(picked);
                let picked = flowstone_types::delta::take_rows(&delta.rows, &picked)?;
                rows.push(DeltaBatch::new(picked, weights, self.tick.epoch));
                if let [_, _] = rows.as_slice() {
                    let both = consolidate(relation.schema(), &rows, self.tick.epoch)?;
                    rows = both.into_iter().collect();
                }
            }
        }
        rows.iter()
            .map(|rows| expand(&rows.rows, &rows.weights))
            .collect()
    }

    /// What was put out for the keys of a range.
    fn output_before(
        &self,
        output: &Side,
        keys: std::ops::Range<usize>,
    ) -> Result<Option<DeltaBatch>, Error> {
        if self.changes.is_none() {
            return Ok(None);
        }
        let relation = self.tick.relations.get(output.relation)?;
        self.kept(relation, output, keys)
    }
}
