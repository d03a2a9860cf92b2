//! Planning: from a syntax tree and a catalog to a DataFusion logical plan with PostgreSQL's meaning.
//!
//! Owns output columns, and the plans of views, indexes and row-changing statements. What is done, in order: the binder makes a typed plan of the tree
//! (`bind`); its dependent joins are removed (`unnest`); GROUPING is resolved, and DataFusion's coercion, which finds nothing to do, confirms the
//! types; values whose order is not Arrow's are compared by keys (`keys`); safe rules optimise (`optimize`).
//! Must not know where plans run. Called by the coordinator for statements, and by [`crate::lower`]'s callers before lowering.
//!
//! Invariants. Planning is deterministic: the clock and the session come with [`PlanContext`]. Scans name collections by id
//! ([`flowstone_functions::CollectionTable`]); views are expanded. No expression of a finished plan holds a subquery.

mod keys;
mod lookup;
mod modifiers;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::metadata::{FieldMetadata, ScalarAndMetadata};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ParamValues, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use flowstone_functions::ScanTarget;
use flowstone_functions::codec::{encode_plan, scan_target};
use flowstone_functions::execution::still_wanted;
use flowstone_functions::zone::plan_in_zone;
use flowstone_proto::plan::QueryPlan;
use flowstone_types::sql_type::without_shown_modifier;
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::Query;

pub use lookup::{LookupPlan, recognise_lookup};
pub use writes::{PlannedCopy, PlannedWrite, WriteKind, plan_copy_from, plan_write};

pub use crate::assignments::assignments;
use crate::bind::{self, Bound};
use crate::catalog::{Catalog, Column, IndexKey, Item, ItemKind};
pub use crate::context::{MATERIALIZE_VERSION, PlanContext};
use crate::error::{Error, ErrorKind};
use crate::names::{self, INTERNAL};
use crate::{expansion, optimize, planning_errors};

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputColumn {
    /// Its name; names need not differ.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// Whether the modifier of its type is one that a column or a cast has, and not what a function or an operator makes of its operands.
    pub declared: bool,
}

/// A planned query.
#[derive(Clone, Debug)]
pub struct PlannedQuery {
    /// The plan, optimised. Parameters that are not bound are placeholders.
    pub plan: LogicalPlan,
    /// The plan with types coerced, before any rule changed its shape: what lowering starts from.
    pub(crate) analysed: LogicalPlan,
    /// Columns that identify a row of the collections read.
    pub(crate) keys: BTreeMap<ObjectId, Vec<usize>>,
    /// The columns of the result as the user sees them.
    pub columns: Vec<OutputColumn>,
    /// The same as an Arrow schema, types in the metadata.
    pub schema: SchemaRef,
    /// The types of `$1`, `$2`, …
    pub parameters: Vec<SqlType>,
    /// Collections the plan scans, views expanded, each once.
    pub reads: Vec<ObjectId>,
    /// What the text names, views among it, each once.
    pub depends_on: Vec<ObjectId>,
    /// Relations of the system catalog the plan scans, each once.
    pub system: Vec<ObjectId>,
    /// Whether the plan scans nothing at all.
    pub constant: bool,
}

impl PlannedQuery {
    /// The query with values in place of its parameters.
    ///
    /// `parameters`: one array of one value for each of [`PlannedQuery::parameters`], of its Arrow type.
    ///
    /// # Errors
    /// If a value is missing or of another type.
    pub fn bind(&self, parameters: &[ArrayRef]) -> Result<Self, Error> {
        if self.parameters.is_empty() {
            return Ok(self.clone());
        }
        let mut values = Vec::new();
        for array in self.check_parameters(parameters)? {
            let value = flowstone_functions::scalar_at(array, 0)
                .map_err(|error| planning_errors::from_datafusion(&error, ""))?;
            values.push(ScalarAndMetadata::new(value, None));
        }
        let bound = |plan: &LogicalPlan| {
            plan.clone()
                .with_param_values(ParamValues::List(values.clone()))
                .map_err(|error| planning_errors::from_datafusion(&error, ""))
        };
        let analysed = bound(&self.analysed)?;
        let plan = optimize::optimize(analysed.clone())
            .map_err(|error| planning_errors::from_datafusion(&error, ""))?;
        Ok(Self {
            plan,
            analysed,
            parameters: Vec::new(),
            ..self.clone()
        })
    }

    /// The values of the parameters, if there is one of its type for each.
    ///
    /// # Errors
    /// If a value is missing or of another type.
    pub fn check_parameters<'v>(
        &self,
        parameters: &'v [ArrayRef],
    ) -> Result<&'v [ArrayRef], Error> {
        if parameters.len() != self.parameters.len() {
            return Err(Error::new(
                ErrorKind::InvalidParameterValue,
                format!(
                    "bind message supplies {} parameters, but the statement requires {}",
                    parameters.len(),
                    self.parameters.len()
                ),
            ));
        }
        for (array, sql_type) in parameters.iter().zip(&self.parameters) {
            if array.data_type() != &sql_type.to_arrow() || array.is_empty() {
                return Err(Error::new(
                    ErrorKind::InvalidParameterValue,
                    format!("a parameter is not of type {sql_type}"),
                ));
            }
        }
        Ok(parameters)
    }

    /// The plan as it crosses to the worker.
    ///
    /// # Errors
    /// If the plan holds what cannot be shipped: unbound parameters, subqueries that could not be unnested.
    pub fn encode(&self) -> Result<QueryPlan, Error> {
        encode(&self.plan)
    }
}

/// Encodes a plan with its text.
pub(crate) fn encode(plan: &LogicalPlan) -> Result<QueryPlan, Error> {
    let bytes = with_typed_nothing(plan.clone())
        .and_then(|plan| encode_plan(&plan))
        .map_err(|error| planning_errors::from_datafusion(&error, ""))?;
    Ok(QueryPlan {
        bytes,
        text: plan.display_indent().to_string(),
    })
}

/// The plan with relations of no rows written as the first none of a row of NULLs: an encoded empty relation would lose its columns.
fn with_typed_nothing(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::EmptyRelation(empty) = &node else {
            return Ok(Transformed::no(node));
        };
        if empty.produce_one_row || empty.schema.fields().is_empty() {
            return Ok(Transformed::no(node));
        }
        let nulls = empty
            .schema
            .iter()
            .map(|(qualifier, field)| {
                let metadata = FieldMetadata::from(field.metadata().clone());
                let value = ScalarValue::try_from(field.data_type())?;
                Ok(Expr::Literal(value, Some(metadata))
                    .alias_qualified(qualifier.cloned(), field.name()))
            })
            .collect::<Result<Vec<_>, DataFusionError>>()?;
        LogicalPlanBuilder::empty(true)
            .project(nulls)?
            .limit(0, Some(0))?
            .build()
            .map(Transformed::yes)
    })
    .map(|transformed| transformed.data)
}

/// A planned view.
#[derive(Clone, Debug)]
pub struct PlannedView {
    /// Its columns.
    pub columns: Vec<Column>,
    /// The query as SQL with qualified names: it means the same in every session.
    pub query_sql: String,
    /// The query's plan, output columns named as the view's.
    pub planned: PlannedQuery,
}

/// A planned index.
#[derive(Clone, Debug)]
pub struct PlannedIndex {
    /// The key.
    pub key: Vec<IndexKey>,
    /// The relation's columns, then the key expressions that are not plain columns.
    pub planned: PlannedQuery,
    /// Positions of the key in the columns of `planned`.
    pub key_columns: Vec<usize>,
}

/// Plans a query. `parameter_types`: what is known of `$1`, `$2`, … beforehand.
///
/// # Errors
/// Whatever is wrong with the statement, with PostgreSQL's wording.
pub fn plan_query(
    ctx: &PlanContext<'_>,
    query: &Query,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedQuery, Error> {
    plan_tree(ctx, query, parameter_types)
}

/// Plans the query of a view. `aliases`: the view's column names, if the statement gives them; there may be fewer than columns.
///
/// # Errors
/// As [`plan_query`]; [`ErrorKind::DuplicateColumn`] if two columns have one name.
pub fn plan_view(
    ctx: &PlanContext<'_>,
    query: &Query,
    aliases: &[String],
) -> Result<PlannedView, Error> {
    let mut planned = plan_tree(ctx, query, &[])?;
    if !planned.parameters.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidObjectDefinition,
            "there is no parameter $1",
        ));
    }
    if aliases.len() > planned.columns.len() {
        return Err(Error::new(
            ErrorKind::InvalidTableDefinition,
            "CREATE VIEW specifies more column names than columns",
        ));
    }
    for (column, alias) in planned.columns.iter_mut().zip(aliases) {
        column.name.clone_from(alias);
    }
    let mut seen = std::collections::BTreeSet::new();
    for column in &planned.columns {
        if !seen.insert(column.name.as_str()) {
            return Err(Error::new(
                ErrorKind::DuplicateColumn,
                format!("column \"{}\" specified more than once", column.name),
            ));
        }
    }
    planned.schema = schema_of(&planned.columns);
    let columns = planned
        .columns
        .iter()
        .map(|column| Column {
            name: column.name.clone(),
            sql_type: column.sql_type.clone(),
            nullable: column.nullable,
            default: None,
        })
        .collect();
    let mut qualified = query.clone();
    names::qualify(ctx, &mut qualified)?;
    Ok(PlannedView {
        columns,
        query_sql: crate::parse::query_text(&qualified)?,
        planned,
    })
}

/// Plans the key of an index on `relation`.
///
/// # Errors
/// As [`plan_query`].
pub fn plan_index(
    ctx: &PlanContext<'_>,
    relation: ObjectId,
    key: &[sqlparser::ast::Expr],
) -> Result<PlannedIndex, Error> {
    use sqlparser::ast::{Expr as SqlExpr, SelectItem, WildcardAdditionalOptions};
    let item = ctx
        .catalog
        .items
        .get(&relation)
        .ok_or_else(|| Error::internal(format!("no item {relation}")))?;
    let columns = item.columns().ok_or_else(|| {
        Error::new(
            ErrorKind::WrongObjectType,
            format!(
                "\"{}\" is not a table, view or materialized view",
                item.name
            ),
        )
    })?;
    let mut keys = Vec::new();
    let mut positions = Vec::new();
    let mut projection = vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())];
    for expr in key {
        let name = match expr {
            SqlExpr::Identifier(ident) => Some(names::fold(ident)),
            _ => None,
        };
        let column = name
            .as_ref()
            .and_then(|name| columns.iter().position(|column| &column.name == name));
        positions.push(column.unwrap_or(columns.len() + projection.len() - 1));
        if column.is_none() {
            projection.push(SelectItem::UnnamedExpr(expr.clone()));
        }
        keys.push(IndexKey {
            expression: crate::parse::expr_text(expr)?,
            column,
        });
    }
    let planned = plan_projection(ctx, item, projection)?;
    Ok(PlannedIndex {
        key: keys,
        planned,
        key_columns: positions,
    })
}

/// Plans an expression over the columns of `relation`: a query with that one column.
///
/// # Errors
/// As [`plan_query`].
pub(crate) fn plan_expression(
    ctx: &PlanContext<'_>,
    relation: ObjectId,
    expression: sqlparser::ast::Expr,
) -> Result<PlannedQuery, Error> {
    let item = ctx.catalog.items.get(&relation);
    let item = item.ok_or_else(|| Error::internal(format!("no item {relation}")))?;
    let column = sqlparser::ast::SelectItem::UnnamedExpr(expression);
    plan_projection(ctx, item, vec![column])
}

/// Plans these columns of a relation.
fn plan_projection(
    ctx: &PlanContext<'_>,
    item: &Item,
    projection: Vec<sqlparser::ast::SelectItem>,
) -> Result<PlannedQuery, Error> {
    let qualified = names::qualified_name(ctx.catalog, names::Relation::Item(item));
    let name = sqlparser::ast::ObjectName::from(
        qualified
            .iter()
            .map(|part| names::quoted(part))
            .collect::<Vec<_>>(),
    );
    let from = sqlparser::ast::TableWithJoins {
        relation: names::table_factor(name, None),
        joins: Vec::new(),
    };
    let select = names::select(projection, vec![from]);
    let query = names::query(sqlparser::ast::SetExpr::Select(Box::new(select)));
    plan_tree(ctx, &query, &[])
}

/// Plans a tree.
fn plan_tree(
    ctx: &PlanContext<'_>,
    query: &Query,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedQuery, Error> {
    expansion::refuse_repetition(query)?;
    finish(ctx, bind::query(ctx, query, parameter_types)?)
}

/// Removes dependent joins, makes the output's types SQL types, optimises, and collects what callers ask about.
fn finish(ctx: &PlanContext<'_>, bound: Bound) -> Result<PlannedQuery, Error> {
    let mapped = |error: DataFusionError| planning_errors::from_datafusion(&error, ctx.text);
    let wanted = || still_wanted().map_err(mapped);
    let Bound {
        plan,
        parameters,
        found,
    } = bound;
    let declared = modifiers::declared(&plan);
    let plan = expansion::refuse_too_large(plan)
        .and_then(crate::unnest::unnest)
        .and_then(expansion::refuse_too_large)
        .map_err(mapped)?;
    wanted()?;
    // The rows that a limit counts are ordered by keys as well.
    let plan = keys::order_windows(plan).map_err(mapped)?;
    let analysed = optimize::analyse(plan).map_err(mapped)?;
    wanted()?;
    let analysed = plan_in_zone(analysed, ctx.time_zone).map_err(mapped)?;
    let analysed = optimize::check(analysed).map_err(mapped)?;
    let (analysed, mut columns) = settle_output(analysed)?;
    for (column, declared) in columns.iter_mut().zip(declared) {
        column.declared = declared;
    }
    wanted()?;
    let analysed = keys::compare_by_keys(analysed).map_err(mapped)?;
    if ctx.maintained {
        refuse_volatile(&analysed)?;
    }
    let plan = optimize::optimize(analysed.clone()).map_err(mapped)?;
    optimize::refuse_subqueries(&plan)?;
    let scans = scans(&analysed)?;
    let (system, reads): (Vec<ObjectId>, Vec<ObjectId>) = scans
        .into_iter()
        .partition(|id| matches!(id, ObjectId::System(_)));
    Ok(PlannedQuery {
        plan,
        analysed,
        keys: reads
            .iter()
            .filter_map(|id| Some((*id, key_of(ctx.catalog, *id)?)))
            .collect(),
        schema: schema_of(&columns),
        columns,
        parameters,
        constant: reads.is_empty() && system.is_empty(),
        reads,
        depends_on: found,
        system,
    })
}

/// The columns that identify a row of a collection.
fn key_of(catalog: &Catalog, id: ObjectId) -> Option<Vec<usize>> {
    match &catalog.items.get(&id)?.kind {
        ItemKind::Table { key, .. } | ItemKind::MaterializedView { key, .. } => key.clone(),
        _ => None,
    }
}

fn schema_of(columns: &[OutputColumn]) -> SchemaRef {
    Arc::new(Schema::new(
        columns
            .iter()
            .map(|column| {
                let field = column.sql_type.to_field(&column.name, column.nullable);
                if column.declared {
                    field
                } else {
                    without_shown_modifier(field)
                }
            })
            .collect::<Vec<_>>(),
    ))
}

/// The SQL type of a field.
pub(crate) fn sql_type_of(field: &Field) -> Result<SqlType, Error> {
    SqlType::from_field(field).map_err(|error| Error::unsupported(format!("{error}")))
}

/// Casts output columns whose Arrow type is none that values of SQL types have (views of strings, nanoseconds, untyped NULL).
fn settle_output(plan: LogicalPlan) -> Result<(LogicalPlan, Vec<OutputColumn>), Error> {
    let mut columns = Vec::new();
    let mut projection = Vec::new();
    let mut changed = false;
    for (qualifier, field) in plan.schema().iter() {
        let sql_type = sql_type_of(field)?;
        let name = field
            .name()
            .split(INTERNAL)
            .next()
            .unwrap_or_default()
            .to_owned();
        let column = Expr::Column(datafusion::common::Column::from((qualifier, field)));
        let target = sql_type.to_arrow();
        if same_layout(field.data_type(), &target) {
            projection.push(column);
        } else {
            changed = true;
            let target = Arc::new(sql_type.to_field("", true));
            let cast =
                datafusion::logical_expr::expr::Cast::new_from_field(Box::new(column), target);
            projection.push(Expr::Cast(cast).alias_qualified(qualifier.cloned(), field.name()));
        }
        columns.push(OutputColumn {
            name,
            sql_type,
            nullable: field.is_nullable(),
            declared: false,
        });
    }
    if !changed {
        return Ok((plan, columns));
    }
    let plan = LogicalPlanBuilder::from(plan)
        .project(projection)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| planning_errors::from_datafusion(&error, ""))?;
    Ok((plan, columns))
}

/// Whether two types differ at most in names and metadata of list elements.
fn same_layout(left: &DataType, right: &DataType) -> bool {
    match (left, right) {
        (DataType::List(left), DataType::List(right)) => {
            same_layout(left.data_type(), right.data_type())
        }
        _ => left == right,
    }
}

fn refuse_volatile(plan: &LogicalPlan) -> Result<(), Error> {
    let mut offender = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if part.is_volatile_node() {
                    offender = Some(part.schema_name().to_string());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })
    .map_err(|error| planning_errors::from_datafusion(&error, ""))?;
    match offender {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::InvalidObjectDefinition,
            format!("cannot materialize call to {name}"),
        )
        .with_hint("Remove it from the query, or create a plain view.")),
    }
}

/// The collections a plan scans, subqueries included, each once, in order.
fn scans(plan: &LogicalPlan) -> Result<Vec<ObjectId>, Error> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            if let Some(ScanTarget::Collection(id)) = scan_target(provider.as_ref())
                && !found.contains(&id)
            {
                found.push(id);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|error| planning_errors::from_datafusion(&error, ""))?;
    Ok(found)
}

/// The field of an expression over a plan.
pub(crate) fn field_of(expr: &Expr, plan: &LogicalPlan) -> Result<FieldRef, Error> {
    expr.to_field(plan.schema())
        .map(|(_, field)| field)
        .map_err(|error| planning_errors::from_datafusion(&error, ""))
}
