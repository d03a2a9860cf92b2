//! Subscriptions, and the evaluation of writes: what reads collections as of the last epoch run, in the order of commands.
//!
//! Owns how they are made and ended. Must not know how an epoch is run. Called by the router.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use flowstone_proto::message::{
    RequestError, RequestId, Response, ResultMessage, StageWrite, Subscribe, WriteOperation,
};
use flowstone_types::{Epoch, ObjectId};
use tokio::sync::mpsc;

use super::held::Waiting;
use super::lanes::{Object, Place};
use super::reads::{Running, fail, freeze, scans};
use super::subscription::Starting;
use super::{Compute, EpochOutput, Event};
use crate::Error;
use crate::query::{evaluation_failed, guarded, internal};
use crate::write::{StagedWrite, stage};

impl Compute {
    /// Evaluates a write in a task of its own; its end comes back as an event.
    pub(crate) async fn stage_write(&mut self, write: StageWrite) -> Result<(), Error> {
        self.evaluate(write, self.last_run).await
    }

    /// Evaluates a write at the newest epoch that what it reads has come to, which is not before `earliest`; or has it wait until that is so.
    pub(super) async fn evaluate(
        &mut self,
        write: StageWrite,
        earliest: Epoch,
    ) -> Result<(), Error> {
        let mut ids = Vec::new();
        let mut unreadable = None;
        for operation in &write.operations {
            match operation {
                WriteOperation::InsertRows { .. } => {}
                WriteOperation::Insert { query, .. }
                | WriteOperation::Delete { query, .. }
                | WriteOperation::Update { query, .. } => match scans(query) {
                    Ok(scans) => ids.extend(scans),
                    Err(error) => unreadable = Some(error),
                },
            }
        }
        ids.sort_unstable();
        ids.dedup();
        if ids.iter().any(|id| self.lanes.is_parked(*id)) {
            let (write, result) = (write.write, Err(RequestError::Paused));
            self.respond(Response::WriteStaged { write, result }).await;
            return Ok(());
        }
        let at = self.readable.read().at(self.last_run, &ids);
        if self.lacks_something(&ids) || at < earliest {
            self.waiting_for_held.push(Waiting::Write(write, earliest));
            return Ok(());
        }
        let freezing = freeze(&self.readable.read(), &self.shards.jobs(), &ids, at);
        let (infos, runner, events) = (
            Arc::clone(&self.infos),
            self.runner.clone(),
            self.events.clone(),
        );
        let blobs = self.blobs.clone();
        let request = write.write;
        let returns = self.results.take(request);
        let budget = runner.budget();
        let running = Arc::clone(&budget);
        let task = self.runner.compute().spawn(async move {
            let tables = match unreadable {
                Some(error) => Err(error),
                None => freezing.await,
            };
            let result: Result<StagedWrite, RequestError> = match tables {
                Ok(tables) => guarded(stage(&write, &tables, &infos, &runner, &budget)).await,
                Err(error) => Err(error),
            };
            let result = match result {
                Ok(mut staged) => {
                    give_rows(returns, std::mem::take(&mut staged.returned)).await;
                    staged.write_large(blobs).await
                }
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
        self.staging
            .insert(request, Running::new(&task, Some(running)));
        Ok(())
    }

    /// Whether a write that was evaluated is still wanted; it is not asked for again.
    pub(crate) fn end_staging(&mut self, write: RequestId) -> bool {
        self.staging.remove(&write).is_some()
    }

    /// Nobody wants a write any more.
    pub(crate) fn discard_write(&mut self, write: RequestId) {
        self.forget_waiting(write);
        if let Some(task) = self.staging.remove(&write) {
            task.end();
        }
    }

    pub(crate) async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), Error> {
        let reads = subscribe.plan.collections();
        if self.lacks_something(&reads) {
            self.waiting_for_held.push(Waiting::Subscribe(subscribe));
            return Ok(());
        }
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
        let unreadable = {
            let readable = self.readable.read();
            readable.failure_among(&reads).or_else(|| {
                let gone = reads.iter().any(|id| !readable.from.contains_key(id));
                let gone = gone || !self.lanes.has_cluster(subscribe.cluster);
                gone.then_some(RequestError::Dropped)
            })
        };
        if let Some(error) = unreadable {
            fail(results, error);
            return Ok(());
        }
        let (cluster, plan) = (subscribe.cluster, &subscribe.plan);
        let place = match self.lanes.choose(cluster, plan, &reads, self.last_run) {
            Ok(place) => place,
            Err(error) => {
                fail(results, internal(error));
                return Ok(());
            }
        };
        let starting = Starting {
            results,
            reads,
            up_to: subscribe.up_to,
            snapshot: subscribe.snapshot,
            asked: self.last_run,
        };
        let plan = subscribe.plan;
        if let Place::Lane(lane) = place {
            self.starting.insert(subscribe.request, starting);
            let object = Object::Subscription(plan);
            self.lanes.create(lane, id, object, self.last_run);
            return self.go_on().await;
        }
        let created = self
            .shards
            .on_each(move |_, shard| shard.create_subscription(id, &plan))
            .await?;
        if let Some(error) = created.into_iter().find_map(Result::err) {
            fail(starting.results, evaluation_failed(error.into()));
            self.shards
                .on_each(move |_, shard| shard.drop_object(id))
                .await?;
            return Ok(());
        }
        if self.are_large(&starting.reads).await? {
            self.starting.insert(subscribe.request, starting);
            return self.fork(id).await;
        }
        let mut outputs = self.shards.hydrate(vec![id], self.last_run).await?;
        self.subscriptions
            .insert(subscribe.request, starting.start(self.last_run));
        if !subscribe.snapshot {
            outputs.iter_mut().for_each(|output| output.outputs.clear());
        }
        // Nothing of it is stored.
        self.absorb(Place::Base, outputs, None, &mut EpochOutput::default())
            .await?;
        self.show().await
    }

    pub(super) async fn end_subscription(&mut self, request: RequestId) -> Result<(), Error> {
        let subscription = self.subscriptions.remove(&request);
        if self.starting.remove(&request).is_some() || subscription.is_some() {
            let id = ObjectId::Transient(request.0);
            if self.lanes.place_of(id) != Place::Base {
                self.lanes.drop_objects(&[id]);
                return Ok(());
            }
            self.sides.remove(id);
            self.shards
                .on_each(move |_, shard| shard.drop_object(id))
                .await?;
        }
        Ok(())
    }

    /// Ends the subscriptions that read what is about to go, and tells their clients why.
    pub(super) async fn end_subscriptions_to(&mut self, objects: &[ObjectId]) -> Result<(), Error> {
        let objects: BTreeSet<ObjectId> = objects.iter().copied().collect();
        let readers: Vec<RequestId> = self
            .subscriptions
            .iter()
            .filter(|(_, subscription)| subscription.reads_any(&objects))
            .map(|(request, _)| *request)
            .chain(self.starting.iter().filter_map(|(request, starting)| {
                let reads = starting.reads.iter().any(|id| objects.contains(id));
                reads.then_some(*request)
            }))
            .collect();
        for request in readers {
            self.end_subscription_with(request, RequestError::Dropped)
                .await?;
        }
        Ok(())
    }

    /// Cuts off the subscribers with the most waiting until all together are within their memory.
    pub(super) async fn bound_waiting_bytes(&mut self) -> Result<(), Error> {
        let waiting = self
            .subscriptions
            .iter()
            .map(|(request, subscription)| (subscription.waiting_bytes(), *request));
        let mut total: usize = waiting.clone().map(|(bytes, _)| bytes).sum();
        if total <= self.subscriber_memory_bytes {
            return Ok(());
        }
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        while total > self.subscriber_memory_bytes
            && let Some((bytes, request)) = waiting.pop()
        {
            if let Some(subscription) = self.subscriptions.get_mut(&request) {
                subscription.cut_off();
            }
            self.end_subscription(request).await?;
            total = total.saturating_sub(bytes);
        }
        Ok(())
    }

    /// Ends a subscription, or forgets what waits to begin.
    pub(crate) async fn cancel(&mut self, request: RequestId) -> Result<(), Error> {
        if self.forget_waiting(request)
            && let Some(results) = self.results.take(request)
        {
            fail(results, RequestError::Cancelled);
        }
        if let Some(starting) = self.starting.get(&request) {
            fail(starting.results.clone(), RequestError::Cancelled);
        }
        self.end_subscription(request).await
    }
}

/// Gives what a write returns to whoever opened the stream for it. A reader that has gone does not want the write any more, and says so.
async fn give_rows(results: Option<mpsc::Sender<ResultMessage>>, rows: Vec<RecordBatch>) {
    let Some(results) = results else {
        return;
    };
    for batch in rows {
        if results.send(ResultMessage::Rows(batch)).await.is_err() {
            return;
        }
    }
}
