//! Subscriptions: the output of a transient dataflow on its way to one client.
//!
//! Owns what has been computed but may not be shown yet, and what the client has not read yet. Must not know plans or protocols.
//! Called by the compute; a task of its own per subscription writes to the client.
//!
//! Invariants. An epoch's rows leave only when a durable binding covers it. All rows of an epoch leave together and before its progress. A client that
//! lets more than [`BUFFERED_BYTES_MAX`] pile up is cut off with an error, and so is the one with the most waiting when all clients together let more pile up
//! than they may; no client holds back the engine. What one change is made of is put together by the writer: nothing else waits for a large one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow_array::UInt32Array;
use flowstone_proto::message::{RequestError, ResultMessage};
use flowstone_types::consolidate::consolidate;
use flowstone_types::{DeltaBatch, Epoch, EvalError, ObjectId, TypeError};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::lanes::{Jump, after};
use crate::size::bytes_of;

/// Bytes of changes that may wait for one client before it is cut off. The snapshot it starts with does not count: it is there in one piece, however fast
/// the client reads.
pub(crate) const BUFFERED_BYTES_MAX: usize = 256 << 20;

/// Rows sent in one message: a bigger change is sent in several, and put together on a thread of its own.
const ROWS_PER_MESSAGE: usize = 8192;

/// Bytes sent in one message, unless a single row has more: what is in the channel to a client that was cut off stays there until it reads or goes.
const BYTES_PER_MESSAGE: usize = 1 << 20;

/// One subscription, on the engine's side.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The collections its dataflow reads: it ends when one of them is dropped.
    reads: Vec<ObjectId>,
    /// Stop before this epoch.
    up_to: Option<Epoch>,
    /// Changes of epochs that may not be shown yet.
    held: BTreeMap<Epoch, Held>,
    /// Errors in the result, by multiplicity. While one exists the subscription fails.
    errors: BTreeMap<EvalError, i64>,
    /// The epoch of the snapshot.
    start: Epoch,
    /// Everything below has been released.
    released: Epoch,
    queue: Arc<Queue>,
    /// To the client; the writer sends. Here for what it holds.
    results: mpsc::Sender<ResultMessage>,
    writer: JoinHandle<()>,
}

/// A subscription whose dataflow is being made.
#[derive(Debug)]
pub(crate) struct Starting {
    pub(crate) results: mpsc::Sender<ResultMessage>,
    pub(crate) reads: Vec<ObjectId>,
    pub(crate) up_to: Option<Epoch>,
    /// Whether the client wants the snapshot.
    pub(crate) snapshot: bool,
    /// The newest epoch when it was asked for: its snapshot is of that one or a later one.
    pub(crate) asked: Epoch,
}

impl Starting {
    /// Its snapshot is that of `epoch`.
    pub(crate) fn start(self, epoch: Epoch) -> Subscription {
        let runtime = tokio::runtime::Handle::current();
        Subscription::start(self.results, self.reads, epoch, self.up_to, &runtime)
    }
}

#[derive(Debug, Default)]
struct Held {
    deltas: Vec<DeltaBatch>,
    errors: Vec<(EvalError, i64)>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Notify,
}

/// What waits for a client.
#[derive(Debug)]
enum Waiting {
    Message(ResultMessage),
    /// What shards computed for an epoch; it has yet to be put together.
    Change(Epoch, Vec<DeltaBatch>),
}

#[derive(Debug, Default)]
struct QueueState {
    /// Each with the bytes it counts for.
    waiting: VecDeque<(Waiting, usize)>,
    /// Bytes of each message that was sent, oldest first; those beyond what the channel holds have been read.
    sent: VecDeque<usize>,
    /// Bytes of all of these, and of what is being put together.
    bytes: usize,
    closed: bool,
    /// The last message is bad news, for which nothing is held up.
    failed: bool,
}

impl QueueState {
    /// Ends with bad news: what is waiting would only delay it.
    fn fail(&mut self, error: RequestError) {
        let waiting: usize = self.waiting.drain(..).map(|(_, bytes)| bytes).sum();
        self.bytes = self.bytes.saturating_sub(waiting);
        let last = Waiting::Message(ResultMessage::Failed(error));
        self.waiting.push_back((last, 0));
        (self.closed, self.failed) = (true, true);
    }

    /// A change that counted for `bytes` was put together: it comes next, before what came after it.
    fn put_together(&mut self, bytes: usize, messages: Vec<ResultMessage>) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.failed {
            return;
        }
        for message in messages.into_iter().rev() {
            let bytes = match &message {
                ResultMessage::Updates(delta) if bytes > 0 => bytes_of(&delta.rows),
                _ => 0,
            };
            self.bytes += bytes;
            self.waiting.push_front((Waiting::Message(message), bytes));
        }
    }

    /// Stops counting what the client has read: the channel holds the newest `unread` messages.
    fn forget_read(&mut self, unread: usize) {
        while self.sent.len() > unread
            && let Some(bytes) = self.sent.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

/// Whether a subscription goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// It does.
    Alive,
    /// It has ended; its dataflow can go.
    Ended,
}

impl Subscription {
    /// Starts the writer. `start` is the epoch of the snapshot: the first progress the client hears.
    #[must_use]
    pub(crate) fn start(
        results: mpsc::Sender<ResultMessage>,
        reads: Vec<ObjectId>,
        start: Epoch,
        up_to: Option<Epoch>,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        let queue = Arc::new(Queue::default());
        let writer = runtime.spawn(write(Arc::clone(&queue), results.clone()));
        Self {
            reads,
            up_to,
            held: BTreeMap::new(),
            errors: BTreeMap::new(),
            start,
            released: start,
            queue,
            results,
            writer,
        }
    }

    /// Bytes of changes that wait for the client, on their way to it included.
    #[must_use]
    pub(crate) fn waiting_bytes(&self) -> usize {
        let mut state = self.queue.state.lock();
        state.forget_read(unread(&self.results));
        state.bytes
    }

    /// Ends the subscription because its client reads too slowly, with the bad news as its last message.
    pub(crate) fn cut_off(&mut self) -> Liveness {
        let buffered_bytes = u64::try_from(self.waiting_bytes()).unwrap_or(u64::MAX);
        tracing::warn!(
            buffered_bytes,
            "a subscriber is cut off: it reads too slowly"
        );
        self.end(ResultMessage::Failed(RequestError::SlowConsumer {
            buffered_bytes,
        }))
    }

    /// The collections its dataflow reads.
    #[must_use]
    pub(crate) fn reads(&self) -> &[ObjectId] {
        &self.reads
    }

    /// Everything before it was shown.
    #[must_use]
    pub(crate) const fn shown(&self) -> Epoch {
        self.released.previous()
    }

    /// Whether its dataflow reads one of `objects`.
    #[must_use]
    pub(crate) fn reads_any(&self, objects: &BTreeSet<ObjectId>) -> bool {
        !objects.is_empty() && self.reads.iter().any(|read| objects.contains(read))
    }

    /// Adds what one shard computed for `epoch`. Nothing is shown yet.
    pub(crate) fn add(
        &mut self,
        epoch: Epoch,
        deltas: Vec<DeltaBatch>,
        errors: Vec<(EvalError, i64)>,
    ) {
        if self.up_to.is_some_and(|up_to| epoch >= up_to) {
            return;
        }
        let held = self.held.entry(epoch).or_default();
        held.deltas
            .extend(deltas.into_iter().filter(|delta| !delta.is_empty()));
        held.errors.extend(errors);
    }

    /// Everything up to and including `durable` may be shown, which is not within one of `jumps`: what changed in the course of one is of its last epoch.
    pub(crate) fn release(&mut self, durable: Epoch, jumps: &[Jump]) -> Liveness {
        if self.writer.is_finished() {
            return Liveness::Ended;
        }
        let later = self.held.split_off(&durable.next());
        let mut ready: BTreeMap<Epoch, Held> = BTreeMap::new();
        for (epoch, held) in std::mem::replace(&mut self.held, later) {
            let epoch = after(jumps.iter(), epoch);
            if self.up_to.is_some_and(|up_to| epoch >= up_to) {
                continue;
            }
            let all = ready.entry(epoch).or_default();
            all.deltas.extend(held.deltas);
            all.errors.extend(held.errors);
        }
        for (epoch, held) in ready {
            for (error, weight) in held.errors {
                *self.errors.entry(error).or_default() += weight;
            }
            self.errors.retain(|_, weight| *weight != 0);
            if let Some(error) = self.errors.keys().next() {
                return self.end(ResultMessage::Failed(RequestError::Eval(error.clone())));
            }
            self.push_change(epoch, held.deltas);
        }
        let frontier = self
            .up_to
            .map_or(durable.next(), |up_to| up_to.min(durable.next()));
        if frontier > self.released {
            self.released = frontier;
            self.push_progress(frontier);
        }
        if self.up_to.is_some_and(|up_to| durable.next() >= up_to) {
            return self.end(ResultMessage::Done);
        }
        if self.waiting_bytes() > BUFFERED_BYTES_MAX {
            return self.cut_off();
        }
        Liveness::Alive
    }

    /// Ends the subscription with a last message.
    pub(crate) fn end(&mut self, last: ResultMessage) -> Liveness {
        let mut state = self.queue.state.lock();
        if let ResultMessage::Failed(error) = last {
            state.fail(error);
        } else {
            state.waiting.push_back((Waiting::Message(last), 0));
            state.closed = true;
        }
        drop(state);
        self.queue.changed.notify_one();
        Liveness::Ended
    }

    fn push_change(&self, epoch: Epoch, deltas: Vec<DeltaBatch>) {
        if deltas.is_empty() {
            return;
        }
        let bytes = if epoch > self.start {
            deltas.iter().map(|delta| bytes_of(&delta.rows)).sum()
        } else {
            0
        };
        let mut state = self.queue.state.lock();
        state.bytes += bytes;
        let change = Waiting::Change(epoch, deltas);
        state.waiting.push_back((change, bytes));
        drop(state);
        self.queue.changed.notify_one();
    }

    fn push_progress(&self, frontier: Epoch) {
        let mut state = self.queue.state.lock();
        // It is only worth its newest value.
        if let Some((Waiting::Message(ResultMessage::Progress(last)), _)) = state.waiting.back_mut()
        {
            *last = frontier;
        } else {
            let progress = Waiting::Message(ResultMessage::Progress(frontier));
            state.waiting.push_back((progress, 0));
        }
        drop(state);
        self.queue.changed.notify_one();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.changed.notify_one();
    }
}

/// One consolidated change of an epoch, in messages of bounded size.
fn merge(
    epoch: Epoch,
    deltas: &[DeltaBatch],
) -> Result<Vec<ResultMessage>, flowstone_types::TypeError> {
    let Some(first) = deltas.first() else {
        return Ok(Vec::new());
    };
    let merged = consolidate(&DeltaBatch::concat(&first.schema(), deltas, epoch)?)?;
    if merged.is_empty() {
        return Ok(Vec::new());
    }
    let row_bytes = (bytes_of(&merged.rows) / merged.len()).max(1);
    let rows_per_message = ROWS_PER_MESSAGE.min((BYTES_PER_MESSAGE / row_bytes).max(1));
    if merged.len() <= rows_per_message {
        return Ok(vec![ResultMessage::Updates(merged)]);
    }
    let mut messages = Vec::with_capacity(merged.len().div_ceil(rows_per_message));
    for start in (0..merged.len()).step_by(rows_per_message) {
        let end = merged.len().min(start + rows_per_message);
        let rows =
            UInt32Array::from_iter_values((start..end).filter_map(|row| u32::try_from(row).ok()));
        // A copy: a slice would keep the whole change in memory until its last message is read.
        messages.push(ResultMessage::Updates(merged.take(&rows)?));
    }
    Ok(messages)
}

/// Messages in the channel to the client.
fn unread(results: &mpsc::Sender<ResultMessage>) -> usize {
    results.max_capacity().saturating_sub(results.capacity())
}

async fn write(queue: Arc<Queue>, results: mpsc::Sender<ResultMessage>) {
    loop {
        let (next, closed) = {
            let mut state = queue.state.lock();
            let next = state.waiting.pop_front();
            (next, state.closed)
        };
        match next {
            Some((Waiting::Message(message), bytes)) => {
                if results.send(message).await.is_err() {
                    return;
                }
                let mut state = queue.state.lock();
                state.sent.push_back(bytes);
                state.forget_read(unread(&results));
            }
            Some((Waiting::Change(epoch, deltas), bytes)) => {
                let merged = merge_beside(epoch, deltas).await;
                let mut state = queue.state.lock();
                match merged {
                    Ok(messages) => state.put_together(bytes, messages),
                    Err(error) => {
                        state.bytes = state.bytes.saturating_sub(bytes);
                        if !state.failed {
                            state.fail(error);
                        }
                    }
                }
            }
            None if closed => return,
            None => {
                tokio::select! {
                    () = queue.changed.notified() => {}
                    () = results.closed() => return,
                }
            }
        }
    }
}

/// One consolidated change, in messages of bounded size. A large one is put together where nothing else waits for it.
async fn merge_beside(
    epoch: Epoch,
    deltas: Vec<DeltaBatch>,
) -> Result<Vec<ResultMessage>, RequestError> {
    let rows: usize = deltas.iter().map(DeltaBatch::len).sum();
    let merged = if rows > ROWS_PER_MESSAGE {
        let merging = tokio::task::spawn_blocking(move || merge(epoch, &deltas));
        merging
            .await
            .map_err(|error| RequestError::Internal(error.to_string()))?
    } else {
        merge(epoch, &deltas)
    };
    merged.map_err(|error| match error {
        TypeError::TooLarge => RequestError::Eval(EvalError::too_large()),
        error => RequestError::Internal(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, RecordBatch, StringArray};
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    const START: Epoch = Epoch(10);

    /// `rows` rows of 8 bytes in one batch.
    fn delta(epoch: Epoch, rows: usize) -> DeltaBatch {
        let schema = Schema::new(vec![Field::new("c0", DataType::Int64, true)]);
        let numbers: Int64Array = (0..i64::try_from(rows).unwrap()).collect();
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers)]).unwrap();
        DeltaBatch::insert(rows, epoch)
    }

    /// A subscription whose client reads nothing. The channel holds 16 messages; the queue has the rest.
    fn unread() -> (Subscription, mpsc::Receiver<ResultMessage>) {
        let (results, client) = mpsc::channel(16);
        let runtime = tokio::runtime::Handle::current();
        let subscription = Subscription::start(results, Vec::new(), START, None, &runtime);
        (subscription, client)
    }

    #[tokio::test]
    async fn a_change_counts_once_however_many_messages_it_takes() {
        let (mut subscription, _client) = unread();
        let rows = 40 * ROWS_PER_MESSAGE;
        subscription.add(START.next(), vec![delta(START.next(), rows)], Vec::new());
        assert_eq!(subscription.release(START.next(), &[]), Liveness::Alive);
        let waiting = subscription.queue.state.lock().bytes;
        assert!(waiting <= rows * 9, "{waiting} bytes for {rows} rows");
        assert!(waiting > 0);
    }

    #[tokio::test]
    async fn what_is_on_its_way_to_the_client_waits_until_it_is_read() {
        let (mut subscription, mut client) = unread();
        let mut epoch = START;
        // Fewer messages than the channel holds, so that the queue is empty soon.
        for _ in 0..4 {
            epoch = epoch.next();
            subscription.add(epoch, vec![delta(epoch, 1000)], Vec::new());
            assert_eq!(subscription.release(epoch, &[]), Liveness::Alive);
            while !subscription.queue.state.lock().waiting.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        let waiting = subscription.waiting_bytes();
        assert!(waiting >= 4 * 8000, "{waiting} bytes");
        while subscription.waiting_bytes() > 0 {
            client.recv().await.unwrap();
        }
        // Read to the end or nearly so: only progress may be left, which counts for nothing.
        assert!(unread_messages(&subscription) <= 1);
    }

    fn unread_messages(subscription: &Subscription) -> usize {
        super::unread(&subscription.results)
    }

    #[tokio::test]
    async fn changes_large_and_small_come_in_order_and_what_is_taken_back_does_not() {
        let (mut subscription, mut client) = unread();
        let rows = 20 * ROWS_PER_MESSAGE;
        let mut epoch = START;
        for rows in [rows, 10, rows, 1] {
            epoch = epoch.next();
            let taken_back = delta(epoch, 7).negate().unwrap();
            let deltas = vec![delta(epoch, rows + 7), taken_back];
            subscription.add(epoch, deltas, Vec::new());
            assert_eq!(subscription.release(epoch, &[]), Liveness::Alive);
        }
        // Nothing was put together here.
        let put_together = |(waiting, _): &(Waiting, usize)| {
            matches!(waiting, Waiting::Message(ResultMessage::Updates(_)))
        };
        assert!(
            !subscription
                .queue
                .state
                .lock()
                .waiting
                .iter()
                .any(put_together)
        );
        assert_eq!(subscription.end(ResultMessage::Done), Liveness::Ended);
        let (mut seen, mut through) = (BTreeMap::<Epoch, usize>::new(), START);
        while let Some(message) = client.recv().await {
            match message {
                ResultMessage::Updates(delta) => {
                    assert!(delta.epoch >= through, "after its progress");
                    *seen.entry(delta.epoch).or_default() += delta.len();
                }
                ResultMessage::Progress(frontier) => {
                    assert!(frontier > through);
                    through = frontier;
                }
                ResultMessage::Done => break,
                other => panic!("{other:?}"),
            }
        }
        let seen: Vec<usize> = seen.into_values().collect();
        assert_eq!(seen, [rows, 10, rows, 1]);
        assert_eq!(through, epoch.next());
        assert_eq!(subscription.waiting_bytes(), 0);
    }

    #[tokio::test]
    async fn bad_news_do_not_wait_for_a_large_change() {
        let (mut subscription, mut client) = unread();
        let next = START.next();
        let rows = 100 * ROWS_PER_MESSAGE;
        subscription.add(next, vec![delta(next, rows)], Vec::new());
        assert_eq!(subscription.release(next, &[]), Liveness::Alive);
        // The writer takes it.
        while subscription.queue.state.lock().waiting.len() > 1 {
            tokio::task::yield_now().await;
        }
        assert!(subscription.waiting_bytes() >= rows * 8);
        let gone = || ResultMessage::Failed(RequestError::Dropped);
        assert_eq!(subscription.end(gone()), Liveness::Ended);
        let mut seen = 0;
        loop {
            match client.recv().await.unwrap() {
                ResultMessage::Updates(_) => seen += 1,
                ResultMessage::Failed(RequestError::Dropped) => break,
                other => panic!("{other:?}"),
            }
        }
        // What may be in the channel already, if it was put together at once.
        assert!(seen <= 17, "{seen} messages");
        assert_eq!(subscription.waiting_bytes(), 0);
        drop(subscription);
        assert!(client.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_message_has_a_bounded_size() {
        let (mut subscription, mut client) = unread();
        let next = START.next();
        let filling = "x".repeat(10_000);
        let values: StringArray = (0..1000)
            .map(|number| Some(format!("{number}{filling}")))
            .collect();
        let schema = Schema::new(vec![Field::new("c0", DataType::Utf8, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(values)]).unwrap();
        subscription.add(next, vec![DeltaBatch::insert(rows, next)], Vec::new());
        assert_eq!(subscription.release(next, &[]), Liveness::Alive);
        let mut rows = 0;
        while rows < 1000 {
            let Some(ResultMessage::Updates(delta)) = client.recv().await else {
                panic!("{rows} rows");
            };
            let bytes = delta.rows.get_array_memory_size();
            assert!(bytes < 2 * BYTES_PER_MESSAGE, "{bytes} bytes");
            rows += delta.len();
        }
        assert_eq!(rows, 1000);
    }

    #[tokio::test]
    async fn a_large_snapshot_cuts_nobody_off_and_large_changes_do() {
        let (mut subscription, _client) = unread();
        let filling = "x".repeat(1 << 20);
        let values: StringArray = (0..=BUFFERED_BYTES_MAX >> 20)
            .map(|number| Some(format!("{number}{filling}")))
            .collect();
        let schema = Schema::new(vec![Field::new("c0", DataType::Utf8, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(values)]).unwrap();
        let large = |epoch| vec![DeltaBatch::insert(rows.clone(), epoch)];
        subscription.add(START, large(START), Vec::new());
        assert_eq!(subscription.release(START, &[]), Liveness::Alive);
        let next = START.next();
        subscription.add(next, large(next), Vec::new());
        assert_eq!(subscription.release(next, &[]), Liveness::Ended);
    }
}
