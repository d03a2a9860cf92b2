//! How many connections there may be, of all listeners together, and which one goes when there is no room.
//!
//! Owns the count of connections and the order in which those were last heard that have not said who they are. Must not know protocols: they tell when they heard something,
//! and when the client is known. Called by every listener.
//!
//! Invariants. There are never more connections than the limit, so descriptors are left for the node's own files. A connection whose client is known is never ended for
//! another one. One whose client is not known keeps nobody out: when there is no room it is ended, first those of the address that has most of them, and of these those
//! that have said nothing at all, the longest silent before the others. But nobody is ended before [`GRACE`] for being silent: until then the next ones wait to be let in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Connections at once whose client is not known yet, at most: they cost memory before anybody knows who they are.
const OPENING_MAX: usize = 1024;
/// One address may have this part of them. Half, because behind one address there may be a pool that opens all its connections at once.
const ADDRESS_SHARE: usize = 2;
/// For so long nobody is ended for having said nothing: whoever has something to say comes to be heard, however fast silent connections come in behind it.
const GRACE: Duration = Duration::from_millis(250);
/// The last connections are for superusers: so an administrator gets in when a pool has taken the rest.
const RESERVED: usize = 3;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    all: usize,
    opening: usize,
    address: usize,
}

impl Limits {
    fn new(all: usize) -> Self {
        let opening = OPENING_MAX.min(all / 2).max(1);
        Self {
            all,
            opening,
            address: (opening / ADDRESS_SHARE).max(1),
        }
    }
}

/// Why a connection is not let in at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// There is no room.
    Full(Full),
    /// There will be at this time, if not before.
    Until(Instant),
}

/// There is no room for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Every connection belongs to somebody who is known.
    #[error("sorry, too many clients already")]
    All,
    /// The last ones are not for everybody.
    #[error("remaining connection slots are reserved for roles with the SUPERUSER attribute")]
    Reserved,
}

/// Where a connection comes from: the whole address, or the network that a client of IPv6 usually has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    V4(u32),
    V6(u64),
}

impl Origin {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

/// A connection whose client is not known.
#[derive(Debug)]
struct Opening {
    origin: Origin,
    came: Instant,
    evicted: CancellationToken,
}

/// Which one goes before which: those that have said nothing before those that have, and of these the one that was heard, or came, longer ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    heard: bool,
    number: u64,
}

#[derive(Debug, Default)]
struct State {
    opening: BTreeMap<Turn, Opening>,
    by_origin: BTreeMap<Origin, usize>,
    /// Connections whose client is known.
    open: usize,
    next: u64,
}

impl State {
    fn add(&mut self, opening: Opening, heard: bool) -> Turn {
        *self.by_origin.entry(opening.origin).or_default() += 1;
        self.next += 1;
        let turn = Turn {
            heard,
            number: self.next,
        };
        self.opening.insert(turn, opening);
        turn
    }

    fn remove(&mut self, turn: Turn) -> Option<Opening> {
        let opening = self.opening.remove(&turn)?;
        if let Some(count) = self.by_origin.get_mut(&opening.origin) {
            *count -= 1;
            if *count == 0 {
                self.by_origin.remove(&opening.origin);
            }
        }
        Some(opening)
    }

    fn count(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).copied().unwrap_or_default()
    }

    /// Ends the longest silent connection of an origin, or says from when on that is possible.
    fn evict(&mut self, origin: Origin, now: Instant) -> Result<(), Refusal> {
        let mut opening = self.opening.iter();
        let oldest = opening.find(|(_, opening)| opening.origin == origin);
        let Some((turn, since)) = oldest.map(|(turn, opening)| (*turn, opening.came)) else {
            return Ok(());
        };
        if !turn.heard && now < since + GRACE {
            return Err(Refusal::Until(since + GRACE));
        }
        if let Some(opening) = self.remove(turn) {
            opening.evicted.cancel();
        }
        Ok(())
    }

    /// The origin with most connections whose client is not known.
    fn busiest(&self) -> Option<Origin> {
        let busiest = self.by_origin.iter().max_by_key(|(_, count)| **count);
        busiest.map(|(origin, _)| *origin)
    }
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
    /// Told when somebody is heard, becomes known, or goes: there may be room.
    changed: Notify,
}

/// Admits connections; clones share the count.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

impl Admission {
    /// At most `connections_max` at once.
    #[must_use]
    pub fn new(connections_max: usize) -> Self {
        Self(Arc::new(Inner {
            limits: Limits::new(connections_max),
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Lets a connection from `address` in. Another one may be ended for it, and for that it may have to wait, not longer than 250 ms for each that came before.
    ///
    /// # Errors
    /// [`Full::All`] if there is none to be ended.
    ///
    /// # Cancel safety
    /// Nobody has been let in or ended if it is dropped.
    pub async fn admit(&self, address: IpAddr) -> Result<Ticket, Full> {
        loop {
            let changed = self.0.changed.notified();
            match self.admit_at(address, Instant::now()) {
                Ok(ticket) => return Ok(ticket),
                Err(Refusal::Full(full)) => return Err(full),
                Err(Refusal::Until(time)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(time) => {}
                },
            }
        }
    }

    fn admit_at(&self, address: IpAddr, now: Instant) -> Result<Ticket, Refusal> {
        let origin = Origin::of(address);
        let limits = self.0.limits;
        let mut state = self.0.state.lock();
        if state.count(origin) >= limits.address {
            state.evict(origin, now)?;
        } else if state.opening.len() >= limits.opening
            || state.opening.len() + state.open >= limits.all
        {
            let busiest = state.busiest().ok_or(Refusal::Full(Full::All))?;
            state.evict(busiest, now)?;
        }
        let evicted = CancellationToken::new();
        let opening = Opening {
            origin,
            came: now,
            evicted: evicted.clone(),
        };
        let turn = state.add(opening, false);
        Ok(Ticket(Arc::new(Place {
            admission: self.clone(),
            stage: Mutex::new(Stage::Opening(turn)),
            evicted,
        })))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The client is not known; this is when its turn to go is.
    Opening(Turn),
    /// It is.
    Open,
}

#[derive(Debug)]
struct Place {
    admission: Admission,
    stage: Mutex<Stage>,
    evicted: CancellationToken,
}

/// A connection's place, until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<Place>);

impl Ticket {
    /// The client has said something.
    pub fn heard(&self) {
        let mut stage = self.0.stage.lock();
        let mut state = self.0.admission.0.state.lock();
        if let Stage::Opening(turn) = *stage
            && let Some(opening) = state.remove(turn)
        {
            *stage = Stage::Opening(state.add(opening, true));
            self.0.admission.0.changed.notify_waiters();
        }
    }

    /// The client is known: the connection keeps its place from now on.
    ///
    /// # Errors
    /// [`Full`] if the last places are for others, or the connection was ended meanwhile.
    pub fn opened(&self, superuser: bool) -> Result<(), Full> {
        let mut stage = self.0.stage.lock();
        let Stage::Opening(turn) = *stage else {
            return Ok(());
        };
        let all = self.0.admission.0.limits.all;
        let mut state = self.0.admission.0.state.lock();
        let reserved = if superuser { 0 } else { RESERVED };
        if state.open + reserved >= all {
            return Err(if superuser { Full::All } else { Full::Reserved });
        }
        state.remove(turn).ok_or(Full::All)?;
        state.open += 1;
        *stage = Stage::Open;
        self.0.admission.0.changed.notify_waiters();
        Ok(())
    }

    /// Whether the connection must end to make room for another one.
    #[must_use]
    pub fn is_evicted(&self) -> bool {
        self.0.evicted.is_cancelled()
    }

    /// Resolves when the connection must end to make room for another one.
    ///
    /// # Cancel safety
    /// Nothing is lost if it is dropped.
    pub async fn evicted(&self) {
        self.0.evicted.cancelled().await;
    }

    /// The same, for those who keep the future.
    pub(crate) fn evicted_owned(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.evicted.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.0.state.lock();
        match *self.stage.get_mut() {
            // One that was ended has gone already.
            Stage::Opening(turn) => drop(state.remove(turn)),
            Stage::Open => state.open -= 1,
        }
        self.admission.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn is_evicted(ticket: &Ticket) -> bool {
        ticket.is_evicted()
    }

    /// Each comes when all before it have been there for long.
    fn admit_one(admission: &Admission, last: u8) -> Result<Ticket, Full> {
        let number = u32::try_from(admission.0.state.lock().next).unwrap();
        match admission.admit_at(address(last), Instant::now() + (number + 1) * GRACE) {
            Ok(ticket) => Ok(ticket),
            Err(Refusal::Full(full)) => Err(full),
            Err(Refusal::Until(_)) => panic!("it is asked to wait"),
        }
    }

    fn admit(admission: &Admission, last: u8, count: usize) -> Vec<Ticket> {
        (0..count)
            .map(|_| admit_one(admission, last).unwrap())
            .collect()
    }

    #[test]
    fn nobody_is_ended_before_it_could_be_heard() {
        let admission = Admission::new(100);
        let now = Instant::now();
        let admit_at = |last, time| admission.admit_at(address(last), time);
        // All places of the address, at the same moment.
        let crowd: Vec<Ticket> = (0..25).map(|_| admit_at(1, now).unwrap()).collect();
        let soon = now + GRACE * 9 / 10;
        assert_eq!(admit_at(1, soon).unwrap_err(), Refusal::Until(now + GRACE));
        admit_at(2, soon).expect("others do not wait for this address");
        crowd[0].heard();
        admit_at(1, now + GRACE).unwrap();
        assert!(!crowd[0].is_evicted() && crowd[1].is_evicted());
        assert_eq!(crowd.iter().filter(|ticket| ticket.is_evicted()).count(), 1);
    }

    #[tokio::test]
    async fn who_waits_is_let_in_when_a_place_is_given_up() {
        let admission = Admission::new(4);
        let first = admission.admit(address(1)).await.unwrap();
        let mut second = std::pin::pin!(admission.admit(address(1)));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(futures::poll!(&mut second).is_ready());
    }

    #[test]
    fn one_address_keeps_to_its_share_and_its_longest_silent_goes() {
        let admission = Admission::new(100);
        // 50 may be opening, 25 of one address.
        let first = admit(&admission, 1, 25);
        first[0].heard();
        let other = admit(&admission, 2, 1);
        let more = admit(&admission, 1, 1);
        assert!(!is_evicted(&first[0]), "it was heard");
        assert!(is_evicted(&first[1]), "it was silent longest");
        assert_eq!(first.iter().filter(|ticket| is_evicted(ticket)).count(), 1);
        assert!(!is_evicted(&other[0]) && !is_evicted(&more[0]));
    }

    #[test]
    fn when_all_is_full_the_address_with_most_gives_way() {
        let admission = Admission::new(100);
        let (many, fewer) = (admit(&admission, 1, 25), admit(&admission, 2, 24));
        let one = admit(&admission, 3, 1);
        let newcomer = admit(&admission, 4, 1);
        assert!(is_evicted(&many[0]));
        let kept = fewer.iter().chain(&one).chain(&newcomer).chain(&many[1..]);
        assert_eq!(kept.filter(|ticket| is_evicted(ticket)).count(), 0);
    }

    #[test]
    fn those_who_are_known_keep_their_places() {
        let admission = Admission::new(10);
        let mut open = admit(&admission, 1, 1);
        open[0].opened(false).unwrap();
        for _ in 1..7 {
            let ticket = admit_one(&admission, 1).unwrap();
            ticket.opened(false).unwrap();
            open.push(ticket);
        }
        // The last three are reserved.
        let refused = admit_one(&admission, 1).unwrap();
        assert_eq!(refused.opened(false), Err(Full::Reserved));
        for _ in 7..10 {
            let ticket = admit_one(&admission, 1).unwrap();
            ticket.opened(true).unwrap();
            open.push(ticket);
        }
        drop(refused);
        assert_eq!(admit_one(&admission, 2).unwrap_err(), Full::All);
        assert!(open.iter().all(|ticket| !is_evicted(ticket)));
        drop(open.pop());
        admit_one(&admission, 2).unwrap().opened(true).unwrap();
    }

    #[test]
    fn silent_connections_make_room_for_those_that_become_known() {
        let admission = Admission::new(10);
        let silent = admit(&admission, 1, 2);
        let mut open = Vec::new();
        for _ in 0..7 {
            let ticket = admit_one(&admission, 2).unwrap();
            ticket.opened(false).unwrap();
            open.push(ticket);
        }
        let third = admit_one(&admission, 2).unwrap();
        let fourth = admit_one(&admission, 2).unwrap();
        assert!(is_evicted(&silent[0]));
        assert_eq!(silent[0].opened(true), Err(Full::All), "it has gone");
        drop((third, fourth));
    }

    #[test]
    fn who_has_said_something_goes_after_all_that_have_not() {
        let admission = Admission::new(100);
        let speaking = admit_one(&admission, 1).unwrap();
        speaking.heard();
        let silent = admit(&admission, 1, 60);
        assert!(!speaking.is_evicted());
        assert!(is_evicted(&silent[0]) && !is_evicted(&silent[59]));
        speaking.opened(false).unwrap();
    }

    #[test]
    fn what_ends_is_forgotten() {
        let admission = Admission::new(100);
        let tickets = admit(&admission, 1, 25);
        tickets[0].opened(false).unwrap();
        let clone = tickets[1].clone();
        drop(tickets);
        assert_eq!(admission.0.state.lock().opening.len(), 1);
        drop(clone);
        let state = admission.0.state.lock();
        assert_eq!((state.open, state.opening.len()), (0, 0));
        assert!(state.by_origin.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_origin() {
        let of = |text: &str| Origin::of(text.parse::<Ipv6Addr>().unwrap().into());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), Origin::of(address(1)));
    }
}
