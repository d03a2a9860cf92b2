//! Queries and writes: types, names, values and errors as PostgreSQL has them.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array};
use flowstone_proto::kafka::SinkPartition;
use flowstone_sql::catalog::Column;
use flowstone_sql::error::ErrorKind;
use flowstone_sql::lower::lower_partition;
use flowstone_sql::plan::{PlanContext, plan_copy_from, plan_index, plan_query, plan_view};
use flowstone_types::SqlType;

use crate::fixture::{Fixture, parse_query};

/// Each query with the header and the rows it must give. Rows are compared in order if the query has an ORDER BY, else sorted.
pub(crate) fn check(cases: &[(&str, &str, &[&str])]) {
    let fixture = Fixture::new();
    let mut failures = Vec::new();
    for (sql, header, rows) in cases {
        let expected: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
        match fixture.query(sql) {
            Ok((found_header, mut found)) => {
                let mut expected = expected;
                if !sql.contains("ORDER BY") {
                    found.sort();
                    expected.sort();
                }
                if found_header != *header || found != expected {
                    failures.push(format!("{sql}\n  expected {header} {expected:?}\n  found    {found_header} {found:?}"));
                }
            }
            Err(error) => failures.push(format!("{sql}\n  failed: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn literals_have_postgresql_types_and_names() {
    check(&[
        ("SELECT 1", "?column?:integer", &["1"]),
        (
            "SELECT -1, 2147483648, -2147483648",
            "?column?:integer ?column?:bigint ?column?:integer",
            &["-1|2147483648|-2147483648"],
        ),
        (
            "SELECT 'x', NULL, true",
            "?column?:text ?column?:text ?column?:boolean",
            &["x|∅|true"],
        ),
        ("SELECT 1.5 AS n", "n:numeric(2,1)", &["1.5"]),
        (
            "SELECT pg_typeof(1), pg_typeof(1.5), pg_typeof('x'), pg_typeof(1 = 1)",
            "pg_typeof:text pg_typeof:text pg_typeof:text pg_typeof:text",
            &["integer|numeric|unknown|boolean"],
        ),
        (
            "SELECT 1::bigint, '7'::int, 1::text",
            "int8:bigint int4:integer text:text",
            &["1|7|1"],
        ),
        (
            "SELECT date '2024-01-31', '2024-01-31'::date",
            "date:date date:date",
            &["2024-01-31|2024-01-31"],
        ),
        (
            "SELECT count(*), sum(amount), max(id) FROM orders",
            "count:bigint sum:numeric(38,0) max:integer",
            &["5|18|14"],
        ),
        (
            "SELECT CASE WHEN id = 1 THEN 'one' ELSE 'more' END FROM items",
            "case:text",
            &["more", "more", "one"],
        ),
        (
            "SELECT coalesce(name, 'none'), nullif(id, 1) FROM items WHERE id = 1",
            "coalesce:text nullif:integer",
            &["apple|∅"],
        ),
        (
            "SELECT id, id, items.id FROM items WHERE id = 2",
            "id:integer id:integer id:integer",
            &["2|2|2"],
        ),
        (
            "SELECT *, id FROM orders WHERE id = 10",
            "id:integer item:integer amount:bigint id:integer",
            &["10|1|5|10"],
        ),
        (
            "SELECT (SELECT max(age) FROM people), EXISTS (SELECT 1 FROM people)",
            "max:integer exists:boolean",
            &["30|true"],
        ),
    ]);
}

#[test]
fn literals_take_the_type_of_the_other_side() {
    check(&[
        (
            "SELECT count(*) FROM typed WHERE u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "count:bigint",
            &["1"],
        ),
        (
            "SELECT count(*) FROM typed WHERE ts >= '2020-01-01' AND d < '2030-01-01'",
            "count:bigint",
            &["1"],
        ),
        (
            "SELECT count(*) FROM typed WHERE d BETWEEN '2024-01-01' AND '2024-12-31'",
            "count:bigint",
            &["1"],
        ),
        (
            "SELECT count(*) FROM typed WHERE d NOT BETWEEN '2024-01-01' AND '2024-12-31'",
            "count:bigint",
            &["0"],
        ),
        (
            "SELECT count(*) FROM typed WHERE u IN ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', NULL)",
            "count:bigint",
            &["1"],
        ),
        (
            "SELECT ts + '1 day' FROM typed WHERE b",
            "?column?:timestamp without time zone",
            &["2024-02-01T12:00:00"],
        ),
        (
            "SELECT j -> 'a' -> 1 ->> 'b' FROM typed WHERE b",
            "?column?:text",
            &["x"],
        ),
        (
            "SELECT j @> '{\"a\": [1]}' FROM typed WHERE b",
            "?column?:boolean",
            &["true"],
        ),
        (
            "SELECT i2 + 1, f * 2, i2 / 2 FROM typed WHERE b",
            "?column?:integer ?column?:double precision ?column?:integer",
            &["2|3.0|0"],
        ),
        (
            "SELECT 2 = ANY (a), 4 = ANY (a), 4 <> ALL (a) FROM typed WHERE b",
            "?column?:boolean ?column?:boolean ?column?:boolean",
            &["true|false|true"],
        ),
        ("SELECT id FROM items WHERE price > 1", "id:integer", &["2"]),
        (
            "SELECT coalesce(price, 0) FROM items",
            "coalesce:numeric(12,2)",
            &["0.00", "0.50", "1.25"],
        ),
        (
            "SELECT e ->> 'b' FROM typed, jsonb_array_elements('[{\"b\": \"y\"}]') AS e WHERE b",
            "?column?:text",
            &["y"],
        ),
        (
            "SELECT id FROM items WHERE price = '0.50'",
            "id:integer",
            &["1"],
        ),
        (
            "SELECT name || '!' || 1 FROM items WHERE id = 1",
            "?column?:text",
            &["apple!1"],
        ),
        (
            "SELECT name IS NOT DISTINCT FROM 'apple' FROM items WHERE id < 3",
            "?column?:boolean",
            &["true", "false"],
        ),
    ]);
}

#[test]
fn every_clause_of_a_query_is_planned() {
    check(&[
        (
            "SELECT name, price FROM items ORDER BY price DESC, 1",
            "name:text price:numeric(10,2)",
            &["plum|∅", "pear|1.25", "apple|0.50"],
        ),
        (
            "SELECT city, count(*) FROM people GROUP BY city ORDER BY 2 DESC, 1",
            "city:text count:bigint",
            &["oslo|2", "rome|2", "∅|1"],
        ),
        (
            "SELECT city, count(*) FROM people GROUP BY 1 HAVING count(*) > 1 ORDER BY city",
            "city:text count:bigint",
            &["oslo|2", "rome|2"],
        ),
        (
            "SELECT i.name, o.amount FROM items i JOIN orders o ON o.item = i.id WHERE o.amount > 1",
            "name:text amount:bigint",
            &["apple|5", "pear|7"],
        ),
        (
            "SELECT name, amount FROM orders LEFT JOIN items ON item = items.id ORDER BY orders.id",
            "name:text amount:bigint",
            &["apple|5", "pear|7", "apple|1", "∅|2", "∅|3"],
        ),
        (
            "SELECT DISTINCT ON (city) city, name FROM people ORDER BY city, age",
            "city:text name:text",
            &["oslo|cid", "rome|bob", "∅|dan"],
        ),
        (
            "SELECT id FROM items LIMIT 1 OFFSET 1",
            "id:integer",
            &["2"],
        ),
        (
            "SELECT id FROM items ORDER BY id FETCH FIRST 2 ROWS ONLY",
            "id:integer",
            &["1", "2"],
        ),
        (
            "SELECT count FROM (SELECT count(*) FROM people)",
            "count:bigint",
            &["5"],
        ),
        (
            "WITH p AS (SELECT age FROM people), q AS (SELECT max(age) AS m FROM p) SELECT m FROM q",
            "m:integer",
            &["30"],
        ),
        (
            "WITH people AS (SELECT 1 AS x FROM people) SELECT count(*), sum(x) FROM people",
            "count:bigint sum:bigint",
            &["5|5"],
        ),
        (
            "VALUES (1, 'a'), (2, NULL)",
            "column1:integer column2:text",
            &["1|a", "2|∅"],
        ),
        (
            "SELECT 1 AS x UNION ALL SELECT 2.5 UNION ALL SELECT NULL",
            "x:numeric(11,1)",
            &["1.0", "2.5", "∅"],
        ),
        (
            "TABLE items",
            "id:integer name:text price:numeric(10,2)",
            &["1|apple|0.50", "2|pear|1.25", "3|plum|∅"],
        ),
        (
            "SELECT name FROM items WHERE id IN (SELECT item FROM orders)",
            "name:text",
            &["apple", "pear"],
        ),
        (
            "SELECT name FROM items WHERE NOT EXISTS (SELECT 1 FROM orders WHERE item = items.id)",
            "name:text",
            &["plum"],
        ),
        (
            "SELECT (SELECT sum(amount) FROM orders WHERE item = items.id) AS s FROM items ORDER BY id",
            "s:numeric(38,0)",
            &["6", "7", "∅"],
        ),
        (
            "SELECT n FROM generate_series(1, 3) AS n",
            "n:integer",
            &["1", "2", "3"],
        ),
        (
            "SELECT generate_series(2, 3)",
            "generate_series:integer",
            &["2", "3"],
        ),
        (
            "SELECT x FROM regexp_split_to_table('a-b', '-') AS x",
            "x:text",
            &["a", "b"],
        ),
        (
            "SELECT unnest(a) AS e FROM typed",
            "e:integer",
            &["1", "2", "3"],
        ),
        (
            "SELECT materialize.public.items.id FROM public.items WHERE items.id = 3",
            "id:integer",
            &["3"],
        ),
        (
            "SELECT name COLLATE pg_catalog.default FROM items WHERE name OPERATOR(pg_catalog.~) '^p' ORDER BY 1",
            "name:text",
            &["pear", "plum"],
        ),
        (
            "SELECT rank() OVER (ORDER BY age DESC NULLS LAST) AS r, name FROM people ORDER BY r, name",
            "r:bigint name:text",
            &["1|ann", "1|cid", "1|cid", "4|bob", "5|dan"],
        ),
        (
            "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n ORDER BY i",
            "i:integer",
            &["1", "2", "3"],
        ),
        (
            "SELECT ARRAY(SELECT id FROM items ORDER BY id DESC) AS ids",
            "ids:integer[]",
            &["[3, 2, 1]"],
        ),
    ]);
}

#[test]
fn a_subquery_in_place_of_a_value_has_one_row() {
    check(&[
        (
            "SELECT name, (SELECT id FROM orders WHERE item = items.id AND amount > 4) AS o FROM items ORDER BY items.id",
            "name:text o:integer",
            &["apple|10", "pear|11", "plum|∅"],
        ),
        (
            "SELECT id FROM items WHERE id = (SELECT item FROM orders WHERE amount = 7)",
            "id:integer",
            &["2"],
        ),
        (
            "SELECT i.name, (SELECT o.id FROM orders o WHERE o.item = i.id AND i.id <> o.amount AND i.id > 1) AS o FROM items i ORDER BY i.id",
            "name:text o:integer",
            &["apple|∅", "pear|11", "plum|∅"],
        ),
        (
            "SELECT name, EXISTS (SELECT 1 FROM orders WHERE item = items.id) AS sold FROM items ORDER BY id",
            "name:text sold:boolean",
            &["apple|true", "pear|true", "plum|false"],
        ),
    ]);
    let fixture = Fixture::new();
    for sql in [
        "SELECT (SELECT id FROM items)",
        "SELECT (SELECT orders.id FROM orders WHERE item = items.id) FROM items",
    ] {
        let error = fixture.query(sql).expect_err(sql);
        assert!(
            error.contains("more than one row returned by a subquery used as an expression"),
            "{sql}: {error}"
        );
    }
}

#[test]
fn bag_set_operations_count() {
    check(&[
        (
            "SELECT name FROM people EXCEPT ALL SELECT 'cid'",
            "name:text",
            &["ann", "bob", "cid", "dan"],
        ),
        (
            "SELECT name FROM people INTERSECT ALL VALUES ('cid'), ('cid'), ('cid'), ('ann')",
            "name:text",
            &["ann", "cid", "cid"],
        ),
        (
            "SELECT city, age FROM people EXCEPT ALL SELECT 'oslo', 30",
            "city:text age:integer",
            &["oslo|30", "rome|20", "rome|30", "∅|∅"],
        ),
        (
            "SELECT name FROM people EXCEPT SELECT 'cid'",
            "name:text",
            &["ann", "bob", "dan"],
        ),
        (
            "SELECT city FROM people INTERSECT SELECT NULL",
            "city:text",
            &["∅"],
        ),
        (
            "SELECT name FROM people UNION SELECT 'eve' ORDER BY name",
            "name:text",
            &["ann", "bob", "cid", "dan", "eve"],
        ),
    ]);
}

#[test]
fn session_and_catalog_functions_are_constants() {
    check(&[
        (
            "SELECT current_database(), current_schema(), current_user, session_user",
            "current_database:name current_schema:name current_user:name session_user:name",
            &["materialize|public|materialize|materialize"],
        ),
        (
            "SELECT now()",
            "now:timestamp with time zone",
            &["2024-05-06T07:08:09.123Z"],
        ),
        (
            "SELECT current_date, localtimestamp",
            "current_date:date localtimestamp:timestamp without time zone",
            &["2024-05-06|2024-05-06T07:08:09.123"],
        ),
        (
            "SELECT mz_now() > 0, pg_get_userbyid(10), has_table_privilege('items', 'select')",
            "?column?:boolean pg_get_userbyid:name has_table_privilege:boolean",
            &["true|materialize|true"],
        ),
        (
            "SELECT current_setting('server_version_num')::int / 100",
            "?column?:integer",
            &["1500"],
        ),
        (
            "SELECT 'pg_class'::regclass::oid, 'items'::regclass::text",
            "oid:oid text:text",
            &["1259|items"],
        ),
        (
            "SELECT current_schemas(false)",
            "current_schemas:text[]",
            &["[public]"],
        ),
        (
            "SELECT pg_table_is_visible('items'::regclass)",
            "pg_table_is_visible:boolean",
            &["true"],
        ),
    ]);
}

#[test]
fn what_the_catalog_says_of_an_oid_is_looked_up_row_by_row() {
    let mut fixture = Fixture::new();
    fixture.view("cheap", "SELECT id FROM items WHERE price < 1");
    let items = fixture.catalog.items.values();
    let newest = items.map(|item| item.oid).max().expect("there are items");
    // Of the view, and of two that are not there.
    let oid = format!("({newest} + id - 1)::oid");
    let sql = format!(
        "SELECT {oid}::regclass::text, pg_get_viewdef({oid}) LIKE '%price%', obj_description({oid}, 'pg_class') FROM items ORDER BY id"
    );
    let (_, rows) = fixture.query(&sql).expect("runs");
    let expected = [
        "cheap|true|∅".to_owned(),
        format!("{}|∅|∅", newest + 1),
        format!("{}|∅|∅", newest + 2),
    ];
    assert_eq!(rows, expected);
    // The catalog is a constant of the plan, however large it is.
    let planned = fixture.plan(&sql).expect("plans");
    let shown = planned.plan.display_indent().to_string();
    assert!(shown.contains("lookup_text("), "{shown}");
}

#[test]
fn views_are_expanded_and_their_text_survives_another_search_path() {
    let mut fixture = Fixture::new();
    fixture.view(
        "adults",
        "SELECT name, age + 1 AS next, city FROM people WHERE age > 20",
    );
    fixture.view(
        "cities",
        "WITH people AS (SELECT * FROM adults) SELECT city, count(*) FROM people GROUP BY city",
    );
    fixture.search_path = vec!["elsewhere".to_owned()];
    let planned = fixture
        .plan("SELECT * FROM public.cities c WHERE c.count > 1")
        .expect("plans");
    assert_eq!(
        planned
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect::<Vec<_>>(),
        ["city", "count"]
    );
    let people = fixture
        .catalog
        .items
        .values()
        .find(|item| item.name == "people")
        .expect("exists")
        .id;
    let cities = fixture
        .catalog
        .items
        .values()
        .find(|item| item.name == "cities")
        .expect("exists")
        .id;
    assert_eq!(
        (planned.reads.clone(), planned.depends_on.clone()),
        (vec![people], vec![cities])
    );
    assert_eq!(
        fixture
            .query("SELECT city, count FROM public.cities ORDER BY city")
            .expect("runs")
            .1,
        ["oslo|2", "rome|1"].map(str::to_owned)
    );
}

#[test]
fn a_view_takes_aliases_and_refuses_repeated_names() {
    let fixture = Fixture::new();
    let view = plan_view(
        &fixture.ctx(),
        &parse_query("SELECT id, name FROM items"),
        &["k".to_owned()],
    )
    .expect("plans");
    assert_eq!(
        view.columns
            .iter()
            .map(|column| column.name.as_str())
            .collect::<Vec<_>>(),
        ["k", "name"]
    );
    assert_eq!(
        view.query_sql,
        "SELECT id, name FROM materialize.public.items"
    );
    let error = plan_view(
        &fixture.ctx(),
        &parse_query("SELECT id, id FROM items"),
        &[],
    )
    .expect_err("two columns of one name");
    assert_eq!(
        (error.kind, error.message.as_str()),
        (
            ErrorKind::DuplicateColumn,
            "column \"id\" specified more than once"
        )
    );
}

#[test]
fn maintained_queries_refuse_the_clock_and_chance() {
    let fixture = Fixture::new();
    let ctx = PlanContext {
        maintained: true,
        ..fixture.ctx()
    };
    for (sql, function) in [
        ("SELECT now()", "now"),
        ("SELECT mz_now()", "mz_now"),
        (
            "SELECT id FROM items WHERE current_user = name",
            "current_user",
        ),
    ] {
        let error = plan_query(&ctx, &parse_query(sql), &[]).expect_err(sql);
        assert_eq!(
            (error.kind, error.message),
            (
                ErrorKind::InvalidObjectDefinition,
                format!("cannot materialize call to {function}")
            )
        );
    }
}

#[test]
fn logical_times_are_not_compared_with_clocks_yet() {
    let fixture = Fixture::new();
    for (sql, moment) in [
        ("SELECT mz_now() > now()", "timestamp with time zone"),
        (
            "SELECT localtimestamp <= mz_now()",
            "timestamp without time zone",
        ),
    ] {
        let error = plan_query(&fixture.ctx(), &parse_query(sql), &[]).expect_err(sql);
        assert_eq!(
            (error.kind, error.message),
            (
                ErrorKind::FeatureNotSupported,
                format!("comparing mz_timestamp with {moment} is not supported")
            )
        );
    }
}

#[test]
fn errors_have_postgresql_wording_and_positions() {
    let fixture = Fixture::new();
    let cases = [
        (
            "SELECT 1 FROM nowhere",
            ErrorKind::UndefinedTable,
            "relation \"nowhere\" does not exist",
            Some(15),
        ),
        (
            "SELECT * FROM nowhere.items",
            ErrorKind::UndefinedTable,
            "relation \"nowhere.items\" does not exist",
            Some(15),
        ),
        (
            "SELECT\n  nix FROM items",
            ErrorKind::UndefinedColumn,
            "column \"nix\" does not exist",
            Some(10),
        ),
        (
            "SELECT i.nix FROM items i",
            ErrorKind::UndefinedColumn,
            "column i.nix does not exist",
            Some(8),
        ),
        (
            "SELECT x.id FROM items",
            ErrorKind::UndefinedTable,
            "missing FROM-clause entry for table \"x\"",
            Some(8),
        ),
        (
            "SELECT id FROM items, orders",
            ErrorKind::AmbiguousColumn,
            "column reference \"id\" is ambiguous",
            Some(8),
        ),
        (
            "SELECT foo(id, 'x') FROM items",
            ErrorKind::UndefinedFunction,
            "function foo(integer, unknown) does not exist",
            Some(8),
        ),
        (
            "SELECT city, name FROM people GROUP BY city",
            ErrorKind::Grouping,
            "column \"people.name\" must appear in the GROUP BY clause or be used in an aggregate function",
            Some(14),
        ),
        (
            "SELECT id FROM items WHERE name = id",
            ErrorKind::UndefinedFunction,
            "operator does not exist: text = integer",
            None,
        ),
        (
            "SELECT CASE WHEN true THEN id ELSE d END FROM items, typed",
            ErrorKind::DatatypeMismatch,
            "CASE types date and integer cannot be matched",
            None,
        ),
        (
            "SELECT id FROM items ORDER BY 7",
            ErrorKind::InvalidColumnReference,
            "ORDER BY position 7 is not in select list",
            Some(31),
        ),
        (
            "SELECT 1 EXCEPT ALL SELECT 1, 2",
            ErrorKind::Syntax,
            "each EXCEPT query must have the same number of columns",
            None,
        ),
        (
            "SELECT 'nix'::regclass",
            ErrorKind::UndefinedTable,
            "relation \"nix\" does not exist",
            Some(8),
        ),
        (
            "SELECT (SELECT id, name FROM items)",
            ErrorKind::Syntax,
            "subquery must return only one column",
            None,
        ),
        (
            "SELECT true::date",
            ErrorKind::CannotCoerce,
            "cannot cast type boolean to date",
            None,
        ),
    ];
    let mut failures = Vec::new();
    for (sql, kind, message, position) in cases {
        let ctx = PlanContext {
            text: sql,
            ..fixture.ctx()
        };
        match plan_query(&ctx, &parse_query(sql), &[]) {
            Ok(_) => failures.push(format!("{sql}: planned")),
            Err(error)
                if (error.kind, error.message.as_str(), error.position)
                    != (kind, message, position) =>
            {
                failures.push(format!(
                    "{sql}\n  expected {kind:?} {message} {position:?}\n  found    {:?} {} {:?}",
                    error.kind, error.message, error.position
                ));
            }
            Err(_) => {}
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn parameters_get_types_from_their_use_and_are_bound() {
    let fixture = Fixture::new();
    let types = |sql: &str| {
        fixture
            .plan(sql)
            .map(|planned| planned.parameters)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    };
    assert_eq!(types("SELECT * FROM items WHERE id = $1"), [SqlType::Int4]);
    assert_eq!(types("SELECT $1::date, $2"), [SqlType::Date, SqlType::Text]);
    assert_eq!(
        types("SELECT id FROM items WHERE id IN ($1, $2) LIMIT $3"),
        [SqlType::Int4, SqlType::Int4, SqlType::Int8]
    );
    assert_eq!(
        types("SELECT $1 + 1 FROM typed WHERE ts < $2 AND $1 > 0"),
        [SqlType::Int4, SqlType::Timestamp]
    );
    let planned = fixture
        .plan("SELECT name FROM items WHERE id = $1")
        .expect("plans");
    let one: ArrayRef = Arc::new(Int32Array::from(vec![2]));
    let bound = planned.bind(&[one]).expect("binds");
    assert_eq!(
        crate::fixture::lines(&fixture.run(&bound).expect("runs")),
        ["pear"]
    );
    assert_eq!(
        planned.bind(&[]).expect_err("a value is missing").kind,
        ErrorKind::InvalidParameterValue
    );
    let limited = fixture
        .plan("SELECT id FROM items ORDER BY id LIMIT $1")
        .expect("plans");
    let two: ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![2]));
    assert_eq!(
        crate::fixture::lines(
            &fixture
                .run(&limited.bind(&[two]).expect("binds"))
                .expect("runs")
        ),
        ["1", "2"]
    );
}

#[test]
fn a_parameter_beside_padded_text_is_compared_without_its_blanks() {
    let fixture = Fixture::new();
    let found = |condition: &str, of_type: SqlType, parameter: &str| {
        let planned = fixture
            .plan(&format!(
                "SELECT id FROM items WHERE id = 2 AND {condition}"
            ))
            .unwrap_or_else(|error| panic!("{condition}: {error}"));
        assert_eq!(planned.parameters, [of_type], "{condition}");
        let value: ArrayRef = Arc::new(arrow_array::StringArray::from(vec![parameter]));
        let bound = planned.bind(&[value]).expect("binds");
        !crate::fixture::lines(&fixture.run(&bound).expect("runs")).is_empty()
    };
    for condition in [
        "'ab'::char(5) = $1",
        "$1 <= 'ab'::char(5)",
        "'ab'::char(5) IN ($1)",
        "'ab'::char(5) IN ('x', $1)",
        "'ab'::char(5) IS NOT DISTINCT FROM $1",
        "$1 = ANY (ARRAY['ab'::char(5)])",
    ] {
        assert!(found(condition, SqlType::Char(0), "ab   "), "{condition}");
        assert!(!found(condition, SqlType::Char(0), "ab x"), "{condition}");
    }
    assert!(!found("$1::text = 'ab'::char(5)", SqlType::Text, "ab   "));
}

#[test]
fn writes_change_rows() {
    let mut fixture = Fixture::new();
    fixture
        .write("INSERT INTO items (name, id) VALUES ('fig', 4), (DEFAULT, 5)")
        .expect("inserts");
    fixture
        .write("INSERT INTO items SELECT id + 100, name FROM items WHERE id = 4")
        .expect("inserts");
    fixture
        .write("UPDATE items AS i SET price = id * 2, name = upper(name) WHERE i.id >= 4")
        .expect("updates");
    fixture
        .write("DELETE FROM items WHERE id IN (1, 2)")
        .expect("deletes");
    let (_, rows) = fixture
        .query("SELECT * FROM items ORDER BY id")
        .expect("runs");
    assert_eq!(
        rows,
        ["3|plum|∅", "4|FIG|8.00", "5|∅|10.00", "104|FIG|208.00"]
    );
    for (sql, message) in [
        (
            "INSERT INTO items VALUES (1, 'a', 2, 3)",
            "INSERT has more expressions than target columns",
        ),
        (
            "INSERT INTO items (id, name) VALUES (1)",
            "INSERT has more target columns than expressions",
        ),
        (
            "INSERT INTO items (id, id) VALUES (1, 2)",
            "column \"id\" specified more than once",
        ),
        (
            "INSERT INTO items (nix) VALUES (1)",
            "column \"nix\" of relation \"items\" does not exist",
        ),
        (
            "INSERT INTO items SELECT name FROM items",
            "column \"id\" is of type integer but expression is of type text",
        ),
        (
            "INSERT INTO nowhere VALUES (1)",
            "relation \"nowhere\" does not exist",
        ),
        (
            "INSERT INTO items VALUES (1) RETURNING nix",
            "column \"nix\" does not exist",
        ),
        (
            "INSERT INTO items AS i VALUES (1) RETURNING items.id",
            "invalid reference to FROM-clause entry for table \"items\"",
        ),
        (
            "UPDATE items SET name = 'x' RETURNING count(*)",
            "aggregate functions are not allowed in RETURNING",
        ),
        (
            "DELETE FROM items RETURNING row_number() OVER ()",
            "window functions are not allowed in RETURNING",
        ),
        (
            "DELETE FROM items RETURNING generate_series(1, id)",
            "set-returning functions are not allowed in RETURNING",
        ),
        (
            "UPDATE items SET nix = 1",
            "column \"nix\" of relation \"items\" does not exist",
        ),
        (
            "DELETE FROM pg_class",
            "permission denied: \"pg_class\" is a system catalog",
        ),
    ] {
        assert_eq!(fixture.write(sql).expect_err(sql), message, "{sql}");
    }
}

#[test]
fn columns_keep_what_they_cannot_hold_out() {
    let mut fixture = Fixture::new();
    let column = |name: &str, sql_type: SqlType, nullable: bool, default: Option<&str>| Column {
        name: name.to_owned(),
        sql_type,
        nullable,
        default: default.map(str::to_owned),
    };
    let columns = vec![
        column("id", SqlType::Int4, false, None),
        column("code", SqlType::VarChar(Some(3)), true, Some("'new'")),
        column("n", SqlType::Int2, true, Some("1 + 1")),
    ];
    fixture.table_of("strict", columns, None);
    fixture
        .write("INSERT INTO strict (id) VALUES (1)")
        .expect("defaults are filled in");
    fixture
        .write("INSERT INTO strict VALUES (2, 'abc   ', DEFAULT), (3, NULL, 4)")
        .expect("blanks at the end are cut");
    fixture
        .write("INSERT INTO strict SELECT 4, name FROM people WHERE name = 'ann'")
        .expect("text of three letters fits");
    let (_, rows) = fixture
        .query("SELECT * FROM strict ORDER BY id")
        .expect("runs");
    assert_eq!(rows, ["1|new|2", "2|abc|2", "3|∅|4", "4|ann|2"]);
    for (sql, message) in [
        (
            "INSERT INTO strict VALUES (5, 'abcd')",
            "value too long for type character varying(3)",
        ),
        (
            "INSERT INTO strict SELECT id, name FROM items",
            "value too long for type character varying(3)",
        ),
        (
            "INSERT INTO strict VALUES (NULL)",
            "null value in column \"id\" of relation \"strict\" violates not-null constraint",
        ),
        (
            "INSERT INTO strict (code) VALUES ('x')",
            "null value in column \"id\" of relation \"strict\" violates not-null constraint",
        ),
        (
            "INSERT INTO strict VALUES (1, 'x', 70000)",
            "smallint out of range",
        ),
        (
            "INSERT INTO strict VALUES ('one')",
            "invalid input syntax for type integer: \"one\"",
        ),
    ] {
        let error = fixture.write(sql).expect_err(sql);
        assert!(error.contains(message), "{sql}: {error}");
    }
}

#[test]
fn copy_and_index_name_their_columns() {
    let fixture = Fixture::new();
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let copy = plan_copy_from(&fixture.ctx(), &names(&["items"]), &names(&["price", "id"]))
        .expect("plans");
    assert_eq!(
        (copy.columns, copy.types),
        (
            vec![2, 0],
            vec![SqlType::Numeric(Some((10, 2))), SqlType::Int4]
        )
    );
    assert_eq!(copy.defaults, [(1, None)]);
    let items = fixture
        .catalog
        .items
        .values()
        .find(|item| item.name == "items")
        .expect("exists")
        .id;
    let key = [
        flowstone_sql::parse::parse_expr("id").expect("parses"),
        flowstone_sql::parse::parse_expr("upper(name)").expect("parses"),
        flowstone_sql::parse::parse_expr("- -id").expect("parses"),
    ];
    let index = plan_index(&fixture.ctx(), items, &key).expect("plans");
    assert_eq!(index.key_columns, [0, 3, 4]);
    assert_eq!(
        index.key.iter().map(|key| key.column).collect::<Vec<_>>(),
        [Some(0), None, None]
    );
    assert_eq!(
        index
            .key
            .iter()
            .map(|key| key.expression.as_str())
            .collect::<Vec<_>>(),
        ["id", "upper(name)", "-(-id)"]
    );
    assert_eq!(index.planned.columns.len(), 5);
}

/// Where a sink's messages go is computed of one row, as a `uint8`.
#[test]
fn what_decides_on_partitions_is_a_number_of_one_row() {
    let fixture = Fixture::new();
    let items = fixture
        .catalog
        .items
        .values()
        .find(|item| item.name == "items")
        .expect("exists")
        .id;
    let lower = |text: &str| {
        let expr = flowstone_sql::parse::parse_expr(text).expect("parses");
        lower_partition(&fixture.ctx(), items, &expr)
    };
    for text in [
        "id + 1",
        "price",
        "id::uint8",
        "7",
        "items.id",
        "kafka_murmur2(name)",
        "kafka_murmur2(name || id::text)",
        "seahash(name)",
        "crc32(name)",
    ] {
        let lowered = lower(text);
        assert!(
            matches!(lowered, Ok(SinkPartition::Expression(_))),
            "{text}: {lowered:?}"
        );
    }
    for (text, kind) in [
        ("name", ErrorKind::DatatypeMismatch),
        ("nothing", ErrorKind::UndefinedColumn),
        ("count(*)", ErrorKind::FeatureNotSupported),
        ("row_number() OVER ()", ErrorKind::FeatureNotSupported),
        (
            "(SELECT max(id) FROM items)",
            ErrorKind::FeatureNotSupported,
        ),
    ] {
        let refused = lower(text).expect_err(text);
        assert_eq!(refused.kind, kind, "{text}: {refused}");
    }
}

/// The queries that psql 15 sends for its backslash commands.
#[test]
fn every_query_of_psql_is_planned() {
    let mut fixture = Fixture::new();
    fixture.view("adults", "SELECT name FROM people WHERE age > 20");
    fixture.view("v", "SELECT 1 AS one");
    fixture.index("items_id", "items", "id");
    let mut text = include_str!("../psql_queries.sql").to_owned();
    for (placeholder, name) in [
        ("{table}", "items"),
        ("{view}", "adults"),
        ("{matview}", "people"),
        ("{index}", "items_id"),
    ] {
        let oid = fixture
            .catalog
            .items
            .values()
            .find(|item| item.name == name)
            .expect("exists")
            .oid;
        text = text.replace(placeholder, &oid.to_string());
    }
    let mut failures = Vec::new();
    let statements = flowstone_sql::parse::parse(&text).expect("the file parses");
    assert!(statements.len() > 20, "the file has queries");
    for statement in statements {
        let flowstone_sql::ast::StatementKind::Query(query) = &statement.kind else {
            continue;
        };
        match plan_query(&fixture.ctx(), &query.query, &[]).and_then(|planned| planned.encode()) {
            Ok(_) => {}
            Err(error) => failures.push(format!(
                "{:?} {error} ({:?})\n    in {}",
                error.kind,
                error.detail,
                statement.text.replace('\n', " ")
            )),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The operands joined by the operators, and the same with parentheses, which make no chain.
fn chain(operands: &[&str], operators: &[&str]) -> (String, String) {
    let (first, rest) = operands.split_first().expect("a chain has an operand");
    let mut plain = (*first).to_owned();
    let mut nested = (*first).to_owned();
    for (operator, operand) in operators.iter().zip(rest) {
        plain = format!("{plain} {operator} {operand}");
        nested = format!("({nested} {operator} {operand})");
    }
    (plain, nested)
}

#[test]
fn a_long_chain_of_operators_means_what_its_operators_mean() {
    let fixture = Fixture::new();
    let kinds: [(&str, &[&str], &[&str]); 9] = [
        ("orders", &["id", "item", "amount", "3", "-2"], &["+", "-"]),
        (
            "orders",
            &["id", "2.5", "amount", "1e1", "f.x"],
            &["+", "-"],
        ),
        ("items", &["name", "'x'", "1", "price", "''"], &["||"]),
        ("items", &["'a'", "'b'", "name"], &["||"]),
        ("typed", &["d", "1", "i2", "2"], &["+", "-"]),
        ("typed", &["ts", "iv", "'1 hour'"], &["+", "-"]),
        ("typed", &["j", "'a'", "0"], &["->"]),
        ("typed", &["a", "4", "ARRAY[5]", "i2::int"], &["||"]),
        ("typed", &["f", "i2", "2", "0.5::real"], &["+", "-"]),
    ];
    for (table, operands, operators) in kinds {
        for length in [15, 16, 17, 18, 40] {
            for start in 0..operands.len() {
                let operands: Vec<&str> = (0..=length)
                    .map(|index| match index {
                        0 => operands[0],
                        _ => operands[(start + index) % operands.len()],
                    })
                    .collect();
                let operators: Vec<&str> = (0..length)
                    .map(|index| operators[(start + index * index) % operators.len()])
                    .collect();
                let (plain, nested) = chain(&operands, &operators);
                let from = format!("FROM {table}, (SELECT 0.25::float8 AS x) AS f");
                let parsed = |expr: &str| fixture.query(&format!("SELECT {expr} AS c {from}"));
                assert_eq!(parsed(&plain), parsed(&nested), "{plain}");
            }
        }
    }
}

/// Runs a test with the stack that the node's threads have.
fn with_a_deep_stack(test: fn()) {
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(test)
        .expect("a thread starts")
        .join()
        .expect("the test holds");
}

#[test]
fn what_is_as_long_as_tools_make_it_is_planned_and_answered() {
    with_a_deep_stack(long_statements);
}

fn long_statements() {
    let fixture = Fixture::new();
    let repeat = |text: &str, separator: &str, count: usize| vec![text; count].join(separator);
    let numbers = |count: usize| {
        (0..count)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    };
    let thousand = numbers(1_000).join(" + ");
    let cases = "CASE WHEN id = 99 THEN 1 ELSE ".repeat(60);
    let thens = "CASE WHEN id > 0 THEN ".repeat(60);
    let joins: String = (0..60)
        .map(|number| format!(" JOIN items AS i{number} ON i{number}.id = items.id"))
        .collect();
    let expressions: Vec<String> = numbers(2_000)
        .iter()
        .map(|number| format!("amount + {number}"))
        .collect();
    let list = numbers(20_000).join(", ");
    for (sql, rows) in [
        (format!("SELECT {thousand}"), vec!["499500".to_owned()]),
        (
            format!(
                "SELECT count(*) FROM orders WHERE {} + id = 404560",
                numbers(900).join(" + ")
            ),
            vec!["1".to_owned()],
        ),
        (
            format!(
                "SELECT {} FROM items WHERE id = 1",
                repeat("name", " || ", 1_000)
            ),
            vec!["apple".repeat(1_000)],
        ),
        (
            format!(
                "SELECT count(*) FROM items WHERE {}",
                repeat("id > 1", " AND ", 1_000)
            ),
            vec!["2".to_owned()],
        ),
        (
            format!(
                "SELECT count(*) FROM items WHERE {}",
                repeat("id = 1", " OR ", 1_000)
            ),
            vec!["1".to_owned()],
        ),
        (
            format!(
                "SELECT count(*) FROM ({}) AS u",
                repeat("SELECT 1 AS a", " UNION ALL ", 1_000)
            ),
            vec!["1000".to_owned()],
        ),
        (
            format!(
                "SELECT count(*) FROM ({}) AS u",
                repeat("SELECT 1 AS a", " UNION ", 300)
            ),
            vec!["1".to_owned()],
        ),
        (
            format!("SELECT {cases} 2 {} FROM items", "END ".repeat(60)),
            vec!["2".to_owned(); 3],
        ),
        (
            format!("SELECT {thens} 2 {} FROM items", "END ".repeat(60)),
            vec!["2".to_owned(); 3],
        ),
        (
            format!("SELECT count(*) FROM items{joins}"),
            vec!["3".to_owned()],
        ),
        (
            format!(
                "SELECT count(*) FROM orders WHERE id IN ({})",
                expressions.join(", ")
            ),
            vec!["5".to_owned()],
        ),
        (
            format!("SELECT count(*) FROM orders WHERE id IN (NULL, {list})"),
            vec!["5".to_owned()],
        ),
        (
            format!("SELECT count(*) FROM orders WHERE id NOT IN (NULL, {list})"),
            vec!["0".to_owned()],
        ),
    ] {
        let shown: String = sql.chars().take(60).collect();
        let found = fixture.query(&sql).map(|(_, rows)| rows);
        assert_eq!(found, Ok(rows), "{shown}");
    }
}
