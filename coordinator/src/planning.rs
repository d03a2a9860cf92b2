//! Planning in a session's task: an owned copy of what planning needs, and the threads it happens on.
//!
//! Must not know what is planned. Called by `session` and `install`.
//!
//! Invariants. Planning runs where blocking is allowed: it takes milliseconds and, for deep expressions, a deep stack, which the runtime gives to its blocking
//! threads. Only so many run at a time, and each has a budget: it ends soon after nobody waits for it, and computes no large constant. All of them together
//! hold no more memory than [`PLANNING_BYTES`]. One that was given up counts as running until it has ended.

use std::sync::{Arc, LazyLock};

use flowstone_sql::Catalog;
use flowstone_sql::catalog::DEFAULT_ROLE;
use flowstone_sql::plan::PlanContext;
use flowstone_types::{Budget, Epoch, ObjectId, SharedBudget, budget};
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::limits::Limits;
use crate::reported::Reported;
use crate::variables::Variables;

/// What planning may hold, of one statement or of all at a time: a statement of the largest size takes a few times its text, many times over.
const PLANNING_BYTES: usize = 512 << 20;

/// Plannings at a time, for each thread of the machine: they hold memory, and more of them would only take turns.
const PLANNINGS_PER_THREAD: usize = 4;

/// Who may plan.
static PLANNINGS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    Arc::new(Semaphore::new(threads * PLANNINGS_PER_THREAD))
});

/// What they may hold.
static PLANNING_MEMORY: LazyLock<Arc<SharedBudget>> =
    LazyLock::new(|| SharedBudget::new(PLANNING_BYTES));

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
    pub(crate) reported: Option<Arc<Reported>>,
    /// What `mz_now()` is, if that is fixed.
    pub(crate) transaction_epoch: Option<Epoch>,
    /// Whether what a query assigns with `set_config` is carried out.
    pub(crate) assigns: bool,
    /// Whether what is planned is to be maintained.
    pub(crate) maintained: bool,
    /// The whole query string; empty if positions refer to nothing.
    pub(crate) text: Arc<str>,
    /// When planning must end early; `None` for what nobody waits for.
    pub(crate) limits: Option<Limits>,
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
            reported: None,
            transaction_epoch: None,
            assigns: false,
            maintained: true,
            text: Arc::from(""),
            limits: None,
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
            let runtime = self.reported.as_ref()?.runtime.lock();
            runtime.collections.get(&id).map(|held| held.bytes)
        };
        let context = PlanContext {
            catalog: &self.catalog,
            database: &names.database,
            search_path: &names.search_path,
            user: &self.user,
            now_ms: self.now_ms,
            time_zone: &names.time_zone,
            transaction_epoch: self.transaction_epoch,
            variables: &lookup,
            settings: &settings,
            bytes: &bytes,
            assigns: self.assigns,
            maintained: self.maintained,
            text: &self.text,
        };
        let budget = budget::current().unwrap_or_else(|| Budget::alone(usize::MAX));
        budget.run(|| budget::constants_only(|| plan(&context)))
    }

    /// Plans on a blocking thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        plan: impl FnOnce(&PlanContext<'_>) -> Result<T, flowstone_sql::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let planner = self.clone();
        let planning = blocking(move || planner.with(plan).map_err(Error::from));
        match &self.limits {
            Some(limits) => limits.run(planning).await,
            None => planning.await,
        }
    }
}

/// Ends what nobody waits for any more.
struct CancelOnDrop(Arc<Budget>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs `work` on a blocking thread, within a budget. Dropping it in the middle ends the work at its next check.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let turn = Arc::clone(&PLANNINGS)
        .acquire_owned()
        .await
        .map_err(|error| Error::Internal(error.to_string()))?;
    within(Budget::new(&PLANNING_MEMORY), turn, work).await
}

/// The same for what was planned once already and must be planned again: it waits for nobody and has no bound.
pub(crate) async fn replanning<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    within(Budget::alone(usize::MAX), (), work).await
}

async fn within<T: Send + 'static>(
    budget: Arc<Budget>,
    turn: impl Send + 'static,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let _ended = CancelOnDrop(Arc::clone(&budget));
    let work = move || {
        let _turn = turn;
        budget.run(|| {
            if budget::check().is_err() {
                return Err(Error::Cancelled);
            }
            work()
        })
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Internal(format!("planning failed: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn planning_that_nobody_waits_for_ends() {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let endless = blocking(move || {
            while budget::check().is_ok() {
                std::thread::yield_now();
            }
            tell.send(()).map_err(|_| Error::Cancelled)
        });
        let waited = tokio::time::timeout(Duration::from_millis(20), endless).await;
        assert!(waited.is_err());
        let ended = move || told.recv_timeout(Duration::from_secs(60));
        let ended = tokio::task::spawn_blocking(ended).await.unwrap();
        assert_eq!(ended, Ok(()));
    }
}
