// SPDX-License-Identifier: MIT OR Apache-2.0
//! vsock, between a virtual machine and its host. Who is at the other end is known by context only,
//! so this is no more trusted than TCP.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, bind, getpeername, getsockname, socket,
};
#[cfg(feature = "mux")]
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, send, shutdown};

use super::{BACKLOG, Listener, Received, Transport, Travels};
use crate::transport::{Address, Peer};

/// The context of this machine, which others cannot reach.
const LOCAL: u32 = 1;

/// Binds a socket to a port. It does not listen yet.
pub(crate) fn bind_port(cid: u32, port: u32, insecure: bool) -> io::Result<Box<dyn Listener>> {
    check_local(cid, insecure)?;
    let listener = VsockListener(new_socket()?);
    let place = VsockAddr::new(cid, port);
    let mut socket = VsockSocket { listener, place, is_bound: false, listens: false };
    socket.bind()?;
    // With the port that the system has chosen.
    socket.place = getsockname(socket.listener.0.as_raw_fd())?;
    Ok(Box::new(socket))
}

/// Goes on with a socket of another program.
#[cfg(feature = "mux")]
pub(crate) fn take_over(socket: OwnedFd, insecure: bool) -> io::Result<Box<dyn Listener>> {
    let place = getsockname::<VsockAddr>(socket.as_raw_fd())?;
    check_local(place.cid(), insecure)?;
    let listens = socket_acceptconn(&socket)?;
    // If it has no port, it had lost that.
    let is_bound = place.port() != u32::MAX;
    Ok(Box::new(VsockSocket { listener: VsockListener(socket), place, is_bound, listens }))
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Vsock, SockType::Stream, flags, None)?)
}

pub(crate) fn check_local(cid: u32, insecure: bool) -> io::Result<()> {
    if insecure || cid == LOCAL {
        return Ok(());
    }
    let reason = "other machines can connect there without TLS; use insecure=on if they may";
    Err(io::Error::new(io::ErrorKind::Unsupported, reason))
}

/// Serves a socket that listens already.
pub(crate) fn adopt(socket: OwnedFd, insecure: bool) -> io::Result<Box<dyn Listener>> {
    check_local(getsockname::<VsockAddr>(socket.as_raw_fd())?.cid(), insecure)?;
    Ok(Box::new(VsockListener(socket)))
}

/// A socket that has listened can only be closed, so another one takes its port then, unless somebody else is faster.
struct VsockSocket {
    listener: VsockListener,
    place: VsockAddr,
    is_bound: bool,
    listens: bool,
}

impl VsockSocket {
    fn bind(&mut self) -> io::Result<()> {
        bind(self.listener.0.as_raw_fd(), &self.place)?;
        self.is_bound = true;
        Ok(())
    }
}

impl AsFd for VsockSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Listener for VsockSocket {
    fn open(&mut self) -> io::Result<()> {
        if !self.is_bound {
            self.bind()?;
        }
        rustix::net::listen(&self.listener, BACKLOG)?;
        self.listens = true;
        Ok(())
    }

    fn shut(&mut self) -> io::Result<()> {
        if self.listens {
            self.listener = VsockListener(new_socket()?);
            (self.is_bound, self.listens) = (false, false);
            self.bind()?;
        }
        Ok(())
    }

    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        self.listener.accept()
    }

    fn address(&self) -> Address {
        Address::Vsock { cid: self.place.cid(), port: self.place.port() }
    }
}

struct VsockListener(OwnedFd);

impl AsFd for VsockListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener for VsockListener {
    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        let stream = accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        Ok(Box::new(VsockStream(stream)))
    }

    fn address(&self) -> Address {
        match getsockname::<VsockAddr>(self.0.as_raw_fd()) {
            Ok(address) => Address::Vsock { cid: address.cid(), port: address.port() },
            Err(_) => Address::Vsock { cid: u32::MAX, port: u32::MAX },
        }
    }
}

pub(super) struct VsockStream(pub(super) OwnedFd);

impl AsFd for VsockStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Transport for VsockStream {
    fn travels(&self) -> Travels {
        Travels::AsSocket
    }

    fn reports_hang_up(&self) -> bool {
        true
    }

    fn peer(&self) -> io::Result<Peer> {
        let address = getpeername::<VsockAddr>(self.0.as_raw_fd())?;
        Ok(Peer::Address(format!("vsock:{}:{}", address.cid(), address.port())))
    }

    fn receive(&self, buffer: &mut [u8], _descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        let room = buffer.len();
        let (received, _) = recv(&self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(Received::of_stream(received, room))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    fn shutdown(&self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::connect;
    use rustix::net::sockopt::socket_acceptconn;

    use super::*;

    #[test]
    fn a_socket_that_is_shut_does_not_listen_and_keeps_its_port() {
        let local = bind_port(LOCAL, u32::MAX, false);
        // A machine may have no connections to itself.
        let has_loopback = local.is_ok();
        let Ok(mut listener) = local.or_else(|_| bind_port(u32::MAX, u32::MAX, true)) else {
            return eprintln!("skipped: this machine has no vsock");
        };
        let Address::Vsock { cid, port } = listener.address() else { panic!("another address") };
        let connect = || -> nix::Result<OwnedFd> {
            let flags = SockFlag::SOCK_CLOEXEC;
            let client = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
            connect(client.as_raw_fd(), &VsockAddr::new(LOCAL, port)).map(|()| client)
        };
        for _ in 0..3 {
            listener.shut().unwrap();
            assert!(!socket_acceptconn(&listener).unwrap());
            assert!(!has_loopback || connect().is_err());
            assert!(bind_port(cid, port, true).is_err());
            listener.open().unwrap();
            assert!(socket_acceptconn(&listener).unwrap());
            if has_loopback {
                connect().unwrap();
                listener.accept().unwrap();
            }
        }
    }
}
