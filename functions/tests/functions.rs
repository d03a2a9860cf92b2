//! Golden tests: expressions as SQL, against the values PostgreSQL 15 gives.
#![expect(
    clippy::unwrap_used,
    reason = "a failing helper of a test is a failing test"
)]

use arrow_array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use flowstone_functions::errors::eval_error;
use flowstone_functions::session_state;
use flowstone_types::{ColumnFormatter, SqlType};

fn run(sql: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        SessionContext::new_with_state(session_state())
            .sql(sql)
            .await?
            .collect()
            .await
    })
}

/// The rows of a query: columns joined by `|`, NULL as `∅`.
fn rows(sql: &str) -> Vec<String> {
    let batches = run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut shown = Vec::new();
    for batch in batches {
        let schema = batch.schema();
        let formatters: Vec<_> = batch
            .columns()
            .iter()
            .enumerate()
            .map(|(index, column)| {
                ColumnFormatter::new(
                    column.as_ref(),
                    &SqlType::from_field(schema.field(index)).unwrap(),
                )
                .unwrap()
            })
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = formatters
                .iter()
                .map(|formatter| {
                    let mut text = String::new();
                    if formatter.write_text(row, &mut text).unwrap() {
                        text
                    } else {
                        "∅".to_owned()
                    }
                })
                .collect();
            shown.push(cells.join("|"));
        }
    }
    shown
}

fn value(expression: &str) -> String {
    rows(&format!("SELECT {expression}")).concat()
}

fn error(expression: &str) -> String {
    match run(&format!("SELECT {expression}")) {
        Ok(_) => panic!("{expression} should fail"),
        Err(error) => eval_error(&error).message,
    }
}

fn check(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(expression, expected)| {
            let found = match run(&format!("SELECT {expression}")) {
                Ok(_) => value(expression),
                Err(error) => format!("error: {error}"),
            };
            (found != *expected)
                .then(|| format!("{expression}: expected {expected}, found {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn check_errors(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        assert_eq!(error(expression), *expected, "{expression}");
    }
}

#[test]
fn arithmetic_has_the_types_and_rounding_of_postgresql() {
    check(&[
        ("1 + 1", "2"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("1.5 + 2", "3.5"),
        ("1.5 * 1.25", "1.875"),
        ("10.0 / 4", "2.5000000000000000"),
        ("arrow_typeof(1 + 1)", "Int32"),
        ("arrow_typeof(3000000000 + 1)", "Int64"),
    ]);
}

#[test]
fn arithmetic_that_leaves_its_type_is_an_error() {
    check_errors(&[
        ("2147483647 + 1", "integer out of range"),
        ("9223372036854775807 + 1", "bigint out of range"),
        ("1 / 0", "division by zero"),
        ("1.0 / 0", "division by zero"),
        ("1 / CAST(0 AS DOUBLE)", "division by zero"),
        ("5 % 0", "division by zero"),
        (
            "power(CAST(10 AS DOUBLE), 300) * power(CAST(10 AS DOUBLE), 300)",
            "value out of range: overflow",
        ),
    ]);
}

#[test]
fn text_functions_count_characters() {
    check(&[
        ("length('jösé')", "4"),
        ("octet_length('jösé')", "6"),
        ("substring('Thomas' from 2 for 3)", "hom"),
        ("substr('alphabet', -1, 4)", "al"),
        ("position('om' in 'Thomas')", "3"),
        ("lpad('hi', 5, 'xy')", "xyxhi"),
        ("rpad('hello', 3)", "hel"),
        ("left('abcde', -2)", "abc"),
        ("right('abcde', 2)", "de"),
        ("split_part('abc~@~def~@~ghi', '~@~', -1)", "ghi"),
        ("initcap('hi THOMAS')", "Hi Thomas"),
        ("translate('12345', '143', 'ax')", "a2x5"),
        ("concat('a', NULL, 1, true)", "a1t"),
        ("concat_ws(',', 'a', NULL, 'b')", "a,b"),
        ("'a' || 1", "a1"),
        ("coalesce('a' || NULL, 'none')", "none"),
        ("btrim('xyxtrimyyx', 'xyz')", "trim"),
        ("quote_ident('Foo bar')", "\"Foo bar\""),
        ("quote_literal('O''Reilly')", "'O''Reilly'"),
        ("repeat('Pg', 3)", "PgPgPg"),
    ]);
}

#[test]
fn patterns_split_match_and_replace() {
    check(&[
        (
            "regexp_split_to_array('hello world', '\\s+')",
            "{hello,world}",
        ),
        ("regexp_split_to_array('abc', '')", "{a,b,c}"),
        (
            "regexp_match('foobarbequebaz', '(bar)(beque)')",
            "{bar,beque}",
        ),
        ("regexp_match('x', 'y')", "∅"),
        (
            "regexp_replace('foobarbaz', 'b(..)', 'X\\1Y', 'g')",
            "fooXarYXazY",
        ),
        ("regexp_replace('Thomas', '.[mN]a.', 'M')", "ThM"),
        (
            "string_to_array('xx~^~yy~^~zz', '~^~', 'yy')",
            "{xx,NULL,zz}",
        ),
    ]);
}

#[test]
fn encodings_and_hashes() {
    check(&[
        ("encode(decode('deadbeef', 'hex'), 'hex')", "deadbeef"),
        ("encode(decode('aGVsbG8=', 'base64'), 'escape')", "hello"),
        ("convert_from(decode('c3a9', 'hex'), 'UTF8')", "é"),
        ("md5('abc')", "900150983cd24fb0d6963f7d28e17f72"),
        (
            "encode(digest('abc', 'sha1'), 'hex')",
            "a9993e364706816aba3e25717850c26c9cd0d89d",
        ),
        (
            "encode(hmac('data', 'key', 'sha1'), 'hex')",
            "104152c5bfdca07bc633eebd46199f0255c9f49d",
        ),
        ("constant_time_eq('a', 'b')", "f"),
        (
            "crc32('The quick brown fox jumps over the lazy dog')",
            "1095738169",
        ),
        ("kafka_murmur2('foobar')", "1357151166"),
        ("kafka_murmur2(decode('616263', 'hex'))", "479470107"),
        ("kafka_murmur2('21') % 7", "3"),
        ("seahash('to be or not to be')", "1988685042348123509"),
        ("seahash(decode('', 'hex'))", "14492805990617963705"),
        ("arrow_typeof(crc32('a'))", "UInt32"),
        ("arrow_typeof(kafka_murmur2('a'))", "Int32"),
        ("arrow_typeof(seahash('a'))", "UInt64"),
        ("crc32(NULL)", "∅"),
        ("kafka_murmur2(NULL)", "∅"),
        ("seahash(NULL)", "∅"),
        ("digest('a', NULL)", "∅"),
        ("hmac('a', NULL, 'md5')", "∅"),
    ]);
    check_errors(&[
        ("decode('xy', 'hex')", "invalid hexadecimal digit: \"x\""),
        (
            "convert_from(decode('ff', 'hex'), 'utf8')",
            "invalid byte sequence for encoding \"UTF8\": 0xff",
        ),
    ]);
}

const DOCUMENT: &str = r#"pg_cast('{"a":{"b":[1,"x",null]},"n":1.50,"t":true}', 'text', 'jsonb')"#;

#[test]
fn documents_are_reached_into_by_operators() {
    let on_document = |operator: &str| value(&format!("{DOCUMENT} {operator}"));
    assert_eq!(on_document("-> 'a' -> 'b' -> 0"), "1");
    assert_eq!(on_document("-> 'a' -> 'b' ->> 1"), "x");
    assert_eq!(on_document("-> 'a' -> 'b' -> -1"), "null");
    assert_eq!(on_document("-> 'a' -> 'b' ->> 2"), "∅");
    assert_eq!(on_document("#>> string_to_array('a,b,1', ',')"), "x");
    assert_eq!(on_document("? 'n'"), "t");
    assert_eq!(
        on_document("@> pg_cast('{\"t\":true}', 'text', 'jsonb')"),
        "t"
    );
    assert_eq!(on_document("- 'a'"), r#"{"n": 1.5, "t": true}"#);
}

#[test]
fn documents_are_inspected_and_built() {
    check(&[
        ("jsonb_typeof(pg_cast('[1]', 'text', 'jsonb'))", "array"),
        ("jsonb_array_length(pg_cast('[1,2]', 'text', 'jsonb'))", "2"),
        (
            "jsonb_build_object('a', 1, 'b', NULL)",
            r#"{"a": 1, "b": null}"#,
        ),
        (
            "jsonb_build_array(1, 'x', true, 1.5)",
            r#"[1, "x", true, 1.5]"#,
        ),
        ("to_jsonb(to_timestamp(0))", "\"1970-01-01T00:00:00+00:00\""),
        (
            "jsonb_strip_nulls(pg_cast('{\"a\":null,\"b\":[null]}', 'text', 'jsonb'))",
            r#"{"b": [null]}"#,
        ),
        (
            "jsonb_object_keys_list(pg_cast('{\"b\":1,\"a\":2}', 'text', 'jsonb'))",
            "{a,b}",
        ),
        (
            "jsonb_array_elements_text_list(pg_cast('[1,\"x\",null]', 'text', 'jsonb'))",
            "{1,x,NULL}",
        ),
    ]);
    check_errors(&[(
        "jsonb_array_length(pg_cast('{}', 'text', 'jsonb'))",
        "cannot get array length of a non-array",
    )]);
}

#[test]
fn casts_parse_round_and_check() {
    let cast = |value: &str, from: &str, to: &str| format!("pg_cast({value}, '{from}', '{to}')");
    check(&[
        (&cast("'12'", "text", "integer"), "12"),
        (
            &cast("CAST(2.5 AS DOUBLE)", "double precision", "integer"),
            "2",
        ),
        (&cast("2.5", "numeric(2,1)", "integer"), "3"),
        (&cast("true", "boolean", "text"), "true"),
        (&cast("'hello'", "text", "character varying(3)"), "hel"),
        (&cast("1.005", "numeric(4,3)", "numeric(5,2)"), "1.01"),
        (
            &cast("pg_cast('42', 'text', 'jsonb')", "jsonb", "integer"),
            "42",
        ),
        (
            &cast("pg_cast('1.5', 'text', 'jsonb')", "jsonb", "integer"),
            "2",
        ),
        (
            &cast("'2024-02-29 12:00'", "text", "timestamp without time zone"),
            "2024-02-29 12:00:00",
        ),
        (&cast("'\\x6869'", "text", "bytea"), "\\x6869"),
        (&cast("'{1,2}'", "text", "integer[]"), "{1,2}"),
    ]);
    check_errors(&[
        (
            &cast("'abc'", "text", "integer"),
            "invalid input syntax for type integer: \"abc\"",
        ),
        (
            &cast("100000", "bigint", "smallint"),
            "smallint out of range",
        ),
        (
            &cast("pg_cast('\"x\"', 'text', 'jsonb')", "jsonb", "integer"),
            "cannot cast jsonb string to type integer",
        ),
        (
            &cast("12345.6", "numeric(6,1)", "numeric(4,1)"),
            "numeric field overflow",
        ),
        (
            &cast("CAST(1e30 AS DOUBLE)", "double precision", "numeric(4,1)"),
            "numeric field overflow",
        ),
        (
            &cast("CAST('NaN' AS DOUBLE)", "double precision", "numeric(4,1)"),
            "value \"NaN\" is not supported for type numeric",
        ),
        (
            &cast("'NaN'", "text", "numeric"),
            "value \"NaN\" is not supported for type numeric",
        ),
    ]);
}

#[test]
fn numbers_round_by_their_kind() {
    check(&[
        ("round(2.5)", "3"),
        ("round(-2.5)", "-3"),
        ("round(CAST(2.5 AS DOUBLE))", "2"),
        ("round(1234.5678, 2)", "1234.57"),
        ("round(1250, -2)", "1300"),
        ("trunc(-1.99)", "-1"),
        ("ceiling(-1.5)", "-1"),
        ("floor(-1.5)", "-2"),
        ("abs(-5)", "5"),
        ("mod(-7, 4)", "-3"),
        ("power(2, 10)", "1024"),
        ("sqrt(CAST(2 AS DOUBLE))", "1.4142135623730951"),
        ("sign(-8.4)", "-1"),
    ]);
    check_errors(&[
        ("ln(0)", "cannot take logarithm of zero"),
        ("sqrt(-1)", "cannot take square root of a negative number"),
    ]);
}

#[test]
fn times_are_shifted_truncated_and_taken_apart() {
    let at = "pg_cast('2024-01-31 10:20:30.5', 'text', 'timestamp without time zone')";
    let on = |expression: &str| value(&expression.replace("AT", at));
    assert_eq!(on("AT + INTERVAL '1 month'"), "2024-02-29 10:20:30.5");
    assert_eq!(on("AT - INTERVAL '1 day'"), "2024-01-30 10:20:30.5");
    assert_eq!(
        on("AT - pg_cast('2024-01-01', 'text', 'timestamp without time zone')"),
        "30 days 10:20:30.5"
    );
    assert_eq!(on("date_trunc('hour', AT)"), "2024-01-31 10:00:00");
    assert_eq!(on("extract(second from AT)"), "30.500000");
    assert_eq!(on("extract(epoch from AT)"), "1706696430.500000");
    assert_eq!(on("date_part('year', AT)"), "2024");
    assert_eq!(
        on("timezone('America/New_York', AT)"),
        "2024-01-31 15:20:30.5+00"
    );
    assert_eq!(
        on("to_char(AT, 'YYYY-MM-DD HH24:MI:SS')"),
        "2024-01-31 10:20:30"
    );
    check(&[
        ("DATE '2024-03-01' - DATE '2024-02-01'", "29"),
        ("DATE '2024-02-28' + 2", "2024-03-01"),
        ("INTERVAL '1 day' * 1.5", "1 day 12:00:00"),
        ("to_timestamp(1.5)", "1970-01-01 00:00:01.5+00"),
        ("INTERVAL '30 days' = INTERVAL '1 month'", "t"),
        (
            "try_parse_monotonic_iso8601_timestamp('2015-09-18T23:56:04.123Z')",
            "2015-09-18 23:56:04.123",
        ),
        ("try_parse_monotonic_iso8601_timestamp('no')", "∅"),
        (
            "justify_interval(INTERVAL '1 month -1 hour')",
            "29 days 23:00:00",
        ),
    ]);
}

#[test]
fn arrays_count_from_one() {
    check(&[
        ("array_position(ARRAY['a','b','c'], 'b')", "2"),
        ("array_position(ARRAY[1,2], 3)", "∅"),
        ("array_append(ARRAY[1], NULL)", "{1,NULL}"),
        ("array_prepend(0, ARRAY[1])", "{0,1}"),
        ("array_cat(ARRAY[1], ARRAY[2,3])", "{1,2,3}"),
        ("array_remove(ARRAY[1,NULL,1,2], 1)", "{NULL,2}"),
        ("array_replace(ARRAY['a','b','a'], 'a', 'c')", "{c,b,c}"),
        ("array_positions(ARRAY[1,2,1], 1)", "{1,3}"),
        ("array_length(ARRAY[1,2,3], 1)", "3"),
        ("array_to_string(ARRAY[1,NULL,3], ',', '*')", "1,*,3"),
        ("(ARRAY[1,2,3])[2]", "2"),
        ("(ARRAY[1,2,3])[0]", "∅"),
        ("(ARRAY[1,2,3])[4]", "∅"),
        ("ARRAY[1,2] || ARRAY[3]", "{1,2,3}"),
        ("ARRAY[1,2] || 3", "{1,2,3}"),
        ("ARRAY[1,2,3] @> ARRAY[2]", "t"),
        ("cardinality(ARRAY[1,2])", "2"),
        ("array_fill(7, ARRAY[3])", "{7,7,7}"),
    ]);
}

#[test]
fn aggregates_have_the_types_of_postgresql_and_never_wrap() {
    assert_eq!(
        rows(
            "SELECT sum(x), avg(x), min(x), max(x), count(x) FROM (VALUES (1), (2), (NULL), (4)) AS t(x)"
        ),
        ["7|2.333333333333333333|1|4|3"]
    );
    assert_eq!(
        rows("SELECT sum(x) FROM (VALUES (9223372036854775807), (9223372036854775807)) AS t(x)"),
        ["18446744073709551614"]
    );
    assert_eq!(
        rows("SELECT sum(DISTINCT x), avg(DISTINCT x) FROM (VALUES (1), (1), (3)) AS t(x)"),
        ["4|2"]
    );
    assert_eq!(
        rows("SELECT sum(x) FILTER (WHERE x > 1) FROM (VALUES (1), (2)) AS t(x)"),
        ["2"]
    );
    assert_eq!(
        rows("SELECT sum(x) FROM (VALUES (1)) AS t(x) WHERE x > 1"),
        ["∅"]
    );
    assert_eq!(
        rows("SELECT string_agg(x, ',' ORDER BY x DESC) FROM (VALUES ('a'), ('b')) AS t(x)"),
        ["b,a"]
    );
    assert_eq!(
        rows(
            "SELECT k, sum(v) FROM (VALUES ('a', 1.5), ('b', 2.25), ('a', 1.0)) AS t(k, v) GROUP BY k ORDER BY k"
        ),
        ["a|2.50", "b|2.25"]
    );
    assert_eq!(
        rows("SELECT bool_and(x), bool_or(x) FROM (VALUES (true), (false)) AS t(x)"),
        ["f|t"]
    );
    for alias in ["every", "variance"] {
        assert!(
            flowstone_functions::registry().aggregate(alias).is_some(),
            "{alias}"
        );
    }
}

#[test]
fn float_sums_do_not_depend_on_the_order_of_rows() {
    let sum = |values: &str| {
        rows(&format!(
            "SELECT sum(CAST(x AS DOUBLE)) FROM (VALUES {values}) AS t(x)"
        ))
    };
    assert_eq!(sum("('1e100'), ('1'), ('-1e100')"), ["1"]);
    assert_eq!(sum("('1'), ('1e100'), ('-1e100')"), ["1"]);
}

#[test]
fn texts_are_looked_up_among_entries_that_are_a_constant_or_not() {
    let of_keys = |entries: &str| {
        rows(&format!(
            "SELECT lookup_text(k, {entries}) FROM (VALUES ('a', '{{\"a\":\"1\"}}'), ('b', '{{\"b\":\"2\"}}'), (NULL, '{{}}')) AS t(k, e)"
        ))
    };
    assert_eq!(of_keys("'{\"a\":\"x\"}'"), ["x", "∅", "∅"]);
    assert_eq!(of_keys("e"), ["1", "2", "∅"]);
    let entries = [("a", "x\"\n"), ("b", "y"), ("b", "z")];
    let entries = entries.map(|(key, text)| (key.to_owned(), text.to_owned()));
    let packed = flowstone_functions::lookup::entries(entries);
    for (key, expected) in [("a", "x\"\n"), ("b", "y"), ("c", "∅")] {
        assert_eq!(
            value(&format!("lookup_text('{key}', '{packed}')")),
            expected
        );
    }
    assert!(error("lookup_text('a', 'x')").starts_with("invalid entries"));
}

#[test]
fn every_function_of_the_registry_can_be_decoded_by_its_own_name() {
    use datafusion::execution::FunctionRegistry;
    let context = flowstone_functions::task_context();
    for name in flowstone_functions::registry().scalar_names() {
        let function = flowstone_functions::registry().scalar(&name).unwrap();
        let found = context.udf(function.name()).unwrap();
        // Ours must not be hidden behind an alias of DataFusion's.
        let ours = format!("{:?}", function.inner());
        if ours.starts_with("PgFunction") {
            assert_eq!(format!("{:?}", found.inner()), ours, "{name}");
        }
    }
}
