//! Which partition a message goes to.
//!
//! Owns Kafka's own hash of keys (`murmur2`, as its Java clients have it), so that a topic is divided as others divide theirs. Called by the encoder.

/// The partition of a key among so many.
pub(super) fn of_key(key: &[u8], partitions: i32) -> i32 {
    let hash = i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or_default();
    hash.checked_rem(partitions).unwrap_or_default()
}

/// The partition that a number asks for.
pub(super) fn of_number(number: u64, partitions: i32) -> i32 {
    let count = u64::try_from(partitions).unwrap_or_default();
    let place = number.checked_rem(count).unwrap_or_default();
    i32::try_from(place).unwrap_or_default()
}

fn murmur2(data: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0_u32, |word, byte| (word << 8) | u32::from(*byte))
    };
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c_u32 ^ length;
    let mut words = data.chunks_exact(4);
    for bytes in &mut words {
        let mut word = word(bytes).wrapping_mul(MULTIPLIER);
        word ^= word >> 24;
        hash = hash.wrapping_mul(MULTIPLIER) ^ word.wrapping_mul(MULTIPLIER);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash = (hash ^ word(rest)).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafka() {
        // From the tests of its Java client.
        assert_eq!(murmur2(b"21"), 3_321_034_988);
        assert_eq!(murmur2(b"foobar"), 3_504_634_814);
        assert_eq!(murmur2(b"a-little-bit-long-string"), 3_308_985_760);
    }

    #[test]
    fn a_partition_is_always_one_of_the_topic() {
        assert_eq!(of_key(b"foobar", 1), 0);
        assert!((0..7).contains(&of_key(b"foobar", 7)));
        assert_eq!(of_number(u64::MAX, 4), 3);
        assert_eq!(of_number(5, 0), 0);
    }
}
