//! Rows of VALUES and branches of set operations: what tells the types of those that have none, and which operations our relation planner does.
//!
//! Called by [`super`] for each query.

use sqlparser::ast::{
    Expr, SetExpr, SetOperator, SetQuantifier, TableFactor, TableWithJoins, Value,
};

use super::item_names::item_expr;
use super::terms::marker;
use crate::plan::names::{self, table_alias};

/// Alias of the nested join that stands for EXCEPT ALL and INTERSECT ALL.
pub(in crate::plan) const EXCEPT_ALL: &str = "\u{1}except all";
/// See [`EXCEPT_ALL`].
pub(in crate::plan) const INTERSECT_ALL: &str = "\u{1}intersect all";
/// The same for UNION ALL with literals whose type the other branch tells.
pub(in crate::plan) const UNION_ALL: &str = "\u{1}union all";
/// See [`UNION_ALL`].
pub(in crate::plan) const UNION_DISTINCT: &str = "\u{1}union";

/// Cells of VALUES are settled one by one: see the marker.
pub(super) fn mark_cells(body: &mut SetExpr) {
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
pub(super) enum Branch {
    /// A text literal or a parameter: its type is that of the column in the other branch.
    Untyped,
    /// Anything else.
    Typed,
}

/// DataFusion plans EXCEPT ALL and INTERSECT ALL as joins, which gives wrong multiplicities, and makes text of UNIONs with literals: hand them to our
/// relation planner. Returns what is known of the first columns.
pub(super) fn rewrite_set_operations(body: &mut SetExpr, recursive: bool) -> Vec<Branch> {
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
