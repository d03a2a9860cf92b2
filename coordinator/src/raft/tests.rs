//! openraft's own storage suite, and crashes of the real node.

use std::path::Path;

use flowstone_proto::message::{Failure, LoadGenerator, SinkBegin, SourceBinding};
use flowstone_sql::catalog::{
    Catalog, CatalogChange, Connection, Database, DatabaseId, Item, ItemKind, Sink, SinkItemKind,
    Source, SourceItemKind, StringOrSecret,
};
use flowstone_sql::connector::{SinkFormatItem, TopicSink};
use flowstone_types::{Epoch, ObjectId, SourcePosition};
use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::command::SealedSecret;
use super::format::BindingV3;
use super::log_store::LogStore;
use super::state::State;
use super::state_machine::StateMachine;
use super::*;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<u64>> {
        let directory = tempfile::tempdir().unwrap();
        let (log, _closed) = LogStore::open(&directory.path().join("log")).unwrap();
        let machine = StateMachine::open(&directory.path().join("snapshot")).unwrap();
        Ok((directory, log, machine))
    }
}

#[test]
fn storage_passes_the_suite_of_openraft() {
    Suite::test_all(Builder).unwrap();
}

async fn start(directory: &Path) -> (RaftNode, node::RaftTasks) {
    RaftNode::start(directory, [1; 16]).await.unwrap()
}

async fn stop(node: RaftNode, tasks: node::RaftTasks) {
    node.shutdown().await;
    drop(node);
    tasks.closed().await;
}

fn database(id: u64, name: &str) -> CatalogChange {
    CatalogChange::PutDatabase(Database {
        id: DatabaseId(id),
        oid: 30_000,
        name: name.to_owned(),
    })
}

fn catalog_change(state: &State, changes: Vec<CatalogChange>) -> Command {
    Command::CatalogChanges {
        changes,
        expected_version: state.catalog.version,
        secrets: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_proposed_is_there_after_a_restart_with_and_without_a_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let (node, tasks) = start(directory.path()).await;
    node.propose(catalog_change(&node.state(), vec![database(5_000, "a")]))
        .await
        .unwrap();
    node.propose(Command::PutSecret(SealedSecret {
        id: ObjectId::User(9),
        sealed: vec![1, 2],
    }))
    .await
    .unwrap();
    node.propose(Command::OracleBound { epoch: Epoch(77) })
        .await
        .unwrap();
    let before = node.state();
    stop(node, tasks).await;

    let (node, tasks) = start(directory.path()).await;
    assert_eq!(node.state(), before);
    node.trigger_snapshot().await.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !directory.path().join("raft-snapshot.bin").exists() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no snapshot was written"
        );
        tokio::task::yield_now().await;
    }
    node.propose(Command::OracleBound { epoch: Epoch(88) })
        .await
        .unwrap();
    stop(node, tasks).await;

    let (node, tasks) = start(directory.path()).await;
    assert_eq!(
        node.state(),
        State {
            oracle_bound: Epoch(88),
            ..before
        }
    );
    stop(node, tasks).await;
}

fn item(id: ObjectId, oid: u32, kind: ItemKind) -> Item {
    Item {
        id,
        oid,
        schema: *Catalog::initial().schemas.keys().next_back().unwrap(),
        name: format!("item_{id}"),
        create_sql: String::new(),
        depends_on: Vec::new(),
        comment: None,
        column_comments: std::collections::BTreeMap::new(),
        kind,
    }
}

#[test]
fn a_sink_begins_with_the_commit_point_at_which_it_was_made_until_it_writes_something_else() {
    let [table, other, sink] = [1, 2, 3].map(|id| ObjectId::User(9_000 + id));
    let put = |from: ObjectId| {
        let topic = TopicSink {
            connection: ObjectId::User(1),
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
            snapshot: false,
            transactional_id_prefix: None,
        };
        let kind = SinkItemKind::Kafka(Box::new(topic));
        let kind = ItemKind::Sink(Sink { from, kind });
        CatalogChange::PutItem(Box::new(item(sink, 40_001, kind)))
    };
    let begin = |collection, epoch, version| SinkBegin {
        collection,
        epoch: Epoch(epoch),
        version,
    };
    let mut state = State::default();
    state.commit_point.epoch = Epoch(10);
    state.commit_point.versions.insert(table, 4);
    let create = catalog_change(&state, vec![put(table)]);
    state.apply(&create).unwrap();
    assert_eq!(state.sink_begins[&sink], begin(table, 10, Some(4)));
    // Another name, say.
    state.commit_point.epoch = Epoch(20);
    state.commit_point.versions.insert(table, 5);
    let rename = catalog_change(&state, vec![put(table)]);
    state.apply(&rename).unwrap();
    assert_eq!(state.sink_begins[&sink], begin(table, 10, Some(4)));
    let alter = catalog_change(&state, vec![put(other)]);
    state.apply(&alter).unwrap();
    assert_eq!(state.sink_begins[&sink], begin(other, 20, None));
    let dropped = catalog_change(&state, vec![CatalogChange::DropItem(sink)]);
    state.apply(&dropped).unwrap();
    assert!(state.sink_begins.is_empty());
}

#[test]
fn a_source_that_goes_with_its_connection_leaves_what_its_slot_is_dropped_with() {
    let [secret, connection, source] = [1, 2, 3].map(|id| ObjectId::User(9_000 + id));
    let postgres = Connection::Postgres {
        host: "h".to_owned(),
        port: 5432,
        user: StringOrSecret::String("u".to_owned()),
        password: Some(secret),
        database: "d".to_owned(),
        ssl_mode: flowstone_proto::message::SslMode::Disable,
        ssl_root: None,
    };
    let sealed = SealedSecret {
        id: secret,
        sealed: vec![1, 2, 3],
    };
    let items = [
        item(secret, 40_001, ItemKind::Secret),
        item(connection, 40_002, ItemKind::Connection(postgres.clone())),
        item(
            source,
            40_003,
            ItemKind::Source(Source {
                kind: SourceItemKind::Postgres {
                    connection,
                    publication: "p".to_owned(),
                    slot: "s".to_owned(),
                },
                progress: None,
            }),
        ),
    ];
    let mut state = State::default();
    let create = Command::CatalogChanges {
        changes: items
            .into_iter()
            .map(|item| CatalogChange::PutItem(Box::new(item)))
            .collect(),
        expected_version: state.catalog.version,
        secrets: vec![sealed.clone()],
    };
    state.apply(&create).unwrap();
    let failure = Failure {
        message: "gone".to_owned(),
        hint: None,
    };
    let fail = |epoch, message: &str| Command::Fail {
        epoch: Epoch(epoch),
        failures: vec![(
            source,
            Failure {
                message: message.to_owned(),
                ..failure.clone()
            },
        )],
    };
    state.apply(&fail(5, "gone")).unwrap();
    state.apply(&fail(6, "another")).unwrap();
    // The first failure is what readers were told.
    assert_eq!(
        state.failures.get(&source),
        Some(&DurableFailure {
            epoch: Epoch(5),
            failure
        })
    );

    let drop = [source, connection, secret].map(CatalogChange::DropItem);
    let drop = catalog_change(&state, drop.to_vec());
    state.apply(&drop).unwrap();
    assert!(state.failures.is_empty() && state.secrets.is_empty());
    let slot = state::CleanupSlot {
        connection: postgres,
        secrets: vec![sealed],
        slot: "s".to_owned(),
    };
    let expected = [(source, Cleanup::Source(Some(slot)))];
    assert_eq!(state.cleanup, expected.into());
    state.apply(&Command::CleanedUp(source)).unwrap();
    assert!(state.cleanup.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_proposals_at_once_are_all_applied_and_share_entries() {
    let directory = tempfile::tempdir().unwrap();
    let (node, tasks) = start(directory.path()).await;
    let proposals = (1..=500).map(|epoch| {
        node.propose(Command::OracleBound {
            epoch: Epoch(epoch),
        })
    });
    for result in futures::future::join_all(proposals).await {
        result.unwrap();
    }
    assert_eq!(node.state().oracle_bound, Epoch(500));
    assert!(
        node.last_log_index().unwrap() < 250,
        "proposals that wait together are one entry"
    );
    stop(node, tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_planned_against_another_catalog_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (node, tasks) = start(directory.path()).await;
    let stale = catalog_change(&node.state(), vec![database(5_001, "b")]);
    node.propose(catalog_change(&node.state(), vec![database(5_000, "a")]))
        .await
        .unwrap();
    let before = node.state();
    assert!(matches!(
        node.propose(stale).await,
        Err(ProposeError::Refused(Refusal::CatalogMoved { .. }))
    ));
    assert_eq!(node.state(), before);
    stop(node, tasks).await;
}

#[test]
fn damaged_newer_and_locked_files_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("raft-log.redb");
    let (store, _closed) = LogStore::open(&log).unwrap();
    let locked = LogStore::open(&log).unwrap_err();
    assert!(matches!(&locked, OpenError::Locked { path } if path.contains("raft-log.redb")));
    drop(store);

    let other = directory.path().join("other.redb");
    std::fs::write(&other, vec![7; 8192]).unwrap();
    let damaged = LogStore::open(&other).unwrap_err();
    assert!(
        matches!(&damaged, OpenError::Damaged { path, .. } if path.contains("other.redb")),
        "{damaged:?}"
    );

    let snapshot = directory.path().join("raft-snapshot.bin");
    std::fs::write(&snapshot, b"FLOWSNAP\x09\0\0\0........").unwrap();
    assert!(matches!(
        StateMachine::open(&snapshot).unwrap_err(),
        OpenError::Newer { found: 9, .. }
    ));
    std::fs::write(&snapshot, b"FLOWSNAP\x01\0\0\0........").unwrap();
    assert!(matches!(
        StateMachine::open(&snapshot).unwrap_err(),
        OpenError::Damaged { .. }
    ));
}

#[test]
fn a_commit_point_takes_the_bindings_up_to_it() {
    let mut state = State::default();
    let mut source = None;
    // Any item will do as a source: the state only asks whether it exists.
    let schema = *state.catalog.schemas.keys().next().unwrap();
    for number in [1, 2] {
        let item = flowstone_sql::catalog::Item {
            id: ObjectId::User(number),
            oid: 40_000,
            schema,
            name: format!("i{number}"),
            create_sql: String::new(),
            depends_on: Vec::new(),
            comment: None,
            column_comments: std::collections::BTreeMap::new(),
            kind: flowstone_sql::catalog::ItemKind::Secret,
        };
        source = Some(item.id);
        let change = catalog_change(&state, vec![CatalogChange::PutItem(Box::new(item))]);
        state.apply(&change).unwrap();
    }
    let (source, table) = (source.unwrap(), ObjectId::User(1));
    let bind = |epoch, position, snapshots: Vec<ObjectId>| Command::Bind {
        epoch: Epoch(epoch),
        bindings: vec![SourceBinding {
            source,
            position: SourcePosition::PostgresLsn(position),
            snapshots,
        }],
    };
    state.apply(&bind(10, 1, vec![table])).unwrap();
    state.apply(&bind(20, 2, vec![])).unwrap();
    state.apply(&bind(30, 3, vec![])).unwrap();
    state
        .apply(&Command::CommitPoint {
            epoch: Epoch(20),
            versions: vec![(table, 4), (ObjectId::User(99), 1)],
        })
        .unwrap();
    assert_eq!(
        state.bindings.keys().copied().collect::<Vec<_>>(),
        [Epoch(30)]
    );
    assert_eq!(
        state.commit_point.positions.get(&source),
        Some(&SourcePosition::PostgresLsn(2))
    );
    assert_eq!(
        state.commit_point.versions.iter().collect::<Vec<_>>(),
        [(&table, &4)]
    );
    assert!(state.commit_point.snapshotted.contains(&table));
    assert!(state.apply(&bind(20, 9, vec![])).is_err());
    assert!(
        state
            .apply(&Command::CommitPoint {
                epoch: Epoch(19),
                versions: vec![]
            })
            .is_err()
    );
    let drop = catalog_change(&state, vec![CatalogChange::DropItem(source)]);
    state.apply(&drop).unwrap();
    assert!(state.bindings.values().all(Vec::is_empty) && state.commit_point.positions.is_empty());
}

/// The entries that the release before wrote have the bytes that [`Command::BindV3`] has; that its file says 3 is all the difference.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_format_3_is_read_and_its_positions_are_of_the_kinds_of_their_sources() {
    let directory = tempfile::tempdir().unwrap();
    let [postgres, generator] = [1, 2].map(|id| ObjectId::User(9_000 + id));
    let kinds = [
        SourceItemKind::Postgres {
            connection: ObjectId::User(1),
            publication: "p".to_owned(),
            slot: "s".to_owned(),
        },
        SourceItemKind::LoadGenerator {
            generator: LoadGenerator::Auction,
            tick_interval_ms: 1_000,
        },
    ];
    let sources = itertools::zip_eq([(postgres, 40_001), (generator, 40_002)], kinds);
    let changes = sources.map(|((id, oid), kind)| {
        let source = Source {
            kind,
            progress: None,
        };
        CatalogChange::PutItem(Box::new(item(id, oid, ItemKind::Source(source))))
    });
    let (node, tasks) = start(directory.path()).await;
    node.propose(catalog_change(&node.state(), changes.collect()))
        .await
        .unwrap();
    let binding = |source, position| BindingV3 {
        source,
        position,
        snapshots: Vec::new(),
    };
    node.propose(Command::BindV3 {
        epoch: Epoch(10),
        bindings: vec![binding(postgres, 300), binding(generator, 7)],
    })
    .await
    .unwrap();
    let before = node.state();
    stop(node, tasks).await;

    let format = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let log = redb::Database::open(directory.path().join("raft-log.redb")).unwrap();
    let transaction = log.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(format).unwrap();
        meta.insert("format", 3_u32.to_le_bytes().as_slice())
            .unwrap();
    }
    transaction.commit().unwrap();
    drop(log);

    let (node, tasks) = start(directory.path()).await;
    assert_eq!(node.state(), before);
    let positions: Vec<SourcePosition> = before.bindings[&Epoch(10)]
        .iter()
        .map(|binding| binding.position.clone())
        .collect();
    assert_eq!(
        positions,
        [
            SourcePosition::PostgresLsn(300),
            SourcePosition::GeneratorTick(7)
        ]
    );
    stop(node, tasks).await;
}

/// Writes a log with a few entries and closes it. Returns its bytes and the state that it leads to.
async fn filled_log(directory: &Path) -> (Vec<u8>, State) {
    let (node, tasks) = start(directory).await;
    for number in 0..40 {
        let change = database(5_000 + number, &format!("database {number}"));
        node.propose(catalog_change(&node.state(), vec![change]))
            .await
            .unwrap();
    }
    let state = node.state();
    stop(node, tasks).await;
    let bytes = std::fs::read(directory.join("raft-log.redb")).unwrap();
    (bytes, state)
}

/// The state that a log leads to; `None` if it is refused by name.
async fn state_of(directory: &Path, log: &[u8]) -> Option<State> {
    std::fs::write(directory.join("raft-log.redb"), log).unwrap();
    match RaftNode::start(directory, [1; 16]).await {
        Ok((node, tasks)) => {
            let state = node.state();
            stop(node, tasks).await;
            Some(state)
        }
        Err(error) => {
            assert!(error.to_string().contains("raft-log.redb"), "{error}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_refused_by_name_or_leads_to_the_same_state() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, state) = filled_log(directory.path()).await;
    assert_eq!(
        state_of(directory.path(), &bytes).await.as_ref(),
        Some(&state)
    );
    // Every byte of the header, which is short and matters most, and a spread over the pages, in use or not.
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let positions = (0..320).chain(used.iter().copied().step_by(used.len() / 160));
    let mut refused = 0;
    for at in positions {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        match state_of(directory.path(), &damaged).await {
            Some(found) => assert_eq!(found, state, "byte {at}"),
            None => refused += 1,
        }
    }
    assert!(refused > 100, "{refused} were refused");
    for length in (0..bytes.len()).step_by(bytes.len() / 24) {
        let found = state_of(directory.path(), &bytes[..length]).await;
        assert_eq!(found, None, "the first {length} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_log_or_snapshot_is_not_taken_for_a_new_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, state) = filled_log(directory.path()).await;
    let log = directory.path().join("raft-log.redb");
    std::fs::remove_file(&log).unwrap();
    let error = RaftNode::start(directory.path(), [1; 16])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged { path, .. } if path.contains("raft-log.redb")),
        "{error:?}"
    );
    assert_eq!(
        state_of(directory.path(), &bytes).await.as_ref(),
        Some(&state)
    );

    let (node, tasks) = start(directory.path()).await;
    node.trigger_snapshot().await.unwrap();
    let purged = async {
        while node.purged_log_index().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), purged)
        .await
        .expect("the log is cut behind the snapshot");
    stop(node, tasks).await;
    std::fs::remove_file(directory.path().join("raft-snapshot.bin")).unwrap();
    let error = RaftNode::start(directory.path(), [1; 16])
        .await
        .unwrap_err();
    assert!(
        matches!(&error, OpenError::Damaged { path, .. } if path.contains("raft-snapshot.bin")),
        "{error:?}"
    );
}
