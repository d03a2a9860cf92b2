//! The files of what is in error in a source: its tables that cannot go on, and the rows that their tables cannot hold.
//!
//! Owns the two files, their versions, and whether they belong to the manifest. Must not know any kind of source, or when they are written. Called by
//! [`crate::capture`], by threads that may block.
//!
//! Invariants. Rows in error stand in their collections, and nothing but their file says so: that it is there, and is the newest, is noted in the manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flowstone_types::ObjectId;
use serde::{Deserialize, Serialize};

use crate::manifest_file::SourceManifest;
use crate::row_errors::SavedRowErrors;
use crate::table_log::Failure;
use crate::{Error, state_file};

/// The durable error of one table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TableError {
    pub(crate) table: ObjectId,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offsets: Option<BTreeMap<i32, i64>>,
    pub(crate) position: u64,
}

impl TableError {
    pub(crate) fn new(table: ObjectId, failure: &Failure) -> Self {
        Self {
            table,
            message: failure.message.clone(),
            keep: failure.keep,
            offsets: failure.offsets.clone(),
            position: failure.position,
        }
    }

    pub(crate) fn failure(&self) -> Failure {
        Failure {
            message: self.message.clone(),
            keep: self.keep,
            offsets: self.offsets.clone(),
            position: self.position,
        }
    }
}

/// The file of durable table errors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ErrorsFile {
    pub(crate) version: u32,
    pub(crate) errors: Vec<TableError>,
}

/// The file of rows in error.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RowErrorsFile {
    pub(crate) version: u32,
    /// How often it was saved. The manifest is written after it, so it may be one ahead.
    #[serde(default)]
    pub(crate) saves: u64,
    pub(crate) tables: Vec<(ObjectId, SavedRowErrors)>,
}

/// What has to be written before what a take gave may get into a commit point.
#[derive(Debug)]
pub(crate) struct Unsaved {
    pub(crate) errors: Option<ErrorsFile>,
    pub(crate) row_errors: Option<RowErrorsFile>,
    /// How many table errors were recorded when it was put together.
    pub(crate) errors_recorded: u64,
}

/// Where the files of one source are.
#[derive(Clone, Debug)]
pub(crate) struct ErrorFiles {
    errors: PathBuf,
    row_errors: PathBuf,
}

impl ErrorFiles {
    pub(crate) fn new(state_dir: &Path, id: ObjectId) -> Self {
        Self {
            errors: state_dir.join(format!("{id}-errors.json")),
            row_errors: state_dir.join(format!("{id}-row-errors.json")),
        }
    }

    /// Reads both, which belong to `manifest`.
    ///
    /// # Errors
    /// [`Error::Failed`] if one of the three is of a newer release, [`Error::Damaged`] if the rows in error are not those that the manifest notes, and what the
    /// disk says.
    pub(crate) fn read<M: SourceManifest>(
        &self,
        manifest: Option<&M>,
    ) -> Result<(ErrorsFile, RowErrorsFile), Error> {
        let errors: Option<ErrorsFile> = state_file::read(&self.errors)?;
        let row_errors: Option<RowErrorsFile> = state_file::read(&self.row_errors)?;
        let versions = manifest
            .map(M::version)
            .into_iter()
            .chain(errors.iter().map(|errors| errors.version))
            .chain(row_errors.iter().map(|errors| errors.version));
        if let Some(version) = versions
            .into_iter()
            .find(|version| *version > M::FILE_VERSION)
        {
            return Err(Error::Failed {
                message: format!(
                    "source state has format version {version}, which is newer than this release"
                ),
                hint: None,
            });
        }
        let noted = manifest.map_or(0, M::row_error_saves);
        if let Some(reason) = unfit(row_errors.as_ref(), noted) {
            return Err(Error::Damaged {
                path: self.row_errors.clone(),
                reason,
            });
        }
        Ok((errors.unwrap_or_default(), row_errors.unwrap_or_default()))
    }

    /// Writes what is not on disk.
    pub(crate) fn write(&self, unsaved: &Unsaved) -> Result<(), Error> {
        if let Some(file) = &unsaved.errors {
            state_file::write(&self.errors, file)?;
        }
        if let Some(file) = &unsaved.row_errors {
            state_file::write(&self.row_errors, file)?;
        }
        Ok(())
    }
}

/// Why the file of rows in error is not the one that belongs to a manifest which says how often it was saved, if it is not.
fn unfit(file: Option<&RowErrorsFile>, noted: u64) -> Option<String> {
    match file {
        None if noted > 0 => Some("it is missing".to_owned()),
        Some(RowErrorsFile { saves, .. }) if *saves < noted => Some(format!(
            "it is older than the manifest: it was saved {saves} times, not {noted}"
        )),
        _ => None,
    }
}
