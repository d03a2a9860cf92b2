//! Keys in place of values whose order or equality in SQL is not Arrow's: intervals, jsonb, arrays and rows, see [`flowstone_types::sort_key`].
//!
//! Owns the rewrite of plans: what sorts, groups, joins, partitions or compares such values does it by `sort_key` of them. What is shown is one of the
//! values: of a group the least as Arrow sorts them, so that it depends neither on history nor on the number of shards. `character` is such a type where
//! values padded to different lengths meet.
//! Must not know how keys are encoded, nor operators. Called by [`crate::plan`] before and after types are coerced; rules and lowering come later,
//! so that a query that runs once and one that is maintained have the same keys.
//!
//! Invariants. A plan without such values is returned as it is. Schemas keep their names, types and metadata.

use std::sync::Arc;

use arrow_schema::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{
    AggregateFunction, Case, InList, InSubquery, ScalarFunction, Sort, WindowFunction,
};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, merge_schema};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, DistinctOn, Expr, ExprSchemable, GroupingSet, Join,
    JoinConstraint, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery, WindowFrame,
    WindowFrameUnits,
};
use flowstone_functions::cast::cast_expr;
use flowstone_functions::keys::{
    GREATEST_BY_KEY, ITEM_KEYS, LEAST_BY_KEY, ONE_OF_EQUALS, SORT_KEY,
};
use flowstone_types::SqlType;
use flowstone_types::sort_key::{equality_differs, order_differs};

use crate::error::Error;
use crate::names::INTERNAL;

/// `0A000` with a hint.
pub(super) fn refused(message: impl Into<String>, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::unsupported(message).with_hint(hint)))
}

fn call(name: &str, arguments: Vec<Expr>) -> Result<Expr> {
    let function = flowstone_functions::registry()
        .scalar(name)
        .ok_or_else(|| DataFusionError::Internal(format!("no function {name}")))?;
    Ok(Expr::ScalarFunction(ScalarFunction::new_udf(
        function, arguments,
    )))
}

fn key(expr: Expr) -> Result<Expr> {
    call(SORT_KEY, vec![expr])
}

/// The expression without the name it was given.
fn unnamed(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => unnamed(*alias.expr),
        other => other,
    }
}

/// The type of values that are padded with blanks.
fn padding(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    let (_, field) = expr.to_field(schema).ok()?;
    let sql_type = SqlType::from_field(&field).ok()?;
    sql_type.is_padded().then_some(sql_type)
}

/// The type of values that are padded to lengths of their own.
fn uneven_padding(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    padding(expr, schema).filter(SqlType::is_padded_unevenly)
}

/// The characters without the padding.
fn without_padding(expr: Expr, padded: &SqlType) -> Result<Expr> {
    cast_expr(expr, padded, &padded.without_padding())
}

/// What stands for values that are padded unevenly; others as they are.
fn evened(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match uneven_padding(&expr, schema) {
        Some(padded) => without_padding(unnamed(expr), &padded).map(Transformed::yes),
        None => Ok(Transformed::no(expr)),
    }
}

/// Two expressions that are compared, over their schemas: their keys, if values of their type need them.
fn keyed_pair(
    (left, left_schema): (Expr, &DFSchema),
    (right, right_schema): (Expr, &DFSchema),
    needed: fn(&DataType) -> bool,
) -> Result<Transformed<(Expr, Expr)>> {
    let (left_type, right_type) = (left.get_type(left_schema)?, right.get_type(right_schema)?);
    if needed(&left_type) && needed(&right_type) {
        return Ok(Transformed::yes((key(left)?, key(right)?)));
    }
    let padded = (padding(&left, left_schema), padding(&right, right_schema));
    let uneven = |side: &Option<SqlType>| side.as_ref().is_some_and(SqlType::is_padded_unevenly);
    if padded.0 == padded.1 && !uneven(&padded.0) {
        return Ok(Transformed::no((left, right)));
    }
    let side = |expr: Expr, padded: Option<SqlType>| match padded {
        Some(padded) => without_padding(expr, &padded),
        None => Ok(expr),
    };
    Ok(Transformed::yes((
        side(left, padded.0)?,
        side(right, padded.1)?,
    )))
}

/// What values of an expression are sorted by; `None` if they are by themselves. Padding would come before what is less than a blank.
fn order_key(expr: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let bare = padding(expr, schema)
        .map(|padded| without_padding(unnamed(expr.clone()), &padded))
        .transpose()?;
    let shown = bare.as_ref().unwrap_or(expr);
    if order_differs(&shown.get_type(schema)?) {
        return key(unnamed(shown.clone())).map(Some);
    }
    Ok(bare)
}

/// Sorts by keys. Says whether anything changed.
fn keyed_order(order: &mut [Sort], schema: &DFSchema) -> Result<bool> {
    let mut changed = false;
    for sort in order {
        if let Some(key) = order_key(&sort.expr, schema)? {
            sort.expr = key;
            changed = true;
        }
    }
    Ok(changed)
}

/// Partitions and orders windows by keys. Before types are coerced: coercion refuses to order windows by values of these types.
pub(super) fn order_windows(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Window(window) = &node else {
            return Ok(Transformed::no(node));
        };
        let schema = Arc::clone(window.input.schema());
        let names = NamePreserver::new(&node);
        let rewritten = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|part| match part {
                Expr::WindowFunction(function) => order_window(*function, &schema),
                other => Ok(Transformed::no(other)),
            })?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        rewritten.map_data(LogicalPlan::recompute_schema)
    })
    .map(|transformed| transformed.data)
}

fn order_window(mut function: WindowFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let params = &mut function.params;
    let mut changed = false;
    for expr in &mut params.partition_by {
        let evened = evened(expr.clone(), schema)?;
        if evened.transformed {
            *expr = evened.data;
            changed = true;
        }
        if equality_differs(&expr.get_type(schema)?) {
            *expr = key(expr.clone())?;
            changed = true;
        }
    }
    let first = params
        .order_by
        .first()
        .map(|sort| sort.expr.get_type(schema))
        .transpose()?;
    changed |= keyed_order(&mut params.order_by, schema)?;
    if let Some(first) = first
        && params.window_frame.units == WindowFrameUnits::Range
        && (order_differs(&first)
            || matches!(first, DataType::Binary | DataType::FixedSizeBinary(_)))
    {
        params.window_frame = frame_of_groups(&params.window_frame);
        changed = true;
    }
    let function = Expr::WindowFunction(Box::new(function));
    Ok(Transformed::new_transformed(function, changed))
}

/// A RANGE frame over the keys of values: it has no offsets, which the binder refuses, and is one of GROUPS.
fn frame_of_groups(frame: &WindowFrame) -> WindowFrame {
    WindowFrame::new_bounds(
        WindowFrameUnits::Groups,
        frame.start_bound.clone(),
        frame.end_bound.clone(),
    )
}

/// Compares, groups, joins and sorts by keys. Types are coerced.
pub(super) fn compare_by_keys(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let node = rewrite_expressions(node)?;
        node.transform_data(rewrite_node)
    })
    .map(|transformed| transformed.data)
}

fn rewrite_expressions(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = if let LogicalPlan::TableScan(scan) = &node {
        scan.projected_schema.as_ref().clone()
    } else {
        merge_schema(&node.inputs())
    };
    let names = NamePreserver::new(&node);
    let rewritten = node.map_expressions(|expr| {
        // The names of its items are those of columns.
        if matches!(expr, Expr::GroupingSet(_)) {
            return Ok(Transformed::no(expr));
        }
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|part| rewrite_expression(part, &schema))?;
        if !rewritten.transformed {
            return Ok(rewritten);
        }
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })?;
    if !rewritten.transformed {
        return Ok(rewritten);
    }
    rewritten.map_data(LogicalPlan::recompute_schema)
}

fn rewrite_expression(part: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match part {
        Expr::BinaryExpr(binary) => compare(binary, schema),
        Expr::InList(list) if equality_differs(&list.expr.get_type(schema)?) => {
            let keys = list.list.into_iter().map(key).collect::<Result<_>>()?;
            let list = InList::new(Box::new(key(*list.expr)?), keys, list.negated);
            Ok(Transformed::yes(Expr::InList(list)))
        }
        Expr::Case(case) => rewrite_case(case, schema),
        Expr::ScalarFunction(function) => rewrite_call(function, schema),
        Expr::AggregateFunction(function) => rewrite_aggregate_call(function, schema),
        Expr::InSubquery(membership) => {
            let InSubquery {
                expr,
                subquery,
                negated,
            } = membership;
            let rewritten = keyed_subquery(*expr, subquery, schema, equality_differs)?;
            Ok(rewritten.update_data(|(expr, subquery)| {
                Expr::InSubquery(InSubquery::new(Box::new(expr), subquery, negated))
            }))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Which types an operator compares by keys.
fn need_of(op: Operator) -> fn(&DataType) -> bool {
    match op {
        Operator::Eq | Operator::NotEq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => {
            equality_differs
        }
        Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => order_differs,
        _ => |_| false,
    }
}

fn compare(binary: BinaryExpr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let BinaryExpr { left, op, right } = binary;
    let needed = need_of(op);
    let build = |left: Expr, right: Expr| {
        Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
    };
    if needed(&DataType::LargeBinary) || needed(&SqlType::Interval.to_arrow()) {
        let pair = (left.get_type(schema)?, right.get_type(schema)?);
        if needed(&pair.0) && needed(&pair.1) {
            return Ok(Transformed::yes(build(key(*left)?, key(*right)?)));
        }
    }
    Ok(Transformed::no(build(*left, *right)))
}

/// `CASE subject WHEN value …`
fn rewrite_case(case: Case, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Case {
        expr,
        when_then_expr,
        else_expr,
    } = case;
    let subject = match expr {
        Some(subject) if equality_differs(&subject.get_type(schema)?) => subject,
        expr => {
            let case = Case::new(expr, when_then_expr, else_expr);
            return Ok(Transformed::no(Expr::Case(case)));
        }
    };
    let arms = when_then_expr
        .into_iter()
        .map(|(value, result)| Ok((Box::new(key(*value)?), result)))
        .collect::<Result<_>>()?;
    let subject = Some(Box::new(key(*subject)?));
    Ok(Transformed::yes(Expr::Case(Case::new(
        subject, arms, else_expr,
    ))))
}

/// Whether an array's items are compared by keys.
fn items_differ(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(match expr.get_type(schema)? {
        DataType::List(item) => equality_differs(item.data_type()),
        _ => false,
    })
}

/// What is compared with the items of an array: a literal of unknown type takes theirs.
fn like_items(item: &Expr, list: &Expr, schema: &DFSchema) -> Result<Expr> {
    match list.get_type(schema)? {
        DataType::List(field)
            if item.get_type(schema)? == DataType::Utf8 || item.get_type(schema)?.is_null() =>
        {
            let target = SqlType::from_field(&field)
                .map_err(|error| DataFusionError::External(Box::new(error)))?;
            cast_expr(item.clone(), &SqlType::Text, &target)
        }
        _ => Ok(item.clone()),
    }
}

fn rewrite_call(function: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (name, args) = (function.func.name(), &function.args);
    let first = match args.first() {
        Some(first) => first,
        None => return Ok(Transformed::no(Expr::ScalarFunction(function))),
    };
    let rewritten = match (name, args.as_slice()) {
        // Two columns: an equality that can be joined by.
        ("interval_eq", [left, right])
            if (left.any_column_refs() || left.contains_outer())
                && (right.any_column_refs() || right.contains_outer()) =>
        {
            let (left, right) = (key(left.clone())?, key(right.clone())?);
            Some(left.eq(right))
        }
        ("greatest", _) if order_differs(&first.get_type(schema)?) => {
            Some(call(GREATEST_BY_KEY, args.clone())?)
        }
        ("least", _) if order_differs(&first.get_type(schema)?) => {
            Some(call(LEAST_BY_KEY, args.clone())?)
        }
        ("nullif", [left, right]) if equality_differs(&left.get_type(schema)?) => {
            let equal = key(left.clone())?.eq(key(right.clone())?);
            let null = Expr::Literal(ScalarValue::try_from(left.get_type(schema)?)?, None);
            Some(Expr::Case(Case::new(
                None,
                vec![(Box::new(equal), Box::new(null))],
                Some(Box::new(left.clone())),
            )))
        }
        ("array_position" | "array_positions" | "array_eq_any", [list, item, rest @ ..])
            if items_differ(list, schema)? =>
        {
            let item = like_items(item, list, schema)?;
            let mut keyed = vec![call(ITEM_KEYS, vec![list.clone()])?, key(item)?];
            keyed.extend_from_slice(rest);
            Some(call(name, keyed)?)
        }
        (
            "array_has_all" | "array_has_any" | "array_holds_all" | "array_holds_any",
            [left, right],
        ) if items_differ(left, schema)? => {
            let sides = [left, right].map(|side| call(ITEM_KEYS, vec![side.clone()]));
            let [left, right] = sides;
            Some(call(name, vec![left?, right?])?)
        }
        (
            "array_remove_all" | "array_remove" | "array_remove_n" | "array_replace_all"
            | "array_replace" | "array_replace_n" | "array_distinct" | "array_except"
            | "array_intersect" | "array_union" | "array_has",
            [list, ..],
        ) if items_differ(list, schema)? => {
            return Err(refused(
                format!("{name} over arrays of intervals is not supported"),
                "Unnest the array.",
            ));
        }
        _ => None,
    };
    Ok(match rewritten {
        Some(rewritten) => Transformed::yes(rewritten),
        None => Transformed::no(Expr::ScalarFunction(function)),
    })
}

fn rewrite_aggregate_call(
    mut function: AggregateFunction,
    schema: &DFSchema,
) -> Result<Transformed<Expr>> {
    if !function.params.distinct {
        let changed = keyed_order(&mut function.params.order_by, schema)?;
        return Ok(Transformed::new_transformed(
            Expr::AggregateFunction(function),
            changed,
        ));
    }
    let before = function.params.order_by.clone();
    let by_keys = distinct_order(&mut function, schema)?;
    let mut changed = function.params.order_by != before;
    let name = function.func.name();
    let mut differs = false;
    for argument in &function.params.args {
        differs |= equality_differs(&argument.get_type(schema)?)
            || uneven_padding(argument, schema).is_some();
    }
    // Those of `sum`, `avg`, `min` and `max` know equal values themselves.
    let knows = matches!(name, "sum" | "avg" | "min" | "max");
    if differs && name == "count" {
        let args = std::mem::take(&mut function.params.args);
        function.params.args = args.into_iter().map(key).collect::<Result<_>>()?;
        changed = true;
    } else if (differs || by_keys) && !knows {
        return Err(refused(
            format!("{name} with DISTINCT over values of this type is not supported"),
            "Use SELECT DISTINCT in a subquery.",
        ));
    }
    Ok(Transformed::new_transformed(
        Expr::AggregateFunction(function),
        changed,
    ))
}

/// Sorts the values of a call with DISTINCT by keys: `char(n)` only if its argument has lost its padding too, because it sorts by its arguments. Says
/// whether there are others.
fn distinct_order(function: &mut AggregateFunction, schema: &DFSchema) -> Result<bool> {
    let mut by_keys = false;
    let params = &mut function.params;
    for sort in &mut params.order_by {
        let Some(key) = order_key(&sort.expr, schema)? else {
            continue;
        };
        if order_differs(&sort.expr.get_type(schema)?) {
            by_keys = true;
        } else if !params.args.contains(&key) {
            continue;
        }
        sort.expr = key;
    }
    Ok(by_keys)
}

/// An expression and a subquery that it is compared with.
fn keyed_subquery(
    expr: Expr,
    subquery: Subquery,
    schema: &DFSchema,
    needed: fn(&DataType) -> bool,
) -> Result<Transformed<(Expr, Subquery)>> {
    let values = Arc::clone(&subquery.subquery);
    let Some(column) = values.schema().columns().into_iter().next() else {
        return Ok(Transformed::no((expr, subquery)));
    };
    let pair = keyed_pair(
        (expr, schema),
        (Expr::Column(column), values.schema().as_ref()),
        needed,
    )?;
    if !pair.transformed {
        return Ok(pair.update_data(|(expr, _)| (expr, subquery)));
    }
    let (expr, value) = pair.data;
    let keys = LogicalPlanBuilder::from(values.as_ref().clone())
        .project(vec![value])?
        .build()?;
    Ok(Transformed::yes((expr, subquery.with_plan(Arc::new(keys)))))
}

fn rewrite_node(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match node {
        LogicalPlan::Sort(mut sort) => {
            let schema = Arc::clone(sort.input.schema());
            let changed = keyed_order(&mut sort.expr, &schema)?;
            Ok(Transformed::new_transformed(
                LogicalPlan::Sort(sort),
                changed,
            ))
        }
        LogicalPlan::Aggregate(aggregate) => group_by_keys(aggregate),
        LogicalPlan::Distinct(Distinct::All(input)) => distinct_by_keys(input),
        LogicalPlan::Distinct(Distinct::On(on)) => distinct_on_keys(on),
        LogicalPlan::Join(join) => join_by_keys(join),
        LogicalPlan::RecursiveQuery(query) => {
            let differs = query
                .schema
                .fields()
                .iter()
                .any(|field| equality_differs(field.data_type()));
            if query.is_distinct && differs {
                return Err(refused(
                    "WITH RECURSIVE … UNION over intervals is not supported",
                    "Use UNION ALL, or keep the interval as a number of seconds.",
                ));
            }
            let uneven = query.schema.fields().iter().any(|field| {
                SqlType::from_field(field).is_ok_and(|found| found.is_padded_unevenly())
            });
            if query.is_distinct && uneven {
                return Err(refused(
                    "WITH RECURSIVE … UNION over character values of several lengths is not supported",
                    "Cast them to text.",
                ));
            }
            Ok(Transformed::no(LogicalPlan::RecursiveQuery(query)))
        }
        other => Ok(Transformed::no(other)),
    }
}

fn join_by_keys(join: Join) -> Result<Transformed<LogicalPlan>> {
    change_keys(join, |left, right| {
        keyed_pair(left, right, equality_differs)
    })
}

/// A join with what `change` makes of the two sides of each of its keys, which it is given with the schemas that they are of.
pub(super) fn change_keys(
    join: Join,
    change: impl Fn((Expr, &DFSchema), (Expr, &DFSchema)) -> Result<Transformed<(Expr, Expr)>>,
) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    let mut on = Vec::with_capacity(join.on.len());
    for (left, right) in join.on {
        let pair = change(
            (left, join.left.schema().as_ref()),
            (right, join.right.schema().as_ref()),
        )?;
        changed |= pair.transformed;
        on.push(pair.data);
    }
    // Merged columns have been resolved; only plain columns may be merged.
    let join_constraint = if changed {
        JoinConstraint::On
    } else {
        join.join_constraint
    };
    let join = Join {
        on,
        join_constraint,
        ..join
    };
    Ok(Transformed::new_transformed(
        LogicalPlan::Join(join),
        changed,
    ))
}

/// Whether values of one column may come from several: then `char` is padded to several lengths.
fn is_mixed(plan: &LogicalPlan) -> Result<bool> {
    let mut mixed = false;
    plan.apply(|node| {
        mixed |= matches!(node, LogicalPlan::Union(_));
        Ok(if mixed {
            TreeNodeRecursion::Stop
        } else {
            TreeNodeRecursion::Continue
        })
    })?;
    Ok(mixed)
}

/// The key by which values of an expression over `input` are grouped; `None` if they are grouped by themselves.
fn group_key(expr: &Expr, input: &LogicalPlan) -> Result<Option<Expr>> {
    let schema = input.schema();
    let data_type = expr.get_type(schema.as_ref())?;
    if equality_differs(&data_type) {
        return key(unnamed(expr.clone())).map(Some);
    }
    if let Some(padded) = padding(expr, schema)
        && (padded.is_padded_unevenly() || is_mixed(input)?)
    {
        return without_padding(unnamed(expr.clone()), &padded).map(Some);
    }
    Ok(None)
}

fn group_by_keys(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let mut keys = Vec::new();
    {
        let shown = grouping_set_to_exprlist(&aggregate.group_expr)?;
        for (position, expr) in shown.into_iter().enumerate() {
            if let Some(key) = group_key(expr, &aggregate.input)? {
                keys.push((position, expr.clone(), key));
            }
        }
    }
    if keys.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let keyed = |expr: &Expr| {
        keys.iter()
            .find(|(_, known, _)| known == expr)
            .map_or_else(|| expr.clone(), |(_, _, key)| key.clone())
    };
    let all = |exprs: &[Expr]| exprs.iter().map(keyed).collect::<Vec<_>>();
    let in_sets = matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]);
    let group = aggregate
        .group_expr
        .iter()
        .map(|expr| match expr {
            Expr::GroupingSet(sets) => Expr::GroupingSet(match sets {
                GroupingSet::Rollup(exprs) => GroupingSet::Rollup(all(exprs)),
                GroupingSet::Cube(exprs) => GroupingSet::Cube(all(exprs)),
                GroupingSet::GroupingSets(sets) => {
                    GroupingSet::GroupingSets(sets.iter().map(|set| all(set)).collect())
                }
            }),
            other => keyed(other),
        })
        .collect();
    let one_of = flowstone_functions::registry()
        .aggregate(ONE_OF_EQUALS)
        .ok_or_else(|| DataFusionError::Internal(format!("no function {ONE_OF_EQUALS}")))?;
    let mut calls = aggregate.aggr_expr.clone();
    for (number, (_, expr, _)) in keys.iter().enumerate() {
        let value = one_of.call(vec![unnamed(expr.clone())]);
        calls.push(value.alias(format!("{INTERNAL}one{number}")));
    }
    let grouped = Aggregate::try_new(Arc::clone(&aggregate.input), group, calls)?;
    let columns = grouped.schema.columns();
    let column = |position: usize| {
        columns
            .get(position)
            .cloned()
            .map(Expr::Column)
            .ok_or_else(|| DataFusionError::Internal("a group lost a column".to_owned()))
    };
    let width = aggregate.schema.fields().len();
    let mut shown = Vec::with_capacity(width);
    for (position, (qualifier, field)) in aggregate.schema.iter().enumerate() {
        let number = keys.iter().position(|(keyed, ..)| *keyed == position);
        let value = match number {
            None => column(position)?,
            // Where a set leaves the column out, its key is NULL and the values are not.
            Some(number) if in_sets => Expr::Case(Case::new(
                None,
                vec![(
                    Box::new(column(position)?.is_not_null()),
                    Box::new(column(width + number)?),
                )],
                None,
            )),
            Some(number) => column(width + number)?,
        };
        shown.push(named(value, qualifier.cloned(), field.name()));
    }
    let projection = Projection::try_new(shown, Arc::new(LogicalPlan::Aggregate(grouped)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

fn named(expr: Expr, qualifier: Option<datafusion::common::TableReference>, name: &str) -> Expr {
    match &expr {
        Expr::Column(column) if column.relation == qualifier && column.name == name => expr,
        _ => expr.alias_qualified(qualifier, name),
    }
}

/// DISTINCT as DISTINCT ON the keys: what is shown is one of the rows, whole.
fn distinct_by_keys(input: Arc<LogicalPlan>) -> Result<Transformed<LogicalPlan>> {
    let columns: Vec<Expr> = input
        .schema()
        .iter()
        .map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field))))
        .collect();
    let (mut on, mut least) = (Vec::new(), Vec::new());
    for column in &columns {
        match group_key(column, &input)? {
            None => on.push(column.clone()),
            Some(key) => {
                on.push(key);
                least.push(column.clone());
            }
        }
    }
    if least.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::All(input))));
    }
    let order = on
        .iter()
        .chain(&least)
        .map(|expr| Sort::new(expr.clone(), true, false))
        .collect();
    let mut distinct = DistinctOn::try_new(on, columns, None, input)?;
    distinct.sort_expr = Some(order);
    Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(
        distinct,
    ))))
}

fn distinct_on_keys(mut on: DistinctOn) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(on.input.schema());
    let mut changed = false;
    for expr in &mut on.on_expr {
        // As the order has it, whose first columns these are.
        if let Some(key) = order_key(expr, &schema)? {
            *expr = key;
            changed = true;
        }
    }
    if let Some(order) = &mut on.sort_expr {
        changed |= keyed_order(order, &schema)?;
    }
    Ok(Transformed::new_transformed(
        LogicalPlan::Distinct(Distinct::On(on)),
        changed,
    ))
}
