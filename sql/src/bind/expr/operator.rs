//! Operators between values, patterns among them.
//!
//! Owns what is special about their operands: literals with more digits than `numeric` has. Which operator it is `functions` knows, and what it sees of its operands.
//! Called by [`super`].

use datafusion::logical_expr::Expr;
use flowstone_functions::cast::can_cast;
use flowstone_functions::resolve::{CallError, OperatorCall, resolve_operator};
use flowstone_types::SqlType;
use sqlparser::ast::{self, BinaryOperator};

use super::json_path::check_operand;
use super::{Quantifier, literal_text, span_of, unnested};
use crate::bind::assign::kind_of_clash;
use crate::bind::value::{Type, Value, made, null, unknown_text};
use crate::bind::{Binder, number};
use crate::error::{Error, ErrorKind};
use crate::planning_errors;

const NO_OPERATOR: &str = "No operator matches the given name and argument types. You might need to add explicit type casts.";

/// How an operator is written.
pub(in crate::bind) fn symbol_of(op: &BinaryOperator) -> String {
    let symbol = match op {
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last().cloned().unwrap_or_default(),
        BinaryOperator::Custom(symbol) => symbol.clone(),
        other => other.to_string(),
    };
    match symbol.as_str() {
        "!=" => "<>".to_owned(),
        _ => symbol,
    }
}

pub(super) fn is_comparison(symbol: &str) -> bool {
    matches!(symbol, "=" | "<>" | "<" | "<=" | ">" | ">=")
}

const fn is_moment(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Date | SqlType::Timestamp | SqlType::TimestampTz
    )
}

/// Why a call means nothing, as PostgreSQL says it.
pub(in crate::bind) fn unresolved(error: &CallError) -> Error {
    let kind = match error {
        CallError::Broken(cause) => return planning_errors::from_datafusion(cause, ""),
        CallError::Undefined(_) => ErrorKind::UndefinedFunction,
        CallError::Ambiguous(_) => ErrorKind::AmbiguousFunction,
        CallError::Indeterminate => ErrorKind::DatatypeMismatch,
        CallError::Mismatch { types, .. } => kind_of_clash(types),
        CallError::WrongCount { .. } => ErrorKind::Syntax,
        CallError::Unsupported { .. } => ErrorKind::FeatureNotSupported,
    };
    let unresolved = Error::new(kind, error.to_string());
    match error.hint() {
        Some(hint) => unresolved.with_hint(hint),
        None => unresolved,
    }
}

/// The error that there is no such operator.
pub(super) fn undefined_operator(symbol: &str, left: &Type, right: &Type) -> Error {
    Error::new(
        ErrorKind::UndefinedFunction,
        format!(
            "operator does not exist: {} {symbol} {}",
            left.name(),
            right.name()
        ),
    )
    .with_hint(NO_OPERATOR)
}

impl Binder<'_> {
    /// `left op right`
    pub(super) fn binary(
        &mut self,
        op: &BinaryOperator,
        left: Value,
        right: Value,
    ) -> Result<Value, Error> {
        let symbol = symbol_of(op);
        if left.is_row() || right.is_row() {
            return self.compare_rows(&symbol, left, right);
        }
        self.operator(&symbol, left, right)
    }

    /// `left symbol right` for values that are no rows.
    pub(in crate::bind) fn operator(
        &mut self,
        symbol: &str,
        left: Value,
        right: Value,
    ) -> Result<Value, Error> {
        let (resolved, args) = self.operands(symbol, left, right)?;
        let expr = made(resolved.expr(args))?;
        Ok(Value::new(expr, resolved.result))
    }

    /// The operator between two values, and what it is called with.
    pub(super) fn operands(
        &mut self,
        symbol: &str,
        left: Value,
        right: Value,
    ) -> Result<(OperatorCall, Vec<Expr>), Error> {
        refuse_clock(symbol, &left.of, &right.of)?;
        check_operand(symbol, &right)?;
        let (left, right) = self.wide_operands(symbol, left, right)?;
        let resolved = resolve_operator(symbol, Some(&left.given()), &right.given())
            .map_err(|error| unresolved(&error))?;
        let mut args = Vec::with_capacity(2);
        for (value, to) in [left, right].into_iter().zip(&resolved.arguments) {
            args.push(self.argument(value, to)?.expr);
        }
        Ok((resolved, args))
    }

    /// `symbol operand`
    pub(super) fn prefix(&mut self, symbol: &str, operand: Value) -> Result<Value, Error> {
        number::refuse_wide(&operand)?;
        let resolved =
            resolve_operator(symbol, None, &operand.given()).map_err(|error| unresolved(&error))?;
        let args = match resolved.arguments.last() {
            Some(to) => vec![self.argument(operand, to)?.expr],
            None => vec![operand.expr],
        };
        let expr = made(resolved.expr(args))?;
        Ok(Value::new(expr, resolved.result.clone()))
    }

    /// Operands where one is a literal that is a float beside floats.
    fn wide_operands(
        &mut self,
        symbol: &str,
        left: Value,
        right: Value,
    ) -> Result<(Value, Value), Error> {
        let compares = is_comparison(symbol);
        let as_float = |literal: &Value, other: &Value| {
            let Some(other) = other.sql_type() else {
                return false;
            };
            matches!(other, SqlType::Float4 | SqlType::Float8)
                || compares && number::is_compared_as_float(literal, other)
        };
        match (number::is_wide(&left), number::is_wide(&right)) {
            (false, false) => Ok((left, right)),
            (true, false) if as_float(&left, &right) => {
                let left = number::settled(&left, &SqlType::Float8)?;
                Ok((left, self.coerce(right, &SqlType::Float8)?))
            }
            (false, true) if as_float(&right, &left) => {
                let right = number::settled(&right, &SqlType::Float8)?;
                Ok((self.coerce(left, &SqlType::Float8)?, right))
            }
            _ => {
                number::refuse_wide(&left)?;
                number::refuse_wide(&right)?;
                Ok((left, right))
            }
        }
    }

    /// `expr LIKE pattern ESCAPE escape`
    pub(super) fn like(
        &mut self,
        symbol: &str,
        expr: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::ValueWithSpan>,
    ) -> Result<Value, Error> {
        if let (Some((patterns, quantifier)), None) = (quantified_patterns(pattern), escape) {
            let op = match symbol {
                "~~" => BinaryOperator::PGLikeMatch,
                "!~~" => BinaryOperator::PGNotLikeMatch,
                "~~*" => BinaryOperator::PGILikeMatch,
                _ => BinaryOperator::PGNotILikeMatch,
            };
            return self.quantified(expr, &op, &patterns, quantifier);
        }
        let subject = self.scalar(expr)?;
        let pattern = self.scalar(pattern)?;
        let pattern = self.escaped(pattern, escape)?;
        self.operator(symbol, subject, pattern)
            .map_err(|error| self.placed(error, span_of(expr)))
    }

    /// The pattern of `LIKE pattern ESCAPE escape`, as LIKE without ESCAPE has it.
    fn escaped(
        &mut self,
        pattern: Value,
        escape: Option<&ast::ValueWithSpan>,
    ) -> Result<Value, Error> {
        let Some(escape) = escape else {
            return Ok(pattern);
        };
        let escape = literal_text(&escape.value)
            .ok_or_else(|| Error::unsupported("this ESCAPE of LIKE is not supported"))?;
        let args = vec![pattern, unknown_text(escape)];
        self.function("like_escape", args, sqlparser::tokenizer::Span::empty())
    }

    /// `expr LIKE ANY (patterns)`
    pub(super) fn like_any(
        &mut self,
        op: &BinaryOperator,
        expr: &ast::Expr,
        patterns: &ast::Expr,
    ) -> Result<Value, Error> {
        let patterns = unnested(patterns);
        if matches!(patterns, ast::Expr::Tuple(_)) {
            return Err(
                Error::syntax("ANY takes one array").with_hint("Write the patterns as ARRAY[…].")
            );
        }
        self.quantified(expr, op, patterns, Quantifier::Any)
    }

    /// `expr SIMILAR TO pattern ESCAPE escape`
    pub(super) fn similar(
        &mut self,
        expr: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::ValueWithSpan>,
        negated: bool,
    ) -> Result<Value, Error> {
        let subject = self.scalar(expr)?;
        let mut args = vec![self.scalar(pattern)?];
        if let Some(escape) = escape {
            args.push(match literal_text(&escape.value) {
                Some(escape) => unknown_text(escape),
                None if escape.value == ast::Value::Null => null(&SqlType::Text),
                None => {
                    return Err(Error::unsupported(
                        "this ESCAPE of SIMILAR TO is not supported",
                    ));
                }
            });
        }
        let regex = self.function("similar_to_escape", args, span_of(pattern))?;
        let symbol = if negated { "!~" } else { "~" };
        self.operator(symbol, subject, regex)
    }
}

/// The patterns of `LIKE ALL (patterns)` and `LIKE SOME (patterns)`, which are read as calls: there are no functions of these names.
fn quantified_patterns(pattern: &ast::Expr) -> Option<(ast::Expr, Quantifier)> {
    let ast::Expr::Function(function) = pattern else {
        return None;
    };
    let [ast::ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
        return None;
    };
    let quantifier = match name.value.to_ascii_lowercase().as_str() {
        _ if name.quote_style.is_some() => return None,
        "all" => Quantifier::All,
        "some" => Quantifier::Any,
        _ => return None,
    };
    let patterns = match &function.args {
        ast::FunctionArguments::Subquery(query) => ast::Expr::Subquery(query.clone()),
        ast::FunctionArguments::List(list) => match list.args.as_slice() {
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(array))] => array.clone(),
            _ => return None,
        },
        ast::FunctionArguments::None => return None,
    };
    Some((patterns, quantifier))
}

/// Comparisons of logical times with clocks, of which there are none yet.
fn refuse_clock(symbol: &str, left: &Type, right: &Type) -> Result<(), Error> {
    let moment = match (left, right) {
        (Type::Of(SqlType::MzTimestamp), Type::Of(moment))
        | (Type::Of(moment), Type::Of(SqlType::MzTimestamp))
            if is_moment(moment) =>
        {
            moment
        }
        _ => return Ok(()),
    };
    if is_comparison(symbol) && !can_cast(moment, &SqlType::MzTimestamp) {
        return Err(Error::unsupported(format!(
            "comparing mz_timestamp with {} is not supported",
            moment.without_modifier()
        )));
    }
    Ok(())
}
