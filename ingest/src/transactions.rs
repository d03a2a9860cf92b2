//! The transaction log: what was read from an upstream, table by table in commit order, until it is taken.
//!
//! Owns the buffered changes of whole transactions and of those that are being received, where each transaction ends in them, how much of them is in memory
//! and what is on disk instead, and how much is offered to be taken at once. Must not know any kind of upstream: how it is decoded, or what a position means
//! beyond what it covers. Called by the connectors, under a lock of theirs; only [`Spiller`], [`Spilled::load`], [`remove_unneeded`] and what a
//! [`SpillDirectory`] does wait or touch files, and those without it. Letting go of a file does not remove it.
//!
//! An upstream whose transactions are single messages ([`Messages`]) has a log for each partition, which can be cut after any message.
//!
//! Invariants. What a cut gives depends only on the transactions that were received, not on how often or where was cut before, nor on what went through the
//! disk. Rows of a transaction that has not ended are never cut. A deletion by key and the upsert that replaces the row are never in different pieces.
//! What is not as it was written is an error, never rows. What is on disk is not read by another process than that which wrote it: upstream still has it.
//! See docs/adr/0019.

mod offers;
mod segment;
mod spill;
mod spiller;
mod table;

use flowstone_types::{ObjectId, TypeError};

pub(crate) use offers::Offers;
pub(crate) use segment::{Closed, Messages, Part, Spilled};
pub(crate) use spill::{SpillDirectory, remove_leftovers};
pub(crate) use spiller::{Candidate, Event, Spiller, Written, remove_unneeded};
pub(crate) use table::{Refused, Straddling, TableTransactions};

#[cfg(test)]
mod tests;

/// How much of what one source has read may wait to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimits {
    /// Bytes in memory, as far as they can be told; beyond it they go to disk, and already from half of it on where nobody has to wait for that.
    pub memory_bytes: u64,
    /// Bytes on disk beyond which the upstream is not read while there is something to be taken. A transaction that is larger is read to its end.
    pub disk_bytes: u64,
}

impl Default for BufferLimits {
    /// A quarter of a gigabyte in memory, enough for everything but bulk changes and long waits; then 4 GiB on disk, minutes of a busy upstream.
    fn default() -> Self {
        Self {
            memory_bytes: 256 * 1024 * 1024,
            disk_bytes: 4 * 1024 * 1024 * 1024,
        }
    }
}

/// What follows from how much is buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// There is room.
    None,
    /// Something has to go to disk before more is read.
    Memory,
    /// Something has to be taken before more is read.
    Full,
}

impl BufferLimits {
    /// `takeable`: whether whole transactions wait, and nobody waits for more.
    pub(crate) const fn pressure(&self, usage: Usage, takeable: bool) -> Pressure {
        if usage.memory <= self.memory_bytes {
            Pressure::None
        } else if takeable && usage.disk >= self.disk_bytes {
            Pressure::Full
        } else {
            Pressure::Memory
        }
    }

    /// Whether something should go to disk while more is received, so that there is room when it is needed.
    pub(crate) const fn is_filling(&self, usage: Usage) -> bool {
        usage.memory > self.memory_bytes / 2 && usage.disk < self.disk_bytes
    }
}

/// How many bytes are buffered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory: u64,
    pub(crate) disk: u64,
}

impl Usage {
    pub(crate) const fn add(&mut self, other: Self) {
        self.memory = self.memory.saturating_add(other.memory);
        self.disk = self.disk.saturating_add(other.disk);
    }

    pub(crate) const fn remove(&mut self, other: Self) {
        self.memory = self.memory.saturating_sub(other.memory);
        self.disk = self.disk.saturating_sub(other.disk);
    }
}

/// What should go to disk: the largest segments, of equal ones those that are taken last, until half of the memory is free. Nothing if all that is in memory
/// has to stay there until a take has ended.
///
/// # Errors
/// [`TypeError`] if rows that were received cannot be made a batch.
pub(crate) fn candidates<'a>(
    tables: impl Iterator<Item = (ObjectId, &'a mut TableTransactions)>,
    limits: BufferLimits,
) -> Result<Vec<Candidate>, TypeError> {
    let mut tables: Vec<_> = tables.collect();
    let mut sizes = Vec::new();
    let mut excess = 0_u64;
    for (index, (_, transactions)) in tables.iter().enumerate() {
        excess = excess.saturating_add(transactions.usage().memory);
        let buffered = transactions.buffered();
        sizes.extend(buffered.map(|(number, bytes)| (bytes, number, index)));
    }
    excess = excess.saturating_sub(limits.memory_bytes / 2);
    sizes.sort_unstable();
    let mut chosen = Vec::new();
    while excess > 0
        && let Some((bytes, number, index)) = sizes.pop()
    {
        let Some((table, transactions)) = tables.get_mut(index) else {
            continue;
        };
        if let Some(closed) = transactions.close(number)? {
            chosen.push(Candidate::new(*table, transactions.log(), number, closed));
            excess = excess.saturating_sub(bytes);
        }
    }
    Ok(chosen)
}
