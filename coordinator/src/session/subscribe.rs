//! SUBSCRIBE: a query's changes as rows.

use arrow_array::ArrayRef;
use arrow_schema::SchemaRef;
use flowstone_proto::message::{Command, RequestError, Subscribe};
use flowstone_sql::ast::{Statement, SubscribeRelation, SubscribeStatement};
use flowstone_sql::lower::lower;
use flowstone_sql::plan::{PlannedQuery, plan_query};
use flowstone_types::SqlType;
use sqlparser::ast::Query;

use super::Session;
use super::read::AsOfEpoch;
use super::stream::{Request, SubscribeShape};
use super::transaction::Class;
use crate::error::Error;
use crate::notices::Notice;
use crate::outcome::{Outcome, RowStream};
use crate::subscriptions::Subscription;

impl Session {
    pub(super) async fn subscribe(
        &mut self,
        statement: &Statement,
        subscribe: &SubscribeStatement,
        parameters: &[ArrayRef],
    ) -> Result<Outcome, Error> {
        // In a block a subscription needs a cursor: nothing could follow it otherwise.
        self.enter(&Class::Alone("SUBSCRIBE".to_owned())).await?;
        let (schema, rows) = self.subscription(statement, subscribe, parameters).await?;
        Ok(Outcome::Rows {
            verb: "SUBSCRIBE",
            schema,
            rows,
        })
    }

    /// Starts a subscription.
    pub(super) async fn subscription(
        &mut self,
        statement: &Statement,
        subscribe: &SubscribeStatement,
        parameters: &[ArrayRef],
    ) -> Result<(SchemaRef, RowStream), Error> {
        let types = self.parameter_types(statement, parameters);
        let planned = self.plan_subscription(statement, subscribe, &types).await?;
        let bound = parameters.to_vec();
        self.afford(planned.bind(&bound)?).await?;
        let lowering = crate::planning::blocking(move || {
            let planned = planned.bind(&bound)?;
            let lowered = lower(&planned)?;
            Ok((planned, lowered))
        });
        let (planned, lowered) = self.limits.run(lowering).await?;
        self.note_recomputed(&lowered.recomputed);
        let up_to = match &subscribe.up_to {
            Some(expr) => Some(self.epoch_of(expr, "UP TO").await?),
            None => None,
        };
        let (as_of, hold) = match self.resolve_as_of(subscribe.as_of.as_ref()).await? {
            None => (None, None),
            Some(AsOfEpoch::Exactly(epoch)) => (Some(epoch), Some(self.hold(epoch)?)),
            Some(AsOfEpoch::AtLeast(epoch)) => {
                let epoch = epoch.max(self.parts.timeline.read_epoch());
                (Some(epoch), Some(self.hold(epoch)?))
            }
        };
        let cluster = &self.variables.settings().cluster;
        let cluster = self.parts.catalog.now().reading_cluster(cluster)?;
        let shape = SubscribeShape::new(&planned.schema, subscribe.progress);
        let schema = shape.schema();
        if let (Some(as_of), Some(up_to)) = (as_of, up_to)
            && up_to <= as_of
        {
            if up_to < as_of {
                let message = format!("AS OF {as_of} is after UP TO {up_to}");
                return Err(Error::Request(RequestError::Unsupported(message)));
            }
            return Ok((schema, RowStream::of(Vec::new())));
        }
        let trial = self.parts.worker.prepare(lowered.plan.clone(), None);
        self.limits.run(trial).await?;
        let reads = &planned.reads;
        self.run_reading(reads, self.wait_visible(reads)).await?;
        let request = self.parts.numbers.next_request();
        let stream = Request::open(&self.parts, request, hold).reading(reads.clone());
        // The stream takes it out again when it ends.
        let subscription = Subscription {
            process_id: self.process_id,
            cluster,
            created_at_ms: self.parts.clock.now_ms(),
            reads: planned.reads.clone(),
        };
        self.parts.subscriptions.insert(request, subscription);
        let command = Subscribe {
            request,
            cluster,
            plan: lowered.plan,
            as_of,
            snapshot: subscribe.snapshot,
            up_to,
        };
        self.limits
            .run(self.parts.worker.send(Command::Subscribe(command)))
            .await?;
        let mut limits = self.limits.clone();
        // A subscription is meant to go on: only a cancel ends it.
        limits.deadline = std::sync::Arc::default();
        Ok((schema, stream.into_updates(shape, limits)))
    }

    /// Plans what is watched.
    pub(super) async fn plan_subscription(
        &self,
        statement: &Statement,
        subscribe: &SubscribeStatement,
        types: &[Option<SqlType>],
    ) -> Result<PlannedQuery, Error> {
        let query = watched_query(&subscribe.relation)?;
        let types = types.to_vec();
        let planned = self
            .planner(statement)
            .maintained()
            .run(move |ctx| plan_query(ctx, &query, &types))
            .await?;
        if planned.system.is_empty() {
            Ok(planned)
        } else {
            Err(
                flowstone_sql::Error::unsupported("SUBSCRIBE to relations of the system catalog")
                    .into(),
            )
        }
    }

    /// Tells the user which parts of a plan are evaluated anew at each change.
    pub(super) fn note_recomputed(&mut self, reasons: &[String]) {
        if !reasons.is_empty() {
            let mut notice = Notice::new(format!(
                "parts of the query are recomputed at each change: {}",
                reasons.join(", ")
            ));
            notice.detail = Some("Operators that cannot be maintained incrementally yet are evaluated anew whenever their inputs change.".to_owned());
            notice.hint = Some("EXPLAIN shows which they are.".to_owned());
            self.notices.push(notice);
        }
    }
}

fn watched_query(relation: &SubscribeRelation) -> Result<Box<Query>, Error> {
    Ok(match relation {
        SubscribeRelation::Query(query) => query.clone(),
        SubscribeRelation::Name(name) => {
            flowstone_sql::parse::parse_query(&format!("SELECT * FROM {name}"))?
        }
    })
}
