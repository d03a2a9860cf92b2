//! INSERT, UPDATE, DELETE and COPY FROM as queries whose rows say what changes.
//!
//! Owns column lists, defaults, and casts to the columns' types as assignment does them. The result's columns are what
//! [`flowstone_proto::message::WriteOperation`] says. Must not know how rows are written.

use std::collections::BTreeSet;

use arrow_schema::SchemaRef;
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::{
    AssignmentTarget, Delete, Expr, FromTable, Insert, ObjectName, ObjectNamePart, Query, Select,
    SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, TableObject, TableWithJoins,
    Update, Value, Values,
};

use super::names::{self, Relation, fold, fold_name, quoted, table_alias};
use super::rewrite::{assignment_cast, null};
use super::{PlanContext, PlannedQuery, plan_tree};
use crate::catalog::{Column, Item, ItemKind, arrow_schema};
use crate::error::{Error, ErrorKind};

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// The query's rows are inserted; its columns are the table's.
    Insert,
    /// The query's columns are the table's (the old row), then the table's again (the new row).
    Update,
    /// The query's rows are deleted; its columns are the table's.
    Delete,
}

/// A planned row-changing statement.
#[derive(Clone, Debug)]
pub struct PlannedWrite {
    /// The table.
    pub table: ObjectId,
    /// What happens to the rows.
    pub kind: WriteKind,
    /// The rows.
    pub query: PlannedQuery,
}

/// Where COPY FROM puts its fields.
#[derive(Clone, Debug)]
pub struct PlannedCopy {
    /// The table.
    pub table: ObjectId,
    /// The table's schema.
    pub schema: SchemaRef,
    /// For each field of a line, the column of the table it goes to.
    pub columns: Vec<usize>,
    /// For each field of a line, its type.
    pub types: Vec<SqlType>,
    /// Columns of the table that no field goes to, with their defaults as SQL text.
    pub defaults: Vec<(usize, Option<String>)>,
}

/// The table that a statement wants to change.
fn target<'a>(
    ctx: &PlanContext<'a>,
    name: &ObjectName,
    verb: &str,
) -> Result<(&'a Item, &'a [Column]), Error> {
    let located = |error: Error| match name
        .0
        .first()
        .and_then(ObjectNamePart::as_ident)
        .and_then(|ident| names::position(ctx, ident.span))
    {
        Some(position) => error.at(position),
        None => error,
    };
    writable(ctx, &fold_name(name), verb).map_err(located)
}

fn writable<'a>(
    ctx: &PlanContext<'a>,
    parts: &[String],
    verb: &str,
) -> Result<(&'a Item, &'a [Column]), Error> {
    let refuse = |what: &str, name: &str| {
        Err(Error::new(
            ErrorKind::WrongObjectType,
            format!("cannot {verb} {what} \"{name}\""),
        ))
    };
    match names::resolve(ctx, parts)? {
        Relation::System(relation) => Err(Error::new(
            ErrorKind::InsufficientPrivilege,
            format!(
                "permission denied: \"{}\" is a system catalog",
                relation.name
            ),
        )),
        Relation::Item(item) => match &item.kind {
            ItemKind::Table {
                columns,
                source: None,
                ..
            } => Ok((item, columns)),
            ItemKind::Table { .. } => refuse("the table of a source", &item.name),
            _ => refuse(&item.type_name().replace('-', " "), &item.name),
        },
    }
}

fn column_index(item: &Item, columns: &[Column], name: &str) -> Result<usize, Error> {
    columns
        .iter()
        .position(|column| column.name == name)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::UndefinedColumn,
                format!(
                    "column \"{name}\" of relation \"{}\" does not exist",
                    item.name
                ),
            )
        })
}

/// The positions of the columns that a column list names; all of them if it is empty.
fn column_list(item: &Item, columns: &[Column], names: &[String]) -> Result<Vec<usize>, Error> {
    if names.is_empty() {
        return Ok((0..columns.len()).collect());
    }
    let mut seen = BTreeSet::new();
    names
        .iter()
        .map(|name| {
            if !seen.insert(name) {
                return Err(Error::new(
                    ErrorKind::DuplicateColumn,
                    format!("column \"{name}\" specified more than once"),
                ));
            }
            column_index(item, columns, name)
        })
        .collect()
}

/// What a column gets if nothing is said: its default, else NULL.
fn default_of(item: &Item, column: &Column) -> Result<Expr, Error> {
    match &column.default {
        Some(text) => assigned(item, crate::parse::parse_expr(text)?, column),
        None if column.nullable => Ok(null(&column.sql_type)),
        None => Err(not_null(item, column)),
    }
}

fn not_null(item: &Item, column: &Column) -> Error {
    Error::new(
        ErrorKind::NotNullViolation,
        format!(
            "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
            column.name, item.name
        ),
    )
}

fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

/// `value` as a value of `column`. A NULL that is written out is refused here; one that turns up at run time is refused where rows are written.
fn assigned(item: &Item, value: Expr, column: &Column) -> Result<Expr, Error> {
    if is_default(&value) {
        return default_of(item, column);
    }
    if !column.nullable && matches!(&value, Expr::Value(literal) if literal.value == Value::Null) {
        return Err(not_null(item, column));
    }
    Ok(assignment_cast(value, &column.sql_type))
}

fn aliased(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias {
        expr,
        alias: quoted(name),
    }
}

fn no_returning(returning: Option<&Vec<SelectItem>>) -> Result<(), Error> {
    if returning.is_some() {
        Err(Error::unsupported("RETURNING is not supported"))
    } else {
        Ok(())
    }
}

/// Plans an INSERT.
///
/// # Errors
/// Whatever is wrong with it, with PostgreSQL's wording.
pub fn plan_insert(
    ctx: &PlanContext<'_>,
    insert: &Insert,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedWrite, Error> {
    no_returning(insert.returning.as_ref())?;
    if insert.on.is_some() {
        return Err(Error::unsupported("ON CONFLICT is not supported"));
    }
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported(
            "INSERT into anything but a table is not supported",
        ));
    };
    let (item, columns) = target(ctx, name, "insert into")?;
    let named: Vec<String> = insert
        .columns
        .iter()
        .filter_map(|name| fold_name(name).pop())
        .collect();
    let targets = column_list(item, columns, &named)?;
    let source = insert.source.as_ref().map_or_else(
        || values_query(vec![Vec::new()]),
        |source| (**source).clone(),
    );
    let explicit = !named.is_empty();
    let query = match plain_values(&source) {
        Some(rows) => insert_values(
            item,
            columns,
            &targets,
            explicit && insert.source.is_some(),
            rows,
        )?,
        None => insert_query(
            ctx,
            (item, columns),
            &targets,
            explicit,
            source,
            parameter_types,
        )?,
    };
    let query = plan_tree(ctx, query, parameter_types)?;
    Ok(PlannedWrite {
        table: item.id,
        kind: WriteKind::Insert,
        query,
    })
}

/// The rows of a query that is just VALUES.
fn plain_values(query: &Query) -> Option<Vec<Vec<Expr>>> {
    match &*query.body {
        SetExpr::Values(values)
            if query.with.is_none()
                && query.order_by.is_none()
                && query.limit_clause.is_none()
                && query.fetch.is_none() =>
        {
            Some(values.rows.iter().map(|row| row.content.clone()).collect())
        }
        _ => None,
    }
}

fn values_query(rows: Vec<Vec<Expr>>) -> Query {
    let rows = rows
        .into_iter()
        .map(sqlparser::ast::Parens::with_empty_span)
        .collect();
    names::query(SetExpr::Values(Values {
        explicit_row: false,
        value_keyword: false,
        rows,
    }))
}

fn check_count(given: usize, targets: usize, explicit: bool) -> Result<(), Error> {
    if given > targets {
        return Err(Error::syntax(
            "INSERT has more expressions than target columns",
        ));
    }
    if given < targets && explicit {
        return Err(Error::syntax(
            "INSERT has more target columns than expressions",
        ));
    }
    Ok(())
}

fn insert_values(
    item: &Item,
    columns: &[Column],
    targets: &[usize],
    explicit: bool,
    rows: Vec<Vec<Expr>>,
) -> Result<Query, Error> {
    let width = rows.first().map_or(0, Vec::len);
    let mut full_rows = Vec::with_capacity(rows.len());
    for row in rows {
        if row.len() != width {
            return Err(Error::syntax("VALUES lists must all be the same length"));
        }
        check_count(row.len(), targets.len(), explicit)?;
        let mut cells: Vec<Option<Expr>> = vec![None; columns.len()];
        for (value, target) in row.into_iter().zip(targets) {
            if let Some(cell) = cells.get_mut(*target) {
                *cell = Some(value);
            }
        }
        let full = cells
            .into_iter()
            .zip(columns)
            .map(|(cell, column)| match cell {
                Some(value) => assigned(item, value, column),
                None => default_of(item, column),
            })
            .collect::<Result<Vec<_>, _>>()?;
        full_rows.push(full);
    }
    let column_names = columns.iter().map(|column| column.name.clone()).collect();
    Ok(names::query(SetExpr::Select(Box::new(names::select_all(
        derived(values_query(full_rows), column_names),
    )))))
}

/// `(query) AS source(names)`
fn derived(query: Query, column_names: Vec<String>) -> TableFactor {
    let columns = column_names
        .iter()
        .map(|name| TableAliasColumnDef {
            name: quoted(name),
            data_type: None,
        })
        .collect();
    let alias = TableAlias {
        columns,
        ..table_alias("\u{1}source")
    };
    TableFactor::Derived {
        lateral: false,
        subquery: Box::new(query),
        alias: Some(alias),
        sample: None,
    }
}

fn insert_query(
    ctx: &PlanContext<'_>,
    (item, columns): (&Item, &[Column]),
    targets: &[usize],
    explicit: bool,
    mut source: Query,
    parameter_types: &[Option<SqlType>],
) -> Result<Query, Error> {
    if let SetExpr::Select(select) = &mut *source.body {
        type_literals(select, columns, targets);
    }
    let width = plan_tree(ctx, source.clone(), parameter_types)?
        .columns
        .len();
    check_count(width, targets.len(), explicit)?;
    let source_names: Vec<String> = (0..width).map(|index| format!("s{index}")).collect();
    let mut projection = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let given = targets
            .iter()
            .position(|target| *target == index)
            .and_then(|position| source_names.get(position));
        let value = match given {
            Some(name) => assignment_cast(Expr::Identifier(quoted(name)), &column.sql_type),
            None => default_of(item, column)?,
        };
        projection.push(aliased(value, &column.name));
    }
    let from = TableWithJoins {
        relation: derived(source, source_names),
        joins: Vec::new(),
    };
    Ok(names::query(SetExpr::Select(Box::new(names::select(
        projection,
        vec![from],
    )))))
}

/// Literals and parameters in the select list take the columns' types.
fn type_literals(select: &mut Select, columns: &[Column], targets: &[usize]) {
    for (item, target) in select.projection.iter_mut().zip(targets) {
        let Some(column) = columns.get(*target) else {
            continue;
        };
        let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
            return;
        };
        if let Expr::Value(value) = &*expr
            && !matches!(value.value, Value::Number(..) | Value::Boolean(_))
        {
            *expr = assignment_cast(expr.clone(), &column.sql_type);
        }
    }
}

/// Plans an UPDATE.
///
/// # Errors
/// Whatever is wrong with it, with PostgreSQL's wording.
pub fn plan_update(
    ctx: &PlanContext<'_>,
    update: &Update,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedWrite, Error> {
    no_returning(update.returning.as_ref())?;
    if update.from.is_some() || !update.table.joins.is_empty() {
        return Err(Error::unsupported("UPDATE … FROM is not supported"));
    }
    let (item, columns, alias, relation) = changed_table(ctx, &update.table.relation, "update")?;
    let mut new_values: Vec<Option<Expr>> = vec![None; columns.len()];
    for assignment in &update.assignments {
        for (name, value) in assignments(&assignment.target, &assignment.value)? {
            let index = column_index(item, columns, &name)?;
            if let (Some(slot), Some(column)) = (new_values.get_mut(index), columns.get(index)) {
                if slot.is_some() {
                    return Err(Error::syntax(format!(
                        "multiple assignments to same column \"{name}\""
                    )));
                }
                *slot = Some(assigned(item, value, column)?);
            }
        }
    }
    let old =
        |column: &Column| Expr::CompoundIdentifier(vec![quoted(&alias), quoted(&column.name)]);
    let mut projection: Vec<SelectItem> = columns
        .iter()
        .map(|column| aliased(old(column), &column.name))
        .collect();
    for (column, value) in columns.iter().zip(new_values) {
        projection.push(aliased(value.unwrap_or_else(|| old(column)), &column.name));
    }
    let query = changed_rows(projection, relation, update.selection.clone());
    Ok(PlannedWrite {
        table: item.id,
        kind: WriteKind::Update,
        query: plan_tree(ctx, query, parameter_types)?,
    })
}

fn assignments(target: &AssignmentTarget, value: &Expr) -> Result<Vec<(String, Expr)>, Error> {
    let last = |name: &ObjectName| fold_name(name).pop().unwrap_or_default();
    match target {
        AssignmentTarget::ColumnName(name) => Ok(vec![(last(name), value.clone())]),
        AssignmentTarget::Tuple(names) => match value {
            Expr::Tuple(values) if values.len() == names.len() => {
                Ok(names.iter().map(last).zip(values.iter().cloned()).collect())
            }
            Expr::Nested(value) if names.len() == 1 => Ok(names
                .iter()
                .map(last)
                .map(|name| (name, (**value).clone()))
                .collect()),
            Expr::Tuple(_) => Err(Error::syntax(
                "number of columns does not match number of values",
            )),
            _ => Err(Error::unsupported(
                "assignment of a subquery to several columns is not supported",
            )),
        },
    }
}

/// The table of an UPDATE or DELETE, its columns, the name its columns go by, and the table as a FROM item.
fn changed_table<'a>(
    ctx: &PlanContext<'a>,
    factor: &TableFactor,
    verb: &str,
) -> Result<(&'a Item, &'a [Column], String, TableFactor), Error> {
    let TableFactor::Table {
        name,
        alias,
        args: None,
        ..
    } = factor
    else {
        return Err(Error::syntax(format!(
            "cannot {verb} this kind of relation"
        )));
    };
    let (item, columns) = target(ctx, name, verb)?;
    let shown = alias
        .as_ref()
        .map_or_else(|| item.name.clone(), |alias| fold(&alias.name));
    let relation = names::table_factor(name.clone(), Some(table_alias(&shown)));
    Ok((item, columns, shown, relation))
}

fn changed_rows(
    projection: Vec<SelectItem>,
    relation: TableFactor,
    selection: Option<Expr>,
) -> Query {
    let mut select = names::select(
        projection,
        vec![TableWithJoins {
            relation,
            joins: Vec::new(),
        }],
    );
    select.selection = selection;
    names::query(SetExpr::Select(Box::new(select)))
}

/// Plans a DELETE.
///
/// # Errors
/// Whatever is wrong with it, with PostgreSQL's wording.
pub fn plan_delete(
    ctx: &PlanContext<'_>,
    delete: &Delete,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedWrite, Error> {
    no_returning(delete.returning.as_ref())?;
    if delete.using.is_some() {
        return Err(Error::unsupported("DELETE … USING is not supported"));
    }
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
    let [
        TableWithJoins {
            relation: factor,
            joins,
        },
    ] = tables.as_slice()
    else {
        return Err(Error::syntax("DELETE names one table"));
    };
    if !joins.is_empty() {
        return Err(Error::syntax("DELETE names one table"));
    }
    let (item, columns, alias, relation) = changed_table(ctx, factor, "delete from")?;
    let projection = columns
        .iter()
        .map(|column| {
            aliased(
                Expr::CompoundIdentifier(vec![quoted(&alias), quoted(&column.name)]),
                &column.name,
            )
        })
        .collect();
    let query = changed_rows(projection, relation, delete.selection.clone());
    Ok(PlannedWrite {
        table: item.id,
        kind: WriteKind::Delete,
        query: plan_tree(ctx, query, parameter_types)?,
    })
}

/// Finds where the fields of a COPY FROM go. `table`: the parts of its name, `columns`: the column list, both folded; an empty list means all columns.
///
/// # Errors
/// If the table cannot be written to or has no such column.
pub fn plan_copy_from(
    ctx: &PlanContext<'_>,
    table: &[String],
    columns: &[String],
) -> Result<PlannedCopy, Error> {
    let (item, all) = writable(ctx, table, "copy to")?;
    let targets = column_list(item, all, columns)?;
    let types = targets
        .iter()
        .filter_map(|target| all.get(*target))
        .map(|column| column.sql_type.clone())
        .collect();
    let defaults = all
        .iter()
        .enumerate()
        .filter(|(index, _)| !targets.contains(index))
        .map(|(index, column)| (index, column.default.clone()))
        .collect();
    Ok(PlannedCopy {
        table: item.id,
        schema: arrow_schema(all),
        columns: targets,
        types,
        defaults,
    })
}
