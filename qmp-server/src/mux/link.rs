// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link to the upstream server: a source of the loop that connects, again and again, and passes on what comes.
//!
//! ```text
//!             the pause is over         addresses are known          the connection is made
//!   Waiting ─────────────────▶ Preparing ──────────▶ Connecting ──────────────────▶ Greeting
//!      ▲                          │                      │                             │ greeting
//!      │                          │ failed               │ all have failed             ▼
//!      ├──────────────────────────┴──────────────────────┘                        Negotiating
//!      │                                                                               │ response
//!      │                        the connection is lost                                 ▼
//!      └──────────────────────────────────────────────────────(from all three)────  Serving
//!
//!   any ── the mux ends ──▶ Ended
//! ```
//!
//! If the server is the one that connects, `Listening` is in the place of the five in the middle: until a server
//! [comes](super::dial_in) that could be served already. Behind a guest agent's channel nobody greets or negotiates: once
//! connected, the link is Conversing, in the place of the last three.
//!
//! It is lent out for each of its inputs, and so may call responders, and relay events, in the order in which answers and
//! events come.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use qmp_dispatch::Dispatcher;
use qmp_dispatch::proto::client::{Received, RequestTooLarge, Stage};
use qmp_dispatch::proto::{Band, Capability, Error};

use super::agent::{ANSWER_WITHIN, AgentConnection};
use super::connection::{Connection, End};
use super::dial_in::Seat;
use super::events::{Connected, Disconnected, UPSTREAM_CONNECTED, UPSTREAM_DISCONNECTED};
use super::handover::{MuxHandover, MuxState};
use super::lost::UpstreamLost;
use super::{OpenedUpstream, Shared, Speaks};
use crate::engine::{Engine, Freezing, Gate, Link, LinkInput, LinkNext, Whom};
use crate::io::{Interest, Notice, Registration};
use crate::server::{Control, Server};
use crate::session::Written;
use crate::transport::connect::attempt::{Attempt, Prepared};
use crate::transport::connect::stream::Stream;

/// How long to leave a server alone that could not be reached: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A socket appears before its server listens there: how often that is tried, and for how long.
const HURRIED_PAUSE: Duration = Duration::from_millis(10);
const HURRY: Duration = Duration::from_secs(1);

/// How long an address may take to be connected to, a handshake included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After so long without a greeting, or without a response to negotiation, somebody should be told.
const ANSWER_EXPECTED: Duration = Duration::from_secs(5);

/// How long a client that cannot be refused waits for the first greeting, unless clients are kept.
const EARLY: Duration = Duration::from_secs(5);

/// How long answers are waited for when the mux ends.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// In-band requests that a server with out-of-band execution has at a time: the next one is there
/// when it is done with one. Fewer than the eight that it would queue, for then it would stop reading.
const WINDOW_WITH_OOB: usize = 6;

/// After so many bytes of requests, what was chosen is sent before others are.
const SENT_TOGETHER: usize = 16 << 10;

/// Looking up names is one owner's, for all links.
const LOOK_UPS: u64 = 1;

/// See the diagram at the head of this file.
enum State {
    Waiting {
        until: Instant,
    },
    /// Until the server has connected, if that is at its end.
    Listening,
    Preparing(Prepared),
    Connecting(Box<Attempt>),
    /// If the server is silent until `silent_at`, that is told once.
    Greeting {
        connection: Box<Connection>,
        silent_at: Option<Instant>,
    },
    Negotiating {
        connection: Box<Connection>,
        silent_at: Option<Instant>,
    },
    Serving {
        connection: Box<Connection>,
    },
    Conversing {
        connection: Box<AgentConnection>,
    },
    Ended,
}

/// What has come.
#[derive(Default)]
struct Balance {
    events: usize,
    answers: usize,
}

impl Balance {
    /// Whether most of it was unasked for. A server whose clients are busy sends fewer events than answers.
    fn is_for_events(&self) -> bool {
        self.events > self.answers
    }
}

pub(super) struct UpstreamLink {
    registration: Arc<Registration>,
    shared: Arc<Shared>,
    dispatcher: Dispatcher,
    state: State,
    /// Who connects, if this end listens.
    seat: Option<Arc<Seat>>,
    /// How many connections there have been, from a random number on.
    connections: u64,
    /// When the last attempt to connect began.
    began: Instant,
    /// How long to wait before the next one.
    pause: Duration,
    /// Until then, a server is expected to listen any moment.
    hurried_until: Option<Instant>,
    /// Until then, clients that cannot be refused wait for the first greeting.
    early_until: Option<Instant>,
    /// Why the last one has failed, if the log has told it.
    told: Option<End>,
    /// The socket is another one than at the end of the last input, or there is none any more.
    new_socket: bool,
    /// When to look whether the server hangs.
    look_at: Option<Instant>,
    /// Of the last input: how many events there were for each answer.
    balance: Balance,
    /// The mux ends, and waits for answers until then.
    ends_at: Option<Instant>,
}

impl Link for UpstreamLink {
    fn registration(&self) -> &Arc<Registration> {
        &self.registration
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Connecting(attempt) => attempt.socket(),
            State::Greeting { connection, .. }
            | State::Negotiating { connection, .. }
            | State::Serving { connection } => Some(connection.socket()),
            State::Conversing { connection } => Some(connection.wire.socket()),
            State::Waiting { .. } | State::Listening | State::Preparing(_) | State::Ended => None,
        }
    }

    fn handle(&mut self, input: LinkInput) -> LinkNext {
        let _entered = self.shared.span.clone().entered();
        self.shared.upstream.awake();
        let now = Instant::now();
        let mut state = std::mem::replace(&mut self.state, State::Ended);
        if self.shared.has_appeared.swap(false, Ordering::SeqCst) {
            self.hurried_until = Some(now + HURRY);
            if let State::Waiting { until } = &mut state {
                *until = now;
            }
        }
        self.state = self.step(state, input, now).unwrap_or_else(|end| self.lost(end, now));
        if self.early_until.is_some_and(|until| until <= now) {
            self.early_until = None;
            self.set_gate(Gate::Shut);
        }
        let is_alone = matches!(self.state, State::Waiting { .. } | State::Listening);
        if is_alone && self.shared.is_last.load(Ordering::SeqCst) {
            self.shared.shut_down();
        }
        if self.shared.speaks == Speaks::Qmp {
            self.look_for_hang(now);
        }
        let more_is_known = self.shared.upstream.answer_known(input.is_turn());
        if self.is_to_end(now) {
            self.end();
        }
        let next = self.next(now);
        let unasked = std::mem::take(&mut self.balance).is_for_events();
        LinkNext { again: next.again || more_is_known, unasked, ..next }
    }

    fn freeze(&self, freezing: &mut Freezing) -> io::Result<()> {
        if self.shared.is_shutting_down() || matches!(self.state, State::Ended) {
            return Err(io::Error::other("a mux is ending"));
        }
        let connection = match &self.state {
            State::Serving { connection } => connection.state(&mut freezing.packing)?,
            // There is nothing yet that would be lost.
            _ => None,
        };
        let agent = match &self.state {
            State::Conversing { connection } => {
                connection.state(&mut freezing.packing, Instant::now())?
            }
            _ => None,
        };
        if connection.is_none() && agent.is_none() {
            if self.shared.is_inherited() {
                return Err(io::Error::other("an upstream server that was inherited is not ready"));
            }
            if self.shared.upstream.is_connected() {
                let server = &self.shared.connect.address;
                freezing.left_behind.push(format!("the connection to {server}"));
            }
        }
        let greeting = self.dispatcher.greeting();
        self.shared.freeze(freezing, self.connections, (connection, agent), greeting)
    }
}

impl UpstreamLink {
    /// Runs the server for the clients, before this link is taken in.
    pub(super) fn serve(
        &mut self,
        engine: &Engine,
        server: Server,
        handover: Option<MuxHandover>,
    ) -> io::Result<()> {
        let gate = match handover {
            Some(handover) => self.resume(handover),
            None if self.keeps() => Gate::Waiting,
            None => Gate::Early,
        };
        let mut server = server.with_gate(gate);
        server.open_doors()?;
        let hosted = server.run_on(engine);
        if gate == Gate::Shut {
            // Those of another program.
            hosted.disconnect_clients(Whom::Uninformed);
        }
        self.shared.serves(Control::new(&hosted));
        Ok(())
    }

    /// Whether clients stay when the upstream server is lost.
    fn keeps(&self) -> bool {
        self.shared.upstream.lost_policy() == UpstreamLost::Keep
    }

    /// Goes on where another link was.
    fn resume(&mut self, handover: MuxHandover) -> Gate {
        let MuxHandover { state, luggage } = handover;
        let MuxState { address, greeting, connections, connection, agent, upstream, .. } = state;
        let mut luggage = luggage.lock().unwrap_or_else(PoisonError::into_inner);
        let same = address == self.shared.connect.address.to_string();
        let resume = |state| Connection::resume(state, &mut luggage);
        let connection = match connection.filter(|_| same).map(resume).transpose() {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(%error, "the connection to the upstream server is lost");
                None
            }
        };
        let resume = |state| AgentConnection::resume(state, &mut luggage, Instant::now());
        let agent = agent.filter(|_| same).map(resume).transpose().unwrap_or_else(|error| {
            tracing::error!(%error, "the connection to the guest agent is lost");
            None
        });
        self.connections = connections;
        let is_connected = connection.is_some() || agent.is_some();
        if let Err(error) = self.shared.upstream.resume(upstream, is_connected, &mut luggage) {
            tracing::error!(%error, "requests were not handed over");
        }
        drop(luggage);
        if let Some(connection) = connection {
            self.seat.iter().for_each(|seat| seat.occupy());
            self.state = State::Serving { connection: Box::new(connection) };
        }
        if let Some(connection) = agent {
            self.state = State::Conversing { connection: Box::new(connection) };
        }
        let gate = match (is_connected, self.keeps(), greeting.is_some()) {
            (true, ..) | (false, true, true) => Gate::Open,
            (false, true, false) => Gate::Waiting,
            (false, false, true) => Gate::Shut,
            (false, false, false) => Gate::Early,
        };
        self.early_until = self.early_until.filter(|_| gate == Gate::Early);
        if let Some(greeting) = greeting {
            self.dispatcher.set_greeting(greeting);
        }
        gate
    }

    pub(super) fn new(
        registration: Arc<Registration>,
        shared: Arc<Shared>,
        dispatcher: Dispatcher,
        opened: Option<OpenedUpstream>,
    ) -> UpstreamLink {
        let now = Instant::now();
        // One that was inherited is there, or the mux ends.
        let waits = shared.upstream.lost_policy() == UpstreamLost::Keep || shared.is_inherited();
        let (state, seat) = match opened {
            Some(OpenedUpstream::Inherited(attempt)) => (State::Connecting(attempt), None),
            Some(OpenedUpstream::Seat(seat)) => (State::Waiting { until: now }, Some(seat)),
            None => (State::Waiting { until: now }, None),
        };
        UpstreamLink {
            registration,
            shared,
            dispatcher,
            early_until: (!waits).then(|| now + EARLY),
            state,
            seat,
            connections: super::random() >> 1,
            began: now,
            pause: FIRST_PAUSE,
            hurried_until: None,
            told: None,
            new_socket: false,
            look_at: None,
            balance: Balance::default(),
            ends_at: None,
        }
    }

    fn step(&mut self, state: State, input: LinkInput, now: Instant) -> Result<State, End> {
        match state {
            State::Waiting { until } if now < until => Ok(State::Waiting { until }),
            State::Waiting { .. } | State::Listening => self.begin(now),
            State::Preparing(prepared) => match prepared.take() {
                None => Ok(State::Preparing(prepared)),
                Some(attempt) => self.connect(Box::new(attempt?), now),
            },
            State::Connecting(attempt) => self.connect(attempt, now),
            State::Greeting { connection, silent_at }
            | State::Negotiating { connection, silent_at } => {
                self.exchange(connection, silent_at, input, now)
            }
            State::Serving { connection } => self.exchange(connection, None, input, now),
            State::Conversing { connection } => self.converse(connection, input, now),
            State::Ended => Ok(State::Ended),
        }
    }

    fn begin(&mut self, now: Instant) -> Result<State, End> {
        self.began = now;
        if let Some(seat) = &self.seat {
            return match seat.take() {
                Some(connection) => self.taken(connection, now),
                None => Ok(State::Listening),
            };
        }
        let upstream = &self.shared.connect;
        if !upstream.is_slow_to_prepare() {
            let attempt = Attempt::prepare(upstream, CONNECT_TIMEOUT)?;
            return self.connect(Box::new(attempt), now);
        }
        let registration = Arc::clone(&self.registration);
        let wake = move || registration.post(Notice::Wake);
        Ok(State::Preparing(Prepared::aside(LOOK_UPS, upstream, CONNECT_TIMEOUT, wake)))
    }

    /// Goes on with a server that has connected, and has greeted and negotiated.
    fn taken(&mut self, mut connection: Box<Connection>, now: Instant) -> Result<State, End> {
        self.new_socket = true;
        self.connections += 1;
        self.connected(&mut connection);
        self.exchange(connection, None, LinkInput::of_turn(), now)
    }

    fn connect(&mut self, mut attempt: Box<Attempt>, now: Instant) -> Result<State, End> {
        let stream = attempt.step(now)?;
        self.new_socket |= attempt.has_new_socket();
        match stream {
            None => Ok(State::Connecting(attempt)),
            Some(stream) => self.made(stream, now),
        }
    }

    /// There is a connection.
    fn made(&mut self, stream: Stream, now: Instant) -> Result<State, End> {
        if let Some(&uid) = self.shared.peer.get() {
            stream.check_peer(uid)?;
        }
        if self.shared.speaks == Speaks::Agent {
            self.connections += 1;
            return self.made_to_agent(stream, now);
        }
        let connection = Box::new(Connection::new(stream, self.connections));
        self.connections += 1;
        self.exchange(connection, Some(now + ANSWER_EXPECTED), LinkInput::of_turn(), now)
    }

    /// There is a connection to the channel of a guest agent: clients can connect as they could to the channel itself, whether
    /// an agent answers or not.
    fn made_to_agent(&mut self, stream: Stream, now: Instant) -> Result<State, End> {
        let channel = &self.shared.connect.address;
        tracing::info!(%channel, "connected to the channel of the guest agent");
        self.told = None;
        self.shared.upstream.connected(false, None);
        self.early_until = None;
        self.set_gate(Gate::Open);
        let connection = Box::new(AgentConnection::new(stream, now));
        self.converse(connection, LinkInput::of_turn(), now)
    }

    /// Passes on what the guest agent sends, and sends what waits.
    fn converse(
        &mut self,
        mut connection: Box<AgentConnection>,
        input: LinkInput,
        now: Instant,
    ) -> Result<State, End> {
        let patience = |command: &str| {
            let said = self.dispatcher.registry().deadline(command);
            said.or(self.shared.answer_within.get().copied()).unwrap_or(ANSWER_WITHIN)
        };
        connection.exchange(&self.shared.upstream, input, now, patience)?;
        Ok(State::Conversing { connection })
    }

    /// Passes on what the server sends, and sends what waits.
    fn exchange(
        &mut self,
        mut connection: Box<Connection>,
        silent_at: Option<Instant>,
        input: LinkInput,
        now: Instant,
    ) -> Result<State, End> {
        let stage = connection.session.stage();
        if let Some(event) = input.event {
            connection.ready(event);
        }
        let received = connection.receive_messages(input.room, |connection, received| {
            self.received(connection, received)
        });
        if let Err(end) = received {
            return Err(End { orderly: connection.ending, ..end });
        }
        self.send(&mut connection, now);
        let next = connection.session.stage();
        let silent_at = match silent_at {
            _ if next != stage => Some(now + ANSWER_EXPECTED),
            Some(at) if at <= now => {
                self.tell_of_silence(&connection);
                None
            }
            silent_at => silent_at,
        };
        Ok(match next {
            Stage::Greeting => State::Greeting { connection, silent_at },
            Stage::Negotiation => State::Negotiating { connection, silent_at },
            _ => State::Serving { connection },
        })
    }

    fn received(
        &mut self,
        connection: &mut Connection,
        received: Received<u64>,
    ) -> Result<(), End> {
        let upstream = &self.shared.upstream;
        match received {
            Received::Greeting(greeting) => connection.greeting = Some(greeting),
            Received::Ready => self.connected(connection),
            // Before the greeting they are left over from the client before.
            Received::Event(_) if connection.session.stage() == Stage::Greeting => {
                self.balance.events += 1;
            }
            Received::Event(event) => {
                self.balance.events += 1;
                connection.note_end(&event);
                self.dispatcher.relay(&event);
            }
            Received::Response { request, result } => {
                self.balance.answers += 1;
                connection.ending |= result.is_ok() && upstream.is_quit(request);
                upstream.answered(request, result);
            }
            // Before negotiation is complete they are left over, too.
            _ if connection.session.stage() == Stage::Ready => {
                return Err(End::broken("it answers what it was not asked"));
            }
            _ => {}
        }
        Ok(())
    }

    fn connected(&mut self, connection: &mut Connection) {
        let Some(greeting) = connection.greeting.take() else { return };
        let server = &self.shared.connect.address;
        tracing::info!(%server, version = %greeting.version, "connected upstream");
        self.told = None;
        let (connected, version) = (Connected::to(&greeting.version), greeting.version.to_string());
        self.dispatcher.set_greeting(greeting);
        let oob = connection.session.has_enabled(&Capability::OOB);
        self.shared.upstream.connected(oob, Some(version));
        self.early_until = None;
        self.set_gate(Gate::Open);
        // Declared, and made of text.
        let _ = self.dispatcher.emit(&UPSTREAM_CONNECTED, &connected);
    }

    fn set_gate(&self, gate: Gate) {
        if let Some(server) = self.shared.server() {
            server.set_gate(gate);
        }
    }

    /// Sends what the server may have now.
    fn send(&self, connection: &mut Connection, now: Instant) {
        if connection.flush() == Written::Some {
            return;
        }
        let upstream = &self.shared.upstream;
        let mut together = 0;
        while connection.session.stage() == Stage::Ready {
            let session = &mut connection.session;
            let window = match session.has_enabled(&Capability::OOB) {
                true => WINDOW_WITH_OOB,
                false => 1,
            };
            let in_band = session.pending_count(Band::InBand) < window;
            let Some((number, text)) = upstream.next(in_band, now) else { break };
            if text.descriptor.is_some() {
                connection.queue(None);
            }
            let arguments = text.arguments.as_ref();
            let session = &mut connection.session;
            match session.request(&text.command, arguments, text.band, number) {
                Ok(()) => {
                    together += text.len();
                    if text.descriptor.is_some() {
                        connection.queue(text.descriptor.clone());
                    }
                }
                // A text within our own limits, and beyond those of the server with the id that was added. It would end
                // the connection for all.
                Err(RequestTooLarge { limit, .. }) => {
                    upstream.answered(number, Err(Error::from(limit)));
                }
            }
            if together > SENT_TOGETHER {
                together = 0;
                if connection.flush() == Written::Some {
                    return;
                }
            }
        }
        connection.flush();
    }

    fn tell_of_silence(&self, connection: &Connection) {
        let server = &self.shared.connect.address;
        let what = match (connection.session.stage(), connection.session.suspect()) {
            (Stage::Greeting, Some(foreign)) => foreign.to_string(),
            (Stage::Greeting, None) => {
                "no greeting from the upstream server; has it another client?".to_owned()
            }
            _ => "the upstream server does not answer qmp_capabilities".to_owned(),
        };
        tracing::warn!(%server, "{what}");
        self.shared.upstream.set_reason(&what);
    }

    /// There is no connection any more, or none has come about.
    fn lost(&mut self, end: End, now: Instant) -> State {
        self.new_socket = true;
        // The next one may come at once, though it has to wait a little.
        self.seat.iter().for_each(|seat| seat.vacate());
        let was_connected = self.shared.upstream.is_connected();
        if was_connected {
            self.tell_clients(&end);
        } else if self.shared.upstream.connections.get() == 0 {
            self.shared.upstream.set_reason(&end.why);
        }
        // The same thing again is not worth a line each time.
        if self.shared.is_inherited() && was_connected {
            tracing::info!(server = %self.shared.connect.address, "the upstream server has ended: {}", end.why);
        } else if self.told.as_ref() != Some(&end) {
            tracing::warn!(server = %self.shared.connect.address, "no upstream server: {}", end.why);
            self.told = Some(end);
        }
        if now.duration_since(self.began) > LONGEST_PAUSE {
            self.pause = FIRST_PAUSE;
        }
        self.hurried_until = self.hurried_until.filter(|&until| now < until && !was_connected);
        if self.hurried_until.is_some() {
            return State::Waiting { until: now + HURRIED_PAUSE };
        }
        let until = now + self.pause;
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        State::Waiting { until }
    }

    fn tell_clients(&self, end: &End) {
        let upstream = &self.shared.upstream;
        let policy = upstream.lost_policy();
        // If it was inherited, there will be no other one to wait for.
        let stay = policy == UpstreamLost::Keep && !(end.orderly || self.shared.is_inherited());
        // First, so that the loop drops what clients have queued before it learns that they are owed nothing.
        match (policy, self.shared.server()) {
            (UpstreamLost::Keep, Some(server)) if !stay => {
                server.disconnect_clients(Whom::Uninformed);
            }
            (UpstreamLost::Keep, _) => {}
            (UpstreamLost::Disconnect | UpstreamLost::Exit, _) => self.set_gate(Gate::Shut),
        }
        upstream.lost(&end.why, |client| stay || client.has_notices());
        if self.shared.speaks == Speaks::Qmp {
            let disconnected = Disconnected { reason: end.why.clone() };
            let _ = self.dispatcher.emit(&UPSTREAM_DISCONNECTED, &disconnected);
        }
        if policy == UpstreamLost::Exit {
            self.shared.lost.store(!end.orderly, Ordering::SeqCst);
            self.shared.shut_down();
        }
    }

    /// Whether nothing more is waited for.
    fn is_to_end(&mut self, now: Instant) -> bool {
        if !self.shared.is_shutting_down() {
            return false;
        }
        let ends_at = *self.ends_at.get_or_insert(now + LAST_ANSWERS);
        now >= ends_at || self.shared.upstream.is_idle()
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.new_socket = true;
        self.shared.upstream.lost("the mux ends", |_| false);
    }

    /// Says once in the log that the server does not answer, and when it answers again.
    fn look_for_hang(&mut self, now: Instant) {
        let mut state = self.shared.upstream.state();
        let oldest = state.oldest().map(|oldest| (oldest, self.shared.patience(&oldest.command)));
        let late_at = oldest.and_then(|(oldest, patience)| oldest.sent.checked_add(patience));
        let hangs = late_at.is_some_and(|at| at <= now);
        // A timer that is too early looks once more: so answers need not set it anew.
        self.look_at = match (self.look_at.filter(|&at| now < at), late_at.filter(|_| !hangs)) {
            (Some(before), at) => at.map_or(Some(before), |at| Some(before.min(at))),
            (None, at) => at,
        };
        if hangs == std::mem::replace(&mut state.hangs, hangs) {
            return;
        }
        let late = state.oldest().filter(|_| hangs);
        let late =
            late.map(|late| (late.command.clone(), now.saturating_duration_since(late.sent)));
        drop(state);
        let server = &self.shared.connect.address;
        match late {
            Some((command, age)) => {
                let seconds = age.as_secs();
                tracing::warn!(%server, command, seconds, "the upstream server hangs: a command is unanswered");
            }
            None => tracing::warn!(%server, "the upstream server answers again"),
        }
    }

    fn next(&mut self, now: Instant) -> LinkNext {
        let at = match &self.state {
            State::Waiting { until } => Some(*until),
            State::Connecting(attempt) => Some(attempt.until()),
            State::Greeting { silent_at, .. } | State::Negotiating { silent_at, .. } => *silent_at,
            State::Serving { .. } => self.shared.upstream.timer(now),
            State::Conversing { connection } => connection.timer(),
            State::Listening | State::Preparing(_) | State::Ended => None,
        };
        let timer =
            at.into_iter().chain(self.ends_at).chain(self.early_until).chain(self.look_at).min();
        let (interest, again) = match &self.state {
            State::Connecting(_) => (Interest::ReadableWritable, false),
            State::Greeting { connection, .. }
            | State::Negotiating { connection, .. }
            | State::Serving { connection } => (connection.interest(), connection.is_readable()),
            State::Conversing { connection } => {
                (connection.wire.interest(), connection.is_readable())
            }
            _ => (Interest::Readable, false),
        };
        LinkNext {
            unasked: false,
            new_socket: std::mem::take(&mut self.new_socket),
            interest,
            timer,
            again,
            ended: matches!(self.state, State::Ended),
        }
    }
}

/// Also if it ends by a panic: nobody waits for an answer that does not come.
impl Drop for UpstreamLink {
    fn drop(&mut self) {
        // No server is given to a mux that has none to look at it.
        self.seat.iter().for_each(|seat| seat.occupy());
        self.shared.upstream.lost("the mux ends", |_| true);
    }
}
