//! Relations as formats describe them: the columns that a schema or a declaration yields.
//!
//! Must not know where a relation is stored. Called by every format, and by whoever plans a relation.

use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use flowstone_types::SqlType;

/// A column that messages of a format yield.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, as the schema has it. Names of one relation may be equal (key and value); whoever plans the relation decides.
    pub name: String,
    /// Its type.
    pub sql_type: SqlType,
    /// Whether it may be NULL.
    pub nullable: bool,
}

impl Column {
    /// A column.
    pub fn new(name: impl Into<String>, sql_type: SqlType, nullable: bool) -> Self {
        Self {
            name: name.into(),
            sql_type,
            nullable,
        }
    }
}

/// The columns of a message, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// The columns.
    pub columns: Vec<Column>,
}

impl Relation {
    /// A relation of these columns.
    #[must_use]
    pub const fn new(columns: Vec<Column>) -> Self {
        Self { columns }
    }

    /// A relation of one column.
    #[must_use]
    pub fn of_one(name: &str, sql_type: SqlType) -> Self {
        Self::new(vec![Column::new(name, sql_type, false)])
    }

    /// The Arrow schema of its rows.
    #[must_use]
    pub fn to_schema(&self) -> SchemaRef {
        let fields = self
            .columns
            .iter()
            .map(|column| column.sql_type.to_field(&column.name, column.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Where the column of a name is: the first one.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}
