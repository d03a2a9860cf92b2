//! Changes to a transaction.
//!
//! Owns how changes are cut so that what is summed up at once stays small. Must not know where they come from. Called by the task of a sink, on a thread that may
//! block.
//!
//! Invariants. All changes of one key in one epoch are folded together. After an error nothing of the transaction counts, or the log is lost.

use std::collections::BTreeMap;

use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use flowstone_ingest::sink::{Encoder, Failure, FoldError, Progress, TopicLog, fold};
use flowstone_proto::kafka::{KafkaSink, SinkEnvelope};
use flowstone_types::consolidate::consolidate;
use flowstone_types::hash::hash_rows;
use flowstone_types::value::text_of;
use flowstone_types::{DeltaBatch, Epoch, SqlType, TypeError};
use itertools::Itertools;

use super::partition::Partitioner;
use crate::size::bytes_of;

/// What is summed up at once: the rows are copied, and no column may have more than 2 GiB of text.
const BYTES_AT_ONCE: usize = 256 << 20;

/// Changes that are messages at once.
const MESSAGES_AT_ONCE: usize = 4096;

/// What of a sink says how changes are folded.
#[derive(Clone, Debug)]
pub(super) struct Folding {
    key: Option<Vec<usize>>,
    envelope: SinkEnvelope,
}

impl Folding {
    pub(super) fn of(sink: &KafkaSink) -> Self {
        Self {
            key: sink.key.as_ref().map(|(_, columns)| columns.clone()),
            envelope: sink.envelope,
        }
    }

    /// Whether what is written stays for ever.
    pub(super) fn takes_nothing_back(&self) -> bool {
        self.envelope == SinkEnvelope::None
    }
}

/// What makes messages of the changes of a collection.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) encoder: Encoder,
    pub(super) partitioner: Option<Partitioner>,
}

/// How much was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// Writes changes, which lead to `to`, in one transaction.
///
/// # Errors
/// [`Failure::Data`] if they cannot be written as the sink is to; else what the log says.
pub(super) fn write(
    log: &mut dyn TopicLog,
    messages: &Messages,
    folding: &Folding,
    deltas: Vec<DeltaBatch>,
    to: &Progress,
) -> Result<Written, Failure> {
    let mut epochs: BTreeMap<Epoch, Vec<DeltaBatch>> = BTreeMap::new();
    for delta in deltas {
        epochs.entry(delta.epoch).or_default().push(delta);
    }
    let mut written = Written::default();
    for (epoch, deltas) in epochs {
        let parts = apart(deltas, folding.key.as_deref(), BYTES_AT_ONCE);
        for part in unless_data(log, parts)? {
            let sum = sum_of(&part, epoch);
            let sum = unless_data(log, sum)?;
            send(log, messages, folding, &sum, &mut written)?;
        }
    }
    log.commit(to)?;
    Ok(written)
}

/// Gives up the transaction if `outcome` is an error.
fn unless_data<T, E: ToString>(
    log: &mut dyn TopicLog,
    outcome: Result<T, E>,
) -> Result<T, Failure> {
    match outcome {
        Ok(found) => Ok(found),
        Err(error) => {
            log.abort()?;
            Err(Failure::Data(error.to_string()))
        }
    }
}

fn send(
    log: &mut dyn TopicLog,
    messages: &Messages,
    folding: &Folding,
    delta: &DeltaBatch,
    written: &mut Written,
) -> Result<(), Failure> {
    let changes = fold(delta, folding.key.as_deref(), folding.envelope);
    let changes = changes.map_err(|error| match error {
        FoldError::NotUnique { row } => {
            let key = folding.key.as_deref().unwrap_or_default();
            format!("{error}: {}", key_text(&delta.rows, key, row))
        }
        FoldError::Retraction | FoldError::Value(_) => error.to_string(),
    });
    let changes = unless_data(log, changes)?;
    let partitioner = messages.partitioner.as_ref();
    let numbers = partitioner.map(|found| found.numbers(&delta.rows));
    let numbers = unless_data(log, numbers.transpose())?;
    let encoder = &messages.encoder;
    for some in changes.chunks(MESSAGES_AT_ONCE) {
        let (rows, partitions) = (&delta.rows, log.partitions());
        let messages = encoder.messages(rows, some, delta.epoch, partitions, numbers.as_ref());
        let messages = unless_data(log, messages)?;
        log.send(&messages)?;
        let bytes: usize = messages.iter().map(|message| message.bytes()).sum();
        let count = u64::try_from(messages.len()).unwrap_or(u64::MAX);
        written.messages = written.messages.saturating_add(count);
        written.bytes = written
            .bytes
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// `k=1, l=2`.
fn key_text(rows: &RecordBatch, key: &[usize], row: usize) -> String {
    let schema = rows.schema();
    let columns = key.iter().filter_map(|column| {
        let (field, array) = (schema.fields().get(*column)?, rows.columns().get(*column)?);
        let mut text = String::new();
        let sql_type = SqlType::from_field(field).ok()?;
        let is_value = text_of(array, row, &sql_type, &mut text).ok()?;
        let text = if is_value { text.as_str() } else { "NULL" };
        Some(format!("{}={text}", field.name()))
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// What is left of changes, which count as of `epoch`.
///
/// # Errors
/// [`TypeError`] of a broken column.
pub(super) fn sum_of(deltas: &[DeltaBatch], epoch: Epoch) -> Result<DeltaBatch, TypeError> {
    let Some(first) = deltas.first() else {
        return Err(TypeError::Kernel("no changes to sum up".to_owned()));
    };
    let mut sum = consolidate(&DeltaBatch::concat(&first.schema(), deltas, epoch)?)?;
    sum.epoch = epoch;
    Ok(sum)
}

/// Changes in parts of about `bytes_max`, each with all of its keys, or of its rows if there are no keys.
fn apart(
    deltas: Vec<DeltaBatch>,
    key: Option<&[usize]>,
    bytes_max: usize,
) -> Result<Vec<Vec<DeltaBatch>>, TypeError> {
    let bytes: usize = deltas.iter().map(|delta| bytes_of(&delta.rows)).sum();
    let count = bytes.checked_div(bytes_max).unwrap_or_default() + 1;
    if count == 1 {
        return Ok(if deltas.is_empty() {
            Vec::new()
        } else {
            vec![deltas]
        });
    }
    let divisor = u64::try_from(count).unwrap_or(u64::MAX);
    let mut parts: Vec<Vec<DeltaBatch>> = vec![Vec::new(); count];
    for delta in deltas {
        let columns = delta.rows.columns();
        let hashed: Vec<ArrayRef> = match key {
            Some(key) => {
                let found = key
                    .iter()
                    .filter_map(|column| columns.get(*column).cloned());
                found.collect()
            }
            None => columns.to_vec(),
        };
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); count];
        for (row, hash) in (0_u32..).zip(hash_rows(&hashed, delta.len())?) {
            let part = usize::try_from(hash.checked_rem(divisor).unwrap_or_default());
            if let Some(rows) = part.ok().and_then(|part| rows.get_mut(part)) {
                rows.push(row);
            }
        }
        for (part, rows) in parts.iter_mut().zip_eq(rows) {
            if !rows.is_empty() {
                part.push(delta.take(&UInt32Array::from(rows))?);
            }
        }
    }
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;
    use arrow_schema::Schema;

    use super::*;

    #[test]
    fn parts_have_all_rows_of_their_keys() {
        let schema = Arc::new(Schema::new(vec![
            SqlType::Int8.to_field("k", false),
            SqlType::Int8.to_field("v", false),
        ]));
        let deltas = (0..4).map(|version| {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
            let values: ArrayRef = Arc::new(Int64Array::from(vec![version; 100]));
            let rows = RecordBatch::try_new(Arc::clone(&schema), vec![keys, values]).unwrap();
            DeltaBatch::insert(rows, Epoch(1))
        });
        let parts = apart(deltas.collect(), Some(&[0]), 1000).unwrap();
        assert!(parts.len() > 1);
        let rows: usize = parts.iter().flatten().map(DeltaBatch::len).sum();
        assert_eq!(rows, 400);
        for part in parts {
            let sum = sum_of(&part, Epoch(1)).unwrap();
            let folded = fold(&sum, Some(&[1, 0]), SinkEnvelope::Upsert).unwrap();
            // Four values of each key that is here.
            assert_eq!(folded.len() % 4, 0);
        }
    }

    #[test]
    fn an_error_names_the_key() {
        let schema = Arc::new(Schema::new(vec![SqlType::Int8.to_field("k", true)]));
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        let rows = RecordBatch::try_new(schema, vec![keys]).unwrap();
        assert_eq!(key_text(&rows, &[0], 0), "k=7");
        assert_eq!(key_text(&rows, &[0], 1), "k=NULL");
    }
}
