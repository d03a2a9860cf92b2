use std::sync::mpsc::sync_channel;
use std::time::Duration;

use arrow_array::{Int32Array, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowstone_dataflow::{CollectionInput, partition_columns, partition_delta};
use flowstone_types::{DeltaBatch, EvalErrorKind, Weights};
use tempfile::TempDir;

use super::*;
use crate::compute::shards::{ShardMaker, ShardPool};
use crate::query::{Compiler, Evaluator, QueryRunner};

const TABLE: ObjectId = ObjectId::User(1);
const SHARDS: usize = 2;

/// A table without a key, so that all columns are its key, and what a worker with two shards offers of it.
struct Fixture {
    pool: ShardPool,
    reads: WorkerReads,
    schema: SchemaRef,
    _dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runner = QueryRunner::new(
            tokio::runtime::Handle::current(),
            1 << 20,
            &dir.path().join("spill"),
        )
        .unwrap();
        let maker = ShardMaker {
            compiler: Arc::new(Compiler),
            evaluator: Arc::new(Evaluator::new(runner.clone(), Duration::from_secs(60))),
            row_bytes_max: usize::MAX,
        };
        let pool = ShardPool::start("shard", SHARDS, &maker).unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("c0", DataType::Int32, true),
            Field::new("c1", DataType::Utf8, true),
        ]));
        let created = Arc::clone(&schema);
        for result in pool
            .on_each(move |_, shard| {
                shard.create_collection(TABLE, Arc::clone(&created), Some(vec![0]))
            })
            .await
            .unwrap()
        {
            result.unwrap();
        }
        let readable = Readable {
            durable: Epoch(0),
            from: BTreeMap::from([(TABLE, Epoch(0))]),
            ..Readable::default()
        };
        let reads = WorkerReads {
            readable: Arc::new(RwLock::new(readable)),
            shards: pool.shards(),
        };
        Self {
            pool,
            reads,
            schema,
            _dir: dir,
        }
    }

    /// Runs an epoch with rows of one weight; it is not observable yet.
    async fn run(&self, epoch: u64, rows: Vec<(i32, &str)>, weight: i64) {
        let (keys, texts): (Vec<i32>, Vec<&str>) = rows.into_iter().unzip();
        let rows = RecordBatch::try_new(
            Arc::clone(&self.schema),
            vec![
                Arc::new(Int32Array::from(keys)),
                Arc::new(StringArray::from(texts)),
            ],
        )
        .unwrap();
        let delta = DeltaBatch::new(rows, Weights::Const(weight), Epoch(epoch));
        let columns = partition_columns(Some(&[0]), 2);
        let inputs = partition_delta(&delta, &columns, SHARDS)
            .unwrap()
            .into_iter()
            .map(|part| vec![(TABLE, CollectionInput::Deltas(vec![part]))]);
        self.pool
            .tick(Epoch(epoch), inputs.collect())
            .await
            .unwrap();
        self.settle();
    }

    /// Waits until no job runs: a job's answer is there shortly before its thread lets go of the shard.
    fn settle(&self) {
        for shard in 0..SHARDS {
            while self.reads.shards.try_read(shard).is_none() {
                std::thread::yield_now();
            }
        }
    }

    fn observe(&self, epoch: u64) {
        self.reads.readable.write().durable = Epoch(epoch);
    }

    fn look_up(&self, key: i32, at: ReadAt) -> Option<Result<(Epoch, Vec<String>), RequestError>> {
        let key: ArrayRef = Arc::new(Int32Array::from(vec![key]));
        let found = self.reads.lookup(TABLE, &[key], &[1], at)?;
        Some(found.map(|(epoch, rows)| {
            assert_eq!(rows.num_columns(), 1);
            let texts = rows.column(0).as_any().downcast_ref::<StringArray>();
            let texts = texts.unwrap().iter().map(|text| text.unwrap().to_owned());
            (epoch, texts.collect())
        }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_read_at_the_observable_epoch_also_after_later_ones_ran() {
    let fixture = Fixture::new().await;
    fixture
        .run(1, (0..50).map(|key| (key, "old")).collect(), 1)
        .await;
    fixture.observe(1);
    fixture.run(2, vec![(7, "old")], -1).await;
    fixture.run(3, vec![(7, "new")], 1).await;
    for (key, at, expected) in [
        (
            7,
            ReadAt::AtLeast(Epoch(1)),
            Some((Epoch(1), vec!["old".to_owned()])),
        ),
        (
            8,
            ReadAt::Exactly(Epoch(1)),
            Some((Epoch(1), vec!["old".to_owned()])),
        ),
        (50, ReadAt::AtLeast(Epoch(0)), Some((Epoch(1), Vec::new()))),
        // Not observable: the command waits for it.
        (7, ReadAt::AtLeast(Epoch(2)), None),
        (7, ReadAt::Exactly(Epoch(3)), None),
    ] {
        let found = fixture.look_up(key, at).map(Result::unwrap);
        assert_eq!(found, expected, "{key} at {at:?}");
    }
    fixture.observe(3);
    for (epoch, text) in [(1, vec!["old"]), (2, Vec::new()), (3, vec!["new"])] {
        let (_, found) = fixture
            .look_up(7, ReadAt::Exactly(Epoch(epoch)))
            .unwrap()
            .unwrap();
        assert_eq!(found, text, "at {epoch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_at_once_is_left_to_the_command() {
    let fixture = Fixture::new().await;
    fixture.run(1, vec![(1, "a")], 1).await;
    let many: Vec<String> = (0..=ROWS_MAX).map(|row| row.to_string()).collect();
    let rows = many.iter().map(|text| (2, text.as_str())).collect();
    fixture.run(2, rows, 1).await;
    fixture.observe(2);
    let now = ReadAt::AtLeast(Epoch(2));
    assert!(fixture.look_up(1, now).is_some());
    assert!(fixture.look_up(2, now).is_none(), "a read of many rows");
    let others = [0, 1].map(|shard| fixture.reads.shards.try_read(shard).unwrap());
    assert!(fixture.look_up(1, now).is_some(), "beside another reader");
    drop(others);

    // A job of either shard: a view has its error rows on any of them.
    for busy in 0..SHARDS {
        let ((started, begun), (end, ended)) = (sync_channel(1), sync_channel::<()>(1));
        let ended = parking_lot::Mutex::new(Some(ended));
        let job = fixture.pool.ask_each(move |index, _| {
            if index == busy {
                started.send(()).unwrap();
                let ended = ended.lock().take().unwrap();
                ended.recv().unwrap();
            }
        });
        let job = job.unwrap();
        begun.recv().unwrap();
        assert!(fixture.look_up(1, now).is_none(), "shard {busy} is busy");
        end.send(()).unwrap();
        job.all().await.unwrap();
        fixture.settle();
        assert!(fixture.look_up(1, now).is_some());
    }

    fixture.reads.readable.write().from.insert(TABLE, Epoch(3));
    assert!(fixture.look_up(1, now).is_none(), "before it is readable");
    fixture.reads.readable.write().from.remove(&TABLE);
    assert!(fixture.look_up(1, now).is_none(), "a dropped table");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_on_any_shard_is_the_answer_and_too_much_text_ends_no_shard() {
    let fixture = Fixture::new().await;
    let long = "x".repeat(8 << 20);
    fixture.run(1, vec![(1, "a"), (3, "b")], 1).await;
    fixture.run(2, vec![(2, &long)], 300).await;
    fixture.observe(2);
    let now = ReadAt::AtLeast(Epoch(2));
    let error = fixture.look_up(2, now).unwrap().unwrap_err();
    assert!(
        matches!(&error, RequestError::Eval(error) if error.kind == EvalErrorKind::TooLarge),
        "{error:?}"
    );
    assert!(fixture.look_up(1, now).unwrap().is_ok());

    for shard in 0..SHARDS {
        let epoch = u64::try_from(shard).unwrap() * 2 + 3;
        for weight in [1, -1] {
            let error = EvalError::new(EvalErrorKind::DivisionByZero, "division by zero");
            let mut inputs = vec![Vec::new(); SHARDS];
            inputs[shard].push((TABLE, CollectionInput::Errors(vec![(error, weight)])));
            let epoch = epoch + u64::from(weight < 0);
            fixture.pool.tick(Epoch(epoch), inputs).await.unwrap();
            fixture.settle();
            fixture.observe(epoch);
            for key in [1, 3] {
                let found = fixture.look_up(key, ReadAt::AtLeast(Epoch(epoch)));
                assert_eq!(
                    found.unwrap().is_err(),
                    weight > 0,
                    "shard {shard}, key {key}"
                );
            }
        }
    }
}
