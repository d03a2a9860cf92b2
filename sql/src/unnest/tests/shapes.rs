//! Subqueries with one column `s.v`, and queries around them over the rows of `o`.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::{Column, NullEquality, Result};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::functions_aggregate::expr_fn::{count, max, min, sum};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, Expr, GroupingSet, JoinType, LogicalPlan, LogicalPlanBuilder, SortExpr,
    WindowFunctionDefinition, lit,
};

use super::super::{DependentKind, dependent_join};

/// Three tables of integers, some of them NULL.
pub(super) struct Data {
    o: Arc<MemTable>,
    i: Arc<MemTable>,
    j: Arc<MemTable>,
}

/// A generator that gives the same numbers for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn value(&mut self) -> Option<i64> {
        i64::try_from(self.below(5)).ok().filter(|value| *value < 4)
    }
}

fn table(numbers: &mut Numbers, columns: [&str; 3], rows: u64) -> Arc<MemTable> {
    let schema = Arc::new(Schema::new(
        columns
            .iter()
            .enumerate()
            .map(|(place, name)| Field::new(*name, DataType::Int64, place > 0))
            .collect::<Vec<_>>(),
    ));
    let ids: Int64Array = (0..rows).map(|id| i64::try_from(id).ok()).collect();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        first.push(numbers.value());
        second.push(numbers.value());
    }
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(ids),
            Arc::new(Int64Array::from(first)),
            Arc::new(Int64Array::from(second)),
        ],
    )
    .unwrap();
    Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap())
}

impl Data {
    pub(super) fn new(seed: u64) -> Self {
        let mut numbers = Numbers(seed);
        let rows = numbers.below(8);
        Self {
            o: table(&mut numbers, ["id", "a", "b"], 7),
            i: table(&mut numbers, ["id", "x", "y"], rows),
            j: table(&mut numbers, ["id", "z", "w"], 5),
        }
    }

    fn scan(table: &Arc<MemTable>, name: &str, alias: &str) -> LogicalPlanBuilder {
        let memory = Arc::clone(table);
        LogicalPlanBuilder::scan(name, provider_as_source(memory), None)
            .unwrap()
            .alias(alias)
            .unwrap()
    }

    pub(super) fn o(&self) -> LogicalPlanBuilder {
        Self::scan(&self.o, "o_rows", "o")
    }

    pub(super) fn i(&self) -> LogicalPlanBuilder {
        Self::scan(&self.i, "i_rows", "i")
    }

    pub(super) fn j(&self) -> LogicalPlanBuilder {
        Self::scan(&self.j, "j_rows", "j")
    }
}

/// A column by its qualified name.
pub(super) fn col(name: &str) -> Expr {
    Expr::Column(Column::from_qualified_name(name))
}

/// A column of a query around.
pub(super) fn outer(name: &str) -> Expr {
    let column = Column::from_qualified_name(name);
    let nullable = column.name != "id";
    let field = Field::new(column.name.clone(), DataType::Int64, nullable);
    Expr::OuterReferenceColumn(Arc::new(field), column)
}

fn big(expr: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), DataType::Int64))
}

fn asc(name: &str) -> SortExpr {
    col(name).sort(true, false)
}

fn row_number(order: Vec<SortExpr>, partition: Vec<Expr>) -> Expr {
    let function = flowstone_functions::registry()
        .window("row_number")
        .unwrap();
    let mut function =
        WindowFunction::new(WindowFunctionDefinition::WindowUDF(function), Vec::new());
    function.params.order_by = order;
    function.params.partition_by = partition;
    function.params.window_frame = datafusion::logical_expr::WindowFrame::new(Some(true));
    Expr::from(function)
}

/// The only column of a subquery as `s.v`.
fn shown(rows: LogicalPlanBuilder, value: Expr) -> Result<LogicalPlan> {
    rows.project(vec![value.alias("v")])?.alias("s")?.build()
}

pub(super) type Shape = fn(&Data, Expr) -> Result<LogicalPlan>;

/// What relates `i` to the row around it.
pub(super) fn conditions() -> Vec<Expr> {
    let same = super::super::expressions::same;
    vec![
        col("i.x").eq(outer("o.a")),
        col("i.x")
            .eq(outer("o.a"))
            .and(col("i.y").lt_eq(outer("o.b"))),
        col("i.x").gt(outer("o.a")),
        same(col("i.x"), outer("o.a")),
        col("i.x").eq(outer("o.a")).or(outer("o.b").eq(lit(1_i64))),
        outer("o.a").eq(lit(2_i64)),
    ]
}

fn unions(left: LogicalPlan, right: LogicalPlan) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::from(left).union(right)
}

fn values(rows: LogicalPlanBuilder, value: Expr) -> Result<LogicalPlan> {
    rows.project(vec![value.alias("v")])?.build()
}

/// Rows of `i` as `u`, of `j` with them.
fn picked(data: &Data, condition: Expr) -> Result<LogicalPlan> {
    data.i()
        .filter(condition)?
        .project(vec![col("i.x"), col("i.y"), col("i.id")])?
        .alias("u")?
        .build()
}

fn with(data: &Data, condition: Expr, join_type: JoinType) -> Result<LogicalPlanBuilder> {
    data.j().join_on(
        picked(data, condition)?,
        join_type,
        [col("u.x").eq(col("j.z"))],
    )
}

/// Filters, select lists and joins.
pub(super) const ROWS: &[(&str, Shape)] = &[
    ("column", |data, condition| {
        shown(data.i().filter(condition)?, col("i.y"))
    }),
    ("outer column", |data, condition| {
        shown(data.i().filter(condition)?, outer("o.b"))
    }),
    ("sum of both", |data, condition| {
        shown(data.i().filter(condition)?, col("i.y") + outer("o.b"))
    }),
    ("one row", |_, condition| {
        drop(condition);
        shown(LogicalPlanBuilder::empty(true), outer("o.a") + lit(1_i64))
    }),
    ("one row chosen", |_, condition| {
        drop(condition);
        let row = LogicalPlanBuilder::empty(true).filter(outer("o.a").gt(lit(1_i64)))?;
        shown(row, outer("o.b"))
    }),
    ("inner join", |data, condition| {
        shown(with(data, condition, JoinType::Inner)?, col("j.w"))
    }),
    ("condition in a join", |data, condition| {
        let joined = data.j().join_on(
            data.i().build()?,
            JoinType::Inner,
            [col("i.x").eq(col("j.z")), condition],
        )?;
        shown(joined, col("i.y"))
    }),
    ("condition in a left join", |data, condition| {
        let joined = data.j().join_on(
            data.i().build()?,
            JoinType::Left,
            [col("i.x").eq(col("j.z")), condition],
        )?;
        shown(joined, col("i.y"))
    }),
    ("left join", |data, condition| {
        shown(with(data, condition, JoinType::Left)?, col("u.y"))
    }),
    ("right join", |data, condition| {
        shown(with(data, condition, JoinType::Right)?, col("j.w"))
    }),
    ("full join", |data, condition| {
        shown(with(data, condition, JoinType::Full)?, col("j.w"))
    }),
    ("semi join", |data, condition| {
        shown(with(data, condition, JoinType::LeftSemi)?, col("j.w"))
    }),
    ("anti join", |data, condition| {
        shown(with(data, condition, JoinType::LeftAnti)?, col("j.w"))
    }),
    ("right anti join", |data, condition| {
        shown(with(data, condition, JoinType::RightAnti)?, col("u.y"))
    }),
    ("left side of a left join", |data, condition| {
        let joined = LogicalPlanBuilder::from(picked(data, condition)?).join_on(
            data.j().build()?,
            JoinType::Left,
            [col("u.x").eq(col("j.z"))],
        )?;
        shown(joined, col("j.w"))
    }),
    ("both sides ask", |data, condition| {
        let right = data.j().filter(col("j.z").eq(outer("o.a")))?.build()?;
        let joined = LogicalPlanBuilder::from(picked(data, condition)?).cross_join(right)?;
        shown(joined, col("u.y") + col("j.w"))
    }),
    ("both sides of a full join ask", |data, condition| {
        let right = data.j().filter(col("j.w").lt(outer("o.b")))?.build()?;
        let joined = LogicalPlanBuilder::from(picked(data, condition)?).join_on(
            right,
            JoinType::Full,
            [col("u.x").eq(col("j.z"))],
        )?;
        shown(joined, col("u.y"))
    }),
    ("null-safe join", |data, condition| {
        let keys = (
            vec![Column::from_qualified_name("u.x")],
            vec![Column::from_qualified_name("j.z")],
        );
        let joined = LogicalPlanBuilder::from(picked(data, condition)?).join_detailed(
            data.j().filter(col("j.w").not_eq(outer("o.b")))?.build()?,
            JoinType::Inner,
            keys,
            None,
            NullEquality::NullEqualsNull,
        )?;
        shown(joined, col("j.w"))
    }),
];

/// Aggregates, windows, limits, sets.
pub(super) const SETS: &[(&str, Shape)] = &[
    ("count", |data, condition| {
        let grouped = data
            .i()
            .filter(condition)?
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("n")])?;
        shown(grouped, col("n"))
    }),
    ("count plus", |data, condition| {
        let grouped = data
            .i()
            .filter(condition)?
            .aggregate(Vec::<Expr>::new(), vec![count(col("i.y")).alias("n")])?;
        shown(grouped, col("n") + outer("o.b"))
    }),
    ("max", |data, condition| {
        let grouped = data
            .i()
            .filter(condition)?
            .aggregate(Vec::<Expr>::new(), vec![max(col("i.y")).alias("n")])?;
        shown(grouped, col("n"))
    }),
    ("sum of both", |data, condition| {
        let grouped = data.i().filter(condition)?.aggregate(
            Vec::<Expr>::new(),
            vec![sum(col("i.y") + outer("o.b")).alias("n")],
        )?;
        shown(grouped, col("n"))
    }),
    ("having", |data, condition| {
        let grouped = data
            .i()
            .filter(condition)?
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("n")])?
            .filter(col("n").not_eq(lit(1_i64)))?;
        shown(grouped, col("n"))
    }),
    ("groups", |data, condition| {
        let grouped = data
            .i()
            .filter(condition)?
            .aggregate(vec![col("i.y")], vec![count(lit(1_i64)).alias("n")])?;
        shown(grouped, col("n"))
    }),
    ("count of groups", |data, condition| {
        let grouped = data
            .i()
            .filter(condition)?
            .aggregate(vec![col("i.y")], vec![count(lit(1_i64)).alias("n")])?
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("m")])?;
        shown(grouped, col("m"))
    }),
    ("sum of a count", |data, condition| {
        let grouped = data
            .i()
            .filter(condition)?
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("n")])?
            .aggregate(Vec::<Expr>::new(), vec![sum(col("n")).alias("m")])?;
        shown(grouped, col("m"))
    }),
    ("count of a left join", |data, condition| {
        let grouped = with(data, condition, JoinType::Left)?
            .aggregate(Vec::<Expr>::new(), vec![count(col("u.id")).alias("n")])?;
        shown(grouped, col("n"))
    }),
    ("rollup", |data, condition| {
        let sets = Expr::GroupingSet(GroupingSet::Rollup(vec![col("i.x"), col("i.y")]));
        let input = data.i().filter(condition)?.build()?;
        let calls = vec![count(lit(1_i64)).alias("n")];
        let grouped = Aggregate::try_new(Arc::new(input), vec![sets], calls)?;
        let grouped = LogicalPlanBuilder::from(LogicalPlan::Aggregate(grouped));
        let shown_parts = col("n") + big(col(Aggregate::INTERNAL_GROUPING_ID)) * lit(100_i64);
        let picked = grouped.filter(
            col(Aggregate::INTERNAL_GROUPING_ID)
                .gt(lit(0_u8))
                .or(col("i.x").lt(lit(3_i64))),
        )?;
        // The set of nothing over no rows at all is DataFusion's own matter.
        let picked = picked.filter(col("n").gt(lit(0_i64)))?;
        shown(picked, shown_parts)
    }),
    ("distinct", |data, condition| {
        let rows = values(data.i().filter(condition)?, col("i.y"))?;
        LogicalPlanBuilder::from(rows)
            .distinct()?
            .alias("s")?
            .build()
    }),
    ("distinct of both", |data, condition| {
        let value = col("i.y") + outer("o.b");
        let rows = values(data.i().filter(condition)?, value)?;
        LogicalPlanBuilder::from(rows)
            .distinct()?
            .alias("s")?
            .build()
    }),
    ("distinct on", |data, condition| {
        let rows = data.i().filter(condition)?.distinct_on(
            vec![col("i.x")],
            vec![col("i.y")],
            Some(vec![asc("i.x"), asc("i.id")]),
        )?;
        shown(rows, col("i.y"))
    }),
    ("window", |data, condition| {
        let rows = data.i().filter(condition)?.window(vec![
            row_number(vec![asc("i.id")], vec![col("i.y")]).alias("n"),
        ])?;
        shown(rows, big(col("n")))
    }),
    ("condition above a window", |data, condition| {
        let rows = data
            .i()
            .window(vec![row_number(vec![asc("i.id")], Vec::new()).alias("n")])?
            .filter(condition)?;
        shown(rows, big(col("n")))
    }),
    ("union all", |data, condition| {
        let left = values(data.i().filter(condition)?, col("i.y"))?;
        let right = values(data.j().filter(col("j.z").eq(outer("o.a")))?, col("j.w"))?;
        shown(unions(left, right)?, col("v"))
    }),
    ("union", |data, condition| {
        let left = values(data.i().filter(condition)?, col("i.y"))?;
        let right = values(data.j(), col("j.w"))?;
        shown(unions(left, right)?.distinct()?, col("v"))
    }),
    ("intersect", |data, condition| {
        let left = values(data.i().filter(condition)?, col("i.y"))?;
        let right = data.j().filter(col("j.z").eq(outer("o.a")))?;
        let right = LogicalPlanBuilder::from(values(right, col("j.w"))?)
            .alias("r")?
            .build()?;
        let both = LogicalPlanBuilder::intersect(
            LogicalPlanBuilder::from(left).alias("l")?.build()?,
            right,
            false,
        )?;
        shown(LogicalPlanBuilder::from(both), col("l.v"))
    }),
    ("except", |data, condition| {
        let left = LogicalPlanBuilder::from(values(data.j(), col("j.w"))?)
            .alias("l")?
            .build()?;
        let right = LogicalPlanBuilder::from(values(data.i().filter(condition)?, col("i.y"))?)
            .alias("r")?
            .build()?;
        let rest = LogicalPlanBuilder::except(left, right, false)?;
        shown(LogicalPlanBuilder::from(rest), col("l.v"))
    }),
    ("limit", |data, condition| {
        let rows = data
            .i()
            .filter(condition)?
            .sort(vec![asc("i.y"), asc("i.id")])?
            .limit(0, Some(2))?;
        shown(rows, col("i.y"))
    }),
    ("first", |data, condition| {
        let rows = data
            .i()
            .filter(condition)?
            .sort(vec![asc("i.y"), asc("i.id")])?
            .limit(0, Some(1))?;
        shown(rows, col("i.y"))
    }),
    ("second", |data, condition| {
        let rows = data
            .i()
            .filter(condition)?
            .sort(vec![col("i.y").sort(false, true), asc("i.id")])?
            .limit(1, Some(1))?;
        shown(rows, col("i.y"))
    }),
    ("offset", |data, condition| {
        let rows = data
            .i()
            .filter(condition)?
            .sort(vec![asc("i.id")])?
            .project(vec![col("i.y")])?
            .limit(1, None)?;
        shown(rows, col("i.y"))
    }),
    ("no rows of many", |data, condition| {
        shown(data.i().filter(condition)?.limit(0, Some(0))?, col("i.y"))
    }),
    ("computed limit", |data, condition| {
        let rows = data
            .i()
            .filter(condition)?
            .sort(vec![asc("i.id")])?
            .limit_by_expr(None, Some(outer("o.b")))?;
        shown(rows, col("i.y"))
    }),
];

fn exists(rows: LogicalPlan, mark: &str, right: LogicalPlan) -> Result<LogicalPlanBuilder> {
    let column = Column::new(Some("m"), mark);
    let kind = DependentKind::Mark { column };
    dependent_join(rows, right, kind, None).map(LogicalPlanBuilder::from)
}

/// Subqueries in subqueries, and other sources of rows.
pub(super) const SOURCES: &[(&str, Shape)] = &[
    ("exists inside", |data, condition| {
        let inner = data
            .j()
            .filter(col("j.z").eq(outer("i.x")).and(col("j.w").gt(outer("o.b"))))?
            .build()?;
        let rows = data.i().filter(condition)?.build()?;
        shown(
            exists(rows, "one", inner)?.filter(col("m.one"))?,
            col("i.y"),
        )
    }),
    ("not exists inside", |data, condition| {
        let inner = data.j().filter(col("j.w").lt(outer("o.b")))?.build()?;
        let rows = data.i().filter(condition)?.build()?;
        let rows = exists(rows, "one", inner)?.filter(Expr::Not(Box::new(col("m.one"))))?;
        shown(rows, col("i.y"))
    }),
    ("value inside", |data, condition| {
        let inner = data
            .j()
            .filter(
                col("j.z")
                    .gt(outer("i.x"))
                    .and(col("j.w").not_eq(outer("o.b"))),
            )?
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("n")])?
            .build()?;
        let kind = DependentKind::Single {
            value: Column::new(Some("m"), "value"),
            several: Column::new(Some("m"), "several"),
        };
        let rows = data.i().filter(condition)?.build()?;
        let rows = LogicalPlanBuilder::from(dependent_join(rows, inner, kind, None)?);
        shown(rows, col("m.value") + outer("o.b"))
    }),
    ("membership inside an aggregate", |data, condition| {
        let inner = data.j().filter(col("j.w").eq(outer("o.b")))?.build()?;
        let kind = DependentKind::Mark {
            column: Column::new(Some("m"), "one"),
        };
        let on = Some(col("i.x").eq(col("j.z")));
        let rows = data.i().filter(condition)?.build()?;
        let rows = LogicalPlanBuilder::from(dependent_join(rows, inner, kind, on)?)
            .filter(Expr::Not(Box::new(col("m.one"))))?
            .aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias("n")])?;
        shown(rows, col("n"))
    }),
    ("lateral inside", |data, condition| {
        let inner = data
            .j()
            .filter(col("j.z").eq(outer("i.x")))?
            .aggregate(
                Vec::<Expr>::new(),
                vec![min(col("j.w") + outer("o.b")).alias("n")],
            )?
            .project(vec![col("n")])?
            .alias("l")?
            .build()?;
        let rows = data.i().filter(condition)?.build()?;
        let rows = dependent_join(rows, inner, DependentKind::Inner, None)?;
        shown(LogicalPlanBuilder::from(rows), col("l.n"))
    }),
    ("three levels", |data, condition| {
        let deepest = data
            .o()
            .alias("p")?
            .filter(
                col("p.a")
                    .gt(outer("j.w"))
                    .and(col("p.b").eq(outer("o.b")))
                    .and(col("p.id").not_eq(outer("i.id"))),
            )?
            .build()?;
        let middle = exists(
            data.j().filter(col("j.z").eq(outer("i.x")))?.build()?,
            "two",
            deepest,
        )?
        .filter(col("m.two"))?
        .build()?;
        let rows = data.i().filter(condition)?.build()?;
        let column = Column::new(Some("n"), "one");
        let marked = dependent_join(rows, middle, DependentKind::Mark { column }, None)?;
        let rows = LogicalPlanBuilder::from(marked).filter(Expr::Not(Box::new(col("n.one"))))?;
        shown(rows, col("i.y"))
    }),
    ("values", |data, condition| {
        drop(condition);
        let rows = LogicalPlanBuilder::values(vec![
            vec![outer("o.a")],
            vec![outer("o.b") + lit(1_i64)],
            vec![lit(2_i64)],
        ])?
        .alias("c")?
        .cross_join(data.j().filter(col("j.id").lt(lit(2_i64)))?.build()?)?;
        shown(rows, col("c.column1"))
    }),
    ("chosen values", |_, condition| {
        drop(condition);
        let rows = LogicalPlanBuilder::values(vec![vec![lit(1_i64)], vec![lit(2_i64)]])?
            .alias("c")?
            .filter(col("c.column1").eq(outer("o.a")))?;
        shown(rows, col("c.column1"))
    }),
    ("items", |_, condition| {
        drop(condition);
        let function = flowstone_functions::registry()
            .scalar("make_array")
            .unwrap();
        let items = Expr::ScalarFunction(ScalarFunction::new_udf(
            function,
            vec![outer("o.a"), outer("o.b"), lit(3_i64)],
        ));
        let rows = LogicalPlanBuilder::empty(true)
            .project(vec![items.alias("g")])?
            .unnest_column("g")?;
        shown(rows, col("g"))
    }),
    ("items beside rows", |data, condition| {
        let function = flowstone_functions::registry()
            .scalar("make_array")
            .unwrap();
        let items = Expr::ScalarFunction(ScalarFunction::new_udf(
            function,
            vec![col("i.y"), outer("o.b")],
        ));
        let rows = data
            .i()
            .filter(condition)?
            .project(vec![col("i.x"), items.alias("g")])?
            .unnest_column("g")?;
        shown(rows, col("g"))
    }),
    ("recursion", |data, condition| {
        let first = values(data.i().filter(condition)?, col("i.y"))?;
        let schema = Schema::new(vec![Field::new("v", DataType::Int64, true)]);
        let work = CteWorkTable::new("r", Arc::new(schema));
        let rounds = LogicalPlanBuilder::scan("r", provider_as_source(Arc::new(work)), None)?
            .filter(col("r.v").lt(outer("o.b")))?
            .project(vec![(col("r.v") + lit(1_i64)).alias("v")])?
            .build()?;
        let rows =
            LogicalPlanBuilder::from(first).to_recursive_query("r".to_owned(), rounds, false)?;
        shown(rows, col("v"))
    }),
    ("recursion to a set", |data, condition| {
        let first = values(data.i(), col("i.y"))?;
        let schema = Schema::new(vec![Field::new("v", DataType::Int64, true)]);
        let work = CteWorkTable::new("r", Arc::new(schema));
        let rounds = LogicalPlanBuilder::scan("r", provider_as_source(Arc::new(work)), None)?
            .join_on(
                data.i().filter(condition)?.build()?,
                JoinType::Inner,
                [col("r.v").eq(col("i.y"))],
            )?
            .project(vec![col("i.x").alias("v")])?
            .build()?;
        let rows =
            LogicalPlanBuilder::from(first).to_recursive_query("r".to_owned(), rounds, true)?;
        shown(rows, col("v"))
    }),
];

pub(super) type Outer = fn(LogicalPlan, LogicalPlan) -> Result<LogicalPlan>;

fn marked(
    rows: LogicalPlan,
    subquery: LogicalPlan,
    on: Option<Expr>,
) -> Result<LogicalPlanBuilder> {
    let column = Column::new(Some("k"), "mark");
    dependent_join(rows, subquery, DependentKind::Mark { column }, on).map(LogicalPlanBuilder::from)
}

fn ids(rows: LogicalPlanBuilder) -> Result<LogicalPlan> {
    rows.project(vec![col("o.id")])?.build()
}

fn not_marked() -> Expr {
    Expr::Not(Box::new(col("k.mark")))
}

fn all_of(rows: LogicalPlanBuilder) -> Result<LogicalPlan> {
    rows.project(vec![col("o.id"), col("o.a"), col("k.mark")])?
        .build()
}

fn beside(rows: LogicalPlan) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(rows)
        .project(vec![col("o.id"), col("s.v")])?
        .build()
}

/// Queries around a subquery.
pub(super) const OUTERS: &[(&str, Outer)] = &[
    ("exists", |rows, subquery| {
        ids(marked(rows, subquery, None)?.filter(col("k.mark"))?)
    }),
    ("not exists", |rows, subquery| {
        ids(marked(rows, subquery, None)?.filter(not_marked())?)
    }),
    ("exists as a value", |rows, subquery| {
        all_of(marked(rows, subquery, None)?)
    }),
    ("exists or", |rows, subquery| {
        let condition = col("k.mark").or(col("o.b").eq(lit(1_i64)));
        ids(marked(rows, subquery, None)?.filter(condition)?)
    }),
    ("in", |rows, subquery| {
        let on = Some(col("o.b").eq(col("s.v")));
        ids(marked(rows, subquery, on)?.filter(col("k.mark").and(col("o.id").gt(lit(0_i64))))?)
    }),
    ("not in", |rows, subquery| {
        let on = Some(col("o.b").eq(col("s.v")));
        all_of(marked(rows, subquery, on)?.filter(not_marked())?)
    }),
    ("in as a value", |rows, subquery| {
        let on = Some(col("o.b").eq(col("s.v")));
        all_of(marked(rows, subquery, on)?)
    }),
    ("not less than any", |rows, subquery| {
        let on = Some(col("o.b").lt(col("s.v")));
        ids(marked(rows, subquery, on)?.filter(not_marked())?)
    }),
    ("two comparisons as a value", |rows, subquery| {
        let on = col("o.b").eq(col("s.v")).and(col("o.a").lt_eq(col("s.v")));
        all_of(marked(rows, subquery, Some(on))?)
    }),
    ("value", |rows, subquery| {
        let kind = DependentKind::Single {
            value: Column::new(Some("k"), "value"),
            several: Column::new(Some("k"), "several"),
        };
        let rows = LogicalPlanBuilder::from(dependent_join(rows, subquery, kind, None)?);
        let case = super::super::expressions::case(
            vec![(col("k.several"), lit(-1_i64))],
            Some(col("k.value")),
        );
        rows.project(vec![col("o.id"), col("k.several"), case.alias("value")])?
            .build()
    }),
    ("lateral", |rows, subquery| {
        beside(dependent_join(rows, subquery, DependentKind::Inner, None)?)
    }),
    ("lateral with a condition", |rows, subquery| {
        let on = Some(col("o.b").lt_eq(col("s.v")));
        beside(dependent_join(rows, subquery, DependentKind::Inner, on)?)
    }),
    ("left lateral", |rows, subquery| {
        beside(dependent_join(rows, subquery, DependentKind::Left, None)?)
    }),
    ("left lateral with a condition", |rows, subquery| {
        let on = Some(col("o.b").not_eq(col("s.v")));
        beside(dependent_join(rows, subquery, DependentKind::Left, on)?)
    }),
];
