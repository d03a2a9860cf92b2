//! What runs in lanes is what would run in the base: views over views over a table, in clusters that come, are resized, paused and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::SchemaRef;
use flowstone_dataflow::QueryEvaluator;
use flowstone_proto::ipc::{WireBatch, encode_batches};
use flowstone_proto::message::{
    LoadGenerator, Lookup, ReadAt, RequestError, RequestId, ResultMessage, SourceBinding,
    SourceColumn, StageWrite, Subscribe, WriteOperation,
};
use flowstone_proto::plan::{Aggregate, AggregateFunction, QueryPlan};
use flowstone_types::{SourcePosition, Weights};
use tokio::sync::mpsc;

use super::*;

const FIRST: ClusterId = ClusterId(2);
const SECOND: ClusterId = ClusterId(3);
/// Of everything in the table, then each of everything in the one before, in clusters that take turns.
const VIEWS: [ObjectId; 4] = [
    ObjectId::User(20),
    ObjectId::User(21),
    ObjectId::User(22),
    ObjectId::User(23),
];
const INDEX: ObjectId = ObjectId::User(30);

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![SqlType::Int8.to_field("c0", true)]))
}

fn distinct(collection: ObjectId) -> Plan {
    let nodes = [
        Operator::Get { collection },
        Operator::Distinct {
            input: flowstone_proto::plan::NodeId(0),
        },
    ];
    let nodes = nodes.map(|operator| Node {
        operator,
        schema: schema(),
    });
    Plan {
        nodes: nodes.to_vec(),
    }
}

fn rows(values: &[i64]) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
}

/// A worker, what was written to its table, and what its clients were told.
struct Driven {
    worker: Worker,
    epoch: Epoch,
    requests: u64,
    /// The distinct values of the table, by the epoch from which on they are there.
    written: BTreeMap<i64, Epoch>,
    hydrated: Vec<ObjectId>,
    /// What clusters were said to have, the newest last.
    ready: Vec<(ClusterId, u64)>,
    /// The newest change of each cluster.
    changes: BTreeMap<ClusterId, u64>,
    /// What became of commits: from where on there can be one, if not of the epoch that was asked for.
    commits: Vec<(Epoch, Option<Epoch>)>,
    subscriptions: Vec<(mpsc::Receiver<ResultMessage>, BTreeMap<i64, i64>, Epoch)>,
}

impl Driven {
    async fn new(dir: &Path) -> Self {
        Self::of(Worker::greeted(dir).await).await
    }

    async fn of(worker: Worker) -> Self {
        worker.send(collection(TABLE, CollectionKind::Table)).await;
        Self {
            worker,
            epoch: Epoch(0),
            requests: 0,
            written: BTreeMap::new(),
            hydrated: Vec::new(),
            ready: Vec::new(),
            changes: BTreeMap::new(),
            commits: Vec::new(),
            subscriptions: Vec::new(),
        }
    }

    const fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests)
    }

    async fn set_cluster(&mut self, cluster: ClusterId, threads: usize) {
        let RequestId(change) = self.request();
        self.changes.insert(cluster, change);
        let set = Command::SetCluster {
            cluster,
            threads,
            change,
        };
        self.worker.send(set).await;
    }

    /// Waits for a response, and remembers what others say of dataflows and clusters.
    async fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Response) -> Option<T>) -> T {
        let (hydrated, ready) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let commits = Mutex::new(Vec::new());
        let found = self
            .worker
            .wait(what, |response| {
                match &response {
                    Response::Hydrated { id } => hydrated.lock().push(*id),
                    Response::ClusterReady { cluster, change } => {
                        ready.lock().push((*cluster, *change));
                    }
                    Response::Committed { epoch, .. } => commits.lock().push((*epoch, None)),
                    Response::CommitPutOff { epoch, from } => {
                        commits.lock().push((*epoch, Some(*from)));
                    }
                    _ => {}
                }
                wanted(&response)
            })
            .await;
        self.hydrated.append(&mut hydrated.into_inner());
        self.ready.append(&mut ready.into_inner());
        self.commits.append(&mut commits.into_inner());
        found
    }

    async fn commit(&mut self, epoch: Epoch) {
        self.worker.send(Command::Commit { epoch }).await;
    }

    /// What became of a commit.
    async fn committed(&mut self, epoch: Epoch) -> Option<Epoch> {
        loop {
            if let Some((_, from)) = self.commits.iter().find(|(commit, _)| *commit == epoch) {
                return *from;
            }
            self.wait("what became of a commit", |response| {
                let said = matches!(
                    response,
                    Response::Committed { .. } | Response::CommitPutOff { .. }
                );
                said.then_some(())
            })
            .await;
        }
    }

    async fn ready(&mut self, cluster: ClusterId) {
        let goal = (cluster, self.changes[&cluster]);
        while !self.ready.contains(&goal) {
            self.wait("that a cluster is ready", |response| {
                matches!(response, Response::ClusterReady { .. }).then_some(())
            })
            .await;
        }
    }

    async fn create(&mut self, id: ObjectId, cluster: ClusterId, from: ObjectId, export: Export) {
        if export == Export::Collection {
            let kind = CollectionKind::MaterializedView;
            self.worker.send(collection(id, kind)).await;
        }
        self.worker
            .send(Command::CreateDataflow(DataflowDescription {
                id,
                cluster,
                plan: distinct(from),
                export,
            }))
            .await;
    }

    async fn are_hydrated(&mut self, ids: &[ObjectId]) {
        while !ids.iter().all(|id| self.hydrated.contains(id)) {
            self.wait("that something is hydrated", |response| match response {
                Response::Hydrated { .. } => Some(()),
                Response::DataflowFailed { id, error } => panic!("{id} failed: {error}"),
                _ => None,
            })
            .await;
        }
    }

    /// An epoch with these rows.
    async fn write(&mut self, values: &[i64]) {
        let epoch = self.start_write(values).await;
        self.completes(epoch).await;
    }

    async fn completes(&mut self, epoch: Epoch) {
        self.wait("that the epoch is complete", |response| {
            (*response == Response::EpochComplete { epoch }).then_some(())
        })
        .await;
        self.worker.send(Command::BindingDurable { epoch }).await;
    }

    /// Asks for an epoch with these rows.
    async fn start_write(&mut self, values: &[i64]) -> Epoch {
        let epoch = self.start_write_to(TABLE, values).await;
        for value in values {
            self.written.entry(*value).or_insert(epoch);
        }
        epoch
    }

    async fn start_write_to(&mut self, table: ObjectId, values: &[i64]) -> Epoch {
        let write = self.request();
        let bytes = encode_batches(&schema(), &[rows(values)]).unwrap();
        let operations = vec![WriteOperation::InsertRows { table, rows: bytes }];
        let staged = StageWrite { write, operations };
        self.worker.send(Command::StageWrite(staged)).await;
        self.wait("that a write is staged", |response| match response {
            Response::WriteStaged { result, .. } => {
                assert!(result.is_ok());
                Some(())
            }
            _ => None,
        })
        .await;
        self.epoch = self.epoch.next();
        let epoch = self.epoch;
        self.worker
            .send(Command::RunEpoch(RunEpoch {
                epoch,
                bindings: Vec::new(),
                writes: vec![write],
                replay: false,
            }))
            .await;
        epoch
    }

    /// An epoch with what a counter has up to a tick.
    async fn bind(&mut self, tick: i64, snapshots: Vec<ObjectId>) {
        self.epoch = self.epoch.next();
        let epoch = self.epoch;
        let binding = SourceBinding {
            source: SOURCE,
            position: SourcePosition::GeneratorTick(u64::try_from(tick).unwrap()),
            snapshots,
        };
        self.worker
            .send(Command::RunEpoch(RunEpoch {
                epoch,
                bindings: vec![binding],
                writes: Vec::new(),
                replay: false,
            }))
            .await;
        self.wait("that the epoch is complete", |response| {
            (*response == Response::EpochComplete { epoch }).then_some(())
        })
        .await;
        self.worker.send(Command::BindingDurable { epoch }).await;
    }

    async fn subscribe(&mut self, cluster: ClusterId, to: ObjectId) {
        let request = self.request();
        let messages = self.worker.end.results.open(request);
        self.worker
            .send(Command::Subscribe(Subscribe {
                request,
                cluster,
                plan: distinct(to),
                as_of: None,
                snapshot: true,
                up_to: None,
            }))
            .await;
        self.subscriptions
            .push((messages, BTreeMap::new(), Epoch::MIN));
    }

    /// Reads a value from an index or a view without a key, which is looked up by all its columns.
    async fn look_up(&mut self, index: ObjectId, value: i64, at: ReadAt) -> Result<bool, Epoch> {
        let messages = self.ask(index, value, at).await;
        found(index, at, messages).await
    }

    /// Asks for a value, which is looked up when its epoch has come.
    async fn ask(
        &mut self,
        index: ObjectId,
        value: i64,
        at: ReadAt,
    ) -> mpsc::Receiver<ResultMessage> {
        let request = self.request();
        let messages = self.worker.end.results.open(request);
        self.worker
            .send(Command::Lookup(Lookup {
                request,
                index,
                key: WireBatch(rows(&[value])),
                projection: vec![0],
                at,
            }))
            .await;
        messages
    }

    /// Everything that was written is in `id`, and at earlier epochs what was written until then. Returns how many of the earlier ones could be read.
    async fn check(&mut self, id: ObjectId) -> usize {
        let mut earlier = 0;
        let written: Vec<(i64, Epoch)> = self.written.iter().map(|(v, e)| (*v, *e)).collect();
        for (value, from) in written.iter().rev().take(5) {
            let newest = ReadAt::AtLeast(self.epoch);
            assert_eq!(self.look_up(id, *value, newest).await, Ok(true), "{id}");
            if let Ok(found) = self
                .look_up(id, *value, ReadAt::Exactly(from.previous()))
                .await
            {
                assert!(!found, "{id}: {value} before it was written");
                earlier += 1;
            }
            if let Ok(found) = self.look_up(id, *value, ReadAt::Exactly(*from)).await {
                assert!(found, "{id}: {value} at the epoch at which it was written");
                earlier += 1;
            }
        }
        earlier
    }

    /// What subscribers were told is what was written, through the newest epoch.
    async fn check_subscriptions(&mut self) {
        let goal = self.epoch.next();
        for (messages, seen, progress) in &mut self.subscriptions {
            while *progress < goal {
                let message = tokio::time::timeout(DEADLINE, messages.recv()).await;
                match message.unwrap().unwrap() {
                    ResultMessage::Updates(delta) => {
                        assert!(
                            delta.epoch >= *progress,
                            "epoch {} was over: {progress}",
                            delta.epoch
                        );
                        let values = delta.rows.column(0).as_primitive::<Int64Type>();
                        for (row, value) in values.values().iter().enumerate() {
                            let weight = match &delta.weights {
                                Weights::AllOne => 1,
                                weights => weights.get(row),
                            };
                            *seen.entry(*value).or_default() += weight;
                        }
                    }
                    ResultMessage::Progress(epoch) => *progress = epoch,
                    other => panic!("{other:?}"),
                }
            }
            let expected: BTreeMap<i64, i64> = self.written.keys().map(|v| (*v, 1)).collect();
            seen.retain(|_, weight| *weight != 0);
            assert_eq!(*seen, expected);
        }
    }
}

/// Whether a lookup found its value, or from where on it would.
async fn found(
    index: ObjectId,
    at: ReadAt,
    mut messages: mpsc::Receiver<ResultMessage>,
) -> Result<bool, Epoch> {
    let mut found = 0;
    loop {
        let message = tokio::time::timeout(DEADLINE, messages.recv()).await;
        match message.unwrap().unwrap() {
            ResultMessage::Rows(rows) => found += rows.num_rows(),
            ResultMessage::ReadEpoch(epoch) => {
                let least = match at {
                    ReadAt::AtLeast(epoch) | ReadAt::Exactly(epoch) => epoch,
                };
                assert!(epoch >= least, "{index} at {epoch} instead of {at:?}");
            }
            ResultMessage::Done => break,
            ResultMessage::Failed(
                RequestError::SinceAdvanced { since: next, .. }
                | RequestError::PassedOver { next, .. },
            ) => return Err(next),
            other => panic!("{other:?}"),
        }
    }
    assert!(found <= 1);
    Ok(found == 1)
}

async fn views_in_two_clusters(dir: &Path) -> Driven {
    let mut driven = Driven::new(dir).await;
    driven.write(&[1, 2, 2, 3]).await;
    driven.set_cluster(FIRST, 1).await;
    driven.set_cluster(SECOND, 3).await;
    driven.ready(FIRST).await;
    driven.ready(SECOND).await;
    let mut from = TABLE;
    for (view, cluster) in VIEWS
        .into_iter()
        .zip([FIRST, SECOND, FIRST, ClusterId::DEFAULT])
    {
        driven.create(view, cluster, from, Export::Collection).await;
        driven
            .write(&[i64::try_from(driven.requests).unwrap() * 100])
            .await;
        from = view;
    }
    let index = Export::Index { key: vec![0] };
    driven.create(INDEX, SECOND, VIEWS[1], index).await;
    driven
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_views_in_other_clusters_have_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut driven = views_in_two_clusters(dir.path()).await;
    driven.are_hydrated(&VIEWS).await;
    driven.are_hydrated(&[INDEX]).await;
    for view in VIEWS {
        driven.subscribe(SECOND, view).await;
    }
    let mut earlier = 0;
    for round in 0..20 {
        driven.write(&[1, round, 1000 + round]).await;
        if round % 7 == 3 {
            driven.check_subscriptions().await;
            for id in VIEWS.into_iter().chain([INDEX]) {
                earlier += driven.check(id).await;
            }
        }
    }
    assert!(earlier > 0, "no earlier epoch could be read");
    driven.check_subscriptions().await;
    driven.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_for_a_far_epoch_do_not_keep_others_from_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let mut driven = views_in_two_clusters(dir.path()).await;
    driven.are_hydrated(&VIEWS).await;
    let mut far = Vec::new();
    for years in 0..20 {
        let at = ReadAt::Exactly(Epoch(u64::MAX / 2 + years));
        far.push(driven.ask(VIEWS[3], 1, at).await);
    }
    for round in 0..5 {
        let at = ReadAt::Exactly(Epoch(driven.epoch.0 + 2));
        let near = driven.ask(VIEWS[3], 1, at).await;
        for write in 0..4 {
            driven.write(&[round, 1000 + write]).await;
        }
        assert_eq!(found(VIEWS[3], at, near).await, Ok(true));
    }
    assert!(far.iter_mut().all(|far| far.try_recv().is_err()));
    driven.worker.stop().await;
}

/// Evaluates everything to nothing; from when it is told to stall, only once it may go on.
#[derive(Debug)]
struct Stalling {
    stalls: Arc<AtomicBool>,
    began: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl QueryEvaluator for Stalling {
    fn evaluate(
        &self,
        _: &QueryPlan,
        _: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        if self.stalls.load(Ordering::SeqCst) {
            self.began.send(()).unwrap();
            // It may when the other end is gone.
            let _ = self.go_on.lock().recv();
        }
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_waits_for_a_lane_that_is_behind_and_the_epoch_does() {
    let dir = tempfile::tempdir().unwrap();
    let stalls = Arc::new(AtomicBool::new(false));
    let (began, begins) = sync_channel(16);
    let (goes_on, go_on) = sync_channel(1);
    let (coordinator, end) = connect();
    let config = config(dir.path());
    let mut opened = open(&config).await.unwrap();
    opened.backlog_bytes_max = 64 << 10;
    opened.maker.evaluator = Arc::new(Stalling {
        stalls: Arc::clone(&stalls),
        began,
        go_on: Mutex::new(go_on),
    });
    let task = tokio::spawn(async move { opened.engine(&config, end).run().await });
    let mut driven = Driven::of(Worker::greet(coordinator, task).await).await;
    driven.write(&[1]).await;
    let operators = [
        Operator::Get { collection: TABLE },
        Operator::Recompute {
            inputs: vec![NodeId(0)],
            query: QueryPlan {
                bytes: Vec::new(),
                text: String::new(),
            },
            reason: "a test".to_owned(),
        },
    ];
    let nodes = operators.map(|operator| Node {
        operator,
        schema: schema(),
    });
    let kind = CollectionKind::MaterializedView;
    driven.worker.send(collection(VIEW, kind)).await;
    let description = DataflowDescription {
        id: VIEW,
        cluster: ClusterId::DEFAULT,
        plan: Plan {
            nodes: nodes.to_vec(),
        },
        export: Export::Collection,
    };
    driven
        .worker
        .send(Command::CreateDataflow(description))
        .await;
    driven.are_hydrated(&[VIEW]).await;
    stalls.store(true, Ordering::SeqCst);
    driven.write(&[2]).await;
    tokio::task::spawn_blocking(move || begins.recv_timeout(DEADLINE).unwrap())
        .await
        .unwrap();
    // More than may wait for the lane.
    let epoch = driven
        .start_write(&(1000..21_000).collect::<Vec<_>>())
        .await;
    let before = ReadAt::AtLeast(epoch.previous());
    assert_eq!(driven.look_up(TABLE, 2, before).await, Ok(true));
    while let Ok(response) = driven.worker.end.responses.try_recv() {
        assert_ne!(response, Response::EpochComplete { epoch });
    }
    driven
        .worker
        .send(Command::Drop {
            objects: vec![VIEW],
        })
        .await;
    driven
        .wait("that the epoch is complete", |response| {
            (*response == Response::EpochComplete { epoch }).then_some(())
        })
        .await;
    driven.worker.send(Command::BindingDurable { epoch }).await;
    driven.check(TABLE).await;
    drop(goes_on);
    driven.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_resized_while_it_is_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut driven = views_in_two_clusters(dir.path()).await;
    for view in VIEWS {
        driven.subscribe(FIRST, view).await;
    }
    for round in 0..12_i64 {
        let cluster = if round % 2 == 0 { FIRST } else { SECOND };
        let threads = usize::try_from(round % 3).unwrap() + 1;
        driven.set_cluster(cluster, threads).await;
        driven.write(&[round, 2000 + round]).await;
        driven.ready(cluster).await;
        driven.write(&[3000 + round]).await;
        for id in VIEWS.into_iter().chain([INDEX]) {
            driven.check(id).await;
        }
        let since = Epoch(driven.epoch.0.saturating_sub(2));
        driven.worker.send(Command::AllowCompaction { since }).await;
    }
    driven.check_subscriptions().await;
    driven.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_while_a_cluster_is_resized_is_there_before_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut driven = views_in_two_clusters(dir.path()).await;
    driven.are_hydrated(&VIEWS).await;
    let rows: Vec<i64> = (100_000..120_000).collect();
    driven.write(&rows).await;
    let mut from = VIEWS[0];
    for round in 0..8_u64 {
        let threads = usize::try_from(round % 3).unwrap() + 1;
        driven.set_cluster(FIRST, threads).await;
        let (view, index) = (ObjectId::User(50 + round), ObjectId::User(60 + round));
        driven.create(view, FIRST, from, Export::Collection).await;
        let key = Export::Index { key: vec![0] };
        driven.create(index, FIRST, view, key).await;
        driven
            .write(&[i64::try_from(round).unwrap() * 1_000_000])
            .await;
        if round % 2 == 0 {
            driven.are_hydrated(&[view, index]).await;
            driven.check(view).await;
            driven.check(index).await;
        }
        driven.ready(FIRST).await;
        driven.are_hydrated(&[view, index]).await;
        driven.check(view).await;
        driven.check(index).await;
        from = view;
    }
    for id in VIEWS.into_iter().chain([INDEX]) {
        driven.check(id).await;
    }
    driven.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_paused_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut driven = views_in_two_clusters(dir.path()).await;
    driven.are_hydrated(&VIEWS).await;
    driven.subscribe(SECOND, TABLE).await;
    driven.check_subscriptions().await;
    let alone = ObjectId::User(42);
    driven
        .create(alone, SECOND, TABLE, Export::Collection)
        .await;
    driven.are_hydrated(&[alone]).await;
    driven.set_cluster(FIRST, 0).await;
    driven.ready(FIRST).await;
    for round in 0..5 {
        driven.write(&[4000 + round]).await;
    }
    // What does not depend on it goes on, in other clusters that have something which does, too; and what there is is committed.
    driven.check(alone).await;
    driven.check_subscriptions().await;
    let commit = driven.epoch;
    driven.commit(commit).await;
    assert_eq!(driven.committed(commit).await, None);
    // What is made meanwhile waits, and so do reads.
    let late = ObjectId::User(40);
    driven
        .create(late, FIRST, VIEWS[0], Export::Collection)
        .await;
    driven.write(&[5000]).await;
    let newest = ReadAt::AtLeast(driven.epoch);
    let waiting = driven.look_up(VIEWS[0], 5000, newest);
    let answer = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(answer.is_err(), "a paused cluster answers");
    assert_eq!(driven.look_up(TABLE, 5000, newest).await, Ok(true));
    driven.set_cluster(FIRST, 2).await;
    driven.ready(FIRST).await;
    driven.write(&[6000]).await;
    driven.are_hydrated(&[late]).await;
    for id in VIEWS.into_iter().chain([INDEX, late]) {
        driven.check(id).await;
    }
    driven.check_subscriptions().await;
    driven.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_or_fails_in_a_cluster_leaves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut driven = views_in_two_clusters(dir.path()).await;
    driven.are_hydrated(&VIEWS).await;
    let commit = driven.epoch;
    driven.worker.send(Command::Commit { epoch: commit }).await;
    driven
        .worker
        .wait("that it is committed", |response| match response {
            Response::Committed { epoch, versions } => Some((epoch, versions.len())),
            _ => None,
        })
        .await;
    let objects = vec![VIEWS[3], VIEWS[2]];
    driven.worker.send(Command::Drop { objects }).await;
    driven.write(&[7000]).await;
    driven.check(VIEWS[1]).await;
    // One that reads what does not exist.
    let wrong = ObjectId::User(41);
    let kind = CollectionKind::MaterializedView;
    driven.worker.send(collection(wrong, kind)).await;
    driven
        .worker
        .send(Command::CreateDataflow(DataflowDescription {
            id: wrong,
            cluster: FIRST,
            plan: distinct(ObjectId::User(99)),
            export: Export::Collection,
        }))
        .await;
    driven
        .worker
        .wait("that a view failed", |response| match response {
            Response::DataflowFailed { id, .. } => {
                assert_eq!(id, wrong);
                Some(())
            }
            _ => None,
        })
        .await;
    driven.write(&[8000]).await;
    for id in [VIEWS[0], VIEWS[1], INDEX] {
        driven.check(id).await;
    }
    let objects = vec![INDEX, VIEWS[1], VIEWS[0], wrong];
    driven.worker.send(Command::Drop { objects }).await;
    for cluster in [FIRST, SECOND] {
        driven.worker.send(Command::DropCluster { cluster }).await;
    }
    driven.write(&[9000]).await;
    driven.worker.stop().await;
}

/// Each row of one collection with each row of another, counted.
fn count_of_pairs(left: ObjectId, right: ObjectId) -> Plan {
    let of = |operator, columns: usize| Node {
        operator,
        schema: Arc::new(Schema::new(
            (0..columns)
                .map(|column| SqlType::Int8.to_field(&format!("c{column}"), true))
                .collect::<Vec<_>>(),
        )),
    };
    Plan {
        nodes: vec![
            of(Operator::Get { collection: left }, 1),
            of(Operator::Get { collection: right }, 1),
            of(
                Operator::Join {
                    left: NodeId(0),
                    right: NodeId(1),
                    left_keys: Vec::new(),
                    right_keys: Vec::new(),
                    null_equals_null: false,
                },
                2,
            ),
            of(
                Operator::Aggregate {
                    input: NodeId(2),
                    group: Vec::new(),
                    aggregates: vec![Aggregate {
                        function: AggregateFunction::Count,
                        argument: None,
                        filter: None,
                        distinct: false,
                    }],
                },
                1,
            ),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_slower_than_what_is_written_meanwhile_is_made_all_the_same() {
    const MANY: i64 = 30_000;
    const OTHER: ObjectId = ObjectId::User(51);
    let dir = tempfile::tempdir().unwrap();
    let mut driven = Driven::new(dir.path()).await;
    driven
        .worker
        .send(collection(OTHER, CollectionKind::Table))
        .await;
    let epoch = driven
        .start_write_to(OTHER, &(0..MANY).collect::<Vec<_>>())
        .await;
    driven.completes(epoch).await;
    driven.write(&(0..100).collect::<Vec<_>>()).await;
    let kind = CollectionKind::MaterializedView;
    driven.worker.send(collection(VIEW, kind)).await;
    let description = DataflowDescription {
        id: VIEW,
        cluster: ClusterId::DEFAULT,
        plan: count_of_pairs(TABLE, OTHER),
        export: Export::Collection,
    };
    driven
        .worker
        .send(Command::CreateDataflow(description))
        .await;
    // As long as it is made there is always something more for it to do.
    let (mut written, begin) = (100, Instant::now());
    while !driven.hydrated.contains(&VIEW) {
        assert!(begin.elapsed() < DEADLINE, "it is never made");
        driven.write(&[written]).await;
        written += 1;
    }
    let newest = ReadAt::AtLeast(driven.epoch);
    let count = written * MANY;
    assert_eq!(driven.look_up(VIEW, count, newest).await, Ok(true));
    driven.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_one_epoch_enters_beside_later_ones() {
    const MANY: i64 = 150_000;
    let dir = tempfile::tempdir().unwrap();
    let mut driven = views_in_two_clusters(dir.path()).await;
    driven.are_hydrated(&VIEWS).await;
    driven.subscribe(FIRST, VIEWS[3]).await;
    driven.subscribe(ClusterId::DEFAULT, TABLE).await;
    driven
        .write(&(10_000..10_000 + MANY).collect::<Vec<_>>())
        .await;
    let large = driven.epoch;
    // A commit of its epoch has all of it, or is put off until one can.
    driven.commit(large).await;
    for round in 0..10 {
        driven.write(&[1_000_000 + round]).await;
        // At an epoch in between it is never half there.
        for value in [10_000, 10_000 + MANY - 1] {
            match driven.look_up(TABLE, value, ReadAt::Exactly(large)).await {
                Ok(found) => assert!(found),
                Err(next) => assert!(next > large),
            }
        }
    }
    if let Some(from) = driven.committed(large).await {
        assert!(from > large);
    }
    // One that is put off says from where on there can be one.
    loop {
        let commit = driven.epoch;
        driven.commit(commit).await;
        let Some(from) = driven.committed(commit).await else {
            break;
        };
        assert!(from > commit);
        while driven.epoch < from {
            driven.write(&[1]).await;
        }
    }
    for id in VIEWS.into_iter().chain([INDEX, TABLE]) {
        driven.check(id).await;
        for value in [10_000, 10_000 + MANY / 2, 10_000 + MANY - 1] {
            let newest = ReadAt::AtLeast(driven.epoch);
            assert_eq!(driven.look_up(id, value, newest).await, Ok(true));
        }
        let before = ReadAt::Exactly(large.previous());
        if let Ok(found) = driven.look_up(id, 10_000, before).await {
            assert!(!found, "{id} has rows of a later epoch");
        }
    }
    driven.check_subscriptions().await;
    driven.worker.stop().await;
}

/// A source that counts, with its table; a transaction of it can be as large as is wanted.
fn counter(table: ObjectId) -> Command {
    let column = SourceColumn {
        name: "counter".to_owned(),
        attribute: 1,
        type_oid: 20,
        type_modifier: -1,
        not_null: true,
        as_text: false,
    };
    Command::CreateSource(Box::new(SourceDescription {
        id: SOURCE,
        name: "s".to_owned(),
        kind: SourceKind::LoadGenerator {
            generator: LoadGenerator::Counter {
                max_cardinality: None,
            },
            tick_interval: Duration::from_secs(3600),
            seed: 0,
        },
        tables: vec![SourceTable {
            id: table,
            upstream_schema: "counter".to_owned(),
            upstream_name: "counter".to_owned(),
            upstream_oid: 0,
            columns: vec![column],
            key: Vec::new(),
            upstream: Vec::new(),
        }],
        progress: None,
        resume_from: None,
        snapshotted: Vec::new(),
        bound: false,
        failure: None,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_enters_in_pieces_beside_later_epochs_and_is_never_read_in_part() {
    const MANY: i64 = 400_000;
    let counted = ObjectId::User(50);
    let dir = tempfile::tempdir().unwrap();
    let mut driven = Driven::new(dir.path()).await;
    let kind = CollectionKind::SourceTable { source: SOURCE };
    driven.worker.send(collection(counted, kind)).await;
    driven.worker.send(counter(counted)).await;
    driven.bind(10, vec![counted]).await;
    let newest = ReadAt::AtLeast(driven.epoch);
    assert_eq!(driven.look_up(counted, 10, newest).await, Ok(true));
    driven
        .create(VIEW, ClusterId::DEFAULT, counted, Export::Collection)
        .await;
    driven.are_hydrated(&[VIEW]).await;
    driven.bind(MANY, Vec::new()).await;
    let large = driven.epoch;
    driven.commit(large).await;
    // What is bound meanwhile comes behind.
    driven.bind(MANY + 5, Vec::new()).await;
    for round in 0..10 {
        driven.write(&[round]).await;
        let newest = ReadAt::AtLeast(driven.epoch);
        assert_eq!(driven.look_up(TABLE, round, newest).await, Ok(true));
        for value in [11, MANY / 2, MANY] {
            for id in [counted, VIEW] {
                match driven.look_up(id, value, ReadAt::Exactly(large)).await {
                    Ok(found) => assert!(found, "{id} has a part"),
                    Err(next) => assert!(next > large),
                }
            }
        }
    }
    // A commit that would have a part of it is put off, and nobody waits for the rest.
    if let Some(from) = driven.committed(large).await {
        assert!(from >= large);
    }
    loop {
        let commit = driven.epoch;
        driven.commit(commit).await;
        let Some(from) = driven.committed(commit).await else {
            break;
        };
        assert!(from >= commit);
        driven.write(&[1]).await;
    }
    for id in [counted, VIEW] {
        let newest = ReadAt::AtLeast(driven.epoch);
        for value in [10, 11, MANY / 2, MANY, MANY + 5] {
            assert_eq!(driven.look_up(id, value, newest).await, Ok(true), "{id}");
        }
        let missing = driven.look_up(id, MANY + 6, newest).await;
        assert_eq!(missing, Ok(false));
        let before = ReadAt::Exactly(large.previous());
        if let Ok(found) = driven.look_up(id, 11, before).await {
            assert!(!found, "{id} has rows of a later epoch");
        }
    }
    // What is dropped in the middle keeps nothing waiting, commits neither.
    driven.bind(3 * MANY, Vec::new()).await;
    let objects = vec![VIEW, counted, SOURCE];
    driven.worker.send(Command::Drop { objects }).await;
    driven.write(&[1000]).await;
    driven.check(TABLE).await;
    let commit = driven.epoch;
    driven.commit(commit).await;
    assert_eq!(driven.committed(commit).await, None);
    driven.worker.stop().await;
}

#[test]
fn reads_go_on_while_an_epoch_waits_for_the_disk_and_what_comes_behind_it_keeps_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut driven = Driven::new(dir.path()).await;
        driven.write(&[1]).await;
        let before = ReadAt::AtLeast(driven.epoch);
        let write = driven.request();
        let operations = vec![WriteOperation::InsertRows {
            table: TABLE,
            rows: encode_batches(&schema(), &[rows(&[2])]).unwrap(),
        }];
        let staged = StageWrite { write, operations };
        driven.worker.send(Command::StageWrite(staged)).await;
        driven
            .wait("that a write is staged", |response| {
                matches!(response, Response::WriteStaged { .. }).then_some(())
            })
            .await;
        // Nothing can be written from now on.
        let (release, wait) = sync_channel::<()>(1);
        let stalled = tokio::task::spawn_blocking(move || wait.recv().unwrap());
        let run = RunEpoch {
            epoch: driven.epoch.next(),
            bindings: Vec::new(),
            writes: vec![write],
            replay: false,
        };
        let epoch = run.epoch;
        driven.worker.send(Command::RunEpoch(run)).await;
        assert_eq!(driven.look_up(TABLE, 1, before).await, Ok(true));
        // What is made has its inputs as of the epoch before it, and it is read when it is there.
        driven
            .create(VIEW, ClusterId::DEFAULT, TABLE, Export::Collection)
            .await;
        let behind = driven.ask(VIEW, 2, ReadAt::AtLeast(epoch)).await;
        while let Ok(response) = driven.worker.end.responses.try_recv() {
            assert_ne!(response, Response::EpochComplete { epoch });
        }
        release.send(()).unwrap();
        stalled.await.unwrap();
        driven
            .wait("that the epoch is complete", |response| {
                (*response == Response::EpochComplete { epoch }).then_some(())
            })
            .await;
        driven.worker.send(Command::BindingDurable { epoch }).await;
        driven.are_hydrated(&[VIEW]).await;
        let at = ReadAt::AtLeast(epoch);
        assert_eq!(found(VIEW, at, behind).await, Ok(true));
        driven.worker.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_answered_while_a_tick_of_the_base_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, end) = connect();
    let config = config(dir.path());
    let opened = open(&config).await.unwrap();
    let base = opened.shards.jobs();
    let task = tokio::spawn(async move { opened.engine(&config, end).run().await });
    let mut driven = Driven::of(Worker::greet(coordinator, task).await).await;
    driven.set_cluster(FIRST, 1).await;
    driven.ready(FIRST).await;
    driven.create(VIEW, FIRST, TABLE, Export::Collection).await;
    driven.are_hydrated(&[VIEW]).await;
    driven.write(&[1]).await;
    let before = ReadAt::AtLeast(driven.epoch);
    assert_eq!(driven.look_up(VIEW, 1, before).await, Ok(true));
    let write = driven.request();
    let operations = vec![WriteOperation::InsertRows {
        table: TABLE,
        rows: encode_batches(&schema(), &[rows(&[2])]).unwrap(),
    }];
    let staged = StageWrite { write, operations };
    driven.worker.send(Command::StageWrite(staged)).await;
    driven
        .wait("that a write is staged", |response| {
            matches!(response, Response::WriteStaged { .. }).then_some(())
        })
        .await;
    // A shard of the base does not come to the tick.
    let (release, wait) = sync_channel::<()>(1);
    let wait = Mutex::new(wait);
    let held = base.read_each(move |index, _| {
        if index == 0 {
            wait.lock().recv_timeout(DEADLINE).unwrap();
        }
    });
    drop(base);
    let run = RunEpoch {
        epoch: driven.epoch.next(),
        bindings: Vec::new(),
        writes: vec![write],
        replay: false,
    };
    let epoch = run.epoch;
    driven.worker.send(Command::RunEpoch(run)).await;
    assert_eq!(driven.look_up(VIEW, 1, before).await, Ok(true));
    let prepare = driven.request();
    driven
        .worker
        .send(Command::Prepare {
            request: prepare,
            plan: distinct(TABLE),
            export: None,
        })
        .await;
    driven
        .wait("what comes of a plan", |response| match response {
            Response::Prepared { request, result } if *request == prepare => {
                assert!(result.is_ok());
                Some(())
            }
            Response::EpochComplete { .. } => panic!("the epoch does not wait for the shard"),
            _ => None,
        })
        .await;
    // One that its own shards have to answer waits for what they are doing.
    let own = driven.ask(TABLE, 1, before).await;
    release.send(()).unwrap();
    held.unwrap().all().await.unwrap();
    assert_eq!(found(TABLE, before, own).await, Ok(true));
    driven
        .wait("that the epoch is complete", |response| {
            (*response == Response::EpochComplete { epoch }).then_some(())
        })
        .await;
    driven.worker.send(Command::BindingDurable { epoch }).await;
    let at = ReadAt::AtLeast(epoch);
    assert_eq!(driven.look_up(VIEW, 2, at).await, Ok(true));
    driven.worker.stop().await;
}
