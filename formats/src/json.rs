//! JSON: a payload is one document in one column, or an object whose members are columns, or an envelope of changes.
//!
//! Owns how members become columns. Must not know topics. Called by [`crate::Decoder`].
//!
//! Declared columns are filled straight from the text of a payload (`members`). Documents, and payloads that are declined there, are parsed into our canonical
//! `jsonb`; members are then found by binary search in it. What Kafka Connect wraps (`{"schema": …, "payload": …}`) is unwrapped.

use flowstone_types::jsonb::{self, Jsonb, JsonbKind};
use flowstone_types::value::ColumnBuilder;
use flowstone_types::{SqlType, TypeError};

use crate::envelope::layout::{ChangeLayout, Note};
use crate::error::{Error, Fault, shortened};
use crate::relation::{Column, Relation};
use crate::rows::{Decoded, Limits, Rows, at, text_of};
use crate::semantic::Semantic;

pub mod connect;
mod lexer;
mod members;
mod value;

use lexer::Declined;
use members::{Names, Reader, Scratch};

/// The column of a document.
const DOCUMENT: &str = "data";

/// A column that is a member of the payload's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonColumn {
    /// The column; its name is that of the member.
    pub column: Column,
    /// What numbers and texts of it mean.
    pub semantic: Semantic,
}

impl JsonColumn {
    /// A column whose values mean what they say: dates and times are texts, or numbers of days or microseconds. Where a message comes with a schema of Kafka
    /// Connect, they mean what that says.
    #[must_use]
    pub const fn plain(column: Column) -> Self {
        Self {
            column,
            semantic: Semantic::Plain,
        }
    }
}

/// What a payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonContent {
    /// One `jsonb` column `data`.
    Document,
    /// An object of these members. An array stands for an object with its items in the order of the columns: CockroachDB's keys.
    Members(Vec<JsonColumn>),
    /// An envelope with images of rows: objects of these members.
    Envelope(Vec<JsonColumn>),
    /// An envelope whose images are one `jsonb` column `data`: objects, or texts of documents as MongoDB's connector has them.
    DocumentEnvelope,
}

/// Reads payloads of JSON.
#[derive(Clone, Debug)]
pub struct JsonDecoder {
    members: Vec<JsonColumn>,
    /// Which members can be read without a document between: all, or `None`.
    names: Option<Names>,
    /// Whether an image, or the payload, is one document.
    whole: bool,
    layout: Option<ChangeLayout>,
    relation: Relation,
    limits: Limits,
}

impl JsonDecoder {
    /// A decoder.
    #[must_use]
    pub fn new(content: JsonContent, limits: Limits) -> Self {
        let described = |members: &[JsonColumn]| {
            Relation::new(members.iter().map(|member| member.column.clone()).collect())
        };
        let document = || Relation::of_one(DOCUMENT, SqlType::Jsonb);
        let (members, whole, layout, relation) = match content {
            JsonContent::Document => (Vec::new(), true, None, document()),
            JsonContent::Members(members) => {
                let relation = described(&members);
                (members, false, None, relation)
            }
            JsonContent::Envelope(members) => {
                let layout = ChangeLayout::new(described(&members));
                let relation = layout.physical();
                (members, false, Some(layout), relation)
            }
            JsonContent::DocumentEnvelope => {
                let layout = ChangeLayout::new(document());
                let relation = layout.physical();
                (Vec::new(), true, Some(layout), relation)
            }
        };
        Self {
            names: Names::of(&members).filter(|_| !whole),
            members,
            whole,
            layout,
            relation,
            limits,
        }
    }

    /// The columns that [`JsonDecoder::decode`] yields.
    #[must_use]
    pub const fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Where the parts of a change are among the columns, if payloads are envelopes.
    #[must_use]
    pub const fn layout(&self) -> Option<&ChangeLayout> {
        self.layout.as_ref()
    }

    /// Decodes payloads.
    ///
    /// # Errors
    /// [`Error::BatchTooLarge`]
    pub fn decode(&self, payloads: &[Option<&[u8]>]) -> Result<Decoded, Error> {
        let mut scratch = Scratch::default();
        Rows::decode(&self.relation, self.limits, payloads, |payload, columns| {
            let before = columns.first().map_or(0, ColumnBuilder::len);
            if self.read_directly(payload, columns, &mut scratch).is_ok() {
                return Ok(());
            }
            for column in columns.iter_mut() {
                column.roll_back(before);
            }
            let document = parse(payload)?;
            if self.layout.is_none() && self.whole {
                return Ok(at(columns, 0)?.append_jsonb(&document)?);
            }
            let (schema, payload) = unwrapped(document.as_jsonb());
            let meanings = schema.map(|schema| self.meanings(schema));
            let meanings = meanings.as_deref().unwrap_or_default();
            match &self.layout {
                None => self.members(payload, meanings, columns, 0, Missing::Refused),
                Some(layout) => self.envelope(layout, payload, meanings, columns),
            }
        })
    }

    /// Reads a payload without making a document of it. One that is declined may leave cells behind.
    fn read_directly<'a>(
        &self,
        payload: &'a [u8],
        columns: &mut [ColumnBuilder],
        scratch: &mut Scratch<'a>,
    ) -> Result<(), Declined> {
        let names = self.names.as_ref().ok_or(Declined)?;
        Reader::new(&self.members, names, scratch, payload)?.read(self.layout.as_ref(), columns)
    }

    /// By member, what its values mean beside this schema of Kafka Connect.
    fn meanings(&self, schema: Jsonb<'_>) -> Vec<Semantic> {
        connect::meanings(schema, image_of(self.layout.as_ref()), &self.members)
    }

    /// Puts the members of an object into the columns from `first` on. `meanings`: of those members that they are known of.
    fn members(
        &self,
        object: Jsonb<'_>,
        meanings: &[Semantic],
        columns: &mut [ColumnBuilder],
        first: usize,
        missing: Missing,
    ) -> Result<(), Fault> {
        let items = match object.kind() {
            JsonbKind::Object => false,
            JsonbKind::Array if object.len() == self.members.len() => true,
            other => {
                let found = other.name();
                return Err(Fault::from(format!("expected a JSON object, got {found}")));
            }
        };
        for (index, member) in self.members.iter().enumerate() {
            let found = if items {
                i64::try_from(index)
                    .ok()
                    .and_then(|index| object.get_index(index))
            } else {
                object.get_key(&member.column.name)
            };
            let found = found.filter(|value| !value.is_null());
            let column = at(columns, first + index)?;
            match found {
                Some(value) => {
                    let semantic = meanings.get(index).copied().unwrap_or(member.semantic);
                    value::append(value, semantic, column)
                        .map_err(|fault| fault.of(&member.column.name))?;
                }
                None if missing == Missing::Refused && !member.column.nullable => {
                    let name = &member.column.name;
                    return Err(Fault::from(format!("member \"{name}\" is missing or null")));
                }
                None => column.append_null(),
            }
        }
        Ok(())
    }

    fn envelope(
        &self,
        layout: &ChangeLayout,
        envelope: Jsonb<'_>,
        meanings: &[Semantic],
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Fault> {
        if envelope.is_null() {
            // A tombstone.
            return Ok(());
        }
        if envelope.kind() != JsonbKind::Object {
            return Err(Fault::from("message is no envelope: it is no JSON object"));
        }
        let known = ["after", "before", "op", "resolved"];
        if known.iter().all(|key| envelope.get_key(key).is_none()) {
            return Err(Fault::from(
                "message is no envelope: it has none of \"after\", \"before\" and \"op\"",
            ));
        }
        let images = [
            (Note::AfterPresent, layout.after(0)),
            (Note::BeforePresent, layout.before(0)),
        ];
        for (note, first) in images {
            let image = envelope
                .get_key(note.name())
                .filter(|image| !image.is_null());
            let Some(image) = image else { continue };
            if self.whole {
                value::append(image, Semantic::Json, at(columns, first)?)?;
            } else {
                // An image before a change may be of the key alone.
                let missing = match note {
                    Note::AfterPresent => Missing::Refused,
                    _ => Missing::Null,
                };
                self.members(image, meanings, columns, first, missing)?;
            }
            at(columns, layout.note(note))?.append_bool(true)?;
        }
        let source = envelope.get_key("source");
        let notes = Note::SOURCE
            .into_iter()
            .map(|note| (note, source.and_then(|source| source.get_key(note.name()))));
        let outer = [Note::Op, Note::Resolved].map(|note| (note, envelope.get_key(note.name())));
        for (note, value) in notes.chain(outer) {
            let Some(value) = value.filter(|value| !value.is_null()) else {
                continue;
            };
            let column = at(columns, layout.note(note))?;
            // Older connectors say `snapshot: true` without quotes. A note of another type says nothing.
            if value::append(value, Semantic::Plain, column).is_err() {
                column.append_null();
            }
        }
        Ok(())
    }
}

/// What a member is that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// NULL.
    Null,
    /// An error, unless its column is nullable.
    Refused,
}

fn parse(payload: &[u8]) -> Result<jsonb::JsonbBuf, Fault> {
    let text = text_of(payload)?;
    jsonb::parse(text).map_err(|error| match error {
        // Do not quote a megabyte.
        TypeError::InvalidText { text, .. } => {
            Fault::from(format!("message is not valid JSON: {}", shortened(&text)))
        }
        other => other.into(),
    })
}

/// The field of a schema of Kafka Connect in which rows are.
fn image_of(layout: Option<&ChangeLayout>) -> Option<&'static str> {
    layout.map(|_| Note::AfterPresent.name())
}

/// What Kafka Connect wraps with its schema: that, and the payload. Anything else as it is.
fn unwrapped(value: Jsonb<'_>) -> (Option<Jsonb<'_>>, Jsonb<'_>) {
    if value.kind() != JsonbKind::Object || value.len() != 2 {
        return (None, value);
    }
    match (value.get_key("schema"), value.get_key("payload")) {
        (Some(schema), Some(payload)) if schema.is_null() || schema.get_key("type").is_some() => {
            (Some(schema), payload)
        }
        _ => (None, value),
    }
}

#[cfg(test)]
mod tests;
