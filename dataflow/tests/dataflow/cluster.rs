//! N shards in lock step, and what they put out folded into bags.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::DataType;
use flowstone_dataflow::{
    CollectionInput, Error, ExchangeMessage, ExprCompiler, POINT_ROWS_MAX, QueryEvaluator, Shard,
    ShardConfig, TickOutput, partition_changes, partition_columns, partition_delta,
};
use flowstone_types::{DeltaBatch, Epoch, EvalError, ObjectId, SourceChanges, Weights};

use crate::oracle::{Contents, Expressions};
use crate::values::{Row, add, batch, rows};

/// What may be made of one row; only reservations count here.
const ROW_BYTES_MAX: usize = 64 << 20;

pub(crate) struct Cluster {
    pub(crate) shards: Vec<Shard>,
    pub(crate) folded: BTreeMap<ObjectId, Contents>,
    /// What has failed, and why: it was ended, as a worker does it, unless `ends_failed` is false.
    pub(crate) failed: BTreeMap<ObjectId, EvalError>,
    pub(crate) ends_failed: bool,
    tables: BTreeMap<ObjectId, (Vec<DataType>, Option<Vec<usize>>)>,
    /// What each shard put out in the last tick.
    last: Vec<TickOutput>,
    /// Delivers messages in another order every time.
    scramble: usize,
}

/// Changes of collections in one tick, by shard.
pub(crate) type Parts = Vec<Vec<(ObjectId, CollectionInput)>>;

/// Changes of one table in one tick.
#[derive(Clone)]
pub(crate) enum Input {
    Rows(Vec<(Row, i64)>),
    Changes(Vec<SourceChanges>),
    Errors(Vec<(EvalError, i64)>),
}

impl Cluster {
    pub(crate) fn new(count: usize, expressions: &Arc<Expressions>) -> Self {
        Self::with_point_rows(count, expressions, POINT_ROWS_MAX)
    }

    /// The same with another limit between the point and the bulk path.
    pub(crate) fn with_point_rows(
        count: usize,
        expressions: &Arc<Expressions>,
        point_rows_max: usize,
    ) -> Self {
        Self::with_parts(count, point_rows_max, |_| {
            let (compiler, evaluator) = (Arc::clone(expressions), Arc::clone(expressions));
            (compiler, evaluator)
        })
    }

    /// A cluster with expressions and queries of its own on each shard.
    pub(crate) fn with_parts(
        count: usize,
        point_rows_max: usize,
        parts: impl Fn(usize) -> (Arc<dyn ExprCompiler>, Arc<dyn QueryEvaluator>),
    ) -> Self {
        let shard = |index| {
            let (compiler, evaluator) = parts(index);
            Shard::new(ShardConfig {
                index,
                count,
                compiler,
                evaluator,
                point_rows_max,
                row_bytes_max: ROW_BYTES_MAX,
            })
        };
        Self {
            shards: (0..count).map(shard).collect(),
            folded: BTreeMap::new(),
            failed: BTreeMap::new(),
            ends_failed: true,
            tables: BTreeMap::new(),
            last: Vec::new(),
            scramble: 0,
        }
    }

    pub(crate) fn each(&mut self, mut act: impl FnMut(&mut Shard) -> Result<(), Error>) {
        self.shards.iter_mut().for_each(|shard| act(shard).unwrap());
    }

    pub(crate) fn table(&mut self, id: ObjectId, types: &[DataType], key: Option<Vec<usize>>) {
        self.each(|shard| shard.create_collection(id, crate::values::schema(types), key.clone()));
        self.tables.insert(id, (types.to_vec(), key));
    }

    pub(crate) fn tick(&mut self, epoch: u64, inputs: Vec<(ObjectId, Input)>) -> Result<(), Error> {
        let count = self.shards.len();
        let mut parts: Parts = vec![Vec::new(); count];
        for (id, input) in inputs {
            let (types, key) = &self.tables[&id];
            let columns = partition_columns(key.as_deref(), types.len());
            match input {
                Input::Rows(changes) => {
                    let (rows, weights): (Vec<Row>, Vec<i64>) = changes.into_iter().unzip();
                    let delta = DeltaBatch::new(
                        batch(types, &rows),
                        Weights::Array(weights.into()),
                        Epoch(epoch),
                    );
                    for (part, delta) in parts
                        .iter_mut()
                        .zip(partition_delta(&delta, &columns, count)?)
                    {
                        part.push((id, CollectionInput::Deltas(vec![delta])));
                    }
                }
                Input::Changes(changes) => {
                    for change in changes {
                        for (part, change) in parts
                            .iter_mut()
                            .zip(partition_changes(&change, &columns, count)?)
                        {
                            part.push((id, CollectionInput::Changes(vec![change])));
                        }
                    }
                }
                Input::Errors(errors) => parts[0].push((id, CollectionInput::Errors(errors))),
            }
        }
        self.follow(epoch, parts)
    }

    /// Runs a tick that is given by shard: in forks, one that the shards have run.
    pub(crate) fn follow(&mut self, epoch: u64, parts: Parts) -> Result<(), Error> {
        for (shard, part) in self.shards.iter_mut().zip(parts) {
            shard.begin_tick(Epoch(epoch), part)?;
        }
        self.finish()
    }

    /// The forks of all shards for a dataflow: a cluster of their own, in which nothing that fails is ended.
    pub(crate) fn fork(&mut self, id: ObjectId) -> Result<Self, Error> {
        let shards = self.shards.iter_mut().map(|shard| shard.fork(id));
        Ok(Self {
            shards: shards.collect::<Result<_, _>>()?,
            folded: BTreeMap::new(),
            failed: BTreeMap::new(),
            ends_failed: false,
            tables: BTreeMap::new(),
            last: Vec::new(),
            scramble: self.scramble,
        })
    }

    /// How some collections changed in the last tick.
    pub(crate) fn changes(&self, ids: &[ObjectId]) -> Parts {
        let part = |tick: &TickOutput| -> Vec<(ObjectId, CollectionInput)> {
            let outputs = tick.outputs.iter();
            let outputs = outputs.filter(|output| ids.contains(&output.id));
            let inputs = outputs.flat_map(|output| {
                [
                    (output.id, CollectionInput::Deltas(output.deltas.clone())),
                    (output.id, CollectionInput::Errors(output.errors.clone())),
                ]
            });
            inputs.collect()
        };
        self.last.iter().map(part).collect()
    }

    /// Puts a dataflow back from its forks, and what they put out for it with what the shards did.
    pub(crate) fn join(&mut self, id: ObjectId, mut forked: Self) -> Result<(), Error> {
        for (shard, forked) in self.shards.iter_mut().zip(&mut forked.shards) {
            shard.join(id, forked)?;
        }
        let contents = forked.folded.remove(&id).unwrap_or_default();
        assert_eq!(forked.folded.keys().next(), None);
        assert!(self.folded.insert(id, contents).is_none());
        Ok(())
    }

    pub(crate) fn hydrate(&mut self, ids: &[ObjectId], epoch: u64) -> Result<(), Error> {
        for shard in &mut self.shards {
            shard.begin_hydration(ids, Epoch(epoch))?;
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Error> {
        loop {
            let mut messages: Vec<(usize, ExchangeMessage)> = Vec::new();
            let mut sent = false;
            for shard in &mut self.shards {
                sent |= shard.run_stage(&mut |to, message| messages.push((to, message)))?;
            }
            assert_eq!(sent, !messages.is_empty());
            self.scramble += 1;
            if self.scramble.is_multiple_of(2) {
                messages.reverse();
            }
            for (to, message) in messages {
                self.shards[to].deliver(message);
            }
            if !sent && !self.shards.iter().any(Shard::pending) {
                break;
            }
        }
        let (mut outputs, mut failed) = (Vec::new(), BTreeMap::new());
        let mut epoch = Epoch::MIN;
        self.last.clear();
        for shard in &mut self.shards {
            let tick = shard.end_tick()?;
            self.last.push(tick.clone());
            for (id, error) in tick.failed {
                assert!(tick.outputs.iter().all(|output| output.id != id));
                failed.entry(id).or_insert(error);
            }
            outputs.extend(tick.outputs);
            epoch = tick.epoch;
        }
        for (id, error) in failed {
            if !self.ends_failed {
                assert_eq!(self.failed.insert(id, error), None, "{id} failed twice");
            } else if !self.failed.contains_key(&id) {
                self.fail(id, &error, epoch.0)?;
            }
        }
        for output in outputs {
            if self.failed.contains_key(&output.id) {
                continue;
            }
            let contents = self.folded.entry(output.id).or_default();
            for delta in &output.deltas {
                for (position, row) in rows(&delta.rows).into_iter().enumerate() {
                    assert_ne!(delta.weights.get(position), 0);
                    add(&mut contents.rows, row, delta.weights.get(position));
                }
            }
            for (error, weight) in output.errors {
                let sum = contents.errors.entry(error.clone()).or_insert(0);
                *sum += weight;
                if *sum == 0 {
                    contents.errors.remove(&error);
                }
            }
        }
        Ok(())
    }

    /// Ends a dataflow in error. Returns what is ended with it.
    pub(crate) fn fail(
        &mut self,
        id: ObjectId,
        error: &EvalError,
        epoch: u64,
    ) -> Result<Vec<ObjectId>, Error> {
        let mut dependents = None;
        for shard in &mut self.shards {
            let here = shard.fail_dataflow(id, error, Epoch(epoch))?;
            assert_eq!(*dependents.get_or_insert_with(|| here.clone()), here);
        }
        let dependents = dependents.unwrap_or_default();
        for ended in dependents.iter().copied().chain([id]) {
            self.folded.remove(&ended);
            self.failed.entry(ended).or_insert_with(|| error.clone());
        }
        Ok(dependents)
    }

    pub(crate) fn drop_object(&mut self, id: ObjectId) {
        for shard in &mut self.shards {
            shard.drop_object(id);
        }
        self.folded.remove(&id);
        self.failed.remove(&id);
        self.tables.remove(&id);
    }

    pub(crate) fn folded(&self, id: ObjectId) -> Contents {
        self.folded.get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn snapshot(&self, id: ObjectId, epoch: u64) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        for shard in &self.shards {
            let snapshot = shard.snapshot(id, Epoch(epoch))?;
            for batch in snapshot.rows()? {
                rows(&batch)
                    .into_iter()
                    .for_each(|row| add(&mut contents.rows, row, 1));
            }
            for (error, weight) in snapshot.errors {
                *contents.errors.entry(error).or_insert(0) += weight;
            }
        }
        Ok(contents)
    }

    pub(crate) fn state(&self, id: ObjectId) -> u64 {
        self.shards
            .iter()
            .map(|shard| shard.dataflow_state(id).unwrap())
            .sum()
    }
}
