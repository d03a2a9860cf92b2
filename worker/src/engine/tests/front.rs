//! Reads among other commands, with a router that does what the test says and no more.

use std::collections::BTreeMap;

use arrow_array::{Int64Array, RecordBatch};
use flowstone_dataflow::CollectionInput;
use flowstone_proto::ipc::WireBatch;
use flowstone_proto::message::{Lookup, ReadAt, RequestError, ResultMessage};
use flowstone_types::DeltaBatch;
use tokio::sync::mpsc::error::TryRecvError;

use super::*;
use crate::engine::front::{Front, Parts, Passed};

fn row(value: i64) -> RecordBatch {
    let schema = Schema::new(vec![SqlType::Int8.to_field("c0", true)]);
    let column = Arc::new(Int64Array::from(vec![value]));
    RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
}

fn epoch(number: u64) -> Command {
    Command::RunEpoch(RunEpoch {
        epoch: Epoch(number),
        bindings: Vec::new(),
        writes: Vec::new(),
        replay: false,
    })
}

/// A front, and what is behind it.
struct Fronted {
    coordinator: CoordinatorEnd,
    compute: Compute,
    passed: Passed,
    task: tokio::task::JoinHandle<mpsc::Receiver<Command>>,
    requests: u64,
}

impl Fronted {
    /// With a table that has one row.
    async fn new(dir: &Path) -> Self {
        let (coordinator, end) = connect();
        let opened = open(&config(dir)).await.unwrap();
        let (events, _) = mpsc::channel(1);
        let count = opened.shards.count();
        let trial = Trial::new(opened.maker.clone(), count, opened.runner.clone());
        let compute = Compute::new(compute::Parts {
            responses: end.responses.clone(),
            results: end.results,
            events,
            shards: opened.shards,
            maker: opened.maker,
            runner: opened.runner,
            delta: opened.delta,
            blobs: opened.log.blobs(),
            readable: Arc::default(),
            subscriber_memory_bytes: 1 << 20,
            backlog_bytes_max: compute::BACKLOG_BYTES,
        });
        let (front, passed) = Front::new(Parts {
            commands: end.commands,
            responses: end.responses,
            reads: compute.reads(),
            trial,
            tasks: TaskTracker::new(),
        });
        let mut fronted = Self {
            coordinator,
            compute,
            passed,
            task: tokio::spawn(front.run()),
            requests: 0,
        };
        fronted.create(TABLE).await;
        fronted.run(1, 1).await;
        fronted
    }

    async fn create(&mut self, id: ObjectId) {
        let Command::CreateCollection(table) = collection(id, CollectionKind::Table) else {
            panic!("it makes a table");
        };
        self.compute.create_collection(table).await.unwrap();
    }

    /// Runs an epoch with a row; from then on it may be observed.
    async fn run(&mut self, epoch: u64, value: i64) {
        self.enter(epoch, value).await;
        self.compute.binding_durable(Epoch(epoch)).await.unwrap();
    }

    /// Runs an epoch with a row.
    async fn enter(&mut self, epoch: u64, value: i64) {
        let epoch = Epoch(epoch);
        let delta = DeltaBatch::insert(row(value), epoch);
        let input = EpochInput {
            direct: vec![(TABLE, CollectionInput::Deltas(vec![delta]))],
            ..EpochInput::default()
        };
        self.compute.run(epoch, input).await.unwrap();
    }

    async fn send(&self, command: Command) {
        self.coordinator.commands.send(command).await.unwrap();
    }

    /// What comes to the router next.
    async fn passed_on(&mut self) -> Command {
        let passed = tokio::time::timeout(DEADLINE, self.passed.commands.recv()).await;
        passed.unwrap().unwrap()
    }

    /// Asks for a value. It is looked up by all columns of a table, which has no key.
    async fn ask(
        &mut self,
        index: ObjectId,
        value: i64,
        at: ReadAt,
    ) -> (RequestId, mpsc::Receiver<ResultMessage>) {
        self.requests += 1;
        let request = RequestId(self.requests);
        let messages = self.coordinator.results.open(request);
        self.send(Command::Lookup(Lookup {
            request,
            index,
            key: WireBatch(row(value)),
            projection: vec![0],
            at,
        }))
        .await;
        (request, messages)
    }

    async fn stop(self) {
        drop(self.passed);
        drop(self.task.await.unwrap());
        self.compute.stop().await.unwrap();
    }
}

/// How many rows a lookup finds.
async fn found(mut messages: mpsc::Receiver<ResultMessage>) -> Result<usize, RequestError> {
    let mut found = 0;
    loop {
        let message = tokio::time::timeout(DEADLINE, messages.recv()).await;
        match message.unwrap().unwrap() {
            ResultMessage::Rows(rows) => found += rows.num_rows(),
            ResultMessage::Failed(error) => return Err(error),
            ResultMessage::Done => return Ok(found),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_its_epoch_and_for_nothing_that_the_router_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut fronted = Fronted::new(dir.path()).await;
    // The router has it, and does not come to an end with it.
    fronted.send(epoch(2)).await;
    assert_eq!(fronted.passed_on().await, epoch(2));
    let newest = ReadAt::AtLeast(Epoch(1));
    let (_, now) = fronted.ask(TABLE, 1, newest).await;
    let (_, later) = fronted.ask(TABLE, 2, ReadAt::AtLeast(Epoch(2))).await;
    let (never, cancelled) = fronted.ask(TABLE, 1, ReadAt::Exactly(Epoch(9))).await;
    fronted.send(Command::Cancel { request: never }).await;
    assert_eq!(found(now).await, Ok(1));
    assert_eq!(found(cancelled).await, Err(RequestError::Cancelled));
    fronted.run(2, 2).await;
    assert_eq!(found(later).await, Ok(1));
    // What is no read is the router's.
    let request = RequestId(100);
    fronted.send(Command::Cancel { request }).await;
    assert_eq!(fronted.passed_on().await, Command::Cancel { request });
    fronted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_was_run_is_read_before_the_router_hears_that_it_may_be_and_no_other_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut fronted = Fronted::new(dir.path()).await;
    let (_, next) = fronted.ask(TABLE, 2, ReadAt::AtLeast(Epoch(2))).await;
    let (_, mut ahead) = fronted.ask(TABLE, 3, ReadAt::Exactly(Epoch(3))).await;
    fronted.enter(2, 2).await;
    for epoch in [Epoch(2), Epoch(3)] {
        let durable = Command::BindingDurable { epoch };
        fronted.send(durable.clone()).await;
        assert_eq!(fronted.passed_on().await, durable);
    }
    assert_eq!(found(next).await, Ok(1));
    assert_eq!(ahead.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(fronted.compute.durable(), Epoch(1));
    fronted.run(3, 3).await;
    assert_eq!(found(ahead).await, Ok(1));
    fronted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_finds_what_was_made_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut fronted = Fronted::new(dir.path()).await;
    let made = collection(OTHER, CollectionKind::Table);
    fronted.send(made.clone()).await;
    let newest = ReadAt::AtLeast(Epoch(1));
    let (_, mut behind) = fronted.ask(OTHER, 1, newest).await;
    let (unwanted, cancelled) = fronted.ask(TABLE, 1, newest).await;
    let cancel = Command::Cancel { request: unwanted };
    fronted.send(cancel).await;
    fronted.send(epoch(2)).await;
    // Everything that was sent before the last has been taken in.
    assert_eq!(fronted.passed_on().await, made);
    assert_eq!(fronted.passed_on().await, epoch(2));
    assert_eq!(found(cancelled).await, Err(RequestError::Cancelled));
    assert_eq!(behind.try_recv().unwrap_err(), TryRecvError::Empty);
    fronted.create(OTHER).await;
    fronted.passed.acted.send_modify(|acted| *acted += 1);
    assert_eq!(found(behind).await, Ok(0));
    fronted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_count_of_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut fronted = Fronted::new(dir.path()).await;
    let (answer, answered) = tokio::sync::oneshot::channel();
    fronted
        .compute
        .housekeep(|_| async move { Ok::<_, Error>(answered.await.unwrap()) })
        .unwrap();
    // There is one at a time.
    fronted
        .compute
        .housekeep(|_| std::future::ready(Ok(BTreeMap::new())))
        .unwrap();
    fronted.run(2, 2).await;
    answer.send(BTreeMap::from([(TABLE, 1_u64 << 40)])).unwrap();
    let heard = tokio::time::timeout(DEADLINE, fronted.compute.hear()).await;
    let output = fronted.compute.heard(heard.unwrap()).await.unwrap();
    assert!(output.is_empty());
    let said = tokio::time::timeout(DEADLINE, fronted.coordinator.responses.recv()).await;
    let Some(Response::CollectionStatistics { id, statistics }) = said.unwrap() else {
        panic!("nothing was said of the table");
    };
    assert_eq!(id, TABLE);
    assert!(statistics.bytes > 1 << 40);
    fronted.stop().await;
}
