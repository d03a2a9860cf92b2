//! SELECT: planning, the epoch it reads, and the peek.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{Array, ArrayRef, Int64Array, StringArray};
use arrow_schema::SchemaRef;
use flowstone_proto::ipc::WireBatch;
use flowstone_proto::local::Lack;
use flowstone_proto::message::{Command, Lookup, Peek, ReadAt, RequestError};
use flowstone_sql::Catalog;
use flowstone_sql::ast::{AsOf, QueryStatement, Statement, StatementKind};
use flowstone_sql::catalog::{ItemKind, SchemaId};
use flowstone_sql::error::ErrorKind;
use flowstone_sql::plan::{LookupPlan, PlannedQuery, assignments, plan_query, recognise_lookup};
use flowstone_types::datetime::{TimeZone, parse_timestamptz};
use flowstone_types::{ClusterId, Epoch, ObjectId, SqlType};
use sqlparser::ast::{Expr, ObjectNamePart, Query, Visit, Visitor};

use super::Session;
use super::stream::{Request, nullable, relabel};
use super::transaction::{Class, Mode, ReadTransaction, Transaction};
use super::waits;
use crate::error::{Error, TransactionError};
use crate::holds::Hold;
use crate::outcome::{Outcome, RowStream};
use crate::variables::Settings;

/// Recognised lookups are remembered for this many statements.
const LOOKUPS_MAX: usize = 256;

/// What a view that reads nothing may hold.
const CONSTANT_VIEW_BYTES: usize = 256 << 20;

/// A statement that is a lookup, and under which circumstances it is.
#[derive(Debug)]
pub(super) struct KnownLookup {
    types: Vec<Option<SqlType>>,
    /// The very catalog: any other may give the names another meaning.
    catalog: Arc<Catalog>,
    /// What names were looked up in: the settings, of which database, search path and cluster count.
    settings: Arc<Settings>,
    /// The columns of the result, all nullable.
    schema: SchemaRef,
    planned: PlannedQuery,
    plan: LookupPlan,
    /// Whether the tables of sources that it reads were seen to have their first content, which they do not lose.
    visible: AtomicBool,
}

/// When a statement reads, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AsOfEpoch {
    Exactly(Epoch),
    AtLeast(Epoch),
}

impl Session {
    pub(super) async fn select(
        &mut self,
        statement: &Statement,
        query: &QueryStatement,
        parameters: &[ArrayRef],
    ) -> Result<Outcome, Error> {
        let (schema, rows) = self.read(statement, query, parameters).await?;
        Ok(Outcome::Rows {
            verb: "SELECT",
            schema,
            rows,
        })
    }

    /// Runs a query.
    pub(super) async fn read(
        &mut self,
        statement: &Statement,
        query: &QueryStatement,
        parameters: &[ArrayRef],
    ) -> Result<(SchemaRef, RowStream), Error> {
        self.commit_pending(&Class::Read).await?;
        if query.as_of.is_none()
            && let Some(known) = self.known_lookup(statement, parameters)
            && self.parts.reported.is_hydrated(known.plan.index)
        {
            return self.look_up(&known, parameters).await;
        }
        let types = self.parameter_types(statement, parameters);
        let as_of = self.resolve_as_of(query.as_of.as_ref()).await?;
        let assigned = assignments(&query.query)?;
        let mut planner = self.planner(statement);
        planner.assigns = true;
        let epoch = self
            .transaction_epoch()
            .unwrap_or_else(|| self.parts.timeline.read_epoch());
        planner.transaction_epoch = Some(match as_of {
            Some(AsOfEpoch::Exactly(epoch)) => epoch,
            Some(AsOfEpoch::AtLeast(least)) => epoch.max(least),
            None => epoch,
        });
        let catalog = Arc::clone(&planner.catalog);
        let (tree, known_types) = (query.query.clone(), types.clone());
        let bound = parameters.to_vec();
        let may_look_up = as_of.is_none();
        let cluster = self.session_cluster(&catalog);
        let reported = Arc::clone(&self.parts.reported);
        let planning = planner.run(move |ctx| {
            let planned = plan_query(ctx, &tree, &known_types)?;
            let is_hydrated = |id| reported.is_hydrated(id);
            let lookup = recognise_lookup(ctx.catalog, &planned, cluster, &is_hydrated);
            match lookup.filter(|_| may_look_up) {
                Some(lookup) => Ok((planned, Some(lookup))),
                None => Ok((planned.bind(&bound)?, None)),
            }
        });
        let (planned, lookup) = planning.await?;
        for assignment in &assigned {
            self.set_variable(assignment)?;
        }
        if let Some(lookup) = lookup {
            let known = self.remember_lookup(statement, types, catalog, planned, lookup);
            return self.look_up(&known, parameters).await;
        }
        if !planned.reads.is_empty() {
            self.transaction.admit(&Class::Read)?;
        }
        let exact = asks_for_epoch(&catalog, &query.query, &planned.depends_on);
        let (at, hold) = self
            .read_at(&catalog, &planned, as_of, exact.then_some(epoch))
            .await?;
        self.peek(planned, at, hold).await
    }

    /// The cluster that the session prefers; `None` if there is none of that name.
    pub(super) fn session_cluster(&self, catalog: &Catalog) -> Option<ClusterId> {
        let name = &self.variables.settings().cluster;
        catalog.reading_cluster(name).ok()
    }

    /// The lookup that a statement was recognised to be, if it still means the same.
    fn known_lookup(
        &self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Option<Arc<KnownLookup>> {
        let known = self.lookups.get(&statement.text)?;
        let better = &known.plan.better;
        let same = known.types == self.parameter_types(statement, parameters)
            && self.parts.catalog.is(&known.catalog)
            && known.settings.names_as(self.variables.settings())
            && !better.iter().any(|id| self.parts.reported.is_hydrated(*id));
        same.then(|| Arc::clone(known))
    }

    fn remember_lookup(
        &mut self,
        statement: &Statement,
        types: Vec<Option<SqlType>>,
        catalog: Arc<Catalog>,
        planned: PlannedQuery,
        plan: LookupPlan,
    ) -> Arc<KnownLookup> {
        let known = Arc::new(KnownLookup {
            types,
            catalog,
            settings: Arc::clone(self.variables.settings()),
            schema: nullable(&planned.schema),
            planned,
            plan,
            visible: AtomicBool::new(false),
        });
        if self.lookups.len() >= LOOKUPS_MAX {
            self.lookups.pop_first();
        }
        self.lookups
            .insert(statement.text.clone(), Arc::clone(&known));
        known
    }

    /// The answer to a statement that is known to be a lookup, if nothing has to be waited for: made on this thread, from the shard.
    pub(super) fn look_up_at_once(
        &self,
        statement: &Statement,
        parameters: &[ArrayRef],
    ) -> Option<Result<Outcome, Error>> {
        // In a block other rules hold, and staged writes come first.
        if !matches!(
            self.transaction,
            Transaction::Idle | Transaction::Implicit(Mode::Undecided)
        ) {
            return None;
        }
        match &statement.kind {
            StatementKind::Query(query) if query.as_of.is_none() => {}
            _ => return None,
        }
        let known = self.known_lookup(statement, parameters)?;
        if !known.visible.load(Ordering::Relaxed) {
            return None;
        }
        let rows = || {
            let parameters = known.planned.check_parameters(parameters)?;
            let Some(key) = known.plan.key(parameters)? else {
                return Ok(Some(Vec::new()));
            };
            let at = ReadAt::AtLeast(self.parts.timeline.read_epoch());
            let found = self.parts.reported.direct.get().and_then(|direct| {
                direct.lookup(known.plan.index, key.columns(), &known.plan.projection, at)
            });
            match found.transpose()? {
                Some((_, batch)) => Ok(Some(vec![relabel(&known.schema, &batch)?])),
                None => Ok(None),
            }
        };
        let outcome = |rows| Outcome::Rows {
            verb: "SELECT",
            schema: Arc::clone(&known.schema),
            rows: RowStream::of(rows),
        };
        rows()
            .transpose()
            .map(|rows: Result<Vec<_>, Error>| rows.map(outcome))
    }

    /// Reads the rows of one key: no plan is made, shipped or run.
    async fn look_up(
        &mut self,
        known: &KnownLookup,
        parameters: &[ArrayRef],
    ) -> Result<(SchemaRef, RowStream), Error> {
        self.transaction.admit(&Class::Read)?;
        let schema = Arc::clone(&known.schema);
        let (at, hold) = self
            .read_at(&known.catalog, &known.planned, None, None)
            .await?;
        let reads = &known.planned.reads;
        self.run_reading(reads, self.wait_visible(reads)).await?;
        known.visible.store(true, Ordering::Relaxed);
        let parameters = known.planned.check_parameters(parameters)?;
        let Some(key) = known.plan.key(parameters)? else {
            return Ok((schema, RowStream::of(Vec::new())));
        };
        let request = self.parts.numbers.next_request();
        let mut reads = reads.clone();
        reads.push(known.plan.index);
        let stream = Request::open(&self.parts, request, hold).reading(reads);
        self.limits
            .run(self.parts.worker.send(Command::Lookup(Lookup {
                request,
                index: known.plan.index,
                key: WireBatch(key),
                projection: known.plan.projection.clone(),
                at,
            })))
            .await?;
        let rows = stream.into_rows(Arc::clone(&schema), self.limits.clone());
        Ok((schema, rows))
    }

    /// Sends a planned query to the worker.
    pub(super) async fn peek(
        &self,
        planned: PlannedQuery,
        at: ReadAt,
        hold: Option<Hold>,
    ) -> Result<(SchemaRef, RowStream), Error> {
        let schema = nullable(&planned.schema);
        let request = self.send_peek(planned, at, hold).await?;
        let rows = request.into_rows(Arc::clone(&schema), self.limits.clone());
        Ok((schema, rows))
    }

    async fn send_peek(
        &self,
        planned: PlannedQuery,
        at: ReadAt,
        hold: Option<Hold>,
    ) -> Result<Request, Error> {
        let reads = planned.reads.clone();
        self.run_reading(&reads, self.wait_visible(&reads)).await?;
        let system = self.system_relations(&planned.system)?;
        let encoding = crate::planning::blocking(move || planned.encode().map_err(Error::from));
        let query = self.limits.run(encoding).await?;
        let request = self.parts.numbers.next_request();
        let stream = Request::open(&self.parts, request, hold).reading(reads);
        self.limits
            .run(self.parts.worker.send(Command::Peek(Peek {
                request,
                query,
                system,
                at,
            })))
            .await?;
        Ok(stream)
    }

    /// Checks what would be maintained of nothing but constants: it is computed once here, where it can be cancelled and has a bound, before shards do it.
    pub(super) async fn afford(&self, planned: PlannedQuery) -> Result<(), Error> {
        if !planned.constant {
            return Ok(());
        }
        let request = self
            .send_peek(planned, ReadAt::AtLeast(Epoch::MIN), None)
            .await?;
        self.limits.run(request.weigh(CONSTANT_VIEW_BYTES)).await
    }

    /// The value of an expression without columns.
    pub(super) async fn evaluate(
        &self,
        expr: &Expr,
        as_type: Option<&SqlType>,
    ) -> Result<ArrayRef, Error> {
        let expr = flowstone_sql::parse::expr_text(expr)?;
        let text = match as_type {
            Some(sql_type) => format!("SELECT CAST({expr} AS {})", sql_type.spelling()),
            None => format!("SELECT {expr}"),
        };
        let tree = flowstone_sql::parse::parse_query(&text)?;
        let mut planner = self.planner_without_text();
        planner.transaction_epoch = Some(self.parts.timeline.read_epoch());
        let planned = planner.run(move |ctx| plan_query(ctx, &tree, &[])).await?;
        if !planned.constant {
            return Err(flowstone_sql::Error::unsupported("a subquery is not allowed here").into());
        }
        let request = self
            .send_peek(planned, ReadAt::AtLeast(Epoch::MIN), None)
            .await?;
        let batches = self.limits.run(request.collect()).await?;
        let value = batches
            .iter()
            .find(|batch| batch.num_rows() > 0)
            .and_then(|batch| batch.columns().first());
        value
            .map(|column| column.slice(0, 1))
            .ok_or_else(|| Error::Internal("an expression has no value".to_owned()))
    }

    /// What `AS OF` says.
    pub(super) async fn resolve_as_of(
        &self,
        as_of: Option<&AsOf>,
    ) -> Result<Option<AsOfEpoch>, Error> {
        let Some(as_of) = as_of else { return Ok(None) };
        let epoch = self.epoch_of(&as_of.at, "AS OF").await?;
        Ok(Some(if as_of.at_least {
            AsOfEpoch::AtLeast(epoch)
        } else {
            AsOfEpoch::Exactly(epoch)
        }))
    }

    /// An epoch from an expression: a number or text of milliseconds, or a timestamp.
    pub(super) async fn epoch_of(&self, expr: &Expr, clause: &str) -> Result<Epoch, Error> {
        let value = self.evaluate(expr, None).await?;
        let invalid = || {
            let message = format!("can't use {expr} as a mz_timestamp for {clause}");
            Error::Sql(flowstone_sql::Error::new(
                ErrorKind::InvalidParameterValue,
                message,
            ))
        };
        milliseconds(&value, self.time_zone())
            .and_then(|number| u64::try_from(number).ok())
            .map(Epoch)
            .ok_or_else(invalid)
    }

    /// Runs what waits until `reads` can be read, and tells the client what of that is not so.
    pub(super) async fn run_reading<T>(
        &self,
        reads: &[ObjectId],
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let parts = &self.parts;
        let what = || waits::for_reads(&parts.catalog, &parts.timeline, &parts.reported, reads);
        self.limits.run_telling(what, work).await
    }

    /// Waits until the tables of sources that are read have their first content: before it there is nothing to be consistent with.
    pub(super) async fn wait_visible(&self, reads: &[ObjectId]) -> Result<(), Error> {
        let wanted = transitive_source_tables(&self.parts.catalog.now(), reads);
        if wanted.is_empty() {
            return Ok(());
        }
        let mut published = self.parts.timeline.published.clone();
        loop {
            published.mark_unchanged();
            let catalog = self.parts.catalog.now();
            {
                let runtime = self.parts.reported.runtime.lock();
                let missing = wanted
                    .iter()
                    .any(|id| catalog.items.contains_key(id) && !runtime.visible.contains(id));
                if !missing {
                    return Ok(());
                }
            }
            if !reads.iter().all(|id| catalog.items.contains_key(id)) {
                return Err(RequestError::Dropped.into());
            }
            published
                .changed()
                .await
                .map_err(|_| self.parts.liveness.gone())?;
        }
    }

    /// Waits until nothing that is read lacks what has yet to come in at the newest epoch, which is returned.
    async fn wait_whole(&self, reads: &[ObjectId]) -> Result<Epoch, Error> {
        let mut published = self.parts.timeline.published.clone();
        loop {
            let newest = published.borrow_and_update().observable;
            if self.are_whole(reads, newest) {
                return Ok(newest);
            }
            published
                .changed()
                .await
                .map_err(|_| self.parts.liveness.gone())?;
        }
    }

    /// Whether nothing that is read lacks what has yet to come in at an epoch.
    fn are_whole(&self, reads: &[ObjectId], epoch: Epoch) -> bool {
        let Some(direct) = self.parts.reported.direct.get() else {
            return true;
        };
        reads
            .iter()
            .all(|id| direct.lack(*id, epoch) != Some(Lack::Input))
    }

    /// Waits until the views that are read have been hydrated, and everything that is read lacks nothing.
    ///
    /// # Errors
    /// One of them is paused: it would be waited for until somebody lets it go on.
    pub(super) async fn wait_computed(&self, reads: &[ObjectId]) -> Result<(), Error> {
        let mut published = self.parts.timeline.published.clone();
        loop {
            published.mark_unchanged();
            if self.are_computed(reads)? {
                return Ok(());
            }
            // A view that is paused or dropped meanwhile is noticed with the next epoch.
            published
                .changed()
                .await
                .map_err(|_| self.parts.liveness.gone())?;
        }
    }

    /// Whether the views among `reads` have been hydrated, or have failed, so that reading them says so; and nothing lacks what has yet to come in.
    ///
    /// # Errors
    /// One of them is paused, or something is gone.
    pub(super) fn are_computed(&self, reads: &[ObjectId]) -> Result<bool, Error> {
        let catalog = self.parts.catalog.now();
        let newest = self.parts.timeline.published.borrow().observable;
        let mut computed = self.are_whole(reads, newest);
        for id in reads {
            let item = catalog.items.get(id).ok_or(RequestError::Dropped)?;
            if !matches!(item.kind, ItemKind::MaterializedView { .. }) {
                continue;
            }
            catalog.refuse_paused(*id)?;
            computed &= self.parts.reported.is_hydrated(*id)
                || self
                    .parts
                    .reported
                    .runtime
                    .lock()
                    .dataflow_errors
                    .contains_key(id);
        }
        Ok(computed)
    }

    /// The epoch of the running read transaction.
    fn transaction_epoch(&self) -> Option<Epoch> {
        match &self.transaction {
            Transaction::Explicit(Mode::Read(read)) => Some(read.epoch()),
            _ => None,
        }
    }

    /// When a query reads, and what keeps that readable. `exact`: the epoch that the query was told.
    pub(super) async fn read_at(
        &mut self,
        catalog: &Catalog,
        planned: &PlannedQuery,
        as_of: Option<AsOfEpoch>,
        exact: Option<Epoch>,
    ) -> Result<(ReadAt, Option<Hold>), Error> {
        match as_of {
            Some(AsOfEpoch::Exactly(epoch)) => {
                let hold = self.hold(epoch)?;
                return Ok((ReadAt::Exactly(epoch), Some(hold)));
            }
            Some(AsOfEpoch::AtLeast(epoch)) => {
                return Ok((
                    ReadAt::AtLeast(epoch.max(self.read_epoch_for_level())),
                    None,
                ));
            }
            None => {}
        }
        if matches!(self.transaction, Transaction::Explicit(_)) && !planned.reads.is_empty() {
            return self.read_at_in_block(catalog, planned).await;
        }
        match exact {
            Some(epoch) if !planned.reads.is_empty() => {
                Ok((ReadAt::Exactly(epoch), Some(self.hold(epoch)?)))
            }
            _ => Ok((ReadAt::AtLeast(self.read_epoch_for_level()), None)),
        }
    }

    async fn read_at_in_block(
        &mut self,
        catalog: &Catalog,
        planned: &PlannedQuery,
    ) -> Result<(ReadAt, Option<Hold>), Error> {
        let domain = schemas_of(catalog, &planned.depends_on);
        if let Transaction::Explicit(Mode::Undecided) = &self.transaction {
            let floor = self.parts.timeline.published.borrow().read_floor;
            let mut published = self.parts.timeline.published.clone();
            let reached = async {
                match published
                    .wait_for(|published| published.observable >= floor)
                    .await
                {
                    Ok(_) => Ok(()),
                    Err(_) => Err(self.parts.liveness.gone()),
                }
            };
            let reads = &planned.reads;
            self.run_reading(reads, reached).await?;
            self.run_reading(reads, self.wait_visible(reads)).await?;
            // It is read at this very epoch, which must be none that it never was whole at.
            let epoch = self.run_reading(reads, self.wait_whole(reads)).await?;
            let hold = self.hold(epoch)?;
            self.transaction = Transaction::Explicit(Mode::Read(ReadTransaction {
                hold,
                domain: domain.clone(),
            }));
        }
        let Transaction::Explicit(Mode::Read(read)) = &self.transaction else {
            return Err(TransactionError::WriteOnly.into());
        };
        if !domain.is_subset(&read.domain) {
            let inside = |id: &ObjectId| {
                catalog
                    .items
                    .get(id)
                    .is_none_or(|item| read.domain.contains(&item.schema))
            };
            let outside = planned.depends_on.iter().filter(|id| !inside(id));
            let available = catalog
                .items
                .values()
                .filter(|item| item.columns().is_some() && read.domain.contains(&item.schema))
                .map(|item| item.id);
            return Err(TransactionError::Timedomain {
                outside: outside.map(|id| qualified_name(catalog, *id)).collect(),
                available: available.map(|id| qualified_name(catalog, id)).collect(),
            }
            .into());
        }
        let epoch = read.epoch();
        Ok((ReadAt::Exactly(epoch), Some(self.hold(epoch)?)))
    }

    /// The epoch that a read is at or above.
    fn read_epoch_for_level(&self) -> Epoch {
        if self.variables.settings().strict {
            self.parts.timeline.read_epoch()
        } else {
            Epoch::MIN
        }
    }

    /// Keeps an epoch readable.
    pub(super) fn hold(&self, epoch: Epoch) -> Result<Hold, Error> {
        self.parts.timeline.holds.hold(epoch).map_err(|since| {
            RequestError::SinceAdvanced {
                asked: epoch,
                since,
            }
            .into()
        })
    }
}

/// The name of an item with its schema and database, each in double quotes.
pub(super) fn qualified_name(catalog: &Catalog, id: ObjectId) -> String {
    let Some(item) = catalog.items.get(&id) else {
        return id.to_string();
    };
    let schema = catalog.schemas.get(&item.schema);
    let database = schema
        .and_then(|schema| schema.database)
        .and_then(|id| catalog.databases.get(&id));
    let parts = [
        database.map(|found| &found.name),
        schema.map(|found| &found.name),
        Some(&item.name),
    ];
    parts
        .into_iter()
        .flatten()
        .map(|part| format!("\"{part}\""))
        .collect::<Vec<_>>()
        .join(".")
}

fn schemas_of(catalog: &Catalog, items: &[ObjectId]) -> BTreeSet<SchemaId> {
    items
        .iter()
        .filter_map(|id| catalog.items.get(id))
        .map(|item| item.schema)
        .collect()
}

/// The tables of sources under some relations, through views and materialized views.
pub(super) fn transitive_source_tables(
    catalog: &Catalog,
    relations: &[ObjectId],
) -> BTreeSet<ObjectId> {
    transitive(catalog, relations, |kind| {
        matches!(
            kind,
            ItemKind::Table {
                source: Some(_),
                ..
            }
        )
    })
}

/// The tables written by statements under some relations, through views and materialized views.
pub(super) fn transitive_tables(catalog: &Catalog, relations: &[ObjectId]) -> BTreeSet<ObjectId> {
    transitive(catalog, relations, |kind| {
        matches!(kind, ItemKind::Table { source: None, .. })
    })
}

fn transitive(
    catalog: &Catalog,
    relations: &[ObjectId],
    wanted: impl Fn(&ItemKind) -> bool,
) -> BTreeSet<ObjectId> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut waiting = relations.to_vec();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(item) = catalog.items.get(&id) else {
            continue;
        };
        if wanted(&item.kind) {
            found.insert(id);
        }
        if matches!(
            item.kind,
            ItemKind::View { .. } | ItemKind::MaterializedView { .. }
        ) {
            waiting.extend(&item.depends_on);
        }
    }
    found
}

/// Whether a query may call `mz_now()`, itself or through a view: it must then read exactly the epoch that it was planned for.
fn asks_for_epoch(catalog: &Catalog, query: &Query, depends_on: &[ObjectId]) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function) if function.name.0.last().is_some_and(is_mz_now) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let in_views = transitive(catalog, depends_on, |kind| match kind {
        ItemKind::View { query, .. } => flowstone_sql::parse::parse_query(query)
            .is_ok_and(|tree| tree.visit(&mut Finder).is_break()),
        _ => false,
    });
    query.visit(&mut Finder).is_break() || !in_views.is_empty()
}

fn is_mz_now(part: &ObjectNamePart) -> bool {
    part.as_ident()
        .is_some_and(|ident| ident.value.eq_ignore_ascii_case("mz_now"))
}

/// Milliseconds since the Unix epoch of a number, a moment, or a text of either; moments without a zone are in the session's.
fn milliseconds(value: &ArrayRef, zone: &TimeZone) -> Option<i64> {
    use arrow_schema::{DataType, TimeUnit};
    let number = |array: &dyn Array| {
        let numbers = arrow_cast::cast(array, &DataType::Int64).ok()?;
        let numbers = numbers.as_any().downcast_ref::<Int64Array>()?;
        numbers.iter().next().flatten()
    };
    let micros = match value.data_type() {
        DataType::Timestamp(_, Some(_)) => number(value)?,
        DataType::Timestamp(_, None) | DataType::Date32 => {
            let local = DataType::Timestamp(TimeUnit::Microsecond, None);
            zone.to_utc(number(&arrow_cast::cast(value, &local).ok()?)?)?
        }
        DataType::Utf8 => {
            let texts = value.as_any().downcast_ref::<StringArray>()?;
            let text = texts.iter().next().flatten()?;
            match text.trim().parse::<u64>() {
                Ok(number) => return i64::try_from(number).ok(),
                Err(_) => parse_timestamptz(text, zone).ok()?,
            }
        }
        _ => return number(value),
    };
    Some(micros.div_euclid(1_000))
}
