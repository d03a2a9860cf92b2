//! Where a source stands in its upstream, whatever the upstream counts in.
//!
//! Owns the kinds of positions, their partial order, and their forms as bytes and as text. Must not know how an upstream is read.
//! Called by `ingest`, where each connector makes and reads positions of its own kind. Everyone else compares, joins, stores and shows them only.
//!
//! Invariants. Equal positions have equal bytes and equal text. The first byte of the encoding is its version: bytes that were written once are read for
//! ever. What is not an encoding is an error, whatever it is.

mod compact;
mod gtid_set;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::TypeError;
use compact::{Reader, put_count, put_number, put_signed};

pub use gtid_set::GtidSet;

/// Version of the encoding.
const VERSION: u8 = 1;

/// A position in an upstream: everything up to it was read.
///
/// Positions of one kind are partially ordered by [`SourcePosition::covers`], and any two of them have a least upper bound, [`SourcePosition::join`].
/// Positions of different kinds have nothing to do with each other: neither covers the other, and they have no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcePosition {
    /// PostgreSQL: a place in the write-ahead log. Text: `0/16B3748`.
    PostgresLsn(u64),
    /// Load generators: how many ticks there were. Text: `tick 42`.
    GeneratorTick(u64),
    /// MySQL: the transactions that were read. Text: the server's own, `3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7`.
    MySqlGtidSet(GtidSet),
    /// SQL Server: a log sequence number as the server has it, most significant byte first. Text: `0x00000027000001F80003`.
    SqlServerLsn([u8; 10]),
    /// Kafka: the next offset of each partition. A partition that is not named was not heard of, which is less than to be at its offset 0. Text:
    /// `{0:17,1:42}`.
    KafkaOffsets(BTreeMap<i32, i64>),
    /// Webhooks: how many requests there were. Text: `sequence 42`.
    WebhookSequence(u64),
}

/// Why bytes are not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A later release wrote them.
    #[error("source position has format version {found}, this version reads up to {known}")]
    Newer {
        /// Their version.
        found: u8,
        /// The newest version known here.
        known: u8,
    },
    /// They are not as they were written.
    #[error("source position is damaged: {0}")]
    Damaged(&'static str),
}

impl SourcePosition {
    /// Whether everything that is read at `other` is read here as well. Never between positions of different kinds.
    ///
    /// A partial order: two positions that cover each other are equal.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::PostgresLsn(here), Self::PostgresLsn(there))
            | (Self::GeneratorTick(here), Self::GeneratorTick(there))
            | (Self::WebhookSequence(here), Self::WebhookSequence(there)) => here >= there,
            (Self::MySqlGtidSet(here), Self::MySqlGtidSet(there)) => here.includes(there),
            (Self::SqlServerLsn(here), Self::SqlServerLsn(there)) => here >= there,
            (Self::KafkaOffsets(here), Self::KafkaOffsets(there)) => {
                there.iter().all(|(partition, offset)| {
                    here.get(partition).is_some_and(|reached| reached >= offset)
                })
            }
            (
                Self::PostgresLsn(_)
                | Self::GeneratorTick(_)
                | Self::MySqlGtidSet(_)
                | Self::SqlServerLsn(_)
                | Self::KafkaOffsets(_)
                | Self::WebhookSequence(_),
                _,
            ) => false,
        }
    }

    /// The least position that covers both; `None` if they are of different kinds.
    #[must_use]
    pub fn join(&self, other: &Self) -> Option<Self> {
        Some(match (self, other) {
            (Self::PostgresLsn(left), Self::PostgresLsn(right)) => {
                Self::PostgresLsn(*left.max(right))
            }
            (Self::GeneratorTick(left), Self::GeneratorTick(right)) => {
                Self::GeneratorTick(*left.max(right))
            }
            (Self::MySqlGtidSet(left), Self::MySqlGtidSet(right)) => {
                Self::MySqlGtidSet(left.union(right))
            }
            (Self::SqlServerLsn(left), Self::SqlServerLsn(right)) => {
                Self::SqlServerLsn(*left.max(right))
            }
            (Self::KafkaOffsets(left), Self::KafkaOffsets(right)) => {
                let mut joined = left.clone();
                for (partition, offset) in right {
                    let reached = joined.entry(*partition).or_insert(*offset);
                    *reached = (*reached).max(*offset);
                }
                Self::KafkaOffsets(joined)
            }
            (Self::WebhookSequence(left), Self::WebhookSequence(right)) => {
                Self::WebhookSequence(*left.max(right))
            }
            (
                Self::PostgresLsn(_)
                | Self::GeneratorTick(_)
                | Self::MySqlGtidSet(_)
                | Self::SqlServerLsn(_)
                | Self::KafkaOffsets(_)
                | Self::WebhookSequence(_),
                _,
            ) => return None,
        })
    }

    /// Whether both are of one kind.
    #[must_use]
    pub fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// The position as one number, as `mz_source_statistics` shows it: an LSN, a number of ticks or requests; of MySQL how many transactions, of Kafka the sum
    /// over partitions, of SQL Server the LSN without its last two bytes, which number the records of a block.
    ///
    /// For people: of two positions the one that covers the other has no smaller number, and more than that it does not say. Sums stop at `u64::MAX`.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::PostgresLsn(number)
            | Self::GeneratorTick(number)
            | Self::WebhookSequence(number) => *number,
            Self::MySqlGtidSet(set) => set.count(),
            Self::SqlServerLsn([place @ .., _, _]) => u64::from_be_bytes(*place),
            Self::KafkaOffsets(offsets) => offsets
                .values()
                .map(|offset| u64::try_from(*offset).unwrap_or(0))
                .fold(0, u64::saturating_add),
        }
    }

    /// The position as bytes: a version, the kind, and what it holds. A number takes as many bytes as it needs.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.tag()];
        match self {
            Self::PostgresLsn(number)
            | Self::GeneratorTick(number)
            | Self::WebhookSequence(number) => put_number(&mut out, *number),
            Self::MySqlGtidSet(set) => set.encode(&mut out),
            Self::SqlServerLsn(lsn) => out.extend_from_slice(lsn),
            Self::KafkaOffsets(offsets) => {
                put_count(&mut out, offsets.len());
                for (partition, offset) in offsets {
                    put_signed(&mut out, i64::from(*partition));
                    put_signed(&mut out, *offset);
                }
            }
        }
        out
    }

    /// What stands for the kind in the encoding; never given to another one.
    const fn tag(&self) -> u8 {
        match self {
            Self::PostgresLsn(_) => 0,
            Self::GeneratorTick(_) => 1,
            Self::MySqlGtidSet(_) => 2,
            Self::SqlServerLsn(_) => 3,
            Self::KafkaOffsets(_) => 4,
            Self::WebhookSequence(_) => 5,
        }
    }

    /// Reads what [`SourcePosition::encode`] wrote, here or in an earlier release.
    ///
    /// # Errors
    /// [`DecodeError`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            0 => return Err(DecodeError::Damaged("it has no version")),
            VERSION => {}
            found => {
                return Err(DecodeError::Newer {
                    found,
                    known: VERSION,
                });
            }
        }
        let position = match reader.byte()? {
            0 => Self::PostgresLsn(reader.number()?),
            1 => Self::GeneratorTick(reader.number()?),
            2 => Self::MySqlGtidSet(GtidSet::decode(&mut reader)?),
            3 => Self::SqlServerLsn(reader.array()?),
            4 => Self::KafkaOffsets(decode_offsets(&mut reader)?),
            5 => Self::WebhookSequence(reader.number()?),
            _ => return Err(DecodeError::Damaged("it is of no known kind")),
        };
        reader.end()?;
        Ok(position)
    }
}

fn decode_offsets(reader: &mut Reader<'_>) -> Result<BTreeMap<i32, i64>, DecodeError> {
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    for _ in 0..reader.number()? {
        let partition = i32::try_from(reader.signed()?)
            .map_err(|_| DecodeError::Damaged("a partition is out of range"))?;
        let before = offsets.last_key_value().map(|(before, _)| *before);
        if before.is_some_and(|before| before >= partition) {
            return Err(DecodeError::Damaged("its partitions are out of order"));
        }
        offsets.insert(partition, reader.signed()?);
    }
    Ok(offsets)
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PostgresLsn(lsn) => {
                write!(f, "{:X}/{:X}", lsn >> 32, lsn & u64::from(u32::MAX))
            }
            Self::GeneratorTick(ticks) => write!(f, "{TICK}{ticks}"),
            Self::MySqlGtidSet(set) => set.fmt(f),
            Self::SqlServerLsn(lsn) => {
                f.write_str(HEX)?;
                lsn.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
            }
            Self::KafkaOffsets(offsets) => {
                let mut before = "{";
                for (partition, offset) in offsets {
                    write!(f, "{before}{partition}:{offset}")?;
                    before = ",";
                }
                f.write_str(if offsets.is_empty() { "{}" } else { "}" })
            }
            Self::WebhookSequence(requests) => write!(f, "{SEQUENCE}{requests}"),
        }
    }
}

/// What the text of a position begins with, where it says the kind.
const TICK: &str = "tick ";
const SEQUENCE: &str = "sequence ";
const HEX: &str = "0x";

impl FromStr for SourcePosition {
    type Err = TypeError;

    /// Reads what `Display` writes: what stands in it tells the kind. Text that begins like no other is a set of GTIDs.
    fn from_str(text: &str) -> Result<Self, TypeError> {
        let read = if let Some(ticks) = text.strip_prefix(TICK) {
            decimal(ticks).map(Self::GeneratorTick)
        } else if let Some(requests) = text.strip_prefix(SEQUENCE) {
            decimal(requests).map(Self::WebhookSequence)
        } else if let Some(lsn) = text.strip_prefix(HEX) {
            let mut bytes = [0; 10];
            let read = hex::decode_to_slice(lsn, &mut bytes).ok();
            read.map(|()| Self::SqlServerLsn(bytes))
        } else if let Some(offsets) = text.strip_prefix('{') {
            offsets_of(offsets).map(Self::KafkaOffsets)
        } else if let Some((high, low)) = text.split_once('/') {
            lsn_of(high, low).map(Self::PostgresLsn)
        } else {
            text.parse().ok().map(Self::MySqlGtidSet)
        };
        read.ok_or_else(|| TypeError::InvalidText {
            type_name: "source position".to_owned(),
            text: text.to_owned(),
        })
    }
}

/// A number without a sign.
fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// An LSN from its two halves.
fn lsn_of(high: &str, low: &str) -> Option<u64> {
    Some((half(high)? << 32) | half(low)?)
}

fn half(text: &str) -> Option<u64> {
    let digits = text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Offsets of partitions, after the brace that opens them.
fn offsets_of(text: &str) -> Option<BTreeMap<i32, i64>> {
    let text = text.strip_suffix('}')?;
    let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
    if text.is_empty() {
        return Some(offsets);
    }
    for part in text.split(',') {
        let (partition, offset) = part.split_once(':')?;
        if part.contains('+')
            || offsets
                .insert(partition.parse().ok()?, offset.parse().ok()?)
                .is_some()
        {
            return None;
        }
    }
    Some(offsets)
}

impl Serialize for SourcePosition {
    /// As text where people read it, else as [`SourcePosition::encode`].
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.encode())
        }
    }
}

impl<'de> Deserialize<'de> for SourcePosition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(PositionVisitor)
        } else {
            deserializer.deserialize_bytes(PositionVisitor)
        }
    }
}

struct PositionVisitor;

impl Visitor<'_> for PositionVisitor {
    type Value = SourcePosition;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source position")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SourcePosition, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<SourcePosition, E> {
        SourcePosition::decode(bytes).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests;
