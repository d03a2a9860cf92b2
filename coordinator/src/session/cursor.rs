//! Prepared statements by name, and cursors.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use flowstone_sql::ast::{Declare, Execute, Fetch, Ident, Prepare, Statement, StatementKind};
use flowstone_types::SqlType;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::transaction::{Class, Mode, Transaction};
use super::{Session, statement_bytes};
use crate::error::{Error, SessionError, TransactionError};
use crate::memory::{Held, size_of_batch};
use crate::outcome::{Outcome, RowStream};

/// A prepared statement.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) statement: Statement,
    pub(super) types: Vec<Option<SqlType>>,
    _held: Arc<Held>,
}

/// A cursor: a stream and what of its last batch was not fetched yet.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) schema: SchemaRef,
    rows: RowStream,
    rest: VecDeque<RecordBatch>,
    done: bool,
    /// A subscription gives what there is, a query all that was asked for.
    endless: bool,
}

/// How long a FETCH waits for rows.
#[derive(Clone, Copy, Debug)]
enum Patience {
    /// Until there are as many as asked for, or no more.
    Complete,
    /// Until there is at least one.
    First,
    /// Until then, whatever there is.
    Until(Instant),
    /// Not at all.
    None,
}

impl Cursor {
    fn take(&mut self, wanted: u64) -> Option<RecordBatch> {
        let batch = self.rest.pop_front()?;
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if batch.num_rows() <= wanted {
            return Some(batch);
        }
        self.rest
            .push_front(batch.slice(wanted, batch.num_rows() - wanted));
        Some(batch.slice(0, wanted))
    }

    /// Up to `count` rows.
    async fn fetch(
        &mut self,
        count: u64,
        patience: Patience,
        held: &mut Held,
    ) -> Result<Vec<RecordBatch>, Error> {
        let mut fetched = Vec::new();
        let mut missing = count;
        while missing > 0 {
            if let Some(batch) = self.take(missing) {
                missing -= u64::try_from(batch.num_rows())
                    .unwrap_or(u64::MAX)
                    .min(missing);
                if batch.num_rows() > 0 {
                    held.resize(held.bytes() + size_of_batch(&batch))?;
                    fetched.push(batch);
                }
                continue;
            }
            if self.done {
                break;
            }
            let next = self.rows.next();
            let next = match patience {
                Patience::Complete => Some(next.await),
                Patience::First if fetched.is_empty() => Some(next.await),
                Patience::First | Patience::None => next.now_or_never(),
                Patience::Until(at) => tokio::time::timeout_at(at, next).await.ok(),
            };
            match next {
                None => break,
                Some(None) => self.done = true,
                Some(Some(batch)) => self.rest.push_back(batch?),
            }
        }
        Ok(fetched)
    }
}

impl Session {
    pub(super) async fn prepare(&mut self, prepare: &Prepare) -> Result<Outcome, Error> {
        let name = prepare.name.value.clone();
        if self.prepared.contains_key(&name) {
            return Err(SessionError::DuplicatePrepared(name).into());
        }
        let types = prepare
            .types
            .iter()
            .map(|data_type| flowstone_sql::parse::parse_type(data_type).map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        // What is wrong with the statement is said now, as far as it does not depend on the parameters.
        self.describe_statement(&prepare.statement, &types).await?;
        let held = self
            .memory()
            .hold(statement_bytes(&prepare.statement.text))?;
        self.prepared.insert(
            name,
            Prepared {
                statement: (*prepare.statement).clone(),
                types,
                _held: Arc::new(held),
            },
        );
        Ok(Outcome::Command {
            tag: "PREPARE".to_owned(),
        })
    }

    /// The columns of an open cursor: a client protocol that has portals describes cursors as such.
    #[must_use]
    pub fn cursor_schema(&self, name: &str) -> Option<SchemaRef> {
        self.cursors
            .get(name)
            .map(|cursor| SchemaRef::clone(&cursor.schema))
    }

    pub(super) fn find_prepared(&self, name: &Ident) -> Result<Prepared, Error> {
        let found = self.prepared.get(&name.value).cloned();
        found.ok_or_else(|| SessionError::UnknownPrepared(name.value.clone()).into())
    }

    pub(super) async fn execute_prepared(&mut self, execute: &Execute) -> Result<Outcome, Error> {
        let Prepared {
            statement,
            types,
            _held,
        } = self.find_prepared(&execute.name)?;
        let description = self.describe_statement(&statement, &types).await?;
        if description.parameters.len() != execute.parameters.len() {
            let (expected, actual) = (description.parameters.len(), execute.parameters.len());
            return Err(SessionError::ParameterCount {
                name: execute.name.value.clone(),
                expected,
                actual,
            }
            .into());
        }
        let mut values: Vec<ArrayRef> = Vec::with_capacity(execute.parameters.len());
        for (expr, sql_type) in itertools::zip_eq(&execute.parameters, &description.parameters) {
            values.push(self.evaluate(expr, Some(sql_type)).await?);
        }
        self.remember_types(&statement, description.parameters)?;
        Box::pin(self.dispatch(&statement, &values)).await
    }

    pub(super) fn deallocate(&mut self, name: Option<&Ident>) -> Result<Outcome, Error> {
        let tag = match name {
            None => {
                self.prepared.clear();
                "DEALLOCATE ALL"
            }
            Some(name) => {
                self.find_prepared(name)?;
                self.prepared.remove(&name.value);
                "DEALLOCATE"
            }
        };
        Ok(Outcome::Command {
            tag: tag.to_owned(),
        })
    }

    pub(super) async fn declare(
        &mut self,
        declare: &Declare,
        parameters: &[ArrayRef],
    ) -> Result<Outcome, Error> {
        if !self.transaction.in_block() {
            return Err(TransactionError::Required("DECLARE CURSOR".to_owned()).into());
        }
        let name = declare.name.value.clone();
        if self.cursors.contains_key(&name) {
            return Err(SessionError::DuplicateCursor(name).into());
        }
        let statement = &*declare.statement;
        let (schema, rows, endless) = match &statement.kind {
            StatementKind::Query(query) => {
                let (schema, rows) = self.read(statement, query, parameters).await?;
                (schema, rows, false)
            }
            StatementKind::Subscribe(subscribe) => {
                self.enter(&Class::Subscribe).await?;
                let (schema, rows) = self.subscription(statement, subscribe, parameters).await?;
                if let Transaction::Explicit(mode) = &mut self.transaction {
                    *mode = Mode::Subscribe;
                }
                (schema, rows, true)
            }
            _ => {
                return Err(flowstone_sql::Error::unsupported(
                    "cursors over anything but queries and subscriptions",
                )
                .into());
            }
        };
        self.cursors.insert(
            name,
            Cursor {
                schema,
                rows,
                rest: VecDeque::new(),
                done: false,
                endless,
            },
        );
        Ok(Outcome::Command {
            tag: "DECLARE CURSOR".to_owned(),
        })
    }

    pub(super) async fn fetch(&mut self, fetch: &Fetch) -> Result<Outcome, Error> {
        if !self.transaction.in_block() {
            return Err(TransactionError::Required("FETCH".to_owned()).into());
        }
        let limits = self.limits.clone();
        let name = &fetch.name.value;
        let cursor = self
            .cursors
            .get_mut(name)
            .ok_or_else(|| SessionError::UnknownCursor(name.clone()))?;
        let patience = match (fetch.timeout, cursor.endless) {
            (Some(Duration::ZERO), _) => Patience::None,
            (Some(timeout), _) => Patience::Until(Instant::now() + timeout),
            (None, true) => Patience::First,
            (None, false) => Patience::Complete,
        };
        let mut held = self.memory.nothing();
        let batches = limits
            .run(cursor.fetch(fetch.count.unwrap_or(u64::MAX), patience, &mut held))
            .await?;
        let schema = std::sync::Arc::clone(&cursor.schema);
        Ok(Outcome::Rows {
            verb: "FETCH",
            schema,
            rows: RowStream::of_held(batches, held),
        })
    }

    pub(super) fn close(&mut self, name: Option<&Ident>) -> Result<Outcome, Error> {
        match name {
            None => self.cursors.clear(),
            Some(name) => {
                if self.cursors.remove(&name.value).is_none() {
                    return Err(SessionError::UnknownCursor(name.value.clone()).into());
                }
            }
        }
        let tag = if name.is_none() {
            "CLOSE CURSOR ALL"
        } else {
            "CLOSE CURSOR"
        };
        Ok(Outcome::Command {
            tag: tag.to_owned(),
        })
    }
}
