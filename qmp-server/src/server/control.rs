// SPDX-License-Identifier: MIT OR Apache-2.0
//! What handlers and other threads can do to a running server.

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use qmp_dispatch::proto::Layout;

use crate::ListenError;
use crate::access::{Access, Origin, Policy};
use crate::engine::{Hosted, Whom};
use crate::observe::{ClientStatus, ServerStatus};
use crate::transport::{Address, Transport};

/// Controls a running server, from any thread. A [local](qmp_dispatch::Monitor::local) of every
/// monitor, so that handlers have it. Does nothing once the server has ended.
///
/// ```
/// use std::io::Write;
/// use std::os::unix::net::UnixStream;
///
/// use qmp_dispatch::proto::{Error, Layout};
/// use qmp_dispatch::{Context, Dispatcher, Registry};
/// use qmp_server::{Control, Server, system_time, version};
///
/// let mut registry = Registry::new();
/// registry.command("quit", |context: &Context| {
///     context.monitor().local::<Control>().expect("a server").shutdown();
///     Ok::<_, Error>(())
/// })?;
/// let dispatcher = Dispatcher::new(registry, version(), system_time);
/// let server = Server::new(dispatcher).stay().spawn()?;
///
/// let (stream, mut client) = UnixStream::pair()?;
/// server.control().serve(Box::new(stream), Layout::Compact)?;
/// client.write_all(b"{'execute': 'qmp_capabilities'} {'execute': 'quit'}")?;
/// server.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Control {
    server: Weak<Hosted>,
}

impl Control {
    pub(crate) fn new(server: &Arc<Hosted>) -> Control {
        Control { server: Arc::downgrade(server) }
    }

    /// The server, until it has ended.
    pub(crate) fn server(&self) -> Option<Arc<Hosted>> {
        self.server.upgrade().filter(|server| !server.has_ended())
    }

    /// Ends the server: no client is accepted any more, what is being executed is finished and
    /// answered, what is queued is answered with an error, clients get what is left for them, and
    /// all connections end. If a handler calls this, what its own client has queued is not answered
    /// at all, as in QEMU after `quit`.
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// # let server = Server::new(dispatcher).stay().spawn()?;
    /// let control = server.control();
    /// control.shutdown();
    /// control.shutdown();
    /// server.wait();
    /// assert!(control.status().is_none());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shutdown(&self) {
        if let Some(server) = self.server() {
            server.stop();
        }
    }

    /// Ends the connections of all clients, each when it has been sent what is left for it, or has had
    /// a second for reading that. What they have sent and was not executed yet is not answered.
    /// Others can connect.
    pub fn disconnect_clients(&self) {
        if let Some(server) = self.server() {
            server.disconnect_clients(Whom::All);
        }
    }

    /// Says which processes of this machine may connect from now on, and with `look_up_groups` that the groups of each are
    /// looked up before it is greeted, as [`Server::access`](crate::Server::access) and
    /// [`Server::look_up_groups`](crate::Server::look_up_groups) do. Clients that may not connect any more are disconnected like
    /// [all](Control::disconnect_clients). May look up groups, and so block.
    ///
    /// ```
    /// use std::io::Read;
    /// use std::os::unix::net::UnixStream;
    ///
    /// use qmp_dispatch::proto::Layout;
    /// use qmp_server::Access;
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// # let server = Server::new(dispatcher).stay().spawn()?;
    /// let control = server.control();
    /// let (stream, mut client) = UnixStream::pair()?;
    /// control.serve(Box::new(stream), Layout::Compact)?;
    ///
    /// let mut others = Access::default();
    /// others.allow_user("12345")?;
    /// control.set_access(others, false);
    /// let mut said = String::new();
    /// client.read_to_string(&mut said)?;
    /// assert_eq!(said.lines().count(), 1, "the greeting alone");
    /// # control.shutdown();
    /// # server.wait();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_access(&self, access: Access, look_up_groups: bool) {
        if let Some(server) = self.server() {
            server.set_policy(Policy { access, look_up_groups });
        }
    }

    /// Reads the files of all listeners again, which are keys and certificates. They hold for connections that are accepted from then
    /// on, others keep theirs. May block.
    ///
    /// # Errors
    ///
    /// That of the first listener whose files are not good any more, which goes on with what it had.
    pub fn renew(&self) -> Result<(), ListenError> {
        let Some(server) = self.server() else { return Ok(()) };
        for (address, renew) in &server.renewals {
            renew().map_err(|reason| ListenError { address: address.clone(), reason })?;
        }
        Ok(())
    }

    /// Serves one more connection, over any transport.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::os::unix::net::UnixStream;
    ///
    /// use qmp_dispatch::proto::Layout;
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// # let server = Server::new(dispatcher).stay().spawn()?;
    /// let control = server.control();
    /// let (stream, client) = UnixStream::pair()?;
    /// control.serve(Box::new(stream), Layout::Compact)?;
    /// assert_eq!(control.clients().len(), 1);
    ///
    /// control.shutdown();
    /// server.wait();
    /// let too_late = control.serve(Box::new(client), Layout::Compact).unwrap_err();
    /// assert_eq!(too_late.kind(), ErrorKind::NotConnected);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the server has ended, or what the system says
    /// when it cannot be polled. The connection is dropped then.
    pub fn serve(&self, connection: Box<dyn Transport>, layout: Layout) -> io::Result<()> {
        let ended = || io::Error::new(io::ErrorKind::NotConnected, "the server has ended");
        let server = self.server().ok_or_else(ended)?;
        server.serve(connection, Origin::new(layout))
    }

    /// What the server does, in whole; `None` once it has ended.
    pub fn status(&self) -> Option<ServerStatus> {
        Some(self.server()?.status())
    }

    /// What each client does, in the order in which they have come.
    pub fn clients(&self) -> Vec<ClientStatus> {
        self.server().map(|server| server.client_statuses()).unwrap_or_default()
    }

    /// Where the server listens, with the ports that the system has chosen; nowhere once it has ended.
    pub fn addresses(&self) -> Vec<Address> {
        self.server().map(|server| server.addresses.clone()).unwrap_or_default()
    }

    /// The labels of the sockets that the server listens at, in the order of their
    /// [addresses](Control::addresses), as QEMU calls those of its `-qmp` options: `compat_monitor0`,
    /// `compat_monitor1`, and so on.
    ///
    /// ```
    /// # use qmp_dispatch::{Dispatcher, Registry};
    /// # use qmp_server::{Server, system_time, version};
    /// # let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
    /// let server = Server::new(dispatcher).listen(&"tcp:127.0.0.1:0".parse()?)?.spawn()?;
    /// let control = server.control();
    /// assert_eq!(control.labels(), ["compat_monitor0"]);
    /// # control.shutdown();
    /// # server.wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn labels(&self) -> Vec<String> {
        let listening = self.server().map_or(0, |server| server.addresses.len());
        (0..listening).map(label_of).collect()
    }

    /// Ends all connections of the socket with this label at once, as QEMU's `yank` does: they are
    /// sent nothing more. The socket then accepts new clients. Whether there is one of that label.
    pub fn yank(&self, label: &str) -> bool {
        let Some(server) = self.server() else { return false };
        let index = (0..server.addresses.len()).find(|&index| label_of(index) == label);
        if let Some(index) = index {
            server.abort_connections(index);
        }
        index.is_some()
    }
}

fn label_of(index: usize) -> String {
    format!("compat_monitor{index}")
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}
