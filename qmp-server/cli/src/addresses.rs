// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses that contradict each other: no server starts with them, or a mux would be its own upstream server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem::{Discriminant, discriminant};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use qmp_server::{Address, Dial, DialIn, Listen};

use crate::Failure;
use crate::config::Sourced;
use crate::options::ServerOptions;

/// The addresses at which this program listens, and those of the upstream servers of its machines: none is listened at
/// twice, and no machine is the mux itself.
#[derive(Default)]
pub(crate) struct Taken {
    listened: Places<Address>,
    upstream: Places<Dial>,
}

type Places<T> = HashMap<Place, Vec<T>>;

/// What one server has of [`Taken`].
#[derive(Default)]
pub(crate) struct Claim {
    listened: Vec<(Place, Address)>,
    upstream: Vec<(Place, Dial)>,
}

/// Looks for what one server alone takes twice.
pub(crate) fn check(options: &ServerOptions) -> Result<(), Failure> {
    let mut taken = Taken::default();
    taken.claim_for_program(options)?;
    taken.claim([options]).map(drop)
}

impl Taken {
    /// Takes what the program listens at besides its servers. If it cannot have all of it, nothing is taken.
    pub(crate) fn claim_for_program(&mut self, options: &ServerOptions) -> Result<Claim, Failure> {
        let metrics = options.metrics.iter().map(|metrics| ("metrics", metrics));
        let control = options.mux.control.iter().map(|control| ("control", control));
        let mut claim = Claim::default();
        for (key, sourced) in metrics.chain(control) {
            if let Err(failure) = self.listen(key, sourced, &mut claim) {
                self.release(claim);
                return Err(failure);
            }
        }
        Ok(claim)
    }

    /// Takes what these servers need. If they cannot have all of it, nothing is taken.
    pub(crate) fn claim<'a>(
        &mut self,
        servers: impl IntoIterator<Item = &'a ServerOptions>,
    ) -> Result<Vec<Claim>, Failure> {
        let servers: Vec<_> = servers.into_iter().collect();
        let mut claims: Vec<_> = servers.iter().map(|_| Claim::default()).collect();
        let claimed = self.claim_all(&servers, &mut claims);
        if let Err(failure) = claimed {
            claims.into_iter().for_each(|claim| self.release(claim));
            return Err(failure);
        }
        Ok(claims)
    }

    /// All listeners first: who is wrong is an upstream server that is among them.
    fn claim_all(&mut self, of: &[&ServerOptions], claims: &mut [Claim]) -> Result<(), Failure> {
        for (options, claim) in of.iter().zip(&mut *claims) {
            for sourced in &options.listen {
                self.listen("listen", sourced, claim)?;
            }
            for sourced in &options.mux.agent_listen {
                self.listen("agent-listen", sourced, claim)?;
            }
        }
        for (options, claim) in of.iter().zip(claims) {
            let upstream = options.mux.upstream.iter().map(|upstream| ("upstream", upstream));
            let agent = options.mux.agent.iter().map(|agent| ("agent", agent));
            for (key, sourced) in upstream.chain(agent) {
                self.connect(key, sourced, claim)?;
            }
        }
        Ok(())
    }

    /// Takes one more address to connect to, or to be connected from.
    fn connect(
        &mut self,
        key: &str,
        sourced: &Sourced<Dial>,
        claim: &mut Claim,
    ) -> Result<(), Failure> {
        let address = sourced.value.address();
        let place = Place::of(address);
        if overlaps(&self.listened, &place, address, |listened| listened) {
            let reason = format_args!("the mux itself listens at {address}");
            return Err(sourced.blame(key, reason));
        }
        let mut others = self.upstream.get(&place).into_iter().flatten();
        // Those that are there go together, so one of them is enough.
        if let Some(other) = others.find(|other| overlap(address, other.address())) {
            let beside = match key {
                "agent" => Err("it is the upstream server of another machine"),
                _ => check_beside(&sourced.value, other),
            };
            beside.map_err(|reason| sourced.blame(key, format_args!("{address}: {reason}")))?;
        }
        self.upstream.entry(place.clone()).or_default().push(sourced.value.clone());
        claim.upstream.push((place, sourced.value.clone()));
        Ok(())
    }

    /// Takes one more address to listen at.
    fn listen(
        &mut self,
        key: &str,
        sourced: &Sourced<Listen>,
        claim: &mut Claim,
    ) -> Result<(), Failure> {
        if sourced.value.dial_out.is_some() {
            return Ok(());
        }
        let address = &sourced.value.address;
        let place = Place::of(address);
        if overlaps(&self.listened, &place, address, |listened| listened) {
            let reason = format_args!("{address} is listened at twice");
            return Err(sourced.blame(key, reason));
        }
        if overlaps(&self.upstream, &place, address, Dial::address) {
            let reason = format_args!("{address} is the upstream server of a machine");
            return Err(sourced.blame(key, reason));
        }
        self.listened.entry(place.clone()).or_default().push(address.clone());
        claim.listened.push((place, address.clone()));
        Ok(())
    }

    /// Gives back what a server had.
    pub(crate) fn release(&mut self, claim: Claim) {
        for (place, address) in claim.listened {
            remove(&mut self.listened, place, &address);
        }
        for (place, dial) in claim.upstream {
            remove(&mut self.upstream, place, &dial);
        }
    }

    /// Whether this socket is one of ours, or the upstream server of a machine.
    pub(crate) fn has_socket(&self, path: &Path) -> bool {
        let place = Place::File(resolved(path));
        self.listened.contains_key(&place) || self.upstream.contains_key(&place)
    }
}

/// Whether two machines can have upstream servers at addresses that overlap. Any number of muxes may connect to one server;
/// what there is once is one machine's, unless those that connect there are told apart.
fn check_beside(one: &Dial, other: &Dial) -> Result<(), &'static str> {
    let is_single = |dial: &Dial| matches!(dial.address(), Address::Fd(_) | Address::Systemd(_));
    match (one, other) {
        (Dial::In(one), Dial::In(other)) => DialIn::check_beside(one, other),
        (Dial::In(_), _) | (_, Dial::In(_)) => Err("the server of another machine connects there"),
        _ if is_single(one) => Err("it is the upstream server of another machine"),
        _ => Ok(()),
    }
}

fn overlaps<T>(
    places: &Places<T>,
    place: &Place,
    address: &Address,
    of: impl Fn(&T) -> &Address,
) -> bool {
    let there = places.get(place);
    there.is_some_and(|there| there.iter().any(|other| overlap(address, of(other))))
}

fn remove<T: PartialEq>(places: &mut Places<T>, place: Place, taken: &T) {
    if let Entry::Occupied(mut there) = places.entry(place) {
        let at = there.get().iter().position(|other| other == taken);
        at.map(|at| there.get_mut().swap_remove(at));
        if there.get().is_empty() {
            there.remove();
        }
    }
}

/// What addresses have in common that overlap: of many, each is compared with few.
#[derive(Clone, PartialEq, Eq, Hash)]
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
fn resolved(path: &Path) -> PathBuf {
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
