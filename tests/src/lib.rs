//! Real servers and clients for tests: a Flowstone node as a process of its own, a scratch PostgreSQL, a gate before it, HTTP and a browser;
//! Kafka, a schema registry, Kafka Connect with Debezium, MySQL and MariaDB. And the random comparison of the node with PostgreSQL, `sqldiff`, and the statements of TPC-H.
//!
//! Owns starting, killing and waiting for them. Must not know any private item of another crate: everything goes through the binary and its ports.
//! Called by the end-to-end tests of this crate.
//!
//! Invariants. Every server listens on a free port of loopback and dies with its value. Waiting is for a condition, with a deadline whose failure says
//! what was seen.

pub mod answer;
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
pub mod sqldiff;
pub mod text;
pub mod tpch;
pub mod wait;

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::bail;

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

/// Ports for servers: below those that systems give to outgoing connections, any of which could take a port between the moment it was found free and the start of
/// the server.
const SERVER_PORTS: std::ops::Range<u32> = 10_000..32_000;

/// A port of loopback that was free a moment ago, and that nobody in this process was given before.
///
/// # Errors
/// None of many is free.
pub fn free_port() -> anyhow::Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = SERVER_PORTS.end - SERVER_PORTS.start;
    // Processes begin at places of their own.
    let begin = std::process::id().wrapping_mul(613) % count;
    for _ in 0..count {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed) % count;
        let port = u16::try_from(SERVER_PORTS.start + (begin + given) % count)?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {SERVER_PORTS:?} is free")
}
