//! The names of output columns, as PostgreSQL gives them.
//!
//! Called by [`super`] for each SELECT list.

use flowstone_types::SqlType;
use sqlparser::ast::{
    AccessExpr, Expr, OrderBy, OrderByKind, Query, SelectItem, SelectItemQualifiedWildcardKind,
    SetExpr, Value,
};

use crate::plan::names::{self, INTERNAL, fold, quoted};

/// DISTINCT ON (1) means the first item.
pub(super) fn resolve_ordinal(expr: &mut Expr, projection: &[SelectItem]) {
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
pub(super) fn hide_cast_names(query: &mut Query) {
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
pub(in crate::plan) const fn item_expr(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

/// Gives each item of a select list the name PostgreSQL gives it, and names that occur again a suffix that is taken off at the edge.
pub(super) fn name_items(projection: &mut [SelectItem]) {
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
pub(in crate::plan) fn column_name(expr: &Expr) -> String {
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
fn internal_type_name(sql_type: &SqlType) -> String {
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
