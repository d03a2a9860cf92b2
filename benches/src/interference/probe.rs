//! The two probes: an INSERT of a row and a lookup by key, each due at an even rate, on a thread and a connection of its own.
//!
//! Open loop: what is due while the connection waits for an answer is sent late and counts from when it was due. To count from the sending would leave the
//! waits of all but one statement of a stall out ("coordinated omission": Gil Tene, "How NOT to Measure Latency", 2013).
//!
//! Must not know what else goes on. Called by `measure`.
//!
//! Invariants. Every statement that was due before the end is counted once: with its answer, its refusal, or its wait until it was given up. What the
//! timer of this process is late by counts for nobody.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tokio::time::error::Elapsed;
use tokio_postgres::{Client, Error, NoTls, Statement};

use crate::report::milliseconds;

/// How long a statement is waited for once it was sent, and how long after the end what was due before it is still sent.
pub(super) const BOUND: Duration = Duration::from_secs(30);
/// Keys of the view.
pub(super) const BUCKETS: i64 = 100;

/// What is asked again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Insert,
    Lookup,
}

/// What a probe saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    /// Of every statement, from when it was due.
    pub(super) waits_ms: Vec<f64>,
    /// The longest from sending to answer, or to giving up.
    pub(super) slowest_ms: f64,
    /// Statements that were given up.
    pub(super) unanswered: u32,
    /// Statements whose answer was an error.
    pub(super) refused: u32,
    /// The first of these errors.
    pub(super) refusal: Option<String>,
}

/// Both probes at work.
pub(super) struct Probes {
    end: Arc<OnceLock<Instant>>,
    insert: oneshot::Receiver<Latencies>,
    lookup: oneshot::Receiver<Latencies>,
}

impl Probes {
    /// Connects and begins. The INSERTs are of numbers from `first` on.
    pub(super) async fn start(port: u16, first: i64) -> Result<Self> {
        let end = Arc::new(OnceLock::new());
        Ok(Self {
            insert: Probe::Insert.start(port, first, &end).await?,
            lookup: Probe::Lookup.start(port, first, &end).await?,
            end,
        })
    }

    /// Nothing is due from now on. Waits for what was, and gives what the INSERTs and the lookups saw.
    pub(super) async fn stop(self) -> Result<(Latencies, Latencies)> {
        let _first = self.end.set(Instant::now());
        let panicked = "a probe panicked";
        Ok((
            self.insert.await.context(panicked)?,
            self.lookup.await.context(panicked)?,
        ))
    }
}

impl Probe {
    pub(super) const ALL: [Self; 2] = [Self::Insert, Self::Lookup];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Lookup => "lookup",
        }
    }

    /// The pause between two statements that are due.
    pub(super) const fn interval(self) -> Duration {
        match self {
            Self::Insert => Duration::from_millis(20),
            Self::Lookup => Duration::from_millis(10),
        }
    }

    const fn sql(self) -> &'static str {
        match self {
            Self::Insert => "INSERT INTO probed VALUES ($1, $2)",
            Self::Lookup => "SELECT entries FROM probed_by_bucket WHERE bucket = $1",
        }
    }

    /// Begins on a thread of its own, so that nothing else in this process keeps it waiting.
    async fn start(
        self,
        port: u16,
        first: i64,
        end: &Arc<OnceLock<Instant>>,
    ) -> Result<oneshot::Receiver<Latencies>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (connected, is_connected) = oneshot::channel();
        let (sender, receiver) = oneshot::channel();
        let end = Arc::clone(end);
        std::thread::Builder::new()
            .name(self.name().to_owned())
            .spawn(move || {
                let seen = runtime.block_on(self.run(port, first, &end, connected));
                drop(sender.send(seen));
            })?;
        is_connected.await.context("a probe panicked")??;
        Ok(receiver)
    }

    async fn run(
        self,
        port: u16,
        first: i64,
        end: &OnceLock<Instant>,
        connected: oneshot::Sender<Result<(), Error>>,
    ) -> Latencies {
        let mut seen = Latencies::default();
        let mut connection = match Connection::open(port, self).await {
            Ok(connection) => Some(connection),
            Err(error) => {
                drop(connected.send(Err(error)));
                return seen;
            }
        };
        drop(connected.send(Ok(())));
        let mut next = Instant::now();
        for number in first.. {
            let due = next;
            next += self.interval();
            let in_time = Instant::now() < due;
            if in_time {
                tokio::time::sleep_until(due.into()).await;
            }
            if let Some(end) = end.get() {
                if due > *end {
                    break;
                }
                if end.elapsed() > BOUND {
                    seen.give_up(due);
                    continue;
                }
            }
            let sent = Instant::now();
            let from = if in_time { sent } else { due };
            let asked = self.ask(port, &mut connection, number);
            let outcome = tokio::time::timeout(BOUND, asked).await;
            seen.add(from, sent, outcome);
        }
        seen
    }

    /// One statement, on a new connection if the old one is gone or still waits for the answer to a statement that was given up.
    ///
    /// # Cancel safety
    /// Dropped before its end, it leaves no connection.
    async fn ask(
        self,
        port: u16,
        connection: &mut Option<Connection>,
        number: i64,
    ) -> Result<(), Error> {
        let open = match connection.take() {
            Some(open) if !open.client.is_closed() => open,
            _ => Connection::open(port, self).await?,
        };
        let outcome = open.ask(self, number).await;
        *connection = Some(open);
        outcome
    }
}

impl Latencies {
    fn add(&mut self, from: Instant, sent: Instant, outcome: Result<Result<(), Error>, Elapsed>) {
        self.waits_ms.push(milliseconds(from.elapsed()));
        self.slowest_ms = self.slowest_ms.max(milliseconds(sent.elapsed()));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.refused += 1;
                self.refusal.get_or_insert_with(|| said(&error));
            }
            Err(_) => self.unanswered += 1,
        }
    }

    /// A statement that was due and is not sent any more.
    fn give_up(&mut self, due: Instant) {
        self.waits_ms.push(milliseconds(due.elapsed()));
        self.unanswered += 1;
    }
}

/// A connection with the one statement that it is for.
struct Connection {
    client: Client,
    statement: Statement,
}

impl Connection {
    async fn open(port: u16, probe: Probe) -> Result<Self, Error> {
        let address = format!(
            "host=127.0.0.1 port={port} user=materialize dbname=materialize connect_timeout=10"
        );
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
        // It ends with the client.
        tokio::spawn(connection);
        let statement = client.prepare(probe.sql()).await?;
        Ok(Self { client, statement })
    }

    async fn ask(&self, probe: Probe, number: i64) -> Result<(), Error> {
        let bucket = number % BUCKETS;
        match probe {
            Probe::Insert => self
                .client
                .execute(&self.statement, &[&number, &bucket])
                .await
                .map(|_| ()),
            Probe::Lookup => self
                .client
                .query_one(&self.statement, &[&bucket])
                .await
                .map(|_| ()),
        }
    }
}

/// What the server said, or else what went wrong.
fn said(error: &Error) -> String {
    error.as_db_error().map_or_else(
        || format!("{error:?}"),
        |error| format!("{}: {}", error.code().code(), error.message()),
    )
}
