//! The durable memory of a source: which cluster it reads, where it began and where its first content ends, how often rows in error were saved beside it, and
//! from where tables need messages again.
//!
//! Called by the tasks of the source.

use flowstone_types::ObjectId;
use serde::{Deserialize, Serialize};

use super::marks::Mark;
use super::offsets::Offsets;
use crate::manifest_file::SourceManifest;

/// Version of [`Manifest`] and of the files of what is in error.
pub(crate) const FILE_VERSION: u32 = 1;

/// Written before anything is announced, kept until the source is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    /// The cluster's id, if it has one: another one at the same address has other offsets.
    pub(crate) cluster: Option<String>,
    pub(crate) topic: String,
    /// Where each partition begins. A partition that is found later is here before anything of it is read.
    pub(crate) start: Offsets,
    /// Where the first content ends, which becomes visible as a whole.
    pub(crate) target: Offsets,
    /// How often the file of rows in error was saved. Once it was, it must be there, and be as new as this says.
    #[serde(default)]
    pub(crate) row_error_saves: u64,
    /// Of tables of updates with times, a mark that the commit point covers. One that is missing or old costs reading, no more, as long as the topic has it all.
    #[serde(default)]
    pub(crate) marks: Vec<(ObjectId, Mark)>,
}

impl SourceManifest for Manifest {
    const FILE_VERSION: u32 = FILE_VERSION;

    fn version(&self) -> u32 {
        self.version
    }

    fn row_error_saves(&self) -> u64 {
        self.row_error_saves
    }

    fn note_saves(&mut self, row_error_saves: u64) {
        self.version = FILE_VERSION;
        self.row_error_saves = row_error_saves;
    }
}
