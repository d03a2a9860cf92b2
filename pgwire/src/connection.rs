//! One connection, from the open session on: a loop over messages.
//!
//! Owns prepared statements, portals and the rule that after an error in the extended protocol everything up to `Sync` is passed over.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use flowstone_coordinator::{
    Client, Description, Held, Notice, Outcome, RowStream, Session, Severity, TransactionStatus,
    report, size_of_batch,
};
use flowstone_sql::ast::{DiscardTarget, Statement, StatementKind};
use flowstone_tls::Ticket;
use flowstone_types::SqlType;
use futures::{FutureExt, StreamExt};
use pgwire::error::PgWireError;
use pgwire::messages::data::{NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Close, CloseComplete, Describe, Execute, Parse, ParseComplete,
    PortalSuspended, TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    TransactionStatus as WireStatus,
};
use pgwire::messages::startup::ParameterStatus;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::server::MaybeTls;
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::Error;
use crate::copy::CopyEncoder;
use crate::encode::{Formats, RowEncoder, decode_parameter, row_description};
use crate::frontend::{self, Codec, Incoming, Received};
use crate::io::Io;
use crate::server::Security;
use crate::{sqlstate, startup};

mod copying;

/// What a prepared statement or a portal takes besides its text and values.
const ENTRY_BYTES: usize = 1024;

pub(crate) type Socket = Framed<MaybeTls, Codec>;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// A message of ours cannot be written.
    #[error(transparent)]
    Wire(#[from] PgWireError),
    /// The client sent what is no message, and nobody can tell where the next one begins.
    #[error(transparent)]
    Broken(Box<Error>),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The client went away in the middle of a statement.
    #[error("client went away")]
    Gone,
    /// The client took too long to say who it is.
    #[error("the session was not opened in time")]
    StartupTimeout,
    /// The client had not said who it is when its place was needed.
    #[error("ended before the session was opened, to make room for another connection")]
    Evicted,
}

/// A statement failed (the connection goes on), or the connection did.
#[derive(Debug)]
pub(crate) enum Failure {
    Statement(Box<Error>),
    Connection(ConnectionError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Statement(Box::new(error))
    }
}

impl From<flowstone_coordinator::Error> for Failure {
    fn from(error: flowstone_coordinator::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// A statement that was parsed and described.
#[derive(Debug)]
struct Prepared {
    /// `None` for an empty query.
    statement: Option<Statement>,
    description: Description,
    _held: Held,
}

/// A bound statement and, once it runs, its result.
#[derive(Debug)]
struct Portal {
    prepared: Arc<Prepared>,
    parameters: Vec<ArrayRef>,
    formats: Formats,
    state: PortalState,
    _held: Held,
}

#[derive(Debug)]
enum PortalState {
    Bound,
    Running(Box<Running>),
    Finished,
}

/// A result that is being fetched.
#[derive(Debug)]
struct Running {
    verb: &'static str,
    schema: SchemaRef,
    rows: RowStream,
    /// The rest of the batch that is being sent.
    batch: Option<(RecordBatch, usize)>,
    /// What that takes.
    held: Held,
    /// Rows sent since it was asked for more.
    sent: u64,
    /// Rows sent altogether.
    sent_in_all: u64,
}

impl Running {
    /// What is said when it ends: a write says how many rows it has changed, however they were fetched.
    fn tag(&self) -> String {
        let rows = if Outcome::is_returned(self.verb) {
            self.sent_in_all
        } else {
            self.sent
        };
        format!("{} {rows}", self.verb)
    }

    fn new(verb: &'static str, schema: SchemaRef, rows: RowStream, held: Held) -> Self {
        Self {
            verb,
            schema,
            rows,
            batch: None,
            held,
            sent: 0,
            sent_in_all: 0,
        }
    }
}

pub(crate) struct Connection {
    pub(crate) io: Io,
    pub(crate) session: Session,
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
    /// After an error in the extended protocol: everything up to `Sync` is passed over.
    skipping: bool,
}

/// Serves one connection until the client ends it.
///
/// `ticket` is the connection's place: another one may take it before the session is open.
///
/// # Errors
/// [`ConnectionError`] if the socket fails or the client breaks the protocol.
pub async fn serve(
    socket: TcpStream,
    client: Client,
    security: Security,
    ticket: Ticket,
) -> Result<(), ConnectionError> {
    let Some((socket, session)) = startup::open(socket, &client, &security, &ticket).await? else {
        return Ok(());
    };
    let mut connection = Connection {
        io: Io::new(socket, session.notices()),
        session,
        statements: HashMap::new(),
        portals: HashMap::new(),
        skipping: false,
    };
    let outcome = connection.run().await;
    if let Err(ConnectionError::Broken(error)) = &outcome {
        let fields = sqlstate::fields(error, "FATAL");
        let message = PgWireBackendMessage::ErrorResponse(ErrorResponse::new(fields));
        connection.io.feed(message).await?;
        connection.io.flush().await?;
    }
    outcome
}

impl Connection {
    async fn run(&mut self) -> Result<(), ConnectionError> {
        while let Some(received) = self.io.next().await? {
            // A long message counts as long as it is worked on.
            let Received {
                incoming,
                held: _message,
                ..
            } = received;
            let message = match incoming {
                Incoming::Message(message) => message,
                Incoming::Malformed { kind, error } => {
                    self.malformed(kind, error).await?;
                    continue;
                }
            };
            let extended = !matches!(message, PgWireFrontendMessage::Query(_));
            let outcome = match message {
                PgWireFrontendMessage::Terminate(_) => return Ok(()),
                PgWireFrontendMessage::Sync(_) => {
                    self.sync().await?;
                    continue;
                }
                _ if self.skipping => continue,
                PgWireFrontendMessage::Query(query) => self.simple_query(&query.query).await,
                PgWireFrontendMessage::Parse(parse) => self.parse(parse).await,
                PgWireFrontendMessage::Bind(bind) => self.bind(&bind).await,
                PgWireFrontendMessage::Describe(describe) => self.describe(&describe).await,
                PgWireFrontendMessage::Execute(execute) => self.execute(&execute).await,
                PgWireFrontendMessage::Close(close) => self.close(&close).await,
                PgWireFrontendMessage::Flush(_) => self.io.flush().await.map_err(Failure::from),
                // Left over from a COPY that failed while the client was still sending.
                PgWireFrontendMessage::CopyData(_)
                | PgWireFrontendMessage::CopyDone(_)
                | PgWireFrontendMessage::CopyFail(_) => Ok(()),
                _ => Err(Failure::from(Error::Protocol(
                    "unexpected message".to_owned(),
                ))),
            };
            if let Err(failure) = outcome {
                self.report(failure).await?;
                if extended {
                    self.skipping = true;
                }
                self.io.flush().await?;
            }
        }
        Ok(())
    }

    /// Answers a message that is none as it would have been answered if it had failed.
    async fn malformed(&mut self, kind: u8, error: Error) -> Result<(), ConnectionError> {
        match kind {
            frontend::SYNC => self.skipping = false,
            _ if self.skipping => return Ok(()),
            frontend::QUERY => {}
            // Left over from a COPY that failed while the client was still sending.
            frontend::COPY_DATA => return Ok(()),
            _ => {
                self.skipping = true;
                self.report(error.into()).await?;
                return self.io.flush().await;
            }
        }
        self.end_query(Err(error.into())).await
    }

    /// Tells the client about a failed statement; passes a failed connection on.
    async fn report(&mut self, failure: Failure) -> Result<(), ConnectionError> {
        let fields = match failure {
            Failure::Connection(error) => return Err(error),
            Failure::Statement(error) => {
                if sqlstate::is_bug(&error) {
                    tracing::error!(%error, "a statement met a bug");
                }
                sqlstate::fields(&error, "ERROR")
            }
        };
        self.session.fail_transaction();
        self.io
            .feed(PgWireBackendMessage::ErrorResponse(ErrorResponse::new(
                fields,
            )))
            .await
    }

    async fn ready(&mut self) -> Result<(), ConnectionError> {
        self.tell().await?;
        let status = match self.session.transaction_status() {
            TransactionStatus::Idle => WireStatus::Idle,
            TransactionStatus::InTransaction => WireStatus::Transaction,
            TransactionStatus::Failed => WireStatus::Error,
        };
        self.io
            .feed(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(
                status,
            )))
            .await?;
        self.io.flush().await
    }

    /// Sends notices and parameter changes that have come up.
    async fn tell(&mut self) -> Result<(), ConnectionError> {
        for notice in self.session.take_notices() {
            self.io.feed(notice_message(&notice)).await?;
        }
        for (name, value) in self.session.take_parameter_changes() {
            self.io
                .feed(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(
                    name, value,
                )))
                .await?;
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), ConnectionError> {
        let commit = !std::mem::take(&mut self.skipping);
        let ending = self.session.end_implicit(commit);
        if let Err(error) = self.io.see_through(ending).await {
            self.report(error.into()).await?;
        }
        if self.session.transaction_status() == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.ready().await
    }

    async fn simple_query(&mut self, sql: &str) -> Result<(), Failure> {
        let outcome = self.run_statements(sql).await;
        Ok(self.end_query(outcome).await?)
    }

    async fn end_query(&mut self, outcome: Result<(), Failure>) -> Result<(), ConnectionError> {
        let commit = outcome.is_ok();
        if let Err(failure) = outcome {
            self.report(failure).await?;
        }
        let ending = self.session.end_implicit(commit);
        if let Err(error) = self.io.see_through(ending).await {
            self.report(error.into()).await?;
        }
        if self.session.transaction_status() == TransactionStatus::Idle {
            self.portals.clear();
        }
        self.ready().await
    }

    async fn run_statements(&mut self, sql: &str) -> Result<(), Failure> {
        let statements = self.io.watch(self.session.parse(sql)).await??;
        if statements.is_empty() {
            self.io
                .feed(PgWireBackendMessage::EmptyQueryResponse(
                    EmptyQueryResponse::new(),
                ))
                .await?;
        }
        if statements.len() > 1 {
            self.session.begin_implicit();
        }
        for statement in &statements {
            let outcome = self.run_statement(statement, &[]).await?;
            match outcome {
                Outcome::Rows { verb, schema, rows } => {
                    let formats = Formats::text();
                    self.io
                        .feed(PgWireBackendMessage::RowDescription(RowDescription::new(
                            row_description(&schema, &formats)?,
                        )))
                        .await?;
                    let held = self.session.memory().nothing();
                    let mut running = Running::new(verb, schema, rows, held);
                    self.fetch(&mut running, &formats, None).await?;
                    self.complete(&running.tag()).await?;
                }
                other => self.finish(other).await?,
            }
        }
        Ok(())
    }

    /// Runs one statement up to its outcome.
    async fn run_statement(
        &mut self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<Outcome, Failure> {
        // Statements that `Parse` prepared and those of PREPARE are dropped by the same words.
        if let StatementKind::Deallocate(Some(name)) = &statement.kind
            && self.session.transaction_status() != TransactionStatus::Failed
            && self.statements.remove(&name.value).is_some()
        {
            return Ok(Outcome::Command {
                tag: "DEALLOCATE".to_owned(),
            });
        }
        let outcome = self
            .io
            .watch(self.session.execute(statement, parameters))
            .await??;
        if matches!(
            statement.kind,
            StatementKind::Deallocate(None) | StatementKind::Discard(DiscardTarget::All)
        ) {
            self.statements.clear();
        }
        self.tell().await?;
        Ok(outcome)
    }

    /// Sends an outcome that is not rows.
    async fn finish(&mut self, outcome: Outcome) -> Result<(), Failure> {
        match outcome {
            Outcome::Command { tag } => self.complete(&tag).await,
            Outcome::Empty => Ok(self
                .io
                .feed(PgWireBackendMessage::EmptyQueryResponse(
                    EmptyQueryResponse::new(),
                ))
                .await?),
            Outcome::CopyIn(copy) => self.copy_in(copy).await,
            Outcome::CopyOut {
                schema,
                options,
                rows,
            } => {
                let encoder = CopyEncoder::new(&schema, &options, self.session.time_zone())?;
                self.copy_out(&schema, encoder, rows).await
            }
            Outcome::Rows { .. } => Err(Failure::from(Error::Protocol(
                "rows where none were described".to_owned(),
            ))),
        }
    }

    pub(crate) async fn complete(&mut self, tag: &str) -> Result<(), Failure> {
        self.tell().await?;
        Ok(self
            .io
            .feed(PgWireBackendMessage::CommandComplete(CommandComplete::new(
                tag.to_owned(),
            )))
            .await?)
    }

    /// Sends rows, at most `limit` of them. Returns whether the result is at its end.
    async fn fetch(
        &mut self,
        running: &mut Running,
        formats: &Formats,
        limit: Option<u64>,
    ) -> Result<bool, Failure> {
        let mut left = limit.unwrap_or(u64::MAX);
        loop {
            if let Some((batch, start)) = running.batch.take() {
                let encoder =
                    RowEncoder::new(&running.schema, &batch, formats, self.session.time_zone())?;
                let mut row = start;
                while row < batch.num_rows() && left > 0 {
                    match encoder.long(row) {
                        Some(bytes) => {
                            // What is made for it exists beside the batch until it is written.
                            let made = self.session.memory().hold(bytes);
                            let _made = made.map_err(flowstone_coordinator::Error::from)?;
                            let pieces = long_work(|| encoder.pieces(row))?;
                            self.io.feed_pieces(pieces).await?;
                        }
                        None => {
                            let row = encoder.encode(row)?;
                            self.io.feed(PgWireBackendMessage::DataRow(row)).await?;
                        }
                    }
                    row += 1;
                    left -= 1;
                    running.sent += 1;
                    running.sent_in_all += 1;
                }
                if row < batch.num_rows() {
                    running.batch = Some((batch, row));
                } else {
                    drop(encoder);
                    drop(batch);
                    // It only shrinks: that cannot fail.
                    let _ = running.held.resize(0);
                }
            }
            if left == 0 {
                return Ok(false);
            }
            let next = match running.rows.next().now_or_never() {
                Some(next) => next,
                None => {
                    // Nothing more for now: what there is must not wait in the buffer.
                    self.tell().await?;
                    self.io.flush().await?;
                    self.io.watch(running.rows.next()).await?
                }
            };
            match next.transpose()? {
                Some(batch) => {
                    running
                        .held
                        .resize(size_of_batch(&batch))
                        .map_err(flowstone_coordinator::Error::from)?;
                    running.batch = Some((batch, 0));
                }
                None => return Ok(true),
            }
        }
    }

    async fn parse(&mut self, message: Parse) -> Result<(), Failure> {
        let name = message.name.unwrap_or_default();
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Error::DuplicateStatement(name).into());
        }
        let held = self.session.memory();
        let held = held.hold(flowstone_coordinator::statement_bytes(&message.query) + ENTRY_BYTES);
        let held = held.map_err(flowstone_coordinator::Error::from)?;
        let parsing = self.session.parse(&message.query);
        let mut statements = self.io.watch(parsing).await??;
        if statements.len() > 1 {
            return Err(Error::from(flowstone_sql::Error::syntax(
                "cannot insert multiple commands into a prepared statement",
            ))
            .into());
        }
        let statement = statements.pop();
        let hints: Vec<Option<SqlType>> = message
            .type_oids
            .iter()
            .map(|oid| crate::encode::type_of_oid(*oid))
            .collect();
        let description = match &statement {
            Some(statement) => {
                self.io
                    .watch(self.session.describe(statement, &hints))
                    .await??
            }
            None => Description {
                parameters: Vec::new(),
                columns: None,
            },
        };
        self.statements.insert(
            name,
            Arc::new(Prepared {
                statement,
                description,
                _held: held,
            }),
        );
        Ok(self
            .io
            .feed(PgWireBackendMessage::ParseComplete(ParseComplete::new()))
            .await?)
    }

    async fn bind(&mut self, message: &Bind) -> Result<(), Failure> {
        let name = message.statement_name.clone().unwrap_or_default();
        let prepared = self
            .statements
            .get(&name)
            .cloned()
            .ok_or_else(|| Error::UnknownStatement(name.clone()))?;
        let types = &prepared.description.parameters;
        if types.len() != message.parameters.len() {
            return Err(Failure::from(Error::Protocol(format!(
                "bind message supplies {} parameters, but prepared statement \"{name}\" requires {}",
                message.parameters.len(),
                types.len()
            ))));
        }
        let values = message.parameters.iter().flatten();
        let held = self
            .session
            .memory()
            .hold(ENTRY_BYTES + values.map(bytes::Bytes::len).sum::<usize>())
            .map_err(flowstone_coordinator::Error::from)?;
        let codes = Formats::from_codes(&message.parameter_format_codes);
        let mut parameters = Vec::with_capacity(types.len());
        for (index, (value, sql_type)) in itertools::zip_eq(&message.parameters, types).enumerate()
        {
            parameters.push(decode_parameter(
                value.as_deref(),
                sql_type,
                codes.is_binary(index),
                self.session.time_zone(),
            )?);
        }
        let formats = Formats::from_codes(&message.result_column_format_codes);
        let portal = Portal {
            prepared,
            parameters,
            formats,
            state: PortalState::Bound,
            _held: held,
        };
        let name = message.portal_name.clone().unwrap_or_default();
        if !name.is_empty() && self.portals.contains_key(&name) {
            return Err(Error::DuplicatePortal(name).into());
        }
        self.portals.insert(name, portal);
        Ok(self
            .io
            .feed(PgWireBackendMessage::BindComplete(BindComplete::new()))
            .await?)
    }

    async fn describe(&mut self, message: &Describe) -> Result<(), Failure> {
        let name = message.name.clone().unwrap_or_default();
        let (columns, formats) = if message.target_type == TARGET_TYPE_BYTE_STATEMENT {
            let prepared = self
                .statements
                .get(&name)
                .ok_or_else(|| Error::UnknownStatement(name.clone()))?;
            let types = prepared
                .description
                .parameters
                .iter()
                .map(SqlType::oid)
                .collect();
            let columns = prepared.description.columns.clone();
            self.io
                .feed(PgWireBackendMessage::ParameterDescription(
                    ParameterDescription::new(types),
                ))
                .await?;
            (columns, Formats::text())
        } else {
            match (self.portals.get(&name), self.session.cursor_schema(&name)) {
                (Some(portal), _) => (
                    portal.prepared.description.columns.clone(),
                    portal.formats.clone(),
                ),
                // A cursor that SQL declared is a portal too.
                (None, Some(schema)) => (Some(schema), Formats::text()),
                (None, None) => return Err(Error::UnknownPortal(name).into()),
            }
        };
        let message = match columns {
            Some(schema) => PgWireBackendMessage::RowDescription(RowDescription::new(
                row_description(&schema, &formats)?,
            )),
            None => PgWireBackendMessage::NoData(NoData::new()),
        };
        Ok(self.io.feed(message).await?)
    }

    async fn execute(&mut self, message: &Execute) -> Result<(), Failure> {
        let name = message.name.clone().unwrap_or_default();
        // The portal is taken out while it runs: a failure leaves none behind.
        let mut portal = self
            .portals
            .remove(&name)
            .ok_or_else(|| Error::UnknownPortal(name.clone()))?;
        if matches!(portal.state, PortalState::Running(_)) {
            self.session.resume();
        }
        if matches!(portal.state, PortalState::Bound) {
            let Some(statement) = &portal.prepared.statement else {
                self.io
                    .feed(PgWireBackendMessage::EmptyQueryResponse(
                        EmptyQueryResponse::new(),
                    ))
                    .await?;
                self.portals.insert(name, portal);
                return Ok(());
            };
            self.session.begin_implicit();
            let outcome = self.run_statement(statement, &portal.parameters).await?;
            match outcome {
                Outcome::Rows { verb, schema, rows } => {
                    let held = self.session.memory().nothing();
                    let running = Running::new(verb, schema, rows, held);
                    portal.state = PortalState::Running(Box::new(running));
                }
                other => {
                    self.finish(other).await?;
                    portal.state = PortalState::Finished;
                    self.portals.insert(name, portal);
                    return Ok(());
                }
            }
        }
        let limit = u64::try_from(message.max_rows)
            .ok()
            .filter(|limit| *limit > 0);
        match &mut portal.state {
            PortalState::Running(running) => {
                running.sent = 0;
                if self.fetch(running, &portal.formats, limit).await? {
                    let tag = running.tag();
                    portal.state = PortalState::Finished;
                    self.complete(&tag).await?;
                } else {
                    self.io
                        .feed(PgWireBackendMessage::PortalSuspended(PortalSuspended::new()))
                        .await?;
                }
            }
            PortalState::Bound | PortalState::Finished => self.complete("SELECT 0").await?,
        }
        self.portals.insert(name, portal);
        Ok(())
    }

    async fn close(&mut self, message: &Close) -> Result<(), Failure> {
        let name = message.name.clone().unwrap_or_default();
        if message.target_type == TARGET_TYPE_BYTE_STATEMENT {
            self.statements.remove(&name);
        } else {
            self.portals.remove(&name);
        }
        Ok(self
            .io
            .feed(PgWireBackendMessage::CloseComplete(CloseComplete::new()))
            .await?)
    }
}

/// Runs what may take longer than a thread that serves others has; they are served by another one meanwhile.
pub(crate) fn long_work<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// A notice as the client is sent it: at any time.
pub(crate) fn notice_message(notice: &Notice) -> PgWireBackendMessage {
    let severity = match notice.severity {
        Severity::Notice => "NOTICE",
        Severity::Warning => "WARNING",
    };
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', report::notice_code(notice.severity).to_owned()),
        (b'M', notice.message.clone()),
    ];
    fields.extend(notice.detail.clone().map(|detail| (b'D', detail)));
    fields.extend(notice.hint.clone().map(|hint| (b'H', hint)));
    PgWireBackendMessage::NoticeResponse(NoticeResponse::new(fields))
}
