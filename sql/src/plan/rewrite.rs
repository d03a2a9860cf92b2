//! From the syntax tree PostgreSQL's users write to one whose meaning DataFusion's planner shares.
//!
//! Owns what can be said on the tree: output column names, the types of literals, casts, what session and catalog functions stand for,
//! set operations and table functions that DataFusion plans otherwise. What needs the types of operands is left as a *marker*: a dictionary
//! literal whose first key names the construct, which [`super::exprs`] turns into an expression.
//! Must not know plans. Called by [`crate::plan`] after names are resolved.

use std::ops::ControlFlow;

use datafusion::logical_expr::Volatility;
use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;
use sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, DateTimeField, DictionaryField, Distinct, Expr, Fetch,
    Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, LimitClause, NamedWindowDefinition, NamedWindowExpr,
    ObjectName, Offset, OrderBy, OrderByKind, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, TableFactor,
    TableWithJoins, UnaryOperator, Value, VisitMut, VisitorMut, WindowFrameBound, WindowSpec,
    WindowType,
};

use super::frames;
use super::names::{self, INTERNAL, fold, quoted, table_alias};
use super::subqueries::{CountExists, array_subquery, scalar_subquery};
use super::{PlanContext, catalog_functions, chains};
use crate::error::{Error, ErrorKind};

/// Alias of the nested join that stands for EXCEPT ALL and INTERSECT ALL.
pub(super) const EXCEPT_ALL: &str = "\u{1}except all";
/// See [`EXCEPT_ALL`].
pub(super) const INTERSECT_ALL: &str = "\u{1}intersect all";
/// The same for UNION ALL with literals whose type the other branch tells.
pub(super) const UNION_ALL: &str = "\u{1}union all";
/// See [`UNION_ALL`].
pub(super) const UNION_DISTINCT: &str = "\u{1}union";

/// Functions that yield a set of rows and are planned as `unnest` of the scalar function of that name, which yields an array.
const SET_RETURNING: [&str; 13] = [
    "_pg_expandarray",
    "generate_series",
    "generate_subscripts",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_object_keys",
    "json_array_elements",
    "json_array_elements_text",
    "json_object_keys",
    "regexp_split_to_table",
    "regexp_matches",
    "string_to_table",
    "unnest",
];

/// Subqueries in expressions of subqueries in expressions: DataFusion's checks of a plan look at each level twice as often as at the one around it.
const SUBQUERY_DEPTH_MAX: usize = 10;
/// Levels of an expression. The work of planning one grows with the third power: this many take seconds.
const EXPRESSION_DEPTH_MAX: usize = 200;

/// Rewrites `query` in place.
///
/// # Errors
/// Whatever is wrong with the tree itself: unknown types, functions that a maintained view cannot call.
pub(super) fn rewrite(ctx: &PlanContext<'_>, query: &mut Query) -> Result<(), Error> {
    chains::shorten(query);
    if let ControlFlow::Break(error) = sqlparser::ast::Visit::visit(query, &mut Depth::default()) {
        return Err(error);
    }
    let mut copies = Copies::default();
    if let ControlFlow::Break(error) = sqlparser::ast::Visit::visit(query, &mut copies) {
        return Err(error);
    }
    hide_cast_names(query);
    let mut rewriter = Rewriter {
        ctx,
        derived: 0,
        recursive: Vec::new(),
    };
    match VisitMut::visit(query, &mut rewriter) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// A marker: see the module documentation.
pub(super) fn marker(key: &str, values: Vec<Expr>) -> Expr {
    let mut key = Some(format!("{INTERNAL}{key}"));
    Expr::Dictionary(
        values
            .into_iter()
            .map(|value| DictionaryField {
                key: Ident::new(key.take().unwrap_or_default()),
                value: Box::new(value),
            })
            .collect(),
    )
}

/// An explicit cast.
pub(super) fn cast(expr: Expr, to: &SqlType) -> Expr {
    marker(&format!("cast:{to}"), vec![expr])
}

/// A cast as assignment to a column does it.
pub(super) fn assignment_cast(expr: Expr, to: &SqlType) -> Expr {
    marker(&format!("assign:{to}"), vec![expr])
}

/// The constant that `text` is in type `to`.
pub(super) fn constant(text: impl Into<String>, to: &SqlType) -> Expr {
    cast(string(text), to)
}

/// A string literal of no type.
pub(super) fn string(text: impl Into<String>) -> Expr {
    Expr::value(Value::SingleQuotedString(text.into()))
}

/// NULL of type `to`.
pub(super) fn null(to: &SqlType) -> Expr {
    cast(Expr::value(Value::Null), to)
}

/// A number that is already what it should be: an ordinal, a LIMIT.
fn is_protected(value: &Value) -> bool {
    matches!(value, Value::Number(_, true))
}

fn protect(expr: &mut Expr) {
    if let Expr::Value(value) = expr
        && let Value::Number(_, protected) = &mut value.value
    {
        *protected = true;
    }
}

/// The call `name(args)`.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args
        .into_iter()
        .map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)))
        .collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `left op right`
pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

fn negate_if(negated: bool, expr: Expr) -> Expr {
    if negated {
        Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: Box::new(Expr::Nested(Box::new(expr))),
        }
    } else {
        expr
    }
}

/// Breaks where expressions or subqueries in them nest too deep.
#[derive(Default)]
struct Depth {
    expressions: usize,
    subqueries: usize,
}

const fn is_subquery(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. }
    )
}

impl sqlparser::ast::Visitor for Depth {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.expressions += 1;
        self.subqueries += usize::from(is_subquery(expr));
        if self.subqueries > SUBQUERY_DEPTH_MAX {
            let error = Error::new(ErrorKind::TooComplex, "subqueries are nested too deeply");
            let hint = "Join the relations, or name the inner queries with WITH.";
            return ControlFlow::Break(error.with_hint(hint));
        }
        if self.expressions > EXPRESSION_DEPTH_MAX {
            let error = Error::new(ErrorKind::TooComplex, "expression is nested too deeply");
            let hint = "Use IN with a list, or compute parts of it in subqueries.";
            return ControlFlow::Break(error.with_hint(hint));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.expressions = self.expressions.saturating_sub(1);
        self.subqueries = self
            .subqueries
            .saturating_sub(usize::from(is_subquery(expr)));
        ControlFlow::Continue(())
    }
}

/// Expressions that BETWEEN and CASE may be written as more than once: the operand of such a construct is written as often as it is compared.
const COPIES_MAX: usize = 100_000;

/// Breaks where there would be too many copies of operands: nested, they multiply.
#[derive(Default)]
struct Copies {
    /// The expressions around the place: how large their operands become, and the first of these alone.
    around: Vec<(usize, Option<usize>)>,
    /// Expressions that are there because others were copied.
    copied: usize,
}

impl sqlparser::ast::Visitor for Copies {
    type Break = Error;

    fn pre_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<Error> {
        self.around.push((0, None));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let (operands, first) = self.around.pop().unwrap_or_default();
        let times = match expr {
            Expr::Between { .. } => 1,
            Expr::Case {
                operand: Some(_),
                conditions,
                ..
            } => conditions.len().saturating_sub(1),
            _ => 0,
        };
        let copied = first.unwrap_or(0).saturating_mul(times);
        self.copied = self.copied.saturating_add(copied);
        if self.copied > COPIES_MAX {
            let error = Error::new(ErrorKind::TooComplex, "statement is too complex");
            let hint = "Compute the operands of BETWEEN and CASE in subqueries in FROM.";
            return ControlFlow::Break(error.with_hint(hint));
        }
        let size = operands.saturating_add(copied).saturating_add(1);
        if let Some((sum, first)) = self.around.last_mut() {
            *sum = sum.saturating_add(size);
            first.get_or_insert(size);
        }
        ControlFlow::Continue(())
    }
}

struct Rewriter<'c, 'a> {
    ctx: &'c PlanContext<'a>,
    /// Derived tables without alias seen so far.
    derived: usize,
    /// Where the queries of WITH RECURSIVE are; nothing moves while they are visited.
    recursive: Vec<*const Query>,
}

impl VisitorMut for Rewriter<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            let queries = with.cte_tables.iter();
            self.recursive
                .extend(queries.map(|cte| std::ptr::from_ref(cte.query.as_ref())));
        }
        let recursive = self.recursive.contains(&std::ptr::from_ref(&*query));
        flow(prepare_query(query, recursive))
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        if select.into.is_some() {
            let error = Error::unsupported("SELECT … INTO is not supported");
            return ControlFlow::Break(
                error.with_hint("Create the table, and use INSERT … SELECT."),
            );
        }
        for NamedWindowDefinition(_, window) in &select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = window
                && let Some(frame) = &spec.window_frame
            {
                flow(frames::check(frame))?;
            }
        }
        for condition in [&mut select.selection, &mut select.having]
            .into_iter()
            .flatten()
        {
            any_as_membership(condition);
        }
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            exprs.iter_mut().for_each(protect);
        }
        if let Some(Distinct::On(exprs)) = &mut select.distinct {
            for expr in exprs {
                resolve_ordinal(expr, &select.projection);
            }
        }
        name_items(&mut select.projection);
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                VisitMut::visit(expr, &mut CountExists { depth: 0 })?;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        self.derived += 1;
        flow(prepare_factor(factor, self.derived))
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = window {
                plain_frame_bounds(spec);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(function) => {
                if let Some(WindowType::WindowSpec(spec)) = &function.over
                    && let Some(frame) = &spec.window_frame
                {
                    return flow(frames::check(frame));
                }
            }
            // The rows that ANY and ALL compare with are no value: they stand as those of an EXISTS until then.
            Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
                if let Expr::Subquery(subquery) = &**right {
                    **right = Expr::Exists {
                        subquery: subquery.clone(),
                        negated: false,
                    };
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Function(function) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut function.over
        {
            plain_frame_bounds(spec);
        }
        if let Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } = expr
            && let Expr::Exists { subquery, .. } = &**right
        {
            **right = Expr::Subquery(subquery.clone());
        }
        let taken = std::mem::replace(expr, Expr::value(Value::Null));
        match rewrite_expr(self.ctx, taken) {
            Ok(rewritten) => {
                *expr = rewritten;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// `x = ANY (SELECT …)` is `x IN (SELECT …)`, and `x <> ALL (SELECT …)` is `x NOT IN (SELECT …)`, which become joins by equality. In a condition: elsewhere
/// IN is not planned wherever ANY is.
fn any_as_membership(condition: &mut Expr) {
    match condition {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And | BinaryOperator::Or,
            right,
        } => {
            any_as_membership(left);
            any_as_membership(right);
        }
        Expr::Nested(inner)
        | Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: inner,
        } => any_as_membership(inner),
        Expr::AnyOp {
            left,
            compare_op: compare_op @ BinaryOperator::Eq,
            right,
            ..
        }
        | Expr::AllOp {
            left,
            compare_op: compare_op @ BinaryOperator::NotEq,
            right,
        } => {
            let negated = *compare_op == BinaryOperator::NotEq;
            let nothing = || Expr::value(Value::Null);
            if matches!(**right, Expr::Subquery(_))
                && let Expr::Subquery(subquery) = std::mem::replace(&mut **right, nothing())
            {
                *condition = Expr::InSubquery {
                    expr: Box::new(std::mem::replace(&mut **left, nothing())),
                    subquery,
                    negated,
                };
            }
        }
        _ => {}
    }
}

/// DataFusion takes the bounds of a window frame as numbers of its own reading: those rewritten as constants become that again.
fn plain_frame_bounds(spec: &mut WindowSpec) {
    let Some(frame) = &mut spec.window_frame else {
        return;
    };
    for bound in [Some(&mut frame.start_bound), frame.end_bound.as_mut()]
        .into_iter()
        .flatten()
    {
        if let WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) =
            bound
            && let Some(digits) = literal_digits(expr)
        {
            **expr = Expr::value(Value::Number(digits, false));
        }
    }
}

fn flow(result: Result<(), Error>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

fn prepare_query(query: &mut Query, recursive: bool) -> Result<(), Error> {
    if let Some(with) = &query.with
        && with.cte_tables.iter().any(|cte| {
            cte.alias
                .columns
                .iter()
                .any(|column| column.data_type.is_some())
        })
    {
        return Err(Error::unsupported(
            "column types in common table expressions are not supported",
        ));
    }
    if let Some(Fetch {
        with_ties,
        percent,
        quantity,
    }) = query.fetch.take()
    {
        if with_ties || percent {
            return Err(Error::unsupported(
                "FETCH FIRST … WITH TIES and PERCENT are not supported",
            ));
        }
        let count = quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), true)));
        match &mut query.limit_clause {
            Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(count),
            clause => {
                *clause = Some(LimitClause::LimitOffset {
                    limit: Some(count),
                    offset: None,
                    limit_by: Vec::new(),
                })
            }
        }
    }
    query.locks.clear();
    if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause {
        for expr in limit
            .iter_mut()
            .chain(offset.iter_mut().map(|Offset { value, .. }| value))
        {
            protect(expr);
            if let Expr::Value(value) = expr
                && matches!(value.value, Value::Placeholder(_))
            {
                *expr = cast(expr.clone(), &SqlType::Int8);
            }
        }
    }
    if let Some(OrderBy {
        kind: OrderByKind::Expressions(exprs),
        ..
    }) = &mut query.order_by
    {
        for order in exprs {
            protect(&mut order.expr);
        }
    }
    mark_cells(&mut query.body);
    rewrite_set_operations(&mut query.body, recursive);
    Ok(())
}

/// Cells of VALUES are settled one by one: see the marker.
fn mark_cells(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            mark_cells(left);
            mark_cells(right);
        }
        SetExpr::Values(values) => mark_rows(&mut values.rows),
        _ => {}
    }
}

/// Cells that say the type of a column of VALUES, one of each kind: those of no type are told by these. There are few kinds in a column.
const TELLING_CELLS_MAX: usize = 4;

/// A cell of no type of its own comes with those of its column that have one.
fn mark_rows(rows: &mut [sqlparser::ast::Parens<Vec<Expr>>]) {
    let width = rows.iter().map(|row| row.content.len()).max().unwrap_or(0);
    for column in 0..width {
        let cells = || rows.iter().filter_map(|row| row.content.get(column));
        let mut kinds: Vec<String> = Vec::new();
        let mut telling: Vec<Expr> = Vec::new();
        if cells().any(is_untyped) {
            for cell in cells().filter(|cell| !is_untyped(cell)) {
                let kind = kind_of_cell(cell);
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                    telling.push(cell.clone());
                }
                if telling.len() == TELLING_CELLS_MAX {
                    break;
                }
            }
        }
        for cell in rows
            .iter_mut()
            .filter_map(|row| row.content.get_mut(column))
        {
            let others = if is_untyped(cell) {
                telling.clone()
            } else {
                Vec::new()
            };
            // What goes into a table is settled already.
            let key = match cell {
                Expr::Dictionary(_) => "stored",
                _ => "cell",
            };
            let taken = std::mem::replace(cell, Expr::value(Value::Null));
            *cell = marker(key, std::iter::once(taken).chain(others).collect());
        }
    }
}

/// Whether it is a text, NULL or a parameter: these have no type of their own.
fn is_untyped(cell: &Expr) -> bool {
    match cell {
        Expr::Nested(inner) => is_untyped(inner),
        Expr::Value(value) => !matches!(value.value, Value::Number(..) | Value::Boolean(_)),
        _ => false,
    }
}

/// A name for cells whose types are the same.
fn kind_of_cell(cell: &Expr) -> String {
    match cell {
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => kind_of_cell(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) if digits.parse::<i32>().is_ok() => "int4".to_owned(),
            Value::Number(digits, _) if digits.parse::<i64>().is_ok() => "int8".to_owned(),
            Value::Number(..) => "numeric".to_owned(),
            _ => "bool".to_owned(),
        },
        Expr::Cast { data_type, .. } => data_type.to_string(),
        Expr::TypedString(typed) => typed.data_type.to_string(),
        Expr::Interval(_) => "interval".to_owned(),
        other => other.to_string(),
    }
}

/// What is known of a column of a branch of a set operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    /// A text literal or a parameter: its type is that of the column in the other branch.
    Untyped,
    /// Anything else.
    Typed,
}

/// DataFusion plans EXCEPT ALL and INTERSECT ALL as joins, which gives wrong multiplicities, and makes text of UNIONs with literals: hand them to our
/// relation planner. Returns what is known of the first columns.
fn rewrite_set_operations(body: &mut SetExpr, recursive: bool) -> Vec<Branch> {
    let SetExpr::SetOperation {
        left,
        right,
        op,
        set_quantifier,
    } = body
    else {
        return branch_columns(body);
    };
    let left_columns = rewrite_set_operations(left, false);
    let right_columns = rewrite_set_operations(right, false);
    let width = left_columns.len().max(right_columns.len());
    let known =
        |columns: &[Branch], column: usize| columns.get(column).copied().unwrap_or(Branch::Typed);
    let pairs =
        (0..width).map(|column| (known(&left_columns, column), known(&right_columns, column)));
    let columns: Vec<Branch> = pairs
        .clone()
        .map(|pair| match pair {
            (Branch::Untyped, Branch::Untyped) => Branch::Untyped,
            _ => Branch::Typed,
        })
        .collect();
    let told = pairs.clone().any(|(left, right)| left != right);
    let alias = match (op, set_quantifier) {
        (SetOperator::Except, SetQuantifier::All) => EXCEPT_ALL,
        (SetOperator::Intersect, SetQuantifier::All) => INTERSECT_ALL,
        // The two branches of a recursive query are not planned as a union.
        (SetOperator::Union, SetQuantifier::All) if told && !recursive => UNION_ALL,
        (SetOperator::Union, SetQuantifier::None | SetQuantifier::Distinct)
            if told && !recursive =>
        {
            UNION_DISTINCT
        }
        _ => return columns,
    };
    let side = |body: &mut Box<SetExpr>| {
        let taken = std::mem::replace(
            &mut **body,
            SetExpr::Values(sqlparser::ast::Values {
                explicit_row: false,
                value_keyword: false,
                rows: Vec::new(),
            }),
        );
        TableFactor::Derived {
            lateral: false,
            subquery: Box::new(names::query(taken)),
            alias: Some(table_alias("\u{1}side")),
            sample: None,
        }
    };
    let join = sqlparser::ast::Join {
        relation: side(right),
        global: false,
        join_operator: sqlparser::ast::JoinOperator::CrossJoin(
            sqlparser::ast::JoinConstraint::None,
        ),
    };
    let relation = TableFactor::NestedJoin {
        table_with_joins: Box::new(TableWithJoins {
            relation: side(left),
            joins: vec![join],
        }),
        alias: Some(table_alias(alias)),
    };
    *body = SetExpr::Select(Box::new(names::select_all(relation)));
    columns
}

/// What is known of the columns of a branch that is no set operation; nothing of those after a wildcard.
fn branch_columns(body: &SetExpr) -> Vec<Branch> {
    let SetExpr::Select(select) = body else {
        return Vec::new();
    };
    let items = select.projection.iter().map_while(item_expr);
    items
        .map(|expr| match expr {
            Expr::Value(value)
                if matches!(
                    value.value,
                    Value::SingleQuotedString(_)
                        | Value::EscapedStringLiteral(_)
                        | Value::Placeholder(_)
                ) =>
            {
                Branch::Untyped
            }
            _ => Branch::Typed,
        })
        .collect()
}

/// Gives a derived table a name, and writes a function in FROM as a query or as `unnest`, all its columns named.
pub(super) fn prepare_factor(factor: &mut TableFactor, number: usize) -> Result<(), Error> {
    match factor {
        TableFactor::Derived {
            alias: alias @ None,
            ..
        } => *alias = Some(table_alias(&format!("{INTERNAL}derived{number}"))),
        TableFactor::Table {
            name,
            alias,
            args: Some(arguments),
            with_ordinality,
            ..
        } => {
            let arguments = std::mem::take(&mut arguments.args);
            *factor = table_function(name, arguments, alias.take(), *with_ordinality)?;
        }
        TableFactor::Function {
            name,
            args,
            alias,
            with_ordinality,
            ..
        } => {
            let arguments = std::mem::take(args);
            *factor = table_function(name, arguments, alias.take(), *with_ordinality)?;
        }
        TableFactor::UNNEST {
            alias,
            array_exprs,
            with_ordinality,
            ..
        } => {
            let arrays = std::mem::take(array_exprs);
            let ordinality = if *with_ordinality {
                Some(ordinals(&arrays)?)
            } else {
                None
            };
            *factor = unnest(arrays, ordinality, "unnest", alias.take());
        }
        _ => {}
    }
    Ok(())
}

/// `FROM f(x) AS t` names the one column `t` too; further columns of `unnest` are called that.
fn name_columns(
    alias: Option<sqlparser::ast::TableAlias>,
    function: &str,
    count: usize,
    with_ordinality: bool,
) -> sqlparser::ast::TableAlias {
    let mut alias = alias.unwrap_or_else(|| table_alias(function));
    let single = fold(&alias.name);
    for number in alias.columns.len()..count + usize::from(with_ordinality) {
        let name = match count {
            _ if number >= count => "ordinality",
            1 => single.as_str(),
            _ => function,
        };
        alias.columns.push(sqlparser::ast::TableAliasColumnDef {
            name: quoted(name),
            data_type: None,
        });
    }
    alias
}

/// `unnest` of arrays, side by side, their numbers with them if they are given.
fn unnest(
    mut arrays: Vec<Expr>,
    ordinals: Option<Expr>,
    function: &str,
    alias: Option<sqlparser::ast::TableAlias>,
) -> TableFactor {
    let alias = name_columns(alias, function, arrays.len(), ordinals.is_some());
    arrays.extend(ordinals);
    TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: arrays,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

/// The numbers of an array's items, from 1 on.
fn ordinals(arrays: &[Expr]) -> Result<Expr, Error> {
    match arrays {
        [array] => Ok(call("array_ordinals", vec![array.clone()])),
        _ => Err(Error::unsupported(
            "WITH ORDINALITY of several arrays is not supported",
        )),
    }
}

fn table_function(
    name: &ObjectName,
    arguments: Vec<FunctionArg>,
    alias: Option<sqlparser::ast::TableAlias>,
    with_ordinality: bool,
) -> Result<TableFactor, Error> {
    let function = names::fold_name(name).pop().unwrap_or_default();
    if !SET_RETURNING.contains(&function.as_str()) {
        if with_ordinality {
            return Err(Error::unsupported(format!(
                "WITH ORDINALITY of {function} is not supported"
            )));
        }
        if function == "pg_get_keywords" && arguments.is_empty() {
            return Ok(keywords(alias));
        }
        return Ok(single_row(name, &function, arguments, alias));
    }
    let mut values = Vec::new();
    for argument in arguments {
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => values.push(expr),
            other => {
                return Err(Error::unsupported(format!(
                    "function argument {other} is not supported here"
                )));
            }
        }
    }
    let arrays = if function == "unnest" {
        values
    } else {
        vec![marker(
            &format!("set:{}", array_function(&function)),
            values,
        )]
    };
    let ordinality = if with_ordinality {
        Some(ordinals(&arrays)?)
    } else {
        None
    };
    Ok(unnest(arrays, ordinality, &function, alias))
}

/// `FROM f(x)` of a function that yields one value is that value as a row.
fn single_row(
    name: &ObjectName,
    function: &str,
    arguments: Vec<FunctionArg>,
    alias: Option<sqlparser::ast::TableAlias>,
) -> TableFactor {
    let alias = name_columns(alias, function, 1, false);
    let mut value = call(function, Vec::new());
    if let Expr::Function(Function {
        name: called,
        args: FunctionArguments::List(list),
        ..
    }) = &mut value
    {
        *called = name.clone();
        list.args = arguments;
    }
    let select = names::select(vec![SelectItem::UnnamedExpr(value)], Vec::new());
    TableFactor::Derived {
        lateral: true,
        subquery: Box::new(names::query(SetExpr::Select(Box::new(select)))),
        alias: Some(alias),
        sample: None,
    }
}

/// `pg_get_keywords()`: the words that the parser knows, and which of them are reserved.
fn keywords(alias: Option<sqlparser::ast::TableAlias>) -> TableFactor {
    let reserved = crate::ast::reserved_words();
    let mut words: Vec<String> = sqlparser::keywords::ALL_KEYWORDS
        .iter()
        .map(|word| word.to_lowercase())
        .chain(reserved.iter().map(|word| (*word).to_owned()))
        .collect();
    words.sort_unstable();
    words.dedup();
    let column = |value: &dyn Fn(bool) -> &'static str| {
        let values: Vec<&str> = words
            .iter()
            .map(|word| value(reserved.contains(&word.as_str())))
            .collect();
        array_of_words(&values)
    };
    let all: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut alias = alias.unwrap_or_else(|| table_alias("pg_get_keywords"));
    for name in ["word", "catcode", "barelabel", "catdesc", "baredesc"]
        .iter()
        .skip(alias.columns.len())
    {
        alias.columns.push(sqlparser::ast::TableAliasColumnDef {
            name: quoted(name),
            data_type: None,
        });
    }
    TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: vec![
            array_of_words(&all),
            column(&|reserved| if reserved { "R" } else { "U" }),
            column(&|reserved| if reserved { "f" } else { "t" }),
            column(&|reserved| if reserved { "reserved" } else { "unreserved" }),
            column(&|reserved| {
                if reserved {
                    "requires AS"
                } else {
                    "can be bare label"
                }
            }),
        ],
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

/// An array of texts that need no quotes but blanks'.
fn array_of_words(words: &[&str]) -> Expr {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    constant(
        format!("{{{}}}", quoted.join(",")),
        &SqlType::Array(Box::new(SqlType::Text)),
    )
}

/// The scalar function that yields, as an array, the rows of a set-returning one.
fn array_function(function: &str) -> &str {
    match function {
        "regexp_split_to_table" => "regexp_split_to_array",
        "string_to_table" => "string_to_array",
        "jsonb_array_elements" | "json_array_elements" => "jsonb_array_elements_list",
        "jsonb_array_elements_text" | "json_array_elements_text" => {
            "jsonb_array_elements_text_list"
        }
        "jsonb_object_keys" | "json_object_keys" => "jsonb_object_keys_list",
        other => other,
    }
}

/// DISTINCT ON (1) means the first item.
fn resolve_ordinal(expr: &mut Expr, projection: &[SelectItem]) {
    let Expr::Value(value) = &*expr else { return };
    let Value::Number(digits, _) = &value.value else {
        return;
    };
    let item = digits
        .parse::<usize>()
        .ok()
        .and_then(|ordinal| projection.get(ordinal.checked_sub(1)?));
    if let Some(SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }) = item
    {
        *expr = item.clone();
    }
}

/// `SELECT a.id::text … ORDER BY a.id` has an output column `id` beside the input column `id`: DataFusion calls the latter ambiguous. The name of such
/// an output column is hidden from the rest of the query; where ORDER BY means it, it says so by number.
fn hide_cast_names(query: &mut Query) {
    let Some(OrderBy {
        kind: OrderByKind::Expressions(order),
        ..
    }) = &mut query.order_by
    else {
        return;
    };
    let SetExpr::Select(select) = &mut *query.body else {
        return;
    };
    if select.projection.iter().any(|item| {
        !matches!(
            item,
            SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }
        )
    }) {
        return;
    }
    for (index, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr @ Expr::Cast { .. }) = item else {
            continue;
        };
        let name = column_name(expr);
        for order in order.iter_mut() {
            if matches!(&order.expr, Expr::Identifier(ident) if fold(ident) == name) {
                order.expr = Expr::value(Value::Number((index + 1).to_string(), true));
            }
        }
        let expr = std::mem::replace(expr, Expr::value(Value::Null));
        *item = SelectItem::ExprWithAlias {
            expr,
            alias: quoted(&format!("{name}{INTERNAL}{index}")),
        };
    }
}

/// The expression of an item of a SELECT list.
pub(super) const fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// Gives each item of a select list the name PostgreSQL gives it, and names that occur again a suffix that is taken off at the edge.
fn name_items(projection: &mut [SelectItem]) {
    let mut seen: Vec<String> = Vec::new();
    let everything = projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_)));
    let all_of: Vec<String> = projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                names::fold_name(name).pop()
            }
            _ => None,
        })
        .collect();
    for (index, item) in projection.iter_mut().enumerate() {
        let (name, plain, qualifier) = match item {
            SelectItem::UnnamedExpr(expr) => {
                let qualifier = match &*expr {
                    Expr::CompoundIdentifier(parts) => parts.iter().rev().nth(1).map(fold),
                    _ => None,
                };
                (
                    column_name(expr),
                    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)),
                    qualifier,
                )
            }
            SelectItem::ExprWithAlias { alias, .. } => (fold(alias), false, None),
            _ => continue,
        };
        let repeated = seen.contains(&name)
            || (plain
                && (everything || qualifier.is_some_and(|qualifier| all_of.contains(&qualifier))));
        let alias = if repeated {
            quoted(&format!("{name}{INTERNAL}{index}"))
        } else {
            quoted(&name)
        };
        seen.push(name);
        match item {
            SelectItem::UnnamedExpr(expr) if repeated || !plain => {
                let expr = std::mem::replace(expr, Expr::value(Value::Null));
                *item = SelectItem::ExprWithAlias { expr, alias };
            }
            SelectItem::ExprWithAlias { alias: old, .. } => *old = alias,
            _ => {}
        }
    }
}

/// The name PostgreSQL gives to an unnamed item of a select list.
pub(super) fn column_name(expr: &Expr) -> String {
    figure_name(expr).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// The name and whether it is a strong one (a column or a function) or a weak one (a type).
fn figure_name(expr: &Expr) -> Option<(String, bool)> {
    let strong = |name: &str| Some((name.to_owned(), true));
    match expr {
        Expr::Identifier(ident) => Some((fold(ident), true)),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| (fold(ident), true)),
        Expr::Function(function) => names::fold_name(&function.name)
            .pop()
            .map(|name| (name, true)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure_name(inner),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|access| match access {
                AccessExpr::Dot(Expr::Identifier(ident)) => Some((fold(ident), true)),
                _ => None,
            });
            field.or_else(|| figure_name(root))
        }
        Expr::Cast {
            expr: inner,
            data_type,
            ..
        } => match figure_name(inner) {
            Some((name, true)) => Some((name, true)),
            _ => Some((type_name(data_type), false)),
        },
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), false)),
        Expr::Interval(_) => Some(("interval".to_owned(), false)),
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => {
            Some(("bool".to_owned(), false))
        }
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(figure_name) {
            Some((name, true)) => Some((name, true)),
            _ => Some(("case".to_owned(), false)),
        },
        Expr::Subquery(query) => match &*query.body {
            SetExpr::Select(select) => match select.projection.first() {
                Some(SelectItem::UnnamedExpr(inner)) => figure_name(inner),
                Some(SelectItem::ExprWithAlias { alias, .. }) => Some((fold(alias), true)),
                _ => None,
            },
            _ => None,
        },
        Expr::Exists { .. } => strong("exists"),
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(sqlparser::ast::TrimWhereField::Leading) => "ltrim",
            Some(sqlparser::ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        _ => None,
    }
}

/// The last part of PostgreSQL's internal name of a type.
fn type_name(data_type: &sqlparser::ast::DataType) -> String {
    match crate::parse::parse_type(data_type) {
        Ok(sql_type) => internal_type_name(&sql_type),
        Err(_) => data_type.to_string().to_lowercase(),
    }
}

/// PostgreSQL's internal name of a type: `int4`, `varchar`, `timestamptz`.
pub(super) fn internal_type_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::Bool => "bool".to_owned(),
        SqlType::Int2 => "int2".to_owned(),
        SqlType::Int4 => "int4".to_owned(),
        SqlType::Int8 => "int8".to_owned(),
        SqlType::Float4 => "float4".to_owned(),
        SqlType::Float8 => "float8".to_owned(),
        SqlType::Numeric(_) => "numeric".to_owned(),
        SqlType::VarChar(_) => "varchar".to_owned(),
        SqlType::Char(_) => "bpchar".to_owned(),
        SqlType::Time => "time".to_owned(),
        SqlType::Timestamp => "timestamp".to_owned(),
        SqlType::TimestampTz => "timestamptz".to_owned(),
        SqlType::QuotedChar => "char".to_owned(),
        SqlType::Array(element) => internal_type_name(element),
        other => other.to_string(),
    }
}

fn number(digits: &str, negative: bool) -> Result<Expr, Error> {
    let text = if negative {
        format!("-{digits}")
    } else {
        digits.to_owned()
    }
    .replace('_', "");
    let literal = |digits: &str| Expr::value(Value::Number(digits.to_owned(), true));
    let magnitude = literal(&digits.replace('_', ""));
    let signed = if negative {
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: Box::new(magnitude),
        }
    } else {
        magnitude
    };
    if text.parse::<i32>().is_ok() {
        return Ok(marker("int4", vec![signed]));
    }
    if text.parse::<i64>().is_ok() {
        return Ok(marker("int8", vec![signed]));
    }
    Ok(marker("numeric", vec![string(text)]))
}

/// A decimal number without exponent; `None` if it has too many digits to be written out.
pub(super) fn plain_decimal(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let (mantissa, exponent) = match lower.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (lower.as_str(), 0),
    };
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    if scale.unsigned_abs() > 76 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    while scale < 0 {
        digits.push('0');
        scale += 1;
    }
    let scale = usize::try_from(scale).ok()?;
    while digits.len() <= scale {
        digits.insert(0, '0');
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

fn rewrite_expr(ctx: &PlanContext<'_>, expr: Expr) -> Result<Expr, Error> {
    Ok(match expr {
        Expr::Value(value) if is_protected(&value.value) => Expr::Value(value),
        Expr::Value(ref value) => match &value.value {
            Value::Number(digits, false) => number(digits, false)?,
            _ => expr,
        },
        // The operand was rewritten before: -1 is one literal, as in PostgreSQL.
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr: operand,
        } => match literal_digits(&operand) {
            Some(digits) => number(&digits, true)?,
            None => marker("negate", vec![*operand]),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Plus,
            expr: operand,
        } => *operand,
        Expr::Identifier(ident)
            if ident.quote_style.is_none()
                && ["current_role", "current_schema"]
                    .iter()
                    .any(|name| ident.value.eq_ignore_ascii_case(name)) =>
        {
            match call(&fold(&ident), Vec::new()) {
                Expr::Function(function) => rewrite_function(ctx, function)?,
                other => other,
            }
        }
        Expr::Collate {
            expr: inner,
            collation,
        } => {
            let name = names::fold_name(&collation).pop().unwrap_or_default();
            if !matches!(
                name.to_ascii_lowercase().as_str(),
                "default" | "c" | "posix" | "ucs_basic" | "c.utf-8" | "c.utf8"
            ) {
                return Err(Error::unsupported(format!(
                    "collation \"{name}\" is not supported"
                )));
            }
            *inner
        }
        Expr::BinaryOp { left, op, right } => match (*left, operator(op)?, *right) {
            // Rows are equal if their fields are.
            (
                Expr::Tuple(left),
                op @ (BinaryOperator::Eq | BinaryOperator::NotEq),
                Expr::Tuple(right),
            ) if left.len() == right.len() && !left.is_empty() => {
                let combine = if op == BinaryOperator::Eq {
                    BinaryOperator::And
                } else {
                    BinaryOperator::Or
                };
                let fields = left
                    .into_iter()
                    .zip(right)
                    .map(|(left, right)| binary(left, op.clone(), right));
                let all = fields
                    .reduce(|left, right| binary(left, combine.clone(), right))
                    .unwrap_or_else(|| Expr::value(Value::Null));
                Expr::Nested(Box::new(all))
            }
            (left, op, right) => binary(left, op, right),
        },
        Expr::Cast {
            expr: inner,
            data_type,
            ..
        } => rewrite_cast(ctx, *inner, &data_type)?,
        Expr::TypedString(typed) => {
            let text = typed.value.into_string().unwrap_or_default();
            rewrite_cast(ctx, string(text), &typed.data_type)?
        }
        Expr::Interval(interval) => {
            let text = interval_text(&interval)?;
            constant(text, &SqlType::Interval)
        }
        Expr::Between {
            expr: value,
            negated,
            low,
            high,
        } => {
            let value = *value;
            let above = binary(value.clone(), BinaryOperator::GtEq, *low);
            let below = binary(value, BinaryOperator::LtEq, *high);
            negate_if(
                negated,
                Expr::Nested(Box::new(binary(above, BinaryOperator::And, below))),
            )
        }
        Expr::InList {
            expr: value,
            list,
            negated,
        } => {
            let mut values = vec![*value];
            values.extend(list);
            marker(if negated { "notin" } else { "in" }, values)
        }
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => case(operand, conditions, else_result)?,
        Expr::AtTimeZone {
            timestamp,
            time_zone,
        } => call("timezone", vec![*time_zone, *timestamp]),
        Expr::Function(function) => rewrite_function(ctx, function)?,
        // `(record).field`
        Expr::CompoundFieldAccess { root, access_chain }
            if access_chain
                .iter()
                .all(|access| matches!(access, AccessExpr::Dot(Expr::Identifier(_)))) =>
        {
            access_chain
                .iter()
                .fold(*root, |record, access| match access {
                    AccessExpr::Dot(Expr::Identifier(field)) => {
                        marker(&format!("field:{}", fold(field)), vec![record])
                    }
                    _ => record,
                })
        }
        Expr::Like {
            negated,
            any: false,
            expr,
            pattern,
            escape_char,
        } if needs_matcher(&pattern, escape_char.as_ref()) => {
            let op = if negated {
                BinaryOperator::PGNotLikeMatch
            } else {
                BinaryOperator::PGLikeMatch
            };
            binary(*expr, op, escaped_pattern(*pattern, escape_char))
        }
        Expr::ILike {
            negated,
            any: false,
            expr,
            pattern,
            escape_char,
        } if needs_matcher(&pattern, escape_char.as_ref()) => {
            let op = if negated {
                BinaryOperator::PGNotILikeMatch
            } else {
                BinaryOperator::PGILikeMatch
            };
            binary(*expr, op, escaped_pattern(*pattern, escape_char))
        }
        Expr::Subquery(query) => scalar_subquery(*query)?,
        Expr::SimilarTo {
            negated,
            expr: value,
            pattern,
            escape_char,
        } => {
            let escape = match escape_char.map(|escape| escape.value) {
                None => Some('\\'),
                Some(Value::SingleQuotedString(text)) => text.chars().next(),
                Some(_) => None,
            };
            let Some(text) = literal_text(&pattern) else {
                return Err(Error::unsupported(
                    "SIMILAR TO with a pattern that is not a literal is not supported",
                ));
            };
            let op = if negated {
                BinaryOperator::PGRegexNotMatch
            } else {
                BinaryOperator::PGRegexMatch
            };
            binary(*value, op, string(similar_pattern(&text, escape)))
        }
        Expr::IsDistinctFrom(left, right) => marker("distinct", vec![*left, *right]),
        Expr::IsNotDistinctFrom(left, right) => marker("notdistinct", vec![*left, *right]),
        Expr::AnyOp {
            left,
            compare_op: BinaryOperator::Eq,
            right,
            ..
        } if !matches!(*right, Expr::Subquery(_)) => marker("any", vec![*left, *right]),
        Expr::AllOp {
            left,
            compare_op: BinaryOperator::NotEq,
            right,
        } if !matches!(*right, Expr::Subquery(_)) => {
            negate_if(true, marker("any", vec![*left, *right]))
        }
        other => other,
    })
}

/// The pattern of `LIKE pattern ESCAPE escape`, as LIKE without ESCAPE has it.
fn escaped_pattern(pattern: Expr, escape: Option<sqlparser::ast::ValueWithSpan>) -> Expr {
    match escape {
        Some(escape) => call("like_escape", vec![pattern, Expr::Value(escape)]),
        None => pattern,
    }
}

/// Longest literal that LIKE keeps as it is: DataFusion makes a regular expression of most.
const LIKE_LITERAL_BYTES_MAX: usize = 1000;

/// Whether LIKE becomes an operator of ours.
fn needs_matcher(pattern: &Expr, escape: Option<&sqlparser::ast::ValueWithSpan>) -> bool {
    escape.is_some() || literal_text(pattern).is_none_or(|text| text.len() > LIKE_LITERAL_BYTES_MAX)
}

/// The regular expression that a pattern of SIMILAR TO is.
fn similar_pattern(pattern: &str, escape: Option<char>) -> String {
    let mut regex = String::from("^(?:");
    let mut letters = pattern.chars();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            letter if Some(letter) == escape => {
                if let Some(next) = letters.next() {
                    if !next.is_alphanumeric() {
                        regex.push('\\');
                    }
                    regex.push(next);
                }
            }
            '[' => {
                in_class = true;
                regex.push('[');
            }
            ']' => {
                in_class = false;
                regex.push(']');
            }
            letter if in_class => regex.push(letter),
            '%' => regex.push_str("(?s:.*)"),
            '_' => regex.push_str("(?s:.)"),
            '.' | '^' | '$' | '\\' => {
                regex.push('\\');
                regex.push(letter);
            }
            other => regex.push(other),
        }
    }
    regex.push_str(")$");
    regex
}

fn literal_digits(expr: &Expr) -> Option<String> {
    let Expr::Dictionary(fields) = expr else {
        return None;
    };
    let [DictionaryField { key, value }] = fields.as_slice() else {
        return None;
    };
    let Expr::Value(value) = &**value else {
        return None;
    };
    match (key.value.strip_prefix(INTERNAL)?, &value.value) {
        ("int4" | "int8", Value::Number(digits, _))
        | ("numeric", Value::SingleQuotedString(digits)) => {
            (!digits.starts_with('-')).then(|| digits.clone())
        }
        _ => None,
    }
}

/// `OPERATOR(pg_catalog.~)` is `~`.
fn operator(op: BinaryOperator) -> Result<BinaryOperator, Error> {
    let name = match &op {
        BinaryOperator::PGCustomBinaryOperator(parts) => parts.last().map_or("", String::as_str),
        BinaryOperator::Custom(name) => name,
        _ => return Ok(op),
    };
    Ok(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        "||" => BinaryOperator::StringConcat,
        "->" => BinaryOperator::Arrow,
        "->>" => BinaryOperator::LongArrow,
        "@>" => BinaryOperator::AtArrow,
        "<@" => BinaryOperator::ArrowAt,
        "&" => BinaryOperator::BitwiseAnd,
        "|" => BinaryOperator::BitwiseOr,
        other => {
            return Err(Error::new(
                ErrorKind::UndefinedFunction,
                format!("operator does not exist: {other}"),
            ));
        }
    })
}

fn interval_text(interval: &sqlparser::ast::Interval) -> Result<String, Error> {
    let unsupported =
        || Error::unsupported(format!("interval literal {interval} is not supported"));
    let text = match &*interval.value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text.clone(),
            _ => return Err(unsupported()),
        },
        other => literal_digits(other).ok_or_else(unsupported)?,
    };
    if interval.last_field.is_some() {
        return Err(unsupported());
    }
    Ok(match &interval.leading_field {
        None => text,
        Some(field) if text.trim().parse::<f64>().is_ok() => {
            format!("{} {}", text.trim(), field_name(field))
        }
        Some(_) => text,
    })
}

fn field_name(field: &DateTimeField) -> String {
    field.to_string().to_lowercase()
}

fn case(
    operand: Option<Box<Expr>>,
    conditions: Vec<CaseWhen>,
    else_result: Option<Box<Expr>>,
) -> Result<Expr, Error> {
    if conditions.len() > 1 && operand.as_deref().is_some_and(calls_chance) {
        return Err(Error::unsupported(
            "CASE of a function of chance with several values is not supported",
        )
        .with_hint("Call the function in a subquery in FROM."));
    }
    let mut values = Vec::new();
    for CaseWhen { condition, result } in conditions {
        values.push(match &operand {
            Some(operand) => binary((**operand).clone(), BinaryOperator::Eq, condition),
            None => condition,
        });
        values.push(result);
    }
    values.extend(else_result.map(|result| *result));
    Ok(marker("case", values))
}

/// Whether a part of a tree calls a function of chance.
pub(super) fn calls_chance(part: &impl sqlparser::ast::Visit) -> bool {
    let outcome = sqlparser::ast::visit_expressions(part, |expr| {
        let name = match expr {
            Expr::Function(function) => names::fold_name(&function.name).pop(),
            _ => None,
        };
        match name.and_then(|name| flowstone_functions::registry().scalar(&name)) {
            Some(function) if function.signature().volatility == Volatility::Volatile => {
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        }
    });
    outcome.is_break()
}

fn rewrite_cast(
    ctx: &PlanContext<'_>,
    inner: Expr,
    data_type: &sqlparser::ast::DataType,
) -> Result<Expr, Error> {
    let to = crate::parse::parse_type(data_type)?;
    if let SqlType::Reg(kind) = to {
        if let Some(text) = literal_text(&inner) {
            return catalog_functions::reg_constant(ctx, kind, &text);
        }
    } else if matches!(to, SqlType::Text | SqlType::VarChar(_) | SqlType::Name)
        && let Some((kind, reg)) = as_reg(&inner)
    {
        return Ok(catalog_functions::reg_name(ctx, kind, reg));
    }
    let is_constant =
        matches!(&inner, Expr::Value(value) if !matches!(value.value, Value::Placeholder(_)));
    if to == SqlType::Reg(RegKind::Class) && !is_constant {
        let lookup = catalog_functions::class_lookup(ctx, &inner);
        return Ok(marker(&format!("cast:{to}"), vec![inner, lookup]));
    }
    Ok(cast(inner, &to))
}

/// The text of a string literal.
pub(super) fn literal_text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Some(text.clone())
            }
            Value::DollarQuotedString(text) => Some(text.value.clone()),
            _ => None,
        },
        Expr::Nested(inner) => literal_text(inner),
        // A cast of a literal to text: 'x'::text::regclass.
        Expr::Dictionary(fields) => match fields.as_slice() {
            [DictionaryField { key, value }]
                if key.value.strip_prefix(INTERNAL) == Some("cast:text") =>
            {
                literal_text(value)
            }
            _ => None,
        },
        _ => None,
    }
}

/// The operand of a cast to a `reg…` type, and which type that is.
fn as_reg(expr: &Expr) -> Option<(RegKind, Expr)> {
    match expr {
        Expr::Nested(inner) => as_reg(inner),
        Expr::Dictionary(fields) => match fields.as_slice() {
            [DictionaryField { key, value }, ..] => {
                let kind = match key.value.strip_prefix(INTERNAL)? {
                    "cast:regclass" => RegKind::Class,
                    "cast:regtype" => RegKind::Type,
                    "cast:regproc" => RegKind::Proc,
                    "cast:regnamespace" => RegKind::Namespace,
                    _ => return None,
                };
                Some((kind, (**value).clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

fn rewrite_function(ctx: &PlanContext<'_>, mut function: Function) -> Result<Expr, Error> {
    let parts = names::fold_name(&function.name);
    let Some(name) = parts.last().cloned() else {
        return Ok(Expr::Function(function));
    };
    if parts.len() > 1
        && !parts.first().is_some_and(|schema| {
            [
                "pg_catalog",
                "mz_catalog",
                "mz_internal",
                "information_schema",
            ]
            .contains(&schema.as_str())
        })
    {
        return Err(Error::new(
            ErrorKind::UndefinedFunction,
            format!("function {} does not exist", parts.join(".")),
        ));
    }
    function.name = ObjectName::from(vec![quoted(&name)]);
    if let FunctionArguments::Subquery(query) = function.args {
        if name != "array" {
            return Err(Error::syntax(format!(
                "function {name} cannot take a bare subquery"
            )));
        }
        return array_subquery(*query);
    }
    let plain =
        function.over.is_none() && function.filter.is_none() && function.within_group.is_empty();
    if plain && let Some(arguments) = plain_arguments(&function.args) {
        if let Some(rewritten) = catalog_functions::rewrite(ctx, &name, arguments)? {
            return Ok(rewritten);
        }
        if let Some(rewritten) = special_form(&name, arguments)? {
            return Ok(rewritten);
        }
    }
    if function.over.is_some()
        && matches!(
            name.as_str(),
            "row_number" | "rank" | "dense_rank" | "ntile"
        )
    {
        let result = if name == "ntile" {
            SqlType::Int4
        } else {
            SqlType::Int8
        };
        return Ok(cast(Expr::Function(function), &result));
    }
    if plain
        && name != "unnest"
        && SET_RETURNING.contains(&name.as_str())
        && let Some(arguments) = plain_arguments(&function.args)
    {
        let values = arguments.iter().filter_map(argument_expr).collect();
        return Ok(call(
            "unnest",
            vec![marker(&format!("set:{}", array_function(&name)), values)],
        ));
    }
    let functions = flowstone_functions::registry();
    let known = matches!(
        name.as_str(),
        "jsonb_agg" | "json_agg" | "jsonb_object_agg" | "json_object_agg"
    ) || functions.scalar(&name).is_some()
        || functions.aggregate(&name).is_some()
        || functions.window(&name).is_some()
        || name == "unnest";
    if !known {
        let mut arguments: Vec<Expr> = plain_arguments(&function.args)
            .unwrap_or_default()
            .iter()
            .filter_map(argument_expr)
            .collect();
        arguments.insert(0, string(name));
        return Ok(marker("unknown function", arguments));
    }
    if matches!(
        name.as_str(),
        "jsonb_agg" | "json_agg" | "jsonb_object_agg" | "json_object_agg"
    ) && function.over.is_none()
    {
        return json_aggregate(function, name.contains("object"));
    }
    if matches!(name.as_str(), "string_agg" | "array_agg") && function.over.is_none() {
        order_distinct(&mut function);
        protect_order(&mut function);
        if name == "array_agg" {
            return Ok(marker("array", vec![Expr::Function(function)]));
        }
    }
    Ok(Expr::Function(function))
}

/// `jsonb_agg(x)` is the array of the values, `jsonb_object_agg(k, v)` the arrays of both, put together.
fn json_aggregate(function: Function, object: bool) -> Result<Expr, Error> {
    let FunctionArguments::List(list) = &function.args else {
        return Err(Error::syntax("an aggregate of jsonb takes arguments"));
    };
    let over = |argument: Expr| {
        let mut collected = function.clone();
        collected.name = ObjectName::from(vec![Ident::new("array_agg")]);
        if let FunctionArguments::List(list) = &mut collected.args {
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))];
        }
        protect_order(&mut collected);
        Expr::Function(collected)
    };
    let values: Vec<Expr> = list.args.iter().filter_map(argument_expr).collect();
    match (object, values.as_slice()) {
        (false, [value]) => Ok(call("to_jsonb", vec![over(value.clone())])),
        (true, [key, value]) => Ok(call(
            "jsonb_object_lists",
            vec![
                over(cast(key.clone(), &SqlType::Text)),
                over(call("to_jsonb", vec![value.clone()])),
            ],
        )),
        _ => Err(Error::syntax(
            "wrong number of arguments to an aggregate of jsonb",
        )),
    }
}

/// `array_agg(DISTINCT x)` yields its items in order.
fn order_distinct(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else {
        return;
    };
    let distinct = list.duplicate_treatment == Some(sqlparser::ast::DuplicateTreatment::Distinct);
    if distinct
        && list.clauses.is_empty()
        && let Some(item) = list.args.first().and_then(argument_expr)
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(vec![
            sqlparser::ast::OrderByExpr {
                expr: item,
                options: sqlparser::ast::OrderByOptions {
                    asc: None,
                    nulls_first: None,
                },
                with_fill: None,
            },
        ]));
    }
}

fn protect_order(function: &mut Function) {
    if let FunctionArguments::List(list) = &mut function.args {
        for clause in &mut list.clauses {
            if let FunctionArgumentClause::OrderBy(order) = clause {
                for item in order {
                    protect(&mut item.expr);
                }
            }
        }
    }
}

fn plain_arguments(arguments: &FunctionArguments) -> Option<&[FunctionArg]> {
    match arguments {
        FunctionArguments::None => Some(&[]),
        FunctionArguments::List(list)
            if list.duplicate_treatment.is_none() && list.clauses.is_empty() =>
        {
            Some(&list.args)
        }
        _ => None,
    }
}

/// The expression of an unnamed argument.
pub(super) fn argument_expr(argument: &FunctionArg) -> Option<Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

/// Calls whose arguments must come to one type.
fn special_form(name: &str, arguments: &[FunctionArg]) -> Result<Option<Expr>, Error> {
    if !matches!(name, "coalesce" | "nullif" | "greatest" | "least") {
        return Ok(None);
    }
    let values: Vec<Expr> = arguments.iter().filter_map(argument_expr).collect();
    let right_count = if name == "nullif" {
        values.len() == 2
    } else {
        !values.is_empty()
    };
    if !right_count {
        return Err(Error::syntax(format!(
            "wrong number of arguments to {}",
            name.to_uppercase()
        )));
    }
    Ok(Some(marker(&format!("unify:{name}"), values)))
}
