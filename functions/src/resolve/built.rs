//! A call whose signature is chosen: the types of its arguments and of its value, and the expression.

use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::{Expr, Operator};
use flowstone_types::SqlType;
use itertools::Itertools;

use super::meaning::{Meaning, literals, settled, type_of};
use super::signature::{Fit, Returns, Signature, is_indeterminate};
use super::{CallError, Given};
use crate::cast::cast_expr;

/// See the module documentation.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub(super) meaning: Meaning,
    /// The types that the arguments are of.
    pub(super) arguments: Vec<SqlType>,
    /// Whether arguments lose their padding before anything is done with them.
    pub(super) is_blind: bool,
    /// The type that the value is brought to; `None` if that is the type which the function returns.
    pub(super) to: Option<SqlType>,
}

/// The type of a result that a signature says: `None` if the function does.
pub(super) fn returned(
    returns: &Returns,
    arguments: &[SqlType],
    given: &[Given],
) -> Option<SqlType> {
    match returns {
        Returns::Made => None,
        Returns::Sql(sql_type) => Some(sql_type.clone()),
        Returns::Same(index) => {
            let argument = arguments.get(*index)?;
            let own = given.get(*index).and_then(Given::known);
            Some(match own {
                Some(own) if argument.is_padded() => own.clone(),
                _ => argument.clone(),
            })
        }
        Returns::AsGiven(index) => given.get(*index).and_then(Given::known).cloned(),
        Returns::ArrayOf(index) => arguments
            .get(*index)
            .map(|item| SqlType::Array(Box::new(item.clone()))),
        Returns::ArrayOfGiven(index) => given
            .get(*index)
            .and_then(Given::known)
            .map(|item| SqlType::Array(Box::new(item.clone()))),
    }
}

/// The types that arguments are cast to for a signature that takes them.
pub(super) fn arguments_of<M>(
    signature: &Signature<M>,
    given: &[Given],
) -> std::result::Result<Vec<SqlType>, CallError> {
    let broken = || CallError::broken("a signature does not take what it was chosen for");
    let params = signature.expanded(given.len()).ok_or_else(broken)?;
    if is_indeterminate(&params, given) {
        return Err(CallError::Indeterminate);
    }
    signature.arguments(&params, given).ok_or_else(broken)
}

/// Whether values padded alike are equal exactly if they are without their padding, and that is all that is asked.
fn is_equality(meaning: &Meaning) -> bool {
    matches!(
        meaning,
        Meaning::Comparison(
            Operator::Eq | Operator::NotEq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom
        )
    )
}

impl Built {
    /// A call by a signature that takes what is given.
    pub(super) fn of(
        signature: &Signature<Meaning>,
        given: &[Given],
    ) -> std::result::Result<Self, CallError> {
        let arguments = arguments_of(signature, given)?;
        let to = returned(&signature.returns, &arguments, given);
        let padded_alike = arguments.iter().all_equal()
            && matches!(arguments.first(), Some(SqlType::Char(1..)))
            && is_equality(&signature.meaning);
        let is_blind = matches!(signature.fit, Fit::Blind | Fit::Padded) && !padded_alike;
        if is_blind && to.as_ref().is_some_and(SqlType::is_padded_unevenly) {
            return Err(CallError::Unsupported {
                message: "changing arrays of character values of several lengths is not supported"
                    .to_owned(),
                hint: "Cast the array to text[].",
            });
        }
        Ok(Self {
            meaning: signature.meaning.clone(),
            arguments,
            is_blind,
            to,
        })
    }

    /// The types that the function sees.
    fn seen(&self) -> Vec<SqlType> {
        self.arguments
            .iter()
            .map(|argument| {
                if self.is_blind {
                    argument.without_padding()
                } else {
                    argument.clone()
                }
            })
            .collect()
    }

    /// The type of the value for arguments of which these are literals.
    pub(super) fn type_for(&self, literals: &[Option<&ScalarValue>]) -> Result<SqlType> {
        match &self.to {
            Some(to) => Ok(to.clone()),
            None => type_of(self.meaning.field(&self.seen(), literals)?.as_ref()),
        }
    }

    /// The type of the value if nothing is known of the arguments but their types.
    pub(super) fn value_type(&self) -> std::result::Result<SqlType, CallError> {
        Ok(self.type_for(&vec![None; self.arguments.len()])?)
    }

    /// The call, whose arguments are of the types that they must be of.
    pub(super) fn expr(&self, args: Vec<Expr>) -> Result<Expr> {
        if args.len() != self.arguments.len() {
            return internal_err!(
                "a call of {} arguments is given {}",
                self.arguments.len(),
                args.len()
            );
        }
        let seen = self.seen();
        let made = self.meaning.field(&seen, &literals(&args))?;
        let to = match &self.to {
            Some(to) => to.clone(),
            None => type_of(made.as_ref())?,
        };
        let args = args
            .into_iter()
            .zip_eq(&self.arguments)
            .zip_eq(&seen)
            .map(|((arg, from), seen)| cast_expr(arg, from, seen))
            .collect::<Result<Vec<_>>>()?;
        settled(self.meaning.expr(&seen, args)?, made.as_ref(), &to)
    }
}
