// SPDX-License-Identifier: MIT OR Apache-2.0
//! One attempt to connect: in steps, none of which blocks.
//!
//! ```text
//!   Next ── there is an address ──▶ Connecting ── it is one for TLS ──▶ ShakingHands
//!    ▲                                │      │                              │
//!    └── it cannot be reached ────────┘      └────▶ connected ◀─────────────┘
//! ```

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::VsockAddr;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay,
    socket_error,
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, getpeername, socket_with,
};

use super::stream::Stream;
#[cfg(feature = "tls")]
use super::tls;
use super::{Connect, KeepAlive, SHORTEST, silent};
use crate::io::{Owner, look_up_aside};
#[cfg(feature = "tls")]
use crate::transport::Transport as _;
#[cfg(feature = "tls")]
use crate::transport::tls::TlsStream;
use crate::transport::{Address, inherited};

/// Where a connection can be made to.
enum Target {
    Unix(SocketAddrUnix),
    Tcp(SocketAddr),
    Vsock(VsockAddr),
}

pub(crate) struct Attempt {
    /// Addresses of the server that were not tried yet, in their order.
    targets: VecDeque<Target>,
    keep_alive: Option<KeepAlive>,
    #[cfg(feature = "tls")]
    tls: Option<rustls::ClientConnection>,
    stage: AttemptStage,
    /// How long one address may take, its handshake included.
    patience: Duration,
    /// When the current address has had that time.
    until: Instant,
    /// What was wrong with the last address.
    failed: io::Error,
    /// There is another socket than before.
    new_socket: bool,
}

enum AttemptStage {
    Next,
    Connecting(OwnedFd),
    #[cfg(feature = "tls")]
    ShakingHands(Box<TlsStream>),
}

/// An attempt that is being [prepared](Attempt::prepare) on another thread.
#[derive(Clone)]
pub(crate) struct Prepared(Arc<Mutex<Option<io::Result<Attempt>>>>);

impl Prepared {
    /// Prepares an attempt where that holds up nobody, and calls `done` when it has been.
    pub(crate) fn aside(
        owner: Owner,
        options: &Connect,
        patience: Duration,
        done: impl FnOnce() + Send + 'static,
    ) -> Prepared {
        let prepared = Prepared(Arc::default());
        let (result, options) = (prepared.clone(), options.clone());
        look_up_aside(owner, move || {
            let attempt = Attempt::prepare(&options, patience);
            *result.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(attempt);
            done();
        });
        prepared
    }

    /// Takes the attempt, if it has been prepared.
    pub(crate) fn take(&self) -> Option<io::Result<Attempt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Attempt {
    /// Finds out what has to be known beforehand: the addresses of a host, and what the files of TLS hold. Blocks, but
    /// only where [`Connect::is_slow_to_prepare`] says so. An inherited socket is taken over.
    pub(crate) fn prepare(options: &Connect, patience: Duration) -> io::Result<Attempt> {
        let mut stage = AttemptStage::Next;
        let targets = match &options.address {
            Address::Unix(path) => [Target::Unix(SocketAddrUnix::new(path)?)].into(),
            Address::UnixAbstract(name) => {
                [Target::Unix(SocketAddrUnix::new_abstract_name(name.as_bytes())?)].into()
            }
            Address::Vsock { cid, port } => [Target::Vsock(VsockAddr::new(*cid, *port))].into(),
            Address::Tcp { host, port } | Address::Tls { host, port } => {
                resolve(host, *port, options)?
            }
            Address::Fd(number) => {
                stage = AttemptStage::Connecting(inherited::take_connected(*number)?);
                VecDeque::new()
            }
            Address::Systemd(name) => {
                let number = inherited::only_activated(name.as_deref())?;
                stage = AttemptStage::Connecting(inherited::take_connected(number)?);
                VecDeque::new()
            }
            // Not verified.
            Address::Stdio => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Attempt {
            targets,
            keep_alive: options.keep_alive,
            #[cfg(feature = "tls")]
            tls: match &options.address {
                Address::Tls { host, .. } => Some(tls::configure(host, options.tls.as_ref())?),
                _ => None,
            },
            stage,
            patience,
            until: Instant::now() + patience,
            failed: io::Error::new(io::ErrorKind::NotFound, "the host has no address"),
            new_socket: true,
        })
    }

    /// Goes on, at first and whenever the [socket](Attempt::socket) has become ready or the [time](Attempt::until) has come.
    /// TCP sends without delay.
    ///
    /// # Errors
    ///
    /// If no address can be reached, or the handshake fails. Then the attempt is over.
    pub(crate) fn step(&mut self, now: Instant) -> io::Result<Option<Stream>> {
        loop {
            match mem::replace(&mut self.stage, AttemptStage::Next) {
                AttemptStage::Next => {
                    let Some(target) = self.targets.pop_front() else {
                        return Err(mem::replace(&mut self.failed, io::ErrorKind::NotFound.into()));
                    };
                    self.until = now + self.patience;
                    match begin(&target, self.keep_alive) {
                        Ok(socket) => {
                            self.new_socket = true;
                            self.stage = AttemptStage::Connecting(socket);
                        }
                        Err(error) => self.failed = error,
                    }
                }
                AttemptStage::Connecting(socket) => match is_made(&socket) {
                    Ok(true) => {
                        #[cfg(feature = "tls")]
                        if let Some(client) = self.tls.take() {
                            let stream = TlsStream::of_client(client, socket.into());
                            self.stage = AttemptStage::ShakingHands(Box::new(stream));
                            continue;
                        }
                        return Ok(Some(Stream::Socket(socket)));
                    }
                    Ok(false) if now < self.until => {
                        self.stage = AttemptStage::Connecting(socket);
                        return Ok(None);
                    }
                    Ok(false) => self.failed = silent("the server does not accept the connection"),
                    Err(error) => self.failed = error,
                },
                #[cfg(feature = "tls")]
                AttemptStage::ShakingHands(stream) => match stream.handshake() {
                    Ok(()) => return Ok(Some(Stream::Tls(stream))),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        return Err(tls::explain_end(error));
                    }
                    Err(_) if now < self.until => {
                        self.stage = AttemptStage::ShakingHands(stream);
                        return Ok(None);
                    }
                    Err(_) => return Err(silent("the server does not complete the TLS handshake")),
                },
            }
        }
    }

    /// Leaves the current address no time after `deadline`.
    pub(super) fn hurry(&mut self, deadline: Instant) {
        self.until = self.until.min(deadline);
    }

    /// Waits until there is something for [`step`](Attempt::step) to do, at most until this address has had its time.
    pub(super) fn wait(&self) -> io::Result<()> {
        let (socket, flags) = match &self.stage {
            AttemptStage::Next => return Ok(()),
            AttemptStage::Connecting(socket) => (socket.as_fd(), PollFlags::OUT),
            // What we send fits into an empty socket.
            #[cfg(feature = "tls")]
            AttemptStage::ShakingHands(stream) => (stream.as_fd(), PollFlags::IN),
        };
        let left = self.until.saturating_duration_since(Instant::now()).max(SHORTEST);
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::from_borrowed_fd(socket, flags)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.stage {
            AttemptStage::Next => None,
            AttemptStage::Connecting(socket) => Some(socket.as_fd()),
            #[cfg(feature = "tls")]
            AttemptStage::ShakingHands(stream) => Some(stream.as_fd()),
        }
    }

    /// When this has to go on at the latest.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Whether the socket is another one than when this was asked last.
    pub(crate) fn has_new_socket(&mut self) -> bool {
        mem::take(&mut self.new_socket)
    }
}

/// Looks up the addresses of a host, of the families that the options allow. Blocks.
fn resolve(host: &str, port: u16, options: &Connect) -> io::Result<VecDeque<Target>> {
    let host = if host.is_empty() { "localhost" } else { host };
    let all = (host, port).to_socket_addrs()?;
    let allowed = all.filter(|address| match address {
        SocketAddr::V4(_) => options.allows_ipv4(),
        SocketAddr::V6(_) => options.allows_ipv6(),
    });
    Ok(allowed.map(Target::Tcp).collect())
}

/// Begins to connect. The connection is made when [`is_made`] says so.
fn begin(target: &Target, keep_alive: Option<KeepAlive>) -> io::Result<OwnedFd> {
    let new_socket = |family| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(family, SocketType::STREAM, flags, None)
    };
    let (socket, connected) = match target {
        Target::Unix(address) => {
            let socket = new_socket(AddressFamily::UNIX)?;
            let connected = connect(&socket, address);
            (socket, connected)
        }
        Target::Tcp(address) => {
            let family = match address {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            };
            let socket = new_socket(family)?;
            set_tcp_nodelay(&socket, true)?;
            if let Some(keep_alive) = keep_alive {
                notice_silent_end(&socket, keep_alive)?;
            }
            let connected = connect(&socket, address);
            (socket, connected)
        }
        Target::Vsock(address) => {
            let socket = new_socket(AddressFamily::VSOCK)?;
            let connected = nix::sys::socket::connect(socket.as_raw_fd(), address);
            (socket, connected.map_err(|error| Errno::from_raw_os_error(error as i32)))
        }
    };
    match connected {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::WouldBlock, "too many other clients wait there"))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the connection is made; not before the socket is writable.
fn is_made(socket: &OwnedFd) -> io::Result<bool> {
    socket_error(socket)??;
    match getpeername(socket) {
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Lets the system find out when a host has vanished: it sends nothing then, not even an end.
fn notice_silent_end(socket: &OwnedFd, keep_alive: KeepAlive) -> io::Result<()> {
    set_tcp_keepidle(socket, keep_alive.idle)?;
    set_tcp_keepintvl(socket, keep_alive.interval)?;
    set_tcp_keepcnt(socket, keep_alive.count)?;
    Ok(set_socket_keepalive(socket, true)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_nodelay};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Goes on until the end.
    fn end(mut attempt: Attempt) -> io::Result<Stream> {
        loop {
            if let Some(stream) = attempt.step(Instant::now())? {
                return Ok(stream);
            }
            attempt.wait()?;
        }
    }

    fn options(text: &str) -> Connect {
        text.parse().unwrap()
    }

    #[test]
    fn the_options_of_tcp_are_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect = |settings: &str| {
            let options = options(&format!("tcp:127.0.0.1:{port},{settings}"));
            end(Attempt::prepare(&options, LIMIT).unwrap()).unwrap()
        };
        let stream = connect("keep-alive-idle=7,keep-alive-count=2");
        assert!(tcp_nodelay(&stream).unwrap() && socket_keepalive(&stream).unwrap());
        assert_eq!(tcp_keepidle(&stream).unwrap(), Duration::from_secs(7));
        assert_eq!(tcp_keepcnt(&stream).unwrap(), 2);
        assert!(!socket_keepalive(connect("keep-alive=off")).unwrap());
    }

    #[test]
    fn the_next_address_of_a_host_is_tried() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut attempt = Attempt::prepare(&options("unix:/nowhere"), LIMIT).unwrap();
        attempt.targets.push_back(Target::Tcp(closed));
        attempt.targets.push_back(Target::Tcp(listener.local_addr().unwrap()));
        end(attempt).unwrap();
    }

    #[test]
    fn the_last_address_says_what_is_wrong() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut attempt = Attempt::prepare(&options("unix:/nowhere"), LIMIT).unwrap();
        attempt.targets.push_back(Target::Tcp(closed));
        let error = end(attempt).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// The number of an inherited descriptor is closed, so that nothing but the connection keeps the socket open.
    #[test]
    fn an_inherited_connection_is_taken_over() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let number = theirs.into_raw_fd();
        let attempt = Attempt::prepare(&Connect::new(Address::Fd(number)), LIMIT).unwrap();
        drop(end(attempt).unwrap());
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(io::Read::read(&mut &ours, &mut [0]).unwrap(), 0);
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_handshake_that_takes_too_long_is_given_up() {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        // It takes no part in the handshake.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = options(&format!("tcp:{}", listener.local_addr().unwrap()));
        let mut attempt = Attempt::prepare(&options, Duration::from_millis(50)).unwrap();
        attempt.tls = Some(rustls::ClientConnection::new(config.into(), name).unwrap());
        let error = end(attempt).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("TLS handshake"), "{error}");
    }
}
