//! INSERT, UPDATE, DELETE and COPY FROM: which table and which columns they write to.
//!
//! Owns what can be written to, and column lists; the rows and what RETURNING gives of them are the binder's ([`crate::bind`]). The result's columns are what
//! [`flowstone_proto::message::WriteOperation`] says. Must not know how rows are written.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::{FieldRef, Schema, SchemaRef};
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::{
    ConflictTarget, Delete, FromTable, Insert, ObjectName, ObjectNamePart, OnConflictAction,
    OnInsert, SetExpr, Statement, TableFactor, TableObject, TableWithJoins, Update, With,
};

use super::{PlanContext, PlannedQuery, finish};
use crate::ast::StatementKind;
use crate::bind::{self, Bound, WriteTarget};
use crate::catalog::{Column, Item, ItemKind, arrow_schema};
use crate::error::{Error, ErrorKind};
use crate::expansion;
use crate::names::{self, Relation, fold, fold_name};

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
    /// The rows, and behind the columns that `kind` says what RETURNING gives of each.
    pub query: PlannedQuery,
    /// The columns of RETURNING, if there is one.
    pub returning: Option<SchemaRef>,
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

/// Plans an INSERT, UPDATE or DELETE.
///
/// # Errors
/// Whatever is wrong with it, with PostgreSQL's wording.
pub fn plan_write(
    ctx: &PlanContext<'_>,
    statement: &StatementKind,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedWrite, Error> {
    match statement {
        StatementKind::Insert(insert) => {
            expansion::refuse_repetition(&**insert)?;
            plan_insert(ctx, None, insert, parameter_types)
        }
        StatementKind::Update(update) => {
            expansion::refuse_repetition(&**update)?;
            plan_update(ctx, None, update, parameter_types)
        }
        StatementKind::Delete(delete) => {
            expansion::refuse_repetition(&**delete)?;
            plan_delete(ctx, None, delete, parameter_types)
        }
        StatementKind::WithWrite(query) => {
            expansion::refuse_repetition(&**query)?;
            let with = query.with.as_ref();
            match &*query.body {
                SetExpr::Insert(Statement::Insert(insert)) => {
                    plan_insert(ctx, with, insert, parameter_types)
                }
                SetExpr::Update(Statement::Update(update)) => {
                    plan_update(ctx, with, update, parameter_types)
                }
                SetExpr::Delete(Statement::Delete(delete)) => {
                    plan_delete(ctx, with, delete, parameter_types)
                }
                _ => Err(Error::internal("a query that changes nothing")),
            }
        }
        _ => Err(Error::internal("not a write")),
    }
}

fn plan_insert(
    ctx: &PlanContext<'_>,
    with: Option<&With>,
    insert: &Insert,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedWrite, Error> {
    let TableObject::TableName(name) = &insert.table else {
        return Err(Error::unsupported(
            "INSERT into anything but a table is not supported",
        ));
    };
    let (item, columns) = target(ctx, name, "insert into")?;
    let target = WriteTarget { item, columns };
    let named = insert.columns.iter().map(|name| target.column_named(name));
    let named = named.collect::<Result<Vec<String>, Error>>()?;
    let positions = column_list(item, columns, &named)?;
    check_conflicts(item, columns, insert.on.as_ref())?;
    let bound = bind::insert(ctx, target, &positions, with, insert, parameter_types)?;
    planned(ctx, target, WriteKind::Insert, bound)
}

/// Checks an ON CONFLICT. A table that statements write to has no key, so no row of it conflicts with another: as in PostgreSQL, DO NOTHING alone changes nothing, and
/// whatever names what would conflict is refused.
fn check_conflicts(item: &Item, columns: &[Column], on: Option<&OnInsert>) -> Result<(), Error> {
    let Some(on) = on else {
        return Ok(());
    };
    let OnInsert::OnConflict(on) = on else {
        return Err(Error::unsupported("ON DUPLICATE KEY is not supported"));
    };
    if matches!(&item.kind, ItemKind::Table { key: Some(_), .. }) {
        return Err(Error::unsupported("ON CONFLICT is not supported"));
    }
    match (&on.conflict_target, &on.action) {
        (None, OnConflictAction::DoNothing) => Ok(()),
        (None, OnConflictAction::DoUpdate(_)) => Err(Error::syntax(
            "ON CONFLICT DO UPDATE requires inference specification or constraint name",
        )
        .with_hint("For example, ON CONFLICT (column_name).")),
        (Some(ConflictTarget::OnConstraint(name)), _) => {
            let name = fold_name(name).pop().unwrap_or_default();
            Err(Error::new(
                ErrorKind::UndefinedObject,
                format!(
                    "constraint \"{name}\" for table \"{}\" does not exist",
                    item.name
                ),
            ))
        }
        (Some(ConflictTarget::Columns(named)), _) => {
            let missing = named
                .iter()
                .map(fold)
                .find(|name| columns.iter().all(|column| column.name != *name));
            Err(match missing {
                Some(name) => Error::new(
                    ErrorKind::UndefinedColumn,
                    format!("column \"{name}\" does not exist"),
                ),
                None => Error::new(
                    ErrorKind::InvalidColumnReference,
                    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                ),
            })
        }
    }
}

/// The plan of bound rows.
fn planned(
    ctx: &PlanContext<'_>,
    target: WriteTarget<'_>,
    kind: WriteKind,
    bound: Bound,
) -> Result<PlannedWrite, Error> {
    let query = finish(ctx, bound)?;
    let width = match kind {
        WriteKind::Insert | WriteKind::Delete => target.columns.len(),
        WriteKind::Update => 2 * target.columns.len(),
    };
    let behind: Vec<FieldRef> = query.schema.fields().iter().skip(width).cloned().collect();
    Ok(PlannedWrite {
        table: target.item.id,
        kind,
        query,
        returning: (!behind.is_empty()).then(|| Arc::new(Schema::new(behind))),
    })
}

fn plan_update(
    ctx: &PlanContext<'_>,
    with: Option<&With>,
    update: &Update,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedWrite, Error> {
    let (item, columns) = changed_table(ctx, &update.table.relation, "update")?;
    let target = WriteTarget { item, columns };
    let bound = bind::update(ctx, target, with, update, parameter_types)?;
    planned(ctx, target, WriteKind::Update, bound)
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

fn plan_delete(
    ctx: &PlanContext<'_>,
    with: Option<&With>,
    delete: &Delete,
    parameter_types: &[Option<SqlType>],
) -> Result<PlannedWrite, Error> {
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
    let bound = bind::delete(ctx, target, with, factor, delete, parameter_types)?;
    planned(ctx, target, WriteKind::Delete, bound)
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
