//! What dataflows share through the registry: one arrangement of a collection for all that need it by the same columns, on however many shards.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::DataType;
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{AggregateFunction as F, Node, NodeId, Operator, Plan, QueryPlan};
use flowstone_types::{ClusterId, ObjectId};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cluster::{Cluster, Input};
use crate::known::{aggregate, get, int, ints, node, view};
use crate::oracle::{Contents, Expressions, division_by_zero, expand, run};
use crate::values::{Row, Value, add};

pub(crate) const LEFT: ObjectId = ObjectId::User(1);
pub(crate) const RIGHT: ObjectId = ObjectId::User(2);
const INT: DataType = DataType::Int64;
pub(crate) const TYPES: [DataType; 3] = [INT, INT, INT];
/// The column that most plans join the tables by, and that of a count by it.
pub(crate) const KEY: &[usize] = &[1];
const COUNTED: &[usize] = &[0];
/// More rows than any case has.
const LIMIT: usize = 1_000_000;

pub(crate) fn tables(shards: usize) -> Cluster {
    let mut cluster = Cluster::new(shards, &Arc::default());
    cluster.table(LEFT, &TYPES, None);
    cluster.table(RIGHT, &TYPES, None);
    cluster
}

fn join(inputs: (usize, usize), keys: (&[usize], &[usize]), null_equals_null: bool) -> Operator {
    Operator::Join {
        left: NodeId(inputs.0),
        right: NodeId(inputs.1),
        left_keys: keys.0.to_vec(),
        right_keys: keys.1.to_vec(),
        null_equals_null,
    }
}

/// The tables, joined by columns that are no key of them.
pub(crate) fn joined(keys: (&[usize], &[usize]), null_equals_null: bool) -> Vec<Node> {
    vec![
        get(LEFT, &TYPES),
        get(RIGHT, &TYPES),
        node(
            join((0, 1), keys, null_equals_null),
            &[TYPES, TYPES].concat(),
        ),
    ]
}

/// How many rows node `input` has for each value of the column that the tables are joined by.
fn count(input: usize) -> Node {
    let operator = Operator::Aggregate {
        input: NodeId(input),
        group: vec![1],
        aggregates: vec![aggregate(F::Count, None)],
    };
    node(operator, &[INT, INT])
}

/// Plans that need the same tables by the same columns, and by others.
fn plans() -> Vec<Vec<Node>> {
    let of_left = QueryPlan {
        bytes: Vec::new(),
        text: format!("at most {LIMIT}"),
    };
    let recompute = Operator::Recompute {
        inputs: vec![NodeId(0)],
        query: of_left,
        reason: "a test".to_owned(),
    };
    let both = [TYPES, TYPES].concat();
    let counted = |types: &[DataType]| [types, &[INT, INT]].concat();
    let by_one = (KEY, KEY);
    let by_count = (KEY, COUNTED);
    vec![
        joined(by_one, false),
        joined(by_one, true),
        joined((&[1, 2], &[1, 2]), false),
        joined((&[2], &[1]), false),
        // Both sides are the same, from one node and from two.
        vec![get(LEFT, &TYPES), node(join((0, 0), by_one, false), &both)],
        vec![
            get(LEFT, &TYPES),
            get(LEFT, &TYPES),
            node(join((0, 1), by_one, false), &both),
        ],
        // The rows are needed there before they are arranged, and afterwards.
        vec![
            get(LEFT, &TYPES),
            count(0),
            node(join((0, 1), by_count, true), &counted(&TYPES)),
        ],
        vec![
            get(LEFT, &TYPES),
            get(RIGHT, &TYPES),
            node(join((0, 1), by_one, true), &both),
            count(0),
            node(join((2, 3), by_count, true), &counted(&both)),
        ],
        vec![get(LEFT, &TYPES), node(recompute, &TYPES)],
    ]
}

pub(crate) fn evaluated(nodes: &[Node], contents: &BTreeMap<ObjectId, Contents>) -> Contents {
    let plan = Plan {
        nodes: nodes.to_vec(),
    };
    run(&plan, &Expressions::default(), contents, LIMIT).unwrap()
}

/// Bytes of arrangements, whoever is said to hold them.
pub(crate) fn arranged(cluster: &Cluster) -> u64 {
    let held = cluster.shards.iter().flat_map(|shard| {
        let statistics = shard.statistics().into_values();
        statistics.filter_map(|statistics| statistics.held.get("arrangement").copied())
    });
    held.sum()
}

/// Rows whose second column has a few values, and NULL.
pub(crate) fn some_rows(from: i64, count: i64) -> Vec<(Row, i64)> {
    let row = |number: i64| {
        let key = if number % 5 == 0 {
            Value::Null
        } else {
            int(number % 7)
        };
        (vec![int(number), key, int(number % 3)], 1)
    };
    (from..from + count).map(row).collect()
}

/// Hands both tables the same rows.
pub(crate) fn insert(
    cluster: &mut Cluster,
    contents: &mut BTreeMap<ObjectId, Contents>,
    epoch: u64,
    rows: &[(Row, i64)],
) {
    let inputs = [LEFT, RIGHT].map(|id| (id, Input::Rows(rows.to_vec())));
    cluster.tick(epoch, inputs.into()).unwrap();
    for id in [LEFT, RIGHT] {
        let bag = &mut contents.entry(id).or_default().rows;
        for (row, weight) in rows {
            add(bag, row.clone(), *weight);
        }
    }
}

#[test]
fn ten_views_by_one_key_hold_what_one_holds_and_the_last_one_frees_it() {
    for shards in [2, 3] {
        let views: Vec<ObjectId> = (10..20).map(ObjectId::User).collect();
        let nodes = joined((KEY, KEY), false);
        let mut cluster = tables(shards);
        let mut contents = BTreeMap::new();
        insert(&mut cluster, &mut contents, 2, &some_rows(0, 200));
        assert_eq!(arranged(&cluster), 0);
        view(&mut cluster, views[0], nodes.clone());
        let one = arranged(&cluster);
        assert!(one > 0);
        for id in &views[1..] {
            view(&mut cluster, *id, nodes.clone());
        }
        assert_eq!(arranged(&cluster), one);
        let of_tables: u64 = cluster
            .shards
            .iter()
            .map(|shard| {
                let statistics = shard.statistics();
                let held = |id| statistics[&id].held["arrangement"];
                held(LEFT) + held(RIGHT)
            })
            .sum();
        assert_eq!(of_tables, one);
        // It is the ones that go first that made it.
        for (number, id) in views.iter().enumerate() {
            let epoch = 3 + u64::try_from(number).unwrap();
            let from = 1000 * i64::try_from(epoch).unwrap();
            insert(&mut cluster, &mut contents, epoch, &some_rows(from, 3));
            let expected = evaluated(&nodes, &contents);
            for left in &views[number..] {
                assert_eq!(cluster.folded(*left), expected, "{left}");
                assert_eq!(cluster.state(*left), 0);
            }
            assert!(arranged(&cluster) >= one);
            cluster.drop_object(*id);
        }
        assert_eq!(arranged(&cluster), 0);
        insert(&mut cluster, &mut contents, 20, &some_rows(0, 3));
        assert_eq!(cluster.snapshot(LEFT, 20).unwrap(), contents[&LEFT]);
    }
}

#[test]
fn a_view_that_comes_late_begins_with_the_errors_too() {
    for shards in [1, 2, 3] {
        let (early, late) = (ObjectId::User(10), ObjectId::User(11));
        let nodes = joined((KEY, KEY), false);
        let mut cluster = tables(shards);
        let mut contents = BTreeMap::new();
        view(&mut cluster, early, nodes.clone());
        insert(&mut cluster, &mut contents, 2, &some_rows(0, 20));
        let errors = |weight| vec![(LEFT, Input::Errors(vec![(division_by_zero(), weight)]))];
        cluster.tick(3, errors(2)).unwrap();
        view(&mut cluster, late, nodes.clone());
        let mut expected = evaluated(&nodes, &contents);
        expected.errors.insert(division_by_zero(), 2);
        for id in [early, late] {
            assert_eq!(cluster.folded(id), expected, "{id}, {shards} shards");
        }
        cluster.tick(4, errors(-2)).unwrap();
        expected.errors.clear();
        for id in [early, late] {
            assert_eq!(cluster.folded(id), expected, "{id}, {shards} shards");
        }
    }
}

/// A case: tables that change while views of them come and go.
struct Case {
    rng: ChaCha8Rng,
    cluster: Cluster,
    plans: Vec<Vec<Node>>,
    contents: BTreeMap<ObjectId, Contents>,
    /// Views and their plans: those that were only made, and those that are hydrated.
    made: Vec<(ObjectId, usize)>,
    hydrated: Vec<(ObjectId, usize)>,
    next: u64,
}

impl Case {
    fn new(seed: u64, shards: usize) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            cluster: tables(shards),
            plans: plans(),
            contents: [LEFT, RIGHT].map(|id| (id, Contents::default())).into(),
            made: Vec::new(),
            hydrated: Vec::new(),
            next: 10,
        }
    }

    fn create(&mut self) {
        let number = self.rng.random_range(0..self.plans.len());
        let nodes = self.plans[number].clone();
        let id = ObjectId::User(self.next);
        self.next += 1;
        let types = nodes.last().unwrap().schema.fields().iter();
        let types: Vec<DataType> = types.map(|field| field.data_type().clone()).collect();
        self.cluster.table(id, &types, None);
        let description = DataflowDescription {
            cluster: ClusterId::DEFAULT,
            id,
            plan: Plan { nodes },
            export: Export::Collection,
        };
        self.cluster
            .each(|shard| shard.create_dataflow(&description));
        self.made.push((id, number));
    }

    fn hydrate(&mut self, epoch: u64) {
        let ids: Vec<ObjectId> = self.made.iter().map(|(id, _)| *id).collect();
        self.cluster.hydrate(&ids, epoch).unwrap();
        self.hydrated.append(&mut self.made);
    }

    fn drop_one(&mut self) {
        let views = if self.made.is_empty() || self.rng.random_ratio(3, 4) {
            &mut self.hydrated
        } else {
            &mut self.made
        };
        if !views.is_empty() {
            let at = self.rng.random_range(0..views.len());
            let (id, _) = views.swap_remove(at);
            self.cluster.drop_object(id);
        }
    }

    fn tick(&mut self, epoch: u64) {
        let mut inputs = Vec::new();
        for id in [LEFT, RIGHT] {
            let bag = &mut self.contents.get_mut(&id).unwrap().rows;
            let mut changes = Vec::new();
            for _ in 0..self.rng.random_range(0..8) {
                let there = expand(bag);
                let (row, weight) = if !there.is_empty() && self.rng.random_ratio(2, 5) {
                    let at = self.rng.random_range(0..there.len());
                    (there[at].clone(), -1)
                } else {
                    let mut row = ints(&[0, 0, 0]);
                    for value in &mut row {
                        *value = match self.rng.random_range(0..5) {
                            0 => Value::Null,
                            number => int(number),
                        };
                    }
                    (row, 1)
                };
                add(bag, row.clone(), weight);
                changes.push((row, weight));
            }
            inputs.push((id, Input::Rows(changes)));
        }
        self.cluster.tick(epoch, inputs).unwrap();
        assert_eq!(self.cluster.failed, BTreeMap::new());
    }

    fn check(&self, epoch: u64) {
        let mut expected = BTreeMap::new();
        for (id, number) in &self.hydrated {
            let nodes = &self.plans[*number];
            let expected = expected
                .entry(*number)
                .or_insert_with(|| evaluated(nodes, &self.contents));
            let context = format!("{id} at {epoch}: plan {number}");
            assert_eq!(self.cluster.folded(*id), *expected, "{context}");
            let snapshot = self.cluster.snapshot(*id, epoch).unwrap();
            assert_eq!(snapshot, *expected, "{context}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn views_that_come_and_go_over_the_same_tables_are_right(seed in any::<u64>(), shards in 1..4_usize) {
        let mut case = Case::new(seed, shards);
        for epoch in 2..30 {
            if case.rng.random_ratio(1, 2) {
                case.create();
            }
            if case.rng.random_ratio(1, 2) {
                case.hydrate(epoch - 1);
                case.check(epoch - 1);
            }
            if case.rng.random_ratio(1, 3) {
                case.drop_one();
            }
            case.tick(epoch);
            case.check(epoch);
            let rows = case.rng.random_range(0..5);
            case.cluster.each(|shard| {
                shard.maintain(100);
                shard.build(rows);
                Ok(())
            });
        }
        for (id, _) in case.hydrated.iter().chain(&case.made) {
            case.cluster.drop_object(*id);
        }
        prop_assert_eq!(arranged(&case.cluster), 0);
    }
}
