//! Random expressions of a type, over what a scope offers.
//!
//! Must not know queries: subqueries, aggregates and windows are entries of a scope like columns.

use super::profile::Profile;
use super::random::Random;
use super::signatures::{Piece, Signature, Signatures};
use super::tree::Tree;
use super::types::{BOOL, Mood, Type};

/// Something that an expression can be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How it is written.
    pub tree: Tree,
    /// Its type.
    pub r#type: Type,
}

impl Entry {
    /// A name, or SQL that needs no parentheses.
    #[must_use]
    pub fn new(sql: String, r#type: Type) -> Self {
        Self {
            tree: Tree::expression(r#type, Tree::Text(sql)),
            r#type,
        }
    }
}

/// What the expressions of a statement are made of, as far as comparisons must know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Floats whose last digits are not the same everywhere.
    pub inexact: bool,
    /// How many operations there are.
    pub operations: usize,
    /// Whether one of several values that are equal, and may be written differently, stands for all.
    pub merged: bool,
}

/// Makes expressions.
#[derive(Debug)]
pub struct Expressions {
    /// Where the choices come from.
    pub random: Random,
    /// How much is tried.
    pub profile: Profile,
    /// Whether they may fail.
    pub mood: Mood,
    /// What was made since this was cleared.
    pub notes: Notes,
    signatures: Signatures,
}

impl Expressions {
    /// Those of a seed.
    #[must_use]
    pub fn new(profile: Profile, random: Random) -> Self {
        Self {
            random,
            profile,
            mood: Mood::Calm,
            notes: Notes::default(),
            signatures: Signatures::expressions(),
        }
    }

    /// An expression of a type.
    pub fn of(&mut self, r#type: Type, scope: &[Entry], depth: usize) -> Tree {
        if depth == 0 || self.random.chance(30) {
            return self.leaf(r#type, scope);
        }
        match self.signature(r#type) {
            Some(signature) => self.apply(&signature, r#type, scope, depth),
            None => self.leaf(r#type, scope),
        }
    }

    /// A condition. In the tests it asks for something: one that never holds is pushed below aggregates today.
    pub fn condition(&mut self, scope: &[Entry], depth: usize) -> Tree {
        let condition = self.of(BOOL, scope, depth);
        if self.profile.is_full() || condition.sql().contains('.') {
            return condition;
        }
        match self.random.pick(scope) {
            Some(entry) => {
                let parts = vec![entry.tree.clone(), Tree::text(" IS NOT NULL")];
                Tree::expression(BOOL, Tree::Sequence(parts))
            }
            None => condition,
        }
    }

    /// A type: mostly one that the scope has.
    pub fn r#type(&mut self, scope: &[Entry]) -> Type {
        let types = self.profile.types();
        let any = self.random.pick(&types).copied().unwrap_or(BOOL);
        if self.random.chance(25) {
            return any;
        }
        self.random.pick(scope).map_or(any, |entry| entry.r#type)
    }

    /// A literal, mostly with its type.
    pub fn literal(&mut self, r#type: Type) -> Tree {
        if self.mood == Mood::Calm && self.random.chance(8) {
            let null = if self.profile.is_full() && self.random.chance(10) {
                "NULL".to_owned()
            } else {
                format!("NULL::{}", r#type.cast())
            };
            return Tree::expression(r#type, Tree::Text(null));
        }
        let value = r#type
            .literal_text(self.mood, &mut self.random)
            .unwrap_or("");
        let text = if self.profile.is_full() && self.random.chance(3) {
            super::types::quoted(value)
        } else {
            r#type.literal(value)
        };
        Tree::expression(r#type, Tree::Text(text))
    }

    /// An operation whose arguments are of types that it is not meant for.
    pub fn mismatched(&mut self, scope: &[Entry]) -> Tree {
        let types: Vec<Type> = Type::all().collect();
        let result = self.random.pick(&types).copied().unwrap_or(BOOL);
        let Some(mut signature) = self.signature(result) else {
            return self.leaf(result, scope);
        };
        for piece in &mut signature.pieces {
            if let Piece::Argument(r#type) = piece
                && self.random.chance(60)
            {
                *r#type = self.random.pick(&types).copied().unwrap_or(BOOL);
            }
        }
        self.apply(&signature, result, scope, 1)
    }

    fn leaf(&mut self, r#type: Type, scope: &[Entry]) -> Tree {
        if self.random.chance(85) {
            let fitting: Vec<&Entry> = scope
                .iter()
                .filter(|entry| entry.r#type == r#type)
                .collect();
            if let Some(entry) = self.random.pick(&fitting) {
                return entry.tree.clone();
            }
            if let Some(tree) = self.converted(r#type, scope) {
                return tree;
            }
        }
        self.literal(r#type)
    }

    /// An entry of another type, by a cast that never fails.
    fn converted(&mut self, r#type: Type, scope: &[Entry]) -> Option<Tree> {
        let from: &[&str] = match r#type.name() {
            "int4" => &["int2"],
            "int8" => &["int4", "int2"],
            "numeric" => &["int8", "int4", "int2"],
            "float8" => &["int4", "float4", "numeric"],
            "text" => &["varchar", "bpchar", "int4", "uuid", "date"],
            "timestamp" => &["date", "timestamptz"],
            "timestamptz" => &["date", "timestamp"],
            "date" => &["timestamp"],
            _ => return None,
        };
        let fitting: Vec<&Entry> = scope
            .iter()
            .filter(|entry| from.contains(&entry.r#type.name()))
            .collect();
        let entry = *self.random.pick(&fitting)?;
        let cast = vec![
            Tree::text("("),
            entry.tree.clone(),
            Tree::text(format!(")::{}", r#type.cast())),
        ];
        Some(Tree::expression(r#type, Tree::Sequence(cast)))
    }

    fn signature(&mut self, result: Type) -> Option<Signature> {
        let (profile, mood) = (self.profile, self.mood);
        let fitting: Vec<&Signature> = self
            .signatures
            .of(result)
            .iter()
            .filter(|signature| {
                (profile.is_full() || (signature.held && !signature.inexact))
                    && match mood {
                        Mood::Calm => !signature.fallible,
                        Mood::Wild => !signature.lazy,
                    }
            })
            .collect();
        self.random.pick(&fitting).map(|chosen| (*chosen).clone())
    }

    /// A signature with arguments.
    pub fn apply(
        &mut self,
        signature: &Signature,
        result: Type,
        scope: &[Entry],
        depth: usize,
    ) -> Tree {
        self.notes.inexact |= signature.inexact;
        self.notes.operations += 1;
        // What stands twice must stay the same in both places: it is no part of its own.
        let again = signature.pieces.contains(&Piece::Again);
        let mut last = String::new();
        let mut parts = Vec::new();
        for piece in &signature.pieces {
            parts.push(match piece {
                Piece::Text(text) => Tree::text(text.as_str()),
                Piece::Argument(r#type) if again => {
                    last = self.leaf(*r#type, scope).sql();
                    Tree::text(last.as_str())
                }
                Piece::Argument(r#type) => {
                    let argument = self.of(*r#type, scope, depth.saturating_sub(1));
                    // A cast of a literal binds closer than the operator before it.
                    Tree::Sequence(vec![Tree::text("("), argument, Tree::text(")")])
                }
                Piece::Again => Tree::text(last.as_str()),
            });
        }
        let inner = if signature.is_call {
            Tree::Sequence(parts)
        } else {
            Tree::Sequence(vec![
                Tree::text("("),
                Tree::Sequence(parts),
                Tree::text(")"),
            ])
        };
        Tree::expression(result, inner)
    }
}
