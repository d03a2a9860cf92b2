//! What a worker has to know of Kafka: how brokers and schema registries are reached, what messages of a topic are, and what a sink writes.
//!
//! Owns descriptions only. Must not know SQL, librdkafka or how payloads are decoded. Called by `sql::connector::kafka`, which makes them, and by `ingest`.

use std::fmt;
use std::time::Duration;

use flowstone_types::{InstallationId, ObjectId, SqlType};
use serde::{Deserialize, Serialize};

use crate::plan::Expr;

/// How to reach a Kafka cluster. Holds secrets: its `Debug` does not show them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaConnection {
    /// At least one.
    pub brokers: Vec<KafkaBroker>,
    /// `None`: plaintext.
    pub tls: Option<Tls>,
    /// `None`: nobody says who he is, but for a certificate.
    pub sasl: Option<Sasl>,
    /// The topic in which sinks write how far they are.
    pub progress_topic: Option<String>,
}

/// A broker as the user named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaBroker {
    /// `host:port`, as the cluster calls it.
    pub address: String,
    /// Where it is reached instead (`USING ADDRESS`): `host:port`.
    pub reached_at: Option<String>,
}

/// TLS of a client.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// PEM of the authority to trust; the system's if `None`.
    pub authority: Option<String>,
    /// PEM of the client's certificate and of its key.
    pub identity: Option<(String, String)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authority", &self.authority.is_some())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

/// Who a client says he is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sasl {
    /// How.
    pub mechanism: SaslMechanism,
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} as {}", self.mechanism, self.user)
    }
}

/// How a password is shown to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// It is sent.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

/// How to reach a schema registry with Confluent's interface. Holds secrets: its `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryConnection {
    /// `http://…` or `https://…`, with the path below which it is if there is one, and without a slash at its end.
    pub url: String,
    /// User and password.
    pub credentials: Option<(String, String)>,
    /// For `https`.
    pub tls: Option<Tls>,
}

impl fmt::Debug for RegistryConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "registry {}", self.url)
    }
}

/// What a source reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaSource {
    /// How to reach the cluster.
    pub connection: KafkaConnection,
    /// The topic.
    pub topic: String,
    /// Where it begins if it has not begun.
    pub start: KafkaStart,
    /// How often partitions are looked for.
    pub metadata_interval: Duration,
    /// What the name of the group begins with under which offsets are told, for people's tools only.
    pub group_id_prefix: Option<String>,
}

/// Where a source begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KafkaStart {
    /// With the oldest message of each partition.
    Earliest,
    /// At offsets, by partition; those that are not named at 0. One that is gone is an error.
    Offsets(Vec<i64>),
    /// With the first message at or after this time: milliseconds since 1970, or before now if negative.
    Timestamp(i64),
}

/// What a table makes of the messages of its source's topic: the `upstream` part of a source table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaTable {
    /// Of keys; `None` if they are not looked at.
    pub key: Option<Format>,
    /// Of values.
    pub value: Format,
    /// What a message says of rows.
    pub envelope: Envelope,
    /// Columns that are made of what is beside key and value.
    pub include: Vec<Include>,
    /// What becomes of what cannot be decoded.
    pub on_decode_error: OnDecodeError,
    /// Where the columns of the table come from, in their order.
    pub columns: Vec<KafkaColumn>,
}

/// Version of the encoding of a [`KafkaTable`], its first byte. A table that the catalog keeps is read by every later release: a change of the types in it is
/// a new version, and the old ones are read on.
const TABLE_VERSION: u8 = 1;

/// Why bytes are no [`KafkaTable`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableDecodeError {
    /// A later release wrote them.
    #[error("description of a Kafka table has version {found}, this version reads up to {known}")]
    Newer {
        /// Their version.
        found: u8,
        /// The newest version known here.
        known: u8,
    },
    /// They are not as they were written.
    #[error("description of a Kafka table is damaged: {0}")]
    Damaged(String),
}

impl KafkaTable {
    /// The table as bytes, the version first. Equal tables have equal bytes.
    ///
    /// # Panics
    /// Never: every part of it can be written to memory.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = vec![TABLE_VERSION];
        postcard::to_extend(self, bytes).expect("sequences of known length are written to memory")
    }

    /// Reads [`KafkaTable::encode`].
    ///
    /// # Errors
    /// [`TableDecodeError`]
    pub fn decode(bytes: &[u8]) -> Result<Self, TableDecodeError> {
        let damaged = |why: &str| TableDecodeError::Damaged(why.to_owned());
        let (version, body) = bytes.split_first().ok_or_else(|| damaged("it is empty"))?;
        match *version {
            TABLE_VERSION => {
                let (table, rest) = postcard::take_from_bytes(body)
                    .map_err(|error| TableDecodeError::Damaged(error.to_string()))?;
                if rest.is_empty() {
                    Ok(table)
                } else {
                    Err(damaged("it goes on after its end"))
                }
            }
            0 => Err(damaged("it has version 0")),
            found => Err(TableDecodeError::Newer {
                found,
                known: TABLE_VERSION,
            }),
        }
    }
}

/// Where a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KafkaColumn {
    /// A column of the decoded key.
    Key(usize),
    /// A column of the decoded value; of an image of a row, if values are changes.
    Value(usize),
    /// An entry of [`KafkaTable::include`].
    Include(usize),
    /// What could not be decoded (`VALUE DECODING ERRORS = INLINE`).
    Error,
}

/// How payloads are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// UTF-8.
    Text,
    /// Bytes.
    Bytes,
    /// A document in one column of `jsonb`.
    Json,
    /// Members of documents by the names of declared columns.
    JsonColumns(Vec<(String, SqlType)>),
    /// Comma-separated values.
    Csv {
        /// Names from a header, or a number of columns.
        columns: CsvColumns,
        /// One byte.
        delimiter: u8,
    },
    /// Groups of a regular expression.
    Regex(String),
    /// Avro.
    Avro(AvroFormat),
    /// Protobuf.
    Protobuf(ProtobufFormat),
}

/// The columns of comma-separated values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CsvColumns {
    /// So many, `column1` and so on.
    Count(usize),
    /// By a header, which every payload begins with if it is not the only row.
    Header(Vec<String>),
}

/// Avro.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AvroFormat {
    /// The schema that is read with, as JSON, and those it refers to.
    pub reader: String,
    /// Schemas that it refers to, each before those that refer to it.
    pub references: Vec<String>,
    /// Where the schemas are that messages were written with; `None` if all of them were written with the reader's and say no id.
    pub registry: Option<RegistryConnection>,
}

/// Protobuf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtobufFormat {
    /// The schema.
    pub schema: ProtobufSchema,
    /// The full name of the message; the first of the file if `None`.
    pub message: Option<String>,
    /// Whether messages begin with the id of a schema and the indexes of a message.
    pub framed: bool,
}

/// A schema of Protobuf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtobufSchema {
    /// The text of a file, and the names and texts of those it imports.
    Text {
        /// The file.
        file: String,
        /// What it imports: name, text.
        imports: Vec<(String, String)>,
    },
    /// A serialized `FileDescriptorSet`.
    Descriptors(Vec<u8>),
}

/// What a message says of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Envelope {
    /// It is a new row.
    None,
    /// It is the row of its key from now on; without a value there is none.
    Upsert,
    /// It is a change as Debezium states it.
    Debezium,
    /// It is a change as CockroachDB states it (`envelope=wrapped`), or a `resolved` message, which is none.
    Cockroach,
    /// Changes in a lossless form of ours.
    Materialize,
}

/// A column beside key and value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Include {
    /// `int4`.
    Partition,
    /// `int8`.
    Offset,
    /// `timestamp`.
    Timestamp,
    /// A list of records of `key text, value bytea`.
    Headers,
    /// The last header of a name; NULL if there is none.
    Header {
        /// The name.
        name: String,
        /// `bytea`, else `text`.
        bytes: bool,
    },
}

/// What becomes of what cannot be decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDecodeError {
    /// The table is in error while the message counts: for a message of a key, until the next one of that key.
    #[default]
    Row,
    /// The source stalls.
    Fail,
    /// The columns of the value are NULL, and [`KafkaColumn::Error`] says why.
    Inline,
    /// The message is written to another topic as it was, with the reason in its headers, and passed over.
    DeadLetter {
        /// The topic, of the same cluster.
        topic: String,
    },
}

/// What a sink writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaSink {
    /// How to reach the cluster.
    pub connection: KafkaConnection,
    /// The topic, which is made if it does not exist.
    pub topic: KafkaTopic,
    /// Of keys, with the columns that make them; `None`: messages have none.
    pub key: Option<(SinkFormat, Vec<usize>)>,
    /// Of values.
    pub value: SinkFormat,
    /// What a message says.
    pub envelope: SinkEnvelope,
    /// The column of headers, a map of `text` to `text` or `bytea`.
    pub headers: Option<usize>,
    /// What decides on the partition; the key if `None`.
    pub partition_by: Option<SinkPartition>,
    /// What is compressed with: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// Whether what was there at the beginning is written.
    pub snapshot: bool,
    /// What the identity of the producer begins with; `flowstone-sink` if `None`.
    pub transactional_id_prefix: Option<String>,
    /// Whose sink it is. Others may have one of the same id in the same Kafka cluster.
    pub installation: InstallationId,
}

impl KafkaSink {
    /// The identity of the producer of the sink `id`: no other sink has it, here or elsewhere.
    #[must_use]
    pub fn transactional_id(&self, id: ObjectId) -> String {
        let prefix = self.transactional_id_prefix.as_deref();
        let prefix = prefix.unwrap_or("flowstone-sink");
        format!("{prefix}-{}", self.progress_key(id))
    }

    /// The key of the records of the sink `id` in the progress topic.
    #[must_use]
    pub fn progress_key(&self, id: ObjectId) -> String {
        format!("{}-{id}", self.installation)
    }
}

/// What decides on the partition of a message: a number, which is taken modulo the number of partitions. What has none goes to the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkPartition {
    /// A column of integers.
    Column(usize),
    /// An expression of type `uint8` over the columns of the collection, which are named as those of a node of a plan.
    Expression(Expr),
    /// Why an expression cannot be planned any more. Nothing can be written then.
    Unplanned(String),
}

/// A topic that a sink may have to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaTopic {
    /// Its name.
    pub name: String,
    /// Partitions; the broker's default if `None`.
    pub partitions: Option<i32>,
    /// Replicas; the broker's default if `None`.
    pub replication: Option<i32>,
    /// Other settings.
    pub settings: Vec<(String, String)>,
}

/// What a sink's payloads are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkFormat {
    /// Avro, with schemas that are registered.
    Avro {
        /// Where.
        registry: Box<RegistryConnection>,
        /// The full name of the record.
        name: String,
        /// Documentation: of the record (`None`) or of a column, and the text.
        docs: Vec<(Option<usize>, String)>,
        /// What is set for the subject before.
        compatibility: Option<String>,
        /// Whether fields that may be null have that as their default.
        null_defaults: bool,
    },
    /// JSON.
    Json,
    /// The text of the only column.
    Text,
    /// The bytes of the only column.
    Bytes,
}

/// What a sink's message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkEnvelope {
    /// The row of the key from now on; without a value there is none.
    Upsert,
    /// The row before and the row after.
    Debezium,
    /// A new row. Only of what never takes back any.
    None,
}

/// A schema to be looked up in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchemaRequest {
    /// The newest version of a subject.
    Latest(String),
    /// A schema by its id.
    Id(u32),
}

/// What a registry has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredSchema {
    /// Its id.
    pub id: u32,
    /// Of which kind it is.
    pub kind: SchemaKind,
    /// The text.
    pub text: String,
    /// Names and texts of the schemas that it refers to, each before those that refer to it.
    pub references: Vec<(String, String)>,
}

/// A kind of schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchemaKind {
    /// Avro.
    Avro,
    /// JSON Schema.
    Json,
    /// Protobuf.
    Protobuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> KafkaTable {
        KafkaTable {
            key: Some(Format::Text),
            value: Format::JsonColumns(vec![("a".to_owned(), SqlType::Int4)]),
            envelope: Envelope::Upsert,
            include: vec![Include::Header {
                name: "h".to_owned(),
                bytes: true,
            }],
            on_decode_error: OnDecodeError::Row,
            columns: vec![
                KafkaColumn::Key(0),
                KafkaColumn::Value(0),
                KafkaColumn::Include(0),
            ],
        }
    }

    #[test]
    fn a_table_is_read_as_it_was_written_and_nothing_else_is_one() {
        let bytes = table().encode();
        assert_eq!(bytes.first(), Some(&TABLE_VERSION));
        assert_eq!(KafkaTable::decode(&bytes), Ok(table()));
        for cut in 0..bytes.len() {
            KafkaTable::decode(&bytes[..cut]).unwrap_err();
        }
        let mut longer = bytes.clone();
        longer.push(0);
        KafkaTable::decode(&longer).unwrap_err();
        let mut newer = bytes;
        newer[0] = TABLE_VERSION + 1;
        assert!(matches!(
            KafkaTable::decode(&newer),
            Err(TableDecodeError::Newer { .. })
        ));
    }

    /// Bytes of version 1: so that a change of a type in it is noticed.
    #[test]
    fn a_table_of_version_1_is_read() {
        let bytes = [
            1, // version
            1, 0, // key: text
            3, 1, 1, b'a', 2, // value: members, one, "a", int4
            1, // upsert
            1, 4, 1, b'h', 1, // one column beside: a header, bytes
            0, // on an error: the row
            3, 0, 0, 1, 0, 2, 0, // columns
        ];
        assert_eq!(KafkaTable::decode(&bytes), Ok(table()));
        assert_eq!(table().encode(), bytes);
    }
}
