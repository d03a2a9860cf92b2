//! Which partition a message goes to.
//!
//! Owns the rule: by Kafka's own hash of keys, as its Java clients have it, so that a topic is divided as others divide theirs. Called by the encoder.

use flowstone_types::kafka_hash::kafka_murmur2;

/// The partition of a key among so many.
pub(super) fn of_key(key: &[u8], partitions: i32) -> i32 {
    kafka_murmur2(key)
        .checked_rem(partitions)
        .unwrap_or_default()
}

/// The partition that a number asks for.
pub(super) fn of_number(number: u64, partitions: i32) -> i32 {
    let count = u64::try_from(partitions).unwrap_or_default();
    let place = number.checked_rem(count).unwrap_or_default();
    i32::try_from(place).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_always_one_of_the_topic() {
        assert_eq!(of_key(b"foobar", 1), 0);
        assert_eq!(of_key(b"21", 7), 3);
        assert_eq!(of_key(b"abc", 7), 4);
        assert_eq!(of_key(b"21", 0), 0);
        assert_eq!(of_number(u64::MAX, 4), 3);
        assert_eq!(of_number(5, 0), 0);
    }
}
