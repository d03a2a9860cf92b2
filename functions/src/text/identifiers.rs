//! Identifiers as SQL writes and reads them.

use arrow_array::Array;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::EvalError;

use super::{text, text_list};
use crate::errors::{EvalResult, invalid_parameter};
use crate::udf::{P, TextList, function, map_rows, map1, overload, texts};

/// The functions of this module.
pub(super) fn functions() -> Vec<ScalarUDF> {
    vec![
        function(
            "quote_ident",
            vec![overload(&[P::Text], text(), |call| {
                map1(call, |name: &str| Ok(quote_ident(name)))
            })],
        ),
        function(
            "parse_ident",
            vec![
                overload(&[P::Text], text_list(), |call| {
                    map1(call, |text: &str| parse_ident(text, Rest::Refused))
                }),
                overload(&[P::Text, P::Bool], text_list(), |call| {
                    let names = texts(call.arg(0)?)?;
                    let strict = crate::cast::booleans(call.arg(1)?)?;
                    map_rows(call, |row| {
                        if names.is_null(row) || strict.is_null(row) {
                            return Ok(None);
                        }
                        let rest = if strict.value(row) {
                            Rest::Refused
                        } else {
                            Rest::Ignored
                        };
                        parse_ident(names.value(row), rest).map(Some)
                    })
                }),
            ],
        ),
    ]
}

/// What becomes of that which follows an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Refused,
    Ignored,
}

fn not_an_identifier(text: &str) -> EvalError {
    invalid_parameter(format!("string is not a valid identifier: \"{text}\""))
}

/// Blanks of SQL.
fn without_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}'])
}

/// The parts of a qualified name, as they are folded: ASCII alone, unless they are quoted.
fn parse_ident(text: &str, behind: Rest) -> EvalResult<TextList> {
    let mut parts = Vec::new();
    let mut rest = without_blanks(text);
    loop {
        let part;
        (part, rest) = first_part(rest).ok_or_else(|| not_an_identifier(text))?;
        parts.push(Some(part));
        rest = without_blanks(rest);
        match rest.strip_prefix('.') {
            Some(tail) => rest = without_blanks(tail),
            None if rest.is_empty() || behind == Rest::Ignored => return Ok(parts),
            None => return Err(not_an_identifier(text)),
        }
    }
}

/// A part of a name that a text begins with, and what follows it.
fn first_part(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut part = String::new();
        let mut rest = quoted;
        loop {
            let (inner, tail) = rest.split_once('"')?;
            part.push_str(inner);
            match tail.strip_prefix('"') {
                Some(tail) => {
                    part.push('"');
                    rest = tail;
                }
                None => return (!part.is_empty()).then_some((part, tail)),
            }
        }
    }
    let starts = |letter: char| letter.is_ascii_alphabetic() || letter == '_' || !letter.is_ascii();
    let goes_on = |letter: char| starts(letter) || letter.is_ascii_digit() || letter == '$';
    if !text.starts_with(starts) {
        return None;
    }
    let end = text.find(|letter| !goes_on(letter)).unwrap_or(text.len());
    let (part, rest) = text.split_at(end);
    Some((part.to_ascii_lowercase(), rest))
}

/// The name as SQL needs it written: in double quotes unless it is plain lower case.
pub(super) fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    if plain && !RESERVED.contains(&name) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Words with a meaning in SQL, which names are not without quotes: PostgreSQL's, but for those that it calls unreserved.
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
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
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
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, rest: Rest) -> Option<Vec<String>> {
        let parts = parse_ident(text, rest).ok()?;
        Some(parts.into_iter().flatten().collect())
    }

    #[test]
    fn names_are_taken_apart() {
        let strict = |text| parts(text, Rest::Refused).unwrap_or_default();
        assert_eq!(
            strict("\"SomeSchema\".someTable"),
            ["SomeSchema", "sometable"]
        );
        assert_eq!(strict(" a . B$1\t"), ["a", "b$1"]);
        assert_eq!(strict("ÄB.\"a\"\"b\""), ["Äb", "a\"b"]);
        let lenient = parts("foo.boo[]", Rest::Ignored).unwrap_or_default();
        assert_eq!(lenient, ["foo", "boo"]);
        for text in [
            "",
            "foo.boo[]",
            "\"a",
            "\"\"",
            ".a",
            "a.",
            "1020",
            "a.1",
            "a b",
        ] {
            assert_eq!(parts(text, Rest::Refused), None, "{text}");
        }
        assert_eq!(parts("a.", Rest::Ignored), None);
    }
}
