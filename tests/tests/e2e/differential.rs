//! Random queries against PostgreSQL: a materialized view in the node, the same query asked of the node, and the same query asked of PostgreSQL must
//! agree after every change, and after a SIGKILL: to the letter of each value, and to the SQLSTATE of each error.
//!
//! Owns the rounds and the comparison; `generator` makes schemas, queries and changes.
//! Must not know which operators a query becomes.
//!
//! A round is replayed with `FLOWSTONE_SEED=<seed>`. `FLOWSTONE_DIFFERENTIAL_ROUNDS` asks for a number of rounds: with a seed those that follow it,
//! without one the fixed ones and then random ones.

#[path = "differential/generator.rs"]
mod generator;

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use flowstone_tests::answer::{Answer, Row, ask, connect};
use flowstone_tests::{Node, Postgres};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio_postgres::Client;

use generator::{Generator, Query, Type};

/// The seeds of the rounds that are run unless others are asked for.
const FIXED_SEEDS: [u64; 3] = [1, 3, 7];

const VIEWS_PER_ROUND: usize = 20;

const CHANGES_PER_STEP: usize = 2;

const STEPS_PER_ROUND: usize = 4;

/// The text, but for the sign of a float's zero (zeros are equal, and either may stand for a group) and for how many digits of a quotient a numeric keeps.
fn canonical(row: &Row, types: &[Type]) -> Row {
    row.iter()
        .zip(types)
        .map(|(value, r#type)| {
            let text = value.as_deref()?;
            Some(match r#type {
                Type::Real | Type::Float if text == "-0" => "0".to_owned(),
                Type::Numeric => match text.parse::<f64>() {
                    Ok(number) if number.is_finite() => format!("{number:.9e}"),
                    _ => text.to_owned(),
                },
                _ => text.to_owned(),
            })
        })
        .collect()
}

fn agree(left: &Answer, right: &Answer, types: &[Type]) -> bool {
    match (left, right) {
        (Answer::Rows(left), Answer::Rows(right)) => {
            let sorted = |rows: &[Row]| {
                let mut rows: Vec<Row> = rows.iter().map(|row| canonical(row, types)).collect();
                rows.sort();
                rows
            };
            let (left, right) = (sorted(left), sorted(right));
            left.len() == right.len()
                && left
                    .iter()
                    .zip(&right)
                    .all(|(left, right)| left.len() == types.len() && left == right)
        }
        (Answer::Error { code: left, .. }, Answer::Error { code: right, .. }) => left == right,
        _ => false,
    }
}

struct View {
    name: String,
    query: Query,
    /// Sides that differed before; the same difference is not told again.
    told: Vec<&'static str>,
}

/// One database on both servers, and what happened in it.
struct Round<'a> {
    name: String,
    node: &'a mut Node,
    in_node: Client,
    in_postgres: Client,
    generator: Generator,
    views: Vec<View>,
    history: Vec<String>,
    failures: Vec<String>,
    seen: Seen,
}

/// What the comparisons saw; a run that compared nothing proves nothing.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    rows: usize,
    errors: usize,
}

impl Round<'_> {
    fn fail(&mut self, what: &str) {
        let failure = format!(
            "== {}: {what}\n-- history:\n{};",
            self.name,
            self.history.join(";\n")
        );
        self.failures.push(failure);
    }

    /// The same statement on both servers; both must do the same.
    async fn apply(&mut self, sql: &str) {
        self.history.push(sql.to_owned());
        let in_postgres = ask(&self.in_postgres, sql).await;
        let in_node = ask(&self.in_node, sql).await;
        if !agree(&in_node, &in_postgres, &[]) {
            self.fail(&format!(
                "a statement differs\n{sql}\n  node: {}\n  PostgreSQL: {}",
                in_node.describe(),
                in_postgres.describe()
            ));
        }
        if sql.starts_with("BEGIN") && matches!(in_postgres, Answer::Error { .. }) {
            ask(&self.in_postgres, "ROLLBACK").await;
            ask(&self.in_node, "ROLLBACK").await;
        }
    }

    async fn create_views(&mut self, count: usize) {
        for _ in 0..count {
            let query = self.generator.query();
            let expected = ask(&self.in_postgres, &query.sql).await;
            if matches!(expected, Answer::Error { .. }) && !expected.is_evaluation_error() {
                self.fail(&format!(
                    "PostgreSQL refuses a generated query: {}\n{}",
                    expected.describe(),
                    query.sql
                ));
                continue;
            }
            let name = format!("v{}", self.views.len());
            let statement = format!("CREATE MATERIALIZED VIEW {name} AS {}", query.sql);
            let created = ask(&self.in_node, &statement).await;
            // A query that we say we cannot do is no wrong answer. How many there may be is checked by the number of answers.
            if matches!(&created, Answer::Error { code, .. } if code == "0A000") {
                println!("not supported: {}\n{statement}", created.describe());
                continue;
            }
            if matches!(created, Answer::Error { .. }) {
                self.fail(&format!(
                    "a view cannot be created: {}\n{statement}",
                    created.describe()
                ));
                continue;
            }
            self.history.push(format!("/* {name} created */ SELECT"));
            self.views.push(View {
                name,
                query,
                told: Vec::new(),
            });
        }
    }

    async fn check(&mut self, when: &str) {
        let mut wrong = Vec::new();
        for (place, view) in self.views.iter().enumerate() {
            let expected = ask(&self.in_postgres, &view.query.sql).await;
            self.seen.answers += 1;
            match &expected {
                Answer::Rows(rows) => self.seen.rows += rows.len(),
                Answer::Error { .. } => self.seen.errors += 1,
            }
            let maintained = ask(&self.in_node, &format!("SELECT * FROM {}", view.name)).await;
            let ad_hoc = ask(&self.in_node, &view.query.sql).await;
            let types = &view.query.types;
            for (side, answer) in [("the view", maintained), ("the query", ad_hoc)] {
                if !agree(&answer, &expected, types) && !view.told.contains(&side) {
                    let what = format!(
                        "{when}: {side} {} differs\n{}\n  node: {}\n  PostgreSQL: {}",
                        view.name,
                        view.query.sql,
                        answer.describe(),
                        expected.describe()
                    );
                    wrong.push((place, side, what));
                }
            }
        }
        for (place, side, what) in wrong {
            self.views[place].told.push(side);
            self.fail(&what);
        }
    }

    async fn run(mut self) -> (Vec<String>, Seen) {
        for statement in self.generator.schema() {
            self.apply(&statement).await;
        }
        self.create_views(VIEWS_PER_ROUND / 2).await;
        self.check("empty").await;
        for statement in self.generator.fill() {
            self.apply(&statement).await;
        }
        self.check("filled").await;
        self.create_views(VIEWS_PER_ROUND / 2).await;
        self.check("all views").await;
        for step in 0..STEPS_PER_ROUND {
            if step == STEPS_PER_ROUND / 2 {
                self.node.kill().unwrap();
                self.node.restart().await.unwrap();
                self.in_node = connect(self.node.pg_port(), "materialize", &self.name)
                    .await
                    .unwrap();
                self.history.push("/* SIGKILL */ SELECT".to_owned());
                self.check("after SIGKILL").await;
            }
            for _ in 0..CHANGES_PER_STEP {
                for statement in self.generator.change() {
                    self.apply(&statement).await;
                }
            }
            self.check(&format!("step {step}")).await;
        }
        (self.failures, self.seen)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_queries_and_postgres_agree() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap())
    };
    let (seed, rounds) = (
        number("FLOWSTONE_SEED"),
        number("FLOWSTONE_DIFFERENTIAL_ROUNDS"),
    );
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let start = Instant::now();
    let mut failures = Vec::new();
    let rounds = match (rounds, seed) {
        (Some(rounds), _) => rounds,
        (None, Some(_)) => 1,
        (None, None) => u64::try_from(FIXED_SEEDS.len()).unwrap(),
    };
    for round in 0..rounds {
        let seed = match seed {
            Some(seed) => seed + round,
            None => usize::try_from(round)
                .ok()
                .and_then(|round| FIXED_SEEDS.get(round).copied())
                .unwrap_or_else(|| RandomState::new().hash_one(round) % 1_000_000_000),
        };
        eprintln!("round {round}: FLOWSTONE_SEED={seed}");
        let name = format!("seed_{seed}");
        let create = format!("CREATE DATABASE {name}");
        postgres
            .connect()
            .await
            .unwrap()
            .batch_execute(&create)
            .await
            .unwrap();
        node.connect()
            .await
            .unwrap()
            .batch_execute(&create)
            .await
            .unwrap();
        let (node_port, postgres_port) = (node.pg_port(), postgres.port());
        let (found, seen) = Round {
            in_node: connect(node_port, "materialize", &name).await.unwrap(),
            in_postgres: connect(postgres_port, "postgres", &name).await.unwrap(),
            generator: Generator::new(ChaCha8Rng::seed_from_u64(seed)),
            name: name.clone(),
            node: &mut node,
            views: Vec::new(),
            history: Vec::new(),
            failures: Vec::new(),
            seen: Seen::default(),
        }
        .run()
        .await;
        eprintln!("round {round}: {seen:?}");
        assert!(
            seen.answers >= 100 && seen.rows > 0,
            "too little was compared: {seen:?}"
        );
        for failure in &found {
            eprintln!("{failure}\n");
        }
        failures.extend(found);
        node.connect()
            .await
            .unwrap()
            .batch_execute(&format!("DROP DATABASE {name} CASCADE"))
            .await
            .unwrap();
    }
    eprintln!("{rounds} rounds in {:?}", start.elapsed());
    assert!(
        failures.is_empty(),
        "{} differences, printed above",
        failures.len()
    );
}
