use proptest::prelude::*;

use super::*;

fn text(value: i128, scale: i8, modifier: Option<(u8, i8)>) -> String {
    let mut out = String::new();
    format_numeric(value, scale, modifier, &mut out);
    out
}

#[test]
fn a_declared_scale_rounds_half_away_from_zero() {
    let cases = [
        ("1.005", 101),
        ("-1.005", -101),
        ("1.0049999", 100),
        ("0.0049", 0),
        ("0.005", 1),
        ("0.0005", 0),
        ("0.00999", 1),
        (".5", 50),
        ("5.", 500),
        (" +1e1 ", 1_000),
        ("1E-2", 1),
        ("0e1073741822", 0),
        ("9e-16383", 0),
    ];
    for (input, expected) in cases {
        assert_eq!(parse_numeric(input, Some((10, 2))), Ok(expected), "{input}");
    }
    assert!(matches!(
        parse_numeric("99999999.995", Some((10, 2))),
        Err(TypeError::OutOfRange { .. })
    ));
    assert_eq!(parse_numeric("1250", Some((5, -2))), Ok(13));
    assert_eq!(text(13, -2, Some((5, -2))), "1300");
}

#[test]
fn plain_numeric_never_loses_digits() {
    assert_eq!(
        parse_numeric("1.5000000000000000000000000", None),
        Ok(1_500_000_000_000_000_000)
    );
    assert_eq!(parse_numeric("0.000000000000000001", None), Ok(1));
    for bad in [
        "0.0000000000000000001",
        "100000000000000000000",
        "1e20",
        "1e-19",
        "NaN",
        "-Infinity",
    ] {
        assert!(
            matches!(parse_numeric(bad, None), Err(TypeError::NumericNotHeld(_))),
            "{bad}"
        );
    }
    assert!(parse_numeric("99999999999999999999.999999999999999999", None).is_ok());
    assert_eq!(
        parse_numeric(" 1e20", None).unwrap_err().to_string(),
        "value \"1e20\" is not supported for type numeric without a declared scale, which has 20 digits before and 18 after the point"
    );
}

#[test]
fn what_postgresql_refuses_too_is_out_of_range() {
    let limit = |text: &str| match parse_numeric(text, None) {
        Err(TypeError::OutOfRange { .. }) => true,
        Err(TypeError::NumericNotHeld(_)) => false,
        other => panic!("{text}: {other:?}"),
    };
    for (text, is_out_of_range) in [
        ("1e131071", false),
        ("0.001e131074", false),
        ("1e131072", true),
        ("1e999999999", true),
        ("1e-16383", false),
        ("0.1e-16382", false),
        ("1e-16384", true),
        ("1e-999999999999999999999", true),
    ] {
        assert_eq!(limit(text), is_out_of_range, "{text}");
    }
    // A declared precision holds no infinity, and has room for NaN.
    let declared = |text| parse_numeric(text, Some((10, 2)));
    for text in [
        "1e20",
        "Infinity",
        "-inf",
        "1e-16384",
        "0e-16384",
        "0e1073741823",
        "0e999999999999999999999",
        "9e-99999999999999999999",
    ] {
        assert!(
            matches!(declared(text), Err(TypeError::OutOfRange { .. })),
            "{text}"
        );
    }
    assert!(matches!(declared("NaN"), Err(TypeError::NumericNotHeld(_))));
}

#[test]
fn what_is_no_number_is_refused() {
    for bad in [
        "", " ", ".", "-", "1e", "1e+", "1.2.3", "1 2", "--1", "0x1", "e5", "1e1.5", "abc", "١",
    ] {
        assert!(
            matches!(parse_numeric(bad, None), Err(TypeError::InvalidText { .. })),
            "{bad}"
        );
    }
}

#[test]
fn a_modifier_keeps_trailing_zeros_and_plain_numeric_drops_them() {
    assert_eq!(text(150, 2, Some((10, 2))), "1.50");
    assert_eq!(text(-5, 3, Some((10, 3))), "-0.005");
    assert_eq!(text(0, 2, Some((10, 2))), "0.00");
    assert_eq!(text(150, 2, None), "1.5");
    assert_eq!(text(100, 2, None), "1");
    assert_eq!(text(0, 18, None), "0");
    assert_eq!(text(-1, 18, None), "-0.000000000000000001");
    assert_eq!(text(7, 0, Some((5, 0))), "7");
}

#[test]
fn the_binary_format_is_postgresql_s() {
    let cases: [(&str, &[u16]); 6] = [
        ("0", &[0, 0, 0, 0]),
        ("1", &[1, 0, 0, 0, 1]),
        ("-12345.678", &[3, 1, 0x4000, 3, 1, 2345, 6780]),
        ("10000", &[1, 1, 0, 0, 1]),
        ("0.0001", &[1, 0xffff, 0, 4, 1]),
        ("0.00001", &[1, 0xfffe, 0, 5, 1000]),
    ];
    for (input, words) in cases {
        let value = parse_numeric(input, None).unwrap();
        let mut out = Vec::new();
        numeric_to_binary(value, 18, None, &mut out);
        let expected: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(out, expected, "{input}");
        assert_eq!(numeric_from_binary(&expected, None), Ok(value));
    }
}

#[test]
fn special_and_damaged_binary_numbers_are_refused() {
    let bytes = |words: &[u16]| {
        words
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect::<Vec<u8>>()
    };
    for sign in [0xC000, 0xD000, 0xF000] {
        let error = numeric_from_binary(&bytes(&[0, 0, sign, 0]), None);
        assert!(matches!(error, Err(TypeError::NumericNotHeld(_))));
    }
    for bad in [
        &[][..],
        &[0, 0, 0],
        &[1, 0, 0, 0],
        &[1, 0, 0, 0, 10_000],
        &[0, 0, 7, 0],
    ] {
        let error = numeric_from_binary(&bytes(bad), None);
        assert!(
            matches!(error, Err(TypeError::InvalidBinary { .. })),
            "{bad:?}"
        );
    }
    let large = numeric_from_binary(&bytes(&[1, 9, 0, 0, 1]), None).unwrap_err();
    assert!(large.to_string().starts_with("value \"1000"), "{large}");
}

#[test]
fn changing_the_scale_rounds_or_refuses() {
    assert_eq!(rescale(125, 2, 38, 1, Excess::Round), Some(13));
    assert_eq!(rescale(-125, 2, 38, 1, Excess::Round), Some(-13));
    assert_eq!(rescale(124, 2, 38, 1, Excess::Round), Some(12));
    assert_eq!(rescale(124, 2, 38, 1, Excess::Refuse), None);
    assert_eq!(rescale(120, 2, 38, 1, Excess::Refuse), Some(12));
    assert_eq!(rescale(1, 0, 3, 3, Excess::Round), None);
    assert_eq!(rescale(i128::MAX, 38, 38, -38, Excess::Round), Some(0));
    assert!(rescale_to(125, 3, Some((2, 2))).is_ok());
    assert_eq!(
        rescale_to(12_500, 2, Some((4, 2))).unwrap_err().to_string(),
        "value \"125\" is out of range for type numeric(4,2)"
    );
}

proptest! {
    #[test]
    fn numbers_survive_text_and_binary(
        value in any::<i128>(), precision in 1_u8..=38, scale in 0_i8..=38, plain in any::<bool>()
    ) {
        let modifier = if plain { None } else { Some((precision, scale.min(i8::try_from(precision).unwrap()))) };
        let (precision, scale) = precision_and_scale(modifier);
        let value = value % 10_i128.pow(u32::from(precision));
        prop_assert_eq!(parse_numeric(&text(value, scale, modifier), modifier), Ok(value));
        let mut bytes = Vec::new();
        numeric_to_binary(value, scale, modifier, &mut bytes);
        prop_assert_eq!(numeric_from_binary(&bytes, modifier), Ok(value));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = numeric_from_binary(&bytes, None);
        let _ = numeric_from_binary(&bytes, Some((10, -2)));
        let _ = binary_as_text(&bytes);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-+]?[0-9]{0,45}\\.?[0-9]{0,45}(e[-+]?[0-9]{1,20})?") {
        let _ = parse_numeric(&text, None);
        let _ = parse_numeric(&text, Some((38, 38)));
    }
}

#[test]
fn a_binary_number_that_cannot_be_kept_is_named_exactly() {
    let binary = |sign: u16, weight: i16, places: u16, groups: &[u16]| {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(groups.len()).unwrap().to_be_bytes());
        bytes.extend(weight.to_be_bytes());
        bytes.extend(sign.to_be_bytes());
        bytes.extend(places.to_be_bytes());
        bytes.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
        bytes
    };
    let said = |bytes: &[u8]| numeric_from_binary(bytes, None).unwrap_err().to_string();
    let refused = |text: &str| {
        format!(
            "value \"{text}\" is not supported for type numeric without a declared scale, which has 20 digits before and 18 after the point"
        )
    };
    assert_eq!(
        said(&binary(0, 7, 0, &[100])),
        refused("1000000000000000000000000000000")
    );
    assert_eq!(
        said(&binary(0x4000, -2, 21, &[1234, 5678, 9012, 3456, 1000])),
        refused("-0.000012345678901234561")
    );
    assert_eq!(
        said(&binary(0, 0, 24, &[12, 0, 0, 0, 0, 0, 1])),
        refused("12.000000000000000000000001")
    );
}
