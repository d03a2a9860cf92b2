//! A chain of filters and projections over one node, fused into at most one operator.
//!
//! Owns the composition: an expression over the chain's output is rewritten to one over the node below, column by column.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan};
use flowstone_functions::codec::encode_expr;
use flowstone_proto::plan::{self, NodeId, Operator};

use super::graph::{Graph, node_column};
use super::mapped;
use super::numbering::without_numbers;
use crate::error::Error;
use crate::names::INTERNAL;

/// An expression over a node's columns, and how EXPLAIN shows it.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    expr: Expr,
    text: String,
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    base: NodeId,
    predicates: Vec<Shown>,
    /// `None`: the columns of the node as they are.
    projections: Option<Vec<Shown>>,
}

/// The expression without the name it was given.
pub(super) fn strip_alias(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => strip_alias(&alias.expr),
        other => other,
    }
}

/// `expr` over columns of `schema` as one over the columns `c0`, `c1`, … of a node, without aliases.
pub(super) fn rebind(expr: &Expr, schema: &DFSchema) -> Result<Expr, Error> {
    transform_columns(expr, schema, |index| Ok(Expr::Column(node_column(index))))
}

fn transform_columns(
    expr: &Expr,
    schema: &DFSchema,
    column: impl Fn(usize) -> Result<Expr, DataFusionError>,
) -> Result<Expr, Error> {
    expr.clone()
        .transform_down(|part| {
            Ok(match part {
                Expr::Alias(alias) => {
                    let inner = strip_alias(&alias.expr).clone();
                    match inner {
                        Expr::Column(reference) => Transformed::new(
                            column(schema.index_of_column(&reference)?)?,
                            true,
                            TreeNodeRecursion::Jump,
                        ),
                        other => Transformed::yes(other),
                    }
                }
                Expr::Column(reference) => Transformed::new(
                    column(schema.index_of_column(&reference)?)?,
                    true,
                    TreeNodeRecursion::Jump,
                ),
                other => Transformed::no(other),
            })
        })
        .map(|transformed| transformed.data)
        .map_err(mapped)
}

/// The expression as the user may have written it, without our internal table names.
fn text_of(expr: &Expr) -> String {
    let shown = strip_alias(expr).clone().transform_down(|part| {
        Ok(match part {
            Expr::Column(column) => {
                let relation = column.relation.as_ref().map(TableReference::table);
                match relation.and_then(|relation| relation.split_once(INTERNAL)) {
                    Some(("", _)) => {
                        Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
                    }
                    Some((name, _)) => {
                        let relation = TableReference::bare(name);
                        Transformed::yes(Expr::Column(Column::new(Some(relation), column.name)))
                    }
                    None => Transformed::no(Expr::Column(column)),
                }
            }
            other => Transformed::no(other),
        })
    });
    let shown = shown.map_or_else(|_| expr.clone(), |transformed| transformed.data);
    without_numbers(&shown.human_display().to_string())
}

impl Chain {
    /// The rows of a node as they are.
    pub(super) const fn of(base: NodeId) -> Self {
        Self {
            base,
            predicates: Vec::new(),
            projections: None,
        }
    }

    /// The same rows, without columns.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "continues a fallible construction"
    )]
    pub(super) fn with_no_columns(mut self) -> Result<Self, Error> {
        self.projections = Some(Vec::new());
        Ok(self)
    }

    /// The columns of the node at `positions`.
    pub(super) fn with_columns(mut self, positions: Vec<usize>, graph: &Graph) -> Self {
        let width = graph.width(self.base);
        if positions.len() == width
            && positions
                .iter()
                .enumerate()
                .all(|(index, position)| index == *position)
        {
            return self;
        }
        let shown = |index: usize| Shown {
            expr: Expr::Column(node_column(index)),
            text: format!("c{index}"),
        };
        self.projections = Some(positions.into_iter().map(shown).collect());
        self
    }

    /// As many columns of the node as `plan` has.
    pub(super) fn with_width(self, plan: &LogicalPlan, graph: &Graph) -> Self {
        self.with_columns((0..plan.schema().fields().len()).collect(), graph)
    }

    /// The output column `index`.
    fn output(&self, index: usize) -> Result<Expr, DataFusionError> {
        match &self.projections {
            None => Ok(Expr::Column(node_column(index))),
            Some(projections) => projections
                .get(index)
                .map(|shown| shown.expr.clone())
                .ok_or_else(|| {
                    DataFusionError::Internal(
                        "a plan refers to a column that its input does not have".to_owned(),
                    )
                }),
        }
    }

    fn compose(&self, expr: &Expr, schema: &DFSchema) -> Result<Shown, Error> {
        Ok(Shown {
            expr: transform_columns(expr, schema, |index| self.output(index))?,
            text: text_of(expr),
        })
    }

    /// Keeps the rows for which `predicate`, over `schema`, is true.
    pub(super) fn filter(&mut self, predicate: &Expr, schema: &DFSchema) -> Result<(), Error> {
        let predicate = self.compose(predicate, schema)?;
        self.predicates.push(predicate);
        Ok(())
    }

    /// Maps rows to the values of `exprs`, over `schema`.
    pub(super) fn project<'e>(
        &mut self,
        exprs: impl Iterator<Item = &'e Expr>,
        schema: &DFSchema,
    ) -> Result<(), Error> {
        let projections = exprs
            .map(|expr| self.compose(expr, schema))
            .collect::<Result<Vec<_>, _>>()?;
        self.projections = Some(projections);
        Ok(())
    }

    /// Makes an operator of the chain if `exprs` would have one of its computed columns evaluated more than once.
    pub(super) fn settle_before<'e>(
        &mut self,
        graph: &mut Graph,
        output: &SchemaRef,
        exprs: impl Iterator<Item = &'e Expr>,
        schema: &DFSchema,
    ) -> Result<(), Error> {
        let Some(projections) = &self.projections else {
            return Ok(());
        };
        let mut uses = vec![0_usize; projections.len()];
        for expr in exprs {
            for column in strip_alias(expr).column_refs() {
                if let Ok(index) = schema.index_of_column(column)
                    && let Some(count) = uses.get_mut(index)
                {
                    *count += occurrences(expr, column);
                }
            }
        }
        let costly = |shown: &Shown| !matches!(shown.expr, Expr::Column(_) | Expr::Literal(..));
        if projections
            .iter()
            .zip(uses)
            .any(|(shown, uses)| uses > 1 && costly(shown))
        {
            let node = std::mem::replace(self, Self::of(self.base)).build(graph, output)?;
            *self = Self::of(node);
        }
        Ok(())
    }

    /// The node that yields the chain's rows, with columns as in `schema`.
    pub(super) fn build(self, graph: &mut Graph, schema: &SchemaRef) -> Result<NodeId, Error> {
        let width = graph.width(self.base);
        let identity = match &self.projections {
            None => true,
            Some(projections) => {
                projections.len() == width
                    && projections.iter().enumerate().all(|(index, shown)| matches!(&shown.expr, Expr::Column(column) if *column == node_column(index)))
            }
        };
        if identity && self.predicates.is_empty() {
            return Ok(self.base);
        }
        let projections = self.projections.unwrap_or_else(|| {
            (0..width)
                .map(|index| Shown {
                    expr: Expr::Column(node_column(index)),
                    text: plan::column_name(index),
                })
                .collect()
        });
        let kept: Vec<Option<usize>> = projections
            .iter()
            .map(|shown| match &shown.expr {
                Expr::Column(column) => (0..width).find(|index| *column == node_column(*index)),
                _ => None,
            })
            .collect();
        let encode = |shown: &Shown| -> Result<plan::Expr, Error> {
            Ok(plan::Expr {
                bytes: encode_expr(&shown.expr).map_err(mapped)?,
                text: shown.text.clone(),
            })
        };
        let predicates = self
            .predicates
            .iter()
            .map(encode)
            .collect::<Result<Vec<_>, _>>()?;
        let projections = projections
            .iter()
            .map(encode)
            .collect::<Result<Vec<_>, _>>()?;
        let key = graph.key(self.base).and_then(|key| {
            key.iter()
                .map(|column| kept.iter().position(|kept| *kept == Some(*column)))
                .collect()
        });
        let operator = Operator::FilterProject {
            input: self.base,
            predicates,
            projections,
        };
        Ok(graph.add(operator, Arc::clone(schema), key))
    }
}

fn occurrences(expr: &Expr, column: &Column) -> usize {
    let mut count = 0;
    let visited = expr.apply(|part| {
        if matches!(part, Expr::Column(found) if found == column) {
            count += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    if visited.is_err() { 1 } else { count }
}
