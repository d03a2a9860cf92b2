//! SeaHash: a fast hash of bytes, which is none for secrets.
//!
//! Owns the algorithm. Must not know SQL. Called by the function `seahash`.
//!
//! Invariants. The hash never changes: topics are divided by it.

/// The state before the first byte, without a seed.
const INITIAL: [u64; 4] = [
    0x16f1_1fe8_9b0d_677c,
    0xb480_a793_d8e6_c86c,
    0x6fe2_e5aa_f078_ebc9,
    0x14f9_94a4_c525_9381,
];

/// The hash of `bytes`.
///
/// Source: the specification in the documentation of Ticki's crate `seahash` (`reference`): words of 8 bytes, the last one filled up with zeros, go through
/// four lanes in turn.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut lanes = INITIAL;
    for block in bytes.chunks(8) {
        let [first, second, third, fourth] = lanes;
        lanes = [second, third, fourth, diffuse(first ^ word(block))];
    }
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    diffuse(lanes.iter().fold(length, |hash, lane| hash ^ lane))
}

/// At most 8 bytes as a number, the lowest first.
fn word(block: &[u8]) -> u64 {
    block
        .iter()
        .rev()
        .fold(0_u64, |word, byte| (word << 8) | u64::from(*byte))
}

fn diffuse(value: u64) -> u64 {
    const MULTIPLIER: u64 = 0x6eed_0e9d_a4d9_4a4f;
    let mixed = value.wrapping_mul(MULTIPLIER);
    (mixed ^ ((mixed >> 32) >> (mixed >> 60))).wrapping_mul(MULTIPLIER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_its_author() {
        // From the tests of his crate.
        assert_eq!(hash(b"to be or not to be"), 1_988_685_042_348_123_509);
        assert_eq!(
            hash(b"love is a wonderful terrible thing"),
            4_784_284_276_849_692_846
        );
        assert_eq!(diffuse(94_203_824_938), 17_289_265_692_384_716_055);
        assert_eq!(diffuse(1), 15_197_155_197_312_260_123);
    }

    #[test]
    fn zeros_at_the_end_count() {
        assert_eq!(hash(b""), 14_492_805_990_617_963_705);
        assert_ne!(hash(b"\0"), hash(b""));
        assert_ne!(hash(b"a\0"), hash(b"a"));
        assert_ne!(hash(b"12345678\0"), hash(b"12345678"));
    }
}
