use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const SERVER: Uuid = Uuid::from_u128(0x3e11_fa47_71ca_11e1_9e33_c80a_a942_9562);
const OTHER: Uuid = Uuid::from_u128(1);

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

fn offsets<const N: usize>(offsets: [(i32, i64); N]) -> SourcePosition {
    SourcePosition::KafkaOffsets(offsets.into())
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..6, any::<u64>()]
}

fn any_set() -> impl Strategy<Value = GtidSet> {
    let first = prop_oneof![4 => 1_u64..24, 1 => GtidSet::LAST - 6..=GtidSet::LAST];
    let part = (0_u128..3, first, 0_u64..5);
    proptest::collection::vec(part, 0..8).prop_map(|parts| {
        let mut set = GtidSet::default();
        for (server, first, more) in parts {
            let last = (first + more).min(GtidSet::LAST);
            set.add(Uuid::from_u128(server), first..=last).unwrap();
        }
        set
    })
}

fn any_offsets() -> impl Strategy<Value = BTreeMap<i32, i64>> {
    let partition = prop_oneof![4 => 0_i32..4, 1 => any::<i32>()];
    let offset = prop_oneof![4 => 0_i64..4, 1 => any::<i64>()];
    proptest::collection::btree_map(partition, offset, 0..5)
}

fn any_lsn() -> impl Strategy<Value = [u8; 10]> {
    proptest::array::uniform10(prop_oneof![0_u8..2, any::<u8>()])
}

/// A strategy for each kind.
fn kinds() -> [BoxedStrategy<SourcePosition>; 6] {
    [
        any_number().prop_map(SourcePosition::PostgresLsn).boxed(),
        any_number().prop_map(SourcePosition::GeneratorTick).boxed(),
        any_set().prop_map(SourcePosition::MySqlGtidSet).boxed(),
        any_lsn().prop_map(SourcePosition::SqlServerLsn).boxed(),
        any_offsets().prop_map(SourcePosition::KafkaOffsets).boxed(),
        any_number()
            .prop_map(SourcePosition::WebhookSequence)
            .boxed(),
    ]
}

fn any_position() -> impl Strategy<Value = SourcePosition> {
    proptest::strategy::Union::new(kinds())
}

/// Three positions of one kind.
fn three() -> impl Strategy<Value = (SourcePosition, SourcePosition, SourcePosition)> {
    let of_kind = |kind: BoxedStrategy<SourcePosition>| (kind.clone(), kind.clone(), kind).boxed();
    proptest::strategy::Union::new(kinds().map(of_kind))
}

/// The transactions of a set, one by one.
fn transactions(set: &GtidSet) -> BTreeSet<(Uuid, u64)> {
    set.intervals()
        .flat_map(|(server, numbers)| numbers.map(move |number| (server, number)))
        .collect()
}

proptest! {
    #[test]
    fn every_form_reads_back(position in any_position()) {
        let bytes = position.encode();
        prop_assert_eq!(SourcePosition::decode(&bytes), Ok(position.clone()));
        let text = position.to_string();
        prop_assert_eq!(text.parse::<SourcePosition>(), Ok(position.clone()));
        let json = serde_json::to_string(&position).unwrap();
        prop_assert_eq!(&json, &serde_json::to_string(&text).unwrap());
        prop_assert_eq!(serde_json::from_str::<SourcePosition>(&json).unwrap(), position);
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_an_error(position in any_position(), more in any::<u8>()) {
        let mut bytes = position.encode();
        for length in 0..bytes.len() {
            let cut = SourcePosition::decode(&bytes[..length]);
            prop_assert_eq!(cut, Err(DecodeError::Damaged("it is cut short")));
        }
        bytes.push(more);
        prop_assert!(SourcePosition::decode(&bytes).is_err());
    }

    /// Damage never panics, and what is still read is what these bytes say.
    #[test]
    fn damaged_bytes_are_an_error_or_another_position(
        position in any_position(),
        damage in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = position.encode();
        for (at, by) in damage {
            let at = at % bytes.len();
            bytes[at] ^= by;
        }
        if let Ok(read) = SourcePosition::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    #[test]
    fn any_bytes_are_safe(
        kind in 0_u8..7,
        rest in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..60),
    ) {
        let mut bytes = vec![VERSION, kind];
        bytes.extend(rest);
        if let Ok(read) = SourcePosition::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    #[test]
    fn any_text_is_safe(text in "(tick |sequence |0x|\\{)?[0-9a-f:,/{}+ -]{0,40}") {
        if let Ok(read) = text.parse::<SourcePosition>() {
            prop_assert_eq!(read.to_string().parse::<SourcePosition>(), Ok(read));
        }
    }

    #[test]
    fn positions_of_a_kind_are_partially_ordered_and_have_a_least_bound((a, b, c) in three()) {
        prop_assert!(a.same_kind(&b) && a.covers(&a));
        prop_assert_eq!(a.covers(&b) && b.covers(&a), a == b);
        prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
        let bound = a.join(&b).unwrap();
        prop_assert!(bound.covers(&a) && bound.covers(&b));
        prop_assert_eq!(b.join(&a), Some(bound.clone()));
        prop_assert_eq!(a.covers(&b), bound == a);
        prop_assert!(!(c.covers(&a) && c.covers(&b)) || c.covers(&bound));
        prop_assert!(bound.offset() >= a.offset().max(b.offset()));
    }

    #[test]
    fn positions_of_different_kinds_have_nothing_to_do_with_each_other(a in any_position(), b in any_position()) {
        if !a.same_kind(&b) {
            prop_assert!(!a.covers(&b) && !b.covers(&a));
            prop_assert_eq!(a.join(&b), None);
        }
    }

    #[test]
    fn sets_of_gtids_are_sets(a in any_set(), b in any_set()) {
        let (left, right) = (transactions(&a), transactions(&b));
        prop_assert_eq!(transactions(&a.union(&b)), left.union(&right).copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(a.includes(&b), left.is_superset(&right));
        prop_assert_eq!(a.count(), u64::try_from(left.len()).unwrap());
        prop_assert_eq!(a.is_empty(), left.is_empty());
        // Merged: between two intervals of a server a number is missing.
        let intervals: Vec<_> = a.intervals().collect();
        for pair in intervals.windows(2) {
            prop_assert!(pair[0].0 < pair[1].0 || *pair[0].1.end() + 1 < *pair[1].1.start());
        }
    }
}

#[test]
fn each_kind_has_its_text() {
    let lsn = [0, 0, 0, 0x27, 0, 0, 1, 0xf8, 0, 3];
    for (text, position) in [
        ("0/16B3748", SourcePosition::PostgresLsn(0x16b_3748)),
        ("FFFFFFFF/FFFFFFFF", SourcePosition::PostgresLsn(u64::MAX)),
        ("tick 42", SourcePosition::GeneratorTick(42)),
        (
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7",
            SourcePosition::MySqlGtidSet(set(&format!("{SERVER}:7:1-5"))),
        ),
        ("", SourcePosition::MySqlGtidSet(GtidSet::default())),
        ("0x00000027000001F80003", SourcePosition::SqlServerLsn(lsn)),
        ("{0:17,1:42}", offsets([(1, 42), (0, 17)])),
        ("{}", offsets([])),
        ("sequence 42", SourcePosition::WebhookSequence(42)),
    ] {
        assert_eq!(position.to_string(), text);
        assert_eq!(text.parse::<SourcePosition>(), Ok(position), "{text}");
    }
}

#[test]
fn what_is_no_position_is_refused() {
    for text in [
        "/",
        "0/",
        "0/123456789",
        "0/+1",
        "0/G",
        "1",
        "tick",
        "tick ",
        "tick -1",
        "tick 1 ",
        "tick 18446744073709551616",
        "sequence x",
        "0x",
        "0x00",
        "0x0000002700000 F80003",
        "{",
        "{0}",
        "{0:1",
        "{0:1,}",
        "{0:1,0:2}",
        "{0:+1}",
        "{4294967296:1}",
        "{0:1}}",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:0",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:5-1",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:9223372036854775808",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag:1",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1,",
        "3e11fa4771ca11e19e33c80aa9429562:1",
    ] {
        let error = text.parse::<SourcePosition>().unwrap_err();
        let expected = format!("invalid input syntax for type source position: \"{text}\"");
        assert_eq!(error.to_string(), expected);
        assert!(serde_json::from_value::<SourcePosition>(text.into()).is_err());
    }
}

#[test]
fn sets_of_gtids_are_merged_and_sorted() {
    for (text, expected) in [
        ("S:5:1-2:3", "S:1-3:5"),
        ("S:3-9:1-4:12:10", "S:1-10:12"),
        (
            "S:9223372036854775807:9223372036854775806",
            "S:9223372036854775806-9223372036854775807",
        ),
        ("S:2,\nO:1, S:1", "O:1,S:1-2"),
        (" ", ""),
    ] {
        let text = text
            .replace('S', &SERVER.to_string())
            .replace('O', &OTHER.to_string());
        let expected = expected
            .replace('S', &SERVER.to_string())
            .replace('O', &OTHER.to_string());
        assert_eq!(set(&text).to_string(), expected);
    }
    let mut whole = GtidSet::default();
    for none in [0..=1, 0..=0, 1..=GtidSet::LAST + 1] {
        whole.add(SERVER, none).unwrap_err();
    }
    let (first, last) = (3, 2);
    whole.add(SERVER, first..=last).unwrap_err();
    assert!(whole.is_empty());
    whole.add(SERVER, 1..=GtidSet::LAST).unwrap();
    whole.add(OTHER, 1..=GtidSet::LAST).unwrap();
    assert_eq!(whole.count(), 2 * GtidSet::LAST);
    assert!(whole.includes(&set(&format!("{SERVER}:7-9:{}", GtidSet::LAST))));
}

#[test]
fn a_partition_that_was_not_heard_of_is_before_its_first_offset() {
    let (none, begun) = (offsets([]), offsets([(0, 0)]));
    assert!(begun.covers(&none) && !none.covers(&begun));
    let (left, right) = (offsets([(0, 5), (1, 1)]), offsets([(0, 4), (2, 7)]));
    assert!(!left.covers(&right) && !right.covers(&left));
    assert_eq!(left.join(&right), Some(offsets([(0, 5), (1, 1), (2, 7)])));
}

#[test]
fn people_see_one_number() {
    let lsn = [0, 0, 0, 1, 0, 0, 0, 2, 0, 3];
    for (position, number) in [
        (SourcePosition::PostgresLsn(30), 30),
        (SourcePosition::GeneratorTick(30), 30),
        (SourcePosition::WebhookSequence(30), 30),
        (SourcePosition::SqlServerLsn(lsn), (1 << 32) + 2),
        (offsets([(0, 17), (1, 42), (2, -1)]), 59),
        (offsets([(0, i64::MAX), (1, i64::MAX), (2, 9)]), u64::MAX),
        (
            SourcePosition::MySqlGtidSet(set(&format!("{SERVER}:1-5:7,{OTHER}:3"))),
            7,
        ),
    ] {
        assert_eq!(position.offset(), number, "{position}");
    }
}

/// Bytes as they were written once: they must read the same in every later release.
#[test]
fn the_encoding_does_not_change() {
    let lsn = [0, 0, 0, 0x27, 0, 0, 1, 0xf8, 0, 3];
    let gtids = format!("{OTHER}:3,{SERVER}:1-5:7:300");
    for (position, expected) in [
        (SourcePosition::PostgresLsn(0x16b_3748), "0100c8eeac0b"),
        (SourcePosition::PostgresLsn(0), "010000"),
        (
            SourcePosition::PostgresLsn(u64::MAX),
            "0100ffffffffffffffffff01",
        ),
        (SourcePosition::GeneratorTick(42), "01012a"),
        (
            SourcePosition::MySqlGtidSet(set(&gtids)),
            "01020200000000000000000000000000000001010200\
             3e11fa4771ca11e19e33c80aa94295620300040000a30200",
        ),
        (
            SourcePosition::SqlServerLsn(lsn),
            "010300000027000001f80003",
        ),
        (
            offsets([(0, 17), (1, -1), (2, 300)]),
            "0104030022020104d804",
        ),
        (SourcePosition::WebhookSequence(42), "01052a"),
    ] {
        let expected = hex::decode(expected).unwrap();
        assert_eq!(position.encode(), expected, "{position}");
        assert_eq!(SourcePosition::decode(&expected), Ok(position));
    }
}

#[test]
fn what_could_be_written_in_two_ways_is_refused() {
    let damaged = |bytes: &[u8]| match SourcePosition::decode(bytes) {
        Err(DecodeError::Damaged(reason)) => reason,
        other => panic!("{bytes:?}: {other:?}"),
    };
    let server = [7_u8; 16];
    let mut twice = [&[1_u8, 2, 2][..], &server, &[1_u8, 0, 0]].concat();
    twice.extend([&server[..], &[1_u8, 0, 0]].concat());
    for (bytes, reason) in [
        (vec![0, 0, 0], "it has no version"),
        (vec![1, 6, 0], "it is of no known kind"),
        (vec![1, 0, 0x80, 0], "a number is longer than it has to be"),
        (
            [&[1_u8, 0][..], &[0xff; 9], &[2]].concat(),
            "a number is out of range",
        ),
        (
            [&[1_u8, 0][..], &[0x80; 10], &[0]].concat(),
            "a number is out of range",
        ),
        (vec![1, 4, 2, 0, 0, 0, 0], "its partitions are out of order"),
        (
            vec![1, 4, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0],
            "a partition is out of range",
        ),
        (twice, "its servers are out of order"),
        (
            [&[1_u8, 2, 1][..], &server, &[0]].concat(),
            "a server has no transactions",
        ),
        (
            [&[1_u8, 2, 1][..], &server, &[1, 0], &[0xff; 8], &[0x7f]].concat(),
            "a transaction is out of range",
        ),
        (vec![1, 1, 0, 0], "it goes on after its end"),
    ] {
        assert_eq!(damaged(&bytes), reason, "{bytes:?}");
    }
    assert_eq!(
        SourcePosition::decode(&[2]),
        Err(DecodeError::Newer { found: 2, known: 1 })
    );
}
