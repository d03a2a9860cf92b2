//! Statements in the forms of 2021, which name brokers and URLs where connections are named now, and statements that leave out what there is just one of:
//! what they mean, spelled out.
//!
//! Owns the connections that are made of such statements, and the notices that say so. Called by the coordinator before it asks upstreams and plans.

use super::{DdlPlan, Notice, create};
use crate::ast::{
    ConnectionKind, ConnectionReference, CreateConnection, CreateTableFromSource, EnvelopeClause,
    FormatClause, FormatSyntax, Messages, Name, ObjectType, OptionValue, SchemaSource,
    StatementKind, Strategy,
};
use crate::catalog::{Catalog, Item, ItemKind, ResolveContext, SchemaId};
use crate::error::Error;

/// A statement that says everything.
#[derive(Clone, Debug)]
pub struct SpelledOut {
    /// The statement.
    pub kind: StatementKind,
    /// What has to be made for it before.
    pub before: DdlPlan,
    /// The catalog with that.
    pub catalog: Catalog,
}

/// The statement with everything said; `None` if it says everything itself.
///
/// # Errors
/// As `CREATE CONNECTION` about what stands in the place of a connection; [`crate::error::ErrorKind::Syntax`] if it cannot be told what is meant.
pub fn spelled_out(
    catalog: &Catalog,
    ctx: &ResolveContext,
    kind: &StatementKind,
) -> Result<Option<SpelledOut>, Error> {
    let may_be_short = matches!(
        kind,
        StatementKind::CreateSource(_)
            | StatementKind::CreateTableFromSource(_)
            | StatementKind::CreateSink(_)
    );
    if !may_be_short {
        return Ok(None);
    }
    let mut kind = kind.clone();
    let mut notices = Vec::new();
    let (name, references) = match &mut kind {
        StatementKind::CreateSource(create) => {
            let connection = create.kind.connector().connection().cloned();
            if let Some(messages) = create.kind.messages_mut() {
                let schema = schema_of_connection(catalog, ctx, connection.as_ref(), &create.name)?;
                notices.extend(complete(catalog, messages, schema)?);
            }
            (create.name.clone(), create.kind.references())
        }
        StatementKind::CreateTableFromSource(create) => {
            let schema = schema_of_source(catalog, ctx, create)?;
            match &mut create.messages {
                Some(messages) => {
                    notices.extend(complete(catalog, messages, schema)?);
                    (create.name.clone(), messages.references())
                }
                None => return Ok(None),
            }
        }
        StatementKind::CreateSink(create) => {
            if create.kind.complete() {
                notices.push(Notice::note(
                    "without ENVELOPE a sink to a BROKER writes changes as Debezium does",
                ));
            }
            (create.name.clone(), create.kind.references())
        }
        _ => return Ok(None),
    };
    let open: Vec<&mut ConnectionReference> = references
        .into_iter()
        .filter(|reference| reference.name().is_none())
        .collect();
    if open.is_empty() && notices.is_empty() {
        return Ok(None);
    }
    let mut after = catalog.clone();
    let mut before = DdlPlan::new("");
    before.notices = notices;
    let mut made_of: Vec<(ConnectionKind, Vec<OptionValue>, Name)> = Vec::new();
    for reference in open {
        let ConnectionReference::Inline {
            kind: of, options, ..
        } = &*reference
        else {
            continue;
        };
        // Keys and values may name the same registry.
        let values: Vec<OptionValue> = options.iter().map(|said| said.value.clone()).collect();
        let known = made_of
            .iter()
            .find(|(kind, said, _)| kind == of && *said == values);
        if let Some((_, _, name)) = known {
            *reference = ConnectionReference::Named(name.clone());
            continue;
        }
        let schema = after.target_schema(ctx, &name)?.id;
        let free = after.unused_name(schema, &format!("{}_{}", name.item(), of.suffix()));
        let connection = CreateConnection {
            name: name_in(&after, schema, &free),
            if_not_exists: false,
            kind: *of,
            options: options.clone(),
            validate: Some(false),
        };
        let made = create::connection(&after, ctx, &connection)?;
        after.apply(&made.changes)?;
        before.changes.extend(made.changes);
        before.created.extend(made.created);
        before.notices.push(Notice {
            hint: Some("Create a connection with CREATE CONNECTION and name it.".to_owned()),
            ..Notice::note(format!(
                "connection \"{free}\" is created from the address in the statement"
            ))
        });
        made_of.push((*of, values, connection.name.clone()));
        *reference = ConnectionReference::Named(connection.name);
    }
    Ok(Some(SpelledOut {
        kind,
        before,
        catalog: after,
    }))
}

/// The full name of an item.
fn name_in(catalog: &Catalog, schema: SchemaId, item: &str) -> Name {
    let schema = catalog.schemas.get(&schema);
    let database = schema
        .and_then(|schema| schema.database)
        .and_then(|id| catalog.databases.get(&id));
    let parts = [
        database.map(|database| database.name.as_str()),
        schema.map(|schema| schema.name.as_str()),
        Some(item),
    ];
    Name::new(parts.into_iter().flatten())
}

/// Where a connection is; where `name` goes if there is none yet.
fn schema_of_connection(
    catalog: &Catalog,
    ctx: &ResolveContext,
    connection: Option<&Name>,
    name: &Name,
) -> Result<SchemaId, Error> {
    match connection {
        Some(connection) => catalog
            .resolve_item(ctx, connection, ObjectType::Connection)
            .map(|item| item.schema),
        None => catalog.target_schema(ctx, name).map(|schema| schema.id),
    }
}

fn schema_of_source(
    catalog: &Catalog,
    ctx: &ResolveContext,
    create: &CreateTableFromSource,
) -> Result<SchemaId, Error> {
    let source = catalog.resolve_item(ctx, &create.source, ObjectType::Source)?;
    let connection = match &source.kind {
        ItemKind::Source(source) => source.kind.connection(),
        _ => None,
    };
    let connection = connection.and_then(|id| catalog.items.get(&id));
    Ok(connection.map_or(source.schema, |item| item.schema))
}

/// Says what messages are if a statement does not: CockroachDB's guide has `ENVELOPE DEBEZIUM` and no format. With one registry beside the connection to the
/// brokers it is Avro; without any it is JSON.
fn complete(
    catalog: &Catalog,
    messages: &mut Messages,
    schema: SchemaId,
) -> Result<Option<Notice>, Error> {
    if messages.value.is_some() || messages.envelope != Some(EnvelopeClause::Debezium) {
        return Ok(None);
    }
    let declared = &messages.columns;
    if !declared.columns.is_empty() || !declared.primary_key.is_empty() {
        return Err(Error::syntax("FORMAT is required")
            .with_detail("Columns are declared, and what they stand for depends on the format.")
            .with_hint("Say FORMAT JSON if they are members of documents, else which format it is.")
            .at(messages.position));
    }
    let registries: Vec<&Item> = catalog
        .items
        .values()
        .filter(|item| item.schema == schema)
        .filter(|item| matches!(&item.kind, ItemKind::Connection(found) if found.is_registry()))
        .collect();
    let (format, notice) = match registries.as_slice() {
        [] => (
            FormatSyntax::Json,
            "no FORMAT is given, and there is no schema registry: messages are read as JSON"
                .to_owned(),
        ),
        [registry] => {
            let name = name_in(catalog, registry.schema, &registry.name);
            let notice = format!(
                "no FORMAT is given: messages are read as AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION {name}"
            );
            let schemas = SchemaSource::Registry {
                registry: ConnectionReference::Named(name),
                key: Strategy::Latest,
                value: Strategy::Latest,
            };
            (FormatSyntax::Avro(schemas), notice)
        }
        _ => {
            return Err(Error::syntax("FORMAT is required")
                .with_detail("There are several schema registries that could be meant.")
                .with_hint("Say FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION and which.")
                .at(messages.position));
        }
    };
    messages.bare = true;
    messages.value = Some(FormatClause {
        format,
        position: messages.position,
    });
    Ok(Some(Notice::note(notice)))
}
