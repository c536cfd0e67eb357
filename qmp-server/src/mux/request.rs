// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on its way to the upstream server, and what becomes of the answer.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use qmp_dispatch::proto::{Band, Error, Json, Object, Value};
use qmp_dispatch::{Context, Forwarded, Monitor, MonitorId, RequestState, Responder};
use serde::{Deserialize, Serialize};

use super::client::{Client, OutOfBand};
use super::names::Renamed;
use crate::access::{Charge, Ledger};
use crate::introspected::Introspected;
use crate::session::{Descriptor, Descriptors, charged};

/// The beginning of a command's name that is kept while it is in flight, in bytes. Clients choose names, of any length.
const LONGEST_COMMAND: usize = 128;

/// The name under which a server that still holds a descriptor is made to let go of it.
const PROBE: &str = "qmp-server-probe";

/// A request that is to be sent.
pub(super) struct Request {
    pub(super) text: Text,
    pub(super) after: After,
}

/// What is sent. Dropped when it has been written.
pub(super) struct Text {
    pub(super) command: String,
    pub(super) arguments: Option<Json>,
    pub(super) band: Band,
    pub(super) descriptor: Option<Arc<Descriptor>>,
    /// For the text, until it is sent: the client's deadline may have passed by then, and its own charge with it.
    _charge: Option<Charge>,
}

impl Text {
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
    pub(super) client: Option<Arc<Client>>,
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
        client: &Arc<Client>,
    ) -> Result<Request, (Responder<Json>, Error)> {
        let band = context.band();
        let monitor = context.monitor();
        let introspected = introspected(&request, band);
        let Forwarded { command, arguments, text, .. } = request;
        let mut asker = Asker { responder, passed: None };
        let (arguments, then) = match command.as_str() {
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
        let mut text = Text { command, arguments, band, descriptor, _charge: None };
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
        client: &Arc<Client>,
        unsent: Unsent,
    ) -> Request {
        let monitor = context.monitor();
        let ledger = monitor.local::<Arc<Ledger>>();
        let descriptor = unsent.descriptor.into_iter().collect();
        let charged = ledger.and_then(|ledger| charged(descriptor, ledger).pop());
        let passed = charged.map(|descriptor| (Arc::clone(monitor), Arc::new(descriptor)));
        let descriptor = passed.as_ref().map(|(_, descriptor)| Arc::clone(descriptor));
        let mut text = Text {
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
    pub(super) fn close_all(client: &Arc<Client>, mut names: Vec<String>) -> Option<Request> {
        let name = names.pop()?;
        let full = client.names.full(&name);
        client.names.remove(&name);
        Some(Request::own("closefd", &full, Some(Arc::clone(client)), Then::Close(names)))
    }

    fn own(command: &str, name: &str, client: Option<Arc<Client>>, then: Then) -> Request {
        let text = Text {
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

    pub(super) fn is_of(&self, client: &Arc<Client>) -> bool {
        self.after.client.as_ref().is_some_and(|of| Arc::ptr_eq(of, client))
    }
}

/// What another program has made of a request that it did not send.
pub(super) struct Unsent {
    pub(super) arguments: Option<Json>,
    pub(super) then: Then,
    pub(super) descriptor: Option<OwnedFd>,
    pub(super) client: Option<Arc<Client>>,
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
    pub(super) fn names_to_close(&self) -> Option<Arc<Client>> {
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
    pub(super) fn new(text: &Text, after: After) -> InFlight {
        let command = &text.command;
        let mut end = command.len().min(LONGEST_COMMAND);
        while !command.is_char_boundary(end) {
            end -= 1;
        }
        let (command, bytes) = (command[..end].to_owned(), text.in_band_bytes());
        InFlight { command, sent: Instant::now(), returns: false, bytes, after }
    }
}
