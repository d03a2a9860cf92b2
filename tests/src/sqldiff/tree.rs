//! SQL as a tree of texts whose parts can be left out or replaced.
//!
//! Must not know what the parts mean: whether a smaller statement is still one, PostgreSQL says.

use super::types::Type;

/// A part of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// SQL as it is.
    Text(String),
    /// Parts one after another.
    Sequence(Vec<Tree>),
    /// A part that can be left out.
    Optional(Box<Tree>),
    /// Items with something between them, of which all but a few can be left out.
    List {
        /// What is between the items.
        separator: &'static str,
        /// How many must stay.
        least: usize,
        /// The items.
        items: Vec<Tree>,
    },
    /// A part in whose place another one of the same kind can stand.
    Part {
        /// Its kind.
        kind: Kind,
        /// The part.
        inner: Box<Tree>,
    },
}

/// What can stand in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An expression of a type.
    Expression(Type),
    /// A query without parentheses.
    Query,
    /// An item of FROM.
    Relation,
}

impl Tree {
    /// Text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self::Sequence(Vec::new())
    }

    /// A part that can be left out.
    #[must_use]
    pub fn optional(tree: Self) -> Self {
        Self::Optional(Box::new(tree))
    }

    /// Items with commas between them, one of which must stay.
    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::List {
            separator: ", ",
            least: 1,
            items,
        }
    }

    /// An expression of a type.
    #[must_use]
    pub fn expression(r#type: Type, inner: Self) -> Self {
        Self::Part {
            kind: Kind::Expression(r#type),
            inner: Box::new(inner),
        }
    }

    /// A query.
    #[must_use]
    pub fn query(parts: Vec<Self>) -> Self {
        Self::Part {
            kind: Kind::Query,
            inner: Box::new(Self::Sequence(parts)),
        }
    }

    /// An item of FROM.
    #[must_use]
    pub fn relation(parts: Vec<Self>) -> Self {
        Self::Part {
            kind: Kind::Relation,
            inner: Box::new(Self::Sequence(parts)),
        }
    }

    /// The SQL.
    #[must_use]
    pub fn sql(&self) -> String {
        let mut sql = String::new();
        self.write(&mut sql);
        sql
    }

    fn write(&self, sql: &mut String) {
        match self {
            Self::Text(text) => sql.push_str(text),
            Self::Sequence(parts) => parts.iter().for_each(|part| part.write(sql)),
            Self::Optional(inner) | Self::Part { inner, .. } => inner.write(sql),
            Self::List {
                separator, items, ..
            } => {
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        sql.push_str(separator);
                    }
                    item.write(sql);
                }
            }
        }
    }

    /// Every tree that is this one with one part left out or replaced, the shortest first. None is as long as this one.
    #[must_use]
    pub fn smaller(&self) -> Vec<Self> {
        let length = self.sql().len();
        let mut sized: Vec<(usize, Self)> = self
            .edits()
            .into_iter()
            .map(|tree| (tree.sql().len(), tree))
            .filter(|(size, _)| *size < length)
            .collect();
        sized.sort_by_key(|(size, _)| *size);
        sized.into_iter().map(|(_, tree)| tree).collect()
    }

    fn edits(&self) -> Vec<Self> {
        match self {
            Self::Text(_) => Vec::new(),
            Self::Sequence(parts) => within(parts).map(Self::Sequence).collect(),
            Self::Optional(inner) => {
                let kept = inner.edits().into_iter().map(Self::optional);
                std::iter::once(Self::nothing()).chain(kept).collect()
            }
            Self::List {
                separator,
                least,
                items,
            } => fewer(items, *least)
                .chain(within(items))
                .map(|items| Self::List {
                    separator,
                    least: *least,
                    items,
                })
                .collect(),
            Self::Part { kind, inner } => {
                let mut edits = inner.replacements(*kind);
                edits.extend(inner.edits().into_iter().map(|inner| Self::Part {
                    kind: *kind,
                    inner: Box::new(inner),
                }));
                edits
            }
        }
    }

    /// What can stand in place of a part of this kind with this within.
    fn replacements(&self, kind: Kind) -> Vec<Self> {
        let mut found = Vec::new();
        self.collect(kind, &mut found);
        if let Kind::Expression(r#type) = kind
            && !matches!(self, Self::Text(_))
        {
            let null = format!("NULL::{}", r#type.cast());
            let value = r#type.plain_value().map(|value| r#type.literal(value));
            let literals = value.into_iter().chain([null]);
            found.extend(literals.map(|text| Self::expression(r#type, Self::Text(text))));
        }
        found
    }

    /// The parts of a kind; of expressions those of any type, because PostgreSQL says what fits.
    fn collect(&self, kind: Kind, found: &mut Vec<Self>) {
        match self {
            Self::Text(_) => {}
            Self::Sequence(parts) | Self::List { items: parts, .. } => {
                for part in parts {
                    part.collect(kind, found);
                }
            }
            Self::Optional(inner) => inner.collect(kind, found),
            Self::Part { kind: other, inner } => {
                if std::mem::discriminant(other) == std::mem::discriminant(&kind) {
                    found.push(self.clone());
                }
                inner.collect(kind, found);
            }
        }
    }
}

/// The lists with one of the parts edited.
fn within(parts: &[Tree]) -> impl Iterator<Item = Vec<Tree>> {
    parts.iter().enumerate().flat_map(move |(place, part)| {
        part.edits().into_iter().map(move |edited| {
            let mut parts = parts.to_vec();
            if let Some(part) = parts.get_mut(place) {
                *part = edited;
            }
            parts
        })
    })
}

/// The lists without some of the items: without each half, and without each one.
fn fewer(items: &[Tree], least: usize) -> impl Iterator<Item = Vec<Tree>> {
    let half = items.len() / 2;
    let halves = [0..half, half..items.len()];
    let ones = (0..items.len()).map(|place| place..place + 1);
    halves
        .into_iter()
        .filter(|range| range.len() > 1)
        .chain(ones)
        .map(move |out| {
            let kept = items.iter().enumerate();
            kept.filter(|(place, _)| !out.contains(place))
                .map(|(_, item)| item.clone())
                .collect::<Vec<_>>()
        })
        .filter(move |items| items.len() >= least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqldiff::types::{BOOL, INT4};

    #[test]
    fn smaller_statements_lack_parts_or_have_parts_of_parts() {
        let sum = Tree::expression(
            INT4,
            Tree::Sequence(vec![
                Tree::text("("),
                Tree::expression(INT4, Tree::text("a.x")),
                Tree::text(" + "),
                Tree::expression(INT4, Tree::text("a.y")),
                Tree::text(")"),
            ]),
        );
        let filter = Tree::Sequence(vec![
            Tree::text(" WHERE "),
            Tree::expression(BOOL, Tree::text("true")),
        ]);
        let query = Tree::query(vec![
            Tree::text("SELECT "),
            Tree::list(vec![sum, Tree::text("2")]),
            Tree::text(" FROM a"),
            Tree::optional(filter),
        ]);
        let found: Vec<String> = query.smaller().iter().map(Tree::sql).collect();
        for expected in [
            "SELECT (a.x + a.y), 2 FROM a",
            "SELECT 2 FROM a WHERE true",
            "SELECT a.y, 2 FROM a WHERE true",
            "SELECT 1, 2 FROM a WHERE true",
        ] {
            assert!(found.iter().any(|sql| sql == expected), "{found:#?}");
        }
        assert!(found.is_sorted_by_key(String::len));
    }
}
