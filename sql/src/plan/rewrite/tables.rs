//! Functions in FROM: those that yield rows as `unnest` of an array, others as one row.
//!
//! Owns which functions yield rows. Called by [`super`] and by [`crate::plan::using`] for each item of FROM.

use flowstone_types::SqlType;
use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, SelectItem,
    SetExpr, TableFactor,
};

use super::terms::{call, constant, marker};
use crate::error::Error;
use crate::plan::names::{self, INTERNAL, fold, quoted, table_alias};

/// Functions that yield a set of rows and are planned as `unnest` of the scalar function of that name, which yields an array.
pub(super) const SET_RETURNING: [&str; 13] = [
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

/// Gives a derived table a name, and writes a function in FROM as a query or as `unnest`, all its columns named.
pub(in crate::plan) fn prepare_factor(
    factor: &mut TableFactor,
    number: usize,
) -> Result<(), Error> {
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
pub(super) fn array_function(function: &str) -> &str {
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
