//! Rows of `pg_timezone_names` and `pg_timezone_abbrevs`: the zones and abbreviations that are known, as they are now.

use flowstone_types::datetime::{TimeZone, ZoneRow};

use super::SystemContext;
use super::rows::Rows;

fn now(ctx: &SystemContext<'_>) -> i64 {
    i64::try_from(ctx.runtime.now_ms)
        .ok()
        .and_then(|ms| ms.checked_mul(1_000))
        .unwrap_or(0)
}

/// An offset in milliseconds, as intervals are given to rows.
fn milliseconds(row: &ZoneRow) -> i64 {
    i64::from(row.offset) * 1_000
}

pub(super) fn names(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for row in TimeZone::names_at(now(ctx)) {
        rows.push([
            ("name", row.name.into()),
            ("utc_offset", milliseconds(&row).into()),
            ("is_dst", row.summer.into()),
            ("abbrev", row.abbreviation.into()),
        ]);
    }
}

pub(super) fn abbreviations(ctx: &SystemContext<'_>, rows: &mut Rows) {
    for row in TimeZone::abbreviations_at(now(ctx)) {
        rows.push([
            ("utc_offset", milliseconds(&row).into()),
            ("is_dst", row.summer.into()),
            ("abbrev", row.abbreviation.into()),
        ]);
    }
}
