//! Sessions against a worker double: one task that keeps tables in memory, evaluates plans with DataFusion, and remembers its local log over restarts.

mod clusters;
mod kafka;
mod waiting;

use std::future::Future;
use std::sync::atomic::AtomicBool;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_schema::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use flowstone_functions::ScanTarget;
use flowstone_functions::codec::decode_plan;
use flowstone_proto::ipc::decode_batches;
use flowstone_proto::local::{self, WorkerEnd};
use flowstone_proto::message::{
    CleanUp, Command, LogId, Peek, ReadAt, RequestError, RequestId, Response, ResultMessage,
    SourceStatus, StageWrite, Staged, SystemRelation, WriteOperation,
};
use flowstone_proto::plan::QueryPlan;
use flowstone_sql::catalog::Machine;
use flowstone_types::clock::SystemClock;
use flowstone_types::{Epoch, ObjectId};
use futures::StreamExt;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::auth::{AuthError, AuthPolicy};
use crate::client::{Client, start};
use crate::config::Config;
use crate::error::SessionError;

/// What happens to one table: rows that go, rows that come.
#[derive(Clone, Debug)]
struct Change {
    table: ObjectId,
    delete: Vec<RecordBatch>,
    insert: Vec<RecordBatch>,
}

/// What survives a restart of the double.
#[derive(Clone, Debug, Default)]
struct Disk {
    log: BTreeMap<Epoch, Vec<Change>>,
    committed: BTreeMap<ObjectId, Vec<RecordBatch>>,
    commit_epoch: Epoch,
    /// Writes that were discarded.
    discarded: Vec<RequestId>,
    /// What the worker was told of clusters and of what is in them, in order.
    told: Arc<Mutex<Vec<String>>>,
    /// Whether nothing that is made or moved is ever hydrated.
    never_ready: Arc<AtomicBool>,
    /// Whether no plan can be rendered.
    refuses: Arc<AtomicBool>,
}

struct Double {
    end: WorkerEnd,
    disk: Arc<Mutex<Disk>>,
    schemas: BTreeMap<ObjectId, SchemaRef>,
    rows: BTreeMap<ObjectId, Vec<RecordBatch>>,
    staged: BTreeMap<RequestId, Vec<Change>>,
    complete: Epoch,
    observable: Epoch,
    waiting: Vec<Peek>,
    subscriptions: Vec<(RequestId, mpsc::Sender<ResultMessage>)>,
}

impl Double {
    async fn run(mut self) {
        while let Some(command) = self.end.commands.recv().await {
            if !self.act(command).await {
                break;
            }
        }
    }

    async fn answer(&self, response: Response) {
        // The coordinator may be gone: the test ends it whenever it likes.
        let _ = self.end.responses.send(response).await;
    }

    fn note(&self, text: String) {
        self.disk.lock().told.lock().push(text);
    }

    async fn act(&mut self, command: Command) -> bool {
        match command {
            Command::Hello {
                version,
                commit_point,
                local_log: _,
            } => {
                let disk = self.disk.lock().clone();
                assert_eq!(
                    disk.commit_epoch.max(commit_point),
                    commit_point.max(disk.commit_epoch)
                );
                self.rows = disk.committed;
                let logged_epochs = disk
                    .log
                    .keys()
                    .copied()
                    .filter(|epoch| *epoch > commit_point)
                    .collect();
                self.answer(Response::Ready {
                    version,
                    logged_epochs,
                    local_log: LogId([9; 16]),
                    newest_logged: Epoch::MIN,
                    cut_through: Epoch::MIN,
                })
                .await;
            }
            Command::CreateCollection(collection) => {
                self.schemas.insert(collection.id, collection.schema);
                self.rows.entry(collection.id).or_default();
            }
            Command::Drop { objects } => {
                self.note(format!("drop {} objects", objects.len()));
                for id in objects {
                    self.schemas.remove(&id);
                    self.rows.remove(&id);
                }
            }
            Command::StageWrite(write) => {
                let write_id = write.write;
                let result = self.stage(write).await;
                self.answer(Response::WriteStaged {
                    write: write_id,
                    result,
                })
                .await;
            }
            Command::DiscardWrite { write } => {
                self.staged.remove(&write);
                self.disk.lock().discarded.push(write);
            }
            Command::RunEpoch(run) => {
                assert!(run.epoch > self.complete, "epochs increase");
                let changes: Vec<Change> = if run.replay {
                    self.disk
                        .lock()
                        .log
                        .get(&run.epoch)
                        .cloned()
                        .unwrap_or_default()
                } else {
                    run.writes
                        .iter()
                        .flat_map(|write| self.staged.remove(write).unwrap())
                        .collect()
                };
                for change in &changes {
                    self.apply(change);
                }
                if !changes.is_empty() {
                    self.disk.lock().log.insert(run.epoch, changes);
                }
                self.complete = run.epoch;
                self.answer(Response::EpochComplete { epoch: run.epoch })
                    .await;
            }
            Command::BindingDurable { epoch } => {
                self.observable = epoch;
                for peek in std::mem::take(&mut self.waiting) {
                    self.peek(peek).await;
                }
                for (_, subscription) in &self.subscriptions {
                    let _ = subscription.try_send(ResultMessage::Progress(epoch.next()));
                }
            }
            Command::Commit { epoch } => {
                let committed = self.rows.clone();
                let mut disk = self.disk.lock().clone();
                disk.committed = committed;
                disk.commit_epoch = epoch;
                *self.disk.lock() = disk;
                self.answer(Response::Committed {
                    epoch,
                    versions: Vec::new(),
                })
                .await;
            }
            Command::CommitPointDurable { epoch } => {
                self.disk.lock().log.retain(|logged, _| *logged > epoch)
            }
            Command::Peek(peek) => self.peek(peek).await,
            Command::Subscribe(subscribe) => {
                self.note(format!("subscribe in {}", subscribe.cluster));
                let sender = self.end.results.take(subscribe.request).unwrap();
                self.subscriptions.push((subscribe.request, sender));
            }
            Command::Cancel { request } => self.subscriptions.retain(|(id, _)| *id != request),
            Command::Shutdown => {
                self.answer(Response::Stopped).await;
                return false;
            }
            Command::CleanUp(work) => {
                for CleanUp { id, .. } in work {
                    self.answer(Response::CleanedUp { id }).await;
                }
            }
            Command::SetCluster {
                cluster,
                threads,
                change,
            } => {
                self.note(format!("set {cluster} to {threads}"));
                // What is said of earlier changes makes nobody ready.
                self.answer(Response::ClusterReady {
                    cluster,
                    change: change - 1,
                })
                .await;
                let never_ready = Arc::clone(&self.disk.lock().never_ready);
                if !never_ready.load(Ordering::SeqCst) {
                    self.answer(Response::ClusterReady { cluster, change })
                        .await;
                }
            }
            Command::DropCluster { cluster } => self.note(format!("drop {cluster}")),
            Command::Prepare { request, .. } => {
                let refuses = Arc::clone(&self.disk.lock().refuses);
                let result = if refuses.load(Ordering::SeqCst) {
                    Err(RequestError::Internal("it cannot be rendered".to_owned()))
                } else {
                    Ok(())
                };
                self.answer(Response::Prepared { request, result }).await;
            }
            Command::CreateDataflow(dataflow) => {
                self.note(format!("create in {}", dataflow.cluster));
                let never_ready = Arc::clone(&self.disk.lock().never_ready);
                if !never_ready.load(Ordering::SeqCst) {
                    self.answer(Response::Hydrated { id: dataflow.id }).await;
                }
            }
            Command::FailDataflow { .. } | Command::AllowCompaction { .. } => {}
            Command::Lookup(_) => unreachable!("no test here has an index"),
            Command::CreateSource(source) => {
                self.note(kafka::told_source("create", source.id, &source.tables));
                self.answer(Response::SourceStatus {
                    object: source.id,
                    status: SourceStatus::Running,
                })
                .await;
            }
            Command::AddSourceTables { source, tables } => {
                self.note(kafka::told_source("add to", source, &tables));
            }
            Command::AlterSource {
                source,
                kind,
                tables,
            } => {
                let told = kafka::told_source("alter", source, &tables);
                self.note(format!("{told} through {}", kafka::told_kind(&kind)));
            }
            Command::CreateSink(sink) => {
                self.note(kafka::told_sink("create", &sink));
                self.answer(Response::SinkStatus {
                    sink: sink.id,
                    status: SourceStatus::Running,
                })
                .await;
                self.answer(Response::SinkStatistics {
                    sink: sink.id,
                    messages: 3,
                    bytes: 30,
                    committed_epoch: Some(self.complete),
                })
                .await;
            }
            Command::AlterSink(sink) => {
                let told = kafka::told_sink("alter", &sink);
                let through = kafka::told_connection(&sink.kafka.connection);
                self.note(format!("{told} through {through}"));
            }
            Command::AskUpstream { request, question } => {
                self.note(kafka::told_question(&question));
                let answer = kafka::answer(&question);
                self.answer(Response::UpstreamAnswer { request, answer })
                    .await;
            }
        }
        true
    }

    async fn query(&self, query: &QueryPlan, system: &[SystemRelation]) -> Vec<RecordBatch> {
        let plan = decode_plan(&query.bytes, &|target, schema| {
            let ScanTarget::Collection(id) = target else {
                unreachable!("peeks scan collections")
            };
            let batches = match system.iter().find(|relation| relation.id == id) {
                Some(relation) => decode_batches(&relation.rows).unwrap().1,
                None => self.rows[&id].clone(),
            };
            let batches = batches.iter().map(|batch| {
                RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap()
            });
            Ok(Arc::new(MemTable::try_new(
                schema.clone(),
                vec![batches.collect()],
            )?))
        });
        let context = SessionContext::new_with_state(flowstone_functions::session_state());
        context
            .execute_logical_plan(plan.unwrap())
            .await
            .unwrap()
            .collect()
            .await
            .unwrap()
    }

    /// What a write writes: the columns of its table, so many times. What is behind them goes to who reads the rows.
    async fn written(
        &self,
        returns: &Option<mpsc::Sender<ResultMessage>>,
        table: ObjectId,
        times: usize,
        query: &QueryPlan,
        system: &[SystemRelation],
    ) -> Vec<RecordBatch> {
        let width = self.schemas[&table].fields().len() * times;
        let mut written = Vec::new();
        for batch in self.query(query, system).await {
            let columns = batch.num_columns();
            if let Some(returns) = returns
                && columns > width
            {
                let behind = batch.project(&(width..columns).collect::<Vec<_>>());
                let _ = returns.send(ResultMessage::Rows(behind.unwrap())).await;
            }
            written.push(batch.project(&(0..width).collect::<Vec<_>>()).unwrap());
        }
        written
    }

    async fn stage(&mut self, write: StageWrite) -> Result<Staged, RequestError> {
        let mut counts = Vec::new();
        let mut changes = Vec::new();
        let returns = self.end.results.take(write.write);
        for operation in write.operations {
            let change = match operation {
                WriteOperation::Insert {
                    table,
                    query,
                    system,
                } => Change {
                    table,
                    delete: Vec::new(),
                    insert: self.written(&returns, table, 1, &query, &system).await,
                },
                WriteOperation::InsertRows { table, rows } => Change {
                    table,
                    delete: Vec::new(),
                    insert: decode_batches(&rows).unwrap().1,
                },
                WriteOperation::Delete {
                    table,
                    query,
                    system,
                } => Change {
                    table,
                    delete: self.written(&returns, table, 1, &query, &system).await,
                    insert: Vec::new(),
                },
                WriteOperation::Update {
                    table,
                    query,
                    system,
                } => {
                    let both = self.written(&returns, table, 2, &query, &system).await;
                    let half = |batch: &RecordBatch, first: bool| {
                        let middle = batch.num_columns() / 2;
                        let columns: Vec<usize> = if first {
                            (0..middle).collect()
                        } else {
                            (middle..2 * middle).collect()
                        };
                        batch.project(&columns).unwrap()
                    };
                    let delete = both.iter().map(|batch| half(batch, true)).collect();
                    Change {
                        table,
                        delete,
                        insert: both.iter().map(|batch| half(batch, false)).collect(),
                    }
                }
            };
            let rows: usize = change
                .delete
                .iter()
                .chain(&change.insert)
                .map(RecordBatch::num_rows)
                .sum();
            let rows = if change.delete.is_empty() || change.insert.is_empty() {
                rows
            } else {
                rows / 2
            };
            if change
                .insert
                .iter()
                .any(|batch| batch.column(0).null_count() > 0)
            {
                return Err(RequestError::NotNull {
                    column: "k".to_owned(),
                    relation: "t".to_owned(),
                });
            }
            counts.push(u64::try_from(rows).unwrap());
            changes.push(change);
        }
        self.staged.insert(write.write, changes);
        Ok(Staged {
            affected: counts,
            bytes: 0,
        })
    }

    fn apply(&mut self, change: &Change) {
        let Some(schema) = self.schemas.get(&change.table).cloned() else {
            return;
        };
        let schema = super::stream::nullable(&schema);
        let rows = self.rows.entry(change.table).or_default();
        // Row by row: the double is for tests of a few rows.
        let singles = |batches: &[RecordBatch]| -> Vec<RecordBatch> {
            let whole = batches.iter().map(|batch| {
                RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap()
            });
            whole
                .flat_map(|batch| {
                    (0..batch.num_rows())
                        .map(move |row| batch.slice(row, 1))
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        let mut current = singles(rows);
        for gone in singles(&change.delete) {
            let at = current.iter().position(|row| *row == gone).unwrap();
            current.remove(at);
        }
        current.extend(singles(&change.insert));
        *rows = current;
    }

    async fn peek(&mut self, peek: Peek) {
        let (ReadAt::AtLeast(at) | ReadAt::Exactly(at)) = peek.at;
        if at > self.observable {
            self.waiting.push(peek);
            return;
        }
        let Some(sender) = self.end.results.take(peek.request) else {
            return;
        };
        for batch in self.query(&peek.query, &peek.system).await {
            let _ = sender.send(ResultMessage::Rows(batch)).await;
        }
        let _ = sender.send(ResultMessage::Done).await;
    }
}

struct Node {
    client: Client,
    double: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(directory: &TempDir, disk: &Arc<Mutex<Disk>>) -> Self {
        let (coordinator, end) = local::connect();
        let double = Double {
            end,
            disk: Arc::clone(disk),
            schemas: BTreeMap::new(),
            rows: BTreeMap::new(),
            staged: BTreeMap::new(),
            complete: Epoch::MIN,
            observable: Epoch::MIN,
            waiting: Vec::new(),
            subscriptions: Vec::new(),
        };
        let double = tokio::spawn(double.run());
        let config = Config {
            data_dir: directory.path().to_owned(),
            secret_key_file: None,
            auth: AuthPolicy::TrustLoopback,
            commit_interval_ms: 1_000,
            session_memory_bytes: 64 << 20,
            machine: Machine {
                shards: 1,
                threads: 4,
            },
            clock: Arc::new(SystemClock),
        };
        Self {
            client: start(config, coordinator).await.unwrap(),
            double,
        }
    }

    async fn session(&self) -> Session {
        let options = SessionOptions {
            user: "materialize".to_owned(),
            ..SessionOptions::default()
        };
        self.client.open_session(options).await.unwrap()
    }

    /// The worker dies; the coordinator with it.
    async fn crash(self) {
        self.double.abort();
        let _ = self.double.await;
        self.client.failed().await;
        // Its files are closed when nobody proposes any more.
        self.client.shutdown().await;
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(TempDir, Arc<Mutex<Disk>>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .unwrap();
    let deadline = std::time::Duration::from_secs(60);
    let work = test(tempfile::tempdir().unwrap(), Arc::default());
    runtime.block_on(async {
        tokio::time::timeout(deadline, work)
            .await
            .expect("the test ends in time")
    });
}

async fn outcome(session: &mut Session, sql: &str) -> Result<Outcome, Error> {
    let statements = session.parse(sql).await.unwrap();
    let [statement] = statements.as_slice() else {
        panic!("one statement: {sql}")
    };
    session.execute(statement, &[]).await
}

async fn tag(session: &mut Session, sql: &str) -> String {
    match outcome(session, sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    {
        Outcome::Command { tag } => tag,
        other => panic!("{sql}: {other:?}"),
    }
}

async fn error(session: &mut Session, sql: &str) -> Error {
    match outcome(session, sql).await {
        Err(error) => error,
        Ok(Outcome::Rows { mut rows, .. }) => loop {
            match rows.next().await {
                Some(Err(error)) => return error,
                Some(Ok(_)) => {}
                None => panic!("{sql} did not fail"),
            }
        },
        Ok(other) => panic!("{sql}: {other:?}"),
    }
}

/// Everything a statement gives, cell by cell as text, sorted.
async fn rows(session: &mut Session, sql: &str) -> Vec<Vec<String>> {
    let Outcome::Rows { mut rows, .. } = outcome(session, sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    else {
        panic!("{sql} gives no rows")
    };
    let mut found = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        for row in 0..batch.num_rows() {
            let cells = batch
                .columns()
                .iter()
                .map(|column| arrow_cast::display::array_value_to_string(column, row).unwrap());
            found.push(cells.collect::<Vec<_>>());
        }
    }
    found.sort();
    found
}

#[test]
fn a_table_is_created_filled_changed_and_read() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        assert_eq!(
            tag(&mut session, "CREATE TABLE t (k int NOT NULL, v text)").await,
            "CREATE TABLE"
        );
        assert_eq!(
            tag(
                &mut session,
                "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')"
            )
            .await,
            "INSERT 0 3"
        );
        assert_eq!(
            tag(&mut session, "UPDATE t SET v = 'z' WHERE k >= 2").await,
            "UPDATE 2"
        );
        assert_eq!(
            tag(&mut session, "DELETE FROM t WHERE k = 3").await,
            "DELETE 1"
        );
        assert_eq!(
            tag(&mut session, "INSERT INTO t SELECT k + 10, v FROM t").await,
            "INSERT 0 2"
        );
        let expected = [["1", "a"], ["11", "a"], ["12", "z"], ["2", "z"]];
        assert_eq!(rows(&mut session, "SELECT * FROM t").await, expected);
        let failed = error(&mut session, "INSERT INTO t VALUES (NULL, 'x')").await;
        assert!(
            matches!(&failed, Error::Sql(error) if error.kind == flowstone_sql::error::ErrorKind::NotNullViolation),
            "{failed:?}"
        );
        assert_eq!(tag(&mut session, "DROP TABLE t").await, "DROP TABLE");
        assert!(matches!(
            error(&mut session, "SELECT * FROM t").await,
            Error::Sql(_)
        ));
        node.client.shutdown().await;
    });
}

#[test]
fn a_transaction_of_inserts_is_visible_after_commit_and_never_after_rollback() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let (mut writer, mut reader) = (node.session().await, node.session().await);
        tag(&mut writer, "CREATE TABLE t (k int)").await;
        tag(&mut writer, "BEGIN").await;
        assert_eq!(
            tag(&mut writer, "INSERT INTO t VALUES (1)").await,
            "INSERT 0 1"
        );
        tag(&mut writer, "INSERT INTO t VALUES (2)").await;
        assert!(rows(&mut reader, "SELECT * FROM t").await.is_empty());
        let refused = error(&mut writer, "SELECT * FROM t").await;
        assert_eq!(refused, TransactionError::WriteOnly.into());
        assert_eq!(writer.transaction_status(), TransactionStatus::Failed);
        assert_eq!(
            error(&mut writer, "SELECT 1").await,
            TransactionError::Aborted.into()
        );
        assert_eq!(tag(&mut writer, "COMMIT").await, "ROLLBACK");
        assert!(rows(&mut reader, "SELECT * FROM t").await.is_empty());
        tag(&mut writer, "BEGIN").await;
        tag(&mut writer, "INSERT INTO t VALUES (3)").await;
        assert_eq!(tag(&mut writer, "COMMIT").await, "COMMIT");
        assert_eq!(rows(&mut reader, "SELECT * FROM t").await, [["3"]]);
        node.client.shutdown().await;
    });
}

#[test]
fn a_write_that_nobody_waits_for_any_more_is_discarded_even_if_the_worker_is_behind() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let session = node.session().await;
        let parts = Arc::clone(&session.parts);
        let write = parts.numbers.next_request();
        let (answer, answered) = tokio::sync::oneshot::channel();
        parts.worker.waiters.lock().writes.insert(write, answer);
        let staged = crate::staged::StagedWrite::new(
            Arc::clone(&parts.worker),
            write,
            ObjectId::User(1),
            "t".to_owned(),
            session.memory.hold(1).unwrap(),
        );
        // The queue to the worker is full.
        let room = parts.worker.commands.max_capacity();
        let room = parts.worker.commands.reserve_many(room).await.unwrap();
        drop(staged);
        assert!(answered.await.is_err(), "the waiter is gone");
        assert!(!disk.lock().discarded.contains(&write));
        drop(room);
        while !disk.lock().discarded.contains(&write) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_block_refuses_what_cannot_be_part_of_it() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int)").await;
        tag(&mut session, "CREATE SCHEMA other").await;
        tag(&mut session, "CREATE TABLE other.u (k int)").await;
        for (first, second) in [
            ("SELECT * FROM t", "INSERT INTO t VALUES (1)"),
            ("SELECT * FROM t", "UPDATE t SET k = 2"),
            ("SELECT * FROM t", "CREATE TABLE x (k int)"),
            ("SELECT * FROM t", "SELECT * FROM other.u"),
        ] {
            tag(&mut session, "BEGIN").await;
            rows(&mut session, first).await;
            let refused = error(&mut session, second).await;
            assert!(
                matches!(refused, Error::Transaction(_)),
                "{second}: {refused:?}"
            );
            tag(&mut session, "ROLLBACK").await;
        }
        tag(&mut session, "BEGIN").await;
        rows(&mut session, "SELECT * FROM t").await;
        let refused = error(&mut session, "SELECT * FROM other.u").await;
        let Error::Transaction(timedomain) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            timedomain
                .detail()
                .unwrap()
                .contains("\"materialize\".\"other\".\"u\"")
        );
        node.client.shutdown().await;
    });
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int)").await;
        tag(&mut session, "CREATE SECRET s AS 'hunter2'").await;
        tag(&mut session, "INSERT INTO t VALUES (1)").await;
        let before = node.client.metrics_snapshot().epoch;
        drop(session);
        node.crash().await;

        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        assert_eq!(rows(&mut session, "SELECT * FROM t").await, [["1"]]);
        assert!(
            node.client.metrics_snapshot().epoch > before,
            "epochs never go back"
        );
        assert!(node.client.readiness().ready);
        tag(&mut session, "INSERT INTO t VALUES (2)").await;
        drop(session);
        node.client.shutdown().await;
        assert!(
            disk.lock().log.is_empty(),
            "an orderly end commits everything"
        );

        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        assert_eq!(rows(&mut session, "SELECT * FROM t").await, [["1"], ["2"]]);
        node.client.shutdown().await;
    });
}

#[test]
fn a_write_gives_what_its_returning_says() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int NOT NULL, v text)").await;
        for (sql, expected_verb, expected) in [
            (
                "INSERT INTO t VALUES (1, 'a'), (2, 'b') RETURNING v, k + 1 AS n",
                "INSERT 0",
                vec![["a", "2"], ["b", "3"]],
            ),
            (
                "UPDATE t SET v = v || k WHERE k = 2 RETURNING v, k AS n",
                "UPDATE",
                vec![["b2", "2"]],
            ),
            (
                "WITH q AS (SELECT 1 AS one) DELETE FROM t USING q WHERE k = one RETURNING v, one AS n",
                "DELETE",
                vec![["a", "1"]],
            ),
            (
                "DELETE FROM t WHERE k = 9 RETURNING v, k AS n",
                "DELETE",
                vec![],
            ),
        ] {
            let statement = session.parse(sql).await.unwrap().remove(0);
            let description = session.describe(&statement, &[]).await.unwrap();
            let Outcome::Rows {
                verb,
                schema,
                mut rows,
            } = session.execute(&statement, &[]).await.unwrap()
            else {
                panic!("{sql} gives no rows")
            };
            assert_eq!(verb, expected_verb, "{sql}");
            assert_eq!(description.columns, Some(schema.clone()), "{sql}");
            assert_eq!(schema.field(1).name(), "n", "{sql}");
            let mut found = Vec::new();
            while let Some(batch) = rows.next().await {
                let batch = batch.unwrap();
                for row in 0..batch.num_rows() {
                    found.push([0, 1].map(|column| {
                        let column = batch.column(column);
                        arrow_cast::display::array_value_to_string(column, row).unwrap()
                    }));
                }
            }
            assert_eq!(found, expected, "{sql}");
        }
        assert_eq!(rows(&mut session, "SELECT * FROM t").await, [["2", "b2"]]);
        // What does not happen gives nothing, and what a transaction takes back has been given.
        let refused = error(
            &mut session,
            "INSERT INTO t SELECT NULL::int, 'x' RETURNING v",
        )
        .await;
        assert!(matches!(refused, Error::Request(_)), "{refused:?}");
        tag(&mut session, "BEGIN").await;
        assert_eq!(
            rows(&mut session, "INSERT INTO t VALUES (3, 'c') RETURNING *").await,
            [["3", "c"]]
        );
        tag(&mut session, "ROLLBACK").await;
        assert_eq!(rows(&mut session, "SELECT * FROM t").await, [["2", "b2"]]);
        node.client.shutdown().await;
    });
}

#[test]
fn a_subscription_goes_on_until_it_is_cancelled() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int)").await;
        let Outcome::Rows {
            mut rows,
            schema,
            verb,
        } = outcome(&mut session, "SUBSCRIBE t WITH (PROGRESS)")
            .await
            .unwrap()
        else {
            panic!("a subscription gives rows")
        };
        assert_eq!(verb, "SUBSCRIBE");
        let names: Vec<_> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        assert_eq!(names, ["mz_timestamp", "mz_progressed", "mz_diff", "k"]);
        let progress = rows.next().await.unwrap().unwrap();
        assert!(progress.column(1).as_boolean().value(0));
        node.client.cancel(session.process_id(), &[0; 4]);
        node.client
            .cancel(session.process_id(), &session.secret().to_be_bytes());
        loop {
            match rows.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break assert_eq!(error, Error::Cancelled),
                None => panic!("the end is an error"),
            }
        }
        node.client.shutdown().await;
    });
}

#[test]
fn cursors_and_prepared_statements_live_in_the_session() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int)").await;
        tag(&mut session, "INSERT INTO t VALUES (1), (2), (3)").await;
        tag(
            &mut session,
            "PREPARE p (int) AS SELECT k FROM t WHERE k > $1",
        )
        .await;
        assert_eq!(rows(&mut session, "EXECUTE p (1)").await, [["2"], ["3"]]);
        assert!(matches!(
            error(&mut session, "EXECUTE p").await,
            Error::Session(SessionError::ParameterCount { .. })
        ));
        tag(&mut session, "DEALLOCATE p").await;
        let gone = error(&mut session, "EXECUTE p (1)").await;
        assert_eq!(gone, SessionError::UnknownPrepared("p".to_owned()).into());

        assert!(matches!(
            error(&mut session, "DECLARE c CURSOR FOR SELECT k FROM t").await,
            Error::Transaction(_)
        ));
        tag(&mut session, "BEGIN").await;
        tag(
            &mut session,
            "DECLARE c CURSOR FOR SELECT k FROM t ORDER BY k",
        )
        .await;
        assert_eq!(rows(&mut session, "FETCH 2 c").await, [["1"], ["2"]]);
        assert!(rows(&mut session, "FETCH 0 c").await.is_empty());
        assert_eq!(rows(&mut session, "FETCH ALL c").await, [["3"]]);
        tag(&mut session, "COMMIT").await;
        node.client.shutdown().await;
    });
}

#[test]
fn parameters_are_described_and_bound() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "CREATE TABLE t (k int, n bigint)").await;
        let insert = session
            .parse("INSERT INTO t VALUES ($1, $2)")
            .await
            .unwrap();
        let described = session.describe(&insert[0], &[]).await.unwrap();
        assert_eq!(
            described,
            Description {
                parameters: vec![SqlType::Int4, SqlType::Int8],
                columns: None
            }
        );
        let values: Vec<ArrayRef> = vec![
            Arc::new(arrow_array::PrimitiveArray::<Int32Type>::from(vec![7])),
            Arc::new(arrow_array::PrimitiveArray::<Int64Type>::from(vec![70])),
        ];
        session.execute(&insert[0], &values).await.unwrap();
        assert_eq!(
            rows(&mut session, "SELECT n FROM t WHERE k = 7").await,
            [["70"]]
        );
        node.client.shutdown().await;
    });
}

#[test]
fn variables_are_set_shown_and_reported() {
    run(async |directory, disk| {
        let node = Node::start(&directory, &disk).await;
        let mut session = node.session().await;
        tag(&mut session, "SET application_name = 'test'").await;
        assert_eq!(
            session.take_parameter_changes(),
            [("application_name".to_owned(), "test".to_owned())]
        );
        assert_eq!(
            rows(&mut session, "SHOW application_name").await,
            [["test"]]
        );
        assert_eq!(
            rows(&mut session, "SHOW TRANSACTION ISOLATION LEVEL").await,
            [["strict serializable"]]
        );
        assert!(matches!(
            error(&mut session, "SET nonsense = 1").await,
            Error::Session(SessionError::UnknownVariable(_))
        ));
        let unknown = SessionOptions {
            database: Some("nowhere".to_owned()),
            ..SessionOptions::default()
        };
        assert!(matches!(
            node.client.open_session(unknown).await,
            Err(Error::Sql(_))
        ));
        node.client.shutdown().await;
    });
}

#[test]
fn passwords_are_checked_against_the_catalog_over_restarts() {
    run(async |directory, disk| {
        let here = std::net::IpAddr::from([127, 0, 0, 1]);
        let node = Node::start(&directory, &disk).await;
        assert!(!node.client.has_password());
        assert!(node.client.set_first_password("first").await.unwrap());
        assert!(!node.client.set_first_password("second").await.unwrap());
        assert!(node.client.has_password());
        let mut session = node.session().await;
        for statement in [
            "CREATE ROLE ada LOGIN PASSWORD 'lovelace'",
            "CREATE ROLE group_of_people PASSWORD 'many'",
            "CREATE USER late PASSWORD 'x' VALID UNTIL '2020-01-01'",
            "CREATE USER nobody",
        ] {
            tag(&mut session, statement).await;
        }
        let wrong = |user: &str| {
            Err(AuthError::Password {
                user: user.to_owned(),
            })
        };
        let check = async |client: &Client| {
            let auth = client.authenticator();
            let verify = |user, password| auth.verify_password(user, password, here);
            assert_eq!(verify("materialize", "first").await, Ok(()));
            assert_eq!(verify("ada", "lovelace").await, Ok(()));
            assert_eq!(verify("ada", "Lovelace").await, wrong("ada"));
            assert_eq!(verify("late", "x").await, wrong("late"));
            assert_eq!(verify("nobody", "").await, wrong("nobody"));
            assert_eq!(verify("stranger", "x").await, wrong("stranger"));
            assert_eq!(
                verify("group_of_people", "many").await,
                Err(AuthError::NotPermitted {
                    role: "group_of_people".to_owned()
                })
            );
            assert_eq!(auth.admit_trusted("stranger"), Ok(()));
            assert!(auth.admit_trusted("group_of_people").is_err());
        };
        check(&node.client).await;
        let salt = async |client: &Client, user: &str| {
            let mut login = client.authenticator().login(user, here, None);
            let first = login.begin("SCRAM-SHA-256", b"n,,n=,r=abc").unwrap();
            let salt = first.split(',').find(|field| field.starts_with("s="));
            salt.unwrap().to_owned()
        };
        let (ada, stranger) = (
            salt(&node.client, "ada").await,
            salt(&node.client, "stranger").await,
        );
        assert_eq!(ada.len(), stranger.len());
        assert_ne!(stranger, salt(&node.client, "stranger2").await);
        drop(session);
        node.crash().await;
        let node = Node::start(&directory, &disk).await;
        check(&node.client).await;
        // A user that does not exist looks as constant as one that does.
        assert_eq!(salt(&node.client, "ada").await, ada);
        assert_eq!(salt(&node.client, "stranger").await, stranger);
        node.crash().await;
    });
}
