//! The crate through its public API, one module for each concern.
//!
//! `plan`: queries and writes against a small catalog, executed and compared with what PostgreSQL answers; `bind`: the same for what is decided by names,
//! types and scopes; `modifiers`: the type modifiers of results; `lower`: incremental plans, evaluated and compared with the query itself.

#[path = "sql/bind.rs"]
mod bind;
#[path = "sql/fixture.rs"]
mod fixture;
#[path = "sql/lower.rs"]
mod lower;
#[path = "sql/modifiers.rs"]
mod modifiers;
#[path = "sql/plan.rs"]
mod plan;
