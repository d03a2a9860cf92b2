//! Everything durable that holds rows: the local log of changes no upstream can repeat, and the Delta tables.
//!
//! Owns [`LogStore`], [`DeltaTables`], deletion vectors, row indexes, staged snapshots and background maintenance.
//! Must not know views, SQL or wire protocols, nor decide which epoch is durable: the worker and the coordinator do.
//! Called by `worker` (group commit, hydration, local writes) and `ingest` (snapshots of upstream tables).
//!
//! Invariants. Nothing is acknowledged before it would survive a power cut. A table's current version holds exactly the rows of its relation as of the
//! epoch recorded in it, readable by every engine that reads Delta tables. Caches (row indexes) can be deleted at any time.

mod changes;
mod columns;
mod data_file;
mod deletion_vector;
mod delta_log;
mod durable;
mod error;
mod log_store;
mod maintenance;
mod row_index;
mod staging;
mod tables;
mod values;

pub use error::Error;
pub use log_store::{LogBlob, LogBlobs, LogRecord, LogState, LogStore};
pub use staging::{SnapshotWriter, StagedSnapshot};
pub use tables::{CollectionCommit, DeltaTables};
