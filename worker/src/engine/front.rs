//! What comes from the coordinator first comes here: what waits for nothing that the router does is served at once.
//!
//! Owns the order of reads, plans that are tried and questions to upstreams among the other commands, and has these served; all else is passed on to the router
//! ([`super::order`]), in order. Must not know what the router does with it. Called by [`super::start`], which gives it a task of its own.
//!
//! Invariants. Nothing here waits for a shard, a disk or an upstream. A read is served when the router has acted on everything that was sent before it and makes,
//! changes or drops something: who reads finds what was made before. It waits for no other command, whatever the router is doing: that an epoch may be observed reads
//! hear here. What is passed on has not overtaken a read that could be served.

use std::collections::VecDeque;

use flowstone_proto::local::COMMANDS_IN_FLIGHT;
use flowstone_proto::message::{
    Command, Export, RequestError, RequestId, Response, UpstreamQuestion,
};
use flowstone_proto::plan::Plan;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::order::is_awaited;
use crate::compute::{Read, Reads};
use crate::query::internal;
use crate::trial::Trial;

/// Commands that were passed on and have not come to the router. As many as the transport has: while an epoch is run each session may have sent a write, and reads
/// come behind what does not fit.
const PASSED_IN_FLIGHT: usize = COMMANDS_IN_FLIGHT;

/// Requests that wait for the router to have made something; beyond, no command is received, and the coordinator waits.
const BEHIND_MAX: usize = COMMANDS_IN_FLIGHT;

/// What is served here.
#[derive(Debug)]
enum Request {
    Read(Read),
    Prepare(RequestId, Plan, Option<Export>),
    Ask(RequestId, Box<UpstreamQuestion>),
}

/// What a front is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) responses: mpsc::Sender<Response>,
    pub(super) reads: Reads,
    pub(super) trial: Trial,
    /// For questions to upstreams, and plans that are tried.
    pub(super) tasks: TaskTracker,
}

/// The state of the front.
#[derive(Debug)]
pub(super) struct Front {
    parts: Parts,
    router: mpsc::Sender<Command>,
    /// A command that waits for room.
    next: Option<Command>,
    /// How many commands that reads wait for were passed on, that one included.
    passed: u64,
    /// How many of them the router has acted on.
    acted: watch::Receiver<u64>,
    /// Requests, and how many commands have to be acted on before each.
    behind: VecDeque<(u64, Request)>,
}

/// The router's end.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) commands: mpsc::Receiver<Command>,
    /// How many commands that reads wait for were acted on.
    pub(super) acted: watch::Sender<u64>,
}

impl Front {
    pub(super) fn new(parts: Parts) -> (Self, Passed) {
        let (router, commands) = mpsc::channel(PASSED_IN_FLIGHT);
        let (sender, acted) = watch::channel(0);
        let front = Self {
            parts,
            router,
            next: None,
            passed: 0,
            acted,
            behind: VecDeque::new(),
        };
        let acted = sender;
        (front, Passed { commands, acted })
    }

    /// Serves and passes on until the coordinator or the router has gone. Reads that wait end with it. Returns the commands that were not received: until that is
    /// dropped the coordinator may send some.
    pub(super) async fn run(mut self) -> mpsc::Receiver<Command> {
        loop {
            let may_receive = self.next.is_none() && self.behind.len() < BEHIND_MAX;
            tokio::select! {
                biased;
                acted = self.acted.changed() => match acted {
                    Ok(()) => self.serve_behind(),
                    Err(_) => break,
                },
                () = self.parts.reads.changed() => self.parts.reads.start_ready(),
                passed = pass_on(&self.router, &mut self.next) => if !passed { break },
                command = self.parts.commands.recv(), if may_receive => match command {
                    Some(command) => self.take(command),
                    None => break,
                },
            }
        }
        self.parts.commands
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Peek(peek) => self.serve(Request::Read(Read::Peek(peek))),
            Command::Lookup(lookup) => self.serve(Request::Read(Read::Lookup(lookup))),
            Command::Prepare {
                request,
                plan,
                export,
            } => self.serve(Request::Prepare(request, plan, export)),
            Command::AskUpstream { request, question } => {
                self.serve(Request::Ask(request, Box::new(question)));
            }
            // What is no read of this worker's may be a subscription, or wait to be one.
            Command::Cancel { request } if self.cancel(request) => {}
            command => {
                if let Command::BindingDurable { epoch } = &command {
                    self.parts.reads.observe(*epoch);
                }
                self.passed += u64::from(is_awaited(&command));
                self.next = Some(command);
            }
        }
    }

    /// Serves a request in its turn.
    fn serve(&mut self, request: Request) {
        if *self.acted.borrow() >= self.passed {
            self.act(request);
        } else {
            self.behind.push_back((self.passed, request));
        }
    }

    /// Serves the requests for which everything is there by now.
    fn serve_behind(&mut self) {
        let acted = *self.acted.borrow_and_update();
        while self
            .behind
            .front()
            .is_some_and(|(passed, _)| *passed <= acted)
            && let Some((_, request)) = self.behind.pop_front()
        {
            self.act(request);
        }
    }

    fn act(&mut self, request: Request) {
        match request {
            Request::Read(read) => self.parts.reads.read(read),
            Request::Prepare(request, plan, export) => self.prepare(request, plan, export),
            Request::Ask(request, question) => self.ask(request, *question),
        }
    }

    /// Ends a read. Returns whether there was such a one.
    fn cancel(&mut self, request: RequestId) -> bool {
        let position = self.behind.iter().position(|(_, behind)| match behind {
            Request::Read(read) => read.request() == request,
            Request::Prepare(..) | Request::Ask(..) => false,
        });
        if let Some((_, Request::Read(read))) = position.and_then(|at| self.behind.remove(at)) {
            self.parts.reads.refuse(&read, RequestError::Cancelled);
            return true;
        }
        self.parts.reads.cancel(request)
    }

    /// Tries a plan in a task of its own.
    fn prepare(&self, request: RequestId, plan: Plan, export: Option<Export>) {
        let (trial, responses) = (self.parts.trial.clone(), self.parts.responses.clone());
        self.parts.tasks.spawn(async move {
            let rendering = tokio::task::spawn_blocking(move || trial.render(&plan, export));
            let result = rendering.await.unwrap_or_else(|error| Err(internal(error)));
            // The coordinator may have gone.
            drop(responses.send(Response::Prepared { request, result }).await);
        });
    }

    /// Asks an upstream in a task of its own.
    fn ask(&self, request: RequestId, question: UpstreamQuestion) {
        let responses = self.parts.responses.clone();
        self.parts.tasks.spawn(async move {
            let answer = flowstone_ingest::ask(&question).await;
            let answer = Response::UpstreamAnswer { request, answer };
            // The coordinator may have gone.
            drop(responses.send(answer).await);
        });
    }
}

/// Passes a command on as soon as there is room; never ends while there is none. Returns whether the router is still there.
///
/// # Cancel safety
/// The command is passed on, or still there.
async fn pass_on(router: &mpsc::Sender<Command>, next: &mut Option<Command>) -> bool {
    if next.is_none() {
        return std::future::pending().await;
    }
    let Ok(room) = router.reserve().await else {
        return false;
    };
    if let Some(command) = next.take() {
        room.send(command);
    }
    true
}
