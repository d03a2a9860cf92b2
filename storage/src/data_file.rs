//! Parquet data files: writing one, and reading the rows of one that are not deleted.
//!
//! Owns the parquet settings and the translation of a deletion vector into a row selection. Must not know commits.
//! Called by commits, staging, compaction and reads. Files are immutable: a name is written once.

use std::path::Path as FsPath;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use roaring::RoaringTreemap;

use crate::Error;
use crate::columns::Columns;

/// Rows of one batch read back.
const READ_BATCH_ROWS: usize = 8192;
/// Rows of one row group at most; also bounds what a writer keeps in memory.
const ROW_GROUP_ROWS: usize = 256 * 1024;

/// Bytes read from the end of a file at once: more than most footers need.
const FOOTER_BYTES: usize = 64 * 1024;

/// A new name for a data file.
pub(crate) fn new_name() -> String {
    format!("part-{}.parquet", uuid::Uuid::new_v4())
}

/// How all data files are written.
pub(crate) fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("flowstone ", env!("CARGO_PKG_VERSION")).to_owned())
        .build()
}

/// The bytes of a data file with these rows.
pub(crate) fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, Error> {
    let failed = |error: parquet::errors::ParquetError| {
        Error::Invariant(format!("could not encode a data file: {error}"))
    };
    let mut writer =
        ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(writer_properties()))
            .map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

/// A data file to read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Location in the store.
    pub(crate) location: Path,
    pub(crate) size: u64,
    /// The file in errors.
    pub(crate) file: std::path::PathBuf,
    pub(crate) columns: Arc<Columns>,
    /// Positions of rows to leave out.
    pub(crate) deleted: Option<Arc<RoaringTreemap>>,
}

/// Reads byte ranges of one object.
struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    location: Path,
    size: u64,
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(
        &mut self,
        range: std::ops::Range<u64>,
    ) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { Ok(self.store.get_range(&self.location, range).await?) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<std::ops::Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move { Ok(self.store.get_ranges(&self.location, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// Number of rows of a file, by its footer.
pub(crate) async fn count_rows(
    store: Arc<dyn ObjectStore>,
    location: Path,
    size: u64,
    file: &FsPath,
) -> Result<u64, Error> {
    let builder = ParquetRecordBatchStreamBuilder::new(ObjectReader {
        store,
        location,
        size,
    })
    .await
    .map_err(|error| read_error(file, error))?;
    u64::try_from(builder.metadata().file_metadata().num_rows())
        .map_err(|_| Error::damaged(file, "a negative row count"))
}

/// The rows of a file in their stored form, in order of position.
///
/// # Errors
/// [`Error::Damaged`] naming the file if it is missing or not a parquet file of the table's columns; [`Error::Environment`].
pub(crate) async fn read(
    source: Source,
) -> Result<BoxStream<'static, Result<RecordBatch, Error>>, Error> {
    let Source {
        store,
        location,
        size,
        file,
        columns,
        deleted,
    } = source;
    let mut builder = ParquetRecordBatchStreamBuilder::new(ObjectReader {
        store,
        location,
        size,
    })
    .await
    .map_err(|error| read_error(&file, error))?
    .with_batch_size(READ_BATCH_ROWS);
    if let Some(deleted) = deleted {
        let rows = usize::try_from(builder.metadata().file_metadata().num_rows())
            .map_err(|_| Error::damaged(&file, "a negative row count"))?;
        let kept = kept_ranges(&deleted, rows);
        builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(
            kept.into_iter(),
            rows,
        ));
    }
    let stream = builder.build().map_err(|error| read_error(&file, error))?;
    Ok(stream
        .map(move |batch| {
            let batch = batch.map_err(|error| read_error(&file, error))?;
            columns.align(&batch, &file)
        })
        .boxed())
}

fn kept_ranges(deleted: &RoaringTreemap, rows: usize) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for position in deleted {
        let position = usize::try_from(position).unwrap_or(usize::MAX).min(rows);
        if start < position {
            ranges.push(start..position);
        }
        start = position.saturating_add(1);
    }
    if start < rows {
        ranges.push(start..rows);
    }
    ranges
}

fn read_error(file: &FsPath, error: parquet::errors::ParquetError) -> Error {
    use parquet::errors::ParquetError;
    match error {
        ParquetError::External(source) => match source.downcast::<object_store::Error>() {
            Ok(source) if matches!(*source, object_store::Error::NotFound { .. }) => {
                Error::damaged(file, "it is missing")
            }
            Ok(source) => Error::environment(format!("read file \"{}\"", file.display()), source),
            Err(source) => Error::environment(format!("read file \"{}\"", file.display()), source),
        },
        other => Error::damaged(file, other.to_string()),
    }
}
