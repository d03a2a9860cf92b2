use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::Schema;
use flowstone_proto::kafka::{AvroFormat, Envelope, Format, KafkaTable, OnDecodeError};
use flowstone_proto::message::{SourceColumn, SourceTable};
use flowstone_types::{ObjectId, SourceOp, SqlType};
use proptest::prelude::*;

use super::*;
use crate::kafka::batch::Lane;
use crate::kafka::decode::{Outcome, Stop, TableDecoder};

const SCHEMA: &str = r#"[
    {"type":"array","items":{"type":"record","name":"update","fields":[
        {"name":"data","type":{"type":"record","name":"data","fields":[{"name":"id","type":"long"}]}},
        {"name":"time","type":"long"},
        {"name":"diff","type":"long"}]}},
    {"type":"record","name":"progress","fields":[
        {"name":"lower","type":{"type":"array","items":"long"}},
        {"name":"upper","type":{"type":"array","items":"long"}},
        {"name":"counts","type":{"type":"array","items":{"type":"record","name":"counts","fields":[
            {"name":"time","type":"long"},{"name":"count","type":"long"}]}}}]}]"#;

fn decoder(on_decode_error: OnDecodeError) -> TableDecoder {
    let spec = KafkaTable {
        key: None,
        value: Format::Avro(AvroFormat {
            reader: SCHEMA.to_owned(),
            references: Vec::new(),
            registry: None,
        }),
        envelope: Envelope::Materialize,
        include: Vec::new(),
        on_decode_error,
        columns: vec![KafkaColumn::Value(0)],
    };
    let column = SourceColumn {
        name: "id".to_owned(),
        attribute: 0,
        type_oid: 0,
        type_modifier: -1,
        not_null: true,
        as_text: false,
    };
    let table = SourceTable {
        id: ObjectId::User(2),
        upstream_schema: "kafka".to_owned(),
        upstream_name: "t".to_owned(),
        upstream_oid: 0,
        columns: vec![column],
        key: Vec::new(),
        upstream: spec.encode(),
    };
    let schema = Schema::new(vec![SqlType::Int8.to_field("id", false)]);
    TableDecoder::new(&table, Arc::new(schema)).unwrap()
}

fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while left >= 0x80 {
        out.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    out.push(u8::try_from(left).unwrap());
}

fn longs(values: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| put_long(*value, &mut bytes));
    bytes
}

/// A message of updates: rows, times, weights.
fn updates(updates: &[(i64, i64, i64)]) -> Vec<u8> {
    let mut values = vec![0];
    if !updates.is_empty() {
        values.push(i64::try_from(updates.len()).unwrap());
    }
    for (id, time, weight) in updates {
        values.extend([id, time, weight]);
    }
    values.push(0);
    longs(&values)
}

/// A message that states progress: times with their counts.
fn progress(lower: i64, upper: i64, counts: &[(i64, i64)]) -> Vec<u8> {
    let mut values = vec![1, 1, lower, 0, 1, upper, 0];
    if !counts.is_empty() {
        values.push(i64::try_from(counts.len()).unwrap());
    }
    for (time, count) in counts {
        values.extend([time, count]);
    }
    values.push(0);
    longs(&values)
}

/// Decodes some of the messages, whose offsets are their places; those from an offset on are wanted.
fn decode(
    decoder: &mut TableDecoder,
    messages: &[Vec<u8>],
    range: Range<usize>,
    wanted: usize,
) -> Result<Outcome, Stop> {
    let mut batch = Batch::new(Lane::Main, 0);
    for offset in range {
        let value = messages[offset].as_slice();
        batch.add(i64::try_from(offset).unwrap(), None, Some(value), &[]);
    }
    let first = batch.before(i64::try_from(wanted).unwrap());
    decoder.decode(&batch, first, batch.messages.len())
}

/// The offset after the message of each row, what becomes of the row, and its number.
fn rows(outcome: &Outcome) -> Vec<(i64, SourceOp, i64)> {
    let mut rows = Vec::new();
    for changes in &outcome.changes {
        let ids = changes.rows.column(0).as_primitive::<Int64Type>();
        for ((next, op), id) in changes.next.iter().zip(&changes.ops).zip(ids.values()) {
            rows.push((*next, *op, *id));
        }
    }
    rows
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(bound).unwrap()).unwrap()
    }

    /// Messages of ten times, in any order, some of them twice.
    fn messages(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut id = 0;
        for time in 0..10 {
            let mut count = 0;
            for _ in 0..self.below(4) {
                let weight = [-1, 1, 2][self.below(3)];
                messages.push(updates(&[(id, time, weight)]));
                (id, count) = (id + 1, count + 1);
            }
            let counts = [(time, count)];
            let counts = counts.get(..usize::from(count > 0)).unwrap();
            messages.push(progress(time, time + 1, counts));
        }
        for index in 0..messages.len() {
            if self.below(3) == 0 {
                messages.push(messages[index].clone());
            }
        }
        for last in (1..messages.len()).rev() {
            let other = self.below(last + 1);
            messages.swap(last, other);
        }
        messages
    }
}

proptest! {
    #[test]
    fn batches_may_be_cut_and_begun_again_anywhere(seed in any::<u64>()) {
        let mut random = Random(seed);
        let messages = random.messages();
        let all = messages.len();
        let mut whole = Vec::new();
        let mut marks = Vec::new();
        let mut table = decoder(OnDecodeError::Row);
        for offset in 0..all {
            let outcome = decode(&mut table, &messages, offset..offset + 1, 0).unwrap();
            whole.extend(rows(&outcome));
            marks.push(outcome.mark.unwrap());
        }
        prop_assert_eq!(marks[all - 1].frontier, 10);
        let mut table = decoder(OnDecodeError::Row);
        let mut found = Vec::new();
        let mut from = 0;
        while from < all {
            let end = (from + 1 + random.below(6)).min(all);
            let cut = from + random.below(end - from);
            // What was decoded comes again in two parts.
            decode(&mut table, &messages, from..end, 0).unwrap();
            table.take_back();
            for part in [from..cut, cut..end] {
                found.extend(rows(&decode(&mut table, &messages, part.clone(), 0).unwrap()));
                table.settle(i64::try_from(part.end).unwrap());
            }
            from = end;
        }
        prop_assert_eq!(&found, &whole);
        for position in 0..=all {
            let mut table = decoder(OnDecodeError::Row);
            let mut from = 0;
            if position > 0 {
                // It may be older than the position.
                let mark = marks[random.below(position)];
                table.begin_at(mark);
                from = usize::try_from(mark.needed).unwrap();
            }
            let mut found = Vec::new();
            while from < all {
                let end = (from + 1 + random.below(6)).min(all);
                found.extend(rows(&decode(&mut table, &messages, from..end, position).unwrap()));
                from = end;
            }
            let is_behind = |(next, ..): &&(i64, SourceOp, i64)| *next > i64::try_from(position).unwrap();
            let expected: Vec<_> = whole.iter().filter(is_behind).copied().collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn what_comes_before_a_contradiction_counts_however_batches_are_cut() {
    let messages = [
        updates(&[(1, 0, 1), (2, 1, 1), (3, 1, 1)]),
        progress(0, 1, &[(0, 1)]),
        progress(1, 2, &[(1, 1)]),
        updates(&[(9, 5, 1)]),
    ];
    let mut table = decoder(OnDecodeError::Row);
    let stop = decode(&mut table, &messages, 0..4, 0).unwrap_err();
    let (offset, message) = match stop {
        Stop::Message { offset, message } => (offset, message),
        Stop::Table(message) => panic!("{message}"),
    };
    assert_eq!(offset, 2);
    assert_eq!(
        message,
        "there are 2 updates at time 1, of which progress counted 1"
    );
    table.take_back();
    let before = decode(&mut table, &messages, 0..2, 0).unwrap();
    assert_eq!(rows(&before), [(2, SourceOp::Insert, 1)]);
    let stop = decode(&mut table, &messages, 2..4, 0).unwrap_err();
    assert_eq!(stop, Stop::Table(message));
}

#[test]
fn a_message_that_cannot_be_read_says_nothing_and_is_in_error() {
    let messages = [
        updates(&[(1, 0, 2), (2, -1, 1)]),
        b"\x07".to_vec(),
        updates(&[(1, 0, 2)]),
        progress(0, 1, &[(0, 1)]),
    ];
    let mut table = decoder(OnDecodeError::Row);
    let outcome = decode(&mut table, &messages, 0..4, 0).unwrap();
    let next: Vec<i64> = rows(&outcome).iter().map(|(next, ..)| *next).collect();
    assert_eq!(next, [1, 2, 4, 4]);
    let mut table = decoder(OnDecodeError::Fail);
    for from in 0..2 {
        // However often it is tried, and whatever the batch is.
        for _ in 0..2 {
            let stop = decode(&mut table, &messages, from..4, 0).unwrap_err();
            let at = i64::try_from(from).unwrap();
            assert!(
                matches!(stop, Stop::Message { offset, .. } if offset == at),
                "{stop:?}"
            );
        }
    }
    let left = decode(&mut table, &messages, 2..4, 0).unwrap();
    assert_eq!(rows(&left).len(), 2);
}

#[test]
fn an_update_that_changes_nothing_cannot_be_read() {
    let messages = [
        updates(&[(1, 0, 1), (2, 0, 0)]),
        updates(&[(1, 0, 1)]),
        progress(0, 1, &[(0, 1)]),
    ];
    let mut table = decoder(OnDecodeError::Row);
    let outcome = decode(&mut table, &messages, 0..3, 0).unwrap();
    let next: Vec<i64> = rows(&outcome).iter().map(|(next, ..)| *next).collect();
    assert_eq!(next, [1, 3]);
}

#[test]
fn a_batch_is_cut_where_its_rows_are_too_many_at_once() {
    let many = 600_000;
    let messages = [
        updates(&[(1, 0, many)]),
        progress(0, 1, &[(0, 1)]),
        updates(&[(2, 1, many)]),
        progress(1, 2, &[(1, 1)]),
        updates(&[(3, 2, 1)]),
        progress(2, 3, &[(2, 1)]),
    ];
    let mut table = decoder(OnDecodeError::Row);
    let stop = decode(&mut table, &messages, 0..6, 0).unwrap_err();
    assert!(matches!(stop, Stop::Message { offset: 5, .. }), "{stop:?}");
    table.take_back();
    let before = decode(&mut table, &messages, 0..5, 0).unwrap();
    let count: usize = before.changes.iter().map(|part| part.ops.len()).sum();
    assert_eq!(count, 1_200_000);
    table.settle(5);
    let rest = decode(&mut table, &messages, 5..6, 0).unwrap();
    assert_eq!(rows(&rest), [(6, SourceOp::Insert, 3)]);
}

#[test]
fn a_topic_has_one_partition() {
    let mut table = decoder(OnDecodeError::Row);
    let mut batch = Batch::new(Lane::Main, 1);
    batch.add(0, None, None, &[]);
    let stop = table.decode(&batch, 0, 1).unwrap_err();
    assert!(matches!(stop, Stop::Table(_)), "{stop:?}");
}

#[test]
fn a_time_with_many_rows_is_several_parts_of_one_message() {
    let messages = [
        updates(&[(1, 0, 20_000), (2, 0, -3)]),
        progress(0, 1, &[(0, 2)]),
    ];
    let mut table = decoder(OnDecodeError::Row);
    let outcome = decode(&mut table, &messages, 0..2, 0).unwrap();
    let parts: Vec<usize> = outcome.changes.iter().map(|part| part.ops.len()).collect();
    assert_eq!(parts, [8191, 8191, 20_003 - 2 * 8191]);
    let rows = rows(&outcome);
    assert!(rows.iter().all(|(next, ..)| *next == 2));
    assert_eq!(rows[20_000..], [(2, SourceOp::Delete, 2); 3]);
}
