//! Functions whose value is known when the statement is planned: of the session, of the clock, and of the catalog.
//!
//! Owns what they stand for. Those that look into the catalog per row become a look-up among the catalog's entries, which are
//! a constant, so that a plan carries everything it needs and is no deeper the more there are. Must not know plans. Called by [`super::rewrite`].

use flowstone_functions::lookup::LOOKUP_TEXT;
use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;
use sqlparser::ast::{BinaryOperator, CaseWhen, Expr, FunctionArg, Value};

use super::names::{self, Relation};
use super::rewrite::{argument_expr, binary, call, cast, constant, literal_text, marker, null};
use super::{PlanContext, assignments};
use crate::catalog::{Item, ItemKind};
use crate::error::{Error, ErrorKind};
use crate::system::keys::keys;

/// The version of Materialize whose SQL and catalog these are, and ours: what `mz_version()` answers and clients are told. Tools parse it.
pub const MATERIALIZE_VERSION: &str =
    concat!("v0.164.0 (Flowstone ", env!("CARGO_PKG_VERSION"), ")");
/// The same as a number.
const MATERIALIZE_VERSION_NUM: u32 = 16_400;

/// What `version()` answers: tools parse it.
const SERVER_VERSION: &str = "PostgreSQL 15.0 (Flowstone)";

fn text(value: impl Into<String>) -> Expr {
    constant(value, &SqlType::Text)
}

fn name(value: impl Into<String>) -> Expr {
    constant(value, &SqlType::Name)
}

fn boolean(value: bool) -> Expr {
    Expr::value(Value::Boolean(value))
}

fn integer(value: impl ToString, sql_type: &SqlType) -> Expr {
    constant(value.to_string(), sql_type)
}

/// The oid constant `oid`.
fn oid(oid: u32) -> Expr {
    integer(oid, &SqlType::Oid)
}

/// What the call `function(arguments)` stands for; `None` if it is an ordinary function.
///
/// # Errors
/// [`ErrorKind::InvalidObjectDefinition`] for a function of the clock or the session in a maintained view; a wrong name in a `reg…` cast.
pub(super) fn rewrite(
    ctx: &PlanContext<'_>,
    function: &str,
    arguments: &[FunctionArg],
) -> Result<Option<Expr>, Error> {
    let args: Vec<Expr> = arguments.iter().filter_map(argument_expr).collect();
    if let Some(expr) = clock(ctx, function, &args)? {
        return Ok(Some(expr));
    }
    if let Some(expr) = session(ctx, function, &args)? {
        return Ok(Some(expr));
    }
    catalog(ctx, function, &args)
}

fn refuse_if_maintained(ctx: &PlanContext<'_>, function: &str) -> Result<(), Error> {
    if !ctx.maintained {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidObjectDefinition,
        format!("cannot materialize call to {function}"),
    )
    .with_hint("Remove it from the query, or create a plain view."))
}

fn clock(ctx: &PlanContext<'_>, function: &str, args: &[Expr]) -> Result<Option<Expr>, Error> {
    if !args.is_empty()
        && !matches!(
            function,
            "current_timestamp" | "current_time" | "localtimestamp" | "localtime"
        )
    {
        return Ok(None);
    }
    let now = || timestamp(ctx.now_ms);
    let value = match function {
        "now"
        | "current_timestamp"
        | "transaction_timestamp"
        | "statement_timestamp"
        | "clock_timestamp" => now(),
        "localtimestamp" => cast(now(), &SqlType::Timestamp),
        "current_date" => cast(cast(now(), &SqlType::Timestamp), &SqlType::Date),
        "current_time" | "localtime" => cast(cast(now(), &SqlType::Timestamp), &SqlType::Time),
        "mz_now" => {
            refuse_if_maintained(ctx, function)?;
            let epoch = ctx.transaction_epoch.map_or(ctx.now_ms, |epoch| epoch.0);
            return Ok(Some(integer(epoch, &SqlType::MzTimestamp)));
        }
        "random" | "gen_random_uuid" => {
            refuse_if_maintained(ctx, function)?;
            return Ok(None);
        }
        _ => return Ok(None),
    };
    refuse_if_maintained(ctx, function)?;
    Ok(Some(value))
}

/// Milliseconds since the Unix epoch as a timestamp with time zone.
fn timestamp(now_ms: u64) -> Expr {
    let moment = i64::try_from(now_ms)
        .ok()
        .and_then(chrono::DateTime::from_timestamp_millis)
        .unwrap_or_default();
    constant(
        moment.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string(),
        &SqlType::TimestampTz,
    )
}

fn session(ctx: &PlanContext<'_>, function: &str, args: &[Expr]) -> Result<Option<Expr>, Error> {
    let value = match (function, args) {
        ("current_database" | "current_catalog", []) => name(ctx.database),
        ("current_schema", []) => match existing_schemas(ctx).first() {
            Some(schema) => name(schema),
            None => null(&SqlType::Name),
        },
        ("current_schemas", [implicit]) => {
            let implicit =
                matches!(implicit, Expr::Value(value) if value.value == Value::Boolean(true));
            let mut schemas: Vec<String> = if implicit {
                vec!["mz_catalog".to_owned(), "pg_catalog".to_owned()]
            } else {
                Vec::new()
            };
            schemas.extend(existing_schemas(ctx));
            let elements: Vec<String> = schemas
                .iter()
                .map(|schema| format!("\"{}\"", schema.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            constant(
                format!("{{{}}}", elements.join(",")),
                &SqlType::Array(Box::new(SqlType::Text)),
            )
        }
        ("current_user" | "session_user" | "user" | "current_role", []) => name(ctx.user),
        ("version", []) => text(SERVER_VERSION),
        ("mz_version", []) => text(MATERIALIZE_VERSION),
        ("mz_version_num", []) => integer(MATERIALIZE_VERSION_NUM, &SqlType::Int4),
        ("getdatabaseencoding", []) => name("UTF8"),
        ("pg_client_encoding", []) => name("UTF8"),
        ("mz_environment_id", []) => {
            text(format!("flowstone-local-{}-0", ctx.catalog.installation))
        }
        ("mz_is_superuser", []) => boolean(
            ctx.catalog
                .find_role(ctx.user)
                .is_some_and(|role| role.superuser),
        ),
        ("pg_backend_pid", []) => integer(
            ctx.variable("pg_backend_pid")
                .unwrap_or_else(|| "1".to_owned()),
            &SqlType::Int4,
        ),
        ("txid_current", []) => integer(names::transaction_id(ctx), &SqlType::Int8),
        ("age", [value]) => {
            let today = cast(
                cast(timestamp(ctx.now_ms), &SqlType::Timestamp),
                &SqlType::Date,
            );
            marker(
                "age",
                vec![
                    value.clone(),
                    integer(names::transaction_id(ctx), &SqlType::Int8),
                    cast(today, &SqlType::Timestamp),
                ],
            )
        }
        ("pg_is_in_recovery", []) => boolean(false),
        // There are no such locks: none is held.
        ("pg_advisory_unlock_all", []) => null(&SqlType::Text),
        ("pg_postmaster_start_time", []) => timestamp(
            ctx.variable("pg_postmaster_start_ms")
                .and_then(|text| text.parse().ok())
                .unwrap_or(ctx.now_ms),
        ),
        ("inet_server_addr" | "inet_client_addr", []) => null(&SqlType::Text),
        ("inet_server_port" | "inet_client_port", []) => null(&SqlType::Int4),
        ("set_config", [_, value, _]) => match literal_text(value) {
            Some(value) if ctx.assigns => text(value),
            _ => return Err(assignments::misplaced()),
        },
        ("current_setting", [setting, rest @ ..]) => {
            let Some(setting) = literal_text(setting) else {
                return Ok(Some(settings_by_name(ctx, setting)));
            };
            let missing_ok =
                matches!(rest, [Expr::Value(value)] if value.value == Value::Boolean(true));
            match ctx.variable(&setting.to_lowercase()) {
                Some(value) => text(value),
                None if missing_ok => null(&SqlType::Text),
                None => {
                    return Err(Error::new(
                        ErrorKind::UndefinedObject,
                        format!("unrecognized configuration parameter \"{setting}\""),
                    ));
                }
            }
        }
        _ => return Ok(None),
    };
    if function != "version" {
        refuse_if_maintained(ctx, function)?;
    }
    Ok(Some(value))
}

/// `current_setting` of a name that is not known before the rows are.
fn settings_by_name(ctx: &PlanContext<'_>, name: &Expr) -> Expr {
    let name = call("lower", vec![cast(name.clone(), &SqlType::Text)]);
    let cases = (ctx.settings)()
        .into_iter()
        .map(|(setting, value)| CaseWhen {
            condition: binary(
                name.clone(),
                BinaryOperator::Eq,
                text(setting.to_lowercase()),
            ),
            result: text(value),
        })
        .collect();
    searched_case(cases, &SqlType::Text)
}

/// The schemas of the search path that exist.
fn existing_schemas(ctx: &PlanContext<'_>) -> Vec<String> {
    let database = ctx
        .catalog
        .databases
        .values()
        .find(|database| database.name == ctx.database)
        .map(|database| database.id);
    let exists = |name: &&String| {
        ctx.catalog.schemas.values().any(|schema| {
            &&schema.name == name && (schema.database.is_none() || schema.database == database)
        })
    };
    ctx.search_path.iter().filter(exists).cloned().collect()
}

fn catalog(ctx: &PlanContext<'_>, function: &str, args: &[Expr]) -> Result<Option<Expr>, Error> {
    let items = || ctx.catalog.items.values();
    Ok(Some(match (function, args) {
        ("pg_get_userbyid", [role]) => {
            let roles = ctx.catalog.roles.values();
            let names = roles
                .map(|role| (role.oid, role.name.clone()))
                // The owner of what is built in, to tools that have PostgreSQL's number of it in them.
                .chain([(10, crate::catalog::DEFAULT_ROLE.to_owned())]);
            let names = by_oid(role, names);
            cast(names, &SqlType::Name)
        }
        ("pg_table_is_visible", [relation]) => {
            let hidden: Vec<Expr> = items()
                .filter(|item| !is_visible(ctx, item))
                .map(|item| oid(item.oid))
                // Tools hide `pg_catalog` by its name; our own system schemas they do not know.
                .chain(
                    crate::system::relations()
                        .filter(|relation| relation.schema.starts_with("mz_"))
                        .map(|relation| oid(relation.oid)),
                )
                .collect();
            if hidden.is_empty() {
                return Ok(Some(Expr::IsNotNull(Box::new(relation.clone()))));
            }
            let mut values = vec![relation.clone()];
            values.extend(hidden);
            marker("notin", values)
        }
        (
            "pg_type_is_visible"
            | "pg_function_is_visible"
            | "pg_operator_is_visible"
            | "pg_opclass_is_visible"
            | "pg_collation_is_visible"
            | "pg_conversion_is_visible"
            | "pg_ts_config_is_visible"
            | "pg_ts_dict_is_visible"
            | "pg_ts_parser_is_visible"
            | "pg_ts_template_is_visible"
            | "pg_opfamily_is_visible"
            | "pg_statistics_obj_is_visible",
            [_],
        ) => boolean(true),
        (privilege, _)
            if (privilege.starts_with("has_") && privilege.ends_with("_privilege"))
                || matches!(privilege, "has_role" | "pg_has_role") =>
        {
            boolean(true)
        }
        ("obj_description", [object, ..]) => by_oid(
            object,
            items().filter_map(|item| Some((item.oid, item.comment.clone()?))),
        ),
        ("shobj_description", [_, ..]) => null(&SqlType::Text),
        ("col_description", [relation, number]) => column_comments(ctx, relation, number),
        ("pg_get_viewdef", [view, ..]) => {
            let definitions = items().filter_map(|item| match &item.kind {
                ItemKind::View { query, .. } | ItemKind::MaterializedView { query, .. } => {
                    Some((item.oid, format!("{query};")))
                }
                _ => None,
            });
            match literal_text(view) {
                Some(text) => by_oid(&reg_constant(ctx, RegKind::Class, &text)?, definitions),
                None => by_oid(view, definitions),
            }
        }
        ("pg_get_indexdef", [index]) => by_oid(index, index_definitions(ctx)),
        ("pg_get_indexdef", [index, column, _]) => index_columns(ctx, index, column),
        ("pg_get_constraintdef", [constraint, ..]) => by_oid(
            constraint,
            keys(ctx.catalog).map(|key| (key.oid(), key.constraint_definition())),
        ),
        (
            "pg_get_ruledef"
            | "pg_get_triggerdef"
            | "pg_get_statisticsobjdef_columns"
            | "pg_get_partkeydef"
            | "pg_get_functiondef"
            | "pg_get_function_sqlbody"
            | "pg_get_function_arg_default"
            | "pg_get_partition_constraintdef",
            [_, ..],
        )
        | ("pg_get_serial_sequence", [_, _]) => null(&SqlType::Text),
        ("pg_indexam_has_property", [method, property]) => method_property(method, property),
        // All that is stored is in the data directory.
        ("pg_tablespace_location", [_]) => text(""),
        ("pg_get_expr", [expression, _, ..]) => cast(expression.clone(), &SqlType::Text),
        ("pg_relation_is_publishable", [_]) => boolean(false),
        ("pg_stat_get_numscans", [_]) => integer(0, &SqlType::Int8),
        (
            "pg_relation_size" | "pg_table_size" | "pg_total_relation_size" | "pg_indexes_size",
            [relation, ..],
        ) => relation_size(ctx, relation)?,
        ("pg_database_size" | "pg_tablespace_size", [_]) => {
            let total: u64 = items().map(|item| (ctx.bytes)(item.id).unwrap_or(0)).sum();
            integer(total, &SqlType::Int8)
        }
        ("pg_relation_filenode" | "pg_my_temp_schema", [..]) => oid(0),
        ("pg_is_other_temp_schema", [_]) => boolean(false),
        ("pg_cancel_backend" | "pg_terminate_backend", [_]) => {
            return Err(Error::unsupported(format!("{function} is not supported")));
        }
        ("to_regclass", [text]) => reg_or_null(ctx, RegKind::Class, text)?,
        ("to_regtype", [text]) => reg_or_null(ctx, RegKind::Type, text)?,
        ("to_regproc", [text]) => reg_or_null(ctx, RegKind::Proc, text)?,
        ("to_regnamespace", [text]) => reg_or_null(ctx, RegKind::Namespace, text)?,
        ("pg_typeof", [value]) => marker("typeof", vec![value.clone()]),
        _ => return Ok(None),
    }))
}

/// `to_reg…(text)`: NULL if nothing has the name.
fn reg_or_null(ctx: &PlanContext<'_>, kind: RegKind, text: &Expr) -> Result<Expr, Error> {
    if let Some(text) = literal_text(text) {
        return Ok(reg_constant(ctx, kind, &text).unwrap_or_else(|_| null(&SqlType::Reg(kind))));
    }
    let known = match kind {
        RegKind::Class => known_classes(ctx),
        RegKind::Type => known_types(),
        RegKind::Proc => known_functions(),
        RegKind::Namespace => known_schemas(ctx),
    };
    let found = lookup("lookup_oid_or_null", text, &known);
    Ok(cast(found, &SqlType::Reg(kind)))
}

/// The types by the names that their OIDs print as and those that they have in the catalog.
fn known_types() -> Vec<(String, u32)> {
    let mut known = Vec::new();
    for (sql_type, name, _) in crate::system::TYPES {
        let arrays = sql_type.array_oid();
        known.push(((*name).to_owned(), sql_type.oid()));
        known.push((sql_type.to_string(), sql_type.oid()));
        known.push((format!("_{name}"), arrays));
        known.push((format!("{name}[]"), arrays));
        known.push((format!("{sql_type}[]"), arrays));
    }
    known
}

fn known_functions() -> Vec<(String, u32)> {
    flowstone_functions::signatures()
        .iter()
        .map(|signature| (signature.name.clone(), signature.oid))
        .collect()
}

fn known_schemas(ctx: &PlanContext<'_>) -> Vec<(String, u32)> {
    ctx.catalog
        .schemas
        .values()
        .map(|schema| (crate::ast::quote_ident(&schema.name), schema.oid))
        .collect()
}

/// What indexes can do, by the names that PostgreSQL has for it.
const INDEX_PROPERTIES: [(&str, bool); 5] = [
    ("can_order", false),
    ("can_unique", true),
    ("can_multi_col", true),
    ("can_exclude", false),
    ("can_include", false),
];

fn method_property(method: &Expr, property: &Expr) -> Expr {
    let is_arrangement = binary(
        cast(method.clone(), &SqlType::Oid),
        BinaryOperator::Eq,
        oid(crate::system::ARRANGEMENT),
    );
    let cases = INDEX_PROPERTIES.map(|(name, can)| CaseWhen {
        condition: binary(
            is_arrangement.clone(),
            BinaryOperator::And,
            binary(
                call("lower", vec![cast(property.clone(), &SqlType::Text)]),
                BinaryOperator::Eq,
                text(name),
            ),
        ),
        result: boolean(can),
    });
    searched_case(cases.into(), &SqlType::Bool)
}

/// What the rows of a relation take in memory.
fn relation_size(ctx: &PlanContext<'_>, relation: &Expr) -> Result<Expr, Error> {
    let relation = match literal_text(relation) {
        Some(text) => reg_constant(ctx, RegKind::Class, &text)?,
        None => relation.clone(),
    };
    let relation = cast(relation, &SqlType::Oid);
    let items = ctx.catalog.items.values();
    let sizes = items.filter_map(|item| Some((item.oid, (ctx.bytes)(item.id)?.to_string())));
    let size = cast(by_oid(&relation, sizes), &SqlType::Int8);
    let none = CaseWhen {
        condition: Expr::IsNotNull(Box::new(relation)),
        result: integer(0, &SqlType::Int8),
    };
    let none = searched_case(vec![none], &SqlType::Int8);
    Ok(marker("unify:coalesce", vec![size, none]))
}

/// Whether an unqualified name finds the item.
fn is_visible(ctx: &PlanContext<'_>, item: &Item) -> bool {
    matches!(names::resolve(ctx, std::slice::from_ref(&item.name)), Ok(Relation::Item(found)) if found.id == item.id)
        || matches!(item.kind, ItemKind::Secret | ItemKind::Connection(_))
}

/// The text of the entry whose OID is `subject`.
fn by_oid(subject: &Expr, entries: impl Iterator<Item = (u32, String)>) -> Expr {
    let entries = entries.map(|(number, value)| (number.to_string(), value));
    by_key(oid_text(subject), entries.collect())
}

/// The digits of an OID.
fn oid_text(subject: &Expr) -> Expr {
    cast(cast(subject.clone(), &SqlType::Oid), &SqlType::Text)
}

/// The text of the entry whose OID and number are these.
fn by_oid_and_number(subject: &Expr, number: &Expr, entries: Vec<(u32, usize, String)>) -> Expr {
    let concatenated = |left, right| binary(left, BinaryOperator::StringConcat, right);
    let number = cast(cast(number.clone(), &SqlType::Int4), &SqlType::Text);
    let key = concatenated(concatenated(oid_text(subject), text(".")), number);
    let entries = entries.into_iter();
    let entries = entries.map(|(oid, number, value)| (format!("{oid}.{number}"), value));
    by_key(key, entries.collect())
}

/// The text of the entry whose key is `key`.
fn by_key(key: Expr, entries: Vec<(String, String)>) -> Expr {
    if entries.is_empty() {
        return null(&SqlType::Text);
    }
    let entries = flowstone_functions::lookup::entries(entries);
    call(LOOKUP_TEXT, vec![key, text(entries)])
}

fn searched_case(conditions: Vec<CaseWhen>, sql_type: &SqlType) -> Expr {
    if conditions.is_empty() {
        return null(sql_type);
    }
    marker(
        "case",
        conditions
            .into_iter()
            .flat_map(|CaseWhen { condition, result }| [condition, result])
            .collect(),
    )
}

fn column_comments(ctx: &PlanContext<'_>, relation: &Expr, number: &Expr) -> Expr {
    let mut comments = Vec::new();
    for item in ctx.catalog.items.values() {
        for (column, comment) in &item.column_comments {
            comments.push((item.oid, column + 1, comment.clone()));
        }
    }
    by_oid_and_number(relation, number, comments)
}

fn index_definitions<'a>(ctx: &PlanContext<'a>) -> impl Iterator<Item = (u32, String)> + use<'a> {
    let catalog = ctx.catalog;
    let of_keys = keys(catalog).map(|key| (key.oid(), key.index_definition()));
    of_keys.chain(catalog.items.values().filter_map(move |item| {
        let ItemKind::Index { on, key } = &item.kind else {
            return None;
        };
        let on = catalog.items.get(on)?;
        let qualified = names::qualified_name(catalog, Relation::Item(on));
        let relation = qualified
            .iter()
            .skip(qualified.len().saturating_sub(2))
            .map(|part| crate::ast::quote_ident(part))
            .collect::<Vec<_>>()
            .join(".");
        let key: Vec<&str> = key.iter().map(|key| key.expression.as_str()).collect();
        Some((
            item.oid,
            format!(
                "CREATE INDEX {} ON {relation} USING arrangement ({})",
                crate::ast::quote_ident(&item.name),
                key.join(", ")
            ),
        ))
    }))
}

/// `pg_get_indexdef(index, column, pretty)`: column 0 is the whole definition.
fn index_columns(ctx: &PlanContext<'_>, index: &Expr, column: &Expr) -> Expr {
    let definitions = index_definitions(ctx);
    let mut found: Vec<_> = definitions
        .map(|(number, definition)| (number, 0, definition))
        .collect();
    for item in ctx.catalog.items.values() {
        if let ItemKind::Index { key, .. } = &item.kind {
            for (position, key) in key.iter().enumerate() {
                found.push((item.oid, position + 1, key.expression.clone()));
            }
        }
    }
    for key in keys(ctx.catalog) {
        for (position, column) in key.columns().enumerate() {
            let name = crate::ast::quote_ident(&column.name);
            found.push((key.oid(), position + 1, name));
        }
    }
    by_oid_and_number(index, column, found)
}

/// The parts of a name as text has it: `public.t`, `"My Table"`.
fn parse_name(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut quoted = false;
    for letter in text.trim().chars() {
        match letter {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            _ if quoted => part.push(letter),
            _ => part.extend(letter.to_lowercase()),
        }
    }
    parts.push(part);
    parts
}

/// The OID of the relation that `text` names.
fn class_oid(ctx: &PlanContext<'_>, text: &str) -> Result<u32, Error> {
    let parts = parse_name(text);
    match names::resolve(ctx, &parts) {
        Ok(Relation::Item(item)) => Ok(item.oid),
        Ok(Relation::System(relation)) => Ok(relation.oid),
        // The index of a key is no relation that can be read.
        Err(error) => keys(ctx.catalog)
            .find(|key| {
                let visible = match parts.as_slice() {
                    [_] => ctx.search_path.contains(&key.schema.name),
                    [.., schema, _] => *schema == key.schema.name,
                    [] => false,
                };
                visible && parts.last().is_some_and(|name| *name == key.name())
            })
            .map(|key| key.oid())
            .ok_or(error),
    }
}

/// The constant `'text'::regclass` and its kin.
///
/// # Errors
/// If nothing has that name.
pub(super) fn reg_constant(
    ctx: &PlanContext<'_>,
    kind: RegKind,
    text: &str,
) -> Result<Expr, Error> {
    let sql_type = SqlType::Reg(kind);
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(integer(text, &sql_type));
    }
    let found = match kind {
        RegKind::Class => class_oid(ctx, text)?,
        RegKind::Namespace => {
            let parts = parse_name(text);
            let schema = parts.last().and_then(|name| {
                ctx.catalog
                    .schemas
                    .values()
                    .find(|schema| &schema.name == name)
            });
            schema.map(|schema| schema.oid).ok_or_else(|| {
                Error::new(
                    ErrorKind::UnknownSchema,
                    format!("schema \"{text}\" does not exist"),
                )
            })?
        }
        RegKind::Type => {
            let bare = text.strip_prefix("pg_catalog.").unwrap_or(text);
            let parsed = sqlparser::parser::Parser::new(&sqlparser::dialect::PostgreSqlDialect {})
                .try_with_sql(bare)
                .and_then(|mut parser| parser.parse_data_type())
                .ok()
                .and_then(|data_type| crate::parse::parse_type(&data_type).ok());
            parsed.map(|sql_type| sql_type.oid()).ok_or_else(|| {
                Error::new(
                    ErrorKind::UndefinedObject,
                    format!("type \"{text}\" does not exist"),
                )
            })?
        }
        RegKind::Proc => {
            let parts = parse_name(text.split_once('(').map_or(text, |(name, _)| name));
            let function = parts.last().cloned().unwrap_or_default();
            flowstone_functions::signatures()
                .iter()
                .find(|signature| signature.name == function)
                .map(|signature| signature.oid)
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::UndefinedFunction,
                        format!("function \"{text}\" does not exist"),
                    )
                })?
        }
    };
    Ok(integer(found, &sql_type))
}

/// The OID of the relation that a text names which is not known before the rows are.
pub(super) fn class_lookup(ctx: &PlanContext<'_>, name: &Expr) -> Expr {
    lookup("lookup_oid", name, &known_classes(ctx))
}

/// The OID of what is called `name`, found by `function` among those `known`.
fn lookup(function: &str, name: &Expr, known: &[(String, u32)]) -> Expr {
    let names = known
        .iter()
        .map(|(name, _)| Value::SingleQuotedString(name.clone()));
    let oids = known
        .iter()
        .map(|(_, number)| Value::Number(number.to_string(), true));
    let list = |items: Vec<Value>, element: SqlType| {
        let array = Expr::Array(sqlparser::ast::Array {
            elem: items.into_iter().map(Expr::value).collect(),
            named: true,
        });
        cast(array, &SqlType::Array(Box::new(element)))
    };
    call(
        function,
        vec![
            cast(name.clone(), &SqlType::Text),
            list(names.collect(), SqlType::Text),
            list(oids.collect(), SqlType::Oid),
        ],
    )
}

/// Every relation by its name with its schema's, and by its name alone if that finds it.
fn known_classes(ctx: &PlanContext<'_>) -> Vec<(String, u32)> {
    let catalog = ctx.catalog;
    let mut known: Vec<(String, u32)> = Vec::new();
    let mut add = |schema: &str, relation: &str, number: u32, visible: bool| {
        let relation = crate::ast::quote_ident(relation);
        known.push((
            format!("{}.{relation}", crate::ast::quote_ident(schema)),
            number,
        ));
        if visible {
            known.push((relation, number));
        }
    };
    for item in catalog.items.values().filter(|item| {
        !matches!(
            item.kind,
            ItemKind::Secret | ItemKind::Connection(_) | ItemKind::Source(_) | ItemKind::Sink(_)
        )
    }) {
        if let Some(schema) = catalog.schemas.get(&item.schema) {
            add(&schema.name, &item.name, item.oid, is_visible(ctx, item));
        }
    }
    for key in keys(catalog) {
        add(
            &key.schema.name,
            &key.name(),
            key.oid(),
            is_visible(ctx, key.table),
        );
    }
    for relation in crate::system::relations() {
        let visible = matches!(relation.schema, "pg_catalog" | "mz_catalog");
        add(relation.schema, relation.name, relation.oid, visible);
    }
    known
}

/// What `reg`, an OID, prints as in a `reg…` type.
pub(super) fn reg_name(ctx: &PlanContext<'_>, kind: RegKind, reg: Expr) -> Expr {
    match kind {
        RegKind::Class => class_name(ctx, reg),
        RegKind::Type => call("format_type", vec![reg, null(&SqlType::Int4)]),
        RegKind::Proc => call("regproc_name", vec![reg]),
        RegKind::Namespace => {
            let schemas = ctx.catalog.schemas.values();
            let known = by_oid(
                &reg,
                schemas.map(|schema| (schema.oid, crate::ast::quote_ident(&schema.name))),
            );
            let number = cast(cast(reg, &SqlType::Oid), &SqlType::Text);
            marker("unify:coalesce", vec![known, number])
        }
    }
}

/// The name of the relation with the OID `relation`, as `oid::regclass::text` has it: qualified unless visible.
fn class_name(ctx: &PlanContext<'_>, relation: Expr) -> Expr {
    let entries = ctx.catalog.items.values().map(|item| {
        let shown = if is_visible(ctx, item) {
            crate::ast::quote_ident(&item.name)
        } else {
            let qualified = names::qualified_name(ctx.catalog, Relation::Item(item));
            qualified
                .into_iter()
                .rev()
                .take(2)
                .map(|part| crate::ast::quote_ident(&part))
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect::<Vec<_>>()
                .join(".")
        };
        (item.oid, shown)
    });
    let system =
        crate::system::relations().map(|relation| (relation.oid, relation.name.to_owned()));
    let indexes = keys(ctx.catalog).map(|key| {
        let name = crate::ast::quote_ident(&key.name());
        let shown = if is_visible(ctx, key.table) {
            name
        } else {
            format!("{}.{name}", crate::ast::quote_ident(&key.schema.name))
        };
        (key.oid(), shown)
    });
    let known = by_oid(&relation, entries.chain(system).chain(indexes));
    let number = cast(cast(relation, &SqlType::Oid), &SqlType::Text);
    marker("unify:coalesce", vec![known, number])
}
