use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use flowstone_proto::message::SourceTable;
use flowstone_types::value::ColumnFormatter;
use flowstone_types::{SourceChanges, SourceOp, SourcePosition, SqlType};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::Error;
use crate::row_errors::RowErrors;
use crate::rows::Value;

const SOURCE: ObjectId = ObjectId::User(1);
const TABLE: ObjectId = ObjectId::User(2);
/// Everything has to go to disk.
const NOTHING: BufferLimits = BufferLimits {
    memory_bytes: 0,
    disk_bytes: 0,
};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        SqlType::Int4.to_field("id", false),
        SqlType::Int4.to_field("n", true),
        SqlType::Text.to_field("v", true),
    ]))
}

fn at(offset: u64) -> SourcePosition {
    SourcePosition::PostgresLsn(offset)
}

/// A log and what reads it.
#[derive(Debug)]
struct Log {
    transactions: TableTransactions,
    errors: RowErrors,
    /// How many transactions have ended.
    ended: u64,
}

impl Log {
    fn new() -> Self {
        let table = SourceTable {
            id: TABLE,
            upstream_schema: "public".to_owned(),
            upstream_name: "t".to_owned(),
            upstream_oid: 1,
            columns: Vec::new(),
            key: vec![0],
            upstream: Vec::new(),
        };
        Self {
            transactions: TableTransactions::new(schema(), vec![0]),
            errors: RowErrors::new(&table),
            ended: 0,
        }
    }

    fn append(&mut self, op: SourceOp, id: i32, n: Value<'_>, v: Value<'_>) {
        let id = id.to_string();
        let values = [Value::Text(id.as_bytes()), n, v];
        self.transactions
            .append(op, values.into_iter(), 10)
            .unwrap();
    }

    fn commit(&mut self) {
        if self.transactions.is_unfinished() {
            self.ended += 1;
            self.transactions.commit(&at(self.ended));
        }
    }

    /// Writes everything to disk that is in memory.
    fn spill(&mut self, directory: &SpillDirectory) {
        let table = std::iter::once((TABLE, &mut self.transactions));
        for candidate in candidates(table, NOTHING).unwrap() {
            let file = directory.write(&candidate.closed).unwrap();
            self.transactions.set_spilled(&candidate, file);
        }
        assert_eq!(self.transactions.usage().memory, 0);
    }

    /// Everything up to a position, as text: what is emptied, each row, and how errors change.
    async fn cut(&mut self, position: u64) -> Vec<String> {
        self.load(position).await;
        self.cut_loaded(position).await
    }

    /// Reads what has to be in memory before that.
    async fn load(&mut self, position: u64) {
        while let Some(straddling) = self.transactions.straddling(&at(position)) {
            let closed = straddling.spilled.load().await.unwrap();
            self.transactions.set_loaded(&straddling, closed);
        }
    }

    /// How many segments may go to disk.
    fn candidates(&mut self) -> usize {
        let table = std::iter::once((TABLE, &mut self.transactions));
        candidates(table, NOTHING).unwrap().len()
    }

    /// As [`Log::cut`], once everything is in memory that has to be.
    async fn cut_loaded(&mut self, position: u64) -> Vec<String> {
        let position = at(position);
        let mut lines = Vec::new();
        // All of an epoch's are one change: pieces end where they do.
        let mut sum: BTreeMap<String, i64> = BTreeMap::new();
        for part in self.transactions.cut(&position).unwrap() {
            let (changes, notes) = match part {
                Part::Buffered(closed) => closed.into_changes(),
                Part::Spilled(spilled) => spilled.load().await.unwrap().into_changes(),
            };
            assert!(changes.ops.len() <= 8192);
            let (changes, errors) = self.errors.resolve(changes, notes, 1).unwrap();
            lines.extend(render(&changes));
            for (error, weight) in errors {
                *sum.entry(error.message).or_default() += weight;
            }
        }
        sum.retain(|_, weight| *weight != 0);
        lines.extend(sum.into_iter().map(|error| format!("{error:?}")));
        lines
    }
}

fn render(changes: &SourceChanges) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(changes.truncate_before.then(|| "truncate".to_owned()));
    let types = [SqlType::Int4, SqlType::Int4, SqlType::Text];
    let columns: Vec<_> = changes
        .rows
        .columns()
        .iter()
        .zip(&types)
        .map(|(column, sql_type)| ColumnFormatter::new(column, sql_type).unwrap())
        .collect();
    assert_eq!(changes.rows.num_rows(), changes.ops.len());
    for (row, op) in changes.ops.iter().enumerate() {
        let mut line = format!("{op:?}");
        for column in &columns {
            line.push(' ');
            if !column.write_text(row, &mut line).unwrap() {
                line.push('-');
            }
        }
        let left_out = changes.unchanged.iter();
        let left_out = left_out.filter(|(other, _)| usize::try_from(*other) == Ok(row));
        for (_, column) in left_out {
            line.push_str(&format!(" same {column}"));
        }
        lines.push(line);
    }
    lines
}

/// What happens to a log.
#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(i32, u16),
    /// The value is left out.
    Upsert(i32),
    /// A value that cannot be held.
    Bad(i32),
    /// The key changes, and the value is left out.
    Move(i32),
    Delete(i32),
    Truncate,
    Commit,
    RollBack,
    /// Takes all but some of the transactions that have ended.
    Cut(u64),
    /// Forgets all but some of them.
    Drop(u64),
    Spill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0..5_i32;
    let step = prop_oneof![
        6 => (id.clone(), prop_oneof![9 => 1..60_u16, 1 => Just(9000)]).prop_map(|(id, rows)| Step::Insert(id, rows)),
        3 => id.clone().prop_map(Step::Upsert),
        2 => id.clone().prop_map(Step::Bad),
        2 => id.clone().prop_map(Step::Move),
        2 => id.prop_map(Step::Delete),
        1 => Just(Step::Truncate),
        6 => Just(Step::Commit),
        1 => Just(Step::RollBack),
        3 => (0..4_u64).prop_map(Step::Cut),
        1 => (0..4_u64).prop_map(Step::Drop),
        4 => Just(Step::Spill),
    ];
    prop::collection::vec(step, 1..60)
}

/// A log of the transactions 1 and 2 and of one that is open, each of the row of its number, in one segment on disk.
fn straddled(directory: &SpillDirectory) -> Log {
    let mut log = Log::new();
    for id in [1, 2] {
        log.append(SourceOp::Insert, id, Value::Null, Value::Null);
        log.commit();
    }
    log.append(SourceOp::Insert, 3, Value::Null, Value::Null);
    log.spill(directory);
    log
}

/// Takes a step; returns what it gave.
async fn take_step(log: &mut Log, step: Step, directory: Option<&SpillDirectory>) -> Vec<String> {
    let text = Value::Text(b"a longer text");
    match step {
        Step::Insert(id, rows) => {
            for row in 0..i32::from(rows) {
                log.append(SourceOp::Insert, id + 10 * row, Value::Text(b"1"), text);
            }
        }
        Step::Upsert(id) => log.append(SourceOp::Upsert, id, Value::Null, Value::Unchanged),
        Step::Bad(id) => log.append(SourceOp::Upsert, id, Value::Text(b"no number"), text),
        Step::Move(id) => {
            log.append(SourceOp::DeleteByKey, id, Value::Null, Value::Null);
            log.append(SourceOp::Upsert, id + 1, Value::Null, Value::Unchanged);
            log.transactions.note_moved();
        }
        Step::Delete(id) => log.append(SourceOp::DeleteByKey, id, Value::Null, Value::Null),
        Step::Truncate => log.transactions.truncate().unwrap(),
        Step::Commit => log.commit(),
        Step::RollBack => log.transactions.roll_back(),
        Step::Cut(lag) => return log.cut(log.ended.saturating_sub(lag)).await,
        Step::Drop(lag) => {
            let position = at(log.ended.saturating_sub(lag));
            log.transactions.drop_through(&position).unwrap();
        }
        Step::Spill => {
            if let Some(directory) = directory {
                log.spill(directory);
            }
        }
    }
    Vec::new()
}

/// What happens around a take that does not happen at once.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Append(u16),
    Commit,
    RollBack,
    /// Forgets all but some of the transactions that have ended.
    Drop(u64),
    /// A take of all but some of them begins, unless one goes on.
    Take(u64),
    /// It reads what it straddles,
    Read,
    /// puts it in its place,
    Load,
    /// and cuts if nothing straddles any more.
    Cut,
    GiveUp,
    /// What is beyond so many bytes is chosen to go to disk, unless something is,
    Choose(u64),
    /// and is there.
    Spill,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let rows = prop_oneof![9 => 1..60_u16, 1 => Just(9000)];
    let turn = prop_oneof![
        6 => rows.prop_map(Turn::Append),
        6 => Just(Turn::Commit),
        1 => Just(Turn::RollBack),
        1 => (0..4_u64).prop_map(Turn::Drop),
        4 => (0..4_u64).prop_map(Turn::Take),
        4 => Just(Turn::Read),
        4 => Just(Turn::Load),
        4 => Just(Turn::Cut),
        1 => Just(Turn::GiveUp),
        4 => prop_oneof![Just(0), Just(4096)].prop_map(Turn::Choose),
        4 => Just(Turn::Spill),
    ];
    prop::collection::vec(turn, 1..120)
}

/// The transactions of a log as upstream has them, which is all that what was taken is compared with.
#[derive(Debug, Default)]
struct Upstream {
    open: Vec<i32>,
    /// Where each ends, and its rows.
    ended: Vec<(u64, Vec<i32>)>,
    /// How many rows there were ever: the number of each is its own.
    rows: i32,
}

impl Upstream {
    /// The rows of the transactions that end at or before `position`. They are not there any more.
    fn through(&mut self, position: u64) -> Vec<String> {
        let through = self.ended.extract_if(.., |(end, _)| *end <= position);
        through
            .flat_map(|(_, rows)| rows)
            .map(|id| format!("Insert {id} - -"))
            .collect()
    }
}

/// A log, and what goes on beside it.
#[derive(Debug)]
struct Trial {
    log: Log,
    upstream: Upstream,
    /// Where a take goes on, and whether something was read and put in its place for it.
    take: Option<(u64, bool)>,
    read: Option<(Straddling, Closed)>,
    chosen: Vec<Candidate>,
}

impl Trial {
    fn new() -> Self {
        Self {
            log: Log::new(),
            upstream: Upstream::default(),
            take: None,
            read: None,
            chosen: Vec::new(),
        }
    }

    async fn turn(&mut self, turn: Turn, directory: &SpillDirectory) {
        let (log, upstream) = (&mut self.log, &mut self.upstream);
        match turn {
            Turn::Append(rows) => {
                for _ in 0..rows {
                    upstream.rows += 1;
                    upstream.open.push(upstream.rows);
                    log.append(SourceOp::Insert, upstream.rows, Value::Null, Value::Null);
                }
            }
            Turn::Commit => {
                log.commit();
                if !upstream.open.is_empty() {
                    let rows = std::mem::take(&mut upstream.open);
                    upstream.ended.push((log.ended, rows));
                }
            }
            Turn::RollBack => {
                log.transactions.roll_back();
                upstream.open.clear();
            }
            Turn::Drop(lag) => {
                let position = log.ended.saturating_sub(lag);
                log.transactions.drop_through(&at(position)).unwrap();
                drop(upstream.through(position));
            }
            Turn::Take(lag) => {
                let position = log.ended.saturating_sub(lag);
                self.take.get_or_insert((position, false));
            }
            Turn::Read => {
                if let Some((position, _)) = self.take
                    && let Some(straddling) = log.transactions.straddling(&at(position))
                {
                    let closed = straddling.spilled.load().await.unwrap();
                    self.read = Some((straddling, closed));
                }
            }
            Turn::Load => {
                if let Some((position, loaded)) = &mut self.take
                    && let Some((straddling, closed)) = self.read.take()
                {
                    let position = at(*position);
                    let before = log.transactions.straddling(&position).is_some();
                    log.transactions.set_loaded(&straddling, closed);
                    *loaded |= before && log.transactions.straddling(&position).is_none();
                }
            }
            Turn::Cut => {
                if let Some((position, _)) = self.take
                    && log.transactions.straddling(&at(position)).is_none()
                {
                    let expected = upstream.through(position);
                    assert_eq!(log.cut_loaded(position).await, expected);
                    (self.take, self.read) = (None, None);
                }
            }
            Turn::GiveUp => {
                log.transactions.unpin();
                (self.take, self.read) = (None, None);
            }
            Turn::Choose(memory_bytes) => {
                if self.chosen.is_empty() {
                    let limits = BufferLimits {
                        memory_bytes,
                        ..NOTHING
                    };
                    let table = std::iter::once((TABLE, &mut log.transactions));
                    self.chosen = candidates(table, limits).unwrap();
                }
            }
            Turn::Spill => {
                for candidate in std::mem::take(&mut self.chosen) {
                    let file = directory.write(&candidate.closed).unwrap();
                    log.transactions.set_spilled(&candidate, file);
                }
            }
        }
        directory.remove_unneeded();
        // What was read once is not read again before the take has ended.
        if let Some((position, true)) = self.take {
            let straddling = self.log.transactions.straddling(&at(position));
            assert!(straddling.is_none(), "{turn:?}: {straddling:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn each_transaction_is_taken_once_and_whole_whatever_happens_meanwhile(turns in turns()) {
        let dir = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::new(dir.path(), SOURCE);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut trial = Trial::new();
            for turn in turns {
                trial.turn(turn, &directory).await;
            }
            trial.turn(Turn::Commit, &directory).await;
            let Trial { mut log, mut upstream, .. } = trial;
            let expected = upstream.through(log.ended);
            assert_eq!(log.cut(log.ended).await, expected);
            assert!(upstream.ended.is_empty());
            assert_eq!(log.transactions.usage(), Usage::default());
        });
        directory.remove_unneeded();
        let left = std::fs::read_dir(dir.path().join("spill").join(SOURCE.to_string()));
        prop_assert_eq!(left.map_or(0, Iterator::count), 0);
    }

    #[test]
    fn what_went_through_the_disk_is_cut_as_if_it_had_not(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::new(dir.path(), SOURCE);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut plain, mut spilled) = (Log::new(), Log::new());
            for step in steps {
                let expected = take_step(&mut plain, step, None).await;
                let found = take_step(&mut spilled, step, Some(&directory)).await;
                assert_eq!(found, expected, "{step:?}");
                let alone = plain.transactions.is_unfinished();
                assert_eq!(spilled.transactions.is_unfinished(), alone);
            }
            for log in [&mut plain, &mut spilled] {
                log.commit();
            }
            let expected = plain.cut(plain.ended).await;
            assert_eq!(spilled.cut(spilled.ended).await, expected);
            assert_eq!(plain.transactions.usage(), Usage::default());
            assert_eq!(spilled.transactions.usage(), Usage::default());
        });
        directory.remove_unneeded();
        let left = std::fs::read_dir(dir.path().join("spill").join(SOURCE.to_string()));
        prop_assert_eq!(left.map_or(0, Iterator::count), 0);
    }
}

#[tokio::test]
async fn a_deletion_by_key_and_its_upsert_are_in_one_piece() {
    let mut log = Log::new();
    log.append(SourceOp::Insert, 0, Value::Null, Value::Null);
    for id in 0..10_000 {
        log.append(SourceOp::DeleteByKey, id, Value::Null, Value::Null);
        log.append(SourceOp::Upsert, id + 1, Value::Null, Value::Unchanged);
    }
    log.commit();
    let mut rows = 0;
    for part in log.transactions.cut(&at(1)).unwrap() {
        let Part::Buffered(closed) = part else {
            panic!("nothing was spilled");
        };
        let (changes, _) = closed.into_changes();
        assert!(changes.ops.len() <= 8192);
        assert_ne!(changes.ops.last(), Some(&SourceOp::DeleteByKey));
        rows += changes.ops.len();
    }
    assert_eq!(rows, 20_001);
}

#[tokio::test]
async fn what_is_left_of_a_dropped_segment_keeps_nothing_from_being_cut() {
    let dir = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::new(dir.path(), SOURCE);
    let mut log = straddled(&directory);
    log.transactions.drop_through(&at(2)).unwrap();
    log.transactions.roll_back();
    log.append(SourceOp::Insert, 4, Value::Null, Value::Null);
    log.commit();
    // Also if it is looked at in between.
    assert_eq!(log.cut(1).await, Vec::<String>::new());
    assert_eq!(log.cut(3).await, ["Insert 4 - -"]);
}

#[tokio::test]
async fn a_segment_that_changes_while_it_is_written_stays_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::new(dir.path(), SOURCE);
    let mut log = Log::new();
    log.append(SourceOp::Insert, 1, Value::Null, Value::Null);
    let table = std::iter::once((TABLE, &mut log.transactions));
    let chosen = candidates(table, NOTHING).unwrap();
    log.commit();
    for candidate in chosen {
        let file = directory.write(&candidate.closed).unwrap();
        log.transactions.set_spilled(&candidate, file);
    }
    assert_eq!(log.transactions.usage().disk, 0);
    assert_eq!(log.cut(1).await, ["Insert 1 - -"]);
}

#[tokio::test]
async fn a_segment_that_changes_while_it_is_read_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::new(dir.path(), SOURCE);
    let (one, two, three) = ("Insert 1 - -", "Insert 2 - -", "Insert 3 - -");
    for (change, first, rest) in [
        (Step::Commit, vec![one], vec![two, three]),
        (Step::RollBack, vec![one], vec![two]),
        // The first of the two that have ended.
        (Step::Drop(1), vec![], vec![two]),
    ] {
        let mut log = straddled(&directory);
        let straddling = log.transactions.straddling(&at(1)).unwrap();
        let before = straddling.spilled.load().await.unwrap();
        take_step(&mut log, change, None).await;
        log.transactions.set_loaded(&straddling, before);
        assert!(log.transactions.straddling(&at(1)).is_some(), "{change:?}");
        assert_eq!(log.cut(1).await, first, "{change:?}");
        log.transactions.roll_back();
        assert_eq!(log.cut(log.ended).await, rest, "{change:?}");
    }
}

#[tokio::test]
async fn what_was_read_for_a_take_stays_in_memory_until_the_take_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::new(dir.path(), SOURCE);
    let mut log = straddled(&directory);
    log.load(1).await;
    assert_eq!(log.candidates(), 0);
    // The take is given up, and there is another.
    log.transactions.unpin();
    assert_eq!(log.candidates(), 1);
    log.spill(&directory);
    log.load(1).await;
    assert_eq!(log.candidates(), 0);
    assert!(log.transactions.straddling(&at(1)).is_none());
    assert_eq!(log.cut_loaded(1).await, ["Insert 1 - -"]);
    assert_eq!(log.candidates(), 1);
}

#[tokio::test]
async fn a_segment_in_the_place_of_one_that_was_read_for_a_take_may_go_to_disk() {
    let dir = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::new(dir.path(), SOURCE);
    let mut log = straddled(&directory);
    log.load(1).await;
    log.transactions.drop_through(&at(2)).unwrap();
    assert_eq!(log.candidates(), 0);
    log.transactions.roll_back();
    log.append(SourceOp::Insert, 4, Value::Null, Value::Null);
    assert_eq!(log.candidates(), 1);
}

#[tokio::test]
async fn a_source_that_is_stopped_writes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Arc::new(SpillDirectory::new(dir.path(), SOURCE));
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let mut spiller = Spiller::new(directory, &tasks, &cancel);
    let mut log = Log::new();
    log.append(SourceOp::Insert, 1, Value::Null, Value::Null);
    let table = std::iter::once((TABLE, &mut log.transactions));
    let chosen = candidates(table, NOTHING).unwrap();
    assert_eq!(chosen.len(), 1);
    cancel.cancel();
    spiller.start(chosen);
    let Event::Written(written) = spiller.event().await else {
        panic!("the writing did not end");
    };
    assert!(
        written.files.is_empty() && written.failure.is_none(),
        "{written:?}"
    );
    tasks.close();
    tasks.wait().await;
    assert!(!dir.path().join("spill").exists());
}

#[tokio::test]
async fn files_are_removed_by_a_task_and_not_by_whoever_lets_go_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Arc::new(SpillDirectory::new(dir.path(), SOURCE));
    let below = dir.path().join("spill").join(SOURCE.to_string());
    let files = || std::fs::read_dir(&below).map_or(0, Iterator::count);
    let mut log = Log::new();
    log.append(SourceOp::Insert, 1, Value::Null, Value::Null);
    log.commit();
    log.spill(&directory);
    log.transactions.drop_through(&at(1)).unwrap();
    assert_eq!(log.transactions.usage(), Usage::default());
    assert_eq!(files(), 1);
    let cancel = CancellationToken::new();
    let removing = tokio::spawn(remove_unneeded(directory, cancel.clone()));
    cancel.cancel();
    removing.await.unwrap();
    assert_eq!(files(), 0);
}

#[test]
fn files_go_with_the_last_of_their_source() {
    let dir = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::new(dir.path(), SOURCE);
    let below = dir.path().join("spill").join(SOURCE.to_string());
    let files = || std::fs::read_dir(&below).map_or(0, Iterator::count);
    let log = straddled(&directory);
    drop(directory);
    assert_eq!(files(), 1);
    drop(log);
    assert_eq!(files(), 0);
}

#[tokio::test]
async fn a_disk_that_refuses_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("spill");
    std::fs::write(&in_the_way, "").unwrap();
    let directory = Arc::new(SpillDirectory::new(dir.path(), SOURCE));
    let mut spiller = Spiller::new(directory, &TaskTracker::new(), &CancellationToken::new());
    let mut log = Log::new();
    log.append(SourceOp::Insert, 1, Value::Null, Value::Null);
    log.commit();
    for refused in [true, false] {
        assert!(spiller.is_idle());
        let table = std::iter::once((TABLE, &mut log.transactions));
        spiller.start(candidates(table, NOTHING).unwrap());
        let Event::Written(written) = spiller.event().await else {
            panic!("nothing was written");
        };
        assert_eq!(written.failure.is_some(), refused, "{written:?}");
        if refused {
            assert!(matches!(written.failure, Some(Error::State { .. })));
            std::fs::remove_file(&in_the_way).unwrap();
            assert!(!spiller.is_idle());
            assert!(matches!(spiller.event().await, Event::Retry));
        }
        for (candidate, file) in written.files {
            log.transactions.set_spilled(&candidate, file);
        }
    }
    assert_eq!(log.transactions.usage().memory, 0);
    assert_eq!(log.cut(1).await, ["Insert 1 - -"]);
}

#[tokio::test]
async fn files_are_their_owners_alone_and_are_refused_if_they_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let directory = SpillDirectory::new(dir.path(), SOURCE);
    let mut log = Log::new();
    log.append(SourceOp::Insert, 1, Value::Null, Value::Text(b"text"));
    log.commit();
    log.spill(&directory);
    let below = dir.path().join("spill").join(SOURCE.to_string());
    let files: Vec<_> = std::fs::read_dir(&below)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let [file] = &files[..] else {
        panic!("{files:?}");
    };
    for (path, expected) in [(&below, 0o700), (file, 0o600)] {
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, expected);
    }
    let content = std::fs::read(file).unwrap();
    let mut parts = log.transactions.cut(&at(1)).unwrap();
    let Some(Part::Spilled(spilled)) = parts.pop_front() else {
        panic!("it is in memory");
    };
    let mut damaged: Vec<_> = [0, content.len() / 2, content.len() - 1]
        .map(|length| content[..length].to_vec())
        .into();
    damaged.push([&content[..], b"!"].concat());
    damaged.extend((0..content.len()).map(|index| {
        let mut flipped = content.clone();
        flipped[index] ^= 1_u8 << (index % 8);
        flipped
    }));
    for bytes in damaged {
        std::fs::write(file, bytes).unwrap();
        let refused = spilled.load().await.unwrap_err();
        assert!(matches!(refused, Error::Damaged { .. }), "{refused:?}");
        assert!(!refused.retryable());
    }
    std::fs::write(file, &content).unwrap();
    let (changes, _) = spilled.load().await.unwrap().into_changes();
    assert_eq!(render(&changes), ["Insert 1 - text"]);
    drop(spilled);
    directory.remove_unneeded();
    assert!(!file.exists());
    // What is left by a process that was killed goes at the next start.
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(file, &content).unwrap();
    remove_leftovers(dir.path(), SOURCE).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    remove_leftovers(dir.path(), SOURCE).unwrap();
}

#[test]
fn pressure_ends_at_the_disk_only_if_something_can_be_taken() {
    let limits = BufferLimits {
        memory_bytes: 10,
        disk_bytes: 100,
    };
    let usage = |memory, disk| Usage { memory, disk };
    for (used, takeable, expected) in [
        (usage(10, 1000), true, Pressure::None),
        (usage(11, 99), true, Pressure::Memory),
        (usage(11, 100), true, Pressure::Full),
        (usage(11, 1000), false, Pressure::Memory),
    ] {
        assert_eq!(limits.pressure(used, takeable), expected);
    }
    // What waits is written while there is still room, if there is some on the disk.
    assert!(limits.is_filling(usage(6, 99)));
    assert!(!limits.is_filling(usage(5, 0)) && !limits.is_filling(usage(10, 100)));
}

/// Messages of partition 1 whose offsets are their numbers: two rows for each.
fn messages(offsets: std::ops::Range<i64>, emptied: Option<i64>) -> Messages {
    let numbers: Vec<i64> = offsets.flat_map(|offset| [offset, offset]).collect();
    let ids: Vec<i32> = numbers
        .iter()
        .map(|number| i32::try_from(*number).unwrap())
        .collect();
    let columns: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(arrow_array::Int32Array::from(ids.clone())),
        Arc::new(arrow_array::Int32Array::from(ids)),
        Arc::new(arrow_array::StringArray::from_iter_values(
            numbers.iter().map(|_| "v"),
        )),
    ];
    Messages {
        partition: 1,
        emptied,
        rows: arrow_array::RecordBatch::try_new(schema(), columns).unwrap(),
        ops: vec![SourceOp::Upsert; numbers.len()],
        next: numbers.iter().map(|number| number + 1).collect(),
        unchanged: Vec::new(),
        notes: crate::row_errors::Notes::default(),
    }
}

fn offset(next: i64) -> SourcePosition {
    SourcePosition::KafkaOffsets(BTreeMap::from([(0, 1), (1, next)]))
}

/// How many rows there are up to an offset, and how often the table is emptied.
async fn cut_messages(log: &mut TableTransactions, next: i64) -> (usize, usize) {
    while let Some(straddling) = log.straddling(&offset(next)) {
        let closed = straddling.spilled.load().await.unwrap();
        log.set_loaded(&straddling, closed);
    }
    let (mut rows, mut emptied) = (0, 0);
    for part in log.cut(&offset(next)).unwrap() {
        let (changes, _) = match part {
            Part::Buffered(closed) => closed.into_changes(),
            Part::Spilled(spilled) => spilled.load().await.unwrap().into_changes(),
        };
        assert!(changes.ops.len() <= 8192);
        assert_eq!(changes.ops.len(), changes.rows.num_rows());
        rows += changes.ops.len();
        emptied += usize::from(changes.truncate_before);
    }
    (rows, emptied)
}

#[tokio::test]
async fn messages_are_cut_after_any_of_them_wherever_they_wait() {
    for spilled in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let directory = SpillDirectory::new(dir.path(), SOURCE);
        let mut log = TableTransactions::numbered(7, schema(), vec![0]);
        // Two segments, since each message has two rows.
        log.append_messages(messages(0..5000, None));
        log.append_messages(messages(5000..5003, Some(5000)));
        if spilled {
            let table = std::iter::once((TABLE, &mut log));
            for candidate in candidates(table, NOTHING).unwrap() {
                assert_eq!(candidate.log, 7);
                let file = directory.write(&candidate.closed).unwrap();
                log.set_spilled(&candidate, file);
            }
            assert_eq!(log.usage().memory, 0);
        }
        assert_eq!(cut_messages(&mut log, 0).await, (0, 0));
        assert_eq!(cut_messages(&mut log, 1).await, (2, 0));
        assert_eq!(cut_messages(&mut log, 4999).await, (2 * 4998, 0));
        assert_eq!(cut_messages(&mut log, 5000).await, (2, 1));
        assert_eq!(cut_messages(&mut log, 5002).await, (4, 0));
        assert_eq!(cut_messages(&mut log, 9000).await, (2, 0));
        assert_eq!(log.usage(), Usage::default());
    }
}

#[tokio::test]
async fn a_position_that_does_not_know_the_partition_has_nothing_of_it() {
    let mut log = TableTransactions::numbered(1, schema(), vec![0]);
    log.append_messages(messages(0..3, None));
    let elsewhere = SourcePosition::KafkaOffsets(BTreeMap::from([(0, 100)]));
    assert!(log.cut(&elsewhere).unwrap().is_empty());
    assert_eq!(cut_messages(&mut log, 3).await, (6, 0));
}
