//! Set operations, VALUES and TABLE.
//!
//! Owns the types that columns of branches and rows have in common, and the plans of EXCEPT and INTERSECT with their multiplicities. Called by [`super::select`].

use std::collections::HashMap;
use std::sync::Arc;

use arrow_schema::{DataType, Field};
use datafusion::common::{DFSchema, JoinType, NullEquality, ScalarValue};
use datafusion::logical_expr::expr::{Cast, WindowFunction};
use datafusion::logical_expr::{
    Distinct, Expr, Join, JoinConstraint, LogicalPlan, SubqueryAlias, Union, Values as ValuesNode,
    WindowFrame, WindowFunctionDefinition,
};
use flowstone_functions::resolve::Given;
use flowstone_types::SqlType;
use itertools::Itertools as _;
use sqlparser::ast::{self, SetExpr, SetOperator, SetQuantifier};

use super::expr::span_of;
use super::scope::Frame;
use super::series::one_row;
use super::subquery::{Pending, joined};
use super::value::{Type, Value, constant, made, told};
use super::window::over_windows;
use super::{Binder, Clause, Output, OutputColumn, project};
use crate::error::{Error, ErrorKind};

/// How an operation is called in messages.
const fn name_of(op: SetOperator) -> &'static str {
    match op {
        SetOperator::Union => "UNION",
        SetOperator::Except | SetOperator::Minus => "EXCEPT",
        SetOperator::Intersect => "INTERSECT",
    }
}

/// The rows of all inputs. Their columns are of the same SQL types; arrays may call their items differently, which coercion settles.
fn united(inputs: Vec<Arc<LogicalPlan>>) -> Result<LogicalPlan, Error> {
    made(Union::try_new_with_loose_types(inputs)).map(LogicalPlan::Union)
}

/// The branches of a union that is a branch itself, of which duplicates are left where they go in the end; any other plan as it is.
fn branches(plan: LogicalPlan, all: bool) -> Vec<Arc<LogicalPlan>> {
    if let LogicalPlan::SubqueryAlias(alias) = &plan {
        match alias.input.as_ref() {
            LogicalPlan::Union(union) => return union.inputs.clone(),
            LogicalPlan::Distinct(Distinct::All(input)) if !all => {
                if let LogicalPlan::Union(union) = input.as_ref() {
                    return union.inputs.clone();
                }
            }
            _ => {}
        }
    }
    vec![Arc::new(plan)]
}

/// What stands to the left of an operation.
enum Left {
    Rows(Output),
    /// A union that may get further branches: it is made when it has all, so that many are no more work than few.
    Union(Branches),
}

impl Left {
    fn columns(&self) -> &[OutputColumn] {
        match self {
            Self::Rows(output) => &output.columns,
            Self::Union(branches) => &branches.columns,
        }
    }
}

/// Branches of a union, whose columns are of the same types.
struct Branches {
    inputs: Vec<Arc<LogicalPlan>>,
    all: bool,
    /// The columns of the first.
    columns: Vec<OutputColumn>,
}

impl Branches {
    fn new(left: Output, right: Output, all: bool) -> Self {
        let mut inputs = branches(left.plan, all);
        inputs.extend(branches(right.plan, all));
        Self {
            inputs,
            all,
            columns: left.columns,
        }
    }
}

impl OutputColumn {
    /// What the type of the column is resolved by.
    pub(super) fn given(&self) -> Given {
        match (&self.of, &self.constant) {
            (Type::Of(sql_type), _) => Given::Of(sql_type.clone()),
            (_, Some(Expr::Literal(ScalarValue::Null, _))) => Given::Null,
            _ => Given::Unknown,
        }
    }
}

impl Binder<'_> {
    /// An operand of a set operation, or a body that is no SELECT.
    pub(super) fn set_expr(&mut self, body: &SetExpr) -> Result<Output, Error> {
        // The left operands of operations one by one: they are as many as are written.
        let mut operations = Vec::new();
        let mut first = body;
        while let SetExpr::SetOperation {
            left,
            op,
            set_quantifier,
            right,
        } = first
        {
            operations.push((*op, *set_quantifier, &**right));
            first = left;
        }
        let output = match first {
            SetExpr::Select(select) => self.select(select, &[], None)?,
            SetExpr::Query(query) => self.query(query)?,
            SetExpr::Values(values) => self.values(values)?,
            SetExpr::Table(table) => self.table_command(table)?,
            SetExpr::SetOperation { .. } => {
                return Err(Error::internal("an operation is passed"));
            }
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                return Err(Error::unsupported(
                    "data-modifying statements inside of queries are not supported",
                ));
            }
        };
        let mut left = Left::Rows(output);
        for (op, quantifier, right) in operations.into_iter().rev() {
            let right = self.set_expr(right)?;
            left = self.operation(op, quantifier, left, right)?;
        }
        self.finished(left)
    }

    fn operation(
        &mut self,
        op: SetOperator,
        quantifier: SetQuantifier,
        left: Left,
        right: Output,
    ) -> Result<Left, Error> {
        let all = match quantifier {
            SetQuantifier::All => true,
            SetQuantifier::None | SetQuantifier::Distinct => false,
            _ => return Err(Error::unsupported("BY NAME is not supported")),
        };
        let targets = Self::types_of(name_of(op), left.columns(), &right.columns)?;
        let has_types = |columns: &[OutputColumn]| {
            let mut pairs = columns.iter().zip(&targets);
            pairs.all(|(column, target)| column.of == *target)
        };
        match (op, left) {
            (SetOperator::Union, Left::Union(mut union))
                if union.all == all && has_types(&union.columns) =>
            {
                let right = self.as_types(right, &targets)?;
                union.inputs.extend(branches(right.plan, all));
                Ok(Left::Union(union))
            }
            (op, left) => {
                let left = self.finished(left)?;
                let left = self.as_types(left, &targets)?;
                let right = self.as_types(right, &targets)?;
                match op {
                    SetOperator::Union => Ok(Left::Union(Branches::new(left, right, all))),
                    SetOperator::Except | SetOperator::Minus => self
                        .matched(left, right, JoinType::LeftAnti, all)
                        .map(Left::Rows),
                    SetOperator::Intersect => self
                        .matched(left, right, JoinType::LeftSemi, all)
                        .map(Left::Rows),
                }
            }
        }
    }

    /// The rows of what stands to the left, if nothing is added to it.
    fn finished(&mut self, left: Left) -> Result<Output, Error> {
        let Branches {
            inputs,
            all,
            columns,
        } = match left {
            Left::Rows(output) => return Ok(output),
            Left::Union(branches) => branches,
        };
        let mut plan = united(inputs)?;
        if !all {
            plan = LogicalPlan::Distinct(Distinct::All(Arc::new(plan)));
        }
        self.renamed(plan, columns)
    }

    /// The types that the columns of two branches have in common.
    fn types_of(
        construct: &str,
        left: &[OutputColumn],
        right: &[OutputColumn],
    ) -> Result<Vec<Type>, Error> {
        if left.len() != right.len() {
            return Err(Error::syntax(format!(
                "each {construct} query must have the same number of columns"
            )));
        }
        let mut targets = Vec::with_capacity(left.len());
        for (left, right) in left.iter().zip(right) {
            targets.push(match (&left.of, &right.of) {
                (Type::Row(_), _) | (_, Type::Row(_)) if left.of == right.of => left.of.clone(),
                (Type::Row(_), _) | (_, Type::Row(_)) => {
                    return Err(Error::new(
                        ErrorKind::DatatypeMismatch,
                        format!(
                            "{construct} types {} and {} cannot be matched",
                            left.of.name(),
                            right.of.name()
                        ),
                    ));
                }
                _ => Type::Of(Self::common(construct, [left.given(), right.given()])?),
            });
        }
        Ok(targets)
    }

    /// The rows of both.
    pub(super) fn union(
        &mut self,
        left: Output,
        right: Output,
        all: bool,
    ) -> Result<Output, Error> {
        let targets = Self::types_of("UNION", &left.columns, &right.columns)?;
        let left = self.as_types(left, &targets)?;
        let right = self.as_types(right, &targets)?;
        self.finished(Left::Union(Branches::new(left, right, all)))
    }

    /// The plan with a qualifier of its own, its columns being what these are.
    pub(super) fn renamed(
        &mut self,
        plan: LogicalPlan,
        columns: Vec<OutputColumn>,
    ) -> Result<Output, Error> {
        let alias = self.fresh();
        let plan = made(SubqueryAlias::try_new(Arc::new(plan), alias))?;
        let plan = LogicalPlan::SubqueryAlias(plan);
        let columns = columns
            .into_iter()
            .zip_eq(plan.schema().columns())
            .map(|(known, column)| OutputColumn { column, ..known })
            .collect();
        Ok(Output { plan, columns })
    }

    /// The rows of the left that have an equal one on the right, or none. With ALL equal rows are numbered, and the numbered ones, which are distinct, are matched.
    fn matched(
        &mut self,
        left: Output,
        right: Output,
        join_type: JoinType,
        all: bool,
    ) -> Result<Output, Error> {
        let shown: Vec<Expr> = left
            .columns
            .iter()
            .map(|column| Expr::Column(column.column.clone()))
            .collect();
        let (left_plan, right_plan) = if all {
            (self.numbered(left.plan)?, self.numbered(right.plan)?)
        } else {
            let distinct = LogicalPlan::Distinct(Distinct::All(Arc::new(left.plan)));
            (distinct, right.plan)
        };
        let on = left_plan
            .schema()
            .columns()
            .into_iter()
            .zip_eq(right_plan.schema().columns())
            .map(|(left, right)| (Expr::Column(left), Expr::Column(right)))
            .collect();
        let join = made(Join::try_new(
            Arc::new(left_plan),
            Arc::new(right_plan),
            on,
            None,
            join_type,
            JoinConstraint::On,
            NullEquality::NullEqualsNull,
            false,
        ))?;
        Ok(Output {
            plan: project(LogicalPlan::Join(join), shown)?,
            columns: left.columns,
        })
    }

    /// The rows of a plan, and as last column the number of the row among equal ones.
    fn numbered(&mut self, plan: LogicalPlan) -> Result<LogicalPlan, Error> {
        let function = flowstone_functions::registry()
            .window("row_number")
            .ok_or_else(|| Error::internal("no function row_number"))?;
        let columns: Vec<Expr> = plan
            .schema()
            .columns()
            .into_iter()
            .map(Expr::Column)
            .collect();
        let mut window =
            WindowFunction::new(WindowFunctionDefinition::WindowUDF(function), Vec::new());
        window.params.order_by = columns
            .first()
            .map(|column| column.clone().sort(true, false))
            .into_iter()
            .collect();
        window.params.partition_by = columns;
        window.params.window_frame = WindowFrame::new(Some(true));
        let number = self.fresh_column("number");
        over_windows(plan, vec![(Expr::WindowFunction(Box::new(window)), number)])
    }

    /// `TABLE name`
    fn table_command(&mut self, table: &ast::Table) -> Result<Output, Error> {
        let parts: Vec<String> = table
            .schema_name
            .iter()
            .chain(&table.table_name)
            .cloned()
            .collect();
        self.frames.push(Frame::new(Clause::From));
        let bound = self
            .named_relation(&parts, None, sqlparser::tokenizer::Span::empty())
            .map(|plan| (plan, self.everything()));
        self.frames.pop();
        let (plan, columns) = bound?;
        let columns = columns
            .into_iter()
            .filter_map(|column| match column.expr {
                Expr::Column(expr) => Some(OutputColumn {
                    name: column.name,
                    column: expr,
                    of: column.of,
                    constant: None,
                }),
                _ => None,
            })
            .collect();
        self.under_own_names(Output { plan, columns })
    }

    /// `VALUES (…), (…)`
    fn values(&mut self, values: &ast::Values) -> Result<Output, Error> {
        let mut rows = Vec::with_capacity(values.rows.len());
        let width = values.rows.first().map_or(0, |row| row.content.len());
        for row in &values.rows {
            if row.content.len() != width {
                let error = Error::syntax("VALUES lists must all be the same length");
                let span = row.content.first().map(span_of);
                return Err(match span {
                    Some(span) => self.placed(error, span),
                    None => error,
                });
            }
            rows.push(self.value_row(&row.content)?);
        }
        let mut types = Vec::with_capacity(width);
        for column in 0..width {
            let cells = rows.iter().filter_map(|row| row.values.get(column));
            types.push(Self::common("VALUES", cells.map(Value::given))?);
        }
        for row in &mut rows {
            let cells = std::mem::take(&mut row.values);
            row.values = cells
                .into_iter()
                .zip(&types)
                .map(|(cell, of)| self.coerce(cell, of))
                .collect::<Result<_, _>>()?;
        }
        let names: Vec<String> = (1..=width)
            .map(|number| format!("column{number}"))
            .collect();
        self.rows(rows, &names, &types)
    }

    /// Binds the cells of a row in a frame of its own.
    pub(super) fn value_row(&mut self, cells: &[ast::Expr]) -> Result<Row, Error> {
        self.frames.push(Frame::new(Clause::Values));
        let values = cells
            .iter()
            .map(|cell| {
                if super::write::is_default(cell) {
                    let error = Error::syntax("DEFAULT is not allowed in this context");
                    return Err(self.placed(error, span_of(cell)));
                }
                self.scalar(cell)
            })
            .collect::<Result<Vec<_>, _>>();
        let frame = self.frames.pop();
        Ok(Row {
            values: values?,
            pending: frame.map(|frame| frame.pending).unwrap_or_default(),
        })
    }

    /// Rows whose values are of these types.
    pub(super) fn rows(
        &mut self,
        rows: Vec<Row>,
        names: &[String],
        types: &[SqlType],
    ) -> Result<Output, Error> {
        let is_constant = |row: &Row| {
            row.pending.is_empty()
                && row
                    .values
                    .iter()
                    .all(|value| !value.expr.any_column_refs() && !value.expr.contains_outer())
        };
        let columns: Vec<OutputColumn> = names
            .iter()
            .zip(types)
            .map(|(name, of)| OutputColumn {
                name: name.clone(),
                column: datafusion::common::Column::new_unqualified(name),
                of: Type::Of(of.clone()),
                constant: None,
            })
            .collect();
        if types.is_empty() {
            return Err(Error::unsupported(
                "VALUES without columns are not supported",
            ));
        }
        if rows.iter().all(is_constant) && !rows.is_empty() {
            let plan = self.constant_rows(rows, types)?;
            let schema = Arc::clone(plan.schema());
            let qualifier = self.fresh();
            let exprs = schema
                .columns()
                .into_iter()
                .zip(types)
                .zip(names)
                .map(|((column, of), name)| {
                    let expr = told(Expr::Column(column), of, &schema)?;
                    Ok(expr.alias_qualified(Some(qualifier.clone()), name))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            let plan = project(plan, exprs)?;
            let columns = columns
                .into_iter()
                .zip_eq(plan.schema().columns())
                .map(|(known, column)| OutputColumn { column, ..known })
                .collect();
            return Ok(Output { plan, columns });
        }
        let mut inputs = Vec::with_capacity(rows.len());
        for row in rows {
            let plan = joined(one_row(), row.pending)?;
            let schema = Arc::clone(plan.schema());
            let qualifier = self.fresh();
            let exprs = row
                .values
                .into_iter()
                .zip(types)
                .zip(names)
                .map(|((value, of), name)| {
                    let expr = told(value.expr, of, &schema)?;
                    Ok(expr.alias_qualified(Some(qualifier.clone()), name))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            inputs.push(Arc::new(project(plan, exprs)?));
        }
        let plan = match inputs.len() {
            1 => inputs.pop().map_or_else(one_row, Arc::unwrap_or_clone),
            _ => united(inputs)?,
        };
        self.renamed(plan, columns)
    }

    /// Rows of constants and parameters, their columns called `column1`, `column2`, …: of a relation of values that is shipped nothing is kept but its cells. These are
    /// plain values.
    fn constant_rows(&mut self, rows: Vec<Row>, types: &[SqlType]) -> Result<LogicalPlan, Error> {
        let mut cells: Vec<Vec<Expr>> = Vec::with_capacity(rows.len());
        for row in rows {
            let row = row
                .values
                .into_iter()
                .zip(types)
                .map(
                    |(value, of)| match constant(value.expr.clone(), self.ctx.time_zone)? {
                        Some(value) => Ok(Expr::Literal(stored_as(value, &of.to_arrow()), None)),
                        None => Ok(Expr::Cast(Cast::new(Box::new(value.expr), of.to_arrow()))),
                    },
                )
                .collect::<Result<Vec<_>, Error>>()?;
            cells.push(row);
        }
        let mut fields = Vec::with_capacity(types.len());
        for (index, of) in types.iter().enumerate() {
            let known = cells.iter().find_map(|row| match row.get(index) {
                Some(Expr::Literal(value, _)) if !value.is_null() => Some(value.data_type()),
                _ => None,
            });
            let data_type = known.unwrap_or_else(|| of.to_arrow());
            for cell in cells.iter_mut().filter_map(|row| row.get_mut(index)) {
                if let Expr::Literal(value, _) = cell
                    && value.is_null()
                {
                    *value = made(ScalarValue::try_from(&data_type))?;
                }
            }
            let name = format!("column{}", index + 1);
            fields.push((None, Arc::new(Field::new(name, data_type, true))));
        }
        let schema = made(DFSchema::new_with_metadata(fields, HashMap::new()))?;
        Ok(LogicalPlan::Values(ValuesNode {
            schema: Arc::new(schema),
            values: cells,
        }))
    }
}

/// A value as one of a type that differs at most in what items of arrays are called, or in the unit of a time.
fn stored_as(value: ScalarValue, data_type: &DataType) -> ScalarValue {
    if value.is_null() || value.data_type() == *data_type {
        return value;
    }
    value.cast_to(data_type).unwrap_or(value)
}

/// A row of values, and the subqueries in it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) values: Vec<Value>,
    pub(super) pending: Vec<Pending>,
}
