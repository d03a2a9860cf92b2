//! Streaming: START_REPLICATION, taking in what arrives, and telling the server how far it may forget.
//!
//! Must not know how changes become batches or files. Called by the source's main task, again after every lost connection.
//!
//! Invariants. Status updates are sent every second whether or not the socket is read, so a full buffer or a full disk never costs the connection.
//! Transactions come whole, once they have committed: the first version of the protocol knows no other way, so transactions that are open upstream cost
//! nothing here.

use std::sync::Arc;
use std::time::Duration;

use flowstone_proto::message::{PostgresConnection, SourceStatus};
use flowstone_types::ObjectId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::attempt::AttemptError;
use super::pgoutput::{Envelope, Reply, envelope, status_update};
use super::state::Shared;
use super::wire::{
    Connection, WireError, format_lsn, quote_identifier, quote_literal, server_error,
};
use crate::Error;
use crate::table_log::Failure;
use crate::transactions::{Event, Pressure, Spiller};

/// How often the server hears from us at least.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which the server is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(10);
/// Silence after which the connection counts as lost.
const DEAD: Duration = Duration::from_secs(60);
/// How long it may take to say goodbye to a server from which the connection leads away: it may not be there any more.
const GOODBYE: Duration = Duration::from_secs(1);
/// Messages taken in under one lock: takes wait no longer than this lasts.
const MESSAGES_PER_LOCK: usize = 2048;
/// Bytes taken in before it is looked again whether there is room for more.
const BYTES_PER_LOOK: usize = 1024 * 1024;
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

/// Streams from `received` on until the connection is lost or `altered`, or the source is stopped. `connection` is a replication connection.
pub(crate) async fn stream(
    shared: &Arc<Shared>,
    mut connection: Connection,
    altered: &mut watch::Receiver<PostgresConnection>,
) -> AttemptError {
    match stream_until_error(shared, &mut connection, altered).await {
        Ok(()) => {
            connection.close().await;
            AttemptError::Stopped
        }
        Err(AttemptError::Altered) => {
            // The server lets go of the slot then.
            if tokio::time::timeout(GOODBYE, connection.close())
                .await
                .is_err()
            {
                tracing::debug!(source = %shared.id, "the server did not hear that the connection was altered");
            }
            AttemptError::Altered
        }
        Err(error) => error,
    }
}

async fn stream_until_error(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    altered: &mut watch::Receiver<PostgresConnection>,
) -> Result<(), AttemptError> {
    let start = {
        let mut state = shared.lock();
        state.roll_back();
        state.received
    };
    let publication = quote_literal(&quote_identifier(&shared.own.publication));
    let sql = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {publication})",
        quote_identifier(&shared.own.slot),
        format_lsn(start)
    );
    tokio::select! {
        started = connection.copy_both(&sql) => started.map_err(|error| refused(shared, error))?,
        _changed = altered.changed() => return Err(AttemptError::Altered),
    }
    let mut status = tokio::time::interval(STATUS_INTERVAL);
    status.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_read = Instant::now();
    let mut confirmed = 0;
    let mut pings = 0;
    let mut spilling = Spilling::new(shared);
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
        let full = spilling.has_no_room(shared).await?;
        tokio::select! {
            () = shared.cancel.cancelled() => return Ok(()),
            _changed = altered.changed() => return Err(AttemptError::Altered),
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
            event = spilling.spiller.event(), if !spilling.spiller.is_idle() => spilling.handle(shared, event).await?,
            read = connection.read(), if !full => {
                read?;
                last_read = Instant::now();
            }
        }
    }
}

/// Getting to disk what there is no room for in memory.
#[derive(Debug)]
struct Spilling {
    spiller: Spiller,
    /// Whether the disk has refused, and everybody was told.
    stalled: bool,
}

impl Spilling {
    fn new(shared: &Shared) -> Self {
        let directory = Arc::clone(&shared.spill);
        Self {
            spiller: Spiller::new(directory, &shared.writing, &shared.cancel),
            stalled: false,
        }
    }

    /// Whether the socket must not be read for now. Begins to make room if there is none.
    async fn has_no_room(&mut self, shared: &Shared) -> Result<bool, AttemptError> {
        let pressure = shared.lock().pressure();
        match pressure {
            // What was taken meanwhile has made room.
            Pressure::None => self.run_again(shared).await,
            Pressure::Memory if self.spiller.is_idle() => {
                let candidates = shared.lock().logs.candidates();
                let candidates = candidates.map_err(|error| AttemptError::internal(&error))?;
                // What a take waits with stays until the end of the take, which wakes us.
                if !candidates.is_empty() {
                    self.spiller.start(candidates);
                }
            }
            Pressure::Memory | Pressure::Full => {}
        }
        Ok(pressure != Pressure::None)
    }

    /// # Errors
    /// What is not the disk's fault: the attempt ends with it.
    ///
    /// # Cancel safety
    /// None: the event is gone.
    async fn handle(&mut self, shared: &Shared, event: Event) -> Result<(), AttemptError> {
        let Event::Written(mut written) = event else {
            return Ok(());
        };
        shared.lock().logs.set_spilled(&mut written);
        match written.failure {
            None => self.run_again(shared).await,
            Some(error @ Error::State { .. }) => match AttemptError::from(error) {
                AttemptError::Transient { message, .. } => self.stall(shared, message).await,
                ended => return Err(ended),
            },
            Some(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn stall(&mut self, shared: &Shared, message: String) {
        tracing::warn!(source = %shared.id, error = message, "changes that wait could not be written to disk; trying again");
        self.stalled = true;
        let hint = "The source goes on once there is room on the disk of the data directory.";
        let status = SourceStatus::Stalled {
            error: message,
            hint: Some(hint.to_owned()),
        };
        shared.status(shared.id, status).await;
    }

    async fn run_again(&mut self, shared: &Shared) {
        if std::mem::take(&mut self.stalled) {
            shared.status(shared.id, SourceStatus::Running).await;
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
    let mut taken_in = BYTES_PER_LOOK;
    for number in 0.. {
        if number == MESSAGES_PER_LOCK {
            drained.more = true;
            break;
        }
        if taken_in >= BYTES_PER_LOOK {
            if state.pressure() != Pressure::None {
                break;
            }
            taken_in = 0;
        }
        let Some(frame) = connection.buffered_frame()? else {
            break;
        };
        taken_in = taken_in.saturating_add(frame.body.len());
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
        format!("replication slot \"{}\" does not exist", shared.own.slot),
        "The slot was dropped upstream and the changes since then are lost. Drop the source and create it again.",
    )
}

/// The publication does not exist where the stream is.
fn publication_missing(shared: &Shared) -> AttemptError {
    AttemptError::permanent(
        format!("publication \"{}\" does not exist", shared.own.publication),
        "The publication was dropped upstream, and what changed since then was not published. Create it again, then drop the source and create it again.",
    )
}

/// The slot is of another database of the server.
pub(crate) fn slot_elsewhere(shared: &Shared) -> AttemptError {
    AttemptError::Transient {
        message: format!(
            "replication slot \"{}\" is of another database",
            shared.own.slot
        ),
        hint: Some(
            "The connection leads to another database. Let it lead to the one of before, or drop the source and create it again."
                .to_owned(),
        ),
    }
}

/// The slot exists but has lost its place.
pub(crate) fn slot_lost(message: &str) -> AttemptError {
    AttemptError::permanent(
        message.to_owned(),
        "The server has removed changes that were not read yet. Raise max_slot_wal_keep_size upstream, then drop the source and create it again.",
    )
}
