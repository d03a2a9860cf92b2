//! Sets of MySQL's transactions: for each server intervals of the numbers that it gave.
//!
//! Owns their union, their inclusion, and their forms as text and as bytes. Must not know a server. Called by [`super`] and by the connector of MySQL.
//!
//! Invariants. A server that is in a set has at least one transaction there. Its intervals are in order, and between two of them at least one number is
//! missing; all numbers are from 1 to [`GtidSet::LAST`]. So equal sets have one representation.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use uuid::Uuid;

use super::compact::{Reader, put_count, put_number};
use super::{DecodeError, decimal};
use crate::TypeError;

/// A set of global transaction identifiers, each a server's UUID and a number. GTIDs with a tag, which MySQL has since version 8.3, have no place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet(BTreeMap<Uuid, Vec<Interval>>);

/// Consecutive transactions of one server, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    first: u64,
    last: u64,
}

impl GtidSet {
    /// The largest number of a transaction: MySQL's are signed and have 64 bits.
    pub const LAST: u64 = i64::MAX.unsigned_abs();

    /// Adds transactions of one server; those that are there already do not matter.
    ///
    /// # Errors
    /// [`TypeError::OutOfRange`] if there are none in `transactions`, or if not all of their numbers are from 1 to [`GtidSet::LAST`]. The set is as it was.
    pub fn add(
        &mut self,
        server: Uuid,
        transactions: RangeInclusive<u64>,
    ) -> Result<(), TypeError> {
        let (first, last) = transactions.into_inner();
        if first == 0 || first > last || last > Self::LAST {
            return Err(TypeError::OutOfRange {
                type_name: "gtid set".to_owned(),
                value: format!("{first}-{last}"),
            });
        }
        self.insert(server, Interval { first, last });
        Ok(())
    }

    fn insert(&mut self, server: Uuid, new: Interval) {
        let intervals = self.0.entry(server).or_default();
        // What overlaps the new one or touches it. `begin <= end`: what ends before the new one begins also begins before the new one ends.
        let begin = intervals.partition_point(|one| one.last.saturating_add(1) < new.first);
        let end = intervals.partition_point(|one| one.first <= new.last.saturating_add(1));
        let merged = intervals
            .drain(begin..end)
            .fold(new, |merged, one| Interval {
                first: merged.first.min(one.first),
                last: merged.last.max(one.last),
            });
        intervals.insert(begin, merged);
    }

    /// The transactions that are in one of the two sets, or in both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        for (server, intervals) in &other.0 {
            for interval in intervals {
                union.insert(*server, *interval);
            }
        }
        union
    }

    /// Whether all transactions of `other` are in this set.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(server, intervals)| {
            let here = self.0.get(server).map(Vec::as_slice).unwrap_or_default();
            intervals.iter().all(|wanted| {
                // Between two intervals a number is missing: all of it is in one, or not all of it is there.
                let at = here.partition_point(|one| one.last < wanted.first);
                here.get(at)
                    .is_some_and(|one| one.first <= wanted.first && wanted.last <= one.last)
            })
        })
    }

    /// Whether no transaction is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many transactions there are; at most `u64::MAX`.
    #[must_use]
    pub fn count(&self) -> u64 {
        let intervals = self.0.values().flatten();
        intervals
            .map(|interval| interval.last - interval.first + 1)
            .fold(0, u64::saturating_add)
    }

    /// The intervals, by server and number.
    pub fn intervals(&self) -> impl Iterator<Item = (Uuid, RangeInclusive<u64>)> + '_ {
        self.0.iter().flat_map(|(server, intervals)| {
            let of_server = intervals.iter();
            of_server.map(move |interval| (*server, interval.first..=interval.last))
        })
    }

    /// For each server its UUID, and for each interval how far it is behind the one before and how long it is: no byte more than that, and what can be written
    /// is in order.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.0.len());
        for (server, intervals) in &self.0 {
            out.extend_from_slice(server.as_bytes());
            put_count(out, intervals.len());
            let mut least = 1_u64;
            for Interval { first, last } in intervals.iter().copied() {
                put_number(out, first - least);
                put_number(out, last - first);
                least = last + 2;
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut servers: BTreeMap<Uuid, Vec<Interval>> = BTreeMap::new();
        for _ in 0..reader.number()? {
            let server = Uuid::from_bytes(reader.array()?);
            let before = servers.last_key_value().map(|(before, _)| *before);
            if before.is_some_and(|before| before >= server) {
                return Err(DecodeError::Damaged("its servers are out of order"));
            }
            let mut intervals = Vec::new();
            let mut least = 1_u64;
            for _ in 0..reader.number()? {
                let (gap, length) = (reader.number()?, reader.number()?);
                let interval = least.checked_add(gap).and_then(|first| {
                    let last = first.checked_add(length)?;
                    (last <= Self::LAST).then_some(Interval { first, last })
                });
                let interval =
                    interval.ok_or(DecodeError::Damaged("a transaction is out of range"))?;
                least = interval.last + 2;
                intervals.push(interval);
            }
            if intervals.is_empty() {
                return Err(DecodeError::Damaged("a server has no transactions"));
            }
            servers.insert(server, intervals);
        }
        Ok(Self(servers))
    }
}

impl fmt::Display for GtidSet {
    /// As MySQL writes it: `uuid:1-5:7,uuid:3`. Nothing for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for (server, intervals) in &self.0 {
            write!(f, "{before}{server}")?;
            before = ",";
            for Interval { first, last } in intervals {
                write!(f, ":{first}")?;
                if last > first {
                    write!(f, "-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = TypeError;

    /// Reads what MySQL writes, where servers may stand on lines of their own. Intervals may be in any order, and may overlap.
    fn from_str(text: &str) -> Result<Self, TypeError> {
        let bad = || TypeError::InvalidText {
            type_name: "gtid set".to_owned(),
            text: text.to_owned(),
        };
        let mut set = Self::default();
        if text.trim().is_empty() {
            return Ok(set);
        }
        for part in text.split(',') {
            let (server, intervals) = part.trim().split_once(':').ok_or_else(bad)?;
            // Of the forms that are read as a UUID, only the one with hyphens has this length.
            if server.len() != 36 {
                return Err(bad());
            }
            let server = Uuid::try_parse(server).map_err(|_| bad())?;
            for interval in intervals.split(':') {
                let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
                let first = decimal(first).ok_or_else(bad)?;
                let last = decimal(last).ok_or_else(bad)?;
                set.add(server, first..=last).map_err(|_| bad())?;
            }
        }
        Ok(set)
    }
}
