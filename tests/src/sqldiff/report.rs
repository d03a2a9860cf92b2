//! What a run has found: each kind of disagreement once, and what is refused.

use std::collections::BTreeMap;
use std::fmt::Write;

use regex::Regex;

use super::compare::{Difference, Fault};
use super::script::Script;

/// How many disagreements of a kind without messages to tell them apart by are made smaller.
const SHRUNK_MAX: usize = 30;

/// How many deaths and silences of the node are; each takes long.
const DEATHS_MAX: usize = 5;

/// How many there may be in `deviations.txt`.
const DEVIATIONS_MAX: usize = 20;

/// What was compared; a run that compared nothing proves nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Answers to statements.
    pub answers: usize,
    /// Those of PostgreSQL that had rows.
    pub with_rows: usize,
    /// Those of PostgreSQL that were errors.
    pub errors: usize,
    /// Views that were made.
    pub views: usize,
    /// Comparisons of views.
    pub checks: usize,
    /// Changes.
    pub changes: usize,
}

/// A disagreement and where it was found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The seed.
    pub seed: u64,
    /// How many shards the node had.
    pub shards: usize,
    /// What shows it.
    pub script: Script,
    /// What it is.
    pub difference: Difference,
    /// What it was before the script was made smaller, which may have changed its message.
    pub original: Difference,
    /// Whether the script was made smaller.
    pub is_shrunk: bool,
}

/// A difference that is meant to be.
#[derive(Debug)]
struct Deviation {
    reason: String,
    pattern: Regex,
}

/// One kind of disagreement.
#[derive(Debug)]
struct Kind {
    count: usize,
    text: String,
}

/// Everything that a run has found.
#[derive(Debug)]
pub struct Report {
    /// What was compared.
    pub seen: Seen,
    kinds: BTreeMap<(Fault, String), Kind>,
    /// What disagreements that have messages became.
    by_message: BTreeMap<String, (Fault, String)>,
    /// How many of each kind were made smaller.
    shrunk: BTreeMap<Fault, usize>,
    /// Disagreements that were neither made smaller nor added.
    left: usize,
    known: BTreeMap<String, usize>,
    refusals: BTreeMap<String, usize>,
    deviations: Vec<Deviation>,
    normalizer: Normalizer,
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl Report {
    /// An empty one.
    ///
    /// # Panics
    /// `deviations.txt` is not what its head says.
    #[must_use]
    pub fn new() -> Self {
        let deviations = read_deviations(include_str!("deviations.txt"));
        assert!(deviations.len() <= DEVIATIONS_MAX, "too many deviations");
        Self {
            seen: Seen::default(),
            kinds: BTreeMap::new(),
            by_message: BTreeMap::new(),
            shrunk: BTreeMap::new(),
            left: 0,
            known: BTreeMap::new(),
            refusals: BTreeMap::new(),
            deviations,
            normalizer: Normalizer::new(),
        }
    }

    /// Counts a statement that the node says it cannot do.
    pub fn refuse(&mut self, message: &str) {
        let message = self.normalizer.message(message);
        *self.refusals.entry(message).or_default() += 1;
    }

    /// Whether a disagreement is like one before, or known, which is counted; otherwise it is worth to be made smaller and added.
    pub fn is_repeated(&mut self, difference: &Difference) -> bool {
        if let Some(key) = self.by_message.get(&self.message_key(difference)) {
            if let Some(kind) = self.kinds.get_mut(key) {
                kind.count += 1;
            }
            return true;
        }
        if has_message(difference.fault) {
            return false;
        }
        // These are many, and the type says enough.
        if difference.fault == Fault::Written && self.is_known(difference, "") {
            return true;
        }
        let shrunk = self.shrunk.entry(difference.fault).or_default();
        *shrunk += 1;
        let most = match difference.fault {
            Fault::Death | Fault::Hang => DEATHS_MAX,
            _ => SHRUNK_MAX,
        };
        let is_left = *shrunk > most;
        self.left += usize::from(is_left);
        is_left
    }

    fn is_known(&mut self, difference: &Difference, sql: &str) -> bool {
        let text = told(difference, sql);
        let known = self
            .deviations
            .iter()
            .find(|deviation| deviation.pattern.is_match(&text));
        if let Some(deviation) = known {
            *self.known.entry(deviation.reason.clone()).or_default() += 1;
        }
        known.is_some()
    }

    /// Adds a disagreement.
    pub fn add(&mut self, finding: &Finding) {
        let fault = finding.difference.fault;
        let sql = finding.script.sql();
        let shape = self.normalizer.shape(&finding.script.statement.tree.sql());
        let key = (fault, format!("{} {shape}", finding.difference.codes));
        if has_message(fault) {
            for difference in [&finding.difference, &finding.original] {
                let message = self.message_key(difference);
                self.by_message.insert(message, key.clone());
            }
        }
        if self.is_known(&finding.difference, &sql) {
            return;
        }
        let text = told(&finding.difference, &sql);
        let kind = self.kinds.entry(key).or_insert_with(|| Kind {
            count: 0,
            text: format!(
                "{text}\n-- seed {}, {} shards{}",
                finding.seed,
                finding.shards,
                if finding.is_shrunk {
                    ""
                } else {
                    ", as it was found"
                }
            ),
        });
        kind.count += 1;
    }

    /// That a seed could not be gone on with, which is as bad as the node's death.
    pub fn stop(&mut self, seed: u64, error: &anyhow::Error) {
        let text = format!("seed {seed} could not go on: {error:#}");
        let kind = Kind {
            count: 1,
            text: text.clone(),
        };
        self.kinds.insert((Fault::Death, text), kind);
    }

    /// How many kinds of disagreements there are.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.kinds.len()
    }

    /// Everything, the worst first.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (place, kind) in self.kinds.values().enumerate() {
            let _ = write!(
                text,
                "== {}. {} times\n{}\n\n",
                place + 1,
                kind.count,
                kind.text
            );
        }
        let _ = writeln!(text, "{:?}", self.seen);
        let _ = writeln!(
            text,
            "{} kinds of disagreements; {} disagreements more",
            self.kinds.len(),
            self.left
        );
        for (title, counts) in [
            ("known deviations", &self.known),
            ("not supported", &self.refusals),
        ] {
            let mut counts: Vec<(&String, &usize)> = counts.iter().collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let _ = writeln!(text, "{title}:");
            for (message, count) in counts {
                let _ = writeln!(text, "{count:6}  {message}");
            }
        }
        text
    }

    fn message_key(&self, difference: &Difference) -> String {
        if !has_message(difference.fault) {
            return String::new();
        }
        let lines = difference.description.lines();
        let errors: Vec<&str> = lines.filter(|line| line.contains("error ")).collect();
        let message = self.normalizer.message(&errors.join(" / "));
        format!("{:?} {} {message}", difference.fault, difference.codes)
    }
}

/// A disagreement as it is shown, and as deviations are patterns of.
fn told(difference: &Difference, sql: &str) -> String {
    format!("{:?}\n{sql};\n{}", difference.fault, difference.description)
}

/// Whether disagreements of a kind are told apart by what the servers say.
const fn has_message(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Internal | Fault::Accepted | Fault::Refused | Fault::Code
    )
}

fn read_deviations(text: &str) -> Vec<Deviation> {
    let mut deviations = Vec::new();
    let mut reason = String::new();
    for line in text.lines() {
        if let Some(text) = line.strip_prefix("reason: ") {
            text.clone_into(&mut reason);
        }
        if let Some(pattern) = line.strip_prefix("matches: ") {
            deviations.push(Deviation {
                reason: reason.clone(),
                pattern: Regex::new(pattern).expect("deviations.txt holds regular expressions"),
            });
        }
    }
    deviations
}

/// Takes names and values out of statements and messages.
#[derive(Debug)]
struct Normalizer {
    strings: Regex,
    identifiers: Regex,
    numbers: Regex,
    names: Regex,
}

impl Normalizer {
    fn new() -> Self {
        let regex = |pattern| Regex::new(pattern).expect("the pattern is one of those below");
        Self {
            strings: regex("'(?:[^']|'')*'"),
            identifiers: regex("\"[^\"]*\""),
            numbers: regex(r"\b\d+(?:\.\d+)?\b"),
            names: regex(r"\b[a-fostz]\d+\b"),
        }
    }

    fn shape(&self, sql: &str) -> String {
        let sql = self.strings.replace_all(sql, "''");
        let sql = self.names.replace_all(&sql, "x");
        self.numbers.replace_all(&sql, "0").into_owned()
    }

    fn message(&self, message: &str) -> String {
        let message = self.strings.replace_all(message, "''");
        let message = self.identifiers.replace_all(&message, "\"\"");
        self.numbers.replace_all(&message, "0").into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_have_reasons() {
        let deviations = read_deviations(include_str!("deviations.txt"));
        assert!(!deviations.is_empty());
        assert!(deviations.iter().all(|one| !one.reason.is_empty()));
    }

    #[test]
    fn statements_that_differ_in_names_and_values_have_one_shape() {
        let normalizer = Normalizer::new();
        let one = normalizer.shape("SELECT (s1.a2 + 3) FROM t0 AS s1 WHERE s1.u = 'it''s'");
        let other = normalizer.shape("SELECT (s7.b0 + 15) FROM t2 AS s7 WHERE s7.u = ''");
        assert_eq!(one, other);
    }
}
