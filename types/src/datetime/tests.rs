use proptest::prelude::*;

use super::*;

fn date(text: &str) -> String {
    let mut out = String::new();
    format_date(
        parse_date(text).unwrap_or_else(|error| panic!("{error}")),
        &mut out,
    );
    out
}

fn timestamp(text: &str) -> String {
    let mut out = String::new();
    format_timestamp(
        parse_timestamp(text).unwrap_or_else(|error| panic!("{error}")),
        &mut out,
    );
    out
}

fn timestamptz(text: &str, zone: &str) -> String {
    let zone = zone.parse().unwrap();
    let mut out = String::new();
    let value = parse_timestamptz(text, &zone).unwrap_or_else(|error| panic!("{error}"));
    format_timestamptz(value, &zone, &mut out);
    out
}

#[test]
fn dates_are_read_in_many_styles() {
    for (input, expected) in [
        ("2024-02-29", "2024-02-29"),
        ("1999-1-8", "1999-01-08"),
        ("January 8, 1999", "1999-01-08"),
        ("8 Jan 1999", "1999-01-08"),
        ("1999 Jan 8", "1999-01-08"),
        ("1999-Jan-08", "1999-01-08"),
        ("08-Jan-1999", "1999-01-08"),
        ("Mon Jan 8 1999", "1999-01-08"),
        ("1/8/1999", "1999-01-08"),
        ("1/8/99", "1999-01-08"),
        ("19990108", "1999-01-08"),
        ("990108", "1999-01-08"),
        ("1999.008", "1999-01-08"),
        ("0044-03-15 BC", "0044-03-15 BC"),
        ("0001-01-01 BC", "0001-01-01 BC"),
        ("4714-11-24 BC", "4714-11-24 BC"),
        ("5874897-12-31", "5874897-12-31"),
        ("2024-02-29 23:59:59", "2024-02-29"),
        ("infinity", "infinity"),
        ("-Infinity", "-infinity"),
        ("epoch", "1970-01-01"),
    ] {
        assert_eq!(date(input), expected, "{input}");
    }
    assert_eq!(parse_date("1970-01-01"), Ok(0));
    assert_eq!(parse_date("2000-01-01"), Ok(POSTGRES_EPOCH_DAYS));
    for bad in [
        "2023-02-29",
        "2024-13-01",
        "2024-00-01",
        "0000-01-01",
        "5874898-01-01",
        "4714-11-23 BC",
        "2024-01-32",
    ] {
        assert!(
            matches!(parse_date(bad), Err(TypeError::OutOfRange { .. })),
            "{bad}"
        );
    }
    for bad in [
        "",
        "x",
        "2024",
        "10:00",
        "2024-01",
        "Jan",
        "2024-01-01 2024-01-02",
        "now",
    ] {
        assert!(
            matches!(parse_date(bad), Err(TypeError::InvalidText { .. })),
            "{bad}"
        );
    }
}

#[test]
fn times_are_read_and_written() {
    for (input, expected) in [
        ("04:05:06.789", "04:05:06.789"),
        ("04:05", "04:05:00"),
        ("04:05 AM", "04:05:00"),
        ("04:05PM", "16:05:00"),
        ("12:00 am", "00:00:00"),
        ("24:00:00", "24:00:00"),
        ("23:59:60", "24:00:00"),
        ("allballs", "00:00:00"),
        ("2024-01-01 10:11:12", "10:11:12"),
        ("00:00:00.0000005", "00:00:00.000001"),
    ] {
        let mut out = String::new();
        format_time(
            parse_time(input).unwrap_or_else(|error| panic!("{error}")),
            &mut out,
        );
        assert_eq!(out, expected, "{input}");
    }
    for bad in ["24:00:01", "25:00", "10:60", "10:11:61", "13:00 pm"] {
        assert!(
            matches!(parse_time(bad), Err(TypeError::OutOfRange { .. })),
            "{bad}"
        );
    }
    assert!(matches!(
        parse_time("2024-01-01"),
        Err(TypeError::InvalidText { .. })
    ));
}

#[test]
fn time_stamps_are_read_in_many_styles() {
    for (input, expected) in [
        ("2024-02-29 10:11:12.5", "2024-02-29 10:11:12.5"),
        ("2024-02-29T10:11:12Z", "2024-02-29 10:11:12"),
        ("2024-02-29 10:11:12+05:30", "2024-02-29 10:11:12"),
        ("2024-02-29", "2024-02-29 00:00:00"),
        ("2024-02-29 10:11", "2024-02-29 10:11:00"),
        ("20240229T101112", "2024-02-29 10:11:12"),
        ("20240229 101112", "2024-02-29 10:11:12"),
        ("Feb 29 10:11:12 2024", "2024-02-29 10:11:12"),
        ("2024-12-31 24:00:00", "2025-01-01 00:00:00"),
        ("0044-03-15 12:00:00 BC", "0044-03-15 12:00:00 BC"),
        ("infinity", "infinity"),
        ("-infinity", "-infinity"),
        ("1969-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999"),
        ("294246-12-31 23:59:59", "294246-12-31 23:59:59"),
    ] {
        assert_eq!(timestamp(input), expected, "{input}");
    }
    assert!(matches!(
        parse_timestamp("294276-12-31 23:59:59"),
        Err(TypeError::OutOfRange { .. })
    ));
    assert!(matches!(
        parse_timestamp("2024-01-01 10:11:12 Nowhere/Land"),
        Err(TypeError::InvalidText { .. })
    ));
}

#[test]
fn zones_of_texts_and_sessions_decide_the_instant() {
    for (input, zone, expected) in [
        ("2024-02-29 10:00:00", "UTC", "2024-02-29 10:00:00+00"),
        (
            "2024-02-29 10:00:00",
            "Europe/Berlin",
            "2024-02-29 10:00:00+01",
        ),
        (
            "2024-07-01 10:00:00Z",
            "europe/berlin",
            "2024-07-01 12:00:00+02",
        ),
        (
            "2024-07-01 10:00:00 America/New_York",
            "UTC",
            "2024-07-01 14:00:00+00",
        ),
        ("2024-07-01 10:00:00 PST", "UTC", "2024-07-01 18:00:00+00"),
        (
            "2024-07-01 10:00:00-0330",
            "5.5",
            "2024-07-01 19:00:00+05:30",
        ),
        ("2024-07-01 10:00+02", "UTC", "2024-07-01 08:00:00+00"),
        (
            "1890-01-01 00:00:00",
            "Europe/Berlin",
            "1890-01-01 00:00:00+00:53:28",
        ),
        (
            "0044-03-15 00:00:00+00 BC",
            "UTC",
            "0044-03-15 00:00:00+00 BC",
        ),
        // Clocks skip 2:30; the offset before the gap counts.
        (
            "2024-03-31 02:30:00",
            "Europe/Berlin",
            "2024-03-31 03:30:00+02",
        ),
        // Clocks show 2:30 twice; the later one counts.
        (
            "2024-10-27 02:30:00",
            "Europe/Berlin",
            "2024-10-27 02:30:00+01",
        ),
        ("infinity", "Europe/Berlin", "infinity"),
    ] {
        assert_eq!(timestamptz(input, zone), expected, "{input}");
    }
    assert!("Mars/Base".parse::<TimeZone>().is_err());
    assert_eq!(
        "europe/berlin".parse::<TimeZone>().unwrap().to_string(),
        "Europe/Berlin"
    );
    assert_eq!("-8".parse::<TimeZone>().unwrap().to_string(), "<-08>+08");
}

#[test]
fn binary_values_count_from_2000_and_keep_infinity() {
    assert_eq!(date_to_postgres(POSTGRES_EPOCH_DAYS), Ok(0));
    assert_eq!(timestamp_to_postgres(POSTGRES_EPOCH_MICROS), Ok(0));
    assert_eq!(date_from_postgres(i32::MAX), Ok(DATE_INFINITY));
    assert_eq!(
        timestamp_from_postgres(i64::MIN),
        Ok(TIMESTAMP_NEGATIVE_INFINITY)
    );
    assert!(date_from_postgres(i32::MAX - 1).is_err() && date_from_postgres(i32::MIN + 1).is_err());
    assert!(timestamp_from_postgres(i64::MAX - 1).is_err());
    assert!(timestamp_from_postgres(i64::MIN + 1).is_err());
}

proptest! {
    #[test]
    fn every_day_has_one_date(days in -2_440_588_i32..2_145_042_905) {
        let (year, month, day) = civil_from_days(i64::from(days));
        prop_assert_eq!(days_from_civil(year, month, day), Some(days));
        let mut text = String::new();
        format_date(days, &mut text);
        prop_assert_eq!(parse_date(&text), Ok(days), "{}", text);
        prop_assert_eq!(date_from_postgres(date_to_postgres(days).unwrap()), Ok(days));
    }

    #[test]
    fn every_instant_survives_text_in_any_zone(
        micros in -210_000_000_000_000_000_i64..i64::MAX - 86_400_000_000,
        zone in prop_oneof![
            Just(TimeZone::UTC),
            (-50_000_i32..50_000).prop_map(TimeZone::Fixed),
            Just(TimeZone::Named(chrono_tz::Europe::Berlin)),
            Just(TimeZone::Named(chrono_tz::America::St_Johns)),
        ],
    ) {
        let mut text = String::new();
        format_timestamptz(micros, &zone, &mut text);
        prop_assert_eq!(parse_timestamptz(&text, &TimeZone::UTC), Ok(micros), "{}", text);
        let mut text = String::new();
        format_timestamp(micros, &mut text);
        prop_assert_eq!(parse_timestamp(&text), Ok(micros), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-+0-9:./TZ janbcpm,]{0,30}") {
        let _ = parse_date(&text);
        let _ = parse_time(&text);
        let _ = parse_timestamptz(&text, &TimeZone::UTC);
    }
}

/// Every expectation is PostgreSQL's, for 2024-07-01 12:00 UTC.
#[test]
fn names_of_zones_are_read_as_at_time_zone_reads_them() {
    let at = parse_timestamptz("2024-07-01 12:00:00+00", &TimeZone::UTC).unwrap();
    for (name, expected) in [
        ("UTC+3", "2024-07-01 09:00:00"),
        ("<+03>-3", "2024-07-01 15:00:00"),
        ("+03:30", "2024-07-01 08:30:00"),
        ("3", "2024-07-01 09:00:00"),
        ("PST", "2024-07-01 04:00:00"),
        ("msk", "2024-07-01 15:00:00"),
        ("ART", "2024-07-01 09:00:00"),
        ("EST5EDT", "2024-07-01 08:00:00"),
        ("FOO5BAR", "2024-07-01 08:00:00"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2024-07-01 14:00:00"),
        ("UTC+167", "2024-06-24 13:00:00"),
        ("europe/berlin", "2024-07-01 14:00:00"),
    ] {
        let zone = TimeZone::at(name).unwrap();
        let mut shown = String::new();
        format_timestamp(zone.to_local(at).unwrap(), &mut shown);
        assert_eq!(shown, expected, "{name}");
        assert_eq!(zone.to_utc(zone.to_local(at).unwrap()), Some(at), "{name}");
    }
    for name in ["", "nonsense", "UTC+168", "Mars/Base", "<+03"] {
        assert!(TimeZone::at(name).is_err(), "{name}");
    }
}

#[test]
fn a_setting_counts_hours_east_and_knows_no_abbreviations() {
    for (text, shown) in [
        ("3", "<+03>-03"),
        ("-3.5", "<-03:30>+03:30"),
        ("100", "<+100>-100"),
        ("+03:30", "+03:30"),
        ("utc+3", "UTC+3"),
        ("est", "EST"),
        ("gmt", "GMT"),
        ("utc", "UTC"),
        ("foo5bar", "FOO5BAR"),
        ("europe/berlin", "Europe/Berlin"),
    ] {
        let zone: TimeZone = text.parse().unwrap();
        assert_eq!(zone.to_string(), shown, "{text}");
        assert_eq!(
            zone.to_string().parse::<TimeZone>().unwrap().offset_at(0),
            zone.offset_at(0),
            "{text}"
        );
    }
    for text in ["200", "pst", "z", "abc", "", "nope", "inf"] {
        assert!(text.parse::<TimeZone>().is_err(), "{text}");
    }
}

/// Around each change of clocks in these zones, POSIX rules and the database agree, also after the years that the database lists.
#[test]
fn rules_of_a_posix_zone_change_clocks_as_the_database_does() {
    for (rules, named) in [
        ("CET-1CEST,M3.5.0,M10.5.0/3", "Europe/Berlin"),
        ("EST5EDT,M3.2.0,M11.1.0", "America/New_York"),
        ("AEST-10AEDT,M10.1.0,M4.1.0/3", "Australia/Sydney"),
        ("NST3:30NDT,M3.2.0,M11.1.0", "America/St_Johns"),
    ] {
        let (rules, named): (TimeZone, TimeZone) = (rules.parse().unwrap(), named.parse().unwrap());
        for year in [2012, 2023, 2024, 2025, 2099, 2100, 2101, 2600, 200_000] {
            let first = i64::from(days_from_civil(year, 1, 1).unwrap()) * MICROS_PER_DAY;
            for half_hour in 0..366 * 48 {
                let at = first + half_hour * MICROS_PER_DAY / 48;
                assert_eq!(rules.offset_at(at), named.offset_at(at), "{named} {at}");
                assert_eq!(rules.to_utc(at), named.to_utc(at), "{named} {at}");
            }
        }
    }
}
