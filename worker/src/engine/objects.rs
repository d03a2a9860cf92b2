//! Collections, sources and dataflows: how they begin and end.

use std::sync::Arc;

use flowstone_dataflow::{partition_columns, partition_delta};
use flowstone_proto::message::{
    CollectionDescription, CollectionKind, DataflowDescription, Export, RequestError, RequestId,
    Response, ResultMessage, SourceDescription, SourceTable,
};
use flowstone_types::{DeltaBatch, Epoch, EvalError, EvalErrorKind, ObjectId};
use futures::StreamExt;
use tokio_util::task::TaskTracker;

use super::{Engine, RETRY_FIRST, Source, retrying};
use crate::Error;
use crate::error::with_causes;
use crate::write::TableInfo;

impl Engine {
    /// Creates a collection; one that was committed before is brought back to its version at the commit point and loaded.
    pub(super) async fn create_collection(
        &mut self,
        description: CollectionDescription,
    ) -> Result<(), Error> {
        let (id, schema, key) = (
            description.id,
            Arc::clone(&description.schema),
            description.key.clone(),
        );
        retrying("create a table", || {
            let (delta, name, schema) = (&self.delta, &description.name, Arc::clone(&schema));
            async move { delta.create(id, name, schema).await }
        })
        .await?;
        retrying("roll a table back", || {
            let (delta, version) = (&self.delta, description.delta_version);
            async move { delta.roll_back(id, version).await }
        })
        .await?;
        let (shard_schema, shard_key) = (Arc::clone(&schema), key.clone());
        for created in self
            .shards
            .on_each(move |_, shard| {
                shard.create_collection(id, Arc::clone(&shard_schema), shard_key.clone())
            })
            .await?
        {
            created?;
        }
        // A view is loaded too: its dataflow then yields what differs from the stored rows, so that memory and files agree whatever it computes.
        if let Some(version) = description.delta_version {
            self.load_collection(&description, version).await?;
        }
        if let Some(failure) = &description.failure {
            let error = EvalError::new(EvalErrorKind::Source, failure.message.clone());
            let epoch = self.last_run;
            let outcomes = self
                .shards
                .on_each(move |index, shard| {
                    // Errors belong to any one shard.
                    if index == 0 {
                        shard.load_errors(id, &[(error.clone(), 1)], epoch)
                    } else {
                        Ok(())
                    }
                })
                .await?;
            for outcome in outcomes {
                outcome?;
            }
            self.failed.insert(id);
        }
        let mut infos = (*self.infos).clone();
        infos.insert(
            id,
            TableInfo {
                name: description
                    .name
                    .rsplit('.')
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
                schema,
            },
        );
        self.infos = Arc::new(infos);
        // A view can be read once its dataflow has hydrated.
        if description.kind != CollectionKind::MaterializedView {
            self.readable.write().from.insert(id, Epoch::MIN);
        }
        self.collections.insert(id, description);
        Ok(())
    }

    async fn load_collection(
        &self,
        description: &CollectionDescription,
        version: i64,
    ) -> Result<(), Error> {
        let (id, epoch) = (description.id, self.last_run);
        let columns = partition_columns(
            description.key.as_deref(),
            description.schema.fields().len(),
        );
        let mut rows = self
            .delta
            .load(id, version, Arc::clone(&description.schema))
            .await?;
        let mut loaded = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            loaded += batch.num_rows();
            let parts = partition_delta(
                &DeltaBatch::insert(batch, epoch),
                &columns,
                self.shards.count(),
            )?;
            let outcomes = self
                .shards
                .on_each(move |index, shard| {
                    parts
                        .get(index)
                        .map_or(Ok(()), |part| shard.load_collection(id, &part.rows, epoch))
                })
                .await?;
            for outcome in outcomes {
                outcome?;
            }
        }
        tracing::info!(%id, name = description.name, version, rows = loaded, "collection loaded");
        Ok(())
    }

    pub(super) async fn create_source(
        &mut self,
        description: SourceDescription,
    ) -> Result<(), Error> {
        let handle = loop {
            match flowstone_ingest::start(description.clone(), self.source_context(&description)) {
                Err(error) if error.retryable() => {
                    tracing::warn!(
                        error = with_causes(&error),
                        "a source could not be started; trying again"
                    );
                    tokio::time::sleep(RETRY_FIRST).await;
                }
                started => break started?,
            }
        };
        if description.failure.is_some() {
            self.failed.insert(description.id);
        }
        // As part of what was loaded: dataflows hydrate from it, and reads fail before anything is taken.
        for (table, errors) in handle.row_errors() {
            let epoch = self.last_run;
            let loaded = self
                .shards
                .on_each(move |shard_index, shard| match shard_index {
                    0 => shard.load_errors(table, &errors, epoch),
                    _ => Ok(()),
                })
                .await?;
            loaded.into_iter().try_for_each(|outcome| outcome)?;
        }
        let source = Source {
            handle,
            progress: description.resume_from,
            bound: std::collections::VecDeque::new(),
            failure: None,
            failing: Vec::new(),
            description,
        };
        self.sources.insert(source.description.id, source);
        Ok(())
    }

    pub(super) async fn add_source_tables(
        &mut self,
        id: ObjectId,
        tables: Vec<SourceTable>,
    ) -> Result<(), Error> {
        let schemas = tables
            .iter()
            .filter_map(|table| {
                Some((
                    table.id,
                    Arc::clone(&self.collections.get(&table.id)?.schema),
                ))
            })
            .collect();
        let source = self.sources.get_mut(&id).ok_or(Error::UnknownObject(id))?;
        source.description.tables.extend(tables.iter().cloned());
        if self.failed.contains(&id) {
            source.failing.extend(tables.iter().map(|table| table.id));
        }
        source.handle.add_tables(tables, schemas).await;
        Ok(())
    }

    /// Creates and hydrates a dataflow. What it computes from its inputs as of the last epoch run is its first output.
    pub(super) async fn create_dataflow(
        &mut self,
        description: DataflowDescription,
    ) -> Result<(), Error> {
        let id = description.id;
        let rendered = description.clone();
        for created in self
            .shards
            .on_each(move |_, shard| shard.create_dataflow(&rendered))
            .await?
        {
            created?;
        }
        let outputs = self.shards.hydrate(vec![id], self.last_run).await?;
        if description.export == Export::Collection {
            let collection = self.collections.get(&id).ok_or(Error::UnknownObject(id))?;
            if collection.delta_version.is_some()
                && outputs.iter().any(|output| !output.outputs.is_empty())
            {
                tracing::warn!(%id, "a view computes other rows than it did before the restart; the stored ones are brought up to date");
            }
            self.absorb(outputs, None);
        }
        self.readable.write().from.insert(id, self.last_run);
        self.respond(Response::Hydrated { id }).await;
        Ok(())
    }

    pub(super) async fn drop_objects(&mut self, objects: Vec<ObjectId>) -> Result<(), Error> {
        self.end_subscriptions_to(&objects).await?;
        let mut infos = (*self.infos).clone();
        let stopping = TaskTracker::new();
        for id in &objects {
            self.failed.remove(id);
            if let Some(source) = self.sources.remove(id) {
                stopping.spawn(source.handle.stop());
            }
            if let Some(collection) = self.collections.remove(id) {
                if let CollectionKind::SourceTable { source } = collection.kind
                    && let Some(source) = self.sources.get_mut(&source)
                {
                    source.description.tables.retain(|table| table.id != *id);
                    source.handle.remove_tables(&[*id]).await;
                }
                infos.remove(id);
                self.buffer.remove(*id);
            }
            self.readable.write().from.remove(id);
            self.sent_statistics.remove(id);
        }
        stopping.close();
        self.stopping = stopping;
        self.infos = Arc::new(infos);
        self.shards
            .on_each(move |_, shard| {
                for id in &objects {
                    shard.drop_object(*id);
                }
            })
            .await?;
        self.start_ready_reads().await
    }

    /// Ends the subscriptions that read what is about to go, and tells their clients why.
    async fn end_subscriptions_to(&mut self, objects: &[ObjectId]) -> Result<(), Error> {
        let readers: Vec<RequestId> = self
            .subscriptions
            .iter()
            .filter(|(_, subscription)| subscription.reads_any(objects))
            .map(|(request, _)| *request)
            .collect();
        for request in readers {
            if let Some(subscription) = self.subscriptions.get_mut(&request) {
                subscription.end(ResultMessage::Failed(RequestError::Dropped));
            }
            self.end_subscription(request).await?;
        }
        Ok(())
    }
}
