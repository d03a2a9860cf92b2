//! Delta tables against a model: whatever was committed, rolled back, compacted or reopened, a load gives the model's rows.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed step is a failed test, also in the helpers of tests"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{IntervalMonthDayNanoBuilder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, IntervalMonthDayNano};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray, RecordBatch,
    RecordBatchOptions, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    UInt16Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowstone_storage::{CollectionCommit, DeltaTables, Error, StagedSnapshot};
use flowstone_types::clock::{ManualClock, SystemClock};
use flowstone_types::{Clock, DeltaBatch, Epoch, ObjectId, SqlType, Weights, jsonb};
use futures::TryStreamExt;
use proptest::prelude::*;

#[path = "storage/damage.rs"]
mod damage;

const ID: ObjectId = ObjectId::User(12);

type Row = (Option<i64>, Option<String>);
type Model = BTreeMap<Row, i64>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        SqlType::Int8.to_field("a", true),
        SqlType::Text.to_field("order date", true),
    ]))
}

/// A small domain, so that rows repeat; NULLs and empty text included.
fn row(number: u8) -> Row {
    let text = match number % 4 {
        0 => None,
        1 => Some(String::new()),
        _ => Some(format!("row {number}")),
    };
    (
        (!number.is_multiple_of(5)).then(|| i64::from(number / 2)),
        text,
    )
}

fn batch(rows: &[Row]) -> RecordBatch {
    let numbers = rows.iter().map(|row| row.0).collect::<Int64Array>();
    let texts = rows
        .iter()
        .map(|row| row.1.clone())
        .collect::<StringArray>();
    RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(texts)]).unwrap()
}

fn delta(changes: &[(Row, i64)], epoch: u64) -> DeltaBatch {
    let rows = changes
        .iter()
        .map(|(row, _)| row.clone())
        .collect::<Vec<_>>();
    let weights = changes
        .iter()
        .map(|(_, weight)| *weight)
        .collect::<Vec<_>>();
    DeltaBatch::new(batch(&rows), Weights::Array(weights.into()), Epoch(epoch))
}

fn changes_only(deltas: Vec<DeltaBatch>) -> CollectionCommit {
    CollectionCommit {
        id: ID,
        deltas,
        staged: Vec::new(),
        replace: false,
    }
}

async fn load(tables: &DeltaTables, version: i64) -> Model {
    let batches = tables
        .load(ID, version, schema())
        .await
        .unwrap()
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    model_of(&batches)
}

fn model_of(batches: &[RecordBatch]) -> Model {
    let mut model = Model::new();
    for batch in batches {
        assert_eq!(batch.schema(), schema());
        let (numbers, texts) = (
            batch.column(0).as_primitive::<Int64Type>(),
            batch.column(1).as_string::<i32>(),
        );
        for row in 0..batch.num_rows() {
            let number = numbers.is_valid(row).then(|| numbers.value(row));
            let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
            *model.entry((number, text)).or_default() += 1;
        }
    }
    model
}

fn change(model: &mut Model, row: Row, weight: i64) {
    let count = model.entry(row.clone()).or_default();
    *count += weight;
    assert!(*count >= 0);
    if *count == 0 {
        model.remove(&row);
    }
}

async fn commit(tables: &DeltaTables, epoch: u64, commit: CollectionCommit) -> Result<i64, Error> {
    tables
        .commit(Epoch(epoch), vec![commit])
        .await
        .map(|versions| versions[0].1)
}

async fn stage(tables: &DeltaTables, rows: &[Row]) -> StagedSnapshot {
    let mut writer = tables.stage(ID, schema()).await.unwrap();
    for chunk in rows.chunks(3) {
        writer.write(&batch(chunk)).await.unwrap();
    }
    writer.finish().await.unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    /// Insert and delete; a delete that finds nothing becomes an insert. Spread over two epochs.
    Change(Vec<(u8, i8)>),
    /// Bulk rows, and deltas that retract some of them at once.
    Stage(Vec<u8>, Vec<usize>),
    Replace(Vec<u8>),
    DeleteAll,
    RollBack,
    Reopen,
    Maintain,
    MaintainAfterDays,
    LoseIndexes,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec((0..12_u8, -2..3_i8), 1..10).prop_map(Step::Change),
        2 => (prop::collection::vec(0..12_u8, 0..20), prop::collection::vec(0..20_usize, 0..4)).prop_map(|(rows, gone)| Step::Stage(rows, gone)),
        1 => prop::collection::vec(0..12_u8, 0..10).prop_map(Step::Replace),
        1 => Just(Step::DeleteAll),
        3 => Just(Step::RollBack),
        2 => Just(Step::Reopen),
        3 => Just(Step::Maintain),
        1 => Just(Step::MaintainAfterDays),
        1 => Just(Step::LoseIndexes),
    ]
}

/// A table, what it should hold, and what it held before the newest commit, which is what recovery may go back to.
struct Run {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    tables: DeltaTables,
    epoch: u64,
    version: Option<i64>,
    model: Model,
    durable: (u64, Option<i64>, Model),
}

impl Run {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(SystemClock.now_ms()));
        let tables = open(dir.path(), &clock).await;
        tables.create(ID, "orders", schema()).await.unwrap();
        tables.create(ID, "orders", schema()).await.unwrap();
        Self {
            dir,
            clock,
            tables,
            epoch: 0,
            version: None,
            model: Model::new(),
            durable: (0, None, Model::new()),
        }
    }

    async fn commit(&mut self, model: Model, request: CollectionCommit) {
        let epoch = self.epoch + 2;
        let version = commit(&self.tables, epoch, request.clone()).await.unwrap();
        // Repeating it changes nothing.
        if self.version != Some(version) && version > 0 {
            assert_eq!(commit(&self.tables, epoch, request).await.unwrap(), version);
        }
        self.durable = (
            self.epoch,
            self.version,
            std::mem::replace(&mut self.model, model),
        );
        self.epoch = epoch;
        self.version = Some(version);
    }

    async fn step(&mut self, step: Step) {
        let mut model = self.model.clone();
        match step {
            Step::Change(changes) => {
                let mut deltas = Vec::new();
                for (position, (number, weight)) in changes.into_iter().enumerate() {
                    let row = row(number);
                    let weight = match i64::from(weight) {
                        0 => 1,
                        weight if model.get(&row).copied().unwrap_or(0) + weight < 0 => -weight,
                        weight => weight,
                    };
                    change(&mut model, row.clone(), weight);
                    deltas.push(delta(
                        &[(row, weight)],
                        self.epoch + 1 + u64::from(position > 4),
                    ));
                }
                self.commit(model, changes_only(deltas)).await;
            }
            Step::Stage(numbers, gone) => {
                let mut rows = numbers
                    .iter()
                    .map(|number| row(*number))
                    .collect::<Vec<_>>();
                let staged = stage(&self.tables, &rows).await;
                let read = self
                    .tables
                    .read_staged(&staged, schema())
                    .await
                    .unwrap()
                    .try_collect::<Vec<_>>()
                    .await
                    .unwrap();
                rows.iter()
                    .for_each(|row| change(&mut model, row.clone(), 1));
                assert_eq!(
                    model_of(&read).values().sum::<i64>(),
                    i64::try_from(rows.len()).unwrap()
                );
                let mut deltas = Vec::new();
                for position in gone {
                    if position < rows.len() {
                        let row = rows.swap_remove(position);
                        change(&mut model, row.clone(), -1);
                        deltas.push(delta(&[(row, -1)], self.epoch + 1));
                    }
                }
                let staged = serde_json::from_slice(&serde_json::to_vec(&staged).unwrap()).unwrap();
                self.commit(
                    model,
                    CollectionCommit {
                        id: ID,
                        deltas,
                        staged: vec![staged],
                        replace: false,
                    },
                )
                .await;
            }
            Step::Replace(numbers) => {
                let rows = numbers
                    .iter()
                    .map(|number| (row(*number), 1))
                    .collect::<Vec<_>>();
                let mut model = Model::new();
                rows.iter()
                    .for_each(|(row, weight)| change(&mut model, row.clone(), *weight));
                let deltas = vec![delta(&rows, self.epoch + 1)];
                self.commit(
                    model,
                    CollectionCommit {
                        id: ID,
                        deltas,
                        staged: Vec::new(),
                        replace: true,
                    },
                )
                .await;
            }
            Step::DeleteAll => {
                let changes = model
                    .into_iter()
                    .map(|(row, count)| (row, -count))
                    .collect::<Vec<_>>();
                self.commit(
                    Model::new(),
                    changes_only(vec![delta(&changes, self.epoch + 1)]),
                )
                .await;
            }
            Step::RollBack => {
                let (epoch, version, model) = self.durable.clone();
                self.tables.roll_back(ID, version).await.unwrap();
                // A restart before the next commit asks for the same again.
                self.tables.roll_back(ID, version).await.unwrap();
                (self.epoch, self.model) = (epoch, model);
                self.version = version;
            }
            Step::Reopen => self.tables = open(self.dir.path(), &self.clock).await,
            Step::Maintain => self.tables.maintain(ID).await.unwrap(),
            Step::MaintainAfterDays => {
                for _day in 0..3 {
                    self.clock.advance(25 * 3600 * 1000);
                    self.tables.maintain(ID).await.unwrap();
                }
            }
            Step::LoseIndexes => {
                self.tables = open(self.dir.path(), &self.clock).await;
                let indexes = self.tables.table_path(ID).join("_flowstone");
                for (position, entry) in std::fs::read_dir(&indexes)
                    .into_iter()
                    .flatten()
                    .enumerate()
                {
                    let path = entry.unwrap().path();
                    if position % 2 == 0 {
                        std::fs::remove_file(path).unwrap();
                    } else {
                        let length = std::fs::metadata(&path).unwrap().len();
                        std::fs::OpenOptions::new()
                            .write(true)
                            .open(path)
                            .unwrap()
                            .set_len(length / 2)
                            .unwrap();
                    }
                }
            }
        }
        if let Some(version) = self.version {
            assert_eq!(load(&self.tables, version).await, self.model);
        }
        if let Some(version) = self.durable.1 {
            assert_eq!(load(&self.tables, version).await, self.durable.2);
        }
    }
}

async fn open(dir: &Path, clock: &Arc<ManualClock>) -> DeltaTables {
    DeltaTables::open_with_clock(dir, Arc::<ManualClock>::clone(clock))
        .await
        .unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_holds_the_rows_of_the_model_after_every_step(steps in prop::collection::vec(step(), 1..40)) {
        runtime().block_on(async {
            let mut run = Run::new().await;
            for step in steps {
                run.step(step).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_an_epoch_that_is_recorded_is_skipped_also_after_a_restart() {
    let mut run = Run::new().await;
    run.step(Step::Change(vec![(2, 1)])).await;
    let request = changes_only(vec![delta(&[(row(3), 1)], 1)]);
    run.step(Step::Reopen).await;
    assert_eq!(
        commit(&run.tables, run.epoch, request.clone())
            .await
            .unwrap(),
        run.version.unwrap()
    );
    assert_eq!(load(&run.tables, run.version.unwrap()).await, run.model);
    // After a roll-back to nothing the same epoch counts again.
    run.tables.roll_back(ID, None).await.unwrap();
    let version = commit(&run.tables, run.epoch, request).await.unwrap();
    assert_eq!(load(&run.tables, version).await, Model::from([(row(3), 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn retracting_a_row_that_is_not_there_is_refused_and_changes_nothing() {
    let mut run = Run::new().await;
    run.step(Step::Change(vec![(2, 1), (3, 1)])).await;
    let wrong = changes_only(vec![delta(&[(row(2), -2), (row(3), 1)], 9)]);
    let error = commit(&run.tables, 9, wrong).await.unwrap_err();
    assert!(matches!(error, Error::Invariant(_)) && !error.retryable());
    assert_eq!(load(&run.tables, run.version.unwrap()).await, run.model);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_missing_files_are_named() {
    let mut run = Run::new().await;
    run.step(Step::Change(vec![(2, 1), (3, 1)])).await;
    let version = run.version.unwrap();
    let table = run.tables.table_path(ID);
    let data = std::fs::read_dir(&table)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "parquet"));
    let data = data.unwrap();
    let bytes = std::fs::read(&data).unwrap();
    let outcome = async || match run.tables.load(ID, version, schema()).await {
        Ok(rows) => rows.try_collect::<Vec<_>>().await.map(|_| ()),
        Err(error) => Err(error),
    };
    std::fs::write(&data, &bytes[..bytes.len() / 2]).unwrap();
    assert!(
        matches!(outcome().await, Err(Error::Damaged { file, .. }) if file.file_name() == data.file_name())
    );
    std::fs::remove_file(&data).unwrap();
    assert!(
        matches!(outcome().await, Err(Error::Damaged { file, .. }) if file.file_name() == data.file_name())
    );
    assert!(matches!(
        run.tables.load(ID, version + 7, schema()).await,
        Err(Error::Damaged { .. })
    ));
    assert!(matches!(
        run.tables.roll_back(ID, Some(version + 7)).await,
        Err(Error::Damaged { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_and_compaction_keep_a_long_history_small_and_readable() {
    let mut run = Run::new().await;
    for number in 0..120_u8 {
        run.step(Step::Change(vec![
            (number % 12, 2),
            ((number + 5) % 12, -1),
        ]))
        .await;
        if number % 10 == 9 {
            run.clock.advance(25 * 3600 * 1000);
            run.step(Step::Maintain).await;
        }
    }
    let table = run.tables.table_path(ID);
    assert!(table.join("_delta_log/_last_checkpoint").exists());
    let count = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    assert!(count(&table) < 60, "{} files", count(&table));
    run.step(Step::Reopen).await;
    run.step(Step::Change(vec![(1, 1)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_its_files_while_the_table_moves_on() {
    let mut run = Run::new().await;
    run.step(Step::Change(vec![(2, 2), (3, 1)])).await;
    let (version, model) = (run.version.unwrap(), run.model.clone());
    let stream = run.tables.load(ID, version, schema()).await.unwrap();
    run.step(Step::DeleteAll).await;
    run.step(Step::Change(vec![(4, 1)])).await;
    run.step(Step::Change(vec![(5, 1)])).await;
    run.step(Step::MaintainAfterDays).await;
    assert_eq!(
        model_of(&stream.try_collect::<Vec<_>>().await.unwrap()),
        model
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_is_gone_whoever_still_writes_to_it() {
    let mut run = Run::new().await;
    run.step(Step::Change(vec![(2, 1)])).await;
    let mut writing = run.tables.stage(ID, schema()).await.unwrap();
    writing.write(&batch(&[row(3)])).await.unwrap();
    let mut finishing = run.tables.stage(ID, schema()).await.unwrap();
    finishing.write(&batch(&[row(3)])).await.unwrap();
    run.tables.drop_table(ID).await.unwrap();
    run.tables.drop_table(ID).await.unwrap();
    let refused = |outcome: Result<(), Error>| {
        assert!(
            matches!(outcome, Err(Error::Dropped(_))),
            "{outcome:?} is no refusal"
        );
        assert!(!run.tables.table_path(ID).exists());
    };
    refused(writing.write(&batch(&[row(4)])).await);
    refused(finishing.finish().await.map(drop));
    refused(run.tables.stage(ID, schema()).await.map(drop));
    refused(run.tables.create(ID, "orders", schema()).await);
    let request = changes_only(vec![delta(&[(row(3), 1)], 9)]);
    refused(commit(&run.tables, 9, request).await.map(drop));
    refused(run.tables.maintain(ID).await);
    drop(writing);
    // What comes after a start knows of no table that was dropped before.
    let again = open(run.dir.path(), &run.clock).await;
    assert!(!again.table_path(ID).exists());
    again.create(ID, "orders", schema()).await.unwrap();
    assert!(load(&again, 0).await.is_empty());
}

fn every_type() -> Vec<(SqlType, ArrayRef)> {
    let document = |text: &str| jsonb::parse(text).unwrap().into_bytes();
    let documents = [
        document(r#"{"b": [1, 2.50, null], "a": {"é": "\u0001"}}"#),
        document("[]"),
    ];
    let intervals = {
        let mut builder = IntervalMonthDayNanoBuilder::new();
        builder.append_value(IntervalMonthDayNano::new(-14, 3, -4_500_001_000));
        builder.append_value(IntervalMonthDayNano::new(0, 0, 1_000));
        builder.append_null();
        builder.finish()
    };
    let texts = {
        let mut builder = ListBuilder::new(StringBuilder::new());
        builder.append_value([Some("a"), None]);
        builder.append_value(Vec::<Option<&str>>::new());
        builder.append_null();
        builder.finish()
    };
    let days =
        arrow_array::ListArray::from_iter_primitive::<arrow_array::types::UInt64Type, _, _>([
            Some(vec![Some(u64::MAX), None]),
            None,
            Some(vec![]),
        ]);
    vec![
        (
            SqlType::Bool,
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        ),
        (
            SqlType::Int2,
            Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), None])),
        ),
        (
            SqlType::Int4,
            Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None])),
        ),
        (
            SqlType::Int8,
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None])),
        ),
        (
            SqlType::UInt2,
            Arc::new(UInt16Array::from(vec![Some(0), Some(u16::MAX), None])),
        ),
        (
            SqlType::UInt4,
            Arc::new(UInt32Array::from(vec![Some(0), Some(u32::MAX), None])),
        ),
        (
            SqlType::UInt8,
            Arc::new(UInt64Array::from(vec![Some(0), Some(u64::MAX), None])),
        ),
        (
            SqlType::Oid,
            Arc::new(UInt32Array::from(vec![Some(0), Some(u32::MAX), None])),
        ),
        (
            SqlType::MzTimestamp,
            Arc::new(UInt64Array::from(vec![Some(0), Some(u64::MAX), None])),
        ),
        (
            SqlType::Float4,
            Arc::new(Float32Array::from(vec![
                Some(f32::INFINITY),
                Some(f32::NAN),
                None,
            ])),
        ),
        (
            SqlType::Float8,
            Arc::new(Float64Array::from(vec![
                Some(f64::NEG_INFINITY),
                Some(f64::NAN),
                None,
            ])),
        ),
        (
            SqlType::Numeric(None),
            decimal(38, 18, [10_i128.pow(38) - 1, -1]),
        ),
        (
            SqlType::Numeric(Some((5, 2))),
            decimal(5, 2, [99_999, -99_999]),
        ),
        (SqlType::Numeric(Some((3, -2))), decimal(3, -2, [999, -999])),
        (
            SqlType::Text,
            Arc::new(StringArray::from(vec![
                Some("naïve \u{1F600}"),
                Some(""),
                None,
            ])),
        ),
        (
            SqlType::VarChar(Some(9)),
            Arc::new(StringArray::from(vec![Some("nine"), Some(""), None])),
        ),
        (
            SqlType::Char(3),
            Arc::new(StringArray::from(vec![Some("a  "), Some("   "), None])),
        ),
        (
            SqlType::Name,
            Arc::new(StringArray::from(vec![Some("pg_class"), Some(""), None])),
        ),
        (
            SqlType::QuotedChar,
            Arc::new(StringArray::from(vec![Some("r"), Some(""), None])),
        ),
        (
            SqlType::Bytea,
            Arc::new(BinaryArray::from_opt_vec(vec![
                Some(&[0, 255, 10]),
                Some(&[]),
                None,
            ])),
        ),
        (
            SqlType::Jsonb,
            Arc::new(LargeBinaryArray::from_opt_vec(vec![
                Some(&documents[0]),
                Some(&documents[1]),
                None,
            ])),
        ),
        (
            SqlType::Date,
            Arc::new(Date32Array::from(vec![
                Some(-800_000),
                Some(2_000_000),
                None,
            ])),
        ),
        (
            SqlType::Time,
            Arc::new(Time64MicrosecondArray::from(vec![
                Some(86_400_000_000),
                Some(1),
                None,
            ])),
        ),
        (
            SqlType::Timestamp,
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(-62_135_596_800_000_000),
                Some(1),
                None,
            ])),
        ),
        (
            SqlType::TimestampTz,
            Arc::new(
                TimestampMicrosecondArray::from(vec![
                    Some(253_402_300_799_999_999),
                    Some(-1),
                    None,
                ])
                .with_timezone("UTC"),
            ),
        ),
        (SqlType::Interval, Arc::new(intervals)),
        (
            SqlType::Uuid,
            Arc::new(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                    [Some([7_u8; 16]), Some([255; 16]), None].into_iter(),
                    16,
                )
                .unwrap(),
            ),
        ),
        (SqlType::Array(Box::new(SqlType::Text)), Arc::new(texts)),
        (SqlType::Array(Box::new(SqlType::UInt8)), Arc::new(days)),
    ]
}

fn decimal(precision: u8, scale: i8, values: [i128; 2]) -> ArrayRef {
    let values = Decimal128Array::from(vec![Some(values[0]), Some(values[1]), None]);
    Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_exactly_and_its_rows_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let columns = every_type();
    let fields = columns.iter().enumerate().map(|(at, (sql_type, array))| {
        let field = sql_type.to_field(&format!("c{at}"), true);
        assert_eq!(field.data_type(), array.data_type(), "{sql_type}");
        field
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
    let rows = RecordBatch::try_new(
        Arc::clone(&schema),
        columns.into_iter().map(|(_, array)| array).collect(),
    )
    .unwrap();
    let tables = DeltaTables::open(dir.path()).await.unwrap();
    tables
        .create(ID, "every_type", Arc::clone(&schema))
        .await
        .unwrap();
    let insert = DeltaBatch::insert(rows.clone(), Epoch(1));
    let version = commit(&tables, 1, changes_only(vec![insert]))
        .await
        .unwrap();
    let loaded = async |tables: &DeltaTables, version| {
        let batches = tables
            .load(ID, version, Arc::clone(&schema))
            .await
            .unwrap()
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        arrow_select::concat::concat_batches(&schema, &batches).unwrap()
    };
    assert_eq!(loaded(&tables, version).await, rows);
    // By the index made when the row was written, and by one rebuilt from the file after a restart.
    for (at, epoch) in [(1, 2), (0, 3)] {
        let tables = DeltaTables::open(dir.path()).await.unwrap();
        let delete = DeltaBatch::new(rows.slice(at, 1), Weights::Const(-1), Epoch(epoch));
        let version = commit(&tables, epoch, changes_only(vec![delete]))
            .await
            .unwrap();
        assert_eq!(loaded(&tables, version).await.num_rows(), at + 1);
        std::fs::remove_dir_all(tables.table_path(ID).join("_flowstone")).unwrap();
    }
    let tables = DeltaTables::open(dir.path()).await.unwrap();
    let version = commit(
        &tables,
        4,
        changes_only(vec![DeltaBatch::new(
            rows.slice(2, 1),
            Weights::Const(-1),
            Epoch(4),
        )]),
    )
    .await
    .unwrap();
    assert_eq!(loaded(&tables, version).await.num_rows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_column_names_and_even_none_work() {
    let dir = tempfile::tempdir().unwrap();
    let tables = DeltaTables::open(dir.path()).await.unwrap();
    let names = [
        "a",
        "A",
        "sum(x)",
        "?column?",
        "a.b",
        "é`\"",
        "_change_type",
        " ,;{}()\n\t=",
    ];
    let named = Arc::new(Schema::new(
        names
            .iter()
            .map(|name| Field::new(*name, DataType::Int64, true))
            .collect::<Vec<_>>(),
    ));
    let plain = Arc::new(Schema::new(
        names
            .iter()
            .take(2)
            .map(|name| Field::new(*name, DataType::Int64, true))
            .collect::<Vec<_>>(),
    ));
    for (number, schema) in [named, plain, Arc::new(Schema::empty())]
        .into_iter()
        .enumerate()
    {
        let id = ObjectId::User(u64::try_from(number).unwrap());
        let columns = (0..schema.fields().len())
            .map(|at| -> ArrayRef {
                Arc::new(Int64Array::from(vec![i64::try_from(at).unwrap(); 2]))
            })
            .collect();
        let rows = RecordBatch::try_new_with_options(
            Arc::clone(&schema),
            columns,
            &RecordBatchOptions::new().with_row_count(Some(2)),
        )
        .unwrap();
        tables
            .create(id, "odd \"names\"", Arc::clone(&schema))
            .await
            .unwrap();
        let request = |batch| {
            vec![CollectionCommit {
                id,
                deltas: vec![batch],
                staged: Vec::new(),
                replace: false,
            }]
        };
        tables
            .commit(
                Epoch(1),
                request(DeltaBatch::insert(rows.clone(), Epoch(1))),
            )
            .await
            .unwrap();
        let delete = DeltaBatch::new(rows.slice(0, 1), Weights::Const(-1), Epoch(2));
        let tables = DeltaTables::open(dir.path()).await.unwrap();
        let version = tables.commit(Epoch(2), request(delete)).await.unwrap()[0].1;
        let loaded = tables
            .load(id, version, Arc::clone(&schema))
            .await
            .unwrap()
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        assert_eq!(
            arrow_select::concat::concat_batches(&schema, &loaded).unwrap(),
            rows.slice(0, 1)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_deletion_vectors_go_to_files_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let tables = DeltaTables::open(dir.path()).await.unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    tables
        .create(ID, "numbers", Arc::clone(&schema))
        .await
        .unwrap();
    let numbers = |step: usize| {
        let values = (0..200_000_i64).step_by(step).collect::<Int64Array>();
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(values)]).unwrap()
    };
    let mut writer = tables.stage(ID, Arc::clone(&schema)).await.unwrap();
    writer.write(&numbers(1)).await.unwrap();
    let staged = writer.finish().await.unwrap();
    assert_eq!(staged.rows, 200_000);
    commit(
        &tables,
        1,
        CollectionCommit {
            id: ID,
            deltas: Vec::new(),
            staged: vec![staged],
            replace: false,
        },
    )
    .await
    .unwrap();
    let delete = DeltaBatch::new(numbers(3), Weights::Const(-1), Epoch(2));
    let version = commit(&tables, 2, changes_only(vec![delete]))
        .await
        .unwrap();
    for tables in [tables, DeltaTables::open(dir.path()).await.unwrap()] {
        let rows = tables
            .load(ID, version, Arc::clone(&schema))
            .await
            .unwrap()
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        let sum = rows
            .iter()
            .flat_map(|batch| {
                batch
                    .column(0)
                    .as_primitive::<Int64Type>()
                    .values()
                    .to_vec()
            })
            .sum::<i64>();
        assert_eq!(
            sum,
            (0..200_000_i64)
                .filter(|number| number % 3 != 0)
                .sum::<i64>()
        );
        // A third and more is deleted: maintenance rewrites the file.
        tables.maintain(ID).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_leaves_no_deletion_vectors_behind() {
    let dir = tempfile::tempdir().unwrap();
    let tables = DeltaTables::open(dir.path()).await.unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
    tables
        .create(ID, "numbers", Arc::clone(&schema))
        .await
        .unwrap();
    let numbers = |step: usize, weight: i64, epoch: u64| {
        let values = (0..200_000_i64).step_by(step).collect::<Int64Array>();
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(values)]).unwrap();
        DeltaBatch::new(rows, Weights::Const(weight), Epoch(epoch))
    };
    let version = commit(&tables, 1, changes_only(vec![numbers(1, 1, 1)]))
        .await
        .unwrap();
    let count = |prefix: &str| {
        std::fs::read_dir(tables.table_path(ID))
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with(prefix)
            })
            .count()
    };
    // The name of the next version is taken, by what is no version.
    let taken = tables
        .table_path(ID)
        .join("_delta_log")
        .join(format!("{:020}.json", version + 1));
    std::fs::create_dir(&taken).unwrap();
    let delete = changes_only(vec![numbers(3, -1, 2)]);
    let error = commit(&tables, 2, delete.clone()).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
    assert!(count("deletion_vector_") > 0);
    std::fs::remove_dir(&taken).unwrap();
    let version = commit(&tables, 2, delete).await.unwrap();
    assert_eq!(count("deletion_vector_"), 1);
    let rows = tables
        .load(ID, version, Arc::clone(&schema))
        .await
        .unwrap()
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    let rows = rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!(rows, 200_000 - 200_000_usize.div_ceil(3));
}
