//! INSERT, UPDATE, DELETE and COPY.
//!
//! A write is evaluated by the worker first ([`Command::StageWrite`]) and happens in an epoch later. An INSERT of constants may be one of several in a
//! transaction. What reads before it writes stands alone: it locks the tables it reads and writes, and if it reads what a source feeds, sources stand still
//! from the evaluation to the epoch. So nothing it read has changed when its rows appear. Nobody holds a lock while views that it reads are hydrated, and what
//! reads a paused one is refused.
//!
//! A transaction writes to all of its tables or to none: once it has their locks it looks whether each is still there, and what drops a table waits for its
//! lock before it begins.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow_schema::{Schema, SchemaRef};
use flowstone_proto::ipc::encode_batches;
use flowstone_proto::message::{Command, RequestError, StageWrite, WriteOperation};
use flowstone_sql::ast::{CopyDirection, CopyFormat, CopyRelation, CopyStatement, Statement};
use flowstone_sql::plan::{PlannedCopy, PlannedWrite, WriteKind, plan_copy_from, plan_write};
use flowstone_types::{ObjectId, SqlType};
use tokio::sync::oneshot;

use super::Session;
use super::read::{transitive_source_tables, transitive_tables};
use super::returning::{Returned, Returning};
use super::transaction::{Class, Mode};
use super::waits;
use crate::epochs::FreezeId;
use crate::error::{Error, SessionError, TransactionError};
use crate::event::{Event, Events};
use crate::locks::{Awaited, WriteGuard};
use crate::outcome::{CopyIn, CopyOptions, Outcome};
use crate::staged::StagedWrite;

/// Sources stand still while it exists, unless a write took it over.
struct Freeze {
    events: Events,
    id: Option<FreezeId>,
}

impl Drop for Freeze {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && !self.events.try_tell(Event::Thaw { id })
        {
            let events = self.events.clone();
            // The queue is full: sources must move again all the same.
            tokio::spawn(async move { drop(events.tell(Event::Thaw { id }).await) });
        }
    }
}

impl Session {
    pub(super) async fn write(
        &mut self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<Outcome, Error> {
        let planner = self.planner(statement);
        let types = self.parameter_types(statement, parameters);
        let (kind, bound) = (statement.kind.clone(), parameters.to_vec());
        let planned = planner
            .run(move |ctx| {
                let mut planned = plan_write(ctx, &kind, &types)?;
                planned.query = planned.query.bind(&bound)?;
                Ok(planned)
            })
            .await?;
        let kind = planned.kind;
        let (rows, returned) = if kind == WriteKind::Insert && planned.query.reads.is_empty() {
            self.enter(&Class::Write).await?;
            let (staged, returned) = self.stage_planned(planned, &[]).await?;
            (self.finish_write(vec![staged]).await?, returned)
        } else {
            self.read_then_write(planned).await?
        };
        let verb = match kind {
            WriteKind::Insert => "INSERT 0",
            WriteKind::Update => "UPDATE",
            WriteKind::Delete => "DELETE",
        };
        Ok(match returned {
            Some(returned) => returned.outcome(verb),
            None => Outcome::Command {
                tag: format!("{verb} {rows}"),
            },
        })
    }

    /// Returns how many rows it changed, and what its RETURNING gives of them.
    async fn read_then_write(
        &mut self,
        planned: PlannedWrite,
    ) -> Result<(u64, Option<Returned>), Error> {
        let what = match planned.kind {
            WriteKind::Insert => "INSERT INTO ... SELECT",
            WriteKind::Update => "UPDATE",
            WriteKind::Delete => "DELETE",
        };
        self.enter(&Class::Alone(what.to_owned())).await?;
        let catalog = self.parts.catalog.now();
        let mut tables: BTreeSet<ObjectId> = transitive_tables(&catalog, &planned.query.reads);
        tables.insert(planned.table);
        let reads_sources = !transitive_source_tables(&catalog, &planned.query.reads).is_empty();
        let limits = self.limits.clone();
        let reads = planned.query.reads.clone();
        let (_turn, lock, freeze) = loop {
            // Before others are kept waiting.
            self.run_reading(&reads, self.wait_visible(&reads)).await?;
            self.run_reading(&reads, self.wait_computed(&reads)).await?;
            // One such statement at a time, so that sources get their turn between two.
            let turn = if reads_sources {
                Some(
                    limits
                        .run_telling(waits::for_source_reads, async {
                            Ok(self.parts.write_locks.source_reads.lock().await)
                        })
                        .await?,
                )
            } else {
                None
            };
            let awaited = Awaited::default();
            let locking = self.parts.write_locks.exclusive(&tables, &awaited);
            let lock = self.locked(&awaited, locking).await?;
            // The wait for the locks may have been long.
            if !self.are_computed(&reads)? {
                continue;
            }
            if !reads_sources {
                break (turn, lock, None);
            }
            let freeze = limits.run(self.freeze_sources()).await?;
            // And so may this have been.
            if self.are_computed(&reads)? {
                break (turn, lock, Some(freeze));
            }
        };
        let catalog = self.parts.catalog.now();
        if tables.iter().any(|id| !catalog.items.contains_key(id)) {
            return Err(RequestError::Dropped.into());
        }
        let (staged, returned) = self.stage_planned(planned, &reads).await?;
        let rows = staged.rows();
        if rows > 0 {
            self.submit(vec![staged], lock, freeze).await?;
        }
        Ok((rows, returned))
    }

    async fn freeze_sources(&self) -> Result<Freeze, Error> {
        let id = self.parts.numbers.next_freeze();
        let (done, frozen) = oneshot::channel();
        self.parts.events.tell(Event::Freeze { id, done }).await?;
        let freeze = Freeze {
            events: self.parts.events.clone(),
            id: Some(id),
        };
        frozen.await.map_err(|_| self.parts.liveness.gone())?;
        Ok(freeze)
    }

    async fn operation(&self, planned: PlannedWrite) -> Result<WriteOperation, Error> {
        let PlannedWrite {
            table, kind, query, ..
        } = planned;
        let system = self.system_relations(&query.system)?;
        let encoding = crate::planning::blocking(move || query.encode().map_err(Error::from));
        let query = self.limits.run(encoding).await?;
        Ok(match kind {
            WriteKind::Insert => WriteOperation::Insert {
                table,
                query,
                system,
            },
            WriteKind::Update => WriteOperation::Update {
                table,
                query,
                system,
            },
            WriteKind::Delete => WriteOperation::Delete {
                table,
                query,
                system,
            },
        })
    }

    /// Waits for locks, and tells the client for which.
    pub(super) async fn locked(
        &self,
        awaited: &Awaited,
        locking: impl Future<Output = WriteGuard>,
    ) -> Result<WriteGuard, Error> {
        let what = || waits::for_lock(&self.parts.catalog, awaited.table());
        self.limits
            .run_telling(what, async { Ok(locking.await) })
            .await
    }

    /// Has the worker evaluate a statement, which reads `reads`; with what its RETURNING gives.
    async fn stage_planned(
        &self,
        planned: PlannedWrite,
        reads: &[ObjectId],
    ) -> Result<(StagedWrite, Option<Returned>), Error> {
        let (table, returning) = (planned.table, planned.returning.clone());
        let operation = self.operation(planned).await?;
        self.stage(table, operation, reads, returning).await
    }

    /// Has the worker evaluate a write, which reads `reads`, and takes the rows of `returning` that it gives.
    async fn stage(
        &self,
        table: ObjectId,
        operation: WriteOperation,
        reads: &[ObjectId],
        returning: Option<SchemaRef>,
    ) -> Result<(StagedWrite, Option<Returned>), Error> {
        self.parts.headroom.check_room()?;
        let name = match self.parts.catalog.now().items.get(&table) {
            Some(item) => item.name.clone(),
            None => return Err(RequestError::Dropped.into()),
        };
        let write = self.parts.numbers.next_request();
        // From here on, dropping it discards the write.
        let held = self.memory.hold(size_of_operation(&operation))?;
        let mut staged = StagedWrite::new(Arc::clone(&self.parts.worker), write, table, name, held);
        let (answer, answered) = oneshot::channel();
        self.parts
            .worker
            .waiters
            .lock()
            .writes
            .insert(write, answer);
        let returning = returning.map(|schema| {
            let schema = super::stream::nullable(&schema);
            Returning::open(&self.parts.worker, write, schema, self.memory.nothing())
        });
        let work = async {
            self.parts
                .worker
                .send(Command::StageWrite(StageWrite {
                    write,
                    operations: vec![operation],
                }))
                .await?;
            let answer = async {
                let answer = answered.await.map_err(|_| self.parts.liveness.gone())?;
                Ok::<_, Error>(answer?)
            };
            match returning {
                Some(returning) => {
                    let (answer, returned) = tokio::try_join!(answer, returning.collect())?;
                    Ok((answer, Some(returned)))
                }
                None => Ok((answer.await?, None)),
            }
        };
        let (answer, returned) = self.run_reading(reads, work).await?;
        staged.evaluated(answer)?;
        if let Some(returned) = &returned
            && returned.count() != staged.rows()
        {
            let message = "a write did not give as many rows as it changed";
            return Err(Error::Internal(message.to_owned()));
        }
        Ok((staged, returned))
    }

    /// Keeps a staged INSERT, in one piece or several, for the end of its transaction, or commits it if there is none. Returns the rows.
    async fn finish_write(&mut self, staged: Vec<StagedWrite>) -> Result<u64, Error> {
        let rows = staged.iter().map(StagedWrite::rows).sum();
        match self.transaction.mode() {
            None => self.commit_writes(staged).await?,
            Some(Mode::Write(waiting)) => waiting.extend(staged),
            Some(mode) => *mode = Mode::Write(staged),
        }
        Ok(rows)
    }

    /// Makes staged INSERTs happen in one epoch; returns when everybody can see them.
    pub(super) async fn commit_writes(&self, staged: Vec<StagedWrite>) -> Result<(), Error> {
        let tables = staged.iter().map(|write| write.table).collect();
        let awaited = Awaited::default();
        let locking = self.parts.write_locks.shared(&tables, &awaited);
        let lock = self.locked(&awaited, locking).await?;
        let catalog = self.parts.catalog.now();
        if let Some(gone) = staged
            .iter()
            .find(|write| !catalog.items.contains_key(&write.table))
        {
            let table = gone.name.clone();
            return Err(TransactionError::TableDropped { table }.into());
        }
        self.submit(staged, lock, None).await
    }

    /// Not cancelled half way: once the epoch is asked for, the write happens; until then dropping it discards the write and lets sources move again.
    async fn submit(
        &self,
        mut staged: Vec<StagedWrite>,
        lock: WriteGuard,
        freeze: Option<Freeze>,
    ) -> Result<(), Error> {
        let room = self.parts.events.reserve().await?;
        let bytes = staged.iter().map(StagedWrite::bytes).sum();
        // They count until the epoch has taken them.
        let requests = staged.iter_mut().filter_map(StagedWrite::release).collect();
        let (done, finished) = oneshot::channel();
        room.send(Event::Write {
            requests,
            bytes,
            id: self.parts.numbers.next_write(),
            freeze: freeze.and_then(|mut freeze| freeze.id.take()),
            lock,
            done,
        });
        let what = || waits::for_durability(&self.parts.raft);
        let finished = self.limits.notices.while_waiting(what, finished).await;
        finished.map_err(|_| self.parts.liveness.gone())??;
        Ok(())
    }

    pub(super) async fn copy(
        &mut self,
        statement: &Statement,
        copy: &CopyStatement,
    ) -> Result<Outcome, Error> {
        let options = copy_options(copy);
        match copy.direction {
            CopyDirection::FromStdin => {
                self.transaction.admit(&Class::Write)?;
                let planned = self.plan_copy(statement, copy).await?;
                Ok(Outcome::CopyIn(CopyIn {
                    schema: copy_schema(&planned),
                    options,
                    planned,
                    defaults: None,
                    staged: Vec::new(),
                }))
            }
            CopyDirection::ToStdout => {
                let (schema, rows) = match &copy.relation {
                    CopyRelation::Table { name, columns } => {
                        let list = if columns.is_empty() {
                            "*".to_owned()
                        } else {
                            columns
                                .iter()
                                .map(ToString::to_string)
                                .collect::<Vec<_>>()
                                .join(", ")
                        };
                        let query = flowstone_sql::parse::parse_query(&format!(
                            "SELECT {list} FROM {name}"
                        ))?;
                        let query = flowstone_sql::ast::QueryStatement { query, as_of: None };
                        let nowhere = Statement {
                            kind: statement.kind.clone(),
                            text: String::new(),
                            offset: usize::MAX,
                        };
                        self.read(&nowhere, &query, &[]).await?
                    }
                    CopyRelation::Query(query) => self.read(statement, query, &[]).await?,
                    CopyRelation::Subscribe(subscribe) => {
                        self.subscription(statement, subscribe, &[]).await?
                    }
                };
                Ok(Outcome::CopyOut {
                    schema,
                    options,
                    rows,
                })
            }
        }
    }

    async fn plan_copy(
        &self,
        statement: &Statement,
        copy: &CopyStatement,
    ) -> Result<PlannedCopy, Error> {
        let CopyRelation::Table { name, columns } = &copy.relation else {
            return Err(flowstone_sql::Error::syntax("COPY FROM needs a table").into());
        };
        let name: Vec<String> = name.parts.iter().map(|part| part.value.clone()).collect();
        let columns: Vec<String> = columns.iter().map(|column| column.value.clone()).collect();
        self.planner(statement)
            .run(move |ctx| plan_copy_from(ctx, &name, &columns))
            .await
    }

    /// Takes rows of a `COPY … FROM STDIN`, with the columns of [`CopyIn::schema`]: they are checked and kept in the worker until the copy ends.
    ///
    /// # Errors
    /// [`Error::Request`] if a row breaks a constraint; [`Error::Memory`] if there are too many for one transaction; as [`Session::execute`]. The copy has failed then, and is to be
    /// dropped.
    pub async fn copy_rows(
        &mut self,
        copy: &mut CopyIn,
        rows: Vec<RecordBatch>,
    ) -> Result<(), Error> {
        let result = Box::pin(self.stage_copied(copy, rows)).await;
        if result.is_err() {
            return self.finish_statement(result);
        }
        result
    }

    /// Ends a `COPY … FROM STDIN`: all its rows appear at once, or with its transaction. Returns the command tag.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn copy_end(&mut self, copy: CopyIn) -> Result<String, Error> {
        self.start_statement();
        let result = Box::pin(self.finish_copy(copy)).await;
        self.finish_statement(result)
    }

    async fn finish_copy(&mut self, mut copy: CopyIn) -> Result<String, Error> {
        if copy.staged.is_empty() {
            // The table must still be there.
            self.stage_copied(&mut copy, Vec::new()).await?;
        }
        let rows = self.finish_write(copy.staged).await?;
        Ok(format!("COPY {rows}"))
    }

    async fn stage_copied(
        &mut self,
        copy: &mut CopyIn,
        rows: Vec<RecordBatch>,
    ) -> Result<(), Error> {
        self.enter(&Class::Write).await?;
        let planned = &copy.planned;
        let defaults = match &copy.defaults {
            Some(defaults) => defaults,
            // Once for all rows: a default is a stable expression.
            None => copy.defaults.insert(self.copy_defaults(planned).await?),
        };
        let schema = super::stream::nullable(&planned.schema);
        let batches = rows
            .iter()
            .map(|batch| whole_rows(planned, defaults, batch))
            .collect::<Result<Vec<_>, _>>()?;
        drop(rows);
        let encode = move || Ok(encode_batches(&schema, &batches)?);
        let operation = WriteOperation::InsertRows {
            table: planned.table,
            rows: crate::planning::blocking(encode).await?,
        };
        let (staged, _) = self.stage(planned.table, operation, &[], None).await?;
        copy.staged.push(staged);
        Ok(())
    }

    /// The values of the columns that the client does not send.
    async fn copy_defaults(&self, planned: &PlannedCopy) -> Result<Vec<(usize, ArrayRef)>, Error> {
        let mut defaults = Vec::new();
        for (column, text) in &planned.defaults {
            let field = planned.schema.fields().get(*column);
            let Some(field) = field else {
                return Err(Error::Internal("a default has no column".to_owned()));
            };
            let value = match text {
                Some(text) => {
                    let sql_type = SqlType::from_field(field)
                        .map_err(|error| Error::Internal(error.to_string()))?;
                    self.evaluate(&flowstone_sql::parse::parse_expr(text)?, Some(&sql_type))
                        .await?
                }
                None => new_null_array(field.data_type(), 1),
            };
            defaults.push((*column, value));
        }
        Ok(defaults)
    }
}

/// What a write takes before it is evaluated.
const fn size_of_operation(operation: &WriteOperation) -> usize {
    match operation {
        WriteOperation::InsertRows { rows, .. } => rows.len(),
        WriteOperation::Insert { query, .. }
        | WriteOperation::Update { query, .. }
        | WriteOperation::Delete { query, .. } => query.bytes.len(),
    }
}

/// The columns a client sends.
fn copy_schema(planned: &PlannedCopy) -> arrow_schema::SchemaRef {
    let fields = planned
        .columns
        .iter()
        .filter_map(|index| planned.schema.fields().get(*index));
    Arc::new(Schema::new(
        fields
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect::<Vec<_>>(),
    ))
}

/// Puts what the client sent where it belongs, and defaults where it sent nothing.
fn whole_rows(
    planned: &PlannedCopy,
    defaults: &[(usize, ArrayRef)],
    sent: &RecordBatch,
) -> Result<RecordBatch, Error> {
    if sent.num_columns() != planned.columns.len() {
        let message = format!(
            "expected {} columns, got {}",
            planned.columns.len(),
            sent.num_columns()
        );
        return Err(SessionError::CopyMismatch(message).into());
    }
    let count = sent.num_rows();
    let first = UInt32Array::from(vec![0; count]);
    let mut columns = Vec::with_capacity(planned.schema.fields().len());
    for index in 0..planned.schema.fields().len() {
        let sent_at = planned.columns.iter().position(|column| *column == index);
        let column = match (
            sent_at,
            defaults.iter().find(|(column, _)| *column == index),
        ) {
            (Some(at), _) => Arc::clone(sent.column(at)),
            (None, Some((_, value))) => arrow_select::take::take(value, &first, None)?,
            (None, None) => {
                return Err(Error::Internal("a column of COPY has no value".to_owned()));
            }
        };
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(super::stream::nullable(&planned.schema), columns, &options)
        .map_err(|error| SessionError::CopyMismatch(error.to_string()).into())
}

fn copy_options(copy: &CopyStatement) -> CopyOptions {
    let text = copy.format == CopyFormat::Text;
    CopyOptions {
        format: copy.format,
        delimiter: copy.delimiter.unwrap_or(if text { '\t' } else { ',' }),
        null: copy.null.clone().unwrap_or_else(|| {
            if text {
                "\\N".to_owned()
            } else {
                String::new()
            }
        }),
        header: copy.header,
        quote: copy.quote.unwrap_or('"'),
        escape: copy.escape.or(copy.quote).unwrap_or('"'),
    }
}
