//! Values of which one is chosen, and what arrays are made of: all come to one type.
//!
//! Called by [`super`]; what looks like a call is one ([`super::call`]).

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::Case;
use flowstone_functions::resolve::{Given, common_type};
use flowstone_types::SqlType;
use sqlparser::ast::{self, CaseWhen};
use sqlparser::tokenizer::Span;

use super::span_of;
use crate::bind::Binder;
use crate::bind::value::Value;
use crate::error::{Error, ErrorKind};

impl Binder<'_> {
    /// `CASE [operand] WHEN … THEN … ELSE … END`
    pub(super) fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        arms: &[CaseWhen],
        otherwise: Option<&ast::Expr>,
    ) -> Result<Value, Error> {
        let subject = match operand {
            None => None,
            Some(operand) => {
                let subject = self.no_series("CASE", |binder| binder.expr(operand))?;
                // Beside nothing that says what it is it is a text.
                Some(if subject.is_unknown() {
                    self.as_text_by_default(subject)?
                } else {
                    subject
                })
            }
        };
        if let Some(subject) = &subject
            && arms.len() > 1
            && subject.expr.is_volatile()
        {
            return Err(Error::unsupported(
                "CASE of a function of chance with several values is not supported",
            )
            .with_hint("Call the function in a subquery in FROM."));
        }
        let mut conditions = Vec::with_capacity(arms.len());
        let mut results = Vec::with_capacity(arms.len() + 1);
        for CaseWhen { condition, result } in arms {
            conditions.push(match &subject {
                Some(subject) => {
                    let value = self.no_series("CASE", |binder| binder.expr(condition))?;
                    let subject = self.again(subject)?;
                    self.binary(&ast::BinaryOperator::Eq, subject, value)
                        .map_err(|error| self.placed(error, span_of(condition)))?
                        .expr
                }
                None => {
                    self.no_series("CASE", |binder| binder.condition("CASE/WHEN", condition))?
                }
            });
            results.push(self.no_series("CASE", |binder| binder.scalar(result))?);
        }
        // ELSE comes first where the type is chosen.
        let has_otherwise = otherwise.is_some();
        if let Some(otherwise) = otherwise {
            let otherwise = self.no_series("CASE", |binder| binder.scalar(otherwise))?;
            results.insert(0, otherwise);
        }
        let (mut results, common) = self.case_results(has_otherwise, results)?;
        let otherwise = has_otherwise.then(|| Box::new(results.remove(0)));
        // DataFusion makes ANDs and ORs of a CASE of booleans, and evaluates results that no condition asks for. `CASE true WHEN …` it leaves alone.
        let subject = (common == SqlType::Bool)
            .then(|| Box::new(Expr::Literal(ScalarValue::Boolean(Some(true)), None)));
        let arms = conditions
            .into_iter()
            .zip(results)
            .map(|(condition, result)| (Box::new(condition), Box::new(result)))
            .collect();
        let case = Expr::Case(Case::new(subject, arms, otherwise));
        Ok(Value::new(case, common))
    }

    /// Brings the results of CASE to one type; that of ELSE comes first. Where one of them does not become it, messages say which part it is of.
    fn case_results(
        &mut self,
        has_otherwise: bool,
        results: Vec<Value>,
    ) -> Result<(Vec<Expr>, SqlType), Error> {
        let given: Vec<Given> = results.iter().map(Value::given).collect();
        let construct = match common_type(&given) {
            Err(clash) if clash.is_of_one_category() => {
                let is_otherwise =
                    has_otherwise && given.first().and_then(Given::known) == Some(&clash.second);
                if is_otherwise {
                    "CASE/ELSE"
                } else {
                    "CASE/WHEN"
                }
            }
            _ => "CASE",
        };
        self.unified(construct, results)
    }

    /// Binds a part of `construct`, in which no set-returning function can be.
    pub(super) fn no_series<T>(
        &mut self,
        construct: &str,
        bind: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = self.frame()?.series.len();
        let bound = bind(self)?;
        if self.frame()?.series.len() > before {
            return Err(Error::unsupported(format!(
                "set-returning functions are not allowed in {construct}"
            ))
            .with_hint(
                "You might be able to move the set-returning function into a LATERAL FROM item.",
            ));
        }
        Ok(bound)
    }

    /// `ARRAY[…]`
    pub(super) fn array(&mut self, items: &[ast::Expr]) -> Result<Value, Error> {
        if items.is_empty() {
            return Err(Error::new(
                ErrorKind::IndeterminateDatatype,
                "cannot determine type of empty array",
            )
            .with_hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
        }
        let items = self.scalars(items)?;
        self.array_of(items)
    }

    /// The array of these items.
    pub(in crate::bind) fn array_of(&mut self, items: Vec<Value>) -> Result<Value, Error> {
        self.function("make_array", items, Span::empty())
    }
}
