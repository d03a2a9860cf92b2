//! RETURNING: what a write gives of each row that it changes.
//!
//! Owns what the names of a RETURNING list stand for: the row as it becomes, that of a DELETE as it was, and what else the statement names. Must not know which rows
//! are changed. Called by [`super::write`].
//!
//! Invariant. What is given is computed of the very values that are written: a default or an assignment of chance is evaluated once.

use std::sync::Arc;

use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, LogicalPlan};
use flowstone_types::SqlType;
use sqlparser::ast::{SelectItem, TableAliasWithoutColumns};

use super::grouping::named;
use super::order::sorted;
use super::scope::Origin;
use super::subquery::joined;
use super::value::{Type, Value, told};
use super::write::{Target, numbered};
use super::{Binder, Clause, distinct_names, number, project};
use crate::catalog::ItemKind;
use crate::error::Error;
use crate::names::{self, fold};

impl Binder<'_> {
    /// The rows of an INSERT, whose columns are the table's, and behind these what RETURNING gives. The frame at hand is the statement's own.
    pub(super) fn inserted(
        &mut self,
        plan: LogicalPlan,
        target: Target<'_>,
        alias: Option<&TableAliasWithoutColumns>,
        items: &[SelectItem],
    ) -> Result<LogicalPlan, Error> {
        let key = match &target.item.kind {
            ItemKind::Table { key, .. } => key.clone(),
            _ => None,
        };
        let origin = Origin {
            id: target.item.id,
            oid: target.item.oid,
            key,
        };
        let columns = target.columns.iter();
        let columns = columns
            .map(|column| (column.name.clone(), Type::Of(column.sql_type.clone())))
            .collect();
        let (name, qualified) = match alias {
            Some(alias) => (fold(&alias.alias), Vec::new()),
            None => {
                let found = names::Relation::Item(target.item);
                let qualified = names::qualified_name(self.ctx.catalog, found);
                (target.item.name.clone(), qualified)
            }
        };
        let relation = self.relation_of(&plan, columns, &name, qualified, Some(origin));
        self.push_relation(relation)?;
        let written = plan.schema().columns();
        let written = written.into_iter().map(Expr::Column).collect();
        let list = self.returning_list(items)?;
        let pending = std::mem::take(&mut self.frame()?.pending);
        if pending.is_empty() {
            return self.behind(plan, written, list);
        }
        // What joins the subqueries keeps no order. That of an ORDER BY in the statement's query does not come as far as the numbers.
        let number = self.reserve("number", &SqlType::Int8);
        let plan = joined(numbered(plan, number.clone())?, pending)?;
        let order = vec![Sort::new(Expr::Column(number), true, false)];
        self.behind(sorted(plan, order), written, list)
    }

    /// The plan of an UPDATE with the values that it sets as columns, which the names of the table's columns stand for from here on; and the row as it becomes.
    pub(super) fn renewed(
        &mut self,
        plan: LogicalPlan,
        target: Target<'_>,
        new: Vec<Option<Value>>,
    ) -> Result<(LogicalPlan, Vec<Expr>), Error> {
        let schema = Arc::clone(plan.schema());
        let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
        let mut set = Vec::with_capacity(target.columns.len());
        for (value, column) in itertools::zip_eq(new, target.columns) {
            let Some(value) = value else {
                set.push(None);
                continue;
            };
            let place = self.reserve(&column.name, &column.sql_type);
            exprs.push(named(told(value.expr, &column.sql_type, &schema)?, &place));
            set.push(Some(Expr::Column(place)));
        }
        let relation = self.frame()?.relations.first_mut();
        let relation = relation.ok_or_else(|| Error::internal("an UPDATE of no table"))?;
        let mut row = Vec::with_capacity(set.len());
        for (column, set) in relation.columns.iter_mut().zip(set) {
            if let Some(expr) = set {
                column.expr = expr;
            }
            row.push(column.expr.clone());
        }
        Ok((project(plan, exprs)?, row))
    }

    /// What is written of the rows of a plan, and behind it what RETURNING gives over the frame at hand.
    pub(super) fn returned(
        &mut self,
        plan: LogicalPlan,
        written: Vec<Expr>,
        items: &[SelectItem],
    ) -> Result<LogicalPlan, Error> {
        let list = self.returning_list(items)?;
        let plan = joined(plan, std::mem::take(&mut self.frame()?.pending))?;
        self.behind(plan, written, list)
    }

    /// The names and values of a RETURNING list. Its subqueries wait to be joined.
    fn returning_list(&mut self, items: &[SelectItem]) -> Result<Vec<(String, Value)>, Error> {
        self.frame()?.clause = Clause::Returning;
        let targets = self.targets(items)?;
        self.frame()?.clause = Clause::Returning;
        let mut list = Vec::with_capacity(targets.len());
        for target in targets {
            let mut value = self.target(&target)?;
            number::refuse_wide(&value)?;
            if value.is_unknown() {
                value = self.as_text_by_default(value)?;
            }
            list.push((target.name, value));
        }
        Ok(list)
    }

    fn behind(
        &mut self,
        plan: LogicalPlan,
        mut exprs: Vec<Expr>,
        list: Vec<(String, Value)>,
    ) -> Result<LogicalPlan, Error> {
        let schema = Arc::clone(plan.schema());
        let qualifier = self.fresh();
        let names = distinct_names(list.iter().map(|(name, _)| name.as_str()));
        for ((_, value), name) in itertools::zip_eq(list, names) {
            let expr = match &value.of {
                Type::Of(sql_type) => told(value.expr, sql_type, &schema)?,
                Type::Unknown | Type::Row(_) => value.expr,
            };
            exprs.push(expr.alias_qualified(Some(qualifier.clone()), name));
        }
        project(plan, exprs)
    }
}
