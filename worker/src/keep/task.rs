//! The keep's task, and how the router reaches it.
//!
//! Owns the queue between the two. Must not know what the keep does with what it is told. Called by the router.
//!
//! Invariants. The keep acts on what it is told in order, and on the ends of what it began before that. It waits for no disk, and for nobody but the coordinator:
//! whoever tells it something waits only while much is said at once, and the router is not answered by it.

use std::collections::BTreeMap;

use flowstone_dataflow::Held;
use flowstone_ingest::SourceHandle;
use flowstone_proto::message::{CleanUp, CollectionDescription, SinkDescription};
use flowstone_types::{Epoch, EvalError, ObjectId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::{Ended, Keep, Parts};
use crate::Error;
use crate::compute::EpochOutput;
use crate::event::Event;

/// What the keep was told and has not acted on. A full queue makes the router wait, and with it the next epoch: the keep is behind by many of them.
const MESSAGES_IN_FLIGHT: usize = 64;

/// Ends that the keep has not heard of: of one commit, one maintenance and one consolidation.
const ENDS_IN_FLIGHT: usize = 4;

/// What the keep is told.
#[derive(Debug)]
enum Message {
    BeginAt(Epoch),
    CreateTable(Box<CollectionDescription>),
    AddErrors(ObjectId, Vec<(EvalError, i64)>),
    Drop(Vec<ObjectId>, Vec<SourceHandle>),
    CleanUp(Vec<CleanUp>),
    CreateSink(Box<SinkDescription>, Epoch),
    AlterSink(Box<SinkDescription>, Epoch),
    Absorb(EpochOutput),
    Consolidate(Epoch, Option<Epoch>),
    Commit(Epoch),
    CommitPointDurable(Epoch),
    PassSinks(Epoch, BTreeMap<ObjectId, String>),
    Count(Held, oneshot::Sender<BTreeMap<ObjectId, u64>>),
}

/// The keep, for the router. All calls are acted on in order; each fails if the keep's task has panicked. What else breaks in it is an [`Event::Broken`].
#[derive(Debug)]
pub(crate) struct KeepHandle {
    messages: mpsc::Sender<Message>,
    task: JoinHandle<()>,
    /// Tables that are being looked for, and brought back to the commit point if they are there.
    restoring: usize,
}

impl KeepHandle {
    /// Starts the task.
    pub(crate) fn start(parts: Parts) -> Self {
        let (messages, receiver) = mpsc::channel(MESSAGES_IN_FLIGHT);
        let (ended, ends) = mpsc::channel(ENDS_IN_FLIGHT);
        let events = parts.events.clone();
        let keeper = Keeper {
            keep: Keep::new(parts, ended),
            messages: receiver,
            ends,
            events,
        };
        Self {
            messages,
            task: TaskTracker::new().spawn(keeper.run()),
            restoring: 0,
        }
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        let sent = self.messages.send(message).await;
        sent.map_err(|_| Error::KeepGone)
    }

    /// See [`Keep::begin_at`].
    pub(crate) async fn begin_at(&self, commit_point: Epoch) -> Result<(), Error> {
        self.send(Message::BeginAt(commit_point)).await
    }

    /// See [`Keep::create_table`]. An [`Event::Restored`] comes, and [`KeepHandle::restored`] is to be called.
    pub(crate) async fn create_table(
        &mut self,
        description: &CollectionDescription,
    ) -> Result<(), Error> {
        self.restoring += 1;
        let description = Box::new(description.clone());
        self.send(Message::CreateTable(description)).await
    }

    /// Whether tables are being looked for, or brought back to the commit point.
    pub(crate) const fn is_restoring(&self) -> bool {
        self.restoring > 0
    }

    /// A table is as it was at the commit point, or new.
    pub(crate) const fn restored(&mut self) {
        self.restoring = self.restoring.saturating_sub(1);
    }

    /// See [`Keep::add_errors`].
    pub(crate) async fn add_errors(
        &self,
        id: ObjectId,
        errors: Vec<(EvalError, i64)>,
    ) -> Result<(), Error> {
        self.send(Message::AddErrors(id, errors)).await
    }

    /// See [`Keep::drop_objects`].
    pub(crate) async fn drop_objects(
        &self,
        objects: Vec<ObjectId>,
        sources: Vec<SourceHandle>,
    ) -> Result<(), Error> {
        self.send(Message::Drop(objects, sources)).await
    }

    /// See [`Keep::clean_up`].
    pub(crate) async fn clean_up(&self, work: Vec<CleanUp>) -> Result<(), Error> {
        self.send(Message::CleanUp(work)).await
    }

    /// See [`Keep::create_sink`].
    pub(crate) async fn create_sink(
        &self,
        description: Box<SinkDescription>,
        now: Epoch,
    ) -> Result<(), Error> {
        self.send(Message::CreateSink(description, now)).await
    }

    /// See [`Keep::alter_sink`].
    pub(crate) async fn alter_sink(
        &self,
        description: Box<SinkDescription>,
        now: Epoch,
    ) -> Result<(), Error> {
        self.send(Message::AlterSink(description, now)).await
    }

    /// See [`Keep::absorb`].
    pub(crate) async fn absorb(&self, output: EpochOutput) -> Result<(), Error> {
        if output.is_empty() {
            return Ok(());
        }
        self.send(Message::Absorb(output)).await
    }

    /// See [`Keep::consolidate`].
    pub(crate) async fn consolidate(
        &self,
        durable: Epoch,
        waiting: Option<Epoch>,
    ) -> Result<(), Error> {
        self.send(Message::Consolidate(durable, waiting)).await
    }

    /// See [`Keep::commit`].
    pub(crate) async fn commit(&self, epoch: Epoch) -> Result<(), Error> {
        self.send(Message::Commit(epoch)).await
    }

    /// See [`Keep::commit_point_durable`].
    pub(crate) async fn commit_point_durable(&self, epoch: Epoch) -> Result<(), Error> {
        self.send(Message::CommitPointDurable(epoch)).await
    }

    /// See [`Keep::pass_sinks`]. `failures`: why collections are not maintained any more.
    pub(crate) async fn pass_sinks(
        &self,
        epoch: Epoch,
        failures: BTreeMap<ObjectId, String>,
    ) -> Result<(), Error> {
        self.send(Message::PassSinks(epoch, failures)).await
    }

    /// What asks it how much waits for a commit, in a task of its own.
    pub(crate) fn counter(&self) -> KeepCounter {
        KeepCounter(self.messages.clone())
    }

    /// Ends the task when it has acted on everything, and waits for what it began, but for clean-up.
    pub(crate) async fn stop(self) {
        drop(self.messages);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the keep's task panicked");
        }
    }
}

/// What asks the keep how much waits for a commit. The keep's task does not end before it has asked.
#[derive(Debug)]
pub(crate) struct KeepCounter(mpsc::Sender<Message>);

impl KeepCounter {
    /// See [`Keep::bytes`].
    pub(crate) async fn bytes(self, held: Held) -> Result<BTreeMap<ObjectId, u64>, Error> {
        let (answer, answered) = oneshot::channel();
        let sent = self.0.send(Message::Count(held, answer)).await;
        sent.map_err(|_| Error::KeepGone)?;
        answered.await.map_err(|_| Error::KeepGone)
    }
}

/// What runs in the task.
#[derive(Debug)]
struct Keeper {
    keep: Keep,
    messages: mpsc::Receiver<Message>,
    ends: mpsc::Receiver<Ended>,
    /// To the router.
    events: mpsc::Sender<Event>,
}

impl Keeper {
    async fn run(mut self) {
        if let Err(error) = self.serve().await {
            let Self {
                messages, events, ..
            } = &mut self;
            let broken = async {
                if let Err(unheard) = events.send(Event::Broken(error)).await {
                    tracing::error!(event = ?unheard.0, "the router ended before it heard of this");
                }
            };
            // Until the router hears of it, it may say more, and ask: it is to stop because of the error, not for want of an answer.
            let rest = async {
                while let Some(message) = messages.recv().await {
                    if let Message::Count(_, answer) = message {
                        // The worker may have ended.
                        drop(answer.send(BTreeMap::new()));
                    }
                }
            };
            tokio::join!(broken, rest);
        }
        self.keep.stop().await;
    }

    async fn serve(&mut self) -> Result<(), Error> {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.ends.recv() => self.ended(ended).await?,
                message = self.messages.recv() => match message {
                    None => return Ok(()),
                    Some(message) => self.act(message)?,
                },
            }
        }
    }

    async fn ended(&mut self, ended: Ended) -> Result<(), Error> {
        match ended {
            Ended::Commit { epoch, result } => self.keep.committed(epoch, result?).await,
            Ended::Maintenance => self.keep.maintained(),
            Ended::Consolidation(consolidated) => self.keep.consolidated(consolidated),
        }
        Ok(())
    }

    fn act(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::BeginAt(commit_point) => self.keep.begin_at(commit_point),
            Message::CreateTable(description) => self.keep.create_table(&description),
            Message::AddErrors(id, errors) => self.keep.add_errors(id, errors),
            Message::Drop(objects, sources) => self.keep.drop_objects(&objects, sources),
            Message::CleanUp(work) => self.keep.clean_up(work),
            Message::CreateSink(description, now) => self.keep.create_sink(*description, now),
            Message::AlterSink(description, now) => self.keep.alter_sink(*description, now),
            Message::Absorb(output) => self.keep.absorb(output),
            Message::Consolidate(durable, waiting) => self.keep.consolidate(durable, waiting),
            Message::Commit(epoch) => self.keep.commit(epoch)?,
            Message::CommitPointDurable(epoch) => self.keep.commit_point_durable(epoch),
            Message::PassSinks(epoch, failures) => {
                self.keep.pass_sinks(epoch, |id| failures.get(&id).cloned());
            }
            Message::Count(held, answer) => {
                // The worker may have ended.
                drop(answer.send(self.keep.bytes(&held)));
            }
        }
        Ok(())
    }
}
