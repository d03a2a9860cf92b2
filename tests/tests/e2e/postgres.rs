//! The PostgreSQL source against a real server: the documented steps, what upstream can do to its tables, outages, and every type.

use std::time::Duration;

use anyhow::{Context, Result};
use flowstone_tests::text::say;
use flowstone_tests::{Node, NodeOptions, Postgres, wait};
use futures::{StreamExt, pin_mut};
use tempfile::TempDir;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::wire::RawClient;

/// How long a change may take to arrive, and a state to be noticed. Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// A row as text.
type Row = Vec<Option<String>>;

/// A node beside a PostgreSQL server.
struct World {
    client: Client,
    upstream: Client,
    node: Node,
    postgres: Postgres,
    _dir: TempDir,
}

impl World {
    /// Starts both servers, runs `prepare` upstream and creates the connection.
    async fn start(prepare: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let postgres = Postgres::start(dir.path()).unwrap();
        let upstream = postgres.connect().await.unwrap();
        upstream.batch_execute(prepare).await.unwrap();
        let node = Node::start(dir.path(), 2).await.unwrap();
        let client = node.connect().await.unwrap();
        client
            .batch_execute("CREATE SECRET pgpass AS '<POSTGRES_PASSWORD>'")
            .await
            .unwrap();
        let world = Self {
            client,
            upstream,
            node,
            postgres,
            _dir: dir,
        };
        world
            .sql(&world.connection("pg_connection", "DATABASE 'postgres'", ""))
            .await;
        world
    }

    /// As [`World::start`], with a source on everything.
    async fn with_source(prepare: &str) -> Self {
        let world = Self::start(&format!(
            "{prepare}; CREATE PUBLICATION mz_source FOR ALL TABLES"
        ))
        .await;
        world.sql("CREATE SOURCE mz_source FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'mz_source') FOR ALL TABLES").await;
        world
    }

    fn connection(&self, name: &str, database: &str, with: &str) -> String {
        format!(
            "CREATE CONNECTION {name} TO POSTGRES (HOST '127.0.0.1', PORT {}, USER 'postgres', PASSWORD SECRET pgpass, {database}) {with}",
            self.postgres.port()
        )
    }

    async fn sql(&self, sql: &str) {
        self.client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {}", say(&error)));
    }

    async fn up(&self, sql: &str) {
        self.upstream
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("upstream: {sql}: {}", say(&error)));
    }

    /// The rows of a query that must work.
    async fn rows(&self, sql: &str) -> Vec<Row> {
        rows(&self.client, sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The error of a statement that must fail.
    async fn fails(&self, sql: &str) -> String {
        match rows(&self.client, sql).await {
            Ok(rows) => panic!("{sql} gives {rows:?}"),
            Err(error) => error,
        }
    }

    /// Waits until a query gives `expected`, one string per row, columns joined by `|`.
    async fn until(&self, sql: &str, expected: &[&str]) {
        wait::until(sql, DEADLINE, async || {
            let seen = lines(&rows(&self.client, sql).await?);
            if seen == expected {
                Ok(())
            } else {
                Err(format!("{seen:?} instead of {expected:?}"))
            }
        })
        .await
        .unwrap();
    }

    /// Waits until a query gives here what it gives upstream.
    async fn until_same(&self, sql: &str) {
        let expected = rows(&self.upstream, sql).await.unwrap();
        let expected = lines(&expected);
        self.until(
            sql,
            &expected.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
    }

    /// Waits until a query fails with an error that contains `text`.
    async fn until_fails(&self, sql: &str, text: &str) {
        wait::until(sql, DEADLINE, async || {
            match rows(&self.client, sql).await {
                Err(error) if error.contains(text) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }

    /// Waits until the object has this status and an error that contains `error`. Returns error and hints.
    async fn until_status(&self, name: &str, status: &str, error: &str) -> String {
        let sql = format!(
            "SELECT status, error, details::text FROM mz_internal.mz_source_statuses WHERE name = '{name}'"
        );
        wait::until(&format!("{name} to be {status}"), DEADLINE, async || {
            let seen = rows(&self.client, &sql).await?;
            let text = lines(&seen).join("\n");
            if text.starts_with(&format!("{status}|")) && text.contains(error) {
                Ok(text)
            } else {
                Err(text)
            }
        })
        .await
        .unwrap()
    }

    async fn slots(&self) -> Vec<Row> {
        rows(
            &self.upstream,
            "SELECT slot_name FROM pg_replication_slots WHERE NOT temporary",
        )
        .await
        .unwrap()
    }
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>, String> {
    let messages = client
        .simple_query(sql)
        .await
        .map_err(|error| say(&error))?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

fn lines(rows: &[Row]) -> Vec<String> {
    let line = |row: &Row| {
        row.iter()
            .map(|value| value.as_deref().unwrap_or("NULL"))
            .collect::<Vec<_>>()
            .join("|")
    };
    rows.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_steps_work() {
    let world = World::start(
        "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(10,2));
         CREATE TABLE purchases (id int PRIMARY KEY, item int, quantity int);
         INSERT INTO items VALUES (1, 'pen', 1.50), (2, 'ink', 4.00);
         INSERT INTO purchases VALUES (1, 1, 2), (2, 2, 1);
         CREATE PUBLICATION mz_source FOR TABLE items, purchases",
    )
    .await;
    world.sql("VALIDATE CONNECTION pg_connection").await;
    // From the documents, word by word.
    world
        .sql(
            "CREATE SOURCE mz_source
  FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'mz_source')
  FOR ALL TABLES;",
        )
        .await;
    // A query waits for the snapshot.
    assert_eq!(
        lines(&world.rows("SELECT * FROM items ORDER BY id").await),
        ["1|pen|1.50", "2|ink|4.00"]
    );
    let source = &world
        .rows("SELECT id FROM mz_sources WHERE name = 'mz_source'")
        .await[0][0]
        .clone()
        .unwrap();
    let items = &world
        .rows("SELECT id FROM mz_objects WHERE name = 'items'")
        .await[0][0]
        .clone()
        .unwrap();
    world
        .until(
            "SELECT
	o.name,
	s.snapshot_records_staged,
	s.snapshot_records_known,
	round(100.0 * s.snapshot_records_staged / NULLIF(s.snapshot_records_known, 0), 2) AS snapshot_completed_pct
FROM mz_internal.mz_source_statistics AS s
INNER JOIN mz_objects AS o ON (s.id = o.id)
WHERE NOT s.snapshot_committed;",
            &[],
        )
        .await;
    world
        .until(
            "SELECT name, snapshot_records_staged FROM mz_internal.mz_source_statistics JOIN mz_objects USING (id) ORDER BY name",
            &["items|2", "mz_source|4", "purchases|2"],
        )
        .await;
    let hydrated = world
        .rows(
            "SELECT
	s.name,
	h.hydrated
FROM mz_sources AS s
INNER JOIN mz_internal.mz_hydration_statuses AS h ON (s.id = h.object_id);",
        )
        .await;
    assert!(
        hydrated.iter().all(|row| row[1].as_deref() == Some("t")),
        "{hydrated:?}"
    );
    for name in ["mz_source", "items", "purchases"] {
        assert!(
            hydrated.iter().any(|row| row[0].as_deref() == Some(name)),
            "{name} is not in {hydrated:?}"
        );
        world.until_status(name, "running", "").await;
    }
    let status = world
        .rows(
            "SELECT * FROM mz_internal.mz_source_statuses
WHERE name = 'mz_source';",
        )
        .await;
    assert_eq!(
        (
            status[0][1].as_deref(),
            status[0][2].as_deref(),
            status[0][4].as_deref()
        ),
        (Some("mz_source"), Some("postgres"), Some("running"))
    );
    world
        .until(
            &format!(
                "SELECT snapshot_committed
FROM mz_internal.mz_source_statistics
WHERE id = '{source}';"
            ),
            &["t"],
        )
        .await;

    world.sql("CREATE VIEW revenue AS SELECT name, sum(quantity * price) AS total FROM purchases JOIN items ON item = items.id GROUP BY name").await;
    world
        .sql("CREATE INDEX revenue_by_name ON revenue (name)")
        .await;
    world
        .until(
            "SELECT * FROM revenue ORDER BY name",
            &["ink|4.00", "pen|3.00"],
        )
        .await;
    let subscriber = world.node.connect().await.unwrap();
    let none: [&(dyn ToSql + Sync); 0] = [];
    let changes = subscriber
        .query_raw(
            "SUBSCRIBE (SELECT name, total::text FROM revenue) WITH (SNAPSHOT = false)",
            none,
        )
        .await
        .unwrap();
    pin_mut!(changes);
    world
        .up("UPDATE purchases SET quantity = 3 WHERE id = 1")
        .await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let row = tokio::time::timeout(DEADLINE, changes.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        seen.push((
            row.get::<_, i64>("mz_diff"),
            row.get::<_, String>("name"),
            row.get::<_, String>("total"),
        ));
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            (-1, "pen".to_owned(), "3.00".to_owned()),
            (1, "pen".to_owned(), "4.50".to_owned())
        ]
    );

    world
        .until(
            "SELECT
	o.name,
	o.id,
	s.offset_committed,
	s.offset_known,
	s.offset_known - s.offset_committed AS offset_delta
FROM mz_internal.mz_source_statistics AS s
INNER JOIN mz_objects AS o ON (s.id = o.id)
WHERE s.snapshot_committed AND s.offset_committed < 0;",
            &[],
        )
        .await;
    wait::until(
        "the source to have nothing left to do",
        DEADLINE,
        async || {
            let lag = rows(
                &world.client,
                "SELECT
	o.name,
	o.id,
	s.offset_committed,
	s.offset_known,
	s.offset_known - s.offset_committed AS offset_delta
FROM mz_internal.mz_source_statistics AS s
INNER JOIN mz_objects AS o ON (s.id = o.id)
WHERE s.snapshot_committed;",
            )
            .await?;
            if lag.len() == 3 && lag.iter().all(|row| row[4].as_deref() == Some("0")) {
                Ok(())
            } else {
                Err(format!("{lag:?}"))
            }
        },
    )
    .await
    .unwrap();
    wait::until("the counters to move", DEADLINE, async || {
        let counters = rows(
            &world.client,
            &format!(
                "SELECT
    bytes_received,
    messages_received,
    updates_staged,
    updates_committed
FROM mz_internal.mz_source_statistics
WHERE id = '{source}';"
            ),
        )
        .await?;
        let counters: Vec<u64> = counters[0]
            .iter()
            .map(|value| value.as_deref().unwrap().parse().unwrap())
            .collect();
        if counters[0] > 0 && counters[1..] == [1, 5, 5] {
            Ok(())
        } else {
            Err(format!("{counters:?}"))
        }
    })
    .await
    .unwrap();
    assert_ne!(source, items);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_work_is_refused_with_the_reason() {
    let world = World::start("CREATE ROLE weak LOGIN").await;
    let error = world
        .fails(&world.connection("nowhere", "DATABASE 'nowhere'", ""))
        .await;
    assert!(
        error.contains("database \"nowhere\" does not exist") && error.contains("3D000"),
        "{error}"
    );
    world
        .sql(&world.connection("nowhere", "DATABASE 'nowhere'", "WITH (VALIDATE = false)"))
        .await;
    let error = world.fails("VALIDATE CONNECTION nowhere").await;
    assert!(
        error.contains("database \"nowhere\" does not exist"),
        "{error}"
    );
    world.sql("CREATE CONNECTION closed TO POSTGRES (HOST '127.0.0.1', PORT 1, USER 'postgres', DATABASE 'postgres') WITH (VALIDATE = false)").await;
    let error = world.fails("VALIDATE CONNECTION closed").await;
    assert!(
        error.contains("refused") && error.contains("08001"),
        "{error}"
    );
    let create = |what: &str| {
        format!(
            "CREATE SOURCE s FROM POSTGRES CONNECTION pg_connection (PUBLICATION '{what}') FOR ALL TABLES"
        )
    };
    let error = world.fails(&create("nothing")).await;
    assert!(
        error.contains("publication \"nothing\" does not exist")
            && error.contains("CREATE PUBLICATION nothing"),
        "{error}"
    );
    world.up("CREATE PUBLICATION empty").await;
    let error = world.fails(&create("empty")).await;
    assert!(error.contains("publication \"empty\" is empty"), "{error}");
    world
        .up("CREATE TABLE plain (a int); CREATE PUBLICATION plain FOR TABLE plain")
        .await;
    let error = world.fails(&create("plain")).await;
    assert!(
        error.contains("ALTER TABLE public.plain REPLICA IDENTITY FULL"),
        "{error}"
    );
    world.up("CREATE TABLE later (a int PRIMARY KEY DEFERRABLE); CREATE PUBLICATION later FOR TABLE later").await;
    let error = world.fails(&create("later")).await;
    assert!(
        error.contains("ALTER TABLE public.later REPLICA IDENTITY FULL"),
        "{error}"
    );
    assert!(
        world.slots().await.is_empty(),
        "a refused statement leaves nothing upstream"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_drains_tables_and_views() {
    let world = World::with_source(
        "CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (v int); ALTER TABLE b REPLICA IDENTITY FULL;
         INSERT INTO a SELECT i, i FROM generate_series(1, 1000) AS i; INSERT INTO b SELECT i % 10 FROM generate_series(1, 1000) AS i",
    )
    .await;
    world.sql("CREATE MATERIALIZED VIEW joined AS SELECT count(*) AS n, sum(a.v) AS s FROM a JOIN b ON a.v = b.v").await;
    world
        .until_same("SELECT count(*) AS n, sum(a.v) AS s FROM a JOIN b ON a.v = b.v")
        .await;
    assert_eq!(
        lines(&world.rows("SELECT * FROM joined").await),
        ["900|4500"]
    );
    world.up("BEGIN; INSERT INTO a VALUES (2000, 1); TRUNCATE a, b; INSERT INTO a VALUES (1, 7), (2, 8); INSERT INTO b VALUES (7); UPDATE a SET v = 9 WHERE id = 2; COMMIT").await;
    world.until("SELECT * FROM joined", &["1|7"]).await;
    world
        .until("SELECT * FROM a ORDER BY id", &["1|7", "2|9"])
        .await;
    world.up("TRUNCATE a").await;
    world.until("SELECT * FROM joined", &["0|NULL"]).await;
    world.up("DELETE FROM b").await;
    world.until("SELECT count(*) FROM b", &["0"]).await;
    world
        .up("INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1), (1)")
        .await;
    world.until("SELECT * FROM joined", &["2|2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_change_stops_only_the_table_it_breaks() {
    let mut world = World::with_source(
        "CREATE TABLE added (id int PRIMARY KEY, v int); CREATE TABLE lost (id int PRIMARY KEY, v int, extra int);
         CREATE TABLE retyped (id int PRIMARY KEY, v int); CREATE TABLE gone (id int PRIMARY KEY, v int); CREATE TABLE healthy (id int PRIMARY KEY, v int);
         INSERT INTO added VALUES (1, 1); INSERT INTO lost VALUES (1, 1, 1); INSERT INTO retyped VALUES (1, 1); INSERT INTO gone VALUES (1, 1);
         INSERT INTO healthy VALUES (1, 1)",
    )
    .await;
    world
        .sql("CREATE MATERIALIZED VIEW lost_view AS SELECT sum(v) FROM lost")
        .await;
    world.until("SELECT * FROM lost_view", &["1"]).await;
    world
        .up("ALTER TABLE added ADD COLUMN w int DEFAULT 5; INSERT INTO added VALUES (2, 2, 2)")
        .await;
    world
        .until("SELECT * FROM added ORDER BY id", &["1|1", "2|2"])
        .await;
    world.up("INSERT INTO lost VALUES (2, 2, 2); ALTER TABLE lost DROP COLUMN extra; INSERT INTO lost VALUES (3, 3)").await;
    let text = "incompatible schema change: column \"extra\" was dropped";
    world.until_status("lost", "failed", text).await;
    world.until_fails("SELECT * FROM lost", text).await;
    world.until_fails("SELECT * FROM lost_view", text).await;
    world
        .up("ALTER TABLE retyped ALTER COLUMN v TYPE bigint")
        .await;
    let text = "incompatible schema change: type of column \"v\" was changed";
    world.until_status("retyped", "failed", text).await;
    world.until_fails("SELECT * FROM retyped", text).await;
    world.up("DROP TABLE gone").await;
    world
        .until_status("gone", "failed", "table was dropped")
        .await;
    world
        .until_fails("SELECT * FROM gone", "table was dropped")
        .await;
    world.up("UPDATE healthy SET v = 2").await;
    world.until("SELECT * FROM healthy", &["1|2"]).await;
    world.until_status("mz_source", "running", "").await;
    world.until_status("healthy", "running", "").await;
    // Errors outlive a restart, and so does what is healthy.
    world.node.kill().unwrap();
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
    world.up("UPDATE healthy SET v = 3").await;
    world.until("SELECT * FROM healthy", &["1|3"]).await;
    world
        .until_fails("SELECT * FROM lost", "column \"extra\" was dropped")
        .await;
    world
        .until_fails("SELECT * FROM gone", "table was dropped")
        .await;
    // Dropped and added again, the table has its new columns.
    world.sql("DROP SOURCE lost CASCADE").await;
    world.sql("ALTER SOURCE mz_source ADD SUBSOURCE lost").await;
    world
        .until("SELECT * FROM lost ORDER BY id", &["1|1", "2|2", "3|3"])
        .await;
    world.up("INSERT INTO lost VALUES (4, 4)").await;
    world.until("SELECT count(*) FROM lost", &["4"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_leaves_the_publication_is_noticed() {
    let world = World::start(
        "CREATE TABLE stays (id int PRIMARY KEY); CREATE TABLE leaves (id int PRIMARY KEY); INSERT INTO stays VALUES (1); INSERT INTO leaves VALUES (1);
         CREATE PUBLICATION mz_source FOR TABLE stays, leaves",
    )
    .await;
    world.sql("CREATE SOURCE mz_source FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'mz_source') FOR ALL TABLES").await;
    world.until("SELECT * FROM leaves", &["1"]).await;
    world
        .up("ALTER PUBLICATION mz_source DROP TABLE leaves")
        .await;
    world
        .until_status(
            "leaves",
            "failed",
            "was removed from publication \"mz_source\"",
        )
        .await;
    world
        .until_fails("SELECT * FROM leaves", "was removed from publication")
        .await;
    world.up("INSERT INTO stays VALUES (2)").await;
    world.until("SELECT count(*) FROM stays", &["2"]).await;
}

/// Random text that PostgreSQL stores out of line and leaves out of updates.
const LONG: &str = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) AS i)";

#[tokio::test(flavor = "multi_thread")]
async fn values_that_updates_leave_out_are_kept() {
    let mut world = World::with_source(&format!(
        "CREATE TABLE keyed (id int PRIMARY KEY, n int, long text NOT NULL, other text);
         ALTER TABLE keyed ALTER COLUMN long SET STORAGE EXTERNAL, ALTER COLUMN other SET STORAGE EXTERNAL;
         CREATE TABLE whole (id int, n int, long text); ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole ALTER COLUMN long SET STORAGE EXTERNAL;
         INSERT INTO keyed SELECT i, i, i || {LONG}, i || {LONG} FROM generate_series(1, 40) AS i;
         INSERT INTO whole SELECT i % 5, 1, i % 5 || {LONG} FROM generate_series(1, 20) AS i"
    ))
    .await;
    let keyed = "SELECT id, n, md5(long), md5(other) FROM keyed ORDER BY id";
    let whole =
        "SELECT id, n, md5(long), count(*) FROM whole GROUP BY id, n, md5(long) ORDER BY 1, 2, 3";
    world.until_same(keyed).await;
    world.until_same(whole).await;
    for change in [
        "UPDATE keyed SET n = n + 1",
        "UPDATE whole SET n = n + 1 WHERE id < 3",
        // Keys change: the new key's shard may be the other one.
        "UPDATE keyed SET id = id + 1000",
        "UPDATE keyed SET id = id + 100, other = 'short' WHERE id < 1020",
        // Through several keys in one transaction.
        "BEGIN; UPDATE keyed SET id = -id; UPDATE keyed SET n = 0 WHERE id % 2 = 0; UPDATE keyed SET id = id - 1000000; UPDATE keyed SET n = n + 5; COMMIT",
        // A deletion just before an ordinary update is not a changed key.
        "BEGIN; DELETE FROM keyed WHERE id = (SELECT min(id) FROM keyed); UPDATE keyed SET n = 77 WHERE id = (SELECT max(id) FROM keyed); COMMIT",
        // A row that is new in the transaction, and one that takes over a key that became free.
        "BEGIN; INSERT INTO keyed SELECT 1, 1, 'new' || long, other FROM keyed LIMIT 1; UPDATE keyed SET id = 2 WHERE id = 1; \
         UPDATE keyed SET id = 1 WHERE id = (SELECT max(id) FROM keyed WHERE id < 0); COMMIT",
        "BEGIN; TRUNCATE whole; INSERT INTO whole SELECT id, n, long FROM keyed; UPDATE whole SET id = id + 1; COMMIT",
        "DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole)",
    ] {
        world.up(change).await;
        world.until_same(keyed).await;
        world.until_same(whole).await;
    }
    // What was kept is what is stored: the same after a crash.
    world.node.kill().unwrap();
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
    world.until_same(keyed).await;
    world.until_same(whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_of_a_table_without_key_are_counted() {
    let world = World::with_source(
        "CREATE TABLE bag (v int, w text); ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag SELECT i % 3, NULL FROM generate_series(1, 9) AS i;
         CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int); ALTER TABLE late REPLICA IDENTITY FULL; INSERT INTO late VALUES (1, 1), (2, 2), (3, 3)",
    )
    .await;
    let counts = "SELECT v, w, count(*) FROM bag GROUP BY v, w ORDER BY v, w";
    world.until_same(counts).await;
    for change in [
        "DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE v = 1)",
        "UPDATE bag SET v = 1 WHERE v = 2",
        "BEGIN; INSERT INTO bag VALUES (5, 'x'), (5, 'x'); DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE v = 5); COMMIT",
        "UPDATE bag SET w = 'x' WHERE v = 0",
        "DELETE FROM bag",
        "INSERT INTO bag VALUES (NULL, NULL), (NULL, NULL)",
        "DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag)",
    ] {
        world.up(change).await;
        world.until_same(counts).await;
    }
    // Keys that are checked at the end of a transaction may be doubled within it.
    let late = "SELECT * FROM late ORDER BY id";
    for change in [
        "UPDATE late SET id = id + 1",
        "UPDATE late SET id = 10 - id",
        "UPDATE late SET v = v * 2",
    ] {
        world.up(change).await;
        world.until_same(late).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_several_tables_is_never_seen_in_part() {
    let world = World::with_source(
        "CREATE TABLE debit (id int PRIMARY KEY, v bigint); CREATE TABLE credit (id int PRIMARY KEY, v bigint);
         INSERT INTO debit SELECT i, 100 FROM generate_series(1, 3000) AS i; INSERT INTO credit SELECT i, 0 FROM generate_series(1, 3000) AS i",
    )
    .await;
    world.sql("CREATE MATERIALIZED VIEW total AS SELECT (SELECT sum(v) FROM debit) + (SELECT sum(v) FROM credit) AS total").await;
    world.until("SELECT * FROM total", &["300000"]).await;
    let both = "SELECT (SELECT sum(v) FROM debit), (SELECT sum(v) FROM credit)";
    let reader = world.node.connect().await.unwrap();
    let sql = "SELECT (SELECT sum(v) FROM debit)::bigint + (SELECT sum(v) FROM credit)::bigint, (SELECT total FROM total)::bigint";
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let reads = tokio::spawn(async move {
        let mut reads = 0;
        while stopped.try_recv().is_err() {
            let row = reader.query_one(sql, &[]).await.unwrap();
            assert_eq!(
                (row.get::<_, i64>(0), row.get::<_, i64>(1)),
                (300_000, 300_000),
                "after {reads} reads"
            );
            reads += 1;
        }
        reads
    });
    for round in 1..=8 {
        world
            .up(&format!(
                "BEGIN; UPDATE debit SET v = v - {round}; UPDATE credit SET v = v + {round}; COMMIT"
            ))
            .await;
        for id in 1..=20 {
            world.up(&format!("BEGIN; UPDATE debit SET v = v - 1 WHERE id = {id}; UPDATE credit SET v = v + 1 WHERE id = {id}; COMMIT")).await;
        }
    }
    world.until_same(both).await;
    stop.send(()).unwrap();
    assert!(reads.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_upstream_stalls_and_heals() {
    let mut world = World::with_source(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)",
    )
    .await;
    world.until("SELECT * FROM t", &["1|1"]).await;
    world.until_status("mz_source", "running", "").await;
    world.postgres.stop().unwrap();
    let seen = world.until_status("mz_source", "stalled", "").await;
    assert!(!seen.starts_with("stalled|NULL"), "{seen}");
    world.until_status("mz_source", "stalled", "refused").await;
    // What is here can be read all the same.
    world.until("SELECT * FROM t", &["1|1"]).await;
    world.postgres.start_server().unwrap();
    world.upstream = world.postgres.connect().await.unwrap();
    world.until_status("mz_source", "running", "").await;
    world.up("UPDATE t SET v = 2").await;
    world.until("SELECT * FROM t", &["1|2"]).await;
    // A node that starts while upstream is away serves what it has, and goes on later.
    world.postgres.stop().unwrap();
    world.node.stop().await.unwrap();
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
    world.until_status("mz_source", "stalled", "refused").await;
    world.postgres.start_server().unwrap();
    world.upstream = world.postgres.connect().await.unwrap();
    world.up("UPDATE t SET v = 3").await;
    world.until("SELECT * FROM t", &["1|3"]).await;
    world.until_status("mz_source", "running", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_go_with_their_source_and_their_loss_is_final() {
    let world = World::with_source(
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)",
    )
    .await;
    world.until("SELECT * FROM t", &["1|1"]).await;
    let slots = world.slots().await;
    assert!(
        slots.len() == 1 && slots[0][0].as_deref().unwrap().starts_with("materialize_"),
        "{slots:?}"
    );
    assert_eq!(
        lines(
            &world
                .rows("SELECT replication_slot FROM mz_internal.mz_postgres_sources")
                .await
        ),
        lines(&slots)
    );
    world.sql("CREATE VIEW v AS SELECT * FROM t").await;
    let error = world.fails("DROP SOURCE mz_source").await;
    assert!(error.contains("depend"), "{error}");
    world.sql("DROP SOURCE mz_source CASCADE").await;
    let gone = async || match world.slots().await {
        slots if slots.is_empty() => Ok(()),
        slots => Err(format!("{slots:?}")),
    };
    wait::until("the slot to be dropped", DEADLINE, gone)
        .await
        .unwrap();
    assert_eq!(
        world
            .rows("SELECT * FROM mz_sources WHERE name IN ('mz_source', 't', 'mz_source_progress')")
            .await,
        Vec::<Row>::new()
    );

    world.sql("CREATE SOURCE mz_source FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'mz_source') FOR ALL TABLES").await;
    world.until("SELECT * FROM t", &["1|1"]).await;
    wait::until("the slot to be taken away", DEADLINE, async || {
        // The source may come back between the two.
        let drop = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active; SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
        world.upstream.batch_execute(drop).await.map_err(|error| say(&error))?;
        gone().await
    })
    .await
    .unwrap();
    let seen = world
        .until_status("mz_source", "failed", "does not exist")
        .await;
    assert!(
        seen.contains("Drop the source and create it again"),
        "{seen}"
    );
    world.sql("DROP SOURCE mz_source CASCADE").await;
    world.sql("CREATE SOURCE mz_source FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'mz_source') FOR ALL TABLES").await;
    world.up("UPDATE t SET v = 5").await;
    world.until("SELECT * FROM t", &["1|5"]).await;

    // Dropped while upstream is away, the slot goes when upstream is back.
    world.postgres.stop().unwrap();
    world.sql("DROP SOURCE mz_source CASCADE").await;
    world.postgres.start_server().unwrap();
    let upstream = world.postgres.connect().await.unwrap();
    wait::until(
        "the slot to be dropped late",
        DEADLINE,
        async || match rows(&upstream, "SELECT slot_name FROM pg_replication_slots").await? {
            slots if slots.is_empty() => Ok(()),
            slots => Err(format!("{slots:?}")),
        },
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_other_identities_are_followed() {
    let world = World::start(
        "CREATE TABLE parted (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a'); CREATE TABLE parted_b PARTITION OF parted FOR VALUES IN ('b');
         CREATE TABLE indexed (a int NOT NULL, b text, c text); CREATE UNIQUE INDEX by_a ON indexed (a); ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_a;
         CREATE TABLE filtered (id int PRIMARY KEY, v int); CREATE TABLE \"Odd Name\" (\"Id\" int PRIMARY KEY, \"v w\" text);
         INSERT INTO parted VALUES (1, 'a', 1), (2, 'b', 2); INSERT INTO indexed VALUES (1, 'x', NULL); INSERT INTO \"Odd Name\" VALUES (1, 'q');
         CREATE PUBLICATION root FOR TABLE parted, indexed, \"Odd Name\", filtered (id) WITH (publish_via_partition_root);
         CREATE PUBLICATION leaves FOR TABLE parted",
    )
    .await;
    world.sql("CREATE SOURCE whole FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'root') FOR ALL TABLES").await;
    world.sql("CREATE SOURCE parts FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'leaves') FOR ALL TABLES").await;
    let all = [
        "SELECT * FROM parted ORDER BY id",
        "SELECT * FROM parted_a ORDER BY id",
        "SELECT * FROM parted_b ORDER BY id",
        "SELECT * FROM indexed ORDER BY a",
    ];
    for change in [
        "SELECT 1",
        "INSERT INTO parted VALUES (3, 'a', 3); INSERT INTO indexed VALUES (2, 'y', 'z')",
        "UPDATE parted SET region = 'b' WHERE id = 1; UPDATE indexed SET a = a + 10",
        "DELETE FROM parted WHERE id = 2; DELETE FROM indexed WHERE a = 11",
        "UPDATE parted SET v = v * 2; UPDATE indexed SET b = NULL",
    ] {
        world.up(change).await;
        for sql in all {
            world.until_same(sql).await;
        }
    }
    world
        .up("INSERT INTO filtered VALUES (1, 1); UPDATE \"Odd Name\" SET \"v w\" = 'r'")
        .await;
    world.until("SELECT * FROM filtered", &["1"]).await;
    world
        .until_same("SELECT \"Id\", \"v w\" FROM \"Odd Name\"")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_columns_can_be_chosen() {
    let world = World::start(
        "CREATE SCHEMA sales; CREATE SCHEMA stock; CREATE TYPE mood AS ENUM ('sad', 'happy');
         CREATE TABLE sales.orders (id int PRIMARY KEY, feeling mood, place point, v int); CREATE TABLE sales.lines (id int PRIMARY KEY);
         CREATE TABLE stock.parts (id int PRIMARY KEY, note text); CREATE TABLE public.orders (id int PRIMARY KEY);
         INSERT INTO sales.orders VALUES (1, 'happy', '(1,2)', 10); INSERT INTO sales.lines VALUES (1); INSERT INTO stock.parts VALUES (1, 'x');
         INSERT INTO public.orders VALUES (77); CREATE PUBLICATION p FOR ALL TABLES",
    )
    .await;
    let create = |name: &str, options: &str, tables: &str| {
        format!(
            "CREATE SOURCE {name} FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'p'{options}) {tables}"
        )
    };
    let error = world.fails(&create("s", "", "FOR ALL TABLES")).await;
    assert!(
        error.contains("multiple subsources would be named \"orders\""),
        "{error}"
    );
    let error = world
        .fails(&create("s", "", "FOR TABLES (sales.orders)"))
        .await;
    assert!(
        error.contains("columns with unsupported types: sales.orders.feeling, sales.orders.place")
            && error.contains("TEXT COLUMNS"),
        "{error}"
    );
    let error = world.fails(&create("s", "", "FOR TABLES (nothing)")).await;
    assert!(
        error.contains("reference to nothing not found in source"),
        "{error}"
    );
    let error = world
        .fails(&create(
            "s",
            ", TEXT COLUMNS (sales.orders.nothing)",
            "FOR SCHEMAS (sales)",
        ))
        .await;
    assert!(
        error.contains("column sales.orders.nothing not found"),
        "{error}"
    );

    world
        .sql(&create(
            "s",
            ", TEXT COLUMNS (sales.orders.feeling), EXCLUDE COLUMNS (sales.orders.place)",
            "FOR SCHEMAS (sales)",
        ))
        .await;
    world.until("SELECT * FROM orders", &["1|happy|10"]).await;
    world
        .up("UPDATE sales.orders SET feeling = 'sad', place = '(3,4)'")
        .await;
    world.until("SELECT * FROM orders", &["1|sad|10"]).await;
    world.until("SELECT * FROM lines", &["1"]).await;
    world
        .sql(&create(
            "t",
            "",
            "FOR TABLES (public.orders AS public_orders, stock.parts) EXPOSE PROGRESS AS t_lsn",
        ))
        .await;
    world.until("SELECT * FROM public_orders", &["77"]).await;
    world.until("SELECT * FROM parts", &["1|x"]).await;
    world.until("SELECT lsn > 0 FROM t_lsn", &["t"]).await;

    // A source without tables, and the same upstream table in two shapes.
    world.sql(&create("u", "", "")).await;
    world.sql("CREATE TABLE one FROM SOURCE u (REFERENCE sales.orders) WITH (TEXT COLUMNS (feeling, place))").await;
    world.sql("CREATE TABLE two FROM SOURCE u (REFERENCE sales.orders) WITH (EXCLUDE COLUMNS (feeling, place))").await;
    world.until("SELECT * FROM one", &["1|sad|(3,4)|10"]).await;
    world.until("SELECT * FROM two", &["1|10"]).await;
    world.up("UPDATE sales.orders SET v = 11").await;
    world
        .until(
            "SELECT one.v, two.v FROM one JOIN two USING (id)",
            &["11|11"],
        )
        .await;
    // A column that is not captured may go.
    world
        .up("ALTER TABLE sales.orders DROP COLUMN place; UPDATE sales.orders SET v = 12")
        .await;
    world.until("SELECT * FROM two", &["1|12"]).await;
    world
        .until_status("one", "failed", "column \"place\" was dropped")
        .await;
    world.sql("DROP TABLE one").await;
    world
        .sql("ALTER SOURCE s ADD SUBSOURCE stock.parts AS more_parts")
        .await;
    world.until("SELECT * FROM more_parts", &["1|x"]).await;
    world
        .up("INSERT INTO stock.parts VALUES (2, 'y'); INSERT INTO sales.lines VALUES (2)")
        .await;
    world
        .until("SELECT * FROM more_parts ORDER BY id", &["1|x", "2|y"])
        .await;
    world.until("SELECT count(*) FROM lines", &["2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_moves_and_subsources_go_one_by_one() {
    let world = World::with_source("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a VALUES (1)").await;
    world.until("SELECT * FROM a", &["1"]).await;
    let lsn = async |world: &World| -> Result<u64> {
        let rows = world.rows("SELECT lsn FROM mz_source_progress").await;
        Ok(rows
            .first()
            .and_then(|row| row[0].clone())
            .context("no progress")?
            .parse()?)
    };
    let before = lsn(&world).await.unwrap();
    world.up("INSERT INTO a VALUES (2)").await;
    wait::until("progress to move", DEADLINE, async || {
        match lsn(&world).await {
            Ok(now) if now > before => Ok(()),
            other => Err(format!("{other:?} after {before}")),
        }
    })
    .await
    .unwrap();
    world.sql("DROP SOURCE b").await;
    let error = world.fails("SELECT * FROM b").await;
    assert!(error.contains("b") && error.contains("42P01"), "{error}");
    world
        .up("INSERT INTO b VALUES (1); INSERT INTO a VALUES (3)")
        .await;
    world.until("SELECT count(*) FROM a", &["3"]).await;
    world.sql("ALTER SOURCE mz_source ADD SUBSOURCE b").await;
    world.until("SELECT * FROM b", &["1"]).await;
    world.up("INSERT INTO b VALUES (2)").await;
    world.until("SELECT count(*) FROM b", &["2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_read_as_upstream() {
    // Columns, their types, and rows that are told once by the snapshot and once by the stream.
    let types = [
        ("bool", "true", "false"),
        ("bpchar", "'xy  '", "''"),
        ("char(5)", "'ab'", "'ü'"),
        ("bytea", "'\\x00deadbeef'", "''"),
        ("\"char\"", "'q'", "''"),
        ("date", "'2024-02-29'", "'0044-03-15 BC'"),
        ("float4", "1.1", "'NaN'"),
        ("float8", "1e-300", "'-Infinity'"),
        ("int2", "-32768", "32767"),
        ("int4", "-2147483648", "0"),
        ("int8", "-9223372036854775808", "9223372036854775807"),
        (
            "interval",
            "'1 year 2 mons 3 days 04:05:06.789'",
            "'-1 mons +2 days -00:00:01'",
        ),
        (
            "jsonb",
            "'{\"b\": 1.5, \"a\": {\"c\": [true, null, \"ü\\n\"]}}'",
            "'null'",
        ),
        ("name", "'n'", "''"),
        ("numeric", "12345678901234567890.12345", "0"),
        ("numeric(10,2)", "-12345678.9", "0"),
        ("oid", "4294967295", "0"),
        ("text", "E'tab\\tnew\\nline \"q\" \\\\ ü'", "''"),
        ("time", "'23:59:59.999999'", "'00:00:00'"),
        (
            "timestamp",
            "'2024-01-02 03:04:05.678901'",
            "'0001-01-01 00:00:00 BC'",
        ),
        (
            "timestamp(3)",
            "'2024-01-02 03:04:05.678'",
            "'1969-12-31 23:59:59.999'",
        ),
        (
            "timestamptz",
            "'2024-01-02 03:04:05.678901+02'",
            "'infinity'",
        ),
        (
            "uuid",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'00000000-0000-0000-0000-000000000000'",
        ),
        ("varchar", "'vc'", "''"),
        ("varchar(5)", "'five5'", "''"),
        ("bool[]", "'{t,f,NULL}'", "'{}'"),
        ("char(3)[]", "'{a,bcd}'", "'{}'"),
        ("bytea[]", "'{\"\\\\x00ff\",NULL}'", "'{}'"),
        ("date[]", "'{2024-01-01}'", "'{}'"),
        ("float4[]", "'{1.5,NaN}'", "'{}'"),
        ("float8[]", "'{1e300,-0.5}'", "'{}'"),
        ("int2[]", "'{1,2}'", "'{}'"),
        ("int4[]", "'{1,NULL,3}'", "'{}'"),
        ("int8[]", "'{9223372036854775807}'", "'{}'"),
        ("interval[]", "'{\"1 day\",\"00:00:01\"}'", "'{}'"),
        (
            "jsonb[]",
            "ARRAY['{\"a\": [1, \"x\"]}'::jsonb, '\"q\"']",
            "'{}'",
        ),
        ("numeric[]", "'{1.5,2}'", "'{}'"),
        ("numeric(8,3)[]", "'{1.1,2}'", "'{}'"),
        ("oid[]", "'{1,4294967295}'", "'{}'"),
        (
            "text[]",
            "ARRAY['', 'NULL', 'a b', 'a,b', '{x}', '\"q\"', E'b\\\\s', NULL, 'ü']",
            "'{}'",
        ),
        ("time[]", "'{12:00:00}'", "'{}'"),
        ("timestamp[]", "'{\"2024-01-02 03:04:05\"}'", "'{}'"),
        ("timestamptz[]", "'{\"2024-01-02 03:04:05+00\"}'", "'{}'"),
        ("uuid[]", "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'", "'{}'"),
        ("varchar[]", "'{x,\"\"}'", "'{}'"),
    ];
    let columns = itertools::join(
        types
            .iter()
            .enumerate()
            .map(|(number, (name, ..))| format!("v{number} {name}")),
        ", ",
    );
    let first = itertools::join(types.iter().map(|(_, value, _)| value), ", ");
    let second = itertools::join(types.iter().map(|(.., value)| value), ", ");
    let world = World::with_source(&format!(
        "SET timezone = 'UTC'; CREATE TABLE t (id int PRIMARY KEY, {columns}); INSERT INTO t VALUES (1, {first}), (2, {second}); INSERT INTO t VALUES (3)"
    ))
    .await;
    world.until_same("SELECT * FROM t ORDER BY id").await;
    world.up(&format!("INSERT INTO t VALUES (4, {first}), (5, {second}); INSERT INTO t VALUES (6); UPDATE t SET id = id + 10")).await;
    world.until_same("SELECT * FROM t ORDER BY id").await;
    // As text by our own casts too. The cast of a bpchar without a length keeps its blanks here.
    let texts = itertools::join(
        (0..types.len())
            .filter(|number| *number != 1)
            .map(|number| format!("v{number}::text")),
        ", ",
    );
    world
        .until_same(&format!("SELECT {texts} FROM t ORDER BY id"))
        .await;
    // Binary results are what the driver expects of these types.
    let row = world
        .client
        .query_one("SELECT v0, v9, v10, v17, v32 FROM t WHERE id = 11", &[])
        .await
        .unwrap();
    assert_eq!(
        (
            row.get::<_, bool>(0),
            row.get::<_, i32>(1),
            row.get::<_, i64>(2)
        ),
        (true, i32::MIN, i64::MIN)
    );
    assert_eq!(row.get::<_, Vec<Option<i32>>>(4), [Some(1), None, Some(3)]);
}

/// Kills the node while the upstream is changed by `upstream`, and starts it again.
async fn kill_and(world: &mut World, upstream: &str) {
    world.node.kill().unwrap();
    wait::until("the slot to be let go", DEADLINE, async || {
        match rows(
            &world.upstream,
            "SELECT 1 FROM pg_replication_slots WHERE active",
        )
        .await?
        {
            active if active.is_empty() => Ok(()),
            active => Err(format!("{active:?}")),
        }
    })
    .await
    .unwrap();
    world.up(upstream).await;
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
}

/// The queries fail, all with the same message, now and after any number of restarts. Returns the message.
async fn fail_for_good(world: &mut World, queries: &[&str], text: &str) -> String {
    let [first, ..] = queries else {
        panic!("no query")
    };
    world.until_fails(first, text).await;
    let said = world.fails(first).await;
    for query in queries {
        world.until_fails(query, text).await;
        assert_eq!(world.fails(query).await, said, "{query}");
    }
    for round in 0..3 {
        if round == 1 {
            world.node.stop().await.unwrap();
        } else {
            world.node.kill().unwrap();
        }
        world.node.restart().await.unwrap();
        world.client = world.node.connect().await.unwrap();
        // At once, not only when the source has looked again.
        for query in queries {
            assert_eq!(world.fails(query).await, said, "round {round}: {query}");
        }
    }
    said
}

const TWO_TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT g, g FROM generate_series(1, 1000) AS s (g);
     CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)";

const READS_OF_T: [&str; 4] = [
    "SELECT count(*) FROM t",
    "SELECT v FROM t WHERE id = 7",
    "SELECT n FROM counts",
    "SELECT count(*) FROM t JOIN other USING (id)",
];

async fn with_views_over_t() -> World {
    let world = World::with_source(TWO_TABLES).await;
    world
        .sql("CREATE MATERIALIZED VIEW counts AS SELECT count(*) AS n FROM t; CREATE INDEX by_id ON t (id)")
        .await;
    world.until("SELECT n FROM counts", &["1000"]).await;
    world.until("SELECT * FROM other", &["1"]).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_lost_while_the_node_is_down_is_a_failure_for_good() {
    let mut world = with_views_over_t().await;
    world
        .up("INSERT INTO t SELECT g, g FROM generate_series(1001, 1100) AS s (g)")
        .await;
    world.until("SELECT n FROM counts", &["1100"]).await;
    kill_and(
        &mut world,
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
    )
    .await;
    fail_for_good(&mut world, &READS_OF_T, "does not exist").await;
    fail_for_good(&mut world, &["SELECT * FROM other"], "does not exist").await;
    for name in ["mz_source", "t"] {
        let seen = world.until_status(name, "failed", "does not exist").await;
        assert!(
            seen.contains("Drop the source and create it again"),
            "{seen}"
        );
    }
    // A slot of the same name that begins later does not bring back what was lost.
    let slot = lines(
        &world
            .rows("SELECT replication_slot FROM mz_internal.mz_postgres_sources")
            .await,
    );
    let create = format!(
        "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')",
        slot[0]
    );
    kill_and(&mut world, &create).await;
    fail_for_good(&mut world, &READS_OF_T, "does not exist").await;
    world.sql("DROP SOURCE mz_source CASCADE").await;
    world.sql("CREATE SOURCE mz_source FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'mz_source') FOR ALL TABLES").await;
    world.until("SELECT count(*) FROM t", &["1100"]).await;
    world.until_status("mz_source", "running", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_gone_is_a_failure_for_good() {
    let mut world = with_views_over_t().await;
    kill_and(
        &mut world,
        "DROP PUBLICATION mz_source; INSERT INTO t VALUES (5000, 1)",
    )
    .await;
    fail_for_good(&mut world, &READS_OF_T[..3], "mz_source").await;
    kill_and(&mut world, "CREATE PUBLICATION mz_source FOR ALL TABLES").await;
    fail_for_good(&mut world, &READS_OF_T[..3], "mz_source").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_fails_stays_failed_and_the_others_go_on() {
    for (change, text) in [
        ("DROP TABLE t", "was dropped"),
        (
            "ALTER TABLE t DROP COLUMN v; INSERT INTO t VALUES (5000)",
            "incompatible schema change",
        ),
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t ALTER v TYPE text; INSERT INTO t VALUES (5000, 'x')",
            "incompatible schema change",
        ),
    ] {
        let mut world = with_views_over_t().await;
        kill_and(&mut world, change).await;
        fail_for_good(&mut world, &READS_OF_T, text).await;
        world.up("INSERT INTO other VALUES (2)").await;
        world
            .until("SELECT id FROM other ORDER BY id", &["1", "2"])
            .await;
        world.until_status("t", "failed", text).await;
        world.until_status("other", "running", "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dropped_source_leaves_upstream_is_removed_after_kills_and_outages() {
    let mut world = with_views_over_t().await;
    let data = world._dir.path().join("data");
    let left = |id: &str| {
        let files = std::fs::read_dir(data.join("sources")).unwrap();
        let mut left: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(&format!("{id}-")))
            .collect();
        left.extend(data.join("delta").join(id).exists().then(|| id.to_owned()));
        left
    };
    let ids = lines(
        &world
            .rows("SELECT id FROM mz_objects WHERE name IN ('mz_source', 't', 'other', 'counts', 'mz_source_progress')")
            .await,
    );
    assert!(ids.iter().any(|id| !left(id).is_empty()));
    world.postgres.stop().unwrap();
    // The connection and its secret go as well: what is needed is kept with the work.
    world
        .sql("DROP SOURCE mz_source CASCADE; DROP CONNECTION pg_connection; DROP SECRET pgpass")
        .await;
    for _ in 0..2 {
        world.node.kill().unwrap();
        world.node.restart().await.unwrap();
    }
    world.postgres.start_server().unwrap();
    world.upstream = world.postgres.connect().await.unwrap();
    wait::until("everything to be cleaned up", DEADLINE, async || {
        let left: Vec<String> = ids.iter().flat_map(|id| left(id)).collect();
        let slots = world.slots().await;
        (left.is_empty() && slots.is_empty())
            .then_some(())
            .ok_or_else(|| format!("{left:?} {slots:?}"))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_dropped_right_before_a_kill_leaves_nothing() {
    for _ in 0..3 {
        let mut world = with_views_over_t().await;
        world.sql("DROP SOURCE mz_source CASCADE").await;
        world.node.kill().unwrap();
        world.node.restart().await.unwrap();
        let delta = world._dir.path().join("data").join("delta");
        wait::until("everything to be cleaned up", DEADLINE, async || {
            let slots = world.slots().await;
            let left = std::fs::read_dir(&delta).unwrap().count();
            (left == 0 && slots.is_empty())
                .then_some(())
                .ok_or_else(|| format!("{left} tables, {slots:?}"))
        })
        .await
        .unwrap();
    }
}

/// A world after a kill that left something of its source bound and not committed, with upstream away.
async fn held_up() -> World {
    let mut world = World::with_source(
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'one')",
    )
    .await;
    world
        .sql(
            "CREATE TABLE here (id int, v text);
             INSERT INTO here VALUES (1, 'here');
             CREATE MATERIALIZED VIEW joined AS SELECT a.id, a.v || here.v AS v FROM a JOIN here USING (id);
             CREATE MATERIALIZED VIEW own AS SELECT count(*) AS n FROM here",
        )
        .await;
    world.until("SELECT * FROM joined", &["1|onehere"]).await;
    world.node.stop().await.unwrap();
    // Nothing is committed any more: what is bound from now on is to be run again.
    let options = NodeOptions {
        environment: vec![(
            "FLOWSTONE_FAILPOINTS".to_owned(),
            "delta-commit.write=full@1x1000000".to_owned(),
        )],
        ..NodeOptions::default()
    };
    world.node = Node::start_with(world._dir.path(), 2, options)
        .await
        .unwrap();
    world.client = world.node.connect().await.unwrap();
    world.up("INSERT INTO a VALUES (2, 'two')").await;
    world.sql("INSERT INTO here VALUES (2, 'here')").await;
    world
        .until(
            "SELECT * FROM joined ORDER BY id",
            &["1|onehere", "2|twohere"],
        )
        .await;
    world.node.kill().unwrap();
    world.postgres.stop().unwrap();
    world.node = Node::start(world._dir.path(), 2).await.unwrap();
    world.client = world.node.connect().await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_away_after_a_kill_holds_up_its_tables_and_nothing_else() {
    let mut world = held_up().await;
    for rows in [3, 4] {
        world
            .sql(&format!("INSERT INTO here VALUES ({rows}, 'here')"))
            .await;
        assert_eq!(
            lines(&world.rows("SELECT n FROM own").await),
            [rows.to_string()]
        );
        world
            .sql(&format!(
                "CREATE TABLE more{rows} (id int); INSERT INTO more{rows} SELECT id FROM here"
            ))
            .await;
        world.until_status("mz_source", "stalled", "refused").await;
        // Who reads it is told for what it waits.
        let mut raw = RawClient::connect(&world.node).await;
        raw.query("SELECT * FROM joined").await;
        raw.told("waiting for source \"mz_source\", which is held up: it cannot give what it gave before")
            .await;
        world.sql("SET statement_timeout = '1s'").await;
        for sql in [
            "SELECT * FROM a",
            "SELECT * FROM joined",
            "INSERT INTO here SELECT id, v FROM a",
        ] {
            let error = world.fails(sql).await;
            assert!(error.contains("timeout"), "{sql}: {error}");
        }
        world.sql("SET statement_timeout = 0").await;
        // What is held up is run again, and so is what was written meanwhile.
        world.node.kill().unwrap();
        world.node.restart().await.unwrap();
        world.client = world.node.connect().await.unwrap();
    }
    world.postgres.start_server().unwrap();
    world.upstream = world.postgres.connect().await.unwrap();
    world.up("INSERT INTO a VALUES (3, 'three')").await;
    let joined = ["1|onehere", "2|twohere", "3|threehere"];
    world
        .until("SELECT * FROM joined ORDER BY id", &joined)
        .await;
    world.until_status("mz_source", "running", "").await;
    world.node.stop().await.unwrap();
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
    world
        .until("SELECT * FROM joined ORDER BY id", &joined)
        .await;
    world.up("UPDATE a SET v = 'drei' WHERE id = 3").await;
    world
        .until("SELECT v FROM joined WHERE id = 3", &["dreihere"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_up_can_be_dropped_and_the_node_be_stopped() {
    let mut world = held_up().await;
    world.node.stop().await.unwrap();
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
    world.sql("DROP SOURCE mz_source CASCADE").await;
    world.sql("INSERT INTO here VALUES (3, 'here')").await;
    world.until("SELECT n FROM own", &["3"]).await;
    world.node.stop().await.unwrap();
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
    world.until("SELECT n FROM own", &["3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_altered_is_used_without_a_restart() {
    let world = World::with_source(
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'one')",
    )
    .await;
    world.until_same("SELECT id, v FROM a ORDER BY id").await;
    // Where nobody is.
    world
        .sql("ALTER CONNECTION pg_connection SET (PORT 1) WITH (VALIDATE = false)")
        .await;
    world
        .until_status("mz_source", "stalled", "could not connect")
        .await;
    world.up("INSERT INTO a VALUES (2, 'two')").await;
    let port = world.postgres.port();
    world
        .sql(&format!(
            "ALTER CONNECTION pg_connection SET (PORT {port}, PASSWORD SECRET pgpass)"
        ))
        .await;
    world.until_same("SELECT id, v FROM a ORDER BY id").await;
    // Another database of the server: nothing is lost by that.
    world
        .sql("ALTER CONNECTION pg_connection SET (DATABASE 'template1') WITH (VALIDATE = false)")
        .await;
    world
        .until_status("mz_source", "stalled", "another database")
        .await;
    world.up("UPDATE a SET v = 'zwei' WHERE id = 2").await;
    world
        .sql("ALTER CONNECTION pg_connection SET (DATABASE 'postgres')")
        .await;
    world.until_same("SELECT id, v FROM a ORDER BY id").await;
    // The value that a secret has does not matter to this server; that it is another one ends what goes on, and no more.
    world.sql("ALTER SECRET pgpass AS 'other'").await;
    world.up("DELETE FROM a WHERE id = 1").await;
    world.until_same("SELECT id, v FROM a ORDER BY id").await;
    world.until_status("mz_source", "running", "").await;
}

/// The statement that ends a transaction that is open.
fn ended(id: u32) -> String {
    let end = if id.is_multiple_of(2) {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    format!("{end} PREPARED 'open_{id}'")
}

/// So many transactions are open upstream at once, end in another order than they began, every second one in vain, and the node is killed between two of them.
async fn open_transactions(count: u32) {
    let mut world = World::start(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE PUBLICATION mz_source FOR ALL TABLES",
    )
    .await;
    // A transaction that is prepared stays open without a session.
    for setting in [
        format!("max_prepared_transactions = {count}"),
        "max_locks_per_transaction = 10".to_owned(),
    ] {
        world.up(&format!("ALTER SYSTEM SET {setting}")).await;
    }
    world.postgres.stop().unwrap();
    world.postgres.start_server().unwrap();
    world.upstream = world.postgres.connect().await.unwrap();
    world.sql("CREATE SOURCE mz_source FROM POSTGRES CONNECTION pg_connection (PUBLICATION 'mz_source') FOR ALL TABLES").await;
    world
        .sql("CREATE MATERIALIZED VIEW counts AS SELECT count(*) AS n, sum(id) AS s FROM t")
        .await;
    let counts = "SELECT n, s FROM counts";
    world.until(counts, &["0|NULL"]).await;
    for id in 1..=count {
        world
            .up(&format!(
                "BEGIN; INSERT INTO t VALUES ({id}, 'open'); PREPARE TRANSACTION 'open_{id}'"
            ))
            .await;
    }
    world.up("INSERT INTO t VALUES (-1, 'ended')").await;
    // Nobody waits for what has not ended.
    world.until(counts, &["1|-1"]).await;
    for id in (count / 2 + 1..=count).rev() {
        world.up(&ended(id)).await;
    }
    world.node.kill().unwrap();
    world.node.restart().await.unwrap();
    world.client = world.node.connect().await.unwrap();
    for id in (1..=count / 2).rev() {
        world.up(&ended(id)).await;
    }
    let even = count / 2;
    let expected = format!("{}|{}", even + 1, even * (even + 1) - 1);
    world.until(counts, &[expected.as_str()]).await;
    world
        .until_same("SELECT count(*), sum(id), min(v), max(v) FROM t")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_open_upstream_keep_nobody_waiting_and_end_in_any_order() {
    open_transactions(1000).await;
}

/// Upstream looks at all that are open for each statement. Takes a minute and more: `make large`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute"]
async fn a_large_number_of_transactions_that_are_open_upstream_keeps_nobody_waiting() {
    open_transactions(10_000).await;
}
