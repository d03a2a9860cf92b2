//! Pauses between attempts at what may work later.
//!
//! Must not know what is tried. Called by the tasks of sources.

use std::time::Duration;

use flowstone_types::Clock;

use crate::generator::rows::Draw;

/// First and longest pause between attempts.
const FIRST: Duration = Duration::from_millis(250);
const MAX: Duration = Duration::from_secs(30);
/// An attempt that lasted this long was a success: the next pause is short again.
pub(crate) const RESET: Duration = Duration::from_secs(30);

/// The pauses between attempts at one thing: each is twice the one before, up to a bound.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { pause: FIRST }
    }

    /// Something has worked: the next pause is short again.
    pub(crate) const fn reset(&mut self) {
        self.pause = FIRST;
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(MAX);
        pause
    }

    /// Between half of the next pause and all of it, so that sources of one server do not all come at once.
    pub(crate) fn next_jittered(&mut self, clock: &dyn Clock, seed: u64) -> Duration {
        let half = self.next() / 2;
        let part = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut draw = Draw::new(clock.now_ms(), 0, seed);
        half + Duration::from_millis(draw.next() % part)
    }
}
