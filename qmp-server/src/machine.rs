// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference machine: a simulated guest that a QMP client can drive like QEMU's `-machine none`.
//!
//! It has a run state, a name, descriptors, trace points and sockets that can be yanked, with the
//! arguments, results, errors, events and rules of QEMU, but no devices and no guest.

mod descriptor_commands;
mod human;
mod identity;
mod run_state;
mod trace_commands;
mod yank;

use std::sync::Arc;

use qmp_dispatch::proto::Dialect;
use qmp_dispatch::{RegisterError, Registry};

use crate::TracePoints;

pub use run_state::{SHUTDOWN, Shutdown, ShutdownCause};

/// What a reference machine is started with.
///
/// ```
/// use qmp_dispatch::Registry;
/// use qmp_server::{MachineOptions, register_machine};
///
/// let mut registry = Registry::new();
/// let mut options = MachineOptions::default();
/// options.name = Some("vm1".into());
/// register_machine(&mut registry, options)?;
/// assert!(registry.find_command("system_reset").is_some());
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MachineOptions {
    /// What `query-name` reports.
    pub name: Option<String>,
    /// What `query-uuid` reports; all zeros if there is none.
    pub uuid: Option<String>,
    /// Whether the machine waits for `cont`, in run state `prelaunch`; QEMU's `-S`.
    pub paused: bool,
    /// The QEMU whose commands and types the machine has.
    pub dialect: Dialect,
    /// What the trace commands switch.
    pub trace_points: Arc<TracePoints>,
}

/// Registers the commands and events of a new reference machine.
///
/// # Errors
///
/// [`RegisterError`] if the registry has a command or event of the same name already.
///
/// ```
/// use qmp_dispatch::{LocalClient, Registry};
/// use qmp_server::{MachineOptions, register_machine};
///
/// let mut registry = Registry::new();
/// register_machine(&mut registry, MachineOptions::default())?;
/// let said = LocalClient::new(registry).ask("{'execute': 'query-status'}");
/// assert_eq!(said, [r#"{"return": {"status": "running", "running": true}}"#]);
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
pub fn register_machine(
    registry: &mut Registry,
    options: MachineOptions,
) -> Result<(), RegisterError> {
    let identity = Arc::new(identity::Identity::new(options.name, options.uuid));
    let run_state = Arc::new(run_state::Machine::new(options.paused));
    identity::register(registry, options.dialect, &identity)?;
    run_state::register(registry, &run_state)?;
    descriptor_commands::register(registry)?;
    yank::register(registry)?;
    trace_commands::register(registry, &options.trace_points)?;
    human::register(registry, identity, run_state)
}
