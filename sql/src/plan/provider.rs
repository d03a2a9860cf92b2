//! What DataFusion's SQL planner may ask: relations by their internal names, functions, types, and our planners of expressions and relations.
//!
//! Owns the expansion of views, which are planned from their text each time they are named. Called by [`crate::plan`].

use std::borrow::Cow;
use std::sync::Arc;

use arrow_schema::{DataType, FieldRef, SchemaRef};
use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue, TableReference};
use datafusion::config::ConfigOptions;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, PlannedRelation, RelationPlanner, RelationPlannerContext,
    RelationPlanning, TypePlanner,
};
use datafusion::logical_expr::{
    AggregateUDF, EmptyRelation, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF,
    TableSource, TableType, WindowFrame, WindowFunctionDefinition, WindowUDF,
};
use flowstone_functions::CollectionTable;
use flowstone_types::ObjectId;
use sqlparser::ast::TableFactor;

use super::exprs::PostgresTyping;
use super::names::{Found, INTERNAL, Relation, fold};
use super::{PlanContext, rewrite};
use crate::catalog::{ItemKind, arrow_schema};
use crate::error::{Error, ErrorKind};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Views inside views deeper than this are taken for a mistake.
const VIEW_DEPTH_MAX: usize = 64;

/// Relations of the system catalog that have no rows. Planned as such: clients ask questions about them that we could not answer otherwise.
const EMPTY: [&str; 4] = [
    "pg_policy",
    "pg_publication",
    "pg_publication_rel",
    "pg_publication_namespace",
];

/// See the module documentation.
pub(super) struct Provider<'p, 'a> {
    ctx: &'p PlanContext<'a>,
    found: &'p Found<'a>,
    depth: usize,
    options: ConfigOptions,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    type_planner: Arc<dyn TypePlanner>,
}

impl<'p, 'a> Provider<'p, 'a> {
    pub(super) fn new(
        ctx: &'p PlanContext<'a>,
        found: &'p Found<'a>,
        typing: PostgresTyping,
        depth: usize,
    ) -> Self {
        let mut expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(typing.clone())];
        expr_planners.extend(flowstone_functions::expr_planners());
        Self {
            ctx,
            found,
            depth,
            options: flowstone_functions::session_config()
                .options()
                .as_ref()
                .clone(),
            expr_planners,
            relation_planners: vec![Arc::new(SetOperations { typing })],
            type_planner: Arc::new(SqlTypes),
        }
    }

    fn relation(
        &self,
        relation: &Relation<'a>,
    ) -> std::result::Result<Arc<dyn TableSource>, Error> {
        let collection = |id, schema: SchemaRef| {
            Ok(provider_as_source(Arc::new(CollectionTable::new(
                id, schema,
            ))))
        };
        match relation {
            Relation::System(relation) if EMPTY.contains(&relation.name) => {
                let schema = relation.arrow_schema();
                let mapped = |error: DataFusionError| super::errors::from_datafusion(&error, "");
                let fields = DFSchema::try_from(Arc::clone(&schema)).map_err(mapped)?;
                let plan = LogicalPlan::EmptyRelation(EmptyRelation {
                    produce_one_row: false,
                    schema: Arc::new(fields),
                });
                Ok(Arc::new(ViewSource { plan, schema }))
            }
            Relation::System(relation) => collection(relation.id, relation.arrow_schema()),
            Relation::Item(item) => match &item.kind {
                ItemKind::Table { columns, .. }
                | ItemKind::Progress { columns, .. }
                | ItemKind::MaterializedView { columns, .. } => {
                    collection(item.id, arrow_schema(columns))
                }
                ItemKind::View { columns, query } => {
                    if self.depth >= VIEW_DEPTH_MAX {
                        return Err(Error::unsupported("views are nested too deeply"));
                    }
                    let query = crate::parse::parse_query(query)?;
                    let zone = self.ctx.catalog.time_zone(item.id);
                    let depth = self.depth + 1;
                    let plan = super::plan_view_text(self.ctx, *query, columns, &zone, depth)?;
                    let schema = arrow_schema(columns);
                    Ok(Arc::new(ViewSource { plan, schema }))
                }
                ItemKind::Source(_)
                | ItemKind::Index { .. }
                | ItemKind::Secret
                | ItemKind::Connection(_)
                | ItemKind::Sink(_) => Err(Error::new(
                    ErrorKind::WrongObjectType,
                    format!(
                        "\"{}\" is not a table, view or materialized view",
                        item.name
                    ),
                )
                .with_detail(format!("It is a {}.", item.type_name().replace('-', " ")))),
            },
        }
    }
}

/// A view as the planner sees it: its plan takes the place of the scan.
#[derive(Debug)]
struct ViewSource {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

impl ContextProvider for Provider<'_, '_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let id = name
            .table()
            .strip_prefix(INTERNAL)
            .and_then(|id| id.parse::<ObjectId>().ok());
        let relation = id.and_then(|id| self.found.relations.get(&id));
        let missing = || {
            DataFusionError::External(Box::new(Error::new(
                ErrorKind::UndefinedTable,
                format!("relation \"{name}\" does not exist"),
            )))
        };
        self.relation(relation.ok_or_else(missing)?)
            .map_err(|error| DataFusionError::External(Box::new(error)))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(
            name, schema,
        ))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::clone(&self.type_planner))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        flowstone_functions::registry().scalar(name)
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        flowstone_functions::registry().aggregate(name)
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        flowstone_functions::registry().window(name)
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        flowstone_functions::registry().scalar_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        flowstone_functions::registry().aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        flowstone_functions::registry().window_names()
    }
}

/// Types by PostgreSQL's names, with the exact type in the field's metadata.
#[derive(Debug)]
struct SqlTypes;

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql_type: &sqlparser::ast::DataType) -> Result<Option<FieldRef>> {
        let sql_type = crate::parse::parse_type(sql_type)
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Some(Arc::new(sql_type.to_field("", true))))
    }
}

/// EXCEPT ALL and INTERSECT ALL: equal rows are numbered on both sides, and the numbered rows, which are distinct, are subtracted or intersected.
/// UNION where a literal of one side has the type of the other side's column.
#[derive(Debug)]
struct SetOperations {
    typing: PostgresTyping,
}

impl SetOperations {
    fn union(&self, left: LogicalPlan, right: LogicalPlan, distinct: bool) -> Result<LogicalPlan> {
        let names: Vec<String> = left
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        let (mut lefts, mut rights) = (Vec::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let of = |plan: &LogicalPlan| {
                let column = plan.schema().columns().into_iter().nth(index);
                match super::literals::origin(plan, index) {
                    // A literal is the same in every row.
                    Some(literal @ (Expr::Literal(..) | Expr::Placeholder(_))) => literal.clone(),
                    _ => {
                        column.map_or_else(|| Expr::Literal(ScalarValue::Null, None), Expr::Column)
                    }
                }
            };
            let (mut left_column, mut right_column) = (of(&left), of(&right));
            let told = self.typing.branches(
                (&left_column, left.schema().as_ref()),
                (&right_column, right.schema().as_ref()),
            )?;
            if let Some(told) = told {
                left_column = self.typing.tell(left_column, &told)?;
                right_column = self.typing.tell(right_column, &told)?;
            }
            lefts.push(left_column.alias(name));
            rights.push(right_column.alias(name));
        }
        let left = LogicalPlanBuilder::from(left).project(lefts)?;
        let right = LogicalPlanBuilder::from(right).project(rights)?.build()?;
        if distinct {
            left.union_distinct(right)?.build()
        } else {
            left.union(right)?.build()
        }
    }
}

impl RelationPlanner for SetOperations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::NestedJoin {
            table_with_joins,
            alias: Some(alias),
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let name = fold(&alias.name);
        let operation = match name.as_str() {
            rewrite::EXCEPT_ALL => "EXCEPT",
            rewrite::INTERSECT_ALL => "INTERSECT",
            rewrite::UNION_ALL | rewrite::UNION_DISTINCT => "UNION",
            _ => "",
        };
        let except = name == rewrite::EXCEPT_ALL;
        if operation.is_empty() {
            return Ok(RelationPlanning::Original(Box::new(
                TableFactor::NestedJoin {
                    table_with_joins,
                    alias: Some(alias),
                },
            )));
        }
        let mut sides = std::iter::once(table_with_joins.relation)
            .chain(table_with_joins.joins.into_iter().map(|join| join.relation));
        let mut side = || match sides.next() {
            Some(factor) => context.plan(factor),
            None => Err(DataFusionError::Internal(
                "set operation without operand".to_owned(),
            )),
        };
        let (left, right) = (side()?, side()?);
        if left.schema().fields().len() != right.schema().fields().len() {
            return Err(DataFusionError::External(Box::new(Error::syntax(format!(
                "each {operation} query must have the same number of columns"
            )))));
        }
        if operation == "UNION" {
            let plan = self.union(left, right, name == rewrite::UNION_DISTINCT)?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
                plan, None,
            ))));
        }
        let names: Vec<String> = left
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        let (left, right) = (numbered(left, &names)?, numbered(right, &names)?);
        let plan = if except {
            LogicalPlanBuilder::except(left, right, false)?
        } else {
            LogicalPlanBuilder::intersect(left, right, false)?
        };
        let columns = plan.schema().columns();
        let shown = columns
            .into_iter()
            .zip(&names)
            .map(|(column, name)| Expr::Column(column).alias(name));
        let plan = LogicalPlanBuilder::from(plan).project(shown)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan, None,
        ))))
    }
}

/// The rows of `plan`, its columns called `names`, and as last column the number of the row among equal ones.
fn numbered(plan: LogicalPlan, names: &[String]) -> Result<LogicalPlan> {
    let row_number = flowstone_functions::registry()
        .window("row_number")
        .ok_or_else(|| DataFusionError::Internal("no function row_number".to_owned()))?;
    let columns: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    let mut window =
        WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number), Vec::new());
    window.params.partition_by.clone_from(&columns);
    window.params.order_by = columns
        .first()
        .map(|column| Sort::new(column.clone(), true, false))
        .into_iter()
        .collect();
    window.params.window_frame = WindowFrame::new(Some(true));
    let number = Expr::from(window).alias("\u{1}number");
    let plan = LogicalPlanBuilder::from(plan)
        .window(vec![number])?
        .build()?;
    let mut projected: Vec<Expr> = columns
        .into_iter()
        .zip(names)
        .map(|(column, name)| column.alias(name))
        .collect();
    projected.push(Expr::Column(Column::new_unqualified("\u{1}number")));
    LogicalPlanBuilder::from(plan).project(projected)?.build()
}
