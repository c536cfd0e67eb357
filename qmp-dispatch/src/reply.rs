// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that are sent later.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use qmp_proto::{BoxError, Error, Json, Value};
use serde::Serialize;

use crate::handler::encode_result;
use crate::intercept::Intercepted;
use crate::timers::TimerKey;
use crate::{Dispatcher, Monitor, MonitorId, current};

/// Answers a command, once, from another thread, a callback or a future.
///
/// Passed to the handlers of [deferred commands](crate::Registry::deferred_command). Until it is used, an
/// in-band command counts as being executed. Dropping it unused sends an error, so that a client never waits
/// in vain. If the client has disconnected, the response is dropped.
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
}

impl<T> Responder<T> {
    /// Returns the monitor whose command it is, or `None` if the command has been answered because its deadline has
    /// passed or its handler has panicked.
    pub fn monitor(&self) -> Option<MonitorId> {
        let owed = self.reply.owed.lock().unwrap_or_else(PoisonError::into_inner);
        owed.as_ref().map(|owed| owed.monitor.id())
    }

    /// Whether the client still waits for the response. Becomes false when the deadline of the command passes.
    pub fn is_awaited(&self) -> bool {
        self.reply.is_owed()
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
        f.debug_tuple("Responder").field(&self.reply.command).finish()
    }
}

/// The part of a request that is needed to answer it.
pub(crate) struct Answer {
    pub(crate) id: Option<Value>,
    pub(crate) intercepted: Option<Box<Intercepted>>,
}

/// A response that is owed.
pub(crate) struct Reply {
    command: Cow<'static, str>,
    /// `None` when it has been given: by the responder, its deadline or the handler's panic, whichever is first.
    owed: Arc<Mutex<Option<Owed>>>,
    deadline: Option<(Dispatcher, TimerKey)>,
}

struct Owed {
    monitor: Arc<Monitor>,
    answer: Answer,
    done: Box<dyn FnOnce() + Send>,
}

impl Owed {
    fn settle(self, command: &str, result: Result<Json, Error>) {
        let Owed { monitor, answer, done } = self;
        let command = monitor.dispatcher().registry().find_command(command);
        monitor.respond(answer, command, result);
        done();
    }
}

impl Reply {
    /// `done` is called when the response has been transmitted.
    pub(crate) fn new(
        monitor: &Arc<Monitor>,
        command: Cow<'static, str>,
        deadline: Option<Duration>,
        answer: Answer,
        done: Box<dyn FnOnce() + Send>,
    ) -> Reply {
        let monitor = Arc::clone(monitor);
        let dispatcher = monitor.dispatcher().clone();
        let owed = Arc::new(Mutex::new(Some(Owed { monitor, answer, done })));
        let deadline = deadline.map(|after| {
            let command = command.clone();
            let weak = WeakReply { command, after, owed: Arc::downgrade(&owed) };
            let key = dispatcher.add_deadline(after, weak);
            (dispatcher, key)
        });
        Reply { command, owed, deadline }
    }

    pub(crate) fn send(self, result: Result<Json, Error>) {
        match take(&self.owed) {
            Some(owed) => owed.settle(&self.command, result),
            None => {
                tracing::warn!(command = &*self.command, "an answer came too late");
                if let Some((dispatcher, _)) = &self.deadline {
                    dispatcher.counters().late_answers.count();
                }
            }
        }
    }

    /// Returns a handle that answers the request if the handler panics, wherever it has put the responder.
    pub(crate) fn if_it_panics(&self) -> PanicReply {
        PanicReply { owed: Arc::clone(&self.owed), command: self.command.clone() }
    }

    fn is_owed(&self) -> bool {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn abandon(self) {
        if let Some(Owed { monitor, answer, done }) = take(&self.owed) {
            if let Some(intercepted) = answer.intercepted {
                intercepted.abandon(&monitor);
            }
            done();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some((dispatcher, key)) = self.deadline.take() {
            dispatcher.remove_deadline(key);
        }
        let Some(owed) = take(&self.owed) else { return };
        let command = &*self.command;
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
        owed.settle(command, Err(error));
    }
}

/// The error for a command whose handler or interceptor panics.
pub(crate) fn panicked(command: &str) -> Error {
    Error::generic(format!("The command {command} failed: internal error"))
}

/// Answers a request if its handler panics.
pub(crate) struct PanicReply {
    command: Cow<'static, str>,
    owed: Arc<Mutex<Option<Owed>>>,
}

impl PanicReply {
    /// Sends an error if there has been no response yet.
    pub(crate) fn send(self) {
        if let Some(owed) = take(&self.owed) {
            owed.settle(&self.command, Err(panicked(&self.command)));
        }
    }
}

/// Answers a request when its deadline has passed.
#[derive(Default)]
pub(crate) struct WeakReply {
    command: Cow<'static, str>,
    after: Duration,
    owed: Weak<Mutex<Option<Owed>>>,
}

impl WeakReply {
    /// Sends an error if there has been no response yet.
    pub(crate) fn expire(self) {
        let Some(owed) = self.owed.upgrade().and_then(|owed| take(&owed)) else { return };
        let WeakReply { command, after, .. } = self;
        tracing::warn!(command = &*command, ?after, "no answer within the deadline");
        owed.monitor.dispatcher().counters().deadlines_passed.count();
        let seconds = after.as_secs_f64();
        let error = format!("The command {command} was not answered within {seconds} seconds");
        owed.settle(&command, Err(Error::generic(error)));
    }
}

fn take(owed: &Mutex<Option<Owed>>) -> Option<Owed> {
    owed.lock().unwrap_or_else(PoisonError::into_inner).take()
}
