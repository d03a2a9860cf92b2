//! Dependent joins as they are said to be: the right side is run for each row of the left, with the values of the row in place of what it asks for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow_schema::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::collect;
use flowstone_functions::{session_state, task_context};

use super::super::expressions::{replaced, resolved, substituted};
use super::super::node::{DependentJoin, DependentKind, as_dependent};

type Row = Vec<ScalarValue>;

/// Runs plans; dependent joins by loops in loops.
pub(super) struct Naive {
    runtime: tokio::runtime::Runtime,
    /// What plans yielded, by their texts: the same subquery stands in many queries.
    known: RefCell<BTreeMap<String, RecordBatch>>,
    numbers: Cell<usize>,
}

impl Naive {
    pub(super) fn new() -> Self {
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            known: RefCell::default(),
            numbers: Cell::new(0),
        }
    }

    /// Runs a plan without dependent joins.
    pub(super) fn execute(&self, plan: &LogicalPlan) -> Result<RecordBatch, String> {
        let plan = crate::optimize::optimize(plan.clone()).map_err(|error| error.to_string())?;
        self.runtime.block_on(async {
            let state = session_state();
            let physical = state
                .query_planner()
                .create_physical_plan(&plan, &state)
                .await
                .map_err(|error| error.to_string())?;
            let schema = physical.schema();
            let batches = collect(physical, task_context())
                .await
                .map_err(|error| error.to_string())?;
            concat_batches(&schema, &batches).map_err(|error| error.to_string())
        })
    }

    /// Runs a plan with dependent joins.
    pub(super) fn evaluate(&self, plan: &LogicalPlan) -> RecordBatch {
        let text = plan.display_indent().to_string();
        if let Some(known) = self.known.borrow().get(&text) {
            return known.clone();
        }
        let replaced = plan
            .clone()
            .transform_down(|node| {
                let Some(join) = as_dependent(&node) else {
                    return Ok(Transformed::no(node));
                };
                let scan = self.scan(self.join(join), &join.schema);
                Ok(Transformed::new(scan, true, TreeNodeRecursion::Jump))
            })
            .unwrap()
            .data;
        let batch = self
            .execute(&replaced)
            .unwrap_or_else(|error| panic!("{error} in\n{text}"));
        self.known.borrow_mut().insert(text, batch.clone());
        batch
    }

    /// A scan of rows whose columns have the names of `schema`.
    fn scan(&self, rows: Vec<Row>, schema: &DFSchema) -> LogicalPlan {
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(place, field)| Field::new(format!("c{place}"), field.data_type().clone(), true))
            .collect();
        let types: Vec<DataType> = fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let table = batch_of(&rows, &types, Arc::new(Schema::new(fields)));
        self.numbers.set(self.numbers.get() + 1);
        let name = format!("rows{}", self.numbers.get());
        let memory = MemTable::try_new(table.schema(), vec![vec![table]]).unwrap();
        let scan =
            LogicalPlanBuilder::scan(name.as_str(), provider_as_source(Arc::new(memory)), None)
                .unwrap();
        let items: Vec<Expr> = schema
            .columns()
            .into_iter()
            .enumerate()
            .map(|(place, column)| {
                Expr::Column(Column::new(Some(name.as_str()), format!("c{place}")))
                    .alias_qualified(column.relation, column.name)
            })
            .collect();
        scan.project(items).unwrap().build().unwrap()
    }

    fn join(&self, join: &DependentJoin) -> Vec<Row> {
        let left = self.evaluate(&join.left);
        let columns = join.left.schema().columns();
        let width = join.right.schema().fields().len();
        let mut rows = Vec::new();
        for row in rows_of(&left) {
            let value = |column: &Column| {
                let place = columns.iter().position(|known| known == column)?;
                row.get(place)
                    .map(|value| Expr::Literal(value.clone(), None))
            };
            let right = self.evaluate(&bound(&join.right, &value));
            let outcomes = match &join.on {
                None => vec![Some(true); right.num_rows()],
                Some(on) => outcomes(on, &right, join.right.schema(), &value),
            };
            let partners: Vec<Row> = rows_of(&right)
                .into_iter()
                .zip(&outcomes)
                .filter(|(_, outcome)| **outcome == Some(true))
                .map(|(partner, _)| partner)
                .collect();
            let mut with = |more: Row| {
                let mut whole = row.clone();
                whole.extend(more);
                rows.push(whole);
            };
            match &join.kind {
                DependentKind::Left if partners.is_empty() => {
                    let fields = join.right.schema().fields().iter().take(width);
                    with(
                        fields
                            .map(|field| ScalarValue::try_from(field.data_type()).unwrap())
                            .collect(),
                    );
                }
                DependentKind::Inner | DependentKind::Left => partners.into_iter().for_each(with),
                DependentKind::Mark { .. } => {
                    let mark = if !partners.is_empty() {
                        Some(true)
                    } else if outcomes.contains(&None) {
                        None
                    } else {
                        Some(false)
                    };
                    with(vec![ScalarValue::Boolean(mark)]);
                }
                DependentKind::Single { .. } => {
                    let several = ScalarValue::Boolean(Some(partners.len() > 1));
                    let null = ScalarValue::try_from(join.right.schema().field(0).data_type());
                    let first = partners.into_iter().next();
                    let value = first.map_or_else(|| null.unwrap(), |row| row[0].clone());
                    with(vec![value, several]);
                }
            }
        }
        rows
    }
}

/// What a condition is for each row of a batch.
fn outcomes(
    on: &Expr,
    batch: &RecordBatch,
    schema: &DFSchema,
    value: &dyn Fn(&Column) -> Option<Expr>,
) -> Vec<Option<bool>> {
    let bound = substituted(on.clone(), value).unwrap();
    let physical = create_physical_expr(
        &bound,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .unwrap();
    let array = physical
        .evaluate(batch)
        .unwrap()
        .into_array(batch.num_rows())
        .unwrap();
    (0..array.len())
        .map(
            |row| match ScalarValue::try_from_array(&array, row).unwrap() {
                ScalarValue::Boolean(outcome) => outcome,
                other => panic!("{other} is no outcome"),
            },
        )
        .collect()
}

/// The plan with literals in place of what it asks for.
fn bound(plan: &LogicalPlan, value: &dyn Fn(&Column) -> Option<Expr>) -> LogicalPlan {
    plan.clone()
        .transform_up(|node| {
            let names = matches!(
                node,
                LogicalPlan::Projection(_)
                    | LogicalPlan::Aggregate(_)
                    | LogicalPlan::Window(_)
                    | LogicalPlan::Distinct(Distinct::On(_))
            );
            node.map_expressions(|expr| {
                Ok(Transformed::yes(if names {
                    resolved(expr, value)?
                } else {
                    replaced(expr, value)?.data
                }))
            })
        })
        .unwrap()
        .data
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    (0..batch.num_rows())
        .map(|row| {
            batch
                .columns()
                .iter()
                .map(|column| ScalarValue::try_from_array(column, row).unwrap())
                .collect()
        })
        .collect()
}

fn batch_of(rows: &[Row], types: &[DataType], schema: Arc<Schema>) -> RecordBatch {
    let columns: Vec<ArrayRef> = types
        .iter()
        .enumerate()
        .map(|(place, data_type)| {
            if rows.is_empty() {
                return new_empty_array(data_type);
            }
            ScalarValue::iter_to_array(rows.iter().map(|row| row[place].clone())).unwrap()
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema, columns, &options).unwrap()
}

/// The rows as text, in an order of their own.
pub(super) fn shown(batch: &RecordBatch) -> Vec<String> {
    let mut shown: Vec<String> = rows_of(batch)
        .into_iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
            cells.join("|")
        })
        .collect();
    shown.sort_unstable();
    shown
}
