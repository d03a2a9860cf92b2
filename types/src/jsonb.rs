//! `jsonb`: a canonical binary form of JSON documents. Equal documents have equal bytes, so equality, hashing and grouping are bytewise.
//!
//! Owns the encoding, the views over it, its text formats, PostgreSQL's order of documents and the operators that make new documents of old ones.
//! Must not know Arrow. Called by [`crate::value`], the functions on `jsonb`, and sources.
//!
//! # Encoding, version 1
//! The version byte, then one node. A node's length is known from what contains it (the document, or an offset table).
//!
//! | tag | node | payload |
//! |---|---|---|
//! | 0, 1, 2 | null, false, true | none |
//! | 3 | number | sign byte, `i32` exponent, decimal digits two in a byte (zero: the sign byte alone) |
//! | 4 | string | UTF-8 |
//! | 5 | array | `u32` count n, n × `u32` end of item, items |
//! | 6 | object | `u32` count n, n × (`u32` end of key, `u32` end of value), keys, values |
//!
//! Integers are little endian; ends count from the end of the table. Keys are unique and sorted as PostgreSQL does: shorter first, then bytewise.
//! Of duplicate keys in the input the last one wins. Numbers are `0.d₁d₂… × 10^e` with `d₁` and the last digit not zero: `1`, `1.0` and `1e0`
//! are the same bytes. So trailing zeros after the point are not kept, which PostgreSQL does keep; it too calls such numbers equal.
//!
//! Invariants. [`Jsonb::from_bytes`] refuses damaged bytes; accessors of an unchecked view ([`Jsonb::from_canonical`]) treat what they cannot read
//! as JSON null and never panic. Documents are at most [`DEPTH_MAX`] deep, so recursion over a checked or self-made document is bounded.
//! Items are reached through the offset tables without decoding what lies before them.

use std::cmp::Ordering;

use crate::TypeError;

mod at_path;
mod build;
mod edit;
mod number;
mod parse;
mod sort_key;
mod text;

pub use at_path::{Edit, EditError};
pub use build::JsonbBuilder;
pub use number::JsonbNumber;

/// Version of the encoding: the first byte of every document.
pub const JSONB_VERSION: u8 = 1;
/// Documents nested deeper than this are refused.
pub const DEPTH_MAX: usize = 512;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER: u8 = 3;
const STRING: u8 = 4;
const ARRAY: u8 = 5;
const OBJECT: u8 = 6;

/// What a JSON value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JsonbKind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl JsonbKind {
    /// The name `jsonb_typeof` gives.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "boolean",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// A document in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JsonbBuf(Vec<u8>);

impl JsonbBuf {
    /// The canonical bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The canonical bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A view of the document.
    #[must_use]
    pub fn as_jsonb(&self) -> Jsonb<'_> {
        Jsonb::from_canonical(&self.0)
    }

    /// The canonical form of a `serde_json` value.
    ///
    /// # Errors
    /// [`TypeError::OutOfRange`] for a document too large or too deep, [`TypeError::InvalidText`] for a NUL character in a string.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, TypeError> {
        let mut builder = JsonbBuilder::new();
        builder.json(value);
        builder.finish()
    }
}

impl std::fmt::Display for JsonbBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_jsonb().fmt(f)
    }
}

/// Reads JSON text (RFC 8259) into its canonical form.
///
/// # Errors
/// [`TypeError::InvalidText`] if it is not JSON, or a string holds `\u0000`, which PostgreSQL's text cannot hold;
/// [`TypeError::OutOfRange`] for a number with more than 131072 digits before or 16383 after the point, or a document nested too deep.
pub fn parse(text: &str) -> Result<JsonbBuf, TypeError> {
    parse::parse(text)
}

/// A view of one JSON value inside a document.
#[derive(Clone, Copy, Debug)]
pub struct Jsonb<'a> {
    /// Tag and payload, without the version byte.
    node: &'a [u8],
}

/// Of the same bytes, that is, of the same value.
impl PartialEq for Jsonb<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl Eq for Jsonb<'_> {}

fn u32_at(bytes: &[u8], offset: usize) -> Option<usize> {
    let word = bytes.get(offset..offset.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(word.try_into().ok()?)).ok()
}

/// The order of object keys: shorter first, then bytewise.
fn compare_keys(left: &[u8], right: &[u8]) -> Ordering {
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

impl<'a> Jsonb<'a> {
    /// A view of a document from anywhere: its whole structure is checked.
    ///
    /// # Errors
    /// [`TypeError::InvalidBinary`] unless the bytes are a canonical document of a known version.
    ///
    /// Cost: O(bytes). For a cell of a column of the engine, use [`Jsonb::from_canonical`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, TypeError> {
        let damaged = |reason: &str| TypeError::InvalidBinary {
            type_name: "jsonb".to_owned(),
            reason: reason.to_owned(),
        };
        match bytes.split_first() {
            Some((&JSONB_VERSION, node)) => {
                check(node, 0).ok_or_else(|| damaged("damaged document"))?;
                Ok(Self { node })
            }
            Some(_) => Err(damaged("unknown version")),
            None => Err(damaged("no bytes")),
        }
    }

    /// A view of a document that this module made, without checking it. Safe on any bytes: what cannot be read is JSON null.
    ///
    /// Cost: O(1).
    #[must_use]
    pub fn from_canonical(bytes: &'a [u8]) -> Self {
        match bytes.split_first() {
            Some((&JSONB_VERSION, node)) => Self { node },
            _ => Self { node: &[] },
        }
    }

    /// The JSON value `null`.
    #[must_use]
    pub const fn null() -> Self {
        Self { node: &[NULL] }
    }

    /// The JSON value `true` or `false`.
    #[must_use]
    pub const fn boolean(value: bool) -> Self {
        Self {
            node: if value { &[TRUE] } else { &[FALSE] },
        }
    }

    /// The object without members.
    #[must_use]
    pub const fn empty_object() -> Self {
        Self {
            node: &[OBJECT, 0, 0, 0, 0],
        }
    }

    /// What the value takes inside of a document.
    #[must_use]
    pub const fn byte_len(self) -> usize {
        self.node.len()
    }

    /// A document with this value alone.
    #[must_use]
    pub fn to_buf(self) -> JsonbBuf {
        let mut bytes = Vec::with_capacity(self.node.len() + 1);
        bytes.push(JSONB_VERSION);
        if self.node.is_empty() {
            bytes.push(NULL);
        }
        bytes.extend_from_slice(self.node);
        JsonbBuf(bytes)
    }

    /// Where the value begins in the bytes of `document`, whose part it is; `None` if it is a part of another one.
    #[must_use]
    pub fn offset_in(self, document: Jsonb<'_>) -> Option<usize> {
        let start = document.node.as_ptr().addr();
        let offset = self.node.as_ptr().addr().checked_sub(start)?;
        (offset <= document.node.len()).then_some(offset)
    }

    fn tag(self) -> u8 {
        self.node.first().copied().unwrap_or(NULL)
    }

    fn payload(self) -> &'a [u8] {
        self.node.get(1..).unwrap_or_default()
    }

    /// What the value is.
    #[must_use]
    pub fn kind(self) -> JsonbKind {
        match self.tag() {
            FALSE | TRUE => JsonbKind::Bool,
            NUMBER => JsonbKind::Number,
            STRING => JsonbKind::String,
            ARRAY => JsonbKind::Array,
            OBJECT => JsonbKind::Object,
            _ => JsonbKind::Null,
        }
    }

    /// Whether the value is JSON `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.kind() == JsonbKind::Null
    }

    /// The value of a boolean.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.tag() {
            FALSE => Some(false),
            TRUE => Some(true),
            _ => None,
        }
    }

    /// The characters of a string.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        if self.tag() == STRING {
            std::str::from_utf8(self.payload()).ok()
        } else {
            None
        }
    }

    /// A number, of any precision.
    #[must_use]
    pub fn as_number(self) -> Option<JsonbNumber<'a>> {
        if self.tag() == NUMBER {
            JsonbNumber::read(self.payload())
        } else {
            None
        }
    }

    /// The digits of a number, without an exponent: `-12.5`.
    #[must_use]
    pub fn as_number_text(self) -> Option<String> {
        self.as_number().map(|number| number.to_string())
    }

    /// Number of items of an array or entries of an object; 0 for a scalar.
    #[must_use]
    pub fn len(self) -> usize {
        let width = match self.tag() {
            ARRAY => 4,
            OBJECT => 8,
            _ => return 0,
        };
        let payload = self.payload();
        // A count that the bytes cannot hold is damage.
        u32_at(payload, 0)
            .filter(|count| payload.len().saturating_sub(4) / width >= *count)
            .unwrap_or(0)
    }

    /// Whether there are no items or entries.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn item(self, index: usize) -> Option<Self> {
        let count = self.len();
        if self.tag() != ARRAY || index >= count {
            return None;
        }
        let payload = self.payload();
        let start = if index == 0 {
            0
        } else {
            u32_at(payload, index * 4)?
        };
        let end = u32_at(payload, 4 + index * 4)?;
        let data = payload.get(4 + count * 4..)?;
        Some(Self {
            node: data.get(start..end)?,
        })
    }

    fn entry(self, index: usize) -> Option<(&'a [u8], Self)> {
        let count = self.len();
        if self.tag() != OBJECT || index >= count {
            return None;
        }
        let payload = self.payload();
        let data = payload.get(4 + count * 8..)?;
        let key_start = if index == 0 {
            0
        } else {
            u32_at(payload, 4 + (index - 1) * 8)?
        };
        let key_end = u32_at(payload, 4 + index * 8)?;
        // Values follow the last key.
        let value_start = if index == 0 {
            u32_at(payload, 4 + (count - 1) * 8)?
        } else {
            u32_at(payload, 8 + (index - 1) * 8)?
        };
        let value_end = u32_at(payload, 8 + index * 8)?;
        Some((
            data.get(key_start..key_end)?,
            Self {
                node: data.get(value_start..value_end)?,
            },
        ))
    }

    /// The item of an array at `index`, negative ones counting from the end (`->` with an integer).
    #[must_use]
    pub fn get_index(self, index: i64) -> Option<Self> {
        let position = if index >= 0 {
            usize::try_from(index).ok()?
        } else {
            self.len()
                .checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?
        };
        self.item(position)
    }

    /// The value of an object's `key` (`->` with text). O(log entries).
    #[must_use]
    pub fn get_key(self, key: &str) -> Option<Self> {
        if self.tag() != OBJECT {
            return None;
        }
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let (found, value) = self.entry(middle)?;
            match compare_keys(found, key.as_bytes()) {
                Ordering::Equal => return Some(value),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Follows a path of keys and array indices (`#>`).
    #[must_use]
    pub fn get_path<'p>(self, path: impl IntoIterator<Item = &'p str>) -> Option<Self> {
        path.into_iter()
            .try_fold(self, |value, step| match value.kind() {
                JsonbKind::Object => value.get_key(step),
                JsonbKind::Array => value.get_index(step.trim_ascii_start().parse().ok()?),
                _ => None,
            })
    }

    /// Whether `key` is a key of the object, a string item of the array, or the string itself (`?`).
    #[must_use]
    pub fn exists(self, key: &str) -> bool {
        match self.kind() {
            JsonbKind::Object => self.get_key(key).is_some(),
            JsonbKind::Array => self.items().any(|item| item.as_str() == Some(key)),
            _ => self.as_str() == Some(key),
        }
    }

    /// The items of an array, in order; none for anything else.
    pub fn items(self) -> impl DoubleEndedIterator<Item = Jsonb<'a>> + use<'a> {
        let count = if self.tag() == ARRAY { self.len() } else { 0 };
        (0..count).map(move |index| self.item(index).unwrap_or(Jsonb::null()))
    }

    /// The entries of an object, shorter keys first; none for anything else.
    pub fn entries(self) -> impl DoubleEndedIterator<Item = (&'a str, Jsonb<'a>)> + use<'a> {
        let count = if self.tag() == OBJECT { self.len() } else { 0 };
        (0..count).map(move |index| {
            let (key, value) = self.entry(index).unwrap_or((&[], Jsonb::null()));
            (std::str::from_utf8(key).unwrap_or_default(), value)
        })
    }

    /// Levels of containers: 0 for a scalar. Stops counting past `limit`.
    fn depth(self, limit: usize) -> usize {
        if self.is_scalar() || limit == 0 {
            return usize::from(!self.is_scalar());
        }
        let deepest = |children: &mut dyn Iterator<Item = Self>| {
            children
                .map(|child| child.depth(limit - 1))
                .max()
                .unwrap_or(0)
        };
        1 + if self.tag() == ARRAY {
            deepest(&mut self.items())
        } else {
            deepest(&mut self.entries().map(|(_, value)| value))
        }
    }

    fn is_scalar(self) -> bool {
        !matches!(self.tag(), ARRAY | OBJECT)
    }

    /// Whether this value contains `other` (`@>`): objects by key, arrays as sets; an array also contains a scalar that is one of its items.
    #[must_use]
    pub fn contains(self, other: Jsonb<'_>) -> bool {
        if self.tag() == ARRAY && other.is_scalar() {
            return self.items().any(|item| item == other);
        }
        self.contains_deep(other)
    }

    fn contains_deep(self, other: Jsonb<'_>) -> bool {
        match (self.tag(), other.tag()) {
            (OBJECT, OBJECT) => other.entries().all(|(key, value)| {
                self.get_key(key)
                    .is_some_and(|own| own.contains_deep(value))
            }),
            (ARRAY, ARRAY) => other.items().all(|wanted| {
                self.items().any(|item| {
                    if wanted.is_scalar() {
                        item == wanted
                    } else {
                        item.contains_deep(wanted)
                    }
                })
            }),
            (ARRAY | OBJECT, _) | (_, ARRAY | OBJECT) => false,
            _ => self == other,
        }
    }

    /// PostgreSQL's btree order: object > array > boolean > number > string > null; containers by size first.
    ///
    /// The outermost empty array is less than any scalar, a quirk that PostgreSQL keeps. Strings and keys compare bytewise (collation `C`).
    #[must_use]
    pub fn compare(self, other: Jsonb<'_>) -> Ordering {
        let empty = |value: Self| value.tag() == ARRAY && value.is_empty();
        let other = Jsonb { node: other.node };
        match (empty(self), other.tag() == ARRAY && other.is_empty()) {
            (true, false) if other.is_scalar() => return Ordering::Less,
            (false, true) if self.is_scalar() => return Ordering::Greater,
            _ => {}
        }
        self.compare_deep(other)
    }

    fn rank(self) -> u8 {
        match self.kind() {
            JsonbKind::Null => 0,
            JsonbKind::String => 1,
            JsonbKind::Number => 2,
            JsonbKind::Bool => 3,
            JsonbKind::Array => 4,
            JsonbKind::Object => 5,
        }
    }

    fn compare_deep(self, other: Jsonb<'_>) -> Ordering {
        let ranks = self.rank().cmp(&other.rank());
        if ranks.is_ne() {
            return ranks;
        }
        match self.kind() {
            JsonbKind::Null => Ordering::Equal,
            JsonbKind::Bool => self.tag().cmp(&other.tag()),
            JsonbKind::String => self.payload().cmp(other.payload()),
            JsonbKind::Number => self.as_number().cmp(&other.as_number()),
            JsonbKind::Array => self.len().cmp(&other.len()).then_with(|| {
                self.items()
                    .zip(other.items())
                    .map(|(left, right)| left.compare_deep(right))
                    .find(|order| order.is_ne())
                    .unwrap_or(Ordering::Equal)
            }),
            JsonbKind::Object => self.len().cmp(&other.len()).then_with(|| {
                self.entries()
                    .zip(other.entries())
                    .map(|((left_key, left), (right_key, right))| {
                        left_key
                            .cmp(right_key)
                            .then_with(|| left.compare_deep(right))
                    })
                    .find(|order| order.is_ne())
                    .unwrap_or(Ordering::Equal)
            }),
        }
    }
}

/// Whether bytes are the characters of a string or key: UTF-8 without a zero character, which the text of a document cannot hold either.
fn check_text(bytes: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(())
}

/// Whether a node inside `depth` containers is canonical all the way down.
fn check(node: &[u8], depth: usize) -> Option<()> {
    let (tag, payload) = node.split_first()?;
    match *tag {
        ARRAY | OBJECT if depth >= DEPTH_MAX => None,
        NULL | FALSE | TRUE => payload.is_empty().then_some(()),
        NUMBER => JsonbNumber::read(payload)?.is_canonical().then_some(()),
        STRING => check_text(payload),
        ARRAY => {
            let count = u32_at(payload, 0)?;
            let data = payload.get(count.checked_mul(4)?.checked_add(4)?..)?;
            let mut start = 0;
            for index in 0..count {
                let end = u32_at(payload, 4 + index * 4)?;
                check(data.get(start..end)?, depth + 1)?;
                start = end;
            }
            (start == data.len()).then_some(())
        }
        OBJECT => {
            let count = u32_at(payload, 0)?;
            let data = payload.get(count.checked_mul(8)?.checked_add(4)?..)?;
            let mut previous: Option<&[u8]> = None;
            let mut key_start = 0;
            let mut value_start = if count == 0 {
                0
            } else {
                u32_at(payload, 4 + (count - 1) * 8)?
            };
            for index in 0..count {
                let key_end = u32_at(payload, 4 + index * 8)?;
                let key = data.get(key_start..key_end)?;
                check_text(key)?;
                if previous.is_some_and(|previous| compare_keys(previous, key).is_ge()) {
                    return None;
                }
                let value_end = u32_at(payload, 8 + index * 8)?;
                check(data.get(value_start..value_end)?, depth + 1)?;
                previous = Some(key);
                key_start = key_end;
                value_start = value_end;
            }
            (value_start == data.len()).then_some(())
        }
        _ => None,
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::any_document;
