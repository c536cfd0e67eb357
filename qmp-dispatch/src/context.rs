// SPDX-License-Identifier: MIT OR Apache-2.0
//! The context of a request that is being executed.

use std::sync::Arc;

use qmp_proto::Band;
use scoped_tls::scoped_thread_local;
use serde::Serialize;

use crate::{Dispatcher, EmitError, EventType, Monitor};

/// The context of a handler: the monitor whose request it serves, and the band.
///
/// Borrowed by the handler. Work that continues on another thread keeps a clone of the
/// [monitor](Context::monitor) or of the [dispatcher](Context::dispatcher).
#[derive(Clone, Copy, Debug)]
pub struct Context<'m> {
    monitor: &'m Arc<Monitor>,
    band: Band,
}

impl<'m> Context<'m> {
    pub(crate) fn new(monitor: &'m Arc<Monitor>, band: Band) -> Context<'m> {
        Context { monitor, band }
    }

    /// Returns the monitor whose request is being served.
    pub fn monitor(&self) -> &'m Arc<Monitor> {
        self.monitor
    }

    /// Returns whether the request was sent with `execute` or with `exec-oob`.
    pub fn band(&self) -> Band {
        self.band
    }

    /// Returns the dispatcher that the monitor belongs to.
    pub fn dispatcher(&self) -> &'m Dispatcher {
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
}

scoped_thread_local!(static CURRENT: Arc<Monitor>);

/// Returns the monitor whose request is being served on this thread; `None` outside of handlers.
///
/// For code below a handler that has no access to its [`Context`]. Mirrors QEMU's `monitor_cur()`. Scopes nest:
/// if a handler executes a request itself, the inner monitor is the current one until that has ended, even by a
/// panic, and then the outer one is again.
pub fn current() -> Option<Arc<Monitor>> {
    CURRENT.is_set().then(|| CURRENT.with(Arc::clone))
}

/// Makes a monitor the current one while the function runs, however it ends.
pub(crate) fn with_current<T>(monitor: &Arc<Monitor>, run: impl FnOnce() -> T) -> T {
    CURRENT.set(monitor, run)
}
