//! The catalog that sessions see, and whose turn it is to change it.
//!
//! Must not know what a change is, nor how it is made durable. Read by everybody; changed by DDL, in its turn.
//!
//! Invariants. No lock here but the turn is held across an await. The catalog is replaced, never changed: a statement that holds its `Arc` sees one catalog
//! throughout. Only who has the turn replaces it.

use std::sync::Arc;

use flowstone_sql::Catalog;
use parking_lot::{Mutex, RwLock};
use tokio::sync::OwnedMutexGuard;

/// The catalog that sessions see; clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct CatalogReader(Arc<RwLock<Arc<Catalog>>>);

impl CatalogReader {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(catalog))))
    }

    /// The catalog as it is now.
    pub(crate) fn now(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.read())
    }

    /// Whether this very catalog is the one that sessions see now.
    pub(crate) fn is(&self, catalog: &Arc<Catalog>) -> bool {
        Arc::ptr_eq(catalog, &*self.0.read())
    }
}

/// Who changes the catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    /// The words that name the statement.
    pub(crate) words: &'static str,
    /// The session that runs it; `None` if none does.
    pub(crate) process_id: Option<i32>,
}

/// The turns to change the catalog.
#[derive(Debug)]
pub(crate) struct CatalogTurns {
    catalog: CatalogReader,
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Whose turn it is, or was last.
    last: Mutex<Turn>,
}

/// The turn. Held while a DDL statement is planned, made durable and sent to the worker.
#[derive(Debug)]
pub(crate) struct TurnGuard {
    catalog: CatalogReader,
    _lock: OwnedMutexGuard<()>,
}

impl TurnGuard {
    /// Lets sessions see another catalog from now on.
    pub(crate) fn replace_catalog(&self, after: Arc<Catalog>) {
        *self.catalog.0.write() = after;
    }
}

impl CatalogTurns {
    pub(crate) fn new(catalog: CatalogReader) -> Self {
        Self {
            catalog,
            lock: Arc::default(),
            last: Mutex::default(),
        }
    }

    /// Waits for the turn to change the catalog.
    pub(crate) async fn take(&self, turn: Turn) -> TurnGuard {
        let guard = Arc::clone(&self.lock).lock_owned().await;
        *self.last.lock() = turn;
        TurnGuard {
            catalog: self.catalog.clone(),
            _lock: guard,
        }
    }

    /// Whose turn it is, or was last.
    pub(crate) fn last(&self) -> Turn {
        self.last.lock().clone()
    }
}
