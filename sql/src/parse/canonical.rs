//! The text that the catalog keeps of a query or an expression.
//!
//! Owns that what is kept is read again as what was meant: `sqlparser` writes some trees so that they are read as others, or as none. Must not know the
//! catalog. Called wherever a tree becomes a text that is parsed again.
//!
//! Invariant. The text is parsed to the tree it was made of, up to parentheses, or there is none.

use std::fmt::Display;
use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, Value, ValueWithSpan, VisitMut, VisitorMut};

use super::{parse_expr, parse_query};
use crate::error::Error;

/// The text of a query.
///
/// # Errors
/// [`crate::error::ErrorKind::FeatureNotSupported`] if no text is read as this query.
pub fn query_text(query: &Query) -> Result<String, Error> {
    let mut canonical = query.clone();
    let text = text(&mut canonical);
    match parse_query(&text) {
        Ok(read) if *read == canonical => Ok(text),
        _ => Err(not_kept("query")),
    }
}

/// The text of an expression.
///
/// # Errors
/// As [`query_text`].
pub fn expr_text(expr: &Expr) -> Result<String, Error> {
    let mut canonical = expr.clone();
    let text = text(&mut canonical);
    match parse_expr(&text) {
        Ok(read) if read == canonical => Ok(text),
        _ => Err(not_kept("expression")),
    }
}

fn not_kept(what: &str) -> Error {
    Error::unsupported(format!("this {what} cannot be stored"))
        .with_detail("Its text would be read as something else.")
        .with_hint("Write it without unusual names, or with parentheses.")
}

/// Makes a tree one that can be written, and writes it.
fn text<T: Clone + Display + VisitMut>(tree: &mut T) -> String {
    let _ = VisitMut::visit(tree, &mut Separator);
    let mut doubled = tree.clone();
    let _ = VisitMut::visit(&mut doubled, &mut Doubler);
    doubled.to_string()
}

/// `- -1` would be written as `--1`, the beginning of a comment.
struct Separator;

impl VisitorMut for Separator {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::UnaryOp { expr: operand, .. } = expr
            && operand
                .to_string()
                .starts_with(|first: char| "+-~@!|/#".contains(first))
        {
            let inner = std::mem::replace(operand.as_mut(), Expr::value(Value::Null));
            **operand = Expr::Nested(Box::new(inner));
        }
        ControlFlow::Continue(())
    }
}

/// Doubles the quotes inside of literals: some are written as they are, the others as well where there are two, as if that had been done already.
struct Doubler;

impl VisitorMut for Doubler {
    type Break = ();

    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
        if let Value::SingleQuotedString(text) | Value::NationalStringLiteral(text) =
            &mut value.value
        {
            *text = text.replace('\'', "''");
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_meant() {
        for (text, expected) in [
            ("- -1", "-(-1)"),
            ("- - -a", "-(-(-a))"),
            ("a - -1", "a - -1"),
            ("'it''s'", "'it''s'"),
            ("'a''''b'", "'a''''b'"),
            ("''''''", "''''''"),
            (r"'a\''b'", r"'a\''b'"),
            (r"'\'", r"'\'"),
            ("N'it''s'", "N'it''s'"),
            ("x LIKE 'a''''%' ESCAPE ''''", "x LIKE 'a''''%' ESCAPE ''''"),
            (r"E'it\'s\n'", r"E'it\'s\n'"),
            ("interval '1 day'", "INTERVAL '1 day'"),
        ] {
            let tree = parse_expr(text).unwrap();
            assert_eq!(expr_text(&tree).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_would_be_read_as_something_else_is_refused() {
        let tree = parse_query(r#"SELECT a AS "two """" quotes""#).unwrap();
        let error = query_text(&tree).unwrap_err();
        assert_eq!(error.message, "this query cannot be stored");
    }
}
