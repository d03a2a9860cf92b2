//! Parameters that have names: those of PostgreSQL's functions that statements give by name.

/// A parameter with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedParameter {
    /// Its name.
    pub name: &'static str,
    /// The number that it has if nothing is given; `None` if something must be, unless nothing is given behind it either.
    pub default: Option<&'static str>,
}

const fn needed(name: &'static str) -> NamedParameter {
    NamedParameter {
        name,
        default: None,
    }
}

const fn zero(name: &'static str) -> NamedParameter {
    NamedParameter {
        name,
        default: Some("0"),
    }
}

const MAKE_DATE: &[NamedParameter] = &[needed("year"), needed("month"), needed("day")];
const MAKE_TIME: &[NamedParameter] = &[needed("hour"), needed("min"), needed("sec")];
const MAKE_TIMESTAMP: &[NamedParameter] = &[
    needed("year"),
    needed("month"),
    needed("mday"),
    needed("hour"),
    needed("min"),
    needed("sec"),
];
const MAKE_TIMESTAMPTZ: &[NamedParameter] = &[
    needed("year"),
    needed("month"),
    needed("mday"),
    needed("hour"),
    needed("min"),
    needed("sec"),
    needed("timezone"),
];
const MAKE_INTERVAL: &[NamedParameter] = &[
    zero("years"),
    zero("months"),
    zero("weeks"),
    zero("days"),
    zero("hours"),
    zero("mins"),
    zero("secs"),
];
const PARSE_IDENT: &[NamedParameter] = &[needed("str"), needed("strict")];
const JSONB_SET: &[NamedParameter] = &[
    needed("jsonb_in"),
    needed("path"),
    needed("replacement"),
    needed("create_if_missing"),
];
const JSONB_INSERT: &[NamedParameter] = &[
    needed("jsonb_in"),
    needed("path"),
    needed("replacement"),
    needed("insert_after"),
];

/// The parameters of a function, if they have names; those at the end may be left out where the function does without.
#[must_use]
pub fn named_parameters(function: &str) -> Option<&'static [NamedParameter]> {
    Some(match function {
        "make_date" => MAKE_DATE,
        "make_time" => MAKE_TIME,
        "make_timestamp" => MAKE_TIMESTAMP,
        "make_timestamptz" => MAKE_TIMESTAMPTZ,
        "make_interval" => MAKE_INTERVAL,
        "parse_ident" => PARSE_IDENT,
        "jsonb_set" => JSONB_SET,
        "jsonb_insert" => JSONB_INSERT,
        _ => return None,
    })
}
