use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowstone_proto::plan::column_name;
use flowstone_types::hash::hash_rows;
use flowstone_types::{DeltaBatch, Epoch};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{IndexSpec, Relation, SEAL_ROWS};
use crate::Error;
use crate::batch::weights_of;

/// Rows have one of so many keys.
const KEYS: i64 = 30;

/// A key, and a number that no other row has.
type Row = (i64, i64);

fn schema() -> SchemaRef {
    let field = |column| Field::new(column_name(column), DataType::Int64, true);
    Arc::new(Schema::new(vec![field(0), field(1)]))
}

fn relation(identity: &[usize]) -> Relation {
    Relation::new("a test".to_owned(), schema(), identity.to_vec())
}

fn by(columns: &[usize]) -> IndexSpec {
    IndexSpec::Key(columns.to_vec())
}

fn apply(relation: &mut Relation, changes: &[(Row, i64)], epoch: u64) {
    let column = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let keys = changes.iter().map(|((key, _), _)| *key).collect();
    let numbers = changes.iter().map(|((_, number), _)| *number).collect();
    let rows = RecordBatch::try_new(schema(), vec![column(keys), column(numbers)]).unwrap();
    let weights = changes.iter().map(|(_, weight)| *weight).collect();
    let delta = DeltaBatch::new(rows, weights_of(weights), Epoch(epoch));
    let delta = (!changes.is_empty()).then_some(&delta);
    relation.apply(delta, &[], Epoch(epoch)).unwrap();
}

/// The rows that an index over the first column finds, each with its weight, in order.
fn found(relation: &Relation, index: usize) -> Vec<(Row, i64)> {
    let mut all = Vec::new();
    for key in 0..KEYS {
        let wanted: ArrayRef = Arc::new(Int64Array::from(vec![key]));
        let keys = [wanted];
        let hash = hash_rows(&keys, 1).unwrap()[0];
        let rows = relation.lookup(index, &keys, (0, hash), None).unwrap();
        let (ids, weights): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let columns = relation.gather(&ids).unwrap();
        let numbers = columns[1].as_primitive::<Int64Type>();
        for (row, weight) in weights.into_iter().enumerate() {
            assert_eq!(columns[0].as_primitive::<Int64Type>().value(row), key);
            all.push(((key, numbers.value(row)), weight));
        }
    }
    all.sort_unstable();
    all
}

/// What is in the relations of a case.
#[derive(Default)]
struct Rows {
    live: Vec<Row>,
    gone: Vec<Row>,
    next: i64,
}

impl Rows {
    /// Few changes or many, rather deletions or rather insertions, some of rows that were there before.
    fn change(&mut self, rng: &mut impl Rng) -> Vec<(Row, i64)> {
        let mut changes = BTreeMap::new();
        if rng.random_ratio(1, 12) {
            let gone: Vec<_> = self.live.iter().map(|row| (*row, -1)).collect();
            self.gone.append(&mut self.live);
            return gone;
        }
        let count = match rng.random_range(0..8) {
            0 => 0,
            1 => SEAL_ROWS + rng.random_range(0..2_000),
            2 | 3 => rng.random_range(500..3_000),
            _ => rng.random_range(1..60),
        };
        let deletions = rng.random_range(0..10);
        for _ in 0..count {
            if !self.live.is_empty() && rng.random_ratio(deletions, 10) {
                let at = rng.random_range(0..self.live.len());
                let row = self.live.swap_remove(at);
                *changes.entry(row).or_insert(0) -= 1;
                self.gone.push(row);
                continue;
            }
            let known = if rng.random_ratio(1, 4) {
                self.gone.pop()
            } else {
                None
            };
            let row = known.unwrap_or_else(|| {
                self.next += 1;
                (rng.random_range(0..KEYS), self.next)
            });
            *changes.entry(row).or_insert(0) += 1;
            self.live.push(row);
        }
        changes.retain(|_, weight| *weight != 0);
        changes.into_iter().collect()
    }
}

fn check(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let identity: &[usize] = if rng.random() { &[0, 1] } else { &[1] };
    let (mut at_once, mut sliced) = (relation(identity), relation(identity));
    if rng.random() {
        (at_once, sliced) = (at_once.with_history(), sliced.with_history());
    }
    let mut fork: Option<Relation> = None;
    let mut rows = Rows::default();
    let index = at_once.acquire_index(&by(&[0])).unwrap();
    let acquired_at = rng.random_range(0..15);
    let forked_at = rng.random_range(acquired_at..20);
    for epoch in 1..30 {
        if epoch == acquired_at + 1 {
            assert_eq!(sliced.acquire_index(&by(&[0])).unwrap(), index);
        }
        let changes = rows.change(&mut rng);
        for relation in [&mut at_once, &mut sliced].into_iter().chain(&mut fork) {
            apply(relation, &changes, epoch);
            if rng.random() {
                relation.allow_compaction(Epoch(epoch));
            }
            let fuel = [0, 100, 100_000][rng.random_range(0..3)];
            relation.compact(fuel).unwrap();
        }
        if epoch <= acquired_at {
            continue;
        }
        let fuel = [0, 1, 100, 3_000, 20_000][rng.random_range(0..5)];
        sliced.build(fuel).unwrap();
        let expected = found(&at_once, index);
        assert_eq!(expected.len(), rows.live.len());
        if sliced.is_built() {
            assert_eq!(found(&sliced, index), expected);
        } else {
            assert!(matches!(sliced.index(index), Err(Error::Invariant(_))));
        }
        if epoch == forked_at + 1 {
            fork = Some(sliced.fork(&BTreeSet::from([0, index])));
            // Another one loses all rows, which the others do not notice.
            let mut emptied = sliced.fork(&BTreeSet::from([0]));
            emptied.build(usize::MAX).unwrap();
            let gone: Vec<_> = rows.live.iter().map(|row| (*row, -1)).collect();
            apply(&mut emptied, &gone, epoch);
            assert!(emptied.is_empty());
            assert!(emptied.index(index).is_err());
        }
        if let Some(fork) = &mut fork {
            assert_eq!(fork.rows(), at_once.rows());
            assert_eq!(fork.distinct_rows(), at_once.distinct_rows());
            fork.build(usize::MAX).unwrap();
            assert_eq!(found(fork, index), expected);
        }
    }
    while !sliced.is_built() {
        sliced.build(1_000).unwrap();
    }
    assert_eq!(found(&sliced, index), found(&at_once, index));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 0, ..ProptestConfig::default() })]
    #[test]
    fn an_index_that_is_built_in_slices_finds_what_one_that_was_always_there_finds(seed in any::<u64>()) {
        check(seed);
    }
}

#[test]
fn a_relation_takes_the_place_of_its_empty_image() {
    let mut full = relation(&[0, 1]);
    let by_key = full.acquire_index(&by(&[0])).unwrap();
    let by_number = full.acquire_index(&by(&[1])).unwrap();
    let mut empty = full.hollow();
    let rows = [((1, 1), 1), ((1, 2), 2), ((2, 3), 1)];
    apply(&mut full, &rows, 1);

    // One index gets another user, one goes and another one has its number.
    assert_eq!(empty.acquire_index(&by(&[0])).unwrap(), by_key);
    empty.release_index(by_number);
    assert_eq!(empty.acquire_index(&by(&[1, 0])).unwrap(), by_number);
    let late = empty.acquire_index(&by(&[1])).unwrap();
    assert!(empty.is_built());

    full.replace(&empty);
    assert_eq!(found(&full, by_key), rows);
    for number in [by_number, late] {
        assert!(full.index(number).is_err());
    }
    assert_eq!(full.index_columns(by_number).unwrap(), [1, 0]);
    assert_eq!(full.index_columns(late).unwrap(), [1]);
    // Three rows for each of the two.
    assert_eq!(full.build(5).unwrap(), 0);
    assert!(full.index(by_number).is_ok());
    assert!(!full.is_built());
    assert_eq!(full.build(5).unwrap(), 4);
    assert!(full.is_built());
    full.release_index(by_key);
    assert_eq!(found(&full, by_key), rows);
    full.release_index(by_key);
    assert!(full.index(by_key).is_err());
}

#[test]
fn what_cannot_be_indexed_is_refused_before_there_are_rows() {
    let mut relation = relation(&[0, 1]);
    assert!(relation.acquire_index(&by(&[2])).is_err());
    assert_eq!(relation.index_numbers(), 0..1);
}

#[test]
fn rows_that_come_and_go_use_the_numbers_of_segments_again() {
    let mut relation = relation(&[0, 1]);
    let index = relation.acquire_index(&by(&[0])).unwrap();
    // One that stays, so that the relation never is empty.
    apply(&mut relation, &[((0, 0), 1)], 1);
    let many = i64::try_from(SEAL_ROWS).unwrap();
    let mut most = 0;
    for round in 1..50_i64 {
        let numbers = round * many..(round + 1) * many;
        let rows = |weight: i64| -> Vec<(Row, i64)> {
            numbers
                .clone()
                .map(|number| ((number % KEYS, number), weight))
                .collect()
        };
        let epoch = u64::try_from(round * 2).unwrap();
        apply(&mut relation, &rows(1), epoch);
        apply(&mut relation, &rows(-1), epoch + 1);
        relation.compact(usize::MAX).unwrap();
        assert_eq!(found(&relation, index), [((0, 0), 1)]);
        most = most.max(relation.segments.len());
    }
    assert_eq!(most, 2);
    assert_eq!(relation.free.len(), 1);
}

#[test]
fn an_index_that_was_being_built_over_a_compacted_segment_has_the_rows_of_the_next_one() {
    let mut relation = relation(&[0, 1]);
    apply(&mut relation, &[((0, 0), 1)], 1);
    let many = i64::try_from(SEAL_ROWS).unwrap();
    let rows = |from: i64, weight: i64| -> Vec<(Row, i64)> {
        (from..from + many)
            .map(|number| ((number % KEYS, number), weight))
            .collect()
    };
    apply(&mut relation, &rows(many, 1), 2);
    let index = relation.acquire_index(&by(&[0])).unwrap();
    // The one row of the first segment, and some of the second.
    relation.build(1).unwrap();
    relation.build(100).unwrap();
    assert!(!relation.is_built());
    apply(&mut relation, &rows(many, -1), 3);
    relation.compact(usize::MAX).unwrap();
    apply(&mut relation, &rows(2 * many, 1), 4);
    relation.build(usize::MAX).unwrap();
    assert_eq!(relation.segments.len(), 2);
    assert_eq!(found(&relation, index).len(), SEAL_ROWS + 1);
}
