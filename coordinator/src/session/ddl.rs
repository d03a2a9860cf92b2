//! DDL: plan, make durable, tell the worker, let everybody see.
//!
//! One statement at a time over the whole node. Everything that can be wrong is found before the change is proposed; from then on it is carried through by a task
//! of its own, whatever becomes of the session.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use flowstone_proto::message::{
    Command, UpstreamAnswer, UpstreamConnection, UpstreamQuestion, UpstreamTable,
};
use flowstone_sql::Catalog;
use flowstone_sql::ast::{
    AlterRoleAction, CreateIndex, Ident, Name, ObjectType, PasswordOption, RoleOptions, Statement,
    StatementKind, ValidateConnection,
};
use flowstone_sql::catalog::{CatalogChange, ItemKind, ResolveContext};
use flowstone_sql::ddl::{self, DdlPlan, SchemaAnswer, SpelledOut, ViewParts, pg_types};
use flowstone_sql::lower::{lower, lower_partition};
use flowstone_sql::plan::{plan_index, plan_view};
use flowstone_types::ObjectId;

use super::Session;
use super::cluster::{self, Resize};
use super::transaction::Class;
use super::waits;
use crate::auth::{AuthPolicy, password_change};
use crate::catalog::{Turn, TurnGuard};
use crate::error::Error;
use crate::event::Event;
use crate::install::{self, Secrets};
use crate::locks::{Awaited, WriteGuard};
use crate::notices::{Notice, Severity};
use crate::numbers::Numbers;
use crate::outcome::Outcome;
use crate::parts::Parts;
use crate::raft::Command as Replicated;
use crate::raft::command::SealedSecret;

/// A change of the catalog, ready to be made.
pub(super) struct Change {
    /// What the worker calls it.
    number: u64,
    changes: Vec<CatalogChange>,
    secrets: Vec<SealedSecret>,
    /// The write locks of what is dropped, held until everybody can see that it is gone.
    locks: WriteGuard,
}

impl Change {
    /// One that sets no secrets and drops nothing. To be called in its turn.
    pub(super) fn of(numbers: &Numbers, changes: Vec<CatalogChange>) -> Self {
        Self {
            number: numbers.next_change(),
            changes,
            secrets: Vec::new(),
            locks: WriteGuard::default(),
        }
    }
}

/// What upstreams said that planning needs.
#[derive(Debug, Default)]
struct Answers {
    /// The tables that could be captured.
    tables: Vec<UpstreamTable>,
    /// Schemas of registries.
    schemas: Vec<SchemaAnswer>,
}

impl Session {
    pub(super) async fn ddl(&mut self, statement: &Statement) -> Result<Outcome, Error> {
        self.enter(&Class::Alone(words(&statement.kind).to_owned()))
            .await?;
        // Upstreams are asked before the turn begins: an unreachable one must not hold up everybody.
        let limits = self.limits.clone();
        let answers = limits.run(self.ask_about(statement)).await?;
        let turn = self.parts.turns.take(Turn {
            words: words(&statement.kind),
            process_id: Some(self.process_id),
        });
        let what = || waits::for_turn(&self.parts.turns);
        let turn = limits.run_telling(what, async { Ok(turn.await) }).await?;
        let plan = self.plan_ddl(statement, &answers).await?;
        plan.check_names()?;
        cluster::refuse_busy(&self.parts.resizes, &self.parts.catalog, &plan.changes)?;
        let secrets = self.sealed_secrets(&statement.kind, &plan)?;
        let DdlPlan {
            changes,
            notices,
            tag,
            ..
        } = plan;
        // Who has staged writes commits first, or finds that the table is gone and commits nothing.
        let dropped = dropped_by(&changes);
        let awaited = Awaited::default();
        let locking = self.parts.write_locks.exclusive(&dropped, &awaited);
        let locks = self.locked(&awaited, locking).await?;
        let number = self.parts.numbers.next_change();
        let resize = Resize::of(&self.parts, &statement.kind, &changes, number);
        let change = Change {
            number,
            changes,
            secrets,
            locks,
        };
        let work = carry_through(Arc::clone(&self.parts), turn, change);
        // A task of its own: it goes on if this session goes away half way.
        let recomputed = match resize {
            None => {
                let what = || waits::for_catalog(&self.parts.raft);
                let work = tokio::spawn(work);
                joined(limits.notices.while_waiting(what, work).await)?
            }
            Some(resize) => cluster::carry_through_and_wait(&self.limits, work, resize).await?,
        };
        self.notices.extend(notices.into_iter().map(from_sql));
        self.note_recomputed(&recomputed);
        Ok(Outcome::Command { tag })
    }

    pub(super) async fn validate_connection(
        &mut self,
        _statement: &Statement,
        validate: &ValidateConnection,
    ) -> Result<Outcome, Error> {
        let catalog = self.parts.catalog.now();
        let item = catalog.resolve_item(
            &self.resolve_context(),
            &validate.name,
            ObjectType::Connection,
        )?;
        let secrets = Secrets::of(&self.parts.vault);
        let connection = install::resolve_connection(secrets, &catalog, item.id)?;
        let limits = self.limits.clone();
        limits
            .run(
                self.parts
                    .worker
                    .ask_upstream(UpstreamQuestion::Validate(connection)),
            )
            .await?;
        Ok(Outcome::Command {
            tag: "VALIDATE CONNECTION".to_owned(),
        })
    }

    /// Where unqualified names are looked up.
    pub(super) fn resolve_context(&self) -> ResolveContext {
        ResolveContext {
            database: self.variables.settings().database.clone(),
            search_path: self.variables.settings().search_path.clone(),
            cluster: self.variables.settings().cluster.clone(),
        }
    }

    /// What upstreams say that a statement needs to know: the tables that could be captured, and schemas of messages. Also checks that a new connection works.
    async fn ask_about(&self, statement: &Statement) -> Result<Answers, Error> {
        let catalog = self.parts.catalog.now();
        let context = self.resolve_context();
        let (catalog, kind, _) = spelled_out(catalog, &context, &statement.kind)?;
        let kind = kind.as_ref();
        let secrets = Secrets::of(&self.parts.vault);
        let question = match kind {
            StatementKind::CreateConnection(create) if create.validate != Some(false) => {
                self.question_of_plan(&catalog, &context, kind)?
            }
            StatementKind::AlterConnection(alter) if alter.validate != Some(false) => {
                self.question_of_plan(&catalog, &context, kind)?
            }
            StatementKind::CreateSource(create) => {
                let kind = ddl::source_to_describe(&catalog, &context, create)?;
                // It has no id yet.
                let id = ObjectId::Transient(0);
                let kind = install::source_kind(secrets, &catalog, id, &kind)?;
                Some(UpstreamQuestion::Describe(kind))
            }
            StatementKind::CreateTableFromSource(create) => {
                self.question_of_source(&catalog, &context, &create.source)?
            }
            StatementKind::AlterSourceAddSubsource(alter) => {
                self.question_of_source(&catalog, &context, &alter.source)?
            }
            _ => None,
        };
        let mut answers = Answers::default();
        if let Some(question) = question
            && let UpstreamAnswer::Tables(tables) = self.parts.worker.ask_upstream(question).await?
        {
            answers.tables = tables;
        }
        for (registry, request) in ddl::schemas_to_ask(&catalog, &context, kind)? {
            let connection = install::resolve_connection(secrets, &catalog, registry)?;
            let UpstreamConnection::Registry(connection) = connection else {
                return Err(Error::Internal(format!("{registry} is not a registry")));
            };
            let question = UpstreamQuestion::Schema(connection, request.clone());
            let UpstreamAnswer::Schema(schema) = self.parts.worker.ask_upstream(question).await?
            else {
                return Err(Error::Internal(
                    "a registry answered something else".to_owned(),
                ));
            };
            answers.schemas.push(SchemaAnswer {
                registry,
                request,
                schema: schema.map(|schema| *schema),
            });
        }
        Ok(answers)
    }

    /// Whether the connection that a statement makes works.
    fn question_of_plan(
        &self,
        catalog: &Catalog,
        context: &ResolveContext,
        kind: &StatementKind,
    ) -> Result<Option<UpstreamQuestion>, Error> {
        let plan = ddl::plan_ddl(catalog, context, kind)?;
        for change in &plan.changes {
            if let CatalogChange::PutItem(item) = change
                && let ItemKind::Connection(connection) = &item.kind
            {
                let connection = install::resolve(Secrets::of(&self.parts.vault), connection)?;
                return Ok(Some(UpstreamQuestion::Validate(connection)));
            }
        }
        Ok(None)
    }

    /// What a source that exists could capture.
    fn question_of_source(
        &self,
        catalog: &Catalog,
        context: &ResolveContext,
        name: &Name,
    ) -> Result<Option<UpstreamQuestion>, Error> {
        let Some(item) = catalog.find_item(context, name, ObjectType::Source)? else {
            return Ok(None);
        };
        let ItemKind::Source(source) = &item.kind else {
            return Ok(None);
        };
        let secrets = Secrets::of(&self.parts.vault);
        let kind = install::source_kind(secrets, catalog, item.id, &source.kind)?;
        Ok(Some(UpstreamQuestion::Describe(kind)))
    }

    async fn plan_ddl(&self, statement: &Statement, answers: &Answers) -> Result<DdlPlan, Error> {
        let context = self.resolve_context();
        let catalog = self.parts.catalog.now();
        let (catalog, kind, before) = spelled_out(catalog, &context, &statement.kind)?;
        let plan = self
            .plan_kind(statement, &catalog, &context, &kind, answers)
            .await?;
        Ok(match before {
            Some(before) => plan.after(before),
            None => plan,
        })
    }

    /// Plans a statement that says everything. `kind`: what `statement` asks for, spelled out.
    async fn plan_kind(
        &self,
        statement: &Statement,
        catalog: &Arc<Catalog>,
        context: &ResolveContext,
        kind: &StatementKind,
        answers: &Answers,
    ) -> Result<DdlPlan, Error> {
        match kind {
            StatementKind::CreateView(create) => {
                let (parts, _) = self
                    .plan_view_parts(statement, &create.query, &create.columns, Maintained::No)
                    .await?;
                let plan = ddl::plan_create_view(catalog, context, create, &parts)?;
                Ok(self.in_time_zone(plan))
            }
            StatementKind::CreateMaterializedView(create) => {
                let (parts, key) = self
                    .plan_view_parts(statement, &create.query, &create.columns, Maintained::Yes)
                    .await?;
                let plan =
                    ddl::plan_create_materialized_view(catalog, context, create, &parts, key)?;
                Ok(self.in_time_zone(plan))
            }
            StatementKind::CreateIndex(create) => {
                self.plan_index(statement, catalog, context, create).await
            }
            StatementKind::CreateSink(_) | StatementKind::AlterSink(_) => {
                let plan = ddl::plan_ddl(catalog, context, kind)?;
                self.try_partitions(&plan).await?;
                Ok(self.in_time_zone(plan))
            }
            StatementKind::CreateSource(create) => {
                let slot = format!("materialize_{}", uuid::Uuid::new_v4().simple());
                Ok(ddl::plan_create_source(
                    catalog,
                    context,
                    create,
                    &answers.tables,
                    &answers.schemas,
                    &slot,
                    &pg_types::sql_type,
                )?)
            }
            StatementKind::CreateTableFromSource(create) => Ok(ddl::plan_table_from_source(
                catalog,
                context,
                create,
                &answers.tables,
                &answers.schemas,
                &pg_types::sql_type,
            )?),
            StatementKind::AlterSourceAddSubsource(alter) => Ok(ddl::plan_add_subsources(
                catalog,
                context,
                alter,
                &answers.tables,
                &pg_types::sql_type,
            )?),
            StatementKind::CreateRole(create) => {
                let password = create.options.password.as_ref();
                let change = password_change(&self.parts.auth, password).await?;
                let zone = self.time_zone().clone();
                let mut plan = ddl::plan_create_role(catalog, create, change, &zone)?;
                self.note_unasked_password(&create.options, &mut plan);
                Ok(plan)
            }
            StatementKind::AlterRole(alter) => {
                let options = match &alter.action {
                    AlterRoleAction::Options(options) => options.clone(),
                    AlterRoleAction::Rename(_) => RoleOptions::default(),
                };
                let change = password_change(&self.parts.auth, options.password.as_ref()).await?;
                let zone = self.time_zone().clone();
                let mut plan = ddl::plan_alter_role(catalog, &self.user, alter, change, &zone)?;
                self.note_unasked_password(&options, &mut plan);
                Ok(plan)
            }
            StatementKind::DropRoles(drop) => Ok(ddl::plan_drop_roles(catalog, &self.user, drop)?),
            StatementKind::AlterCluster(alter) => {
                let machine = self.parts.machine;
                Ok(ddl::plan_alter_cluster(catalog, alter, machine)?)
            }
            kind => Ok(ddl::plan_ddl(catalog, context, kind)?),
        }
    }

    /// The plan, with the time zone in which what it makes is to be read.
    fn in_time_zone(&self, mut plan: DdlPlan) -> DdlPlan {
        let zone = self.time_zone();
        if !zone.is_utc() {
            let zones = plan
                .created
                .iter()
                .map(|id| CatalogChange::PutTimeZone(*id, zone.to_string()));
            plan.changes.extend(zones);
        }
        plan
    }

    /// A notice if a password is set that nobody will be asked for.
    fn note_unasked_password(&self, options: &RoleOptions, plan: &mut DdlPlan) {
        let sets =
            matches!(&options.password, Some(PasswordOption::Text(text)) if !text.0.is_empty());
        if sets && self.parts.auth.policy() == AuthPolicy::TrustLoopback {
            plan.notices.push(ddl::Notice {
                hint: Some("Start the node with the setting auth = \"scram\".".to_owned()),
                ..ddl::Notice::note("this node does not ask for passwords")
            });
        }
    }

    /// Plans the query of a view; with its key, if it is maintained.
    async fn plan_view_parts(
        &self,
        statement: &Statement,
        query: &sqlparser::ast::Query,
        columns: &[Ident],
        maintained: Maintained,
    ) -> Result<(ViewParts, Option<Vec<usize>>), Error> {
        let mut planner = self.planner(statement);
        planner.maintained = maintained == Maintained::Yes;
        let query = query.clone();
        let aliases: Vec<String> = columns.iter().map(|column| column.value.clone()).collect();
        let (parts, key, planned) = planner
            .run(move |ctx| {
                let view = plan_view(ctx, &query, &aliases)?;
                let key = if maintained == Maintained::Yes {
                    lower(&view.planned)?.key
                } else {
                    None
                };
                let parts = ViewParts {
                    columns: view.columns,
                    query: view.query_sql,
                    depends_on: view.planned.depends_on.clone(),
                };
                Ok((parts, key, view.planned))
            })
            .await?;
        if maintained == Maintained::Yes {
            self.afford(planned).await?;
        }
        Ok((parts, key))
    }

    async fn plan_index(
        &self,
        statement: &Statement,
        catalog: &Arc<Catalog>,
        context: &ResolveContext,
        create: &CreateIndex,
    ) -> Result<DdlPlan, Error> {
        let relation = ddl::index_relation(catalog, context, create)?;
        let key = match &create.keys {
            None => ddl::default_index_key(relation),
            Some(keys) => {
                let (on, keys) = (relation.id, keys.clone());
                let planner = self.planner(statement).maintained();
                let (key, planned) = planner
                    .run(move |ctx| {
                        let planned = plan_index(ctx, on, &keys)?;
                        lower(&planned.planned)?;
                        Ok((planned.key, planned.planned))
                    })
                    .await?;
                self.afford(planned).await?;
                key
            }
        };
        let plan = ddl::plan_create_index(catalog, context, create, key)?;
        Ok(self.in_time_zone(plan))
    }

    /// Whether what decides on the partitions of sinks can be computed. Unlike what is planned again after a restart, it has bounds.
    async fn try_partitions(&self, plan: &DdlPlan) -> Result<(), Error> {
        for change in &plan.changes {
            if let CatalogChange::PutItem(item) = change
                && let ItemKind::Sink(sink) = &item.kind
                && let Some(text) = sink.kind.partition_expression()
            {
                let tree = flowstone_sql::parse::parse_expr(text)?;
                let from = sink.from;
                let planner = self.planner_without_text().maintained();
                planner
                    .run(move |ctx| lower_partition(ctx, from, &tree))
                    .await?;
            }
        }
        Ok(())
    }

    /// The values of secrets that a statement sets, encrypted.
    fn sealed_secrets(
        &self,
        kind: &StatementKind,
        plan: &DdlPlan,
    ) -> Result<Vec<SealedSecret>, Error> {
        let (id, value) = match kind {
            StatementKind::CreateSecret(create) => (plan.created.first().copied(), &create.value),
            StatementKind::AlterSecret(alter) => {
                let catalog = self.parts.catalog.now();
                let found =
                    catalog.find_item(&self.resolve_context(), &alter.name, ObjectType::Secret)?;
                (found.map(|item| item.id), &alter.value)
            }
            _ => return Ok(Vec::new()),
        };
        match id {
            Some(id) => Ok(vec![SealedSecret {
                id,
                sealed: self.parts.vault.seal(id, &value.0)?,
            }]),
            None => Ok(Vec::new()),
        }
    }
}

/// The catalog that a statement is to be planned against, the statement with everything said, and what has to be made for it before.
type Spelled<'a> = (Arc<Catalog>, Cow<'a, StatementKind>, Option<DdlPlan>);

fn spelled_out<'a>(
    catalog: Arc<Catalog>,
    context: &ResolveContext,
    kind: &'a StatementKind,
) -> Result<Spelled<'a>, Error> {
    Ok(match ddl::spelled_out(&catalog, context, kind)? {
        Some(SpelledOut {
            kind,
            before,
            catalog,
        }) => (Arc::new(catalog), Cow::Owned(kind), Some(before)),
        None => (catalog, Cow::Borrowed(kind), None),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maintained {
    Yes,
    No,
}

fn from_sql(notice: ddl::Notice) -> Notice {
    let severity = match notice.severity {
        ddl::Severity::Notice => Severity::Notice,
        ddl::Severity::Warning => Severity::Warning,
    };
    Notice {
        severity,
        message: notice.message,
        detail: None,
        hint: notice.hint,
    }
}

/// The words that name a statement in messages.
const fn words(kind: &StatementKind) -> &'static str {
    use StatementKind as Kind;
    match kind {
        Kind::CreateDatabase(_) => "CREATE DATABASE",
        Kind::CreateSchema(_) => "CREATE SCHEMA",
        Kind::CreateTable(_) | Kind::CreateTableFromSource(_) => "CREATE TABLE",
        Kind::CreateView(_) => "CREATE VIEW",
        Kind::CreateMaterializedView(_) => "CREATE MATERIALIZED VIEW",
        Kind::CreateIndex(_) => "CREATE INDEX",
        Kind::CreateSecret(_) => "CREATE SECRET",
        Kind::CreateConnection(_) => "CREATE CONNECTION",
        Kind::CreateSource(_) => "CREATE SOURCE",
        Kind::CreateSink(_) => "CREATE SINK",
        Kind::AlterSink(_) => "ALTER SINK",
        Kind::AlterSecret(_) => "ALTER SECRET",
        Kind::AlterConnection(_) => "ALTER CONNECTION",
        Kind::AlterSourceAddSubsource(_) | Kind::AlterSourceDropSubsource(_) => "ALTER SOURCE",
        Kind::AlterRename(_) | Kind::AlterSchemaSwap(_) => "ALTER",
        Kind::CreateCluster(_) => "CREATE CLUSTER",
        Kind::CreateClusterReplica(_) => "CREATE CLUSTER REPLICA",
        Kind::AlterCluster(_) => "ALTER CLUSTER",
        Kind::DropClusterReplicas(_) => "DROP CLUSTER REPLICA",
        Kind::CreateRole(_) => "CREATE ROLE",
        Kind::AlterRole(_) => "ALTER ROLE",
        Kind::DropRoles(_) => "DROP ROLE",
        Kind::Drop(_) => "DROP",
        Kind::CommentOn(_) => "COMMENT ON",
        _ => "this statement",
    }
}

/// What these changes take away.
fn dropped_by(changes: &[CatalogChange]) -> BTreeSet<ObjectId> {
    let dropped = changes.iter().filter_map(|change| match change {
        CatalogChange::DropItem(id) => Some(*id),
        _ => None,
    });
    dropped.collect()
}

/// Makes changes of roles durable, outside of any session.
pub(crate) async fn change_roles(
    parts: Arc<Parts>,
    turn: TurnGuard,
    changes: Vec<CatalogChange>,
) -> Result<(), Error> {
    let change = Change::of(&parts.numbers, changes);
    carry_through(parts, turn, change).await.map(drop)
}

/// What came of a task that changes the catalog.
pub(super) fn joined<T>(
    outcome: Result<Result<T, Error>, tokio::task::JoinError>,
) -> Result<T, Error> {
    outcome.unwrap_or_else(|error| {
        Err(Error::Internal(format!(
            "a change of the catalog failed half way: {error}"
        )))
    })
}

/// The items that changes have made and that they have taken away, each in the order of their ids.
fn new_and_gone(
    before: &Catalog,
    after: &Catalog,
    changes: &[CatalogChange],
) -> (Vec<ObjectId>, Vec<ObjectId>) {
    let touched: BTreeSet<ObjectId> = changes
        .iter()
        .filter_map(|change| match change {
            CatalogChange::PutItem(item) => Some(item.id),
            CatalogChange::DropItem(id) => Some(*id),
            _ => None,
        })
        .collect();
    let only_in = |one: &Catalog, other: &Catalog| {
        let only = touched.iter().copied();
        only.filter(|id| one.items.contains_key(id) && !other.items.contains_key(id))
            .collect()
    };
    (only_in(after, before), only_in(before, after))
}

/// Makes a change durable and tells the worker. Returns what parts of new views are recomputed at each change.
pub(super) async fn carry_through(
    parts: Arc<Parts>,
    turn: TurnGuard,
    change: Change,
) -> Result<Vec<String>, Error> {
    let before = parts.catalog.now();
    let mut after = Catalog::clone(&before);
    after.apply(&change.changes)?;
    let after = Arc::new(after);
    let (new, gone) = new_and_gone(&before, &after, &change.changes);
    // What only drops makes room.
    if new.is_empty() {
        parts.headroom.check_log()?;
    } else {
        parts.headroom.check_room()?;
    }
    let clusters = install::cluster_commands(parts.machine, Some(&before), &after, change.number);
    let dataflows = install::plan_dataflows(&after, &new).await?;
    // A worker that would fail to make them says so while nothing has changed.
    for dataflow in &dataflows {
        dataflow.prepare(&parts.worker).await?;
    }
    let altered = install::altered_connections(&before, &after, &change.secrets);
    let mut partitions = install::plan_partitions(&before, &after).await?;
    install::plan_again(&after, &altered, &mut partitions).await?;
    let past = install::Past::default();
    let values = Secrets::after(&parts.vault, &change.secrets);
    let mut commands =
        install::install_commands(values, &after, &new, &dataflows, &partitions, &past)?;
    commands.extend(install::altered_sources(values, &before, &after, &altered)?);
    commands.extend(install::altered_sinks(
        values,
        &before,
        &after,
        &altered,
        &partitions,
    )?);
    let expected_version = before.version;
    let Change {
        changes,
        secrets,
        locks,
        number: _,
    } = change;
    if changes.is_empty() {
        for secret in secrets {
            parts.raft.propose(Replicated::PutSecret(secret)).await?;
        }
        for command in commands {
            parts.worker.send(command).await?;
        }
        return Ok(Vec::new());
    }
    parts
        .raft
        .propose(Replicated::CatalogChanges {
            changes,
            expected_version,
            secrets,
        })
        .await?;
    let objects = install::dropped_in_worker(&before, &gone);
    if !gone.is_empty() {
        parts
            .events
            .tell(Event::Dropped {
                objects: gone.clone(),
            })
            .await?;
    }
    if !objects.is_empty() {
        parts.worker.send(Command::Drop { objects }).await?;
    }
    if let Some(command) = install::clean_up(&parts.vault, &parts.raft.cleanup(&gone)) {
        parts.worker.send(command).await?;
    }
    {
        let now = parts.clock.now_ms();
        let mut runtime = parts.reported.runtime.lock();
        runtime.created_ms.extend(new.iter().map(|id| (*id, now)));
    }
    for command in clusters.into_iter().chain(commands) {
        parts.worker.send(command).await?;
    }
    turn.replace_catalog(after);
    for id in &gone {
        parts.write_locks.forget(*id);
    }
    drop(locks);
    if !new.is_empty() {
        parts.events.tell(Event::MarkDirty).await?;
    }
    Ok(dataflows
        .into_iter()
        .flat_map(|dataflow| dataflow.recomputed)
        .collect())
}
