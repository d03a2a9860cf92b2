//! ALTER CLUSTER … WITH (WAIT …): a change of a cluster's threads that is waited for, and undone if it takes too long.
//!
//! Owns the wait and what ends it. Must not know how a change is made durable.
//!
//! Invariants. While a change is waited for nobody else changes that cluster. The wait is a task's: it goes on, and undoes the change, if the session goes away.

use std::future::Future;
use std::sync::Arc;

use flowstone_sql::ast::{AlterClusterAction, ClusterWait, OnTimeout, StatementKind};
use flowstone_sql::catalog::{CatalogChange, Cluster};
use flowstone_sql::error::ErrorKind;
use flowstone_types::{ClusterId, EvalErrorKind};
use tokio::sync::oneshot;

use super::ddl::{Change, carry_through, joined};
use super::waits;
use crate::catalog::{CatalogReader, Turn};
use crate::error::Error;
use crate::limits::Limits;
use crate::parts::Parts;
use crate::resizes::Resizes;

/// Refuses changes of clusters whose last change somebody still waits for.
pub(super) fn refuse_busy(
    resizes: &Resizes,
    catalog: &CatalogReader,
    changes: &[CatalogChange],
) -> Result<(), Error> {
    let busy = changes.iter().find_map(|change| match change {
        CatalogChange::PutCluster(Cluster { id, .. }) | CatalogChange::DropCluster(id) => {
            resizes.contains(*id).then_some(*id)
        }
        _ => None,
    });
    let Some(id) = busy else { return Ok(()) };
    let message = format!(
        "cluster \"{}\" is being changed by another statement",
        catalog.now().cluster_name(id)
    );
    Err(flowstone_sql::Error::new(ErrorKind::ObjectInUse, message)
        .with_hint("Wait until that statement has ended, or cancel it.")
        .into())
}

/// A change of a cluster's threads, and how long it is waited for.
#[derive(Debug)]
pub(super) struct Resize {
    parts: Arc<Parts>,
    /// The cluster as it was.
    before: Cluster,
    ready: oneshot::Receiver<()>,
    wait: ClusterWait,
}

impl Drop for Resize {
    fn drop(&mut self) {
        self.parts.resizes.end(self.before.id);
    }
}

/// Why a wait ended before the cluster was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Early {
    TimedOut,
    /// The session does not wait any more.
    Abandoned,
}

impl Resize {
    /// What a statement waits for: `None` if it says nothing of it, or if there is nothing to wait for. `change`: the number of its change. To be called in the
    /// statement's turn, after [`refuse_busy`].
    pub(super) fn of(
        parts: &Arc<Parts>,
        kind: &StatementKind,
        changes: &[CatalogChange],
        change: u64,
    ) -> Option<Self> {
        let StatementKind::AlterCluster(alter) = kind else {
            return None;
        };
        let AlterClusterAction::Set {
            wait: Some(wait), ..
        } = &alter.action
        else {
            return None;
        };
        let [CatalogChange::PutCluster(after)] = changes else {
            return None;
        };
        let before = parts.catalog.now().clusters.by_id.get(&after.id)?.clone();
        // What is paused has nothing to catch up on, and the threads of the process are what they are.
        if !after.is_running()
            || after.id == ClusterId::DEFAULT
            || after.threads(parts.machine) == before.threads(parts.machine)
        {
            return None;
        }
        let ready = parts.resizes.begin(after.id, change)?;
        Some(Self {
            parts: Arc::clone(parts),
            before,
            ready,
            wait: *wait,
        })
    }

    /// Waits until the cluster is ready, and undoes the change if that is not to be waited for any longer. `abandoned` ends when the session does.
    async fn settle(mut self, abandoned: oneshot::Receiver<()>) -> Result<(), Error> {
        let early = tokio::select! {
            biased;
            Ok(()) = &mut self.ready => return Ok(()),
            _ = abandoned => Early::Abandoned,
            () = tokio::time::sleep(self.wait.timeout) => Early::TimedOut,
        };
        if early == Early::TimedOut && self.wait.on_timeout == OnTimeout::Commit {
            return Ok(());
        }
        let name = self.before.name.clone();
        self.undo().await?;
        Err(match early {
            Early::Abandoned => Error::Cancelled,
            Early::TimedOut => {
                let message = format!("cluster \"{name}\" was not ready in time");
                let kind = ErrorKind::Evaluation(EvalErrorKind::Cancelled);
                flowstone_sql::Error::new(kind, message)
                    .with_detail("It is as it was before the statement.")
                    .with_hint("Give it a longer TIMEOUT, or let the change stand with ON TIMEOUT = 'COMMIT'.")
                    .into()
            }
        })
    }

    /// Makes the cluster what it was.
    async fn undo(self) -> Result<(), Error> {
        let turn = Turn {
            words: "ALTER CLUSTER",
            process_id: None,
        };
        let turn = self.parts.turns.take(turn).await;
        let change = Change::of(
            &self.parts.numbers,
            vec![CatalogChange::PutCluster(self.before.clone())],
        );
        carry_through(Arc::clone(&self.parts), turn, change)
            .await
            .map(drop)
    }
}

/// Makes a change, and waits for what comes of it; a statement that is cancelled, out of time or left by its client has changed nothing in the end.
///
/// # Cancel safety
/// Dropped in the middle, the change is undone by its task.
pub(super) async fn carry_through_and_wait<T: Send + 'static>(
    limits: &Limits,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
    resize: Resize,
) -> Result<T, Error> {
    let (stay, abandoned) = oneshot::channel();
    let notice = waits::for_cluster(&resize.before.name, &resize.wait);
    let what = || vec![notice.clone()];
    let mut task = tokio::spawn(async move {
        let done = work.await?;
        resize.settle(abandoned).await?;
        Ok(done)
    });
    let ended = tokio::select! {
        outcome = &mut task => return joined(outcome),
        ended = limits.run_telling(what, std::future::pending::<Result<(), Error>>()) => ended,
    };
    drop(stay);
    match (joined(task.await), ended) {
        (Err(Error::Cancelled), Err(why)) => Err(why),
        (outcome, _) => outcome,
    }
}
