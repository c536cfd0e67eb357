// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP, on the loopback interface only: it has neither encryption nor passwords.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::{Listener, Transport};
use crate::Address;

/// Listens at a port of a host, all of whose addresses must be loopback addresses.
pub(super) fn listen(host: &str, port: u16) -> io::Result<Box<dyn Listener>> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{} is not a loopback address", address.ip()),
        ));
    }
    let listener = TcpListener::bind(&addresses[..])?;
    listener.set_nonblocking(true)?;
    Ok(Box::new(listener))
}

impl Listener for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        AsFd::as_fd(self)
    }

    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        let (stream, _) = TcpListener::accept(self)?;
        stream.set_nonblocking(true)?;
        // Responses are small, and the client waits for them.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    fn address(&self) -> Address {
        match self.local_addr() {
            Ok(address) => Address::Tcp { host: address.ip().to_string(), port: address.port() },
            Err(_) => Address::Tcp { host: String::new(), port: 0 },
        }
    }
}

impl Transport for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        AsFd::as_fd(self)
    }

    fn receive(&self, buffer: &mut [u8], _descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let (received, _) = recv(self, buffer, RecvFlags::DONTWAIT)?;
        Ok(received)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    fn shutdown(&self) {
        let _ = shutdown(self, Shutdown::Both);
    }
}
