//! The engine at its transport: commands in, responses out.

use std::path::Path;

use arrow_schema::Schema;
use flowstone_proto::local::{CoordinatorEnd, connect};
use flowstone_proto::message::{
    CollectionKind, DataflowDescription, Export, Failure, PostgresConnection, SourceDescription,
    SourceKind, SourceTable, SslMode,
};
use flowstone_proto::plan::{Expr, Node, NodeId, Operator, Plan};
use flowstone_types::clock::SystemClock;
use flowstone_types::{ClusterId, EvalError, EvalErrorKind, SqlType};

use parking_lot::Mutex;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);
const SOURCE: ObjectId = ObjectId::User(10);
const TABLE: ObjectId = ObjectId::User(11);
const VIEW: ObjectId = ObjectId::User(12);
const OTHER: ObjectId = ObjectId::User(13);

fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_owned(),
        shards: 2,
        clock: Arc::new(SystemClock),
        compute: tokio::runtime::Handle::current(),
        query_memory_bytes: 64 << 20,
        subscriber_memory_bytes: 64 << 20,
        recompute_time_max: DEADLINE,
    }
}

/// A worker, as the coordinator has it.
struct Worker {
    end: CoordinatorEnd,
    task: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Worker {
    async fn greeted(dir: &Path) -> Self {
        let (coordinator, end) = connect();
        Self::greet(coordinator, tokio::spawn(start(config(dir), end))).await
    }

    async fn greet(end: CoordinatorEnd, task: tokio::task::JoinHandle<Result<(), Error>>) -> Self {
        let worker = Self { end, task };
        worker
            .send(Command::Hello {
                version: PROTOCOL_VERSION,
                commit_point: Epoch::MIN,
                local_log: None,
            })
            .await;
        worker
    }

    async fn send(&self, command: Command) {
        self.end.commands.send(command).await.unwrap();
    }

    async fn stop(mut self) {
        self.send(Command::Shutdown).await;
        self.wait("that it has stopped", |response| {
            (response == Response::Stopped).then_some(())
        })
        .await;
        self.task.await.unwrap().unwrap();
    }

    /// Waits for a response, passing over others.
    async fn wait<T>(&mut self, what: &str, wanted: impl Fn(Response) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let response = self.end.responses.recv().await;
                let Some(response) = response else {
                    panic!("the worker ended before it said {what}")
                };
                if let Some(found) = wanted(response) {
                    return found;
                }
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("the worker never said {what}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_start_says_why_to_whoever_greets_it() {
    let dir = tempfile::tempdir().unwrap();
    let segment = dir.path().join("log/log-00000000000000000001.fslog");
    std::fs::create_dir(dir.path().join("log")).unwrap();
    std::fs::write(&segment, [7_u8; 100]).unwrap();
    let mut worker = Worker::greeted(dir.path()).await;
    let message = worker
        .wait("why", |response| match response {
            Response::Fatal { message } => Some(message),
            _ => None,
        })
        .await;
    assert!(
        message.contains(&segment.display().to_string()),
        "{message}"
    );
    assert!(worker.task.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_cannot_be_rendered_is_told_from_one_that_can_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = Worker::greeted(dir.path()).await;
    let schema = Arc::new(Schema::new(vec![SqlType::Int4.to_field("c0", true)]));
    let get = Node {
        operator: Operator::Get { collection: TABLE },
        schema: Arc::clone(&schema),
    };
    let nonsense = Expr {
        bytes: vec![255],
        text: "nonsense".to_owned(),
    };
    let project = Node {
        operator: Operator::FilterProject {
            input: NodeId(0),
            predicates: Vec::new(),
            projections: vec![nonsense],
        },
        schema,
    };
    let key = |column| Some(Export::Index { key: vec![column] });
    let (known, unknown) = (vec![get.clone()], vec![get, project]);
    let tries = [
        (known.clone(), Some(Export::Collection), None),
        (known.clone(), key(0), None),
        (known.clone(), key(1), Some("out of range")),
        (known, None, None),
        (unknown.clone(), Some(Export::Collection), Some("nonsense")),
        (unknown.clone(), key(0), Some("nonsense")),
        (unknown, None, Some("nonsense")),
    ];
    for (number, (nodes, export, expected)) in (0..).zip(tries) {
        let request = RequestId(number);
        worker
            .send(Command::Prepare {
                request,
                plan: Plan { nodes },
                export,
            })
            .await;
        let result = worker
            .wait("what comes of a plan", |response| match response {
                Response::Prepared {
                    request: answered,
                    result,
                } if answered == request => Some(result),
                _ => None,
            })
            .await;
        match (result, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{number}: {error}");
            }
            (result, _) => panic!("{number}: {result:?}"),
        }
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_added_to_a_source_that_has_failed_says_so_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = Worker::greeted(dir.path()).await;
    let failure = Failure {
        message: "the slot is gone".to_owned(),
        hint: None,
    };
    let connection = PostgresConnection {
        host: "localhost".to_owned(),
        port: 1,
        user: "u".to_owned(),
        password: None,
        database: "d".to_owned(),
        ssl_mode: SslMode::Disable,
        ssl_root: None,
    };
    worker
        .send(Command::CreateSource(Box::new(SourceDescription {
            id: SOURCE,
            name: "s".to_owned(),
            kind: SourceKind::Postgres {
                connection,
                publication: "p".to_owned(),
                slot: "s".to_owned(),
            },
            tables: Vec::new(),
            progress: None,
            resume_from: None,
            snapshotted: Vec::new(),
            bound: false,
            failure: Some(failure.clone()),
        })))
        .await;
    worker
        .send(Command::CreateCollection(CollectionDescription {
            id: TABLE,
            name: "d.s.t".to_owned(),
            schema: Arc::new(Schema::new(vec![SqlType::Int8.to_field("id", false)])),
            key: Some(vec![0]),
            kind: CollectionKind::SourceTable { source: SOURCE },
            delta_version: None,
            failure: None,
        }))
        .await;
    let table = SourceTable {
        id: TABLE,
        upstream_schema: "public".to_owned(),
        upstream_name: "t".to_owned(),
        upstream_oid: 1,
        columns: Vec::new(),
        key: vec![0],
        upstream: Vec::new(),
    };
    worker
        .send(Command::AddSourceTables {
            source: SOURCE,
            tables: vec![table],
        })
        .await;
    let mut run = RunEpoch {
        epoch: Epoch(1),
        bindings: Vec::new(),
        writes: Vec::new(),
        replay: false,
    };
    worker.send(Command::RunEpoch(run.clone())).await;
    let said = worker
        .wait("that the epoch is complete", |response| match response {
            Response::Failed { epoch, failures } => Some(Some((epoch, failures))),
            Response::EpochComplete { .. } => Some(None),
            _ => None,
        })
        .await;
    assert_eq!(said, Some((Epoch(1), vec![(TABLE, failure)])));
    // Once.
    run.epoch = Epoch(2);
    worker.send(Command::RunEpoch(run)).await;
    worker
        .wait("that the next epoch is complete", |response| {
            assert!(!matches!(response, Response::Failed { .. }));
            (response == Response::EpochComplete { epoch: Epoch(2) }).then_some(())
        })
        .await;
    worker.stop().await;
}

fn collection(id: ObjectId, kind: CollectionKind) -> Command {
    Command::CreateCollection(CollectionDescription {
        id,
        name: format!("d.s.{id}"),
        schema: Arc::new(Schema::new(vec![SqlType::Int8.to_field("c0", true)])),
        key: None,
        kind,
        delta_version: None,
        failure: None,
    })
}

/// A view of everything in another collection.
fn view_of(id: ObjectId, collection: ObjectId) -> Command {
    let node = Node {
        operator: Operator::Get { collection },
        schema: Arc::new(Schema::new(vec![SqlType::Int8.to_field("c0", true)])),
    };
    Command::CreateDataflow(DataflowDescription {
        cluster: ClusterId::DEFAULT,
        id,
        plan: Plan { nodes: vec![node] },
        export: Export::Collection,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataflow_that_cannot_be_made_is_in_error_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = Worker::greeted(dir.path()).await;
    worker.send(collection(TABLE, CollectionKind::Table)).await;
    for id in [VIEW, OTHER] {
        let kind = CollectionKind::MaterializedView;
        worker.send(collection(id, kind)).await;
    }
    // One refers to what does not exist, of the other the coordinator says that it cannot be made; each is said once.
    worker.send(view_of(VIEW, ObjectId::User(99))).await;
    let error = EvalError::new(EvalErrorKind::NotSupported, "no longer");
    for _ in 0..2 {
        let error = error.clone();
        worker
            .send(Command::FailDataflow { id: OTHER, error })
            .await;
    }
    worker
        .send(Command::RunEpoch(RunEpoch {
            epoch: Epoch(1),
            bindings: Vec::new(),
            writes: Vec::new(),
            replay: false,
        }))
        .await;
    let failed = Mutex::new(Vec::new());
    worker
        .wait("that the epoch is complete", |response| match response {
            Response::DataflowFailed { id, error } => {
                failed.lock().push((id, error));
                None
            }
            Response::EpochComplete { .. } => Some(()),
            _ => None,
        })
        .await;
    let failed = failed.into_inner();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert_eq!(failed[0].0, VIEW);
    assert_eq!(failed[1], (OTHER, error));
    // Made anew they are as good as any.
    worker
        .send(Command::Drop {
            objects: vec![VIEW],
        })
        .await;
    worker
        .send(collection(VIEW, CollectionKind::MaterializedView))
        .await;
    worker.send(view_of(VIEW, TABLE)).await;
    worker
        .wait("that the view is hydrated", |response| {
            (response == Response::Hydrated { id: VIEW }).then_some(())
        })
        .await;
    worker.stop().await;
}

mod front;
mod lanes;
