//! LIKE with patterns that are long or come from a row.
//!
//! Owns matching by wildcards, which gives up once nobody waits for it. Patterns that are short literals are DataFusion's.
//! Called by the planner of operators.

use datafusion::logical_expr::ScalarUDF;
use flowstone_types::{EvalError, EvalErrorKind, SqlType, budget};

use crate::errors::EvalResult;
use crate::udf::{Call, P, R, function, map2, overload};

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let bool = || R::Sql(SqlType::Bool);
    vec![
        function(
            "text_like",
            vec![overload(&[P::Text, P::Text], bool(), |call| {
                like(call, Case::Sensitive)
            })],
        ),
        function(
            "text_ilike",
            vec![overload(&[P::Text, P::Text], bool(), |call| {
                like(call, Case::Insensitive)
            })],
        ),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Sensitive,
    Insensitive,
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// `%`
    Any,
    /// `_`
    One,
    /// A letter, folded if case does not matter.
    Letter(char),
}

/// Steps between two looks whether anybody waits.
const STEPS_PER_CHECK: usize = 4096;

fn like(call: &Call<'_>, case: Case) -> datafusion::error::Result<arrow_array::ArrayRef> {
    let mut known: (String, Vec<Part>) = (String::new(), Vec::new());
    map2(call, |text: &str, pattern: &str| {
        if known.0 != pattern {
            known = (pattern.to_owned(), parts(pattern, case)?);
        }
        matches(text, &known.1, case)
    })
}

fn folded(letter: char, case: Case) -> char {
    if case == Case::Sensitive || letter.is_ascii_lowercase() {
        return letter;
    }
    // Letters that fold to several are compared by the first.
    letter.to_lowercase().next().unwrap_or(letter)
}

fn parts(pattern: &str, case: Case) -> EvalResult<Vec<Part>> {
    budget::reserve(pattern.len().saturating_mul(size_of::<Part>()))?;
    let mut parts = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        let part = match letter {
            '%' if parts.last() == Some(&Part::Any) => continue,
            '%' => Part::Any,
            '_' => Part::One,
            '\\' => match letters.next() {
                Some(letter) => Part::Letter(folded(letter, case)),
                None => {
                    return Err(EvalError::new(
                        EvalErrorKind::Data,
                        "LIKE pattern must not end with escape character",
                    ));
                }
            },
            letter => Part::Letter(folded(letter, case)),
        };
        parts.push(part);
    }
    Ok(parts)
}

/// Whether `parts` match all of `text`. After a failure only the last `%` takes a letter more: what stood before it has matched as early as it can.
fn matches(text: &str, parts: &[Part], case: Case) -> EvalResult<bool> {
    let (mut rest, mut at) = (text.chars(), 0);
    let mut retry = None;
    for step in 0_usize.. {
        if step % STEPS_PER_CHECK == 0 {
            budget::check()?;
        }
        let part = parts.get(at).copied();
        if part == Some(Part::Any) {
            at += 1;
            if at == parts.len() {
                return Ok(true);
            }
            retry = Some((rest.clone(), at));
            continue;
        }
        let mut next = rest.clone();
        let fits = match (next.next(), part) {
            (None, None) => return Ok(true),
            (None, Some(_)) => return Ok(false),
            (Some(_), None) => false,
            (Some(_), Some(Part::One)) => true,
            (Some(letter), Some(Part::Letter(wanted))) => folded(letter, case) == wanted,
            (Some(_), Some(Part::Any)) => false,
        };
        if fits {
            rest = next;
            at += 1;
            continue;
        }
        let Some((from, after)) = &mut retry else {
            return Ok(false);
        };
        from.next();
        rest = from.clone();
        at = *after;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_like(text: &str, pattern: &str) -> bool {
        matches(
            text,
            &parts(pattern, Case::Sensitive).unwrap(),
            Case::Sensitive,
        )
        .unwrap()
    }

    #[test]
    fn wildcards_match_as_in_postgresql() {
        for (text, pattern) in [
            ("", ""),
            ("", "%"),
            ("abc", "abc"),
            ("abc", "a%"),
            ("abc", "%c"),
            ("abc", "%b%"),
            ("abc", "a_c"),
            ("aXbXc", "a%b%c"),
            ("aab", "%ab"),
            ("100%", "100\\%"),
            ("äöü", "_ö%"),
            ("mississippi", "%iss%ip%"),
        ] {
            assert!(is_like(text, pattern), "{text} LIKE {pattern}");
        }
        for (text, pattern) in [
            ("abc", ""),
            ("", "_"),
            ("abc", "a"),
            ("abc", "a_"),
            ("abc", "%b"),
            ("1000", "100\\%"),
            ("abc", "ABC"),
            ("mississippi", "%iss%iss%iss%"),
        ] {
            assert!(!is_like(text, pattern), "{text} LIKE {pattern}");
        }
        let folded = parts("ÄB%", Case::Insensitive).unwrap();
        assert!(matches("äbc", &folded, Case::Insensitive).unwrap());
        assert!(parts("x\\", Case::Sensitive).is_err());
    }

    #[test]
    fn a_hopeless_match_ends_with_its_statement() {
        let text = "a".repeat(100_000);
        let pattern = parts(&("%a".repeat(1000) + "b"), Case::Sensitive).unwrap();
        let budget = flowstone_types::Budget::alone(usize::MAX);
        budget.cancel();
        let outcome = budget.run(|| matches(&text, &pattern, Case::Sensitive));
        assert_eq!(outcome.unwrap_err().kind, EvalErrorKind::Cancelled);
    }
}
