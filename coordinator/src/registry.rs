//! The open sessions, by process id, and how to cancel what they run; and how many statements they have run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tokio::sync::watch;

use crate::variables::Settings;

/// What others may know about an open session.
#[derive(Clone, Debug)]
pub(crate) struct SessionEntry {
    /// The user.
    pub(crate) user: String,
    /// When it was opened: milliseconds since the Unix epoch.
    pub(crate) opened_at_ms: u64,
    /// Its settings as of its last statement.
    pub(crate) settings: Arc<Settings>,
    /// What it does.
    pub(crate) activity: Activity,
    secret: i32,
    cancel: Arc<watch::Sender<u64>>,
}

/// What a session does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity {
    /// When that statement began: milliseconds since the Unix epoch.
    pub(crate) statement_began_ms: Option<u64>,
    /// Whether it still runs.
    pub(crate) active: bool,
    /// Whether it is inside a transaction block.
    pub(crate) in_transaction: bool,
}

/// All open sessions.
#[derive(Debug)]
pub(crate) struct SessionRegistry(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    next_process_id: i32,
    random: ChaCha20Rng,
    entries: BTreeMap<i32, SessionEntry>,
}

/// What a new session is known by.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) process_id: i32,
    pub(crate) secret: i32,
    /// Counts cancel requests.
    pub(crate) cancelled: watch::Receiver<u64>,
}

/// Counters for the metrics endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) statements: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl SessionRegistry {
    /// A registry whose secrets come from `seed`.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(Mutex::new(Inner {
            next_process_id: 1,
            random: ChaCha20Rng::from_seed(seed),
            entries: BTreeMap::new(),
        }))
    }

    pub(crate) fn register(
        &self,
        user: String,
        settings: Arc<Settings>,
        opened_at_ms: u64,
    ) -> Registered {
        let mut inner = self.0.lock();
        while inner.entries.contains_key(&inner.next_process_id) {
            inner.next_process_id = inner.next_process_id.checked_add(1).unwrap_or(1);
        }
        let process_id = inner.next_process_id;
        inner.next_process_id = process_id.checked_add(1).unwrap_or(1);
        let secret = inner.random.random();
        let (cancel, cancelled) = watch::channel(0);
        inner.entries.insert(
            process_id,
            SessionEntry {
                user,
                opened_at_ms,
                settings,
                activity: Activity::default(),
                secret,
                cancel: Arc::new(cancel),
            },
        );
        Registered {
            process_id,
            secret,
            cancelled,
        }
    }

    /// Notes what a session does.
    pub(crate) fn note(&self, process_id: i32, change: impl FnOnce(&mut SessionEntry)) {
        if let Some(entry) = self.0.lock().entries.get_mut(&process_id) {
            change(entry);
        }
    }

    pub(crate) fn remove(&self, process_id: i32) {
        self.0.lock().entries.remove(&process_id);
    }

    pub(crate) fn cancel(&self, process_id: i32, secret: &[u8]) {
        let inner = self.0.lock();
        if let Some(entry) = inner.entries.get(&process_id)
            && entry.secret.to_be_bytes() == secret
        {
            entry.cancel.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.0.lock().entries.len()).unwrap_or(u64::MAX)
    }

    /// All open sessions with their process ids.
    pub(crate) fn entries(&self) -> Vec<(i32, SessionEntry)> {
        self.0
            .lock()
            .entries
            .iter()
            .map(|(id, entry)| (*id, entry.clone()))
            .collect()
    }
}
