//! SQL: statements, the catalog model, planning, and the incremental plan.
//!
//! Owns the statement parser ([`parse`], [`ast`]), the catalog as a value ([`catalog`]) and the statements that change or show it ([`ddl`], [`show`]), what the kinds of sources need of all that ([`connector`]), planning of queries and writes ([`plan`]),
//! the lowering of a query to an incremental plan ([`lower`]), EXPLAIN, and the definitions of the system relations ([`system`]).
//! Must not know where plans run, how state is stored, sessions or protocols.
//! Called by `coordinator`; `pgwire` uses only [`ast`] and [`error`].
//!
//! Invariants. Nothing here does I/O. Planning reads one immutable [`catalog::Catalog`] and is deterministic.

mod assignments;
pub mod ast;
mod bind;
pub mod catalog;
pub mod connector;
mod context;
pub mod ddl;
pub mod error;
mod expansion;
pub mod explain;
mod ident;
pub mod lower;
mod names;
mod optimize;
pub mod parse;
pub mod plan;
mod planning_errors;
mod positions;
pub mod show;
pub mod system;
mod unnest;

pub use catalog::Catalog;
pub use error::Error;
