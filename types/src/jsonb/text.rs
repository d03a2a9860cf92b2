//! Documents as text: PostgreSQL's `jsonb` output and `jsonb_pretty`.

use std::fmt::{self, Write};

use super::{Jsonb, JsonbKind};

/// How containers are laid out.
#[derive(Clone, Copy)]
enum Layout {
    Line,
    /// `jsonb_pretty`, at this depth.
    Indented(usize),
}

impl Layout {
    const fn deeper(self) -> Self {
        match self {
            Self::Line => Self::Line,
            Self::Indented(depth) => Self::Indented(depth + 1),
        }
    }

    fn new_line(self, out: &mut dyn Write) -> fmt::Result {
        match self {
            Self::Line => Ok(()),
            Self::Indented(depth) => write!(out, "\n{:width$}", "", width = depth * 4),
        }
    }

    fn separator(self, out: &mut dyn Write) -> fmt::Result {
        out.write_str(match self {
            Self::Line => ", ",
            Self::Indented(_) => ",",
        })
    }
}

/// PostgreSQL's `jsonb` output: `{"a": 1, "b": [1, 2]}`.
impl fmt::Display for Jsonb<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(*self, Layout::Line, f)
    }
}

impl Jsonb<'_> {
    /// The document over several lines, indented by four blanks (`jsonb_pretty`).
    #[must_use]
    pub fn pretty(self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write_value(self, Layout::Indented(0), &mut text);
        text
    }
}

fn write_value(value: Jsonb<'_>, layout: Layout, out: &mut dyn Write) -> fmt::Result {
    match value.kind() {
        JsonbKind::Null => out.write_str("null"),
        JsonbKind::Bool => out.write_str(if value.as_bool() == Some(true) {
            "true"
        } else {
            "false"
        }),
        JsonbKind::Number => match value.as_number() {
            Some(number) => write!(out, "{number}"),
            None => out.write_str("null"),
        },
        JsonbKind::String => write_string(value.as_str().unwrap_or_default(), out),
        JsonbKind::Array => {
            out.write_char('[')?;
            let inner = layout.deeper();
            for (index, item) in value.items().enumerate() {
                if index > 0 {
                    layout.separator(out)?;
                }
                inner.new_line(out)?;
                write_value(item, inner, out)?;
            }
            layout.new_line(out)?;
            out.write_char(']')
        }
        JsonbKind::Object => {
            out.write_char('{')?;
            let inner = layout.deeper();
            for (index, (key, item)) in value.entries().enumerate() {
                if index > 0 {
                    layout.separator(out)?;
                }
                inner.new_line(out)?;
                write_string(key, out)?;
                out.write_str(": ")?;
                write_value(item, inner, out)?;
            }
            layout.new_line(out)?;
            out.write_char('}')
        }
    }
}

/// A JSON string with its quotes; only what must be escaped is.
fn write_string(text: &str, out: &mut dyn Write) -> fmt::Result {
    out.write_char('"')?;
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.write_str(text.get(plain..index).unwrap_or_default())?;
        plain = index + 1;
        match byte {
            b'"' => out.write_str("\\\"")?,
            b'\\' => out.write_str("\\\\")?,
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            0x08 => out.write_str("\\b")?,
            0x0c => out.write_str("\\f")?,
            other => write!(out, "\\u{other:04x}")?,
        }
    }
    out.write_str(text.get(plain..).unwrap_or_default())?;
    out.write_char('"')
}
