//! What expressions, aggregates and window functions are made of: `signatures.txt`, `aggregates.txt` and `windows.txt`, each line for every type that it is
//! meant for.

use std::collections::BTreeMap;

use super::types::Type;

/// The classes of types that a line may stand for.
const CLASSES: [&str; 5] = ["T", "O", "N", "I", "E"];

/// An operator, a function, a cast or another form of expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Its parts.
    pub pieces: Vec<Piece>,
    /// Whether it may fail on calm values.
    pub fallible: bool,
    /// Whether the last digits of its floats are not the same everywhere.
    pub inexact: bool,
    /// Whether it leaves arguments unevaluated.
    pub lazy: bool,
    /// Whether it tells rows apart that are alike in what they are ordered by.
    pub ordered: bool,
    /// Whether the node gives PostgreSQL's answers today.
    pub held: bool,
    /// Whether it needs no parentheses.
    pub is_call: bool,
}

/// A part of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// SQL.
    Text(String),
    /// An argument of a type.
    Argument(Type),
    /// The argument before, again.
    Again,
}

/// All signatures.
#[derive(Debug)]
pub struct Signatures {
    by_result: BTreeMap<Type, Vec<Signature>>,
}

impl Signatures {
    /// Those of expressions.
    #[must_use]
    pub fn expressions() -> Self {
        Self::read(include_str!("signatures.txt"))
    }

    /// Those of aggregates.
    #[must_use]
    pub fn aggregates() -> Self {
        Self::read(include_str!("aggregates.txt"))
    }

    /// Those of window functions, without the window.
    #[must_use]
    pub fn windows() -> Self {
        Self::read(include_str!("windows.txt"))
    }

    /// # Panics
    /// A line is not what the head of its file says.
    fn read(text: &str) -> Self {
        let mut by_result: BTreeMap<Type, Vec<Signature>> = BTreeMap::new();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let read = read_line(line);
            assert!(!read.is_empty(), "no signature: {line}");
            for (result, signature) in read {
                by_result.entry(result).or_default().push(signature);
            }
        }
        Self { by_result }
    }

    /// All that never fail and hold, or simply all that never fail, with their results.
    #[must_use]
    pub fn all(&self, full: bool) -> Vec<(Type, &Signature)> {
        self.by_result
            .iter()
            .flat_map(|(result, signatures)| signatures.iter().map(|one| (*result, one)))
            .filter(|(_, one)| !one.fallible && (full || (one.held && !one.inexact)))
            .collect()
    }

    /// Those whose result is of a type.
    #[must_use]
    pub fn of(&self, result: Type) -> &[Signature] {
        self.by_result
            .get(&result)
            .map_or(&[], |signatures| signatures.as_slice())
    }
}

/// The signatures that a line stands for; none if it cannot be read.
fn read_line(line: &str) -> Vec<(Type, Signature)> {
    let Some((head, template)) = line.split_once(": ") else {
        return Vec::new();
    };
    let (result, flags) = head.split_once(' ').unwrap_or((head, ""));
    let (flags, absent) = flags
        .split_once('-')
        .map_or((flags, None), |(flags, rest)| {
            (flags, Some(rest.trim_matches(['(', ')', ' '])))
        });
    let signature = |template: &str, variable: Option<Type>| Signature {
        pieces: pieces(template),
        fallible: flags.contains('!'),
        inexact: flags.contains('~'),
        lazy: flags.contains('&'),
        ordered: flags.contains('='),
        held: absent.is_none_or(|types| {
            !types.is_empty()
                && variable
                    .is_none_or(|variable| types.split(',').all(|name| name != variable.name()))
        }),
        is_call: is_call(template),
    };
    let class = CLASSES.into_iter().find(|class| {
        template.contains(&format!("{{{class}}}")) || template.contains(&format!("{{{class}[]}}"))
    });
    let Some(class) = class else {
        let result = Type::named(result);
        return result
            .map(|result| (result, signature(template, None)))
            .into_iter()
            .collect();
    };
    Type::all()
        .filter(|variable| variable.is(class))
        .filter_map(|variable| {
            let template = template
                .replace(&format!("{{{class}}}"), &format!("{{{}}}", variable.name()))
                .replace(
                    &format!("{{{class}[]}}"),
                    &format!("{{{}[]}}", variable.name()),
                )
                .replace(&format!("::{class}"), &format!("::{}", variable.name()));
            let result = match result.strip_prefix(class) {
                Some("") => Some(variable),
                Some("[]") => variable.array(),
                _ => Type::named(result),
            };
            Some((result?, signature(&template, Some(variable))))
        })
        .collect()
}

/// The parts of a template. Braces around something else than a type are SQL.
fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let argument = after.split_once('}').and_then(|(name, after)| {
            let piece = match name {
                "" => Piece::Again,
                name => Piece::Argument(Type::named(name)?),
            };
            Some((piece, after))
        });
        match argument {
            Some((piece, after)) => {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(piece);
                rest = after;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    pieces.push(Piece::Text(text));
    pieces
}

/// Whether a template is a single call of a function.
fn is_call(template: &str) -> bool {
    let Some((name, arguments)) = template.split_once('(') else {
        return false;
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_name) && arguments.find([')', '(']) == arguments.len().checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqldiff::types::{BOOL, INT4, TEXT};

    #[test]
    fn a_line_is_a_signature_for_each_type_of_its_class() {
        assert!(!Signatures::aggregates().all(false).is_empty());
        assert!(!Signatures::windows().all(false).is_empty());
        let signatures = Signatures::expressions();
        for result in Type::all() {
            assert!(!signatures.of(result).is_empty(), "{result:?}");
        }
        let of_arrays = read_line("E[] !-(text): {E[]} || {E}");
        let texts = Type::named("text[]").unwrap();
        let (_, signature) = of_arrays
            .iter()
            .find(|(result, _)| *result == texts)
            .unwrap();
        assert_eq!(
            signature.pieces,
            [
                Piece::Text(String::new()),
                Piece::Argument(texts),
                Piece::Text(" || ".to_owned()),
                Piece::Argument(TEXT),
                Piece::Text(String::new()),
            ]
        );
        assert!(signature.fallible && !signature.held && !signature.is_call);
        let others = of_arrays.iter().filter(|(result, _)| *result != texts);
        assert!(others.map(|(_, signature)| signature).all(|one| one.held));
    }

    #[test]
    fn braces_of_sql_stay_and_a_call_is_known() {
        let (result, signature) = &read_line("bool : jsonb_path_exists({jsonb}, '{a,b}')")[0];
        assert_eq!(*result, BOOL);
        assert_eq!(
            signature.pieces.last(),
            Some(&Piece::Text(", '{a,b}')".to_owned()))
        );
        assert!(signature.is_call && signature.held);
        assert!(!read_line("int4 : abs({int4}) + abs({int4})")[0].1.is_call);
        assert!(!read_line("int4 -: ~ {int4}")[0].1.held);
        assert_eq!(read_line("int4 : {int4}")[0].0, INT4);
    }
}
