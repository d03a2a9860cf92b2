//! What functions and operators mean as expressions of DataFusion, and of which types these are.
//!
//! Owns how a call is built and how its value comes to the type that PostgreSQL gives it. Must not know how a call is resolved.
//! Called by the calls of [`super`].
//!
//! Invariant. The field of what [`Meaning::expr`] gives is the one that [`Meaning::field`] says.

use std::sync::Arc;

use arrow_schema::{Field, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, ReturnFieldArgs, ScalarUDF, lit};
use flowstone_types::SqlType;

use crate::cast::cast_expr;
use crate::planner;
use crate::registry::scalar_function;

/// Whether a match is asked for or the contrary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Match,
    NoMatch,
}

/// Whether letters and their capitals are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    Insensitive,
}

/// What is computed.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// The argument itself.
    Value,
    /// The argument cast to this type.
    Cast(SqlType),
    /// A call of this function.
    Function(Arc<ScalarUDF>),
    /// A call of this function with the operands in the other order.
    Swapped(Arc<ScalarUDF>),
    /// NOT of a boolean.
    Not,
    /// A comparison of DataFusion's, or AND and OR: what gives a boolean.
    Comparison(Operator),
    /// An operation of DataFusion's on the bits of two integers of one type.
    Bits(Operator),
    /// A shift by an integer of another type.
    Shift(Operator),
    /// All bits turned.
    Complement,
    /// Two values as texts, one behind the other.
    Concatenation,
    /// LIKE and ILIKE.
    Like(Wanted, Case),
    /// A match with a regular expression.
    Regex(Wanted, Case),
}

/// A call of a function.
pub(super) fn call(function: &Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}

/// A call of the function `name`, which is one of ours.
pub(super) fn call_named(name: &str, args: Vec<Expr>) -> Result<Expr> {
    Ok(call(&scalar_function(name)?, args))
}

/// The two operands of an operator.
fn pair(args: Vec<Expr>) -> Result<(Expr, Expr)> {
    match <[Expr; 2]>::try_from(args) {
        Ok([left, right]) => Ok((left, right)),
        Err(args) => plan_err!("an operator of two operands has {}", args.len()),
    }
}

/// The only argument.
fn single(args: Vec<Expr>) -> Result<Expr> {
    match <[Expr; 1]>::try_from(args) {
        Ok([only]) => Ok(only),
        Err(args) => plan_err!("one argument is expected, not {}", args.len()),
    }
}

fn not(expr: Expr) -> Expr {
    Expr::Not(Box::new(expr))
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

fn field_of(sql_type: &SqlType) -> FieldRef {
    Arc::new(sql_type.to_field("value", true))
}

fn no_such_argument() -> DataFusionError {
    DataFusionError::Internal("a call lacks an argument".to_owned())
}

fn argument(types: &[SqlType], index: usize) -> Result<&SqlType> {
    types.get(index).ok_or_else(no_such_argument)
}

/// The field of the result of a function.
fn function_field(
    function: &ScalarUDF,
    types: &[SqlType],
    literals: &[Option<&ScalarValue>],
) -> Result<FieldRef> {
    let fields: Vec<FieldRef> = types.iter().map(field_of).collect();
    function.return_field_from_args(ReturnFieldArgs {
        arg_fields: &fields,
        scalar_arguments: literals,
    })
}

impl Meaning {
    /// The field of the value for arguments of these types, of which some are literals.
    pub(super) fn field(
        &self,
        types: &[SqlType],
        literals: &[Option<&ScalarValue>],
    ) -> Result<FieldRef> {
        match self {
            Self::Function(function) => function_field(function, types, literals),
            Self::Swapped(function) => {
                let types: Vec<SqlType> = types.iter().rev().cloned().collect();
                let literals: Vec<Option<&ScalarValue>> = literals.iter().rev().copied().collect();
                function_field(function, &types, &literals)
            }
            Self::Value | Self::Bits(_) | Self::Shift(_) | Self::Complement => {
                argument(types, 0).map(field_of)
            }
            Self::Not | Self::Comparison(_) | Self::Like(..) | Self::Regex(..) => {
                Ok(field_of(&SqlType::Bool))
            }
            Self::Concatenation => Ok(field_of(&SqlType::Text)),
            Self::Cast(to) => Ok(field_of(to)),
        }
    }

    /// The expression over arguments of these types.
    pub(super) fn expr(&self, types: &[SqlType], args: Vec<Expr>) -> Result<Expr> {
        match self {
            Self::Value => single(args),
            Self::Not => single(args).map(not),
            Self::Cast(to) => cast_expr(single(args)?, argument(types, 0)?, to),
            Self::Function(function) => Ok(call(function, args)),
            Self::Swapped(function) => Ok(call(function, args.into_iter().rev().collect())),
            Self::Comparison(op) | Self::Bits(op) => {
                let (left, right) = pair(args)?;
                Ok(binary(left, *op, right))
            }
            Self::Shift(op) => {
                let (left, right) = pair(args)?;
                let right = cast_expr(right, argument(types, 1)?, argument(types, 0)?)?;
                Ok(binary(left, *op, right))
            }
            Self::Complement => {
                let all = ScalarValue::Int16(Some(-1)).cast_to(&argument(types, 0)?.to_arrow())?;
                let value = single(args)?;
                Ok(binary(value, Operator::BitwiseXor, lit(all)))
            }
            Self::Concatenation => {
                let (left, right) = pair(args)?;
                let left = cast_expr(left, argument(types, 0)?, &SqlType::Text)?;
                let right = cast_expr(right, argument(types, 1)?, &SqlType::Text)?;
                call_named("text_concat", vec![left, right])
            }
            Self::Like(wanted, case) => {
                let (left, right) = pair(args)?;
                planner::like(
                    left,
                    right,
                    *wanted == Wanted::NoMatch,
                    *case == Case::Insensitive,
                )
            }
            // Ours, because it limits what a pattern may cost.
            Self::Regex(wanted, case) => {
                let mut args = args;
                if *case == Case::Insensitive {
                    args.push(lit("i"));
                }
                let matched = call_named("regexp_like", args)?;
                Ok(match wanted {
                    Wanted::Match => matched,
                    Wanted::NoMatch => not(matched),
                })
            }
        }
    }
}

/// The SQL type of a field.
pub(super) fn type_of(field: &Field) -> Result<SqlType> {
    SqlType::from_field(field).map_err(|error| DataFusionError::Plan(error.to_string()))
}

/// A value with this field as one of type `to`: DataFusion forgets what fields say beside their Arrow types, and has other types for some results.
pub(super) fn settled(expr: Expr, made: &Field, to: &SqlType) -> Result<Expr> {
    let from = type_of(made)?;
    if from != *to {
        return cast_expr(expr, &from, to);
    }
    if *made.data_type() == to.to_arrow() {
        return Ok(expr);
    }
    let name = expr.schema_name().to_string();
    Ok(Expr::Cast(Cast::new_from_field(
        Box::new(expr),
        Arc::new(to.to_field(&name, true)),
    )))
}

/// Those of the arguments that are literals.
pub(super) fn literals(args: &[Expr]) -> Vec<Option<&ScalarValue>> {
    args.iter()
        .map(|arg| match arg {
            Expr::Literal(value, _) => Some(value),
            _ => None,
        })
        .collect()
}
