//! What the coordinator and the worker say to each other.
//!
//! Owns the messages, the incremental plan as it crosses the seam, their encoding and [`PROTOCOL_VERSION`], and the in-process transport ([`local`]).
//! Must not know how either side acts on a message.
//! Called by `sql` (builds plans), `dataflow` (renders them), `coordinator` and `worker` (send and receive); the last two never link each other.
//!
//! Invariants. Commands are acted on in the order they are sent. Expressions and query plans are opaque bytes here, made and read by
//! `functions::codec`; they are transient and never stored. Row data crosses only in [`message::ResultMessage`], in answers of
//! [`local::DirectReads`] and inside writes, never through the coordinator's loop.

pub mod ipc;
pub mod kafka;
pub mod local;
pub mod message;
pub mod plan;

/// Version of every message here; both sides refuse another one at `Hello`.
pub const PROTOCOL_VERSION: u32 = 8;
