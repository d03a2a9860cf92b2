//! Running the statements of a request, one after the other, up to the first that fails.

use arrow_array::ArrayRef;
use flowstone_coordinator::{Notice, Outcome, Report, Session, Severity, TransactionStatus};
use flowstone_sql::ast::{Statement, StatementKind};
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;
use flowstone_types::value::ColumnBuilder;
use futures::StreamExt;

use super::answer::{Answer, Results};
use super::{Extended, Statements};

/// What a client of this API uses instead of what it does not do.
const STREAMING_HINT: &str =
    "Use it over the PostgreSQL protocol: an HTTP request ends with its answer.";

/// The JSON of the results of all statements that were run.
///
/// Dropping the future ends the statement that runs and rolls its transaction back.
pub(super) async fn run(session: Session, statements: Statements) -> Answer {
    let mut run = Run {
        results: Results::new(session.memory()),
        session,
    };
    match &statements {
        Statements::Simple(query) => {
            run.simple(query).await;
        }
        Statements::Extended(queries) => {
            for query in queries {
                if !run.extended(query).await {
                    break;
                }
            }
        }
    }
    run.finish()
}

struct Run {
    session: Session,
    results: Results,
}

impl Run {
    /// As a `Query` message of the PostgreSQL protocol: several statements are one transaction.
    async fn simple(&mut self, query: &str) -> bool {
        let statements = match self.parse(query).await {
            Ok(statements) => statements,
            Err(report) => return self.fail(&report),
        };
        if statements.len() > 1 {
            self.session.begin_implicit();
        }
        for statement in &statements {
            if !self.statement(statement, &[]).await {
                return self.end(false).await;
            }
        }
        self.end(true).await
    }

    /// As `Parse`, `Bind`, `Execute` and `Sync`.
    async fn extended(&mut self, query: &Extended) -> bool {
        match self.bind(query).await {
            Ok((statement, parameters)) => {
                self.session.begin_implicit();
                let done = self.statement(&statement, &parameters).await;
                self.end(done).await
            }
            Err(report) => self.fail(&report),
        }
    }

    async fn bind(&mut self, query: &Extended) -> Result<(Statement, Vec<ArrayRef>), Report> {
        let mut statements = self.parse(&query.query).await?;
        let statement = match (statements.pop(), statements.len()) {
            (Some(statement), 0) => statement,
            (last, others) => {
                let found = others + usize::from(last.is_some());
                return Err(Report::new(
                    "42601",
                    format!("each query must be exactly one statement, but one has {found}"),
                ));
            }
        };
        check_supported(&statement.kind)?;
        let described = self
            .session
            .describe(&statement, &[])
            .await
            .map_err(|error| Report::from(&error))?;
        let types = described.parameters;
        if types.len() != query.params.len() {
            return Err(Report::new(
                "08P01",
                format!(
                    "the request supplies {} parameters, but the statement requires {}",
                    query.params.len(),
                    types.len()
                ),
            ));
        }
        let parameters = itertools::zip_eq(&query.params, &types)
            .map(|(text, sql_type)| parameter(text.as_deref(), sql_type, self.session.time_zone()))
            .collect::<Result<_, _>>()?;
        Ok((statement, parameters))
    }

    async fn parse(&self, query: &str) -> Result<Vec<Statement>, Report> {
        check_text(query)?;
        self.session
            .parse(query)
            .await
            .map_err(|error| Report::from(&error))
    }

    /// Runs one statement and writes its result down. Returns whether the next one may run.
    async fn statement(&mut self, statement: &Statement, parameters: &[ArrayRef]) -> bool {
        match self.try_statement(statement, parameters).await {
            Ok(()) => true,
            Err(report) => self.fail(&report),
        }
    }

    async fn try_statement(
        &mut self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Result<(), Report> {
        check_supported(&statement.kind)?;
        let outcome = self
            .session
            .execute(statement, parameters)
            .await
            .map_err(|error| Report::from(&error))?;
        match outcome {
            // A prepared statement may be one, too.
            Outcome::Rows {
                verb: "SUBSCRIBE", ..
            } => return Err(unsupported("SUBSCRIBE")),
            Outcome::CopyIn(_) | Outcome::CopyOut { .. } => return Err(unsupported("COPY")),
            Outcome::Rows {
                verb,
                schema,
                mut rows,
            } => {
                let mut writer = self.results.start_rows(&schema)?;
                while let Some(batch) = rows.next().await {
                    let batch = batch.map_err(|error| Report::from(&error))?;
                    let zone = self.session.time_zone();
                    self.results.push_rows(&mut writer, &batch, zone)?;
                }
                let tag = format!("{verb} {}", writer.len());
                let notices = self.session.take_notices();
                self.results.rows(writer, &tag, notices);
            }
            Outcome::Command { tag } => {
                let notices = self.session.take_notices();
                self.results.ok(&tag, notices);
            }
            Outcome::Empty => {}
        }
        Ok(())
    }

    /// Writes an error down in the place of a statement's result.
    fn fail(&mut self, report: &Report) -> bool {
        if report.is_bug() {
            tracing::error!(error = report.message, "a statement met a bug");
        }
        self.session.fail_transaction();
        let notices = self.session.take_notices();
        self.results.error(report, notices);
        false
    }

    /// Ends the implicit transaction. Returns whether it went well.
    async fn end(&mut self, commit: bool) -> bool {
        match self.session.end_implicit(commit).await {
            Ok(()) => {
                let notices = self.session.take_notices();
                self.results.add_notices(notices);
                commit
            }
            Err(error) => self.fail(&Report::from(&error)),
        }
    }

    fn finish(mut self) -> Answer {
        if self.session.transaction_status() == TransactionStatus::InTransaction {
            self.results.add_notices(vec![Notice {
                severity: Severity::Warning,
                message: "the transaction was rolled back: the request ended without COMMIT"
                    .to_owned(),
                detail: None,
                hint: None,
            }]);
        }
        self.results.finish()
    }
}

/// Refuses statements whose results do not end with an answer, or outlive it.
fn check_supported(kind: &StatementKind) -> Result<(), Report> {
    match kind {
        StatementKind::Subscribe(_) => Err(unsupported("SUBSCRIBE")),
        StatementKind::Copy(_) => Err(unsupported("COPY")),
        StatementKind::Declare(_) => Err(unsupported("DECLARE")),
        StatementKind::Fetch(_) => Err(unsupported("FETCH")),
        StatementKind::Close(_) => Err(unsupported("CLOSE")),
        _ => Ok(()),
    }
}

fn unsupported(what: &str) -> Report {
    Report::new("0A000", format!("{what} is not supported over HTTP")).with_hint(STREAMING_HINT)
}

/// Text as PostgreSQL has it: JSON's may hold a character that its cannot.
fn check_text(text: &str) -> Result<(), Report> {
    if text.contains('\0') {
        return Err(Report::new(
            "22021",
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    Ok(())
}

fn parameter(text: Option<&str>, sql_type: &SqlType, zone: &TimeZone) -> Result<ArrayRef, Report> {
    let mut builder = ColumnBuilder::new(sql_type, 1).with_time_zone(zone.clone());
    match text {
        None => builder.append_null(),
        Some(text) => {
            check_text(text)?;
            builder
                .append_text(text)
                .map_err(|error| Report::from(&error))?;
        }
    }
    Ok(builder.finish())
}

#[cfg(test)]
mod tests;
