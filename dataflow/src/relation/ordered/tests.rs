use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use flowstone_proto::plan::{OrderColumn, column_name};
use flowstone_types::{DeltaBatch, Epoch};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Order;
use crate::Error;
use crate::batch::weights_of;
use crate::relation::{Entry, IndexSpec, Moment, Ordered, Place, Relation, SEAL_ROWS};

const WIDTH: usize = 4;
/// Some differ only behind what a posting has of them.
const TEXTS: [&str; 6] = [
    "",
    "a",
    "ab",
    "a longer text, longer than one block of a row",
    "a longer text, longer than one block of a row: another",
    "a longer text, longer than one block of a row: one",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Null,
    Int(i64),
    Text(&'static str),
    Bool(bool),
}

/// A group, a number, a text, a flag.
type Row = [Cell; WIDTH];
/// Rows and how often they are there.
type Bag = BTreeMap<Row, i64>;

fn schema() -> SchemaRef {
    let types = [
        DataType::Int64,
        DataType::Int64,
        DataType::Utf8,
        DataType::Boolean,
    ];
    let fields = types.into_iter().enumerate();
    let fields = fields.map(|(column, data_type)| Field::new(column_name(column), data_type, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let numbers = |column: usize| -> ArrayRef {
        let values = rows.iter().map(|row| match row[column] {
            Cell::Int(value) => Some(value),
            _ => None,
        });
        Arc::new(values.collect::<Int64Array>())
    };
    let texts = rows.iter().map(|row| match row[2] {
        Cell::Text(value) => Some(value),
        _ => None,
    });
    let flags = rows.iter().map(|row| match row[3] {
        Cell::Bool(value) => Some(value),
        _ => None,
    });
    let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
    let flags: ArrayRef = Arc::new(flags.collect::<BooleanArray>());
    RecordBatch::try_new(schema(), vec![numbers(0), numbers(1), texts, flags]).unwrap()
}

fn row_of(columns: &[ArrayRef], row: usize) -> Row {
    let number = |column: usize| {
        let values = columns[column].as_primitive::<Int64Type>();
        if values.is_null(row) {
            Cell::Null
        } else {
            Cell::Int(values.value(row))
        }
    };
    let texts = columns[2].as_string::<i32>();
    let text = if texts.is_null(row) {
        Cell::Null
    } else {
        let mut known = TEXTS.iter().copied();
        Cell::Text(known.find(|text| *text == texts.value(row)).unwrap())
    };
    let flags = columns[3].as_boolean();
    let flag = if flags.is_null(row) {
        Cell::Null
    } else {
        Cell::Bool(flags.value(row))
    };
    [number(0), number(1), text, flag]
}

/// What makes `from` to `to`.
fn delta(from: &Bag, to: &Bag, epoch: u64) -> Option<DeltaBatch> {
    let mut changes = to.clone();
    for (row, weight) in from {
        *changes.entry(*row).or_insert(0) -= weight;
    }
    changes.retain(|_, weight| *weight != 0);
    let rows: Vec<Row> = changes.keys().copied().collect();
    let weights = weights_of(changes.values().copied().collect());
    (!rows.is_empty()).then(|| DeltaBatch::new(batch(&rows), weights, Epoch(epoch)))
}

/// How an order has two rows, without what encodes them.
fn compare(order: &Order, left: &Row, right: &Row) -> Ordering {
    for by in &order.by {
        let (left, right) = (left[by.column], right[by.column]);
        let found = match (left == Cell::Null, right == Cell::Null) {
            (true, true) => Ordering::Equal,
            (true, false) if by.nulls_first => Ordering::Less,
            (true, false) => Ordering::Greater,
            (false, true) if by.nulls_first => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) if by.descending => right.cmp(&left),
            (false, false) => left.cmp(&right),
        };
        if found != Ordering::Equal {
            return found;
        }
    }
    Ordering::Equal
}

/// The rows of the group of `member`, in order.
fn expected(bag: &Bag, order: &Order, member: &Row) -> Vec<(Row, i64)> {
    let taken = |row: &Row| {
        order
            .group
            .iter()
            .all(|column| row[*column] == member[*column])
            && order.present.is_none_or(|column| row[column] != Cell::Null)
            && order
                .filter
                .is_none_or(|column| row[column] == Cell::Bool(true))
    };
    let rows = bag.iter().filter(|(row, _)| taken(row));
    let mut rows: Vec<(Row, i64)> = rows.map(|(row, weight)| (*row, *weight)).collect();
    rows.sort_by(|(left, _), (right, _)| compare(order, left, right));
    rows
}

fn rows_at(rows: &Ordered<'_>, places: &[Place]) -> Vec<Row> {
    let columns = rows.columns(places).unwrap();
    (0..places.len()).map(|row| row_of(&columns, row)).collect()
}

fn check_moment(relation: &Relation, moment: &Moment<'_>, number: usize, order: &Order, bag: &Bag) {
    let rows = moment.ordered(number).unwrap();
    let is_total = order.present.is_none();
    let mut members: Vec<Row> = bag.keys().copied().collect();
    members.push([Cell::Int(99), Cell::Null, Cell::Null, Cell::Null]);
    let key_of =
        |row: &Row| -> Vec<Cell> { order.group.iter().map(|column| row[*column]).collect() };
    let mut seen = BTreeSet::new();
    members.retain(|row| seen.insert(key_of(row)));
    for member in members {
        let one = batch(&[member]);
        let index = relation.ordered(number).unwrap();
        let groups = index.groups(one.columns(), 1).unwrap();
        let group = groups.get(0);
        let mut expected = expected(bag, order, &member);
        let entries: Vec<Entry> = rows.rows(group).map(Result::unwrap).collect();
        let places: Vec<Place> = entries.iter().map(|entry| entry.place).collect();
        let weights = entries.iter().map(|entry| entry.weight);
        let mut found: Vec<(Row, i64)> =
            itertools::zip_eq(rows_at(&rows, &places), weights).collect();
        let ends = [rows.first(group).unwrap(), rows.last(group).unwrap()];
        for (end, (row, _)) in ends
            .iter()
            .zip(expected.first().into_iter().chain(expected.last()))
        {
            let there = rows_at(&rows, &[end.unwrap()]);
            assert_eq!(compare(order, &there[0], row), Ordering::Equal);
        }
        assert_eq!(
            ends.iter().flatten().count(),
            if expected.is_empty() { 0 } else { 2 }
        );
        if !is_total {
            // Rows of one value come in any order.
            assert!(found.is_sorted_by(|(left, _), (right, _)| {
                compare(order, left, right) != Ordering::Greater
            }));
            found.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(found, expected, "{order:?} of {member:?}");
    }
}

fn random_order(rng: &mut impl Rng) -> Order {
    let groups: [&[usize]; 4] = [&[], &[0], &[0, 3], &[2, 0]];
    let group = groups[rng.random_range(0..groups.len())];
    if rng.random() {
        let filter = if rng.random() { Some(3) } else { None };
        return Order::of_values(group, rng.random_range(0..WIDTH), filter);
    }
    let count = rng.random_range(0..4);
    let by: Vec<OrderColumn> = (0..count)
        .map(|_| OrderColumn {
            column: rng.random_range(0..WIDTH),
            descending: rng.random(),
            nulls_first: rng.random(),
        })
        .collect();
    Order::total(group, &by, WIDTH)
}

/// `numbers`: how many different ones there are.
fn random_row(rng: &mut impl Rng, numbers: i64) -> Row {
    let mut cell = |cell: Cell| {
        if rng.random_ratio(1, 6) {
            Cell::Null
        } else {
            cell
        }
    };
    let mut row = [Cell::Null; WIDTH];
    row[0] = cell(Cell::Int(0));
    row[1] = cell(Cell::Int(0));
    row[2] = cell(Cell::Text(""));
    row[3] = cell(Cell::Bool(false));
    for cell in &mut row {
        *cell = match cell {
            Cell::Null => Cell::Null,
            Cell::Int(_) => Cell::Int(rng.random_range(-numbers..numbers)),
            Cell::Text(_) => Cell::Text(TEXTS[rng.random_range(0..TEXTS.len())]),
            Cell::Bool(_) => Cell::Bool(rng.random()),
        };
    }
    if let Cell::Int(group) = &mut row[0] {
        *group %= 3;
    }
    row
}

/// A few changes or many, rather insertions or rather retractions.
fn change(rng: &mut impl Rng, bag: &Bag) -> Bag {
    let mut next = bag.clone();
    match rng.random_range(0..16) {
        0 => next.clear(),
        // Most of all, so that segments are compacted.
        1 | 2 => next.retain(|_, _| rng.random_ratio(1, 4)),
        3 => {
            for _ in 0..SEAL_ROWS + 500 {
                next.insert(random_row(rng, 100_000), 1);
            }
        }
        _ => {
            let retracts = rng.random_range(0..10);
            for _ in 0..rng.random_range(0..40) {
                let retracted = rng.random_ratio(retracts, 10).then(|| {
                    let at = rng.random_range(0..next.len().max(1));
                    next.iter().nth(at).map(|(row, weight)| (*row, *weight))
                });
                if let Some((row, weight)) = retracted.flatten() {
                    if weight == 1 || rng.random() {
                        next.remove(&row);
                    } else {
                        next.insert(row, weight - 1);
                    }
                } else {
                    let more = if rng.random_ratio(1, 4) { 2 } else { 1 };
                    *next.entry(random_row(rng, 4)).or_insert(0) += more;
                }
            }
        }
    }
    next
}

fn check(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let order = random_order(&mut rng);
    let spec = IndexSpec::Ordered(order.clone());
    let relation = || Relation::new("a test".to_owned(), schema(), (0..WIDTH).collect());
    let (mut at_once, mut sliced) = (relation(), relation());
    if rng.random() {
        (at_once, sliced) = (at_once.with_history(), sliced.with_history());
    }
    let mut fork: Option<Relation> = None;
    let number = at_once.acquire_index(&spec).unwrap();
    assert!(at_once.index(number).is_err());
    let acquired_at = rng.random_range(0..10);
    let forked_at = rng.random_range(acquired_at..15);
    let mut bag = Bag::new();
    for epoch in 1..20 {
        if epoch == acquired_at + 1 {
            assert_eq!(sliced.acquire_index(&spec).unwrap(), number);
        }
        let next = change(&mut rng, &bag);
        let delta = delta(&bag, &next, epoch);
        // Large ones take long to go through.
        let looks = next.len() < 1_000 || rng.random_ratio(1, 4);
        for relation in [&mut at_once, &mut sliced].into_iter().chain(&mut fork) {
            let complete = relation.is_complete(number);
            if looks && rng.random_ratio(1, 4) {
                // What is looked at is not always what comes.
                let other = change(&mut rng, &bag);
                if let Some(other) = self::delta(&bag, &other, epoch) {
                    relation.after(&other).unwrap();
                }
            }
            if complete && looks {
                check_moment(relation, &relation.before(), number, &order, &bag);
                if let Some(delta) = &delta {
                    let after = relation.after(delta).unwrap();
                    check_moment(relation, &after, number, &order, &next);
                }
            }
            relation.apply(delta.as_ref(), &[], Epoch(epoch)).unwrap();
            if rng.random() {
                relation.allow_compaction(Epoch(epoch));
            }
            let fuel = [0, 100, 100_000][rng.random_range(0..3)];
            relation.compact(fuel).unwrap();
            let fuel = [0, 1, 100, 3_000, 20_000][rng.random_range(0..5)];
            relation.build(fuel).unwrap();
        }
        bag = next;
        if epoch == forked_at + 1 {
            let mut forked = sliced.fork(&BTreeSet::from([0, number]));
            // What finds the rows that go is there before any does.
            forked.build_index(0, usize::MAX).unwrap();
            fork = Some(forked);
        }
    }
    for relation in [&mut at_once, &mut sliced].into_iter().chain(&mut fork) {
        while !relation.is_built() {
            relation.build(1_000).unwrap();
        }
        check_moment(relation, &relation.before(), number, &order, &bag);
        // What is gone is not held.
        let empty = Bag::new();
        let delta = delta(&bag, &empty, 100);
        relation.apply(delta.as_ref(), &[], Epoch(100)).unwrap();
        check_moment(relation, &relation.before(), number, &order, &empty);
        assert_eq!(relation.index_bytes(number), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 0, ..ProptestConfig::default() })]
    #[test]
    fn groups_are_in_order_whatever_came_and_went(seed in any::<u64>()) {
        check(seed);
    }
}

#[test]
fn what_cannot_be_ordered_is_refused_before_there_are_rows() {
    let mut relation = Relation::new("a test".to_owned(), schema(), vec![0]);
    for order in [
        Order::of_values(&[4], 0, None),
        Order::of_values(&[0], 4, None),
        // Not a flag.
        Order::of_values(&[0], 1, Some(2)),
    ] {
        let refused = relation.acquire_index(&IndexSpec::Ordered(order));
        assert!(matches!(refused, Err(Error::Invariant(_))));
    }
    assert_eq!(relation.index_numbers(), 0..1);
}

#[test]
fn a_row_that_is_not_there_cannot_go() {
    let relation = Relation::new("a test".to_owned(), schema(), vec![0]);
    let gone = Bag::from([([Cell::Null; WIDTH], 1)]);
    let delta = delta(&gone, &Bag::new(), 1).unwrap();
    let refused = relation.after(&delta);
    assert!(matches!(refused, Err(Error::NegativeWeight(_))));
}

#[test]
fn rows_of_a_compacted_segment_are_not_taken_for_those_of_the_next_one_with_its_number() {
    let order = Order::of_values(&[0], 1, None);
    let many = i64::try_from(SEAL_ROWS).unwrap();
    let rows = |numbers: std::ops::Range<i64>| -> Bag {
        let row = |number: i64| -> Row {
            let group = Cell::Int(number % 3);
            [group, Cell::Int(number), Cell::Null, Cell::Null]
        };
        numbers.map(|number| (row(number), 1)).collect()
    };
    let (all, half, next) = (rows(0..many), rows(0..many / 2), rows(many..2 * many));
    let both: Bag = half.iter().chain(&next).map(|(row, _)| (*row, 1)).collect();
    // An index that is complete, and one that is being built over the segment.
    for fuel in [usize::MAX, 800] {
        let mut relation = Relation::new("a test".to_owned(), schema(), (0..WIDTH).collect());
        let change = |relation: &mut Relation, from: &Bag, to: &Bag, epoch: u64| {
            let delta = delta(from, to, epoch);
            relation.apply(delta.as_ref(), &[], Epoch(epoch)).unwrap();
        };
        change(&mut relation, &Bag::new(), &all, 1);
        let number = relation
            .acquire_index(&IndexSpec::Ordered(order.clone()))
            .unwrap();
        relation.build(fuel).unwrap();
        assert_eq!(relation.is_complete(number), fuel == usize::MAX);
        change(&mut relation, &all, &half, 2);
        relation.compact(usize::MAX).unwrap();
        change(&mut relation, &half, &both, 3);
        // What lives on has the number of the segment that went.
        assert_eq!(relation.segments.len(), 2);
        relation.build(usize::MAX).unwrap();
        check_moment(&relation, &relation.before(), number, &order, &both);
        change(&mut relation, &both, &next, 4);
        check_moment(&relation, &relation.before(), number, &order, &next);
    }
}
