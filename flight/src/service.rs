//! The gRPC service: which call does what.
//!
//! Owns the dispatch of commands and actions. Must not know how statements run (`query`, `prepared`, `ingest`) or what the catalog holds (`catalog`).
//!
//! Invariants. A call ends when the node stops. Errors leave as [`crate::status`] has them.

use std::pin::Pin;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionBeginTransactionRequest, ActionBeginTransactionResult, ActionCancelQueryRequest,
    ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionEndTransactionRequest, Any, Command, CommandPreparedStatementQuery,
    CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult, DoPutUpdateResult,
    EndTransaction, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria,
    Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use flowstone_coordinator::{Outcome, statement_bytes};
use futures::{Stream, stream};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::auth::caller_of;
use crate::ingest::ingest;
use crate::prepared::{Bound, Prepared, parameters, row_of};
use crate::query::{Messages, Query, affected_by, empty, no_columns, rows_of, single};
use crate::sessions::{Caller, Lease, Sessions, Turn};
use crate::ticket::{PreparedTarget, QueryTicket, Target, TextTarget, queries_of};
use crate::upload::Upload;
use crate::wire::{WireSchema, parameter_schema, schema_bytes};
use crate::{Error, catalog, info, ticket};

/// The actions we have, and what each does.
const ACTIONS: [(&str, &str); 7] = [
    ("CreatePreparedStatement", "Prepares a statement."),
    ("ClosePreparedStatement", "Forgets a prepared statement."),
    ("BeginTransaction", "Begins a transaction."),
    ("EndTransaction", "Commits or rolls back a transaction."),
    (
        "CancelQuery",
        "Cancels a query by its FlightInfo (deprecated).",
    ),
    ("CancelFlightInfo", "Cancels a query by its FlightInfo."),
    ("CloseSession", "Ends the session of the bearer token."),
];

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The answer to `CloseSession`, which `arrow-flight` does not have.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct CloseSessionResult {
    /// 1 is closed.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The service. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    sessions: Arc<Sessions>,
}

impl Service {
    pub(crate) const fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions }
    }

    /// Runs a call unless the node stops.
    async fn call<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Status> {
        tokio::select! {
            biased;
            () = self.sessions.stop().cancelled() => Err(Error::Stopping.into()),
            outcome = work => Ok(outcome?),
        }
    }

    /// What a command would give: its schema, and the tickets to fetch it with.
    async fn info(
        &self,
        caller: &Caller,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Error> {
        let info = match ticket::command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => self.statement_info(caller, query).await?,
            Command::CommandPreparedStatementQuery(query) => {
                self.prepared_info(caller, &query).await?
            }
            command => {
                let schema = metadata_schema(&command)?;
                flight_info(&schema, Ticket::new(command.into_any().encode_to_vec()))?
            }
        };
        Ok(info.with_descriptor(descriptor))
    }

    async fn statement_info(
        &self,
        caller: &Caller,
        query: CommandStatementQuery,
    ) -> Result<FlightInfo, Error> {
        let lease = self
            .sessions
            .seat(caller, query.transaction_id.as_deref())
            .await?;
        let mut turn = lease.turn().await;
        let Some(statement) = single(&turn, &query.query).await? else {
            turn.settle();
            return done_info("");
        };
        lease.admit(&statement.kind)?;
        let description = turn.describe(&statement, &[]).await?;
        if !description.parameters.is_empty() {
            return Err(Error::Unbound);
        }
        let Some(columns) = description.columns else {
            let outcome = lease.run(&mut turn, &statement, &[]).await?;
            turn.settle();
            return done_info(&tag_of(outcome));
        };
        turn.settle();
        let ticket = QueryTicket::new(Target::Text(TextTarget {
            sql: query.query,
            transaction: query.transaction_id.map(|id| id.to_vec()),
        }));
        flight_info(&WireSchema::new(&columns)?.schema(), ticket.to_ticket())
    }

    async fn prepared_info(
        &self,
        caller: &Caller,
        query: &CommandPreparedStatementQuery,
    ) -> Result<FlightInfo, Error> {
        let handle = &query.prepared_statement_handle;
        let (prepared, lease) = self.sessions.prepared(caller, handle)?;
        let (binding, bound) = prepared.newest()?;
        let Some(columns) = &prepared.description.columns else {
            let tag = run_bound(&lease, &prepared, bound).await?.1;
            return done_info(&tag);
        };
        let ticket = QueryTicket::new(Target::Prepared(PreparedTarget {
            handle: handle.to_vec(),
            binding,
        }));
        flight_info(&WireSchema::new(columns)?.schema(), ticket.to_ticket())
    }

    /// The schema of what a command would give. Runs nothing.
    async fn schema(&self, caller: &Caller, descriptor: &FlightDescriptor) -> Result<Bytes, Error> {
        let columns = match ticket::command(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => {
                let transaction = query.transaction_id.as_deref();
                let lease = self.sessions.seat(caller, transaction).await?;
                let mut turn = lease.turn().await;
                let columns = match single(&turn, &query.query).await? {
                    Some(statement) => turn.describe(&statement, &[]).await?.columns,
                    None => None,
                };
                turn.settle();
                columns
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = &query.prepared_statement_handle;
                let (prepared, _) = self.sessions.prepared(caller, handle)?;
                prepared.description.columns.clone()
            }
            command => return schema_bytes(metadata_schema(&command)?.as_ref()),
        };
        schema_bytes(&WireSchema::new(&columns.unwrap_or_else(no_columns))?.schema())
    }

    /// What a ticket stands for.
    async fn fetch(&self, caller: &Caller, ticket: &Ticket) -> Result<Messages, Error> {
        let (id, target) = match ticket::command(&ticket.ticket)? {
            Command::TicketStatementQuery(statement) => QueryTicket::read(&statement)?,
            Command::CommandStatementQuery(query) => {
                let target = TextTarget {
                    sql: query.query,
                    transaction: query.transaction_id.map(|id| id.to_vec()),
                };
                (Uuid::new_v4(), Target::Text(target))
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle.to_vec();
                let (binding, _) = self.sessions.prepared(caller, &handle)?.0.newest()?;
                let target = PreparedTarget { handle, binding };
                (Uuid::new_v4(), Target::Prepared(target))
            }
            command => {
                let batch = self.metadata_rows(caller, command).await?;
                return Ok(rows_of(&batch.schema(), vec![batch]));
            }
        };
        let query = match target {
            Target::Done(tag) => return Ok(empty(&tag)),
            Target::Text(text) => self.text_query(caller, id, text).await?,
            Target::Prepared(prepared) => self.prepared_query(caller, id, &prepared)?,
        };
        match query {
            Some(query) => query.start().await,
            None => Ok(empty("")),
        }
    }

    async fn text_query(
        &self,
        caller: &Caller,
        id: Uuid,
        target: TextTarget,
    ) -> Result<Option<Query>, Error> {
        let lease = self
            .sessions
            .seat(caller, target.transaction.as_deref())
            .await?;
        let turn = lease.turn().await;
        let Some(statement) = single(&turn, &target.sql).await? else {
            turn.settle();
            return Ok(None);
        };
        turn.settle();
        Ok(Some(Query {
            lease,
            statement,
            runs: Box::new(std::iter::once(Vec::new())),
            fetch: self.sessions.start(id),
        }))
    }

    fn prepared_query(
        &self,
        caller: &Caller,
        id: Uuid,
        target: &PreparedTarget,
    ) -> Result<Option<Query>, Error> {
        let (prepared, lease) = self.sessions.prepared(caller, &target.handle)?;
        let bound = prepared.binding(target.binding)?;
        Ok(prepared.statement.clone().map(|statement| Query {
            lease,
            statement,
            runs: Box::new(bound.runs()),
            fetch: self.sessions.start(id),
        }))
    }

    async fn metadata_rows(&self, caller: &Caller, command: Command) -> Result<RecordBatch, Error> {
        let internal = |error: arrow_flight::error::FlightError| Error::Internal(error.to_string());
        match command {
            Command::CommandGetCatalogs(_) => {
                catalog::catalogs(&mut self.sessions.aside(caller).await?).await
            }
            Command::CommandGetDbSchemas(command) => {
                catalog::schemas(&mut self.sessions.aside(caller).await?, command).await
            }
            Command::CommandGetTables(command) => {
                catalog::tables(&mut self.sessions.aside(caller).await?, command).await
            }
            Command::CommandGetTableTypes(_) => catalog::table_types(),
            Command::CommandGetSqlInfo(command) => info::sql_info()?
                .record_batch(command.info)
                .map_err(internal),
            Command::CommandGetXdbcTypeInfo(command) => info::xdbc_types()?
                .record_batch(command.data_type)
                .map_err(internal),
            // We have no keys to tell of yet.
            command => Ok(RecordBatch::new_empty(metadata_schema(&command)?)),
        }
    }

    /// Takes data: updates, parameters, bulk ingest.
    async fn put(&self, caller: &Caller, messages: Streaming<FlightData>) -> Result<Bytes, Error> {
        let (command, upload) = Upload::open(messages).await?;
        let rows = match command {
            Command::CommandStatementUpdate(update) => self.update(caller, update).await?,
            // As a convenience, what is plain text.
            Command::CommandStatementQuery(query) => {
                let update = CommandStatementUpdate {
                    query: query.query,
                    transaction_id: query.transaction_id,
                };
                self.update(caller, update).await?
            }
            Command::CommandPreparedStatementUpdate(update) => {
                let (prepared, lease) = self
                    .sessions
                    .prepared(caller, &update.prepared_statement_handle)?;
                update_prepared(&lease, &prepared, upload).await?
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                let (prepared, _lease) = self.sessions.prepared(caller, &handle)?;
                bind(&prepared, upload).await?;
                let result = DoPutPreparedStatementResult {
                    prepared_statement_handle: Some(handle),
                };
                return Ok(result.encode_to_vec().into());
            }
            Command::CommandStatementIngest(command) => {
                let lease = self
                    .sessions
                    .seat(caller, command.transaction_id.as_deref())
                    .await?;
                ingest(&lease, &command, upload).await?
            }
            command => return Err(unsupported(&command)),
        };
        let result = DoPutUpdateResult { record_count: rows };
        Ok(result.encode_to_vec().into())
    }

    /// Runs the statements of a text for what they change; several are one transaction, as in a query string of PostgreSQL's.
    async fn update(&self, caller: &Caller, update: CommandStatementUpdate) -> Result<i64, Error> {
        let lease = self
            .sessions
            .seat(caller, update.transaction_id.as_deref())
            .await?;
        let mut turn = lease.turn().await;
        let statements = turn.parse(&update.query).await?;
        if statements.len() > 1 {
            turn.begin_implicit();
        }
        let mut rows = 0;
        for statement in &statements {
            let mut outcome = lease.run(&mut turn, statement, &[]).await?;
            rows += affected_by(&mut outcome).await?;
        }
        turn.end_implicit(true).await?;
        turn.settle();
        Ok(rows)
    }

    async fn action(&self, caller: &Caller, action: Action) -> Result<Option<Bytes>, Error> {
        let sessions = &self.sessions;
        let body = match action.r#type.as_str() {
            "CreatePreparedStatement" => {
                let prepared = self.prepare(caller, unpack(&action.body)?).await?;
                prepared.as_any().encode_to_vec()
            }
            "ClosePreparedStatement" => {
                let request: ActionClosePreparedStatementRequest = unpack(&action.body)?;
                sessions.forget(caller, &request.prepared_statement_handle);
                return Ok(None);
            }
            "BeginTransaction" => {
                let ActionBeginTransactionRequest {} = unpack(&action.body)?;
                let id = sessions.begin(caller).await?;
                let result = ActionBeginTransactionResult {
                    transaction_id: Bytes::copy_from_slice(id.as_bytes()),
                };
                result.as_any().encode_to_vec()
            }
            "EndTransaction" => {
                let request: ActionEndTransactionRequest = unpack(&action.body)?;
                let commit = match request.action() {
                    EndTransaction::Commit => true,
                    EndTransaction::Rollback => false,
                    EndTransaction::Unspecified => {
                        return Err(Error::Malformed(
                            "the action says neither commit nor rollback".to_owned(),
                        ));
                    }
                };
                sessions
                    .end(caller, &request.transaction_id, commit)
                    .await?;
                return Ok(None);
            }
            "CancelQuery" => {
                let request: ActionCancelQueryRequest = unpack(&action.body)?;
                let info = FlightInfo::decode(request.info)?;
                // The numbers mean the same in both enumerations.
                let result = i32::from(self.cancel(&info));
                ActionCancelQueryResult { result }.as_any().encode_to_vec()
            }
            "CancelFlightInfo" => {
                let request = CancelFlightInfoRequest::decode(action.body)?;
                let status = self.cancel(&request.info.unwrap_or_default());
                CancelFlightInfoResult::new(status).encode_to_vec()
            }
            "CloseSession" => {
                sessions.sign_out(caller);
                CloseSessionResult { status: 1 }.encode_to_vec()
            }
            other => return Err(Error::Unsupported(format!("action {other}"))),
        };
        Ok(Some(body.into()))
    }

    /// Ends the queries of a `FlightInfo` that are being fetched.
    fn cancel(&self, info: &FlightInfo) -> CancelStatus {
        let mut status = CancelStatus::NotCancellable;
        for id in queries_of(info) {
            if self.sessions.cancel(id) {
                status = CancelStatus::Cancelled;
            }
        }
        status
    }

    async fn prepare(
        &self,
        caller: &Caller,
        request: ActionCreatePreparedStatementRequest,
    ) -> Result<ActionCreatePreparedStatementResult, Error> {
        let lease = self
            .sessions
            .seat(caller, request.transaction_id.as_deref())
            .await?;
        let held = lease.memory().hold(statement_bytes(&request.query));
        let held = held.map_err(flowstone_coordinator::Error::from)?;
        let mut turn = lease.turn().await;
        let statement = single(&turn, &request.query).await?;
        let description = match &statement {
            Some(statement) => {
                lease.admit(&statement.kind)?;
                turn.describe(statement, &[]).await?
            }
            None => flowstone_coordinator::Description {
                parameters: Vec::new(),
                columns: None,
            },
        };
        turn.settle();
        let dataset = match &description.columns {
            Some(columns) => schema_bytes(&WireSchema::new(columns)?.schema())?,
            None => Bytes::new(),
        };
        let parameters = schema_bytes(&parameter_schema(&description.parameters))?;
        let prepared = Prepared::new(lease.seat(), statement, description, held);
        let handle = self.sessions.keep(prepared)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: Bytes::copy_from_slice(handle.as_bytes()),
            dataset_schema: dataset,
            parameter_schema: parameters,
        })
    }
}

fn unsupported(command: &Command) -> Error {
    let name = command.type_url().rsplit('.').next().unwrap_or_default();
    Error::Unsupported(format!("command {name}"))
}

fn unpack<M: ProstMessageExt>(body: &[u8]) -> Result<M, Error> {
    let any = Any::decode(body)?;
    any.unpack()
        .ok()
        .flatten()
        .ok_or_else(|| Error::Malformed("the action's body is another message".to_owned()))
}

fn tag_of(outcome: Outcome) -> String {
    match outcome {
        Outcome::Command { tag } => tag,
        Outcome::Empty | Outcome::Rows { .. } | Outcome::CopyIn(_) | Outcome::CopyOut { .. } => {
            String::new()
        }
    }
}

fn flight_info(schema: &SchemaRef, ticket: Ticket) -> Result<FlightInfo, Error> {
    Ok(FlightInfo::new()
        .try_with_schema(schema)?
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
        .with_ordered(true)
        .with_total_records(-1)
        .with_total_bytes(-1))
}

/// For a statement that was run already.
fn done_info(tag: &str) -> Result<FlightInfo, Error> {
    let ticket = QueryTicket::new(Target::Done(tag.to_owned()));
    Ok(flight_info(&no_columns(), ticket.to_ticket())?.with_app_metadata(tag.to_owned()))
}

/// The columns of the answer to a metadata command.
///
/// # Errors
/// [`Error::Unsupported`] if it is none of those.
fn metadata_schema(command: &Command) -> Result<SchemaRef, Error> {
    Ok(match command {
        Command::CommandGetCatalogs(command) => command.into_builder().schema(),
        Command::CommandGetDbSchemas(command) => command.clone().into_builder().schema(),
        Command::CommandGetTables(command) => command.clone().into_builder().schema(),
        Command::CommandGetTableTypes(command) => command.into_builder().schema(),
        Command::CommandGetSqlInfo(_) => info::sql_info()?.schema(),
        Command::CommandGetXdbcTypeInfo(_) => info::xdbc_types()?.schema(),
        Command::CommandGetPrimaryKeys(_) => SchemaRef::clone(&catalog::PRIMARY_KEYS),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => SchemaRef::clone(&catalog::FOREIGN_KEYS),
        other => return Err(unsupported(other)),
    })
}

/// Binds the values that follow.
async fn bind(prepared: &Prepared, mut upload: Upload) -> Result<(), Error> {
    let mut batches = Vec::new();
    if upload.schema().await?.is_some() {
        while let Some(batch) = upload.next().await? {
            batches.push(batch);
            Prepared::check_size(&batches)?;
        }
    }
    prepared.bind(&batches)
}

/// Runs a prepared statement for each row of parameters that follows; all of it is one transaction.
async fn update_prepared(
    lease: &Lease,
    prepared: &Prepared,
    mut upload: Upload,
) -> Result<i64, Error> {
    let types = &prepared.description.parameters;
    let Some(statement) = &prepared.statement else {
        return Ok(0);
    };
    let values_follow = !types.is_empty()
        && upload
            .schema()
            .await?
            .is_some_and(|schema| !schema.fields().is_empty());
    if !values_follow {
        let (_, bound) = prepared.newest()?;
        return Ok(run_bound(lease, prepared, bound).await?.0);
    }
    let mut turn = lease.turn().await;
    turn.begin_implicit();
    let mut rows = 0;
    while let Some(batch) = upload.next().await? {
        let columns = parameters(types, &batch, turn.time_zone())?;
        for row in 0..batch.num_rows() {
            let mut outcome = lease
                .run(&mut turn, statement, &row_of(&columns, row))
                .await?;
            rows += affected_by(&mut outcome).await?;
        }
    }
    finish(turn).await?;
    Ok(rows)
}

/// Runs a prepared statement that gives no rows for each row of bound parameters; all of it is one transaction. Returns the rows affected and the last tag.
async fn run_bound(
    lease: &Lease,
    prepared: &Prepared,
    bound: Arc<Bound>,
) -> Result<(i64, String), Error> {
    let Some(statement) = &prepared.statement else {
        return Ok((0, String::new()));
    };
    let mut turn = lease.turn().await;
    let mut runs = bound.runs().peekable();
    let (mut rows, mut tag) = (0, String::new());
    let mut first = true;
    while let Some(parameters) = runs.next() {
        if std::mem::take(&mut first) && runs.peek().is_some() {
            turn.begin_implicit();
        }
        let mut outcome = lease.run(&mut turn, statement, &parameters).await?;
        rows += affected_by(&mut outcome).await?;
        tag = tag_of(outcome);
    }
    finish(turn).await?;
    Ok((rows, tag))
}

/// Commits what an implicit transaction has staged.
async fn finish(mut turn: Turn) -> Result<(), Error> {
    turn.end_implicit(true).await?;
    turn.settle();
    Ok(())
}

fn one<T: Send + 'static>(answer: T) -> Answers<T> {
    Box::pin(stream::iter([Ok(answer)]))
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Messages;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Messages;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let caller = caller_of(&request)?;
        let token = self.call(self.sessions.sign_in(&caller)).await?;
        let payload = Bytes::from(token.to_string());
        let mut response = Response::new(one(HandshakeResponse {
            protocol_version: 0,
            payload,
        }));
        let bearer = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|error| Error::Internal(error.to_string()))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(
        &self,
        _: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let hint = "ListFlights: ask for tables with Flight SQL's GetTables";
        Err(Error::Unsupported(hint.to_owned()).into())
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let caller = caller_of(&request)?;
        let descriptor = request.into_inner();
        let info = self.call(self.info(&caller, descriptor)).await?;
        Ok(Response::new(info))
    }

    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let caller = caller_of(&request)?;
        let descriptor = request.into_inner();
        let info = self.call(self.info(&caller, descriptor)).await?;
        // Results stream: there is nothing to wait for.
        let poll = PollInfo::new().with_info(info).try_with_progress(1.0);
        Ok(Response::new(poll.map_err(Error::from)?))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let caller = caller_of(&request)?;
        let descriptor = request.into_inner();
        let schema = self.call(self.schema(&caller, &descriptor)).await?;
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Messages>, Status> {
        let caller = caller_of(&request)?;
        let ticket = request.into_inner();
        let messages = self.call(self.fetch(&caller, &ticket)).await?;
        Ok(Response::new(messages))
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = caller_of(&request)?;
        let messages = request.into_inner();
        let app_metadata = self.call(self.put(&caller, messages)).await?;
        Ok(Response::new(one(PutResult { app_metadata })))
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Messages>, Status> {
        Err(Error::Unsupported("DoExchange".to_owned()).into())
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = caller_of(&request)?;
        let action = request.into_inner();
        let body = self.call(self.action(&caller, action)).await?;
        let answers = body.map(|body| Ok(arrow_flight::Result { body }));
        Ok(Response::new(Box::pin(stream::iter(answers))))
    }

    async fn list_actions(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = ACTIONS.map(|(name, description)| {
            Ok(ActionType {
                r#type: name.to_owned(),
                description: description.to_owned(),
            })
        });
        Ok(Response::new(Box::pin(stream::iter(actions))))
    }
}
