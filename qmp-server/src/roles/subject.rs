// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is to have a role.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::RoleError;
use crate::Peer;
use crate::access::{Groups, group_id, groups_of, is_mapped_group, is_nobody, user_id};
use crate::transport::ExpectedName;

/// Those clients that are processes of one user, or of a group's members, or have a certificate with
/// some name.
///
/// Written `user:NAME` or `group:NAME`, by name or number, or as the name of a certificate: `dns:NAME`, `uri:URI`,
/// `cn:NAME` for the common name, or `name:NAME` for a DNS name or, in certificates without alternative names, the common
/// name.
#[derive(Clone, Debug)]
pub struct Subject {
    text: String,
    who: Who,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(u32),
    Group(u32),
    Name(ExpectedName),
}

/// How clients are written.
const EXPECTED: &str = "expected user:NAME, group:NAME, dns:NAME, uri:URI, cn:NAME or name:NAME";

impl Subject {
    pub(super) fn is_of_group(&self) -> bool {
        matches!(self.who, Who::Group(_))
    }

    /// Whether the peer is a process of this user.
    pub(super) fn is_user(&self, peer: &Peer) -> bool {
        match (&self.who, peer) {
            (Who::User(user), Peer::Process { uid, .. }) => user == uid && !is_nobody(*uid),
            _ => false,
        }
    }

    /// Whether the peer is a process of this group's members, or has this name.
    /// The user's groups are looked up here, which may take long, unless the server has [done
    /// so](crate::Server::look_up_groups).
    pub(super) fn is_group_or_name(&self, peer: &Peer, groups: Option<&Groups>) -> bool {
        match (&self.who, peer) {
            (Who::Group(group), &Peer::Process { uid, gid, .. }) => {
                let is_member = || match groups {
                    Some(Groups(groups)) => groups.contains(group),
                    None => groups_of(uid).contains(group),
                };
                (*group == gid && is_mapped_group(gid)) || (!is_nobody(uid) && is_member())
            }
            (Who::Name(expected), Peer::Certificate { names, .. }) => {
                names.iter().any(|name| expected.is(name))
            }
            _ => false,
        }
    }
}

impl PartialEq for Subject {
    fn eq(&self, other: &Subject) -> bool {
        self.who == other.who
    }
}

impl Eq for Subject {}

impl Hash for Subject {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.who.hash(state);
    }
}

impl FromStr for Subject {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Subject, RoleError> {
        let wrong = |reason: String| RoleError::Subject { text: text.to_owned(), reason };
        let who = match text.split_once(':') {
            Some((_, "")) => return Err(wrong("the name is missing".to_owned())),
            Some(("user", user)) => {
                Who::User(user_id(user).map_err(|error| wrong(error.to_string()))?)
            }
            Some(("group", group)) => {
                Who::Group(group_id(group).map_err(|error| wrong(error.to_string()))?)
            }
            Some(("name", name)) => Who::Name(ExpectedName::new(name)),
            Some(("dns" | "uri" | "cn", _)) => Who::Name(ExpectedName::new(text)),
            _ => return Err(wrong(EXPECTED.to_owned())),
        };
        Ok(Subject { text: text.to_owned(), who })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = text.parse::<Subject>().unwrap_err();
        assert_eq!(error.to_string(), format!("'{text}': {expected}"));
    }

    #[test]
    fn mistakes_are_named() {
        check_error("bob", EXPECTED);
        check_error("role:bob", EXPECTED);
        check_error("uri:", "the name is missing");
        check_error("name:", "the name is missing");
        check_error("user:no such user", "there is no user 'no such user'");
        check_error("group:no such group", "there is no group 'no such group'");
    }
}
