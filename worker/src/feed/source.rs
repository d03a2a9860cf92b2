//! A source as the feed knows it, and what is read of it.
//!
//! Owns what was bound to one source and not given, and the task that reads it. Must not know the local log, nor what is made of what is read. Called by the feed.
//!
//! Invariants. What is bound is given in order. Nothing is read further ahead than there is room.

use std::collections::VecDeque;

use flowstone_ingest::{Pieces, SourceHandle, TableChanges, TableData};
use flowstone_proto::message::{Failure, SourceBinding, SourceDescription};
use flowstone_types::{Epoch, ObjectId, SourcePosition};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::Error;
use crate::size::{BYTES_AT_ONCE, ROWS_AT_ONCE, bytes_of};

/// Pieces that are read before they are asked for: one may have 64 MB, and another is read while it waits.
const PIECES_AHEAD: usize = 1;

/// A source as the feed knows it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) description: SourceDescription,
    pub(super) handle: SourceHandle,
    /// The position its progress relation shows.
    pub(super) progress: Option<SourcePosition>,
    /// Bound positions whose epochs are not in a durable commit point.
    pub(super) bound: VecDeque<(Epoch, SourcePosition)>,
    /// What is being given in pieces.
    pub(super) stream: Option<Stream>,
    /// What was bound and could not be given when its epoch was run, oldest first: it comes behind the stream.
    pub(super) waiting: VecDeque<SourceBinding>,
    /// Whether something of it has to be waited for: the source is held up.
    pub(super) held: bool,
    /// Why it can never go on, if a take said so.
    pub(super) failure: Option<Failure>,
    /// Tables that have yet to say that the source has failed for good.
    pub(super) failing: Vec<ObjectId>,
}

impl Source {
    /// Its tables and its progress relation.
    pub(super) fn collections(&self) -> Vec<ObjectId> {
        let tables = self.description.tables.iter().map(|table| table.id);
        tables.chain(self.description.progress).collect()
    }

    /// Whether something that is bound was not given.
    pub(super) fn is_behind(&self) -> bool {
        self.stream.is_some() || !self.waiting.is_empty()
    }

    /// Begins to take what it has up to a bound position. What is not there at once comes in the stream.
    pub(super) fn begin_take(&mut self, binding: &SourceBinding, tasks: &TaskTracker) -> Taking {
        let mut taking = Taking::default();
        let mut reading = first_of(self.handle.take_pieces(binding));
        while !taking.is_full() {
            // What has to wait is polled again in its task.
            match reading.as_mut().now_or_never() {
                None => break,
                Some(Ok(Some((piece, left)))) => {
                    taking.add(piece);
                    reading = next_of(left);
                }
                Some(Ok(None)) => return taking,
                Some(Err(error)) => {
                    self.stream = Some(Stream::broken(binding.clone(), error));
                    return taking;
                }
            }
        }
        self.stream = Some(Stream::start(binding.clone(), reading, tasks));
        taking
    }

    /// Takes more of it, as much as enters at once, and what is read until `deadline`. If that is not all, the rest is in the stream.
    ///
    /// # Cancel safety
    /// What was taken is in `taking`.
    pub(super) async fn take_on(
        &mut self,
        taking: &mut Taking,
        deadline: tokio::time::Instant,
    ) -> Result<(), Error> {
        while !taking.is_full()
            && let Some(stream) = &mut self.stream
        {
            // What is being read is not given up by that.
            if tokio::time::timeout_at(deadline, stream.wait())
                .await
                .is_err()
            {
                break;
            }
            match stream.next.take() {
                None => {}
                Some(Ok(Some(piece))) => taking.add(piece),
                Some(Ok(None)) => self.stream = None,
                // The process ends. What is left was not given, and must not look as if it was.
                Some(Err(flowstone_ingest::Error::Stopped)) => {
                    stream.stopped = true;
                    break;
                }
                Some(Err(error)) => {
                    self.stream = None;
                    taking.pieces.clear();
                    self.refused(error)?;
                }
            }
        }
        Ok(())
    }

    /// What was bound cannot be had.
    fn refused(&mut self, error: flowstone_ingest::Error) -> Result<(), Error> {
        match error {
            flowstone_ingest::Error::Stopped => Ok(()),
            // Every table says so ([`Feed::fail_sources`]), and everything else goes on.
            flowstone_ingest::Error::Failed { message, hint } => {
                self.failure.get_or_insert(Failure { message, hint });
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    /// Waits until more of what was bound can be given; for ever if there is nothing.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn wait(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.wait().await;
        } else if let Some(binding) = self.waiting.front() {
            self.handle.ready(binding).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// More of what was bound, and the binding of which that is the last. What comes behind the stream becomes the stream.
    pub(super) fn give(
        &mut self,
        tasks: &TaskTracker,
    ) -> Result<(Vec<TableChanges>, Option<SourceBinding>), Error> {
        let Some(mut stream) = self.stream.take() else {
            if let Some(binding) = self.waiting.pop_front() {
                let reading = first_of(self.handle.take_pieces(&binding));
                self.stream = Some(Stream::start(binding, reading, tasks));
            }
            return Ok((Vec::new(), None));
        };
        let mut taken = Vec::new();
        match stream.next.take() {
            None => {}
            Some(Ok(Some(piece))) => taken.push(piece),
            Some(Ok(None)) => return Ok((taken, Some(stream.binding))),
            // The process ends. What is left was not given, and must not look as if it was.
            Some(Err(flowstone_ingest::Error::Stopped)) => stream.stopped = true,
            Some(Err(error)) => {
                self.refused(error)?;
                return Ok((taken, Some(stream.binding)));
            }
        }
        self.stream = Some(stream);
        Ok((taken, None))
    }
}

/// What was taken with an epoch.
#[derive(Debug, Default)]
pub(super) struct Taking {
    pub(super) pieces: Vec<TableChanges>,
    rows: usize,
    bytes: usize,
}

impl Taking {
    /// Whether no more enters at once.
    const fn is_full(&self) -> bool {
        self.rows > ROWS_AT_ONCE || self.bytes > BYTES_AT_ONCE
    }

    fn add(&mut self, piece: TableChanges) {
        if let TableData::Changes(changes) = &piece.data {
            self.rows = self.rows.saturating_add(changes.rows.num_rows());
            self.bytes = self.bytes.saturating_add(bytes_of(&changes.rows));
        }
        self.pieces.push(piece);
    }
}

/// What comes next of a take: a piece, the end, or why there is none.
pub(super) type Next = Result<Option<TableChanges>, flowstone_ingest::Error>;

/// A piece that is being read, with what is left of the take after it; `None` at the end.
type Reading = BoxFuture<'static, Result<Option<(TableChanges, Pieces)>, flowstone_ingest::Error>>;

/// The first piece of a take.
fn first_of(taking: BoxFuture<'static, Result<Pieces, flowstone_ingest::Error>>) -> Reading {
    async move { next_of(taking.await?).await }.boxed()
}

/// The next piece of a take.
fn next_of(mut pieces: Pieces) -> Reading {
    async move {
        let next = pieces.next().await?;
        Ok::<_, flowstone_ingest::Error>(next.map(|piece| (piece, pieces)))
    }
    .boxed()
}

/// What is left of a take that does not enter at once: it is more than does, or comes late, or has to be read. It is read in a task of its own, so that nothing
/// waits for a disk, and no further ahead than there is room; if the stream is dropped the task ends.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) binding: SourceBinding,
    pub(super) pieces: mpsc::Receiver<Next>,
    /// What was read and not given.
    pub(super) next: Option<Next>,
    /// The source was stopped while it was read: there is no more, and there never is an end.
    pub(super) stopped: bool,
}

impl Stream {
    pub(super) fn start(binding: SourceBinding, mut reading: Reading, tasks: &TaskTracker) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        tasks.spawn(async move {
            loop {
                let next = tokio::select! {
                    // The source was dropped, and its files may be gone.
                    () = sender.closed() => return,
                    next = &mut reading => next,
                };
                let (next, left) = match next {
                    Ok(Some((piece, left))) => (Ok(Some(piece)), Some(left)),
                    Ok(None) => (Ok(None), None),
                    Err(error) => (Err(error), None),
                };
                if sender.send(next).await.is_err() {
                    return;
                }
                let Some(left) = left else { return };
                reading = next_of(left);
            }
        });
        Self {
            binding,
            pieces: receiver,
            next: None,
            stopped: false,
        }
    }

    /// One that cannot go on.
    fn broken(binding: SourceBinding, error: flowstone_ingest::Error) -> Self {
        let (_, pieces) = mpsc::channel(PIECES_AHEAD);
        Self {
            binding,
            pieces,
            next: Some(Err(error)),
            stopped: false,
        }
    }

    /// Waits until something was read.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn wait(&mut self) {
        if self.stopped {
            std::future::pending::<()>().await;
        }
        if self.next.is_none() {
            let next = self.pieces.recv().await;
            let gone = || flowstone_ingest::Error::Invariant("a take has no end".to_owned());
            self.next = Some(next.unwrap_or_else(|| Err(gone())));
        }
    }
}
