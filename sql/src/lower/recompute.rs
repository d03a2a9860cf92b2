//! The query of a node that evaluates one (`Recompute`, `RecomputeGroups`, `RecomputeRows`): one operator of a logical plan over the node's inputs.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, Unnest};
use flowstone_functions::codec::scan_target;
use flowstone_functions::{InputTable, ScanTarget};
use flowstone_proto::plan::{NodeId, column_name};
use flowstone_types::ObjectId;

use super::graph::Graph;
use super::mapped;
use super::numbering::Numbering;
use crate::error::Error;
use crate::names::INTERNAL;

/// The scan of input `index`.
fn scan(index: usize, schema: &SchemaRef) -> Result<LogicalPlanBuilder, Error> {
    let source = provider_as_source(Arc::new(InputTable::new(index, Arc::clone(schema))));
    LogicalPlanBuilder::scan(TableReference::bare(format!("input_{index}")), source, None)
        .map_err(mapped)
}

/// The scan of input `index` with its columns named as those of `like`, with numbers of `names`; behind them, named by [`key_column`], the columns `key`.
fn named_scan(
    index: usize,
    schema: &SchemaRef,
    like: &LogicalPlan,
    key: &[usize],
    names: &mut Numbering,
) -> Result<LogicalPlan, Error> {
    let projection = like
        .schema()
        .iter()
        .enumerate()
        .map(|(column, (qualifier, field))| {
            Expr::Column(Column::new(
                Some(format!("input_{index}")),
                column_name(column),
            ))
            .alias_qualified(
                qualifier.map(|qualifier| names.relation(qualifier)),
                names.name(field.name()),
            )
        })
        .chain(key.iter().enumerate().map(|(number, column)| {
            let table = format!("input_{index}");
            let key = key_column(index, number);
            Expr::Column(Column::new(Some(table), column_name(*column)))
                .alias_qualified(key.relation, key.name)
        }))
        .collect::<Vec<_>>();
    scan(index, schema)?
        .project(projection)
        .and_then(LogicalPlanBuilder::build)
        .map_err(mapped)
}

/// Part `number` of the key of the rows of input `index`.
pub(super) fn key_column(index: usize, number: usize) -> Column {
    Column::new(Some(format!("{INTERNAL}key{index}")), column_name(number))
}

/// The columns of `plan` named `c0`, `c1`, …, and then the values of `key`, all but the columns that are of keys.
fn positional(plan: LogicalPlan, key: Vec<Expr>) -> Result<LogicalPlan, Error> {
    let columns = plan.schema().columns();
    let is_key = |column: &Column| {
        let keys = [key_column(0, 0), key_column(1, 0)];
        column.relation.is_some() && keys.iter().any(|key| key.relation == column.relation)
    };
    let shown = columns.into_iter().filter(|column| !is_key(column));
    let projection = shown
        .map(Expr::Column)
        .chain(key)
        .enumerate()
        .map(|(index, value)| value.alias(column_name(index)))
        .collect::<Vec<_>>();
    LogicalPlanBuilder::from(plan)
        .project(projection)
        .and_then(LogicalPlanBuilder::build)
        .map_err(mapped)
}

/// The top operator of `plan` over `inputs`. An equal one over the same inputs has the same query.
pub(super) fn over_inputs(
    plan: &LogicalPlan,
    inputs: &[NodeId],
    graph: &Graph,
) -> Result<LogicalPlan, Error> {
    let inputs: Vec<(NodeId, Vec<usize>)> =
        inputs.iter().map(|input| (*input, Vec::new())).collect();
    over_keyed(plan, &inputs, |_| Vec::new(), graph)
}

/// The same with columns of each input as the key of its rows ([`key_column`]) where the operator shows it; `key` says by the operator's columns what the last
/// columns are.
pub(super) fn over_keyed(
    plan: &LogicalPlan,
    inputs: &[(NodeId, Vec<usize>)],
    key: impl FnOnce(&DFSchema) -> Vec<Expr>,
    graph: &Graph,
) -> Result<LogicalPlan, Error> {
    let mut names = Numbering::default();
    let mut scans = plan
        .inputs()
        .into_iter()
        .zip(inputs)
        .enumerate()
        .map(|(index, (input, (node, key)))| {
            named_scan(index, &graph.schema(*node), input, key, &mut names)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let LogicalPlan::Unnest(unnest) = plan {
        let input = scans
            .pop()
            .ok_or_else(|| Error::internal("an unnest without its input"))?;
        let columns = unnest
            .exec_columns
            .iter()
            .map(|column| {
                let relation = column.relation.as_ref();
                Column::new(
                    relation.map(|relation| names.relation(relation)),
                    names.name(&column.name),
                )
            })
            .collect();
        let rows = Unnest::try_new(Arc::new(input), columns, unnest.options.clone());
        let rows = LogicalPlan::Unnest(rows.map_err(mapped)?);
        let key = key(rows.schema());
        return positional(rows, key);
    }
    let exprs = plan
        .expressions()
        .into_iter()
        .map(|expr| names.expr(expr))
        .collect::<Result<Vec<_>, _>>()
        .map_err(mapped)?;
    let plan = plan.with_new_exprs(exprs, scans).map_err(mapped)?;
    let key = key(plan.schema());
    positional(plan, key)
}

/// The whole of `plan` over the collections it scans, which become inputs in order of first use.
pub(super) fn over_collections(
    plan: &LogicalPlan,
) -> Result<(LogicalPlan, Vec<(ObjectId, SchemaRef)>), Error> {
    let mut collections: Vec<(ObjectId, SchemaRef)> = Vec::new();
    let replaced = plan
        .clone()
        .transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = node else {
                return Ok(Transformed::no(node));
            };
            let provider = source_as_provider(&scan.source)?;
            let Some(ScanTarget::Collection(id)) = scan_target(provider.as_ref()) else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let index = collections
                .iter()
                .position(|(known, _)| *known == id)
                .unwrap_or_else(|| {
                    collections.push((id, provider.schema()));
                    collections.len() - 1
                });
            input_scan(index, &scan, &provider.schema()).map(Transformed::yes)
        })
        .map_err(mapped)?;
    Ok((positional(replaced.data, Vec::new())?, collections))
}

/// The scan of input `index` in place of `scan`.
fn input_scan(
    index: usize,
    scan: &TableScan,
    full: &SchemaRef,
) -> datafusion::common::Result<LogicalPlan> {
    let fields: Vec<_> = full
        .fields()
        .iter()
        .enumerate()
        .map(|(column, field)| {
            field
                .as_ref()
                .clone()
                .with_name(column_name(column))
                .with_nullable(true)
        })
        .collect();
    let schema = Arc::new(arrow_schema::Schema::new(fields));
    let source = provider_as_source(Arc::new(InputTable::new(index, schema)));
    let table = TableReference::bare(format!("input_{index}"));
    let projection = full.fields().iter().enumerate().map(|(column, field)| {
        Expr::Column(Column::new(Some(table.clone()), column_name(column)))
            .alias_qualified(Some(scan.table_name.clone()), field.name())
    });
    let mut builder = LogicalPlanBuilder::scan(table.clone(), source, None)?.project(projection)?;
    for filter in &scan.filters {
        builder = builder.filter(filter.clone())?;
    }
    let shown = scan
        .projected_schema
        .columns()
        .into_iter()
        .map(Expr::Column);
    builder.project(shown)?.build()
}
