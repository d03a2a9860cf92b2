//! FROM: tables, views, named queries, derived tables and functions.
//!
//! Owns what each item is as a plan and which columns it brings into scope. Joins are [`super::join`]'s. Must not know expressions. Called by [`super::select`].
//!
//! Invariants. While an item is bound, what stands to its left can be named in it only if it is lateral; functions always are. Each relation of the catalog is scanned
//! under its internal name, by which EXPLAIN finds it.

use std::sync::Arc;

use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{
    EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, SubqueryAlias,
};
use flowstone_functions::CollectionTable;
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::{self, ObjectName, TableAlias, TableFactor, TableWithJoins};
use sqlparser::tokenizer::Span;

use super::expr::{Arguments, function_name, listed, name_span, refuse_unknown};
use super::grouping::named;
use super::scope::{Frame, Origin, Relation, ScopeColumn};
use super::series::{
    MEMBER_COLUMNS, Series, Yield, one_row, record, unnested, yields_members, yields_rows,
};
use super::subquery::joined;
use super::value::{Type, Value, made, text};
use super::{Binder, Clause, project};
use crate::catalog::{self, Item, ItemKind, arrow_schema};
use crate::error::{Error, ErrorKind};
use crate::names::{self, INTERNAL, fold};
use crate::system;

/// Functions of PostgreSQL that yield what a relation of the same name holds.
const RELATION_FUNCTIONS: [&str; 2] =
    ["pg_available_extension_versions", "pg_available_extensions"];

/// Relations of the system catalog that have no rows. Planned as such: clients ask questions about them that we could not answer otherwise.
const EMPTY: [&str; 4] = [
    "pg_policy",
    "pg_publication",
    "pg_publication_rel",
    "pg_publication_namespace",
];

/// The function of the words that the parser knows, and its columns.
const KEYWORDS: &str = "pg_get_keywords";
const KEYWORD_COLUMNS: [&str; 5] = ["word", "catcode", "barelabel", "catdesc", "baredesc"];

/// A call in FROM.
struct TableFunction<'q> {
    name: String,
    args: Vec<&'q ast::Expr>,
    with_ordinality: bool,
    span: Span,
}

/// Whether an item of FROM can ask for columns of what stands to its left.
pub(super) fn may_be_lateral(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Derived { lateral, .. } => *lateral,
        TableFactor::Table { args, .. } => args.is_some(),
        TableFactor::Function { .. } | TableFactor::UNNEST { .. } => true,
        TableFactor::NestedJoin {
            table_with_joins, ..
        } => {
            may_be_lateral(&table_with_joins.relation)
                || table_with_joins
                    .joins
                    .iter()
                    .any(|join| may_be_lateral(&join.relation))
        }
        _ => false,
    }
}

fn collection(id: ObjectId, schema: arrow_schema::SchemaRef) -> Result<LogicalPlan, Error> {
    let source = provider_as_source(Arc::new(CollectionTable::new(id, schema)));
    let name = TableReference::bare(format!("{INTERNAL}{id}"));
    made(LogicalPlanBuilder::scan(name, source, None).and_then(LogicalPlanBuilder::build))
}

fn not_readable(item: &Item) -> Error {
    Error::new(
        ErrorKind::WrongObjectType,
        format!(
            "\"{}\" is not a table, view or materialized view",
            item.name
        ),
    )
    .with_detail(format!("It is a {}.", item.type_name().replace('-', " ")))
}

impl Binder<'_> {
    /// Binds FROM. If it is one function and `keeps_order` is asked for, the number of each row is handed back as well.
    pub(super) fn from(
        &mut self,
        from: &[TableWithJoins],
        keeps_order: bool,
    ) -> Result<(LogicalPlan, Option<Expr>), Error> {
        if let ([only], true) = (from, keeps_order)
            && only.joins.is_empty()
            && let Some((function, alias)) = called_in(&only.relation)?
        {
            let (plan, ordinal) = self.table_function(&function, alias, true)?;
            self.frame()?.visible = 0;
            return Ok((plan, ordinal));
        }
        let mut items = from.iter();
        let Some(first) = items.next() else {
            return Ok((one_row(), None));
        };
        let mut plan = self.table_with_joins(first)?;
        for item in items {
            let right = self.table_with_joins(item)?;
            let lateral = may_be_lateral(&item.relation)
                || item.joins.iter().any(|join| may_be_lateral(&join.relation));
            plan = super::join::crossed(plan, right, lateral)?;
        }
        self.frame()?.visible = 0;
        Ok((plan, None))
    }

    pub(super) fn table_with_joins(
        &mut self,
        table: &TableWithJoins,
    ) -> Result<LogicalPlan, Error> {
        let start = self.frame()?.relations.len();
        let mut plan = self.factor(&table.relation)?;
        for join in &table.joins {
            plan = self.join(plan, start, join)?;
        }
        Ok(plan)
    }

    /// Binds one item, and adds its columns to the scope.
    pub(super) fn factor(&mut self, factor: &TableFactor) -> Result<LogicalPlan, Error> {
        if let Some((function, alias)) = called_in(factor)? {
            return self
                .table_function(&function, alias, false)
                .map(|(plan, _)| plan);
        }
        match factor {
            TableFactor::Table { name, alias, .. } => {
                let parts = names::fold_name(name);
                self.named_relation(&parts, alias.as_ref(), name_span(name))
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                ..
            } => {
                let output = self.beside(*lateral, |binder| {
                    let output = binder.query(subquery)?;
                    binder.settled(output)
                })?;
                let schema = Arc::clone(output.plan.schema());
                self.know_all(&schema);
                let columns = output.columns.into_iter().map(|column| ScopeColumn {
                    name: column.name,
                    expr: Expr::Column(column.column),
                    of: column.of,
                });
                let relation = Relation {
                    name: String::new(),
                    qualified: Vec::new(),
                    columns: columns.collect(),
                    by_name: true,
                    by_column: true,
                    lateral: true,
                    is_value: false,
                    origin: None,
                };
                self.push_aliased(relation, alias.as_ref())?;
                Ok(output.plan)
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => self.nested_join(table_with_joins, alias.as_ref()),
            other => Err(Error::unsupported(format!(
                "the FROM item {other} is not supported"
            ))),
        }
    }

    /// Runs `bind` where what stands to the left can be named, if it is lateral, or nothing of the query's own FROM.
    fn beside<T>(
        &mut self,
        lateral: bool,
        bind: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let frame = self.frame()?;
        let before = frame.visible;
        frame.visible = if lateral { 0 } else { frame.relations.len() };
        let bound = bind(self);
        self.frame()?.visible = before;
        bound
    }

    fn nested_join(
        &mut self,
        table: &TableWithJoins,
        alias: Option<&TableAlias>,
    ) -> Result<LogicalPlan, Error> {
        let start = self.frame()?.relations.len();
        let plan = self.table_with_joins(table)?;
        let Some(alias) = alias else {
            return Ok(plan);
        };
        let mut columns = Vec::new();
        for relation in self.frame()?.relations.iter_mut().skip(start) {
            if relation.by_column {
                columns.extend(relation.columns.iter().cloned());
            }
            relation.by_name = false;
            relation.by_column = false;
        }
        let relation = Relation {
            name: String::new(),
            qualified: Vec::new(),
            columns,
            by_name: true,
            by_column: true,
            lateral: true,
            is_value: false,
            origin: None,
        };
        self.push_aliased(relation, Some(alias))?;
        Ok(plan)
    }

    /// Adds a relation under its alias, its columns called as that says.
    fn push_aliased(
        &mut self,
        mut relation: Relation,
        alias: Option<&TableAlias>,
    ) -> Result<(), Error> {
        if let Some(alias) = alias {
            relation.name = fold(&alias.name);
            relation.qualified = Vec::new();
            if alias.columns.len() > relation.columns.len() {
                let error = Error::new(
                    ErrorKind::InvalidColumnReference,
                    format!(
                        "table \"{}\" has {} columns available but {} columns specified",
                        relation.name,
                        relation.columns.len(),
                        alias.columns.len()
                    ),
                );
                return Err(self.placed(error, alias.name.span));
            }
            for (column, renamed) in relation.columns.iter_mut().zip(&alias.columns) {
                column.name = fold(&renamed.name);
            }
        }
        let span = alias.map(|alias| alias.name.span);
        self.push_relation(relation).map_err(|error| match span {
            Some(span) => self.placed(error, span),
            None => error,
        })
    }

    /// A relation of the catalog, or a query of WITH.
    pub(super) fn named_relation(
        &mut self,
        parts: &[String],
        alias: Option<&TableAlias>,
        span: Span,
    ) -> Result<LogicalPlan, Error> {
        if let [name] = parts
            && let Some(cte) = self.cte(name)
        {
            let (plan, columns) = self.reference(&cte)?;
            let relation = self.relation_of(&plan, columns, name, Vec::new(), None);
            self.push_aliased(relation, alias)?;
            return Ok(plan);
        }
        let found = names::resolve(&self.ctx, parts).map_err(|error| self.placed(error, span))?;
        let id = found.id();
        if self.views == 0 && !self.found.contains(&id) {
            self.found.push(id);
        }
        let qualified = names::qualified_name(self.ctx.catalog, found);
        let (plan, columns, origin) = match found {
            names::Relation::System(relation) => {
                let columns: Vec<(String, Type)> = relation
                    .columns
                    .iter()
                    .map(|column| (column.name.to_owned(), Type::Of(column.sql_type())))
                    .collect();
                let origin = Origin {
                    id,
                    oid: relation.oid,
                    key: None,
                };
                (system_relation(relation)?, columns, origin)
            }
            names::Relation::Item(item) => {
                let (plan, columns) = self.item(item).map_err(|error| self.placed(error, span))?;
                let key = match &item.kind {
                    ItemKind::Table { key, .. } => key.clone(),
                    _ => None,
                };
                let origin = Origin {
                    id,
                    oid: item.oid,
                    key,
                };
                (plan, columns, origin)
            }
        };
        let name = parts.last().map_or("", String::as_str);
        let is_view = matches!(
            found,
            names::Relation::Item(item) if matches!(item.kind, ItemKind::View { .. })
        );
        let plan = if is_view {
            plan
        } else {
            let known = alias.map_or_else(|| name.to_owned(), |alias| fold(&alias.name));
            let qualifier = self.fresh_for(&known);
            let plan = made(SubqueryAlias::try_new(Arc::new(plan), qualifier))?;
            LogicalPlan::SubqueryAlias(plan)
        };
        let relation = self.relation_of(&plan, columns, name, qualified, Some(origin));
        self.push_aliased(relation, alias)?;
        Ok(plan)
    }

    fn item(&mut self, item: &Item) -> Result<(LogicalPlan, Vec<(String, Type)>), Error> {
        let typed = |columns: &[catalog::Column]| {
            columns
                .iter()
                .map(|column| (column.name.clone(), Type::Of(column.sql_type.clone())))
                .collect()
        };
        match &item.kind {
            ItemKind::Table { columns, .. }
            | ItemKind::Progress { columns, .. }
            | ItemKind::MaterializedView { columns, .. } => {
                Ok((collection(item.id, arrow_schema(columns))?, typed(columns)))
            }
            ItemKind::View { columns, .. } => Ok((self.view(item.id, columns)?, typed(columns))),
            ItemKind::Source(_)
            | ItemKind::Index { .. }
            | ItemKind::Secret
            | ItemKind::Connection(_)
            | ItemKind::Sink(_) => Err(not_readable(item)),
        }
    }

    /// A plan as a relation called `name`.
    pub(super) fn relation_of(
        &mut self,
        plan: &LogicalPlan,
        columns: Vec<(String, Type)>,
        name: &str,
        qualified: Vec<String>,
        origin: Option<Origin>,
    ) -> Relation {
        Relation {
            name: name.to_owned(),
            qualified,
            columns: self.columns_of(plan, columns),
            by_name: true,
            by_column: true,
            lateral: true,
            is_value: false,
            origin,
        }
    }

    /// A function in FROM. Hands back the number of each row if `ordinal` is asked for.
    fn table_function(
        &mut self,
        function: &TableFunction<'_>,
        alias: Option<&TableAlias>,
        ordinal: bool,
    ) -> Result<(LogicalPlan, Option<Expr>), Error> {
        let (yields, base) = self.beside(true, |binder| binder.yields_of(function))?;
        let ordinals = if function.with_ordinality || ordinal {
            let lists: Vec<Expr> = yields.iter().map(|one| one.list.clone()).collect();
            Self::ordinals(&lists)?
        } else {
            Vec::new()
        };
        let mut lists = Vec::with_capacity(yields.len() + ordinals.len());
        let mut columns: Vec<(String, Value)> = Vec::new();
        let count = yields.len();
        for one in yields {
            let column = self.fresh_column(&function.name);
            let item = Expr::Column(column.clone());
            let fixed = fixed_columns(&function.name).get(lists.len());
            match &one.of {
                Type::Row(fields) => {
                    for (name, value) in
                        record(&item, fields.clone())?.fields()?.unwrap_or_default()
                    {
                        columns.push((name, value));
                    }
                }
                of => {
                    let name = match fixed {
                        Some(name) => (*name).to_owned(),
                        None => column_of(&function.name, alias, count),
                    };
                    columns.push((name, Value::typed(item, of.clone())));
                }
            }
            lists.push(Series::first(one.list, column, one.of));
        }
        let width = columns.len();
        let mut numbers = Vec::with_capacity(ordinals.len());
        for list in ordinals {
            let column = self.fresh_column("ordinality");
            numbers.push(Value::new(Expr::Column(column.clone()), SqlType::Int8));
            lists.push(Series::first(list, column, Type::Of(SqlType::Int8)));
        }
        let number = self.longest(numbers)?;
        let rows = unnested(base, &lists)?;
        if function.with_ordinality
            && let Some(number) = &number
        {
            columns.push(("ordinality".to_owned(), number.clone()));
        }
        let shown = if ordinal { number } else { None };
        // With their numbers they are rows.
        let is_value = width == 1 && !function.with_ordinality;
        self.push_function(rows, columns, shown, &function.name, alias, is_value)
    }

    /// The rows of a function under a qualifier of their own, as a relation.
    fn push_function(
        &mut self,
        rows: LogicalPlan,
        columns: Vec<(String, Value)>,
        number: Option<Value>,
        name: &str,
        alias: Option<&TableAlias>,
        is_value: bool,
    ) -> Result<(LogicalPlan, Option<Expr>), Error> {
        let qualifier = self.fresh();
        let mut exprs = Vec::with_capacity(columns.len() + 1);
        let mut types = Vec::with_capacity(columns.len());
        let names = super::distinct_names(columns.iter().map(|(name, _)| name.as_str()));
        for ((shown, value), name) in columns.into_iter().zip(names) {
            let column = Column::new(Some(qualifier.clone()), name);
            exprs.push(named(value.expr, &column));
            types.push((shown, value.of));
        }
        let number = number.map(|value| {
            let column = Column::new(Some(qualifier.clone()), format!("{INTERNAL}number"));
            exprs.push(named(value.expr, &column));
            Expr::Column(column)
        });
        let plan = project(rows, exprs)?;
        let mut relation = self.relation_of(&plan, types, name, Vec::new(), None);
        relation.is_value = is_value;
        self.push_aliased(relation, alias)?;
        Ok((plan, number))
    }

    /// What the functions of an item yield, and the row that they are called for.
    fn yields_of(
        &mut self,
        function: &TableFunction<'_>,
    ) -> Result<(Vec<Yield>, LogicalPlan), Error> {
        self.frames.push(Frame::new(Clause::From));
        let bound = self.arguments_and_yields(function);
        let frame = self.frames.pop();
        let yields = bound?;
        let pending = frame.map(|frame| frame.pending).unwrap_or_default();
        Ok((yields, joined(one_row(), pending)?))
    }

    fn arguments_and_yields(&mut self, function: &TableFunction<'_>) -> Result<Vec<Yield>, Error> {
        let name = function.name.as_str();
        if name == KEYWORDS && function.args.is_empty() {
            return self.keywords();
        }
        let args = self.scalars(function.args.iter().copied())?;
        if name == "unnest" && args.len() > 1 {
            return args
                .into_iter()
                .map(|array| self.yielded(name, vec![array], function.span))
                .collect();
        }
        if yields_members(name) {
            return self.members(name, args, function.span);
        }
        if yields_rows(name) {
            return Ok(vec![self.yielded(name, args, function.span)?]);
        }
        // A function that yields one value is that value as a row.
        let value = match self.catalog_function(name, &args)? {
            Some(value) => value,
            None => {
                refuse_unknown(name, &args).map_err(|error| self.placed(error, function.span))?;
                self.function(name, args, function.span)?
            }
        };
        let of = value.of.clone();
        let list = self.array_of(vec![value])?.expr;
        Ok(vec![Yield { list, of }])
    }

    /// `pg_get_keywords()`: the words that the parser knows, and which of them are reserved.
    fn keywords(&mut self) -> Result<Vec<Yield>, Error> {
        let reserved = crate::ast::reserved_words();
        let mut words: Vec<String> = sqlparser::keywords::ALL_KEYWORDS
            .iter()
            .map(|word| word.to_lowercase())
            .chain(reserved.iter().map(|word| (*word).to_owned()))
            .collect();
        words.sort_unstable();
        words.dedup();
        let is_reserved = |word: &String| reserved.contains(&word.as_str());
        let choose = |of_reserved: &str, of_others: &str| {
            let chosen = words.iter().map(|word| {
                if is_reserved(word) {
                    of_reserved
                } else {
                    of_others
                }
            });
            chosen.map(str::to_owned).collect::<Vec<String>>()
        };
        let columns = [
            words.clone(),
            choose("R", "U"),
            choose("f", "t"),
            choose("reserved", "unreserved"),
            choose("requires AS", "can be bare label"),
        ];
        columns
            .into_iter()
            .map(|texts| {
                let list = self.array_of(texts.into_iter().map(text).collect())?.expr;
                Ok(Yield {
                    list,
                    of: Type::Of(SqlType::Text),
                })
            })
            .collect()
    }
}

/// What the columns of a function with several are called, whatever its alias is.
fn fixed_columns(function: &str) -> &'static [&'static str] {
    if function == KEYWORDS {
        &KEYWORD_COLUMNS
    } else if yields_members(function) {
        &MEMBER_COLUMNS
    } else {
        &[]
    }
}

/// What the column of a function is called.
fn column_of(function: &str, alias: Option<&TableAlias>, count: usize) -> String {
    match function {
        "jsonb_array_elements"
        | "jsonb_array_elements_text"
        | "json_array_elements"
        | "json_array_elements_text" => "value".to_owned(),
        _ => match alias {
            Some(alias) if count == 1 => fold(&alias.name),
            _ => function.to_owned(),
        },
    }
}

/// The call that an item of FROM is, and its alias.
fn called_in(
    factor: &TableFactor,
) -> Result<Option<(TableFunction<'_>, Option<&TableAlias>)>, Error> {
    let of = |name: &ObjectName| -> Result<(String, Span), Error> {
        Ok((function_name(name)?, name_span(name)))
    };
    let (name, span, args, with_ordinality, alias) = match factor {
        TableFactor::Table {
            name,
            alias,
            args: Some(arguments),
            with_ordinality,
            ..
        } => {
            let (called, span) = of(name)?;
            if arguments.args.is_empty() && RELATION_FUNCTIONS.contains(&called.as_str()) {
                return Ok(None);
            }
            (
                called,
                span,
                arguments.args.as_slice(),
                *with_ordinality,
                alias,
            )
        }
        TableFactor::Function {
            name,
            args,
            with_ordinality,
            alias,
            ..
        } => {
            let (called, span) = of(name)?;
            (called, span, args.as_slice(), *with_ordinality, alias)
        }
        TableFactor::UNNEST {
            alias,
            array_exprs,
            with_ordinality,
            ..
        } => {
            let function = TableFunction {
                name: "unnest".to_owned(),
                args: array_exprs.iter().collect(),
                with_ordinality: *with_ordinality,
                span: Span::empty(),
            };
            return Ok(Some((function, alias.as_ref())));
        }
        _ => return Ok(None),
    };
    let args = match listed(args)? {
        Arguments::Listed(args) => args,
        Arguments::Everything => {
            return Err(Error::syntax(format!("{name}(*) cannot be in FROM")));
        }
    };
    let function = TableFunction {
        name,
        args,
        with_ordinality,
        span,
    };
    Ok(Some((function, alias.as_ref())))
}

fn system_relation(relation: &'static system::Relation) -> Result<LogicalPlan, Error> {
    if !EMPTY.contains(&relation.name) {
        return collection(relation.id, relation.arrow_schema());
    }
    let schema = made(DFSchema::try_from(relation.arrow_schema()))?;
    Ok(LogicalPlan::EmptyRelation(EmptyRelation {
        produce_one_row: false,
        schema: Arc::new(schema),
    }))
}
