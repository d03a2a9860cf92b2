//! Long chains of operators, which would be trees as deep as they are long: they become one level.
//!
//! Owns which operators make a chain, the marker that a chain is in the syntax tree, and its planning, which takes one operator after the other from the left:
//! types and functions are those that the tree would have. Must not know what the functions do. Called by [`super::rewrite`] and [`super::exprs`].
//!
//! Invariant. A step that is not just a function of what came before and one operand is planned as an operator, and makes the tree one level deeper.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow_schema::FieldRef;
use datafusion::common::{Column, DFSchema, DataFusionError, Result, TableReference};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use flowstone_functions::{can_be_step, operator_chain};
use sqlparser::ast::{self, BinaryOperator, Query, VisitMut, VisitorMut};

use super::rewrite::marker;
use crate::error::{Error, ErrorKind};

/// Operators that make a chain. What is shorter keeps the tree that it has.
const CHAIN_MIN: usize = 16;
/// Operators of a chain that may remain operators.
const LEVELS_MAX: usize = 100;
/// The column that stands for what a chain is so far.
const SO_FAR: &str = "\u{1}so far";
/// What the keys of chains begin with.
pub(super) const KEY: &str = "chain:";

/// The operators that make chains, by how they are written.
const OPERATORS: [(&str, BinaryOperator); 10] = [
    ("+", BinaryOperator::Plus),
    ("-", BinaryOperator::Minus),
    ("*", BinaryOperator::Multiply),
    ("/", BinaryOperator::Divide),
    ("%", BinaryOperator::Modulo),
    ("||", BinaryOperator::StringConcat),
    ("->", BinaryOperator::Arrow),
    ("->>", BinaryOperator::LongArrow),
    ("#>", BinaryOperator::HashArrow),
    ("#>>", BinaryOperator::HashLongArrow),
];

fn written(op: &BinaryOperator) -> Option<&'static str> {
    let known = OPERATORS.iter().find(|(_, known)| known == op);
    known.map(|(written, _)| *written)
}

/// Puts a marker in place of every long chain of a query.
pub(super) fn shorten(query: &mut Query) {
    let _ = VisitMut::visit(query, &mut Shortener);
}

struct Shortener;

impl VisitorMut for Shortener {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if is_long(expr) {
            let chain = std::mem::replace(expr, ast::Expr::value(ast::Value::Null));
            *expr = chain_marker(chain);
        }
        ControlFlow::Continue(())
    }
}

fn is_long(mut expr: &ast::Expr) -> bool {
    let mut length = 0;
    while let ast::Expr::BinaryOp { left, op, .. } = expr
        && written(op).is_some()
        && length < CHAIN_MIN
    {
        length += 1;
        expr = left;
    }
    length == CHAIN_MIN
}

fn chain_marker(mut expr: ast::Expr) -> ast::Expr {
    let (mut operands, mut operators) = (Vec::new(), Vec::new());
    loop {
        match expr {
            ast::Expr::BinaryOp { left, op, right } if written(&op).is_some() => {
                operators.extend(written(&op));
                operands.push(*right);
                expr = *left;
            }
            first => {
                operands.push(first);
                break;
            }
        }
    }
    operators.reverse();
    operands.reverse();
    marker(&format!("{KEY}{}", operators.join(" ")), operands)
}

/// What has been planned of a chain.
struct Sofar {
    whole: Expr,
    steps: Vec<(Arc<ScalarUDF>, Expr)>,
    field: FieldRef,
    /// The schema around the chain, with the column [`SO_FAR`] of that field.
    schema: DFSchema,
}

impl Sofar {
    fn new(whole: Expr, around: &DFSchema) -> Result<Self> {
        let field = whole.to_field(around)?.1;
        let schema = extended(around, &field)?;
        Ok(Self {
            whole,
            steps: Vec::new(),
            field,
            schema,
        })
    }

    fn close(self) -> Result<Expr> {
        if self.steps.is_empty() {
            return Ok(self.whole);
        }
        operator_chain(self.whole, self.steps)
    }
}

fn extended(around: &DFSchema, field: &FieldRef) -> Result<DFSchema> {
    let mut fields: Vec<(Option<TableReference>, FieldRef)> = around
        .iter()
        .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
        .collect();
    let named = field.as_ref().clone().with_name(SO_FAR);
    fields.push((None, Arc::new(named)));
    DFSchema::new_with_metadata(fields, HashMap::new())
}

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

/// Plans a chain. `operators`: what its marker's key says; `plan` plans one operator.
pub(super) fn plan(
    operators: &str,
    operands: Vec<Expr>,
    schema: &DFSchema,
    plan: &dyn Fn(BinaryOperator, Expr, Expr, &DFSchema) -> Result<Expr>,
) -> Result<Expr> {
    let malformed = || DataFusionError::Internal("a chain with the wrong operands".to_owned());
    let mut operands = operands.into_iter();
    let mut first = Some(operands.next().ok_or_else(malformed)?);
    let so_far = Expr::Column(Column::new_unqualified(SO_FAR));
    let mut done: Option<Sofar> = None;
    let mut levels = 0;
    for operator in operators.split(' ') {
        let known = OPERATORS.iter().find(|(written, _)| *written == operator);
        let (_, op) = known.ok_or_else(malformed)?;
        let operand = operands.next().ok_or_else(malformed)?;
        if let Some(done) = &mut done {
            let step = plan(op.clone(), so_far.clone(), operand.clone(), &done.schema)?;
            if let Some(step_of) = simple(&step, &so_far) {
                let field = step.to_field(&done.schema)?.1;
                if field.data_type() != done.field.data_type()
                    || field.metadata() != done.field.metadata()
                {
                    done.schema = extended(schema, &field)?;
                    done.field = field;
                }
                done.steps.push(step_of);
                continue;
            }
        }
        levels += 1;
        if levels > LEVELS_MAX {
            let error = Error::new(ErrorKind::TooComplex, "expression is nested too deeply");
            return Err(DataFusionError::External(Box::new(error)));
        }
        let left = match done.take() {
            Some(done) => done.close()?,
            None => first.take().ok_or_else(malformed)?,
        };
        done = Some(Sofar::new(
            plan(op.clone(), left, operand, schema)?,
            schema,
        )?);
    }
    done.ok_or_else(malformed)?.close()
}
