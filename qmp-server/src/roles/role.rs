// SPDX-License-Identifier: MIT OR Apache-2.0
//! A role: the commands and events of some clients.

use super::last_shown::LastShown;
use super::{RoleError, ready_made};
use crate::deadline_profile::DeadlineProfile;
use crate::glob;

/// Which commands a client may execute, and which events it gets.
///
/// A name is allowed if it matches an allowed pattern and no denied one. In patterns, `*` stands for any text and `?` for
/// any character. If a role is [based on](Role::based_on) another one, a name that matches none of its own patterns is
/// decided by the other role. `qmp_capabilities` is always allowed.
///
/// There are three ready-made roles: [`observer`](Role::observer), [`operator`](Role::operator) and
/// [`admin`](Role::admin); `docs/roles.md` says what each may do, and why.
///
/// ```
/// use qmp_server::Role;
///
/// let mut role = Role::new("reader")?;
/// role.allow("query-*")?;
/// role.deny("query-vnc*")?;
/// role.allow_events("*")?;
/// assert!(role.allows_command("query-status") && !role.allows_command("query-vnc-servers"));
/// assert!(role.allows_event("STOP"));
/// # Ok::<(), qmp_server::RoleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Role {
    name: String,
    /// The role that decides about names that match no pattern of this one.
    base: Option<Box<Role>>,
    commands: Rules,
    events: Rules,
    /// Whether clients get a mux's own events; `None` if the base decides.
    notices: Option<bool>,
    /// `true` only in `admin`: a client that adds a monitor to QEMU can use it without any role.
    adds_monitors: bool,
    deadline_profile: Option<DeadlineProfile>,
    pub(super) last_shown: LastShown,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Rules {
    /// Returns whether the name is allowed, or `None` if no pattern matches it.
    fn decide(&self, name: &str) -> Option<bool> {
        let matches = |patterns: &[String]| patterns.iter().any(|p| glob::matches(p, name));
        if matches(&self.deny) {
            Some(false)
        } else if matches(&self.allow) {
            Some(true)
        } else {
            None
        }
    }

    /// Returns whether every name is allowed, or `None` if there are no patterns and the base decides.
    fn allow_all(&self) -> Option<bool> {
        match (self.allow.is_empty(), self.deny.is_empty()) {
            (true, true) => None,
            (_, empty) => Some(empty && self.allow.iter().any(|pattern| pattern == "*")),
        }
    }
}

impl Role {
    /// Creates a role that allows nothing yet.
    ///
    /// # Errors
    ///
    /// [`RoleError::Name`] if the name contains anything but letters, digits, `-` and `_`.
    pub fn new(name: impl Into<String>) -> Result<Role, RoleError> {
        let name = name.into();
        let good = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        if name.is_empty() || !name.chars().all(good) {
            return Err(RoleError::Name(name));
        }
        Ok(Role::nothing(name))
    }

    /// Creates a role that allows what another one allows, apart from what its own patterns decide.
    ///
    /// # Errors
    ///
    /// As [`new`](Role::new).
    pub fn based_on(name: impl Into<String>, base: Role) -> Result<Role, RoleError> {
        Ok(Role { base: Some(Box::new(base)), ..Role::new(name)? })
    }

    /// Returns the role `observer`: all events, and the queries that change nothing and give no secrets away.
    pub fn observer() -> Role {
        Role::made("observer", ready_made::OBSERVER_ALLOWS, ready_made::OBSERVER_DENIES)
    }

    /// Returns the role `operator`: what an `observer` may do, and what runs a machine as it was set up. It cannot end
    /// QEMU, pass it descriptors, or make it open, write or execute anything on the host.
    pub fn operator() -> Role {
        let operator = Role::made("operator", ready_made::OPERATOR_ALLOWS, &[]);
        Role { base: Some(Box::new(Role::observer())), ..operator }
    }

    /// Returns the role `admin`, which allows everything. Only this role may add a monitor to QEMU (`object-add` of
    /// `monitor-qmp`).
    pub fn admin() -> Role {
        Role { adds_monitors: true, ..Role::made("admin", &["*"], &[]) }
    }

    fn made(name: &str, allow: &[&str], deny: &[&str]) -> Role {
        let owned = |patterns: &[&str]| patterns.iter().copied().map(str::to_owned).collect();
        let mut role = Role::nothing(name.to_owned());
        role.commands = Rules { allow: owned(allow), deny: owned(deny) };
        role.events.allow = owned(&["*"]);
        role
    }

    fn nothing(name: String) -> Role {
        Role {
            name,
            base: None,
            commands: Rules::default(),
            events: Rules::default(),
            notices: None,
            adds_monitors: false,
            deadline_profile: None,
            last_shown: LastShown::default(),
        }
    }

    /// Allows the commands that match the pattern.
    ///
    /// # Errors
    ///
    /// [`RoleError::Pattern`] if no name can match the pattern.
    pub fn allow(&mut self, pattern: &str) -> Result<(), RoleError> {
        add(&mut self.commands.allow, pattern)
    }

    /// Denies the commands that match the pattern.
    ///
    /// # Errors
    ///
    /// [`RoleError::Pattern`] if no name can match the pattern.
    pub fn deny(&mut self, pattern: &str) -> Result<(), RoleError> {
        add(&mut self.commands.deny, pattern)
    }

    /// Allows the events that match the pattern.
    ///
    /// # Errors
    ///
    /// [`RoleError::Pattern`] if no name can match the pattern.
    pub fn allow_events(&mut self, pattern: &str) -> Result<(), RoleError> {
        add(&mut self.events.allow, pattern)
    }

    /// Denies the events that match the pattern.
    ///
    /// # Errors
    ///
    /// [`RoleError::Pattern`] if no name can match the pattern.
    pub fn deny_events(&mut self, pattern: &str) -> Result<(), RoleError> {
        add(&mut self.events.deny, pattern)
    }

    /// Says whether clients of a [`Mux`](crate::Mux) get its own events also where they do not come in by a door with
    /// [notices](crate::Listen::notices). Such clients stay when the upstream server has gone. By default they do not, or
    /// as the role does that this one is based on.
    pub fn set_notices(&mut self, notices: bool) {
        self.notices = Some(notices);
    }

    /// Returns whether clients get a mux's [own events](Role::set_notices).
    pub fn has_notices(&self) -> bool {
        let base = || self.base.as_ref().is_some_and(|base| base.has_notices());
        self.notices.unwrap_or_else(base)
    }

    /// Gives the commands of the role's clients the deadlines of a profile, unless their [listener](crate::Listen) has one.
    /// A role without one has that of its base.
    pub fn set_deadline_profile(&mut self, profile: DeadlineProfile) {
        self.deadline_profile = Some(profile);
    }

    pub(super) fn deadline_profile(&self) -> Option<DeadlineProfile> {
        self.deadline_profile.or_else(|| self.base.as_ref()?.deadline_profile())
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the command of this name may be executed.
    pub fn allows_command(&self, name: &str) -> bool {
        let base = || self.base.as_ref().is_some_and(|base| base.allows_command(name));
        name == "qmp_capabilities" || self.commands.decide(name).unwrap_or_else(base)
    }

    /// Whether the client gets the events of this name.
    pub fn allows_event(&self, name: &str) -> bool {
        let base = || self.base.as_ref().is_some_and(|base| base.allows_event(name));
        self.events.decide(name).unwrap_or_else(base)
    }

    /// Whether the client may add monitors to QEMU, if it may add objects.
    pub(super) fn adds_monitors(&self) -> bool {
        self.adds_monitors
    }

    /// Whether every command is allowed.
    pub(super) fn allows_all_commands(&self) -> bool {
        let base = || self.base.as_ref().is_some_and(|base| base.allows_all_commands());
        self.commands.allow_all().unwrap_or_else(base)
    }

    /// Whether every event is allowed.
    pub(super) fn allows_all_events(&self) -> bool {
        let base = || self.base.as_ref().is_some_and(|base| base.allows_all_events());
        self.events.allow_all().unwrap_or_else(base)
    }
}

fn add(patterns: &mut Vec<String>, pattern: &str) -> Result<(), RoleError> {
    glob::check(pattern)?;
    patterns.push(pattern.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_goes_before_allowed() {
        let mut role = Role::new("r").unwrap();
        role.deny("query-v*").unwrap();
        role.allow("query-*").unwrap();
        role.allow_events("*").unwrap();
        role.deny_events("VNC_*").unwrap();
        assert!(role.allows_command("query-status"));
        assert!(!role.allows_command("query-vnc"));
        assert!(!role.allows_command("stop"));
        assert!(role.allows_command("qmp_capabilities"));
        assert!(role.allows_event("STOP") && !role.allows_event("VNC_CONNECTED"));
        assert!(!role.allows_all_commands() && !role.allows_all_events());
    }

    #[test]
    fn what_a_role_says_goes_before_its_base() {
        let mut role = Role::based_on("r", Role::operator()).unwrap();
        role.allow("quit").unwrap();
        role.deny("stop").unwrap();
        assert!(role.allows_command("quit") && !role.allows_command("stop"));
        assert!(role.allows_command("cont") && !role.allows_command("getfd"));
        assert!(role.allows_event("STOP") && role.allows_all_events());
        role.deny_events("STOP").unwrap();
        assert!(!role.allows_event("STOP") && role.allows_event("RESUME"));
        assert!(!role.allows_all_events());
    }

    #[test]
    fn an_admin_is_not_looked_after() {
        assert!(Role::admin().allows_all_commands() && Role::admin().allows_all_events());
        let like = Role::based_on("r", Role::admin()).unwrap();
        assert!(like.allows_all_commands() && like.allows_all_events());
        let nothing = Role::new("r").unwrap();
        assert!(!nothing.allows_all_commands() && !nothing.allows_all_events());
        assert!(!nothing.allows_command("query-status") && !nothing.allows_event("STOP"));
    }

    #[test]
    fn mistakes_are_named() {
        let mut role = Role::new("r").unwrap();
        for pattern in ["", "query status", "query-[a-z]*", "query-*,stop"] {
            let error = RoleError::Pattern(glob::check(pattern).unwrap_err());
            assert_eq!(role.allow(pattern), Err(error.clone()));
            assert_eq!(role.deny_events(pattern), Err(error));
        }
        role.allow("__org.qemu_x-*").unwrap();
        for name in ["", "a b", "a=b", "a,b"] {
            assert!(matches!(Role::new(name), Err(RoleError::Name(_))), "{name}");
        }
    }
}
