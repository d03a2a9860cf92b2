//! A small catalog with data, and ways to run plans over it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use flowstone_functions::codec::decode_plan;
use flowstone_functions::{ScanTarget, session_state, task_context};
use flowstone_sql::catalog::{
    Catalog, CatalogChange, Column, IndexKey, Item, ItemKind, SchemaId, arrow_schema,
};
use flowstone_sql::error::Error;
use flowstone_sql::plan::{
    PlanContext, PlannedQuery, WriteKind, plan_query, plan_view, plan_write,
};
use flowstone_types::datetime::TimeZone;
use flowstone_types::{ObjectId, SqlType};
use sqlparser::ast::Query;

/// 2024-05-06 07:08:09.123 UTC
pub(crate) const NOW_MS: u64 = 1_714_979_289_123;

/// A catalog and the rows of its collections.
pub(crate) struct Fixture {
    pub(crate) catalog: Catalog,
    pub(crate) rows: BTreeMap<ObjectId, RecordBatch>,
    pub(crate) search_path: Vec<String>,
    runtime: tokio::runtime::Runtime,
}

pub(crate) fn parse_query(sql: &str) -> Box<Query> {
    flowstone_sql::parse::parse_query(sql).expect("test queries parse")
}

fn no_variable(name: &str) -> Option<String> {
    (name == "server_version_num").then(|| "150000".to_owned())
}

impl Fixture {
    /// Tables `items`, `orders`, `people`, `typed` and `long_names`, filled.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let mut fixture = Self {
            catalog: Catalog::initial(),
            rows: BTreeMap::new(),
            search_path: vec!["public".to_owned()],
            runtime,
        };
        fixture.table(
            "items",
            &[
                ("id", SqlType::Int4),
                ("name", SqlType::Text),
                ("price", SqlType::Numeric(Some((10, 2)))),
            ],
            Some(vec![0]),
        );
        fixture.table(
            "orders",
            &[
                ("id", SqlType::Int4),
                ("item", SqlType::Int4),
                ("amount", SqlType::Int8),
            ],
            Some(vec![0]),
        );
        fixture.table(
            "people",
            &[
                ("name", SqlType::Text),
                ("city", SqlType::Text),
                ("age", SqlType::Int4),
            ],
            None,
        );
        fixture.table(
            "typed",
            &[
                ("b", SqlType::Bool),
                ("i2", SqlType::Int2),
                ("f", SqlType::Float8),
                ("d", SqlType::Date),
                ("ts", SqlType::Timestamp),
                ("tstz", SqlType::TimestampTz),
                ("iv", SqlType::Interval),
                ("u", SqlType::Uuid),
                ("j", SqlType::Jsonb),
                ("a", SqlType::Array(Box::new(SqlType::Int4))),
                ("v", SqlType::VarChar(Some(5))),
            ],
            None,
        );
        for insert in [
            "INSERT INTO items VALUES (1, 'apple', 0.50), (2, 'pear', 1.25), (3, 'plum', NULL)",
            "INSERT INTO orders VALUES (10, 1, 5), (11, 2, 7), (12, 1, 1), (13, NULL, 2), (14, 9, 3)",
            "INSERT INTO people VALUES ('ann', 'rome', 30), ('bob', 'rome', 20), ('cid', 'oslo', 30), ('cid', 'oslo', 30), ('dan', NULL, NULL)",
            "INSERT INTO typed VALUES (true, 1, 1.5, '2024-01-31', '2024-01-31 12:00', '2024-01-31 12:00+02', '1 day 02:00', \
             'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": [1, {\"b\": \"x\"}]}', '{1,2,3}', 'abc'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        ] {
            fixture.write(insert).expect("rows are inserted");
        }
        fixture
    }

    pub(crate) fn ctx(&self) -> PlanContext<'_> {
        PlanContext {
            catalog: &self.catalog,
            database: "materialize",
            search_path: &self.search_path,
            user: "materialize",
            now_ms: NOW_MS,
            time_zone: &TimeZone::UTC,
            transaction_epoch: None,
            variables: &no_variable,
            settings: &Vec::new,
            bytes: &|_| None,
            assigns: false,
            maintained: false,
            text: "",
        }
    }

    fn put(&mut self, name: &str, kind: ItemKind) -> ObjectId {
        let id = ObjectId::User(self.catalog.allocate_id());
        let oid = self.catalog.allocate_oid();
        let item = Item {
            id,
            oid,
            schema: SchemaId(1),
            name: name.to_owned(),
            create_sql: String::new(),
            depends_on: Vec::new(),
            comment: None,
            column_comments: BTreeMap::new(),
            kind,
        };
        self.catalog
            .apply(&[CatalogChange::PutItem(Box::new(item))])
            .expect("a valid item");
        id
    }

    pub(crate) fn table(
        &mut self,
        name: &str,
        columns: &[(&str, SqlType)],
        key: Option<Vec<usize>>,
    ) -> ObjectId {
        let columns: Vec<Column> = columns
            .iter()
            .map(|(name, sql_type)| Column {
                name: (*name).to_owned(),
                sql_type: sql_type.clone(),
                nullable: true,
                default: None,
            })
            .collect();
        self.table_of(name, columns, key)
    }

    pub(crate) fn table_of(
        &mut self,
        name: &str,
        columns: Vec<Column>,
        key: Option<Vec<usize>>,
    ) -> ObjectId {
        let schema = arrow_schema(&columns);
        let id = self.put(
            name,
            ItemKind::Table {
                columns,
                key,
                source: None,
            },
        );
        self.rows.insert(id, RecordBatch::new_empty(schema));
        id
    }

    pub(crate) fn view(&mut self, name: &str, query: &str) {
        let planned = plan_view(&self.ctx(), &parse_query(query), &[]).expect("the view plans");
        self.put(
            name,
            ItemKind::View {
                columns: planned.columns,
                query: planned.query_sql,
            },
        );
    }

    pub(crate) fn index(&mut self, name: &str, on: &str, column: &str) {
        let on = self
            .catalog
            .items
            .values()
            .find(|item| item.name == on)
            .expect("the relation exists")
            .id;
        self.put(
            name,
            ItemKind::Index {
                on,
                key: vec![IndexKey {
                    expression: column.to_owned(),
                    column: Some(0),
                }],
            },
        );
    }

    pub(crate) fn plan(&self, sql: &str) -> Result<PlannedQuery, Error> {
        plan_query(&self.ctx(), &parse_query(sql), &[])
    }

    /// The plan after a journey through the codec, executed.
    pub(crate) fn run(&self, planned: &PlannedQuery) -> Result<RecordBatch, String> {
        let encoded = planned.encode().map_err(|error| error.to_string())?;
        let plan = decode_plan(&encoded.bytes, &|target, schema| match target {
            ScanTarget::Collection(id) => Ok(self.provider(id, &schema)),
            ScanTarget::Input(index) => panic!("input {index} in a query"),
        })
        .map_err(|error| error.to_string())?;
        self.execute(&plan)
    }

    pub(crate) fn provider(&self, id: ObjectId, schema: &SchemaRef) -> Arc<dyn TableProvider> {
        let rows = self
            .rows
            .get(&id)
            .cloned()
            .unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema)));
        memory(&rows)
    }

    pub(crate) fn execute(&self, plan: &LogicalPlan) -> Result<RecordBatch, String> {
        self.runtime.block_on(async {
            let state = session_state();
            let physical = state
                .query_planner()
                .create_physical_plan(plan, &state)
                .await
                .map_err(|error| error.to_string())?;
            let schema = physical.schema();
            let batches = collect(physical, task_context())
                .await
                .map_err(|error| flowstone_functions::errors::eval_error(&error).message)?;
            arrow::compute::concat_batches(&schema, &batches).map_err(|error| error.to_string())
        })
    }

    /// The result of a query: names and types of columns, then the rows; NULL as `∅`.
    pub(crate) fn query(&self, sql: &str) -> Result<(String, Vec<String>), String> {
        let planned = self.plan(sql).map_err(|error| error.to_string())?;
        let batch = self.run(&planned)?;
        for (column, field) in planned.columns.iter().zip(batch.schema().fields()) {
            assert_eq!(
                column
                    .sql_type
                    .to_arrow()
                    .to_string()
                    .replace("nullable", ""),
                field.data_type().to_string().replace("nullable", ""),
                "{sql}: the type of {} is what it was planned to be",
                column.name
            );
        }
        let header: Vec<String> = planned
            .columns
            .iter()
            .map(|column| format!("{}:{}", column.name, column.sql_type))
            .collect();
        Ok((header.join(" "), lines(&batch)))
    }

    /// Applies an INSERT, UPDATE or DELETE. Returns what its RETURNING gives.
    pub(crate) fn write(&mut self, sql: &str) -> Result<Vec<String>, String> {
        let statements = flowstone_sql::parse::parse(sql).map_err(|error| error.to_string())?;
        let [statement] = statements.as_slice() else {
            panic!("one statement: {sql}")
        };
        let planned = plan_write(&self.ctx(), &statement.kind, &[]);
        let planned = planned.map_err(|error| error.to_string())?;
        let changed = self.run(&planned.query)?;
        let table = self
            .rows
            .get(&planned.table)
            .expect("the table exists")
            .clone();
        let width = table.num_columns();
        let part = |columns: std::ops::Range<usize>| {
            let columns: Vec<usize> = columns.collect();
            changed.project(&columns).expect("planned columns")
        };
        let (old, new, written) = match planned.kind {
            WriteKind::Insert => (None, Some(part(0..width)), width),
            WriteKind::Delete => (Some(part(0..width)), None, width),
            WriteKind::Update => (
                Some(part(0..width)),
                Some(part(width..2 * width)),
                2 * width,
            ),
        };
        let returned = match &planned.returning {
            Some(schema) => {
                let returned = part(written..changed.num_columns());
                assert_eq!(returned.num_columns(), schema.fields().len(), "{sql}");
                lines(&returned)
            }
            None => Vec::new(),
        };
        let mut gone: Vec<String> = old.as_ref().map(lines).unwrap_or_default();
        let keep: Vec<bool> = lines(&table)
            .into_iter()
            .map(|line| match gone.iter().position(|old| *old == line) {
                Some(position) => {
                    gone.remove(position);
                    false
                }
                None => true,
            })
            .collect();
        assert!(gone.is_empty(), "every deleted row exists: {gone:?}");
        let kept = arrow::compute::filter_record_batch(&table, &keep.into())
            .expect("a mask of the right length");
        let mut batches = vec![kept];
        if let Some(new) = new {
            let columns = new.columns().to_vec();
            batches.push(
                RecordBatch::try_new(table.schema(), columns)
                    .expect("new rows have exactly the table's types"),
            );
        }
        let rows = arrow::compute::concat_batches(&table.schema(), &batches).expect("one schema");
        self.rows.insert(planned.table, rows);
        Ok(returned)
    }
}

/// A table of these rows.
pub(crate) fn memory(rows: &RecordBatch) -> Arc<dyn TableProvider> {
    Arc::new(
        MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).expect("rows have their schema"),
    )
}

/// The rows as text, NULL as `∅`, columns separated by `|`.
pub(crate) fn lines(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("∅");
    let formatters: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).expect("values can be shown"))
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            formatters
                .iter()
                .map(|formatter| formatter.value(row).to_string())
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect()
}
