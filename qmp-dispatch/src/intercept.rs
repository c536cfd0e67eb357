// SPDX-License-Identifier: MIT OR Apache-2.0
//! Code of the embedder around every command.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use qmp_proto::{Error, Json, Request};

use crate::Monitor;

/// A request on its way to its command, or back.
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
/// with an error.
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
    /// Called before anything is done about a request. `Break` answers it instead of the command,
    /// and of the interceptors further in.
    fn before(&self, call: &Call<'_>) -> ControlFlow<Result<Json, Error>> {
        let _ = call;
        ControlFlow::Continue(())
    }

    /// Called when the outcome is known, just before the client is told; `duration` is the time
    /// since the request was about to be executed. Not called if this interceptor, or one further
    /// out, has answered itself.
    fn after(&self, call: &Call<'_>, outcome: &Result<Json, Error>, duration: Duration) {
        let _ = (call, outcome, duration);
    }
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
            let before = AssertUnwindSafe(|| interceptor.before(&call));
            let flow = catch_unwind(before).unwrap_or_else(|_| {
                tracing::error!(command = request.command, "an interceptor panicked");
                let error = format!("The command {} failed: internal error", request.command);
                ControlFlow::Break(Err(Error::generic(error)))
            });
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

    /// Tells the interceptors of the outcome, the innermost first.
    pub(crate) fn leave(self, monitor: &Arc<Monitor>, outcome: &Result<Json, Error>) {
        let call = Call { monitor, request: &self.request };
        let duration = monitor.dispatcher().now().monotonic.saturating_sub(self.began);
        let interceptors = monitor.dispatcher().registry().interceptors();
        for interceptor in interceptors[..self.entered].iter().rev() {
            let after = AssertUnwindSafe(|| interceptor.after(&call, outcome, duration));
            if catch_unwind(after).is_err() {
                tracing::error!(command = call.request.command, "an interceptor panicked");
            }
        }
    }
}
