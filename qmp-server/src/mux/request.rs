// SPDX-License-Identifier: MIT OR Apache-2.0
//! One request on its way to the upstream server, and what becomes of the answer.

use std::sync::Arc;

use qmp_dispatch::proto::{Band, Error, Json, Object, Value};
use qmp_dispatch::{Context, Forwarded, Monitor, MonitorId, Responder};

use super::client::Client;
use crate::session::{Descriptor, Descriptors};

/// A request that is to be sent.
pub(super) struct Request {
    pub(super) command: String,
    pub(super) arguments: Option<Json>,
    pub(super) band: Band,
    pub(super) descriptor: Option<Arc<Descriptor>>,
    pub(super) then: Then,
}

/// What is done with the answer.
pub(super) enum Then {
    /// It is the client's, as it is.
    Respond(Responder<Json>),
    /// It is the client's, but for the names of its descriptors.
    Restore(Responder<Json>, Arc<Client>),
    /// It tells whether the client's descriptor has been taken.
    Pass(Passing),
    /// It tells whether the server still holds the descriptor of a command that has failed.
    Probe(Passing, Error),
    /// Nobody wants it.
    Ignore,
}

/// `getfd` or `add-fd` of a client.
pub(super) struct Passing {
    pub(super) responder: Responder<Json>,
    client: Arc<Client>,
    monitor: Arc<Monitor>,
    /// The name that `getfd` gives.
    name: Option<String>,
    descriptor: Option<Arc<Descriptor>>,
}

impl Request {
    /// What the upstream server is to be sent for a client's request.
    pub(super) fn new(
        context: &Context,
        request: Forwarded,
        responder: Responder<Json>,
    ) -> Request {
        let band = context.band();
        let Forwarded { command, arguments, text, .. } = request;
        let Some(client) = context.monitor().local::<Arc<Client>>() else {
            let then = Then::Respond(responder);
            return Request { command, arguments: text, band, descriptor: None, then };
        };
        match command.as_str() {
            // Out-of-band they would overtake others', and the server takes what came last.
            "getfd" | "add-fd" if band == Band::InBand => {
                let passing =
                    Passing::new(context.monitor(), client, &command, &arguments, responder);
                let descriptor = passing.descriptor.clone();
                let arguments = match &passing.name {
                    Some(name) => Some(with_name(&arguments, client.names.full(name))),
                    None => text,
                };
                Request { command, arguments, band, descriptor, then: Then::Pass(passing) }
            }
            "closefd" => {
                let arguments = match arguments.get("fdname").and_then(Value::as_str) {
                    Some(name) => {
                        client.names.remove(name);
                        Some(with_name(&arguments, client.names.full(name)))
                    }
                    None => text,
                };
                let then = Then::Restore(responder, Arc::clone(client));
                Request { command, arguments, band, descriptor: None, then }
            }
            _ => {
                let (arguments, then) = match client.names.rename(&arguments) {
                    Some(renamed) => {
                        (Some(Json::from(&renamed)), Then::Restore(responder, Arc::clone(client)))
                    }
                    None => (text, Then::Respond(responder)),
                };
                Request { command, arguments, band, descriptor: None, then }
            }
        }
    }

    /// Closes a descriptor of a client that has gone.
    pub(super) fn close(name: &str) -> Request {
        Request::own("closefd", name, Then::Ignore)
    }

    fn own(command: &str, name: &str, then: Then) -> Request {
        Request {
            command: command.to_owned(),
            arguments: Some(with_name(&Object::new(), name.to_owned())),
            band: Band::InBand,
            descriptor: None,
            then,
        }
    }

    /// Whether it is for the descriptors that a connection holds until a command takes them. The
    /// upstream server has one such place for all clients.
    pub(super) fn takes_descriptor(&self) -> bool {
        matches!(self.then, Then::Pass(_) | Then::Probe(..))
    }

    /// Whether anybody still waits for the answer.
    pub(super) fn is_awaited(&self) -> bool {
        match &self.then {
            Then::Respond(responder) | Then::Restore(responder, _) => responder.is_awaited(),
            Then::Pass(passing) => passing.responder.is_awaited(),
            Then::Probe(..) | Then::Ignore => true,
        }
    }
}

fn with_name(arguments: &Object, name: String) -> Json {
    let mut arguments = arguments.clone();
    arguments.insert("fdname", name);
    Json::from(&arguments)
}

/// The name under which a server that still holds a descriptor is made to let go of it.
const PROBE: &str = "qmp-server-probe";

impl Then {
    /// Does it. Gives what is to be sent next, before anybody else's descriptors.
    pub(super) fn answered(self, result: Result<Json, Error>) -> Vec<Request> {
        match self {
            Then::Respond(responder) => responder.respond_json(result),
            Then::Restore(responder, client) => {
                responder.respond_json(result.map_err(|error| client.names.restore(error)));
            }
            Then::Pass(passing) => return passing.answered(result),
            Then::Probe(passing, error) => {
                let held = result.is_ok();
                passing.refused(error, held);
                if held {
                    return vec![Request::close(PROBE)];
                }
            }
            Then::Ignore => {}
        }
        Vec::new()
    }

    /// Who waits for the answer still.
    pub(super) fn waiting(&self) -> Option<MonitorId> {
        match self {
            Then::Respond(responder) | Then::Restore(responder, _) => responder.monitor(),
            Then::Pass(passing) | Then::Probe(passing, _) => passing.responder.monitor(),
            Then::Ignore => None,
        }
    }

    /// The client to be told that there is no answer.
    pub(super) fn into_responder(self) -> Option<Responder<Json>> {
        match self {
            Then::Respond(responder) | Then::Restore(responder, _) => Some(responder),
            Then::Pass(passing) | Then::Probe(passing, _) => Some(passing.responder),
            Then::Ignore => None,
        }
    }
}

impl Passing {
    fn new(
        monitor: &Arc<Monitor>,
        client: &Arc<Client>,
        command: &str,
        arguments: &Object,
        responder: Responder<Json>,
    ) -> Passing {
        let name = (command == "getfd")
            .then(|| arguments.get("fdname").and_then(Value::as_str))
            .flatten()
            .map(str::to_owned);
        Passing {
            responder,
            client: Arc::clone(client),
            monitor: Arc::clone(monitor),
            name,
            descriptor: monitor
                .local::<Descriptors>()
                .and_then(Descriptors::take_waiting)
                .map(Arc::new),
        }
    }

    /// A command that fails may leave the descriptor where the next client's would find it.
    fn answered(self, result: Result<Json, Error>) -> Vec<Request> {
        match result {
            Ok(json) => {
                if let Some(name) = self.name {
                    self.client.names.add(name);
                }
                self.responder.respond_json(Ok(json));
                Vec::new()
            }
            Err(error) if self.descriptor.is_some() => {
                vec![Request::own("getfd", PROBE, Then::Probe(self, error))]
            }
            Err(error) => {
                self.refused(error, false);
                Vec::new()
            }
        }
    }

    /// Tells the client, which has its descriptor back if it was not taken.
    fn refused(self, error: Error, held: bool) {
        if held
            && let Some(descriptor) = self.descriptor.and_then(Arc::into_inner)
            && let Some(descriptors) = self.monitor.local::<Descriptors>()
        {
            descriptors.give_back(descriptor);
        }
        self.responder.respond_json(Err(self.client.names.restore(error)));
    }
}
