//! What a source is, by what its two sides say of themselves: the reader and the decoders.
//!
//! Must not know why, or who is told. Called by [`super::state`], under a lock.
//!
//! Invariants. A source only runs while neither side is in its way. One that has failed stays so.

use flowstone_proto::message::SourceStatus;

/// What both sides said last.
#[derive(Debug)]
pub(crate) struct Standing {
    reader: SourceStatus,
    /// What stands in the way of the decoders.
    decoders: Option<SourceStatus>,
}

impl Standing {
    pub(crate) const fn new() -> Self {
        Self {
            reader: SourceStatus::Starting,
            decoders: None,
        }
    }

    pub(crate) fn set_reader(&mut self, status: SourceStatus) {
        self.reader = status;
    }

    pub(crate) fn set_decoders(&mut self, stalled: Option<SourceStatus>) {
        self.decoders = stalled;
    }

    /// What the source is. What the reader lacks comes first: the decoders may go on once it has it.
    pub(crate) fn status(&self) -> SourceStatus {
        match (&self.reader, &self.decoders) {
            (SourceStatus::Starting | SourceStatus::Running, Some(stalled)) => stalled.clone(),
            (reader, _) => reader.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stalled(error: &str) -> SourceStatus {
        SourceStatus::Stalled {
            error: error.to_owned(),
            hint: None,
        }
    }

    #[test]
    fn a_source_runs_once_neither_side_is_in_its_way() {
        let mut standing = Standing::new();
        assert_eq!(standing.status(), SourceStatus::Starting);
        standing.set_reader(SourceStatus::Running);
        standing.set_decoders(Some(stalled("registry")));
        assert_eq!(standing.status(), stalled("registry"));
        standing.set_reader(stalled("brokers"));
        assert_eq!(standing.status(), stalled("brokers"));
        standing.set_reader(SourceStatus::Running);
        assert_eq!(standing.status(), stalled("registry"));
        standing.set_reader(stalled("brokers"));
        standing.set_decoders(None);
        assert_eq!(standing.status(), stalled("brokers"));
        standing.set_reader(SourceStatus::Running);
        assert_eq!(standing.status(), SourceStatus::Running);
    }

    #[test]
    fn a_source_that_has_failed_stays_so() {
        let failed = SourceStatus::Failed {
            error: "gone".to_owned(),
            hint: None,
        };
        let mut standing = Standing::new();
        standing.set_reader(failed.clone());
        for decoders in [Some(stalled("registry")), None] {
            standing.set_decoders(decoders);
            assert_eq!(standing.status(), failed);
        }
    }
}
