// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop: all sources, what has happened to them, and what is to be done next. Touched by the thread that leads.
//!
//! A pass takes notices and events, lets sources read again that had more than their turn, executes some requests, and
//! waits. Whatever may block or is foreign is not done here but returned as [`Work`].

mod arrivals;
mod ending;
#[cfg(feature = "mux")]
mod freezing;
mod gates;
mod links;
mod requests;
mod servers;
mod sessions;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::arrivals::Arrival;
#[cfg(feature = "mux")]
pub(super) use self::freezing::Pause;
use self::links::{FloodedLinks, LinkSlot};
use self::servers::Tenant;
use self::sessions::SessionSlot;
use super::hosted::{Asked, Hosted};
use super::link::Link;
use super::listening::Listening;
use super::slab::Slab;
use super::timers::{Timer, Timers};
use super::work::{Done, Work};
use crate::access::Groups;
use crate::io::{Event, Events, Interest, Mailbox, Notice, Poll, Token};
use crate::session::{Cork, Pass};

/// Commands that are executed before clients are looked at again, so that one who has just sent a command does not wait
/// for all that others keep sending.
const COMMANDS_PER_PASS: usize = 8;

/// No other command is executed before clients are looked at again if those of this pass take longer than this.
const TIME_OF_COMMANDS: Duration = Duration::from_micros(200);

/// Sources that had their turn and have more: how many of them have another one before new events are looked at.
const TURNS_PER_PASS: usize = 16;

/// What is read at a time.
const SCRATCH_SIZE: usize = 64 << 10;

/// How long a source waits that found no descriptor, or no room for some.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// The token of the mailbox's waker. No source ever has it.
const WAKER: Token = Token { index: u32::MAX, generation: u32::MAX };

/// What is in a slot.
enum Source {
    Listener(ListenerSlot),
    Arrival(Box<Arrival>),
    Session(Box<SessionSlot>),
    Server(Box<Tenant>),
    Link(Box<LinkSlot>),
}

/// A listener and its server.
struct ListenerSlot {
    listening: Listening,
    server: Token,
    /// It accepts again when a timer is due, because there were no descriptors.
    later: bool,
    /// It could not be opened, and that is tried again when a timer is due.
    to_open: bool,
    /// It is in `Loop::again`, at most once: so one pass accepts a bounded number of clients.
    in_line: bool,
}

/// What other threads want the loop to take in, besides notices. The mailbox tells when there is something.
pub(super) enum Posted {
    /// Work that another thread than the one that leads has run.
    Ran(Done),
    /// A server asks for something. No notice, because the server may not be hosted yet.
    Asked(Arc<Hosted>, Asked),
    /// The groups of a user were looked up for the arrivals of a server.
    LookedUp { server: Token, uid: u32, groups: Groups },
    /// A server is to be hosted.
    Host {
        server: Arc<Hosted>,
        listeners: Vec<Listening>,
        /// Of who waits for that.
        reply: Option<SyncSender<io::Result<()>>>,
    },
    /// A link is to be hosted.
    #[cfg_attr(not(feature = "mux"), allow(dead_code, reason = "only a mux has links"))]
    AddLink(Box<dyn Link>),
    /// The loop is to be passed to a function at a point where nothing runs.
    #[cfg(feature = "mux")]
    Pause(Pause),
}

pub(super) type AllPosted = Mutex<Vec<Posted>>;

pub(super) struct Loop {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    posted: Arc<AllPosted>,
    cork: Arc<Cork>,
    sources: Slab<Source>,
    timers: Timers,
    /// What the last wait has returned, handled up to `next_event`.
    events: Events,
    next_event: usize,
    /// Sessions, listeners and links that had their turn and have more.
    again: VecDeque<Token>,
    /// How many of `again` are to be looked at before the next wait.
    again_now: usize,
    /// Links that are not in `again` because what they receive takes too much time.
    line: FloodedLinks,
    /// One of them had its turn since the last wait.
    line_served: bool,
    /// Servers whose queue may have something to pop, each once.
    ready: VecDeque<Token>,
    /// Commands that may still be executed before the next wait.
    commands_left: usize,
    /// Until when one may be, once one has been.
    commands_until: Instant,
    /// To be run without the leadership, in this order.
    work: VecDeque<Work>,
    pass: Pass,
    /// Empty but while notices are handled.
    notices: Vec<(Token, Notice)>,
    /// Servers and links.
    tenants: usize,
    /// How many pieces of work were returned that have not ended, and how many large messages are being parsed.
    running: usize,
    parsing: usize,
    #[cfg(feature = "mux")]
    pause: Option<Pause>,
}

impl Loop {
    pub(super) fn new(
        mailbox: Arc<Mailbox>,
        posted: Arc<AllPosted>,
        cork: Arc<Cork>,
    ) -> io::Result<Loop> {
        let poll = Poll::new()?;
        poll.register(std::os::fd::AsFd::as_fd(&*mailbox), WAKER, Interest::Readable)?;
        Ok(Loop {
            poll,
            mailbox,
            posted,
            cork,
            sources: Slab::new(),
            timers: Timers::default(),
            events: Events::new(),
            next_event: 0,
            again: VecDeque::new(),
            again_now: 0,
            line: FloodedLinks::default(),
            line_served: false,
            ready: VecDeque::new(),
            commands_left: COMMANDS_PER_PASS,
            commands_until: Instant::now(),
            work: VecDeque::new(),
            pass: Pass { scratch: vec![0; SCRATCH_SIZE].into(), now: Instant::now() },
            notices: Vec::new(),
            tenants: 0,
            running: 0,
            parsing: 0,
            #[cfg(feature = "mux")]
            pause: None,
        })
    }

    /// Goes on until there is something to be run without the leadership; `None` when nothing is hosted and `is_needed`
    /// says that nothing will be.
    pub(super) fn next_work(&mut self, is_needed: impl Fn() -> bool) -> Option<Work> {
        loop {
            self.take_notices();
            if let Some(work) = self.work.pop_front() {
                return Some(work);
            }
            #[cfg(feature = "mux")]
            if self.pause.is_some() {
                self.pause_when_nothing_runs();
                continue;
            }
            if let Some(event) = self.events.get(self.next_event).copied() {
                self.next_event += 1;
                self.guard(event.token, |this| this.event(event));
            } else if self.again_now > 0 {
                self.again_now -= 1;
                if let Some(token) = self.again.pop_front() {
                    self.guard(token, |this| this.next_turn(token));
                }
            } else if let Some(work) = self.next_command() {
                return Some(work);
            } else if !self.line_served && self.line.is_due(self.pass.now) {
                self.line_served = true;
                self.next_in_line();
            } else if self.tenants == 0 && !is_needed() {
                return None;
            } else {
                self.wait();
            }
        }
    }

    /// Notes that a piece of work is about to run.
    pub(super) fn work_begins(&mut self) {
        self.running += 1;
    }

    /// Takes in what has come of a piece of work that was run.
    pub(super) fn work_ended(&mut self, done: Done) {
        self.running -= 1;
        let began = self.pass.now;
        match done {
            Done::Executed { at, .. } => self.pass.now = self.pass.now.max(at),
            _ => self.look_at_clock(),
        }
        self.apply(done, self.pass.now.saturating_duration_since(began));
    }

    /// Something may have taken long.
    pub(super) fn look_at_clock(&mut self) {
        self.pass.now = Instant::now();
    }

    /// Takes in what has come of a piece of work that has taken so long.
    fn apply(&mut self, done: Done, took: Duration) {
        match done {
            Done::Nothing | Done::Executed { more: false, .. } => {}
            Done::Executed { server, more: true, .. } => self.server_ready(server),
            Done::Connected { server, session } => self.add_session(server, *session),
            Done::NotConnected { server } => self.not_connected(server),
            Done::Forgotten { server } => self.forgotten(server),
            Done::AnsweredEnding { server } => self.flush_ending(server),
            Done::TimeoutHandled { server } => self.set_timeout(server),
            Done::Returned { token, link, next } => self.returned(token, link, next, took),
            Done::Lost { link } => self.lost(link),
        }
    }

    fn take_in(&mut self, posted: Posted) {
        match posted {
            Posted::Ran(done) => self.work_ended(done),
            Posted::Asked(server, asked) => self.asked(server, asked),
            Posted::LookedUp { server, uid, groups } => self.looked_up(server, uid, &groups),
            Posted::Host { server, listeners, reply } => {
                let span = server.span.clone();
                match (self.host(server, listeners), reply) {
                    (hosted, Some(reply)) => drop(reply.send(hosted)),
                    (Err(error), None) => {
                        span.in_scope(|| tracing::error!(%error, "clients cannot be served"));
                    }
                    (Ok(()), None) => {}
                }
            }
            Posted::AddLink(link) => self.add_link(link),
            #[cfg(feature = "mux")]
            Posted::Pause(pause) => self.pause = Some(pause),
        }
    }

    fn asked(&mut self, server: Arc<Hosted>, asked: Asked) {
        match asked {
            Asked::Connected(session) => self.add_session(server, *session),
            Asked::Arrived(transport, origin) => self.arrive(&server, transport, origin),
            Asked::Early(transport, origin) => self.come_early(server, transport, origin),
            Asked::Read { client, large, complete } => {
                self.parsing -= 1;
                self.has_read(&client, large, complete);
            }
            Asked::Disconnect(whom) => {
                if let Some(token) = server.registration.token() {
                    self.disconnect(token, whom);
                }
            }
            Asked::Gate(gate) => {
                if let Some(token) = server.registration.token() {
                    self.set_gate(token, gate);
                }
            }
            Asked::Forgotten => {
                if let Some(token) = server.registration.token() {
                    self.forgotten(token);
                }
            }
        }
    }

    fn take_notices(&mut self) {
        if !self.mailbox.has_any() {
            return;
        }
        let mut notices = mem::take(&mut self.notices);
        self.mailbox.take(&mut notices);
        let posted = mem::take(&mut *self.posted.lock().unwrap_or_else(PoisonError::into_inner));
        posted.into_iter().for_each(|posted| self.take_in(posted));
        for (token, notice) in notices.drain(..) {
            self.guard(token, |this| this.notice(token, notice));
        }
        self.notices = notices;
    }

    fn notice(&mut self, token: Token, notice: Notice) {
        match notice {
            Notice::Resumed => self.step(token),
            Notice::Executed => self.executed(token),
            Notice::Blocked => self.blocked(token),
            Notice::Broken => self.broken(token),
            Notice::Overrun => self.overrun(token),
            Notice::Room => self.room(token),
            Notice::Queued => self.server_ready(token),
            Notice::Timeout => self.set_timeout(token),
            Notice::Excess => self.relieve(token),
            Notice::Stop => self.stop(token),
            Notice::Wake => self.wake_link(token),
        }
    }

    fn event(&mut self, event: Event) {
        match self.sources.get_mut(event.token) {
            Some(Source::Session(_)) => self.session_event(event),
            Some(Source::Listener(_)) => self.accept(event.token),
            Some(Source::Arrival(_)) => self.arrival_ready(event.token),
            Some(Source::Link(_)) => self.link_event(event),
            Some(Source::Server(_)) | None => {}
        }
    }

    /// A source that stood in `again` has its turn.
    fn next_turn(&mut self, token: Token) {
        match self.sources.get_mut(token) {
            Some(Source::Listener(listener)) => listener.in_line = false,
            Some(Source::Session(served)) => served.in_line = false,
            _ => {}
        }
        self.step(token);
    }

    /// Lets a source go on that has more to do than fits into one turn.
    fn step(&mut self, token: Token) {
        match self.sources.get_mut(token) {
            Some(Source::Session(_)) => self.read(token),
            Some(Source::Listener(_)) => self.accept(token),
            Some(Source::Link(_)) => self.wake_link(token),
            _ => {}
        }
    }

    fn try_again(&mut self, token: Token) {
        if let Some(Source::Listener(listener)) = self.sources.get_mut(token) {
            listener.later = false;
            if listener.to_open {
                return self.set_door(token);
            }
        }
        self.step(token);
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Handshake(token) => self.handshake_overdue(token),
            Timer::Stalled(token) => self.look_for_stall(token),
            Timer::Negotiation(token) => self.look_for_negotiation(token),
            Timer::Drained(token) => self.close(token),
            Timer::Again(token) => self.try_again(token),
            Timer::Dispatcher(token) => self.handle_timeout(token),
            Timer::Answers(token) => self.refuse_waiting(token),
            Timer::Link(token) => self.link_timer(token),
        }
    }

    fn wait(&mut self) {
        self.commands_left = COMMANDS_PER_PASS;
        let now = self.pass.now;
        let has_more = !self.again.is_empty() || !self.ready.is_empty() || self.line.is_due(now);
        let sleeps = !has_more && self.mailbox.announce_sleep();
        // Whoever corks from now on wakes this up.
        self.cork.flush();
        let timeout = match sleeps {
            true => self.timers.next_timeout(self.line.due_at(now)),
            false => Some(Duration::ZERO),
        };
        let waited = self.poll.wait(timeout, &mut self.events);
        if sleeps {
            self.mailbox.awake();
        }
        if let Err(error) = waited {
            tracing::error!(%error, "cannot wait for clients");
        }
        self.next_event = 0;
        self.again_now = self.again.len().min(TURNS_PER_PASS);
        self.line_served = false;
        self.look_at_clock();
        while let Some(timer) = self.timers.take_due(self.pass.now) {
            self.guard(timer.token(), |this| this.timer(timer));
        }
    }

    /// Does something for a source. If its code panics, which is that of an embedder's transport or listener, the source
    /// ends, and nothing else is lost.
    fn guard(&mut self, token: Token, step: impl FnOnce(&mut Loop)) {
        if catch_unwind(AssertUnwindSafe(|| step(self))).is_ok() {
            return;
        }
        tracing::error!("the code of a transport or listener has panicked, and is left alone");
        if catch_unwind(AssertUnwindSafe(|| self.end_source(token))).is_err() {
            drop(
                self.sources
                    .remove(token)
                    .map(|source| catch_unwind(AssertUnwindSafe(|| drop(source)))),
            );
        }
    }

    fn end_source(&mut self, token: Token) {
        match self.sources.get_mut(token) {
            Some(Source::Session(_)) => self.close(token),
            Some(Source::Listener(_)) => self.end_listener(token),
            Some(Source::Arrival(_)) => self.end_arrival(token),
            Some(Source::Server(_) | Source::Link(_)) | None => {}
        }
    }
}
