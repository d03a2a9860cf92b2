//! Inner equi-join: δ(L⋈R) = δL⋈R⁻ + L⁻⋈δR + δL⋈δR, over arrangements that stand at `before` during the tick.
//!
//! In the hydrating tick both arrangements already hold everything, and the output is δL⋈R alone.
//! State: none of its own. Cost: O(|δ| + matches), which the tick's budget bounds. Source of the formula: Budiu et al., "DBSP: Automatic Incremental View Maintenance", VLDB 2023.
#![expect(
    clippy::indexing_slicing,
    reason = "row numbers come from enumerating the same batches"
)]

use arrow_array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow_schema::SchemaRef;
use flowstone_types::hash::{hash_rows, rows_equal, values_equal};
use flowstone_types::{DeltaBatch, budget};
use hashbrown::HashMap;

use super::{Kept, Needs, Operator, Path, Placement, RelationId, Tick};
use crate::Error;
use crate::batch::{Changes, ROWS_PER_BATCH, index, make_batch, multiply_weights, weights_of};
use crate::partition::select;
use crate::relation::{IndexSpec, Relation, RowId};

/// So many keys are looked up in the index before any of the rows found is looked at: the lookups do not depend on each other, and the processor has the memory
/// fetch several at a time.
const PROBED_TOGETHER: usize = 64;

/// Rows in a relation and the key columns by which they are found.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) relation: RelationId,
    /// Number of the index over `keys`.
    pub(crate) index: usize,
    pub(crate) keys: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) left: Side,
    pub(crate) right: Side,
    pub(crate) null_equals_null: bool,
    /// Relaxed schema of the output: left columns, then right columns.
    pub(crate) schema: SchemaRef,
}

impl Operator for Join {
    fn run(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let (left, right, mut output) = sides(inputs);
        self.probe_right(tick, &left, &mut output)?;
        for delta in &right {
            self.probe(
                tick,
                delta,
                &self.right.keys,
                &self.left,
                false,
                &mut output,
            )?;
        }
        for left in &left {
            for right in &right {
                self.join_deltas(left, right, &mut output)?;
            }
        }
        Ok(output)
    }

    fn hydrate(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let (left, _, mut output) = sides(inputs);
        self.probe_right(tick, &left, &mut output)?;
        Ok(output)
    }

    fn reads(&self) -> Vec<(RelationId, usize)> {
        [&self.left, &self.right]
            .map(|side| (side.relation, side.index))
            .to_vec()
    }
}

/// The row changes of both inputs, and an output that has their errors.
fn sides(mut inputs: Vec<Changes>) -> (Vec<DeltaBatch>, Vec<DeltaBatch>, Changes) {
    let right = inputs.pop().unwrap_or_default();
    let left = inputs.pop().unwrap_or_default();
    let mut output = Changes {
        deltas: Vec::new(),
        errors: left.errors,
    };
    output.errors.extend(right.errors);
    (left.deltas, right.deltas, output)
}

impl Join {
    /// Of either input, by its keys: rows that can match, together, and an index over the keys. NULL may be left out if it matches nothing.
    pub(crate) fn needs(keys: &[usize], null_equals_null: bool) -> Needs {
        let without_nulls = if null_equals_null {
            Vec::new()
        } else {
            keys.to_vec()
        };
        let kept = Kept {
            without_nulls,
            indexes: vec![IndexSpec::Key(keys.to_vec())],
        };
        Needs::rows(Placement::Matched(keys.to_vec()), kept)
    }

    fn probe_right(
        &self,
        tick: Tick<'_>,
        left: &[DeltaBatch],
        output: &mut Changes,
    ) -> Result<(), Error> {
        for delta in left {
            self.probe(tick, delta, &self.left.keys, &self.right, true, output)?;
        }
        Ok(())
    }

    /// Looks up each row of `delta` in the other side's arrangement.
    fn probe(
        &self,
        tick: Tick<'_>,
        delta: &DeltaBatch,
        keys: &[usize],
        other: &Side,
        delta_is_left: bool,
        output: &mut Changes,
    ) -> Result<(), Error> {
        let relation = tick.relations.get(other.relation)?;
        if relation.rows() == 0 {
            return Ok(());
        }
        let arrangement = relation.index(other.index)?;
        let delta_keys = select(delta.rows.columns(), keys)?;
        let hashes = hash_rows(&delta_keys, delta.len())?;
        let path = tick.path(delta);
        let probe = Probe {
            delta,
            keys,
            delta_is_left,
            other,
            relation,
            path,
        };
        let mut matches = Matches::default();
        let mut lists = Vec::with_capacity(PROBED_TOGETHER);
        for (block, hashes) in hashes.chunks(PROBED_TOGETHER).enumerate() {
            budget::check()?;
            lists.clear();
            lists.extend(hashes.iter().map(|hash| arrangement.get(*hash)));
            for (offset, list) in lists.iter().enumerate() {
                let row = block * PROBED_TOGETHER + offset;
                if list.is_empty()
                    || (!self.null_equals_null && delta_keys.iter().any(|key| key.is_null(row)))
                {
                    continue;
                }
                let change = delta.weights.get(row);
                for id in *list {
                    let weight = relation.weight(*id);
                    if weight == 0
                        || (path == Path::Point
                            && !relation.matches(*id, &other.keys, &delta_keys, row)?)
                    {
                        continue;
                    }
                    matches.rows.push(index(row));
                    matches.others.push(*id);
                    matches.weights.push(multiply_weights(change, weight)?);
                    // Also in the middle of a key: one that matches millions of rows makes batches, not one array.
                    if matches.rows.len() == ROWS_PER_BATCH {
                        self.emit(&probe, &mut matches, output)?;
                    }
                }
            }
        }
        if !matches.rows.is_empty() {
            self.emit(&probe, &mut matches, output)?;
        }
        Ok(())
    }

    /// Makes a batch of what was found. On the bulk path rows of equal key hash were found, and those whose keys differ are left out here.
    fn emit(
        &self,
        probe: &Probe<'_>,
        matches: &mut Matches,
        output: &mut Changes,
    ) -> Result<(), Error> {
        budget::check()?;
        let rows = matches.rows.len();
        let indices = UInt32Array::from(std::mem::take(&mut matches.rows));
        let mut columns = take_columns(probe.delta.rows.columns(), &indices)?;
        let others = probe.relation.gather(&matches.others)?;
        let wrong = match probe.path {
            Path::Point => None,
            Path::Bulk => differing(
                &select(&columns, probe.keys)?,
                &select(&others, &probe.other.keys)?,
                rows,
            )?,
        };
        if probe.delta_is_left {
            columns.extend(others);
        } else {
            columns.splice(0..0, others);
        }
        let mut found = DeltaBatch::new(
            make_batch(&self.schema, columns, rows)?,
            weights_of(std::mem::take(&mut matches.weights)),
            probe.delta.epoch,
        );
        if let Some(wrong) = wrong {
            found = found.filter(&arrow::compute::not(&wrong)?)?;
        }
        output.push(found);
        matches.others.clear();
        Ok(())
    }

    /// The term for rows of both sides that changed in this very tick.
    fn join_deltas(
        &self,
        left: &DeltaBatch,
        right: &DeltaBatch,
        output: &mut Changes,
    ) -> Result<(), Error> {
        let left_keys = select(left.rows.columns(), &self.left.keys)?;
        let right_keys = select(right.rows.columns(), &self.right.keys)?;
        let right_hashes = hash_rows(&right_keys, right.len())?;
        // Rows of equal hash are chained in reverse insertion, which happens in reverse: chains run in row order.
        let mut heads = HashMap::<u64, u32>::with_capacity(right.len());
        let mut next = vec![u32::MAX; right.len()];
        for (row, hash) in right_hashes.iter().enumerate().rev() {
            if let Some(head) = heads.insert(*hash, index(row)) {
                next[row] = head;
            }
        }
        let (mut left_rows, mut right_rows, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        let mut flush = |left_rows: &mut Vec<u32>,
                         right_rows: &mut Vec<u32>,
                         weights: &mut Vec<i64>|
         -> Result<(), Error> {
            budget::check()?;
            let rows = left_rows.len();
            let mut columns = take_columns(
                left.rows.columns(),
                &UInt32Array::from(std::mem::take(left_rows)),
            )?;
            columns.extend(take_columns(
                right.rows.columns(),
                &UInt32Array::from(std::mem::take(right_rows)),
            )?);
            output.push(DeltaBatch::new(
                make_batch(&self.schema, columns, rows)?,
                weights_of(std::mem::take(weights)),
                left.epoch,
            ));
            Ok(())
        };
        for (row, hash) in hash_rows(&left_keys, left.len())?.into_iter().enumerate() {
            if !self.null_equals_null && left_keys.iter().any(|key| key.is_null(row)) {
                continue;
            }
            let mut at = heads.get(&hash).copied().unwrap_or(u32::MAX);
            while let Ok(other) = usize::try_from(at)
                && other < next.len()
            {
                if rows_equal(&left_keys, row, &right_keys, other)? {
                    left_rows.push(index(row));
                    right_rows.push(at);
                    weights.push(multiply_weights(
                        left.weights.get(row),
                        right.weights.get(other),
                    )?);
                    if left_rows.len() == ROWS_PER_BATCH {
                        flush(&mut left_rows, &mut right_rows, &mut weights)?;
                    }
                }
                at = next[other];
            }
        }
        if !left_rows.is_empty() {
            flush(&mut left_rows, &mut right_rows, &mut weights)?;
        }
        Ok(())
    }
}

/// One delta and the arrangement it is looked up in.
struct Probe<'a> {
    delta: &'a DeltaBatch,
    /// Key columns of `delta`.
    keys: &'a [usize],
    delta_is_left: bool,
    other: &'a Side,
    relation: &'a Relation,
    path: Path,
}

/// Rows of `left` whose keys are not those of the same row of `right`, NULL equal to NULL; `None` if there are none, as is usual: two keys of one hash
/// are rare.
fn differing(
    left: &[ArrayRef],
    right: &[ArrayRef],
    rows: usize,
) -> Result<Option<BooleanArray>, Error> {
    let mut wrong: Option<BooleanArray> = None;
    for (left, right) in itertools::zip_eq(left, right) {
        let differ = if left.data_type().is_nested() {
            // Arrow compares no lists.
            (0..rows)
                .map(|row| values_equal(left, row, right, row).map(|equal| Some(!equal)))
                .collect::<Result<_, _>>()?
        } else {
            arrow_ord::cmp::distinct(left, right)?
        };
        if differ.has_true() {
            wrong = Some(match wrong {
                None => differ,
                Some(wrong) => arrow::compute::or(&wrong, &differ)?,
            });
        }
    }
    Ok(wrong)
}

#[derive(Default)]
struct Matches {
    rows: Vec<u32>,
    others: Vec<RowId>,
    weights: Vec<i64>,
}

fn take_columns(columns: &[ArrayRef], indices: &UInt32Array) -> Result<Vec<ArrayRef>, Error> {
    columns
        .iter()
        .map(|column| Ok(arrow_select::take::take(column, indices, None)?))
        .collect()
}
