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

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, NullEquality, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{AggregateFunction, Case, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, ExprSchemable, FetchType, Filter, Join, JoinConstraint,
    JoinType, Limit, LogicalPlan, LogicalPlanBuilder, Projection, SkipType, SortExpr, Subquery,
    Union, Unnest, Window, WindowFrame, WindowFunctionDefinition, lit,
};
use flowstone_functions::cast::cast_expr;
use flowstone_types::SqlType;
use flowstone_types::sort_key::equality_differs;

use super::correlation::{self, Place};
use super::expansion;
use super::names::INTERNAL;
use crate::error::{Error, ErrorKind};

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

/// The different values of the columns that a subquery asks for.
struct Domain {
    plan: LogicalPlan,
    /// What they are called outside.
    asked: Vec<Column>,
    /// What they are made of outside: the columns, and behind them the texts of those whose values may be equal and not the same.
    outside: Vec<Expr>,
    /// What these are called inside.
    named: Vec<Column>,
}

impl Domain {
    fn columns(&self) -> Vec<Expr> {
        self.named.iter().cloned().map(Expr::Column).collect()
    }

    /// Rows of `outer` beside the rows of `carried` that have their values; NULL is a value here.
    fn join_to(
        &self,
        outer: LogicalPlan,
        carried: LogicalPlan,
        join_type: JoinType,
        condition: Option<Expr>,
    ) -> Result<LogicalPlan> {
        if self.asked.is_empty() {
            let condition = condition.unwrap_or_else(|| lit(true));
            return LogicalPlanBuilder::from(outer)
                .join_on(carried, join_type, [condition])?
                .build();
        }
        let on = self
            .outside
            .iter()
            .zip(&self.named)
            .map(|(outside, name)| (outside.clone(), Expr::Column(name.clone())));
        Join::try_new(
            Arc::new(outer),
            Arc::new(carried),
            on.collect(),
            condition,
            join_type,
            JoinConstraint::On,
            NullEquality::NullEqualsNull,
            false,
        )
        .map(LogicalPlan::Join)
    }

    /// `plan` for all values of the domain, whose columns come first.
    fn carry(&self, unnesting: &mut Unnesting, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if !self.is_asked_by(plan)? {
            return self.beside(plan);
        }
        if unnesting.depth == DEPTH_MAX {
            return Err(DataFusionError::External(Box::new(Error::new(
                ErrorKind::TooComplex,
                "a correlated subquery is nested too deeply",
            ))));
        }
        unnesting.depth += 1;
        let carried = self.through(unnesting, plan)?;
        unnesting.depth -= 1;
        Ok(carried)
    }

    /// See [`Domain::carry`], of an operator that asks or is above one that does.
    fn through(&self, unnesting: &mut Unnesting, plan: &LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.carry(unnesting, &projection.input)?;
                let mut items = self.columns();
                for expr in &projection.expr {
                    items.push(self.resolve(expr.clone())?);
                }
                LogicalPlanBuilder::from(input).project(items)?.build()
            }
            LogicalPlan::Filter(filter) => {
                let input = self.carry(unnesting, &filter.input)?;
                let predicate = self.resolve(filter.predicate.clone())?;
                Filter::try_new(predicate.unalias(), Arc::new(input)).map(LogicalPlan::Filter)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.carry(unnesting, &alias.input)?;
                self.renamed(input, plan)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(unnesting, aggregate, plan),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.carry(unnesting, input)?;
                Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))))
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.distinct_on(unnesting, distinct),
            LogicalPlan::Window(window) => self.window(unnesting, window),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                // The order of a subquery's rows only matters to a limit and to DISTINCT ON, which look for it themselves.
                self.carry(unnesting, &sort.input)
            }
            LogicalPlan::Limit(limit) => self.limit(unnesting, limit),
            LogicalPlan::Union(union) => {
                let mut inputs = Vec::new();
                for input in &union.inputs {
                    inputs.push(Arc::new(self.carry(unnesting, input)?));
                }
                let all = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
                self.renamed(all, plan)
            }
            LogicalPlan::Join(join) => self.join(unnesting, join),
            LogicalPlan::Unnest(unnest) => {
                let input = self.carry(unnesting, &unnest.input)?;
                Unnest::try_new(
                    Arc::new(input),
                    unnest.exec_columns.clone(),
                    unnest.options.clone(),
                )
                .map(LogicalPlan::Unnest)
            }
            LogicalPlan::EmptyRelation(empty)
                if empty.produce_one_row && empty.schema.fields().is_empty() =>
            {
                Ok(self.plan.clone())
            }
            _ => Err(unsupported()),
        }
    }

    /// Every value of the domain beside every row.
    fn beside(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if self.asked.is_empty() {
            return Ok(plan.clone());
        }
        if let LogicalPlan::EmptyRelation(empty) = plan
            && empty.produce_one_row
            && empty.schema.fields().is_empty()
        {
            return Ok(self.plan.clone());
        }
        LogicalPlanBuilder::from(self.plan.clone())
            .cross_join(plan.clone())?
            .build()
    }

    /// `carried` with the names that the columns of `plan` have.
    fn renamed(&self, carried: LogicalPlan, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let mut items = self.columns();
        let inside = carried.schema().columns();
        let outside = plan.schema().columns();
        for (index, column) in inside.into_iter().enumerate() {
            match index.checked_sub(self.named.len()) {
                // The first ones are the domain's, whatever they are called.
                None => {
                    if let (Some(item), Some(name)) = (items.get_mut(index), self.named.get(index))
                    {
                        *item = Expr::Column(column).alias(name.name.clone());
                    }
                }
                Some(position) => {
                    let shown = outside.get(position).cloned().ok_or_else(|| {
                        DataFusionError::Internal("a carried plan keeps its columns".to_owned())
                    })?;
                    items.push(Expr::Column(column).alias_qualified(shown.relation, shown.name));
                }
            }
        }
        LogicalPlanBuilder::from(carried).project(items)?.build()
    }

    fn aggregate(
        &self,
        unnesting: &mut Unnesting,
        aggregate: &Aggregate,
        plan: &LogicalPlan,
    ) -> Result<LogicalPlan> {
        if aggregate
            .group_expr
            .iter()
            .any(|expr| matches!(expr, Expr::GroupingSet(_)))
        {
            return Err(unsupported());
        }
        let input = self.carry(unnesting, &aggregate.input)?;
        let mut groups = self.columns();
        for expr in &aggregate.group_expr {
            groups.push(self.resolve(expr.clone())?);
        }
        let mut aggregates = Vec::new();
        for expr in &aggregate.aggr_expr {
            aggregates.push(self.resolve(expr.clone())?);
        }
        let grouped = Aggregate::try_new(Arc::new(input), groups, aggregates)?;
        let grouped = LogicalPlan::Aggregate(grouped);
        if !aggregate.group_expr.is_empty() || self.named.is_empty() {
            return Ok(grouped);
        }
        // Of no rows there is one result, for each value of the domain.
        let there = unnesting.name("there");
        let found: Vec<Column> = self.named.iter().map(|_| unnesting.name("found")).collect();
        let mut items: Vec<Expr> = self
            .named
            .iter()
            .zip(&found)
            .map(|(column, name)| Expr::Column(column.clone()).alias(name.name.clone()))
            .collect();
        let results = plan.schema().columns();
        items.extend(results.iter().cloned().map(Expr::Column));
        items.push(lit(true).alias(there.name.clone()));
        let grouped = LogicalPlanBuilder::from(grouped).project(items)?.build()?;
        let all = LogicalPlanBuilder::from(self.plan.clone())
            .join_detailed(
                grouped,
                JoinType::Left,
                (self.named.clone(), found),
                None,
                NullEquality::NullEqualsNull,
            )?
            .build()?;
        let mut items = self.columns();
        for (column, expr) in results.into_iter().zip(&aggregate.aggr_expr) {
            let value = Expr::Column(column.clone());
            let default = default_of(expr, plan)?;
            items.push(if default.is_null() {
                value
            } else {
                let arm = (
                    Box::new(Expr::Column(there.clone()).is_null()),
                    Box::new(lit(default)),
                );
                Expr::Case(Case::new(
                    Some(Box::new(lit(true))),
                    vec![arm],
                    Some(Box::new(value)),
                ))
                .alias_qualified(column.relation, column.name)
            });
        }
        LogicalPlanBuilder::from(all).project(items)?.build()
    }

    fn distinct_on(&self, unnesting: &mut Unnesting, distinct: &DistinctOn) -> Result<LogicalPlan> {
        let input = self.carry(unnesting, &distinct.input)?;
        let with_domain = |exprs: &[Expr]| {
            let mut all = self.columns();
            for expr in exprs {
                all.push(self.resolve(expr.clone())?);
            }
            Ok::<_, DataFusionError>(all)
        };
        let sort = distinct
            .sort_expr
            .as_ref()
            .map(|sort| {
                let mut all: Vec<SortExpr> = self
                    .columns()
                    .into_iter()
                    .map(|column| column.sort(true, false))
                    .collect();
                for key in sort {
                    all.push(SortExpr::new(
                        self.resolve(key.expr.clone())?,
                        key.asc,
                        key.nulls_first,
                    ));
                }
                Ok::<_, DataFusionError>(all)
            })
            .transpose()?;
        let distinct = DistinctOn::try_new(
            with_domain(&distinct.on_expr)?,
            with_domain(&distinct.select_expr)?,
            sort,
            Arc::new(input),
        )?;
        Ok(LogicalPlan::Distinct(Distinct::On(distinct)))
    }

    fn window(&self, unnesting: &mut Unnesting, window: &Window) -> Result<LogicalPlan> {
        let input = self.carry(unnesting, &window.input)?;
        let mut exprs = Vec::new();
        for expr in &window.window_expr {
            let name = expr.qualified_name();
            let within = self
                .resolve(expr.clone())?
                .transform_up(|part| match part {
                    Expr::WindowFunction(mut function) => {
                        let mut partition = self.columns();
                        partition.append(&mut function.params.partition_by);
                        function.params.partition_by = partition;
                        Ok(Transformed::yes(Expr::WindowFunction(function)))
                    }
                    other => Ok(Transformed::no(other)),
                })?;
            exprs.push(within.data.unalias().alias_qualified(name.0, name.1));
        }
        let window = Window::try_new(exprs, Arc::new(input))?;
        Ok(LogicalPlan::Window(window))
    }

    /// A limit for each value of the domain: the rows of each are numbered.
    fn limit(&self, unnesting: &mut Unnesting, limit: &Limit) -> Result<LogicalPlan> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(unsupported());
        };
        if let LogicalPlan::Projection(projection) = limit.input.as_ref() {
            // The projection may drop what the order is by.
            let limited = LogicalPlan::Limit(Limit {
                input: Arc::clone(&projection.input),
                ..limit.clone()
            });
            let items = projection.expr.clone();
            let above = Projection::try_new(items, Arc::new(limited))?;
            return self.carry(unnesting, &LogicalPlan::Projection(above));
        }
        let order = match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => sort.expr.clone(),
            _ => Vec::new(),
        };
        let input = self.carry(unnesting, &limit.input)?;
        if self.named.is_empty() {
            let limit = Limit {
                input: Arc::new(input),
                ..limit.clone()
            };
            return Ok(LogicalPlan::Limit(limit));
        }
        let mut keys = Vec::new();
        for key in order {
            keys.push(SortExpr::new(
                self.resolve(key.expr)?,
                key.asc,
                key.nulls_first,
            ));
        }
        let columns = input.schema().columns();
        let number = unnesting.name("number");
        let row_number = flowstone_functions::registry()
            .window("row_number")
            .ok_or_else(|| DataFusionError::Internal("no function row_number".to_owned()))?;
        let mut function = datafusion::logical_expr::expr::WindowFunction::new(
            WindowFunctionDefinition::WindowUDF(row_number),
            Vec::new(),
        );
        function.params.partition_by = self.columns();
        if keys.is_empty() {
            keys.extend(
                self.columns()
                    .into_iter()
                    .take(1)
                    .map(|column| column.sort(true, false)),
            );
        }
        function.params.order_by = keys;
        function.params.window_frame = WindowFrame::new(Some(true));
        let numbered = Expr::from(function).alias(number.name.clone());
        let over = |rows: usize| ScalarValue::UInt64(u64::try_from(rows).ok());
        let mut condition = Expr::Column(number.clone()).gt(lit(over(skip)));
        if let Some(fetch) = fetch {
            let last = lit(over(skip.saturating_add(fetch)));
            condition = condition.and(Expr::Column(number).lt_eq(last));
        }
        LogicalPlanBuilder::from(input)
            .window(vec![numbered])?
            .filter(condition)?
            .project(columns.into_iter().map(Expr::Column))?
            .build()
    }

    fn join(&self, unnesting: &mut Unnesting, join: &Join) -> Result<LogicalPlan> {
        let right_asks = self.is_asked_by(&join.right)?;
        let condition = join_condition(join)
            .map(|condition| self.resolve(condition).map(Expr::unalias))
            .transpose()?;
        let mut outside = self.columns();
        outside.extend(join.schema.columns().into_iter().map(Expr::Column));
        let two_sided = match join.join_type {
            JoinType::Inner => right_asks && self.is_asked_by(&join.left)?,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => right_asks,
            JoinType::Right | JoinType::Full => true,
            _ => return Err(unsupported()),
        };
        if join.null_aware {
            return Err(unsupported());
        }
        let plain = join_condition(join).is_none();
        let on_true = condition.clone().unwrap_or_else(|| lit(true));
        if !two_sided || self.named.is_empty() {
            let carry_right = right_asks && join.join_type == JoinType::Inner;
            let (left, right) = if self.named.is_empty() {
                (
                    self.carry(unnesting, &join.left)?,
                    self.carry(unnesting, &join.right)?,
                )
            } else if carry_right {
                (
                    join.left.as_ref().clone(),
                    self.carry(unnesting, &join.right)?,
                )
            } else {
                (
                    self.carry(unnesting, &join.left)?,
                    join.right.as_ref().clone(),
                )
            };
            let joined = match join.join_type {
                JoinType::Inner if plain => LogicalPlanBuilder::from(left).cross_join(right)?,
                join_type if takes_null(join) => {
                    let filter = join
                        .filter
                        .clone()
                        .map(|filter| self.resolve(filter).map(Expr::unalias))
                        .transpose()?;
                    LogicalPlanBuilder::from(left).join_detailed(
                        right,
                        join_type,
                        column_keys(join)?,
                        filter,
                        NullEquality::NullEqualsNull,
                    )?
                }
                join_type => LogicalPlanBuilder::from(left).join_on(right, join_type, [on_true])?,
            };
            return joined.project(outside)?.build();
        }
        let left = self.carry(unnesting, &join.left)?;
        let right = self.carry(unnesting, &join.right)?;
        let found: Vec<Column> = self.named.iter().map(|_| unnesting.name("found")).collect();
        let right_columns = join.right.schema().columns();
        let mut items: Vec<Expr> = self
            .named
            .iter()
            .zip(&found)
            .map(|(column, name)| Expr::Column(column.clone()).alias(name.name.clone()))
            .collect();
        items.extend(right_columns.into_iter().map(Expr::Column));
        let right = LogicalPlanBuilder::from(right).project(items)?.build()?;
        let mut keys: (Vec<Column>, Vec<Column>) = (self.named.clone(), found.clone());
        let mut condition = condition;
        if takes_null(join) {
            // NULL is a value for these keys too, and not for what the filter compares.
            let (left, right) = column_keys(join)?;
            keys.0.extend(left);
            keys.1.extend(right);
            condition = join
                .filter
                .clone()
                .map(|filter| self.resolve(filter).map(Expr::unalias))
                .transpose()?;
        }
        let merged: Vec<Expr> = match join.join_type {
            JoinType::Right | JoinType::Full => self
                .named
                .iter()
                .zip(&found)
                .map(|(left, right)| either(&self.plan, left, right, join.join_type))
                .collect::<Result<_>>()?,
            _ => self.columns(),
        };
        let items = merged
            .into_iter()
            .chain(join.schema.columns().into_iter().map(Expr::Column));
        LogicalPlanBuilder::from(left)
            .join_detailed(
                right,
                join.join_type,
                keys,
                condition,
                NullEquality::NullEqualsNull,
            )?
            .project(items)?
            .build()
    }

    /// Whether `plan` itself asks for a column of the domain; subqueries in it ask for columns of their own surroundings.
    fn is_asked_by(&self, plan: &LogicalPlan) -> Result<bool> {
        Ok(own_references(plan)?
            .iter()
            .any(|column| self.asked.contains(column)))
    }

    /// The expression with columns of the domain for those it asks for, under the name that it had.
    fn resolve(&self, expr: Expr) -> Result<Expr> {
        let name = expr.qualified_name();
        let resolved = expr.transform_up(|part| {
            let Expr::OuterReferenceColumn(_, column) = &part else {
                return Ok(Transformed::no(part));
            };
            let position = self.asked.iter().position(|asked| asked == column);
            Ok(
                match position.and_then(|position| self.named.get(position)) {
                    Some(named) => Transformed::yes(Expr::Column(named.clone())),
                    None => Transformed::no(part),
                },
            )
        })?;
        Ok(
            if resolved.transformed && resolved.data.qualified_name() != name {
                resolved.data.alias_qualified(name.0, name.1)
            } else {
                resolved.data
            },
        )
    }
}

/// The value of a column of the domain after an outer join: of the side that is there.
fn either(
    domain: &LogicalPlan,
    left: &Column,
    right: &Column,
    join_type: JoinType,
) -> Result<Expr> {
    let value = if join_type == JoinType::Right {
        Expr::Column(right.clone())
    } else {
        let both = call(
            "coalesce",
            vec![Expr::Column(left.clone()), Expr::Column(right.clone())],
        )?;
        match SqlType::from_field(domain.schema().qualified_field_from_column(left)?.1) {
            Ok(sql_type) => super::exprs::told(both, &sql_type)?,
            Err(_) => both,
        }
    };
    Ok(value.alias(left.name.clone()))
}

fn takes_null(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// The keys of a join that are columns.
fn column_keys(join: &Join) -> Result<(Vec<Column>, Vec<Column>)> {
    let keys = join.on.iter().map(|(left, right)| match (left, right) {
        (Expr::Column(left), Expr::Column(right)) => Ok((left.clone(), right.clone())),
        _ => Err(unsupported()),
    });
    Ok(keys.collect::<Result<Vec<_>>>()?.into_iter().unzip())
}

/// All that a join demands of a pair of rows.
fn join_condition(join: &Join) -> Option<Expr> {
    let equal = join
        .on
        .iter()
        .map(|(left, right)| left.clone().eq(right.clone()));
    conjunction(equal.chain(join.filter.clone()))
}

/// What an aggregate yields of no rows.
fn default_of(expr: &Expr, plan: &LogicalPlan) -> Result<ScalarValue> {
    match expr {
        Expr::Alias(alias) => default_of(&alias.expr, plan),
        Expr::AggregateFunction(function) => {
            let LogicalPlan::Aggregate(aggregate) = plan else {
                return Err(unsupported());
            };
            let data_type = expr.get_type(aggregate.input.schema())?;
            function.func.default_value(&data_type)
        }
        _ => Err(unsupported()),
    }
}

/// Whether a subquery yields one row at most, whatever there is.
fn yields_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => yields_one_row(&projection.input),
        LogicalPlan::Filter(filter) => yields_one_row(&filter.input),
        LogicalPlan::Sort(sort) => yields_one_row(&sort.input),
        LogicalPlan::SubqueryAlias(alias) => yields_one_row(&alias.input),
        LogicalPlan::Distinct(Distinct::All(input)) => yields_one_row(input),
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1))))
                || yields_one_row(&limit.input)
        }
        LogicalPlan::EmptyRelation(_) => true,
        _ => false,
    }
}

/// A LATERAL item without the node that says so.
fn without_subquery_node(plan: &LogicalPlan) -> Option<LogicalPlan> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some(subquery.subquery.as_ref().clone()),
        LogicalPlan::SubqueryAlias(alias) => {
            let input = without_subquery_node(&alias.input)?;
            LogicalPlanBuilder::from(input)
                .alias(alias.alias.clone())
                .and_then(LogicalPlanBuilder::build)
                .ok()
        }
        _ => None,
    }
}

/// Columns of `outer` that a subquery asks for.
fn references_to(plan: &LogicalPlan, outer: &LogicalPlan) -> Result<Vec<Column>> {
    Ok(own_references(plan)?
        .into_iter()
        .filter(|column| outer.schema().has_column(column))
        .collect())
}

/// The columns of queries around it that `plan` asks for, each once. What subqueries in it ask for is not among them: those that are left ask for
/// columns of this plan only.
pub(super) fn own_references(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut found: Vec<Column> = Vec::new();
    plan.apply(|node| {
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::OuterReferenceColumn(_, column) = part
                    && !found.contains(column)
                {
                    found.push(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// Whether expressions of a node hold a subquery that depends on its rows.
fn has_dependent(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        expr.apply(|part| {
            let subquery = match part {
                Expr::ScalarSubquery(subquery) => subquery,
                Expr::Exists(exists) => &exists.subquery,
                Expr::InSubquery(membership) => &membership.subquery,
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            found |= !own_references(&subquery.subquery)?.is_empty();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Whether a plan calls functions of chance.
pub(super) fn is_volatile(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// The only column of a subquery, behind those of the domain.
fn last_column(plan: &LogicalPlan) -> Result<Column> {
    plan.schema()
        .columns()
        .pop()
        .ok_or_else(|| DataFusionError::Plan("subquery must return a column".to_owned()))
}

fn aggregate(name: &str) -> Result<Arc<datafusion::logical_expr::AggregateUDF>> {
    flowstone_functions::registry()
        .aggregate(name)
        .ok_or_else(|| DataFusionError::Internal(format!("no function {name}")))
}

fn call(name: &str, args: Vec<Expr>) -> Result<Expr> {
    super::exprs::call(name, args)
}
