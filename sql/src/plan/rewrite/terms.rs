//! Small pieces of syntax trees: markers, casts, literals and calls as rewritten trees have them, and how they are recognised again.
//!
//! Must not know what is rewritten. Called by all of [`super`] and by the rest of planning.

use flowstone_types::SqlType;
use sqlparser::ast::{
    BinaryOperator, DictionaryField, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, UnaryOperator, Value,
};

use crate::error::Error;
use crate::plan::names::INTERNAL;

/// A marker: see the module documentation.
pub(in crate::plan) fn marker(key: &str, values: Vec<Expr>) -> Expr {
    let mut key = Some(format!("{INTERNAL}{key}"));
    Expr::Dictionary(
        values
            .into_iter()
            .map(|value| DictionaryField {
                key: Ident::new(key.take().unwrap_or_default()),
                value: Box::new(value),
            })
            .collect(),
    )
}

/// An explicit cast.
pub(in crate::plan) fn cast(expr: Expr, to: &SqlType) -> Expr {
    marker(&format!("cast:{to}"), vec![expr])
}

/// A cast as assignment to a column does it.
pub(in crate::plan) fn assignment_cast(expr: Expr, to: &SqlType) -> Expr {
    marker(&format!("assign:{to}"), vec![expr])
}

/// The constant that `text` is in type `to`.
pub(in crate::plan) fn constant(text: impl Into<String>, to: &SqlType) -> Expr {
    cast(string(text), to)
}

/// A string literal of no type.
pub(in crate::plan) fn string(text: impl Into<String>) -> Expr {
    Expr::value(Value::SingleQuotedString(text.into()))
}

/// NULL of type `to`.
pub(in crate::plan) fn null(to: &SqlType) -> Expr {
    cast(Expr::value(Value::Null), to)
}

/// The operand of `construct`, which must be boolean: that is known once it has a type, if not before.
pub(super) fn must_be_boolean(construct: &str, operand: Expr) -> Expr {
    if is_boolean(&operand) {
        operand
    } else {
        marker(&format!("boolean:{construct}"), vec![operand])
    }
}

/// Whether an expression is boolean, or an error, whatever its operands are.
fn is_boolean(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_boolean(inner),
        Expr::Value(value) => matches!(value.value, Value::Boolean(_)),
        Expr::BinaryOp { op, .. } => matches!(
            op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
                | BinaryOperator::And
                | BinaryOperator::Or
        ),
        Expr::UnaryOp { op, .. } => *op == UnaryOperator::Not,
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::Exists { .. }
        | Expr::InSubquery { .. }
        | Expr::AnyOp { .. }
        | Expr::AllOp { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. } => true,
        Expr::Dictionary(fields) => fields.first().is_some_and(|field| {
            let key = field.key.value.strip_prefix(INTERNAL).unwrap_or_default();
            matches!(key, "in" | "notin" | "distinct" | "notdistinct" | "any")
                || key.starts_with("boolean:")
        }),
        _ => false,
    }
}

/// A number that is already what it should be: an ordinal, a LIMIT.
pub(super) fn is_protected(value: &Value) -> bool {
    matches!(value, Value::Number(_, true))
}

pub(super) fn protect(expr: &mut Expr) {
    if let Expr::Value(value) = expr
        && let Value::Number(_, protected) = &mut value.value
    {
        *protected = true;
    }
}

/// The call `name(args)`.
pub(in crate::plan) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args
        .into_iter()
        .map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)))
        .collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `left op right`
pub(in crate::plan) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

pub(super) fn negate_if(negated: bool, expr: Expr) -> Expr {
    if negated {
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: Box::new(Expr::Nested(Box::new(expr))),
        }
    } else {
        expr
    }
}

pub(super) fn number(digits: &str, negative: bool) -> Result<Expr, Error> {
    let text = if negative {
        format!("-{digits}")
    } else {
        digits.to_owned()
    }
    .replace('_', "");
    let literal = |digits: &str| Expr::value(Value::Number(digits.to_owned(), true));
    let magnitude = literal(&digits.replace('_', ""));
    let signed = if negative {
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: Box::new(magnitude),
        }
    } else {
        magnitude
    };
    if text.parse::<i32>().is_ok() {
        return Ok(marker("int4", vec![signed]));
    }
    if text.parse::<i64>().is_ok() {
        return Ok(marker("int8", vec![signed]));
    }
    Ok(marker("numeric", vec![string(text)]))
}

/// A decimal number without exponent; `None` if it has too many digits to be written out.
pub(in crate::plan) fn plain_decimal(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let (mantissa, exponent) = match lower.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (lower.as_str(), 0),
    };
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    if scale.unsigned_abs() > 76 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    while scale < 0 {
        digits.push('0');
        scale += 1;
    }
    let scale = usize::try_from(scale).ok()?;
    while digits.len() <= scale {
        digits.insert(0, '0');
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

pub(super) fn literal_digits(expr: &Expr) -> Option<String> {
    let Expr::Dictionary(fields) = expr else {
        return None;
    };
    let [DictionaryField { key, value }] = fields.as_slice() else {
        return None;
    };
    let Expr::Value(value) = &**value else {
        return None;
    };
    match (key.value.strip_prefix(INTERNAL)?, &value.value) {
        ("int4" | "int8", Value::Number(digits, _))
        | ("numeric", Value::SingleQuotedString(digits)) => {
            (!digits.starts_with('-')).then(|| digits.clone())
        }
        _ => None,
    }
}

/// The text of a string literal.
pub(in crate::plan) fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Some(text.clone())
            }
            Value::DollarQuotedString(text) => Some(text.value.clone()),
            _ => None,
        },
        Expr::Nested(inner) => literal_text(inner),
        // A cast of a literal to text: 'x'::text::regclass.
        Expr::Dictionary(fields) => match fields.as_slice() {
            [DictionaryField { key, value }]
                if key.value.strip_prefix(INTERNAL) == Some("cast:text") =>
            {
                literal_text(value)
            }
            _ => None,
        },
        _ => None,
    }
}
