//! Memory: what `mz_internal` says that objects hold is what the process has grown by.

use std::time::{Duration, Instant};

use flowstone_tests::{Node, wait};
use tokio_postgres::Client;

const DEADLINE: Duration = Duration::from_secs(300);
/// So long nothing may move for the node to be at rest: longer than it takes to count, to commit and to give back what was freed.
const REST: Duration = Duration::from_secs(12);
/// What moves by less than this part of it, or by less than so many bytes, does not move: to ask takes memory, too.
const STILL_PART: u64 = 200;
const STILL_BYTES: u64 = 4 << 20;
/// The sum may differ from the growth by so much of a hundred.
const PERCENT: u64 = 15;

/// What a node has, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// Memory that the kernel says is its own, without the pages of its binary.
    resident: u64,
    /// What it says that it has allocated.
    allocated: u64,
    /// What it says that objects hold.
    objects: u64,
}

impl Memory {
    async fn of(node: &Node, client: &Client) -> Result<Self, String> {
        let row = client
            .query_one(
                "SELECT allocated_bytes::int8, (SELECT coalesce(sum(bytes), 0)::int8 FROM mz_internal.mz_object_memory) FROM mz_internal.mz_process_memory",
                &[],
            )
            .await
            .map_err(|error| error.to_string())?;
        let bytes = |column: usize| u64::try_from(row.get::<_, i64>(column)).unwrap();
        Ok(Self {
            resident: anonymous_bytes(node),
            allocated: bytes(0),
            objects: bytes(1),
        })
    }

    /// Waits until nothing moves.
    async fn at_rest(node: &Node, client: &Client) -> Self {
        let mut since = Instant::now();
        let mut last = Self::default();
        wait::until("the memory to be at rest", DEADLINE, async || {
            let now = Self::of(node, client).await?;
            let moved = [
                (now.resident, last.resident),
                (now.allocated, last.allocated),
                (now.objects, last.objects),
            ];
            if moved
                .iter()
                .any(|(now, last)| now.abs_diff(*last) > STILL_BYTES.max(now / STILL_PART))
            {
                (since, last) = (Instant::now(), now);
            }
            if since.elapsed() < REST {
                return Err(format!("{now:?}"));
            }
            Ok(now)
        })
        .await
        .unwrap()
    }

    fn since(self, before: Self) -> Self {
        Self {
            resident: self.resident.saturating_sub(before.resident),
            allocated: self.allocated.saturating_sub(before.allocated),
            objects: self.objects.saturating_sub(before.objects),
        }
    }
}

/// Memory of the process that is no copy of a file: of its binary more is read with each statement that is new to it.
fn anonymous_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid().unwrap())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kilobytes = line.split_whitespace().next().unwrap();
    kilobytes.parse::<u64>().unwrap() << 10
}

/// Tables of `rows` rows of many types, a join of them with an aggregate, views with operators that keep something, and an index.
async fn fill(client: &Client, prefix: &str, rows: i64) {
    client
        .batch_execute(&format!(
            "CREATE TABLE {prefix}_orders (id bigint NOT NULL, customer int NOT NULL, amount numeric(12, 2), weight double precision, at timestamptz, paid bool, note text, doc jsonb);
             CREATE TABLE {prefix}_customers (id int NOT NULL, name text NOT NULL, region text);
             INSERT INTO {prefix}_customers SELECT g, 'customer number ' || g::text, 'region ' || (g % 10)::text FROM generate_series(0, {customers}) AS s (g);
             CREATE MATERIALIZED VIEW {prefix}_totals AS
                SELECT c.id, c.name, count(*) AS n, sum(o.amount) AS total, avg(o.weight) AS weight, max(o.note) AS note
                FROM {prefix}_orders o JOIN {prefix}_customers c ON o.customer = c.id GROUP BY c.id, c.name;
             CREATE VIEW {prefix}_paid AS SELECT customer, id, note FROM {prefix}_orders WHERE paid;
             CREATE INDEX {prefix}_paid_by_customer ON {prefix}_paid (customer)",
            customers = rows / 20,
        ))
        .await
        .unwrap();
    let step = (rows / 4).max(1);
    for from in (0..rows).step_by(usize::try_from(step).unwrap()) {
        client
            .batch_execute(&format!(
                "INSERT INTO {prefix}_orders
                 SELECT g, (g * 7919) % {customers}, (g % 100000)::numeric(12, 2) / 100, g * 0.37, '2026-01-01 00:00:00+00'::timestamptz, g % 3 = 0,
                     CASE WHEN g % 5 <> 0 THEN 'the note of order ' || g::text END, CASE WHEN g % 4 = 0 THEN '{{\"k\": [1, 2, 3], \"from\": \"web\"}}'::jsonb END
                 FROM generate_series({from}::bigint, {to}::bigint) AS s (g)",
                customers = (rows / 20).max(1),
                to = (from + step).min(rows) - 1,
            ))
            .await
            .unwrap();
    }
    let orders: i64 = client
        .query_one(&format!("SELECT sum(n)::int8 FROM {prefix}_totals"), &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(orders, rows);
}

/// Which object holds how much by what, for the message of a failure.
async fn parts(client: &Client) -> String {
    let rows = client
        .query(
            "SELECT o.name::text, m.holder::text, m.bytes::int8 FROM mz_internal.mz_object_memory m JOIN mz_objects o ON o.id = m.object_id ORDER BY 3 DESC LIMIT 30",
            &[],
        )
        .await
        .unwrap();
    let line = |row: &tokio_postgres::Row| {
        let (name, holder, bytes): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        format!("{name} {holder} {bytes}")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_all_objects_are_what_the_process_has_grown_by() {
    const ROWS: i64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let client = node.connect().await.unwrap();
    // What is done for the first time leaves something behind: threads, tables of functions, plans.
    fill(&client, "small", 20_000).await;
    let before = Memory::at_rest(&node, &client).await;
    fill(&client, "large", ROWS).await;
    let growth = Memory::at_rest(&node, &client).await.since(before);
    let parts = parts(&client).await;
    println!("{growth:?}\n{parts}");
    assert!(growth.objects > 100 << 20, "{growth:?}");
    for of in [growth.allocated, growth.resident] {
        assert!(
            growth.objects.abs_diff(of) * 100 <= of * PERCENT,
            "{growth:?}\n{parts}"
        );
    }

    // And it has not when all of it is gone.
    client
        .batch_execute("DROP TABLE large_orders CASCADE; DROP TABLE large_customers CASCADE")
        .await
        .unwrap();
    let left = Memory::at_rest(&node, &client).await.since(before);
    assert!(
        left.objects * 20 < growth.objects && left.resident * 4 < growth.resident,
        "{left:?} of {growth:?}"
    );
}
