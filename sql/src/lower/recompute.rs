//! The query of a Recompute node: one operator of a logical plan over the node's inputs.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, TableReference};
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

/// The scan of input `index`.
fn scan(index: usize, schema: &SchemaRef) -> Result<LogicalPlanBuilder, Error> {
    let source = provider_as_source(Arc::new(InputTable::new(index, Arc::clone(schema))));
    LogicalPlanBuilder::scan(TableReference::bare(format!("input_{index}")), source, None)
        .map_err(mapped)
}

/// The scan of input `index` with its columns named as those of `like`, with numbers of `names`.
fn named_scan(
    index: usize,
    schema: &SchemaRef,
    like: &LogicalPlan,
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
        .collect::<Vec<_>>();
    scan(index, schema)?
        .project(projection)
        .and_then(LogicalPlanBuilder::build)
        .map_err(mapped)
}

/// The columns of `plan` named `c0`, `c1`, …
fn positional(plan: LogicalPlan) -> Result<LogicalPlan, Error> {
    let columns = plan.schema().columns();
    let projection = columns
        .into_iter()
        .enumerate()
        .map(|(index, column)| Expr::Column(column).alias(column_name(index)));
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
    let mut names = Numbering::default();
    let mut scans = plan
        .inputs()
        .into_iter()
        .zip(inputs)
        .enumerate()
        .map(|(index, (input, node))| named_scan(index, &graph.schema(*node), input, &mut names))
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
        return positional(LogicalPlan::Unnest(rows.map_err(mapped)?));
    }
    let exprs = plan
        .expressions()
        .into_iter()
        .map(|expr| names.expr(expr))
        .collect::<Result<Vec<_>, _>>()
        .map_err(mapped)?;
    positional(plan.with_new_exprs(exprs, scans).map_err(mapped)?)
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
    Ok((positional(replaced.data)?, collections))
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
