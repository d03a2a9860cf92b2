//! The Delta log of a table: what its current version holds, and the actions of a new version.
//!
//! Owns the state of an open table and the JSON of commits. Reading the log (checkpoints, JSON, old versions) is the Delta library's work; commits are
//! written here, because the library cannot write deletion vectors and a held library snapshot gets slower with every commit.
//! Must not know delta batches. Called by [`crate::tables`] and [`crate::maintenance`].
//!
//! Invariants. A version is written with "create if absent" and never changed: readers of other engines see whole versions only. The first action of a version
//! seals it: it says what the other actions must be, and what the table holds with them. A log that does not agree is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FsPath;
use std::sync::Arc;

use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use flowstone_types::{Epoch, ObjectId};
use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use roaring::RoaringTreemap;
use serde_json::{Value, json};

use crate::columns::Columns;
use crate::data_file;
use crate::deletion_vector::Descriptor;
use crate::error::Error;

mod seal;

pub(crate) use seal::Content;

/// The application id of our transactions in every table.
pub(crate) const APP_ID: &str = "flowstone";
/// How long readers of other engines may still use an old version.
pub(crate) const RETENTION_MS: u64 = 24 * 3600 * 1000;
const RETENTION_INTERVAL: &str = "interval 24 hours";

/// A data file of a table's version.
#[derive(Clone, Debug)]
pub(crate) struct DataFile {
    /// Relative to the table.
    pub(crate) path: String,
    pub(crate) size: u64,
    /// Rows in the file, deleted ones included.
    pub(crate) rows: u64,
    pub(crate) modified_ms: u64,
    pub(crate) deletion: Option<Deletion>,
}

/// Deleted rows of a data file.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub(crate) descriptor: Descriptor,
    pub(crate) rows: Arc<RoaringTreemap>,
}

/// The versions that recovery may still go back to, with the files that were taken out of the table since.
///
/// The commit point of the newest commit may not be durable yet, so the version before it must stay readable, whatever the clock says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    /// The commit before the newest.
    pub(crate) previous: Option<(i64, BTreeSet<String>)>,
    /// The newest commit.
    newest: Option<(i64, BTreeSet<String>)>,
}

impl Held {
    /// Notes a commit of an epoch that wrote `version`.
    pub(crate) fn committed(&mut self, version: i64, removed: BTreeSet<String>) {
        self.removed(removed);
        self.previous = self.newest.replace((version, BTreeSet::new()));
    }

    /// Notes files that were taken out of the table.
    pub(crate) fn removed(&mut self, removed: BTreeSet<String>) {
        for (_, files) in [&mut self.previous, &mut self.newest].into_iter().flatten() {
            files.extend(removed.iter().cloned());
        }
    }

    /// Whether a held version may need this file.
    pub(crate) fn needs(&self, path: &str) -> bool {
        [&self.previous, &self.newest]
            .into_iter()
            .flatten()
            .any(|(_, files)| files.contains(path))
    }
}

impl DataFile {
    /// The file of its deletion vector, if that is not in the log.
    pub(crate) fn vector_file(&self, table: &FsPath) -> Result<Option<String>, Error> {
        self.deletion
            .as_ref()
            .map_or(Ok(None), |deletion| deletion.descriptor.file_name(table))
    }

    /// Number of rows that are not deleted.
    pub(crate) fn live_rows(&self) -> u64 {
        self.rows.saturating_sub(
            self.deletion
                .as_ref()
                .map_or(0, |deletion| deletion.rows.len()),
        )
    }

    /// Whether both name the same rows of the same file.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        let descriptor = |file: &Self| {
            file.deletion
                .as_ref()
                .map(|deletion| deletion.descriptor.clone())
        };
        self.path == other.path && descriptor(self) == descriptor(other)
    }
}

/// What a version of a table holds.
#[derive(Clone, Debug)]
pub(crate) struct TableState {
    pub(crate) version: i64,
    /// Our transaction's version: the epoch whose rows the table holds.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) files: BTreeMap<String, DataFile>,
    pub(crate) columns: Arc<Columns>,
    /// What recovery may ask for; unknown until this process has committed twice.
    pub(crate) held: Held,
    /// The newest version that a checkpoint was written for.
    pub(crate) checkpoint: i64,
}

/// The same on the file system, for people.
pub(crate) fn commit_file(table: &FsPath, version: i64) -> std::path::PathBuf {
    table.join("_delta_log").join(format!("{version:020}.json"))
}

/// The file of a version's actions.
fn commit_location(id: ObjectId, version: i64) -> Path {
    Path::from(format!("{id}/_delta_log/{version:020}.json"))
}

/// Whether a table has a log, be it damaged: it is not made anew then.
pub(crate) async fn exists(store: &Arc<dyn ObjectStore>, id: ObjectId) -> Result<bool, Error> {
    let mut log = store.list(Some(&Path::from(format!("{id}/_delta_log"))));
    let first = log.next().await.transpose();
    first
        .map(|first| first.is_some())
        .map_err(|error| Error::environment(format!("list the log of table {id}"), error))
}

/// Writes a version; `false` if it exists already. `content` is what the table holds with it; the first action is [`commit_info`].
pub(crate) async fn write_version(
    store: &Arc<dyn ObjectStore>,
    id: ObjectId,
    version: i64,
    actions: &[Value],
    content: &Content<'_>,
) -> Result<bool, Error> {
    let text = seal::sealed(actions, &content.digest()?)?;
    let location = commit_location(id, version);
    match store
        .put_opts(&location, text.into_bytes().into(), PutMode::Create.into())
        .await
    {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(error) => Err(Error::environment(
            format!("commit version {version} of table {id}"),
            error,
        )),
    }
}

/// The actions of version 0 of a table.
pub(crate) fn creation(
    id: ObjectId,
    name: &str,
    columns: &Columns,
    now_ms: u64,
) -> Result<Vec<Value>, Error> {
    let mut reader = vec!["deletionVectors"];
    let mut writer = vec!["deletionVectors", "changeDataFeed"];
    let mut configuration = serde_json::Map::new();
    for (key, value) in [
        ("delta.enableDeletionVectors", "true"),
        ("delta.enableChangeDataFeed", "true"),
        ("delta.logRetentionDuration", RETENTION_INTERVAL),
        ("delta.deletedFileRetentionDuration", RETENTION_INTERVAL),
    ] {
        configuration.insert(key.to_owned(), json!(value));
    }
    if columns.has_local_timestamps() {
        reader.push("timestampNtz");
        writer.push("timestampNtz");
    }
    Ok(vec![
        commit_info(now_ms, "CREATE TABLE", None),
        json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": reader, "writerFeatures": writer}}),
        json!({"metaData": {
            "id": uuid::Uuid::new_v4().to_string(),
            "name": name,
            "description": format!("Flowstone object {id}"),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": columns.schema_string()?,
            "partitionColumns": [],
            "createdTime": now_ms,
            "configuration": configuration,
        }}),
    ])
}

/// The first action of a version.
pub(crate) fn commit_info(now_ms: u64, operation: &str, epoch: Option<Epoch>) -> Value {
    let mut info = json!({
        "timestamp": now_ms,
        "operation": operation,
        "operationParameters": {},
        "engineInfo": concat!("flowstone/", env!("CARGO_PKG_VERSION")),
    });
    if let (Some(epoch), Some(info)) = (epoch, info.as_object_mut()) {
        info.insert("flowstone.epoch".to_owned(), json!(epoch.0));
    }
    json!({"commitInfo": info})
}

/// Records the epoch whose rows the table holds.
pub(crate) fn transaction(epoch: Epoch, now_ms: u64) -> Value {
    json!({"txn": {"appId": APP_ID, "version": epoch.0, "lastUpdated": now_ms}})
}

/// Whether an action changes the table's rows or only their layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Rows,
    Layout,
}

/// Makes a file part of the table.
pub(crate) fn add(file: &DataFile, effect: Effect) -> Value {
    let stats = json!({"numRecords": file.rows, "tightBounds": file.deletion.is_none()});
    let mut add = json!({
        "path": file.path,
        "partitionValues": {},
        "size": file.size,
        "modificationTime": file.modified_ms,
        "dataChange": effect == Effect::Rows,
        "stats": stats.to_string(),
    });
    put_deletion(&mut add, file);
    json!({"add": add})
}

/// Takes a file out of the table.
pub(crate) fn remove(file: &DataFile, effect: Effect, now_ms: u64) -> Value {
    let mut remove = json!({
        "path": file.path,
        "deletionTimestamp": now_ms,
        "dataChange": effect == Effect::Rows,
        "extendedFileMetadata": true,
        "partitionValues": {},
        "size": file.size,
    });
    put_deletion(&mut remove, file);
    json!({"remove": remove})
}

/// Names a file of the change data feed.
pub(crate) fn change_file(path: &str, size: usize) -> Value {
    json!({"cdc": {"path": path, "partitionValues": {}, "size": size, "dataChange": false}})
}

fn put_deletion(action: &mut Value, file: &DataFile) {
    if let (Some(deletion), Some(action)) = (&file.deletion, action.as_object_mut()) {
        action.insert("deletionVector".to_owned(), json!(deletion.descriptor));
    }
}

fn library_error(table: &FsPath, error: DeltaTableError) -> Error {
    if refused_by_environment(&error) {
        return Error::environment(
            format!("read the log of table \"{}\"", table.display()),
            error,
        );
    }
    match error {
        DeltaTableError::NotATable(reason) => Error::damaged(table, reason),
        DeltaTableError::InvalidVersion(version) => {
            Error::damaged(table, format!("version {version} is missing"))
        }
        other => Error::damaged(table, other.to_string()),
    }
}

/// Whether a cause of the error is one that goes by itself: the file system refused, and not because the file is not there or makes no sense.
fn refused_by_environment(error: &DeltaTableError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return !matches!(
                error.kind(),
                std::io::ErrorKind::NotFound
                    | std::io::ErrorKind::InvalidData
                    | std::io::ErrorKind::InvalidInput
                    | std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::Other
            );
        }
        cause = error.source();
    }
    false
}

/// Opens a table with the library, at `version` or the newest. `root_store` is rooted at the root of the file system, as the library wants it.
pub(crate) async fn open_library(
    root_store: &Arc<dyn ObjectStore>,
    root: &FsPath,
    id: ObjectId,
    version: Option<i64>,
) -> Result<DeltaTable, Error> {
    let table = root.join(id.to_string());
    let url = url::Url::from_directory_path(&table)
        .map_err(|()| Error::Invariant(format!("\"{}\" is not absolute", table.display())))?;
    let mut builder = DeltaTableBuilder::from_url(url.clone())
        .map_err(|error| library_error(&table, error))?
        .with_storage_backend(Arc::clone(root_store), url);
    if let Some(version) = version {
        let version = u64::try_from(version)
            .map_err(|_| Error::Invariant(format!("table version {version}")))?;
        builder = builder.with_version(version);
    }
    builder
        .load()
        .await
        .map_err(|error| library_error(&table, error))
}

/// Reads the state of a table at `version` or the newest.
pub(crate) async fn open(
    store: &Arc<dyn ObjectStore>,
    root_store: &Arc<dyn ObjectStore>,
    root: &FsPath,
    id: ObjectId,
    version: Option<i64>,
) -> Result<TableState, Error> {
    let path = root.join(id.to_string());
    let log = seal::check_log(store, &path, id, version).await?;
    let state = read_state(store, root_store, root, id, version)
        .await
        .map_err(|error| log.blame(error))?;
    let content = Content {
        files: &state.files,
        epoch: state.epoch,
        columns: &state.columns,
    };
    log.check_content(state.version, &content.digest()?)?;
    Ok(state)
}

/// What the library makes of a log that was checked.
async fn read_state(
    store: &Arc<dyn ObjectStore>,
    root_store: &Arc<dyn ObjectStore>,
    root: &FsPath,
    id: ObjectId,
    version: Option<i64>,
) -> Result<TableState, Error> {
    let path = root.join(id.to_string());
    let table = open_library(root_store, root, id, version).await?;
    let snapshot = table
        .snapshot()
        .map_err(|error| library_error(&path, error))?;
    let schema = serde_json::to_string(snapshot.schema().as_ref())
        .map_err(|error| Error::damaged(&path, error.to_string()))?;
    let columns = Columns::from_schema_string(&schema, &path)?;
    let epoch = snapshot
        .transaction_version(table.log_store().as_ref(), APP_ID)
        .await
        .map_err(|error| library_error(&path, error))?
        .map(|version| {
            u64::try_from(version)
                .map(Epoch)
                .map_err(|_| Error::damaged(&path, "a negative epoch"))
        })
        .transpose()?;
    let mut files = BTreeMap::new();
    let views = snapshot.log_data().iter().collect::<Vec<_>>();
    for view in views {
        let file_path = view.path().into_owned();
        let descriptor = view
            .deletion_vector_descriptor()
            .map(|descriptor| {
                serde_json::to_value(descriptor).and_then(serde_json::from_value::<Descriptor>)
            })
            .transpose()
            .map_err(|error| Error::damaged(&path, error.to_string()))?;
        let deletion = match descriptor {
            None => None,
            Some(descriptor) => Some(read_deletion(store, id, &path, descriptor).await?),
        };
        let size = u64::try_from(view.size())
            .map_err(|_| Error::damaged(&path, "a negative file size"))?;
        let rows = match view.num_records().and_then(|rows| u64::try_from(rows).ok()) {
            Some(rows) => rows,
            None => {
                let location = Path::from(format!("{id}/{file_path}"));
                data_file::count_rows(Arc::clone(store), location, size, &path.join(&file_path))
                    .await?
            }
        };
        let file = DataFile {
            size,
            modified_ms: u64::try_from(view.modification_time()).unwrap_or_default(),
            path: file_path.clone(),
            rows,
            deletion,
        };
        files.insert(file_path, file);
    }
    let version = i64::try_from(snapshot.version())
        .map_err(|_| Error::damaged(&path, "a version beyond 2^63"))?;
    let checkpoint = newest_checkpoint(store, id).await?;
    Ok(TableState {
        version,
        epoch,
        files,
        columns: Arc::new(columns),
        held: Held::default(),
        checkpoint,
    })
}

/// The version of the checkpoint that `_last_checkpoint` names; -1 if there is none.
async fn newest_checkpoint(store: &Arc<dyn ObjectStore>, id: ObjectId) -> Result<i64, Error> {
    let location = Path::from(format!("{id}/_delta_log/_last_checkpoint"));
    let content = match store.get(&location).await {
        Ok(content) => content.bytes().await,
        Err(object_store::Error::NotFound { .. }) => return Ok(-1),
        Err(error) => Err(error),
    };
    let content = content.map_err(|error| {
        Error::environment(format!("read the last checkpoint of table {id}"), error)
    })?;
    let hint = serde_json::from_slice::<Value>(&content).ok();
    Ok(hint
        .as_ref()
        .and_then(|hint| hint.get("version"))
        .and_then(Value::as_i64)
        .unwrap_or(-1))
}

async fn read_deletion(
    store: &Arc<dyn ObjectStore>,
    id: ObjectId,
    table: &FsPath,
    descriptor: Descriptor,
) -> Result<Deletion, Error> {
    let rows = match descriptor.file_name(table)? {
        None => descriptor.read_inline(table)?,
        Some(name) => {
            let file = table.join(&name);
            let failed = |error: object_store::Error| match error {
                object_store::Error::NotFound { .. } => Error::damaged(&file, "it is missing"),
                other => Error::environment(format!("read file \"{}\"", file.display()), other),
            };
            let content = store
                .get(&Path::from(format!("{id}/{name}")))
                .await
                .map_err(failed)?
                .bytes()
                .await
                .map_err(failed)?;
            descriptor.read_file(&content, &file)?
        }
    };
    Ok(Deletion {
        descriptor,
        rows: Arc::new(rows),
    })
}

/// Files that were removed from the table and are still named in its log, with the time of their removal.
pub(crate) async fn tombstones(
    table: &DeltaTable,
    path: &FsPath,
) -> Result<BTreeMap<String, u64>, Error> {
    let snapshot = table
        .snapshot()
        .map_err(|error| library_error(path, error))?;
    let log_store = table.log_store();
    let mut stream = snapshot.all_tombstones(log_store.as_ref());
    let mut removed = BTreeMap::new();
    while let Some(tombstone) = stream.next().await {
        let tombstone = tombstone.map_err(|error| library_error(path, error))?;
        let at = tombstone
            .deletion_timestamp()
            .and_then(|at| u64::try_from(at).ok())
            .unwrap_or_default();
        removed.insert(tombstone.path().into_owned(), at);
    }
    Ok(removed)
}

/// Whether the versions after `from` up to `to` only moved rows between files.
pub(crate) async fn is_layout_only(
    store: &Arc<dyn ObjectStore>,
    id: ObjectId,
    from: i64,
    to: i64,
) -> Result<bool, Error> {
    for version in from + 1..=to {
        let failed =
            |error| Error::environment(format!("read version {version} of table {id}"), error);
        let content = match store.get(&commit_location(id, version)).await {
            Ok(content) => content.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        for line in content
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let Ok(action) = serde_json::from_slice::<Value>(line) else {
                return Ok(false);
            };
            let layout = |kind: &str| {
                let change = action
                    .get(kind)
                    .map(|file| file.get("dataChange").and_then(Value::as_bool));
                change.is_none_or(|change| change == Some(false))
            };
            if !layout("add") || !layout("remove") || action.get("txn").is_some() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
