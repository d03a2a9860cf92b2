//! Functions and operators that look into documents with SQL/JSON paths.
//!
//! Owns their arguments and what they give. Paths are texts, which are read once for the rows that have the same. What they find is [`super::evaluate`]'s.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, LargeBinaryArray, StringArray};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use flowstone_types::jsonb::{Jsonb, JsonbKind};
use flowstone_types::{EvalError, EvalErrorKind, SqlJsonKind, SqlType};

use super::Path;
use super::evaluate::{Found, Request};
use crate::errors::EvalResult;
use crate::growth::value_fits;
use crate::json::{build, document_lists, documents, json_list};
use crate::pattern::Patterns;
use crate::udf::{
    Call, JsonBuf, Kernel, Overload, P, R, broken, function, map_rows, overload, texts,
};

/// The functions of this module.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    let jsonb = || R::Sql(SqlType::Jsonb);
    let bool = || R::Sql(SqlType::Bool);
    vec![
        function("jsonb_path_exists", with_options(bool(), exists)),
        function("jsonb_path_match", with_options(bool(), matches)),
        function("jsonb_path_query_list", with_options(json_list(), query)),
        function("jsonb_path_query_array", with_options(jsonb(), query_array)),
        function("jsonb_path_query_first", with_options(jsonb(), query_first)),
        function(
            "jsonb_path_exists_opr",
            vec![overload(&[P::Jsonb, P::Text], bool(), exists_quietly)],
        ),
        function(
            "jsonb_path_match_opr",
            vec![overload(&[P::Jsonb, P::Text], bool(), matches_quietly)],
        ),
    ]
}

/// A document and a path, maybe variables, maybe whether failures are no errors.
fn with_options(returns: R, kernel: Kernel) -> Vec<Overload> {
    let params = [P::Jsonb, P::Text, P::Jsonb, P::Bool];
    [2, 3, 4]
        .into_iter()
        .filter_map(|count| params.get(..count))
        .map(|params| overload(params, returns.clone(), kernel))
        .collect()
}

/// Who asks: the operators know no variables and no errors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    ByFunction,
    ByOperator,
}

/// The arguments of a call, and what was made of them for the rows before.
struct Arguments<'a> {
    documents: &'a LargeBinaryArray,
    paths: &'a StringArray,
    variables: Option<&'a LargeBinaryArray>,
    silent: Option<&'a BooleanArray>,
    asked: Asked,
    path: Option<(&'a str, Path)>,
    patterns: Patterns,
}

impl<'a> Arguments<'a> {
    fn of(call: &Call<'a>, asked: Asked) -> Result<Self> {
        Ok(Self {
            documents: documents(call.arg(0)?)?,
            paths: texts(call.arg(1)?)?,
            variables: call.args.get(2).map(documents).transpose()?,
            silent: call
                .args
                .get(3)
                .map(|silent| {
                    silent
                        .as_boolean_opt()
                        .ok_or_else(|| broken("silent is no boolean"))
                })
                .transpose()?,
            asked,
            path: None,
            patterns: Patterns::default(),
        })
    }

    /// What the path of a row is asked; `None` if an argument is NULL.
    fn request(&self, row: usize) -> Option<Request<'a>> {
        let is_null = self.documents.is_null(row)
            || self.paths.is_null(row)
            || self
                .variables
                .is_some_and(|variables| variables.is_null(row))
            || self.silent.is_some_and(|silent| silent.is_null(row));
        if is_null {
            return None;
        }
        let variables = match (self.variables, self.asked) {
            (Some(variables), _) => Some(Jsonb::from_canonical(variables.value(row))),
            (None, Asked::ByFunction) => Some(Jsonb::empty_object()),
            (None, Asked::ByOperator) => None,
        };
        Some(Request {
            document: Jsonb::from_canonical(self.documents.value(row)),
            variables,
            is_silent: self.asked == Asked::ByOperator
                || self.silent.is_some_and(|silent| silent.value(row)),
        })
    }

    /// The path of a row, and the regular expressions in paths.
    fn path(&mut self, row: usize) -> EvalResult<(&Path, &mut Patterns)> {
        let text = self.paths.value(row);
        let known = self.path.take().filter(|(known, _)| *known == text);
        let path = match known {
            Some((_, path)) => path,
            None => Path::parse(text)?,
        };
        let (_, path) = self.path.insert((text, path));
        Ok((path, &mut self.patterns))
    }
}

fn exists(call: &Call<'_>) -> Result<ArrayRef> {
    exists_as(call, Asked::ByFunction)
}

fn exists_quietly(call: &Call<'_>) -> Result<ArrayRef> {
    exists_as(call, Asked::ByOperator)
}

fn exists_as(call: &Call<'_>, asked: Asked) -> Result<ArrayRef> {
    let mut arguments = Arguments::of(call, asked)?;
    map_rows(call, |row| {
        let Some(request) = arguments.request(row) else {
            return Ok(None);
        };
        let (path, patterns) = arguments.path(row)?;
        Ok(match path.exists(request, patterns)? {
            Found::Some => Some(true),
            Found::Nothing => Some(false),
            Found::Failed => None,
        })
    })
}

fn matches(call: &Call<'_>) -> Result<ArrayRef> {
    matches_as(call, Asked::ByFunction)
}

fn matches_quietly(call: &Call<'_>) -> Result<ArrayRef> {
    matches_as(call, Asked::ByOperator)
}

fn matches_as(call: &Call<'_>, asked: Asked) -> Result<ArrayRef> {
    let mut arguments = Arguments::of(call, asked)?;
    map_rows(call, |row| {
        let Some(request) = arguments.request(row) else {
            return Ok(None);
        };
        let (path, patterns) = arguments.path(row)?;
        let mut count = 0_usize;
        // Of the only item: whether it is true, and whether it may be one.
        let (mut truth, mut is_truth) = (None, false);
        path.find(request, patterns, &mut |value| {
            count += 1;
            truth = value.as_bool();
            is_truth = matches!(value.kind(), JsonbKind::Bool | JsonbKind::Null);
            Ok(())
        })?;
        if count == 1 && is_truth {
            return Ok(truth);
        }
        if request.is_silent {
            return Ok(None);
        }
        Err(EvalError::new(
            EvalErrorKind::SqlJson(SqlJsonKind::Singleton),
            "single boolean result is expected",
        ))
    })
}

fn query(call: &Call<'_>) -> Result<ArrayRef> {
    let mut arguments = Arguments::of(call, Asked::ByFunction)?;
    document_lists(call, |row, rows| {
        let Some(request) = arguments.request(row) else {
            return Ok(false);
        };
        let (path, patterns) = arguments.path(row)?;
        path.find(request, patterns, &mut |value| rows.document(value))?;
        Ok(true)
    })
}

fn query_array(call: &Call<'_>) -> Result<ArrayRef> {
    let mut arguments = Arguments::of(call, Asked::ByFunction)?;
    map_rows(call, |row| {
        let Some(request) = arguments.request(row) else {
            return Ok(None);
        };
        let (path, patterns) = arguments.path(row)?;
        let mut bytes = 0_usize;
        build(|builder| {
            builder.begin_array();
            path.find(request, patterns, &mut |value| {
                bytes = bytes.saturating_add(value.byte_len() + size_of::<u32>());
                value_fits(bytes)?;
                builder.value(value);
                Ok(())
            })?;
            builder.end();
            Ok(())
        })
        .map(Some)
    })
}

fn query_first(call: &Call<'_>) -> Result<ArrayRef> {
    let mut arguments = Arguments::of(call, Asked::ByFunction)?;
    map_rows(call, |row| {
        let Some(request) = arguments.request(row) else {
            return Ok(None);
        };
        let (path, patterns) = arguments.path(row)?;
        let mut first: Option<JsonBuf> = None;
        path.find(request, patterns, &mut |value| {
            if first.is_none() {
                first = Some(value.to_buf().into());
            }
            Ok(())
        })?;
        Ok(first)
    })
}
