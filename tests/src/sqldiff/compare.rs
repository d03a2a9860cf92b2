//! Whether two servers say the same about a statement.
//!
//! Must not know how the servers were asked. Known deviations are no matter of this place but of `report`.

use std::num::FpCategory;

use super::expression::Notes;
use super::profile::Profile;
use super::server::{CANCELED, Outcome};
use super::statement::{Form, Statement};
use crate::answer::{Answer, CONNECTION, Row, TIMEOUT};

/// OIDs of types whose values can be written in several ways.
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const NUMERIC: u32 = 1700;
const NUMERICS: u32 = 1231;
const INTERVAL: u32 = 1186;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;

/// A kind of disagreement, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The node died, or lost the connection.
    Death,
    /// The node did not answer in time.
    Hang,
    /// The node says that it has a defect.
    Internal,
    /// Other rows.
    Rows,
    /// A view has other rows than its query has.
    View,
    /// A table has other rows after a change.
    State,
    /// Rows where PostgreSQL refuses.
    Accepted,
    /// An error where PostgreSQL answers; `0A000` is none.
    Refused,
    /// Another SQLSTATE.
    Code,
    /// The rows in another order.
    Order,
    /// Other types of columns or parameters.
    Types,
    /// Values that are equal but written in another way.
    Written,
    /// Other modifiers of types.
    Modifiers,
    /// Other names of columns.
    Names,
}

/// A disagreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its kind.
    pub fault: Fault,
    /// The SQLSTATEs of both, as far as they matter: a smaller statement with others has another fault.
    pub codes: String,
    /// What both say.
    pub description: String,
}

/// What a comparison finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Same,
    /// The node says that it cannot do that.
    Unsupported(String),
    /// A disagreement.
    Different(Difference),
}

/// What is compared, and how exactly.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whether rows have an order.
    pub is_ordered: bool,
    /// Whether values that are equal are the same, however they are written.
    pub is_lenient: bool,
    /// Whether any error of evaluation stands for any other.
    pub any_evaluation_error: bool,
    /// Whether names of columns matter.
    pub names: bool,
    /// Whether modifiers of types matter.
    pub modifiers: bool,
}

impl Rules {
    /// Those of a statement.
    #[must_use]
    pub fn of(statement: &Statement, profile: Profile) -> Self {
        let Notes {
            inexact,
            operations,
            merged,
        } = statement.notes;
        Self {
            is_ordered: statement.is_ordered,
            is_lenient: merged || inexact || !profile.is_full(),
            any_evaluation_error: operations > 1 && statement.form != Form::Invalid,
            names: true,
            modifiers: profile.is_full(),
        }
    }

    /// Those of a view that has the statement as its query.
    #[must_use]
    pub fn of_view(self) -> Self {
        Self {
            is_ordered: false,
            names: false,
            modifiers: false,
            ..self
        }
    }
}

/// Compares what the node says with what PostgreSQL says.
#[must_use]
pub fn compare(node: &Outcome, postgres: &Outcome, rules: Rules) -> Verdict {
    let different = |fault| {
        let shown = |outcome: &Outcome| outcome.code().unwrap_or("rows").to_owned();
        Verdict::Different(Difference {
            fault,
            codes: format!("{} {}", shown(node), shown(postgres)),
            description: format!(
                "node: {}\nPostgreSQL: {}",
                describe(node),
                describe(postgres)
            ),
        })
    };
    match (&node.answer, &postgres.answer) {
        // A statement that PostgreSQL does not end either is no matter of the node.
        (_, Answer::Error { code, .. }) if code == TIMEOUT || code == CANCELED => Verdict::Same,
        (Answer::Error { code, .. }, _) if code == CONNECTION => different(Fault::Death),
        (Answer::Error { code, .. }, _) if code == TIMEOUT => different(Fault::Hang),
        (Answer::Error { code, .. }, _) if code.starts_with("XX") => different(Fault::Internal),
        (Answer::Error { code, message }, other) if code == "0A000" => match other {
            Answer::Error { code, .. } if code == "0A000" => Verdict::Same,
            _ => Verdict::Unsupported(message.clone()),
        },
        (Answer::Error { code: one, .. }, Answer::Error { code: other, .. }) => {
            let both = node.answer.is_evaluation_error() && postgres.answer.is_evaluation_error();
            if one == other || (both && rules.any_evaluation_error) {
                Verdict::Same
            } else {
                different(Fault::Code)
            }
        }
        (Answer::Error { .. }, Answer::Rows(_)) => different(Fault::Refused),
        (Answer::Rows(_), Answer::Error { .. }) => different(Fault::Accepted),
        (Answer::Rows(ours), Answer::Rows(theirs)) => {
            match of_rows(ours, theirs, node, postgres, rules) {
                Some(fault) => different(fault),
                None => Verdict::Same,
            }
        }
    }
}

fn of_rows(
    ours: &[Row],
    theirs: &[Row],
    node: &Outcome,
    postgres: &Outcome,
    rules: Rules,
) -> Option<Fault> {
    // Values of parameters mean nothing to a server that takes them for another type.
    if node.parameters != postgres.parameters {
        return Some(Fault::Types);
    }
    let oids: Vec<u32> = postgres.columns.iter().map(|column| column.oid).collect();
    let canonical =
        |rows: &[Row]| -> Vec<Row> { rows.iter().map(|row| canonical_row(row, &oids)).collect() };
    let (ours_alike, theirs_alike) = (canonical(ours), canonical(theirs));
    if sorted(&ours_alike) != sorted(&theirs_alike) {
        return Some(Fault::Rows);
    }
    if rules.is_ordered && ours_alike != theirs_alike {
        return Some(Fault::Order);
    }
    let same = |what: fn(&super::server::Described) -> u32| {
        node.columns.len() == postgres.columns.len()
            && node
                .columns
                .iter()
                .zip(&postgres.columns)
                .all(|(one, other)| what(one) == what(other))
    };
    // Where modifiers do not matter, neither does whether a text may have one.
    let is_same_type = if rules.modifiers {
        same(|column| column.oid)
    } else {
        same(|column| {
            if column.oid == VARCHAR {
                TEXT
            } else {
                column.oid
            }
        })
    };
    if !is_same_type {
        return Some(Fault::Types);
    }
    if !rules.is_lenient && sorted(ours) != sorted(theirs) {
        return Some(Fault::Written);
    }
    let names = |outcome: &Outcome| -> Vec<String> {
        let columns = outcome.columns.iter();
        columns.map(|column| column.name.clone()).collect()
    };
    if rules.names && names(node) != names(postgres) {
        return Some(Fault::Names);
    }
    let modifiers = |outcome: &Outcome| -> Vec<i32> {
        let columns = outcome.columns.iter();
        columns.map(|column| column.modifier).collect()
    };
    (rules.modifiers && modifiers(node) != modifiers(postgres)).then_some(Fault::Modifiers)
}

fn sorted(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    rows.sort();
    rows
}

/// A row whose values are written in one way each. What is not described is left as it is.
fn canonical_row(row: &Row, oids: &[u32]) -> Row {
    row.iter()
        .enumerate()
        .map(|(place, value)| {
            let oid = oids.get(place).copied().unwrap_or_default();
            value.as_deref().map(|text| canonical(text, oid))
        })
        .collect()
}

/// A value written in one way: floats and numerics with ten digits, intervals as a number, and no zero with a sign.
fn canonical(text: &str, oid: u32) -> String {
    match oid {
        FLOAT4 | FLOAT8 | NUMERIC => match text.parse::<f64>() {
            Ok(number) if matches!(number.classify(), FpCategory::Zero) => "0".to_owned(),
            Ok(number) if number.is_finite() && oid == FLOAT4 => format!("{number:.5e}"),
            Ok(number) if number.is_finite() => format!("{number:.9e}"),
            _ => text.to_owned(),
        },
        NUMERICS => {
            let inner = text.trim_matches(['{', '}']);
            let items = inner.split(',').map(|item| canonical(item, NUMERIC));
            items.collect::<Vec<_>>().join(",")
        }
        INTERVAL => microseconds(text).map_or_else(|| text.to_owned(), |number| number.to_string()),
        _ => text.to_owned(),
    }
}

/// How long an interval is that PostgreSQL writes, as it compares them: months of 30 days, days of 24 hours.
fn microseconds(text: &str) -> Option<i128> {
    const DAY: i128 = 86_400_000_000;
    let mut total = 0;
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            total += clock(word)?;
            continue;
        }
        let number: i128 = word.parse().ok()?;
        total += number
            * match words.next()?.trim_end_matches('s') {
                "year" => 360 * DAY,
                "mon" => 30 * DAY,
                "day" => DAY,
                _ => return None,
            };
    }
    Some(total)
}

/// `-04:05:06.789` in microseconds.
fn clock(text: &str) -> Option<i128> {
    let digits = text.trim_start_matches(['-', '+']);
    let mut parts = digits.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let number = |text: &str| text.parse::<i128>().ok();
    let whole = (number(hours)? * 60 + number(minutes)?) * 60 + number(seconds)?;
    let total = whole * 1_000_000 + number(&format!("{fraction:0<6}"))?;
    Some(if text.starts_with('-') { -total } else { total })
}

fn describe(outcome: &Outcome) -> String {
    let columns: Vec<String> = outcome
        .columns
        .iter()
        .map(|column| format!("{} {}({})", column.name, column.oid, column.modifier))
        .collect();
    let parameters = if outcome.parameters.is_empty() {
        String::new()
    } else {
        format!("parameters {:?}; ", outcome.parameters)
    };
    match &outcome.answer {
        Answer::Rows(_) => format!(
            "{parameters}{}: {}",
            columns.join(", "),
            outcome.answer.describe()
        ),
        Answer::Error { .. } => outcome.answer.describe(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqldiff::server::Described;

    fn rows(values: &[&str], oid: u32) -> Outcome {
        Outcome {
            answer: Answer::Rows(
                values
                    .iter()
                    .map(|text| vec![Some((*text).to_owned())])
                    .collect(),
            ),
            columns: vec![Described {
                name: "c0".to_owned(),
                oid,
                modifier: -1,
            }],
            parameters: Vec::new(),
        }
    }

    fn error(code: &str) -> Outcome {
        Outcome {
            answer: Answer::Error {
                code: code.to_owned(),
                message: String::new(),
            },
            columns: Vec::new(),
            parameters: Vec::new(),
        }
    }

    const EXACT: Rules = Rules {
        is_ordered: true,
        is_lenient: false,
        any_evaluation_error: false,
        names: true,
        modifiers: true,
    };

    fn fault(node: &Outcome, postgres: &Outcome, rules: Rules) -> Option<Fault> {
        match compare(node, postgres, rules) {
            Verdict::Different(difference) => Some(difference.fault),
            Verdict::Same | Verdict::Unsupported(_) => None,
        }
    }

    #[test]
    fn each_kind_of_disagreement_is_told_from_the_others() {
        let (one, other) = (rows(&["1", "2"], 23), rows(&["2", "1"], 23));
        assert_eq!(fault(&one, &one, EXACT), None);
        assert_eq!(fault(&one, &other, EXACT), Some(Fault::Order));
        let unordered = EXACT.of_view();
        assert_eq!(fault(&one, &other, unordered), None);
        assert_eq!(fault(&one, &rows(&["1"], 23), EXACT), Some(Fault::Rows));
        assert_eq!(
            fault(&one, &rows(&["1", "2"], 20), EXACT),
            Some(Fault::Types)
        );
        assert_eq!(fault(&error("42883"), &one, EXACT), Some(Fault::Refused));
        assert_eq!(fault(&error("0A000"), &one, EXACT), None);
        assert_eq!(fault(&one, &error("22012"), EXACT), Some(Fault::Accepted));
        assert_eq!(
            fault(&error("22003"), &error("22012"), EXACT),
            Some(Fault::Code)
        );
        assert_eq!(
            fault(&error("XX000"), &error("XX000"), EXACT),
            Some(Fault::Internal)
        );
        assert_eq!(fault(&error(TIMEOUT), &one, EXACT), Some(Fault::Hang));
        assert_eq!(fault(&error(CONNECTION), &one, EXACT), Some(Fault::Death));
    }

    #[test]
    fn equal_values_may_be_written_in_several_ways() {
        for (one, other, oid) in [
            ("1.50", "1.5", NUMERIC),
            ("-0", "0", FLOAT8),
            ("1 day", "24:00:00", INTERVAL),
            (
                "1 year 2 mons 3 days 04:05:06.789",
                "14 mons 3 days 04:05:06.789",
                INTERVAL,
            ),
            ("-1 mons +5 days", "-25 days", INTERVAL),
            ("{1.0,NULL}", "{1,NULL}", NUMERICS),
        ] {
            let (one, other) = (rows(&[one], oid), rows(&[other], oid));
            assert_eq!(fault(&one, &other, EXACT), Some(Fault::Written));
            let lenient = Rules {
                is_lenient: true,
                ..EXACT
            };
            assert_eq!(fault(&one, &other, lenient), None);
        }
    }
}
