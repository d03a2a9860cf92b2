//! Queries that are answered by the rows of one key of an index.
//!
//! Owns the recognition: plain columns of one collection, all columns of a key compared with values, nothing else. Must not know how rows are found.
//! Called by the coordinator, which sends such a query to the worker without its plan.
//!
//! Invariants. What is recognised has the answer that its plan has. When in doubt a query is not recognised: it is only slower then.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use flowstone_functions::ScanTarget;
use flowstone_functions::codec::scan_target;
use flowstone_types::{ClusterId, ObjectId, SqlType};

use super::PlannedQuery;
use crate::catalog::{Catalog, ItemKind};
use crate::error::Error;

/// What a column of a key is compared with.
#[derive(Clone, Debug)]
enum KeyValue {
    /// One value.
    Constant(ArrayRef),
    /// The parameter of this number, from 0.
    Parameter(usize),
    /// Another value, as this type.
    Cast(Box<KeyValue>, DataType),
}

impl KeyValue {
    fn of(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::Literal(value, _) => value.to_array().ok().map(Self::Constant),
            Expr::Placeholder(placeholder) => {
                let number: usize = placeholder.id.strip_prefix('$')?.parse().ok()?;
                Some(Self::Parameter(number.checked_sub(1)?))
            }
            Expr::Cast(cast) => {
                let inner = Self::of(&cast.expr)?;
                Some(Self::Cast(Box::new(inner), cast.field.data_type().clone()))
            }
            _ => None,
        }
    }

    fn value(&self, parameters: &[ArrayRef]) -> Result<ArrayRef, Error> {
        match self {
            Self::Constant(value) => Ok(Arc::clone(value)),
            Self::Parameter(number) => parameters
                .get(*number)
                .cloned()
                .ok_or_else(|| Error::internal(format!("parameter ${} has no value", number + 1))),
            Self::Cast(inner, data_type) => arrow_cast::cast(&inner.value(parameters)?, data_type)
                .map_err(|error| Error::internal(error.to_string())),
        }
    }
}

/// A query for the rows of one key.
#[derive(Clone, Debug)]
pub struct LookupPlan {
    /// The index, or the collection whose own key it is.
    pub index: ObjectId,
    /// Indexes that would have been taken before it, were they hydrated: once one of them is, the query is to be recognised anew.
    pub better: Vec<ObjectId>,
    /// Which columns of the indexed relation the result has, in order.
    pub projection: Vec<usize>,
    key: Vec<KeyValue>,
    key_schema: SchemaRef,
}

impl LookupPlan {
    /// The key that is looked up: one row. `None` if a value is NULL, which equals nothing.
    ///
    /// # Errors
    /// A parameter that is missing.
    pub fn key(&self, parameters: &[ArrayRef]) -> Result<Option<RecordBatch>, Error> {
        let mut values = Vec::with_capacity(self.key.len());
        for part in &self.key {
            let value = part.value(parameters)?;
            if value.is_null(0) {
                return Ok(None);
            }
            values.push(value);
        }
        RecordBatch::try_new(Arc::clone(&self.key_schema), values)
            .map(Some)
            .map_err(|error| Error::internal(error.to_string()))
    }
}

/// Recognises a lookup in a query whose parameters are not bound.
///
/// Of several indexes that would do one in `cluster`, that of the session, is taken, then one in the default cluster, then the oldest. One that is paused, or that
/// `is_hydrated` does not know, is none: what it is of can be read without waiting for it.
#[must_use]
pub fn recognise_lookup(
    catalog: &Catalog,
    planned: &PlannedQuery,
    cluster: Option<ClusterId>,
    is_hydrated: &dyn Fn(ObjectId) -> bool,
) -> Option<LookupPlan> {
    let shape = Shape::of(&planned.plan)?;
    let mut compared: Vec<usize> = shape.equal.iter().map(|(column, _)| *column).collect();
    compared.sort_unstable();
    if compared.is_empty() || compared.windows(2).any(|pair| pair.first() == pair.last()) {
        return None;
    }
    let covers = |key: &[usize]| {
        let mut sorted = key.to_vec();
        sorted.sort_unstable();
        sorted == compared
    };
    let own = planned
        .keys
        .get(&shape.collection)
        .filter(|key| covers(key))
        .map(|key| (shape.collection, key.clone()));
    let mut better = Vec::new();
    let (index, columns) = own.or_else(|| {
        let indexes = catalog.items.values().filter_map(|item| {
            let ItemKind::Index { on, key } = &item.kind else {
                return None;
            };
            let columns: Vec<usize> = key.iter().map(|part| part.column).collect::<Option<_>>()?;
            // One that stands still has the rows of an earlier epoch.
            let useful = *on == shape.collection && covers(&columns) && !catalog.is_paused(item.id);
            useful.then_some((item.id, columns))
        });
        let rank = |id: ObjectId| {
            let of = catalog.cluster_of(id);
            (Some(of) != cluster, of != ClusterId::DEFAULT, id)
        };
        let (hydrated, others): (Vec<_>, Vec<_>) = indexes.partition(|(id, _)| is_hydrated(*id));
        let best = hydrated.into_iter().min_by_key(|(id, _)| rank(*id))?;
        let others = others.into_iter().map(|(id, _)| id);
        better = others.filter(|id| rank(*id) < rank(best.0)).collect();
        Some(best)
    })?;
    let types = catalog.items.get(&shape.collection)?.columns()?;
    let (mut key, mut fields) = (Vec::new(), Vec::new());
    for column in columns {
        let (_, value) = shape.equal.iter().find(|(other, _)| *other == column)?;
        let sql_type = &types.get(column)?.sql_type;
        let data_type = sql_type.to_arrow();
        if !equal_by_value(sql_type) || value.get_type_of(planned)? != data_type {
            return None;
        }
        key.push(KeyValue::of(value.0)?);
        fields.push(Field::new(format!("k{}", fields.len()), data_type, false));
    }
    Some(LookupPlan {
        index,
        better,
        projection: shape.columns,
        key,
        key_schema: Arc::new(Schema::new(fields)),
    })
}

/// Whether values of the type are equal exactly if they are stored alike: not so for floats, intervals and blank-padded text.
const fn equal_by_value(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Bool
            | SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::UInt2
            | SqlType::UInt4
            | SqlType::UInt8
            | SqlType::Numeric(_)
            | SqlType::Text
            | SqlType::VarChar(_)
            | SqlType::Bytea
            | SqlType::Date
            | SqlType::Time
            | SqlType::Timestamp
            | SqlType::TimestampTz
            | SqlType::Uuid
            | SqlType::Oid
    )
}

/// The value side of a comparison.
#[derive(Clone, Copy)]
struct Compared<'p>(&'p Expr);

impl Compared<'_> {
    /// Its type; for a parameter as the query has it.
    fn get_type_of(self, planned: &PlannedQuery) -> Option<DataType> {
        match self.0 {
            Expr::Literal(value, _) => Some(value.data_type()),
            Expr::Cast(cast) => Some(cast.field.data_type().clone()),
            Expr::Placeholder(_) => match KeyValue::of(self.0)? {
                KeyValue::Parameter(number) => {
                    planned.parameters.get(number).map(SqlType::to_arrow)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// A plan of one scan, projections to plain columns and comparisons with values.
struct Shape<'p> {
    collection: ObjectId,
    /// For each column of the plan, the collection's.
    columns: Vec<usize>,
    equal: Vec<(usize, Compared<'p>)>,
}

impl<'p> Shape<'p> {
    fn of(plan: &'p LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                if scan.fetch.is_some() || !scan.filters.is_empty() {
                    return None;
                }
                let provider = source_as_provider(&scan.source).ok()?;
                let Some(ScanTarget::Collection(collection)) = scan_target(provider.as_ref())
                else {
                    return None;
                };
                let width = provider.schema().fields().len();
                Some(Self {
                    collection,
                    columns: scan
                        .projection
                        .clone()
                        .unwrap_or_else(|| (0..width).collect()),
                    equal: Vec::new(),
                })
            }
            LogicalPlan::SubqueryAlias(alias) => Self::of(&alias.input),
            LogicalPlan::Projection(projection) => {
                let inner = Self::of(&projection.input)?;
                let columns = projection
                    .expr
                    .iter()
                    .map(|expr| {
                        inner
                            .columns
                            .get(position(expr, projection.input.schema())?)
                            .copied()
                    })
                    .collect::<Option<_>>()?;
                Some(Self { columns, ..inner })
            }
            LogicalPlan::Filter(filter) => {
                let mut inner = Self::of(&filter.input)?;
                for conjunct in split_conjunction(&filter.predicate) {
                    let Expr::BinaryExpr(binary) = conjunct else {
                        return None;
                    };
                    if binary.op != Operator::Eq {
                        return None;
                    }
                    let schema = filter.input.schema();
                    let (column, value) = match position(&binary.left, schema) {
                        Some(column) => (column, binary.right.as_ref()),
                        None => (position(&binary.right, schema)?, binary.left.as_ref()),
                    };
                    let column = *inner.columns.get(column)?;
                    inner.equal.push((column, Compared(value)));
                }
                Some(inner)
            }
            _ => None,
        }
    }
}

/// Which column of `schema` a plain column is.
fn position(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.index_of_column(column).ok(),
        Expr::Alias(alias) => position(&alias.expr, schema),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
