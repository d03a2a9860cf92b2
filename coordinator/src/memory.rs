//! Memory that sessions hold: what clients sent that is not done with, and what waits to be sent to them.
//!
//! Owns two bounds, one for each session and one for all together, and the counting. Must not know what is held, nor measure it: whoever holds something says how
//! much it is. Called by `session` and by client protocols, through [`SessionMemory`].
//!
//! Invariants. Neither bound is ever exceeded by what is counted. What was counted is given back when its [`Held`] is dropped, on every path. Nobody waits for memory: who
//! needs more than there is fails, and nothing else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{Array, RecordBatch};

/// One session may hold this part of what all may hold together: so no session alone keeps the others from working.
const SESSION_SHARE: usize = 2;

/// There is no memory left for what a session would have to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory")]
pub struct MemoryError {
    /// Bytes that were needed on top of what was held.
    pub requested: usize,
    /// Bytes that were held then.
    pub held: usize,
    /// Bytes that may be held.
    pub limit: usize,
    /// Whether it is the bound of the session, not that of all together.
    pub session: bool,
}

/// A bound and what counts against it.
#[derive(Debug)]
struct Bound {
    used: AtomicUsize,
    limit: usize,
}

impl Bound {
    const fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit,
        }
    }

    /// Counts `bytes` more; returns what is held if they do not fit.
    fn take(&self, bytes: usize) -> Result<(), usize> {
        let fits = |used: usize| used.checked_add(bytes).filter(|total| *total <= self.limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map(drop)
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The bound of all sessions together.
#[derive(Clone, Debug)]
pub(crate) struct SessionsMemory(Arc<Bound>);

impl SessionsMemory {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Bound::new(limit)))
    }

    /// What a new session counts against.
    pub(crate) fn session(&self) -> SessionMemory {
        SessionMemory(Arc::new(Bounds {
            all: Arc::clone(&self.0),
            session: Bound::new(self.0.limit / SESSION_SHARE),
        }))
    }
}

#[derive(Debug)]
struct Bounds {
    all: Arc<Bound>,
    session: Bound,
}

/// What one session holds; clones share it.
#[derive(Clone, Debug)]
pub struct SessionMemory(Arc<Bounds>);

impl SessionMemory {
    /// Bounds of its own, for what is no session's and for tests.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        SessionsMemory::new(limit.saturating_mul(SESSION_SHARE)).session()
    }

    /// Counts what the session is about to hold.
    ///
    /// # Errors
    /// [`MemoryError`] if there is no room for it.
    pub fn hold(&self, bytes: usize) -> Result<Held, MemoryError> {
        let mut held = self.nothing();
        held.resize(bytes)?;
        Ok(held)
    }

    /// Something of no size, which may grow.
    #[must_use]
    pub fn nothing(&self) -> Held {
        Held {
            memory: self.clone(),
            bytes: 0,
        }
    }

    /// Bytes that the session holds.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.session.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), MemoryError> {
        let Bounds { all, session } = &*self.0;
        let refused = |bound: &Bound, held, session| MemoryError {
            requested: bytes,
            held,
            limit: bound.limit,
            session,
        };
        session
            .take(bytes)
            .map_err(|held| refused(session, held, true))?;
        all.take(bytes).map_err(|held| {
            session.give_back(bytes);
            refused(all, held, false)
        })
    }

    fn give_back(&self, bytes: usize) {
        self.0.session.give_back(bytes);
        self.0.all.give_back(bytes);
    }
}

/// Something that a session holds, as long as it lives.
#[derive(Debug)]
pub struct Held {
    memory: SessionMemory,
    bytes: usize,
}

impl Held {
    /// Its size now.
    ///
    /// # Errors
    /// [`MemoryError`] if it has grown and there is no room for that; it counts as before then.
    pub fn resize(&mut self, bytes: usize) -> Result<(), MemoryError> {
        if bytes > self.bytes {
            self.memory.take(bytes - self.bytes)?;
        } else {
            self.memory.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Its size.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

/// Memory that a batch takes; of buffers that it shares, only what it uses.
#[must_use]
pub fn size_of_batch(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns
        .map(|column| {
            let slice = column.to_data().get_slice_memory_size();
            slice.unwrap_or_else(|_| column.get_array_memory_size())
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let memory = SessionMemory::with_limit(100);
        let mut held = memory.hold(60).unwrap();
        assert!(memory.hold(41).is_err());
        held.resize(20).unwrap();
        let other = memory.hold(80).unwrap();
        let error = held.resize(21).unwrap_err();
        assert_eq!(
            error,
            MemoryError {
                requested: 1,
                held: 100,
                limit: 100,
                session: true
            }
        );
        assert_eq!(held.bytes(), 20);
        drop((held, other));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn sessions_share_a_bound_and_one_cannot_take_all_of_it() {
        let all = SessionsMemory::new(100);
        let (first, second, third) = (all.session(), all.session(), all.session());
        assert!(first.hold(51).unwrap_err().session);
        let held = first.hold(50).unwrap();
        let _other = second.hold(40).unwrap();
        let error = third.hold(11).unwrap_err();
        assert!(!error.session);
        assert_eq!((error.held, error.limit), (90, 100));
        assert_eq!(third.used(), 0, "what does not fit counts nowhere");
        drop(held);
        third.hold(11).unwrap();
    }
}
