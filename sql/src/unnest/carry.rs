//! How a domain is carried through every operator of a subquery.
//!
//! Owns what each operator becomes when it runs for all values of a domain at once: a filter or an expression finds them in its rows, an aggregate or a
//! window groups by them, a join matches them, a limit counts for each of them. Must not know where domains come from. Called by [`super::attach`].
//!
//! Invariants. A carried plan has the columns of the domain first, then those of the plan under their names. What does not ask stands beside the domain whole.

mod aggregate;
mod join;
mod recursion;
mod rows;

use std::sync::Arc;

use datafusion::common::{Column, Result};
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::{
    Distinct, Expr, ExprSchemable, Filter, JoinType, LogicalPlan, Projection, Sort, SortExpr,
    Union, Unnest, Values,
};

use super::Unnesting;
use super::domain::{Asking, Domain};
use super::expressions::{broken, named, projected, replaced, resolved, unsupported, with_stack};
use super::joins::joined;
use super::shapes::is_one_row;
pub(crate) use aggregate::sets_of;

/// `plan` for all values of the domain, whose columns come first.
pub(super) fn carry(
    unnesting: &mut Unnesting,
    domain: &Domain,
    plan: &LogicalPlan,
) -> Result<LogicalPlan> {
    let mut asking = Asking::default();
    asking.add(plan, &domain.asked, &[])?;
    Carrying {
        unnesting,
        domain,
        asking,
        works: Vec::new(),
    }
    .node(plan)
}

struct Carrying<'a> {
    unnesting: &'a mut Unnesting,
    domain: &'a Domain,
    asking: Asking,
    /// Recursive queries around whose rows have the domain beside them.
    works: Vec<String>,
}

impl Carrying<'_> {
    fn node(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if !self.asking.contains(plan) {
            return self.beside(plan);
        }
        self.unnesting.enter()?;
        let carried = with_stack(plan, || self.through(plan));
        self.unnesting.leave();
        carried
    }

    fn through(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.node(&projection.input)?;
                self.projection(projection, input)
            }
            LogicalPlan::Filter(filter) => {
                let input = self.node(&filter.input)?;
                let predicate = self.value(filter.predicate.clone())?;
                Filter::try_new(predicate, Arc::new(input)).map(LogicalPlan::Filter)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.node(&alias.input)?;
                self.renamed(input, &plan.schema().columns())
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.node(input)?;
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(distinct),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Union(union) => {
                let mut inputs = Vec::new();
                for input in &union.inputs {
                    inputs.push(self.node(input)?);
                }
                self.united(inputs, &plan.schema().columns())
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Unnest(unnest) => {
                let input = self.node(&unnest.input)?;
                Unnest::try_new(
                    Arc::new(input),
                    unnest.exec_columns.clone(),
                    unnest.options.clone(),
                )
                .map(LogicalPlan::Unnest)
            }
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::RecursiveQuery(query) => self.recursive(query),
            LogicalPlan::TableScan(scan) => self.work_table(scan),
            other => Err(unsupported(
                &format!(
                    "a correlated subquery with {} is not supported",
                    other.display()
                ),
                "Rewrite it as a join.",
            )),
        }
    }

    /// The domain, once more.
    fn domain_again(&mut self) -> Result<LogicalPlan> {
        if self.domain.repeats {
            self.unnesting.repeats(&self.domain.plan)?;
        }
        Ok(self.domain.plan.clone())
    }

    /// Every value of the domain beside every row.
    fn beside(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let domain = self.domain_again()?;
        if is_one_row(plan) {
            return Ok(domain);
        }
        joined(
            domain,
            plan.clone(),
            Vec::new(),
            Vec::new(),
            JoinType::Inner,
        )
    }

    /// The expression with columns of the domain for those it asks for, under the name that it had.
    fn resolve(&self, expr: Expr) -> Result<Expr> {
        resolved(expr, &|column| self.domain.inside(column))
    }

    /// The same under whatever name.
    fn value(&self, expr: Expr) -> Result<Expr> {
        replaced(expr, &|column| self.domain.inside(column)).map(|replaced| replaced.data)
    }

    fn asks(&self, expr: &Expr) -> Result<bool> {
        super::expressions::asks(expr, &self.domain.asked)
    }

    fn projection(&self, projection: &Projection, input: LogicalPlan) -> Result<LogicalPlan> {
        let mut items = self.domain.columns();
        for expr in &projection.expr {
            items.push(self.resolve(expr.clone())?);
        }
        projected(input, items)
    }

    fn order(&self, keys: &[SortExpr]) -> Result<Vec<SortExpr>> {
        let mut order = Vec::new();
        for key in keys {
            let expr = self.value(key.expr.clone())?;
            order.push(SortExpr::new(expr, key.asc, key.nulls_first));
        }
        Ok(order)
    }

    fn sort(&mut self, sort: &Sort) -> Result<LogicalPlan> {
        let input = self.node(&sort.input)?;
        if let Some(rows) = sort.fetch {
            return self.first_rows(input, &sort.expr, 0, Some(rows));
        }
        // The rows of one value of the domain stay in this order.
        Ok(LogicalPlan::Sort(Sort {
            expr: self.order(&sort.expr)?,
            input: Arc::new(input),
            fetch: None,
        }))
    }

    /// `carried` with columns named so, behind those of the domain.
    fn renamed(&self, carried: LogicalPlan, columns: &[Column]) -> Result<LogicalPlan> {
        let inside = carried.schema().columns();
        let names: Vec<&Column> = self.domain.named.iter().chain(columns).collect();
        if inside.len() != names.len() {
            return Err(broken("a carried plan does not keep its columns"));
        }
        let items = inside
            .into_iter()
            .zip(names)
            .map(|(column, name)| named(Expr::Column(column), name))
            .collect();
        projected(carried, items)
    }

    /// All rows of carried plans, columns named so.
    fn united(&self, mut inputs: Vec<LogicalPlan>, columns: &[Column]) -> Result<LogicalPlan> {
        let all = if inputs.len() > 1 {
            let inputs = inputs.into_iter().map(Arc::new).collect();
            LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)
        } else {
            inputs.pop().ok_or_else(|| broken("a union has an input"))?
        };
        self.renamed(all, columns)
    }

    /// Each row for all values of the domain.
    fn values(&mut self, values: &Values) -> Result<LogicalPlan> {
        let columns = values.schema.columns();
        let fields = values.schema.fields();
        let mut rows = Vec::new();
        for row in &values.values {
            let domain = self.domain_again()?;
            let mut items = self.domain.columns();
            for ((cell, column), field) in row.iter().zip(&columns).zip(fields) {
                let value = self.value(cell.clone())?;
                let value = if value.get_type(domain.schema().as_ref())? == *field.data_type() {
                    value
                } else {
                    Expr::Cast(Cast::new(Box::new(value), field.data_type().clone()))
                };
                items.push(named(value, column));
            }
            rows.push(projected(domain, items)?);
        }
        self.united(rows, &columns)
    }
}
