//! After each tick, every view equals its plan evaluated from scratch: for random tables, plans and ticks, for one shard and for three, whether or not
//! another one breaks in that tick.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::DataType;
use flowstone_dataflow::{POINT_ROWS_MAX, owner_of};
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{Node, NodeId, Operator, Plan, QueryPlan};
use flowstone_types::{
    ClusterId, Epoch, EvalError, EvalErrorKind, ObjectId, SourceChanges, SourceOp,
};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cluster::{Cluster, Input};
use crate::oracle::{Contents, Expressions, expand, run};
use crate::random::{plan, row, types};
use crate::values::{Row, Value, add, batch};

pub(crate) const BAG: ObjectId = ObjectId::User(1);
pub(crate) const KEYED: ObjectId = ObjectId::User(2);
const VIEW: ObjectId = ObjectId::User(3);
const ABOVE: ObjectId = ObjectId::User(4);
const INDEX: ObjectId = ObjectId::User(5);
const LATE: ObjectId = ObjectId::User(6);
const SUBSCRIPTION: ObjectId = ObjectId::Transient(1);
const VICTIM: ObjectId = ObjectId::User(7);
const ABOVE_VICTIM: ObjectId = ObjectId::User(8);
/// Cases that grow beyond this many rows in a node are given up.
const LIMIT: usize = 4_000;

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    operators: usize,
    /// Changes per tick.
    ticks: Vec<usize>,
    domain: i64,
    shards: usize,
    /// Only the bulk path, either, or only the point path.
    point_rows_max: usize,
    /// Beside the others there is a view that panics over more rows than so many, and one that reads it.
    victim: Option<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    let size = prop_oneof![3 => 0..4_usize, 4 => 1..40_usize, 1 => 100..400_usize];
    (
        any::<u64>(),
        0..6_usize,
        prop::collection::vec(size, 1..10),
        prop_oneof![Just(2_i64), Just(5), Just(200)],
        prop_oneof![Just(1_usize), Just(3)],
        prop_oneof![Just(0_usize), Just(POINT_ROWS_MAX), Just(usize::MAX)],
        prop_oneof![2 => Just(None), 1 => (0..60_usize).prop_map(Some)],
    )
        .prop_map(
            |(seed, operators, ticks, domain, shards, point_rows_max, victim)| Case {
                seed,
                operators,
                ticks,
                domain,
                shards,
                point_rows_max,
                victim,
            },
        )
}

/// A view that breaks.
struct Victim {
    rows_max: usize,
    /// What it gives back as long as there are no more rows than that.
    input: Plan,
    plan: Plan,
    types: Vec<DataType>,
    expected: Contents,
    broken: bool,
}

impl Victim {
    fn new(rows_max: usize, input: Plan) -> Self {
        let schema = Arc::clone(&input.root().unwrap().schema);
        let types = schema.fields().iter();
        let types = types.map(|field| field.data_type().clone()).collect();
        let operator = Operator::Recompute {
            inputs: vec![NodeId(input.nodes.len() - 1)],
            query: QueryPlan {
                bytes: Vec::new(),
                text: format!("at most {rows_max}"),
            },
            reason: "a test".to_owned(),
        };
        let mut plan = input.clone();
        plan.nodes.push(Node { operator, schema });
        Self {
            rows_max,
            input,
            plan,
            types,
            expected: Contents::default(),
            broken: false,
        }
    }

    /// The victim, and what reads it.
    fn dataflows(&self) -> [DataflowDescription; 2] {
        let get = Node {
            operator: Operator::Get { collection: VICTIM },
            schema: crate::values::schema(&self.types),
        };
        let above = Plan { nodes: vec![get] };
        [view(VICTIM, &self.plan), view(ABOVE_VICTIM, &above)]
    }

    /// Takes note of what it reads next. `None` if that is too much.
    fn advance(
        &mut self,
        expressions: &Expressions,
        collections: &BTreeMap<ObjectId, Contents>,
    ) -> Option<()> {
        self.expected = run(&self.input, expressions, collections, LIMIT)?;
        let rows = self.expected.rows.values().sum::<i64>();
        self.broken |= rows > i64::try_from(self.rows_max).unwrap();
        Some(())
    }

    fn check(&self, cluster: &Cluster, epoch: u64) {
        if !self.broken {
            assert_eq!(cluster.failed, BTreeMap::new());
            for id in [VICTIM, ABOVE_VICTIM] {
                assert_eq!(cluster.folded(id), self.expected, "{id}: {:?}", self.plan);
            }
            return;
        }
        let message = format!("panic: more than {} rows", self.rows_max);
        let error = EvalError::new(EvalErrorKind::Internal, message);
        let ended = [VICTIM, ABOVE_VICTIM].map(|id| (id, error.clone()));
        assert_eq!(cluster.failed, BTreeMap::from(ended));
        let only = Contents {
            rows: BTreeMap::new(),
            errors: BTreeMap::from([(error, 1)]),
        };
        for id in [VICTIM, ABOVE_VICTIM] {
            assert_eq!(cluster.snapshot(id, epoch).unwrap(), only, "{id}");
        }
    }
}

/// The two tables: a bag changed by weights, and a keyed one changed as an upstream says it.
pub(crate) struct Tables {
    pub(crate) bag: Vec<DataType>,
    pub(crate) keyed: Vec<DataType>,
    pub(crate) contents: BTreeMap<ObjectId, Contents>,
    pub(crate) domain: i64,
}

impl Tables {
    pub(crate) fn bag_changes(&mut self, rng: &mut impl Rng, count: usize) -> Input {
        let bag = &mut self.contents.get_mut(&BAG).unwrap().rows;
        let mut changes = Vec::new();
        for _ in 0..count {
            match (rng.random_range(0..6), bag.len()) {
                // Deletes a row, once or altogether; or touches it without effect; or updates it.
                (0..4, 1..) => {
                    let (old, weight) = bag
                        .iter()
                        .nth(rng.random_range(0..bag.len()))
                        .map(|(row, weight)| (row.clone(), *weight))
                        .unwrap();
                    let gone = if rng.random_ratio(1, 2) { weight } else { 1 };
                    changes.push((old.clone(), -gone));
                    add(bag, old.clone(), -gone);
                    if rng.random_ratio(1, 4) {
                        changes.push((old.clone(), 1));
                        add(bag, old, 1);
                    } else if rng.random_ratio(1, 2) {
                        let new = row(rng, &self.bag, self.domain);
                        changes.push((new.clone(), 1));
                        add(bag, new, 1);
                    }
                }
                _ => {
                    let new = row(rng, &self.bag, self.domain);
                    let weight = if rng.random_ratio(1, 5) { 3 } else { 1 };
                    changes.push((new.clone(), weight));
                    add(bag, new, weight);
                }
            }
        }
        Input::Rows(changes)
    }

    pub(crate) fn keyed_changes(&mut self, rng: &mut impl Rng, count: usize) -> Input {
        let bag = &mut self.contents.get_mut(&KEYED).unwrap().rows;
        let mut by_key = bag
            .keys()
            .map(|row| (row[0].clone(), row.clone()))
            .collect::<BTreeMap<Value, Row>>();
        let mut changes = SourceChanges {
            rows: batch(&self.keyed, &[]),
            ops: Vec::new(),
            unchanged: Vec::new(),
            moved: Vec::new(),
            truncate_before: rng.random_ratio(1, 12),
        };
        if changes.truncate_before {
            by_key.clear();
        }
        let mut rows = Vec::new();
        for _ in 0..count {
            let key = Value::Int(rng.random_range(-self.domain * 3..self.domain * 3));
            let mut new = row(rng, &self.keyed, self.domain);
            new[0] = key.clone();
            match (rng.random_range(0..5), by_key.get(&key)) {
                (0, Some(old)) => {
                    changes.ops.push(SourceOp::Delete);
                    new = old.clone();
                    by_key.remove(&key);
                }
                (1, Some(_)) => {
                    changes.ops.push(SourceOp::DeleteByKey);
                    new[1..].fill(Value::Null);
                    by_key.remove(&key);
                }
                (2, None) => {
                    changes.ops.push(SourceOp::Insert);
                    by_key.insert(key, new.clone());
                }
                (_, old) => {
                    changes.ops.push(SourceOp::Upsert);
                    let mut stored = new.clone();
                    if let Some(old) = old
                        && new.len() > 1
                        && rng.random_ratio(1, 3)
                    {
                        let column = rng.random_range(1..new.len());
                        changes.unchanged.push((
                            u32::try_from(rows.len()).unwrap(),
                            u16::try_from(column).unwrap(),
                        ));
                        stored[column] = old[column].clone();
                        new[column] = Value::Null;
                    }
                    by_key.insert(key, stored);
                }
            }
            rows.push(new);
        }
        changes.rows = batch(&self.keyed, &rows);
        *bag = by_key.into_values().map(|row| (row, 1)).collect();
        Input::Changes(vec![changes])
    }

    fn delete_all(&mut self) -> Vec<(ObjectId, Input)> {
        let bag = std::mem::take(&mut self.contents.get_mut(&BAG).unwrap().rows);
        self.contents.get_mut(&KEYED).unwrap().rows.clear();
        let truncate = SourceChanges {
            rows: batch(&self.keyed, &[]),
            ops: Vec::new(),
            unchanged: Vec::new(),
            moved: Vec::new(),
            truncate_before: true,
        };
        vec![
            (
                BAG,
                Input::Rows(
                    bag.into_iter()
                        .map(|(row, weight)| (row, -weight))
                        .collect(),
                ),
            ),
            (KEYED, Input::Changes(vec![truncate])),
        ]
    }
}

pub(crate) fn view(id: ObjectId, plan: &Plan) -> DataflowDescription {
    DataflowDescription {
        cluster: ClusterId::DEFAULT,
        id,
        plan: plan.clone(),
        export: Export::Collection,
    }
}

fn check(case: &Case) {
    let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
    let mut expressions = Expressions::default();
    let tables = (types(&mut rng), types(&mut rng));
    let below = plan(
        &mut rng,
        &mut expressions,
        &[(BAG, tables.0.clone()), (KEYED, tables.1.clone())],
        case.operators,
    );
    let view_types = below
        .root()
        .unwrap()
        .schema
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect::<Vec<_>>();
    let above = plan(
        &mut rng,
        &mut expressions,
        &[(KEYED, tables.1.clone()), (VIEW, view_types.clone())],
        case.operators.min(2),
    );
    let above_types = above
        .root()
        .unwrap()
        .schema
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect::<Vec<_>>();
    let mut victim = case.victim.map(|rows_max| {
        let tables = [(BAG, tables.0.clone()), (VIEW, view_types.clone())];
        let operators = case.operators.min(3);
        Victim::new(
            rows_max,
            plan(&mut rng, &mut expressions, &tables, operators),
        )
    });
    let expressions = Arc::new(expressions);
    let mut cluster = Cluster::with_point_rows(case.shards, &expressions, case.point_rows_max);
    cluster.table(BAG, &tables.0, None);
    cluster.table(KEYED, &tables.1, Some(vec![0]));
    cluster.table(VIEW, &view_types, None);
    cluster.table(ABOVE, &above_types, None);
    cluster.table(LATE, &above_types, None);
    let key = if view_types.is_empty() {
        Vec::new()
    } else {
        vec![rng.random_range(0..view_types.len())]
    };
    let get = Plan {
        nodes: vec![flowstone_proto::plan::Node {
            operator: Operator::Get { collection: VIEW },
            schema: crate::values::schema(&view_types),
        }],
    };

    let contents = [BAG, KEYED]
        .into_iter()
        .map(|id| (id, Contents::default()))
        .collect();
    let mut model = Tables {
        bag: tables.0,
        keyed: tables.1,
        contents,
        domain: case.domain,
    };
    let create_at = rng.random_range(0..=case.ticks.len() / 2);
    let late_at = rng.random_range(create_at..=case.ticks.len());
    let mut expected_at = BTreeMap::new();
    for (number, size) in case.ticks.iter().copied().chain([0]).enumerate() {
        let epoch = 10 + 2 * u64::try_from(number).unwrap();
        if number == create_at {
            cluster.each(|shard| shard.create_dataflow(&view(VIEW, &below)));
            cluster.each(|shard| shard.create_dataflow(&view(ABOVE, &above)));
            cluster.each(|shard| {
                shard.create_dataflow(&DataflowDescription {
                    cluster: ClusterId::DEFAULT,
                    id: INDEX,
                    plan: get.clone(),
                    export: Export::Index { key: key.clone() },
                })
            });
            let mut ids = vec![VIEW, ABOVE, INDEX];
            if let Some(victim) = &mut victim {
                let mut all = model.contents.clone();
                let Some(below) = run(&below, &expressions, &all, LIMIT) else {
                    return;
                };
                all.insert(VIEW, below);
                if victim.advance(&expressions, &all).is_none() {
                    return;
                }
                for (id, dataflow) in [VICTIM, ABOVE_VICTIM].into_iter().zip(victim.dataflows()) {
                    cluster.table(id, &victim.types, None);
                    cluster.each(|shard| shard.create_dataflow(&dataflow));
                    ids.push(id);
                }
            }
            cluster.hydrate(&ids, epoch - 1).unwrap();
        }
        if number == late_at {
            cluster.each(|shard| shard.create_dataflow(&view(LATE, &above)));
            cluster.each(|shard| shard.create_subscription(SUBSCRIPTION, &above));
            cluster.hydrate(&[LATE, SUBSCRIPTION], epoch - 1).unwrap();
        }
        let inputs = if number == case.ticks.len() {
            model.delete_all()
        } else {
            vec![
                (BAG, model.bag_changes(&mut rng, size)),
                (KEYED, model.keyed_changes(&mut rng, size.min(100))),
            ]
        };
        // First the oracle: it knows when a case grows too large to be worth it.
        let mut all = model.contents.clone();
        let Some(expected) = run(&below, &expressions, &all, LIMIT) else {
            return;
        };
        all.insert(VIEW, expected.clone());
        let Some(expected_above) = run(&above, &expressions, &all, LIMIT) else {
            return;
        };
        if number >= create_at
            && let Some(victim) = &mut victim
            && victim.advance(&expressions, &all).is_none()
        {
            return;
        }
        cluster.tick(epoch, inputs).unwrap();
        match &victim {
            Some(victim) if number >= create_at => victim.check(&cluster, epoch),
            _ => assert_eq!(cluster.failed, BTreeMap::new()),
        }
        for id in [BAG, KEYED] {
            assert_eq!(
                cluster.folded(id),
                model.contents[&id],
                "{id} after tick {number}"
            );
            assert_eq!(
                cluster.snapshot(id, epoch).unwrap(),
                model.contents[&id],
                "snapshot of {id} after tick {number}"
            );
        }
        if number >= create_at {
            for id in [VIEW, INDEX] {
                assert_eq!(
                    cluster.folded(id),
                    expected,
                    "{id} after tick {number}: {below:?}"
                );
                assert_eq!(
                    cluster.snapshot(id, epoch).unwrap(),
                    expected,
                    "snapshot of {id} after tick {number}"
                );
            }
            assert_eq!(
                cluster.folded(ABOVE),
                expected_above,
                "{ABOVE} after tick {number}: {above:?}"
            );
            check_lookup(&cluster, &key, &view_types, &expected);
            expected_at.insert(epoch, expected);
            for (epoch, expected) in &expected_at {
                check_lookup_at(&cluster, &key, &view_types, (*epoch, expected));
            }
        }
        if number >= late_at {
            for id in [LATE, SUBSCRIPTION] {
                assert_eq!(
                    cluster.folded(id),
                    expected_above,
                    "{id} after tick {number}: {above:?}"
                );
            }
        }
        for (epoch, expected) in &expected_at {
            assert_eq!(
                &cluster.snapshot(VIEW, *epoch).unwrap(),
                expected,
                "{VIEW} as of {epoch} after tick {number}"
            );
        }
        if rng.random_ratio(1, 2) {
            let since = epoch - rng.random_range(0..5).min(epoch);
            cluster.each(|shard| {
                shard.allow_compaction(Epoch(since));
                Ok(())
            });
            expected_at.retain(|epoch, _| *epoch >= since);
        }
        if number == case.ticks.len() {
            // Everything was deleted: what is left is what a view over empty tables has.
            let mut empty = Cluster::new(case.shards, &expressions);
            empty.table(BAG, &model.bag, None);
            empty.table(KEYED, &model.keyed, Some(vec![0]));
            empty.table(VIEW, &view_types, None);
            empty.each(|shard| shard.create_dataflow(&view(VIEW, &below)));
            empty.hydrate(&[VIEW], epoch).unwrap();
            assert_eq!(
                cluster.state(VIEW),
                empty.state(VIEW),
                "state left: {below:?}"
            );
        }
        let fuel = [0, 10, 1000, 1_000_000][rng.random_range(0..4)];
        cluster.each(|shard| {
            shard.maintain(fuel);
            Ok(())
        });
    }
}

/// Looks up keys of the view as of an earlier epoch, and on the shard that owns the key alone.
fn check_lookup_at(
    cluster: &Cluster,
    key: &[usize],
    types: &[DataType],
    (epoch, expected): (u64, &Contents),
) {
    let [column] = key else { return };
    let mut keys = expand(&expected.rows)
        .into_iter()
        .map(|row| row[*column].clone())
        .collect::<Vec<_>>();
    keys.sort();
    keys.dedup();
    keys.truncate(3);
    // One that only exists at other epochs, perhaps.
    keys.push(Value::Null);
    for key in keys {
        let wanted = batch(std::slice::from_ref(&types[*column]), &[vec![key.clone()]]);
        let owner = owner_of(wanted.columns(), cluster.shards.len()).unwrap();
        let mut found = BTreeMap::new();
        let (batch, weights) = cluster.shards[owner]
            .lookup_at(INDEX, wanted.columns(), Epoch(epoch), usize::MAX)
            .unwrap()
            .unwrap();
        for (position, row) in crate::values::rows(&batch).into_iter().enumerate() {
            add(&mut found, row, weights.get(position));
        }
        let rows: BTreeMap<Row, i64> = expected
            .rows
            .iter()
            .filter(|(row, _)| row[*column] == key)
            .map(|(row, weight)| (row.clone(), *weight))
            .collect();
        assert_eq!(found, rows, "{key:?} as of {epoch}");
    }
    let errors = cluster
        .shards
        .iter()
        .filter_map(|shard| shard.error_at(INDEX, Epoch(epoch)).unwrap())
        .min();
    assert_eq!(errors.as_ref(), expected.errors.keys().next());
}

/// Looks up each key of the view, and one that is not there.
fn check_lookup(cluster: &Cluster, key: &[usize], types: &[DataType], expected: &Contents) {
    let [column] = key else { return };
    let mut keys = expand(&expected.rows)
        .into_iter()
        .map(|row| row[*column].clone())
        .collect::<Vec<_>>();
    keys.sort();
    keys.dedup();
    keys.truncate(5);
    for key in keys {
        let wanted = batch(std::slice::from_ref(&types[*column]), &[vec![key.clone()]]);
        let mut found = Contents::default();
        for shard in &cluster.shards {
            let (batch, weights) = shard.lookup(INDEX, wanted.columns()).unwrap();
            for (position, row) in crate::values::rows(&batch).into_iter().enumerate() {
                add(&mut found.rows, row, weights.get(position));
            }
        }
        let rows = expected
            .rows
            .iter()
            .filter(|(row, _)| row[*column] == key)
            .map(|(row, weight)| (row.clone(), *weight))
            .collect();
        assert_eq!(found.rows, rows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn views_equal_their_plan_evaluated_from_scratch_after_every_tick(case in case()) {
        check(&case);
    }
}
