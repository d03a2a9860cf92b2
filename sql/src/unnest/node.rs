//! The dependent join: a join whose right side is run for every row of the left.
//!
//! Owns the node and its columns. Must not know how it is removed.
//!
//! Invariants. What the right side asks for is an `Expr::OuterReferenceColumn`, `on` refers to both sides by `Expr::Column`. The columns of the left come
//! first, as they are.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, DataFusionError, Result, TableReference, internal_err,
};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNodeCore,
};

/// What becomes of the rows that the right side has for a row of the left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Hash)]
pub(crate) enum DependentKind {
    /// Each beside it: `CROSS JOIN LATERAL`, `JOIN LATERAL … ON`.
    Inner,
    /// The same, and NULLs if there are none.
    Left,
    /// One more column: whether there is a row for which `on` is true; NULL if there is none, but one for which it is unknown. Without `on` never NULL.
    Mark {
        /// The column, of type bool.
        column: Column,
    },
    /// Two more columns: a value, and whether there would have been several.
    Single {
        /// The first column of the one row there is; NULL if there is none. If there are several, one of theirs.
        value: Column,
        /// Whether there is more than one row; never NULL.
        several: Column,
    },
}

/// A join whose right side asks for columns of the left.
#[derive(Clone, Debug)]
pub(crate) struct DependentJoin {
    pub(crate) left: LogicalPlan,
    pub(crate) right: LogicalPlan,
    pub(crate) kind: DependentKind,
    pub(super) on: Option<Expr>,
    pub(super) schema: DFSchemaRef,
}

/// Makes a dependent join.
///
/// # Errors
/// If the columns of both sides have names in common, or a value is asked of a side without columns.
pub(crate) fn dependent_join(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: DependentKind,
    on: Option<Expr>,
) -> Result<LogicalPlan> {
    DependentJoin::try_new(left, right, kind, on).map(|join| {
        LogicalPlan::Extension(Extension {
            node: Arc::new(join),
        })
    })
}

/// The dependent join that a node is.
pub(crate) fn as_dependent(plan: &LogicalPlan) -> Option<&DependentJoin> {
    match plan {
        LogicalPlan::Extension(extension) => {
            extension.node.as_any().downcast_ref::<DependentJoin>()
        }
        _ => None,
    }
}

impl DependentJoin {
    pub(super) fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        kind: DependentKind,
        on: Option<Expr>,
    ) -> Result<Self> {
        let schema = schema_of(&left, &right, &kind, on.as_ref())?;
        Ok(Self {
            left,
            right,
            kind,
            on,
            schema: Arc::new(schema),
        })
    }
}

fn schema_of(
    left: &LogicalPlan,
    right: &LogicalPlan,
    kind: &DependentKind,
    on: Option<&Expr>,
) -> Result<DFSchema> {
    let mut fields = fields_of(left);
    match kind {
        DependentKind::Inner => fields.extend(fields_of(right)),
        DependentKind::Left => fields.extend(fields_of(right).into_iter().map(|(table, field)| {
            let field = field.as_ref().clone().with_nullable(true);
            (table, Arc::new(field))
        })),
        DependentKind::Mark { column } => {
            let nullable = match on {
                None => false,
                Some(on) => {
                    let mut both = fields.clone();
                    both.extend(fields_of(right));
                    let both = DFSchema::new_with_metadata(both, left.schema().metadata().clone())?;
                    on.nullable(&both).unwrap_or(true)
                }
            };
            fields.push(named(column, &Field::new("", DataType::Boolean, nullable)));
        }
        DependentKind::Single { value, several } => {
            let Some(first) = right.schema().fields().first() else {
                return internal_err!("a subquery in place of a value has no column");
            };
            let first = first.as_ref().clone().with_nullable(true);
            fields.push(named(value, &first));
            fields.push(named(several, &Field::new("", DataType::Boolean, false)));
        }
    }
    DFSchema::new_with_metadata(fields, left.schema().metadata().clone())
}

fn fields_of(plan: &LogicalPlan) -> Vec<(Option<TableReference>, FieldRef)> {
    plan.schema()
        .iter()
        .map(|(table, field)| (table.cloned(), Arc::clone(field)))
        .collect()
}

fn named(column: &Column, field: &Field) -> (Option<TableReference>, FieldRef) {
    let field = field.clone().with_name(column.name.clone());
    (column.relation.clone(), Arc::new(field))
}

impl PartialEq for DependentJoin {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.on == other.on
            && self.left == other.left
            && self.right == other.right
    }
}

impl Eq for DependentJoin {}

impl PartialOrd for DependentJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let of = |join: &Self| (join.kind.clone(), join.on.clone());
        match of(self).partial_cmp(&of(other))? {
            Ordering::Equal => match self.left.partial_cmp(&other.left)? {
                Ordering::Equal => self.right.partial_cmp(&other.right),
                unequal => Some(unequal),
            },
            unequal => Some(unequal),
        }
    }
}

impl Hash for DependentJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        self.on.hash(state);
        self.left.hash(state);
        self.right.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for DependentJoin {
    fn name(&self) -> &'static str {
        "DependentJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.on.iter().cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            DependentKind::Inner => "inner",
            DependentKind::Left => "left",
            DependentKind::Mark { .. } => "mark",
            DependentKind::Single { .. } => "single",
        };
        write!(f, "DependentJoin: {kind}")?;
        match &self.on {
            Some(on) => write!(f, " on {on}"),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let on = exprs.next();
        if exprs.next().is_some() || on.is_some() != self.on.is_some() {
            return internal_err!("a dependent join has one condition at most");
        }
        let [left, right]: [LogicalPlan; 2] = inputs
            .try_into()
            .map_err(|_| DataFusionError::Internal("a dependent join has two inputs".to_owned()))?;
        Self::try_new(left, right, self.kind.clone(), on)
    }
}
