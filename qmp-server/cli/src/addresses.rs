// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses that contradict each other: no server starts with them, or a mux would be its own upstream server.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use qmp_server::{Address, Listen};

use crate::Failure;
use crate::config::Sourced;
use crate::options::ServerOptions;

/// Looks for addresses that are listened at twice, by servers with these options or for metrics, and for an upstream server
/// that is the mux itself.
pub(crate) fn check<'a>(
    servers: impl Iterator<Item = &'a ServerOptions> + Clone,
    metrics: Option<&'a Sourced<Listen>>,
) -> Result<(), Failure> {
    let listen = servers.clone().flat_map(|options| &options.listen);
    let listen = listen.map(|sourced| ("listen", sourced));
    let mut taken: HashMap<Place, Vec<&Address>> = HashMap::new();
    for (key, sourced) in listen.chain(metrics.map(|sourced| ("metrics", sourced))) {
        let address = &sourced.value.address;
        let there = taken.entry(Place::of(address)).or_default();
        if there.iter().any(|other| overlap(address, other)) {
            let reason = format_args!("{address} is listened at twice");
            return Err(sourced.blame(key, reason));
        }
        there.push(address);
    }
    for upstream in servers.filter_map(|options| options.mux.upstream.as_ref()) {
        let address = &upstream.value.address;
        let there = taken.get(&Place::of(address));
        if there.is_some_and(|there| there.iter().any(|other| overlap(address, other))) {
            let reason = format_args!("the mux itself listens at {address}");
            return Err(upstream.blame("upstream", reason));
        }
    }
    Ok(())
}

/// What addresses have in common that overlap: of many, each is compared with few.
#[derive(PartialEq, Eq, Hash)]
enum Place {
    File(PathBuf),
    Port(u16),
    Other(Discriminant<Address>),
}

impl Place {
    fn of(address: &Address) -> Place {
        match address {
            Address::Unix(path) => Place::File(resolved(path)),
            Address::Tcp { port, .. } | Address::Tls { port, .. } => Place::Port(*port),
            other => Place::Other(discriminant(other)),
        }
    }
}

/// Whether a client that connects to one of them may reach the other.
fn overlap(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Unix(one), Address::Unix(other)) => resolved(one) == resolved(other),
        (
            Address::Tcp { host: one, port } | Address::Tls { host: one, port },
            Address::Tcp { host: other, port: same } | Address::Tls { host: other, port: same },
        ) => port == same && *port != 0 && hosts_overlap(one, other, *port),
        // Several sockets may have this name, or any.
        (Address::Systemd(one), Address::Systemd(other)) => {
            one.is_none() || other.is_none() || one == other
        }
        (one, other) => one == other && !matches!(one, Address::Vsock { port: u32::MAX, .. }),
    }
}

/// The path of a file that need not be there, without links among its folders.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    match (folder, path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// A host that cannot be looked up overlaps with itself only; what is wrong with it shows elsewhere.
fn hosts_overlap(one: &str, other: &str, port: u16) -> bool {
    let addresses = |host: &str| -> Vec<IpAddr> {
        let host = if host.is_empty() { "::" } else { host };
        let found = (host, port).to_socket_addrs().into_iter().flatten();
        found.map(|address: SocketAddr| address.ip().to_canonical()).collect()
    };
    let (ones, others) = (addresses(one), addresses(other));
    one == other
        || ones.iter().any(|one| {
            others.iter().any(|other| one == other || covers(one, other) || covers(other, one))
        })
}

/// Whether who listens at `one` gets the clients of `other`, an address of this machine.
fn covers(one: &IpAddr, other: &IpAddr) -> bool {
    one.is_unspecified() && (other.is_loopback() || other.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(one: &str, other: &str, expected: bool) {
        let [one, other] = [one, other].map(|text| text.parse::<Address>().unwrap());
        assert_eq!(overlap(&one, &other), expected, "{one} and {other}");
        assert_eq!(overlap(&other, &one), expected, "{other} and {one}");
    }

    #[test]
    fn places_are_the_same_however_they_are_written() {
        check("unix:a.sock", "./a.sock", true);
        check("unix:a.sock", "unix:b.sock", false);
        check("/proc/self/../a.sock", "/proc/a.sock", true);
        check("/proc/./a.sock", "/proc/a.sock", true);
        check("unix:a", "unix-abstract:a", false);
        check("unix-abstract:a", "unix:@a", true);
        check("tcp:127.0.0.1:1", "tls:127.0.0.1:1", true);
        check("tcp:127.0.0.1:1", "tcp:127.0.0.1:2", false);
        check("tcp:127.0.0.1:0", "tcp:127.0.0.1:0", false);
        check("tcp:127.0.0.1:1", "tcp:127.0.0.2:1", false);
        check("tcp:0.0.0.0:1", "tcp:127.0.0.1:1", true);
        check("tcp::1", "tcp:[::1]:1", true);
        check("tcp:0.0.0.0:1", "tcp:192.0.2.1:1", false);
        check("vsock:1:1", "vsock:1:1", true);
        check("systemd", "systemd:a", true);
        check("systemd:a", "systemd:b", false);
        check("stdio", "stdio", true);
        check("fd:3", "fd:4", false);
    }
}
