//! Nexmark queries in SQL, run by the engine, against circuits for the `dbsp` crate (`benches/peers`) on the same events.
//!
//! Owns the comparison: every query is a process of its own on each side, pinned to one processor. Must not know how either side runs a query.

mod engine;
mod events;
mod protocol;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::report::{Better, Figure, Scale, Section};
use crate::servers::output_of;
use protocol::{Mode, Request};

const SEED: u64 = 1;
const EVENTS_PER_TICK: u64 = 10_000;

/// The queries. Where Nexmark says `ROW_NUMBER() … = 1`, they say `DISTINCT ON`: the same rows, in the form that is maintained incrementally.
const QUERIES: [(&str, &str); 5] = [
    (
        "q0",
        "SELECT auction, bidder, price, date_time, extra FROM bid",
    ),
    (
        "q3",
        "SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
         WHERE a.category = 10 AND (p.state = 'OR' OR p.state = 'ID' OR p.state = 'CA')",
    ),
    (
        "q4",
        "SELECT category, avg(final) FROM (
             SELECT a.id, a.category, max(b.price) AS final FROM auction a JOIN bid b ON a.id = b.auction
             WHERE b.date_time BETWEEN a.date_time AND a.expires GROUP BY a.id, a.category
         ) AS winning GROUP BY category",
    ),
    (
        "q9",
        "SELECT DISTINCT ON (a.id) a.*, b.bidder, b.price, b.date_time AS bid_date_time, b.extra AS bid_extra
         FROM auction a JOIN bid b ON a.id = b.auction WHERE b.date_time BETWEEN a.date_time AND a.expires
         ORDER BY a.id, b.price DESC, b.date_time",
    ),
    (
        "q18",
        "SELECT DISTINCT ON (bidder, auction) * FROM bid ORDER BY bidder, auction, date_time DESC",
    ),
];

/// One side: a program that runs a query.
struct Side {
    program: PathBuf,
    arguments: &'static [&'static str],
}

pub(crate) fn run(scale: Scale) -> Result<Section> {
    let ours = Side {
        program: std::env::current_exe()?,
        arguments: &["nexmark-run", "--"],
    };
    let peer = Side {
        program: peer_program()?,
        arguments: &[],
    };
    let events = scale.pick(2_000_000, 5_000);
    let events_per_tick = scale.pick(EVENTS_PER_TICK, 500);
    let repetitions = scale.pick(3, 1);
    let (mut figures, mut details) = (Vec::new(), Vec::new());
    for (query, _) in QUERIES {
        let request = |mode| Request {
            query: query.to_owned(),
            mode,
            events,
            events_per_tick,
            seed: SEED,
        };
        let answers = [
            ours.ask(&request(Mode::Check))?,
            peer.ask(&request(Mode::Check))?,
        ];
        let [answer, theirs] = answers.map(|answer| answer.get("digest").cloned());
        if answer.is_none() || answer != theirs {
            bail!("{query}: {answer:?} here and {theirs:?} at the peer");
        }
        let (mut rates, mut memory) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let (mut grown, mut slowest) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for _ in 0..repetitions {
            for (at, side) in [&ours, &peer].into_iter().enumerate() {
                let timed = side.ask(&request(Mode::Time))?;
                let rate = u32::try_from(events).map(f64::from)? / field(&timed, "seconds")?;
                let measured = side.ask(&request(Mode::Memory))?;
                let peak = field(&measured, "peak_mib")?;
                for (values, value) in [
                    (&mut rates, rate),
                    (&mut memory, peak),
                    (&mut grown, peak - field(&measured, "idle_mib")?),
                    (&mut slowest, field(&timed, "slowest_tick_seconds")? * 1e3),
                ] {
                    values.get_mut(at).context("two sides")?.push(value);
                }
            }
        }
        for (what, unit, better, [ours, peer]) in [
            ("", "events/s/core", Better::Higher, rates),
            (" peak memory", "MiB", Better::Lower, memory),
            (" peak memory above idle", "MiB", Better::Lower, grown),
            (" slowest tick", "ms", Better::Lower, slowest),
        ] {
            figures.push(
                Figure::new(format!("{query}{what}"), unit, better, ours).against("dbsp", peer),
            );
        }
        details.push(json!({"query": query, "answer": answer, "recomputed": engine::recomputed(sql(query)?)?}));
    }
    Ok(Section {
        method: format!(
            "{events} events, {events_per_tick} per tick, made before the clock starts; one shard and one dbsp worker, each process pinned to one processor; \
             only the tables a query reads are fed, all events are counted; {repetitions} repetitions in turn; changes of the result of every tick compared"
        ),
        figures,
        details: json!(details),
    })
}

/// One run of one query on our side; prints the answer.
pub(crate) fn run_query(arguments: Vec<String>) -> Result<()> {
    let request = Request::from_arguments(arguments.into_iter())?;
    println!("{}", engine::run(sql(&request.query)?, &request)?);
    Ok(())
}

fn sql(query: &str) -> Result<&'static str> {
    QUERIES
        .iter()
        .find(|(name, _)| *name == query)
        .map(|(_, sql)| *sql)
        .with_context(|| format!("no query \"{query}\""))
}

/// `FLOWSTONE_BENCH_PEER`, which `make bench` sets to what it built.
fn peer_program() -> Result<PathBuf> {
    std::env::var_os("FLOWSTONE_BENCH_PEER")
        .map(PathBuf::from)
        .context("FLOWSTONE_BENCH_PEER names no program: build benches/peers, as make bench does")
}

impl Side {
    /// Runs a query on the first processor.
    fn ask(&self, request: &Request) -> Result<Value> {
        let mode = match request.mode {
            Mode::Check => "check",
            Mode::Time => "time",
            Mode::Memory => "memory",
        };
        let output = output_of(
            Command::new("taskset")
                .args(["-c", "0"])
                .arg(&self.program)
                .args(self.arguments)
                .args([request.query.as_str(), mode])
                .arg(request.events.to_string())
                .arg(request.events_per_tick.to_string())
                .arg(request.seed.to_string()),
        )?;
        serde_json::from_str(&output).with_context(|| format!("no answer: {output}"))
    }
}

fn field(answer: &Value, name: &str) -> Result<f64> {
    answer
        .get(name)
        .and_then(Value::as_f64)
        .with_context(|| format!("no {name} in {answer}"))
}
