//! Updates with times on their way to rows of a table, which are given out when their times are whole.
//!
//! Owns what is known of the only partition, and what came of messages until that is in the log. Must not know envelopes of other kinds, or logs.
//! Called by [`super::TableDecoder`] and by [`super::lines`].
//!
//! Invariants. A message is looked at once, however often it is shown: what came of it is kept until nobody can ask for it any more. The rows of a time
//! come of the message with which it became whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_row::{RowConverter, Rows, SortField};
use arrow_schema::{ArrowError, SchemaRef};
use flowstone_formats::avro::{AvroDecoder, DecodedUpdates};
use flowstone_formats::envelope::updates::{Broken, Progress, Update, WholeTimes};
use flowstone_proto::kafka::KafkaColumn;

use crate::kafka::batch::{Batch, Message};
use crate::kafka::marks::Mark;

/// What updates may take in memory that are at times which are not whole, as it is counted: a row with what it costs to keep it, as often as it comes.
const OPEN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What came of a message.
#[derive(Debug)]
pub(super) enum Told {
    /// Times are whole now, which these are the updates of.
    Closed(Vec<Update>),
    /// It cannot be read.
    Bad(String),
}

/// What is known of a topic of updates with times.
#[derive(Debug)]
pub(super) struct Updates {
    converter: RowConverter,
    /// By column of the table, the column of the rows in messages.
    places: Vec<usize>,
    whole: WholeTimes,
    /// Messages below this offset were looked at.
    seen: i64,
    /// By offset, what came of messages that may be shown again.
    told: BTreeMap<i64, Told>,
    /// The message from which on nothing can be made of the topic, and why.
    broken: Option<(i64, String)>,
}

impl Updates {
    /// Of a table with these columns, at the beginning of the topic.
    ///
    /// # Errors
    /// Why the table cannot be fed with updates.
    pub(super) fn new(columns: &[KafkaColumn], schema: &SchemaRef) -> Result<Self, String> {
        let fields = schema.fields().iter();
        let fields = fields.map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(fields.collect()).map_err(|error| error.to_string())?;
        let places = columns.iter().map(|column| match column {
            KafkaColumn::Value(place) => Ok(*place),
            KafkaColumn::Key(_) | KafkaColumn::Include(_) | KafkaColumn::Error => {
                Err("rows of updates have only columns of their values".to_owned())
            }
        });
        Ok(Self {
            converter,
            places: places.collect::<Result<_, String>>()?,
            whole: WholeTimes::new(0, OPEN_BYTES_MAX),
            seen: i64::MIN,
            told: BTreeMap::new(),
            broken: None,
        })
    }

    /// Goes on where a mark is: messages are shown from what it needs on.
    pub(super) fn begin_at(&mut self, mark: Mark) {
        self.whole = WholeTimes::new(mark.frontier, OPEN_BYTES_MAX);
        self.seen = mark.needed;
    }

    /// What is known after the messages that were shown; `None` before the first one.
    pub(super) fn mark(&self) -> Option<Mark> {
        (self.seen > i64::MIN).then(|| Mark {
            next: self.seen,
            frontier: self.whole.frontier(),
            needed: self.whole.needed().unwrap_or(self.seen),
        })
    }

    /// What came of a message, if anything did.
    pub(super) fn told(&self, offset: i64) -> Option<&Told> {
        self.told.get(&offset)
    }

    /// From which message on nothing can be made of the topic, and why, if that is so.
    pub(super) fn broken(&self) -> Option<(i64, &str)> {
        let (offset, reason) = self.broken.as_ref()?;
        Some((*offset, reason))
    }

    /// Nobody asks again for what is below an offset.
    pub(super) fn settle(&mut self, next: i64) {
        self.told = self.told.split_off(&next);
    }

    /// Looks at messages of a batch that were not looked at yet.
    ///
    /// # Errors
    /// Why nothing can be made of any message.
    pub(super) fn look_at(
        &mut self,
        avro: &AvroDecoder,
        batch: &Batch,
        messages: &[Message],
    ) -> Result<(), String> {
        if let Some(first) = messages.first() {
            self.settle(first.offset);
        }
        let known = messages.partition_point(|message| message.offset < self.seen);
        let new = messages.get(known..).unwrap_or_default();
        if new.is_empty() || self.broken.is_some() {
            return Ok(());
        }
        let payloads: Vec<Option<&[u8]>> = new.iter().map(|message| batch.value(message)).collect();
        let mut decoded = avro
            .decode_updates(&payloads)
            .map_err(|error| error.to_string())?;
        let rows = self.encoded(&decoded).map_err(|error| error.to_string())?;
        let mut progress = std::mem::take(&mut decoded.progress).into_iter().peekable();
        let mut bad = std::mem::take(&mut decoded.bad).into_iter().peekable();
        let mut row = 0;
        for (index, message) in (0_u32..).zip(new) {
            let first = row;
            while decoded.rows.get(row) == Some(&index) {
                row += 1;
            }
            let stated = progress.next_if(|(of, _)| *of == index);
            let told = match bad.next_if(|bad| bad.index == index) {
                Some(bad) => Ok(Some(Told::Bad(bad.reason))),
                None => self.tell(message.offset, first..row, (&decoded, &rows), stated),
            };
            match told {
                Ok(told) => self.told.extend(told.map(|told| (message.offset, told))),
                Err(broken) => {
                    self.seen = message.offset;
                    self.broken = Some((message.offset, broken.to_string()));
                    return Ok(());
                }
            }
            self.seen = message.offset + 1;
        }
        Ok(())
    }

    /// The rows of updates as bytes: equal if and only if the rows are.
    fn encoded(&self, decoded: &DecodedUpdates) -> Result<Rows, ArrowError> {
        let columns: Vec<ArrayRef> = self
            .places
            .iter()
            .filter_map(|place| decoded.columns.get(*place).cloned())
            .collect();
        self.converter.convert_columns(&columns)
    }

    /// What comes of a message with some of the decoded updates, and with what it states of progress.
    fn tell(
        &mut self,
        offset: i64,
        updates: std::ops::Range<usize>,
        (decoded, rows): (&DecodedUpdates, &Rows),
        stated: Option<(u32, Progress)>,
    ) -> Result<Option<Told>, Broken> {
        let times = decoded.times.values().get(updates.clone());
        let times: Result<Vec<u64>, _> = times
            .unwrap_or_default()
            .iter()
            .map(|time| u64::try_from(*time))
            .collect();
        let Ok(times) = times else {
            let reason = "the time of an update is negative".to_owned();
            return Ok(Some(Told::Bad(reason)));
        };
        let weights = decoded.weights.values().get(updates.clone());
        let weights = weights.unwrap_or_default();
        if weights.contains(&0) {
            let reason = "the diff of an update is zero".to_owned();
            return Ok(Some(Told::Bad(reason)));
        }
        for ((row, time), weight) in updates.zip(times).zip(weights) {
            self.whole
                .update(offset, rows.row(row).data(), time, *weight)?;
        }
        if let Some((_, progress)) = stated {
            self.whole.progress(offset, progress)?;
        }
        let closed = self.whole.close()?;
        Ok((!closed.is_empty()).then_some(Told::Closed(closed)))
    }

    /// The rows of updates, in the columns of the table.
    ///
    /// # Errors
    /// [`ArrowError`] if these are not the columns that the rows are of.
    pub(super) fn rows(
        &self,
        updates: &[(&Update, i64)],
        schema: &SchemaRef,
    ) -> Result<RecordBatch, ArrowError> {
        let parser = self.converter.parser();
        let rows = updates.iter().map(|(update, _)| parser.parse(&update.row));
        let columns = self.converter.convert_rows(rows)?;
        let options = RecordBatchOptions::new().with_row_count(Some(updates.len()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
    }
}

#[cfg(test)]
mod tests;
