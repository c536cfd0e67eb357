// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference machine: a simulated guest that a QMP client can drive like QEMU's `-machine none`.
//!
//! It has a run state, a name, descriptors, trace points and sockets that can be yanked, with the
//! arguments, results, errors, events and rules of QEMU, but no devices and no guest. It is made of parts, each of
//! which an embedder can register by itself.

mod descriptor_commands;
mod human;
mod identity;
mod preconfig;
mod run_state;
#[cfg(test)]
mod tests;
mod trace_commands;
mod yank;

use std::sync::Arc;

use qmp_dispatch::proto::Dialect;
use qmp_dispatch::{RegisterError, Registry};

use crate::TracePoints;

pub use descriptor_commands::{FdSets, register_descriptors, register_fd_sets};
pub use preconfig::register_preconfig;
pub use run_state::{
    Guest, RunControl, RunState, SHUTDOWN, Shutdown, ShutdownCause, register_run_state,
};
pub use trace_commands::register_trace_points;
pub use yank::{Yank, YankInstance, register_yank};

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
pub fn register_machine(
    registry: &mut Registry,
    options: MachineOptions,
) -> Result<(), RegisterError> {
    let identity = Arc::new(identity::MachineIdentity::new(options.name, options.uuid));
    let initial = if options.paused { RunState::Prelaunch } else { RunState::Running };
    let run_control = Arc::new(RunControl::new(initial, ()));
    identity::register(registry, options.dialect, &identity)?;
    register_run_state(registry, &run_control)?;
    register_descriptors(registry)?;
    register_fd_sets(registry, &Arc::default())?;
    register_yank(registry, &Arc::default())?;
    register_trace_points(registry, &options.trace_points)?;
    human::register(registry, identity, run_control)
}
