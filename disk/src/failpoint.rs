//! Failpoints: every step of every durable write has a name, and at each the process can be ended or the step be made to fail. So has every message between the
//! parts of a worker that says what is durable, or is to be.
//!
//! Nothing happens at any of them unless [`activate`] was called; a step costs the reading of one word then. The idea is that of `fail(9)` of FreeBSD.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is written, or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The format version of the data directory.
    Format,
    /// The key of the secrets.
    SecretKey,
    /// A segment of the local log, when it is made.
    LogSegment,
    /// A record of the local log.
    LogRecord,
    /// A large change beside the local log, which a record of it is to name.
    LogBlob,
    /// What a failed append has left in the local log.
    LogTail,
    /// Segments of the local log that the tables hold.
    LogCut,
    /// The file that says what was acknowledged, when it is made.
    AcknowledgedFile,
    /// One of its slots.
    AcknowledgedSlot,
    /// A version of a Delta table.
    DeltaCommit,
    /// A checkpoint of a Delta table.
    DeltaCheckpoint,
    /// Any other file of a Delta table.
    DeltaFile,
    /// A large file of a Delta table, written in parts.
    DeltaUpload,
    /// Files of a Delta table that nothing needs.
    DeltaVacuum,
    /// The index of a data file.
    RowIndex,
    /// A dropped table.
    TableDrop,
    /// Raft's log.
    RaftLog,
    /// A snapshot of the coordinator's state.
    RaftSnapshot,
    /// The note that there is a Raft log.
    RaftBegun,
    /// The state of a source.
    SourceState,
    /// What the feed gives the compute of an epoch.
    EpochInput,
    /// What the compute gives the keep of it.
    EpochOutput,
    /// That the keep has committed, for the coordinator.
    Committed,
    /// That a commit point is durable, for an upstream.
    Acknowledgement,
    /// A transaction of a sink: it is committed, and its sink hears of it.
    SinkTransaction,
}

/// A step of a write. A failpoint stands right before its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The content is written.
    Write,
    /// The content is made durable.
    Sync,
    /// The file gets its name.
    Name,
    /// The name is made durable.
    Directory,
    /// Something is removed.
    Remove,
    /// Everything is done, nobody has been told.
    Tell,
}

/// A step of a durable write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failpoint {
    /// What is written.
    pub kind: Kind,
    /// The step that is about to be taken.
    pub step: Step,
}

/// What each kind of write does, in this order. The one place where failpoints are listed.
const STEPS: &[(Kind, &str, &[Step])] = &[
    (Kind::Format, "format", &REPLACE),
    (Kind::SecretKey, "secret-key", &REPLACE),
    (
        Kind::LogSegment,
        "log-segment",
        &[Step::Write, Step::Sync, Step::Directory],
    ),
    (Kind::LogRecord, "log-record", &[Step::Write, Step::Sync]),
    (
        Kind::LogBlob,
        "log-blob",
        &[Step::Write, Step::Sync, Step::Directory, Step::Remove],
    ),
    (Kind::LogTail, "log-tail", &[Step::Write, Step::Sync]),
    (Kind::LogCut, "log-cut", &[Step::Remove, Step::Directory]),
    (Kind::AcknowledgedFile, "acknowledged-file", &REPLACE),
    (
        Kind::AcknowledgedSlot,
        "acknowledged-slot",
        &[Step::Write, Step::Sync, Step::Tell],
    ),
    (Kind::DeltaCommit, "delta-commit", &REPLACE),
    (Kind::DeltaCheckpoint, "delta-checkpoint", &REPLACE),
    (Kind::DeltaFile, "delta-file", &REPLACE),
    (
        Kind::DeltaUpload,
        "delta-upload",
        &[Step::Write, Step::Name, Step::Sync, Step::Directory],
    ),
    (Kind::DeltaVacuum, "delta-vacuum", &[Step::Remove]),
    (Kind::RowIndex, "row-index", &[Step::Write, Step::Name]),
    (
        Kind::TableDrop,
        "table-drop",
        &[Step::Name, Step::Directory, Step::Remove],
    ),
    (Kind::RaftLog, "raft-log", &[Step::Write, Step::Tell]),
    (Kind::RaftSnapshot, "raft-snapshot", &REPLACE),
    (Kind::RaftBegun, "raft-begun", &REPLACE),
    (
        Kind::SourceState,
        "source-state",
        &[
            Step::Write,
            Step::Sync,
            Step::Name,
            Step::Directory,
            Step::Remove,
        ],
    ),
    (Kind::EpochInput, "epoch-input", &[Step::Tell]),
    (Kind::EpochOutput, "epoch-output", &[Step::Tell]),
    (Kind::Committed, "committed", &[Step::Tell]),
    (Kind::Acknowledgement, "acknowledgement", &[Step::Tell]),
    (
        Kind::SinkTransaction,
        "sink-transaction",
        &[Step::Sync, Step::Tell],
    ),
];

const REPLACE: [Step; 4] = [Step::Write, Step::Sync, Step::Name, Step::Directory];

impl Failpoint {
    /// All of them, in the order of the list.
    pub fn all() -> impl Iterator<Item = Self> {
        STEPS.iter().flat_map(|(kind, _, steps)| {
            steps.iter().map(|step| Self {
                kind: *kind,
                step: *step,
            })
        })
    }

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|failpoint| failpoint.to_string() == name)
    }

    /// Whether the step can fail. What one part of a process hands to another arrives, unless the process ends.
    #[must_use]
    pub const fn can_fail(self) -> bool {
        !matches!(self.kind, Kind::EpochInput | Kind::EpochOutput)
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = STEPS
            .iter()
            .find(|(kind, ..)| *kind == self.kind)
            .map_or("", |(_, name, _)| name);
        let step = match self.step {
            Step::Write => "write",
            Step::Sync => "sync",
            Step::Name => "name",
            Step::Directory => "directory",
            Step::Remove => "remove",
            Step::Tell => "tell",
        };
        write!(f, "{kind}.{step}")
    }
}

/// What happens at a failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The process ends at once, as by SIGKILL.
    Kill,
    /// The step fails as on a broken disk (EIO).
    Error,
    /// The step fails as on a full disk (ENOSPC).
    Full,
}

/// One entry of the setting.
#[derive(Debug)]
struct Planned {
    failpoint: Failpoint,
    action: Action,
    /// The first time that it happens, from one.
    first: u64,
    /// How many times it happens.
    times: u64,
    /// How often the step was reached.
    reached: AtomicU64,
}

static PLAN: OnceLock<Vec<Planned>> = OnceLock::new();

/// A setting that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("\"{entry}\" is not a failpoint: {reason}")]
pub struct Unknown {
    entry: String,
    reason: &'static str,
}

/// Says for the whole process what happens where: entries `name=action[@first][xtimes]` with commas between them, where `action` is `kill`, `error` or `full`.
///
/// Without `first` it happens the first time, without `times` once. Only the first call counts.
///
/// # Errors
/// [`Unknown`], naming the entry.
pub fn activate(setting: &str) -> Result<(), Unknown> {
    let entries = setting.split(',').map(str::trim);
    let plan = entries
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            parse(entry).map_err(|reason| Unknown {
                entry: entry.to_owned(),
                reason,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if !plan.is_empty() {
        tracing::warn!(setting, "writes will be made to fail");
        // A second plan is not expected, and the first one stands.
        let _second = PLAN.set(plan);
    }
    Ok(())
}

fn parse(entry: &str) -> Result<Planned, &'static str> {
    let (name, rest) = entry.split_once('=').ok_or("it has no action")?;
    let failpoint = Failpoint::named(name).ok_or("there is none of this name")?;
    let number = |text: &str| match text.parse::<u64>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a number from 1 is expected"),
    };
    let (rest, times) = match rest.split_once('x') {
        Some((rest, times)) => (rest, number(times)?),
        None => (rest, 1),
    };
    let (action, first) = match rest.split_once('@') {
        Some((action, first)) => (action, number(first)?),
        None => (rest, 1),
    };
    let action = match action {
        "kill" => Action::Kill,
        "error" => Action::Error,
        "full" => Action::Full,
        _ => return Err("the action is none of kill, error, full"),
    };
    if action != Action::Kill && !failpoint.can_fail() {
        return Err("it cannot fail: its only action is kill");
    }
    Ok(Planned {
        failpoint,
        action,
        first,
        times,
        reached: AtomicU64::new(0),
    })
}

/// Stands right before a step of a durable write. Whoever calls it treats its error as that of the step.
///
/// # Errors
/// What the plan says.
#[inline]
pub fn reached(kind: Kind, step: Step) -> io::Result<()> {
    match PLAN.get() {
        None => Ok(()),
        Some(plan) => at(plan, Failpoint { kind, step }),
    }
}

/// The same where nothing can fail ([`Failpoint::can_fail`]): the process may end there.
#[inline]
pub fn passed(kind: Kind, step: Step) {
    // No plan has an error here.
    drop(reached(kind, step));
}

#[cold]
fn at(plan: &[Planned], failpoint: Failpoint) -> io::Result<()> {
    for planned in plan.iter().filter(|planned| planned.failpoint == failpoint) {
        let time = planned.reached.fetch_add(1, Ordering::Relaxed) + 1;
        if !(planned.first..planned.first.saturating_add(planned.times)).contains(&time) {
            continue;
        }
        tracing::warn!(%failpoint, time, action = ?planned.action, "failpoint");
        match planned.action {
            Action::Kill => std::process::abort(),
            // EIO and ENOSPC are the same on every Unix.
            Action::Error => return Err(io::Error::from_raw_os_error(5)),
            Action::Full => return Err(io::Error::from_raw_os_error(28)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failpoint_has_a_name_of_its_own() {
        let names: Vec<String> = Failpoint::all()
            .map(|failpoint| failpoint.to_string())
            .collect();
        for (failpoint, name) in Failpoint::all().zip(&names) {
            assert_eq!(Failpoint::named(name), Some(failpoint));
            assert!(!name.starts_with('.'), "{failpoint:?}");
        }
    }

    #[test]
    fn an_error_comes_when_and_as_often_as_planned() {
        let plan = [parse("raft-log.write=full@2x2").unwrap()];
        let write = Failpoint::named("raft-log.write").unwrap();
        let other = Failpoint::named("raft-log.tell").unwrap();
        let outcomes: Vec<Option<io::ErrorKind>> = (0..4)
            .map(|_| {
                at(&plan, other).unwrap();
                at(&plan, write).err().map(|error| error.kind())
            })
            .collect();
        let full = Some(io::ErrorKind::StorageFull);
        assert_eq!(outcomes, [None, full, full, None]);
    }

    #[test]
    fn a_setting_that_is_wrong_is_refused() {
        for wrong in [
            "raft-log.write",
            "raft-log.read=kill",
            "raft-log.write=stop",
            "raft-log.write=error@0",
            "raft-log.write=errorx0",
            "log-cut.write=kill",
            "epoch-input.tell=error",
            "epoch-output.tell=full",
        ] {
            assert!(activate(wrong).is_err(), "{wrong}");
        }
    }
}
