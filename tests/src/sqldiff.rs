//! The random comparison with PostgreSQL: random tables, statements and changes, and whatever the node says otherwise than PostgreSQL, as a minimal script.
//!
//! Owns the grammar, the comparison, the shrinking and the report. Must not know any private item of another crate: all that it sees is what the servers say.
//! Called by the end-to-end test `sqldiff`, which `make sqldiff` runs for as long as one likes. docs/sqldiff.md says how to read it and how to add to it.
//!
//! How it fits together. `types` and `signatures` read the tables `types.txt`, `signatures.txt`, `aggregates.txt` and `windows.txt`; `schema` makes tables and rows;
//! `expression`, `aggregate`, `subquery`, `relation`, `query` and `statement` make statements as a `tree`, of which parts can be left out. `round` asks them of all `server`s
//! and makes views of them, `compare` says what differs, `shrink` makes a `script` of it as small as it gets, and `report` tells each kind once.
//!
//! Invariants. A seed says everything that is generated. What is compared is determined by the rows, not by a plan.

pub mod aggregate;
pub mod compare;
pub mod expression;
pub mod profile;
pub mod query;
pub mod random;
pub mod relation;
pub mod report;
mod round;
pub mod run;
pub mod schema;
pub mod script;
pub mod server;
pub mod shrink;
pub mod signatures;
pub mod statement;
pub mod subquery;
pub mod tree;
pub mod types;

pub use profile::Profile;
pub use report::Report;
pub use run::{Settings, run};
