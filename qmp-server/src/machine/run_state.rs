// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the machine runs, and what stops it: `query-status`, `stop`, `cont`, `system_*`, `quit`,
//! `set-action`, `watchdog-set-action`. Mirrors `qapi/run-state.json` and `system/runstate.c`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, Dispatcher, EmitError, EventType, RegisterError, Registry, current};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;

const STOP: EventType<()> = EventType::new("STOP");
const RESUME: EventType<()> = EventType::new("RESUME");
const POWERDOWN: EventType<()> = EventType::new("POWERDOWN");
const RESET: EventType<Reset> = EventType::new("RESET");
/// Tells that the machine, or a program without one, shuts down. The reference machine declares it;
/// a program with commands of its own declares and emits it by itself, when somebody has said `quit`.
pub const SHUTDOWN: EventType<Shutdown> = EventType::new("SHUTDOWN");

/// Whether a machine runs, and why not, as QAPI's `RunState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunState {
    /// Stopped by a debugger.
    Debug,
    /// Waits for an incoming migration.
    Inmigrate,
    /// Stopped by an internal error; a reset is required.
    InternalError,
    /// Stopped by a failed request of a device.
    IoError,
    /// Stopped by `stop`.
    Paused,
    /// Migrated to another host.
    Postmigrate,
    /// Not started, or reset while stopped.
    Prelaunch,
    /// Stopped to finish a migration.
    FinishMigrate,
    /// Stopped to restore a snapshot.
    RestoreVm,
    /// Running.
    Running,
    /// Stopped to save a snapshot.
    SaveVm,
    /// Shut down, and kept; a reset is required.
    Shutdown,
    /// The guest has suspended itself.
    Suspended,
    /// Stopped by a watchdog.
    Watchdog,
    /// Stopped because the guest has panicked.
    GuestPanicked,
    /// Stopped for a checkpoint of COLO.
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

impl ShutdownCause {
    /// Whether the guest is the cause, which is the member `guest` of the events. Mirrors `shutdown_caused_by_guest()`.
    #[must_use]
    pub fn is_guest(self) -> bool {
        use ShutdownCause::{GuestPanic, GuestReset, GuestShutdown, SnapshotLoad, SubsystemReset};
        matches!(self, GuestShutdown | GuestReset | GuestPanic | SubsystemReset | SnapshotLoad)
    }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum RebootAction {
    Reset,
    Shutdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
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

/// What the embedder does when the run state changes, by a command or by a method of [`RunControl`].
///
/// The methods are called one at a time, while the run state is locked: they must not call methods of `RunControl`. By
/// default they do nothing, and `shutdown` ends the server; `()` is such a guest.
pub trait Guest: Send + Sync + 'static {
    /// Stops the processors; before `STOP`.
    fn stop(&self) {}

    /// Lets the processors run; after `RESUME`.
    fn resume(&self) {}

    /// Resets the machine; before `RESET`.
    fn reset(&self) {}

    /// Asks the guest to power down; after `POWERDOWN`.
    fn powerdown(&self) {}

    /// Ends the machine; after `SHUTDOWN`. By default ends the server whose client has asked for it, if one has.
    fn shutdown(&self, cause: ShutdownCause) {
        let _ = cause;
        let monitor = current();
        if let Some(control) = monitor.as_ref().and_then(|monitor| monitor.local::<Control>()) {
            control.shutdown();
        }
    }
}

impl Guest for () {}

/// The run state of a machine, which commands and the embedder change.
///
/// Each change is made once: its event is emitted and the [`Guest`] called in the same order for all. Mirrors
/// `system/runstate.c`.
///
/// ```
/// use std::sync::Arc;
///
/// use qmp_dispatch::{LocalClient, Registry};
/// use qmp_server::{Guest, RunControl, RunState, ShutdownCause, register_run_state};
///
/// struct Vcpus;
///
/// impl Guest for Vcpus {
///     fn stop(&self) { /* kick them out of KVM_RUN */ }
///     fn shutdown(&self, _: ShutdownCause) { /* end the main loop */ }
/// }
///
/// let run_control = Arc::new(RunControl::new(RunState::Running, Vcpus));
/// let mut registry = Registry::new();
/// register_run_state(&mut registry, &run_control)?;
/// let client = LocalClient::new(registry);
/// client.ask("{'execute': 'stop'}");
/// assert_eq!(run_control.run_state(), RunState::Paused);
///
/// // From the embedder's own code, when the guest has turned itself off:
/// let dispatcher = client.monitor().dispatcher();
/// run_control.shutdown(dispatcher, ShutdownCause::GuestShutdown).unwrap();
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
pub struct RunControl {
    /// Locked while an event is emitted and the guest is called, so that both see the changes in order.
    state: Mutex<MachineState>,
    guest: Box<dyn Guest>,
}

#[derive(Debug)]
struct MachineState {
    run_state: RunState,
    on_reboot: RebootAction,
    on_shutdown: ShutdownAction,
}

/// Registers the commands and events of a run state: `query-status`, `stop`, `cont`, `system_reset`, `system_powerdown`,
/// `system_wakeup`, `set-action`, `watchdog-set-action` and `quit`; `STOP`, `RESUME`, `POWERDOWN`, `RESET` and [`SHUTDOWN`].
///
/// An embedder that wants one of them otherwise removes it and registers its own.
///
/// # Errors
///
/// [`RegisterError`] if the registry has one of them already.
pub fn register_run_state(
    registry: &mut Registry,
    run_control: &Arc<RunControl>,
) -> Result<(), RegisterError> {
    registry.event(&STOP)?;
    registry.event(&RESUME)?;
    registry.event(&POWERDOWN)?;
    registry.event(&RESET)?;
    registry.event(&SHUTDOWN)?;
    let mut group = registry.with(Arc::clone(run_control));
    group.command("query-status", RunControl::query_status)?;
    group.command("stop", |run_control: &RunControl, context: &Context| {
        run_control.stop(context.dispatcher(), RunState::Paused)
    })?;
    group.command("cont", |run_control: &RunControl, context: &Context| {
        run_control.resume(context.dispatcher())
    })?;
    group.command("system_reset", RunControl::system_reset)?;
    group.command("system_powerdown", |run_control: &RunControl, context: &Context| {
        run_control.powerdown(context.dispatcher())
    })?;
    group.command("set-action", RunControl::set_action)?;
    registry.command("watchdog-set-action", watchdog_set_action)?;
    registry.command("system_wakeup", system_wakeup)?;
    registry.with(Arc::clone(run_control)).command("quit", RunControl::quit)?;
    Ok(())
}

impl RunControl {
    /// Creates the run state of a guest: [`RunState::Running`], or [`RunState::Prelaunch`] if it waits for `cont`.
    pub fn new(initial: RunState, guest: impl Guest) -> RunControl {
        RunControl {
            state: Mutex::new(MachineState {
                run_state: initial,
                on_reboot: RebootAction::Reset,
                on_shutdown: ShutdownAction::Poweroff,
            }),
            guest: Box::new(guest),
        }
    }

    /// Returns the current run state.
    pub fn run_state(&self) -> RunState {
        self.lock().run_state
    }

    /// Stops a running machine, which is in this state then, and emits `STOP`. Does nothing if it does not run. Mirrors `vm_stop()`.
    ///
    /// # Errors
    ///
    /// As [`Dispatcher::emit`].
    ///
    /// # Panics
    ///
    /// If the state is [`RunState::Running`].
    pub fn stop(&self, dispatcher: &Dispatcher, into: RunState) -> Result<(), EmitError> {
        assert_ne!(into, RunState::Running, "a machine that is stopped does not run");
        self.stop_locked(&mut self.lock(), dispatcher, into)
    }

    /// Lets the machine run, and emits `RESUME`. Does nothing if it runs. Mirrors `qmp_cont()`.
    ///
    /// # Errors
    ///
    /// An error if the machine must be reset before; as [`Dispatcher::emit`].
    pub fn resume(&self, dispatcher: &Dispatcher) -> Result<(), Error> {
        let mut state = self.lock();
        match state.run_state {
            RunState::Running => Ok(()),
            RunState::Shutdown | RunState::InternalError => {
                Err(Error::generic("Resetting the Virtual Machine is required"))
            }
            _ => {
                state.run_state = RunState::Running;
                dispatcher.emit(&RESUME, &())?;
                self.guest.resume();
                Ok(())
            }
        }
    }

    /// Resets the machine, which does not start for that, and emits `RESET`; after `set-action` with `reboot=shutdown`,
    /// [shuts it down](RunControl::shutdown). Of a part's reset (`SubsystemReset`) and a snapshot's (`SnapshotLoad`), clients
    /// are not notified. Mirrors `qemu_system_reset_request()`.
    ///
    /// # Errors
    ///
    /// As [`Dispatcher::emit`].
    pub fn reset(&self, dispatcher: &Dispatcher, cause: ShutdownCause) -> Result<(), EmitError> {
        let mut state = self.lock();
        if state.on_reboot == RebootAction::Shutdown && cause != ShutdownCause::SubsystemReset {
            return self.shutdown_locked(&mut state, dispatcher, cause);
        }
        if state.run_state != RunState::Running {
            state.run_state = RunState::Prelaunch;
        }
        self.guest.reset();
        match cause {
            ShutdownCause::None | ShutdownCause::SubsystemReset | ShutdownCause::SnapshotLoad => {
                Ok(())
            }
            reason => dispatcher.emit(&RESET, &Reset { guest: reason.is_guest(), reason }),
        }
    }

    /// Asks the guest to power down, and emits `POWERDOWN`.
    ///
    /// # Errors
    ///
    /// As [`Dispatcher::emit`].
    pub fn powerdown(&self, dispatcher: &Dispatcher) -> Result<(), EmitError> {
        let _state = self.lock();
        dispatcher.emit(&POWERDOWN, &())?;
        self.guest.powerdown();
        Ok(())
    }

    /// Emits [`SHUTDOWN`] and ends the machine; after `set-action` with `shutdown=pause`, only stops it, unless `quit` or a signal
    /// is the cause. Mirrors `qemu_system_shutdown_request()`.
    ///
    /// # Errors
    ///
    /// As [`Dispatcher::emit`].
    pub fn shutdown(&self, dispatcher: &Dispatcher, cause: ShutdownCause) -> Result<(), EmitError> {
        self.shutdown_locked(&mut self.lock(), dispatcher, cause)
    }

    pub(super) fn system_reset(&self, context: &Context) -> Result<(), EmitError> {
        self.reset(context.dispatcher(), ShutdownCause::HostQmpSystemReset)
    }

    pub(super) fn quit(&self, context: &Context) -> Result<(), EmitError> {
        self.shutdown(context.dispatcher(), ShutdownCause::HostQmpQuit)
    }

    fn query_status(&self, _: &Context) -> Result<StatusInfo, Error> {
        let status = self.run_state();
        Ok(StatusInfo { status, running: status == RunState::Running })
    }

    fn set_action(&self, _: &Context, arguments: SetAction) -> Result<(), Error> {
        let mut state = self.lock();
        state.on_reboot = arguments.reboot.unwrap_or(state.on_reboot);
        state.on_shutdown = arguments.shutdown.unwrap_or(state.on_shutdown);
        Ok(())
    }

    fn stop_locked(
        &self,
        state: &mut MachineState,
        dispatcher: &Dispatcher,
        into: RunState,
    ) -> Result<(), EmitError> {
        if state.run_state != RunState::Running {
            return Ok(());
        }
        self.guest.stop();
        state.run_state = into;
        dispatcher.emit(&STOP, &())
    }

    fn shutdown_locked(
        &self,
        state: &mut MachineState,
        dispatcher: &Dispatcher,
        reason: ShutdownCause,
    ) -> Result<(), EmitError> {
        dispatcher.emit(&SHUTDOWN, &Shutdown { guest: reason.is_guest(), reason })?;
        let ends = matches!(reason, ShutdownCause::HostQmpQuit | ShutdownCause::HostSignal);
        if state.on_shutdown == ShutdownAction::Pause && !ends {
            return self.stop_locked(state, dispatcher, RunState::Shutdown);
        }
        self.guest.shutdown(reason);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, MachineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RunControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunControl").field("state", &*self.lock()).finish_non_exhaustive()
    }
}

fn watchdog_set_action(_: &Context, _: WatchdogSetAction) -> Result<(), Error> {
    Ok(())
}

fn system_wakeup(_: &Context) -> Result<(), Error> {
    Err(Error::generic("wake-up from suspend is not supported by this guest"))
}
