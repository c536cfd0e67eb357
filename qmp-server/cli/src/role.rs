// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has which role, and what own roles may do.

use std::collections::BTreeMap;
use std::str::FromStr;

use qmp_server::{Listen, Role, RoleError, Roles, Subject};
use serde::Deserialize;

use crate::Failure;
use crate::config::Sourced;
use crate::options::{Profile, ServerOptions};

/// `--role SUBJECT=ROLE`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    subject: Subject,
    role: String,
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
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    allow_events: Vec<Pattern>,
    deny_events: Vec<Pattern>,
    notices: bool,
    deadline_profile: Option<Profile>,
}

impl OwnRole {
    fn make(&self, name: &RoleName) -> Result<Role, RoleError> {
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
        if let Some(Profile(profile)) = self.deadline_profile {
            role.set_deadline_profile(profile);
        }
        Ok(role)
    }

    /// Whether its clients get a mux's own events.
    pub(crate) fn has_notices(&self) -> bool {
        self.notices
    }

    fn allows_nothing(&self) -> bool {
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
pub(crate) struct Pattern(pub(crate) String);

impl FromStr for Pattern {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Pattern, RoleError> {
        Role::observer().allow(text)?;
        Ok(Pattern(text.to_owned()))
    }
}

/// The roles that were asked for; `None` if all may do everything. Finds whatever is wrong with them.
pub(crate) fn roles(options: &ServerOptions) -> Result<Option<Roles>, Failure> {
    let mut roles = Roles::default();
    for (name, sourced) in &options.roles {
        let key = format!("roles.{}", name.0);
        if sourced.value.allows_nothing() {
            return Err(sourced.blame(&key, "nothing is allowed: say allow, allow-events or base"));
        }
        let role = sourced.value.make(name).and_then(|role| roles.add(role));
        role.map_err(|error| sourced.blame(&key, error))?;
    }
    let mut wanted = false;
    for sourced in &options.listen {
        if let Some(role) = &sourced.value.role {
            roles.find(role).map_err(|error| sourced.blame("listen", error))?;
            wanted = true;
        }
    }
    if let Some(sourced) = &options.metrics {
        let Listen { role, notices, .. } = &sourced.value;
        if role.is_some() {
            return Err(sourced.blame("metrics", "metrics take no role"));
        }
        if *notices {
            return Err(sourced.blame("metrics", "metrics have no notices"));
        }
    }
    for sourced in &options.role {
        let Assignment { subject, role } = &sourced.value;
        let assigned = roles.assign(subject.clone(), role);
        assigned.map_err(|error| sourced.blame("role", error))?;
        wanted = true;
    }
    if let Some(sourced) = &options.default_role {
        let set = roles.set_default(&sourced.value);
        set.map_err(|error| sourced.blame("default-role", error))?;
        wanted = true;
    }
    Ok(wanted.then_some(roles))
}

/// Own roles by their names.
pub(crate) type OwnRoles = BTreeMap<RoleName, Sourced<OwnRole>>;
