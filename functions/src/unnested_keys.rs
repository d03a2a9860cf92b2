//! Keys that are none above an UNNEST.
//!
//! DataFusion takes it that what determines a row below an UNNEST does so above it, where the row is there once for each item: then it leaves out a DISTINCT, and
//! items that rows are grouped by. Owns a rule that forgets such keys, which comes before those that ask for them. Called wherever plans are
//! optimised.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{FunctionalDependencies, Result};
use datafusion::logical_expr::{LogicalPlan, Unnest};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// A rule that takes the keys from each UNNEST, and from what took them over from one.
#[derive(Debug)]
pub struct ForgetKeys;

impl OptimizerRule for ForgetKeys {
    fn name(&self) -> &'static str {
        "forget_keys"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        if !plan.exists(|node| Ok(matches!(node, LogicalPlan::Unnest(_))))? {
            return Ok(Transformed::no(plan));
        }
        plan.transform_up(|node| {
            if node.schema().functional_dependencies().is_empty() {
                return Ok(Transformed::no(node));
            }
            match node {
                LogicalPlan::Unnest(unnest) => {
                    let unnest = without_keys(unnest)?;
                    Ok(Transformed::yes(LogicalPlan::Unnest(unnest)))
                }
                // The nodes that keep a schema with keys; those of others are the ones of their inputs.
                LogicalPlan::Projection(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::Join(_)
                | LogicalPlan::Aggregate(_)
                | LogicalPlan::Window(_) => node.recompute_schema().map(Transformed::yes),
                other => Ok(Transformed::no(other)),
            }
        })
    }
}

fn without_keys(mut unnest: Unnest) -> Result<Unnest> {
    let schema = Arc::unwrap_or_clone(unnest.schema);
    let schema = schema.with_functional_dependencies(FunctionalDependencies::empty())?;
    unnest.schema = Arc::new(schema);
    Ok(unnest)
}

#[cfg(test)]
mod tests {
    use datafusion::common::Column;
    use datafusion::functions_aggregate::expr_fn::count;
    use datafusion::logical_expr::expr::ScalarFunction;
    use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};

    #[test]
    fn what_an_unnest_repeats_is_no_key() {
        let function = crate::registry().scalar("make_array").unwrap();
        let items = ScalarFunction::new_udf(function, vec![lit(1_i64), lit(2_i64)]);
        let key = || Expr::Column(Column::new_unqualified("column1"));
        let plan = LogicalPlanBuilder::values(vec![vec![lit(1_i64)], vec![lit(2_i64)]])
            .unwrap()
            .aggregate(vec![key()], vec![count(lit(1_i64))])
            .unwrap()
            .project(vec![key(), Expr::ScalarFunction(items).alias("item")])
            .unwrap()
            .unnest_column("item")
            .unwrap()
            .project(vec![key()])
            .unwrap()
            .distinct()
            .unwrap()
            .build()
            .unwrap();
        let plan = crate::session_state().optimize(&plan).unwrap();
        let text = plan.display_indent().to_string();
        assert_eq!(text.matches("Aggregate:").count(), 2, "{text}");
    }
}
