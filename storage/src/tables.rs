//! The Delta tables of a node: one per collection, and the commits that keep each equal to its collection.
//!
//! Owns the handles of open tables, commits, roll-back, loading and the protection of files that somebody reads or has staged.
//! Must not know views, SQL or which epoch is durable: the caller says which version counts.
//! Called by `worker` (group commit, hydration) and `ingest` (staged snapshots).
//!
//! Invariants. A table's current version holds exactly its relation's rows as of the epoch recorded in it. One table has one writer at a time (its lock);
//! a version is on disk before it is acknowledged. A handle whose last write is in doubt is dropped and read again from disk. Once a table is dropped, nothing
//! makes its directory again: ids are never reused, so the ids of dropped tables are kept and their writers are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_types::clock::SystemClock;
use flowstone_types::{Clock, DeltaBatch, Epoch, ObjectId};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use roaring::RoaringTreemap;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::changes::NetChange;
use crate::columns::Columns;
use crate::data_file::{self, Source};
use crate::deletion_vector::{self, VectorFile};
use crate::delta_log::{self, Content, DataFile, Deletion, Effect, Held, TableState};
use crate::durable::{DurableStore, create_dirs};
use crate::error::Error;
use crate::row_index::{self, IndexCache};
use crate::staging::{self, FileWriter, SnapshotWriter, StagedSnapshot};

/// Tables committed at the same time: enough to overlap their syncs without a burst of blocking threads.
const COMMITS_AT_ONCE: usize = 8;
/// How often a commit is prepared anew because somebody else wrote the version first.
const COMMIT_ATTEMPTS: usize = 5;
/// Prefix of directories of dropped tables whose removal was not finished.
const DROPPED: &str = ".dropped-";
/// Directory of row indexes inside a table; readers of Delta tables ignore names that start with an underscore.
pub(crate) const INDEX_DIR: &str = "_flowstone";

/// All Delta tables of a node under one directory, one per collection: `<dir>/<object id>/`. A cheap handle; clones share everything.
#[derive(Clone, Debug)]
pub struct DeltaTables {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    /// Rooted at `dir`.
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Rooted at the root of the file system, for the Delta library.
    pub(crate) root_store: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<dyn Clock>,
    tables: Mutex<HashMap<ObjectId, Arc<Table>>>,
    pub(crate) indexes: IndexCache,
}

/// One table: its state, if it is open, and what must not be removed from it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// `None` until first use and after a write whose outcome is in doubt. Held for the whole of a commit.
    pub(crate) state: tokio::sync::Mutex<Option<TableState>>,
    /// Paths that streams of [`DeltaTables::load`] still read, with the number of streams.
    pins: Mutex<HashMap<String, usize>>,
    /// Staged files, from their first byte until a commit names them.
    staged: Arc<Mutex<HashSet<String>>>,
    /// Files that failed commits wrote, with the epoch of each: whether a version names them is seen when the table is read again.
    abandoned: Mutex<Vec<(Epoch, String)>>,
    /// Held by whoever writes files of the table without its lock. Where both are needed, the lock comes first.
    presence: Arc<RwLock<Presence>>,
    /// Deletion vector files seen unused, with the time when they were first seen so; and when the table was last vacuumed.
    pub(crate) unused: tokio::sync::Mutex<(HashMap<String, u64>, u64)>,
}

/// Whether a table may be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    #[default]
    Kept,
    Dropped,
}

/// The changes of one collection in a commit.
#[derive(Clone, Debug)]
pub struct CollectionCommit {
    /// The collection.
    pub id: ObjectId,
    /// Its changes, of any number of epochs up to the commit's.
    pub deltas: Vec<DeltaBatch>,
    /// Files to add as they are; the deltas may retract rows of them.
    pub staged: Vec<StagedSnapshot>,
    /// Whether deltas and staged files are the whole content: everything the table held goes.
    pub replace: bool,
}

/// The staged files of one table.
#[derive(Clone, Debug)]
pub(crate) struct Staging {
    id: ObjectId,
    names: Arc<Mutex<HashSet<String>>>,
    presence: Arc<RwLock<Presence>>,
}

impl Staging {
    pub(crate) fn protect(&self, name: &str) {
        lock(&self.names).insert(name.to_owned());
    }

    pub(crate) fn release(&self, name: &str) {
        lock(&self.names).remove(name);
    }

    /// Keeps the table from being dropped while files of it are written, or says that it was.
    pub(crate) async fn enter(&self) -> Result<OwnedRwLockReadGuard<Presence>, Error> {
        enter(self.id, &self.presence).await
    }
}

async fn enter(
    id: ObjectId,
    presence: &Arc<RwLock<Presence>>,
) -> Result<OwnedRwLockReadGuard<Presence>, Error> {
    let present = Arc::clone(presence).read_owned().await;
    let now = *present;
    match now {
        Presence::Kept => Ok(present),
        Presence::Dropped => Err(Error::Dropped(id)),
    }
}

/// Keeps files from being removed while a stream reads them.
#[derive(Debug)]
pub(crate) struct Pin {
    table: Arc<Table>,
    paths: Vec<String>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = lock(&self.table.pins);
        for path in &self.paths {
            if let Some(count) = pins.get_mut(path) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    pins.remove(path);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Invariant(format!("a storage task failed: {error}")))?
}

/// The row index of a data file of the table in `dir`.
pub(crate) fn index_path(dir: &FsPath, file: &str) -> PathBuf {
    let stem = file
        .strip_suffix(".parquet")
        .unwrap_or(file)
        .replace('/', "_");
    dir.join(INDEX_DIR).join(format!("{stem}.rows"))
}

impl Table {
    /// Keeps files on disk while they are read.
    pub(crate) fn pin(self: &Arc<Self>, paths: Vec<String>) -> Pin {
        let mut pins = lock(&self.pins);
        for path in &paths {
            *pins.entry(path.clone()).or_default() += 1;
        }
        drop(pins);
        Pin {
            table: Arc::clone(self),
            paths,
        }
    }

    /// Whether a file is read by a stream or staged.
    pub(crate) fn is_held(&self, path: &str) -> bool {
        lock(&self.pins).contains_key(path) || lock(&self.staged).contains(path)
    }

    /// Keeps a file that is being written from being taken for an orphan, until [`Table::release`].
    pub(crate) fn protect(&self, path: &str) {
        lock(&self.staged).insert(path.to_owned());
    }

    pub(crate) fn release(&self, path: &str) {
        lock(&self.staged).remove(path);
    }
}

impl DeltaTables {
    /// Opens the tables under `dir`, which is made if it does not exist.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Environment`].
    pub async fn open(dir: &FsPath) -> Result<Self, Error> {
        Self::open_with_clock(dir, Arc::new(SystemClock)).await
    }

    /// As [`DeltaTables::open`], with the clock that dates commits and ages unused files.
    ///
    /// # Errors
    /// As [`DeltaTables::open`].
    pub async fn open_with_clock(dir: &FsPath, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let path = dir.to_owned();
        let dir = blocking(move || {
            create_dirs(&path).map_err(Error::io("create", &path))?;
            for entry in std::fs::read_dir(&path).map_err(Error::io("list", &path))? {
                let entry = entry.map_err(Error::io("list", &path))?;
                if entry.file_name().to_string_lossy().starts_with(DROPPED) {
                    std::fs::remove_dir_all(entry.path())
                        .map_err(Error::io("remove", &entry.path()))?;
                }
            }
            path.canonicalize().map_err(Error::io("open", &path))
        })
        .await?;
        let store = DurableStore::new(&dir)
            .map_err(|error| Error::environment("open the directory of the tables", error))?;
        let root_store = DurableStore::new(FsPath::new("/"))
            .map_err(|error| Error::environment("open the root of the file system", error))?;
        let inner = Inner {
            dir,
            store: Arc::new(store),
            root_store: Arc::new(root_store),
            clock,
            tables: Mutex::new(HashMap::new()),
            indexes: IndexCache::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(crate) fn table(&self, id: ObjectId) -> Arc<Table> {
        Arc::clone(lock(&self.inner.tables).entry(id).or_default())
    }

    /// Keeps a table from being dropped while files of it are written, or says that it was.
    pub(crate) async fn enter(
        &self,
        id: ObjectId,
    ) -> Result<OwnedRwLockReadGuard<Presence>, Error> {
        enter(id, &self.table(id).presence).await
    }

    /// The directory of a table, as other engines open it.
    #[must_use]
    pub fn table_path(&self, id: ObjectId) -> PathBuf {
        self.inner.dir.join(id.to_string())
    }

    pub(crate) async fn open_state(
        &self,
        id: ObjectId,
        version: Option<i64>,
    ) -> Result<TableState, Error> {
        delta_log::open(
            &self.inner.store,
            &self.inner.root_store,
            &self.inner.dir,
            id,
            version,
        )
        .await
    }

    /// Takes the state out of its place. It is put back when its next version is known to be on disk or not to exist;
    /// if the caller is cancelled or fails in between, the next one reads it from disk.
    pub(crate) async fn take_state(
        &self,
        id: ObjectId,
        place: &mut Option<TableState>,
    ) -> Result<TableState, Error> {
        match place.take() {
            Some(state) => Ok(state),
            None => {
                // Who holds the lock needs the presence no longer than this: a drop begins with the lock.
                drop(self.enter(id).await?);
                self.open_state(id, None).await
            }
        }
    }

    /// Makes an empty table for a relation with this schema; `name` is shown to other engines. Does nothing if it exists.
    ///
    /// # Errors
    /// [`Error::Invariant`] if it exists with other columns; [`Error::Value`] for a column that cannot be stored; [`Error::Dropped`]; [`Error::Environment`].
    pub async fn create(&self, id: ObjectId, name: &str, schema: SchemaRef) -> Result<(), Error> {
        let columns = Columns::from_schema(&schema)?;
        let table = self.table(id);
        let mut place = table.state.lock().await;
        drop(self.enter(id).await?);
        if place.is_none() && !delta_log::exists(&self.inner.store, id).await? {
            let actions = delta_log::creation(id, name, &columns, self.inner.clock.now_ms())?;
            if delta_log::write_version(
                &self.inner.store,
                id,
                0,
                &actions,
                &Content {
                    files: &BTreeMap::new(),
                    epoch: None,
                    columns: &columns,
                },
            )
            .await?
            {
                *place = Some(TableState {
                    version: 0,
                    epoch: None,
                    files: BTreeMap::new(),
                    columns: Arc::new(columns),
                    held: Held::default(),
                    checkpoint: -1,
                });
                return Ok(());
            }
        }
        let state = self.take_state(id, &mut place).await?;
        let same = state.columns.same_storage(&columns);
        *place = Some(state);
        if same {
            Ok(())
        } else {
            Err(Error::Invariant(format!(
                "table {id} exists with other columns"
            )))
        }
    }

    /// Writes the net effect of the deltas (consolidated over all epochs given), so that each table's current version holds exactly the relation's rows
    /// as of `epoch`. One version per table; a table whose recorded epoch is at or above `epoch` already is left alone, so a commit can be repeated.
    ///
    /// Returns the current version of every table named, also of those that were committed already or had no net change.
    ///
    /// # Errors
    /// [`Error::Environment`], [`Error::Io`]: repeat the commit. [`Error::Dropped`] for a table that was dropped. [`Error::Invariant`] if a retracted row is
    /// not in the table, [`Error::Damaged`]: stop.
    /// Tables that did not fail are committed all the same.
    pub async fn commit(
        &self,
        epoch: Epoch,
        commits: Vec<CollectionCommit>,
    ) -> Result<Vec<(ObjectId, i64)>, Error> {
        let results = futures::stream::iter(commits)
            .map(|commit| async move {
                let id = commit.id;
                self.commit_table(epoch, commit)
                    .await
                    .map(|version| (id, version))
            })
            .buffered(COMMITS_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        results.into_iter().collect()
    }

    async fn commit_table(&self, epoch: Epoch, commit: CollectionCommit) -> Result<i64, Error> {
        let id = commit.id;
        let table = self.table(id);
        let mut place = table.state.lock().await;
        let state = self.take_state(id, &mut place).await?;
        self.remove_abandoned(id, &table, &state).await;
        if state.epoch >= Some(epoch) {
            let version = state.version;
            *place = Some(state);
            return Ok(version);
        }
        let mut written = Vec::new();
        let outcome = self
            .commit_changes(epoch, commit, &table, (&mut place, state), &mut written)
            .await;
        if outcome.is_err() {
            lock(&table.abandoned).extend(written.into_iter().map(|path| (epoch, path)));
        }
        outcome
    }

    /// Removes what failed commits wrote: on a full disk, trying again would otherwise take what little room there is.
    async fn remove_abandoned(&self, id: ObjectId, table: &Table, state: &TableState) {
        let abandoned = std::mem::take(&mut *lock(&table.abandoned));
        for (epoch, path) in abandoned {
            if state.epoch < Some(epoch) {
                let location = Path::from(format!("{id}/{path}"));
                // What cannot be removed is an orphan that the vacuum finds.
                if let Err(error) = self.inner.store.delete(&location).await {
                    tracing::debug!(%error, path, "a file of a failed commit could not be removed");
                }
                let index = index_path(&self.table_path(id), &path);
                self.inner.indexes.forget(&index);
                let _removed = blocking(move || {
                    std::fs::remove_file(&index).map_err(Error::io("remove", &index))
                })
                .await;
            }
            table.release(&path);
        }
    }

    /// Commits to a table whose state was taken out of its place. Notes the files that it writes before any version names them.
    async fn commit_changes(
        &self,
        epoch: Epoch,
        commit: CollectionCommit,
        table: &Table,
        (place, mut state): (&mut Option<TableState>, TableState),
        written: &mut Vec<String>,
    ) -> Result<i64, Error> {
        let id = commit.id;
        let columns = Arc::clone(&state.columns);
        let deltas = commit.deltas;
        let change = blocking(move || NetChange::of(&columns, &deltas)).await?;
        let now_ms = self.inner.clock.now_ms();
        let mut added = staged_files(id, &commit.staged, now_ms)?;
        if let Some(path) = change
            .inserts
            .iter()
            .any(|batch| batch.num_rows() > 0)
            .then(data_file::new_name)
        {
            table.protect(&path);
            written.push(path.clone());
            added.push(
                self.write_rows(id, path, &state.columns, &change.inserts, now_ms)
                    .await?,
            );
        }
        let with_feed = commit.staged.is_empty() && !commit.replace;
        let feed = if with_feed {
            self.write_change_feed(id, &change, written).await?
        } else {
            None
        };
        for _attempt in 0..COMMIT_ATTEMPTS {
            let (mut next, vectors) = self
                .apply(id, &state, &added, &change, commit.replace, now_ms)
                .await?;
            if let Some((name, content)) = vectors.finish() {
                written.push(name.clone());
                self.put(id, &name, content).await?;
            }
            if next.actions.is_empty() {
                let version = state.version;
                *place = Some(state);
                return Ok(version);
            }
            let operation = if next.removed.is_empty() {
                "WRITE"
            } else {
                "MERGE"
            };
            next.actions
                .insert(0, delta_log::commit_info(now_ms, operation, Some(epoch)));
            next.actions
                .insert(1, delta_log::transaction(epoch, now_ms));
            next.actions.extend(feed.clone());
            let version = state.version + 1;
            if delta_log::write_version(
                &self.inner.store,
                id,
                version,
                &next.actions,
                &Content {
                    files: &next.files,
                    epoch: Some(epoch),
                    columns: &state.columns,
                },
            )
            .await?
            {
                state.held.committed(version, next.removed);
                state.files = next.files;
                state.version = version;
                state.epoch = Some(epoch);
                for file in &added {
                    table.release(&file.path);
                }
                *place = Some(state);
                return Ok(version);
            }
            // Somebody else wrote the version: another engine, or a commit of ours whose caller was cancelled.
            state = self.open_state(id, None).await?;
            if state.epoch >= Some(epoch) {
                let version = state.version;
                *place = Some(state);
                return Ok(version);
            }
        }
        let busy = std::io::Error::other("other writers were faster every time");
        Err(Error::environment(format!("commit to table {id}"), busy))
    }

    /// Writes rows to a new file, which is on disk but in no version yet.
    async fn write_rows(
        &self,
        id: ObjectId,
        path: String,
        columns: &Columns,
        batches: &[RecordBatch],
        now_ms: u64,
    ) -> Result<DataFile, Error> {
        let (schema, rows) = (Arc::clone(columns.physical()), batches.to_vec());
        let index = index_path(&self.table_path(id), &path);
        let (content, rows) = blocking(move || {
            let mut hashes = Vec::new();
            for batch in &rows {
                hashes.extend(row_index::hash_stored(batch)?);
            }
            if let Err(error) = row_index::write(&index, &hashes) {
                tracing::warn!(%error, "could not write a row index; it is rebuilt when it is needed");
            }
            Ok((data_file::encode(&schema, &rows)?, hashes.len()))
        })
        .await?;
        let (size, rows) = (count(content.len())?, count(rows)?);
        self.put(id, &path, content).await?;
        Ok(DataFile {
            path,
            size,
            rows,
            modified_ms: now_ms,
            deletion: None,
        })
    }

    pub(crate) async fn put(
        &self,
        id: ObjectId,
        path: &str,
        content: Vec<u8>,
    ) -> Result<(), Error> {
        let location = Path::from(format!("{id}/{path}"));
        let written = self.inner.store.put(&location, content.into()).await;
        written
            .map(|_| ())
            .map_err(|error| Error::environment(format!("write a file of table {id}"), error))
    }

    /// Writes the file of the change data feed. Commits that only insert need none: readers take the new rows themselves.
    async fn write_change_feed(
        &self,
        id: ObjectId,
        change: &NetChange,
        written: &mut Vec<String>,
    ) -> Result<Option<serde_json::Value>, Error> {
        let Some((schema, batches)) = change.feed()? else {
            return Ok(None);
        };
        let content = blocking(move || data_file::encode(&schema, &batches)).await?;
        let path = format!("_change_data/cdc-{}.parquet", uuid::Uuid::new_v4());
        let size = content.len();
        written.push(path.clone());
        self.put(id, &path, content).await?;
        Ok(Some(delta_log::change_file(&path, size)))
    }

    /// The version after `state` with `added` files and the retractions of `change`, and the deletion vectors that are to be on disk before it.
    async fn apply(
        &self,
        id: ObjectId,
        state: &TableState,
        added: &[DataFile],
        change: &NetChange,
        replace: bool,
        now_ms: u64,
    ) -> Result<(NextVersion, VectorFile), Error> {
        let mut next = NextVersion::default();
        let mut files = if replace {
            BTreeMap::new()
        } else {
            state.files.clone()
        };
        for file in added {
            if state.files.contains_key(&file.path)
                || files.insert(file.path.clone(), file.clone()).is_some()
            {
                return Err(Error::Invariant(format!(
                    "file {} is committed twice to table {id}",
                    file.path
                )));
            }
        }
        let located = self.locate(id, &files, &state.columns, change).await?;
        let mut vectors = VectorFile::new(uuid::Uuid::new_v4());
        for (path, positions) in located {
            let file = files
                .remove(&path)
                .ok_or_else(|| Error::Invariant(format!("file {path} is not in table {id}")))?;
            let mut rows = file
                .deletion
                .as_ref()
                .map(|deletion| RoaringTreemap::clone(&deletion.rows))
                .unwrap_or_default();
            rows.extend(positions.into_iter().map(u64::from));
            if rows.len() < file.rows {
                let deletion = Some(new_deletion(rows, &mut vectors)?);
                files.insert(
                    path,
                    DataFile {
                        deletion,
                        modified_ms: now_ms,
                        ..file
                    },
                );
            }
        }
        for (path, file) in &state.files {
            if !files.get(path).is_some_and(|kept| kept.same_content(file)) {
                next.actions
                    .push(delta_log::remove(file, Effect::Rows, now_ms));
                next.removed.insert(path.clone());
                next.removed.extend(file.vector_file(&self.table_path(id))?);
            }
        }
        for (path, file) in &files {
            if !state
                .files
                .get(path)
                .is_some_and(|old| old.same_content(file))
            {
                next.actions.push(delta_log::add(file, Effect::Rows));
            }
        }
        next.files = files;
        Ok((next, vectors))
    }

    /// Finds a stored row for every retraction: positions per file, newest files first since young rows are changed most.
    async fn locate(
        &self,
        id: ObjectId,
        files: &BTreeMap<String, DataFile>,
        columns: &Arc<Columns>,
        change: &NetChange,
    ) -> Result<BTreeMap<String, Vec<u32>>, Error> {
        let mut wanted = change.retractions.clone();
        let mut located = BTreeMap::new();
        let mut order = files.values().collect::<Vec<_>>();
        order.sort_by(|left, right| {
            right
                .modified_ms
                .cmp(&left.modified_ms)
                .then_with(|| right.path.cmp(&left.path))
        });
        for file in order {
            if wanted.is_empty() {
                break;
            }
            let (rest, positions) = self.locate_in(id, file, columns, wanted).await?;
            wanted = rest;
            if !positions.is_empty() {
                located.insert(file.path.clone(), positions);
            }
        }
        let missing = wanted.iter().map(|(_, count)| *count).sum::<u64>();
        if missing > 0 {
            return Err(Error::Invariant(format!(
                "{missing} retracted rows are not in table {id}"
            )));
        }
        Ok(located)
    }

    async fn locate_in(
        &self,
        id: ObjectId,
        file: &DataFile,
        columns: &Arc<Columns>,
        wanted: Vec<(u128, u64)>,
    ) -> Result<(Vec<(u128, u64)>, Vec<u32>), Error> {
        let path = index_path(&self.table_path(id), &file.path);
        for attempt in 0..2 {
            if attempt > 0 {
                tracing::info!(file = %file.path, table = %id, "rebuilding the row index of a data file");
                self.rebuild_index(id, file, columns, &path).await?;
            }
            let this = Arc::clone(&self.inner);
            let (index, rows, wanted) = (path.clone(), file.rows, wanted.clone());
            let deleted = file
                .deletion
                .as_ref()
                .map(|deletion| Arc::clone(&deletion.rows));
            let found = blocking(move || {
                Ok(search(
                    &this.indexes,
                    &index,
                    rows,
                    deleted.as_deref(),
                    wanted,
                ))
            })
            .await?;
            if let Ok(found) = found {
                return Ok(found);
            }
        }
        Err(Error::Invariant(format!(
            "the row index of file {} of table {id} cannot be used",
            file.path
        )))
    }

    async fn rebuild_index(
        &self,
        id: ObjectId,
        file: &DataFile,
        columns: &Arc<Columns>,
        index: &FsPath,
    ) -> Result<(), Error> {
        let mut batches = data_file::read(self.source(id, file, columns, None)).await?;
        let mut hashes = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            hashes.extend(blocking(move || row_index::hash_stored(&batch)).await?);
        }
        if count(hashes.len())? != file.rows {
            return Err(Error::damaged(
                &self.table_path(id).join(&file.path),
                "it has another number of rows",
            ));
        }
        self.inner.indexes.forget(index);
        let index = index.to_owned();
        blocking(move || row_index::write(&index, &hashes)).await
    }

    pub(crate) fn source(
        &self,
        id: ObjectId,
        file: &DataFile,
        columns: &Arc<Columns>,
        deleted: Option<Arc<RoaringTreemap>>,
    ) -> Source {
        Source {
            store: Arc::clone(&self.inner.store),
            location: Path::from(format!("{id}/{}", file.path)),
            size: file.size,
            file: self.table_path(id).join(&file.path),
            columns: Arc::clone(columns),
            deleted,
        }
    }

    /// Streams the rows of a version, duplicates as duplicates, with exactly `schema`. The files stay on disk until the stream is dropped.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the version or one of its files is missing or unreadable (also inside the stream); [`Error::Invariant`] if `schema` is not
    /// the table's; [`Error::Environment`].
    pub async fn load(
        &self,
        id: ObjectId,
        version: i64,
        schema: SchemaRef,
    ) -> Result<BoxStream<'static, Result<RecordBatch, Error>>, Error> {
        let table = self.table(id);
        let mut place = table.state.lock().await;
        if place.is_none() {
            *place = Some(self.open_state(id, None).await?);
        }
        if let Some(newest) = place
            .as_ref()
            .map(|state| state.version)
            .filter(|newest| version > *newest)
        {
            return Err(self.missing_version(id, version, newest));
        }
        let current = place.as_ref().filter(|state| state.version == version);
        let (files, columns) = match current {
            Some(state) => (state.files.clone(), Arc::clone(&state.columns)),
            None => {
                let state = self.open_state(id, Some(version)).await?;
                (state.files, state.columns)
            }
        };
        let pin = table.pin(files.keys().cloned().collect());
        drop(place);
        if !columns.same_storage(&Columns::from_schema(&schema)?) {
            return Err(Error::Invariant(format!(
                "table {id} was loaded with another schema"
            )));
        }
        let sources = files.values().map(|file| {
            let deleted = file
                .deletion
                .as_ref()
                .map(|deletion| Arc::clone(&deletion.rows));
            self.source(id, file, &columns, deleted)
        });
        Ok(stream_rows(sources.collect(), columns, schema, Some(pin)))
    }

    /// Streams the rows of staged files, as [`DeltaTables::load`] does those of a version.
    ///
    /// # Errors
    /// As [`DeltaTables::load`].
    pub async fn read_staged(
        &self,
        staged: &StagedSnapshot,
        schema: SchemaRef,
    ) -> Result<BoxStream<'static, Result<RecordBatch, Error>>, Error> {
        let columns = Arc::new(Columns::from_schema(&schema)?);
        let files = staged_files(staged.id, std::slice::from_ref(staged), 0)?;
        let pin = self
            .table(staged.id)
            .pin(files.iter().map(|file| file.path.clone()).collect());
        let sources = files
            .iter()
            .map(|file| self.source(staged.id, file, &columns, None))
            .collect();
        Ok(stream_rows(sources, columns, schema, Some(pin)))
    }

    /// Brings a table whose newest version was never declared durable back to `version` (`None`: to an empty table), by a new version with that content.
    /// The recorded epoch goes back too, so the epochs after it can be committed again. Does nothing if the content is that of `version` already.
    ///
    /// Other engines see one more version; what they have open stays valid.
    ///
    /// # Errors
    /// [`Error::Damaged`] if `version` does not exist; [`Error::Environment`].
    pub async fn roll_back(&self, id: ObjectId, version: Option<i64>) -> Result<(), Error> {
        let table = self.table(id);
        let mut place = table.state.lock().await;
        let mut state = self.take_state(id, &mut place).await?;
        let (files, epoch) = match version {
            Some(version) if version == state.version => (state.files.clone(), state.epoch),
            Some(version) if version > state.version => {
                return Err(self.missing_version(id, version, state.version));
            }
            Some(version)
                if delta_log::is_layout_only(&self.inner.store, id, version, state.version)
                    .await? =>
            {
                (state.files.clone(), state.epoch)
            }
            Some(version) => {
                let target = self.open_state(id, Some(version)).await?;
                (target.files, target.epoch)
            }
            None => (BTreeMap::new(), None),
        };
        let now_ms = self.inner.clock.now_ms();
        let mut actions = Vec::new();
        for (path, file) in &state.files {
            if !files.get(path).is_some_and(|kept| kept.same_content(file)) {
                actions.push(delta_log::remove(file, Effect::Rows, now_ms));
            }
        }
        for (path, file) in &files {
            if !state
                .files
                .get(path)
                .is_some_and(|old| old.same_content(file))
            {
                actions.push(delta_log::add(file, Effect::Rows));
            }
        }
        // Delta cannot forget a transaction; epoch 0 is below every epoch of a change.
        let epoch = epoch.or(state.epoch.map(|_| Epoch::MIN));
        if !actions.is_empty() || state.epoch != epoch {
            actions.insert(0, delta_log::commit_info(now_ms, "RESTORE", epoch));
            actions.extend(epoch.map(|epoch| delta_log::transaction(epoch, now_ms)));
            let next = state.version + 1;
            if !delta_log::write_version(
                &self.inner.store,
                id,
                next,
                &actions,
                &Content {
                    files: &files,
                    epoch,
                    columns: &state.columns,
                },
            )
            .await?
            {
                let busy = std::io::Error::other("another writer is at work");
                return Err(Error::environment(format!("roll back table {id}"), busy));
            }
            state.version = next;
            state.files = files;
            state.epoch = epoch;
        }
        // Until the next commit is durable, `version` is what a restart asks for again.
        state.held = Held::default();
        *place = Some(state);
        Ok(())
    }

    fn missing_version(&self, id: ObjectId, version: i64, newest: i64) -> Error {
        let reason = format!("it is missing, the newest version is {newest}");
        Error::damaged(
            &delta_log::commit_file(&self.table_path(id), version),
            reason,
        )
    }

    /// Removes a table and its files. Does nothing if it does not exist. Streams that read it may fail, and whatever writes to it from now on, also if this
    /// fails, is refused with [`Error::Dropped`].
    ///
    /// # Errors
    /// [`Error::Io`]; what is left of the files is removed at the next start.
    pub async fn drop_table(&self, id: ObjectId) -> Result<(), Error> {
        let table = self.table(id);
        let mut place = table.state.lock().await;
        // Whoever writes a file right now finishes that; until everything is gone, nobody begins.
        let mut presence = table.presence.write().await;
        *presence = Presence::Dropped;
        *place = None;
        let path = self.table_path(id);
        let dropped = self.inner.dir.join(format!("{DROPPED}{id}"));
        let dir = self.inner.dir.clone();
        blocking(move || {
            let unless_absent = |result: std::io::Result<()>| match result {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
            // What an earlier try has left goes first: its name is needed.
            unless_absent(std::fs::remove_dir_all(&dropped))
                .map_err(Error::io("remove", &dropped))?;
            let renamed = failpoint::reached(Kind::TableDrop, Step::Name)
                .and_then(|()| std::fs::rename(&path, &dropped));
            unless_absent(renamed).map_err(Error::io("rename", &path))?;
            failpoint::reached(Kind::TableDrop, Step::Directory)
                .and_then(|()| flowstone_disk::sync_directory(&dir))
                .map_err(Error::io("sync", &dir))?;
            let removed = failpoint::reached(Kind::TableDrop, Step::Remove)
                .and_then(|()| std::fs::remove_dir_all(&dropped));
            unless_absent(removed).map_err(Error::io("remove", &dropped))
        })
        .await
    }

    /// A writer of files that become part of the table when a commit names them.
    ///
    /// # Errors
    /// [`Error::Value`] for a column that cannot be stored; [`Error::Dropped`].
    pub async fn stage(&self, id: ObjectId, schema: SchemaRef) -> Result<SnapshotWriter, Error> {
        let columns = Columns::from_schema(&schema)?;
        drop(self.enter(id).await?);
        Ok(SnapshotWriter::new(self.file_writer(id, &columns), columns))
    }

    /// Gives up staged files that no commit will ever name. What cannot be removed now is found by a later maintenance.
    pub async fn discard(&self, staged: StagedSnapshot) {
        let table = self.table(staged.id);
        let dir = self.table_path(staged.id);
        let names: Vec<String> = staged.files.into_iter().map(|file| file.path).collect();
        for name in &names {
            table.release(name);
        }
        let _removed = blocking(move || {
            staging::remove_files(&dir, &names);
            Ok(())
        })
        .await;
    }

    /// A writer of files of a table, of rows in stored form.
    pub(crate) fn file_writer(&self, id: ObjectId, columns: &Columns) -> FileWriter {
        let table = self.table(id);
        let staging = Staging {
            id,
            names: Arc::clone(&table.staged),
            presence: Arc::clone(&table.presence),
        };
        FileWriter::new(
            Arc::clone(&self.inner.store),
            id,
            self.table_path(id),
            Arc::clone(columns.physical()),
            staging,
        )
    }
}

/// The content of the version after the current one.
#[derive(Debug, Default)]
struct NextVersion {
    actions: Vec<serde_json::Value>,
    files: BTreeMap<String, DataFile>,
    /// Files that the version takes out of the table.
    removed: BTreeSet<String>,
}

pub(crate) fn count(length: usize) -> Result<u64, Error> {
    u64::try_from(length).map_err(|_| Error::Invariant(format!("a length of {length}")))
}

/// Describes deleted rows, inside the log if they are few.
pub(crate) fn new_deletion(
    rows: RoaringTreemap,
    vectors: &mut VectorFile,
) -> Result<Deletion, Error> {
    let bytes = deletion_vector::encode(&rows)?;
    let descriptor = if bytes.len() <= deletion_vector::INLINE_BYTES_MAX {
        deletion_vector::inline(&bytes, rows.len())?
    } else {
        vectors.push(&bytes, rows.len())?
    };
    Ok(Deletion {
        descriptor,
        rows: Arc::new(rows),
    })
}

fn staged_files(
    id: ObjectId,
    staged: &[StagedSnapshot],
    now_ms: u64,
) -> Result<Vec<DataFile>, Error> {
    let mut files = Vec::new();
    for snapshot in staged {
        if snapshot.id != id {
            return Err(Error::Invariant(format!(
                "files staged for table {} in a commit of table {id}",
                snapshot.id
            )));
        }
        files.extend(snapshot.files.iter().map(|file| DataFile {
            path: file.path.clone(),
            size: file.size,
            rows: file.rows,
            modified_ms: now_ms,
            deletion: None,
        }));
    }
    Ok(files)
}

type Found = (Vec<(u128, u64)>, Vec<u32>);

/// Looks up the wanted rows in one file: what is still wanted, and the positions found, without those already deleted.
fn search(
    indexes: &IndexCache,
    path: &FsPath,
    rows: u64,
    deleted: Option<&RoaringTreemap>,
    mut wanted: Vec<(u128, u64)>,
) -> Result<Found, row_index::Unusable> {
    let sought = wanted.iter().map(|(hash, _)| *hash).collect::<Vec<_>>();
    let mut positions = Vec::new();
    let index = indexes.get(path, rows)?;
    let result = index.lookup(&sought, |at, position| {
        let Some((_, count)) = wanted.get_mut(at) else {
            return false;
        };
        if *count > 0 && !deleted.is_some_and(|deleted| deleted.contains(u64::from(position))) {
            positions.push(position);
            *count -= 1;
        }
        *count > 0
    });
    if result.is_err() {
        indexes.forget(path);
    }
    result?;
    wanted.retain(|(_, count)| *count > 0);
    Ok((wanted, positions))
}

fn stream_rows(
    sources: Vec<Source>,
    columns: Arc<Columns>,
    schema: SchemaRef,
    pin: Option<Pin>,
) -> BoxStream<'static, Result<RecordBatch, Error>> {
    futures::stream::iter(sources)
        .then(data_file::read)
        .try_flatten()
        .map(move |batch| {
            // The pin lives as long as the stream.
            let _pin = &pin;
            columns.restore(&batch?, &schema)
        })
        .boxed()
}
