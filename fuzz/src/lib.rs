//! Inputs for fuzz targets: seeds that people wrote, and what a few mutations make of them.
//!
//! Owns the form of a corpus, the mutations, and how many inputs a run tries. Must not know any target: each is a test in the crate that owns the decoder,
//! beside its corpus (`<crate>/fuzz/<target>.txt`), and says what must hold for every input. Called by tests only.
//!
//! Invariants. A corpus that is missing or empty is a failure, not a pass. A run is bounded: [`cases`] inputs per target. What fails is shrunk to the fewest
//! mutations and shown; an input that was worth finding is added to the corpus by hand.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;

/// Inputs per target in a run of the tests: a few seconds each.
const CASES: u32 = 4_000;

/// Most mutations of one seed. More make noise that the first check of a decoder refuses.
const MUTATIONS_MAX: usize = 6;

/// Most bytes that one mutation copies or removes.
const PIECE_MAX: usize = 64;

/// Most copies of one piece: enough to pass every limit of nesting.
const COPIES_MAX: usize = 3_000;

/// How a target runs. `FLOWSTONE_FUZZ_CASES` asks for more inputs than a run of the tests tries.
#[must_use]
pub fn config() -> Config {
    Config {
        cases: cases(std::env::var("FLOWSTONE_FUZZ_CASES").ok().as_deref()),
        max_shrink_iters: 20_000,
        // Seeds in the corpus take the place of files with random numbers.
        failure_persistence: None,
        ..Config::default()
    }
}

fn cases(wanted: Option<&str>) -> u32 {
    wanted
        .and_then(|wanted| wanted.parse().ok())
        .unwrap_or(CASES)
}

/// The seeds of a text: separated by lines of three dashes.
///
/// # Panics
/// If the file cannot be read or has no seed.
#[must_use]
pub fn texts(path: &Path) -> Vec<Vec<u8>> {
    let content = read(path);
    let seeds: Vec<Vec<u8>> = content
        .split("\n---\n")
        .map(|seed| seed.trim_end_matches('\n').as_bytes().to_vec())
        .collect();
    not_empty(path, seeds)
}

/// The seeds of a binary form, one a line: hexadecimal digits and text in double quotes, in any mixture. Lines that start with `#` say what follows.
///
/// # Panics
/// If the file cannot be read, a line cannot, or there is no seed.
#[must_use]
pub fn binaries(path: &Path) -> Vec<Vec<u8>> {
    let content = read(path);
    let seeds = content
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            bytes_of(line).unwrap_or_else(|| panic!("{}: cannot read {line:?}", path.display()))
        })
        .collect();
    not_empty(path, seeds)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read the corpus {}: {error}", path.display()))
}

fn not_empty(path: &Path, seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    assert!(
        seeds.iter().any(|seed| !seed.is_empty()),
        "{} has no seed",
        path.display()
    );
    seeds
}

/// A line of [`binaries`].
fn bytes_of(line: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|byte| *byte != b' ').collect();
        if digits.len() % 2 == 1 {
            return None;
        }
        for pair in digits.chunks(2) {
            let pair = std::str::from_utf8(pair).ok()?;
            bytes.push(u8::from_str_radix(pair, 16).ok()?);
        }
    }
    Some(bytes)
}

/// One change of an input. Places are relative, so that they mean something whatever came before.
#[derive(Clone, Debug)]
enum Mutation {
    /// Other bits in one byte.
    Flip(Index, u8),
    /// Other bytes in a place, of the kind that is at the edge of something.
    Overwrite(Index, &'static [u8]),
    /// Bytes that were not there.
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Truncate(Index),
    /// A piece again, right behind itself, so many times.
    Repeat(Index, usize, usize),
    /// A piece of another seed.
    Splice(Index, Index, Index, usize),
}

/// Numbers at the edges, big and little endian, and bytes that mean something to some decoder.
const EDGES: &[&[u8]] = &[
    b"\0",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\0\0",
    b"\xff\xff",
    b"\x7f\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\0\0\0\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"'",
    b"\"",
    b"$$",
    b";",
    b"--",
    b"/*",
    b"(",
    b")",
    b"\\",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"9223372036854775808",
    b"1e999",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<Index>;
    let piece = 1..=PIECE_MAX;
    prop_oneof![
        4 => (place(), 1_u8..).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        4 => (place(), prop::sample::select(EDGES)).prop_map(|(at, bytes)| Mutation::Overwrite(at, bytes)),
        2 => (place(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (place(), prop::sample::select(EDGES)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes.to_vec())),
        2 => (place(), piece.clone()).prop_map(|(at, length)| Mutation::Remove(at, length)),
        1 => place().prop_map(Mutation::Truncate),
        2 => (place(), piece.clone(), 1..8_usize).prop_map(|(at, length, copies)| Mutation::Repeat(at, length, copies)),
        1 => (place(), 1..8_usize, 8..=COPIES_MAX).prop_map(|(at, length, copies)| Mutation::Repeat(at, length, copies)),
        4 => (place(), place(), place(), piece).prop_map(|(at, seed, from, length)| Mutation::Splice(at, seed, from, length)),
    ]
}

impl Mutation {
    fn apply(&self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let place = |at: &Index, length: usize| at.index(length.saturating_add(1));
        match self {
            Self::Flip(at, bits) => {
                let length = input.len();
                if length > 0
                    && let Some(byte) = input.get_mut(at.index(length))
                {
                    *byte ^= bits;
                }
            }
            Self::Overwrite(at, bytes) => {
                let from = place(at, input.len());
                let to = (from + bytes.len()).min(input.len());
                input.splice(from..to, bytes.iter().copied());
            }
            Self::Insert(at, bytes) => {
                let from = place(at, input.len());
                input.splice(from..from, bytes.iter().copied());
            }
            Self::Remove(at, length) => {
                let from = place(at, input.len());
                input.drain(from..(from + length).min(input.len()));
            }
            Self::Truncate(at) => input.truncate(place(at, input.len())),
            Self::Repeat(at, length, copies) => {
                let from = place(at, input.len());
                let to = (from + length).min(input.len());
                let copied = input.get(from..to).unwrap_or_default().repeat(*copies);
                input.splice(to..to, copied);
            }
            Self::Splice(at, seed, from, length) => {
                let other = seed.get(seeds);
                let start = place(from, other.len());
                let piece = other.get(start..(start + length).min(other.len()));
                let piece = piece.unwrap_or_default().to_vec();
                let to = place(at, input.len());
                input.splice(to..to, piece);
            }
        }
    }
}

/// The seeds, changed in a few places or not at all.
pub fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let mutations = prop::collection::vec(mutation(), 0..=MUTATIONS_MAX);
    (any::<Index>(), mutations).prop_map(move |(seed, mutations)| {
        let mut input = seed.get(&seeds).clone();
        for mutation in &mutations {
            mutation.apply(&mut input, &seeds);
        }
        input
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;

    #[test]
    fn lines_are_digits_and_text() {
        assert_eq!(
            bytes_of("51 0000000a \"SELECT\" 00").unwrap(),
            b"Q\0\0\0\x0aSELECT\0"
        );
        assert_eq!(bytes_of("\"a b\"").unwrap(), b"a b");
        assert_eq!(bytes_of("5"), None);
        assert_eq!(bytes_of("zz"), None);
    }

    #[test]
    fn inputs_are_the_seeds_and_many_others() {
        let seeds = vec![b"first seed".to_vec(), b"the second".to_vec(), Vec::new()];
        let strategy = mutated(seeds.clone());
        let mut runner = TestRunner::deterministic();
        let found: BTreeSet<Vec<u8>> = (0..500)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current())
            .collect();
        assert!(found.len() > 350, "{} different inputs", found.len());
        assert!(seeds.iter().all(|seed| found.contains(seed)));
        let longest = found.iter().map(Vec::len).max().unwrap();
        assert!(longest > COPIES_MAX / 2, "{longest} bytes");
    }

    #[test]
    fn more_inputs_can_be_asked_for() {
        assert_eq!(cases(None), CASES);
        assert_eq!(cases(Some("1000000")), 1_000_000);
        assert_eq!(cases(Some("many")), CASES);
    }
}
