//! The type that several values have together: PostgreSQL's chapter 10.5.
//!
//! Owns the choice of the type and of its modifier. PostgreSQL forgets the modifiers where they differ; of `numeric` we keep digits enough for all of them, because here the
//! type says how many digits are shown.

use std::fmt;

use flowstone_types::SqlType;

use super::Given;
use super::casts::is_implicit;
use super::category::{category, is_preferred};

/// Two types that values cannot have together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCommonType {
    /// The type so far.
    pub first: SqlType,
    /// The type that does not go with it.
    pub second: SqlType,
}

impl NoCommonType {
    /// Whether the types are of one category: then what fails is the conversion of one value (`42846`), and not the choice of a type (`42804`).
    #[must_use]
    pub fn is_of_one_category(&self) -> bool {
        category(&self.first.without_modifier()) == category(&self.second.without_modifier())
    }
}

/// What comes after the name of the construct in PostgreSQL's message: `types integer and boolean cannot be matched`, or `could not convert type time without time zone to
/// date` where both are of one category.
impl fmt::Display for NoCommonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = (
            self.first.without_modifier(),
            self.second.without_modifier(),
        );
        if self.is_of_one_category() {
            write!(f, "could not convert type {second} to {first}")
        } else {
            write!(f, "types {first} and {second} cannot be matched")
        }
    }
}

impl std::error::Error for NoCommonType {}

/// The type of UNION, CASE, VALUES, ARRAY, GREATEST and the like. Of values that are all unknown: `text`.
///
/// # Errors
/// [`NoCommonType`] if values are of different categories, or one does not become the type of the others by itself.
pub fn common_type(given: &[Given]) -> Result<SqlType, NoCommonType> {
    let known: Vec<&SqlType> = given.iter().filter_map(Given::known).collect();
    let Some(first) = known.first() else {
        return Ok(SqlType::Text);
    };
    let mut chosen = first.without_modifier();
    for next in &known {
        let next = next.without_modifier();
        if next == chosen {
            continue;
        }
        if category(&next) != category(&chosen) {
            return Err(NoCommonType {
                first: chosen,
                second: next,
            });
        }
        if let Some(both) = integers(&chosen, &next) {
            chosen = both;
        } else if !is_preferred(&chosen)
            && is_implicit(&chosen, &next)
            && !is_implicit(&next, &chosen)
        {
            chosen = next;
        }
    }
    for other in &known {
        if !is_implicit(other, &chosen) {
            return Err(NoCommonType {
                first: chosen,
                second: (*other).clone(),
            });
        }
    }
    // A text of no type may have more characters and digits than the others.
    if given.contains(&Given::Unknown) {
        return Ok(chosen);
    }
    Ok(modified(chosen, &known))
}

/// The type of integers with a sign and without one of which neither holds the other: PostgreSQL has none without.
fn integers(left: &SqlType, right: &SqlType) -> Option<SqlType> {
    use SqlType::{Int2, Int4, Int8, Numeric, UInt2, UInt4, UInt8};
    Some(match (left, right) {
        (UInt2, Int2) | (Int2, UInt2) => Int4,
        (UInt4, Int2 | Int4) | (Int2 | Int4, UInt4) => Int8,
        (UInt8, Int2 | Int4 | Int8) | (Int2 | Int4 | Int8, UInt8) => Numeric(None),
        _ => return None,
    })
}

/// The chosen type with the modifier that holds all values.
fn modified(chosen: SqlType, known: &[&SqlType]) -> SqlType {
    if let Some((first, rest)) = known.split_first()
        && rest.iter().all(|other| other == first)
        && first.without_modifier() == chosen
    {
        return (*first).clone();
    }
    match chosen {
        SqlType::Numeric(_) => numeric_of(known),
        SqlType::Array(element) => {
            let items: Vec<SqlType> = known.iter().filter_map(|array| array.element()).collect();
            let items: Vec<&SqlType> = items.iter().collect();
            SqlType::Array(Box::new(modified(*element, &items)))
        }
        other => other,
    }
}

/// A `numeric` with places enough for all of these.
fn numeric_of(known: &[&SqlType]) -> SqlType {
    let mut shape = (0, 0);
    for sql_type in known {
        let Some((whole, fraction)) = decimal_shape(sql_type) else {
            return SqlType::Numeric(None);
        };
        shape = (shape.0.max(whole), shape.1.max(fraction));
    }
    let (whole, fraction) = shape;
    match (u8::try_from(whole + fraction), i8::try_from(fraction)) {
        (Ok(precision @ 1..=38), Ok(scale)) => SqlType::Numeric(Some((precision, scale))),
        _ => SqlType::Numeric(None),
    }
}

/// Digits before and after the point of the values of an exact type; `None` for `numeric` without modifier and for inexact types.
pub(super) fn decimal_shape(sql_type: &SqlType) -> Option<(i32, i32)> {
    Some(match sql_type {
        SqlType::Numeric(Some((precision, scale))) => {
            (i32::from(*precision) - i32::from(*scale), i32::from(*scale))
        }
        SqlType::Int2 | SqlType::UInt2 => (5, 0),
        SqlType::Int4 | SqlType::UInt4 | SqlType::Oid | SqlType::Reg(_) => (10, 0),
        SqlType::Int8 => (19, 0),
        SqlType::UInt8 | SqlType::MzTimestamp => (20, 0),
        _ => return None,
    })
}
