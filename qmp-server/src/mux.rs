// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shares one QMP server among many clients.

mod client;
mod connection;
mod events;
mod link;
mod names;
mod request;
mod status;
mod table;
mod upstream;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::{Capability, Json};
use qmp_dispatch::{Context, Dispatcher, Forwarded, RegisterError, Registry, Responder};

use self::client::Client;
use self::connection::{Connection, End};
use self::events::{Connected, Disconnected, UPSTREAM_CONNECTED, UPSTREAM_DISCONNECTED};
use self::link::{Link, Waker};
pub use self::status::{InFlightCommand, UpstreamStatus};
use self::upstream::Upstream;
#[cfg(feature = "metrics")]
use crate::Metrics;
use crate::{Address, Control, register_status};

/// How long to leave a server alone that could not be reached: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Stands between one QMP server, which serves one client as QEMU does, and any number of clients.
///
/// Each client has a monitor of its own: its own negotiation, ids, queue and descriptors. The upstream server
/// sees one client. See `docs/mux.md` for what clients share all the same.
///
/// ```
/// use qmp_dispatch::Dispatcher;
/// use qmp_server::{Address, Discipline, Listen, Mux, Server, system_time, version};
/// # use qmp_dispatch::Registry;
/// # use qmp_server::{MachineOptions, register_machine};
///
/// # let folder = tempfile::tempdir()?;
/// # let upstream = Address::Unix(folder.path().join("qemu.sock"));
/// # let downstream = Address::Unix(folder.path().join("qmp.sock"));
/// # let mut registry = Registry::new();
/// # register_machine(&mut registry, MachineOptions::default())?;
/// # let machine = Server::new(Dispatcher::new(registry, version(), system_time))
/// #     .listen(&Listen::new(upstream.clone()))?
/// #     .spawn()?;
/// let mux = Mux::new(upstream)?;
/// let dispatcher = Dispatcher::new(mux.registry()?, version(), system_time);
/// let server = Server::new(dispatcher.clone())
///     .discipline(Discipline::OnePerMonitor)
///     .listen(&Listen::new(downstream))?;
/// mux.start(dispatcher)?;
/// // Nobody is greeted before it is known what there is to greet with.
/// if mux.wait_for_greeting() {
///     let server = server.spawn()?;
///     mux.attach(server.control());
///     // Clients are served, until somebody says:
///     mux.shutdown();
///     server.wait();
/// }
/// # machine.control().shutdown();
/// # machine.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mux {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    address: Address,
    upstream: Arc<Upstream>,
    /// How many connections there have been, from a random number on.
    connections: AtomicU64,
    control: OnceLock<Control>,
    /// Nobody is to be served any more.
    shutting_down: AtomicBool,
    /// There is to be no connection any more.
    closing: AtomicBool,
    /// The server has greeted us, once; or the mux is shutting down.
    decided: Mutex<bool>,
    decision: Condvar,
}

impl Mux {
    /// A mux in front of the server at this address, which need not be there yet.
    ///
    /// ```
    /// use qmp_server::{Address, Mux};
    ///
    /// assert!(Mux::new("unix:/run/vm0/qemu.sock".parse()?).is_ok());
    /// assert!(Mux::new(Address::Stdio).is_err());
    /// # Ok::<(), qmp_server::AddressError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If servers at such addresses cannot be connected to, which are other than Unix sockets and TCP, or if the
    /// system refuses descriptors.
    pub fn new(upstream: Address) -> io::Result<Mux> {
        Link::check(&upstream)?;
        let shared = Shared {
            address: upstream,
            upstream: Arc::new(Upstream::new(Waker::new()?)),
            connections: AtomicU64::new(random() >> 1),
            control: OnceLock::new(),
            shutting_down: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            decided: Mutex::new(false),
            decision: Condvar::new(),
        };
        Ok(Mux { shared: Arc::new(shared), thread: Mutex::new(None) })
    }

    /// What the clients' monitors need: everything but negotiation, and the commands of
    /// [`register_status`], goes to the upstream server. Another one for operators is
    /// `__org.qmp-server_query-upstream`, with the [`UpstreamStatus`].
    ///
    /// ```
    /// use qmp_dispatch::LocalClient;
    /// use qmp_server::Mux;
    ///
    /// let mux = Mux::new("unix:/run/vm0/qemu.sock".parse()?)?;
    /// let client = LocalClient::new(mux.registry()?);
    /// let said = client.ask("{'execute': '__org.qmp-server_query-upstream'}");
    /// assert!(said[0].contains(r#""connected": false"#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// None that could occur: what is registered has names and types of its own.
    pub fn registry(&self) -> Result<Registry, RegisterError> {
        let upstream = Arc::clone(&self.shared.upstream);
        let mut registry = Registry::forwarding(
            move |context: &Context, request: Forwarded, responder: Responder<Json>| {
                upstream.forward(context, request, responder);
            },
        );
        events::register(&mut registry)?;
        register_status(&mut registry)?;
        #[cfg(feature = "metrics")]
        crate::register_metrics(&mut registry)?;
        status::register(&mut registry, &self.shared)?;
        let upstream = Arc::clone(&self.shared.upstream);
        let secret = random();
        let clients = AtomicU64::new(0);
        registry.each_monitor(move |locals| {
            let number = clients.fetch_add(1, Ordering::Relaxed);
            let prefix = format!("mux-{secret:016x}-{number}-");
            locals.with(Arc::new(Client::new(&upstream, prefix)))
        });
        Ok(registry)
    }

    /// Connects to the server, and again whenever the connection is lost, on a thread of its own.
    /// `dispatcher` is one with the [registry](Mux::registry).
    ///
    /// # Errors
    ///
    /// If the system refuses a thread.
    pub fn start(&self, dispatcher: Dispatcher) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let run = move || shared.run(&dispatcher);
        let thread = thread::Builder::new().name("qmp-upstream".into()).spawn(run)?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Waits until the server has greeted us for the first time, or the mux is
    /// [shut down](Mux::shutdown). Whether it has: from then on, clients can be greeted in its name.
    ///
    /// ```
    /// use qmp_server::Mux;
    ///
    /// let mux = Mux::new("unix:/run/vm0/qemu.sock".parse()?)?;
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| mux.shutdown());
    ///     assert!(!mux.wait_for_greeting());
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_greeting(&self) -> bool {
        let decided = self.shared.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = self.shared.decision.wait_while(decided, |decided| !*decided);
        drop(decided.unwrap_or_else(PoisonError::into_inner));
        !self.shared.shutting_down.load(Ordering::SeqCst)
    }

    /// Names the server whose clients are disconnected when the upstream server ends as it was told
    /// to, and which ends when the mux is [shut down](Mux::shutdown). Only the first one is kept.
    pub fn attach(&self, control: Control) {
        let _ = self.shared.control.set(control);
        if self.shared.shutting_down.load(Ordering::SeqCst) {
            self.shutdown();
        }
    }

    /// Has the figures of a server, which is to serve the clients of this mux, tell of the upstream
    /// server, too. Only the first mux is told of.
    ///
    /// ```
    /// use qmp_dispatch::Dispatcher;
    /// use qmp_server::{Mux, Server, system_time, version};
    ///
    /// let mux = Mux::new("unix:/run/vm0/qemu.sock".parse()?)?;
    /// let server = Server::new(Dispatcher::new(mux.registry()?, version(), system_time));
    /// mux.report_to(&server.metrics());
    /// assert!(server.metrics().text().contains("qmp_server_upstream_connected 0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "metrics")]
    pub fn report_to(&self, metrics: &Metrics) {
        let upstream = Arc::clone(&self.shared.upstream);
        metrics.add(move |exposition| upstream.tell(exposition));
    }

    /// Ends the server that is [attached](Mux::attach), in its order; or the wait for a greeting. The
    /// connection to the upstream server lasts until the mux is dropped.
    pub fn shutdown(&self) {
        self.shared.shutting_down.store(true, Ordering::SeqCst);
        self.shared.decide();
        if let Some(control) = self.shared.control.get() {
            control.shutdown();
        }
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.upstream.waker.wake();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux").field("upstream", &self.shared.address).finish_non_exhaustive()
    }
}

impl Shared {
    fn run(&self, dispatcher: &Dispatcher) {
        let mut pause = FIRST_PAUSE;
        let mut last_told = None;
        while !self.is_closing() {
            let began = Instant::now();
            let end = self.connect(dispatcher).unwrap_or_else(|end| end);
            if self.is_closing() {
                break;
            }
            // The same thing again is not worth a line each time.
            if last_told.as_ref() != Some(&end) {
                tracing::warn!(server = %self.address, "no upstream server: {}", end.why);
                last_told = Some(end);
            }
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            let _ = self.upstream.waker.wait(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        self.upstream.lost("the mux ends", false);
    }

    /// One connection from beginning to end.
    fn connect(&self, dispatcher: &Dispatcher) -> Result<End, End> {
        let is_closing = || self.is_closing();
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut connection = Connection::open(&self.address, &self.upstream, &is_closing)?;
        let greeting = connection.negotiate()?;
        let version = greeting.version.to_string();
        tracing::info!(server = %self.address, version, "connected upstream");
        let oob = greeting.capabilities.contains(&Capability::OOB);
        let connected = Connected::to(&greeting.version);
        dispatcher.set_greeting(greeting);
        self.upstream.connected(Arc::clone(connection.link()), oob, number);
        // Nobody has been served before the first one.
        let again = self.decide();
        if again {
            // Declared, and made of text.
            let _ = dispatcher.emit(&UPSTREAM_CONNECTED, &connected);
        }
        let end = connection.serve(dispatcher);
        self.upstream.lost(&end.why, end.orderly);
        match (end.orderly, self.control.get()) {
            (true, Some(control)) => control.disconnect_clients(),
            _ => {
                let disconnected = Disconnected { reason: end.why.clone() };
                let _ = dispatcher.emit(&UPSTREAM_DISCONNECTED, &disconnected);
            }
        }
        self.upstream.forget_end(&end.why);
        Ok(end)
    }

    /// Ends the wait for a greeting. Whether it had ended before.
    fn decide(&self) -> bool {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        self.decision.notify_all();
        std::mem::replace(&mut *decided, true)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

/// A number that nobody can guess.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Linux gives so few bytes whenever it is asked, but for the first moments after boot.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}
