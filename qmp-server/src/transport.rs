// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a connection and a listener must be able to do, and the ones there are.

mod address;
mod ancillary;
mod certificate_name;
pub(crate) mod connect;
mod dial_out;
pub(crate) mod inherited;
mod lock_file;
#[cfg(feature = "mux")]
mod packing;
mod peer;
pub(crate) mod stdio;
pub(crate) mod tcp;
#[cfg(feature = "tls")]
pub(crate) mod tls;
mod tls_files;
pub(crate) mod unix;
pub(crate) mod vsock;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

pub(crate) use self::address::options;
pub use self::address::{Address, AddressError};
pub use self::certificate_name::CertificateName;
#[cfg(any(feature = "mux", feature = "roles", feature = "tls"))]
pub(crate) use self::certificate_name::ExpectedName;
pub(crate) use self::connect::LONGEST_TIMEOUT;
pub use self::connect::{Connect, ConnectTls, KeepAlive};
pub use self::dial_out::DialOut;
#[cfg(feature = "mux")]
pub(crate) use self::packing::{FORMAT, Luggage, Packed, Packing, invalid, unpack};
pub use self::peer::Peer;
pub use self::tls_files::ListenTls;
pub(crate) use self::unix::SocketFile;

/// Descriptors that Linux lets one message have.
pub(crate) const MAX_DESCRIPTORS: usize = 253;

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

    /// Reads like [`receive`](Transport::receive), when there is no room for descriptors.
    ///
    /// # Errors
    ///
    /// Those of [`receive`](Transport::receive), and [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) if descriptors
    /// come next: then this is called again a little later.
    fn receive_bytes(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.receive(buffer, &mut Vec::new())
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

    /// Whether a hang-up of the descriptor (`EPOLLHUP`) says that the client neither sends nor reads any more. What it
    /// has sent is dropped then, as QEMU does. By default not: for a pipe it is only the end of what the client sends.
    fn reports_hang_up(&self) -> bool {
        false
    }

    /// How long dropping it may take, after [`shutdown`](Transport::shutdown): nothing is received any more, so this may
    /// throw away what is there. By default no time.
    fn closing(&self) -> Closing {
        Closing::AtOnce
    }

    /// What becomes of the connection when another program [takes over](crate::Handover). By default it ends.
    fn travels(&self) -> Travels {
        Travels::Never
    }

    /// Throws away what is left to be received, so that dropping it takes no longer than it must. Called before that, if
    /// [closing](Transport::closing) is slow, and where it may take long. By default nothing is done.
    fn discard(&self) {}
}

/// What becomes of a [`Transport`] when another program takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Travels {
    /// Its descriptor is a connected socket, and all that is to be known of the connection: another program goes on with it.
    AsSocket,
    /// It ends, because its state cannot be handed over.
    Never,
    /// It cannot be handed over and must not end: no other program takes over as long as it is there.
    Prevents,
}

/// How long it may take to drop a [`Transport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Closing {
    /// No time to speak of.
    AtOnce,
    /// Any time, for instance because descriptors that the client has passed are closed with it. It is dropped on a
    /// thread that serves nobody.
    Slow,
    /// As long as it takes to write what was sent. It is dropped on a thread that serves nobody, and the server does not
    /// end before that.
    Flushes,
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

/// Reads the files of a [`Listener`] again.
pub type Renewal = std::sync::Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

/// Accepts connections, and never blocks. Its [descriptor](AsFd) is polled for readiness.
pub trait Listener: AsFd + Send + Sync {
    /// The next connection.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if no client waits.
    fn accept(&self) -> io::Result<Box<dyn Transport>>;

    /// Returns what reads the listener's files again, such as keys, for the connections that are accepted from then on; `None`,
    /// as by default, if it has read none. It is called by other threads, and may block.
    fn renewal(&self) -> Option<Renewal> {
        None
    }

    /// Lets clients connect. Called before the first one is accepted, and again after it was [shut](Listener::shut); until
    /// then the system should refuse them. The descriptor may be another one afterwards. By default nothing is done.
    ///
    /// # Errors
    ///
    /// If that is not possible: it is tried again, if it has been possible before.
    fn open(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Has the system refuse clients until this is [opened](Listener::open), as it does where nobody listens, for a server
    /// whose clients shall see that what it serves is not there. Called again, this does nothing. The descriptor may be
    /// another one afterwards. Those who wait to be accepted are disconnected; what can still be accepted, the server
    /// disconnects.
    ///
    /// # Errors
    ///
    /// If that is not possible, with [`Unsupported`](io::ErrorKind::Unsupported) if it never is, which is the default. Then
    /// the server accepts clients, and disconnects them at once.
    fn shut(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Removes what listening has left behind, such as a socket's file. Called when the server ends,
    /// and not twice.
    fn clean_up(&self) {}

    /// Device and inode of the file that [`clean_up`](Listener::clean_up) removes, for another program that does that.
    fn file(&self) -> Option<(u64, u64)> {
        None
    }

    /// How long dropping it may take: what clients have sent who still wait there is dropped with it. By default no time.
    fn closing(&self) -> Closing {
        Closing::AtOnce
    }

    /// Where it listens, with the port that the system has chosen.
    fn address(&self) -> Address;
}

/// What an address gives when it is opened.
pub(crate) enum Opened {
    Listener(Box<dyn Listener>),
    /// There will only ever be this one client.
    Connection(Box<dyn Transport>),
}
