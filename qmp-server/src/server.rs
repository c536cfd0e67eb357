// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server as an embedder sees it.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use qmp_dispatch::Dispatcher;
use qmp_dispatch::proto::Layout;

use crate::control::Control;
use crate::core::{Core, Listening};
use crate::doorkeeper::Doorkeeper;
use crate::embedded::Embedded;
use crate::entrance::{DoorRole, Entrance};
use crate::observed::Observed;
use crate::signal::Signal;
use crate::transport::{Opened, open};
use crate::{Access, Address, Limits, Listen, Listener, Transport};

/// One to read while another one is held up by a command.
const THREADS: usize = 2;

/// How long a command that is being executed may hold up the end of the server, by default.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// How long the threads may take to end everything else.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// A server that is being set up: where it listens, and what it serves there.
///
/// Any number of clients can be connected to each socket at a time; each is a monitor of its own.
///
/// ```
/// use qmp_dispatch::proto::{Error, Version};
/// use qmp_dispatch::{Context, Dispatcher, Registry};
/// use qmp_server::{Address, Listen, Server, system_time};
///
/// let mut registry = Registry::new();
/// registry.command("x-ping", |_: &Context| Ok::<_, Error>("pong".to_owned()))?;
/// let dispatcher = Dispatcher::new(registry, Version::new(0, 1, 0, "example"), system_time);
///
/// let folder = tempfile::tempdir()?;
/// let listen = Listen::new(Address::Unix(folder.path().join("qmp.sock")));
/// let server = Server::new(dispatcher).listen(&listen)?.spawn()?;
/// // Clients connect and are served, until somebody says:
/// server.control().shutdown();
/// server.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nobody is served before it runs"]
pub struct Server {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) listening: Vec<Listening>,
    pub(crate) connections: Vec<(Box<dyn Transport>, Entrance)>,
    pub(crate) access: Access,
    pub(crate) options: Options,
    pub(crate) observed: Observed,
    pub(crate) doorkeeper: Option<Doorkeeper>,
}

/// How a server is to behave.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) discipline: Discipline,
    /// How long what is being executed may hold up the end of the server.
    pub(crate) shutdown_deadline: Duration,
    /// It goes on without clients, though it listens nowhere.
    pub(crate) stay: bool,
    pub(crate) limits: Limits,
}

/// How many in-band commands are executed at a time. Out-of-band commands are executed at once in
/// either discipline, and the in-band responses of one monitor come in the order of its requests.
///
/// It makes a difference for commands that
/// [answer later](qmp_dispatch::Registry::deferred_command): handlers are always called one at a
/// time.
///
/// ```
/// use qmp_server::Discipline;
///
/// assert_eq!(Discipline::default(), Discipline::OneAtATime);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Discipline {
    /// One in the whole server, as in QEMU: no other is begun before it has been answered.
    #[default]
    OneAtATime,
    /// One of each monitor: while the answer of a command is being waited for, others' commands are
    /// executed.
    OnePerMonitor,
}

/// A server cannot listen at an address.
///
/// ```
/// use std::io::ErrorKind;
///
/// # use qmp_dispatch::{Dispatcher, Registry};
/// # use qmp_server::{Server, system_time, version};
/// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
/// let error = Server::new(dispatcher).listen(&"tcp:0.0.0.0:0".parse()?).unwrap_err();
/// assert_eq!(error.reason.kind(), ErrorKind::Unsupported);
/// assert_eq!(
///     error.to_string(),
///     "cannot listen at tcp:0.0.0.0:0: 0.0.0.0 is not a loopback address; use tls:, or insecure=on"
/// );
/// # Ok::<(), qmp_server::AddressError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("cannot listen at {address}: {reason}")]
pub struct ListenError {
    /// Where.
    pub address: Address,
    /// Why; that stands in the text of this error, too.
    pub reason: io::Error,
}

impl Server {
    /// A server that listens nowhere yet.
    ///
    /// ```
    /// use qmp_dispatch::{Dispatcher, Registry};
    /// use qmp_server::{Server, system_time, version};
    ///
    /// let server = Server::new(Dispatcher::new(Registry::new(), version(), system_time));
    /// assert_eq!(server.addresses().count(), 0);
    /// ```
    pub fn new(dispatcher: Dispatcher) -> Server {
        Server {
            observed: Observed::new(),
            dispatcher,
            listening: Vec::new(),
            connections: Vec::new(),
            access: Access::default(),
            options: Options {
                discipline: Discipline::default(),
                shutdown_deadline: SHUTDOWN_DEADLINE,
                stay: false,
                limits: Limits::default(),
            },
            doorkeeper: None,
        }
    }

    /// Listens at one more address. Clients can connect at once, and are served when the server
    /// runs.
    ///
    /// A Unix socket that nobody listens at any more is replaced; the socket is removed when the
    /// server ends. Without TLS, TCP is for loopback addresses unless [`Listen::insecure`] is set.
    /// With a [role](Listen::role) that the registered [`Roles`](crate::Roles) do not have, or without
    /// any, nobody is served there.
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let server = Server::new(dispatcher)
    ///     .listen(&"tcp:127.0.0.1:0".parse()?)?
    ///     .listen(&"tcp:127.0.0.1:0,pretty=on".parse()?)?;
    /// assert_eq!(server.addresses().count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ListenError`], among others if another server listens there.
    pub fn listen(mut self, listen: &Listen) -> Result<Server, ListenError> {
        let layout = if listen.pretty { Layout::Pretty } else { Layout::Compact };
        let role = listen.role.as_deref().map(|role| DoorRole(role.into()));
        for opened in open(listen)? {
            let entrance = Entrance { role: role.clone(), ..Entrance::new(layout) };
            match opened {
                Opened::Listener(listener) => {
                    self.listening.push(Listening::new(listener, entrance));
                }
                Opened::Connection(transport) => self.connections.push((transport, entrance)),
            }
        }
        Ok(self)
    }

    /// Says which processes of this machine may connect, in place of the default [`Access`]. Whoever
    /// may not is disconnected without a greeting.
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// use qmp_server::Access;
    /// # use qmp_server::{Server, system_time, version};
    ///
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let mut access = Access::default();
    /// access.allow_user("root")?;
    /// let server = Server::new(dispatcher).access(access);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn access(mut self, access: Access) -> Server {
        self.access = access;
        self
    }

    /// Chooses how many in-band commands may be executed at a time; by default
    /// [one](Discipline::OneAtATime).
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// use qmp_server::Discipline;
    /// # use qmp_server::{Server, system_time, version};
    ///
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let server = Server::new(dispatcher).discipline(Discipline::OnePerMonitor);
    /// ```
    pub fn discipline(mut self, discipline: Discipline) -> Server {
        self.options.discipline = discipline;
        self
    }

    /// Says how long a command that is being executed may hold up the end of the server; five seconds
    /// by default. Commands that are not done by then are left unanswered.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let server = Server::new(dispatcher).shutdown_deadline(Duration::from_secs(60));
    /// ```
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Server {
        self.options.shutdown_deadline = deadline;
        self
    }

    /// Says how much clients may take, in place of the default [`Limits`].
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// use qmp_server::Limits;
    /// # use qmp_server::{Server, system_time, version};
    ///
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let mut limits = Limits::default();
    /// limits.per_server.monitors = 1000;
    /// let server = Server::new(dispatcher).limits(limits);
    /// ```
    pub fn limits(mut self, limits: Limits) -> Server {
        self.options.limits = limits;
        self
    }

    /// Has the server go on when it listens nowhere and has no connection left: there will be more by
    /// [`Control::serve`].
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let server = Server::new(dispatcher).stay().spawn()?;
    /// assert!(!server.is_stopping());
    /// # server.control().shutdown();
    /// # server.wait();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stay(mut self) -> Server {
        self.options.stay = true;
        self
    }

    /// Accepts clients from a listener of the embedder's own, over any transport.
    ///
    /// ```
    /// use std::net::TcpListener;
    ///
    /// use qmp_dispatch::proto::Layout;
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    ///
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// let server = Server::new(dispatcher).accept_from(Box::new(listener), Layout::Pretty);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn accept_from(mut self, listener: Box<dyn Listener>, layout: Layout) -> Server {
        self.listening.push(Listening::new(listener, Entrance::new(layout)));
        self
    }

    /// Serves a connection that exists already, over any transport.
    ///
    /// ```
    /// use std::io::Read;
    /// use std::os::unix::net::UnixStream;
    ///
    /// use qmp_dispatch::proto::Layout;
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    ///
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let (stream, mut client) = UnixStream::pair()?;
    /// let server = Server::new(dispatcher).serve(Box::new(stream), Layout::Compact).spawn()?;
    ///
    /// let mut greeting = [0; 7];
    /// client.read_exact(&mut greeting)?;
    /// assert_eq!(&greeting, br#"{"QMP":"#);
    /// // Nobody else can come, so the server ends with this client.
    /// drop(client);
    /// server.wait();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn serve(mut self, connection: Box<dyn Transport>, layout: Layout) -> Server {
        self.connections.push((connection, Entrance::new(layout)));
        self
    }

    /// Where the server listens, with the ports that the system has chosen.
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// use qmp_server::Address;
    /// # use qmp_server::{Server, system_time, version};
    ///
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let server = Server::new(dispatcher).listen(&"tcp:127.0.0.1:0".parse()?)?;
    /// for address in server.addresses() {
    ///     assert!(matches!(address, Address::Tcp { port: 1.., .. }), "{address}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.listening.iter().map(|listening| listening.listener.address())
    }

    /// What commands are looked up in, and what emits events.
    pub fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// Runs the server on threads of its own.
    ///
    /// A server that listens nowhere ends with its last connection, or at once if it has none,
    /// unless it is to [stay](Server::stay).
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let server = Server::new(dispatcher).listen(&"tcp:127.0.0.1:0".parse()?)?.spawn()?;
    /// server.control().shutdown();
    /// server.wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the system refuses threads or descriptors.
    pub fn spawn(self) -> io::Result<ServerHandle> {
        ServerHandle::start(Core::new(self, None)?, THREADS)
    }

    /// Runs the server, and leaves in-band commands to a poll loop of the embedder's.
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let server = Server::new(dispatcher).listen(&"tcp:127.0.0.1:0".parse()?)?.embed()?;
    /// assert!(!server.dispatch_one(), "nobody has asked for anything");
    /// server.control().shutdown();
    /// server.wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the system refuses threads or descriptors.
    pub fn embed(self) -> io::Result<Embedded> {
        let signal = Arc::new(Signal::new()?);
        let core = Core::new(self, Some(Arc::clone(&signal)))?;
        // No command holds this thread up but an out-of-band one, and those must not block.
        let handle = ServerHandle::start(Arc::clone(&core), 1)?;
        Ok(Embedded::new(core, signal, handle))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A running server. It goes on when the handle is dropped.
///
/// ```
/// use qmp_dispatch::{Dispatcher, Registry};
/// use qmp_server::{Server, system_time, version};
///
/// let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
/// let server = Server::new(dispatcher).listen(&"tcp:127.0.0.1:0".parse()?)?.spawn()?;
/// server.control().shutdown();
/// assert!(server.is_stopping());
/// server.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ServerHandle {
    core: Arc<Core>,
    /// Disconnected when all threads have ended.
    finished: Mutex<Receiver<()>>,
}

impl ServerHandle {
    fn start(core: Arc<Core>, threads: usize) -> io::Result<ServerHandle> {
        let (working, finished) = channel();
        for index in 0..threads {
            let working = working.clone();
            let worker = Arc::clone(&core);
            let work = move || {
                worker.work(threads);
                drop(worker);
                drop(working);
            };
            let spawned = thread::Builder::new().name(format!("qmp-io-{index}")).spawn(work);
            // The threads that run already are not left behind.
            spawned.inspect_err(|_| core.stop())?;
        }
        Ok(ServerHandle { core, finished: Mutex::new(finished) })
    }

    /// Controls the server from elsewhere.
    pub fn control(&self) -> Control {
        Control::new(Arc::downgrade(&self.core))
    }

    /// What emits events to the clients of this server, from any thread.
    pub fn dispatcher(&self) -> &Dispatcher {
        self.core.dispatcher()
    }

    /// Whether somebody has [shut the server down](Control::shutdown).
    pub fn is_stopping(&self) -> bool {
        self.core.is_stopping()
    }

    /// Waits until the server has been [shut down](Control::shutdown) and has ended in order.
    ///
    /// A command that is being executed then has [some time](Server::shutdown_deadline) to end, and
    /// clients one second to read what is left for them.
    pub fn wait(self) {
        self.core.wait_for_stop();
        // Nothing is ever sent: this waits for the threads to drop their ends.
        let deadline = self.core.shutdown_deadline().saturating_add(END_DEADLINE);
        let finished = self.finished.into_inner().unwrap_or_else(PoisonError::into_inner);
        if finished.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a command does not end, and is left alone");
            self.core.finish();
        }
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
        check::<ListenError>();
    }
}
