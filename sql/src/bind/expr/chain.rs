//! Chains of operators, which would be trees as deep as they are long: they are passed from the left, and become one level where they are long.
//!
//! Owns which operators make one level together. Types and functions are those that the tree would have. Must not know what the functions do.
//! Called by [`super`].
//!
//! Invariant. A step that is not just a function of what came before and one operand makes the expression one level deeper.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, Operator, ScalarUDF};
use flowstone_functions::{can_be_step, operator_chain};
use flowstone_types::SqlType;
use sqlparser::ast::{self, BinaryOperator};

use super::unnested;
use crate::bind::Binder;
use crate::bind::value::{Type, Value, balanced, made};
use crate::error::{Error, ErrorKind};

/// What is shorter keeps the tree that it has.
const CHAIN_MIN: usize = 16;
/// Operators of a chain that may remain operators.
const LEVELS_MAX: usize = 100;
/// The column that stands for what a chain is so far.
const SO_FAR: &str = "\u{1}so far";

/// The function and the second operand of a step that is nothing but a function of what came before and an operand.
fn simple(step: &Expr, so_far: &Expr) -> Option<(Arc<ScalarUDF>, Expr)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = step else {
        return None;
    };
    let [first, second] = args.as_slice() else {
        return None;
    };
    (first == so_far && can_be_step(func)).then(|| (Arc::clone(func), second.clone()))
}

impl Binder<'_> {
    /// Operands that AND or OR joins, however they are nested, in their order.
    pub(super) fn logical(
        &mut self,
        op: &BinaryOperator,
        expr: &ast::Expr,
    ) -> Result<Value, Error> {
        let construct = if *op == BinaryOperator::And {
            "AND"
        } else {
            "OR"
        };
        let mut waiting = vec![expr];
        let mut operands = Vec::new();
        while let Some(next) = waiting.pop() {
            match unnested(next) {
                ast::Expr::BinaryOp {
                    left,
                    op: inner,
                    right,
                } if inner == op && self.grouped(unnested(next)).is_none() => {
                    waiting.push(right);
                    waiting.push(left);
                }
                operand => operands.push(self.condition(construct, operand)?),
            }
        }
        let joined = if *op == BinaryOperator::And {
            Operator::And
        } else {
            Operator::Or
        };
        let expr = balanced(operands, joined)
            .ok_or_else(|| Error::internal("a chain without operands"))?;
        Ok(Value::new(expr, SqlType::Bool))
    }

    /// An operator between two operands, of which the left one may be such a one as well, and so on.
    pub(super) fn chain(&mut self, expr: &ast::Expr) -> Result<Value, Error> {
        let mut steps = Vec::new();
        let mut first = expr;
        while let ast::Expr::BinaryOp { left, op, right } = first
            && !matches!(
                op,
                BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Overlaps
            )
            && self.grouped(first).is_none()
        {
            steps.push((op, &**right));
            first = left;
        }
        let mut so_far = self.expr(first)?;
        if steps.len() < CHAIN_MIN {
            for (op, right) in steps.into_iter().rev() {
                let right = match self.beside_row(&so_far, right)? {
                    Some(row) => row,
                    None => self.expr(right)?,
                };
                so_far = self.binary(op, so_far, right)?;
            }
            return Ok(so_far);
        }
        let mut chained: Vec<(Arc<ScalarUDF>, Expr)> = Vec::new();
        let mut levels = 0;
        for (op, right) in steps.into_iter().rev() {
            let right = self.expr(right)?;
            if let Type::Of(sql_type) = &so_far.of
                && levels > 0
            {
                let stand_in = Expr::Column(Column::new_unqualified(SO_FAR));
                let left = Value::new(stand_in.clone(), sql_type.clone());
                let step = self.binary(op, left, right.clone())?;
                if let Some(simple) = simple(&step.expr, &stand_in) {
                    chained.push(simple);
                    so_far = Value::typed(so_far.expr, step.of);
                    continue;
                }
            }
            levels += 1;
            if levels > LEVELS_MAX {
                return Err(Error::new(
                    ErrorKind::TooComplex,
                    "expression is nested too deeply",
                ));
            }
            let left = closed(so_far, std::mem::take(&mut chained))?;
            so_far = self.binary(op, left, right)?;
        }
        closed(so_far, chained)
    }
}

/// The chain as one call. `so_far`: its first operand, and the type of the whole.
fn closed(so_far: Value, steps: Vec<(Arc<ScalarUDF>, Expr)>) -> Result<Value, Error> {
    if steps.is_empty() {
        return Ok(so_far);
    }
    let expr = made(operator_chain(so_far.expr, steps))?;
    Ok(Value::typed(expr, so_far.of))
}
