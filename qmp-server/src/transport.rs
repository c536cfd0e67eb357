// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a connection and a listener must be able to do, and the ones there are.

mod ancillary;
mod inherited;
mod stdio;
mod tcp;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod unix;
mod vsock;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::{Address, Listen, ListenError, Peer};

/// As many clients as the system lets wait for being accepted.
const BACKLOG: i32 = 4096;

/// A connection to one client: a stream of bytes in both directions that never blocks. Its
/// [descriptor](AsFd) is polled for readiness.
///
/// ```
/// use std::io::{self, Read, Write};
/// use std::net::Shutdown;
/// use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
/// use std::os::unix::net::UnixStream;
///
/// use qmp_dispatch::proto::Layout;
/// use qmp_dispatch::{Dispatcher, Registry};
/// use qmp_server::{Peer, Received, Server, Transport, system_time, version};
///
/// /// A pipe to another part of this program.
/// struct Pipe(UnixStream);
///
/// impl AsFd for Pipe {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.0.as_fd()
///     }
/// }
///
/// impl Transport for Pipe {
///     fn peer(&self) -> io::Result<Peer> {
///         Ok(Peer::Address("this program".to_owned()))
///     }
///
///     fn receive(&self, buffer: &mut [u8], _: &mut Vec<OwnedFd>) -> io::Result<Received> {
///         let room = buffer.len();
///         Ok(Received::of_stream((&self.0).read(buffer)?, room))
///     }
///
///     fn send(&self, bytes: &[u8]) -> io::Result<usize> {
///         (&self.0).write(bytes)
///     }
///
///     fn shutdown(&self) {
///         let _ = self.0.shutdown(Shutdown::Both);
///     }
/// }
///
/// let (near, mut far) = UnixStream::pair()?;
/// near.set_nonblocking(true)?;
/// let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
/// let server = Server::new(dispatcher).serve(Box::new(Pipe(near)), Layout::Compact).spawn()?;
/// assert_eq!(server.control().clients()[0].peer, "this program");
///
/// far.write_all(b"{'execute': 'query-version'}")?;
/// far.shutdown(Shutdown::Write)?;
/// let mut said = String::new();
/// far.read_to_string(&mut said)?;
/// assert!(said.contains("Expecting capabilities negotiation"));
/// server.wait();
/// # Ok::<(), io::Error>(())
/// ```
pub trait Transport: AsFd + Send + Sync {
    /// Goes on with what comes before the first byte of QMP. Called whenever the transport becomes
    /// ready, until it succeeds; nothing else but [`shutdown`](Transport::shutdown) is before that.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) while the client has to do something first;
    /// otherwise the client is refused, and the error says why.
    fn handshake(&self) -> io::Result<()> {
        Ok(())
    }

    /// Who is at the other end. Asked after the handshake, or when it has failed: then the log tells
    /// who it was, if that is known.
    ///
    /// # Errors
    ///
    /// If that cannot be found out; the client is refused.
    fn peer(&self) -> io::Result<Peer>;

    /// Reads what is there. Zero bytes mean that the client sends no more. If there
    /// [may be more](Received::may_be_more), this is called again, and readiness is not told before
    /// `WouldBlock`.
    ///
    /// Descriptors that came with the last of the bytes replace those in `descriptors`; none come with
    /// the others.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is there yet; otherwise the connection
    /// is broken.
    fn receive(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<Received>;

    /// Reads like [`receive`](Transport::receive) from a client that sends one message and then waits
    /// for the answer, so that it does not matter with which of these bytes descriptors came. A
    /// transport for which it is work to find that out need not.
    ///
    /// # Errors
    ///
    /// Those of [`receive`](Transport::receive).
    fn receive_message(
        &self,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> io::Result<Received> {
        self.receive(buffer, descriptors)
    }

    /// Writes as much as fits.
    ///
    /// After [`WouldBlock`](io::ErrorKind::WouldBlock) the next call is for the same bytes, with or
    /// without more behind them: a transport may have taken them in a form of its own.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing fits; otherwise the connection is
    /// broken.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ends the connection in both directions; the client sees end of file.
    fn shutdown(&self);
}

/// What a [`Transport`] has received.
///
/// ```
/// use qmp_server::Received;
///
/// assert_eq!(Received::of_stream(10, 4096), Received { bytes: 10, may_be_more: false });
/// assert_eq!(Received::of_stream(4096, 4096), Received { bytes: 4096, may_be_more: true });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Received {
    /// How many bytes.
    pub bytes: usize,
    /// Whether it has to be looked whether there are more. If not, becoming ready tells of what comes
    /// next, and looking would be in vain.
    pub may_be_more: bool,
}

impl Received {
    /// So many bytes of a stream that gives all that it has, if there is room.
    pub fn of_stream(bytes: usize, room: usize) -> Received {
        Received { bytes, may_be_more: bytes == room }
    }
}

/// Accepts connections, and never blocks. Its [descriptor](AsFd) is polled for readiness.
///
/// ```
/// use std::io;
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::os::unix::net::{UnixListener, UnixStream};
/// use std::path::PathBuf;
///
/// use qmp_dispatch::proto::Layout;
/// use qmp_dispatch::{Dispatcher, Registry};
/// use qmp_server::{Address, Listener, Server, Transport, system_time, version};
///
/// struct Door {
///     listener: UnixListener,
///     path: PathBuf,
/// }
///
/// impl AsFd for Door {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.listener.as_fd()
///     }
/// }
///
/// impl Listener for Door {
///     fn accept(&self) -> io::Result<Box<dyn Transport>> {
///         let (stream, _) = self.listener.accept()?;
///         Ok(Box::new(stream))
///     }
///
///     fn clean_up(&self) {
///         let _ = std::fs::remove_file(&self.path);
///     }
///
///     fn address(&self) -> Address {
///         Address::Unix(self.path.clone())
///     }
/// }
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("qmp.sock");
/// let listener = UnixListener::bind(&path)?;
/// listener.set_nonblocking(true)?;
///
/// let dispatcher = Dispatcher::new(Registry::new(), version(), system_time);
/// let door = Door { listener, path: path.clone() };
/// let server = Server::new(dispatcher).accept_from(Box::new(door), Layout::Compact).spawn()?;
/// UnixStream::connect(&path)?;
/// server.control().shutdown();
/// server.wait();
/// assert!(!path.exists());
/// # Ok::<(), io::Error>(())
/// ```
pub trait Listener: AsFd + Send + Sync {
    /// The next connection.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if no client waits.
    fn accept(&self) -> io::Result<Box<dyn Transport>>;

    /// Removes what listening has left behind, such as a socket's file. Called when the server ends,
    /// and not twice.
    fn clean_up(&self) {}

    /// Where it listens, with the port that the system has chosen.
    fn address(&self) -> Address;
}

/// What an address gives when it is opened.
pub(crate) enum Opened {
    Listener(Box<dyn Listener>),
    /// There will only ever be this one client.
    Connection(Box<dyn Transport>),
}

/// Opens an address; only systemd gives more than one socket for it.
pub(crate) fn open(listen: &Listen) -> Result<Vec<Opened>, ListenError> {
    let one = |listener| vec![Opened::Listener(listener)];
    let opened = check(listen).and_then(|()| match &listen.address {
        Address::Unix(path) => unix::listen(path, listen).map(one),
        Address::UnixAbstract(name) => unix::listen_abstract(name).map(one),
        Address::Tcp { host, port } => tcp::listen(host, *port, listen.insecure).map(one),
        #[cfg(not(feature = "tls"))]
        Address::Tls { .. } => Err(no_tls()),
        #[cfg(feature = "tls")]
        Address::Tls { host, port } => {
            tls::listen(host, *port, listen.tls.as_ref().unwrap_or(&Default::default())).map(one)
        }
        Address::Vsock { cid, port } => vsock::listen(*cid, *port, listen.insecure).map(one),
        Address::Fd(fd) => inherited::open(*fd, listen.insecure).map(|opened| vec![opened]),
        Address::Systemd(name) => inherited::activated(name.as_deref(), listen.insecure),
        Address::Stdio => stdio::connect().map(|connection| vec![Opened::Connection(connection)]),
    });
    opened.map_err(|reason| ListenError { address: listen.address.clone(), reason })
}

/// Does what comes before opening an address: nobody notices.
pub(crate) fn verify(listen: &Listen) -> Result<(), ListenError> {
    let verified = check(listen).and_then(|()| match &listen.address {
        Address::Unix(path) => unix::resolve(path, listen).map(drop),
        Address::Tcp { host, port } => tcp::resolve(host, *port, listen.insecure).map(drop),
        #[cfg(not(feature = "tls"))]
        Address::Tls { .. } => Err(no_tls()),
        #[cfg(feature = "tls")]
        Address::Tls { .. } => {
            tls::configure(listen.tls.as_ref().unwrap_or(&Default::default())).map(drop)
        }
        Address::Vsock { cid, .. } => vsock::check_local(*cid, listen.insecure),
        // Whether these are there is not known before the program is started as it will be.
        Address::UnixAbstract(_) | Address::Fd(_) | Address::Systemd(_) | Address::Stdio => Ok(()),
    });
    verified.map_err(|reason| ListenError { address: listen.address.clone(), reason })
}

#[cfg(not(feature = "tls"))]
fn no_tls() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this program is built without TLS")
}

fn check(listen: &Listen) -> io::Result<()> {
    listen.check().map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))
}
