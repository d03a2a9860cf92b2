//! A source under test, and the content its changes add up to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use flowstone_ingest::{
    BufferLimits, Error, SourceContext, SourceEvent, SourceHandle, TableChanges, TableData, ask,
    clean_up, sql_type, start_within,
};
use flowstone_proto::message::{
    ReplicationSlot, SourceBinding, SourceColumn, SourceDescription, SourceKind, SourceStatus,
    SourceTable, UpstreamAnswer, UpstreamQuestion, UpstreamTable,
};
use flowstone_storage::DeltaTables;
use flowstone_types::clock::SystemClock;
use flowstone_types::value::ColumnFormatter;
use flowstone_types::{EvalError, ObjectId, SourceOp, SourcePosition, SqlType};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::server::Server;

/// How long anything may take before the test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const SOURCE: ObjectId = ObjectId::User(1);

/// One row as text.
pub(crate) type Row = Vec<Option<String>>;

/// Directories and descriptions that outlive a run of the source.
pub(crate) struct Setup {
    pub(crate) dir: TempDir,
    pub(crate) delta: DeltaTables,
    pub(crate) description: SourceDescription,
    pub(crate) schemas: Vec<(ObjectId, SchemaRef)>,
}

/// The tables of a publication.
pub(crate) async fn describe(server: &Server, publication: &str) -> Vec<UpstreamTable> {
    let question = UpstreamQuestion::Describe(SourceKind::Postgres {
        connection: server.connection(),
        publication: publication.to_owned(),
        slot: String::new(),
    });
    match ask(&question).await.unwrap() {
        UpstreamAnswer::Tables(tables) => tables,
        other => panic!("{other:?}"),
    }
}

/// A source table for an upstream table; columns of types without an equivalent are captured as text.
pub(crate) fn source_table(id: u64, upstream: &UpstreamTable) -> (SourceTable, SchemaRef) {
    let columns: Vec<SourceColumn> = upstream
        .columns
        .iter()
        .map(|column| SourceColumn {
            name: column.name.clone(),
            attribute: column.attribute,
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
            not_null: column.not_null,
            as_text: sql_type(column.type_oid, column.type_modifier).is_none(),
        })
        .collect();
    let fields: Vec<_> = columns
        .iter()
        .map(|column| {
            let sql_type = sql_type(column.type_oid, column.type_modifier).unwrap_or(SqlType::Text);
            sql_type.to_field(&column.name, !column.not_null)
        })
        .collect();
    let key = if upstream.replica_identity == 'f' {
        &[][..]
    } else {
        &upstream.key[..]
    };
    let key = key
        .iter()
        .map(|name| {
            columns
                .iter()
                .position(|column| column.name == *name)
                .unwrap()
        })
        .collect();
    let table = SourceTable {
        id: ObjectId::User(id),
        upstream_schema: upstream.schema.clone(),
        upstream_name: upstream.name.clone(),
        upstream_oid: upstream.oid,
        columns,
        key,
        upstream: Vec::new(),
    };
    (table, Arc::new(Schema::new(fields)))
}

impl Setup {
    /// A source of every table of publication `p`; the tables have ids from 10 on, by name.
    pub(crate) async fn new(server: &Server) -> Self {
        let tables = describe(server, "p").await;
        let (tables, schemas): (Vec<_>, Vec<_>) = (10..)
            .zip(&tables)
            .map(|(id, upstream)| {
                let (table, schema) = source_table(id, upstream);
                (table, (ObjectId::User(id), schema))
            })
            .unzip();
        let kind = SourceKind::Postgres {
            connection: server.connection(),
            publication: "p".to_owned(),
            slot: "flowstone_slot".to_owned(),
        };
        Self::with(kind, tables, schemas).await
    }

    pub(crate) async fn with(
        kind: SourceKind,
        tables: Vec<SourceTable>,
        schemas: Vec<(ObjectId, SchemaRef)>,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let delta = DeltaTables::open(&dir.path().join("tables")).await.unwrap();
        for (id, schema) in &schemas {
            delta
                .create(*id, &id.to_string(), Arc::clone(schema))
                .await
                .unwrap();
        }
        let description = SourceDescription {
            id: SOURCE,
            name: "source".to_owned(),
            kind,
            tables,
            progress: None,
            resume_from: None,
            snapshotted: Vec::new(),
            bound: false,
            failure: None,
        };
        Self {
            dir,
            delta,
            description,
            schemas,
        }
    }

    pub(crate) fn tables(&self) -> Vec<ObjectId> {
        self.description
            .tables
            .iter()
            .map(|table| table.id)
            .collect()
    }

    /// The id of a table by its name.
    pub(crate) fn id(&self, name: &str) -> ObjectId {
        self.description
            .tables
            .iter()
            .find(|table| table.upstream_name == name)
            .unwrap()
            .id
    }

    /// What a number is as a position of the source.
    pub(crate) fn position(&self) -> fn(u64) -> SourcePosition {
        match self.description.kind {
            SourceKind::Postgres { .. } => SourcePosition::PostgresLsn,
            SourceKind::LoadGenerator { .. } => SourcePosition::GeneratorTick,
            SourceKind::Kafka(_) => |number| panic!("{number} is no position of a topic"),
        }
    }

    /// Everything up to `position` is in the commit point that the source starts from next.
    pub(crate) fn resume_from(&mut self, position: u64) {
        self.description.resume_from = Some(self.position()(position));
    }

    /// Starts the source as described now.
    pub(crate) async fn run(&self) -> Running {
        self.try_run().await.unwrap()
    }

    /// The same, which may be refused.
    pub(crate) async fn try_run(&self) -> Result<Running, Error> {
        self.try_run_within(BufferLimits::default()).await
    }

    /// The same with other limits of what may wait to be taken.
    pub(crate) async fn try_run_within(&self, limits: BufferLimits) -> Result<Running, Error> {
        let (tx, events) = mpsc::channel(64);
        let context = SourceContext {
            tables: self.delta.clone(),
            clock: Arc::new(SystemClock),
            state_dir: self.dir.path().join("state"),
            schemas: self.schemas.clone(),
            events: tx,
        };
        Ok(Running {
            handle: start_within(limits, self.description.clone(), context).await?,
            position: self.position(),
            events,
            seen: Vec::new(),
        })
    }
}

impl Running {
    /// Stops the source and removes what it leaves behind.
    pub(crate) async fn drop_with(self, setup: &Setup) {
        self.handle.stop().await;
        let slot = match &setup.description.kind {
            SourceKind::Postgres {
                connection, slot, ..
            } => Some(ReplicationSlot {
                connection: connection.clone(),
                slot: slot.clone(),
            }),
            SourceKind::LoadGenerator { .. } | SourceKind::Kafka(_) => None,
        };
        let state = setup.dir.path().join("state");
        // An active slot is let go in a moment.
        let mut outcome = clean_up(SOURCE, slot.as_ref(), &state).await;
        for _ in 0..100 {
            if outcome.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await; // poll interval
            outcome = clean_up(SOURCE, slot.as_ref(), &state).await;
        }
        outcome.unwrap();
    }
}

/// A running source.
pub(crate) struct Running {
    pub(crate) handle: SourceHandle,
    position: fn(u64) -> SourcePosition,
    events: mpsc::Receiver<SourceEvent>,
    /// Every event so far.
    pub(crate) seen: Vec<SourceEvent>,
}

impl Running {
    /// Waits for an event.
    pub(crate) async fn wait<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&SourceEvent) -> Option<T>,
    ) -> T {
        let waiting = async {
            loop {
                let event = self.events.recv().await.unwrap();
                let found = wanted(&event);
                self.seen.push(event);
                if let Some(found) = found {
                    return found;
                }
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("no {what} among {:?}", self.seen),
        }
    }

    /// Waits until everything up to `position` can be bound; returns what can.
    pub(crate) async fn progress_to(&mut self, position: &SourcePosition) -> SourcePosition {
        self.wait("progress", |event| match event {
            SourceEvent::Progress { position: now, .. } if now.covers(position) => {
                Some(now.clone())
            }
            _ => None,
        })
        .await
    }

    /// The same where positions are numbers.
    pub(crate) async fn progress(&mut self, position: u64) -> u64 {
        let position = (self.position)(position);
        self.progress_to(&position).await.offset()
    }

    /// Waits for the snapshot of `table`; returns its position.
    pub(crate) async fn snapshot_position(&mut self, table: ObjectId) -> SourcePosition {
        self.wait("snapshot", |event| match event {
            SourceEvent::Snapshot {
                tables, position, ..
            } if tables.contains(&table) => Some(position.clone()),
            _ => None,
        })
        .await
    }

    /// The same where positions are numbers.
    pub(crate) async fn snapshot(&mut self, table: ObjectId) -> u64 {
        self.snapshot_position(table).await.offset()
    }

    /// Everything up to `position` is in a commit point.
    pub(crate) fn acknowledge(&self, position: u64) {
        self.handle.acknowledge(&(self.position)(position));
    }

    pub(crate) async fn status(
        &mut self,
        object: ObjectId,
        wanted: impl Fn(&SourceStatus) -> bool,
    ) -> SourceStatus {
        self.wait("status", |event| match event {
            SourceEvent::Status {
                object: now,
                status,
            } if *now == object && wanted(status) => Some(status.clone()),
            _ => None,
        })
        .await
    }

    /// Takes everything up to a position where positions are numbers.
    pub(crate) async fn take(
        &mut self,
        position: u64,
        snapshots: Vec<ObjectId>,
    ) -> Vec<TableChanges> {
        let position = (self.position)(position);
        self.take_to(&position, &snapshots).await
    }

    /// Takes everything up to a position.
    pub(crate) async fn take_to(
        &mut self,
        position: &SourcePosition,
        snapshots: &[ObjectId],
    ) -> Vec<TableChanges> {
        self.try_take(position, snapshots).await.unwrap()
    }

    /// The same, which may be refused.
    pub(crate) async fn try_take(
        &mut self,
        position: &SourcePosition,
        snapshots: &[ObjectId],
    ) -> Result<Vec<TableChanges>, Error> {
        let binding = SourceBinding {
            source: SOURCE,
            position: position.clone(),
            snapshots: snapshots.to_vec(),
        };
        let taking = async {
            let (handle, binding) = (&mut self.handle, &binding);
            let take = async move {
                let mut pieces = handle.take_pieces(binding).await?;
                let mut taken = Vec::new();
                while let Some(piece) = pieces.next().await? {
                    taken.push(piece);
                }
                Ok::<_, Error>(taken)
            };
            tokio::pin!(take);
            loop {
                tokio::select! {
                    taken = &mut take => return taken,
                    // Somebody must listen, or the source waits.
                    event = self.events.recv() => self.seen.extend(event),
                }
            }
        };
        tokio::time::timeout(DEADLINE, taking)
            .await
            .expect("a take must end")
    }
}

/// The rows of a batch as text.
pub(crate) fn text_rows(batch: &RecordBatch) -> Vec<Row> {
    let schema = batch.schema();
    let formatters: Vec<_> = itertools::zip_eq(batch.columns(), schema.fields())
        .map(|(column, field)| {
            ColumnFormatter::new(column.as_ref(), &SqlType::from_field(field).unwrap()).unwrap()
        })
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            formatters
                .iter()
                .map(|formatter| {
                    let mut text = String::new();
                    formatter
                        .write_text(row, &mut text)
                        .unwrap()
                        .then_some(text)
                })
                .collect()
        })
        .collect()
}

/// The content of tables, folded from what was taken.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Model {
    pub(crate) tables: HashMap<ObjectId, Vec<Row>>,
    pub(crate) errors: Vec<(ObjectId, String)>,
    /// Errors of rows and how often each stands.
    pub(crate) row_errors: BTreeMap<(ObjectId, String), i64>,
}

impl Model {
    pub(crate) async fn apply(&mut self, setup: &Setup, taken: Vec<TableChanges>) {
        for TableChanges { table, data } in taken {
            let key = setup
                .description
                .tables
                .iter()
                .find(|other| other.id == table)
                .unwrap()
                .key
                .clone();
            let schema = setup
                .schemas
                .iter()
                .find(|(id, _)| *id == table)
                .map(|(_, schema)| Arc::clone(schema))
                .unwrap();
            let rows = self.tables.entry(table).or_default();
            match data {
                TableData::Snapshot(staged) => {
                    let batches: Vec<RecordBatch> = setup
                        .delta
                        .read_staged(&staged, schema)
                        .await
                        .unwrap()
                        .try_collect()
                        .await
                        .unwrap();
                    rows.extend(batches.iter().flat_map(text_rows));
                }
                TableData::Error(error) => self.errors.push((table, error.message)),
                TableData::RowErrors(errors) => self.add_row_errors(table, errors),
                TableData::Changes(changes) => {
                    assert_eq!(changes.rows.schema(), schema);
                    if changes.truncate_before {
                        rows.clear();
                    }
                    let of = |row: &Row| {
                        key.iter()
                            .map(|index| row[*index].clone())
                            .collect::<Vec<_>>()
                    };
                    let mut deleted: Option<Row> = None;
                    for (number, (op, mut row)) in
                        itertools::zip_eq(&changes.ops, text_rows(&changes.rows)).enumerate()
                    {
                        let just_deleted = deleted.take();
                        let found = match op {
                            SourceOp::Insert => None,
                            SourceOp::Delete => Some(
                                rows.iter()
                                    .position(|other| *other == row)
                                    .unwrap_or_else(|| panic!("no {row:?}")),
                            ),
                            SourceOp::DeleteByKey => Some(
                                rows.iter()
                                    .position(|other| of(other) == of(&row))
                                    .unwrap_or_else(|| panic!("no {row:?}")),
                            ),
                            SourceOp::Upsert => rows.iter().position(|other| of(other) == of(&row)),
                        };
                        let old = found.map(|index| rows.swap_remove(index));
                        if *op == SourceOp::DeleteByKey {
                            deleted.clone_from(&old);
                        }
                        let old = old.or(just_deleted);
                        for (_, column) in changes
                            .unchanged
                            .iter()
                            .filter(|(row, _)| usize::try_from(*row).unwrap() == number)
                        {
                            row[usize::from(*column)] = old
                                .as_ref()
                                .expect("an old row")
                                .get(usize::from(*column))
                                .unwrap()
                                .clone();
                        }
                        if matches!(op, SourceOp::Insert | SourceOp::Upsert) {
                            rows.push(row);
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn add_row_errors(&mut self, table: ObjectId, errors: Vec<(EvalError, i64)>) {
        for (error, weight) in errors {
            *self.row_errors.entry((table, error.message)).or_default() += weight;
        }
        self.row_errors.retain(|_, weight| *weight != 0);
    }

    /// The errors of a table's rows, each as often as it stands.
    pub(crate) fn row_errors(&self, table: ObjectId) -> Vec<String> {
        let of_table = self.row_errors.iter().filter(|((id, _), _)| *id == table);
        of_table
            .flat_map(|((_, message), weight)| {
                vec![message.clone(); usize::try_from(*weight).unwrap()]
            })
            .collect()
    }

    /// The rows of a table in order.
    pub(crate) fn rows(&self, table: ObjectId) -> Vec<Row> {
        let mut rows = self.tables.get(&table).cloned().unwrap_or_default();
        rows.sort();
        rows
    }
}

/// What was taken as text, without regard to how it was cut into batches.
pub(crate) fn render(taken: &[TableChanges]) -> HashMap<ObjectId, Vec<String>> {
    let mut rendered: HashMap<ObjectId, Vec<String>> = HashMap::new();
    for TableChanges { table, data } in taken {
        let lines = rendered.entry(*table).or_default();
        match data {
            TableData::Snapshot(staged) => lines.push(format!("snapshot of {} rows", staged.rows)),
            TableData::Error(error) => lines.push(format!("error {error}")),
            // Where the changes are cut decides what cancels out: compared as sums.
            TableData::RowErrors(_) => {}
            TableData::Changes(changes) => {
                if changes.truncate_before {
                    lines.push("truncate".to_owned());
                }
                for (number, (op, row)) in
                    itertools::zip_eq(&changes.ops, text_rows(&changes.rows)).enumerate()
                {
                    let unchanged: Vec<u16> = changes
                        .unchanged
                        .iter()
                        .filter(|(row, _)| usize::try_from(*row).unwrap() == number)
                        .map(|(_, column)| *column)
                        .collect();
                    lines.push(format!("{op:?} {row:?} {unchanged:?}"));
                }
            }
        }
    }
    rendered
}
