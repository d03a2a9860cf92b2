//! Rules of DataFusion that forget which joins take NULL for a value.
//!
//! A join has one way to compare its keys. DataFusion makes keys of `IS NOT DISTINCT FROM`, for which NULL is equal to NULL, and then adds equalities of the
//! conditions above to them, for which it is not; and it flattens joins of both kinds into one. Both give rows that should not be there. Owns these
//! rules without that: what a join that takes NULL for a value has as its keys stays so. Called wherever plans are optimised.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, NullEquality, Result};
use datafusion::logical_expr::{EmptyRelation, Join, JoinType, LogicalPlan};
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

const fn takes_null(join: &Join) -> bool {
    matches!(join.null_equality, NullEquality::NullEqualsNull)
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

/// [`EliminateCrossJoin`] for every tree of inner joins for which NULL is equal to nothing; others are relations that such a tree joins.
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
        if !lacks_keys(&plan)? {
            return Ok(Transformed::no(plan));
        }
        if !plan.exists(|node| Ok(matches!(node, LogicalPlan::Join(join) if takes_null(join))))? {
            return EliminateCrossJoin::new().rewrite(plan, config);
        }
        let tree = match &plan {
            LogicalPlan::Filter(filter) => filter.input.as_ref(),
            other => other,
        };
        if !is_plain(tree) {
            let rewritten = plan.map_children(|input| self.rewrite(input, config))?;
            if !rewritten.transformed {
                return Ok(rewritten);
            }
            return rewritten.map_data(LogicalPlan::recompute_schema);
        }
        // DataFusion's rule goes on to what is joined, where it must not see such joins.
        let mut hidden = Vec::new();
        let tree = match plan {
            LogicalPlan::Filter(mut filter) => {
                filter.input = Arc::new(hide(Arc::unwrap_or_clone(filter.input), &mut hidden));
                LogicalPlan::Filter(filter)
            }
            other => hide(other, &mut hidden),
        };
        let mut inputs = Vec::with_capacity(hidden.len());
        for (place, input) in hidden {
            inputs.push((place, self.rewrite(input, config)?.data));
        }
        let flat = EliminateCrossJoin::new().rewrite(tree, config)?.data;
        flat.transform_down(|node| {
            let LogicalPlan::EmptyRelation(empty) = &node else {
                return Ok(Transformed::no(node));
            };
            let input = inputs
                .iter()
                .find(|(place, _)| Arc::ptr_eq(place, &empty.schema))
                .map(|(_, input)| input.clone());
            Ok(match input {
                Some(input) => Transformed::new(input, true, TreeNodeRecursion::Jump),
                None => Transformed::no(node),
            })
        })
        .map(|restored| Transformed::yes(restored.data))
    }
}

/// Whether an inner join somewhere makes every pair of rows: otherwise there is nothing to gain, and DataFusion's rule takes long for many joins.
fn lacks_keys(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Join(join)
            if matches!(join.join_type, JoinType::Inner) && join.on.is_empty());
        Ok(if found {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(found)
}

/// Whether a plan is an inner join for which NULL is equal to nothing.
const fn is_plain(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(join)
        if matches!(join.join_type, JoinType::Inner) && !takes_null(join))
}

/// The tree of inner joins with relations of no rows in place of what it joins; these are told by where their schemas are.
fn hide(tree: LogicalPlan, hidden: &mut Vec<(DFSchemaRef, LogicalPlan)>) -> LogicalPlan {
    if !is_plain(&tree) {
        let schema: DFSchemaRef = Arc::new(DFSchema::clone(tree.schema()));
        hidden.push((Arc::clone(&schema), tree));
        return LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: false,
            schema,
        });
    }
    match tree {
        LogicalPlan::Join(join) => {
            let left = hide(Arc::unwrap_or_clone(join.left), hidden);
            let right = hide(Arc::unwrap_or_clone(join.right), hidden);
            LogicalPlan::Join(Join {
                left: Arc::new(left),
                right: Arc::new(right),
                ..join
            })
        }
        other => other,
    }
}
