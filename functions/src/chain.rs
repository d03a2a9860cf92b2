//! Long chains of operators as one call: `a || b || c …` with a thousand operands is a tree a thousand levels deep, over which planning takes time that grows
//! with the third power of its depth. A chain is one level.
//!
//! Owns the evaluation of such a call: step by step, from the left, by the functions that the operators are, so that types, NULLs and overflows are those of the
//! tree. Must not know which operator a function is. Called by whoever plans it; `sql` makes the calls.
//!
//! Invariant. Whatever is called by it is a function of ours, which converts its arguments itself.

use std::sync::Arc;

use arrow_schema::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use itertools::Itertools;

use crate::operators::Arithmetic;
use crate::registry::scalar_function;
use crate::udf::PgFunction;

const NAME: &str = "operator_chain";

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![ScalarUDF::new_from_impl(OperatorChain {
        signature: Signature::user_defined(Volatility::Immutable),
    })]
}

/// `fₙ(… f₂(f₁(first, x₁), x₂) …, xₙ)` as one call: each step is a function of two arguments, and what is its second one.
///
/// # Errors
/// If there is no such chain in this binary.
pub fn operator_chain(first: Expr, steps: Vec<(Arc<ScalarUDF>, Expr)>) -> Result<Expr> {
    let names = steps.iter().map(|(function, _)| function.name()).join(",");
    let names = Expr::Literal(ScalarValue::Utf8(Some(names)), None);
    let operands = steps.into_iter().map(|(_, operand)| operand);
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(
        scalar_function(NAME)?,
        [names, first].into_iter().chain(operands).collect(),
    )))
}

/// Whether the function can be a step of a chain.
#[must_use]
pub fn can_be_step(function: &ScalarUDF) -> bool {
    let any: &dyn std::any::Any = function.inner().as_ref();
    (any.is::<PgFunction>() || any.is::<Arithmetic>())
        && function.signature().volatility == Volatility::Immutable
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OperatorChain {
    signature: Signature,
}

/// The functions that the first argument names.
fn steps(names: Option<&ScalarValue>) -> Result<Vec<Arc<ScalarUDF>>> {
    let Some(ScalarValue::Utf8(Some(names))) = names else {
        return internal_err!("{NAME} without the names of its functions");
    };
    names
        .split(',')
        .map(|name| {
            scalar_function(name).and_then(|function| {
                if can_be_step(&function) {
                    Ok(function)
                } else {
                    internal_err!("{name} is no step of a chain")
                }
            })
        })
        .collect()
}

fn malformed() -> DataFusionError {
    DataFusionError::Internal(format!("{NAME} with the wrong number of arguments"))
}

/// The type of one step's result.
fn step_field(
    function: &ScalarUDF,
    left: &FieldRef,
    right: &FieldRef,
    literal: Option<&ScalarValue>,
) -> Result<FieldRef> {
    function.return_field_from_args(ReturnFieldArgs {
        arg_fields: &[Arc::clone(left), Arc::clone(right)],
        scalar_arguments: &[None, literal],
    })
}

impl ScalarUDFImpl for OperatorChain {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {NAME} depends on its first argument")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let steps = steps(args.scalar_arguments.first().copied().flatten())?;
        let mut operands = args
            .arg_fields
            .iter()
            .zip_eq(args.scalar_arguments)
            .skip(1)
            .map(|(field, literal)| (field, *literal));
        let (first, _) = operands.next().ok_or_else(malformed)?;
        if operands.len() != steps.len() {
            return Err(malformed());
        }
        steps
            .iter()
            .zip_eq(operands)
            .try_fold(Arc::clone(first), |sofar, (function, (field, literal))| {
                step_field(function, &sofar, field, literal)
            })
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut operands = args.args.into_iter().zip_eq(args.arg_fields);
        let names = match operands.next() {
            Some((ColumnarValue::Scalar(names), _)) => names,
            _ => return Err(malformed()),
        };
        let steps = steps(Some(&names))?;
        let (first, first_field) = operands.next().ok_or_else(malformed)?;
        if operands.len() != steps.len() {
            return Err(malformed());
        }
        let mut sofar = (first, first_field);
        for (function, (operand, field)) in steps.iter().zip_eq(operands) {
            let literal = match &operand {
                ColumnarValue::Scalar(value) => Some(value),
                ColumnarValue::Array(_) => None,
            };
            let return_field = step_field(function, &sofar.1, &field, literal)?;
            let value = function.invoke_with_args(ScalarFunctionArgs {
                args: vec![sofar.0, operand],
                arg_fields: vec![sofar.1, field],
                number_rows: args.number_rows,
                return_field: Arc::clone(&return_field),
                config_options: Arc::clone(&args.config_options),
            })?;
            sofar = (value, return_field);
        }
        Ok(sofar.0)
    }
}
