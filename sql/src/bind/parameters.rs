//! Parameters: their types, from what the client says or from their first use that decides.
//!
//! Must not know what uses them. Called by [`super`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::Placeholder;
use flowstone_functions::cast::{can_cast, cast_expr};
use flowstone_types::SqlType;

use super::Binder;
use super::value::{Value, made};
use crate::error::{Error, ErrorKind};

/// What is known of the parameters of a statement.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters {
    /// What the client says, or an earlier pass found out.
    known: Vec<Option<SqlType>>,
    /// What uses implied, by number from 1.
    deduced: BTreeMap<usize, SqlType>,
    /// Those that were taken for text because nothing said what they are.
    defaulted: BTreeSet<usize>,
    /// The largest number.
    count: usize,
}

/// The number of a parameter.
fn number_of(parameter: &Placeholder) -> Option<usize> {
    parameter.id.strip_prefix('$')?.parse().ok()
}

impl Parameters {
    pub(super) fn new(known: &[Option<SqlType>]) -> Self {
        Self {
            known: known.to_vec(),
            count: known.len(),
            ..Self::default()
        }
    }

    fn get(&self, number: usize) -> Option<&SqlType> {
        let known = self.known.get(number.checked_sub(1)?);
        known
            .and_then(Option::as_ref)
            .or_else(|| self.deduced.get(&number))
    }

    /// What is known now, if a parameter was taken for text before its type was met.
    pub(super) fn better(&self) -> Option<Self> {
        let wrong = self.defaulted.iter().any(|number| {
            self.deduced
                .get(number)
                .is_some_and(|of| *of != SqlType::Text)
        });
        wrong.then(|| {
            let known: Vec<_> = (1..=self.count)
                .map(|number| self.get(number).cloned())
                .collect();
            Self::new(&known)
        })
    }

    /// The types of all, text where nothing says anything.
    pub(super) fn types(&self) -> Vec<SqlType> {
        (1..=self.count)
            .map(|number| self.get(number).cloned().unwrap_or(SqlType::Text))
            .collect()
    }
}

fn placeholder(id: String, sql_type: &SqlType) -> Expr {
    Expr::Placeholder(Placeholder {
        field: Some(Arc::new(sql_type.to_field(&id, true))),
        id,
    })
}

impl Binder<'_> {
    /// The parameter called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedObject`] if there can be none of that name.
    pub(super) fn parameter(&mut self, name: &str) -> Result<Value, Error> {
        let number = name
            .strip_prefix('$')
            .and_then(|digits| digits.parse::<u16>().ok())
            .filter(|number| *number > 0);
        let Some(number) = number.map(usize::from) else {
            return Err(Error::new(
                ErrorKind::UndefinedObject,
                format!("there is no parameter {name}"),
            ));
        };
        self.parameters.count = self.parameters.count.max(number);
        Ok(match self.parameters.get(number).cloned() {
            Some(sql_type) => Value::new(placeholder(name.to_owned(), &sql_type), sql_type),
            None => Value::unknown(Expr::Placeholder(Placeholder {
                id: name.to_owned(),
                field: None,
            })),
        })
    }

    /// A parameter of no type as a value of type `to`: that is its type from now on.
    pub(super) fn decide(&mut self, parameter: Placeholder, to: &SqlType) -> Result<Value, Error> {
        let number = number_of(&parameter)
            .ok_or_else(|| Error::internal(format!("no parameter {}", parameter.id)))?;
        let own = match self.parameters.get(number) {
            Some(known) => known.clone(),
            None => {
                let own = to.without_modifier();
                self.parameters.deduced.insert(number, own.clone());
                own
            }
        };
        let expr = placeholder(parameter.id, &own);
        if own == *to {
            return Ok(Value::new(expr, own));
        }
        if !can_cast(&own, to) {
            return Err(Error::new(
                ErrorKind::DatatypeMismatch,
                format!("inconsistent types deduced for parameter ${number}"),
            )
            .with_detail(format!("{own} versus {}", to.without_modifier())));
        }
        Ok(Value::new(made(cast_expr(expr, &own, to))?, to.clone()))
    }

    /// What has no type as text because nothing says what it is; a parameter may turn out to be something else.
    pub(super) fn as_text_by_default(&mut self, value: Value) -> Result<Value, Error> {
        if let Expr::Placeholder(parameter) = &value.expr
            && value.is_unknown()
            && let Some(number) = number_of(parameter)
        {
            if self.parameters.get(number).is_none() {
                self.parameters.defaulted.insert(number);
                let id = parameter.id.clone();
                return Ok(Value::new(placeholder(id, &SqlType::Text), SqlType::Text));
            }
            let known = parameter.clone();
            return self.decide(known, &SqlType::Text);
        }
        self.coerce(value, &SqlType::Text)
    }
}
