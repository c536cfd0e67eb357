// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is at the other end of a connection, and who may be.

use std::ffi::CString;
use std::fmt;
use std::io;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// Who is at the other end of a connection, as far as the transport can tell. A
/// [local](qmp_dispatch::Monitor::local) of every monitor of a [`Server`](crate::Server).
///
/// ```
/// use qmp_server::Peer;
///
/// let peer = Peer::Process { pid: 4711, uid: 1000, gid: 100 };
/// assert_eq!(peer.to_string(), "pid 4711, uid 1000, gid 100");
/// ```
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
        /// The names in it: DNS names, URIs, and the common name, in this order.
        names: Vec<String>,
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
            Peer::Certificate { names, address } => write!(f, "{} at {address}", names.join(", ")),
            Peer::Address(address) => f.write_str(address),
            Peer::Starter => f.write_str("who started the server"),
        }
    }
}

/// Which processes of this machine may use a [`Server`](crate::Server): those of some users, and
/// those of members of some groups.
///
/// By default the user that runs the server, and root. Naming anybody replaces this.
///
/// ```
/// use qmp_server::{Access, Peer};
///
/// let root = Peer::Process { pid: 1, uid: 0, gid: 0 };
/// assert!(Access::default().admits(&root));
/// let mut access = Access::default();
/// access.allow_user("1234")?;
/// assert!(!access.admits(&root));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Access {
    /// Admits a user, by name or number.
    ///
    /// # Errors
    ///
    /// If there is no user of this name, or the users cannot be looked up.
    pub fn allow_user(&mut self, user: &str) -> io::Result<()> {
        self.users.push(user_id(user)?);
        Ok(())
    }

    /// Admits a group, by name or number: processes with this effective group, and those of users
    /// that the system's database lists as members.
    ///
    /// ```
    /// use qmp_server::{Access, Peer};
    ///
    /// let mut access = Access::default();
    /// access.allow_group("4711")?;
    /// assert!(access.admits(&Peer::Process { pid: 1, uid: 1000, gid: 4711 }));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If there is no group of this name, or the groups cannot be looked up.
    pub fn allow_group(&mut self, group: &str) -> io::Result<()> {
        self.groups.push(group_id(group)?);
        Ok(())
    }

    /// Whether this peer may use the server. Those that are no processes of this machine are let in
    /// or kept out by their transport.
    pub fn admits(&self, peer: &Peer) -> bool {
        let &Peer::Process { uid, gid, .. } = peer else { return true };
        if self.users.is_empty() && self.groups.is_empty() {
            return uid == 0 || uid == Uid::effective().as_raw();
        }
        self.users.contains(&uid) || is_in_group(uid, gid, &self.groups)
    }
}

/// Whether a process of this user and effective group belongs to one of the groups.
pub(crate) fn is_in_group(uid: u32, gid: u32, groups: &[u32]) -> bool {
    groups.contains(&gid)
        || (!groups.is_empty() && groups_of(uid).iter().any(|group| groups.contains(group)))
}

/// The groups of a user; none if the user is unknown.
fn groups_of(uid: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return Vec::new() };
    let Ok(name) = CString::new(user.name) else { return Vec::new() };
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

pub(crate) fn user_id(user: &str) -> io::Result<u32> {
    match user.parse() {
        Ok(uid) => Ok(uid),
        Err(_) => match User::from_name(user)? {
            Some(user) => Ok(user.uid.as_raw()),
            None => Err(unknown("user", user)),
        },
    }
}

pub(crate) fn group_id(group: &str) -> io::Result<u32> {
    match group.parse() {
        Ok(gid) => Ok(gid),
        Err(_) => match Group::from_name(group)? {
            Some(group) => Ok(group.gid.as_raw()),
            None => Err(unknown("group", group)),
        },
    }
}

fn unknown(what: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} '{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uid: u32, gid: u32) -> Peer {
        Peer::Process { pid: 1, uid, gid }
    }

    #[test]
    fn the_own_user_and_root_are_let_in_by_default() {
        let access = Access::default();
        let own = Uid::effective().as_raw();
        assert!(access.admits(&process(own, 4242)));
        assert!(access.admits(&process(0, 4242)));
        assert!(!access.admits(&process(own + 1, 0)));
        assert!(access.admits(&Peer::Starter));
    }

    #[test]
    fn who_is_named_replaces_the_default() {
        let mut access = Access::default();
        access.allow_user("4711").unwrap();
        access.allow_group("4712").unwrap();
        assert!(access.admits(&process(4711, 1)));
        assert!(access.admits(&process(1, 4712)));
        assert!(!access.admits(&process(0, 0)));
    }

    #[test]
    fn members_of_a_group_are_let_in_by_name() {
        let mut access = Access::default();
        access.allow_group("root").unwrap();
        // The user root is in the group root, whatever group the process has.
        assert!(access.admits(&process(0, 4242)));
        assert!(!access.admits(&process(4242, 4242)));
    }

    #[test]
    fn unknown_names_are_errors() {
        let mut access = Access::default();
        let error = access.allow_user("no such user").unwrap_err();
        assert_eq!(error.to_string(), "there is no user 'no such user'");
        assert!(access.allow_group("no such group").is_err());
    }
}
