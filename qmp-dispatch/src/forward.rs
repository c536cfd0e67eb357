// SPDX-License-Identifier: MIT OR Apache-2.0
//! Forwarding commands that are not registered.

use qmp_proto::{Json, Object};

use crate::{Context, Responder};

/// Serves the commands that are not registered, for a proxy in front of another server.
///
/// Set with [`Registry::forwarding`](crate::Registry::forwarding). It receives every well-formed request for a
/// command that is not registered, in-band and out-of-band, after the interceptors and after negotiation. The
/// other server checks the name of the command, whether it allows out-of-band execution, and its arguments.
///
/// Called like a handler, and should not block: it sends the request on and uses the [`Responder`] later.
pub trait Forwarder: Send + Sync + 'static {
    /// Starts to serve a request.
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
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Forwarded {
    /// The name of the command.
    pub command: String,
    /// The arguments, parsed.
    pub arguments: Object,
    /// The text of the arguments as the client has written it, or written anew if it is not plain JSON; `None`
    /// if there are no arguments.
    pub text: Option<Json>,
    /// What was [noted](crate::RequestState::marked) when another program has handed the request over. Its arguments may
    /// be missing then.
    pub mark: Option<u64>,
}

impl Forwarded {
    pub(crate) fn new(
        command: String,
        arguments: Object,
        text: Option<Json>,
        mark: Option<u64>,
    ) -> Forwarded {
        Forwarded { command, arguments, text, mark }
    }
}
