//! Rendering of the operators that evaluate a query for what changes.
//!
//! Called by the renderer of plans, whose names these are.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use flowstone_proto::plan::QueryPlan;

use super::{Port, Rendered, Renderer, exactly, renamed, side};
use crate::Error;
use crate::operator::join::Side;
use crate::operator::query::Query;
use crate::operator::recompute_groups::RecomputeGroups;
use crate::operator::recompute_rows::RecomputeRows;
use crate::relation::{IndexSpec, Relation};
use crate::step::Kind;

impl Renderer<'_> {
    pub(super) fn recompute_rows(
        &mut self,
        inputs: Vec<Rendered>,
        query: &QueryPlan,
        schema: SchemaRef,
    ) -> Result<Rendered, Error> {
        let needs = vec![RecomputeRows::needs(); inputs.len()];
        let [input]: [Port; 1] = exactly(self.ports(inputs, needs)?)?;
        let operator = RecomputeRows {
            query: self.query(query, slice::from_ref(&input), &schema),
        };
        Ok(self.operator(operator, &[input], None, schema))
    }

    pub(super) fn query(&self, query: &QueryPlan, inputs: &[Port], schema: &SchemaRef) -> Query {
        let inputs = inputs.iter().map(|input| Arc::clone(&input.schema));
        Query {
            evaluator: Arc::clone(&self.config.evaluator),
            plan: query.clone(),
            inputs: inputs.collect(),
            schema: Arc::clone(schema),
        }
    }

    /// The operator, and what keeps its output by its keys, in which it looks up what it has put out.
    pub(super) fn recompute_groups(
        &mut self,
        inputs: Vec<Rendered>,
        keys: Vec<&[usize]>,
        query: &QueryPlan,
        nulls_alone: bool,
        schema: SchemaRef,
    ) -> Result<Rendered, Error> {
        let types = |schema: &SchemaRef, keys: &[usize]| {
            let fields = keys.iter().map(|key| schema.fields().get(*key));
            let types = fields.map(|field| field.map(|field| field.data_type().clone()));
            types.collect::<Option<Vec<_>>>()
        };
        let width = keys.first().map_or(0, |keys| keys.len());
        let first = schema.fields().len().saturating_sub(width);
        let output_keys: Vec<usize> = (first..schema.fields().len()).collect();
        let wanted = types(&schema, &output_keys);
        let fits = itertools::zip_eq(&inputs, &keys)
            .all(|(input, keys)| types(&input.schema, keys) == wanted);
        if width == 0 || wanted.is_none() || !fits {
            return Err(Error::Plan("keys do not fit the inputs".to_owned()));
        }
        let count = inputs.len();
        let needs = keys
            .iter()
            .map(|keys| RecomputeGroups::needs(keys, count))
            .collect();
        let ports = self.ports(inputs, needs)?;
        let mut keyed = Vec::with_capacity(count);
        for (port, keys) in itertools::zip_eq(&ports, keys) {
            keyed.push(side(port, keys)?);
        }
        let relation = self.add_relation(Relation::new(
            format!("an arrangement of {}", self.owner),
            Arc::clone(&schema),
            (0..schema.fields().len()).collect(),
        ));
        let index = self.add_index(relation, &IndexSpec::Key(output_keys.clone()))?;
        let partitioning = ports.first().and_then(|port| {
            renamed(&port.partitioning, |column| {
                let key = keyed.first()?.keys.iter().position(|key| *key == column)?;
                output_keys.get(key).copied()
            })
        });
        let operator = RecomputeGroups {
            query: self.query(query, &ports, &schema),
            inputs: keyed,
            output: Side {
                relation,
                index,
                keys: output_keys,
            },
            nulls_alone,
            errors: BTreeMap::new(),
        };
        let made = self.operator(operator, &ports, partitioning, schema);
        let kept = self.add(
            Kind::Arrange { relation },
            made.stage,
            &[made.step],
            made.partitioning.clone(),
            Arc::clone(&made.schema),
        );
        self.arranged.insert(kept.step, (kept.step, relation));
        Ok(kept)
    }
}
