// SPDX-License-Identifier: MIT OR Apache-2.0
//! Another program of the same process, or of the same service, goes on with everything: an upgrade that nobody notices.
//!
//! *In place*: the process executes its program anew, from the file that it was started from. *At a restart*: the service
//! manager stores the descriptors, and passes them to the next process.

use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::execve;
use qmp_server::{Frozen, Handover};
use rustix::io::{FdFlags, fcntl_setfd};

use super::Host;
use super::control::Operators;
use super::machine::Machine;
use super::orders::MachineAdd;
use crate::Failure;
use crate::log::Guard;
use crate::notify;

/// What a hand-over waits for, at most: a descriptor that is on its way to QEMU, and commands that run.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the new program may take to look at its configuration.
const REHEARSAL: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Has the process and the descriptor, behind a colon, that a program takes over from.
const VARIABLE: &str = "QMP_SERVER_HAND_OVER";

/// The first of the descriptors that a service manager passes.
const FIRST_PASSED: RawFd = 3;

/// What another program has handed over to this one, if one has. To be called before anything is opened.
pub(super) fn received() -> Option<Handover> {
    let (descriptors, stored) = match in_place() {
        Some(descriptor) => (vec![descriptor], false),
        None => (stored(), true),
    };
    if descriptors.is_empty() {
        return None;
    }
    let received = Handover::receive(&descriptors);
    if stored {
        notify::remove_stored();
    }
    match received {
        Ok(handover) => {
            tracing::info!("another program has handed over");
            Some(handover)
        }
        Err(error) => {
            tracing::error!(%error, "what another program has handed over is lost, and its clients are disconnected");
            None
        }
    }
}

fn in_place() -> Option<RawFd> {
    let value = env::var(VARIABLE).ok()?;
    let (process, descriptor) = value.split_once(':')?;
    // A program that was started by one that had taken over has the variable, too.
    (process.parse() == Ok(std::process::id())).then(|| descriptor.parse().ok()).flatten()
}

fn stored() -> Vec<RawFd> {
    let variable = |name| env::var(name).unwrap_or_default();
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        return Vec::new();
    }
    let names = variable("LISTEN_FDNAMES");
    let named = (FIRST_PASSED..).zip(names.split(':'));
    named.filter(|(_, name)| *name == Handover::STORE_NAME).map(|(number, _)| number).collect()
}

impl Host {
    /// Goes on with machines that another program's operators have added. What is still left then is closed.
    pub(super) fn take_over(&mut self) {
        let handed_over = self.fleet.handed_over.as_ref();
        let added = handed_over.map(|handover| serde_json::from_str(handover.program()));
        let added: Vec<String> = added.transpose().unwrap_or_default().unwrap_or_default();
        for said in added {
            let new = serde_json::from_str::<MachineAdd>(&said).map_err(Failure::usage);
            let machine = new.and_then(|new| Machine::of_order(&new, &self.options));
            let served = machine.and_then(|machine| {
                self.fleet.add(machine, &self.options)?;
                Ok(())
            });
            if let Err(failure) = served {
                tracing::error!(said, "a machine is not served: {}", failure.what());
            }
        }
        self.look();
        for name in self.fleet.handed_over.take().iter().flat_map(Handover::names) {
            tracing::warn!(machine = name, "a machine that was handed over is not served any more");
        }
    }

    /// Executes the program anew. Comes back only if that is not possible; then everything goes on.
    pub(super) fn upgrade(&mut self, log: &Guard) {
        tracing::info!("SIGUSR2: the program is executed anew");
        match self.execute(log) {
            Ok(never) => match never {},
            Err(error) => tracing::error!(%error, "SIGUSR2: this program goes on"),
        }
    }

    fn execute(&mut self, log: &Guard) -> io::Result<Infallible> {
        let arguments: Vec<OsString> = env::args_os().collect();
        rehearse(&arguments)?;
        let frozen = self.freeze()?;
        let [socket, _] = frozen.sockets();
        let variable = format!("{VARIABLE}={}:{}", std::process::id(), socket.as_raw_fd());
        let mut variables = vec![CString::new(variable)?];
        for (name, value) in env::vars_os().filter(|(name, _)| name != VARIABLE) {
            let assigned = [name.into_vec(), value.into_vec()].join(&b'=');
            variables.push(CString::new(assigned)?);
        }
        let program = CString::new(program(&arguments)?.into_vec())?;
        let arguments = arguments.into_iter().map(|argument| CString::new(argument.into_vec()));
        let arguments: Vec<CString> = arguments.collect::<Result<_, _>>()?;
        log.flush();
        fcntl_setfd(socket, FdFlags::empty())?;
        frozen.end_left_behind();
        // Signals stay held, and those that have come wait for the new program.
        Ok(execve(&program, &arguments, &variables)?)
    }

    /// Leaves everything to the service manager's store, unless that fails. The program ends with that.
    pub(super) fn store(&mut self) -> bool {
        let stored = self.freeze().and_then(|frozen| {
            notify::store(&frozen.sockets())?;
            frozen.end_left_behind();
            // It is the next program's now. If this one went on for a moment, both would read what clients send.
            std::mem::forget(frozen);
            Ok(())
        });
        if let Err(error) = &stored {
            tracing::error!(%error, "SIGTERM: nothing is handed over");
        }
        stored.is_ok()
    }

    fn freeze(&mut self) -> io::Result<Frozen> {
        // What operators have asked for so far is answered first.
        self.look();
        let frozen = self.fleet.freeze(self.control.as_ref().map(Operators::server), PATIENCE)?;
        for who in frozen.left_behind() {
            tracing::warn!("{who} cannot be handed over, and is disconnected");
        }
        self.fleet.audits().flush();
        Ok(frozen)
    }

    /// What is served, in a few words.
    pub(super) fn summary(&self) -> String {
        self.fleet.summary()
    }
}

/// The file to execute: that which the program was started from, if that was said with its path, or the one that is in its place
/// now.
fn program(arguments: &[OsString]) -> io::Result<OsString> {
    if let Some(said) = arguments.first().filter(|said| said.as_bytes().contains(&b'/')) {
        return Ok(said.clone());
    }
    let mut path = env::current_exe()?.into_os_string().into_vec();
    // So Linux says when there is another file.
    if let Some(rest) = path.strip_suffix(b" (deleted)") {
        path.truncate(rest.len());
    }
    Ok(OsString::from_vec(path))
}

/// Has the new program look at its configuration, and say whether it understands what it would be handed.
fn rehearse(arguments: &[OsString]) -> io::Result<()> {
    let program = program(arguments)?;
    let arguments = arguments.get(1..).unwrap_or_default();
    // Behind the subcommand: what follows the last argument may be another program's.
    let (subcommand, rest) = arguments.split_at(arguments.len().min(1));
    let mut command = Command::new(program);
    command.args(subcommand).arg("--check-config");
    command.arg(format!("--hand-over-format={}", Handover::FORMAT)).args(rest);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    let ended = wait(&mut child, REHEARSAL);
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    match ended? {
        true => Ok(()),
        false => {
            Err(io::Error::other("the new program refuses its configuration, or to take over"))
        }
    }
}

/// Waits for a program. Whether it has succeeded.
fn wait(child: &mut Child, at_most: Duration) -> io::Result<bool> {
    let until = Instant::now() + at_most;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= until {
            let error =
                format!("the new program has not looked at its configuration for {at_most:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
