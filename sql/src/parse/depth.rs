//! How deep the tree of a statement will be, told from its tokens: what `sqlparser` reads in a loop, as `a + b + c` and `SELECT … UNION SELECT …`, becomes a
//! tree as deep as it is long, and whoever copies or drops such a tree recurses.
//!
//! Owns the limits. Must not know what the tokens mean beyond that. Called for every text, before anything is built of it.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Operators that may follow each other without parentheses, commas or a clause between them.
const OPERATORS_MAX: usize = 1_000;
/// Conditions joined by AND. They are read as a tree that is not deep, but DataFusion makes a deep one of them, and compares each with each.
const ANDS_MAX: usize = 1_000;
/// Conditions joined by OR, which stay a tree that is not deep.
const ORS_MAX: usize = 10_000;
/// Set operations that differ from the one before, and joins of one FROM clause.
const OPERANDS_MAX: usize = 250;
/// Queries that set operations join. A run of the same operation is read as a tree that is not deep.
const QUERIES_MAX: usize = 10_000;

/// One pair of parentheses, or the statement.
#[derive(Debug, Default)]
struct Level {
    operators: usize,
    ands: usize,
    ors: usize,
    joins: usize,
    /// Set operations, and how many of them are another one than the one before.
    sets: usize,
    changes: usize,
    /// The last set operation, and whether it was one with ALL.
    last: Option<(Keyword, bool)>,
}

impl Level {
    /// Another expression begins.
    const fn begin(&mut self) {
        self.operators = 0;
        self.ands = 0;
        self.ors = 0;
    }
}

/// The index of the token at which a statement becomes too deep, if it does.
pub(super) fn too_deep(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut levels = vec![Level::default()];
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => levels.push(Level::default()),
            Token::RParen => {
                if levels.len() > 1 {
                    levels.pop();
                }
            }
            Token::SemiColon => levels = vec![Level::default()],
            other => {
                let level = levels.last_mut()?;
                match role(other) {
                    Role::Operator => level.operators += 1,
                    Role::And => {
                        level.operators = 0;
                        level.ands += 1;
                    }
                    Role::Or => {
                        level.operators = 0;
                        level.ands = 0;
                        level.ors += 1;
                    }
                    Role::Border => level.begin(),
                    Role::Query => {
                        level.begin();
                        level.joins = 0;
                    }
                    Role::Join => {
                        level.begin();
                        level.joins += 1;
                    }
                    Role::Set(keyword) => {
                        let set = Some((keyword, is_all(tokens, index)));
                        level.begin();
                        level.joins = 0;
                        level.sets += 1;
                        if keyword == Keyword::EXCEPT || level.last != set {
                            level.changes += 1;
                        }
                        level.last = set;
                    }
                    Role::Part => {}
                }
                if level.operators > OPERATORS_MAX
                    || level.ands > ANDS_MAX
                    || level.ors > ORS_MAX
                    || level.joins.max(level.changes) > OPERANDS_MAX
                    || level.sets > QUERIES_MAX
                {
                    return Some(index);
                }
            }
        }
    }
    None
}

/// Whether ALL follows the token with an index.
fn is_all(tokens: &[TokenWithSpan], index: usize) -> bool {
    let next = tokens
        .iter()
        .skip(index + 1)
        .find(|token| !matches!(token.token, Token::Whitespace(_)));
    next.is_some_and(
        |next| matches!(&next.token, Token::Word(word) if word.keyword == Keyword::ALL),
    )
}

enum Role {
    /// Makes the tree of an expression deeper.
    Operator,
    /// Another expression begins.
    Border,
    /// Another query begins.
    Query,
    /// Makes the tree of a FROM clause deeper.
    Join,
    /// Makes the tree of a query deeper.
    Set(Keyword),
    /// Belongs to a chain of ANDs.
    And,
    /// Belongs to a chain of ORs, and begins another one of ANDs.
    Or,
    /// None of these.
    Part,
}

fn role(token: &Token) -> Role {
    match token {
        Token::Word(word) if word.quote_style.is_none() => match word.keyword {
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => Role::Set(word.keyword),
            Keyword::JOIN => Role::Join,
            Keyword::SELECT => Role::Query,
            Keyword::IS
            | Keyword::NOTNULL
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::BETWEEN
            | Keyword::IN
            | Keyword::AT
            | Keyword::COLLATE
            | Keyword::OPERATOR => Role::Operator,
            Keyword::AND => Role::And,
            Keyword::OR => Role::Or,
            Keyword::FROM
            | Keyword::WHERE
            | Keyword::HAVING
            | Keyword::GROUP
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::ON
            | Keyword::VALUES => Role::Border,
            _ if word.value.eq_ignore_ascii_case("isnull") => Role::Operator,
            _ => Role::Part,
        },
        Token::Comma => Role::Border,
        Token::Word(_)
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::Whitespace(_)
        | Token::Period
        | Token::RBracket
        | Token::Placeholder(_)
        | Token::EOF => Role::Part,
        _ => Role::Operator,
    }
}

#[cfg(test)]
mod tests {
    use crate::error::ErrorKind;
    use crate::parse::parse;

    #[test]
    fn what_is_long_but_flat_is_taken() {
        let list = vec!["1 + 1"; 20_000].join(", ");
        let rows = vec!["(1, 'a')"; 20_000].join(", ");
        let cases = "WHEN a = 1 THEN b ".repeat(2_000);
        for text in [
            format!("SELECT {list}"),
            format!("SELECT a IN ({list}) FROM t"),
            format!("SELECT {}", vec!["a"; 1_000].join(" AND ")),
            format!("SELECT {}", vec!["a = 1 AND b"; 10_000].join(" OR ")),
            format!("INSERT INTO t VALUES {rows}"),
            format!("SELECT CASE {cases} END"),
            vec!["SELECT 1 + 1"; 3_000].join("; "),
            vec!["SELECT a FROM t JOIN u ON true"; 5_000].join(" UNION ALL "),
        ] {
            parse(&text).unwrap();
        }
    }

    #[test]
    fn what_becomes_deep_is_refused_at_the_token_that_is_too_much() {
        for (text, limit) in [
            (vec!["1"; 200_000].join("+"), 2_100),
            (vec!["a"; 200_000].join(" AND "), 7_000),
            (vec!["a"; 200_000].join(" OR "), 51_000),
            (format!("1{}", "::int".repeat(200_000)), 9_000),
            (format!("1{}", " IS NULL".repeat(200_000)), 9_000),
            (format!("a{}", "[1]".repeat(200_000)), 9_000),
            (vec!["1"; 100_000].join(" UNION SELECT "), 170_000),
            (vec!["1"; 100_000].join(" EXCEPT SELECT "), 5_000),
            (
                vec!["1"; 100_000].join(" UNION SELECT 1 UNION ALL SELECT "),
                9_000,
            ),
            (
                format!("* FROM a{}", " JOIN a ON true".repeat(100_000)),
                5_000,
            ),
        ] {
            let error = parse(&format!("SELECT {text}")).unwrap_err();
            assert_eq!(error.kind, ErrorKind::TooComplex, "{error}");
            assert!(error.position.unwrap() < limit, "{:?}", error.position);
        }
    }
}
