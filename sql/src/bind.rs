//! The binder: from a syntax tree to a typed plan by PostgreSQL's rules, in one pass.
//!
//! Owns scopes, types, parameters and the shape of plans (DESIGN.md, section 10). The tree is only read, and nothing is printed to be parsed again. Functions,
//! operators and common types are resolved by [`flowstone_functions::resolve`]; a subquery becomes a dependent join ([`crate::unnest`]) of the plan
//! under construction when it is met. Must not know how plans are optimised or run. Called by [`crate::plan`].
//!
//! What happens to a SELECT, in this order: its FROM ([`from`]), WHERE, groups ([`grouping`]) and aggregates ([`aggregate`]), the SELECT list with set-returning functions ([`select`],
//! [`series`]), HAVING, ORDER BY ([`order`]); then its plan is built from below: what a condition needs stands beneath what is only computed for rows it keeps.
//!
//! Invariants. Every column of a bound plan has a qualifier of its own (it ends with `INTERNAL` and a number), so that an outer reference is never ambiguous; of columns of
//! one name in a relation all but the first have a suffix that begins with `INTERNAL`. A bound plan holds no subquery expression. What has no type when its query
//! ends is `text`.

mod aggregate;
mod assign;
mod catalog_functions;
mod catalog_names;
mod expr;
mod frame;
mod from;
mod grouping;
mod item_names;
mod join;
mod limit;
mod number;
mod order;
mod parameters;
mod returning;
mod scope;
mod select;
mod series;
mod set;
mod subquery;
mod value;
mod window;
mod with;
mod write;

use std::collections::HashMap;
use std::rc::Rc;

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use flowstone_functions::execution::still_wanted;
use flowstone_types::datetime::TimeZone;
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast;

pub(crate) use write::{Target as WriteTarget, delete, insert, update};

use crate::catalog;
use crate::context::PlanContext;
use crate::error::{Error, ErrorKind};
use crate::names::INTERNAL;
use parameters::Parameters;
use scope::{Frame, Known};
use value::{Type, Value, made, told};
use with::Cte;

/// Queries inside of queries, views included.
const QUERY_DEPTH_MAX: usize = 64;
/// Operators inside of operators. Parentheses are none, nor are the operands of a chain.
const EXPRESSION_DEPTH_MAX: usize = 400;
/// Parts of expressions that may be there because others stand for more than one: an operand of BETWEEN, CASE, or IN is compared as often as there is something to
/// compare it with, and inside of each other these multiply.
const COPIES_MAX: usize = 100_000;
/// Views inside of views: more are taken for a mistake.
const VIEW_DEPTH_MAX: usize = 64;

/// A bound query.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Its plan: no type is left to be decided, dependent joins are left to be unnested.
    pub(crate) plan: LogicalPlan,
    /// The types of `$1`, `$2`, …
    pub(crate) parameters: Vec<SqlType>,
    /// What the text names, in order of first use.
    pub(crate) found: Vec<ObjectId>,
}

/// Which part of a SELECT an expression stands in: what may be called there, and how messages call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clause {
    /// What a join is conditioned by.
    On,
    /// An argument of a function in FROM.
    From,
    /// A row of VALUES.
    Values,
    Where,
    GroupBy,
    Having,
    Select,
    Qualify,
    OrderBy,
    DistinctOn,
    Limit,
    Offset,
    /// An argument of an aggregate.
    Aggregate,
    /// The condition of FILTER.
    Filter,
    /// An argument of a window function, or its window.
    Window,
    /// What UPDATE sets.
    Update,
    /// What a write gives of its rows.
    Returning,
    /// A DEFAULT.
    Default,
}

impl Clause {
    /// How messages of what is not allowed there call it.
    const fn place(self) -> &'static str {
        match self {
            Self::On => "JOIN conditions",
            Self::From => "functions in FROM",
            Self::Values => "VALUES",
            Self::Where => "WHERE",
            Self::GroupBy => "GROUP BY",
            Self::Having => "HAVING",
            Self::Select => "SELECT",
            Self::Qualify => "QUALIFY",
            Self::OrderBy => "ORDER BY",
            Self::DistinctOn => "DISTINCT ON",
            Self::Limit => "LIMIT",
            Self::Offset => "OFFSET",
            Self::Aggregate => "aggregate functions",
            Self::Filter => "FILTER",
            Self::Window => "window definitions",
            Self::Update => "UPDATE",
            Self::Returning => "RETURNING",
            Self::Default => "DEFAULT expressions",
        }
    }

    const fn takes_aggregates(self) -> bool {
        matches!(
            self,
            Self::Having | Self::Select | Self::Qualify | Self::OrderBy | Self::DistinctOn
        )
    }

    const fn takes_windows(self) -> bool {
        matches!(
            self,
            Self::Select | Self::Qualify | Self::OrderBy | Self::DistinctOn
        )
    }

    const fn takes_series(self) -> bool {
        matches!(
            self,
            Self::Select | Self::OrderBy | Self::DistinctOn | Self::GroupBy
        )
    }
}

/// A column of a bound query.
#[derive(Clone, Debug)]
struct OutputColumn {
    /// Its name as the user sees it.
    name: String,
    /// The column of the plan.
    column: Column,
    /// Its type; unknown if it is a literal or a parameter that nobody has asked anything of.
    of: Type,
    /// That literal or parameter: it is the same in every row.
    constant: Option<Expr>,
}

/// A bound query inside of the statement.
#[derive(Debug)]
struct Output {
    plan: LogicalPlan,
    columns: Vec<OutputColumn>,
}

/// See the module documentation.
struct Binder<'a> {
    ctx: PlanContext<'a>,
    /// The zone of literals, if it is not that of the plan they will be part of: inside of a view that was made elsewhere.
    literals: Option<TimeZone>,
    counter: usize,
    frames: Vec<Frame>,
    /// Queries of WITH in scope, the innermost last.
    ctes: Vec<Rc<Cte>>,
    /// The columns of frames.
    known: HashMap<Column, Known>,
    parameters: Parameters,
    found: Vec<ObjectId>,
    /// Views around the place.
    views: usize,
    /// Queries around the place.
    queries: usize,
    /// Operators around the place, in its query.
    depth: usize,
    /// Parts of expressions that were copied.
    copied: usize,
    /// Whether the next query's rows come in the order in which functions yield them, if it says no other.
    keeps_order: bool,
}

/// Binds a query. `parameters`: what is known of `$1`, `$2`, … beforehand.
///
/// # Errors
/// Whatever is wrong with the statement, with PostgreSQL's wording.
pub(crate) fn query(
    ctx: &PlanContext<'_>,
    query: &ast::Query,
    parameters: &[Option<SqlType>],
) -> Result<Bound, Error> {
    bind(ctx, parameters, |binder| {
        let output = binder.query(query)?;
        plainly_named(binder.settled(output)?.plan)
    })
}

/// The plan of a whole statement with columns as they are where its result calls them the same: nothing is around it that could take them for others, and where they
/// are all that is shown nothing has to be computed.
fn plainly_named(plan: LogicalPlan) -> Result<LogicalPlan, Error> {
    let projection = match plan {
        LogicalPlan::Projection(projection) => projection,
        other => return Ok(other),
    };
    let exprs = projection.expr.into_iter().map(|expr| match expr {
        Expr::Alias(alias)
            if matches!(alias.expr.as_ref(), Expr::Column(column) if column.name == alias.name) =>
        {
            *alias.expr
        }
        other => other,
    });
    made(Projection::try_new(exprs.collect(), projection.input)).map(LogicalPlan::Projection)
}

/// Binds what `step` binds; once more if a parameter was taken for text before its type was met.
fn bind<'a>(
    ctx: &PlanContext<'a>,
    parameters: &[Option<SqlType>],
    step: impl Fn(&mut Binder<'a>) -> Result<LogicalPlan, Error>,
) -> Result<Bound, Error> {
    let mut binder = Binder::new(ctx, Parameters::new(parameters));
    let mut plan = step(&mut binder)?;
    if let Some(better) = binder.parameters.better() {
        binder = Binder::new(ctx, better);
        plan = step(&mut binder)?;
    }
    Ok(Bound {
        plan,
        parameters: binder.parameters.types(),
        found: binder.found,
    })
}

impl<'a> Binder<'a> {
    fn new(ctx: &PlanContext<'a>, parameters: Parameters) -> Self {
        Self {
            ctx: *ctx,
            literals: None,
            counter: 0,
            frames: Vec::new(),
            ctes: Vec::new(),
            known: HashMap::new(),
            parameters,
            found: Vec::new(),
            views: 0,
            queries: 0,
            depth: 0,
            copied: 0,
            keeps_order: false,
        }
    }

    /// Binds a query inside of the statement.
    fn query(&mut self, query: &ast::Query) -> Result<Output, Error> {
        made(still_wanted())?;
        self.queries += 1;
        if self.queries > QUERY_DEPTH_MAX {
            return Err(
                Error::new(ErrorKind::TooComplex, "subqueries are nested too deeply")
                    .with_hint("Join the relations, or name the inner queries with WITH."),
            );
        }
        let depth = std::mem::take(&mut self.depth);
        let ctes = self.ctes.len();
        let keeps_order = std::mem::take(&mut self.keeps_order);
        let output = self.with(query.with.as_ref()).and_then(|()| {
            self.keeps_order = keeps_order;
            self.body_of(query)
        });
        self.ctes.truncate(ctes);
        self.depth = depth;
        self.queries -= 1;
        output
    }

    /// The plan of a view's text, its columns named and typed as the catalog has them. As in PostgreSQL, literals mean what they meant where it was made, and
    /// everything else is in the zone of the whole plan.
    fn view(&mut self, id: ObjectId, columns: &[catalog::Column]) -> Result<LogicalPlan, Error> {
        if self.views >= VIEW_DEPTH_MAX {
            return Err(Error::unsupported("views are nested too deeply"));
        }
        let item = self.ctx.catalog.items.get(&id);
        let catalog::ItemKind::View { query, .. } = &item
            .ok_or_else(|| Error::internal(format!("no item {id}")))?
            .kind
        else {
            return Err(Error::internal(format!("{id} is no view")));
        };
        let query = crate::parse::parse_query(query)?;
        crate::expansion::refuse_repetition(&*query)?;
        let zone = self.ctx.catalog.time_zone(id);
        let literals = (zone != *self.ctx.time_zone).then_some(zone);
        let outside = Outside {
            ctx: self.ctx,
            literals: std::mem::replace(&mut self.literals, literals),
            frames: std::mem::take(&mut self.frames),
            ctes: std::mem::take(&mut self.ctes),
            parameters: std::mem::take(&mut self.parameters),
            found: std::mem::take(&mut self.found),
        };
        self.ctx.text = "";
        self.views += 1;
        let plan = self.query(&query).and_then(|output| self.settled(output));
        self.views -= 1;
        self.ctx = outside.ctx;
        self.literals = outside.literals;
        self.frames = outside.frames;
        self.ctes = outside.ctes;
        self.parameters = outside.parameters;
        self.found = outside.found;
        self.as_catalogued(plan?, columns)
    }

    fn as_catalogued(
        &mut self,
        output: Output,
        columns: &[catalog::Column],
    ) -> Result<LogicalPlan, Error> {
        if output.columns.len() != columns.len() {
            return Err(Error::internal(
                "a view's query does not have the view's columns",
            ));
        }
        let qualifier = self.fresh();
        let schema = std::sync::Arc::clone(output.plan.schema());
        let projection = output
            .columns
            .into_iter()
            .zip(columns)
            .map(|(column, named)| {
                let value = Value::typed(Expr::Column(column.column), column.of);
                let value = self.coerce(value, &named.sql_type)?;
                let value = told(value.expr, &named.sql_type, &schema)?;
                Ok(value.alias_qualified(Some(qualifier.clone()), &named.name))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        project(output.plan, projection)
    }

    /// The query with what has no type as texts.
    fn settled(&mut self, output: Output) -> Result<Output, Error> {
        if output
            .columns
            .iter()
            .all(|column| column.of != Type::Unknown)
        {
            return Ok(output);
        }
        let targets: Vec<Type> = output
            .columns
            .iter()
            .map(|column| match &column.of {
                Type::Unknown => Type::Of(SqlType::Text),
                known => known.clone(),
            })
            .collect();
        self.as_types(output, &targets)
    }

    /// The query with its columns cast to `targets`, without a question to whom they were assigned: these are types they have in common with others.
    fn as_types(&mut self, output: Output, targets: &[Type]) -> Result<Output, Error> {
        let same = output
            .columns
            .iter()
            .zip(targets)
            .all(|(column, target)| column.of == *target);
        if same {
            return Ok(output);
        }
        let qualifier = self.fresh();
        let schema = std::sync::Arc::clone(output.plan.schema());
        let mut projection = Vec::new();
        let mut columns = Vec::new();
        for (column, target) in output.columns.into_iter().zip(targets) {
            let value = match &column.constant {
                Some(constant) if column.of == Type::Unknown => Value::unknown(constant.clone()),
                _ => Value::typed(Expr::Column(column.column.clone()), column.of.clone()),
            };
            let defaults = value.is_unknown();
            let expr = match target {
                Type::Of(sql_type) => {
                    let value = if defaults && *sql_type == SqlType::Text {
                        self.as_text_by_default(value)?
                    } else {
                        self.coerce(value, sql_type)?
                    };
                    told(value.expr, sql_type, &schema)?
                }
                Type::Unknown | Type::Row(_) => value.expr,
            };
            let name = &column.column.name;
            projection.push(expr.alias_qualified(Some(qualifier.clone()), name));
            columns.push(OutputColumn {
                column: Column::new(Some(qualifier.clone()), name),
                name: column.name,
                of: target.clone(),
                constant: None,
            });
        }
        Ok(Output {
            plan: project(output.plan, projection)?,
            columns,
        })
    }
}

/// What a view does not see of the statement that names it.
struct Outside<'a> {
    ctx: PlanContext<'a>,
    literals: Option<TimeZone>,
    frames: Vec<Frame>,
    ctes: Vec<Rc<Cte>>,
    parameters: Parameters,
    found: Vec<ObjectId>,
}

/// The projection of a plan to named expressions.
fn project(plan: LogicalPlan, exprs: Vec<Expr>) -> Result<LogicalPlan, Error> {
    made(Projection::try_new(exprs, std::sync::Arc::new(plan))).map(LogicalPlan::Projection)
}

/// Names of columns, so that each occurs once.
fn distinct_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            if seen.insert(name) {
                name.to_owned()
            } else {
                format!("{name}{INTERNAL}{index}")
            }
        })
        .collect()
}
