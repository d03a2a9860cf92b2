//! PostgreSQL's operators and special syntax as calls of our functions.
//!
//! Owns which function an operator means for given operand types. Must not know SQL text, catalogs or sessions.
//! Called by DataFusion's SQL planner in a session state; [`checked_arithmetic`] by whoever meets plain operators.

use arrow_schema::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ExprSchema, Result, ScalarValue, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Like, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr,
};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, GetFieldAccess, Operator, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use flowstone_types::SqlType;

use crate::cast::cast_expr;
use crate::numeric::Op;
use crate::operators::{function_name, result_type};
use crate::registry::scalar_function;

/// Plans operators, subscripts, EXTRACT and array literals by PostgreSQL's rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresExprPlanner;

/// A call of the function `name`, which is one of ours.
fn call(name: &str, args: Vec<Expr>) -> Result<Expr> {
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(
        scalar_function(name)?,
        args,
    )))
}

fn not(expr: Expr) -> Expr {
    Expr::Not(Box::new(expr))
}

/// The type of an operand; NULL if it has none yet (a parameter).
fn type_of(expr: &Expr, schema: &DFSchema) -> DataType {
    expr.get_type(schema).unwrap_or(DataType::Null)
}

fn sql_type_of(expr: &Expr, schema: &DFSchema) -> Result<SqlType> {
    let (_, field) = expr.to_field(schema)?;
    SqlType::from_field(&field)
        .map_err(|error| datafusion::common::DataFusionError::Plan(error.to_string()))
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn is_unknown_literal(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _)
    )
}

/// An integer literal as SQL types it: `integer` if it fits, else `bigint`. DataFusion makes every one a `bigint`.
#[must_use]
pub fn narrow_literal(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
            Ok(value) => Expr::Literal(ScalarValue::Int32(Some(value)), metadata),
            Err(_) => Expr::Literal(ScalarValue::Int64(Some(value)), metadata),
        },
        other => other,
    }
}

/// `left op right` with overflow, rounding and result type of PostgreSQL.
///
/// # Errors
/// If the operator does not exist for these types.
pub fn arithmetic(
    op: Operator,
    left: Expr,
    right: Expr,
    schema: &dyn ExprSchema,
) -> Result<Option<Expr>> {
    let op = match op {
        Operator::Plus => Op::Add,
        Operator::Minus => Op::Subtract,
        Operator::Multiply => Op::Multiply,
        Operator::Divide => Op::Divide,
        Operator::Modulo => Op::Modulo,
        _ => return Ok(None),
    };
    let (left, right) = (narrow_literal(left), narrow_literal(right));
    let types = (
        left.get_type(schema).unwrap_or(DataType::Null),
        right.get_type(schema).unwrap_or(DataType::Null),
    );
    result_type(op, &types.0, &types.1)?;
    call(function_name(op), vec![left, right]).map(Some)
}

/// `-expr`, checked.
///
/// # Errors
/// Never for an expression whose negation exists.
pub fn negation(expr: Expr) -> Result<Expr> {
    call("pg_negate", vec![narrow_literal(expr)])
}

/// Replaces every arithmetic operator of DataFusion's inside `expr` by the checked function, bottom up.
///
/// The planner does this for binary operators as it goes; unary minus and what rewrites produce (`BETWEEN` bounds, simplifications) need this.
///
/// # Errors
/// If an operator does not exist for its types.
pub fn checked_arithmetic(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform_up(|node| rewrite_arithmetic(node, schema))
        .map(|transformed| transformed.data)
}

fn rewrite_arithmetic(node: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match node {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            match arithmetic(op, (*left).clone(), (*right).clone(), schema)? {
                Some(checked) => Ok(Transformed::yes(checked)),
                None => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr {
                    left,
                    op,
                    right,
                }))),
            }
        }
        Expr::Negative(inner) => Ok(Transformed::yes(negation(*inner)?)),
        other => Ok(Transformed::no(other)),
    }
}

/// [`checked_arithmetic`] as an analyzer step (`Analyzer::add_function_rewrite`).
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckedArithmetic;

impl FunctionRewrite for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        rewrite_arithmetic(expr, schema)
    }
}

/// Which operand types an operator other than arithmetic meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Json,
    Array,
    Bytes,
    Other,
}

fn family(data_type: &DataType) -> Family {
    match data_type {
        DataType::LargeBinary => Family::Json,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => Family::Array,
        DataType::Binary => Family::Bytes,
        _ => Family::Other,
    }
}

impl ExprPlanner for PostgresExprPlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let types = (type_of(&left, schema), type_of(&right, schema));
        let families = (family(&types.0), family(&types.1));
        if let Some(op) = arithmetic_operator(&op) {
            if op == Operator::Minus && families.0 == Family::Json {
                return Ok(PlannerResult::Planned(call(
                    "jsonb_delete",
                    vec![left, narrow_literal(right)],
                )?));
            }
            let planned = arithmetic(op, left.clone(), right.clone(), schema)?;
            return Ok(planned.map_or_else(
                || {
                    PlannerResult::Original(RawBinaryExpr {
                        op: sql_operator(op),
                        left,
                        right,
                    })
                },
                PlannerResult::Planned,
            ));
        }
        if let Some(name) = json_operator(&op, families) {
            return Ok(PlannerResult::Planned(call(
                name,
                vec![left, narrow_literal(right)],
            )?));
        }
        match op {
            BinaryOperator::AtArrow if families.0 == Family::Array => Ok(PlannerResult::Planned(
                call("array_has_all", vec![left, right])?,
            )),
            BinaryOperator::ArrowAt if families.1 == Family::Array => Ok(PlannerResult::Planned(
                call("array_has_all", vec![right, left])?,
            )),
            BinaryOperator::PGOverlap => Ok(PlannerResult::Planned(call(
                "array_has_any",
                vec![left, right],
            )?)),
            BinaryOperator::StringConcat => concatenation(left, right, &types, schema),
            BinaryOperator::PGExp => Ok(PlannerResult::Planned(call("power", vec![left, right])?)),
            BinaryOperator::PGStartsWith => Ok(PlannerResult::Planned(call(
                "starts_with",
                vec![left, right],
            )?)),
            BinaryOperator::PGLikeMatch => {
                Ok(PlannerResult::Planned(like(left, right, false, false)?))
            }
            BinaryOperator::PGNotLikeMatch => {
                Ok(PlannerResult::Planned(like(left, right, true, false)?))
            }
            BinaryOperator::PGILikeMatch => {
                Ok(PlannerResult::Planned(like(left, right, false, true)?))
            }
            BinaryOperator::PGNotILikeMatch => {
                Ok(PlannerResult::Planned(like(left, right, true, true)?))
            }
            // Ours, because it limits what a pattern may cost.
            BinaryOperator::PGRegexMatch => Ok(PlannerResult::Planned(call(
                "regexp_like",
                vec![left, right],
            )?)),
            BinaryOperator::PGRegexNotMatch => Ok(PlannerResult::Planned(not(call(
                "regexp_like",
                vec![left, right],
            )?))),
            BinaryOperator::PGRegexIMatch => Ok(PlannerResult::Planned(call(
                "regexp_like",
                vec![left, right, lit("i")],
            )?)),
            BinaryOperator::PGRegexNotIMatch => Ok(PlannerResult::Planned(not(call(
                "regexp_like",
                vec![left, right, lit("i")],
            )?))),
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
            | BinaryOperator::Spaceship => comparison(op, left, right, &types, schema),
            op => Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
        }
    }

    fn plan_field_access(
        &self,
        expr: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { field_access, expr } = expr;
        match (family(&type_of(&expr, schema)), field_access) {
            (Family::Json, GetFieldAccess::NamedStructField { name }) => {
                Ok(PlannerResult::Planned(call(
                    "jsonb_subscript",
                    vec![expr, Expr::Literal(name, None)],
                )?))
            }
            (Family::Json, GetFieldAccess::ListIndex { key }) => Ok(PlannerResult::Planned(call(
                "jsonb_subscript",
                vec![expr, narrow_literal(*key)],
            )?)),
            (Family::Array, GetFieldAccess::ListIndex { key }) => Ok(PlannerResult::Planned(call(
                "array_subscript",
                vec![expr, *key],
            )?)),
            (Family::Array, GetFieldAccess::ListRange { start, stop, .. }) => Ok(
                PlannerResult::Planned(call("array_slice_range", vec![expr, *start, *stop])?),
            ),
            (_, field_access) => Ok(PlannerResult::Original(RawFieldAccessExpr {
                field_access,
                expr,
            })),
        }
    }

    fn plan_array_literal(
        &self,
        exprs: Vec<Expr>,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let narrow = |expr: &Expr| match expr {
            Expr::Literal(ScalarValue::Int64(Some(value)), _) => i32::try_from(*value).is_ok(),
            Expr::Literal(ScalarValue::Null, _) => true,
            _ => false,
        };
        if exprs.is_empty() || !exprs.iter().all(narrow) {
            return Ok(PlannerResult::Original(exprs));
        }
        Ok(PlannerResult::Planned(call(
            "make_array",
            exprs.into_iter().map(narrow_literal).collect(),
        )?))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(call("extract", args)?))
    }

    fn plan_position(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        // The SQL planner hands over the string first.
        Ok(PlannerResult::Planned(call("position", args)?))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(call(
            "overlay",
            args.into_iter().map(narrow_literal).collect(),
        )?))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(call(
            "substr",
            args.into_iter().map(narrow_literal).collect(),
        )?))
    }
}

fn arithmetic_operator(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Plus => Operator::Plus,
        BinaryOperator::Minus => Operator::Minus,
        BinaryOperator::Multiply => Operator::Multiply,
        BinaryOperator::Divide => Operator::Divide,
        BinaryOperator::Modulo => Operator::Modulo,
        _ => return None,
    })
}

fn sql_operator(op: Operator) -> BinaryOperator {
    match op {
        Operator::Minus => BinaryOperator::Minus,
        Operator::Multiply => BinaryOperator::Multiply,
        Operator::Divide => BinaryOperator::Divide,
        Operator::Modulo => BinaryOperator::Modulo,
        _ => BinaryOperator::Plus,
    }
}

/// The function of a jsonb operator; `None` if the operands make it something else.
fn json_operator(op: &BinaryOperator, families: (Family, Family)) -> Option<&'static str> {
    let left = families.0 == Family::Json;
    Some(match op {
        BinaryOperator::Arrow if left => "jsonb_get",
        BinaryOperator::LongArrow if left => "jsonb_get_text",
        BinaryOperator::HashArrow if left => "jsonb_get_path",
        BinaryOperator::HashLongArrow if left => "jsonb_get_path_text",
        BinaryOperator::HashMinus if left => "jsonb_delete_path",
        BinaryOperator::AtArrow if left || families.1 == Family::Json => "jsonb_contains",
        BinaryOperator::ArrowAt if left || families.1 == Family::Json => "jsonb_contained",
        BinaryOperator::Question if left => "jsonb_exists",
        BinaryOperator::QuestionPipe if left => "jsonb_exists_any",
        BinaryOperator::QuestionAnd if left => "jsonb_exists_all",
        BinaryOperator::StringConcat if left || families.1 == Family::Json => "jsonb_concat",
        _ => return None,
    })
}

fn concatenation(
    left: Expr,
    right: Expr,
    types: &(DataType, DataType),
    schema: &DFSchema,
) -> Result<PlannerResult<RawBinaryExpr>> {
    let families = (family(&types.0), family(&types.1));
    Ok(PlannerResult::Planned(match families {
        (Family::Array, Family::Array) => call("array_cat", vec![left, right])?,
        (Family::Array, _) if types.1 == DataType::Null => left,
        (_, Family::Array) if types.0 == DataType::Null => right,
        (Family::Array, _) => call("array_append", vec![left, narrow_literal(right)])?,
        (_, Family::Array) => call("array_prepend", vec![narrow_literal(left), right])?,
        (Family::Bytes, _) | (_, Family::Bytes) => call("bytea_concat", vec![left, right])?,
        _ => {
            if !is_text(&types.0)
                && !is_text(&types.1)
                && types.0 != DataType::Null
                && types.1 != DataType::Null
            {
                return plan_err!(
                    "operator does not exist: {} || {}",
                    sql_type_of(&left, schema)?,
                    sql_type_of(&right, schema)?
                );
            }
            let as_text = |expr: Expr, data_type: &DataType| {
                if is_text(data_type) {
                    Ok(expr)
                } else {
                    cast_expr(
                        narrow_literal(expr),
                        &SqlType::from_arrow(data_type).unwrap_or(SqlType::Text),
                        &SqlType::Text,
                    )
                }
            };
            call(
                "text_concat",
                vec![as_text(left, &types.0)?, as_text(right, &types.1)?],
            )?
        }
    }))
}

/// Longest pattern that DataFusion's LIKE is given: it makes a regular expression of most.
const LIKE_BYTES_MAX: usize = 1000;

pub(crate) fn like(left: Expr, right: Expr, negated: bool, case_insensitive: bool) -> Result<Expr> {
    let short = matches!(
        &right,
        Expr::Literal(ScalarValue::Utf8(Some(pattern)), _) if pattern.len() <= LIKE_BYTES_MAX
    );
    let matched = if short {
        Expr::Like(Like::new(
            false,
            Box::new(left),
            Box::new(right),
            None,
            case_insensitive,
        ))
    } else {
        let name = if case_insensitive {
            "text_ilike"
        } else {
            "text_like"
        };
        call(name, vec![left, right])?
    };
    Ok(if negated { not(matched) } else { matched })
}

/// Comparisons: a literal of unknown type takes the type of the other side; jsonb and intervals have an order of their own.
fn comparison(
    op: BinaryOperator,
    left: Expr,
    right: Expr,
    types: &(DataType, DataType),
    schema: &DFSchema,
) -> Result<PlannerResult<RawBinaryExpr>> {
    let left_unknown = is_unknown_literal(&left) && is_text(&types.0);
    let right_unknown = is_unknown_literal(&right) && is_text(&types.1);
    let (left, right, compared) =
        if left_unknown && !right_unknown && !is_text(&types.1) && types.1 != DataType::Null {
            (
                cast_expr(left, &SqlType::Text, &sql_type_of(&right, schema)?)?,
                right,
                &types.1,
            )
        } else if right_unknown && !left_unknown && !is_text(&types.0) && types.0 != DataType::Null
        {
            let target = sql_type_of(&left, schema)?;
            (left, cast_expr(right, &SqlType::Text, &target)?, &types.0)
        } else {
            (left, right, &types.0)
        };
    let name = match (compared, &op) {
        (DataType::LargeBinary, BinaryOperator::Lt) => "jsonb_lt",
        (DataType::LargeBinary, BinaryOperator::LtEq) => "jsonb_le",
        (DataType::LargeBinary, BinaryOperator::Gt) => "jsonb_gt",
        (DataType::LargeBinary, BinaryOperator::GtEq) => "jsonb_ge",
        (DataType::Interval(_), BinaryOperator::Eq) => "interval_eq",
        (DataType::Interval(_), BinaryOperator::NotEq) => "interval_ne",
        (DataType::Interval(_), BinaryOperator::Lt) => "interval_lt",
        (DataType::Interval(_), BinaryOperator::LtEq) => "interval_le",
        (DataType::Interval(_), BinaryOperator::Gt) => "interval_gt",
        (DataType::Interval(_), BinaryOperator::GtEq) => "interval_ge",
        _ => return Ok(PlannerResult::Original(RawBinaryExpr { op, left, right })),
    };
    Ok(PlannerResult::Planned(call(name, vec![left, right])?))
}
