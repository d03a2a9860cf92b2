//! The data directory: one process at a time, a format this version can read, and nobody else's to look into.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::{Context, bail};
use flowstone_disk::Kind;
use fs4::fs_std::FileExt;

use crate::privacy;

/// The version of the directory's layout that this binary writes. It reads this one.
const FORMAT_VERSION: u32 = 1;

/// Holds the lock on a data directory as long as it lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the directory if needed, locks it, checks its format and keeps others out of it.
    ///
    /// # Errors
    /// Another process holds it, it was written by a newer version, it belongs to another user, or the file system refuses.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot create the data directory {}", path.display()))?;
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("cannot open {}", lock_path.display()))?;
        if !FileExt::try_lock_exclusive(&lock)
            .with_context(|| format!("cannot lock {}", lock_path.display()))?
        {
            bail!(
                "data directory {} is in use by another process",
                path.display()
            );
        }
        check_format(path)?;
        // Only now it is known to be a directory of ours.
        if let Some((first, count)) = privacy::mend(path)? {
            tracing::warn!(
                count,
                first = %first.display(),
                "files of the data directory could be read or changed by others: they are the owner's alone now"
            );
        }
        Ok(Self { _lock: lock })
    }
}

fn check_format(path: &Path) -> anyhow::Result<()> {
    let format_path = path.join("FORMAT");
    let text = match std::fs::read_to_string(&format_path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return write_format(path, &format_path);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", format_path.display()));
        }
    };
    let version: u32 = text
        .trim()
        .strip_prefix("flowstone ")
        .and_then(|version| version.parse().ok())
        .with_context(|| {
            format!(
                "{} is damaged: it does not hold a format version",
                format_path.display()
            )
        })?;
    if version > FORMAT_VERSION {
        bail!(
            "data directory {} has format {version}, this version of flowstone reads formats up to {FORMAT_VERSION}: use the version that wrote it or a newer one",
            path.display()
        );
    }
    Ok(())
}

fn write_format(path: &Path, format_path: &Path) -> anyhow::Result<()> {
    let entries =
        std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in entries {
        let name = entry
            .with_context(|| format!("cannot read {}", path.display()))?
            .file_name();
        // The second is what a first start that was cut short leaves; earlier releases named it otherwise.
        if name != "LOCK" && name != "FORMAT.tmp" && name != "FORMAT.new" {
            bail!(
                "{} is not a flowstone data directory: it holds {} and no FORMAT",
                path.display(),
                name.display()
            );
        }
    }
    let content = format!("flowstone {FORMAT_VERSION}\n");
    flowstone_disk::replace(format_path, content.as_bytes(), Kind::Format)
        .with_context(|| format!("cannot write {}", format_path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("in use by another process"),
            "{error}"
        );
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        std::fs::write(dir.path().join("FORMAT"), "flowstone 99\n").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("has format 99"), "{error}");
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.txt"), "chapter one").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("not a flowstone data directory"),
            "{error}"
        );
    }
}
