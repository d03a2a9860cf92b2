//! An object store over a local directory whose acknowledgements survive a power cut.
//!
//! Owns the order of writes: content to a temporary file, `fsync`, then the name (link or rename), then `fsync` of the directory.
//! So a name that exists always has its whole content. Must not know what the objects mean.
//! Called by everything in this crate that writes Delta tables, and by the Delta library through it.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use flowstone_disk::failpoint::{Kind, Step, reached};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, RenameTargetMode, Result, UploadPart,
};

const NAME: &str = "DurableStore";

/// A local directory as an object store: when a call returns, its effect is on disk.
#[derive(Clone, Debug)]
pub(crate) struct DurableStore {
    inner: Arc<LocalFileSystem>,
}

impl DurableStore {
    /// The store of everything below `root`, which must exist.
    pub(crate) fn new(root: &FsPath) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(LocalFileSystem::new_with_prefix(root)?),
        })
    }

    async fn blocking<T: Send + 'static>(
        location: &Path,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = location.to_string();
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(object_store::Error::AlreadyExists {
                    path,
                    source: source.into(),
                })
            }
            Ok(Err(source)) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(object_store::Error::NotFound {
                    path,
                    source: source.into(),
                })
            }
            Ok(Err(source)) => Err(refused(source)),
            Err(source) => Err(object_store::Error::Generic {
                store: NAME,
                source: source.into(),
            }),
        }
    }

    async fn sync_name(&self, location: &Path) -> Result<()> {
        let target = self.inner.path_to_filesystem(location)?;
        Self::blocking(location, move || {
            reached(Kind::DeltaUpload, Step::Sync)?;
            File::open(&target)?.sync_all()?;
            reached(Kind::DeltaUpload, Step::Directory)?;
            sync_parent(&target)
        })
        .await
    }
}

fn refused(source: std::io::Error) -> object_store::Error {
    object_store::Error::Generic {
        store: NAME,
        source: source.into(),
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}({})", self.inner)
    }
}

/// Makes the name of `target` durable.
fn sync_parent(target: &FsPath) -> std::io::Result<()> {
    // The failpoint is the caller's.
    target
        .parent()
        .map_or(Ok(()), flowstone_disk::sync_directory)
}

/// Makes `dir` and whatever is missing above it, each durable in its parent.
pub(crate) fn create_dirs(dir: &FsPath) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(parent)?;
    }
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    reached(Kind::DeltaFile, Step::Directory)?;
    sync_parent(dir)
}

fn write_durably(target: &FsPath, payload: &PutPayload, create: bool) -> std::io::Result<()> {
    if let Some(parent) = target.parent() {
        create_dirs(parent)?;
    }
    let temporary = temporary_name(target);
    let written = write_and_name(&temporary, target, payload, create);
    if written.is_err() || create {
        // After a link the temporary name goes; after a rename it is gone already.
        let _removed = std::fs::remove_file(&temporary);
    }
    written?;
    reached(kind_of(target), Step::Directory)?;
    sync_parent(target)
}

/// What a file of a Delta table is, by its name.
fn kind_of(target: &FsPath) -> Kind {
    let in_log = target
        .parent()
        .is_some_and(|parent| parent.ends_with("_delta_log"));
    match target.extension() {
        Some(extension) if in_log && extension == "json" => Kind::DeltaCommit,
        _ if in_log => Kind::DeltaCheckpoint,
        _ => Kind::DeltaFile,
    }
}

fn write_and_name(
    temporary: &FsPath,
    target: &FsPath,
    payload: &PutPayload,
    create: bool,
) -> std::io::Result<()> {
    let kind = kind_of(target);
    reached(kind, Step::Write)?;
    let mut file = File::create_new(temporary)?;
    for chunk in payload {
        file.write_all(chunk)?;
    }
    reached(kind, Step::Sync)?;
    file.sync_all()?;
    reached(kind, Step::Name)?;
    match create {
        true => std::fs::hard_link(temporary, target),
        false => std::fs::rename(temporary, target),
    }
}

/// `<target>#<digits>`: listings of the local store leave such names out.
fn temporary_name(target: &FsPath) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(format!("#{}", uuid::Uuid::new_v4().as_u128()));
    PathBuf::from(name)
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        let target = self.inner.path_to_filesystem(location)?;
        Self::blocking(location, move || write_durably(&target, &payload, create)).await?;
        Ok(PutResult {
            e_tag: None,
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        Self::blocking(location, move || {
            target.parent().map_or(Ok(()), create_dirs)
        })
        .await?;
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload {
            upload,
            store: self.clone(),
            location: location.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // A deletion that a power cut undoes leaves a file that nothing names; the next vacuum finds it.
        let locations = locations.map(|location| {
            reached(Kind::DeltaVacuum, Step::Remove).map_err(refused)?;
            location
        });
        self.inner.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let mode = match options.mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        let content = self.inner.get(from).await?.bytes().await?;
        self.put_opts(to, content.into(), mode.into())
            .await
            .map(|_| ())
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let mode = match options.target_mode {
            RenameTargetMode::Overwrite => CopyMode::Overwrite,
            RenameTargetMode::Create => CopyMode::Create,
        };
        self.copy_opts(from, to, CopyOptions::new().with_mode(mode))
            .await?;
        let from = from.clone();
        let mut deleted =
            self.delete_stream(futures::stream::once(async move { Ok(from) }).boxed());
        deleted.next().await.transpose().map(|_| ())
    }
}

/// An upload in parts that is on disk when `complete` returns.
#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    store: DurableStore,
    location: Path,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        if let Err(error) = reached(Kind::DeltaUpload, Step::Write) {
            return futures::future::ready(Err(refused(error))).boxed();
        }
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        reached(Kind::DeltaUpload, Step::Name).map_err(refused)?;
        let result = self.upload.complete().await?;
        self.store.sync_name(&self.location).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
