// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting to a server, wherever it is.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, socket};
use qmp_server::Address;

use super::{silent, tls};
use crate::arguments::TlsOptions;

/// The system takes no timeout of zero.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// A connection that blocks, though not for ever.
pub(super) trait Stream: Read + Write {
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        UnixStream::set_read_timeout(self, timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        UnixStream::set_write_timeout(self, timeout)
    }
}

impl Stream for TcpStream {
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        TcpStream::set_read_timeout(self, timeout)
    }

    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        TcpStream::set_write_timeout(self, timeout)
    }
}

/// Connects within the timeout, or says why not.
pub(super) fn connect(
    address: &Address,
    options: &TlsOptions,
    timeout: Duration,
) -> io::Result<Box<dyn Stream>> {
    if options.are_given() && !matches!(address, Address::Tls { .. }) {
        return Err(invalid("--ca, --cert, --key and --server-name are for tls:HOST:PORT"));
    }
    match address {
        Address::Unix(path) => connect_unix(SocketAddr::from_pathname(path)?, timeout),
        Address::UnixAbstract(name) => connect_unix(SocketAddr::from_abstract_name(name)?, timeout),
        Address::Tcp { host, port } => Ok(Box::new(connect_tcp(host, *port, timeout)?)),
        Address::Tls { host, port } => {
            let client = tls::configure(host, options)?;
            let stream = connect_tcp(host, *port, timeout)?;
            Ok(Box::new(tls::shake_hands(stream, client, timeout)?))
        }
        Address::Vsock { cid, port } => Ok(Box::new(connect_vsock(*cid, *port)?)),
        _ => Err(invalid("a client cannot connect there")),
    }
}

pub(super) fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason.into())
}

/// There is no such thing as a timeout for this: a server whose queue of clients is full holds up
/// whoever connects.
fn connect_unix(address: SocketAddr, timeout: Duration) -> io::Result<Box<dyn Stream>> {
    let (send, connected) = channel();
    thread::spawn(move || send.send(UnixStream::connect_addr(&address)));
    match connected.recv_timeout(timeout) {
        Ok(stream) => Ok(Box::new(stream?)),
        Err(_) => Err(silent("the server does not accept; too many clients wait there")),
    }
}

fn connect_tcp(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout.max(SHORTEST)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The system gives up after two seconds.
fn connect_vsock(cid: u32, port: u32) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &VsockAddr::new(cid, port))?;
    // For its methods, which are those of any stream socket.
    Ok(socket.into())
}
