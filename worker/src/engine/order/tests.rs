//! What waits for what, without anybody who acts on it.

use flowstone_proto::message::{
    CollectionDescription, CollectionKind, RequestId, RunEpoch, StageWrite,
};
use flowstone_types::ObjectId;
use futures::FutureExt;

use super::*;

const TABLE: ObjectId = ObjectId::User(1);

fn run(epoch: u64) -> Command {
    Command::RunEpoch(RunEpoch {
        epoch: Epoch(epoch),
        bindings: Vec::new(),
        writes: Vec::new(),
        replay: false,
    })
}

const fn durable(epoch: u64) -> Command {
    let epoch = Epoch(epoch);
    Command::BindingDurable { epoch }
}

const fn commit(epoch: u64) -> Command {
    let epoch = Epoch(epoch);
    Command::Commit { epoch }
}

const fn cancel(request: u64) -> Command {
    let request = RequestId(request);
    Command::Cancel { request }
}

fn write(write: u64) -> Command {
    Command::StageWrite(StageWrite {
        write: RequestId(write),
        operations: Vec::new(),
    })
}

fn create() -> Command {
    Command::CreateCollection(CollectionDescription {
        id: TABLE,
        name: "d.s.t".to_owned(),
        schema: std::sync::Arc::new(arrow_schema::Schema::empty()),
        key: None,
        kind: CollectionKind::Table,
        delta_version: None,
        failure: None,
    })
}

fn drop_table() -> Command {
    let objects = vec![TABLE];
    Command::Drop { objects }
}

fn sent(commands: impl IntoIterator<Item = Command>) -> (mpsc::Sender<Command>, Commands) {
    let (sender, receiver) = mpsc::channel(2 * WAITING_MAX);
    for command in commands {
        sender.try_send(command).unwrap();
    }
    let (acted, _) = watch::channel(0);
    (sender, Commands::new(receiver, acted))
}

/// What is acted on while something is in hand, and epochs up to 3 count.
fn taken(commands: &mut Commands, in_hand: InHand) -> Vec<Command> {
    let mut taken = Vec::new();
    while let Some(Some(command)) = commands.next(in_hand, Epoch(3)).now_or_never() {
        taken.push(command);
    }
    taken
}

#[test]
fn what_depends_on_no_epoch_does_not_wait_for_one_and_everything_else_comes_in_order() {
    let all = [
        run(5),
        cancel(1),
        write(2),
        durable(3),
        cancel(2),
        durable(4),
        commit(3),
        cancel(3),
    ];
    let (_sender, mut commands) = sent(all.clone());
    let [run, first, write, durable, second, ahead, commit, last] = all;
    assert!(!commands.is_idle());
    // A commit does not overtake what says that more may be observed, whatever that waits for.
    assert_eq!(
        taken(&mut commands, InHand::Feed),
        [first, durable, second, last]
    );
    assert!(!commands.is_idle());
    let left = taken(&mut commands, InHand::Nothing);
    assert_eq!(left, [run, write, ahead, commit]);
    assert!(commands.is_idle());
}

#[test]
fn nothing_overtakes_what_makes_or_drops_something() {
    for change in [create(), drop_table()] {
        let all = [run(5), change, durable(3), cancel(1), commit(3)];
        let (_sender, mut commands) = sent(all.clone());
        assert!(taken(&mut commands, InHand::Feed).is_empty());
        assert_eq!(taken(&mut commands, InHand::Nothing), all);
    }
}

#[test]
fn tables_are_brought_back_together_and_everything_else_comes_after() {
    let all = [create(), create(), cancel(1), create()];
    let (_sender, mut commands) = sent(all.clone());
    assert_eq!(taken(&mut commands, InHand::Tables), all[..2]);
    assert_eq!(taken(&mut commands, InHand::Nothing), all[2..]);
}

#[test]
fn no_more_are_received_than_may_wait() {
    let (sender, mut commands) = sent(std::iter::repeat_n(run(5), WAITING_MAX + 1));
    sender.try_send(cancel(1)).unwrap();
    assert!(taken(&mut commands, InHand::Feed).is_empty());
    assert_eq!(commands.waiting.len(), WAITING_MAX);
    let left = taken(&mut commands, InHand::Nothing);
    assert_eq!(left.len(), WAITING_MAX + 2);
}

#[test]
fn the_last_command_is_acted_on_before_there_are_no_more() {
    let (sender, mut commands) = sent([run(5)]);
    drop(sender);
    let in_hand = commands.next(InHand::Feed, Epoch(3)).now_or_never();
    assert_eq!(in_hand, None, "it waits for what is in hand");
    let mut next = || commands.next(InHand::Nothing, Epoch(3)).now_or_never();
    assert_eq!(next(), Some(Some(run(5))));
    assert_eq!(next(), Some(None));
}

#[test]
fn reads_wait_for_what_makes_or_drops_something_and_for_nothing_else() {
    for command in [create(), drop_table(), Command::Shutdown] {
        assert!(is_awaited(&command), "{command:?}");
    }
    for command in [run(5), write(1), durable(3), commit(3), cancel(1)] {
        assert!(!is_awaited(&command), "{command:?}");
    }
}
