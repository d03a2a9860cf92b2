//! The engine at its transport: commands in, responses out.

use std::path::Path;

use arrow_schema::Schema;
use flowstone_proto::local::{CoordinatorEnd, connect};
use flowstone_proto::message::{
    CleanUp, CollectionKind, PostgresConnection, Remains, RunEpoch, SourceKind, SourceTable,
    SslMode,
};
use flowstone_types::clock::SystemClock;
use flowstone_types::{EvalErrorKind, SqlType};

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);
const SOURCE: ObjectId = ObjectId::User(10);
const TABLE: ObjectId = ObjectId::User(11);

fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.to_owned(),
        shards: 2,
        clock: Arc::new(SystemClock),
        compute: tokio::runtime::Handle::current(),
        query_memory_bytes: 64 << 20,
        subscriber_memory_bytes: 64 << 20,
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
        let worker = Self {
            end: coordinator,
            task: tokio::spawn(start(config(dir), end)),
        };
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
        .send(Command::CreateSource(SourceDescription {
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
        }))
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
    worker.send(Command::Shutdown).await;
    worker
        .wait("that it has stopped", |response| {
            (response == Response::Stopped).then_some(())
        })
        .await;
    worker.task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_is_deleted_once_maintenance_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut coordinator, end) = connect();
    let config = config(dir.path());
    let mut engine = open(&config).await.unwrap().engine(config, end);
    engine.maintaining = true;
    engine.clean_up(vec![CleanUp {
        id: TABLE,
        remains: Remains::Collection,
    }]);
    assert_eq!(engine.dropped_tables, [TABLE]);
    engine.handle(Event::Maintained).await.unwrap();
    assert!(engine.dropped_tables.is_empty());
    let response = tokio::time::timeout(DEADLINE, coordinator.responses.recv())
        .await
        .unwrap();
    assert_eq!(response, Some(Response::CleanedUp { id: TABLE }));
}

#[test]
fn writes_that_are_too_large_together_are_refused_and_a_bug_is_not() {
    let large = flowstone_storage::Error::TooLarge {
        bytes: 5 << 30,
        limit: 4 << 30,
    };
    let refusal = epoch::refusal(&large);
    assert!(
        matches!(&refusal, Some(RequestError::Eval(error)) if error.kind == EvalErrorKind::TooLarge && error.message == large.to_string()),
        "{refusal:?}"
    );
    let bug = flowstone_storage::Error::Invariant("x".to_owned());
    assert_eq!(epoch::refusal(&bug), None);
}
