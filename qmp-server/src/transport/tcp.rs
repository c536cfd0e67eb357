// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP, on the loopback interface unless told otherwise: it has neither encryption nor passwords.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::{Listener, Received, Transport, Travels};
use crate::transport::{Address, Peer};

/// Listens at a port of a host, all of whose addresses must be loopback addresses unless `insecure`.
pub(crate) fn listen(host: &str, port: u16, insecure: bool) -> io::Result<Box<dyn Listener>> {
    let addresses = resolve(host, port, insecure)?;
    let listener = TcpListener::bind(&addresses[..])?;
    listener.set_nonblocking(true)?;
    Ok(Box::new(listener))
}

/// The addresses of a host, if one may listen there.
pub(crate) fn resolve(host: &str, port: u16, insecure: bool) -> io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        return match insecure {
            true => Ok(all_addresses(port)),
            false => Err(io::Error::new(io::ErrorKind::Unsupported, NO_HOST)),
        };
    }
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    addresses.iter().try_for_each(|address| check_local(address, insecure))?;
    Ok(addresses)
}

const NO_HOST: &str =
    "without a host it is all addresses, not only loopback; use tls:, or insecure=on";

/// As QEMU's empty host: IPv6, which takes IPv4 along, or IPv4 where there is nothing else.
pub(super) fn all_addresses(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

/// Whether one may listen there without TLS.
pub(crate) fn check_local(address: &SocketAddr, insecure: bool) -> io::Result<()> {
    let ip = address.ip();
    if insecure || ip.to_canonical().is_loopback() {
        return Ok(());
    }
    let reason = format!("{ip} is not a loopback address; use tls:, or insecure=on");
    Err(io::Error::new(io::ErrorKind::Unsupported, reason))
}

/// It must be non-blocking.
impl Listener for TcpListener {
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

/// Does not block, whether it is non-blocking or not.
impl Transport for TcpStream {
    fn travels(&self) -> Travels {
        Travels::AsSocket
    }

    fn reports_hang_up(&self) -> bool {
        true
    }

    fn peer(&self) -> io::Result<Peer> {
        Ok(Peer::Address(self.peer_addr()?.to_string()))
    }

    fn receive(&self, buffer: &mut [u8], _descriptors: &mut Vec<OwnedFd>) -> io::Result<Received> {
        let room = buffer.len();
        let (received, _) = recv(self, buffer, RecvFlags::DONTWAIT)?;
        Ok(Received::of_stream(received, room))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
    }

    fn shutdown(&self) {
        let _ = shutdown(self, Shutdown::Both);
    }
}
