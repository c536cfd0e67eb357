// SPDX-License-Identifier: MIT OR Apache-2.0
//! Code of the embedder around every command.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use qmp_proto::{Error, Json, Request, RequestError};

use crate::Monitor;
use crate::panics::{Panic, caught};
use crate::reply::panicked;

/// A request on its way to its command, or back.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use qmp_dispatch::proto::{Error, Json};
/// use qmp_dispatch::{Call, Interceptor, LocalClient, Registry};
///
/// /// Given to the monitors of clients that may end the machine.
/// struct Trusted;
///
/// struct Trust;
///
/// impl Interceptor for Trust {
///     fn before(&self, call: &Call<'_>) -> ControlFlow<Result<Json, Error>> {
///         if call.request.command == "quit" && call.monitor.local::<Trusted>().is_none() {
///             return ControlFlow::Break(Err(Error::generic("not by you")));
///         }
///         ControlFlow::Continue(())
///     }
/// }
///
/// let mut registry = Registry::new();
/// registry.intercept(Trust);
/// let said = LocalClient::new(registry).ask("{'execute': 'quit'}");
/// assert_eq!(said, [r#"{"error": {"class": "GenericError", "desc": "not by you"}}"#]);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// Whose request it is.
    pub monitor: &'a Arc<Monitor>,
    /// The request. Neither has its command been looked up, nor have its arguments been checked.
    pub request: &'a Request,
}

/// Code that runs around every command: for roles, audit, statistics and the like.
///
/// Interceptors are added with [`Registry::intercept`](crate::Registry::intercept). The one that was
/// added first is the outermost: asked first, and told last. They see each well-formed request, that
/// of `qmp_capabilities` and of unknown commands included, on whatever thread executes or answers
/// it; out-of-band requests concurrently with others. One that panics before a command answers it
/// with an error; other panics are logged, and the others are asked all the same.
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
    /// Called when a client has connected, before it is greeted. Here it can be decided which
    /// [commands](Monitor::set_command_filter) it may execute, and which
    /// [events](Monitor::set_event_filter) it gets.
    ///
    /// ```
    /// use qmp_dispatch::{Interceptor, LocalClient, Monitor, Registry};
    ///
    /// /// Everybody may look, and touch nothing.
    /// struct Observers;
    ///
    /// impl Interceptor for Observers {
    ///     fn connected(&self, monitor: &Monitor) {
    ///         monitor.set_command_filter(|command| command.starts_with("query-"));
    ///     }
    /// }
    ///
    /// let mut registry = Registry::new();
    /// registry.intercept(Observers);
    /// let said = LocalClient::new(registry).ask("{'execute': 'stop'}");
    /// assert!(said[0].contains("CommandNotFound"));
    /// ```
    fn connected(&self, monitor: &Monitor) {
        let _ = monitor;
    }

    /// Called when nothing is left of a monitor: its client has gone, and nothing is being executed
    /// for it any more.
    fn disconnected(&self, monitor: &Monitor) {
        let _ = monitor;
    }

    /// Called before anything is done about a request. `Break` answers it instead of the command,
    /// and of the interceptors further in.
    fn before(&self, call: &Call<'_>) -> ControlFlow<Result<Json, Error>> {
        let _ = call;
        ControlFlow::Continue(())
    }

    /// Called when the outcome is known, just before the client is told, who gets what this makes of
    /// it; `duration` is the time since the request was about to be executed. Not called if this
    /// interceptor, or one further out, has answered itself.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use qmp_dispatch::proto::{Error, Json};
    /// use qmp_dispatch::{Call, Interceptor, LocalClient, Registry};
    ///
    /// /// Tells nobody what has gone wrong.
    /// struct Discreet;
    ///
    /// impl Interceptor for Discreet {
    ///     fn after(&self, call: &Call<'_>, outcome: &mut Result<Json, Error>, took: Duration) {
    ///         if let Err(error) = outcome {
    ///             eprintln!("{} failed after {took:?}: {error}", call.request.command);
    ///             error.desc = "ask the operator".into();
    ///         }
    ///     }
    /// }
    ///
    /// let mut registry = Registry::new();
    /// registry.intercept(Discreet);
    /// let said = LocalClient::new(registry).ask("{'execute': 'x'}");
    /// assert!(said[0].contains("ask the operator"));
    /// ```
    fn after(&self, call: &Call<'_>, outcome: &mut Result<Json, Error>, duration: Duration) {
        let _ = (call, outcome, duration);
    }

    /// Called in place of [`after`](Interceptor::after) when there will be no outcome, because the server
    /// [goes](crate::Responder::abandon) without an answer.
    fn abandoned(&self, call: &Call<'_>, duration: Duration) {
        let _ = (call, duration);
    }

    /// Called for what a client has sent that is no request, just before it is told so.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use qmp_dispatch::proto::RequestError;
    /// use qmp_dispatch::{Interceptor, LocalClient, Monitor, Registry};
    ///
    /// #[derive(Default)]
    /// struct Rubbish(Arc<AtomicU64>);
    ///
    /// impl Interceptor for Rubbish {
    ///     fn refused(&self, _: &Arc<Monitor>, refused: &RequestError) {
    ///         assert_eq!(refused.error.desc, "QMP input must be a JSON object");
    ///         self.0.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// }
    ///
    /// let (mut registry, count) = (Registry::new(), Arc::default());
    /// registry.intercept(Rubbish(Arc::clone(&count)));
    /// LocalClient::new(registry).ask("[1]");
    /// assert_eq!(count.load(Ordering::Relaxed), 1);
    /// ```
    fn refused(&self, monitor: &Arc<Monitor>, refused: &RequestError) {
        let _ = (monitor, refused);
    }
}

/// Tells the interceptors of a new client, the outermost first.
pub(crate) fn connected(monitor: &Monitor) {
    for interceptor in monitor.dispatcher().registry().interceptors() {
        spared(|| interceptor.connected(monitor));
    }
}

/// Tells the interceptors that a client has gone, the innermost first.
pub(crate) fn disconnected(monitor: &Monitor) {
    for interceptor in monitor.dispatcher().registry().interceptors().iter().rev() {
        spared(|| interceptor.disconnected(monitor));
    }
}

/// Tells the interceptors of what is no request, the innermost first.
pub(crate) fn refused(monitor: &Arc<Monitor>, refused: &RequestError) {
    for interceptor in monitor.dispatcher().registry().interceptors().iter().rev() {
        spared(|| interceptor.refused(monitor, refused));
    }
}

/// `None` if it panics.
fn spared<T>(call: impl FnOnce() -> T) -> Option<T> {
    let logged = |Panic { reason, place }: &Panic| {
        tracing::error!(reason, place, "an interceptor panicked");
    };
    caught(call).inspect_err(logged).ok()
}

/// A request that interceptors have seen, and are to be told of again.
pub(crate) struct Intercepted {
    request: Request,
    began: Duration,
    /// How many interceptors are to be told.
    entered: usize,
    /// What one of them has answered.
    answered: Option<Result<Json, Error>>,
}

impl Intercepted {
    /// Asks the interceptors, if there are any.
    pub(crate) fn enter(monitor: &Arc<Monitor>, request: &Request) -> Option<Box<Intercepted>> {
        let interceptors = monitor.dispatcher().registry().interceptors();
        if interceptors.is_empty() {
            return None;
        }
        let began = monitor.dispatcher().now().monotonic;
        let call = Call { monitor, request };
        let mut entered = 0;
        let mut answered = None;
        for interceptor in interceptors {
            let flow = spared(|| interceptor.before(&call))
                .unwrap_or_else(|| ControlFlow::Break(Err(panicked(&request.command))));
            if let ControlFlow::Break(answer) = flow {
                answered = Some(answer);
                break;
            }
            entered += 1;
        }
        Some(Box::new(Intercepted { request: request.clone(), began, entered, answered }))
    }

    /// What one of them has answered instead of the command.
    pub(crate) fn take_answer(&mut self) -> Option<Result<Json, Error>> {
        self.answered.take()
    }

    /// Shows the interceptors the outcome, the innermost first.
    pub(crate) fn leave(self, monitor: &Arc<Monitor>, outcome: &mut Result<Json, Error>) {
        self.tell(monitor, |interceptor, call, duration| {
            interceptor.after(call, outcome, duration);
        });
    }

    /// Tells the interceptors that there is no outcome, the innermost first.
    pub(crate) fn abandon(self, monitor: &Arc<Monitor>) {
        self.tell(monitor, Interceptor::abandoned);
    }

    fn tell(
        &self,
        monitor: &Arc<Monitor>,
        mut tell: impl FnMut(&dyn Interceptor, &Call<'_>, Duration),
    ) {
        let call = Call { monitor, request: &self.request };
        let duration = monitor.dispatcher().now().monotonic.saturating_sub(self.began);
        let interceptors = monitor.dispatcher().registry().interceptors();
        for interceptor in interceptors[..self.entered].iter().rev() {
            spared(|| tell(&**interceptor, &call, duration));
        }
    }
}
