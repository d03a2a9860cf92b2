//! Inputs for fuzz targets: seeds that people wrote, and what a few mutations make of them.
//!
//! Owns the form of a corpus, the mutations, and how many inputs a run tries. Must not know any target: each is a test in the crate that owns the decoder,
//! beside its corpus (`<crate>/fuzz/<target>.txt`), and says what must hold for every input. Called by tests only.
//!
//! Invariants. A corpus that is missing or empty is a failure, not a pass. A run is bounded: [`config`] says how many inputs it tries. What fails is shrunk to
//! the fewest mutations and shown in the form of a corpus of [`binaries`]; an input that was worth finding is added to the corpus by hand.

use std::fmt;
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
///
/// # Panics
/// If the variable is no number above zero: whoever sets it must not believe in a run that never was.
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
    wanted.map_or(CASES, |wanted| {
        let cases = wanted.parse().ok().filter(|cases| *cases > 0);
        cases
            .unwrap_or_else(|| panic!("FLOWSTONE_FUZZ_CASES is {wanted:?}, not a number of inputs"))
    })
}

/// The seeds of a textual form: separated by lines of three dashes.
///
/// # Panics
/// If the file cannot be read or has no seed.
#[must_use]
pub fn texts(path: &Path) -> Vec<Vec<u8>> {
    not_empty(path, texts_of(&read(path)))
}

fn texts_of(content: &str) -> Vec<Vec<u8>> {
    content
        .split("\n---\n")
        .map(|seed| seed.trim_end_matches('\n').as_bytes().to_vec())
        .collect()
}

/// The seeds of a binary form, one a line: hexadecimal digits and text in double quotes, in any mixture. Lines that start with `#` say what follows.
///
/// # Panics
/// If the file cannot be read, a line cannot, or there is no seed.
#[must_use]
pub fn binaries(path: &Path) -> Vec<Vec<u8>> {
    let seeds = binaries_of(&read(path))
        .unwrap_or_else(|line| panic!("{}: cannot read {line:?}", path.display()));
    not_empty(path, seeds)
}

/// The seeds, or the line that cannot be read.
fn binaries_of(content: &str) -> Result<Vec<Vec<u8>>, &str> {
    content
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| bytes_of(line).ok_or(line))
        .collect()
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
    if line.matches('"').count() % 2 == 1 {
        return None;
    }
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
            // Not a sign, which the conversion would take.
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
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
                let at = at.index(input.len().max(1));
                if let Some(byte) = input.get_mut(at) {
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

/// What a target is given. It shows itself as a line of [`binaries`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input(pub Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readable = |byte: &u8| (*byte == b' ' || byte.is_ascii_graphic()) && *byte != b'"';
        let mut pieces = self
            .0
            .chunk_by(|left, right| readable(left) == readable(right));
        let mut separator = "";
        pieces.try_for_each(|piece| {
            f.write_str(std::mem::replace(&mut separator, " "))?;
            match std::str::from_utf8(piece) {
                Ok(text) if piece.iter().all(readable) => write!(f, "\"{text}\""),
                _ => piece.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            }
        })
    }
}

/// The seeds, changed in a few places or not at all.
pub fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let mutations = prop::collection::vec(mutation(), 0..=MUTATIONS_MAX);
    (any::<Index>(), mutations).prop_map(move |(seed, mutations)| {
        let mut input = seed.get(&seeds).clone();
        for mutation in &mutations {
            mutation.apply(&mut input, &seeds);
        }
        Input(input)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::*;

    /// The place that is `share` thousandths into an input of whatever length.
    fn at(share: usize) -> Index {
        let mut runner = TestRunner::deterministic();
        let places = any::<Index>();
        // No other way leads to an index than to draw one.
        (0..100_000)
            .map(|_| places.new_tree(&mut runner).unwrap().current())
            .find(|place| place.index(1_000) == share)
            .unwrap()
    }

    fn changed(input: &str, mutation: &Mutation) -> Vec<u8> {
        let mut input = input.as_bytes().to_vec();
        mutation.apply(&mut input, &[b"other".to_vec()]);
        input
    }

    #[test]
    fn lines_are_digits_and_text() {
        assert_eq!(
            bytes_of("51 0000000a \"SELECT\" 00").unwrap(),
            b"Q\0\0\0\x0aSELECT\0"
        );
        assert_eq!(bytes_of("\"a b\"").unwrap(), b"a b");
        for wrong in ["5", "zz", "\"open", "51 \"a\" \"", "+1"] {
            assert_eq!(bytes_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_corpus_of_bytes_has_a_seed_on_each_line_that_is_no_comment() {
        assert_eq!(
            binaries_of("# kind\n51\n\n\"#\" 00\n"),
            Ok(vec![b"Q".to_vec(), b"#\0".to_vec()])
        );
        assert_eq!(binaries_of("51\nnothing\n"), Err("nothing"));
    }

    #[test]
    fn a_corpus_of_texts_is_cut_at_lines_of_dashes() {
        assert_eq!(
            texts_of("SELECT 1\n-- not here ---\n---\na\nb\n"),
            [b"SELECT 1\n-- not here ---".to_vec(), b"a\nb".to_vec()]
        );
    }

    #[test]
    #[should_panic(expected = "cannot read the corpus")]
    fn a_corpus_that_is_missing_is_a_failure() {
        let _ = texts(Path::new("no such corpus"));
    }

    #[test]
    #[should_panic(expected = "has no seed")]
    fn a_corpus_without_seeds_is_a_failure() {
        let _ = not_empty(Path::new("empty"), texts_of("\n"));
    }

    #[test]
    fn each_mutation_changes_what_it_says() {
        let (start, end) = (at(0), at(999));
        for (mutation, expected) in [
            (Mutation::Flip(start, 0x20), "ABCDEF".replace('A', "a")),
            (Mutation::Overwrite(start, b"--"), "--CDEF".to_owned()),
            (Mutation::Overwrite(end, b"--"), "ABCDEF--".to_owned()),
            (Mutation::Insert(start, b"x".to_vec()), "xABCDEF".to_owned()),
            (Mutation::Remove(start, 2), "CDEF".to_owned()),
            (Mutation::Remove(start, 64), String::new()),
            (Mutation::Truncate(start), String::new()),
            (Mutation::Truncate(end), "ABCDEF".to_owned()),
            (Mutation::Repeat(start, 2, 2), "ABABABCDEF".to_owned()),
            (
                Mutation::Splice(start, start, start, 3),
                "othABCDEF".to_owned(),
            ),
        ] {
            assert_eq!(
                changed("ABCDEF", &mutation),
                expected.as_bytes(),
                "{mutation:?}"
            );
        }
        for mutation in [
            Mutation::Flip(end, 1),
            Mutation::Repeat(end, 3, 9),
            Mutation::Remove(end, 1),
        ] {
            assert_eq!(changed("", &mutation), b"", "{mutation:?}");
        }
    }

    #[test]
    fn inputs_are_the_seeds_and_many_others() {
        let seeds = vec![b"first seed".to_vec(), b"the second".to_vec(), Vec::new()];
        let strategy = mutated(seeds.clone());
        let mut runner = TestRunner::deterministic();
        let found: BTreeSet<Vec<u8>> = (0..500)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current().0)
            .collect();
        assert!(found.len() > 350, "{} different inputs", found.len());
        assert!(seeds.iter().all(|seed| found.contains(seed)));
        let longest = found.iter().map(Vec::len).max().unwrap();
        assert!(longest > COPIES_MAX / 2, "{longest} bytes");
    }

    #[test]
    fn an_input_that_fails_can_be_pasted_into_a_corpus() {
        assert_eq!(
            format!("{:?}", Input(b"Q\0\0SELECT \"a\"\n".to_vec())),
            "\"Q\" 0000 \"SELECT \" 22 \"a\" 220a"
        );
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(
            bytes_of(&format!("{:?}", Input(every.clone()))),
            Some(every)
        );
        assert_eq!(format!("{:?}", Input(Vec::new())), "");
    }

    #[test]
    fn more_inputs_can_be_asked_for() {
        assert_eq!(cases(None), CASES);
        assert_eq!(cases(Some("1000000")), 1_000_000);
    }

    #[test]
    #[should_panic(expected = "not a number of inputs")]
    fn a_number_that_cannot_be_read_is_no_run() {
        let _ = cases(Some("1_000_000"));
    }

    #[test]
    #[should_panic(expected = "not a number of inputs")]
    fn a_run_without_inputs_is_none() {
        let _ = cases(Some("0"));
    }
}
