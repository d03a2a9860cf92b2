//! Comparisons that are no single operator: with NULL, with bounds, with lists, with the items of arrays, and of rows.
//!
//! Owns that a row is compared field by field, and that literals of a list stay one list. Which operator compares `functions` knows. Called by [`super`].

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Case, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use flowstone_functions::resolve::{Given, resolve_operator};
use flowstone_types::SqlType;
use sqlparser::ast::{self, BinaryOperator};
use sqlparser::tokenizer::Span;

use super::operator::{is_comparison, symbol_of, undefined_operator, unresolved};
use super::{span_of, unnested};
use crate::bind::value::{Type, Value, balanced, boolean, null};
use crate::bind::{Binder, number};
use crate::error::{Error, ErrorKind};

/// Of how many items a comparison must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bind) enum Quantifier {
    Any,
    All,
}

fn truth(expr: Expr) -> Value {
    Value::new(expr, SqlType::Bool)
}

fn negated_if(negated: bool, expr: Expr) -> Expr {
    if negated {
        Expr::Not(Box::new(expr))
    } else {
        expr
    }
}

fn joined(tests: Vec<Expr>, op: Operator) -> Result<Expr, Error> {
    balanced(tests, op).ok_or_else(|| Error::internal("a comparison without operands"))
}

fn both(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}

/// Whether a value can be an item of a list: DataFusion's simplifier computes with lists as if they were sets of known values.
fn is_known(value: &Expr) -> bool {
    !value.contains_outer() && !matches!(value, Expr::Literal(literal, _) if literal.is_null())
}

impl Binder<'_> {
    /// `operand IS [NOT] NULL`
    pub(super) fn null_test(&mut self, operand: &ast::Expr, not: bool) -> Result<Value, Error> {
        let value = self.expr(operand)?;
        let test = |expr: Expr| {
            if not {
                Expr::IsNotNull(Box::new(expr))
            } else {
                Expr::IsNull(Box::new(expr))
            }
        };
        match value.fields()? {
            // A row without fields is both.
            Some(fields) if fields.is_empty() => Ok(boolean(true)),
            Some(fields) => {
                let mut tests = Vec::with_capacity(fields.len());
                for (_, field) in fields {
                    tests.push(test(self.with_type(field)?.expr));
                }
                joined(tests, Operator::And).map(truth)
            }
            None => Ok(truth(test(self.with_type(value)?.expr))),
        }
    }

    /// What has no type and is not NULL as a text.
    fn with_type(&mut self, value: Value) -> Result<Value, Error> {
        if value.is_unknown() && !value.is_null() {
            self.as_text_by_default(value)
        } else {
            Ok(value)
        }
    }

    /// `left IS [NOT] DISTINCT FROM right`
    pub(super) fn distinct_from(
        &mut self,
        left: &ast::Expr,
        right: &ast::Expr,
        not: bool,
    ) -> Result<Value, Error> {
        let values = (self.expr(left)?, self.expr(right)?);
        self.distinct_values(values.0, values.1, not).map(truth)
    }

    fn distinct_values(&mut self, left: Value, right: Value, not: bool) -> Result<Expr, Error> {
        if let (Some(left), Some(right)) = (left.fields()?, right.fields()?) {
            same_length(left.len(), right.len())?;
            let mut tests = Vec::new();
            for ((_, left), (_, right)) in left.into_iter().zip(right) {
                tests.push(self.distinct_values(left, right, not)?);
            }
            let op = if not { Operator::And } else { Operator::Or };
            return joined(tests, op);
        }
        // Beside NULL there is nothing to compare.
        if left.is_null() || right.is_null() {
            let other = if left.is_null() { right } else { left };
            let other = Box::new(self.with_type(other)?.expr);
            return Ok(if not {
                Expr::IsNull(other)
            } else {
                Expr::IsNotNull(other)
            });
        }
        let symbol = if not {
            "IS NOT DISTINCT FROM"
        } else {
            "IS DISTINCT FROM"
        };
        let distinct = self.operator(symbol, left, right);
        // What there is not is an equality.
        let distinct = distinct.map_err(|error| Error {
            message: error.message.replace(symbol, "="),
            ..error
        })?;
        Ok(distinct.expr)
    }

    /// `(start, end) OVERLAPS (start, end)`
    pub(super) fn overlaps(&mut self, left: &ast::Expr, right: &ast::Expr) -> Result<Value, Error> {
        let mut args = Vec::with_capacity(4);
        for (side, operand) in [("left", left), ("right", right)] {
            match self.expr(operand)?.fields()?.as_deref() {
                Some([(_, start), (_, end)]) => args.extend([start.clone(), end.clone()]),
                Some(_) => {
                    return Err(Error::syntax(format!(
                        "wrong number of parameters on {side} side of OVERLAPS expression"
                    )));
                }
                None => return Err(Error::syntax("OVERLAPS compares rows of two values")),
            }
        }
        self.function("overlaps", args, span_of(left))
    }

    /// `expr [NOT] BETWEEN low AND high`
    pub(super) fn between(
        &mut self,
        expr: &ast::Expr,
        negated: bool,
        low: &ast::Expr,
        high: &ast::Expr,
    ) -> Result<Value, Error> {
        let value = self.expr(expr)?;
        let low = self.expr(low)?;
        let high = self.expr(high)?;
        let subject = self.again(&value)?;
        let above = self.binary(&BinaryOperator::GtEq, subject, low)?;
        let below = self.binary(&BinaryOperator::LtEq, value, high)?;
        let within = both(above.expr, Operator::And, below.expr);
        Ok(truth(negated_if(negated, within)))
    }

    /// `expr [NOT] IN (list)`. As in PostgreSQL, what depends on the row is compared one by one, and so is a single constant; several constants have one type.
    pub(super) fn in_list(
        &mut self,
        expr: &ast::Expr,
        list: &[ast::Expr],
        negated: bool,
    ) -> Result<Value, Error> {
        let subject = self.expr(expr)?;
        let mut values = Vec::with_capacity(list.len());
        for item in list {
            values.push(self.expr(item)?);
        }
        self.among(subject, values, negated)
            .map_err(|error| self.placed(error, span_of(expr)))
    }

    /// Whether a value is one of these, or none of them.
    fn among(&mut self, subject: Value, values: Vec<Value>, negated: bool) -> Result<Value, Error> {
        let (symbol, combine) = if negated {
            ("<>", Operator::And)
        } else {
            ("=", Operator::Or)
        };
        let one_by_one =
            subject.is_row() || number::is_wide(&subject) || values.iter().any(Value::is_row);
        let (constant, mut singles): (Vec<Value>, Vec<Value>) =
            values.into_iter().partition(|value| {
                !one_by_one && !number::is_wide(value) && !value.expr.any_column_refs()
            });
        let mut tests = Vec::new();
        if constant.len() > 1 {
            match self.in_constants(&subject, &constant, negated)? {
                Some(found) => tests = found,
                None => singles.extend(constant),
            }
        } else {
            singles.extend(constant);
        }
        for value in singles {
            let subject = self.again(&subject)?;
            tests.push(self.compare_fields(symbol, subject, value)?);
        }
        joined(tests, combine).map(truth)
    }

    /// The comparisons of `subject` with values that do not depend on the row; `None` if they have no type in common.
    fn in_constants(
        &mut self,
        subject: &Value,
        values: &[Value],
        negated: bool,
    ) -> Result<Option<Vec<Expr>>, Error> {
        let mut all = vec![subject.clone()];
        all.extend_from_slice(values);
        let Ok(common) = Self::common("IN", all.iter().map(Value::given)) else {
            return Ok(None);
        };
        let subject_type = subject.sql_type().unwrap_or(&common).clone();
        let resolved = resolve_operator(
            "=",
            Some(&Given::Of(subject_type.clone())),
            &Given::Of(common.clone()),
        )
        .map_err(|error| unresolved(&error))?;
        let [left_type, right_type] = resolved.arguments.as_slice() else {
            return Err(Error::internal("an equality of two operands"));
        };
        let mut all = all.into_iter();
        let subject = all
            .next()
            .ok_or_else(|| Error::internal("IN without a subject"))?;
        let subject = if subject.is_unknown() {
            self.coerce(subject, &common)?
        } else {
            subject
        };
        let subject = self.argument(subject, left_type)?;
        // Comparisons do not see padding.
        let compared = right_type.without_padding();
        let subject = self.argument(subject, &compared)?;
        let (mut known, mut tests) = (Vec::new(), Vec::new());
        let compare = if negated {
            Operator::NotEq
        } else {
            Operator::Eq
        };
        for value in all {
            let value = self.coerce(value, &common)?;
            let value = self.argument(value, right_type)?;
            let value = self.argument(value, &compared)?.expr;
            if is_known(&value) {
                known.push(value);
            } else {
                let subject = self.again(&subject)?;
                tests.push(both(subject.expr, compare, value));
            }
        }
        if !known.is_empty() {
            let list = InList::new(Box::new(subject.expr), known, negated);
            tests.insert(0, Expr::InList(list));
        }
        Ok(Some(tests))
    }

    /// `left op ANY (right)`, `left op ALL (right)`
    pub(super) fn quantified(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
        quantifier: Quantifier,
    ) -> Result<Value, Error> {
        if let ast::Expr::Subquery(subquery) = right {
            return self.quantified_subquery(left, op, subquery, quantifier);
        }
        let subject = self.scalar(left)?;
        if let ast::Expr::Array(array) = unnested(right)
            && !array.elem.is_empty()
            && !array
                .elem
                .iter()
                .any(|item| matches!(unnested(item), ast::Expr::Array(_)))
        {
            return self.any_of_items(subject, op, &array.elem, quantifier);
        }
        let array = self.scalar(right)?;
        match (op, quantifier) {
            (BinaryOperator::Eq, Quantifier::Any) => self.equals_any(subject, array).map(truth),
            (BinaryOperator::NotEq, Quantifier::All) => {
                let equal = self.equals_any(subject, array)?;
                Ok(truth(Expr::Not(Box::new(equal))))
            }
            _ => self.any_of_array(subject, op, array, quantifier),
        }
    }

    /// The comparison with each item of `ARRAY[…]`, which have one type.
    fn any_of_items(
        &mut self,
        subject: Value,
        op: &BinaryOperator,
        items: &[ast::Expr],
        quantifier: Quantifier,
    ) -> Result<Value, Error> {
        let items = self.scalars(items)?;
        let common = Self::common("ARRAY", items.iter().map(Value::given))?;
        let items = items
            .into_iter()
            .map(|item| self.coerce(item, &common))
            .collect::<Result<Vec<_>, Error>>()?;
        match (op, quantifier) {
            (BinaryOperator::Eq, Quantifier::Any) => return self.among(subject, items, false),
            (BinaryOperator::NotEq, Quantifier::All) => return self.among(subject, items, true),
            _ => {}
        }
        let symbol = symbol_of(op);
        let mut tests = Vec::with_capacity(items.len());
        for item in items {
            let subject = self.again(&subject)?;
            tests.push(self.comparison(&symbol, subject, item)?);
        }
        let combine = match quantifier {
            Quantifier::Any => Operator::Or,
            Quantifier::All => Operator::And,
        };
        joined(tests, combine).map(truth)
    }

    /// `left symbol right`, which must be true or false.
    pub(in crate::bind) fn comparison(
        &mut self,
        symbol: &str,
        left: Value,
        right: Value,
    ) -> Result<Expr, Error> {
        let compared = self.operator(symbol, left, right)?;
        if compared.sql_type() == Some(&SqlType::Bool) {
            return Ok(compared.expr);
        }
        Err(Error::new(
            ErrorKind::WrongObjectType,
            "op ANY/ALL (array) requires operator to yield boolean",
        ))
    }

    fn not_an_array() -> Error {
        Error::new(
            ErrorKind::WrongObjectType,
            "op ANY/ALL (array) requires array on right side",
        )
    }

    /// An array and the type of its items, beside a value that they are compared with.
    fn array_beside(&mut self, subject: &Value, array: Value) -> Result<(Value, SqlType), Error> {
        let item = match (&array.of, &subject.of) {
            (Type::Of(of), _) => of.element().ok_or_else(Self::not_an_array)?,
            (_, Type::Of(own)) => own.without_modifier(),
            _ => SqlType::Text,
        };
        let of = SqlType::Array(Box::new(item.clone()));
        let is_vector = array.sql_type().is_some_and(SqlType::is_vector);
        let array = if array.is_unknown() || is_vector {
            self.coerce(array, &of)?
        } else {
            array
        };
        Ok((array, item))
    }

    /// `subject = ANY (array)`
    fn equals_any(&mut self, subject: Value, array: Value) -> Result<Expr, Error> {
        if !array.is_unknown() && array.sql_type().and_then(SqlType::element).is_none() {
            return Err(Self::not_an_array());
        }
        let array = match array.sql_type().filter(|of| of.is_vector()) {
            Some(vector) => {
                let item = vector.element().unwrap_or(SqlType::Int2);
                self.coerce(array, &SqlType::Array(Box::new(item)))?
            }
            None => array,
        };
        let types = (
            subject.of.clone(),
            array.sql_type().and_then(SqlType::element),
        );
        self.function("array_eq_any", vec![array, subject], Span::empty())
            .map(|value| value.expr)
            .map_err(|error| match (error.kind, types) {
                (ErrorKind::UndefinedFunction, (subject, Some(item))) => {
                    undefined_operator("=", &subject, &Type::Of(item))
                }
                _ => error,
            })
    }

    /// The comparison with the items of an array that is not known before the rows are: as with the rows of a subquery.
    fn any_of_array(
        &mut self,
        subject: Value,
        op: &BinaryOperator,
        array: Value,
        quantifier: Quantifier,
    ) -> Result<Value, Error> {
        let (array, item) = self.array_beside(&subject, array)?;
        let unnested = self.again(&array)?;
        let found = self.any_unnested(subject, op, unnested, item, quantifier)?;
        // Of an array that is NULL nothing is known.
        let unknown = Expr::Literal(ScalarValue::Boolean(None), None);
        let known = Case::new(
            Some(Box::new(Expr::Literal(
                ScalarValue::Boolean(Some(true)),
                None,
            ))),
            vec![(
                Box::new(Expr::IsNull(Box::new(array.expr))),
                Box::new(unknown),
            )],
            Some(Box::new(found)),
        );
        Ok(truth(Expr::Case(known)))
    }

    /// `(a, b, …)`, `ROW(a, b, …)`
    pub(super) fn row(&mut self, fields: &[ast::Expr]) -> Result<Value, Error> {
        let mut named = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            named.push((format!("f{}", index + 1), self.expr(field)?));
        }
        Value::row(named)
    }

    /// `left symbol right` where one is a row.
    pub(in crate::bind) fn compare_rows(
        &mut self,
        symbol: &str,
        left: Value,
        right: Value,
    ) -> Result<Value, Error> {
        if is_comparison(symbol) && (left.is_null() || right.is_null()) {
            return Ok(null(&SqlType::Bool));
        }
        let (true, Some(lefts), Some(rights)) =
            (is_comparison(symbol), left.fields()?, right.fields()?)
        else {
            return Err(undefined_operator(symbol, &left.of, &right.of));
        };
        same_length(lefts.len(), rights.len())?;
        if lefts.is_empty() {
            return Err(Error::unsupported("cannot compare rows of zero length"));
        }
        let as_records = left.is_record() || right.is_record();
        let pairs: Vec<(Value, Value)> = lefts
            .into_iter()
            .zip(rights)
            .map(|((_, left), (_, right))| (left, right))
            .collect();
        if as_records {
            return self.compare_records(symbol, pairs).map(truth);
        }
        match symbol {
            "=" | "<>" => {
                let combine = if symbol == "=" {
                    Operator::And
                } else {
                    Operator::Or
                };
                let mut tests = Vec::with_capacity(pairs.len());
                for (left, right) in pairs {
                    tests.push(self.compare_fields(symbol, left, right)?);
                }
                joined(tests, combine).map(truth)
            }
            _ => self.compare_in_order(symbol, pairs).map(truth),
        }
    }

    fn compare_fields(&mut self, symbol: &str, left: Value, right: Value) -> Result<Expr, Error> {
        if left.is_row() || right.is_row() {
            return Ok(self.compare_rows(symbol, left, right)?.expr);
        }
        Ok(self.operator(symbol, left, right)?.expr)
    }

    /// The first fields that are not equal decide.
    fn compare_in_order(
        &mut self,
        symbol: &str,
        pairs: Vec<(Value, Value)>,
    ) -> Result<Expr, Error> {
        let strict = symbol.trim_end_matches('=');
        let mut decided: Option<Expr> = None;
        for (left, right) in pairs.into_iter().rev() {
            decided = Some(match decided {
                None => self.compare_fields(symbol, left, right)?,
                Some(rest) => {
                    let sides = (self.again(&left)?, self.again(&right)?);
                    let before = self.compare_fields(strict, sides.0, sides.1)?;
                    let equal = self.compare_fields("=", left, right)?;
                    both(before, Operator::Or, both(equal, Operator::And, rest))
                }
            });
        }
        decided.ok_or_else(|| Error::internal("a comparison of rows without fields"))
    }

    /// Rows as values: NULL is equal to NULL, and larger than everything else.
    fn compare_records(&mut self, symbol: &str, pairs: Vec<(Value, Value)>) -> Result<Expr, Error> {
        if matches!(symbol, "=" | "<>") {
            let same = symbol == "=";
            let mut tests = Vec::with_capacity(pairs.len());
            for (left, right) in pairs {
                tests.push(self.distinct_values(left, right, same)?);
            }
            let combine = if same { Operator::And } else { Operator::Or };
            return joined(tests, combine);
        }
        let strict = symbol.trim_end_matches('=');
        let mut decided: Option<Expr> = None;
        for (left, right) in pairs.into_iter().rev() {
            let sides = (self.again(&left)?, self.again(&right)?);
            let equal = self.distinct_values(sides.0, sides.1, true)?;
            let rest = match decided {
                Some(rest) => Some(both(equal, Operator::And, rest)),
                None => (strict != symbol).then_some(equal),
            };
            let (less, more) = if strict == "<" {
                (left.expr.clone(), right.expr.clone())
            } else {
                (right.expr.clone(), left.expr.clone())
            };
            let beside_null = both(
                Expr::IsNotNull(Box::new(less)),
                Operator::And,
                Expr::IsNull(Box::new(more)),
            );
            let before = Expr::IsTrue(Box::new(self.compare_fields(strict, left, right)?));
            let before = both(before, Operator::Or, beside_null);
            decided = Some(match rest {
                Some(rest) => both(before, Operator::Or, rest),
                None => before,
            });
        }
        decided.ok_or_else(|| Error::internal("a comparison of rows without fields"))
    }
}

/// Refuses rows of different lengths.
fn same_length(left: usize, right: usize) -> Result<(), Error> {
    if left == right {
        return Ok(());
    }
    Err(Error::syntax(
        "unequal number of entries in row expressions",
    ))
}
