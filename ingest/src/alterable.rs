//! How a source reaches its upstream, which may be altered while it runs.
//!
//! Owns the connection as it is described, and the one through which the upstream was last found to be the one that the source reads. Must not know what a
//! connection is. Called by the handles of sources, which alter it, and by their tasks.
//!
//! Invariants. One task of a source, the one that looks whether it is the same upstream, uses what is described. Everything else uses what that task has proven: what
//! another upstream says is never taken for what the source's own does.

use tokio::sync::watch;

/// A connection that may be altered.
#[derive(Debug)]
pub(crate) struct Alterable<C> {
    described: watch::Sender<C>,
    proven: watch::Sender<Option<C>>,
}

impl<C: Clone + PartialEq> Alterable<C> {
    pub(crate) fn new(described: C) -> Self {
        Self {
            described: watch::channel(described).0,
            proven: watch::channel(None).0,
        }
    }

    /// It is another one from now on. Nobody hears of one that is the same.
    pub(crate) fn alter(&self, described: C) {
        self.described.send_if_modified(|now| {
            let differs = *now != described;
            if differs {
                *now = described;
            }
            differs
        });
    }

    /// What is described, and every alteration from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<C> {
        self.described.subscribe()
    }

    /// The upstream of the source was found there.
    pub(crate) fn prove(&self, connection: &C) {
        self.proven.send_if_modified(|now| {
            let differs = now.as_ref() != Some(connection);
            if differs {
                *now = Some(connection.clone());
            }
            differs
        });
    }

    /// Where the upstream was found last; before it was ever found, where it is said to be.
    pub(crate) fn proven(&self) -> C {
        let proven = self.proven.borrow().clone();
        proven.unwrap_or_else(|| self.described.borrow().clone())
    }

    /// Hears of it when the upstream is found elsewhere, from now on.
    pub(crate) fn watch_proven(&self) -> watch::Receiver<Option<C>> {
        self.proven.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_altered_is_heard_once_and_counts_for_others_when_it_was_proven() {
        let connection = Alterable::new("old");
        let mut described = connection.watch();
        let mut proven = connection.watch_proven();
        connection.prove(&"old");
        assert!(proven.has_changed().unwrap());
        proven.mark_unchanged();
        connection.alter("old");
        assert!(!described.has_changed().unwrap(), "it is the same");
        connection.alter("new");
        assert!(described.has_changed().unwrap());
        assert_eq!(*described.borrow_and_update(), "new");
        assert!(!described.has_changed().unwrap());
        assert_eq!(connection.proven(), "old");
        assert!(!proven.has_changed().unwrap());
        connection.prove(&"new");
        assert!(proven.has_changed().unwrap());
        assert_eq!(connection.proven(), "new");
    }

    #[test]
    fn before_anything_was_proven_what_is_described_counts() {
        let connection = Alterable::new("old");
        connection.alter("new");
        assert_eq!(connection.proven(), "new");
    }
}
