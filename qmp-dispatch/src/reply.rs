// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers that are given later.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use qmp_proto::{Error, Json, Value};
use serde::Serialize;

use crate::Monitor;
use crate::handler::encode_result;

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

impl<T: Serialize + 'static> Responder<T> {
    pub(crate) fn new(reply: Reply) -> Responder<T> {
        Responder { reply, result: PhantomData }
    }

    /// Answers the command.
    pub fn respond<E: Into<Error>>(self, result: Result<T, E>) {
        self.reply.send(result.map_err(Into::into).and_then(|value| encode_result(&value)));
    }
}

impl<T> fmt::Debug for Responder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Responder").field(&self.reply.command()).finish()
    }
}

/// The answer that a request is still owed.
pub(crate) struct Reply {
    /// `None` when it has been given.
    owed: Option<Owed>,
}

struct Owed {
    monitor: Arc<Monitor>,
    command: &'static str,
    id: Option<Value>,
    success_response: bool,
    done: Box<dyn FnOnce() + Send>,
}

impl Reply {
    /// `done` is called when the answer has been transmitted.
    pub(crate) fn new(
        monitor: Arc<Monitor>,
        command: &crate::Command,
        id: Option<Value>,
        done: Box<dyn FnOnce() + Send>,
    ) -> Reply {
        let success_response = command.has_success_response();
        Reply { owed: Some(Owed { monitor, command: command.name(), id, success_response, done }) }
    }

    fn command(&self) -> Option<&'static str> {
        self.owed.as_ref().map(|owed| owed.command)
    }

    pub(crate) fn send(mut self, result: Result<Json, Error>) {
        self.settle(|_| result);
    }

    fn settle(&mut self, result: impl FnOnce(&'static str) -> Result<Json, Error>) {
        if let Some(owed) = self.owed.take() {
            let result = result(owed.command);
            owed.monitor.respond(owed.id, result, owed.success_response);
            (owed.done)();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.settle(|command| {
            tracing::error!(command, "a responder was dropped without an answer");
            Err(Error::generic(format!("The command {command} was not answered")))
        });
    }
}
