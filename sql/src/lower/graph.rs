//! The growing incremental plan: nodes in topological order, equal ones once, each with the columns known to identify its rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use flowstone_proto::ipc::encode_batches;
use flowstone_proto::plan::{Aggregate, Node, NodeId, Operator, OrderColumn, Plan, column_name};
use flowstone_types::ObjectId;

use super::{Lowered, mapped};
use crate::error::Error;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    keys: Vec<Option<Vec<usize>>>,
    collection_keys: BTreeMap<ObjectId, Vec<usize>>,
}

/// Column `index` of a node, as expressions name it.
pub(super) fn node_column(index: usize) -> Column {
    Column::new_unqualified(column_name(index))
}

fn node_field(index: usize, field: &Field) -> Field {
    Field::new(column_name(index), field.data_type().clone(), true)
        .with_metadata(field.metadata().clone())
}

fn node_schema<'f>(fields: impl Iterator<Item = &'f Field>) -> SchemaRef {
    Arc::new(Schema::new(
        fields
            .enumerate()
            .map(|(index, field)| node_field(index, field))
            .collect::<Vec<_>>(),
    ))
}

/// The columns of a plan as a node has them.
pub(super) fn schema_of(plan: &LogicalPlan) -> SchemaRef {
    node_schema(plan.schema().fields().iter().map(AsRef::as_ref))
}

/// The columns of a node, and behind them those of another that are its key.
pub(super) fn with_key(schema: &SchemaRef, input: &SchemaRef, key: &[usize]) -> SchemaRef {
    let key = key.iter().filter_map(|column| input.fields().get(*column));
    node_schema(schema.fields().iter().chain(key).map(AsRef::as_ref))
}

/// The values of expressions over a plan as columns of a node.
pub(super) fn schema_of_exprs(exprs: &[Expr], input: &LogicalPlan) -> Result<SchemaRef, Error> {
    let fields = exprs
        .iter()
        .map(|expr| crate::plan::field_of(expr, input))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(node_schema(fields.iter().map(AsRef::as_ref)))
}

impl Graph {
    /// An empty plan. `collection_keys`: columns that identify the rows of collections.
    pub(super) const fn new(collection_keys: BTreeMap<ObjectId, Vec<usize>>) -> Self {
        Self {
            nodes: Vec::new(),
            keys: Vec::new(),
            collection_keys,
        }
    }

    /// The node of this operator; an equal one that exists is used again.
    pub(super) fn add(
        &mut self,
        operator: Operator,
        schema: SchemaRef,
        key: Option<Vec<usize>>,
    ) -> NodeId {
        let node = Node { operator, schema };
        if let Some(position) = self.nodes.iter().position(|existing| *existing == node) {
            return NodeId(position);
        }
        self.nodes.push(node);
        self.keys.push(key);
        NodeId(self.nodes.len() - 1)
    }

    /// The columns of a node.
    pub(super) fn schema(&self, node: NodeId) -> SchemaRef {
        self.nodes.get(node.0).map_or_else(
            || Arc::new(Schema::empty()),
            |node| Arc::clone(&node.schema),
        )
    }

    /// The number of columns of a node.
    pub(super) fn width(&self, node: NodeId) -> usize {
        self.nodes
            .get(node.0)
            .map_or(0, |node| node.schema.fields().len())
    }

    /// The columns that identify a row of a node.
    pub(super) fn key(&self, node: NodeId) -> Option<&Vec<usize>> {
        self.keys.get(node.0).and_then(Option::as_ref)
    }

    pub(super) fn get(&mut self, collection: ObjectId, schema: &SchemaRef) -> NodeId {
        let key = self.collection_keys.get(&collection).cloned();
        self.add(
            Operator::Get { collection },
            node_schema(schema.fields().iter().map(AsRef::as_ref)),
            key,
        )
    }

    /// A constant row with one column that nobody reads.
    pub(super) fn one_row(&mut self) -> Result<NodeId, Error> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new(
            column_name(0),
            DataType::Boolean,
            true,
        )]));
        self.constant(&schema, &[vec![ScalarValue::Boolean(Some(true))]])
    }

    pub(super) fn constant(
        &mut self,
        schema: &SchemaRef,
        rows: &[Vec<ScalarValue>],
    ) -> Result<NodeId, Error> {
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| {
                let values: Vec<ScalarValue> = rows
                    .iter()
                    .filter_map(|row| row.get(index))
                    .map(|value| value.cast_to(field.data_type()).map_err(mapped))
                    .collect::<Result<_, _>>()?;
                if values.is_empty() {
                    Ok(arrow_array::new_empty_array(field.data_type()))
                } else {
                    ScalarValue::iter_to_array(values).map_err(mapped)
                }
            })
            .collect::<Result<Vec<ArrayRef>, Error>>()?;
        let internal = |error: arrow_schema::ArrowError| Error::internal(error.to_string());
        // Also rows without columns have a number.
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map_err(internal)?;
        let rows_encoded = encode_batches(schema, &[batch]).map_err(internal)?;
        let key = (rows.len() <= 1).then(Vec::new);
        Ok(self.add(
            Operator::Constant { rows: rows_encoded },
            Arc::clone(schema),
            key,
        ))
    }

    pub(super) fn join(
        &mut self,
        left: NodeId,
        right: NodeId,
        left_keys: Vec<usize>,
        right_keys: Vec<usize>,
        null_equals_null: bool,
    ) -> NodeId {
        let width = self.width(left);
        let (left_schema, right_schema) = (self.schema(left), self.schema(right));
        let schema = node_schema(
            left_schema
                .fields()
                .iter()
                .chain(right_schema.fields())
                .map(AsRef::as_ref),
        );
        let within =
            |key: &Vec<usize>, columns: &[usize]| key.iter().all(|column| columns.contains(column));
        let key = match (self.key(left), self.key(right)) {
            // At most one partner on the right: rows are identified by the left key.
            (Some(left_key), Some(right_key)) if within(right_key, &right_keys) => {
                Some(left_key.clone())
            }
            (Some(left_key), Some(right_key)) if within(left_key, &left_keys) => {
                Some(right_key.iter().map(|column| width + column).collect())
            }
            (Some(left_key), Some(right_key)) => Some(
                left_key
                    .iter()
                    .copied()
                    .chain(right_key.iter().map(|column| width + column))
                    .collect(),
            ),
            _ => None,
        };
        self.add(
            Operator::Join {
                left,
                right,
                left_keys,
                right_keys,
                null_equals_null,
            },
            schema,
            key,
        )
    }

    pub(super) fn aggregate(
        &mut self,
        input: NodeId,
        group: Vec<usize>,
        aggregates: Vec<Aggregate>,
        schema: SchemaRef,
    ) -> NodeId {
        let key = Some((0..group.len()).collect());
        self.add(
            Operator::Aggregate {
                input,
                group,
                aggregates,
            },
            schema,
            key,
        )
    }

    pub(super) fn distinct(&mut self, input: NodeId) -> NodeId {
        // Rows that a key identifies are distinct already.
        if self.key(input).is_some() {
            return input;
        }
        let key = Some((0..self.width(input)).collect());
        self.add(Operator::Distinct { input }, self.schema(input), key)
    }

    pub(super) fn union(&mut self, inputs: Vec<NodeId>, schema: SchemaRef) -> NodeId {
        if let [only] = inputs.as_slice() {
            return *only;
        }
        self.add(Operator::Union { inputs }, schema, None)
    }

    pub(super) fn top(
        &mut self,
        input: NodeId,
        group: Vec<usize>,
        order: Vec<OrderColumn>,
        limit: Option<u64>,
        offset: u64,
    ) -> NodeId {
        if limit.is_none() && offset == 0 {
            return input;
        }
        let key = match (limit, self.key(input)) {
            (Some(1), _) => Some(group.clone()),
            (_, key) => key.cloned(),
        };
        self.add(
            Operator::TopK {
                input,
                group,
                order,
                limit,
                offset,
            },
            self.schema(input),
            key,
        )
    }

    /// The plan with `root` as its last node, and only what `root` needs.
    pub(super) fn finish(self, root: NodeId) -> Lowered {
        let mut needed = vec![false; self.nodes.len()];
        let mut pending = vec![root];
        while let Some(node) = pending.pop() {
            if let Some(seen) = needed.get_mut(node.0)
                && !*seen
            {
                *seen = true;
                pending.extend(
                    self.nodes
                        .get(node.0)
                        .map(|node| node.operator.inputs())
                        .unwrap_or_default(),
                );
            }
        }
        let mut places = BTreeMap::new();
        let mut nodes = Vec::new();
        let mut recomputed: Vec<String> = Vec::new();
        let mut key = None;
        for (index, (node, node_key)) in self.nodes.into_iter().zip(self.keys).enumerate() {
            if !needed.get(index).copied().unwrap_or(false) {
                continue;
            }
            if let Operator::Recompute { reason, .. } = &node.operator
                && !recomputed.contains(reason)
            {
                recomputed.push(reason.clone());
            }
            places.insert(index, NodeId(nodes.len()));
            if index == root.0 {
                key = node_key;
            }
            nodes.push(Node {
                operator: renumber(node.operator, &places),
                schema: node.schema,
            });
        }
        // Every needed node comes before the root: inputs precede their users, and nothing uses the root.
        Lowered {
            plan: Plan { nodes },
            key,
            recomputed,
        }
    }
}

/// The operator with its inputs at their new places.
fn renumber(operator: Operator, places: &BTreeMap<usize, NodeId>) -> Operator {
    let place = |node: NodeId| places.get(&node.0).copied().unwrap_or(node);
    match operator {
        Operator::Get { .. } | Operator::Constant { .. } => operator,
        Operator::FilterProject {
            input,
            predicates,
            projections,
        } => Operator::FilterProject {
            input: place(input),
            predicates,
            projections,
        },
        Operator::Join {
            left,
            right,
            left_keys,
            right_keys,
            null_equals_null,
        } => Operator::Join {
            left: place(left),
            right: place(right),
            left_keys,
            right_keys,
            null_equals_null,
        },
        Operator::Aggregate {
            input,
            group,
            aggregates,
        } => Operator::Aggregate {
            input: place(input),
            group,
            aggregates,
        },
        Operator::Distinct { input } => Operator::Distinct {
            input: place(input),
        },
        Operator::Union { inputs } => Operator::Union {
            inputs: inputs.into_iter().map(place).collect(),
        },
        Operator::TopK {
            input,
            group,
            order,
            limit,
            offset,
        } => Operator::TopK {
            input: place(input),
            group,
            order,
            limit,
            offset,
        },
        Operator::Recompute {
            inputs,
            query,
            reason,
        } => Operator::Recompute {
            inputs: inputs.into_iter().map(place).collect(),
            query,
            reason,
        },
        Operator::RecomputeGroups {
            inputs,
            query,
            nulls_alone,
            what,
        } => Operator::RecomputeGroups {
            inputs: inputs
                .into_iter()
                .map(|(input, key)| (place(input), key))
                .collect(),
            query,
            nulls_alone,
            what,
        },
        Operator::RecomputeRows { input, query, what } => Operator::RecomputeRows {
            input: place(input),
            query,
            what,
        },
    }
}
