//! The tables that each load generator makes.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use flowstone_proto::message::{LoadGenerator, UpstreamColumn, UpstreamTable};
use flowstone_types::SqlType;

/// Money and quantities of TPC-H.
const DECIMAL: SqlType = SqlType::Numeric(Some((15, 2)));

/// The name of a generator, which stands for the upstream schema.
#[must_use]
pub const fn generator_name(generator: &LoadGenerator) -> &'static str {
    match generator {
        LoadGenerator::Counter { .. } => "counter",
        LoadGenerator::Auction => "auction",
        LoadGenerator::Tpch { .. } => "tpch",
    }
}

/// The tables of a generator: name, columns, and the columns that identify a row.
///
/// No column is nullable.
#[must_use]
pub fn generator_tables(generator: &LoadGenerator) -> Vec<(String, SchemaRef, Option<Vec<usize>>)> {
    definitions(generator)
        .into_iter()
        .map(|(name, columns, key)| {
            let fields: Vec<Field> = columns
                .iter()
                .map(|(name, sql_type)| sql_type.to_field(name, false))
                .collect();
            let schema: SchemaRef = Arc::new(Schema::new(fields));
            (name.to_owned(), schema, Some(key.to_vec()))
        })
        .collect()
}

/// The tables of a generator as a publication would describe them; OIDs are 0.
#[must_use]
pub fn describe(generator: &LoadGenerator) -> Vec<UpstreamTable> {
    let schema = generator_name(generator);
    definitions(generator)
        .into_iter()
        .map(|(name, columns, key)| UpstreamTable {
            schema: schema.to_owned(),
            name: name.to_owned(),
            oid: 0,
            replica_identity: 'd',
            key: key
                .iter()
                .filter_map(|index| columns.get(*index))
                .map(|(name, _)| (*name).to_owned())
                .collect(),
            columns: (1..)
                .zip(&columns)
                .map(|(attribute, (name, sql_type))| UpstreamColumn {
                    name: (*name).to_owned(),
                    attribute,
                    type_oid: sql_type.oid(),
                    type_name: sql_type.to_string(),
                    type_modifier: sql_type.type_modifier(),
                    not_null: true,
                })
                .collect(),
        })
        .collect()
}

type Definition = (&'static str, Vec<(&'static str, SqlType)>, &'static [usize]);

/// Name, columns, and which columns are the key.
fn definitions(generator: &LoadGenerator) -> Vec<Definition> {
    use SqlType::{Date, Int4, Int8, Text, TimestampTz};
    match generator {
        LoadGenerator::Counter { .. } => vec![("counter", vec![("counter", Int8)], &[0])],
        LoadGenerator::Auction => vec![
            ("organizations", vec![("id", Int8), ("name", Text)], &[0]),
            (
                "users",
                vec![("id", Int8), ("org_id", Int8), ("name", Text)],
                &[0],
            ),
            (
                "accounts",
                vec![("id", Int8), ("org_id", Int8), ("balance", Int8)],
                &[0],
            ),
            (
                "auctions",
                vec![
                    ("id", Int8),
                    ("seller", Int8),
                    ("item", Text),
                    ("end_time", TimestampTz),
                ],
                &[0],
            ),
            (
                "bids",
                vec![
                    ("id", Int8),
                    ("buyer", Int8),
                    ("auction_id", Int8),
                    ("amount", Int4),
                    ("bid_time", TimestampTz),
                ],
                &[0],
            ),
        ],
        LoadGenerator::Tpch { .. } => vec![
            (
                "supplier",
                vec![
                    ("s_suppkey", Int8),
                    ("s_name", Text),
                    ("s_address", Text),
                    ("s_nationkey", Int8),
                    ("s_phone", Text),
                    ("s_acctbal", DECIMAL),
                    ("s_comment", Text),
                ],
                &[0],
            ),
            (
                "part",
                vec![
                    ("p_partkey", Int8),
                    ("p_name", Text),
                    ("p_mfgr", Text),
                    ("p_brand", Text),
                    ("p_type", Text),
                    ("p_size", Int4),
                    ("p_container", Text),
                    ("p_retailprice", DECIMAL),
                    ("p_comment", Text),
                ],
                &[0],
            ),
            (
                "partsupp",
                vec![
                    ("ps_partkey", Int8),
                    ("ps_suppkey", Int8),
                    ("ps_availqty", Int4),
                    ("ps_supplycost", DECIMAL),
                    ("ps_comment", Text),
                ],
                &[0, 1],
            ),
            (
                "customer",
                vec![
                    ("c_custkey", Int8),
                    ("c_name", Text),
                    ("c_address", Text),
                    ("c_nationkey", Int8),
                    ("c_phone", Text),
                    ("c_acctbal", DECIMAL),
                    ("c_mktsegment", Text),
                    ("c_comment", Text),
                ],
                &[0],
            ),
            (
                "orders",
                vec![
                    ("o_orderkey", Int8),
                    ("o_custkey", Int8),
                    ("o_orderstatus", Text),
                    ("o_totalprice", DECIMAL),
                    ("o_orderdate", Date),
                    ("o_orderpriority", Text),
                    ("o_clerk", Text),
                    ("o_shippriority", Int4),
                    ("o_comment", Text),
                ],
                &[0],
            ),
            (
                "lineitem",
                vec![
                    ("l_orderkey", Int8),
                    ("l_partkey", Int8),
                    ("l_suppkey", Int8),
                    ("l_linenumber", Int4),
                    ("l_quantity", DECIMAL),
                    ("l_extendedprice", DECIMAL),
                    ("l_discount", DECIMAL),
                    ("l_tax", DECIMAL),
                    ("l_returnflag", Text),
                    ("l_linestatus", Text),
                    ("l_shipdate", Date),
                    ("l_commitdate", Date),
                    ("l_receiptdate", Date),
                    ("l_shipinstruct", Text),
                    ("l_shipmode", Text),
                    ("l_comment", Text),
                ],
                &[0, 3],
            ),
            (
                "nation",
                vec![
                    ("n_nationkey", Int8),
                    ("n_name", Text),
                    ("n_regionkey", Int8),
                    ("n_comment", Text),
                ],
                &[0],
            ),
            (
                "region",
                vec![("r_regionkey", Int8), ("r_name", Text), ("r_comment", Text)],
                &[0],
            ),
        ],
    }
}
