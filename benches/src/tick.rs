//! What a tick costs the engine alone, against evaluating the same view from scratch.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use flowstone_dataflow::{CollectionInput, Shard};
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{Aggregate, AggregateFunction, Node, NodeId, Operator, Plan};
use flowstone_types::{ClusterId, DeltaBatch, Epoch, ObjectId, Weights};
use serde_json::json;

use crate::report::{Aim, Better, Figure, Scale, Section, percentile};
use crate::shard;

/// Rows per tick.
const TICKS: [usize; 6] = [1, 10, 100, 1_000, 10_000, 100_000];
/// The largest tick that should take less than [`SMALL_TICK_MS`] in 99 of 100 cases.
const SMALL_TICK_ROWS: usize = 100;
const SMALL_TICK_MS: f64 = 1.0;
/// Cities, which are the groups of the view.
const GROUPS: usize = 1000;

const ORDERS: ObjectId = ObjectId::User(1);
const BUYERS: ObjectId = ObjectId::User(2);
const TOTALS: ObjectId = ObjectId::User(3);

/// How many rows the inputs have.
#[derive(Clone, Copy)]
struct Size {
    orders: usize,
    buyers: usize,
}

pub(crate) fn run(scale: Scale) -> Result<Section> {
    let size = Size {
        orders: scale.pick(1_000_000, 10_000),
        buyers: scale.pick(100_000, 1000),
    };
    let budget = scale.pick(Duration::from_secs(5), Duration::from_millis(100));
    let ticks_min = scale.pick(100, 3);
    let warm_up = scale.pick(1000, 10);

    // The answer first: a view that followed a change equals one that is built from the changed input.
    let (mut followed, _) = start(&size.orders(0..size.orders)?, size)?;
    let mut next = size.orders + warm_up;
    let fresh = DeltaBatch::insert(size.orders(size.orders..next)?, Epoch(2));
    tick(&mut followed, Epoch(2), vec![fresh])?;
    let (rebuilt, first) = start(&size.orders(0..next)?, size)?;
    if content(&followed, Epoch(2))? != content(&rebuilt, Epoch(1))? {
        bail!("the maintained view differs from the recomputed one");
    }
    drop(rebuilt);
    let mut recompute = vec![first];
    for _ in 1..scale.pick(5, 1) {
        recompute.push(start(&size.orders(0..next)?, size)?.1);
    }

    let mut figures = Vec::new();
    let mut details = Vec::new();
    let (mut oldest, mut epoch) = (0, 2);
    for rows in TICKS {
        if rows > size.orders {
            continue;
        }
        let mut times = Vec::new();
        let begin = Instant::now();
        while begin.elapsed() < budget || times.len() < ticks_min {
            epoch += 1;
            // As many rows go as come, so that the state keeps its size.
            let half = (rows / 2).max(1);
            let mut deltas = vec![DeltaBatch::insert(
                size.orders(next..next + half)?,
                Epoch(epoch),
            )];
            next += half;
            if rows > 1 {
                let gone = size.orders(oldest..oldest + half)?;
                deltas.push(DeltaBatch::new(gone, Weights::Const(-1), Epoch(epoch)));
                oldest += half;
            }
            times.push(tick(&mut followed, Epoch(epoch), deltas)?.as_secs_f64() * 1e3);
        }
        let seconds = times.iter().sum::<f64>() / 1e3;
        let count = u32::try_from(times.len() * rows).context("too many rows")?;
        figures.push(
            Figure::new(
                format!("p50 of {rows} rows"),
                "ms",
                Better::Lower,
                vec![percentile(&times, 50)],
            )
            .against("from scratch", recompute.clone()),
        );
        let p99 = Figure::new(
            format!("p99 of {rows} rows"),
            "ms",
            Better::Lower,
            vec![percentile(&times, 99)],
        );
        figures.push(if rows <= SMALL_TICK_ROWS {
            p99.aim(Aim::AtMost(SMALL_TICK_MS))
        } else {
            p99
        });
        figures.push(Figure::new(
            format!("throughput of {rows} rows"),
            "rows/s",
            Better::Higher,
            vec![f64::from(count) / seconds],
        ));
        details.push(
            json!({"rows": rows, "ticks": times.len(), "slowest_ms": percentile(&times, 100)}),
        );
    }
    Ok(Section {
        method: format!(
            "count and sum by {GROUPS} groups over a join of {} and {} rows; one shard; half of a tick's rows come, half go, a single one comes; without the compaction that follows a tick",
            size.orders, size.buyers
        ),
        figures,
        details: json!(details),
    })
}

/// `SELECT buyers.city, count(*), sum(orders.amount) FROM orders JOIN buyers ON orders.buyer = buyers.id GROUP BY buyers.city`.
fn plan() -> Plan {
    let node = |operator, types: &[DataType]| Node {
        operator,
        schema: shard::schema(types),
    };
    let int = DataType::Int64;
    let order = [int.clone(), int.clone(), DataType::Int32];
    let buyer = [int.clone(), DataType::Utf8];
    let joined = [order.as_slice(), buyer.as_slice()].concat();
    let aggregate = |function, argument| Aggregate {
        function,
        argument,
        filter: None,
        distinct: false,
    };
    Plan {
        nodes: vec![
            node(Operator::Get { collection: ORDERS }, &order),
            node(Operator::Get { collection: BUYERS }, &buyer),
            node(
                Operator::Join {
                    left: NodeId(0),
                    right: NodeId(1),
                    left_keys: vec![1],
                    right_keys: vec![0],
                    null_equals_null: false,
                },
                &joined,
            ),
            node(
                Operator::Aggregate {
                    input: NodeId(2),
                    group: vec![4],
                    aggregates: vec![
                        aggregate(AggregateFunction::Count, None),
                        aggregate(AggregateFunction::Sum, Some(2)),
                    ],
                },
                &[DataType::Utf8, int.clone(), int],
            ),
        ],
    }
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Size {
    /// Order `id`: its buyer and amount are functions of it.
    fn orders(self, ids: Range<usize>) -> Result<RecordBatch> {
        let buyer = |id: usize| number(id.wrapping_mul(7919) % self.buyers);
        let amount = |id: usize| i32::try_from(id % 1000).unwrap_or(0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ids.clone().map(number).collect::<Int64Array>()),
            Arc::new(ids.clone().map(buyer).collect::<Int64Array>()),
            Arc::new(ids.map(amount).collect::<Int32Array>()),
        ];
        let schema = shard::schema(&[DataType::Int64, DataType::Int64, DataType::Int32]);
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    fn buyers(self) -> Result<RecordBatch> {
        let city = |id: usize| Some(format!("city {}", id % GROUPS));
        let columns: Vec<ArrayRef> = vec![
            Arc::new((0..self.buyers).map(number).collect::<Int64Array>()),
            Arc::new((0..self.buyers).map(city).collect::<StringArray>()),
        ];
        let schema = shard::schema(&[DataType::Int64, DataType::Utf8]);
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

/// A shard with both inputs loaded and the view hydrated; and how many milliseconds hydration took.
fn start(orders: &RecordBatch, size: Size) -> Result<(Shard, f64)> {
    let mut shard = shard::single();
    let buyers = size.buyers()?;
    for (id, rows) in [(ORDERS, orders), (BUYERS, &buyers)] {
        shard.create_collection(id, rows.schema(), Some(vec![0]))?;
        shard.load_collection(id, rows, Epoch(1))?;
    }
    let begin = Instant::now();
    shard.create_dataflow(&DataflowDescription {
        cluster: ClusterId::DEFAULT,
        id: TOTALS,
        plan: plan(),
        export: Export::Index { key: vec![0] },
    })?;
    shard::hydrate(&mut shard, TOTALS, Epoch(1))?;
    Ok((shard, begin.elapsed().as_secs_f64() * 1e3))
}

fn tick(shard: &mut Shard, epoch: Epoch, deltas: Vec<DeltaBatch>) -> Result<Duration> {
    let inputs = vec![(ORDERS, CollectionInput::Deltas(deltas))];
    let (_, elapsed) = shard::tick(shard, epoch, inputs)?;
    shard::maintain(shard, epoch);
    Ok(elapsed)
}

fn content(shard: &Shard, epoch: Epoch) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for batch in shard.snapshot(TOTALS, epoch)?.rows()? {
        for row in 0..batch.num_rows() {
            rows.push(format!("{:?}", batch.slice(row, 1).columns()));
        }
    }
    rows.sort();
    Ok(rows)
}
