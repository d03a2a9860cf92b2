//! One connection, from the open session on: a loop over messages.
//!
//! Owns prepared statements, portals and the rule that after an error in the extended protocol everything up to `Sync` is passed over.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::SchemaRef;
use flowstone_coordinator::{
    Client, CopyIn, Description, Notice, Outcome, RowStream, Session, Severity, TransactionStatus,
    report,
};
use flowstone_sql::ast::{DiscardTarget, Statement, StatementKind};
use flowstone_types::SqlType;
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt, SinkExt, StreamExt};
use pgwire::error::PgWireError;
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
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
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::codec::Framed;

use crate::Error;
use crate::copy::{CopyDecoder, CopyEncoder};
use crate::encode::{Formats, RowEncoder, decode_parameter, row_description};
use crate::frontend::{self, Codec, Incoming};
use crate::server::Security;
use crate::{sqlstate, startup};

/// Messages read ahead while a statement runs (a pipelining client sends many). Beyond that the client waits.
const READ_AHEAD_MAX: usize = 4096;

/// Encoded bytes that are written to the socket at once. With the codec's 8 KiB, a result is a conversation of a hundred rows at a time: on a busy machine
/// each turn of it waits for both sides to be scheduled.
const WRITE_BYTES: usize = 64 << 10;

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

/// Both directions of the socket.
struct Io {
    reader: SplitStream<Socket>,
    writer: SplitSink<Socket, PgWireBackendMessage>,
    ahead: VecDeque<Incoming>,
}

impl Io {
    async fn next(&mut self) -> Result<Option<Incoming>, ConnectionError> {
        match self.ahead.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.reader.next().await.transpose(),
        }
    }

    async fn feed(&mut self, message: PgWireBackendMessage) -> Result<(), ConnectionError> {
        self.writer.feed(message).await
    }

    async fn flush(&mut self) -> Result<(), ConnectionError> {
        self.writer.flush().await
    }

    /// Runs `work` while watching the socket: what the client sends is kept for later, its going away is an error.
    async fn watch<T>(&mut self, work: impl Future<Output = T>) -> Result<T, ConnectionError> {
        tokio::pin!(work);
        loop {
            if self.ahead.len() >= READ_AHEAD_MAX {
                return Ok(work.await);
            }
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                message = self.reader.next() => match message {
                    Some(Ok(Incoming::Message(PgWireFrontendMessage::Terminate(_)))) | None => return Err(ConnectionError::Gone),
                    Some(message) => self.ahead.push_back(message?),
                },
            }
        }
    }
}

/// A statement that was parsed and described.
#[derive(Debug)]
struct Prepared {
    /// `None` for an empty query.
    statement: Option<Statement>,
    description: Description,
}

/// A bound statement and, once it runs, its result.
#[derive(Debug)]
struct Portal {
    prepared: Arc<Prepared>,
    parameters: Vec<ArrayRef>,
    formats: Formats,
    state: PortalState,
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
    batch: Option<(arrow_array::RecordBatch, usize)>,
    sent: u64,
}

struct Connection {
    io: Io,
    session: Session,
    statements: HashMap<String, Arc<Prepared>>,
    portals: HashMap<String, Portal>,
    /// After an error in the extended protocol: everything up to `Sync` is passed over.
    skipping: bool,
}

/// Serves one connection until the client ends it.
///
/// `handshake` is held until the session is open: it bounds how many clients are on the way there.
///
/// # Errors
/// [`ConnectionError`] if the socket fails or the client breaks the protocol.
pub async fn serve(
    socket: TcpStream,
    client: Client,
    security: Security,
    handshake: OwnedSemaphorePermit,
) -> Result<(), ConnectionError> {
    let Some((mut socket, session)) = startup::open(socket, &client, &security).await? else {
        return Ok(());
    };
    drop(handshake);
    socket.set_backpressure_boundary(WRITE_BYTES);
    let (writer, reader) = socket.split();
    let io = Io {
        reader,
        writer,
        ahead: VecDeque::new(),
    };
    let mut connection = Connection {
        io,
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
        while let Some(incoming) = self.io.next().await? {
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
            self.io
                .feed(PgWireBackendMessage::NoticeResponse(NoticeResponse::new(
                    notice_fields(&notice),
                )))
                .await?;
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
        if let Err(error) = self.session.end_implicit(commit).await {
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
        if let Err(error) = self.session.end_implicit(commit).await {
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
                    let mut running = Running {
                        verb,
                        schema,
                        rows,
                        batch: None,
                        sent: 0,
                    };
                    self.fetch(&mut running, &formats, None).await?;
                    self.complete(&format!("{} {}", running.verb, running.sent))
                        .await?;
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
                self.copy_out(&schema, CopyEncoder::new(&schema, &options)?, rows)
                    .await
            }
            Outcome::Rows { .. } => Err(Failure::from(Error::Protocol(
                "rows where none were described".to_owned(),
            ))),
        }
    }

    async fn complete(&mut self, tag: &str) -> Result<(), Failure> {
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
                let encoder = RowEncoder::new(&running.schema, &batch, formats)?;
                let mut row = start;
                while row < batch.num_rows() && left > 0 {
                    self.io
                        .feed(PgWireBackendMessage::DataRow(encoder.encode(row)?))
                        .await?;
                    row += 1;
                    left -= 1;
                    running.sent += 1;
                }
                if row < batch.num_rows() {
                    running.batch = Some((batch, row));
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
                Some(batch) => running.batch = Some((batch, 0)),
                None => return Ok(true),
            }
        }
    }

    async fn parse(&mut self, message: Parse) -> Result<(), Failure> {
        let name = message.name.unwrap_or_default();
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Error::DuplicateStatement(name).into());
        }
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
        let codes = Formats::from_codes(&message.parameter_format_codes);
        let mut parameters = Vec::with_capacity(types.len());
        for (index, (value, sql_type)) in itertools::zip_eq(&message.parameters, types).enumerate()
        {
            parameters.push(decode_parameter(
                value.as_deref(),
                sql_type,
                codes.is_binary(index),
            )?);
        }
        let formats = Formats::from_codes(&message.result_column_format_codes);
        let portal = Portal {
            prepared,
            parameters,
            formats,
            state: PortalState::Bound,
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
                    portal.state = PortalState::Running(Box::new(Running {
                        verb,
                        schema,
                        rows,
                        batch: None,
                        sent: 0,
                    }));
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
                    let tag = format!("{} {}", running.verb, running.sent);
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

    async fn copy_in(&mut self, copy: CopyIn) -> Result<(), Failure> {
        let mut decoder = CopyDecoder::new(&copy.schema, &copy.options)?;
        let (format, columns) = (i8::from(decoder.is_binary()), copy.schema.fields().len());
        let response =
            CopyInResponse::new(format, count(columns), vec![i16::from(format); columns]);
        self.io
            .feed(PgWireBackendMessage::CopyInResponse(response))
            .await?;
        self.io.flush().await?;
        let mut batches = Vec::new();
        loop {
            match self.io.next().await? {
                None => return Err(ConnectionError::Gone.into()),
                Some(Incoming::Malformed { error, .. }) => return Err(error.into()),
                Some(Incoming::Message(PgWireFrontendMessage::CopyData(data))) => {
                    batches.extend(decoder.decode(&data.data)?)
                }
                Some(Incoming::Message(PgWireFrontendMessage::CopyDone(_))) => break,
                Some(Incoming::Message(PgWireFrontendMessage::CopyFail(fail))) => {
                    return Err(Error::CopyAbandoned(fail.message).into());
                }
                // Drivers pipeline these behind the statement that starts the copy.
                Some(Incoming::Message(
                    PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Sync(_),
                )) => {}
                Some(Incoming::Message(_)) => {
                    return Err(Failure::from(Error::Protocol(
                        "unexpected message type during COPY from stdin".to_owned(),
                    )));
                }
            }
        }
        batches.extend(decoder.finish()?);
        let tag = self.io.watch(self.session.copy_in(copy, batches)).await??;
        self.complete(&tag).await
    }

    async fn copy_out(
        &mut self,
        schema: &SchemaRef,
        mut encoder: CopyEncoder,
        mut rows: RowStream,
    ) -> Result<(), Failure> {
        let (format, columns) = (i8::from(encoder.is_binary()), schema.fields().len());
        let response =
            CopyOutResponse::new(format, count(columns), vec![i16::from(format); columns]);
        self.io
            .feed(PgWireBackendMessage::CopyOutResponse(response))
            .await?;
        if let Some(header) = encoder.header() {
            self.io
                .feed(PgWireBackendMessage::CopyData(CopyData::new(header)))
                .await?;
        }
        let mut sent = 0_u64;
        loop {
            let next = match rows.next().now_or_never() {
                Some(next) => next,
                None => {
                    self.io.flush().await?;
                    self.io.watch(rows.next()).await?
                }
            };
            let Some(batch) = next.transpose()? else {
                break;
            };
            for line in encoder.encode(&batch)? {
                self.io
                    .feed(PgWireBackendMessage::CopyData(CopyData::new(line)))
                    .await?;
                sent += 1;
            }
        }
        if let Some(trailer) = encoder.trailer() {
            self.io
                .feed(PgWireBackendMessage::CopyData(CopyData::new(trailer)))
                .await?;
        }
        self.io
            .feed(PgWireBackendMessage::CopyDone(CopyDone::new()))
            .await?;
        self.complete(&format!("COPY {sent}")).await
    }
}

fn count(columns: usize) -> i16 {
    i16::try_from(columns).unwrap_or(i16::MAX)
}

fn notice_fields(notice: &Notice) -> Vec<(u8, String)> {
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
    fields
}
