//! Dataflows that cannot go on.
//!
//! Owns what becomes of one: it is taken off the shards, reads of it fail with its error, and the coordinator is told; everything else goes on. Must not know
//! why it failed. Called where dataflows are made and run.
//!
//! Invariants. A failure belongs to this process: after a restart the dataflow is tried again. What read a failed one has failed with it.

use std::collections::BTreeMap;

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
        for id in failed {
            tracing::error!(%id, %error, "a dataflow failed; it is not maintained any more");
            if let ObjectId::Transient(request) = id {
                let request = RequestId(request);
                if let Some(subscription) = self.subscriptions.get_mut(&request) {
                    subscription.end(ResultMessage::Failed(RequestError::Eval(error.clone())));
                }
                self.end_subscription(request).await?;
                continue;
            }
            self.readable.write().fail(id, error.clone());
            let error = error.clone();
            self.respond(Response::DataflowFailed { id, error }).await;
        }
        Ok(())
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
