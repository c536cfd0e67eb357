// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server as an embedder sees it.

mod control;
mod embedded;
mod status;
#[cfg(feature = "tokio")]
mod stream;

use std::fmt;
use std::io;
#[cfg(feature = "mux")]
use std::os::fd::OwnedFd;
use std::sync::{Arc, RwLock};
#[cfg(feature = "mux")]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use qmp_dispatch::proto::{Dialect, Layout};
use qmp_dispatch::{Dispatcher, Locals};
use tracing::Span;

pub use self::control::Control;
pub use self::embedded::Embedded;
pub use self::status::register_status;
#[cfg(feature = "metrics")]
pub(crate) use self::status::{control, no_server};
use crate::access::{Access, Admission, DoorRole, Limits, Logged, Origin, Policy, RefusalHook};
#[cfg(feature = "mux")]
use crate::engine::{ArrivalState, Doors};
use crate::engine::{Engine, Gate, Hosted, Listening, Observed, OnEnd, Options, OwnEvents, Plan};
use crate::io::Waker;
#[cfg(feature = "mux")]
use crate::listen::take_over;
use crate::listen::{Listen, ListenError, bind};
use crate::observe::Refusal;
use crate::session::Discipline;
#[cfg(feature = "mux")]
use crate::session::{SessionState, TextsTaken};
use crate::transport::{Address, Listener, Opened, Peer, Transport};
#[cfg(feature = "mux")]
use crate::transport::{Luggage, SocketFile, inherited, unix};

/// How long a command that is executed may hold up the end of the server, by default.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

type Connections = Vec<(Box<dyn Transport>, Origin)>;

/// Removes the files of sockets that nobody listens at any more.
#[cfg(feature = "mux")]
impl Drop for Inherited {
    fn drop(&mut self) {
        for InheritedListener { opened_as, socket, file } in self.listeners.drain(..) {
            if let Ok(Address::Unix(path)) = opened_as.parse() {
                unix::take_over(socket.into(), &path, file, SocketFile::default()).clean_up();
            }
        }
    }
}

/// A server that is set up: where it listens, and what it serves there.
///
/// Any number of clients can be connected to each socket at a time; each is a monitor of its own.
///
/// ```
/// use qmp_dispatch::proto::{Error, Version};
/// use qmp_dispatch::{Context, Dispatcher, Registry};
/// use qmp_server::{Access, Address, Listen, Server, system_time};
///
/// let mut registry = Registry::new();
/// registry.command("x-ping", |_: &Context| Ok::<_, Error>("pong".to_owned()))?;
/// let dispatcher = Dispatcher::new(registry, Version::new(0, 1, 0, "example"), system_time);
///
/// let folder = tempfile::tempdir()?;
/// let listen = Listen::new(Address::Unix(folder.path().join("qmp.sock")));
/// let mut access = Access::default();
/// access.allow_user("root")?;
/// let server = Server::new(dispatcher).access(access).listen(&listen)?.spawn()?;
/// // Clients connect and are served, until somebody says:
/// server.control().shutdown();
/// server.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nobody is served before it runs"]
pub struct Server {
    dispatcher: Dispatcher,
    listening: Vec<Listening>,
    connections: Connections,
    access: Access,
    look_up_groups: bool,
    options: Options,
    observed: Observed,
    refusal_hook: Option<RefusalHook>,
    span: Span,
    on_end: Option<OnEnd>,
    /// What connections were opened as.
    #[cfg(feature = "mux")]
    opened: Vec<String>,
    #[cfg(feature = "mux")]
    inherited: Inherited,
}

/// What another program has handed over, as far as it was not asked for here yet.
#[cfg(feature = "mux")]
#[derive(Default)]
pub(crate) struct Inherited {
    pub(crate) listeners: Vec<InheritedListener>,
    pub(crate) opened: Vec<String>,
    pub(crate) clients: Option<InheritedClients>,
}

/// A listener of another program.
#[cfg(feature = "mux")]
pub(crate) struct InheritedListener {
    pub(crate) opened_as: String,
    pub(crate) socket: OwnedFd,
    /// Device and inode of its file, if it has one.
    pub(crate) file: Option<(u64, u64)>,
}

/// Clients of another program, until the server runs.
#[cfg(feature = "mux")]
pub(crate) struct InheritedClients {
    pub(crate) sessions: Vec<SessionState>,
    pub(crate) texts: Arc<TextsTaken>,
    pub(crate) luggage: Arc<Mutex<Luggage>>,
}

#[cfg(feature = "mux")]
impl InheritedClients {
    /// Reserves their numbers.
    fn announce(&self, dispatcher: &Dispatcher) {
        let last = self.sessions.iter().map(|session| session.monitor.id).max();
        dispatcher.reserve_ids(last.unwrap_or(0));
    }

    fn resume(self, server: &Arc<Hosted>) {
        let mut luggage = self.luggage.lock().unwrap_or_else(PoisonError::into_inner);
        for session in self.sessions {
            let monitor = session.monitor.id;
            if let Err(error) = server.resume(session, &mut luggage, &self.texts) {
                tracing::warn!(monitor, "a client is not served any more: {error}");
            }
        }
    }
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(dispatcher: Dispatcher) -> Server {
        Server {
            dispatcher,
            listening: Vec::new(),
            connections: Vec::new(),
            access: Access::default(),
            look_up_groups: false,
            options: Options {
                discipline: Discipline::default(),
                limits: Limits::default(),
                shutdown_deadline: SHUTDOWN_DEADLINE,
                stay: false,
                dialect: Some(Dialect::default()),
                gate: Gate::Open,
                own_events: OwnEvents::ForAll,
            },
            observed: Observed::new(),
            refusal_hook: None,
            span: Span::none(),
            on_end: None,
            #[cfg(feature = "mux")]
            opened: Vec::new(),
            #[cfg(feature = "mux")]
            inherited: Inherited::default(),
        }
    }

    /// Listens at one more address. Clients can connect at once, and are served when the server runs. Those of a
    /// [`Mux`](crate::Mux) can connect when that lets them in.
    ///
    /// A Unix socket that nobody listens at any more is replaced; the socket is removed when the server ends. While one of a
    /// mux does not listen, a locked file beside it, with `.lock` behind its name, keeps other servers away. Without TLS, TCP
    /// is for loopback addresses unless [`Listen::insecure`] is set. With a [role](Listen::role) that is not given, because
    /// there are no roles or none of this name, nobody is served there.
    ///
    /// # Errors
    ///
    /// [`ListenError`], among others if another server listens there.
    pub fn listen(mut self, listen: &Listen) -> Result<Server, ListenError> {
        let layout = if listen.pretty { Layout::Pretty } else { Layout::Compact };
        let role = listen.role.as_deref().map(|role| DoorRole(role.into()));
        let (notices, deadlines) = (listen.notices, listen.deadline_profile);
        let origin = Origin { role, notices, deadlines, ..Origin::new(layout) };
        let opened_as = listen.address.to_string();
        #[cfg(feature = "mux")]
        let opened = match self.inherit(listen, &opened_as)? {
            Some(opened) => opened,
            None => bind(listen)?,
        };
        #[cfg(not(feature = "mux"))]
        let opened = bind(listen)?;
        for opened in opened {
            let mut origin = origin.clone();
            match opened {
                Opened::Listener(listener) => {
                    origin.listener = Some(self.listening.len());
                    let mut listening = Listening::new(listener, origin);
                    listening.opened_as = Some(opened_as.clone());
                    // Scripts connect as soon as they see the socket. Only a mux may have to refuse clients at first.
                    if !self.dispatcher.forwards() {
                        let address = &listen.address;
                        let failed = |reason| ListenError { address: address.clone(), reason };
                        listening.open().map_err(failed)?;
                    }
                    self.listening.push(listening);
                }
                Opened::Connection(transport) => {
                    #[cfg(feature = "mux")]
                    self.opened.push(opened_as.clone());
                    self.connections.push((transport, origin));
                }
            }
        }
        Ok(self)
    }

    /// What another program has opened for these options, if it has; nothing more if it was a connection.
    #[cfg(feature = "mux")]
    fn inherit(
        &mut self,
        listen: &Listen,
        opened_as: &str,
    ) -> Result<Option<Vec<Opened>>, ListenError> {
        let Inherited { listeners, opened, .. } = &mut self.inherited;
        if let Some(place) = opened.iter().position(|opened| opened == opened_as) {
            self.opened.push(opened.swap_remove(place));
            return Ok(Some(Vec::new()));
        }
        let mut all = Vec::new();
        if listen.dial_out.is_some() {
            // There is nothing that listens: it connects anew.
            listeners.retain(|listener| listener.opened_as != opened_as);
        }
        let those = listeners.extract_if(.., |listener| listener.opened_as == opened_as);
        for InheritedListener { socket, file, .. } in those {
            all.push(Opened::Listener(take_over(listen, socket, file)?));
        }
        Ok((!all.is_empty()).then_some(all))
    }

    /// Has what another program has handed over at hand, for [listening](Server::listen) and for running.
    #[cfg(feature = "mux")]
    pub(crate) fn inheriting(mut self, inherited: Inherited) -> Server {
        self.inherited = inherited;
        self
    }

    /// Serves connections that another program has accepted and not served.
    #[cfg(feature = "mux")]
    pub(crate) fn with_arrivals(
        mut self,
        arrivals: Vec<ArrivalState>,
        luggage: &mut Luggage,
    ) -> Server {
        for ArrivalState { socket, given, came } in arrivals {
            let opened =
                luggage.take(socket).and_then(|socket| inherited::connection(socket, given));
            match opened {
                Ok(transport) => self.connections.push((transport, came.into_origin())),
                Err(error) => tracing::warn!("a client is not served: {error}"),
            }
        }
        self
    }

    /// Says which processes of this machine may connect, in place of the default [`Access`]. Others are disconnected
    /// without a greeting.
    pub fn access(mut self, access: Access) -> Server {
        self.access = access;
        self
    }

    /// Looks the groups of each process up before it is greeted, because what it may do depends on them. That takes
    /// place on a thread of its own, since user databases can be slow.
    pub fn look_up_groups(mut self) -> Server {
        self.look_up_groups = true;
        self
    }

    /// Chooses how many in-band commands may be executed at a time; by default [one](Discipline::OneAtATime).
    pub fn discipline(mut self, discipline: Discipline) -> Server {
        self.options.discipline = discipline;
        self
    }

    /// Says how long a command that is executed may hold up the end of the server; five seconds by default. Commands
    /// that are not done by then are left unanswered.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Server {
        self.options.shutdown_deadline = deadline;
        self
    }

    /// Chooses in which QEMU's dialect errors in messages are found and worded; by default that of 11.1.
    pub fn dialect(mut self, dialect: Dialect) -> Server {
        self.options.dialect = Some(dialect);
        self
    }

    /// Speaks to each client in the dialect of the version in its greeting, as a proxy does for a QEMU whose greeting it
    /// [passes on](Dispatcher::set_greeting).
    pub fn dialect_of_greeting(mut self) -> Server {
        self.options.dialect = None;
        self
    }

    /// Says how much clients may take, in place of the default [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Server {
        self.options.limits = limits;
        self
    }

    /// Calls `hook` for each client that is not let in.
    pub(crate) fn on_refusal(
        mut self,
        hook: impl Fn(Option<&Peer>, Refusal, &str) + Send + Sync + 'static,
    ) -> Server {
        self.refusal_hook = Some(Box::new(hook));
        self
    }

    /// Calls `hook` once, when the server has ended, or is dropped without having run: for who waits for several things. A
    /// hook that there is already is called before it.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    ///
    /// # let server = || Server::new(Dispatcher::new(Registry::new(), version(), system_time)).stay();
    /// let (sender, ended) = channel();
    /// let servers: Vec<_> = (0..2)
    ///     .map(|number| {
    ///         let sender = sender.clone();
    ///         server().on_end(move || drop(sender.send(number))).spawn()
    ///     })
    ///     .collect::<Result<_, _>>()?;
    /// servers[1].control().shutdown();
    /// assert_eq!(ended.recv()?, 1);
    /// # servers[0].control().shutdown();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_end(mut self, hook: impl FnOnce() + Send + Sync + 'static) -> Server {
        let before = self.on_end.take();
        self.on_end = Some(OnEnd::new(move || {
            drop(before);
            hook();
        }));
        self
    }

    /// Lets clients in at doors without notices when the [gate](Hosted::set_gate) is opened, and sends its own events only
    /// to clients that get notices.
    #[cfg(feature = "mux")]
    pub(crate) fn with_gate(mut self, gate: Gate) -> Server {
        self.options.gate = gate;
        self.options.own_events = OwnEvents::WithNotices;
        self
    }

    #[cfg(feature = "mux")]
    pub(crate) fn fixed_dialect(&self) -> Option<Dialect> {
        self.options.dialect
    }

    /// Has the log speak of the server in this span.
    #[cfg(feature = "mux")]
    pub(crate) fn in_span(mut self, span: Span) -> Server {
        self.span = span;
        self
    }

    /// Goes on when the server listens nowhere and has no connection left: there will be more by [`Control::serve`].
    pub fn stay(mut self) -> Server {
        self.options.stay = true;
        self
    }

    /// Accepts clients from a listener of the embedder's own, over any transport. It is made non-blocking.
    pub fn accept_from(mut self, listener: Box<dyn Listener>, layout: Layout) -> Server {
        let origin = Origin { listener: Some(self.listening.len()), ..Origin::new(layout) };
        self.listening.push(Listening::new(listener, origin));
        self
    }

    /// Serves a connection that exists already, over any transport. It is made non-blocking.
    pub fn serve(mut self, connection: Box<dyn Transport>, layout: Layout) -> Server {
        self.connections.push((connection, Origin::new(layout)));
        self
    }

    /// Where the server listens, with the ports that the system has chosen.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.listening.iter().map(|listening| listening.listener.address())
    }

    /// Looks commands up and emits events.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Runs the server on threads of its own.
    ///
    /// A server that listens nowhere ends with its last connection, or at once if it has none, unless it is to
    /// [stay](Server::stay).
    ///
    /// # Errors
    ///
    /// If the system refuses threads or descriptors.
    pub fn spawn(self) -> io::Result<ServerHandle> {
        self.spawn_on(&Engine::new()?)
    }

    /// Runs the server on the threads of an engine, beside others.
    ///
    /// # Errors
    ///
    /// If the system refuses descriptors.
    pub fn spawn_on(self, engine: &Engine) -> io::Result<ServerHandle> {
        Ok(ServerHandle { server: self.host(engine, None)? })
    }

    /// Runs the server, and leaves in-band commands to a poll loop of the embedder's.
    ///
    /// # Errors
    ///
    /// If the system refuses threads or descriptors.
    pub fn embed(self) -> io::Result<Embedded> {
        self.embed_on(&Engine::new()?)
    }

    /// Runs the server on the threads of an engine, and leaves in-band commands to a poll loop of the embedder's.
    ///
    /// # Errors
    ///
    /// If the system refuses descriptors.
    pub fn embed_on(self, engine: &Engine) -> io::Result<Embedded> {
        let waker = Arc::new(Waker::new()?);
        let server = self.host(engine, Some(Arc::clone(&waker)))?;
        Ok(Embedded::new(waker, ServerHandle { server }))
    }

    /// Lets clients connect where they will be let in. Here and not on the engine's threads, which may have no leave to do that.
    pub(crate) fn open_doors(&mut self) -> io::Result<()> {
        let is_open = matches!(self.options.gate, Gate::Open | Gate::Waiting);
        let mut doors = self.listening.iter_mut();
        doors.try_for_each(|door| match is_open || door.origin.notices {
            true => door.open(),
            false => Ok(()),
        })
    }

    fn host(self, engine: &Engine, embedder: Option<Arc<Waker>>) -> io::Result<Arc<Hosted>> {
        #[cfg(feature = "mux")]
        let (mut server, clients) = self.without_clients();
        #[cfg(not(feature = "mux"))]
        let mut server = self;
        server.open_doors()?;
        let (plan, listening, connections) = server.plan(embedder);
        let hosted = engine.host(plan, listening, connections)?;
        #[cfg(feature = "mux")]
        clients.into_iter().for_each(|clients| clients.resume(&hosted));
        Ok(hosted)
    }

    /// Runs the server on the threads of an engine, without waiting for them. What goes wrong is logged, and ends it.
    #[cfg(feature = "mux")]
    pub(crate) fn run_on(self, engine: &Engine) -> Arc<Hosted> {
        let (server, clients) = self.without_clients();
        let (plan, listening, connections) = server.plan(None);
        let hosted = engine.host_later(plan, listening, connections);
        clients.into_iter().for_each(|clients| clients.resume(&hosted));
        hosted
    }

    #[cfg(feature = "mux")]
    fn without_clients(mut self) -> (Server, Option<InheritedClients>) {
        let clients = self.inherited.clients.take();
        clients.iter().for_each(|clients| clients.announce(&self.dispatcher));
        (self, clients)
    }

    fn plan(self, embedder: Option<Arc<Waker>>) -> (Plan, Vec<Listening>, Connections) {
        let addresses = self.addresses().collect();
        #[cfg(feature = "mux")]
        let doors = {
            let each =
                |listening: &Listening| (listening.opened_as.clone(), listening.origin.clone());
            Doors { listeners: self.listening.iter().map(each).collect(), opened: self.opened }
        };
        let policy = Policy { access: self.access, look_up_groups: self.look_up_groups };
        let admission = Admission {
            policy: RwLock::new(policy),
            counters: Arc::clone(self.observed.counters()),
            refusal_hook: self.refusal_hook,
            logged: Logged::default(),
        };
        let furnish = |server: &Arc<Hosted>, locals: Locals| locals.with(Control::new(server));
        let renewal = |listening: &Listening| {
            Some((listening.listener.address(), listening.listener.renewal()?))
        };
        let renewals = self.listening.iter().filter_map(renewal).collect();
        let plan = Plan {
            dispatcher: self.dispatcher,
            options: self.options,
            observed: self.observed,
            admission,
            furnish: Box::new(furnish),
            span: self.span,
            on_end: self.on_end,
            embedder,
            addresses,
            renewals,
            #[cfg(feature = "mux")]
            doors,
        };
        (plan, self.listening, self.connections)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A server that runs. Dropping this does not end it.
pub struct ServerHandle {
    server: Arc<Hosted>,
}

impl ServerHandle {
    #[cfg(feature = "mux")]
    pub(crate) fn hosted(&self) -> &Arc<Hosted> {
        &self.server
    }

    /// Controls the server from elsewhere.
    pub fn control(&self) -> Control {
        Control::new(&self.server)
    }

    /// Emits events to the clients of this server, from any thread.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.server.dispatcher
    }

    /// Whether somebody has [shut the server down](Control::shutdown).
    pub fn is_stopping(&self) -> bool {
        self.server.is_stopping()
    }

    /// Waits until the server has ended: somebody has [shut it down](Control::shutdown), what was executed is answered,
    /// and clients have got what was left for them, each within its time. A command that never ends is left alone.
    pub fn wait(self) {
        self.server.wait_until_ended();
    }
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_embedders_hold_can_be_shared_by_threads() {
        fn check<T: Send + Sync>() {}
        check::<Server>();
        check::<ServerHandle>();
        check::<Embedded>();
        check::<Control>();
        check::<Engine>();
        check::<ListenError>();
    }
}
