//! Removal of dependent joins: against running them as they are said to be, and what plans it makes.

mod naive;
mod shapes;

use arrow_schema::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, DataFusionError};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};

use super::{DependentKind, dependent_join, unnest};
use crate::error::{Error, ErrorKind};
use naive::{Naive, shown};
use shapes::{Data, OUTERS, Outer, Shape, col, conditions, outer};

/// Data of so many kinds.
const SEEDS: u64 = 3;

fn has_traces(plan: &LogicalPlan) -> bool {
    plan.exists(|node| {
        Ok(
            matches!(node, LogicalPlan::Extension(_) | LogicalPlan::Subquery(_))
                || node.contains_outer_reference(),
        )
    })
    .unwrap()
}

/// One of so many combinations is tried.
const SAMPLED: usize = 4;

/// Compares combinations with running them naively; all of them with `FLOWSTONE_SUBQUERIES=all`. Returns what differs.
fn compared(shapes: &[(&str, Shape)], outers: &[(&str, Outer)]) -> Vec<String> {
    let all = std::env::var("FLOWSTONE_SUBQUERIES").is_ok_and(|value| value == "all");
    let (mut failures, mut number) = (Vec::new(), 0_usize);
    for seed in 1..=SEEDS {
        let data = Data::new(seed);
        let naive = Naive::new();
        for (shape_name, shape) in shapes {
            for (place, condition) in conditions().into_iter().enumerate() {
                number += 1;
                for (outer_name, around) in outers {
                    number += 1;
                    if !all && !number.is_multiple_of(SAMPLED) {
                        continue;
                    }
                    let subquery = shape(&data, condition.clone()).unwrap();
                    let rows = data.o().build().unwrap();
                    let plan = around(rows, subquery).unwrap();
                    if let Some(difference) = difference(&naive, &plan) {
                        failures.push(format!(
                            "{outer_name}, {shape_name}, condition {place}, seed {seed}: {difference}"
                        ));
                    }
                }
            }
        }
    }
    failures
}

fn difference(naive: &Naive, plan: &LogicalPlan) -> Option<String> {
    let unnested = match unnest(plan.clone()) {
        Ok(unnested) => unnested,
        Err(error) => return Some(format!("{error}\n{}", plan.display_indent())),
    };
    if has_traces(&unnested) {
        return Some(format!("it remains\n{}", unnested.display_indent()));
    }
    let types = |plan: &LogicalPlan| -> Vec<DataType> {
        let fields = plan.schema().fields().iter();
        fields.map(|field| field.data_type().clone()).collect()
    };
    if unnested.schema().columns() != plan.schema().columns() || types(&unnested) != types(plan) {
        return Some(format!("other columns\n{}", unnested.display_indent()));
    }
    let expected = shown(&naive.evaluate(plan));
    match naive.execute(&unnested) {
        Err(error) => Some(format!("{error}\n{}", unnested.display_indent())),
        Ok(batch) => {
            let found = shown(&batch);
            (found != expected).then(|| {
                format!(
                    "{found:?} is not {expected:?}\n{}",
                    unnested.display_indent()
                )
            })
        }
    }
}

fn assert_same(shapes: &[(&str, Shape)], outers: &[(&str, Outer)]) {
    let failures = compared(shapes, outers);
    for failure in failures.iter().take(20) {
        eprintln!("{failure}\n");
    }
    assert!(
        failures.is_empty(),
        "{} combinations differ, the first printed above",
        failures.len()
    );
}

/// Names of subqueries and who may be around them.
type Named = &'static [(&'static str, Outer)];

/// The marks, and the others.
fn halves() -> (Named, Named) {
    OUTERS.split_at(OUTERS.len() / 2)
}

#[test]
fn rows_and_joins_under_marks_are_what_loops_find() {
    assert_same(shapes::ROWS, halves().0);
}

#[test]
fn rows_and_joins_under_values_and_lateral_are_what_loops_find() {
    assert_same(shapes::ROWS, halves().1);
}

#[test]
fn sets_under_marks_are_what_loops_find() {
    assert_same(shapes::SETS, halves().0);
}

#[test]
fn sets_under_values_and_lateral_are_what_loops_find() {
    assert_same(shapes::SETS, halves().1);
}

#[test]
fn subqueries_in_subqueries_under_marks_are_what_loops_find() {
    assert_same(shapes::SOURCES, halves().0);
}

#[test]
fn subqueries_in_subqueries_under_values_and_lateral_are_what_loops_find() {
    assert_same(shapes::SOURCES, halves().1);
}

fn mark(name: &str) -> (DependentKind, Expr) {
    let column = Column::new(Some("k"), name);
    let is_true = Expr::Column(column.clone());
    (DependentKind::Mark { column }, is_true)
}

#[test]
fn an_equality_needs_no_domain() {
    let data = Data::new(1);
    let inner = data
        .i()
        .filter(col("i.x").eq(outer("o.a")))
        .unwrap()
        .build()
        .unwrap();
    let (kind, is_true) = mark("m");
    let rows = data.o().build().unwrap();
    let marked = dependent_join(rows, inner, kind, None).unwrap();
    let plan = LogicalPlanBuilder::from(marked)
        .filter(is_true)
        .unwrap()
        .build()
        .unwrap();
    let text = unnest(plan).unwrap().display_indent().to_string();
    assert!(text.contains("LeftSemi Join"), "{text}");
    assert!(!text.contains("Distinct"), "{text}");
    assert_eq!(text.matches("o_rows").count(), 1, "{text}");
}

#[test]
fn a_value_over_an_aggregate_needs_no_domain() {
    let data = Data::new(1);
    let inner = data
        .i()
        .filter(col("i.x").eq(outer("o.a")))
        .unwrap()
        .aggregate(
            Vec::<Expr>::new(),
            vec![datafusion::functions_aggregate::expr_fn::count(lit(1_i64)).alias("n")],
        )
        .unwrap()
        .build()
        .unwrap();
    let kind = DependentKind::Single {
        value: Column::new(Some("k"), "value"),
        several: Column::new(Some("k"), "several"),
    };
    let plan = dependent_join(data.o().build().unwrap(), inner, kind, None).unwrap();
    let schema = plan.schema().columns();
    let plan = unnest(plan).unwrap();
    assert_eq!(plan.schema().columns(), schema);
    let text = plan.display_indent().to_string();
    assert_eq!(text.matches("o_rows").count(), 1, "{text}");
}

#[test]
fn a_membership_of_what_cannot_be_null_is_one_anti_join() {
    let data = Data::new(1);
    let inner = data
        .i()
        .project(vec![col("i.id")])
        .unwrap()
        .build()
        .unwrap();
    let (kind, is_true) = mark("m");
    let on = Some(col("o.id").eq(col("i.id")));
    let marked = dependent_join(data.o().build().unwrap(), inner, kind, on).unwrap();
    let plan = LogicalPlanBuilder::from(marked)
        .filter(Expr::Not(Box::new(is_true)))
        .unwrap()
        .build()
        .unwrap();
    let text = unnest(plan).unwrap().display_indent().to_string();
    assert_eq!(text.matches("LeftAnti Join").count(), 1, "{text}");
}

#[test]
fn many_values_of_one_row_do_not_double_it() {
    let data = Data::new(1);
    let mut plan = data.o().build().unwrap();
    for number in 0..40 {
        let inner = data
            .i()
            .alias(format!("i{number}"))
            .unwrap()
            .filter(col(&format!("i{number}.x")).gt(outer("o.a")))
            .unwrap()
            .project(vec![col(&format!("i{number}.y"))])
            .unwrap()
            .build()
            .unwrap();
        let kind = DependentKind::Single {
            value: Column::new(Some("k"), format!("value{number}")),
            several: Column::new(Some("k"), format!("several{number}")),
        };
        plan = dependent_join(plan, inner, kind, None).unwrap();
    }
    let text = unnest(plan).unwrap().display_indent().to_string();
    assert!(text.matches("o_rows").count() <= 2 * 40 + 1, "{text}");
}

/// Levels of EXISTS, each of which compares with the one around it.
fn nested(data: &Data, levels: usize, compared: fn(Expr, Expr) -> Expr) -> LogicalPlan {
    let rows = |level: usize| data.o().alias(format!("l{level}")).unwrap();
    let mut plan: Option<LogicalPlan> = None;
    for level in (0..levels).rev() {
        let mut here = rows(level);
        if level > 0 {
            let around = outer(&format!("l{}.a", level - 1));
            let own = col(&format!("l{level}.a"));
            here = here.filter(compared(own, around)).unwrap();
        }
        let here = here.build().unwrap();
        plan = Some(match plan {
            None => here,
            Some(inner) => {
                let (kind, is_true) = mark(&format!("m{level}"));
                let marked = dependent_join(here, inner, kind, None).unwrap();
                LogicalPlanBuilder::from(marked)
                    .filter(is_true)
                    .unwrap()
                    .build()
                    .unwrap()
            }
        });
    }
    plan.unwrap()
}

#[test]
fn levels_of_equalities_stay_as_many_as_they_are() {
    let plan = unnest(nested(&Data::new(1), 40, Expr::eq)).unwrap();
    assert_eq!(
        plan.display_indent().to_string().matches("o_rows").count(),
        40
    );
}

#[test]
fn nesting_has_a_limit() {
    let data = Data::new(1);
    let mut inner = data.i().build().unwrap();
    for number in 0..600 {
        inner = LogicalPlanBuilder::from(inner)
            .filter(col("i.x").lt(outer("o.a") + lit(i64::from(number))))
            .unwrap()
            .build()
            .unwrap();
    }
    let (kind, _) = mark("m");
    let plan = dependent_join(data.o().build().unwrap(), inner, kind, None).unwrap();
    let error = unnest(plan).unwrap_err();
    assert_eq!(kind_of(&error), Some(ErrorKind::TooComplex));
}

/// The class of an error of ours.
fn kind_of(error: &DataFusionError) -> Option<ErrorKind> {
    match error {
        DataFusionError::External(error) => error.downcast_ref::<Error>().map(|error| error.kind),
        DataFusionError::Context(_, error) => kind_of(error),
        _ => None,
    }
}

#[test]
fn chance_is_refused_where_it_would_be_called_for_other_rows() {
    let data = Data::new(1);
    let random = datafusion::logical_expr::expr::ScalarFunction::new_udf(
        flowstone_functions::registry().scalar("random").unwrap(),
        Vec::new(),
    );
    let inner = data
        .i()
        .filter(col("i.x").eq(outer("o.a")))
        .unwrap()
        .project(vec![Expr::ScalarFunction(random).alias("v")])
        .unwrap()
        .alias("s")
        .unwrap()
        .build()
        .unwrap();
    let plan =
        dependent_join(data.o().build().unwrap(), inner, DependentKind::Inner, None).unwrap();
    let error = unnest(plan).unwrap_err();
    assert_eq!(kind_of(&error), Some(ErrorKind::FeatureNotSupported));
}

#[test]
fn a_plan_without_dependent_joins_is_returned_as_it_is() {
    let data = Data::new(1);
    let plan = data
        .o()
        .filter(col("o.a").gt(lit(1_i64)))
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(unnest(plan.clone()).unwrap(), plan);
}
