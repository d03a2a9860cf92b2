//! Expressions other than calls, as constructs whose meaning DataFusion shares.
//!
//! Called by [`super`] for each expression, innermost first.

use std::ops::ControlFlow;

use datafusion::logical_expr::Volatility;
use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;
use sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, DateTimeField, DictionaryField, Expr, UnaryOperator,
    Value,
};

use super::calls::rewrite_function;
use super::terms::{
    binary, call, cast, constant, is_protected, literal_digits, literal_text, marker,
    must_be_boolean, negate_if, number, string,
};
use crate::error::{Error, ErrorKind};
use crate::plan::names::{self, INTERNAL, fold};
use crate::plan::subqueries::scalar_subquery;
use crate::plan::{PlanContext, catalog_functions};

pub(super) fn rewrite_expr(ctx: &PlanContext<'_>, expr: Expr) -> Result<Expr, Error> {
    Ok(match expr {
        Expr::Value(value) if is_protected(&value.value) => Expr::Value(value),
        Expr::Value(ref value) => match &value.value {
            Value::Number(digits, false) => number(digits, false)?,
            _ => expr,
        },
        // The operand was rewritten before: -1 is one literal, as in PostgreSQL.
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: operand,
        } => match literal_digits(&operand) {
            Some(digits) => number(&digits, true)?,
            None => marker("negate", vec![*operand]),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr: operand,
        } => *operand,
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: operand,
        } => Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: Box::new(must_be_boolean("NOT", *operand)),
        },
        Expr::IsTrue(operand) => Expr::IsTrue(boolean("IS TRUE", operand)),
        Expr::IsNotTrue(operand) => Expr::IsNotTrue(boolean("IS NOT TRUE", operand)),
        Expr::IsFalse(operand) => Expr::IsFalse(boolean("IS FALSE", operand)),
        Expr::IsNotFalse(operand) => Expr::IsNotFalse(boolean("IS NOT FALSE", operand)),
        Expr::IsUnknown(operand) => Expr::IsUnknown(boolean("IS UNKNOWN", operand)),
        Expr::IsNotUnknown(operand) => Expr::IsNotUnknown(boolean("IS NOT UNKNOWN", operand)),
        Expr::Identifier(ident)
            if ident.quote_style.is_none()
                && ["current_role", "current_schema"]
                    .iter()
                    .any(|name| ident.value.eq_ignore_ascii_case(name)) =>
        {
            match call(&fold(&ident), Vec::new()) {
                Expr::Function(function) => rewrite_function(ctx, function)?,
                other => other,
            }
        }
        Expr::Collate {
            expr: inner,
            collation,
        } => {
            let name = names::fold_name(&collation).pop().unwrap_or_default();
            if !matches!(
                name.to_ascii_lowercase().as_str(),
                "default" | "c" | "posix" | "ucs_basic" | "c.utf-8" | "c.utf8"
            ) {
                return Err(Error::unsupported(format!(
                    "collation \"{name}\" is not supported"
                )));
            }
            *inner
        }
        Expr::BinaryOp { left, op, right } => match (*left, operator(op)?, *right) {
            // Rows are equal if their fields are.
            (
                Expr::Tuple(left),
                op @ (BinaryOperator::Eq | BinaryOperator::NotEq),
                Expr::Tuple(right),
            ) if left.len() == right.len() && !left.is_empty() => {
                let combine = if op == BinaryOperator::Eq {
                    BinaryOperator::And
                } else {
                    BinaryOperator::Or
                };
                let fields = left
                    .into_iter()
                    .zip(right)
                    .map(|(left, right)| binary(left, op.clone(), right));
                let all = fields
                    .reduce(|left, right| binary(left, combine.clone(), right))
                    .unwrap_or_else(|| Expr::value(Value::Null));
                Expr::Nested(Box::new(all))
            }
            (left, op, right) => binary(left, op, right),
        },
        Expr::Cast {
            expr: inner,
            data_type,
            ..
        } => rewrite_cast(ctx, *inner, &data_type)?,
        Expr::TypedString(typed) => {
            let text = typed.value.into_string().unwrap_or_default();
            rewrite_cast(ctx, string(text), &typed.data_type)?
        }
        Expr::Interval(interval) => {
            let text = interval_text(&interval)?;
            constant(text, &SqlType::Interval)
        }
        Expr::Between {
            expr: value,
            negated,
            low,
            high,
        } => {
            let value = *value;
            let above = binary(value.clone(), BinaryOperator::GtEq, *low);
            let below = binary(value, BinaryOperator::LtEq, *high);
            negate_if(
                negated,
                Expr::Nested(Box::new(binary(above, BinaryOperator::And, below))),
            )
        }
        Expr::InList {
            expr: value,
            list,
            negated,
        } => {
            let mut values = vec![*value];
            values.extend(list);
            marker(if negated { "notin" } else { "in" }, values)
        }
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => case(operand, conditions, else_result)?,
        Expr::AtTimeZone {
            timestamp,
            time_zone,
        } => call("timezone", vec![*time_zone, *timestamp]),
        Expr::Function(function) => rewrite_function(ctx, function)?,
        // `(record).field`
        Expr::CompoundFieldAccess { root, access_chain }
            if access_chain
                .iter()
                .all(|access| matches!(access, AccessExpr::Dot(Expr::Identifier(_)))) =>
        {
            access_chain
                .iter()
                .fold(*root, |record, access| match access {
                    AccessExpr::Dot(Expr::Identifier(field)) => {
                        marker(&format!("field:{}", fold(field)), vec![record])
                    }
                    _ => record,
                })
        }
        Expr::Like {
            negated,
            any: false,
            expr,
            pattern,
            escape_char,
        } if needs_matcher(&pattern, escape_char.as_ref()) => {
            let op = if negated {
                BinaryOperator::PGNotLikeMatch
            } else {
                BinaryOperator::PGLikeMatch
            };
            binary(*expr, op, escaped_pattern(*pattern, escape_char))
        }
        Expr::ILike {
            negated,
            any: false,
            expr,
            pattern,
            escape_char,
        } if needs_matcher(&pattern, escape_char.as_ref()) => {
            let op = if negated {
                BinaryOperator::PGNotILikeMatch
            } else {
                BinaryOperator::PGILikeMatch
            };
            binary(*expr, op, escaped_pattern(*pattern, escape_char))
        }
        // DataFusion plans the items of its own form without what stands around it: columns of outer queries would not be found.
        Expr::Array(array) if !array.elem.is_empty() => marker("items", array.elem),
        Expr::Subquery(query) => scalar_subquery(*query)?,
        Expr::SimilarTo {
            negated,
            expr: value,
            pattern,
            escape_char,
        } => {
            let escape = match escape_char.map(|escape| escape.value) {
                None => Some('\\'),
                Some(Value::SingleQuotedString(text)) => text.chars().next(),
                Some(_) => None,
            };
            let Some(text) = literal_text(&pattern) else {
                return Err(Error::unsupported(
                    "SIMILAR TO with a pattern that is not a literal is not supported",
                ));
            };
            let op = if negated {
                BinaryOperator::PGRegexNotMatch
            } else {
                BinaryOperator::PGRegexMatch
            };
            binary(*value, op, string(similar_pattern(&text, escape)))
        }
        Expr::IsDistinctFrom(left, right) => marker("distinct", vec![*left, *right]),
        Expr::IsNotDistinctFrom(left, right) => marker("notdistinct", vec![*left, *right]),
        Expr::AnyOp {
            left,
            compare_op: BinaryOperator::Eq,
            right,
            ..
        } if !matches!(*right, Expr::Subquery(_)) => marker("any", vec![*left, *right]),
        Expr::AllOp {
            left,
            compare_op: BinaryOperator::NotEq,
            right,
        } if !matches!(*right, Expr::Subquery(_)) => {
            negate_if(true, marker("any", vec![*left, *right]))
        }
        other => other,
    })
}

fn boolean(construct: &str, operand: Box<Expr>) -> Box<Expr> {
    Box::new(must_be_boolean(construct, *operand))
}

/// The pattern of `LIKE pattern ESCAPE escape`, as LIKE without ESCAPE has it.
fn escaped_pattern(pattern: Expr, escape: Option<sqlparser::ast::ValueWithSpan>) -> Expr {
    match escape {
        Some(escape) => call("like_escape", vec![pattern, Expr::Value(escape)]),
        None => pattern,
    }
}

/// Longest literal that LIKE keeps as it is: DataFusion makes a regular expression of most.
const LIKE_LITERAL_BYTES_MAX: usize = 1000;

/// Whether LIKE becomes an operator of ours.
fn needs_matcher(pattern: &Expr, escape: Option<&sqlparser::ast::ValueWithSpan>) -> bool {
    escape.is_some() || literal_text(pattern).is_none_or(|text| text.len() > LIKE_LITERAL_BYTES_MAX)
}

/// The regular expression that a pattern of SIMILAR TO is.
fn similar_pattern(pattern: &str, escape: Option<char>) -> String {
    let mut regex = String::from("^(?:");
    let mut letters = pattern.chars();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            letter if Some(letter) == escape => {
                if let Some(next) = letters.next() {
                    if !next.is_alphanumeric() {
                        regex.push('\\');
                    }
                    regex.push(next);
                }
            }
            '[' => {
                in_class = true;
                regex.push('[');
            }
            ']' => {
                in_class = false;
                regex.push(']');
            }
            letter if in_class => regex.push(letter),
            '%' => regex.push_str("(?s:.*)"),
            '_' => regex.push_str("(?s:.)"),
            '.' | '^' | '$' | '\\' => {
                regex.push('\\');
                regex.push(letter);
            }
            other => regex.push(other),
        }
    }
    regex.push_str(")$");
    regex
}

/// `OPERATOR(pg_catalog.~)` is `~`.
fn operator(op: BinaryOperator) -> Result<BinaryOperator, Error> {
    let name = match &op {
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last().map_or("", String::as_str),
        BinaryOperator::Custom(name) => name,
        _ => return Ok(op),
    };
    Ok(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        "||" => BinaryOperator::StringConcat,
        "->" => BinaryOperator::Arrow,
        "->>" => BinaryOperator::LongArrow,
        "@>" => BinaryOperator::AtArrow,
        "<@" => BinaryOperator::ArrowAt,
        "&" => BinaryOperator::BitwiseAnd,
        "|" => BinaryOperator::BitwiseOr,
        other => {
            return Err(Error::new(
                ErrorKind::UndefinedFunction,
                format!("operator does not exist: {other}"),
            ));
        }
    })
}

fn interval_text(interval: &sqlparser::ast::Interval) -> Result<String, Error> {
    let unsupported =
        || Error::unsupported(format!("interval literal {interval} is not supported"));
    let text = match &*interval.value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text.clone(),
            _ => return Err(unsupported()),
        },
        other => literal_digits(other).ok_or_else(unsupported)?,
    };
    if interval.last_field.is_some() {
        return Err(unsupported());
    }
    Ok(match &interval.leading_field {
        None => text,
        Some(field) if text.trim().parse::<f64>().is_ok() => {
            format!("{} {}", text.trim(), field_name(field))
        }
        Some(_) => text,
    })
}

fn field_name(field: &DateTimeField) -> String {
    field.to_string().to_lowercase()
}

fn case(
    operand: Option<Box<Expr>>,
    conditions: Vec<CaseWhen>,
    else_result: Option<Box<Expr>>,
) -> Result<Expr, Error> {
    if conditions.len() > 1 && operand.as_deref().is_some_and(calls_chance) {
        return Err(Error::unsupported(
            "CASE of a function of chance with several values is not supported",
        )
        .with_hint("Call the function in a subquery in FROM."));
    }
    let mut values = Vec::new();
    for CaseWhen { condition, result } in conditions {
        values.push(match &operand {
            Some(operand) => binary((**operand).clone(), BinaryOperator::Eq, condition),
            None => condition,
        });
        values.push(result);
    }
    values.extend(else_result.map(|result| *result));
    Ok(marker("case", values))
}

/// Whether a part of a tree calls a function of chance.
pub(in crate::plan) fn calls_chance(part: &impl sqlparser::ast::Visit) -> bool {
    let outcome = sqlparser::ast::visit_expressions(part, |expr| {
        let name = match expr {
            Expr::Function(function) => names::fold_name(&function.name).pop(),
            _ => None,
        };
        match name.and_then(|name| flowstone_functions::registry().scalar(&name)) {
            Some(function) if function.signature().volatility == Volatility::Volatile => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    });
    outcome.is_break()
}

fn rewrite_cast(
    ctx: &PlanContext<'_>,
    inner: Expr,
    data_type: &sqlparser::ast::DataType,
) -> Result<Expr, Error> {
    let to = crate::parse::parse_type(data_type)?;
    if let SqlType::Reg(kind) = to {
        if let Some(text) = literal_text(&inner) {
            return catalog_functions::reg_constant(ctx, kind, &text);
        }
    } else if matches!(to, SqlType::Text | SqlType::VarChar(_) | SqlType::Name)
        && let Some((kind, reg)) = as_reg(&inner)
    {
        return Ok(catalog_functions::reg_name(ctx, kind, reg));
    }
    let is_constant =
        matches!(&inner, Expr::Value(value) if !matches!(value.value, Value::Placeholder(_)));
    if to == SqlType::Reg(RegKind::Class) && !is_constant {
        let lookup = catalog_functions::class_lookup(ctx, &inner);
        return Ok(marker(&format!("cast:{to}"), vec![inner, lookup]));
    }
    Ok(cast(inner, &to))
}

/// The operand of a cast to a `reg…` type, and which type that is.
fn as_reg(expr: &Expr) -> Option<(RegKind, Expr)> {
    match expr {
        Expr::Nested(inner) => as_reg(inner),
        Expr::Dictionary(fields) => match fields.as_slice() {
            [DictionaryField { key, value }, ..] => {
                let kind = match key.value.strip_prefix(INTERNAL)? {
                    "cast:regclass" => RegKind::Class,
                    "cast:regtype" => RegKind::Type,
                    "cast:regproc" => RegKind::Proc,
                    "cast:regnamespace" => RegKind::Namespace,
                    _ => return None,
                };
                Some((kind, (**value).clone()))
            }
            _ => None,
        },
        _ => None,
    }
}
