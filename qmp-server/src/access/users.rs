// SPDX-License-Identifier: MIT OR Apache-2.0
//! Users and groups of this machine: who may connect.

use std::ffi::CString;
use std::fs;
use std::io;
use std::sync::LazyLock;

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
        if is_mapped_group(gid) && self.groups.contains(&gid) {
            return Decision::Yes;
        }
        if is_nobody(uid) {
            return Decision::No;
        }
        let is_default = self.users.is_empty() && self.groups.is_empty();
        let is_own = uid == 0 || uid == Uid::effective().as_raw();
        if (is_default && is_own) || self.users.contains(&uid) {
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
    let uid = match user.parse() {
        Ok(uid) => uid,
        Err(_) => match User::from_name(user)? {
            Some(user) => user.uid.as_raw(),
            None => return Err(unknown("user", user)),
        },
    };
    if is_nobody(uid) {
        warn_of_unmapped("user", user);
    }
    Ok(uid)
}

pub(crate) fn group_id(group: &str) -> io::Result<u32> {
    let gid = match group.parse() {
        Ok(gid) => gid,
        Err(_) => match Group::from_name(group)? {
            Some(group) => group.gid.as_raw(),
            None => return Err(unknown("group", group)),
        },
    };
    if !is_mapped_group(gid) {
        warn_of_unmapped("group", group);
    }
    Ok(gid)
}

fn unknown(what: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} '{name}'"))
}

fn warn_of_unmapped(what: &str, name: &str) {
    tracing::warn!(
        "{what} '{name}' means nobody: in this user namespace, everybody without a number there looks like this"
    );
}

/// The number that all users have here who have none in this user namespace (`user_namespaces(7)`): nobody in particular,
/// whatever the name that the system's database has for it. `None` if all have one.
static UNMAPPED_USERS: LazyLock<Option<u32>> = LazyLock::new(|| {
    unmapped_id(&read("/proc/self/uid_map"), &read("/proc/sys/kernel/overflowuid"))
});

static UNMAPPED_GROUPS: LazyLock<Option<u32>> = LazyLock::new(|| {
    unmapped_id(&read("/proc/self/gid_map"), &read("/proc/sys/kernel/overflowgid"))
});

/// Whether this is no user in particular.
pub(crate) fn is_nobody(uid: u32) -> bool {
    *UNMAPPED_USERS == Some(uid)
}

/// Whether this is one group in particular.
pub(crate) fn is_mapped_group(gid: u32) -> bool {
    *UNMAPPED_GROUPS != Some(gid)
}

/// Without `/proc` nothing is known, as if there were a user namespace.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn unmapped_id(map: &str, overflow: &str) -> Option<u32> {
    let mapped = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse().ok());
    // The last number is that of nobody.
    let all = mapped.fold(0u64, u64::saturating_add) >= u64::from(u32::MAX);
    (!all).then(|| overflow.trim().parse().unwrap_or(65_534))
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
    fn who_has_no_number_is_nobody_in_particular() {
        let everybody = "         0          0 4294967295\n";
        assert_eq!(unmapped_id(everybody, "65534\n"), None);
        assert_eq!(unmapped_id("0 0 1000\n1000 100000 4294966295\n", "65534\n"), None);
        assert_eq!(unmapped_id("         0       1000          1\n", "65534\n"), Some(65_534));
        assert_eq!(unmapped_id("0 100000 65536\n", "4242\n"), Some(4242));
        assert_eq!(unmapped_id("", ""), Some(65_534), "without /proc");
    }

    #[test]
    fn unknown_names_are_errors() {
        let mut access = Access::default();
        let error = access.allow_user("no such user").unwrap_err();
        assert_eq!(error.to_string(), "there is no user 'no such user'");
        assert!(access.allow_group("no such group").is_err());
    }
}
