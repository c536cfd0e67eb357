// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roles that can be replaced while clients are connected.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_dispatch::{Locals, Monitor};

use super::{Role, Roles};
use crate::Peer;
use crate::access::{DoorRole, Groups};

/// The roles of a registry's clients, from [`Roles::register`], which can be replaced while clients are connected.
///
/// ```
/// use qmp_dispatch::{LocalClient, Registry};
/// use qmp_server::{MachineOptions, Roles, register_machine};
///
/// let mut registry = Registry::new();
/// register_machine(&mut registry, MachineOptions::default())?;
/// let in_force = Roles::default().register(&mut registry);
/// let client = LocalClient::new(registry);
/// assert_eq!(client.ask("{'execute': 'stop'}").last().unwrap(), r#"{"return": {}}"#);
///
/// let mut roles = Roles::default();
/// roles.set_default("observer")?;
/// in_force.replace(roles);
/// let said = client.ask("{'execute': 'cont'}");
/// assert!(said[0].contains("The command cont has been disabled for this instance"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RolesInForce(Arc<InForce>);

struct InForce {
    /// How often roles were replaced: what was found before is found anew. Changed with `roles` locked.
    number: AtomicU64,
    roles: Mutex<Arc<Roles>>,
}

impl RolesInForce {
    pub(super) fn new(roles: Roles) -> RolesInForce {
        let roles = Mutex::new(Arc::new(roles));
        RolesInForce(Arc::new(InForce { number: AtomicU64::new(0), roles }))
    }

    /// Puts other roles in the place of these. They hold for each client from its next command, and the next event, on; requests
    /// that have been executed in part are finished. Clients of a [listener](crate::Listen::role) with a role that there is
    /// no more may do nothing.
    pub fn replace(&self, roles: Roles) {
        let mut current = lock(&self.0.roles);
        *current = Arc::new(roles);
        self.0.number.fetch_add(1, Ordering::SeqCst);
    }

    fn current(&self) -> (u64, Arc<Roles>) {
        let roles = lock(&self.0.roles);
        (self.0.number.load(Ordering::SeqCst), Arc::clone(&roles))
    }
}

impl fmt::Debug for RolesInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RolesInForce").field(&self.current().1).finish()
    }
}

/// What the role of a client follows from. It stays while the client is connected.
pub(super) struct Identity {
    pub(super) door: Option<DoorRole>,
    pub(super) peer: Option<Peer>,
    pub(super) groups: Option<Groups>,
}

impl Identity {
    pub(super) fn of(locals: &Locals) -> Identity {
        Identity {
            door: locals.get().cloned(),
            peer: locals.get().cloned(),
            groups: locals.get().cloned(),
        }
    }
}

/// The role that one client has. A local of its monitor.
#[derive(Clone)]
pub(super) struct Holder(Arc<HeldRole>);

enum HeldRole {
    /// The embedder has said so.
    Always(Arc<Role>),
    Found {
        in_force: RolesInForce,
        client: Identity,
        /// Which role that is of the roles with this number.
        found: Mutex<(u64, Option<Arc<Role>>)>,
    },
}

impl Holder {
    pub(super) fn new(in_force: &RolesInForce, locals: &Locals) -> Holder {
        if let Some(own) = locals.get::<Arc<Role>>() {
            return Holder(Arc::new(HeldRole::Always(Arc::clone(own))));
        }
        let client = Identity::of(locals);
        let (number, roles) = in_force.current();
        let found = Mutex::new((number, roles.role_of(&client)));
        Holder(Arc::new(HeldRole::Found { in_force: in_force.clone(), client, found }))
    }

    /// `None` if there is no such role as the client's listener names.
    pub(super) fn role(&self) -> Option<Arc<Role>> {
        let (in_force, client, found) = match &*self.0 {
            HeldRole::Always(role) => return Some(Arc::clone(role)),
            HeldRole::Found { in_force, client, found } => (in_force, client, found),
        };
        let mut found = lock(found);
        if found.0 != in_force.0.number.load(Ordering::SeqCst) {
            let (number, roles) = in_force.current();
            *found = (number, roles.role_of(client));
        }
        found.1.clone()
    }
}

impl Role {
    /// Returns the role of a client. `None` if no [`Roles`](super::Roles) were registered: the client may do anything.
    ///
    /// ```
    /// use qmp_dispatch::proto::Error;
    /// use qmp_dispatch::{Context, LocalClient, Registry};
    /// use qmp_server::{Role, Roles};
    ///
    /// let mut registry = Registry::new();
    /// registry.command("x-role", |context: &Context| {
    ///     let role = Role::of(context.monitor());
    ///     Ok::<_, Error>(role.map_or(String::new(), |role| role.name().to_owned()))
    /// })?;
    /// Roles::default().register(&mut registry);
    /// let client = LocalClient::new(registry);
    /// assert_eq!(client.ask("{'execute': 'x-role'}"), [r#"{"return": "admin"}"#]);
    /// # Ok::<(), qmp_dispatch::RegisterError>(())
    /// ```
    pub fn of(monitor: &Monitor) -> Option<Arc<Role>> {
        monitor.local().and_then(Holder::role)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
