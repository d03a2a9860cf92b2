//! Each shard gets the rows it owns, and says what it holds.
//!
//! Must not know whose shards they are. Called for the base and for lanes.

use flowstone_dataflow::{CollectionInput, partition_changes, partition_delta};
use flowstone_proto::message::CollectionStatistics;
use flowstone_types::ObjectId;

use super::MAINTENANCE_FUEL;
use super::shards::{PartitionedInputs, ShardPool};
use crate::Error;

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

/// What shards hold of objects, after they have compacted for about a millisecond.
pub(super) async fn count(
    pool: &ShardPool,
    ids: Vec<ObjectId>,
) -> Result<Vec<(ObjectId, CollectionStatistics)>, Error> {
    let asked = ids.clone();
    let shards = pool
        .on_each(move |_, shard| {
            shard.maintain(MAINTENANCE_FUEL);
            let mut statistics = shard.statistics();
            asked
                .iter()
                .map(|id| statistics.remove(id).unwrap_or_default())
                .collect::<Vec<_>>()
        })
        .await?;
    let counted = ids.into_iter().enumerate().map(|(index, id)| {
        let of_shards = shards.iter().filter_map(|shard| shard.get(index).cloned());
        let all = of_shards.fold(CollectionStatistics::default(), CollectionStatistics::and);
        (id, all)
    });
    Ok(counted.collect())
}
