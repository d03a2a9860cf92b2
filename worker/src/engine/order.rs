//! Which command is acted on next.
//!
//! Owns the commands that wait while a part has one in hand, which of those that come later may be acted on before it, and which of them reads wait for, which do
//! not come here ([`super::front`]). Must not know what the parts do. Called by the router.
//!
//! Invariants. Commands are acted on in the order they were sent, but that what does not depend on one that waits for a disk or an upstream does not wait with
//! it. Nothing overtakes a command that makes, changes or drops something, or that reads when it is acted on ([`Rank::Change`]): who reads finds what was made
//! before. Of what may be observed or committed the order is kept ([`Rank::Cut`]): the keep puts changes together that no commit which may still come tells apart.
//! What is evaluated as of the last epoch run (writes, subscriptions) overtakes nothing.

use std::collections::VecDeque;

use flowstone_proto::message::Command;
use flowstone_types::Epoch;
use tokio::sync::{mpsc, watch};

/// Commands that wait; beyond, no more are received, and the coordinator waits: the transport has a bound as well.
const WAITING_MAX: usize = 256;

/// What the parts are at work on that was asked for in order. The next command waits for it, unless it may overtake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InHand {
    /// Nothing.
    Nothing,
    /// An epoch, a source that is started, or a cut of the local log, by the feed. Nobody reads an epoch before it was run; what a source starts with
    /// is read at no epoch that was run before.
    Feed,
    /// Tables that are looked for, and brought back to the commit point if they are there, by the keep: others can be meanwhile, and nothing else.
    Tables,
}

/// What a command that waits keeps from being acted on; each keeps what those before it do, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Nothing but what comes in order: an epoch, the writes for later ones, what is not needed any more.
    Epoch,
    /// What says up to where something may be observed or committed.
    Cut,
    /// Everything.
    Change,
}

/// The commands of the coordinator.
#[derive(Debug)]
pub(super) struct Commands {
    receiver: mpsc::Receiver<Command>,
    /// How many were acted on that reads wait for.
    acted: watch::Sender<u64>,
    waiting: VecDeque<Command>,
    /// The coordinator is gone.
    closed: bool,
}

impl Commands {
    pub(super) const fn new(receiver: mpsc::Receiver<Command>, acted: watch::Sender<u64>) -> Self {
        Self {
            receiver,
            acted,
            waiting: VecDeque::new(),
            closed: false,
        }
    }

    /// The next command that may be acted on while `in_hand` is; `None` once there are no more and nothing is in hand. `acknowledged`: the newest epoch that was
    /// run and whose record counts.
    ///
    /// # Cancel safety
    /// No command is lost.
    pub(super) async fn next(&mut self, in_hand: InHand, acknowledged: Epoch) -> Option<Command> {
        let mut command = self.take(in_hand, acknowledged);
        loop {
            if command.is_some() {
                return command;
            }
            if self.closed {
                if in_hand == InHand::Nothing {
                    return None;
                }
                return std::future::pending().await;
            }
            if self.waiting.len() >= WAITING_MAX {
                return std::future::pending().await;
            }
            match self.receiver.recv().await {
                Some(next) => {
                    self.waiting.push_back(next);
                    command = self.take(in_hand, acknowledged);
                }
                None => self.closed = true,
            }
        }
    }

    /// One that reads wait for was acted on.
    pub(super) fn acted(&self) {
        self.acted.send_modify(|acted| *acted += 1);
    }

    /// Whether there is none, as far as is known.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.receiver.is_empty()
    }

    /// Takes the first of those that wait that may be acted on.
    fn take(&mut self, in_hand: InHand, acknowledged: Epoch) -> Option<Command> {
        let first = match in_hand {
            InHand::Nothing => return self.waiting.pop_front(),
            InHand::Tables => {
                let is_table = |command: &Command| matches!(command, Command::CreateCollection(_));
                let first = self.waiting.front().is_some_and(is_table);
                first.then_some(0)
            }
            InHand::Feed => {
                let mut before = Rank::Epoch;
                self.waiting.iter().position(|command| {
                    let may = may_overtake(command, before, acknowledged);
                    before = before.max(rank(command));
                    may
                })
            }
        };
        self.waiting.remove(first?)
    }
}

/// What a command keeps from being acted on while it waits.
const fn rank(command: &Command) -> Rank {
    match command {
        Command::RunEpoch(_)
        | Command::StageWrite(_)
        | Command::DiscardWrite { .. }
        | Command::CommitPointDurable { .. }
        | Command::AllowCompaction { .. }
        | Command::Prepare { .. }
        | Command::AskUpstream { .. }
        | Command::Peek(_)
        | Command::Lookup(_) => Rank::Epoch,
        Command::BindingDurable { .. } | Command::Commit { .. } => Rank::Cut,
        Command::Hello { .. }
        | Command::CreateCollection(_)
        | Command::CreateSource(_)
        | Command::AddSourceTables { .. }
        | Command::AlterSource { .. }
        | Command::SetCluster { .. }
        | Command::DropCluster { .. }
        | Command::CreateDataflow(_)
        | Command::FailDataflow { .. }
        | Command::CreateSink(_)
        | Command::AlterSink(_)
        | Command::Drop { .. }
        | Command::CleanUp(_)
        | Command::Subscribe(_)
        | Command::Cancel { .. }
        | Command::Shutdown => Rank::Change,
    }
}

/// Whether reads that are sent later wait until a command was acted on: it makes, changes or drops something that they may read.
pub(super) fn is_awaited(command: &Command) -> bool {
    let is_own = matches!(command, Command::Subscribe(_) | Command::Cancel { .. });
    rank(command) == Rank::Change && !is_own
}

/// Whether a command may be acted on while the feed is at work, and those before it wait, of which `before` is the highest rank.
fn may_overtake(command: &Command, before: Rank, acknowledged: Epoch) -> bool {
    match command {
        Command::Cancel { .. } => before < Rank::Change,
        // One that is ahead of that is of the epoch in hand, or a mistake.
        Command::BindingDurable { epoch } | Command::Commit { epoch } => {
            before < Rank::Cut && *epoch <= acknowledged
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
