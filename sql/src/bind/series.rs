//! Set-returning functions, in FROM and in SELECT lists.
//!
//! Owns how rows are made of what they yield, which is an array: those of one list side by side, as many rows as the longest has (PostgreSQL's lockstep rule).
//! Called by [`super::expr`] for a call in an expression and by [`super::from`] for one in FROM.
//!
//! Invariants. Rows for which nothing is yielded are no rows. The columns that are made of arrays say the types of the items.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, NullHandling, ScalarValue, UnnestOptions};
use datafusion::logical_expr::{EmptyRelation, Expr, LogicalPlan, Unnest};
use flowstone_functions::resolve::{CallError, Called, is_set_returning, resolve_scalar};
use flowstone_types::SqlType;
use sqlparser::tokenizer::Span;

use super::expr::{check_argument, refuse_unknown, unresolved};
use super::grouping::named;
use super::value::{Type, Value, call, made, told};
use super::{Binder, project};
use crate::error::{Error, ErrorKind};
use crate::names::INTERNAL;

/// What a set-returning function yields.
#[derive(Debug)]
pub(super) struct Series {
    /// The array of its rows.
    pub(super) list: Expr,
    /// The column that they become.
    pub(super) column: Column,
    /// The type of a row.
    pub(super) of: Type,
    /// How many functions inside of each other must have yielded theirs before.
    level: usize,
}

impl Series {
    /// One that waits for no other.
    pub(super) const fn first(list: Expr, column: Column, of: Type) -> Self {
        Self {
            list,
            column,
            of,
            level: 0,
        }
    }
}

/// A set-returning function: the array of its rows, and the type of a row.
#[derive(Debug)]
pub(super) struct Yield {
    pub(super) list: Expr,
    pub(super) of: Type,
}

/// The functions that yield the members of a document.
struct Members {
    /// Their keys, their values, and both as records.
    keys: &'static str,
    values: &'static str,
    records: &'static str,
    value: SqlType,
}

impl Members {
    fn named(function: &str) -> Option<Self> {
        Some(match function {
            "jsonb_each" | "json_each" => Self {
                keys: "jsonb_each_keys",
                values: "jsonb_each_values",
                records: "jsonb_each_rows",
                value: SqlType::Jsonb,
            },
            "jsonb_each_text" | "json_each_text" => Self {
                keys: "jsonb_each_text_keys",
                values: "jsonb_each_text_values",
                records: "jsonb_each_text_rows",
                value: SqlType::Text,
            },
            _ => return None,
        })
    }
}

/// The columns of the members of a document.
pub(super) const MEMBER_COLUMNS: [&str; 2] = ["key", "value"];

/// Whether a function yields the members of a document.
pub(super) fn yields_members(function: &str) -> bool {
    Members::named(function).is_some()
}

/// Whether a function yields rows.
pub(super) fn yields_rows(function: &str) -> bool {
    function == "_pg_expandarray" || yields_members(function) || is_set_returning(function)
}

/// A relation of one row without columns.
pub(super) fn one_row() -> LogicalPlan {
    LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: true,
        schema: Arc::new(DFSchema::empty()),
    })
}

/// The rows of `plan` with the items of arrays side by side.
pub(super) fn unnested(plan: LogicalPlan, lists: &[Series]) -> Result<LogicalPlan, Error> {
    if lists.is_empty() {
        return Ok(plan);
    }
    let mut exprs: Vec<Expr> = plan
        .schema()
        .columns()
        .into_iter()
        .map(Expr::Column)
        .collect();
    let kept = exprs.clone();
    let mut columns = Vec::with_capacity(lists.len());
    for series in lists {
        // What DataFusion unnests has no qualifier.
        let qualifier = series.column.relation.as_ref();
        let number = qualifier.map_or("", |qualifier| qualifier.table());
        let column = Column::new_unqualified(format!("{INTERNAL}items{number}"));
        exprs.push(series.list.clone().alias(&column.name));
        columns.push(column);
    }
    let arrays = project(plan, exprs)?;
    let options = UnnestOptions::new().with_null_handling(NullHandling::Drop);
    let rows = made(Unnest::try_new(Arc::new(arrays), columns.clone(), options))?;
    let rows = LogicalPlan::Unnest(rows);
    let schema = Arc::clone(rows.schema());
    let mut exprs = kept;
    for (series, column) in lists.iter().zip(columns) {
        let item = Expr::Column(column);
        let item = match &series.of {
            Type::Of(of) => told(item, of, &schema)?,
            Type::Unknown | Type::Row(_) => item,
        };
        exprs.push(named(item, &series.column));
    }
    project(rows, exprs)
}

impl Binder<'_> {
    /// The rows of an array that is an expression over queries around, and the column of its items.
    pub(super) fn items_of(
        &mut self,
        list: Expr,
        item: &SqlType,
    ) -> Result<(LogicalPlan, Column), Error> {
        let column = self.fresh_column("item");
        let series = Series::first(list, column.clone(), Type::Of(item.clone()));
        Ok((unnested(one_row(), &[series])?, column))
    }

    /// What a set-returning function yields for these arguments.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedFunction`], [`ErrorKind::AmbiguousFunction`]
    pub(super) fn yielded(
        &mut self,
        name: &str,
        args: Vec<Value>,
        span: Span,
    ) -> Result<Yield, Error> {
        match name {
            "_pg_expandarray" => return self.expanded(args),
            "generate_series" => return self.generate_series(args, span),
            _ => {}
        }
        if let Some(members) = Members::named(name) {
            let document = self.document_of_members(name, args, span)?;
            let columns = [SqlType::Text, members.value].map(Type::Of);
            let fields = MEMBER_COLUMNS.map(str::to_owned).into_iter().zip(columns);
            return Ok(Yield {
                list: call(members.records, vec![document])?,
                of: Type::Row(fields.collect()),
            });
        }
        refuse_unknown(name, &args).map_err(|error| self.placed(error, span))?;
        check_argument(name, &args).map_err(|error| self.placed(error, span))?;
        // Those of vectors count from 0.
        let vector = match args.first() {
            Some(first) if first.sql_type().is_some_and(SqlType::is_vector) => {
                Some(first.expr.clone())
            }
            _ => None,
        };
        let args = self.without_vectors(args)?;
        let given: Vec<_> = args.iter().map(Value::given).collect();
        let resolved =
            resolve_scalar(name, &given).map_err(|error| self.placed(unresolved(&error), span))?;
        let mut exprs = Vec::with_capacity(args.len());
        for (value, to) in args.into_iter().zip(&resolved.arguments) {
            exprs.push(self.argument(value, to)?.expr);
        }
        if name == "generate_subscripts"
            && let (Some(vector), Some(array)) = (vector, exprs.first_mut())
        {
            *array = vector;
        }
        let list = made(resolved.expr(exprs))?;
        if resolved.returns_set {
            return Ok(Yield {
                list,
                of: Type::Of(resolved.result.clone()),
            });
        }
        // One value is one row.
        let of = resolved.result.clone();
        let list = self.array_of(vec![Value::new(list, of.clone())])?.expr;
        Ok(Yield {
            list,
            of: Type::Of(of),
        })
    }

    /// The members of a document as columns: the keys and the values.
    pub(super) fn members(
        &mut self,
        name: &str,
        args: Vec<Value>,
        span: Span,
    ) -> Result<Vec<Yield>, Error> {
        let members = Members::named(name)
            .ok_or_else(|| Error::internal(format!("{name} yields no members")))?;
        let document = self.document_of_members(name, args, span)?;
        let column = |function, of| {
            Ok(Yield {
                list: call(function, vec![document.clone()])?,
                of: Type::Of(of),
            })
        };
        Ok(vec![
            column(members.keys, SqlType::Text)?,
            column(members.values, members.value)?,
        ])
    }

    /// The only argument of a function that yields the members of a document.
    fn document_of_members(
        &mut self,
        name: &str,
        args: Vec<Value>,
        span: Span,
    ) -> Result<Expr, Error> {
        let given: Vec<_> = args.iter().map(Value::given).collect();
        let resolved = match resolve_scalar("jsonb_each_keys", &given) {
            Err(CallError::Undefined(_)) => Err(CallError::Undefined(Called::Function {
                name: name.to_owned(),
                given,
            })),
            other => other,
        };
        let resolved = resolved.map_err(|error| self.placed(unresolved(&error), span))?;
        match (<[Value; 1]>::try_from(args), resolved.arguments.first()) {
            (Ok([document]), Some(to)) => Ok(self.argument(document, to)?.expr),
            _ => Err(Error::internal(format!("{name} takes one document"))),
        }
    }

    /// Arguments that are arrays of catalogs as arrays.
    fn without_vectors(&mut self, args: Vec<Value>) -> Result<Vec<Value>, Error> {
        args.into_iter()
            .map(|value| match value.sql_type().filter(|of| of.is_vector()) {
                Some(vector) => {
                    let item = vector.element().unwrap_or(SqlType::Int2);
                    self.coerce(value, &SqlType::Array(Box::new(item)))
                }
                None => Ok(value),
            })
            .collect()
    }

    /// `_pg_expandarray(array)`: records of an item and its subscript.
    fn expanded(&mut self, args: Vec<Value>) -> Result<Yield, Error> {
        let Ok([array]) = <[Value; 1]>::try_from(args) else {
            return Err(Error::syntax("_pg_expandarray takes one array"));
        };
        let item = array.sql_type().and_then(SqlType::element).ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedFunction,
                format!(
                    "function _pg_expandarray({}) does not exist",
                    array.of.name()
                ),
            )
        })?;
        Ok(Yield {
            list: call("_pg_expandarray", vec![array.expr])?,
            of: Type::Row(vec![
                ("x".to_owned(), Type::Of(item)),
                ("n".to_owned(), Type::Of(SqlType::Int4)),
            ]),
        })
    }

    /// `generate_series(start, stop, step)`: of dates it is one of moments with time zone.
    fn generate_series(&mut self, mut args: Vec<Value>, span: Span) -> Result<Yield, Error> {
        let is_date = |value: &Value| value.sql_type() == Some(&SqlType::Date);
        if args.len() == 3 && args.iter().take(2).any(is_date) {
            let stamps = args
                .iter()
                .take(2)
                .any(|value| value.sql_type() == Some(&SqlType::Timestamp));
            let moment = if stamps {
                SqlType::Timestamp
            } else {
                SqlType::TimestampTz
            };
            let step = args.pop();
            args = args
                .into_iter()
                .map(|value| self.coerce(value, &moment))
                .collect::<Result<_, _>>()?;
            args.extend(step);
        }
        let given: Vec<_> = args.iter().map(Value::given).collect();
        let resolved = resolve_scalar("generate_series", &given)
            .map_err(|error| self.placed(unresolved(&error), span))?;
        let mut exprs = Vec::with_capacity(args.len());
        for (value, to) in args.into_iter().zip(&resolved.arguments) {
            exprs.push(self.argument(value, to)?.expr);
        }
        Ok(Yield {
            list: made(resolved.expr(exprs))?,
            of: Type::Of(resolved.result.clone()),
        })
    }

    /// The numbers of the rows that functions yield side by side: the longest has all of them.
    pub(super) fn ordinals(lists: &[Expr]) -> Result<Vec<Expr>, Error> {
        lists
            .iter()
            .map(|list| call("array_ordinals", vec![list.clone()]))
            .collect()
    }

    /// The numbers of the rows that functions of a SELECT list yield, if none of them is inside of another.
    pub(super) fn number_of_series(&mut self) -> Result<Option<Expr>, Error> {
        let series = &self.frame()?.series;
        if series.is_empty() || series.iter().any(|one| one.level > 0) {
            return Ok(None);
        }
        let lists: Vec<Expr> = series.iter().map(|one| one.list.clone()).collect();
        let mut numbers = Vec::with_capacity(lists.len());
        for list in Self::ordinals(&lists)? {
            let column = self.reserve("ordinality", &SqlType::Int8);
            numbers.push(Value::new(Expr::Column(column.clone()), SqlType::Int8));
            let number = Series::first(list, column, Type::Of(SqlType::Int8));
            self.frame()?.series.push(number);
        }
        self.longest(numbers)
            .map(|number| number.map(|number| number.expr))
    }

    /// The numbers of the rows of several functions, of which the longest has all; `None` without any.
    pub(super) fn longest(&mut self, mut numbers: Vec<Value>) -> Result<Option<Value>, Error> {
        if numbers.len() < 2 {
            return Ok(numbers.pop());
        }
        self.function("coalesce", numbers, Span::empty()).map(Some)
    }

    /// A call of a set-returning function in an expression.
    pub(super) fn series_call(
        &mut self,
        name: &str,
        args: Vec<Value>,
        span: Span,
    ) -> Result<Value, Error> {
        let frame = self.frame()?;
        let place = frame.inside.unwrap_or(frame.clause);
        if !place.takes_series() && place != super::Clause::Aggregate {
            return Err(Error::unsupported(format!(
                "set-returning functions are not allowed in {}",
                place.place()
            )));
        }
        let level = self.level_of(&args)?;
        let Yield { list, of } = self.yielded(name, args, span)?;
        let column = match &of {
            Type::Of(sql_type) => self.reserve(name, sql_type),
            Type::Unknown | Type::Row(_) => self.fresh_column(name),
        };
        self.frame()?.series.push(Series {
            list,
            column: column.clone(),
            of: of.clone(),
            level,
        });
        let item = Expr::Column(column);
        match of {
            Type::Row(fields) => record(&item, fields),
            of => Ok(Value::typed(item, of)),
        }
    }

    /// One more than the level of what is in the arguments.
    fn level_of(&mut self, args: &[Value]) -> Result<usize, Error> {
        let series = &self.frame()?.series;
        let mut level = 0;
        for arg in args {
            for column in arg.expr.column_refs() {
                if let Some(inner) = series.iter().find(|series| series.column == *column) {
                    level = level.max(inner.level + 1);
                }
            }
        }
        Ok(level)
    }
}

/// A record of named fields as the row of them.
pub(super) fn record(record: &Expr, fields: Vec<(String, Type)>) -> Result<Value, Error> {
    let fields = fields
        .into_iter()
        .map(|(name, of)| {
            let key = Expr::Literal(ScalarValue::Utf8(Some(name.clone())), None);
            let field = call("get_field", vec![record.clone(), key])?;
            Ok((name, Value::typed(field, of)))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Value::row(fields)
}

/// The rows of `plan` with what functions yield, those inside of others first.
pub(super) fn unnested_in_levels(
    mut plan: LogicalPlan,
    series: Vec<Series>,
) -> Result<LogicalPlan, Error> {
    let mut levels: Vec<Vec<Series>> = Vec::new();
    for one in series {
        while levels.len() <= one.level {
            levels.push(Vec::new());
        }
        if let Some(level) = levels.get_mut(one.level) {
            level.push(one);
        }
    }
    for level in levels {
        plan = unnested(plan, &level)?;
    }
    Ok(plan)
}
