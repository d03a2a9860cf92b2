//! SET, SHOW, RESET, DISCARD, and the statements that begin and end transactions.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{Schema, SchemaRef};
use flowstone_sql::ast::{
    DiscardTarget, IsolationLevel, ResetVariable, SetTransaction, SetValue, SetVariable,
    ShowVariable, TransactionMode,
};
use flowstone_types::SqlType;

use super::Session;
use super::transaction::{Mode, Transaction};
use crate::error::{Error, TransactionError};
use crate::notices::Notice;
use crate::outcome::{Outcome, RowStream};

/// A schema of text columns.
pub(super) fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(
        names
            .iter()
            .map(|name| SqlType::Text.to_field(name, true))
            .collect::<Vec<_>>(),
    ))
}

/// Rows of text.
pub(super) fn text_rows(schema: &SchemaRef, columns: Vec<Vec<String>>) -> Result<RowStream, Error> {
    let columns = columns
        .into_iter()
        .map(|column| -> ArrayRef { Arc::new(StringArray::from(column)) })
        .collect();
    Ok(RowStream::of(vec![RecordBatch::try_new(
        Arc::clone(schema),
        columns,
    )?]))
}

fn command(tag: &str) -> Outcome {
    Outcome::Command {
        tag: tag.to_owned(),
    }
}

const fn level_name(level: IsolationLevel) -> &'static str {
    match level {
        IsolationLevel::ReadUncommitted => "read uncommitted",
        IsolationLevel::ReadCommitted => "read committed",
        IsolationLevel::RepeatableRead => "repeatable read",
        IsolationLevel::Serializable => "serializable",
        IsolationLevel::StrongSessionSerializable => "strong session serializable",
        IsolationLevel::StrictSerializable => "strict serializable",
    }
}

impl Session {
    pub(super) fn set_variable(&mut self, set: &SetVariable) -> Result<Outcome, Error> {
        let isolation = matches!(
            set.name.as_str(),
            "transaction_isolation" | "transaction isolation level"
        );
        if isolation && self.has_read_or_written() {
            return Err(TransactionError::IsolationAfterQuery.into());
        }
        if set.local && !self.transaction.in_block() {
            self.notices.push(Notice::warning(
                "SET LOCAL can only be used in transaction blocks",
            ));
        }
        match &set.value {
            SetValue::Default => self.variables.reset(&set.name, set.local)?,
            SetValue::Values(values) => {
                self.variables.set(&set.name, values, set.local)?;
                self.note_missing(&set.name, values);
                if isolation && !self.transaction.in_block() && !set.local {
                    // Outside of a block it is what the session's transactions are to have.
                    self.variables
                        .set("default_transaction_isolation", values, false)?;
                }
            }
        }
        Ok(command("SET"))
    }

    /// A notice where the session now points at something that does not exist.
    fn note_missing(&mut self, name: &str, values: &[String]) {
        if self
            .variables
            .get("current_object_missing_warnings")
            .is_some_and(|value| value == "off")
        {
            return;
        }
        let catalog = self.parts.catalog.now();
        for value in values {
            match name {
                "database" if !catalog.databases.values().any(|known| &known.name == value) => {
                    self.notices
                        .push(Notice::new(format!("database \"{value}\" does not exist")));
                }
                "search_path" | "schema"
                    if !catalog.schemas.values().any(|known| &known.name == value) =>
                {
                    self.notices
                        .push(Notice::new(format!("schema \"{value}\" does not exist")));
                }
                "cluster" if catalog.reading_cluster(value).is_err() => {
                    self.notices
                        .push(Notice::new(format!("cluster \"{value}\" does not exist")));
                }
                _ => {}
            }
        }
    }

    const fn has_read_or_written(&self) -> bool {
        !matches!(
            self.transaction,
            Transaction::Idle
                | Transaction::Failed
                | Transaction::Implicit(Mode::Undecided)
                | Transaction::Explicit(Mode::Undecided)
        )
    }

    pub(super) fn reset_variable(&mut self, reset: &ResetVariable) -> Result<Outcome, Error> {
        match reset {
            ResetVariable::All => self.variables.reset_all(),
            ResetVariable::Named(name) => self.variables.reset(name, false)?,
        }
        Ok(command("RESET"))
    }

    pub(super) fn show_variable_schema(&self, show: &ShowVariable) -> Result<SchemaRef, Error> {
        Ok(match show {
            ShowVariable::All => text_schema(&["name", "setting", "description"]),
            ShowVariable::Named(name) => text_schema(&[&self.variables.canonical_name(name)?]),
        })
    }

    pub(super) fn show_variable(&self, show: &ShowVariable) -> Result<Outcome, Error> {
        let schema = self.show_variable_schema(show)?;
        let columns = match show {
            ShowVariable::All => {
                let all = self.variables.all();
                let (mut names, mut values, mut descriptions) =
                    (Vec::new(), Vec::new(), Vec::new());
                for (name, value, description) in all {
                    names.push(name);
                    values.push(value);
                    descriptions.push(description);
                }
                vec![names, values, descriptions]
            }
            ShowVariable::Named(name) => vec![vec![self.variables.get(name).unwrap_or_default()]],
        };
        let rows = text_rows(&schema, columns)?;
        Ok(Outcome::Rows {
            verb: "SHOW",
            schema,
            rows,
        })
    }

    pub(super) fn set_transaction(&mut self, set: &SetTransaction) -> Result<Outcome, Error> {
        if !set.session && !self.transaction.in_block() {
            self.notices.push(Notice::warning(
                "SET TRANSACTION can only be used in transaction blocks",
            ));
        }
        self.apply_modes(&set.modes, set.session)?;
        Ok(command("SET"))
    }

    fn apply_modes(&mut self, modes: &[TransactionMode], session: bool) -> Result<(), Error> {
        for mode in modes {
            match mode {
                TransactionMode::Isolation(level) => {
                    if !session && self.has_read_or_written() {
                        return Err(TransactionError::IsolationAfterQuery.into());
                    }
                    let name = if session {
                        "default_transaction_isolation"
                    } else {
                        "transaction_isolation"
                    };
                    self.variables
                        .set(name, &[level_name(*level).to_owned()], !session)?;
                    if session && !self.transaction.in_block() {
                        self.variables.set(
                            "transaction_isolation",
                            &[level_name(*level).to_owned()],
                            false,
                        )?;
                    }
                }
                TransactionMode::ReadOnly | TransactionMode::ReadWrite => {
                    let value = if *mode == TransactionMode::ReadOnly {
                        "on"
                    } else {
                        "off"
                    };
                    let name = if session {
                        "default_transaction_read_only"
                    } else {
                        "transaction_read_only"
                    };
                    self.variables.set(name, &[value.to_owned()], !session)?;
                }
                TransactionMode::Deferrable(_) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn begin(&mut self, modes: &[TransactionMode]) -> Result<Outcome, Error> {
        match std::mem::take(&mut self.transaction) {
            Transaction::Explicit(mode) => {
                self.transaction = Transaction::Explicit(mode);
                self.notices.push(Notice::warning(
                    "there is already a transaction in progress",
                ));
            }
            Transaction::Failed => {
                self.transaction = Transaction::Failed;
                return Err(TransactionError::Aborted.into());
            }
            Transaction::Implicit(mode) => {
                // What came before it in the same string stands on its own.
                self.commit_mode(mode).await?;
                self.start_block();
            }
            Transaction::Idle => self.start_block(),
        }
        self.apply_modes(modes, false)?;
        Ok(command("BEGIN"))
    }

    fn start_block(&mut self) {
        self.transaction = Transaction::Explicit(Mode::Undecided);
        self.now_ms = self.parts.clock.now_ms();
        self.variables.begin();
    }

    pub(super) async fn commit(&mut self) -> Result<Outcome, Error> {
        match std::mem::take(&mut self.transaction) {
            Transaction::Explicit(mode) => {
                self.cursors.clear();
                self.savepoints.clear();
                let result = self.commit_mode(mode).await;
                self.variables.end(result.is_ok());
                result.map(|()| command("COMMIT"))
            }
            Transaction::Failed => {
                self.end_block();
                Ok(command("ROLLBACK"))
            }
            other => {
                self.transaction = other;
                self.notices
                    .push(Notice::warning("there is no transaction in progress"));
                Ok(command("COMMIT"))
            }
        }
    }

    pub(super) fn rollback(&mut self) -> Outcome {
        match std::mem::take(&mut self.transaction) {
            Transaction::Explicit(_) | Transaction::Failed => self.end_block(),
            Transaction::Implicit(_) => {
                self.transaction = Transaction::Implicit(Mode::Undecided);
                self.notices
                    .push(Notice::warning("there is no transaction in progress"));
            }
            Transaction::Idle => self
                .notices
                .push(Notice::warning("there is no transaction in progress")),
        }
        command("ROLLBACK")
    }

    fn end_block(&mut self) {
        self.cursors.clear();
        self.savepoints.clear();
        self.variables.end(false);
    }

    /// Makes what a transaction has staged happen.
    pub(super) async fn commit_mode(&mut self, mode: Mode) -> Result<(), Error> {
        match mode {
            Mode::Write(staged) if !staged.is_empty() => self.commit_writes(staged).await,
            Mode::Write(_) | Mode::Undecided | Mode::Read(_) | Mode::Subscribe => Ok(()),
        }
    }

    pub(super) fn discard(&mut self, target: DiscardTarget) -> Result<Outcome, Error> {
        match target {
            DiscardTarget::All => {
                if self.transaction.in_block() {
                    return Err(TransactionError::Prohibited("DISCARD ALL".to_owned()).into());
                }
                self.prepared.clear();
                self.cursors.clear();
                self.variables.reset_all();
                Ok(command("DISCARD ALL"))
            }
            DiscardTarget::Plans => Ok(command("DISCARD PLANS")),
            DiscardTarget::Sequences => Ok(command("DISCARD SEQUENCES")),
            DiscardTarget::Temporary => Ok(command("DISCARD TEMP")),
        }
    }
}
