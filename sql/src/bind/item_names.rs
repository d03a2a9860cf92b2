//! The names of output columns, as PostgreSQL gives them.
//!
//! Called by [`super::select`] for each item without a name.

use flowstone_types::SqlType;
use sqlparser::ast::{AccessExpr, Expr, SelectItem, SetExpr};

use crate::names::{self, fold};

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
        Expr::Substring { shorthand, .. } => {
            strong(if *shorthand { "substr" } else { "substring" })
        }
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
