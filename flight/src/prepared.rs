//! Prepared statements and the values bound to them.
//!
//! Owns the statement, its description and the last few bindings. A ticket names the binding it was given for, so that binding other values before it is
//! redeemed does not change its result.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use flowstone_coordinator::{Description, Held, size_of_batch};
use flowstone_sql::ast::Statement;
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;
use parking_lot::Mutex;

use crate::Error;
use crate::convert::convert;
use crate::sessions::Seat;

/// Bindings that tickets can still name.
const BINDINGS_MAX: usize = 8;
/// Bytes of values bound to one statement for a query: they are kept until it is closed. Bulk ingest and updates stream theirs.
const BOUND_BYTES_MAX: usize = 64 << 20;

/// A prepared statement.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where it runs.
    pub(crate) seat: Arc<Seat>,
    /// `None` for an empty one.
    pub(crate) statement: Option<Statement>,
    pub(crate) description: Description,
    _held: Held,
    bindings: Mutex<Bindings>,
}

#[derive(Debug, Default)]
struct Bindings {
    last: u64,
    known: VecDeque<(u64, Arc<Bound>)>,
}

/// Values for a statement's parameters, one or many rows of them.
#[derive(Debug)]
pub(crate) struct Bound {
    batches: Vec<Vec<ArrayRef>>,
    /// Rows of each batch.
    rows: Vec<usize>,
    _held: Option<Held>,
}

impl Bound {
    /// No parameters, run once.
    fn none() -> Self {
        Self {
            batches: vec![Vec::new()],
            rows: vec![1],
            _held: None,
        }
    }

    /// Values out of what a client sent.
    ///
    /// # Errors
    /// [`Error::ParameterCount`], or a value that is none of its parameter's type.
    pub(crate) fn new(
        types: &[SqlType],
        batches: &[RecordBatch],
        held: Option<Held>,
        zone: &TimeZone,
    ) -> Result<Self, Error> {
        if types.is_empty() && batches.iter().all(|batch| batch.num_columns() == 0) {
            return Ok(Self::none());
        }
        let mut bound = Self {
            batches: Vec::with_capacity(batches.len()),
            rows: Vec::with_capacity(batches.len()),
            _held: held,
        };
        for batch in batches {
            bound.batches.push(parameters(types, batch, zone)?);
            bound.rows.push(batch.num_rows());
        }
        Ok(bound)
    }

    /// The parameters of each run, one after the other.
    pub(crate) fn runs(
        self: Arc<Self>,
    ) -> impl Iterator<Item = Vec<ArrayRef>> + Send + Sync + use<> {
        let counts = self.rows.clone();
        let places = counts
            .into_iter()
            .enumerate()
            .flat_map(|(batch, rows)| (0..rows).map(move |row| (batch, row)));
        places.map(move |(batch, row)| {
            let columns = self.batches.get(batch).map(Vec::as_slice);
            columns.map_or_else(Vec::new, |columns| row_of(columns, row))
        })
    }
}

/// One row of some columns, as arrays of one value.
pub(crate) fn row_of(columns: &[ArrayRef], row: usize) -> Vec<ArrayRef> {
    columns.iter().map(|column| column.slice(row, 1)).collect()
}

/// The columns of a batch as parameters of these types.
///
/// # Errors
/// [`Error::ParameterCount`], or a value that is none of its parameter's type.
pub(crate) fn parameters(
    types: &[SqlType],
    batch: &RecordBatch,
    zone: &TimeZone,
) -> Result<Vec<ArrayRef>, Error> {
    if types.len() != batch.num_columns() {
        return Err(Error::ParameterCount {
            expected: types.len(),
            actual: batch.num_columns(),
        });
    }
    itertools::zip_eq(types, batch.columns())
        .enumerate()
        .map(|(index, (sql_type, column))| {
            let place = format!("parameter ${}", index + 1);
            convert(column, sql_type, &place, zone)
        })
        .collect()
}

impl Prepared {
    pub(crate) fn new(
        seat: Arc<Seat>,
        statement: Option<Statement>,
        description: Description,
        held: Held,
    ) -> Self {
        Self {
            seat,
            statement,
            description,
            _held: held,
            bindings: Mutex::default(),
        }
    }

    /// Whether so much may be bound.
    ///
    /// # Errors
    /// [`Error::TooMany`]
    pub(crate) fn check_size(batches: &[RecordBatch]) -> Result<(), Error> {
        let bytes: usize = batches.iter().map(size_of_batch).sum();
        if bytes > BOUND_BYTES_MAX {
            return Err(Error::TooMany("bytes of parameters"));
        }
        Ok(())
    }

    /// Binds values for the queries to come.
    ///
    /// # Errors
    /// What [`Bound::new`] finds.
    pub(crate) fn bind(&self, batches: &[RecordBatch]) -> Result<(), Error> {
        let bytes = batches.iter().map(size_of_batch).sum();
        let held = self.seat.memory().hold(bytes);
        let held = held.map_err(flowstone_coordinator::Error::from)?;
        let bound = Arc::new(Bound::new(
            &self.description.parameters,
            batches,
            Some(held),
            &self.seat.zone(),
        )?);
        let mut bindings = self.bindings.lock();
        bindings.last += 1;
        let number = bindings.last;
        bindings.known.push_back((number, bound));
        if bindings.known.len() > BINDINGS_MAX {
            bindings.known.pop_front();
        }
        Ok(())
    }

    /// The newest binding and its number.
    ///
    /// # Errors
    /// [`Error::Unbound`] if there is none and the statement has parameters.
    pub(crate) fn newest(&self) -> Result<(u64, Arc<Bound>), Error> {
        match self.bindings.lock().known.back() {
            Some((number, bound)) => Ok((*number, Arc::clone(bound))),
            None if self.description.parameters.is_empty() => Ok((0, Arc::new(Bound::none()))),
            None => Err(Error::Unbound),
        }
    }

    /// The binding with a number.
    ///
    /// # Errors
    /// [`Error::BindingGone`]
    pub(crate) fn binding(&self, number: u64) -> Result<Arc<Bound>, Error> {
        if number == 0 {
            return Ok(Arc::new(Bound::none()));
        }
        let bindings = self.bindings.lock();
        let found = bindings.known.iter().find(|(known, _)| *known == number);
        found
            .map(|(_, bound)| Arc::clone(bound))
            .ok_or(Error::BindingGone)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, RecordBatchOptions, StringArray};
    use arrow_schema::Schema;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn each_row_is_one_run() {
        let types = [SqlType::Int4, SqlType::Text];
        let batches = [
            batch(vec![
                ("a", Arc::new(Int64Array::from(vec![1, 2]))),
                ("b", Arc::new(StringArray::from(vec!["x", "y"]))),
            ]),
            batch(vec![
                ("a", Arc::new(Int64Array::from(vec![3]))),
                ("b", Arc::new(StringArray::from(vec![None::<&str>]))),
            ]),
        ];
        let runs: Vec<_> = Arc::new(Bound::new(&types, &batches, None, &TimeZone::UTC).unwrap())
            .runs()
            .collect();
        assert_eq!(runs.len(), 3);
        assert!(runs.iter().all(|run| run.len() == 2));
        assert_eq!(runs[0][0].data_type(), &SqlType::Int4.to_arrow());
        assert!(runs[2][1].is_null(0));
    }

    #[test]
    fn a_statement_without_parameters_runs_once() {
        let options = RecordBatchOptions::new().with_row_count(Some(0));
        let empty =
            RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
        let bound = Bound::new(&[], &[empty.unwrap()], None, &TimeZone::UTC).unwrap();
        assert_eq!(Arc::new(bound).runs().count(), 1);
        assert_eq!(
            Arc::new(Bound::new(&[], &[], None, &TimeZone::UTC).unwrap())
                .runs()
                .count(),
            1
        );
    }

    #[test]
    fn too_few_columns_are_refused() {
        let batches = [batch(vec![("a", Arc::new(Int64Array::from(vec![1])))])];
        let error = Bound::new(
            &[SqlType::Int4, SqlType::Int4],
            &batches,
            None,
            &TimeZone::UTC,
        )
        .unwrap_err();
        assert_eq!(
            error,
            Error::ParameterCount {
                expected: 2,
                actual: 1
            }
        );
    }
}
