//! Members of an object straight from its text into their columns, in one pass and without a document between them.
//!
//! Owns the short way of [`super::JsonDecoder`] for declared columns, in payloads and in the images of an envelope, and what it remembers from message to
//! message. Must not know what a value means to a column: that is [`super::value`]'s.
//!
//! Invariants. What is read here is what the long way through a document makes of the message. Whatever is not is declined, and the long way decides: malformed
//! text, values that their columns refuse, and shapes that are rare (a key twice, an object that might be a wrapper of Kafka Connect but starts otherwise). So no
//! reason for a refusal is made here, and a message that is declined may leave cells behind, which the caller takes back.
//! Nothing allocates for a message, beside what a `jsonb` column or a value in an unusual notation needs: those go through a document of their own.

use flowstone_types::SqlType;
use flowstone_types::jsonb;
use flowstone_types::value::ColumnBuilder;
use hashbrown::HashMap;

use super::lexer::{ARRAY, Declined, Lexer, OBJECT};
use super::{JsonColumn, Missing, connect, image_of, value};
use crate::envelope::layout::{ChangeLayout, Note};
use crate::rows::at;
use crate::semantic::Semantic;

/// Bytes of a message that is read this way. Documents of so few bytes of text are never larger than documents may be, which is not asked here.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Entries of an object whose places are remembered.
const PLACES_MAX: usize = 4_096;
/// Bytes of a number that the text format of its column reads as it is: within every limit that documents have.
const NUMBER_BYTES_MAX: usize = 40;

/// The members by their names.
#[derive(Clone, Debug)]
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    /// `None` if two members have one name: one value is then of several columns.
    pub(super) fn of(members: &[JsonColumn]) -> Option<Self> {
        let names: HashMap<_, _> = (0_usize..)
            .zip(members)
            .map(|(index, member)| (member.column.name.clone(), index))
            .collect();
        (names.len() == members.len()).then_some(Self(names))
    }
}

/// What is remembered from message to message, and space for strings.
#[derive(Debug, Default)]
pub(super) struct Scratch<'a> {
    /// Which member was where in the last object: producers keep the order.
    order: Vec<Option<usize>>,
    /// A string without its escapes.
    text: String,
    /// The last schema of Kafka Connect, which was found to be one. It is most of the message, and the same in all of them.
    schema: Option<&'a str>,
    /// By member, what its values mean beside that schema.
    meanings: Vec<Semantic>,
}

/// Reads one message.
pub(super) struct Reader<'d, 's, 'a> {
    members: &'d [JsonColumn],
    names: &'d Names,
    scratch: &'s mut Scratch<'a>,
    lexer: Lexer<'a>,
    /// Cells of every column before this message.
    before: usize,
    /// Whether the outermost object has other keys than those of a wrapper.
    distinct: bool,
    /// Whether the message is beside the schema that is remembered.
    described: bool,
}

impl<'d, 's, 'a> Reader<'d, 's, 'a> {
    pub(super) fn new(
        members: &'d [JsonColumn],
        names: &'d Names,
        scratch: &'s mut Scratch<'a>,
        payload: &'a [u8],
    ) -> Result<Self, Declined> {
        if payload.len() > MESSAGE_BYTES_MAX {
            return Err(Declined);
        }
        let text = std::str::from_utf8(payload).map_err(|_| Declined)?;
        Ok(Self {
            members,
            names,
            scratch,
            lexer: Lexer::new(text),
            before: 0,
            distinct: false,
            described: false,
        })
    }

    /// Reads the message into the columns, which have equal lengths.
    pub(super) fn read(
        mut self,
        layout: Option<&ChangeLayout>,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Declined> {
        self.before = columns.first().map_or(0, ColumnBuilder::len);
        self.lexer.skip_space();
        let wrapped = self.enter_wrapper(image_of(layout))?;
        let depth = usize::from(wrapped);
        match layout {
            None => self.row(0, Missing::Refused, depth, columns)?,
            Some(layout) => self.envelope(layout, depth, columns)?,
        }
        if wrapped {
            if self.lexer.more(OBJECT)? {
                return Err(Declined);
            }
        } else if !self.distinct {
            return Err(Declined);
        }
        self.lexer.finish()
    }

    /// Goes to the payload of what Kafka Connect wraps with its schema; stays where it is before anything else.
    fn enter_wrapper(&mut self, image: Option<&str>) -> Result<bool, Declined> {
        let start = self.lexer;
        if self.lexer.peek() == Some(b'{')
            && self.lexer.begin(OBJECT, 0)?
            && self.lexer.key(&mut self.scratch.text)? == "schema"
            && self.schema(image)?
            && self.lexer.more(OBJECT)?
            && self.lexer.key(&mut self.scratch.text)? == "payload"
        {
            return Ok(true);
        }
        self.lexer = start;
        self.described = false;
        Ok(false)
    }

    /// Goes past the member `schema`. Whether it is that of a wrapper: null, or an object with a type. `image` as in [`connect::meanings`].
    fn schema(&mut self, image: Option<&str>) -> Result<bool, Declined> {
        if let Some(known) = self.scratch.schema
            && self.lexer.take_all(known)
        {
            self.described = true;
            return Ok(true);
        }
        match self.lexer.peek() {
            Some(b'n') => {
                self.lexer.word("null")?;
                return Ok(true);
            }
            Some(b'{') => {}
            _ => {
                self.lexer.skip_value(1)?;
                return Ok(false);
            }
        }
        let start = self.lexer.position();
        let mut typed = false;
        let mut more = self.lexer.begin(OBJECT, 1)?;
        while more {
            typed |= self.lexer.key(&mut self.scratch.text)? == "type";
            self.lexer.skip_value(2)?;
            more = self.lexer.more(OBJECT)?;
        }
        if typed {
            let schema = self.lexer.since(start);
            let document = jsonb::parse(schema)?;
            self.scratch.meanings = connect::meanings(document.as_jsonb(), image, self.members);
            self.scratch.schema = Some(schema);
            self.described = true;
        }
        Ok(typed)
    }

    /// Reads a row into the columns from `first` on: an object, or an array of all members in their order.
    fn row(
        &mut self,
        first: usize,
        missing: Missing,
        depth: usize,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Declined> {
        if self.lexer.peek() == Some(b'[') {
            return self.items(first, missing, depth, columns);
        }
        let mut found = 0;
        let mut place = 0;
        let mut more = self.lexer.begin(OBJECT, depth)?;
        while more {
            match self.member(place)? {
                Some(member) => {
                    self.cell(member, first, missing, depth + 1, columns)?;
                    found += 1;
                }
                None => self.lexer.skip_value(depth + 1)?,
            }
            place += 1;
            more = self.lexer.more(OBJECT)?;
        }
        if found == self.members.len() {
            return Ok(());
        }
        for (index, member) in (first..).zip(self.members) {
            let column = at(columns, index)?;
            if column.len() == self.before {
                if missing == Missing::Refused && !member.column.nullable {
                    return Err(Declined);
                }
                column.append_null();
            }
        }
        Ok(())
    }

    fn items(
        &mut self,
        first: usize,
        missing: Missing,
        depth: usize,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Declined> {
        self.distinct = true;
        let mut count = 0;
        let mut more = self.lexer.begin(ARRAY, depth)?;
        while more {
            self.cell(count, first, missing, depth + 1, columns)?;
            count += 1;
            more = self.lexer.more(ARRAY)?;
        }
        if count == self.members.len() {
            Ok(())
        } else {
            Err(Declined)
        }
    }

    /// Reads a key, and tells which member it is.
    fn member(&mut self, place: usize) -> Result<Option<usize>, Declined> {
        let key = self.lexer.key(&mut self.scratch.text)?;
        self.distinct = self.distinct || !matches!(key, "schema" | "payload");
        if let Some(Some(index)) = self.scratch.order.get(place)
            && let Some(member) = self.members.get(*index)
            && member.column.name == key
        {
            return Ok(Some(*index));
        }
        let found = self.names.0.get(key).copied();
        if found.is_some() && place < PLACES_MAX {
            if place >= self.scratch.order.len() {
                self.scratch.order.resize(place + 1, None);
            }
            if let Some(remembered) = self.scratch.order.get_mut(place) {
                *remembered = found;
            }
        }
        Ok(found)
    }

    /// Reads the value of a member.
    fn cell(
        &mut self,
        member: usize,
        first: usize,
        missing: Missing,
        depth: usize,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Declined> {
        let described = self.members.get(member).ok_or(Declined)?;
        let column = at(columns, first + member)?;
        if column.len() != self.before {
            // The key was there before: the last one wins, even over one that the column refuses.
            return Err(Declined);
        }
        if self.lexer.peek() == Some(b'n') {
            self.lexer.word("null")?;
            if missing == Missing::Refused && !described.column.nullable {
                return Err(Declined);
            }
            column.append_null();
            return Ok(());
        }
        let semantic = match self.scratch.meanings.get(member) {
            Some(semantic) if self.described => *semantic,
            _ => described.semantic,
        };
        self.value(semantic, depth, column)
    }

    fn envelope(
        &mut self,
        layout: &ChangeLayout,
        depth: usize,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Declined> {
        let mut sourced = false;
        let mut more = self.lexer.begin(OBJECT, depth)?;
        while more {
            let part = Part::of(self.lexer.key(&mut self.scratch.text)?);
            self.distinct = self.distinct || matches!(part, Part::Image(_) | Part::Note(_));
            match part {
                Part::Image(note) => self.image(note, layout, depth + 1, columns)?,
                Part::Note(note) => self.note(note, layout, depth + 1, columns)?,
                Part::Source if sourced => return Err(Declined),
                Part::Source => {
                    sourced = true;
                    self.source(layout, depth + 1, columns)?;
                }
                Part::Other => self.lexer.skip_value(depth + 1)?,
            }
            more = self.lexer.more(OBJECT)?;
        }
        // Without any of its keys it is no envelope, whether it is wrapped or not.
        if self.distinct { Ok(()) } else { Err(Declined) }
    }

    fn image(
        &mut self,
        note: Note,
        layout: &ChangeLayout,
        depth: usize,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Declined> {
        let (first, missing) = match note {
            Note::AfterPresent => (layout.after(0), Missing::Refused),
            // An image before a change may be of the key alone.
            _ => (layout.before(0), Missing::Null),
        };
        if at(columns, layout.note(note))?.len() != self.before {
            return Err(Declined);
        }
        if self.lexer.peek() == Some(b'n') {
            return self.lexer.word("null");
        }
        self.row(first, missing, depth, columns)?;
        Ok(at(columns, layout.note(note))?.append_bool(true)?)
    }

    fn source(
        &mut self,
        layout: &ChangeLayout,
        depth: usize,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Declined> {
        if self.lexer.peek() != Some(b'{') {
            return self.lexer.skip_value(depth);
        }
        let mut more = self.lexer.begin(OBJECT, depth)?;
        while more {
            let key = self.lexer.key(&mut self.scratch.text)?;
            match Note::SOURCE.into_iter().find(|note| note.name() == key) {
                Some(note) => self.note(note, layout, depth + 1, columns)?,
                None => self.lexer.skip_value(depth + 1)?,
            }
            more = self.lexer.more(OBJECT)?;
        }
        Ok(())
    }

    fn note(
        &mut self,
        note: Note,
        layout: &ChangeLayout,
        depth: usize,
        columns: &mut [ColumnBuilder],
    ) -> Result<(), Declined> {
        let column = at(columns, layout.note(note))?;
        if column.len() != self.before {
            return Err(Declined);
        }
        if self.lexer.peek() == Some(b'n') {
            self.lexer.word("null")?;
            column.append_null();
            return Ok(());
        }
        self.value(Semantic::Plain, depth, column)
    }

    /// Reads a value that is not null.
    fn value(
        &mut self,
        semantic: Semantic,
        depth: usize,
        column: &mut ColumnBuilder,
    ) -> Result<(), Declined> {
        match (self.lexer.peek(), column.sql_type()) {
            (Some(b'"'), _) => {
                let text = self.lexer.string(&mut self.scratch.text)?;
                Ok(value::append_str(text, semantic, column)?)
            }
            (Some(b'0'..=b'9' | b'-'), _) => self.number(semantic, depth, column),
            (Some(b'['), SqlType::Array(_)) => self.list(semantic, depth, column),
            (Some(b't'), SqlType::Bool) => {
                self.lexer.word("true")?;
                Ok(column.append_bool(true)?)
            }
            (Some(b'f'), SqlType::Bool) => {
                self.lexer.word("false")?;
                Ok(column.append_bool(false)?)
            }
            _ => self.document(semantic, depth, column),
        }
    }

    fn number(
        &mut self,
        semantic: Semantic,
        depth: usize,
        column: &mut ColumnBuilder,
    ) -> Result<(), Declined> {
        let start = self.lexer;
        let number = self.lexer.number()?;
        let appended = match (number.integer, column.sql_type()) {
            (Some(_), SqlType::Text) if number.text != "-0" => {
                column.append_text(number.text)?;
                true
            }
            (Some(integer), _) => value::append_integer(integer, semantic, column)?,
            // A double says that the exponent is within the limits of documents, `numeric` does not.
            (None, SqlType::Numeric(_)) if number.exponent_digits > 0 => false,
            (None, _) if number.text.len() <= NUMBER_BYTES_MAX => {
                value::append_number_text(number.text, semantic, column)?
            }
            (None, _) => false,
        };
        if appended {
            return Ok(());
        }
        self.lexer = start;
        self.document(semantic, depth, column)
    }

    fn list(
        &mut self,
        semantic: Semantic,
        depth: usize,
        column: &mut ColumnBuilder,
    ) -> Result<(), Declined> {
        let items = column.items().ok_or(Declined)?;
        let mut more = self.lexer.begin(ARRAY, depth)?;
        while more {
            if self.lexer.peek() == Some(b'n') {
                self.lexer.word("null")?;
                items.append_null();
            } else {
                self.value(semantic, depth + 1, items)?;
            }
            more = self.lexer.more(ARRAY)?;
        }
        Ok(column.append_list()?)
    }

    /// Reads a value by way of a document of its own.
    fn document(
        &mut self,
        semantic: Semantic,
        depth: usize,
        column: &mut ColumnBuilder,
    ) -> Result<(), Declined> {
        let start = self.lexer.position();
        self.lexer.skip_value(depth)?;
        let document = jsonb::parse(self.lexer.since(start))?;
        Ok(value::append(document.as_jsonb(), semantic, column)?)
    }
}

/// A member of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Image(Note),
    Source,
    Note(Note),
    Other,
}

impl Part {
    fn of(key: &str) -> Self {
        match key {
            "after" => Self::Image(Note::AfterPresent),
            "before" => Self::Image(Note::BeforePresent),
            "source" => Self::Source,
            "op" => Self::Note(Note::Op),
            "resolved" => Self::Note(Note::Resolved),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
