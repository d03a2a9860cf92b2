//! The transport when coordinator and worker share a process: bounded channels, a registry that pairs the two ends of a result stream, and reads that need
//! no message.

use std::sync::{Arc, OnceLock};

use arrow_array::{ArrayRef, RecordBatch};
use flowstone_types::{Epoch, ObjectId};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::message::{Command, ReadAt, RequestError, RequestId, Response, ResultMessage};

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
    /// Reads without a message.
    pub direct: Direct,
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
    /// Where the worker offers reads without a message.
    pub direct: Direct,
}

/// The two ends of a connection within a process.
#[must_use]
pub fn connect() -> (CoordinatorEnd, WorkerEnd) {
    let (commands, commands_receiver) = mpsc::channel(COMMANDS_IN_FLIGHT);
    let (responses, responses_receiver) = mpsc::channel(RESPONSES_IN_FLIGHT);
    let results = ResultStreams::default();
    let direct = Direct::default();
    (
        CoordinatorEnd {
            commands,
            responses: responses_receiver,
            results: results.clone(),
            direct: direct.clone(),
        },
        WorkerEnd {
            commands: commands_receiver,
            responses,
            results,
            direct,
        },
    )
}

/// Reads that a worker answers on the caller's thread: what two changes of threads would cost is many times what the read itself does.
pub trait DirectReads: std::fmt::Debug + Send + Sync {
    /// The same as [`Command::Lookup`]: the rows of one key (one array of one value per key column), and the epoch they were read at.
    ///
    /// `None` if the read must go as a command: its epoch has not come, a shard is busy, or there is much to read. Never waits.
    fn lookup(
        &self,
        index: ObjectId,
        key: &[ArrayRef],
        projection: &[usize],
        at: ReadAt,
    ) -> Option<Result<(Epoch, RecordBatch), RequestError>>;

    /// Whether an object has been hydrated, has not failed since, and is not paused: who reads it waits for no more than an epoch.
    fn is_readable(&self, id: ObjectId) -> bool;

    /// What a read of an object at an epoch waits for, if it waits, or would be refused for.
    fn lack(&self, id: ObjectId, epoch: Epoch) -> Option<Lack>;
}

/// Why an object cannot be read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It is being hydrated.
    Content,
    /// Something that it is made of has not come in altogether.
    Input,
    /// Where it runs has yet to come to the epoch.
    Epochs,
}

/// Where a worker's [`DirectReads`] are found, once it offers them.
#[derive(Clone, Debug, Default)]
pub struct Direct(Arc<OnceLock<Arc<dyn DirectReads>>>);

impl Direct {
    /// Offers reads; the first offer counts.
    pub fn offer(&self, reads: Arc<dyn DirectReads>) {
        drop(self.0.set(reads));
    }

    /// What is offered.
    #[must_use]
    pub fn get(&self) -> Option<&dyn DirectReads> {
        self.0.get().map(AsRef::as_ref)
    }
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
