//! Files are their owner's alone: what is stored holds the data of everybody, and the key of secrets.
//!
//! Owns the mask for new files and the mending of those that are there. Must not know what they hold.
//!
//! Invariants. After [`mend`] nobody else can enter the data directory, or read or change anything in it. What belongs to somebody else is refused, and so is what cannot be
//! mended. Links are not followed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::process;

/// What others may have of a file: nothing.
const OTHERS: u32 = 0o077;

/// From now on, files and directories are made for the owner alone, whoever makes them and wherever.
pub(crate) fn mask_new_files() {
    process::set_mask_of_new_files(OTHERS);
}

/// Takes from others what they may do with `path` and everything below. Returns what was found wider, if anything was: the first, and how many.
///
/// # Errors
/// Something belongs to another user, or cannot be looked at or changed.
pub(crate) fn mend(path: &Path) -> anyhow::Result<Option<(PathBuf, usize)>> {
    let user = process::user().context("cannot tell the user of this process")?;
    mend_as(path, user)
}

fn mend_as(path: &Path, owner: u32) -> anyhow::Result<Option<(PathBuf, usize)>> {
    // The directory itself may be named by a link.
    let mut waiting = vec![
        path.canonicalize()
            .with_context(|| format!("cannot read {}", path.display()))?,
    ];
    let (mut first, mut count) = (None, 0);
    while let Some(path) = waiting.pop() {
        let cannot = |what: &str| format!("cannot {what} {}", path.display());
        let metadata = path.symlink_metadata().with_context(|| cannot("look at"))?;
        if metadata.is_symlink() {
            continue;
        }
        if metadata.uid() != owner {
            bail!(
                "{} belongs to the user with number {}, and this process runs as {owner}: a data directory belongs to the user that runs the node",
                path.display(),
                metadata.uid()
            );
        }
        let mode = metadata.permissions().mode();
        if mode & OTHERS != 0 {
            let narrower = std::fs::Permissions::from_mode(mode & !OTHERS);
            std::fs::set_permissions(&path, narrower)
                .with_context(|| cannot("change the permissions of"))?;
            count += 1;
            first.get_or_insert_with(|| path.clone());
        }
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path).with_context(|| cannot("read"))? {
                waiting.push(entry.with_context(|| cannot("read"))?.path());
            }
        }
    }
    Ok(first.map(|first| (first, count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_may_do_is_taken_from_them_at_any_depth() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        set_mode(outside.path(), 0o644);
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("delta/u1");
        std::fs::create_dir_all(&below).unwrap();
        let file = below.join("part.parquet");
        std::fs::write(&file, "rows").unwrap();
        std::os::unix::fs::symlink(outside.path(), below.join("link")).unwrap();
        set_mode(dir.path(), 0o755);
        set_mode(&dir.path().join("delta"), 0o700);
        set_mode(&below, 0o770);
        set_mode(&file, 0o604);
        let (first, count) = mend(dir.path()).unwrap().unwrap();
        assert_eq!((first, count), (dir.path().canonicalize().unwrap(), 3));
        assert_eq!(
            [mode(dir.path()), mode(&below), mode(&file)],
            [0o700, 0o700, 0o600]
        );
        assert_eq!(mode(outside.path()), 0o644, "a link is not followed");
        assert_eq!(mend(dir.path()).unwrap(), None);
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        let owner = process::user().unwrap() + 1;
        let error = mend_as(dir.path(), owner).unwrap_err();
        assert!(error.to_string().contains("belongs to the user"), "{error}");
        assert_eq!(mode(dir.path()), 0o755, "it is left as it was");
    }
}
