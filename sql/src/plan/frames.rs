//! Window frames: which there are.
//!
//! Owns PostgreSQL's rules for the bounds of a frame, and what DataFusion cannot do of what they allow. Called by [`super::rewrite`] before the bounds are
//! rewritten, and by [`crate::plan`] when types are coerced.

use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as Planned, LogicalPlan};
use sqlparser::ast::{Expr, UnaryOperator, Value, WindowFrame, WindowFrameBound};

use crate::error::{Error, ErrorKind};

/// Checks the bounds of a frame.
///
/// # Errors
/// If the frame cannot be (`42P20`), an offset is negative (`22013`), or the frame would always be empty (`0A000`).
pub(super) fn check(frame: &WindowFrame) -> Result<(), Error> {
    use WindowFrameBound::{CurrentRow, Following, Preceding};
    let wrong = |message: &str| Err(Error::new(ErrorKind::Windowing, message));
    let end = frame.end_bound.as_ref().unwrap_or(&CurrentRow);
    match (&frame.start_bound, end) {
        (Following(None), _) => return wrong("frame start cannot be UNBOUNDED FOLLOWING"),
        (_, Preceding(None)) => return wrong("frame end cannot be UNBOUNDED PRECEDING"),
        (CurrentRow, Preceding(Some(_))) => {
            return wrong("frame starting from current row cannot have preceding rows");
        }
        (Following(Some(_)), CurrentRow) if frame.end_bound.is_none() => {
            return wrong("frame starting from following row cannot end with current row");
        }
        (Following(Some(_)), CurrentRow | Preceding(Some(_))) => {
            return wrong("frame starting from following row cannot have preceding rows");
        }
        _ => {}
    }
    for (bound, which) in [(&frame.start_bound, "starting"), (end, "ending")] {
        if let Preceding(Some(offset)) | Following(Some(offset)) = bound
            && is_negative(offset)
        {
            return Err(Error::new(
                ErrorKind::InvalidFrameOffset,
                format!("frame {which} offset must not be negative"),
            ));
        }
    }
    let crossed = match (&frame.start_bound, end) {
        (Preceding(Some(start)), Preceding(Some(end))) => number(start)
            .zip(number(end))
            .is_some_and(|(start, end)| start < end),
        (Following(Some(start)), Following(Some(end))) => number(start)
            .zip(number(end))
            .is_some_and(|(start, end)| start > end),
        _ => false,
    };
    if crossed {
        return Err(Error::unsupported(
            "a window frame that ends before it starts is not supported",
        )
        .with_hint("It is always empty: an aggregate over it is NULL, or 0 for count."));
    }
    Ok(())
}

/// Checks the bounds that a plan has when its types are coerced: an offset that is no value of the type of the order has become NULL, which DataFusion takes
/// for UNBOUNDED.
///
/// # Errors
/// If there is such a frame that cannot be.
pub(super) fn check_planned(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    use datafusion::logical_expr::WindowFrameBound::{Following, Preceding};
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Planned::WindowFunction(function) = part
                    && (matches!(&function.params.window_frame.start_bound, Following(offset) if offset.is_null())
                        || matches!(&function.params.window_frame.end_bound, Preceding(offset) if offset.is_null()))
                {
                    let error = Error::unsupported("a window frame this far from its row is not supported");
                    return Err(DataFusionError::External(Box::new(error)));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map(|_| ())
}

fn is_negative(offset: &Expr) -> bool {
    matches!(offset, Expr::UnaryOp { op: UnaryOperator::Minus, expr } if number(expr).is_some_and(|number| number > 0))
}

fn number(offset: &Expr) -> Option<u64> {
    match offset {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        Expr::Nested(inner) => number(inner),
        _ => None,
    }
}
