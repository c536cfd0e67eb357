// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all monitors of a server share.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use qmp_proto::{Capability, Event, Greeting, Json, Layout, Timestamp, Version};
use serde::Serialize;

use crate::monitor::{Monitor, MonitorId, Output};
use crate::qapi::{CommandInfo, Introspection};
use crate::{EmitError, EventType, Locals, Registry};

/// The commands and events of a server, and its monitors. Cloning gives another handle.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    version: Version,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// The result of `query-qmp-schema`, made when it is first asked for.
    schema: OnceLock<Json>,
    monitors: Mutex<Monitors>,
}

#[derive(Default)]
struct Monitors {
    connected: Vec<Weak<Monitor>>,
    last_id: u64,
}

impl Dispatcher {
    /// A dispatcher without monitors.
    ///
    /// `version` is what greetings and `query-version` report. `clock` tells the wall-clock time, as
    /// which an event occurs when it is emitted.
    pub fn new(
        registry: Registry,
        version: Version,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Dispatcher {
        let shared = Shared {
            registry,
            version,
            clock: Box::new(clock),
            schema: OnceLock::new(),
            monitors: Mutex::default(),
        };
        Dispatcher { shared: Arc::new(shared) }
    }

    /// Starts a monitor for a client that has connected, and greets it. It gets what is emitted
    /// until it is dropped.
    pub fn connect(&self, output: Arc<dyn Output>, layout: Layout, locals: Locals) -> Arc<Monitor> {
        let mut monitors = self.monitors();
        monitors.last_id += 1;
        let id = MonitorId::new(monitors.last_id);
        let monitor = Arc::new(Monitor::new(id, self.clone(), output, layout, locals));
        monitors.connected.retain(|monitor| monitor.strong_count() > 0);
        monitors.connected.push(Arc::downgrade(&monitor));
        drop(monitors);
        monitor.greet(&Greeting {
            version: self.shared.version.clone(),
            capabilities: vec![Capability::Oob],
        });
        monitor
    }

    /// Emits an event to every monitor that has completed negotiation.
    ///
    /// From any thread, also from within a handler: the event then comes before the response to its
    /// command. All monitors get all events in the same order.
    ///
    /// # Errors
    ///
    /// [`EmitError`] if the event is not declared in the registry, or its data cannot be written.
    pub fn emit<T: Serialize + 'static>(
        &self,
        event: &EventType<T>,
        data: &T,
    ) -> Result<(), EmitError> {
        let name = event.name();
        if !self.shared.registry.declares(name) {
            return Err(EmitError::Undeclared(name));
        }
        let data = match (data as &dyn Any).is::<()>() {
            true => None,
            false => Some(Json::encode(data).map_err(|source| EmitError::Data { name, source })?),
        };
        // Held until the last monitor has it, so that the order is the same for all.
        let monitors = self.monitors();
        let event = Event { name: name.into(), data, timestamp: (self.shared.clock)() };
        let mut texts = Texts::new(&event);
        for monitor in monitors.connected.iter().filter_map(Weak::upgrade) {
            monitor.deliver(&mut texts);
        }
        Ok(())
    }

    /// What greetings and `query-version` report.
    pub fn version(&self) -> &Version {
        &self.shared.version
    }

    /// The commands and events.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What `query-qmp-schema` returns.
    pub(crate) fn schema(&self) -> &Json {
        self.shared.schema.get_or_init(|| {
            let mut introspection = Introspection::new();
            for command in self.registry().commands() {
                introspection.command(&CommandInfo {
                    name: command.name(),
                    arguments: command.arguments().as_type(),
                    result: command.result(),
                    allow_oob: command.allows_oob(),
                    features: &[],
                });
            }
            for event in self.registry().events() {
                introspection.event(event.name, &event.data, &[]);
            }
            Json::encode(&introspection.finish()).expect("the schema consists of text")
        })
    }

    /// Lets no event be emitted while the guard lives.
    pub(crate) fn hold_events(&self) -> impl Drop + use<'_> {
        self.monitors()
    }

    fn monitors(&self) -> std::sync::MutexGuard<'_, Monitors> {
        self.shared.monitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("registry", &self.shared.registry)
            .field("version", &self.shared.version)
            .finish_non_exhaustive()
    }
}

/// An event as it goes to many monitors: written once per layout.
pub(crate) struct Texts<'e> {
    event: &'e Event,
    compact: Option<String>,
    pretty: Option<String>,
}

impl<'e> Texts<'e> {
    fn new(event: &'e Event) -> Texts<'e> {
        Texts { event, compact: None, pretty: None }
    }

    pub(crate) fn in_layout(&mut self, layout: Layout) -> &str {
        let text = match layout {
            Layout::Compact => &mut self.compact,
            Layout::Pretty => &mut self.pretty,
        };
        text.get_or_insert_with(|| {
            let mut text = String::new();
            self.event.write(layout, &mut text);
            text
        })
    }
}
