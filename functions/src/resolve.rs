//! Which function, operator, aggregate or cast a statement means: PostgreSQL's chapter 10 over tables of signatures.
//!
//! Owns the signatures of everything that can be called, the choice among them, the casts that are made without being asked for, and the type that several values have
//! in common. Must not know syntax trees, catalogs, sessions, nor values: what depends on these (`now()`, `current_schema()`, `pg_get_viewdef()`) is not in the tables.
//! `pg_proc` is made of the same tables. Called by `sql::bind`, which gives the types of arguments, casts them as it is told ([`crate::cast::cast_expr`]) and gets an expression back.
//!
//! Invariants. Types of signatures have no modifiers; those of calls have the ones that are needed to lose nothing. The arguments of a call's `expr` are of exactly the
//! types of its `arguments`, and its value of the type `result` (or [`ScalarCall::result_for`]): both are read off the field that the function itself returns.
//! Functions do not see the padding of `character(n)`, but for those that print.

mod aggregates;
mod built;
mod casts;
mod category;
mod choose;
mod collected;
mod common;
mod constructs;
mod error;
mod listed;
mod meaning;
mod named;
mod operators;
mod scalars;
mod signature;

#[cfg(test)]
mod tests;

use std::fmt;

use datafusion::common::Result as DataFusionResult;
use datafusion::logical_expr::Expr;
use flowstone_types::SqlType;

use crate::described::FunctionKind;
use built::Built;
use choose::{Choice, choose_function, choose_operator};
use collected::{Collected, Place};
use signature::Signature;

pub use casts::{CastContext, cast_context};
pub use category::{TypeCategory, category, is_preferred};
pub use common::{NoCommonType, common_type};
pub use error::{CallError, Called};
pub(crate) use listed::listed;
pub use named::{NamedParameter, named_parameters};

/// What is known of an argument's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A text or a parameter that has no type yet. Where only this is said of a NULL, results lose modifiers that NULL would leave.
    Unknown,
    /// NULL, which has no type either and is a value of every type.
    Null,
    /// It has this type.
    Of(SqlType),
}

impl Given {
    /// The type, if it has one.
    #[must_use]
    pub const fn known(&self) -> Option<&SqlType> {
        match self {
            Self::Of(sql_type) => Some(sql_type),
            Self::Unknown | Self::Null => None,
        }
    }
}

/// The name of the type in messages, which has no modifier there.
impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(sql_type) => write!(f, "{}", sql_type.without_modifier()),
            None => f.write_str("unknown"),
        }
    }
}

/// A call of a scalar or set-returning function.
#[derive(Clone, Debug)]
pub struct ScalarCall {
    /// What each argument must be cast to.
    pub arguments: Vec<SqlType>,
    /// The type of the value; of a function that returns a set, of each row.
    pub result: SqlType,
    /// Whether it returns a set: its expression is an array then, whose items are the rows.
    pub returns_set: bool,
    built: Built,
}

impl ScalarCall {
    fn new(built: Built, returns_set: bool) -> Result<Self, CallError> {
        let value = built.value_type()?;
        let result = if returns_set {
            value
                .element()
                .ok_or_else(|| CallError::broken(format!("a set is an array, not {value}")))?
        } else {
            value
        };
        Ok(Self {
            arguments: built.arguments.clone(),
            result,
            returns_set,
            built,
        })
    }

    /// The type of the value for these arguments. It differs from `result` where a literal says how many digits there are: `round(x, 2)`.
    ///
    /// # Errors
    /// If they are not of the types that they must be of.
    pub fn result_for(&self, args: &[Expr]) -> DataFusionResult<SqlType> {
        if self.returns_set {
            return Ok(self.result.clone());
        }
        self.built.type_for(&meaning::literals(args))
    }

    /// The call of arguments of exactly the types that they must be of. Of a function that returns a set: the array of its rows.
    ///
    /// # Errors
    /// If there are more or fewer of them.
    pub fn expr(&self, args: Vec<Expr>) -> DataFusionResult<Expr> {
        self.built.expr(args)
    }
}

/// A use of an operator.
#[derive(Clone, Debug)]
pub struct OperatorCall {
    /// What each operand must be cast to: the left one and the right one, or the only one.
    pub arguments: Vec<SqlType>,
    /// The type of the value.
    pub result: SqlType,
    built: Built,
}

impl OperatorCall {
    /// The expression over operands of exactly the types that they must be of.
    ///
    /// # Errors
    /// If there are more or fewer of them.
    pub fn expr(&self, args: Vec<Expr>) -> DataFusionResult<Expr> {
        self.built.expr(args)
    }
}

/// A call of an aggregate.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// What each argument must be cast to.
    pub arguments: Vec<SqlType>,
    /// The type of the value.
    pub result: SqlType,
    collected: Collected,
}

impl AggregateCall {
    /// The aggregates of the plan that compute it ([`Expr::AggregateFunction`], without DISTINCT, FILTER and ORDER BY): one, or two for the keys and values of an object.
    ///
    /// # Errors
    /// If there are more or fewer arguments.
    pub fn nodes(&self, args: Vec<Expr>) -> DataFusionResult<Vec<Expr>> {
        self.collected.nodes(args)
    }

    /// The value, made of the nodes or of the columns that hold what they gave.
    ///
    /// # Errors
    /// If there are more or fewer of them.
    pub fn finish(&self, nodes: Vec<Expr>) -> DataFusionResult<Expr> {
        self.collected.finish(nodes)
    }

    /// The value with the nodes inside. Around a node there may be a cast to `result`.
    ///
    /// # Errors
    /// If there are more or fewer arguments.
    pub fn expr(&self, args: Vec<Expr>) -> DataFusionResult<Expr> {
        self.finish(self.nodes(args)?)
    }
}

/// A call of a window function, or of an aggregate over a window.
#[derive(Clone, Debug)]
pub struct WindowCall {
    /// What each argument must be cast to.
    pub arguments: Vec<SqlType>,
    /// The type of the value.
    pub result: SqlType,
    /// Whether it is an aggregate: those alone have a FILTER.
    pub is_aggregate: bool,
    collected: Collected,
}

impl WindowCall {
    /// The window functions of the plan that compute it ([`Expr::WindowFunction`] over an empty OVER).
    ///
    /// # Errors
    /// If there are more or fewer arguments.
    pub fn nodes(&self, args: Vec<Expr>) -> DataFusionResult<Vec<Expr>> {
        self.collected.nodes(args)
    }

    /// The value, made of the nodes or of the columns that hold what they gave.
    ///
    /// # Errors
    /// If there are more or fewer of them.
    pub fn finish(&self, nodes: Vec<Expr>) -> DataFusionResult<Expr> {
        self.collected.finish(nodes)
    }

    /// The value with the nodes inside. Around a node there may be a cast to `result`.
    ///
    /// # Errors
    /// If there are more or fewer arguments.
    pub fn expr(&self, args: Vec<Expr>) -> DataFusionResult<Expr> {
        self.finish(self.nodes(args)?)
    }
}

/// What a choice found, or why nothing.
fn found<M>(
    choice: Choice<'_, M>,
    called: impl FnOnce() -> Called,
) -> Result<&Signature<M>, CallError> {
    match choice {
        Choice::One(signature) => Ok(signature),
        Choice::Nothing => Err(CallError::Undefined(called())),
        Choice::Several => Err(CallError::Ambiguous(called())),
    }
}

fn function(name: &str, given: &[Given]) -> Called {
    Called::Function {
        name: name.to_owned(),
        given: given.to_vec(),
    }
}

/// Refuses what is not even a value without a type where PostgreSQL has more functions of the name than we have, or takes values of every type that have one.
fn refuse_untyped(name: &str, given: &[Given]) -> Result<(), CallError> {
    if given.first().is_none_or(|first| first.known().is_some()) {
        return Ok(());
    }
    match (name, given.len()) {
        ("to_json" | "to_jsonb" | "json_agg" | "jsonb_agg", 1) => Err(CallError::Indeterminate),
        ("array_agg" | "bit_count" | "unnest", 1) => {
            Err(CallError::Ambiguous(function(name, given)))
        }
        _ => Ok(()),
    }
}

/// The function `name` (lower case) of such arguments. COALESCE, GREATEST, LEAST and NULLIF are among them, and casts that are written as calls: `date(x)`.
///
/// It knows functions that no statement may name, which the binder puts into plans: what may be named says [`kind_of`].
///
/// # Errors
/// [`CallError`] with PostgreSQL's message.
pub fn resolve_scalar(name: &str, given: &[Given]) -> Result<ScalarCall, CallError> {
    if let Some(construct) = constructs::resolve(name, given) {
        return ScalarCall::new(construct?, false);
    }
    refuse_untyped(name, given)?;
    let choice = choose_function(scalars::named(name), given);
    let signature = found(choice, || function(name, given))?;
    ScalarCall::new(Built::of(signature, given)?, signature.returns_set)
}

/// The aggregate `name` (lower case) of such arguments; `count(*)` has none. Of one with WITHIN GROUP the value in that comes first.
///
/// # Errors
/// [`CallError`] with PostgreSQL's message.
pub fn resolve_aggregate(name: &str, given: &[Given]) -> Result<AggregateCall, CallError> {
    refuse_untyped(name, given)?;
    let choice = choose_function(aggregates::aggregate(name), given);
    let signature = found(choice, || function(name, given))?;
    let collected = Collected::of(signature, given, Place::Group)?;
    Ok(AggregateCall {
        arguments: collected.arguments.clone(),
        result: collected.value_type()?,
        collected,
    })
}

/// Whether an aggregate (lower case) has a WITHIN GROUP.
#[must_use]
pub fn is_ordered_set(name: &str) -> bool {
    aggregates::is_ordered_set(name)
}

/// The window function `name` (lower case) of such arguments, or the aggregate that is used as one.
///
/// # Errors
/// [`CallError`] with PostgreSQL's message.
pub fn resolve_window(name: &str, given: &[Given]) -> Result<WindowCall, CallError> {
    refuse_untyped(name, given)?;
    let windows = aggregates::window(name);
    let is_aggregate = windows.is_empty();
    let signatures = if is_aggregate {
        aggregates::aggregate(name)
    } else {
        windows
    };
    let choice = choose_function(signatures, given);
    let signature = found(choice, || function(name, given))?;
    let collected = Collected::of(signature, given, Place::Window)?;
    Ok(WindowCall {
        arguments: collected.arguments.clone(),
        result: collected.value_type()?,
        is_aggregate,
        collected,
    })
}

/// The operator with this symbol between such operands, or before the only one. `LIKE` is `~~`; `IS DISTINCT FROM` and `IS NOT DISTINCT FROM` are symbols too.
///
/// # Errors
/// [`CallError`] with PostgreSQL's message.
pub fn resolve_operator(
    symbol: &str,
    left: Option<&Given>,
    right: &Given,
) -> Result<OperatorCall, CallError> {
    let signatures = match left {
        Some(_) => operators::binary(symbol),
        None => operators::prefix(symbol),
    };
    let given: Vec<Given> = left.into_iter().chain([right]).cloned().collect();
    // What a message calls it.
    let named = match symbol {
        "IS DISTINCT FROM" | "IS NOT DISTINCT FROM" => "=",
        "!=" => "<>",
        other => other,
    };
    let called = || Called::Operator {
        symbol: named.to_owned(),
        left: left.cloned(),
        right: right.clone(),
    };
    let signature = found(choose_operator(signatures, &given), called)?;
    let built = Built::of(signature, &given)?;
    Ok(OperatorCall {
        arguments: built.arguments.clone(),
        result: built.value_type()?,
        built,
    })
}

/// Whether a function yields rows.
#[must_use]
pub fn is_set_returning(name: &str) -> bool {
    scalars::named(name)
        .iter()
        .any(|signature| signature.returns_set)
}

/// What a statement that names a function means by it; `None` if there is none that it may name.
#[must_use]
pub fn kind_of(name: &str) -> Option<FunctionKind> {
    if !aggregates::aggregate(name).is_empty() {
        Some(FunctionKind::Aggregate)
    } else if !aggregates::window(name).is_empty() {
        Some(FunctionKind::Window)
    } else if scalars::is_callable(name) || constructs::is_callable(name) {
        Some(FunctionKind::Scalar)
    } else {
        None
    }
}
