//! Expressions that need the types of their operands: the markers that [`super::rewrite`] left, and operands of no type yet.
//!
//! Owns PostgreSQL's rules for literals of unknown type and for parameters: they take the type of the other operand. Which function an operator
//! is, `functions` knows. Must not know the catalog. Called by DataFusion's SQL planner.

mod arrays;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow_schema::{DataType, Field};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, ScalarValue, TableReference};
use datafusion::logical_expr::expr::{Case, InList, Placeholder, ScalarFunction};
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawBinaryExpr, RawDictionaryExpr,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use flowstone_functions::cast::{can_cast, cast_expr, casts_in_zone};
use flowstone_functions::execution::still_wanted;
use flowstone_functions::planner::PostgresExprPlanner;
use flowstone_functions::zone::{cast_literal, expr_in_zone};
use flowstone_types::datetime::TimeZone;
use flowstone_types::sql_type::{NUMERIC_DEFAULT, TYPE_KEY};
use flowstone_types::{EvalErrorKind, SqlType};
use sqlparser::ast::BinaryOperator;

use super::Literals;
use super::names::INTERNAL;
use super::{chains, literals};
use crate::error::{Error, ErrorKind};

type Result<T> = std::result::Result<T, DataFusionError>;

/// The types that the uses of parameters imply, by number from 1; filled as expressions are planned.
pub(super) type ParameterTypes = Arc<Mutex<BTreeMap<usize, SqlType>>>;

/// The number of a parameter.
fn number_of(parameter: &Placeholder) -> Option<usize> {
    parameter.id.strip_prefix('$')?.parse().ok()
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub(super) struct PostgresTyping {
    parameters: ParameterTypes,
    /// The zone in which what is evaluated while planning is.
    time_zone: TimeZone,
    /// The zone of literals, if it is not that of the plan they will be part of.
    literals: Option<TimeZone>,
}

fn raise(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The type of an expression; `None` for what has none of its own: a string literal, NULL, a parameter.
pub(super) fn type_of(expr: &Expr, schema: &DFSchema) -> Result<Option<SqlType>> {
    if is_unknown(expr) {
        return Ok(None);
    }
    if literals::is_wide(expr) {
        return Ok(Some(SqlType::Numeric(None)));
    }
    let (_, field) = expr.to_field(schema)?;
    if field.data_type().is_null() {
        return Ok(None);
    }
    SqlType::from_field(&field)
        .map(Some)
        .map_err(|error| DataFusionError::External(Box::new(error)))
}

/// Whether it has no type yet.
pub(super) fn is_unknown(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Null, _) => true,
        Expr::Literal(ScalarValue::Utf8(_), metadata) => metadata
            .as_ref()
            .is_none_or(|metadata| !metadata.inner().contains_key(TYPE_KEY)),
        Expr::Placeholder(placeholder) => placeholder.field.is_none(),
        Expr::Alias(alias) => is_unknown(&alias.expr),
        _ => false,
    }
}

/// Whether it is a text or parameter of unknown type.
fn is_unknown_text(expr: &Expr) -> bool {
    is_unknown(expr) && !matches!(expr, Expr::Literal(literal, _) if literal.is_null())
}

/// The literal, marked as being of type `sql_type` for good.
fn typed_literal(value: ScalarValue, sql_type: &SqlType) -> Expr {
    let metadata = FieldMetadata::new(BTreeMap::from([(
        TYPE_KEY.to_owned(),
        sql_type.to_string(),
    )]));
    Expr::Literal(value, Some(metadata))
}

pub(super) const fn is_text(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Text
            | SqlType::VarChar(_)
            | SqlType::Char(_)
            | SqlType::Name
            | SqlType::QuotedChar
    )
}

pub(super) const fn is_number(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::UInt2
            | SqlType::UInt4
            | SqlType::UInt8
            | SqlType::Float4
            | SqlType::Float8
            | SqlType::Numeric(_)
            | SqlType::Oid
            | SqlType::Reg(_)
            | SqlType::MzTimestamp
    )
}

const fn is_moment(sql_type: &SqlType) -> bool {
    matches!(
        sql_type,
        SqlType::Date | SqlType::Timestamp | SqlType::TimestampTz
    )
}

/// Whether values of the two types can be compared.
pub(super) fn comparable(left: &SqlType, right: &SqlType) -> bool {
    left == right
        || (is_text(left) && is_text(right))
        || (is_number(left) && is_number(right))
        || (is_moment(left) && is_moment(right))
        || (matches!(left, SqlType::MzTimestamp) && is_moment(right))
        || (matches!(right, SqlType::MzTimestamp) && is_moment(left))
        || match (left, right) {
            (SqlType::Array(left), SqlType::Array(right)) => comparable(left, right),
            _ => false,
        }
}

/// The type that values of these types have together in a CASE, COALESCE, IN or UNION; `None` if only unknown ones are given.
fn common_type(
    types: &[Option<SqlType>],
) -> std::result::Result<Option<SqlType>, (SqlType, SqlType)> {
    let mut common: Option<SqlType> = None;
    for sql_type in types.iter().flatten() {
        common = Some(match common {
            None => sql_type.clone(),
            Some(sofar) => common_of(&sofar, sql_type).ok_or_else(|| (sofar, sql_type.clone()))?,
        });
    }
    Ok(common)
}

/// The type that values of two types have together, if there is one.
fn common_of(left: &SqlType, right: &SqlType) -> Option<SqlType> {
    Some(match (left, right) {
        (left, right) if left == right => left.clone(),
        (SqlType::Array(left), SqlType::Array(right)) => {
            SqlType::Array(Box::new(common_of(left, right)?))
        }
        // Each is padded as it was.
        (SqlType::Char(_), right) if is_text(right) => SqlType::Char(0),
        (left, right) if is_text(left) && is_text(right) => SqlType::Text,
        (left, right) if comparable(left, right) => wider(left.clone(), right.clone()),
        _ => return None,
    })
}

fn rank(sql_type: &SqlType) -> u8 {
    match sql_type {
        SqlType::Int2 | SqlType::Date => 1,
        SqlType::UInt2 => 2,
        SqlType::Int4 | SqlType::Timestamp => 3,
        SqlType::UInt4 => 4,
        SqlType::Int8 | SqlType::TimestampTz => 5,
        SqlType::Oid | SqlType::Reg(_) => 6,
        SqlType::UInt8 => 7,
        SqlType::Numeric(Some(_)) => 8,
        SqlType::Numeric(None) => 9,
        SqlType::Float4 => 10,
        SqlType::Float8 => 11,
        _ => 0,
    }
}

fn wider(left: SqlType, right: SqlType) -> SqlType {
    match (decimal_shape(&left), decimal_shape(&right)) {
        (Some((left_digits, left_scale)), Some((right_digits, right_scale)))
            if matches!(left, SqlType::Numeric(_)) || matches!(right, SqlType::Numeric(_)) =>
        {
            let scale = left_scale.max(right_scale);
            match u8::try_from(left_digits.max(right_digits) + scale) {
                Ok(precision) if precision <= 38 => i8::try_from(scale)
                    .map_or(SqlType::Numeric(None), |scale| {
                        SqlType::Numeric(Some((precision, scale)))
                    }),
                _ => SqlType::Numeric(None),
            }
        }
        _ if rank(&left) >= rank(&right) => left,
        _ => right,
    }
}

/// Digits before and after the point of the values of an exact type; `None` for `numeric` without modifier and for inexact types.
fn decimal_shape(sql_type: &SqlType) -> Option<(i32, i32)> {
    match sql_type {
        SqlType::Numeric(Some((precision, scale))) => {
            Some((i32::from(*precision) - i32::from(*scale), i32::from(*scale)))
        }
        SqlType::Int2 | SqlType::UInt2 => Some((5, 0)),
        SqlType::Int4 | SqlType::UInt4 | SqlType::Oid | SqlType::Reg(_) => Some((10, 0)),
        SqlType::Int8 => Some((19, 0)),
        SqlType::UInt8 | SqlType::MzTimestamp => Some((20, 0)),
        _ => None,
    }
}

/// Whether values of the type can have more digits before or after the point than plain `numeric` holds.
fn exceeds_plain_numeric(sql_type: &SqlType) -> bool {
    let (precision, scale) = NUMERIC_DEFAULT;
    decimal_shape(sql_type).is_some_and(|(whole, fraction)| {
        whole > i32::from(precision) - i32::from(scale) || fraction > i32::from(scale)
    })
}

const fn is_float(sql_type: &SqlType) -> bool {
    matches!(sql_type, SqlType::Float4 | SqlType::Float8)
}

/// Whether numbers of the two types are compared as `double precision`: different ones of which one is a float.
fn meet_as_floats(left: &SqlType, right: &SqlType) -> bool {
    left != right && is_number(left) && is_number(right) && (is_float(left) || is_float(right))
}

/// What is compared, over the schemas of both sides, in the type in which PostgreSQL compares it where DataFusion takes another one: a float beside a
/// number that is none, or of another precision, is compared in `double precision`.
pub(super) fn in_common_float(
    (left, left_schema): (Expr, &DFSchema),
    (right, right_schema): (Expr, &DFSchema),
) -> Result<(Expr, Expr)> {
    match (type_of(&left, left_schema)?, type_of(&right, right_schema)?) {
        (Some(left_type), Some(right_type)) if meet_as_floats(&left_type, &right_type) => Ok((
            cast_expr(left, &left_type, &SqlType::Float8)?,
            cast_expr(right, &right_type, &SqlType::Float8)?,
        )),
        _ => Ok((left, right)),
    }
}

/// The type an operand of unknown type takes beside one of type `other`.
fn adapted_type(op: &BinaryOperator, other: &SqlType, unknown_is_right: bool) -> SqlType {
    match op {
        BinaryOperator::Arrow | BinaryOperator::LongArrow | BinaryOperator::Question
            if unknown_is_right =>
        {
            SqlType::Text
        }
        BinaryOperator::HashArrow
        | BinaryOperator::HashLongArrow
        | BinaryOperator::HashMinus
        | BinaryOperator::QuestionAnd
        | BinaryOperator::QuestionPipe
            if unknown_is_right =>
        {
            SqlType::Array(Box::new(SqlType::Text))
        }
        BinaryOperator::Minus if *other == SqlType::Jsonb => SqlType::Text,
        BinaryOperator::Plus if is_moment(other) || *other == SqlType::Time => SqlType::Interval,
        BinaryOperator::Multiply | BinaryOperator::Divide if *other == SqlType::Interval => {
            SqlType::Float8
        }
        BinaryOperator::StringConcat
            if !matches!(other, SqlType::Jsonb | SqlType::Array(_) | SqlType::Bytea) =>
        {
            SqlType::Text
        }
        BinaryOperator::And | BinaryOperator::Or => SqlType::Bool,
        _ if is_text(other) => SqlType::Text,
        // A literal with more digits than the column has must not lose them.
        _ => match other {
            SqlType::Numeric(_) => SqlType::Numeric(None),
            other => other.clone(),
        },
    }
}

const fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// Whether the right operand is a pattern.
const fn takes_pattern(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::PGLikeMatch
            | BinaryOperator::PGNotLikeMatch
            | BinaryOperator::PGILikeMatch
            | BinaryOperator::PGNotILikeMatch
            | BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotIMatch
    )
}

/// The operands joined by AND or OR, in their order, as a tree whose depth is the logarithm of their number; `None` without any.
fn balanced(mut operands: Vec<Expr>, op: Operator) -> Option<Expr> {
    while operands.len() > 1 {
        let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
        let mut items = operands.into_iter();
        while let Some(left) = items.next() {
            pairs.push(match items.next() {
                Some(right) => {
                    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
                }
                None => left,
            });
        }
        operands = pairs;
    }
    operands.pop()
}

impl PostgresTyping {
    pub(super) fn new(
        parameters: ParameterTypes,
        time_zone: &TimeZone,
        literals: Literals<'_>,
    ) -> Self {
        Self {
            parameters,
            time_zone: time_zone.clone(),
            literals: match literals {
                Literals::OfSession => None,
                Literals::OfView(zone) => Some(zone.clone()),
            },
        }
    }

    /// Gives an operand of no type the type `to`.
    fn adapt(&self, expr: Expr, to: &SqlType) -> Result<Expr> {
        match expr {
            Expr::Placeholder(parameter) if parameter.field.is_none() => {
                if let Some(number) = number_of(&parameter)
                    && let Ok(mut inferred) = self.parameters.lock()
                {
                    inferred.entry(number).or_insert_with(|| to.clone());
                }
                let id = parameter.id;
                Ok(Expr::Placeholder(Placeholder {
                    field: Some(Arc::new(to.to_field(&id, true))),
                    id,
                }))
            }
            known @ Expr::Placeholder(_) => Ok(known),
            Expr::Literal(ScalarValue::Null, _) => {
                let value = ScalarValue::try_from(&to.to_arrow())?;
                Ok(typed_literal(value, to))
            }
            Expr::Literal(value @ ScalarValue::Utf8(_), _)
                if is_text(to) && !matches!(to, SqlType::VarChar(Some(_)) | SqlType::Char(_)) =>
            {
                Ok(typed_literal(value, to))
            }
            other => match &self.literals {
                Some(zone) if casts_in_zone(&SqlType::Text, to) => cast_literal(other, to, zone),
                _ => cast_expr(other, &SqlType::Text, to),
            },
        }
    }

    /// [`PostgresTyping::adapt`] of what stands beside `char(n)`: a parameter is a `char` of any length then, other values are texts.
    fn adapt_beside_padded(&self, expr: Expr, to: &SqlType) -> Result<Expr> {
        let padded = match to {
            SqlType::Array(_) => SqlType::Array(Box::new(SqlType::Char(0))),
            _ => SqlType::Char(0),
        };
        let to = match &expr {
            Expr::Placeholder(_) => &padded,
            _ => to,
        };
        self.adapt(expr, to)
    }

    /// Gives an operand of unknown type the type `to`, and leaves others as they are.
    fn adapt_unknown(&self, expr: Expr, to: Option<&SqlType>) -> Result<Expr> {
        match to {
            Some(to) if is_unknown(&expr) => self.adapt(expr, to),
            _ => Ok(expr),
        }
    }

    fn operands(
        &self,
        op: &BinaryOperator,
        left: Expr,
        right: Expr,
        schema: &DFSchema,
    ) -> Result<(Expr, Expr)> {
        let types = (type_of(&left, schema)?, type_of(&right, schema)?);
        match (literals::is_wide(&left), literals::is_wide(&right), &types) {
            (true, false, (_, Some(other))) => {
                return literals::beside(left, right, other, is_comparison(op));
            }
            (false, true, (Some(other), _)) => {
                let (right, left) = literals::beside(right, left, other, is_comparison(op))?;
                return Ok((left, right));
            }
            _ => {}
        }
        if let BinaryOperator::And | BinaryOperator::Or = op {
            for found in [&types.0, &types.1].into_iter().flatten() {
                if *found != SqlType::Bool {
                    return Err(raise(not_boolean(&op.to_string(), found)));
                }
            }
        }
        Ok(match types {
            (None, Some(other)) => (self.adapt(left, &adapted_type(op, &other, false))?, right),
            (Some(other), None) => {
                let to = adapted_type(op, &other, true);
                (left, self.adapt(right, &to)?)
            }
            (None, None) if matches!(op, BinaryOperator::And | BinaryOperator::Or) => (
                self.adapt(left, &SqlType::Bool)?,
                self.adapt(right, &SqlType::Bool)?,
            ),
            (None, None) if is_comparison(op) || *op == BinaryOperator::StringConcat => (
                self.adapt(left, &SqlType::Text)?,
                self.adapt(right, &SqlType::Text)?,
            ),
            (Some(left_type), Some(right_type)) if is_comparison(op) => {
                if !comparable(&left_type, &right_type) {
                    return Err(raise(no_operator(&op.to_string(), &left_type, &right_type)));
                }
                match (&left_type, &right_type) {
                    (SqlType::MzTimestamp, moment) | (moment, SqlType::MzTimestamp)
                        if is_moment(moment) && !can_cast(moment, &SqlType::MzTimestamp) =>
                    {
                        return Err(raise(Error::unsupported(format!(
                            "comparing mz_timestamp with {} is not supported",
                            moment.without_modifier()
                        ))));
                    }
                    (SqlType::MzTimestamp, moment) if is_moment(moment) => {
                        (left, cast_expr(right, moment, &SqlType::MzTimestamp)?)
                    }
                    (moment, SqlType::MzTimestamp) if is_moment(moment) => {
                        (cast_expr(left, moment, &SqlType::MzTimestamp)?, right)
                    }
                    _ => in_common_float((left, schema), (right, schema))?,
                }
            }
            _ => (left, right),
        })
    }

    /// Operands of `char(n)` and arrays of it without their padding, which no comparison sees and no operator but what stands to the left of a pattern. What is compared
    /// with one and has no type of its own, or is `varchar`, is a `char` too and loses its blanks.
    fn without_padding(
        &self,
        op: &BinaryOperator,
        left: Expr,
        right: Expr,
        schema: &DFSchema,
    ) -> Result<(Expr, Expr)> {
        let is_pattern = takes_pattern(op);
        let compares = is_comparison(op)
            || matches!(
                op,
                BinaryOperator::AtArrow | BinaryOperator::ArrowAt | BinaryOperator::PGOverlap
            );
        if !compares && *op != BinaryOperator::StringConcat && !is_pattern {
            return Ok((left, right));
        }
        let types = (type_of(&left, schema)?, type_of(&right, schema)?);
        if is_pattern {
            let right = match &types.1 {
                Some(from @ SqlType::Char(_)) => cast_expr(right, from, &SqlType::Text)?,
                _ => right,
            };
            return Ok((left, right));
        }
        let side = |expr: Expr, own: &Option<SqlType>, other: &Option<SqlType>| match (own, other) {
            (Some(from @ SqlType::Char(_)), _) => self.without_padding_of(expr, from),
            (Some(own), _) if own.is_padded() => cast_expr(expr, own, &own.without_padding()),
            (None | Some(SqlType::VarChar(_)), Some(SqlType::Char(_))) if is_comparison(op) => {
                self.without_blanks(expr)
            }
            (None, Some(other)) if other.is_padded() && compares => {
                self.items_of_unknown_without_blanks(expr)
            }
            _ => Ok(expr),
        };
        Ok((
            side(left, &types.0, &types.1)?,
            side(right, &types.1, &types.0)?,
        ))
    }

    /// A value of type `from`, which is `char(n)`, without its padding. A parameter is a text and may have blanks as well.
    fn without_padding_of(&self, expr: Expr, from: &SqlType) -> Result<Expr> {
        match expr {
            parameter @ Expr::Placeholder(_) => self.without_blanks(parameter),
            other => cast_expr(other, from, &SqlType::Text),
        }
    }

    /// What is compared with `char(n)` and is not padded, without blanks at its end.
    fn without_blanks(&self, expr: Expr) -> Result<Expr> {
        let parameter = matches!(expr, Expr::Placeholder(_));
        let expr = if parameter || is_unknown(&expr) {
            self.adapt_beside_padded(expr, &SqlType::Text)?
        } else {
            expr
        };
        match expr {
            Expr::Literal(..) => Ok(trimmed(expr)),
            other => call("rtrim", vec![other]),
        }
    }

    /// What is compared with an array of `char(n)` and has no type, as texts without blanks at their ends.
    fn items_of_unknown_without_blanks(&self, expr: Expr) -> Result<Expr> {
        let texts = SqlType::Array(Box::new(SqlType::Text));
        items_without_blanks(self.adapt_beside_padded(expr, &texts)?)
    }

    /// `left op right` for an operator that compares.
    fn compared(&self, left: Expr, op: Operator, right: Expr, schema: &DFSchema) -> Result<Expr> {
        let (left, right) = self.without_padding(&BinaryOperator::Eq, left, right, schema)?;
        let (left, right) = self.operands(&BinaryOperator::Eq, left, right, schema)?;
        Ok(Expr::BinaryExpr(BinaryExpr::new(
            Box::new(left),
            op,
            Box::new(right),
        )))
    }

    /// An operator as the planner would plan it that asks us first and then `functions`.
    fn operator(
        &self,
        op: BinaryOperator,
        left: Expr,
        right: Expr,
        schema: &DFSchema,
    ) -> Result<Expr> {
        let (left, right) = match arrays::array_operator(self, &op, left, right, schema)? {
            PlannerResult::Planned(expr) => return Ok(expr),
            PlannerResult::Original(operands) => operands,
        };
        let (left, right) = self.without_padding(&op, left, right, schema)?;
        let (left, right) = self.operands(&op, left, right, schema)?;
        let operands = RawBinaryExpr { op, left, right };
        match PostgresExprPlanner.plan_binary_op(operands, schema)? {
            PlannerResult::Planned(expr) => Ok(expr),
            PlannerResult::Original(RawBinaryExpr { op, left, right }) => {
                let name = |side: &Expr| type_of(side, schema);
                let types = (name(&left)?, name(&right)?);
                let known = |known: Option<SqlType>| known.unwrap_or(SqlType::Text);
                let types = (known(types.0), known(types.1));
                Err(raise(no_operator(&op.to_string(), &types.0, &types.1)))
            }
        }
    }

    fn marker(&self, key: &str, values: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
        if let Some(name) = key.strip_prefix("cast:") {
            return self.cast_or_lookup(values, &parse(name)?, schema);
        }
        if let Some(name) = key.strip_prefix("assign:") {
            return self.assignment_cast(only(values)?, &parse(name)?, schema);
        }
        if let Some(function) = key.strip_prefix("set:") {
            let values = match function {
                "generate_series" => self.series(values, schema)?,
                _ => values,
            };
            return set_returning(function, values, schema);
        }
        if let Some(operators) = key.strip_prefix(chains::KEY) {
            let operator = |op: BinaryOperator, left, right, schema: &DFSchema| {
                self.operator(op, left, right, schema)
            };
            return chains::plan(operators, values, schema, &operator);
        }
        if let Some(field) = key.strip_prefix("field:") {
            let name = Expr::Literal(ScalarValue::Utf8(Some(field.to_owned())), None);
            return call("get_field", vec![only(values)?, name]);
        }
        if let Some(function) = key.strip_prefix("unify:") {
            return self.unified_call(function, values, schema);
        }
        if let Some(side) = key.strip_prefix("merged:") {
            return self.merged_column(side, values, schema);
        }
        if let Some(construct) = key.strip_prefix("boolean:") {
            return self.boolean(construct, only(values)?, schema);
        }
        if let Some(function) = key.strip_prefix("arrays:") {
            return arrays::array_call(self, function, values, schema);
        }
        match key {
            "int4" => match only(values)? {
                Expr::Literal(ScalarValue::Int64(Some(value)), _) => {
                    let value = i32::try_from(value)
                        .map_err(|error| DataFusionError::Internal(error.to_string()))?;
                    Ok(Expr::Literal(ScalarValue::Int32(Some(value)), None))
                }
                other => Ok(other),
            },
            "int8" => only(values),
            "cell" => self.cell(values, schema),
            "stored" => cell(only(values)?, schema, &self.time_zone),
            "numeric" => match only(values)? {
                Expr::Literal(ScalarValue::Utf8(Some(digits)), _) => literals::number(&digits),
                other => Ok(other),
            },
            "negate" => {
                let operand = only(values)?;
                let operand = if is_unknown(&operand) {
                    self.adapt(operand, &SqlType::Float8)?
                } else {
                    operand
                };
                flowstone_functions::planner::negation(operand)
            }
            "in" | "notin" => self.in_list(values, key == "notin", schema),
            "case" => self.case(values, schema),
            "distinct" => self.distinct_from(values, Operator::IsDistinctFrom, schema),
            "notdistinct" => self.distinct_from(values, Operator::IsNotDistinctFrom, schema),
            "any" => self.any(values, schema),
            "typeof" => {
                let name = type_of(&only(values)?, schema)?.map_or_else(
                    || "unknown".to_owned(),
                    |sql_type| sql_type.without_modifier().to_string(),
                );
                Ok(typed_literal(ScalarValue::Utf8(Some(name)), &SqlType::Text))
            }
            "age" => self.age(values, schema),
            "array" => told_array(only(values)?, schema),
            "items" => self.array_of(values, schema),
            "printed" => self.printed(only(values)?, schema),
            "unknown function" => Err(raise(unknown_function(values, schema)?)),
            _ => Err(DataFusionError::NotImplemented(
                "dictionary literals are not supported".to_owned(),
            )),
        }
    }

    /// The arguments of `generate_series`: start, stop and perhaps the step. Those of no type have that of the others.
    fn series(&self, values: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>> {
        if values.len() < 2 {
            return Ok(values);
        }
        let types = values
            .iter()
            .map(|value| type_of(value, schema))
            .collect::<Result<Vec<_>>>()?;
        let ends = common_type(types.get(..2).unwrap_or_default())
            .ok()
            .flatten();
        let step = types.get(2).cloned().flatten();
        let (end, step) = match (ends, step) {
            (Some(end), _) if is_moment(&end) => (end, SqlType::Interval),
            (Some(end), _) => (end.clone(), end),
            // Of several kinds of moments this one is preferred.
            (None, Some(SqlType::Interval)) => (SqlType::TimestampTz, SqlType::Interval),
            (None, Some(step)) => (step.clone(), step),
            (None, None) => {
                return Err(raise(Error::new(
                    ErrorKind::AmbiguousFunction,
                    "function generate_series(unknown, unknown) is not unique",
                )
                .with_hint("Could not choose a best candidate function. You might need to add explicit type casts.")));
            }
        };
        // Of a date there is no series: it is one of timestamps with time zone.
        let end = match end {
            SqlType::Date => SqlType::TimestampTz,
            end => end.without_modifier(),
        };
        values
            .into_iter()
            .zip(types)
            .enumerate()
            .map(|(index, (value, from))| match from {
                None => self.adapt(value, if index < 2 { &end } else { &step }),
                Some(from) if index < 2 && from != end && is_moment(&end) => {
                    cast_expr(value, &from, &end)
                }
                Some(_) => Ok(value),
            })
            .collect()
    }

    /// The type of a column of a UNION: texts of no type in one branch have that of the other. `None` if it need not be told.
    pub(super) fn branches(
        &self,
        (left, left_schema): (&Expr, &DFSchema),
        (right, right_schema): (&Expr, &DFSchema),
    ) -> Result<Option<SqlType>> {
        match (type_of(left, left_schema)?, type_of(right, right_schema)?) {
            (None, Some(told)) if is_unknown_text(left) => Ok(Some(told)),
            (Some(told), None) if is_unknown_text(right) => Ok(Some(told)),
            _ => Ok(None),
        }
    }

    /// A branch's column of no type as one of type `to`.
    pub(super) fn tell(&self, column: Expr, to: &SqlType) -> Result<Expr> {
        match to {
            // It is not padded, nor cut.
            SqlType::Char(_) => self.adapt_unknown(column, Some(&SqlType::Text)),
            to => self.adapt_unknown(column, Some(&to.without_modifier())),
        }
    }

    /// `values`: what is cast and, for a cast that looks texts up in the catalog, what they are then.
    fn cast_or_lookup(
        &self,
        mut values: Vec<Expr>,
        to: &SqlType,
        schema: &DFSchema,
    ) -> Result<Expr> {
        let lookup = if values.len() > 1 { values.pop() } else { None };
        let value = only(values)?;
        let may_be_name = match type_of(&value, schema)? {
            Some(sql_type) => is_text(&sql_type),
            None => matches!(value, Expr::Placeholder(_)),
        };
        match lookup {
            Some(lookup) if may_be_name => self.explicit_cast(lookup, to, schema),
            _ => self.explicit_cast(value, to, schema),
        }
    }

    fn explicit_cast(&self, expr: Expr, to: &SqlType, schema: &DFSchema) -> Result<Expr> {
        if literals::is_wide(&expr) {
            return literals::cast(expr, to);
        }
        match type_of(&expr, schema)? {
            None => self.adapt(expr, to),
            Some(from) if from == *to => Ok(expr),
            // All digits stay, as many as there are: plain numeric has fewer places here, on either side of the point.
            Some(from @ SqlType::Numeric(Some(_)))
                if *to == SqlType::Numeric(None) && exceeds_plain_numeric(&from) =>
            {
                Ok(expr)
            }
            Some(from) if can_cast(&from, to) => cast_expr(expr, &from, to),
            Some(from) => Err(raise(Error::new(
                ErrorKind::DatatypeMismatch,
                format!("cannot cast type {from} to {to}"),
            ))),
        }
    }

    fn assignment_cast(&self, expr: Expr, to: &SqlType, schema: &DFSchema) -> Result<Expr> {
        if literals::is_wide(&expr) {
            return literals::cast(expr, to);
        }
        let Some(from) = type_of(&expr, schema)? else {
            // A literal must fit varchar(n): an explicit cast would cut it.
            return match to {
                SqlType::VarChar(Some(_)) | SqlType::Char(_) => {
                    fit(self.adapt(expr, &SqlType::Text)?, to)
                }
                _ => self.adapt(expr, to),
            };
        };
        cast_for_assignment(expr, &from, to).map_err(raise)
    }

    /// `values`: a cell of VALUES and, if it is of no type, cells of its column that have one.
    fn cell(&self, mut values: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
        let telling = values.split_off(values.len().min(1));
        let value = only(values)?;
        let types = telling
            .iter()
            .map(|value| type_of(value, schema))
            .collect::<Result<Vec<_>>>()?;
        // Where they have nothing in common DataFusion says so.
        let told = common_type(&types).ok().flatten();
        let value = match told {
            Some(told) => self.tell(value, &told)?,
            None => value,
        };
        // What tells padded values from others is lost in VALUES.
        let value = match type_of(&value, schema)? {
            Some(from @ SqlType::Char(_)) => cast_expr(value, &from, &SqlType::Text)?,
            _ => value,
        };
        cell(value, schema, &self.time_zone)
    }

    /// The value that a construct takes, which must be boolean.
    fn boolean(&self, construct: &str, value: Expr, schema: &DFSchema) -> Result<Expr> {
        match type_of(&value, schema)? {
            None => self.adapt(value, &SqlType::Bool),
            Some(SqlType::Bool) => Ok(value),
            Some(found) => Err(raise(not_boolean(construct, &found))),
        }
    }

    /// A value as text, padded as it is printed.
    fn printed(&self, value: Expr, schema: &DFSchema) -> Result<Expr> {
        match type_of(&value, schema)? {
            Some(SqlType::Char(_)) => Ok(value),
            _ => self.explicit_cast(value, &SqlType::Text, schema),
        }
    }

    fn unified_call(&self, function: &str, values: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
        if function == "nullif"
            && let Some(planned) = nullif_of_reals(&values, schema)?
        {
            return Ok(planned);
        }
        let first = match values.first() {
            Some(first) => type_of(first, schema)?,
            None => None,
        };
        let (values, common) = self.unify(function, values, schema)?;
        // What NULLIF yields is the first value, which has as many blanks as it had.
        let common = match first {
            Some(first @ SqlType::Char(1..)) if function == "nullif" => first,
            _ => common,
        };
        let scalar = flowstone_functions::registry()
            .scalar(function)
            .ok_or_else(|| {
                raise(Error::new(
                    ErrorKind::UndefinedFunction,
                    format!("function {function} does not exist"),
                ))
            })?;
        let call = Expr::ScalarFunction(ScalarFunction::new_udf(scalar, values));
        told(call, &common)
    }

    /// The column that a join USING makes of two of different types: of the outer side, or of that which has the common type already.
    fn merged_column(&self, side: &str, values: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
        let types = values
            .iter()
            .map(|value| type_of(value, schema))
            .collect::<Result<Vec<_>>>()?;
        let (unified, common) = self.unify("join/using", values.clone(), schema)?;
        let has_it = |index: usize| matches!(types.get(index), Some(Some(own)) if *own == common);
        let right = side == "right" || (side == "inner" && !has_it(0) && has_it(1));
        let chosen = usize::from(right);
        let missing = || DataFusionError::Internal("a merged column is made of two".to_owned());
        if has_it(chosen) {
            return values.into_iter().nth(chosen).ok_or_else(missing);
        }
        told(
            unified.into_iter().nth(chosen).ok_or_else(missing)?,
            &common,
        )
    }

    /// Brings values to their common type.
    fn unify(
        &self,
        construct: &str,
        values: Vec<Expr>,
        schema: &DFSchema,
    ) -> Result<(Vec<Expr>, SqlType)> {
        let types = values
            .iter()
            .map(|value| type_of(value, schema))
            .collect::<Result<Vec<_>>>()?;
        let common = common_type(&types).map_err(|(left, right)| {
            raise(Error::new(
                ErrorKind::DatatypeMismatch,
                format!(
                    "{} types {left} and {right} cannot be matched",
                    construct.to_uppercase()
                ),
            ))
        })?;
        let compares = matches!(construct, "in" | "nullif" | "greatest" | "least");
        let common = match common.unwrap_or(SqlType::Text) {
            // A literal beside a padded value may be longer, and is not padded.
            common if common.is_padded() && values.iter().any(is_unknown_text) => {
                common.without_modifier()
            }
            common => common,
        };
        let common = match common {
            // What is compared has lost its padding. Where all had the same it is told how much that was.
            SqlType::Char(1..) => common,
            common if compares => common.without_padding(),
            common => common,
        };
        // What is told in the end (see [`told`]) is text until then.
        let bare = match &common {
            SqlType::Char(_) => SqlType::Text,
            other => other.clone(),
        };
        let keeps_padding = common.is_padded() && !compares;
        let values = values
            .into_iter()
            .zip(types)
            .map(|(value, from)| match from {
                None => self.adapt(value, &bare),
                Some(_) if literals::is_wide(&value) => literals::settled(value, &common),
                Some(from) if from.is_padded() && !keeps_padding => {
                    cast_expr(value, &from, &from.without_padding())
                }
                Some(from) if from.to_arrow() == common.to_arrow() => Ok(value),
                Some(from) => cast_expr(value, &from, &common),
            })
            .collect::<Result<Vec<_>>>()?;
        Ok((values, common))
    }

    /// `subject IN (…)`. As in PostgreSQL, what depends on the row is compared one by one, and so is a single constant; several constants have one type.
    fn in_list(&self, mut values: Vec<Expr>, negated: bool, schema: &DFSchema) -> Result<Expr> {
        let types = values
            .iter()
            .map(|value| type_of(value, schema))
            .collect::<Result<Vec<_>>>()?;
        if let Some(Some(subject)) = types.first() {
            for other in types.iter().skip(1).flatten() {
                if !comparable(subject, other) {
                    return Err(raise(no_operator("=", subject, other)));
                }
            }
        }
        let subject = values.remove(0);
        let (varying, constant): (Vec<Expr>, Vec<Expr>) =
            values.into_iter().partition(Expr::any_column_refs);
        let (compare, combine) = if negated {
            (Operator::NotEq, Operator::And)
        } else {
            (Operator::Eq, Operator::Or)
        };
        let mut singles = varying;
        let mut tests = Vec::new();
        if constant.len() > 1 {
            tests.extend(self.in_constants(subject.clone(), constant, negated, schema)?);
        } else {
            singles.extend(constant);
        }
        for value in singles {
            tests.push(self.compared(subject.clone(), compare, value, schema)?);
        }
        balanced(tests, combine)
            .ok_or_else(|| DataFusionError::Internal("IN without a list".to_owned()))
    }

    /// The comparisons of `subject IN (…)` with values that do not depend on the row.
    fn in_constants(
        &self,
        subject: Expr,
        mut values: Vec<Expr>,
        negated: bool,
        schema: &DFSchema,
    ) -> Result<Vec<Expr>> {
        values.insert(0, subject.clone());
        let types = values
            .iter()
            .map(|value| type_of(value, schema))
            .collect::<Result<Vec<_>>>()?;
        // All are `char` if the first that has a type is.
        let padded = matches!(types.iter().flatten().next(), Some(SqlType::Char(_)));
        values = values
            .into_iter()
            .zip(&types)
            .map(|(value, own)| match own {
                Some(from @ SqlType::Char(_)) => self.without_padding_of(value, from),
                _ if padded => self.without_blanks(value),
                _ => Ok(value),
            })
            .collect::<Result<_>>()?;
        let (mut values, common) = self.unify("in", values, schema)?;
        let first = values.remove(0);
        match types.into_iter().next().flatten() {
            // The values are `real` then, and it is not.
            Some(own) if common == SqlType::Float4 && meet_as_floats(&own, &common) => {
                let subject = cast_expr(subject, &own, &SqlType::Float8)?;
                let values = values
                    .into_iter()
                    .map(|value| match value {
                        Expr::Literal(value, _) if value.is_null() => {
                            Ok(Expr::Literal(ScalarValue::Float64(None), None))
                        }
                        value => cast_expr(value, &common, &SqlType::Float8),
                    })
                    .collect::<Result<_>>()?;
                Ok(membership(&subject, values, negated))
            }
            _ => Ok(membership(&first, values, negated)),
        }
    }

    /// `values`: condition, result, condition, result, …, and the ELSE result if the number is odd.
    fn case(&self, values: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
        let mut conditions = Vec::new();
        let mut results = Vec::new();
        let count = values.len() / 2;
        for (index, value) in values.into_iter().enumerate() {
            if index % 2 == 0 && index < 2 * count {
                conditions.push(self.boolean("CASE/WHEN", value, schema)?)
            } else {
                results.push(value)
            }
        }
        // ELSE comes first where the type is chosen.
        if results.len() > count {
            results.rotate_right(1);
        }
        let (mut results, common) = self.unify("case", results, schema)?;
        // DataFusion makes ANDs and ORs of a CASE of booleans, and evaluates results that no condition asks for. `CASE true WHEN …` it leaves alone.
        let boolean = match results.first() {
            Some(result) => type_of(result, schema)? == Some(SqlType::Bool),
            None => false,
        };
        let subject =
            boolean.then(|| Box::new(Expr::Literal(ScalarValue::Boolean(Some(true)), None)));
        let otherwise = (results.len() > count).then(|| Box::new(results.remove(0)));
        let arms = conditions
            .into_iter()
            .zip(results)
            .map(|(condition, result)| (Box::new(condition), Box::new(result)))
            .collect();
        told(Expr::Case(Case::new(subject, arms, otherwise)), &common)
    }

    /// `age(x)`: of a transaction, or up to the midnight before now. `values`: x, the id of a transaction that began now, that midnight.
    fn age(&self, mut values: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
        let (midnight, now) = (values.pop(), values.pop());
        let (Some(midnight), Some(now)) = (midnight, now) else {
            return Err(DataFusionError::Internal("age lacks operands".to_owned()));
        };
        let value = only(values)?;
        match type_of(&value, schema)? {
            Some(sql_type) if is_number(&sql_type) => call("age_of_transaction", vec![value, now]),
            Some(_) => call("age", vec![midnight, value]),
            None => call(
                "age",
                vec![midnight, self.adapt(value, &SqlType::TimestampTz)?],
            ),
        }
    }

    fn distinct_from(
        &self,
        mut values: Vec<Expr>,
        op: Operator,
        schema: &DFSchema,
    ) -> Result<Expr> {
        let right = values
            .pop()
            .unwrap_or_else(|| Expr::Literal(ScalarValue::Null, None));
        self.compared(only(values)?, op, right, schema)
    }

    /// `ARRAY[…]`
    fn array_of(&self, items: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
        let are_varying = are_varying(&items, schema)?;
        let (items, common) = self.unify("array", items, schema)?;
        let array = call("make_array", items)?;
        let of = |item| SqlType::Array(Box::new(item));
        if are_varying {
            return cast_expr(array, &of(SqlType::Text), &of(SqlType::VarChar(None)));
        }
        told(array, &of(common))
    }

    /// `left = ANY (array)`
    fn any(&self, mut values: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
        let array = values
            .pop()
            .unwrap_or_else(|| Expr::Literal(ScalarValue::Null, None));
        let left = only(values)?;
        let (left_type, array_type) = (type_of(&left, schema)?, type_of(&array, schema)?);
        let (left, right) = match (left_type, array_type) {
            (Some(from @ SqlType::Char(_)), None) => {
                let texts = SqlType::Array(Box::new(SqlType::Text));
                let array = self.adapt_beside_padded(array, &texts)?;
                (
                    self.without_padding_of(left, &from)?,
                    items_without_blanks(array)?,
                )
            }
            (Some(element), None) => {
                let array = self.adapt(array, &SqlType::Array(Box::new(element)))?;
                (left, array)
            }
            (None, None) => {
                let array = self.adapt(array, &SqlType::Array(Box::new(SqlType::Text)))?;
                (self.adapt(left, &SqlType::Text)?, array)
            }
            (left_type, Some(array_type)) => {
                let Some(element) = array_type.element() else {
                    return Err(raise(Error::new(
                        ErrorKind::WrongObjectType,
                        "op ANY/ALL (array) requires array on right side",
                    )));
                };
                self.beside_items((left, left_type), (array, array_type), element)?
            }
        };
        call("array_eq_any", vec![right, left])
    }

    /// A value, and an array with items of type `element` that it is compared with, in types that can be compared. `left_type` is `None` for a
    /// value of no type.
    fn beside_items(
        &self,
        (left, left_type): (Expr, Option<SqlType>),
        (array, array_type): (Expr, SqlType),
        element: SqlType,
    ) -> Result<(Expr, Expr)> {
        let texts = SqlType::Array(Box::new(SqlType::Text));
        let array = match array {
            parameter @ Expr::Placeholder(_) => self.adapt(parameter, &texts)?,
            other => other,
        };
        match (left_type, &element) {
            (None | Some(SqlType::VarChar(_)), SqlType::Char(_)) => Ok((
                self.without_blanks(left)?,
                cast_expr(array, &array_type, &texts)?,
            )),
            (Some(from @ SqlType::Char(_)), SqlType::VarChar(_)) => Ok((
                self.without_padding_of(left, &from)?,
                items_without_blanks(array)?,
            )),
            // A text may have more characters than the items.
            (None, element) if is_text(element) => {
                Ok((self.adapt(left, &element.without_modifier())?, array))
            }
            (None, element) => Ok((self.adapt(left, element)?, array)),
            (Some(from), element) if !comparable(&from, element) => {
                Err(raise(no_operator("=", &from, element)))
            }
            (Some(from), element) if is_text(&from) && is_text(element) => {
                let left = match from {
                    SqlType::Char(_) => self.without_padding_of(left, &from)?,
                    _ => left,
                };
                let array = match element {
                    SqlType::Char(_) => cast_expr(array, &array_type, &texts)?,
                    _ => array,
                };
                Ok((left, array))
            }
            (Some(from), element) if from.to_arrow() == element.to_arrow() => Ok((left, array)),
            (Some(from), element) => {
                let common = match (&from, element) {
                    (SqlType::MzTimestamp, _) | (_, SqlType::MzTimestamp) => element.clone(),
                    (from, element) if meet_as_floats(from, element) => SqlType::Float8,
                    _ => wider(from.clone(), element.clone()),
                };
                let array = if common == *element {
                    array
                } else {
                    cast_expr(
                        array,
                        &array_type,
                        &SqlType::Array(Box::new(common.clone())),
                    )?
                };
                Ok((cast_expr(left, &from, &common)?, array))
            }
        }
    }
}

/// An array of texts whose items lose the blanks at their ends, as those of an array of `char(n)` do.
fn items_without_blanks(array: Expr) -> Result<Expr> {
    let of = |item: SqlType| SqlType::Array(Box::new(item));
    cast_expr(array, &of(SqlType::Char(1)), &of(SqlType::Text))
}

/// `nullif` of a `real` and a number of another type, which are compared as `double precision`: a `real` stays one.
fn nullif_of_reals(values: &[Expr], schema: &DFSchema) -> Result<Option<Expr>> {
    let [left, right] = values else {
        return Ok(None);
    };
    if literals::is_wide(left) || literals::is_wide(right) {
        return Ok(None);
    }
    let (Some(left_type), Some(right_type)) = (type_of(left, schema)?, type_of(right, schema)?)
    else {
        return Ok(None);
    };
    if !meet_as_floats(&left_type, &right_type)
        || (left_type != SqlType::Float4 && right_type != SqlType::Float4)
    {
        return Ok(None);
    }
    let values = vec![
        cast_expr(left.clone(), &left_type, &SqlType::Float8)?,
        cast_expr(right.clone(), &right_type, &SqlType::Float8)?,
    ];
    let wide = call("nullif", values)?;
    match left_type {
        SqlType::Float4 => cast_expr(wide, &SqlType::Float8, &SqlType::Float4).map(Some),
        _ => Ok(Some(wide)),
    }
}

/// Whether `subject` is among `values`, which are of its type: in comparisons that are joined by OR, or by AND if it should not be.
fn membership(subject: &Expr, values: Vec<Expr>, negated: bool) -> Vec<Expr> {
    // DataFusion's simplifier computes with lists as if they were sets of known values.
    let known = |value: &Expr| {
        !value.contains_outer() && !matches!(value, Expr::Literal(literal, _) if literal.is_null())
    };
    let (known, others): (Vec<Expr>, Vec<Expr>) = values.into_iter().partition(known);
    let compare = if negated {
        Operator::NotEq
    } else {
        Operator::Eq
    };
    let list = (!known.is_empty())
        .then(|| Expr::InList(InList::new(Box::new(subject.clone()), known, negated)));
    let comparisons = others.into_iter().map(|value| {
        Expr::BinaryExpr(BinaryExpr::new(
            Box::new(subject.clone()),
            compare,
            Box::new(value),
        ))
    });
    list.into_iter().chain(comparisons).collect()
}

/// A text literal without blanks at its end; anything else as it is.
pub(super) fn trimmed(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) => Expr::Literal(
            ScalarValue::Utf8(Some(text.trim_end_matches(' ').to_owned())),
            metadata,
        ),
        other => other,
    }
}

/// The rows of a set-returning function as an array. `generate_series` of integers has integers.
fn set_returning(function: &str, values: Vec<Expr>, schema: &DFSchema) -> Result<Expr> {
    let types = values
        .iter()
        .map(|value| type_of(value, schema))
        .collect::<Result<Vec<_>>>()?;
    let of_moments = function == "generate_series" && types.iter().flatten().any(is_moment);
    let called = if of_moments {
        "generate_moments"
    } else {
        function
    };
    let Some(scalar) = flowstone_functions::registry().scalar(called) else {
        let mut named = vec![Expr::Literal(
            ScalarValue::Utf8(Some(function.to_owned())),
            None,
        )];
        named.extend(values);
        return Err(raise(unknown_function(named, schema)?));
    };
    let integers = function == "generate_series"
        && types
            .iter()
            .all(|sql_type| *sql_type == Some(SqlType::Int4));
    let series = Expr::ScalarFunction(ScalarFunction::new_udf(scalar, values));
    if !integers {
        return Ok(series);
    }
    Ok(Expr::Cast(Cast::new(
        Box::new(series),
        SqlType::Array(Box::new(SqlType::Int4)).to_arrow(),
    )))
}

/// A cell of VALUES: its value if it is constant, and nothing but a value and an Arrow type, because DataFusion wants all cells of a column to agree
/// in their metadata.
fn cell(expr: Expr, schema: &DFSchema, time_zone: &TimeZone) -> Result<Expr> {
    let mut constant = true;
    expr.apply(|part| {
        constant &= !part.is_volatile_node()
            && !matches!(
                part,
                Expr::Column(_)
                    | Expr::OuterReferenceColumn(..)
                    | Expr::Placeholder(_)
                    | Expr::ScalarSubquery(_)
                    | Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::SetComparison(_)
                    | Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
                    | Expr::Unnest(_)
            );
        Ok(if constant {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    })?;
    let expr = if constant && !matches!(expr, Expr::Literal(..)) {
        let simplifier = ExprSimplifier::new(SimplifyContext::default());
        let coerced = simplifier.coerce(expr, &DFSchema::empty())?;
        simplifier.simplify(expr_in_zone(coerced, &DFSchema::empty(), time_zone)?)?
    } else {
        expr
    };
    match expr {
        Expr::Literal(value, _) => Ok(Expr::Literal(value, None)),
        Expr::Placeholder(Placeholder { field: None, .. }) => Ok(expr),
        other => {
            let data_type = other.get_type(schema)?;
            Ok(Expr::Cast(Cast::new(Box::new(other), data_type)))
        }
    }
}

fn not_boolean(construct: &str, found: &SqlType) -> Error {
    Error::new(
        ErrorKind::DatatypeMismatch,
        format!(
            "argument of {construct} must be type boolean, not type {}",
            found.without_modifier()
        ),
    )
}

fn no_operator(op: &str, left: &SqlType, right: &SqlType) -> Error {
    Error::new(ErrorKind::UndefinedFunction, format!("operator does not exist: {} {op} {}", left.without_modifier(), right.without_modifier()))
        .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts.")
}

/// `expr` of type `from` as a value of a column of type `to`: as [`cast_expr`], but text that is too long is an error, and casts that PostgreSQL
/// only does on request are refused.
///
/// # Errors
/// [`ErrorKind::DatatypeMismatch`] if there is no such cast.
pub(super) fn cast_for_assignment(
    expr: Expr,
    from: &SqlType,
    to: &SqlType,
) -> std::result::Result<Expr, Error> {
    if from == to {
        return Ok(expr);
    }
    let mismatch = || {
        Error::new(
            ErrorKind::DatatypeMismatch,
            format!("expression is of type {from}, but the column is of type {to}"),
        )
    };
    let allowed = match (is_text(from), is_text(to)) {
        (_, true) => true,
        (true, false) => false,
        (false, false) if *from == SqlType::Bool || *to == SqlType::Bool => false,
        (false, false) => can_cast(from, to),
    };
    if !allowed {
        return Err(mismatch().with_hint("You will need to rewrite or cast the expression."));
    }
    let result = match to {
        SqlType::VarChar(Some(_)) | SqlType::Char(1..) if from != to => {
            let text = if is_text(from) && !matches!(from, SqlType::Char(_)) {
                Ok(expr)
            } else {
                cast_expr(expr, from, &SqlType::Text)
            };
            text.and_then(|text| fit(text, to))
        }
        _ => cast_expr(expr, from, to),
    };
    result.map_err(|error| super::errors::from_datafusion(&error, ""))
}

/// Text as varchar(n) or char(n): an error if it does not fit, blanks at the end aside.
fn fit(text: Expr, to: &SqlType) -> Result<Expr> {
    let length = match to {
        SqlType::VarChar(Some(length)) | SqlType::Char(length @ 1..) => *length,
        _ => return cast_expr(text, &SqlType::Text, to),
    };
    let complaint = format!("value too long for type {to}");
    if let Expr::Literal(ScalarValue::Utf8(value), _) = &text {
        let letters = value
            .as_deref()
            .map_or(0, |value| value.trim_end_matches(' ').chars().count());
        if u32::try_from(letters).is_ok_and(|letters| letters <= length) {
            return cast_expr(text, &SqlType::Text, to);
        }
        return Err(raise(Error::new(
            ErrorKind::Evaluation(EvalErrorKind::TooLong),
            complaint,
        )));
    }
    let letters = call("char_length", vec![call("rtrim", vec![text.clone()])?])?;
    let too_long = Expr::BinaryExpr(BinaryExpr::new(
        Box::new(letters),
        Operator::Gt,
        Box::new(Expr::Literal(
            ScalarValue::Int64(Some(i64::from(length))),
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
    let failure = cast_expr(failure, &SqlType::Bool, &SqlType::Text)?;
    let fitting = cast_expr(text, &SqlType::Text, to)?;
    Ok(Expr::Case(Case::new(
        None,
        vec![(Box::new(too_long), Box::new(failure))],
        Some(Box::new(fitting)),
    )))
}

/// Whether all values that have a type are `varchar`, of whatever lengths.
fn are_varying(values: &[Expr], schema: &DFSchema) -> Result<bool> {
    let mut found = false;
    for value in values {
        match type_of(value, schema)? {
            Some(SqlType::VarChar(_)) => found = true,
            Some(_) => return Ok(false),
            None => {}
        }
    }
    Ok(found)
}

/// Whether values of a type are only told from those of another one by what fields say beside their Arrow type.
fn is_only_told(sql_type: &SqlType) -> bool {
    match sql_type {
        SqlType::Oid
        | SqlType::Reg(_)
        | SqlType::MzTimestamp
        | SqlType::Name
        | SqlType::Char(_)
        | SqlType::QuotedChar => true,
        SqlType::Array(element) => is_only_told(element),
        _ => false,
    }
}

/// An expression of type `sql_type`, of which DataFusion knows the Arrow type only.
pub(super) fn told(expr: Expr, sql_type: &SqlType) -> Result<Expr> {
    if !is_only_told(sql_type) {
        return Ok(expr);
    }
    let seen = SqlType::from_arrow(&untold(sql_type))
        .map_err(|error| DataFusionError::External(Box::new(error)))?;
    cast_expr(expr, &seen, sql_type)
}

/// The Arrow type without what fields say beside it.
fn untold(sql_type: &SqlType) -> DataType {
    match sql_type {
        SqlType::Array(element) => {
            DataType::List(Arc::new(Field::new("item", untold(element), true)))
        }
        other => other.to_arrow(),
    }
}

/// `array_agg(x)`, which DataFusion takes for an array of x's Arrow type.
fn told_array(array: Expr, schema: &DFSchema) -> Result<Expr> {
    let item = match &array {
        Expr::AggregateFunction(function) => match function.params.args.as_slice() {
            [item, ..] => type_of(item, schema)?,
            [] => None,
        },
        _ => None,
    };
    match item {
        Some(item) => told(array, &SqlType::Array(Box::new(item))),
        None => Ok(array),
    }
}

/// The call of a scalar function that exists.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Result<Expr> {
    let scalar = flowstone_functions::registry()
        .scalar(name)
        .ok_or_else(|| DataFusionError::Internal(format!("no function {name}")))?;
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(scalar, args)))
}

/// The error that a function does not exist for some arguments. `values`: its name and the arguments.
pub(super) fn unknown_function(mut values: Vec<Expr>, schema: &DFSchema) -> Result<Error> {
    let name = match values.remove(0) {
        Expr::Literal(ScalarValue::Utf8(Some(name)), _) => name,
        other => other.to_string(),
    };
    let types = values
        .iter()
        .map(|value| {
            Ok(type_of(value, schema)?.map_or_else(
                || "unknown".to_owned(),
                |sql_type| sql_type.without_modifier().to_string(),
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Error::new(ErrorKind::UndefinedFunction, format!("function {name}({}) does not exist", types.join(", ")))
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts."))
}

fn only(mut values: Vec<Expr>) -> Result<Expr> {
    values
        .pop()
        .ok_or_else(|| DataFusionError::Internal("marker without operand".to_owned()))
}

fn parse(name: &str) -> Result<SqlType> {
    name.parse()
        .map_err(|error| DataFusionError::External(Box::new(error)))
}

impl ExprPlanner for PostgresTyping {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        still_wanted()?;
        let RawBinaryExpr { op, left, right } = expr;
        let (left, right) = match arrays::array_operator(self, &op, left, right, schema)? {
            PlannerResult::Planned(expr) => return Ok(PlannerResult::Planned(expr)),
            PlannerResult::Original(operands) => operands,
        };
        let (left, right) = self.without_padding(&op, left, right, schema)?;
        let (left, right) = self.operands(&op, left, right, schema)?;
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }

    /// `a.b` where `a` is a column is not a field of it, as in PostgreSQL: that would be `(a).b`.
    fn plan_compound_identifier(
        &self,
        field: &Field,
        _qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let table = TableReference::bare(field.name().as_str());
        let name = nested_names.last().map_or("", String::as_str);
        Ok(PlannerResult::Planned(Expr::Column(Column::new(
            Some(table),
            name,
        ))))
    }

    fn plan_dictionary_literal(
        &self,
        expr: RawDictionaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawDictionaryExpr>> {
        let key = match expr.keys.first() {
            Some(Expr::Literal(ScalarValue::Utf8(Some(key)), _)) => {
                key.strip_prefix(INTERNAL).map(str::to_owned)
            }
            _ => None,
        };
        still_wanted()?;
        match key {
            Some(key) => self
                .marker(&key, expr.values, schema)
                .map(PlannerResult::Planned),
            None => Ok(PlannerResult::Original(expr)),
        }
    }

    fn plan_array_literal(
        &self,
        exprs: Vec<Expr>,
        schema: &DFSchema,
    ) -> Result<PlannerResult<Vec<Expr>>> {
        self.array_of(exprs, schema).map(PlannerResult::Planned)
    }
}
