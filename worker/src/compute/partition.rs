//! Each shard gets the rows it owns, and says what it holds.
//!
//! Must not know whose shards they are. Called for the base and for lanes.

use flowstone_dataflow::{CollectionInput, Held, partition_changes, partition_delta};
use flowstone_proto::message::CollectionStatistics;
use flowstone_types::ObjectId;

use super::MAINTENANCE_FUEL;
use super::shards::{PartitionedInputs, ShardPool};
use crate::Error;

/// What holds copies of collections that are elsewhere.
const COPY: &str = "copy";

/// Spreads inputs over `count` shards by the columns that are given with each.
pub(super) fn partition(
    inputs: Vec<(ObjectId, CollectionInput, Vec<usize>)>,
    count: usize,
) -> Result<PartitionedInputs, Error> {
    let mut shards: PartitionedInputs = (0..count).map(|_| Vec::new()).collect();
    for (id, input, columns) in inputs {
        match input {
            // They belong to any one shard.
            CollectionInput::Errors(errors) => {
                if let Some(first) = shards.first_mut() {
                    first.push((id, CollectionInput::Errors(errors)));
                }
            }
            CollectionInput::Deltas(deltas) => {
                for delta in deltas {
                    let parts = partition_delta(&delta, &columns, count)?;
                    for (part, inputs) in itertools::zip_eq(parts, &mut shards) {
                        if !part.is_empty() {
                            inputs.push((id, CollectionInput::Deltas(vec![part])));
                        }
                    }
                }
            }
            CollectionInput::Changes(changes) => {
                for change in changes {
                    let parts = partition_changes(&change, &columns, count)?;
                    for (part, inputs) in itertools::zip_eq(parts, &mut shards) {
                        if !part.ops.is_empty() || part.truncate_before {
                            inputs.push((id, CollectionInput::Changes(vec![part])));
                        }
                    }
                }
            }
        }
    }
    Ok(shards)
}

/// What shards hold.
#[derive(Debug)]
pub(super) struct Counted {
    /// Of the objects that were asked for, in that order.
    pub(super) objects: Vec<(ObjectId, CollectionStatistics)>,
    /// Bytes of everything else.
    others: u64,
}

impl Counted {
    /// The same with everything else as a part of the first object: what is in a lane is there for its objects, as its copies of what they read are.
    pub(super) fn with_copies(self) -> Vec<(ObjectId, CollectionStatistics)> {
        let Self {
            mut objects,
            others,
        } = self;
        if let Some((_, first)) = objects.first_mut()
            && others > 0
        {
            first.bytes = first.bytes.saturating_add(others);
            first.held.insert(COPY.to_owned(), others);
        }
        objects
    }
}

/// What shards hold of objects, after they have compacted for about a millisecond; without the buffers that were counted in this round already.
pub(super) async fn count(
    pool: &ShardPool,
    ids: Vec<ObjectId>,
    held: Held,
) -> Result<Counted, Error> {
    ask_count(pool, ids, held)?.await
}

/// The same; the shards are asked now.
pub(super) fn ask_count(
    pool: &ShardPool,
    ids: Vec<ObjectId>,
    held: Held,
) -> Result<impl Future<Output = Result<Counted, Error>> + Send + use<>, Error> {
    let asked = ids.clone();
    let answers = pool.ask_each(move |_, shard| {
        shard.maintain(MAINTENANCE_FUEL);
        let mut statistics = shard.statistics_beside(&held);
        let of_asked = asked.iter().map(|id| statistics.remove(id));
        let of_asked: Vec<_> = of_asked.map(Option::unwrap_or_default).collect();
        let others = statistics.values().map(|other| other.bytes);
        (of_asked, others.fold(0, u64::saturating_add))
    })?;
    Ok(async move {
        let shards = answers.all().await?;
        let counted = ids.into_iter().enumerate().map(|(index, id)| {
            let of_shards = shards
                .iter()
                .filter_map(|(shard, _)| shard.get(index).cloned());
            let all = of_shards.fold(CollectionStatistics::default(), CollectionStatistics::and);
            (id, all)
        });
        let objects = counted.collect();
        let others = shards.iter().map(|(_, others)| *others);
        Ok::<_, Error>(Counted {
            objects,
            others: others.fold(0, u64::saturating_add),
        })
    })
}
