// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that are sent later.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use qmp_proto::{Band, BoxError, Error, Json, Object, Request, Value};
use serde::{Deserialize, Serialize};

use crate::closing::{Callback, Wakers};
use crate::handler::encode_result;
use crate::handover::RequestState;
use crate::intercept::Intercepted;
use crate::timers::TimerKey;
use crate::{Command, Dispatcher, Monitor, MonitorId, current};

/// Answers a command, once, from another thread, a callback or a future.
///
/// Passed to the handlers of [deferred commands](crate::Registry::deferred_command). Until it is used, an
/// in-band command counts as being executed. Dropping it unused sends an error, so that a client never waits
/// in vain. If the client has disconnected, the response is dropped, and there is nothing wrong with dropping this.
///
/// ```
/// use qmp_dispatch::{Context, Registry, Responder};
/// use qmp_dispatch::proto::Error;
///
/// let mut registry = Registry::new();
/// registry.deferred_command("x-later", |_: &Context, responder: Responder<u64>| {
///     std::thread::spawn(move || responder.respond(Ok::<_, Error>(42)));
/// })?;
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
#[must_use = "dropping a responder answers with an error"]
pub struct Responder<T> {
    reply: Reply,
    result: PhantomData<fn(T)>,
}

impl<T> Responder<T> {
    pub(crate) fn new(reply: Reply) -> Responder<T> {
        Responder { reply, result: PhantomData }
    }

    #[cfg(test)]
    pub(crate) fn request(&self) -> &Arc<OpenRequest> {
        self.reply.request()
    }
}

impl<T> Responder<T> {
    /// Returns the monitor whose command it is, or `None` if the command has been answered because its deadline has
    /// passed or its handler has panicked.
    pub fn monitor(&self) -> Option<MonitorId> {
        self.reply.request.owed().as_ref().map(|owed| owed.monitor.id())
    }

    /// Whether the client still waits for the response: its [deadline](crate::Command::deadline) has not passed, and the
    /// client has not [disconnected](Monitor::close).
    pub fn is_awaited(&self) -> bool {
        self.reply.request.is_awaited()
    }

    /// Calls a function once, when the response is not [awaited](Responder::is_awaited) any more, so that the work for it can
    /// be stopped: on the thread that closes the monitor, that handles timeouts, or that answers, for it is called
    /// after a response, too. Called at once if that is so already. Must not block.
    pub fn on_closed(&self, callback: impl FnOnce() + Send + 'static) {
        let waker = Callback::waker(callback);
        if self.reply.request.add_waker(None, &waker).is_none() {
            waker.wake();
        }
    }

    /// Returns the request as data, for another program that answers it; `None` if nobody waits for the response any more.
    /// Its arguments are missing, unless interceptors have kept them.
    pub fn state(&self, band: Band) -> Option<RequestState> {
        self.reply.state(band, None)
    }

    /// Like [`state`](Responder::state), with arguments: for a request whose handler begins anew in the other program.
    pub fn state_with(&self, band: Band, arguments: Object) -> Option<RequestState> {
        self.reply.state(band, Some(arguments))
    }

    /// Ends the request without a response, for a server that is quitting: clients see their connections end.
    pub fn abandon(self) {
        self.reply.abandon();
    }
}

impl<T: Serialize + 'static> Responder<T> {
    /// Sends the response. Errors become responses as those of a [`Handler`](crate::Handler).
    pub fn respond<E: Into<BoxError>>(self, result: Result<T, E>) {
        let result = result.map_err(|error| error.into().into());
        self.reply.send(result.and_then(|value| encode_result(&value)));
    }
}

impl Responder<Json> {
    /// Sends the response, with a result that is encoded already.
    pub fn respond_json(self, result: Result<Json, Error>) {
        self.reply.send(result);
    }
}

impl<T> fmt::Debug for Responder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Responder").field(&self.reply.command()).finish()
    }
}

/// The part of a request that is needed to answer it.
pub(crate) struct Answer {
    pub(crate) id: Option<Value>,
    pub(crate) intercepted: Option<Box<Intercepted>>,
}

/// What serves a request.
pub(crate) enum Served {
    /// A command, kept also if it is removed in the meantime.
    Registered(Arc<Command>),
    /// The forwarder, and the name of the command.
    Forwarded(String),
}

impl Served {
    fn name(&self) -> &str {
        match self {
            Served::Registered(command) => command.name(),
            Served::Forwarded(name) => name,
        }
    }
}

/// A request that is being executed, for those who answer it and those who want to know when it is closed: answered,
/// past its deadline, or of a client that has disconnected.
pub(crate) struct OpenRequest {
    served: Served,
    /// `None` when the response has been given: by the responder, its deadline or the handler's panic, whichever is first.
    owed: Mutex<Option<Owed>>,
}

/// How long a request may take, and how much of that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deadline {
    pub(crate) after: Duration,
    pub(crate) left: Duration,
}

struct Owed {
    monitor: Arc<Monitor>,
    answer: Answer,
    done: Box<dyn FnOnce() + Send>,
    wakers: Wakers,
}

impl Owed {
    fn settle(self, served: &Served, result: Result<Json, Error>) {
        let Owed { monitor, answer, done, wakers } = self;
        match served {
            Served::Registered(command) => {
                let dispatcher = monitor.dispatcher();
                let registry = dispatcher.registry();
                let finish = |json| dispatcher.finish_result(&registry, command, json);
                monitor.respond(answer, Some(command), result.and_then(finish));
            }
            Served::Forwarded(_) => monitor.respond(answer, None, result),
        }
        done();
        wakers.wake(monitor.open_requests());
    }

    /// Ends the request without a response.
    fn abandon(self) {
        let Owed { monitor, answer, done, wakers } = self;
        if let Some(intercepted) = answer.intercepted {
            intercepted.abandon(&monitor);
        }
        done();
        wakers.wake(monitor.open_requests());
    }
}

impl OpenRequest {
    pub(crate) fn is_awaited(&self) -> bool {
        self.owed().as_ref().is_some_and(|owed| !owed.monitor.is_closed())
    }

    /// Wakes this when the request is closed; `key` is that of the waker it replaces. Returns `None` if it is closed.
    pub(crate) fn add_waker(self: &Arc<Self>, key: Option<u64>, waker: &Waker) -> Option<u64> {
        let waker = waker.clone();
        // Dropped with nothing locked, like `waker`: it may be the last handle of a task, which may have wakers here.
        let _replaced;
        let mut owed = self.owed();
        let Owed { monitor, wakers, .. } = owed.as_mut()?;
        let key = wakers.key(key, self, monitor.open_requests())?;
        _replaced = wakers.set(key, waker);
        Some(key)
    }

    pub(crate) fn remove_waker(&self, key: u64) {
        // As in `add_waker`.
        let waker = self.owed().as_mut().and_then(|owed| owed.wakers.remove(key));
        drop(waker);
    }

    pub(crate) fn take_wakers(&self) -> Wakers {
        self.owed().as_mut().map(|owed| owed.wakers.take()).unwrap_or_default()
    }

    fn take(&self) -> Option<Owed> {
        self.owed().take()
    }

    fn owed(&self) -> MutexGuard<'_, Option<Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response that is owed.
pub(crate) struct Reply {
    request: Arc<OpenRequest>,
    deadline: Option<(Dispatcher, TimerKey, Duration)>,
}

impl Reply {
    /// `done` is called when the response has been transmitted.
    pub(crate) fn new(
        monitor: &Arc<Monitor>,
        served: Served,
        deadline: Option<Deadline>,
        answer: Answer,
        done: Box<dyn FnOnce() + Send>,
    ) -> Reply {
        let monitor = Arc::clone(monitor);
        let dispatcher = monitor.dispatcher().clone();
        let owed = Mutex::new(Some(Owed { monitor, answer, done, wakers: Wakers::default() }));
        let request = Arc::new(OpenRequest { served, owed });
        let deadline = deadline.map(|Deadline { after, left }| {
            let weak = WeakReply { after, request: Arc::downgrade(&request) };
            let key = dispatcher.add_deadline(left, weak);
            (dispatcher, key, after)
        });
        Reply { request, deadline }
    }

    pub(crate) fn command(&self) -> &str {
        self.request.served.name()
    }

    pub(crate) fn request(&self) -> &Arc<OpenRequest> {
        &self.request
    }

    fn state(&self, band: Band, arguments: Option<Object>) -> Option<RequestState> {
        let owed = self.request.owed();
        let owed = owed.as_ref().filter(|owed| !owed.monitor.is_closed())?;
        let mut request = match &owed.answer.intercepted {
            Some(intercepted) => intercepted.request().clone(),
            None => Request::new(self.command()),
        };
        (request.id, request.band) = (owed.answer.id.clone(), band);
        if let Some(arguments) = arguments {
            request.arguments = arguments;
        }
        let deadline = self.deadline.as_ref().map(|(dispatcher, key, after)| {
            let left = key.left(dispatcher.now().monotonic);
            Deadline { after: *after, left }
        });
        let mut state = RequestState::of(&request, None);
        state.deadline = deadline;
        Some(state)
    }

    pub(crate) fn send(self, result: Result<Json, Error>) {
        match self.request.take() {
            Some(owed) => owed.settle(&self.request.served, result),
            None => {
                tracing::warn!(command = self.command(), "an answer came too late");
                if let Some((dispatcher, ..)) = &self.deadline {
                    dispatcher.counters().late_answers.count();
                }
            }
        }
    }

    /// Returns a handle that answers the request if the handler panics, wherever it has put the responder.
    pub(crate) fn if_it_panics(&self) -> PanicReply {
        PanicReply(Arc::clone(&self.request))
    }

    pub(crate) fn abandon(self) {
        if let Some(owed) = self.request.take() {
            owed.abandon();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some((dispatcher, key, _)) = self.deadline.take() {
            dispatcher.remove_deadline(key);
        }
        let Some(owed) = self.request.take() else { return };
        let command = self.command();
        if owed.monitor.is_closed() && !thread::panicking() {
            return owed.abandon();
        }
        let error = if !thread::panicking() {
            tracing::error!(command, "a responder was dropped without an answer");
            Error::generic(format!("The command {command} was not answered"))
        } else {
            // The panic of a handler is logged by the thread that catches it.
            if current().is_none() {
                tracing::error!(command, "a responder was dropped by a panic");
            }
            panicked(command)
        };
        owed.settle(&self.request.served, Err(error));
    }
}

/// The error for a command whose handler or interceptor panics.
pub(crate) fn panicked(command: &str) -> Error {
    Error::generic(format!("The command {command} failed: internal error"))
}

/// Answers a request if its handler panics.
pub(crate) struct PanicReply(Arc<OpenRequest>);

impl PanicReply {
    /// Sends an error if there has been no response yet.
    pub(crate) fn send(self) {
        if let Some(owed) = self.0.take() {
            owed.settle(&self.0.served, Err(panicked(self.0.served.name())));
        }
    }
}

/// Answers a request when its deadline has passed.
#[derive(Default)]
pub(crate) struct WeakReply {
    after: Duration,
    request: Weak<OpenRequest>,
}

impl WeakReply {
    /// Sends an error if there has been no response yet.
    pub(crate) fn expire(self) {
        let Some(request) = self.request.upgrade() else { return };
        let Some(owed) = request.take() else { return };
        let (command, after) = (request.served.name(), self.after);
        tracing::warn!(command, ?after, "no answer within the deadline");
        owed.monitor.dispatcher().counters().deadlines_passed.count();
        let seconds = after.as_secs_f64();
        let error = format!("The command {command} was not answered within {seconds} seconds");
        owed.settle(&request.served, Err(Error::generic(error)));
    }
}
