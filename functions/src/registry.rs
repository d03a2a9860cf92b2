//! The functions SQL can call: DataFusion's, with ours in place of those that do not behave as PostgreSQL's.
//!
//! Owns lookup by name and the DataFusion contexts in which plans are decoded, optimised and executed.
//! Called by `sql` (name resolution), the codec (decoding) and `worker` (physical planning).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SessionStateDefaults, TaskContext};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, WindowUDF};
use datafusion::optimizer::Optimizer;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::SessionConfig;

use crate::execution::{ForgetAtOuterJoins, YieldBetweenBatches, while_wanted};
use crate::pieces::InPieces;
use crate::planner::PostgresExprPlanner;

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::build);
static SESSION_STATE: LazyLock<SessionState> = LazyLock::new(|| build_session_state(&REGISTRY));
static TASK_CONTEXT: LazyLock<Arc<TaskContext>> = LazyLock::new(|| SESSION_STATE.task_ctx());

/// Names that DataFusion has and PostgreSQL has not, or that would betray the machine: not callable.
const HIDDEN: &[&str] = &[
    "input_file_name",
    "file_row_index",
    "version",
    "uuid",
    "now",
    "current_date",
    "current_time",
    "to_local_time",
];

/// Every callable function, by lower-case name; aliases are names.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    scalar: HashMap<String, Arc<ScalarUDF>>,
    aggregate: HashMap<String, Arc<AggregateUDF>>,
    window: HashMap<String, Arc<WindowUDF>>,
    higher_order: HashMap<String, Arc<HigherOrderUDF>>,
    ours: Vec<Arc<ScalarUDF>>,
}

/// The functions of this binary. Cheap: built once and shared.
#[must_use]
pub fn registry() -> &'static Registry {
    &REGISTRY
}

/// The scalar function `name`, which is one of ours or of DataFusion's.
pub(crate) fn scalar_function(name: &str) -> datafusion::error::Result<Arc<ScalarUDF>> {
    REGISTRY
        .scalar(name)
        .ok_or_else(|| datafusion::error::DataFusionError::Internal(format!("no function {name}")))
}

impl Registry {
    fn build() -> Self {
        let mut registry = Self::default();
        for function in SessionStateDefaults::default_scalar_functions() {
            registry.add_scalar(&crate::guarded::guarded(function));
        }
        registry
            .scalar
            .retain(|_, function| !HIDDEN.contains(&function.name()));
        for function in crate::scalar_functions() {
            let function = Arc::new(function);
            registry.add_scalar(&function);
            registry.ours.push(function);
        }
        let ours = crate::aggregate::functions()
            .into_iter()
            .chain(crate::keys::aggregates())
            .map(Arc::new);
        for function in SessionStateDefaults::default_aggregate_functions()
            .into_iter()
            .chain(ours)
        {
            for name in function
                .aliases()
                .iter()
                .map(String::as_str)
                .chain([function.name()])
            {
                registry
                    .aggregate
                    .insert(name.to_lowercase(), Arc::clone(&function));
            }
        }
        for (alias, name) in [
            ("every", "bool_and"),
            ("variance", "var_samp"),
            ("var_samp", "var"),
            ("variance", "var"),
        ] {
            if let Some(function) = registry.aggregate.get(name).cloned() {
                registry
                    .aggregate
                    .entry(alias.to_owned())
                    .or_insert(function);
            }
        }
        for function in SessionStateDefaults::default_window_functions() {
            for name in function
                .aliases()
                .iter()
                .map(String::as_str)
                .chain([function.name()])
            {
                registry
                    .window
                    .insert(name.to_lowercase(), Arc::clone(&function));
            }
        }
        for function in SessionStateDefaults::default_higher_order_functions() {
            registry
                .higher_order
                .insert(function.name().to_lowercase(), function);
        }
        registry
    }

    fn add_scalar(&mut self, function: &Arc<ScalarUDF>) {
        for name in function
            .aliases()
            .iter()
            .map(String::as_str)
            .chain([function.name()])
        {
            self.scalar
                .insert(name.to_lowercase(), Arc::clone(function));
        }
    }

    /// The scalar function called `name` (lower case).
    #[must_use]
    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalar.get(name).cloned()
    }

    /// The aggregate function called `name` (lower case).
    #[must_use]
    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregate.get(name).cloned()
    }

    /// The window function called `name` (lower case).
    #[must_use]
    pub fn window(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.window.get(name).cloned()
    }

    /// The overloads of the functions that are ours, without OIDs.
    pub(crate) fn overloads(&self) -> Vec<crate::FunctionSignature> {
        self.ours
            .iter()
            .filter_map(|function| {
                let any: &dyn std::any::Any = function.inner().as_ref();
                any.downcast_ref::<crate::udf::PgFunction>()
            })
            .flat_map(crate::udf::PgFunction::signatures)
            .collect()
    }

    /// Names of the scalar functions, sorted.
    #[must_use]
    pub fn scalar_names(&self) -> Vec<String> {
        sorted(self.scalar.keys())
    }

    /// Names of the aggregate functions, sorted.
    #[must_use]
    pub fn aggregate_names(&self) -> Vec<String> {
        sorted(self.aggregate.keys())
    }

    /// Names of the window functions, sorted.
    #[must_use]
    pub fn window_names(&self) -> Vec<String> {
        sorted(self.window.keys())
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = names.cloned().collect();
    names.sort_unstable();
    names
}

/// The planners of operators and special syntax, ours first; for `ContextProvider::get_expr_planners`.
#[must_use]
pub fn expr_planners() -> Vec<Arc<dyn ExprPlanner>> {
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

fn build_session_state(registry: &Registry) -> SessionState {
    // One rule splits `sum(x), count(DISTINCT y)` into a sum of sums, whose type is not that of a sum here.
    let rules = Optimizer::new()
        .rules
        .into_iter()
        .filter(|rule| rule.name() != "single_distinct_aggregation_to_group_by")
        .collect();
    let rules = while_wanted(crate::null_safe::replace_rules(rules));
    let mut physical_rules = PhysicalOptimizer::new().rules;
    physical_rules.insert(0, Arc::new(ForgetAtOuterJoins));
    physical_rules.push(Arc::new(InPieces));
    physical_rules.push(Arc::new(YieldBetweenBatches));
    let mut state = SessionStateBuilder::new()
        .with_config(session_config())
        .with_default_features()
        .with_optimizer_rules(rules)
        .with_physical_optimizer_rules(physical_rules)
        .with_expr_planners(expr_planners())
        .with_scalar_functions(unique(&registry.scalar, |function| function.name()))
        .with_aggregate_functions(unique(&registry.aggregate, |function| function.name()))
        .with_window_functions(unique(&registry.window, |function| function.name()))
        .with_higher_order_functions(unique(&registry.higher_order, |function| function.name()))
        .build();
    // Ours last, so that they win over aliases of DataFusion's too.
    for function in &registry.ours {
        // The state's registry takes every function; it only hands back what it replaced.
        if state.register_udf(Arc::clone(function)).is_err() {
            unreachable!("the registry of a session state refuses no function");
        }
    }
    state
}

/// Each function once, in the order of names; an override comes after what it overrides.
fn unique<F>(functions: &HashMap<String, Arc<F>>, name: impl Fn(&F) -> &str) -> Vec<Arc<F>> {
    let mut found: Vec<(&String, &Arc<F>)> = functions
        .iter()
        .filter(|(key, function)| name(function) == key.as_str())
        .collect();
    found.sort_by_key(|(key, _)| *key);
    found
        .into_iter()
        .map(|(_, function)| Arc::clone(function))
        .collect()
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
