//! Background work on a table: compaction of its files, checkpoints and trimming of its log, removal of files nobody needs.
//!
//! Owns the choice of what to compact and of what may be removed. Must not delay commits: files are rewritten without the table's lock, and rows deleted
//! meanwhile are deleted from the new files when they are swapped in.
//! Called periodically by `worker`; each call does a bounded amount.
//!
//! Invariants. Layout changes carry `dataChange: false` and leave the recorded epoch alone. A file is removed only when no version that recovery may ask
//! for needs it, no stream reads it, nobody has staged it, and other engines had [`RETENTION_MS`] to let go of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use deltalake::protocol::checkpoints;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_types::ObjectId;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use crate::columns::Columns;
use crate::data_file;
use crate::deletion_vector::VectorFile;
use crate::delta_log::{self, Content, DataFile, Effect, RETENTION_MS, TableState};
use crate::error::Error;
use crate::staging::StagedSnapshot;
use crate::tables::{self, DeltaTables, INDEX_DIR, Table};

/// Versions between two checkpoints: opening a table reads at most this many small files.
const CHECKPOINT_VERSIONS: i64 = 50;
/// Files of about one size that are merged into one.
const MERGE_FILES: usize = 8;
/// Most files rewritten by one call.
const MERGE_FILES_MAX: usize = 64;
/// Files from this size on are not merged.
const LARGE_BYTES: u64 = 64 << 20;
/// Most bytes rewritten by one call.
const REWRITE_BYTES_MAX: u64 = 256 << 20;
/// A file is rewritten when more than one in this many of its rows is deleted.
const DELETED_ONE_IN: u64 = 3;
/// Time between two searches for files that nobody needs.
const VACUUM_INTERVAL_MS: u64 = 3600 * 1000;

impl DeltaTables {
    /// Does a bounded amount of background work on a table: merges small files and rewrites files with many deleted rows, writes a checkpoint of the log,
    /// removes log entries and files that are older than a day and needed by nobody. To be called now and then, also while commits go on.
    ///
    /// # Errors
    /// [`Error::Environment`] or [`Error::Io`]: the work is tried again by the next call. [`Error::Dropped`]: there is no more to do. [`Error::Damaged`] if a
    /// file cannot be read.
    pub async fn maintain(&self, id: ObjectId) -> Result<(), Error> {
        self.compact(id).await?;
        self.checkpoint(id).await?;
        self.vacuum(id).await
    }

    async fn compact(&self, id: ObjectId) -> Result<(), Error> {
        let table = self.table(id);
        let (inputs, columns, pin) = {
            let mut place = table.state.lock().await;
            let state = self.take_state(id, &mut place).await?;
            let inputs = choose(&state.files);
            let columns = Arc::clone(&state.columns);
            let pin = table.pin(inputs.iter().map(|file| file.path.clone()).collect());
            *place = Some(state);
            (inputs, columns, pin)
        };
        if inputs.is_empty() {
            return Ok(());
        }
        let staged = self.rewrite(id, &inputs, &columns).await?;
        let swapped = self.swap(id, &table, &inputs, &staged).await;
        for file in &staged.files {
            table.release(&file.path);
        }
        drop(pin);
        swapped
    }

    /// Writes the rows of `inputs` that are not deleted, in order, to new files.
    async fn rewrite(
        &self,
        id: ObjectId,
        inputs: &[DataFile],
        columns: &Arc<Columns>,
    ) -> Result<StagedSnapshot, Error> {
        let mut writer = self.file_writer(id, columns);
        for file in inputs {
            let deleted = file
                .deletion
                .as_ref()
                .map(|deletion| Arc::clone(&deletion.rows));
            let mut rows = data_file::read(self.source(id, file, columns, deleted)).await?;
            while let Some(batch) = rows.try_next().await? {
                writer.write(&batch).await?;
            }
        }
        writer.finish().await
    }

    /// Commits `staged` in the place of `inputs`, without the rows that were deleted since they were read.
    async fn swap(
        &self,
        id: ObjectId,
        table: &Table,
        inputs: &[DataFile],
        staged: &StagedSnapshot,
    ) -> Result<(), Error> {
        let mut place = table.state.lock().await;
        let mut state = self.take_state(id, &mut place).await?;
        let Some(gone) = deleted_since(inputs, &state) else {
            // The table was rolled back meanwhile: rows are back that the new files lack.
            *place = Some(state);
            return Ok(());
        };
        let now_ms = self.inner.clock.now_ms();
        let mut vectors = VectorFile::new(uuid::Uuid::new_v4());
        let outputs = outputs(staged, &gone, &mut vectors, now_ms)?;
        if let Some((name, content)) = vectors.finish() {
            self.put(id, &name, content).await?;
        }
        let mut actions = vec![delta_log::commit_info(now_ms, "OPTIMIZE", None)];
        let mut files = state.files.clone();
        let mut removed = BTreeSet::new();
        for input in inputs {
            if let Some(file) = files.remove(&input.path) {
                actions.push(delta_log::remove(&file, Effect::Layout, now_ms));
                removed.extend(file.vector_file(&self.table_path(id))?);
                removed.insert(file.path);
            }
        }
        for output in outputs {
            actions.push(delta_log::add(&output, Effect::Layout));
            files.insert(output.path.clone(), output);
        }
        let version = state.version + 1;
        if delta_log::write_version(
            &self.inner.store,
            id,
            version,
            &actions,
            &Content {
                files: &files,
                epoch: state.epoch,
                columns: &state.columns,
            },
        )
        .await?
        {
            state.version = version;
            state.files = files;
            state.held.removed(removed);
            *place = Some(state);
        }
        // Else another writer was faster: its version is read by the next user of the table, and compaction is tried again.
        Ok(())
    }

    async fn checkpoint(&self, id: ObjectId) -> Result<(), Error> {
        let table = self.table(id);
        let mut place = table.state.lock().await;
        let mut state = self.take_state(id, &mut place).await?;
        let version = state.version;
        let keep = state.held.previous.as_ref().map(|(version, _)| *version);
        let due = version >= state.checkpoint + CHECKPOINT_VERSIONS;
        if due {
            state.checkpoint = version;
        }
        *place = Some(state);
        drop(place);
        if !due {
            return Ok(());
        }
        let _present = self.enter(id).await?;
        let failed = |error| Error::environment(format!("write a checkpoint of table {id}"), error);
        let library =
            delta_log::open_library(&self.inner.root_store, &self.inner.dir, id, Some(version))
                .await?;
        checkpoints::create_checkpoint(&library, None)
            .await
            .map_err(failed)?;
        if let Some(keep) = keep.and_then(|keep| u64::try_from(keep).ok()) {
            let cutoff = i64::try_from(self.inner.clock.now_ms().saturating_sub(RETENTION_MS))
                .unwrap_or_default();
            checkpoints::cleanup_expired_logs_for(keep, library.log_store().as_ref(), cutoff, None)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    async fn vacuum(&self, id: ObjectId) -> Result<(), Error> {
        let table = self.table(id);
        let mut unused = table.unused.lock().await;
        let now_ms = self.inner.clock.now_ms();
        if now_ms < unused.1.saturating_add(VACUUM_INTERVAL_MS) {
            return Ok(());
        }
        let dir = self.table_path(id);
        // Listed before the state is read: what appears later cannot be taken for unused.
        let listed = {
            let dir = dir.clone();
            tables::blocking(move || list(&dir)).await?
        };
        let mut place = table.state.lock().await;
        let state = self.take_state(id, &mut place).await?;
        let copy = state.clone();
        *place = Some(state);
        drop(place);
        if copy.held.previous.is_none() {
            // Which version recovery asks for is not known before two commits.
            return Ok(());
        }
        let library = delta_log::open_library(
            &self.inner.root_store,
            &self.inner.dir,
            id,
            Some(copy.version),
        )
        .await?;
        let tombstones = delta_log::tombstones(&library, &dir).await?;
        let mut used = copy.files.keys().cloned().collect::<BTreeSet<_>>();
        for file in copy.files.values() {
            used.extend(file.vector_file(&dir)?);
        }
        let is_needed =
            |name: &str| used.contains(name) || copy.held.needs(name) || table.is_held(name);
        let mut removable = Vec::new();
        let mut still_unused = std::collections::HashMap::new();
        for (name, modified_ms) in &listed {
            let since = if name.starts_with("_change_data/") || name.contains('#') {
                // Named by one version only, or by none: its age is the age of its last use.
                *modified_ms
            } else if let Some(data) = name.strip_prefix(INDEX_DIR).map(index_target) {
                if listed.contains_key(&data) {
                    continue;
                } else {
                    *modified_ms
                }
            } else if is_needed(name) {
                continue;
            } else {
                let seen = unused.0.get(name).copied().unwrap_or(now_ms);
                still_unused.insert(name.clone(), seen);
                tombstones.get(name).copied().unwrap_or(seen)
            };
            if since.saturating_add(RETENTION_MS) < now_ms {
                removable.push(name.clone());
            }
        }
        *unused = (still_unused, now_ms);
        drop(unused);
        for name in &removable {
            self.inner.indexes.forget(&tables::index_path(&dir, name));
        }
        tables::blocking(move || {
            for name in removable {
                let path = dir.join(name);
                let removed = failpoint::reached(Kind::DeltaVacuum, Step::Remove)
                    .and_then(|()| std::fs::remove_file(&path));
                match removed {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", &path)(error));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}

/// The data file of a row index, by the rest of its name after the directory.
fn index_target(rest: &str) -> String {
    let stem = rest.trim_start_matches('/');
    format!("{}.parquet", stem.strip_suffix(".rows").unwrap_or(stem))
}

/// Files of a table, relative to it, with the time of their last change; not those of the log.
fn list(dir: &FsPath) -> Result<BTreeMap<String, u64>, Error> {
    let mut files = BTreeMap::new();
    for sub in ["", "_change_data", INDEX_DIR] {
        let path: PathBuf = if sub.is_empty() {
            dir.to_owned()
        } else {
            dir.join(sub)
        };
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("list", &path)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &path))?;
            let metadata = entry.metadata().map_err(Error::io("read", &entry.path()))?;
            let Some(name) = entry
                .file_name()
                .to_str()
                .map(str::to_owned)
                .filter(|_| metadata.is_file())
            else {
                continue;
            };
            let modified = metadata
                .modified()
                .ok()
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified_ms = modified
                .and_then(|since| u64::try_from(since.as_millis()).ok())
                .unwrap_or(u64::MAX);
            files.insert(
                if sub.is_empty() {
                    name
                } else {
                    format!("{sub}/{name}")
                },
                modified_ms,
            );
        }
    }
    Ok(files)
}

/// What to rewrite: the files of the smallest size class that has many, else one file with many deleted rows.
fn choose(files: &BTreeMap<String, DataFile>) -> Vec<DataFile> {
    let mut classes: BTreeMap<u32, Vec<&DataFile>> = BTreeMap::new();
    for file in files.values().filter(|file| file.size < LARGE_BYTES) {
        // Each class spans a factor of four, so a row is rewritten a logarithmic number of times.
        classes
            .entry(file.size.max(1).ilog2() / 2)
            .or_default()
            .push(file);
    }
    if let Some(class) = classes.values().find(|class| class.len() >= MERGE_FILES) {
        let mut bytes = 0;
        let within = |file: &&&DataFile| {
            bytes += file.size;
            bytes <= REWRITE_BYTES_MAX
        };
        return class
            .iter()
            .take(MERGE_FILES_MAX)
            .take_while(within)
            .map(|file| DataFile::clone(file))
            .collect();
    }
    let is_heavy = |file: &&DataFile| {
        (file.rows - file.live_rows().min(file.rows)) > file.rows / DELETED_ONE_IN
    };
    files.values().find(is_heavy).cloned().into_iter().collect()
}

/// Which of the rows that were read from `inputs`, counted in order over all of them, are no longer in the table.
/// `None` if the table has rows back that were deleted when the inputs were read.
fn deleted_since(inputs: &[DataFile], state: &TableState) -> Option<RoaringTreemap> {
    let mut gone = RoaringTreemap::new();
    let mut base = 0;
    for input in inputs {
        let before = input.deletion.as_ref().map(|deletion| &*deletion.rows);
        match state.files.get(&input.path) {
            None => {
                gone.insert_range(base..base + input.live_rows());
            }
            Some(file) => {
                let after = file.deletion.as_ref().map(|deletion| &*deletion.rows);
                if before.is_some_and(|before| after.is_none_or(|after| !before.is_subset(after))) {
                    return None;
                }
                for position in after.into_iter().flatten() {
                    if !before.is_some_and(|before| before.contains(position)) {
                        gone.insert(
                            base + position - before.map_or(0, |before| before.rank(position)),
                        );
                    }
                }
            }
        }
        base += input.live_rows();
    }
    Some(gone)
}

/// The rewritten files with the rows of `gone` deleted, without files that have no other rows.
fn outputs(
    staged: &StagedSnapshot,
    gone: &RoaringTreemap,
    vectors: &mut VectorFile,
    now_ms: u64,
) -> Result<Vec<DataFile>, Error> {
    let mut outputs = Vec::new();
    let mut base = 0;
    for file in &staged.files {
        let rows = gone
            .iter()
            .skip_while(|row| *row < base)
            .take_while(|row| *row < base + file.rows);
        let rows = rows.map(|row| row - base).collect::<RoaringTreemap>();
        base += file.rows;
        if rows.len() == file.rows {
            continue;
        }
        let deletion = if rows.is_empty() {
            None
        } else {
            Some(tables::new_deletion(rows, vectors)?)
        };
        let (path, size, rows) = (file.path.clone(), file.size, file.rows);
        outputs.push(DataFile {
            path,
            size,
            rows,
            modified_ms: now_ms,
            deletion,
        });
    }
    Ok(outputs)
}
