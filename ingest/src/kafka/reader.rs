//! The reader: the thread that has the consumer, from the first word with the cluster to messages in batches.
//!
//! Owns from which offsets is read, what becomes of a cluster that is not what it was, and what is told to a consumer group; how is in [`super::consumer`]. Must
//! not know formats, tables or disks. It is a thread of its own, since librdkafka blocks; beside it there may be [`super::early`].
//!
//! No group is joined and nothing that it has stored is read: offsets are told to it after they are in a commit point, for people's tools.
//!
//! Invariants. What is read of a partition begins at the offset up to which it was received. That a position is claimed without a message (markers of
//! transactions and aborted ones have offsets as well) only happens up to an end that the cluster has stated before everything below it was delivered.
//! An offset that is gone is an error and not passed over, as long as there is a table that lacks it: `auto.offset.reset` is `error`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowstone_proto::kafka::{KafkaConnection, KafkaStart};
use flowstone_proto::message::{Failure, SourceStatus};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::attempt::Ended;
use super::batch::{Batch, Lane};
use super::client::{Context, PartitionStatistics, REQUEST_TIMEOUT, Trouble, worst};
use super::consumer::{self, Filled, METADATA_INTERVAL_MIN, NAP, Part, Watermarks};
use super::manifest::{FILE_VERSION, Manifest};
use super::offsets::{Offsets, join, raise};
use super::start;
use super::state::Shared;
use crate::Error;
use crate::backoff::Backoff;

/// How often in a row a cluster has to say that a topic is gone or another one before it is believed: some seconds.
const SUSPICIONS_MAX: u32 = 5;
/// How often acknowledged offsets are told to the group at most.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// What librdkafka said that is kept for the user.
const REASONS_KEPT: usize = 16;

/// What the cluster says of the partitions of the topic, or that it does not answer.
type Looked = Result<Result<Vec<i32>, Ended>, KafkaError>;

/// The thread of a source.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    batches: mpsc::Sender<Batch>,
    runtime: Handle,
    /// Whether anything was bound before the process started: then where it began stays.
    was_bound: bool,
    /// Hears, once, that everybody was told what the tables are: until then nothing becomes of them.
    told: Option<oneshot::Sender<()>>,
    /// A look for partitions that goes on: the request blocks, and messages do not wait for it.
    looking: Option<JoinHandle<Looked>>,
    suspicions: u32,
    /// Where the cluster is said to be. What was seen of it is what the attempt uses.
    described: watch::Receiver<KafkaConnection>,
    /// Pauses between attempts: short again after one that got as far as to read.
    backoff: Backoff,
    /// What librdkafka said last.
    reasons: Vec<(RDKafkaErrorCode, String)>,
}

impl Reader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        batches: mpsc::Sender<Batch>,
        runtime: Handle,
        was_bound: bool,
        told: oneshot::Sender<()>,
    ) -> Self {
        Self {
            described: shared.own.connection.watch(),
            shared,
            batches,
            runtime,
            was_bound,
            told: Some(told),
            looking: None,
            suspicions: 0,
            backoff: Backoff::new(),
            reasons: Vec::new(),
        }
    }

    /// Reads until the source is stopped or can never go on.
    pub(crate) fn run(mut self) {
        self.shared.set_reader();
        self.status(SourceStatus::Starting);
        loop {
            if self.is_altered() {
                // What went wrong with the old one does not count.
                tracing::info!(source = %self.shared.id, "the connection of a source was altered");
                self.suspicions = 0;
                self.backoff.reset();
                self.status(SourceStatus::Starting);
            }
            let connection = self.described.borrow_and_update().clone();
            let ended = self.attempt(&connection).err().unwrap_or(Ended::Stopped);
            if self.is_altered() && !matches!(ended, Ended::Stopped | Ended::Permanent { .. }) {
                continue;
            }
            match ended.explained(&connection) {
                Ended::Stopped => return,
                Ended::Again => continue,
                Ended::Permanent { message, hint } => return self.fail(message, hint),
                Ended::Suspect { message, hint } => {
                    self.suspicions += 1;
                    if self.suspicions >= SUSPICIONS_MAX {
                        return self.fail(message, Some(hint));
                    }
                    self.stall(message, Some(hint));
                }
                Ended::Transient { message, hint } => self.stall(message, hint),
            }
            let seed = u64::from(self.suspicions);
            let clock = self.shared.clock.as_ref();
            let pause = self.backoff.next_jittered(clock, seed);
            if self.sleep(pause) {
                return;
            }
        }
    }

    fn fail(&self, message: String, hint: Option<String>) {
        tracing::error!(source = %self.shared.id, error = message, "source failed");
        self.shared.lock().fatal = Some(Failure {
            message: message.clone(),
            hint: hint.clone(),
        });
        self.shared.bump();
        self.status(SourceStatus::Failed {
            error: message,
            hint,
        });
    }

    fn stall(&self, message: String, hint: Option<String>) {
        tracing::warn!(source = %self.shared.id, error = message, "source stalled");
        self.status(SourceStatus::Stalled {
            error: message,
            hint,
        });
    }

    fn status(&self, status: SourceStatus) {
        self.runtime.block_on(self.shared.reader_is(status));
    }

    /// Whether the connection was altered since the attempt began.
    fn is_altered(&self) -> bool {
        self.described.has_changed().unwrap_or(false)
    }

    /// Sleeps, but no longer than until the connection is altered; whether the source is being stopped.
    fn sleep(&self, pause: Duration) -> bool {
        let cancel = &self.shared.cancel;
        let mut described = self.described.clone();
        self.runtime.block_on(async {
            tokio::select! {
                () = cancel.cancelled() => true,
                () = tokio::time::sleep(pause) => false,
                _changed = described.changed() => false,
            }
        })
    }

    /// One attempt: finds out where to read, and reads until something ends it.
    fn attempt(&mut self, connection: &KafkaConnection) -> Result<(), Ended> {
        self.reasons.clear();
        let ahead = consumer::ahead_of_each(&self.shared);
        let consumer = consumer::open(&self.shared, connection, "")?;
        let (watermarks, start) = self.establish(&consumer, connection)?;
        self.suspicions = 0;
        if consumer::ahead_of_each(&self.shared) < ahead {
            // There are more partitions than the consumer was made for: together they would fetch too much ahead.
            return Err(Ended::Again);
        }
        let parts = self.assign(&consumer, &watermarks, &start)?;
        self.shared.added.notify_one();
        self.shared.bump();
        self.status(SourceStatus::Running);
        self.backoff.reset();
        let ended = self.read(&consumer, parts);
        if let Some(looking) = self.looking.take() {
            // Whatever it finds, the next attempt finds as well.
            drop(self.runtime.block_on(looking));
        }
        ended
    }

    /// Tells what the tables are, once: after that they are told of as something becomes of them.
    fn tell_tables(&mut self) {
        let Some(told) = self.told.take() else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let unannounced = shared.lock().take_unannounced();
        self.runtime.block_on(async {
            shared.announce(unannounced).await;
            shared.report_tables().await;
        });
        // Nobody waits for it if the source is being stopped.
        let _stopped = told.send(());
    }

    /// Finds the partitions, and whether they still hold what is to be read. Returns their ends, and where they begin.
    fn establish(
        &mut self,
        consumer: &BaseConsumer<Context>,
        connection: &KafkaConnection,
    ) -> Result<(Watermarks, Offsets), Ended> {
        let shared = Arc::clone(&self.shared);
        let topic = &shared.own.source.topic;
        let partitions = consumer::partitions(consumer, topic)?;
        let cluster = consumer.client().fetch_cluster_id(REQUEST_TIMEOUT);
        let known = shared.manifest.get();
        let known = known.filter(|_| self.was_bound || !shared.lock().received.is_empty());
        if let Some(known) = &known {
            // What another cluster lacks is no loss.
            check_cluster(known, cluster.as_deref())?;
        }
        if partitions.is_empty() {
            let message = format!("topic \"{topic}\" does not exist");
            return Err(match known {
                None => Ended::Transient {
                    message,
                    hint: Some("The source begins once there is such a topic.".to_owned()),
                },
                Some(_) => Ended::Suspect {
                    message: format!("topic \"{topic}\" was deleted"),
                    hint: RECREATE.to_owned(),
                },
            });
        }
        let watermarks = consumer::watermarks(consumer, topic, &partitions)?;
        let manifest = match known {
            None => self.begin(consumer, cluster, &watermarks)?,
            Some(manifest) => self.resume(manifest, &watermarks)?,
        };
        shared.own.connection.prove(connection);
        self.tell_tables();
        let complete = shared.lock().begin(&manifest.start, &manifest.target);
        let complete = complete.into_iter();
        let complete = complete.map(|table| (table, manifest.target.clone()));
        let announced = shared.announce(complete.collect());
        self.runtime.block_on(announced);
        Ok((watermarks, manifest.start))
    }

    /// Settles where the source begins, and where its first content ends.
    fn begin(
        &self,
        consumer: &BaseConsumer<Context>,
        cluster: Option<String>,
        watermarks: &Watermarks,
    ) -> Result<Manifest, Ended> {
        let source = &self.shared.own.source;
        let start = match &source.start {
            KafkaStart::Earliest => watermarks
                .iter()
                .map(|(id, (low, _))| (*id, *low))
                .collect(),
            KafkaStart::Offsets(offsets) => start::declared(&source.topic, offsets, watermarks)?,
            KafkaStart::Timestamp(ms) => {
                let now_ms = i64::try_from(self.shared.clock.now_ms()).unwrap_or(i64::MAX);
                let ms = if *ms < 0 {
                    now_ms.saturating_add(*ms).max(0)
                } else {
                    *ms
                };
                start::since(consumer, &source.topic, ms, watermarks)?
            }
        };
        let target = watermarks
            .iter()
            .map(|(id, (_, high))| {
                let begun = start.get(id).copied().unwrap_or(0);
                (*id, (*high).max(begun))
            })
            .collect();
        let manifest = Manifest {
            version: FILE_VERSION,
            cluster,
            topic: source.topic.clone(),
            start,
            target,
            row_error_saves: 0,
            marks: Vec::new(),
        };
        self.write(manifest.clone())?;
        Ok(manifest)
    }

    fn write(&self, manifest: Manifest) -> Result<(), Ended> {
        let written = self.shared.manifest.change(|before| {
            let row_error_saves = before.map_or(0, |before| before.row_error_saves);
            Some(Manifest {
                row_error_saves,
                ..manifest
            })
        });
        Ok(self.runtime.block_on(written)?)
    }

    /// Looks whether the topic is still the one that was read.
    fn resume(&self, mut manifest: Manifest, watermarks: &Watermarks) -> Result<Manifest, Ended> {
        let topic = &self.shared.own.source.topic;
        let (received, promised) = {
            let state = self.shared.lock();
            let mut promised = state.promised();
            if !state.is_complete {
                // After a restart nobody else knows it yet.
                join(&mut promised, &manifest.target);
            }
            (state.received.clone(), promised)
        };
        let recreated = |reason: String| Ended::Suspect {
            message: format!("topic \"{topic}\" was recreated: {reason}"),
            hint: RECREATE.to_owned(),
        };
        let mut has_more = false;
        for (id, (low, _)) in watermarks {
            if !manifest.start.contains_key(id) {
                // Everything in it is new, but for what is gone again.
                manifest.start.insert(*id, *low);
                has_more = true;
            }
        }
        for (id, start) in &manifest.start {
            let Some((low, high)) = watermarks.get(id) else {
                return Err(recreated(format!("partition {id} is gone")));
            };
            let next = received.get(id).copied().unwrap_or(*start);
            let promised = promised.get(id).copied().unwrap_or(next).max(next);
            // Nothing that was read is above the end, and what was promised neither.
            if *high < promised {
                return Err(recreated(format!(
                    "partition {id} ends at offset {high}, and was read up to {promised}"
                )));
            }
            if *low > next {
                if self.shared.lock().pass_over(*id, *low) {
                    let source = self.shared.id;
                    tracing::info!(%source, partition = id, from = next, to = low, "messages were removed before there was a table for them");
                    continue;
                }
                return Err(Ended::permanent(
                    format!(
                        "messages of partition {id} of topic \"{topic}\" from offset {next} to {low} were removed before they were read"
                    ),
                    "The retention of the topic is too short for how long the source was away. Drop the source and create it again.",
                ));
            }
        }
        if has_more {
            self.write(manifest.clone())?;
        }
        let mut state = self.shared.lock();
        for (id, start) in &manifest.start {
            // Also one that nothing was committed of: as long as it is empty nobody says how far it was read.
            state.add_partition(*id, *start);
        }
        drop(state);
        Ok(manifest)
    }

    /// Begins to fetch all partitions.
    fn assign(
        &self,
        consumer: &Arc<BaseConsumer<Context>>,
        watermarks: &Watermarks,
        start: &Offsets,
    ) -> Result<Vec<Part>, Ended> {
        self.fail_lacking(watermarks);
        let mut from = Vec::with_capacity(watermarks.len());
        {
            let mut state = self.shared.lock();
            for (id, (low, high)) in watermarks {
                raise(&mut state.upstream, *id, *high);
                let begun = start.get(id).copied().unwrap_or(*low);
                let next = state.received.get(id).copied().unwrap_or(begun);
                let first = state.reads_from(*id, next);
                from.push((*id, first.max(begun).max(*low).min(next), *high));
            }
        }
        let topic = &self.shared.own.source.topic;
        consumer::assign(consumer, topic, Lane::Main, from.into_iter())
    }

    /// Fails the tables that need messages which are gone, though they are below what was received.
    fn fail_lacking(&self, watermarks: &Watermarks) {
        let Some((low, _)) = watermarks.get(&0) else {
            return;
        };
        let failed = self.shared.lock().fail_lacking(*low);
        if !failed.is_empty() {
            self.shared.bump();
            let reported = self.shared.report_failures(failed);
            self.runtime.block_on(reported);
        }
    }

    /// Notes in the manifest from where on tables need messages again, if that has changed. A disk that refuses is asked again later.
    fn note_marks(&self) {
        let marks = self.shared.lock().marks();
        let known = self.shared.manifest.get();
        if known.is_none_or(|known| known.marks == marks) {
            return;
        }
        let noted = self.shared.manifest.change(|before| {
            let before = before?;
            Some(Manifest { marks, ..before })
        });
        match self.runtime.block_on(noted) {
            Ok(()) | Err(Error::Stopped) => {}
            Err(error) => {
                tracing::warn!(source = %self.shared.id, %error, "from where messages are needed again could not be made durable");
            }
        }
    }

    /// Reads until something ends it.
    fn read(
        &mut self,
        consumer: &Arc<BaseConsumer<Context>>,
        mut parts: Vec<Part>,
    ) -> Result<(), Ended> {
        let shared = Arc::clone(&self.shared);
        let interval = shared
            .own
            .source
            .metadata_interval
            .max(METADATA_INTERVAL_MIN);
        let mut looked = Instant::now();
        let mut committed = Offsets::new();
        let mut committed_at = Instant::now();
        let mut outbox: Option<Batch> = None;
        loop {
            if shared.cancel.is_cancelled() {
                return Err(Ended::Stopped);
            }
            if self.is_altered() {
                return Err(Ended::Again);
            }
            let with_headers = shared.needs_headers();
            self.events(consumer, &mut parts, with_headers)?;
            let statistics = consumer.context().take_statistics();
            if let Some(statistics) = &statistics {
                self.look_at(statistics, &mut parts)?;
            }
            outbox = outbox
                .and_then(|batch| self.offer(batch).err())
                .transpose()?;
            let mut is_busy = false;
            for part in &mut parts {
                if outbox.is_some() {
                    break;
                }
                let filled = part.fill(with_headers);
                let filled = filled.map_err(|error| self.refused(&error, part.partition))?;
                let known = statistics.as_ref();
                let known = known.and_then(|known| known.get(&part.partition));
                if let (Filled::Drained, Some(known)) = (&filled, known)
                    && known.eof_offset > part.next
                {
                    // It was stated before the queue was found empty.
                    part.reach(known.eof_offset);
                }
                if let Some(batch) = part.take(Lane::Main) {
                    is_busy = true;
                    outbox = self.offer(batch).err().transpose()?;
                }
            }
            // Nobody is always the last.
            if !parts.is_empty() {
                parts.rotate_left(1);
            }
            if committed_at.elapsed() >= COMMIT_INTERVAL {
                committed_at = Instant::now();
                self.commit(consumer, &mut committed);
                self.note_marks();
            }
            if self.looking.is_none() && looked.elapsed() >= interval {
                looked = Instant::now();
                self.look_for_partitions(consumer);
            }
            self.find_partitions(parts.len())?;
            if !is_busy {
                // Whoever takes a batch wakes us, and whoever brings a message.
                std::thread::park_timeout(NAP);
            }
        }
    }

    /// Hands a batch on; it comes back if there is no room for it.
    fn offer(&self, batch: Batch) -> Result<(), Result<Batch, Ended>> {
        match self.batches.try_send(batch) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(batch)) => Err(Ok(batch)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Err(Ended::Stopped)),
        }
    }

    /// Lets the library tell what it has to say beside messages.
    fn events(
        &mut self,
        consumer: &BaseConsumer<Context>,
        parts: &mut [Part],
        with_headers: bool,
    ) -> Result<(), Ended> {
        let mut is_down = false;
        let mut fatal = None;
        while let Some(event) = consumer.poll(Duration::ZERO) {
            match event {
                // It was fetched before its partition had a queue.
                Ok(message) => {
                    let id = message.partition();
                    if let Some(part) = parts.iter_mut().find(|part| part.partition == id) {
                        part.push(&message, with_headers);
                    }
                }
                Err(KafkaError::PartitionEOF(id)) => {
                    if let Some(part) = parts.iter_mut().find(|part| part.partition == id) {
                        part.reach(part.end);
                    }
                }
                Err(error) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AllBrokersDown) => is_down = true,
                    Some(RDKafkaErrorCode::Fatal) => fatal = Some(error),
                    _ => {}
                },
            }
        }
        self.hear(consumer.context().take_reasons());
        if let Some(error) = fatal {
            return Err(Ended::unanswered(&error, &self.reasons));
        }
        if is_down {
            return Err(match worst(&self.reasons) {
                Some((trouble, words)) => Ended::unreachable(trouble, words),
                None => Ended::unreachable(Trouble::Connection, "all brokers are down"),
            });
        }
        Ok(())
    }

    fn hear(&mut self, reasons: Vec<(RDKafkaErrorCode, String)>) {
        self.reasons.extend(reasons);
        let excess = self.reasons.len().saturating_sub(REASONS_KEPT);
        drop(self.reasons.drain(..excess));
    }

    /// Looks at what the library knows of the partitions.
    fn look_at(
        &self,
        statistics: &BTreeMap<i32, PartitionStatistics>,
        parts: &mut [Part],
    ) -> Result<(), Ended> {
        let mut state = self.shared.lock();
        for (id, known) in statistics {
            if known.ls_offset >= 0 {
                raise(&mut state.upstream, *id, known.ls_offset);
            }
        }
        // Also what a take waits for since the attempt has begun: a topic that ends before it will never have it.
        let promised = state.promised();
        drop(state);
        self.shared.bump();
        for part in parts {
            let Some(known) = statistics.get(&part.partition) else {
                continue;
            };
            if (0..part.looked_at).contains(&known.hi_offset) {
                // The next attempt finds out what that means.
                return Err(Ended::transient(format!(
                    "partition {} ends at offset {}, and was to be read up to {}",
                    part.partition, known.hi_offset, part.looked_at
                )));
            }
            let promised = promised.get(&part.partition).copied().unwrap_or(0);
            part.looked_at = part.next.max(promised);
        }
        Ok(())
    }

    /// A partition cannot be read.
    fn refused(&self, error: &KafkaError, partition: i32) -> Ended {
        let topic = &self.shared.own.source.topic;
        let message = format!("partition {partition} of topic \"{topic}\" cannot be read: {error}");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Ended::Transient {
                message,
                hint: Some("Allow the user of the connection to read the topic.".to_owned()),
            },
            _ => Ended::transient(message),
        }
    }

    /// Tells the group what is in a commit point.
    fn commit(&self, consumer: &BaseConsumer<Context>, committed: &mut Offsets) {
        let acknowledged = self.shared.lock().acknowledged.clone();
        if acknowledged.is_empty() || acknowledged == *committed {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(acknowledged.len());
        for (id, offset) in &acknowledged {
            let offset = Offset::Offset(*offset);
            if let Err(error) =
                list.add_partition_offset(&self.shared.own.source.topic, *id, offset)
            {
                tracing::debug!(%error, "an offset cannot be told to the group");
            }
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(source = %self.shared.id, %error, "offsets could not be told to the group");
            return;
        }
        *committed = acknowledged;
    }

    /// Begins to look which partitions there are.
    fn look_for_partitions(&mut self, consumer: &Arc<BaseConsumer<Context>>) {
        let (shared, consumer) = (Arc::clone(&self.shared), Arc::clone(consumer));
        let look = move || {
            let looked = consumer::ask_partitions(&consumer, &shared.own.source.topic);
            shared.wake_reader();
            looked
        };
        self.looking = Some(self.runtime.spawn_blocking(look));
    }

    /// Looks whether there are other partitions than those that are read, if it is known by now which there are.
    fn find_partitions(&mut self, count: usize) -> Result<(), Ended> {
        let Some(looking) = self.looking.take_if(|looking| looking.is_finished()) else {
            return Ok(());
        };
        let looked = self.runtime.block_on(looking);
        let looked =
            looked.map_err(|error| Ended::transient(format!("internal error: {error}")))?;
        let topic = &self.shared.own.source.topic;
        // What the consumer had to say of that was heard meanwhile.
        match looked.map_err(|error| Ended::unanswered(&error, &self.reasons))? {
            Ok(found) if found.len() == count => Ok(()),
            Ok(found) if found.len() > count => Err(Ended::Again),
            // The next attempt finds out what that means.
            Ok(_) => Err(Ended::transient(format!(
                "topic \"{topic}\" has fewer partitions than it had"
            ))),
            Err(ended) => Err(ended),
        }
    }
}

/// Looks whether a cluster is the one in which the source has begun. Nothing is lost if it is not: the source waits until the connection leads back.
fn check_cluster(manifest: &Manifest, cluster: Option<&str>) -> Result<(), Ended> {
    match (cluster, &manifest.cluster) {
        (Some(now), Some(then)) if now != then => Err(Ended::Transient {
            message: format!("cluster has id {now}, but the source was created with {then}"),
            hint: Some(
                "The connection leads to another cluster. Let it lead to the one of before, or drop the source and create it again."
                    .to_owned(),
            ),
        }),
        _ => Ok(()),
    }
}

/// What to do about a topic that is another one now.
const RECREATE: &str = "What the source has read is not the history of the topic any more. Drop the source and create it again.";
