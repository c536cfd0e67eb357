// SPDX-License-Identifier: MIT OR Apache-2.0
//! A mux as data and descriptors, for another program that goes on with it.
//!
//! Requests of clients that the upstream server has been sent stay in its table of ids. What a client waits for is received
//! [again](qmp_dispatch::Monitor::receive_again) there with a mark, by which its request finds what was sent for it, or what
//! was made of it and not sent. An answer that comes before its request does waits for it.

mod package;

use std::collections::HashMap;
use std::io;
use std::mem::take;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::{
    Band, Bands, Dialect, Error, ErrorClass, Greeting, Json, Limits, Object, Reader, Request, Value,
};
use qmp_dispatch::{Locals, RequestState, Responder};
use serde::{Deserialize, Serialize};

pub(super) use self::package::MuxHandover;
pub use self::package::{Frozen, Handover};
use super::agent::AgentConnectionState;
use super::connection::ConnectionState;
use super::names::Names;
use super::request::{
    After, Asker, InFlight, MuxClient, Request as MuxRequest, Then, UnsentRequest,
};
use super::returned::Again;
use super::upstream::{MuxLocal, Presence, Traffic, Upstream};
use super::{Shared, Speaks};
use crate::access::owner_of;
use crate::engine::{Freezing, Returning, ServerState};
use crate::session::SessionState;
use crate::transport::{Luggage, Packing, Peer};

/// A mux as data.
#[derive(Serialize, Deserialize)]
pub(crate) struct MuxState {
    pub(super) name: Option<String>,
    /// Of the upstream server.
    pub(super) address: String,
    /// `None` if there was none of an upstream server yet.
    pub(super) greeting: Option<Greeting>,
    #[serde(default)]
    pub(super) server: ServerState,
    /// How many connections there have been, from a random number on.
    pub(super) connections: u64,
    pub(super) connection: Option<ConnectionState>,
    /// Whether it is that of a guest agent, and the connection to that.
    #[serde(default)]
    pub(super) is_agent: bool,
    #[serde(default)]
    pub(super) agent: Option<AgentConnectionState>,
    pub(super) upstream: UpstreamState,
}

#[derive(Serialize, Deserialize)]
pub(super) struct UpstreamState {
    /// Why there is no connection, if there is none.
    absent: Option<String>,
    oob: bool,
    since: Duration,
    connections: u64,
    sent: u64,
    in_flight: Vec<InFlightState>,
    /// By their marks.
    unsent: Vec<(u64, UnsentState)>,
    answers: Vec<AnswerState>,
    /// How many requests were marked that were not sent.
    marked: u64,
    clients: Vec<ClientState>,
}

#[derive(Serialize, Deserialize)]
struct InFlightState {
    number: u64,
    command: String,
    sent: Duration,
    bytes: usize,
    out_of_band: bool,
    /// Its place in `UpstreamState::clients`.
    client: Option<usize>,
    then: Then,
    /// The client waits for the answer.
    awaited: bool,
}

#[derive(Serialize, Deserialize)]
struct UnsentState {
    /// The request with its arguments, as one line.
    line: String,
    then: Then,
    descriptor: Option<u32>,
    client: Option<usize>,
}

/// An answer that has come before its request came again.
#[derive(Serialize, Deserialize)]
struct AnswerState {
    number: u64,
    then: Then,
    client: Option<usize>,
    /// A text, or an error.
    result: Result<String, (ErrorClass, String)>,
}

#[derive(Serialize, Deserialize)]
struct ClientState {
    /// `None` if it has left.
    monitor: Option<u64>,
    user: String,
    prefix: String,
    names: Vec<String>,
}

/// The clients of a mux while it is frozen, each once.
#[derive(Default)]
struct Clients {
    states: Vec<ClientState>,
    places: HashMap<usize, usize>,
}

impl Clients {
    fn place(&mut self, client: &Arc<MuxClient>) -> usize {
        *self.places.entry(Arc::as_ptr(client).addr()).or_insert_with(|| {
            self.states.push(ClientState {
                monitor: None,
                user: String::new(),
                prefix: client.names.prefix().to_owned(),
                names: client.names.all(),
            });
            self.states.len() - 1
        })
    }
}

/// Requests of each monitor, in-band ones and out-of-band ones.
type Requests = HashMap<u64, Vec<RequestState>>;

impl Upstream {
    /// Passes no descriptors from now on, so that none is on its way. Returns whether that was so before this time.
    pub(super) fn hold(&self, until: Instant) -> bool {
        let mut state = self.state();
        state.holding = true;
        let passes = |state: &mut Traffic| state.passing.is_some() || state.own.is_some();
        let at_most = until.saturating_duration_since(Instant::now());
        let waited = self.settled.wait_timeout_while(state, at_most, passes);
        waited.is_ok_and(|(mut state, _)| !passes(&mut state))
    }

    /// Passes descriptors again.
    pub(super) fn release(&self) {
        self.state().holding = false;
        self.wake();
    }

    /// The state with the requests that clients wait for.
    fn freeze(
        &self,
        monitors: &HashMap<usize, MonitorOf>,
        packing: &mut Packing,
    ) -> io::Result<(UpstreamState, Requests)> {
        let state = self.state();
        let mut clients = Clients::default();
        for MonitorOf { client, .. } in monitors.values() {
            if !client.names.is_empty() {
                clients.place(client);
            }
        }
        let mut requests = Requests::new();
        let mut wait = |client: &Arc<MuxClient>, request: RequestState| {
            if let Some(MonitorOf { id, .. }) = monitors.get(&Arc::as_ptr(client).addr()) {
                requests.entry(*id).or_default().push(request);
            }
        };
        let mut in_flight = Vec::new();
        for (&number, flight) in &state.in_flight {
            let InFlight { after, .. } = flight;
            if after.takes_descriptor() {
                return Err(io::Error::other("a descriptor is on its way"));
            }
            let band = match after.out_of_band {
                Some(_) => Band::OutOfBand,
                None => Band::InBand,
            };
            let request = after.asker.as_ref().and_then(|asker| asker.state(band));
            let awaited = request.is_some() || (flight.returns && after.asker.is_none());
            if let (Some(client), Some(request)) = (&after.client, request) {
                wait(client, request.marked(2 * number));
            }
            let place = after.client.as_ref().map(|client| clients.place(client));
            let then = match (&after.then, place) {
                (Then::Restore(names), _) => Then::Restore(names.clone()),
                (Then::Close(names), Some(place)) => {
                    clients.states[place].names.extend_from_slice(names);
                    Then::Nothing
                }
                _ => Then::Nothing,
            };
            in_flight.push(InFlightState {
                number,
                command: flight.command.clone(),
                sent: flight.sent.elapsed(),
                bytes: flight.bytes,
                out_of_band: after.out_of_band.is_some(),
                client: place,
                then,
                awaited,
            });
        }
        let mut unsent = Vec::new();
        let mut marked = state.returned.marked;
        let mut keep = |request: &MuxRequest| -> io::Result<()> {
            let MuxRequest { text, after } = request;
            let Some(client) = &after.client else { return Ok(()) };
            let waits = after.asker.as_ref().and_then(|asker| asker.state(text.band));
            let Some(waits) = waits else {
                // One of our own, which closes a name of a client that has left. All of them are closed anew.
                if let Then::Close(names) = &after.then {
                    let place = clients.place(client);
                    clients.states[place].names.extend_from_slice(names);
                    clients.states[place].names.extend(request.name_to_close());
                }
                return Ok(());
            };
            let mark = 2 * marked + 1;
            marked += 1;
            wait(client, waits.marked(mark));
            let descriptor = text.descriptor.as_ref();
            let descriptor = descriptor.map(|one| packing.add(one.as_fd())).transpose()?;
            let line = line(&text.command, text.arguments.as_ref());
            let (then, client) = (after.then.clone(), Some(clients.place(client)));
            unsent.push((mark, UnsentState { line, then, descriptor, client }));
            Ok(())
        };
        state.own.iter().chain(state.to_pass.values()).try_for_each(&mut keep)?;
        // What is held goes over as what was not sent. Debts do not: the other program begins without, which costs others no
        // more than what a user without a debt may send.
        state.pace.iter().chain(state.urgent.iter()).try_for_each(&mut keep)?;
        let known = state.known.iter().chain(&state.behind);
        known.map(|(request, _)| request).try_for_each(&mut keep)?;
        let mut kept = Ok(());
        self.line().look(|request| {
            if kept.is_ok() {
                kept = keep(request);
            }
        });
        kept?;
        // Those of an earlier hand-over, whose clients have not been able to go on yet.
        for (&mark, one) in &state.returned.unsent {
            let descriptor = one.descriptor.as_ref();
            let descriptor = descriptor.map(|one| packing.add(one.as_fd())).transpose()?;
            let client = one.client.as_ref().map(|client| clients.place(client));
            let (line, then) = (line("", one.arguments.as_ref()), one.then.clone());
            unsent.push((mark, UnsentState { line, then, descriptor, client }));
        }
        for (client, id, responder) in &state.synchronisations {
            let arguments = Object::from_iter([("id", Value::from(*id))]);
            if let Some(request) = responder.state_with(Band::InBand, arguments) {
                wait(client, request);
            }
        }
        let mut answers = Vec::new();
        for (&number, (after, result)) in &state.returned.answers {
            let client = after.client.as_ref().map(|client| clients.place(client));
            let result = match result {
                Ok(json) => Ok(json.as_str().to_owned()),
                Err(error) => Err((error.class, error.desc.to_string())),
            };
            answers.push(AnswerState { number, then: after.then.clone(), client, result });
        }
        for client in state.returned.clients.values() {
            clients.place(client);
        }
        for (address, MonitorOf { id, user, .. }) in monitors {
            if let Some(&place) = clients.places.get(address) {
                clients.states[place].monitor = Some(*id);
                clients.states[place].user.clone_from(user);
            }
        }
        let (absent, oob) = match &state.connection {
            Presence::Absent { why } => (Some(why.clone()), false),
            Presence::Present { oob } => (None, *oob),
        };
        let upstream = UpstreamState {
            absent,
            oob,
            since: state.since.elapsed(),
            connections: self.connections.get(),
            sent: state.sent,
            in_flight,
            unsent,
            answers,
            marked,
            clients: clients.states,
        };
        Ok((upstream, requests))
    }

    /// Goes on where another mux was.
    pub(super) fn resume(
        self: &Arc<Self>,
        upstream: UpstreamState,
        is_connected: bool,
        luggage: &mut Luggage,
    ) -> io::Result<()> {
        let now = Instant::now();
        let ago = |duration| now.checked_sub(duration).unwrap_or(now);
        (0..upstream.connections).for_each(|_| self.connections.count());
        let mut clients = Vec::new();
        let mut state = self.state();
        for one in upstream.clients {
            let names = Names::new(one.prefix, Arc::clone(&self.names));
            one.names.into_iter().for_each(|name| names.add(name));
            let client = Arc::new(self.new_client(owner_of(&one.user), names));
            match one.monitor {
                Some(monitor) => drop(state.returned.clients.insert(monitor, Arc::clone(&client))),
                None => {
                    client.set_gone();
                    if is_connected
                        && let Some(close) = MuxRequest::close_all(&client, client.names.all())
                    {
                        client.queue_own(close);
                    }
                }
            }
            clients.push(client);
        }
        state.sent = upstream.sent;
        state.since = ago(upstream.since);
        state.connection = match (upstream.absent, is_connected) {
            (None, true) => Presence::Present { oob: upstream.oob },
            (why, _) => {
                let why = why.unwrap_or_else(|| "the connection was not handed over".to_owned());
                Presence::Absent { why }
            }
        };
        for one in upstream.in_flight.into_iter().filter(|_| is_connected) {
            let client = one.client.and_then(|place| clients.get(place)).cloned();
            let of = client.as_ref().filter(|_| one.out_of_band);
            let out_of_band = of.map(|client| client.out_of_band_again());
            state.out_of_band += usize::from(out_of_band.is_some());
            state.bytes += one.bytes;
            let after = After { client, asker: None, then: one.then, out_of_band };
            let flight = InFlight {
                command: one.command,
                sent: ago(one.sent),
                returns: one.awaited,
                bytes: one.bytes,
                after,
            };
            state.in_flight.insert(one.number, flight);
        }
        let of = |place: Option<usize>| place.and_then(|place| clients.get(place)).cloned();
        state.returned.marked = upstream.marked;
        for (mark, UnsentState { line, then, descriptor, client }) in upstream.unsent {
            let descriptor = descriptor.map(|number| luggage.take(number)).transpose()?;
            let (arguments, client) = (arguments(&line), of(client));
            state
                .returned
                .unsent
                .insert(mark, UnsentRequest { arguments, then, descriptor, client });
        }
        for AnswerState { number, then, client, result } in upstream.answers {
            let after = After { client: of(client), asker: None, then, out_of_band: None };
            let result = match result {
                Ok(text) => text.parse::<Value>().map(|value| Json::from(&value)),
                Err((class, desc)) => {
                    state.returned.answers.insert(number, (after, Err(Error::new(class, desc))));
                    continue;
                }
            };
            let result = result.map_err(|_| Error::generic("The answer was lost"));
            state.returned.answers.insert(number, (after, result));
        }
        Ok(())
    }

    /// The client that has come again with its monitor, if that is one.
    pub(super) fn returning(&self, locals: &Locals) -> Option<Arc<MuxClient>> {
        let Returning(monitor) = locals.get()?;
        self.state().returned.clients.remove(monitor)
    }

    /// What another program has noted for a request.
    pub(super) fn again(&self, mark: u64, command: &str) -> Again {
        let mut state = self.state();
        if let Some(unsent) = state.returned.unsent.remove(&mark) {
            return Again::Unsent(unsent);
        }
        let number = mark / 2;
        let was_sent = mark.is_multiple_of(2)
            && (state.in_flight.contains_key(&number)
                || state.returned.answers.contains_key(&number));
        if was_sent {
            return Again::Sent(number);
        }
        let why = match &state.connection {
            Presence::Absent { why } => why,
            Presence::Present { .. } => "the connection has been lost",
        };
        let error = format!("The command {command} was sent and not answered: {why}");
        Again::Unknown(Error::generic(error))
    }

    /// A client waits again for the answer to what was sent under this number.
    pub(super) fn attach(&self, number: u64, responder: Responder<Json>) {
        let mut state = self.state();
        let asker = Some(Asker::new(responder));
        if let Some(flight) = state.in_flight.get_mut(&number) {
            flight.after.asker = asker;
            return;
        }
        let answer = state.returned.answers.remove(&number);
        drop(state);
        if let Some((after, result)) = answer {
            self.pass_on(After { asker, ..after }, result);
        }
    }
}

/// Arguments as a request of this name has them.
fn line(command: &str, arguments: Option<&Json>) -> String {
    let mut line = String::new();
    Request::new(command).write_with_text(arguments, &mut line);
    line
}

/// The arguments of a request.
fn arguments(line: &str) -> Option<Json> {
    let mut reader = Reader::new(Dialect::default(), UNLIMITED);
    let message = reader.read(&mut line.as_bytes())?.ok()?;
    Request::parse_with_text(&message, Bands::InBand).ok()?.1
}

/// What was within limits may be longer as it is written now.
const UNLIMITED: Limits =
    Limits { token_bytes: usize::MAX / 2, tokens: usize::MAX / 2, nesting: 1024 };

impl Shared {
    /// Adds the mux and its clients.
    pub(super) fn freeze(
        &self,
        freezing: &mut Freezing,
        connections: u64,
        (connection, agent): (Option<ConnectionState>, Option<AgentConnectionState>),
        greeting: Greeting,
    ) -> io::Result<()> {
        let mut monitors = HashMap::new();
        let hosted = self.server();
        for client in hosted.iter().flat_map(|hosted| hosted.list()) {
            let monitor = &client.monitor;
            if let Some(MuxLocal { client, .. }) = monitor.local() {
                let (id, client) = (u64::from(monitor.id()), Arc::clone(client));
                let user = monitor.local().map(Peer::user).unwrap_or_default();
                monitors.insert(Arc::as_ptr(&client).addr(), MonitorOf { id, user, client });
            }
        }
        let (upstream, mut requests) = self.upstream.freeze(&monitors, &mut freezing.packing)?;
        let awaited: usize = requests.values().map(Vec::len).sum();
        let mut server = match hosted {
            Some(hosted) => {
                let out_of_band = |request: &&RequestState| request.band() == Band::OutOfBand;
                let all = requests.values().flatten();
                let urgent = all.filter(out_of_band).count();
                if hosted.executing() != awaited - urgent {
                    return Err(io::Error::other("a command is executed that is not QEMU's"));
                }
                take(freezing.server(&hosted)?)
            }
            None => ServerState::default(),
        };
        for SessionState { monitor, requests: all, .. } in &mut server.sessions {
            // What is at the server comes first; an out-of-band request holds up what was sent after it, and nothing else.
            let (urgent, first): (Vec<_>, Vec<_>) = requests
                .remove(&monitor.id)
                .unwrap_or_default()
                .into_iter()
                .partition(|request| request.band() == Band::OutOfBand);
            let queued = std::mem::replace(all, first);
            all.extend(queued.into_iter().chain(urgent));
        }
        let mux = MuxState {
            name: self.name.clone(),
            address: self.connect.address.to_string(),
            greeting: (self.upstream.connections.get() > 0).then_some(greeting),
            server,
            connections,
            connection,
            is_agent: self.speaks == Speaks::Agent,
            agent,
            upstream,
        };
        freezing.links.push(Box::new(mux));
        Ok(())
    }
}

/// A client's monitor, by the client.
struct MonitorOf {
    id: u64,
    user: String,
    client: Arc<MuxClient>,
}

#[cfg(test)]
mod tests;
