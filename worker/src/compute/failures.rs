//! Dataflows that cannot go on.
//!
//! Owns what becomes of one: it is taken off the shards, reads of it fail with its error, and the coordinator is told; everything else goes on. Must not know
//! why it failed. Called where dataflows are made and run.
//!
//! Invariants. A failure belongs to this process: after a restart the dataflow is tried again. What read a failed one has failed with it.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_dataflow::TickOutput;
use flowstone_proto::message::{RequestError, RequestId, Response, ResultMessage};
use flowstone_types::{EvalError, EvalErrorKind, ObjectId};

use super::Compute;
use crate::Error;

impl Compute {
    /// Ends a dataflow in error, and with it those that read it; also one that was never made.
    pub(crate) async fn fail(&mut self, id: ObjectId, error: EvalError) -> Result<(), Error> {
        // It may have failed on several shards, or with what it reads.
        if self.readable.read().failed.contains_key(&id) {
            return Ok(());
        }
        let mut known = vec![id];
        self.add_readers(&mut known);
        {
            // Before the shards end them, one after the other: a shard has no rows then, and another one the error. Whoever reads has asked all of them before that,
            // or hears why it failed.
            let mut readable = self.readable.write();
            for id in known {
                if !matches!(id, ObjectId::Transient(_)) {
                    readable.fail(id, error.clone());
                }
            }
        }
        let (told, epoch) = (error.clone(), self.last_run);
        let dependents = self
            .shards
            .on_each(move |_, shard| shard.fail_dataflow(id, &told, epoch))
            .await?;
        let mut failed = vec![id];
        for dependent in dependents {
            for id in dependent? {
                if !failed.contains(&id) {
                    failed.push(id);
                }
            }
        }
        self.add_readers(&mut failed);
        for id in failed {
            tracing::error!(%id, %error, "a dataflow failed; it is not maintained any more");
            self.lanes.fail(id, &error);
            self.sides.remove(id);
            self.unmade.remove(&id);
            self.waiting_dataflows.retain(|waiting| waiting.id != id);
            if let ObjectId::Transient(request) = id {
                self.fail_subscription(RequestId(request), &error).await?;
                continue;
            }
            self.readable.write().fail(id, error.clone());
            self.asked.tell();
            let error = error.clone();
            self.respond(Response::DataflowFailed { id, error }).await;
        }
        Ok(())
    }

    /// Adds what reads one of `ids`, wherever it runs.
    fn add_readers(&self, ids: &mut Vec<ObjectId>) {
        let mut known: BTreeSet<ObjectId> = ids.iter().copied().collect();
        let mut from = 0;
        while from < ids.len() {
            let read: BTreeSet<ObjectId> = ids.iter().skip(from).copied().collect();
            from = ids.len();
            let mut readers: Vec<ObjectId> = self
                .inputs
                .iter()
                .filter(|(_, inputs)| inputs.iter().any(|id| read.contains(id)))
                .map(|(id, _)| *id)
                .collect();
            let subscribed = self.subscriptions.iter();
            let subscribed = subscribed.filter(|(_, subscription)| subscription.reads_any(&read));
            readers.extend(subscribed.map(|(request, _)| ObjectId::Transient(request.0)));
            let starting = self.starting.iter();
            let starting =
                starting.filter(|(_, starting)| starting.reads.iter().any(|id| read.contains(id)));
            readers.extend(starting.map(|(request, _)| ObjectId::Transient(request.0)));
            ids.extend(readers.into_iter().filter(|id| known.insert(*id)));
        }
    }

    /// Ends a subscription in error.
    pub(super) async fn fail_subscription(
        &mut self,
        request: RequestId,
        error: &EvalError,
    ) -> Result<(), Error> {
        self.end_subscription_with(request, RequestError::Eval(error.clone()))
            .await
    }

    /// Ends a subscription, and tells its client why.
    pub(super) async fn end_subscription_with(
        &mut self,
        request: RequestId,
        error: RequestError,
    ) -> Result<(), Error> {
        let failed = ResultMessage::Failed(error);
        if let Some(subscription) = self.subscriptions.get_mut(&request) {
            subscription.end(failed);
        } else if let Some(starting) = self.starting.get(&request) {
            // The channel is empty.
            drop(starting.results.try_send(failed));
        }
        self.end_subscription(request).await
    }
}

/// What failed in a tick, inputs before what reads them, each once. Of the errors of several shards one that is not only a consequence of another.
pub(super) fn failures_of(outputs: &[TickOutput]) -> BTreeMap<ObjectId, EvalError> {
    let mut failed: BTreeMap<ObjectId, EvalError> = BTreeMap::new();
    for (id, error) in outputs.iter().flat_map(|output| &output.failed) {
        let known = failed.entry(*id).or_insert_with(|| error.clone());
        if known.kind == EvalErrorKind::Internal && error.kind != EvalErrorKind::Internal {
            *known = error.clone();
        }
    }
    failed
}
