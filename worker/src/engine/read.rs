//! Peeks, subscriptions and the evaluation of writes: everything that reads collections at one epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use flowstone_dataflow::Snapshot;
use flowstone_functions::codec;
use flowstone_functions::tables::{CollectionTable, ScanTarget};
use flowstone_proto::message::{
    Peek, ReadAt, RequestError, RequestId, ResultMessage, StageWrite, Subscribe, WriteOperation,
};
use flowstone_proto::plan::QueryPlan;
use flowstone_types::{Epoch, ObjectId};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Engine, Event};
use crate::Error;
use crate::query::{Tables, internal};
use crate::subscription::{Liveness, Subscription};
use crate::write::{StagedWrite, stage};

/// Whether a peek can run now.
enum Readiness {
    At(Epoch),
    Wait,
    Never(RequestError),
}

impl Engine {
    /// Starts every waiting peek whose epoch has come.
    pub(super) async fn start_ready_peeks(&mut self) -> Result<(), Error> {
        self.running_peeks.retain(|_, task| !task.is_finished());
        let mut waiting = Vec::new();
        for (peek, results) in std::mem::take(&mut self.waiting_peeks) {
            if results.is_closed() {
                continue;
            }
            let reads = match reads(&peek.query) {
                Ok(reads) => reads,
                Err(error) => {
                    fail(results, error);
                    continue;
                }
            };
            match self.readiness(&peek, &reads) {
                Readiness::Wait => waiting.push((peek, results)),
                Readiness::Never(error) => fail(results, error),
                Readiness::At(epoch) => self.start_peek(peek, &reads, epoch, results).await?,
            }
        }
        self.waiting_peeks = waiting;
        Ok(())
    }

    fn readiness(&self, peek: &Peek, reads: &[ObjectId]) -> Readiness {
        let system: BTreeSet<ObjectId> = peek.system.iter().map(|relation| relation.id).collect();
        let mut since = Epoch::MIN;
        for id in reads.iter().filter(|id| !system.contains(id)) {
            let Some(from) = self.readable_from(*id) else {
                return Readiness::Never(RequestError::Dropped);
            };
            since = since.max(from);
        }
        match peek.at {
            ReadAt::AtLeast(epoch) if self.durable >= epoch.max(since) => {
                Readiness::At(self.durable)
            }
            ReadAt::Exactly(epoch) if epoch < since => {
                Readiness::Never(RequestError::SinceAdvanced {
                    asked: epoch,
                    since,
                })
            }
            ReadAt::Exactly(epoch) if self.durable >= epoch => Readiness::At(epoch),
            ReadAt::AtLeast(_) | ReadAt::Exactly(_) => Readiness::Wait,
        }
    }

    fn readable_from(&self, id: ObjectId) -> Option<Epoch> {
        let collection = self
            .collections
            .get(&id)
            .map(|collection| collection.readable_from);
        collection.or_else(|| self.indexes.get(&id).map(|index| index.readable_from))
    }

    async fn start_peek(
        &mut self,
        peek: Peek,
        reads: &[ObjectId],
        epoch: Epoch,
        results: mpsc::Sender<ResultMessage>,
    ) -> Result<(), Error> {
        let tables = match self.freeze(reads, epoch).await? {
            Ok(tables) => tables,
            Err(error) => {
                fail(results, error);
                return Ok(());
            }
        };
        let runner = self.runner.clone();
        let task = self.runner.compute().spawn(async move {
            match tables.with_system(&peek.system) {
                Ok(tables) => {
                    if results.send(ResultMessage::ReadEpoch(epoch)).await.is_ok() {
                        tokio::select! {
                            () = runner.stream(&peek.query, &tables, &results) => {}
                            () = results.closed() => {}
                        }
                    }
                }
                Err(error) => fail(results, error),
            }
        });
        self.running_peeks.insert(peek.request, task.abort_handle());
        Ok(())
    }

    /// Snapshots of the collections among `ids` (others are relations of the system catalog) at `epoch`.
    async fn freeze(
        &self,
        ids: &[ObjectId],
        epoch: Epoch,
    ) -> Result<Result<Tables, RequestError>, Error> {
        let ids: Vec<ObjectId> = ids
            .iter()
            .copied()
            .filter(|id| self.readable_from(*id).is_some())
            .collect();
        let mut tables = Tables::default();
        if ids.is_empty() {
            return Ok(Ok(tables));
        }
        let asked = ids.clone();
        let mut shards = Vec::with_capacity(self.shards.count());
        for shard in self
            .shards
            .on_each(move |_, shard| {
                asked
                    .iter()
                    .map(|id| shard.snapshot(*id, epoch))
                    .collect::<Result<Vec<Snapshot>, _>>()
            })
            .await?
        {
            match shard {
                Ok(snapshots) => {
                    shards.push(snapshots.into_iter().map(Arc::new).collect::<Vec<_>>())
                }
                Err(flowstone_dataflow::Error::SinceAdvanced { epoch, since }) => {
                    return Ok(Err(RequestError::SinceAdvanced {
                        asked: epoch,
                        since,
                    }));
                }
                Err(error) => return Err(error.into()),
            }
        }
        for (index, id) in ids.into_iter().enumerate() {
            let parts: Vec<_> = shards
                .iter()
                .filter_map(|shard| shard.get(index).cloned())
                .collect();
            let Some(schema) = parts.first().map(|part| Arc::clone(&part.schema)) else {
                continue;
            };
            if let Err(error) = tables.insert(id, schema, parts) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(tables))
    }

    /// Evaluates a write in a task of its own; its end comes back as an event.
    pub(super) async fn stage_write(&mut self, write: StageWrite) -> Result<(), Error> {
        let mut ids = Vec::new();
        let mut unreadable = None;
        for operation in &write.operations {
            match operation {
                WriteOperation::InsertRows { .. } => {}
                WriteOperation::Insert { query, .. }
                | WriteOperation::Delete { query, .. }
                | WriteOperation::Update { query, .. } => match reads(query) {
                    Ok(reads) => ids.extend(reads),
                    Err(error) => unreadable = Some(error),
                },
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let tables = match unreadable {
            Some(error) => Err(error),
            None => self.freeze(&ids, self.last_run).await?,
        };
        let (infos, runner, events) = (
            Arc::clone(&self.infos),
            self.runner.clone(),
            self.event_sender.clone(),
        );
        let request = write.write;
        let task = self.runner.compute().spawn(async move {
            let result: Result<StagedWrite, RequestError> = match tables {
                Ok(tables) => stage(&write, &tables, &infos, &runner).await,
                Err(error) => Err(error),
            };
            drop(
                events
                    .send(Event::Staged {
                        write: request,
                        result,
                    })
                    .await,
            );
        });
        self.staging.insert(request, task.abort_handle());
        Ok(())
    }

    pub(super) async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), Error> {
        let Some(results) = self.results.take(subscribe.request) else {
            return Ok(());
        };
        if let Some(as_of) = subscribe.as_of
            && as_of < self.last_run
        {
            fail(
                results,
                RequestError::SinceAdvanced {
                    asked: as_of,
                    since: self.last_run,
                },
            );
            return Ok(());
        }
        let id = ObjectId::Transient(subscribe.request.0);
        if subscribe
            .plan
            .collections()
            .iter()
            .any(|id| self.readable_from(*id).is_none())
        {
            fail(results, RequestError::Dropped);
            return Ok(());
        }
        let reads = subscribe.plan.collections();
        let plan = subscribe.plan;
        for created in self
            .shards
            .on_each(move |_, shard| shard.create_subscription(id, &plan))
            .await?
        {
            created?;
        }
        let outputs = self.shards.hydrate(vec![id], self.last_run).await?;
        let runtime = tokio::runtime::Handle::current();
        let subscription =
            Subscription::start(results, reads, self.last_run, subscribe.up_to, &runtime);
        self.subscriptions.insert(subscribe.request, subscription);
        if subscribe.snapshot {
            self.absorb(outputs, None);
        }
        let durable = self.durable;
        if durable >= self.last_run
            && let Some(subscription) = self.subscriptions.get_mut(&subscribe.request)
            && subscription.release(durable) == Liveness::Ended
        {
            self.end_subscription(subscribe.request).await?;
        }
        Ok(())
    }

    pub(super) async fn end_subscription(&mut self, request: RequestId) -> Result<(), Error> {
        if self.subscriptions.remove(&request).is_some() {
            let id = ObjectId::Transient(request.0);
            self.shards
                .on_each(move |_, shard| shard.drop_object(id))
                .await?;
        }
        Ok(())
    }

    pub(super) async fn cancel(&mut self, request: RequestId) -> Result<(), Error> {
        if let Some(task) = self.running_peeks.remove(&request) {
            task.abort();
        }
        if let Some(position) = self
            .waiting_peeks
            .iter()
            .position(|(peek, _)| peek.request == request)
        {
            let (_, results) = self.waiting_peeks.swap_remove(position);
            fail(results, RequestError::Cancelled);
        }
        self.end_subscription(request).await
    }
}

/// Ends a result stream in error without waiting for a slow client.
fn fail(results: mpsc::Sender<ResultMessage>, error: RequestError) {
    drop(results.try_send(ResultMessage::Failed(error)));
}

/// The relations a query scans, each once.
fn reads(query: &QueryPlan) -> Result<Vec<ObjectId>, RequestError> {
    let found = Mutex::new(Vec::new());
    codec::decode_plan(&query.bytes, &|target, schema| {
        if let ScanTarget::Collection(id) = target {
            let mut found = found.lock();
            if !found.contains(&id) {
                found.push(id);
            }
            return Ok(Arc::new(CollectionTable::new(id, schema)));
        }
        Err(datafusion::common::DataFusionError::Internal(format!(
            "scan of {target} outside of a recomputed operator"
        )))
    })
    .map_err(internal)?;
    Ok(found.into_inner())
}
