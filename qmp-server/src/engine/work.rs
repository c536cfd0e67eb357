// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs without the leadership, and what comes of it. All foreign code runs here: handlers, interceptors, filters,
//! the end of monitors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Command, Pending};
use qmp_queue::{Popped, Ticket};
use tracing::Span;

use super::hosted::{Asked, Hosted};
use super::link::{Link, LinkInput, LinkNext};
use super::listening::Listening;
use super::quick::CommandSlot;
use crate::access::{Groups, Ledger, Origin, Refused};
use crate::io::{Notice, Registration, STRANGERS, Token, close_aside, large_message_aside};
use crate::observe::Counters;
use crate::session::{
    Charges, Complete, ConnectedClient, Cork, Corking, Discipline, Large, OnLeave, QueuedRequest,
    Remains, Session,
};
use crate::transport::{Closing, Peer, Transport};

/// Something to be run without the leadership.
pub(super) enum Work {
    /// Greet a client that is let in.
    Connect {
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        origin: Origin,
        admitted: (Peer, Arc<Ledger>),
        groups: Option<Groups>,
    },
    /// Tell of a client that is not let in, and end its connection.
    Refuse {
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        listener: Option<usize>,
        refused: Refused,
    },
    /// Execute an in-band request.
    Execute {
        server: Arc<Hosted>,
        popped: Popped<QueuedRequest>,
        /// Set if its response may be [corked](crate::session::Cork), once its command is known to be quick.
        slot: Option<CommandSlot>,
        /// When its turn has come.
        at: Instant,
    },
    /// Execute an out-of-band request; the session waits for it.
    ExecuteOutOfBand {
        server: Arc<Hosted>,
        client: Arc<ConnectedClient>,
        pending: Pending,
    },
    /// Execute what clients that negotiate have queued, out of turn.
    Negotiate {
        server: Arc<Hosted>,
        jobs: Vec<QueuedRequest>,
    },
    /// Answer requests with an error, because their server ends.
    AnswerEnding {
        server: Token,
        requests: Vec<(Arc<ConnectedClient>, Vec<Pending>)>,
    },
    HandleTimeout {
        server: Arc<Hosted>,
        token: Token,
    },
    /// Drop what is left of a session.
    Forget {
        server: Arc<Hosted>,
        remains: Box<Remains>,
    },
    /// End a connection that is not served.
    End {
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        listener: Option<usize>,
    },
    /// Close a listener.
    EndListener(Listening),
    /// Drop something foreign.
    Drop(Box<dyn Any + Send>),
    /// Let a link handle an input.
    Lend {
        token: Token,
        link: Box<dyn Link>,
        input: LinkInput,
    },
}

/// What has come of [`Work`].
pub(super) enum Done {
    Nothing,
    /// A client was greeted.
    Connected {
        server: Arc<Hosted>,
        session: Box<Session>,
    },
    /// A client was let in, but could not be greeted.
    NotConnected {
        server: Token,
    },
    /// A request was executed. The server may have `more` that can be executed now.
    Executed {
        server: Token,
        more: bool,
        /// When that was.
        at: Instant,
    },
    /// What was left of a session has been dropped.
    Forgotten {
        server: Token,
    },
    AnsweredEnding {
        server: Token,
    },
    TimeoutHandled {
        server: Token,
    },
    /// A link is back.
    Returned {
        token: Token,
        link: Box<dyn Link>,
        next: LinkNext,
    },
    /// A link is gone.
    Lost {
        link: Token,
    },
}

impl Work {
    /// Whether it is known to be quick, so that responses may wait for it.
    pub(super) fn is_quick(&self) -> bool {
        match self {
            Work::Execute { server, slot: Some(slot), .. } => server.quick_runs.is_quick(*slot),
            _ => false,
        }
    }

    /// Runs it. A panic of foreign code ends what it was run for, and nothing else.
    pub(super) fn run(self, cork: &Cork) -> Done {
        let instead = self.panicked();
        let _entered = self.span().entered();
        catch_unwind(AssertUnwindSafe(|| self.run_unguarded(cork))).unwrap_or_else(|_| {
            tracing::error!("foreign code has panicked");
            instead
        })
    }

    /// That of its server.
    fn span(&self) -> Span {
        match self {
            Work::Connect { server, .. }
            | Work::Refuse { server, .. }
            | Work::Execute { server, .. }
            | Work::ExecuteOutOfBand { server, .. }
            | Work::Negotiate { server, .. }
            | Work::HandleTimeout { server, .. }
            | Work::Forget { server, .. }
            | Work::End { server, .. } => server.span.clone(),
            // A link has its own.
            Work::AnswerEnding { .. }
            | Work::EndListener(_)
            | Work::Drop(_)
            | Work::Lend { .. } => Span::none(),
        }
    }

    /// What has come of it if foreign code panics.
    fn panicked(&self) -> Done {
        match self {
            Work::Connect { server, .. } => server
                .registration
                .token()
                .map_or(Done::Nothing, |server| Done::NotConnected { server }),
            &Work::AnswerEnding { server, .. } => Done::AnsweredEnding { server },
            &Work::HandleTimeout { token, .. } => Done::TimeoutHandled { server: token },
            &Work::Lend { token, .. } => Done::Lost { link: token },
            Work::Forget { server, .. } => server
                .registration
                .token()
                .map_or(Done::Nothing, |server| Done::Forgotten { server }),
            Work::Execute { .. }
            | Work::ExecuteOutOfBand { .. }
            | Work::Refuse { .. }
            | Work::Negotiate { .. }
            | Work::End { .. }
            | Work::EndListener(_)
            | Work::Drop(_) => Done::Nothing,
        }
    }

    fn run_unguarded(self, cork: &Cork) -> Done {
        match self {
            Work::Connect { server, transport, origin, admitted, groups } => {
                let session = server.connect(transport, origin, admitted, groups);
                Done::Connected { server, session: session.into() }
            }
            Work::Refuse { server, transport, listener, refused } => {
                server.refuse(transport, listener, &refused);
                Done::Nothing
            }
            Work::Execute { server, popped, slot, at } => {
                let (more, at) = server.execute(popped, slot, at);
                match server.registration.token() {
                    Some(server) => Done::Executed { server, more, at },
                    None => Done::Nothing,
                }
            }
            Work::ExecuteOutOfBand { server, client, pending } => {
                let run = OutOfBandRun::new(&server, &client);
                client.monitor.execute(pending, move || drop(run));
                Done::Nothing
            }
            Work::Negotiate { server, jobs } => {
                server.negotiate(jobs);
                Done::Nothing
            }
            Work::AnswerEnding { server, requests } => {
                for (client, pending) in requests {
                    for pending in pending {
                        client
                            .monitor
                            .refuse(pending, Error::generic("The server is shutting down"));
                    }
                }
                Done::AnsweredEnding { server }
            }
            Work::HandleTimeout { server, token } => {
                server.dispatcher.handle_timeout();
                Done::TimeoutHandled { server: token }
            }
            Work::Forget { server, remains } => {
                server.forget(&remains.client);
                remains.client.monitor.close();
                if let Some(on_leave) = remains.client.monitor.local::<OnLeave>() {
                    on_leave.call();
                }
                remains.client.leave();
                let ledger = Arc::clone(&remains.client.ledger);
                let owner = ledger.owner();
                let token = server.registration.token();
                let forgotten = token.map_or(Done::Nothing, |server| Done::Forgotten { server });
                let transport = remains.drop_all_but_transport();
                match transport.closing() {
                    Closing::AtOnce => forgotten,
                    Closing::Slow => {
                        let being_closed = ledger.close();
                        close_aside(owner, move || {
                            transport.discard();
                            drop(transport);
                            drop(being_closed);
                        });
                        forgotten
                    }
                    Closing::Flushes => {
                        close_aside(owner, move || {
                            drop(transport);
                            server.ask(Asked::Forgotten);
                        });
                        Done::Nothing
                    }
                }
            }
            Work::End { server, transport, listener } => {
                server.end(transport, listener, None);
                Done::Nothing
            }
            Work::EndListener(listening) => {
                if listening.listener.closing() == Closing::AtOnce {
                    drop(listening);
                } else {
                    close_aside(STRANGERS, move || drop(listening));
                }
                Done::Nothing
            }
            Work::Drop(foreign) => {
                drop(foreign);
                Done::Nothing
            }
            Work::Lend { token, mut link, input } => {
                let _corking = Corking::allow(cork);
                let next = link.handle(input);
                Done::Returned { token, link, next }
            }
        }
    }
}

/// Executing requests.
impl Hosted {
    /// Takes the next request from the queue if the role is free. It must be [executed](Hosted::execute).
    pub(super) fn next(&self) -> Option<Popped<QueuedRequest>> {
        if !self.role.try_take() {
            return None;
        }
        let popped = self.queue.try_pop();
        if popped.is_none() {
            self.role.free();
        }
        popped
    }

    /// Whether the response to a request that was popped can go out together with others of its client, or is behind some that
    /// wait, and if so what is known of its command.
    pub(super) fn among_others(&self, popped: &Popped<QueuedRequest>) -> Option<CommandSlot> {
        let QueuedRequest { client, pending, .. } = &popped.item;
        let among_others = client.has_more() || self.cork.any();
        among_others
            .then(|| self.quick_runs.slot_of(&self.dispatcher.registry(), pending.command()))
    }

    /// Executes a request whose turn has come. Returns whether another one can be executed now, and what time that is.
    pub(super) fn execute(
        self: &Arc<Self>,
        popped: Popped<QueuedRequest>,
        slot: Option<CommandSlot>,
        at: Instant,
    ) -> (bool, Instant) {
        let may_cork = slot.is_some_and(|slot| self.quick_runs.is_quick(slot));
        let _corking = may_cork.then(|| Corking::allow(&self.cork));
        let Popped { item, resume, ticket, more, .. } = popped;
        let QueuedRequest { client, pending, charges, queued } = item;
        let taken = self.counters.at(at);
        self.counters.waited.add(taken.saturating_sub(queued));
        client.taken(taken, resume.as_ref());
        let monitor = Arc::clone(&client.monitor);
        // While an async command waits, those of other clients are executed: QEMU has nothing like it.
        let holds_role =
            self.options.discipline == Discipline::OneAtATime && !self.is_async(&pending);
        let large = charges.are_large().then(|| Arc::clone(&client));
        let mut execution = Execution::new(self, client, Some(ticket), charges, taken, holds_role);
        execution.slot = slot;
        ANSWERED_AT.set(None);
        // The dispatcher has its own net for handlers; this one is for the code around them.
        let execute = || monitor.execute(pending, move || drop(execution));
        match (catch_unwind(AssertUnwindSafe(execute)), large) {
            (Ok(spent), Some(client)) => client.discard(spent),
            (Ok(_), None) => {}
            (Err(_), _) => tracing::error!("foreign code around a command has panicked"),
        }
        let freed = match holds_role {
            true => self.role.returned(),
            false => {
                self.role.free();
                true
            }
        };
        let answered_at = ANSWERED_AT.take().filter(|_| holds_role && freed);
        // Looked at after the role was freed: what is pushed later is told by who pushes it. What was known to wait needs no look.
        (freed && (more || !self.queue.is_idle()), answered_at.unwrap_or_else(Instant::now))
    }

    fn is_async(&self, pending: &Pending) -> bool {
        if !self.dispatcher.has_async_commands() {
            return false;
        }
        let registry = self.dispatcher.registry();
        let command = pending.command().and_then(|name| registry.find_command(name));
        command.is_some_and(Command::is_async)
    }

    /// Reads a large message on a thread for that. The session waits for it.
    pub(super) fn read(self: &Arc<Self>, client: Arc<ConnectedClient>, large: Box<Large>) {
        let owner = client.ledger.owner();
        let server = Arc::clone(self);
        let mut reading = Reading { server, client, large: Some(large), complete: None };
        large_message_aside(owner, move || {
            reading.run();
        });
    }

    /// Executes what a client that negotiates has sent, out of its turn.
    pub(super) fn negotiate(self: &Arc<Self>, jobs: Vec<QueuedRequest>) {
        for job in jobs {
            let QueuedRequest { client, pending, charges, queued } = job;
            let taken = self.counters.now();
            self.counters.waited.add(taken.saturating_sub(queued));
            let monitor = Arc::clone(&client.monitor);
            let execution = Execution::new(self, client, None, charges, taken, false);
            monitor.execute(pending, move || drop(execution));
        }
    }

    /// Executes one request on the embedder's thread. Whether more can be executed.
    pub(crate) fn dispatch_one(self: &Arc<Self>) -> bool {
        if let Some(embedder) = &self.embedder {
            // Before a look at the queue: what comes after that wakes it again.
            embedder.reset();
        }
        let popped = if self.is_stopping() { None } else { self.next() };
        let executed = popped.is_some();
        if let Some(popped) = popped {
            if popped.resume.is_some() {
                popped.item.client.let_read_on();
            }
            self.execute(popped, None, Instant::now());
        }
        // It may have been reset when it had just been woken.
        self.wake_embedder();
        executed && self.can_execute()
    }

    /// The queue may have something to pop for somebody, found out by a thread that is not about to look itself.
    fn tell_of_queue(&self) {
        match &self.embedder {
            Some(_) => self.wake_embedder(),
            None if self.queue.is_idle() => {}
            None => self.registration.post(Notice::Queued),
        }
    }
}

/// A large message that is read. The loop is told however that ends.
struct Reading {
    server: Arc<Hosted>,
    client: Arc<ConnectedClient>,
    /// `Some` until this is dropped.
    large: Option<Box<Large>>,
    complete: Option<Complete>,
}

impl Reading {
    fn run(&mut self) {
        if let Some(large) = &mut self.large {
            self.complete = large.read(&self.client.monitor);
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(large) = self.large.take() {
            let client = Arc::clone(&self.client);
            self.server.ask(Asked::Read { client, large, complete: self.complete.take() });
        }
    }
}

thread_local! {
    /// When this thread last answered an in-band request: for the usual one, what time it is when that has been executed.
    static ANSWERED_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// One in-band request that is executed, until it has been answered; ends however that ends.
struct Execution {
    server: Arc<Hosted>,
    client: Arc<ConnectedClient>,
    ticket: Option<Ticket<QueuedRequest>>,
    _charges: Charges,
    taken: Duration,
    had_oob: bool,
    slot: Option<CommandSlot>,
    /// The server's role is free only after the answer.
    holds_role: bool,
}

impl Execution {
    fn new(
        server: &Arc<Hosted>,
        client: Arc<ConnectedClient>,
        ticket: Option<Ticket<QueuedRequest>>,
        charges: Charges,
        taken: Duration,
        holds_role: bool,
    ) -> Execution {
        server.executing.fetch_add(1, Ordering::SeqCst);
        let had_oob = client.monitor.is_oob_enabled();
        let server = Arc::clone(server);
        let slot = None;
        Execution { server, client, ticket, _charges: charges, taken, had_oob, slot, holds_role }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let server = &self.server;
        let in_turn = self.ticket.is_some();
        self.client.answered(self.ticket.take(), self.had_oob);
        let now = Instant::now();
        ANSWERED_AT.set(Some(now));
        let took = server.counters.at(now).saturating_sub(self.taken);
        server.counters.executed.add(took);
        if let Some(slot) = self.slot {
            server.quick_runs.took(slot, took);
        }
        server.executing.fetch_sub(1, Ordering::SeqCst);
        let freed = in_turn && (!self.holds_role || server.role.answered());
        if freed {
            server.tell_of_queue();
        }
        if server.is_stopping() {
            server.registration.post(Notice::Stop);
        }
    }
}

/// One out-of-band request that is executed, until it has been answered; ends however that ends.
struct OutOfBandRun {
    counters: Arc<Counters>,
    began: Duration,
    session: Arc<Registration>,
}

impl OutOfBandRun {
    fn new(server: &Hosted, client: &ConnectedClient) -> OutOfBandRun {
        let counters = Arc::clone(&server.counters);
        let session = Arc::clone(&client.registration);
        OutOfBandRun { began: counters.now(), counters, session }
    }
}

impl Drop for OutOfBandRun {
    fn drop(&mut self) {
        let took = self.counters.now().saturating_sub(self.began);
        self.counters.executed_out_of_band.add(took);
        self.session.post(Notice::Executed);
    }
}
