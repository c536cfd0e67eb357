// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connecting without blocking: to begin with it, and to ask whether it is done.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_nodelay,
    socket_error, socket_peercred,
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, getpeername, socket_with,
};

use crate::transport::Address;

/// Silence after which a TCP peer is probed, and the interval of further probes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);

/// Where a connection can be made to.
pub(crate) enum Target {
    Unix(SocketAddrUnix),
    Tcp(SocketAddr),
}

/// What is to be done to reach an address.
pub(crate) enum Way {
    Connect(Target),
    /// Find out first which addresses a host has, which may take long.
    Resolve(String, u16),
}

/// The way to an upstream server.
///
/// # Errors
///
/// If there cannot be one at such an address.
pub(crate) fn way_to(address: &Address) -> io::Result<Way> {
    match address {
        Address::Unix(path) => Ok(Way::Connect(Target::Unix(SocketAddrUnix::new(path)?))),
        Address::UnixAbstract(name) => {
            Ok(Way::Connect(Target::Unix(SocketAddrUnix::new_abstract_name(name.as_bytes())?)))
        }
        Address::Tcp { host, port } => Ok(Way::Resolve(host.clone(), *port)),
        _ => {
            let what = format!(
                "{address} cannot be an upstream server: those are at unix:, unix-abstract: or tcp:"
            );
            Err(io::Error::new(io::ErrorKind::Unsupported, what))
        }
    }
}

/// Looks up the addresses of a host. Blocks.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<Target>> {
    Ok((host, port).to_socket_addrs()?.map(Target::Tcp).collect())
}

/// Begins to connect. The connection is made when [`is_made`] says so. TCP sends without delay, and finds out when the host
/// at the other end has vanished.
pub(crate) fn begin(target: &Target) -> io::Result<OwnedFd> {
    let family = match target {
        Target::Unix(_) => AddressFamily::UNIX,
        Target::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
        Target::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    let connected = match target {
        Target::Unix(address) => connect(&socket, address),
        Target::Tcp(address) => {
            set_tcp_nodelay(&socket, true)?;
            notice_silent_end(&socket)?;
            connect(&socket, address)
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
pub(crate) fn is_made(socket: &OwnedFd) -> io::Result<bool> {
    socket_error(socket)??;
    match getpeername(socket) {
        Ok(_) => Ok(true),
        Err(Errno::NOTCONN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Checks that a process of this user listens at the other end of a Unix socket.
pub(crate) fn check_peer(socket: &OwnedFd, uid: u32) -> io::Result<()> {
    let actual = socket_peercred(socket)?.uid.as_raw();
    if actual == uid {
        return Ok(());
    }
    let error = format!("user {actual} listens there, and not {uid}, whose folder it is");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, error))
}

/// Lets the system find out when a host has vanished: it sends nothing then, not even an end.
fn notice_silent_end(socket: &OwnedFd) -> io::Result<()> {
    set_tcp_keepidle(socket, KEEPALIVE_AFTER)?;
    set_tcp_keepintvl(socket, KEEPALIVE_AFTER)?;
    set_tcp_keepcnt(socket, 3)?;
    Ok(set_socket_keepalive(socket, true)?)
}
