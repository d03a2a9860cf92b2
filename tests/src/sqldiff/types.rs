//! The types of columns and expressions, and their values: `types.txt`.
//!
//! Must not know what is made of them.

use std::sync::LazyLock;

use super::random::Random;

/// A type, by its name in PostgreSQL's catalog; those of `types.txt` are all there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type(&'static str);

/// `boolean`.
pub const BOOL: Type = Type("bool");
/// `integer`.
pub const INT4: Type = Type("int4");
/// `bigint`.
pub const INT8: Type = Type("int8");
/// `text`.
pub const TEXT: Type = Type("text");

#[derive(Debug)]
struct Description {
    name: Type,
    classes: Vec<&'static str>,
    declared: Vec<&'static str>,
    calm: Vec<&'static str>,
    wild: Vec<&'static str>,
}

static DESCRIPTIONS: LazyLock<Vec<Description>> = LazyLock::new(|| read(include_str!("types.txt")));

/// Whether values and operations may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// No evaluation fails, whatever is evaluated and in which order.
    Calm,
    /// Anything may fail; what is evaluated must not depend on a plan.
    Wild,
}

impl Type {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        DESCRIPTIONS.iter().map(|description| description.name)
    }

    /// The type of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|known| known.0 == name)
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// Whether it is of a class, as `types.txt` calls it; all are of `T`.
    #[must_use]
    pub fn is(self, class: &str) -> bool {
        class == "T"
            || self
                .description()
                .is_some_and(|description| description.classes.contains(&class))
    }

    /// The ways to declare a column of it; the first is the usual one.
    #[must_use]
    pub fn declared(self) -> &'static [&'static str] {
        self.description()
            .map_or(&[], |description| description.declared.as_slice())
    }

    /// The type of arrays of it.
    #[must_use]
    pub fn array(self) -> Option<Self> {
        Self::named(&format!("{}[]", self.0))
    }

    /// Whether it is an array's.
    #[must_use]
    pub fn is_array(self) -> bool {
        self.0.ends_with("[]")
    }

    /// How a cast to it is written. A `char` without a length is one of length 1.
    #[must_use]
    pub fn cast(self) -> &'static str {
        match self.0 {
            "bpchar" => "char(4)",
            name => name,
        }
    }

    /// A value as text, or NULL.
    pub fn value(self, mood: Mood, random: &mut Random) -> Option<&'static str> {
        if random.chance(15) {
            return None;
        }
        self.literal_text(mood, random)
    }

    /// A value as text.
    pub fn literal_text(self, mood: Mood, random: &mut Random) -> Option<&'static str> {
        let description = self.description()?;
        let values = if mood == Mood::Wild && random.chance(40) {
            &description.wild
        } else {
            &description.calm
        };
        random.pick(values).copied()
    }

    /// The value that a shrunken statement has in a place where it does not matter.
    #[must_use]
    pub fn plain_value(self) -> Option<&'static str> {
        self.description()?.calm.get(1).copied()
    }

    /// A value with a cast to this type; the simplest ones without.
    #[must_use]
    pub fn literal(self, value: &str) -> String {
        match self.0 {
            "bool" if value == "t" => "true".to_owned(),
            "bool" if value == "f" => "false".to_owned(),
            "int4" if value.bytes().all(|byte| byte.is_ascii_digit()) => value.to_owned(),
            _ => format!("{}::{}", quoted(value), self.cast()),
        }
    }

    fn description(self) -> Option<&'static Description> {
        DESCRIPTIONS
            .iter()
            .find(|description| description.name == self)
    }
}

/// A text as a literal without a type.
#[must_use]
pub fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn read(text: &'static str) -> Vec<Description> {
    let mut descriptions: Vec<Description> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            descriptions.push(Description {
                name: Type(name),
                classes: Vec::new(),
                declared: Vec::new(),
                calm: Vec::new(),
                wild: Vec::new(),
            });
        }
        let Some((key, values)) = line.split_once(": ") else {
            continue;
        };
        let Some(description) = descriptions.last_mut() else {
            continue;
        };
        let values = |separator: &str| -> Vec<&'static str> {
            values
                .split(separator)
                .map(|value| if value == "EMPTY" { "" } else { value })
                .collect()
        };
        match key {
            "classes" => description.classes = values(" "),
            "declared" => description.declared = values(" ~ "),
            "calm" => description.calm = values(" ~ "),
            "wild" => description.wild = values(" ~ "),
            _ => {}
        }
    }
    descriptions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_can_be_declared_and_has_values() {
        for description in DESCRIPTIONS.iter() {
            assert!(!description.declared.is_empty(), "{description:?}");
            assert!(description.calm.len() > 1, "{description:?}");
            assert!(!description.wild.is_empty(), "{description:?}");
        }
        for known in [BOOL, INT4, INT8, TEXT] {
            assert!(known.description().is_some(), "{known:?}");
        }
    }
}
