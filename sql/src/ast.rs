//! The statements of the SQL surface, as values.
//!
//! Owns the syntax tree of every statement that is ours; queries, expressions and the three row-changing statements are `sqlparser`'s own trees inside it.
//! Must not know the catalog: names are as written, unresolved. Made by [`crate::parse`], read by planning and by the coordinator.
//! What is said of one kind of source or connection only is in [`crate::connector`], and what every statement is made of in `crate::ident`; both are named here as well.
//!
//! Invariants. Identifiers in our own nodes are folded already (unquoted ones to lower case); inside `sqlparser` trees they are not.
//! The value of a secret never appears in `Debug` output.

mod cluster;
mod role;

use std::fmt;
use std::time::Duration;

use flowstone_types::SqlType;
use sqlparser::ast::{DataType, Expr, Query, SetExpr};

pub use cluster::{
    AlterCluster, AlterClusterAction, ClusterOptionName, ClusterOptions, ClusterWait, Count,
    CreateCluster, CreateClusterReplica, DropClusterReplicas, OnTimeout, ReplicaDefinition,
};
pub use role::{
    AlterRole, AlterRoleAction, CreateRole, DropRoles, Password, PasswordOption, RoleName,
    RoleOptions, ValidUntil,
};

pub use crate::connector::{
    ConnectionKind, ConnectionOption, ConnectionOptionName, ConnectionReference, CreateSinkKind,
    CreateSourceKind, DeclaredColumn, DeclaredColumns, DocClause, EnvelopeClause, FormatClause,
    FormatSyntax, GeneratorKind, IncludeClause, IncludeKind, Messages, NewTopic, NewTopicSink,
    OnDecodeErrorClause, SchemaPart, SchemaSource, Strategy,
};
use crate::error::Error;
pub(crate) use crate::ident::reserved_words;
pub use crate::ident::{Address, Ident, Name, OptionValue, quote_ident, quote_literal};

/// One statement of a query string.
#[derive(Clone, PartialEq)]
pub struct Statement {
    /// What it asks for.
    pub kind: StatementKind,
    /// Its source text, without the terminating semicolon. May hold a secret: log [`Statement::redacted_text`].
    pub text: String,
    /// Where its text starts in the whole query string: characters, from 0.
    pub offset: usize,
}

impl Statement {
    /// The source text, or a stand-in if it holds a secret's value.
    #[must_use]
    pub fn redacted_text(&self) -> &str {
        if self.kind.holds_secret() {
            "<redacted>"
        } else {
            &self.text
        }
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("kind", &self.kind)
            .field("text", &self.redacted_text())
            .field("offset", &self.offset)
            .finish()
    }
}

/// What a statement asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum StatementKind {
    /// `SELECT`, `VALUES`, `TABLE t`, `WITH …`
    Query(QueryStatement),
    /// `INSERT`
    Insert(Box<sqlparser::ast::Insert>),
    /// `UPDATE`
    Update(Box<sqlparser::ast::Update>),
    /// `DELETE`
    Delete(Box<sqlparser::ast::Delete>),
    /// `WITH … INSERT`, `WITH … UPDATE`, `WITH … DELETE`: the body of the query is the statement.
    WithWrite(Box<Query>),
    /// `COPY … FROM STDIN`, `COPY … TO STDOUT`
    Copy(CopyStatement),
    /// `SUBSCRIBE`, `TAIL`
    Subscribe(Box<SubscribeStatement>),
    /// `EXPLAIN`
    Explain(ExplainStatement),
    /// `SHOW <objects>`, `SHOW COLUMNS`, `SHOW CREATE …`
    Show(ShowStatement),

    /// `CREATE DATABASE`
    CreateDatabase(CreateDatabase),
    /// `CREATE SCHEMA`
    CreateSchema(CreateSchema),
    /// `CREATE TABLE t (…)`
    CreateTable(CreateTable),
    /// `CREATE TABLE t FROM SOURCE s (REFERENCE …)`
    CreateTableFromSource(CreateTableFromSource),
    /// `CREATE VIEW`
    CreateView(CreateView),
    /// `CREATE MATERIALIZED VIEW`
    CreateMaterializedView(CreateMaterializedView),
    /// `CREATE [DEFAULT] INDEX`
    CreateIndex(CreateIndex),
    /// `CREATE SECRET`
    CreateSecret(CreateSecret),
    /// `CREATE CONNECTION`
    CreateConnection(CreateConnection),
    /// `CREATE SOURCE`
    CreateSource(CreateSource),
    /// `CREATE SINK`
    CreateSink(CreateSink),
    /// `CREATE CLUSTER`
    CreateCluster(CreateCluster),
    /// `CREATE CLUSTER REPLICA`
    CreateClusterReplica(CreateClusterReplica),

    /// `ALTER SECRET … AS …`
    AlterSecret(AlterSecret),
    /// `ALTER CONNECTION … SET/DROP/RESET (…)`
    AlterConnection(AlterConnection),
    /// `ALTER SOURCE … ADD SUBSOURCE …`
    AlterSourceAddSubsource(AlterSourceAddSubsource),
    /// `ALTER SOURCE … DROP SUBSOURCE …`
    AlterSourceDropSubsource(AlterSourceDropSubsource),
    /// `ALTER SINK … SET FROM …`
    AlterSink(AlterSink),
    /// `ALTER <type> … RENAME TO …`
    AlterRename(AlterRename),
    /// `ALTER SCHEMA … SWAP WITH …`
    AlterSchemaSwap(AlterSchemaSwap),
    /// `ALTER CLUSTER … SET`, `RESET`, `SWAP WITH`
    AlterCluster(AlterCluster),
    /// `DROP <type> …`
    Drop(DropStatement),
    /// `DROP CLUSTER REPLICA`
    DropClusterReplicas(DropClusterReplicas),
    /// `CREATE ROLE`, `CREATE USER`
    CreateRole(CreateRole),
    /// `ALTER ROLE`, `ALTER USER`
    AlterRole(AlterRole),
    /// `DROP ROLE`, `DROP USER`
    DropRoles(DropRoles),
    /// `COMMENT ON …`
    CommentOn(CommentOn),
    /// `VALIDATE CONNECTION`
    ValidateConnection(ValidateConnection),

    /// `SET v = …`
    SetVariable(SetVariable),
    /// `RESET v`, `RESET ALL`
    ResetVariable(ResetVariable),
    /// `SHOW v`, `SHOW ALL`
    ShowVariable(ShowVariable),
    /// `SET TRANSACTION …`, `SET SESSION CHARACTERISTICS AS TRANSACTION …`
    SetTransaction(SetTransaction),
    /// `BEGIN`, `START TRANSACTION`
    Begin {
        /// Modes in the order written.
        modes: Vec<TransactionMode>,
    },
    /// `COMMIT`, `END`
    Commit,
    /// `ROLLBACK`, `ABORT`
    Rollback,
    /// `SAVEPOINT`
    Savepoint(Ident),
    /// `RELEASE [SAVEPOINT]`
    ReleaseSavepoint(Ident),
    /// `ROLLBACK TO [SAVEPOINT]`
    RollbackTo(Ident),
    /// `PREPARE`
    Prepare(Prepare),
    /// `EXECUTE`
    Execute(Execute),
    /// `DEALLOCATE`; `None` is ALL
    Deallocate(Option<Ident>),
    /// `DECLARE … CURSOR FOR …`
    Declare(Declare),
    /// `FETCH`
    Fetch(Fetch),
    /// `CLOSE`; `None` is ALL
    Close(Option<Ident>),
    /// `UNLISTEN`: of channels, to which nobody can listen
    Unlisten,
    /// `DISCARD`
    Discard(DiscardTarget),

    /// A statement we know and do not do (yet). It is an error of its own only, not of the statements before it in the same string.
    Unsupported(Box<Error>),
}

impl StatementKind {
    /// The word for a statement that changes rows of a table.
    #[must_use]
    pub fn write_verb(&self) -> Option<&'static str> {
        match self {
            Self::Insert(_) => Some("INSERT"),
            Self::Update(_) => Some("UPDATE"),
            Self::Delete(_) => Some("DELETE"),
            Self::WithWrite(query) => match &*query.body {
                SetExpr::Insert(_) => Some("INSERT"),
                SetExpr::Update(_) => Some("UPDATE"),
                SetExpr::Delete(_) => Some("DELETE"),
                _ => None,
            },
            Self::Copy(copy) if copy.direction == CopyDirection::FromStdin => Some("COPY FROM"),
            _ => None,
        }
    }

    /// Whether the statement's text may hold the value of a secret or a password.
    #[must_use]
    pub fn holds_secret(&self) -> bool {
        match self {
            Self::CreateSecret(_)
            | Self::AlterSecret(_)
            | Self::CreateRole(_)
            | Self::AlterRole(_) => true,
            // It was not read to its end: it may hold anything.
            Self::Unsupported(_) => true,
            Self::Prepare(prepare) => prepare.statement.kind.holds_secret(),
            _ => false,
        }
    }
}

/// A query, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryStatement {
    /// The query.
    pub query: Box<Query>,
    /// `AS OF [AT LEAST] t`
    pub as_of: Option<AsOf>,
}

/// `AS OF [AT LEAST] t`
#[derive(Clone, Debug, PartialEq)]
pub struct AsOf {
    /// Whether any epoch from `at` on will do.
    pub at_least: bool,
    /// The epoch: a number, a text, a timestamp or a call of `now()`.
    pub at: Box<Expr>,
}

/// `COPY`
#[derive(Clone, Debug, PartialEq)]
pub struct CopyStatement {
    /// What is read or written.
    pub relation: CopyRelation,
    /// Which way.
    pub direction: CopyDirection,
    /// How rows are written.
    pub format: CopyFormat,
    /// `DELIMITER`
    pub delimiter: Option<char>,
    /// `NULL`
    pub null: Option<String>,
    /// `HEADER`
    pub header: bool,
    /// `QUOTE`
    pub quote: Option<char>,
    /// `ESCAPE`
    pub escape: Option<char>,
}

/// What a `COPY` reads or writes.
#[derive(Clone, Debug, PartialEq)]
pub enum CopyRelation {
    /// A relation, and some of its columns; all of them if `columns` is empty.
    Table {
        /// Which.
        name: Name,
        /// Which columns.
        columns: Vec<Ident>,
    },
    /// The result of a query.
    Query(QueryStatement),
    /// The output of a subscription.
    Subscribe(Box<SubscribeStatement>),
}

/// Which way a `COPY` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    /// `FROM STDIN`
    FromStdin,
    /// `TO STDOUT`
    ToStdout,
}

/// How `COPY` writes rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyFormat {
    /// `text`
    #[default]
    Text,
    /// `csv`
    Csv,
    /// `binary`
    Binary,
}

/// `SUBSCRIBE`
#[derive(Clone, Debug, PartialEq)]
pub struct SubscribeStatement {
    /// What is watched.
    pub relation: SubscribeRelation,
    /// Whether the state at the start is sent. On unless `WITH (SNAPSHOT = FALSE)`.
    pub snapshot: bool,
    /// Whether progress rows are sent.
    pub progress: bool,
    /// `AS OF`
    pub as_of: Option<AsOf>,
    /// `UP TO`
    pub up_to: Option<Box<Expr>>,
}

/// What a subscription watches.
#[derive(Clone, Debug, PartialEq)]
pub enum SubscribeRelation {
    /// A named relation.
    Name(Name),
    /// A query.
    Query(Box<Query>),
}

/// `EXPLAIN`
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainStatement {
    /// What is shown.
    pub kind: ExplainKind,
    /// Of what.
    pub target: ExplainTarget,
}

/// What `EXPLAIN` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainKind {
    /// `EXPLAIN …`: the incremental plan for what is maintained, the query plan for what is read once.
    Default,
    /// `EXPLAIN INCREMENTAL …`: the operators that would maintain it.
    Incremental,
    /// `EXPLAIN [RAW | OPTIMIZED | PHYSICAL …] PLAN [FOR] …`: the query plan.
    Plan,
    /// `EXPLAIN TIMESTAMP FOR …`: the epoch a read would see.
    Timestamp,
}

/// What is explained.
#[derive(Clone, Debug, PartialEq)]
pub enum ExplainTarget {
    /// A statement: a query, a subscription, or the CREATE of a view, materialized view or index.
    Statement(Box<Statement>),
    /// A view that exists.
    View(Name),
    /// A materialized view that exists.
    MaterializedView(Name),
    /// An index that exists.
    Index(Name),
}

/// `SHOW` of catalog objects.
#[derive(Clone, Debug, PartialEq)]
pub enum ShowStatement {
    /// `SHOW [FULL] <objects> [FROM …] [LIKE … | WHERE …]`
    Objects {
        /// Which kind.
        kind: ShowKind,
        /// `FROM schema` (or `FROM database` for schemas).
        from: Option<Name>,
        /// `ON relation` or `IN CLUSTER c`, whichever the kind has.
        of: Option<ShowOf>,
        /// Which of them.
        filter: Option<ShowFilter>,
    },
    /// `SHOW COLUMNS FROM relation`
    Columns {
        /// The relation.
        relation: Name,
        /// Which of them.
        filter: Option<ShowFilter>,
    },
    /// `SHOW [REDACTED] CREATE <type> name`
    Create {
        /// The kind that was named.
        object_type: ObjectType,
        /// The object.
        name: Name,
    },
}

/// What a `SHOW` can be narrowed to, besides a schema.
#[derive(Clone, Debug, PartialEq)]
pub enum ShowOf {
    /// `SHOW INDEXES ON relation`, `SHOW SUBSOURCES ON source`
    Relation(Name),
    /// `IN CLUSTER c`
    Cluster(Ident),
}

/// The kinds of objects that `SHOW` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShowKind {
    /// `SHOW DATABASES`
    Databases,
    /// `SHOW SCHEMAS`
    Schemas,
    /// `SHOW OBJECTS`
    Objects,
    /// `SHOW TABLES`
    Tables,
    /// `SHOW VIEWS`
    Views,
    /// `SHOW MATERIALIZED VIEWS`
    MaterializedViews,
    /// `SHOW INDEXES`
    Indexes,
    /// `SHOW SOURCES`
    Sources,
    /// `SHOW SUBSOURCES`
    Subsources,
    /// `SHOW SINKS`
    Sinks,
    /// `SHOW SECRETS`
    Secrets,
    /// `SHOW CONNECTIONS`
    Connections,
    /// `SHOW CLUSTERS`
    Clusters,
    /// `SHOW CLUSTER REPLICAS`
    ClusterReplicas,
    /// `SHOW ROLES`
    Roles,
    /// `SHOW TYPES`
    Types,
}

/// Which rows of a `SHOW` are wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum ShowFilter {
    /// `LIKE 'pattern'` over the first column
    Like(String),
    /// `WHERE expr` over the columns shown
    Where(Box<Expr>),
}

/// `CREATE DATABASE`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateDatabase {
    /// Its name.
    pub name: Ident,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
}

/// `CREATE SCHEMA`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSchema {
    /// `schema` or `database.schema`
    pub name: Name,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
}

/// `CREATE TABLE t (…)`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    /// Its name.
    pub name: Name,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// `TEMPORARY`
    pub temporary: bool,
    /// Its columns.
    pub columns: Vec<ColumnDefinition>,
    /// Constraints over the table, and those of columns that are written as one (`PRIMARY KEY`, `UNIQUE`).
    pub constraints: Vec<TableConstraint>,
}

/// A column of `CREATE TABLE`.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDefinition {
    /// Its name.
    pub name: Ident,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether NULL is forbidden.
    pub not_null: bool,
    /// `DEFAULT`
    pub default: Option<Box<Expr>>,
}

/// A constraint of `CREATE TABLE` other than NOT NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConstraint {
    /// Which.
    pub kind: TableConstraintKind,
    /// The columns it names.
    pub columns: Vec<Ident>,
    /// Where it is written: characters, from 1.
    pub position: usize,
}

/// Kinds of table constraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableConstraintKind {
    /// `PRIMARY KEY`
    PrimaryKey,
    /// `UNIQUE`
    Unique,
    /// `FOREIGN KEY`, `REFERENCES`
    ForeignKey,
    /// `CHECK`
    Check,
}

impl TableConstraintKind {
    /// The words that introduce it.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::PrimaryKey => "PRIMARY KEY",
            Self::Unique => "UNIQUE",
            Self::ForeignKey => "FOREIGN KEY",
            Self::Check => "CHECK",
        }
    }
}

/// `CREATE TABLE t FROM SOURCE s (REFERENCE upstream)`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateTableFromSource {
    /// Its name.
    pub name: Name,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// The source.
    pub source: Name,
    /// The table upstream; `None` for a source with just one.
    pub reference: Option<Name>,
    /// What it makes of the messages of the source, if it reads some.
    pub messages: Option<Box<Messages>>,
    /// `TEXT COLUMNS (c, …)`
    pub text_columns: Vec<Name>,
    /// `EXCLUDE COLUMNS (c, …)`
    pub exclude_columns: Vec<Name>,
}

/// `CREATE VIEW`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateView {
    /// Its name.
    pub name: Name,
    /// `OR REPLACE`
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// `TEMPORARY`
    pub temporary: bool,
    /// Names for its columns; those of the query if empty.
    pub columns: Vec<Ident>,
    /// The query.
    pub query: Box<Query>,
}

/// `CREATE MATERIALIZED VIEW`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateMaterializedView {
    /// Its name.
    pub name: Name,
    /// `OR REPLACE`
    pub or_replace: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// `IN CLUSTER`
    pub in_cluster: Option<Ident>,
    /// Names for its columns; those of the query if empty.
    pub columns: Vec<Ident>,
    /// `WITH (ASSERT NOT NULL c, …)`: columns.
    pub assert_not_null: Vec<Ident>,
    /// Other options of `WITH`.
    pub options: Vec<WithOption>,
    /// The query.
    pub query: Box<Query>,
}

/// `CREATE [DEFAULT] INDEX`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateIndex {
    /// Its name; made up from the relation and the keys if `None`.
    pub name: Option<Ident>,
    /// `DEFAULT`
    pub default: bool,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// `IN CLUSTER`
    pub in_cluster: Option<Ident>,
    /// The relation.
    pub on: Name,
    /// The key; `None` for a default index.
    pub keys: Option<Vec<Expr>>,
    /// `WITH (…)`
    pub options: Vec<WithOption>,
}

/// `CREATE SECRET`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSecret {
    /// Its name.
    pub name: Name,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// Its value.
    pub value: SecretValue,
}

/// The bytes of a secret. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(pub Vec<u8>);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(<redacted>)")
    }
}

/// `ALTER SECRET … AS …`
#[derive(Clone, Debug, PartialEq)]
pub struct AlterSecret {
    /// The secret.
    pub name: Name,
    /// `IF EXISTS`
    pub if_exists: bool,
    /// Its new value.
    pub value: SecretValue,
}

/// `CREATE CONNECTION`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateConnection {
    /// Its name.
    pub name: Name,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// What it connects to.
    pub kind: ConnectionKind,
    /// Its options, in the order written, no name twice.
    pub options: Vec<ConnectionOption>,
    /// `WITH (VALIDATE = …)`; `None` if not said, which means yes.
    pub validate: Option<bool>,
}

/// One option of a `WITH (…)` list that is not an own node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithOption {
    /// Its name: upper-case words with single blanks, `RETAIN HISTORY`.
    pub name: String,
    /// Its value.
    pub value: OptionValue,
    /// Where its name is written: characters, from 1.
    pub position: usize,
}

/// `CREATE SOURCE`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSource {
    /// Its name.
    pub name: Name,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// `IN CLUSTER`
    pub in_cluster: Option<Ident>,
    /// What it reads.
    pub kind: CreateSourceKind,
    /// Which of what it reads become tables at once.
    pub tables: SourceTables,
    /// `EXPOSE PROGRESS AS`
    pub expose_progress_as: Option<Name>,
    /// `WITH (…)`
    pub options: Vec<WithOption>,
}

/// `CREATE SINK`
#[derive(Clone, Debug, PartialEq)]
pub struct CreateSink {
    /// Its name.
    pub name: Name,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// `IN CLUSTER`
    pub in_cluster: Option<Ident>,
    /// The relation that is written.
    pub from: Name,
    /// Where and how.
    pub kind: CreateSinkKind,
    /// Whether what was there at the beginning is written. On unless `WITH (SNAPSHOT = FALSE)`.
    pub snapshot: bool,
}

/// `ALTER SINK … SET FROM …`
#[derive(Clone, Debug, PartialEq)]
pub struct AlterSink {
    /// The sink.
    pub name: Name,
    /// `IF EXISTS`
    pub if_exists: bool,
    /// The relation that is written from now on.
    pub from: Name,
}

/// Which upstream tables of a new source become tables at once.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceTables {
    /// Nothing said: none; `CREATE TABLE … FROM SOURCE` adds them.
    None,
    /// `FOR ALL TABLES`
    All,
    /// `FOR SCHEMAS (s, …)`
    Schemas(Vec<Ident>),
    /// `FOR TABLES (t [AS a], …)`
    Tables(Vec<SubsourceReference>),
}

/// One upstream table and what it is to be called.
#[derive(Clone, Debug, PartialEq)]
pub struct SubsourceReference {
    /// The table upstream: `table`, `schema.table` or `database.schema.table`.
    pub reference: Name,
    /// `AS name`
    pub alias: Option<Name>,
}

/// `ALTER SOURCE … ADD SUBSOURCE …`
#[derive(Clone, Debug, PartialEq)]
pub struct AlterSourceAddSubsource {
    /// The source.
    pub source: Name,
    /// `IF EXISTS` of the source.
    pub if_exists: bool,
    /// What is added.
    pub tables: Vec<SubsourceReference>,
    /// `TEXT COLUMNS (table.column, …)`
    pub text_columns: Vec<Name>,
    /// `EXCLUDE COLUMNS (table.column, …)`
    pub exclude_columns: Vec<Name>,
}

/// `ALTER SOURCE … DROP SUBSOURCE …`
#[derive(Clone, Debug, PartialEq)]
pub struct AlterSourceDropSubsource {
    /// The source.
    pub source: Name,
    /// `IF EXISTS` of the source.
    pub if_exists: bool,
    /// `IF EXISTS` of the tables.
    pub subsource_if_exists: bool,
    /// The tables.
    pub tables: Vec<Name>,
    /// `CASCADE`
    pub cascade: bool,
}

/// The kinds of objects that statements name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectType {
    /// `DATABASE`
    Database,
    /// `SCHEMA`
    Schema,
    /// `TABLE`
    Table,
    /// `VIEW`
    View,
    /// `MATERIALIZED VIEW`
    MaterializedView,
    /// `INDEX`
    Index,
    /// `SOURCE`
    Source,
    /// `SUBSOURCE`
    Subsource,
    /// `SECRET`
    Secret,
    /// `CONNECTION`
    Connection,
    /// `SINK`
    Sink,
    /// `CLUSTER`
    Cluster,
    /// `ROLE`
    Role,
}

impl ObjectType {
    /// The words of the statement: `MATERIALIZED VIEW`.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Database => "DATABASE",
            Self::Schema => "SCHEMA",
            Self::Table => "TABLE",
            Self::View => "VIEW",
            Self::MaterializedView => "MATERIALIZED VIEW",
            Self::Index => "INDEX",
            Self::Source => "SOURCE",
            Self::Subsource => "SUBSOURCE",
            Self::Secret => "SECRET",
            Self::Connection => "CONNECTION",
            Self::Sink => "SINK",
            Self::Cluster => "CLUSTER",
            Self::Role => "ROLE",
        }
    }

    /// The words of messages: `materialized view`.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Table => "table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::Index => "index",
            Self::Source => "source",
            Self::Subsource => "subsource",
            Self::Secret => "secret",
            Self::Connection => "connection",
            Self::Sink => "sink",
            Self::Cluster => "cluster",
            Self::Role => "role",
        }
    }
}

/// `ALTER <type> … RENAME TO …`
#[derive(Clone, Debug, PartialEq)]
pub struct AlterRename {
    /// The kind that was named.
    pub object_type: ObjectType,
    /// `IF EXISTS`
    pub if_exists: bool,
    /// The object.
    pub name: Name,
    /// Its new name.
    pub new_name: Ident,
}

/// `ALTER SCHEMA a SWAP WITH b`
#[derive(Clone, Debug, PartialEq)]
pub struct AlterSchemaSwap {
    /// One schema.
    pub name: Name,
    /// The other, in the same database.
    pub other: Ident,
}

/// `ALTER CONNECTION … SET/DROP/RESET (…)`
#[derive(Clone, Debug, PartialEq)]
pub struct AlterConnection {
    /// The connection.
    pub name: Name,
    /// `IF EXISTS`
    pub if_exists: bool,
    /// What changes, in order.
    pub actions: Vec<AlterConnectionAction>,
    /// `WITH (VALIDATE = …)`; `None` if not said, which means yes.
    pub validate: Option<bool>,
}

/// One change of a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum AlterConnectionAction {
    /// `SET (option = value)`
    Set(ConnectionOption),
    /// `DROP (option)`, `RESET (option)`
    Unset {
        /// Which option.
        name: ConnectionOptionName,
        /// Where it is written: characters, from 1.
        position: usize,
    },
}

/// `DROP <type> [IF EXISTS] name, … [CASCADE | RESTRICT]`
#[derive(Clone, Debug, PartialEq)]
pub struct DropStatement {
    /// The kind that was named.
    pub object_type: ObjectType,
    /// `IF EXISTS`
    pub if_exists: bool,
    /// The objects.
    pub names: Vec<Name>,
    /// `CASCADE`; for a database and for indexes this is what happens unless `RESTRICT` is said.
    pub cascade: bool,
    /// `RESTRICT`, said in so many words.
    pub restrict: bool,
}

/// `COMMENT ON`
#[derive(Clone, Debug, PartialEq)]
pub struct CommentOn {
    /// What the comment is about.
    pub target: CommentTarget,
    /// The comment; `None` removes it.
    pub comment: Option<String>,
}

/// What a comment is about.
#[derive(Clone, Debug, PartialEq)]
pub enum CommentTarget {
    /// An object.
    Object {
        /// The kind that was named.
        object_type: ObjectType,
        /// The object.
        name: Name,
    },
    /// A column.
    Column {
        /// Its relation.
        relation: Name,
        /// Its name.
        column: Ident,
    },
}

/// `VALIDATE CONNECTION`
#[derive(Clone, Debug, PartialEq)]
pub struct ValidateConnection {
    /// The connection.
    pub name: Name,
}

/// `SET [SESSION | LOCAL] v {= | TO} …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetVariable {
    /// Whether the value goes at the end of the transaction.
    pub local: bool,
    /// The variable, in lower case.
    pub name: String,
    /// Its value.
    pub value: SetValue,
}

/// The value of a `SET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetValue {
    /// `DEFAULT`
    Default,
    /// One or several values (`search_path`); strings without their quotes, words folded to lower case, numbers as written.
    Values(Vec<String>),
}

/// `RESET`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetVariable {
    /// `RESET ALL`
    All,
    /// `RESET v`
    Named(String),
}

/// `SHOW` of a session variable
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShowVariable {
    /// `SHOW ALL`
    All,
    /// `SHOW v`, in lower case
    Named(String),
}

/// `SET TRANSACTION`, `SET SESSION CHARACTERISTICS AS TRANSACTION`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetTransaction {
    /// Whether it is for all transactions of the session to come, and not for the running one.
    pub session: bool,
    /// The modes in the order written.
    pub modes: Vec<TransactionMode>,
}

/// A mode of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionMode {
    /// `ISOLATION LEVEL …`
    Isolation(IsolationLevel),
    /// `READ ONLY`
    ReadOnly,
    /// `READ WRITE`
    ReadWrite,
    /// `[NOT] DEFERRABLE`
    Deferrable(bool),
}

/// An isolation level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IsolationLevel {
    /// `READ UNCOMMITTED`
    ReadUncommitted,
    /// `READ COMMITTED`
    ReadCommitted,
    /// `REPEATABLE READ`
    RepeatableRead,
    /// `SERIALIZABLE`
    Serializable,
    /// `STRONG SESSION SERIALIZABLE`
    StrongSessionSerializable,
    /// `STRICT SERIALIZABLE`
    StrictSerializable,
}

/// `PREPARE`
#[derive(Clone, Debug, PartialEq)]
pub struct Prepare {
    /// Its name.
    pub name: Ident,
    /// Types of the first parameters.
    pub types: Vec<DataType>,
    /// What it does.
    pub statement: Box<Statement>,
}

/// `EXECUTE`
#[derive(Clone, Debug, PartialEq)]
pub struct Execute {
    /// The prepared statement.
    pub name: Ident,
    /// Its parameters.
    pub parameters: Vec<Expr>,
}

/// `DECLARE … CURSOR FOR …`
#[derive(Clone, Debug, PartialEq)]
pub struct Declare {
    /// The cursor.
    pub name: Ident,
    /// A query or a subscription.
    pub statement: Box<Statement>,
}

/// `FETCH`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The cursor.
    pub name: Ident,
    /// How many rows; `None` is ALL.
    pub count: Option<u64>,
    /// `WITH (timeout = …)`: how long to wait for rows; `None` if not said.
    pub timeout: Option<Duration>,
}

/// What `DISCARD` throws away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiscardTarget {
    /// `ALL`
    All,
    /// `PLANS`
    Plans,
    /// `SEQUENCES`
    Sequences,
    /// `TEMP`, `TEMPORARY`
    Temporary,
}
