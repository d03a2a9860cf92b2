//! Many objects: the time of each DDL statement, and of a restart, while tables and views become more. The peer is the node itself when it had few.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use flowstone_tests::Node;
use serde_json::json;
use tokio_postgres::Client;

use crate::report::{Aim, Better, Figure, Scale, Section, milliseconds};
use crate::servers::SHARDS;

/// With every so many tables come a view and a materialized view: with 5 000 tables there are 1 000.
const TABLES_PER_VIEW: usize = 10;
/// How many times as long a statement, or a restart for each object, may take with many objects as with few.
const GROWTH_MAX: f64 = 2.0;

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Table,
    View,
    MaterializedView,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Table, Self::View, Self::MaterializedView];

    const fn statement(self) -> &'static str {
        match self {
            Self::Table => "CREATE TABLE",
            Self::View => "CREATE VIEW",
            Self::MaterializedView => "CREATE MATERIALIZED VIEW",
        }
    }

    /// How many there are with so many tables.
    const fn beside(self, tables: usize) -> usize {
        match self {
            Self::Table => tables,
            Self::View | Self::MaterializedView => tables / TABLES_PER_VIEW,
        }
    }
}

/// Milliseconds of each statement, in order.
type Times = BTreeMap<Kind, Vec<f64>>;

/// A node that gets more and more objects.
struct Growing {
    node: Node,
    client: Client,
    tables: usize,
    times: Times,
}

impl Growing {
    async fn start(dir: &Path) -> Result<Self> {
        let node = Node::start(dir, SHARDS).await?;
        let client = node.connect().await?;
        Ok(Self {
            node,
            client,
            tables: 0,
            times: Times::new(),
        })
    }

    async fn create(&mut self, kind: Kind, text: &str) -> Result<()> {
        let statement = format!("{} {text}", kind.statement());
        let begin = Instant::now();
        self.client.batch_execute(&statement).await?;
        let time = milliseconds(begin.elapsed());
        self.times.entry(kind).or_default().push(time);
        Ok(())
    }

    /// Makes tables until there are so many, and the views that come with them.
    async fn grow(&mut self, tables: usize) -> Result<()> {
        for number in self.tables..tables {
            let columns = "id bigint NOT NULL, customer int, amount numeric(12, 2), note text DEFAULT 'none', at timestamptz";
            self.create(Kind::Table, &format!("t{number} ({columns})"))
                .await?;
            if !(number + 1).is_multiple_of(TABLES_PER_VIEW) {
                continue;
            }
            let other = number - 1;
            let joined = format!(
                "v{number} AS SELECT a.id, a.note, b.amount FROM t{number} a JOIN t{other} b ON a.customer = b.customer WHERE a.amount > 10"
            );
            self.create(Kind::View, &joined).await?;
            let counted = format!(
                "m{number} AS SELECT customer, count(*) AS n, sum(amount) AS total FROM v{number} JOIN t{number} USING (id, amount) GROUP BY customer"
            );
            self.create(Kind::MaterializedView, &counted).await?;
        }
        self.tables = tables;
        Ok(())
    }

    /// Gives the newest views rows, and checks after a restart that they have them and that everything is there. Milliseconds until the node served again.
    async fn restart_checked(&mut self) -> Result<f64> {
        let (number, other) = (self.tables - 1, self.tables - 2);
        for (table, id) in [(number, 1), (other, 2)] {
            let insert = format!("INSERT INTO t{table} VALUES ({id}, 7, 11.5, 'x', NULL)");
            self.client.batch_execute(&insert).await?;
        }
        let time = self.restart().await?;
        let read = format!("SELECT customer, n FROM m{number}");
        let row = self.client.query_one(&read, &[]).await?;
        let found: (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        let objects: i64 = self
            .client
            .query_one(
                "SELECT count(*) FROM mz_objects WHERE id LIKE 'u%' AND type IN ('table', 'view', 'materialized-view')",
                &[],
            )
            .await?
            .try_get(0)?;
        let expected: usize = self.times.values().map(Vec::len).sum();
        if found != (7, 1) || usize::try_from(objects)? != expected {
            bail!("after a restart there are {objects} objects of {expected}, and {found:?}");
        }
        Ok(time)
    }

    /// Milliseconds from the start of the process until it serves.
    async fn restart(&mut self) -> Result<f64> {
        self.node.stop().await?;
        let begin = Instant::now();
        self.node.restart().await?;
        let time = milliseconds(begin.elapsed());
        self.client = self.node.connect().await?;
        Ok(time)
    }

    /// The times of the newest statements: of so many tables and the views beside them.
    fn newest(&self, tables: usize) -> Times {
        let newest = self.times.iter().map(|(kind, times)| {
            let from = times.len().saturating_sub(kind.beside(tables));
            (*kind, times.get(from..).unwrap_or_default().to_vec())
        });
        newest.collect()
    }
}

pub(crate) async fn run(scale: Scale) -> Result<Section> {
    let sizes = scale.pick(vec![100, 500, 1_000, 5_000], vec![20, 40]);
    let hundred = scale.pick(100, 20);
    let dir = tempfile::tempdir()?;
    let mut growing = Growing::start(dir.path()).await?;
    // What a node without objects takes is no part of what objects take.
    let empty = growing.restart().await?;
    let mut first: Option<Times> = None;
    let (mut figures, mut restarts) = (Vec::new(), Vec::new());
    for tables in sizes {
        growing.grow(tables).await?;
        let newest = growing.newest(hundred);
        let first = first.get_or_insert_with(|| newest.clone());
        for kind in Kind::ALL {
            let of = |times: &Times| times.get(&kind).cloned().unwrap_or_default();
            let name = format!("{}, {tables} tables", kind.statement());
            let figure = Figure::new(name, "ms", Better::Lower, of(&newest));
            figures.push(
                figure
                    .against("the first", of(first))
                    .aim(Aim::Ratio(1.0 / GROWTH_MAX)),
            );
        }
        let time = growing.restart_checked().await?;
        let name = format!("restart, {tables} tables");
        figures.push(Figure::new(name, "ms", Better::Lower, vec![time]));
        restarts.push((tables, time));
    }
    growing.node.stop().await?;
    // With the first hundred most of the difference is noise.
    if let [_, few, .., most] = restarts.as_slice() {
        let name = format!("restart for each of {} tables", most.0);
        let figure = Figure::new(name, "ms", Better::Lower, vec![per_table(*most, empty)?]);
        figures.push(
            figure
                .against(format!("{} tables", few.0), vec![per_table(*few, empty)?])
                .aim(Aim::Ratio(1.0 / GROWTH_MAX)),
        );
    }
    Ok(Section {
        method: format!(
            "tables of five columns and, with every {TABLES_PER_VIEW} of them, a view over two and a materialized view over that; at each size the last {hundred} tables and the views among them, against the first {hundred}; a restart is until the node serves, one without objects takes {empty:.0} ms"
        ),
        figures,
        details: json!({
            "restart_ms": restarts,
            "empty_restart_ms": empty,
            "create_table_ms": growing.times.get(&Kind::Table),
        }),
    })
}

/// What a restart takes for each table and the views beside it.
fn per_table((tables, time): (usize, f64), empty: f64) -> Result<f64> {
    Ok((time - empty).max(0.0) / f64::from(u32::try_from(tables)?))
}
