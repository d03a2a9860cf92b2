//! Arguments that are given by name: `make_interval(days => 10)`.
//!
//! Owns their order and the errors of names that there are not. Which parameters have names `functions` knows. Called by [`super::call`].

use flowstone_functions::resolve::{NamedParameter, named_parameters};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArgOperator};

use crate::bind::Binder;
use crate::error::{Error, ErrorKind};
use crate::names::fold;

/// What a call is that PostgreSQL has no function for.
const NO_FUNCTION: &str = "No function matches the given name and argument types. You might need to add explicit type casts.";

/// An argument, and its name if it has one.
struct Given<'e> {
    name: Option<String>,
    value: &'e ast::Expr,
}

/// The arguments as they are written.
fn given(args: &[FunctionArg]) -> Result<Vec<Given<'_>>, Error> {
    let mut all: Vec<Given<'_>> = Vec::with_capacity(args.len());
    for arg in args {
        let next = match arg {
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(value),
                operator: FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment,
            } => Given {
                name: Some(fold(name)),
                value,
            },
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Given { name: None, value },
            other => {
                return Err(Error::unsupported(format!(
                    "function argument {other} is not supported here"
                )));
            }
        };
        match &next.name {
            Some(name) if all.iter().any(|before| before.name.as_ref() == Some(name)) => {
                return Err(Error::syntax(format!(
                    "argument name \"{name}\" used more than once"
                )));
            }
            None if all.iter().any(|before| before.name.is_some()) => {
                return Err(Error::syntax(
                    "positional argument cannot follow named argument",
                ));
            }
            _ => all.push(next),
        }
    }
    Ok(all)
}

/// The arguments in the order of the parameters; `None` if they do not fit these.
fn in_order(given: &[Given<'_>], parameters: &[NamedParameter]) -> Option<Vec<ast::Expr>> {
    let mut slots: Vec<Option<&ast::Expr>> = vec![None; parameters.len()];
    for (index, argument) in given.iter().enumerate() {
        let index = match &argument.name {
            None => index,
            Some(name) => parameters
                .iter()
                .position(|parameter| parameter.name == name)?,
        };
        let slot = slots.get_mut(index)?;
        if slot.replace(argument.value).is_some() {
            return None;
        }
    }
    let count = slots.iter().rposition(Option::is_some)? + 1;
    slots
        .into_iter()
        .zip(parameters)
        .take(count)
        .map(|(slot, parameter)| match slot {
            Some(value) => Some(value.clone()),
            None => parameter
                .default
                .map(|number| ast::Expr::value(ast::Value::Number(number.to_owned(), false))),
        })
        .collect()
}

/// Whether an argument has a name.
pub(super) fn any_named(args: &[FunctionArg]) -> bool {
    args.iter()
        .any(|arg| !matches!(arg, FunctionArg::Unnamed(_)))
}

impl Binder<'_> {
    /// Arguments of which some are named, in the order of the parameters of `function`.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedFunction`] if it has no such parameters, [`ErrorKind::Syntax`] for names that are given twice or before positions.
    pub(super) fn named_arguments(
        &mut self,
        function: &str,
        args: &[FunctionArg],
    ) -> Result<Vec<ast::Expr>, Error> {
        let given = given(args)?;
        let parameters = named_parameters(function).unwrap_or_default();
        if let Some(exprs) = in_order(&given, parameters) {
            return Ok(exprs);
        }
        let mut shown = Vec::with_capacity(given.len());
        for argument in given {
            let value = self.expr(argument.value)?;
            let of = value.of.name();
            shown.push(match argument.name {
                Some(name) => format!("{name} => {of}"),
                None => of,
            });
        }
        let shown = shown.join(", ");
        let message = format!("function {function}({shown}) does not exist");
        Err(Error::new(ErrorKind::UndefinedFunction, message).with_hint(NO_FUNCTION))
    }
}
