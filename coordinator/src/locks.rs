//! Write locks: who may change which tables while somebody decides from their content what to write.
//!
//! A commit of INSERTs of constants takes the shared locks of their tables, a statement that reads and then writes the exclusive locks of everything it reads or
//! writes; both until their epoch is observable. So nothing changes between the read and the write, and the history stays serializable. No lock waits for a
//! client: a transaction takes its locks when it commits.
//!
//! Invariant: locks are taken in the order of ids, so nobody waits in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flowstone_types::ObjectId;
use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The locks of all tables.
#[derive(Debug, Default)]
pub(crate) struct WriteLocks {
    tables: Mutex<BTreeMap<ObjectId, Arc<RwLock<()>>>>,
    /// Held while a statement that reads a source's tables decides what to write.
    pub(crate) source_reads: tokio::sync::Mutex<()>,
}

/// Locks of one statement or transaction; dropping releases them.
#[derive(Debug, Default)]
pub(crate) struct WriteGuard {
    _shared: Vec<OwnedRwLockReadGuard<()>>,
    _exclusive: Vec<OwnedRwLockWriteGuard<()>>,
}

/// The table for whose lock somebody waits, or waited last.
#[derive(Debug, Default)]
pub(crate) struct Awaited(Mutex<Option<ObjectId>>);

impl Awaited {
    /// The table; `None` if no lock was waited for yet.
    pub(crate) fn table(&self) -> Option<ObjectId> {
        *self.0.lock()
    }

    fn note(&self, table: ObjectId) {
        *self.0.lock() = Some(table);
    }
}

impl WriteLocks {
    /// Waits for the shared locks of some tables, one after the other: `awaited` says for which.
    pub(crate) async fn shared(
        &self,
        tables: &BTreeSet<ObjectId>,
        awaited: &Awaited,
    ) -> WriteGuard {
        let mut guards = Vec::with_capacity(tables.len());
        for table in tables {
            awaited.note(*table);
            guards.push(self.lock_of(*table).read_owned().await);
        }
        WriteGuard {
            _shared: guards,
            _exclusive: Vec::new(),
        }
    }

    /// Waits for the exclusive locks of some tables, one after the other: `awaited` says for which.
    pub(crate) async fn exclusive(
        &self,
        tables: &BTreeSet<ObjectId>,
        awaited: &Awaited,
    ) -> WriteGuard {
        let mut guards = Vec::with_capacity(tables.len());
        for table in tables {
            awaited.note(*table);
            guards.push(self.lock_of(*table).write_owned().await);
        }
        WriteGuard {
            _shared: Vec::new(),
            _exclusive: guards,
        }
    }

    /// Forgets the lock of a dropped table.
    pub(crate) fn forget(&self, table: ObjectId) {
        self.tables.lock().remove(&table);
    }

    fn lock_of(&self, table: ObjectId) -> Arc<RwLock<()>> {
        Arc::clone(self.tables.lock().entry(table).or_default())
    }
}
