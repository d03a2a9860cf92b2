//! INSERT, UPDATE, DELETE and COPY FROM: which table and which columns they write to.
//!
//! Owns what can be written to, and column lists; the rows are the binder's ([`crate::bind`]). The result's columns are what
//! [`flowstone_proto::message::WriteOperation`] says. Must not know how rows are written.

use std::collections::BTreeSet;

use arrow_schema::SchemaRef;
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::{
    Delete, FromTable, Insert, ObjectName, ObjectNamePart, SelectItem, TableFactor, TableObject,
    TableWithJoins, Update,
};

use super::{PlanContext, PlannedQuery, finish};
use crate::bind::{self, Bound, WriteTarget};
use crate::catalog::{Column, Item, ItemKind, arrow_schema};
use crate::error::{Error, ErrorKind};
use crate::expansion;
use crate::names::{self, Relation, fold_name};

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
    expansion::refuse_repetition(insert)?;
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
    let positions = column_list(item, columns, &named)?;
    let explicit = !named.is_empty() && insert.source.is_some();
    let source = insert.source.as_deref();
    let target = WriteTarget { item, columns };
    let bound = bind::insert(ctx, target, &positions, explicit, source, parameter_types)?;
    planned(ctx, item, WriteKind::Insert, bound)
}

/// The plan of bound rows.
fn planned(
    ctx: &PlanContext<'_>,
    item: &Item,
    kind: WriteKind,
    bound: Bound,
) -> Result<PlannedWrite, Error> {
    Ok(PlannedWrite {
        table: item.id,
        kind,
        query: finish(ctx, bound)?,
    })
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
    expansion::refuse_repetition(update)?;
    let (item, columns) = changed_table(ctx, &update.table.relation, "update")?;
    let target = WriteTarget { item, columns };
    let bound = bind::update(ctx, target, update, parameter_types)?;
    planned(ctx, item, WriteKind::Update, bound)
}

/// The table of an UPDATE or DELETE, and its columns.
fn changed_table<'a>(
    ctx: &PlanContext<'a>,
    factor: &TableFactor,
    verb: &str,
) -> Result<(&'a Item, &'a [Column]), Error> {
    match factor {
        TableFactor::Table {
            name, args: None, ..
        } => target(ctx, name, verb),
        _ => Err(Error::syntax(format!(
            "cannot {verb} this kind of relation"
        ))),
    }
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
    expansion::refuse_repetition(delete)?;
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
    let (item, columns) = changed_table(ctx, factor, "delete from")?;
    let target = WriteTarget { item, columns };
    let bound = bind::delete(ctx, target, factor, delete, parameter_types)?;
    planned(ctx, item, WriteKind::Delete, bound)
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
