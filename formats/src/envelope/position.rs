//! Where an event stands in the log of the database it is from, so that what a connector sends again after a restart can be told.
//!
//! Must not know how positions are kept over restarts of ours: [`Watermarks`] are a value. Called by sources of Debezium's topics.
//!
//! A connector that restarts repeats events it had sent, in their old order, and goes on. For a table with a key that is harmless, since upserts may be
//! repeated; for one without, repeated insertions would be counted twice.
//!
//! Invariants. Connectors send transactions in the order of their commits, so a position is one in that order: where a row was written is none, since of
//! two transactions at once the one that begins first may end last. What has no such order to what came before counts as new: a row too many after a
//! restart is told by the next count, a row that was dropped by nothing. Connectors whose topics were routed into one know nothing of each other: positions are
//! compared within an [`Origin`] only.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};

use super::layout::{ChangeLayout, Note};
use crate::rows::Decoded;

/// Origins that are told apart. There are as many as connectors, or databases of theirs, that write to one topic.
const ORIGINS_MAX: usize = 256;

/// Whose log a position is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The connector, if events name it.
    connector: Option<String>,
    /// The database, of servers that have a log for each of them.
    database: Option<String>,
}

impl Origin {
    /// The origin of a row of decoded envelopes that stands there.
    #[must_use]
    pub fn of(
        layout: &ChangeLayout,
        decoded: &Decoded,
        row: usize,
        position: &EventPosition,
    ) -> Self {
        let text = |note| {
            let column = decoded.columns.get(layout.note(note))?;
            text_at(column, row).map(str::to_owned)
        };
        Self {
            connector: text(Note::Name),
            database: match position {
                EventPosition::SqlServer { .. } => text(Note::Db),
                // The log is that of the server, whose tables may be in several databases.
                EventPosition::MySql { .. } => None,
                // A connector reads one database.
                EventPosition::Postgres { .. } => None,
            },
        }
    }
}

/// Where an event stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventPosition {
    /// A binary log, a place in it, and the row of the event there. The log is written in the order of commits.
    MySql {
        /// The transaction, of servers that number them.
        gtid: Option<String>,
        /// The name of the log.
        file: String,
        /// The place.
        pos: i64,
        /// The row.
        row: i64,
    },
    /// Places in the write-ahead log. Rows that were inserted together have the same ones.
    Postgres {
        /// Where the transaction before ended: that of each is greater. `None` in the first one that a connector sees.
        commit: Option<i64>,
        /// Where the row was written, which grows within a transaction only.
        lsn: i64,
    },
    /// Log sequence numbers, as the server writes them (digits in groups of fixed width), and the event there.
    SqlServer {
        /// That of the commit.
        commit_lsn: String,
        /// That of the change. It mostly grows within a transaction.
        change_lsn: String,
        /// Which of the events of the change. Db2 and Informix do not say it.
        event_serial_no: Option<i64>,
    },
}

impl EventPosition {
    /// The position of a row of decoded envelopes, if it says one that we know.
    ///
    /// Connectors for PostgreSQL before Debezium 1.7 say the `lsn` alone, without a `sequence`: that is no position.
    #[must_use]
    pub fn of(layout: &ChangeLayout, decoded: &Decoded, row: usize) -> Option<Self> {
        let column = |note| decoded.columns.get(layout.note(note));
        let number = |note| number_at(column(note)?, row);
        let text = |note| text_at(column(note)?, row);
        if let (Some(file), Some(pos)) = (text(Note::File), number(Note::Pos)) {
            let row = number(Note::Row).unwrap_or(0);
            return Some(Self::MySql {
                gtid: text(Note::Gtid).map(str::to_owned),
                file: file.to_owned(),
                pos,
                row,
            });
        }
        if let Some(change_lsn) = text(Note::ChangeLsn) {
            return Some(Self::SqlServer {
                commit_lsn: text(Note::CommitLsn)?.to_owned(),
                change_lsn: change_lsn.to_owned(),
                event_serial_no: number(Note::EventSerialNo),
            });
        }
        Self::of_sequence(text(Note::Sequence)?)
    }

    /// `["23099816","23099872"]`, or `[null,"23099560"]`.
    fn of_sequence(sequence: &str) -> Option<Self> {
        let (commit, lsn): (Option<&str>, &str) = serde_json::from_str(sequence).ok()?;
        let commit = commit.map(str::parse::<i64>).transpose().ok()?;
        Some(Self::Postgres {
            commit,
            lsn: lsn.parse().ok()?,
        })
    }

    /// The order of two positions of one kind. `None` if it is not known, of different kinds too: another connector has taken over then.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (
                Self::MySql {
                    gtid,
                    file,
                    pos,
                    row,
                },
                Self::MySql {
                    gtid: other_gtid,
                    file: other_file,
                    pos: other_pos,
                    row: other_row,
                },
            ) => {
                // `binlog.999999` comes before `binlog.1000000`. Logs of another base name are of another server.
                let (base, number) = log_number(file)?;
                let (other_base, other_number) = log_number(other_file)?;
                if base != other_base {
                    return None;
                }
                let place = (number, pos, row).cmp(&(other_number, other_pos, other_row));
                match (gtid, other_gtid) {
                    (None, None) => Some(place),
                    (Some(gtid), Some(other)) => of_transactions(gtid, other, place),
                    _ => None,
                }
            }
            (
                Self::Postgres { commit, lsn },
                Self::Postgres {
                    commit: other_commit,
                    lsn: other_lsn,
                },
            ) => match (commit, other_commit) {
                (Some(commit), Some(other_commit)) => {
                    Some((commit, lsn).cmp(&(other_commit, other_lsn)))
                }
                // Of the first transaction, which knows of no other, the watermark knows more.
                _ => None,
            },
            (
                Self::SqlServer {
                    commit_lsn,
                    change_lsn,
                    event_serial_no,
                },
                Self::SqlServer {
                    commit_lsn: other_commit,
                    change_lsn: other_change,
                    event_serial_no: other_no,
                },
            ) => match in_digits(commit_lsn, other_commit)? {
                Ordering::Equal => match in_digits(change_lsn, other_change)? {
                    Ordering::Equal => (event_serial_no.is_some() == other_no.is_some())
                        .then(|| event_serial_no.cmp(other_no)),
                    Ordering::Greater => Some(Ordering::Greater),
                    // Debezium sees such steps back in transactions that are sent for the first time.
                    Ordering::Less => None,
                },
                order => Some(order),
            },
            (Self::MySql { .. } | Self::Postgres { .. } | Self::SqlServer { .. }, _) => None,
        }
    }

    /// Whether two events of one operation never have the same position.
    const fn is_unique(&self) -> bool {
        match self {
            Self::MySql { .. } => true,
            Self::SqlServer {
                event_serial_no, ..
            } => event_serial_no.is_some(),
            Self::Postgres { .. } => false,
        }
    }
}

/// The order of events of two transactions whose `place` in the log compares so.
///
/// A server that takes over numbers its logs as it likes, a log that is compressed counts its places anew in every transaction, and numbers of transactions
/// may be written out of order by replicas: so an event comes before another one only if both say so.
fn of_transactions(gtid: &str, other: &str, place: Ordering) -> Option<Ordering> {
    let (origin, number) = transaction_number(gtid)?;
    let (other_origin, other_number) = transaction_number(other)?;
    if origin != other_origin {
        return None;
    }
    match (number.cmp(&other_number), place) {
        (Ordering::Equal, place) => Some(place),
        (Ordering::Greater, _) => Some(Ordering::Greater),
        (Ordering::Less, Ordering::Greater) => None,
        (Ordering::Less, _) => Some(Ordering::Less),
    }
}

/// Whose transaction it is, and which: `8f73c210-eba6-11f1-a9ed-02fc00000001:78` of MySQL, `0-1-78` of MariaDB.
fn transaction_number(gtid: &str) -> Option<(&str, u64)> {
    let (origin, number) = gtid.rsplit_once(':').or_else(|| gtid.rsplit_once('-'))?;
    Some((origin, number.parse().ok()?))
}

fn log_number(file: &str) -> Option<(&str, u64)> {
    let (base, number) = file.rsplit_once('.')?;
    Some((base, number.parse().ok()?))
}

/// The order of numbers that are written with the same number of digits.
fn in_digits(here: &str, there: &str) -> Option<Ordering> {
    (here.len() == there.len()).then(|| here.cmp(there))
}

fn number_at(array: &ArrayRef, row: usize) -> Option<i64> {
    let values = array.as_primitive_opt::<Int64Type>()?;
    (row < values.len() && values.is_valid(row)).then(|| values.value(row))
}

fn text_at(array: &ArrayRef, row: usize) -> Option<&str> {
    let values = array.as_string_opt::<i32>()?;
    (row < values.len() && values.is_valid(row)).then(|| values.value(row))
}

/// How far one partition of a topic has got. Rows of a snapshot have the position at which it was taken and are not shown to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    by_origin: BTreeMap<Origin, Watermark>,
}

impl Watermarks {
    /// Whether an event of this operation is new; if so it is remembered.
    pub fn admit(&mut self, origin: Origin, position: &EventPosition, op: &str) -> bool {
        if self.by_origin.len() >= ORIGINS_MAX && !self.by_origin.contains_key(&origin) {
            // What is not known counts as new.
            self.by_origin.clear();
        }
        let watermark = self.by_origin.entry(origin).or_default();
        watermark.admit(position, op)
    }

    /// A connector begins anew, maybe with another server, of whose log nothing was seen.
    pub fn begin_anew(&mut self, connector: Option<&str>) {
        self.by_origin
            .retain(|origin, _| origin.connector.as_deref() != connector);
    }
}

/// How far one log has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Watermark {
    last: Option<EventPosition>,
    /// The operations seen there: an update of a key is a deletion and a creation at one place.
    ops: Vec<String>,
    /// The first and the last place of the first transaction that a connector for PostgreSQL saw.
    beginning: Option<(i64, i64)>,
}

impl Watermark {
    /// Whether an event of this operation is new; if so it is remembered.
    ///
    /// What stands before an event that was seen is not new, nor is the same operation at the same place. PostgreSQL's events share places: there a
    /// repetition of the very last ones is not told.
    fn admit(&mut self, position: &EventPosition, op: &str) -> bool {
        let order = match position {
            EventPosition::Postgres { commit: None, lsn } => self.order_in_beginning(*lsn),
            _ => self.last.as_ref().and_then(|last| position.compare(last)),
        };
        let seen = || self.ops.iter().any(|seen| seen == op);
        let is_new = match order {
            None | Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => !position.is_unique() || !seen(),
            Some(Ordering::Less) => false,
        };
        if !is_new {
            return false;
        }
        if let EventPosition::Postgres { commit: None, lsn } = position {
            let known = self.beginning.filter(|_| order.is_some());
            self.beginning = Some(known.map_or((*lsn, *lsn), |(first, _)| (first, *lsn)));
        }
        if order != Some(Ordering::Equal) {
            self.last = Some(position.clone());
            self.ops.clear();
        }
        if !self.ops.iter().any(|seen| seen == op) {
            self.ops.push(op.to_owned());
        }
        true
    }

    /// The order of an event of the first transaction that a connector for PostgreSQL sees, to the last event. `None` if it is none that we know of: a
    /// connector has begun anew, maybe with another server.
    fn order_in_beginning(&self, lsn: i64) -> Option<Ordering> {
        let (first, last) = self.beginning?;
        let is_over = !matches!(
            self.last,
            Some(EventPosition::Postgres { commit: None, .. })
        );
        if lsn < first {
            return None;
        }
        match lsn.cmp(&last) {
            Ordering::Less => Some(Ordering::Less),
            Ordering::Equal if is_over => Some(Ordering::Less),
            Ordering::Greater if is_over => None,
            order => Some(order),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mysql(file: &str, pos: i64, row: i64) -> EventPosition {
        EventPosition::MySql {
            gtid: None,
            file: file.to_owned(),
            pos,
            row,
        }
    }

    fn postgres(sequence: &str) -> EventPosition {
        EventPosition::of_sequence(sequence).unwrap()
    }

    #[test]
    fn connectors_that_write_to_one_topic_know_nothing_of_each_other() {
        let of = |connector: &str, database: Option<&str>| Origin {
            connector: Some(connector.to_owned()),
            database: database.map(str::to_owned),
        };
        let (far, near) = (mysql("b.000009", 4, 0), mysql("b.000001", 4, 0));
        let mut watermarks = Watermarks::default();
        assert!(watermarks.admit(of("one", None), &far, "c"));
        // Earlier in a log of the same name, of another server.
        assert!(watermarks.admit(of("two", None), &near, "c"));
        for (connector, position) in [("one", &far), ("two", &near), ("one", &near)] {
            assert!(!watermarks.admit(of(connector, None), position, "c"));
        }
        // Databases with a log for each.
        for database in ["a", "b"] {
            let position = EventPosition::SqlServer {
                commit_lsn: "01".to_owned(),
                change_lsn: "01".to_owned(),
                event_serial_no: Some(1),
            };
            for is_new in [true, false] {
                let origin = of("three", Some(database));
                assert_eq!(watermarks.admit(origin, &position, "c"), is_new);
            }
        }
        watermarks.begin_anew(Some("one"));
        assert!(watermarks.admit(of("one", None), &near, "c"));
        assert!(!watermarks.admit(of("two", None), &near, "c"));
        for number in 0..ORIGINS_MAX {
            assert!(watermarks.admit(of(&number.to_string(), None), &near, "c"));
        }
        assert!(watermarks.by_origin.len() <= ORIGINS_MAX);
    }

    #[test]
    fn what_is_sent_again_is_told() {
        let mut watermark = Watermark::default();
        assert!(watermark.admit(&mysql("b.999999", 4, 0), "c"));
        assert!(watermark.admit(&mysql("b.999999", 4, 1), "c"));
        assert!(!watermark.admit(&mysql("b.999999", 4, 1), "c"));
        // An update of a key.
        assert!(watermark.admit(&mysql("b.999999", 9, 0), "d"));
        assert!(watermark.admit(&mysql("b.999999", 9, 0), "c"));
        assert!(!watermark.admit(&mysql("b.999999", 9, 0), "d"));
        assert!(watermark.admit(&mysql("b.1000000", 4, 0), "c"));
        assert!(!watermark.admit(&mysql("b.999999", 900, 0), "c"));
        // Another server.
        assert!(watermark.admit(&mysql("c.000001", 4, 0), "c"));
    }

    #[test]
    fn a_numbered_transaction_is_old_only_if_its_place_is() {
        let at = |gtid: &str, file: &str, pos| EventPosition::MySql {
            gtid: Some(gtid.to_owned()),
            file: file.to_owned(),
            pos,
            row: 0,
        };
        let mut watermark = Watermark::default();
        assert!(watermark.admit(&at("a:7", "b.000009", 4), "c"));
        assert!(watermark.admit(&at("a:8", "b.000009", 90), "c"));
        assert!(!watermark.admit(&at("a:7", "b.000009", 4), "c"));
        assert!(!watermark.admit(&at("a:8", "b.000009", 90), "c"));
        // A compressed transaction counts its places anew.
        assert!(watermark.admit(&at("a:9", "b.000009", 4), "c"));
        assert!(watermark.admit(&at("a:10", "b.000009", 4), "c"));
        // Another server takes over, whose logs have lower numbers, and then numbers transactions of its own.
        assert!(watermark.admit(&at("a:11", "b.000002", 4), "c"));
        assert!(watermark.admit(&at("z:1", "b.000001", 4), "c"));
        // A replica that commits out of order.
        assert!(watermark.admit(&at("z:3", "b.000001", 8), "c"));
        assert!(watermark.admit(&at("z:2", "b.000001", 9), "c"));
        // MariaDB.
        assert!(watermark.admit(&at("0-1-5", "b.000001", 9), "c"));
        assert!(!watermark.admit(&at("0-1-4", "b.000001", 8), "c"));
    }

    #[test]
    fn rows_inserted_together_share_a_place() {
        let mut watermark = Watermark::default();
        assert!(watermark.admit(&postgres(r#"["5","7"]"#), "c"));
        assert!(watermark.admit(&postgres(r#"["5","7"]"#), "c"));
        assert!(!watermark.admit(&postgres(r#"["5","6"]"#), "c"));
    }

    #[test]
    fn a_transaction_that_begins_first_and_ends_last_is_not_dropped() {
        let mut watermark = Watermark::default();
        assert!(watermark.admit(&postgres(r#"["10","30"]"#), "c"));
        // It wrote at 20, while the other was running, and was committed after that.
        assert!(watermark.admit(&postgres(r#"["40","20"]"#), "c"));
        assert!(watermark.admit(&postgres(r#"["40","45"]"#), "c"));
        // All of it again.
        for sequence in [r#"["10","30"]"#, r#"["40","20"]"#] {
            assert!(!watermark.admit(&postgres(sequence), "c"), "{sequence}");
        }
        assert!(watermark.admit(&postgres(r#"["50","48"]"#), "c"));
        for sequence in ["", "[]", r#"["x","1"]"#, r#"["1",null]"#, "null"] {
            assert_eq!(EventPosition::of_sequence(sequence), None, "{sequence}");
        }
    }

    #[test]
    fn the_first_transaction_of_a_connector_is_told_when_it_is_sent_again() {
        let mut watermark = Watermark::default();
        for sequence in [r#"[null,"20"]"#, r#"[null,"25"]"#, r#"["30","22"]"#] {
            assert!(watermark.admit(&postgres(sequence), "c"), "{sequence}");
        }
        for sequence in [r#"[null,"20"]"#, r#"[null,"25"]"#] {
            assert!(!watermark.admit(&postgres(sequence), "c"), "{sequence}");
        }
        assert!(watermark.admit(&postgres(r#"["30","22"]"#), "c"));
        assert!(watermark.admit(&postgres(r#"["35","33"]"#), "c"));
        // Another connector, with a server whose log is shorter.
        assert!(watermark.admit(&postgres(r#"[null,"4"]"#), "c"));
        assert!(watermark.admit(&postgres(r#"["5","6"]"#), "c"));
        assert!(!watermark.admit(&postgres(r#"[null,"4"]"#), "c"));
    }

    #[test]
    fn events_of_sql_server_are_told_by_their_commit_and_number() {
        let at = |commit: &str, change: &str, event_serial_no| EventPosition::SqlServer {
            commit_lsn: format!("00000027:{commit}:0002"),
            change_lsn: format!("00000027:{change}:0002"),
            event_serial_no,
        };
        let mut watermark = Watermark::default();
        assert!(watermark.admit(&at("00000ac9", "00000ac0", Some(1)), "c"));
        assert!(watermark.admit(&at("00000ac9", "00000ac0", Some(2)), "c"));
        assert!(!watermark.admit(&at("00000ac9", "00000ac0", Some(1)), "c"));
        // It changed rows before the other did, and was committed after it.
        assert!(watermark.admit(&at("00000acc", "00000aa0", Some(1)), "c"));
        assert!(!watermark.admit(&at("00000ac9", "00000ac0", Some(2)), "c"));
        // A step back within a transaction is no repetition.
        assert!(watermark.admit(&at("00000acc", "00000a90", Some(1)), "c"));
        // Without numbers events of one change are not told apart.
        assert!(watermark.admit(&at("00000acd", "00000aa0", None), "c"));
        assert!(watermark.admit(&at("00000acd", "00000aa0", None), "c"));
        // Numbers of another width.
        assert!(watermark.admit(&at("ac", "aa", Some(1)), "c"));
    }
}
