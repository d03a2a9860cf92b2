//! Planning in a session's task: an owned copy of what planning needs, and the threads it happens on.
//!
//! Must not know what is planned. Called by `session` and `install`.
//!
//! Invariant. Planning runs where blocking is allowed: it takes milliseconds and, for deep expressions, a deep stack, which the runtime gives to its blocking
//! threads.

use std::sync::Arc;

use flowstone_sql::Catalog;
use flowstone_sql::catalog::DEFAULT_ROLE;
use flowstone_sql::plan::PlanContext;
use flowstone_types::{Epoch, ObjectId};

use crate::error::Error;
use crate::session::variables::Variables;
use crate::shared::Shared;

/// Everything planning asks about.
#[derive(Clone, Debug)]
pub(crate) struct Planner {
    /// What exists.
    pub(crate) catalog: Arc<Catalog>,
    /// The session's variables.
    pub(crate) variables: Variables,
    /// The session's role.
    pub(crate) user: String,
    /// The session's process id.
    pub(crate) process_id: i32,
    /// When the process started.
    pub(crate) started_ms: u64,
    /// What `now()` is.
    pub(crate) now_ms: u64,
    /// What the rows of objects take in memory; `None` where that does not matter.
    pub(crate) shared: Option<Arc<Shared>>,
    /// What `mz_now()` is, if that is fixed.
    pub(crate) transaction_epoch: Option<Epoch>,
    /// Whether what a query assigns with `set_config` is carried out.
    pub(crate) assigns: bool,
    /// Whether what is planned is to be maintained.
    pub(crate) maintained: bool,
    /// The whole query string; empty if positions refer to nothing.
    pub(crate) text: Arc<str>,
}

impl Planner {
    /// For what is planned on behalf of nobody: the views of the catalog after a restart.
    pub(crate) fn for_catalog(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            variables: Variables::default(),
            user: DEFAULT_ROLE.to_owned(),
            process_id: 0,
            started_ms: 0,
            now_ms: 0,
            shared: None,
            transaction_epoch: None,
            assigns: false,
            maintained: true,
            text: Arc::from(""),
        }
    }

    /// The same, for something that is to be maintained.
    pub(crate) fn maintained(mut self) -> Self {
        self.maintained = true;
        self
    }

    /// Plans on this thread.
    pub(crate) fn with<T>(&self, plan: impl FnOnce(&PlanContext<'_>) -> T) -> T {
        let names = self.variables.settings();
        let lookup = |name: &str| match name {
            "pg_backend_pid" => Some(self.process_id.to_string()),
            "pg_postmaster_start_ms" => Some(self.started_ms.to_string()),
            "session_authorization" => Some(self.user.clone()),
            other => self.variables.get(&other.to_ascii_lowercase()),
        };
        let settings = || {
            let all = self.variables.all().into_iter();
            all.map(|(name, value, _)| (name, value)).collect()
        };
        let bytes = |id: ObjectId| {
            let runtime = self.shared.as_ref()?.runtime.lock();
            runtime.collections.get(&id).map(|held| held.bytes)
        };
        plan(&PlanContext {
            catalog: &self.catalog,
            database: &names.database,
            search_path: &names.search_path,
            user: &self.user,
            now_ms: self.now_ms,
            transaction_epoch: self.transaction_epoch,
            variables: &lookup,
            settings: &settings,
            bytes: &bytes,
            assigns: self.assigns,
            maintained: self.maintained,
            text: &self.text,
        })
    }

    /// Plans on a blocking thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&PlanContext<'_>) -> Result<T, flowstone_sql::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let planner = self.clone();
        blocking(move || planner.with(plan).map_err(Error::from)).await
    }
}

/// Runs `work` on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Internal(format!("planning failed: {error}"))),
    }
}
