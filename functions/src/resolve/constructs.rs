//! What looks like a call and is no function of a signature: constructs whose arguments must come to one type (COALESCE, GREATEST, LEAST, NULLIF, and the function
//! behind ARRAY), and casts that are written as calls (`date(x)`).

use flowstone_types::SqlType;

use super::built::Built;
use super::choose::{Choice, choose_operator};
use super::meaning::Meaning;
use super::signature::{Fit, Param};
use super::{CallError, Called, Given, cast_context, common_type, operators};

/// Whether blanks at the end are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blanks {
    /// Values are handed on with them.
    Kept,
    /// Values are compared without them.
    Unseen,
}

/// Whether statements may call it.
pub(super) fn is_callable(name: &str) -> bool {
    matches!(name, "coalesce" | "greatest" | "least" | "nullif") || type_named(name).is_some()
}

/// The call of a construct; `None` if the name is none of theirs.
pub(super) fn resolve(name: &str, given: &[Given]) -> Option<Result<Built, CallError>> {
    match name {
        "coalesce" => Some(unified(name, given, Blanks::Kept)),
        "greatest" | "least" => Some(unified(name, given, Blanks::Unseen)),
        "make_array" => Some(array(given)),
        "nullif" => Some(nullif(given)),
        _ => cast(name, given).map(Ok),
    }
}

/// The type that a cast is written with as a call: its name in `pg_type`.
fn type_named(name: &str) -> Option<SqlType> {
    Some(match name {
        "bool" => SqlType::Bool,
        "int2" => SqlType::Int2,
        "int4" => SqlType::Int4,
        "int8" => SqlType::Int8,
        "uint2" => SqlType::UInt2,
        "uint4" => SqlType::UInt4,
        "uint8" => SqlType::UInt8,
        "float4" => SqlType::Float4,
        "float8" => SqlType::Float8,
        "numeric" => SqlType::Numeric(None),
        "text" => SqlType::Text,
        "varchar" => SqlType::VarChar(None),
        "bpchar" => SqlType::Char(0),
        "name" => SqlType::Name,
        "bytea" => SqlType::Bytea,
        "jsonb" => SqlType::Jsonb,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::TimestampTz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "oid" => SqlType::Oid,
        "mz_timestamp" => SqlType::MzTimestamp,
        _ => return None,
    })
}

/// A cast that is written as a call; `None` if there is no such cast.
fn cast(name: &str, given: &[Given]) -> Option<Built> {
    let to = type_named(name)?;
    let [value] = given else {
        return None;
    };
    let (meaning, argument) = match value.known() {
        None => (Meaning::Value, to.clone()),
        Some(from) => {
            cast_context(from, &to)?;
            (Meaning::Cast(to.clone()), from.clone())
        }
    };
    Some(Built {
        meaning,
        arguments: vec![argument],
        is_blind: false,
        to: Some(to),
    })
}

fn function(name: &str) -> Result<Meaning, CallError> {
    crate::registry()
        .scalar(name)
        .map(Meaning::Function)
        .ok_or_else(|| CallError::broken(format!("no function {name}")))
}

/// The type that all arguments have together.
fn together(construct: &str, given: &[Given]) -> Result<SqlType, CallError> {
    if given.is_empty() {
        return Err(CallError::WrongCount {
            construct: construct.to_owned(),
        });
    }
    common_type(given).map_err(|types| CallError::Mismatch {
        construct: construct.to_owned(),
        types,
    })
}

fn unified(name: &str, given: &[Given], blanks: Blanks) -> Result<Built, CallError> {
    let common = together(&name.to_uppercase(), given)?;
    let result = match (&common, blanks) {
        (SqlType::Char(1..), _) | (_, Blanks::Kept) => common.clone(),
        (_, Blanks::Unseen) => common.without_padding(),
    };
    Ok(Built {
        meaning: function(name)?,
        arguments: vec![common; given.len()],
        is_blind: blanks == Blanks::Unseen,
        to: Some(result),
    })
}

fn array(given: &[Given]) -> Result<Built, CallError> {
    let common = together("ARRAY", given)?;
    Ok(Built {
        meaning: function("make_array")?,
        to: Some(SqlType::Array(Box::new(common.clone()))),
        arguments: vec![common; given.len()],
        is_blind: false,
    })
}

/// NULLIF compares with `=`, and is of the type of that operator's left side.
fn nullif(given: &[Given]) -> Result<Built, CallError> {
    let [left, right] = given else {
        return Err(CallError::WrongCount {
            construct: "NULLIF".to_owned(),
        });
    };
    let called = || Called::Operator {
        symbol: "=".to_owned(),
        left: Some(left.clone()),
        right: right.clone(),
    };
    let signature = match choose_operator(operators::binary("="), given) {
        Choice::One(signature) => signature,
        Choice::Nothing => return Err(CallError::Undefined(called())),
        Choice::Several => return Err(CallError::Ambiguous(called())),
    };
    let compared = Built::of(signature, given)?.arguments;
    let meaning = function("nullif")?;
    if signature.fit == Fit::Padded {
        let result = match left.known() {
            Some(padded @ SqlType::Char(1..)) => padded.clone(),
            _ => SqlType::Text,
        };
        return Ok(Built {
            meaning,
            arguments: compared,
            is_blind: true,
            to: Some(result),
        });
    }
    let both: Vec<Given> = compared.into_iter().map(Given::Of).collect();
    let common = together("NULLIF", &both)?;
    let result = match (signature.params.first(), left.known()) {
        (Some(Param::Of(own)), Some(known)) if known.without_modifier() == *own => known.clone(),
        (Some(Param::Of(SqlType::Numeric(_))), _) => common.clone(),
        (Some(Param::Of(own)), _) => own.clone(),
        _ => common.clone(),
    };
    Ok(Built {
        meaning,
        arguments: vec![common; 2],
        is_blind: false,
        to: Some(result),
    })
}
