use flowstone_types::jsonb::parse;
use flowstone_types::{EvalError, EvalErrorKind, SqlJsonKind};

use super::evaluate::{Found, Request};
use super::{DEPTH_MAX, PARTS_MAX, Path};
use crate::pattern::Patterns;

/// What a path finds in a document, one after the other.
fn found(document: &str, path: &str) -> Result<String, EvalError> {
    found_with(document, path, "{}", false).map(|(items, _)| items)
}

fn found_with(
    document: &str,
    path: &str,
    variables: &str,
    is_silent: bool,
) -> Result<(String, Found), EvalError> {
    let (document, variables) = (parse(document).unwrap(), parse(variables).unwrap());
    let request = Request {
        document: document.as_jsonb(),
        variables: Some(variables.as_jsonb()),
        is_silent,
    };
    let mut items = Vec::new();
    let ended = Path::parse(path)?.find(request, &mut Patterns::default(), &mut |item| {
        items.push(item.to_string());
        Ok(())
    })?;
    Ok((items.join(" "), ended))
}

fn exists(document: &str, path: &str) -> Found {
    let document = parse(document).unwrap();
    let request = Request {
        document: document.as_jsonb(),
        variables: None,
        is_silent: true,
    };
    Path::parse(path)
        .and_then(|path| path.exists(request, &mut Patterns::default()))
        .unwrap()
}

#[test]
fn accessors_lead_into_documents() {
    let document = r#"{"a": [1, {"b": 2}, [3]], "c d": null}"#;
    for (path, expected) in [
        ("$", r#"{"a": [1, {"b": 2}, [3]], "c d": null}"#),
        ("$.\"c d\"", "null"),
        ("$.a[*]", r#"1 {"b": 2} [3]"#),
        ("$.a", r#"[1, {"b": 2}, [3]]"#),
        ("$.a.b", "2"),
        ("$.a[0, last, 1 to 2]", r#"1 [3] {"b": 2} [3]"#),
        ("$.a[last - 1]", r#"{"b": 2}"#),
        ("$.a[7]", ""),
        ("$.*", r#"[1, {"b": 2}, [3]] null"#),
        ("$.**{2}", r#"1 {"b": 2} [3]"#),
        ("$.**{last}", "1 2 3 null"),
        ("$.**.b", "2 2"),
        ("$.a.size()", "3"),
        ("$.a[*].size()", "1 1 1"),
        ("$.a[*].type()", "\"number\" \"object\" \"array\""),
        ("$.a.keyvalue().key", ""),
        ("$.keyvalue().key", "\"a\" \"c d\""),
    ] {
        let found = found(document, path).map_err(|error| error.message);
        match path {
            "$.a.keyvalue().key" => assert!(found.is_err()),
            _ => assert_eq!(found.as_deref(), Ok(expected), "{path}"),
        }
    }
}

#[test]
fn filters_keep_what_a_condition_is_true_of() {
    let document = r#"[1, "1", null, true, [2], {"a": 3}]"#;
    for (path, expected) in [
        ("$[*] ? (@ == 1)", "1"),
        ("$[*] ? (@ != null)", r#"1 "1" true 2 {"a": 3}"#),
        ("$[*] ? ((@ > 0) is unknown)", r#""1" true {"a": 3}"#),
        ("$[*] ? (@.a > 1 && @.a < 4)", r#"{"a": 3}"#),
        ("$[*] ? (!(@ > 1))", "1 null"),
        (
            "$[*] ? (exists(@.a) || @ starts with \"1\")",
            r#""1" {"a": 3}"#,
        ),
        ("$[*] ? (@ like_regex \"^[01]$\")", "\"1\""),
        ("$ ? (@ == 2)", "[2]"),
    ] {
        assert_eq!(found(document, path).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn numbers_are_computed_with_all_their_digits() {
    for (path, expected) in [
        ("1 + 2 * 3 - 4", "3"),
        ("-(1 + 1)", "-2"),
        ("1 / 3", "0.33333333333333333333"),
        ("200 / 3", "66.6666666666666667"),
        ("1 / 30000", "0.000033333333333333333333"),
        ("0.1 + 0.2", "0.3"),
        ("-7 % 3", "-1"),
        ("7.5 % 2", "1.5"),
        (
            "12345678901234567890 * 98765432109876543210",
            "1219326311370217952237463801111263526900",
        ),
        ("(-1.5).floor()", "-2"),
        ("(-1.5).ceiling()", "-1"),
        ("(-1.5).abs()", "1.5"),
        ("\" 1.50 \".double()", "1.5"),
        (".5 + 1.", "1.5"),
    ] {
        assert_eq!(found("0", path).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn a_strict_path_fails_where_a_lax_one_overlooks() {
    for (document, path, kind, message) in [
        (
            "{}",
            "strict $.a",
            SqlJsonKind::MemberNotFound,
            "JSON object does not contain key \"a\"",
        ),
        (
            "1",
            "strict $.*",
            SqlJsonKind::ObjectNotFound,
            "jsonpath wildcard member accessor can only be applied to an object",
        ),
        (
            "[1]",
            "strict $[1]",
            SqlJsonKind::Subscript,
            "jsonpath array subscript is out of bounds",
        ),
        (
            "1",
            "strict $[*]",
            SqlJsonKind::ArrayNotFound,
            "jsonpath wildcard array accessor can only be applied to an array",
        ),
        (
            "\"a\"",
            "$.abs()",
            SqlJsonKind::NonNumeric,
            "jsonpath item method .abs() can only be applied to a numeric value",
        ),
        (
            "[1,2]",
            "$ + 1",
            SqlJsonKind::Singleton,
            "left operand of jsonpath operator + is not a single numeric value",
        ),
        (
            "[\"a\"]",
            "-$[*]",
            SqlJsonKind::NumberNotFound,
            "operand of unary jsonpath operator - is not a numeric value",
        ),
    ] {
        let error = found(document, path).unwrap_err();
        assert_eq!(error, EvalError::new(EvalErrorKind::SqlJson(kind), message));
        assert_eq!(
            found_with(document, path, "{}", true).unwrap().1,
            Found::Failed
        );
    }
    assert_eq!(
        exists("{\"a\": [1]}", "strict $.a[*] ? (@.b == 1)"),
        Found::Nothing
    );
    assert_eq!(exists("{\"a\": 1}", "$.b"), Found::Nothing);
    assert_eq!(exists("{\"a\": 1}", "$.a"), Found::Some);
    assert_eq!(exists("{\"a\": 1}", "strict $.b"), Found::Failed);
}

#[test]
fn variables_are_members_of_an_object() {
    let with = |path, variables| found_with("[1,2,3]", path, variables, true);
    assert_eq!(with("$[*] ? (@ >= $min)", "{\"min\": 2}").unwrap().0, "2 3");
    assert_eq!(
        with("$x", "{}").unwrap_err(),
        EvalError::new(
            EvalErrorKind::UndefinedObject,
            "could not find jsonpath variable \"x\""
        )
    );
    assert!(with("$", "[]").is_err());
}

#[test]
fn what_is_no_path_is_refused() {
    for (path, message) in [
        ("$[", "syntax error at end of jsonpath input"),
        ("$.a]", "syntax error at or near \"]\" of jsonpath input"),
        (
            "$ == 1 == 2",
            "syntax error at or near \"==\" of jsonpath input",
        ),
        ("!$ == 1", "syntax error at or near \"$\" of jsonpath input"),
        (
            "$ ? ($.a)",
            "syntax error at or near \")\" of jsonpath input",
        ),
        (
            "1.type()",
            "trailing junk after numeric literal at or near \"1.t\" of jsonpath input",
        ),
        (
            "01",
            "trailing junk after numeric literal at or near \"01\" of jsonpath input",
        ),
        (
            "\"a",
            "unexpected end of quoted string at end of jsonpath input",
        ),
        ("@", "@ is not allowed in root expressions"),
        ("last", "LAST is allowed only in array subscripts"),
        ("$.foo()", "syntax error at or near \"(\" of jsonpath input"),
        ("", "invalid input syntax for type jsonpath: \"\""),
        (
            "$ ? (@ like_regex \"(\")",
            "invalid regular expression: parentheses () not balanced",
        ),
    ] {
        assert_eq!(Path::parse(path).unwrap_err().message, message, "{path}");
    }
}

#[test]
fn escapes_stand_for_letters() {
    for (path, expected) in [
        (r#""a\x41\u0042\u{43}\q\t""#, r#""aABCq\t""#),
        (r#""\ud83d\ude00""#, "\"😀\""),
        (r"$.\u0061", "1"),
        ("$ /* here */ . a", "1"),
    ] {
        assert_eq!(found("{\"a\": 1}", path).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn large_paths_and_deep_searches_are_refused() {
    let long = format!("${}", ".a".repeat(PARTS_MAX));
    assert_eq!(
        Path::parse(&long).unwrap_err().kind,
        EvalErrorKind::NotSupported
    );
    let deep = format!(
        "{}1{}",
        "(".repeat(DEPTH_MAX + 1),
        ")".repeat(DEPTH_MAX + 1)
    );
    assert_eq!(
        Path::parse(&deep).unwrap_err().kind,
        EvalErrorKind::NotSupported
    );
    let nested = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    let everywhere = format!("$[0]{}", ".**".repeat(2));
    assert!(found(&nested, &everywhere).is_ok());
    assert_eq!(
        found("[[1]]", &format!("${}", "[0]".repeat(200))).as_deref(),
        Ok("1")
    );
}
