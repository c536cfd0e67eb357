// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is at the other end of a connection.

use std::fmt;

use super::CertificateName;

/// Who is at the other end of a connection, as far as the transport can tell. A
/// [local](qmp_dispatch::Monitor::local) of every monitor of a [`Server`](crate::Server).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// The process that connected to a Unix socket, as it was when it did.
    Process {
        /// Its number; 0 if it is in a PID namespace that cannot be seen from here.
        pid: i32,
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
    },
    /// A TLS client with a certificate that has been verified.
    Certificate {
        /// The names in it, in their order there.
        names: Vec<CertificateName>,
        /// From where it connected.
        address: String,
    },
    /// Somebody at this address, of whom nothing else is known.
    Address(String),
    /// Whoever started the server, and gave it the connection.
    Starter,
}

impl Peer {
    /// Who is to blame: the same for all connections of a user of this machine, of a certificate, or
    /// of an address, whatever its port.
    ///
    /// ```
    /// use qmp_server::Peer;
    ///
    /// assert_eq!(Peer::Process { pid: 4711, uid: 1000, gid: 100 }.user(), "uid 1000");
    /// assert_eq!(Peer::Address("[::1]:4711".into()).user(), "[::1]");
    /// ```
    pub fn user(&self) -> String {
        match self {
            Peer::Process { uid, .. } => format!("uid {uid}"),
            Peer::Certificate { names, address } => match names.first() {
                Some(name) => format!("certificate {name}"),
                None => host(address).to_owned(),
            },
            Peer::Address(address) => host(address).to_owned(),
            Peer::Starter => self.to_string(),
        }
    }
}

/// An address without its port.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Process { pid, uid, gid } => write!(f, "pid {pid}, uid {uid}, gid {gid}"),
            Peer::Certificate { names, address } => {
                names.iter().try_for_each(|name| write!(f, "{name}, "))?;
                write!(f, "at {address}")
            }
            Peer::Address(address) => f.write_str(address),
            Peer::Starter => f.write_str("who started the server"),
        }
    }
}
