//! The task of a lane: it does what it is sent, in order, on the shard threads of the lane, and says what came of it.
//!
//! Owns nothing but the order. Must not know which epochs may be run when, nor who reads what. Called by [`super::Lanes`], which starts it.
//!
//! Invariants. What was sent is done in order. Changes of several epochs that wait become one tick only where that is allowed ([`Advance::may_join`]).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_dataflow::{
    CollectionInput, Held, Snapshot, TickOutput, partition_columns, partition_delta,
};
use flowstone_proto::message::{CollectionDescription, CollectionStatistics, DataflowDescription};
use flowstone_proto::plan::Plan;
use flowstone_storage::DeltaTables;
use flowstone_types::{DeltaBatch, Epoch, EvalError, ObjectId};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use super::{LaneId, Stops};
use crate::Error;
use crate::compute::MAINTENANCE_FUEL;
use crate::compute::partition::{count, partition};
use crate::compute::shards::ShardPool;
use crate::compute::ticks::{TICK_BYTES, in_ticks};

/// Changes of fewer bytes are parted where the task is: that takes less than to hand them to another thread.
const PARTED_HERE_BYTES: usize = 64 << 10;

/// How one collection changed.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) id: ObjectId,
    pub(super) deltas: Vec<DeltaBatch>,
    pub(super) errors: Vec<(EvalError, i64)>,
}

/// A collection as the lane knows it: rows and errors are those of a snapshot of every shard that has it elsewhere.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) id: ObjectId,
    pub(super) schema: SchemaRef,
    pub(super) key: Option<Vec<usize>>,
    pub(super) rows: Vec<Snapshot>,
}

/// A collection that is being copied. Its shards may have something else to do first: who needs it waits, nobody else.
pub(super) struct Copying(BoxFuture<'static, Result<Option<Copied>, Error>>);

impl Copying {
    /// `None` if it is gone.
    pub(super) fn new(
        copying: impl Future<Output = Result<Option<Copied>, Error>> + Send + 'static,
    ) -> Self {
        Self(copying.boxed())
    }
}

impl fmt::Debug for Copying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Copying")
    }
}

/// What a view has put out before.
#[derive(Debug)]
pub(super) enum Content {
    /// What is in its stored table.
    Stored,
    /// What another lane has of it.
    Copied(Copying),
}

/// Changes of imported collections.
#[derive(Debug)]
pub(super) struct Advance {
    /// The first epoch that is in it, and the last.
    pub(super) first: Epoch,
    pub(super) epoch: Epoch,
    pub(super) changes: Vec<Change>,
    /// What of the lane's backlog this is.
    pub(super) bytes: usize,
    /// Whether it may be run in one tick with what follows.
    pub(super) may_join: bool,
}

/// What a lane is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// A collection that is maintained elsewhere, as of an epoch.
    Import(Copying, Epoch),
    /// The collection of a view that is not to be maintained for now.
    Keep(Box<CollectionDescription>, Content, Epoch),
    /// A dataflow, hydrated at an epoch; a view's collection with it.
    Create(
        Box<DataflowDescription>,
        Option<(Box<CollectionDescription>, Content)>,
        Epoch,
    ),
    Subscribe(ObjectId, Plan, Epoch),
    Fail(ObjectId, EvalError, Epoch),
    Drop(Vec<ObjectId>),
    Advance(Advance),
    AllowCompaction(Epoch),
    /// Asks for counters of objects, without the buffers that were counted elsewhere.
    Count(Vec<ObjectId>, Held),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Said {
    /// `joined` messages with the changes from `first` to `epoch` were run, in one tick or several.
    Ticked {
        joined: usize,
        first: Epoch,
        epoch: Epoch,
        bytes: usize,
        outputs: Vec<TickOutput>,
    },
    Hydrated {
        id: ObjectId,
        epoch: Epoch,
        outputs: Vec<TickOutput>,
    },
    NotMade {
        id: ObjectId,
        error: EvalError,
    },
    Counted(Vec<(ObjectId, CollectionStatistics)>),
    /// The lane has ended: nothing in it can be used any more.
    Broken(Error),
}

/// What a lane says.
#[derive(Debug)]
pub(crate) struct LaneEvent {
    pub(in crate::compute) lane: LaneId,
    pub(in crate::compute) said: Said,
}

/// A lane from within.
pub(super) struct Task {
    pub(super) lane: LaneId,
    pub(super) pool: Arc<ShardPool>,
    pub(super) delta: DeltaTables,
    pub(super) stops: Stops,
    pub(super) events: mpsc::UnboundedSender<LaneEvent>,
    /// The columns by which rows of an imported collection are spread over the shards.
    pub(super) spread_by: BTreeMap<ObjectId, Vec<usize>>,
}

impl Task {
    /// Works until the sender is gone, or something breaks.
    pub(super) async fn run(mut self, mut work: mpsc::UnboundedReceiver<Work>) {
        let mut queue = VecDeque::new();
        loop {
            let next = match queue.pop_front() {
                Some(next) => next,
                None => match work.recv().await {
                    Some(next) => next,
                    None => return,
                },
            };
            while let Ok(more) = work.try_recv() {
                queue.push_back(more);
            }
            match self.act(next, &mut queue).await {
                Ok(Some(said)) => self.say(said),
                Ok(None) => {}
                Err(error) => return self.say(Said::Broken(error)),
            }
        }
    }

    fn say(&self, said: Said) {
        let lane = self.lane;
        // The compute may have gone.
        drop(self.events.send(LaneEvent { lane, said }));
    }

    async fn act(&mut self, work: Work, queue: &mut VecDeque<Work>) -> Result<Option<Said>, Error> {
        match work {
            Work::Import(copying, epoch) => {
                let Some(copied) = copying.0.await? else {
                    return Ok(None);
                };
                self.create_collection(copied.id, &copied.schema, copied.key.as_ref())
                    .await?;
                let columns = copied.schema.fields().len();
                self.load(copied.id, copied.key.as_deref(), copied.rows, epoch)
                    .await?;
                self.spread_by
                    .insert(copied.id, partition_columns(copied.key.as_deref(), columns));
            }
            Work::Keep(description, content, epoch) => {
                self.create_view_collection(&description, content, epoch)
                    .await?;
            }
            Work::Create(description, collection, epoch) => {
                return self.create(*description, collection, epoch).await.map(Some);
            }
            Work::Subscribe(id, plan, epoch) => {
                let created = self
                    .pool
                    .on_each(move |_, shard| shard.create_subscription(id, &plan))
                    .await?;
                return self.hydrate(id, created, epoch).await.map(Some);
            }
            Work::Fail(id, error, epoch) => {
                let failed = self
                    .pool
                    .on_each(move |_, shard| shard.fail_dataflow(id, &error, epoch))
                    .await?;
                for outcome in failed {
                    outcome?;
                }
            }
            Work::Drop(objects) => {
                for id in &objects {
                    self.spread_by.remove(id);
                }
                self.pool
                    .on_each(move |_, shard| {
                        for id in &objects {
                            shard.drop_object(*id);
                        }
                    })
                    .await?;
            }
            Work::Advance(advance) => return self.advance(advance, queue).await.map(Some),
            Work::AllowCompaction(since) => {
                self.pool
                    .on_each(move |_, shard| shard.allow_compaction(since))
                    .await?;
            }
            Work::Count(ids, held) => {
                let counted = count(&self.pool, ids, held).await?;
                return Ok(Some(Said::Counted(counted.with_copies())));
            }
        }
        Ok(None)
    }

    async fn create_collection(
        &self,
        id: ObjectId,
        schema: &SchemaRef,
        key: Option<&Vec<usize>>,
    ) -> Result<(), Error> {
        let (schema, key) = (Arc::clone(schema), key.cloned());
        let created = self
            .pool
            .on_each(move |_, shard| shard.create_collection(id, Arc::clone(&schema), key.clone()))
            .await?;
        Ok(created.into_iter().try_for_each(|outcome| outcome)?)
    }

    async fn create_view_collection(
        &self,
        description: &CollectionDescription,
        content: Content,
        epoch: Epoch,
    ) -> Result<(), Error> {
        let id = description.id;
        self.create_collection(id, &description.schema, description.key.as_ref())
            .await?;
        match content {
            Content::Stored => load_stored(&self.pool, &self.delta, description, epoch).await,
            Content::Copied(copying) => {
                let copied = copying.0.await?;
                let rows = copied.map_or_else(Vec::new, |copied| copied.rows);
                self.load(id, description.key.as_deref(), rows, epoch).await
            }
        }
    }

    async fn load(
        &self,
        id: ObjectId,
        key: Option<&[usize]>,
        snapshots: Vec<Snapshot>,
        epoch: Epoch,
    ) -> Result<(), Error> {
        for snapshot in snapshots {
            let columns = partition_columns(key, snapshot.schema.fields().len());
            let errors = snapshot.errors.clone();
            for rows in beside(move || Ok(snapshot.rows()?)).await? {
                load_rows(&self.pool, id, DeltaBatch::insert(rows, epoch), &columns).await?;
            }
            if !errors.is_empty() {
                load_errors(&self.pool, id, errors, epoch).await?;
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        description: DataflowDescription,
        collection: Option<(Box<CollectionDescription>, Content)>,
        epoch: Epoch,
    ) -> Result<Said, Error> {
        let id = description.id;
        if let Some((collection, content)) = collection {
            self.create_view_collection(&collection, content, epoch)
                .await?;
        }
        let created = self
            .pool
            .on_each(move |_, shard| shard.create_dataflow(&description))
            .await?;
        self.hydrate(id, created, epoch).await
    }

    async fn hydrate(
        &self,
        id: ObjectId,
        created: Vec<Result<(), flowstone_dataflow::Error>>,
        epoch: Epoch,
    ) -> Result<Said, Error> {
        if let Some(error) = created.into_iter().find_map(Result::err) {
            let error = error.into();
            return Ok(Said::NotMade { id, error });
        }
        let outputs = self.pool.hydrate(vec![id], epoch).await?;
        Ok(Said::Hydrated { id, epoch, outputs })
    }

    async fn advance(&self, advance: Advance, queue: &mut VecDeque<Work>) -> Result<Said, Error> {
        let Advance {
            first,
            mut epoch,
            mut changes,
            mut bytes,
            may_join,
        } = advance;
        let mut joined = 1;
        while may_join
            && bytes < TICK_BYTES
            && let Some(Work::Advance(next)) = queue.front_mut()
            && !self.stops.between(epoch, next.first)
        {
            epoch = next.epoch;
            changes.append(&mut next.changes);
            bytes = bytes.saturating_add(next.bytes);
            joined += 1;
            queue.pop_front();
        }
        let mut outputs = Vec::new();
        let inputs = changes.into_iter().flat_map(|change| {
            [
                (change.id, CollectionInput::Deltas(change.deltas)),
                (change.id, CollectionInput::Errors(change.errors)),
            ]
        });
        for inputs in in_ticks(inputs.collect(), TICK_BYTES) {
            // What was dropped here since it changed is nobody's.
            let spread = inputs.into_iter().filter_map(|(id, input)| {
                let columns = self.spread_by.get(&id)?.clone();
                Some((id, input, columns))
            });
            let (spread, shards) = (spread.collect(), self.pool.count());
            let inputs = if bytes < PARTED_HERE_BYTES {
                partition(spread, shards)?
            } else {
                beside(move || partition(spread, shards)).await?
            };
            outputs.extend(self.pool.tick(epoch, inputs).await?);
        }
        self.pool
            .on_each(|_, shard| shard.maintain(MAINTENANCE_FUEL))
            .await?;
        Ok(Said::Ticked {
            joined,
            first,
            epoch,
            bytes,
            outputs,
        })
    }
}

/// Loads the rows of a collection as they are stored, as of `epoch`; none if nothing was committed.
pub(in crate::compute) async fn load_stored(
    pool: &ShardPool,
    delta: &DeltaTables,
    description: &CollectionDescription,
    epoch: Epoch,
) -> Result<(), Error> {
    let (id, Some(version)) = (description.id, description.delta_version) else {
        return Ok(());
    };
    let columns = partition_columns(
        description.key.as_deref(),
        description.schema.fields().len(),
    );
    let mut rows = delta
        .load(id, version, Arc::clone(&description.schema))
        .await?;
    let mut loaded = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        loaded += batch.num_rows();
        load_rows(pool, id, DeltaBatch::insert(batch, epoch), &columns).await?;
    }
    tracing::info!(%id, name = description.name, version, rows = loaded, "collection loaded");
    Ok(())
}

/// Does what may take long where nobody waits for the thread: messages and replies pass through the threads that tasks run on.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await?
}

async fn load_rows(
    pool: &ShardPool,
    id: ObjectId,
    rows: DeltaBatch,
    columns: &[usize],
) -> Result<(), Error> {
    let epoch = rows.epoch;
    let (columns, shards) = (columns.to_vec(), pool.count());
    let parts = beside(move || Ok(partition_delta(&rows, &columns, shards)?)).await?;
    let loaded = pool
        .on_each(move |index, shard| {
            parts
                .get(index)
                .map_or(Ok(()), |part| shard.load_collection(id, &part.rows, epoch))
        })
        .await?;
    Ok(loaded.into_iter().try_for_each(|outcome| outcome)?)
}

/// Gives a collection errors as part of what was loaded.
pub(in crate::compute) async fn load_errors(
    pool: &ShardPool,
    id: ObjectId,
    errors: Vec<(EvalError, i64)>,
    epoch: Epoch,
) -> Result<(), Error> {
    let loaded = pool
        .on_each(move |index, shard| {
            // Errors belong to any one shard.
            if index == 0 {
                shard.load_errors(id, &errors, epoch)
            } else {
                Ok(())
            }
        })
        .await?;
    Ok(loaded.into_iter().try_for_each(|outcome| outcome)?)
}
