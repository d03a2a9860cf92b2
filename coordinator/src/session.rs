//! Sessions: what one client may ask, statement by statement.
//!
//! Owns the public [`Session`] and the routing of a statement to what executes it. Must not know client protocols. Called by `pgwire` and `console`.
//!
//! Invariants. A session runs one statement at a time. Dropping it ends what it runs, discards what it has staged, and releases its holds and locks; what was
//! handed to an epoch or to the catalog goes through all the same.

mod cluster;
mod cursor;
mod ddl;
mod describe;
mod explain;
mod read;
mod returning;
mod savepoint;
mod settings;
mod stream;
mod subscribe;
mod system;
mod transaction;
mod waits;
mod write;

pub(crate) use ddl::change_roles;
pub(crate) use system::runtime_state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::ArrayRef;
use flowstone_sql::ast::{Statement, StatementKind};
use flowstone_sql::error::ErrorKind;
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Error, TransactionError};
use crate::limits::Limits;
use crate::memory::{Held, SessionMemory};
use crate::notices::{Notice, Notices};
use crate::outcome::{Description, Outcome, TransactionStatus};
use crate::parts::Parts;
use crate::planning::{self, Planner};
use crate::variables::{Settings, Variables};
use cursor::{Cursor, Prepared};
use savepoint::Savepoints;
use transaction::{Class, Mode, Transaction};

/// Parameter types that `describe` found are remembered for this many statements.
const DESCRIBED_MAX: usize = 256;

/// A longer text is parsed on a blocking thread: this much takes well under a millisecond.
const PARSED_AT_ONCE_BYTES: usize = 4096;

/// About how many bytes a statement takes once it is parsed: its text, and a tree with a node for each item of a list. An estimate, on the safe side for what
/// long statements are made of: literals.
#[must_use]
pub fn statement_bytes(text: &str) -> usize {
    /// Text, tree's copies of names and literals, and the text kept for positions.
    const COPIES: usize = 3;
    /// An expression of the tree.
    const NODE_BYTES: usize = 256;
    let items = text
        .bytes()
        .filter(|byte| matches!(byte, b',' | b'('))
        .count();
    text.len()
        .saturating_mul(COPIES)
        .saturating_add(items.saturating_mul(NODE_BYTES))
}

/// Who opens a session, and what it starts with.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// The user.
    pub user: String,
    /// The database; the default one if `None`.
    pub database: Option<String>,
    /// Session variables from the startup message.
    pub parameters: Vec<(String, String)>,
}

/// One client's session. Dropping it closes it.
#[derive(Debug)]
pub struct Session {
    parts: Arc<Parts>,
    process_id: i32,
    secret: i32,
    user: String,
    memory: SessionMemory,
    variables: Variables,
    /// The settings of which the client knows the reported ones.
    told: Arc<Settings>,
    transaction: Transaction,
    savepoints: Savepoints,
    /// What `now()` is in the transaction: milliseconds since the Unix epoch.
    now_ms: u64,
    prepared: BTreeMap<String, Prepared>,
    cursors: BTreeMap<String, Cursor>,
    notices: Vec<Notice>,
    limits: Limits,
    /// The last parsed query string, to which positions in its statements refer, and what it takes while they are worked on.
    text: Mutex<(Arc<str>, Held)>,
    /// Parameter types of described statements, by their text.
    described: BTreeMap<String, Described>,
    /// Statements that are lookups, by their text.
    lookups: BTreeMap<String, Arc<read::KnownLookup>>,
}

/// What a statement's parameters are.
#[derive(Debug)]
struct Described {
    types: Vec<SqlType>,
    _held: Held,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.parts.sessions.remove(self.process_id);
    }
}

impl Session {
    pub(crate) fn open(parts: Arc<Parts>, options: SessionOptions) -> Result<Self, Error> {
        if parts.liveness.reason().is_some() {
            return Err(parts.liveness.gone());
        }
        let mut variables = Variables::default();
        variables.force("session_authorization", &options.user);
        if let Some(database) = &options.database {
            if !parts
                .catalog
                .now()
                .databases
                .values()
                .any(|known| &known.name == database)
            {
                let message = format!("database \"{database}\" does not exist");
                return Err(flowstone_sql::Error::new(ErrorKind::UnknownDatabase, message).into());
            }
            variables.start_with("database", database)?;
        }
        for (name, value) in &options.parameters {
            start_parameter(&mut variables, name, value)?;
        }
        let now_ms = parts.clock.now_ms();
        let told = Arc::clone(variables.settings());
        let registered = parts
            .sessions
            .register(options.user.clone(), Arc::clone(&told), now_ms);
        let memory = parts.memory.session();
        let session = Self {
            text: Mutex::new((Arc::from(""), memory.nothing())),
            memory,
            parts,
            process_id: registered.process_id,
            secret: registered.secret,
            user: options.user,
            variables,
            told,
            transaction: Transaction::Idle,
            savepoints: Savepoints::default(),
            now_ms,
            prepared: BTreeMap::new(),
            cursors: BTreeMap::new(),
            notices: Vec::new(),
            limits: Limits {
                cancelled: registered.cancelled,
                deadline: Arc::default(),
                notices: Notices::default(),
            },
            described: BTreeMap::new(),
            lookups: BTreeMap::new(),
        };
        session.note_idle();
        Ok(session)
    }

    /// The session's number, for cancel requests.
    #[must_use]
    pub const fn process_id(&self) -> i32 {
        self.process_id
    }

    /// What a cancel request must know: four bytes, big endian.
    #[must_use]
    pub const fn secret(&self) -> i32 {
        self.secret
    }

    /// What the session holds: whoever keeps something on its behalf counts it here.
    #[must_use]
    pub const fn memory(&self) -> &SessionMemory {
        &self.memory
    }

    /// Parses a query string.
    ///
    /// # Errors
    /// [`Error::Sql`], with a position.
    pub async fn parse(&self, sql: &str) -> Result<Vec<Statement>, Error> {
        // What was parsed before makes room.
        *self.text.lock() = (Arc::from(""), self.memory.nothing());
        let held = self.memory.hold(statement_bytes(sql))?;
        let statements = if sql.len() <= PARSED_AT_ONCE_BYTES {
            flowstone_sql::parse::parse(sql)?
        } else {
            let sql = sql.to_owned();
            let parsing = planning::blocking(move || Ok(flowstone_sql::parse::parse(&sql)?));
            // No statement runs yet that could have been cancelled before.
            let mut limits = self.limits.clone();
            limits.cancelled.mark_unchanged();
            limits.deadline = Arc::default();
            limits.run(parsing).await?
        };
        *self.text.lock() = (Arc::from(sql), held);
        Ok(statements)
    }

    /// What a statement takes and gives. `parameter_types`: what is known of `$1`, `$2`, … beforehand.
    ///
    /// # Errors
    /// Whatever is wrong with the statement.
    pub async fn describe(
        &mut self,
        statement: &Statement,
        parameter_types: &[Option<SqlType>],
    ) -> Result<Description, Error> {
        // As a statement of its own: what was asked of an earlier one does not end it.
        self.limits.cancelled.mark_unchanged();
        self.resume();
        let description = self.describe_statement(statement, parameter_types).await?;
        self.remember_types(statement, description.parameters.clone())?;
        Ok(description)
    }

    /// Remembers the types of a statement's parameters for when it is run.
    fn remember_types(&mut self, statement: &Statement, types: Vec<SqlType>) -> Result<(), Error> {
        if self.described.len() >= DESCRIBED_MAX {
            self.described.pop_first();
        }
        let _held = self.memory.hold(statement.text.len())?;
        self.described
            .insert(statement.text.clone(), Described { types, _held });
        Ok(())
    }

    /// Runs a statement. `parameters`: one array of one value for each parameter, of the types that [`Session::describe`] gave.
    ///
    /// Rows stream: the outcome is there before they are. An error in an explicit transaction fails it; one in the rows must be told with
    /// [`Session::fail_transaction`].
    ///
    /// # Errors
    /// Whatever is wrong with the statement, its data or its transaction.
    pub async fn execute(
        &mut self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<Outcome, Error> {
        self.parts
            .counters
            .statements
            .fetch_add(1, Ordering::Relaxed);
        self.start_statement();
        let result = match self.look_up_at_once(statement, parameters) {
            Some(result) => result,
            None => Box::pin(self.dispatch(statement, parameters)).await,
        };
        self.finish_statement(result)
    }

    /// Statements until [`Session::end_implicit`] are one transaction, unless there is a block.
    pub fn begin_implicit(&mut self) {
        if matches!(self.transaction, Transaction::Idle) {
            self.transaction = Transaction::Implicit(Mode::Undecided);
            self.now_ms = self.parts.clock.now_ms();
            self.variables.begin();
        }
    }

    /// Ends what [`Session::begin_implicit`] began. A block stays open.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the writes cannot be made durable any more.
    pub async fn end_implicit(&mut self, commit: bool) -> Result<(), Error> {
        let mode = match std::mem::take(&mut self.transaction) {
            Transaction::Implicit(mode) => mode,
            other => {
                self.transaction = other;
                return Ok(());
            }
        };
        self.cursors.clear();
        let least = self.variables.settings().least_severity;
        self.limits.notices.set_least(least);
        let result = if commit {
            self.commit_mode(mode).await
        } else {
            Ok(())
        };
        self.variables.end(commit && result.is_ok());
        result
    }

    /// Where the session stands.
    #[must_use]
    pub const fn transaction_status(&self) -> TransactionStatus {
        match self.transaction {
            Transaction::Idle | Transaction::Implicit(_) => TransactionStatus::Idle,
            Transaction::Explicit(_) => TransactionStatus::InTransaction,
            Transaction::Failed => TransactionStatus::Failed,
        }
    }

    /// An error after the outcome: the transaction block, if there is one, has failed; an implicit transaction is forgotten.
    pub fn fail_transaction(&mut self) {
        self.transaction = match std::mem::take(&mut self.transaction) {
            Transaction::Explicit(_) if self.savepoints.is_empty() => {
                self.cursors.clear();
                Transaction::Failed
            }
            Transaction::Explicit(mode) => {
                self.savepoints.keep(mode);
                Transaction::Failed
            }
            Transaction::Implicit(_) => {
                self.cursors.clear();
                Transaction::Implicit(Mode::Undecided)
            }
            other => other,
        };
    }

    /// Notices since the last call, those below `client_min_messages` left out.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        let mut notices: Vec<Notice> = self.limits.notices.take().into();
        let least = self.variables.settings().least_severity;
        let own = std::mem::take(&mut self.notices).into_iter();
        notices.extend(own.filter(|own| least.is_some_and(|least| own.severity >= least)));
        notices
    }

    /// Notices that come up while a statement runs. Whoever serves the client may send them at once; [`Session::take_notices`] has the others.
    #[must_use]
    pub fn notices(&self) -> Notices {
        self.limits.notices.clone()
    }

    /// Reported variables that changed since the last call.
    pub fn take_parameter_changes(&mut self) -> Vec<(String, String)> {
        let now = self.variables.settings();
        if Arc::ptr_eq(now, &self.told) {
            return Vec::new();
        }
        let changes = itertools::zip_eq(&now.reported, &self.told.reported)
            .filter(|(now, told)| now != told)
            .map(|(now, _)| now.clone())
            .collect();
        self.told = Arc::clone(now);
        changes
    }

    /// The reported variables with their values: what a client is told at the start.
    #[must_use]
    pub fn parameter_statuses(&self) -> Vec<(String, String)> {
        self.variables.settings().reported.clone()
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether the user is a superuser.
    #[must_use]
    pub fn is_superuser(&self) -> bool {
        let catalog = self.parts.catalog.now();
        let mut roles = catalog.roles.values();
        roles.any(|role| role.superuser && role.name == self.user)
    }

    /// The value of a session variable; `None` if there is none of that name.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(&name.to_ascii_lowercase())
    }

    /// The time zone in which instants are read and shown.
    #[must_use]
    pub fn time_zone(&self) -> &TimeZone {
        &self.variables.settings().time_zone
    }

    /// More of the rows of an earlier outcome are asked for: `statement_timeout` begins anew.
    pub fn resume(&self) {
        let timeout = self.variables.settings().statement_timeout;
        *self.limits.deadline.lock() = timeout.map(|timeout| Instant::now() + timeout);
    }

    fn start_statement(&mut self) {
        self.limits.cancelled.mark_unchanged();
        let least = self.variables.settings().least_severity;
        self.limits.notices.begin(least);
        self.resume();
        if matches!(self.transaction, Transaction::Idle) {
            self.now_ms = self.parts.clock.now_ms();
        }
        let began_ms = self.parts.clock.now_ms();
        self.parts.sessions.note(self.process_id, |entry| {
            entry.activity.active = true;
            entry.activity.statement_began_ms = Some(began_ms);
        });
    }

    /// Between statements: for others to see.
    fn note_idle(&self) {
        let in_transaction = self.transaction.in_block();
        self.parts.sessions.note(self.process_id, |entry| {
            entry.settings.clone_from(self.variables.settings());
            entry.activity.active = false;
            entry.activity.in_transaction = in_transaction;
        });
    }

    fn finish_statement<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() {
            self.parts.counters.errors.fetch_add(1, Ordering::Relaxed);
            self.fail_transaction();
        }
        self.note_idle();
        result
    }

    async fn dispatch(
        &mut self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<Outcome, Error> {
        use StatementKind as Kind;
        if matches!(self.transaction, Transaction::Failed)
            && !matches!(
                statement.kind,
                Kind::Commit | Kind::Rollback | Kind::RollbackTo(_)
            )
        {
            return Err(TransactionError::Aborted.into());
        }
        if let Some(verb) = statement.kind.write_verb()
            && self.variables.settings().read_only
        {
            return Err(TransactionError::ReadOnlyBlock(verb).into());
        }
        match &statement.kind {
            Kind::Query(query) => self.select(statement, query, parameters).await,
            Kind::Insert(_) | Kind::Update(_) | Kind::Delete(_) | Kind::WithWrite(_) => {
                self.write(statement, parameters).await
            }
            Kind::Copy(copy) => self.copy(statement, copy).await,
            Kind::Subscribe(subscribe) => self.subscribe(statement, subscribe, parameters).await,
            Kind::Explain(explain) => self.explain(statement, explain).await,
            Kind::Show(show) => self.show(statement, show).await,
            Kind::SetVariable(set) => self.set_variable(set),
            Kind::ResetVariable(reset) => self.reset_variable(reset),
            Kind::ShowVariable(show) => self.show_variable(show),
            Kind::SetTransaction(set) => self.set_transaction(set),
            Kind::Begin { modes } => self.begin(modes).await,
            Kind::Commit => self.commit().await,
            Kind::Rollback => Ok(self.rollback()),
            Kind::Savepoint(name) => self.savepoint(&name.value),
            Kind::ReleaseSavepoint(name) => self.release_savepoint(&name.value),
            Kind::RollbackTo(name) => self.rollback_to_savepoint(&name.value),
            Kind::Prepare(prepare) => self.prepare(prepare).await,
            Kind::Execute(execute) => self.execute_prepared(execute).await,
            Kind::Deallocate(name) => self.deallocate(name.as_ref()),
            Kind::Declare(declare) => self.declare(declare, parameters).await,
            Kind::Fetch(fetch) => self.fetch(fetch).await,
            Kind::Close(name) => self.close(name.as_ref()),
            Kind::Unlisten => Ok(Outcome::Command {
                tag: "UNLISTEN".to_owned(),
            }),
            Kind::Discard(target) => self.discard(*target),
            Kind::ValidateConnection(validate) => {
                self.validate_connection(statement, validate).await
            }
            Kind::Unsupported(error) => Err(Error::Sql((**error).clone())),
            Kind::CreateDatabase(_)
            | Kind::CreateSchema(_)
            | Kind::CreateTable(_)
            | Kind::CreateTableFromSource(_)
            | Kind::CreateView(_)
            | Kind::CreateMaterializedView(_)
            | Kind::CreateIndex(_)
            | Kind::CreateSecret(_)
            | Kind::CreateConnection(_)
            | Kind::CreateSource(_)
            | Kind::CreateSink(_)
            | Kind::CreateCluster(_)
            | Kind::CreateClusterReplica(_)
            | Kind::AlterSecret(_)
            | Kind::AlterConnection(_)
            | Kind::AlterSourceAddSubsource(_)
            | Kind::AlterSourceDropSubsource(_)
            | Kind::AlterSink(_)
            | Kind::AlterRename(_)
            | Kind::AlterSchemaSwap(_)
            | Kind::AlterCluster(_)
            | Kind::Drop(_)
            | Kind::DropClusterReplicas(_)
            | Kind::CreateRole(_)
            | Kind::AlterRole(_)
            | Kind::DropRoles(_)
            | Kind::CommentOn(_) => self.ddl(statement).await,
        }
    }

    /// What planning needs, for a statement of this session.
    fn planner(&self, statement: &Statement) -> Planner {
        let text = Arc::clone(&self.text.lock().0);
        // Positions refer to the whole string; of a statement that came another way only the start of one is known.
        let tail = text
            .char_indices()
            .nth(statement.offset)
            .and_then(|(at, _)| text.get(at..));
        let text = if tail.is_some_and(|tail| tail.starts_with(&statement.text)) {
            text
        } else if statement.offset == 0 {
            Arc::from(statement.text.as_str())
        } else {
            Arc::from("")
        };
        Planner {
            text,
            ..self.planner_without_text()
        }
    }

    /// What planning needs, for something no user wrote.
    fn planner_without_text(&self) -> Planner {
        Planner {
            catalog: self.parts.catalog.now(),
            variables: self.variables.clone(),
            user: self.user.clone(),
            process_id: self.process_id,
            started_ms: self.parts.started_ms,
            now_ms: self.now_ms,
            reported: Some(Arc::clone(&self.parts.reported)),
            transaction_epoch: None,
            assigns: false,
            maintained: false,
            text: Arc::from(""),
            limits: Some(self.limits.clone()),
        }
    }

    /// Types for a statement's parameters: as described, else as the values have them.
    fn parameter_types(
        &self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Vec<Option<SqlType>> {
        match self.described.get(&statement.text) {
            Some(Described { types, .. }) if types.len() == parameters.len() => {
                types.iter().cloned().map(Some).collect()
            }
            _ => parameters
                .iter()
                .map(|array| SqlType::from_arrow(array.data_type()).ok())
                .collect(),
        }
    }

    /// Checks that the transaction admits a statement, and commits what an implicit one must commit before it.
    async fn enter(&mut self, class: &Class) -> Result<(), Error> {
        self.transaction.admit(class)?;
        self.commit_pending(class).await
    }

    /// Commits what an implicit transaction has staged, if a statement of `class` must come after it.
    async fn commit_pending(&mut self, class: &Class) -> Result<(), Error> {
        if self.transaction.must_commit_before(class)
            && let Some(mode) = self.transaction.mode()
        {
            let mode = std::mem::take(mode);
            self.commit_mode(mode).await?;
        }
        Ok(())
    }
}

fn start_parameter(variables: &mut Variables, name: &str, value: &str) -> Result<(), Error> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "user" | "database" | "replication" => Ok(()),
        "options" => {
            for (name, value) in parse_options(value) {
                variables.start_with(&name.to_ascii_lowercase(), &value)?;
            }
            Ok(())
        }
        // Protocol extensions are the client protocol's business.
        name if name.starts_with("_pq_.") => Ok(()),
        name => Ok(variables.start_with(name, value)?),
    }
}

/// The settings of libpq's `options`: `-c name=value` and `--name=value`, blanks escaped by backslashes.
fn parse_options(text: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if escaped || !(c == '\\' || c.is_ascii_whitespace()) {
            escaped = false;
            if let Some(word) = words.last_mut() {
                word.push(c);
            }
        } else if c == '\\' {
            escaped = true;
        } else {
            words.push(String::new());
        }
    }
    let words = words.into_iter().filter(|word| !word.is_empty());
    let settings = words.filter_map(|word| {
        let word = word
            .strip_prefix("--")
            .or_else(|| word.strip_prefix("-c"))
            .unwrap_or(&word)
            .to_owned();
        let (name, value) = word.split_once('=')?;
        Some((name.replace('-', "_"), value.to_owned()))
    });
    settings.collect()
}

#[cfg(test)]
mod tests;
