// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deadlines of the commands of one monitor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Deadlines of commands by their names, for the monitors that have this among their [`Locals`](crate::Locals).
///
/// A deadline that the [registry](crate::Registry::set_deadline) or the [command](crate::Command::deadline) has for the
/// name goes before, the [default](crate::Registry::set_default_deadline) comes after. Negotiation never has one.
///
/// ```
/// use std::time::Duration;
///
/// use qmp_dispatch::proto::{Band, Json};
/// use qmp_dispatch::{Context, Deadlines, LocalClient, Locals, Registry, Responder};
///
/// let mut registry = Registry::new();
/// registry.deferred_command("x-hang", |_: &Context, responder: Responder<u64>| {
///     // Not answered, and not dropped.
///     std::mem::forget(responder);
/// })?;
/// let quick = |name: &str| name.starts_with("x-").then_some(Duration::from_secs(5));
/// let client = LocalClient::new_with(registry, Locals::default().with(Deadlines::new(quick)));
/// client.send("{'execute': 'x-hang'}");
/// client.advance(Duration::from_secs(5));
/// assert!(client.received()[0].contains("was not answered within 5 seconds"));
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
#[derive(Clone)]
pub struct Deadlines(Arc<Of>);

/// The deadline of the command of this name.
type Of = dyn Fn(&str) -> Option<Duration> + Send + Sync;

impl Deadlines {
    /// Creates deadlines that are looked up by a function from the name of a command, which is called for each request and
    /// should be quick.
    pub fn new(of: impl Fn(&str) -> Option<Duration> + Send + Sync + 'static) -> Deadlines {
        Deadlines(Arc::new(of))
    }

    /// Returns the deadline of the command of this name, if it has one.
    pub fn of(&self, command: &str) -> Option<Duration> {
        (self.0)(command)
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines").finish_non_exhaustive()
    }
}
