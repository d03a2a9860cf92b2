//! Building documents from events: values, arrays and objects in any order of keys.
//!
//! Called by the JSON parser, the operators on documents and the functions that make `jsonb`.

use std::ops::Range;

use super::{
    ARRAY, DEPTH_MAX, FALSE, JSONB_VERSION, Jsonb, JsonbBuf, NULL, NUMBER, OBJECT, STRING, TRUE,
    compare_keys, number,
};
use crate::TypeError;

/// Makes a document from a sequence of events.
///
/// Errors are remembered and returned by [`JsonbBuilder::finish`], so that events can be issued without checking each.
/// Events out of place (a value in an object without a key, an end without a begin) are such errors too.
///
/// ```
/// # use flowstone_types::jsonb::JsonbBuilder;
/// let mut builder = JsonbBuilder::new();
/// builder.begin_object();
/// builder.key("b").i64(1);
/// builder.key("a").begin_array();
/// builder.bool(true).end();
/// builder.end();
/// assert_eq!(builder.finish().unwrap().to_string(), r#"{"a": [true], "b": 1}"#);
/// ```
#[derive(Debug, Default)]
pub struct JsonbBuilder {
    /// Nodes finished so far, children of an open container one after the other.
    out: Vec<u8>,
    /// Keys of open objects.
    keys: Vec<u8>,
    open: Vec<Container>,
    failure: Option<TypeError>,
}

#[derive(Debug)]
struct Container {
    /// Where its children begin in `out`.
    start: usize,
    children: Children,
}

#[derive(Debug)]
enum Children {
    /// Ends of items in `out`.
    Items(Vec<usize>),
    /// Key in `keys`, value in `out`. `pending`: a key waits for its value.
    Entries {
        entries: Vec<(Range<usize>, Range<usize>)>,
        pending: Option<Range<usize>>,
        keys_start: usize,
    },
}

impl JsonbBuilder {
    /// A builder without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn fail(&mut self, error: TypeError) {
        self.failure.get_or_insert(error);
    }

    fn misuse(&mut self) {
        self.fail(TypeError::Kernel("jsonb events out of order".to_owned()));
    }

    fn too_deep(&mut self) {
        self.fail(TypeError::InvalidParameter(format!(
            "jsonb document is nested deeper than {DEPTH_MAX} levels"
        )));
    }

    pub(super) fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Writes one node through `write` and enters it into the open container.
    fn node(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.out.len();
        write(&mut self.out);
        self.close_node(start);
        self
    }

    fn close_node(&mut self, start: usize) {
        let end = self.out.len();
        let placed = match self
            .open
            .last_mut()
            .map(|container| &mut container.children)
        {
            None => start == 0,
            Some(Children::Items(ends)) => {
                ends.push(end);
                true
            }
            Some(Children::Entries {
                entries, pending, ..
            }) => match pending.take() {
                Some(key) => {
                    entries.push((key, start..end));
                    true
                }
                None => false,
            },
        };
        if !placed {
            self.misuse();
        }
    }

    /// JSON `null`.
    pub fn null(&mut self) -> &mut Self {
        self.node(|out| out.push(NULL))
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.node(|out| out.push(if value { TRUE } else { FALSE }))
    }

    /// An integer.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.number(&value.to_string())
    }

    /// A double by its shortest text; NaN and the infinities, which JSON lacks, become strings as in PostgreSQL's `to_jsonb`.
    pub fn f64(&mut self, value: f64) -> &mut Self {
        if value.is_nan() {
            self.string("NaN")
        } else if value.is_infinite() {
            self.string(if value > 0.0 { "Infinity" } else { "-Infinity" })
        } else {
            self.number(&format!("{value:e}"))
        }
    }

    /// A number in JSON's syntax, or as PostgreSQL writes `numeric`.
    pub fn number(&mut self, text: &str) -> &mut Self {
        let mut payload = Vec::with_capacity(text.len() / 2 + 6);
        if !super::parse::is_number(text) {
            self.fail(TypeError::InvalidText {
                type_name: "jsonb".to_owned(),
                text: text.to_owned(),
            });
        } else if number::encode(text, &mut payload).is_none() {
            let shown = text.chars().take(40).collect();
            self.fail(TypeError::OutOfRange {
                type_name: "numeric".to_owned(),
                value: shown,
            });
        }
        self.node(|out| {
            out.push(NUMBER);
            out.extend_from_slice(&payload);
        })
    }

    /// A string.
    pub fn string(&mut self, value: &str) -> &mut Self {
        self.refuse_nul(value);
        self.node(|out| {
            out.push(STRING);
            out.extend_from_slice(value.as_bytes());
        })
    }

    fn refuse_nul(&mut self, value: &str) {
        if value.as_bytes().contains(&0) {
            self.fail(TypeError::InvalidText {
                type_name: "jsonb".to_owned(),
                text: value.replace('\0', "\\u0000"),
            });
        }
    }

    /// A value of another document.
    pub fn value(&mut self, value: Jsonb<'_>) -> &mut Self {
        if !value.is_scalar() && self.open.len() + value.depth(DEPTH_MAX) > DEPTH_MAX {
            self.too_deep();
        }
        self.node(|out| match value.node {
            [] => out.push(NULL),
            node => out.extend_from_slice(node),
        })
    }

    /// A `serde_json` value.
    pub fn json(&mut self, value: &serde_json::Value) -> &mut Self {
        match value {
            serde_json::Value::Null => self.null(),
            serde_json::Value::Bool(value) => self.bool(*value),
            serde_json::Value::Number(number) => self.number(&number.to_string()),
            serde_json::Value::String(text) => self.string(text),
            serde_json::Value::Array(items) => {
                self.begin_array();
                if !self.failed() {
                    for item in items {
                        self.json(item);
                    }
                }
                self.end()
            }
            serde_json::Value::Object(entries) => {
                self.begin_object();
                if !self.failed() {
                    for (key, value) in entries {
                        self.key(key).json(value);
                    }
                }
                self.end()
            }
        }
    }

    fn begin(&mut self, children: Children) -> &mut Self {
        if self.open.len() >= DEPTH_MAX {
            self.too_deep();
        }
        self.open.push(Container {
            start: self.out.len(),
            children,
        });
        self
    }

    /// Opens an array; its items follow, then [`JsonbBuilder::end`].
    pub fn begin_array(&mut self) -> &mut Self {
        self.begin(Children::Items(Vec::new()))
    }

    /// Opens an object; keys and values follow in turn, then [`JsonbBuilder::end`].
    pub fn begin_object(&mut self) -> &mut Self {
        let keys_start = self.keys.len();
        self.begin(Children::Entries {
            entries: Vec::new(),
            pending: None,
            keys_start,
        })
    }

    /// The key of the next value. The last of equal keys wins.
    pub fn key(&mut self, key: &str) -> &mut Self {
        self.refuse_nul(key);
        let start = self.keys.len();
        self.keys.extend_from_slice(key.as_bytes());
        let range = start..self.keys.len();
        let placed = match self
            .open
            .last_mut()
            .map(|container| &mut container.children)
        {
            Some(Children::Entries { pending, .. }) => pending.replace(range).is_none(),
            _ => false,
        };
        if !placed {
            self.misuse();
        }
        self
    }

    /// Closes the innermost array or object.
    pub fn end(&mut self) -> &mut Self {
        let Some(container) = self.open.pop() else {
            self.misuse();
            return self;
        };
        let start = container.start;
        let children = self.out.split_off(start);
        let relative = |position: usize| position - start;
        let built = match container.children {
            Children::Items(ends) => {
                self.out.push(ARRAY);
                push_u32(&mut self.out, ends.len())
                    .and_then(|()| {
                        ends.iter()
                            .try_for_each(|end| push_u32(&mut self.out, relative(*end)))
                    })
                    .map(|()| self.out.extend_from_slice(&children))
            }
            Children::Entries {
                mut entries,
                pending,
                keys_start,
            } => {
                if pending.is_some() {
                    self.misuse();
                }
                let keys = self.keys.split_off(keys_start);
                let key_of = |range: &Range<usize>| {
                    keys.get(range.start - keys_start..range.end - keys_start)
                        .unwrap_or_default()
                };
                // Stable, so the last of equal keys comes last.
                entries.sort_by(|left, right| compare_keys(key_of(&left.0), key_of(&right.0)));
                entries.reverse();
                entries.dedup_by(|later, earlier| key_of(&later.0) == key_of(&earlier.0));
                entries.reverse();
                self.out.push(OBJECT);
                let mut key_end = 0;
                let mut value_end = entries.iter().map(|(key, _)| key.len()).sum::<usize>();
                push_u32(&mut self.out, entries.len())
                    .and_then(|()| {
                        entries.iter().try_for_each(|(key, value)| {
                            key_end += key.len();
                            value_end += value.len();
                            push_u32(&mut self.out, key_end)?;
                            push_u32(&mut self.out, value_end)
                        })
                    })
                    .map(|()| {
                        for (key, _) in &entries {
                            self.out.extend_from_slice(key_of(key));
                        }
                        for (_, value) in &entries {
                            let value = relative(value.start)..relative(value.end);
                            self.out
                                .extend_from_slice(children.get(value).unwrap_or_default());
                        }
                    })
            }
        };
        if built.is_none() {
            self.fail(TypeError::InvalidParameter(
                "jsonb document is larger than 4 GB".to_owned(),
            ));
        }
        self.close_node(start);
        self
    }

    /// The document.
    ///
    /// # Errors
    /// The first error of any event: [`TypeError::InvalidText`] for a NUL character or a malformed number, [`TypeError::OutOfRange`] for a number
    /// beyond the limits, [`TypeError::InvalidParameter`] for a document too large or too deep, [`TypeError::Kernel`] for events out of order.
    pub fn finish(mut self) -> Result<JsonbBuf, TypeError> {
        if !self.open.is_empty() || self.out.is_empty() {
            self.misuse();
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.out.insert(0, JSONB_VERSION);
        Ok(JsonbBuf(self.out))
    }
}

fn push_u32(out: &mut Vec<u8>, number: usize) -> Option<()> {
    out.extend_from_slice(&u32::try_from(number).ok()?.to_le_bytes());
    Some(())
}
