//! The dialect that `sqlparser` parses queries and expressions with: PostgreSQL's, with the few differences that we need.
//!
//! Invariants. [`Dialect::dialect`] answers with PostgreSQL's identity, so that every test of `sqlparser` for PostgreSQL takes the PostgreSQL path.
//! `sqlparser` tries one way to read an expression and then another; nested, that doubles its work at every level. Its work is counted here and ends.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::{Expr, Statement};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};

/// PostgreSQL, without hints in comments, with adjacent string literals on two lines joined, and with every blank of Unicode a blank
/// (text copied from web pages has no-break spaces in it).
#[derive(Debug)]
pub(crate) struct FlowstoneDialect {
    /// Beginnings of expressions that may still be read.
    left: Cell<usize>,
}

/// Beginnings of expressions to read per token, on average, before a statement is given up. What people and programs write needs less than four.
const TRIES_PER_TOKEN: usize = 64;

impl FlowstoneDialect {
    /// For a statement of so many tokens.
    pub(crate) const fn new(tokens: usize) -> Self {
        Self {
            left: Cell::new(tokens.saturating_add(100).saturating_mul(TRIES_PER_TOKEN)),
        }
    }
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
        POSTGRES.get_next_precedence(parser)
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        POSTGRES.prec_value(prec)
    }

    /// Counts; the parser does the rest. It gives up at this error, while it takes any other for a reason to try another way.
    fn parse_prefix(&self, _parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let left = self.left.get().checked_sub(1);
        left.map_or(Some(Err(ParserError::RecursionLimitExceeded)), |left| {
            self.left.set(left);
            None
        })
    }

    /// PostgreSQL's answer makes the parser read every argument of a function twice. Without it the names of named arguments are identifiers, as in PostgreSQL.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
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
        supports_factorial_operator,
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
