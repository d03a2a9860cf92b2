//! Where a source begins that was declared to begin at offsets or at a time.
//!
//! Must not know what is read from there on. Called by [`super::reader`].

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::attempt::Ended;
use super::client::{Context, REQUEST_TIMEOUT, serve};
use super::consumer::Watermarks;
use super::offsets::Offsets;

/// Offsets as they were declared; those that were not are 0.
pub(crate) fn declared(
    topic: &str,
    offsets: &[i64],
    watermarks: &Watermarks,
) -> Result<Offsets, Ended> {
    if offsets.len() > watermarks.len() {
        return Err(Ended::transient(format!(
            "START OFFSET specified more partitions ({}) than topic \"{topic}\" contains ({})",
            offsets.len(),
            watermarks.len()
        )));
    }
    let mut start = Offsets::new();
    for (id, (low, high)) in watermarks {
        let declared = usize::try_from(*id).ok();
        let declared = declared.and_then(|index| offsets.get(index));
        let offset = declared.copied().unwrap_or(0);
        if offset < *low {
            return Err(Ended::permanent(
                format!(
                    "START OFFSET {offset} of partition {id} of topic \"{topic}\" is gone: the oldest message is at {low}"
                ),
                "Drop the source and create it again with offsets that exist.",
            ));
        }
        if offset > *high {
            return Err(Ended::transient(format!(
                "START OFFSET {offset} of partition {id} of topic \"{topic}\" is beyond its end, which is at {high}"
            )));
        }
        start.insert(*id, offset);
    }
    Ok(start)
}

/// The first offsets at or after a time.
pub(crate) fn since(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    ms: i64,
    watermarks: &Watermarks,
) -> Result<Offsets, Ended> {
    let unusable = |error: &KafkaError| Ended::transient(format!("START TIMESTAMP: {error}"));
    let mut times = TopicPartitionList::with_capacity(watermarks.len());
    for id in watermarks.keys() {
        times
            .add_partition_offset(topic, *id, Offset::Offset(ms))
            .map_err(|error| unusable(&error))?;
    }
    let found = consumer
        .offsets_for_times(times, REQUEST_TIMEOUT)
        .map_err(|error| Ended::unanswered(&error, &serve(consumer)))?;
    let mut start = Offsets::new();
    for element in found.elements() {
        element.error().map_err(|error| unusable(&error))?;
        let id = element.partition();
        let (low, high) = watermarks.get(&id).copied().unwrap_or_default();
        let offset = match element.offset() {
            Offset::Offset(offset) => offset.max(low),
            // There is no message so new.
            _ => high,
        };
        start.insert(id, offset);
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_offsets_have_to_exist() {
        let ends = Watermarks::from([(0, (0, 10)), (1, (4, 9))]);
        assert_eq!(
            declared("t", &[3, 5], &ends).unwrap(),
            Offsets::from([(0, 3), (1, 5)])
        );
        // Partition 1 is not named, and 0 is gone there.
        assert!(matches!(
            declared("t", &[3], &ends),
            Err(Ended::Permanent { .. })
        ));
        let Err(Ended::Transient { message, .. }) = declared("t", &[0, 5, 1], &ends) else {
            panic!("it names a partition that is not there");
        };
        assert_eq!(
            message,
            "START OFFSET specified more partitions (3) than topic \"t\" contains (2)"
        );
        assert!(matches!(
            declared("t", &[11, 5], &ends),
            Err(Ended::Transient { .. })
        ));
    }
}
