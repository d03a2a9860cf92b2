//! CREATE SOURCE and what adds tables to a source: from what the upstream says it has to a source item and tables with pinned columns.

use flowstone_proto::kafka::SchemaRequest;
use flowstone_proto::message::{SourceColumn, SourceTable, UpstreamColumn, UpstreamTable};
use flowstone_types::{ObjectId, SqlType};

use super::cluster::{in_cluster, target_cluster};
use super::create::{Place, new_item, place, put};
use super::{DdlPlan, Ids, at, does_not_exist};
use crate::ast::{
    AlterSourceAddSubsource, CreateSource, CreateTableFromSource, Messages, Name, ObjectType,
    SourceTables, StatementKind, SubsourceReference,
};
use crate::catalog::names::missing;
use crate::catalog::{
    Catalog, CatalogChange, Column, Item, ItemKind, MessageTable, ResolveContext, SchemaId, Source,
    SourceItemKind, TableSource,
};
use crate::connector::{PlannedMessages, SchemaAnswer, not_registry};
use crate::error::{Error, ErrorKind};

/// The type of an upstream column by its type's OID and modifier; `None` if we have none for it.
type TypeOf<'f> = &'f dyn Fn(u32, i32) -> Option<SqlType>;

/// What a new source reads, for the coordinator to ask it what it has before the source is planned.
///
/// # Errors
/// As [`Catalog::resolve_item`] about the connection; [`ErrorKind::WrongObjectType`] if that is one to something else.
pub fn source_to_describe(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateSource,
) -> Result<SourceItemKind, Error> {
    source_kind(catalog, ctx, create, "")
}

fn source_kind(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateSource,
    slot: &str,
) -> Result<SourceItemKind, Error> {
    let new = create.kind.connector();
    let item = new
        .connection()
        .map(|name| catalog.resolve_item(ctx, name, ObjectType::Connection))
        .transpose()?;
    let connection = item.and_then(|item| match &item.kind {
        ItemKind::Connection(connection) => Some((item.id, connection)),
        _ => None,
    });
    new.in_catalog(connection, slot)
}

/// What resolves the name of a connection to a schema registry.
pub(super) fn registry_named<'a>(
    catalog: &'a Catalog,
    ctx: &'a ResolveContext,
) -> impl Fn(&Name) -> Result<ObjectId, Error> + 'a {
    move |name: &Name| {
        let item = catalog.resolve_item(ctx, name, ObjectType::Connection)?;
        match &item.kind {
            ItemKind::Connection(connection) if connection.is_registry() => Ok(item.id),
            _ => Err(not_registry(name)),
        }
    }
}

/// What the coordinator has to ask schema registries before a statement is planned: the connection items, and what each is asked.
///
/// # Errors
/// As [`Catalog::resolve_item`] about connections; [`ErrorKind::WrongObjectType`] if one is not to a registry.
pub fn schemas_to_ask(
    catalog: &Catalog,
    ctx: &ResolveContext,
    kind: &StatementKind,
) -> Result<Vec<(ObjectId, SchemaRequest)>, Error> {
    let registry = registry_named(catalog, ctx);
    match kind {
        StatementKind::CreateSource(create) => match create.kind.connector().messages() {
            Some((topic, messages)) => messages.requests(topic, &registry),
            None => Ok(Vec::new()),
        },
        StatementKind::CreateTableFromSource(create) => {
            let (Some(messages), Some((_, source))) =
                (&create.messages, source_item(catalog, ctx, &create.source)?)
            else {
                return Ok(Vec::new());
            };
            match source.connector().topic() {
                Some(topic) => messages.requests(topic, &registry),
                None => Ok(Vec::new()),
            }
        }
        _ => Ok(Vec::new()),
    }
}

/// The source that new tables are of.
#[derive(Clone, Copy)]
struct Feeder<'a> {
    id: ObjectId,
    kind: &'a SourceItemKind,
    /// Whether the tables go with it.
    owned: bool,
}

/// A table that is to be made from an upstream table.
struct Wanted<'u> {
    upstream: &'u UpstreamTable,
    schema: SchemaId,
    name: String,
}

/// Plans `CREATE SOURCE`: the source, its progress relation and one table for each upstream table that is asked for.
///
/// `upstream`: the tables that there are. `schemas`: what registries answered to [`schemas_to_ask`]. `slot`: a name that nothing upstream has, for what the source keeps there. `type_of`: see [`super::pg_types::sql_type`].
///
/// # Errors
/// [`ErrorKind::InvalidParameterValue`] and [`ErrorKind::InvalidObjectDefinition`] for what does not fit the upstream: tables or columns that are not there,
/// types that cannot be captured, tables whose changes cannot be followed; as for other items about the name.
pub fn plan_create_source(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateSource,
    upstream: &[UpstreamTable],
    schemas: &[SchemaAnswer],
    slot: &str,
    type_of: TypeOf<'_>,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE SOURCE";
    let cluster = target_cluster(catalog, ctx, create.in_cluster.as_ref())?;
    if let Some(option) = create.options.first() {
        return Err(
            Error::unsupported(format!("option {} is not supported", option.name))
                .at(option.position),
        );
    }
    let schema = match place(catalog, ctx, &create.name, create.if_not_exists, tag)? {
        Place::Free(schema) => schema.id,
        Place::Taken(plan) => return Ok(plan),
    };
    let mut ids = Ids::new(catalog);
    let new = create.kind.connector();
    let single = match new.single_table() {
        Some(message) if create.tables != SourceTables::None => {
            return Err(at(Error::unsupported(message), &create.name));
        }
        found => found.is_some(),
    };
    let own = new.messages();
    let single = single && (own.is_some() || !new.reads_messages());
    let wanted = if new.reads_messages() {
        Vec::new()
    } else if single {
        let table = upstream
            .first()
            .ok_or_else(|| Error::internal("the source has no table"))?;
        vec![Wanted {
            upstream: table,
            schema,
            name: create.name.item().to_owned(),
        }]
    } else {
        select(catalog, ctx, schema, &create.tables, upstream, create)?
    };
    check_names(
        catalog,
        &wanted,
        Some((schema, create.name.item())).filter(|_| !single),
    )?;
    let (text_columns, exclude_columns) = new.column_options();
    // The table of a single-relation generator comes first, so that its name finds it before the source of the same name.
    let reserved = single.then(|| (ids.id(), ids.oid()));
    let kind = source_kind(catalog, ctx, create, slot)?;
    let mut source = new_item(
        &mut ids,
        schema,
        create.name.item(),
        kind.connection().into_iter().collect(),
        ItemKind::Source(Source {
            kind: kind.clone(),
            progress: None,
        }),
    );
    let (progress_schema, progress_name) = match &create.expose_progress_as {
        Some(name) => match place(catalog, ctx, name, false, tag)? {
            Place::Free(schema) => (schema.id, name.item().to_owned()),
            Place::Taken(plan) => return Ok(plan),
        },
        None => (
            schema,
            catalog.unused_name(schema, &format!("{}_progress", create.name.item())),
        ),
    };
    if let Some(name) = &create.expose_progress_as
        && progress_schema == schema
        && progress_name == create.name.item()
    {
        let message = format!("relation \"{progress_name}\" already exists");
        return Err(at(Error::new(ErrorKind::DuplicateTable, message), name));
    }
    let columns = kind.connector().progress_columns().into_iter();
    let columns = columns.map(|(name, sql_type)| Column {
        name: name.to_owned(),
        sql_type,
        nullable: true,
        default: None,
    });
    let progress_kind = ItemKind::Progress {
        columns: columns.collect(),
        source: source.id,
    };
    let progress = new_item(
        &mut ids,
        progress_schema,
        &progress_name,
        vec![source.id],
        progress_kind,
    );
    if let ItemKind::Source(kind) = &mut source.kind {
        kind.progress = Some(progress.id);
    }
    let feeder = Feeder {
        id: source.id,
        kind: &kind,
        owned: true,
    };
    let mut messages = None;
    let mut tables = match own {
        Some((topic, said)) => {
            let planned = said.plan(topic, &registry_named(catalog, ctx), schemas)?;
            let name = create.name.item();
            let (table, made) = table_of_messages(schema, name, topic, planned, feeder, &mut ids);
            for registry in made.registries() {
                if !source.depends_on.contains(&registry) {
                    source.depends_on.push(registry);
                }
            }
            messages = Some(made);
            vec![table]
        }
        None => capture_all(
            &wanted,
            text_columns,
            exclude_columns,
            type_of,
            feeder,
            &mut ids,
        )?,
    };
    if let (Some((id, oid)), Some(table)) = (reserved, tables.first_mut()) {
        table.id = ObjectId::User(id);
        table.oid = oid;
        if let ItemKind::Table {
            source: Some(fed), ..
        } = &mut table.kind
        {
            fed.table.id = table.id;
        }
    }
    // The texts name the new items, so they are made against a catalog that has them.
    let mut after = catalog.clone();
    let placed = in_cluster(source.id, cluster.id);
    let of_messages = messages
        .zip(tables.first())
        .map(|(made, table)| CatalogChange::PutMessageTable(table.id, Box::new(made)));
    let all: Vec<Item> = [source, progress].into_iter().chain(tables).collect();
    after.apply(
        &all.iter()
            .map(|item| CatalogChange::PutItem(Box::new(item.clone())))
            .chain(placed.clone())
            .chain(of_messages.clone())
            .collect::<Vec<_>>(),
    )?;
    let mut plan = DdlPlan::new(tag);
    for item in all {
        put(&mut plan, &after, item);
    }
    plan.changes.extend(placed);
    plan.changes.extend(of_messages);
    Ok(plan)
}

/// A table that is fed by messages, and what it makes of them.
fn table_of_messages(
    schema: SchemaId,
    name: &str,
    topic: &str,
    planned: PlannedMessages,
    feeder: Feeder<'_>,
    ids: &mut Ids,
) -> (Item, MessageTable) {
    let PlannedMessages {
        columns,
        key,
        table,
    } = planned;
    let mut depends_on = vec![feeder.id];
    for registry in table.registries() {
        if !depends_on.contains(&registry) {
            depends_on.push(registry);
        }
    }
    let captured = columns
        .iter()
        .enumerate()
        .map(|(place, column)| SourceColumn {
            name: column.name.clone(),
            attribute: i16::try_from(place + 1).unwrap_or(i16::MAX),
            type_oid: column.sql_type.oid(),
            type_modifier: column.sql_type.type_modifier(),
            not_null: !column.nullable,
            as_text: false,
        })
        .collect();
    let described = SourceTable {
        id: feeder.id,
        upstream_schema: String::new(),
        upstream_name: topic.to_owned(),
        upstream_oid: 0,
        columns: captured,
        key: key.clone().unwrap_or_default(),
        upstream: Vec::new(),
    };
    let columns = columns.into_iter().map(|column| Column {
        name: column.name,
        sql_type: column.sql_type,
        nullable: column.nullable,
        default: None,
    });
    let kind = ItemKind::Table {
        columns: columns.collect(),
        key,
        source: Some(TableSource {
            source: feeder.id,
            table: described,
            owned: feeder.owned,
        }),
    };
    let mut item = new_item(ids, schema, name, depends_on, kind);
    let id = item.id;
    if let ItemKind::Table {
        source: Some(fed), ..
    } = &mut item.kind
    {
        fed.table.id = id;
    }
    (item, table)
}

/// The upstream tables that a statement asks for, and what they are to be called.
fn select<'u>(
    catalog: &Catalog,
    ctx: &ResolveContext,
    schema: SchemaId,
    tables: &SourceTables,
    upstream: &'u [UpstreamTable],
    create: &CreateSource,
) -> Result<Vec<Wanted<'u>>, Error> {
    let whole = |table: &'u UpstreamTable| Wanted {
        upstream: table,
        schema,
        name: table.name.clone(),
    };
    match tables {
        SourceTables::None => Ok(Vec::new()),
        SourceTables::All => {
            if upstream.is_empty() {
                let error = create.kind.connector().nothing_to_capture();
                return Err(at(error, &create.name));
            }
            Ok(upstream.iter().map(whole).collect())
        }
        SourceTables::Schemas(schemas) => {
            for schema in schemas {
                if !upstream.iter().any(|table| table.schema == schema.value) {
                    let message =
                        format!("reference to schema {} not found in source", schema.value);
                    return Err(
                        Error::new(ErrorKind::InvalidParameterValue, message).at(schema.position)
                    );
                }
            }
            Ok(upstream
                .iter()
                .filter(|table| schemas.iter().any(|schema| schema.value == table.schema))
                .map(whole)
                .collect())
        }
        SourceTables::Tables(references) => references
            .iter()
            .map(|reference| wanted(catalog, ctx, schema, reference, upstream))
            .collect(),
    }
}

/// One table of `FOR TABLES` or `ADD SUBSOURCE`.
fn wanted<'u>(
    catalog: &Catalog,
    ctx: &ResolveContext,
    schema: SchemaId,
    subsource: &SubsourceReference,
    upstream: &'u [UpstreamTable],
) -> Result<Wanted<'u>, Error> {
    let table = find(upstream, &subsource.reference)?;
    Ok(match &subsource.alias {
        Some(alias) if alias.parts.len() > 1 => Wanted {
            upstream: table,
            schema: catalog.target_schema(ctx, alias)?.id,
            name: alias.item().to_owned(),
        },
        Some(alias) => Wanted {
            upstream: table,
            schema,
            name: alias.item().to_owned(),
        },
        None => Wanted {
            upstream: table,
            schema,
            name: table.name.clone(),
        },
    })
}

/// The upstream table that `table`, `schema.table` or `database.schema.table` stands for.
fn find<'u>(upstream: &'u [UpstreamTable], reference: &Name) -> Result<&'u UpstreamTable, Error> {
    let schema = reference
        .parts
        .len()
        .checked_sub(2)
        .and_then(|index| reference.parts.get(index));
    let mut found = upstream.iter().filter(|table| {
        table.name == reference.item() && schema.is_none_or(|schema| schema.value == table.schema)
    });
    match (found.next(), found.next()) {
        (Some(table), None) => Ok(table),
        (None, _) => Err(at(
            Error::new(
                ErrorKind::InvalidParameterValue,
                format!("reference to {reference} not found in source"),
            ),
            reference,
        )),
        (Some(_), Some(_)) => {
            let error = Error::new(
                ErrorKind::InvalidParameterValue,
                format!("reference to {reference} is ambiguous in source"),
            );
            Err(at(
                error.with_hint("Qualify it with its schema upstream."),
                reference,
            ))
        }
    }
}

/// No two new tables may have one name, and none the name of something that exists.
fn check_names(
    catalog: &Catalog,
    wanted: &[Wanted<'_>],
    source: Option<(SchemaId, &str)>,
) -> Result<(), Error> {
    for (index, table) in wanted.iter().enumerate() {
        let twice = wanted
            .iter()
            .take(index)
            .any(|other| (other.schema, &other.name) == (table.schema, &table.name));
        if twice || source == Some((table.schema, table.name.as_str())) {
            let error = Error::new(
                ErrorKind::InvalidObjectDefinition,
                format!("multiple subsources would be named \"{}\"", table.name),
            );
            return Err(
                error.with_hint("Use FOR TABLES (... AS ...) to give them different names.")
            );
        }
        if catalog
            .items_named(table.schema, &table.name)
            .next()
            .is_some()
        {
            return Err(Error::new(
                ErrorKind::DuplicateTable,
                format!("relation \"{}\" already exists", table.name),
            ));
        }
    }
    Ok(())
}

/// Whether `column` (up to four parts) names the column called `name` of `table`. A bare column name only does if `bare` is allowed.
fn names_column(column: &Name, table: &UpstreamTable, name: &str, bare: bool) -> bool {
    let mut parts = column.parts.iter().rev().map(|part| part.value.as_str());
    parts.next() == Some(name)
        && parts.next().map_or(bare, |found| found == table.name)
        && parts.next().is_none_or(|found| found == table.schema)
}

/// Items for tables, with pinned columns. All that is wrong with all of them is said at once.
fn capture_all(
    wanted: &[Wanted<'_>],
    text: &[Name],
    exclude: &[Name],
    type_of: TypeOf<'_>,
    feeder: Feeder<'_>,
    ids: &mut Ids,
) -> Result<Vec<Item>, Error> {
    let bare = !feeder.owned;
    for (option, columns) in [("TEXT COLUMNS", text), ("EXCLUDE COLUMNS", exclude)] {
        for column in columns {
            let known = wanted.iter().any(|table| {
                table
                    .upstream
                    .columns
                    .iter()
                    .any(|found| names_column(column, table.upstream, &found.name, bare))
            });
            if !known {
                let message = format!("invalid {option}: column {column} not found in source");
                return Err(at(
                    Error::new(ErrorKind::InvalidParameterValue, message),
                    column,
                ));
            }
        }
    }
    let upstream: Vec<&UpstreamTable> = wanted.iter().map(|table| table.upstream).collect();
    feeder.kind.connector().check_tables(&upstream)?;
    let mut unsupported: Vec<(String, &UpstreamColumn)> = Vec::new();
    let mut items = Vec::new();
    for table in wanted {
        let upstream = table.upstream;
        let mut columns = Vec::new();
        let mut captured = Vec::new();
        for column in &upstream.columns {
            if exclude
                .iter()
                .any(|name| names_column(name, upstream, &column.name, bare))
            {
                continue;
            }
            let as_text = text
                .iter()
                .any(|name| names_column(name, upstream, &column.name, bare));
            let sql_type = if as_text {
                Some(SqlType::Text)
            } else {
                type_of(column.type_oid, column.type_modifier)
            };
            let Some(sql_type) = sql_type else {
                unsupported.push((
                    format!("{}.{}.{}", upstream.schema, upstream.name, column.name),
                    column,
                ));
                continue;
            };
            columns.push(Column {
                name: column.name.clone(),
                sql_type,
                nullable: !column.not_null,
                default: None,
            });
            captured.push(SourceColumn {
                name: column.name.clone(),
                attribute: column.attribute,
                type_oid: column.type_oid,
                type_modifier: column.type_modifier,
                not_null: column.not_null,
                as_text,
            });
        }
        let key: Option<Vec<usize>> = upstream
            .key
            .iter()
            .map(|name| captured.iter().position(|column| column.name == *name))
            .collect();
        let key = key.filter(|key| !key.is_empty());
        // Unless whole rows are sent, the key must be there to find the old row by.
        if key.is_none()
            && !upstream.key.is_empty()
            && !upstream.sends_whole_rows()
            && unsupported.is_empty()
        {
            let message = format!(
                "key columns of table {}.{} cannot be excluded",
                upstream.schema, upstream.name
            );
            return Err(Error::new(ErrorKind::InvalidParameterValue, message)
                .with_detail(format!("Its key is ({}).", upstream.key.join(", "))));
        }
        let upstream_key = if upstream.sends_whole_rows() {
            Vec::new()
        } else {
            key.clone().unwrap_or_default()
        };
        let kind = ItemKind::Table {
            columns,
            key,
            source: None,
        };
        let mut item = new_item(ids, table.schema, &table.name, vec![feeder.id], kind);
        let described = SourceTable {
            id: item.id,
            upstream_schema: upstream.schema.clone(),
            upstream_name: upstream.name.clone(),
            upstream_oid: upstream.oid,
            columns: captured,
            key: upstream_key,
            upstream: Vec::new(),
        };
        if let ItemKind::Table { source: fed, .. } = &mut item.kind {
            *fed = Some(TableSource {
                source: feeder.id,
                table: described,
                owned: feeder.owned,
            });
        }
        items.push(item);
    }
    if unsupported.is_empty() {
        return Ok(items);
    }
    let names = unsupported
        .iter()
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let detail = unsupported
        .iter()
        .map(|(name, column)| format!("{name} has type {}.", column.type_name))
        .collect::<Vec<_>>()
        .join("\n");
    Err(Error::unsupported(format!("columns with unsupported types: {names}"))
        .with_detail(detail)
        .with_hint(format!("Use TEXT COLUMNS ({names}) to capture them as text, or EXCLUDE COLUMNS to leave them out.")))
}

/// The source item of a statement about a source.
fn source_item<'a>(
    catalog: &'a Catalog,
    ctx: &ResolveContext,
    name: &Name,
) -> Result<Option<(&'a Item, &'a SourceItemKind)>, Error> {
    let Some(item) = catalog.find_item(ctx, name, ObjectType::Source)? else {
        return Ok(None);
    };
    match &item.kind {
        ItemKind::Source(source) => Ok(Some((item, &source.kind))),
        _ => Err(at(
            Error::new(
                ErrorKind::WrongObjectType,
                format!(
                    "\"{}\" is not a source that tables can be added to",
                    item.name
                ),
            ),
            name,
        )),
    }
}

/// Adds tables to a plan.
fn add_tables(plan: &mut DdlPlan, catalog: &Catalog, items: Vec<Item>) {
    for item in items {
        put(plan, catalog, item);
    }
}

/// Plans `CREATE TABLE … FROM SOURCE`.
///
/// # Errors
/// As [`plan_create_source`].
pub fn plan_table_from_source(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateTableFromSource,
    upstream: &[UpstreamTable],
    schemas: &[SchemaAnswer],
    type_of: TypeOf<'_>,
) -> Result<DdlPlan, Error> {
    let tag = "CREATE TABLE";
    let schema = match place(catalog, ctx, &create.name, create.if_not_exists, tag)? {
        Place::Free(schema) => schema.id,
        Place::Taken(plan) => return Ok(plan),
    };
    let (source, kind) = source_item(catalog, ctx, &create.source)?
        .ok_or_else(|| missing(ObjectType::Source, &create.source))?;
    let mut ids = Ids::new(catalog);
    let feeder = Feeder {
        id: source.id,
        kind,
        owned: false,
    };
    if let Some(topic) = kind.connector().topic() {
        let messages = said_of_topic(create, topic)?;
        let planned = messages.plan(topic, &registry_named(catalog, ctx), schemas)?;
        let name = create.name.item();
        let (item, made) = table_of_messages(schema, name, topic, planned, feeder, &mut ids);
        let made = CatalogChange::PutMessageTable(item.id, Box::new(made));
        let mut after = catalog.clone();
        after.apply(&[CatalogChange::PutItem(Box::new(item.clone())), made.clone()])?;
        let mut plan = DdlPlan::new(tag);
        put(&mut plan, &after, item);
        plan.changes.push(made);
        return Ok(plan);
    }
    if let Some(messages) = &create.messages {
        return Err(
            Error::unsupported("FORMAT of tables of this kind of source is not supported")
                .at(messages.position),
        );
    }
    let table = match (&create.reference, upstream) {
        (Some(reference), _) => find(upstream, reference)?,
        (None, [only]) => only,
        (None, _) => {
            return Err(at(
                Error::syntax("a REFERENCE to a table of the source is required"),
                &create.source,
            ));
        }
    };
    let wanted = [Wanted {
        upstream: table,
        schema,
        name: create.name.item().to_owned(),
    }];
    let items = capture_all(
        &wanted,
        &create.text_columns,
        &create.exclude_columns,
        type_of,
        feeder,
        &mut ids,
    )?;
    let mut plan = DdlPlan::new(tag);
    add_tables(&mut plan, catalog, items);
    Ok(plan)
}

/// What `CREATE TABLE … FROM SOURCE` says of the messages of a topic.
fn said_of_topic<'a>(
    create: &'a CreateTableFromSource,
    topic: &str,
) -> Result<&'a Messages, Error> {
    if let Some(reference) = &create.reference {
        let parts: Vec<&str> = reference
            .parts
            .iter()
            .map(|part| part.value.as_str())
            .collect();
        if parts.join(".") != topic {
            let message = format!("reference to {reference} not found in source");
            let error = Error::new(ErrorKind::InvalidParameterValue, message);
            return Err(at(
                error.with_detail(format!("The source reads topic \"{topic}\".")),
                reference,
            ));
        }
    }
    let mut columns = create.text_columns.iter().chain(&create.exclude_columns);
    if let Some(column) = columns.next() {
        return Err(at(
            Error::unsupported(
                "TEXT COLUMNS and EXCLUDE COLUMNS of a table of messages are not supported",
            ),
            column,
        ));
    }
    create.messages.as_deref().ok_or_else(|| {
        at(
            Error::syntax("FORMAT is required")
                .with_hint("Say what messages are, such as FORMAT JSON."),
            &create.source,
        )
    })
}

/// Plans `ALTER SOURCE … ADD SUBSOURCE …`.
///
/// # Errors
/// As [`plan_create_source`].
pub fn plan_add_subsources(
    catalog: &Catalog,
    ctx: &ResolveContext,
    alter: &AlterSourceAddSubsource,
    upstream: &[UpstreamTable],
    type_of: TypeOf<'_>,
) -> Result<DdlPlan, Error> {
    let tag = "ALTER SOURCE";
    let Some((source, kind)) = source_item(catalog, ctx, &alter.source)? else {
        if alter.if_exists {
            return Ok(DdlPlan::skip(
                tag,
                does_not_exist(ObjectType::Source, &alter.source),
            ));
        }
        return Err(missing(ObjectType::Source, &alter.source));
    };
    if kind.connector().topic().is_some() {
        return Err(at(
            Error::unsupported("subsources of a source of messages are not supported")
                .with_hint("Use CREATE TABLE ... FROM SOURCE ... FORMAT ... instead."),
            &alter.source,
        ));
    }
    let wanted = alter
        .tables
        .iter()
        .map(|table| wanted(catalog, ctx, source.schema, table, upstream))
        .collect::<Result<Vec<_>, _>>()?;
    check_names(catalog, &wanted, None)?;
    let mut ids = Ids::new(catalog);
    let feeder = Feeder {
        id: source.id,
        kind,
        owned: true,
    };
    let items = capture_all(
        &wanted,
        &alter.text_columns,
        &alter.exclude_columns,
        type_of,
        feeder,
        &mut ids,
    )?;
    let mut plan = DdlPlan::new(tag);
    add_tables(&mut plan, catalog, items);
    Ok(plan)
}
