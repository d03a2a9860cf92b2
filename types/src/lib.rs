//! The values every other crate speaks: delta batches, weights, epochs, frontiers, ids and SQL types over Arrow.
//!
//! Owns the meaning of a row and of a change to it, the mapping between SQL types and Arrow, and the PostgreSQL text and binary formats of values.
//! Must not know any I/O, tokio or DataFusion plans.
//! Called by every other crate.
//!
//! Invariants. Everything here but [`budget`] is deterministic: equal inputs give equal bytes on every replica and in every run (hash seeds are fixed).
//! A [`DeltaBatch`] never holds a zero weight. Floats are normalised before they are hashed or compared for grouping ([`normalize`]).

pub mod budget;
pub mod clock;
pub mod consolidate;
pub mod datetime;
pub mod delta;
pub mod epoch;
pub mod error;
pub mod exact_float;
pub mod hash;
pub mod id;
pub mod interval;
pub mod jsonb;
pub mod kafka_hash;
pub mod normalize;
pub mod numeric;
pub mod sort_key;
pub mod source;
pub mod source_position;
pub mod sql_type;
pub mod value;

pub use budget::{Budget, SharedBudget};
pub use clock::Clock;
pub use delta::{DeltaBatch, Weights};
pub use epoch::{Epoch, Frontier};
pub use error::{EvalError, EvalErrorKind, SqlJsonKind, TypeError};
pub use id::{ClusterId, InstallationId, ObjectId};
pub use jsonb::{Jsonb, JsonbBuf};
pub use source::{SourceChanges, SourceOp};
pub use source_position::{GtidSet, SourcePosition};
pub use sql_type::SqlType;
pub use value::{ColumnBuilder, ColumnFormatter};
