//! Names of relations: from what the user wrote to what the catalog has.
//!
//! Owns the resolution of a name, and how resolved names are written back into a tree, fully qualified, for the stored text of a view.
//! Must not know expressions or plans. Called by planning and by the binder.

use std::ops::ControlFlow;

use flowstone_types::ObjectId;
use sqlparser::ast::{
    Ident, ObjectName, ObjectNamePart, Query, Select, SelectFlavor, SelectItem, SetExpr,
    TableAlias, TableFactor, TableWithJoins, VisitMut, VisitorMut, WildcardAdditionalOptions, With,
};

use crate::catalog::names::search_order;
use crate::catalog::{Catalog, Item, Schema};
use crate::context::PlanContext;
use crate::error::{Error, ErrorKind};
use crate::system;

/// What no identifier of a user starts with.
pub(crate) const INTERNAL: char = '\u{1}';

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Relation<'a> {
    /// An item of the catalog.
    Item(&'a Item),
    /// A relation of the system catalog.
    System(&'static system::Relation),
}

impl Relation<'_> {
    /// Its identity.
    pub(crate) const fn id(&self) -> ObjectId {
        match self {
            Self::Item(item) => item.id,
            Self::System(relation) => relation.id,
        }
    }
}

/// PostgreSQL's folding: unquoted identifiers to lower case.
pub(crate) fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// The parts of a name, folded.
pub(crate) fn fold_name(name: &ObjectName) -> Vec<String> {
    name.0
        .iter()
        .filter_map(ObjectNamePart::as_ident)
        .map(fold)
        .collect()
}

/// An identifier that reads back as exactly `value`.
pub(crate) fn quoted(value: &str) -> Ident {
    Ident::with_quote('"', value)
}

/// An identifier that reads back as `value`, quoted only where it must be.
fn plain_or_quoted(value: &str) -> Ident {
    let mut letters = value.chars();
    let simple = letters
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == '_')
        && letters
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_')
        && !is_reserved(value);
    if simple {
        Ident::new(value)
    } else {
        quoted(value)
    }
}

fn is_reserved(value: &str) -> bool {
    use sqlparser::keywords::{
        ALL_KEYWORDS, ALL_KEYWORDS_INDEX, RESERVED_FOR_COLUMN_ALIAS, RESERVED_FOR_IDENTIFIER,
        RESERVED_FOR_TABLE_ALIAS, RESERVED_FOR_TABLE_FACTOR,
    };
    let upper = value.to_uppercase();
    let keyword = ALL_KEYWORDS
        .iter()
        .position(|keyword| *keyword == upper)
        .and_then(|index| ALL_KEYWORDS_INDEX.get(index));
    keyword.is_some_and(|keyword| {
        [
            RESERVED_FOR_COLUMN_ALIAS,
            RESERVED_FOR_IDENTIFIER,
            RESERVED_FOR_TABLE_ALIAS,
            RESERVED_FOR_TABLE_FACTOR,
        ]
        .iter()
        .any(|list| list.contains(keyword))
    })
}

/// The position of a name in the statement's text.
pub(crate) fn position(ctx: &PlanContext<'_>, span: sqlparser::tokenizer::Span) -> Option<usize> {
    crate::positions::position_of(ctx.text, span.start.line, span.start.column)
}

fn schemas_of<'a>(
    ctx: &PlanContext<'a>,
    name: &'a str,
    database: &'a str,
) -> impl Iterator<Item = &'a Schema> {
    let catalog: &'a Catalog = ctx.catalog;
    let database = catalog
        .databases
        .values()
        .find(|candidate| candidate.name == database)
        .map(|found| found.id);
    catalog.schemas.values().filter(move |schema| {
        schema.name == name && (schema.database.is_none() || schema.database == database)
    })
}

fn in_schema<'a>(ctx: &PlanContext<'a>, schema: &Schema, name: &str) -> Option<Relation<'a>> {
    if schema.database.is_none()
        && let Some(relation) = system::relation(&schema.name, name)
    {
        return Some(Relation::System(relation));
    }
    let catalog: &'a Catalog = ctx.catalog;
    catalog
        .items
        .named(schema.id, name)
        .find(|item| item.is_relation())
        .map(Relation::Item)
}

/// What the name `parts` (`relation`, `schema.relation` or `database.schema.relation`, folded) stands for.
///
/// # Errors
/// [`ErrorKind::UndefinedTable`], [`ErrorKind::UnknownSchema`], [`ErrorKind::UnknownDatabase`].
pub(crate) fn resolve<'a>(ctx: &PlanContext<'a>, parts: &[String]) -> Result<Relation<'a>, Error> {
    let missing = || {
        Error::new(
            ErrorKind::UndefinedTable,
            format!("relation \"{}\" does not exist", parts.join(".")),
        )
    };
    match parts {
        [name] => {
            for schema_name in search_order(ctx.search_path) {
                if let Some(found) = schemas_of(ctx, schema_name, ctx.database)
                    .find_map(|schema| in_schema(ctx, schema, name))
                {
                    return Ok(found);
                }
            }
            Err(missing())
        }
        [schema_name, name] => schemas_of(ctx, schema_name, ctx.database)
            .find_map(|schema| in_schema(ctx, schema, name))
            .ok_or_else(missing),
        [database, schema_name, name] => {
            if !ctx
                .catalog
                .databases
                .values()
                .any(|candidate| &candidate.name == database)
            {
                return Err(Error::new(
                    ErrorKind::UnknownDatabase,
                    format!("database \"{database}\" does not exist"),
                ));
            }
            schemas_of(ctx, schema_name, database)
                .find_map(|schema| in_schema(ctx, schema, name))
                .ok_or_else(missing)
        }
        _ => Err(Error::syntax(format!(
            "improper relation name (too many dotted names): {}",
            parts.join(".")
        ))),
    }
}

/// The fully qualified name of a relation.
pub(crate) fn qualified_name(catalog: &Catalog, relation: Relation<'_>) -> Vec<String> {
    match relation {
        Relation::System(relation) => vec![relation.schema.to_owned(), relation.name.to_owned()],
        Relation::Item(item) => {
            let schema = catalog.schemas.get(&item.schema);
            let database = schema
                .and_then(|schema| schema.database)
                .and_then(|id| catalog.databases.get(&id));
            database
                .map(|database| database.name.clone())
                .into_iter()
                .chain(schema.map(|schema| schema.name.clone()))
                .chain([item.name.clone()])
                .collect()
        }
    }
}

/// Functions of PostgreSQL that yield what a relation of the same name holds.
const RELATION_FUNCTIONS: [&str; 2] =
    ["pg_available_extension_versions", "pg_available_extensions"];

/// Replaces the relation names of `query` by fully qualified ones.
///
/// # Errors
/// See [`resolve`]; with the position of the name.
pub(super) fn qualify(ctx: &PlanContext<'_>, query: &mut Query) -> Result<(), Error> {
    run(ctx, query, Vec::new())
}

struct Qualifier<'c, 'a> {
    ctx: &'c PlanContext<'a>,
    /// Names of common table expressions in scope, one entry per enclosing query.
    scopes: Vec<Vec<String>>,
    /// WITH of the enclosing queries: qualified, and out of the tree until the query ends, so that it is not visited again.
    qualified: Vec<Option<With>>,
}

fn run(ctx: &PlanContext<'_>, query: &mut Query, scopes: Vec<Vec<String>>) -> Result<(), Error> {
    let mut qualifier = Qualifier {
        ctx,
        scopes,
        qualified: Vec::new(),
    };
    match VisitMut::visit(query, &mut qualifier) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn to_flow(result: Result<(), Error>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl Qualifier<'_, '_> {
    /// A non-recursive common table expression does not see itself or later ones: its body is qualified first, with the names before it.
    fn enter(&mut self, query: &mut Query) -> Result<(), Error> {
        expand_table_commands(&mut query.body);
        let mut names = Vec::new();
        let mut with = query.with.take();
        if let Some(with) = &mut with {
            if with.recursive {
                names = with
                    .cte_tables
                    .iter()
                    .map(|cte| fold(&cte.alias.name))
                    .collect();
            }
            for cte in &mut with.cte_tables {
                let mut scopes = self.scopes.clone();
                scopes.push(names.clone());
                run(self.ctx, &mut cte.query, scopes)?;
                names.push(fold(&cte.alias.name));
            }
        }
        self.scopes.push(names);
        self.qualified.push(with);
        Ok(())
    }

    fn table(&self, name: &mut ObjectName) -> Result<(), Error> {
        let parts = fold_name(name);
        if let [only] = parts.as_slice()
            && self.scopes.iter().flatten().any(|cte| cte == only)
        {
            return Ok(());
        }
        let span = name
            .0
            .first()
            .and_then(ObjectNamePart::as_ident)
            .map(|ident| ident.span);
        let relation = resolve(self.ctx, &parts).map_err(|error| {
            match span.and_then(|span| position(self.ctx, span)) {
                Some(position) => error.at(position),
                None => error,
            }
        })?;
        let qualified = qualified_name(self.ctx.catalog, relation);
        *name = ObjectName::from(
            qualified
                .iter()
                .map(|part| plain_or_quoted(part))
                .collect::<Vec<_>>(),
        );
        Ok(())
    }
}

impl VisitorMut for Qualifier<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        to_flow(self.enter(query))
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.pop();
        query.with = self.qualified.pop().flatten();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Table {
            name,
            args: args @ Some(_),
            ..
        } = factor
            && args.as_ref().is_some_and(|list| list.args.is_empty())
            && matches!(fold_name(name).as_slice(), [.., function] if RELATION_FUNCTIONS.contains(&function.as_str()))
        {
            *args = None;
        }
        match factor {
            TableFactor::Table {
                name, args: None, ..
            } => to_flow(self.table(name)),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// `TABLE t` is `SELECT * FROM t`.
fn expand_table_commands(body: &mut SetExpr) {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            expand_table_commands(left);
            expand_table_commands(right);
        }
        SetExpr::Table(table) => {
            let parts = table
                .schema_name
                .iter()
                .chain(&table.table_name)
                .map(|part| plain_or_quoted(part))
                .collect::<Vec<_>>();
            let relation = table_factor(ObjectName::from(parts), None);
            *body = SetExpr::Select(Box::new(select_all(relation)));
        }
        _ => {}
    }
}

/// `SELECT * FROM relation`
pub(super) fn select_all(relation: TableFactor) -> Select {
    select(
        vec![SelectItem::Wildcard(WildcardAdditionalOptions::default())],
        vec![TableWithJoins {
            relation,
            joins: Vec::new(),
        }],
    )
}

/// `SELECT projection FROM from`
pub(super) fn select(projection: Vec<SelectItem>, from: Vec<TableWithJoins>) -> Select {
    Select {
        select_token: sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection,
        exclude: None,
        into: None,
        from,
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: sqlparser::ast::GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}

/// A query that is just `body`.
pub(super) fn query(body: SetExpr) -> Query {
    Query {
        with: None,
        body: Box::new(body),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// The table factor `name AS alias`.
pub(super) fn table_factor(name: ObjectName, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}
