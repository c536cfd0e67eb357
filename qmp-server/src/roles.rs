// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each client may do, and which clients have which role.

mod in_force;
mod introspection;
mod last_shown;
mod monitors;
mod ready_made;
mod role;
mod subject;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use qmp_dispatch::proto::{Error, Json};
use qmp_dispatch::{Call, Interceptor, Monitor, Registry};

pub use in_force::RolesInForce;
pub use role::Role;
pub use subject::Subject;

use self::in_force::{Holder, Identity};
use self::monitors::adds_monitor;
use crate::PatternError;
use crate::access::{DoorRole, GivenRole, Notices};
use crate::deadline_profile::with_profile;
use crate::introspected::Introspected;

/// The roles of a server's clients: which there are, and who has which.
///
/// At first, there are the [ready-made](Role) ones, and everybody is an `admin`. A client has the role of
/// the [listener](crate::Listen::role) that it came through. Where that says nothing, the role is that
/// [assigned](Roles::assign) to its user, or else to one of its groups, or to a name in its certificate; of several that
/// fit, the one assigned first. All others have the [default](Roles::set_default). A role decides what a client
/// may do, not whether it may connect; that is up to [`Access`](crate::Access) and the transports.
///
/// What a client may not execute is refused as commands are in QEMU that were disabled by policy, and
/// its `query-commands` and `query-qmp-schema` leave it out, with all types that nothing else leads to.
///
/// ```
/// use qmp_dispatch::Registry;
/// use qmp_server::{Role, Roles};
///
/// let mut scaler = Role::based_on("scaler", Role::observer())?;
/// scaler.allow("balloon")?;
///
/// let mut roles = Roles::default();
/// roles.add(scaler)?;
/// roles.assign("user:0".parse()?, "admin")?;
/// roles.assign("name:autoscaler.example".parse()?, "scaler")?;
/// roles.set_default("observer")?;
///
/// let mut registry = Registry::new();
/// roles.register(&mut registry);
/// # Ok::<(), qmp_server::RoleError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Roles {
    roles: Vec<Arc<Role>>,
    assigned: Vec<(Subject, Arc<Role>)>,
    default: Arc<Role>,
}

impl Default for Roles {
    fn default() -> Roles {
        let admin = Arc::new(Role::admin());
        let roles =
            vec![Arc::new(Role::observer()), Arc::new(Role::operator()), Arc::clone(&admin)];
        Roles { roles, assigned: Vec::new(), default: admin }
    }
}

/// A role cannot be made or given.
///
/// ```
/// use qmp_server::{RoleError, Roles};
///
/// let error = Roles::default().set_default("janitor").unwrap_err();
/// assert!(matches!(&error, RoleError::Unknown { name, .. } if name == "janitor"));
/// assert_eq!(error.to_string(), "there is no role 'janitor', only observer, operator, admin");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// There is no role of this name.
    #[error("there is no role '{name}', only {}", known.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The names of the roles that there are.
        known: Vec<String>,
    },
    /// There is a role of this name already.
    #[error("there is a role '{0}' already")]
    Duplicate(String),
    /// Roles cannot be called this.
    #[error("'{0}' is no name for a role: letters, digits, '-' and '_'")]
    Name(String),
    /// No command or event could match this.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// This does not say who is to have a role.
    #[error("'{text}': {reason}")]
    Subject {
        /// What was said.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// These clients have a role already.
    #[error("'{subject}' has a role already, '{role}'")]
    Assigned {
        /// Who was to get a role.
        subject: Subject,
        /// The name of the role that they have.
        role: String,
    },
}

impl Roles {
    /// Adds a role.
    ///
    /// ```
    /// use qmp_server::{Role, RoleError, Roles};
    ///
    /// let mut roles = Roles::default();
    /// roles.add(Role::new("backup")?)?;
    /// let again = roles.add(Role::new("backup")?);
    /// assert_eq!(again, Err(RoleError::Duplicate("backup".to_owned())));
    /// # Ok::<(), RoleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RoleError::Duplicate`] if there is one of that name.
    pub fn add(&mut self, role: Role) -> Result<(), RoleError> {
        if self.find(role.name()).is_ok() {
            return Err(RoleError::Duplicate(role.name().to_owned()));
        }
        self.roles.push(Arc::new(role));
        Ok(())
    }

    /// The role of this name, such as one that a [`Listen`](crate::Listen) names.
    ///
    /// # Errors
    ///
    /// [`RoleError::Unknown`] if there is none.
    pub fn find(&self, name: &str) -> Result<&Role, RoleError> {
        self.shared(name).map(|role| &**role)
    }

    /// Whether the role of a client may depend on the groups of its user. Then [`Server::look_up_groups`] is advised:
    /// otherwise they are looked up while the client connects, which may take long.
    ///
    /// [`Server::look_up_groups`]: crate::Server::look_up_groups
    pub fn depend_on_groups(&self) -> bool {
        self.assigned.iter().any(|(subject, _)| subject.is_of_group())
    }

    /// Gives a role to some clients.
    ///
    /// ```
    /// use qmp_server::{RoleError, Roles};
    ///
    /// let mut roles = Roles::default();
    /// roles.assign("user:0".parse()?, "operator")?;
    /// let again = roles.assign("user:root".parse()?, "admin");
    /// assert!(matches!(again, Err(RoleError::Assigned { role, .. }) if role == "operator"));
    /// # Ok::<(), RoleError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RoleError::Unknown`] if there is no role of that name, [`RoleError::Assigned`] if they have one.
    pub fn assign(&mut self, subject: Subject, role: &str) -> Result<(), RoleError> {
        let role = Arc::clone(self.shared(role)?);
        if let Some((_, given)) = self.assigned.iter().find(|(other, _)| *other == subject) {
            let role = given.name().to_owned();
            return Err(RoleError::Assigned { subject, role });
        }
        self.assigned.push((subject, role));
        Ok(())
    }

    /// Says which role clients have that no other is given to; `admin` unless this is called.
    ///
    /// # Errors
    ///
    /// [`RoleError::Unknown`] if there is no role of that name.
    pub fn set_default(&mut self, role: &str) -> Result<(), RoleError> {
        self.default = Arc::clone(self.shared(role)?);
        Ok(())
    }

    /// Gives all clients of a registry's servers their roles, but for those that have
    /// [been given](Registry::each_monitor) an `Arc<Role>` already. To be called once; what is returned can replace them.
    pub fn register(self, registry: &mut Registry) -> RolesInForce {
        let in_force = RolesInForce::new(self);
        let roles = in_force.clone();
        registry.each_monitor(move |locals| {
            let holder = Holder::new(&roles, &locals);
            // For as long as the client is connected: it would not learn that it gets no more.
            if let Some(notices) = locals.get::<Notices>()
                && holder.role().is_some_and(|role| role.has_notices())
            {
                notices.turn_on();
            }
            let [name, profile] = [holder.clone(), holder.clone()];
            let given = GivenRole::new(move || Some(name.role()?.name().into()));
            // A role may be replaced while the client is connected.
            let locals = with_profile(locals, move || profile.role()?.deadline_profile());
            locals.with(given).with(holder)
        });
        registry.intercept(Guard);
        in_force
    }

    fn shared(&self, name: &str) -> Result<&Arc<Role>, RoleError> {
        let role = self.roles.iter().find(|role| role.name() == name);
        role.ok_or_else(|| {
            let known = self.roles.iter().map(|role| role.name().to_owned()).collect();
            RoleError::Unknown { name: name.to_owned(), known }
        })
    }

    /// The role of a client; `None` if its listener names one that does not exist.
    fn role_of(&self, client: &Identity) -> Option<Arc<Role>> {
        if let Some(DoorRole(name)) = &client.door {
            return self.shared(name).ok().map(Arc::clone);
        }
        let assigned = client.peer.as_ref().and_then(|peer| {
            let groups = client.groups.as_ref();
            let mut assigned = self.assigned.iter();
            let user = assigned.clone().find(|(subject, _)| subject.is_user(peer));
            user.or_else(|| assigned.find(|(subject, _)| subject.is_group_or_name(peer, groups)))
        });
        Some(Arc::clone(assigned.map_or(&self.default, |(_, role)| role)))
    }
}

/// Makes clients obey their roles.
struct Guard;

impl Interceptor for Guard {
    fn connected(&self, monitor: &Monitor) {
        // Asked each time, because roles may be replaced. A client without one is one whose listener names a role that does
        // not exist: it may do nothing.
        let Some(holder) = monitor.local::<Holder>() else { return };
        let of_commands = holder.clone();
        monitor.add_command_filter(move |command| {
            of_commands.role().is_some_and(|role| role.allows_command(command))
        });
        let of_events = holder.clone();
        monitor.add_event_filter(move |event| {
            of_events.role().is_some_and(|role| role.allows_event(event))
        });
    }

    fn before(&self, call: &Call<'_>) -> ControlFlow<Result<Json, Error>> {
        let Some(role) = Role::of(call.monitor) else { return ControlFlow::Continue(()) };
        // All else that is wrong with a request comes first: that is for the dispatcher.
        let is_next = call.monitor.is_negotiated() && role.allows_command(&call.request.command);
        if is_next && !role.adds_monitors() && adds_monitor(call.request) {
            let desc = format!("Clients of the role '{}' may not add a monitor", role.name());
            return ControlFlow::Break(Err(Error::generic(desc)));
        }
        ControlFlow::Continue(())
    }

    fn after(&self, call: &Call<'_>, outcome: &mut Result<Json, Error>, _: Duration) {
        let (Some(role), Ok(result)) = (Role::of(call.monitor), outcome) else { return };
        let Some(introspected) = Introspected::of(&call.request.command) else { return };
        if !role.allows_all_commands() || !role.allows_all_events() {
            *result = role.shown(introspected, result);
        }
    }
}

#[cfg(test)]
mod tests {
    use qmp_dispatch::{Context, Forwarded, LocalClient, Locals, Responder};

    use super::*;
    use crate::transport::CertificateName;
    use crate::{DeadlineProfile, Peer};

    fn process(uid: u32, gid: u32) -> Peer {
        Peer::Process { pid: 1, uid, gid }
    }

    fn roles() -> Roles {
        let mut roles = Roles::default();
        for (subject, role) in [
            ("group:4712", "operator"),
            ("user:4711", "admin"),
            ("name:b.example", "operator"),
            ("name:a.example", "admin"),
        ] {
            roles.assign(subject.parse().unwrap(), role).unwrap();
        }
        roles.set_default("observer").unwrap();
        roles
    }

    #[track_caller]
    fn check(peer: Peer, expected: &str) {
        let role = roles().role_of(&Identity::of(&Locals::default().with(peer))).unwrap();
        assert_eq!(role.name(), expected);
    }

    #[test]
    fn clients_have_the_role_of_their_user_group_or_name() {
        check(process(4711, 4712), "admin");
        check(process(1, 4712), "operator");
        check(process(1, 1), "observer");
        let with = |names: &[CertificateName]| Peer::Certificate {
            names: names.to_vec(),
            address: "::1".to_owned(),
        };
        let [a, b] = ["a.example", "b.example"].map(str::to_owned);
        let common = CertificateName::Common(b.clone());
        check(with(&[CertificateName::Dns(a.clone()), common]), "operator");
        check(with(&[CertificateName::Dns(a.clone())]), "admin");
        check(with(&[CertificateName::Uri(a), CertificateName::Uri(b)]), "observer");
        check(with(&[]), "observer");
        check(Peer::Starter, "observer");
    }

    #[test]
    fn the_door_goes_before_who_comes_through_it() {
        let locals =
            |door: &str| Locals::default().with(process(4711, 1)).with(DoorRole(door.into()));
        assert_eq!(roles().role_of(&Identity::of(&locals("operator"))).unwrap().name(), "operator");
        assert!(roles().role_of(&Identity::of(&locals("janitor"))).is_none());
    }

    #[test]
    fn a_role_has_deadlines_unless_the_door_has_others() {
        let after = |door: Option<DeadlineProfile>| {
            let forward = |_: &Context, _: Forwarded, responder: Responder<Json>| {
                // Not answered, and not dropped.
                std::mem::forget(responder);
            };
            let mut registry = Registry::forwarding(forward);
            let mut role = Role::based_on("patient", Role::admin()).unwrap();
            role.set_deadline_profile(DeadlineProfile::Qemu);
            let derived = Role::based_on("derived", role).unwrap();
            let mut roles = Roles::default();
            roles.add(derived).unwrap();
            roles.set_default("derived").unwrap();
            roles.register(&mut registry);
            registry.each_monitor(|locals| DeadlineProfile::Off.given_to(locals));
            let locals = Locals::default();
            let locals = match door {
                Some(profile) => profile.given_to(locals),
                None => locals,
            };
            let client = LocalClient::new_with(registry, locals);
            client.send("{'execute': 'query-status'}");
            client.advance(Duration::from_secs(29));
            assert!(client.received().is_empty());
            client.advance(Duration::from_secs(1));
            client.received()
        };
        assert!(
            after(None)[0].contains("The command query-status was not answered within 30 seconds")
        );
        assert!(after(Some(DeadlineProfile::Off)).is_empty());
    }

    #[test]
    fn who_has_no_role_may_do_nothing() {
        let mut registry = Registry::new();
        registry.each_monitor(|locals| locals.with(DoorRole("janitor".into())));
        roles().register(&mut registry);
        let client = LocalClient::new(registry);
        let said = client.ask("{'execute': 'query-version'}");
        assert!(said[0].contains("The command query-version has been disabled"), "{said:?}");
        assert!(!client.monitor().accepts_event("STOP"));
    }

    #[test]
    fn mistakes_are_named() {
        let mut roles = roles();
        assert_eq!(
            roles.set_default("janitor").unwrap_err().to_string(),
            "there is no role 'janitor', only observer, operator, admin"
        );
        assert_eq!(
            roles.add(Role::new("admin").unwrap()).unwrap_err().to_string(),
            "there is a role 'admin' already"
        );
        assert_eq!(
            roles.assign("user:4711".parse().unwrap(), "observer").unwrap_err().to_string(),
            "'user:4711' has a role already, 'admin'"
        );
    }
}
