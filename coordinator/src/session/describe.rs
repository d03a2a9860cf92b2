//! What a statement takes and gives, without running it.

use arrow_schema::SchemaRef;
use flowstone_sql::ast::{Statement, StatementKind};
use flowstone_sql::plan::{plan_query, plan_write};
use flowstone_types::SqlType;

use super::Session;
use super::stream::{SubscribeShape, nullable};
use crate::error::{Error, SessionError};
use crate::outcome::Description;

fn rows(parameters: Vec<SqlType>, columns: SchemaRef) -> Description {
    Description {
        parameters,
        columns: Some(columns),
    }
}

impl Session {
    pub(super) async fn describe_statement(
        &self,
        statement: &Statement,
        types: &[Option<SqlType>],
    ) -> Result<Description, Error> {
        use StatementKind as Kind;
        let known = types.to_vec();
        match &statement.kind {
            Kind::Query(query) => {
                let mut planner = self.planner(statement);
                planner.transaction_epoch = Some(self.parts.timeline.read_epoch());
                planner.assigns = true;
                let tree = query.query.clone();
                let planned = planner
                    .run(move |ctx| plan_query(ctx, &tree, &known))
                    .await?;
                Ok(rows(planned.parameters, nullable(&planned.schema)))
            }
            Kind::Insert(_) | Kind::Update(_) | Kind::Delete(_) | Kind::WithWrite(_) => {
                let kind = statement.kind.clone();
                let planned = self
                    .planner(statement)
                    .run(move |ctx| plan_write(ctx, &kind, &known))
                    .await?;
                Ok(Description {
                    parameters: planned.query.parameters,
                    columns: planned.returning.as_deref().map(nullable),
                })
            }
            Kind::Subscribe(subscribe) => {
                let planned = self.plan_subscription(statement, subscribe, types).await?;
                let shape = SubscribeShape::new(&planned.schema, subscribe.progress);
                Ok(rows(planned.parameters, shape.schema()))
            }
            Kind::Declare(declare) => {
                let inner = Box::pin(self.describe_statement(&declare.statement, types)).await?;
                Ok(Description {
                    parameters: inner.parameters,
                    columns: None,
                })
            }
            Kind::Execute(execute) => {
                let prepared = self.find_prepared(&execute.name)?;
                let inner =
                    Box::pin(self.describe_statement(&prepared.statement, &prepared.types)).await?;
                Ok(Description {
                    parameters: Vec::new(),
                    columns: inner.columns,
                })
            }
            Kind::Fetch(fetch) => {
                let name = &fetch.name.value;
                let cursor = self
                    .cursors
                    .get(name)
                    .ok_or_else(|| SessionError::UnknownCursor(name.clone()))?;
                Ok(rows(Vec::new(), std::sync::Arc::clone(&cursor.schema)))
            }
            Kind::Explain(_) => Ok(rows(Vec::new(), super::explain::explain_schema())),
            Kind::Show(show) => Ok(rows(Vec::new(), self.show_schema(show).await?)),
            Kind::ShowVariable(show) => Ok(rows(Vec::new(), self.show_variable_schema(show)?)),
            Kind::Copy(_)
            | Kind::CreateDatabase(_)
            | Kind::CreateSchema(_)
            | Kind::CreateTable(_)
            | Kind::CreateTableFromSource(_)
            | Kind::CreateView(_)
            | Kind::CreateMaterializedView(_)
            | Kind::CreateIndex(_)
            | Kind::CreateSecret(_)
            | Kind::CreateConnection(_)
            | Kind::CreateSource(_)
            | Kind::CreateSink(_)
            | Kind::CreateCluster(_)
            | Kind::CreateClusterReplica(_)
            | Kind::AlterSecret(_)
            | Kind::AlterConnection(_)
            | Kind::AlterSourceAddSubsource(_)
            | Kind::AlterSourceDropSubsource(_)
            | Kind::AlterSink(_)
            | Kind::AlterRename(_)
            | Kind::AlterSchemaSwap(_)
            | Kind::AlterCluster(_)
            | Kind::Drop(_)
            | Kind::DropClusterReplicas(_)
            | Kind::CreateRole(_)
            | Kind::AlterRole(_)
            | Kind::DropRoles(_)
            | Kind::CommentOn(_)
            | Kind::ValidateConnection(_)
            | Kind::SetVariable(_)
            | Kind::ResetVariable(_)
            | Kind::SetTransaction(_)
            | Kind::Begin { .. }
            | Kind::Commit
            | Kind::Rollback
            | Kind::Savepoint(_)
            | Kind::ReleaseSavepoint(_)
            | Kind::RollbackTo(_)
            | Kind::Prepare(_)
            | Kind::Deallocate(_)
            | Kind::Close(_)
            | Kind::Unlisten
            | Kind::Discard(_)
            | Kind::Unsupported(_) => Ok(Description {
                parameters: Vec::new(),
                columns: None,
            }),
        }
    }
}
