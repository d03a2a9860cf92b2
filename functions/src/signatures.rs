//! What the functions look like from outside: names, parameters, results, and the OIDs by which PostgreSQL's catalog knows them.
//!
//! Owns the rows of `pg_proc` as values. Must not know the catalog's relations. Called by `sql` for `pg_proc`, and by the functions that describe others.
//!
//! Invariants. An OID belongs to a name with its parameters and never changes: PostgreSQL's where clients know it by number, else a hash of both.
//! All others come from the tables by which calls are resolved (`resolve`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use flowstone_types::SqlType;

use crate::described::{FunctionKind, FunctionSignature, pseudo};

/// The first OID that a hash gives.
const FIRST_HASHED: u32 = 1 << 29;

fn fixed(
    oid: u32,
    kind: FunctionKind,
    name: &str,
    arguments: Vec<u32>,
    result: u32,
) -> FunctionSignature {
    FunctionSignature {
        oid,
        name: name.to_owned(),
        kind,
        arguments,
        variadic: false,
        result,
        returns_set: false,
    }
}

/// Functions that clients look up by PostgreSQL's OID.
fn input_and_output() -> Vec<FunctionSignature> {
    use pseudo::{ANY_ARRAY, CSTRING, INTERNAL};
    let oid = SqlType::Oid.oid();
    let int4 = SqlType::Int4.oid();
    let bytea = SqlType::Bytea.oid();
    let scalar = FunctionKind::Scalar;
    vec![
        fixed(750, scalar, "array_in", vec![CSTRING, oid, int4], ANY_ARRAY),
        fixed(751, scalar, "array_out", vec![ANY_ARRAY], CSTRING),
        fixed(
            2400,
            scalar,
            "array_recv",
            vec![INTERNAL, oid, int4],
            ANY_ARRAY,
        ),
        fixed(2401, scalar, "array_send", vec![ANY_ARRAY], bytea),
    ]
}

/// Functions that return sets of records.
fn of_records() -> Vec<FunctionSignature> {
    [
        (3208, "jsonb_each"),
        (3932, "jsonb_each_text"),
        (3958, "json_each"),
        (3959, "json_each_text"),
    ]
    .map(|(oid, name)| {
        let argument = vec![SqlType::Jsonb.oid()];
        let scalar = FunctionKind::Scalar;
        FunctionSignature {
            returns_set: true,
            ..fixed(oid, scalar, name, argument, pseudo::RECORD)
        }
    })
    .into()
}

/// The aggregates that everybody uses, with PostgreSQL's OIDs.
fn aggregates() -> Vec<FunctionSignature> {
    let aggregate = FunctionKind::Aggregate;
    let [
        int2,
        int4,
        int8,
        float4,
        float8,
        numeric,
        interval,
        text,
        boolean,
        jsonb,
    ] = [
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::Numeric(None),
        SqlType::Interval,
        SqlType::Text,
        SqlType::Bool,
        SqlType::Jsonb,
    ]
    .map(|sql_type| sql_type.oid());
    let [date, time, timestamp, timestamptz] = [
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::TimestampTz,
    ]
    .map(|sql_type| sql_type.oid());
    let mut all = vec![
        fixed(2803, aggregate, "count", vec![], int8),
        fixed(2147, aggregate, "count", vec![pseudo::ANY], int8),
        fixed(
            2335,
            aggregate,
            "array_agg",
            vec![pseudo::ANY_ELEMENT],
            pseudo::ANY_ARRAY,
        ),
        fixed(3538, aggregate, "string_agg", vec![text, text], text),
        fixed(2517, aggregate, "bool_and", vec![boolean], boolean),
        fixed(2518, aggregate, "bool_or", vec![boolean], boolean),
        fixed(2519, aggregate, "every", vec![boolean], boolean),
        fixed(
            3267,
            aggregate,
            "jsonb_agg",
            vec![pseudo::ANY_ELEMENT],
            jsonb,
        ),
        fixed(
            3270,
            aggregate,
            "jsonb_object_agg",
            vec![pseudo::ANY, pseudo::ANY],
            jsonb,
        ),
    ];
    for (oid, argument, result) in [
        (2107, int8, numeric),
        (2108, int4, int8),
        (2109, int2, int8),
        (2110, float4, float4),
        (2111, float8, float8),
        (2113, interval, interval),
        (2114, numeric, numeric),
    ] {
        all.push(fixed(oid, aggregate, "sum", vec![argument], result));
    }
    for (oid, argument, result) in [
        (2100, int8, numeric),
        (2101, int4, numeric),
        (2102, int2, numeric),
        (2103, numeric, numeric),
        (2104, float4, float8),
        (2105, float8, float8),
        (2106, interval, interval),
    ] {
        all.push(fixed(oid, aggregate, "avg", vec![argument], result));
    }
    for (oid, argument) in [
        (2115, int8),
        (2116, int4),
        (2117, int2),
        (2119, float4),
        (2120, float8),
        (2122, date),
        (2123, time),
        (2126, timestamp),
        (2127, timestamptz),
        (2128, interval),
        (2129, text),
        (2130, numeric),
    ] {
        all.push(fixed(oid, aggregate, "max", vec![argument], argument));
        all.push(fixed(oid + 16, aggregate, "min", vec![argument], argument));
    }
    all
}

/// Window functions, with PostgreSQL's OIDs.
fn windows() -> Vec<FunctionSignature> {
    let window = FunctionKind::Window;
    let int8 = SqlType::Int8.oid();
    let int4 = SqlType::Int4.oid();
    let float8 = SqlType::Float8.oid();
    let any = pseudo::ANY_ELEMENT;
    vec![
        fixed(3100, window, "row_number", vec![], int8),
        fixed(3101, window, "rank", vec![], int8),
        fixed(3102, window, "dense_rank", vec![], int8),
        fixed(3103, window, "percent_rank", vec![], float8),
        fixed(3104, window, "cume_dist", vec![], float8),
        fixed(3105, window, "ntile", vec![int4], int4),
        fixed(3106, window, "lag", vec![any], any),
        fixed(3107, window, "lag", vec![any, int4], any),
        fixed(3109, window, "lead", vec![any], any),
        fixed(3110, window, "lead", vec![any, int4], any),
        fixed(3112, window, "first_value", vec![any], any),
        fixed(3113, window, "last_value", vec![any], any),
        fixed(3114, window, "nth_value", vec![any, int4], any),
    ]
}

/// An OID that follows from what it is of, described by `text`, and is none of PostgreSQL's, an item's or a relation's.
#[must_use]
pub fn stable_oid(text: &str) -> u32 {
    FIRST_HASHED | hash(text) >> 3
}

/// FNV-1a.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |state: u32, byte| {
        (state ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

fn all() -> Vec<FunctionSignature> {
    let mut known = input_and_output();
    known.extend(of_records());
    known.extend(aggregates());
    known.extend(windows());
    // By name and parameters, and aggregates and window functions by their names alone.
    let listed: BTreeSet<(String, Vec<u32>)> = known
        .iter()
        .map(|signature| (signature.name.clone(), signature.arguments.clone()))
        .collect();
    let collecting: BTreeSet<String> = known
        .iter()
        .filter(|signature| signature.kind != FunctionKind::Scalar)
        .map(|signature| signature.name.clone())
        .collect();
    // By name and parameters: overloads that differ in nothing that has an OID are one.
    let mut ours: BTreeMap<(String, Vec<u32>), FunctionSignature> = BTreeMap::new();
    for signature in crate::resolve::listed() {
        let key = (signature.name.clone(), signature.arguments.clone());
        if !listed.contains(&key) && !collecting.contains(&signature.name) {
            ours.entry(key).or_insert(signature);
        }
    }
    let mut taken = BTreeSet::new();
    for mut signature in ours.into_values() {
        let arguments: Vec<String> = signature.arguments.iter().map(u32::to_string).collect();
        let mut oid = stable_oid(&format!("{}({})", signature.name, arguments.join(",")));
        while !taken.insert(oid) {
            oid += 1;
        }
        signature.oid = oid;
        known.push(signature);
    }
    known.sort_by_key(|signature| signature.oid);
    known
}

static ALL: LazyLock<Vec<FunctionSignature>> = LazyLock::new(all);

/// Every function that is listed, by OID.
#[must_use]
pub fn signatures() -> &'static [FunctionSignature] {
    &ALL
}

/// The function with this OID.
pub(crate) fn by_oid(oid: u32) -> Option<&'static FunctionSignature> {
    ALL.binary_search_by_key(&oid, |signature| signature.oid)
        .ok()
        .and_then(|index| ALL.get(index))
}

/// The OID that a registry's kind of name belongs to: what `regproc` prints as.
pub(crate) fn name_of(oid: u32) -> String {
    match by_oid(oid) {
        Some(signature) => signature.name.clone(),
        None if oid == 0 => "-".to_owned(),
        None => oid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_are_unique_and_known_ones_are_postgresqls() {
        let oids: BTreeSet<u32> = signatures().iter().map(|signature| signature.oid).collect();
        assert_eq!(oids.len(), signatures().len());
        assert_eq!(name_of(750), "array_in");
        assert_eq!(
            by_oid(2108).map(FunctionSignature::arguments_text),
            Some("integer".to_owned())
        );
        let upper: Vec<String> = signatures()
            .iter()
            .filter(|signature| signature.name == "upper")
            .map(|signature| {
                format!(
                    "{} -> {}",
                    signature.arguments_text(),
                    signature.result_text()
                )
            })
            .collect();
        assert_eq!(upper, ["text -> text"]);
    }
}
