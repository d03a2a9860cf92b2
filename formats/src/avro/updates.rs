//! Messages that are a batch of updates with times, or a statement of progress: a union of both.
//!
//! Owns how they are read. Must not know what follows from them ([`crate::envelope::updates`]). Called by [`super::AvroDecoder`].

use super::program::Program;
use super::resolve::resolve_part;
use super::schema::{Kind, NodeId, Schema};
use super::shape::{Shape, UpdateNodes, update_nodes};
use super::wire::Cursor;
use crate::envelope::updates::{END, Progress};
use crate::error::{Error, Fault};
use crate::rows::{Limits, Rows};

/// How messages of one schema are read.
#[derive(Debug)]
pub(crate) struct UpdatesProgram {
    /// How one update is read.
    update: Program,
    nodes: UpdateNodes,
    /// How many branches the union has.
    branches: usize,
    statement: Vec<StatementField>,
}

/// A field of a statement of progress, in the order of the writer.
#[derive(Debug)]
enum StatementField {
    Lower,
    Upper,
    Counts(Vec<CountField>),
    Skip(NodeId),
}

/// A field of a count, in the order of the writer.
#[derive(Debug)]
enum CountField {
    Time,
    Count,
    Skip(NodeId),
}

impl UpdatesProgram {
    /// Resolves the schema of messages against the one they are read with.
    ///
    /// # Errors
    /// [`Error::Definition`] if one of them is none of updates and progress, or no update could be read.
    pub(crate) fn resolve(writer: Schema, reader: &Schema, shape: &Shape) -> Result<Self, Error> {
        let nodes = update_nodes(&writer)?;
        let to = update_nodes(reader)?;
        let branches = writer.branches(writer.root()).len();
        let statement = statement_fields(&writer, nodes.statement);
        let update = resolve_part(writer, nodes.update, reader, to.update, shape)?;
        Ok(Self {
            update,
            nodes,
            branches,
            statement,
        })
    }

    /// Reads the payload `index`: its updates become rows, and what it states of progress is returned.
    pub(crate) fn run(
        &self,
        index: u32,
        message: &[u8],
        limits: Limits,
        rows: &mut Rows,
    ) -> Result<Option<Progress>, Fault> {
        let mut cursor = Cursor::new(message, limits);
        let branch = cursor.index(self.branches)?;
        let stated = if branch == self.nodes.updates {
            while let Some((count, _)) = cursor.block()? {
                for _ in 0..count {
                    cursor.item()?;
                    self.update.read(&mut cursor, rows.columns())?;
                    rows.end_row(index)?;
                }
            }
            None
        } else if branch == self.nodes.progress {
            Some(self.progress(&mut cursor)?)
        } else {
            return Err(Fault::from("message is neither updates nor progress"));
        };
        cursor.finish()?;
        Ok(stated)
    }

    fn progress(&self, cursor: &mut Cursor<'_>) -> Result<Progress, Fault> {
        let (mut lower, mut upper) = (END, END);
        let mut counts = Vec::new();
        for field in &self.statement {
            match field {
                StatementField::Lower => lower = frontier(cursor)?,
                StatementField::Upper => upper = frontier(cursor)?,
                StatementField::Counts(fields) => self.counts(fields, cursor, &mut counts)?,
                StatementField::Skip(node) => cursor.skip(&self.update.writer, *node)?,
            }
        }
        counts.sort_unstable();
        let mut pairs = counts.windows(2);
        if pairs.any(|pair| matches!(pair, [(time, _), (next, _)] if time == next)) {
            return Err(Fault::from("progress counts the updates of a time twice"));
        }
        let is_outside = |(time, _): &(u64, u64)| *time < lower || *time >= upper;
        if counts.iter().any(is_outside) {
            return Err(Fault::from(
                "progress counts updates at a time that it is not about",
            ));
        }
        Ok(Progress {
            lower,
            upper,
            counts,
        })
    }

    fn counts(
        &self,
        fields: &[CountField],
        cursor: &mut Cursor<'_>,
        counts: &mut Vec<(u64, u64)>,
    ) -> Result<(), Fault> {
        while let Some((items, _)) = cursor.block()? {
            for _ in 0..items {
                cursor.item()?;
                let (mut time, mut count) = (0, 0);
                for field in fields {
                    match field {
                        CountField::Time => time = time_of(cursor.long()?)?,
                        CountField::Count => {
                            count = u64::try_from(cursor.long()?)
                                .map_err(|_| Fault::from("a count of updates is negative"))?;
                        }
                        CountField::Skip(node) => cursor.skip(&self.update.writer, *node)?,
                    }
                }
                counts.push((time, count));
            }
        }
        Ok(())
    }
}

fn statement_fields(writer: &Schema, statement: NodeId) -> Vec<StatementField> {
    let fields = writer.fields(statement).unwrap_or_default().iter();
    let read = fields.map(|field| match field.name.as_str() {
        "lower" => StatementField::Lower,
        "upper" => StatementField::Upper,
        "counts" => StatementField::Counts(count_fields(writer, field.node)),
        _ => StatementField::Skip(field.node),
    });
    read.collect()
}

fn count_fields(writer: &Schema, counts: NodeId) -> Vec<CountField> {
    let Kind::Array(count) = &writer.node(counts).kind else {
        return Vec::new();
    };
    let fields = writer.fields(*count).unwrap_or_default().iter();
    let read = fields.map(|field| match field.name.as_str() {
        "time" => CountField::Time,
        "count" => CountField::Count,
        _ => CountField::Skip(field.node),
    });
    read.collect()
}

/// A frontier: the time from which on nothing is said, or that there is none.
fn frontier(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let mut found = None;
    while let Some((count, _)) = cursor.block()? {
        for _ in 0..count {
            cursor.item()?;
            let time = time_of(cursor.long()?)?;
            if found.replace(time).is_some() {
                return Err(Fault::from("a frontier of progress has several times"));
            }
        }
    }
    Ok(found.unwrap_or(END))
}

fn time_of(value: i64) -> Result<u64, Fault> {
    u64::try_from(value).map_err(|_| Fault::from("a time is negative"))
}
