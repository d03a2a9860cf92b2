//! Where the messages of a transaction are, as the brokers said.
//!
//! Owns these reports, and what offsets tell of a topic that is not what it was. Must not know transactions: why a message was not taken, the end of one says.
//! Called by the producer of a sink, from its thread too.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;

/// By partition, the offset after a message that is there.
pub(super) type Ends = BTreeMap<i32, i64>;

/// A partition that ends before an offset which it had reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortfall {
    pub(super) partition: i32,
    pub(super) reached: i64,
    pub(super) end: i64,
}

/// The first partition that ends before what it had reached: what it held is gone. Partitions that are not in `ends` are not compared.
pub(super) fn shortfall(reached: &Ends, ends: &Ends) -> Option<Shortfall> {
    reached.iter().find_map(|(partition, reached)| {
        let end = ends.get(partition)?;
        (end < reached).then_some(Shortfall {
            partition: *partition,
            reached: *reached,
            end: *end,
        })
    })
}

/// Hears of messages of one topic where they are.
#[derive(Debug)]
pub(super) struct Delivered {
    topic: String,
    /// Of the transaction.
    ends: Mutex<Ends>,
}

impl Delivered {
    pub(super) fn new(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            ends: Mutex::default(),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another transaction begins.
    pub(super) fn begin(&self) {
        self.locked().clear();
    }

    /// Up to where messages of the transaction are.
    pub(super) fn ends(&self) -> Ends {
        self.locked().clone()
    }

    fn heard(&self, topic: &str, partition: i32, offset: i64) {
        // Of a message that was sent twice, brokers may not say where it is.
        if offset < 0 || topic != self.topic {
            return;
        }
        let mut ends = self.locked();
        let end = ends.entry(partition).or_default();
        *end = (*end).max(offset.saturating_add(1));
    }
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: Self::DeliveryOpaque) {
        if let Ok(message) = result {
            self.heard(message.topic(), message.partition(), message.offset());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_ends_before_what_it_had_reached_is_told() {
        let reached = Ends::from([(0, 5), (2, 7)]);
        // Others may write, and what is old may be removed: that moves no end back.
        let same = Ends::from([(0, 5), (1, 0), (2, 9)]);
        assert_eq!(shortfall(&reached, &same), None);
        let anew = Ends::from([(0, 5), (1, 0), (2, 6)]);
        assert_eq!(
            shortfall(&reached, &anew),
            Some(Shortfall {
                partition: 2,
                reached: 7,
                end: 6
            })
        );
        // Nothing is known of a topic that a sink of an earlier release wrote to, nor of partitions without messages.
        assert_eq!(shortfall(&Ends::new(), &anew), None);
        assert_eq!(shortfall(&reached, &Ends::from([(1, 0)])), None);
    }

    #[test]
    fn it_is_heard_where_messages_of_the_topic_are() {
        let delivered = Delivered::new("t");
        for (topic, partition, offset) in [
            ("t", 0, 4),
            ("t", 0, 3),
            ("t", 1, 0),
            ("t", 2, -1001),
            ("p", 0, 9),
        ] {
            delivered.heard(topic, partition, offset);
        }
        assert_eq!(delivered.ends(), Ends::from([(0, 5), (1, 1)]));
        delivered.begin();
        assert_eq!(delivered.ends(), Ends::new());
    }
}
