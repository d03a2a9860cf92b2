//! Groups.
//!
//! Owns GROUP BY with its ordinals, aliases and grouping sets, and that behind a grouping only groups and aggregates can be named. Must not know what aggregates are
//! ([`super::aggregate`]). Called by [`super::select`], and by [`super::expr`] for what is written like a group.
//!
//! Invariants. A group that is a column stays that column behind the grouping; any other is computed beneath it, as a column of its own.

use std::cell::RefCell;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan};
use flowstone_types::SqlType;
use sqlparser::ast::{self, FunctionArguments};

use super::scope::{Frame, shown};
use super::select::Target;
use super::subquery::Pending;
use super::value::{Type, Value, made, told};
use super::{Binder, Clause, project};
use crate::error::{Error, ErrorKind};
use crate::positions::position_of;

/// Grouping sets of one query.
const SETS_MAX: usize = 4096;
/// Columns that CUBE makes all sets of.
const CUBE_MAX: usize = 12;

/// Something that rows are grouped by.
#[derive(Debug)]
pub(super) struct Group {
    /// It, beneath the grouping.
    pub(super) expr: Expr,
    /// The column that it is, beneath the grouping and behind it.
    pub(super) column: Column,
    of: Type,
}

/// An aggregate.
#[derive(Debug)]
pub(super) struct Aggregated {
    /// The call.
    pub(super) call: Expr,
    /// The column that it becomes.
    pub(super) column: Column,
}

/// What rows are grouped by, and what is computed of the groups.
#[derive(Debug, Default)]
pub(super) struct Grouping {
    pub(super) groups: Vec<Group>,
    /// The grouping sets: positions among the groups.
    sets: Option<Vec<Vec<usize>>>,
    pub(super) aggregates: Vec<Aggregated>,
    /// Subqueries in arguments of aggregates.
    pub(super) below: Vec<Pending>,
    /// Groups that are found again by how they are written: what is in them is not bound twice.
    written: Vec<(ast::Expr, usize)>,
    /// Columns beneath the grouping that subqueries behind it ask for.
    pub(super) asked: RefCell<Vec<Column>>,
}

impl Grouping {
    /// Whether there is anything to group.
    pub(super) fn is_grouped(&self) -> bool {
        !self.groups.is_empty() || !self.aggregates.is_empty() || self.sets.is_some()
    }
}

pub(super) fn grouping_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Grouping, message)
}

/// Whether an expression has a part that becomes a new column wherever it is bound.
fn makes_columns(expr: &ast::Expr) -> bool {
    let found = sqlparser::ast::visit_expressions(expr, |part| {
        let makes = match part {
            ast::Expr::Subquery(_)
            | ast::Expr::Exists { .. }
            | ast::Expr::InSubquery { .. }
            | ast::Expr::AnyOp { .. }
            | ast::Expr::AllOp { .. } => true,
            ast::Expr::Function(function) => {
                matches!(function.args, FunctionArguments::Subquery(_))
                    || crate::names::fold_name(&function.name)
                        .last()
                        .is_some_and(|name| super::series::yields_rows(name))
            }
            _ => false,
        };
        if makes {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    });
    found.is_break()
}

impl Binder<'_> {
    /// The column of the group that is written like `expr`, if it is to be found so.
    pub(super) fn grouped(&self, expr: &ast::Expr) -> Option<Value> {
        let frame = self.frames.last()?;
        if !frame.is_behind_groups() || frame.grouping.written.is_empty() {
            return None;
        }
        let mut written = frame.grouping.written.iter();
        let (_, index) = written.find(|(group, _)| group == expr)?;
        let group = frame.grouping.groups.get(*index)?;
        Some(Value::typed(
            Expr::Column(group.column.clone()),
            group.of.clone(),
        ))
    }

    /// Binds GROUP BY. `targets`: the SELECT list, which ordinals and aliases mean.
    pub(super) fn group_by(
        &mut self,
        group_by: &ast::GroupByExpr,
        targets: &[Target<'_>],
    ) -> Result<(), Error> {
        let ast::GroupByExpr::Expressions(exprs, modifiers) = group_by else {
            return Err(Error::unsupported("GROUP BY ALL is not supported"));
        };
        if !modifiers.is_empty() {
            return Err(Error::syntax("GROUP BY has no WITH"));
        }
        self.frame()?.clause = Clause::GroupBy;
        let mut sets: Vec<Vec<usize>> = vec![Vec::new()];
        let mut has_sets = false;
        for expr in exprs {
            let more = match expr {
                ast::Expr::Rollup(parts) => {
                    let parts = self.group_lists(parts, targets)?;
                    has_sets = true;
                    (0..=parts.len())
                        .rev()
                        .map(|length| parts.iter().take(length).flatten().copied().collect())
                        .collect()
                }
                ast::Expr::Cube(parts) => {
                    let parts = self.group_lists(parts, targets)?;
                    has_sets = true;
                    cube(&parts)?
                }
                ast::Expr::GroupingSets(lists) => {
                    has_sets = true;
                    self.grouping_sets(lists, targets)?
                }
                plain => vec![self.group_list(std::slice::from_ref(plain), targets)?],
            };
            sets = crossed(&sets, &more)?;
        }
        let grouping = &mut self.frame()?.grouping;
        // `GROUP BY ()` is one group, whatever there is.
        if has_sets || (!exprs.is_empty() && grouping.groups.is_empty()) {
            grouping.sets = Some(sets);
        }
        Ok(())
    }

    fn grouping_sets(
        &mut self,
        lists: &[Vec<ast::Expr>],
        targets: &[Target<'_>],
    ) -> Result<Vec<Vec<usize>>, Error> {
        let mut sets = Vec::new();
        for list in lists {
            match list.as_slice() {
                [ast::Expr::Rollup(parts)] => {
                    let parts = self.group_lists(parts, targets)?;
                    sets.extend(
                        (0..=parts.len())
                            .rev()
                            .map(|length| parts.iter().take(length).flatten().copied().collect()),
                    );
                }
                [ast::Expr::Cube(parts)] => {
                    let parts = self.group_lists(parts, targets)?;
                    sets.extend(cube(&parts)?);
                }
                [ast::Expr::GroupingSets(inner)] => {
                    sets.extend(self.grouping_sets(inner, targets)?);
                }
                plain => sets.push(self.group_list(plain, targets)?),
            }
        }
        Ok(sets)
    }

    fn group_lists(
        &mut self,
        lists: &[Vec<ast::Expr>],
        targets: &[Target<'_>],
    ) -> Result<Vec<Vec<usize>>, Error> {
        lists
            .iter()
            .map(|list| self.group_list(list, targets))
            .collect()
    }

    /// Positions of the groups that a list is; a row is its fields.
    fn group_list(
        &mut self,
        exprs: &[ast::Expr],
        targets: &[Target<'_>],
    ) -> Result<Vec<usize>, Error> {
        let mut positions = Vec::new();
        for expr in exprs {
            if let ast::Expr::Tuple(fields) = expr {
                positions.extend(self.group_list(fields, targets)?);
            } else {
                positions.push(self.group(expr, targets)?);
            }
        }
        Ok(positions)
    }

    /// The position of one group. A name is an input column, else an output column; a number is an ordinal.
    fn group(&mut self, expr: &ast::Expr, targets: &[Target<'_>]) -> Result<usize, Error> {
        let expr = super::expr::unnested(expr);
        let target = match expr {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Number(digits, _) => {
                    Some(self.ordinal("GROUP BY", digits, value.span, targets)?)
                }
                ast::Value::Null | ast::Value::Placeholder(_) => None,
                _ => {
                    let error = Error::syntax("non-integer constant in GROUP BY");
                    return Err(self.placed(error, value.span));
                }
            },
            ast::Expr::Identifier(ident) => {
                let name = crate::names::fold(ident);
                if self.has_own_column(&name)? {
                    None
                } else {
                    let mut named = targets.iter().filter(|target| target.name == name);
                    match (named.next(), named.next()) {
                        (Some(target), None) => Some(target),
                        (Some(_), Some(_)) => {
                            let error = Error::new(
                                ErrorKind::AmbiguousColumn,
                                format!("GROUP BY \"{name}\" is ambiguous"),
                            );
                            return Err(self.placed(error, ident.span));
                        }
                        _ => None,
                    }
                }
            }
            _ => None,
        };
        let (value, written) = match target {
            Some(target) => (self.target(target)?, target.expr()),
            None => (self.expr(expr)?, Some(expr)),
        };
        let value = if value.is_unknown() {
            self.as_text_by_default(value)?
        } else {
            value
        };
        let known = self
            .frame()?
            .grouping
            .groups
            .iter()
            .position(|group| group.expr == value.expr);
        let index = match known {
            Some(index) => index,
            None => {
                let column = match &value.expr {
                    Expr::Column(column) => column.clone(),
                    _ => match &value.of {
                        Type::Of(sql_type) => self.reserve("group", sql_type),
                        Type::Unknown | Type::Row(_) => self.fresh_column("group"),
                    },
                };
                let groups = &mut self.frame()?.grouping.groups;
                groups.push(Group {
                    expr: value.expr,
                    column,
                    of: value.of,
                });
                groups.len() - 1
            }
        };
        if let Some(written) = written
            && makes_columns(written)
        {
            let written = super::expr::unnested(written).clone();
            self.frame()?.grouping.written.push((written, index));
        }
        Ok(index)
    }

    /// The expression behind the grouping: groups are columns, and any other column of the FROM is an error.
    pub(super) fn behind_groups(&mut self, expr: Expr, from: &DFSchema) -> Result<Expr, Error> {
        let frame = self.frame()?;
        let computed: Vec<(Expr, Column)> = frame
            .grouping
            .groups
            .iter()
            .filter(|group| !matches!(group.expr, Expr::Column(_) | Expr::Literal(..)))
            .map(|group| (group.expr.clone(), group.column.clone()))
            .collect();
        let replaced =
            expr.transform_down(
                |part| match computed.iter().find(|(group, _)| *group == part) {
                    Some((_, column)) => Ok(Transformed::new(
                        Expr::Column(column.clone()),
                        true,
                        TreeNodeRecursion::Jump,
                    )),
                    None => Ok(Transformed::no(part)),
                },
            );
        let expr = made(replaced)?.data;
        let mut named: Vec<Column> = Vec::new();
        made(expr.apply(|part| {
            if let Expr::Column(column) = part
                && from.has_column(column)
            {
                named.push(column.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        }))?;
        for column in named {
            self.check_grouped(
                &column,
                "must appear in the GROUP BY clause or be used in an aggregate function",
            )?;
        }
        Ok(expr)
    }

    /// Checks the columns that subqueries behind the grouping ask for.
    pub(super) fn check_asked(&mut self, from: &DFSchema) -> Result<(), Error> {
        let asked = self.frame()?.grouping.asked.take();
        for column in asked {
            if from.has_column(&column) {
                self.check_grouped(&column, "")?;
            }
        }
        Ok(())
    }

    /// Checks that a column is the same in all rows of a group: it is one, or a primary key among them decides it.
    fn check_grouped(&mut self, column: &Column, complaint: &str) -> Result<(), Error> {
        let wanted = Expr::Column(column.clone());
        let text = self.ctx.text;
        let frame = self.frame()?;
        if frame
            .grouping
            .groups
            .iter()
            .any(|group| group.expr == wanted)
        {
            return Ok(());
        }
        if let Some(of) = decided_by_key(frame, &wanted) {
            frame.grouping.groups.push(Group {
                expr: wanted,
                column: column.clone(),
                of,
            });
            return Ok(());
        }
        if let Some(merged) = frame.merged.iter().find(|merged| merged.column == *column) {
            let merged = merged.clone();
            for mut source in merged.sources {
                source.spans = column.spans.clone();
                self.check_grouped(&source, complaint)?;
            }
            let grouping = &mut self.frame()?.grouping;
            if grouping.sets.is_some() {
                return Err(Error::unsupported(
                    "a merged column of a join beside grouping sets of its sides is not supported",
                ));
            }
            grouping.groups.push(Group {
                expr: wanted,
                column: column.clone(),
                of: merged.of,
            });
            return Ok(());
        }
        let name = name_in(frame, &wanted);
        let message = if complaint.is_empty() {
            format!("subquery uses ungrouped column \"{name}\" from outer query")
        } else {
            format!("column \"{name}\" {complaint}")
        };
        let error = grouping_error(message);
        let position = column
            .spans
            .first()
            .and_then(|span| position_of(text, span.start.line, span.start.column));
        Err(match position {
            Some(position) => error.at(position),
            None => error,
        })
    }

    /// The plan of the groups over the plan of what is grouped.
    pub(super) fn build_groups(&mut self, mut plan: LogicalPlan) -> Result<LogicalPlan, Error> {
        let below = std::mem::take(&mut self.frame()?.grouping.below);
        plan = super::subquery::joined(plan, below)?;
        let frame = self.frame()?;
        let groups = std::mem::take(&mut frame.grouping.groups);
        let sets = frame.grouping.sets.take();
        let mut aggregates = std::mem::take(&mut frame.grouping.aggregates);
        if groups
            .iter()
            .any(|group| !matches!(group.expr, Expr::Column(_)))
        {
            let schema = Arc::clone(plan.schema());
            let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
            for group in &groups {
                if matches!(group.expr, Expr::Column(_)) {
                    continue;
                }
                let expr = match &group.of {
                    Type::Of(sql_type) => told(group.expr.clone(), sql_type, &schema)?,
                    Type::Unknown | Type::Row(_) => group.expr.clone(),
                };
                exprs.push(named(expr, &group.column));
            }
            plan = project(plan, exprs)?;
        }
        let columns: Vec<Expr> = groups
            .iter()
            .map(|group| Expr::Column(group.column.clone()))
            .collect();
        let has_sets = sets.is_some();
        let group_exprs = match sets {
            Some(sets) if !columns.is_empty() => {
                let of_set = |set: Vec<usize>| {
                    let mut exprs: Vec<Expr> = Vec::new();
                    for index in set {
                        if let Some(column) = columns.get(index)
                            && !exprs.contains(column)
                        {
                            exprs.push(column.clone());
                        }
                    }
                    exprs
                };
                let sets = sets.into_iter().map(of_set).collect();
                vec![Expr::GroupingSet(GroupingSet::GroupingSets(sets))]
            }
            Some(sets) => return self.build_empty_sets(plan, sets.len(), aggregates),
            None => columns,
        };
        if group_exprs.is_empty() && aggregates.is_empty() {
            aggregates.push(self.counted()?);
        }
        let plan = aggregated(plan, group_exprs, aggregates)?;
        if !has_sets {
            return Ok(plan);
        }
        // What says which set a row is of goes when GROUPING is resolved.
        let shown = plan
            .schema()
            .columns()
            .into_iter()
            .filter(|column| column.name != Aggregate::INTERNAL_GROUPING_ID)
            .map(Expr::Column)
            .collect();
        project(plan, shown)
    }

    /// `count(*)`, for a group of which nothing is asked.
    fn counted(&mut self) -> Result<Aggregated, Error> {
        let count = flowstone_functions::registry()
            .aggregate("count")
            .ok_or_else(|| Error::internal("no function count"))?;
        let one = Expr::Literal(ScalarValue::Int64(Some(1)), None);
        Ok(Aggregated {
            call: count.call(vec![one]),
            column: self.reserve("count", &SqlType::Int8),
        })
    }

    /// `GROUP BY ()`, as often as it is written.
    fn build_empty_sets(
        &mut self,
        plan: LogicalPlan,
        count: usize,
        mut aggregates: Vec<Aggregated>,
    ) -> Result<LogicalPlan, Error> {
        if count > 1 {
            return Err(Error::unsupported(
                "several empty grouping sets are not supported",
            ));
        }
        if aggregates.is_empty() {
            aggregates.push(self.counted()?);
        }
        aggregated(plan, Vec::new(), aggregates)
    }
}

/// An expression as this column.
pub(super) fn named(expr: Expr, column: &Column) -> Expr {
    expr.alias_qualified(column.relation.clone(), &column.name)
}

fn aggregated(
    plan: LogicalPlan,
    groups: Vec<Expr>,
    aggregates: Vec<Aggregated>,
) -> Result<LogicalPlan, Error> {
    let calls = aggregates
        .into_iter()
        .map(|aggregate| named(aggregate.call, &aggregate.column))
        .collect();
    made(Aggregate::try_new(Arc::new(plan), groups, calls)).map(LogicalPlan::Aggregate)
}

/// The type of a column whose value a primary key decides, all of which is grouped by.
fn decided_by_key(frame: &Frame, wanted: &Expr) -> Option<Type> {
    if frame.grouping.sets.is_some() {
        return None;
    }
    let is_group = |expr: &Expr| {
        frame
            .grouping
            .groups
            .iter()
            .any(|group| group.expr == *expr)
    };
    frame.relations.iter().find_map(|relation| {
        let column = relation
            .columns
            .iter()
            .find(|column| column.expr == *wanted)?;
        let key = relation.origin.as_ref()?.key.as_ref()?;
        let decides = !key.is_empty()
            && key.iter().all(|position| {
                let part = relation.columns.get(*position);
                part.is_some_and(|part| is_group(&part.expr))
            });
        decides.then(|| column.of.clone())
    })
}

/// How messages call a column of a frame.
fn name_in(frame: &Frame, wanted: &Expr) -> String {
    let found = frame.relations.iter().find_map(|relation| {
        let column = relation
            .columns
            .iter()
            .find(|column| column.expr == *wanted)?;
        if relation.name.is_empty() {
            return None;
        }
        Some(format!("{}.{}", shown(&relation.name), shown(&column.name)))
    });
    found.unwrap_or_else(|| match wanted {
        Expr::Column(column) => shown(&column.name),
        other => other.to_string(),
    })
}

/// All subsets of the parts, the largest first.
fn cube(parts: &[Vec<usize>]) -> Result<Vec<Vec<usize>>, Error> {
    if parts.len() > CUBE_MAX {
        return Err(Error::new(
            ErrorKind::TooComplex,
            format!("CUBE is limited to {CUBE_MAX} elements"),
        ));
    }
    let count = 1_usize << parts.len();
    let sets = (0..count).rev().map(|chosen| {
        let parts = parts.iter().rev().enumerate();
        let mut set: Vec<&Vec<usize>> = parts
            .filter(|(bit, _)| (chosen >> bit) & 1 == 1)
            .map(|(_, part)| part)
            .collect();
        set.reverse();
        set.into_iter().flatten().copied().collect()
    });
    Ok(sets.collect())
}

/// Every set of the one with every set of the other.
fn crossed(left: &[Vec<usize>], right: &[Vec<usize>]) -> Result<Vec<Vec<usize>>, Error> {
    if left.len().saturating_mul(right.len()) > SETS_MAX {
        return Err(Error::new(
            ErrorKind::TooComplex,
            format!("too many grouping sets present (maximum {SETS_MAX})"),
        ));
    }
    let sets = left.iter().flat_map(|left| {
        right
            .iter()
            .map(move |right| left.iter().chain(right).copied().collect())
    });
    Ok(sets.collect())
}
