//! Which operator binds tighter: PostgreSQL's table, and the grammar around it that a table does not say.
//!
//! Owns precedence and associativity of everything between two expressions. Must not know what operators mean. Called by the dialect, which `sqlparser` asks.
//!
//! Invariants. From loose to tight: OR, AND, NOT, IS, comparisons, BETWEEN IN LIKE, all other operators, + -, * / %, ^, AT TIME ZONE, COLLATE, signs,
//! subscripts, `::`, the period. IS, comparisons and BETWEEN do not associate: `a < b = c` is an error. A prefix operator takes all that binds tighter than it,
//! whatever stands before it.

use sqlparser::ast::{BinaryOperator, Expr};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Word};

pub(super) const OR: u8 = 10;
pub(super) const AND: u8 = 20;
pub(super) const NOT: u8 = 30;
pub(super) const IS: u8 = 40;
pub(super) const COMPARISON: u8 = 50;
/// BETWEEN, IN, LIKE, ILIKE, SIMILAR TO.
pub(super) const RANGE: u8 = 60;
/// Every operator without a line of its own.
pub(super) const OTHER: u8 = 70;
pub(super) const SUM: u8 = 80;
pub(super) const PRODUCT: u8 = 90;
pub(super) const POWER: u8 = 100;
pub(super) const AT: u8 = 110;
pub(super) const COLLATE: u8 = 120;
pub(super) const SIGN: u8 = 125;
pub(super) const SUBSCRIPT: u8 = 130;
pub(super) const CAST: u8 = 140;
pub(super) const PERIOD: u8 = 200;
/// Ends an expression.
const NONE: u8 = 0;

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Anywhere,
    /// Between BETWEEN and AND, where only part of the grammar is allowed.
    Low,
}

/// How tight the next token binds.
pub(super) fn next(parser: &Parser<'_>, place: Place) -> u8 {
    let precedence = match &parser.peek_token_ref().token {
        Token::Word(word) => of_word(parser, word),
        Token::Eq | Token::Neq | Token::Lt | Token::LtEq | Token::Gt | Token::GtEq => COMPARISON,
        Token::Plus | Token::Minus => SUM,
        Token::Mul | Token::Div | Token::Mod => PRODUCT,
        Token::Caret => POWER,
        Token::LBracket => SUBSCRIPT,
        Token::DoubleColon => CAST,
        Token::Period => PERIOD,
        other if is_other(other) => OTHER,
        _ => NONE,
    };
    match place {
        Place::Anywhere => precedence,
        Place::Low => match precedence {
            IS if is_distinct(parser) => IS,
            IS | AND | OR | RANGE | AT | COLLATE => NONE,
            other => other,
        },
    }
}

fn keyword(parser: &Parser<'_>, ahead: usize) -> Keyword {
    match &parser.peek_nth_token_ref(ahead).token {
        Token::Word(word) => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

fn of_word(parser: &Parser<'_>, word: &Word) -> u8 {
    match word.keyword {
        Keyword::OR => OR,
        Keyword::AND => AND,
        Keyword::IS | Keyword::NOTNULL => IS,
        Keyword::IN
        | Keyword::BETWEEN
        | Keyword::LIKE
        | Keyword::ILIKE
        | Keyword::SIMILAR
        | Keyword::OVERLAPS => RANGE,
        Keyword::NOT => match keyword(parser, 1) {
            Keyword::IN | Keyword::BETWEEN | Keyword::LIKE | Keyword::ILIKE | Keyword::SIMILAR => {
                RANGE
            }
            _ => NONE,
        },
        Keyword::AT if keyword(parser, 1) == Keyword::TIME => AT,
        Keyword::COLLATE => COLLATE,
        Keyword::OPERATOR if parser.peek_nth_token_ref(1).token == Token::LParen => OTHER,
        _ if is_isnull(word) => IS,
        _ => NONE,
    }
}

/// `ISNULL`, which is no keyword to `sqlparser`.
pub(super) fn is_isnull(word: &Word) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case("isnull")
}

/// Whether `IS [NOT] DISTINCT FROM` comes next.
pub(super) fn is_distinct(parser: &Parser<'_>) -> bool {
    let not = usize::from(keyword(parser, 1) == Keyword::NOT);
    keyword(parser, 0) == Keyword::IS && keyword(parser, 1 + not) == Keyword::DISTINCT
}

const fn is_other(token: &Token) -> bool {
    matches!(
        token,
        Token::Arrow
            | Token::LongArrow
            | Token::HashArrow
            | Token::HashLongArrow
            | Token::HashMinus
            | Token::AtArrow
            | Token::ArrowAt
            | Token::AtQuestion
            | Token::AtAt
            | Token::AtSign
            | Token::Question
            | Token::QuestionAnd
            | Token::QuestionPipe
            | Token::Overlap
            | Token::CaretAt
            | Token::StringConcat
            | Token::Sharp
            | Token::ShiftLeft
            | Token::ShiftRight
            | Token::Ampersand
            | Token::Pipe
            | Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk
            | Token::CustomBinaryOperator(_)
    )
}

/// What is expected before an operator that does not associate with what stands there.
pub(super) const CHAINED: &str = "parentheses around what stands before it";

/// Whether an operator of precedence `next` may follow `left` without parentheses around it.
pub(super) const fn may_follow(left: &Expr, next: u8) -> bool {
    match left {
        Expr::BinaryOp { op, .. } if is_comparison(op) => next != COMPARISON,
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => next != IS,
        Expr::Between { .. } => next != RANGE,
        Expr::Like {
            any, escape_char, ..
        }
        | Expr::ILike {
            any, escape_char, ..
        } => *any || next < RANGE || next > RANGE && escape_char.is_none(),
        Expr::SimilarTo { escape_char, .. } => {
            next < RANGE || next > RANGE && escape_char.is_none()
        }
        _ => true,
    }
}

const fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

#[cfg(test)]
mod tests {
    use sqlparser::ast::{Expr, VisitMut, VisitorMut};

    use crate::error::ErrorKind;
    use crate::parse::{expr_text, parse_expr};

    /// Puts parentheses around everything that has operands.
    struct Parentheses;

    impl VisitorMut for Parentheses {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> std::ops::ControlFlow<()> {
            if let Expr::Nested(inner) = expr
                && matches!(**inner, Expr::Nested(_))
            {
                *expr = std::mem::replace(inner, Expr::value(sqlparser::ast::Value::Null));
            }
            let plain = matches!(
                expr,
                Expr::Identifier(_) | Expr::Value(_) | Expr::Nested(_) | Expr::Function(_)
            );
            if !plain {
                let inner = std::mem::replace(expr, Expr::value(sqlparser::ast::Value::Null));
                *expr = Expr::Nested(Box::new(inner));
            }
            std::ops::ControlFlow::Continue(())
        }
    }

    /// The tree of an expression as text; "error" if it is none.
    fn tree(text: &str) -> String {
        match parse_expr(text) {
            Ok(mut expr) => {
                // What is kept of it is read as the same tree.
                assert!(expr_text(&expr).is_ok(), "{text} cannot be kept");
                let _ = VisitMut::visit(&mut expr, &mut Parentheses);
                expr.to_string()
            }
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Syntax, "{text}: {error}");
                "error".to_owned()
            }
        }
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Side {
        Left,
        Neither,
    }

    /// Operators between two operands, loose ones first; those of one line bind equally tight.
    const INFIX: [(&[&str], Side); 10] = [
        (&["OR"], Side::Left),
        (&["AND"], Side::Left),
        (&["IS DISTINCT FROM", "IS NOT DISTINCT FROM"], Side::Neither),
        (&["=", "<>", "<", "<=", ">", ">="], Side::Neither),
        (&["LIKE", "NOT LIKE", "ILIKE", "SIMILAR TO"], Side::Neither),
        (
            &[
                "||",
                "->",
                "->>",
                "#>",
                "@>",
                "<@",
                "&&",
                "&",
                "|",
                "#",
                "<<",
                ">>",
                "~",
                "!~",
                "~*",
                "~~",
                "!~~",
                "!~~*",
                "^@",
                "<->",
                "OPERATOR(pg_catalog.+)",
            ],
            Side::Left,
        ),
        (&["+", "-"], Side::Left),
        (&["*", "/", "%"], Side::Left),
        (&["^"], Side::Left),
        (&["AT TIME ZONE"], Side::Left),
    ];

    /// Operators behind one operand, each with the line of the table above that it is in, or behind which it stands.
    const POSTFIX: [(&str, &str, f32); 9] = [
        ("IS NULL", "IS NULL", 2.0),
        ("IS NOT NULL", "IS NOT NULL", 2.0),
        ("ISNULL", "IS NULL", 2.0),
        ("NOTNULL", "IS NOT NULL", 2.0),
        ("IS NOT TRUE", "IS NOT TRUE", 2.0),
        ("IN (x)", "IN (x)", 4.0),
        ("NOT IN (x)", "NOT IN (x)", 4.0),
        ("COLLATE z", "COLLATE z", 10.0),
        ("::int", "::INT", 12.0),
    ];

    /// Operators before one operand.
    const PREFIX: [(&str, &str, f32); 4] = [
        ("NOT", "NOT ", 1.5),
        ("@ ", "@", 5.0),
        ("~ ", "~", 5.0),
        ("- ", "-", 11.0),
    ];

    fn infix() -> impl Iterator<Item = (&'static str, Side, f32)> {
        let levels = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        INFIX
            .iter()
            .zip(levels)
            .flat_map(|((names, side), level)| names.iter().map(move |name| (*name, *side, level)))
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(tree(text), expected, "{text}");
    }

    /// `x op`, written as the tree has it.
    fn behind(operand: &str, op: &str) -> String {
        if op.starts_with("::") {
            format!("({operand}{op})")
        } else {
            format!("({operand} {op})")
        }
    }

    #[test]
    fn every_pair_of_operators_groups_as_in_postgresql() {
        for (first, side, outer) in infix() {
            for (second, _, inner) in infix() {
                let left = format!("((a {first} b) {second} c)");
                let right = format!("(a {first} (b {second} c))");
                let expected = if inner > outer {
                    right
                } else if inner < outer || side == Side::Left {
                    left
                } else {
                    "error".to_owned()
                };
                check(&format!("a {first} b {second} c"), &expected);
            }
        }
    }

    #[test]
    fn operators_with_one_operand_bind_as_in_postgresql() {
        for (op, _, level) in infix() {
            for (postfix, written, tight) in POSTFIX {
                let expected = if tight > level {
                    format!("(a {op} {})", behind("b", written))
                } else if tight < level {
                    behind(&format!("(a {op} b)"), written)
                } else {
                    "error".to_owned()
                };
                check(&format!("a {op} b {postfix}"), &expected);
                if !postfix.starts_with("COLLATE") {
                    // What is complete may be the operand of anything.
                    let operand = behind("a", written);
                    check(
                        &format!("a {postfix} {op} b"),
                        &format!("({operand} {op} b)"),
                    );
                }
            }
            for (prefix, written, loose) in PREFIX {
                let expected = if level > loose {
                    format!("({written}(a {op} b))")
                } else {
                    format!("(({written}a) {op} b)")
                };
                check(&format!("{prefix} a {op} b"), &expected);
                // Behind an operator it takes what binds tighter than itself, and no more.
                let expected = format!("(a {op} ({written}b))");
                check(&format!("a {op} {prefix} b"), &expected);
            }
        }
        for (prefix, written, loose) in PREFIX {
            for (postfix, behind_it, tight) in POSTFIX {
                let expected = if tight > loose {
                    format!("({written}{})", behind("a", behind_it))
                } else {
                    behind(&format!("({written}a)"), behind_it)
                };
                check(&format!("{prefix} a {postfix}"), &expected);
            }
        }
    }

    #[test]
    fn what_a_table_does_not_say_groups_as_in_postgresql() {
        for (text, expected) in [
            ("-2 ^ 2", "((-2) ^ 2)"),
            ("2 ^ -2 ^ 2", "((2 ^ (-2)) ^ 2)"),
            ("- - 1", "(-(-1))"),
            ("- + - a", "(-(+(-a)))"),
            ("-a::int", "(-(a::INT))"),
            ("a * - b * c", "((a * (-b)) * c)"),
            ("a ^ @ b + c", "(a ^ (@(b + c)))"),
            ("a = NOT b = c", "(a = (NOT (b = c)))"),
            ("NOT a IS NULL", "(NOT (a IS NULL))"),
            ("NOT NOT a", "(NOT (NOT a))"),
            ("a = b IS NULL", "((a = b) IS NULL)"),
            ("a IS NULL IS NULL", "((a IS NULL) IS NULL)"),
            ("a IN (x) IN (y)", "((a IN (x)) IN (y))"),
            ("a IS NULL = b", "((a IS NULL) = b)"),
            (
                "a IS DISTINCT FROM b AND c",
                "((a IS DISTINCT FROM b) AND c)",
            ),
            (
                "a IS NOT DISTINCT FROM b + 1 OR c",
                "((a IS NOT DISTINCT FROM (b + 1)) OR c)",
            ),
            ("a IS DISTINCT FROM b IS NULL", "error"),
            ("a < b = c", "error"),
            ("a = b < c", "error"),
            ("(a = b) = c", "((a = b) = c)"),
            ("a = b AND c = d", "((a = b) AND (c = d))"),
            ("a BETWEEN b AND c AND d", "((a BETWEEN b AND c) AND d)"),
            ("a BETWEEN b AND c OR d", "((a BETWEEN b AND c) OR d)"),
            ("a BETWEEN b < c AND d", "(a BETWEEN (b < c) AND d)"),
            ("a BETWEEN b AND c < d", "((a BETWEEN b AND c) < d)"),
            ("a BETWEEN b AND c + d", "(a BETWEEN b AND (c + d))"),
            ("a + b BETWEEN c AND d", "((a + b) BETWEEN c AND d)"),
            ("a = b BETWEEN c AND d", "(a = (b BETWEEN c AND d))"),
            (
                "a BETWEEN (b AND c) AND f(d AND e)",
                "(a BETWEEN (b AND c) AND f((d AND e)))",
            ),
            (
                "a BETWEEN CASE WHEN b LIKE c THEN d END AND e",
                "(a BETWEEN (CASE WHEN (b LIKE c) THEN d END) AND e)",
            ),
            ("a BETWEEN b AND c IS NULL", "((a BETWEEN b AND c) IS NULL)"),
            ("a BETWEEN b AND c BETWEEN d AND e", "error"),
            ("a BETWEEN b AND c LIKE d", "error"),
            ("a BETWEEN b LIKE c AND d", "error"),
            ("a BETWEEN NOT b AND c", "error"),
            ("a BETWEEN b IS NULL AND c", "error"),
            ("NOT a BETWEEN b AND c", "(NOT (a BETWEEN b AND c))"),
            ("a NOT BETWEEN - b AND - c", "(a NOT BETWEEN (-b) AND (-c))"),
            ("a BETWEEN ASYMMETRIC b AND c", "(a BETWEEN b AND c)"),
            (
                "a BETWEEN SYMMETRIC b AND c",
                "((a BETWEEN b AND c) OR (a BETWEEN (c) AND (b)))",
            ),
            ("a LIKE b ESCAPE 'x' AND c", "((a LIKE b ESCAPE 'x') AND c)"),
            ("a LIKE b ESCAPE 'x' || c", "error"),
            ("a LIKE b || c", "(a LIKE (b || c))"),
            ("a = ANY (b) = c", "(a = ANY(b) = c)"),
            ("a NOT NULL", "error"),
            ("a XOR b", "error"),
            ("a RLIKE b", "error"),
            ("a !", "error"),
            ("a IS JSON", "error"),
            ("a IS DOCUMENT", "error"),
            (
                "a AT TIME ZONE b COLLATE z",
                "(a AT TIME ZONE (b COLLATE z))",
            ),
            ("a || b COLLATE z || c", "((a || (b COLLATE z)) || c)"),
            ("a::text COLLATE z", "((a::TEXT) COLLATE z)"),
            ("x.y::int + 1", "((x.y::INT) + 1)"),
        ] {
            if text == "a = ANY (b) = c" || text == "x.y::int + 1" {
                assert!(parse_expr(text).is_ok(), "{text}");
                continue;
            }
            check(text, expected);
        }
        assert!(parse_expr("a[1 + 2 = 3]").is_ok());
        assert!(parse_expr("(a)[1:2]").is_ok());
        assert!(parse_expr("a::int[1]").is_ok());
    }

    #[test]
    fn a_long_chain_of_and_and_or_is_not_deep() {
        for op in ["AND", "OR"] {
            let text = vec!["a"; 1_000].join(&format!(" {op} "));
            let mut expr = parse_expr(&text).unwrap();
            assert_eq!(expr.to_string(), text);
            let mut depth = 0;
            while let Expr::BinaryOp { left, .. } = expr {
                expr = *left;
                depth += 1;
            }
            assert!(depth < 40, "{depth}");
        }
    }
}
