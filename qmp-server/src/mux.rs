// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shares one QMP server among many clients.

mod client;
mod connection;
mod events;
mod link;
mod names;
mod request;
mod schema;
mod status;
mod upstream;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use qmp_dispatch::proto::Json;
use qmp_dispatch::{Context, Dispatcher, Forwarded, RegisterError, Registry, Responder};

use self::client::{Client, Place};
use self::link::UpstreamLink;
use self::names::Names;
pub use self::status::{InFlightCommand, UpstreamStatus};
use self::upstream::Upstream;
#[cfg(feature = "metrics")]
use crate::Metrics;
use crate::access::Ledger;
use crate::session::OnLeave;
use crate::transport::connect::begin::way_to;
use crate::{Address, Control, Engine, register_status};

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
}

struct Shared {
    address: Address,
    upstream: Arc<Upstream>,
    control: OnceLock<Control>,
    /// The server of the first client: there may be clients before it is attached.
    serving: OnceLock<Control>,
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
    /// If servers at such addresses cannot be connected to, which are other than Unix sockets and TCP, or if the path
    /// is longer than the system allows.
    pub fn new(upstream: Address) -> io::Result<Mux> {
        way_to(&upstream)?;
        let shared = Shared {
            address: upstream,
            upstream: Arc::new(Upstream::new()),
            control: OnceLock::new(),
            serving: OnceLock::new(),
            shutting_down: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            decided: Mutex::new(false),
            decision: Condvar::new(),
        };
        Ok(Mux { shared: Arc::new(shared) })
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
        let shared = Arc::clone(&self.shared);
        let upstream = Arc::clone(&self.shared.upstream);
        let secret = random();
        let clients = AtomicU64::new(0);
        registry.each_monitor(move |locals| {
            if let Some(control) = locals.get::<Control>() {
                shared.serving.get_or_init(|| control.clone());
            }
            let number = clients.fetch_add(1, Ordering::Relaxed);
            let prefix = format!("mux-{secret:016x}-{number}-");
            let names = Names::new(prefix, Arc::clone(&upstream.names));
            let user = locals.get::<Arc<Ledger>>().map_or(0, |ledger| ledger.owner());
            let client = Arc::new(Client::new(upstream.line(), user, names));
            let place = Place::new(&client, &upstream);
            let upstream = Arc::clone(&upstream);
            locals.with(place).with(OnLeave::new(move || upstream.leave(&client)))
        });
        Ok(registry)
    }

    /// Connects to the server, and again whenever the connection is lost, on an engine of its own.
    /// `dispatcher` is one with the [registry](Mux::registry).
    ///
    /// # Errors
    ///
    /// If the system refuses threads or descriptors, or if the mux has been started.
    pub fn start(&self, dispatcher: Dispatcher) -> io::Result<()> {
        self.start_on(&Engine::new()?, dispatcher)
    }

    /// Connects to the server, and again whenever the connection is lost, on the threads of an engine: that of the
    /// server for the mux's clients, as a rule, which may be that of any number of muxes.
    ///
    /// ```
    /// use qmp_dispatch::Dispatcher;
    /// use qmp_server::{Discipline, Engine, Mux, Server, system_time, version};
    ///
    /// let engine = Engine::new()?;
    /// let mux = Mux::new("unix:/run/vm0/qemu.sock".parse()?)?;
    /// let dispatcher = Dispatcher::new(mux.registry()?, version(), system_time);
    /// let server = Server::new(dispatcher.clone()).discipline(Discipline::OnePerMonitor);
    /// mux.start_on(&engine, dispatcher)?;
    /// # mux.shutdown();
    /// if mux.wait_for_greeting() {
    ///     server.stay().spawn_on(&engine)?.wait();
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the mux has been started.
    pub fn start_on(&self, engine: &Engine, dispatcher: Dispatcher) -> io::Result<()> {
        let registration = engine.register();
        if !self.shared.upstream.set_link(Arc::clone(&registration)) {
            let error = "the mux has been started";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
        }
        let link = UpstreamLink::new(registration, Arc::clone(&self.shared), dispatcher);
        engine.add_link(Box::new(link));
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
    /// to, and which ends when the mux is [shut down](Mux::shutdown). Only the first one is kept. Until then, it is the one
    /// that the first client has come to whose clients are disconnected.
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
    /// connection to the upstream server lasts until that has answered what it was sent, but not longer than half a
    /// second.
    pub fn shutdown(&self) {
        self.shared.shutting_down.store(true, Ordering::SeqCst);
        self.shared.decide();
        if let Some(control) = self.shared.control.get() {
            control.shutdown();
        }
        self.shared.upstream.wake();
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.upstream.wake();
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux").field("upstream", &self.shared.address).finish_non_exhaustive()
    }
}

impl Shared {
    /// Ends the wait for a greeting. Whether it had ended before.
    fn decide(&self) -> bool {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        self.decision.notify_all();
        std::mem::replace(&mut *decided, true)
    }

    fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::SeqCst)
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    use qmp_dispatch::proto::Layout;

    use super::*;
    use crate::{Discipline, Server, system_time, version};

    /// Nothing takes so long.
    const LIMIT: Duration = Duration::from_secs(30);

    struct Lines(BufReader<UnixStream>);

    impl Lines {
        fn new(stream: UnixStream) -> Lines {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            Lines(BufReader::new(stream))
        }

        fn send(&mut self, line: &str) {
            self.0.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        }

        fn answer(&mut self, command: &str) {
            let request = self.expect(command);
            self.return_to(&request, "{}");
        }

        fn return_to(&mut self, request: &str, result: &str) {
            let (_, id) = request.rsplit_once(r#""id":"#).unwrap();
            self.send(&format!(r#"{{"return": {result}, "id": {id}"#));
        }

        /// The next line must have this in it, or be none if this is empty.
        #[track_caller]
        fn expect(&mut self, text: &str) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            assert!(if text.is_empty() { line.is_empty() } else { line.contains(text) }, "{line}");
            line
        }
    }

    /// What the server would refuse is not sent, and it is asked for its schema once.
    #[test]
    fn a_long_request_is_sent_without_what_the_server_would_refuse() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upstream.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mux = Mux::new(Address::Unix(path)).unwrap();
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        mux.start(dispatcher.clone()).unwrap();
        let mut upstream = Lines::new(listener.accept().unwrap().0);
        upstream.send(r#"{"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}}"#);
        upstream.answer("qmp_capabilities");
        assert!(mux.wait_for_greeting());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = Server::new(dispatcher)
            .discipline(Discipline::OnePerMonitor)
            .serve(Box::new(theirs), Layout::Compact)
            .spawn()
            .unwrap();
        let mut client = Lines::new(ours);
        client.expect("QMP");
        client.send(r#"{"execute": "qmp_capabilities"}"#);
        client.expect("return");
        let long =
            format!(r#"{{"execute": "stop", "arguments": {{"a": "{}"}}}}"#, "x".repeat(1000));
        client.send(&long);
        let commands = ["stop", "query-qmp-schema"].map(|name| {
            format!(r#"{{"meta-type": "command", "name": "{name}", "arg-type": "0"}}"#)
        });
        let commands = commands.join(", ");
        let schema =
            format!(r#"[{{"meta-type": "object", "name": "0", "members": []}}, {commands}]"#);
        let asked = upstream.expect(r#"{"execute":"query-qmp-schema""#);
        upstream.return_to(&asked, &schema);
        for _ in 0..2 {
            let sent = upstream.expect(r#"{"execute":"stop","arguments":{"-": null}"#);
            let desc = r#"{"class": "GenericError", "desc": "Parameter '-' is unexpected"}"#;
            let (_, id) = sent.rsplit_once(r#""id":"#).unwrap();
            upstream.send(&format!(r#"{{"error": {desc}, "id": {id}"#));
            client.expect("Parameter 'a' is unexpected");
            client.send(&long);
        }
        upstream.expect("stop");
        drop((client, upstream));
        mux.shutdown();
        server.wait();
    }

    /// The mux and the server for its clients are on engines of their own, and that one is not attached yet.
    #[test]
    fn an_end_in_order_ends_connections_as_soon_as_there_are_any() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upstream.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mux = Mux::new(Address::Unix(path)).unwrap();
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        mux.start(dispatcher.clone()).unwrap();
        let mut upstream = Lines::new(listener.accept().unwrap().0);
        upstream.send(r#"{"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}}"#);
        upstream.answer("qmp_capabilities");
        assert!(mux.wait_for_greeting());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = Server::new(dispatcher)
            .discipline(Discipline::OnePerMonitor)
            .stay()
            .serve(Box::new(theirs), Layout::Compact)
            .spawn()
            .unwrap();
        let mut client = Lines::new(ours);
        client.expect("QMP");
        client.send(r#"{"execute": "qmp_capabilities"}"#);
        client.expect("return");
        client.send(r#"{"execute": "first"}"#);
        upstream.answer("first");
        client.expect("return");
        client.send(r#"{"execute": "second"}"#);
        upstream.expect("second");
        upstream.send(r#"{"event": "SHUTDOWN", "timestamp": {"seconds": 1, "microseconds": 0}}"#);
        client.expect("SHUTDOWN");
        drop(upstream);
        client.expect("");
        mux.attach(server.control());
        mux.shutdown();
        server.wait();
    }
}
