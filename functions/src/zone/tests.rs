use flowstone_types::datetime::{TimeZone, format_timestamptz, parse_timestamptz};

use super::add_interval_in;
use crate::interval::{HOUR, Interval};

fn moved(zone: &str, at: &str, by: Interval) -> String {
    let zone: TimeZone = zone.parse().unwrap();
    let at = parse_timestamptz(at, &zone).unwrap();
    let mut shown = String::new();
    format_timestamptz(add_interval_in(&zone, at, by).unwrap(), &zone, &mut shown);
    shown
}

/// Every expectation is PostgreSQL's.
#[test]
fn days_and_months_follow_the_calendar_of_the_zone_and_hours_pass() {
    let day = Interval {
        days: 1,
        ..Interval::default()
    };
    let month = Interval {
        months: 1,
        ..Interval::default()
    };
    let hours = Interval {
        micros: 24 * HOUR,
        ..Interval::default()
    };
    for (zone, at, by, expected) in [
        (
            "Europe/Berlin",
            "2024-03-30 12:00",
            day,
            "2024-03-31 12:00:00+02",
        ),
        (
            "Europe/Berlin",
            "2024-03-30 12:00",
            hours,
            "2024-03-31 13:00:00+02",
        ),
        (
            "Europe/Berlin",
            "2024-03-30 02:30",
            day,
            "2024-03-31 03:30:00+02",
        ),
        (
            "Europe/Berlin",
            "2024-10-26 02:30",
            day,
            "2024-10-27 02:30:00+01",
        ),
        (
            "Europe/Berlin",
            "2024-02-29 12:00",
            month,
            "2024-03-29 12:00:00+01",
        ),
        (
            "America/New_York",
            "2024-03-09 02:30",
            day,
            "2024-03-10 03:30:00-04",
        ),
        (
            "America/New_York",
            "2024-10-03 00:00",
            month,
            "2024-11-03 00:00:00-04",
        ),
        (
            "Australia/Lord_Howe",
            "2024-04-06 12:00",
            day,
            "2024-04-07 12:00:00+10:30",
        ),
    ] {
        assert_eq!(moved(zone, at, by), expected, "{zone} {at}");
    }
    assert_eq!(moved("UTC", "infinity", day), "infinity");
}
