//! Type modifiers of results: what clients are told of.

use flowstone_types::SqlType;
use flowstone_types::sql_type::shown_modifier;

use crate::fixture::Fixture;

/// The modifiers of a query's columns.
fn modifiers(fixture: &Fixture, sql: &str) -> Vec<i32> {
    let planned = fixture
        .plan(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let fields = planned.schema.fields().iter();
    fields
        .map(|field| shown_modifier(field, &SqlType::from_field(field).expect("a SQL type")))
        .collect()
}

const fn numeric(precision: i32, scale: i32) -> i32 {
    (precision << 16 | scale) + 4
}

const fn letters(length: i32) -> i32 {
    length + 4
}

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.table(
        "m",
        &[
            ("k", SqlType::Int4),
            ("c4", SqlType::Char(4)),
            ("c1", SqlType::Char(1)),
            ("n40", SqlType::Numeric(Some((4, 0)))),
            ("n102", SqlType::Numeric(Some((10, 2)))),
            ("n386", SqlType::Numeric(Some((38, 6)))),
            ("n", SqlType::Numeric(None)),
            ("v", SqlType::VarChar(Some(5))),
            ("t", SqlType::Text),
        ],
        None,
    );
    fixture.view("w", "SELECT n40, n40 + n40 AS double, c4 FROM m");
    fixture
}

#[test]
fn columns_and_casts_have_their_modifiers() {
    let fixture = fixture();
    for (sql, expected) in [
        (
            "SELECT c4, c1, n40, n102, n386, n, v, t FROM m",
            vec![
                letters(4),
                letters(1),
                numeric(4, 0),
                numeric(10, 2),
                numeric(38, 6),
                -1,
                letters(5),
                -1,
            ],
        ),
        (
            "SELECT n::numeric(5,1), c4::char(2), 'x'::varchar(3), '1.5'::numeric(4,1), NULL::char(4), n102::numeric(10,2), round(n102)::numeric(6,1), k::numeric(7,3) FROM m",
            vec![
                numeric(5, 1),
                letters(2),
                letters(3),
                numeric(4, 1),
                letters(4),
                numeric(10, 2),
                numeric(6, 1),
                numeric(7, 3),
            ],
        ),
        (
            "SELECT * FROM (SELECT n40 AS x, c4 FROM m ORDER BY k LIMIT 3) s WHERE x > 1",
            vec![numeric(4, 0), letters(4)],
        ),
        (
            "SELECT DISTINCT n102, c4 FROM m",
            vec![numeric(10, 2), letters(4)],
        ),
        (
            "SELECT DISTINCT ON (n102) n102, c4 FROM m",
            vec![numeric(10, 2), letters(4)],
        ),
        (
            "SELECT n102, count(*), c4 FROM m GROUP BY ROLLUP (n102, c4)",
            vec![numeric(10, 2), -1, letters(4)],
        ),
        (
            "SELECT (SELECT n102 FROM m LIMIT 1), (SELECT n102 FROM m)",
            vec![numeric(10, 2), numeric(10, 2)],
        ),
        (
            "SELECT a.n40, b.c4 FROM m a LEFT JOIN m b ON a.k = b.k",
            vec![numeric(4, 0), letters(4)],
        ),
        (
            "SELECT c4 FROM m a FULL JOIN m b USING (c4)",
            vec![letters(4)],
        ),
        (
            "SELECT x.n40 FROM m, LATERAL (SELECT n40 FROM m i WHERE i.k = m.k) x",
            vec![numeric(4, 0)],
        ),
        (
            "WITH q AS (SELECT n102 FROM m) SELECT n102 FROM q",
            vec![numeric(10, 2)],
        ),
        (
            "SELECT n40, double, c4 FROM w",
            vec![numeric(4, 0), -1, letters(4)],
        ),
    ] {
        assert_eq!(modifiers(&fixture, sql), expected, "{sql}");
    }
}

#[test]
fn results_of_functions_and_operators_have_none() {
    let fixture = fixture();
    for sql in [
        "SELECT n40 - n40, -n40, n102 * 2, n40 / 3, abs(n102) FROM m",
        "SELECT round(n102), round(n102, 1), round('1'::numeric), round('1'::numeric, -1), trunc(n40), ceil(n), sign(n102), floor(n386) FROM m",
        "SELECT extract(day FROM d), extract(epoch FROM ts), extract(julian FROM d), extract(timezone FROM tstz) FROM typed",
        "SELECT sum(k), sum('1'::int8), sum(n102), max(n102), min(c4), avg(k) FROM m",
        "SELECT n40 + sum(n40), max(n40) + 1 FROM m GROUP BY n40",
        "SELECT first_value('a'::char(4)) OVER (ORDER BY k), last_value(c4) OVER (), lead('a'::char(4)) OVER (ORDER BY k), lag(n102) OVER (ORDER BY k), nth_value(c4, 2) OVER (), max(n102) OVER (), sum(k) OVER () FROM m",
        "SELECT (SELECT max(n102) FROM m), (SELECT sum(k) FROM m)",
        "SELECT 1.5, 100.25",
    ] {
        let found = modifiers(&fixture, sql);
        assert!(
            found.iter().all(|modifier| *modifier == -1),
            "{sql}: {found:?}"
        );
    }
}

#[test]
fn values_that_come_to_one_type_have_the_modifier_of_all() {
    let fixture = fixture();
    for (sql, expected) in [
        (
            "SELECT CASE WHEN true THEN c4 END, CASE WHEN true THEN c4 ELSE c4 END, CASE WHEN true THEN c4 ELSE NULL END, CASE WHEN true THEN n40 ELSE n102 END FROM m",
            vec![-1, letters(4), -1, -1],
        ),
        (
            "SELECT CASE WHEN true THEN 'a'::char(4) WHEN false THEN 'b'::char(4) END, CASE WHEN true THEN n::numeric(5,1) ELSE k::numeric(5,1) END FROM m",
            vec![-1, numeric(5, 1)],
        ),
        (
            "SELECT coalesce(c4, c4), coalesce(c4, c1), coalesce(n102, 0), coalesce(n40, n40), nullif(c4, c1), nullif(n102, 0), greatest(n102, 0), greatest(n102, n102), greatest(c4, c4) FROM m",
            vec![
                letters(4),
                -1,
                -1,
                numeric(4, 0),
                letters(4),
                numeric(10, 2),
                -1,
                numeric(10, 2),
                letters(4),
            ],
        ),
        ("SELECT c4 FROM m UNION SELECT c4 FROM m", vec![letters(4)]),
        ("SELECT c4 FROM m UNION ALL SELECT c1 FROM m", vec![-1]),
        ("SELECT c4 FROM m UNION ALL SELECT NULL", vec![-1]),
        ("SELECT n40 FROM m UNION ALL SELECT n102 FROM m", vec![-1]),
        ("SELECT n102 FROM m UNION ALL SELECT 1", vec![-1]),
        (
            "SELECT n102 FROM m EXCEPT SELECT n102 FROM m",
            vec![numeric(10, 2)],
        ),
        (
            "VALUES (1::numeric(4,1)), (2::numeric(4,1))",
            vec![numeric(4, 1)],
        ),
    ] {
        assert_eq!(modifiers(&fixture, sql), expected, "{sql}");
    }
}
