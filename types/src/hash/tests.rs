use proptest::prelude::*;

use super::*;
use crate::sql_type::tests::all_types;
use crate::value::tests::{any_cells, column_of};

/// The hashes are on disk: if this fails, [`HASH_VERSION`] must change.
#[test]
fn hashes_are_the_same_in_every_release() {
    let columns: Vec<ArrayRef> = vec![
        column_of(&crate::SqlType::Int8, &[Some("1"), None]),
        column_of(&crate::SqlType::Text, &[Some("a"), Some("")]),
    ];
    assert_eq!(HASH_VERSION, 1);
    let hashes = hash_rows(&columns, 2).unwrap();
    let wide = hash_rows_128(&columns, 2).unwrap();
    assert_eq!(hashes, [HASH_FIRST, HASH_SECOND]);
    assert_eq!(wide, [WIDE_FIRST, WIDE_SECOND]);
}

const HASH_FIRST: u64 = 3_663_460_694_480_001_367;
const HASH_SECOND: u64 = 17_183_869_694_915_120_810;
const WIDE_FIRST: u128 = 214_363_755_350_519_365_141_212_555_341_176_471_772;
const WIDE_SECOND: u128 = 14_898_084_566_032_818_275_250_205_368_186_316_849;

#[test]
fn null_an_empty_string_and_zero_hash_differently() {
    let texts = [column_of(
        &crate::SqlType::Text,
        &[None, Some(""), Some("0")],
    )];
    let hashes = hash_rows(&texts, 3).unwrap();
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    let numbers = [column_of(&crate::SqlType::Int4, &[None, Some("0")])];
    let hashes = hash_rows(&numbers, 2).unwrap();
    assert_ne!(hashes[0], hashes[1]);
}

#[test]
fn the_border_between_columns_counts() {
    let text = |cells: &[Option<&str>]| column_of(&crate::SqlType::Text, cells);
    let columns = [
        text(&[Some("ab"), Some("a")]),
        text(&[Some("c"), Some("bc")]),
    ];
    let hashes = hash_rows_128(&columns, 2).unwrap();
    assert_ne!(hashes[0], hashes[1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn equal_cells_hash_alike_wherever_they_are(
        seeds in proptest::collection::vec(any_cells(), 1..6)
    ) {
        for sql_type in all_types() {
            let cells: Vec<Option<String>> = seeds.iter().map(|seed| seed.of(&sql_type)).collect();
            let texts: Vec<Option<&str>> = cells.iter().map(Option::as_deref).collect();
            let column = column_of(&sql_type, &texts);
            // The same cells in reverse, and as a slice of a longer column.
            let reversed: Vec<Option<&str>> = texts.iter().rev().copied().chain([None]).collect();
            let other = column_of(&sql_type, &reversed);
            let hashes = hash_rows(std::slice::from_ref(&column), column.len()).unwrap();
            let reverse = hash_rows(std::slice::from_ref(&other), other.len()).unwrap();
            let wide = hash_rows_128(std::slice::from_ref(&column), column.len()).unwrap();
            let last = column.len() - 1;
            let tail = column.slice(last, 1);
            prop_assert_eq!(hash_rows(std::slice::from_ref(&tail), 1).unwrap()[0], hashes[last]);
            for row in 0..column.len() {
                prop_assert_eq!(hashes[row], reverse[last - row], "{}", sql_type);
                prop_assert!(values_equal(&column, row, &other, last - row).unwrap());
                for second in 0..column.len() {
                    let equal = values_equal(&column, row, &column, second).unwrap();
                    prop_assert_eq!(equal, hashes[row] == hashes[second], "{}", sql_type);
                    prop_assert_eq!(equal, wide[row] == wide[second], "{}", sql_type);
                }
            }
        }
    }
}
