//! Correlated subqueries against PostgreSQL: every shape of one gives the same rows as there, the same error, or `0A000`.
//!
//! Owns the comparison; the shapes are in `subqueries/shapes.txt`. Some of the queries are made materialized views too, whose rows are compared after changes.
//! A run takes a sample of the shapes, the same each time; `FLOWSTONE_SUBQUERIES=all` takes all of them, `FLOWSTONE_SEED` another sample.

use std::collections::BTreeMap;

use flowstone_tests::answer::{Answer, ask, connect};
use flowstone_tests::{Node, Postgres};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_postgres::Client;

const SHAPES: &str = include_str!("subqueries/shapes.txt");

/// One of so many combinations is tried.
const SAMPLED: u32 = 12;

/// One of so many tried queries is a view too.
const VIEWED: usize = 12;

/// The lines of each section.
fn sections() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in SHAPES.lines() {
        match line.strip_prefix('[') {
            Some(title) => name = title.trim_end_matches(']'),
            None if line.is_empty() || line.starts_with('#') => {}
            None => sections.entry(name).or_default().push(line),
        }
    }
    sections
}

/// All combinations.
fn queries() -> Vec<String> {
    let sections = sections();
    let mut queries = Vec::new();
    for inner in &sections["inner"] {
        let (inner, one_row) = match inner.strip_prefix('!') {
            Some(inner) => (inner, true),
            None => (*inner, false),
        };
        let conditions: &[&str] = if inner.contains("{P}") {
            &sections["conditions"]
        } else {
            &[""]
        };
        let of_one_row = if one_row {
            sections["outer of one row"].as_slice()
        } else {
            &[]
        };
        for condition in conditions {
            let subquery = inner.replace("{P}", &format!("({condition})"));
            for outer in sections["outer"].iter().chain(of_one_row) {
                queries.push(outer.replace("{S}", &subquery));
            }
        }
    }
    queries
}

fn sorted(answer: &Answer) -> Answer {
    match answer {
        Answer::Rows(rows) => {
            let mut rows = rows.clone();
            rows.sort();
            Answer::Rows(rows)
        }
        error => error.clone(),
    }
}

/// Whether the node's answer is PostgreSQL's.
fn is_right(node: &Answer, postgres: &Answer) -> bool {
    match (sorted(node), sorted(postgres)) {
        (Answer::Rows(node), Answer::Rows(postgres)) => node == postgres,
        (Answer::Error { code: node, .. }, Answer::Error { code: postgres, .. }) => {
            node == postgres
        }
        _ => false,
    }
}

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Answer::Error { code, .. } if code == "0A000")
}

async fn both(node: &Client, postgres: &Client, sql: &str) -> (Answer, Answer) {
    (ask(node, sql).await, ask(postgres, sql).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn correlated_subqueries_answer_as_postgresql_does_or_are_refused() {
    let all = std::env::var("FLOWSTONE_SUBQUERIES").is_ok_and(|value| value == "all");
    let seed = std::env::var("FLOWSTONE_SEED").map_or(1, |text| text.parse().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let node = Node::start(dir.path(), 2).await.unwrap();
    let in_postgres = connect(postgres.port(), "postgres", "postgres")
        .await
        .unwrap();
    let in_node = connect(node.pg_port(), "materialize", "materialize")
        .await
        .unwrap();
    for statement in &sections()["schema"] {
        let (node, postgres) = both(&in_node, &in_postgres, statement).await;
        assert!(
            is_right(&node, &postgres),
            "{statement}: {}",
            node.describe()
        );
    }
    let mut failures = Vec::new();
    let mut views = Vec::new();
    let (mut right, mut refused) = (0_usize, 0_usize);
    for query in queries() {
        if !all && !random.random_ratio(1, SAMPLED) {
            continue;
        }
        let (node, postgres) = both(&in_node, &in_postgres, &query).await;
        if is_right(&node, &postgres) {
            right += 1;
        } else if is_refusal(&node) {
            refused += 1;
            continue;
        } else {
            failures.push(format!(
                "{query}\n  node: {}\n  PostgreSQL: {}",
                node.describe(),
                postgres.describe()
            ));
            continue;
        }
        if matches!(postgres, Answer::Rows(_)) && right % VIEWED == 0 {
            let view = format!("v{}", views.len());
            let columns = match &postgres {
                Answer::Rows(rows) => rows.first().map_or(0, Vec::len),
                Answer::Error { .. } => 0,
            };
            // Columns without a name have the same name.
            let names: Vec<String> = (0..columns).map(|column| format!("c{column}")).collect();
            let create = if names.is_empty() {
                format!("CREATE MATERIALIZED VIEW {view} AS {query}")
            } else {
                format!(
                    "CREATE MATERIALIZED VIEW {view} ({}) AS {query}",
                    names.join(", ")
                )
            };
            match ask(&in_node, &create).await {
                Answer::Rows(_) => views.push((view, query)),
                error if is_refusal(&error) => refused += 1,
                error => failures.push(format!("{create}\n  node: {}", error.describe())),
            }
        }
    }
    for change in [
        "INSERT INTO i VALUES (9, 7, 7), (10, NULL, NULL), (11, 1, 10)",
        "DELETE FROM i WHERE id IN (3, 5)",
        "UPDATE o SET a = 1, b = 5 WHERE id = 4",
        "DELETE FROM j WHERE z = 1",
        "DELETE FROM i",
    ] {
        let (node, postgres) = both(&in_node, &in_postgres, change).await;
        assert!(is_right(&node, &postgres), "{change}: {}", node.describe());
        for (view, query) in &views {
            let expected = ask(&in_postgres, query).await;
            let maintained = ask(&in_node, &format!("SELECT * FROM {view}")).await;
            let is_error = matches!(expected, Answer::Error { .. });
            if !is_right(&maintained, &expected) && !is_error {
                failures.push(format!(
                    "after {change}: the view of {query}\n  node: {}\n  PostgreSQL: {}",
                    maintained.describe(),
                    expected.describe()
                ));
            }
        }
    }
    eprintln!("{right} right, {refused} refused, {} views", views.len());
    for failure in &failures {
        eprintln!("{failure}\n");
    }
    assert!(
        failures.is_empty(),
        "{} wrong answers, printed above",
        failures.len()
    );
    assert!(
        right > 10 * refused && right > 100 && !views.is_empty(),
        "too little was compared: {right} right, {refused} refused"
    );
}
