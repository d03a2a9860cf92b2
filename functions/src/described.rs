//! What describes functions and types: signatures, the pseudo types in them, and the names of types.
//!
//! Owns how these are written. Must not know which functions there are.

use flowstone_types::SqlType;

/// What kind of function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// A scalar function.
    Scalar,
    /// An aggregate.
    Aggregate,
    /// A window function.
    Window,
}

/// A function with one list of parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSignature {
    /// PostgreSQL's identity.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FunctionKind,
    /// OIDs of the types of its parameters.
    pub arguments: Vec<u32>,
    /// Whether the last parameter repeats.
    pub variadic: bool,
    /// OID of the type of its result.
    pub result: u32,
    /// Whether it yields rows.
    pub returns_set: bool,
}

/// OIDs of pseudo types.
pub(crate) mod pseudo {
    pub(crate) const ANY: u32 = 2276;
    pub(crate) const ANY_ARRAY: u32 = 2277;
    pub(crate) const ANY_ELEMENT: u32 = 2283;
    pub(crate) const CSTRING: u32 = 2275;
    pub(crate) const INTERNAL: u32 = 2281;
    pub(crate) const RECORD: u32 = 2249;
}

impl FunctionSignature {
    /// The types of the parameters, as `pg_get_function_arguments` has them.
    #[must_use]
    pub fn arguments_text(&self) -> String {
        let count = self.arguments.len();
        let names: Vec<String> = self
            .arguments
            .iter()
            .enumerate()
            .map(|(index, argument)| {
                let variadic = self.variadic && index + 1 == count;
                format!(
                    "{}{}",
                    if variadic { "VARIADIC " } else { "" },
                    type_name(*argument)
                )
            })
            .collect();
        names.join(", ")
    }

    /// The type of the result, as `pg_get_function_result` has it.
    #[must_use]
    pub fn result_text(&self) -> String {
        let set = if self.returns_set { "SETOF " } else { "" };
        format!("{set}{}", type_name(self.result))
    }
}

/// The name of the type with an oid, and of its arrays; `???` for an unknown one.
pub(crate) fn format_type(oid: i64, modifier: Option<i64>) -> String {
    let Ok(oid) = u32::try_from(oid) else {
        return "???".to_owned();
    };
    if oid == 0 {
        return "-".to_owned();
    }
    if oid == SqlType::Char(1).oid() {
        return match modifier {
            Some(modifier) if modifier > 4 => format!("character({})", modifier - 4),
            Some(_) => "bpchar".to_owned(),
            None => "character".to_owned(),
        };
    }
    if oid == SqlType::Char(1).array_oid() {
        return "character[]".to_owned();
    }
    for scalar in SqlType::SCALARS {
        if scalar.array_oid() == oid {
            return format!("{scalar}[]");
        }
        if scalar.oid() == oid {
            return match (scalar, modifier) {
                (SqlType::VarChar(None), Some(modifier)) if modifier >= 4 => {
                    format!("character varying({})", modifier - 4)
                }
                (SqlType::Numeric(None), Some(modifier)) if modifier >= 4 => {
                    format!(
                        "numeric({},{})",
                        (modifier - 4) >> 16 & 0xffff,
                        (modifier - 4) & 0x7ff
                    )
                }
                _ => scalar.to_string(),
            };
        }
    }
    DESCRIBED
        .iter()
        .find(|(known, _)| *known == oid)
        .map_or_else(|| "???".to_owned(), |(_, name)| (*name).to_owned())
}

/// The name of the type with this OID.
pub(crate) fn type_name(oid: u32) -> String {
    format_type(i64::from(oid), None)
}

/// OIDs of types that only describe: for `format_type`.
pub(crate) const DESCRIBED: &[(u32, &str)] = &[
    (pseudo::ANY, "\"any\""),
    (pseudo::ANY_ARRAY, "anyarray"),
    (pseudo::ANY_ELEMENT, "anyelement"),
    (pseudo::CSTRING, "cstring"),
    (pseudo::INTERNAL, "internal"),
    (pseudo::RECORD, "record"),
    (705, "unknown"),
    (2278, "void"),
];
