//! The functions SQL can call: DataFusion's, with ours in place of those that do not behave as PostgreSQL's.
//!
//! Owns lookup by name. Must not know plans. Called by `sql` (name resolution) and by whatever of ours makes calls.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, WindowUDF};

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::build);

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

    /// Gives a session state all of them but [`Self::ours`].
    pub(crate) fn give_to(&self, state: SessionStateBuilder) -> SessionStateBuilder {
        state
            .with_scalar_functions(unique(&self.scalar, |function| function.name()))
            .with_aggregate_functions(unique(&self.aggregate, |function| function.name()))
            .with_window_functions(unique(&self.window, |function| function.name()))
            .with_higher_order_functions(unique(&self.higher_order, |function| function.name()))
    }

    /// The scalar functions that are ours.
    pub(crate) fn ours(&self) -> &[Arc<ScalarUDF>] {
        &self.ours
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
