use proptest::prelude::*;

use super::*;

fn shown(text: &str) -> String {
    let mut out = String::new();
    format_interval(
        parse_interval(text).unwrap_or_else(|error| panic!("{error}")),
        &mut out,
    );
    out
}

#[test]
fn every_notation_is_read() {
    let cases = [
        ("1 day 02:03:04.5", "1 day 02:03:04.5"),
        ("1 year 2 mons", "1 year 2 mons"),
        ("P1Y2M3DT4H5M6S", "1 year 2 mons 3 days 04:05:06"),
        ("P0001-02-03T04:05:06", "1 year 2 mons 3 days 04:05:06"),
        ("P2W", "14 days"),
        ("PT-1.5S", "-00:00:01.5"),
        ("-P1D", "-1 days"),
        ("7 days", "7 days"),
        ("-1 day ago", "1 day"),
        ("1 hour ago", "-01:00:00"),
        ("@ 1 minute 2 secs", "00:01:02"),
        ("1h", "01:00:00"),
        ("5", "00:00:05"),
        ("1.5 years", "1 year 6 mons"),
        ("1.5 months", "1 mon 15 days"),
        ("0.5 day", "12:00:00"),
        ("1.5 weeks", "10 days 12:00:00"),
        ("1 2:03:04", "1 day 02:03:04"),
        ("1-2", "1 year 2 mons"),
        ("-1-2", "-1 years -2 mons"),
        ("-02:03", "-02:03:00"),
        ("01:02.5", "00:01:02.5"),
        ("-1 day +02:00", "-1 days +02:00:00"),
        ("1 mon -1 day", "1 mon -1 days"),
        ("1 millennium 1 century 1 decade", "1110 years"),
        ("1500 ms 1 us", "00:00:01.500001"),
        ("100:00:00", "100:00:00"),
        ("1 day, 2 hours", "1 day 02:00:00"),
        ("0", "00:00:00"),
        ("0 days", "00:00:00"),
        ("14 mons", "1 year 2 mons"),
        ("0.0000005 s", "00:00:00.000001"),
    ];
    for (input, expected) in cases {
        assert_eq!(shown(input), expected, "{input}");
    }
    let days = parse_interval_as("5", Unit::Day).unwrap();
    assert_eq!((days.days, days.nanoseconds), (5, 0));
}

#[test]
fn what_is_no_interval_is_refused() {
    for bad in [
        "",
        " ",
        "day",
        "1 dog",
        "P",
        "PT",
        "P1",
        "1:2:3:4",
        "1:60",
        "ago",
        "1 day ago ago",
        "1-13",
        "1:x",
        "--1 day",
        "1..2 days",
    ] {
        assert!(
            matches!(parse_interval(bad), Err(TypeError::InvalidText { .. })),
            "{bad}"
        );
    }
    for large in [
        "3000000000 days",
        "178956971 years",
        "300 years 3000000 hours",
    ] {
        assert!(
            matches!(parse_interval(large), Err(TypeError::OutOfRange { .. })),
            "{large}"
        );
    }
}

#[test]
fn the_order_takes_a_month_for_thirty_days() {
    let key = |text: &str| order_key(parse_interval(text).unwrap());
    assert_eq!(key("1 month"), key("30 days"));
    assert_eq!(key("1 day"), key("24 hours"));
    assert!(key("1 year") < key("361 days"));
}

proptest! {
    #[test]
    fn intervals_survive_text_and_binary(months in any::<i32>(), days in any::<i32>(), micros in -(i64::MAX / 1_000)..i64::MAX / 1_000) {
        let value = IntervalMonthDayNano { months, days, nanoseconds: micros * 1_000 };
        let mut text = String::new();
        format_interval(value, &mut text);
        prop_assert_eq!(parse_interval(&text).unwrap(), value, "{}", text);
        let mut bytes = Vec::new();
        interval_to_binary(value, &mut bytes);
        prop_assert_eq!(interval_from_binary(&bytes).unwrap(), value);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-+0-9.: PTYMDHSWdayshourgo@,]{0,24}") {
        let _ = parse_interval(&text);
    }
}
