// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a server listens.

use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::channel::{Channel, Program, TlsClient, TlsStream};
use crate::waiting::retry;

/// The name in the certificates of TLS servers.
pub const LOCALHOST: &str = "localhost";
const TCP_CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// How to reach a server. Of these, `unix:PATH` and `tcp:HOST:PORT` can be written as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Unix(PathBuf),
    Tcp {
        /// Name or address of the host.
        host: String,
        port: u16,
    },
    /// TLS at a TCP port of this machine.
    Tls {
        port: u16,
        /// The client's certificates.
        client: TlsClient,
    },
    /// A program that serves its standard input and output, started for each connection.
    Program(Vec<String>),
}

impl Endpoint {
    /// Connects, or fails at once.
    pub fn try_connect(&self) -> io::Result<Box<dyn Channel>> {
        match self {
            Self::Unix(path) => {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let socket =
                    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
                Ok(Box::new(socket))
            }
            Self::Tcp { host, port } => {
                let stream = connect_tcp(host, *port)?;
                stream.set_nonblocking(true)?;
                Ok(Box::new(OwnedFd::from(stream)))
            }
            Self::Tls { port, client } => {
                let stream = connect_tcp(LOCALHOST, *port)?;
                Ok(Box::new(TlsStream::connect(stream, LOCALHOST, client)?))
            }
            Self::Program(command) => Ok(Box::new(Program::start(command)?)),
        }
    }

    /// Connects, asking again for as long as `patience` lasts.
    pub fn connect(&self, patience: Duration) -> io::Result<Box<dyn Channel>> {
        retry(patience, || self.try_connect())
    }
}

fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TCP_CONNECT_LIMIT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("expected unix:PATH or tcp:HOST:PORT, not '{text}'");
        match text.split_once(':').ok_or_else(malformed)? {
            ("unix", path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            ("tcp", rest) => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(malformed)?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Ok(Self::Tcp { host, port: port.parse().map_err(|_| malformed())? })
            }
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Tls { port, .. } => write!(f, "tls:{LOCALHOST}:{port}"),
            Self::Program(command) => write!(f, "{} at its standard input", command.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_print_alike() {
        for text in ["unix:/run/vm 1/qmp.sock", "tcp:localhost:4444", "tcp:[::1]:4444"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "tcp:4444", "tcp:localhost:http", "/run/qmp.sock"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
