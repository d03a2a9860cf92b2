//! Operators and functions of arrays: what the items of their arguments have in common, and what of no type becomes beside them.
//!
//! Owns PostgreSQL's rules for `anycompatiblearray`. Must not know what the functions do. Called by [`super`].

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::PlannerResult;
use flowstone_functions::cast::cast_expr;
use flowstone_types::SqlType;
use sqlparser::ast::BinaryOperator;

use super::{
    PostgresTyping, Result, call, common_type, no_operator, raise, told, trimmed, type_of,
    unknown_function,
};
use crate::error::Error;
use crate::plan::literals;

/// What an argument of a function of arrays is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Array,
    Item,
    /// An `integer`.
    Position,
}

/// The arguments of a function.
fn roles_of(function: &str, count: usize) -> &'static [Role] {
    use Role::{Array, Item, Position};
    match function {
        "array_append" | "array_remove" | "array_positions" => &[Array, Item],
        "array_prepend" => &[Item, Array],
        "array_cat" => &[Array, Array],
        "array_replace" => &[Array, Item, Item],
        "array_position" if count == 3 => &[Array, Item, Position],
        "array_position" => &[Array, Item],
        _ => &[],
    }
}

fn array_of(item: &SqlType) -> SqlType {
    SqlType::Array(Box::new(item.clone()))
}

/// The type of the items that the arguments have in common; `None` if there is no such function of these types.
fn item_type(roles: &[Role], types: &[Option<SqlType>]) -> Option<SqlType> {
    if roles.is_empty() || roles.len() != types.len() {
        return None;
    }
    let mut items = Vec::new();
    for (role, sql_type) in roles.iter().zip(types) {
        match (role, sql_type) {
            (Role::Array, Some(array)) => items.push(Some(array.element()?)),
            (Role::Item, item) => items.push(item.clone()),
            _ => {}
        }
    }
    let common = common_type(&items).ok()?.unwrap_or(SqlType::Text);
    // A literal has as many characters and digits as it has.
    Some(if types.iter().any(Option::is_none) {
        common.without_modifier()
    } else {
        common
    })
}

/// The value as one of type `to`.
fn converted(
    typing: &PostgresTyping,
    value: Expr,
    from: Option<SqlType>,
    to: &SqlType,
) -> Result<Expr> {
    match from {
        None => typing.adapt(value, to),
        Some(_) if literals::is_wide(&value) => literals::settled(value, to),
        Some(from) if from == *to => Ok(value),
        Some(from) => cast_expr(value, &from, to),
    }
}

/// How a function treats blanks at the end of items.
enum Blanks {
    /// It shows them.
    Shown,
    /// It does not see them, and yields no items.
    Unseen,
    /// It does not see them, and yields items, all padded to this type.
    Restored(SqlType),
}

/// A call of a function of arrays.
pub(super) fn array_call(
    typing: &PostgresTyping,
    function: &str,
    values: Vec<Expr>,
    schema: &DFSchema,
) -> Result<Expr> {
    let types = values
        .iter()
        .map(|value| type_of(value, schema))
        .collect::<Result<Vec<_>>>()?;
    let roles = roles_of(function, values.len());
    let Some(item) = item_type(roles, &types) else {
        let name = Expr::Literal(ScalarValue::Utf8(Some(function.to_owned())), None);
        let named = std::iter::once(name).chain(values).collect();
        return Err(raise(unknown_function(named, schema)?));
    };
    let blanks = match function {
        _ if !item.is_padded() => Blanks::Shown,
        "array_append" | "array_prepend" | "array_cat" => Blanks::Shown,
        "array_position" | "array_positions" => Blanks::Unseen,
        _ => match types.first() {
            Some(Some(SqlType::Array(own)))
                if function == "array_remove" && !own.is_padded_unevenly() =>
            {
                Blanks::Restored(array_of(own))
            }
            _ => {
                return Err(raise(
                    Error::unsupported(format!(
                        "{function} over character values of several lengths is not supported"
                    ))
                    .with_hint("Cast the array to text[]."),
                ));
            }
        },
    };
    let seen = match blanks {
        Blanks::Shown => item,
        Blanks::Unseen | Blanks::Restored(_) => item.without_padding(),
    };
    let array = array_of(&seen);
    let args = values
        .into_iter()
        .zip(types)
        .zip(roles)
        .map(|((value, from), role)| match role {
            Role::Array => converted(typing, value, from, &array),
            Role::Item if !matches!(blanks, Blanks::Shown) && from.is_none() => {
                converted(typing, trimmed(value), None, &seen)
            }
            // Beside characters a text is one of these.
            Role::Item
                if !matches!(blanks, Blanks::Shown)
                    && !from.as_ref().is_some_and(SqlType::is_padded) =>
            {
                call("rtrim", vec![converted(typing, value, from, &seen)?])
            }
            Role::Item => converted(typing, value, from, &seen),
            Role::Position => match from {
                None => typing.adapt(value, &SqlType::Int4),
                Some(_) => Ok(value),
            },
        })
        .collect::<Result<Vec<_>>>()?;
    let result = call(function, args)?;
    match blanks {
        Blanks::Restored(array) => told(result, &array),
        Blanks::Shown | Blanks::Unseen => Ok(result),
    }
}

/// `||` of which one side is an array; the operands of any other operator.
pub(super) fn array_operator(
    typing: &PostgresTyping,
    op: &BinaryOperator,
    left: Expr,
    right: Expr,
    schema: &DFSchema,
) -> Result<PlannerResult<(Expr, Expr)>> {
    if *op != BinaryOperator::StringConcat {
        return Ok(PlannerResult::Original((left, right)));
    }
    let types = [type_of(&left, schema)?, type_of(&right, schema)?];
    let is_array = |sql_type: &Option<SqlType>| matches!(sql_type, Some(SqlType::Array(_)));
    let function = match &types {
        [one, other] if is_array(one) && is_array(other) => "array_cat",
        // What has no type is an array.
        [one, None] | [None, one] if is_array(one) => "array_cat",
        // Not of documents, of which one is made of an array.
        [one, Some(SqlType::Jsonb)] | [Some(SqlType::Jsonb), one]
            if is_array(one) && *one != Some(array_of(&SqlType::Jsonb)) =>
        {
            return Ok(PlannerResult::Original((left, right)));
        }
        [one, _] if is_array(one) => "array_append",
        [_, other] if is_array(other) => "array_prepend",
        _ => return Ok(PlannerResult::Original((left, right))),
    };
    let roles = roles_of(function, 2);
    if item_type(roles, &types).is_none() {
        let [left, right] = types.map(|known| known.unwrap_or(SqlType::Text));
        return Err(raise(no_operator("||", &left, &right)));
    }
    array_call(typing, function, vec![left, right], schema).map(PlannerResult::Planned)
}
