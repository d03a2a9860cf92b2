//! What a table makes of messages, as it is kept in the description of the table.

use flowstone_proto::kafka::{Envelope, KafkaTable};
use flowstone_proto::message::SourceTable;

/// Reads it.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn decode(table: &SourceTable) -> Result<KafkaTable, String> {
    KafkaTable::decode(&table.upstream)
        .map_err(|error| format!("description of the table: {error}"))
}

/// Whether what its upstream sends again has to be told, since it would count twice: changes of rows without a key, and updates with times.
pub(crate) fn is_watched(table: &SourceTable) -> bool {
    let is_of_changes =
        |table: KafkaTable| matches!(table.envelope, Envelope::Debezium | Envelope::Cockroach);
    (table.key.is_empty() && decode(table).is_ok_and(is_of_changes)) || has_times(table)
}

/// Whether its messages are updates with times and progress.
pub(crate) fn has_times(table: &SourceTable) -> bool {
    decode(table).is_ok_and(|table| table.envelope == Envelope::Materialize)
}
