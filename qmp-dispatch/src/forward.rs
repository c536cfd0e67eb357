// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that are served elsewhere.

use qmp_proto::{Json, Object};

use crate::{Context, Responder};

/// Serves the commands that are not registered, for a proxy in front of another server.
///
/// Set with [`Registry::forwarding`](crate::Registry::forwarding). It gets every well-formed request
/// for a command that the registry does not have, in-band as well as out-of-band, after the
/// interceptors and after negotiation. Whether there is such a command, whether it may be executed
/// out-of-band and whether its arguments are right is for whoever serves it to find out.
///
/// Called as a handler is, and must no more block than one: it hands the request on, and answers
/// with the [`Responder`] later.
///
/// ```
/// use qmp_dispatch::proto::{Error, Json};
/// use qmp_dispatch::{Context, Forwarded, Registry, Responder};
///
/// let registry = Registry::forwarding(
///     |_: &Context, request: Forwarded, responder: Responder<Json>| {
///         responder.respond_json(Err(Error::command_not_found(&request.command)));
///     },
/// );
/// assert_eq!(registry.commands().len(), 1, "qmp_capabilities");
/// ```
pub trait Forwarder: Send + Sync + 'static {
    /// Begins to serve one request.
    fn forward(&self, context: &Context, request: Forwarded, responder: Responder<Json>);
}

impl<F> Forwarder for F
where
    F: Fn(&Context, Forwarded, Responder<Json>) + Send + Sync + 'static,
{
    fn forward(&self, context: &Context, request: Forwarded, responder: Responder<Json>) {
        self(context, request, responder);
    }
}

/// A request for a [`Forwarder`]. Its band is that of the [`Context`].
///
/// ```
/// use qmp_dispatch::proto::{Json, Object};
/// use qmp_dispatch::{Context, Forwarded, LocalClient, Registry, Responder};
///
/// let registry = Registry::forwarding(
///     |_: &Context, request: Forwarded, responder: Responder<Json>| {
///         assert_eq!(request.command, "balloon");
///         assert_eq!(request.arguments, Object::from_iter([("value", 5)]));
///         assert_eq!(request.text.unwrap().as_str(), "{\"value\":5}", "not as we write it");
///         responder.respond_json(Ok(Json::EMPTY_OBJECT));
///     },
/// );
/// let client = LocalClient::new(registry);
/// let said = client.ask(r#"{"execute": "balloon", "arguments": {"value":5}}"#);
/// assert_eq!(said, [r#"{"return": {}}"#]);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Forwarded {
    /// The name of the command.
    pub command: String,
    /// The arguments, parsed.
    pub arguments: Object,
    /// The arguments as the client has written them, if they are plain JSON; `None` if there are none.
    pub text: Option<Json>,
}

impl Forwarded {
    pub(crate) fn new(command: String, arguments: Object, text: Option<Json>) -> Forwarded {
        Forwarded { command, arguments, text }
    }
}
