//! How long a statement takes before its first row is computed, against PostgreSQL on the same empty tables: the 22 queries of TPC-H, a lookup, statements of a
//! megabyte. Each is measured twice: as EXPLAIN, which parses, binds and plans, and whole, which adds what makes a plan ready to run.

use std::fmt::Write;
use std::time::Instant;

use anyhow::{Context, Result};
use flowstone_tests::tpch;
use serde_json::{Map, json};
use tokio_postgres::Client;

use crate::report::{Aim, Better, Figure, Scale, Section, median};
use crate::servers::Servers;

/// What a long statement is long of, in bytes.
const LONG: usize = 1 << 20;

/// Statements that are measured together.
struct Group {
    name: &'static str,
    /// Each with its name.
    statements: Vec<(String, String)>,
    repetitions: usize,
}

pub(crate) async fn run(scale: Scale) -> Result<Section> {
    let servers = Servers::start().await?;
    for table in tpch::TABLES {
        servers.client.batch_execute(table).await?;
        servers.upstream.batch_execute(table).await?;
    }
    servers
        .client
        .batch_execute("CREATE INDEX customer_by_key ON customer (c_custkey)")
        .await?;
    for key in tpch::KEYS {
        servers.upstream.batch_execute(key).await?;
    }
    servers.upstream.batch_execute("ANALYZE").await?;
    let groups = groups(scale);
    let mut figures = Vec::new();
    let mut details = Map::new();
    for group in &groups {
        for (kind, explained) in [("planned", true), ("answered", false)] {
            let measured = measure(&servers, group, explained).await?;
            figures.push(
                Figure::new(
                    format!("{}, {kind}", group.name),
                    "ms",
                    Better::Lower,
                    measured.ours,
                )
                .against("PostgreSQL 15", measured.peers)
                .aim(Aim::Ratio(0.33)),
            );
            details.insert(format!("{}, {kind}", group.name), measured.each.into());
        }
    }
    Ok(Section {
        method: "empty tables, PostgreSQL's with their primary keys, ours with an index for the lookup, one connection, simple queries; from sending a statement to the last message of its answer, all statements of a group one after another, the two servers in turn".to_owned(),
        figures,
        details: json!(details),
    })
}

fn groups(scale: Scale) -> Vec<Group> {
    let long = scale.pick(LONG, LONG / 64);
    let queries = tpch::QUERIES.iter().zip(1..);
    let numbers = list_of(long, |text, number| write!(text, "{number}"));
    let rows = list_of(long, |text, number| write!(text, "({number}, 'n{number}')"));
    let columns = list_of(long, |text, number| {
        write!(text, "c_custkey + {number} AS c{number}")
    });
    // As many operators in a row as there may be, nearly.
    let terms: Vec<String> = (1..=900).map(|number| number.to_string()).collect();
    let sum = format!("c_custkey + {}", terms.join(" + "));
    let one = |sql: String| vec![(String::new(), sql)];
    vec![
        Group {
            name: "TPC-H, 22 queries",
            statements: queries
                .map(|(sql, number)| (format!("q{number}"), (*sql).to_owned()))
                .collect(),
            repetitions: scale.pick(20, 1),
        },
        Group {
            name: "a lookup",
            statements: one("SELECT c_name FROM customer WHERE c_custkey = 7".to_owned()),
            repetitions: scale.pick(500, 2),
        },
        Group {
            name: "1 MB, IN of numbers",
            statements: one(format!(
                "SELECT count(*) FROM customer WHERE c_custkey IN ({numbers})"
            )),
            repetitions: scale.pick(5, 1),
        },
        Group {
            name: "1 MB, VALUES of rows",
            statements: one(format!(
                "SELECT count(*) FROM (VALUES {rows}) v (n, t) WHERE n < 0"
            )),
            repetitions: scale.pick(5, 1),
        },
        Group {
            name: "1 000 columns",
            statements: one(format!(
                "SELECT {} FROM customer",
                columns
                    .split(", ")
                    .take(1000)
                    .collect::<Vec<_>>()
                    .join(", ")
            )),
            repetitions: scale.pick(10, 1),
        },
        Group {
            name: "a sum of 900",
            statements: one(format!("SELECT {sum} FROM customer")),
            repetitions: scale.pick(10, 1),
        },
    ]
}

/// A list with commas of so many bytes.
fn list_of(bytes: usize, item: impl Fn(&mut String, usize) -> std::fmt::Result) -> String {
    let mut text = String::with_capacity(bytes + 32);
    let mut number = 0;
    while text.len() < bytes {
        if number > 0 {
            text.push_str(", ");
        }
        number += 1;
        let _ = item(&mut text, number);
    }
    text
}

/// Milliseconds of a group, each repetition's sum; `each` has the medians of its statements, by name.
struct Measured {
    ours: Vec<f64>,
    peers: Vec<f64>,
    each: Map<String, serde_json::Value>,
}

async fn measure(servers: &Servers, group: &Group, explained: bool) -> Result<Measured> {
    let mut measured = Measured {
        ours: vec![0.0; group.repetitions],
        peers: vec![0.0; group.repetitions],
        each: Map::new(),
    };
    for (name, sql) in &group.statements {
        let sql = if explained {
            format!("EXPLAIN {sql}")
        } else {
            sql.clone()
        };
        // Both have seen it once.
        let context = || format!("{} {name}", group.name);
        time(&servers.client, &sql).await.with_context(context)?;
        time(&servers.upstream, &sql).await.with_context(context)?;
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for (here, there) in measured.ours.iter_mut().zip(&mut measured.peers) {
            ours.push(time(&servers.client, &sql).await?);
            peers.push(time(&servers.upstream, &sql).await?);
            *here += ours.last().copied().unwrap_or_default();
            *there += peers.last().copied().unwrap_or_default();
        }
        let medians = json!({"flowstone": median(&ours), "peer": median(&peers)});
        measured.each.insert(name.clone(), medians);
    }
    Ok(measured)
}

/// Milliseconds.
async fn time(client: &Client, sql: &str) -> Result<f64> {
    let started = Instant::now();
    client.simple_query(sql).await?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}
