// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the machine runs, and what stops it: `query-status`, `stop`, `cont`, `system_*`, `quit`,
//! `set-action`, `watchdog-set-action`. Mirrors `qapi/run-state.json` and `system/runstate.c`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, EmitError, EventType, RegisterError, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;

const STOP: EventType<()> = EventType::new("STOP");
const RESUME: EventType<()> = EventType::new("RESUME");
const POWERDOWN: EventType<()> = EventType::new("POWERDOWN");
const RESET: EventType<Reset> = EventType::new("RESET");
/// Tells that the machine, or a program without one, shuts down. The reference machine declares it;
/// a program with commands of its own declares and emits it by itself, when somebody has said `quit`.
///
/// ```
/// use qmp_dispatch::{Context, LocalClient, Registry};
/// use qmp_server::{SHUTDOWN, Shutdown, ShutdownCause};
///
/// let mut registry = Registry::new();
/// registry.event(&SHUTDOWN)?;
/// registry.command("quit", |context: &Context| {
///     context.emit(&SHUTDOWN, &Shutdown { guest: false, reason: ShutdownCause::HostQmpQuit })
/// })?;
/// let said = LocalClient::new(registry).ask("{'execute': 'quit'}");
/// assert!(said[0].contains(r#""data": {"guest": false, "reason": "host-qmp-quit"}"#));
/// assert_eq!(said[1], r#"{"return": {}}"#);
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
pub const SHUTDOWN: EventType<Shutdown> = EventType::new("SHUTDOWN");

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "this machine is in four of these states, QEMU's can be in all")]
pub(super) enum RunState {
    Debug,
    Inmigrate,
    InternalError,
    IoError,
    Paused,
    Postmigrate,
    Prelaunch,
    FinishMigrate,
    RestoreVm,
    Running,
    SaveVm,
    Shutdown,
    Suspended,
    Watchdog,
    GuestPanicked,
    Colo,
}

/// The name, as in QAPI.
impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Why a machine is reset or shut down, as QAPI's `ShutdownCause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ShutdownCause {
    /// Nothing: the machine is not being shut down.
    None,
    /// An error on the host.
    HostError,
    /// The command `quit`.
    HostQmpQuit,
    /// The command `system_reset`.
    HostQmpSystemReset,
    /// A signal to the process.
    HostSignal,
    /// Somebody at the user interface, by closing the window for example.
    HostUi,
    /// The guest, by ACPI or another device.
    GuestShutdown,
    /// The guest's reset, of a machine that shuts down instead.
    GuestReset,
    /// The guest's panic, of a machine that shuts down then.
    GuestPanic,
    /// The reset of a part of the guest, of which clients are not told.
    SubsystemReset,
    /// The state of the machine being replaced by that of a snapshot.
    SnapshotLoad,
}

/// The data of [`SHUTDOWN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Shutdown {
    /// Whether the guest wanted it, and not somebody on the host.
    pub guest: bool,
    /// Why.
    pub reason: ShutdownCause,
}

#[derive(Serialize, JsonSchema)]
struct Reset {
    guest: bool,
    reason: ShutdownCause,
}

#[derive(Serialize, JsonSchema)]
#[schemars(extend("x-qapi-order" = ["running", "status"]))]
struct StatusInfo {
    status: RunState,
    running: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum RebootAction {
    Reset,
    Shutdown,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum ShutdownAction {
    Poweroff,
    Pause,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum PanicAction {
    Pause,
    Shutdown,
    ExitFailure,
    None,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum WatchdogAction {
    Reset,
    Shutdown,
    Poweroff,
    Pause,
    Debug,
    None,
    InjectNmi,
}

#[derive(Deserialize, JsonSchema)]
struct SetAction {
    reboot: Option<RebootAction>,
    shutdown: Option<ShutdownAction>,
    #[expect(dead_code, reason = "there is no guest that could panic")]
    panic: Option<PanicAction>,
    #[expect(dead_code, reason = "there is no watchdog")]
    watchdog: Option<WatchdogAction>,
}

#[derive(Deserialize, JsonSchema)]
struct WatchdogSetAction {
    #[expect(dead_code, reason = "there is no watchdog")]
    action: WatchdogAction,
}

/// The machine as far as it runs.
pub(super) struct Machine {
    state: Mutex<State>,
}

struct State {
    run_state: RunState,
    on_reboot: RebootAction,
    on_shutdown: ShutdownAction,
}

pub(super) fn register(
    registry: &mut Registry,
    machine: &Arc<Machine>,
) -> Result<(), RegisterError> {
    registry.event(&STOP)?;
    registry.event(&RESUME)?;
    registry.event(&POWERDOWN)?;
    registry.event(&RESET)?;
    registry.event(&SHUTDOWN)?;
    let mut group = registry.with(Arc::clone(machine));
    group.command("query-status", Machine::query_status)?;
    group.command("stop", Machine::stop)?;
    group.command("cont", Machine::cont)?;
    group.command("system_reset", Machine::system_reset)?;
    group.command("system_powerdown", Machine::system_powerdown)?;
    group.command("set-action", Machine::set_action)?;
    registry.command("watchdog-set-action", watchdog_set_action)?;
    registry.command("system_wakeup", system_wakeup)?;
    registry.command("quit", quit)?;
    Ok(())
}

impl Machine {
    pub(super) fn new(paused: bool) -> Machine {
        Machine {
            state: Mutex::new(State {
                run_state: if paused { RunState::Prelaunch } else { RunState::Running },
                on_reboot: RebootAction::Reset,
                on_shutdown: ShutdownAction::Poweroff,
            }),
        }
    }

    pub(super) fn run_state(&self) -> RunState {
        self.lock().run_state
    }

    fn query_status(&self, _: &Context) -> Result<StatusInfo, Error> {
        let status = self.run_state();
        Ok(StatusInfo { status, running: status == RunState::Running })
    }

    pub(super) fn stop(&self, context: &Context) -> Result<(), EmitError> {
        self.lock().stop(RunState::Paused, context)
    }

    pub(super) fn cont(&self, context: &Context) -> Result<(), Error> {
        let mut state = self.lock();
        match state.run_state {
            RunState::Running => Ok(()),
            RunState::Shutdown => Err(Error::generic("Resetting the Virtual Machine is required")),
            _ => {
                state.run_state = RunState::Running;
                Ok(context.emit(&RESUME, &())?)
            }
        }
    }

    pub(super) fn system_reset(&self, context: &Context) -> Result<(), EmitError> {
        let mut state = self.lock();
        let reason = ShutdownCause::HostQmpSystemReset;
        if state.on_reboot == RebootAction::Shutdown {
            context.emit(&SHUTDOWN, &Shutdown { guest: false, reason })?;
            return match state.on_shutdown {
                ShutdownAction::Pause => state.stop(RunState::Shutdown, context),
                ShutdownAction::Poweroff => {
                    end_server(context);
                    Ok(())
                }
            };
        }
        if state.run_state != RunState::Running {
            state.run_state = RunState::Prelaunch;
        }
        context.emit(&RESET, &Reset { guest: false, reason })
    }

    pub(super) fn system_powerdown(&self, context: &Context) -> Result<(), EmitError> {
        context.emit(&POWERDOWN, &())
    }

    fn set_action(&self, _: &Context, arguments: SetAction) -> Result<(), Error> {
        let mut state = self.lock();
        state.on_reboot = arguments.reboot.unwrap_or(state.on_reboot);
        state.on_shutdown = arguments.shutdown.unwrap_or(state.on_shutdown);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Leaves `running`, if that is the state, for another one.
    fn stop(&mut self, into: RunState, context: &Context) -> Result<(), EmitError> {
        if self.run_state != RunState::Running {
            return Ok(());
        }
        self.run_state = into;
        context.emit(&STOP, &())
    }
}

fn watchdog_set_action(_: &Context, _: WatchdogSetAction) -> Result<(), Error> {
    Ok(())
}

fn system_wakeup(_: &Context) -> Result<(), Error> {
    Err(Error::generic("wake-up from suspend is not supported by this guest"))
}

/// Ends the machine whatever `set-action` says.
pub(super) fn quit(context: &Context) -> Result<(), EmitError> {
    context.emit(&SHUTDOWN, &Shutdown { guest: false, reason: ShutdownCause::HostQmpQuit })?;
    end_server(context);
    Ok(())
}

fn end_server(context: &Context) {
    if let Some(control) = context.monitor().local::<Control>() {
        control.shutdown();
    }
}
