//! Values that a table cannot hold, captured from a real server: each is an error of its row, from snapshot and stream alike, and goes with the row.

use flowstone_ingest::Error;
use flowstone_types::ObjectId;
use tokio_postgres::Client;

use super::server::{Server, execute, lsn};
use super::source::{Model, Running, SOURCE, Setup};

/// Takes everything that happened so far; returns up to where.
async fn catch_up(
    setup: &Setup,
    running: &mut Running,
    client: &Client,
    model: &mut Model,
    snapshots: Vec<ObjectId>,
) -> u64 {
    let position = running.progress(lsn(client).await).await;
    let taken = running.take(position, snapshots).await;
    model.apply(setup, taken).await;
    position
}

const PREPARE: &str = "\
    CREATE TABLE k (id int PRIMARY KEY, n numeric, big text NOT NULL, m numeric NOT NULL DEFAULT 0); ALTER TABLE k ALTER big SET STORAGE EXTERNAL; \
    INSERT INTO k SELECT g, g, repeat('k' || g, 5000) FROM generate_series(1, 3) g; \
    INSERT INTO k VALUES (4, 'NaN', repeat('four', 5000), 0), (5, 1e30, 'five', 0), (6, 6, 'six', 'Infinity'); \
    CREATE TABLE f (n numeric, at timestamp); ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO f VALUES ('NaN', NULL), ('NaN', NULL), (1, '294276-12-31'); \
    CREATE TABLE odd (key numeric PRIMARY KEY, v text); ALTER TABLE odd ALTER v SET STORAGE EXTERNAL; INSERT INTO odd VALUES ('NaN', repeat('n', 9000)), (0, 'zero'); \
    CREATE TABLE kinds (id int PRIMARY KEY, nested int[], bounds int[], big interval, j jsonb, deep numeric[]); \
    CREATE PUBLICATION p FOR ALL TABLES";

/// Each step, and the keys of `k` in error, the number of errors of `f`, those of `odd`, and the keys of `kinds` in error after it.
type Step = (
    &'static str,
    &'static [&'static str],
    usize,
    &'static [&'static str],
    &'static [&'static str],
);

const STEPS: &[Step] = &[
    ("SELECT 1", &["4", "5", "6"], 3, &["NaN"], &[]),
    // In the stream, and away again by a deletion, an update, and an update that leaves out what was never seen in the stream.
    (
        "INSERT INTO k VALUES (7, 'Infinity', 'seven'), (8, 8, 'eight'); DELETE FROM k WHERE id = 5",
        &["4", "6", "7"],
        3,
        &["NaN"],
        &[],
    ),
    (
        "UPDATE k SET n = 44 WHERE id = 4",
        &["6", "7"],
        3,
        &["NaN"],
        &[],
    ),
    (
        "UPDATE k SET n = 1e25 WHERE id = 1",
        &["1", "6", "7"],
        3,
        &["NaN"],
        &[],
    ),
    (
        "UPDATE k SET n = 1 WHERE id = 1; UPDATE k SET m = 2 WHERE id = 6; DELETE FROM k WHERE id = 7",
        &[],
        3,
        &["NaN"],
        &[],
    ),
    // Keys change, with values that are left out.
    (
        "UPDATE k SET n = 'NaN', id = 20 WHERE id = 2",
        &["20"],
        3,
        &["NaN"],
        &[],
    ),
    (
        "UPDATE k SET id = 21 WHERE id = 20",
        &["21"],
        3,
        &["NaN"],
        &[],
    ),
    (
        "UPDATE k SET id = 22, n = 2 WHERE id = 21",
        &[],
        3,
        &["NaN"],
        &[],
    ),
    // A transaction that ends well has no error; one that is rolled back neither.
    (
        "BEGIN; UPDATE k SET n = 'NaN'; UPDATE k SET n = id; COMMIT; BEGIN; UPDATE k SET n = 'NaN'; ROLLBACK",
        &[],
        3,
        &["NaN"],
        &[],
    ),
    // Without a key rows count.
    (
        "DELETE FROM f WHERE ctid = (SELECT min(ctid) FROM f WHERE n = 'NaN')",
        &[],
        2,
        &["NaN"],
        &[],
    ),
    (
        "UPDATE f SET at = '2024-01-01' WHERE n = 1; INSERT INTO f VALUES (1e-30, NULL), (2, NULL)",
        &[],
        2,
        &["NaN"],
        &[],
    ),
    (
        "UPDATE f SET n = 0 WHERE n = 'NaN' OR n = 1e-30",
        &[],
        0,
        &["NaN"],
        &[],
    ),
    // A key that cannot be held.
    (
        "UPDATE odd SET v = 'other' WHERE key = 'NaN'; UPDATE odd SET v = repeat('z', 9000) WHERE key = 0; INSERT INTO odd VALUES (1e30, repeat('o', 9000))",
        &[],
        0,
        &["1", "NaN"],
        &[],
    ),
    (
        "UPDATE odd SET key = 1 WHERE key = 'NaN'",
        &[],
        0,
        &["1"],
        &[],
    ),
    // The upstream leaves out a value that nobody has.
    (
        "UPDATE odd SET key = 2 WHERE key = 1e30",
        &[],
        0,
        &["2"],
        &[],
    ),
    ("UPDATE odd SET v = 'known' WHERE key = 2", &[], 0, &[], &[]),
    // Kinds of values.
    (
        "INSERT INTO kinds VALUES (1, '{{1,2},{3,4}}', NULL, NULL, NULL, NULL), (2, NULL, '[0:1]={1,2}', NULL, NULL, NULL), \
      (3, NULL, NULL, '3000000 hours', NULL, NULL), (4, NULL, NULL, NULL, '[1e400]', NULL), (5, NULL, NULL, NULL, NULL, '{1,NaN}'), \
      (6, '{1,2}', '{3}', '1 day', '[1]', '{1.5}')",
        &[],
        0,
        &[],
        &["1", "2", "3", "5"],
    ),
    ("TRUNCATE kinds", &[], 0, &[], &[]),
];

fn check(setup: &Setup, model: &Model, step: &Step) {
    let (sql, k, f, odd, kinds) = step;
    assert_eq!(model.errors, [], "no table fails");
    for (name, column, keys) in [("k", "id", k), ("odd", "key", odd), ("kinds", "id", kinds)] {
        let errors = model.row_errors(setup.id(name));
        assert_eq!(errors.len(), keys.len(), "{name} after {sql}: {errors:?}");
        for key in *keys {
            let key = format!(" of table \"public.{name}\", key ({column})=({key}");
            assert!(
                errors.iter().any(|error| error.contains(&key)),
                "{key} after {sql}: {errors:?}"
            );
        }
    }
    assert_eq!(model.row_errors(setup.id("f")).len(), *f, "after {sql}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_does_not_fit_is_an_error_of_its_row_and_goes_with_it_also_after_a_restart_from_any_cut()
 {
    let server = Server::start("");
    let client = server.client().await;
    execute(&client, PREPARE).await;
    let mut setup = Setup::new(&server).await;
    let mut running = setup.run().await;
    let snapshot = running.snapshot(setup.id("k")).await;
    let mut model = Model::default();
    let taken = running.take(snapshot, setup.tables()).await;
    model.apply(&setup, taken).await;
    running.handle.stop().await;
    // Nothing was committed: the snapshot brings its errors again.
    let mut running = setup.run().await;
    assert_eq!(running.handle.row_errors(), []);
    let mut again = Model::default();
    let taken = running.take(snapshot, setup.tables()).await;
    again.apply(&setup, taken).await;
    assert_eq!(again, model);
    let state = setup.dir.path().join("state");
    let file = state.join(format!("{SOURCE}-row-errors.json"));
    let older = std::fs::read(&file).unwrap();
    let mut cuts = Vec::new();
    for step in STEPS {
        for statement in step.0.split("; ") {
            execute(&client, statement).await;
        }
        let cut = catch_up(&setup, &mut running, &client, &mut model, Vec::new()).await;
        check(&setup, &model, step);
        cuts.push((cut, model.clone()));
    }
    assert_eq!(model.errors, [], "no table fails");
    let upstream = super::server::rows(&client, "SELECT * FROM k").await;
    let mut upstream: Vec<_> = upstream.into_iter().collect();
    upstream.sort();
    assert_eq!(model.rows(setup.id("k")), upstream);
    let mut upstream: Vec<_> = super::server::rows(&client, "SELECT * FROM f").await;
    upstream.sort();
    assert_eq!(model.rows(setup.id("f")), upstream);
    assert_eq!(model.rows(setup.id("odd")).len(), 3);
    running.handle.stop().await;
    // From each commit point: what is in error at once is what was, and what follows leads to the same.
    setup.description.snapshotted = setup.tables();
    for (number, ((from, before), step)) in itertools::zip_eq(&cuts, STEPS).enumerate() {
        setup.resume_from(*from);
        let mut running = setup.run().await;
        let mut again = before.clone();
        again.row_errors.clear();
        for (table, errors) in running.handle.row_errors() {
            again.add_row_errors(table, errors);
        }
        check(&setup, &again, step);
        // What is bound again after a restart is bound as it was.
        for ((cut, expected), step) in itertools::zip_eq(&cuts, STEPS).skip(number + 1) {
            let taken = running.take(*cut, Vec::new()).await;
            again.apply(&setup, taken).await;
            check(&setup, &again, step);
            assert_eq!(again, *expected, "after {}", step.0);
        }
        running.acknowledge(*from);
        running.handle.stop().await;
    }
    // Without the newest file of rows in error what stands in their place would be taken for values.
    let refused = async || match setup.try_run().await.map(drop) {
        Err(Error::Damaged { path, .. }) => assert_eq!(path, file),
        other => panic!("{other:?}"),
    };
    let newest = std::fs::read(&file).unwrap();
    std::fs::write(&file, older).unwrap();
    refused().await;
    std::fs::remove_file(&file).unwrap();
    refused().await;
    std::fs::write(&file, newest).unwrap();
    setup.run().await.handle.stop().await;
}
