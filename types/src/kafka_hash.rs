//! Kafka's hash of keys, by which its clients place messages in partitions.
//!
//! Owns `murmur2` as Kafka's Java clients have it. Must not know topics.
//! Called by `functions` for `kafka_murmur2`, and by `ingest` for the messages of sinks.
//!
//! Invariants. The hash never changes: programs that are not ours find keys by it.

/// The hash of a key, never negative: the partition of the key is the remainder by their number.
///
/// Source: Austin Appleby's MurmurHash2 (public domain) with Kafka's seed (`Utils.murmur2`), without the sign bit (`Utils.toPositive`), which is what
/// `DefaultPartitioner` takes the remainder of.
#[must_use]
pub fn kafka_murmur2(key: &[u8]) -> i32 {
    (murmur2(key) & 0x7fff_ffff).cast_signed()
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
        // From the tests of its Java client, which has them with their sign.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
            assert_eq!(kafka_murmur2(key.as_bytes()), hash & i32::MAX, "{key}");
        }
    }

    #[test]
    fn keys_of_any_length_and_any_bytes_have_a_hash() {
        assert_eq!(kafka_murmur2(b""), 275_646_681);
        assert_eq!(kafka_murmur2(b"a"), 584_102_524);
        assert_eq!(kafka_murmur2(b"abcd"), 823_834_100);
        assert_eq!(kafka_murmur2(b"\xff\x00"), 1_945_074_367);
    }
}
