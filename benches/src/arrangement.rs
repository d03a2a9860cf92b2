//! The arrangement itself: what it costs to build and to probe, and its memory, beside a hash map of rows.
//!
//! The aims are what the prototype measured on this workload when the structure was chosen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::DataType;
use flowstone_dataflow::{CollectionInput, Shard};
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{Node, Operator, Plan};
use flowstone_types::{ClusterId, DeltaBatch, Epoch, ObjectId};
use serde_json::json;

use crate::report::{Aim, Better, Figure, Scale, Section};
use crate::shard;

const ROWS: ObjectId = ObjectId::User(1);
const BY_KEY: ObjectId = ObjectId::User(2);
/// Bytes of text in each row.
const TEXT: usize = 48;
/// Keys per probe, and the floors in nanoseconds per key at fan-out 1 and at 40.
const PROBES: [(usize, f64, f64); 3] = [
    (100, 218.0, 1000.0),
    (10_000, 143.0, 500.0),
    (100_000, 116.0, 840.0),
];
/// Nanoseconds per row of building, at fan-out 1 and at 40.
const BUILD_FLOORS: (f64, f64) = (70.0, 26.0);

/// A row of the hash map without its key.
type Values = (i64, i64, String);

/// Rows of three numbers and a text.
#[derive(Clone, Copy)]
struct Workload {
    rows: usize,
    rows_per_tick: usize,
    /// Rows per key.
    fan_out: usize,
}

pub(crate) fn run(scale: Scale) -> Result<Section> {
    let rows = scale.pick(4_000_000, 20_000);
    let mut figures = Vec::new();
    let mut details = Vec::new();
    for (rows_per_tick, fan_out) in [(40_000, 1), (1_000, 1), (40_000, 40)] {
        let workload = Workload {
            rows,
            rows_per_tick: rows_per_tick.min(rows / 4),
            fan_out,
        };
        let repetitions = scale.pick(3, 1);
        let mut ours = Vec::new();
        let mut peers = Vec::new();
        for _ in 0..repetitions {
            ours.push(workload.arrange(scale)?);
            peers.push(workload.map(scale)?);
        }
        for (ours, peer) in itertools::zip_eq(&ours, &peers) {
            if ours.answers != peer.answers {
                bail!("the arrangement gives other rows than the hash map");
            }
        }
        let name = format!("fan-out {fan_out}, ticks of {}", workload.rows_per_tick);
        let column = |runs: &[Measured], of: &dyn Fn(&Measured) -> f64| -> Vec<f64> {
            runs.iter().map(of).collect()
        };
        let mut figure = |what: &str, unit, of: &dyn Fn(&Measured) -> f64, aim: Option<f64>| {
            let figure = Figure::new(
                format!("{name}: {what}"),
                unit,
                Better::Lower,
                column(&ours, of),
            )
            .against("HashMap", column(&peers, of));
            figures.push(match aim {
                Some(aim) => figure.aim(Aim::AtMost(aim)),
                None => figure,
            });
        };
        let build = if fan_out == 1 {
            BUILD_FLOORS.0
        } else {
            BUILD_FLOORS.1
        };
        figure("build", "ns/row", &|run| run.build_ns, Some(build));
        figure("worst tick", "ms", &|run| run.worst_tick_ms, None);
        figure("memory", "bytes/row", &|run| run.bytes_per_row, None);
        for (at, (keys, unique, many)) in PROBES.into_iter().enumerate() {
            let aim = if fan_out == 1 { unique } else { many };
            let of = |run: &Measured| run.probe_ns.get(at).copied().unwrap_or(f64::NAN);
            figure(&format!("probe of {keys}"), "ns/key", &of, Some(aim));
        }
        details.push(json!({"rows": workload.rows, "rows_per_tick": workload.rows_per_tick, "fan_out": fan_out, "repetitions": repetitions}));
    }
    Ok(Section {
        method: format!(
            "{rows} rows of three int8 and {TEXT} bytes of text; a probe gives the rows; at fan-out 1 the key is the collection's own, at 40 it is an index beside \
             the one over all columns"
        ),
        figures,
        details: json!(details),
    })
}

/// One run.
struct Measured {
    build_ns: f64,
    worst_tick_ms: f64,
    /// Without what the allocator adds.
    bytes_per_row: f64,
    probe_ns: Vec<f64>,
    /// Of the first round of each size: all columns of all rows, in one sum that does not depend on their order.
    answers: Vec<i64>,
}

fn signed(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn float(value: usize) -> f64 {
    u32::try_from(value).map_or(f64::INFINITY, f64::from)
}

fn text(row: usize) -> String {
    format!("{row:0TEXT$}")
}

impl Workload {
    const fn keys(&self) -> usize {
        self.rows / self.fan_out
    }

    /// The key of a row: rows of one key come far apart, and keys in no order.
    fn key(&self, row: usize) -> i64 {
        let number = row % self.keys();
        signed(number).wrapping_mul(0x5851_F42D_4C95_7F2D)
    }

    fn ticks(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (all, each) = (self.rows, self.rows_per_tick);
        (0..all.div_ceil(each)).map(move |tick| tick * each..((tick + 1) * each).min(all))
    }

    /// Keys to probe: some of those that exist, in no order.
    fn probed(&self, count: usize, round: usize) -> Vec<i64> {
        (0..count)
            .map(|at| self.key((round * count + at).wrapping_mul(7_368_787)))
            .collect()
    }

    /// Rounds of probing for a stable time: about a million rows.
    fn rounds(&self, count: usize, scale: Scale) -> usize {
        (scale.pick(1_000_000, 1000) / (count * self.fan_out)).max(1)
    }

    fn batch(&self, rows: std::ops::Range<usize>) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(
                rows.clone()
                    .map(|row| self.key(row))
                    .collect::<Int64Array>(),
            ),
            Arc::new(rows.clone().map(signed).collect::<Int64Array>()),
            Arc::new(
                rows.clone()
                    .map(|row| signed(row * 3))
                    .collect::<Int64Array>(),
            ),
            Arc::new(rows.map(|row| Some(text(row))).collect::<StringArray>()),
        ];
        Ok(RecordBatch::try_new(shard::schema(&types()), columns)?)
    }

    /// An empty shard with the collection, and what to look keys up in.
    fn shard(&self) -> Result<(Shard, ObjectId)> {
        let mut shard = shard::single();
        let schema = shard::schema(&types());
        if self.fan_out == 1 {
            shard.create_collection(ROWS, schema, Some(vec![0]))?;
            return Ok((shard, ROWS));
        }
        shard.create_collection(ROWS, Arc::clone(&schema), None)?;
        shard.create_dataflow(&DataflowDescription {
            cluster: ClusterId::DEFAULT,
            id: BY_KEY,
            plan: Plan {
                nodes: vec![Node {
                    operator: Operator::Get { collection: ROWS },
                    schema,
                }],
            },
            export: Export::Index { key: vec![0] },
        })?;
        shard::hydrate(&mut shard, BY_KEY, Epoch(1))?;
        Ok((shard, BY_KEY))
    }

    fn insert(shard: &mut Shard, epoch: u64, rows: RecordBatch) -> Result<f64> {
        let delta = DeltaBatch::insert(rows, Epoch(epoch));
        let inputs = vec![(ROWS, CollectionInput::Deltas(vec![delta]))];
        let (_, tick) = shard::tick(shard, Epoch(epoch), inputs)?;
        Ok((tick + shard::maintain(shard, Epoch(epoch))).as_secs_f64())
    }

    fn arrange(&self, scale: Scale) -> Result<Measured> {
        let (mut shard, target) = self.shard()?;
        let mut times = Vec::new();
        for (epoch, rows) in (2..).zip(self.ticks()) {
            let batch = self.batch(rows)?;
            times.push(Self::insert(&mut shard, epoch, batch)?);
        }
        let (mut probe_ns, mut answers) = (Vec::new(), Vec::new());
        for (count, ..) in PROBES {
            let count = count.min(self.keys());
            let rounds = self.rounds(count, scale);
            let mut seconds = 0.0;
            for round in 0..rounds {
                let keys: ArrayRef = Arc::new(Int64Array::from(self.probed(count, round)));
                let begin = Instant::now();
                let (found, _) = shard.lookup(target, &[keys])?;
                seconds += begin.elapsed().as_secs_f64();
                if found.num_rows() != count * self.fan_out {
                    bail!("{count} keys give {} rows", found.num_rows());
                }
                if round == 0 {
                    answers.push(sum_of_batch(&found)?);
                }
            }
            probe_ns.push(seconds * 1e9 / float(count * rounds));
        }
        let held = shard
            .statistics()
            .remove(&ROWS)
            .context("the collection has statistics")?;
        if held.rows != u64::try_from(self.rows)? {
            bail!("{} rows instead of {}", held.rows, self.rows);
        }
        Ok(Measured {
            bytes_per_row: float(usize::try_from(held.bytes / held.rows)?),
            probe_ns,
            answers,
            ..self.built(&times)
        })
    }

    /// The same with a hash map from keys to lists of rows.
    fn map(&self, scale: Scale) -> Result<Measured> {
        let mut map: HashMap<i64, Vec<Values>> = HashMap::new();
        let mut times = Vec::new();
        for rows in self.ticks() {
            let rows: Vec<(i64, Values)> = rows
                .map(|row| (self.key(row), (signed(row), signed(row * 3), text(row))))
                .collect();
            let begin = Instant::now();
            for (key, values) in rows {
                map.entry(key).or_default().push(values);
            }
            times.push(begin.elapsed().as_secs_f64());
        }
        let (mut probe_ns, mut answers) = (Vec::new(), Vec::new());
        for (count, ..) in PROBES {
            let count = count.min(self.keys());
            let rounds = self.rounds(count, scale);
            let mut seconds = 0.0;
            for round in 0..rounds {
                let keys = self.probed(count, round);
                let begin = Instant::now();
                let mut found = Vec::with_capacity(count * self.fan_out);
                for key in keys {
                    found.extend(
                        map.get(&key)
                            .into_iter()
                            .flatten()
                            .map(|values| (key, values.clone())),
                    );
                }
                seconds += begin.elapsed().as_secs_f64();
                if found.len() != count * self.fan_out {
                    bail!("{count} keys give {} rows", found.len());
                }
                if round == 0 {
                    answers.push(found.iter().fold(0, |sum: i64, (key, (a, b, text))| {
                        sum.wrapping_add(sum_of_row(*key, *a, *b, text))
                    }));
                }
            }
            probe_ns.push(seconds * 1e9 / float(count * rounds));
        }
        // Seven in eight slots of the table can be used, and each has a byte beside it.
        let slots = (map.capacity() * 8).div_ceil(7);
        let lists: usize = map.values().map(Vec::capacity).sum();
        let bytes = slots * (size_of::<(i64, Vec<Values>)>() + 1)
            + lists * size_of::<Values>()
            + self.rows * TEXT;
        Ok(Measured {
            bytes_per_row: float(bytes / self.rows),
            probe_ns,
            answers,
            ..self.built(&times)
        })
    }

    fn built(&self, times: &[f64]) -> Measured {
        Measured {
            build_ns: times.iter().sum::<f64>() * 1e9 / float(self.rows),
            worst_tick_ms: times.iter().copied().fold(0.0, f64::max) * 1e3,
            bytes_per_row: f64::NAN,
            probe_ns: Vec::new(),
            answers: Vec::new(),
        }
    }
}

fn types() -> [DataType; 4] {
    [
        DataType::Int64,
        DataType::Int64,
        DataType::Int64,
        DataType::Utf8,
    ]
}

fn sum_of_row(key: i64, a: i64, b: i64, text: &str) -> i64 {
    let text = text.bytes().fold(0, |sum: i64, byte| {
        sum.wrapping_mul(31).wrapping_add(i64::from(byte))
    });
    [a, b, text].into_iter().fold(key, |sum, value| {
        sum.wrapping_mul(1_000_003).wrapping_add(value)
    })
}

fn sum_of_batch(rows: &RecordBatch) -> Result<i64> {
    let number = |column: usize| {
        let column = rows.columns().get(column);
        column
            .and_then(|column| column.as_primitive_opt::<Int64Type>())
            .context("a column of numbers")
    };
    let texts = rows.columns().get(3);
    let texts = texts
        .and_then(|column| column.as_string_opt::<i32>())
        .context("a column of text")?;
    let (keys, a, b) = (number(0)?, number(1)?, number(2)?);
    Ok((0..rows.num_rows()).fold(0, |sum: i64, row| {
        sum.wrapping_add(sum_of_row(
            keys.value(row),
            a.value(row),
            b.value(row),
            texts.value(row),
        ))
    }))
}
