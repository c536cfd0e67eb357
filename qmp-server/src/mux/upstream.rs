// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent to the upstream server, and when.
//!
//! The monitors of clients let one in-band request of each through at a time. Here they stand in line
//! until the server may have one more; the line is a fair queue again. Out-of-band requests do not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use qmp_dispatch::proto::{Band, Error, Json, RequestText};
use qmp_dispatch::{Context, Forwarded, Responder};
use qmp_queue::Queue;

use super::client::{Client, OutOfBand};
use super::link::{Link, Waker};
use super::request::{Request, Then};
use super::table::Table;
use crate::observe::Counter;

/// How many in-band requests a server with out-of-band execution has at a time: the next one is there
/// when it is done with one. Fewer than the eight that it would queue, for then it would stop reading.
const WINDOW_WITH_OOB: usize = 6;

/// So many out-of-band requests of all clients may be unanswered: those of clients that have gone count, too.
const MOST_OUT_OF_BAND: usize = 1024;

/// When the server has left more bytes than these unread, there is no use in overtaking.
const MOST_UNSENT: usize = 1 << 20;

pub(super) struct Upstream {
    /// Boxed, because an idle client keeps the room that they took.
    line: Queue<Box<Request>>,
    state: Mutex<State>,
    pub(super) waker: Waker,
    /// How often there was a connection.
    pub(super) connections: Counter,
}

pub(super) struct State {
    pub(super) connection: Connection,
    /// When that changed.
    pub(super) since: Instant,
    pub(super) table: Table<InFlight>,
    /// Our own requests, which go before all others.
    own: VecDeque<Request>,
    /// A request is in flight that takes a descriptor.
    passing: bool,
    /// Those that wait for it to be answered.
    to_pass: VecDeque<Request>,
}

pub(super) enum Connection {
    /// There is none, and who asks is told why.
    Absent {
        why: String,
    },
    /// The server has ended because it was told to; who asks gets no answer, as from itself.
    Ended,
    Present {
        link: Arc<Link>,
        oob: bool,
    },
}

pub(super) struct InFlight {
    pub(super) command: String,
    pub(super) then: Then,
    pub(super) sent: Instant,
    passes: bool,
    _out_of_band: Option<OutOfBand>,
}

/// A request that cannot be sent, and what its client is told; nothing if it is not to be answered.
type Failed = (Request, Option<Error>);

impl Upstream {
    pub(super) fn new(waker: Waker) -> Upstream {
        let state = State {
            connection: Connection::Absent { why: "not connected yet".to_owned() },
            since: Instant::now(),
            table: Table::new(0),
            own: VecDeque::new(),
            passing: false,
            to_pass: VecDeque::new(),
        };
        let connections = Counter::default();
        Upstream { line: Queue::new(), state: Mutex::new(state), waker, connections }
    }

    pub(super) fn line(&self) -> &Queue<Box<Request>> {
        &self.line
    }

    /// Sends a client's request, or has it wait in line.
    pub(super) fn forward(
        &self,
        context: &Context,
        request: Forwarded,
        responder: Responder<Json>,
    ) {
        let client = context.monitor().local::<Arc<Client>>();
        let request = Request::new(context, request, responder);
        match (request.band, client) {
            (Band::InBand, Some(client)) => {
                client.queue(request);
                self.pump();
            }
            (_, client) => self.send_at_once(request, client.map(|client| client.out_of_band())),
        }
    }

    /// `counted` is `Some(None)` if the client has too many out-of-band requests.
    fn send_at_once(&self, request: Request, counted: Option<Option<OutOfBand>>) {
        if counted.as_ref().is_some_and(Option::is_none) {
            let error = "too many out-of-band commands are unanswered";
            return fail((request, Some(Error::generic(error))));
        }
        let mut state = self.state();
        let failed = match state.obstacle(request.band) {
            Some(error) => Some((request, Some(Error::generic(error)))),
            None => self.send(&mut state, request, counted.flatten()),
        };
        drop(state);
        failed.into_iter().for_each(fail);
    }

    /// Sends what the server may have now. All that waits fails if there is no server.
    pub(super) fn pump(&self) {
        let mut failed = Vec::new();
        let mut state = self.state();
        while state.may_send()
            && let Some(request) = state.next(&self.line)
        {
            // What is not awaited has been answered already, by its deadline.
            let sent = match request.is_awaited() {
                true => self.send(&mut state, request, None),
                false => Some((request, None)),
            };
            failed.extend(sent);
        }
        drop(state);
        failed.into_iter().for_each(fail);
    }

    /// Hands a request to the connection, or back if there is none.
    fn send(
        &self,
        state: &mut State,
        request: Request,
        out_of_band: Option<OutOfBand>,
    ) -> Option<Failed> {
        let link = match &state.connection {
            Connection::Present { link, .. } => Arc::clone(link),
            Connection::Ended => return Some((request, None)),
            Connection::Absent { why } => {
                let command = &request.command;
                let error = format!("The command {command} cannot be sent to the server: {why}");
                return Some((request, Some(Error::generic(error))));
            }
        };
        let passes = request.takes_descriptor();
        state.passing |= passes;
        let Request { command, arguments, band, descriptor, then } = request;
        let in_flight = InFlight {
            command: command.clone(),
            then,
            sent: Instant::now(),
            passes,
            _out_of_band: out_of_band,
        };
        let id = state.table.insert(band, in_flight);
        let mut text = String::with_capacity(128);
        let request = RequestText { command: &command, arguments: arguments.as_ref(), id, band };
        request.write(&mut text);
        if !link.send(text, descriptor) {
            self.waker.wake();
        }
        None
    }

    /// Whether this request would end the server.
    pub(super) fn is_quit(&self, id: u64) -> bool {
        self.state().table.get(id).is_some_and(|in_flight| in_flight.command == "quit")
    }

    /// The server has answered a request of ours. `None` if there is none of this id.
    pub(super) fn answered(&self, id: u64, result: Result<Json, Error>) -> Option<()> {
        let in_flight = self.state().table.take(id)?;
        let next = in_flight.then.answered(result);
        if in_flight.passes || !next.is_empty() {
            let mut state = self.state();
            state.passing = false;
            // A probe goes before everything that waits to pass another descriptor.
            state.own.extend(next);
        }
        self.pump();
        Some(())
    }

    /// There is a server to send requests to, by a connection of this number.
    pub(super) fn connected(&self, link: Arc<Link>, oob: bool, connection: u64) {
        self.connections.count();
        let mut state = self.state();
        state.table = Table::new(connection);
        state.connection = Connection::Present { link, oob };
        state.since = Instant::now();
        drop(state);
        self.pump();
    }

    /// There is none any more. Who waits for an answer is told so, or gets none if the server has
    /// `ended` as it was told.
    pub(super) fn lost(&self, why: &str, ended: bool) {
        let mut state = self.state();
        if matches!(state.connection, Connection::Present { .. }) {
            state.since = Instant::now();
        }
        state.connection = match ended {
            true => Connection::Ended,
            false => Connection::Absent { why: why.to_owned() },
        };
        let in_flight = state.table.take_all();
        state.passing = false;
        state.own.clear();
        drop(state);
        for InFlight { command, then, .. } in in_flight {
            let error = format!("The command {command} was sent and not answered: {why}");
            settle(then, (!ended).then(|| Error::generic(error)));
        }
        self.pump();
    }

    /// Clients that have got no answers are gone, and others may have come.
    pub(super) fn forget_end(&self, why: &str) {
        let mut state = self.state();
        if matches!(state.connection, Connection::Ended) {
            state.connection = Connection::Absent { why: why.to_owned() };
        }
    }

    /// Closes descriptors that the server has by these names, if it still has them.
    pub(super) fn close_descriptors(&self, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        let mut state = self.state();
        if matches!(state.connection, Connection::Present { .. }) {
            state.own.extend(names.iter().map(|name| Request::close(name)));
        }
        drop(state);
        self.pump();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Why a request cannot be sent at once.
    fn obstacle(&self, band: Band) -> Option<&'static str> {
        match &self.connection {
            Connection::Present { oob: false, .. } if band == Band::OutOfBand => {
                Some("the upstream server does not offer out-of-band execution any more")
            }
            Connection::Present { link, .. }
                if self.table.out_of_band() >= MOST_OUT_OF_BAND || link.unsent() > MOST_UNSENT =>
            {
                Some("the upstream server does not take any more out-of-band commands")
            }
            _ => None,
        }
    }

    fn may_send(&self) -> bool {
        match &self.connection {
            Connection::Present { oob: true, .. } => self.table.in_band() < WINDOW_WITH_OOB,
            Connection::Present { oob: false, .. } => self.table.in_band() == 0,
            Connection::Absent { .. } | Connection::Ended => true,
        }
    }

    /// The next in-band request that may be sent.
    fn next(&mut self, line: &Queue<Box<Request>>) -> Option<Request> {
        if let Some(own) = self.own.pop_front() {
            return Some(own);
        }
        if !self.passing
            && let Some(next) = self.to_pass.pop_front()
        {
            return Some(next);
        }
        loop {
            let request = *line.try_pop()?.item;
            if !self.passing || !request.takes_descriptor() {
                return Some(request);
            }
            self.to_pass.push_back(request);
        }
    }
}

fn fail((request, error): Failed) {
    settle(request.then, error);
}

/// Tells a client that there is no answer, or lets it go without.
fn settle(then: Then, error: Option<Error>) {
    match (then.into_responder(), error) {
        (Some(responder), _) if !responder.is_awaited() => drop(responder),
        (Some(responder), Some(error)) => responder.respond_json(Err(error)),
        (Some(responder), None) => responder.abandon(),
        (None, _) => {}
    }
}
