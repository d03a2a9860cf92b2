//! Load generators: deterministic, and the same whatever the cuts.

use std::time::Duration;

use flowstone_ingest::generator::tables::{describe, generator_tables};
use flowstone_ingest::{Error, SourceEvent, TableChanges};
use flowstone_proto::message::{
    LoadGenerator, SourceBinding, SourceColumn, SourceKind, SourceTable,
};
use flowstone_types::{ObjectId, SourcePosition};

use super::source::{Model, SOURCE, Setup, render};

async fn setup(generator: LoadGenerator) -> Setup {
    let tables = describe(&generator);
    let mut source_tables = Vec::new();
    let mut schemas = Vec::new();
    for ((id, upstream), (name, schema, key)) in
        (10..).zip(&tables).zip(generator_tables(&generator))
    {
        assert_eq!(upstream.name, name);
        let columns = upstream.columns.iter().map(|column| SourceColumn {
            name: column.name.clone(),
            attribute: column.attribute,
            type_oid: column.type_oid,
            type_modifier: column.type_modifier,
            not_null: true,
            as_text: false,
        });
        source_tables.push(SourceTable {
            id: ObjectId::User(id),
            upstream_schema: upstream.schema.clone(),
            upstream_name: name,
            upstream_oid: 0,
            columns: columns.collect(),
            key: key.unwrap_or_default(),
            upstream: Vec::new(),
        });
        schemas.push((ObjectId::User(id), schema));
    }
    let kind = SourceKind::LoadGenerator {
        generator,
        tick_interval: Duration::from_millis(1),
        seed: 7,
    };
    Setup::with(kind, source_tables, schemas).await
}

/// Takes at each of `cuts`, the snapshots with the first.
async fn take_at(setup: &Setup, cuts: &[u64], first: &[ObjectId]) -> Vec<TableChanges> {
    let mut running = setup.run().await;
    let mut taken = Vec::new();
    let mut snapshots = first.to_vec();
    for cut in cuts {
        taken.extend(running.take(*cut, std::mem::take(&mut snapshots)).await);
    }
    running.handle.stop().await;
    taken
}

#[tokio::test]
async fn content_does_not_depend_on_cuts_or_restarts() {
    for generator in [
        LoadGenerator::Counter {
            max_cardinality: Some(3),
        },
        LoadGenerator::Auction,
        LoadGenerator::Tpch {
            scale_factor: 0.001,
        },
    ] {
        let mut setup = setup(generator).await;
        let tables = setup.tables();
        let whole = render(&take_at(&setup, &[40], &tables).await);
        let cut = render(&take_at(&setup, &[1, 2, 17, 40], &tables).await);
        assert_eq!(whole, cut);
        // From a commit point at tick 17 on.
        let before = render(&take_at(&setup, &[17], &tables).await);
        setup.resume_from(17);
        setup.description.snapshotted = tables;
        let after = render(&take_at(&setup, &[40], &[]).await);
        for (table, lines) in whole {
            let joined: Vec<String> = before
                .get(&table)
                .into_iter()
                .chain(after.get(&table))
                .flatten()
                .cloned()
                .collect();
            assert_eq!(joined, lines);
        }
    }
}

#[tokio::test]
async fn positions_of_another_kind_are_refused() {
    let mut setup = setup(LoadGenerator::Counter {
        max_cardinality: None,
    })
    .await;
    let foreign = SourcePosition::PostgresLsn(17);
    let mut running = setup.run().await;
    let binding = SourceBinding {
        source: SOURCE,
        position: foreign.clone(),
        snapshots: setup.tables(),
    };
    let refused = running.handle.take_pieces(&binding).await.unwrap_err();
    assert!(matches!(refused, Error::Invariant(_)), "{refused:?}");
    running.handle.stop().await;
    setup.description.resume_from = Some(foreign);
    let refused = setup.try_run().await.map(drop).unwrap_err();
    assert!(matches!(refused, Error::Invariant(_)), "{refused:?}");
}

#[tokio::test]
async fn counter_keeps_the_newest_rows() {
    let setup = setup(LoadGenerator::Counter {
        max_cardinality: Some(3),
    })
    .await;
    let mut model = Model::default();
    model
        .apply(&setup, take_at(&setup, &[5], &setup.tables()).await)
        .await;
    let numbers: Vec<_> = model
        .rows(ObjectId::User(10))
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    assert_eq!(numbers, ["3", "4", "5"]);
}

#[tokio::test]
async fn tpch_orders_and_lines_stay_consistent_while_they_are_replaced() {
    let setup = setup(LoadGenerator::Tpch {
        scale_factor: 0.001,
    })
    .await;
    let mut model = Model::default();
    // Far enough that every order was replaced at least once: a delete that does not match its row fails in the model.
    model
        .apply(&setup, take_at(&setup, &[1, 1600], &setup.tables()).await)
        .await;
    let orders = model.rows(setup.id("orders"));
    assert_eq!(orders.len(), 1500);
    let keys: std::collections::HashSet<_> = orders.iter().map(|row| row[0].clone()).collect();
    assert_eq!(keys.len(), 1500);
    assert!(
        model
            .rows(setup.id("lineitem"))
            .iter()
            .all(|row| keys.contains(&row[0]))
    );
}

#[tokio::test]
async fn ticks_advance_and_the_snapshot_is_announced_first() {
    let setup = setup(LoadGenerator::Auction).await;
    let mut running = setup.run().await;
    running.progress(3).await;
    let snapshot = running.seen.iter().position(|event| {
        matches!(
            event,
            SourceEvent::Snapshot {
                source: SOURCE,
                position: SourcePosition::GeneratorTick(1),
                ..
            }
        )
    });
    let progress = running
        .seen
        .iter()
        .position(|event| matches!(event, SourceEvent::Progress { .. }));
    assert!(snapshot.unwrap() < progress.unwrap());
    running.drop_with(&setup).await;
    assert_eq!(
        std::fs::read_dir(setup.dir.path().join("state"))
            .unwrap()
            .count(),
        0
    );
}
