//! Round trips of expressions and plans.

use std::sync::Arc;

use arrow_schema::{DataType, IntervalUnit, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::prelude::SessionContext;
use flowstone_types::{ObjectId, SqlType};

use super::*;
use crate::cast::cast_expr;
use crate::contexts::session_state;
use crate::registry::scalar_function;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        SqlType::Int4.to_field("c0", false),
        SqlType::VarChar(Some(10)).to_field("c1", true),
        SqlType::Jsonb.to_field("c2", true),
        SqlType::Array(Box::new(SqlType::Int4)).to_field("c3", true),
    ]))
}

fn context() -> SessionContext {
    let context = SessionContext::new_with_state(session_state());
    context
        .register_table(
            "t",
            Arc::new(CollectionTable::new(ObjectId::User(7), schema())),
        )
        .or_else(|_| {
            // There is no default catalog; give the test one.
            let schema_provider = Arc::new(datafusion::catalog::MemorySchemaProvider::new());
            let catalog = Arc::new(datafusion::catalog::MemoryCatalogProvider::new());
            datafusion::catalog::CatalogProvider::register_schema(
                catalog.as_ref(),
                "public",
                schema_provider,
            )?;
            context.register_catalog("datafusion", catalog);
            context.register_table(
                "t",
                Arc::new(CollectionTable::new(ObjectId::User(7), schema())),
            )
        })
        .unwrap();
    context
}

fn plan(sql: &str) -> LogicalPlan {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let context = context();
    let plan = runtime
        .block_on(context.state().create_logical_plan(sql))
        .unwrap();
    context.state().optimize(&plan).unwrap()
}

fn placeholder(target: ScanTarget, schema: SchemaRef) -> Result<Arc<dyn TableProvider>> {
    Ok(match target {
        ScanTarget::Collection(id) => Arc::new(CollectionTable::new(id, schema)),
        ScanTarget::Input(index) => Arc::new(InputTable::new(index, schema)),
    })
}

fn round_trip(plan: &LogicalPlan) -> LogicalPlan {
    decode_plan(&encode_plan(plan).unwrap(), &placeholder).unwrap()
}

#[test]
fn literals_of_every_kind_survive() {
    let literals = [
        ScalarValue::Decimal128(Some(-12_345), 38, 18),
        ScalarValue::IntervalMonthDayNano(Some(arrow_buffer::IntervalMonthDayNano::new(
            1, -2, 3000,
        ))),
        ScalarValue::LargeBinary(Some(vec![1, 0, 255])),
        ScalarValue::Binary(Some(vec![0, 1])),
        ScalarValue::FixedSizeBinary(16, Some(vec![7; 16])),
        ScalarValue::TimestampMicrosecond(Some(-1), Some("UTC".into())),
        ScalarValue::TimestampMicrosecond(Some(1), None),
        ScalarValue::Time64Microsecond(Some(1)),
        ScalarValue::Date32(Some(-1)),
        ScalarValue::Utf8(Some("é".to_owned())),
        ScalarValue::Int16(None),
        ScalarValue::UInt64(Some(u64::MAX)),
        ScalarValue::Float64(Some(0.1)),
        ScalarValue::Null,
        ScalarValue::List(ScalarValue::new_list(
            &[ScalarValue::Int32(Some(1)), ScalarValue::Int32(None)],
            &DataType::Int32,
            true,
        )),
        ScalarValue::try_from(&DataType::Interval(IntervalUnit::MonthDayNano)).unwrap(),
    ];
    for literal in literals {
        let expr = Expr::Literal(literal, None);
        assert_eq!(decode_expr(&encode_expr(&expr).unwrap()).unwrap(), expr);
    }
}

#[test]
fn our_functions_and_casts_survive_and_evaluate() {
    let columns = DFSchema::try_from(schema()).unwrap();
    let added = crate::planner::arithmetic(
        datafusion::logical_expr::Operator::Plus,
        col("c0"),
        lit(1_i64),
        &columns,
    )
    .unwrap()
    .unwrap();
    let cast = cast_expr(added, &SqlType::Int4, &SqlType::VarChar(Some(2))).unwrap();
    let decoded = decode_expr(&encode_expr(&cast).unwrap()).unwrap();
    assert_eq!(decoded, cast);
    let physical = physical_expr(&decoded, &schema()).unwrap();
    let field = physical.return_field(&schema()).unwrap();
    assert_eq!(
        SqlType::from_field(&field).unwrap(),
        SqlType::VarChar(Some(2))
    );
}

#[test]
fn scans_keep_identity_schema_and_metadata() {
    let plan = LogicalPlanBuilder::scan(
        "input_3",
        provider_as_source(Arc::new(InputTable::new(3, schema()))),
        Some(vec![1, 2]),
    )
    .unwrap()
    .build()
    .unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    let decoded = decode_plan(&encode_plan(&plan).unwrap(), &|target, schema| {
        seen.lock().unwrap().push((target, Arc::clone(&schema)));
        placeholder(target, schema)
    })
    .unwrap();
    assert_eq!(
        seen.into_inner().unwrap(),
        [(ScanTarget::Input(3), schema())]
    );
    assert_eq!(decoded.schema(), plan.schema());
    assert_eq!(
        SqlType::from_field(decoded.schema().field(0)).unwrap(),
        SqlType::VarChar(Some(10))
    );
}

#[test]
fn plans_of_every_shape_survive() {
    for sql in [
        "SELECT c0 + 1, c2 -> 'a' FROM t WHERE c1 = 'x'",
        "SELECT c1, count(*), sum(c0) FILTER (WHERE c0 > 0), avg(DISTINCT c0) FROM t GROUP BY c1 HAVING count(*) > 1",
        "SELECT DISTINCT ON (c1) c1, c0 FROM t ORDER BY c1, c0 DESC",
        "SELECT c0, row_number() OVER (PARTITION BY c1 ORDER BY c0), sum(c0) OVER (ORDER BY c0 ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
        "SELECT c0, unnest(c3) FROM t",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
        "SELECT a.c0 FROM t a LEFT JOIN t b ON a.c0 = b.c0 AND b.c1 = 'y' ORDER BY 1 LIMIT 3 OFFSET 1",
        "SELECT t.c0 FROM t LEFT SEMI JOIN t u ON u.c0 = t.c0 AND u.c1 = 'z' LEFT ANTI JOIN t v ON v.c0 = t.c0",
        "SELECT c0, m FROM t LEFT JOIN (SELECT max(c0) AS m FROM t) u ON true",
        "SELECT c0 FROM t UNION SELECT 2 EXCEPT SELECT 3",
        "VALUES (1, 'a'), (2, NULL)",
    ] {
        let plan = plan(sql);
        let decoded = round_trip(&plan);
        // The work table of a recursive query is scanned whole.
        let shown = plan
            .display_indent()
            .to_string()
            .replace("TableScan: r projection=[n]", "TableScan: r");
        assert_eq!(decoded.display_indent().to_string(), shown, "{sql}");
        assert_eq!(
            decoded.schema().as_arrow(),
            plan.schema().as_arrow(),
            "{sql}"
        );
    }
}

#[test]
fn tables_that_are_not_collections_are_refused() {
    let table =
        Arc::new(datafusion::datasource::MemTable::try_new(schema(), vec![vec![]]).unwrap());
    let plan = LogicalPlanBuilder::scan("m", provider_as_source(table), None)
        .unwrap()
        .build()
        .unwrap();
    assert!(encode_plan(&plan).is_err());
}

#[test]
fn aggregates_and_columns_survive_in_expressions() {
    let expr = count(Expr::Column(Column::from_name("c0"))).alias("n");
    assert_eq!(decode_expr(&encode_expr(&expr).unwrap()).unwrap(), expr);
    assert!(scalar_function("pg_add").is_ok());
}

/// `CASE WHEN c0 = 0 THEN 0 ELSE CASE WHEN c0 = 1 …`, so many levels deep.
fn nested_case(levels: i32) -> Expr {
    (0..levels).fold(col("c0"), |inner, level| {
        datafusion::logical_expr::when(col("c0").eq(lit(level)), lit(level))
            .otherwise(inner)
            .unwrap()
    })
}

#[test]
fn deep_expressions_travel_in_pieces() {
    for levels in [1, 11, 12, 13, 60, 400] {
        let expr = nested_case(levels);
        let travelled = decode_expr(&encode_expr(&expr).unwrap()).unwrap();
        assert_eq!(travelled, expr, "{levels} levels");
    }
}

#[test]
fn deep_plans_travel_in_pieces_and_keep_their_columns() {
    let table: Arc<dyn TableProvider> = Arc::new(CollectionTable::new(ObjectId::User(7), schema()));
    let source = provider_as_source(table);
    for depth in [1, 14, 15, 16, 70, 300] {
        let mut builder = LogicalPlanBuilder::scan("t", Arc::clone(&source), None).unwrap();
        for level in 0..depth {
            builder = builder
                .filter(col("c0").gt(lit(level)))
                .unwrap()
                .alias(format!("t{level}"))
                .unwrap();
        }
        let plan = builder.build().unwrap();
        assert_eq!(round_trip(&plan), plan, "{depth} levels");
    }
    // Expressions are cut as well, inside of every piece.
    let mut builder = LogicalPlanBuilder::scan("t", source, None).unwrap();
    for _ in 0..40 {
        builder = builder
            .filter(nested_case(40).gt(lit(0)))
            .unwrap()
            .project(vec![nested_case(40).alias("c0"), nested_case(30)])
            .unwrap()
            .project(vec![col("c0")])
            .unwrap();
    }
    let plan = builder
        .project(vec![nested_case(100)])
        .unwrap()
        .build()
        .unwrap();
    let travelled = round_trip(&plan);
    assert_eq!(travelled.schema(), plan.schema());
    // Nothing but names that are given once more is different.
    let mut kinds = Vec::new();
    let mut other_kinds = Vec::new();
    for (plan, kinds) in [(&plan, &mut kinds), (&travelled, &mut other_kinds)] {
        plan.apply(|node| {
            kinds.push(std::mem::discriminant(node));
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    assert!(!matches!(part, Expr::Placeholder(_)));
                    Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
                })
            })
        })
        .unwrap();
    }
    assert_eq!(kinds, other_kinds);
}

#[test]
fn bytes_that_are_no_pieces_are_refused() {
    let whole = encode_expr(&nested_case(60)).unwrap();
    assert!(whole.first().is_some_and(|kind| *kind == 1));
    for length in [0, 1, 3, 20] {
        assert!(decode_expr(&whole[..length]).is_err(), "{length} bytes");
    }
    assert!(decode_expr(&[9, 0, 0]).is_err());
    // The last piece is missing.
    let one = encode_expr(&nested_case(13)).unwrap();
    let end = 5 + usize::try_from(u32::from_le_bytes(one[1..5].try_into().unwrap())).unwrap();
    assert!(decode_expr(&one[end..]).is_err());
}
