// SPDX-License-Identifier: MIT OR Apache-2.0
//! The context of an async handler.

use std::fmt;
use std::sync::Arc;

use qmp_proto::Band;
use serde::Serialize;

use crate::closing::Closed;
use crate::reply::OpenRequest;
use crate::{Dispatcher, EmitError, EventType, Monitor};

/// The context of an async handler: a [`Context`](crate::Context) that is owned, and notified when nobody waits for
/// the response any more. Cloning gives another handle.
#[derive(Clone)]
pub struct AsyncContext {
    monitor: Arc<Monitor>,
    band: Band,
    request: Arc<OpenRequest>,
}

impl AsyncContext {
    pub(crate) fn new(
        monitor: &Arc<Monitor>,
        band: Band,
        request: &Arc<OpenRequest>,
    ) -> AsyncContext {
        AsyncContext { monitor: Arc::clone(monitor), band, request: Arc::clone(request) }
    }

    /// Returns the monitor whose request is being served.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    /// Returns whether the request was sent with `execute` or with `exec-oob`.
    pub fn band(&self) -> Band {
        self.band
    }

    /// Returns the dispatcher that the monitor belongs to.
    pub fn dispatcher(&self) -> &Dispatcher {
        self.monitor.dispatcher()
    }

    /// Emits an event to every negotiated monitor; see [`Dispatcher::emit`].
    ///
    /// # Errors
    ///
    /// As [`Dispatcher::emit`].
    pub fn emit<T: Serialize + 'static>(
        &self,
        event: &EventType<T>,
        data: &T,
    ) -> Result<(), EmitError> {
        self.dispatcher().emit(event, data)
    }

    /// Whether the client still waits for the response: it has not been sent, its [deadline](crate::Command::deadline)
    /// has not passed, and the client has not [disconnected](Monitor::close).
    pub fn is_awaited(&self) -> bool {
        self.request.is_awaited()
    }

    /// Completes when the response is not [awaited](AsyncContext::is_awaited) any more. A handler that can stop half way
    /// selects between this and its work; one that must not be stopped ignores it.
    ///
    /// ```
    /// use std::future::{Future, poll_fn};
    /// use std::pin::pin;
    /// use std::task::Poll;
    ///
    /// use qmp_dispatch::AsyncContext;
    /// use qmp_dispatch::proto::Error;
    ///
    /// async fn copy_blocks(context: AsyncContext) -> Result<u64, Error> {
    ///     let mut closed = pin!(context.closed());
    ///     let mut copied = pin!(async { 42 });
    ///     // What `select!` of an async runtime does:
    ///     poll_fn(|cx| match (closed.as_mut().poll(cx), copied.as_mut().poll(cx)) {
    ///         (_, Poll::Ready(blocks)) => Poll::Ready(Ok(blocks)),
    ///         (Poll::Ready(()), _) => Poll::Ready(Err(Error::generic("The copy was stopped"))),
    ///         _ => Poll::Pending,
    ///     })
    ///     .await
    /// }
    /// ```
    pub fn closed(&self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        Closed::new(&self.request)
    }
}

impl fmt::Debug for AsyncContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncContext")
            .field("monitor", &self.monitor)
            .field("band", &self.band)
            .finish_non_exhaustive()
    }
}
