// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all monitors of a server share.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use qmp_proto::{Capability, Error, Greeting, Json, Layout, Timestamp, Version};

use crate::audience::Audience;
use crate::command::Protocol;
use crate::handover::MonitorState;
use crate::intercept;
use crate::monitor::{Greeted, Monitor, MonitorId, Output};
use crate::stats::{Counters, DispatcherStats};
use crate::timers::Timers;
use crate::{Command, Locals, Registry};

/// The commands and events of a server, and its monitors. Cloning gives another handle.
#[derive(Clone)]
pub struct Dispatcher {
    pub(crate) shared: Arc<Shared>,
}

/// None of the locks here is held while code of the embedder runs, apart from [`Output`] and an [update](Dispatcher::update).
pub(crate) struct Shared {
    /// Replaced as a whole by each update, so that a reader never waits.
    registry: ArcSwap<Registry>,
    /// Held by an update, so that none is lost.
    updating: Mutex<()>,
    /// Whether there is a forwarder. It never changes.
    forwards: bool,
    /// What clients speak. It never changes.
    protocol: Protocol,
    /// Whether any async command is registered, or has been: set before such a registry can be seen.
    has_async_commands: AtomicBool,
    greeting: Mutex<Greeting>,
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    /// Whether the machine is yet to be initialized.
    preconfig: AtomicBool,
    /// Whether results and data of events are checked against their types in release builds, too.
    checks_output: AtomicBool,
    last_id: AtomicU64,
    pub(crate) timers: Timers,
    pub(crate) audience: Audience,
    pub(crate) counters: Counters,
}

/// The [registry](Dispatcher::registry) of a dispatcher at one moment. Later [updates](Dispatcher::update) do not show in it.
pub struct Snapshot(Guard<Arc<Registry>>);

impl Deref for Snapshot {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.0
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Registry::fmt(self, f)
    }
}

/// The current time, supplied by the embedder. This crate never reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// The time of day, for the timestamps of events.
    pub wall: Timestamp,
    /// The time since a fixed moment, for rate limits and deadlines. Never decreases.
    pub monotonic: Duration,
}

impl Dispatcher {
    /// Creates a dispatcher without monitors.
    ///
    /// `version` is what greetings and `query-version` report. `clock` is called on the threads that emit events
    /// or execute commands.
    pub fn new(
        registry: Registry,
        version: Version,
        clock: impl Fn() -> Time + Send + Sync + 'static,
    ) -> Dispatcher {
        let shared = Shared {
            forwards: registry.forwarder().is_some(),
            protocol: registry.protocol(),
            has_async_commands: AtomicBool::new(registry.has_async_commands()),
            registry: ArcSwap::from_pointee(registry),
            updating: Mutex::new(()),
            greeting: Mutex::new(Greeting::new(version, vec![Capability::OOB])),
            clock: Box::new(clock),
            preconfig: AtomicBool::new(false),
            checks_output: AtomicBool::new(false),
            last_id: AtomicU64::new(0),
            timers: Timers::new(),
            audience: Audience::default(),
            counters: Counters::default(),
        };
        Dispatcher { shared: Arc::new(shared) }
    }

    /// Creates a monitor for a client that has connected, and greets the client, unless it speaks as to a [guest
    /// agent](Registry::for_agent). Dropping the monitor
    /// disconnects it from the dispatcher. See the [crate's example](crate#a-client-elsewhere).
    pub fn connect(&self, output: Arc<dyn Output>, layout: Layout, locals: Locals) -> Arc<Monitor> {
        let id = MonitorId::new(self.shared.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let greeting = self.greeting();
        let monitor = self.add(id, output, layout, locals, Greeted::with(&greeting));
        if self.protocol() == Protocol::Qmp {
            monitor.greet(&greeting);
        }
        monitor
    }

    /// Gives no monitor a number up to this one, but those that [go on](Dispatcher::reconnect).
    pub fn reserve_ids(&self, last: u64) {
        self.shared.last_id.fetch_max(last, Ordering::Relaxed);
    }

    /// Goes on with a connection that another program had: like [`connect`](Dispatcher::connect), but the client is not
    /// greeted again, and is as far as it was. Its number must have been [reserved](Dispatcher::reserve_ids).
    pub fn reconnect(
        &self,
        output: Arc<dyn Output>,
        layout: Layout,
        locals: Locals,
        state: &MonitorState,
    ) -> Arc<Monitor> {
        self.reserve_ids(state.id);
        let monitor = self.add(MonitorId::new(state.id), output, layout, locals, state.greeted);
        monitor.resume(state);
        monitor
    }

    fn add(
        &self,
        id: MonitorId,
        output: Arc<dyn Output>,
        layout: Layout,
        locals: Locals,
        greeted: Greeted,
    ) -> Arc<Monitor> {
        let locals = self.registry().complete(locals);
        let monitor = Monitor::new(id, self.clone(), output, layout, locals, greeted);
        let monitor = Arc::new(monitor);
        intercept::connected(&monitor);
        monitor
    }

    /// Returns the version that greetings and `query-version` report.
    pub fn version(&self) -> Version {
        self.greeting().version
    }

    /// Sets the greeting of clients that connect from now on, for a [`Forwarder`](crate::Forwarder) that
    /// knows the server it forwards to. By default, out-of-band execution is offered. A client cannot enable it if
    /// its greeting has not offered it.
    pub fn set_greeting(&self, greeting: Greeting) {
        *self.shared.greeting.lock().unwrap_or_else(PoisonError::into_inner) = greeting;
    }

    /// Returns the greeting.
    pub fn greeting(&self) -> Greeting {
        self.shared.greeting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Enables or disables a command for all monitors, from now on. Returns whether there is a command of that
    /// name. Introspection shows disabled commands, as in QEMU.
    pub fn set_enabled(&self, command: &str, enabled: bool) -> bool {
        let registry = self.registry();
        let command = registry.find_command(command);
        command.inspect(|command| command.set_enabled(enabled)).is_some()
    }

    /// Sets whether the machine is yet to be initialized. Until then, only commands that
    /// [allow it](crate::Command::allow_preconfig) are executed. Mirrors QEMU's `--preconfig`.
    pub fn set_preconfig(&self, preconfig: bool) {
        self.shared.preconfig.store(preconfig, Ordering::Release);
    }

    /// Whether the machine is yet to be initialized.
    pub fn is_preconfig(&self) -> bool {
        self.shared.preconfig.load(Ordering::Acquire)
    }

    /// Returns the commands and events as they are now.
    pub fn registry(&self) -> Snapshot {
        Snapshot(self.shared.registry.load())
    }

    /// Adds or removes commands and events while the server runs, all at once or, if the function fails, not at all.
    ///
    /// Requests that are being executed keep their command. Those that wait are executed as things are when their turn comes.
    /// The schema that clients get is made anew. The function must not call `update` itself, which would wait for ever, nor
    /// replace the registry by another one.
    ///
    /// # Errors
    ///
    /// Those of the function.
    pub fn update<T, E>(&self, change: impl FnOnce(&mut Registry) -> Result<T, E>) -> Result<T, E> {
        let _updating = self.shared.updating.lock().unwrap_or_else(PoisonError::into_inner);
        let mut registry = self.shared.registry.load().snapshot();
        let changed = change(&mut registry)?;
        if registry.has_async_commands() {
            self.shared.has_async_commands.store(true, Ordering::Release);
        }
        self.shared.registry.store(Arc::new(registry));
        Ok(changed)
    }

    /// Whether there may be [async commands](Registry::async_command): `false` spares looking one up.
    pub fn has_async_commands(&self) -> bool {
        self.shared.has_async_commands.load(Ordering::Acquire)
    }

    /// Whether commands that are not registered are [forwarded](crate::Registry::forwarding).
    pub fn forwards(&self) -> bool {
        self.shared.forwards
    }

    /// Whether clients speak as to a [guest agent](Registry::for_agent).
    pub fn is_for_agent(&self) -> bool {
        self.protocol() == Protocol::Agent
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.shared.protocol
    }

    /// Returns what has been done so far. The figures may be of slightly different moments.
    pub fn stats(&self) -> DispatcherStats {
        self.counters().read()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub(crate) fn audience(&self) -> &Audience {
        &self.shared.audience
    }

    pub(crate) fn now(&self) -> Time {
        (self.shared.clock)()
    }

    /// Returns the result of a command as clients get it, or an error if it is checked and is not of its type.
    pub(crate) fn finish_result(
        &self,
        registry: &Registry,
        command: &Command,
        json: Json,
    ) -> Result<Json, Error> {
        if self.checks_output()
            && let Err(Error { desc, .. }) = command.result().check(&json)
        {
            let name = command.name();
            tracing::error!(command = name, reason = &*desc, "a result is not of its type");
            let error = format!("The result of {name} is not of its type: {desc}");
            return Err(Error::generic(error));
        }
        Ok(command.result().shown(registry.policy(), json))
    }

    pub(crate) fn checks_output(&self) -> bool {
        cfg!(debug_assertions) || self.shared.checks_output.load(Ordering::Relaxed)
    }

    /// Checks results and events from now on, as debug builds always do.
    pub(crate) fn check_output(&self) {
        self.shared.checks_output.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("registry", &*self.registry())
            .field("greeting", &self.greeting())
            .finish_non_exhaustive()
    }
}
