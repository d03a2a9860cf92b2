//! Source changes become deltas: what an upstream states by key is resolved against the collection's current rows.
//!
//! Changes are taken in upstream order; a later one sees the effect of the earlier ones of the same tick. Cost: O(changes), plus the collection's
//! size for a truncation.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_row::{RowConverter, SortField};
use flowstone_types::hash::hash_rows;
use flowstone_types::normalize::normalize_batch;
use flowstone_types::{DeltaBatch, Epoch, EvalError, EvalErrorKind, SourceChanges, SourceOp};
use hashbrown::HashMap;

use crate::Error;
use crate::batch::{Changes, make_batch, weights_of};
use crate::partition::select;
use crate::relation::{Gather, Relation, RowId};

/// Where a row's values are.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In the collection.
    State(RowId),
    /// In the tick's changes: which of them, and the row.
    Input(usize, usize),
    /// An input row with some cells from elsewhere.
    Patched(usize),
}

/// An input row, and the cells that another row fills.
#[derive(Debug)]
struct Patch {
    base: (usize, usize),
    cells: Vec<usize>,
    from: Place,
}

struct Resolver<'a> {
    relation: &'a Relation,
    /// Columns that identify a row: the key, or all columns.
    identity: Vec<usize>,
    keyed: bool,
    batches: Vec<RecordBatch>,
    /// Rows that this tick has looked at, as they are now.
    overlay: HashMap<Box<[u8]>, Vec<(Place, i64)>>,
    truncated: bool,
    rows: Vec<(Place, i64)>,
    patches: Vec<Patch>,
    changes: Changes,
}

/// Resolves one tick's changes of one collection. The result is not consolidated.
///
/// A change that contradicts the collection becomes a permanent error of kind `Source`.
pub(crate) fn resolve(
    relation: &Relation,
    key: Option<&[usize]>,
    changes: &[SourceChanges],
    epoch: Epoch,
) -> Result<Changes, Error> {
    let mut batches = Vec::with_capacity(changes.len());
    for change in changes {
        let rows = make_batch(
            relation.schema(),
            change.rows.columns().to_vec(),
            change.rows.num_rows(),
        )?;
        if change.ops.len() != rows.num_rows() {
            return Err(Error::invariant(
                "source changes with another number of operations than rows",
            ));
        }
        batches.push(normalize_batch(&rows));
    }
    let inserts_only = changes.iter().all(|change| {
        !change.truncate_before && change.ops.iter().all(|op| *op == SourceOp::Insert)
    });
    if inserts_only && key.is_none() {
        let mut output = Changes::default();
        batches
            .into_iter()
            .for_each(|rows| output.push(DeltaBatch::insert(rows, epoch)));
        return Ok(output);
    }
    let width = relation.schema().fields().len();
    let mut resolver = Resolver {
        relation,
        identity: key.map_or_else(|| (0..width).collect(), <[usize]>::to_vec),
        keyed: key.is_some(),
        batches,
        overlay: HashMap::new(),
        truncated: false,
        rows: Vec::new(),
        patches: Vec::new(),
        changes: Changes::default(),
    };
    for (number, change) in changes.iter().enumerate() {
        if change.truncate_before {
            resolver.truncate(epoch)?;
        }
        resolver.take(number, change)?;
    }
    resolver.finish(epoch)
}

impl Resolver<'_> {
    /// Everything goes: rows of the collection once, rows of this tick as if they had never been.
    fn truncate(&mut self, epoch: Epoch) -> Result<(), Error> {
        self.rows.clear();
        self.overlay.clear();
        if !self.truncated {
            for delta in self.relation.current().deltas(epoch)? {
                self.changes.push(delta.negate()?);
            }
        }
        self.truncated = true;
        Ok(())
    }

    fn take(&mut self, number: usize, change: &SourceChanges) -> Result<(), Error> {
        let Some(batch) = self.batches.get(number) else {
            return Err(Error::invariant("batch of changes is gone"));
        };
        let keys = select(batch.columns(), &self.identity)?;
        let fields = keys
            .iter()
            .map(|key| SortField::new(key.data_type().clone()))
            .collect();
        let encoded = if keys.is_empty() {
            None
        } else {
            Some(RowConverter::new(fields)?.convert_columns(&keys)?)
        };
        let hashes = hash_rows(&keys, batch.num_rows())?;
        let mut unchanged = HashMap::<usize, Vec<usize>>::new();
        for (row, column) in &change.unchanged {
            unchanged
                .entry(usize::try_from(*row).unwrap_or(usize::MAX))
                .or_default()
                .push(usize::from(*column));
        }
        for (row, (op, hash)) in itertools::zip_eq(&change.ops, hashes).enumerate() {
            let encoded = encoded.as_ref().map(|encoded| encoded.row(row));
            let key = encoded.as_ref().map_or(&[][..], |row| row.data());
            let mut current = match self.overlay.get_mut(key) {
                Some(current) => std::mem::take(current),
                None if self.truncated => Vec::new(),
                None => self.stored(hash, &keys, row)?,
            };
            let input = Place::Input(number, row);
            match op {
                SourceOp::Insert if !self.keyed => {
                    self.rows.push((input, 1));
                    match current.first_mut() {
                        Some((_, weight)) => *weight += 1,
                        None => current.push((input, 1)),
                    }
                }
                SourceOp::Insert | SourceOp::Upsert if self.keyed => {
                    let cells = unchanged.remove(&row).unwrap_or_default();
                    let place = match (cells.is_empty(), current.first()) {
                        (true, _) => Some(input),
                        (false, Some((from, _))) => {
                            self.patches.push(Patch {
                                base: (number, row),
                                cells,
                                from: *from,
                            });
                            Some(Place::Patched(self.patches.len() - 1))
                        }
                        (false, None) => None,
                    };
                    if let Some(place) = place {
                        self.retract_all(&mut current);
                        self.rows.push((place, 1));
                        current.push((place, 1));
                    } else {
                        self.fail("saw an update of a row that does not exist");
                    }
                }
                _ if current.is_empty() => {
                    self.fail("saw a retraction for a row that does not exist")
                }
                SourceOp::Delete | SourceOp::DeleteByKey if self.keyed => {
                    self.retract_all(&mut current)
                }
                SourceOp::Delete => {
                    if let Some((place, weight)) = current.first_mut() {
                        self.rows.push((*place, -1));
                        *weight -= 1;
                        if *weight == 0 {
                            current.remove(0);
                        }
                    }
                }
                SourceOp::Insert | SourceOp::Upsert | SourceOp::DeleteByKey => {
                    return Err(Error::invariant(
                        "change by key of a collection without a key",
                    ));
                }
            }
            match self.overlay.get_mut(key) {
                Some(slot) => *slot = current,
                None => {
                    self.overlay.insert(key.into(), current);
                }
            }
        }
        Ok(())
    }

    /// The collection's rows with the identity of row `row` of `keys`.
    fn stored(&self, hash: u64, keys: &[ArrayRef], row: usize) -> Result<Vec<(Place, i64)>, Error> {
        let mut found = Vec::new();
        for id in self.relation.index(0)?.get(hash) {
            let weight = self.relation.weight(*id);
            if weight != 0 && self.relation.matches(*id, &self.identity, keys, row)? {
                found.push((Place::State(*id), weight));
            }
        }
        Ok(found)
    }

    fn retract_all(&mut self, current: &mut Vec<(Place, i64)>) {
        self.rows
            .extend(current.drain(..).map(|(place, weight)| (place, -weight)));
    }

    fn fail(&mut self, message: &str) {
        self.changes
            .errors
            .push((EvalError::new(EvalErrorKind::Source, message), 1));
    }

    fn finish(mut self, epoch: Epoch) -> Result<Changes, Error> {
        let schema = self.relation.schema();
        let mut gather = Gather::default();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for column in 0..schema.fields().len() {
            let mut places = Vec::with_capacity(self.rows.len());
            for (place, _) in &self.rows {
                places.push(self.cell(*place, column, &mut gather)?);
            }
            columns.push(gather.column(schema, column, &places)?);
        }
        let rows = make_batch(schema, columns, self.rows.len())?;
        let weights = weights_of(self.rows.iter().map(|(_, weight)| *weight).collect());
        self.changes.push(DeltaBatch::new(rows, weights, epoch));
        Ok(self.changes)
    }

    /// Where the value of one column of a row is.
    fn cell<'a>(
        &'a self,
        mut place: Place,
        column: usize,
        gather: &mut Gather<'a>,
    ) -> Result<(usize, usize), Error> {
        loop {
            let (batch, row) = match place {
                Place::State(id) => return self.relation.gather_place(id, gather),
                Place::Input(batch, row) => (batch, row),
                Place::Patched(number) => {
                    let patch = self
                        .patches
                        .get(number)
                        .ok_or_else(|| Error::invariant("patch is gone"))?;
                    if patch.cells.contains(&column) {
                        place = patch.from;
                        continue;
                    }
                    patch.base
                }
            };
            let batch = self
                .batches
                .get(batch)
                .ok_or_else(|| Error::invariant("batch of changes is gone"))?;
            return Ok((gather.source(batch), row));
        }
    }
}
