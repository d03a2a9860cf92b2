//! Names of relations: from what the user wrote to what the catalog has.
//!
//! Owns name resolution inside queries, common table expressions included, and the two ways of writing a resolved name back into the tree:
//! as an internal name for planning, and fully qualified for the stored text of a view.
//! Must not know expressions or plans. Called by [`crate::plan`].
//!
//! Invariants. After [`resolve_for_planning`] every relation name in the tree is a common table expression or an internal name, and no join has USING
//! or NATURAL.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use flowstone_types::ObjectId;
use sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectFlavor, SelectItem, SetExpr,
    TableAlias, TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
    WildcardAdditionalOptions, With,
};

use super::PlanContext;
use crate::catalog::names::search_order;
use crate::catalog::{Catalog, Item, Schema};
use crate::error::{Error, ErrorKind};
use crate::system;

/// What no identifier of a user starts with.
pub(crate) const INTERNAL: char = '\u{1}';

/// Functions of PostgreSQL that yield what a relation of the same name holds.
const RELATION_FUNCTIONS: [&str; 2] =
    ["pg_available_extension_versions", "pg_available_extensions"];

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
    super::errors::position_of(ctx.text, span.start.line, span.start.column)
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

/// Replaces the relation names of `query` by internal names, and notes what they stand for in `found`, in order of first use. Joins that name the
/// columns they merge become joins with a condition.
///
/// # Errors
/// See [`resolve`] and [`super::using`]; with the position of the name.
pub(super) fn resolve_for_planning<'a>(
    ctx: &PlanContext<'a>,
    query: &mut Query,
    found: &mut Found<'a>,
) -> Result<(), Error> {
    run(ctx, query, found, Mode::Plan, Vec::new())?;
    super::using::spell_out(ctx, found, query)
}

/// Replaces the relation names of `query` by fully qualified ones.
///
/// # Errors
/// See [`resolve`]; with the position of the name.
pub(super) fn qualify(ctx: &PlanContext<'_>, query: &mut Query) -> Result<(), Error> {
    run(ctx, query, &mut Found::default(), Mode::Qualify, Vec::new())
}

/// Relations that names were found to stand for.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    /// By identity.
    pub(super) relations: BTreeMap<ObjectId, Relation<'a>>,
    /// In order of first use.
    pub(super) order: Vec<ObjectId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plan,
    Qualify,
}

/// Columns that every relation has and no `*` shows.
const SYSTEM_COLUMNS: [&str; 5] = ["tableoid", "xmin", "xmax", "cmin", "cmax"];

/// The id of a transaction that begins now. Transactions have no ids here; what is numbered is the changes of the catalog, from the first id that
/// PostgreSQL gives: tools that ask what has changed since some id hear of everything as soon as anything has.
pub(super) fn transaction_id(ctx: &PlanContext<'_>) -> u32 {
    u32::try_from(ctx.catalog.version)
        .unwrap_or(u32::MAX)
        .saturating_add(3)
}

struct Resolver<'c, 'a, 'f> {
    ctx: &'c PlanContext<'a>,
    mode: Mode,
    /// What the names of tables stand for, one entry per enclosing SELECT; `None` for what is no relation of the catalog.
    tables: Vec<Vec<(String, Option<Relation<'a>>)>>,
    found: &'f mut Found<'a>,
    /// Names of common table expressions in scope, one entry per enclosing query.
    scopes: Vec<Vec<String>>,
    /// WITH of the enclosing queries: resolved, and out of the tree until the query ends, so that it is not visited again.
    resolved: Vec<Option<With>>,
}

fn run<'a>(
    ctx: &PlanContext<'a>,
    query: &mut Query,
    found: &mut Found<'a>,
    mode: Mode,
    scopes: Vec<Vec<String>>,
) -> Result<(), Error> {
    let mut resolver = Resolver {
        ctx,
        mode,
        tables: Vec::new(),
        found,
        scopes,
        resolved: Vec::new(),
    };
    match VisitMut::visit(query, &mut resolver) {
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

impl<'a> Resolver<'_, 'a, '_> {
    /// A non-recursive common table expression does not see itself or later ones: its body is resolved first, with the names before it.
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
                run(self.ctx, &mut cte.query, self.found, self.mode, scopes)?;
                names.push(fold(&cte.alias.name));
            }
        }
        self.scopes.push(names);
        self.resolved.push(with);
        Ok(())
    }

    fn table(
        &mut self,
        name: &mut ObjectName,
        alias: &mut Option<TableAlias>,
    ) -> Result<(), Error> {
        let parts = fold_name(name);
        if let [only] = parts.as_slice()
            && (only.starts_with(INTERNAL) || self.scopes.iter().flatten().any(|cte| cte == only))
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
        match self.mode {
            Mode::Qualify => {
                let qualified = qualified_name(self.ctx.catalog, relation);
                *name = ObjectName::from(
                    qualified
                        .iter()
                        .map(|part| plain_or_quoted(part))
                        .collect::<Vec<_>>(),
                );
            }
            Mode::Plan => {
                let id = relation.id();
                if self.found.relations.insert(id, relation).is_none() {
                    self.found.order.push(id);
                }
                if alias.is_none() {
                    *alias = Some(table_alias(parts.last().map_or("", String::as_str)));
                }
                *name = internal_name(id);
            }
        }
        Ok(())
    }
}

impl<'a> Resolver<'_, 'a, '_> {
    /// The tables of a FROM by the names that expressions have for them.
    fn named_tables(&self, from: &[TableWithJoins]) -> Vec<(String, Option<Relation<'a>>)> {
        let mut tables = Vec::new();
        for table in from {
            for factor in std::iter::once(&table.relation)
                .chain(table.joins.iter().map(|join| &join.relation))
            {
                match factor {
                    TableFactor::Table {
                        name,
                        alias,
                        args: None,
                        ..
                    } => {
                        let parts = fold_name(name);
                        let is_cte = matches!(parts.as_slice(), [only] if self.scopes.iter().flatten().any(|cte| cte == only));
                        let relation = if is_cte {
                            None
                        } else {
                            resolve(self.ctx, &parts).ok()
                        };
                        let known_as = alias.as_ref().map_or_else(
                            || parts.last().cloned().unwrap_or_default(),
                            |alias| fold(&alias.name),
                        );
                        tables.push((known_as, relation));
                    }
                    TableFactor::NestedJoin {
                        table_with_joins,
                        alias: None,
                    } => tables.extend(self.named_tables(std::slice::from_ref(table_with_joins))),
                    TableFactor::Table { alias, .. }
                    | TableFactor::Derived { alias, .. }
                    | TableFactor::Function { alias, .. }
                    | TableFactor::UNNEST { alias, .. } => {
                        let known_as = alias.as_ref().map(|alias| fold(&alias.name));
                        tables.push((known_as.unwrap_or_default(), None));
                    }
                    _ => tables.push((String::new(), None)),
                }
            }
        }
        tables
    }

    /// The value of a column that every relation has, if `expr` is one.
    fn system_column(&self, expr: &Expr) -> Option<Expr> {
        let (table, column) = match expr {
            Expr::Identifier(column) => (None, fold(column)),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, column] => (Some(fold(table)), fold(column)),
                _ => return None,
            },
            _ => return None,
        };
        if !SYSTEM_COLUMNS.contains(&column.as_str()) {
            return None;
        }
        let relation = match &table {
            Some(table) => self
                .tables
                .iter()
                .rev()
                .flatten()
                .find(|(known_as, _)| known_as == table)
                .and_then(|(_, relation)| *relation)?,
            None => match self.tables.last()?.as_slice() {
                [(_, Some(relation))] => *relation,
                _ => return None,
            },
        };
        let (oid, has_its_own) = match relation {
            Relation::Item(item) => (
                item.oid,
                item.columns()
                    .unwrap_or_default()
                    .iter()
                    .any(|known| known.name == column),
            ),
            Relation::System(relation) => (
                relation.oid,
                relation.columns.iter().any(|known| known.name == column),
            ),
        };
        if has_its_own {
            return None;
        }
        let value = match column.as_str() {
            "tableoid" => oid,
            "xmin" => transaction_id(self.ctx),
            _ => 0,
        };
        Some(super::rewrite::constant(
            value.to_string(),
            &flowstone_types::SqlType::Oid,
        ))
    }
}

impl VisitorMut for Resolver<'_, '_, '_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        let tables = self.named_tables(&select.from);
        self.tables.push(tables);
        if self.mode == Mode::Plan {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) = item
                    && self.system_column(expr).is_some()
                {
                    let name = super::rewrite::column_name(expr);
                    let expr = std::mem::replace(expr, Expr::value(Value::Null));
                    *item = SelectItem::ExprWithAlias {
                        expr,
                        alias: quoted(&name),
                    };
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _select: &mut Select) -> ControlFlow<Error> {
        self.tables.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        to_flow(self.enter(query))
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.pop();
        query.with = self.resolved.pop().flatten();
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
                name,
                alias,
                args: None,
                ..
            } => to_flow(self.table(name, alias)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self.mode == Mode::Plan
            && let Some(value) = self.system_column(expr)
        {
            *expr = value;
        }
        // `schema.table.column`: the table is known by its last name once its own name is internal.
        if self.mode == Mode::Plan
            && let Expr::CompoundIdentifier(parts) = expr
            && parts.len() > 2
        {
            parts.drain(..parts.len() - 2);
        }
        ControlFlow::Continue(())
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

/// `AS name`
pub(super) fn table_alias(name: &str) -> TableAlias {
    TableAlias {
        explicit: true,
        name: quoted(name),
        columns: Vec::new(),
        at: None,
    }
}

/// The name by which the planner finds relation `id`.
pub(super) fn internal_name(id: ObjectId) -> ObjectName {
    ObjectName::from(vec![quoted(&format!("{INTERNAL}{id}"))])
}
