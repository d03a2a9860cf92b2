//! The form in which expressions and plans travel between coordinator and worker.
//!
//! Owns the encoding of DataFusion logical expressions and plans, with our functions and placeholder tables. Must not know who sends what.
//! Called by `sql` when it lowers a view, by the coordinator for peeks, and by the worker to decode.
//!
//! Invariants. The bytes are transient: they are never stored durably, because DataFusion promises no stability over versions.
//! Both sides run the same binary. Functions travel by name and are found again in [`mod@crate::registry`].

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, TableReference, internal_err, plan_datafusion_err};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_proto::bytes::{
    Serializeable, logical_plan_from_bytes_with_extension_codec,
    logical_plan_to_bytes_with_extension_codec,
};
use datafusion_proto::logical_plan::{AsLogicalPlan, LogicalExtensionCodec};
use datafusion_proto::protobuf::LogicalPlanNode;

use crate::codec::pieces::{Piece, Pieces, Read, StandIns};
use crate::contexts::task_context;
use crate::tables::{CollectionTable, InputTable, ScanTarget};

/// Encodes a logical expression. It has been type-coerced and has no subqueries.
///
/// # Errors
/// If the expression has a form that cannot travel: a subquery, an outer reference.
pub fn encode_expr(expr: &Expr) -> Result<Vec<u8>> {
    let mut pieces = Pieces::default();
    let rest = pieces.cut_expr(expr.clone(), None)?.data;
    pieces.close(&expr_bytes(&rest)?, &expr_bytes, &plan_bytes)
}

fn expr_bytes(expr: &Expr) -> Result<Vec<u8>> {
    // DataFusion reads again what it wrote, for protobuf reads less deep than it writes.
    let bytes = expr
        .to_bytes()
        .map_err(|error| match error.strip_backtrace() {
            message if message.contains("recursion limit") => {
                plan_datafusion_err!("{TOO_DEEP}: {message}")
            }
            _ => error,
        })?;
    Ok(bytes.to_vec())
}

fn expr_of(bytes: &[u8]) -> Result<Expr> {
    Expr::from_bytes_with_ctx(bytes, &task_context())
}

/// Decodes what [`encode_expr`] wrote.
///
/// # Errors
/// If the bytes are not an expression or name an unknown function.
pub fn decode_expr(bytes: &[u8]) -> Result<Expr> {
    let (read, rest) = Read::open(bytes, &expr_of, &plan_of)?;
    read.complete_expr(expr_of(rest)?)
}

/// The expression, ready to be evaluated over batches of `schema`. Its columns are unqualified names of `schema`.
///
/// # Errors
/// If the expression names an unknown column or its types do not fit.
pub fn physical_expr(expr: &Expr, schema: &SchemaRef) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(Arc::clone(schema))?;
    create_physical_expr(
        expr,
        &schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
}

/// How the error of an expression or plan that nests deeper than can be read begins.
pub const TOO_DEEP: &str = "nested too deeply to travel";

/// Encodes a logical plan whose scans are of [`CollectionTable`] and [`InputTable`].
///
/// Subqueries must be joins by now.
///
/// # Errors
/// If the plan scans any other table or has a node or expression that cannot travel.
pub fn encode_plan(plan: &LogicalPlan) -> Result<Vec<u8>> {
    let plan = plan
        .clone()
        .transform_up_with_subqueries(unproject_work_table)?
        .transform_data(|plan| plan.transform_up_with_subqueries(plain_literals))?
        .data;
    let mut pieces = Pieces::default();
    let rest = pieces.cut_plan(plan)?;
    pieces.close(&plan_bytes(&rest)?, &expr_bytes, &plan_bytes)
}

fn plan_bytes(plan: &LogicalPlan) -> Result<Vec<u8>> {
    let codec = PlaceholderCodec::default();
    let bytes = logical_plan_to_bytes_with_extension_codec(plan, &codec)?.to_vec();
    // Protobuf reads less deep than it writes. What the worker could not read must be refused here, before it is in the catalog.
    LogicalPlanNode::try_decode(&bytes)
        .map_err(|error| plan_datafusion_err!("{TOO_DEEP}: {error}"))?;
    Ok(bytes)
}

fn plan_of(bytes: &[u8], read: &Read) -> Result<LogicalPlan> {
    let codec = PlaceholderCodec {
        pieces: read.stand_ins(),
    };
    logical_plan_from_bytes_with_extension_codec(bytes, &task_context(), &codec)
}

/// DataFusion's encoding drops the metadata of literals, which is part of the names of expressions that have them: drops it here, keeping the names.
fn plain_literals(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let sorts = matches!(node, LogicalPlan::Sort(_));
    node.map_expressions(|expr| {
        let name = names.save(&expr);
        let plain = expr.transform_up(|expr| {
            Ok(match expr {
                Expr::Literal(value, Some(_)) => Transformed::yes(Expr::Literal(value, None)),
                expr => Transformed::no(expr),
            })
        })?;
        // A sort key gives no name to anything.
        Ok(if sorts || !plain.transformed {
            plain
        } else {
            plain.update_data(|expr| name.restore(expr))
        })
    })
}

/// DataFusion's encoding of a scan of a recursive query's work table drops its projection: makes it a node of its own, or none if it takes all.
fn unproject_work_table(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::TableScan(scan) = &node else {
        return Ok(Transformed::no(node));
    };
    let Some(projection) = &scan.projection else {
        return Ok(Transformed::no(node));
    };
    let is_work_table =
        source_as_provider(&scan.source).is_ok_and(|provider| provider.is::<CteWorkTable>());
    if !is_work_table {
        return Ok(Transformed::no(node));
    }
    let whole = LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(&scan.source), None)?;
    if projection
        .iter()
        .copied()
        .eq(0..scan.source.schema().fields().len())
    {
        return whole.build().map(Transformed::yes);
    }
    let columns: Vec<Expr> = scan
        .projected_schema
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    whole.project(columns)?.build().map(Transformed::yes)
}

/// Decodes what [`encode_plan`] wrote, with each scan reading the table that `tables` gives for its target and schema.
///
/// # Errors
/// If the bytes are not a plan, name an unknown function, or `tables` fails.
pub fn decode_plan(
    bytes: &[u8],
    tables: &dyn Fn(ScanTarget, SchemaRef) -> Result<Arc<dyn TableProvider>>,
) -> Result<LogicalPlan> {
    let (read, rest) = Read::open(bytes, &expr_of, &plan_of)?;
    let plan = read.complete_plan(plan_of(rest, &read)?)?;
    let replaced = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(mut scan) = node else {
            return Ok(Transformed::no(node));
        };
        let provider = source_as_provider(&scan.source)?;
        let Some(target) = scan_target(provider.as_ref()) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        scan.source = provider_as_source(tables(target, provider.schema())?);
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    Ok(replaced.data)
}

/// What a table of a plan stands for; `None` for a table that is none of ours (the work table of a recursive query).
#[must_use]
pub fn scan_target(provider: &dyn TableProvider) -> Option<ScanTarget> {
    if let Some(table) = provider.downcast_ref::<CollectionTable>() {
        return Some(ScanTarget::Collection(table.id));
    }
    provider
        .downcast_ref::<InputTable>()
        .map(|table| ScanTarget::Input(table.index))
}

/// Writes placeholder tables as their target and pieces as their number; functions need nothing beyond their names.
#[derive(Debug, Default)]
struct PlaceholderCodec {
    /// Pieces that were read before.
    pieces: StandIns,
}

impl LogicalExtensionCodec for PlaceholderCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        _inputs: &[LogicalPlan],
        _ctx: &TaskContext,
    ) -> Result<Extension> {
        match String::from_utf8_lossy(buf).parse() {
            Ok(index) => Ok(Extension {
                node: Arc::new(self.pieces.get(index)?),
            }),
            Err(_) => internal_err!("a shipped plan has no extension nodes but its pieces"),
        }
    }

    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        match node.node.as_any().downcast_ref::<Piece>() {
            Some(piece) => {
                buf.extend_from_slice(piece.index.to_string().as_bytes());
                Ok(())
            }
            None => internal_err!("the extension node {} cannot be shipped", node.node.name()),
        }
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        _table_ref: &TableReference,
        schema: SchemaRef,
        _ctx: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        Ok(match String::from_utf8_lossy(buf).parse()? {
            ScanTarget::Collection(id) => Arc::new(CollectionTable::new(id, schema)),
            ScanTarget::Input(index) => Arc::new(InputTable::new(index, schema)),
        })
    }

    fn try_encode_table_provider(
        &self,
        table_ref: &TableReference,
        node: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        match scan_target(node.as_ref()) {
            Some(target) => {
                buf.extend_from_slice(target.to_string().as_bytes());
                Ok(())
            }
            None => internal_err!("table {table_ref} is not a collection and cannot be shipped"),
        }
    }
}

mod pieces;
#[cfg(test)]
mod tests;
