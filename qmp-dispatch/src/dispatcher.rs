// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all monitors of a server share.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use qmp_proto::{Capability, Error, Event, Greeting, Json, Layout, Timestamp, Version};
use serde::Serialize;

use crate::audience::Audience;
use crate::intercept;
use crate::monitor::{Monitor, MonitorId, Output};
use crate::reply::WeakReply;
use crate::stats::{Counters, DispatcherStats};
use crate::timers::{Expired, TimerKey, Timers};
use crate::{Command, EmitError, EventType, Locals, Registry, trace};

/// The commands and events of a server, and its monitors. Cloning gives another handle.
///
/// ```
/// use qmp_dispatch::proto::Version;
/// use qmp_dispatch::{Dispatcher, LocalClient, Registry, Time};
///
/// let dispatcher = Dispatcher::new(Registry::new(), Version::new(1, 2, 3, ""), Time::default);
/// let (first, second) = (LocalClient::connect(&dispatcher), LocalClient::connect(&dispatcher));
/// dispatcher.set_enabled("query-commands", false);
/// for client in [first, second] {
///     let said = client.ask("{'execute': 'query-commands'}");
///     assert!(said[0].contains("has been disabled"));
/// }
/// ```
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    greeting: Mutex<Greeting>,
    clock: Box<dyn Fn() -> Time + Send + Sync>,
    /// The result of `query-qmp-schema`, made when it is first asked for.
    schema: OnceLock<Json>,
    /// The machine is yet to be initialized.
    preconfig: AtomicBool,
    /// Whether results and data of events are checked against their types in release builds, too.
    checks_output: AtomicBool,
    timers: Timers,
    last_id: AtomicU64,
    audience: Audience,
    counters: Counters,
}

/// What time it is. Time is never read in this crate, it is told.
///
/// ```
/// use std::time::{Duration, Instant, SystemTime};
///
/// use qmp_dispatch::Time;
/// use qmp_dispatch::proto::Timestamp;
///
/// let start = Instant::now();
/// let clock = move || Time {
///     wall: Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()),
///     monotonic: start.elapsed(),
/// };
/// assert!(clock().wall.seconds > 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// The time of day, for the timestamps of events.
    pub wall: Timestamp,
    /// The time since some fixed moment, which never goes back; for rate limits.
    pub monotonic: Duration,
}

impl Dispatcher {
    /// A dispatcher without monitors.
    ///
    /// `version` is what greetings and `query-version` report. `clock` is asked for the time whenever
    /// an event is emitted.
    ///
    /// ```
    /// use std::time::{Instant, SystemTime};
    ///
    /// use qmp_dispatch::proto::{Timestamp, Version};
    /// use qmp_dispatch::{Dispatcher, Registry, Time};
    ///
    /// let start = Instant::now();
    /// let dispatcher = Dispatcher::new(Registry::new(), Version::new(1, 2, 3, ""), move || Time {
    ///     wall: Timestamp::from_unix(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()),
    ///     monotonic: start.elapsed(),
    /// });
    /// assert_eq!(dispatcher.version().to_string(), "1.2.3");
    /// ```
    pub fn new(
        registry: Registry,
        version: Version,
        clock: impl Fn() -> Time + Send + Sync + 'static,
    ) -> Dispatcher {
        let shared = Shared {
            registry,
            greeting: Mutex::new(Greeting { version, capabilities: vec![Capability::OOB] }),
            clock: Box::new(clock),
            schema: OnceLock::new(),
            preconfig: AtomicBool::new(false),
            checks_output: AtomicBool::new(false),
            timers: Timers::new(),
            last_id: AtomicU64::new(0),
            audience: Audience::default(),
            counters: Counters::default(),
        };
        Dispatcher { shared: Arc::new(shared) }
    }

    /// Starts a monitor for a client that has connected, and greets it. It gets what is emitted
    /// until it is dropped.
    ///
    /// ```
    /// use std::sync::{Arc, mpsc};
    ///
    /// use qmp_dispatch::proto::{Layout, Version};
    /// use qmp_dispatch::{Dispatcher, Locals, Output, Registry, Time};
    ///
    /// struct Lines(mpsc::Sender<String>);
    ///
    /// impl Output for Lines {
    ///     fn transmit(&self, text: &str) {
    ///         // An error means that the client has gone.
    ///         let _ = self.0.send(text.to_owned());
    ///     }
    /// }
    ///
    /// /// Who the client is.
    /// struct Name(&'static str);
    ///
    /// let dispatcher = Dispatcher::new(Registry::new(), Version::new(1, 2, 3, ""), Time::default);
    /// let (lines, said) = mpsc::channel();
    /// let locals = Locals::default().with(Name("libvirt"));
    /// let monitor = dispatcher.connect(Arc::new(Lines(lines)), Layout::Compact, locals);
    /// assert!(said.recv().unwrap().starts_with(r#"{"QMP": "#));
    /// assert_eq!(monitor.local::<Name>().unwrap().0, "libvirt");
    /// ```
    pub fn connect(&self, output: Arc<dyn Output>, layout: Layout, locals: Locals) -> Arc<Monitor> {
        let locals = self.registry().complete(locals);
        let id = MonitorId::new(self.shared.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let monitor = Arc::new(Monitor::new(id, self.clone(), output, layout, locals));
        intercept::connected(&monitor);
        monitor.greet(&self.greeting());
        monitor
    }

    /// Emits an event as it is to every monitor that has completed negotiation: one that somebody
    /// else has emitted, timestamp and all, for a [`Forwarder`](crate::Forwarder).
    ///
    /// It need not be declared, and is not held back by rate limits. As to who gets it and in
    /// which order, it is as if it were [emitted](Dispatcher::emit) here.
    ///
    /// ```
    /// use qmp_dispatch::proto::{Event, Timestamp};
    /// use qmp_dispatch::{LocalClient, Registry};
    ///
    /// let client = LocalClient::new(Registry::new());
    /// let timestamp = Timestamp { seconds: 1, microseconds: 2 };
    /// let event = Event { name: "STOP".into(), data: None, timestamp };
    /// client.monitor().dispatcher().relay(&event);
    /// let line = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}"#;
    /// assert_eq!(client.ask(""), [line]);
    /// ```
    pub fn relay(&self, event: &Event) {
        self.counters().events.count();
        self.audience().deliver(event);
    }

    /// Emits an event to every monitor that has completed negotiation.
    ///
    /// From any thread, also from within a handler: the event then comes before the response to its
    /// command. All monitors get all events in the same order. Nobody gets those that the
    /// [policy](crate::Registry::set_policy) hides.
    ///
    /// # Errors
    ///
    /// [`EmitError`] if the event is not declared in the registry, or with data of another type, or if
    /// its data cannot be written.
    ///
    /// ```
    /// use qmp_dispatch::{EventType, LocalClient, Registry};
    ///
    /// const POWERDOWN: EventType<()> = EventType::new("POWERDOWN");
    ///
    /// let mut registry = Registry::new();
    /// registry.event(&POWERDOWN)?;
    /// let client = LocalClient::new(registry);
    /// let dispatcher = client.monitor().dispatcher().clone();
    /// std::thread::spawn(move || dispatcher.emit(&POWERDOWN, &())).join().unwrap().unwrap();
    /// assert!(client.ask("")[0].contains(r#""event": "POWERDOWN""#));
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn emit<T: Serialize + 'static>(
        &self,
        event: &EventType<T>,
        data: &T,
    ) -> Result<(), EmitError> {
        let name = event.name();
        let registry = self.registry();
        let declared = registry.find_event(name).ok_or(EmitError::Undeclared(name))?;
        if declared.data_type() != TypeId::of::<T>() {
            return Err(EmitError::OtherType(name));
        }
        if !registry.policy().shows_event(declared.features()) {
            return Ok(());
        }
        let encoded = match (data as &dyn Any).is::<()>() {
            true => None,
            false => {
                let json = Json::encode(data).map_err(|reason| EmitError::Data { name, reason })?;
                if self.checks_output() {
                    let mismatch = |reason| EmitError::Mismatch { name, reason };
                    declared.data().check(&json).map_err(mismatch)?;
                }
                Some(declared.data().shown(registry.policy(), json))
            }
        };
        let interval = declared.interval();
        let key = (!interval.is_zero()).then(|| declared.key(data));
        self.counters().events.count();
        let Time { wall, monotonic } = self.now();
        let event = Event { name: name.into(), data: encoded, timestamp: wall };
        trace::monitor_protocol_event_queue(&event, interval);
        let Some(key) = key else {
            self.audience().deliver(&event);
            return Ok(());
        };
        let offered = self.shared.timers.offer(monotonic, interval, (name, key), event);
        if offered.held_back {
            self.counters().events_held_back.count();
        }
        if let Some(event) = offered.send {
            self.audience().deliver(&event);
        }
        Ok(())
    }

    /// How long until [`handle_timeout`](Dispatcher::handle_timeout) is to be called; `None` if
    /// nothing is waiting for time to pass. Ask again after every call, and when the
    /// [hook](Dispatcher::set_timeout_hook) says so.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let next = self.shared.timers.next()?;
        Some(next.saturating_sub(self.now().monotonic))
    }

    /// Does what is due now: sends what was held back by rate limits, and an error to those whose
    /// commands have passed their deadline.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use qmp_dispatch::{EventType, LocalClient, Registry};
    ///
    /// const RTC_CHANGE: EventType<()> =
    ///     EventType::new("RTC_CHANGE").at_most_every(Duration::from_secs(1));
    ///
    /// let mut registry = Registry::new();
    /// registry.event(&RTC_CHANGE)?;
    /// let client = LocalClient::new(registry);
    /// let dispatcher = client.monitor().dispatcher();
    /// assert_eq!(dispatcher.timeout(), None);
    /// dispatcher.emit(&RTC_CHANGE, &()).unwrap();
    /// assert_eq!(dispatcher.timeout(), Some(Duration::from_secs(1)));
    /// // When that has passed:
    /// dispatcher.handle_timeout();
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn handle_timeout(&self) {
        for expired in self.shared.timers.expire(self.now().monotonic) {
            match expired {
                Expired::Deadline(reply) => reply.expire(),
                Expired::Window { event, held } => {
                    trace::monitor_protocol_event_handler(event, held.as_ref());
                    if let Some(event) = held {
                        self.audience().deliver(&event);
                    }
                }
            }
        }
    }

    pub(crate) fn add_deadline(&self, after: Duration, reply: WeakReply) -> TimerKey {
        let at = self.now().monotonic.saturating_add(after);
        self.shared.timers.add_deadline(at, reply)
    }

    pub(crate) fn remove_deadline(&self, deadline: TimerKey) {
        self.shared.timers.cancel(deadline);
    }

    /// Has a function called whenever the [timeout](Dispatcher::timeout) has become shorter, on the
    /// thread that has caused it. Only the first hook is kept; whether this one is.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// use qmp_dispatch::{EventType, LocalClient, Registry};
    ///
    /// const RTC_CHANGE: EventType<()> =
    ///     EventType::new("RTC_CHANGE").at_most_every(Duration::from_secs(1));
    ///
    /// let mut registry = Registry::new();
    /// registry.event(&RTC_CHANGE)?;
    /// let client = LocalClient::new(registry);
    /// let dispatcher = client.monitor().dispatcher();
    ///
    /// let (wake, wakeups) = mpsc::channel();
    /// dispatcher.set_timeout_hook(move || _ = wake.send(()));
    /// dispatcher.emit(&RTC_CHANGE, &()).unwrap();
    /// assert!(wakeups.try_recv().is_ok(), "a timer waits for dispatcher.timeout() from now on");
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn set_timeout_hook(&self, hook: impl Fn() + Send + Sync + 'static) -> bool {
        self.shared.timers.set_hook(Box::new(hook))
    }

    /// What greetings and `query-version` report.
    pub fn version(&self) -> Version {
        self.greeting().version
    }

    /// Has clients greeted like this from now on, for a [`Forwarder`](crate::Forwarder) that has met
    /// the server for which it speaks. By default, out-of-band execution is offered; where it is not, it
    /// cannot be enabled.
    ///
    /// ```
    /// use qmp_dispatch::proto::{Greeting, Version};
    /// use qmp_dispatch::{LocalClient, Registry};
    ///
    /// let client = LocalClient::new(Registry::new());
    /// let dispatcher = client.monitor().dispatcher();
    /// let version = Version::new(10, 0, 2, "");
    /// dispatcher.set_greeting(Greeting { version: version.clone(), capabilities: Vec::new() });
    /// assert_eq!(dispatcher.version(), version);
    /// assert_eq!(dispatcher.greeting().capabilities, []);
    /// ```
    pub fn set_greeting(&self, greeting: Greeting) {
        *self.shared.greeting.lock().unwrap_or_else(PoisonError::into_inner) = greeting;
    }

    /// How clients are greeted.
    pub fn greeting(&self) -> Greeting {
        self.shared.greeting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Enables or disables a command, for all monitors, from now on. Whether there is one of that
    /// name. Introspection shows it all the same, as in QEMU.
    ///
    /// ```
    /// use qmp_dispatch::{LocalClient, Registry};
    ///
    /// let client = LocalClient::new(Registry::new());
    /// assert!(client.monitor().dispatcher().set_enabled("query-version", false));
    /// let said = client.ask("{'execute': 'query-version'}");
    /// assert!(said[0].contains("The command query-version has been disabled for this instance"));
    /// ```
    pub fn set_enabled(&self, command: &str, enabled: bool) -> bool {
        let command = self.registry().find_command(command);
        if let Some(command) = command {
            command.set_enabled(enabled);
        }
        command.is_some()
    }

    /// Says whether the machine is yet to be initialized. Meanwhile, only commands that
    /// [allow it](crate::Command::allow_preconfig) can be executed. Mirrors QEMU's `--preconfig`.
    ///
    /// ```
    /// use qmp_dispatch::{Context, LocalClient, Registry, proto::Error};
    ///
    /// let mut registry = Registry::new();
    /// registry.command("ping", |_: &Context| Ok::<(), Error>(()))?;
    /// let client = LocalClient::new(registry);
    /// client.monitor().dispatcher().set_preconfig(true);
    /// assert!(client.ask("{'execute': 'ping'}")[0].starts_with(r#"{"error": "#));
    /// client.monitor().dispatcher().set_preconfig(false);
    /// assert_eq!(client.ask("{'execute': 'ping'}"), [r#"{"return": {}}"#]);
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn set_preconfig(&self, preconfig: bool) {
        self.shared.preconfig.store(preconfig, Ordering::Release);
    }

    /// Whether the machine is yet to be initialized.
    pub fn is_preconfig(&self) -> bool {
        self.shared.preconfig.load(Ordering::Acquire)
    }

    /// The commands and events.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What has been done so far. The figures are not of one moment, if something is being done.
    pub fn stats(&self) -> DispatcherStats {
        self.counters().read()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What `query-qmp-schema` returns.
    pub(crate) fn schema(&self) -> &Json {
        self.shared.schema.get_or_init(|| self.registry().introspection().to_json())
    }

    /// The result of a command as clients get it. An error if it is checked and is not of the declared type.
    pub(crate) fn finish_result(&self, command: &Command, json: Json) -> Result<Json, Error> {
        if self.checks_output()
            && let Err(Error { desc, .. }) = command.result().check(&json)
        {
            let name = command.name();
            tracing::error!(command = name, reason = &*desc, "a result is not of its type");
            let error = format!("The result of {name} is not of its type: {desc}");
            return Err(Error::generic(error));
        }
        Ok(command.result().shown(self.registry().policy(), json))
    }

    fn checks_output(&self) -> bool {
        cfg!(debug_assertions) || self.shared.checks_output.load(Ordering::Relaxed)
    }

    /// Checks results and events from now on, as debug builds always do.
    pub(crate) fn check_output(&self) {
        self.shared.checks_output.store(true, Ordering::Relaxed);
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Time {
        (self.shared.clock)()
    }

    pub(crate) fn audience(&self) -> &Audience {
        &self.shared.audience
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("registry", &self.shared.registry)
            .field("greeting", &self.greeting())
            .finish_non_exhaustive()
    }
}
