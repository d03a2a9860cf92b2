//! Where the parts of a change stand among the columns that a decoder makes of envelopes: both images of the row, and what is said about the change.
//!
//! Must not know formats. Called by the decoders that read envelopes, and by [`super::debezium`].

use flowstone_types::SqlType;

use crate::relation::{Column, Relation};

/// What an envelope says beside the images of the row. Debezium's words, and CockroachDB's where it has others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Whether there is an image after the change.
    AfterPresent,
    /// Whether there is one before it.
    BeforePresent,
    /// `op`: `c`, `u`, `d`, `r`, `t`, `m`.
    Op,
    /// `source.name`: the connector, by the prefix of its topics.
    Name,
    /// `source.db`: the database.
    Db,
    /// `source.snapshot`: `false`, or which part of a snapshot.
    Snapshot,
    /// `source.file`: MySQL's binary log.
    File,
    /// `source.pos`
    Pos,
    /// `source.row`
    Row,
    /// `source.gtid`: the transaction, if MySQL or MariaDB numbers them.
    Gtid,
    /// `source.sequence`: a JSON text of the places of PostgreSQL's last commit and of the event.
    Sequence,
    /// `source.change_lsn`: SQL Server's.
    ChangeLsn,
    /// `source.commit_lsn`
    CommitLsn,
    /// `source.event_serial_no`
    EventSerialNo,
    /// `resolved`: everything up to this time was said.
    Resolved,
}

impl Note {
    /// All of them, in the order of their columns.
    pub const ALL: [Self; 15] = [
        Self::AfterPresent,
        Self::BeforePresent,
        Self::Op,
        Self::Name,
        Self::Db,
        Self::Snapshot,
        Self::File,
        Self::Pos,
        Self::Row,
        Self::Gtid,
        Self::Sequence,
        Self::ChangeLsn,
        Self::CommitLsn,
        Self::EventSerialNo,
        Self::Resolved,
    ];

    /// Those that are fields of `source`.
    pub(crate) const SOURCE: [Self; 11] = [
        Self::Name,
        Self::Db,
        Self::Snapshot,
        Self::File,
        Self::Pos,
        Self::Row,
        Self::Gtid,
        Self::Sequence,
        Self::ChangeLsn,
        Self::CommitLsn,
        Self::EventSerialNo,
    ];

    const fn offset(self) -> usize {
        match self {
            Self::AfterPresent => 0,
            Self::BeforePresent => 1,
            Self::Op => 2,
            Self::Name => 3,
            Self::Db => 4,
            Self::Snapshot => 5,
            Self::File => 6,
            Self::Pos => 7,
            Self::Row => 8,
            Self::Gtid => 9,
            Self::Sequence => 10,
            Self::ChangeLsn => 11,
            Self::CommitLsn => 12,
            Self::EventSerialNo => 13,
            Self::Resolved => 14,
        }
    }

    /// The name of its field.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AfterPresent => "after",
            Self::BeforePresent => "before",
            Self::Op => "op",
            Self::Name => "name",
            Self::Db => "db",
            Self::Snapshot => "snapshot",
            Self::File => "file",
            Self::Pos => "pos",
            Self::Row => "row",
            Self::Gtid => "gtid",
            Self::Sequence => "sequence",
            Self::ChangeLsn => "change_lsn",
            Self::CommitLsn => "commit_lsn",
            Self::EventSerialNo => "event_serial_no",
            Self::Resolved => "resolved",
        }
    }

    /// The type of its column.
    #[must_use]
    pub const fn sql_type(self) -> SqlType {
        match self {
            Self::AfterPresent | Self::BeforePresent => SqlType::Bool,
            Self::Op
            | Self::Name
            | Self::Db
            | Self::Snapshot
            | Self::File
            | Self::Gtid
            | Self::Sequence
            | Self::ChangeLsn
            | Self::CommitLsn
            | Self::Resolved => SqlType::Text,
            Self::Pos | Self::Row | Self::EventSerialNo => SqlType::Int8,
        }
    }
}

/// The columns of an envelope: the image after the change, the one before it, the notes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeLayout {
    row: Relation,
}

impl ChangeLayout {
    /// The layout of changes of rows of this relation.
    #[must_use]
    pub const fn new(row: Relation) -> Self {
        Self { row }
    }

    /// The relation whose rows change.
    #[must_use]
    pub const fn row(&self) -> &Relation {
        &self.row
    }

    /// Where a column of the image after the change is.
    #[must_use]
    pub const fn after(&self, column: usize) -> usize {
        column
    }

    /// Where a column of the image before it is.
    #[must_use]
    pub fn before(&self, column: usize) -> usize {
        self.row.columns.len() + column
    }

    /// Where a note is.
    #[must_use]
    pub fn note(&self, note: Note) -> usize {
        2 * self.row.columns.len() + note.offset()
    }

    /// All columns. Each may be NULL, since each image may be missing.
    #[must_use]
    pub fn physical(&self) -> Relation {
        let image = || {
            self.row
                .columns
                .iter()
                .map(|column| Column::new(&column.name, column.sql_type.clone(), true))
        };
        let notes = Note::ALL
            .iter()
            .map(|note| Column::new(note.name(), note.sql_type(), true));
        Relation::new(image().chain(image()).chain(notes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_has_a_column_of_its_own() {
        let layout = ChangeLayout::new(Relation::of_one("a", SqlType::Int4));
        let physical = layout.physical();
        for note in Note::ALL {
            let column = &physical.columns[layout.note(note)];
            assert_eq!(
                (column.name.as_str(), &column.sql_type),
                (note.name(), &note.sql_type())
            );
        }
        assert_eq!(physical.columns.len(), layout.note(Note::Resolved) + 1);
    }
}
