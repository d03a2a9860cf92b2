//! Reading the wire format of Protobuf: which fields there are, and their values into columns and documents.
//!
//! A message is looked through once, noting where each known field is; the last of a scalar counts, messages that come in parts are merged, and of a
//! `oneof` the last field wins. Values of a wire type that their field cannot have are unknown fields, as in every implementation.
//! Called by [`super::ProtobufDecoder`].
//!
//! Invariants. Recursion is bounded by the limit of depth, work by the bytes and the limit of items.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flowstone_types::jsonb::JsonbBuilder;
use flowstone_types::value::ColumnBuilder;

use super::schema::{Catalog, Field, Kind, Message};
use crate::error::Fault;
use crate::rows::Limits;

/// A value on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Where the fields of a message are, by their places.
#[derive(Debug)]
pub(super) struct Occurrences<'a> {
    fields: Vec<Vec<Raw<'a>>>,
}

impl<'a> Occurrences<'a> {
    pub(super) fn new(fields: usize) -> Self {
        Self {
            fields: vec![Vec::new(); fields],
        }
    }

    pub(super) fn clear(&mut self) {
        self.fields.iter_mut().for_each(Vec::clear);
    }

    pub(super) fn of(&self, place: usize) -> &[Raw<'a>] {
        self.fields.get(place).map_or(&[], Vec::as_slice)
    }
}

/// What a message may still ask for.
#[derive(Debug)]
pub(super) struct Reader<'c> {
    catalog: &'c Catalog,
    items: usize,
    depth: usize,
}

const SHORT: &str = "message is cut short";

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Fault> {
    let mut word = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * u32::try_from(index).unwrap_or(0);
        word |= bits << shift;
        if byte & 0x80 == 0 {
            if index == 9 && bits > 1 {
                break;
            }
            return Ok((word, bytes.get(index + 1..).unwrap_or_default()));
        }
    }
    Err(Fault::from(if bytes.len() < 10 {
        SHORT
    } else {
        "integer is longer than 64 bits"
    }))
}

/// The indexes of the message in its schema, and the message. A single 0 is the first message.
pub(super) fn message_indexes(bytes: &[u8]) -> Result<(Vec<usize>, &[u8]), Fault> {
    let wrong = || Fault::from("indexes of the message are out of range");
    let next = |bytes| {
        let (word, rest) = varint(bytes)?;
        // Zigzag of a number that is never negative.
        let index = usize::try_from(word / 2).map_err(|_| wrong())?;
        if word % 2 == 0 {
            Ok((index, rest))
        } else {
            Err(wrong())
        }
    };
    let (count, mut rest) = next(bytes)?;
    if count == 0 {
        return Ok((vec![0], rest));
    }
    // Deeper than any schema.
    if count > 128 {
        return Err(wrong());
    }
    let mut path = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, after) = next(rest)?;
        path.push(index);
        rest = after;
    }
    Ok((path, rest))
}

/// Whether values of a kind come as `raw`.
const fn fits(kind: Kind, raw: &Raw<'_>) -> bool {
    match kind {
        Kind::Int32
        | Kind::Int64
        | Kind::UInt32
        | Kind::UInt64
        | Kind::SInt32
        | Kind::SInt64
        | Kind::Bool
        | Kind::Enum(_) => matches!(raw, Raw::Varint(_)),
        Kind::Double | Kind::Fixed64 | Kind::SFixed64 => matches!(raw, Raw::Fixed64(_)),
        Kind::Float | Kind::Fixed32 | Kind::SFixed32 => matches!(raw, Raw::Fixed32(_)),
        Kind::String | Kind::Bytes | Kind::Message(_) => matches!(raw, Raw::Bytes(_)),
        Kind::Group => false,
    }
}

/// Whether repeated values of a kind may come as one run of bytes.
const fn is_packable(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Group
    )
}

impl<'c> Reader<'c> {
    pub(super) const fn new(catalog: &'c Catalog, limits: Limits) -> Self {
        Self {
            catalog,
            items: limits.items_max,
            depth: limits.depth_max,
        }
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth = self
            .depth
            .checked_sub(1)
            .ok_or_else(|| Fault::from("message is nested too deep"))?;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth += 1;
    }

    fn item(&mut self) -> Result<(), Fault> {
        self.items = self
            .items
            .checked_sub(1)
            .ok_or_else(|| Fault::from("message has too many items"))?;
        Ok(())
    }

    /// Notes where the fields of a message are.
    pub(super) fn scan<'a>(
        &mut self,
        message: &Message,
        bytes: &'a [u8],
        found: &mut Occurrences<'a>,
    ) -> Result<(), Fault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire_type, after) = tag(rest)?;
            rest = after;
            let (raw, after) = match wire_type {
                3 => {
                    rest = self.skip_group(number, rest)?;
                    continue;
                }
                _ => value(wire_type, rest)?,
            };
            rest = after;
            let Ok(place) = message
                .fields
                .binary_search_by_key(&number, |field| field.number)
            else {
                continue;
            };
            let Some(field) = message.fields.get(place) else {
                continue;
            };
            let packed = field.repeated && is_packable(field.kind) && matches!(raw, Raw::Bytes(_));
            if !packed && !fits(field.kind, &raw) {
                continue;
            }
            if let Some(oneof) = field.oneof {
                for (other, noted) in message.fields.iter().zip(&mut found.fields) {
                    if other.oneof == Some(oneof) && other.number != number {
                        noted.clear();
                    }
                }
            }
            let Some(noted) = found.fields.get_mut(place) else {
                continue;
            };
            match raw {
                Raw::Bytes(run) if packed => self.unpack(field.kind, run, noted)?,
                raw => {
                    // Of a scalar the last counts; parts of a message are merged.
                    if !field.repeated && !matches!(field.kind, Kind::Message(_)) {
                        noted.clear();
                    }
                    self.item()?;
                    noted.push(raw);
                }
            }
        }
        Ok(())
    }

    fn unpack<'a>(
        &mut self,
        kind: Kind,
        mut run: &'a [u8],
        noted: &mut Vec<Raw<'a>>,
    ) -> Result<(), Fault> {
        let wire_type = match kind {
            Kind::Double | Kind::Fixed64 | Kind::SFixed64 => 1,
            Kind::Float | Kind::Fixed32 | Kind::SFixed32 => 5,
            _ => 0,
        };
        while !run.is_empty() {
            let (raw, rest) = value(wire_type, run)?;
            run = rest;
            self.item()?;
            noted.push(raw);
        }
        Ok(())
    }

    /// Skips a group up to its end.
    fn skip_group<'a>(&mut self, group: u32, bytes: &'a [u8]) -> Result<&'a [u8], Fault> {
        self.enter()?;
        let mut rest = bytes;
        loop {
            let (number, wire_type, after) = tag(rest)?;
            rest = match wire_type {
                3 => self.skip_group(number, after)?,
                4 if number == group => {
                    self.leave();
                    return Ok(after);
                }
                _ => value(wire_type, after)?.1,
            };
        }
    }

    /// Puts a message, given by its parts, into a document.
    fn message(
        &mut self,
        id: usize,
        parts: &[Raw<'_>],
        builder: &mut JsonbBuilder,
    ) -> Result<(), Fault> {
        self.enter()?;
        let message = self.catalog.message(id);
        let mut found = Occurrences::new(message.fields.len());
        for part in parts {
            if let Raw::Bytes(bytes) = part {
                self.scan(message, bytes, &mut found)?;
            }
        }
        builder.begin_object();
        for place in &message.order {
            let Some(field) = message.fields.get(*place) else {
                continue;
            };
            let occurrences = found.of(*place);
            if occurrences.is_empty() && field.presence {
                continue;
            }
            builder.key(&field.name);
            self.field(field, occurrences, builder)?;
        }
        builder.end();
        self.leave();
        Ok(())
    }

    /// Puts a field into a document.
    fn field(
        &mut self,
        field: &Field,
        occurrences: &[Raw<'_>],
        builder: &mut JsonbBuilder,
    ) -> Result<(), Fault> {
        if !field.repeated {
            return match field.kind {
                Kind::Message(id) => self.message(id, occurrences, builder),
                kind => self.scalar(kind, occurrences.last(), builder),
            };
        }
        match field.kind {
            Kind::Message(id) if self.catalog.message(id).is_entry => {
                builder.begin_object();
                for entry in occurrences {
                    self.entry(id, entry, builder)?;
                }
            }
            Kind::Message(id) => {
                builder.begin_array();
                for item in occurrences {
                    self.message(id, std::slice::from_ref(item), builder)?;
                }
            }
            kind => {
                builder.begin_array();
                for item in occurrences {
                    self.scalar(kind, Some(item), builder)?;
                }
            }
        }
        builder.end();
        Ok(())
    }

    /// Puts an entry of a map into an object.
    fn entry(
        &mut self,
        id: usize,
        entry: &Raw<'_>,
        builder: &mut JsonbBuilder,
    ) -> Result<(), Fault> {
        let message = self.catalog.message(id);
        let mut found = Occurrences::new(message.fields.len());
        if let Raw::Bytes(bytes) = entry {
            self.scan(message, bytes, &mut found)?;
        }
        let [key, value] = message.fields.as_slice() else {
            return Err(Fault::from("entry of a map is none"));
        };
        builder.key(&key_text(key.kind, found.of(0).last())?);
        self.field(value, found.of(1), builder)
    }

    /// Puts a scalar into a document; zero if it is not there.
    fn scalar(
        &self,
        kind: Kind,
        raw: Option<&Raw<'_>>,
        builder: &mut JsonbBuilder,
    ) -> Result<(), Fault> {
        match self.scalar_of(kind, raw) {
            Scalar::Signed(value) => builder.i64(value),
            Scalar::Unsigned(value) => builder.number(&value.to_string()),
            Scalar::Single(value) if value.is_finite() => builder.number(&format!("{value:e}")),
            Scalar::Single(value) => builder.f64(f64::from(value)),
            Scalar::Double(value) => builder.f64(value),
            Scalar::Bool(value) => builder.bool(value),
            Scalar::Bytes(bytes) => builder.string(&BASE64_STANDARD.encode(bytes)),
            Scalar::Text(bytes) => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| Fault::from("text is not valid UTF-8"))?;
                builder.string(text)
            }
            Scalar::Number(number) => builder.i64(number.into()),
        };
        Ok(())
    }

    /// The value of a field that is no message.
    fn scalar_of<'r>(&self, kind: Kind, raw: Option<&Raw<'r>>) -> Scalar<'r>
    where
        'c: 'r,
    {
        let word = match raw {
            Some(Raw::Varint(word) | Raw::Fixed64(word)) => *word,
            Some(Raw::Fixed32(word)) => u64::from(*word),
            _ => 0,
        };
        let bytes = match raw {
            Some(Raw::Bytes(bytes)) => *bytes,
            _ => &[],
        };
        match kind {
            Kind::Double => Scalar::Double(f64::from_bits(word)),
            Kind::Float => Scalar::Single(f32::from_bits(low(word))),
            Kind::Int32 | Kind::SFixed32 => Scalar::Signed(i64::from(low(word).cast_signed())),
            Kind::Int64 | Kind::SFixed64 => Scalar::Signed(word.cast_signed()),
            Kind::UInt32 | Kind::Fixed32 => Scalar::Unsigned(u64::from(low(word))),
            Kind::UInt64 | Kind::Fixed64 => Scalar::Unsigned(word),
            Kind::SInt32 => Scalar::Signed(unzigzag(u64::from(low(word)))),
            Kind::SInt64 => Scalar::Signed(unzigzag(word)),
            Kind::Bool => Scalar::Bool(word != 0),
            Kind::String => Scalar::Text(bytes),
            Kind::Bytes | Kind::Message(_) | Kind::Group => Scalar::Bytes(bytes),
            Kind::Enum(id) => {
                let values = &self.catalog.enumeration(id).values;
                let number = low(word).cast_signed();
                // What is not there is the first of proto2 and zero of proto3, which is its first.
                let found = match raw {
                    None => values.first(),
                    Some(_) => values.iter().find(|(value, _)| *value == number),
                };
                match found {
                    Some((_, name)) => Scalar::Text(name.as_bytes()),
                    None => Scalar::Number(number),
                }
            }
        }
    }
}

/// A value of a field.
enum Scalar<'a> {
    Signed(i64),
    Unsigned(u64),
    Single(f32),
    Double(f64),
    Bool(bool),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// Of an enum that does not name it.
    Number(i32),
}

/// The lower half, which is what a field of 32 bits keeps of a longer integer.
fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}

fn unzigzag(word: u64) -> i64 {
    let half = i64::try_from(word >> 1).unwrap_or(i64::MAX);
    if word & 1 == 0 { half } else { !half }
}

fn key_text(kind: Kind, raw: Option<&Raw<'_>>) -> Result<String, Fault> {
    let word = match raw {
        Some(Raw::Varint(word) | Raw::Fixed64(word)) => *word,
        Some(Raw::Fixed32(word)) => u64::from(*word),
        _ => 0,
    };
    Ok(match kind {
        Kind::String => {
            let bytes = match raw {
                Some(Raw::Bytes(bytes)) => *bytes,
                _ => &[],
            };
            let text =
                std::str::from_utf8(bytes).map_err(|_| Fault::from("text is not valid UTF-8"))?;
            text.to_owned()
        }
        Kind::Bool => (word != 0).to_string(),
        Kind::Int32 | Kind::SFixed32 => low(word).cast_signed().to_string(),
        Kind::Int64 | Kind::SFixed64 => word.cast_signed().to_string(),
        Kind::SInt32 => unzigzag(u64::from(low(word))).to_string(),
        Kind::SInt64 => unzigzag(word).to_string(),
        _ => word.to_string(),
    })
}

/// The number and wire type of the next field.
fn tag(bytes: &[u8]) -> Result<(u32, u64, &[u8]), Fault> {
    let (word, rest) = varint(bytes)?;
    match u32::try_from(word >> 3) {
        Ok(number) if number > 0 => Ok((number, word & 7, rest)),
        _ => Err(Fault::from("number of a field is out of range")),
    }
}

/// The next value of a wire type.
fn value(wire_type: u64, bytes: &[u8]) -> Result<(Raw<'_>, &[u8]), Fault> {
    match wire_type {
        0 => varint(bytes).map(|(word, rest)| (Raw::Varint(word), rest)),
        1 => {
            let (word, rest) = bytes
                .split_first_chunk::<8>()
                .ok_or_else(|| Fault::from(SHORT))?;
            Ok((Raw::Fixed64(u64::from_le_bytes(*word)), rest))
        }
        2 => {
            let (length, rest) = varint(bytes)?;
            let length = usize::try_from(length).map_err(|_| Fault::from(SHORT))?;
            let (taken, rest) = rest
                .split_at_checked(length)
                .ok_or_else(|| Fault::from(SHORT))?;
            Ok((Raw::Bytes(taken), rest))
        }
        5 => {
            let (word, rest) = bytes
                .split_first_chunk::<4>()
                .ok_or_else(|| Fault::from(SHORT))?;
            Ok((Raw::Fixed32(u32::from_le_bytes(*word)), rest))
        }
        _ => Err(Fault::from("message is not of the Protobuf wire format")),
    }
}

/// Appends a field to its column.
pub(super) fn fill(
    reader: &mut Reader<'_>,
    field: &Field,
    occurrences: &[Raw<'_>],
    column: &mut ColumnBuilder,
) -> Result<(), Fault> {
    if field.kind == Kind::Group || (occurrences.is_empty() && field.presence) {
        column.append_null();
        return Ok(());
    }
    if matches!(field.kind, Kind::Message(_)) {
        let mut builder = JsonbBuilder::new();
        reader.field(field, occurrences, &mut builder)?;
        return Ok(column.append_jsonb(&builder.finish()?)?);
    }
    if !field.repeated {
        return append(reader.scalar_of(field.kind, occurrences.last()), column);
    }
    if let Some(items) = column.items() {
        for raw in occurrences {
            append(reader.scalar_of(field.kind, Some(raw)), items)?;
        }
    }
    Ok(column.append_list()?)
}

fn append(scalar: Scalar<'_>, column: &mut ColumnBuilder) -> Result<(), Fault> {
    match scalar {
        Scalar::Signed(value) => column.append_i64(value)?,
        Scalar::Unsigned(value) => column.append_u64(value)?,
        Scalar::Single(value) => column.append_f32(value)?,
        Scalar::Double(value) => column.append_f64(value)?,
        Scalar::Bool(value) => column.append_bool(value)?,
        Scalar::Text(bytes) | Scalar::Bytes(bytes) => column.append_bytes(bytes)?,
        Scalar::Number(number) => column.append_text(&number.to_string())?,
    }
    Ok(())
}
