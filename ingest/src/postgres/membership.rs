//! Watching what the stream does not tell: tables that were dropped, removed from the publication or altered, and how far the server is.
//!
//! Must not know the stream. Runs as its own task with its own connection, every second.
//!
//! Invariants. An error found here is made durable with the position it takes effect at, before anything at that position can be taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flowstone_proto::message::SourceTable;

use super::catalog;
use super::state::Shared;
use super::table_log::Snapshot;
use super::wire::{Connection, Purpose, WireError, parse_lsn};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits after an error: the stream reports connection troubles, so this one stays quiet.
const RETRY: Duration = Duration::from_secs(5);

/// Polls until the source stops.
pub(crate) async fn watch(shared: Arc<Shared>) {
    loop {
        let failed = tokio::select! {
            () = shared.cancel.cancelled() => return,
            result = poll(&shared) => result,
        };
        if let Err(error) = failed {
            tracing::debug!(source = %shared.id, %error, "could not poll the publication");
        }
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn poll(shared: &Arc<Shared>) -> Result<(), WireError> {
    let described = shared.own.connection.proven();
    let mut connection = Connection::open(&described, Purpose::Query).await?;
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        look(shared, &mut connection).await?;
    }
}

/// Looks once.
async fn look(shared: &Arc<Shared>, connection: &mut Connection) -> Result<(), WireError> {
    // Tables that are being copied are checked by the snapshot.
    let tables: Vec<SourceTable> = {
        let state = shared.lock();
        let watched = state.tables().iter().filter(|log| {
            !matches!(log.snapshot, Snapshot::Pending { .. }) && log.account.failure().is_none()
        });
        watched.map(|log| log.table.clone()).collect()
    };
    let mut oids: Vec<u32> = tables.iter().map(|table| table.upstream_oid).collect();
    oids.sort_unstable();
    oids.dedup();
    let relations = catalog::relations(connection, &shared.own.publication, &oids).await?;
    // Read after the catalog: what was found is true at this position at the latest.
    let position = connection.ask("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END").await?;
    let position = position
        .into_iter()
        .flatten()
        .next()
        .flatten()
        .as_deref()
        .and_then(parse_lsn)
        .unwrap_or(0);
    let known = shared
        .manifest
        .get()
        .map(|manifest| manifest.membership)
        .unwrap_or_default();
    let mut seen = HashMap::new();
    let mut failures = Vec::new();
    {
        let mut state = shared.lock();
        state.upstream = state.upstream.max(position);
        for table in tables {
            let message = match relations.get(&table.upstream_oid) {
                None => Some(catalog::dropped(&table)),
                Some(info) => match (info.membership, known.get(&table.upstream_oid)) {
                    (None, _) => Some(catalog::unpublished(&table, &shared.own.publication)),
                    // Taken out and put back: what happened in between is lost.
                    (Some(now), Some(then)) if now != *then => {
                        Some(catalog::unpublished(&table, &shared.own.publication))
                    }
                    (Some(now), _) => {
                        seen.insert(table.upstream_oid, now);
                        catalog::check_columns(&table, info).err()
                    }
                },
            };
            let failure = message.and_then(|message| state.fail_table(table.id, message, position));
            failures.extend(failure.map(|failure| (table.id, failure)));
        }
    }
    shared.bump();
    shared.report_failures(failures).await;
    if seen.keys().any(|oid| !known.contains_key(oid)) {
        let written = shared
            .manifest
            .change(|manifest| {
                manifest.map(|mut manifest| {
                    for (oid, membership) in seen {
                        manifest.membership.entry(oid).or_insert(membership);
                    }
                    manifest
                })
            })
            .await;
        if let Err(error) = written {
            tracing::warn!(source = %shared.id, %error, "publication membership could not be remembered");
        }
    }
    Ok(())
}
