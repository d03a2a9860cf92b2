//! Reads and ticks of the same shard.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{Node, NodeId, Operator, Plan, QueryPlan};
use flowstone_types::{ClusterId, DeltaBatch, EvalError, SqlType, Weights};
use parking_lot::Mutex;

use super::*;
use crate::query::Compiler;

const TABLE: ObjectId = ObjectId::User(1);
const VIEWS: [ObjectId; 2] = [ObjectId::User(2), ObjectId::User(3)];
const DEADLINE: Duration = Duration::from_secs(60);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![SqlType::Int8.to_field("c0", true)]))
}

/// A row, for one shard.
fn row(value: i64, epoch: Epoch) -> PartitionedInputs {
    changed(value, 1, epoch)
}

/// A row of a weight, for one shard.
fn changed(value: i64, weight: i64, epoch: Epoch) -> PartitionedInputs {
    let column = Arc::new(Int64Array::from(vec![value]));
    let rows = RecordBatch::try_new(schema(), vec![column]).unwrap();
    let delta = DeltaBatch::new(rows, Weights::Const(weight), epoch);
    vec![vec![(TABLE, CollectionInput::Deltas(vec![delta]))]]
}

/// Something that is computed anew from the table.
fn recomputed() -> Plan {
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
    Plan {
        nodes: nodes.to_vec(),
    }
}

/// Evaluates everything to nothing; from when it is told to, says that it does, and waits until it may go on.
#[derive(Debug)]
struct Held {
    is_on: AtomicBool,
    began: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl QueryEvaluator for Held {
    fn evaluate(
        &self,
        _: &QueryPlan,
        _: &[(SchemaRef, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>, EvalError> {
        if self.is_on.load(Ordering::SeqCst) {
            self.began.send(()).unwrap();
            self.go_on.lock().recv_timeout(DEADLINE).unwrap();
        }
        Ok(Vec::new())
    }
}

/// A shard with the views, which were hydrated, and a row of the table.
async fn with_views(maker: &ShardMaker) -> ShardPool {
    let pool = ShardPool::start("shard", 1, maker).unwrap();
    for created in pool
        .on_each(|_, shard| shard.create_collection(TABLE, schema(), None))
        .await
        .unwrap()
    {
        created.unwrap();
    }
    for id in VIEWS {
        let description = DataflowDescription {
            cluster: ClusterId::DEFAULT,
            id,
            plan: recomputed(),
            export: Export::Index { key: vec![0] },
        };
        for created in pool
            .on_each(move |_, shard| shard.create_dataflow(&description))
            .await
            .unwrap()
        {
            created.unwrap();
        }
    }
    pool.hydrate(VIEWS.to_vec(), Epoch(1)).await.unwrap();
    pool.tick(Epoch(1), row(1, Epoch(1))).await.unwrap();
    pool
}

/// Asks again whenever it is answered, as long as it may.
fn keep_reading(jobs: &Jobs, may: &Arc<AtomicBool>) {
    let (again, still) = (jobs.clone(), Arc::clone(may));
    let asked = jobs.read_each(move |_, _| {
        if still.load(Ordering::SeqCst) {
            keep_reading(&again, &still);
        }
    });
    drop(asked.unwrap());
}

/// Waits until a step of the tick has begun.
async fn a_step(begins: &Arc<Mutex<Receiver<()>>>) {
    let begins = Arc::clone(begins);
    let waiting =
        tokio::task::spawn_blocking(move || begins.lock().recv_timeout(DEADLINE).unwrap());
    waiting.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_is_served_between_two_steps_of_a_tick_as_of_an_epoch_before_it() {
    let (began, begins) = sync_channel(1);
    let (goes_on, go_on) = sync_channel(1);
    let begins = Arc::new(Mutex::new(begins));
    let held = Arc::new(Held {
        is_on: AtomicBool::new(false),
        began,
        go_on: Mutex::new(go_on),
    });
    let maker = ShardMaker {
        compiler: Arc::new(Compiler),
        evaluator: held.clone(),
        row_bytes_max: usize::MAX,
    };
    let pool = Arc::new(with_views(&maker).await);
    held.is_on.store(true, Ordering::SeqCst);
    let ticking = {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.tick(Epoch(2), row(2, Epoch(2))).await })
    };
    a_step(&begins).await;
    let read = pool.jobs().read_each(|_, shard| {
        let snapshot = shard.snapshot(TABLE, Epoch(1)).unwrap();
        let rows = snapshot.rows().unwrap();
        let rows: usize = rows.iter().map(RecordBatch::num_rows).sum();
        (shard.pending(), rows)
    });
    let read = read.unwrap();
    goes_on.send(()).unwrap();
    // The other view is being evaluated, in the same tick.
    a_step(&begins).await;
    let answers = tokio::time::timeout(DEADLINE, read.all()).await;
    assert_eq!(answers.unwrap().unwrap(), [(true, 1)]);
    goes_on.send(()).unwrap();
    ticking.await.unwrap().unwrap();
    let rows = pool.on_each(|_, shard| shard.rows(TABLE)).await.unwrap();
    assert_eq!(rows, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_a_shard_keeps_its_place_among_the_reads_that_are_served_before_it() {
    let evaluator = Held {
        is_on: AtomicBool::new(false),
        began: sync_channel(1).0,
        go_on: Mutex::new(sync_channel(1).1),
    };
    let maker = ShardMaker {
        compiler: Arc::new(Compiler),
        evaluator: Arc::new(evaluator),
        row_bytes_max: usize::MAX,
    };
    let pool = ShardPool::start("shard", 1, &maker).unwrap();
    // Everything waits while this runs.
    let (release, wait) = sync_channel::<()>(1);
    let wait = Mutex::new(wait);
    let held = pool.ask_each(move |_, shard| {
        wait.lock().recv_timeout(DEADLINE).unwrap();
        shard.last_epoch()
    });
    let before = pool.jobs().read_each(|_, shard| shard.key_of(TABLE));
    let created = pool.ask_each(|_, shard| {
        shard
            .create_collection(TABLE, schema(), Some(vec![0]))
            .is_ok()
    });
    let after = pool.jobs().read_each(|_, shard| shard.key_of(TABLE));
    release.send(()).unwrap();
    assert_eq!(held.unwrap().all().await.unwrap(), [Epoch::MIN]);
    assert_eq!(before.unwrap().all().await.unwrap(), [None]);
    assert_eq!(created.unwrap().all().await.unwrap(), [true]);
    assert_eq!(after.unwrap().all().await.unwrap(), [Some(vec![0])]);
    pool.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_comes_to_its_end_while_somebody_always_reads() {
    let evaluator = Held {
        is_on: AtomicBool::new(false),
        began: sync_channel(1).0,
        go_on: Mutex::new(sync_channel(1).1),
    };
    let maker = ShardMaker {
        compiler: Arc::new(Compiler),
        evaluator: Arc::new(evaluator),
        row_bytes_max: usize::MAX,
    };
    let pool = with_views(&maker).await;
    let may = Arc::new(AtomicBool::new(true));
    keep_reading(&pool.jobs(), &may);
    let tick = pool.tick(Epoch(2), row(2, Epoch(2)));
    let ticked = tokio::time::timeout(DEADLINE, tick).await;
    may.store(false, Ordering::SeqCst);
    ticked.unwrap().unwrap();
    pool.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_a_shard_that_broke_within_a_tick() {
    let evaluator = Held {
        is_on: AtomicBool::new(false),
        began: sync_channel(1).0,
        go_on: Mutex::new(sync_channel(1).1),
    };
    let maker = ShardMaker {
        compiler: Arc::new(Compiler),
        evaluator: Arc::new(evaluator),
        row_bytes_max: usize::MAX,
    };
    let pool = with_views(&maker).await;
    // A row goes that is not there.
    let ticked = pool.tick(Epoch(2), changed(7, -1, Epoch(2))).await;
    assert!(matches!(ticked, Err(Error::Dataflow(_))));
    assert!(pool.shards().try_read(0).is_none());
    let read = pool.jobs().read_each(|_, shard| shard.rows(TABLE));
    let read = tokio::time::timeout(DEADLINE, read.unwrap().all()).await;
    assert!(matches!(read.unwrap(), Err(Error::ShardGone)));
    pool.stop();
}
