//! Scopes: what a name can stand for where it is written.
//!
//! Owns the stack of frames, one for each SELECT around the place, the relations of each FROM with their columns, and PostgreSQL's rules of visibility and
//! ambiguity. Must not know how relations become plans. Called by [`super::from`] to fill frames and by [`super::expr`] to look names up.
//!
//! Invariants. Every column of a frame is an expression over the plan that the frame's FROM becomes, and the qualifier of its column occurs once in the
//! statement: what a frame inside asks for is an outer reference that is never ambiguous.

use std::sync::Arc;

use arrow_schema::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::{Ident, Query};
use sqlparser::tokenizer::Span;

use super::grouping::Grouping;
use super::series::Series;
use super::subquery::Pending;
use super::value::{Type, Value, literal, made};
use super::window::NamedWindow;
use super::{Binder, Clause};
use crate::error::{Error, ErrorKind};
use crate::names::{self, INTERNAL, fold};

/// Columns that every relation has and no `*` shows.
const SYSTEM_COLUMNS: [&str; 5] = ["tableoid", "xmin", "xmax", "cmin", "cmax"];

/// A column that can be named.
#[derive(Clone, Debug)]
pub(super) struct ScopeColumn {
    /// Its name, folded.
    pub(super) name: String,
    /// Its value over the plan of the frame.
    pub(super) expr: Expr,
    /// Its type; never unknown.
    pub(super) of: Type,
}

/// A relation of the catalog, as far as names need it.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Its identity.
    pub(super) id: ObjectId,
    /// PostgreSQL's identity.
    pub(super) oid: u32,
    /// Positions of the columns of its primary key.
    pub(super) key: Option<Vec<usize>>,
}

/// An item of FROM.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    /// What it is called; empty for a join that has no name.
    pub(super) name: String,
    /// Database, schema and name of a relation of the catalog that is called by no alias.
    pub(super) qualified: Vec<String>,
    /// Its columns, in order.
    pub(super) columns: Vec<ScopeColumn>,
    /// Whether its name stands for it.
    pub(super) by_name: bool,
    /// Whether its columns can be named without it, and `*` shows them.
    pub(super) by_column: bool,
    /// Whether a lateral item may ask for its columns: not across RIGHT and FULL joins.
    pub(super) lateral: bool,
    /// Whether it is a function that yields values: its name stands for one.
    pub(super) is_value: bool,
    /// What it is in the catalog.
    pub(super) origin: Option<Origin>,
}

/// A column that a join with USING computes.
#[derive(Clone, Debug)]
pub(super) struct Computed {
    pub(super) column: Column,
    /// What of.
    pub(super) sources: Vec<Column>,
    pub(super) of: Type,
}

/// What is known of one SELECT while it is bound.
#[derive(Debug)]
pub(super) struct Frame {
    /// The items of its FROM so far.
    pub(super) relations: Vec<Relation>,
    /// The first of them that can be named at the place.
    pub(super) visible: usize,
    /// The columns that its joins compute of others.
    pub(super) merged: Vec<Computed>,
    /// Which part of it is bound.
    pub(super) clause: Clause,
    /// Subqueries of the part, which wait to be joined.
    pub(super) pending: Vec<Pending>,
    /// Subqueries of its list and its orders, with their values.
    pub(super) subqueries: Vec<(Query, Value)>,
    /// What set-returning functions of the part yield.
    pub(super) series: Vec<Series>,
    /// Its groups and aggregates.
    pub(super) grouping: Grouping,
    /// Its window functions, each with the column that it becomes.
    pub(super) windows: Vec<(Expr, Column)>,
    /// The windows that it names.
    pub(super) named_windows: Vec<NamedWindow>,
    /// Whether the place is an argument of an aggregate, or of a window function.
    pub(super) inside: Option<Clause>,
}

impl Frame {
    pub(super) fn new(clause: Clause) -> Self {
        Self {
            relations: Vec::new(),
            visible: 0,
            merged: Vec::new(),
            clause,
            pending: Vec::new(),
            subqueries: Vec::new(),
            series: Vec::new(),
            grouping: Grouping::default(),
            windows: Vec::new(),
            named_windows: Vec::new(),
            inside: None,
        }
    }

    /// Whether the place is behind the grouping, if there is any.
    pub(super) const fn is_behind_groups(&self) -> bool {
        let behind = matches!(
            self.clause,
            Clause::Having
                | Clause::Select
                | Clause::Qualify
                | Clause::OrderBy
                | Clause::DistinctOn
        );
        behind && !matches!(self.inside, Some(Clause::Aggregate | Clause::Filter))
    }

    fn visible(&self) -> impl Iterator<Item = &Relation> {
        self.relations.iter().skip(self.visible)
    }

    fn hidden(&self) -> impl Iterator<Item = &Relation> {
        self.relations.iter().take(self.visible)
    }
}

/// A column of a bound plan: its field, and the frame that it belongs to, counted from the outermost.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) field: FieldRef,
    pub(super) frame: usize,
}

fn missing_column(name: &str) -> Error {
    Error::new(
        ErrorKind::UndefinedColumn,
        format!("column \"{name}\" does not exist"),
    )
}

fn ambiguous(name: &str) -> Error {
    Error::new(
        ErrorKind::AmbiguousColumn,
        format!("column reference \"{name}\" is ambiguous"),
    )
}

/// What a search found in one frame.
enum Found {
    Nothing,
    One(Value),
}

impl Binder<'_> {
    /// A qualifier that nothing else in the statement has.
    pub(super) fn fresh(&mut self) -> TableReference {
        self.fresh_for("")
    }

    /// A qualifier that no other relation of the statement has, of what is called `name`: EXPLAIN shows that. On their way plans write and read qualifiers as SQL
    /// has them, so what would be read otherwise is left out.
    pub(super) fn fresh_for(&mut self, name: &str) -> TableReference {
        self.counter += 1;
        let is_plain = |letter: char| letter.is_alphanumeric() || letter == '_';
        let name = if name.chars().all(is_plain) { name } else { "" };
        TableReference::bare(format!("{name}{INTERNAL}{}", self.counter))
    }

    /// A column that nothing else in the statement is.
    pub(super) fn fresh_column(&mut self, name: &str) -> Column {
        Column::new(Some(self.fresh()), name)
    }

    /// A column without a qualifier, whose name no other has.
    pub(super) fn fresh_name(&mut self, word: &str) -> Column {
        self.counter += 1;
        Column::new_unqualified(format!("{INTERNAL}{word} {}", self.counter))
    }

    /// Notes a column of the frame at hand.
    pub(super) fn know(&mut self, column: Column, field: FieldRef) {
        let frame = self.frames.len().saturating_sub(1);
        self.know_in(frame, column, field);
    }

    /// Notes a column of a frame. A join that is made later may leave it out.
    pub(super) fn know_in(&mut self, frame: usize, column: Column, field: FieldRef) {
        let field = if field.is_nullable() && *field.name() == column.name {
            field
        } else {
            let field = field.as_ref().clone().with_name(column.name.clone());
            Arc::new(field.with_nullable(true))
        };
        self.known.insert(column, Known { field, frame });
    }

    /// Notes all columns of a plan of the frame at hand.
    pub(super) fn know_all(&mut self, schema: &DFSchema) {
        for (qualifier, field) in schema.iter() {
            let column = Column::new(qualifier.cloned(), field.name().clone());
            self.know(column, Arc::clone(field));
        }
    }

    /// A column of the frame at hand, of a type that is known before its plan is.
    pub(super) fn reserve(&mut self, name: &str, sql_type: &SqlType) -> Column {
        let column = self.fresh_column(name);
        self.know(column.clone(), Arc::new(sql_type.to_field(name, true)));
        column
    }

    pub(super) fn frame(&mut self) -> Result<&mut Frame, Error> {
        self.frames
            .last_mut()
            .ok_or_else(|| Error::internal("an expression outside of every query"))
    }

    /// The field of an expression over columns of frames.
    pub(super) fn field_of(&self, expr: &Expr) -> Result<FieldRef, Error> {
        let fields = expr.column_refs().into_iter().filter_map(|column| {
            let known = self.known.get(column)?;
            Some((column.relation.clone(), Arc::clone(&known.field)))
        });
        let schema = made(DFSchema::new_with_metadata(
            fields.collect(),
            std::collections::HashMap::new(),
        ))?;
        made(expr.to_field(&schema)).map(|(_, field)| field)
    }

    /// `expr` over the columns of a frame as a frame inside asks for it.
    pub(super) fn outward(&self, expr: Expr) -> Result<Expr, Error> {
        let outward = expr.transform(|part| match part {
            Expr::Column(column) => match self.known.get(&column) {
                Some(known) => Ok(Transformed::yes(Expr::OuterReferenceColumn(
                    Arc::clone(&known.field),
                    column,
                ))),
                None => Ok(Transformed::no(Expr::Column(column))),
            },
            other => Ok(Transformed::no(other)),
        });
        made(outward).map(|transformed| transformed.data)
    }

    /// The same for the columns of `schema` alone.
    pub(super) fn outward_of(expr: Expr, schema: &DFSchema) -> Result<Expr, Error> {
        let outward = expr.transform(|part| match part {
            Expr::Column(column) => match schema.maybe_index_of_column(&column) {
                Some(index) => Ok(Transformed::yes(Expr::OuterReferenceColumn(
                    Arc::clone(schema.field(index)),
                    column,
                ))),
                None => Ok(Transformed::no(Expr::Column(column))),
            },
            other => Ok(Transformed::no(other)),
        });
        made(outward).map(|transformed| transformed.data)
    }

    /// Adds an item to the FROM at hand.
    ///
    /// # Errors
    /// [`ErrorKind::DuplicateAlias`] if another one has its name.
    pub(super) fn push_relation(&mut self, relation: Relation) -> Result<(), Error> {
        let frame = self.frame()?;
        let clashes = frame.relations.iter().any(|other| {
            other.by_name
                && relation.by_name
                && other.name == relation.name
                && !relation.name.is_empty()
                && (other.qualified.is_empty()
                    || relation.qualified.is_empty()
                    || other.qualified == relation.qualified)
        });
        if clashes {
            return Err(Error::new(
                ErrorKind::DuplicateAlias,
                format!(
                    "table name \"{}\" specified more than once",
                    shown(&relation.name)
                ),
            ));
        }
        frame.relations.push(relation);
        Ok(())
    }

    /// The columns of a plan as those of a relation. `types`: the types of its columns.
    pub(super) fn columns_of(
        &mut self,
        plan: &LogicalPlan,
        named: impl IntoIterator<Item = (String, Type)>,
    ) -> Vec<ScopeColumn> {
        let schema = Arc::clone(plan.schema());
        self.know_all(&schema);
        schema
            .columns()
            .into_iter()
            .zip(named)
            .map(|(column, (name, of))| ScopeColumn {
                name,
                expr: Expr::Column(column),
                of,
            })
            .collect()
    }

    /// The value of a column of a frame, at the place.
    fn seen_from_here(&self, frame: usize, expr: &Expr, of: &Type) -> Result<Value, Error> {
        if frame + 1 == self.frames.len() {
            return Ok(Value::typed(expr.clone(), of.clone()));
        }
        if let Some(outer) = self.frames.get(frame)
            && outer.is_behind_groups()
        {
            let columns = expr.column_refs().into_iter().cloned();
            outer.grouping.asked.borrow_mut().extend(columns);
        }
        Ok(Value::typed(self.outward(expr.clone())?, of.clone()))
    }

    /// What a name without a relation stands for.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedColumn`], [`ErrorKind::AmbiguousColumn`], with the position.
    pub(super) fn column(&self, ident: &Ident) -> Result<Value, Error> {
        let name = fold(ident);
        let placed = |error: Error| self.placed(error, ident.span);
        match self.find_column(&name).map_err(placed)? {
            Some(value) => Ok(spanned(value, ident.span)),
            None => {
                // The name of a relation is its row.
                if let Some(row) = self.whole_row(std::slice::from_ref(ident))? {
                    return Ok(row);
                }
                let mut error = missing_column(&shown(&name));
                let hidden = self.frames.iter().flat_map(Frame::hidden);
                let mut hidden = hidden.filter(|relation| {
                    relation.columns.iter().any(|column| column.name == name)
                        && !relation.name.is_empty()
                });
                if let Some(relation) = hidden.next() {
                    error = error.with_hint(format!(
                        "There is a column named \"{}\" in table \"{}\", but it cannot be referenced from this part of the query.",
                        shown(&name),
                        shown(&relation.name)
                    ));
                }
                Err(self.placed(error, ident.span))
            }
        }
    }

    /// The column called `name` in the innermost frame that has one.
    pub(super) fn find_column(&self, name: &str) -> Result<Option<Value>, Error> {
        for index in (0..self.frames.len()).rev() {
            if let Found::One(value) = self.column_in(index, name)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Whether the innermost frame has a column called `name`.
    pub(super) fn has_own_column(&self, name: &str) -> Result<bool, Error> {
        match self.frames.len().checked_sub(1) {
            Some(index) => Ok(matches!(self.column_in(index, name)?, Found::One(_))),
            None => Ok(false),
        }
    }

    fn column_in(&self, index: usize, name: &str) -> Result<Found, Error> {
        let Some(frame) = self.frames.get(index) else {
            return Ok(Found::Nothing);
        };
        let mut found: Option<&ScopeColumn> = None;
        for relation in frame.visible().filter(|relation| relation.by_column) {
            for column in relation.columns.iter().filter(|column| column.name == name) {
                if found.is_some() {
                    return Err(ambiguous(&shown(name)));
                }
                if !relation.lateral {
                    return Err(not_lateral(&relation.name));
                }
                found = Some(column);
            }
        }
        if let Some(column) = found {
            return self
                .seen_from_here(index, &column.expr, &column.of)
                .map(Found::One);
        }
        if SYSTEM_COLUMNS.contains(&name) {
            let mut origins = frame.visible().filter_map(|item| item.origin.as_ref());
            match (origins.next(), origins.next()) {
                (Some(origin), None) => return Ok(Found::One(self.system_column(origin, name))),
                (Some(_), Some(_)) => return Err(ambiguous(name)),
                _ => {}
            }
        }
        Ok(Found::Nothing)
    }

    fn system_column(&self, origin: &Origin, name: &str) -> Value {
        let value = match name {
            "tableoid" => origin.oid,
            "xmin" => super::catalog_functions::transaction_id(&self.ctx),
            _ => 0,
        };
        literal(
            datafusion::common::ScalarValue::UInt32(Some(value)),
            &SqlType::Oid,
        )
    }

    /// The relation that a name, perhaps with its schema, stands for, and the frame that it is in.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedTable`], with the position.
    fn relation(&self, parts: &[Ident]) -> Result<Option<(usize, &Relation)>, Error> {
        let wanted: Vec<String> = parts.iter().map(fold).collect();
        let is_meant = |relation: &&Relation| match wanted.as_slice() {
            [name] => relation.name == *name,
            _ => relation.qualified.ends_with(&wanted),
        };
        for (index, frame) in self.frames.iter().enumerate().rev() {
            let mut found = frame
                .visible()
                .filter(|relation| relation.by_name)
                .filter(is_meant);
            match (found.next(), found.next()) {
                (Some(relation), None) if relation.lateral => return Ok(Some((index, relation))),
                (Some(relation), None) => {
                    return Err(not_lateral(&relation.name));
                }
                (Some(relation), Some(_)) => {
                    return Err(Error::new(
                        ErrorKind::AmbiguousColumn,
                        format!("table reference \"{}\" is ambiguous", shown(&relation.name)),
                    ));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The error for a relation that no name of the place stands for.
    fn missing_relation(&self, parts: &[Ident]) -> Error {
        let name = parts.last().map(fold).unwrap_or_default();
        let invalid = || {
            Error::new(
                ErrorKind::UndefinedTable,
                format!(
                    "invalid reference to FROM-clause entry for table \"{}\"",
                    shown(&name)
                ),
            )
        };
        let mut hidden = self.frames.iter().flat_map(Frame::hidden);
        if hidden.any(|relation| relation.by_name && relation.name == name) {
            return invalid().with_hint(format!(
                "There is an entry for table \"{}\", but it cannot be referenced from this part of the query.",
                shown(&name)
            ));
        }
        // The name that the catalog has, where an alias hides it.
        let all = self.frames.iter().flat_map(|frame| &frame.relations);
        let aliased = all
            .filter(|relation| relation.name != name)
            .find(|relation| {
                relation.origin.as_ref().is_some_and(|origin| {
                    let item = self.ctx.catalog.items.get(&origin.id);
                    item.is_some_and(|item| item.name == name)
                })
            });
        if let Some(relation) = aliased {
            return invalid().with_hint(format!(
                "Perhaps you meant to reference the table alias \"{}\".",
                shown(&relation.name)
            ));
        }
        Error::new(
            ErrorKind::UndefinedTable,
            format!("missing FROM-clause entry for table \"{}\"", shown(&name)),
        )
    }

    /// What a column with its relation's name stands for.
    ///
    /// # Errors
    /// As PostgreSQL, with the position.
    pub(super) fn qualified_column(&self, parts: &[Ident]) -> Result<Value, Error> {
        let Some((ident, of)) = parts.split_last() else {
            return Err(Error::internal("a name without parts"));
        };
        let span = parts.first().map_or(ident.span, |first| first.span);
        let placed = |error: Error| self.placed(error, span);
        let Some((frame, relation)) = self.relation(of).map_err(placed)? else {
            return Err(placed(self.missing_relation(of)));
        };
        let name = fold(ident);
        let mut found = relation.columns.iter().filter(|column| column.name == name);
        match (found.next(), found.next()) {
            (Some(column), None) => self
                .seen_from_here(frame, &column.expr, &column.of)
                .map(|value| spanned(value, span)),
            (Some(_), Some(_)) => Err(placed(ambiguous(&shown(&name)))),
            _ => match &relation.origin {
                Some(origin) if SYSTEM_COLUMNS.contains(&name.as_str()) => {
                    Ok(self.system_column(origin, &name))
                }
                _ => Err(placed(Error::new(
                    ErrorKind::UndefinedColumn,
                    format!(
                        "column {}.{} does not exist",
                        shown(&relation.name),
                        shown(&name)
                    ),
                ))),
            },
        }
    }

    /// The row of the relation that a name stands for; `None` if it stands for none.
    pub(super) fn whole_row(&self, parts: &[Ident]) -> Result<Option<Value>, Error> {
        let span = parts.first().map_or_else(Span::empty, |first| first.span);
        let placed = |error: Error| self.placed(error, span);
        let Some((frame, relation)) = self.relation(parts).map_err(placed)? else {
            return Ok(None);
        };
        // A function that yields one value is that value.
        if relation.is_value
            && let Some(column) = relation.columns.first()
        {
            return self
                .seen_from_here(frame, &column.expr, &column.of)
                .map(Some);
        }
        let fields = relation
            .columns
            .iter()
            .map(|column| {
                let value = self.seen_from_here(frame, &column.expr, &column.of)?;
                Ok((column.name.clone(), value))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Value::record(fields).map(Some)
    }

    /// The columns that `relation.*` shows.
    ///
    /// # Errors
    /// [`ErrorKind::UndefinedTable`], with the position.
    pub(super) fn all_of(&self, parts: &[Ident]) -> Result<Vec<ScopeColumn>, Error> {
        let span = parts.first().map_or_else(Span::empty, |first| first.span);
        let placed = |error: Error| self.placed(error, span);
        let Some((frame, relation)) = self.relation(parts).map_err(placed)? else {
            return Err(placed(self.missing_relation(parts)));
        };
        relation
            .columns
            .iter()
            .map(|column| {
                let value = self.seen_from_here(frame, &column.expr, &column.of)?;
                Ok(ScopeColumn {
                    name: column.name.clone(),
                    expr: value.expr,
                    of: value.of,
                })
            })
            .collect()
    }

    /// The columns that `*` shows.
    pub(super) fn everything(&self) -> Vec<ScopeColumn> {
        let visible = self.frames.last().into_iter().flat_map(Frame::visible);
        visible
            .filter(|relation| relation.by_column)
            .flat_map(|relation| relation.columns.clone())
            .collect()
    }

    /// The error with the position of a token.
    pub(super) fn placed(&self, error: Error, span: Span) -> Error {
        match (error.position, names::position(&self.ctx, span)) {
            (None, Some(position)) => error.at(position),
            _ => error,
        }
    }
}

/// A column that knows where it is written.
fn spanned(mut value: Value, span: Span) -> Value {
    if let Expr::Column(column) = &mut value.expr
        && let Some(span) = datafusion::common::Span::try_from_sqlparser_span(span)
    {
        column.spans.add_span(span);
    }
    value
}

fn not_lateral(name: &str) -> Error {
    Error::new(
        ErrorKind::InvalidColumnReference,
        format!(
            "invalid reference to FROM-clause entry for table \"{}\"",
            shown(name)
        ),
    )
    .with_detail("The combining JOIN type must be INNER or LEFT for a LATERAL reference.")
}

/// A name without what makes it occur once.
pub(super) fn shown(name: &str) -> String {
    name.split(INTERNAL).next().unwrap_or_default().to_owned()
}
