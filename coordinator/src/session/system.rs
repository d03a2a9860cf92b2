//! The relations of the system catalog, made from the catalog and what the node reports, and sent along with the query that reads them.

use std::collections::{BTreeMap, BTreeSet};

use flowstone_proto::ipc::encode_batches;
use flowstone_proto::message::{SourceStatus, SystemRelation};
use flowstone_sql::catalog::ItemKind;
use flowstone_sql::system::{
    self, RuntimeState, SessionInfo, SessionState, SessionVariable, StatusState, SubscriptionState,
    SystemContext,
};
use flowstone_types::ObjectId;
use flowstone_types::budget::allocator::held_by_the_process;

use super::Session;
use crate::error::Error;
use crate::parts::Parts;
use crate::room;
use crate::subscriptions::Subscriptions;

impl Session {
    /// The rows of system relations, as they are now.
    pub(super) fn system_relations(
        &self,
        wanted: &[ObjectId],
    ) -> Result<Vec<SystemRelation>, Error> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let catalog = self.parts.catalog.now();
        let session = self.session_info();
        let runtime = runtime_state(&self.parts, self.session_states());
        let context = SystemContext {
            catalog: &catalog,
            session: &session,
            runtime: &runtime,
        };
        let mut relations = Vec::with_capacity(wanted.len());
        for id in wanted {
            let relation = system::relation_by_id(*id).ok_or_else(|| {
                Error::Internal(format!("{id} is not a relation of the system catalog"))
            })?;
            let batch = system::rows(relation, &context)?;
            relations.push(SystemRelation {
                id: *id,
                rows: encode_batches(&batch.schema(), &[batch])?,
            });
        }
        Ok(relations)
    }

    /// What the system relations know of this session.
    pub(super) fn session_info(&self) -> SessionInfo {
        let variables = self.variables.all().into_iter();
        let settings = self.variables.settings();
        SessionInfo {
            user: self.user.clone(),
            database: settings.database.clone(),
            search_path: settings.search_path.clone(),
            variables: variables
                .map(|(name, value, description)| SessionVariable {
                    name,
                    value,
                    description,
                })
                .collect(),
        }
    }

    fn session_states(&self) -> Vec<SessionState> {
        let subscribed: BTreeSet<i32> = self
            .parts
            .subscriptions
            .entries()
            .into_iter()
            .map(|(_, subscription)| subscription.process_id)
            .collect();
        let entries = self.parts.sessions.entries().into_iter();
        let states = entries.map(|(process_id, entry)| {
            let own = process_id == self.process_id;
            let settings = if own {
                self.variables.settings()
            } else {
                &entry.settings
            };
            SessionState {
                id: session_id(process_id),
                connection_id: u32::try_from(process_id).unwrap_or_default(),
                user: entry.user,
                database: settings.database.clone(),
                application_name: settings.application_name.clone(),
                connected_at_ms: entry.opened_at_ms,
                query_started_at_ms: entry.activity.statement_began_ms,
                active: own || entry.activity.active || subscribed.contains(&process_id),
                in_transaction: if own {
                    self.transaction.in_block()
                } else {
                    entry.activity.in_transaction
                },
                ..SessionState::default()
            }
        });
        states.collect()
    }
}

/// What the system relations know of the node.
pub(crate) fn runtime_state(parts: &Parts, sessions: Vec<SessionState>) -> RuntimeState {
    let catalog = parts.catalog.now();
    let published = parts.timeline.published.borrow().clone();
    let frontier = (parts.timeline.holds.since(), published.observable.next());
    let runtime = parts.reported.runtime.lock();
    // What is being computed again was hydrated once.
    let direct = parts.reported.direct.get();
    let is_hydrated = |id: ObjectId| {
        runtime.hydrated.contains(&id) && direct.is_none_or(|direct| direct.is_readable(id))
    };
    let maintained = catalog
        .items
        .values()
        .filter(|item| {
            matches!(
                item.kind,
                ItemKind::MaterializedView { .. } | ItemKind::Index { .. }
            )
        })
        .map(|item| (item.id, is_hydrated(item.id)));
    let collections = catalog
        .items
        .values()
        .filter(|item| item.is_collection() || matches!(item.kind, ItemKind::Index { .. }))
        .map(|item| item.id);
    let states = |statuses: &BTreeMap<ObjectId, (SourceStatus, u64)>| {
        let states = statuses.iter().map(|(id, (status, changed_at_ms))| {
            let state = StatusState {
                status: status.clone(),
                changed_at_ms: *changed_at_ms,
            };
            (*id, state)
        });
        states.collect::<BTreeMap<_, _>>()
    };
    let mut sink_statistics = runtime.sink_statistics.clone();
    published.pass_sinks(&mut sink_statistics);
    RuntimeState {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_time_ms: parts.started_ms,
        now_ms: parts.clock.now_ms(),
        source_statuses: states(&runtime.statuses),
        source_statistics: runtime.statistics.clone(),
        sink_statuses: states(&runtime.sink_statuses),
        sink_statistics,
        snapshot_committed: runtime.visible.clone(),
        hydration_ms: runtime.hydration_ms.clone(),
        hydrated: maintained.collect(),
        dataflow_errors: runtime.dataflow_errors.clone(),
        collections: runtime.collections.clone(),
        frontiers: collections
            .map(|id| (id, frontier))
            .collect::<BTreeMap<_, _>>(),
        sessions,
        subscriptions: subscription_states(&parts.subscriptions),
        resident_bytes: room::resident(),
        allocated_bytes: held_by_the_process(),
    }
}

fn subscription_states(subscriptions: &Subscriptions) -> Vec<SubscriptionState> {
    let subscriptions = subscriptions.entries();
    let states = subscriptions
        .into_iter()
        .map(|(request, subscription)| SubscriptionState {
            id: request.0.to_string(),
            session: session_id(subscription.process_id),
            cluster: subscription.cluster.to_string(),
            created_at_ms: subscription.created_at_ms,
            objects: subscription.reads,
        });
    states.collect()
}

/// The identity of a session: its number, as a UUID.
fn session_id(process_id: i32) -> [u8; 16] {
    let mut id = [0; 16];
    id[12..].copy_from_slice(&process_id.to_be_bytes());
    id
}
