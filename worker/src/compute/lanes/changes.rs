//! Changes on their way through a lane, and how far it is.
//!
//! Owns backlog, frontier and jumps of lanes. Must not know what is in them. Called by the compute and by [`Lanes::go_on`].

use std::collections::BTreeMap;

use flowstone_dataflow::TickOutput;
use flowstone_types::Epoch;

use super::task::{Advance, Change, Work};
use super::{Jump, LaneId, Lanes, Pace, Place};
use crate::size::bytes_of;

impl Lanes {
    /// Changes of collections that `from` has. Sent by [`Lanes::go_on`].
    pub(in crate::compute) fn take_in(&mut self, from: Place, outputs: &[TickOutput]) {
        let mut late: BTreeMap<LaneId, Epoch> = BTreeMap::new();
        for output in outputs {
            for changed in &output.outputs {
                for (number, lane) in &mut self.lanes {
                    let Some(import) = lane.imports.get_mut(&changed.id) else {
                        continue;
                    };
                    if import.from != from {
                        continue;
                    }
                    // The lane may be further than what puts this out for the first time: the copy will have it.
                    if !import.taken && output.epoch <= import.since.max(lane.newest) {
                        import.since = import.since.max(output.epoch);
                        continue;
                    }
                    let sizes = changed.deltas.iter().map(|delta| bytes_of(&delta.rows));
                    lane.backlog_bytes = sizes.fold(lane.backlog_bytes, usize::saturating_add);
                    if output.epoch <= lane.through {
                        let first = late.entry(*number).or_insert(output.epoch);
                        *first = output.epoch.min(*first);
                    }
                    lane.waiting.entry(output.epoch).or_default().push(Change {
                        id: changed.id,
                        deltas: changed.deltas.clone(),
                        errors: changed.errors.clone(),
                    });
                }
            }
        }
        for (number, epoch) in late {
            self.lower(number, epoch.previous());
        }
    }

    /// What was complete is not: something comes late, and what is made of it will.
    pub(super) fn lower(&mut self, number: LaneId, epoch: Epoch) {
        let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in ids {
            if self.depends(id, number)
                && let Some(lane) = self.lanes.get_mut(&id)
            {
                lane.through = lane.through.min(epoch);
                lane.frontier = lane.frontier.min(epoch);
            }
        }
    }

    /// Sends a lane the changes that wait for it, through an epoch. Returns whether it comes further by that.
    pub(super) fn send_changes(&mut self, number: LaneId, to: Epoch) -> bool {
        let Some(lane) = self.lanes.get_mut(&number) else {
            return false;
        };
        let later = lane.waiting.split_off(&to.next());
        let ready = std::mem::replace(&mut lane.waiting, later);
        let moved = to > lane.through || !ready.is_empty();
        let one_by_one = lane
            .imports
            .values()
            .all(|import| import.from == Place::Base);
        let may_join = lane.pace == Pace::Recomputing;
        let mut messages: Vec<Advance> = Vec::new();
        for (epoch, changes) in ready {
            let sizes = changes.iter().flat_map(|change| &change.deltas);
            let bytes = sizes.fold(0_usize, |sum, delta| {
                sum.saturating_add(bytes_of(&delta.rows))
            });
            match messages.last_mut() {
                // What several lanes give for epochs that only some of them have one by one is complete at the last only.
                Some(last) if !one_by_one && !self.stops.between(last.epoch, epoch) => {
                    last.epoch = epoch;
                    last.changes.extend(changes);
                    last.bytes = last.bytes.saturating_add(bytes);
                }
                _ => messages.push(Advance {
                    first: epoch,
                    epoch,
                    changes,
                    bytes,
                    may_join,
                }),
            }
        }
        lane.outstanding
            .extend(messages.iter().map(|advance| advance.first));
        for advance in messages {
            lane.send(Work::Advance(advance));
        }
        lane.through = lane.through.max(to);
        lane.newest = lane.newest.max(to);
        if lane.outstanding.is_empty() {
            lane.frontier = lane.through;
        }
        moved
    }

    /// A lane has run changes: those from `first` to `last`, in one tick unless they are of one epoch.
    pub(in crate::compute) fn ticked(
        &mut self,
        number: LaneId,
        (joined, bytes): (usize, usize),
        (first, last): (Epoch, Epoch),
    ) {
        if first < last {
            self.pass_over(number, Jump { first, last });
        }
        let Some(lane) = self.lanes.get_mut(&number) else {
            return;
        };
        lane.outstanding.drain(..joined.min(lane.outstanding.len()));
        lane.backlog_bytes = lane.backlog_bytes.saturating_sub(bytes);
        // What follows may belong to the same epoch.
        let next = lane.outstanding.front();
        let mut reached = next.map_or(lane.through, |next| next.previous());
        // What came in late belongs to an epoch that counted as complete.
        if let Some(late) = lane.waiting.keys().next() {
            reached = reached.min(late.previous());
        }
        lane.frontier = lane.frontier.max(reached);
    }

    /// Epochs were passed over in a lane, and so in those that read what it has. What is to be made of it begins after them.
    pub(in crate::compute) fn pass_over(&mut self, number: LaneId, jump: Jump) {
        let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in ids {
            if !self.depends(id, number) {
                continue;
            }
            let Some(lane) = self.lanes.get_mut(&id) else {
                continue;
            };
            lane.jumps.push(jump);
            for act in lane.acts.iter_mut().filter(|act| jump.is_over(act.epoch)) {
                act.epoch = jump.last;
            }
        }
    }
}
