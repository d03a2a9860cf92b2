//! Notices: what they are, and those that come up while a statement runs, on their way to the client.
//!
//! Owns what was said and has yet to be sent, and when a statement that waits says for what. Must not know what it waits for, nor how a protocol sends notices:
//! who serves the client takes them, while the statement runs ([`Notices::next`]) or when it has ended ([`crate::Session::take_notices`]).
//!
//! Invariant: a statement says nothing twice, so what waits here is bounded by the things there are to wait for.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

/// How long a statement waits before it says for what; it looks as often whether that is something else by now.
const PATIENCE: Duration = Duration::from_secs(1);

/// How important a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `NOTICE`
    Notice,
    /// `WARNING`
    Warning,
}

/// A message for the user that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How important it is.
    pub severity: Severity,
    /// Lower case, no full stop.
    pub message: String,
    /// More about it: full sentences.
    pub detail: Option<String>,
    /// What the user can do: full sentences.
    pub hint: Option<String>,
}

impl Notice {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Notice,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    pub(crate) fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::new(message)
        }
    }
}

/// Notices of the statement that runs. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Wakes whoever sends them.
    came: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What was said and not sent, the oldest first.
    waiting: VecDeque<Notice>,
    /// What the statement has said.
    said: BTreeSet<String>,
    /// The least severity that the client is told of; `None` if it is told of nothing.
    least: Option<Severity>,
}

impl Notices {
    /// The next notice; waits for one.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&self) -> Notice {
        loop {
            let next = self.0.state.lock().waiting.pop_front();
            match next {
                Some(notice) => return notice,
                None => self.0.came.notified().await,
            }
        }
    }

    /// What has not been sent.
    pub(crate) fn take(&self) -> VecDeque<Notice> {
        std::mem::take(&mut self.0.state.lock().waiting)
    }

    /// Another statement begins.
    pub(crate) fn begin(&self, least: Option<Severity>) {
        let mut state = self.0.state.lock();
        state.said.clear();
        state.least = least;
    }

    /// From now on the client is told of no less than that.
    pub(crate) fn set_least(&self, least: Option<Severity>) {
        self.0.state.lock().least = least;
    }

    fn say(&self, notices: Vec<Notice>) {
        let mut state = self.0.state.lock();
        for notice in notices {
            let wanted = state.least.is_some_and(|least| notice.severity >= least);
            if wanted && state.said.insert(notice.message.clone()) {
                state.waiting.push_back(notice);
                self.0.came.notify_one();
            }
        }
    }

    /// Runs `work`. Once it has taken a second, and every second from then on, `what` is asked for what it waits.
    pub(crate) async fn while_waiting<T>(
        &self,
        what: impl Fn() -> Vec<Notice>,
        work: impl Future<Output = T>,
    ) -> T {
        let mut work = std::pin::pin!(work);
        let mut seconds = tokio::time::interval_at(Instant::now() + PATIENCE, PATIENCE);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = seconds.tick() => self.say(what()),
            }
        }
    }
}
