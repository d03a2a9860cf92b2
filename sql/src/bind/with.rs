//! WITH: named queries, recursive ones among them.
//!
//! Owns which of them are in scope where, and that each reference has a plan of its own. Called by [`super`] for each query and by [`super::from`] for each name.
//!
//! Invariants. A query is bound where it stands, whether it is named or not; the first reference takes that plan, any other binds it once more in the scope in which
//! it stands, so that qualifiers are never repeated.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arrow_schema::Schema;
use datafusion::common::{Column, TableReference};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{
    Cast, Expr, LogicalPlan, LogicalPlanBuilder, RecursiveQuery, SubqueryAlias,
};
use flowstone_types::SqlType;
use sqlparser::ast::{self, SetExpr, SetOperator, SetQuantifier};

use super::grouping::named;
use super::value::{Type, made};
use super::{Binder, Output, OutputColumn, distinct_names, project};
use crate::error::{Error, ErrorKind};
use crate::names::fold;

/// What a name in WITH stands for.
#[derive(Debug)]
enum Body {
    /// A query, and its plan if no reference has taken it.
    Query {
        query: Box<ast::Query>,
        /// Whether it can name itself.
        recursive: bool,
        plan: RefCell<Option<Box<Output>>>,
    },
    /// The rows of the recursion at hand, by the name of its working table.
    WorkingTable {
        name: String,
        /// Whether it was named.
        named: RefCell<usize>,
    },
}

/// A query that has a name.
#[derive(Debug)]
pub(super) struct Cte {
    name: String,
    /// The names of its columns, as far as they are given.
    aliases: Vec<String>,
    /// Its columns, once they are known.
    columns: Vec<(String, Type)>,
    body: Body,
    /// How many frames and names are in scope where it stands.
    frames: usize,
    ctes: usize,
}

impl Binder<'_> {
    /// Brings the queries of a WITH into scope.
    pub(super) fn with(&mut self, with: Option<&ast::With>) -> Result<(), Error> {
        let Some(with) = with else {
            return Ok(());
        };
        let before = self.ctes.len();
        for cte in &with.cte_tables {
            let name = fold(&cte.alias.name);
            if self
                .ctes
                .iter()
                .skip(before)
                .any(|known| known.name == name)
            {
                let error = Error::new(
                    ErrorKind::DuplicateAlias,
                    format!("WITH query name \"{name}\" specified more than once"),
                );
                return Err(self.placed(error, cte.alias.name.span));
            }
            if cte
                .alias
                .columns
                .iter()
                .any(|column| column.data_type.is_some())
            {
                return Err(Error::unsupported(
                    "column types in common table expressions are not supported",
                ));
            }
            let aliases: Vec<String> = cte
                .alias
                .columns
                .iter()
                .map(|column| fold(&column.name))
                .collect();
            let output = self.named_query(&name, &aliases, &cte.query, with.recursive)?;
            let columns = output
                .columns
                .iter()
                .map(|column| (column.name.clone(), column.of.clone()))
                .collect();
            self.ctes.push(Rc::new(Cte {
                name,
                aliases,
                columns,
                body: Body::Query {
                    query: cte.query.clone(),
                    recursive: with.recursive,
                    plan: RefCell::new(Some(Box::new(output))),
                },
                frames: self.frames.len(),
                ctes: self.ctes.len(),
            }));
        }
        Ok(())
    }

    /// The query of a name, its columns called by their aliases.
    fn named_query(
        &mut self,
        name: &str,
        aliases: &[String],
        query: &ast::Query,
        recursive: bool,
    ) -> Result<Output, Error> {
        let output = match recursive.then(|| terms(query)).flatten() {
            Some((first, next, all)) => self.recursive(name, aliases, query, first, next, all)?,
            None => self.query(query)?,
        };
        let output = self.settled(output)?;
        called(name, output, aliases)
    }

    /// `first UNION [ALL] next`, where `next` may name the whole.
    fn recursive(
        &mut self,
        name: &str,
        aliases: &[String],
        query: &ast::Query,
        first: &SetExpr,
        next: &SetExpr,
        all: bool,
    ) -> Result<Output, Error> {
        let ctes = self.ctes.len();
        let bound = self.with(query.with.as_ref()).and_then(|()| {
            let base = self.set_expr(first)?;
            let base = self.settled(base)?;
            let base = called(name, base, aliases)?;
            let base = self.under_own_names(base)?;
            self.recursion(name, base, next, all)
        });
        self.ctes.truncate(ctes);
        bound
    }

    fn recursion(
        &mut self,
        name: &str,
        base: Output,
        next: &SetExpr,
        all: bool,
    ) -> Result<Output, Error> {
        let own: Vec<SqlType> = base
            .columns
            .iter()
            .map(|column| match &column.of {
                Type::Of(of) => Ok(of.clone()),
                _ => Err(super::assign::row_as_value()),
            })
            .collect::<Result<_, _>>()?;
        let (step, working, times) = self.step(name, &base, next)?;
        if step.columns.len() != own.len() {
            return Err(Error::syntax(
                "each UNION query must have the same number of columns",
            ));
        }
        if times == 0 {
            return self.union(base, step, all);
        }
        if times > 1 {
            return Err(Error::unsupported(format!(
                "recursive reference to query \"{name}\" must not appear more than once"
            )));
        }
        let mut targets = Vec::with_capacity(own.len());
        let mut wider = false;
        for (index, ((known, column), of)) in
            base.columns.iter().zip(&step.columns).zip(&own).enumerate()
        {
            let overall = Self::common("UNION", [known.given(), column.given()])?;
            if overall == *of {
                targets.push(Type::Of(overall));
            } else if overall.without_modifier() == of.without_modifier() {
                // What a literal begins with says nothing of the digits that come.
                wider = true;
                targets.push(Type::Of(of.without_modifier()));
            } else {
                return Err(Error::new(
                    ErrorKind::DatatypeMismatch,
                    format!(
                        "recursive query \"{name}\" column {} has type {} in non-recursive term but type {} overall",
                        index + 1,
                        of.without_modifier(),
                        overall.without_modifier()
                    ),
                )
                .with_hint("Cast the output of the non-recursive term to the correct type."));
            }
        }
        if wider {
            let base = self.as_types(base, &targets)?;
            return self.recursion(name, base, next, all);
        }
        let step = self.as_types(step, &targets)?;
        let step = self.under_own_names(step)?;
        let recursive = made(RecursiveQuery::try_new(
            working,
            Arc::new(base.plan),
            Arc::new(step.plan),
            !all,
        ))?;
        self.renamed(LogicalPlan::RecursiveQuery(recursive), base.columns)
    }

    /// The query with its columns called in the plan as the user calls them and stored as their types are, as those of the working table are.
    pub(super) fn under_own_names(&mut self, output: Output) -> Result<Output, Error> {
        let qualifier = self.fresh();
        let schema = Arc::clone(output.plan.schema());
        let names = distinct_names(output.columns.iter().map(|column| column.name.as_str()));
        let mut exprs = Vec::with_capacity(names.len());
        let mut columns = Vec::with_capacity(names.len());
        for (known, name) in output.columns.into_iter().zip(names) {
            let expr = Expr::Column(known.column.clone());
            let found = schema.maybe_index_of_column(&known.column);
            let expr = match (&known.of, found) {
                (Type::Of(of), Some(index))
                    if *schema.field(index).data_type() != of.to_arrow() =>
                {
                    let target = Arc::new(of.to_field(&name, true));
                    Expr::Cast(Cast::new_from_field(Box::new(expr), target))
                }
                _ => expr,
            };
            let column = Column::new(Some(qualifier.clone()), name);
            exprs.push(named(expr, &column));
            columns.push(OutputColumn { column, ..known });
        }
        Ok(Output {
            plan: project(output.plan, exprs)?,
            columns,
        })
    }

    /// Binds the recursive term: its output, the name of the working table, and how often it was named.
    fn step(
        &mut self,
        name: &str,
        base: &Output,
        next: &SetExpr,
    ) -> Result<(Output, String, usize), Error> {
        let working = self.fresh().table().to_owned();
        let columns = base
            .columns
            .iter()
            .map(|column| (column.name.clone(), column.of.clone()))
            .collect();
        let cte = Rc::new(Cte {
            name: name.to_owned(),
            aliases: Vec::new(),
            columns,
            body: Body::WorkingTable {
                name: working.clone(),
                named: RefCell::new(0),
            },
            frames: self.frames.len(),
            ctes: self.ctes.len(),
        });
        let before = self.ctes.len();
        self.ctes.push(Rc::clone(&cte));
        let step = self.set_expr(next);
        self.ctes.truncate(before);
        let times = match &cte.body {
            Body::WorkingTable { named, .. } => *named.borrow(),
            Body::Query { .. } => 0,
        };
        Ok((step?, working, times))
    }

    /// The named query that a name in FROM stands for.
    pub(super) fn cte(&self, name: &str) -> Option<Rc<Cte>> {
        self.ctes.iter().rev().find(|cte| cte.name == name).cloned()
    }

    /// The rows of a named query for one reference, and its columns.
    pub(super) fn reference(
        &mut self,
        cte: &Cte,
    ) -> Result<(LogicalPlan, Vec<(String, Type)>), Error> {
        let plan = match &cte.body {
            Body::WorkingTable { name, named } => {
                *named.borrow_mut() += 1;
                self.working_table(name, &cte.columns)?
            }
            Body::Query {
                query,
                recursive,
                plan,
            } => match plan.take() {
                Some(output) => output.plan,
                None => self.bound_again(cte, query, *recursive)?.plan,
            },
        };
        let alias = self.fresh();
        let plan = made(SubqueryAlias::try_new(Arc::new(plan), alias))?;
        Ok((LogicalPlan::SubqueryAlias(plan), cte.columns.clone()))
    }

    /// The query where it stands, bound once more.
    fn bound_again(
        &mut self,
        cte: &Cte,
        query: &ast::Query,
        recursive: bool,
    ) -> Result<Output, Error> {
        let frames = self.frames.split_off(cte.frames.min(self.frames.len()));
        let ctes = self.ctes.split_off(cte.ctes.min(self.ctes.len()));
        let output = self.named_query(&cte.name, &cte.aliases, query, recursive);
        self.ctes.extend(ctes);
        self.frames.extend(frames);
        output
    }

    fn working_table(
        &mut self,
        name: &str,
        columns: &[(String, Type)],
    ) -> Result<LogicalPlan, Error> {
        let names = distinct_names(columns.iter().map(|(name, _)| name.as_str()));
        let fields: Vec<_> = names
            .iter()
            .zip(columns)
            .filter_map(|(name, (_, of))| Some(of.sql_type()?.to_field(name, true)))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let source = provider_as_source(Arc::new(CteWorkTable::new(name, schema)));
        made(
            LogicalPlanBuilder::scan(TableReference::bare(name), source, None)
                .and_then(LogicalPlanBuilder::build),
        )
    }
}

/// The terms of a query that may be recursive, and whether equal rows are kept.
fn terms(query: &ast::Query) -> Option<(&SetExpr, &SetExpr, bool)> {
    let plain = query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
    match &*query.body {
        SetExpr::SetOperation {
            left,
            op: SetOperator::Union,
            set_quantifier,
            right,
        } if plain => Some((left, right, *set_quantifier == SetQuantifier::All)),
        _ => None,
    }
}

/// The query with its columns called by their aliases.
fn called(name: &str, output: Output, aliases: &[String]) -> Result<Output, Error> {
    if aliases.len() > output.columns.len() {
        return Err(Error::new(
            ErrorKind::InvalidColumnReference,
            format!(
                "WITH query \"{name}\" has {} columns available but {} columns specified",
                output.columns.len(),
                aliases.len()
            ),
        ));
    }
    let mut columns: Vec<OutputColumn> = output.columns;
    for (column, alias) in columns.iter_mut().zip(aliases) {
        column.name.clone_from(alias);
    }
    Ok(Output {
        plan: output.plan,
        columns,
    })
}
