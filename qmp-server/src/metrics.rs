// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server can tell of itself in figures, for those who watch many servers.

mod endpoint;
mod exposition;
mod request;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use qmp_dispatch::proto::{Error, ErrorClass};
use qmp_dispatch::{Context, Dispatcher, RegisterError, Registry};
use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::Observed;
use crate::observe::{CutOff, Refusal};
use crate::server::{control, no_server};
use crate::{Address, Control, Listen, ListenError, Server, version};

pub use endpoint::MetricsEndpoint;
pub(crate) use exposition::{Exposition, seconds};
#[cfg(feature = "fuzzing")]
pub(crate) use request::response_to;

/// The figures of a [`Server`]: clients, requests, how long they wait and take, events,
/// what was dropped and refused. From [`Server::metrics`], before it runs, and
/// from [`Control::metrics`], while it does.
///
/// ```
/// use qmp_dispatch::{Dispatcher, Registry};
/// use qmp_server::{Server, system_time, version};
///
/// let server = Server::new(Dispatcher::new(Registry::new(), version(), system_time));
/// let metrics = server.metrics();
/// let endpoint = metrics.serve(&"tcp:127.0.0.1:0".parse()?)?;
/// println!("http://{}/metrics", endpoint.address().to_string().trim_start_matches("tcp:"));
/// assert!(metrics.text().contains("\nqmp_server_clients 0\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Metrics {
    observed: Observed,
    dispatcher: Dispatcher,
    /// Those of a mux.
    more: Arc<OnceLock<More>>,
}

type More = Box<dyn Fn(&mut Exposition) + Send + Sync>;

impl Metrics {
    fn new(observed: &Observed, dispatcher: &Dispatcher) -> Metrics {
        let (observed, dispatcher) = (observed.clone(), dispatcher.clone());
        Metrics { more: observed.extension(), observed, dispatcher }
    }

    /// Has something else tell its figures, too. Only the first one does.
    #[cfg(feature = "mux")]
    pub(crate) fn add(&self, more: impl Fn(&mut Exposition) + Send + Sync + 'static) {
        let _ = self.more.set(Box::new(more));
    }

    /// All figures, in [Prometheus' text format](https://prometheus.io/docs/instrumenting/exposition_formats/),
    /// version 0.0.4.
    pub fn text(&self) -> String {
        let mut exposition = Exposition::default();
        self.tell(&mut exposition);
        exposition.finish()
    }

    /// Answers `GET /metrics` over HTTP, on a thread of its own, until what is returned is dropped.
    ///
    /// Whoever can connect may read: without TLS, TCP is for loopback addresses unless
    /// [`Listen::insecure`] is set, and the mode of a Unix socket's file says whom it lets in. Nothing
    /// that clients of it do takes more than a little memory and time.
    ///
    /// # Errors
    ///
    /// [`ListenError`], among others if the address is a connection already.
    pub fn serve(&self, listen: &Listen) -> Result<MetricsEndpoint, ListenError> {
        let metrics = self.clone();
        MetricsEndpoint::start(move || metrics.text(), listen)
    }

    /// Looks for mistakes that can be found without listening, like [`Listen::verify`].
    ///
    /// # Errors
    ///
    /// That of [`serve`](Metrics::serve) for the same mistake.
    pub fn verify(listen: &Listen) -> Result<(), ListenError> {
        match listen.address {
            Address::Stdio => Err(no_listener(listen)),
            _ => listen.verify(),
        }
    }

    fn tell(&self, exposition: &mut Exposition) {
        let counters = self.observed.counters();
        exposition.info("build", "Which server this is.", "version", &version().to_string());
        exposition.gauge(
            "uptime_seconds",
            "How long the server has been there.",
            seconds(counters.now()),
        );
        self.tell_clients(exposition);
        self.tell_requests(exposition);
        self.tell_answers(exposition);
        let transferred =
            [("received", counters.bytes_received.get()), ("sent", counters.bytes_sent.get())];
        exposition.counters(
            "bytes",
            "Bytes from and to clients, without what a transport adds.",
            "direction",
            transferred,
        );
        if let Some(more) = self.more.get() {
            more(exposition);
        }
    }

    fn tell_clients(&self, exposition: &mut Exposition) {
        let counters = self.observed.counters();
        let now = self.observed.server().map(|server| server.gauges()).unwrap_or_default();
        exposition.gauge("clients", "Clients that are connected.", now.clients);
        exposition.gauge("suspended_clients", "Clients whose monitor is suspended.", now.suspended);
        exposition.gauge(
            "kept_bytes",
            "Bytes kept for clients: messages that are not complete, and output that is not read.",
            now.kept_bytes,
        );
        exposition.gauge("queued_requests", "In-band requests that wait.", now.queued);
        exposition.gauge(
            "executing_requests",
            "In-band requests that are executed.",
            now.executing,
        );
        exposition.counter("greeted_clients", "Clients that were greeted.", counters.greeted.get());
        exposition.counters(
            "refused_clients",
            "Clients that were not greeted.",
            "reason",
            Refusal::ALL.map(|why| (why.name(), counters.refused(why).get())),
        );
        exposition.counters(
            "cut_off_clients",
            "Clients that were disconnected.",
            "reason",
            CutOff::ALL.map(|why| (why.name(), counters.cut_off(why).get())),
        );
        exposition.counter(
            "accept_failures",
            "How often a client could not be accepted, most likely for want of descriptors.",
            counters.accept_failures.get(),
        );
        exposition.counter(
            "suspensions",
            "How often a monitor was suspended.",
            counters.suspensions.get(),
        );
    }

    fn tell_requests(&self, exposition: &mut Exposition) {
        let counters = self.observed.counters();
        let read =
            [("in-band", counters.in_band.get()), ("out-of-band", counters.out_of_band.get())];
        exposition.counters("requests", "Requests that were read.", "band", read);
        exposition.histograms(
            "wait",
            "How long requests waited for their turn.",
            "band",
            [("in-band", counters.waited.read())],
        );
        let executed = [
            ("in-band", counters.executed.read()),
            ("out-of-band", counters.executed_out_of_band.read()),
        ];
        exposition.histograms(
            "command",
            "How long requests took from their turn to their answer.",
            "band",
            executed,
        );
    }

    fn tell_answers(&self, exposition: &mut Exposition) {
        let stats = self.dispatcher.stats();
        exposition.counter("successes", "Requests that succeeded.", stats.succeeded);
        exposition.counters(
            "errors",
            "Error responses.",
            "class",
            ErrorClass::ALL.map(|class| (class.name(), stats.failed_with(class))),
        );
        exposition.counter(
            "deadlines_passed",
            "Commands that were not answered in time.",
            stats.deadlines_passed,
        );
        exposition.counter(
            "late_answers",
            "Answers that came after that, and were dropped.",
            stats.late_answers,
        );
        exposition.counter("events", "Events, each once for all clients.", stats.events);
        exposition.counter(
            "events_held_back",
            "Events that rate limits did not let through at once, or at all.",
            stats.events_held_back,
        );
        let counters = self.observed.counters();
        exposition.counter(
            "events_sent",
            "Events, each once for every client that got it.",
            counters.events_sent.get(),
        );
        exposition.counter(
            "events_dropped",
            "Events, each once for every client that missed it because it did not read.",
            counters.events_dropped.get(),
        );
    }
}

/// The [`Metrics`] of any number of servers as one text. Those of a server with a name have the label `machine`.
///
/// ```
/// use qmp_dispatch::{Dispatcher, Registry};
/// use qmp_server::{MetricsOfAll, Server, system_time, version};
///
/// # let server = || Server::new(Dispatcher::new(Registry::new(), version(), system_time));
/// let all = MetricsOfAll::default();
/// let (first, second) = (server(), server());
/// all.add(Some("vm0"), first.metrics());
/// all.add(Some("vm1"), second.metrics());
/// assert!(all.text().contains("\nqmp_server_clients{machine=\"vm1\"} 0\n"));
///
/// all.remove(Some("vm1"));
/// assert!(!all.text().contains("vm1"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct MetricsOfAll {
    machines: Arc<Mutex<BTreeMap<Option<String>, Metrics>>>,
}

impl MetricsOfAll {
    /// Adds those of a server, in the place of those that have this name.
    pub fn add(&self, machine: Option<&str>, metrics: Metrics) {
        self.machines().insert(machine.map(str::to_owned), metrics);
    }

    /// Removes those of the server with this name, or of that without.
    pub fn remove(&self, machine: Option<&str>) {
        self.machines().remove(&machine.map(str::to_owned));
    }

    /// All figures, like [`Metrics::text`].
    pub fn text(&self) -> String {
        // Foreign code is not called with the lock held.
        let machines = self.machines().clone();
        let mut exposition = Exposition::default();
        for (machine, metrics) in &machines {
            exposition.set_machine(machine.as_deref());
            metrics.tell(&mut exposition);
        }
        exposition.finish()
    }

    /// Answers `GET /metrics` over HTTP, like [`Metrics::serve`].
    ///
    /// # Errors
    ///
    /// Those of [`Metrics::serve`].
    pub fn serve(&self, listen: &Listen) -> Result<MetricsEndpoint, ListenError> {
        let all = self.clone();
        MetricsEndpoint::start(move || all.text(), listen)
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<Option<String>, Metrics>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// What the server tells of itself, now and when it runs.
    pub fn metrics(&self) -> Metrics {
        Metrics::new(self.observed(), self.dispatcher())
    }
}

impl Control {
    /// What the server tells of itself in figures; `None` once it has ended.
    pub fn metrics(&self) -> Option<Metrics> {
        let server = self.server()?;
        Some(Metrics::new(&server.observed, &server.dispatcher))
    }
}

/// Registers the command `__org.qmp-server_query-metrics`, which returns the [`Metrics`] as text, also out-of-band.
///
/// # Errors
///
/// [`RegisterError`] if the registry has a command of this name already.
pub fn register_metrics(registry: &mut Registry) -> Result<(), RegisterError> {
    registry
        .command("__org.qmp-server_query-metrics", query_metrics)?
        .allow_oob()
        .allow_preconfig()
        .documented("What the server does, in counters.");
    Ok(())
}

#[derive(Serialize, JsonSchema)]
struct MetricsInfo {
    /// In Prometheus' text format, version 0.0.4.
    text: String,
}

fn query_metrics(context: &Context) -> Result<MetricsInfo, Error> {
    let metrics = control(context).and_then(Control::metrics).ok_or_else(no_server)?;
    Ok(MetricsInfo { text: metrics.text() })
}

/// There would only ever be one client.
fn no_listener(listen: &Listen) -> ListenError {
    let reason = io::Error::new(io::ErrorKind::Unsupported, "nobody can connect there");
    ListenError { address: listen.address.clone(), reason }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
