// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shares one QMP server among many clients.

mod agent;
mod connection;
mod dial;
mod dial_in;
mod events;
mod handover;
#[cfg(test)]
mod lines;
mod link;
mod lost;
mod names;
mod pace;
mod request;
mod returned;
mod status;
mod upstream;
mod urgent;
mod wire;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use qmp_dispatch::proto::{Capability, Dialect, Greeting, Json, Version};
use qmp_dispatch::{Context, Forwarded, RegisterError, Registry, Responder};
use tracing::Span;

pub use self::dial::{Dial, DialIn};
pub use self::dial_in::DialInSockets;
use self::dial_in::{DialInSocket, Membership, Seat};
use self::handover::MuxHandover;
pub use self::handover::{Frozen, Handover};
use self::link::{CONNECT_TIMEOUT, UpstreamLink};
pub use self::lost::{UnknownUpstreamLost, UpstreamLost};
use self::names::Names;
#[cfg(feature = "fuzzing")]
pub(crate) use self::names::renamed;
use self::pace::Pace;
pub use self::status::{InFlightCommand, UpstreamStatus};
use self::upstream::{MuxLocal, Upstream};
#[cfg(feature = "metrics")]
use crate::Metrics;
use crate::access::{Ledger, Notices};
use crate::engine::Hosted;
use crate::session::OnLeave;
use crate::transport::connect::attempt::Attempt;
use crate::{Connect, Control, DeadlineProfile, Engine, Server, register_status};

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
/// let mux = Mux::new(upstream.into())?;
/// let dispatcher = Dispatcher::new(mux.registry()?, version(), system_time);
/// let server = Server::new(dispatcher)
///     .discipline(Discipline::OnePerMonitor)
///     .listen(&Listen::new(downstream))?;
/// mux.serve(server)?;
/// // Clients are served as soon as the upstream server has greeted, until somebody says:
/// mux.shutdown();
/// mux.wait();
/// # machine.control().shutdown();
/// # machine.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mux {
    shared: Arc<Shared>,
}

struct Shared {
    connect: Connect,
    speaks: Speaks,
    /// How long a guest agent may take for a command, if that has been said.
    answer_within: OnceLock<Duration>,
    /// The mux of the machine's guest agent, which figures tell of.
    #[cfg(feature = "metrics")]
    agent: OnceLock<Arc<Shared>>,
    /// How to listen, if the server connects.
    dial_in: Option<DialIn>,
    /// What was [opened](Mux::open), until the mux serves.
    opened: Mutex<Option<OpenedUpstream>>,
    /// The sockets among which it does.
    dial_in_sockets: OnceLock<DialInSockets>,
    /// That at which it does, which is closed when the mux has ended.
    dial_in_socket: OnceLock<Arc<DialInSocket>>,
    /// The place there, until no server is wanted any more.
    membership: Mutex<Option<Membership>>,
    name: Option<String>,
    /// What the log says of this mux is said in it.
    span: Span,
    upstream: Arc<Upstream>,
    serving: Mutex<Serving>,
    changed: Condvar,
    /// Nobody is to be served any more.
    shutting_down: AtomicBool,
    /// That is so because the upstream server was lost, and not because it had been told to end.
    lost: AtomicBool,
    /// Whose process the upstream server must be, if that matters.
    peer: OnceLock<u32>,
    /// How long a command may be unanswered before the server is said to hang, if that is not decided by its name.
    hang_after: OnceLock<Duration>,
    /// There will be no other upstream server when this one has gone.
    is_last: AtomicBool,
    /// There is a new one, maybe.
    has_appeared: AtomicBool,
    /// What this mux goes on with when it serves.
    handed_over: Mutex<Option<MuxHandover>>,
}

/// What the upstream server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Qmp,
    /// What QEMU's guest agent does.
    Agent,
}

/// What there is only once of an upstream server.
enum OpenedUpstream {
    /// The connection that was inherited.
    Inherited(Box<Attempt>),
    /// The place of the one that connects.
    Seat(Arc<Seat>),
}

/// What has become of the server for the clients.
enum Serving {
    NotYet,
    Since(Control),
    Ended,
}

impl Mux {
    /// A mux in front of the server at this address, which need not be there yet. An inherited connection (`fd:`, `systemd:`)
    /// cannot be made again: the mux [shuts down](Mux::shutdown) when it has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Dial::verify`].
    pub fn new(upstream: Dial) -> io::Result<Mux> {
        Mux::make(None, upstream, Speaks::Qmp)
    }

    /// Like [`new`](Mux::new), with the name of the machine behind it: [`UpstreamStatus`] has it, and the lines of the log
    /// that are about this mux and its clients.
    ///
    /// # Errors
    ///
    /// Those of [`Mux::new`].
    pub fn named(name: &str, upstream: Dial) -> io::Result<Mux> {
        Mux::make(Some(name), upstream, Speaks::Qmp)
    }

    /// A mux in front of the channel of a machine's guest agent (`qemu-ga`), for clients that speak as to the agent itself: there
    /// is neither greeting nor negotiation, and there are no events. The machine's name is for the log and the status.
    ///
    /// One command is with the agent at a time, and users take turns. `guest-sync` and `guest-sync-delimited` of clients are
    /// answered by the mux, while the agent answers; it synchronises with the agent by itself. A command that the agent does not
    /// answer [in time](Mux::answer_within) is answered with an error, and the next one waits until the agent has synchronised:
    /// a late answer is nobody's. An agent that does not synchronise within five seconds does not answer: whoever waits is
    /// told so, and it is asked again when somebody wants something.
    ///
    /// When the channel itself has been lost, clients find what is said for [that](Mux::on_upstream_lost).
    ///
    /// ```
    /// use qmp_dispatch::Dispatcher;
    /// use qmp_server::{Discipline, Mux, Server, system_time, version};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let channel = format!("unix:{}/agent.sock", folder.path().display());
    /// # let listen = format!("unix:{}/shared.sock", folder.path().display()).parse()?;
    /// let mux = Mux::for_agent(Some("vm0"), channel.parse()?)?;
    /// let dispatcher = Dispatcher::new(mux.registry()?, version(), system_time);
    /// let server = Server::new(dispatcher).discipline(Discipline::OnePerMonitor);
    /// mux.serve(server.listen(&listen)?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Mux::new`].
    pub fn for_agent(name: Option<&str>, channel: Dial) -> io::Result<Mux> {
        Mux::make(name, channel, Speaks::Agent)
    }

    fn make(name: Option<&str>, upstream: Dial, speaks: Speaks) -> io::Result<Mux> {
        upstream.verify()?;
        let (connect, dial_in) = match upstream {
            Dial::Out(connect) => (connect, None),
            Dial::In(dial_in) => (dial_in.listen.address.clone().into(), Some(*dial_in)),
        };
        let pace = match speaks {
            Speaks::Qmp => Pace::of_qemu(),
            Speaks::Agent => Pace::unbounded(),
        };
        let shared = Shared {
            is_last: AtomicBool::new(dial_in.is_none() && connect.is_inherited()),
            connect,
            speaks,
            answer_within: OnceLock::new(),
            #[cfg(feature = "metrics")]
            agent: OnceLock::new(),
            dial_in,
            opened: Mutex::new(None),
            dial_in_sockets: OnceLock::new(),
            dial_in_socket: OnceLock::new(),
            membership: Mutex::default(),
            name: name.map(str::to_owned),
            span: name.map_or_else(Span::none, |name| tracing::error_span!("mux", machine = name)),
            upstream: Arc::new(Upstream::new(pace)),
            serving: Mutex::new(Serving::NotYet),
            changed: Condvar::new(),
            shutting_down: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            peer: OnceLock::new(),
            hang_after: OnceLock::new(),
            has_appeared: AtomicBool::new(false),
            handed_over: Mutex::default(),
        };
        Ok(Mux { shared: Arc::new(shared) })
    }

    /// What the clients' monitors need: everything but negotiation, and the commands of
    /// [`register_status`], goes to the upstream server. Another one for operators is
    /// `__org.qmp-server_query-upstream`, with the [`UpstreamStatus`].
    ///
    /// # Errors
    ///
    /// None that could occur: what is registered has names and types of its own.
    pub fn registry(&self) -> Result<Registry, RegisterError> {
        let upstream = Arc::clone(&self.shared.upstream);
        let forward = move |context: &Context, request: Forwarded, responder: Responder<Json>| {
            upstream.forward(context, request, responder);
        };
        let mut registry = match self.shared.speaks {
            Speaks::Qmp => {
                let mut registry = Registry::forwarding(forward);
                events::register(&mut registry)?;
                register_status(&mut registry)?;
                #[cfg(feature = "metrics")]
                crate::register_metrics(&mut registry)?;
                status::register(&mut registry, &self.shared)?;
                registry
            }
            Speaks::Agent => {
                let mut registry = Registry::for_agent(forward);
                agent::register(&mut registry, &self.shared.upstream)?;
                registry
            }
        };
        let upstream = Arc::clone(&self.shared.upstream);
        let secret = random();
        let clients = AtomicU64::new(0);
        registry.each_monitor(move |locals| {
            let number = clients.fetch_add(1, Ordering::Relaxed);
            let prefix = format!("mux-{secret:016x}-{number}-");
            let names = Names::new(prefix, Arc::clone(&upstream.names));
            let user = locals.get::<Arc<Ledger>>().map_or(0, |ledger| ledger.owner());
            // A client that is nobody's but an embedder's own stays.
            let notices = locals.get::<Notices>().cloned().unwrap_or(Notices::new(true));
            let new = || Arc::new(upstream.new_client(user, names));
            let client = upstream.returning(&locals).unwrap_or_else(new);
            client.set_notices(notices);
            let place = MuxLocal::new(&client, &upstream);
            let upstream = Arc::clone(&upstream);
            locals.with(place).with(OnLeave::new(move || upstream.leave(&client)))
        });
        Ok(registry)
    }

    /// Connects to the upstream server, and again whenever the connection is lost, and has `server` serve the clients; all
    /// that on an engine of its own. `server` is one with the [registry](Mux::registry).
    ///
    /// What clients find before the first greeting depends on [what is done](Mux::on_upstream_lost) when the upstream server
    /// is lost. Those that come in by a door with [notices](crate::Listen::notices) are greeted in the name of the mux itself until
    /// then, in the server's dialect or else that of QEMU 11.1, and can execute its own commands.
    ///
    /// # Errors
    ///
    /// If the system refuses threads or descriptors, or if this was called before.
    pub fn serve(&self, server: Server) -> io::Result<()> {
        self.serve_on(&Engine::new()?, server)
    }

    /// Takes over a connection that is inherited, if the upstream server is at `fd:` or `systemd:`, or listens for a server that
    /// connects ([`Dial::In`]), so that a mistake shows before clients can come. Otherwise this happens when the mux serves.
    ///
    /// # Errors
    ///
    /// If there is no such connection, or if it is not possible to listen there.
    pub fn open(&self) -> io::Result<()> {
        let upstream = &self.shared.connect;
        let mut opened = self.shared.opened();
        if opened.is_some() {
            return Ok(());
        }
        let open = || -> io::Result<Option<OpenedUpstream>> {
            if let Some(dial_in) = &self.shared.dial_in {
                let (name, upstream) = (self.shared.name.as_deref(), &self.shared.upstream);
                let sockets = self.shared.dial_in_sockets.get_or_init(DialInSockets::default);
                let membership = sockets.seat(dial_in, name, upstream)?;
                let _ = self.shared.dial_in_socket.set(Arc::clone(&membership.socket));
                let seat = Arc::clone(&membership.seat);
                *self.shared.membership() = Some(membership);
                return Ok(Some(OpenedUpstream::Seat(seat)));
            }
            if !self.shared.is_inherited() || self.shared.handed_over().is_some() {
                return Ok(None);
            }
            let attempt = Attempt::prepare(upstream, CONNECT_TIMEOUT)?;
            Ok(Some(OpenedUpstream::Inherited(Box::new(attempt))))
        };
        *opened = open().map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", upstream.address))
        })?;
        Ok(())
    }

    /// Like [`serve`](Mux::serve), on the threads of an engine, which may be that of any number of muxes.
    ///
    /// ```
    /// use qmp_dispatch::Dispatcher;
    /// use qmp_server::{Discipline, Engine, Mux, Server, system_time, version};
    ///
    /// let engine = Engine::new()?;
    /// let muxes: Vec<_> = ["unix:/run/vm0/qemu.sock", "unix:/run/vm1/qemu.sock"]
    ///     .into_iter()
    ///     .map(|upstream| {
    ///         let mux = Mux::new(upstream.parse()?)?;
    ///         let dispatcher = Dispatcher::new(mux.registry()?, version(), system_time);
    ///         let server = Server::new(dispatcher).discipline(Discipline::OnePerMonitor);
    ///         mux.serve_on(&engine, server.listen(&"tcp:127.0.0.1:0".parse()?)?)?;
    ///         Ok::<_, Box<dyn std::error::Error>>(mux)
    ///     })
    ///     .collect::<Result<_, _>>()?;
    /// muxes.iter().for_each(Mux::shutdown);
    /// muxes.iter().for_each(Mux::wait);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If this was called before, if the system does not let clients connect, and those of [`open`](Mux::open).
    pub fn serve_on(&self, engine: &Engine, server: Server) -> io::Result<()> {
        let registration = engine.register();
        if !self.shared.upstream.set_link(Arc::clone(&registration)) {
            let error = "the mux serves already";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
        }
        self.open()?;
        let opened = self.shared.opened().take();
        #[cfg(feature = "metrics")]
        self.report_to(&server.metrics());
        let server = match self.shared.speaks {
            Speaks::Qmp => server,
            // All agents' errors have these words so far, and none tells its version.
            Speaks::Agent => server.dialect(Dialect::Qemu10_0),
        };
        let dispatcher = server.dispatcher().clone();
        let version = server.fixed_dialect().unwrap_or_default().version();
        let version = Version { qemu: version, package: "qmp-server".into() };
        dispatcher.set_greeting(Greeting::new(version, vec![Capability::OOB]));
        let shared = Arc::clone(&self.shared);
        let server = server.in_span(shared.span.clone()).on_end(move || shared.ended());
        let mut link =
            UpstreamLink::new(registration, Arc::clone(&self.shared), dispatcher, opened);
        let handover = self.shared.handed_over().take();
        let _entered = self.shared.span.clone().entered();
        link.serve(engine, server, handover)?;
        engine.add_link(Box::new(link));
        // A server that is handed over has the first claim to its place.
        self.shared.dial_in_socket.get().map_or(Ok(()), |socket| socket.serve_on(engine))
    }

    /// Has the figures of the server for the clients tell of the upstream server, too, from now on; otherwise they do when
    /// the mux [serves](Mux::serve).
    #[cfg(feature = "metrics")]
    pub fn report_to(&self, metrics: &Metrics) {
        let shared = Arc::clone(&self.shared);
        metrics.add(move |exposition| {
            shared.tell(exposition);
            shared.agent.get().into_iter().for_each(|agent| agent.tell(exposition));
        });
    }

    /// Has the figures of a machine's mux tell of the mux of its [guest agent](Mux::for_agent), too.
    #[cfg(feature = "metrics")]
    pub fn report_agent(&self, agent: &Mux) {
        let _ = self.shared.agent.set(Arc::clone(&agent.shared));
    }

    /// Sets how long a command may be unanswered before the log and [`UpstreamStatus::hangs`] say that the upstream server
    /// hangs. By default, as long as [`DeadlineProfile::Qemu`](crate::DeadlineProfile::Qemu) has for the command that was sent
    /// first of those that are unanswered. To be called before the mux serves.
    pub fn hang_after(self, after: Duration) -> Mux {
        let _ = self.shared.hang_after.set(after);
        self
    }

    /// Sets how long a guest agent may take for a command that has no [deadline](Registry::deadline) of its own; 60 seconds by
    /// default. Counts from when the command is sent. To be called before the mux serves, and for a mux [of an
    /// agent](Mux::for_agent).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use qmp_server::Mux;
    ///
    /// let mux = Mux::for_agent(None, "unix:/run/vm0/agent.sock".parse()?)?;
    /// let mux = mux.answer_within(Duration::from_secs(10));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn answer_within(self, within: Duration) -> Mux {
        let _ = self.shared.answer_within.set(within);
        self
    }

    /// Speaks to an upstream server at a Unix socket only if it is a process of this user. To be called before the mux
    /// serves.
    pub fn only_of_user(self, uid: u32) -> Mux {
        let _ = self.shared.peer.set(uid);
        self
    }

    /// Lets the servers of this mux and others connect at the same socket, if it listens for one that
    /// [connects](Dial::In): where others that were given the same `sockets` do, if its address is the same. Those that share
    /// a socket serve on one engine. To be called before the mux [opens](Mux::open).
    ///
    /// ```
    /// use qmp_server::{DialInSockets, Mux};
    ///
    /// let sockets = DialInSockets::default();
    /// let upstream = "unix:/run/qemu.sock,dial-in=on,mode=0666,user=0".parse()?;
    /// let mux = Mux::named("vm0", upstream)?.dial_in_at(&sockets);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dial_in_at(self, sockets: &DialInSockets) -> Mux {
        let _ = self.shared.dial_in_sockets.set(sockets.clone());
        self
    }

    /// Says what becomes of clients when the upstream server is lost. By default they are
    /// [disconnected](UpstreamLost::Disconnect). To be called before the mux serves.
    ///
    /// ```
    /// use qmp_server::{Mux, UpstreamLost};
    ///
    /// let mux = Mux::new("unix:/run/vm0/qemu.sock".parse()?)?;
    /// let mux = mux.on_upstream_lost(UpstreamLost::Keep);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_upstream_lost(self, what: UpstreamLost) -> Mux {
        self.shared.upstream.set_lost_policy(what);
        self
    }

    /// Whether the mux has ended because its upstream server was lost ([`UpstreamLost::Exit`]), and not because that has
    /// ended as it was told to, or the mux was [shut down](Mux::shutdown).
    pub fn has_lost_upstream(&self) -> bool {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// Says that an upstream server has just appeared, for who knows: it is connected to at once, and while it does not listen
    /// yet again and again for a second.
    pub fn upstream_appeared(&self) {
        self.shared.is_last.store(false, Ordering::SeqCst);
        self.shared.has_appeared.store(true, Ordering::SeqCst);
        self.shared.upstream.wake();
    }

    /// Says that there is no upstream server to connect to any more: the mux [shuts down](Mux::shutdown) when it has no
    /// connection, at once if it has none.
    pub fn upstream_gone(&self) {
        self.shared.is_last.store(true, Ordering::SeqCst);
        self.shared.upstream.wake();
    }

    /// What the upstream server does: what `__org.qmp-server_query-upstream` returns.
    pub fn status(&self) -> UpstreamStatus {
        self.shared.status()
    }

    /// The server for the clients, while there is one.
    pub fn control(&self) -> Option<Control> {
        self.shared.server().map(|server| Control::new(&server))
    }

    /// Waits until the server for the clients has ended: because the mux was [shut down](Mux::shutdown), or because nobody
    /// can come any more.
    pub fn wait(&self) {
        let serving = self.shared.serving();
        let not_yet = |serving: &mut Serving| matches!(serving, Serving::NotYet);
        let serving = self.shared.changed.wait_while(serving, not_yet);
        let server = match &*serving.unwrap_or_else(PoisonError::into_inner) {
            Serving::Since(control) => control.server(),
            Serving::NotYet | Serving::Ended => None,
        };
        if let Some(server) = server {
            server.wait_until_ended();
        }
        // The program may end before anything else happens.
        self.shared.shut_down();
        self.shared.dial_in_socket.get().into_iter().for_each(|socket| socket.wait_until_left());
    }

    /// Ends the server for the clients, in its order. The connection to the upstream server lasts until that has answered
    /// what it was sent, but not longer than half a second.
    pub fn shutdown(&self) {
        self.shared.shut_down();
    }
}

/// Shuts it down.
impl Drop for Mux {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for Mux {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mux")
            .field("upstream", &self.shared.connect.address)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn serving(&self) -> MutexGuard<'_, Serving> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection is there already, and cannot be made again.
    fn is_inherited(&self) -> bool {
        self.dial_in.is_none() && self.connect.is_inherited()
    }

    fn opened(&self) -> MutexGuard<'_, Option<OpenedUpstream>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn membership(&self) -> MutexGuard<'_, Option<Membership>> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handed_over(&self) -> MutexGuard<'_, Option<MuxHandover>> {
        self.handed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_over(&self, handover: MuxHandover) {
        *self.handed_over() = Some(handover);
    }

    /// The server for the clients, while there is one.
    fn server(&self) -> Option<Arc<Hosted>> {
        match &*self.serving() {
            Serving::Since(control) => control.server(),
            Serving::NotYet | Serving::Ended => None,
        }
    }

    /// Clients are served from now on.
    fn serves(&self, control: Control) {
        let mut serving = self.serving();
        // It may have ended already.
        if matches!(*serving, Serving::NotYet) {
            *serving = Serving::Since(control.clone());
        }
        drop(serving);
        self.changed.notify_all();
        // Whoever shuts the mux down says so first, and then looks for the server.
        if self.is_shutting_down() {
            control.shutdown();
        }
    }

    /// The server for the clients has ended.
    fn ended(&self) {
        *self.serving() = Serving::Ended;
        self.changed.notify_all();
        self.shut_down();
    }

    fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::SeqCst);
        let membership = self.membership().take();
        drop(membership);
        if let Some(server) = self.server() {
            server.stop();
        }
        self.upstream.wake();
    }

    /// How long this command may be unanswered before the server hangs.
    fn patience(&self, command: &str) -> Duration {
        let by_name = || DeadlineProfile::Qemu.of(command);
        self.hang_after.get().copied().or_else(by_name).unwrap_or(Duration::MAX)
    }

    fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::SeqCst)
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
    use std::os::unix::net::{UnixListener, UnixStream};

    use qmp_dispatch::Dispatcher;
    use qmp_dispatch::proto::Layout;

    use super::lines::Lines;
    use super::*;
    use crate::{Address, Discipline, system_time, version};

    #[test]
    fn an_end_in_order_ends_connections_as_soon_as_there_are_any() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upstream.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mux = Mux::new(Address::Unix(path).into()).unwrap();
        let dispatcher = Dispatcher::new(mux.registry().unwrap(), version(), system_time);
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = Server::new(dispatcher)
            .discipline(Discipline::OnePerMonitor)
            .stay()
            .serve(Box::new(theirs), Layout::Compact);
        mux.serve(server).unwrap();
        let mut upstream = Lines::new(listener.accept().unwrap().0);
        upstream.send(r#"{"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}}"#);
        upstream.answer("qmp_capabilities");
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
        client.expect_end();
        mux.shutdown();
        mux.wait();
    }
}
