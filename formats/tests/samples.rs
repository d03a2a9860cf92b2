//! Topics as connectors wrote them.

#[cfg(test)]
#[path = "samples/debezium.rs"]
mod debezium;
