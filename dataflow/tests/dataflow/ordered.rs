//! TopK, `min` and `max` over ordered indexes of one table, in views that come and go while its rows do: after each tick, what they are of the table as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_schema::DataType;
use flowstone_proto::plan::{
    Aggregate, AggregateFunction as F, NodeId, Operator, OrderColumn, Plan,
};
use flowstone_types::{Epoch, ObjectId};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cluster::{Cluster, Input};
use crate::differential::{BAG, KEYED, Tables, view};
use crate::known::{get, node};
use crate::oracle::{Contents, Expressions, run};

/// A group, a number, a text, a flag.
const TYPES: [DataType; 4] = [
    DataType::Int64,
    DataType::Int64,
    DataType::Utf8,
    DataType::Boolean,
];
const TICKS: u64 = 16;

fn group(rng: &mut impl Rng) -> Vec<usize> {
    let groups: [&[usize]; 4] = [&[], &[0], &[0, 3], &[2]];
    groups[rng.random_range(0..groups.len())].to_vec()
}

fn top_k(rng: &mut impl Rng) -> (Operator, Vec<DataType>) {
    let order = (0..rng.random_range(0..3)).map(|_| OrderColumn {
        column: rng.random_range(0..TYPES.len()),
        descending: rng.random(),
        nulls_first: rng.random(),
    });
    let order = order.collect();
    let limit = rng.random_ratio(4, 5).then(|| rng.random_range(0..5));
    let operator = Operator::TopK {
        input: NodeId(0),
        group: group(rng),
        order,
        limit,
        offset: rng.random_range(0..3),
    };
    (operator, TYPES.to_vec())
}

fn extremes(rng: &mut impl Rng) -> (Operator, Vec<DataType>) {
    let group = group(rng);
    let mut types: Vec<DataType> = group.iter().map(|column| TYPES[*column].clone()).collect();
    let mut aggregates = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        let argument = rng.random_range(0..TYPES.len());
        let (function, data_type) = match rng.random_range(0..5) {
            0 => (F::Count, DataType::Int64),
            1 | 2 => (F::Min, TYPES[argument].clone()),
            _ => (F::Max, TYPES[argument].clone()),
        };
        aggregates.push(Aggregate {
            function,
            argument: Some(argument),
            filter: rng.random_ratio(1, 3).then_some(3),
            distinct: false,
        });
        types.push(data_type);
    }
    let operator = Operator::Aggregate {
        input: NodeId(0),
        group,
        aggregates,
    };
    (operator, types)
}

/// A view over the table, or over what another operator keeps of it.
fn plan(rng: &mut impl Rng) -> (Plan, Vec<DataType>) {
    let (operator, types) = if rng.random() {
        top_k(rng)
    } else {
        extremes(rng)
    };
    let mut nodes = vec![get(BAG, &TYPES), node(operator, &types)];
    if rng.random_ratio(1, 3) {
        nodes.insert(1, node(Operator::Distinct { input: NodeId(0) }, &TYPES));
        let input = match &mut nodes[2].operator {
            Operator::TopK { input, .. } | Operator::Aggregate { input, .. } => input,
            other => panic!("not made here: {other:?}"),
        };
        *input = NodeId(1);
    }
    (Plan { nodes }, types)
}

fn check(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let expressions = Arc::new(Expressions::default());
    let mut cluster = Cluster::new([1, 3][rng.random_range(0..2)], &expressions);
    cluster.table(BAG, &TYPES, None);
    let contents = [BAG, KEYED].map(|id| (id, Contents::default()));
    let mut tables = Tables {
        bag: TYPES.to_vec(),
        keyed: TYPES.to_vec(),
        contents: BTreeMap::from(contents),
        domain: [2, 30][rng.random_range(0..2)],
    };
    let mut views: BTreeMap<ObjectId, Plan> = BTreeMap::new();
    // Made, and its indexes may be built meanwhile.
    let mut made: Option<(ObjectId, Plan)> = None;
    for tick in 0..TICKS {
        let epoch = 10 + 2 * tick;
        if let Some((id, plan)) = made.take() {
            cluster.hydrate(&[id], epoch - 1).unwrap();
            views.insert(id, plan);
        }
        if rng.random_ratio(1, 2) {
            let id = ObjectId::User(100 + tick);
            let (plan, types) = plan(&mut rng);
            cluster.table(id, &types, None);
            cluster.each(|shard| shard.create_dataflow(&view(id, &plan)));
            made = Some((id, plan));
        }
        if rng.random_ratio(1, 6)
            && let Some((id, _)) = views.pop_first()
        {
            cluster.drop_object(id);
        }
        let input = if rng.random_ratio(1, 10) {
            let bag = tables.contents.get_mut(&BAG).unwrap();
            let rows = std::mem::take(&mut bag.rows).into_iter();
            Input::Rows(rows.map(|(row, weight)| (row, -weight)).collect())
        } else {
            let count = [1, 5, 40, 300][rng.random_range(0..4)];
            tables.bag_changes(&mut rng, count)
        };
        cluster.tick(epoch, vec![(BAG, input)]).unwrap();
        assert_eq!(cluster.failed, BTreeMap::new());
        assert_eq!(cluster.folded(BAG), tables.contents[&BAG]);
        for (id, plan) in &views {
            let expected = run(plan, &expressions, &tables.contents, usize::MAX >> 1).unwrap();
            assert_eq!(
                cluster.folded(*id),
                expected,
                "{id} after tick {tick}: {plan:?}"
            );
        }
        let (compacts, fuel) = (rng.random(), [0, 10, 100_000][rng.random_range(0..3)]);
        cluster.each(|shard| {
            if compacts {
                shard.allow_compaction(Epoch(epoch));
            }
            shard.maintain(fuel);
            shard.build(fuel);
            Ok(())
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 0, ..ProptestConfig::default() })]
    #[test]
    fn ordered_views_are_those_of_the_table_as_it_is(seed in any::<u64>()) {
        check(seed);
    }
}
