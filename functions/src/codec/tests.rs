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
use crate::registry::{scalar_function, session_state};

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
        "SELECT c0 FROM t WHERE c0 IN (SELECT c0 FROM t WHERE c1 = 'z') AND EXISTS (SELECT 1 FROM t u WHERE u.c0 = t.c0)",
        "SELECT c0, (SELECT max(c0) FROM t) FROM t",
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
