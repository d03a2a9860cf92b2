//! Reading for tables that were added to a running source, beside the reader that reads for the others.
//!
//! Owns one attempt at it. Must not know formats, or when it is to be begun again. Called by [`super`], on a thread that may block.
//!
//! Invariants. Nothing is said to be complete before everything below where the others were is on its way to the decoders.

use std::sync::Arc;

use flowstone_proto::kafka::{KafkaConnection, KafkaStart};
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::attempt::Ended;
use super::batch::{Batch, Lane};
use super::client::{serve, worst};
use super::consumer::{self, NAP, Part};
use super::offsets::Offsets;
use super::state::{Early, Shared};

/// Reads for tables that were added later, from the start or from where the round before has ended, up to where the others were. Blocks until everything is on
/// its way to the decoders. `connection`: one through which the topic was found to be the one that the others read.
///
/// # Errors
/// Why it has to be begun again.
pub(crate) fn read(
    shared: &Arc<Shared>,
    connection: &KafkaConnection,
    batches: &mpsc::Sender<Batch>,
    runtime: &Handle,
    early: &Early,
    start: &Offsets,
) -> Result<(), Ended> {
    let lane = Lane::Early(early.generation);
    let topic = &shared.own.source.topic;
    let send = |batch: Batch| {
        runtime.block_on(async {
            tokio::select! {
                () = shared.cancel.cancelled() => Err(Ended::Stopped),
                sent = batches.send(batch) => sent.map_err(|_| Ended::Stopped),
            }
        })
    };
    let consumer = consumer::open(shared, connection, "-early")?;
    let ids: Vec<i32> = consumer::partitions(&consumer, topic)?;
    let ends = consumer::watermarks(&consumer, topic, &ids)?;
    let mut from = Vec::new();
    for (id, until) in &early.until {
        let resumed = early.from.as_ref().and_then(|from| from.get(id));
        let begun = resumed.or(start.get(id)).copied().unwrap_or(0);
        let Some((low, high)) = ends.get(id).copied() else {
            return Err(Ended::transient(format!(
                "partition {id} of topic \"{topic}\" is gone"
            )));
        };
        if low > begun && matches!(shared.own.source.start, KafkaStart::Offsets(_)) {
            return Err(Ended::transient(format!(
                "messages of partition {id} of topic \"{topic}\" from START OFFSET {begun} to {low} are gone"
            )));
        }
        if low > begun && resumed.is_some() {
            // What was read before does not go with what there is any more.
            return Err(Ended::transient(format!(
                "messages of partition {id} of topic \"{topic}\" from offset {begun} to {low} were removed before they were read"
            )));
        }
        if high < *until {
            return Err(Ended::transient(format!(
                "partition {id} of topic \"{topic}\" ends at offset {high}, and was read up to {until}"
            )));
        }
        // With the oldest message that there is.
        let first = begun.max(low);
        if first < *until {
            from.push((*id, first, high));
        }
    }
    let mut parts = consumer::assign(&consumer, topic, lane, from.into_iter())?;
    let is_read = |part: &Part| {
        let until = early.until.get(&part.partition);
        until.is_none_or(|until| part.next >= *until)
    };
    while !parts.is_empty() {
        if shared.cancel.is_cancelled() {
            return Err(Ended::Stopped);
        }
        let reasons = serve(&consumer);
        if reasons
            .iter()
            .any(|(code, _)| *code == RDKafkaErrorCode::AllBrokersDown)
            && let Some((trouble, words)) = worst(&reasons)
        {
            return Err(Ended::unreachable(trouble, words));
        }
        let with_headers = shared.needs_headers();
        let mut is_busy = false;
        for part in &mut parts {
            part.fill(with_headers).map_err(|error| {
                Ended::transient(format!(
                    "partition {} of topic \"{topic}\" cannot be read: {error}",
                    part.partition
                ))
            })?;
            if let Some(batch) = part.take(lane) {
                is_busy = true;
                send(batch)?;
            }
        }
        parts.retain(|part| !is_read(part));
        if !is_busy && !parts.is_empty() {
            std::thread::park_timeout(NAP);
        }
    }
    send(Batch::end(lane))
}
