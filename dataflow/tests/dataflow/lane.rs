//! Dataflows that are hydrated in forks of the shards while these go on: they come to what they would have come to in place.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow_schema::DataType;
use flowstone_dataflow::Error;
use flowstone_proto::message::{DataflowDescription, Export};
use flowstone_proto::plan::{Node, NodeId, Operator, Plan, QueryPlan};
use flowstone_types::{ClusterId, Epoch, EvalError, EvalErrorKind, ObjectId, SourceChanges};
use proptest::prelude::*;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cluster::{Cluster, Input, Parts};
use crate::differential::{BAG, KEYED, Tables, view};
use crate::known::{ints, node};
use crate::oracle::{Contents, Expressions, run};
use crate::random::{plan, types};
use crate::shared::{
    KEY, LEFT, RIGHT, TYPES, arranged, evaluated, insert, joined, some_rows, tables,
};
use crate::values::{Row, batch, rows};

/// Read tables, and may be read.
const BELOW: [ObjectId; 4] = [
    ObjectId::User(10),
    ObjectId::User(11),
    ObjectId::User(12),
    ObjectId::User(13),
];
/// Read a table and one of the others each.
const ABOVE: [ObjectId; 2] = [ObjectId::User(20), ObjectId::User(21)];
/// Cases that grow beyond this many rows in a node are given up.
const LIMIT: usize = 2_000;

fn root_types(plan: &Plan) -> Vec<DataType> {
    let schema = &plan.root().unwrap().schema;
    let fields = schema.fields().iter();
    fields.map(|field| field.data_type().clone()).collect()
}

/// What a dataflow makes of its plan.
#[derive(Clone, Debug)]
enum Made {
    View,
    Index(usize),
    Subscription,
}

fn create(cluster: &mut Cluster, id: ObjectId, plan: &Plan, made: &Made) {
    let types = root_types(plan);
    match made {
        Made::View => {
            cluster.table(id, &types, None);
            cluster.each(|shard| shard.create_dataflow(&view(id, plan)));
        }
        Made::Index(column) => {
            let key = vec![*column];
            let description = DataflowDescription {
                id,
                cluster: ClusterId::DEFAULT,
                plan: plan.clone(),
                export: Export::Index { key },
            };
            cluster.each(|shard| shard.create_dataflow(&description));
        }
        Made::Subscription => cluster.each(|shard| shard.create_subscription(id, plan)),
    }
}

fn create_view(cluster: &mut Cluster, id: ObjectId, nodes: &[Node]) {
    let nodes = nodes.to_vec();
    create(cluster, id, &Plan { nodes }, &Made::View);
}

/// The ticks of an epoch, as a worker cuts them: the changes of a table stay in order, and those of one tick may be of several tables.
fn in_ticks(rng: &mut impl Rng, inputs: Vec<(ObjectId, Input)>) -> Vec<Vec<(ObjectId, Input)>> {
    if rng.random_ratio(1, 2) {
        return vec![inputs];
    }
    let mut ticks = vec![Vec::new()];
    for (id, input) in inputs {
        for piece in pieces(rng, input) {
            if rng.random_ratio(1, 2) {
                ticks.push(Vec::new());
            }
            ticks.last_mut().unwrap().push((id, piece));
        }
    }
    ticks
}

/// The changes of a table in up to four pieces.
fn pieces(rng: &mut impl Rng, input: Input) -> Vec<Input> {
    let count = rng.random_range(1..=4_usize);
    match input {
        Input::Rows(rows) => {
            let size = rows.len().div_ceil(count).max(1);
            let pieces = rows.chunks(size).map(<[_]>::to_vec);
            pieces.map(Input::Rows).collect()
        }
        Input::Changes(changes) => {
            let pieces = changes.iter().flat_map(|change| {
                let rows = change.ops.len();
                let size = rows.div_ceil(count).max(1);
                // A change without rows may still empty its table.
                let starts = (0..rows.max(1)).step_by(size);
                starts.map(move |from| part(change, from, rows.min(from + size)))
            });
            pieces.map(|change| Input::Changes(vec![change])).collect()
        }
        Input::Errors(_) => vec![input],
    }
}

/// Some of the rows of a change.
fn part(change: &SourceChanges, from: usize, to: usize) -> SourceChanges {
    let [first, end] = [from, to].map(|row| u32::try_from(row).unwrap());
    let unchanged = change.unchanged.iter();
    let unchanged = unchanged.filter(|(row, _)| (first..end).contains(row));
    SourceChanges {
        rows: change.rows.slice(from, to - from),
        ops: change.ops[from..to].to_vec(),
        unchanged: unchanged
            .map(|(row, column)| (row - first, *column))
            .collect(),
        moved: Vec::new(),
        truncate_before: change.truncate_before && from == 0,
    }
}

/// The last epoch of a cluster.
fn now(cluster: &Cluster) -> u64 {
    cluster.shards[0].last_epoch().0
}

/// A dataflow that is away.
struct Away {
    id: ObjectId,
    forked: Cluster,
    imports: Vec<ObjectId>,
    hydrated: bool,
    /// Ticks of the cluster that it has not seen.
    behind: VecDeque<(u64, Parts)>,
}

impl Away {
    fn new(cluster: &mut Cluster, id: ObjectId) -> Self {
        let imports = cluster.shards[0].imports_of(id);
        for shard in &cluster.shards {
            assert_eq!(shard.imports_of(id), imports);
        }
        Self {
            id,
            forked: cluster.fork(id).unwrap(),
            imports,
            hydrated: false,
            behind: VecDeque::new(),
        }
    }

    /// Takes note of a tick.
    fn note(&mut self, cluster: &Cluster) {
        let changes = cluster.changes(&self.imports);
        self.behind.push_back((now(cluster), changes));
    }

    /// Hydrates it, or lets it see some ticks.
    fn advance(&mut self, ticks: usize) {
        if !std::mem::replace(&mut self.hydrated, true) {
            let epoch = now(&self.forked);
            self.forked.hydrate(&[self.id], epoch).unwrap();
        }
        for _ in 0..ticks {
            if self.forked.failed.is_empty()
                && let Some((epoch, parts)) = self.behind.pop_front()
            {
                self.forked.follow(epoch, parts).unwrap();
            }
        }
    }

    /// Whether it has seen all ticks, and the shards have what it uses.
    fn can_join(&self, cluster: &Cluster) -> bool {
        let mut shards = cluster.shards.iter();
        self.hydrated && self.behind.is_empty() && shards.all(|shard| shard.is_built(self.id))
    }

    /// Joins it as soon as possible.
    fn join(mut self, cluster: &mut Cluster) {
        let ticks = self.behind.len();
        self.advance(ticks);
        for shard in &mut cluster.shards {
            while shard.build(100) {}
        }
        assert!(self.can_join(cluster));
        cluster.join(self.id, self.forked).unwrap();
    }
}

/// A cluster whose dataflows may be away for their first ticks, and one that does the same without that.
struct Pair {
    rng: ChaCha8Rng,
    cluster: Cluster,
    twin: Cluster,
    plans: BTreeMap<ObjectId, Plan>,
    /// Which of [`BELOW`] one of [`ABOVE`] reads.
    below: BTreeMap<ObjectId, ObjectId>,
    /// What takes part in ticks, and from which epoch on it can be read.
    here: BTreeMap<ObjectId, (Made, u64)>,
    /// What is away, and what was known of it when it went.
    away: Vec<Away>,
    gone: BTreeMap<ObjectId, (Made, u64)>,
    since: u64,
}

impl Pair {
    fn exists(&self, id: ObjectId) -> bool {
        self.here.contains_key(&id) || self.gone.contains_key(&id)
    }

    /// Makes something in both, in the twin at once; not what reads something that is not here.
    fn create(&mut self) {
        let ids: Vec<ObjectId> = self.plans.keys().copied().collect();
        let id = *ids.choose(&mut self.rng).unwrap();
        let readable = self
            .below
            .get(&id)
            .is_none_or(|below| self.here.contains_key(below));
        if self.exists(id) || !readable {
            return;
        }
        let plan = self.plans[&id].clone();
        let width = root_types(&plan).len();
        let made = match self.rng.random_range(0..4) {
            0 if self.below.contains_key(&id) => Made::Subscription,
            0 | 1 if width > 0 => Made::Index(self.rng.random_range(0..width)),
            _ => Made::View,
        };
        let epoch = now(&self.cluster);
        create(&mut self.twin, id, &plan, &made);
        self.twin.hydrate(&[id], epoch).unwrap();
        create(&mut self.cluster, id, &plan, &made);
        if self.rng.random_ratio(1, 4) {
            self.cluster.hydrate(&[id], epoch).unwrap();
            self.here.insert(id, (made, epoch));
        } else {
            self.away.push(Away::new(&mut self.cluster, id));
            self.gone.insert(id, (made, epoch));
        }
    }

    /// Drops it with what reads it.
    fn drop_object(&mut self, id: ObjectId) {
        let readers = self.below.iter().filter(|(_, below)| **below == id);
        let readers: Vec<ObjectId> = readers.map(|(reader, _)| *reader).collect();
        for id in readers.into_iter().chain([id]) {
            if self.exists(id) {
                self.here.remove(&id);
                self.gone.remove(&id);
                self.away.retain(|away| away.id != id);
                self.cluster.drop_object(id);
                self.twin.drop_object(id);
            }
        }
    }

    /// Drops something, maybe after it was ended.
    fn drop_one(&mut self) {
        let all: Vec<ObjectId> = self.here.keys().chain(self.gone.keys()).copied().collect();
        let Some(id) = all.choose(&mut self.rng).copied() else {
            return;
        };
        if self.rng.random_ratio(1, 3) {
            let error = EvalError::new(EvalErrorKind::Internal, "a test");
            let epoch = now(&self.cluster);
            let ended = self.cluster.fail(id, &error, epoch).unwrap();
            assert_eq!(self.twin.fail(id, &error, epoch).unwrap(), ended);
            self.away
                .retain(|away| away.id != id && !ended.contains(&away.id));
        }
        self.drop_object(id);
    }

    /// Lets forks go on, and joins some that can be.
    fn advance(&mut self) {
        let rows = [0, 1, 30, 1_000][self.rng.random_range(0..4)];
        self.cluster.each(|shard| {
            shard.build(rows);
            Ok(())
        });
        for mut away in std::mem::take(&mut self.away) {
            if self.rng.random_ratio(1, 2) {
                away.advance(self.rng.random_range(0..4));
            }
            if self.rng.random_ratio(1, 3) {
                let rows = self.rng.random_range(0..100);
                away.forked.each(|shard| {
                    shard.maintain(rows);
                    shard.build(rows);
                    Ok(())
                });
            }
            if away.can_join(&self.cluster) && self.rng.random_ratio(2, 3) {
                self.join(away);
            } else {
                self.away.push(away);
            }
        }
    }

    fn join(&mut self, away: Away) {
        let id = away.id;
        away.join(&mut self.cluster);
        let known = self.gone.remove(&id).unwrap();
        self.here.insert(id, known);
    }

    fn tick(&mut self, epoch: u64, inputs: Vec<(ObjectId, Input)>) {
        for inputs in in_ticks(&mut self.rng, inputs) {
            self.twin.tick(epoch, inputs.clone()).unwrap();
            self.cluster.tick(epoch, inputs).unwrap();
            for away in &mut self.away {
                away.note(&self.cluster);
            }
        }
    }

    fn upkeep(&mut self) {
        if self.rng.random_ratio(1, 2) {
            let epoch = now(&self.cluster);
            let since = epoch - self.rng.random_range(0..5).min(epoch);
            self.since = self.since.max(since);
            for cluster in [&mut self.cluster, &mut self.twin] {
                cluster.each(|shard| {
                    shard.allow_compaction(Epoch(since));
                    Ok(())
                });
            }
        }
        let fuel = [0, 10, 1_000_000][self.rng.random_range(0..3)];
        self.cluster.each(|shard| {
            shard.maintain(fuel);
            Ok(())
        });
    }

    fn check(&mut self) {
        assert_eq!(self.cluster.failed, BTreeMap::new());
        assert_eq!(self.twin.failed, BTreeMap::new());
        let now = now(&self.cluster);
        for (id, (made, from)) in &self.here {
            let plan = &self.plans[id];
            let context = format!("{id}, {made:?} at {now}");
            let folded = self.twin.folded(*id);
            assert_eq!(self.cluster.folded(*id), folded, "{context}");
            if matches!(made, Made::Subscription) {
                continue;
            }
            let from = (*from).max(self.since);
            for epoch in [now, self.rng.random_range(from..=now)] {
                let snapshot = self.twin.snapshot(*id, epoch).unwrap();
                let here = self.cluster.snapshot(*id, epoch).unwrap();
                assert_eq!(here, snapshot, "{context} as of {epoch}");
            }
            if let Made::Index(column) = made {
                let key_type = root_types(plan)[*column].clone();
                for row in folded.rows.keys().take(3) {
                    let key = batch(
                        std::slice::from_ref(&key_type),
                        &[vec![row[*column].clone()]],
                    );
                    let [here, there] = [&self.cluster, &self.twin].map(|cluster| {
                        let mut found = Vec::new();
                        for shard in &cluster.shards {
                            let (batch, weights) = shard.lookup(*id, key.columns()).unwrap();
                            let weighed = rows(&batch).into_iter().enumerate();
                            found.extend(weighed.map(|(at, row)| (row, weights.get(at))));
                        }
                        found.sort();
                        found
                    });
                    assert_eq!(here, there, "{context}: {row:?}");
                    assert!(!here.is_empty(), "{context}: {row:?}");
                }
            }
        }
        for id in self.gone.keys() {
            let read = self.cluster.snapshot(*id, now).map(|_| ());
            let made = self.gone.get(id).map(|(made, _)| made);
            if !matches!(made, Some(Made::Subscription)) {
                assert_eq!(read, Err(Error::Away(*id)));
            }
            assert_eq!(self.cluster.folded(*id), Contents::default());
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    operators: usize,
    /// Changes per tick.
    ticks: Vec<usize>,
    domain: i64,
    shards: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let size = prop_oneof![3 => 0..4_usize, 4 => 1..20_usize, 1 => 100..300_usize];
    (
        any::<u64>(),
        0..5_usize,
        prop::collection::vec(size, 3..14),
        prop_oneof![Just(2_i64), Just(5), Just(200)],
        1..4_usize,
    )
        .prop_map(|(seed, operators, ticks, domain, shards)| Case {
            seed,
            operators,
            ticks,
            domain,
            shards,
        })
}

fn pair(case: &Case) -> (Pair, Tables, Arc<Expressions>) {
    let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
    let mut expressions = Expressions::default();
    let (bag, keyed) = (types(&mut rng), types(&mut rng));
    let (mut plans, mut below) = (BTreeMap::new(), BTreeMap::new());
    for id in BELOW {
        let tables = [(BAG, bag.clone()), (KEYED, keyed.clone())];
        let operators = rng.random_range(0..=case.operators);
        let plan = plan(&mut rng, &mut expressions, &tables, operators);
        plans.insert(id, plan);
    }
    for id in ABOVE {
        let read = *BELOW.choose(&mut rng).unwrap();
        let tables = [(KEYED, keyed.clone()), (read, root_types(&plans[&read]))];
        let operators = rng.random_range(0..=case.operators.min(2));
        let plan = plan(&mut rng, &mut expressions, &tables, operators);
        plans.insert(id, plan);
        below.insert(id, read);
    }
    let expressions = Arc::new(expressions);
    let [cluster, twin] = [(); 2].map(|()| {
        let mut cluster = Cluster::new(case.shards, &expressions);
        cluster.table(BAG, &bag, None);
        cluster.table(KEYED, &keyed, Some(vec![0]));
        cluster
    });
    let contents = [BAG, KEYED].map(|id| (id, Contents::default()));
    let model = Tables {
        bag,
        keyed,
        contents: contents.into(),
        domain: case.domain,
    };
    let pair = Pair {
        rng,
        cluster,
        twin,
        plans,
        below,
        here: BTreeMap::new(),
        away: Vec::new(),
        gone: BTreeMap::new(),
        since: 0,
    };
    (pair, model, expressions)
}

fn check(case: &Case) {
    let (mut pair, mut model, expressions) = pair(case);
    let first = vec![(BAG, model.bag_changes(&mut pair.rng, 10))];
    pair.tick(8, first);
    for (number, size) in case.ticks.iter().copied().enumerate() {
        let epoch = 10 + 2 * u64::try_from(number).unwrap();
        for _ in 0..pair.rng.random_range(0..3) {
            pair.create();
        }
        pair.advance();
        if pair.rng.random_ratio(1, 6) {
            pair.drop_one();
        }
        let inputs = vec![
            (BAG, model.bag_changes(&mut pair.rng, size)),
            (KEYED, model.keyed_changes(&mut pair.rng, size.min(100))),
        ];
        // The oracle knows when a case grows too large to be worth it.
        let mut all = model.contents.clone();
        for (id, plan) in &pair.plans {
            let Some(contents) = run(plan, &expressions, &all, LIMIT) else {
                return;
            };
            all.insert(*id, contents);
        }
        pair.tick(epoch, inputs);
        pair.check();
        pair.upkeep();
    }
    for away in std::mem::take(&mut pair.away) {
        pair.join(away);
    }
    pair.check();
    // What is back reads changes like what never went.
    let epoch = now(&pair.cluster) + 1;
    let inputs = vec![(BAG, model.bag_changes(&mut pair.rng, 0))];
    pair.tick(epoch, inputs);
    pair.check();
    for id in BELOW.into_iter().chain(ABOVE) {
        pair.drop_object(id);
    }
    assert_eq!(arranged(&pair.cluster), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn what_was_away_is_what_it_would_have_been_in_place(case in case()) {
        check(&case);
    }
}

#[test]
fn forks_at_once_fill_what_they_share_and_the_first_to_join_brings_it() {
    for shards in [1, 2, 3] {
        let nodes = joined((KEY, KEY), false);
        let [first, second, third, early] = BELOW;
        let mut cluster = tables(shards);
        let mut contents = BTreeMap::new();
        insert(&mut cluster, &mut contents, 2, &some_rows(0, 200));
        let mut away = VecDeque::new();
        for id in [first, second, third] {
            create_view(&mut cluster, id, &nodes);
            away.push_back(Away::new(&mut cluster, id));
        }
        insert(&mut cluster, &mut contents, 3, &some_rows(1_000, 20));
        away.iter_mut().for_each(|away| away.note(&cluster));
        // They hold nothing here but the indexes of tables that are built meanwhile, and what an index takes without a row.
        let none = arranged(&cluster);
        if shards > 1 {
            assert!(none < 1_000, "{none}");
        }
        away.pop_front().unwrap().join(&mut cluster);
        let one = arranged(&cluster);
        assert!(one > none + 1_000, "{one} after {none}");
        let expected = evaluated(&nodes, &contents);
        assert_eq!(cluster.folded(first), expected);

        // One that is hydrated in place finds it filled.
        create_view(&mut cluster, early, &nodes);
        cluster.hydrate(&[early], 3).unwrap();
        assert_eq!(cluster.folded(early), expected);
        away.pop_front().unwrap().join(&mut cluster);
        // The one that brought it goes, and so does one that never came back.
        cluster.drop_object(first);
        let gone = away.pop_front().unwrap().id;
        cluster.drop_object(gone);
        assert_eq!(arranged(&cluster), one);
        insert(&mut cluster, &mut contents, 4, &some_rows(2_000, 20));
        for id in [second, early] {
            assert_eq!(cluster.folded(id), evaluated(&nodes, &contents));
            cluster.drop_object(id);
        }
        assert_eq!(arranged(&cluster), 0);
    }
}

#[test]
fn what_is_filled_in_place_meanwhile_serves_the_fork_too() {
    for shards in [1, 2, 3] {
        let nodes = joined((KEY, KEY), true);
        let by_another = joined((KEY, &[0]), true);
        let [away, here, other, _] = BELOW;
        let mut cluster = tables(shards);
        let mut contents = BTreeMap::new();
        insert(&mut cluster, &mut contents, 2, &some_rows(0, 100));
        create_view(&mut cluster, away, &nodes);
        let mut fork = Away::new(&mut cluster, away);
        for (id, nodes) in [(here, &nodes), (other, &by_another)] {
            create_view(&mut cluster, id, nodes);
        }
        cluster.hydrate(&[here, other], 2).unwrap();
        for (epoch, from) in (3..).zip([1_000, 2_000, 3_000]) {
            insert(&mut cluster, &mut contents, epoch, &some_rows(from, 10));
            fork.note(&cluster);
        }
        fork.join(&mut cluster);
        cluster.drop_object(here);
        insert(&mut cluster, &mut contents, 9, &some_rows(4_000, 10));
        for (id, nodes) in [(away, &nodes), (other, &by_another)] {
            assert_eq!(cluster.folded(id), evaluated(nodes, &contents), "{id}");
            let snapshot = cluster.snapshot(id, 9).unwrap();
            assert_eq!(snapshot, evaluated(nodes, &contents), "{id}");
            cluster.drop_object(id);
        }
        assert_eq!(arranged(&cluster), 0);
    }
}

#[test]
fn what_is_away_is_refused_and_comes_back_when_it_is_ready() {
    let nodes = joined((KEY, KEY), false);
    let types = [TYPES, TYPES].concat();
    let [id, above, ..] = BELOW;
    let mut cluster = tables(1);
    let mut contents = BTreeMap::new();
    insert(&mut cluster, &mut contents, 2, &some_rows(0, 100));
    create_view(&mut cluster, id, &nodes);
    let mut forked = cluster.fork(id).unwrap();
    let reads = Operator::Get { collection: id };
    let plan = Plan {
        nodes: vec![node(reads, &types)],
    };
    cluster.table(above, &types, None);
    let away = Error::Away(id);
    assert_eq!(cluster.snapshot(id, 2).unwrap_err(), away);
    let key = batch(&types, &[ints(&[0; 6])]);
    {
        let shard = &mut cluster.shards[0];
        assert_eq!(shard.lookup(id, key.columns()).unwrap_err(), away);
        assert_eq!(shard.error_at(id, Epoch(2)).unwrap_err(), away);
        let reader = view(above, &plan);
        assert_eq!(shard.create_dataflow(&reader).unwrap_err(), away);
        assert_eq!(shard.create_subscription(above, &plan), Err(away.clone()));
        assert_eq!(shard.fork(id).unwrap_err(), away);
        assert_eq!(shard.begin_hydration(&[id], Epoch(2)), Err(away));
        assert_eq!(shard.statistics()[&id].rows, 0);
        assert_eq!(shard.imports_of(id), [LEFT, RIGHT]);
    }

    let refused = |cluster: &mut Cluster, forked: &mut Cluster| {
        let joined = cluster.shards[0].join(id, &mut forked.shards[0]);
        assert!(matches!(joined, Err(Error::Invariant(_))), "{joined:?}");
    };
    // Neither before it was hydrated, nor before the indexes of the tables are there, nor when it is behind.
    let early = forked.shards[0].begin_tick(Epoch(3), Vec::new());
    assert!(matches!(early, Err(Error::Invariant(_))));
    while cluster.shards[0].build(10) {
        refused(&mut cluster, &mut forked);
    }
    refused(&mut cluster, &mut forked);
    forked.hydrate(&[id], 2).unwrap();
    let before = evaluated(&nodes, &contents);
    insert(&mut cluster, &mut contents, 3, &some_rows(1_000, 10));
    refused(&mut cluster, &mut forked);
    let changes = cluster.changes(&[LEFT, RIGHT]);
    forked.follow(3, changes).unwrap();
    cluster.join(id, forked).unwrap();
    assert_eq!(
        cluster.snapshot(id, 3).unwrap(),
        evaluated(&nodes, &contents)
    );
    assert_eq!(cluster.snapshot(id, 2).unwrap(), before);

    cluster.each(|shard| shard.create_dataflow(&view(above, &plan)));
    cluster.hydrate(&[above], 3).unwrap();
    insert(&mut cluster, &mut contents, 4, &some_rows(2_000, 10));
    assert_eq!(cluster.folded(above), evaluated(&nodes, &contents));
}

#[test]
fn only_what_nobody_reads_and_reads_what_is_hydrated_can_be_forked() {
    let nodes = joined((KEY, KEY), false);
    let types = [TYPES, TYPES].concat();
    let [id, above, ..] = BELOW;
    let mut cluster = tables(2);
    create_view(&mut cluster, id, &nodes);
    let reads = Operator::Get { collection: id };
    create_view(&mut cluster, above, &[node(reads, &types)]);
    for shard in &mut cluster.shards {
        for id in [id, above] {
            let forked = shard.fork(id).map(|_| ());
            assert!(matches!(forked, Err(Error::Invariant(_))), "{forked:?}");
        }
        let unknown = Error::UnknownCollection(LEFT);
        assert_eq!(shard.fork(LEFT).unwrap_err(), unknown);
    }
    cluster.hydrate(&[id], 2).unwrap();
    let fork = Away::new(&mut cluster, above);
    fork.join(&mut cluster);
    let mut contents = BTreeMap::new();
    insert(&mut cluster, &mut contents, 3, &some_rows(0, 20));
    let expected = evaluated(&nodes, &contents);
    assert_eq!(cluster.folded(above), expected);
    assert_eq!(cluster.snapshot(above, 3).unwrap(), expected);
}

#[test]
fn a_fork_is_joined_when_it_has_run_all_ticks_of_the_epoch() {
    for shards in [1, 3] {
        let nodes = joined((KEY, KEY), false);
        let id = BELOW[0];
        let mut cluster = tables(shards);
        let mut contents = BTreeMap::new();
        insert(&mut cluster, &mut contents, 2, &some_rows(0, 50));
        create_view(&mut cluster, id, &nodes);
        let mut fork = Away::new(&mut cluster, id);
        cluster.each(|shard| {
            shard.build(usize::MAX);
            Ok(())
        });
        for from in [1_000, 2_000] {
            insert(&mut cluster, &mut contents, 3, &some_rows(from, 10));
            fork.note(&cluster);
        }
        fork.advance(1);
        assert_eq!(now(&fork.forked), now(&cluster));
        let joined = cluster.shards[0].join(id, &mut fork.forked.shards[0]);
        assert!(matches!(joined, Err(Error::Invariant(_))), "{joined:?}");
        fork.join(&mut cluster);
        let expected = evaluated(&nodes, &contents);
        assert_eq!(cluster.folded(id), expected);
        assert_eq!(cluster.snapshot(id, 3).unwrap(), expected);
    }
}

#[test]
fn what_waits_for_a_fork_and_what_it_has_put_out_is_counted_until_it_is_back() {
    let nodes = joined((KEY, KEY), false);
    let id = BELOW[0];
    let held = |cluster: &Cluster| {
        let statistics = cluster.shards[0].statistics();
        ["queue", "output"].map(|holder| statistics[&id].held.get(holder).copied().unwrap_or(0))
    };
    let mut cluster = tables(1);
    let mut contents = BTreeMap::new();
    insert(&mut cluster, &mut contents, 2, &some_rows(0, 50));
    create_view(&mut cluster, id, &nodes);
    let mut fork = Away::new(&mut cluster, id);
    assert_eq!(held(&cluster), [0, 0]);
    for epoch in [3_u64, 4] {
        let from = i64::try_from(epoch).unwrap() * 1_000;
        insert(&mut cluster, &mut contents, epoch, &some_rows(from, 10));
        fork.note(&cluster);
    }
    let [both, nothing] = held(&cluster);
    assert!(both > 0);
    assert_eq!(nothing, 0);
    fork.advance(0);
    let [still, first] = held(&cluster);
    assert_eq!(still, both);
    assert!(first > 0);
    fork.advance(1);
    let [one, more] = held(&cluster);
    assert!(0 < one && one < both, "{one} of {both}");
    assert!(more > first);
    fork.advance(1);
    assert_eq!(held(&cluster)[0], 0);
    fork.join(&mut cluster);
    assert_eq!(held(&cluster), [0, 0]);
    assert_eq!(cluster.folded(id), evaluated(&nodes, &contents));
}

#[test]
fn a_fork_forgets_and_compacts_what_is_gone_while_it_catches_up() {
    const ROWS: i64 = 60;
    let nodes = joined((KEY, KEY), false);
    let id = BELOW[0];
    let rows = |epoch: u64| some_rows(i64::try_from(epoch).unwrap() * ROWS, ROWS);
    let both = |rows: &[(Row, i64)]| [LEFT, RIGHT].map(|id| (id, Input::Rows(rows.to_vec())));
    let mut cluster = tables(1);
    cluster.tick(2, both(&rows(2)).into()).unwrap();
    create_view(&mut cluster, id, &nodes);
    let mut fork = Away::new(&mut cluster, id);
    fork.advance(0);
    // The most that is held in the first half and in the second one.
    let mut most = [0, 0];
    for epoch in 3..=400 {
        // As many rows as before, and others.
        let gone = rows(epoch - 1).into_iter().map(|(row, _)| (row, -1));
        let changes: Vec<_> = rows(epoch).into_iter().chain(gone).collect();
        cluster.tick(epoch, both(&changes).into()).unwrap();
        cluster.each(|shard| {
            shard.allow_compaction(Epoch(epoch));
            Ok(())
        });
        fork.note(&cluster);
        fork.advance(1);
        let statistics = fork.forked.shards[0].statistics();
        let held: u64 = statistics.values().map(|held| held.bytes).sum();
        let half = &mut most[usize::from(epoch > 200)];
        *half = held.max(*half);
    }
    assert!(most[1] < most[0] * 3 / 2, "{most:?}");
    fork.join(&mut cluster);
    let snapshot = cluster.snapshot(id, 400).unwrap();
    assert_eq!(cluster.folded(id), snapshot);
    assert!(!snapshot.rows.is_empty());
    assert!(matches!(
        cluster.snapshot(id, 399),
        Err(Error::SinceAdvanced { .. })
    ));
}

/// The rows of a table, unless there are more than these.
fn at_most(rows: usize) -> Vec<Node> {
    let query = QueryPlan {
        bytes: Vec::new(),
        text: format!("at most {rows}"),
    };
    let operator = Operator::Recompute {
        inputs: vec![NodeId(0)],
        query,
        reason: "a test".to_owned(),
    };
    let get = Operator::Get { collection: LEFT };
    vec![node(get, &TYPES), node(operator, &TYPES)]
}

#[test]
fn what_breaks_in_a_fork_is_ended_here_and_nothing_else() {
    for shards in [1, 3] {
        for (rows_max, at_once) in [(10, true), (25, false)] {
            let nodes = at_most(rows_max);
            let others = at_most(LIMIT);
            let [id, fine, ..] = BELOW;
            let mut cluster = tables(shards);
            let mut contents = BTreeMap::new();
            insert(&mut cluster, &mut contents, 2, &some_rows(0, 20));
            let [mut breaks, mut works] = [(id, &nodes), (fine, &others)].map(|(id, nodes)| {
                create_view(&mut cluster, id, nodes);
                Away::new(&mut cluster, id)
            });
            insert(&mut cluster, &mut contents, 3, &some_rows(1_000, 10));
            breaks.note(&cluster);
            works.note(&cluster);
            breaks.advance(0);
            assert_eq!(breaks.forked.failed.len(), usize::from(at_once));
            breaks.advance(1);
            let error = breaks.forked.failed[&id].clone();
            assert_eq!(error.kind, EvalErrorKind::Internal);
            let joined = cluster.shards[0].join(id, &mut breaks.forked.shards[0]);
            assert!(matches!(joined, Err(Error::Invariant(_))), "{joined:?}");

            assert!(cluster.fail(id, &error, 3).unwrap().is_empty());
            works.join(&mut cluster);
            insert(&mut cluster, &mut contents, 4, &some_rows(2_000, 10));
            assert_eq!(cluster.folded(fine), evaluated(&others, &contents));
            let only = Contents {
                rows: BTreeMap::new(),
                errors: BTreeMap::from([(error, 1)]),
            };
            assert_eq!(cluster.snapshot(id, 4).unwrap(), only);
            for id in [id, fine] {
                cluster.drop_object(id);
            }
            assert_eq!(arranged(&cluster), 0);
        }
    }
}

#[test]
fn what_is_away_is_ended_with_what_it_reads() {
    for shards in [1, 3] {
        let types = [TYPES, TYPES].concat();
        let [id, above, ..] = BELOW;
        let mut cluster = tables(shards);
        let mut contents = BTreeMap::new();
        create_view(&mut cluster, id, &joined((KEY, KEY), false));
        insert(&mut cluster, &mut contents, 2, &some_rows(0, 20));
        cluster.hydrate(&[id], 2).unwrap();
        let join = Operator::Join {
            left: NodeId(0),
            right: NodeId(0),
            left_keys: vec![2],
            right_keys: vec![2],
            null_equals_null: false,
        };
        let get = Operator::Get { collection: id };
        let both = [types.clone(), types.clone()].concat();
        let nodes = [node(get, &types), node(join, &both)];
        create_view(&mut cluster, above, &nodes);
        let mut fork = Away::new(&mut cluster, above);
        fork.advance(0);
        let error = EvalError::new(EvalErrorKind::Internal, "a test");
        assert_eq!(cluster.fail(id, &error, 2).unwrap(), [above]);
        for id in [id, above] {
            let snapshot = cluster.snapshot(id, 2).unwrap();
            assert_eq!(snapshot.errors, BTreeMap::from([(error.clone(), 1)]));
        }
        let joined = cluster.shards[0].join(above, &mut fork.forked.shards[0]);
        assert_eq!(joined, Err(Error::UnknownCollection(above)));
        for id in [above, id] {
            cluster.drop_object(id);
        }
        assert_eq!(arranged(&cluster), 0);
        insert(&mut cluster, &mut contents, 3, &some_rows(1_000, 20));
        assert_eq!(cluster.snapshot(LEFT, 3).unwrap(), contents[&LEFT]);
    }
}
