//! Conversions: what makes a value one of another type.
//!
//! Owns what becomes of literals and parameters of no type, and the three contexts of casts: implicit, assignment, explicit. Which casts there are `functions`
//! knows. Called by all of [`super`].

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use flowstone_functions::cast::{can_cast, cast_expr, casts_in_zone};
use flowstone_functions::resolve::{CastContext, Given, NoCommonType, cast_context, common_type};
use flowstone_functions::zone::cast_literal;
use flowstone_types::sql_type::NUMERIC_DEFAULT;
use flowstone_types::{EvalErrorKind, SqlType};

use super::value::{Type, Value, call, is_relabelled, literal, made, null};
use super::{Binder, number};
use crate::error::{Error, ErrorKind};

/// Longest text that is a `name` as it is.
const NAME_BYTES_MAX: usize = 63;

const fn is_text(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Text
            | SqlType::VarChar(_)
            | SqlType::Char(_)
            | SqlType::Name
            | SqlType::QuotedChar
    )
}

/// A whole number of a literal's text as a literal of this type; anything else is read when it is evaluated.
fn whole_number(text: &str, to: &SqlType) -> Option<Value> {
    let text = text.trim();
    let value = match to {
        SqlType::Int2 => ScalarValue::Int16(Some(text.parse().ok()?)),
        SqlType::Int4 => ScalarValue::Int32(Some(text.parse().ok()?)),
        SqlType::Int8 => ScalarValue::Int64(Some(text.parse().ok()?)),
        _ => return None,
    };
    Some(literal(value, to))
}

/// A literal number as a literal of a type that holds all of its kind.
fn widened(expr: &Expr, from: &SqlType, to: &SqlType) -> Option<Value> {
    use SqlType::{Float4, Float8, Int2, Int4, Int8, Numeric};
    let Expr::Literal(value, _) = expr else {
        return None;
    };
    let holds = matches!(
        (from, to),
        (Int2, Int4 | Int8 | Float4 | Float8)
            | (Int4, Int8 | Float8)
            | (Int2 | Int4, Numeric(None))
    );
    if !holds {
        return None;
    }
    let value = value.cast_to(&to.to_arrow()).ok()?;
    Some(literal(value, to))
}

/// What an unknown value is before it gets the length that `to` has: a parameter is of that type, and a literal a text.
fn of_any_length(value: &Value, to: &SqlType) -> SqlType {
    if matches!(value.expr, Expr::Placeholder(_)) {
        to.without_modifier()
    } else {
        SqlType::Text
    }
}

/// Whether values of the type can have more digits before or after the point than plain `numeric` holds.
fn exceeds_plain_numeric(sql_type: &SqlType) -> bool {
    let (precision, scale) = NUMERIC_DEFAULT;
    match sql_type {
        SqlType::Numeric(Some((digits, places))) => {
            *places > scale
                || i32::from(*digits) - i32::from(*places) > i32::from(precision) - i32::from(scale)
        }
        _ => false,
    }
}

impl Binder<'_> {
    /// What has no type as a value of type `to`.
    fn adapt(&mut self, value: Value, to: &SqlType) -> Result<Value, Error> {
        match value.expr {
            Expr::Placeholder(parameter) => self.decide(parameter, to),
            Expr::Literal(ScalarValue::Null, _) => Ok(null(to)),
            Expr::Literal(ScalarValue::Utf8(Some(text)), _) => self.text_as(text, to),
            other => Err(Error::internal(format!("{other} has no type"))),
        }
    }

    /// The constant that a text is in type `to`.
    pub(super) fn text_as(&self, text: String, to: &SqlType) -> Result<Value, Error> {
        match to {
            SqlType::Text | SqlType::VarChar(None) | SqlType::Char(0) => {
                return Ok(literal(ScalarValue::Utf8(Some(text)), to));
            }
            SqlType::Name if text.len() <= NAME_BYTES_MAX => {
                return Ok(literal(ScalarValue::Utf8(Some(text)), to));
            }
            SqlType::Reg(kind) => {
                return super::catalog_names::reg_constant(&self.ctx, *kind, &text);
            }
            _ => {}
        }
        if let Some(number) = whole_number(&text, to) {
            return Ok(number);
        }
        let text = Expr::Literal(ScalarValue::Utf8(Some(text)), None);
        let cast = match &self.literals {
            Some(zone) if casts_in_zone(&SqlType::Text, to) => cast_literal(text, to, zone),
            _ => cast_expr(text, &SqlType::Text, to),
        };
        Ok(Value::new(made(cast)?, to.clone()))
    }

    /// The value as one of type `to`, which is a type that it has in common with others. What has no type becomes one of it.
    pub(super) fn coerce(&mut self, value: Value, to: &SqlType) -> Result<Value, Error> {
        if number::is_wide(&value) {
            return number::settled(&value, to);
        }
        match &value.of {
            Type::Unknown => self.adapt(value, to),
            Type::Of(from) if from == to => Ok(value),
            Type::Of(from) => {
                if let Some(literal) = widened(&value.expr, from, to) {
                    return Ok(literal);
                }
                let from = from.clone();
                Ok(Value::new(
                    made(cast_expr(value.expr, &from, to))?,
                    to.clone(),
                ))
            }
            Type::Row(_) => Err(row_as_value()),
        }
    }

    /// The value as an argument that must be of type `to`: as [`Binder::coerce`], but what is such a value already stays as it is.
    pub(super) fn argument(&mut self, value: Value, to: &SqlType) -> Result<Value, Error> {
        match &value.of {
            Type::Of(from) if is_relabelled(from, to) && !number::is_wide(&value) => Ok(value),
            _ => self.coerce(value, to),
        }
    }

    /// `value::to`
    pub(super) fn explicit_cast(&mut self, value: Value, to: &SqlType) -> Result<Value, Error> {
        if number::is_wide(&value) {
            return number::cast(&value, to);
        }
        match &value.of {
            Type::Unknown => match to {
                // A cast cuts what an assignment refuses.
                SqlType::VarChar(Some(_)) | SqlType::Char(1..) => {
                    let own = of_any_length(&value, to);
                    let value = self.adapt(value, &own)?;
                    self.explicit_cast(value, to)
                }
                _ => self.adapt(value, to),
            },
            Type::Of(from) if from == to => Ok(value),
            // All digits stay, as many as there are: plain numeric has fewer places here, on either side of the point.
            Type::Of(from) if *to == SqlType::Numeric(None) && exceeds_plain_numeric(from) => {
                Ok(value)
            }
            Type::Of(from) => {
                let from = from.clone();
                let exists = cast_context(&from, to).is_some() && can_cast(&from, to);
                if !exists {
                    return Err(Error::new(
                        ErrorKind::CannotCoerce,
                        format!(
                            "cannot cast type {} to {}",
                            from.without_modifier(),
                            to.without_modifier()
                        ),
                    ));
                }
                if let Some(literal) = widened(&value.expr, &from, to) {
                    return Ok(literal);
                }
                Ok(Value::new(
                    made(cast_expr(value.expr, &from, to))?,
                    to.clone(),
                ))
            }
            Type::Row(_) if is_text(to) => {
                Err(Error::unsupported("a row as a text is not supported")
                    .with_hint("Give the fields one by one."))
            }
            Type::Row(_) => Err(Error::new(
                ErrorKind::CannotCoerce,
                format!("cannot cast type record to {}", to.without_modifier()),
            )),
        }
    }

    /// The value as one of a column of type `to`: a cast that is done on request only is refused, and so is a text that is too long.
    ///
    /// # Errors
    /// [`ErrorKind::DatatypeMismatch`] if there is no such cast.
    pub(super) fn assigned(
        &mut self,
        value: Value,
        to: &SqlType,
        column: &str,
    ) -> Result<Value, Error> {
        if number::is_wide(&value) {
            return number::cast(&value, to);
        }
        let fits = matches!(to, SqlType::VarChar(Some(_)) | SqlType::Char(1..));
        let from = match &value.of {
            Type::Unknown if fits => {
                let own = of_any_length(&value, to);
                let text = self.adapt(value, &own)?;
                return fit(text.expr, to);
            }
            Type::Unknown => return self.adapt(value, to),
            Type::Of(from) if from == to => return Ok(value),
            Type::Of(from) => from.clone(),
            Type::Row(_) => return Err(row_as_value()),
        };
        let allowed = matches!(
            cast_context(&from, to),
            Some(CastContext::Implicit | CastContext::Assignment)
        );
        if !(allowed && can_cast(&from, to)) {
            return Err(Error::new(
                ErrorKind::DatatypeMismatch,
                format!(
                    "column \"{column}\" is of type {} but expression is of type {}",
                    to.without_modifier(),
                    from.without_modifier()
                ),
            )
            .with_hint("You will need to rewrite or cast the expression."));
        }
        if fits {
            let text = if is_text(&from) && !matches!(from, SqlType::Char(_)) {
                value.expr
            } else {
                made(cast_expr(value.expr, &from, &SqlType::Text))?
            };
            return fit(text, to);
        }
        if let Some(literal) = widened(&value.expr, &from, to) {
            return Ok(literal);
        }
        Ok(Value::new(
            made(cast_expr(value.expr, &from, to))?,
            to.clone(),
        ))
    }

    /// The operand of `construct`, which must be boolean.
    ///
    /// # Errors
    /// [`ErrorKind::DatatypeMismatch`]
    pub(super) fn boolean(&mut self, construct: &str, value: Value) -> Result<Expr, Error> {
        match &value.of {
            Type::Unknown => Ok(self.adapt(value, &SqlType::Bool)?.expr),
            Type::Of(SqlType::Bool) => Ok(value.expr),
            other => Err(Error::new(
                ErrorKind::DatatypeMismatch,
                format!(
                    "argument of {construct} must be type boolean, not type {}",
                    other.name()
                ),
            )),
        }
    }

    /// The type that values have in common in `construct`.
    ///
    /// # Errors
    /// [`ErrorKind::DatatypeMismatch`] or [`ErrorKind::CannotCoerce`] if there is none.
    pub(super) fn common(
        construct: &str,
        given: impl IntoIterator<Item = Given>,
    ) -> Result<SqlType, Error> {
        let given: Vec<Given> = given.into_iter().collect();
        common_type(&given)
            .map_err(|clash| Error::new(kind_of_clash(&clash), format!("{construct} {clash}")))
    }

    /// Brings values to the type that they have in common in `construct`.
    pub(super) fn unified(
        &mut self,
        construct: &str,
        values: Vec<Value>,
    ) -> Result<(Vec<Expr>, SqlType), Error> {
        let common = Self::common(construct, values.iter().map(Value::given))?;
        let exprs = values
            .into_iter()
            .map(|value| Ok(self.coerce(value, &common)?.expr))
            .collect::<Result<_, Error>>()?;
        Ok((exprs, common))
    }
}

/// The class of the error that values have no type in common.
pub(super) fn kind_of_clash(clash: &NoCommonType) -> ErrorKind {
    if clash.is_of_one_category() {
        ErrorKind::CannotCoerce
    } else {
        ErrorKind::DatatypeMismatch
    }
}

/// A row where only values of SQL types can be.
pub(super) fn row_as_value() -> Error {
    Error::unsupported("a row as a value is not supported here")
        .with_hint("Give the fields one by one.")
}

/// Text as varchar(n) or char(n): an error if it does not fit, blanks at the end aside.
fn fit(text: Expr, to: &SqlType) -> Result<Value, Error> {
    let length = match to {
        SqlType::VarChar(Some(length)) | SqlType::Char(length @ 1..) => *length,
        _ => {
            return Ok(Value::new(
                made(cast_expr(text, &SqlType::Text, to))?,
                to.clone(),
            ));
        }
    };
    let complaint = format!("value too long for type {to}");
    if let Expr::Literal(ScalarValue::Utf8(value), _) = &text {
        let letters = value
            .as_deref()
            .map_or(0, |value| value.trim_end_matches(' ').chars().count());
        if !u32::try_from(letters).is_ok_and(|letters| letters <= length) {
            return Err(Error::new(
                ErrorKind::Evaluation(EvalErrorKind::TooLong),
                complaint,
            ));
        }
        return Ok(Value::new(
            made(cast_expr(text, &SqlType::Text, to))?,
            to.clone(),
        ));
    }
    let letters = call("char_length", vec![call("rtrim", vec![text.clone()])?])?;
    let too_long = Expr::BinaryExpr(BinaryExpr::new(
        Box::new(letters),
        Operator::Gt,
        Box::new(Expr::Literal(
            ScalarValue::Int32(Some(i32::try_from(length).unwrap_or(i32::MAX))),
            None,
        )),
    ));
    let failure = call(
        "raise_error",
        vec![
            Expr::Literal(ScalarValue::Utf8(Some("too long".to_owned())), None),
            Expr::Literal(ScalarValue::Utf8(Some(complaint)), None),
            text.clone(),
        ],
    )?;
    let failure = made(cast_expr(failure, &SqlType::Bool, &SqlType::Text))?;
    let failure = made(cast_expr(failure, &SqlType::Text, to))?;
    let fitting = made(cast_expr(text, &SqlType::Text, to))?;
    let fitted = Case::new(
        None,
        vec![(Box::new(too_long), Box::new(failure))],
        Some(Box::new(fitting)),
    );
    Ok(Value::new(Expr::Case(fitted), to.clone()))
}
