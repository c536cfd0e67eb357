// SPDX-License-Identifier: MIT OR Apache-2.0
//! Embedder hooks around commands.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use qmp_proto::{Error, Json, Request, RequestError};

use crate::panics::{Panic, caught};
use crate::reply::panicked;
use crate::{Monitor, Registry};

/// A request that an [`Interceptor`] sees.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// Whose request it is.
    pub monitor: &'a Arc<Monitor>,
    /// The request. Its command and arguments have not been checked.
    pub request: &'a Request,
}

/// Hooks around every command, for roles, audit, statistics and the like.
///
/// Interceptors are added with [`Registry::intercept`](crate::Registry::intercept). The one added first is
/// the outermost: its `before` is called first, and its other methods last. They see each well-formed request,
/// including `qmp_capabilities` and unknown commands, on the thread that executes or answers it, and
/// out-of-band requests concurrently with others. If `before` panics, the request is answered with an error.
/// Other panics are logged, and do not keep the remaining interceptors from being called.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use qmp_dispatch::proto::{Error, ErrorClass, Json};
/// use qmp_dispatch::{Call, Interceptor, Registry};
///
/// /// Lets nobody end the machine.
/// struct NoQuit;
///
/// impl Interceptor for NoQuit {
///     fn before(&self, call: &Call<'_>) -> ControlFlow<Result<Json, Error>> {
///         if call.request.command == "quit" {
///             let desc = "The command quit has been disabled for this instance";
///             return ControlFlow::Break(Err(Error::new(ErrorClass::CommandNotFound, desc)));
///         }
///         ControlFlow::Continue(())
///     }
/// }
///
/// let mut registry = Registry::new();
/// registry.intercept(NoQuit);
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// Called when a client has connected, before it is greeted. Can set the filters of the
    /// [commands](Monitor::add_command_filter) that it may execute and of the
    /// [events](Monitor::add_event_filter) that it gets.
    fn connected(&self, monitor: &Monitor) {
        let _ = monitor;
    }

    /// Called when a monitor is dropped: its client has disconnected, and none of its commands is being executed.
    fn disconnected(&self, monitor: &Monitor) {
        let _ = monitor;
    }

    /// Called before a request is checked and executed. `Break` answers it in place of the command and of the
    /// interceptors further inside.
    fn before(&self, call: &Call<'_>) -> ControlFlow<Result<Json, Error>> {
        let _ = call;
        ControlFlow::Continue(())
    }

    /// Called when the outcome is known, before the response is sent. Can change the outcome. `duration` is the time
    /// since `before` was called. Not called if this interceptor, or one further outside, has answered the request.
    fn after(&self, call: &Call<'_>, outcome: &mut Result<Json, Error>, duration: Duration) {
        let _ = (call, outcome, duration);
    }

    /// Called in place of [`after`](Interceptor::after) if the request is
    /// [abandoned](crate::Responder::abandon) without a response.
    fn abandoned(&self, call: &Call<'_>, duration: Duration) {
        let _ = (call, duration);
    }

    /// Called for a message that is not a request, before the error response is sent.
    fn refused(&self, monitor: &Arc<Monitor>, refused: &RequestError) {
        let _ = (monitor, refused);
    }
}

/// Notifies the interceptors of a new client, the outermost first.
pub(crate) fn connected(monitor: &Monitor) {
    for interceptor in monitor.dispatcher().registry().interceptors() {
        spared(|| interceptor.connected(monitor));
    }
}

/// Notifies the interceptors that a client has disconnected, the innermost first.
pub(crate) fn disconnected(monitor: &Monitor) {
    for interceptor in monitor.dispatcher().registry().interceptors().iter().rev() {
        spared(|| interceptor.disconnected(monitor));
    }
}

/// Notifies the interceptors of a message that is not a request, the innermost first.
pub(crate) fn refused(monitor: &Arc<Monitor>, refused: &RequestError) {
    for interceptor in monitor.dispatcher().registry().interceptors().iter().rev() {
        spared(|| interceptor.refused(monitor, refused));
    }
}

/// Calls code of an interceptor. Returns `None` if it panics.
fn spared<T>(call: impl FnOnce() -> T) -> Option<T> {
    let logged = |Panic { reason, place }: &Panic| {
        tracing::error!(reason, place, "an interceptor panicked");
    };
    caught(call).inspect_err(logged).ok()
}

/// Interceptors have seen a request.
pub(crate) struct Entered {
    began: Duration,
    /// The number of interceptors to notify of the outcome. Later ones may be added in the meantime, after these.
    entered: usize,
    /// The answer of an interceptor in place of the command.
    pub(crate) answer: Option<Result<Json, Error>>,
}

impl Entered {
    /// Calls `before` of the interceptors. Returns `None` if there are none.
    pub(crate) fn new(
        monitor: &Arc<Monitor>,
        registry: &Registry,
        request: &Request,
    ) -> Option<Entered> {
        let interceptors = registry.interceptors();
        if interceptors.is_empty() {
            return None;
        }
        let began = monitor.dispatcher().now().monotonic;
        let call = Call { monitor, request };
        let mut entered = 0;
        let mut answer = None;
        for interceptor in interceptors {
            let flow = spared(|| interceptor.before(&call))
                .unwrap_or_else(|| ControlFlow::Break(Err(panicked(&request.command))));
            if let ControlFlow::Break(instead) = flow {
                answer = Some(instead);
                break;
            }
            entered += 1;
        }
        Some(Entered { began, entered, answer })
    }

    /// Keeps the request until its outcome is known.
    pub(crate) fn keep(self, request: Request) -> Box<Intercepted> {
        Box::new(Intercepted { request, entered: self })
    }

    /// Calls `after` of the interceptors, the innermost first.
    pub(crate) fn leave(
        &self,
        monitor: &Arc<Monitor>,
        request: &Request,
        outcome: &mut Result<Json, Error>,
    ) {
        self.tell(monitor, request, |interceptor, call, duration| {
            interceptor.after(call, outcome, duration);
        });
    }

    fn tell(
        &self,
        monitor: &Arc<Monitor>,
        request: &Request,
        mut tell: impl FnMut(&dyn Interceptor, &Call<'_>, Duration),
    ) {
        let call = Call { monitor, request };
        let duration = monitor.dispatcher().now().monotonic.saturating_sub(self.began);
        let registry = monitor.dispatcher().registry();
        let interceptors = registry.interceptors();
        for interceptor in interceptors[..self.entered].iter().rev() {
            spared(|| tell(&**interceptor, &call, duration));
        }
    }
}

/// A request that interceptors have seen, and whose outcome they will see.
pub(crate) struct Intercepted {
    request: Request,
    entered: Entered,
}

impl Intercepted {
    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    /// Calls `after` of the interceptors, the innermost first.
    pub(crate) fn leave(self, monitor: &Arc<Monitor>, outcome: &mut Result<Json, Error>) {
        self.entered.leave(monitor, &self.request, outcome);
    }

    /// Calls `abandoned` of the interceptors, the innermost first.
    pub(crate) fn abandon(self, monitor: &Arc<Monitor>) {
        self.entered.tell(monitor, &self.request, Interceptor::abandoned);
    }
}
