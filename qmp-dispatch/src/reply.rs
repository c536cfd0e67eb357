// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers that are given later.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use qmp_proto::{Error, Json, Value};
use serde::Serialize;

use crate::handler::encode_result;
use crate::intercept::Intercepted;
use crate::timers::TimerKey;
use crate::{Dispatcher, Monitor, MonitorId, current};

/// Answers a command, once, from wherever its work ends: another thread, a callback, a future.
///
/// Handed to the handlers of [deferred commands](crate::Registry::deferred_command). Until it has
/// been used, an in-band command counts as being executed. Dropping it unused answers with an error,
/// so a client is never left waiting; should the client have gone, the answer goes nowhere.
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
    /// Whose command it is; `None` if the client waits no more, as its command's deadline has passed.
    pub fn monitor(&self) -> Option<MonitorId> {
        let owed = self.reply.owed.lock().unwrap_or_else(PoisonError::into_inner);
        owed.as_ref().map(|owed| owed.monitor.id())
    }

    /// Whether the client still waits: its command's deadline has not passed.
    ///
    /// ```
    /// use qmp_dispatch::{Context, Registry, Responder, proto::Error};
    ///
    /// let mut registry = Registry::new();
    /// registry.deferred_command("x-count", |_: &Context, responder: Responder<u64>| {
    ///     std::thread::spawn(move || {
    ///         let counted = (0..1_000_000).take_while(|_| responder.is_awaited()).count();
    ///         responder.respond(Ok::<_, Error>(counted as u64));
    ///     });
    /// })?;
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn is_awaited(&self) -> bool {
        self.reply.is_owed()
    }

    /// Ends the request without an answer, for a server that goes as one does that has been told to
    /// quit: clients see their connections end.
    ///
    /// ```
    /// use qmp_dispatch::{Context, LocalClient, Registry, Responder};
    ///
    /// let mut registry = Registry::new();
    /// registry.deferred_command("quit", |_: &Context, responder: Responder<()>| {
    ///     // The main loop is told to end here.
    ///     responder.abandon();
    /// })?;
    /// assert!(LocalClient::new(registry).ask("{'execute': 'quit'}").is_empty());
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn abandon(self) {
        self.reply.abandon();
    }
}

impl<T: Serialize + 'static> Responder<T> {
    /// Answers the command.
    pub fn respond<E: Into<Error>>(self, result: Result<T, E>) {
        self.reply.send(result.map_err(Into::into).and_then(|value| encode_result(&value)));
    }
}

impl Responder<Json> {
    /// Answers the command with text that there is already.
    pub fn respond_json(self, result: Result<Json, Error>) {
        self.reply.send(result);
    }
}

impl<T> fmt::Debug for Responder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Responder").field(&self.reply.command).finish()
    }
}

/// What is needed to answer a request.
pub(crate) struct Answer {
    pub(crate) id: Option<Value>,
    pub(crate) intercepted: Option<Box<Intercepted>>,
}

/// The answer that a request is still owed, by whoever has this, or by the deadline.
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
    /// `done` is called when the answer has been transmitted.
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

    /// The answer that the handler owes should it panic, wherever it has put the responder.
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

/// What a client is told if the code that serves a command panics.
pub(crate) fn panicked(command: &str) -> Error {
    Error::generic(format!("The command {command} failed: internal error"))
}

/// A [`Reply`] as the panic of its handler sees it.
pub(crate) struct PanicReply {
    command: Cow<'static, str>,
    owed: Arc<Mutex<Option<Owed>>>,
}

impl PanicReply {
    /// Answers with an error, if there is no answer yet.
    pub(crate) fn send(self) {
        if let Some(owed) = take(&self.owed) {
            owed.settle(&self.command, Err(panicked(&self.command)));
        }
    }
}

/// An answer as the deadline sees it.
#[derive(Default)]
pub(crate) struct WeakReply {
    command: Cow<'static, str>,
    after: Duration,
    owed: Weak<Mutex<Option<Owed>>>,
}

impl WeakReply {
    /// Answers with an error, if there is no answer yet.
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
