//! What a source is bound to, as its kind counts positions.
//!
//! Must not know any kind of source. Called by the states of sources and by the logs of tables.

use std::fmt;

use flowstone_proto::message::SourceBinding;
use flowstone_types::{ObjectId, SourcePosition};

use crate::Error;

/// A position as one kind of source counts it.
pub(crate) trait Position: fmt::Debug + Send + Sync {
    /// What a position is in here.
    ///
    /// # Errors
    /// [`Error::Invariant`] if it is one of another kind of source.
    fn of(position: &SourcePosition) -> Result<&Self, Error>;

    /// The position as everybody else knows it.
    fn to_source(&self) -> SourcePosition;

    /// One number for positions of which each covers the one before: it does not get smaller, and stays the same only if nothing came in between.
    fn ordinal(&self) -> u64;
}

/// Where a source is bound: everything up to a position, and these snapshots.
#[derive(Debug)]
pub(crate) struct Binding<'a, P> {
    pub(crate) position: &'a P,
    pub(crate) snapshots: &'a [ObjectId],
}

impl<'a, P: Position> Binding<'a, P> {
    /// # Errors
    /// [`Error::Invariant`] if the position is one of another kind of source.
    pub(crate) fn of(binding: &'a SourceBinding) -> Result<Self, Error> {
        Ok(Self {
            position: P::of(&binding.position)?,
            snapshots: &binding.snapshots,
        })
    }
}
