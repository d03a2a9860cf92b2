//! The 22 queries of TPC-H, asked once and kept as materialized views, against PostgreSQL: after every few changes of a random script, after a
//! SIGKILL in its middle, and when all rows are gone. None of the views is recomputed as a whole.
//!
//! Owns the rows: few, and of few values, so that every query finds some. `FLOWSTONE_SEED` repeats a script.

use std::collections::BTreeSet;
use std::fmt::Write;

use flowstone_tests::answer::{Answer, Row, ask, connect};
use flowstone_tests::{Node, Postgres, tpch};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_postgres::Client;

const SEED: u64 = 22;
const STEPS: usize = 6;
const CHANGES_PER_STEP: usize = 3;

const NATIONS: [(&str, usize); 7] = [
    ("FRANCE", 3),
    ("GERMANY", 3),
    ("BRAZIL", 1),
    ("CANADA", 1),
    ("SAUDI ARABIA", 4),
    ("CHINA", 2),
    ("INDIA", 2),
];
const REGIONS: [&str; 5] = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"];
const BRANDS: [&str; 4] = ["Brand#12", "Brand#23", "Brand#34", "Brand#45"];
const CONTAINERS: [&str; 3] = ["SM CASE", "MED BOX", "LG PKG"];
const KINDS: [&str; 5] = [
    "ECONOMY ANODIZED STEEL",
    "PROMO BURNISHED BRASS",
    "STANDARD PLATED BRASS",
    "MEDIUM POLISHED TIN",
    "LARGE BRUSHED BRASS",
];
const NAMES: [&str; 4] = ["forest green", "forest azure", "almond green", "azure"];
const SIZES: [i32; 7] = [1, 3, 4, 9, 14, 15, 15];
const MODES: [&str; 4] = ["AIR", "AIR REG", "MAIL", "SHIP"];
const SEGMENTS: [&str; 2] = ["BUILDING", "MACHINERY"];
const PRIORITIES: [&str; 3] = ["1-URGENT", "2-HIGH", "5-LOW"];
const PREFIXES: [&str; 4] = ["13", "31", "23", "40"];

const PARTS: i32 = 36;
const SUPPLIERS: i32 = 18;
const SUPPLIERS_OF_A_PART: i32 = 3;
const CUSTOMERS: i32 = 48;
const ORDERS: i32 = 220;

fn pick<'a>(rng: &mut ChaCha8Rng, values: &[&'a str]) -> &'a str {
    values.choose(rng).copied().unwrap()
}

/// With two digits behind the point.
fn money(rng: &mut ChaCha8Rng, cents: std::ops::Range<i64>) -> String {
    let cents = rng.random_range(cents);
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

/// Makes rows and changes of them.
struct Script {
    rng: ChaCha8Rng,
    orders: BTreeSet<i32>,
    next_order: i32,
}

impl Script {
    fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            orders: BTreeSet::new(),
            next_order: 1,
        }
    }

    fn supplier_of(part: i32, place: i32) -> i32 {
        (part * 5 + place * 7) % SUPPLIERS + 1
    }

    /// What no change adds to.
    fn dimensions(&mut self) -> Vec<String> {
        let rng = &mut self.rng;
        let regions = REGIONS
            .iter()
            .enumerate()
            .map(|(key, name)| format!("({key}, '{name}', NULL)"));
        let nations = NATIONS
            .iter()
            .enumerate()
            .map(|(key, (name, region))| format!("({key}, '{name}', {region}, 'n')"));
        let mut statements = vec![insert("region", regions), insert("nation", nations)];
        let parts: Vec<String> = (1..=PARTS)
            .map(|key| {
                format!(
                    "({key}, '{}', 'Manufacturer#{}', '{}', '{}', {}, '{}', {}, 'p{key}')",
                    pick(rng, &NAMES),
                    key % 5,
                    pick(rng, &BRANDS),
                    pick(rng, &KINDS),
                    SIZES.choose(rng).unwrap(),
                    pick(rng, &CONTAINERS),
                    money(rng, 90_000..200_000),
                )
            })
            .collect();
        let suppliers: Vec<String> = (1..=SUPPLIERS)
            .map(|key| {
                let comment = if rng.random_ratio(1, 6) {
                    "of a Customer: more Complaints"
                } else {
                    "quiet"
                };
                format!(
                    "({key}, 'Supplier#{key}', 'street {key}', {}, '{}-1', {}, '{comment}')",
                    rng.random_range(0..NATIONS.len()),
                    pick(rng, &PREFIXES),
                    money(rng, -99_999..999_999),
                )
            })
            .collect();
        let mut offers = Vec::new();
        for part in 1..=PARTS {
            for place in 0..SUPPLIERS_OF_A_PART {
                offers.push(format!(
                    "({part}, {}, {}, {}, NULL)",
                    Self::supplier_of(part, place),
                    rng.random_range(1..100),
                    money(rng, 100..100_000),
                ));
            }
        }
        let customers: Vec<String> = (1..=CUSTOMERS)
            .map(|key| {
                format!(
                    "({key}, 'Customer#{key}', 'road {key}', {}, '{}-{key}', {}, '{}', NULL)",
                    rng.random_range(0..NATIONS.len()),
                    pick(rng, &PREFIXES),
                    money(rng, -99_999..999_999),
                    pick(rng, &SEGMENTS),
                )
            })
            .collect();
        statements.extend([
            insert("part", parts),
            insert("supplier", suppliers),
            insert("partsupp", offers),
            insert("customer", customers),
        ]);
        statements
    }

    /// Orders with their lines.
    fn orders(&mut self, count: i32) -> Vec<String> {
        let (mut orders, mut lines) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let key = self.next_order;
            self.next_order += 1;
            self.orders.insert(key);
            let rng = &mut self.rng;
            let day = rng.random_range(0..1300);
            let comment = if rng.random_ratio(1, 5) {
                "special as all requests"
            } else {
                "as usual"
            };
            // A third of the customers never order.
            let customer = loop {
                let customer = rng.random_range(1..=CUSTOMERS);
                if customer % 3 != 0 {
                    break customer;
                }
            };
            orders.push(format!(
                "({key}, {customer}, '{}', {}, DATE '1993-06-01' + {day}, '{}', 'clerk', 0, '{comment}')",
                pick(rng, &["F", "O"]),
                money(rng, 100_000..50_000_000),
                pick(rng, &PRIORITIES),
            ));
            let large = rng.random_ratio(1, 8);
            let count = if large { 9 } else { rng.random_range(1..6) };
            for line in 1..=count {
                let part = rng.random_range(1..=PARTS);
                let supplier = Self::supplier_of(part, rng.random_range(0..SUPPLIERS_OF_A_PART));
                let quantity = rng.random_range(if large { 30..51 } else { 1..51 });
                let ship = day + rng.random_range(1..100);
                let mut values = format!("({key}, {part}, {supplier}, {line}, {quantity}, ");
                let _ = write!(
                    values,
                    "{}, 0.{:02}, 0.{:02}, '{}', '{}', DATE '1993-06-01' + {ship}, DATE '1993-06-01' + {}, DATE '1993-06-01' + {}, '{}', '{}', NULL)",
                    money(rng, 90_000..5_000_000),
                    rng.random_range(0..11),
                    rng.random_range(0..9),
                    pick(rng, &["R", "A", "N"]),
                    pick(rng, &["F", "O"]),
                    day + rng.random_range(20..110),
                    ship + rng.random_range(1..30),
                    pick(rng, &["DELIVER IN PERSON", "NONE"]),
                    pick(rng, &MODES),
                );
                lines.push(values);
            }
        }
        vec![insert("orders", orders), insert("lineitem", lines)]
    }

    /// Statements that belong together.
    fn change(&mut self) -> Vec<String> {
        match self.rng.random_range(0..9) {
            0 | 1 => {
                let count = self.rng.random_range(1..8);
                self.orders(count)
            }
            2 => {
                let keys: Vec<i32> = self.orders.iter().copied().collect();
                let gone: Vec<i32> = keys.choose_multiple(&mut self.rng, 6).copied().collect();
                for key in &gone {
                    self.orders.remove(key);
                }
                let keys = gone.iter().map(i32::to_string).collect::<Vec<_>>();
                let keys = keys.join(", ");
                vec![
                    format!("DELETE FROM lineitem WHERE l_orderkey IN ({keys})"),
                    format!("DELETE FROM orders WHERE o_orderkey IN ({keys})"),
                ]
            }
            3 => vec![format!(
                "UPDATE lineitem SET l_quantity = (l_quantity * 7)::int % 50 + 1, l_discount = 0.06 WHERE l_partkey = {}",
                self.rng.random_range(1..=PARTS)
            )],
            4 => vec![format!(
                "UPDATE supplier SET s_nationkey = {}, s_comment = CASE WHEN s_comment = 'quiet' THEN 'Customer Complaints' ELSE 'quiet' END WHERE s_suppkey = {}",
                self.rng.random_range(0..NATIONS.len()),
                self.rng.random_range(1..=SUPPLIERS)
            )],
            5 => vec![format!(
                "UPDATE customer SET c_acctbal = -c_acctbal, c_mktsegment = '{}' WHERE c_custkey % 7 = {}",
                pick(&mut self.rng, &SEGMENTS),
                self.rng.random_range(0..7)
            )],
            6 => vec![format!(
                "UPDATE part SET p_brand = '{}', p_name = '{}', p_size = 15 WHERE p_partkey = {}",
                pick(&mut self.rng, &BRANDS),
                pick(&mut self.rng, &NAMES),
                self.rng.random_range(1..=PARTS)
            )],
            7 => vec![format!(
                "UPDATE partsupp SET ps_supplycost = ps_supplycost / 2, ps_availqty = ps_availqty + 40 WHERE ps_suppkey = {}",
                self.rng.random_range(1..=SUPPLIERS)
            )],
            _ => vec![format!(
                "UPDATE orders SET o_orderstatus = 'F', o_comment = 'special requests', o_orderdate = o_orderdate - 200 WHERE o_custkey = {}",
                self.rng.random_range(1..=CUSTOMERS)
            )],
        }
    }
}

fn insert(table: &str, rows: impl IntoIterator<Item = String>) -> String {
    let rows: Vec<String> = rows.into_iter().collect();
    format!("INSERT INTO {table} VALUES {}", rows.join(", "))
}

/// Both servers, and what was found.
struct Both {
    node: Client,
    postgres: Client,
    history: Vec<String>,
    differences: Vec<String>,
    /// How many rows each query gave, all times together.
    rows: [usize; tpch::QUERIES.len()],
}

impl Both {
    async fn apply(&mut self, statements: Vec<String>) {
        // UPDATE and DELETE are transactions of their own.
        let together = statements.iter().all(|sql| sql.starts_with("INSERT"));
        let statements = if together {
            vec![format!("BEGIN; {}; COMMIT", statements.join("; "))]
        } else {
            statements
        };
        for sql in statements {
            let (here, there) = (ask(&self.node, &sql).await, ask(&self.postgres, &sql).await);
            assert_eq!(here, there, "{sql}");
            self.history.push(sql);
        }
    }

    async fn check(&mut self, when: &str) {
        for (place, query) in tpch::QUERIES.iter().enumerate() {
            let expected = ask(&self.postgres, query).await;
            let Answer::Rows(rows) = &expected else {
                panic!("PostgreSQL refuses q{}: {}", place + 1, expected.describe());
            };
            self.rows[place] += rows.len();
            let asked = ask(&self.node, query).await;
            let view = format!("SELECT * FROM q{}", place + 1);
            let maintained = ask(&self.node, &view).await;
            if canonical(&asked) != canonical(&expected) {
                self.differ(when, place, "asked", &asked, &expected);
            }
            if sorted(&maintained) != sorted(&expected) {
                self.differ(when, place, "the view", &maintained, &expected);
            }
        }
    }

    fn differ(&mut self, when: &str, place: usize, side: &str, here: &Answer, there: &Answer) {
        self.differences.push(format!(
            "{when}, q{}, {side}:\n  node: {}\n  PostgreSQL: {}",
            place + 1,
            here.describe(),
            there.describe()
        ));
    }
}

/// The rows, without how many digits of a quotient or an average a numeric keeps.
fn canonical(answer: &Answer) -> Result<Vec<Row>, String> {
    let Answer::Rows(rows) = answer else {
        return Err(answer.describe());
    };
    let value = |text: &String| match text.parse::<f64>() {
        Ok(number) => format!("{number:.12e}"),
        Err(_) => text.clone(),
    };
    let row = |row: &Row| row.iter().map(|text| text.as_ref().map(value)).collect();
    Ok(rows.iter().map(row).collect())
}

/// A view has no order.
fn sorted(answer: &Answer) -> Result<Vec<Row>, String> {
    let mut rows = canonical(answer)?;
    rows.sort();
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queries_of_tpch_are_answered_and_maintained_as_postgres_answers_them() {
    let seed = std::env::var("FLOWSTONE_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let postgres = Postgres::start(dir.path()).unwrap();
    let mut node = Node::start(dir.path(), 2).await.unwrap();
    let mut script = Script::new(seed);
    let mut both = Both {
        node: node.connect().await.unwrap(),
        postgres: postgres.connect().await.unwrap(),
        history: Vec::new(),
        differences: Vec::new(),
        rows: [0; tpch::QUERIES.len()],
    };
    for table in tpch::TABLES {
        both.node.batch_execute(table).await.unwrap();
        both.postgres.batch_execute(table).await.unwrap();
    }
    let statements = script.dimensions();
    both.apply(statements).await;
    // Half of the views see all rows come, half are hydrated from them.
    let create = |place: usize| {
        let query = tpch::QUERIES[place];
        format!("CREATE MATERIALIZED VIEW q{} AS {query}", place + 1)
    };
    for place in (0..tpch::QUERIES.len()).step_by(2) {
        both.node.batch_execute(&create(place)).await.unwrap();
    }
    let statements = script.orders(ORDERS);
    both.apply(statements).await;
    for place in (1..tpch::QUERIES.len()).step_by(2) {
        both.node.batch_execute(&create(place)).await.unwrap();
    }
    both.check("filled").await;
    for number in 1..=tpch::QUERIES.len() {
        let explain = format!("EXPLAIN INCREMENTAL PLAN FOR MATERIALIZED VIEW q{number}");
        let explained = ask(&both.node, &explain).await.describe();
        assert!(
            explained.contains("[incremental") && !explained.contains("RECOMPUTED"),
            "q{number} is recomputed: {explained}"
        );
    }
    for step in 0..STEPS {
        if step == STEPS / 2 {
            node.kill().unwrap();
            node.restart().await.unwrap();
            both.node = connect(node.pg_port(), "materialize", "materialize")
                .await
                .unwrap();
            both.check("after SIGKILL").await;
        }
        for _ in 0..CHANGES_PER_STEP {
            let statements = script.change();
            both.apply(statements).await;
        }
        both.check(&format!("step {step}")).await;
    }
    let gone = ["lineitem", "orders", "customer", "partsupp", "supplier"];
    let statements = gone.map(|table| format!("DELETE FROM {table}"));
    both.apply(statements.to_vec()).await;
    both.check("emptied").await;

    assert!(
        both.differences.is_empty(),
        "{} differences with FLOWSTONE_SEED={seed}:\n{}\n-- changes:\n{}",
        both.differences.len(),
        both.differences.join("\n"),
        both.history.get(2..).unwrap_or_default().join(";\n")
    );
    let silent: Vec<usize> = (1..)
        .zip(both.rows)
        .filter(|(_, rows)| *rows == 0)
        .map(|(number, _)| number)
        .collect();
    assert!(
        silent.is_empty(),
        "queries that never found a row: {silent:?}"
    );
}
