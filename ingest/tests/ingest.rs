//! Sources against a real PostgreSQL server and a real Kafka, and load generators.

#[cfg(test)]
#[path = "ingest/generator.rs"]
mod generator;
#[cfg(test)]
#[path = "ingest/kafka.rs"]
mod kafka;
#[cfg(test)]
#[path = "ingest/postgres.rs"]
mod postgres;
#[cfg(test)]
#[path = "ingest/row_errors.rs"]
mod row_errors;
#[cfg(test)]
#[path = "ingest/server.rs"]
mod server;
#[cfg(test)]
#[path = "ingest/source.rs"]
mod source;
