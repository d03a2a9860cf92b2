//! Expressions: from syntax to values.
//!
//! Owns literals, names, special syntax and the limits of depth; its submodules own operators, comparisons, conditionals, calls and access to parts of values.
//! Must not know relations or clauses. Called by everything that binds an expression.
//!
//! Invariants. Chains of operators and parentheses are passed without recursion. An aggregate, a window function, a set-returning function and a subquery
//! is a column here, of which the frame knows how it is made.

mod access;
mod call;
mod chain;
mod compare;
mod conditional;
mod json_path;
mod named;
mod operator;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;
use flowstone_functions::execution::still_wanted;
use flowstone_types::SqlType;
use sqlparser::ast::{self, BinaryOperator, CeilFloorKind, DateTimeField, UnaryOperator};
use sqlparser::tokenizer::Span;

use super::assign::row_as_value;
use super::number::number;
use super::value::{Value, made, text, unknown_text};
use super::{Binder, COPIES_MAX, EXPRESSION_DEPTH_MAX, value};
use crate::error::{Error, ErrorKind};
use crate::names::fold;

pub(super) use call::{Arguments, function_name, listed, refuse_unknown};
pub(super) use compare::Quantifier;
pub(super) use json_path::check_argument;
pub(super) use operator::{symbol_of, unresolved};

/// The text of a literal, whatever its quotes.
pub(super) fn literal_text(value: &ast::Value) -> Option<&str> {
    use ast::Value;
    match value {
        Value::SingleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::UnicodeStringLiteral(text)
        | Value::NationalStringLiteral(text) => Some(text),
        Value::DollarQuotedString(text) => Some(&text.value),
        _ => None,
    }
}

/// The expression inside of all parentheses.
pub(super) fn unnested(mut expr: &ast::Expr) -> &ast::Expr {
    while let ast::Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

/// Where an expression begins.
pub(super) fn span_of(expr: &ast::Expr) -> Span {
    match unnested(expr) {
        ast::Expr::Identifier(ident) => ident.span,
        ast::Expr::CompoundIdentifier(parts) => {
            parts.first().map_or_else(Span::empty, |first| first.span)
        }
        ast::Expr::Value(value) => value.span,
        ast::Expr::Function(function) => name_span(&function.name),
        _ => Span::empty(),
    }
}

/// Where a name begins.
pub(super) fn name_span(name: &ast::ObjectName) -> Span {
    let first = name.0.first().and_then(ast::ObjectNamePart::as_ident);
    first.map_or_else(Span::empty, |ident| ident.span)
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("{what} is not supported"))
}

impl Binder<'_> {
    /// Binds an expression that is no row.
    pub(super) fn scalar(&mut self, expr: &ast::Expr) -> Result<Value, Error> {
        let value = self.expr(expr)?;
        if value.is_row() {
            return Err(self.placed(row_as_value(), span_of(expr)));
        }
        Ok(value)
    }

    pub(super) fn scalars<'e>(
        &mut self,
        exprs: impl IntoIterator<Item = &'e ast::Expr>,
    ) -> Result<Vec<Value>, Error> {
        exprs.into_iter().map(|expr| self.scalar(expr)).collect()
    }

    /// Binds a condition of `construct`.
    pub(super) fn condition(&mut self, construct: &str, expr: &ast::Expr) -> Result<Expr, Error> {
        let value = self.expr(expr)?;
        self.boolean(construct, value)
            .map_err(|error| self.placed(error, span_of(expr)))
    }

    /// Binds an expression.
    pub(super) fn expr(&mut self, expr: &ast::Expr) -> Result<Value, Error> {
        made(still_wanted())?;
        let expr = unnested(expr);
        if let Some(column) = self.grouped(expr) {
            return Ok(column);
        }
        self.depth += 1;
        if self.depth > EXPRESSION_DEPTH_MAX {
            let error = Error::new(ErrorKind::TooComplex, "expression is nested too deeply");
            return Err(
                error.with_hint("Use IN with a list, or compute parts of it in subqueries.")
            );
        }
        let value = self.bare_expr(expr);
        self.depth -= 1;
        value
    }

    /// The value once more.
    fn again(&mut self, value: &Value) -> Result<Value, Error> {
        let mut parts = 0_usize;
        made(value.expr.apply(|_| {
            parts += 1;
            Ok(TreeNodeRecursion::Continue)
        }))?;
        self.copied = self.copied.saturating_add(parts);
        if self.copied > COPIES_MAX {
            let error = Error::new(ErrorKind::TooComplex, "statement is too complex");
            let hint = "Compute the operands of BETWEEN, CASE and IN in subqueries in FROM.";
            return Err(error.with_hint(hint));
        }
        Ok(value.clone())
    }

    fn bare_expr(&mut self, expr: &ast::Expr) -> Result<Value, Error> {
        use ast::Expr as Syntax;
        match expr {
            Syntax::Identifier(ident) => self.identifier(ident),
            Syntax::CompoundIdentifier(parts) => self.qualified_column(parts),
            Syntax::Value(value) => self.literal(value),
            Syntax::UnaryOp { op, expr } => self.unary(*op, expr),
            Syntax::BinaryOp {
                op: op @ (BinaryOperator::And | BinaryOperator::Or),
                ..
            } => self.logical(op, expr),
            Syntax::BinaryOp {
                left,
                op: BinaryOperator::Overlaps,
                right,
            } => self.overlaps(left, right),
            Syntax::BinaryOp { .. } => self.chain(expr),
            Syntax::IsNull(operand) => self.null_test(operand, false),
            Syntax::IsNotNull(operand) => self.null_test(operand, true),
            Syntax::IsTrue(operand) => self.truth_test("IS TRUE", operand, Expr::IsTrue),
            Syntax::IsNotTrue(operand) => self.truth_test("IS NOT TRUE", operand, Expr::IsNotTrue),
            Syntax::IsFalse(operand) => self.truth_test("IS FALSE", operand, Expr::IsFalse),
            Syntax::IsNotFalse(operand) => {
                self.truth_test("IS NOT FALSE", operand, Expr::IsNotFalse)
            }
            Syntax::IsUnknown(operand) => self.truth_test("IS UNKNOWN", operand, Expr::IsUnknown),
            Syntax::IsNotUnknown(operand) => {
                self.truth_test("IS NOT UNKNOWN", operand, Expr::IsNotUnknown)
            }
            Syntax::IsDistinctFrom(left, right) => self.distinct_from(left, right, false),
            Syntax::IsNotDistinctFrom(left, right) => self.distinct_from(left, right, true),
            Syntax::Between {
                expr,
                negated,
                low,
                high,
            } => self.between(expr, *negated, low, high),
            Syntax::InList {
                expr,
                list,
                negated,
            } => self.in_list(expr, list, *negated),
            Syntax::InSubquery {
                expr,
                subquery,
                negated,
            } => self.in_subquery(expr, subquery, *negated),
            Syntax::Exists { subquery, negated } => self.exists(subquery, *negated),
            Syntax::Subquery(subquery) => self.scalar_subquery(subquery),
            Syntax::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => self.quantified(left, compare_op, right, compare::Quantifier::Any),
            Syntax::AllOp {
                left,
                compare_op,
                right,
            } => self.quantified(left, compare_op, right, compare::Quantifier::All),
            Syntax::Like {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => {
                let symbol = if *negated { "!~~" } else { "~~" };
                self.like(symbol, expr, pattern, escape_char.as_ref())
            }
            Syntax::ILike {
                negated,
                any: false,
                expr,
                pattern,
                escape_char,
            } => {
                let symbol = if *negated { "!~~*" } else { "~~*" };
                self.like(symbol, expr, pattern, escape_char.as_ref())
            }
            Syntax::Like {
                negated,
                any: true,
                expr,
                pattern,
                ..
            } => {
                let op = if *negated {
                    BinaryOperator::PGNotLikeMatch
                } else {
                    BinaryOperator::PGLikeMatch
                };
                self.like_any(&op, expr, pattern)
            }
            Syntax::ILike {
                negated,
                any: true,
                expr,
                pattern,
                ..
            } => {
                let op = if *negated {
                    BinaryOperator::PGNotILikeMatch
                } else {
                    BinaryOperator::PGILikeMatch
                };
                self.like_any(&op, expr, pattern)
            }
            Syntax::SimilarTo {
                negated,
                expr,
                pattern,
                escape_char,
            } => self.similar(expr, pattern, escape_char.as_ref(), *negated),
            Syntax::Cast {
                expr, data_type, ..
            } => {
                if json_path::is_path_type(data_type) {
                    return self.cast_to_path(expr);
                }
                let to = crate::parse::parse_type(data_type)?;
                self.cast(expr, &to)
            }
            Syntax::TypedString(typed) => {
                let to = crate::parse::parse_type(&typed.data_type)?;
                let content = literal_text(&typed.value.value)
                    .ok_or_else(|| unsupported("a literal of this kind"))?;
                self.explicit_cast(unknown_text(content), &to)
                    .map_err(|error| self.placed(error, typed.value.span))
            }
            Syntax::Interval(interval) => {
                let content = interval_text(interval)?;
                self.text_as(content, &SqlType::Interval)
            }
            Syntax::Case {
                operand,
                conditions,
                else_result,
                ..
            } => self.case(operand.as_deref(), conditions, else_result.as_deref()),
            Syntax::Function(function) => self.call(function),
            Syntax::Array(array) => self.array(&array.elem),
            Syntax::Tuple(fields) => self.row(fields),
            Syntax::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Syntax::Collate { expr, collation } => self.collate(expr, collation),
            other => self.special_syntax(other),
        }
    }

    /// Calls that have a syntax of their own.
    fn special_syntax(&mut self, expr: &ast::Expr) -> Result<Value, Error> {
        use ast::Expr as Syntax;
        match expr {
            Syntax::AtTimeZone {
                timestamp,
                time_zone,
            } => {
                let args = self.scalars([&**time_zone, &**timestamp])?;
                self.function("timezone", args, span_of(timestamp))
            }
            Syntax::Extract { field, expr, .. } => {
                let operand = self.scalar(expr)?;
                // Of a text it is the moment that is preferred.
                let operand = if operand.is_unknown() {
                    self.coerce(operand, &SqlType::TimestampTz)?
                } else {
                    operand
                };
                let args = vec![text(field_name(field)), operand];
                self.function("extract", args, span_of(expr))
            }
            Syntax::IsNormalized {
                expr,
                form,
                negated,
            } => {
                let mut args = vec![self.scalar(expr)?];
                args.extend(form.as_ref().map(|form| text(form.to_string())));
                let test = self.function("is_normalized", args, span_of(expr))?;
                Ok(if *negated {
                    Value::new(Expr::Not(Box::new(test.expr)), SqlType::Bool)
                } else {
                    test
                })
            }
            Syntax::Position { expr, r#in } => {
                let args = self.scalars([&**r#in, &**expr])?;
                self.function("position", args, span_of(r#in))
            }
            Syntax::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                let mut args = vec![self.scalar(expr)?];
                match (substring_from, substring_for) {
                    (None, Some(count)) => {
                        args.push(value::int4(1));
                        args.push(self.scalar(count)?);
                    }
                    (from, count) => {
                        for part in [from, count].into_iter().flatten() {
                            args.push(self.scalar(part)?);
                        }
                    }
                }
                self.function("substr", args, span_of(expr))
            }
            Syntax::Trim {
                expr,
                trim_where,
                trim_what,
                trim_characters,
            } => {
                let mut args = vec![self.scalar(expr)?];
                if let Some(what) = trim_what {
                    args.push(self.scalar(what)?);
                }
                for characters in trim_characters.iter().flatten() {
                    args.push(self.scalar(characters)?);
                }
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                self.function(name, args, span_of(expr))
            }
            Syntax::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                let mut args = self.scalars([&**expr, &**overlay_what, &**overlay_from])?;
                if let Some(count) = overlay_for {
                    args.push(self.scalar(count)?);
                }
                self.function("overlay", args, span_of(expr))
            }
            Syntax::Ceil {
                expr,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => {
                let args = vec![self.scalar(expr)?];
                self.function("ceil", args, span_of(expr))
            }
            Syntax::Floor {
                expr,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => {
                let args = vec![self.scalar(expr)?];
                self.function("floor", args, span_of(expr))
            }
            Syntax::QualifiedWildcard(name, _) => {
                let parts: Vec<ast::Ident> = name
                    .0
                    .iter()
                    .filter_map(|part| part.as_ident().cloned())
                    .collect();
                match self.whole_row(&parts)? {
                    Some(row) => Ok(row),
                    None => self.all_of(&parts).and_then(|_| Err(row_as_value())),
                }
            }
            Syntax::GroupingSets(_) | Syntax::Cube(_) | Syntax::Rollup(_) => {
                Err(Error::syntax("grouping sets are only allowed in GROUP BY"))
            }
            other => Err(unsupported(&format!("the expression {other}"))),
        }
    }

    fn identifier(&mut self, ident: &ast::Ident) -> Result<Value, Error> {
        let is_function = ident.quote_style.is_none()
            && [
                "current_role",
                "current_schema",
                "current_catalog",
                "session_user",
                "user",
            ]
            .iter()
            .any(|name| ident.value.eq_ignore_ascii_case(name));
        if is_function && let Some(value) = self.catalog_function(&fold(ident), &[])? {
            return Ok(value);
        }
        self.column(ident)
    }

    fn literal(&mut self, value: &ast::ValueWithSpan) -> Result<Value, Error> {
        let placed = |binder: &Self, error: Error| binder.placed(error, value.span);
        if let Some(content) = literal_text(&value.value) {
            return Ok(unknown_text(content));
        }
        match &value.value {
            ast::Value::Number(digits, _) => number(digits).map_err(|error| placed(self, error)),
            ast::Value::Boolean(truth) => Ok(value::boolean(*truth)),
            ast::Value::Null => Ok(Value::unknown(Expr::Literal(ScalarValue::Null, None))),
            ast::Value::Placeholder(name) => {
                self.parameter(name).map_err(|error| placed(self, error))
            }
            other => Err(placed(self, unsupported(&format!("the literal {other}")))),
        }
    }

    /// `expr::to`
    fn cast(&mut self, expr: &ast::Expr, to: &SqlType) -> Result<Value, Error> {
        if let (ast::Expr::Array(array), SqlType::Array(item)) = (unnested(expr), to)
            && self.grouped(expr).is_none()
        {
            return self.array_cast(&array.elem, item, to);
        }
        let value = self.expr(expr)?;
        self.cast_value(value, to, expr)
    }

    /// The value of `expr` cast to `to`.
    fn cast_value(&mut self, value: Value, to: &SqlType, expr: &ast::Expr) -> Result<Value, Error> {
        // What is wrong with a text is wrong where the text is.
        let is_text = value.is_unknown();
        self.cast_or_lookup(value, to).map_err(|error| {
            if is_text {
                self.placed(error, span_of(expr))
            } else {
                error
            }
        })
    }

    /// `ARRAY[…]::to`: each item is cast, so that one without type is of that of the array's.
    fn array_cast(
        &mut self,
        items: &[ast::Expr],
        item: &SqlType,
        to: &SqlType,
    ) -> Result<Value, Error> {
        if items.is_empty() {
            return self.text_as("{}".to_owned(), to);
        }
        let mut values = Vec::with_capacity(items.len());
        for expr in items {
            let value = self.scalar(expr)?;
            // Arrays inside are cast with the whole.
            values.push(match value.sql_type().and_then(SqlType::element) {
                Some(_) => value,
                None => self.cast_value(value, item, expr)?,
            });
        }
        let array = self.array_of(values)?;
        self.cast_or_lookup(array, to)
    }

    fn collate(&mut self, expr: &ast::Expr, collation: &ast::ObjectName) -> Result<Value, Error> {
        let name = crate::names::fold_name(collation).pop().unwrap_or_default();
        let known = matches!(
            name.to_ascii_lowercase().as_str(),
            "default" | "c" | "posix" | "ucs_basic" | "c.utf-8" | "c.utf8"
        );
        if !known {
            let error = unsupported(&format!("collation \"{name}\""));
            return Err(self.placed(error, name_span(collation)));
        }
        self.expr(expr)
    }

    fn unary(&mut self, op: UnaryOperator, operand: &ast::Expr) -> Result<Value, Error> {
        if let (UnaryOperator::Minus, ast::Expr::Value(value)) = (op, unnested(operand))
            && let ast::Value::Number(digits, _) = &value.value
        {
            // -1 is one literal, as in PostgreSQL.
            return number(&format!("-{digits}")).map_err(|error| self.placed(error, value.span));
        }
        if op == UnaryOperator::Not {
            let operand = self.condition("NOT", operand)?;
            return Ok(Value::new(Expr::Not(Box::new(operand)), SqlType::Bool));
        }
        let value = self.scalar(operand)?;
        let symbol = match op {
            UnaryOperator::Plus => "+",
            UnaryOperator::Minus => "-",
            UnaryOperator::BitwiseNot => "~",
            UnaryOperator::PGAbs => "@",
            UnaryOperator::PGSquareRoot => "|/",
            UnaryOperator::PGCubeRoot => "||/",
            other => return Err(unsupported(&format!("the operator {other}"))),
        };
        self.prefix(symbol, value)
    }

    fn truth_test(
        &mut self,
        construct: &str,
        operand: &ast::Expr,
        test: fn(Box<Expr>) -> Expr,
    ) -> Result<Value, Error> {
        let operand = self.condition(construct, operand)?;
        Ok(Value::new(test(Box::new(operand)), SqlType::Bool))
    }
}

/// The text of an interval literal, with its field if it is a bare number.
fn interval_text(interval: &ast::Interval) -> Result<String, Error> {
    let unsupported =
        || Error::unsupported(format!("interval literal {interval} is not supported"));
    let content = match unnested(&interval.value) {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => digits.clone(),
            other => literal_text(other).ok_or_else(unsupported)?.to_owned(),
        },
        _ => return Err(unsupported()),
    };
    if interval.last_field.is_some() {
        return Err(unsupported());
    }
    Ok(match &interval.leading_field {
        Some(field) if content.trim().parse::<f64>().is_ok() => {
            format!("{} {}", content.trim(), field_name(field))
        }
        _ => content,
    })
}

fn field_name(field: &DateTimeField) -> String {
    field.to_string().trim_matches('\'').to_lowercase()
}
