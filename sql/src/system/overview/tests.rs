use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use flowstone_proto::kafka::KafkaStart;
use flowstone_proto::message::{
    CollectionStatistics, LoadGenerator, SourceStatistics, SourceStatus, SourceTable,
};
use flowstone_types::{ClusterId, Epoch, SourcePosition};

use super::*;
use crate::catalog::{
    CatalogChange, Cluster, ClusterKind, ClusterSize, SchemaId, Sink, SinkItemKind, Source,
    SourceItemKind, TableSource,
};
use crate::connector::{SinkFormatItem, TopicSink};
use crate::system::{self, RuntimeState, SessionInfo, StatusState};

const SOURCE: ObjectId = ObjectId::User(2000);
const FED: ObjectId = ObjectId::User(2001);
const TABLE: ObjectId = ObjectId::User(2002);
const VIEW: ObjectId = ObjectId::User(2003);
const MATERIALIZED: ObjectId = ObjectId::User(2004);
const INDEX: ObjectId = ObjectId::User(2005);
const OF_TABLE: ObjectId = ObjectId::User(2006);
/// Made of the materialized view, where a test says so.
const ABOVE: ObjectId = ObjectId::User(2008);
/// Of the materialized view, where the source is a topic.
const SINK: ObjectId = ObjectId::User(2009);

/// A source that feeds a table, a table, a view over the fed table, a materialized view and an index over the view, and a materialized view of the table.
fn catalog() -> Catalog {
    let mut catalog = Catalog::initial();
    let fed = TableSource {
        source: SOURCE,
        table: SourceTable {
            id: FED,
            upstream_schema: "public".to_owned(),
            upstream_name: "fed".to_owned(),
            upstream_oid: 1,
            columns: Vec::new(),
            key: Vec::new(),
            upstream: Vec::new(),
        },
        owned: true,
    };
    let table = |source| ItemKind::Table {
        columns: Vec::new(),
        key: None,
        source,
    };
    let materialized = || ItemKind::MaterializedView {
        columns: Vec::new(),
        query: "SELECT".to_owned(),
        key: None,
    };
    let source = Source {
        kind: SourceItemKind::LoadGenerator {
            generator: LoadGenerator::Auction,
            tick_interval_ms: 1000,
        },
        progress: None,
    };
    let view = ItemKind::View {
        columns: Vec::new(),
        query: "SELECT".to_owned(),
    };
    let index = ItemKind::Index {
        on: VIEW,
        key: Vec::new(),
    };
    for (id, name, kind, depends_on) in [
        (SOURCE, "source", ItemKind::Source(source), vec![]),
        (FED, "fed", table(Some(fed)), vec![SOURCE]),
        (TABLE, "table", table(None), vec![]),
        (VIEW, "view", view, vec![FED]),
        (MATERIALIZED, "materialized", materialized(), vec![VIEW]),
        (INDEX, "index", index, vec![VIEW]),
        (OF_TABLE, "of_table", materialized(), vec![TABLE]),
        (ObjectId::User(2007), "secret", ItemKind::Secret, vec![]),
    ] {
        let item = Item {
            id,
            oid: 30_000,
            schema: SchemaId(1),
            name: name.to_owned(),
            create_sql: String::new(),
            depends_on,
            comment: None,
            column_comments: BTreeMap::new(),
            kind,
        };
        catalog
            .apply(&[CatalogChange::PutItem(Box::new(item))])
            .unwrap();
    }
    catalog
}

/// The same, but for a topic as the source, and a sink of the materialized view.
fn catalog_of_topics() -> Catalog {
    let mut catalog = catalog();
    let connection = ObjectId::User(2010);
    let mut source = catalog.items[&SOURCE].clone();
    source.kind = ItemKind::Source(Source {
        kind: SourceItemKind::Kafka {
            connection,
            topic: "in".to_owned(),
            start: KafkaStart::Earliest,
            metadata_interval_ms: 60_000,
            group_id_prefix: None,
        },
        progress: None,
    });
    let mut sink = catalog.items[&MATERIALIZED].clone();
    (sink.id, sink.name) = (SINK, "sink".to_owned());
    sink.depends_on = vec![MATERIALIZED];
    let written = TopicSink {
        connection,
        topic: "out".to_owned(),
        partitions: None,
        replication: None,
        settings: Vec::new(),
        key: None,
        key_not_enforced: false,
        value: SinkFormatItem::Json,
        is_upsert: false,
        headers: None,
        partition_by: None,
        compression: "lz4".to_owned(),
        snapshot: true,
        transactional_id_prefix: None,
    };
    sink.kind = ItemKind::Sink(Sink {
        from: MATERIALIZED,
        kind: SinkItemKind::Kafka(Box::new(written)),
    });
    let changes = [source, sink].map(|item| CatalogChange::PutItem(Box::new(item)));
    catalog.apply(&changes).unwrap();
    catalog
}

fn state(status: SourceStatus) -> StatusState {
    StatusState {
        status,
        changed_at_ms: 3,
    }
}

fn held(rows: u64, errors: u64) -> CollectionStatistics {
    CollectionStatistics {
        rows,
        bytes: rows * 10,
        held: std::collections::BTreeMap::new(),
        errors,
        error: (errors > 0).then(|| "division by zero".to_owned()),
    }
}

/// Everything is well.
fn runtime() -> RuntimeState {
    let all = [FED, TABLE, MATERIALIZED, INDEX, OF_TABLE];
    RuntimeState {
        now_ms: 5_000,
        source_statuses: [SOURCE, FED]
            .map(|id| (id, state(SourceStatus::Running)))
            .into(),
        snapshot_committed: [FED].into(),
        hydrated: [MATERIALIZED, INDEX, OF_TABLE].map(|id| (id, true)).into(),
        collections: all.map(|id| (id, held(7, 0))).into(),
        frontiers: all.map(|id| (id, (Epoch(1), Epoch(4_000)))).into(),
        source_statistics: [(
            SOURCE,
            SourceStatistics {
                messages_received: 9,
                snapshot_records_known: Some(10),
                snapshot_records_staged: Some(4),
                offset_known: Some(SourcePosition::GeneratorTick(30)),
                offset_committed: Some(SourcePosition::GeneratorTick(10)),
                ..SourceStatistics::default()
            },
        )]
        .into(),
        ..RuntimeState::default()
    }
}

fn states(runtime: &RuntimeState) -> BTreeMap<ObjectId, ObjectState> {
    states_in(&catalog(), runtime)
}

fn states_in(catalog: &Catalog, runtime: &RuntimeState) -> BTreeMap<ObjectId, ObjectState> {
    let context = SystemContext {
        catalog,
        session: &SessionInfo::default(),
        runtime,
    };
    overview(&context)
        .into_iter()
        .map(|state| (state.id, state))
        .collect()
}

/// The rows of a relation of `mz_internal`.
fn rows(catalog: &Catalog, runtime: &RuntimeState, name: &str) -> RecordBatch {
    let context = SystemContext {
        catalog,
        session: &SessionInfo::default(),
        runtime,
    };
    system::rows(system::relation("mz_internal", name).unwrap(), &context).unwrap()
}

#[test]
fn what_is_well_runs_and_says_how_much_it_holds() {
    let states = states(&runtime());
    assert_eq!(
        states.keys().copied().collect::<Vec<_>>(),
        [SOURCE, FED, TABLE, MATERIALIZED, INDEX, OF_TABLE]
    );
    for state in states.values() {
        assert_eq!(state.status, Status::Running, "{}", state.name);
        assert_eq!((&state.error, &state.hint), (&None, &None));
        assert_eq!((state.rows, state.bytes), (Some(7), Some(70)));
        assert_eq!(
            (state.database.as_str(), state.schema.as_str()),
            ("materialize", "public")
        );
        let lag = (state.id != SOURCE).then_some(1_000);
        assert_eq!(state.lag_ms, lag, "{}", state.name);
    }
    assert_eq!(states[&SOURCE].kind, ObjectKind::Source("load-generator"));
    assert_eq!(states[&FED].parent, Some(SOURCE));
    assert_eq!(states[&INDEX].parent, Some(VIEW));
    assert_eq!(
        states[&INDEX].parent_name,
        Some(("public".to_owned(), "view".to_owned()))
    );
    let ingestion = states[&SOURCE].ingestion.clone().unwrap();
    assert_eq!(
        (ingestion.offset_lag, ingestion.offset_unit),
        (Some(20), "ticks")
    );
    assert_eq!(ingestion.messages_received, 9);
    assert_eq!(states[&TABLE].ingestion, None);
}

#[test]
fn a_snapshot_that_is_not_visible_is_being_read() {
    let mut runtime = runtime();
    runtime.snapshot_committed.clear();
    runtime.hydrated.insert(MATERIALIZED, false);
    runtime
        .source_statuses
        .insert(SOURCE, state(SourceStatus::Starting));
    let found = states(&runtime);
    assert_eq!(found[&SOURCE].status, Status::Snapshotting);
    let ingestion = found[&SOURCE].ingestion.clone().unwrap();
    assert_eq!(
        (ingestion.snapshot_staged, ingestion.snapshot_known),
        (Some(4), Some(10))
    );
    // Read to the end, but not in an observable epoch yet.
    assert_eq!(found[&FED].status, Status::Snapshotting);
    assert_eq!(found[&FED].lag_ms, None);
    assert_eq!(found[&MATERIALIZED].status, Status::Hydrating);
    runtime.source_statuses.clear();
    assert_eq!(states(&runtime)[&SOURCE].status, Status::Snapshotting);
    runtime
        .source_statuses
        .insert(SOURCE, state(SourceStatus::Starting));
    runtime.source_statistics.clear();
    assert_eq!(states(&runtime)[&SOURCE].status, Status::Starting);
    runtime.source_statuses.clear();
    assert_eq!(states(&runtime)[&SOURCE].status, Status::Created);
}

#[test]
fn what_is_made_from_a_stalled_source_is_stalled_and_says_why() {
    let mut runtime = runtime();
    runtime.source_statuses.insert(
        SOURCE,
        state(SourceStatus::Stalled {
            error: "connection refused".to_owned(),
            hint: Some("Start it.".to_owned()),
        }),
    );
    let states = states(&runtime);
    let source = &states[&SOURCE];
    assert_eq!(source.status, Status::Stalled);
    assert_eq!(source.error.as_deref(), Some("connection refused"));
    assert_eq!(source.hint.as_deref(), Some("Start it."));
    assert_eq!(source.status_since_ms, Some(3));
    for id in [MATERIALIZED, INDEX] {
        assert_eq!(states[&id].status, Status::Stalled);
        assert_eq!(
            states[&id].error.as_deref(),
            Some("source \"source\" has stalled")
        );
        assert_eq!(states[&id].lag_ms, Some(1_000), "it can be read");
    }
    assert_eq!(states[&OF_TABLE].status, Status::Running);
}

#[test]
fn what_is_in_a_paused_cluster_or_made_of_it_is_paused_and_says_why() {
    let mut catalog = catalog();
    let cluster = Cluster {
        id: ClusterId(2),
        name: "c".to_owned(),
        comment: None,
        kind: ClusterKind::Managed(ClusterSize::Cc25),
        replicas: Vec::new(),
    };
    let mut above = catalog.items[&OF_TABLE].clone();
    (above.id, above.name) = (ABOVE, "above".to_owned());
    above.depends_on = vec![MATERIALIZED];
    let changes = [
        CatalogChange::PutCluster(cluster),
        CatalogChange::PutItem(Box::new(above)),
        CatalogChange::PutItemCluster(MATERIALIZED, ClusterId(2)),
        // What a source reads does not stand still with its cluster.
        CatalogChange::PutItemCluster(SOURCE, ClusterId(2)),
    ];
    catalog.apply(&changes).unwrap();
    let mut runtime = runtime();
    runtime.hydrated.insert(ABOVE, true);
    runtime.frontiers.insert(ABOVE, (Epoch(1), Epoch(4_000)));
    let states = states_in(&catalog, &runtime);
    for id in [MATERIALIZED, ABOVE] {
        let state = &states[&id];
        assert_eq!(state.status, Status::Paused, "{}", state.name);
        assert_eq!(state.error.as_deref(), Some("cluster \"c\" is paused"));
        let hint = "ALTER CLUSTER c SET (REPLICATION FACTOR 1) lets it go on.";
        assert_eq!(state.hint.as_deref(), Some(hint));
        assert_eq!(state.lag_ms, None);
    }
    for id in [SOURCE, FED, INDEX, OF_TABLE] {
        assert_eq!(states[&id].status, Status::Running, "{}", states[&id].name);
    }
}

#[test]
fn errors_in_the_data_are_failures_with_their_text() {
    let mut runtime = runtime();
    runtime.collections.insert(OF_TABLE, held(7, 2));
    let states = states(&runtime);
    assert_eq!(states[&OF_TABLE].status, Status::Failed);
    assert_eq!(states[&OF_TABLE].data_errors, 2);
    assert_eq!(states[&OF_TABLE].error.as_deref(), Some("division by zero"));
    assert_eq!(states[&TABLE].status, Status::Running);
}

#[test]
fn a_source_of_a_topic_says_how_far_it_is_behind_in_each_partition() {
    let catalog = catalog_of_topics();
    let mut runtime = runtime();
    let mut read = |known: &[(i32, i64)], committed: &[(i32, i64)]| {
        let position = |offsets: &[(i32, i64)]| {
            Some(SourcePosition::KafkaOffsets(
                offsets.iter().copied().collect(),
            ))
        };
        let counted = runtime.source_statistics.get_mut(&SOURCE).unwrap();
        counted.offset_known = position(known);
        counted.offset_committed = position(committed);
        let states = states_in(&catalog, &runtime);
        let fed = states[&FED].ingestion.clone().unwrap();
        assert!(fed.partitions.is_empty(), "they are those of the source");
        let ingestion = states[&SOURCE].ingestion.clone().unwrap();
        assert_eq!(ingestion.offset_unit, "messages");
        let lags = ingestion.partitions.iter().map(PartitionState::lag);
        let lags: Vec<Option<u64>> = lags.collect();

        let rows = rows(&catalog, &runtime, "mz_kafka_source_partitions");
        let ids = rows["id"].as_string::<i32>().iter();
        assert!(ids.flatten().all(|id| id == SOURCE.to_string()));
        let partitions = rows["partition"].as_primitive::<Int32Type>();
        let listed = ingestion.partitions.iter().map(|state| state.partition);
        assert_eq!(partitions.values()[..], listed.collect::<Vec<_>>());
        let listed = rows["lag"].as_primitive::<UInt64Type>().iter();
        assert_eq!(listed.collect::<Vec<_>>(), lags);
        (lags, ingestion.offset_lag)
    };
    // What was read of one before it was known to be there does not make up for another.
    let lags = vec![Some(0), Some(40)];
    assert_eq!(
        read(&[(0, 10), (1, 100)], &[(0, 50), (1, 60)]),
        (lags, Some(40))
    );
    // A partition of which nothing is read, and one of whose end nothing is known.
    let lags = vec![Some(2), None, None];
    assert_eq!(read(&[(0, 10), (1, 7)], &[(0, 8), (2, 60)]), (lags, None));
    assert_eq!(read(&[], &[]), (vec![], Some(0)));
}

#[test]
fn a_sink_says_what_it_has_written_and_what_keeps_changes_from_it() {
    let catalog = catalog_of_topics();
    let mut runtime = runtime();
    let states = states_in(&catalog, &runtime);
    assert_eq!(states[&SINK].status, Status::Created);
    assert_eq!((states[&SINK].delivery, states[&SINK].lag_ms), (None, None));

    let written = SinkStatistics {
        messages: 3,
        bytes: 30,
        committed_epoch: Some(Epoch(2_999)),
    };
    runtime.sink_statistics.insert(SINK, written);
    let running = state(SourceStatus::Running);
    runtime.sink_statuses.insert(SINK, running);
    let states = states_in(&catalog, &runtime);
    let sink = &states[&SINK];
    assert_eq!(sink.kind, ObjectKind::Sink("kafka"));
    assert_eq!(sink.status, Status::Running);
    let of = ("public".to_owned(), "materialized".to_owned());
    assert_eq!(sink.parent_name, Some(of));
    assert_eq!((sink.delivery, sink.lag_ms), (Some(written), Some(2_000)));
    assert_eq!((sink.rows, sink.bytes), (None, None));
    let frontiers = rows(&catalog, &runtime, "mz_frontiers");
    let ids = frontiers["object_id"].as_string::<i32>().iter();
    assert_eq!(ids.flatten().last(), Some("u2009"));
    let upper = frontiers["write_frontier"].as_primitive::<UInt64Type>();
    assert_eq!(upper.values().last(), Some(&3_000));
    assert_eq!(frontiers["read_frontier"].null_count(), 1);
    let lags = rows(&catalog, &runtime, "mz_wallclock_global_lag");
    assert_eq!(lags.num_rows(), frontiers.num_rows());

    let stalled = |error: &str| {
        state(SourceStatus::Stalled {
            error: error.to_owned(),
            hint: None,
        })
    };
    runtime.source_statuses.insert(SOURCE, stalled("away"));
    let sink = states_in(&catalog, &runtime).remove(&SINK).unwrap();
    assert_eq!(sink.status, Status::Stalled);
    let trouble = "source \"source\" has stalled";
    assert_eq!(sink.error.as_deref(), Some(trouble));
    // Its own trouble says more.
    runtime.sink_statuses.insert(SINK, stalled("no broker"));
    let sink = states_in(&catalog, &runtime).remove(&SINK).unwrap();
    assert_eq!(sink.error.as_deref(), Some("no broker"));
    assert_eq!(sink.lag_ms, Some(2_000));
}
