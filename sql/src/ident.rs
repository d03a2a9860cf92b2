//! Identifiers, names, quoted text and values of options: what every statement is made of.
//!
//! Must not know statements, the catalog or connectors. Made by [`crate::parse`]; [`crate::ast`] has them under its own name.

use std::fmt;

use crate::error::Error;

/// An identifier as PostgreSQL understands it: folded to lower case unless it was quoted.
#[derive(Clone, Debug, Eq, PartialOrd, Ord)]
pub struct Ident {
    /// The name.
    pub value: String,
    /// Where it is in the whole query string: characters, from 1. 0 if it was not written anywhere.
    pub position: usize,
}

impl Ident {
    /// An identifier that no user wrote.
    pub fn new(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            position: 0,
        }
    }
}

/// Two identifiers are equal if they name the same thing, wherever they are written.
impl PartialEq for Ident {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote_ident(&self.value))
    }
}

/// A possibly qualified name: `item`, `schema.item` or `database.schema.item`. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The parts, outermost first.
    pub parts: Vec<Ident>,
}

impl Name {
    /// A name of these parts that no user wrote.
    pub fn new<I, S>(parts: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            parts: parts.into_iter().map(Ident::new).collect(),
        }
    }

    /// The last part: the thing's own name.
    #[must_use]
    pub fn item(&self) -> &str {
        self.parts.last().map_or("", |ident| &ident.value)
    }

    /// Where it starts in the whole query string: characters, from 1; 0 if unknown.
    #[must_use]
    pub fn position(&self) -> usize {
        self.parts.first().map_or(0, |ident| ident.position)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write!(f, "{part}")?;
        }
        Ok(())
    }
}

/// Words that PostgreSQL does not accept as a bare identifier everywhere.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "qualify",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "set",
    "similar",
    "some",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// The words that are no bare identifiers, in their order.
pub(crate) const fn reserved_words() -> &'static [&'static str] {
    RESERVED
}

/// The identifier as SQL: bare where PostgreSQL would read the same name back, else in double quotes.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    let mut chars = name.chars();
    let bare = chars
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$')
        && RESERVED.binary_search(&name).is_err();
    if bare {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// The text as a SQL string literal.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionValue {
    /// A string literal.
    String(String),
    /// A number, as written.
    Number(String),
    /// A word, as written: `require`, `true`, `postgres`.
    Word(String),
    /// `SECRET name`
    Secret(Name),
    /// A qualified name.
    Name(Name),
    /// Servers.
    Addresses(Vec<Address>),
    /// Nothing: `VALIDATE` alone.
    None,
}

/// A server as it is written: its own address, and the one that it is reached at if that is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host` or `host:port`.
    pub address: String,
    /// `USING ADDRESS`: `host` or `host:port`.
    pub reached_at: Option<String>,
    /// Where it is written: characters, from 1.
    pub position: usize,
}

impl OptionValue {
    /// The value as text, if it is a plain one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Number(text) | Self::Word(text) => Some(text),
            Self::Secret(_) | Self::Name(_) | Self::Addresses(_) | Self::None => None,
        }
    }

    /// The value as a boolean; an absent value is true.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        if *self == Self::None {
            return Some(true);
        }
        match self.text()?.to_ascii_lowercase().as_str() {
            "true" | "t" | "on" | "yes" | "1" => Some(true),
            "false" | "f" | "off" | "no" | "0" => Some(false),
            _ => None,
        }
    }
}

/// `error` at the place where `name` is written.
pub(crate) fn at(error: Error, name: &Name) -> Error {
    if name.position() > 0 {
        error.at(name.position())
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::{RESERVED, quote_ident};

    #[test]
    fn reserved_words_are_sorted_for_binary_search() {
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn identifiers_are_quoted_only_where_needed() {
        for (name, expected) in [
            ("a_1", "a_1"),
            ("A", "\"A\""),
            ("user", "\"user\""),
            ("1a", "\"1a\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
            ("é", "\"é\""),
        ] {
            assert_eq!(quote_ident(name), expected);
        }
    }
}
