//! Aggregates.
//!
//! Owns which query an aggregate belongs to, what may stand in its call, and the column that it becomes. Must not know how it is computed. Called by [`super::expr`]
//! for each call.
//!
//! Invariants. Arguments of aggregates are expressions beneath the grouping.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort};
use flowstone_functions::resolve::{is_ordered_set, resolve_aggregate};
use flowstone_types::SqlType;
use sqlparser::ast::{self, DuplicateTreatment, FunctionArgumentClause, FunctionArguments};

use super::expr::{Arguments, unresolved};
use super::grouping::{Aggregated, grouping_error};
use super::value::{Value, made};
use super::{Binder, Clause};
use crate::error::{Error, ErrorKind};

impl Binder<'_> {
    /// A call of an aggregate.
    pub(super) fn aggregate_call(
        &mut self,
        name: &str,
        function: &ast::Function,
        arguments: &Arguments<'_>,
    ) -> Result<Value, Error> {
        if name == "grouping" {
            return self.grouping_call(arguments);
        }
        let here = self.frames.len().saturating_sub(1);
        let frame = self.frame()?;
        let inside = frame.inside.replace(Clause::Aggregate);
        let pending = std::mem::take(&mut frame.pending);
        let (series, windows) = (frame.series.len(), frame.windows.len());
        let asked: Vec<usize> = self
            .frames
            .iter()
            .map(|frame| frame.grouping.asked.borrow().len())
            .collect();
        let collected = self.collected(name, function, arguments);
        let frame = self.frame()?;
        frame.inside = inside;
        let below = std::mem::replace(&mut frame.pending, pending);
        frame.grouping.below.extend(below);
        if frame.series.len() > series {
            return Err(Error::unsupported(
                "aggregate function calls cannot contain set-returning function calls",
            )
            .with_hint(
                "You might be able to move the set-returning function into a LATERAL FROM item.",
            ));
        }
        if frame.windows.len() > windows {
            return Err(grouping_error(
                "aggregate function calls cannot contain window function calls",
            ));
        }
        let (nodes, finish) = collected?;
        let home = self.home_of(&nodes)?;
        // One of a query around is a value here.
        match inside {
            Some(Clause::Aggregate) if home == here => {
                return Err(grouping_error("aggregate function calls cannot be nested"));
            }
            Some(Clause::Filter) if home == here => {
                return Err(grouping_error(
                    "aggregate functions are not allowed in FILTER",
                ));
            }
            _ => {}
        }
        // What it asks of the rows that it is of is beneath their grouping.
        if let (Some(frame), Some(before)) = (self.frames.get(home), asked.get(home)) {
            frame.grouping.asked.borrow_mut().truncate(*before);
        }
        self.check_home(home)?;
        let mut columns = Vec::with_capacity(nodes.len());
        for node in nodes {
            columns.push(self.aggregate_column(home, node)?);
        }
        finish.value(columns)
    }

    /// Binds the parts of a call: the aggregates that compute it, and how its value is made of them.
    fn collected(
        &mut self,
        name: &str,
        function: &ast::Function,
        arguments: &Arguments<'_>,
    ) -> Result<(Vec<Expr>, Finish), Error> {
        let mut order: Vec<Sort> = Vec::new();
        let mut distinct = false;
        let mut nulls = None;
        if let FunctionArguments::List(list) = &function.args {
            distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
            for clause in &list.clauses {
                match clause {
                    FunctionArgumentClause::OrderBy(items) => order = self.sorts(items)?,
                    FunctionArgumentClause::IgnoreOrRespectNulls(treatment) => {
                        nulls = Some(null_treatment(*treatment));
                    }
                    other => {
                        return Err(Error::unsupported(format!(
                            "{other} in a call is not supported"
                        )));
                    }
                }
            }
        }
        within_group(name, function, distinct)?;
        let mut values = Vec::new();
        if !function.within_group.is_empty() {
            for item in &function.within_group {
                values.push(self.scalar(&item.expr)?);
            }
            order = self.sorts(&function.within_group)?;
        }
        if let Arguments::Listed(exprs) = arguments {
            for expr in exprs {
                values.push(self.expr(expr)?);
            }
            if exprs.is_empty() && name == "count" && function.within_group.is_empty() {
                return Err(Error::new(
                    ErrorKind::WrongObjectType,
                    "count(*) must be used to call a parameterless aggregate function",
                ));
            }
        }
        let is_argument = |sort: &Sort| values.iter().any(|value| value.expr == sort.expr);
        if distinct && !order.iter().all(is_argument) {
            return Err(Error::new(
                ErrorKind::InvalidColumnReference,
                "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
            ));
        }
        let filter = match &function.filter {
            Some(condition) => {
                self.frame()?.inside = Some(Clause::Filter);
                let condition = self.condition("FILTER", condition)?;
                self.frame()?.inside = Some(Clause::Aggregate);
                Some(Box::new(condition))
            }
            None => None,
        };
        let (mut nodes, finish) = self.resolved_aggregate(name, values)?;
        // What is collected without duplicates comes in order.
        let ordered_anyway = distinct
            && order.is_empty()
            && matches!(name, "array_agg" | "string_agg" | "jsonb_agg" | "json_agg");
        for node in &mut nodes {
            if let Expr::AggregateFunction(AggregateFunction { params, .. }) = node {
                params.distinct = distinct;
                params.filter.clone_from(&filter);
                params.order_by.clone_from(&order);
                params.null_treatment = nulls;
                if ordered_anyway && let Some(item) = params.args.first() {
                    params.order_by = vec![Sort::new(item.clone(), true, false)];
                }
            }
        }
        Ok((nodes, finish))
    }

    fn resolved_aggregate(
        &mut self,
        name: &str,
        values: Vec<Value>,
    ) -> Result<(Vec<Expr>, Finish), Error> {
        // Rows are counted as they are, and documents are made of them.
        if let ("count", [row]) = (name, values.as_slice())
            && row.is_row()
        {
            let count = flowstone_functions::registry()
                .aggregate("count")
                .ok_or_else(|| Error::internal("no function count"))?;
            let node = count.call(vec![row.expr.clone()]);
            return Ok((vec![node], Finish::Itself(SqlType::Int8)));
        }
        let mut arguments = Vec::with_capacity(values.len());
        for value in values {
            arguments.push(if !value.is_row() {
                value
            } else if name.starts_with("json") {
                self.document(value)?
            } else {
                return Err(super::assign::row_as_value());
            });
        }
        let given: Vec<_> = arguments.iter().map(Value::given).collect();
        let resolved = resolve_aggregate(name, &given).map_err(|error| unresolved(&error))?;
        let mut exprs = Vec::with_capacity(arguments.len());
        for (value, to) in arguments.into_iter().zip(&resolved.arguments) {
            exprs.push(self.argument(value, to)?.expr);
        }
        let nodes = made(resolved.nodes(exprs))?;
        let result = resolved.result.clone();
        Ok((
            nodes,
            Finish::By(Box::new(move |columns| resolved.finish(columns)), result),
        ))
    }

    /// The frame whose rows an aggregate is of: the innermost one of those whose columns it names, or the one it stands in if it names none.
    fn home_of(&self, nodes: &[Expr]) -> Result<usize, Error> {
        let here = self.frames.len().saturating_sub(1);
        let mut home: Option<usize> = None;
        for node in nodes {
            let visited = node.apply(|part| {
                let frame = match part {
                    Expr::Column(_) => Some(here),
                    Expr::OuterReferenceColumn(_, column) => {
                        self.known.get(column).map(|known| known.frame)
                    }
                    _ => None,
                };
                home = home.max(frame);
                Ok(TreeNodeRecursion::Continue)
            });
            made(visited)?;
        }
        Ok(home.unwrap_or(here))
    }

    fn check_home(&self, home: usize) -> Result<(), Error> {
        let Some(frame) = self.frames.get(home) else {
            return Ok(());
        };
        let clause = match frame.inside {
            Some(Clause::Window) | None => frame.clause,
            Some(inside) => inside,
        };
        if clause.takes_aggregates() {
            return Ok(());
        }
        Err(grouping_error(format!(
            "aggregate functions are not allowed in {}",
            clause.place()
        )))
    }

    /// The column that an aggregate of a frame becomes, as it is seen from here.
    fn aggregate_column(&mut self, home: usize, node: Expr) -> Result<Expr, Error> {
        let here = self.frames.len().saturating_sub(1);
        let node = if home == here {
            node
        } else {
            self.inward(node, home)?
        };
        let frame = self
            .frames
            .get(home)
            .ok_or_else(|| Error::internal("an aggregate of no query"))?;
        let same = frame
            .grouping
            .aggregates
            .iter()
            .find(|known| known.call == node && !node.is_volatile())
            .map(|known| known.column.clone());
        let column = match same {
            Some(column) => column,
            None => {
                // No other column has this name: where parts of aggregates are the same, DataFusion takes their qualifiers away, and by names it looks
                // for what a limit is ordered by.
                let column = self.fresh_name("aggregate");
                let field = self.field_of(&node)?;
                self.know_in(home, column.clone(), field);
                if let Some(frame) = self.frames.get_mut(home) {
                    frame.grouping.aggregates.push(Aggregated {
                        call: node,
                        column: column.clone(),
                    });
                }
                column
            }
        };
        let column = Expr::Column(column);
        if home == here {
            Ok(column)
        } else {
            self.outward(column)
        }
    }

    /// What is asked of a frame around as that frame has it.
    fn inward(&self, expr: Expr, home: usize) -> Result<Expr, Error> {
        let inward = expr.transform(|part| match part {
            Expr::OuterReferenceColumn(field, column) => {
                let of_home = self
                    .known
                    .get(&column)
                    .is_some_and(|known| known.frame == home);
                if of_home {
                    Ok(Transformed::yes(Expr::Column(column)))
                } else {
                    Ok(Transformed::no(Expr::OuterReferenceColumn(field, column)))
                }
            }
            other => Ok(Transformed::no(other)),
        });
        made(inward).map(|transformed| transformed.data)
    }

    /// `GROUPING(a, b)`
    fn grouping_call(&mut self, arguments: &Arguments<'_>) -> Result<Value, Error> {
        let Arguments::Listed(exprs) = arguments else {
            return Err(Error::syntax("GROUPING takes expressions"));
        };
        let mut columns = Vec::with_capacity(exprs.len());
        for expr in exprs {
            let value = self.expr(expr)?;
            let groups = self.frame()?.grouping.groups.iter();
            let mut found = groups.filter(|group| {
                group.expr == value.expr || Expr::Column(group.column.clone()) == value.expr
            });
            let Some(group) = found.next() else {
                return Err(grouping_error(
                    "arguments to GROUPING must be grouping expressions of the associated query level",
                ));
            };
            columns.push(Expr::Column(group.column.clone()));
        }
        let here = self.frames.len().saturating_sub(1);
        self.check_home(here)?;
        let grouping = flowstone_functions::registry()
            .aggregate("grouping")
            .ok_or_else(|| Error::internal("no function grouping"))?;
        let column = self.aggregate_column(here, grouping.call(columns))?;
        Ok(Value::new(column, SqlType::Int4))
    }
}

/// Whether an order of values stands where one has to, and nowhere else.
fn within_group(name: &str, function: &ast::Function, distinct: bool) -> Result<(), Error> {
    let wrong = |message: String| Err(Error::new(ErrorKind::WrongObjectType, message));
    match (is_ordered_set(name), function.within_group.len()) {
        (true, 0) => wrong(format!(
            "WITHIN GROUP is required for ordered-set aggregate {name}"
        )),
        (false, 0) => Ok(()),
        (_, _) if distinct => Err(Error::syntax("cannot use DISTINCT with WITHIN GROUP")),
        (false, _) => wrong(format!(
            "{name} is not an ordered-set aggregate, so it cannot have WITHIN GROUP"
        )),
        (true, _) => Ok(()),
    }
}

/// How the value of a call is made of the columns of its aggregates.
enum Finish {
    /// It is the only one.
    Itself(SqlType),
    /// `functions` says how.
    By(
        Box<dyn Fn(Vec<Expr>) -> datafusion::common::Result<Expr>>,
        SqlType,
    ),
}

impl Finish {
    fn value(&self, mut columns: Vec<Expr>) -> Result<Value, Error> {
        match self {
            Self::Itself(of) => {
                let column = columns.pop();
                let column = column.ok_or_else(|| Error::internal("an aggregate of nothing"))?;
                Ok(Value::new(column, of.clone()))
            }
            Self::By(finish, of) => Ok(Value::new(made(finish(columns))?, of.clone())),
        }
    }
}

/// Whether NULLs are passed over, as DataFusion says it.
pub(super) fn null_treatment(treatment: ast::NullTreatment) -> NullTreatment {
    match treatment {
        ast::NullTreatment::IgnoreNulls => NullTreatment::IgnoreNulls,
        ast::NullTreatment::RespectNulls => NullTreatment::RespectNulls,
    }
}
