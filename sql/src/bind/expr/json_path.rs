//! Paths into documents: texts of a language of their own, which PostgreSQL has a type for.
//!
//! Owns where a text is one, so that a literal that is none is refused whether or not there are rows to look into. Called by [`super`] and [`crate::bind::series`].

use flowstone_types::SqlType;
use sqlparser::ast::{self, DataType};

use super::span_of;
use crate::bind::Binder;
use crate::bind::value::Value;
use crate::error::{Error, ErrorKind};
use crate::names;

/// Whether a type is that of paths.
pub(super) fn is_path_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::Custom(name, modifiers) if modifiers.is_empty() => {
            let parts = names::fold_name(name);
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            matches!(parts.as_slice(), ["jsonpath"] | ["pg_catalog", "jsonpath"])
        }
        _ => false,
    }
}

/// Refuses a literal that is no path.
fn check(path: &Value) -> Result<(), Error> {
    match path.literal_text() {
        Some(text) => flowstone_functions::check_json_path(text)
            .map_err(|error| Error::new(ErrorKind::Evaluation(error.kind), error.message)),
        None => Ok(()),
    }
}

/// Refuses a literal that is no path among the arguments of a function.
pub(in crate::bind) fn check_argument(function: &str, args: &[Value]) -> Result<(), Error> {
    match args.get(1) {
        Some(path) if function.starts_with("jsonb_path_") => check(path),
        _ => Ok(()),
    }
}

/// Refuses a literal that is no path as an operand.
pub(super) fn check_operand(symbol: &str, right: &Value) -> Result<(), Error> {
    match symbol {
        "@?" | "@@" => check(right),
        _ => Ok(()),
    }
}

impl Binder<'_> {
    /// `expr::jsonpath`: the text that it is.
    pub(super) fn cast_to_path(&mut self, expr: &ast::Expr) -> Result<Value, Error> {
        let value = self.expr(expr)?;
        check(&value).map_err(|error| self.placed(error, span_of(expr)))?;
        self.explicit_cast(value, &SqlType::Text)
    }
}
