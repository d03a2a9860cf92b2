//! PostgreSQL's functions, operators, casts and aggregates as DataFusion functions over Arrow, and the codec of expressions and plans.
//!
//! Owns what an expression means: result types, NULL rules, rounding, overflow, the wording of evaluation errors.
//! Must not know catalogs, sessions, where plans run or how state is kept.
//! Called by `sql` (name resolution, operator planning, casts), `worker` and `coordinator` (decoding and evaluating).
//!
//! Invariants. Every function here but those of chance is immutable and deterministic. An evaluation error is an [`flowstone_types::EvalError`], found again by
//! [`errors::eval_error`]. Values of jsonb are always in the canonical form of `flowstone_types::jsonb`. Text is `Utf8`, never a view.

pub mod aggregate;
pub mod cast;
pub mod codec;
pub mod conditions;
pub mod contexts;
pub mod empty_groups;
pub mod errors;
pub mod execution;
pub mod keys;
pub mod lookup;
pub mod null_safe;
pub mod planner;
pub mod registry;
pub mod resolve;
pub mod tables;
pub mod unnested_keys;
pub mod zone;

mod arrays;
mod chain;
mod chance;
mod crypto;
mod datetime;
mod described;
mod growth;
mod guarded;
mod interval;
mod json;
mod json_path;
mod like;
mod math;
mod nulls;
mod numeric;
mod operators;
mod pattern;
mod pieces;
mod recursion;
mod regexps;
mod seahash;
mod series;
mod signatures;
mod streams;
mod system;
mod text;
mod to_char;
mod udf;

pub use chain::{can_be_step, operator_chain};
pub use contexts::{session_config, session_state, task_context};
pub use described::{FunctionKind, FunctionSignature};
pub use json_path::check as check_json_path;
pub use registry::{Registry, registry};
pub use signatures::{signatures, stable_oid};
pub use tables::{CollectionTable, InputTable, ScanTarget};
pub use udf::{scalar_at, takes_text};

/// Every scalar function of ours.
fn scalar_functions() -> Vec<datafusion::logical_expr::ScalarUDF> {
    [
        operators::functions(),
        cast::functions(),
        arrays::functions(),
        chain::functions(),
        chance::functions(),
        crypto::functions(),
        datetime::functions(),
        json::functions(),
        json_path::functions(),
        like::functions(),
        keys::functions(),
        lookup::functions(),
        math::functions(),
        nulls::functions(),
        regexps::functions(),
        series::functions(),
        system::functions(),
        text::functions(),
        to_char::functions(),
        zone::functions(),
    ]
    .concat()
}
