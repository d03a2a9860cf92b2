//! The seal of a version: JSON has no checksum and neither do checkpoints, so the first action of each version we write carries two.
//!
//! Owns the checksum over a version's other actions, the digest of what the table holds with them, and the check of a log before and after the library reads
//! it. Must not know how a state is read. Called by the parent module.
//!
//! Versions that other engines wrote have no seal and are taken as they are; so are those of our first releases.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use flowstone_types::{Epoch, ObjectId};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::{DataFile, commit_file, commit_location};
use crate::columns::Columns;
use crate::error::Error;

/// CRC32 of all lines but the first.
const ACTIONS: &str = "flowstone.actions";
/// Digest of the table's files, epoch and columns.
const CONTENT: &str = "flowstone.content";

/// What a version of a table holds.
#[derive(Debug)]
pub(crate) struct Content<'a> {
    pub(crate) files: &'a BTreeMap<String, DataFile>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) columns: &'a Columns,
}

impl Content<'_> {
    /// Sixteen digits for all of it: independent of the order and the history of the files.
    pub(super) fn digest(&self) -> Result<String, Error> {
        let epoch = self.epoch.map(|epoch| epoch.0);
        let mut digest = xxh3_64(format!("{epoch:?} {}", self.columns.schema_string()?).as_bytes());
        for file in self.files.values() {
            let descriptor = file.deletion.as_ref().map(|deletion| &deletion.descriptor);
            let text = serde_json::to_string(&(&file.path, file.size, file.rows, descriptor))
                .map_err(|error| Error::Invariant(error.to_string()))?;
            digest = digest.wrapping_add(xxh3_64(text.as_bytes()));
        }
        Ok(format!("{digest:016x}"))
    }
}

/// The text of a version, with the seal in its first action.
pub(super) fn sealed(actions: &[Value], content: &str) -> Result<String, Error> {
    let no_info = || Error::Invariant("a version does not begin with commitInfo".to_owned());
    let (info, actions) = actions.split_first().ok_or_else(no_info)?;
    let body: String = actions.iter().map(|action| format!("{action}\n")).collect();
    let mut info = info.clone();
    let fields = info.get_mut("commitInfo").and_then(Value::as_object_mut);
    let fields = fields.ok_or_else(no_info)?;
    fields.insert(ACTIONS.to_owned(), json!(crc32fast::hash(body.as_bytes())));
    fields.insert(CONTENT.to_owned(), json!(content));
    Ok(format!("{info}\n{body}"))
}

/// The log of a table whose versions are as they were written.
#[derive(Debug)]
pub(super) struct CheckedLog {
    table: PathBuf,
    /// What to blame for what the versions after it do not explain: the newest checkpoint at or below the version asked for, else the log.
    base: PathBuf,
    /// The digest in the newest version that was looked at.
    content: Option<(i64, String)>,
}

impl CheckedLog {
    /// Damage of the table as such, with the file that it must be in.
    pub(super) fn blame(&self, error: Error) -> Error {
        match error {
            Error::Damaged { file, reason } if file == self.table => {
                Error::damaged(&self.base, reason)
            }
            other => other,
        }
    }

    /// Compares what the library found in a version with what the version says.
    pub(super) fn check_content(&self, version: i64, found: &str) -> Result<(), Error> {
        match &self.content {
            Some((sealed, content)) if *sealed == version && content != found => {
                let reason = format!("it does not lead to what version {version} says it holds");
                Err(Error::damaged(&self.base, reason))
            }
            _ => Ok(()),
        }
    }
}

/// Checks the versions that the state at `version` (or the newest) is made of: from the checkpoint below it, each must be there and whole.
pub(super) async fn check_log(
    store: &Arc<dyn ObjectStore>,
    table: &FsPath,
    id: ObjectId,
    version: Option<i64>,
) -> Result<CheckedLog, Error> {
    let directory = table.join("_delta_log");
    let failed = |error| Error::environment(format!("list the log of table {id}"), error);
    let prefix = Path::from(format!("{id}/_delta_log"));
    let listed = store.list(Some(&prefix)).try_collect::<Vec<_>>();
    let mut newest = -1;
    let mut base: Option<(i64, PathBuf)> = None;
    for file in listed.await.map_err(failed)? {
        let Some((number, name)) = numbered(&file.location) else {
            continue;
        };
        if version.is_some_and(|version| number > version) {
            continue;
        }
        newest = newest.max(number);
        let is_newer = base.as_ref().is_none_or(|(base, _)| number > *base);
        if name.contains(".checkpoint.") && is_newer {
            base = Some((number, directory.join(name)));
        }
    }
    let first = base.as_ref().map_or(0, |(base, _)| base + 1);
    let last = version.unwrap_or(newest).max(0);
    let mut content = None;
    // The version of the checkpoint itself may have been cleaned up with those before it.
    if let Some((base, _)) = &base
        && *base == last
        && let Some(text) = read(store, table, id, last).await?
    {
        content = check_version(&text, &commit_file(table, last))?;
    }
    for number in first..=last {
        let file = commit_file(table, number);
        let text = read(store, table, id, number)
            .await?
            .ok_or_else(|| Error::damaged(&file, "it is missing"))?;
        content = check_version(&text, &file)?;
    }
    Ok(CheckedLog {
        table: table.to_owned(),
        base: base.map_or(directory, |(_, file)| file),
        content: content.map(|content| (last, content)),
    })
}

/// The version that a file of the log belongs to, and the file's name.
fn numbered(location: &Path) -> Option<(i64, &str)> {
    let name = location.filename()?;
    let (number, rest) = name.split_once('.')?;
    let known = rest == "json" || rest.starts_with("checkpoint.");
    (known && number.len() == 20).then_some(())?;
    Some((number.parse().ok()?, name))
}

async fn read(
    store: &Arc<dyn ObjectStore>,
    table: &FsPath,
    id: ObjectId,
    version: i64,
) -> Result<Option<Vec<u8>>, Error> {
    let failed = |error| {
        let file = commit_file(table, version);
        Error::environment(format!("read file \"{}\"", file.display()), error)
    };
    match store.get(&commit_location(id, version)).await {
        Ok(content) => Ok(Some(content.bytes().await.map_err(failed)?.to_vec())),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Checks one version against its seal, if it has one. Returns the digest of its content.
fn check_version(text: &[u8], file: &FsPath) -> Result<Option<String>, Error> {
    let damaged = |reason: &str| Error::damaged(file, reason);
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let info: Value =
        serde_json::from_slice(first).map_err(|_| damaged("its first line is not JSON"))?;
    for line in lines.filter(|line| !line.is_empty()) {
        let _action: Value =
            serde_json::from_slice(line).map_err(|_| damaged("a line is not JSON"))?;
    }
    let field = |name: &str| info.get("commitInfo").and_then(|info| info.get(name));
    let Some(expected) = field(ACTIONS) else {
        return Ok(None);
    };
    let body = text.get(first.len() + 1..).unwrap_or_default();
    if expected.as_u64() != Some(u64::from(crc32fast::hash(body))) {
        return Err(damaged("its actions are not as they were written"));
    }
    Ok(field(CONTENT).and_then(Value::as_str).map(str::to_owned))
}
