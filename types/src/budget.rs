//! What one statement may use: memory, and its time until nobody waits for it any more.
//!
//! Owns the account of a statement ([`Budget`]), the bound that several share ([`SharedBudget`]), and which statement a thread works for at the moment.
//! Whoever does work for a statement enters its budget ([`Budget::enter`], [`Within`]); whatever runs inside, however deep, asks [`check`] in its loops and
//! [`reserve`] before it makes something large, and passes the error on. Must not know what a statement is. Called by `functions`, `coordinator` and `worker`.
//!
//! What a statement holds is what its threads have allocated and not yet freed while they were inside: the process's allocator counts that for each thread
//! ([`allocator`]). So everything counts, also what a library holds that keeps no accounts. Where that allocator is not installed only reservations count.
//!
//! Invariants. No clock: a budget is spent by work, not by time. Outside of every budget nothing is refused.

pub mod allocator;

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};

use crate::error::{EvalError, EvalErrorKind};

/// Largest value that is made of constants before a statement runs: larger ones are made when they are needed.
const CONSTANT_BYTES_MAX: i64 = 64 << 10;
/// What all constants of a statement may cost together before it runs, in bytes.
const CONSTANTS_BYTES_MAX: i64 = 16 << 20;

/// Memory that several budgets have together.
#[derive(Debug)]
pub struct SharedBudget {
    bytes_max: i64,
    held: AtomicI64,
}

impl SharedBudget {
    /// A bound of `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max: signed(bytes_max),
            held: AtomicI64::new(0),
        })
    }

    /// What its budgets hold at the moment, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        unsigned(self.held.load(Ordering::Relaxed))
    }
}

/// The account of one statement.
#[derive(Debug)]
pub struct Budget {
    shared: Arc<SharedBudget>,
    cancelled: AtomicBool,
    /// Net bytes that were allocated for it. Below zero where it has freed what others had allocated.
    held: AtomicI64,
}

impl Drop for Budget {
    fn drop(&mut self) {
        let held = *self.held.get_mut();
        self.shared.held.fetch_sub(held.max(0), Ordering::Relaxed);
    }
}

impl Budget {
    /// An account that shares a bound with others.
    #[must_use]
    pub fn new(shared: &Arc<SharedBudget>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            cancelled: AtomicBool::new(false),
            held: AtomicI64::new(0),
        })
    }

    /// An account with a bound of its own.
    #[must_use]
    pub fn alone(bytes_max: usize) -> Arc<Self> {
        Self::new(&SharedBudget::new(bytes_max))
    }

    /// Nobody waits for the statement any more: what runs for it ends with an error at its next check.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for the statement any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// What the statement holds, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        unsigned(self.held.load(Ordering::Relaxed))
    }

    /// Makes this thread work for the statement until the guard goes.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Entered {
        Entered::of(Some(Active {
            budget: Arc::clone(self),
            mark: allocator::held_by_this_thread(),
            constants: None,
        }))
    }

    /// Runs `work` for the statement.
    pub fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        let _entered = self.enter();
        work()
    }

    fn add(&self, bytes: i64) {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let change = (before + bytes).max(0) - before.max(0);
        self.shared.held.fetch_add(change, Ordering::Relaxed);
    }

    /// Whether the statement may go on and take `wanted` bytes more.
    fn allows(&self, wanted: i64) -> Result<(), Exceeded> {
        if self.is_cancelled() {
            return Err(Exceeded::Cancelled);
        }
        let held = self.shared.held.load(Ordering::Relaxed);
        if held.saturating_add(wanted) > self.shared.bytes_max {
            return Err(Exceeded::Memory {
                wanted: unsigned(wanted),
                held: unsigned(held),
                bytes_max: unsigned(self.shared.bytes_max),
            });
        }
        Ok(())
    }
}

/// Why work must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// Nobody waits for it.
    Cancelled,
    /// The memory of statements would not suffice.
    Memory {
        /// What was asked for, in bytes.
        wanted: usize,
        /// What is held already.
        held: usize,
        /// What there is.
        bytes_max: usize,
    },
    /// It is too much to be done before the statement runs.
    Constant,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("canceling statement due to user request"),
            Self::Memory {
                wanted,
                held,
                bytes_max,
            } => write!(
                f,
                "out of memory: {wanted} bytes more are needed, and statements hold {held} of {bytes_max}"
            ),
            Self::Constant => f.write_str("too much to compute before the statement runs"),
        }
    }
}

impl std::error::Error for Exceeded {}

impl From<Exceeded> for EvalError {
    fn from(exceeded: Exceeded) -> Self {
        let kind = match exceeded {
            Exceeded::Cancelled => EvalErrorKind::Cancelled,
            Exceeded::Memory { .. } | Exceeded::Constant => EvalErrorKind::OutOfMemory,
        };
        Self::new(kind, exceeded.to_string())
    }
}

/// The statement that a thread works for.
struct Active {
    budget: Arc<Budget>,
    /// What the thread held when this was last added to the budget.
    mark: i64,
    /// What constants may still cost, while no more than constants should be computed.
    constants: Option<i64>,
}

impl Active {
    /// Adds what the thread has allocated since the last time.
    fn settle(&mut self) {
        let now = allocator::held_by_this_thread();
        self.budget.add(now - self.mark);
        self.mark = now;
    }
}

thread_local! {
    static ACTIVE: RefCell<Option<Active>> = const { RefCell::new(None) };
}

/// Asks the statement that this thread works for; `nothing` if it works for none.
fn ask<T>(nothing: T, answer: impl FnOnce(&mut Active) -> T) -> T {
    ACTIVE.with_borrow_mut(|active| match active {
        Some(active) => answer(active),
        None => nothing,
    })
}

/// This thread works for a statement as long as it exists; then again for the one before.
#[derive(Debug)]
pub struct Entered {
    before: Option<Box<Active>>,
    /// It belongs to its thread.
    _local: std::marker::PhantomData<*const ()>,
}

impl fmt::Debug for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Active")
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl Entered {
    fn of(next: Option<Active>) -> Self {
        let before = ACTIVE.with_borrow_mut(|active| {
            if let Some(active) = active.as_mut() {
                active.settle();
            }
            std::mem::replace(active, next)
        });
        Self {
            before: before.map(Box::new),
            _local: std::marker::PhantomData,
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take().map(|before| Active {
            mark: allocator::held_by_this_thread(),
            ..*before
        });
        let ended = ACTIVE.with_borrow_mut(|active| std::mem::replace(active, before));
        if let Some(mut ended) = ended {
            ended.settle();
        }
    }
}

/// Whether the work may go on. Cheap enough for every few rows.
///
/// # Errors
/// [`Exceeded`], to be passed on.
pub fn check() -> Result<(), Exceeded> {
    ask(Ok(()), |active| {
        active.settle();
        active.budget.allows(0)
    })
}

/// Whether there is room for `bytes` that are about to be allocated.
///
/// # Errors
/// [`Exceeded`], to be passed on.
pub fn reserve(bytes: usize) -> Result<(), Exceeded> {
    let bytes = signed(bytes);
    ask(Ok(()), |active| {
        if let Some(left) = &mut active.constants {
            *left = left.saturating_sub(bytes);
            if bytes > CONSTANT_BYTES_MAX || *left < 0 {
                return Err(Exceeded::Constant);
            }
        }
        active.settle();
        active.budget.allows(bytes)
    })
}

/// The statement that this thread works for.
#[must_use]
pub fn current() -> Option<Arc<Budget>> {
    ask(None, |active| Some(Arc::clone(&active.budget)))
}

/// Runs `work` that computes constants beforehand: it must be content with little, else what it tries is left for later. Does nothing outside of a budget.
pub fn constants_only<T>(work: impl FnOnce() -> T) -> T {
    let _entered = current().map(|budget| {
        Entered::of(Some(Active {
            budget,
            mark: allocator::held_by_this_thread(),
            constants: Some(CONSTANTS_BYTES_MAX),
        }))
    });
    work()
}

/// Whether only constants are computed at the moment: [`constants_only`].
#[must_use]
pub fn is_constants_only() -> bool {
    ask(false, |active| active.constants.is_some())
}

/// A future that works for a statement.
pub struct Within<F> {
    budget: Option<Arc<Budget>>,
    future: Pin<Box<F>>,
}

impl<F> fmt::Debug for Within<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within")
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl<F: Future> Within<F> {
    /// `future`, each step of it within `budget`, if there is one.
    pub fn new(budget: Option<Arc<Budget>>, future: F) -> Self {
        Self {
            budget,
            future: Box::pin(future),
        }
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _entered = self.budget.as_ref().map(Budget::enter);
        self.future.as_mut().poll(context)
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn unsigned(bytes: i64) -> usize {
    usize::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_a_budget_nothing_is_refused() {
        assert_eq!(reserve(usize::MAX), Ok(()));
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn a_reservation_beyond_the_bound_is_refused() {
        let budget = Budget::alone(1000);
        budget.run(|| {
            assert_eq!(reserve(1000), Ok(()));
            assert!(matches!(
                reserve(1001),
                Err(Exceeded::Memory { wanted: 1001, .. })
            ));
        });
        assert_eq!(reserve(1001), Ok(()));
    }

    #[test]
    fn statements_share_their_bound() {
        let shared = SharedBudget::new(1000);
        let (one, other) = (Budget::new(&shared), Budget::new(&shared));
        one.add(600);
        assert!(other.run(|| reserve(600)).is_err());
        // What frees memory of others gives nothing to anybody.
        other.add(-5000);
        assert!(other.run(|| reserve(600)).is_err());
        drop(one);
        assert_eq!(other.run(|| reserve(600)), Ok(()));
        assert_eq!(shared.held(), 0);
    }

    #[test]
    fn whoever_is_cancelled_hears_it_at_the_next_check() {
        let budget = Budget::alone(1000);
        let seen = budget.run(|| {
            let before = check();
            budget.cancel();
            (before, check(), constants_only(|| reserve(1)))
        });
        let cancelled = Err(Exceeded::Cancelled);
        assert_eq!(seen, (Ok(()), cancelled, cancelled));
    }

    #[test]
    fn constants_cost_little_or_wait() {
        let budget = Budget::alone(usize::MAX);
        let large = 1 << 20;
        budget.run(|| {
            assert_eq!(constants_only(|| reserve(large)), Err(Exceeded::Constant));
            assert_eq!(reserve(large), Ok(()));
            let many = constants_only(|| (0..1000).find(|_| reserve(60_000).is_err()));
            assert!(many.is_some());
        });
    }

    #[test]
    fn a_budget_inside_of_another_one_gives_way_to_it_again() {
        let (outer, inner) = (Budget::alone(1000), Budget::alone(10));
        outer.run(|| {
            assert!(inner.run(|| reserve(100)).is_err());
            assert_eq!(reserve(100), Ok(()));
        });
    }
}
