//! EXPLAIN and SHOW of catalog objects.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_sql::Catalog;
use flowstone_sql::ast::{
    ExplainKind, ExplainStatement, ExplainTarget, Name, ObjectType, QueryStatement, ShowStatement,
    Statement, StatementKind,
};
use flowstone_sql::catalog::ItemKind;
use flowstone_sql::explain::{explain_incremental, explain_plan};
use flowstone_sql::lower::lower;
use flowstone_sql::plan::{PlannedQuery, plan_index, plan_query, recognise_lookup};
use flowstone_types::ObjectId;

use super::Session;
use super::settings::{text_rows, text_schema};
use super::stream::nullable;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::planning::{Planner, blocking};

/// The columns of EXPLAIN.
pub(super) fn explain_schema() -> SchemaRef {
    text_schema(&["Explain"])
}

/// Something to explain, and whether it is maintained or read once.
struct Explained {
    planned: PlannedQuery,
    maintained: bool,
}

impl Session {
    pub(super) async fn explain(
        &mut self,
        statement: &Statement,
        explain: &ExplainStatement,
    ) -> Result<Outcome, Error> {
        let catalog = self.parts.catalog.now();
        let explained = self
            .plan_explained(statement, &catalog, &explain.target)
            .await?;
        let kind = explain.kind;
        let epoch = self.parts.timeline.read_epoch();
        let since = self.parts.timeline.holds.since();
        let cluster = self.session_cluster(&catalog);
        let reported = Arc::clone(&self.parts.reported);
        let explaining = blocking(move || {
            let incremental = |planned: &PlannedQuery| -> Result<Vec<String>, Error> {
                let lowered = lower(planned)?;
                Ok(explain_incremental(&lowered.plan, &|id| {
                    catalog.full_name(id)
                }))
            };
            match kind {
                ExplainKind::Timestamp => Ok(vec![
                    format!("query timestamp: {epoch}"),
                    format!("oracle read timestamp: {epoch}"),
                    format!("since: {since}"),
                    format!("upper: {}", epoch.next()),
                ]),
                ExplainKind::Incremental => incremental(&explained.planned),
                ExplainKind::Default if explained.maintained => incremental(&explained.planned),
                ExplainKind::Default | ExplainKind::Plan => {
                    let names = |id| catalog.full_name(id);
                    let is_hydrated = |id| reported.is_hydrated(id);
                    let planned = &explained.planned;
                    let lookup = recognise_lookup(&catalog, planned, cluster, &is_hydrated)
                        .map(|lookup| format!("Lookup: one key of {}", names(lookup.index)));
                    let plan = explain_plan(planned, &names);
                    Ok(lookup.into_iter().chain(plan).collect())
                }
            }
        });
        let lines = self.limits.run(explaining).await?;
        let schema = explain_schema();
        let rows = text_rows(&schema, vec![lines])?;
        Ok(Outcome::Rows {
            verb: "EXPLAIN",
            schema,
            rows,
        })
    }

    async fn plan_explained(
        &self,
        statement: &Statement,
        catalog: &Arc<Catalog>,
        target: &ExplainTarget,
    ) -> Result<Explained, Error> {
        match target {
            ExplainTarget::Statement(inner) => {
                self.plan_explained_statement(statement, catalog, inner)
                    .await
            }
            ExplainTarget::View(name) => {
                self.plan_explained_item(catalog, name, ObjectType::View)
                    .await
            }
            ExplainTarget::MaterializedView(name) => {
                self.plan_explained_item(catalog, name, ObjectType::MaterializedView)
                    .await
            }
            ExplainTarget::Index(name) => {
                self.plan_explained_item(catalog, name, ObjectType::Index)
                    .await
            }
        }
    }

    async fn plan_explained_statement(
        &self,
        statement: &Statement,
        catalog: &Arc<Catalog>,
        inner: &Statement,
    ) -> Result<Explained, Error> {
        let mut planner = self.planner(statement);
        planner.transaction_epoch = Some(self.parts.timeline.read_epoch());
        let (query, maintained) = match &inner.kind {
            StatementKind::Query(query) => (query.query.clone(), false),
            StatementKind::CreateView(create) => (create.query.clone(), true),
            StatementKind::CreateMaterializedView(create) => (create.query.clone(), true),
            StatementKind::Subscribe(subscribe) => {
                let planned = self.plan_subscription(statement, subscribe, &[]).await?;
                return Ok(Explained {
                    planned,
                    maintained: true,
                });
            }
            StatementKind::CreateIndex(create) => {
                let relation =
                    flowstone_sql::ddl::index_relation(catalog, &self.resolve_context(), create)?;
                let on = relation.id;
                let keys = match &create.keys {
                    Some(keys) => keys.clone(),
                    None => flowstone_sql::ddl::default_index_key(relation)
                        .iter()
                        .map(|key| flowstone_sql::parse::parse_expr(&key.expression))
                        .collect::<Result<_, _>>()?,
                };
                let planned = planner
                    .maintained()
                    .run(move |ctx| Ok(plan_index(ctx, on, &keys)?.planned))
                    .await?;
                return Ok(Explained {
                    planned,
                    maintained: true,
                });
            }
            _ => return Err(flowstone_sql::Error::unsupported("EXPLAIN of this statement").into()),
        };
        planner.maintained = maintained;
        let planned = planner.run(move |ctx| plan_query(ctx, &query, &[])).await?;
        Ok(Explained {
            planned,
            maintained,
        })
    }

    async fn plan_explained_item(
        &self,
        catalog: &Arc<Catalog>,
        name: &Name,
        object_type: ObjectType,
    ) -> Result<Explained, Error> {
        let id = catalog
            .resolve_item(&self.resolve_context(), name, object_type)?
            .id;
        let planner = Planner::for_catalog(Arc::clone(catalog));
        let catalog = Arc::clone(catalog);
        planner.run(move |ctx| plan_item(ctx, &catalog, id)).await
    }

    pub(super) async fn show_schema(&self, show: &ShowStatement) -> Result<SchemaRef, Error> {
        let query = self.show_query(show)?;
        let planned = self
            .planner_without_text()
            .run(move |ctx| plan_query(ctx, &query.query, &[]))
            .await?;
        Ok(nullable(&planned.schema))
    }

    pub(super) async fn show(
        &mut self,
        statement: &Statement,
        show: &ShowStatement,
    ) -> Result<Outcome, Error> {
        let query = self.show_query(show)?;
        // Positions in a query of our own mean nothing to the user.
        let ours = Statement {
            kind: statement.kind.clone(),
            text: String::new(),
            offset: usize::MAX,
        };
        let (schema, rows) = self.read(&ours, &query, &[]).await?;
        Ok(Outcome::Rows {
            verb: "SHOW",
            schema,
            rows,
        })
    }

    fn show_query(&self, show: &ShowStatement) -> Result<QueryStatement, Error> {
        let catalog = self.parts.catalog.now();
        let text = flowstone_sql::show::show_query(&catalog, &self.resolve_context(), show)?;
        Ok(QueryStatement {
            query: flowstone_sql::parse::parse_query(&text)?,
            as_of: None,
        })
    }
}

fn plan_item(
    ctx: &flowstone_sql::plan::PlanContext<'_>,
    catalog: &Catalog,
    id: ObjectId,
) -> Result<Explained, flowstone_sql::Error> {
    let zone = catalog.time_zone(id);
    let ctx = &ctx.in_zone(&zone);
    let planned = match catalog.items.get(&id).map(|item| &item.kind) {
        Some(ItemKind::View { query, .. } | ItemKind::MaterializedView { query, .. }) => {
            let tree = flowstone_sql::parse::parse_query(query)?;
            plan_query(ctx, &tree, &[])?
        }
        Some(ItemKind::Index { on, key }) => {
            let keys = key
                .iter()
                .map(|key| flowstone_sql::parse::parse_expr(&key.expression))
                .collect::<Result<Vec<_>, _>>()?;
            plan_index(ctx, *on, &keys)?.planned
        }
        _ => return Err(flowstone_sql::Error::internal("nothing to explain")),
    };
    Ok(Explained {
        planned,
        maintained: true,
    })
}
