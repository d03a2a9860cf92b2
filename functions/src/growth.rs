//! Limits of what functions make: a value has PostgreSQL's, a batch of values the budget of its statement.
//!
//! Owns [`Growth`], which kernels tell what they are about to make. Must not know any function. Called by `udf` for every value of variable length, and by
//! functions whose result may be much larger than their arguments before they make it.

use datafusion::common::Result;
use flowstone_types::{EvalError, EvalErrorKind, budget};

use crate::errors::{EvalResult, raise};

/// Largest value a function makes: what PostgreSQL's allocator allows, one byte below 1 GiB.
pub(crate) const VALUE_BYTES_MAX: usize = (1 << 30) - 1;

/// Bytes between two questions to the budget: less is not worth one.
const BYTES_PER_QUESTION: usize = 64 << 10;

/// `requested length too large`
pub(crate) fn too_long() -> EvalError {
    EvalError::new(EvalErrorKind::TooLarge, "requested length too large")
}

/// A value of `bytes` can be made.
pub(crate) fn value_fits(bytes: usize) -> EvalResult<()> {
    if bytes > VALUE_BYTES_MAX {
        return Err(too_long());
    }
    if bytes >= BYTES_PER_QUESTION {
        budget::reserve(bytes)?;
    }
    Ok(())
}

/// There is room for `bytes`, and somebody waits for them.
pub(crate) fn allowed(bytes: usize) -> Result<()> {
    budget::reserve(bytes).map_err(|exceeded| raise(exceeded.into()))
}

/// What a kernel has made so far.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    bytes: usize,
    asked: usize,
}

impl Growth {
    /// A value of `bytes` more.
    pub(crate) fn add(&mut self, bytes: usize) -> EvalResult<()> {
        if bytes > VALUE_BYTES_MAX {
            return Err(too_long());
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes - self.asked >= BYTES_PER_QUESTION {
            // What is there already may have to be moved to make room.
            budget::reserve(self.bytes)?;
            self.asked = self.bytes;
        }
        Ok(())
    }
}
