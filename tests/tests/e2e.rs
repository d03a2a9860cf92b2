//! End-to-end tests: the real binary, real PostgreSQL, real clients.

#[path = "e2e/clients.rs"]
mod clients;
#[path = "e2e/crash.rs"]
mod crash;
#[path = "e2e/money.rs"]
mod money;
#[path = "e2e/slt.rs"]
mod slt;
#[path = "e2e/tables.rs"]
mod tables;
