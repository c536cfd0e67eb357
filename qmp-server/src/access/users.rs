// SPDX-License-Identifier: MIT OR Apache-2.0
//! Users and groups of this machine: who may connect.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::transport::Peer;

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

    /// Whether this peer may use the server. Those that are no processes of this machine are let in or kept out by their
    /// transport. May take long: it looks a user's groups up if they decide.
    pub fn admits(&self, peer: &Peer) -> bool {
        match self.decide(peer) {
            Decision::Yes => true,
            Decision::No => false,
            Decision::ByGroups(uid) => self.admits_member(&groups_of(uid)),
        }
    }

    /// Decides without looking anything up.
    pub(crate) fn decide(&self, peer: &Peer) -> Decision {
        let &Peer::Process { uid, gid, .. } = peer else { return Decision::Yes };
        let is_default = self.users.is_empty() && self.groups.is_empty();
        let is_own = uid == 0 || uid == Uid::effective().as_raw();
        if (is_default && is_own) || self.users.contains(&uid) || self.groups.contains(&gid) {
            return Decision::Yes;
        }
        if self.groups.is_empty() { Decision::No } else { Decision::ByGroups(uid) }
    }

    /// Whether a member of these groups may use the server.
    pub(crate) fn admits_member(&self, groups: &[u32]) -> bool {
        self.groups.iter().any(|group| groups.contains(group))
    }
}

/// Whether a peer may use the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Yes,
    No,
    /// The groups decide that this user is in.
    ByGroups(u32),
}

/// The groups that the user database lists for the user of a process. A [local](qmp_dispatch::Monitor::local) of monitors
/// if they have been looked up.
#[derive(Clone, Debug)]
pub(crate) struct Groups(pub(crate) Vec<u32>);

/// The groups of a user; none if the user is unknown. May take long: the user database may be a network away.
pub(crate) fn groups_of(uid: u32) -> Vec<u32> {
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
