// SPDX-License-Identifier: MIT OR Apache-2.0
//! TCP, on the loopback interface unless told otherwise: it has neither encryption nor passwords.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::{set_socket_reuseaddr, socket_acceptconn};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, bind, getsockname,
    recv, send, shutdown, socket_with,
};

use super::{BACKLOG, Listener, Received, Transport, Travels};
use crate::transport::{Address, Peer};

/// Binds a socket to a port of a host, all of whose addresses must be loopback addresses unless `insecure`. It does not
/// listen yet.
pub(crate) fn bind_host(host: &str, port: u16, insecure: bool) -> io::Result<Box<dyn Listener>> {
    Ok(Box::new(TcpSocket::bind(&resolve(host, port, insecure)?)?))
}

/// Goes on with a socket of another program.
#[cfg(feature = "mux")]
pub(crate) fn take_over(socket: TcpListener, insecure: bool) -> io::Result<Box<dyn Listener>> {
    check_local(&socket.local_addr()?, insecure)?;
    Ok(Box::new(TcpSocket::take_over(socket)?))
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

/// A socket that can listen at its port, and keeps it when it does not.
pub(super) struct TcpSocket(TcpListener);

impl TcpSocket {
    /// Binds a socket to the first of these addresses that it can have.
    pub(super) fn bind(addresses: &[SocketAddr]) -> io::Result<TcpSocket> {
        let mut failed = io::Error::new(io::ErrorKind::InvalidInput, "the host has no address");
        for address in addresses {
            match bind_address(address) {
                Ok(socket) => {
                    let mut socket = TcpSocket(socket.into());
                    socket.shut()?;
                    return Ok(socket);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Goes on with a socket of another program.
    #[cfg(feature = "mux")]
    pub(super) fn take_over(socket: TcpListener) -> io::Result<TcpSocket> {
        socket.set_nonblocking(true)?;
        Ok(TcpSocket(socket))
    }

    pub(super) fn accept_stream(&self) -> io::Result<TcpStream> {
        accept(&self.0)
    }
}

fn bind_address(address: &SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = || -> io::Result<OwnedFd> {
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        // Connections of a server that was there before are no obstacle.
        set_socket_reuseaddr(&socket, true)?;
        Ok(socket)
    };
    let first = socket()?;
    bind(&first, address)?;
    if address.port() != 0 {
        return Ok(first);
    }
    // The system takes a port back that it has chosen when the socket stops listening, so it is chosen by another one.
    let second = socket()?;
    bind(&second, &getsockname(&first)?)?;
    Ok(second)
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener for TcpSocket {
    fn open(&mut self) -> io::Result<()> {
        set_socket_reuseaddr(&self.0, true)?;
        Ok(rustix::net::listen(&self.0, BACKLOG)?)
    }

    /// Resets the connections of those who wait to be accepted.
    fn shut(&mut self) -> io::Result<()> {
        // With this, others could have the port of a socket that does not listen.
        set_socket_reuseaddr(&self.0, false)?;
        if socket_acceptconn(&self.0)? {
            shutdown(&self.0, Shutdown::Read)?;
        }
        Ok(())
    }

    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(self.accept_stream()?))
    }

    fn address(&self) -> Address {
        Listener::address(&self.0)
    }
}

/// Accepts a connection that is ready for QMP, or for what comes before it.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    // Responses are small, and the client waits for them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// It must be non-blocking.
impl Listener for TcpListener {
    fn accept(&self) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(accept(self)?))
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_socket_that_is_shut_refuses_clients_and_keeps_its_port() {
        let mut listener = bind_host("127.0.0.1", 0, false).unwrap();
        let Address::Tcp { port, .. } = listener.address() else { panic!("another address") };
        let connect = || TcpStream::connect(("127.0.0.1", port));
        let mut served = Vec::new();
        for _ in 0..3 {
            listener.shut().unwrap();
            assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            let other = bind_host("127.0.0.1", port, false).err().unwrap();
            assert_eq!(other.kind(), io::ErrorKind::AddrInUse, "not even though it may be shared");
            listener.open().unwrap();
            served.push((connect().unwrap(), accepted(&*listener)));
            let mut early = connect().unwrap();
            listener.shut().unwrap();
            assert!(early.read(&mut [0]).is_err(), "who has waited there is disconnected");
            assert!(matches!(listener.address(), Address::Tcp { port: same, .. } if same == port));
        }
        for (client, transport) in &mut served {
            client.write_all(b"x").unwrap();
            assert_eq!(transport.send(b"y").unwrap(), 1);
            client.read_exact(&mut [0]).unwrap();
        }
    }

    /// The client that waits first.
    fn accepted(listener: &dyn Listener) -> Box<dyn Transport> {
        loop {
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                accepted => return accepted.unwrap(),
            }
        }
    }
}
