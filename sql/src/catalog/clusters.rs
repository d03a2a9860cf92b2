//! Clusters: named sets of shard threads, in which sources, materialized views and indexes live.
//!
//! Owns the model of a cluster and its replicas, the sizes and what they stand for, and which cluster an item is in. Must not know how threads are started.
//!
//! Invariants. Ids of clusters and of replicas are never reused. [`ClusterId::DEFAULT`] is always there, and runs. A managed cluster has replicas of its size.
//! What is made of a view stands still with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use flowstone_types::{ClusterId, ObjectId};
use serde::{Deserialize, Serialize};

use super::{Catalog, DEFAULT_CLUSTER, ItemKind};
use crate::ast::{Ident, quote_ident};
use crate::error::{Error, ErrorKind};

/// Identity of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    /// As `mz_cluster_replicas.id` has it: `u1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}", self.0)
    }
}

/// The clusters that belong to the system: there is nothing in them, and they cannot be changed.
pub const SYSTEM_CLUSTERS: [(&str, &str); 2] = [("s1", "mz_system"), ("s2", "mz_catalog_server")];

/// Sizes of clusters: names for numbers of threads. The catalog stores their place in this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClusterSize {
    /// `25cc`
    Cc25,
    /// `50cc`
    Cc50,
    /// `100cc`
    Cc100,
    /// `200cc`
    Cc200,
    /// `300cc`
    Cc300,
    /// `400cc`
    Cc400,
    /// `600cc`
    Cc600,
    /// `800cc`
    Cc800,
    /// `1200cc`
    Cc1200,
    /// `1600cc`
    Cc1600,
    /// `3200cc`
    Cc3200,
    /// `6400cc`
    Cc6400,
    /// `128C`
    C128,
    /// `256C`
    C256,
    /// `512C`
    C512,
}

impl ClusterSize {
    /// All sizes, the smallest first.
    pub const ALL: [Self; 15] = [
        Self::Cc25,
        Self::Cc50,
        Self::Cc100,
        Self::Cc200,
        Self::Cc300,
        Self::Cc400,
        Self::Cc600,
        Self::Cc800,
        Self::Cc1200,
        Self::Cc1600,
        Self::Cc3200,
        Self::Cc6400,
        Self::C128,
        Self::C256,
        Self::C512,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cc25 => "25cc",
            Self::Cc50 => "50cc",
            Self::Cc100 => "100cc",
            Self::Cc200 => "200cc",
            Self::Cc300 => "300cc",
            Self::Cc400 => "400cc",
            Self::Cc600 => "600cc",
            Self::Cc800 => "800cc",
            Self::Cc1200 => "1200cc",
            Self::Cc1600 => "1600cc",
            Self::Cc3200 => "3200cc",
            Self::Cc6400 => "6400cc",
            Self::C128 => "128C",
            Self::C256 => "256C",
            Self::C512 => "512C",
        }
    }

    /// How many threads it stands for, whatever the machine has: one for each 100cc, one at least.
    #[must_use]
    pub const fn threads(self) -> usize {
        match self {
            Self::Cc25 | Self::Cc50 | Self::Cc100 => 1,
            Self::Cc200 => 2,
            Self::Cc300 => 3,
            Self::Cc400 => 4,
            Self::Cc600 => 6,
            Self::Cc800 => 8,
            Self::Cc1200 => 12,
            Self::Cc1600 => 16,
            Self::Cc3200 => 32,
            Self::Cc6400 => 64,
            Self::C128 => 128,
            Self::C256 => 256,
            Self::C512 => 512,
        }
    }

    /// The size of a name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameterValue`], at the name.
    pub fn named(name: &Ident) -> Result<Self, Error> {
        let found = Self::ALL
            .into_iter()
            .find(|size| size.name().eq_ignore_ascii_case(&name.value));
        found.ok_or_else(|| {
            let message = format!("unknown cluster size \"{}\"", name.value);
            let sizes = Self::ALL.map(Self::name).join(", ");
            Error::new(ErrorKind::InvalidParameterValue, message)
                .with_hint(format!("Valid sizes are: {sizes}."))
                .at(name.position)
        })
    }
}

/// What threads there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Shard threads of the process: those of [`ClusterId::DEFAULT`].
    pub shards: usize,
    /// Threads that the machine runs at a time: no cluster has more.
    pub threads: usize,
}

impl Machine {
    /// How many threads a cluster of a size has here.
    #[must_use]
    pub fn threads_of(self, size: ClusterSize) -> usize {
        size.threads().min(self.threads).max(1)
    }
}

/// A replica of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its identity.
    pub id: ReplicaId,
    /// Its name.
    pub name: String,
    /// Its size; `None` if its threads are those of the process.
    pub size: Option<ClusterSize>,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its identity.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// COMMENT ON it.
    pub comment: Option<String>,
    /// How its replicas are made.
    pub kind: ClusterKind,
    /// Its replicas. It is paused if there are none.
    pub replicas: Vec<Replica>,
}

/// How the replicas of a cluster are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterKind {
    /// As many as its replication factor says, all of this size.
    Managed(ClusterSize),
    /// One by one, by statements.
    Unmanaged,
    /// As many as its replication factor says, with the threads of the process: [`ClusterId::DEFAULT`].
    Process,
}

impl Cluster {
    /// The cluster that every catalog has.
    #[must_use]
    pub fn initial() -> Self {
        Self {
            id: ClusterId::DEFAULT,
            name: DEFAULT_CLUSTER.to_owned(),
            comment: None,
            kind: ClusterKind::Process,
            replicas: vec![Replica {
                id: ReplicaId(1),
                name: "r1".to_owned(),
                size: None,
            }],
        }
    }

    /// Whether its replicas follow from a size and a replication factor.
    #[must_use]
    pub const fn is_managed(&self) -> bool {
        !matches!(self.kind, ClusterKind::Unmanaged)
    }

    /// Whether it has a replica, and so threads. One without is paused.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        !self.replicas.is_empty()
    }

    /// Its replica of a name.
    #[must_use]
    pub fn replica(&self, name: &str) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.name == name)
    }

    /// What the user can do to let it go on while it is paused.
    #[must_use]
    pub fn resume_hint(&self) -> String {
        let name = quote_ident(&self.name);
        if self.is_managed() {
            format!("ALTER CLUSTER {name} SET (REPLICATION FACTOR 1) lets it go on.")
        } else {
            format!("CREATE CLUSTER REPLICA {name}.r1 (SIZE '25cc') lets it go on.")
        }
    }

    /// Its size, if it has one as a whole.
    #[must_use]
    pub const fn size(&self) -> Option<ClusterSize> {
        match self.kind {
            ClusterKind::Managed(size) => Some(size),
            ClusterKind::Unmanaged | ClusterKind::Process => None,
        }
    }

    /// How many shard threads it has. One process runs one replica: the largest.
    #[must_use]
    pub fn threads(&self, machine: Machine) -> usize {
        let of = |replica: &Replica| {
            replica
                .size
                .map_or(machine.shards, |size| machine.threads_of(size))
        };
        self.replicas.iter().map(of).max().unwrap_or(0)
    }
}

/// The clusters of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clusters {
    /// By id.
    pub by_id: BTreeMap<ClusterId, Cluster>,
    /// The clusters of items; what is not named here and is in a cluster at all is in [`ClusterId::DEFAULT`].
    pub of_items: BTreeMap<ObjectId, ClusterId>,
    /// The number of the next cluster.
    pub next_cluster: u64,
    /// The number of the next replica.
    pub next_replica: u64,
}

impl Clusters {
    /// Those of a new node, and of one from before there were others.
    #[must_use]
    pub fn initial() -> Self {
        let mut clusters = Self::default();
        clusters.put(Cluster::initial());
        clusters
    }

    /// Puts a cluster in place.
    pub(super) fn put(&mut self, cluster: Cluster) {
        self.next_cluster = self.next_cluster.max(cluster.id.0 + 1);
        let newest = cluster.replicas.iter().map(|replica| replica.id.0).max();
        self.next_replica = self.next_replica.max(newest.map_or(1, |id| id + 1));
        self.by_id.insert(cluster.id, cluster);
    }
}

/// Whether the system has a cluster of this name.
#[must_use]
pub fn is_system_cluster(name: &str) -> bool {
    SYSTEM_CLUSTERS.iter().any(|(_, system)| *system == name)
}

impl Catalog {
    /// The cluster of a name, none of the system's.
    #[must_use]
    pub fn find_cluster(&self, name: &str) -> Option<&Cluster> {
        self.clusters
            .by_id
            .values()
            .find(|cluster| cluster.name == name)
    }

    /// The cluster that is named, to put something into it or to change it.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedObject`]; [`ErrorKind::InsufficientPrivilege`] for one of the system's. Both at the name.
    pub fn resolve_cluster(&self, name: &Ident) -> Result<&Cluster, Error> {
        let at = |error: Error| {
            if name.position > 0 {
                error.at(name.position)
            } else {
                error
            }
        };
        if is_system_cluster(&name.value) {
            let message = format!("system cluster \"{}\" cannot be modified", name.value);
            return Err(at(Error::new(ErrorKind::InsufficientPrivilege, message)));
        }
        self.find_cluster(&name.value).ok_or_else(|| {
            at(Error::new(
                ErrorKind::UndefinedObject,
                format!("cluster \"{}\" does not exist", name.value),
            ))
        })
    }

    /// The cluster in which a session reads: what the system's clusters do is done by [`ClusterId::DEFAULT`].
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedObject`].
    pub fn reading_cluster(&self, name: &str) -> Result<ClusterId, Error> {
        if is_system_cluster(name) {
            return Ok(ClusterId::DEFAULT);
        }
        self.resolve_cluster(&Ident::new(name))
            .map(|cluster| cluster.id)
    }

    /// The cluster that an item is in; of what is in none [`ClusterId::DEFAULT`].
    #[must_use]
    pub fn cluster_of(&self, id: ObjectId) -> ClusterId {
        self.clusters
            .of_items
            .get(&id)
            .copied()
            .unwrap_or(ClusterId::DEFAULT)
    }

    /// The paused cluster for which a view or an index stands still: its own, or that of a view which it is made of. `None` of what goes on, and of sources and
    /// tables, which always do.
    ///
    /// Cost: O(clusters) while none is paused, else O(what it is made of).
    #[must_use]
    pub fn paused_by(&self, id: ObjectId) -> Option<&Cluster> {
        if self.clusters.by_id.values().all(Cluster::is_running) {
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let Some(item) = self.items.get(&id) else {
                continue;
            };
            let is_computed = match item.kind {
                ItemKind::MaterializedView { .. } | ItemKind::Index { .. } => true,
                ItemKind::View { .. } => false,
                _ => continue,
            };
            let cluster = self.clusters.by_id.get(&self.cluster_of(id));
            if let Some(cluster) = cluster.filter(|cluster| is_computed && !cluster.is_running()) {
                return Some(cluster);
            }
            waiting.extend(&item.depends_on);
        }
        None
    }

    /// Whether a view or an index stands still: see [`Catalog::paused_by`].
    #[must_use]
    pub fn is_paused(&self, id: ObjectId) -> bool {
        self.paused_by(id).is_some()
    }

    /// Refuses what would have to wait for something that stands still.
    ///
    /// # Errors
    /// [`ErrorKind::NotInPrerequisiteState`].
    pub fn refuse_paused(&self, id: ObjectId) -> Result<(), Error> {
        let (Some(cluster), Some(item)) = (self.paused_by(id), self.items.get(&id)) else {
            return Ok(());
        };
        let message = format!(
            "{} \"{}\" cannot be read: cluster \"{}\" is paused",
            item.noun(),
            item.name,
            cluster.name
        );
        Err(Error::new(ErrorKind::NotInPrerequisiteState, message).with_hint(cluster.resume_hint()))
    }

    /// What a cluster is called.
    #[must_use]
    pub fn cluster_name(&self, id: ClusterId) -> &str {
        self.clusters
            .by_id
            .get(&id)
            .map_or("", |cluster| cluster.name.as_str())
    }
}
