//! Window functions and the windows they are over.
//!
//! Owns named windows and what may stand in a call with OVER. Bounds of frames are those of [`super::frame`]. Called by [`super::expr`] for each call and by
//! [`super::select`] for WINDOW.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, LogicalPlan, Window};
use flowstone_functions::resolve::resolve_window;
use flowstone_types::SqlType;
use sqlparser::ast::{
    self, FunctionArgumentClause, FunctionArguments, NamedWindowExpr, WindowType,
};

use super::aggregate::null_treatment;
use super::expr::{Arguments, unresolved};
use super::grouping::named;
use super::value::{Value, made};
use super::{Binder, Clause};
use crate::error::{Error, ErrorKind};
use crate::names::fold;

/// A window.
#[derive(Clone, Debug, Default)]
struct Spec {
    partition: Vec<Expr>,
    order: Vec<Sort>,
    /// The type of what it is ordered by first.
    first: Option<SqlType>,
    frame: Option<ast::WindowFrame>,
}

/// What makes the value of a call of the columns that its window functions became.
type Finish = Box<dyn Fn(Vec<Expr>) -> Result<Value, Error>>;

/// A window that has a name.
#[derive(Clone, Debug)]
pub(super) struct NamedWindow {
    name: String,
    spec: Spec,
}

fn windowing(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Windowing, message)
}

impl Binder<'_> {
    /// Binds WINDOW.
    pub(super) fn named_windows(
        &mut self,
        windows: &[ast::NamedWindowDefinition],
    ) -> Result<(), Error> {
        for ast::NamedWindowDefinition(ident, window) in windows {
            let name = fold(ident);
            let known = &self.frame()?.named_windows;
            if known.iter().any(|known| known.name == name) {
                let error = windowing(format!("window \"{name}\" is already defined"));
                return Err(self.placed(error, ident.span));
            }
            let spec = match window {
                NamedWindowExpr::NamedWindow(other) => self.named_window(other)?,
                NamedWindowExpr::WindowSpec(spec) => self.window_spec(spec)?,
            };
            // What is wrong with its frame is wrong whether it is used or not.
            self.frame_of(
                spec.frame.as_ref(),
                &mut spec.order.clone(),
                spec.first.as_ref(),
            )?;
            self.frame()?.named_windows.push(NamedWindow { name, spec });
        }
        Ok(())
    }

    fn named_window(&mut self, ident: &ast::Ident) -> Result<Spec, Error> {
        let name = fold(ident);
        let mut known = self.frame()?.named_windows.iter();
        match known.find(|known| known.name == name) {
            Some(known) => Ok(known.spec.clone()),
            None => {
                let error = Error::new(
                    ErrorKind::UndefinedObject,
                    format!("window \"{name}\" does not exist"),
                );
                Err(self.placed(error, ident.span))
            }
        }
    }

    fn window_spec(&mut self, spec: &ast::WindowSpec) -> Result<Spec, Error> {
        let inside = self.frame()?.inside.replace(Clause::Window);
        let bound = self.parts_of_window(spec);
        self.frame()?.inside = inside;
        bound
    }

    fn parts_of_window(&mut self, spec: &ast::WindowSpec) -> Result<Spec, Error> {
        let mut bound = match &spec.window_name {
            Some(ident) => {
                let base = self.named_window(ident)?;
                let name = fold(ident);
                if !spec.partition_by.is_empty() {
                    return Err(windowing(format!(
                        "cannot override PARTITION BY clause of window \"{name}\""
                    )));
                }
                if !spec.order_by.is_empty() && !base.order.is_empty() {
                    return Err(windowing(format!(
                        "cannot override ORDER BY clause of window \"{name}\""
                    )));
                }
                if base.frame.is_some() {
                    return Err(windowing(format!(
                        "cannot copy window \"{name}\" because it has a frame clause"
                    )));
                }
                base
            }
            None => Spec::default(),
        };
        for expr in &spec.partition_by {
            let value = self.expr(expr)?;
            let fields = match value.fields()? {
                Some(fields) => fields.into_iter().map(|(_, field)| field).collect(),
                None => vec![value],
            };
            // What is the same for all rows parts none.
            let parting = fields
                .into_iter()
                .map(|field| field.expr)
                .filter(|expr| !matches!(expr, Expr::Literal(..) | Expr::Placeholder(_)));
            bound.partition.extend(parting);
        }
        if !spec.order_by.is_empty() {
            let (order, first) = self.typed_sorts(&spec.order_by)?;
            bound.order = order;
            bound.first = first;
        }
        bound.frame.clone_from(&spec.window_frame);
        Ok(bound)
    }

    /// A call with OVER.
    pub(super) fn window_call(
        &mut self,
        name: &str,
        function: &ast::Function,
        arguments: &Arguments<'_>,
        over: &WindowType,
    ) -> Result<Value, Error> {
        let frame = self.frame()?;
        match frame.inside {
            Some(Clause::Window) => {
                return Err(windowing("window function calls cannot be nested"));
            }
            Some(Clause::Aggregate | Clause::Filter) => {
                return Err(Error::new(
                    ErrorKind::Grouping,
                    "aggregate function calls cannot contain window function calls",
                ));
            }
            _ if !frame.clause.takes_windows() => {
                let place = frame.clause.place();
                return Err(windowing(format!(
                    "window functions are not allowed in {place}"
                )));
            }
            _ => {}
        }
        let spec = match over {
            WindowType::NamedWindow(ident) => self.named_window(ident)?,
            WindowType::WindowSpec(spec) => self.window_spec(spec)?,
        };
        let inside = self.frame()?.inside.replace(Clause::Window);
        let nodes = self.window_nodes(name, function, arguments, spec);
        self.frame()?.inside = inside;
        let (nodes, finish) = nodes?;
        let mut columns = Vec::with_capacity(nodes.len());
        for node in nodes {
            columns.push(self.window_column(node)?);
        }
        finish(columns)
    }

    fn window_nodes(
        &mut self,
        name: &str,
        function: &ast::Function,
        arguments: &Arguments<'_>,
        mut spec: Spec,
    ) -> Result<(Vec<Expr>, Finish), Error> {
        let mut nulls = function.null_treatment.map(null_treatment);
        if let FunctionArguments::List(list) = &function.args {
            if list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct) {
                return Err(Error::unsupported(
                    "DISTINCT is not implemented for window functions",
                ));
            }
            for clause in &list.clauses {
                match clause {
                    FunctionArgumentClause::IgnoreOrRespectNulls(found) => {
                        nulls = Some(null_treatment(*found));
                    }
                    _ => {
                        return Err(Error::unsupported(
                            "aggregate ORDER BY is not implemented for window functions",
                        ));
                    }
                }
            }
        }
        if !function.within_group.is_empty() {
            return Err(Error::unsupported(format!(
                "OVER is not supported for ordered-set aggregate {name}"
            )));
        }
        let mut values = Vec::new();
        if let Arguments::Listed(exprs) = arguments {
            for expr in exprs {
                let value = self.expr(expr)?;
                values.push(if value.is_row() && name.starts_with("json") {
                    self.document(value)?
                } else if value.is_row() {
                    return Err(super::assign::row_as_value());
                } else {
                    value
                });
            }
        }
        let filter = match &function.filter {
            Some(condition) => Some(Box::new(self.condition("FILTER", condition)?)),
            None => None,
        };
        let given: Vec<_> = values.iter().map(Value::given).collect();
        let resolved = resolve_window(name, &given).map_err(|error| unresolved(&error))?;
        if filter.is_some() && !resolved.is_aggregate {
            return Err(Error::unsupported(
                "FILTER is not implemented for non-aggregate window functions",
            ));
        }
        let mut exprs = Vec::with_capacity(values.len());
        for (value, to) in values.into_iter().zip(&resolved.arguments) {
            exprs.push(self.argument(value, to)?.expr);
        }
        let window_frame =
            self.frame_of(spec.frame.as_ref(), &mut spec.order, spec.first.as_ref())?;
        let mut nodes = made(resolved.nodes(exprs))?;
        for node in &mut nodes {
            if let Expr::WindowFunction(window) = node {
                window.params.partition_by.clone_from(&spec.partition);
                window.params.order_by.clone_from(&spec.order);
                window.params.window_frame = window_frame.clone();
                window.params.filter.clone_from(&filter);
                window.params.null_treatment = nulls;
            }
        }
        let result = resolved.result.clone();
        let finish = move |columns: Vec<Expr>| -> Result<Value, Error> {
            Ok(Value::new(made(resolved.finish(columns))?, result.clone()))
        };
        Ok((nodes, Box::new(finish)))
    }

    /// The column that a window function becomes.
    fn window_column(&mut self, node: Expr) -> Result<Expr, Error> {
        let known = self
            .frame()?
            .windows
            .iter()
            .find(|(known, _)| *known == node && !node.is_volatile())
            .map(|(_, column)| column.clone());
        if let Some(column) = known {
            return Ok(Expr::Column(column));
        }
        let field = self.field_of(&node)?;
        let column = self.fresh_column("window");
        self.know(column.clone(), field);
        self.frame()?.windows.push((node, column.clone()));
        Ok(Expr::Column(column))
    }
}

/// The plan with these window functions as columns, those over one window together.
pub(super) fn over_windows(
    mut plan: LogicalPlan,
    windows: Vec<(Expr, Column)>,
) -> Result<LogicalPlan, Error> {
    let mut groups: Vec<Vec<(Expr, Column)>> = Vec::new();
    for (node, column) in windows {
        let same = groups.iter_mut().find(|group| {
            group
                .first()
                .is_some_and(|(first, _)| same_window(first, &node))
        });
        match same {
            Some(group) => group.push((node, column)),
            None => groups.push(vec![(node, column)]),
        }
    }
    for group in groups {
        let exprs = group
            .into_iter()
            .map(|(node, column)| named(node, &column))
            .collect();
        plan = made(Window::try_new(exprs, Arc::new(plan))).map(LogicalPlan::Window)?;
    }
    Ok(plan)
}

fn same_window(left: &Expr, right: &Expr) -> bool {
    match (left, right) {
        (Expr::WindowFunction(left), Expr::WindowFunction(right)) => {
            left.params.partition_by == right.params.partition_by
                && left.params.order_by == right.params.order_by
        }
        _ => false,
    }
}
