// SPDX-License-Identifier: MIT OR Apache-2.0
//! vsock, between a virtual machine and its host. Who is at the other end is known by context only,
//! so this is no more trusted than TCP.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, VsockAddr, bind, getpeername, getsockname, socket,
};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, send, shutdown};

use super::{BACKLOG, Listener, Received, Transport, Travels};
use crate::transport::{Address, Peer};

/// The context of this machine, which others cannot reach.
const LOCAL: u32 = 1;

pub(crate) fn listen(cid: u32, port: u32, insecure: bool) -> io::Result<Box<dyn Listener>> {
    check_local(cid, insecure)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    bind(socket.as_raw_fd(), &VsockAddr::new(cid, port))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Box::new(VsockListener(socket)))
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
