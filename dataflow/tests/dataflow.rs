//! Tests of the engine through its public interface: a shard, or several in lock step, against a naive evaluation of the same plan.

#[cfg(test)]
#[path = "dataflow/cluster.rs"]
mod cluster;
#[cfg(test)]
#[path = "dataflow/differential.rs"]
mod differential;
#[cfg(test)]
#[path = "dataflow/failures.rs"]
mod failures;
#[cfg(test)]
#[path = "dataflow/known.rs"]
mod known;
#[cfg(test)]
#[path = "dataflow/lane.rs"]
mod lane;
#[cfg(test)]
#[path = "dataflow/oracle.rs"]
mod oracle;
#[cfg(test)]
#[path = "dataflow/ordered.rs"]
mod ordered;
#[cfg(test)]
#[path = "dataflow/random.rs"]
mod random;
#[cfg(test)]
#[path = "dataflow/shared.rs"]
mod shared;
#[cfg(test)]
#[path = "dataflow/values.rs"]
mod values;
