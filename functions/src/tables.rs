//! Placeholder tables: what a plan scans before it is shipped to the worker.
//!
//! Owns the two kinds of relation a plan may name. They carry a schema and an identity and cannot be executed; `codec::decode_plan`
//! replaces them with tables that can.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use flowstone_types::ObjectId;

/// What a scan of a plan reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScanTarget {
    /// A maintained collection.
    Collection(ObjectId),
    /// Input number `index` of an operator that evaluates a query.
    Input(usize),
}

impl fmt::Display for ScanTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collection(id) => write!(f, "collection:{id}"),
            Self::Input(index) => write!(f, "input:{index}"),
        }
    }
}

impl FromStr for ScanTarget {
    type Err = DataFusionError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || DataFusionError::Internal(format!("not a scan target: {text}"));
        match text.split_once(':').ok_or_else(bad)? {
            ("collection", id) => Ok(Self::Collection(id.parse().map_err(|_| bad())?)),
            ("input", index) => Ok(Self::Input(index.parse().map_err(|_| bad())?)),
            _ => Err(bad()),
        }
    }
}

/// A maintained collection as the planner sees it. Scanning it is an error.
#[derive(Clone, Debug)]
pub struct CollectionTable {
    /// Which collection.
    pub id: ObjectId,
    /// Its columns; SQL types are in the field metadata.
    pub schema: SchemaRef,
}

impl CollectionTable {
    /// The table of collection `id`.
    #[must_use]
    pub const fn new(id: ObjectId, schema: SchemaRef) -> Self {
        Self { id, schema }
    }
}

/// An input of an operator that evaluates a query, as the query sees it. Scanning it is an error.
#[derive(Clone, Debug)]
pub struct InputTable {
    /// Position among the node's inputs.
    pub index: usize,
    /// Its columns `c0`, `c1`, …
    pub schema: SchemaRef,
}

impl InputTable {
    /// The table of input `index`.
    #[must_use]
    pub const fn new(index: usize, schema: SchemaRef) -> Self {
        Self { index, schema }
    }
}

macro_rules! placeholder_table {
    ($table:ty) => {
        #[async_trait]
        impl TableProvider for $table {
            fn schema(&self) -> SchemaRef {
                Arc::clone(&self.schema)
            }

            fn table_type(&self) -> TableType {
                TableType::Base
            }

            async fn scan(
                &self,
                _state: &dyn Session,
                _projection: Option<&Vec<usize>>,
                _filters: &[Expr],
                _limit: Option<usize>,
            ) -> Result<Arc<dyn ExecutionPlan>> {
                internal_err!("{:?} is a placeholder and cannot be scanned", self)
            }
        }
    };
}

placeholder_table!(CollectionTable);
placeholder_table!(InputTable);
