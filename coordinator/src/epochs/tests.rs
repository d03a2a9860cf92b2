//! The epoch loop under a world whose answers the test controls, and under random interleavings with crashes.

use super::*;
use proptest::prelude::*;

const SOURCE: ObjectId = ObjectId::User(1);
const TABLE: ObjectId = ObjectId::User(2);
const COMMIT_INTERVAL_MS: u64 = 1_000;

/// A position of the source.
fn at(lsn: u64) -> SourcePosition {
    SourcePosition::PostgresLsn(lsn)
}

/// Executes effects as the coordinator does, with the answers under the test's control.
#[derive(Default)]
struct World {
    now: u64,
    ran: Vec<RunEpoch>,
    bound: BTreeMap<Epoch, Vec<SourceBinding>>,
    bindings_asked: Vec<(Epoch, Vec<SourceBinding>)>,
    observable: Vec<(Epoch, Vec<WriteId>, Vec<ObjectId>)>,
    commits: Vec<Epoch>,
    commit_points: Vec<Epoch>,
    frozen: Vec<FreezeId>,
    bounds: Vec<Epoch>,
    drained: bool,
}

impl World {
    fn poll(&mut self, epochs: &mut EpochLoop) {
        let effects = epochs.poll(self.now);
        for effect in effects {
            match effect {
                Effect::PersistBound(bound) => self.bounds.push(bound),
                Effect::Bind { epoch, bindings } => self.bindings_asked.push((epoch, bindings)),
                Effect::Run(run) => self.ran.push(run),
                Effect::Observable {
                    epoch,
                    writes,
                    visible,
                } => self.observable.push((epoch, writes, visible)),
                Effect::Commit { epoch } => self.commits.push(epoch),
                Effect::PersistCommitPoint { epoch, .. } => self.commit_points.push(epoch),
                Effect::CommitPointDurable { .. } => {}
                Effect::Frozen(id) => self.frozen.push(id),
                Effect::Drained => self.drained = true,
            }
        }
    }

    /// Makes everything that was asked for happen, until nothing more comes.
    fn settle(&mut self, epochs: &mut EpochLoop) {
        loop {
            self.poll(epochs);
            let bounds = std::mem::take(&mut self.bounds);
            let asked = std::mem::take(&mut self.bindings_asked);
            let completed: Vec<Epoch> = epochs
                .open
                .iter()
                .filter(|open| !open.complete)
                .map(|open| open.epoch)
                .collect();
            let points = std::mem::take(&mut self.commit_points);
            let committing = match epochs.commit {
                CommitState::InWorker(epoch) if epochs.committed.is_none() => Some(epoch),
                _ => None,
            };
            if bounds.is_empty()
                && asked.is_empty()
                && completed.is_empty()
                && points.is_empty()
                && committing.is_none()
            {
                return;
            }
            bounds
                .into_iter()
                .for_each(|bound| epochs.bound_durable(bound));
            for (epoch, bindings) in asked {
                self.bound.insert(epoch, bindings);
                epochs.binding_durable(epoch);
            }
            completed
                .into_iter()
                .for_each(|epoch| epochs.epoch_complete(epoch));
            points
                .into_iter()
                .for_each(|epoch| epochs.commit_point_durable(epoch));
            if let Some(epoch) = committing {
                epochs.committed(epoch, Vec::new());
            }
        }
    }
}

fn started() -> (EpochLoop, World) {
    let mut epochs = EpochLoop::new(Recovered::default(), COMMIT_INTERVAL_MS);
    let mut world = World {
        now: 10_000,
        ..World::default()
    };
    world.settle(&mut epochs);
    world.now += 10;
    (epochs, world)
}

#[test]
fn an_epoch_in_which_something_failed_is_observable_once_that_is_durable() {
    let (mut epochs, mut world) = started();
    let before = world.observable.len();
    epochs.submit_write(WriteId(1), vec![RequestId(7)], 1, None);
    world.poll(&mut epochs);
    let epoch = world.ran.last().unwrap().epoch;
    epochs.failing(epoch, vec![TABLE]);
    epochs.epoch_complete(epoch);
    world.poll(&mut epochs);
    assert_eq!(world.observable.len(), before);
    epochs.failures_durable(epoch);
    world.poll(&mut epochs);
    assert_eq!(
        world.observable.last().unwrap(),
        &(epoch, vec![WriteId(1)], vec![TABLE])
    );
}

#[test]
fn a_write_is_observable_after_the_worker_ran_its_epoch() {
    let (mut epochs, mut world) = started();
    epochs.submit_write(WriteId(1), vec![RequestId(7)], 1, None);
    world.poll(&mut epochs);
    let run = world.ran.last().unwrap().clone();
    assert_eq!(run.writes, [RequestId(7)]);
    assert!(
        run.bindings.is_empty() && world.bindings_asked.is_empty(),
        "local writes need no binding"
    );
    let seen = world.observable.len();
    world.poll(&mut epochs);
    assert_eq!(world.observable.len(), seen);
    epochs.epoch_complete(run.epoch);
    world.poll(&mut epochs);
    assert_eq!(
        world.observable.last().unwrap(),
        &(run.epoch, vec![WriteId(1)], vec![])
    );
}

#[test]
fn an_epoch_is_not_observable_before_its_binding_is_durable_and_holds_back_later_ones() {
    let (mut epochs, mut world) = started();
    epochs.source_progress(SOURCE, at(5)).unwrap();
    world.poll(&mut epochs);
    let first = world.ran.last().unwrap().epoch;
    world.now += 1;
    epochs.submit_write(WriteId(1), vec![RequestId(1)], 1, None);
    world.poll(&mut epochs);
    let second = world.ran.last().unwrap().epoch;
    assert!(second > first);
    let seen = world.observable.len();
    epochs.epoch_complete(first);
    epochs.epoch_complete(second);
    world.poll(&mut epochs);
    assert_eq!(world.observable.len(), seen);
    epochs.binding_durable(first);
    world.poll(&mut epochs);
    assert_eq!(
        world.observable.last().unwrap(),
        &(second, vec![WriteId(1)], vec![])
    );
}

#[test]
fn while_the_worker_is_busy_progress_gathers_for_the_next_epoch() {
    let (mut epochs, mut world) = started();
    let before = world.ran.len();
    for position in 1..=10 {
        epochs.source_progress(SOURCE, at(position)).unwrap();
        world.poll(&mut epochs);
        world.now += 1;
    }
    assert_eq!(world.ran.len() - before, EPOCHS_IN_WORKER_MAX);
    let first = world.ran[before].epoch;
    epochs.epoch_complete(first);
    world.poll(&mut epochs);
    let last = world.ran.last().unwrap();
    assert_eq!(
        last.bindings,
        [SourceBinding {
            source: SOURCE,
            position: at(10),
            snapshots: vec![]
        }]
    );
}

#[test]
fn at_most_one_epoch_opens_per_millisecond() {
    let (mut epochs, mut world) = started();
    epochs.source_progress(SOURCE, at(1)).unwrap();
    world.poll(&mut epochs);
    let before = world.ran.len();
    epochs.source_progress(SOURCE, at(2)).unwrap();
    world.poll(&mut epochs);
    assert_eq!(world.ran.len(), before);
    assert_eq!(epochs.idle_ms(world.now), 1);
    world.now += 1;
    world.poll(&mut epochs);
    assert_eq!(world.ran.len(), before + 1);
}

#[test]
fn a_snapshot_waits_until_a_running_source_has_reached_its_position() {
    let (mut epochs, mut world) = started();
    epochs
        .source_snapshot(SOURCE, vec![TABLE], at(100))
        .unwrap();
    world.settle(&mut epochs);
    let first = world.ran.last().unwrap().bindings.clone();
    assert_eq!(
        first,
        [SourceBinding {
            source: SOURCE,
            position: at(100),
            snapshots: vec![TABLE]
        }],
        "a new source starts at its snapshot"
    );
    let other = ObjectId::User(3);
    world.now += 1;
    epochs
        .source_snapshot(SOURCE, vec![other], at(200))
        .unwrap();
    epochs.source_progress(SOURCE, at(150)).unwrap();
    world.settle(&mut epochs);
    assert_eq!(
        world.ran.last().unwrap().bindings,
        [SourceBinding {
            source: SOURCE,
            position: at(150),
            snapshots: vec![]
        }]
    );
    world.now += 1;
    epochs.source_progress(SOURCE, at(210)).unwrap();
    world.settle(&mut epochs);
    assert_eq!(
        world.ran.last().unwrap().bindings,
        [SourceBinding {
            source: SOURCE,
            position: at(210),
            snapshots: vec![other]
        }]
    );
    assert_eq!(world.observable.last().unwrap().2, [other]);
}

#[test]
fn positions_that_are_not_in_order_are_joined_and_a_snapshot_waits_until_it_is_covered() {
    let (mut epochs, mut world) = started();
    let at =
        |offsets: &[(i32, i64)]| SourcePosition::KafkaOffsets(offsets.iter().copied().collect());
    epochs
        .source_snapshot(SOURCE, vec![TABLE], at(&[(0, 5)]))
        .unwrap();
    epochs.source_progress(SOURCE, at(&[(1, 3)])).unwrap();
    world.settle(&mut epochs);
    let first = at(&[(0, 5), (1, 3)]);
    assert_eq!(world.ran.last().unwrap().bindings[0].position, first);
    let other = ObjectId::User(3);
    world.now += 1;
    epochs
        .source_snapshot(SOURCE, vec![other], at(&[(0, 6), (1, 1)]))
        .unwrap();
    // What was received again after the connection was lost is behind what is bound.
    epochs
        .source_progress(SOURCE, at(&[(0, 2), (1, 4)]))
        .unwrap();
    world.settle(&mut epochs);
    let bindings = world.ran.last().unwrap().bindings.clone();
    assert_eq!(bindings[0].position, at(&[(0, 5), (1, 4)]));
    assert_eq!(bindings[0].snapshots, []);
    world.now += 1;
    epochs.source_progress(SOURCE, at(&[(0, 6)])).unwrap();
    world.settle(&mut epochs);
    let bindings = world.ran.last().unwrap().bindings.clone();
    assert_eq!(bindings[0].position, at(&[(0, 6), (1, 4)]));
    assert_eq!(bindings[0].snapshots, [other]);
}

#[test]
fn a_position_of_another_kind_is_refused_and_changes_nothing() {
    let (mut epochs, mut world) = started();
    epochs.source_progress(SOURCE, at(5)).unwrap();
    let foreign = || SourcePosition::GeneratorTick(7);
    let error = epochs.source_progress(SOURCE, foreign()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "source u1 stands at 0/5 and tells tick 7, a position of another kind"
    );
    world.settle(&mut epochs);
    epochs
        .source_snapshot(SOURCE, vec![TABLE], foreign())
        .unwrap_err();
    world.now += 1;
    epochs.source_progress(SOURCE, at(6)).unwrap();
    world.settle(&mut epochs);
    assert_eq!(
        world.ran.last().unwrap().bindings,
        [SourceBinding {
            source: SOURCE,
            position: at(6),
            snapshots: vec![]
        }]
    );
}

#[test]
fn frozen_sources_stand_still_until_the_epoch_of_the_write() {
    let (mut epochs, mut world) = started();
    epochs.source_progress(SOURCE, at(1)).unwrap();
    world.poll(&mut epochs);
    epochs.freeze(FreezeId(1));
    world.poll(&mut epochs);
    assert!(
        world.frozen.is_empty(),
        "an epoch that moves a source is still running"
    );
    let moved = epochs.open.back().unwrap().epoch;
    epochs.epoch_complete(moved);
    world.poll(&mut epochs);
    assert!(world.frozen.is_empty(), "its bindings may still be lost");
    world.settle(&mut epochs);
    assert_eq!(world.frozen, [FreezeId(1)]);
    let before = world.ran.len();
    epochs.source_progress(SOURCE, at(2)).unwrap();
    world.now += HEARTBEAT_MS;
    world.settle(&mut epochs);
    assert!(
        world.ran[before..]
            .iter()
            .all(|run| run.bindings.is_empty())
    );
    world.now += 1;
    epochs.submit_write(WriteId(1), vec![RequestId(1)], 1, Some(FreezeId(1)));
    world.settle(&mut epochs);
    let run = world.ran.last().unwrap();
    assert_eq!((run.writes.len(), run.bindings.len()), (1, 1));
}

#[test]
fn an_epoch_takes_as_many_writes_as_fit_a_record_of_the_log_and_the_others_wait() {
    let (mut epochs, mut world) = started();
    let half = WRITE_BYTES_MAX / 2;
    let sizes = [half, half, 1, 2 * WRITE_BYTES_MAX, 1];
    for (id, bytes) in itertools::zip_eq(1..=5, sizes) {
        epochs.submit_write(WriteId(id), vec![RequestId(id)], bytes, None);
    }
    let before = world.ran.len();
    for _ in 0..4 {
        world.settle(&mut epochs);
        world.now += 1;
    }
    let taken: Vec<Vec<u64>> = world.ran[before..]
        .iter()
        .map(|run| run.writes.iter().map(|request| request.0).collect())
        .collect();
    assert_eq!(taken, [vec![1, 2], vec![3], vec![4], vec![5]]);
}

#[test]
fn sources_stand_still_until_the_write_has_an_epoch_even_if_others_go_first() {
    let (mut epochs, mut world) = started();
    epochs.source_progress(SOURCE, at(1)).unwrap();
    world.settle(&mut epochs);
    epochs.freeze(FreezeId(1));
    world.settle(&mut epochs);
    assert_eq!(world.frozen, [FreezeId(1)]);
    epochs.source_progress(SOURCE, at(2)).unwrap();
    epochs.submit_write(WriteId(1), vec![RequestId(1)], WRITE_BYTES_MAX, None);
    epochs.submit_write(WriteId(2), vec![RequestId(2)], 1, Some(FreezeId(1)));
    let before = world.ran.len();
    for _ in 0..2 {
        world.now += 1;
        world.settle(&mut epochs);
    }
    let taken: Vec<(usize, usize)> = world.ran[before..]
        .iter()
        .map(|run| (run.writes.len(), run.bindings.len()))
        .collect();
    assert_eq!(taken, [(1, 0), (1, 1)]);
    // What is withdrawn holds nothing any more either.
    epochs.freeze(FreezeId(2));
    epochs.submit_write(WriteId(3), vec![RequestId(3)], 1, Some(FreezeId(2)));
    assert_eq!(epochs.withdraw_writes().len(), 1);
    assert!(epochs.frozen.is_empty());
}

#[test]
fn after_a_restart_exactly_what_was_above_the_commit_point_runs_again_and_new_epochs_are_above_everything()
 {
    let binding = |position| {
        vec![SourceBinding {
            source: SOURCE,
            position: at(position),
            snapshots: vec![],
        }]
    };
    let mut epochs = EpochLoop::new(
        Recovered {
            commit_point: Epoch(100),
            positions: BTreeMap::from([(SOURCE, at(10))]),
            bindings: BTreeMap::from([
                (Epoch(90), binding(9)),
                (Epoch(110), binding(11)),
                (Epoch(130), binding(13)),
            ]),
            logged: vec![Epoch(120), Epoch(130), Epoch(140)],
            oracle_bound: Epoch(5_000),
        },
        COMMIT_INTERVAL_MS,
    );
    let floor = epochs.read_floor();
    assert_eq!(floor, Epoch(5_000));
    let mut world = World {
        now: 1_000,
        ..World::default()
    };
    epochs.source_progress(SOURCE, at(13)).unwrap();
    world.settle(&mut epochs);
    let replayed: Vec<_> = world
        .ran
        .iter()
        .filter(|run| run.replay)
        .map(|run| (run.epoch.0, run.bindings.len()))
        .collect();
    assert_eq!(
        replayed,
        [(110, 1), (120, 0), (130, 1), (140, 0), (5_000, 0)]
    );
    let new = world.ran.iter().find(|run| !run.replay).unwrap();
    assert!(
        new.epoch > Epoch(5_000) && new.bindings.is_empty(),
        "the source is where it was bound"
    );
    assert!(epochs.observable() >= floor);
}

#[test]
fn shutdown_finishes_waiting_writes_and_commits_them() {
    let (mut epochs, mut world) = started();
    world.now += 1;
    epochs.submit_write(WriteId(1), vec![RequestId(1)], 1, None);
    epochs.shutdown();
    epochs.source_progress(SOURCE, at(99)).unwrap();
    world.settle(&mut epochs);
    assert!(world.drained);
    let run = world.ran.last().unwrap();
    assert!(run.bindings.is_empty() && run.writes == [RequestId(1)]);
    assert_eq!(world.commits.last(), Some(&run.epoch));
    assert_eq!(epochs.commit_point(), run.epoch);
}

#[test]
fn shutdown_does_not_wait_for_what_a_source_gives_in_pieces() {
    let (mut epochs, mut world) = started();
    epochs.source_progress(SOURCE, at(5)).unwrap();
    world.poll(&mut epochs);
    epochs.source_behind(SOURCE, true);
    world.now += COMMIT_INTERVAL_MS;
    let commits = world.commits.len();
    world.settle(&mut epochs);
    assert_eq!(world.commits.len(), commits, "a part of it");
    world.now += 1;
    epochs.submit_write(WriteId(1), vec![RequestId(1)], 1, None);
    epochs.shutdown();
    world.settle(&mut epochs);
    assert!(world.drained);
    assert_eq!(world.commits.len(), commits);
    assert_eq!(world.observable.last().unwrap().1, [WriteId(1)]);
}

#[test]
fn between_two_transactions_that_a_source_gives_in_pieces_there_is_a_commit() {
    let (mut epochs, mut world) = started();
    epochs.source_progress(ObjectId::User(9), at(1)).unwrap();
    world.now += COMMIT_INTERVAL_MS;
    world.poll(&mut epochs);
    epochs.commit = CommitState::Idle;
    // The first has come in, in an epoch that has yet to be durable.
    let last = world.ran.last().unwrap().epoch;
    epochs.source_behind(SOURCE, true);
    epochs.epoch_complete(last);
    epochs.source_behind(SOURCE, false);
    epochs.source_progress(SOURCE, at(5)).unwrap();
    world.now += COMMIT_INTERVAL_MS;
    let commits = world.commits.len();
    world.poll(&mut epochs);
    assert_eq!(world.commits.len(), commits, "it would be put off");
    // The second comes, and belongs to a later one.
    assert!(world.ran.last().unwrap().epoch > last);
    epochs.source_behind(SOURCE, true);
    epochs.binding_durable(last);
    world.poll(&mut epochs);
    assert_eq!(world.commits.last(), Some(&last));
}

#[test]
fn what_a_source_gave_in_pieces_is_committed_when_all_of_it_is_there() {
    let (mut epochs, mut world) = started();
    epochs.source_progress(SOURCE, at(5)).unwrap();
    world.poll(&mut epochs);
    let large = world.ran.last().unwrap().epoch;
    epochs.source_behind(SOURCE, true);
    world.settle(&mut epochs);
    epochs.source_behind(SOURCE, false);
    world.now += COMMIT_INTERVAL_MS;
    world.settle(&mut epochs);
    assert!(world.commits.last().unwrap() >= &large);
}

#[test]
fn an_idle_loop_beats_once_a_second_and_does_not_commit_nothing() {
    let (mut epochs, mut world) = started();
    let commits = world.commits.len();
    let before = world.ran.len();
    for _ in 0..50 {
        world.now += 100;
        world.settle(&mut epochs);
    }
    assert!((4..=5).contains(&(world.ran.len() - before)));
    assert_eq!(world.commits.len(), commits);
    assert!(
        epochs.idle_ms(world.now) > 1,
        "nothing to do is no reason to wake up"
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Advance(u64),
    Progress(u64),
    Write,
    Complete,
    BindDurable(usize),
    BoundDurable,
    Commit,
    CommitDurable,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..1500).prop_map(Step::Advance),
        (0u64..20).prop_map(Step::Progress),
        Just(Step::Write),
        Just(Step::Complete),
        (0usize..4).prop_map(Step::BindDurable),
        Just(Step::BoundDurable),
        Just(Step::Commit),
        Just(Step::CommitDurable),
        Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Under any interleaving and with crashes anywhere: epochs strictly increase, nothing is observable before it is complete and durable, what was
    /// observable before a crash is run again after it unless it was committed, and with the same bindings.
    #[test]
    fn nothing_observed_is_ever_lost(steps in prop::collection::vec(step(), 1..120)) {
        let mut durable = Recovered::default();
        let mut epochs = EpochLoop::new(durable.clone(), COMMIT_INTERVAL_MS);
        let mut world = World { now: 1_000, ..World::default() };
        let (mut position, mut next_write) = (0, 0);
        let mut last_new = Epoch::MIN;
        let mut complete: BTreeSet<Epoch> = BTreeSet::new();
        let mut writes_of: BTreeMap<Epoch, Vec<RequestId>> = BTreeMap::new();
        let mut observed: BTreeSet<Epoch> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Advance(by) => world.now += by,
                Step::Progress(by) => { position += by; epochs.source_progress(SOURCE, at(position)).unwrap(); }
                Step::Write => { next_write += 1; epochs.submit_write(WriteId(next_write), vec![RequestId(next_write)], 1, None); }
                Step::Complete => {
                    if let Some(run) = world.ran.iter().find(|run| !complete.contains(&run.epoch)) {
                        complete.insert(run.epoch);
                        if !run.writes.is_empty() { durable.logged.push(run.epoch); }
                        epochs.epoch_complete(run.epoch);
                    }
                }
                Step::BindDurable(index) => if index < world.bindings_asked.len() {
                    let (epoch, bindings) = world.bindings_asked.remove(index);
                    durable.bindings.insert(epoch, bindings);
                    epochs.binding_durable(epoch);
                },
                Step::BoundDurable => if !world.bounds.is_empty() {
                    let bound = world.bounds.remove(0);
                    durable.oracle_bound = durable.oracle_bound.max(bound);
                    epochs.bound_durable(bound);
                },
                Step::Commit => if let Some(epoch) = world.commits.pop() {
                    epochs.committed(epoch, Vec::new());
                },
                Step::CommitDurable => if let Some(epoch) = world.commit_points.pop() {
                    durable.commit_point = epoch;
                    for (_, bindings) in durable.bindings.iter().filter(|(bound, _)| **bound <= epoch) {
                        for binding in bindings { durable.positions.insert(binding.source, binding.position.clone()); }
                    }
                    durable.bindings.retain(|bound, _| *bound > epoch);
                    durable.logged.retain(|logged| *logged > epoch);
                    epochs.commit_point_durable(epoch);
                },
                Step::Crash => {
                    for epoch in observed.iter().filter(|epoch| **epoch > durable.commit_point) {
                        if writes_of.get(epoch).is_some_and(|writes| !writes.is_empty()) {
                            prop_assert!(durable.logged.contains(epoch));
                        }
                    }
                    epochs = EpochLoop::new(durable.clone(), COMMIT_INTERVAL_MS);
                    let now = world.now;
                    world = World { now, ..World::default() };
                    complete.clear();
                }
            }
            let (ran, seen) = (world.ran.len(), world.observable.len());
            world.poll(&mut epochs);
            for run in &world.ran[ran..] {
                if run.replay {
                    prop_assert!(run.epoch > durable.commit_point);
                    let expected = durable.bindings.get(&run.epoch).cloned().unwrap_or_default();
                    prop_assert_eq!(&run.bindings, &expected);
                } else {
                    prop_assert!(run.epoch > last_new, "epochs strictly increase");
                    prop_assert!(run.epoch <= durable.oracle_bound);
                    last_new = run.epoch;
                    writes_of.insert(run.epoch, run.writes.clone());
                }
            }
            for (epoch, ..) in &world.observable[seen..] {
                for run in world.ran.iter().filter(|run| run.epoch <= *epoch) {
                    prop_assert!(complete.contains(&run.epoch));
                    prop_assert!(run.bindings.is_empty() || run.replay || run.epoch <= durable.commit_point || durable.bindings.contains_key(&run.epoch));
                    // What was never acknowledged may be run again without its writes.
                    if !run.replay { observed.insert(run.epoch); }
                }
            }
            prop_assert!(epochs.in_worker() <= EPOCHS_IN_WORKER_MAX);
        }
    }
}

#[test]
fn writes_that_fail_are_answered_once_and_their_epoch_goes_on() {
    let mut world = World {
        now: 1_000,
        ..World::default()
    };
    let mut epochs = EpochLoop::new(Recovered::default(), COMMIT_INTERVAL_MS);
    world.settle(&mut epochs);
    world.now += 1;
    epochs.submit_write(WriteId(1), vec![RequestId(10)], 1, None);
    epochs.source_progress(SOURCE, at(5)).unwrap();
    world.poll(&mut epochs);
    let ran = world.ran.last().unwrap().clone();
    assert_eq!(ran.writes, [RequestId(10)]);
    assert_eq!(epochs.writes_failed(ran.epoch), [WriteId(1)]);
    assert_eq!(epochs.writes_failed(ran.epoch), []);
    world.settle(&mut epochs);
    let told: Vec<_> = world
        .observable
        .iter()
        .filter(|(epoch, ..)| *epoch >= ran.epoch)
        .collect();
    assert!(!told.is_empty(), "the epoch becomes observable");
    assert!(told.iter().all(|(_, writes, _)| writes.is_empty()));

    // What has no epoch yet can be taken back.
    epochs.submit_write(WriteId(2), vec![RequestId(20)], 1, None);
    assert_eq!(
        epochs.withdraw_writes(),
        [(WriteId(2), vec![RequestId(20)])]
    );
    world.now += 1;
    world.settle(&mut epochs);
    assert!(
        world
            .ran
            .iter()
            .all(|run| !run.writes.contains(&RequestId(20)))
    );
}

/// The disk under Raft is full: a new bound does not come.
#[test]
fn what_was_there_can_be_read_before_there_is_a_new_bound() {
    let mut epochs = EpochLoop::new(
        Recovered {
            commit_point: Epoch(100),
            logged: vec![Epoch(110)],
            oracle_bound: Epoch(5_000),
            ..Recovered::default()
        },
        COMMIT_INTERVAL_MS,
    );
    let mut world = World {
        now: 9_000,
        ..World::default()
    };
    world.poll(&mut epochs);
    let ran: Vec<_> = world
        .ran
        .iter()
        .map(|run| (run.epoch.0, run.replay))
        .collect();
    assert_eq!(ran, [(110, true), (5_000, true)]);
    assert!(epochs.observable() < epochs.read_floor());
    epochs.epoch_complete(Epoch(110));
    epochs.epoch_complete(Epoch(5_000));
    world.poll(&mut epochs);
    assert_eq!(epochs.observable(), epochs.read_floor());
    // Writes wait for the bound, and are above it.
    epochs.submit_write(WriteId(1), vec![RequestId(1)], 1, None);
    world.poll(&mut epochs);
    assert_eq!(world.ran.len(), 2);
    let bound = *world.bounds.last().unwrap();
    epochs.bound_durable(bound);
    world.poll(&mut epochs);
    let new = world.ran.last().unwrap();
    assert!(!new.replay && new.epoch > Epoch(5_000) && new.writes == [RequestId(1)]);
}

#[test]
fn where_nothing_changes_all_is_stored_through_what_is_observable() {
    let (mut epochs, mut world) = started();
    for number in 1..=2 {
        epochs.submit_write(WriteId(number), vec![RequestId(number)], 1, None);
        world.settle(&mut epochs);
        assert!(epochs.commit_point() < epochs.observable());
        assert_eq!(epochs.stored_through(), epochs.commit_point());
        world.now += COMMIT_INTERVAL_MS / 2;
    }
    world.settle(&mut epochs);
    assert_eq!(epochs.commit_point(), epochs.observable());
    // No commit comes, and none is missing.
    world.now += HEARTBEAT_MS / 2;
    world.settle(&mut epochs);
    assert!(epochs.stored_through() > epochs.commit_point());
    assert_eq!(epochs.stored_through(), epochs.observable());
}

#[test]
fn nothing_is_committed_while_a_source_is_held_up_nor_below_what_it_gave_late() {
    let (mut epochs, mut world) = started();
    world.now += COMMIT_INTERVAL_MS;
    world.settle(&mut epochs);
    let commits = world.commits.len();
    epochs.source_held(SOURCE, true, Epoch(1));
    epochs.submit_write(WriteId(1), vec![RequestId(1)], 1, None);
    world.settle(&mut epochs);
    world.now += COMMIT_INTERVAL_MS;
    world.settle(&mut epochs);
    assert_eq!(world.commits.len(), commits);
    let late = epochs.observable.next();
    epochs.source_held(SOURCE, false, late);
    world.settle(&mut epochs);
    assert_eq!(world.commits.len(), commits, "what came late is above");
    world.now += 1;
    epochs.submit_write(WriteId(2), vec![RequestId(2)], 1, None);
    world.settle(&mut epochs);
    assert!(world.commits.last().unwrap() >= &late);
    // A commit that the worker puts off is tried again, of an epoch that it can commit.
    let from = epochs.observable.next();
    let asked = *world.commits.last().unwrap();
    epochs.commit = CommitState::InWorker(asked);
    epochs.commit_put_off(asked, from);
    assert!(epochs.dirty && epochs.commit == CommitState::Idle);
    world.now += COMMIT_INTERVAL_MS;
    epochs.submit_write(WriteId(4), vec![RequestId(4)], 1, None);
    world.settle(&mut epochs);
    assert!(world.commits.last().unwrap() >= &from);
    // What is dropped is not waited for, and neither is what is held up when the node stops.
    for drops in [true, false] {
        epochs.source_held(SOURCE, true, Epoch(1));
        if drops {
            epochs.object_dropped(SOURCE);
            assert!(epochs.held.is_empty());
        }
    }
    world.now += 1;
    epochs.submit_write(WriteId(3), vec![RequestId(3)], 1, None);
    epochs.shutdown();
    world.settle(&mut epochs);
    assert!(world.drained);
}
