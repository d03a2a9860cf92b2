//! Which columns of a result have the type modifier that is theirs here: those that a column or a cast gives it, not those whose digits or length are only what a
//! function or an operator makes of its operands. PostgreSQL's clients are told of the former alone.
//!
//! Owns the way from a column of a plan back to where its values come from. Must not know what a modifier does to values. Called by [`crate::plan`] for the plan of the
//! binder, before any rule changes its shape.
//!
//! Invariants. Nothing is changed. A column is followed for a bounded number of steps, and has no modifier where these do not suffice.

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Distinct, Expr, ExprSchemable, JoinType, LogicalPlan};
use flowstone_functions::resolve::{Given, common_type};
use flowstone_types::SqlType;

use crate::unnest::{DependentKind, as_dependent};

/// Nodes and expressions that are looked at for one column.
const STEPS_MAX: usize = 1000;

/// Where the values of a column come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A column or a cast of this type.
    Declared(SqlType),
    /// An aggregate or a window function.
    Collected,
    /// Anything else.
    Computed,
}

/// Whether values stand alone, or are brought to one type with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Alone,
    WithOthers,
}

/// For each column of the plan whether its type's modifier is declared; of types without a modifier nothing is said.
pub(super) fn declared(plan: &LogicalPlan) -> Vec<bool> {
    let fields = plan.schema().fields().iter().enumerate();
    fields
        .map(|(index, field)| match SqlType::from_field(field) {
            Ok(sql_type) if sql_type.type_modifier() >= 0 => {
                let mut trace = Trace { steps: 0 };
                trace.column(plan, index, Place::Alone) == Origin::Declared(sql_type)
            }
            _ => false,
        })
        .collect()
}

/// One search.
struct Trace {
    steps: usize,
}

impl Trace {
    fn is_over(&mut self) -> bool {
        self.steps += 1;
        self.steps > STEPS_MAX
    }

    /// Where a column of a plan comes from.
    fn column(&mut self, plan: &LogicalPlan, index: usize, place: Place) -> Origin {
        if self.is_over() {
            return Origin::Computed;
        }
        match plan {
            LogicalPlan::Projection(projection) => match projection.expr.get(index) {
                Some(expr) => self.expr(expr, &[&projection.input], place),
                None => Origin::Computed,
            },
            LogicalPlan::SubqueryAlias(alias) => self.column(&alias.input, index, place),
            LogicalPlan::Filter(filter) => self.column(&filter.input, index, place),
            LogicalPlan::Sort(sort) => self.column(&sort.input, index, place),
            LogicalPlan::Limit(limit) => self.column(&limit.input, index, place),
            LogicalPlan::Distinct(Distinct::All(input)) => self.column(input, index, place),
            LogicalPlan::Distinct(Distinct::On(on)) => match on.select_expr.get(index) {
                Some(expr) => self.expr(expr, &[&on.input], place),
                None => Origin::Computed,
            },
            LogicalPlan::Window(window) => {
                if index < window.input.schema().fields().len() {
                    self.column(&window.input, index, place)
                } else {
                    Origin::Collected
                }
            }
            LogicalPlan::Aggregate(aggregate) => {
                let groups = grouping_set_to_exprlist(&aggregate.group_expr).unwrap_or_default();
                match groups.get(index) {
                    Some(expr) => self.expr(expr, &[&aggregate.input], place),
                    None => Origin::Collected,
                }
            }
            LogicalPlan::Union(union) => self.union(&union.inputs, index),
            LogicalPlan::RecursiveQuery(query) => self.column(&query.static_term, index, place),
            LogicalPlan::TableScan(_) | LogicalPlan::Values(_) => of_field(plan, index),
            LogicalPlan::Join(join) => match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                    self.named(plan, index, &[&join.right], place)
                }
                _ => self.named(plan, index, &[&join.left, &join.right], place),
            },
            other => match as_dependent(other) {
                Some(join) => match &join.kind {
                    DependentKind::Single { value, .. }
                        if plan.schema().maybe_index_of_column(value) == Some(index) =>
                    {
                        self.column(&join.right, 0, place)
                    }
                    _ => self.named(plan, index, &[&join.left, &join.right], place),
                },
                None => self.named(plan, index, &other.inputs(), place),
            },
        }
    }

    /// Where a column comes from that an input has by the same name.
    fn named(
        &mut self,
        plan: &LogicalPlan,
        index: usize,
        inputs: &[&LogicalPlan],
        place: Place,
    ) -> Origin {
        match plan.schema().columns().get(index) {
            Some(column) => self.of_inputs(column, inputs, place),
            None => Origin::Computed,
        }
    }

    fn of_inputs(&mut self, column: &Column, inputs: &[&LogicalPlan], place: Place) -> Origin {
        let found = inputs.iter().find_map(|input| {
            let index = input.schema().maybe_index_of_column(column)?;
            Some((*input, index))
        });
        match found {
            Some((input, index)) => self.column(input, index, place),
            None => Origin::Computed,
        }
    }

    fn expr(&mut self, expr: &Expr, inputs: &[&LogicalPlan], place: Place) -> Origin {
        if self.is_over() {
            return Origin::Computed;
        }
        match expr {
            Expr::Alias(alias) => self.expr(&alias.expr, inputs, place),
            // It changes how a value is stored, or widens it to a type without modifiers.
            Expr::Cast(cast) => self.expr(&cast.expr, inputs, place),
            Expr::Column(column) => self.of_inputs(column, inputs, place),
            // That of a NULL is what was asked for, unless it is that of the values beside it.
            Expr::Literal(value, metadata) if value.is_null() && place == Place::Alone => {
                let field = arrow_schema::Field::new("", value.data_type(), true);
                let field = match metadata {
                    Some(metadata) => metadata.add_to_field(field),
                    None => field,
                };
                SqlType::from_field(&field).map_or(Origin::Computed, Origin::Declared)
            }
            Expr::ScalarFunction(function) => self.function(function, inputs, place),
            Expr::Case(case) => self.case(case, inputs, place),
            _ => Origin::Computed,
        }
    }

    fn function(
        &mut self,
        function: &ScalarFunction,
        inputs: &[&LogicalPlan],
        place: Place,
    ) -> Origin {
        if let Some((value, from, to)) = cast_of(function) {
            // CASE, aggregates and window functions forget the length of what they return, and are cast back to it.
            if from == SqlType::Text && has_length(&to) {
                if let Expr::Case(case) = value
                    && forgets_length(value, inputs)
                {
                    return self.case(case, inputs, place);
                }
                if self.expr(value, inputs, Place::WithOthers) == Origin::Collected {
                    return Origin::Collected;
                }
            }
            return Origin::Declared(to);
        }
        match (function.name(), function.args.as_slice()) {
            ("coalesce" | "greatest" | "least", args) => {
                self.together(args.iter().map(|arg| (arg, inputs.to_vec())).collect())
            }
            ("nullif", [first, _]) => self.expr(first, inputs, Place::WithOthers),
            _ => Origin::Computed,
        }
    }

    fn case(&mut self, case: &Case, inputs: &[&LogicalPlan], place: Place) -> Origin {
        // What fails has no value.
        let mut arms: Vec<&Expr> = case
            .when_then_expr
            .iter()
            .map(|(_, arm)| arm.as_ref())
            .filter(|arm| !is_failure(arm))
            .collect();
        match &case.else_expr {
            Some(otherwise) => arms.push(otherwise.as_ref()),
            // It is NULL, which has no modifier.
            None => return Origin::Computed,
        }
        match arms.as_slice() {
            [only] if case.when_then_expr.len() == 1 => self.expr(only, inputs, place),
            _ => self.together(arms.into_iter().map(|arm| (arm, inputs.to_vec())).collect()),
        }
    }

    fn union(&mut self, branches: &[std::sync::Arc<LogicalPlan>], index: usize) -> Origin {
        let values: Option<Vec<_>> = branches
            .iter()
            .map(|branch| top_expr(branch, index))
            .collect();
        if let Some(values) = values {
            return self.together(values);
        }
        let origins = branches
            .iter()
            .map(|branch| self.column(branch, index, Place::WithOthers))
            .collect();
        agreed(origins)
    }

    /// Where values come from that are of one type: a modifier stays if it is that of all before they were brought together.
    fn together(&mut self, values: Vec<(&Expr, Vec<&LogicalPlan>)>) -> Origin {
        let mut origins = Vec::with_capacity(values.len());
        let mut own = Vec::with_capacity(values.len());
        let mut any_cast = false;
        for (value, inputs) in values {
            let origin = self.expr(value, &inputs, Place::WithOthers);
            let from = cast_in(value).map(|(_, from, _)| from);
            any_cast |= from.is_some();
            match (from, &origin) {
                (Some(from), _) => own.push(Given::Of(from)),
                (None, Origin::Declared(from)) => own.push(Given::Of(from.clone())),
                _ => return Origin::Computed,
            }
            origins.push(origin);
        }
        let both = agreed(origins);
        match &both {
            // The casts are those that the common type asks for.
            Origin::Declared(to) if any_cast && common_type(&own).as_ref() == Ok(to) => {
                Origin::Computed
            }
            _ => both,
        }
    }
}

/// The type that all are declared with.
fn agreed(origins: Vec<Origin>) -> Origin {
    let mut origins = origins.into_iter();
    match origins.next() {
        Some(first @ Origin::Declared(_)) if origins.all(|other| other == first) => first,
        _ => Origin::Computed,
    }
}

fn of_field(plan: &LogicalPlan, index: usize) -> Origin {
    let field = plan.schema().fields().get(index);
    field
        .and_then(|field| SqlType::from_field(field).ok())
        .map_or(Origin::Computed, Origin::Declared)
}

const fn has_length(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Char(_) | SqlType::VarChar(_))
}

/// Whether it is a CASE of values of `character(n)` or `varchar(n)`, which is a text to DataFusion.
fn forgets_length(expr: &Expr, inputs: &[&LogicalPlan]) -> bool {
    match expr {
        Expr::Case(case) => {
            let arms = case.when_then_expr.iter().map(|(_, arm)| arm);
            let mut arms = arms.chain(&case.else_expr);
            arms.any(|arm| forgets_length(arm, inputs))
        }
        other => inputs.first().is_some_and(|input| {
            let field = other.to_field(input.schema());
            field
                .ok()
                .and_then(|(_, field)| SqlType::from_field(&field).ok())
                .is_some_and(|sql_type| has_length(&sql_type))
        }),
    }
}

/// The value of a cast, the type that it is of, and the type that it becomes.
fn cast_of(function: &ScalarFunction) -> Option<(&Expr, SqlType, SqlType)> {
    let text = |expr: &Expr| match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => text.parse::<SqlType>().ok(),
        _ => None,
    };
    match (function.name(), function.args.as_slice()) {
        ("pg_cast", [value, from, to]) => Some((value, text(from)?, text(to)?)),
        _ => None,
    }
}

fn cast_in(expr: &Expr) -> Option<(&Expr, SqlType, SqlType)> {
    match expr {
        Expr::Alias(alias) => cast_in(&alias.expr),
        Expr::ScalarFunction(function) => cast_of(function),
        _ => None,
    }
}

/// Whether it is an error and no value.
fn is_failure(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(function) if function.name() == "raise_error" => true,
        Expr::ScalarFunction(function) => {
            cast_of(function).is_some_and(|(value, ..)| is_failure(value))
        }
        _ => false,
    }
}

/// The expression that computes a column of a branch, and the plan that it is over.
fn top_expr(plan: &LogicalPlan, index: usize) -> Option<(&Expr, Vec<&LogicalPlan>)> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let expr = projection.expr.get(index)?;
            Some((expr, vec![projection.input.as_ref()]))
        }
        LogicalPlan::SubqueryAlias(alias) => top_expr(&alias.input, index),
        _ => None,
    }
}
