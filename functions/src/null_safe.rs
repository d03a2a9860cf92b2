//! Rules of DataFusion that forget which joins take NULL for a value.
//!
//! A join has one way to compare its keys. DataFusion makes keys of `IS NOT DISTINCT FROM`, for which NULL is equal to NULL, and then adds equalities of the
//! conditions above to them, for which it is not; and it flattens joins of both kinds into one. Both give rows that should not be there. Owns these
//! rules without that: what a join that takes NULL for a value has as its keys stays so. Called wherever plans are optimised.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::{Join, LogicalPlan};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

const fn takes_null(join: &Join) -> bool {
    matches!(join.null_equality, NullEquality::NullEqualsNull)
}

/// A list of rules with ours in place of those.
#[must_use]
pub fn replace_rules(
    rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    rules
        .into_iter()
        .map(|rule| -> Arc<dyn OptimizerRule + Send + Sync> {
            match rule.name() {
                "extract_equijoin_predicate" => Arc::new(ExtractKeys),
                "eliminate_cross_join" => Arc::new(FlattenJoins),
                _ => rule,
            }
        })
        .collect()
}

/// [`ExtractEquijoinPredicate`] for joins without keys or with such for which NULL is equal to nothing.
#[derive(Debug)]
pub struct ExtractKeys;

impl OptimizerRule for ExtractKeys {
    fn name(&self) -> &'static str {
        "extract_keys"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        ExtractEquijoinPredicate::new().apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Join(join) if takes_null(&join) => {
                Ok(Transformed::no(LogicalPlan::Join(join)))
            }
            other => ExtractEquijoinPredicate::new().rewrite(other, config),
        }
    }
}

/// [`EliminateCrossJoin`] for plans without a join that takes NULL for a value.
#[derive(Debug)]
pub struct FlattenJoins;

impl OptimizerRule for FlattenJoins {
    fn name(&self) -> &'static str {
        "flatten_joins"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        if plan.exists(|node| Ok(matches!(node, LogicalPlan::Join(join) if takes_null(join))))? {
            return Ok(Transformed::no(plan));
        }
        EliminateCrossJoin::new().rewrite(plan, config)
    }
}
