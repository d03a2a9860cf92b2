//! What is in the topics: rows made from numbers, as JSON, as Avro, and as changes in Avro as Debezium's connector for MySQL writes them.
//!
//! Owns the statements and schemas that fit them, and what their tables must come to. Must not know brokers. Called by `kafka`.
//!
//! Avro is encoded here, by hand: another encoder than the engine's, and one without a table to look at for each value.

use std::io::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

/// Of every topic.
pub(super) const PARTITIONS: i32 = 4;
/// How often a row changes in the topic of changes.
const VERSIONS: i64 = 5;
/// A prime: rows change in the order of its multiples, so that changes of neighbours are not beside each other.
const STRIDE: i64 = 7919;
/// 2024-01-01, in seconds since 1970.
const FIRST_DAY: i64 = 1_704_067_200;
const DAY_SECONDS: i64 = 86_400;

/// What a table comes to: see [`Messages::expected`].
pub(super) const SUMS: &str = "SELECT count(*), sum(id)::bigint, sum(customer)::bigint, sum(amount * 4)::bigint, sum(length(note))::bigint, count(at) FROM bench";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    Json,
    Avro,
    Debezium,
}

impl Workload {
    pub(super) const ALL: [Self; 3] = [Self::Json, Self::Avro, Self::Debezium];

    pub(super) const fn topic(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Avro => "avro",
            Self::Debezium => "debezium",
        }
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Json => "JSON, append",
            Self::Avro => "Avro, append",
            Self::Debezium => "Avro of Debezium, upsert",
        }
    }

    /// Which part of the consumer's speed ingestion should have.
    pub(super) const fn aim(self) -> f64 {
        match self {
            Self::Json | Self::Avro => 0.5,
            Self::Debezium => 0.3,
        }
    }

    pub(super) const fn create(self) -> &'static str {
        match self {
            Self::Json => {
                "CREATE SOURCE bench (id bigint, customer int, amount double precision, at timestamp, note text)
                 FROM KAFKA CONNECTION kafka (TOPIC 'json') FORMAT JSON"
            }
            Self::Avro => {
                "CREATE SOURCE bench FROM KAFKA CONNECTION kafka (TOPIC 'avro') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr"
            }
            Self::Debezium => {
                "CREATE SOURCE bench FROM KAFKA CONNECTION kafka (TOPIC 'debezium') FORMAT AVRO USING CONFLUENT SCHEMA REGISTRY CONNECTION csr
                 ENVELOPE DEBEZIUM"
            }
        }
    }

    pub(super) fn key_schema(self) -> Option<Value> {
        let key = json!({
            "type": "record", "name": "Key", "namespace": "shop.shop.events",
            "fields": [{"name": "id", "type": "long"}], "connect.name": "shop.shop.events.Key",
        });
        (self == Self::Debezium).then_some(key)
    }

    pub(super) fn value_schema(self) -> Option<Value> {
        match self {
            Self::Json => None,
            Self::Avro => Some(row_schema(
                "Event",
                &json!({"type": "long", "logicalType": "timestamp-micros"}),
            )),
            Self::Debezium => Some(envelope_schema()),
        }
    }
}

fn row_schema(name: &str, at: &Value) -> Value {
    json!({"type": "record", "name": name, "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "int"},
        {"name": "amount", "type": "double"},
        {"name": "at", "type": at},
        {"name": "note", "type": ["null", "string"], "default": null},
    ]})
}

/// As Debezium 3.6 registers it.
fn envelope_schema() -> Value {
    let at = json!({"type": "long", "connect.version": 1, "connect.name": "io.debezium.time.MicroTimestamp"});
    let snapshot = json!([
        {
            "type": "string", "connect.version": 1, "connect.default": "false", "connect.name": "io.debezium.data.Enum",
            "connect.parameters": {"allowed": "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},
        },
        "null",
    ]);
    let optional =
        |name: &str, other: &str| json!({"name": name, "type": ["null", other], "default": null});
    let source = json!({
        "type": "record", "name": "Source", "namespace": "io.debezium.connector.mysql", "fields": [
            {"name": "version", "type": "string"},
            {"name": "connector", "type": "string"},
            {"name": "name", "type": "string"},
            {"name": "ts_ms", "type": "long"},
            {"name": "snapshot", "type": snapshot, "default": "false"},
            {"name": "db", "type": "string"},
            optional("sequence", "string"),
            optional("ts_us", "long"),
            optional("ts_ns", "long"),
            optional("table", "string"),
            {"name": "server_id", "type": "long"},
            optional("gtid", "string"),
            {"name": "file", "type": "string"},
            {"name": "pos", "type": "long"},
            {"name": "row", "type": "int"},
            optional("thread", "long"),
            optional("query", "string"),
        ],
        "connect.version": 1, "connect.name": "io.debezium.connector.mysql.Source",
    });
    let transaction = json!({
        "type": "record", "name": "block", "namespace": "event", "fields": [
            {"name": "id", "type": "string"},
            {"name": "total_order", "type": "long"},
            {"name": "data_collection_order", "type": "long"},
        ],
        "connect.version": 1, "connect.name": "event.block",
    });
    json!({
        "type": "record", "name": "Envelope", "namespace": "shop.shop.events", "fields": [
            {"name": "before", "type": ["null", row_schema("Value", &at)], "default": null},
            {"name": "after", "type": ["null", "Value"], "default": null},
            {"name": "source", "type": source},
            {"name": "transaction", "type": ["null", transaction], "default": null},
            {"name": "op", "type": "string"},
            optional("ts_ms", "long"),
            optional("ts_us", "long"),
            optional("ts_ns", "long"),
        ],
        "connect.version": 2, "connect.name": "shop.shop.events.Envelope",
    })
}

/// What the registry calls the schemas of a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SchemaIds {
    pub(super) key: u32,
    pub(super) value: u32,
}

/// The messages of a topic, by their number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages {
    workload: Workload,
    ids: SchemaIds,
    /// Of the table, in the end.
    rows: i64,
    /// Messages for each row.
    versions: i64,
}

impl Messages {
    /// As many messages as wanted, or nearly.
    pub(super) fn new(workload: Workload, wanted: i64, ids: SchemaIds) -> Self {
        let (rows, versions) = match workload {
            Workload::Json | Workload::Avro => (wanted, 1),
            Workload::Debezium => {
                let rows = (wanted / VERSIONS).max(1);
                // Else its multiples were not all rows.
                (rows + i64::from(rows % STRIDE == 0), VERSIONS)
            }
        };
        Self {
            workload,
            ids,
            rows,
            versions,
        }
    }

    pub(super) const fn count(&self) -> i64 {
        self.rows * self.versions
    }

    pub(super) const fn topic(&self) -> &'static str {
        self.workload.topic()
    }

    /// The statement that makes a table `bench` of them.
    pub(super) const fn create(&self) -> &'static str {
        self.workload.create()
    }

    /// Which row a message is about, and which of its versions it is.
    const fn place(&self, number: i64) -> (i64, i64) {
        match self.workload {
            Workload::Json | Workload::Avro => (number, 0),
            Workload::Debezium => (number % self.rows * STRIDE % self.rows, number / self.rows),
        }
    }

    /// Puts a message into empty buffers; says its partition.
    pub(super) fn write(&self, number: i64, key: &mut Vec<u8>, value: &mut Vec<u8>) -> Result<i32> {
        let (id, version) = self.place(number);
        match self.workload {
            Workload::Json => Row::of(id, version).write_json(value)?,
            Workload::Avro => {
                put_prefix(self.ids.value, value);
                Row::of(id, version).write_avro(value)?;
            }
            Workload::Debezium => {
                put_prefix(self.ids.key, key);
                put_long(id, key);
                put_prefix(self.ids.value, value);
                write_change(number, id, version, value)?;
            }
        }
        Ok(i32::try_from(id % i64::from(PARTITIONS))?)
    }

    /// What [`SUMS`] gives once all messages are in the table: the last version of each row.
    pub(super) fn expected(&self) -> [i64; 6] {
        let (mut ids, mut customers, mut quarters) = (0, 0, 0);
        for number in self.count() - self.rows..self.count() {
            let (id, version) = self.place(number);
            let row = Row::of(id, version);
            ids += row.id;
            customers += i64::from(row.customer);
            quarters += i64::from(row.quarters);
        }
        let notes = self.rows * NOTE_BYTES;
        [self.rows, ids, customers, quarters, notes, self.rows]
    }
}

/// The length of a note: two numbers in hexadecimal notation.
const NOTE_BYTES: i64 = 32;

/// A row of the table, all of it from its number and version.
struct Row {
    id: i64,
    customer: u16,
    /// Of the amount, so that sums are exact.
    quarters: u32,
    /// Of January 2024.
    day: u8,
    /// Of the day.
    second: u16,
    seed: u64,
}

impl Row {
    const fn of(id: i64, version: i64) -> Self {
        let seed = mixed(id.cast_unsigned() ^ version.cast_unsigned().rotate_left(40));
        let [a, b, c, d, e, f, g, h] = seed.to_le_bytes();
        Self {
            id,
            customer: u16::from_le_bytes([a, b]),
            quarters: u32::from_le_bytes([c, d, e, 0]),
            day: h % 28 + 1,
            second: u16::from_le_bytes([f, g]),
            seed,
        }
    }

    fn amount(&self) -> f64 {
        f64::from(self.quarters) / 4.0
    }

    const fn micros(&self) -> u32 {
        self.quarters % 1_000_000
    }

    fn write_note(&self, out: &mut Vec<u8>) -> Result<()> {
        Ok(write!(out, "{:016x}{:016x}", self.seed, mixed(self.seed))?)
    }

    fn write_json(&self, out: &mut Vec<u8>) -> Result<()> {
        let (hour, minute, second) = (self.second / 3600, self.second / 60 % 60, self.second % 60);
        write!(
            out,
            r#"{{"id":{},"customer":{},"amount":{},"at":"2024-01-{:02}T{hour:02}:{minute:02}:{second:02}.{:06}","note":""#,
            self.id,
            self.customer,
            self.amount(),
            self.day,
            self.micros()
        )?;
        self.write_note(out)?;
        out.extend_from_slice(br#""}"#);
        Ok(())
    }

    fn write_avro(&self, out: &mut Vec<u8>) -> Result<()> {
        let days = i64::from(self.day) - 1;
        let seconds = FIRST_DAY + days * DAY_SECONDS + i64::from(self.second);
        put_long(self.id, out);
        put_long(i64::from(self.customer), out);
        out.extend_from_slice(&self.amount().to_le_bytes());
        put_long(seconds * 1_000_000 + i64::from(self.micros()), out);
        put_long(1, out);
        put_long(NOTE_BYTES, out);
        self.write_note(out)
    }
}

/// The change that makes a row this version of it.
fn write_change(number: i64, id: i64, version: i64, out: &mut Vec<u8>) -> Result<()> {
    if version == 0 {
        put_long(0, out);
    } else {
        put_long(1, out);
        Row::of(id, version - 1).write_avro(out)?;
    }
    put_long(1, out);
    Row::of(id, version).write_avro(out)?;
    let micros = 1_790_000_000_000_000 + number * 10;
    let times = |out: &mut Vec<u8>| {
        for time in [micros, micros * 1000] {
            put_long(1, out);
            put_long(time, out);
        }
    };
    // What is said of the place in the binary log.
    for text in ["3.6.1.Final", "mysql", "shop"] {
        put_text(text, out)?;
    }
    put_long(micros / 1000, out);
    put_long(0, out);
    put_text("false", out)?;
    put_text("shop", out)?;
    put_long(0, out);
    times(out);
    put_long(1, out);
    put_text("events", out)?;
    // The server's number, no GTID.
    put_long(1, out);
    put_long(0, out);
    put_text("binlog.000004", out)?;
    put_long(1000 + number * 300, out);
    put_long(0, out);
    // The thread, no query, no transaction.
    put_long(1, out);
    put_long(86, out);
    put_long(0, out);
    put_long(0, out);
    put_text(if version == 0 { "c" } else { "u" }, out)?;
    put_long(1, out);
    put_long(micros / 1000, out);
    times(out);
    Ok(())
}

/// SplitMix64's finalizer. Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
const fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What comes before a payload: that a registry has its schema, and under which id.
fn put_prefix(id: u32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

/// An integer of Avro, of any width, or which member of a union follows.
fn put_long(number: i64, out: &mut Vec<u8>) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) -> Result<()> {
    put_long(i64::try_from(text.len())?, out);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn integers_are_those_of_avro() {
        for (number, expected) in [
            (0, vec![0]),
            (-1, vec![1]),
            (63, vec![0x7e]),
            (64, vec![0x80, 1]),
            (-65, vec![0x81, 1]),
            (i64::MIN, [vec![0xff; 9], vec![1]].concat()),
        ] {
            let mut out = Vec::new();
            put_long(number, &mut out);
            assert_eq!(out, expected, "{number}");
        }
    }

    #[test]
    fn every_round_of_changes_is_of_every_row() {
        let messages = Messages::new(Workload::Debezium, 5 * STRIDE, SchemaIds::default());
        let rows: BTreeSet<(i64, i64)> = (0..messages.count()).map(|n| messages.place(n)).collect();
        assert_eq!(i64::try_from(rows.len()).unwrap(), messages.count());
        assert!(
            rows.iter()
                .all(|(id, version)| *id < messages.rows && *version < VERSIONS)
        );
    }

    #[test]
    fn a_row_is_an_object() {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let messages = Messages::new(Workload::Json, 10, SchemaIds::default());
        assert_eq!(messages.write(6, &mut key, &mut value).unwrap(), 2);
        assert!(key.is_empty());
        let row: Value = serde_json::from_slice(&value).unwrap();
        assert_eq!(row["id"], json!(6));
        assert_eq!(row["note"].as_str().map(str::len), Some(32));
    }
}
