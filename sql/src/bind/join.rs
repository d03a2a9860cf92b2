//! Joins: their conditions, the columns that USING and NATURAL merge, and lateral sides.
//!
//! Owns what a merged column is: the left one's value of an inner or left join, the right one's of a right join, whichever is there of a full join.
//! Called by [`super::from`].
//!
//! Invariants. A merged column is a column of the plan. `*` shows merged columns first, then the others of the left side, then those of the right.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, Filter, Join, JoinConstraint, LogicalPlan, Operator};
use sqlparser::ast::{self, JoinConstraint as Constraint, JoinOperator};
use sqlparser::tokenizer::Span;

use super::from::may_be_lateral;
use super::grouping::named;
use super::scope::{Computed, Relation, ScopeColumn};
use super::subquery::{Pending, joined};
use super::value::{Type, Value, balanced, made, told};
use super::{Binder, Clause, project};
use crate::error::{Error, ErrorKind};
use crate::names::fold_name;
use crate::unnest::{DependentKind, dependent_join};

/// The rows of both sides beside each other. `lateral`: whether the right may ask for columns of the left.
pub(super) fn crossed(
    left: LogicalPlan,
    right: LogicalPlan,
    lateral: bool,
) -> Result<LogicalPlan, Error> {
    if lateral && asks_for(&right, left.schema())? {
        return made(dependent_join(left, right, DependentKind::Inner, None));
    }
    plain(left, right, JoinType::Inner, None)
}

fn plain(
    left: LogicalPlan,
    right: LogicalPlan,
    join_type: JoinType,
    on: Option<Expr>,
) -> Result<LogicalPlan, Error> {
    made(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        Vec::new(),
        on,
        join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    ))
    .map(LogicalPlan::Join)
}

/// Whether a plan has an outer reference to a column of `schema`.
fn asks_for(plan: &LogicalPlan, schema: &DFSchema) -> Result<bool, Error> {
    let mut asks = false;
    made(plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                asks |= matches!(part, Expr::OuterReferenceColumn(_, column) if schema.has_column(column));
                Ok(if asks {
                    TreeNodeRecursion::Stop
                } else {
                    TreeNodeRecursion::Continue
                })
            })
        })
    }))?;
    Ok(asks)
}

fn filtered(plan: LogicalPlan, on: Option<Expr>) -> Result<LogicalPlan, Error> {
    match on {
        Some(on) => made(Filter::try_new(on, Arc::new(plan))).map(LogicalPlan::Filter),
        None => Ok(plan),
    }
}

/// The rows of `left`, each with those of `right` for which the condition holds, or NULLs; subqueries of the condition may ask for columns of both.
fn left_with_subqueries(
    left: LogicalPlan,
    right: LogicalPlan,
    on: Option<Expr>,
    pending: Vec<Pending>,
) -> Result<LogicalPlan, Error> {
    let schema = Arc::clone(left.schema());
    let pending = pending
        .into_iter()
        .map(|subquery| {
            Ok(Pending {
                on: subquery
                    .on
                    .map(|on| Binder::outward_of(on, &schema))
                    .transpose()?,
                ..subquery
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let on = on.map(|on| Binder::outward_of(on, &schema)).transpose()?;
    let right = filtered(joined(right, pending)?, on)?;
    made(dependent_join(left, right, DependentKind::Left, None))
}

fn build(
    left: LogicalPlan,
    right: LogicalPlan,
    join_type: JoinType,
    on: Option<Expr>,
    pending: Vec<Pending>,
    lateral: bool,
) -> Result<LogicalPlan, Error> {
    match (join_type, pending.is_empty()) {
        (JoinType::Inner, true) if lateral => {
            made(dependent_join(left, right, DependentKind::Inner, on))
        }
        (JoinType::Left, true) if lateral => {
            made(dependent_join(left, right, DependentKind::Left, on))
        }
        (_, true) => plain(left, right, join_type, on),
        (JoinType::Inner, false) => {
            let both = if lateral {
                made(dependent_join(left, right, DependentKind::Inner, None))?
            } else {
                plain(left, right, JoinType::Inner, None)?
            };
            filtered(joined(both, pending)?, on)
        }
        (JoinType::Left, false) => left_with_subqueries(left, right, on, pending),
        (JoinType::Right, false) => left_with_subqueries(right, left, on, pending),
        _ => Err(Error::unsupported(
            "subqueries in the condition of a FULL JOIN are not supported",
        )
        .with_hint("Join the subquery before, and compare its columns.")),
    }
}

fn kind_of(operator: &JoinOperator) -> Result<(JoinType, Option<&Constraint>), Error> {
    match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
            Ok((JoinType::Inner, Some(constraint)))
        }
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
            Ok((JoinType::Left, Some(constraint)))
        }
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
            Ok((JoinType::Right, Some(constraint)))
        }
        JoinOperator::FullOuter(constraint) => Ok((JoinType::Full, Some(constraint))),
        JoinOperator::CrossJoin(_) => Ok((JoinType::Inner, None)),
        _ => Err(Error::unsupported("this kind of join is not supported")),
    }
}

/// A column that a join merges.
struct Merged {
    name: String,
    left: Value,
    right: Value,
}

impl Binder<'_> {
    /// Joins an item to the plan of those before it, whose relations begin at `start`.
    pub(super) fn join(
        &mut self,
        left: LogicalPlan,
        start: usize,
        join: &ast::Join,
    ) -> Result<LogicalPlan, Error> {
        let (join_type, constraint) = kind_of(&join.join_operator)?;
        let middle = self.frame()?.relations.len();
        let is_outward = matches!(join_type, JoinType::Inner | JoinType::Left);
        self.set_lateral(start, middle, is_outward)?;
        let right = self.factor(&join.relation);
        self.set_lateral(start, middle, true)?;
        let right = right?;
        let lateral = may_be_lateral(&join.relation) && asks_for(&right, left.schema())?;
        match constraint {
            None => crossed(left, right, lateral),
            Some(Constraint::On(condition)) => {
                let (on, pending) = self.on(start, condition)?;
                build(left, right, join_type, Some(on), pending, lateral)
            }
            Some(Constraint::Using(names)) => {
                let names: Vec<(String, Span)> = names
                    .iter()
                    .map(|name| {
                        let last = fold_name(name).pop().unwrap_or_default();
                        (last, super::expr::name_span(name))
                    })
                    .collect();
                self.using(left, right, (start, middle), join_type, &names, lateral)
            }
            Some(Constraint::Natural) => {
                let names = self.common_names(start, middle)?;
                self.using(left, right, (start, middle), join_type, &names, lateral)
            }
            Some(Constraint::None) => Err(Error::syntax("a join needs ON or USING")),
        }
    }

    /// Says whether a lateral item may ask for columns of these relations.
    fn set_lateral(&mut self, start: usize, end: usize, lateral: bool) -> Result<(), Error> {
        let relations = self.frame()?.relations.iter_mut().take(end).skip(start);
        for relation in relations {
            relation.lateral = lateral;
        }
        Ok(())
    }

    /// Binds the condition of a join, which names the relations from `start` on.
    fn on(&mut self, start: usize, condition: &ast::Expr) -> Result<(Expr, Vec<Pending>), Error> {
        let frame = self.frame()?;
        let (visible, clause) = (frame.visible, frame.clause);
        frame.visible = start;
        frame.clause = Clause::On;
        let on = self.condition("JOIN/ON", condition);
        let frame = self.frame()?;
        frame.visible = visible;
        frame.clause = clause;
        let pending = std::mem::take(&mut frame.pending);
        Ok((on?, pending))
    }

    /// The columns that can be named without a relation among these.
    fn named_columns(&mut self, start: usize, end: usize) -> Result<Vec<ScopeColumn>, Error> {
        let relations = self.frame()?.relations.iter().take(end).skip(start);
        Ok(relations
            .filter(|relation| relation.by_column)
            .flat_map(|relation| relation.columns.clone())
            .collect())
    }

    fn common_names(&mut self, start: usize, middle: usize) -> Result<Vec<(String, Span)>, Error> {
        let left = self.named_columns(start, middle)?;
        let right = self.named_columns(middle, usize::MAX)?;
        let mut names: Vec<(String, Span)> = Vec::new();
        for column in left {
            let both = right.iter().any(|other| other.name == column.name);
            if both && !names.iter().any(|(name, _)| *name == column.name) {
                names.push((column.name, Span::empty()));
            }
        }
        Ok(names)
    }

    fn using(
        &mut self,
        left: LogicalPlan,
        right: LogicalPlan,
        (start, middle): (usize, usize),
        join_type: JoinType,
        names: &[(String, Span)],
        lateral: bool,
    ) -> Result<LogicalPlan, Error> {
        let lefts = self.named_columns(start, middle)?;
        let rights = self.named_columns(middle, usize::MAX)?;
        let mut merged: Vec<Merged> = Vec::with_capacity(names.len());
        let mut tests = Vec::with_capacity(names.len());
        for (name, span) in names {
            if merged.iter().any(|known| known.name == *name) {
                let error = Error::new(
                    ErrorKind::DuplicateColumn,
                    format!("column name \"{name}\" appears more than once in USING clause"),
                );
                return Err(self.placed(error, *span));
            }
            let find = |columns: &[ScopeColumn], side: &str| {
                only(columns, name, side).map_err(|error| self.placed(error, *span))
            };
            let (left, right) = (find(&lefts, "left")?, find(&rights, "right")?);
            Self::common("JOIN/USING", [left.given(), right.given()])?;
            let test = self
                .operator("=", left.clone(), right.clone())
                .map_err(|error| self.placed(error, *span))?;
            tests.push(test.expr);
            merged.push(Merged {
                name: name.clone(),
                left,
                right,
            });
        }
        let on = balanced(tests, Operator::And);
        let plan = build(left, right, join_type, on, Vec::new(), lateral)?;
        let (plan, mut columns) = self.merge(plan, join_type, merged)?;
        let is_rest = |column: &&ScopeColumn| !names.iter().any(|(name, _)| *name == column.name);
        columns.extend(lefts.iter().filter(is_rest).cloned());
        columns.extend(rights.iter().filter(is_rest).cloned());
        for relation in self.frame()?.relations.iter_mut().skip(start) {
            relation.by_column = false;
        }
        self.push_relation(Relation {
            name: String::new(),
            qualified: Vec::new(),
            columns,
            by_name: false,
            by_column: true,
            lateral: true,
            is_value: false,
            origin: None,
        })?;
        Ok(plan)
    }

    /// The plan with merged columns, and these. What is one of both sides as it is stays that.
    fn merge(
        &mut self,
        plan: LogicalPlan,
        join_type: JoinType,
        merged: Vec<Merged>,
    ) -> Result<(LogicalPlan, Vec<ScopeColumn>), Error> {
        let schema = Arc::clone(plan.schema());
        let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        let width = exprs.len();
        let mut columns = Vec::with_capacity(merged.len());
        for Merged { name, left, right } in merged {
            let common = Self::common("JOIN/USING", [left.given(), right.given()])?;
            let of = Type::Of(common.clone());
            let sides = match join_type {
                JoinType::Right => vec![right],
                JoinType::Full => vec![left, right],
                JoinType::Inner if left.of != of && right.of == of => vec![right],
                _ => vec![left],
            };
            let sources = sides
                .iter()
                .filter_map(|side| side.expr.try_as_col().cloned())
                .collect();
            let value = match <[Value; 1]>::try_from(sides) {
                Ok([side]) => side,
                Err(sides) => self.function("coalesce", sides, Span::empty())?,
            };
            let value = self.coerce(value, &common)?;
            let expr = if matches!(value.expr, Expr::Column(_)) {
                value.expr
            } else {
                let column = self.reserve(&name, &common);
                let expr = told(value.expr, &common, &schema)?;
                exprs.push(named(expr, &column));
                self.frame()?.merged.push(Computed {
                    column: column.clone(),
                    sources,
                    of: of.clone(),
                });
                Expr::Column(column)
            };
            columns.push(ScopeColumn { name, expr, of });
        }
        let plan = if exprs.len() > width {
            project(plan, exprs)?
        } else {
            plan
        };
        Ok((plan, columns))
    }
}

/// The only column of this name on a side.
fn only(columns: &[ScopeColumn], name: &str, side: &str) -> Result<Value, Error> {
    let mut found = columns.iter().filter(|column| column.name == name);
    match (found.next(), found.next()) {
        (Some(column), None) => Ok(Value::typed(column.expr.clone(), column.of.clone())),
        (None, _) => Err(Error::new(
            ErrorKind::UndefinedColumn,
            format!("column \"{name}\" specified in USING clause does not exist in {side} table"),
        )),
        (Some(_), Some(_)) => Err(Error::new(
            ErrorKind::AmbiguousColumn,
            format!("common column name \"{name}\" appears more than once in {side} table"),
        )),
    }
}
