//! Correlated subqueries and LATERAL items as joins: dependent joins and their removal.
//!
//! Owns the general way: a subquery is run once for all different values of the columns that it asks for (the *domain*), which are carried through
//! every operator of it: a filter or an expression finds them in its rows, an aggregate or window groups by them, a join matches them, a limit counts
//! for each of them. What comes out is joined to the rows that asked. Source: Neumann, Kemper, "Unnesting Arbitrary Queries", BTW 2015.
//! What DataFusion's own rules are known to unnest rightly ([`super::correlation`]) is left to them: they make semi joins where this makes a domain.
//! Called by [`crate::plan`] when types are coerced. Must not know the syntax tree.
//!
//! Invariants. A plan keeps its columns. Columns of ours begin with [`INTERNAL`] and are numbered, so that they are never another's. What is neither left
//! to DataFusion nor unnested here is refused: nothing is answered by a rule that is not known to be right.

mod domain;
mod shapes;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{AggregateFunction, Case, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Subquery, lit,
};
use flowstone_functions::cast::cast_expr;
use flowstone_types::SqlType;
use flowstone_types::sort_key::equality_differs;

use super::correlation::{self, Place};
use super::expansion;
use super::names::INTERNAL;
use crate::error::Error;
use domain::Domain;
use shapes::{
    has_dependent, join_condition, last_column, references_to, takes_null, without_subquery_node,
    yields_one_row,
};
pub(super) use shapes::{is_volatile, own_references};

/// Operators on a way through a subquery. Each takes some KiB of stack.
const DEPTH_MAX: usize = 200;

/// Unnests the subqueries of `plan` that DataFusion's rules are not known to unnest rightly.
///
/// # Errors
/// [`crate::error::ErrorKind::FeatureNotSupported`] for those that cannot be unnested here either.
pub(super) fn unnest(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut unnesting = Unnesting {
        numbers: 0,
        depth: 0,
    };
    refuse_outer_aggregates(&plan)?;
    plan.transform_up_with_subqueries(|node| unnesting.node(node))
        .map(|transformed| transformed.data)
}

/// An aggregate of nothing but columns of a query around it is an aggregate of that query.
fn refuse_outer_aggregates(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let LogicalPlan::Aggregate(aggregate) = node else {
            return Ok(TreeNodeRecursion::Continue);
        };
        for expr in &aggregate.aggr_expr {
            if expr.contains_outer() && !expr.any_column_refs() {
                return Err(DataFusionError::External(Box::new(
                    Error::unsupported(
                        "an aggregate of columns of the query around it is not supported",
                    )
                    .with_hint("Compute it in a subquery in FROM."),
                )));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

fn unsupported() -> DataFusionError {
    DataFusionError::External(Box::new(
        Error::unsupported("this form of correlated subquery is not supported")
            .with_hint("Rewrite it as a join, or correlate by equality only."),
    ))
}

/// Refuses a plan that calls functions of chance: it would be run once for all rows that agree in what is asked for, or more than once for a row.
fn refuse_chance(plan: &LogicalPlan) -> Result<()> {
    if is_volatile(plan)? {
        return Err(DataFusionError::External(Box::new(
            Error::unsupported(
                "this form of correlated subquery is not supported beside functions of chance",
            )
            .with_hint("Call the function outside of the query with the subquery."),
        )));
    }
    Ok(())
}

/// A text that tells apart values of a column which are equal and yet not the same, if its type has such: what is made of them may differ.
///
/// # Errors
/// If nothing is known to tell values of that type apart.
pub(super) fn telling_apart(column: &Column, schema: &DFSchema) -> Result<Option<Expr>> {
    let (_, field) = schema.qualified_field_from_column(column)?;
    if !equality_differs(field.data_type()) {
        return Ok(None);
    }
    let sql_type = SqlType::from_field(field).ok();
    let item = match &sql_type {
        Some(SqlType::Array(item)) => Some(item.as_ref()),
        other => other.as_ref(),
    };
    match (item, &sql_type) {
        (Some(SqlType::Interval), Some(whole)) => {
            cast_expr(Expr::Column(column.clone()), whole, &SqlType::Text).map(Some)
        }
        _ => Err(DataFusionError::External(Box::new(
            Error::unsupported("a subquery that asks for a row with intervals is not supported")
                .with_hint("Ask for its fields."),
        ))),
    }
}

struct Unnesting {
    /// Numbers given to columns so far.
    numbers: usize,
    /// Operators around the one that a domain is carried through.
    depth: usize,
}

impl Unnesting {
    fn name(&mut self, what: &str) -> Column {
        self.numbers += 1;
        Column::new_unqualified(format!("{INTERNAL}{what} {}", self.numbers))
    }

    /// A node whose inputs and subqueries are unnested.
    fn node(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        match node {
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Filter(_)
            | LogicalPlan::Projection(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Sort(_) => self.attach(node),
            other if has_dependent(&other)? => Err(unsupported()),
            other => Ok(Transformed::no(other)),
        }
    }

    fn join(&mut self, join: Join) -> Result<Transformed<LogicalPlan>> {
        if let Some(subquery) = correlation::lateral_side(&join.right)
            && !own_references(&subquery.subquery)?.is_empty()
        {
            refuse_chance(&subquery.subquery)?;
            if correlation::lateral_is_known(&join, subquery)? {
                return Ok(Transformed::no(LogicalPlan::Join(join)));
            }
            return self.lateral(&join).map(Transformed::yes);
        }
        let node = LogicalPlan::Join(join);
        if !has_dependent(&node)? {
            return Ok(Transformed::no(node));
        }
        match node {
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => {
                let columns = join.schema.columns();
                let condition = join_condition(&join).unwrap_or_else(|| lit(true));
                let filter = LogicalPlanBuilder::from(Arc::unwrap_or_clone(join.left))
                    .cross_join(Arc::unwrap_or_clone(join.right))?
                    .filter(condition)?
                    .build()?;
                let filtered = self.attach(filter)?.data;
                LogicalPlanBuilder::from(filtered)
                    .project(columns.into_iter().map(Expr::Column))?
                    .build()
                    .map(Transformed::yes)
            }
            _ => Err(unsupported()),
        }
    }

    /// A join to a LATERAL item.
    fn lateral(&mut self, join: &Join) -> Result<LogicalPlan> {
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return Err(unsupported());
        }
        let Some(item) = without_subquery_node(&join.right) else {
            return Err(unsupported());
        };
        let left = join.left.as_ref().clone();
        let asked = references_to(&item, &left)?;
        let domain = self.domain_of(&left, asked, Origin::OurJoins)?;
        let carried = domain.carry(self, &item)?;
        let condition = join_condition(join);
        let joined = domain.join_to(left, carried, join.join_type, condition)?;
        LogicalPlanBuilder::from(joined)
            .project(join.schema.columns().into_iter().map(Expr::Column))?
            .build()
    }

    /// A node of one input with the values of its subqueries as columns of the input.
    fn attach(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if !has_dependent(&node)? {
            return Ok(Transformed::no(node));
        }
        let Some(input) = node.inputs().first().map(|input| (*input).clone()) else {
            return Err(unsupported());
        };
        let mut attached = Attached {
            base: input.clone(),
            input,
            any: false,
        };
        let keeps_names = !matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Sort(_));
        let mut exprs = Vec::new();
        for expr in node.expressions() {
            let name = expr.qualified_name();
            let replaced = if matches!(node, LogicalPlan::Filter(_)) {
                let mut conjuncts = Vec::new();
                for conjunct in split_conjunction_owned(expr) {
                    conjuncts.push(self.conjunct(conjunct, &mut attached)?);
                }
                conjunction(conjuncts).unwrap_or_else(|| lit(true))
            } else {
                let place = if matches!(node, LogicalPlan::Projection(_)) {
                    Place::Item
                } else {
                    Place::Elsewhere
                };
                self.values(expr, place, &mut attached)?
            };
            exprs.push(if keeps_names && replaced.qualified_name() != name {
                replaced.alias_qualified(name.0, name.1)
            } else {
                replaced
            });
        }
        if !attached.any {
            return Ok(Transformed::no(node));
        }
        let columns = node.schema().columns();
        let adds_columns = !matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
        let plan = node.with_new_exprs(exprs, vec![attached.input])?;
        if !adds_columns {
            return plan.recompute_schema().map(Transformed::yes);
        }
        LogicalPlanBuilder::from(plan.recompute_schema()?)
            .project(columns.into_iter().map(Expr::Column))?
            .build()
            .map(Transformed::yes)
    }

    fn conjunct(&mut self, conjunct: Expr, attached: &mut Attached) -> Result<Expr> {
        let place = match &conjunct {
            Expr::InSubquery(_) | Expr::Exists(_) => Place::Conjunct,
            Expr::Not(inner) if matches!(**inner, Expr::Exists(_)) => Place::Conjunct,
            _ => Place::Condition,
        };
        self.values(conjunct, place, attached)
    }

    /// The expression with columns of `attached` for the values of its subqueries.
    fn values(&mut self, expr: Expr, place: Place, attached: &mut Attached) -> Result<Expr> {
        let replaced = expr.transform_up(|part| {
            let subquery = match &part {
                Expr::ScalarSubquery(subquery) => subquery,
                Expr::Exists(exists) => &exists.subquery,
                Expr::InSubquery(membership) => &membership.subquery,
                _ => return Ok(Transformed::no(part)),
            };
            if own_references(&subquery.subquery)?.is_empty() {
                return Ok(Transformed::no(part));
            }
            refuse_chance(&subquery.subquery)?;
            if correlation::is_known(&part, place, attached.base.schema())? {
                return Ok(Transformed::no(part));
            }
            attached.any = true;
            let value = match part {
                Expr::ScalarSubquery(subquery) => self.scalar(&subquery, attached)?,
                Expr::Exists(exists) => {
                    let there = self.exists(&exists.subquery, attached)?;
                    if exists.negated {
                        there.is_null()
                    } else {
                        there.is_not_null()
                    }
                }
                Expr::InSubquery(membership) => self.membership(membership, attached)?,
                other => other,
            };
            Ok(Transformed::yes(value))
        })?;
        Ok(replaced.data)
    }

    /// The value of a subquery that yields one row at most; more than one are an error when it is run.
    fn scalar(&mut self, subquery: &Subquery, attached: &mut Attached) -> Result<Expr> {
        let plan = &subquery.subquery;
        let (domain, carried) = self.carried(plan, attached)?;
        let value = self.name("value");
        let column = last_column(&carried)?;
        let carried = if yields_one_row(plan) {
            let mut items = domain.columns();
            items.push(Expr::Column(column).alias(value.name.clone()));
            LogicalPlanBuilder::from(carried).project(items)?.build()?
        } else {
            self.checked(&domain, carried, column, &value)?
        };
        attached.join(&domain, carried)?;
        Ok(Expr::Column(value))
    }

    /// One row for each of the domain, or an error.
    fn checked(
        &mut self,
        domain: &Domain,
        carried: LogicalPlan,
        column: Column,
        value: &Column,
    ) -> Result<LogicalPlan> {
        let (rows, first) = (self.name("rows"), self.name("first"));
        let field = Expr::Column(column.clone()).to_field(carried.schema())?.1;
        let of_first = Expr::AggregateFunction(AggregateFunction::new_udf(
            aggregate("first_value")?,
            vec![Expr::Column(column)],
            false,
            None,
            Vec::new(),
            None,
        ));
        let failure = call(
            "raise_error",
            vec![
                lit("cardinality"),
                lit("more than one row returned by a subquery used as an expression"),
                Expr::Column(rows.clone()),
            ],
        )?;
        let null = ScalarValue::try_from(field.data_type())?;
        let checked = Expr::Case(Case::new(
            Some(Box::new(lit(true))),
            vec![
                (
                    Box::new(Expr::Column(rows.clone()).lt_eq(lit(1_i64))),
                    Box::new(Expr::Column(first.clone())),
                ),
                (Box::new(failure), Box::new(lit(null))),
            ],
            None,
        ));
        let checked = match SqlType::from_field(&field) {
            Ok(sql_type) => super::exprs::told(checked, &sql_type)?,
            Err(_) => checked,
        };
        let mut items = domain.columns();
        items.push(checked.alias(value.name.clone()));
        let counted = vec![
            count(lit(1_i64)).alias(rows.name),
            of_first.alias(first.name),
        ];
        LogicalPlanBuilder::from(carried)
            .aggregate(domain.columns(), counted)?
            .project(items)?
            .build()
    }

    /// A column that is NULL if the subquery has no row.
    fn exists(&mut self, subquery: &Subquery, attached: &mut Attached) -> Result<Expr> {
        let (domain, carried) = self.carried(&subquery.subquery, attached)?;
        let there = self.name("there");
        let mut items = domain.columns();
        items.push(lit(true).alias(there.name.clone()));
        let carried = LogicalPlanBuilder::from(carried)
            .project(items)?
            .distinct()?
            .build()?;
        attached.join(&domain, carried)?;
        Ok(Expr::Column(there))
    }

    /// `x IN (SELECT …)`: whether a value is equal, and whether a comparison is unknown, are counted.
    fn membership(&mut self, membership: InSubquery, attached: &mut Attached) -> Result<Expr> {
        let subject = self.name("subject");
        let with_subject = |plan: LogicalPlan| {
            let mut columns: Vec<Expr> = plan
                .schema()
                .columns()
                .into_iter()
                .map(Expr::Column)
                .collect();
            columns.push(membership.expr.as_ref().clone().alias(subject.name.clone()));
            LogicalPlanBuilder::from(plan).project(columns)?.build()
        };
        let base = with_subject(attached.base.clone())?;
        attached.input = with_subject(attached.input.clone())?;
        let plan = &membership.subquery.subquery;
        let mut asked = references_to(plan, &base)?;
        asked.push(subject.clone());
        let last = asked.len().saturating_sub(1);
        let domain = self.domain_of(&base, asked, Origin::Same)?;
        let carried = domain.carry(self, plan)?;
        let value = Expr::Column(last_column(&carried)?);
        let subject =
            domain.named.get(last).cloned().ok_or_else(|| {
                DataFusionError::Internal("the domain has the subject".to_owned())
            })?;
        let equal = value.eq(Expr::Column(subject));
        let (equals, unknowns) = (self.name("equal"), self.name("unknown"));
        let counting = |condition: Expr| {
            let arm = (Box::new(condition), Box::new(lit(true)));
            count(Expr::Case(Case::new(
                Some(Box::new(lit(true))),
                vec![arm],
                None,
            )))
        };
        let counted = LogicalPlanBuilder::from(carried)
            .aggregate(
                domain.columns(),
                vec![
                    counting(equal.clone()).alias(equals.name.clone()),
                    counting(equal.is_null()).alias(unknowns.name.clone()),
                ],
            )?
            .build()?;
        attached.join(&domain, counted)?;
        let arms = vec![
            (
                Box::new(Expr::Column(equals).gt(lit(0_i64))),
                Box::new(lit(!membership.negated)),
            ),
            (
                Box::new(Expr::Column(unknowns).gt(lit(0_i64))),
                Box::new(lit(ScalarValue::Boolean(None))),
            ),
        ];
        Ok(Expr::Case(Case::new(
            Some(Box::new(lit(true))),
            arms,
            Some(Box::new(lit(membership.negated))),
        )))
    }

    /// A subquery of a node over `attached` with its domain carried through it.
    fn carried(
        &mut self,
        plan: &LogicalPlan,
        attached: &Attached,
    ) -> Result<(Domain, LogicalPlan)> {
        let asked = references_to(plan, &attached.base)?;
        let domain = self.domain_of(&attached.base, asked, Origin::Same)?;
        let carried = domain.carry(self, plan)?;
        Ok((domain, carried))
    }

    /// The different values that `asked` has in the rows of `outer`; from [`Origin::OurJoins`] there may be more.
    fn domain_of(
        &mut self,
        outer: &LogicalPlan,
        asked: Vec<Column>,
        origin: Origin,
    ) -> Result<Domain> {
        // What many items hold of each other doubles with each of them.
        expansion::refuse_too_large(outer.clone())?;
        refuse_chance(outer)?;
        let (source, columns) = source_of(outer, asked.clone(), origin);
        let mut outside: Vec<Expr> = asked.iter().cloned().map(Expr::Column).collect();
        let mut inside: Vec<Expr> = columns.iter().cloned().map(Expr::Column).collect();
        for (shown, column) in asked.iter().zip(&columns) {
            if let Some(text) = telling_apart(column, source.schema())? {
                inside.push(text);
                outside.extend(telling_apart(shown, outer.schema())?);
            }
        }
        let named: Vec<Column> = inside.iter().map(|_| self.name("outer")).collect();
        let items = inside
            .into_iter()
            .zip(&named)
            .map(|(expr, name)| expr.alias(name.name.clone()));
        let plan = LogicalPlanBuilder::from(source.clone())
            .project(items)?
            .distinct()?
            .build()?;
        Ok(Domain {
            plan,
            asked,
            outside,
            named,
        })
    }
}

/// Where the values of a domain may come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// What has the same ones.
    Same,
    /// Also what is below inner joins of ours, which has them all and maybe others.
    OurJoins,
}

/// The smallest part of `outer` found that has all values which `columns` have in its rows, and what they are called there.
fn source_of(
    outer: &LogicalPlan,
    mut columns: Vec<Column>,
    origin: Origin,
) -> (&LogicalPlan, Vec<Column>) {
    let mut source = outer;
    while !columns.is_empty() {
        let (input, below) = match source {
            LogicalPlan::Projection(projection) => {
                let shown = projection.schema.columns();
                let below: Option<Vec<Column>> = columns
                    .iter()
                    .map(|column| {
                        let index = shown.iter().position(|known| known == column)?;
                        match projection.expr.get(index)?.clone().unalias() {
                            Expr::Column(below) => Some(below),
                            _ => None,
                        }
                    })
                    .collect();
                (&projection.input, below)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let (shown, inside) = (alias.schema.columns(), alias.input.schema().columns());
                let below: Option<Vec<Column>> = columns
                    .iter()
                    .map(|column| {
                        let index = shown.iter().position(|known| known == column)?;
                        inside.get(index).cloned()
                    })
                    .collect();
                (&alias.input, below)
            }
            LogicalPlan::Join(join) => {
                let all_in = |side: &LogicalPlan| {
                    let there = side.schema().columns();
                    columns.iter().all(|column| there.contains(column))
                };
                let any_join = origin == Origin::OurJoins && is_ours(join);
                if all_in(&join.left)
                    && (join.join_type == JoinType::Left
                        || (any_join && join.join_type == JoinType::Inner))
                {
                    (&join.left, Some(columns.clone()))
                } else if all_in(&join.right) && any_join && join.join_type == JoinType::Inner {
                    (&join.right, Some(columns.clone()))
                } else {
                    break;
                }
            }
            _ => break,
        };
        let Some(below) = below else {
            break;
        };
        source = input.as_ref();
        columns = below;
    }
    (source, columns)
}

/// Whether a join is one to what a subquery yields for its domain.
fn is_ours(join: &Join) -> bool {
    takes_null(join)
        && join.on.iter().all(|(_, right)| {
            matches!(right, Expr::Column(column)
                if column.relation.is_none() && column.name.starts_with(INTERNAL))
        })
}

/// The input of a node, with the values of subqueries as further columns.
struct Attached {
    /// The input as it was: domains come from it.
    base: LogicalPlan,
    input: LogicalPlan,
    any: bool,
}

impl Attached {
    /// Joins what a subquery yields for the domain to the rows that asked; rows without stay.
    fn join(&mut self, domain: &Domain, carried: LogicalPlan) -> Result<()> {
        let input = std::mem::replace(&mut self.input, LogicalPlanBuilder::empty(true).build()?);
        self.input = domain.join_to(input, carried, JoinType::Left, None)?;
        Ok(())
    }
}

fn aggregate(name: &str) -> Result<Arc<datafusion::logical_expr::AggregateUDF>> {
    flowstone_functions::registry()
        .aggregate(name)
        .ok_or_else(|| DataFusionError::Internal(format!("no function {name}")))
}

fn call(name: &str, args: Vec<Expr>) -> Result<Expr> {
    super::exprs::call(name, args)
}
