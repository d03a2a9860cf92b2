//! The first content of tables: exported snapshots, parallel COPY by ranges of pages, decoded and staged on disk batch by batch.
//!
//! Must not know the stream or when a snapshot is bound. Called by the tasks of the source.
//!
//! Invariants. All tables are read in one exported snapshot, whose position is the slot's consistent point: transactions that committed before it are in
//! the snapshot, all others are not. Memory is bounded by one batch per connection. A table that is dropped meanwhile is left out, and the others go on.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use bytes::{Buf, BytesMut};
use flowstone_proto::message::{PostgresConnection, SourceColumn, SourceTable};
use flowstone_storage::{SnapshotWriter, StagedSnapshot};
use flowstone_types::{ObjectId, SourceChanges};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::attempt::AttemptError;
use super::catalog::{self, RelationInfo};
use super::state::Shared;
use super::table_log::value_error;
use super::types::{CopyFormat, copy_format, may_not_fit};
use super::wire::{Connection, Purpose, WireError, parse_lsn, quote_identifier, quote_literal};
use crate::row_errors::{BadCell, Notes, RowErrors, Standing, raw_text, shortened};
use crate::rows::{RowBuilder, Unfit, Value};

/// Connections that copy at the same time: enough to keep one of our cores busy, few enough for a server with other work.
const CONNECTIONS: usize = 4;
/// Pages of one range: 64 MB.
const PAGES_PER_RANGE: u64 = 8192;
/// Rows, and bytes as received, after which a batch is written.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// What became of one table's snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Staged {
    /// It is on disk.
    Rows(StagedSnapshot),
    /// The same, with rows in error.
    Partly {
        rows: StagedSnapshot,
        errors: Vec<(String, Standing)>,
    },
    /// The table is not what it was, or holds too much that has no place in its columns: the table's permanent error.
    Failed(String),
}

impl Staged {
    /// What is on disk and the rows in error, or the table's error.
    pub(crate) fn into_parts(self) -> Result<(StagedSnapshot, Vec<(String, Standing)>), String> {
        match self {
            Self::Rows(rows) => Ok((rows, Vec::new())),
            Self::Partly { rows, errors } => Ok((rows, errors)),
            Self::Failed(message) => Err(message),
        }
    }
}

/// An exported snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    pub(crate) position: u64,
    pub(crate) name: String,
}

/// How long a slot lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    Permanent,
    Connection,
}

/// Creates a slot and exports its snapshot, which lives until the next command on this connection.
pub(crate) async fn create_slot(
    connection: &mut Connection,
    slot: &str,
    lifetime: Lifetime,
) -> Result<Exported, WireError> {
    let temporary = if lifetime == Lifetime::Connection {
        " TEMPORARY"
    } else {
        ""
    };
    let sql = format!(
        "CREATE_REPLICATION_SLOT {}{temporary} LOGICAL pgoutput EXPORT_SNAPSHOT",
        quote_identifier(slot)
    );
    let rows = connection.query(&sql).await?;
    let mut row = rows
        .into_iter()
        .next()
        .unwrap_or_default()
        .into_iter()
        .skip(1);
    let position = row.next().flatten().as_deref().and_then(parse_lsn);
    match (position, row.next().flatten()) {
        (Some(position), Some(name)) => Ok(Exported { position, name }),
        _ => Err(WireError::Protocol(
            "server did not export a snapshot".to_owned(),
        )),
    }
}

/// A table to be copied.
#[derive(Debug)]
struct Target {
    table: SourceTable,
    schema: SchemaRef,
    info: RelationInfo,
    /// `None` once the table was dropped.
    writer: Mutex<Option<SnapshotWriter>>,
    failure: std::sync::Mutex<Option<String>>,
    row_errors: std::sync::Mutex<RowErrors>,
}

impl Target {
    fn fail(&self, message: String) {
        self.failure
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get_or_insert(message);
    }

    fn failed(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Whether the source still has the table.
    fn is_wanted(&self, shared: &Shared) -> bool {
        let state = shared.lock();
        state
            .tables()
            .iter()
            .any(|log| log.table.id == self.table.id)
    }

    /// What became of the table; `None` if it was dropped meanwhile.
    async fn finish(&self, shared: &Shared) -> Result<Option<Staged>, AttemptError> {
        let writer = self.writer.lock().await.take();
        if let Some(log) = shared.lock().table_mut(self.table.id) {
            // It was an estimate, or unknown.
            log.account.counters.snapshot_known = log.account.counters.snapshot_staged;
        }
        if !self.is_wanted(shared) {
            return Ok(None);
        }
        if let Some(message) = self.failed() {
            return Ok(Some(Staged::Failed(message)));
        }
        let Some(writer) = writer else {
            return Ok(None);
        };
        let rows = match writer.finish().await {
            Err(flowstone_storage::Error::Dropped(_)) => return Ok(None),
            finished => finished?,
        };
        let none = RowErrors::new(&self.table);
        let errors = std::mem::replace(&mut *self.row_errors(), none).into_rows();
        Ok(Some(if errors.is_empty() {
            Staged::Rows(rows)
        } else {
            Staged::Partly { rows, errors }
        }))
    }

    fn name(&self) -> String {
        format!("{}.{}", self.info.schema, self.info.name)
    }

    fn row_errors(&self) -> std::sync::MutexGuard<'_, RowErrors> {
        self.row_errors
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How a column is copied. What tells rows apart must read like in the stream, also where it cannot be held.
    fn format_of(&self, index: usize, column: &SourceColumn) -> CopyFormat {
        let identifies = self.table.key.is_empty() || self.table.key.contains(&index);
        if column.as_text || (identifies && may_not_fit(column.type_oid)) {
            CopyFormat::Text
        } else {
            copy_format(column.type_oid)
        }
    }
}

/// A range of pages of one table; all of it if there are no bounds.
#[derive(Debug)]
struct Range {
    target: Arc<Target>,
    first: Option<u64>,
    end: Option<u64>,
}

/// Reads `tables` in the exported snapshot `name` of the server at `connection` and stages them. Those that are dropped meanwhile are not in the result.
pub(crate) async fn copy(
    shared: &Arc<Shared>,
    connection: &PostgresConnection,
    tables: Vec<(SourceTable, SchemaRef)>,
    name: &str,
) -> Result<Vec<(ObjectId, Staged)>, AttemptError> {
    let mut results = Vec::new();
    if tables.is_empty() {
        return Ok(results);
    }
    let mut first = open_in_snapshot(connection, name).await?;
    let oids: Vec<u32> = tables.iter().map(|(table, _)| table.upstream_oid).collect();
    let relations = catalog::relations(&mut first, &shared.own.publication, &oids).await?;
    let parallel_ranges = first.server_version() >= 14;
    let mut targets = Vec::new();
    let mut ranges = VecDeque::new();
    for (table, schema) in tables {
        let info = match relations.get(&table.upstream_oid) {
            None => Err(catalog::dropped(&table)),
            Some(info) => catalog::check_columns(&table, info).map(|()| info.clone()),
        };
        let info = match info {
            Ok(info) => info,
            Err(message) => {
                results.push((table.id, Staged::Failed(message)));
                continue;
            }
        };
        let writer = match shared.own.delta.stage(table.id, Arc::clone(&schema)).await {
            Err(flowstone_storage::Error::Dropped(_)) => continue,
            staged => staged?,
        };
        if let Some(log) = shared.lock().table_mut(table.id) {
            log.account.counters.snapshot_known = info.estimated_rows;
            log.account.counters.snapshot_staged = Some(0);
        }
        let target = Arc::new(Target {
            row_errors: std::sync::Mutex::new(RowErrors::new(&table)),
            table,
            schema,
            info,
            writer: Mutex::new(Some(writer)),
            failure: std::sync::Mutex::new(None),
        });
        ranges.extend(page_ranges(&target, parallel_ranges));
        targets.push(target);
    }
    copy_ranges(shared, first, ranges, (connection, name)).await?;
    for target in targets {
        match target.finish(shared).await {
            Ok(Some(content)) => results.push((target.table.id, content)),
            Ok(None) => {}
            Err(error) => {
                // All of them are read again.
                for (_, content) in results {
                    if let Ok((rows, _)) = content.into_parts() {
                        shared.own.delta.discard(rows).await;
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(results)
}

async fn open_in_snapshot(
    connection: &PostgresConnection,
    name: &str,
) -> Result<Connection, WireError> {
    let mut connection = Connection::open(connection, Purpose::Query).await?;
    connection
        .ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    connection
        .ask(&format!("SET TRANSACTION SNAPSHOT {}", quote_literal(name)))
        .await?;
    Ok(connection)
}

fn page_ranges(target: &Arc<Target>, parallel: bool) -> Vec<Range> {
    let range = |first, end| Range {
        target: Arc::clone(target),
        first,
        end,
    };
    if !parallel || target.info.kind != 'r' || target.info.pages <= PAGES_PER_RANGE {
        return vec![range(None, None)];
    }
    let count = target.info.pages.div_ceil(PAGES_PER_RANGE);
    (0..count)
        .map(|number| {
            // The last one is open: pages may have been added since they were counted.
            let end = (number + 1 < count).then(|| (number + 1) * PAGES_PER_RANGE);
            range(Some(number * PAGES_PER_RANGE), end)
        })
        .collect()
}

/// Copies all ranges over several connections, in the snapshot of this name.
async fn copy_ranges(
    shared: &Arc<Shared>,
    first: Connection,
    ranges: VecDeque<Range>,
    (described, name): (&PostgresConnection, &str),
) -> Result<(), AttemptError> {
    let connections = ranges.len().clamp(1, CONNECTIONS);
    let ranges = Arc::new(std::sync::Mutex::new(ranges));
    let mut tasks: JoinSet<Result<(), AttemptError>> = JoinSet::new();
    let mut first = Some(first);
    for _ in 0..connections {
        let mut connection = match first.take() {
            Some(connection) => connection,
            None => open_in_snapshot(described, name).await?,
        };
        let shared = Arc::clone(shared);
        let ranges = Arc::clone(&ranges);
        tasks.spawn(async move {
            loop {
                let next = ranges
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .pop_front();
                let Some(range) = next else { break };
                if range.target.failed().is_none() && range.target.is_wanted(&shared) {
                    copy_range(&shared, &mut connection, &range).await?;
                }
            }
            connection.close().await;
            Ok(())
        });
    }
    // Dropping the set at the first error ends the other copies.
    while let Some(result) = tasks.join_next().await {
        result.map_err(|error| AttemptError::Transient {
            message: error.to_string(),
            hint: None,
        })??;
    }
    Ok(())
}

/// `COPY` of one range.
fn copy_statement(range: &Range) -> String {
    let target = &range.target;
    let column = |(index, column): (usize, &SourceColumn)| {
        let name = quote_identifier(&column.name);
        if target.format_of(index, column) == CopyFormat::Text {
            format!("{name}::text")
        } else {
            name
        }
    };
    let columns = itertools::join(target.table.columns.iter().enumerate().map(column), ", ");
    let only = if target.info.kind == 'r' { "ONLY " } else { "" };
    let relation = format!(
        "{}.{}",
        quote_identifier(&target.info.schema),
        quote_identifier(&target.info.name)
    );
    let bounds = [(">=", range.first), ("<", range.end)];
    let bounds = bounds.into_iter().filter_map(|(operator, page)| {
        page.map(|page| format!("ctid {operator} '({page},0)'::tid"))
    });
    let conditions: Vec<String> = bounds
        .chain(
            target
                .info
                .row_filter
                .iter()
                .map(|filter| format!("({filter})")),
        )
        .collect();
    let condition = if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    };
    format!("COPY (SELECT {columns} FROM {only}{relation}{condition}) TO STDOUT (FORMAT BINARY)")
}

async fn copy_range(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    range: &Range,
) -> Result<(), AttemptError> {
    let target = &range.target;
    // A table or column that is gone by now fails the attempt; the next one finds it missing and puts the table in error.
    connection.copy_out(&copy_statement(range)).await?;
    let columns = target.table.columns.iter().enumerate();
    let formats: Vec<CopyFormat> = columns
        .map(|(index, column)| target.format_of(index, column))
        .collect();
    let mut reader = BinaryReader::default();
    let mut batch = Batch::new(target)?;
    while let Some(data) = connection.copy_data().await? {
        reader.push(&data);
        while let Some(row) = reader.row()? {
            if target.failed().is_some() {
                continue;
            }
            if let Err(message) = batch.append(target, &formats, &row) {
                target.fail(message);
            }
        }
        if batch.is_full() {
            batch.write(shared, target).await?;
        }
    }
    batch.write(shared, target).await
}

/// Rows on their way to the writer.
#[derive(Debug)]
struct Batch {
    builder: RowBuilder,
    notes: Notes,
    bytes: usize,
}

impl Batch {
    fn new(target: &Target) -> Result<Self, AttemptError> {
        let builder = RowBuilder::new(Arc::clone(&target.schema), 1024)
            .map_err(|error| AttemptError::internal(&error))?;
        Ok(Self {
            builder,
            notes: Notes::default(),
            bytes: 0,
        })
    }

    fn is_full(&self) -> bool {
        self.builder.rows() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn append(
        &mut self,
        target: &Target,
        formats: &[CopyFormat],
        row: &[Option<bytes::Bytes>],
    ) -> Result<(), String> {
        let values = row
            .iter()
            .zip(formats)
            .map(|(cell, format)| match (cell, format) {
                (None, _) => Value::Null,
                (Some(bytes), CopyFormat::Binary) => Value::Binary(bytes),
                (Some(bytes), CopyFormat::Text) => Value::Text(bytes),
            });
        self.bytes += row.iter().flatten().map(bytes::Bytes::len).sum::<usize>();
        let (notes, key) = (&mut self.notes, &target.table.key);
        let number = u32::try_from(self.builder.rows()).unwrap_or(u32::MAX);
        let unfit = |unfit: Unfit<'_>| {
            notes.push_bad(BadCell {
                row: number,
                column: u16::try_from(unfit.column).unwrap_or(u16::MAX),
                reason: shortened(&unfit.reason),
                raw: if key.is_empty() || key.contains(&unfit.column) {
                    raw_text(unfit.raw)
                } else {
                    String::new()
                },
            });
        };
        self.builder.append(values, unfit).map_err(|error| {
            let column = target
                .table
                .columns
                .get(error.column)
                .map_or("?", |column| column.name.as_str());
            value_error(&target.name(), column, &error.reason)
        })
    }

    async fn write(&mut self, shared: &Shared, target: &Target) -> Result<(), AttemptError> {
        let Self {
            builder,
            notes,
            bytes,
        } = std::mem::replace(self, Self::new(target)?);
        if builder.rows() == 0 || target.failed().is_some() {
            return Ok(());
        }
        let all = builder
            .finish()
            .map_err(|error| AttemptError::internal(&error))?;
        let read = all.num_rows();
        let rows = {
            let mut row_errors = target.row_errors();
            let (changes, _) = row_errors
                .resolve(SourceChanges::inserts(all), notes, 0)
                .map_err(|error| AttemptError::internal(&error))?;
            if let Some(message) = row_errors.too_many() {
                target.fail(message);
                return Ok(());
            }
            changes.rows
        };
        let mut writer = target.writer.lock().await;
        if !target.is_wanted(shared) {
            // Its files go with it.
            *writer = None;
        }
        if let Some(open) = writer.as_mut() {
            match open.write(&rows).await {
                Err(flowstone_storage::Error::Dropped(_)) => *writer = None,
                written => written?,
            }
        }
        drop(writer);
        if let Some(log) = shared.lock().table_mut(target.table.id) {
            *log.account.counters.snapshot_staged.get_or_insert_default() +=
                u64::try_from(read).unwrap_or(u64::MAX);
            log.account.counters.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

/// Reads PostgreSQL's binary COPY format piece by piece.
#[derive(Debug, Default)]
pub(crate) struct BinaryReader {
    data: BytesMut,
    started: bool,
    ended: bool,
}

/// What every binary COPY starts with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

impl BinaryReader {
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    /// The next whole row; `None` if more data is needed or there is no more.
    pub(crate) fn row(&mut self) -> Result<Option<Vec<Option<bytes::Bytes>>>, WireError> {
        let malformed =
            |what: &str| WireError::Protocol(format!("malformed binary COPY data: {what}"));
        if !self.started {
            let Some(header) = self.data.get(..SIGNATURE.len() + 8) else {
                return Ok(None);
            };
            if !header.starts_with(SIGNATURE) {
                return Err(malformed("no signature"));
            }
            let extension = header
                .last_chunk::<4>()
                .map_or(0, |bytes| u32::from_be_bytes(*bytes));
            let length = header
                .len()
                .saturating_add(usize::try_from(extension).unwrap_or(usize::MAX));
            if self.data.len() < length {
                return Ok(None);
            }
            self.data.advance(length);
            self.started = true;
        }
        let Some(count) = self
            .data
            .first_chunk::<2>()
            .map(|bytes| i16::from_be_bytes(*bytes))
        else {
            return Ok(None);
        };
        if self.ended {
            return Err(malformed("data after the end"));
        }
        let Ok(count) = usize::try_from(count) else {
            self.ended = true;
            self.data.advance(2);
            return Ok(None);
        };
        // First find out whether the row is whole.
        let mut at = 2_usize;
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            let Some(length) = self
                .data
                .get(at..)
                .and_then(<[u8]>::first_chunk::<4>)
                .map(|bytes| i32::from_be_bytes(*bytes))
            else {
                return Ok(None);
            };
            let length = usize::try_from(length).ok();
            at = at.saturating_add(4).saturating_add(length.unwrap_or(0));
            lengths.push(length);
        }
        if self.data.len() < at {
            return Ok(None);
        }
        let mut row = self.data.split_to(at).freeze();
        row.advance(2);
        let cells = lengths.into_iter().map(|length| {
            row.advance(4);
            length.map(|length| row.split_to(length))
        });
        Ok(Some(cells.collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn copy_bytes(rows: &[Vec<Option<Vec<u8>>>]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0; 8]);
        for row in rows {
            bytes.extend(i16::try_from(row.len()).unwrap().to_be_bytes());
            for cell in row {
                match cell {
                    None => bytes.extend((-1_i32).to_be_bytes()),
                    Some(value) => {
                        bytes.extend(i32::try_from(value.len()).unwrap().to_be_bytes());
                        bytes.extend(value);
                    }
                }
            }
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn rows_are_read_however_the_data_is_cut(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..4), 0..6),
            piece in 1_usize..20,
        ) {
            let mut reader = BinaryReader::default();
            let mut read = Vec::new();
            for data in copy_bytes(&rows).chunks(piece) {
                reader.push(data);
                while let Some(row) = reader.row().unwrap() {
                    read.push(row.into_iter().map(|cell| cell.map(|bytes| bytes.to_vec())).collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(read, rows);
        }

        #[test]
        fn random_data_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100), header in any::<bool>()) {
            let mut reader = BinaryReader::default();
            if header {
                let whole = copy_bytes(&[]);
                reader.push(&whole[..whole.len() - 2]);
            }
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.row() {}
        }
    }
}
