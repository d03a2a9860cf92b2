//! The DataFusion contexts in which plans are decoded, optimised and executed.
//!
//! Owns their settings, their rules and the order of these. Must not know what a plan is for.
//! Called by `sql` (planning), the codec (decoding) and `worker` (physical planning).

use std::sync::{Arc, LazyLock};

use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SessionStateDefaults, TaskContext};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;

use crate::conditions::{FailingLast, HideFailing};
use crate::empty_groups::Sparing;
use crate::execution::{ForgetAtOuterJoins, YieldBetweenBatches, while_wanted};
use crate::null_safe::{ExtractKeys, FlattenJoins};
use crate::pieces::InPieces;
use crate::planner::PostgresExprPlanner;
use crate::recursion::FreshRows;
use crate::registry::{Registry, registry};
use crate::unnested_keys::ForgetKeys;

static SESSION_STATE: LazyLock<SessionState> = LazyLock::new(|| build_session_state(registry()));
static TASK_CONTEXT: LazyLock<Arc<TaskContext>> = LazyLock::new(|| SESSION_STATE.task_ctx());

/// The planners of operators and special syntax, ours first.
fn expr_planners() -> Vec<Arc<dyn ExprPlanner>> {
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(PostgresExprPlanner)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    planners
}

/// The settings under which everything is planned and executed.
#[must_use]
pub fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(1)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_collect_statistics(false);
    let options = config.options_mut();
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options
        .optimizer
        .enable_physical_uncorrelated_scalar_subquery = false;
    // The logical plan knows more columns to be never NULL than the physical one: what one says of the other is no sign of a wrong plan.
    options.execution.skip_physical_aggregate_schema_check = true;
    config
}

/// DataFusion's rules, with ours in place of those that are not right for every plan.
fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
    for rule in Optimizer::new().rules {
        match rule.name() {
            // It splits `sum(x), count(DISTINCT y)` into a sum of sums, whose type is not that of a sum here.
            "single_distinct_aggregation_to_group_by" => {}
            // Plans come without subqueries.
            "rewrite_set_comparison"
            | "decorrelate_predicate_subquery"
            | "scalar_subquery_to_join"
            | "decorrelate_lateral_join" => {}
            "extract_equijoin_predicate" => rules.push(Arc::new(ExtractKeys)),
            "eliminate_cross_join" => rules.push(Arc::new(FlattenJoins)),
            "push_down_filter" => rules.push(Arc::new(Sparing(PushDownFilter::new()))),
            "replace_distinct_aggregate" | "optimize_projections" => {
                rules.push(Arc::new(ForgetKeys));
                rules.push(rule);
            }
            _ => rules.push(rule),
        }
    }
    rules
}

fn build_session_state(registry: &Registry) -> SessionState {
    let rules = while_wanted(rules());
    let mut physical_rules = PhysicalOptimizer::new().rules;
    physical_rules.insert(0, Arc::new(ForgetAtOuterJoins));
    physical_rules.insert(0, Arc::new(HideFailing));
    physical_rules.push(Arc::new(InPieces));
    physical_rules.push(Arc::new(FailingLast));
    physical_rules.push(Arc::new(FreshRows));
    physical_rules.push(Arc::new(YieldBetweenBatches));
    let state = SessionStateBuilder::new()
        .with_config(session_config())
        .with_default_features()
        .with_optimizer_rules(rules)
        .with_physical_optimizer_rules(physical_rules)
        .with_expr_planners(expr_planners());
    let mut state = registry.give_to(state).build();
    // Ours last, so that they win over aliases of DataFusion's too.
    for function in registry.ours() {
        // The state's registry takes every function; it only hands back what it replaced.
        if state.register_udf(Arc::clone(function)).is_err() {
            unreachable!("the registry of a session state refuses no function");
        }
    }
    state
}

/// A session state with every function: for optimising and physical planning. A clone of one shared state.
#[must_use]
pub fn session_state() -> SessionState {
    SESSION_STATE.clone()
}

/// A task context with every function: for decoding and execution. Shared.
#[must_use]
pub fn task_context() -> Arc<TaskContext> {
    Arc::clone(&TASK_CONTEXT)
}
