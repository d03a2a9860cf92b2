//! What decides on the partitions of a sink: from an expression over the columns of its relation to what its worker computes.
//!
//! Owns which expressions can: those of one row. Must not know sinks. Called by the coordinator, when a sink is made and whenever its worker is told of it.

use flowstone_proto::kafka::SinkPartition;
use flowstone_proto::plan::Operator;
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::Expr;

use super::lower;
use crate::error::{Error, ErrorKind};
use crate::parse::{expr_text, parse_expr};
use crate::plan::{PlanContext, PlannedQuery, plan_expression};

/// Makes what a worker computes of an expression over the columns of `relation`. It is a number, which is made a `uint8` as by an assignment.
///
/// # Errors
/// As [`crate::plan::plan_query`]; [`ErrorKind::DatatypeMismatch`] if it is no number, and [`ErrorKind::FeatureNotSupported`] if it is of more than one row.
pub fn lower_partition(
    ctx: &PlanContext<'_>,
    relation: ObjectId,
    expression: &Expr,
) -> Result<SinkPartition, Error> {
    let planned = of_uint8(ctx, relation, expression)?;
    let refused = || {
        Error::unsupported("PARTITION BY must be an expression over the columns of one row")
            .with_hint("Compute it as a column of a materialized view.")
    };
    if !planned.parameters.is_empty() {
        return Err(refused());
    }
    let lowered = lower(&planned)?;
    let operators: Vec<&Operator> = lowered
        .plan
        .nodes
        .iter()
        .map(|node| &node.operator)
        .collect();
    match operators.as_slice() {
        // The only column as it is.
        [Operator::Get { .. }] => Ok(SinkPartition::Column(0)),
        [
            Operator::Get { .. },
            Operator::FilterProject {
                predicates,
                projections,
                ..
            },
        ] => match (predicates.as_slice(), projections.as_slice()) {
            ([], [expression]) => Ok(SinkPartition::Expression(expression.clone())),
            _ => Err(refused()),
        },
        _ => Err(refused()),
    }
}

/// The expression as a `uint8`.
fn of_uint8(
    ctx: &PlanContext<'_>,
    relation: ObjectId,
    expression: &Expr,
) -> Result<PlannedQuery, Error> {
    let planned = plan_expression(ctx, relation, expression.clone())?;
    match planned.columns.first().map(|column| &column.sql_type) {
        Some(SqlType::UInt8) => Ok(planned),
        Some(
            SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::UInt2
            | SqlType::UInt4
            | SqlType::Float4
            | SqlType::Float8
            | SqlType::Numeric(_),
        ) => {
            let cast = format!("CAST({} AS uint8)", expr_text(expression)?);
            plan_expression(ctx, relation, parse_expr(&cast)?)
        }
        other => {
            let found = other.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            Err(Error::new(
                ErrorKind::DatatypeMismatch,
                format!("PARTITION BY must be of type uint8, and is of type {found}"),
            )
            .with_hint("Make it a number: the message goes to the partition that is the remainder by their count."))
        }
    }
}
