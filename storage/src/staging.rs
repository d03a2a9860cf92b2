//! Bulk writing outside a commit: files that are on disk but in no table until a commit names them.
//!
//! Owns the files of one writer until it is finished. Must not know commits. Called by `ingest` for snapshots of upstream tables and by `worker` for
//! hydration; several writers of one table may run at once, each with its own files.
//!
//! Invariants. From its first byte until its writer is finished a file is protected from the vacuum; the files of a writer that is dropped before are not, and
//! are removed. Nothing is written for a table that was dropped.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use flowstone_disk::failpoint::{self, Kind, Step};
use flowstone_types::ObjectId;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use serde::{Deserialize, Serialize};

use crate::columns::Columns;
use crate::data_file;
use crate::error::Error;
use crate::row_index;
use crate::tables::Staging;

/// A file is finished when it has this many bytes on disk.
const FILE_BYTES: usize = 96 << 20;
/// ... or this many rows: its row index is built in memory, 24 bytes for each.
const FILE_ROWS: usize = 4 << 20;
/// A row group is written when the writer holds this many bytes.
const BUFFER_BYTES: usize = 32 << 20;

/// Files written for a table by [`SnapshotWriter`], ready to be named in a commit of that table. It survives a restart in serialized form.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StagedSnapshot {
    /// The table it was written for.
    pub id: ObjectId,
    pub(crate) files: Vec<StagedFile>,
    /// Rows in all files.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// One staged file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StagedFile {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) rows: u64,
}

/// Writes rows to staged files of 64-128 MB, in constant memory. If it is dropped before it has finished, its files go: at once as far as that works, what is
/// left then is removed by a later maintenance.
#[derive(Debug)]
pub struct SnapshotWriter {
    columns: Columns,
    files: FileWriter,
}

impl SnapshotWriter {
    pub(crate) const fn new(files: FileWriter, columns: Columns) -> Self {
        Self { columns, files }
    }

    /// Adds rows. They may be written later, by a following call or by [`SnapshotWriter::finish`].
    ///
    /// # Errors
    /// [`Error::Environment`]: start over with a new writer. [`Error::Dropped`]: the table is gone. [`Error::Value`], [`Error::Invariant`] if the batch does
    /// not fit the schema.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let (columns, rows) = (self.columns.clone(), batch.clone());
        let stored = crate::tables::blocking(move || columns.store(&rows)).await?;
        self.files.write(&stored).await
    }

    /// Finishes the last file. All rows are on disk when it returns.
    ///
    /// # Errors
    /// As [`SnapshotWriter::write`].
    pub async fn finish(self) -> Result<StagedSnapshot, Error> {
        self.files.finish().await
    }
}

/// Writes rows in stored form to as many files as they need, each with its row index.
#[derive(Debug)]
pub(crate) struct FileWriter {
    store: Arc<dyn ObjectStore>,
    dir: PathBuf,
    schema: SchemaRef,
    staging: Staging,
    open: Option<OpenFile>,
    done: StagedSnapshot,
    /// Every file that was begun, until all are finished.
    names: Vec<String>,
}

struct OpenFile {
    name: String,
    writer: AsyncArrowWriter<BufWriter>,
    hashes: Vec<u128>,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile")
            .field("name", &self.name)
            .field("rows", &self.hashes.len())
            .finish_non_exhaustive()
    }
}

impl FileWriter {
    /// A writer for the table `id` in `dir`, of files with this parquet schema.
    pub(crate) const fn new(
        store: Arc<dyn ObjectStore>,
        id: ObjectId,
        dir: PathBuf,
        schema: SchemaRef,
        staging: Staging,
    ) -> Self {
        let done = StagedSnapshot {
            id,
            files: Vec::new(),
            rows: 0,
            bytes: 0,
        };
        Self {
            store,
            dir,
            schema,
            staging,
            open: None,
            done,
            names: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, stored: &RecordBatch) -> Result<(), Error> {
        if stored.num_rows() == 0 {
            return Ok(());
        }
        let rows = stored.clone();
        let hashes = crate::tables::blocking(move || row_index::hash_stored(&rows)).await?;
        let _present = self.staging.enter().await?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open_file()?,
        };
        let rows = stored.clone();
        open = encoding(self.done.id, open, async move |open| {
            open.writer.write(&rows).await?;
            if open.writer.in_progress_size() >= BUFFER_BYTES {
                open.writer.flush().await?;
            }
            Ok(())
        })
        .await?;
        open.hashes.extend_from_slice(&hashes);
        let full = open.writer.bytes_written() >= FILE_BYTES || open.hashes.len() >= FILE_ROWS;
        self.open = Some(open);
        if full {
            self.finish_file().await
        } else {
            Ok(())
        }
    }

    fn open_file(&mut self) -> Result<OpenFile, Error> {
        let name = data_file::new_name();
        self.staging.protect(&name);
        self.names.push(name.clone());
        let path = Path::from(format!("{}/{name}", self.done.id));
        let object = BufWriter::new(Arc::clone(&self.store), path);
        let schema = Arc::clone(&self.schema);
        let writer =
            AsyncArrowWriter::try_new(object, schema, Some(data_file::writer_properties()))
                .map_err(|error| write_error(self.done.id, error))?;
        Ok(OpenFile {
            name,
            writer,
            hashes: Vec::new(),
        })
    }

    async fn finish_file(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let open = encoding(self.done.id, open, async |open| {
            open.writer.finish().await.map(drop)
        })
        .await?;
        let rows = crate::tables::count(open.hashes.len())?;
        let file = StagedFile {
            path: open.name,
            size: crate::tables::count(open.writer.bytes_written())?,
            rows,
        };
        let index = crate::tables::index_path(&self.dir, &file.path);
        let hashes = open.hashes;
        crate::tables::blocking(move || {
            if let Err(error) = row_index::write(&index, &hashes) {
                tracing::warn!(%error, "could not write a row index; it is rebuilt when it is needed");
            }
            Ok(())
        })
        .await?;
        self.done.rows += file.rows;
        self.done.bytes += file.size;
        self.done.files.push(file);
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<StagedSnapshot, Error> {
        let _present = self.staging.enter().await?;
        self.finish_file().await?;
        // From here on they belong to the caller.
        self.names.clear();
        Ok(StagedSnapshot {
            id: self.done.id,
            files: std::mem::take(&mut self.done.files),
            rows: self.done.rows,
            bytes: self.done.bytes,
        })
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        if names.is_empty() {
            return;
        }
        for name in &names {
            self.staging.release(name);
        }
        let dir = self.dir.clone();
        let remove = move || remove_files(&dir, &names);
        match tokio::runtime::Handle::try_current() {
            // Nobody waits for it: what is left is an orphan that the vacuum finds.
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Lets a writer encode. That is work of many milliseconds, which no thread may do that others wait for: encoders and compression know nothing of `await`.
async fn encoding(
    id: ObjectId,
    mut open: OpenFile,
    work: impl AsyncFnOnce(&mut OpenFile) -> parquet::errors::Result<()> + Send + 'static,
) -> Result<OpenFile, Error> {
    let runtime = tokio::runtime::Handle::current();
    crate::tables::blocking(move || {
        runtime
            .block_on(work(&mut open))
            .map_err(|error| write_error(id, error))?;
        Ok(open)
    })
    .await
}

/// Removes files of the table in `dir`, with their row indexes, that no version names and no commit will.
pub(crate) fn remove_files(dir: &FsPath, names: &[String]) {
    for name in names {
        let path = dir.join(name);
        let removed = failpoint::reached(Kind::DeltaVacuum, Step::Remove)
            .and_then(|()| std::fs::remove_file(&path));
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(%error, path = %path.display(), "a file that was never finished could not be removed");
            }
            _ => {}
        }
        let _removed = std::fs::remove_file(crate::tables::index_path(dir, name));
    }
}

fn write_error(id: ObjectId, error: parquet::errors::ParquetError) -> Error {
    Error::environment(format!("write a file of table {id}"), error)
}

#[cfg(test)]
mod tests {
    use arrow_array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};

    use super::*;
    use crate::tables::DeltaTables;

    const ID: ObjectId = ObjectId::User(1);

    async fn written(tables: &DeltaTables) -> FileWriter {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let columns = Columns::from_schema(&schema).unwrap();
        let numbers = Int64Array::from(vec![1, 2, 3]);
        let rows = RecordBatch::try_new(schema, vec![Arc::new(numbers)]).unwrap();
        let stored = columns.store(&rows).unwrap();
        let mut writer = tables.file_writer(ID, &columns);
        // One file is finished, the other begun.
        writer.write(&stored).await.unwrap();
        writer.finish_file().await.unwrap();
        writer.write(&stored).await.unwrap();
        writer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_files_of_a_writer_that_never_finishes_are_removed_and_those_of_one_that_does_are_kept()
     {
        let dir = tempfile::tempdir().unwrap();
        let tables = DeltaTables::open(dir.path()).await.unwrap();
        let table = tables.table(ID);
        let writer = written(&tables).await;
        let names = writer.names.clone();
        assert_eq!(names.len(), 2);
        assert!(names.iter().all(|name| table.is_held(name)));
        let first = tables.table_path(ID).join(&names[0]);
        assert!(first.exists());
        drop(writer);
        assert!(!names.iter().any(|name| table.is_held(name)));
        let started = std::time::Instant::now();
        while first.exists() {
            assert!(
                started.elapsed() < std::time::Duration::from_secs(30),
                "{} is still there",
                first.display()
            );
            tokio::task::yield_now().await;
        }

        let staged = written(&tables).await.finish().await.unwrap();
        let paths: Vec<PathBuf> = staged
            .files
            .iter()
            .map(|file| tables.table_path(ID).join(&file.path))
            .collect();
        assert_eq!(paths.len(), 2);
        for (file, path) in itertools::zip_eq(&staged.files, &paths) {
            assert!(path.exists() && table.is_held(&file.path));
        }
        // Until whoever has them gives them up.
        let names: Vec<String> = staged.files.iter().map(|file| file.path.clone()).collect();
        tables.discard(staged).await;
        assert!(!names.iter().any(|name| table.is_held(name)));
        assert!(!paths.iter().any(|path| path.exists()));
    }
}
