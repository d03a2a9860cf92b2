//! Numbers in names that we gave, counted anew: parts of a query that do the same are the same then, wherever and however often the query has them.
//!
//! Owns what in a name is such a number: the binder and unnesting number relations and columns over the whole statement, so that the two references of one view differ in
//! nothing else. Called by [`super::recompute`] for queries and by [`super::chain`] for texts.
//!
//! Invariants. Different names stay different. What stands for a collection keeps its id, which is a word here.

use std::collections::BTreeMap;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, TableReference};
use datafusion::logical_expr::Expr;

use crate::names::INTERNAL;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// What a mark of ours says, with its number, and the number that it gets.
    known: BTreeMap<String, usize>,
}

/// What follows [`INTERNAL`] in a name: the word, the number, and the rest. Behind a word there is a blank before the number; digits that are part of the word say which of
/// several columns of one operator it is.
fn parts(text: &str) -> (&str, &str, &str) {
    let end = text
        .find(|letter: char| !letter.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (word, behind) = text.split_at(end);
    let digits = match behind.strip_prefix(' ') {
        Some(digits) if !word.is_empty() => digits,
        None if word.is_empty() => behind,
        _ => return (word, "", behind),
    };
    let end = digits
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(digits.len());
    match digits.split_at(end) {
        ("", _) => (word, "", behind),
        (number, rest) => (word, number, rest),
    }
}

/// A text without our marks and their numbers.
pub(super) fn without_numbers(text: &str) -> String {
    let mut marks = text.split(INTERNAL);
    let mut shown = marks.next().unwrap_or_default().to_owned();
    for mark in marks {
        let (word, _, rest) = parts(mark);
        shown.push_str(word);
        shown.push_str(rest);
    }
    shown
}

impl Numbering {
    /// A name with numbers of this numbering.
    pub(super) fn name(&mut self, text: &str) -> String {
        let mut marks = text.split(INTERNAL);
        let mut renamed = marks.next().unwrap_or_default().to_owned();
        for mark in marks {
            renamed.push(INTERNAL);
            let (word, number, rest) = parts(mark);
            if number.is_empty() {
                renamed.push_str(mark);
                continue;
            }
            let next = self.known.len() + 1;
            let number = *self.known.entry(format!("{word} {number}")).or_insert(next);
            let blank = if word.is_empty() { "" } else { " " };
            renamed.push_str(&format!("{word}{blank}{number}{rest}"));
        }
        renamed
    }

    /// The same of a relation.
    pub(super) fn relation(&mut self, relation: &TableReference) -> TableReference {
        match relation {
            TableReference::Bare { table } => TableReference::bare(self.name(table)),
            other => other.clone(),
        }
    }

    /// The same of all that an expression names.
    pub(super) fn expr(&mut self, expr: Expr) -> Result<Expr> {
        expr.transform_up(|part| {
            Ok(match part {
                Expr::Column(column) => {
                    let relation = column.relation.as_ref().map(|known| self.relation(known));
                    Transformed::yes(Expr::Column(Column::new(relation, self.name(&column.name))))
                }
                Expr::Alias(mut alias) => {
                    alias.relation = alias.relation.as_ref().map(|known| self.relation(known));
                    alias.name = self.name(&alias.name);
                    Transformed::yes(Expr::Alias(alias))
                }
                other => Transformed::no(other),
            })
        })
        .map(|transformed| transformed.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_anew_and_other_digits_are_kept() {
        let name = |numbering: &mut Numbering, text: &str| {
            let marked = text.replace('~', &INTERNAL.to_string());
            numbering.name(&marked).replace(INTERNAL, "~")
        };
        let mut numbering = Numbering::default();
        for (text, expected) in [
            ("t~17", "t~1"),
            ("t~4", "t~2"),
            ("u~17", "u~1"),
            ("~mark 3", "~mark 3"),
            ("~mark 9", "~mark 4"),
            ("~items~17", "~items~1"),
            ("~aggregate", "~aggregate"),
            ("~sort2", "~sort2"),
            ("~u5", "~u5"),
            ("plain 7", "plain 7"),
        ] {
            assert_eq!(name(&mut numbering, text), expected, "{text}");
        }
        let marked = "a~2 + ~mark 3 = ~sort2 + 3".replace('~', &INTERNAL.to_string());
        assert_eq!(without_numbers(&marked), "a + mark = sort2 + 3");
    }
}
