//! Bulk writing outside a commit: files that are on disk but in no table until a commit names them.
//!
//! Owns the files of one writer until it is finished. Must not know commits. Called by `ingest` for snapshots of upstream tables and by `worker` for
//! hydration; several writers of one table may run at once, each with its own files.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
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

/// Writes rows to staged files of 64-128 MB, in constant memory. Dropping it leaves files that a later maintenance removes.
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
    /// [`Error::Environment`]: start over with a new writer. [`Error::Value`], [`Error::Invariant`] if the batch does not fit the schema.
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
        }
    }

    pub(crate) async fn write(&mut self, stored: &RecordBatch) -> Result<(), Error> {
        if stored.num_rows() == 0 {
            return Ok(());
        }
        let rows = stored.clone();
        let hashes = crate::tables::blocking(move || row_index::hash_stored(&rows)).await?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.open_file()?,
        };
        let id = self.done.id;
        open.writer
            .write(stored)
            .await
            .map_err(|error| write_error(id, error))?;
        open.hashes.extend_from_slice(&hashes);
        if open.writer.in_progress_size() >= BUFFER_BYTES {
            open.writer
                .flush()
                .await
                .map_err(|error| write_error(id, error))?;
        }
        let full = open.writer.bytes_written() >= FILE_BYTES || open.hashes.len() >= FILE_ROWS;
        self.open = Some(open);
        if full {
            self.finish_file().await
        } else {
            Ok(())
        }
    }

    fn open_file(&self) -> Result<OpenFile, Error> {
        let name = data_file::new_name();
        self.staging.protect(&name);
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
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.writer
            .finish()
            .await
            .map_err(|error| write_error(self.done.id, error))?;
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
        self.finish_file().await?;
        Ok(self.done)
    }
}

fn write_error(id: ObjectId, error: parquet::errors::ParquetError) -> Error {
    Error::environment(format!("write a file of table {id}"), error)
}
