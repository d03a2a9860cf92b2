//! What a query means by PostgreSQL's rules of names, types and rows: the kinds of queries that were answered wrongly, or refused.

use flowstone_sql::catalog::Column;
use flowstone_sql::error::ErrorKind;
use flowstone_sql::plan::{PlanContext, plan_query};
use flowstone_types::SqlType;

use crate::fixture::{Fixture, parse_query};
use crate::plan::check;

#[test]
fn a_group_without_keys_has_its_row_and_no_condition_below_it() {
    check(&[
        (
            "SELECT s.n FROM (SELECT count(*) AS n FROM items) s JOIN orders ON 1 = 2",
            "n:bigint",
            &[],
        ),
        (
            "SELECT count(*) FROM items HAVING false",
            "count:bigint",
            &[],
        ),
        (
            "SELECT id, n FROM items LEFT JOIN (SELECT count(*) AS n FROM orders) s ON false ORDER BY id",
            "id:integer n:bigint",
            &["1|∅", "2|∅", "3|∅"],
        ),
        (
            "SELECT n FROM (SELECT name, count(*) AS n FROM items GROUP BY ROLLUP (name)) s WHERE 1 = 2",
            "n:bigint",
            &[],
        ),
        (
            "SELECT count(*), sum(id) AS s FROM items WHERE id < 0 GROUP BY ROLLUP (name)",
            "count:bigint s:bigint",
            &["0|∅"],
        ),
    ]);
}

#[test]
fn merged_columns_are_of_the_side_that_has_a_row() {
    const LEFT: &str = "(VALUES (1, 'a'), (2, 'b')) l (id, x)";
    const RIGHT: &str = "(VALUES (2, 'c'), (3, 'd')) r (id, y)";
    let full = format!("SELECT * FROM {LEFT} FULL JOIN {RIGHT} USING (id) ORDER BY id");
    let right = format!(
        "SELECT id, r.id AS right_id, l.id AS left_id FROM {LEFT} RIGHT JOIN {RIGHT} USING (id) ORDER BY 1"
    );
    let chain = format!(
        "SELECT id + 1 AS next FROM {LEFT} NATURAL FULL JOIN {RIGHT} NATURAL FULL JOIN (VALUES (3), (4)) t (id) ORDER BY id"
    );
    let condition = format!(
        "SELECT y FROM {LEFT} RIGHT JOIN {RIGHT} USING (id) WHERE id > 2 GROUP BY id, y HAVING id < 9"
    );
    check(&[
        (
            &full,
            "id:integer x:text y:text",
            &["1|a|∅", "2|b|c", "3|∅|d"],
        ),
        (
            &right,
            "id:integer right_id:integer left_id:integer",
            &["2|2|2", "3|3|∅"],
        ),
        (&chain, "next:integer", &["2", "3", "4", "5"]),
        (&condition, "y:text", &["d"]),
    ]);
}

#[test]
fn membership_and_quantifiers_know_what_is_unknown() {
    check(&[
        (
            "SELECT id FROM items WHERE id NOT IN (SELECT item FROM orders WHERE item IS NOT NULL)",
            "id:integer",
            &["3"],
        ),
        (
            "SELECT id FROM items WHERE id NOT IN (SELECT item FROM orders)",
            "id:integer",
            &[],
        ),
        (
            "SELECT id FROM items i WHERE 5 NOT IN (SELECT item FROM orders o WHERE o.amount < i.id)",
            "id:integer",
            &["1", "2"],
        ),
        (
            "SELECT id FROM items WHERE id > ALL (SELECT item FROM orders WHERE amount > 100)",
            "id:integer",
            &["1", "2", "3"],
        ),
        (
            "SELECT id FROM items WHERE id > ANY (SELECT item FROM orders)",
            "id:integer",
            &["2", "3"],
        ),
        (
            "SELECT id, id <> ALL (SELECT item FROM orders) AS other FROM items ORDER BY id",
            "id:integer other:boolean",
            &["1|false", "2|false", "3|∅"],
        ),
        (
            "SELECT id FROM items WHERE (id, name) IN (SELECT id, name FROM items WHERE price IS NOT NULL)",
            "id:integer",
            &["1", "2"],
        ),
        (
            "SELECT id FROM items WHERE (id, name) = (SELECT 2, 'pear')",
            "id:integer",
            &["2"],
        ),
        (
            "SELECT id FROM items WHERE (id, price) < (2, 2)",
            "id:integer",
            &["1", "2"],
        ),
        (
            "SELECT id FROM items WHERE name LIKE ANY (ARRAY['a%', 'pl%'])",
            "id:integer",
            &["1", "3"],
        ),
        (
            "SELECT id FROM items WHERE name NOT LIKE ANY ('{a%,p%}')",
            "id:integer",
            &["1", "2", "3"],
        ),
    ]);
}

#[test]
fn an_order_names_outputs_and_computes_with_inputs() {
    check(&[
        (
            "SELECT -id AS id FROM items ORDER BY -id",
            "id:integer",
            &["-3", "-2", "-1"],
        ),
        (
            "SELECT -id AS id FROM items ORDER BY id",
            "id:integer",
            &["-3", "-2", "-1"],
        ),
        (
            "SELECT -id AS id FROM items ORDER BY items.id",
            "id:integer",
            &["-1", "-2", "-3"],
        ),
        (
            "SELECT DISTINCT ON (city) city, name FROM people ORDER BY city, city DESC, name",
            "city:text name:text",
            &["oslo|cid", "rome|ann", "∅|dan"],
        ),
        (
            "SELECT age FROM people ORDER BY age FETCH FIRST 2 ROWS WITH TIES",
            "age:integer",
            &["20", "30", "30", "30"],
        ),
        (
            "SELECT id % 2 AS odd, count(*) FROM items GROUP BY ROLLUP (id % 2) ORDER BY 1, 2",
            "odd:integer count:bigint",
            &["0|1", "1|2", "∅|3"],
        ),
        (
            "SELECT grouping(city) AS g, count(*), (SELECT max(id) FROM items) AS m FROM people GROUP BY ROLLUP (city) ORDER BY 1, 2",
            "g:integer count:bigint m:integer",
            &["0|1|3", "0|2|3", "0|2|3", "1|5|3"],
        ),
    ]);
}

#[test]
fn a_subquery_asks_for_outer_columns_in_every_clause() {
    check(&[
        (
            "SELECT i.id FROM items i ORDER BY (SELECT sum(amount) FROM orders o WHERE o.item = i.id) DESC NULLS LAST, 1",
            "id:integer",
            &["2", "1", "3"],
        ),
        (
            "SELECT (SELECT count(*) FROM orders o WHERE o.item = i.id) AS n, count(*) AS c FROM items i GROUP BY 1 ORDER BY 1",
            "n:bigint c:bigint",
            &["0|1", "1|1", "2|1"],
        ),
        (
            "SELECT DISTINCT ON ((SELECT count(*) FROM orders o WHERE o.item = i.id AND o.id < 12)) i.id FROM items i ORDER BY (SELECT count(*) FROM orders o WHERE o.item = i.id AND o.id < 12), i.id",
            "id:integer",
            &["3", "1"],
        ),
        (
            "SELECT i.id, o.id AS o FROM items i LEFT JOIN orders o ON o.item = i.id AND o.amount = (SELECT max(amount) FROM orders p WHERE p.item = i.id) ORDER BY i.id",
            "id:integer o:integer",
            &["1|10", "2|11", "3|∅"],
        ),
        (
            "SELECT i.id, l.amount FROM items i LEFT JOIN LATERAL (SELECT amount FROM orders o WHERE o.item = i.id ORDER BY amount DESC LIMIT 1) l ON true ORDER BY i.id",
            "id:integer amount:bigint",
            &["1|5", "2|7", "3|∅"],
        ),
        (
            "SELECT i.id, count(*) FILTER (WHERE EXISTS (SELECT 1 FROM orders o WHERE o.item = i.id)) AS sold FROM items i GROUP BY i.id ORDER BY i.id",
            "id:integer sold:bigint",
            &["1|1", "2|1", "3|0"],
        ),
        (
            "SELECT i.id, rank() OVER (ORDER BY (SELECT count(*) FROM orders o WHERE o.item = i.id) DESC) AS place FROM items i ORDER BY place",
            "id:integer place:bigint",
            &["1|1", "2|2", "3|3"],
        ),
    ]);
}

#[test]
fn an_aggregate_is_of_the_query_that_its_columns_are_of() {
    check(&[
        (
            "SELECT (SELECT max(i.id)) AS m FROM items i",
            "m:integer",
            &["3"],
        ),
        (
            "SELECT city, (SELECT count(*) FROM items WHERE items.id < max(p.age)) AS n FROM people p GROUP BY city ORDER BY city",
            "city:text n:bigint",
            &["oslo|3", "rome|3", "∅|0"],
        ),
    ]);
}

#[test]
fn literals_without_a_type_take_that_of_their_column() {
    check(&[
        (
            "SELECT 'a' AS x UNION ALL SELECT NULL",
            "x:text",
            &["a", "∅"],
        ),
        (
            "SELECT NULL AS x UNION ALL SELECT 1",
            "x:integer",
            &["1", "∅"],
        ),
        ("SELECT '3' AS x UNION SELECT 4", "x:integer", &["3", "4"]),
        (
            "VALUES (NULL, '1'), (2, NULL)",
            "column1:integer column2:text",
            &["2|∅", "∅|1"],
        ),
        (
            "WITH RECURSIVE n AS (SELECT 1 AS i, 2 AS d UNION ALL SELECT i + 1, NULL FROM n WHERE i < 2) SELECT i, d FROM n ORDER BY i",
            "i:integer d:integer",
            &["1|2", "2|∅"],
        ),
    ]);
}

#[test]
fn columns_are_called_as_the_query_calls_them() {
    check(&[
        ("WITH c (x) AS (SELECT 1 AS y) TABLE c", "x:integer", &["1"]),
        (
            "WITH c (x) AS (SELECT 1 AS y) SELECT * FROM c UNION ALL TABLE c",
            "x:integer",
            &["1", "1"],
        ),
        (
            "SELECT aggregate, max(v) AS m FROM (VALUES (1, 9), (2, 5)) t (aggregate, v) GROUP BY aggregate ORDER BY aggregate DESC LIMIT 1",
            "aggregate:integer m:integer",
            &["2|5"],
        ),
    ]);
}

#[test]
fn an_aggregate_of_a_query_around_is_a_value_in_another() {
    check(&[(
        "SELECT (SELECT max(i.id + sum(o.id)) FROM items AS i) AS m FROM items AS o",
        "m:bigint",
        &["9"],
    )]);
}

#[test]
fn aggregates_that_are_the_same_stand_beside_others() {
    check(&[(
        "SELECT count(CASE WHEN NOT id = 2 THEN 1 END) AS a, count(CASE WHEN id <> 2 THEN 1 END) AS b, sum(id) AS c, max(id) AS d FROM items",
        "a:bigint b:bigint c:bigint d:integer",
        &["2|2|6|3"],
    )]);
}

#[test]
fn nothing_is_computed_for_rows_that_a_condition_removes() {
    check(&[
        (
            "SELECT id FROM items WHERE id <> 1 AND 1 / (id - 1) > 0",
            "id:integer",
            &["2"],
        ),
        (
            "SELECT 10 / (id - 1) AS q FROM items WHERE id > 1 ORDER BY id",
            "q:integer",
            &["10", "5"],
        ),
        (
            "SELECT id FROM (SELECT id, 1 / (id - 1) AS q FROM items WHERE id <> 1) s WHERE q > 0 ORDER BY id",
            "id:integer",
            &["2"],
        ),
        (
            "SELECT id, CASE WHEN id = 1 THEN 0 ELSE 1 / (id - 1) END AS q FROM items ORDER BY id",
            "id:integer q:integer",
            &["1|0", "2|1", "3|0"],
        ),
    ]);
}

#[test]
fn parts_and_frames_are_as_postgresql_has_them() {
    check(&[
        (
            "SELECT (ARRAY[1,2,3])[:2] AS a, (ARRAY[1,2,3])[2:] AS b",
            "a:integer[] b:integer[]",
            &["[1, 2]|[2, 3]"],
        ),
        (
            "SELECT count(*) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS n FROM (VALUES (timestamp '2024-01-01'), (timestamp '2024-01-03'), (timestamp '2024-01-04')) v (ts) ORDER BY ts",
            "n:bigint",
            &["1", "1", "2"],
        ),
        (
            "SELECT generate_series(1, 3) AS a, generate_series(1, 2) AS b",
            "a:integer b:integer",
            &["1|1", "2|2", "3|∅"],
        ),
        (
            "SELECT ARRAY(SELECT unnest(a)) AS x, ARRAY(WITH w AS (SELECT 2 AS n) SELECT i * n FROM w, unnest(a) AS i ORDER BY i DESC) AS y FROM typed WHERE b",
            "x:integer[] y:integer[]",
            &["[1, 2, 3]|[6, 4, 2]"],
        ),
        (
            "SELECT 2 BETWEEN SYMMETRIC 3 AND 1 AS b",
            "b:boolean",
            &["true"],
        ),
    ]);
}

#[test]
fn a_parameter_has_one_type_however_often_it_is_used() {
    let fixture = Fixture::new();
    let types = |sql: &str| fixture.plan(sql).map(|planned| planned.parameters);
    for (sql, expected) in [
        (
            "SELECT ts FROM typed WHERE ts > $1 AND ts <= $1 + interval '2 days'",
            vec![SqlType::Timestamp],
        ),
        (
            "SELECT id FROM items WHERE $1 = id OR $1 IS NULL",
            vec![SqlType::Int4],
        ),
    ] {
        assert_eq!(types(sql).expect(sql), expected, "{sql}");
    }
}

#[test]
fn writes_name_further_relations() {
    let mut fixture = Fixture::new();
    fixture
        .write("UPDATE items SET price = o.amount FROM orders o WHERE o.item = items.id AND o.id <> 12")
        .expect("updates");
    fixture
        .write("DELETE FROM items USING orders o WHERE o.item = items.id AND o.amount > 6")
        .expect("deletes");
    let (_, rows) = fixture
        .query("SELECT * FROM items ORDER BY id")
        .expect("runs");
    assert_eq!(rows, ["1|apple|5.00", "3|plum|∅"]);
    // A row that several rows are found for is changed once.
    fixture
        .write("UPDATE items SET price = 9 FROM orders o WHERE o.item = items.id")
        .expect("updates");
    fixture
        .write("DELETE FROM items USING orders o WHERE o.item = items.id")
        .expect("deletes");
    let (_, rows) = fixture.query("SELECT id FROM items").expect("runs");
    assert_eq!(rows, ["3"]);
}

#[test]
fn writes_give_rows_back() {
    let mut fixture = Fixture::new();
    for (sql, expected) in [
        (
            "INSERT INTO items (id, price) VALUES (7, 1.005), (6, 2) RETURNING id + 1, items.price, *",
            vec!["8|1.01|7|∅|1.01", "7|2.00|6|∅|2.00"],
        ),
        (
            "INSERT INTO items AS i SELECT id + 10, name FROM items WHERE id = 2 RETURNING i.id, (SELECT count(*) FROM items), 'x'",
            vec!["12|5|x"],
        ),
        (
            "INSERT INTO items (id) VALUES (13), (11) RETURNING id, (SELECT i.id FROM items i WHERE i.id = items.id)",
            vec!["13|∅", "11|∅"],
        ),
        (
            "INSERT INTO items SELECT 1 WHERE false RETURNING id",
            vec![],
        ),
        (
            "UPDATE items SET price = price + 1, name = 'n' || id WHERE id = 7 RETURNING *, price * 2, id, id",
            vec!["7|n7|2.01|4.02|7|7"],
        ),
        (
            "UPDATE items SET price = k FROM (VALUES (6, 'a'), (6, 'b')) v (k, w) WHERE id = k RETURNING id, price, k, v.k + 1",
            vec!["6|6.00|6|7"],
        ),
        (
            "WITH q AS (SELECT 6 AS k) UPDATE items SET price = 0 FROM q WHERE id = k RETURNING price, (SELECT k FROM q)",
            vec!["0.00|6"],
        ),
        (
            "WITH q AS (SELECT 20 AS k) INSERT INTO items SELECT k, 'q' FROM q RETURNING name",
            vec!["q"],
        ),
        (
            "WITH items AS (SELECT 20 AS id) DELETE FROM items AS i USING items WHERE i.id = items.id RETURNING i.*",
            vec!["20|q|∅"],
        ),
        (
            "DELETE FROM items USING (VALUES (11), (12)) v (k) WHERE id = k AND k = 11 RETURNING id, k, NULL",
            vec!["11|11|∅"],
        ),
        (
            "DELETE FROM items WHERE id = 12 RETURNING name IS NULL",
            vec!["false"],
        ),
    ] {
        assert_eq!(fixture.write(sql).expect(sql), expected, "{sql}");
    }
    // A value of chance is the same where it is written and where it is given.
    fixture.table_of(
        "dice",
        vec![Column {
            name: "x".to_owned(),
            sql_type: SqlType::Float8,
            nullable: true,
            default: Some("random()".to_owned()),
        }],
        None,
    );
    for sql in [
        "INSERT INTO dice VALUES (DEFAULT), (random()) RETURNING x",
        "INSERT INTO dice SELECT random() FROM items RETURNING x",
        "UPDATE dice SET x = random() RETURNING x",
    ] {
        fixture
            .write("DELETE FROM dice WHERE false")
            .expect("deletes");
        let returned = fixture.write(sql).expect(sql);
        let (_, rows) = fixture.query("SELECT x FROM dice").expect("runs");
        assert!(
            returned.iter().all(|row| rows.contains(row)) && !returned.is_empty(),
            "{sql}: {returned:?} of {rows:?}"
        );
    }
}

#[test]
fn what_conflicts_is_named_by_a_key() {
    let mut fixture = Fixture::new();
    let column = |name: &str| Column {
        name: name.to_owned(),
        sql_type: SqlType::Int4,
        nullable: true,
        default: None,
    };
    fixture.table_of("plain", vec![column("a"), column("b")], None);
    let returned = fixture
        .write("INSERT INTO plain VALUES (1, 2) ON CONFLICT DO NOTHING RETURNING b")
        .expect("nothing conflicts");
    assert_eq!(returned, ["2"]);
    for (rest, message) in [
        (
            "(a) DO NOTHING",
            "there is no unique or exclusion constraint matching the ON CONFLICT specification",
        ),
        (
            "(a, b) DO UPDATE SET b = excluded.b",
            "there is no unique or exclusion constraint matching the ON CONFLICT specification",
        ),
        ("(nix) DO NOTHING", "column \"nix\" does not exist"),
        (
            "ON CONSTRAINT k DO NOTHING",
            "constraint \"k\" for table \"plain\" does not exist",
        ),
        (
            "DO UPDATE SET b = 1",
            "ON CONFLICT DO UPDATE requires inference specification or constraint name",
        ),
    ] {
        let sql = format!("INSERT INTO plain VALUES (1, 2) ON CONFLICT {rest}");
        assert_eq!(fixture.write(&sql).expect_err(&sql), message, "{sql}");
    }
}

#[test]
fn what_a_name_cannot_mean_is_said_where_it_stands() {
    let fixture = Fixture::new();
    for (sql, kind, message, at) in [
        (
            "SELECT items.id FROM items i",
            ErrorKind::UndefinedTable,
            "invalid reference to FROM-clause entry for table \"items\"",
            "items.id",
        ),
        (
            "SELECT * FROM items i, (SELECT i.price) s",
            ErrorKind::UndefinedTable,
            "invalid reference to FROM-clause entry for table \"i\"",
            "i.price",
        ),
        (
            "SELECT 1 FROM items JOIN orders USING (nix)",
            ErrorKind::UndefinedColumn,
            "column \"nix\" specified in USING clause does not exist in left table",
            "nix",
        ),
        (
            "SELECT id AS x, name AS x FROM items ORDER BY x",
            ErrorKind::AmbiguousColumn,
            "ORDER BY \"x\" is ambiguous",
            "x",
        ),
    ] {
        let ctx = PlanContext {
            text: sql,
            ..fixture.ctx()
        };
        let error = plan_query(&ctx, &parse_query(sql), &[]).expect_err(sql);
        let position = if at == "x" {
            sql.rfind(at)
        } else {
            sql.find(at)
        };
        assert_eq!(
            (error.kind, error.message.as_str(), error.position),
            (kind, message, position.map(|position| position + 1)),
            "{sql}"
        );
    }
}

#[test]
fn rows_are_compared_field_by_field_and_those_of_relations_as_values() {
    check(&[
        (
            "SELECT (1, NULL) = (1, NULL) AS a, (1, NULL) = (2, NULL) AS b, (1, NULL) < (2, NULL) AS c, (1, 2) = NULL AS d",
            "a:boolean b:boolean c:boolean d:boolean",
            &["∅|false|true|∅"],
        ),
        (
            "SELECT l.id FROM items l JOIN items r ON l = r ORDER BY 1",
            "id:integer",
            &["1", "2", "3"],
        ),
        (
            "SELECT l.id FROM items l JOIN items r ON l <= r WHERE r.id = 2 ORDER BY 1",
            "id:integer",
            &["1", "2"],
        ),
        (
            "SELECT count(i.*) AS n, (SELECT i = (3, 'plum', NULL) FROM items i WHERE id = 3) AS same FROM items i",
            "n:bigint same:boolean",
            &["3|true"],
        ),
    ]);
}

#[test]
fn items_of_arrays_are_cast_and_compared_as_items() {
    check(&[
        (
            "SELECT ARRAY['1', 2]::text[] AS a, ARRAY['1', 2]::integer[] AS b",
            "a:text[] b:integer[]",
            &["[1, 2]|[1, 2]"],
        ),
        (
            "SELECT id FROM items WHERE id = ANY (ARRAY[1, 3, NULL]) ORDER BY id",
            "id:integer",
            &["1", "3"],
        ),
        (
            "SELECT id FROM items WHERE id <> ALL (ARRAY[1, NULL])",
            "id:integer",
            &[],
        ),
        (
            "SELECT a, 2 > ALL (a) AS above FROM typed WHERE b GROUP BY a",
            "a:integer[] above:boolean",
            &["[1, 2, 3]|false"],
        ),
    ]);
}

#[test]
fn operands_that_are_compared_twice_do_not_multiply() {
    let fixture = Fixture::new();
    let mut sql = "true".to_owned();
    for _ in 0..20 {
        sql = format!("({sql} BETWEEN false AND true)");
    }
    let error = fixture
        .plan(&format!("SELECT {sql}"))
        .expect_err("it would be too large");
    assert_eq!(error.kind, ErrorKind::TooComplex, "{error}");
}

#[test]
fn a_parameter_is_of_the_type_that_it_is_cast_to_or_stored_as() {
    let fixture = Fixture::new();
    for (sql, expected) in [
        ("SELECT $1::varchar(5)", SqlType::VarChar(None)),
        ("SELECT $1::char(5)", SqlType::Char(0)),
        ("SELECT ARRAY[$1]::integer[]", SqlType::Int4),
    ] {
        let planned = fixture.plan(sql).expect(sql);
        assert_eq!(planned.parameters, [expected], "{sql}");
    }
}
