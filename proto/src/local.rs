//! The transport when coordinator and worker share a process: bounded channels, and a registry that pairs the two ends of a result stream.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::message::{Command, RequestId, Response, ResultMessage};

/// Commands in flight. A full channel makes the coordinator wait: the worker is a whole epoch behind then.
pub const COMMANDS_IN_FLIGHT: usize = 4096;
/// Responses in flight. The coordinator only routes, so a full channel means that it is stuck; the worker waits.
pub const RESPONSES_IN_FLIGHT: usize = 4096;
/// Result messages buffered for one client (each up to one batch). A full channel makes the producer of that one result wait.
pub const RESULTS_IN_FLIGHT: usize = 16;

/// The coordinator's end.
#[derive(Debug)]
pub struct CoordinatorEnd {
    /// To the worker.
    pub commands: mpsc::Sender<Command>,
    /// From the worker.
    pub responses: mpsc::Receiver<Response>,
    /// Where result streams meet.
    pub results: ResultStreams,
}

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd {
    /// From the coordinator.
    pub commands: mpsc::Receiver<Command>,
    /// To the coordinator.
    pub responses: mpsc::Sender<Response>,
    /// Where result streams meet.
    pub results: ResultStreams,
}

/// The two ends of a connection within a process.
#[must_use]
pub fn connect() -> (CoordinatorEnd, WorkerEnd) {
    let (commands, commands_receiver) = mpsc::channel(COMMANDS_IN_FLIGHT);
    let (responses, responses_receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
    let results = ResultStreams::default();
    (
        CoordinatorEnd {
            commands,
            responses: responses_receiver,
            results: results.clone(),
        },
        WorkerEnd {
            commands: commands_receiver,
            responses,
            results,
        },
    )
}

/// Pairs the consumer of a result with its producer by request id.
#[derive(Clone, Debug, Default)]
pub struct ResultStreams {
    senders: Arc<Mutex<HashMap<RequestId, mpsc::Sender<ResultMessage>>>>,
}

impl ResultStreams {
    /// Opens the consumer's end; call before the command that names `request` is sent.
    #[must_use]
    pub fn open(&self, request: RequestId) -> mpsc::Receiver<ResultMessage> {
        let (sender, receiver) = mpsc::channel(RESULTS_IN_FLIGHT);
        self.senders.lock().insert(request, sender);
        receiver
    }

    /// Takes the producer's end; `None` if it was taken or the consumer never opened it.
    #[must_use]
    pub fn take(&self, request: RequestId) -> Option<mpsc::Sender<ResultMessage>> {
        self.senders.lock().remove(&request)
    }
}
