//! Statements that want more than a node has (`hostile/statements.sql`), against a node with little memory for queries: none may end it, take far more memory
//! than it held, be answered with a bug, or go on after its cancellation.

use std::path::Path;
use std::time::{Duration, Instant};

use flowstone_tests::{Node, NodeOptions, wait};
use futures::{Stream, StreamExt};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// What queries may hold.
const QUERY_MEMORY_MIB: &str = "256";
/// What the process may take above what it held, at any moment.
const TAKEN_MAX: u64 = 1 << 30;
/// A statement is cancelled after this.
const PATIENCE: Duration = Duration::from_millis(600);
/// How long a cancelled statement may keep its client waiting, and the node busy. Generous: the machine may be busy, the node is not optimised.
const DEADLINE: Duration = Duration::from_secs(20);
/// Processor time that the node may use for a statement after its cancellation: a second of a thread or two.
const WORK_AFTER_CANCELLATION: Duration = Duration::from_millis(1500);
/// The node is at rest if no thread of it computes for so long, but for moments.
const REST: Duration = Duration::from_millis(200);

/// How a statement is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Select,
    Insert,
    Update,
    View,
    Materialized,
    Prepare,
}

impl Form {
    fn of(word: &str) -> Self {
        match word {
            "select" => Self::Select,
            "insert" => Self::Insert,
            "update" => Self::Update,
            "view" => Self::View,
            "materialized" => Self::Materialized,
            "prepare" => Self::Prepare,
            other => panic!("no form: {other}"),
        }
    }

    /// The statements in which a query is tried, each on its own, and the one that clears up.
    fn statements(self, query: &str) -> (Vec<String>, Option<&'static str>) {
        match self {
            Self::Select => (vec![query.to_owned()], None),
            Self::Insert => (
                vec![format!(
                    "INSERT INTO sink SELECT CAST(x AS text) FROM ({query}) AS s (x)"
                )],
                Some("DELETE FROM sink"),
            ),
            Self::Update => (
                vec![format!(
                    "UPDATE target SET v = (SELECT CAST(x AS text) FROM ({query}) AS s (x) LIMIT 1)"
                )],
                Some("UPDATE target SET v = 'x'"),
            ),
            Self::View => (
                vec![
                    format!("CREATE VIEW hostile AS {query}"),
                    "SELECT * FROM hostile".to_owned(),
                ],
                Some("DROP VIEW IF EXISTS hostile"),
            ),
            Self::Materialized => (
                vec![
                    format!("CREATE MATERIALIZED VIEW hostile AS {query}"),
                    "SELECT * FROM hostile".to_owned(),
                ],
                Some("DROP MATERIALIZED VIEW IF EXISTS hostile"),
            ),
            Self::Prepare => (
                vec![
                    format!("PREPARE hostile AS {query}"),
                    "EXECUTE hostile".to_owned(),
                ],
                Some("DEALLOCATE ALL"),
            ),
        }
    }
}

/// The queries of the file with their forms and the lines they begin in.
fn queries() -> Vec<(usize, Vec<Form>, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile/statements.sql");
    let file = std::fs::read_to_string(path).unwrap();
    let mut queries = Vec::new();
    let mut forms = None;
    let mut query = String::new();
    for (number, line) in file.lines().enumerate() {
        if let Some(words) = line.strip_prefix("--") {
            let words = words.trim_start();
            if words.starts_with("select") {
                forms = Some((number + 2, words.split(' ').map(Form::of).collect()));
            }
            continue;
        }
        query.push_str(line);
        if let Some(whole) = query.strip_suffix(';') {
            let (line, forms) = forms.take().expect("every statement has forms");
            queries.push((line, forms, expanded(whole)));
            query.clear();
        }
    }
    queries
}

/// `text` with copies in place of `<<n|separator|text>>`.
fn expanded(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("<<") {
        result.push_str(before);
        let (macro_text, after) = inside.split_once(">>").expect("a macro ends");
        // `\|` is a bar that separates nothing.
        let parts: Vec<String> = macro_text
            .replace("\\|", "\u{1}")
            .split('|')
            .map(|part| part.replace('\u{1}', "|"))
            .collect();
        let [count, separator, copy] = parts.as_slice() else {
            panic!("{macro_text} has no three parts");
        };
        let count: usize = count.parse().unwrap();
        for number in 0..count {
            if number > 0 {
                result.push_str(separator);
            }
            result.push_str(&copy.replace('#', &number.to_string()));
        }
        rest = after;
    }
    result + rest
}

/// What the kernel says of a process.
struct Process(u32);

impl Process {
    fn status(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes << 10)
    }

    /// Bytes of memory it has.
    fn resident(&self) -> u64 {
        self.status("VmRSS").unwrap_or(0)
    }

    /// The most it has had since [`Process::forget_peak`].
    fn peak(&self) -> u64 {
        self.status("VmHWM").unwrap_or(0)
    }

    fn forget_peak(&self) {
        drop(std::fs::write(format!("/proc/{}/clear_refs", self.0), "5"));
    }

    /// Processor time it has used.
    fn work(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        let after_name = stat.rsplit(") ").next()?;
        let fields: Vec<&str> = after_name.split(' ').collect();
        let ticks: u64 =
            fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // A hundred ticks per second, whatever the kernel counts in.
        Some(Duration::from_millis(ticks * 10))
    }
}

impl Process {
    /// Whether a thread of it computes, or waits for a processor to do so: on a busy machine it may get none for long.
    fn is_runnable(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.0)) else {
            return false;
        };
        threads.filter_map(Result::ok).any(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('R'))
        })
    }
}

/// Waits until the node is at rest. Returns the processor time it used until then.
async fn until_at_rest(process: &Process) -> Result<Duration, String> {
    let begin = process.work().ok_or("the node is gone")?;
    let (mut since, mut seen) = (Instant::now(), begin);
    let waited = wait::until("the node to be at rest", DEADLINE, async || {
        let work = process.work().ok_or("the node is gone")?;
        if work - seen > REST / 4 || process.is_runnable() {
            (since, seen) = (Instant::now(), work);
        }
        if since.elapsed() >= REST {
            return Ok(());
        }
        Err(format!("{:?} of work", work - begin))
    });
    waited.await.map_err(|error| error.to_string())?;
    Ok(seen - begin)
}

/// Reads an answer to its end and forgets it. The SQLSTATE and the message if it is an error.
async fn answer(
    answer: impl Stream<Item = Result<SimpleQueryMessage, tokio_postgres::Error>>,
) -> Result<(), (String, String)> {
    let mut answer = std::pin::pin!(answer);
    while let Some(message) = answer.next().await {
        if let Err(error) = message {
            return Err(super::faults::said(&error));
        }
    }
    Ok(())
}

/// Runs a statement, cancels it if it takes long, and says what was wrong with that.
async fn attack(client: &Client, process: &Process, sql: &str) -> Result<String, String> {
    process.forget_peak();
    let held = process.resident();
    let running = async {
        match client.simple_query_raw(sql).await {
            Ok(messages) => answer(messages).await,
            Err(error) => Err(super::faults::said(&error)),
        }
    };
    let mut running = std::pin::pin!(running);
    let (outcome, cancelled) = match tokio::time::timeout(PATIENCE, &mut running).await {
        Ok(outcome) => (outcome, false),
        Err(_) => {
            let asked = client.cancel_token().cancel_query(NoTls).await;
            asked.map_err(|error| format!("cannot be cancelled: {error}"))?;
            match tokio::time::timeout(DEADLINE, &mut running).await {
                Ok(outcome) => (outcome, true),
                Err(_) => return Err(format!("no answer {DEADLINE:?} after its cancellation")),
            }
        }
    };
    let code = match &outcome {
        Ok(()) => "done".to_owned(),
        Err((code, message)) if code.is_empty() => return Err(format!("no answer: {message}")),
        Err((code, message)) if code == "XX000" => return Err(format!("a bug: {message}")),
        Err((code, _)) => code.clone(),
    };
    let work = until_at_rest(process).await?;
    if work > WORK_AFTER_CANCELLATION {
        return Err(format!("{code}, and {work:?} of work after that"));
    }
    let taken = process.peak().saturating_sub(held);
    if taken > TAKEN_MAX {
        return Err(format!("{code}, and took {} MiB", taken >> 20));
    }
    let cancelled = if cancelled { ", cancelled" } else { "" };
    Ok(format!("{code}{cancelled}, {} MiB", taken >> 20))
}

async fn start(dir: &Path) -> (Node, Client) {
    let options = NodeOptions {
        arguments: vec!["--query-memory-mib".to_owned(), QUERY_MEMORY_MIB.to_owned()],
        ..NodeOptions::default()
    };
    let node = Node::start_with(dir, 1, options).await.unwrap();
    let client = node.connect().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE one (v text);
             CREATE TABLE many (id int, v text);
             CREATE TABLE sink (v text);
             CREATE TABLE target (v text);
             INSERT INTO one VALUES ('x');
             INSERT INTO target VALUES ('x');
             INSERT INTO many SELECT g, 'row ' || g::text FROM generate_series(1, 1000) AS s (g)",
        )
        .await
        .unwrap();
    (node, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_statements_cost_nobody_but_themselves() {
    let mut dir = tempfile::tempdir().unwrap();
    let (mut node, mut client) = start(dir.path()).await;
    let mut faults = Vec::new();
    for (line, forms, query) in queries() {
        for form in forms {
            let (statements, clear) = form.statements(&query);
            for sql in statements {
                let process = Process(node.pid().unwrap());
                let begin = Instant::now();
                let Err(fault) = attack(&client, &process, &sql).await else {
                    continue;
                };
                // Of hundreds of statements only these: what is printed may be cut off.
                println!("{line} {form:?}: {fault} in {:?}", begin.elapsed());
                faults.push(format!("line {line} as {form:?}: {fault}"));
                // Whatever it left behind must not be taken for the next one's.
                drop(node);
                dir = tempfile::tempdir().unwrap();
                (node, client) = start(dir.path()).await;
                break;
            }
            if let Some(clear) = clear {
                client.batch_execute(clear).await.unwrap();
                // What is cleared up, a million rows perhaps, is not the next one's work.
                let process = Process(node.pid().unwrap());
                until_at_rest(&process).await.unwrap();
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
