//! Functions whose value is known when the statement is planned: of the session, of the clock, and of the catalog.
//!
//! Owns what they stand for. Those that look into the catalog per row become a look-up among the catalog's entries, which are
//! a constant, so that a plan carries everything it needs and is no deeper the more there are. Must not know plans. Called by [`super::expr`] for each call.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Case, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use flowstone_functions::lookup::LOOKUP_TEXT;
use flowstone_types::SqlType;
use flowstone_types::sql_type::RegKind;
use sqlparser::tokenizer::Span;

use super::Binder;
use super::catalog_names::{
    class_names, column_comments, index_columns, index_definitions, is_visible, known_classes,
    known_functions, known_schemas, known_types, reg_constant,
};
use super::value::{self, Value, boolean, call, literal, null, text};
use crate::assignments;
use crate::catalog::ItemKind;
use crate::context::{MATERIALIZE_VERSION, PlanContext};
use crate::error::{Error, ErrorKind};
use crate::system::keys::keys;

/// The version of Materialize as a number.
const MATERIALIZE_VERSION_NUM: i32 = 16_400;

/// What `version()` answers: tools parse it.
const SERVER_VERSION: &str = "PostgreSQL 15.0 (Flowstone)";

fn name(value: impl Into<String>) -> Value {
    literal(ScalarValue::Utf8(Some(value.into())), &SqlType::Name)
}

/// The oid constant `oid`.
fn oid(oid: u32) -> Value {
    literal(ScalarValue::UInt32(Some(oid)), &SqlType::Oid)
}

/// The id of a transaction that begins now. Transactions have no ids here; what is numbered is the changes of the catalog, from the first id that
/// PostgreSQL gives: tools that ask what has changed since some id hear of everything as soon as anything has.
pub(super) fn transaction_id(ctx: &PlanContext<'_>) -> u32 {
    u32::try_from(ctx.catalog.version)
        .unwrap_or(u32::MAX)
        .saturating_add(3)
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

/// Milliseconds since the Unix epoch as a timestamp with time zone.
fn timestamp(now_ms: u64) -> Value {
    let micros = i64::try_from(now_ms)
        .ok()
        .and_then(|ms| ms.checked_mul(1000))
        .unwrap_or_default();
    literal(
        ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())),
        &SqlType::TimestampTz,
    )
}

fn is_true(value: &Value) -> bool {
    matches!(
        value.expr,
        Expr::Literal(ScalarValue::Boolean(Some(true)), _)
    )
}

/// Entries by which texts are looked up.
type Entries = Vec<(String, String)>;

impl Binder<'_> {
    /// What the call `function(args)` stands for; `None` if it is an ordinary function.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidObjectDefinition`] for a function of the clock or the session in a maintained view; a wrong name in a `reg…` cast.
    pub(super) fn catalog_function(
        &mut self,
        function: &str,
        args: &[Value],
    ) -> Result<Option<Value>, Error> {
        if let Some(value) = self.clock(function, args)? {
            return Ok(Some(value));
        }
        if let Some(value) = self.session(function, args)? {
            return Ok(Some(value));
        }
        self.of_catalog(function, args)
    }

    fn clock(&mut self, function: &str, args: &[Value]) -> Result<Option<Value>, Error> {
        if !args.is_empty()
            && !matches!(
                function,
                "current_timestamp" | "current_time" | "localtimestamp" | "localtime"
            )
        {
            return Ok(None);
        }
        let ctx = self.ctx;
        let now = || timestamp(ctx.now_ms);
        let value = match function {
            "now"
            | "current_timestamp"
            | "transaction_timestamp"
            | "statement_timestamp"
            | "clock_timestamp" => now(),
            "localtimestamp" => self.explicit_cast(now(), &SqlType::Timestamp)?,
            "current_date" => {
                let local = self.explicit_cast(now(), &SqlType::Timestamp)?;
                self.explicit_cast(local, &SqlType::Date)?
            }
            "current_time" | "localtime" => {
                let local = self.explicit_cast(now(), &SqlType::Timestamp)?;
                self.explicit_cast(local, &SqlType::Time)?
            }
            "mz_now" => {
                refuse_if_maintained(&ctx, function)?;
                let epoch = ctx.transaction_epoch.map_or(ctx.now_ms, |epoch| epoch.0);
                let epoch = ScalarValue::UInt64(Some(epoch));
                return Ok(Some(literal(epoch, &SqlType::MzTimestamp)));
            }
            "random" | "gen_random_uuid" => {
                refuse_if_maintained(&ctx, function)?;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        refuse_if_maintained(&ctx, function)?;
        Ok(Some(value))
    }

    fn session(&mut self, function: &str, args: &[Value]) -> Result<Option<Value>, Error> {
        let ctx = self.ctx;
        let int4 = |value: &str| value.parse().unwrap_or(1_i32);
        let value = match (function, args) {
            ("current_database" | "current_catalog", []) => name(ctx.database),
            ("current_schema", []) => match existing_schemas(&ctx).first() {
                Some(schema) => name(schema),
                None => null(&SqlType::Name),
            },
            ("current_schemas", [implicit]) => {
                let mut schemas: Vec<String> = if is_true(implicit) {
                    vec!["mz_catalog".to_owned(), "pg_catalog".to_owned()]
                } else {
                    Vec::new()
                };
                schemas.extend(existing_schemas(&ctx));
                let elements: Vec<String> = schemas
                    .iter()
                    .map(|schema| {
                        format!("\"{}\"", schema.replace('\\', "\\\\").replace('"', "\\\""))
                    })
                    .collect();
                let texts = SqlType::Array(Box::new(SqlType::Text));
                self.text_as(format!("{{{}}}", elements.join(",")), &texts)?
            }
            ("current_user" | "session_user" | "user" | "current_role", []) => name(ctx.user),
            ("version", []) => text(SERVER_VERSION),
            ("mz_version", []) => text(MATERIALIZE_VERSION),
            ("mz_version_num", []) => value::int4(MATERIALIZE_VERSION_NUM),
            ("getdatabaseencoding" | "pg_client_encoding", []) => name("UTF8"),
            ("mz_environment_id", []) => {
                text(format!("flowstone-local-{}-0", ctx.catalog.installation))
            }
            ("mz_is_superuser", []) => boolean(
                ctx.catalog
                    .find_role(ctx.user)
                    .is_some_and(|role| role.superuser),
            ),
            ("pg_backend_pid", []) => {
                let pid = (ctx.variables)("pg_backend_pid");
                value::int4(pid.as_deref().map_or(1, int4))
            }
            ("txid_current", []) => value::int8(i64::from(transaction_id(&ctx))),
            ("age", [value]) => self.age(value.clone())?,
            ("pg_is_in_recovery", []) => boolean(false),
            // There are no such locks: none is held.
            ("pg_advisory_unlock_all", []) => null(&SqlType::Text),
            ("pg_postmaster_start_time", []) => timestamp(
                (ctx.variables)("pg_postmaster_start_ms")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(ctx.now_ms),
            ),
            ("inet_server_addr" | "inet_client_addr", []) => null(&SqlType::Text),
            ("inet_server_port" | "inet_client_port", []) => null(&SqlType::Int4),
            ("set_config", [_, value, _]) => match value.literal_text() {
                Some(value) if ctx.assigns => text(value),
                _ => return Err(assignments::misplaced()),
            },
            ("current_setting", [setting, rest @ ..]) => {
                let Some(setting) = setting.literal_text() else {
                    refuse_if_maintained(&ctx, function)?;
                    return self.settings_by_name(setting.clone()).map(Some);
                };
                match (ctx.variables)(&setting.to_lowercase()) {
                    Some(value) => text(value),
                    None if rest.first().is_some_and(is_true) => null(&SqlType::Text),
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
            refuse_if_maintained(&ctx, function)?;
        }
        Ok(Some(value))
    }

    /// `age(x)`: of a transaction, or up to the midnight before now.
    fn age(&mut self, value: Value) -> Result<Value, Error> {
        let is_number = value.sql_type().is_some_and(|of| {
            of.is_integer() || matches!(of, SqlType::Oid | SqlType::Reg(_) | SqlType::Numeric(_))
        });
        if is_number {
            let now = value::int8(i64::from(transaction_id(&self.ctx)));
            return self.function("age_of_transaction", vec![value, now], Span::empty());
        }
        let now = timestamp(self.ctx.now_ms);
        let local = self.explicit_cast(now, &SqlType::Timestamp)?;
        let today = self.explicit_cast(local, &SqlType::Date)?;
        let midnight = self.explicit_cast(today, &SqlType::Timestamp)?;
        let value = if value.is_unknown() {
            self.coerce(value, &SqlType::TimestampTz)?
        } else {
            value
        };
        self.function("age", vec![midnight, value], Span::empty())
    }

    /// `current_setting` of a name that is not known before the rows are.
    fn settings_by_name(&mut self, name: Value) -> Result<Value, Error> {
        let name = self.explicit_cast(name, &SqlType::Text)?;
        let name = self.function("lower", vec![name], Span::empty())?;
        let entries = (self.ctx.settings)()
            .into_iter()
            .map(|(setting, value)| (setting.to_lowercase(), value))
            .collect();
        by_key(name, entries)
    }

    fn of_catalog(&mut self, function: &str, args: &[Value]) -> Result<Option<Value>, Error> {
        let ctx = self.ctx;
        let items = || ctx.catalog.items.values();
        Ok(Some(match (function, args) {
            ("pg_get_userbyid", [role]) => {
                let names = ctx
                    .catalog
                    .roles
                    .values()
                    .map(|role| (role.oid, role.name.clone()))
                    // The owner of what is built in, to tools that have PostgreSQL's number of it in them.
                    .chain([(10, crate::catalog::DEFAULT_ROLE.to_owned())]);
                let names = self.by_oid(role, names)?;
                self.explicit_cast(names, &SqlType::Name)?
            }
            ("pg_table_is_visible", [relation]) => self.is_visible_table(relation)?,
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
            ("obj_description", [object, ..]) => {
                let comments = items().filter_map(|item| Some((item.oid, item.comment.clone()?)));
                self.by_oid(object, comments)?
            }
            ("shobj_description", [_, ..]) => null(&SqlType::Text),
            ("col_description", [relation, number]) => {
                self.by_oid_and_number(relation, number, column_comments(&ctx))?
            }
            ("pg_get_viewdef", [view, ..]) => {
                let view = match view.literal_text() {
                    Some(text) => reg_constant(&ctx, RegKind::Class, text)?,
                    None => view.clone(),
                };
                let definitions = items().filter_map(|item| match &item.kind {
                    ItemKind::View { query, .. } | ItemKind::MaterializedView { query, .. } => {
                        Some((item.oid, format!("{query};")))
                    }
                    _ => None,
                });
                self.by_oid(&view, definitions)?
            }
            ("pg_get_indexdef", [index]) => self.by_oid(index, index_definitions(&ctx))?,
            ("pg_get_indexdef", [index, column, _]) => {
                self.by_oid_and_number(index, column, index_columns(&ctx))?
            }
            ("pg_get_constraintdef", [constraint, ..]) => {
                let keys = keys(ctx.catalog);
                let definitions = keys.map(|key| (key.oid(), key.constraint_definition()));
                self.by_oid(constraint, definitions)?
            }
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
            ("pg_indexam_has_property", [method, property]) => {
                self.method_property(method, property)?
            }
            // All that is stored is in the data directory.
            ("pg_tablespace_location", [_]) => text(""),
            ("pg_get_expr", [expression, _, ..]) => {
                self.explicit_cast(expression.clone(), &SqlType::Text)?
            }
            ("pg_relation_is_publishable", [_]) => boolean(false),
            ("pg_stat_get_numscans", [_]) => value::int8(0),
            (
                "pg_relation_size" | "pg_table_size" | "pg_total_relation_size" | "pg_indexes_size",
                [relation, ..],
            ) => self.relation_size(relation)?,
            ("pg_database_size" | "pg_tablespace_size", [_]) => {
                let total: u64 = items().map(|item| (ctx.bytes)(item.id).unwrap_or(0)).sum();
                value::int8(i64::try_from(total).unwrap_or(i64::MAX))
            }
            ("pg_relation_filenode" | "pg_my_temp_schema", [..]) => oid(0),
            ("pg_is_other_temp_schema", [_]) => boolean(false),
            ("pg_cancel_backend" | "pg_terminate_backend", [_]) => {
                return Err(Error::unsupported(format!("{function} is not supported")));
            }
            ("to_regclass", [text]) => self.reg_or_null(RegKind::Class, text)?,
            ("to_regtype", [text]) => self.reg_or_null(RegKind::Type, text)?,
            ("to_regproc", [text]) => self.reg_or_null(RegKind::Proc, text)?,
            ("to_regnamespace", [text]) => self.reg_or_null(RegKind::Namespace, text)?,
            ("pg_typeof", [value]) => text(value.of.name()),
            _ => return Ok(None),
        }))
    }

    fn is_visible_table(&mut self, relation: &Value) -> Result<Value, Error> {
        let ctx = self.ctx;
        let items = ctx.catalog.items.values();
        let hidden: Vec<Expr> = items
            .filter(|item| !is_visible(&ctx, item))
            .map(|item| oid(item.oid).expr)
            // Tools hide `pg_catalog` by its name; our own system schemas they do not know.
            .chain(
                crate::system::relations()
                    .filter(|relation| relation.schema.starts_with("mz_"))
                    .map(|relation| oid(relation.oid).expr),
            )
            .collect();
        let relation = self.explicit_cast(relation.clone(), &SqlType::Oid)?;
        let test = if hidden.is_empty() {
            Expr::IsNotNull(Box::new(relation.expr))
        } else {
            Expr::InList(InList::new(Box::new(relation.expr), hidden, true))
        };
        Ok(Value::new(test, SqlType::Bool))
    }

    /// `to_reg…(text)`: NULL if nothing has the name.
    fn reg_or_null(&mut self, kind: RegKind, text: &Value) -> Result<Value, Error> {
        let of = SqlType::Reg(kind);
        let ctx = self.ctx;
        if let Some(text) = text.literal_text() {
            return Ok(reg_constant(&ctx, kind, text).unwrap_or_else(|_| null(&of)));
        }
        let known = match kind {
            RegKind::Class => known_classes(&ctx),
            RegKind::Type => known_types(),
            RegKind::Proc => known_functions(),
            RegKind::Namespace => known_schemas(&ctx),
        };
        let found = self.lookup("lookup_oid_or_null", text.clone(), &known)?;
        self.explicit_cast(found, &of)
    }

    /// The OID of the relation that a text names which is not known before the rows are.
    pub(super) fn class_lookup(&mut self, name: Value) -> Result<Value, Error> {
        let known = known_classes(&self.ctx);
        self.lookup("lookup_oid", name, &known)
    }

    /// The OID of what is called `name`, found by `function` among those `known`.
    fn lookup(
        &mut self,
        function: &str,
        name: Value,
        known: &[(String, u32)],
    ) -> Result<Value, Error> {
        let name = self.explicit_cast(name, &SqlType::Text)?;
        let names = known.iter().map(|(name, _)| text(name)).collect();
        let oids = known.iter().map(|(_, number)| oid(*number)).collect();
        let names = self.array_of(names)?;
        let oids = self.array_of(oids)?;
        let found = call(function, vec![name.expr, names.expr, oids.expr])?;
        Ok(Value::new(found, SqlType::Oid))
    }

    /// What `reg`, an OID, prints as in a `reg…` type.
    pub(super) fn reg_name(&mut self, kind: RegKind, reg: Value) -> Result<Value, Error> {
        let ctx = self.ctx;
        let known = match kind {
            RegKind::Class => self.by_oid(&reg, class_names(&ctx).into_iter())?,
            RegKind::Type => {
                let reg = self.explicit_cast(reg, &SqlType::Oid)?;
                let args = vec![reg, null(&SqlType::Int4)];
                return self.function("format_type", args, Span::empty());
            }
            RegKind::Proc => {
                let reg = self.explicit_cast(reg, &SqlType::Oid)?;
                return self.function("regproc_name", vec![reg], Span::empty());
            }
            RegKind::Namespace => {
                let schemas = ctx.catalog.schemas.values();
                let names =
                    schemas.map(|schema| (schema.oid, crate::ast::quote_ident(&schema.name)));
                self.by_oid(&reg, names)?
            }
        };
        let number = self.oid_text(&reg)?;
        self.function("coalesce", vec![known, number], Span::empty())
    }

    /// The digits of an OID.
    fn oid_text(&mut self, subject: &Value) -> Result<Value, Error> {
        let number = self.explicit_cast(subject.clone(), &SqlType::Oid)?;
        self.explicit_cast(number, &SqlType::Text)
    }

    /// The text of the entry whose OID is `subject`.
    fn by_oid(
        &mut self,
        subject: &Value,
        entries: impl Iterator<Item = (u32, String)>,
    ) -> Result<Value, Error> {
        let entries = entries.map(|(number, value)| (number.to_string(), value));
        let entries = entries.collect();
        by_key(self.oid_text(subject)?, entries)
    }

    /// The text of the entry whose OID and number are these.
    fn by_oid_and_number(
        &mut self,
        subject: &Value,
        number: &Value,
        entries: Vec<(u32, usize, String)>,
    ) -> Result<Value, Error> {
        let number = self.explicit_cast(number.clone(), &SqlType::Int4)?;
        let number = self.explicit_cast(number, &SqlType::Text)?;
        let of = self.oid_text(subject)?;
        let dotted = self.operator("||", of, text("."))?;
        let key = self.operator("||", dotted, number)?;
        let entries = entries.into_iter();
        let entries = entries.map(|(oid, number, value)| (format!("{oid}.{number}"), value));
        by_key(key, entries.collect())
    }

    fn method_property(&mut self, method: &Value, property: &Value) -> Result<Value, Error> {
        let method = self.explicit_cast(method.clone(), &SqlType::Oid)?;
        let property = self.explicit_cast(property.clone(), &SqlType::Text)?;
        let property = self.function("lower", vec![property], Span::empty())?;
        let arrangement = oid(crate::system::ARRANGEMENT);
        let is_arrangement = self.operator("=", method, arrangement)?;
        let mut arms = Vec::with_capacity(INDEX_PROPERTIES.len());
        for (name, can) in INDEX_PROPERTIES {
            let is_property = self.operator("=", property.clone(), text(name))?;
            let both = Expr::BinaryExpr(BinaryExpr::new(
                Box::new(is_arrangement.expr.clone()),
                Operator::And,
                Box::new(is_property.expr),
            ));
            arms.push((Box::new(both), Box::new(boolean(can).expr)));
        }
        let subject = Some(Box::new(boolean(true).expr));
        let case = Case::new(subject, arms, None);
        Ok(Value::new(Expr::Case(case), SqlType::Bool))
    }

    /// What the rows of a relation take in memory.
    fn relation_size(&mut self, relation: &Value) -> Result<Value, Error> {
        let ctx = self.ctx;
        let relation = match relation.literal_text() {
            Some(text) => reg_constant(&ctx, RegKind::Class, text)?,
            None => relation.clone(),
        };
        let relation = self.explicit_cast(relation, &SqlType::Oid)?;
        let items = ctx.catalog.items.values();
        let sizes = items.filter_map(|item| Some((item.oid, (ctx.bytes)(item.id)?.to_string())));
        let size = self.by_oid(&relation, sizes)?;
        let size = self.explicit_cast(size, &SqlType::Int8)?;
        let known = Box::new(Expr::IsNotNull(Box::new(relation.expr)));
        let nothing = Case::new(None, vec![(known, Box::new(value::int8(0).expr))], None);
        let nothing = Value::new(Expr::Case(nothing), SqlType::Int8);
        self.function("coalesce", vec![size, nothing], Span::empty())
    }
}

/// The text of the entry whose key is `key`.
fn by_key(key: Value, entries: Entries) -> Result<Value, Error> {
    if entries.is_empty() {
        return Ok(null(&SqlType::Text));
    }
    let entries = flowstone_functions::lookup::entries(entries);
    let found = call(LOOKUP_TEXT, vec![key.expr, text(entries).expr])?;
    Ok(Value::new(found, SqlType::Text))
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

/// What indexes can do, by the names that PostgreSQL has for it.
const INDEX_PROPERTIES: [(&str, bool); 5] = [
    ("can_order", false),
    ("can_unique", true),
    ("can_multi_col", true),
    ("can_exclude", false),
    ("can_include", false),
];
