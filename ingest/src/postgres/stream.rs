//! Streaming: START_REPLICATION, taking in what arrives, and telling the server how far it may forget.
//!
//! Must not know how changes become batches. Called by the source's main task, again after every lost connection.
//!
//! Invariants. Status updates are sent every second whether or not the socket is read, so a full buffer never costs the connection.

use std::sync::Arc;
use std::time::Duration;

use flowstone_types::ObjectId;
use tokio::time::Instant;

use super::attempt::AttemptError;
use super::pgoutput::{Envelope, Reply, envelope, status_update};
use super::state::Shared;
use super::table_log::Failure;
use super::wire::{
    Connection, WireError, format_lsn, quote_identifier, quote_literal, server_error,
};

/// How often the server hears from us at least.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which the server is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(10);
/// Silence after which the connection counts as lost.
const DEAD: Duration = Duration::from_secs(60);
/// Messages taken in under one lock: takes wait no longer than this lasts.
const MESSAGES_PER_LOCK: usize = 2048;
/// Requests for a reply between two of our own updates that only a server waiting to shut down makes: it asks again after each answer, until
/// everything is confirmed, and would hang for as long as we hold changes that are not committed.
const PINGS_OF_SHUTDOWN: u32 = 10;
/// Milliseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const POSTGRES_EPOCH_MS: u64 = 946_684_800_000;

/// What was taken in at once.
#[derive(Debug, Default)]
struct Drained {
    failures: Vec<(ObjectId, Failure)>,
    replies_requested: u32,
    advanced: bool,
    /// There may be more in the buffer.
    more: bool,
}

/// Streams from `received` on until the connection is lost or the source is stopped. `connection` is a replication connection.
pub(crate) async fn stream(shared: &Arc<Shared>, mut connection: Connection) -> AttemptError {
    match stream_until_error(shared, &mut connection).await {
        Ok(()) => {
            connection.close().await;
            AttemptError::Stopped
        }
        Err(error) => error,
    }
}

async fn stream_until_error(
    shared: &Arc<Shared>,
    connection: &mut Connection,
) -> Result<(), AttemptError> {
    let start = {
        let mut state = shared.lock();
        state.roll_back();
        state.received
    };
    let publication = quote_literal(&quote_identifier(&shared.publication));
    let sql = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {publication})",
        quote_identifier(&shared.slot),
        format_lsn(start)
    );
    connection
        .copy_both(&sql)
        .await
        .map_err(|error| refused(shared, error))?;
    let mut status = tokio::time::interval(STATUS_INTERVAL);
    status.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_read = Instant::now();
    let mut confirmed = 0;
    let mut pings = 0;
    loop {
        let drained = drain(shared, connection)?;
        shared.report_failures(drained.failures).await;
        if drained.advanced {
            shared.bump();
        }
        pings += drained.replies_requested;
        if pings >= PINGS_OF_SHUTDOWN {
            return Err(AttemptError::Transient {
                message: "server is shutting down".to_owned(),
                hint: None,
            });
        }
        if drained.replies_requested > 0 {
            confirmed = send_status(shared, connection, Reply::NotNeeded).await?;
        }
        if drained.more {
            tokio::task::yield_now().await;
            continue;
        }
        let full = shared.lock().is_full();
        tokio::select! {
            () = shared.cancel.cancelled() => return Ok(()),
            () = shared.moved.notified() => {
                // Acknowledging in small steps would only make traffic; an idle source waits for the next second.
                if shared.lock().confirm() > confirmed {
                    confirmed = send_status(shared, connection, Reply::NotNeeded).await?;
                }
            }
            _ = status.tick() => {
                pings = 0;
                let silence = last_read.elapsed();
                if !full && silence > DEAD {
                    return Err(WireError::Timeout("waiting for the server to send anything").into());
                }
                let reply = if silence > QUIET { Reply::Requested } else { Reply::NotNeeded };
                confirmed = send_status(shared, connection, reply).await?;
                if full {
                    last_read = Instant::now();
                }
            }
            read = connection.read(), if !full => {
                read?;
                last_read = Instant::now();
            }
        }
    }
}

/// Takes in what has been read.
fn drain(shared: &Shared, connection: &mut Connection) -> Result<Drained, AttemptError> {
    let malformed = |error: super::pgoutput::DecodeError| {
        AttemptError::from(WireError::Protocol(error.to_string()))
    };
    let mut drained = Drained::default();
    let mut state = shared.lock();
    let before = (state.received, state.upstream);
    let mut ended = Ok(());
    for number in 0.. {
        if number == MESSAGES_PER_LOCK || state.is_full() {
            drained.more = number == MESSAGES_PER_LOCK;
            break;
        }
        let Some(frame) = connection.buffered_frame()? else {
            break;
        };
        match frame.tag {
            b'd' => match envelope(&frame.body).map_err(malformed)? {
                Envelope::Wal { message } => drained
                    .failures
                    .extend(state.apply(message).map_err(malformed)?),
                Envelope::Keepalive {
                    end_lsn,
                    reply_requested,
                } => {
                    state.keepalive(end_lsn);
                    drained.replies_requested += u32::from(reply_requested);
                }
            },
            b'E' => ended = Err(WireError::Server(server_error(&frame.body))),
            b'c' | b'Z' => {
                ended = Err(WireError::Protocol(
                    "server ended the replication stream".to_owned(),
                ))
            }
            _ => {}
        }
        if ended.is_err() {
            break;
        }
    }
    drained.advanced = before != (state.received, state.upstream);
    ended.map_err(|error| refused(shared, error))?;
    Ok(drained)
}

async fn send_status(
    shared: &Shared,
    connection: &mut Connection,
    reply: Reply,
) -> Result<u64, AttemptError> {
    let (received, confirmed) = {
        let mut state = shared.lock();
        (state.received, state.confirm())
    };
    let now_us = shared
        .clock
        .now_ms()
        .saturating_sub(POSTGRES_EPOCH_MS)
        .saturating_mul(1000);
    let update = status_update(
        received,
        confirmed,
        i64::try_from(now_us).unwrap_or(i64::MAX),
        reply,
    );
    connection.send_copy_data(&update).await?;
    Ok(confirmed)
}

/// What a refusal to stream means: a slot that is gone or invalidated never comes back.
fn refused(shared: &Shared, error: WireError) -> AttemptError {
    let WireError::Server(server) = &error else {
        return error.into();
    };
    let about_slot = server.message.contains("replication slot");
    match server.code.as_str() {
        "42704" if about_slot => slot_missing(shared),
        // Decoding looks it up as of each change: creating it again does not bring back what it published.
        "42704" if server.message.contains("publication") => publication_missing(shared),
        "55000" if about_slot => slot_lost(&server.message),
        _ => error.into(),
    }
}

/// The slot does not exist.
pub(crate) fn slot_missing(shared: &Shared) -> AttemptError {
    AttemptError::permanent(
        format!("replication slot \"{}\" does not exist", shared.slot),
        "The slot was dropped upstream and the changes since then are lost. Drop the source and create it again.",
    )
}

/// The publication does not exist where the stream is.
fn publication_missing(shared: &Shared) -> AttemptError {
    AttemptError::permanent(
        format!("publication \"{}\" does not exist", shared.publication),
        "The publication was dropped upstream, and what changed since then was not published. Create it again, then drop the source and create it again.",
    )
}

/// The slot exists but has lost its place.
pub(crate) fn slot_lost(message: &str) -> AttemptError {
    AttemptError::permanent(
        message.to_owned(),
        "The server has removed changes that were not read yet. Raise max_slot_wal_keep_size upstream, then drop the source and create it again.",
    )
}
