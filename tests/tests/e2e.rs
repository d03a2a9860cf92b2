//! End-to-end tests: the real binary, real PostgreSQL, real clients.

#[cfg(test)]
#[path = "e2e/auth.rs"]
mod auth;
#[cfg(test)]
#[path = "e2e/clients.rs"]
mod clients;
#[cfg(test)]
#[path = "e2e/clusters.rs"]
mod clusters;
#[cfg(test)]
#[path = "e2e/console.rs"]
mod console;
#[cfg(test)]
#[path = "e2e/crash.rs"]
mod crash;
#[cfg(test)]
#[path = "e2e/demo.rs"]
mod demo;
#[cfg(test)]
#[path = "e2e/differential.rs"]
mod differential;
#[cfg(test)]
#[path = "e2e/drivers.rs"]
mod drivers;
#[cfg(test)]
#[path = "e2e/faults.rs"]
mod faults;
#[cfg(test)]
#[path = "e2e/flight.rs"]
mod flight;
#[cfg(test)]
#[path = "e2e/held.rs"]
mod held;
#[cfg(test)]
#[path = "e2e/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "e2e/kafka.rs"]
mod kafka;
#[cfg(test)]
#[path = "e2e/lanes.rs"]
mod lanes;
#[cfg(test)]
#[path = "e2e/memory.rs"]
mod memory;
#[cfg(test)]
#[path = "e2e/money.rs"]
mod money;
#[cfg(test)]
#[path = "e2e/odd.rs"]
mod odd;
#[cfg(test)]
#[path = "e2e/places.rs"]
mod places;
#[cfg(test)]
#[path = "e2e/postgres.rs"]
mod postgres;
#[cfg(test)]
#[path = "e2e/private.rs"]
mod private;
#[cfg(test)]
#[path = "e2e/process.rs"]
mod process;
#[cfg(test)]
#[path = "e2e/returning.rs"]
mod returning;
#[cfg(test)]
#[path = "e2e/row_errors.rs"]
mod row_errors;
#[cfg(test)]
#[path = "e2e/servers.rs"]
mod servers;
#[cfg(test)]
#[path = "e2e/slt.rs"]
mod slt;
#[cfg(test)]
#[path = "e2e/sqldiff.rs"]
mod sqldiff;
#[cfg(test)]
#[path = "e2e/subqueries.rs"]
mod subqueries;
#[cfg(test)]
#[path = "e2e/tables.rs"]
mod tables;
#[cfg(test)]
#[path = "e2e/tpch.rs"]
mod tpch;
#[cfg(test)]
#[path = "e2e/wire.rs"]
mod wire;
#[cfg(test)]
#[path = "e2e/zones.rs"]
mod zones;
