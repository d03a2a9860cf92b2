//! Real servers and clients for tests: a Flowstone node as a process of its own, a scratch PostgreSQL, a gate before it, HTTP and a browser;
//! Kafka, a schema registry, Kafka Connect with Debezium, MySQL and MariaDB.
//!
//! Owns starting, killing and waiting for them. Must not know any private item of another crate: everything goes through the binary and its ports.
//! Called by the end-to-end tests of this crate.
//!
//! Invariants. Every server listens on a free port of loopback and dies with its value. Waiting is for a condition, with a deadline whose failure says
//! what was seen.

pub mod browser;
pub mod certificates;
pub mod connect;
pub mod disk;
pub mod gate;
pub mod http;
pub mod kafka;
pub mod mysql;
pub mod node;
pub mod postgres;
mod process;
pub mod registry;
mod rest;
pub mod text;
pub mod wait;

pub use browser::Browser;
pub use certificates::{Authority, Flaw};
pub use connect::Connect;
pub use disk::SmallDisk;
pub use gate::Gate;
pub use kafka::{Kafka, KafkaOptions};
pub use mysql::{Mysql, MysqlKind};
pub use node::{Node, NodeOptions};
pub use postgres::Postgres;
pub use registry::{Registry, RegistryOptions};

/// A port of loopback that was free a moment ago.
///
/// # Errors
/// The operating system has none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}
