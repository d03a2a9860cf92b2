//! The rules that plans go through.
//!
//! Owns the choice: only rules that keep the meaning whatever the data is, none that bakes in statistics or the clock (ENGINE.md 7.2).
//! Called by planning for plans that run once, and by lowering for plans to be maintained.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::common::Result;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Distinct, Expr, InvariantLevel, Limit, LogicalPlan, lit};
use datafusion::optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_limit::EliminateLimit;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::push_down_limit::PushDownLimit;
use datafusion::optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{AnalyzerRule, Optimizer, OptimizerConfig, OptimizerRule};
use flowstone_functions::empty_groups::Sparing;
use flowstone_functions::execution::{still_wanted, while_wanted};
use flowstone_functions::null_safe::{ExtractKeys, FlattenJoins};
use flowstone_functions::unnested_keys::ForgetKeys;

use crate::error::Error;

/// Passes over the rule list.
const PASSES_MAX: usize = 4;

fn config() -> ConfigOptions {
    flowstone_functions::session_config()
        .options()
        .as_ref()
        .clone()
}

/// Resolves GROUPING, and lets DataFusion see to it that types are what its operators take: what is bound needs no coercion.
pub(crate) fn analyse(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.check_invariants(InvariantLevel::Always)?;
    let options = config();
    still_wanted()?;
    let plan = ResolveGroupingFunction::new().analyze(plan, &options)?;
    still_wanted()?;
    TypeCoercion::new().analyze(plan, &options)
}

/// Checks that a plan can be executed.
pub(crate) fn check(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.check_invariants(InvariantLevel::Executable)?;
    Ok(plan)
}

type Rules = Vec<Arc<dyn OptimizerRule + Send + Sync>>;

/// What rules may ask. There is no clock; names are numbered anew for each plan, so that planning is deterministic.
struct Config {
    options: Arc<ConfigOptions>,
    aliases: Arc<AliasGenerator>,
    functions: SessionState,
}

impl OptimizerConfig for Config {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        None
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        &self.aliases
    }

    fn options(&self) -> Arc<ConfigOptions> {
        Arc::clone(&self.options)
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(&self.functions)
    }
}

impl Config {
    fn new() -> Self {
        let mut options = config();
        options.optimizer.skip_failed_rules = false;
        options.optimizer.max_passes = PASSES_MAX;
        Self {
            options: Arc::new(options),
            aliases: Arc::new(AliasGenerator::new()),
            functions: flowstone_functions::session_state(),
        }
    }
}

fn run(rules: Rules, plan: LogicalPlan) -> Result<LogicalPlan> {
    Optimizer::with_rules(while_wanted(rules)).optimize(plan, &Config::new(), |_, _| {})
}

/// Optimises a plan that runs once.
pub(crate) fn optimize(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rules: Rules = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ForgetKeys),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(ExtractKeys),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(FlattenJoins),
        Arc::new(EliminateLimit::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownLimit::new()),
        Arc::new(Sparing(PushDownFilter::new())),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(ForgetKeys),
        Arc::new(OptimizeProjections::new()),
    ];
    run(rules, plan)
}

/// Rows of a limit that limits nothing: it keeps filters from being pushed below a DISTINCT ON, where they would change which row is the first.
pub(crate) const BARRIER_ROWS: i64 = i64::MAX;

/// Puts a barrier above each DISTINCT ON. DataFusion's push-down expects that it has become an aggregate by then.
fn guard_distinct_on(plan: LogicalPlan) -> Result<LogicalPlan> {
    let guarded = plan.transform_up_with_subqueries(|node| {
        if !matches!(node, LogicalPlan::Distinct(Distinct::On(_))) {
            return Ok(Transformed::no(node));
        }
        Ok(Transformed::yes(LogicalPlan::Limit(Limit {
            skip: None,
            fetch: Some(Box::new(lit(BARRIER_ROWS))),
            input: Arc::new(node),
        })))
    })?;
    Ok(guarded.data)
}

/// Prepares a plan for lowering: pushes filters down, drops columns nobody reads. DISTINCT and aggregates keep their shape.
pub(crate) fn prepare_for_maintenance(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = guard_distinct_on(plan)?;
    let rules: Rules = vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ExtractKeys),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(FlattenJoins),
        Arc::new(EliminateLimit::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(Sparing(PushDownFilter::new())),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(ForgetKeys),
        Arc::new(OptimizeProjections::new()),
    ];
    run(rules, plan)
}

/// Refuses a plan in which a subquery is left.
pub(crate) fn refuse_subqueries(plan: &LogicalPlan) -> std::result::Result<(), Error> {
    let mut left = false;
    plan.apply(|node| {
        left |= matches!(node, LogicalPlan::Subquery(_));
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                left |= matches!(
                    part,
                    Expr::ScalarSubquery(_)
                        | Expr::InSubquery(_)
                        | Expr::Exists(_)
                        | Expr::SetComparison(_)
                        | Expr::OuterReferenceColumn(..)
                );
                Ok(if left {
                    TreeNodeRecursion::Stop
                } else {
                    TreeNodeRecursion::Continue
                })
            })
        })
    })
    .map_err(|error| crate::planning_errors::from_datafusion(&error, ""))?;
    if left {
        return Err(
            Error::unsupported("this form of correlated subquery is not supported")
                .with_hint("Rewrite it as a join, or correlate by equality only."),
        );
    }
    Ok(())
}
