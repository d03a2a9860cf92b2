//! Statements about clusters and their replicas.
//!
//! Owns what CREATE, ALTER and DROP say of them, but for what they share with other objects: DROP CLUSTER, RENAME TO and COMMENT ON are general statements.

use std::time::Duration;

use super::{Ident, Name};

/// `CREATE CLUSTER`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateCluster {
    /// Its name.
    pub name: Ident,
    /// `IF NOT EXISTS`
    pub if_not_exists: bool,
    /// What is said of it.
    pub options: ClusterOptions,
}

/// `CREATE CLUSTER REPLICA c.r`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateClusterReplica {
    /// The cluster.
    pub cluster: Ident,
    /// The replica.
    pub replica: ReplicaDefinition,
}

/// `DROP CLUSTER REPLICA`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropClusterReplicas {
    /// Clusters and the names of their replicas.
    pub names: Vec<(Ident, Ident)>,
    /// `IF EXISTS`
    pub if_exists: bool,
}

/// `ALTER CLUSTER`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterCluster {
    /// The cluster.
    pub name: Name,
    /// `IF EXISTS`
    pub if_exists: bool,
    /// What changes.
    pub action: AlterClusterAction,
}

/// What `ALTER CLUSTER` changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterClusterAction {
    /// `SET (…) [WITH (WAIT …)]`
    Set {
        /// The options.
        options: Box<ClusterOptions>,
        /// How long the statement waits for the cluster as it is then.
        wait: Option<ClusterWait>,
    },
    /// `RESET (…)`
    Reset(Vec<ClusterOptionName>),
    /// `SWAP WITH`
    Swap(Ident),
}

/// How long `ALTER CLUSTER` waits until all that is in the cluster has caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterWait {
    /// No longer than this.
    pub timeout: Duration,
    /// What is done then.
    pub on_timeout: OnTimeout,
}

/// What becomes of a change of a cluster that takes longer than was to be waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// It stays. So it is with `WAIT FOR`.
    Commit,
    /// It is undone.
    Rollback,
}

/// An option of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClusterOptionName {
    /// `SIZE`
    Size,
    /// `REPLICATION FACTOR`
    ReplicationFactor,
    /// `MANAGED`
    Managed,
    /// `REPLICAS`
    Replicas,
    /// `SCHEDULE`
    Schedule,
    /// `INTROSPECTION INTERVAL`
    IntrospectionInterval,
    /// `INTROSPECTION DEBUGGING`
    IntrospectionDebugging,
    /// `AVAILABILITY ZONES`
    AvailabilityZones,
    /// `DISK`
    Disk,
    /// `WORKLOAD CLASS`
    WorkloadClass,
}

impl ClusterOptionName {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Size,
        Self::ReplicationFactor,
        Self::Managed,
        Self::Replicas,
        Self::Schedule,
        Self::IntrospectionInterval,
        Self::IntrospectionDebugging,
        Self::AvailabilityZones,
        Self::Disk,
        Self::WorkloadClass,
    ];

    /// The words that name it.
    #[must_use]
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Size => "SIZE",
            Self::ReplicationFactor => "REPLICATION FACTOR",
            Self::Managed => "MANAGED",
            Self::Replicas => "REPLICAS",
            Self::Schedule => "SCHEDULE",
            Self::IntrospectionInterval => "INTROSPECTION INTERVAL",
            Self::IntrospectionDebugging => "INTROSPECTION DEBUGGING",
            Self::AvailabilityZones => "AVAILABILITY ZONES",
            Self::Disk => "DISK",
            Self::WorkloadClass => "WORKLOAD CLASS",
        }
    }
}

/// The options of a cluster; `None` where the statement says nothing. Those that change nothing here are read and forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterOptions {
    /// `SIZE`, as written.
    pub size: Option<Ident>,
    /// `REPLICATION FACTOR`
    pub replication_factor: Option<Count>,
    /// `MANAGED`
    pub managed: Option<bool>,
    /// `REPLICAS (…)`
    pub replicas: Option<Vec<ReplicaDefinition>>,
}

/// A number, and where it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The number.
    pub value: u64,
    /// Where it is written: characters, from 1.
    pub position: usize,
}

/// A replica of an unmanaged cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaDefinition {
    /// Its name.
    pub name: Ident,
    /// `SIZE`, as written.
    pub size: Option<Ident>,
}
