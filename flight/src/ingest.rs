//! Bulk ingest: a stream of batches into a table, which is made if need be.
//!
//! Owns the modes (create, append, replace) and the cutting into writes. Must not know how rows are stored: they go the way of COPY.
//!
//! Invariants. The stream is never held as a whole: a write holds at most [`CHUNK_ROWS`] rows or about [`CHUNK_BYTES`]. Outside of a transaction every write
//! is committed on its own; an error says how many rows were.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use arrow_schema::{Schema, SchemaRef};
use flowstone_coordinator::{Error as CoordinatorError, Outcome, size_of_batch};
use flowstone_sql::ast::quote_ident;
use flowstone_sql::error::ErrorKind;
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;

use crate::Error;
use crate::convert::{column_definitions, convert};
use crate::query::affected;
use crate::sessions::{Lease, Turn};
use crate::upload::Upload;

/// Rows of one write: enough that its fixed cost does not matter.
const CHUNK_ROWS: usize = 64 * 1024;
/// Bytes of one write, as soon as whole batches reach it.
const CHUNK_BYTES: usize = 8 << 20;

/// What happens if the table exists, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Modes {
    create: bool,
    if_exists: IfExists,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfExists {
    Fail,
    Append,
    Replace,
}

impl Modes {
    fn new(command: &CommandStatementIngest) -> Result<Self, Error> {
        let odd = |what: &str| {
            Error::Malformed(format!(
                "the ingest does not say what to do if the table {what}"
            ))
        };
        let options = command
            .table_definition_options
            .as_ref()
            .ok_or_else(|| odd("exists"))?;
        let create = match options.if_not_exist() {
            TableNotExistOption::Create => true,
            TableNotExistOption::Fail => false,
            TableNotExistOption::Unspecified => return Err(odd("does not exist")),
        };
        let if_exists = match options.if_exists() {
            TableExistsOption::Fail => IfExists::Fail,
            TableExistsOption::Append => IfExists::Append,
            TableExistsOption::Replace => IfExists::Replace,
            TableExistsOption::Unspecified => return Err(odd("exists")),
        };
        Ok(Self { create, if_exists })
    }
}

/// Writes what the client sends into a table. Returns the rows.
///
/// # Errors
/// [`Error::Partial`] if some rows were committed before it failed.
pub(crate) async fn ingest(
    lease: &Lease,
    command: &CommandStatementIngest,
    mut upload: Upload,
) -> Result<i64, Error> {
    if command.temporary {
        return Err(Error::Unsupported("temporary tables".to_owned()));
    }
    let modes = Modes::new(command)?;
    let schema = upload
        .schema()
        .await?
        .ok_or_else(|| Error::Malformed("the ingest has no schema".to_owned()))?;
    let table = table_name(command);
    prepare_table(lease, &table, modes, &schema).await?;
    let copy = copy_statement(&table, &schema);
    let committed_alone = command.transaction_id.is_none();
    tracing::debug!(table, committed_alone, ?modes, "bulk ingest");
    let mut rows = 0_i64;
    let mut chunk = Chunk::default();
    let mut held = lease.memory().nothing();
    let outcome = async {
        while let Some(batch) = upload.next().await? {
            for piece in pieces(&batch) {
                chunk.push(piece);
                held.resize(chunk.bytes).map_err(CoordinatorError::from)?;
                if chunk.is_full() {
                    rows += write(lease, &copy, chunk.take()).await?;
                }
            }
        }
        if !chunk.batches.is_empty() {
            rows += write(lease, &copy, chunk.take()).await?;
        }
        Ok(())
    };
    match outcome.await {
        Ok(()) => Ok(rows),
        Err(error) => match u64::try_from(rows) {
            Ok(rows) if rows > 0 && committed_alone => Err(Error::Partial {
                rows,
                error: Box::new(error),
            }),
            _ => Err(error),
        },
    }
}

/// Batches that wait to be written together.
#[derive(Default)]
struct Chunk {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, batch: RecordBatch) {
        self.rows += batch.num_rows();
        self.bytes += size_of_batch(&batch);
        self.batches.push(batch);
    }

    const fn is_full(&self) -> bool {
        self.rows >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES
    }

    fn take(&mut self) -> Vec<RecordBatch> {
        std::mem::take(self).batches
    }
}

/// A batch in pieces of at most [`CHUNK_ROWS`].
fn pieces(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    (0..rows)
        .step_by(CHUNK_ROWS)
        .map(move |start| batch.slice(start, CHUNK_ROWS.min(rows - start)))
}

fn table_name(command: &CommandStatementIngest) -> String {
    let parts = [
        command.catalog.as_deref(),
        command.schema.as_deref(),
        Some(command.table.as_str()),
    ];
    let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
    parts.map(quote_ident).collect::<Vec<_>>().join(".")
}

fn copy_statement(table: &str, schema: &Schema) -> String {
    let columns = schema
        .fields()
        .iter()
        .map(|field| quote_ident(field.name()));
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!("COPY {table} ({columns}) FROM STDIN")
}

/// Makes the table be there as the mode has it.
async fn prepare_table(
    lease: &Lease,
    table: &str,
    modes: Modes,
    schema: &SchemaRef,
) -> Result<(), Error> {
    let mut turn = lease.turn().await;
    let create = match (exists(&mut turn, table).await?, modes.if_exists) {
        (true, IfExists::Append) => false,
        (true, IfExists::Fail) => {
            let message = format!("table {table} already exists");
            return Err(flowstone_sql::Error::new(ErrorKind::DuplicateTable, message).into());
        }
        (true, IfExists::Replace) => {
            command(&mut turn, &format!("DROP TABLE {table}")).await?;
            true
        }
        (false, _) if modes.create => true,
        (false, _) => {
            let message = format!("table {table} does not exist");
            return Err(flowstone_sql::Error::new(ErrorKind::UndefinedTable, message).into());
        }
    };
    if create {
        let columns = column_definitions(schema)?;
        command(&mut turn, &format!("CREATE TABLE {table} ({columns})")).await?;
    }
    turn.settle();
    Ok(())
}

async fn exists(turn: &mut Turn, table: &str) -> Result<bool, Error> {
    let statement = parse_one(turn, &format!("SELECT * FROM {table}")).await?;
    match turn.describe(&statement, &[]).await {
        Ok(_) => Ok(true),
        Err(CoordinatorError::Sql(error)) if error.kind == ErrorKind::UndefinedTable => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn parse_one(turn: &Turn, sql: &str) -> Result<flowstone_sql::ast::Statement, Error> {
    turn.parse(sql)
        .await?
        .pop()
        .ok_or_else(|| Error::Internal("an empty statement".to_owned()))
}

async fn command(turn: &mut Turn, sql: &str) -> Result<(), Error> {
    let statement = parse_one(turn, sql).await?;
    turn.execute(&statement, &[]).await?;
    Ok(())
}

/// Writes some batches; returns the rows.
async fn write(lease: &Lease, copy: &str, batches: Vec<RecordBatch>) -> Result<i64, Error> {
    let mut turn = lease.turn().await;
    let statement = parse_one(&turn, copy).await?;
    let Outcome::CopyIn(mut copy) = turn.execute(&statement, &[]).await? else {
        return Err(Error::Internal("COPY does not take rows".to_owned()));
    };
    let schema = SchemaRef::clone(&copy.schema);
    let zone = turn.time_zone().clone();
    let rows = batches
        .iter()
        .map(|batch| fitted(&schema, batch, &zone))
        .collect::<Result<Vec<_>, _>>()?;
    turn.copy_rows(&mut copy, rows).await?;
    let tag = turn.copy_end(copy).await?;
    turn.settle();
    Ok(affected(&tag))
}

/// A batch with the columns and types that the table has.
fn fitted(schema: &SchemaRef, batch: &RecordBatch, zone: &TimeZone) -> Result<RecordBatch, Error> {
    let columns = itertools::zip_eq(schema.fields(), batch.columns())
        .map(|(field, column)| -> Result<ArrayRef, Error> {
            let sql_type =
                SqlType::from_field(field).map_err(|error| Error::Internal(error.to_string()))?;
            let place = format!("column \"{}\"", field.name());
            convert(column, &sql_type, &place, zone)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(SchemaRef::clone(schema), columns)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;
    use arrow_flight::sql::TableDefinitionOptions;
    use arrow_schema::{DataType, Field};

    use super::*;

    fn command(
        options: Option<(TableNotExistOption, TableExistsOption)>,
    ) -> CommandStatementIngest {
        CommandStatementIngest {
            table_definition_options: options.map(|(not, exists)| TableDefinitionOptions {
                if_not_exist: i32::from(not),
                if_exists: i32::from(exists),
            }),
            table: "My table".to_owned(),
            schema: Some("public".to_owned()),
            ..CommandStatementIngest::default()
        }
    }

    #[test]
    fn modes_are_spelled_out() {
        let modes = Modes::new(&command(Some((
            TableNotExistOption::Create,
            TableExistsOption::Append,
        ))));
        assert_eq!(
            modes.unwrap(),
            Modes {
                create: true,
                if_exists: IfExists::Append
            }
        );
        assert!(Modes::new(&command(None)).is_err());
        assert!(
            Modes::new(&command(Some((
                TableNotExistOption::Unspecified,
                TableExistsOption::Append
            ))))
            .is_err()
        );
    }

    #[test]
    fn names_are_quoted() {
        let schema = Schema::new(vec![Field::new("A b", DataType::Int64, true)]);
        assert_eq!(
            copy_statement(&table_name(&command(None)), &schema),
            "COPY public.\"My table\" (\"A b\") FROM STDIN"
        );
    }

    #[test]
    fn large_batches_are_cut() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; CHUNK_ROWS * 2 + 1]));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let rows: Vec<usize> = pieces(&batch).map(|piece| piece.num_rows()).collect();
        assert_eq!(rows, [CHUNK_ROWS, CHUNK_ROWS, 1]);
    }
}
