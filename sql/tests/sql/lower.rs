//! Lowering: what becomes which operator, and that the operators compute the query.
//!
//! The operators are evaluated here from scratch, by definition and with DataFusion; keeping them up to date is the engine's concern.

#![expect(
    clippy::indexing_slicing,
    reason = "a plan that refers to what is not there fails the test"
)]

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::common::{Column, JoinType, NullEquality, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr::{AggregateFunction, Sort, WindowFunction};
use datafusion::logical_expr::{
    Expr, LogicalPlanBuilder, WindowFrame, WindowFunctionDefinition, lit,
};
use flowstone_functions::codec::{decode_expr, decode_plan};
use flowstone_functions::{ScanTarget, registry};
use flowstone_proto::ipc::decode_batches;
use flowstone_proto::plan::{AggregateFunction as Function, Operator, Plan, column_name};
use flowstone_sql::explain::explain_incremental;
use flowstone_sql::lower::{Lowered, lower};
use flowstone_sql::plan::PlanContext;

use crate::fixture::{Fixture, lines, memory, parse_query};

fn lowered(fixture: &Fixture, sql: &str) -> Lowered {
    let ctx = PlanContext {
        maintained: true,
        ..fixture.ctx()
    };
    let planned = flowstone_sql::plan::plan_query(&ctx, &parse_query(sql), &[])
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    lower(&planned).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn column(index: usize) -> Expr {
    Expr::Column(Column::new_unqualified(column_name(index)))
}

/// The rows as a plan whose columns are `c0`, `c1`, …
fn scan(rows: &RecordBatch) -> LogicalPlanBuilder {
    LogicalPlanBuilder::scan("input", provider_as_source(memory(rows)), None).expect("a scan")
}

fn renamed(rows: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let columns = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            assert_eq!(
                column.data_type(),
                field.data_type(),
                "a node yields the types it declares"
            );
            Arc::clone(column)
        })
        .collect();
    let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .expect("columns as declared")
}

/// The rows of the last node.
fn evaluate(fixture: &Fixture, plan: &Plan) -> RecordBatch {
    let mut results: Vec<RecordBatch> = Vec::new();
    for node in &plan.nodes {
        let of = |id: &flowstone_proto::plan::NodeId| &results[id.0];
        let run = |builder: LogicalPlanBuilder| {
            fixture
                .execute(&builder.build().expect("builds"))
                .expect("runs")
        };
        let rows = match &node.operator {
            Operator::Get { collection } => fixture.rows[collection].clone(),
            Operator::Constant { rows } => {
                let (schema, batches) = decode_batches(rows).expect("decodes");
                arrow::compute::concat_batches(&schema, &batches).expect("one schema")
            }
            Operator::FilterProject {
                input,
                predicates,
                projections,
            } => {
                let mut builder = scan(of(input));
                for predicate in predicates {
                    builder = builder
                        .filter(decode_expr(&predicate.bytes).expect("decodes"))
                        .expect("filters");
                }
                let projections = projections.iter().enumerate().map(|(index, expr)| {
                    decode_expr(&expr.bytes)
                        .expect("decodes")
                        .alias(column_name(index))
                });
                run(builder.project(projections).expect("projects"))
            }
            Operator::Join {
                left,
                right,
                left_keys,
                right_keys,
                null_equals_null,
            } => {
                let left_side = scan(of(left)).alias("l").expect("alias");
                let right_side = scan(of(right))
                    .alias("r")
                    .expect("alias")
                    .build()
                    .expect("builds");
                let keys = |side: &str, keys: &[usize]| {
                    keys.iter()
                        .map(|key| Column::new(Some(side), column_name(*key)))
                        .collect::<Vec<_>>()
                };
                let equality = if *null_equals_null {
                    NullEquality::NullEqualsNull
                } else {
                    NullEquality::NullEqualsNothing
                };
                run(if left_keys.is_empty() {
                    left_side.cross_join(right_side).expect("joins")
                } else {
                    left_side
                        .join_detailed(
                            right_side,
                            JoinType::Inner,
                            (keys("l", left_keys), keys("r", right_keys)),
                            None,
                            equality,
                        )
                        .expect("joins")
                })
            }
            Operator::Aggregate {
                input,
                group,
                aggregates,
            } => {
                let calls = aggregates.iter().enumerate().map(|(index, aggregate)| {
                    let name = match aggregate.function {
                        Function::Count => "count",
                        Function::Sum => "sum",
                        Function::Avg => "avg",
                        Function::Min => "min",
                        Function::Max => "max",
                        Function::BoolAnd => "bool_and",
                        Function::BoolOr => "bool_or",
                    };
                    let argument = aggregate.argument.map_or_else(|| lit(1_i64), column);
                    let filter = aggregate.filter.map(|filter| Box::new(column(filter)));
                    let function = registry().aggregate(name).expect("exists");
                    Expr::AggregateFunction(AggregateFunction::new_udf(
                        function,
                        vec![argument],
                        aggregate.distinct,
                        filter,
                        Vec::new(),
                        None,
                    ))
                    .alias(format!("a{index}"))
                });
                run(scan(of(input))
                    .aggregate(group.iter().map(|group| column(*group)), calls)
                    .expect("aggregates"))
            }
            Operator::Distinct { input } => {
                let columns: Vec<Expr> = (0..node.schema.fields().len()).map(column).collect();
                run(scan(of(input))
                    .aggregate(columns, Vec::<Expr>::new())
                    .expect("aggregates"))
            }
            Operator::Union { inputs } => {
                let batches: Vec<RecordBatch> = inputs
                    .iter()
                    .map(|input| renamed(of(input), &node.schema))
                    .collect();
                arrow::compute::concat_batches(&node.schema, &batches).expect("one schema")
            }
            Operator::TopK {
                input,
                group,
                order,
                limit,
                offset,
            } => {
                let width = node.schema.fields().len();
                let mut window = WindowFunction::new(
                    WindowFunctionDefinition::WindowUDF(
                        registry().window("row_number").expect("exists"),
                    ),
                    Vec::new(),
                );
                window.params.partition_by = group.iter().map(|group| column(*group)).collect();
                let chosen = order.iter().map(|order| {
                    Sort::new(column(order.column), !order.descending, order.nulls_first)
                });
                window.params.order_by = chosen
                    .chain((0..width).map(|index| Sort::new(column(index), true, false)))
                    .collect();
                window.params.window_frame = WindowFrame::new(Some(true));
                let number = Expr::from(window).alias("number");
                let above = Expr::Column(Column::new_unqualified("number"));
                let literal = |count: u64| Expr::Literal(ScalarValue::UInt64(Some(count)), None);
                let numbered = scan(of(input)).window(vec![number]).expect("numbers");
                let mut kept = numbered
                    .filter(above.clone().gt(literal(*offset)))
                    .expect("filters");
                if let Some(limit) = limit {
                    kept = kept
                        .filter(above.lt_eq(literal(offset + limit)))
                        .expect("filters");
                }
                run(kept.project((0..width).map(column)).expect("projects"))
            }
            operator => {
                let query = operator.query().expect("a query");
                let inputs = operator.inputs();
                let plan = decode_plan(&query.bytes, &|target, _| match target {
                    ScanTarget::Input(index) => Ok(memory(of(&inputs[index]))),
                    ScanTarget::Collection(id) => {
                        panic!("collection {id} inside a recomputed query")
                    }
                })
                .expect("decodes");
                fixture.execute(&plan).expect("runs")
            }
        };
        results.push(renamed(&rows, &node.schema));
    }
    results.pop().expect("a plan has nodes")
}

/// Queries of which each part has an operator.
const INCREMENTAL: [&str; 33] = [
    "SELECT id, name FROM items WHERE price > 1",
    "SELECT id + 1 AS n, upper(name) FROM items WHERE id > 0 AND name LIKE 'p%'",
    "SELECT i.name, o.amount FROM items i JOIN orders o ON o.item = i.id WHERE o.amount > i.id",
    "SELECT i.name, o.amount FROM items i JOIN orders o ON o.item = i.id AND o.amount > i.id + 1",
    "SELECT i.name, o.id FROM items i, orders o",
    "SELECT name, amount FROM items JOIN orders ON items.id + 9 = orders.id",
    "SELECT a.name, b.name FROM people a JOIN people b USING (city)",
    "SELECT city, count(*), count(age), sum(age), avg(age), min(age), max(name) FROM people GROUP BY city",
    "SELECT count(*), sum(amount), sum(price) FROM orders JOIN items ON item = items.id",
    "SELECT count(*) FILTER (WHERE age > 20), count(DISTINCT city), bool_and(age > 10) FROM people",
    "SELECT age + 1, count(*) FROM people GROUP BY age + 1 HAVING count(*) > 1",
    "SELECT DISTINCT city, age FROM people",
    "SELECT DISTINCT ON (city) city, name FROM people ORDER BY city, age, name",
    "SELECT name FROM people UNION ALL SELECT name FROM items",
    "SELECT name FROM people UNION SELECT name FROM items",
    "SELECT id, amount FROM orders ORDER BY amount DESC LIMIT 2",
    "SELECT amount + 1 AS more FROM orders ORDER BY id LIMIT 2 OFFSET 1",
    "VALUES (1, 'a'), (2, NULL)",
    "SELECT 1 AS one, 'x' AS x",
    "SELECT id FROM items WHERE false",
    "SELECT name FROM items WHERE id IN (SELECT item FROM orders)",
    "SELECT name FROM items WHERE EXISTS (SELECT 1 FROM orders WHERE item = items.id)",
    "WITH p AS (SELECT city, sum(age) AS s FROM people GROUP BY city) SELECT a.city, b.s FROM p a JOIN p b ON a.s = b.s",
    "SELECT city, n FROM (SELECT city, count(*) AS n FROM people GROUP BY city) c WHERE n > 1",
    "SELECT sum(x) FROM (SELECT DISTINCT age AS x FROM people) d",
    "SELECT j ->> 'a' AS a, b FROM typed WHERE j IS NOT NULL",
    "SELECT city, age, count(*) FROM people GROUP BY ROLLUP (city, age)",
    "SELECT city, age % 2, sum(age), grouping(city, age % 2) FROM people GROUP BY CUBE (city, age % 2)",
    "SELECT city, age, count(*) FROM people GROUP BY GROUPING SETS ((city), (age, city), (), (city))",
    "SELECT city, count(*) FROM people WHERE age > 1000 GROUP BY ROLLUP (city)",
    "SELECT city FROM people WHERE age > 1000 GROUP BY ROLLUP (city)",
    "SELECT age, city, max(name) FROM people GROUP BY age, ROLLUP (city) HAVING count(*) > 0",
    "SELECT count(*) FROM (SELECT 1 WHERE false) x",
];

/// Queries with a part that is evaluated for the keys or rows that change, and what that is.
const BY_CHANGES: [(&str, &str); 25] = [
    (
        "SELECT name, amount FROM items LEFT JOIN orders ON item = items.id",
        "left outer join",
    ),
    (
        "SELECT name, amount, items.id FROM items LEFT JOIN orders ON item = items.id AND amount > items.id",
        "left outer join",
    ),
    (
        "SELECT name, amount FROM orders RIGHT JOIN items ON item + 0 = items.id",
        "right outer join",
    ),
    (
        "SELECT name, amount FROM items FULL JOIN orders ON item = items.id",
        "full outer join",
    ),
    (
        "SELECT i.name, p.name FROM items i FULL JOIN people p ON p.city = i.name AND p.age = i.id",
        "full outer join",
    ),
    (
        "SELECT name FROM items WHERE NOT EXISTS (SELECT 1 FROM orders WHERE item = items.id)",
        "anti join (NOT EXISTS, NOT IN, EXCEPT)",
    ),
    (
        "SELECT name FROM people WHERE age NOT IN (SELECT amount FROM orders)",
        "anti join (NOT EXISTS, NOT IN, EXCEPT)",
    ),
    (
        "SELECT name FROM people WHERE age NOT IN (SELECT amount FROM orders WHERE amount IS NOT NULL)",
        "anti join (NOT EXISTS, NOT IN, EXCEPT)",
    ),
    (
        "SELECT name, age FROM people WHERE age NOT IN (SELECT amount FROM orders WHERE id > 1000)",
        "anti join (NOT EXISTS, NOT IN, EXCEPT)",
    ),
    (
        "SELECT name FROM items WHERE EXISTS (SELECT 1 FROM orders WHERE item = items.id AND amount > items.id)",
        "semi join with a condition other than equality",
    ),
    (
        "SELECT name, EXISTS (SELECT 1 FROM orders WHERE item = items.id) AS ordered FROM items",
        "subquery in an expression",
    ),
    (
        "SELECT name FROM items WHERE id > 1 OR EXISTS (SELECT 1 FROM orders WHERE item = items.id)",
        "subquery in an expression",
    ),
    (
        "SELECT name, rank() OVER (PARTITION BY city ORDER BY age) AS r FROM people WHERE age > 0",
        "window functions",
    ),
    (
        "SELECT name, sum(age) OVER (PARTITION BY city) AS s, count(*) OVER (PARTITION BY age % 2, city) AS n FROM people",
        "window functions",
    ),
    (
        "SELECT name, lag(name) OVER (PARTITION BY upper(city) ORDER BY age, name) AS before FROM people",
        "window functions",
    ),
    (
        "SELECT name, n FROM (SELECT name, city, row_number() OVER (PARTITION BY city ORDER BY age DESC, name) AS n FROM people) p WHERE n <= 2 AND name <> 'x'",
        "window functions",
    ),
    (
        "SELECT name FROM (SELECT name, row_number() OVER (PARTITION BY upper(city) ORDER BY age + 1, name) AS n FROM people) p WHERE 2 > n",
        "window functions",
    ),
    (
        "SELECT name FROM (SELECT name, row_number() OVER (PARTITION BY city ORDER BY name) AS n FROM people) p WHERE n = 2",
        "window functions",
    ),
    (
        "SELECT city, string_agg(name, ',' ORDER BY name) FROM people GROUP BY city",
        "aggregate string_agg",
    ),
    (
        "SELECT upper(city), stddev(age), count(*) FROM people GROUP BY upper(city)",
        "aggregate stddev",
    ),
    (
        "SELECT age % 2, city, array_agg(name ORDER BY name DESC) FROM people GROUP BY age % 2, city",
        "aggregate array_agg",
    ),
    (
        "SELECT unnest(a) AS e FROM typed",
        "set-returning functions",
    ),
    (
        "SELECT i.id, g FROM items i, generate_series(1, i.id) g",
        "set-returning functions",
    ),
    (
        "SELECT name FROM people EXCEPT ALL SELECT 'cid'",
        "window functions",
    ),
    (
        "SELECT i.name, (SELECT max(amount) FROM orders o WHERE o.item = i.id) FROM items i",
        "left outer join",
    ),
];

/// Queries with a part that is recomputed, and why.
const RECOMPUTED: [(&str, &str); 5] = [
    (
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 4) SELECT i FROM n JOIN items ON items.id = i",
        "recursive query",
    ),
    (
        "SELECT name, rank() OVER (ORDER BY age) AS r, count(*) OVER (PARTITION BY city) AS n FROM people",
        "window functions",
    ),
    (
        "SELECT name, amount FROM items LEFT JOIN orders ON item < items.id",
        "left outer join",
    ),
    (
        "SELECT string_agg(name, ',' ORDER BY name) FROM people",
        "aggregate string_agg",
    ),
    (
        "SELECT count(DISTINCT '2 hours'::interval) FROM people WHERE false",
        "aggregate count",
    ),
];

fn compare(fixture: &Fixture, sql: &str, lowered: &Lowered) -> Result<(), String> {
    let (_, mut expected) = fixture.query(sql)?;
    let found = evaluate(fixture, &lowered.plan);
    let mut found_lines = lines(&found);
    expected.sort();
    found_lines.sort();
    if expected != found_lines {
        return Err(format!("expected {expected:?}\n  found    {found_lines:?}"));
    }
    if let Some(key) = &lowered.key {
        let mut keys = lines(&found.project(key).map_err(|error| error.to_string())?);
        keys.sort();
        keys.dedup();
        if !key.is_empty() && keys.len() != found.num_rows() {
            return Err(format!(
                "the key {key:?} does not identify the rows {found_lines:?}"
            ));
        }
    }
    Ok(())
}

#[test]
fn operators_compute_the_query() {
    let fixture = Fixture::new();
    let mut failures = Vec::new();
    for (sql, reason) in INCREMENTAL
        .iter()
        .map(|sql| (*sql, None))
        .chain(BY_CHANGES.iter().map(|(sql, _)| (*sql, None)))
        .chain(RECOMPUTED.iter().map(|(sql, reason)| (*sql, Some(*reason))))
    {
        let lowered = lowered(&fixture, sql);
        let first = lowered.recomputed.first().map(String::as_str);
        if first != reason {
            failures.push(format!("{sql}\n  recomputed: {:?}", lowered.recomputed));
        }
        if let Err(failure) = compare(&fixture, sql, &lowered) {
            failures.push(format!(
                "{sql}\n  {failure}\n{}",
                explain_incremental(&lowered.plan, &|id| id.to_string()).join("\n")
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_has_no_operator_is_evaluated_for_what_changes() {
    let fixture = Fixture::new();
    for (sql, wanted) in BY_CHANGES {
        let lowered = lowered(&fixture, sql);
        let mut found = lowered
            .plan
            .nodes
            .iter()
            .filter_map(|node| match &node.operator {
                Operator::RecomputeGroups { what, .. } | Operator::RecomputeRows { what, .. } => {
                    Some(what.as_str())
                }
                _ => None,
            });
        assert!(
            found.any(|what| what == wanted),
            "{sql}\n{:#?}",
            lowered.plan
        );
    }
}

#[test]
fn of_rows_that_are_numbered_only_the_first_are_kept_in_order() {
    let fixture = Fixture::new();
    let limits = |condition: &str| {
        let numbered =
            "SELECT name, row_number() OVER (PARTITION BY city ORDER BY age) AS n, age FROM people";
        let lowered = lowered(
            &fixture,
            &format!("SELECT name FROM ({numbered}) p WHERE {condition}"),
        );
        let limits = lowered
            .plan
            .nodes
            .iter()
            .filter_map(|node| match &node.operator {
                Operator::TopK { limit, group, .. } => Some((*limit, group.len())),
                _ => None,
            });
        limits.collect::<Vec<_>>()
    };
    assert_eq!(limits("n <= 3"), [(Some(3), 1)]);
    assert_eq!(limits("n < 3 AND n < 9"), [(Some(2), 1)]);
    assert_eq!(limits("1 = n"), [(Some(1), 1)]);
    assert_eq!(limits("n > 3"), []);
    assert_eq!(limits("n <= 3 OR age = 1"), []);
    assert_eq!(limits("age <= 3"), []);
    assert_eq!(limits("n + 1 <= 3"), []);
}

#[test]
fn keys_are_inferred() {
    let fixture = Fixture::new();
    let key = |sql: &str| lowered(&fixture, sql).key;
    assert_eq!(
        key("SELECT name, id FROM items WHERE price > 0"),
        Some(vec![1])
    );
    assert_eq!(key("SELECT name FROM items"), None);
    assert_eq!(key("SELECT count(*) FROM items"), Some(vec![]));
    assert_eq!(
        key("SELECT count(*), city FROM people GROUP BY city"),
        Some(vec![1])
    );
    assert_eq!(
        key("SELECT DISTINCT city, age FROM people"),
        Some(vec![0, 1])
    );
    assert_eq!(
        key("SELECT DISTINCT ON (city) age, city FROM people ORDER BY city, age"),
        Some(vec![1])
    );
    assert_eq!(
        key("SELECT o.id, i.name FROM orders o JOIN items i ON o.item = i.id"),
        Some(vec![0])
    );
    assert_eq!(
        key("SELECT id FROM items UNION ALL SELECT id FROM orders"),
        None
    );
}

#[test]
fn a_common_table_expression_used_twice_is_one_node() {
    let fixture = Fixture::new();
    let lowered = lowered(
        &fixture,
        "WITH p AS (SELECT city, sum(age) AS s FROM people GROUP BY city) SELECT a.city, b.s FROM p a JOIN p b ON a.s = b.s",
    );
    let aggregates = lowered
        .plan
        .nodes
        .iter()
        .filter(|node| matches!(node.operator, Operator::Aggregate { .. }))
        .count();
    assert_eq!(aggregates, 1, "{:#?}", lowered.plan);
}

#[test]
fn what_is_recomputed_for_two_references_is_one_node() {
    let fixture = Fixture::new();
    let lowered = lowered(
        &fixture,
        "WITH p AS (SELECT i.name, o.amount FROM items i LEFT JOIN orders o ON o.item = i.id) SELECT a.name, b.name AS other FROM p a JOIN p b ON a.amount = b.amount",
    );
    let recomputed = lowered
        .plan
        .nodes
        .iter()
        .filter(|node| matches!(node.operator, Operator::RecomputeGroups { .. }))
        .count();
    assert_eq!(recomputed, 1, "{:#?}", lowered.plan);
}

#[test]
fn branches_of_a_union_are_inputs_of_one_operator() {
    let fixture = Fixture::new();
    let inputs = |sql: &str| {
        let lowered = lowered(&fixture, sql);
        let unions = lowered
            .plan
            .nodes
            .iter()
            .filter_map(|node| match &node.operator {
                Operator::Union { inputs } => Some(inputs.len()),
                _ => None,
            });
        unions.collect::<Vec<_>>()
    };
    assert_eq!(
        inputs(
            "SELECT name FROM items UNION ALL SELECT name FROM people UNION ALL SELECT city FROM people"
        ),
        [3]
    );
    assert_eq!(
        inputs(
            "SELECT name FROM items UNION SELECT name FROM people UNION SELECT city FROM people"
        ),
        [3]
    );
}

#[test]
fn explain_shows_operators_state_and_what_is_recomputed() {
    let fixture = Fixture::new();
    let name = |id: flowstone_types::ObjectId| fixture.catalog.items[&id].name.clone();
    let lines = |sql: &str| explain_incremental(&lowered(&fixture, sql).plan, &name);
    assert_eq!(
        lines(
            "SELECT i.name, sum(o.amount) FROM items i JOIN orders o ON o.item = i.id WHERE o.amount > 1 GROUP BY i.name"
        ),
        [
            "Aggregate sum(c1) group by c0  [incremental, state: one entry per group, cost: change]",
            "  Project i.name, o.amount  [incremental, no state]",
            "    Join on left.c0 = right.c0  [incremental, state: both inputs by key, cost: change × matches]",
            "      Project i.id, i.name  [incremental, no state]",
            "        Get items  [no state]",
            "      Project o.item, o.amount where amount > 1  [incremental, no state]",
            "        Get orders  [no state]",
        ]
    );
    let recomputed = lines("SELECT name, amount FROM items LEFT JOIN orders ON item < items.id");
    assert!(
        recomputed
            .iter()
            .any(|line| line.contains("Recompute left outer join  [RECOMPUTED at each change")),
        "{recomputed:#?}"
    );
    let by_groups = lines("SELECT name, amount FROM items LEFT JOIN orders ON item = items.id");
    let wanted = "RecomputeGroups left outer join by c0 = c0  [incremental, state: inputs and output, cost: all rows of the keys that change]";
    assert!(
        by_groups.iter().any(|line| line.contains(wanted)),
        "{by_groups:#?}"
    );
}
