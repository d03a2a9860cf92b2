//! Commands from the coordinator, responses from the worker, and the results that stream to clients.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_types::{ClusterId, DeltaBatch, Epoch, EvalError, ObjectId, SourcePosition};
use serde::{Deserialize, Serialize};

use crate::ipc::WireBatch;
use crate::kafka::{
    KafkaConnection, KafkaSink, KafkaSource, RegisteredSchema, RegistryConnection, SchemaRequest,
};
use crate::plan::{Plan, QueryPlan};

/// Names one peek, subscription, inspection or write of one client; chosen by the coordinator, never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What the coordinator tells a worker. Acted on in order, but that reads, plans to be tried, questions to upstreams and cancellations of these wait for nothing
/// before them but what makes, changes or drops something; and that what may be observed or committed by now, and other cancellations, need not wait for an epoch,
/// the start of a source or a durable commit point that waits for a disk or an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// First message. The worker answers [`Response::Ready`] or ends the connection over a version it does not speak.
    Hello {
        /// [`crate::PROTOCOL_VERSION`].
        version: u32,
        /// The epoch of the newest commit point: the state to recover to.
        commit_point: Epoch,
        /// The local log that the worker must have; `None` before the coordinator has heard of one.
        local_log: Option<LogId>,
    },
    /// A collection exists from now on.
    CreateCollection(CollectionDescription),
    /// A source exists and runs.
    CreateSource(Box<SourceDescription>),
    /// Tables are added to a running source. Their collections were created before.
    AddSourceTables {
        /// The source.
        source: ObjectId,
        /// The new tables.
        tables: Vec<SourceTable>,
    },
    /// A running source reaches its upstream, or what it asks beside that, in another way from now on: what goes on in the old way ends, and is tried in the new way
    /// at once. Nothing else of it changes, and what was read stays.
    AlterSource {
        /// The source.
        source: ObjectId,
        /// What it reads, as before, but for the connection.
        kind: Box<SourceKind>,
        /// Its tables, as before, but for the connections in [`SourceTable::upstream`].
        tables: Vec<SourceTable>,
    },
    /// A cluster exists from now on, or has other threads: what is in it is then hydrated beside what runs, which gives way to it without a gap. Answered by
    /// [`Response::ClusterReady`]. [`ClusterId::DEFAULT`] is there from the start with the threads of the process.
    SetCluster {
        /// The cluster.
        cluster: ClusterId,
        /// Shard threads that each of its computes has; zero if it is paused: what is in it stands still, and reads of later epochs wait.
        threads: usize,
        /// Names this change in [`Response::ClusterReady`].
        change: u64,
    },
    /// A cluster is gone. Nothing is in it any more.
    DropCluster {
        /// The cluster.
        cluster: ClusterId,
    },
    /// Tries to render a plan, beside everything else, and throws away what comes of it: so what cannot be made is refused before anybody hears of it. Answered by
    /// [`Response::Prepared`].
    Prepare {
        /// Names the answer.
        request: RequestId,
        /// What is to be computed.
        plan: Plan,
        /// What is to become of the result; `None` if it is a subscription's.
        export: Option<Export>,
    },
    /// A view or index is maintained from now on, starting from its inputs as of the last epoch run.
    CreateDataflow(DataflowDescription),
    /// A dataflow that existed cannot be made any more: what reads it fails with the error.
    FailDataflow {
        /// The dataflow.
        id: ObjectId,
        /// Why.
        error: EvalError,
    },
    /// A sink exists and writes what its collection holds as of commit points. Comes again after each start, at the commit point.
    CreateSink(Box<SinkDescription>),
    /// A sink writes something else from now on, or elsewhere, or reaches it in another way: the description takes the place of the one before it. What was written is
    /// not written again.
    AlterSink(Box<SinkDescription>),
    /// The named objects and their state in memory go, and their sources and sinks stop. [`Command::CleanUp`] follows for what they leave elsewhere.
    Drop {
        /// Collections, dataflows, sources and sinks, dependents first.
        objects: Vec<ObjectId>,
    },
    /// Removes what dropped objects left behind, here and upstream, trying again until it is done. Each is answered by [`Response::CleanedUp`].
    CleanUp(Vec<CleanUp>),
    /// Evaluates a write against the last complete epoch and keeps its changes for a later [`Command::RunEpoch`]. Answered by [`Response::WriteStaged`].
    StageWrite(StageWrite),
    /// Forgets a staged write.
    DiscardWrite {
        /// Its request.
        write: RequestId,
    },
    /// Runs one epoch: all changes up to the bound positions and the named writes become one tick. Answered by [`Response::EpochComplete`].
    RunEpoch(RunEpoch),
    /// The bindings of every epoch up to and including this one are durable: their results may be observed.
    BindingDurable {
        /// The newest such epoch.
        epoch: Epoch,
    },
    /// Writes everything up to and including `epoch` to the Delta tables. Answered by [`Response::Committed`], or by [`Response::CommitPutOff`].
    Commit {
        /// An epoch that was run and whose binding is durable.
        epoch: Epoch,
    },
    /// The commit point of `epoch` is durable: the local log may be cut and upstreams acknowledged up to it.
    CommitPointDurable {
        /// The epoch.
        epoch: Epoch,
    },
    /// No one will read below `since` any more.
    AllowCompaction {
        /// The earliest epoch that must stay readable.
        since: Epoch,
    },
    /// Evaluates a query once. Results stream to the request's [`ResultMessage`] channel.
    Peek(Peek),
    /// Reads the rows of one key of an index, without a query plan. Results stream to the request's [`ResultMessage`] channel.
    Lookup(Lookup),
    /// Streams the changes of a query's result.
    Subscribe(Subscribe),
    /// The client is gone or does not care any more.
    Cancel {
        /// The request to end.
        request: RequestId,
    },
    /// Asks an upstream about itself. Answered by [`Response::UpstreamAnswer`].
    AskUpstream {
        /// Names the answer.
        request: RequestId,
        /// The question.
        question: UpstreamQuestion,
    },
    /// Stop sources, finish the running epoch, sync the log, answer [`Response::Stopped`], exit.
    Shutdown,
}

/// Names one local log: chosen by the worker when it makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogId(pub [u8; 16]);

/// Why a source or a source table can never go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What readers are told.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

/// What a dropped object left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CleanUp {
    /// The object.
    pub id: ObjectId,
    /// What it was.
    pub remains: Remains,
}

/// What remains of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Remains {
    /// The directory of a Delta table.
    Collection,
    /// The state files of a source, and its slot upstream if it has one.
    Source(Option<ReplicationSlot>),
}

/// A replication slot and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationSlot {
    /// How to reach the server.
    pub connection: PostgresConnection,
    /// Its name.
    pub slot: String,
}

/// A collection: something with rows that are maintained and can be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectionDescription {
    /// Its identity.
    pub id: ObjectId,
    /// Its SQL name (`database.schema.name`), for the Delta table's metadata and the log; not an identity.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Columns that identify a row, if the rows are known to be unique in them.
    pub key: Option<Vec<usize>>,
    /// Where its rows come from.
    pub kind: CollectionKind,
    /// The version of its Delta table at the commit point it recovers to; `None` if it is new or was never committed.
    pub delta_version: Option<i64>,
    /// Why its source cannot feed it any more: reads fail with it until the collection is dropped.
    pub failure: Option<Failure>,
}

/// Where a collection's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionKind {
    /// INSERT, UPDATE, DELETE, COPY.
    Table,
    /// A source.
    SourceTable {
        /// The source.
        source: ObjectId,
    },
    /// A dataflow that exports to it ([`Export::Collection`]).
    MaterializedView,
}

/// A maintained view or index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataflowDescription {
    /// Its identity: the materialized view's or the index's.
    pub id: ObjectId,
    /// Where it runs.
    pub cluster: ClusterId,
    /// What it computes.
    pub plan: Plan,
    /// What becomes of the result.
    pub export: Export,
}

/// What becomes of a dataflow's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Export {
    /// It is the content of the collection with the dataflow's id, which was created before. Committed to Delta.
    Collection,
    /// It is kept in memory as a readable collection with the dataflow's id, arranged by `key`.
    Index {
        /// Key columns of the result.
        key: Vec<usize>,
    },
}

/// A sink and what it writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkDescription {
    /// Its identity.
    pub id: ObjectId,
    /// The cluster that it is in. It needs no shards: what it writes is read as it is committed.
    pub cluster: ClusterId,
    /// The collection whose changes it writes.
    pub from: ObjectId,
    /// The columns of that collection, by their names in SQL.
    pub schema: SchemaRef,
    /// Where and how.
    pub kafka: KafkaSink,
    /// The epoch of the commit point if the sink is there again after a restart; `None` if it is new. Where it goes on is told by what it wrote.
    pub as_of: Option<Epoch>,
    /// What it began with, if it is there again after a restart: it may not have written yet.
    pub begin: Option<SinkBegin>,
}

/// What a sink begins with: a version of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkBegin {
    /// The collection that it writes.
    pub collection: ObjectId,
    /// The commit point when it was made, or altered to write this collection.
    pub epoch: Epoch,
    /// The version of the collection's table then; `None` if it had never had rows.
    pub version: Option<i64>,
}

/// A source and the tables it feeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceDescription {
    /// Its identity.
    pub id: ObjectId,
    /// Its SQL name, for the log.
    pub name: String,
    /// What it reads.
    pub kind: SourceKind,
    /// What it feeds. The collections were created before.
    pub tables: Vec<SourceTable>,
    /// The collection that holds its progress (`<source>_progress`).
    pub progress: Option<ObjectId>,
    /// Everything up to this position is in the commit point; `None` if the source is new.
    pub resume_from: Option<SourcePosition>,
    /// Tables whose snapshot is in the commit point.
    pub snapshotted: Vec<ObjectId>,
    /// Whether an epoch has anything of it: then its state files are there.
    pub bound: bool,
    /// Why it can never go on, if that is so: it does not run, and its tables fail with it.
    pub failure: Option<Failure>,
}

/// What a source reads. All of its positions are of one kind: [`SourcePosition::PostgresLsn`] of PostgreSQL, [`SourcePosition::GeneratorTick`] of a generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SourceKind {
    /// A PostgreSQL publication, through one replication slot.
    Postgres {
        /// How to reach it.
        connection: PostgresConnection,
        /// The publication.
        publication: String,
        /// The slot; made by the worker if it does not exist and nothing was snapshotted yet.
        slot: String,
    },
    /// A generator, deterministic by seed.
    LoadGenerator {
        /// Which one.
        generator: LoadGenerator,
        /// Time between ticks.
        tick_interval: Duration,
        /// The seed.
        seed: u64,
    },
    /// A topic of Kafka.
    Kafka(Box<KafkaSource>),
}

/// The load generators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LoadGenerator {
    /// `counter bigint`: 1, 2, 3, …; at most `max_cardinality` rows, the oldest retracted.
    Counter {
        /// Rows to keep; unlimited if `None`.
        max_cardinality: Option<u64>,
    },
    /// organizations, users, accounts, auctions, bids.
    Auction,
    /// The TPC-H tables at a scale factor, with orders that come and go.
    Tpch {
        /// 1.0 is 1 GB.
        scale_factor: f64,
    },
}

/// How to reach an upstream, whatever it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamConnection {
    /// A PostgreSQL server.
    Postgres(PostgresConnection),
    /// A Kafka cluster.
    Kafka(KafkaConnection),
    /// A schema registry.
    Registry(RegistryConnection),
}

/// How to reach a PostgreSQL server. Holds secrets: its `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresConnection {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Password.
    pub password: Option<String>,
    /// Database.
    pub database: String,
    /// How TLS is used.
    pub ssl_mode: SslMode,
    /// PEM of the certificate authority to trust, for `verify_ca` and `verify_full`.
    pub ssl_root: Option<String>,
}

impl std::fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "postgres://{}@{}:{}/{}",
            self.user, self.host, self.port, self.database
        )
    }
}

/// PostgreSQL's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SslMode {
    /// No TLS.
    #[default]
    Disable,
    /// TLS if the server has it.
    Prefer,
    /// TLS, any certificate.
    Require,
    /// TLS, a certificate from a known authority.
    VerifyCa,
    /// TLS, a certificate from a known authority for this host.
    VerifyFull,
}

/// One table that a source feeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTable {
    /// The collection it feeds.
    pub id: ObjectId,
    /// Schema upstream (for a generator: the generator's name).
    pub upstream_schema: String,
    /// Name upstream.
    pub upstream_name: String,
    /// Identity upstream, for its connector only: the relation's OID in PostgreSQL, 0 for a generator.
    pub upstream_oid: u32,
    /// The columns captured, in the order of the collection's schema.
    pub columns: Vec<SourceColumn>,
    /// Columns (of `columns`) that identify a row upstream (its replica identity index or primary key); empty if whole rows are sent.
    pub key: Vec<usize>,
    /// What only its connector reads, encoded as it likes with a version first; empty where the rest says it all. Of Kafka a
    /// [`crate::kafka::KafkaTable`].
    #[serde(default)]
    pub upstream: Vec<u8>,
}

/// One captured column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceColumn {
    /// Name upstream.
    pub name: String,
    /// Attribute number upstream.
    pub attribute: i16,
    /// Type OID upstream.
    pub type_oid: u32,
    /// Type modifier upstream.
    pub type_modifier: i32,
    /// Whether upstream forbade NULL when the table was added.
    pub not_null: bool,
    /// Whether the value is captured as its text, whatever the type.
    pub as_text: bool,
}

/// A question to an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UpstreamQuestion {
    /// Can it be reached, with these credentials, and is it set up for capture? Answered by [`UpstreamAnswer::Valid`].
    Validate(UpstreamConnection),
    /// Which tables are there to capture for a source that reads this? What only matters to a source that runs, such as its slot, is not looked at.
    /// Answered by [`UpstreamAnswer::Tables`].
    Describe(SourceKind),
    /// What has a registry of this name or id? Answered by [`UpstreamAnswer::Schema`].
    Schema(RegistryConnection, SchemaRequest),
}

/// An upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamAnswer {
    /// The connection works.
    Valid,
    /// The tables.
    Tables(Vec<UpstreamTable>),
    /// The schema; `None` if there is none.
    Schema(Option<Box<RegisteredSchema>>),
}

/// A table as its upstream describes it. What another upstream than PostgreSQL has no word for is as PostgreSQL would have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTable {
    /// Schema (for a generator: the generator's name).
    pub schema: String,
    /// Name.
    pub name: String,
    /// Identity, for its connector only: the relation's OID in PostgreSQL, 0 for a generator.
    pub oid: u32,
    /// `d`efault, `n`othing, `f`ull or `i`ndex.
    pub replica_identity: char,
    /// The columns, dropped ones left out.
    pub columns: Vec<UpstreamColumn>,
    /// Names of the columns of the primary key, or of the replica identity index if that is what is used; in key order.
    pub key: Vec<String>,
}

impl UpstreamTable {
    /// Whether updates and deletes come with the whole old row, so that no key is needed to find it.
    #[must_use]
    pub const fn sends_whole_rows(&self) -> bool {
        matches!(self.replica_identity, 'f')
    }
}

/// A column as its upstream describes it. Its type is told by PostgreSQL's OIDs and modifiers, which our types have as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamColumn {
    /// Name.
    pub name: String,
    /// Attribute number.
    pub attribute: i16,
    /// Type OID.
    pub type_oid: u32,
    /// Type name as `format_type` gives it.
    pub type_name: String,
    /// Type modifier.
    pub type_modifier: i32,
    /// NOT NULL or part of the primary key.
    pub not_null: bool,
}

/// A write: all of it happens at one epoch, or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageWrite {
    /// Names the write in [`RunEpoch`].
    pub write: RequestId,
    /// What it does, in order; each step is evaluated against the last complete epoch.
    pub operations: Vec<WriteOperation>,
}

/// A write that was evaluated and waits for its epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Rows affected by each operation.
    pub affected: Vec<u64>,
    /// Memory that its rows take until then.
    pub bytes: u64,
}

/// One step of a write. Columns of a query's result behind those that are written are given to whoever opened the result stream of the write's request
/// ([`crate::local::ResultStreams`]), before the write is said to be staged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WriteOperation {
    /// Inserts the result of a query whose columns are exactly the table's.
    Insert {
        /// The table.
        table: ObjectId,
        /// The rows.
        query: QueryPlan,
        /// Relations of the system catalog that the query reads.
        system: Vec<SystemRelation>,
    },
    /// Inserts rows given as an Arrow IPC stream of the table's schema.
    InsertRows {
        /// The table.
        table: ObjectId,
        /// [`crate::ipc::encode_batches`].
        rows: Vec<u8>,
    },
    /// Deletes each row of a query's result once. Its columns are exactly the table's.
    Delete {
        /// The table.
        table: ObjectId,
        /// The rows.
        query: QueryPlan,
        /// Relations of the system catalog that the query reads.
        system: Vec<SystemRelation>,
    },
    /// Replaces rows: the query's columns are the table's columns (the old row), then the table's columns again (the new row).
    Update {
        /// The table.
        table: ObjectId,
        /// The old and new rows.
        query: QueryPlan,
        /// Relations of the system catalog that the query reads.
        system: Vec<SystemRelation>,
    },
}

/// One epoch and what it contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEpoch {
    /// The epoch: larger than any before.
    pub epoch: Epoch,
    /// How far each source goes. Sources that are not named do not move.
    pub bindings: Vec<SourceBinding>,
    /// The staged writes that happen now, in order.
    pub writes: Vec<RequestId>,
    /// Whether this epoch was run before a crash: its writes are in the local log, its source changes are waited for.
    pub replay: bool,
}

/// How far one source goes in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceBinding {
    /// The source.
    pub source: ObjectId,
    /// Every transaction up to and including this position is in the epoch.
    pub position: SourcePosition,
    /// Tables whose snapshot becomes visible in this epoch.
    pub snapshots: Vec<ObjectId>,
}

/// A query to evaluate once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peek {
    /// Names the result stream.
    pub request: RequestId,
    /// The query. Scans name collections or entries of `system`.
    pub query: QueryPlan,
    /// Relations of the system catalog that the query reads.
    pub system: Vec<SystemRelation>,
    /// When to read.
    pub at: ReadAt,
}

/// The rows of one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    /// Names the result stream.
    pub request: RequestId,
    /// The index, or the collection with a key of its own.
    pub index: ObjectId,
    /// One row: a value for each column of the key, in the key's order and of its types, none of them NULL.
    pub key: WireBatch,
    /// Which columns of the indexed relation the result has, in order.
    pub projection: Vec<usize>,
    /// When to read.
    pub at: ReadAt,
}

/// The epoch a read sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadAt {
    /// The newest complete and durable epoch that is at least this one; waits for it.
    AtLeast(Epoch),
    /// Exactly this epoch; waits for it. The coordinator holds `since` at or below it.
    Exactly(Epoch),
}

/// A relation of the system catalog, sent along with the query that reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SystemRelation {
    /// How the query's scan names it.
    pub id: ObjectId,
    /// Its rows: [`crate::ipc::encode_batches`].
    pub rows: Vec<u8>,
}

/// A query whose changes are streamed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscribe {
    /// Names the result stream.
    pub request: RequestId,
    /// Where it runs.
    pub cluster: ClusterId,
    /// The query.
    pub plan: Plan,
    /// The epoch the stream starts from: its state as of then is the snapshot. Held readable by the coordinator. `None`: the newest epoch.
    pub as_of: Option<Epoch>,
    /// Whether the state as of `as_of` is sent first.
    pub snapshot: bool,
    /// Stop before this epoch.
    pub up_to: Option<Epoch>,
}

/// What flows to the client of one request, in order.
#[derive(Clone, Debug)]
pub enum ResultMessage {
    /// Rows of a peek. The first message of a peek is always one, possibly without rows.
    Rows(RecordBatch),
    /// The epoch a peek read, sent before its rows.
    ReadEpoch(Epoch),
    /// Consolidated changes of a subscription in one epoch. All changes of an epoch are in consecutive messages.
    Updates(DeltaBatch),
    /// A subscription is complete up to, not including, this epoch.
    Progress(Epoch),
    /// The end.
    Done,
    /// The end, in error.
    Failed(RequestError),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RequestError {
    /// A row could not be evaluated, or an error is in the data that was read.
    #[error("{0}")]
    Eval(EvalError),
    /// The epoch asked for is not readable any more.
    #[error("epoch {asked} is not readable any more; the earliest is {since}")]
    SinceAdvanced {
        /// What was asked for.
        asked: Epoch,
        /// What is left.
        since: Epoch,
    },
    /// What is computed anew at each change never was what it would have been at the epoch asked for: changes of several epochs were taken in at once.
    #[error(
        "what is computed anew at each change passed over epoch {asked}; it can be read from epoch {next} on"
    )]
    PassedOver {
        /// What was asked for.
        asked: Epoch,
        /// The next epoch that can be read.
        next: Epoch,
    },
    /// A cluster that a subscription depends on was paused.
    #[error("a cluster that the subscription depends on was paused")]
    Paused,
    /// NULL in a column that forbids it.
    #[error(
        "null value in column \"{column}\" of relation \"{relation}\" violates not-null constraint"
    )]
    NotNull {
        /// The column.
        column: String,
        /// The relation.
        relation: String,
    },
    /// The collection or dataflow is gone.
    #[error("object was dropped while the statement ran")]
    Dropped,
    /// The request was cancelled.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// The client read too slowly.
    #[error("client reads too slowly: {buffered_bytes} bytes are waiting for it")]
    SlowConsumer {
        /// What is waiting.
        buffered_bytes: u64,
    },
    /// The query needs more memory than queries may have.
    #[error("query needs more memory than it may have")]
    OutOfMemory {
        /// Which operator asked for how much.
        detail: String,
    },
    /// The file system refused; nothing was written.
    #[error("{message}")]
    Storage {
        /// Which file, and what the operating system says.
        message: String,
        /// Whether there is no room left.
        full: bool,
    },
    /// The upstream cannot be reached or refuses.
    #[error("{message}")]
    Upstream {
        /// What it says.
        message: String,
        /// PostgreSQL's SQLSTATE for the failure, if there is one.
        sqlstate: Option<String>,
        /// What more it says.
        detail: Option<String>,
        /// What the user can do.
        hint: Option<String>,
    },
    /// The query cannot be run by this version.
    #[error("{0}")]
    Unsupported(String),
    /// A bug of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What a worker tells the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// Answer to `Hello`. Nothing has been recovered yet.
    Ready {
        /// [`crate::PROTOCOL_VERSION`].
        version: u32,
        /// Epochs found in the local log above the commit point, in order: each must be run again.
        logged_epochs: Vec<Epoch>,
        /// The local log.
        local_log: LogId,
        /// The newest epoch that was ever acknowledged to be in it.
        newest_logged: Epoch,
        /// The newest commit point that it was cut for.
        cut_through: Epoch,
    },
    /// A source has buffered whole transactions up to `position`.
    SourceProgress {
        /// The source.
        source: ObjectId,
        /// What can be bound.
        position: SourcePosition,
        /// The newest position known to exist upstream.
        upstream: SourcePosition,
    },
    /// The snapshot of tables of a source is on disk. It can be bound together with any position that covers `position`.
    SourceSnapshot {
        /// The source.
        source: ObjectId,
        /// The tables.
        tables: Vec<ObjectId>,
        /// The position the snapshot was taken at.
        position: SourcePosition,
    },
    /// The state of a source or of one of its tables changed.
    SourceStatus {
        /// The source or the table.
        object: ObjectId,
        /// The state.
        status: SourceStatus,
    },
    /// Counters of one table of a source; sent every second while they move.
    SourceStatistics(SourceStatistics),
    /// The state of a sink changed.
    SinkStatus {
        /// The sink.
        sink: ObjectId,
        /// The state.
        status: SourceStatus,
    },
    /// Counters of a sink since the process started; sent every second while they move.
    SinkStatistics {
        /// The sink.
        sink: ObjectId,
        /// Messages that the broker has committed.
        messages: u64,
        /// Their bytes, keys and values.
        bytes: u64,
        /// The newest epoch all of whose changes are committed; `None` before the first.
        committed_epoch: Option<Epoch>,
    },
    /// A write was evaluated.
    WriteStaged {
        /// Its request.
        write: RequestId,
        /// What it will do, or why it cannot happen.
        result: Result<Staged, RequestError>,
    },
    /// The writes of an epoch could not be made durable: they did not happen. The epoch is run without them.
    WritesFailed {
        /// The epoch.
        epoch: Epoch,
        /// Why.
        error: RequestError,
    },
    /// Sources or source tables have failed for good, and their collections say so from this epoch on. Comes before the epoch is complete; it may not be
    /// observed before this is durable.
    Failed {
        /// The epoch.
        epoch: Epoch,
        /// What failed, and why.
        failures: Vec<(ObjectId, Failure)>,
    },
    /// A source cannot give what is bound, since its upstream is away; or has given it at last. Until then nothing of its tables and of what is computed from them
    /// can be read, and nothing may be committed. Comes before the first epoch without it is complete.
    SourceHeld {
        /// The source.
        source: ObjectId,
        /// Whether it is held up.
        held: bool,
        /// The first epoch that lacks something; or the one at which the last of it was given: nothing below may be committed from then on.
        epoch: Epoch,
    },
    /// A source gives what is bound piece by piece, since it is more than enters at once or comes late; or has given it. More that is bound to it meanwhile would
    /// come behind, and what would have a part of it is not committed: such a commit is put off.
    SourceBehind {
        /// The source.
        source: ObjectId,
        /// Whether it is behind.
        behind: bool,
    },
    /// Something that lacked what belongs to epochs which were run has all of it: whoever waits for that looks again ([`crate::local::DirectReads::lack`]).
    CameIn,
    /// What a dropped object left behind is gone.
    CleanedUp {
        /// The object.
        id: ObjectId,
    },
    /// An epoch was run and its writes, unless they failed, are durable in the local log.
    EpochComplete {
        /// The epoch.
        epoch: Epoch,
    },
    /// A commit was not begun: what belongs to its epoch, or to earlier ones, entered with later ones or has yet to, so that no commit of an epoch before `from`
    /// would have all of it and nothing else.
    CommitPutOff {
        /// The epoch of the commit.
        epoch: Epoch,
        /// The first epoch that can be committed.
        from: Epoch,
    },
    /// Everything in a cluster has caught up on the threads of the newest [`Command::SetCluster`].
    ClusterReady {
        /// The cluster.
        cluster: ClusterId,
        /// The newest change that it was told.
        change: u64,
    },
    /// A dataflow has caught up with its inputs.
    Hydrated {
        /// The dataflow.
        id: ObjectId,
    },
    /// A dataflow cannot go on: it is not maintained any more, and what reads it fails with the error until it is dropped or the worker starts anew.
    DataflowFailed {
        /// The dataflow.
        id: ObjectId,
        /// Why.
        error: EvalError,
    },
    /// Answer to `Commit`: the Delta tables hold everything up to `epoch`.
    Committed {
        /// The epoch.
        epoch: Epoch,
        /// The version of each Delta table that changed.
        versions: Vec<(ObjectId, i64)>,
    },
    /// Answer to [`Command::Prepare`].
    Prepared {
        /// The request.
        request: RequestId,
        /// Why the plan cannot be rendered, if that is so.
        result: Result<(), RequestError>,
    },
    /// An upstream answered.
    UpstreamAnswer {
        /// The request.
        request: RequestId,
        /// The answer.
        answer: Result<UpstreamAnswer, RequestError>,
    },
    /// What a collection or index holds in memory; sent every second while it moves.
    CollectionStatistics {
        /// The collection or dataflow.
        id: ObjectId,
        /// What it holds.
        statistics: CollectionStatistics,
    },
    /// Answer to `Shutdown`.
    Stopped,
    /// An invariant is broken; the worker has stopped. The process must exit.
    Fatal {
        /// What happened.
        message: String,
    },
}

/// The state of a source, source table or sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceStatus {
    /// Connecting or reading the snapshot.
    Starting,
    /// Streaming.
    Running,
    /// Cannot go on for now; retrying.
    Stalled {
        /// Why.
        error: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// Cannot go on ever; must be dropped.
    Failed {
        /// Why.
        error: String,
        /// What the user can do.
        hint: Option<String>,
    },
    /// Streaming, and there is something that the user should know.
    Warned {
        /// What.
        hint: String,
    },
}

/// Counters of one source table since the process started, except where said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatistics {
    /// The table, or the source itself.
    pub object: Option<ObjectId>,
    /// Changes received.
    pub messages_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Changes handed to the engine.
    pub updates_staged: u64,
    /// Changes that are in a complete epoch.
    pub updates_committed: u64,
    /// Rows in the snapshot, as upstream estimates.
    pub snapshot_records_known: Option<u64>,
    /// Rows of the snapshot read so far.
    pub snapshot_records_staged: Option<u64>,
    /// Newest position known upstream.
    pub offset_known: Option<SourcePosition>,
    /// Newest position in a complete epoch.
    pub offset_committed: Option<SourcePosition>,
}

/// What a collection or index holds in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionStatistics {
    /// Rows, counting multiplicities.
    pub rows: u64,
    /// Bytes of memory: of its rows, its index and of what its operators keep. What several objects share is counted for one of them.
    pub bytes: u64,
    /// The same by what holds them: `rows`, `index`, `arrangement`, or an operator.
    pub held: BTreeMap<String, u64>,
    /// Errors in the data, counting multiplicities: while there is one, reads fail.
    pub errors: u64,
    /// The text of the first of them, in an order that does not depend on the number of shards; shortened if it is long.
    pub error: Option<String>,
}

impl CollectionStatistics {
    /// Adds what another shard holds of the same collection.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            bytes: self.bytes.saturating_add(other.bytes),
            held: other
                .held
                .into_iter()
                .fold(self.held, |mut held, (by, bytes)| {
                    let sum = held.entry(by).or_insert(0);
                    *sum = sum.saturating_add(bytes);
                    held
                }),
            errors: self.errors.saturating_add(other.errors),
            error: match (self.error, other.error) {
                (Some(left), Some(right)) => Some(left.min(right)),
                (left, right) => left.or(right),
            },
        }
    }
}
