//! The first rows of each group in a total order: ORDER BY with LIMIT and OFFSET per group, `DISTINCT ON`.
//!
//! Per tick only touched groups are looked at: the window before and the window after are walked and their difference emitted.
//! State: none of its own; the input's rows are kept, with an ordered index. Cost: O(touched groups · (offset + limit) + |δ| log n).
//! Without a limit the rows passed over are the window that is kept, and the output is the input without them; without an offset either, nothing is kept.

use std::cmp::Ordering;

use arrow_schema::SchemaRef;
use flowstone_proto::plan::OrderColumn;
use flowstone_types::{DeltaBatch, Epoch, budget};
use itertools::Itertools;

use super::{Arrangement, Kept, Needs, Operator, Placement, RelationId, Tick, merge, settled};
use crate::Error;
use crate::batch::{Changes, ROWS_PER_BATCH, make_batch, weights_of, with_schema};
use crate::relation::{Entry, Groups, IndexSpec, Order, Ordered, Place};

#[derive(Debug)]
pub(crate) struct TopK {
    pub(crate) limit: Option<u64>,
    pub(crate) offset: u64,
    /// Relaxed schema of input and output.
    pub(crate) schema: SchemaRef,
    /// The input's rows, with the index that was asked for; `None` if all rows pass.
    pub(crate) arrangement: Option<Arrangement>,
}

/// Changes of the output that were found.
#[derive(Default)]
struct Found {
    places: Vec<Place>,
    weights: Vec<i64>,
}

impl Operator for TopK {
    fn run(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let input = merge(inputs);
        let mut output = self.pass_on(&input)?;
        let Some((relation, number)) = self.index() else {
            return Ok(output);
        };
        let relation = tick.relations.get(relation)?;
        let Some(delta) = settled(relation, &input.deltas, tick.epoch)? else {
            return Ok(output);
        };
        let groups = relation
            .ordered(number)?
            .groups(delta.rows.columns(), delta.len())?;
        let (before, after) = (relation.before(), relation.after(&delta)?);
        let (before, after) = (before.ordered(number)?, after.ordered(number)?);
        let windows = (Some(&before), &after);
        self.differences(tick.epoch, groups.distinct(), windows, &mut output)?;
        Ok(output)
    }

    fn hydrate(&mut self, tick: Tick<'_>, inputs: Vec<Changes>) -> Result<Changes, Error> {
        let input = merge(inputs);
        let mut output = self.pass_on(&input)?;
        let Some((relation, number)) = self.index() else {
            return Ok(output);
        };
        let relation = tick.relations.get(relation)?;
        let index = relation.ordered(number)?;
        let mut groups = Vec::with_capacity(input.deltas.len());
        for delta in &input.deltas {
            groups.push(index.groups(delta.rows.columns(), delta.len())?);
        }
        let groups = groups.iter().flat_map(Groups::distinct).unique();
        let now = relation.before();
        let now = now.ordered(number)?;
        self.differences(tick.epoch, groups, (None, &now), &mut output)?;
        Ok(output)
    }

    fn reads(&self) -> Vec<(RelationId, usize)> {
        self.index().into_iter().collect()
    }
}

impl TopK {
    /// Of an input with so many columns: rows by group, in an order that the columns make total.
    ///
    /// # Errors
    /// [`Error::Plan`] if a column is not there.
    pub(crate) fn needs(
        width: usize,
        group: &[usize],
        order: &[OrderColumn],
        (limit, offset): (Option<u64>, u64),
    ) -> Result<Needs, Error> {
        let ordered = order.iter().map(|column| column.column);
        let mut columns = group.iter().copied().chain(ordered);
        if let Some(column) = columns.find(|column| *column >= width) {
            return Err(Error::Plan(format!("top k reads column {column}")));
        }
        let at = Placement::Grouped(group.to_vec());
        if limit.is_none() && offset == 0 {
            return Ok(Needs::changes(at));
        }
        let kept = Kept {
            without_nulls: Vec::new(),
            indexes: vec![IndexSpec::Ordered(Order::total(group, order, width))],
        };
        Ok(Needs::rows(at, kept))
    }

    fn index(&self) -> Option<(RelationId, usize)> {
        let arrangement = self.arrangement.as_ref()?;
        Some((arrangement.relation, *arrangement.indexes.first()?))
    }

    /// The errors, and all rows if there is no limit.
    fn pass_on(&self, input: &Changes) -> Result<Changes, Error> {
        let mut output = Changes {
            deltas: Vec::new(),
            errors: input.errors.clone(),
        };
        if self.limit.is_none() {
            for delta in &input.deltas {
                output.push(with_schema(delta, &self.schema)?);
            }
        }
        Ok(output)
    }

    /// What the windows of these groups make of the output, from `old` rows, if there were any, to `new` ones.
    fn differences<'a>(
        &self,
        epoch: Epoch,
        groups: impl Iterator<Item = &'a [u8]>,
        (old, new): (Option<&Ordered<'_>>, &Ordered<'_>),
        output: &mut Changes,
    ) -> Result<(), Error> {
        let sign = if self.limit.is_some() { 1 } else { -1 };
        let mut found = Found::default();
        for group in groups {
            budget::check()?;
            let mut before = Vec::new();
            if let Some(old) = old {
                before = self.window(old.rows(group))?;
            }
            let after = self.window(new.rows(group))?;
            differ(&before, &after, &mut |place, change| {
                found.places.push(place);
                found.weights.push(sign * change);
            });
            if found.places.len() >= ROWS_PER_BATCH {
                self.emit(epoch, new, std::mem::take(&mut found), output)?;
            }
        }
        self.emit(epoch, new, found, output)
    }

    /// The rows at positions `offset..offset + limit`, or `0..offset` if there is no limit, by their places.
    fn window(
        &self,
        mut rows: impl Iterator<Item = Result<Entry, Error>>,
    ) -> Result<Vec<Entry>, Error> {
        let (mut skip, mut take) = match self.limit {
            Some(limit) => (
                i64::try_from(self.offset).unwrap_or(i64::MAX),
                i64::try_from(limit).unwrap_or(i64::MAX),
            ),
            None => (0, i64::try_from(self.offset).unwrap_or(i64::MAX)),
        };
        let mut window = Vec::new();
        while take > 0
            && let Some(row) = rows.next()
        {
            let row = row?;
            let passed = skip.min(row.weight);
            skip -= passed;
            let taken = take.min(row.weight - passed);
            take -= taken;
            if taken > 0 {
                window.push(Entry {
                    weight: taken,
                    ..row
                });
            }
        }
        window.sort_unstable_by_key(|row| row.place);
        Ok(window)
    }

    fn emit(
        &self,
        epoch: Epoch,
        rows: &Ordered<'_>,
        found: Found,
        output: &mut Changes,
    ) -> Result<(), Error> {
        if found.places.is_empty() {
            return Ok(());
        }
        let columns = rows.columns(&found.places)?;
        let rows = make_batch(&self.schema, columns, found.places.len())?;
        output.push(DeltaBatch::new(rows, weights_of(found.weights), epoch));
        Ok(())
    }
}

/// Calls `emit` with each row whose multiplicity differs, and by how much. Both windows are sorted by places.
fn differ(old: &[Entry], new: &[Entry], emit: &mut dyn FnMut(Place, i64)) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.place.cmp(&new.place),
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
        let change = after.map_or(0, |row| row.weight) - before.map_or(0, |row| row.weight);
        if let Some(row) = before.or(after)
            && change != 0
        {
            emit(row.place, change);
        }
    }
}
