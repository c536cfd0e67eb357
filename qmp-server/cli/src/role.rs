// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has which role, and what own roles may do.

use std::collections::BTreeMap;
use std::str::FromStr;

use qmp_server::{DeadlineProfile, Role, RoleError, Roles, Subject};
use serde::Deserialize;

use crate::config::Sourced;
use crate::named::Named;

/// `--role SUBJECT=ROLE`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) subject: Subject,
    pub(crate) role: String,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Assignment, String> {
        // Names in certificates may have such signs, those of roles do not.
        let (subject, role) = text.rsplit_once('=').ok_or(
            "expected user:NAME=ROLE, group:NAME=ROLE, dns:NAME=ROLE, uri:URI=ROLE or cn:NAME=ROLE",
        )?;
        let subject = subject.parse().map_err(|error: RoleError| error.to_string())?;
        Ok(Assignment { subject, role: role.to_owned() })
    }
}

/// A role of the file's own: a table `[roles.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table", rename_all = "kebab-case")]
pub(crate) struct OwnRole {
    base: Option<Base>,
    allow: Vec<NamePattern>,
    deny: Vec<NamePattern>,
    allow_events: Vec<NamePattern>,
    deny_events: Vec<NamePattern>,
    notices: bool,
    deadline_profile: Option<Named<DeadlineProfile>>,
}

impl OwnRole {
    /// The role, by this name.
    pub(crate) fn make(&self, name: &RoleName) -> Result<Role, RoleError> {
        let mut role = match &self.base {
            Some(Base(base)) => Role::based_on(&*name.0, base.clone())?,
            None => Role::new(&*name.0)?,
        };
        self.allow.iter().try_for_each(|pattern| role.allow(&pattern.0))?;
        self.deny.iter().try_for_each(|pattern| role.deny(&pattern.0))?;
        self.allow_events.iter().try_for_each(|pattern| role.allow_events(&pattern.0))?;
        self.deny_events.iter().try_for_each(|pattern| role.deny_events(&pattern.0))?;
        if self.notices {
            role.set_notices(true);
        }
        if let Some(Named(profile)) = self.deadline_profile {
            role.set_deadline_profile(profile);
        }
        Ok(role)
    }

    /// Whether its clients get a mux's own events.
    pub(crate) fn has_notices(&self) -> bool {
        self.notices
    }

    pub(crate) fn allows_nothing(&self) -> bool {
        self.base.is_none() && self.allow.is_empty() && self.allow_events.is_empty()
    }
}

/// What a new role may be called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoleName(pub(crate) String);

impl FromStr for RoleName {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<RoleName, RoleError> {
        Roles::default().add(Role::new(text)?)?;
        Ok(RoleName(text.to_owned()))
    }
}

/// A ready-made role.
#[derive(Clone, Debug)]
pub(crate) struct Base(Role);

/// There is one of each name.
impl PartialEq for Base {
    fn eq(&self, other: &Base) -> bool {
        self.0.name() == other.0.name()
    }
}

impl FromStr for Base {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Base, RoleError> {
        Roles::default().find(text).cloned().map(Base)
    }
}

/// What some names match.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NamePattern(pub(crate) String);

impl FromStr for NamePattern {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<NamePattern, RoleError> {
        Role::observer().allow(text)?;
        Ok(NamePattern(text.to_owned()))
    }
}

/// Own roles by their names.
pub(crate) type OwnRoles = BTreeMap<RoleName, Sourced<OwnRole>>;
