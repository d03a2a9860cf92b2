//! The time zone of the session in expressions: what depends on it is called through `in_time_zone(zone, function, arguments…)`.
//!
//! Owns which casts, operators and functions depend on the zone, the rewriting of plans whose expressions do, and the arithmetic of instants on the
//! calendar of a zone. Must not know sessions: the zone is given. Called by `sql` when types are known, and by kernels.
//!
//! Invariant. What is not called through `in_time_zone` is computed in UTC.

use arrow_schema::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Union, Volatility, lit,
};
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;

use crate::cast::{self, casts_in_zone};
use crate::errors::{EvalResult, datetime_overflow, from_type_error, raise};
use crate::interval::{Interval, add_interval, check_timestamp, is_infinite};
use crate::operators::Arithmetic;
use crate::registry::{registry, scalar_function};
use crate::udf::{PgFunction, broken, has_instants};

/// The function that evaluates another one in a time zone.
const NAME: &str = "in_time_zone";
/// The function that casts are.
const CAST: &str = "pg_cast";

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::new_from_impl(InTimeZone {
        signature: Signature::user_defined(Volatility::Immutable),
    })]
}

/// What clocks of the zone show at an instant; an infinite one stays.
pub(crate) fn to_local(zone: &TimeZone, at: i64) -> EvalResult<i64> {
    if is_infinite(at) {
        return Ok(at);
    }
    zone.to_local(at)
        .ok_or_else(|| datetime_overflow("timestamp"))
        .and_then(check_timestamp)
}

/// The instant at which clocks of the zone show a time; an infinite one stays.
pub(crate) fn to_utc(zone: &TimeZone, at: i64) -> EvalResult<i64> {
    if is_infinite(at) {
        return Ok(at);
    }
    zone.to_utc(at)
        .ok_or_else(|| datetime_overflow("timestamp"))
        .and_then(check_timestamp)
}

/// `instant + interval`: months and days on the calendar of the zone, where days have 23 or 25 hours too; the time as it passes.
pub(crate) fn add_interval_in(zone: &TimeZone, at: i64, by: Interval) -> EvalResult<i64> {
    if is_infinite(at) || matches!(zone, TimeZone::Fixed(_)) {
        return add_interval(at, by);
    }
    let moved = |at: i64, by: Interval| {
        let moved = add_interval(to_local(zone, at)?, by)?;
        to_utc(zone, moved)
    };
    let mut at = at;
    if by.months != 0 {
        at = moved(
            at,
            Interval {
                months: by.months,
                ..Interval::default()
            },
        )?;
    }
    if by.days != 0 {
        at = moved(
            at,
            Interval {
                days: by.days,
                ..Interval::default()
            },
        )?;
    }
    add_interval(
        at,
        Interval {
            micros: by.micros,
            ..Interval::default()
        },
    )
}

/// `in_time_zone('zone', 'function', arguments…)`
#[derive(Debug, PartialEq, Eq, Hash)]
struct InTimeZone {
    signature: Signature,
}

fn text_of(value: Option<&ScalarValue>) -> Result<&str> {
    match value {
        Some(ScalarValue::Utf8(Some(text))) => Ok(text),
        _ => plan_err!("the zone and the function of in_time_zone must be literals"),
    }
}

impl ScalarUDFImpl for InTimeZone {
    fn name(&self) -> &str {
        NAME
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [_, Expr::Literal(name, _), rest @ ..] => {
                scalar_function(text_of(Some(name))?)?.schema_name(rest)
            }
            _ => plan_err!("the zone and the function of in_time_zone must be literals"),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        plan_err!("the type of in_time_zone depends on its arguments")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let name = text_of(args.scalar_arguments.get(1).copied().flatten())?;
        let function = registry().scalar(name).filter(|known| has_zone(known));
        let Some(function) = function else {
            return plan_err!("function {name} has no time zone");
        };
        function.return_field_from_args(ReturnFieldArgs {
            arg_fields: args.arg_fields.get(2..).unwrap_or_default(),
            scalar_arguments: args.scalar_arguments.get(2..).unwrap_or_default(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = |index: usize| match args.args.get(index) {
            Some(ColumnarValue::Scalar(value)) => Some(value),
            _ => None,
        };
        let zone: TimeZone = text_of(scalar(0))?
            .parse()
            .map_err(|error| raise(from_type_error(&error)))?;
        let name = text_of(scalar(1))?.to_owned();
        let inner = ScalarFunctionArgs {
            args: args.args.get(2..).unwrap_or_default().to_vec(),
            arg_fields: args.arg_fields.get(2..).unwrap_or_default().to_vec(),
            ..args
        };
        if name == CAST {
            return cast::invoke_in(&inner, &zone);
        }
        let function = scalar_function(&name)?;
        let function: &dyn std::any::Any = function.inner().as_ref();
        if let Some(function) = function.downcast_ref::<PgFunction>() {
            return function.invoke_in(&inner, &zone);
        }
        match function.downcast_ref::<Arithmetic>() {
            Some(operator) => operator.invoke_in(&inner, &zone),
            None => Err(broken("a function has no time zone")),
        }
    }
}

/// Whether a function can be evaluated in a time zone.
fn has_zone(function: &ScalarUDF) -> bool {
    let inner: &dyn std::any::Any = function.inner().as_ref();
    function.name() == CAST || inner.is::<PgFunction>() || inner.is::<Arithmetic>()
}

fn call(zone: &TimeZone, function: &str, args: Vec<Expr>) -> Result<Expr> {
    let mut all = vec![lit(zone.to_string()), lit(function)];
    all.extend(args);
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(
        scalar_function(NAME)?,
        all,
    )))
}

/// The cast of a literal in a time zone, whatever the zone of the plan that it will be part of is.
///
/// # Errors
/// None that is not a bug.
pub fn cast_literal(literal: Expr, to: &SqlType, zone: &TimeZone) -> Result<Expr> {
    let args = vec![literal, lit(SqlType::Text.to_string()), lit(to.to_string())];
    call(zone, CAST, args)
}

/// The plan, computed in a time zone. Types have been coerced. What stands in a time zone already stays there.
///
/// # Errors
/// If an expression has no type.
pub fn plan_in_zone(plan: LogicalPlan, zone: &TimeZone) -> Result<LogicalPlan> {
    let mut any = false;
    let rewritten = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        // A sort key gives no name to anything.
        let named = !matches!(node, LogicalPlan::Sort(_));
        let changed = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = rewrite(expr, &schema, zone)?;
            Ok(if changed.transformed && named {
                changed.update_data(|expr| name.restore(expr))
            } else {
                changed
            })
        })?;
        any |= changed.transformed;
        // The types of what is below may have changed: DataFusion compares dates with timestamps as nanoseconds.
        if any {
            changed.map_data(|node| united(node)?.recompute_schema())
        } else {
            Ok(changed)
        }
    })?;
    Ok(rewritten.data)
}

/// A union with the types that its first branch has now; it keeps those that it had, whatever becomes of its branches.
fn united(node: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Union(union) = node else {
        return Ok(node);
    };
    let types = |schema: &DFSchema| -> Vec<DataType> {
        let fields = schema.fields().iter();
        fields.map(|field| field.data_type().clone()).collect()
    };
    match union.inputs.first() {
        Some(first) if types(first.schema()) != types(&union.schema) => {
            Union::try_new(union.inputs).map(LogicalPlan::Union)
        }
        _ => Ok(LogicalPlan::Union(union)),
    }
}

/// The expression, computed in a time zone. Types have been coerced.
///
/// # Errors
/// If a part of it has no type.
pub fn expr_in_zone(expr: Expr, schema: &DFSchema, zone: &TimeZone) -> Result<Expr> {
    rewrite(expr, schema, zone).map(|changed| changed.data)
}

fn rewrite(expr: Expr, schema: &DFSchema, zone: &TimeZone) -> Result<Transformed<Expr>> {
    expr.transform_up(|part| match part {
        Expr::Cast(cast) => implicit_cast(cast, schema, zone),
        Expr::ScalarFunction(function) if !zone.is_utc() && depends_on_zone(&function, schema)? => {
            let name = function.func.name().to_owned();
            call(zone, &name, function.args).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })
}

fn depends_on_zone(function: &ScalarFunction, schema: &DFSchema) -> Result<bool> {
    let inner: &dyn std::any::Any = function.func.inner().as_ref();
    if function.func.name() == CAST {
        let name = |index: usize| match function.args.get(index) {
            Some(Expr::Literal(ScalarValue::Utf8(Some(name)), _)) => name.parse::<SqlType>().ok(),
            _ => None,
        };
        return Ok(match (name(1), name(2)) {
            (Some(from), Some(to)) => casts_in_zone(&from, &to),
            _ => false,
        });
    }
    let types = || {
        function
            .args
            .iter()
            .map(|arg| arg.get_type(schema))
            .collect::<Result<Vec<_>>>()
    };
    if let Some(function) = inner.downcast_ref::<PgFunction>() {
        return Ok(function.asks_for_zone(&types()?));
    }
    Ok(inner.is::<Arithmetic>() && types()?.iter().any(has_instants))
}

/// A cast that DataFusion put in. Those to and from timestamps are ours in any zone: Arrow's know no infinity, and wrap what is out of range; and where
/// DataFusion brings dates and timestamps together it wants nanoseconds, which end in 2262.
fn implicit_cast(cast: Cast, schema: &DFSchema, zone: &TimeZone) -> Result<Transformed<Expr>> {
    let unchanged = |cast: Cast| Ok(Transformed::no(Expr::Cast(cast)));
    let source = match cast.expr.get_type(schema) {
        Ok(source) => source,
        Err(_) if zone.is_utc() => return unchanged(cast),
        Err(error) => return Err(error),
    };
    let (Ok(from), Ok(to)) = (
        SqlType::from_arrow(&source),
        SqlType::from_arrow(cast.field.data_type()),
    ) else {
        return unchanged(cast);
    };
    let is_moment = |sql_type: &SqlType| {
        matches!(
            sql_type,
            SqlType::Date | SqlType::Timestamp | SqlType::TimestampTz
        )
    };
    if is_moment(&from) && matches!(to, SqlType::Timestamp | SqlType::TimestampTz) {
        if source == to.to_arrow() {
            return Ok(Transformed::yes(*cast.expr));
        }
    } else if zone.is_utc() || !casts_in_zone(&from, &to) {
        return unchanged(cast);
    }
    let args = vec![*cast.expr, lit(from.to_string()), lit(to.to_string())];
    call(zone, CAST, args).map(Transformed::yes)
}

#[cfg(test)]
mod tests;
