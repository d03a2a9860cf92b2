//! Sessions behind bearer tokens, transactions and prepared statements: what outlives a call.
//!
//! Owns who may use what, how many there may be and when they end. Must not know statements beyond what `SET` changes. Called by `service`.
//!
//! Invariants. A client without a token has a session per call, so that two clients which share a connection do not share settings; what it prepares keeps a
//! session of its own. A transaction is a session of its own, with the settings of the one it was begun in. Identifiers are random, and are only good for the
//! session, or without one the user, that was given them. Nothing ends while it is in use.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::ArrayRef;
use flowstone_coordinator::{
    Authenticator, Client, Outcome, Session, SessionMemory, SessionOptions,
};
use flowstone_sql::ast::{DiscardTarget, ResetVariable, Statement, StatementKind};
use flowstone_types::datetime::TimeZone;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Error;
use crate::prepared::Prepared;

/// A session, or a prepared statement without one, ends when nobody has used it for this long.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);
/// A transaction is rolled back when nobody has used it for this long: it keeps an epoch readable, and that costs memory.
const TRANSACTION_IDLE: Duration = Duration::from_secs(5 * 60);
/// Signed-in sessions. One costs a few kilobytes.
const SESSIONS_MAX: usize = 1000;
/// Open transactions.
const TRANSACTIONS_MAX: usize = 1000;
/// Prepared statements of all sessions. One costs its text and schema, and the values bound to it.
const STATEMENTS_MAX: usize = 10_000;

/// A coordinator's session and who may use it.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The signed-in session it belongs to.
    owner: Option<Uuid>,
    kind: SeatKind,
    options: SessionOptions,
    session: Arc<tokio::sync::Mutex<Session>>,
    memory: SessionMemory,
    /// The session's time zone as its last statement left it: what is bound need not wait for the statement that runs.
    zone: Arc<Mutex<TimeZone>>,
    /// The statements that changed settings, by what they change: a transaction starts with them.
    settings: Mutex<BTreeMap<String, Statement>>,
    usage: Mutex<Usage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeatKind {
    /// Lasts as long as the client uses it.
    SignedIn,
    /// Begun and ended by Flight SQL's actions.
    Transaction,
    /// For one call, or one prepared statement.
    Passing,
}

#[derive(Debug)]
struct Usage {
    leases: usize,
    last: Instant,
}

/// Someone is using a seat.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Seat>);

impl Lease {
    fn new(seat: &Arc<Seat>) -> Self {
        seat.usage.lock().leases += 1;
        Self(Arc::clone(seat))
    }

    /// The seat, for what keeps it but does not use it all the time.
    pub(crate) fn seat(&self) -> Arc<Seat> {
        Arc::clone(&self.0)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut usage = self.0.usage.lock();
        usage.leases -= 1;
        usage.last = Instant::now();
    }
}

impl Deref for Lease {
    type Target = Seat;

    fn deref(&self) -> &Seat {
        &self.0
    }
}

/// One statement's turn on a session. If it is dropped before it is settled, the statement's transaction has failed.
#[derive(Debug)]
pub(crate) struct Turn {
    session: OwnedMutexGuard<Session>,
    zone: Arc<Mutex<TimeZone>>,
    settled: bool,
}

impl Turn {
    /// What was done is complete, with success or failure, and the session knows.
    pub(crate) fn settle(mut self) {
        self.settled = true;
    }
}

impl Deref for Turn {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.settled {
            self.session.fail_transaction();
            // Without a commit there is nothing to wait for.
            drop(self.session.end_implicit(false).now_or_never());
        }
        self.zone.lock().clone_from(self.session.time_zone());
        for notice in self.session.take_notices() {
            tracing::debug!(message = notice.message, "notice");
        }
    }
}

impl Seat {
    async fn open(
        client: &Client,
        options: SessionOptions,
        owner: Option<Uuid>,
        kind: SeatKind,
    ) -> Result<Self, Error> {
        let session = client.open_session(options.clone()).await?;
        Ok(Self {
            owner,
            kind,
            options,
            memory: session.memory().clone(),
            zone: Arc::new(Mutex::new(session.time_zone().clone())),
            session: Arc::new(tokio::sync::Mutex::new(session)),
            settings: Mutex::new(BTreeMap::new()),
            usage: Mutex::new(Usage {
                leases: 0,
                last: Instant::now(),
            }),
        })
    }

    /// Whether it was made for this caller: for its session, or for its user if neither has one.
    fn belongs_to(&self, caller: &Caller) -> bool {
        self.owner == caller.owner() && self.options.user == caller.user
    }

    /// What the session holds.
    pub(crate) const fn memory(&self) -> &SessionMemory {
        &self.memory
    }

    /// The session, once no other call of the client uses it.
    pub(crate) async fn turn(&self) -> Turn {
        Turn {
            session: Arc::clone(&self.session).lock_owned().await,
            zone: Arc::clone(&self.zone),
            settled: false,
        }
    }

    /// The time zone of the session.
    pub(crate) fn zone(&self) -> TimeZone {
        self.zone.lock().clone()
    }

    /// Whether a statement can be run here.
    ///
    /// # Errors
    /// [`Error::NeedsSession`] for what would be forgotten at once; a `FeatureNotSupported` for what this protocol has its own way for.
    pub(crate) fn admit(&self, kind: &StatementKind) -> Result<(), Error> {
        if let StatementKind::Copy(_) = kind {
            return Err(Error::not_here(
                "COPY is not available over Arrow Flight",
                "Use bulk ingest, or the query itself.",
            ));
        }
        if self.kind == SeatKind::Transaction
            && matches!(
                kind,
                StatementKind::Begin { .. } | StatementKind::Commit | StatementKind::Rollback
            )
        {
            return Err(Error::not_here(
                "a Flight SQL transaction is not begun or ended by a statement",
                "Use the client's own functions for that.",
            ));
        }
        match (self.kind, session_statement(kind)) {
            (SeatKind::Passing, Some(what)) => Err(Error::NeedsSession(what)),
            _ => Ok(()),
        }
    }

    /// Runs a statement.
    pub(crate) async fn run(
        &self,
        turn: &mut Turn,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<Outcome, Error> {
        self.admit(&statement.kind)?;
        let outcome = turn.execute(statement, parameters).await?;
        self.note_setting(statement);
        Ok(outcome)
    }

    fn note_setting(&self, statement: &Statement) {
        let mut settings = self.settings.lock();
        match &statement.kind {
            StatementKind::SetVariable(set) if !set.local => {
                settings.insert(set.name.clone(), statement.clone());
            }
            StatementKind::SetTransaction(set) if set.session => {
                settings.insert("session characteristics".to_owned(), statement.clone());
            }
            StatementKind::ResetVariable(ResetVariable::Named(name)) => {
                settings.remove(name);
            }
            StatementKind::ResetVariable(ResetVariable::All)
            | StatementKind::Discard(DiscardTarget::All) => settings.clear(),
            _ => {}
        }
    }

    fn idle(&self, now: Instant) -> Duration {
        let usage = self.usage.lock();
        if usage.leases > 0 {
            Duration::ZERO
        } else {
            now.saturating_duration_since(usage.last)
        }
    }
}

/// The words that name a statement which has an effect only within a session.
const fn session_statement(kind: &StatementKind) -> Option<&'static str> {
    match kind {
        StatementKind::SetVariable(_) | StatementKind::SetTransaction(_) => Some("SET"),
        StatementKind::ResetVariable(_) => Some("RESET"),
        StatementKind::Begin { .. } => Some("BEGIN"),
        StatementKind::Commit => Some("COMMIT"),
        StatementKind::Rollback => Some("ROLLBACK"),
        StatementKind::Prepare(_) => Some("PREPARE"),
        StatementKind::Execute(_) => Some("EXECUTE"),
        StatementKind::Deallocate(_) => Some("DEALLOCATE"),
        StatementKind::Declare(_) => Some("DECLARE"),
        StatementKind::Fetch(_) => Some("FETCH"),
        StatementKind::Close(_) => Some("CLOSE"),
        StatementKind::Discard(_) => Some("DISCARD"),
        _ => None,
    }
}

/// Who makes a call.
#[derive(Debug)]
pub(crate) struct Caller {
    user: String,
    signed_in: Option<Lease>,
    memory: SessionMemory,
}

impl Caller {
    /// What counts against the caller's session, or, without one, against the call.
    pub(crate) const fn memory(&self) -> &SessionMemory {
        &self.memory
    }

    fn owner(&self) -> Option<Uuid> {
        self.signed_in.as_ref().and_then(|lease| lease.owner)
    }
}

/// Everything that outlives a call.
#[derive(Debug)]
pub(crate) struct Sessions {
    client: Client,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    signed_in: BTreeMap<Uuid, Arc<Seat>>,
    transactions: BTreeMap<Uuid, Arc<Seat>>,
    statements: BTreeMap<Uuid, Arc<Prepared>>,
    /// Results that are being fetched, by their ticket's number; the second number tells two that have the same apart.
    running: BTreeMap<(Uuid, u64), CancellationToken>,
    next_running: u64,
}

impl Sessions {
    pub(crate) fn new(client: Client, stop: CancellationToken) -> Self {
        Self {
            client,
            stop,
            state: Mutex::default(),
        }
    }

    /// Whether the node is shutting down.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Checks who clients are.
    pub(crate) fn authenticator(&self) -> Authenticator {
        self.client.authenticator()
    }

    /// Opens a session for the caller; returns the token.
    ///
    /// # Errors
    /// [`Error::BadCredentials`] if the caller has one already: a token is not good for more of them. [`Error::TooMany`]
    pub(crate) async fn sign_in(&self, caller: &Caller) -> Result<Uuid, Error> {
        if caller.signed_in.is_some() {
            return Err(Error::BadCredentials(
                "a handshake takes a user and a password, not a token".to_owned(),
            ));
        }
        if self.state.lock().signed_in.len() >= SESSIONS_MAX {
            return Err(Error::TooMany("sessions"));
        }
        let token = Uuid::new_v4();
        let user = caller.user.clone();
        let seat = self.open(user, Some(token), SeatKind::SignedIn).await?;
        self.state.lock().signed_in.insert(token, Arc::new(seat));
        Ok(token)
    }

    /// Ends a session and everything that belongs to it.
    pub(crate) fn sign_out(&self, caller: &Caller) {
        let Some(owner) = caller.owner() else { return };
        let mut state = self.state.lock();
        state.signed_in.remove(&owner);
        state
            .transactions
            .retain(|_, seat| seat.owner != Some(owner));
        state
            .statements
            .retain(|_, prepared| prepared.seat.owner != Some(owner));
    }

    /// Who makes a call with this token.
    ///
    /// # Errors
    /// [`Error::UnknownSession`] for a token that is none.
    pub(crate) fn signed_in(&self, token: Uuid) -> Result<Caller, Error> {
        let state = self.state.lock();
        let seat = state.signed_in.get(&token).ok_or(Error::UnknownSession)?;
        Ok(Caller {
            user: seat.options.user.clone(),
            signed_in: Some(Lease::new(seat)),
            memory: seat.memory.clone(),
        })
    }

    /// Someone who has no token.
    pub(crate) fn passing(&self, user: String) -> Caller {
        Caller {
            user,
            signed_in: None,
            memory: self.client.session_memory(),
        }
    }

    async fn open(&self, user: String, owner: Option<Uuid>, kind: SeatKind) -> Result<Seat, Error> {
        let options = SessionOptions {
            user,
            ..SessionOptions::default()
        };
        Seat::open(&self.client, options, owner, kind).await
    }

    /// A session of the caller that nothing else uses, with its settings: for questions about the catalog.
    pub(crate) async fn aside(&self, caller: &Caller) -> Result<Session, Error> {
        let seat = self
            .open(caller.user.clone(), None, SeatKind::Passing)
            .await?;
        if let Some(lease) = &caller.signed_in {
            copy_settings(lease, &seat).await?;
        }
        let session = Arc::into_inner(seat.session).map(tokio::sync::Mutex::into_inner);
        session.ok_or_else(|| Error::Internal("a new session is in use".to_owned()))
    }

    /// Where the caller's statement runs: in its transaction if it names one, in its session if it has one, else in a session for this call.
    ///
    /// # Errors
    /// [`Error::UnknownTransaction`]
    pub(crate) async fn seat(
        &self,
        caller: &Caller,
        transaction: Option<&[u8]>,
    ) -> Result<Lease, Error> {
        if let Some(id) = transaction {
            return self.transaction(caller, id);
        }
        if let Some(lease) = &caller.signed_in {
            return Ok(Lease::new(&lease.0));
        }
        let seat = self
            .open(caller.user.clone(), None, SeatKind::Passing)
            .await?;
        Ok(Lease::new(&Arc::new(seat)))
    }

    fn transaction(&self, caller: &Caller, id: &[u8]) -> Result<Lease, Error> {
        let id = Uuid::from_slice(id).map_err(|_| Error::UnknownTransaction)?;
        let state = self.state.lock();
        let seat = state.transactions.get(&id);
        seat.filter(|seat| seat.belongs_to(caller))
            .map(Lease::new)
            .ok_or(Error::UnknownTransaction)
    }

    /// Begins a transaction; returns its identifier.
    ///
    /// # Errors
    /// [`Error::TooMany`]
    pub(crate) async fn begin(&self, caller: &Caller) -> Result<Uuid, Error> {
        if self.state.lock().transactions.len() >= TRANSACTIONS_MAX {
            return Err(Error::TooMany("transactions"));
        }
        let seat = self
            .open(caller.user.clone(), caller.owner(), SeatKind::Transaction)
            .await?;
        if let Some(lease) = &caller.signed_in {
            copy_settings(lease, &seat).await?;
        }
        let mut turn = seat.turn().await;
        execute_text(&mut turn, "BEGIN").await?;
        turn.settle();
        let id = Uuid::new_v4();
        self.state.lock().transactions.insert(id, Arc::new(seat));
        Ok(id)
    }

    /// Ends a transaction.
    ///
    /// # Errors
    /// [`Error::RolledBack`] if a statement in it failed; what committing may meet.
    pub(crate) async fn end(&self, caller: &Caller, id: &[u8], commit: bool) -> Result<(), Error> {
        let lease = self.transaction(caller, id)?;
        if let Ok(id) = Uuid::from_slice(id) {
            let mut state = self.state.lock();
            state.transactions.remove(&id);
            let seat = lease.seat();
            state
                .statements
                .retain(|_, prepared| !Arc::ptr_eq(&prepared.seat, &seat));
        }
        let mut turn = lease.turn().await;
        let outcome = execute_text(&mut turn, if commit { "COMMIT" } else { "ROLLBACK" }).await?;
        turn.settle();
        match outcome {
            Outcome::Command { tag } if commit && tag == "ROLLBACK" => Err(Error::RolledBack),
            _ => Ok(()),
        }
    }

    /// Keeps a prepared statement; returns its handle.
    ///
    /// # Errors
    /// [`Error::TooMany`]
    pub(crate) fn keep(&self, prepared: Prepared) -> Result<Uuid, Error> {
        let mut state = self.state.lock();
        if state.statements.len() >= STATEMENTS_MAX {
            return Err(Error::TooMany("prepared statements"));
        }
        let handle = Uuid::new_v4();
        state.statements.insert(handle, Arc::new(prepared));
        Ok(handle)
    }

    /// A prepared statement of the caller, and the use of its session.
    ///
    /// # Errors
    /// [`Error::UnknownStatement`]
    pub(crate) fn prepared(
        &self,
        caller: &Caller,
        handle: &[u8],
    ) -> Result<(Arc<Prepared>, Lease), Error> {
        let handle = Uuid::from_slice(handle).map_err(|_| Error::UnknownStatement)?;
        let state = self.state.lock();
        let found = state.statements.get(&handle);
        let prepared = found
            .filter(|prepared| prepared.seat.belongs_to(caller))
            .ok_or(Error::UnknownStatement)?;
        Ok((Arc::clone(prepared), Lease::new(&prepared.seat)))
    }

    /// Forgets a prepared statement, if there is one.
    pub(crate) fn forget(&self, caller: &Caller, handle: &[u8]) {
        if self.prepared(caller, handle).is_ok()
            && let Ok(handle) = Uuid::from_slice(handle)
        {
            self.state.lock().statements.remove(&handle);
        }
    }

    /// Notes that the result with this number is being fetched.
    pub(crate) fn start(self: &Arc<Self>, id: Uuid) -> Fetch {
        let token = self.stop.child_token();
        let mut state = self.state.lock();
        let serial = state.next_running;
        state.next_running += 1;
        state.running.insert((id, serial), token.clone());
        Fetch {
            sessions: Arc::clone(self),
            key: (id, serial),
            token,
        }
    }

    /// Ends the fetching of a result. Returns whether anything was being fetched.
    pub(crate) fn cancel(&self, id: Uuid) -> bool {
        let state = self.state.lock();
        let mut found = false;
        for token in state.running.range((id, 0)..=(id, u64::MAX)) {
            token.1.cancel();
            found = true;
        }
        found
    }

    /// Ends what nobody has used for long.
    pub(crate) fn expire(&self, now: Instant) {
        let mut state = self.state.lock();
        state
            .signed_in
            .retain(|_, seat| seat.idle(now) < SESSION_IDLE);
        let State {
            signed_in,
            transactions,
            statements,
            ..
        } = &mut *state;
        let has_owner = |seat: &Seat| {
            seat.owner
                .is_none_or(|owner| signed_in.contains_key(&owner))
        };
        transactions.retain(|_, seat| seat.idle(now) < TRANSACTION_IDLE && has_owner(seat));
        statements.retain(|_, prepared| {
            prepared.seat.idle(now) < SESSION_IDLE && has_owner(&prepared.seat)
        });
    }

    /// Ends everything: the node stops.
    pub(crate) fn clear(&self) {
        *self.state.lock() = State::default();
    }
}

/// A result that is being fetched, as long as it lives.
#[derive(Debug)]
pub(crate) struct Fetch {
    sessions: Arc<Sessions>,
    key: (Uuid, u64),
    token: CancellationToken,
}

impl Fetch {
    /// Resolves when the fetching must end, with the reason.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub(crate) async fn cancelled(&self) -> Error {
        self.token.cancelled().await;
        if self.sessions.stop.is_cancelled() {
            Error::Stopping
        } else {
            Error::CANCELLED
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.sessions.state.lock().running.remove(&self.key);
    }
}

async fn execute_text(turn: &mut Turn, sql: &str) -> Result<Outcome, Error> {
    let statement = turn.parse(sql).await?.pop();
    let statement = statement.ok_or_else(|| Error::Internal("an empty statement".to_owned()))?;
    Ok(turn.execute(&statement, &[]).await?)
}

async fn copy_settings(from: &Seat, to: &Seat) -> Result<(), Error> {
    let settings: Vec<Statement> = from.settings.lock().values().cloned().collect();
    let mut turn = to.turn().await;
    for statement in &settings {
        to.run_setting(&mut turn, statement).await?;
    }
    turn.settle();
    Ok(())
}

impl Seat {
    async fn run_setting(&self, turn: &mut Turn, statement: &Statement) -> Result<(), Error> {
        turn.execute(statement, &[]).await?;
        self.note_setting(statement);
        Ok(())
    }
}
