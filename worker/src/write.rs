//! Staged writes: a statement's changes, computed but not yet given an epoch.
//!
//! Owns the evaluation of INSERT, UPDATE and DELETE into delta batches and the checks a table makes. Must not know how an epoch is run.
//! Called by the compute; the feed keeps the result until the coordinator names the write in an epoch or discards it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_schema::SchemaRef;
use flowstone_proto::ipc::decode_batches;
use flowstone_proto::message::{RequestError, StageWrite, Staged, WriteOperation};
use flowstone_storage::{LogBlob, LogBlobs};
use flowstone_types::normalize::normalize_batch;
use flowstone_types::{Budget, DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId, Weights};

use crate::error::with_causes;
use crate::query::{QueryRunner, Tables, internal};
use crate::size::bytes_of;

/// What a write needs to know of a table.
#[derive(Clone, Debug)]
pub(crate) struct TableInfo {
    /// The table's SQL name, for messages.
    pub(crate) name: String,
    /// Its columns.
    pub(crate) schema: SchemaRef,
}

impl TableInfo {
    fn width(&self) -> usize {
        self.schema.fields().len()
    }
}

/// A write, evaluated.
#[derive(Debug, Default)]
pub(crate) struct StagedWrite {
    /// The changes of each table; their epoch is set when the write runs.
    pub(crate) changes: Vec<(ObjectId, DeltaBatch)>,
    /// Which of them are on disk already, for their record to name them.
    pub(crate) blobs: Vec<LogBlob>,
    /// Rows affected by each operation.
    pub(crate) affected: Vec<u64>,
    /// What its statement gives of these rows, until somebody took it.
    pub(crate) returned: Vec<RecordBatch>,
}

impl StagedWrite {
    /// Writes what is large of it to the disk, beside everything else: who writes something small meanwhile does not wait for it.
    ///
    /// # Errors
    /// [`RequestError::Storage`]; nothing is left of it then.
    pub(crate) async fn write_large(mut self, blobs: LogBlobs) -> Result<Self, RequestError> {
        if self.bytes() < LogBlobs::LARGE_BYTES {
            return Ok(self);
        }
        let writing = tokio::task::spawn_blocking(move || {
            self.blobs = blobs.write_large(&self.changes)?;
            Ok::<_, flowstone_storage::Error>(self)
        });
        writing
            .await
            .map_err(internal)?
            .map_err(|error| refusal(&error).unwrap_or_else(|| internal(error)))
    }

    /// The first `width` columns of rows; what there is behind them is for whoever reads the statement's rows.
    fn without_returned(
        &mut self,
        rows: Vec<RecordBatch>,
        width: usize,
    ) -> Result<Vec<RecordBatch>, RequestError> {
        let mut written = Vec::with_capacity(rows.len());
        for batch in rows {
            let columns = batch.num_columns();
            // A plan that is known to be empty may come without its columns.
            if columns <= width || batch.num_rows() == 0 {
                written.push(batch);
                continue;
            }
            let part = |columns: std::ops::Range<usize>| {
                let columns: Vec<usize> = columns.collect();
                batch.project(&columns).map_err(internal)
            };
            self.returned.push(normalize_batch(&part(width..columns)?));
            written.push(part(0..width)?);
        }
        Ok(written)
    }

    fn bytes(&self) -> u64 {
        let bytes = self.changes.iter().map(|(_, delta)| bytes_of(&delta.rows));
        u64::try_from(bytes.fold(0, usize::saturating_add)).unwrap_or(u64::MAX)
    }

    /// What the coordinator is told of it.
    pub(crate) fn summary(&self) -> Staged {
        Staged {
            affected: self.affected.clone(),
            bytes: self.bytes(),
        }
    }
}

impl Drop for StagedWrite {
    fn drop(&mut self) {
        if !self.blobs.is_empty() {
            drop_beside(std::mem::take(&mut self.blobs));
        }
    }
}

/// Drops what may be the last there is of large files: to remove them takes time.
pub(crate) fn drop_beside(blobs: Vec<LogBlob>) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(blobs))),
        Err(_) => drop(blobs),
    }
}

/// What writers hear whose changes the disk has refused; `None` if that is no reason to go on without them.
pub(crate) fn refusal(error: &flowstone_storage::Error) -> Option<RequestError> {
    match error {
        flowstone_storage::Error::TooLarge { .. } => Some(RequestError::Eval(EvalError::new(
            EvalErrorKind::TooLarge,
            error.to_string(),
        ))),
        _ if error.retryable() => Some(RequestError::Storage {
            message: with_causes(error),
            full: error.is_full(),
        }),
        _ => None,
    }
}

/// Evaluates a write against `tables`, the content of everything it reads as of the last complete epoch, within `budget`.
///
/// # Errors
/// [`RequestError::NotNull`] and evaluation errors; nothing is staged then.
pub(crate) async fn stage(
    write: &StageWrite,
    tables: &Tables,
    infos: &BTreeMap<ObjectId, TableInfo>,
    runner: &QueryRunner,
    budget: &Arc<Budget>,
) -> Result<StagedWrite, RequestError> {
    let mut staged = StagedWrite::default();
    for operation in &write.operations {
        let affected = match operation {
            WriteOperation::Insert {
                table,
                query,
                system,
            } => {
                let rows = runner
                    .collect(query, &tables.with_system(system)?, budget)
                    .await?;
                let info = info(infos, *table)?;
                let rows = staged.without_returned(rows, info.width())?;
                add(&mut staged, *table, info, rows, Weights::AllOne)?
            }
            WriteOperation::InsertRows { table, rows } => {
                let (_, rows) = decode_batches(rows).map_err(internal)?;
                add(
                    &mut staged,
                    *table,
                    info(infos, *table)?,
                    rows,
                    Weights::AllOne,
                )?
            }
            WriteOperation::Delete {
                table,
                query,
                system,
            } => {
                let rows = runner
                    .collect(query, &tables.with_system(system)?, budget)
                    .await?;
                let info = info(infos, *table)?;
                let rows = staged.without_returned(rows, info.width())?;
                add(&mut staged, *table, info, rows, Weights::Const(-1))?
            }
            WriteOperation::Update {
                table,
                query,
                system,
            } => {
                let rows = runner
                    .collect(query, &tables.with_system(system)?, budget)
                    .await?;
                let info = info(infos, *table)?;
                let width = info.width();
                let rows = staged.without_returned(rows, 2 * width)?;
                let (mut old, mut new) = (
                    Vec::with_capacity(rows.len()),
                    Vec::with_capacity(rows.len()),
                );
                for batch in rows {
                    old.push(
                        batch
                            .project(&(0..width).collect::<Vec<_>>())
                            .map_err(internal)?,
                    );
                    new.push(
                        batch
                            .project(&(width..2 * width).collect::<Vec<_>>())
                            .map_err(internal)?,
                    );
                }
                add(&mut staged, *table, info, old, Weights::Const(-1))?;
                add(&mut staged, *table, info, new, Weights::AllOne)?
            }
        };
        staged.affected.push(affected);
    }
    Ok(staged)
}

fn info(
    infos: &BTreeMap<ObjectId, TableInfo>,
    table: ObjectId,
) -> Result<&TableInfo, RequestError> {
    infos.get(&table).ok_or(RequestError::Dropped)
}

/// Adds rows with a weight to the staged changes, after the table's checks. Returns how many rows.
fn add(
    staged: &mut StagedWrite,
    table: ObjectId,
    info: &TableInfo,
    batches: Vec<RecordBatch>,
    weights: Weights,
) -> Result<u64, RequestError> {
    let mut affected = 0;
    for batch in batches {
        if batch.num_rows() == 0 {
            continue;
        }
        if batch.num_columns() != info.schema.fields().len() {
            return Err(RequestError::Internal(format!(
                "write of {} columns to \"{}\"",
                batch.num_columns(),
                info.name
            )));
        }
        for (column, field) in itertools::zip_eq(batch.columns(), info.schema.fields()) {
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(RequestError::NotNull {
                    column: field.name().clone(),
                    relation: info.name.clone(),
                });
            }
            if column.data_type() != field.data_type() {
                return Err(RequestError::Internal(format!(
                    "write of {} to column \"{}\" of type {}",
                    column.data_type(),
                    field.name(),
                    field.data_type()
                )));
            }
        }
        // The query's field names and metadata give way to the table's.
        let batch = RecordBatch::try_new(
            std::sync::Arc::clone(&info.schema),
            batch.columns().to_vec(),
        )
        .map_err(internal)?;
        affected += u64::try_from(batch.num_rows()).map_err(internal)?;
        staged.changes.push((
            table,
            DeltaBatch::new(normalize_batch(&batch), weights.clone(), Epoch::MIN),
        ));
    }
    Ok(affected)
}
