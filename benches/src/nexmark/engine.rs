//! A query by the engine: planned as `CREATE MATERIALIZED VIEW` plans it, run on one shard, its changes taken as a subscription's are.
//!
//! The tables are collections of the shard, which keeps their rows, as a node does with what a source brings.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, TimeUnit};
use flowstone_dataflow::{CollectionInput, TickOutput};
use flowstone_sql::catalog::{
    Catalog, CatalogChange, Column, Item, ItemKind, SchemaId, arrow_schema,
};
use flowstone_sql::lower::{Lowered, lower};
use flowstone_sql::parse::parse_query;
use flowstone_sql::plan::{PlanContext, plan_query};
use flowstone_types::datetime::TimeZone;
use flowstone_types::{DeltaBatch, Epoch, ObjectId, SqlType};
use serde_json::Value;

use super::events::{Auction, Bid, Digest, Events, Person, Tick};
use super::protocol::{self, Mode, Request};
use crate::shard;

const SUBSCRIPTION: ObjectId = ObjectId::User(100);

/// A kind of event as a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Person,
    Auction,
    Bid,
}

/// The changes of a tick.
type Inputs = Vec<(ObjectId, CollectionInput)>;

/// Runs a query as asked.
pub(super) fn run(sql: &str, request: &Request) -> Result<Value> {
    let lowered = plan(sql)?;
    if !lowered.recomputed.is_empty() {
        bail!("parts would be recomputed: {:?}", lowered.recomputed);
    }
    let mut shard = shard::single();
    let read = lowered.plan.collections();
    let tables: Vec<Table> = Table::ALL
        .into_iter()
        .filter(|table| read.contains(&table.id()))
        .collect();
    for table in &tables {
        shard.create_collection(table.id(), arrow_schema(&table.columns()), table.key())?;
    }
    shard.create_subscription(SUBSCRIPTION, &lowered.plan)?;
    let mut digest = Digest::default();
    let first = shard::hydrate(&mut shard, SUBSCRIPTION, Epoch(1))?;
    if !first.outputs.is_empty() {
        bail!("there are rows before there are events");
    }

    let idle = protocol::peak_mib()?;
    let mut events = Events::new(request.seed);
    let mut make = |(epoch, count): (u64, u64)| -> Result<(Epoch, Inputs)> {
        let epoch = Epoch(epoch);
        Ok((epoch, inputs(&tables, &events.take(count), epoch)?))
    };
    let mut ticks: Box<dyn Iterator<Item = Result<(Epoch, Inputs)>>> = if request.mode == Mode::Time
    {
        let all: Result<Vec<_>> = (2..).zip(request.ticks()).map(make).collect();
        Box::new(all?.into_iter().map(Ok))
    } else {
        Box::new((2..).zip(request.ticks()).map(&mut make))
    };
    let mut times = Vec::new();
    for tick in ticks.by_ref() {
        let (epoch, inputs) = tick?;
        let (output, elapsed) = shard::tick(&mut shard, epoch, inputs)?;
        times.push(elapsed + shard::maintain(&mut shard, epoch));
        if request.mode == Mode::Check {
            add_output(&output, &mut digest)?;
            digest.end_tick();
        }
    }
    protocol::answer(&times, idle, &digest)
}

/// Which parts of a query are recomputed, and why.
pub(super) fn recomputed(sql: &str) -> Result<Vec<String>> {
    Ok(plan(sql)?.recomputed)
}

fn plan(sql: &str) -> Result<Lowered> {
    let mut catalog = Catalog::initial();
    for table in Table::ALL {
        let item = Item {
            id: table.id(),
            oid: catalog.allocate_oid(),
            schema: SchemaId(1),
            name: table.name().to_owned(),
            create_sql: String::new(),
            depends_on: Vec::new(),
            comment: None,
            column_comments: BTreeMap::new(),
            kind: ItemKind::Table {
                columns: table.columns(),
                key: table.key(),
                source: None,
            },
        };
        catalog.apply(&[CatalogChange::PutItem(Box::new(item))])?;
    }
    let context = PlanContext {
        catalog: &catalog,
        database: "materialize",
        search_path: &["public".to_owned()],
        user: "materialize",
        now_ms: 0,
        time_zone: &TimeZone::UTC,
        transaction_epoch: None,
        variables: &|_| None,
        settings: &Vec::new,
        bytes: &|_| None,
        assigns: false,
        maintained: true,
        text: sql,
    };
    let query = parse_query(sql)?;
    Ok(lower(&plan_query(&context, &query, &[])?)?)
}

impl Table {
    const ALL: [Self; 3] = [Self::Person, Self::Auction, Self::Bid];

    const fn id(self) -> ObjectId {
        match self {
            Self::Person => ObjectId::User(1),
            Self::Auction => ObjectId::User(2),
            Self::Bid => ObjectId::User(3),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Auction => "auction",
            Self::Bid => "bid",
        }
    }

    fn key(self) -> Option<Vec<usize>> {
        match self {
            Self::Person | Self::Auction => Some(vec![0]),
            Self::Bid => None,
        }
    }

    fn columns(self) -> Vec<Column> {
        let columns: &[(&str, SqlType)] = match self {
            Self::Person => &[
                ("id", SqlType::Int8),
                ("name", SqlType::Text),
                ("email", SqlType::Text),
                ("credit_card", SqlType::Text),
                ("city", SqlType::Text),
                ("state", SqlType::Text),
                ("date_time", SqlType::Timestamp),
                ("extra", SqlType::Text),
            ],
            Self::Auction => &[
                ("id", SqlType::Int8),
                ("item_name", SqlType::Text),
                ("description", SqlType::Text),
                ("initial_bid", SqlType::Int8),
                ("reserve", SqlType::Int8),
                ("date_time", SqlType::Timestamp),
                ("expires", SqlType::Timestamp),
                ("seller", SqlType::Int8),
                ("category", SqlType::Int8),
                ("extra", SqlType::Text),
            ],
            Self::Bid => &[
                ("auction", SqlType::Int8),
                ("bidder", SqlType::Int8),
                ("price", SqlType::Int8),
                ("channel", SqlType::Text),
                ("url", SqlType::Text),
                ("date_time", SqlType::Timestamp),
                ("extra", SqlType::Text),
            ],
        };
        let column = |(name, sql_type): &(&str, SqlType)| Column {
            name: (*name).to_owned(),
            sql_type: sql_type.clone(),
            nullable: true,
            default: None,
        };
        columns.iter().map(column).collect()
    }

    fn rows(self, tick: &Tick) -> Result<RecordBatch> {
        let columns = match self {
            Self::Person => persons(&tick.persons),
            Self::Auction => auctions(&tick.auctions),
            Self::Bid => bids(&tick.bids),
        };
        Ok(RecordBatch::try_new(
            arrow_schema(&self.columns()),
            columns,
        )?)
    }
}

fn inputs(tables: &[Table], tick: &Tick, epoch: Epoch) -> Result<Inputs> {
    let mut inputs = Vec::new();
    for table in tables {
        let rows = table.rows(tick)?;
        if rows.num_rows() > 0 {
            let delta = DeltaBatch::insert(rows, epoch);
            inputs.push((table.id(), CollectionInput::Deltas(vec![delta])));
        }
    }
    Ok(inputs)
}

fn numbers<T>(rows: &[T], column: impl Fn(&T) -> i64) -> ArrayRef {
    Arc::new(rows.iter().map(column).collect::<Int64Array>())
}

fn times<T>(rows: &[T], column: impl Fn(&T) -> i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(
        rows.iter().map(column),
    ))
}

fn texts<T>(rows: &[T], column: impl Fn(&T) -> &str) -> ArrayRef {
    let values = rows.iter().map(|row| Some(column(row)));
    Arc::new(values.collect::<StringArray>())
}

fn persons(rows: &[Person]) -> Vec<ArrayRef> {
    vec![
        numbers(rows, |row| row.id),
        texts(rows, |row| &row.name),
        texts(rows, |row| &row.email),
        texts(rows, |row| &row.credit_card),
        texts(rows, |row| &row.city),
        texts(rows, |row| &row.state),
        times(rows, |row| row.date_time),
        texts(rows, |row| &row.extra),
    ]
}

fn auctions(rows: &[Auction]) -> Vec<ArrayRef> {
    vec![
        numbers(rows, |row| row.id),
        texts(rows, |row| &row.item_name),
        texts(rows, |row| &row.description),
        numbers(rows, |row| row.initial_bid),
        numbers(rows, |row| row.reserve),
        times(rows, |row| row.date_time),
        times(rows, |row| row.expires),
        numbers(rows, |row| row.seller),
        numbers(rows, |row| row.category),
        texts(rows, |row| &row.extra),
    ]
}

fn bids(rows: &[Bid]) -> Vec<ArrayRef> {
    vec![
        numbers(rows, |row| row.auction),
        numbers(rows, |row| row.bidder),
        numbers(rows, |row| row.price),
        texts(rows, |row| &row.channel),
        texts(rows, |row| &row.url),
        times(rows, |row| row.date_time),
        texts(rows, |row| &row.extra),
    ]
}

fn add_output(output: &TickOutput, digest: &mut Digest) -> Result<()> {
    for collection in &output.outputs {
        if collection.id != SUBSCRIPTION {
            continue;
        }
        if let Some((error, _)) = collection.errors.first() {
            bail!("the result has an error: {error}");
        }
        for delta in &collection.deltas {
            for row in 0..delta.len() {
                let mut text = String::new();
                for (at, column) in delta.rows.columns().iter().enumerate() {
                    if at > 0 {
                        text.push('|');
                    }
                    add_value(column, row, &mut text)?;
                }
                digest.add(&text, delta.weights.get(row));
            }
        }
    }
    Ok(())
}

/// Numbers in units of their last digit, times in microseconds.
fn add_value(column: &ArrayRef, row: usize, text: &mut String) -> Result<()> {
    if column.is_null(row) {
        bail!("a result is NULL");
    }
    match column.data_type() {
        DataType::Int64 => write!(text, "{}", column.as_primitive::<Int64Type>().value(row))?,
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            write!(text, "{}", times.value(row))?;
        }
        DataType::Decimal128(..) => {
            let numbers = column.as_primitive::<Decimal128Type>();
            write!(text, "{}", numbers.value(row))?;
        }
        DataType::Utf8 => {
            let texts = column.as_string_opt::<i32>().context("a column of text")?;
            text.push_str(texts.value(row));
        }
        other => bail!("a result of type {other}"),
    }
    Ok(())
}
