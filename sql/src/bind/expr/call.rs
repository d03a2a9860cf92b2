//! Calls of functions.
//!
//! Owns what a name with parentheses behind it can be: a function of the session or the catalog, a construct, a set-returning function, an aggregate, a window
//! function, or a scalar function. Called by [`super`].

use flowstone_functions::FunctionKind;
use flowstone_functions::resolve::{CallError, Called, kind_of, resolve_scalar};
use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments};
use sqlparser::tokenizer::Span;

use super::json_path::check_argument;
use super::name_span;
use super::named::any_named;
use super::operator::unresolved;
use crate::bind::Binder;
use crate::bind::catalog_names;
use crate::bind::series::yields_rows;
use crate::bind::value::{Value, made, text};
use crate::error::{Error, ErrorKind};
use crate::names;

/// Schemas in which functions are.
const SCHEMAS: [&str; 4] = [
    "pg_catalog",
    "mz_catalog",
    "mz_internal",
    "information_schema",
];

/// Functions that make documents of rows.
const MAKE_DOCUMENTS: [&str; 8] = [
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "row_to_json",
    "to_json",
    "to_jsonb",
    "jsonb_agg",
];

/// The arguments of a call.
#[derive(Debug)]
pub(in crate::bind) enum Arguments<'e> {
    /// `f(*)`
    Everything,
    /// `f(a, b, …)`
    Listed(Vec<&'e ast::Expr>),
}

/// The list of arguments as it is written.
pub(in crate::bind) fn listed(args: &[FunctionArg]) -> Result<Arguments<'_>, Error> {
    listed_with(args, &[])
}

/// `relation.*` among arguments, each as an expression.
fn whole_rows(args: &FunctionArguments) -> Vec<ast::Expr> {
    let FunctionArguments::List(list) = args else {
        return Vec::new();
    };
    list.args
        .iter()
        .filter_map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name)) => Some(
                ast::Expr::QualifiedWildcard(name.clone(), AttachedToken::empty()),
            ),
            _ => None,
        })
        .collect()
}

/// The list of arguments, where `rows` are those that [`whole_rows`] found.
fn listed_with<'e>(args: &'e [FunctionArg], rows: &'e [ast::Expr]) -> Result<Arguments<'e>, Error> {
    let mut rows = rows.iter();
    let mut found = Vec::with_capacity(args.len());
    for arg in args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => found.push(expr),
            FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(_))
                if !rows.as_slice().is_empty() =>
            {
                found.extend(rows.next());
            }
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if args.len() == 1 => {
                return Ok(Arguments::Everything);
            }
            other => {
                return Err(Error::unsupported(format!(
                    "function argument {other} is not supported here"
                )));
            }
        }
    }
    Ok(Arguments::Listed(found))
}

/// The name of a function, without its schema.
///
/// # Errors
/// [`ErrorKind::UndefinedFunction`] if no functions are in that schema.
pub(in crate::bind) fn function_name(name: &ast::ObjectName) -> Result<String, Error> {
    let mut parts = names::fold_name(name);
    let last = parts.pop().unwrap_or_default();
    if parts
        .last()
        .is_some_and(|schema| !SCHEMAS.contains(&schema.as_str()))
    {
        return Err(Error::new(
            ErrorKind::UndefinedFunction,
            format!("function {}.{last} does not exist", parts.join(".")),
        ));
    }
    Ok(last)
}

fn is_plain(function: &ast::Function) -> bool {
    let clauses = match &function.args {
        FunctionArguments::List(list) => {
            list.duplicate_treatment.is_some() || !list.clauses.is_empty()
        }
        FunctionArguments::None | FunctionArguments::Subquery(_) => false,
    };
    !clauses
        && function.filter.is_none()
        && function.within_group.is_empty()
        && function.over.is_none()
}

/// The form in `normalize(text, NFC)`, which is a word there.
fn normal_form(function: &str, index: usize, argument: &ast::Expr) -> Option<String> {
    let ast::Expr::Identifier(ident) = argument else {
        return None;
    };
    let form = ident.value.to_ascii_uppercase();
    let is_form =
        ident.quote_style.is_none() && matches!(form.as_str(), "NFC" | "NFD" | "NFKC" | "NFKD");
    (function == "normalize" && index == 1 && is_form).then_some(form)
}

fn is_aggregate(name: &str) -> bool {
    name == "grouping" || kind_of(name) == Some(FunctionKind::Aggregate)
}

/// Refuses the name of a function that is none, or that only plans call.
///
/// # Errors
/// [`ErrorKind::UndefinedFunction`]
pub(in crate::bind) fn refuse_unknown(name: &str, args: &[Value]) -> Result<(), Error> {
    if kind_of(name).is_some() {
        return Ok(());
    }
    let called = Called::Function {
        name: name.to_owned(),
        given: args.iter().map(Value::given).collect(),
    };
    Err(unresolved(&CallError::Undefined(called)))
}

impl Binder<'_> {
    /// A call as it is written.
    pub(super) fn call(&mut self, function: &ast::Function) -> Result<Value, Error> {
        let span = name_span(&function.name);
        self.called(function, span)
            .map_err(|error| self.placed(error, span))
    }

    fn called(&mut self, function: &ast::Function, span: Span) -> Result<Value, Error> {
        let name = function_name(&function.name)?;
        let rows = whole_rows(&function.args);
        let named;
        let arguments = match &function.args {
            FunctionArguments::None => Arguments::Listed(Vec::new()),
            FunctionArguments::List(list) if any_named(&list.args) => {
                named = self.named_arguments(&name, &list.args)?;
                Arguments::Listed(named.iter().collect())
            }
            FunctionArguments::List(list) => listed_with(&list.args, &rows)?,
            FunctionArguments::Subquery(query) => {
                if name == "array" {
                    return self.array_subquery(query);
                }
                return Err(Error::syntax(format!(
                    "function {name} cannot take a bare subquery"
                )));
            }
        };
        if let Some(over) = &function.over {
            return self.window_call(&name, function, &arguments, over);
        }
        if is_aggregate(&name) {
            return self.aggregate_call(&name, function, &arguments);
        }
        if !is_plain(function) {
            return Err(Error::new(
                ErrorKind::WrongObjectType,
                format!("{name} is not an aggregate function"),
            ));
        }
        if kind_of(&name) == Some(FunctionKind::Window) {
            return Err(Error::new(
                ErrorKind::WrongObjectType,
                format!("window function {name} requires an OVER clause"),
            ));
        }
        let exprs = match arguments {
            Arguments::Listed(exprs) => exprs,
            Arguments::Everything => {
                return Err(Error::new(
                    ErrorKind::WrongObjectType,
                    format!("{name}(*) specified, but {name} is not an aggregate function"),
                ));
            }
        };
        if name == "row" {
            return self.row_of(&exprs);
        }
        if matches!(name.as_str(), "coalesce" | "greatest" | "least" | "nullif") {
            let construct = name.to_uppercase();
            let args = self.no_series(&construct, |binder| binder.scalars(exprs))?;
            return self.function(&name, args, span);
        }
        let mut args = Vec::with_capacity(exprs.len());
        for expr in exprs {
            args.push(match normal_form(&name, args.len(), expr) {
                Some(form) => text(form),
                None => self.expr(expr)?,
            });
        }
        if let Some(value) = self.catalog_function(&name, &args)? {
            return Ok(value);
        }
        if name == "unnest" || yields_rows(&name) {
            return self.series_call(&name, args, span);
        }
        refuse_unknown(&name, &args)?;
        // Its value is a document here, which is not what it takes.
        if name == "row_to_json" && !args.first().is_some_and(Value::is_row) {
            let given = args.iter().map(Value::given).collect();
            return Err(unresolved(&CallError::Undefined(Called::Function {
                name,
                given,
            })));
        }
        self.function(&name, args, span)
    }

    fn row_of(&mut self, exprs: &[&ast::Expr]) -> Result<Value, Error> {
        let mut fields = Vec::with_capacity(exprs.len());
        for (index, expr) in exprs.iter().enumerate() {
            fields.push((format!("f{}", index + 1), self.expr(expr)?));
        }
        Value::row(fields)
    }

    /// The call of a scalar function with these arguments.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedFunction`], [`ErrorKind::AmbiguousFunction`]
    pub(in crate::bind) fn function(
        &mut self,
        name: &str,
        args: Vec<Value>,
        span: Span,
    ) -> Result<Value, Error> {
        let mut values = Vec::with_capacity(args.len());
        for value in args {
            values.push(match value.fields()? {
                None => value,
                Some(_) if MAKE_DOCUMENTS.contains(&name) => self.document(value)?,
                Some(_) => {
                    let error = Error::unsupported(format!(
                        "a row as an argument of {name} is not supported"
                    ));
                    return Err(error.with_hint("Give the fields one by one."));
                }
            });
        }
        check_argument(name, &values).map_err(|error| self.placed(error, span))?;
        let given: Vec<_> = values.iter().map(Value::given).collect();
        let resolved =
            resolve_scalar(name, &given).map_err(|error| self.placed(unresolved(&error), span))?;
        let mut exprs = Vec::with_capacity(values.len());
        for (value, to) in values.into_iter().zip(&resolved.arguments) {
            exprs.push(self.argument(value, to)?.expr);
        }
        let result = made(resolved.result_for(&exprs))?;
        Ok(Value::new(made(resolved.expr(exprs))?, result))
    }

    /// A row as a document: its fields by their names.
    pub(in crate::bind) fn document(&mut self, row: Value) -> Result<Value, Error> {
        let Some(fields) = row.fields()? else {
            return Ok(row);
        };
        let mut members = Vec::with_capacity(2 * fields.len());
        for (name, field) in fields {
            members.push(text(name));
            members.push(field);
        }
        self.function("jsonb_build_object", members, Span::empty())
    }

    /// `value::to`, where a text may be the name of something in the catalog, and such a name a text.
    pub(super) fn cast_or_lookup(&mut self, value: Value, to: &SqlType) -> Result<Value, Error> {
        let is_text = matches!(
            value.sql_type(),
            Some(SqlType::Text | SqlType::VarChar(_) | SqlType::Name)
        );
        match to {
            SqlType::Reg(kind) if value.literal_text().is_some() => {
                let name = value.literal_text().unwrap_or_default();
                catalog_names::reg_constant(&self.ctx, *kind, name)
            }
            SqlType::Reg(RegKind::Class) if is_text || value.is_unknown() && !value.is_null() => {
                let found = self.class_lookup(value)?;
                self.explicit_cast(found, to)
            }
            SqlType::Text | SqlType::VarChar(_) | SqlType::Name => match value.sql_type() {
                Some(SqlType::Reg(kind)) => {
                    let kind = *kind;
                    let name = self.reg_name(kind, value)?;
                    self.explicit_cast(name, to)
                }
                _ => self.explicit_cast(value, to),
            },
            _ => self.explicit_cast(value, to),
        }
    }
}
