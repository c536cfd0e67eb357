// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client has at the upstream server: its requests on their way there, and what becomes of the answers.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use qmp_dispatch::proto::{Band, Error, Json, Object, Value};
use qmp_dispatch::{Context, Forwarded, Monitor, MonitorId, RequestState, Responder};
use qmp_queue::{Mode, Producer, Queue};
use serde::{Deserialize, Serialize};

use super::names::{Names, Renamed};
use crate::access::{Charge, Ledger, Notices};
use crate::introspected::Introspected;
use crate::io::Owner;
use crate::session::{Descriptor, Descriptors, charged};

/// The beginning of a command's name that is kept while it is in flight, in bytes. Clients choose names, of any length.
const LONGEST_COMMAND: usize = 128;

/// The name under which a server that still holds a descriptor is made to let go of it.
const PROBE: &str = "qmp-server-probe";

/// Limit of unanswered out-of-band requests per client; there is nothing else to hold them up.
const MOST_OUT_OF_BAND: usize = 64;

/// Requests move through the queue in a box: they are large.
pub(super) type Boxed = Box<Request>;

/// A client, for as long as it is connected or something of it is at the upstream server. It holds neither the monitor
/// nor anything that waits for an answer.
pub(super) struct MuxClient {
    pub(super) names: Names,
    /// Its user, with which it shares the turns and the [pace](super::pace).
    pub(super) user: Owner,
    /// Its place in the line for the upstream server.
    line: Producer<Box<Request>>,
    /// The number under which its request was [set aside](super::upstream::Traffic::set_aside) last.
    aside: AtomicU64,
    out_of_band: Arc<AtomicUsize>,
    /// Whether it stays when the upstream server has gone. Set when it has a monitor.
    notices: OnceLock<Notices>,
    /// The number of the connection to the upstream server when it came.
    since: u64,
    /// It has left. Set before its requests are dropped; a request is queued before this is looked at: one of the two
    /// sees the other.
    gone: AtomicBool,
}

impl MuxClient {
    /// A client whose requests are sent in turn with those of other users.
    ///
    /// `since` is the number of the connection to the upstream server.
    pub(super) fn new(line: &Queue<Boxed>, since: u64, user: Owner, names: Names) -> MuxClient {
        MuxClient {
            names,
            user,
            line: line.register_in(user, Mode::default()),
            aside: AtomicU64::default(),
            out_of_band: Arc::default(),
            notices: OnceLock::new(),
            since,
            gone: AtomicBool::new(false),
        }
    }

    /// Whether it gets the mux's own events, and stays when the upstream server has gone.
    pub(super) fn has_notices(&self) -> bool {
        self.notices.get().is_some_and(Notices::are_on)
    }

    pub(super) fn set_notices(&self, notices: Notices) {
        let _ = self.notices.set(notices);
    }

    /// Whether it came after the connection of this number had been made, and before the next one.
    pub(super) fn is_of_connection(&self, number: u64) -> bool {
        self.since == number
    }

    /// Makes the client's request wait in line. Returns those that did so already: they have passed their deadlines, as
    /// a client has only one in-band request in progress, and will not be sent any more.
    pub(super) fn queue(&self, request: Request) -> Vec<Boxed> {
        let overdue = self.clear();
        // Refused only when all has ended; then its answer says so.
        drop(self.line.push(Box::new(request)));
        overdue
    }

    /// Notes the number under which its request is set aside. To be called with the traffic locked, as is [`aside`].
    ///
    /// [`aside`]: MuxClient::aside
    pub(super) fn set_aside(&self, number: u64) {
        self.aside.store(number, Ordering::Relaxed);
    }

    /// The number under which its request was set aside last: it is the number of no other one.
    pub(super) fn aside(&self) -> u64 {
        self.aside.load(Ordering::Relaxed)
    }

    /// Makes a request for a client that has left wait in line.
    pub(super) fn queue_own(&self, request: Request) {
        drop(self.line.push(Box::new(request)));
    }

    /// Takes back what waits in line.
    pub(super) fn clear(&self) -> Vec<Boxed> {
        self.line.clear().items
    }

    /// Counts one that has been let in before.
    pub(super) fn out_of_band_again(&self) -> OutOfBand {
        self.out_of_band.fetch_add(1, Ordering::Relaxed);
        OutOfBand(Arc::clone(&self.out_of_band))
    }

    /// Counts an out-of-band request until what is returned is dropped; `None` if there are too many.
    pub(super) fn out_of_band(&self) -> Option<OutOfBand> {
        let counted = OutOfBand(Arc::clone(&self.out_of_band));
        (self.out_of_band.fetch_add(1, Ordering::Relaxed) < MOST_OUT_OF_BAND).then_some(counted)
    }

    /// Whether an out-of-band request is unanswered.
    pub(super) fn has_out_of_band(&self) -> bool {
        self.out_of_band.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Notes that it has left. Returns whether that was known.
    pub(super) fn set_gone(&self) -> bool {
        self.gone.swap(true, Ordering::SeqCst)
    }
}

/// One out-of-band request that is unanswered.
pub(super) struct OutOfBand(Arc<AtomicUsize>);

impl Drop for OutOfBand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that is to be sent.
pub(super) struct Request {
    pub(super) text: RequestText,
    pub(super) after: After,
}

/// What is sent. Dropped when it has been written.
pub(super) struct RequestText {
    pub(super) command: String,
    pub(super) arguments: Option<Json>,
    pub(super) band: Band,
    pub(super) descriptor: Option<Arc<Descriptor>>,
    /// For the text, until it is sent: the client's deadline may have passed by then, and its own charge with it.
    _charge: Option<Charge>,
}

impl RequestText {
    pub(super) fn len(&self) -> usize {
        self.command.len() + self.arguments.as_ref().map_or(0, |json| json.as_str().len())
    }

    /// Its length, or 0 if it is out-of-band: those that hang must not hold up others.
    pub(super) fn in_band_bytes(&self) -> usize {
        match self.band {
            Band::InBand => self.len(),
            Band::OutOfBand => 0,
        }
    }
}

/// Whom the answer is for, and what it says besides.
pub(super) struct After {
    pub(super) client: Option<Arc<MuxClient>>,
    /// `None` if nobody waits for the answer, or does not any more because the client has left.
    pub(super) asker: Option<Asker>,
    pub(super) then: Then,
    /// Counts it, if it is out-of-band, until it is answered.
    pub(super) out_of_band: Option<OutOfBand>,
}

/// Who waits for the answer. Holds the monitor, and what else the client must not leave behind.
pub(super) struct Asker {
    responder: Responder<Json>,
    /// What came with the request, to be given back if it is not taken.
    passed: Option<(Arc<Monitor>, Arc<Descriptor>)>,
}

/// What is done about the answer besides passing it on.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Then {
    Nothing,
    /// It holds for as long as the connection.
    Keep(Introspected),
    /// It may name the client's descriptors, and those of these names are gone if the command has succeeded.
    Restore(Vec<String>),
    /// It tells whether a descriptor has been taken, and has this name from now on.
    Pass {
        name: Option<String>,
        with_descriptor: bool,
    },
    /// It tells whether the server still holds the descriptor of a command that has failed.
    #[serde(skip)]
    Probe(Error),
    /// One of the names of a client that has left is closed, and these are to be.
    Close(Vec<String>),
}

impl Request {
    /// What the upstream server is to be sent for a client's request.
    ///
    /// # Errors
    ///
    /// What the client is to be told instead.
    pub(super) fn new(
        context: &Context,
        request: Forwarded,
        responder: Responder<Json>,
        client: &Arc<MuxClient>,
    ) -> Result<Request, (Responder<Json>, Error)> {
        let band = context.band();
        let monitor = context.monitor();
        let introspected = introspected(&request, band);
        let Forwarded { command, arguments, text, .. } = request;
        let is_for_agent = monitor.dispatcher().is_for_agent();
        let mut asker = Asker { responder, passed: None };
        let (arguments, then) = match command.as_str() {
            // To a guest agent, nothing but its own commands has a meaning.
            _ if is_for_agent => (text, Then::Nothing),
            // They would overtake others', and the server takes what came last: so none is passed on, and this is what
            // the server says then.
            "getfd" | "add-fd" if band == Band::OutOfBand => {
                let error = "No file descriptor supplied via SCM_RIGHTS";
                return Err((asker.responder, Error::generic(error)));
            }
            "getfd" | "add-fd" => {
                let name = arguments.get("fdname").and_then(Value::as_str);
                let name = name.filter(|_| command == "getfd").map(str::to_owned);
                if let Some(name) = &name
                    && let Err(error) = client.names.check_room(name)
                {
                    return Err((asker.responder, error));
                }
                let waiting = monitor.local().and_then(Descriptors::take_waiting).map(Arc::new);
                asker.passed = waiting.map(|descriptor| (Arc::clone(monitor), descriptor));
                let text = match &name {
                    Some(name) => Some(with_name(&arguments, client.names.full(name))),
                    None => text,
                };
                (text, Then::Pass { name, with_descriptor: asker.passed.is_some() })
            }
            "closefd" => match arguments.get("fdname").and_then(Value::as_str) {
                Some(name) => {
                    let text = with_name(&arguments, client.names.full(name));
                    (Some(text), Then::Restore(vec![name.to_owned()]))
                }
                None => (text, Then::Restore(Vec::new())),
            },
            _ => match client.names.rename(&command, &arguments) {
                Some(Renamed { arguments, names }) => {
                    (Some(Json::from(&arguments)), Then::Restore(names))
                }
                None => (text, introspected.map_or(Then::Nothing, Then::Keep)),
            },
        };
        let descriptor = asker.passed.as_ref().map(|(_, descriptor)| Arc::clone(descriptor));
        let mut text = RequestText { command, arguments, band, descriptor, _charge: None };
        let ledger = monitor.local::<Arc<Ledger>>();
        text._charge = ledger.map(|ledger| ledger.charge_bytes(text.len()));
        let after =
            After { client: Some(Arc::clone(client)), asker: Some(asker), then, out_of_band: None };
        Ok(Request { text, after })
    }

    /// The same for a request that another program has [made](Request::new) and did not send.
    pub(super) fn again(
        context: &Context,
        request: Forwarded,
        responder: Responder<Json>,
        client: &Arc<MuxClient>,
        unsent: UnsentRequest,
    ) -> Request {
        let monitor = context.monitor();
        let ledger = monitor.local::<Arc<Ledger>>();
        let descriptor = unsent.descriptor.into_iter().collect();
        let charged = ledger.and_then(|ledger| charged(descriptor, ledger).pop());
        let passed = charged.map(|descriptor| (Arc::clone(monitor), Arc::new(descriptor)));
        let descriptor = passed.as_ref().map(|(_, descriptor)| Arc::clone(descriptor));
        let mut text = RequestText {
            command: request.command,
            arguments: unsent.arguments,
            band: context.band(),
            descriptor,
            _charge: None,
        };
        text._charge = ledger.map(|ledger| ledger.charge_bytes(text.len()));
        let asker = Some(Asker { responder, passed });
        let client = Some(Arc::clone(client));
        Request { text, after: After { client, asker, then: unsent.then, out_of_band: None } }
    }

    /// Closes the descriptors that a client had which has left, one after the other.
    pub(super) fn close_all(client: &Arc<MuxClient>, mut names: Vec<String>) -> Option<Request> {
        let name = names.pop()?;
        let full = client.names.full(&name);
        client.names.remove(&name);
        Some(Request::own("closefd", &full, Some(Arc::clone(client)), Then::Close(names)))
    }

    fn own(command: &str, name: &str, client: Option<Arc<MuxClient>>, then: Then) -> Request {
        let text = RequestText {
            command: command.to_owned(),
            arguments: Some(with_name(&Object::new(), name.to_owned())),
            band: Band::InBand,
            descriptor: None,
            _charge: None,
        };
        Request { text, after: After { client, asker: None, then, out_of_band: None } }
    }

    /// The name that it closes, as the client knew it, if it is one of our own for a client that has left.
    pub(super) fn name_to_close(&self) -> Option<String> {
        let Value::Object(arguments) = self.text.arguments.as_ref()?.to_value() else {
            return None;
        };
        let full = arguments.get("fdname")?.as_str()?;
        full.strip_prefix(self.after.client.as_ref()?.names.prefix()).map(str::to_owned)
    }

    /// Whether it is for the descriptors that a connection holds until a command takes them. The
    /// upstream server has one such place for all clients.
    pub(super) fn takes_descriptor(&self) -> bool {
        matches!(self.after.then, Then::Pass { .. } | Then::Probe(_))
    }

    /// Whether it is still to be sent: the client has not left, and its deadline has not passed.
    pub(super) fn is_wanted(&self) -> bool {
        match &self.after.asker {
            Some(asker) => {
                asker.responder.is_awaited()
                    && !self.after.client.as_ref().is_some_and(|client| client.is_gone())
            }
            None => true,
        }
    }

    /// Whether it is one of the mux's own.
    pub(super) fn is_own(&self) -> bool {
        self.after.asker.is_none()
    }

    pub(super) fn is_of(&self, client: &Arc<MuxClient>) -> bool {
        self.after.client.as_ref().is_some_and(|of| Arc::ptr_eq(of, client))
    }
}

/// What another program has made of a request that it did not send.
pub(super) struct UnsentRequest {
    pub(super) arguments: Option<Json>,
    pub(super) then: Then,
    pub(super) descriptor: Option<OwnedFd>,
    pub(super) client: Option<Arc<MuxClient>>,
}

/// Which result of introspection a request is for. One with arguments is for an error, and so is one out-of-band.
fn introspected(request: &Forwarded, band: Band) -> Option<Introspected> {
    let introspected = Introspected::of(&request.command)?;
    (band == Band::InBand && request.arguments.is_empty()).then_some(introspected)
}

fn with_name(arguments: &Object, name: String) -> Json {
    let mut arguments = arguments.clone();
    arguments.insert("fdname", name);
    Json::from(&arguments)
}

impl After {
    /// Passes the answer on. Returns what is to be sent next, before anybody else's descriptors.
    pub(super) fn answered(self, result: Result<Json, Error>) -> Option<Request> {
        let After { client, asker, then, .. } = self;
        let restored = |error| match &client {
            Some(client) => client.names.restore(error),
            None => error,
        };
        match (then, result) {
            (Then::Nothing | Then::Keep(_), result) => respond(asker, result),
            (Then::Restore(names), result) => {
                if let Some(client) = &client
                    && result.is_ok()
                {
                    names.iter().for_each(|name| client.names.remove(name));
                }
                respond(asker, result.map_err(restored));
            }
            (Then::Pass { name, .. }, Ok(json)) => {
                if let (Some(client), Some(name)) = (&client, name) {
                    client.names.add(name);
                }
                respond(asker, Ok(json));
            }
            // A command that fails may leave the descriptor where the next client's would find it.
            (Then::Pass { with_descriptor: true, .. }, Err(error)) => {
                let probe = Request::own("getfd", PROBE, client, Then::Probe(error));
                return Some(Request { after: After { asker, ..probe.after }, ..probe });
            }
            (Then::Pass { .. }, Err(error)) => respond(asker, Err(restored(error))),
            (Then::Probe(error), result) => {
                let error = restored(error);
                match result {
                    Ok(_) => refuse_descriptor(asker, error),
                    Err(_) => respond(asker, Err(error)),
                }
                return result.is_ok().then(|| Request::own("closefd", PROBE, None, Then::Nothing));
            }
            (Then::Close(names), _) => {
                return client.and_then(|client| Request::close_all(&client, names));
            }
        }
        None
    }

    /// Which result of introspection the answer is.
    pub(super) fn introspected(&self) -> Option<Introspected> {
        match self.then {
            Then::Keep(introspected) => Some(introspected),
            _ => None,
        }
    }

    /// Whether the client that it was for has left while names of its descriptors may have come.
    pub(super) fn names_to_close(&self) -> Option<Arc<MuxClient>> {
        let client = self.client.as_ref().filter(|client| client.is_gone())?;
        matches!(self.then, Then::Pass { .. }).then(|| Arc::clone(client))
    }

    pub(super) fn takes_descriptor(&self) -> bool {
        matches!(self.then, Then::Pass { .. } | Then::Probe(_))
    }

    /// Ends it with an error, or without an answer.
    pub(super) fn fail(self, error: Option<Error>) {
        if let Some(asker) = self.asker {
            asker.fail(error);
        }
    }
}

fn respond(asker: Option<Asker>, result: Result<Json, Error>) {
    if let Some(asker) = asker {
        asker.responder.respond_json(result);
    }
}

/// Answers with an error. The client has its descriptor back, as nobody has taken it.
fn refuse_descriptor(asker: Option<Asker>, error: Error) {
    let Some(Asker { responder, passed }) = asker else { return };
    if let Some((monitor, descriptor)) = passed
        && let Some(descriptor) = Arc::into_inner(descriptor)
        && let Some(descriptors) = monitor.local::<Descriptors>()
    {
        descriptors.give_back(descriptor);
    }
    responder.respond_json(Err(error));
}

impl Asker {
    pub(super) fn new(responder: Responder<Json>) -> Asker {
        Asker { responder, passed: None }
    }

    /// The request that waits for the answer as data, if it still does.
    pub(super) fn state(&self, band: Band) -> Option<RequestState> {
        self.responder.state(band)
    }

    /// The monitor that waits for the answer still.
    pub(super) fn monitor(&self) -> Option<MonitorId> {
        self.responder.monitor()
    }

    /// Tells the client that there is no answer, or lets it go without.
    pub(super) fn fail(self, error: Option<Error>) {
        match error {
            _ if !self.responder.is_awaited() => {}
            Some(error) => self.responder.respond_json(Err(error)),
            None => self.responder.abandon(),
        }
    }
}

/// A request that was sent and not answered yet.
pub(super) struct InFlight {
    /// The name of the command, or its beginning.
    pub(super) command: String,
    pub(super) sent: Instant,
    /// Another program has sent it, and the client's request comes again.
    pub(super) returns: bool,
    /// Bytes of its text, if it is in-band.
    pub(super) bytes: usize,
    pub(super) after: After,
}

impl InFlight {
    pub(super) fn new(text: &RequestText, after: After) -> InFlight {
        let command = &text.command;
        let mut end = command.len().min(LONGEST_COMMAND);
        while !command.is_char_boundary(end) {
            end -= 1;
        }
        let (command, bytes) = (command[..end].to_owned(), text.in_band_bytes());
        InFlight { command, sent: Instant::now(), returns: false, bytes, after }
    }
}
