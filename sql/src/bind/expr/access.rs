//! Parts of values: fields of rows, items and slices of arrays, members of documents.
//!
//! Called by [`super`].

use flowstone_types::SqlType;
use sqlparser::ast::{self, AccessExpr, Subscript};

use super::span_of;
use crate::bind::Binder;
use crate::bind::value::{Type, Value, call, int8};
use crate::error::{Error, ErrorKind};
use crate::names::fold;

impl Binder<'_> {
    /// `root.field[subscript]…`
    pub(super) fn access(
        &mut self,
        root: &ast::Expr,
        chain: &[AccessExpr],
    ) -> Result<Value, Error> {
        let (mut value, rest) = self.accessed(root, chain)?;
        for access in rest {
            value = match access {
                AccessExpr::Dot(ast::Expr::Identifier(field)) => self.field(&value, field)?,
                AccessExpr::Dot(other) => {
                    return Err(Error::unsupported(format!(
                        "the field {other} is not supported"
                    )));
                }
                AccessExpr::Subscript(Subscript::Index { index }) => {
                    let index = self.scalar(index)?;
                    self.subscript(value, index)?
                }
                AccessExpr::Subscript(Subscript::Slice {
                    lower_bound,
                    upper_bound,
                    stride: None,
                }) => self.slice(value, lower_bound.as_ref(), upper_bound.as_ref())?,
                AccessExpr::Subscript(Subscript::Slice { .. }) => {
                    return Err(Error::syntax("a slice of an array has no stride"));
                }
            };
        }
        Ok(value)
    }

    /// What the accesses begin at, and those that are left: names before the first subscript are one column.
    fn accessed<'c>(
        &mut self,
        root: &ast::Expr,
        chain: &'c [AccessExpr],
    ) -> Result<(Value, &'c [AccessExpr]), Error> {
        let mut parts = match root {
            ast::Expr::Identifier(ident) => vec![ident.clone()],
            ast::Expr::CompoundIdentifier(parts) => parts.clone(),
            // In parentheses the name of a relation is its row.
            other => return Ok((self.expr(other)?, chain)),
        };
        let mut taken = 0;
        for access in chain {
            let AccessExpr::Dot(ast::Expr::Identifier(ident)) = access else {
                break;
            };
            parts.push(ident.clone());
            taken += 1;
        }
        let value = match parts.as_slice() {
            [only] => self.column(only)?,
            parts => self.qualified_column(parts)?,
        };
        Ok((value, chain.get(taken..).unwrap_or_default()))
    }

    fn field(&self, value: &Value, field: &ast::Ident) -> Result<Value, Error> {
        let name = fold(field);
        let Some(fields) = value.fields()? else {
            let error = Error::new(
                ErrorKind::WrongObjectType,
                format!(
                    "column notation .{name} applied to type {}, which is not a composite type",
                    value.of.name()
                ),
            );
            return Err(self.placed(error, field.span));
        };
        let found = fields.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value).ok_or_else(|| {
            let error = Error::new(
                ErrorKind::UndefinedColumn,
                format!("could not identify column \"{name}\" in record data type"),
            );
            self.placed(error, field.span)
        })
    }

    fn subscript(&mut self, value: Value, index: Value) -> Result<Value, Error> {
        match value.sql_type().cloned() {
            Some(SqlType::Jsonb) => {
                let index = match index.sql_type() {
                    Some(of) if of.is_integer() => self.coerce(index, &SqlType::Int4)?,
                    _ => self.coerce(index, &SqlType::Text)?,
                };
                let member = call("jsonb_subscript", vec![value.expr, index.expr])?;
                Ok(Value::new(member, SqlType::Jsonb))
            }
            Some(of) => {
                let item = of.element().ok_or_else(|| not_subscripted(&of))?;
                let index = match index.of {
                    Type::Of(SqlType::Int8) => index,
                    _ => self.assigned(index, &SqlType::Int4, "subscript")?,
                };
                let item_of = call("array_subscript", vec![value.expr, index.expr])?;
                Ok(Value::new(item_of, item))
            }
            None => Err(not_subscripted(&SqlType::Text)),
        }
    }

    fn slice(
        &mut self,
        value: Value,
        lower: Option<&ast::Expr>,
        upper: Option<&ast::Expr>,
    ) -> Result<Value, Error> {
        let of = match value.sql_type() {
            Some(of @ SqlType::Array(_)) => of.clone(),
            Some(of) => return Err(not_subscripted(of)),
            None => return Err(not_subscripted(&SqlType::Text)),
        };
        let mut bound = |bound: Option<&ast::Expr>, otherwise: i64| match bound {
            None => Ok(int8(otherwise)),
            Some(bound) => {
                let value = self.scalar(bound)?;
                self.assigned(value, &SqlType::Int8, "subscript")
                    .map_err(|error| self.placed(error, span_of(bound)))
            }
        };
        let (lower, upper) = (bound(lower, 1)?, bound(upper, i64::MAX)?);
        let slice = call(
            "array_slice_range",
            vec![value.expr, lower.expr, upper.expr],
        )?;
        Ok(Value::new(slice, of))
    }
}

fn not_subscripted(of: &SqlType) -> Error {
    Error::new(
        ErrorKind::DatatypeMismatch,
        format!(
            "cannot subscript type {} because it does not support subscripting",
            of.without_modifier()
        ),
    )
}
