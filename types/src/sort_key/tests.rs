use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::types::{Float64Type, Int64Type, IntervalMonthDayNano};
use arrow_array::{
    BinaryArray, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int16Array,
    Int32Array, IntervalMonthDayNanoArray, LargeBinaryArray, ListArray, StringArray, StructArray,
    UInt32Array,
};
use arrow_schema::Field;
use proptest::prelude::*;

use super::*;

fn spans() -> impl Strategy<Value = IntervalMonthDayNano> {
    (-3_i32..3, -40_i32..40, -50_i64..50).prop_map(|(months, days, hours)| IntervalMonthDayNano {
        months,
        days,
        nanoseconds: hours * 3_600_000_000_000,
    })
}

/// The order of the keys of two rows, by bytes.
fn order(array: &ArrayRef, left: usize, right: usize) -> Ordering {
    key_bytes(array, left)
        .unwrap()
        .cmp(&key_bytes(array, right).unwrap())
}

fn ordered(array: ArrayRef) {
    for left in 0..array.len() {
        for right in 0..array.len() {
            assert_eq!(
                order(&array, left, right),
                left.cmp(&right),
                "{left} and {right} of {array:?}"
            );
        }
    }
}

#[test]
fn keys_of_every_type_are_ordered_as_its_values_are() {
    ordered(Arc::new(Int16Array::from(vec![
        i16::MIN,
        -1,
        0,
        1,
        i16::MAX,
    ])));
    ordered(Arc::new(Int32Array::from(vec![-256, -1, 0, 255, 256])));
    ordered(Arc::new(UInt32Array::from(vec![0, 1, u32::MAX])));
    ordered(Arc::new(Decimal128Array::from(vec![
        i128::MIN,
        -1,
        0,
        1,
        i128::MAX,
    ])));
    let (infinity, nan) = (f64::INFINITY, f64::NAN);
    ordered(Arc::new(Float64Array::from(vec![
        -infinity, -1.5, -1e-300, 0.0, 1e-300, 1.5, infinity, nan,
    ])));
    ordered(Arc::new(Float32Array::from(vec![
        -1.5,
        0.0,
        2.0,
        f32::INFINITY,
        f32::NAN,
    ])));
    ordered(Arc::new(StringArray::from(vec!["", "A", "a", "a b", "b"])));
    ordered(Arc::new(BinaryArray::from(vec![
        &b""[..],
        b"\0",
        b"\0\0",
        b"\0\x01",
        b"\x01",
        b"\xff",
        b"\xff\0",
    ])));
    let uuids = vec![[0_u8; 2], [0, 1], [1, 0], [255, 0]];
    ordered(Arc::new(
        FixedSizeBinaryArray::try_from_iter(uuids.into_iter()).unwrap(),
    ));
}

#[test]
fn one_zero_and_one_nan() {
    let values: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
    assert_eq!(order(&values, 0, 1), Ordering::Equal);
    assert_eq!(order(&values, 2, 3), Ordering::Equal);
}

#[test]
fn arrays_are_ordered_by_items_then_length_with_null_last() {
    let array = |items: &[&[Option<i64>]]| -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
            items.iter().map(|items| Some(items.to_vec())),
        ))
    };
    ordered(array(&[
        &[],
        &[Some(-1), Some(5)],
        &[Some(1)],
        &[Some(1), Some(1)],
        &[Some(1), None],
        &[Some(2)],
        &[None],
        &[None, Some(0)],
    ]));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([
        None,
        Some(vec![Some(1.0)]),
    ]));
    let keys = key_array(&lists).unwrap();
    assert!(keys.is_null(0) && keys.is_valid(1));
}

#[test]
fn nested_arrays_are_ordered_by_their_leaves_first() {
    // {{1,5},{0,0}}, {{2,0}}, {2,0}, {2,0,0}
    let inner = |rows: &[&[i64]]| {
        ListArray::from_iter_primitive::<Int64Type, _, _>(
            rows.iter()
                .map(|row| Some(row.iter().copied().map(Some).collect::<Vec<_>>())),
        )
    };
    let nest = |inner: ListArray, lengths: &[usize]| -> ArrayRef {
        Arc::new(ListArray::new(
            Arc::new(Field::new("item", inner.data_type().clone(), true)),
            arrow_buffer::OffsetBuffer::from_lengths(lengths.iter().copied()),
            Arc::new(inner),
            None,
        ))
    };
    ordered(nest(inner(&[&[1, 5], &[0, 0], &[2, 0]]), &[2, 1]));
    let flat: ArrayRef = Arc::new(inner(&[&[2, 0]]));
    let flat = key_bytes(&flat, 0).unwrap();
    let wrapped = key_bytes(&nest(inner(&[&[2, 0]]), &[1]), 0).unwrap();
    assert!(flat < wrapped);
}

#[test]
fn rows_are_ordered_by_fields_with_null_last() {
    let first: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(1), Some(2), None]));
    let second: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some(""), Some("")]));
    let rows = StructArray::from(vec![
        (Arc::new(Field::new("c0", DataType::Int32, true)), first),
        (Arc::new(Field::new("c1", DataType::Utf8, true)), second),
    ]);
    ordered(Arc::new(rows));
}

#[test]
fn only_types_that_need_a_key_have_one() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    assert!(Arc::ptr_eq(&text, &key_array(&text).unwrap()));
    assert!(!equality_differs(&DataType::LargeBinary) && order_differs(&DataType::LargeBinary));
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    assert!(equality_differs(&interval) && order_differs(&interval));
    let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
    assert!(equality_differs(&list(interval)) && !equality_differs(&list(DataType::Int32)));
}

proptest! {
    #[test]
    fn keys_of_intervals_compare_as_the_intervals(left in spans(), right in spans()) {
        let array: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![left, right]));
        let expected = interval::order_key(left).cmp(&interval::order_key(right));
        prop_assert_eq!(order(&array, 0, 1), expected);
        let keys = key_array(&array).unwrap();
        let keys = keys.as_primitive::<Decimal128Type>();
        prop_assert_eq!(keys.value(0).cmp(&keys.value(1)), expected);
    }

    #[test]
    fn keys_of_documents_compare_as_the_documents(left in crate::jsonb::any_document(), right in crate::jsonb::any_document()) {
        let array: ArrayRef = Arc::new(LargeBinaryArray::from(vec![left.as_bytes(), right.as_bytes()]));
        prop_assert_eq!(order(&array, 0, 1), left.as_jsonb().compare(right.as_jsonb()));
    }

    #[test]
    fn no_key_is_a_prefix_of_another(left in crate::jsonb::any_document(), right in crate::jsonb::any_document()) {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        left.as_jsonb().sort_key(&mut first);
        right.as_jsonb().sort_key(&mut second);
        prop_assert_eq!(first.starts_with(&second), first == second);
    }
}
