//! Values: expressions with what is known of their types.
//!
//! Owns literals, rows as values, and the agreement between the type that the binder knows and the one that a field of a plan says. Must not know syntax
//! or scopes. Called by all of [`super`].
//!
//! Invariants. A value whose type is a [`SqlType`] has an expression of that type's Arrow type. A row is kept with its fields.

use std::collections::BTreeMap;

use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use flowstone_functions::cast::{can_cast, cast_expr};
use flowstone_functions::resolve::Given;
use flowstone_functions::zone::expr_in_zone;
use flowstone_types::SqlType;
use flowstone_types::datetime::TimeZone;
use flowstone_types::sql_type::TYPE_KEY;

use crate::error::Error;
use crate::planning_errors;

/// What is known of the type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// A literal text, NULL, or a parameter: the context decides.
    Unknown,
    /// A type of values.
    Of(SqlType),
    /// A row: the names and types of its fields.
    Row(Vec<(String, Type)>),
}

impl Type {
    /// How messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Unknown => "unknown".to_owned(),
            Self::Of(sql_type) => sql_type.without_modifier().to_string(),
            Self::Row(_) => "record".to_owned(),
        }
    }

    pub(super) const fn sql_type(&self) -> Option<&SqlType> {
        match self {
            Self::Of(sql_type) => Some(sql_type),
            Self::Unknown | Self::Row(_) => None,
        }
    }
}

/// An expression with its type.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// The expression. That of an unknown value is a text literal, NULL, or a parameter without a type.
    pub(super) expr: Expr,
    /// Its type.
    pub(super) of: Type,
    /// The fields of a row that was made of them; those of other rows are taken out of it.
    fields: Vec<Self>,
    /// Whether it is a row that is not written as one: a relation's.
    is_record: bool,
}

impl Value {
    /// A value of type `sql_type`.
    pub(super) const fn new(expr: Expr, sql_type: SqlType) -> Self {
        Self {
            expr,
            of: Type::Of(sql_type),
            fields: Vec::new(),
            is_record: false,
        }
    }

    /// A value whose type the context decides.
    pub(super) const fn unknown(expr: Expr) -> Self {
        Self {
            expr,
            of: Type::Unknown,
            fields: Vec::new(),
            is_record: false,
        }
    }

    /// A value of type `of`.
    pub(super) const fn typed(expr: Expr, of: Type) -> Self {
        Self {
            expr,
            of,
            fields: Vec::new(),
            is_record: false,
        }
    }

    /// The row of these fields.
    pub(super) fn row(fields: Vec<(String, Self)>) -> Result<Self, Error> {
        let types = fields
            .iter()
            .map(|(name, value)| (name.clone(), value.of.clone()))
            .collect();
        let fields: Vec<Self> = fields.into_iter().map(|(_, value)| value).collect();
        let exprs = fields
            .iter()
            .map(|field| match &field.expr {
                Expr::Literal(ScalarValue::Null, _) => null(&SqlType::Text).expr,
                other => other.clone(),
            })
            .collect();
        Ok(Self {
            expr: call("struct", exprs)?,
            of: Type::Row(types),
            fields,
            is_record: false,
        })
    }

    /// The row of a relation with these columns.
    pub(super) fn record(columns: Vec<(String, Self)>) -> Result<Self, Error> {
        Ok(Self {
            is_record: true,
            ..Self::row(columns)?
        })
    }

    /// The fields of a row, with their names; `None` of anything else.
    pub(super) fn fields(&self) -> Result<Option<Vec<(String, Self)>>, Error> {
        let Type::Row(types) = &self.of else {
            return Ok(None);
        };
        if self.fields.len() == types.len() {
            let named = types
                .iter()
                .zip(&self.fields)
                .map(|((name, _), field)| (name.clone(), field.clone()));
            return Ok(Some(named.collect()));
        }
        types
            .iter()
            .enumerate()
            .map(|(index, (name, of))| {
                // So `struct` calls them.
                let key = ScalarValue::Utf8(Some(format!("c{index}")));
                let key = Expr::Literal(key, None);
                let field = call("get_field", vec![self.expr.clone(), key])?;
                let of = match of {
                    Type::Unknown => Type::Of(SqlType::Text),
                    known => known.clone(),
                };
                Ok((name.clone(), Self::typed(field, of)))
            })
            .collect::<Result<_, Error>>()
            .map(Some)
    }

    /// What functions are resolved by.
    pub(super) fn given(&self) -> Given {
        match &self.of {
            Type::Of(sql_type) => Given::Of(sql_type.clone()),
            Type::Unknown if self.is_null() => Given::Null,
            Type::Unknown | Type::Row(_) => Given::Unknown,
        }
    }

    /// Its type, if it is known and no row.
    pub(super) const fn sql_type(&self) -> Option<&SqlType> {
        self.of.sql_type()
    }

    pub(super) const fn is_unknown(&self) -> bool {
        matches!(self.of, Type::Unknown)
    }

    pub(super) const fn is_row(&self) -> bool {
        matches!(self.of, Type::Row(_))
    }

    /// Whether it is compared as one value, its NULLs among themselves being equal: a row that is not written as `(a, b)`.
    pub(super) fn is_record(&self) -> bool {
        match &self.of {
            Type::Row(types) => self.is_record || self.fields.len() != types.len(),
            Type::Unknown | Type::Of(_) => false,
        }
    }

    /// Whether it is the literal NULL.
    pub(super) const fn is_null(&self) -> bool {
        matches!(self.expr, Expr::Literal(ScalarValue::Null, _))
    }

    /// The text of a literal of unknown type or of type `text`.
    pub(super) fn literal_text(&self) -> Option<&str> {
        match (&self.expr, &self.of) {
            (
                Expr::Literal(ScalarValue::Utf8(Some(text)), _),
                Type::Unknown | Type::Of(SqlType::Text),
            ) => Some(text),
            _ => None,
        }
    }
}

/// The result of one of DataFusion's calls, with our error.
pub(super) fn made<T>(result: Result<T, DataFusionError>) -> Result<T, Error> {
    result.map_err(|error| planning_errors::from_datafusion(&error, ""))
}

/// The call of a scalar function that exists.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Result<Expr, Error> {
    let function = flowstone_functions::registry()
        .scalar(name)
        .ok_or_else(|| Error::internal(format!("no function {name}")))?;
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(
        function, args,
    )))
}

/// The metadata of a field of this type, if its Arrow type does not say it all.
pub(super) fn metadata_of(sql_type: &SqlType) -> Option<FieldMetadata> {
    let said = SqlType::from_arrow(&sql_type.to_arrow());
    (said.as_ref() != Ok(sql_type)).then(|| {
        FieldMetadata::new(BTreeMap::from([(
            TYPE_KEY.to_owned(),
            sql_type.to_string(),
        )]))
    })
}

/// A literal of type `sql_type`.
pub(super) fn literal(value: ScalarValue, sql_type: &SqlType) -> Value {
    Value::new(
        Expr::Literal(value, metadata_of(sql_type)),
        sql_type.clone(),
    )
}

/// NULL of type `sql_type`.
pub(super) fn null(sql_type: &SqlType) -> Value {
    let value = ScalarValue::try_from(&sql_type.to_arrow()).unwrap_or(ScalarValue::Null);
    literal(value, sql_type)
}

/// A text of type `text`.
pub(super) fn text(value: impl Into<String>) -> Value {
    literal(ScalarValue::Utf8(Some(value.into())), &SqlType::Text)
}

/// A text literal of no type.
pub(super) fn unknown_text(value: impl Into<String>) -> Value {
    Value::unknown(Expr::Literal(ScalarValue::Utf8(Some(value.into())), None))
}

/// A truth value.
pub(super) fn boolean(value: bool) -> Value {
    literal(ScalarValue::Boolean(Some(value)), &SqlType::Bool)
}

/// A value of type `integer`.
pub(super) fn int4(value: i32) -> Value {
    literal(ScalarValue::Int32(Some(value)), &SqlType::Int4)
}

/// A value of type `bigint`.
pub(super) fn int8(value: i64) -> Value {
    literal(ScalarValue::Int64(Some(value)), &SqlType::Int8)
}

/// Whether values of one type are values of the other as they are.
pub(super) fn is_relabelled(from: &SqlType, to: &SqlType) -> bool {
    use SqlType::{Array, Name, Oid, Reg, Text, VarChar};
    match (from, to) {
        (Text | VarChar(_) | Name, Text | VarChar(None)) => true,
        (Reg(_), Oid) => true,
        (Array(from), Array(to)) => from == to || is_relabelled(from, to),
        _ => false,
    }
}

/// `expr`, which is of type `sql_type`, as a column that says so: what DataFusion takes it for is corrected.
pub(super) fn told(expr: Expr, sql_type: &SqlType, schema: &DFSchema) -> Result<Expr, Error> {
    let (_, field) = made(expr.to_field(schema))?;
    let seen = SqlType::from_field(&field).ok();
    if seen.as_ref() == Some(sql_type) {
        return Ok(expr);
    }
    let stored = sql_type.to_arrow();
    match seen {
        Some(seen) if *field.data_type() == seen.to_arrow() && can_cast(&seen, sql_type) => {
            made(cast_expr(expr, &seen, sql_type))
        }
        // What values of no SQL type have: views of strings, other units of time.
        _ if *field.data_type() != stored => {
            let name = expr.schema_name().to_string();
            let target = std::sync::Arc::new(sql_type.to_field(&name, true));
            Ok(Expr::Cast(Cast::new_from_field(Box::new(expr), target)))
        }
        _ => Ok(expr),
    }
}

/// The operands joined by an associative operator, in their order, as a tree whose depth is the logarithm of their number; `None` without any.
pub(super) fn balanced(
    mut operands: Vec<Expr>,
    op: datafusion::logical_expr::Operator,
) -> Option<Expr> {
    use datafusion::logical_expr::BinaryExpr;
    while operands.len() > 1 {
        let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
        let mut items = operands.into_iter();
        while let Some(left) = items.next() {
            pairs.push(match items.next() {
                Some(right) => {
                    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
                }
                None => left,
            });
        }
        operands = pairs;
    }
    operands.pop()
}

/// The value of an expression that asks for nothing, in a time zone; `None` if it asks for something.
///
/// # Errors
/// If its evaluation fails.
pub(super) fn constant(expr: Expr, time_zone: &TimeZone) -> Result<Option<ScalarValue>, Error> {
    if let Expr::Literal(value, _) = expr {
        return Ok(Some(value));
    }
    let mut asks = false;
    made(expr.apply(|part| {
        asks |= part.is_volatile_node()
            || matches!(
                part,
                Expr::Column(_) | Expr::OuterReferenceColumn(..) | Expr::Placeholder(_)
            );
        Ok(if asks {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    }))?;
    if asks {
        return Ok(None);
    }
    let schema = DFSchema::empty();
    let simplifier = ExprSimplifier::new(SimplifyContext::default());
    let coerced = made(simplifier.coerce(expr, &schema))?;
    let zoned = made(expr_in_zone(coerced, &schema, time_zone))?;
    match made(simplifier.simplify(zoned))? {
        Expr::Literal(value, _) => Ok(Some(value)),
        _ => Ok(None),
    }
}
