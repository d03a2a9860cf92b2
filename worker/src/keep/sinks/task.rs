//! The task that writes for one sink.
//!
//! Owns the log of its topic, what makes messages and what was said of it. Must not know what is to be written: [`super::backlog`] does. Started by the sinks.
//!
//! Invariants. One thing is done at a time. What blocks runs on threads that may; the state of the sink is never held while something is waited for.

use std::sync::Arc;
use std::time::Duration;

use arrow_schema::SchemaRef;
use flowstone_ingest::sink::{self, Failure, KafkaLog, Progress, TopicLog};
use flowstone_proto::kafka::KafkaSink;
use flowstone_proto::message::{Response, SourceStatus};
use flowstone_storage::DeltaTables;
use flowstone_types::{DeltaBatch, Epoch, ObjectId, Weights};
use futures::TryStreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::backlog::Next;
use super::partition::Partitioner;
use super::write::{Folding, Messages, Written, sum_of, write};
use crate::error::with_causes;

/// First and longest pause between tries of what the brokers or a registry did not take.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LONGEST: Duration = Duration::from_secs(10);

/// What a task is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) sink: ObjectId,
    pub(super) kafka: KafkaSink,
    pub(super) shared: Arc<Shared>,
    /// To compare what the topic holds with what it is to hold.
    pub(super) delta: DeltaTables,
    pub(super) responses: mpsc::Sender<Response>,
    /// Ends the task, and what it has begun.
    pub(super) cancel: CancellationToken,
}

/// The task of one sink.
#[derive(Debug)]
pub(super) struct Task {
    parts: Parts,
    folding: Folding,
    log: Option<Box<KafkaLog>>,
    /// Of the columns of a generation.
    messages: Option<(u64, Arc<Messages>)>,
    /// What was said last.
    said: Option<SourceStatus>,
    /// The totals that were sent last, and the epoch.
    sent: Option<(Written, Epoch)>,
    pause: Duration,
}

impl Parts {
    /// What leads from one content to another. Cost: the rows of both, which are in memory meanwhile.
    async fn difference(
        &self,
        folding: &Folding,
        (from, to): (Option<Progress>, Progress),
        schema: &SchemaRef,
    ) -> Result<Vec<DeltaBatch>, Failure> {
        let mut deltas = Vec::new();
        if let Some(from) = from {
            let is_other = from.collection != to.collection;
            if is_other && folding.takes_nothing_back() {
                return Ok(Vec::new());
            }
            match self
                .load(&from, schema, &Weights::Const(-1), to.epoch)
                .await
            {
                Ok(rows) => deltas.extend(rows),
                Err(error) if error.retryable() => return Err(Failure::Again(with_causes(&error))),
                Err(error) if is_other => {
                    let sink = self.sink;
                    tracing::warn!(%sink, error = with_causes(&error), "a sink goes on with another collection; what it wrote before stays as it is");
                    return Ok(Vec::new());
                }
                Err(error) => {
                    let error = with_causes(&error);
                    return Err(Failure::Data(format!(
                        "what was written up to epoch {} cannot be compared any more: {error}",
                        from.epoch
                    )));
                }
            }
        }
        match self.load(&to, schema, &Weights::AllOne, to.epoch).await {
            Ok(rows) => deltas.extend(rows),
            Err(error) => {
                if !error.retryable() {
                    // It has been waited for so long that the version is gone.
                    self.shared.state.lock().backlog.skip_to_newest();
                }
                return Err(Failure::Again(with_causes(&error)));
            }
        }
        Ok(deltas)
    }

    async fn load(
        &self,
        at: &Progress,
        schema: &SchemaRef,
        weights: &Weights,
        epoch: Epoch,
    ) -> Result<Vec<DeltaBatch>, flowstone_storage::Error> {
        let Some(version) = at.version else {
            return Ok(Vec::new());
        };
        let (collection, schema) = (at.collection, Arc::clone(schema));
        let mut rows = self.delta.load(collection, version, schema).await?;
        let mut deltas = Vec::new();
        while let Some(rows) = rows.try_next().await? {
            deltas.push(DeltaBatch::new(rows, weights.clone(), epoch));
        }
        Ok(deltas)
    }

    /// Puts together what waits, if it is much.
    async fn merge(&self) {
        let Some((deltas, to)) = self.shared.state.lock().backlog.to_merge() else {
            return;
        };
        let summing = tokio::task::spawn_blocking(move || sum_of(&deltas, to.epoch));
        match summing.await {
            Ok(Ok(sum)) => {
                let mut state = self.shared.state.lock();
                state.backlog.merged(vec![sum], to);
            }
            // It stays as it is, until it is too much.
            Ok(Err(error)) => tracing::debug!(%error, "what waits for a sink stays as it is"),
            Err(error) => tracing::error!(%error, "what waits for a sink was not put together"),
        }
    }
}

impl Task {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            folding: Folding::of(&parts.kafka),
            parts,
            log: None,
            messages: None,
            said: None,
            sent: None,
            pause: PAUSE_FIRST,
        }
    }

    /// Writes until it is told to stop. What cannot go on waits until the sink is altered.
    pub(super) async fn run(mut self) {
        let cancel = self.parts.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.serve() => {}
        }
        self.drop_log();
    }

    fn drop_log(&mut self) {
        // The client waits for its threads, and they may wait for brokers: nobody waits for that.
        if let Some(log) = self.log.take() {
            drop(tokio::task::spawn_blocking(move || drop(log)));
        }
    }

    async fn serve(&mut self) {
        loop {
            let (next, schema, generation) = {
                let state = self.parts.shared.state.lock();
                let schema = Arc::clone(&state.schema);
                (state.backlog.next(), schema, state.generation)
            };
            let done = match next {
                Next::Unsettled => {
                    self.say(SourceStatus::Starting).await;
                    self.parts.shared.changed.notified().await;
                    continue;
                }
                Next::Wait => {
                    self.say_running().await;
                    self.count().await;
                    self.parts.shared.changed.notified().await;
                    continue;
                }
                Next::Blocked(error) => {
                    self.say(SourceStatus::Stalled { error, hint: None }).await;
                    self.parts.shared.changed.notified().await;
                    continue;
                }
                Next::Ahead(held) => {
                    self.end(ahead(&held), generation).await;
                    continue;
                }
                Next::Open => self.open().await,
                Next::Mark(to) => self.write(Vec::new(), to, (generation, &schema)).await,
                Next::Write(deltas, to) => self.write(deltas, to, (generation, &schema)).await,
                Next::Difference(from, to) => match self.difference((from, to), &schema).await {
                    Ok(deltas) => self.write(deltas, to, (generation, &schema)).await,
                    Err(failure) => Err(failure),
                },
            };
            if let Err(failure) = done {
                self.failed(failure, generation).await;
            }
        }
    }

    /// What is written of this generation can never go on: says so, and waits until the sink is altered, as it may have been already.
    async fn end(&mut self, status: SourceStatus, generation: u64) {
        {
            let mut state = self.parts.shared.state.lock();
            if state.generation != generation {
                return;
            }
            state.backlog.close();
        }
        self.drop_log();
        self.say(status).await;
        while self.parts.shared.state.lock().generation == generation {
            self.parts.shared.changed.notified().await;
        }
    }

    async fn open(&mut self) -> Result<(), Failure> {
        if self.said.is_none() {
            self.say(SourceStatus::Starting).await;
        }
        let found = self.on_log(|log| log.open()).await?;
        self.parts.shared.state.lock().backlog.opened(found);
        Ok(())
    }

    async fn write(
        &mut self,
        deltas: Vec<DeltaBatch>,
        to: Progress,
        (generation, schema): (u64, &SchemaRef),
    ) -> Result<(), Failure> {
        let known = self.messages.as_ref();
        let known = known.filter(|(of, _)| *of == generation);
        let messages = match known.map(|(_, messages)| Arc::clone(messages)) {
            Some(messages) => messages,
            None => {
                let kafka = &self.parts.kafka;
                let partitioner = Partitioner::of(kafka, schema)?;
                let encoder = sink::encoder(kafka, schema).await?;
                let made = Arc::new(Messages {
                    encoder,
                    partitioner,
                });
                self.messages = Some((generation, Arc::clone(&made)));
                made
            }
        };
        let folding = self.folding.clone();
        let written = self
            .on_log(move |log| write(log, &messages, &folding, deltas, &to))
            .await?;
        {
            let mut state = self.parts.shared.state.lock();
            state.backlog.wrote(to);
            let total = &mut state.total;
            total.messages = total.messages.saturating_add(written.messages);
            total.bytes = total.bytes.saturating_add(written.bytes);
        }
        self.pause = PAUSE_FIRST;
        self.say_running().await;
        self.count().await;
        Ok(())
    }

    async fn difference(
        &mut self,
        contents: (Option<Progress>, Progress),
        schema: &SchemaRef,
    ) -> Result<Vec<DeltaBatch>, Failure> {
        let folding = self.folding.clone();
        self.parts.difference(&folding, contents, schema).await
    }

    /// Does something that may block with the log. What it waits for is told meanwhile. If the task is told to stop, this goes on without an owner until the log
    /// hears of it or its brokers answer; who stops does not wait for them, and what became of the transaction is seen when the topic is opened again.
    async fn on_log<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut KafkaLog) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut log = self.log.take().unwrap_or_else(|| {
            let parts = &self.parts;
            let log = KafkaLog::new(parts.sink, parts.kafka.clone(), parts.cancel.clone());
            Box::new(log)
        });
        let mut waits = log.waits();
        let mut working = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut log);
            (log, outcome)
        });
        let worked = loop {
            tokio::select! {
                worked = &mut working => break worked,
                Ok(()) = waits.changed() => {
                    let waited_for = waits.borrow_and_update().clone();
                    if let Some(error) = waited_for {
                        self.say(SourceStatus::Stalled { error, hint: None }).await;
                    }
                }
            }
        };
        match worked {
            Ok((log, outcome)) => {
                self.log = Some(log);
                outcome
            }
            Err(error) => Err(Failure::Lost(error.to_string())),
        }
    }

    /// Something was not done.
    async fn failed(&mut self, failure: Failure, generation: u64) {
        let sink = self.parts.sink;
        let status = match failure {
            Failure::Again(error) => SourceStatus::Stalled { error, hint: None },
            Failure::Lost(error) => {
                self.parts.shared.state.lock().backlog.lost();
                SourceStatus::Stalled { error, hint: None }
            }
            Failure::Refused { message, hint } => {
                // Whoever mends it may also have made the topic anew.
                self.parts.shared.state.lock().backlog.lost();
                let error = message;
                SourceStatus::Stalled { error, hint }
            }
            Failure::Data(error) => {
                tracing::error!(%sink, error, "a sink cannot go on");
                let hint = "Mend what the sink reads, then drop the sink and create it again.";
                let hint = Some(hint.to_owned());
                return self
                    .end(SourceStatus::Failed { error, hint }, generation)
                    .await;
            }
        };
        tracing::warn!(%sink, ?status, again_in = ?self.pause, "a sink has not written");
        self.say(status).await;
        let until = tokio::time::Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        loop {
            self.parts.merge().await;
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = self.parts.shared.changed.notified() => {}
            }
        }
    }

    /// It writes what there is; of the topic there may be something to be known.
    async fn say_running(&mut self) {
        let warning = self.log.as_ref().and_then(|log| log.warning());
        let status = warning.map_or(SourceStatus::Running, |hint| SourceStatus::Warned {
            hint: hint.to_owned(),
        });
        self.say(status).await;
    }

    async fn say(&mut self, status: SourceStatus) {
        if self.said.as_ref() == Some(&status) {
            return;
        }
        self.said = Some(status.clone());
        let sink = self.parts.sink;
        // The coordinator may have gone.
        drop(
            self.parts
                .responses
                .send(Response::SinkStatus { sink, status })
                .await,
        );
    }

    async fn count(&mut self) {
        let (through, total) = {
            let state = self.parts.shared.state.lock();
            (state.backlog.written_through(), state.total)
        };
        let Some(committed_epoch) = through else {
            return;
        };
        if self.sent == Some((total, committed_epoch)) {
            return;
        }
        self.sent = Some((total, committed_epoch));
        let statistics = Response::SinkStatistics {
            sink: self.parts.sink,
            messages: total.messages,
            bytes: total.bytes,
            committed_epoch: Some(committed_epoch),
        };
        // The coordinator may have gone.
        drop(self.parts.responses.send(statistics).await);
    }
}

fn ahead(held: &Progress) -> SourceStatus {
    SourceStatus::Failed {
        error: format!(
            "the topic holds what {} held at epoch {}, which is not reached here",
            held.collection, held.epoch
        ),
        hint: Some(
            "Something else writes under this sink's name, or a backup was restored. Create a sink to another topic."
                .to_owned(),
        ),
    }
}
