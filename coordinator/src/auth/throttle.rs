//! Slowing of those who fail to authenticate again and again.
//!
//! Owns the count of recent failures by user and by address, and the wait that follows from it. A pure state machine: time is given, waiting is the caller's.
//!
//! Invariants. The table is bounded, and who failed most is forgotten last. Who has never failed never waits. Attempts from an address that has failed take turns:
//! connecting a hundred times at once is no faster than once. A user's failures elsewhere slow a login by [`DELAY_MAX_MS`] at most and never refuse it, so nobody can be
//! locked out from afar.

use std::net::IpAddr;

use hashbrown::HashMap;

/// The wait after the second failure; it doubles with each further one.
const DELAY_MIN_MS: u64 = 100;
/// The longest wait between two attempts.
pub const DELAY_MAX_MS: u64 = 4_000;
/// The longest queue of an address: who would wait longer is refused at once.
pub const WAIT_MAX_MS: u64 = 10_000;
/// Failures are forgotten when there was none for this long.
const MEMORY_MS: u64 = 600_000;
/// Users and addresses remembered, together.
const ENTRIES_MAX: usize = 8_192;
/// Longer user names share what they have in common up to here.
const USER_CHARS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    User(String),
    /// An IPv4 address, or the first 64 bits of an IPv6 one: whoever has one address of a network has all of them.
    Address(u64),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last_ms: u64,
    /// The next attempt begins at this time or later.
    next_ms: u64,
}

/// Recent failures.
#[derive(Debug, Default)]
pub struct Throttle {
    entries: HashMap<Key, Failures>,
}

const fn delay_ms(count: u32) -> u64 {
    match count {
        0 | 1 => 0,
        2..=7 => DELAY_MIN_MS << (count - 2),
        _ => DELAY_MAX_MS,
    }
}

fn user(name: &str) -> Key {
    Key::User(name.chars().take(USER_CHARS_MAX).collect())
}

fn address(peer: IpAddr) -> Key {
    Key::Address(match peer.to_canonical() {
        IpAddr::V4(peer) => u64::from(peer.to_bits()),
        // Never equal to an IPv4 address: no network in use begins with 32 zero bits.
        IpAddr::V6(peer) => u64::try_from(peer.to_bits() >> 64).unwrap_or_default(),
    })
}

impl Throttle {
    /// How long an attempt that arrives at `now_ms` must wait before it is looked at; `None` if it is to be refused. Takes a place in the address's queue.
    pub fn admit(&mut self, name: &str, peer: IpAddr, now_ms: u64) -> Option<u64> {
        let fresh = |failures: &&mut Failures| failures.last_ms + MEMORY_MS > now_ms;
        let mut start_ms = now_ms;
        if let Some(failures) = self.entries.get_mut(&user(name)).filter(fresh) {
            start_ms = start_ms.max(failures.next_ms);
        }
        if let Some(failures) = self.entries.get_mut(&address(peer)).filter(fresh) {
            let turn_ms = now_ms.max(failures.next_ms);
            if turn_ms - now_ms > WAIT_MAX_MS {
                return None;
            }
            failures.next_ms = turn_ms + delay_ms(failures.count);
            start_ms = start_ms.max(turn_ms);
        }
        Some(start_ms - now_ms)
    }

    /// An attempt failed at `now_ms`.
    pub fn failed(&mut self, name: &str, peer: IpAddr, now_ms: u64) {
        for key in [user(name), address(peer)] {
            if !self.entries.contains_key(&key) {
                self.make_room(now_ms);
            }
            let failures = self.entries.entry(key).or_insert(Failures {
                count: 0,
                last_ms: now_ms,
                next_ms: 0,
            });
            if failures.last_ms + MEMORY_MS <= now_ms {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last_ms = failures.last_ms.max(now_ms);
            failures.next_ms = failures.next_ms.max(now_ms + delay_ms(failures.count));
        }
    }

    /// An attempt succeeded: the user's failures are forgotten, and half of the address's. Not all: others may share it, or the same client may try other users.
    pub fn succeeded(&mut self, name: &str, peer: IpAddr) {
        self.entries.remove(&user(name));
        let key = address(peer);
        if let Some(failures) = self.entries.get_mut(&key) {
            failures.count /= 2;
            if failures.count == 0 {
                self.entries.remove(&key);
            }
        }
    }

    fn make_room(&mut self, now_ms: u64) {
        if self.entries.len() < ENTRIES_MAX {
            return;
        }
        self.entries
            .retain(|_, failures| failures.last_ms + MEMORY_MS > now_ms);
        if self.entries.len() < ENTRIES_MAX {
            return;
        }
        // The key breaks ties, so that the order of the map does not matter.
        let least = self
            .entries
            .iter()
            .min_by_key(|(key, failures)| (failures.count, failures.last_ms, *key))
            .map(|(key, _)| key.clone());
        if let Some(key) = least {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use flowstone_types::Clock;
    use flowstone_types::clock::ManualClock;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    /// Fails `times` times, waiting as told; returns the waits.
    fn fail(throttle: &mut Throttle, clock: &ManualClock, name: &str, times: usize) -> Vec<u64> {
        let mut waits = Vec::new();
        for _ in 0..times {
            let wait = throttle.admit(name, HERE, clock.now_ms()).unwrap();
            clock.advance(wait);
            throttle.failed(name, HERE, clock.now_ms());
            waits.push(wait);
        }
        waits
    }

    #[test]
    fn repeated_failures_wait_longer_and_longer_up_to_a_limit() {
        let (mut throttle, clock) = (Throttle::default(), ManualClock::new(1_000_000));
        assert_eq!(
            fail(&mut throttle, &clock, "eve", 11),
            [0, 0, 100, 200, 400, 800, 1600, 3200, 4000, 4000, 4000]
        );
        // Neither another user from here nor the same user from elsewhere is free of it; others are.
        assert_eq!(throttle.admit("eve", THERE, clock.now_ms()), Some(4000));
        assert_eq!(throttle.admit("bob", HERE, clock.now_ms()), Some(4000));
        assert_eq!(throttle.admit("bob", THERE, clock.now_ms()), Some(0));
    }

    #[test]
    fn attempts_at_once_take_turns_and_the_queue_is_bounded() {
        let (mut throttle, clock) = (Throttle::default(), ManualClock::new(1_000_000));
        fail(&mut throttle, &clock, "eve", 10);
        let now = clock.now_ms();
        let waits: Vec<Option<u64>> = (0..5).map(|_| throttle.admit("eve", HERE, now)).collect();
        assert_eq!(waits, [Some(4000), Some(8000), None, None, None]);
        // From elsewhere the user can always get in, after a moment.
        for _ in 0..5 {
            assert_eq!(throttle.admit("eve", THERE, now), Some(4000));
        }
    }

    #[test]
    fn success_forgives_the_user_and_half_of_the_address() {
        let (mut throttle, clock) = (Throttle::default(), ManualClock::new(1_000_000));
        fail(&mut throttle, &clock, "bob", 6);
        clock.advance(10_000);
        throttle.succeeded("bob", HERE);
        assert_eq!(throttle.admit("bob", THERE, clock.now_ms()), Some(0));
        assert_eq!(throttle.admit("bob", HERE, clock.now_ms()), Some(0));
        // Three failures are left of the address: the next attempt waits its turn.
        assert_eq!(throttle.admit("bob", HERE, clock.now_ms()), Some(200));
        throttle.succeeded("bob", HERE);
        throttle.succeeded("bob", HERE);
        assert!(throttle.entries.is_empty());
    }

    #[test]
    fn failures_are_forgotten_after_a_while() {
        let (mut throttle, clock) = (Throttle::default(), ManualClock::new(1_000_000));
        fail(&mut throttle, &clock, "eve", 10);
        clock.advance(MEMORY_MS);
        assert_eq!(throttle.admit("eve", HERE, clock.now_ms()), Some(0));
        assert_eq!(fail(&mut throttle, &clock, "eve", 3), [0, 0, 100]);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_who_failed_most() {
        let (mut throttle, clock) = (Throttle::default(), ManualClock::new(1_000_000));
        fail(&mut throttle, &clock, "victim", 9);
        for number in 0..2 * ENTRIES_MAX {
            throttle.failed(&format!("user{number}"), THERE, clock.now_ms());
        }
        assert_eq!(throttle.entries.len(), ENTRIES_MAX);
        assert_eq!(throttle.admit("victim", HERE, clock.now_ms()), Some(4000));
    }

    #[test]
    fn addresses_of_one_network_are_one_address() {
        let of = |text: &str| address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
