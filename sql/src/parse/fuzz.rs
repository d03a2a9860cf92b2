//! Fuzz target: whatever a client sends as a query string. The seeds are in `fuzz/statements.txt`.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use flowstone_fuzz::{config, mutated, texts};
use proptest::test_runner::{TestCaseError, TestRunner};
use sqlparser::ast::{Expr, Query};

use super::cursor::Source;
use super::{expr_text, parse, parse_expr, parse_query, query_text};
use crate::ast::{Statement, StatementKind};
use crate::error::Error;

/// Stack of the node's threads in bytes: what is parsed there must not need more.
const STACK_BYTES: usize = 16 << 20;
/// Longer than any input may take, on the slowest machine that runs the tests.
const DEADLINE: Duration = Duration::from_secs(60);

fn seeds() -> Vec<Vec<u8>> {
    texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/statements.txt"))
}

/// A position is that of a character of the text, where a token starts if there are tokens, or just behind its end.
fn check_position(text: &str, error: &Error) {
    let position = error
        .position
        .unwrap_or_else(|| panic!("{error:?} is nowhere"));
    let end = text.chars().count() + 1;
    assert!(
        (1..=end).contains(&position),
        "{error:?} in {end} characters"
    );
    if let Ok(source) = Source::new(text) {
        let starts = source
            .tokens
            .iter()
            .map(|token| source.position(token.span.start));
        assert!(
            position == end || starts.into_iter().any(|start| start == position),
            "{error:?} is inside of a token"
        );
    }
}

/// The catalog can keep the text of a query, and making it anew changes nothing. `Display` cannot write two quotes in a name, nor one behind a backslash.
fn check_query(query: &Query) {
    match query_text(query) {
        Ok(text) => assert_eq!(query_text(&parse_query(&text).unwrap()), Ok(text)),
        Err(error) => assert!(has_hard_name(query), "{query}: {error:?}"),
    }
}

fn check_expr(expr: &Expr) {
    match expr_text(expr) {
        Ok(text) => assert_eq!(expr_text(&parse_expr(&text).unwrap()), Ok(text)),
        Err(error) => assert!(has_hard_name(expr), "{expr}: {error:?}"),
    }
}

fn has_hard_name(tree: &impl Display) -> bool {
    let text = tree.to_string();
    text.contains("\"\"") || text.contains("\\\"")
}

fn check_statement(text: &str, statement: &Statement) {
    let found = text.chars().skip(statement.offset);
    let found: String = found.take(statement.text.chars().count()).collect();
    assert_eq!(found, statement.text);
    if let StatementKind::Unsupported(error) = &statement.kind {
        return check_position(text, error);
    }
    // What is kept of a statement is its text: alone, and where it was, it is the same statement.
    let alone = format!("{}{}", " ".repeat(statement.offset), statement.text);
    match parse(&alone).as_deref() {
        Ok([again]) => assert_eq!(again, statement),
        other => panic!("{alone}: {other:?}"),
    }
    match &statement.kind {
        StatementKind::CreateView(create) => check_query(&create.query),
        StatementKind::CreateMaterializedView(create) => check_query(&create.query),
        StatementKind::Query(query) => check_query(&query.query),
        StatementKind::CreateIndex(create) => create.keys.iter().flatten().for_each(check_expr),
        StatementKind::CreateTable(create) => {
            let defaults = create
                .columns
                .iter()
                .filter_map(|column| column.default.as_ref());
            defaults.for_each(|default| check_expr(default));
        }
        _ => {}
    }
}

fn check(text: &str) {
    match parse(text) {
        Ok(statements) => statements
            .iter()
            .for_each(|statement| check_statement(text, statement)),
        Err(error) => check_position(text, &error),
    }
    // What is in the catalog goes through these.
    for error in [parse_query(text).err(), parse_expr(text).err()]
        .iter()
        .flatten()
    {
        check_position(text, error);
    }
}

/// A thread with the stack that the node's threads have.
struct Checker {
    texts: SyncSender<String>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Checker {
    fn start() -> Self {
        let (texts, wanted) = sync_channel::<String>(1);
        let (finished, done) = sync_channel(1);
        let check_all = move || {
            for text in wanted {
                check(&text);
                finished.send(()).unwrap();
            }
        };
        let thread = std::thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(check_all)
            .unwrap();
        Self {
            texts,
            done,
            thread,
        }
    }
}

/// Checks a text on a thread that is kept until it fails.
fn check_in_time(checker: &RefCell<Option<Checker>>, text: String) -> Result<(), TestCaseError> {
    let running = checker.take().unwrap_or_else(Checker::start);
    running.texts.send(text).unwrap();
    match running.done.recv_timeout(DEADLINE) {
        Ok(()) => {
            checker.replace(Some(running));
            Ok(())
        }
        Err(RecvTimeoutError::Timeout) => Err(TestCaseError::fail("it takes too long")),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = running.thread.join().unwrap_err();
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(TestCaseError::fail(text.unwrap_or_default()))
        }
    }
}

#[test]
fn most_seeds_are_statements() {
    let seeds = seeds();
    let parses = |seed: &&Vec<u8>| parse(std::str::from_utf8(seed).unwrap()).is_ok();
    assert_eq!((seeds.iter().filter(parses).count(), seeds.len()), (85, 91));
}

#[test]
fn every_text_is_parsed_or_refused_where_it_is_wrong() {
    let checker = RefCell::new(None);
    TestRunner::new(config())
        .run(&mutated(seeds()), |input| {
            check_in_time(&checker, String::from_utf8_lossy(&input.0).into_owned())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
