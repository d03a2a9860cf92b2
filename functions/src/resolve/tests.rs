//! What calls resolve to, beside what PostgreSQL's documentation says and its parser does.

mod functions;
mod operators;
mod tables;

use datafusion::logical_expr::lit;
use flowstone_types::sql_type::RegKind;

use super::*;

fn array(item: SqlType) -> SqlType {
    SqlType::Array(Box::new(item))
}

/// `text` is what has the type `text`, `?` what has none; other words are types as they are written in messages.
fn given(types: &str) -> Vec<Given> {
    types
        .split(", ")
        .filter(|name| !name.is_empty())
        .map(|name| match name {
            "?" => Given::Unknown,
            "null" => Given::Null,
            name => Given::Of(name.parse().unwrap()),
        })
        .collect()
}

fn shown(arguments: &[SqlType], result: &SqlType) -> String {
    let arguments: Vec<String> = arguments.iter().map(SqlType::to_string).collect();
    format!("{} -> {result}", arguments.join(", "))
}

fn scalar(name: &str, types: &str) -> String {
    match resolve_scalar(name, &given(types)) {
        Ok(call) => shown(&call.arguments, &call.result),
        Err(error) => error.to_string(),
    }
}

/// `types` are those of one operand or of two.
fn operator(symbol: &str, types: &str) -> String {
    let given = given(types);
    let found = match given.as_slice() {
        [right] => resolve_operator(symbol, None, right),
        [left, right] => resolve_operator(symbol, Some(left), right),
        _ => panic!("{types} are no operands"),
    };
    match found {
        Ok(call) => shown(&call.arguments, &call.result),
        Err(error) => error.to_string(),
    }
}

fn aggregate(name: &str, types: &str) -> String {
    match resolve_aggregate(name, &given(types)) {
        Ok(call) => shown(&call.arguments, &call.result),
        Err(error) => error.to_string(),
    }
}

fn window(name: &str, types: &str) -> String {
    match resolve_window(name, &given(types)) {
        Ok(call) => shown(&call.arguments, &call.result),
        Err(error) => error.to_string(),
    }
}

fn common(types: &str) -> String {
    match common_type(&given(types)) {
        Ok(common) => common.to_string(),
        Err(error) => error.to_string(),
    }
}

fn check(found: impl Fn(&str, &str) -> String, cases: &[(&str, &str, &str)]) {
    for (name, types, expected) in cases {
        assert_eq!(found(name, types), *expected, "{name} of {types}");
    }
}

#[test]
fn common_types_are_those_of_chapter_10_5() {
    for (types, expected) in [
        ("text, ?", "text"),
        ("?, ?", "text"),
        ("", "text"),
        ("numeric(2,1), integer", "numeric(11,1)"),
        ("integer, numeric(2,1)", "numeric(11,1)"),
        ("integer, numeric", "numeric"),
        ("real, ?", "real"),
        ("numeric(4,2), real", "real"),
        ("real, double precision", "double precision"),
        ("numeric(4,2), null", "numeric(4,2)"),
        ("numeric(4,2), ?", "numeric"),
        ("numeric(38,0), numeric(4,2)", "numeric"),
        (
            "character varying(3), character varying(3)",
            "character varying(3)",
        ),
        (
            "character varying(3), character varying(4)",
            "character varying",
        ),
        ("character varying(3), text", "character varying"),
        ("character(3), character(3)", "character(3)"),
        ("date, timestamp with time zone", "timestamp with time zone"),
        ("smallint[], integer[]", "integer[]"),
        ("uint2, integer", "integer"),
        ("uint4, integer", "bigint"),
        ("uint8, integer", "numeric(20,0)"),
        ("integer, text", "types integer and text cannot be matched"),
        (
            "integer, boolean",
            "types integer and boolean cannot be matched",
        ),
        (
            "date, time without time zone",
            "could not convert type time without time zone to date",
        ),
    ] {
        assert_eq!(common(types), expected, "{types}");
    }
}

#[test]
fn casts_have_the_contexts_of_pg_cast() {
    use CastContext::{Assignment, Explicit, Implicit};
    for (from, to, expected) in [
        ("integer", "bigint", Some(Implicit)),
        ("bigint", "integer", Some(Assignment)),
        ("integer", "numeric", Some(Implicit)),
        ("numeric", "double precision", Some(Implicit)),
        ("double precision", "numeric", Some(Assignment)),
        ("real", "double precision", Some(Implicit)),
        ("integer", "boolean", Some(Explicit)),
        ("bigint", "boolean", None),
        ("integer", "text", Some(Assignment)),
        ("text", "integer", Some(Explicit)),
        ("text", "character varying", Some(Implicit)),
        ("name", "character varying", Some(Assignment)),
        ("character", "text", Some(Implicit)),
        ("date", "timestamp with time zone", Some(Implicit)),
        ("timestamp with time zone", "date", Some(Assignment)),
        (
            "timestamp without time zone",
            "timestamp with time zone",
            Some(Implicit),
        ),
        ("time without time zone", "interval", Some(Implicit)),
        ("interval", "time without time zone", Some(Assignment)),
        ("date", "time without time zone", None),
        ("jsonb", "integer", Some(Explicit)),
        ("jsonb", "text", Some(Assignment)),
        ("integer", "jsonb", None),
        ("uuid", "bytea", None),
        ("integer", "oid", Some(Implicit)),
        ("oid", "integer", Some(Assignment)),
        ("oid", "numeric", None),
        ("integer[]", "bigint[]", Some(Implicit)),
        ("bigint[]", "integer[]", Some(Assignment)),
        ("text[]", "integer[]", Some(Explicit)),
        ("integer[]", "text", Some(Assignment)),
        ("integer[]", "integer", None),
        ("uint4", "bigint", Some(Implicit)),
        ("integer", "uint4", Some(Assignment)),
        ("bigint", "mz_timestamp", Some(Implicit)),
    ] {
        let (of, into): (SqlType, SqlType) = (from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(cast_context(&of, &into), expected, "{from} to {to}");
    }
}

#[test]
fn every_cast_that_is_made_can_be_done() {
    for from in SqlType::SCALARS {
        for to in SqlType::SCALARS {
            if cast_context(from, to).is_some() {
                assert!(crate::cast::can_cast(from, to), "{from} to {to}");
            }
        }
    }
}

#[test]
fn errors_have_hints() {
    let unknown = Given::Unknown;
    let of = Given::Of;
    let hint = |error: CallError| error.hint().unwrap_or_default();
    assert_eq!(
        hint(resolve_operator("+", Some(&of(SqlType::Text)), &of(SqlType::Int4)).unwrap_err()),
        "No operator matches the given name and argument types. You might need to add explicit type casts."
    );
    assert_eq!(
        hint(resolve_operator("-", None, &of(SqlType::Bool)).unwrap_err()),
        "No operator matches the given name and argument type. You might need to add an explicit type cast."
    );
    assert_eq!(
        hint(resolve_operator("+", Some(&unknown), &unknown).unwrap_err()),
        "Could not choose a best candidate operator. You might need to add explicit type casts."
    );
    let error = resolve_scalar("foo", &[of(SqlType::Numeric(Some((4, 2)))), unknown]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "function foo(numeric, unknown) does not exist"
    );
    assert_eq!(
        hint(error),
        "No function matches the given name and argument types. You might need to add explicit type casts."
    );
}

#[test]
fn a_literal_says_how_many_digits_are_kept() {
    let of = Given::Of;
    let call = resolve_scalar("round", &[of(SqlType::Numeric(None)), of(SqlType::Int4)]).unwrap();
    assert_eq!(call.result, SqlType::Numeric(None));
    let column = datafusion::logical_expr::col("x");
    assert_eq!(
        call.result_for(&[column, lit(2_i32)]).unwrap(),
        SqlType::Numeric(Some((38, 2)))
    );
}

#[test]
fn names_have_kinds() {
    assert_eq!(kind_of("upper"), Some(FunctionKind::Scalar));
    assert_eq!(kind_of("coalesce"), Some(FunctionKind::Scalar));
    assert_eq!(kind_of("unnest"), Some(FunctionKind::Scalar));
    assert_eq!(kind_of("sum"), Some(FunctionKind::Aggregate));
    assert_eq!(kind_of("lag"), Some(FunctionKind::Window));
    assert_eq!(kind_of("raise_error"), None);
    assert_eq!(kind_of("arrow_cast"), None);
}

#[test]
fn categories_have_preferred_types() {
    for sql_type in SqlType::SCALARS {
        if is_preferred(sql_type) {
            let others = SqlType::SCALARS.iter().filter(|other| {
                category(other) == category(sql_type) && is_preferred(other) && *other != sql_type
            });
            // Numbers have two, of which one is for object identifiers.
            let expected = usize::from(category(sql_type) == TypeCategory::Numeric);
            assert_eq!(others.count(), expected, "{sql_type}");
        }
    }
    assert_eq!(category(&array(SqlType::Int4)), TypeCategory::Array);
    assert_eq!(
        category(&SqlType::Reg(RegKind::Class)),
        TypeCategory::Numeric
    );
}
