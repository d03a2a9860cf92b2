//! The crate through its public API, one module for each concern.
//!
//! `plan`: queries and writes against a small catalog, executed and compared with what PostgreSQL answers; `lower`: incremental plans, evaluated and
//! compared with the query itself.

#[path = "sql/fixture.rs"]
mod fixture;
#[path = "sql/lower.rs"]
mod lower;
#[path = "sql/plan.rs"]
mod plan;
