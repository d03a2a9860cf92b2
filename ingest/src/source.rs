//! What a running source is to the worker, whatever it reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_proto::message::{
    Failure, ReplicationSlot, SourceBinding, SourceDescription, SourceKind, SourceStatistics,
    SourceStatus, SourceTable,
};
use flowstone_types::{Clock, EvalError, ObjectId, SourceChanges, SourcePosition};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::generator::GeneratorSource;
use crate::kafka::{self, KafkaTopicSource};
use crate::postgres::{self, PostgresSource};
use crate::state_file;
use crate::transactions::{BufferLimits, remove_leftovers};
use flowstone_storage::{DeltaTables, StagedSnapshot};

/// Why a source cannot give what it is asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Upstream cannot give it any more, for example because the replication slot is gone: that is final. The source must be dropped.
    #[error("{message}")]
    Failed {
        /// Why.
        message: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// The source was stopped while it was waited for.
    #[error("source was stopped")]
    Stopped,
    /// A file of the source's own state could not be written or read.
    #[error("could not access source state file \"{}\"", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A server did not do what it was asked for. It may do so later.
    #[error("{message}")]
    Upstream {
        /// What was asked, and what it says.
        message: String,
    },
    /// A file of the source's own state is not as it was written. Refuse to start, and name the file.
    #[error("source state file \"{}\" is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A snapshot could not be staged.
    #[error("could not stage snapshot")]
    Storage(#[from] flowstone_storage::Error),
    /// A bug of ours.
    #[error("source invariant violated: {0}")]
    Invariant(String),
}

impl Error {
    /// Whether the same call may succeed later without anybody repairing anything.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::State { .. } | Self::Upstream { .. } => true,
            Self::Storage(error) => error.retryable(),
            Self::Failed { .. } | Self::Stopped | Self::Damaged { .. } | Self::Invariant(_) => {
                false
            }
        }
    }
}

/// What a source needs from its surroundings.
#[derive(Debug)]
pub struct SourceContext {
    /// Where snapshots are staged.
    pub tables: DeltaTables,
    /// The time, for generated timestamps and retries.
    pub clock: Arc<dyn Clock>,
    /// A directory for small durable files: manifests of staged snapshots, errors of tables. Shared by sources; files are named by source. Changes that
    /// there is no room for in memory are in `spill` below it, while the process runs.
    pub state_dir: PathBuf,
    /// The schema of each table's collection.
    pub schemas: Vec<(ObjectId, SchemaRef)>,
    /// Where the source reports to. Progress is coalesced when it is full; everything else waits.
    pub events: mpsc::Sender<SourceEvent>,
}

/// What a source reports.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceEvent {
    /// Whole transactions up to `position` are buffered. Sent also when nothing changed but the position, so that an idle source advances.
    Progress {
        /// The source.
        source: ObjectId,
        /// What can be bound.
        position: SourcePosition,
        /// The newest position known to exist upstream.
        upstream: SourcePosition,
    },
    /// The snapshot of tables is on disk and can be bound with any position that covers `position`.
    ///
    /// Sent again after a restart for snapshots that were not in the commit point, even if a durable binding names them already.
    Snapshot {
        /// The source.
        source: ObjectId,
        /// The tables.
        tables: Vec<ObjectId>,
        /// The position the snapshot was taken at.
        position: SourcePosition,
    },
    /// The state of the source or of one of its tables changed.
    Status {
        /// The source or the table.
        object: ObjectId,
        /// The state.
        status: SourceStatus,
    },
    /// Counters of one table or of the source; sent every second while they move.
    Statistics(SourceStatistics),
}

/// Something that happens to one table.
#[derive(Clone, Debug)]
pub struct TableChanges {
    /// The table.
    pub table: ObjectId,
    /// What happens.
    pub data: TableData,
}

/// What happens to a table.
#[derive(Clone, Debug)]
pub enum TableData {
    /// Ordered changes of whole transactions.
    ///
    /// An `Upsert` that is noted as moved follows the `DeleteByKey` of the row's old key directly: cells it leaves unchanged are those of the deleted row.
    Changes(SourceChanges),
    /// The table's first content.
    Snapshot(StagedSnapshot),
    /// Rows that hold a value the table cannot, and those that no longer do: errors with weights. Reads of the table fail while one stands.
    RowErrors(Vec<(EvalError, i64)>),
    /// The table cannot go on: permanent, of kind `Source`. Given again at the first take after a restart.
    Error(EvalError),
}

/// A running source. Dropping it without [`SourceHandle::stop`] ends its tasks without waiting for them, nor for the removal of what waits on disk.
#[derive(Debug)]
pub struct SourceHandle(Inner);

#[derive(Debug)]
enum Inner {
    Generator(GeneratorSource),
    Postgres(PostgresSource),
    Kafka(KafkaTopicSource),
    /// It failed for good in an earlier run.
    Failed(Failure),
}

/// What was taken, piece by piece: of changes at most 8 192 rows or 64 MB each, but for rows that are larger themselves.
///
/// Dropping it before the end loses what is left; the source must be started again then.
#[derive(Debug)]
pub struct Pieces(PiecesInner);

#[derive(Debug)]
enum PiecesInner {
    /// They are in memory already, as large as they were made.
    Made(std::vec::IntoIter<TableChanges>),
    Buffered(Box<postgres::Taking>),
    Messages(Box<kafka::Taking>),
}

impl Pieces {
    /// The next piece, in order; `None` once there is none, and what the source has to remember of the take is on disk.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a file in which changes waited is not what was written: upstream still has them. [`Error::Stopped`] if the source's tasks ended.
    pub async fn next(&mut self) -> Result<Option<TableChanges>, Error> {
        match &mut self.0 {
            PiecesInner::Made(pieces) => Ok(pieces.next()),
            PiecesInner::Buffered(taking) => taking.next().await,
            PiecesInner::Messages(taking) => taking.next().await,
        }
    }
}

/// Starts a source. It runs its own tasks on the current tokio runtime until stopped. One that has failed for good does nothing.
///
/// # Errors
/// [`Error::Damaged`] or [`Error::State`] if a file of its state cannot be used.
///
/// # Panics
/// Outside a tokio runtime.
///
/// # Cancel safety
/// None: the source may be started after that, and ends again without being waited for.
pub async fn start(
    description: SourceDescription,
    context: SourceContext,
) -> Result<SourceHandle, Error> {
    start_within(BufferLimits::default(), description, context).await
}

/// The same with other limits of what may wait to be taken.
///
/// # Errors
/// As [`start`].
///
/// # Panics
/// As [`start`].
///
/// # Cancel safety
/// As [`start`].
pub async fn start_within(
    limits: BufferLimits,
    description: SourceDescription,
    context: SourceContext,
) -> Result<SourceHandle, Error> {
    tokio::task::spawn_blocking(move || start_blocking(limits, description, context))
        .await
        .map_err(|error| Error::Invariant(error.to_string()))?
}

/// Removes what an earlier run left and reads the files of the source's state. Blocks.
fn start_blocking(
    limits: BufferLimits,
    description: SourceDescription,
    context: SourceContext,
) -> Result<SourceHandle, Error> {
    // Upstream still has it.
    remove_leftovers(&context.state_dir, description.id)?;
    if let Some(failure) = description.failure {
        return Ok(SourceHandle(Inner::Failed(failure)));
    }
    Ok(SourceHandle(match &description.kind {
        SourceKind::Postgres { .. } => {
            Inner::Postgres(PostgresSource::start(description, context, limits)?)
        }
        SourceKind::LoadGenerator { .. } => {
            Inner::Generator(GeneratorSource::start(description, context)?)
        }
        SourceKind::Kafka(_) => {
            Inner::Kafka(KafkaTopicSource::start(description, context, limits)?)
        }
    }))
}

/// Removes what a dropped source left behind: its slot upstream, if it had one, then its state files. One attempt.
///
/// # Errors
/// What upstream or the file system says; to be tried again.
pub async fn clean_up(
    id: ObjectId,
    slot: Option<&ReplicationSlot>,
    state_dir: &Path,
) -> Result<(), Error> {
    if let Some(ReplicationSlot { connection, slot }) = slot {
        postgres::drop_slot_of(connection, slot).await?;
    }
    for ending in [
        "manifest.json",
        "errors.json",
        "row-errors.json",
        "generator.json",
    ] {
        let path = state_dir.join(format!("{id}-{ending}"));
        tokio::task::spawn_blocking(move || state_file::remove(&path))
            .await
            .map_err(|error| Error::Invariant(error.to_string()))??;
    }
    let state_dir = state_dir.to_owned();
    tokio::task::spawn_blocking(move || remove_leftovers(&state_dir, id))
        .await
        .map_err(|error| Error::Invariant(error.to_string()))?
}

impl SourceHandle {
    /// Takes everything after the last taken position up to and including `binding.position`, and the snapshots it names.
    ///
    /// Waits until that much is buffered: after a restart the source reads it again from upstream; and where the take ends in something on disk, until that was
    /// read. For each table the results are in order; a table's snapshot comes before its changes. A table whose snapshot was not bound yet gives nothing.
    /// Snapshots that were taken before are ignored.
    ///
    /// One after the other: a take begins when the pieces of the one before have come to their end. Which rows are in error follows from the changes in their
    /// order, and what was taken does not count as waiting any more, so nobody would hold the upstream back.
    ///
    /// # Errors
    /// [`Error::Failed`] if upstream cannot give it any more. [`Error::Stopped`] if the source's tasks ended. [`Error::Invariant`] if the position is not of the
    /// source's kind.
    ///
    /// # Cancel safety
    /// Safe while it waits: nothing is taken until everything is there, nor before it is waited for. The source is not borrowed meanwhile, but stopping it ends
    /// the wait.
    pub fn take_pieces(
        &mut self,
        binding: &SourceBinding,
    ) -> BoxFuture<'static, Result<Pieces, Error>> {
        match &self.0 {
            Inner::Generator(source) => {
                let taking = source.take(binding);
                async move {
                    let made = taking.await?.into_iter();
                    Ok::<_, Error>(Pieces(PiecesInner::Made(made)))
                }
                .boxed()
            }
            Inner::Postgres(source) => {
                let taking = source.take(binding);
                async move {
                    let taking = Box::new(taking.await?);
                    Ok::<_, Error>(Pieces(PiecesInner::Buffered(taking)))
                }
                .boxed()
            }
            Inner::Kafka(source) => {
                let taking = source.take(binding);
                async move {
                    let taking = Box::new(taking.await?);
                    Ok::<_, Error>(Pieces(PiecesInner::Messages(taking)))
                }
                .boxed()
            }
            Inner::Failed(Failure { message, hint }) => {
                let (message, hint) = (message.clone(), hint.clone());
                futures::future::ready(Err(Error::Failed { message, hint })).boxed()
            }
        }
    }

    /// Waits until [`SourceHandle::take_pieces`] of `binding` would not wait any more, whatever it gives then.
    ///
    /// # Cancel safety
    /// Nothing is taken.
    pub async fn ready(&self, binding: &SourceBinding) {
        match &self.0 {
            Inner::Generator(source) => source.ready(binding).await,
            Inner::Postgres(source) => source.ready(binding).await,
            Inner::Kafka(source) => source.ready(binding).await,
            Inner::Failed(_) => {}
        }
    }

    /// Why the source can never go on, if that is so.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        match &self.0 {
            Inner::Generator(_) => None,
            Inner::Postgres(source) => source.failure(),
            Inner::Kafka(source) => source.failure(),
            Inner::Failed(failure) => Some(failure.clone()),
        }
    }

    /// The rows that are in error where the source starts: as of what was committed. What [`SourceHandle::take_pieces`] gives changes them.
    #[must_use]
    pub fn row_errors(&self) -> Vec<(ObjectId, Vec<(EvalError, i64)>)> {
        match &self.0 {
            Inner::Generator(_) | Inner::Failed(_) => Vec::new(),
            Inner::Postgres(source) => source.row_errors(),
            Inner::Kafka(source) => source.row_errors(),
        }
    }

    /// The changes up to `position`, where something was taken, are in a durable commit point: upstream may forget them.
    pub fn acknowledge(&self, position: &SourcePosition) {
        match &self.0 {
            Inner::Postgres(source) => source.acknowledge(position),
            Inner::Kafka(source) => source.acknowledge(position),
            Inner::Generator(_) | Inner::Failed(_) => {}
        }
    }

    /// The upstream, and what is asked beside it, is reached in another way from now on: an attempt that goes on in the old way ends, and the next one begins at once.
    /// `kind` and `tables` are as before, but for connections. Waits for nobody.
    ///
    /// An upstream that turns out to be another one is not read: the source stalls until the connection leads back. One that has failed for good stays so.
    pub fn alter(&self, kind: SourceKind, tables: &[SourceTable]) {
        match (&self.0, kind) {
            (Inner::Postgres(source), SourceKind::Postgres { connection, .. }) => {
                source.alter(connection);
            }
            (Inner::Kafka(source), SourceKind::Kafka(described)) => {
                source.alter(described.connection, tables);
            }
            // There is nothing upstream of a generator.
            (Inner::Generator(_) | Inner::Failed(_), _) => {}
            (Inner::Postgres(_) | Inner::Kafka(_), _) => {
                tracing::error!("a source was described as one of another kind");
            }
        }
    }

    /// Adds tables to the running source. They give nothing until their snapshot, which is announced by [`SourceEvent::Snapshot`], is bound.
    pub async fn add_tables(
        &mut self,
        tables: Vec<SourceTable>,
        schemas: Vec<(ObjectId, SchemaRef)>,
    ) {
        match &mut self.0 {
            Inner::Generator(source) => source.add_tables(tables, schemas).await,
            Inner::Postgres(source) => source.add_tables(tables, schemas),
            Inner::Kafka(source) => source.add_tables(tables, schemas),
            Inner::Failed(_) => {}
        }
    }

    /// Stops reading tables.
    pub async fn remove_tables(&mut self, tables: &[ObjectId]) {
        match &mut self.0 {
            Inner::Generator(source) => source.remove_tables(tables),
            Inner::Postgres(source) => source.remove_tables(tables),
            Inner::Kafka(source) => source.remove_tables(tables),
            Inner::Failed(_) => {}
        }
    }

    /// Stops the source; upstream keeps what was not acknowledged.
    pub async fn stop(self) {
        match self.0 {
            Inner::Generator(source) => source.stop().await,
            Inner::Postgres(source) => source.stop().await,
            Inner::Kafka(source) => source.stop().await,
            Inner::Failed(_) => {}
        }
    }
}
