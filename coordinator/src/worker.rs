//! The worker, as sessions reach it: commands, streams of results, and answers.
//!
//! Owns the tables that route answers to whoever waits. Must not know who asks, nor what the worker says by itself. Called by `session`, `install` and `staged`; the
//! loop hands answers to those who wait.
//!
//! Invariant. No lock here is held across an await.

use std::sync::Arc;

use flowstone_proto::local::ResultStreams;
use flowstone_proto::message::{
    Command, Export, RequestError, RequestId, Staged, UpstreamAnswer, UpstreamQuestion,
};
use flowstone_proto::plan::Plan;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::liveness::Liveness;
use crate::numbers::Numbers;

/// What reaches the worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) results: ResultStreams,
    pub(crate) waiters: Mutex<Waiters>,
    numbers: Arc<Numbers>,
    liveness: Liveness,
}

/// Who waits for an answer of the worker.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) writes: HashMap<RequestId, oneshot::Sender<Result<Staged, RequestError>>>,
    pub(crate) upstream: HashMap<RequestId, oneshot::Sender<Result<UpstreamAnswer, RequestError>>>,
    pub(crate) prepared: HashMap<RequestId, oneshot::Sender<Result<(), RequestError>>>,
}

impl Worker {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        results: ResultStreams,
        numbers: Arc<Numbers>,
        liveness: Liveness,
    ) -> Self {
        Self {
            commands,
            results,
            waiters: Mutex::default(),
            numbers,
            liveness,
        }
    }

    /// Sends a command to the worker, waiting while it is behind.
    pub(crate) async fn send(&self, command: Command) -> Result<(), Error> {
        self.commands
            .send(command)
            .await
            .map_err(|_| self.liveness.gone())
    }

    /// Asks an upstream through the worker.
    pub(crate) async fn ask_upstream(
        &self,
        question: UpstreamQuestion,
    ) -> Result<UpstreamAnswer, Error> {
        let request = self.numbers.next_request();
        let (answer, answered) = oneshot::channel();
        self.waiters.lock().upstream.insert(request, answer);
        self.send(Command::AskUpstream { request, question })
            .await?;
        Ok(answered.await.map_err(|_| self.liveness.gone())??)
    }

    /// Has the worker try a plan; `export` is `None` for a subscription's.
    ///
    /// # Errors
    /// Why it cannot be rendered.
    pub(crate) async fn prepare(&self, plan: Plan, export: Option<Export>) -> Result<(), Error> {
        let request = self.numbers.next_request();
        let (answer, answered) = oneshot::channel();
        self.waiters.lock().prepared.insert(request, answer);
        self.send(Command::Prepare {
            request,
            plan,
            export,
        })
        .await?;
        Ok(answered.await.map_err(|_| self.liveness.gone())??)
    }
}
