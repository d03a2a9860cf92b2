//! The cases: what goes on in each, on one node with a PostgreSQL beside it.
//!
//! Owns the large tables. Must not know what the probes ask. Called by `interference`.
//!
//! Invariants. When a case has ended its answer is checked, and what it made is dropped before the next one; neither is measured.

use std::io::{Cursor, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use flowstone_tests::wait;
use futures::{SinkExt, StreamExt};
use tokio::time::MissedTickBehavior;
use tokio_postgres::NoTls;

use super::measure::{self, Measured};
use super::stopped::Stopped;
use super::{Size, disk};
use crate::servers::Servers;

/// Incremental.
const JOINED: &str = "SELECT city, count(*) AS entries, sum(amount)::bigint AS total FROM orders JOIN customers ON customers.id = orders.customer GROUP BY city";
/// Recomputed as a whole.
const RANKED: &str = "SELECT id, customer, row_number() OVER (PARTITION BY customer ORDER BY amount, id) AS place FROM orders";
/// As many rows as the table.
const COPIED: &str = "SELECT id, customer, amount FROM orders";

/// What needs a new Delta table.
const CREATE: &str = "CREATE TABLE late (number bigint NOT NULL)";

/// Between the INSERTs into the table of a recomputed view.
const CHANGE_INTERVAL: Duration = Duration::from_millis(200);
/// What the client sends of COPY at a time.
const PIECE_BYTES: usize = 64 << 10;
/// How long a source may take to go on when its server does: it waits for up to half a minute before it connects again.
const RECOVERY: Duration = Duration::from_secs(180);
/// The probes at work before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Idle,
    Hydration,
    Window,
    Recompute,
    Snapshot,
    Subscribe,
    Copy,
    Stalled,
    FullDisk,
    FullDiskCreate,
}

impl Case {
    /// In the order in which they are measured. Idle comes first: the others are compared with it.
    pub(super) const ALL: [Self; 10] = [
        Self::Idle,
        Self::Hydration,
        Self::Window,
        Self::Recompute,
        Self::Snapshot,
        Self::Subscribe,
        Self::Copy,
        Self::Stalled,
        Self::FullDisk,
        Self::FullDiskCreate,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Hydration => "hydration",
            Self::Window => "window",
            Self::Recompute => "recompute",
            Self::Snapshot => "snapshot",
            Self::Subscribe => "subscribe",
            Self::Copy => "copy",
            Self::Stalled => "stalled",
            Self::FullDisk => "full disk",
            Self::FullDiskCreate => "full disk, CREATE TABLE",
        }
    }
}

/// A node and its upstream, with large tables in both.
pub(super) struct Stage {
    servers: Servers,
    size: Size,
}

impl Stage {
    pub(super) async fn start(size: Size) -> Result<Self> {
        let stage = Self {
            servers: Servers::start().await?,
            size,
        };
        measure::prepare(&stage.servers.client).await?;
        stage.fill().await?;
        stage.fill_upstream().await?;
        stage.beside(stay(WARM_UP)).await?;
        Ok(stage)
    }

    async fn fill(&self) -> Result<()> {
        let Size {
            rows, customers, ..
        } = self.size;
        self.execute(
            "CREATE TABLE customers (id bigint NOT NULL, city bigint NOT NULL);
             CREATE TABLE orders (id bigint NOT NULL, customer bigint NOT NULL, amount bigint NOT NULL)",
        )
        .await?;
        self.execute(&format!(
            "INSERT INTO customers SELECT n::bigint, n::bigint % 1000 FROM generate_series(0, {}) AS s (n)",
            customers - 1
        ))
        .await?;
        self.execute(&format!(
            "INSERT INTO orders SELECT n::bigint, n::bigint * 7919 % {customers}, n::bigint % 1000 FROM generate_series(1, {rows}) AS s (n)"
        ))
        .await?;
        self.expect("SELECT count(*) FROM orders", rows).await
    }

    async fn fill_upstream(&self) -> Result<()> {
        let rows = self.size.rows;
        self.servers
            .upstream
            .batch_execute(&format!(
                "CREATE TABLE events (id bigint PRIMARY KEY, customer bigint NOT NULL, note text NOT NULL);
                 INSERT INTO events SELECT n, n % 100000, md5(n::text) FROM generate_series(1, {rows}) AS n;
                 CREATE PUBLICATION large FOR TABLE events;
                 CREATE TABLE ticks (id bigint PRIMARY KEY);
                 INSERT INTO ticks VALUES (1);
                 CREATE PUBLICATION small FOR TABLE ticks"
            ))
            .await?;
        self.servers
            .upstream
            .batch_execute("VACUUM ANALYZE events")
            .await?;
        Ok(())
    }

    pub(super) async fn measure(&self, case: Case) -> Result<Measured> {
        match case {
            Case::Idle => self.beside(stay(self.size.steady)).await,
            Case::Hydration => self.hydration().await,
            Case::Window => self.window().await,
            Case::Recompute => self.recompute().await,
            Case::Snapshot => self.snapshot().await,
            Case::Subscribe => self.subscribe().await,
            Case::Copy => self.copy().await,
            Case::Stalled => self.stalled().await,
            Case::FullDisk => disk::measure(self.size, None).await,
            Case::FullDiskCreate => disk::measure(self.size, Some(CREATE)).await,
        }
    }

    async fn hydration(&self) -> Result<Measured> {
        let measured = self.beside(self.create_view("joined", JOINED)).await?;
        self.expect("SELECT sum(entries)::bigint FROM joined", self.size.rows)
            .await?;
        self.execute("DROP MATERIALIZED VIEW joined").await?;
        Ok(measured)
    }

    async fn window(&self) -> Result<Measured> {
        let measured = self.beside(self.create_view("ranked", RANKED)).await?;
        self.expect("SELECT count(*) FROM ranked", self.size.rows)
            .await?;
        self.execute("DROP MATERIALIZED VIEW ranked").await?;
        Ok(measured)
    }

    async fn recompute(&self) -> Result<Measured> {
        self.create_view("ranked", RANKED).await?;
        let measured = self.beside(self.change_orders()).await?;
        let orders = measure::number(&self.servers.client, "SELECT count(*) FROM orders").await?;
        self.expect("SELECT count(*) FROM ranked", orders).await?;
        self.execute("DROP MATERIALIZED VIEW ranked").await?;
        self.execute(&format!("DELETE FROM orders WHERE id > {}", self.size.rows))
            .await?;
        Ok(measured)
    }

    /// Rows come into the table, one at a time.
    async fn change_orders(&self) -> Result<()> {
        let client = self.servers.node.connect().await?;
        let insert = client
            .prepare("INSERT INTO orders VALUES ($1, 0, 0)")
            .await?;
        let begin = Instant::now();
        let mut interval = tokio::time::interval(CHANGE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut id = self.size.rows;
        while begin.elapsed() < self.size.steady {
            interval.tick().await;
            id += 1;
            client.execute(&insert, &[&id]).await?;
        }
        Ok(())
    }

    async fn snapshot(&self) -> Result<Measured> {
        let measured = self
            .beside(async {
                self.execute(
                    "CREATE SOURCE large FROM POSTGRES CONNECTION pg (PUBLICATION 'large') FOR ALL TABLES",
                )
                .await?;
                self.read_one("events").await
            })
            .await?;
        let sums = "SELECT count(*), sum(customer)::bigint, sum(length(note))::bigint FROM events";
        self.servers.compare(sums).await?;
        self.execute("DROP SOURCE large CASCADE").await?;
        Ok(measured)
    }

    async fn subscribe(&self) -> Result<Measured> {
        self.create_view("copied", COPIED).await?;
        let measured = self.beside(self.read_changes()).await?;
        self.execute("DROP MATERIALIZED VIEW copied").await?;
        Ok(measured)
    }

    /// Reads the snapshot of a subscription, as fast as it comes.
    async fn read_changes(&self) -> Result<()> {
        let client = self.servers.node.connect().await?;
        let changes = client
            .query_raw(
                "SUBSCRIBE (SELECT * FROM copied)",
                std::iter::empty::<i32>(),
            )
            .await?;
        let mut changes = std::pin::pin!(changes);
        for _ in 0..self.size.rows {
            changes.next().await.context("the subscription ended")??;
        }
        client.cancel_token().cancel_query(NoTls).await?;
        Ok(())
    }

    async fn copy(&self) -> Result<Measured> {
        self.execute(
            "CREATE TABLE loaded (id bigint NOT NULL, customer bigint NOT NULL, amount bigint NOT NULL)",
        )
        .await?;
        let measured = self.beside(self.load()).await?;
        self.expect("SELECT count(*) FROM loaded", self.size.copied_rows)
            .await?;
        self.execute("DROP TABLE loaded").await?;
        Ok(measured)
    }

    async fn load(&self) -> Result<()> {
        let client = self.servers.node.connect().await?;
        let sink = client
            .copy_in::<_, Cursor<Vec<u8>>>("COPY loaded FROM STDIN")
            .await?;
        let mut sink = std::pin::pin!(sink);
        let mut piece: Vec<u8> = Vec::new();
        for id in 0..self.size.copied_rows {
            let customer = id * 7919 % self.size.customers;
            writeln!(piece, "{id}\t{customer}\t{}", id % 1000)?;
            if piece.len() >= PIECE_BYTES {
                sink.send(Cursor::new(std::mem::take(&mut piece))).await?;
            }
        }
        sink.send(Cursor::new(piece)).await?;
        sink.as_mut().finish().await?;
        Ok(())
    }

    async fn stalled(&self) -> Result<Measured> {
        self.execute(
            "CREATE SOURCE small FROM POSTGRES CONNECTION pg (PUBLICATION 'small') FOR ALL TABLES",
        )
        .await?;
        self.catch_up().await?;
        let measured = self
            .beside(async {
                let _stopped = Stopped::server(&self.servers.upstream).await?;
                stay(self.size.stalled).await
            })
            .await?;
        self.servers
            .upstream
            .batch_execute("INSERT INTO ticks SELECT max(id) + 1 FROM ticks")
            .await?;
        self.catch_up().await?;
        self.execute("DROP SOURCE small CASCADE").await?;
        Ok(measured)
    }

    /// Waits until what is in PostgreSQL is here.
    async fn catch_up(&self) -> Result<()> {
        wait::until("the source to catch up", RECOVERY, async || {
            let compared = self.servers.compare("SELECT count(*), max(id) FROM ticks");
            compared.await.map_err(|error| format!("{error:#}"))
        })
        .await
    }

    /// Measures while `background` goes on.
    async fn beside(&self, background: impl Future<Output = Result<()>>) -> Result<Measured> {
        measure::measure(&self.servers.node, &self.servers.client, background).await
    }

    /// Creates a materialized view and waits until it can be read.
    async fn create_view(&self, name: &str, query: &str) -> Result<()> {
        self.execute(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"))
            .await?;
        self.read_one(name).await
    }

    /// Reads a row of a relation. A query on one that has no content yet waits for it.
    async fn read_one(&self, relation: &str) -> Result<()> {
        let sql = format!("SELECT * FROM {relation} LIMIT 1");
        let rows = self.servers.client.query(&sql, &[]).await?;
        if rows.is_empty() {
            bail!("{relation} is empty");
        }
        Ok(())
    }

    async fn execute(&self, sql: &str) -> Result<()> {
        let done = self.servers.client.batch_execute(sql).await;
        done.with_context(|| sql.to_owned())
    }

    /// Fails unless a query gives this number.
    async fn expect(&self, sql: &str, expected: i64) -> Result<()> {
        let found = measure::number(&self.servers.client, sql).await?;
        if found != expected {
            bail!("{sql}: {found} instead of {expected}");
        }
        Ok(())
    }
}

/// Nothing goes on, for so long.
async fn stay(time: Duration) -> Result<()> {
    tokio::time::sleep(time).await;
    Ok(())
}
