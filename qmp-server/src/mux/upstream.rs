// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent to the upstream server, and when.
//!
//! The monitors of clients let one in-band request of each through at a time. Here they stand in line
//! until the server may have one more; the line is a fair queue again. A long one whose turn comes may be held at its user's
//! [pace](super::pace), and one with a descriptor until no other is on its way. Out-of-band requests do not stand in line.
//!
//! Any thread adds requests and takes back those of clients that have left; the [link](super::link) alone takes them out
//! to send them. No foreign code is called with the state locked.

use std::collections::{BTreeMap, VecDeque};
use std::mem::take;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::{Band, Error, Json};
use qmp_dispatch::{Context, Forwarded, Responder};
use qmp_queue::Queue;

use super::lost::UpstreamLost;
use super::names::Names;
use super::pace::Pace;
use super::request::{After, InFlight, MuxClient, Request, RequestText};
use super::returned::{Again, Returned};
use super::urgent::Urgent;
use crate::introspected::{self, Introspected};
use crate::io::{Notice, Owner, Registration};
use crate::observe::Counter;

/// No in-band request is sent while more bytes of such than this are in flight. QEMU takes some ten microseconds for each, and a
/// request that comes now has to wait for them.
const MOST_BYTES: usize = 512;

/// How long after a request that takes a descriptor nothing is sent, if that is not answered before. QEMU 10.0 was seen to
/// crash in its own reading of descriptors when other requests came in that moment. A server that reads has read the
/// descriptor long before a second is over; if it has not answered by then, its main loop hangs, and out-of-band requests are
/// the help against that.
const DESCRIPTOR_READ_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Upstream {
    /// In-band requests. Boxed, because an idle client keeps the room that they took.
    line: Queue<Box<Request>>,
    state: Mutex<Traffic>,
    /// Nothing of `Traffic::passing` and `Traffic::own` is left.
    pub(super) settled: Condvar,
    /// Of the link.
    registration: OnceLock<Arc<Registration>>,
    /// The link has been woken, and has not looked since.
    woken: AtomicBool,
    /// How often there was a connection.
    pub(super) connections: Counter,
    /// Names of descriptors of all clients.
    pub(super) names: Arc<AtomicUsize>,
    /// What becomes of clients when the server is lost, if it has been said.
    lost_policy: OnceLock<UpstreamLost>,
}

pub(super) struct Traffic {
    pub(super) connection: Presence,
    /// When that changed.
    pub(super) since: Instant,
    /// Of the server that there is a connection to, or was last.
    pub(super) version: Option<String>,
    /// By their numbers, which are in the order in which they were sent.
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    /// The log has said that the server hangs, and it has not answered since.
    pub(super) hangs: bool,
    /// How many requests were sent.
    pub(super) sent: u64,
    /// How many of those in flight are out-of-band.
    pub(super) out_of_band: usize,
    /// Out-of-band requests, which go before all others.
    pub(super) urgent: Urgent,
    /// What must be done about a descriptor before another one is passed.
    pub(super) own: Option<Request>,
    /// When the request was sent that takes a descriptor and is in flight, if one is.
    pub(super) passing: Option<Instant>,
    /// Those that wait for it to be answered, by their numbers.
    pub(super) to_pass: BTreeMap<u64, Request>,
    /// What is long, and the debts that it makes.
    pub(super) pace: Pace<Request>,
    /// The last request that was sent in turn had been held there: those that have not been go next.
    was_held: bool,
    /// How many requests were set aside, in `to_pass` and `pace`: at most one of each client is there.
    aside: u64,
    /// Bytes of the in-band ones in flight.
    pub(super) bytes: usize,
    /// No descriptor is passed: another program is about to take over.
    pub(super) holding: bool,
    /// What another program has handed over, until the clients' requests have come again.
    pub(super) returned: Returned,
    /// What the server has answered to `query-commands` and `query-qmp-schema`, which does not change while it is
    /// connected.
    introspected: [Option<Arc<Json>>; 2],
    /// Clients of a guest agent that synchronise with the mux, which answers while the agent does. At most one of each client.
    pub(super) synchronisations: Vec<(Arc<MuxClient>, i64, Responder<i64>)>,
    /// In-band requests that the link answers with that, and those of clients that may have an out-of-band request
    /// unanswered, which was sent before. Both have at most one of each client.
    pub(super) known: VecDeque<(Request, Arc<Json>)>,
    pub(super) behind: Vec<(Request, Arc<Json>)>,
}

/// As those see it who have a request.
pub(super) enum Presence {
    /// There is none, and who asks is told why.
    Absent {
        why: String,
    },
    Present {
        oob: bool,
    },
}

/// A request that will not be sent, and what its client is told, if anything.
type RefusedRequest = Box<(Request, Option<Error>)>;

impl Upstream {
    /// In front of a server to which long requests are sent at this pace.
    pub(super) fn new(pace: Pace<Request>) -> Upstream {
        let state = Traffic {
            connection: Presence::Absent { why: "not connected yet".to_owned() },
            version: None,
            since: Instant::now(),
            in_flight: BTreeMap::new(),
            hangs: false,
            sent: 0,
            out_of_band: 0,
            urgent: Urgent::default(),
            own: None,
            passing: None,
            to_pass: BTreeMap::new(),
            pace,
            was_held: false,
            aside: 0,
            bytes: 0,
            holding: false,
            returned: Returned::default(),
            introspected: [None, None],
            synchronisations: Vec::new(),
            known: VecDeque::new(),
            behind: Vec::new(),
        };
        Upstream {
            line: Queue::new(),
            state: Mutex::new(state),
            settled: Condvar::new(),
            registration: OnceLock::new(),
            woken: AtomicBool::new(false),
            connections: Counter::default(),
            names: Arc::default(),
            lost_policy: OnceLock::new(),
        }
    }

    pub(super) fn set_lost_policy(&self, policy: UpstreamLost) {
        let _ = self.lost_policy.set(policy);
    }

    pub(super) fn lost_policy(&self) -> UpstreamLost {
        self.lost_policy.get().copied().unwrap_or_default()
    }

    /// A client whose requests are sent in turn with those of other users.
    pub(super) fn new_client(&self, user: Owner, names: Names) -> MuxClient {
        MuxClient::new(&self.line, self.connections.get(), user, names)
    }

    pub(super) fn line(&self) -> &Queue<Box<Request>> {
        &self.line
    }

    /// Names the link. `false` if there is one already.
    pub(super) fn set_link(&self, registration: Arc<Registration>) -> bool {
        self.registration.set(registration).is_ok()
    }

    /// Makes the link look at what is to be done.
    pub(super) fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst)
            && let Some(registration) = self.registration.get()
        {
            registration.post(Notice::Wake);
        }
    }

    /// The link is about to look: what comes from now on wakes it again.
    pub(super) fn awake(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    /// Lets a client's request wait until it is sent, or until the link answers it with what is known, or refuses it.
    pub(super) fn forward(
        &self,
        context: &Context,
        request: Forwarded,
        responder: Responder<Json>,
    ) {
        let Some(MuxLocal { client, .. }) = context.monitor().local::<MuxLocal>() else {
            let error = Error::generic("the monitor is not one of this mux");
            return responder.respond_json(Err(error));
        };
        let made = match request.mark {
            None => Request::new(context, request, responder, client),
            Some(mark) => match self.again(mark, &request.command) {
                Again::Unsent(unsent) => {
                    Ok(Request::again(context, request, responder, client, unsent))
                }
                Again::Sent(number) => return self.attach(number, responder),
                Again::Unknown(error) => Err((responder, error)),
            },
        };
        let request = match made {
            Ok(request) => request,
            Err((responder, error)) => return responder.respond_json(Err(error)),
        };
        if let Err(refused) = self.admit(client, request) {
            let (request, error) = *refused;
            request.after.fail(error);
            // It may have been counted, and a known answer have waited for it.
            return self.wake();
        }
        if client.is_gone() {
            self.drop_requests(client);
        }
        self.wake();
    }

    fn admit(&self, client: &Arc<MuxClient>, mut request: Request) -> Result<(), RefusedRequest> {
        let mut state = self.state();
        // Clients that go with the connection are about to be disconnected. The next one is not for them.
        let goes = self.lost_policy() != UpstreamLost::Keep && !client.has_notices();
        let oob = match &state.connection {
            Presence::Present { .. }
                if goes && !client.is_of_connection(self.connections.get()) =>
            {
                return Err(Box::new((request, None)));
            }
            Presence::Present { oob } => *oob,
            Presence::Absent { why } => {
                let error = (!goes).then(|| cannot_be_sent(&request.text.command, why));
                return Err(Box::new((request, error)));
            }
        };
        let known = request.after.introspected();
        if let Some(result) = known.and_then(|result| state.introspected[result as usize].clone()) {
            // One that waits already has passed its deadline.
            let overdue = state.behind.iter().position(|(other, _)| other.is_of(client));
            let overdue = overdue.map(|index| state.behind.swap_remove(index));
            state.behind.push((request, result));
            drop(state);
            drop(overdue);
            return Ok(());
        }
        if request.text.band == Band::InBand {
            // What it has waiting already has passed its deadline.
            let overdue = (client.queue(request), state.take_aside(client));
            drop(state);
            drop(overdue);
            return Ok(());
        }
        request.after.out_of_band = client.out_of_band();
        let error = if request.after.out_of_band.is_none() {
            "too many out-of-band commands are unanswered"
        } else if !oob {
            "the upstream server does not offer out-of-band execution any more"
        } else if !state.urgent.has_room(state.out_of_band) {
            "the upstream server does not take any more out-of-band commands"
        } else {
            state.urgent.push(request);
            return Ok(());
        };
        Err(Box::new((request, Some(Error::generic(error)))))
    }

    /// Lets a client of a guest agent wait until the agent is known to answer.
    pub(super) fn synchronise(&self, context: &Context, id: i64, responder: Responder<i64>) {
        let Some(MuxLocal { client, .. }) = context.monitor().local::<MuxLocal>() else {
            let error = Error::generic("the monitor is not one of this mux");
            return responder.respond(Err::<i64, _>(error));
        };
        let mut state = self.state();
        if let Presence::Absent { why } = &state.connection {
            let is_told = self.lost_policy() == UpstreamLost::Keep || client.has_notices();
            let error = is_told.then(|| cannot_be_sent("guest-sync", why));
            drop(state);
            return refuse(responder, error);
        }
        let of_client =
            |(of, ..): &mut (Arc<MuxClient>, i64, Responder<i64>)| Arc::ptr_eq(of, client);
        // One that waits already has passed its deadline.
        let overdue: Vec<_> = state.synchronisations.extract_if(.., of_client).collect();
        state.synchronisations.push((Arc::clone(client), id, responder));
        drop(state);
        overdue.into_iter().for_each(|(.., responder)| responder.abandon());
        if client.is_gone() {
            self.drop_requests(client);
        }
        self.wake();
    }

    /// Answers the clients that synchronise: the guest agent answers.
    pub(super) fn answer_synchronisations(&self) {
        let synchronisations = take(&mut self.state().synchronisations);
        for (_, id, responder) in synchronisations {
            responder.respond(Ok::<_, Error>(id));
        }
    }

    /// Whether anybody waits for the guest agent to answer.
    pub(super) fn is_waited_for(&self) -> bool {
        let state = self.state();
        !state.synchronisations.is_empty() || self.queued(&state) > 0
    }

    /// Refuses all that waits for being sent to the guest agent. Returns whether anything was.
    pub(super) fn refuse_waiting(&self, why: &str) -> bool {
        let mut state = self.state();
        let synchronisations = take(&mut state.synchronisations);
        let held = state.pace.take_all();
        drop(state);
        let line = std::iter::from_fn(|| Some(*self.line.try_pop()?.item));
        let waiting: Vec<_> = held.chain(line).collect();
        let any = !synchronisations.is_empty() || !waiting.is_empty();
        for (_, _, responder) in synchronisations {
            refuse(responder, Some(cannot_be_sent("guest-sync", why)));
        }
        for request in waiting {
            let error = cannot_be_sent(&request.text.command, why);
            request.after.fail(Some(error));
        }
        any
    }

    /// Notes whether the guest agent does not answer.
    pub(super) fn set_hangs(&self, hangs: bool) {
        self.state().hangs = hangs;
    }

    /// The name of the command that is in flight under this number.
    pub(super) fn name_in_flight(&self, number: u64) -> String {
        let state = self.state();
        state.in_flight.get(&number).map(|flight| flight.command.clone()).unwrap_or_default()
    }

    /// What was sent under this number is not answered: its client is told this, or nothing because that is how the command
    /// succeeds.
    pub(super) fn unanswered(&self, number: u64, error: Option<Error>) {
        let mut state = self.state();
        let Some(InFlight { after, bytes, returns, .. }) = state.in_flight.remove(&number) else {
            return;
        };
        state.bytes -= bytes;
        if let (true, None, Some(error)) = (returns, &after.asker, &error) {
            state.returned.answers.insert(number, (after, Err(error.clone())));
            return;
        }
        drop(state);
        after.fail(error);
    }

    /// Takes the next request that may be sent now, and counts it as sent. `in_band` says whether it may be an in-band one.
    pub(super) fn next(&self, in_band: bool, now: Instant) -> Option<(u64, RequestText)> {
        let mut unwanted = Vec::new();
        let mut state = self.state();
        let in_band = in_band && state.bytes < MOST_BYTES;
        let next = loop {
            match state.next(&self.line, in_band, now) {
                // Its client waits no more, or has left.
                Some(request) if !request.is_wanted() => unwanted.push((request, None)),
                Some(request) if state.is_refused(&request, now) => {
                    let command = &request.text.command;
                    let error = format!(
                        "The command {command} is too long to be sent out-of-band so soon after other long ones of the same user"
                    );
                    unwanted.push((request, Some(Error::generic(error))));
                }
                next => break next,
            }
        };
        let sent = next.map(|Request { text, after }| {
            let number = state.sent;
            state.sent += 1;
            state.passing = after.takes_descriptor().then_some(now).or(state.passing);
            state.out_of_band += usize::from(text.band == Band::OutOfBand);
            state.bytes += text.in_band_bytes();
            if let Some(client) = &after.client {
                state.pace.sent(client.user, text.len(), now);
            }
            state.in_flight.insert(number, InFlight::new(&text, after));
            (number, text)
        });
        if state.holding {
            self.settled.notify_all();
        }
        drop(state);
        unwanted.into_iter().for_each(|(request, error)| request.after.fail(error));
        sent
    }

    /// Answers a request with what is known, if the link has its turn. Returns whether there are more.
    ///
    /// Called by the link, as for any answer: the client's next requests are read meanwhile, as if the server had been
    /// asked.
    pub(super) fn answer_known(&self, turn: bool) -> bool {
        let mut state = self.state();
        let waits = |(request, _): &(Request, _)| {
            request.after.client.as_ref().is_some_and(|client| client.has_out_of_band())
        };
        let (behind, ready): (Vec<_>, Vec<_>) =
            take(&mut state.behind).into_iter().partition(waits);
        state.behind = behind;
        state.known.extend(ready);
        // One in a turn: it may be a quarter of a MiB.
        let answer = turn.then(|| state.known.pop_front()).flatten();
        let more = !state.known.is_empty();
        drop(state);
        if let Some((request, result)) = answer {
            match request.is_wanted() {
                true => drop(request.after.answered(Ok(Json::clone(&result)))),
                false => request.after.fail(None),
            }
        }
        more
    }

    /// The command that is in flight under this number.
    pub(super) fn is_quit(&self, number: u64) -> bool {
        self.state().in_flight.get(&number).is_some_and(|in_flight| in_flight.command == "quit")
    }

    /// The server has answered, or will not be asked.
    pub(super) fn answered(&self, number: u64, result: Result<Json, Error>) {
        let mut state = self.state();
        let Some(InFlight { after, bytes, returns, .. }) = state.in_flight.remove(&number) else {
            return;
        };
        state.out_of_band -= usize::from(after.out_of_band.is_some());
        state.bytes -= bytes;
        if returns && after.asker.is_none() {
            state.returned.answers.insert(number, (after, result));
            return;
        }
        drop(state);
        if let (Some(introspected), Ok(json)) = (after.introspected(), &result) {
            self.keep(introspected, json);
        }
        self.pass_on(after, result);
    }

    /// Passes an answer on, and has done what follows from it.
    pub(super) fn pass_on(&self, after: After, result: Result<Json, Error>) {
        let passes = after.takes_descriptor();
        let left = after.names_to_close();
        let next = after.answered(result);
        if passes || next.as_ref().is_some_and(Request::takes_descriptor) {
            let mut state = self.state();
            state.passing = None;
            state.own = next;
            self.settled.notify_all();
        } else if let Some(close) = next
            && let Some(client) = close.after.client.clone()
        {
            client.queue_own(close);
        }
        if let Some(client) = left {
            self.close_names(&client);
        }
    }

    /// Keeps a result of the current connection: only the link, which calls this, ends a connection.
    fn keep(&self, introspected: Introspected, result: &Json) {
        if self.state().introspected[introspected as usize].is_none() {
            let kept = introspected::kept(result);
            self.state().introspected[introspected as usize] = kept;
        }
    }

    /// There is a server of this version to send requests to.
    pub(super) fn connected(&self, oob: bool, version: Option<String>) {
        let mut state = self.state();
        self.connections.count();
        state.version = version;
        state.connection = Presence::Present { oob };
        state.since = Instant::now();
    }

    /// There is none any more. Of those who wait for an answer, the clients that `is_told` names are told so, and others
    /// get none.
    pub(super) fn lost(&self, why: &str, is_told: impl Fn(&MuxClient) -> bool) {
        let mut state = self.state();
        if matches!(state.connection, Presence::Present { .. }) {
            state.since = Instant::now();
        }
        state.connection = Presence::Absent { why: why.to_owned() };
        let in_flight = take(&mut state.in_flight);
        (state.out_of_band, state.passing) = (0, None);
        state.bytes = 0;
        self.settled.notify_all();
        state.introspected = [None, None];
        state.hangs = false;
        let mut waiting: Vec<Request> = state.own.take().into_iter().collect();
        waiting.extend(take(&mut state.to_pass).into_values());
        waiting.extend(state.pace.take_all());
        waiting.extend(state.urgent.take());
        waiting.extend(state.take_known(|_| true));
        let synchronisations = take(&mut state.synchronisations);
        // With the state locked, so that no request is added to the line between the two.
        waiting.extend(std::iter::from_fn(|| Some(*self.line.try_pop()?.item)));
        drop(state);
        for (client, _, responder) in synchronisations {
            let error = is_told(&client).then(|| cannot_be_sent("guest-sync", why));
            refuse(responder, error);
        }
        let is_told = |after: &After| after.client.as_deref().is_some_and(&is_told);
        for InFlight { command, after, .. } in in_flight.into_values() {
            let error = format!("The command {command} was sent and not answered: {why}");
            let error = is_told(&after).then(|| Error::generic(error));
            after.fail(error);
        }
        for Request { text, after } in waiting {
            let error = is_told(&after).then(|| cannot_be_sent(&text.command, why));
            after.fail(error);
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state().connection, Presence::Present { .. })
    }

    /// Says why there is no connection, if there is none.
    pub(super) fn set_reason(&self, why: &str) {
        if let Presence::Absent { why: reason } = &mut self.state().connection {
            why.clone_into(reason);
        }
    }

    /// Whether nothing waits or is in flight.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        let known = state.known.len() + state.behind.len() + state.synchronisations.len();
        state.in_flight.is_empty() && self.queued(&state) + known == 0
    }

    /// How many requests wait for being sent.
    pub(super) fn queued(&self, state: &Traffic) -> usize {
        self.line.len() + state.urgent.len() + state.to_pass.len() + state.pace.len()
    }

    /// When the next request may be sent, if time alone decides that.
    pub(super) fn timer(&self, now: Instant) -> Option<Instant> {
        let state = self.state();
        match state.descriptor_read_at(now) {
            Some(at) => (self.queued(&state) > 0 || state.own.is_some()).then_some(at),
            None => state.pace.timer(now),
        }
    }

    /// A client has left: what it has asked is not sent any more, or not answered, and its names are closed.
    pub(super) fn leave(&self, client: &Arc<MuxClient>) {
        if client.set_gone() {
            return;
        }
        self.drop_requests(client);
        self.close_names(client);
    }

    /// Lets go of all that a client that has left waits for.
    fn drop_requests(&self, client: &Arc<MuxClient>) {
        let mut state = self.state();
        let of_client = |in_flight: &mut InFlight| {
            let is_its = |of: &Arc<MuxClient>| Arc::ptr_eq(of, client);
            let its = in_flight.after.client.as_ref().is_some_and(is_its);
            if its { in_flight.after.asker.take() } else { None }
        };
        let askers: Vec<_> = state.in_flight.values_mut().filter_map(of_client).collect();
        let is_its = |request: &Request| request.after.asker.is_some() && request.is_of(client);
        let urgent = state.urgent.take_those_of(client);
        let aside = state.take_aside(client);
        let known = state.take_known(is_its);
        let line = client.clear();
        let returned = state.returned.drop_those_of(client);
        let of_client =
            |(of, ..): &mut (Arc<MuxClient>, i64, Responder<i64>)| Arc::ptr_eq(of, client);
        let synchronisations: Vec<_> = state.synchronisations.extract_if(.., of_client).collect();
        drop((state, returned));
        synchronisations.into_iter().for_each(|(.., responder)| responder.abandon());
        askers.into_iter().for_each(|asker| asker.fail(None));
        let waiting = urgent
            .into_iter()
            .chain(aside)
            .chain(known)
            .chain(line.into_iter().map(|boxed| *boxed));
        waiting.for_each(|request| request.after.fail(None));
    }

    /// Closes the descriptors that a client has left behind, in its own turns.
    fn close_names(&self, client: &Arc<MuxClient>) {
        if self.is_connected()
            && let Some(close) = Request::close_all(client, client.names.all())
        {
            client.queue_own(close);
            self.wake();
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Traffic> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a request with an error, or without an answer.
fn refuse(responder: Responder<i64>, error: Option<Error>) {
    match error {
        Some(error) => responder.respond(Err::<i64, _>(error)),
        None => responder.abandon(),
    }
}

fn cannot_be_sent(command: &str, why: &str) -> Error {
    Error::generic(format!("The command {command} cannot be sent to the server: {why}"))
}

/// A [local](qmp_dispatch::Monitor::local) of every monitor of a mux: its client, which has left at the latest when this
/// is dropped.
pub(super) struct MuxLocal {
    pub(super) client: Arc<MuxClient>,
    upstream: Arc<Upstream>,
}

impl MuxLocal {
    pub(super) fn new(client: &Arc<MuxClient>, upstream: &Arc<Upstream>) -> MuxLocal {
        MuxLocal { client: Arc::clone(client), upstream: Arc::clone(upstream) }
    }
}

impl Drop for MuxLocal {
    fn drop(&mut self) {
        self.upstream.leave(&self.client);
    }
}

impl Traffic {
    /// The request that has been unanswered for longest.
    pub(super) fn oldest(&self) -> Option<&InFlight> {
        self.in_flight.values().next()
    }

    /// Takes those of these requests back that would be answered with what is known.
    fn take_known(&mut self, is_wanted: impl Fn(&Request) -> bool) -> Vec<Request> {
        let all = self.known.drain(..).chain(self.behind.drain(..));
        let (taken, kept): (Vec<_>, Vec<_>) = all.partition(|(request, _)| is_wanted(request));
        self.behind = kept;
        taken.into_iter().map(|(request, _)| request).collect()
    }

    /// The next request that may be sent.
    fn next(&mut self, line: &Queue<Box<Request>>, in_band: bool, now: Instant) -> Option<Request> {
        if self.descriptor_read_at(now).is_some() {
            return None;
        }
        if let Some(urgent) = self.urgent.pop() {
            return Some(urgent);
        }
        if !in_band {
            return None;
        }
        if let Some(own) = self.own.take() {
            return Some(own);
        }
        let passes = self.passing.is_none() && !self.holding;
        if passes && let Some((_, next)) = self.to_pass.pop_first() {
            return Some(next);
        }
        loop {
            let request = self.next_in_turn(line, now)?;
            if passes || !request.takes_descriptor() {
                return Some(request);
            }
            let number = self.set_aside(&request);
            self.to_pass.insert(number, request);
        }
    }

    /// The request whose turn it is. Those that were held and others come alternately: so who was held is not in front of
    /// those who were not.
    fn next_in_turn(&mut self, line: &Queue<Box<Request>>, now: Instant) -> Option<Request> {
        if !std::mem::replace(&mut self.was_held, false)
            && let Some(request) = self.pace.next(now)
        {
            self.was_held = true;
            return Some(request);
        }
        while let Some(popped) = line.try_pop() {
            let request = *popped.item;
            match self.user_to_hold(&request, now) {
                Some(user) => {
                    let number = self.set_aside(&request);
                    self.pace.hold(user, number, request, now);
                }
                None => return Some(request),
            }
        }
        self.pace.next(now)
    }

    /// The user whose debt a request has to wait for, if one has.
    fn user_to_hold(&self, request: &Request, now: Instant) -> Option<Owner> {
        // Not our own, which close what a client has left: that is not to stay longer because of a debt.
        let client = request.after.client.as_ref().filter(|_| !request.is_own())?;
        self.pace.is_too_soon(client.user, request.text.len(), now).then_some(client.user)
    }

    /// Whether an out-of-band request is refused because of its length, as it would go before all others.
    fn is_refused(&self, request: &Request, now: Instant) -> bool {
        request.text.band == Band::OutOfBand && self.user_to_hold(request, now).is_some()
    }

    /// A number for a client's request that is about to be set aside, by which it is [found](Traffic::take_aside).
    fn set_aside(&mut self, request: &Request) -> u64 {
        self.aside += 1;
        request.after.client.iter().for_each(|client| client.set_aside(self.aside));
        self.aside
    }

    /// Takes the request of a client that was set aside, if it still is.
    fn take_aside(&mut self, client: &MuxClient) -> Option<Request> {
        let number = client.aside();
        self.pace.take(client.user, number).or_else(|| self.to_pass.remove(&number))
    }

    /// Until when nothing is sent because of a request that takes a descriptor, if that is so.
    fn descriptor_read_at(&self, now: Instant) -> Option<Instant> {
        self.passing.map(|sent| sent + DESCRIPTOR_READ_WITHIN).filter(|&at| now < at)
    }
}

#[cfg(test)]
mod tests;
