//! Lowering: from a planned query to the incremental plan that maintains it.
//!
//! Owns which operator of the engine each part of a query becomes, and what is evaluated for the keys or rows that change (`groups`), or as a whole
//! ([`Operator::Recompute`]), because the engine has no operator for it: only that part, over inputs that are maintained. Also infers which columns identify a
//! row.
//! Must not know how operators work. Called by the coordinator for materialized views, indexes and subscriptions.
//!
//! Invariants. Column `i` of a node is column `i` of the logical plan it was made from; every column of every node is nullable.
//! Equal nodes are one node. The result is the last node.

mod chain;
mod graph;
mod groups;
mod numbering;
mod partition;
mod recompute;

use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::{AggregateFunctionParams, Sort};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    Aggregate, Cast, Distinct, DistinctOn, Expr, FetchType, Join, Limit, LogicalPlan,
    Operator as ExprOperator, Projection, SkipType, SubqueryAlias, TableScan, Union, Values,
};
use datafusion::scalar::ScalarValue;
use flowstone_functions::ScanTarget;
use flowstone_functions::codec::scan_target;
use flowstone_functions::conditions::in_turn;
use flowstone_proto::plan::{AggregateFunction, NodeId, Operator, OrderColumn, Plan};
use flowstone_types::SqlType;

use crate::error::Error;
use crate::plan::PlannedQuery;
use crate::{optimize, planning_errors};
use chain::{Chain, rebind, strip_alias};
use graph::{Graph, schema_of};

pub use partition::lower_partition;

/// A query as the engine maintains it.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The operators.
    pub plan: Plan,
    /// Columns of the result that identify a row, if any are known to; empty if there is never more than one row.
    pub key: Option<Vec<usize>>,
    /// Why parts are recomputed at each change, each reason once; empty if everything is incremental.
    pub recomputed: Vec<String>,
}

/// Makes the incremental plan of a query. Its order is dropped: what is maintained is a bag of rows. Parameters must be bound.
///
/// # Errors
/// If the query has a form that cannot be maintained at all, such as a correlated subquery that cannot be unnested.
pub fn lower(planned: &PlannedQuery) -> Result<Lowered, Error> {
    let plan = optimize::prepare_for_maintenance(planned.analysed.clone())
        .map_err(|error| planning_errors::from_datafusion(&error, ""))?;
    optimize::refuse_subqueries(&plan)?;
    let mut lowering = Lowering {
        graph: Graph::new(planned.keys.clone()),
        first_rows: None,
    };
    let root = lowering.node(&plan)?;
    Ok(lowering.graph.finish(root))
}

struct Lowering {
    graph: Graph,
    /// Of the window below, which is lowered next, that numbers rows: no others than the first of each partition are wanted.
    first_rows: Option<u64>,
}

/// The error for an error of DataFusion's.
fn mapped(error: datafusion::common::DataFusionError) -> Error {
    planning_errors::from_datafusion(&error, "")
}

impl Lowering {
    /// The node that yields the rows of `plan`.
    fn node(&mut self, plan: &LogicalPlan) -> Result<NodeId, Error> {
        let chain = self.chain(plan)?;
        chain.build(&mut self.graph, &schema_of(plan))
    }

    /// The rows of `plan` as filters and projections over a node.
    fn chain(&mut self, plan: &LogicalPlan) -> Result<Chain, Error> {
        let first_rows = self.first_rows.take();
        match plan {
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => {
                self.first_rows = first_rows;
                self.chain(input)
            }
            LogicalPlan::Repartition(repartition) => self.chain(&repartition.input),
            // What is maintained has no order; where order matters, Limit and DISTINCT ON look for the Sort themselves.
            LogicalPlan::Sort(sort) => match sort.fetch {
                None => self.chain(&sort.input),
                Some(fetch) => Ok(Chain::of(self.top(
                    &sort.input,
                    &sort.expr,
                    &[],
                    Some(widen(fetch)),
                    0,
                )?)),
            },
            LogicalPlan::Filter(filter) => {
                self.first_rows = groups::first_rows(&filter.predicate, &filter.input);
                let mut chain = self.chain(&filter.input)?;
                chain.settle_before(
                    &mut self.graph,
                    &schema_of(&filter.input),
                    [&filter.predicate].into_iter(),
                    filter.input.schema(),
                )?;
                let predicates = split_conjunction_owned(filter.predicate.clone());
                let predicates = in_turn(predicates, filter.input.schema()).map_err(mapped)?;
                for predicate in predicates {
                    chain.filter(&predicate, filter.input.schema())?;
                }
                Ok(chain)
            }
            LogicalPlan::Projection(Projection { expr, input, .. }) => {
                self.first_rows = first_rows;
                let mut chain = self.chain(input)?;
                chain.settle_before(
                    &mut self.graph,
                    &schema_of(input),
                    expr.iter(),
                    input.schema(),
                )?;
                chain.project(expr.iter(), input.schema())?;
                Ok(chain)
            }
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::EmptyRelation(empty) => {
                if empty.produce_one_row {
                    Chain::of(self.graph.one_row()?).with_no_columns()
                } else {
                    let schema = schema_of(plan);
                    Ok(Chain::of(self.graph.constant(&schema, &[])?))
                }
            }
            LogicalPlan::Values(values) => Ok(Chain::of(self.values(plan, values)?)),
            LogicalPlan::Join(join) => self.join(plan, join),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(plan, aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.node(input)?;
                Ok(Chain::of(self.graph.distinct(input)))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on),
            LogicalPlan::Union(union) => Ok(Chain::of(self.union(plan, union)?)),
            LogicalPlan::Limit(limit) => self.limit(plan, limit),
            LogicalPlan::Window(window) => self.windows(plan, window, first_rows),
            LogicalPlan::Unnest(_) => self.by_rows(plan, "set-returning functions"),
            LogicalPlan::RecursiveQuery(_) => {
                Ok(Chain::of(self.recompute_whole(plan, "recursive query")?))
            }
            other => Err(Error::unsupported(format!(
                "{} cannot be maintained",
                other.display()
            ))),
        }
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Chain, Error> {
        let provider = source_as_provider(&scan.source).map_err(mapped)?;
        let Some(ScanTarget::Collection(collection)) = scan_target(provider.as_ref()) else {
            return Err(Error::internal(
                "a plan to be maintained scans what is no collection",
            ));
        };
        if matches!(collection, flowstone_types::ObjectId::System(_)) {
            return Err(Error::unsupported(
                "views over the system catalog cannot be maintained",
            ));
        }
        let full = provider.schema();
        let qualified =
            datafusion::common::DFSchema::try_from_qualified_schema(scan.table_name.clone(), &full)
                .map_err(mapped)?;
        let mut chain = Chain::of(self.graph.get(collection, &full));
        for filter in &scan.filters {
            chain.filter(filter, &qualified)?;
        }
        if let Some(projection) = &scan.projection {
            let columns: Vec<Expr> = projection
                .iter()
                .map(|index| Expr::Column(Column::from(qualified.qualified_field(*index))))
                .collect();
            chain.project(columns.iter(), &qualified)?;
        }
        Ok(chain)
    }

    fn values(&mut self, plan: &LogicalPlan, values: &Values) -> Result<NodeId, Error> {
        let schema = schema_of(plan);
        if let Some(rows) = literal_rows(&values.values) {
            return self.graph.constant(&schema, &rows);
        }
        // Cells that are no literals are evaluated like any expression: one projection of one row each.
        let empty = datafusion::common::DFSchema::empty();
        let mut inputs = Vec::new();
        for row in &values.values {
            let mut chain = Chain::of(self.graph.one_row()?).with_no_columns()?;
            chain.project(row.iter(), &empty)?;
            inputs.push(chain.build(&mut self.graph, &schema)?);
        }
        Ok(self.graph.union(inputs, schema))
    }

    fn union(&mut self, plan: &LogicalPlan, union: &Union) -> Result<NodeId, Error> {
        let schema = schema_of(plan);
        let mut inputs = Vec::new();
        for input in &union.inputs {
            let mut chain = self.chain(input)?;
            let casts: Vec<Expr> = input
                .schema()
                .iter()
                .zip(schema.fields())
                .map(|((qualifier, field), target)| {
                    let column = Expr::Column(Column::from((qualifier, field)));
                    if field.data_type() == target.data_type() {
                        column
                    } else {
                        Expr::Cast(Cast::new(Box::new(column), target.data_type().clone()))
                    }
                })
                .collect();
            chain.settle_before(
                &mut self.graph,
                &schema_of(input),
                casts.iter(),
                input.schema(),
            )?;
            chain.project(casts.iter(), input.schema())?;
            inputs.push(chain.build(&mut self.graph, &schema)?);
        }
        Ok(self.graph.union(inputs, schema))
    }

    /// The rows of `input` with `extra` expressions over it as further columns; says where the extra ones are. Plain columns are not repeated.
    fn extended(
        &mut self,
        input: &LogicalPlan,
        extra: &[&Expr],
    ) -> Result<(NodeId, Vec<usize>), Error> {
        let mut chain = self.chain(input)?;
        let mut columns: Vec<Expr> = input
            .schema()
            .columns()
            .into_iter()
            .map(Expr::Column)
            .collect();
        let mut positions = Vec::new();
        for expr in extra {
            let expr = strip_alias(expr);
            let position = columns.iter().position(|column| same(column, expr, input));
            positions.push(position.unwrap_or(columns.len()));
            if position.is_none() {
                columns.push(expr.clone());
            }
        }
        chain.settle_before(
            &mut self.graph,
            &schema_of(input),
            columns.iter(),
            input.schema(),
        )?;
        chain.project(columns.iter(), input.schema())?;
        let schema = graph::schema_of_exprs(&columns, input)?;
        Ok((chain.build(&mut self.graph, &schema)?, positions))
    }

    fn join(&mut self, plan: &LogicalPlan, join: &Join) -> Result<Chain, Error> {
        match join.join_type {
            JoinType::Inner => self.inner_join(join),
            JoinType::LeftSemi if join.filter.is_none() => {
                self.semi_join(&join.left, &join.right, &join.on, join.null_equality)
            }
            JoinType::RightSemi if join.filter.is_none() => {
                let on: Vec<(Expr, Expr)> = join
                    .on
                    .iter()
                    .map(|(left, right)| (right.clone(), left.clone()))
                    .collect();
                self.semi_join(&join.right, &join.left, &on, join.null_equality)
            }
            kind => {
                let reason = match kind {
                    JoinType::Left => "left outer join",
                    JoinType::Right => "right outer join",
                    JoinType::Full => "full outer join",
                    JoinType::LeftAnti | JoinType::RightAnti => {
                        "anti join (NOT EXISTS, NOT IN, EXCEPT)"
                    }
                    JoinType::LeftMark | JoinType::RightMark => "subquery in an expression",
                    _ => "semi join with a condition other than equality",
                };
                self.keyed_join(plan, join, reason)
            }
        }
    }

    fn inner_join(&mut self, join: &Join) -> Result<Chain, Error> {
        let mut residual: Vec<Expr> = join
            .filter
            .clone()
            .map(split_conjunction_owned)
            .unwrap_or_default();
        let mut pairs: Vec<(&Expr, &Expr)> = Vec::new();
        for (left, right) in &join.on {
            let left_type = crate::plan::field_of(left, &join.left)?;
            let right_type = crate::plan::field_of(right, &join.right)?;
            if left_type.data_type() == right_type.data_type() {
                pairs.push((left, right));
            } else {
                residual.push(Expr::BinaryExpr(datafusion::logical_expr::BinaryExpr::new(
                    Box::new(left.clone()),
                    ExprOperator::Eq,
                    Box::new(right.clone()),
                )));
            }
        }
        let (left_exprs, right_exprs): (Vec<&Expr>, Vec<&Expr>) = pairs.into_iter().unzip();
        let (left, left_keys) = self.extended(&join.left, &left_exprs)?;
        let (right, right_keys) = self.extended(&join.right, &right_exprs)?;
        let null_equals_null = join.null_equality == NullEquality::NullEqualsNull;
        let left_width = self.graph.width(left);
        let joined = self
            .graph
            .join(left, right, left_keys, right_keys, null_equals_null);
        // The columns of the join as the plan has them: without the key expressions.
        let shown = (0..join.left.schema().fields().len())
            .chain((0..join.right.schema().fields().len()).map(|index| left_width + index))
            .collect();
        let mut chain = Chain::of(joined).with_columns(shown, &self.graph);
        let both = join
            .left
            .schema()
            .join(join.right.schema())
            .map_err(mapped)?;
        for predicate in in_turn(residual, &both).map_err(mapped)? {
            chain.filter(&predicate, &both)?;
        }
        Ok(chain)
    }

    /// Rows of `left` with a partner: a join with the distinct keys of `right`.
    fn semi_join(
        &mut self,
        left: &LogicalPlan,
        right: &LogicalPlan,
        on: &[(Expr, Expr)],
        null_equality: NullEquality,
    ) -> Result<Chain, Error> {
        let left_exprs: Vec<&Expr> = on.iter().map(|(left, _)| left).collect();
        let right_keys: Vec<Expr> = on
            .iter()
            .map(|(_, right)| strip_alias(right).clone())
            .collect();
        let (left_node, left_keys) = self.extended(left, &left_exprs)?;
        let mut chain = self.chain(right)?;
        chain.settle_before(
            &mut self.graph,
            &schema_of(right),
            right_keys.iter(),
            right.schema(),
        )?;
        if right_keys.is_empty() {
            // EXISTS without correlation: one row if there is any.
            let marker = [Expr::Literal(ScalarValue::Boolean(Some(true)), None)];
            chain.project(marker.iter(), right.schema())?;
            let schema = graph::schema_of_exprs(&marker, right)?;
            let present = chain.build(&mut self.graph, &schema)?;
            let present = self.graph.distinct(present);
            let joined = self
                .graph
                .join(left_node, present, Vec::new(), Vec::new(), false);
            let shown = (0..left.schema().fields().len()).collect();
            return Ok(Chain::of(joined).with_columns(shown, &self.graph));
        }
        chain.project(right_keys.iter(), right.schema())?;
        let schema = graph::schema_of_exprs(&right_keys, right)?;
        let keys = chain.build(&mut self.graph, &schema)?;
        let keys = self.graph.distinct(keys);
        let positions = (0..right_keys.len()).collect();
        let joined = self.graph.join(
            left_node,
            keys,
            left_keys,
            positions,
            null_equality == NullEquality::NullEqualsNull,
        );
        let shown = (0..left.schema().fields().len()).collect();
        Ok(Chain::of(joined).with_columns(shown, &self.graph))
    }

    fn aggregate(&mut self, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Chain, Error> {
        let input = &aggregate.input;
        if let [Expr::GroupingSet(sets)] = aggregate.group_expr.as_slice() {
            return self.grouping_sets(plan, aggregate, sets);
        }
        let Some(calls) = aggregate
            .aggr_expr
            .iter()
            .map(|expr| supported_call(strip_alias(expr), input))
            .collect::<Option<Vec<_>>>()
        else {
            let reason = unsupported_aggregate(aggregate, input);
            return self.grouped(plan, aggregate, &reason);
        };
        let mut columns: Vec<Expr> = Vec::new();
        let mut place = |expr: &Expr| {
            let expr = strip_alias(expr);
            columns
                .iter()
                .position(|column| column == expr)
                .unwrap_or_else(|| {
                    columns.push(expr.clone());
                    columns.len() - 1
                })
        };
        let group: Vec<usize> = aggregate.group_expr.iter().map(&mut place).collect();
        let aggregates = calls
            .into_iter()
            .map(|call| flowstone_proto::plan::Aggregate {
                function: call.function,
                argument: call.argument.map(&mut place),
                filter: call.filter.map(&mut place),
                distinct: call.distinct,
            })
            .collect();
        let input_node = if columns.is_empty() {
            self.node(input)?
        } else {
            let mut chain = self.chain(input)?;
            chain.settle_before(
                &mut self.graph,
                &schema_of(input),
                columns.iter(),
                input.schema(),
            )?;
            chain.project(columns.iter(), input.schema())?;
            chain.build(&mut self.graph, &graph::schema_of_exprs(&columns, input)?)?
        };
        let schema = schema_of(plan);
        let grouped = self.graph.aggregate(input_node, group, aggregates, schema);
        Ok(Chain::of(grouped))
    }

    fn distinct_on(&mut self, on: &DistinctOn) -> Result<Chain, Error> {
        let order: &[Sort] = on.sort_expr.as_deref().unwrap_or_default();
        // The select list first, so that what it does not show comes after it.
        let mut columns: Vec<Expr> = on
            .select_expr
            .iter()
            .map(|expr| strip_alias(expr).clone())
            .collect();
        let mut place = |expr: &Expr| {
            let expr = strip_alias(expr);
            columns
                .iter()
                .position(|column| column == expr)
                .unwrap_or_else(|| {
                    columns.push(expr.clone());
                    columns.len() - 1
                })
        };
        let group: Vec<usize> = on.on_expr.iter().map(&mut place).collect();
        let order: Vec<OrderColumn> = order
            .iter()
            .map(|sort| OrderColumn {
                column: place(&sort.expr),
                descending: !sort.asc,
                nulls_first: sort.nulls_first,
            })
            .filter(|order| !group.contains(&order.column))
            .collect();
        let input = &on.input;
        let mut chain = self.chain(input)?;
        chain.settle_before(
            &mut self.graph,
            &schema_of(input),
            columns.iter(),
            input.schema(),
        )?;
        chain.project(columns.iter(), input.schema())?;
        let node = chain.build(&mut self.graph, &graph::schema_of_exprs(&columns, input)?)?;
        let first = self.graph.top(node, group, order, Some(1), 0);
        Ok(Chain::of(first).with_columns((0..on.select_expr.len()).collect(), &self.graph))
    }

    /// Limits move below projections, down to the Sort that orders them.
    fn limit(&mut self, plan: &LogicalPlan, limit: &Limit) -> Result<Chain, Error> {
        let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) =
            (limit.get_skip_type(), limit.get_fetch_type())
        else {
            return Ok(Chain::of(
                self.recompute(plan, "LIMIT that is no constant")?,
            ));
        };
        // Limits nothing: only filters were kept above it.
        if skip == 0
            && fetch.and_then(|rows| i64::try_from(rows).ok()) == Some(optimize::BARRIER_ROWS)
        {
            return self.chain(&limit.input);
        }
        let below = |input: &std::sync::Arc<LogicalPlan>| {
            LogicalPlan::Limit(Limit {
                skip: limit.skip.clone(),
                fetch: limit.fetch.clone(),
                input: std::sync::Arc::clone(input),
            })
        };
        match &*limit.input {
            LogicalPlan::Projection(projection) => {
                let inner = below(&projection.input);
                let mut chain = self.chain(&inner)?;
                chain.settle_before(
                    &mut self.graph,
                    &schema_of(&inner),
                    projection.expr.iter(),
                    inner.schema(),
                )?;
                chain.project(projection.expr.iter(), inner.schema())?;
                Ok(chain)
            }
            LogicalPlan::SubqueryAlias(alias) => self.chain(&below(&alias.input)),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => Ok(Chain::of(self.top(
                &sort.input,
                &sort.expr,
                &[],
                fetch.map(widen),
                widen(skip),
            )?)
            .with_width(plan, &self.graph)),
            input => {
                let node = self.node(input)?;
                Ok(Chain::of(self.graph.top(
                    node,
                    Vec::new(),
                    Vec::new(),
                    fetch.map(widen),
                    widen(skip),
                )))
            }
        }
    }

    /// The first rows of `input` in an order; columns of `input` first, then what else the order needs.
    fn top(
        &mut self,
        input: &LogicalPlan,
        order: &[Sort],
        group: &[&Expr],
        limit: Option<u64>,
        offset: u64,
    ) -> Result<NodeId, Error> {
        let extra: Vec<&Expr> = group
            .iter()
            .copied()
            .chain(order.iter().map(|sort| &sort.expr))
            .collect();
        let (node, positions) = self.extended(input, &extra)?;
        let (group_columns, ordered) = positions.split_at(group.len());
        let order = order_columns(ordered, order);
        Ok(self
            .graph
            .top(node, group_columns.to_vec(), order, limit, offset))
    }

    fn recompute(&mut self, plan: &LogicalPlan, reason: &str) -> Result<NodeId, Error> {
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            inputs.push(self.node(input)?);
        }
        let query = recompute::over_inputs(plan, &inputs, &self.graph)?;
        self.recomputed(plan, inputs, &query, reason)
    }

    /// A part whose inside cannot be taken apart: only what it scans is maintained.
    fn recompute_whole(&mut self, plan: &LogicalPlan, reason: &str) -> Result<NodeId, Error> {
        let (query, collections) = recompute::over_collections(plan)?;
        let inputs = collections
            .iter()
            .map(|(collection, schema)| self.graph.get(*collection, schema))
            .collect();
        self.recomputed(plan, inputs, &query, reason)
    }

    fn recomputed(
        &mut self,
        plan: &LogicalPlan,
        inputs: Vec<NodeId>,
        query: &LogicalPlan,
        reason: &str,
    ) -> Result<NodeId, Error> {
        let query = optimize::optimize(query.clone()).map_err(mapped)?;
        let query = crate::plan::encode(&query)?;
        let operator = Operator::Recompute {
            inputs,
            query,
            reason: reason.to_owned(),
        };
        Ok(self.graph.add(operator, schema_of(plan), None))
    }
}

/// An order by expressions that are at these columns.
fn order_columns(columns: &[usize], order: &[Sort]) -> Vec<OrderColumn> {
    let columns = columns.iter().zip(order);
    columns
        .map(|(column, sort)| OrderColumn {
            column: *column,
            descending: !sort.asc,
            nulls_first: sort.nulls_first,
        })
        .collect()
}

/// Whether two expressions over `input` are the same, however their columns are qualified.
fn same(left: &Expr, right: &Expr, input: &LogicalPlan) -> bool {
    left == right
        || matches!((rebind(left, input.schema()), rebind(right, input.schema())), (Ok(left), Ok(right)) if left == right)
}

fn widen(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn literal_rows(rows: &[Vec<Expr>]) -> Option<Vec<Vec<ScalarValue>>> {
    rows.iter()
        .map(|row| {
            row.iter()
                .map(|cell| match strip_alias(cell) {
                    Expr::Literal(value, _) => Some(value.clone()),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

/// An aggregate the engine maintains.
struct Call<'e> {
    function: AggregateFunction,
    argument: Option<&'e Expr>,
    filter: Option<&'e Expr>,
    distinct: bool,
}

/// The call, if the engine has an operator for it.
fn supported_call<'e>(expr: &'e Expr, input: &LogicalPlan) -> Option<Call<'e>> {
    let Expr::AggregateFunction(aggregate) = expr else {
        return None;
    };
    let AggregateFunctionParams {
        args,
        distinct,
        filter,
        order_by,
        null_treatment,
    } = &aggregate.params;
    if null_treatment.is_some()
        || (!order_by.is_empty()
            && !matches!(
                aggregate.func.name(),
                "count" | "sum" | "avg" | "min" | "max"
            ))
    {
        return None;
    }
    let filter = filter.as_deref();
    let [argument] = args.as_slice() else {
        return (aggregate.func.name() == "count" && args.is_empty()).then_some(Call {
            function: AggregateFunction::Count,
            argument: None,
            filter,
            distinct: false,
        });
    };
    let argument_type =
        SqlType::from_field(crate::plan::field_of(argument, input).ok()?.as_ref()).ok()?;
    let number = matches!(
        argument_type,
        SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::UInt2
            | SqlType::UInt4
            | SqlType::UInt8
            | SqlType::Float4
            | SqlType::Float8
            | SqlType::Numeric(_)
    );
    let function = match aggregate.func.name() {
        "count" => {
            if let Expr::Literal(value, _) = argument {
                return (!value.is_null() && !distinct).then_some(Call {
                    function: AggregateFunction::Count,
                    argument: None,
                    filter,
                    distinct: false,
                });
            }
            AggregateFunction::Count
        }
        "sum" if number => AggregateFunction::Sum,
        "avg" if number => AggregateFunction::Avg,
        "min" if has_plain_order(&argument_type) => AggregateFunction::Min,
        "max" if has_plain_order(&argument_type) => AggregateFunction::Max,
        // In the order of the engine, which tells the values apart.
        flowstone_functions::keys::ONE_OF_EQUALS => AggregateFunction::Min,
        "bool_and" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        _ => return None,
    };
    let distinct = *distinct
        && !matches!(
            function,
            AggregateFunction::Min
                | AggregateFunction::Max
                | AggregateFunction::BoolAnd
                | AggregateFunction::BoolOr
        );
    Some(Call {
        function,
        argument: Some(argument),
        filter,
        distinct,
    })
}

/// Whether Arrow orders values of the type as SQL does.
const fn has_plain_order(sql_type: &SqlType) -> bool {
    !matches!(
        sql_type,
        SqlType::Interval
            | SqlType::Jsonb
            | SqlType::Array(_)
            | SqlType::Int2Vector
            | SqlType::OidVector
    )
}

fn unsupported_aggregate(aggregate: &Aggregate, input: &LogicalPlan) -> String {
    let name = aggregate
        .aggr_expr
        .iter()
        .map(strip_alias)
        .find(|expr| supported_call(expr, input).is_none())
        .and_then(|expr| match expr {
            Expr::AggregateFunction(call) => Some(call.func.name().to_owned()),
            _ => None,
        });
    format!(
        "aggregate {}",
        name.unwrap_or_else(|| "function".to_owned())
    )
}
