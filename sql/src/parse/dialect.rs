//! The dialect that `sqlparser` parses queries and expressions with: PostgreSQL's, with the few differences that we need.
//!
//! Invariants. [`Dialect::dialect`] answers with PostgreSQL's identity, so that every test of `sqlparser` for PostgreSQL takes the PostgreSQL path.
//! `sqlparser` tries one way to read an expression and then another; nested, that doubles its work at every level. Its work is counted here and ends.

use std::any::TypeId;
use std::cell::Cell;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Statement, TrimWhereField, UnaryOperator, visit_expressions,
};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use super::precedence::{self, Place};

/// PostgreSQL, without hints in comments, with adjacent string literals on two lines joined, and with every blank of Unicode a blank
/// (text copied from web pages has no-break spaces in it).
#[derive(Debug)]
pub(crate) struct FlowstoneDialect {
    /// Beginnings of expressions that may still be read.
    left: Cell<usize>,
    /// Where the expression stands whose operators are read.
    place: Cell<Place>,
    /// Whether the beginning of an expression is the parser's business, because it was ours already.
    passed: Cell<bool>,
}

/// Beginnings of expressions to read per token, on average, before a statement is given up. What people and programs write needs less than four.
const TRIES_PER_TOKEN: usize = 64;

impl FlowstoneDialect {
    /// For a statement of so many tokens.
    pub(crate) const fn new(tokens: usize) -> Self {
        Self {
            left: Cell::new(tokens.saturating_add(100).saturating_mul(TRIES_PER_TOKEN)),
            place: Cell::new(Place::Anywhere),
            passed: Cell::new(false),
        }
    }

    /// Runs `parse` for an expression that stands at `place`.
    fn at<T>(&self, place: Place, parse: impl FnOnce() -> T) -> T {
        let around = self.place.replace(place);
        let result = parse();
        self.place.set(around);
        result
    }

    /// `- x`, `+ x`: signs bind tighter than every operator but subscripts and casts.
    fn signed(&self, parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
        let mut signs = Vec::new();
        while let Token::Plus | Token::Minus = parser.peek_token_ref().token {
            signs.push(if parser.next_token().token == Token::Plus {
                UnaryOperator::Plus
            } else {
                UnaryOperator::Minus
            });
        }
        let mut operand = parser.parse_prefix()?;
        operand = parser.parse_compound_expr(operand, Vec::new())?;
        loop {
            let next = parser.get_next_precedence()?;
            if next <= precedence::SIGN || next == precedence::PERIOD {
                break;
            }
            operand = parser.parse_infix(operand, next)?;
        }
        Ok(signs.into_iter().rev().fold(operand, |operand, op| {
            let expr = Box::new(operand);
            Expr::UnaryOp { op, expr }
        }))
    }

    /// `TRIM ([BOTH | LEADING | TRAILING] FROM text)`, which names no characters; `None` if something else comes next.
    fn trim(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let is = |ahead: usize, keywords: &[Keyword]| match &parser.peek_nth_token_ref(ahead).token
        {
            Token::Word(word) => word.quote_style.is_none() && keywords.contains(&word.keyword),
            _ => false,
        };
        let sides = [Keyword::BOTH, Keyword::LEADING, Keyword::TRAILING];
        let side = usize::from(is(2, &sides));
        if !is(0, &[Keyword::TRIM])
            || parser.peek_nth_token_ref(1).token != Token::LParen
            || !is(2 + side, &[Keyword::FROM])
        {
            return None;
        }
        parser.advance_token();
        parser.advance_token();
        let trim_where = match parser.parse_one_of_keywords(&sides) {
            Some(Keyword::LEADING) => Some(TrimWhereField::Leading),
            Some(Keyword::TRAILING) => Some(TrimWhereField::Trailing),
            Some(_) => Some(TrimWhereField::Both),
            None => None,
        };
        parser.advance_token();
        Some(self.trimmed(parser, trim_where))
    }

    fn trimmed(
        &self,
        parser: &mut Parser<'_>,
        trim_where: Option<TrimWhereField>,
    ) -> Result<Expr, ParserError> {
        let expr = self.at(Place::Anywhere, || parser.parse_expr())?;
        parser.expect_token(&Token::RParen)?;
        Ok(Expr::Trim {
            expr: Box::new(expr),
            trim_where,
            trim_what: None,
            trim_characters: None,
        })
    }

    /// `[NOT] BETWEEN [SYMMETRIC] low AND high` behind `expr`.
    fn between(&self, parser: &mut Parser<'_>, expr: Expr) -> Result<Expr, ParserError> {
        let negated = parser.parse_keyword(Keyword::NOT);
        parser.expect_keyword_is(Keyword::BETWEEN)?;
        let symmetric = parser.parse_keyword(Keyword::SYMMETRIC);
        let _ = !symmetric && parser.parse_keyword(Keyword::ASYMMETRIC);
        let low = self.at(Place::Low, || parser.parse_subexpr(0))?;
        parser.expect_keyword_is(Keyword::AND)?;
        let high = parser.parse_subexpr(precedence::RANGE)?;
        let between = |expr: Expr, low: Expr, high: Expr| Expr::Between {
            expr: Box::new(expr),
            negated,
            low: Box::new(low),
            high: Box::new(high),
        };
        if !symmetric {
            return Ok(between(expr, low, high));
        }
        // The parentheses below must not make it an operand of another one of its kind.
        if parser.get_next_precedence()? == precedence::RANGE {
            return parser.expected_ref(precedence::CHAINED, parser.peek_token_ref());
        }
        // Operands are written twice, and nested ones double each other.
        for operand in [&expr, &low, &high] {
            self.copies(operand)?;
        }
        let nested = |expr: &Expr| Expr::Nested(Box::new(expr.clone()));
        let turned = between(expr.clone(), nested(&high), nested(&low));
        let op = if negated {
            BinaryOperator::And
        } else {
            BinaryOperator::Or
        };
        Ok(Expr::Nested(Box::new(Expr::BinaryOp {
            left: Box::new(between(expr, low, high)),
            op,
            right: Box::new(turned),
        })))
    }

    /// Counts the expressions in one that is copied as if they were read once more.
    fn copies(&self, expr: &Expr) -> Result<(), ParserError> {
        let outcome = visit_expressions(expr, |_| match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(ParserError::RecursionLimitExceeded),
        });
        match outcome {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// All operands of a chain of ANDs or ORs whose first is `first`, as a tree that is not deep.
    fn chain(
        parser: &mut Parser<'_>,
        first: Expr,
        keyword: Keyword,
        precedence: u8,
    ) -> Result<Expr, ParserError> {
        let mut operands = vec![first];
        while parser.parse_keyword(keyword) {
            operands.push(parser.parse_subexpr(precedence)?);
        }
        let op = if keyword == Keyword::AND {
            BinaryOperator::And
        } else {
            BinaryOperator::Or
        };
        Ok(balanced(operands, &op))
    }
}

/// Up to so many operands make the tree that they have always made.
const CHAIN_FLAT_MAX: usize = 16;

/// The operands joined by an associative operator, in their order: a tree whose depth is the logarithm of their number, if there are many.
pub(crate) fn balanced(operands: Vec<Expr>, op: &BinaryOperator) -> Expr {
    let join = |left: Expr, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op: op.clone(),
        right: Box::new(right),
    };
    let mut level = operands;
    while level.len() > CHAIN_FLAT_MAX {
        let mut pairs = Vec::with_capacity(level.len().div_ceil(2));
        let mut items = level.into_iter();
        while let Some(left) = items.next() {
            pairs.push(match items.next() {
                Some(right) => join(left, right),
                None => left,
            });
        }
        level = pairs;
    }
    level
        .into_iter()
        .reduce(join)
        .unwrap_or_else(|| Expr::value(sqlparser::ast::Value::Null))
}

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// Methods whose answer is PostgreSQL's.
macro_rules! as_postgres {
    ($($method:ident),* $(,)?) => {
        $(fn $method(&self) -> bool {
            POSTGRES.$method()
        })*
    };
}

impl Dialect for FlowstoneDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch) && !ch.is_whitespace()
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch) && !ch.is_whitespace()
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRES.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(kw)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        Some(Ok(precedence::next(parser, self.place.get())))
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        match prec {
            Precedence::Period => precedence::PERIOD,
            Precedence::DoubleColon => precedence::CAST,
            Precedence::AtTz => precedence::AT,
            Precedence::MulDivModOp => precedence::PRODUCT,
            Precedence::PlusMinus => precedence::SUM,
            Precedence::Caret => precedence::POWER,
            Precedence::Ampersand | Precedence::Pipe | Precedence::PgOther | Precedence::Xor => {
                precedence::OTHER
            }
            Precedence::Between | Precedence::Like => precedence::RANGE,
            Precedence::Eq => precedence::COMPARISON,
            Precedence::Is => precedence::IS,
            Precedence::UnaryNot => precedence::NOT,
            Precedence::And => precedence::AND,
            Precedence::Or => precedence::OR,
            // Nothing but the end of a bound of a slice.
            Precedence::Colon => 0,
        }
    }

    /// Counts, and gives up at an error at which the parser gives up too, while it takes any other for a reason to try another way.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        if self.passed.take() {
            return None;
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            return Some(Err(ParserError::RecursionLimitExceeded));
        };
        self.left.set(left);
        let prefix = match &parser.peek_token_ref().token {
            Token::Plus | Token::Minus => return Some(self.signed(parser)),
            Token::Tilde => UnaryOperator::BitwiseNot,
            Token::AtSign => UnaryOperator::PGAbs,
            Token::PGSquareRoot => UnaryOperator::PGSquareRoot,
            Token::PGCubeRoot => UnaryOperator::PGCubeRoot,
            Token::DoubleExclamationMark => UnaryOperator::PGPrefixFactorial,
            Token::Word(word) if word.keyword == Keyword::TRIM => {
                if let Some(trim) = self.trim(parser) {
                    return Some(trim);
                }
                if self.place.get() == Place::Anywhere {
                    return None;
                }
                self.passed.set(true);
                return Some(self.at(Place::Anywhere, || parser.parse_prefix()));
            }
            _ if self.place.get() == Place::Anywhere => return None,
            Token::Word(word) if word.keyword == Keyword::NOT => {
                return Some(parser.expected_ref("an expression", parser.peek_token_ref()));
            }
            _ => {
                self.passed.set(true);
                return Some(self.at(Place::Anywhere, || parser.parse_prefix()));
            }
        };
        parser.advance_token();
        Some(parser.parse_subexpr(precedence::OTHER).map(|operand| {
            let expr = Box::new(operand);
            Expr::UnaryOp { op: prefix, expr }
        }))
    }

    fn parse_infix(
        &self,
        parser: &mut Parser,
        expr: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        if !precedence::may_follow(expr, precedence) {
            let found = parser.peek_token_ref();
            return Some(parser.expected_ref(precedence::CHAINED, found));
        }
        let Token::Word(word) = &parser.peek_token_ref().token else {
            return None;
        };
        let expr = || expr.clone();
        match (word.keyword, precedence) {
            (keyword @ (Keyword::AND | Keyword::OR), _) => {
                Some(Self::chain(parser, expr(), keyword, precedence))
            }
            (Keyword::IS, _) if precedence::is_distinct(parser) => {
                parser.advance_token();
                let negated = parser.parse_keyword(Keyword::NOT);
                let right = parser
                    .expect_keywords(&[Keyword::DISTINCT, Keyword::FROM])
                    .and_then(|()| parser.parse_subexpr(precedence));
                let make = if negated {
                    Expr::IsNotDistinctFrom
                } else {
                    Expr::IsDistinctFrom
                };
                Some(right.map(|right| make(Box::new(expr()), Box::new(right))))
            }
            (Keyword::COLLATE, _) => {
                parser.advance_token();
                let collation = parser.parse_object_name(false);
                Some(collation.map(|collation| Expr::Collate {
                    expr: Box::new(expr()),
                    collation,
                }))
            }
            (Keyword::BETWEEN, _) => Some(self.between(parser, expr())),
            (Keyword::NOT, _) => match &parser.peek_nth_token_ref(1).token {
                Token::Word(next) if next.keyword == Keyword::BETWEEN => {
                    Some(self.between(parser, expr()))
                }
                _ => None,
            },
            _ if precedence::is_isnull(word) => {
                parser.advance_token();
                Some(Ok(Expr::IsNull(Box::new(expr()))))
            }
            _ => None,
        }
    }

    /// There is no postfix operator since PostgreSQL 14.
    fn supports_factorial_operator(&self) -> bool {
        false
    }

    /// PostgreSQL's answer makes the parser read every argument of a function twice. Without it the names of named arguments are identifiers, as in PostgreSQL.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn supports_named_fn_args_with_assignment_operator(&self) -> bool {
        true
    }

    fn parse_statement(&self, _parser: &mut Parser) -> Option<Result<Statement, ParserError>> {
        None
    }

    fn supports_string_literal_concatenation_with_newline(&self) -> bool {
        true
    }

    fn supports_comment_optimizer_hint(&self) -> bool {
        false
    }

    as_postgres!(
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_listen_notify,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_alter_column_type_using,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_create_table_like_parenthesized,
        supports_select_wildcard_with_alias,
        supports_comma_separated_trim,
        supports_xml_expressions,
    );
}
