//! What statements wait for, in words.
//!
//! Owns the notices that say so. Must not wait itself, nor know when they are sent ([`crate::notices`]). What it tells is as of now: whoever waits asks again.

use flowstone_proto::local::Lack;
use flowstone_proto::message::SourceStatus;
use flowstone_sql::Catalog;
use flowstone_sql::ast::{ClusterWait, OnTimeout};
use flowstone_sql::catalog::{Item, ItemKind};
use flowstone_types::ObjectId;

use super::read::transitive_source_tables;
use crate::catalog::{CatalogReader, CatalogTurns};
use crate::notices::Notice;
use crate::raft::RaftNode;
use crate::reported::{Reported, Runtime};
use crate::timeline::Timeline;

/// Why `reads` cannot be read yet.
pub(super) fn for_reads(
    catalog: &CatalogReader,
    timeline: &Timeline,
    reported: &Reported,
    reads: &[ObjectId],
) -> Vec<Notice> {
    if reads.is_empty() {
        return Vec::new();
    }
    let mut notices = Vec::new();
    if timeline.is_replaying() {
        notices.push(Notice::new(
            "waiting for what was not committed before the restart to be replayed",
        ));
    }
    let catalog = catalog.now();
    for item in reads.iter().filter_map(|id| catalog.items.get(id)) {
        notices.extend(for_read(timeline, reported, &catalog, item));
    }
    notices
}

/// Why an object cannot be read yet.
fn for_read(
    timeline: &Timeline,
    reported: &Reported,
    catalog: &Catalog,
    item: &Item,
) -> Vec<Notice> {
    let named = format!("{} \"{}\"", item.noun(), item.name);
    if let Some(cluster) = catalog.paused_by(item.id) {
        let mut notice = Notice::new(format!(
            "waiting for {named}: cluster \"{}\" is paused",
            cluster.name
        ));
        notice.hint = Some(cluster.resume_hint());
        return vec![notice];
    }
    let of_sources = for_sources(reported, catalog, item);
    if !of_sources.is_empty() {
        return of_sources;
    }
    let notice = match lack_of(timeline, reported, item) {
        None => return Vec::new(),
        Some(Lack::Content) => Notice::new(format!("waiting for {named}, which is being hydrated")),
        Some(Lack::Input) => {
            let mut notice = Notice::new(format!(
                "waiting for {named}: a large change of what it is made of is coming in"
            ));
            notice.detail =
                Some("It comes in piece by piece, and is seen when all of it is there.".to_owned());
            notice
        }
        Some(Lack::Epochs) => {
            let cluster = catalog.cluster_name(catalog.cluster_of(item.id));
            let mut notice = Notice::new(format!("waiting for {named}, which is behind"));
            notice.detail = Some(format!(
                "It goes at its own pace in cluster \"{cluster}\", and has yet to take in the newest changes."
            ));
            notice
        }
    };
    vec![notice]
}

fn lack_of(timeline: &Timeline, reported: &Reported, item: &Item) -> Option<Lack> {
    match reported.direct.get() {
        Some(direct) => {
            let newest = timeline.published.borrow().observable;
            direct.lack(item.id, newest)
        }
        None => {
            let is_computed = matches!(
                item.kind,
                ItemKind::MaterializedView { .. } | ItemKind::Index { .. }
            );
            let runtime = reported.runtime.lock();
            let is_settled = runtime.hydrated.contains(&item.id)
                || runtime.dataflow_errors.contains_key(&item.id);
            (is_computed && !is_settled).then_some(Lack::Content)
        }
    }
}

/// The sources that keep an object from being read.
fn for_sources(reported: &Reported, catalog: &Catalog, item: &Item) -> Vec<Notice> {
    let mut under = vec![item.id];
    if matches!(item.kind, ItemKind::Index { .. }) {
        under.extend(&item.depends_on);
    }
    let tables = transitive_source_tables(catalog, &under);
    let runtime = reported.runtime.lock();
    let tables = tables.iter().filter_map(|id| catalog.items.get(id));
    let notices = tables.filter_map(|table| {
        let ItemKind::Table {
            source: Some(fed), ..
        } = &table.kind
        else {
            return None;
        };
        let source = catalog.items.get(&fed.source)?;
        let message = if !runtime.visible.contains(&table.id) {
            format!("waiting for the snapshot of \"{}\"", table.name)
        } else if runtime.held.contains(&source.id) {
            format!(
                "waiting for source \"{}\", which is held up: it cannot give what it gave before",
                source.name
            )
        } else {
            return None;
        };
        let mut notice = Notice::new(message);
        (notice.detail, notice.hint) = status_of(&runtime, &[table.id, source.id]);
        Some(notice)
    });
    notices.collect()
}

/// What the first of `objects` that is not well says of itself: detail and hint.
fn status_of(runtime: &Runtime, objects: &[ObjectId]) -> (Option<String>, Option<String>) {
    let statuses = objects.iter().filter_map(|id| runtime.statuses.get(id));
    let mut said = statuses.filter_map(|(status, _)| match status {
        SourceStatus::Running | SourceStatus::Warned { .. } => None,
        SourceStatus::Starting => Some(("The source is starting.".to_owned(), None)),
        SourceStatus::Stalled { error, hint } => {
            Some((format!("The source is stalled: {error}"), hint.clone()))
        }
        SourceStatus::Failed { error, hint } => {
            Some((format!("The source has failed: {error}"), hint.clone()))
        }
    });
    match said.next() {
        Some((detail, hint)) => (Some(detail), hint),
        None => (None, None),
    }
}

/// For the lock of a table that another statement has.
pub(super) fn for_lock(catalog: &CatalogReader, table: Option<ObjectId>) -> Vec<Notice> {
    let catalog = catalog.now();
    let Some(item) = table.and_then(|id| catalog.items.get(&id)) else {
        return Vec::new();
    };
    let mut notice = Notice::new(format!(
        "waiting for another statement that writes to {} \"{}\", or reads it to write",
        item.noun(),
        item.name
    ));
    notice.detail = Some("It has locked what this one needs, until its write is seen.".to_owned());
    vec![notice]
}

/// For the turn of a statement that reads what sources feed and writes.
pub(super) fn for_source_reads() -> Vec<Notice> {
    vec![Notice::new(
        "waiting for another statement that reads tables of sources and writes",
    )]
}

/// For the turn of another statement that changes the catalog.
pub(super) fn for_turn(turns: &CatalogTurns) -> Vec<Notice> {
    let turn = turns.last();
    let mut notice = Notice::new(format!(
        "waiting for another statement that changes the catalog: {}",
        turn.words
    ));
    notice.detail = turn
        .process_id
        .map(|process_id| format!("Session {process_id} runs it."));
    vec![notice]
}

/// For a cluster whose threads were changed.
pub(super) fn for_cluster(name: &str, wait: &ClusterWait) -> Notice {
    let mut notice = Notice::new(format!(
        "waiting until all that is in cluster \"{name}\" has caught up on its new threads"
    ));
    let then = match wait.on_timeout {
        OnTimeout::Commit => "stands all the same",
        OnTimeout::Rollback => "is undone",
    };
    notice.detail = Some(format!(
        "It is waited for {:?} at most; then the change {then}.",
        wait.timeout
    ));
    notice
}

/// For a change of the catalog that cannot be made durable.
pub(super) fn for_catalog(raft: &RaftNode) -> Vec<Notice> {
    let stalled = raft.stalled().into_iter();
    stalled
        .map(|error| {
            let mut notice = Notice::new("waiting for the change of the catalog to be durable");
            notice.detail = Some(error.to_string());
            notice
        })
        .collect()
}

/// For a write that was handed to an epoch.
pub(super) fn for_durability(raft: &RaftNode) -> Vec<Notice> {
    let mut notice = Notice::new("waiting until what was written is durable and can be seen");
    notice.detail = raft.stalled().map(|error| error.to_string());
    vec![notice]
}
