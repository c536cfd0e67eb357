// SPDX-License-Identifier: MIT OR Apache-2.0
//! `human-monitor-command`, with a few of the commands that people type most.

use std::sync::Arc;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};
use schemars::JsonSchema;
use serde::Deserialize;

use super::identity::MachineIdentity;
use super::run_state::{RunControl, RunState};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
struct HumanMonitorCommand {
    command_line: String,
    cpu_index: Option<i64>,
}

/// The human monitor. What goes wrong in it is part of what it prints.
struct HumanMonitor {
    identity: Arc<MachineIdentity>,
    run_control: Arc<RunControl>,
}

pub(super) fn register(
    registry: &mut Registry,
    identity: Arc<MachineIdentity>,
    run_control: Arc<RunControl>,
) -> Result<(), RegisterError> {
    let mut group = registry.with(Arc::new(HumanMonitor { identity, run_control }));
    group
        .command("human-monitor-command", HumanMonitor::human_monitor_command)?
        .feature("savevm-monitor-nodes");
    Ok(())
}

impl HumanMonitor {
    fn human_monitor_command(
        &self,
        context: &Context,
        arguments: HumanMonitorCommand,
    ) -> Result<String, Error> {
        if arguments.cpu_index.is_some() {
            // The machine has none.
            return Err(Error::generic("Parameter 'cpu-index' expects a CPU number"));
        }
        Ok(match self.run(context, &arguments.command_line) {
            Ok(lines) => lines,
            Err(error) => format!("Error: {}\r\n", error.desc),
        })
    }

    fn run(&self, context: &Context, command_line: &str) -> Result<String, Error> {
        let words: Vec<&str> = command_line.split_ascii_whitespace().collect();
        let line = match words[..] {
            [] => return Ok(String::new()),
            ["info", "name"] => match self.identity.name() {
                Some(name) => name.to_owned(),
                None => return Ok(String::new()),
            },
            ["info", "uuid"] => self.identity.uuid().to_owned(),
            ["info", "kvm"] => "kvm support: disabled".to_owned(),
            ["info", "version"] => {
                let version = context.dispatcher().version();
                let numbers = version.qemu;
                format!("{}.{}.{}{}", numbers.major, numbers.minor, numbers.micro, version.package)
            }
            ["info", "status"] => match self.run_control.run_state() {
                RunState::Running => "VM status: running".to_owned(),
                RunState::Paused => "VM status: paused".to_owned(),
                state => format!("VM status: paused ({state})"),
            },
            ["stop" | "s"] => {
                return silent(self.run_control.stop(context.dispatcher(), RunState::Paused));
            }
            ["cont" | "c"] => return silent(self.run_control.resume(context.dispatcher())),
            ["system_reset"] => return silent(self.run_control.system_reset(context)),
            ["system_powerdown"] => {
                return silent(self.run_control.powerdown(context.dispatcher()));
            }
            ["quit" | "q"] => return silent(self.run_control.quit(context)),
            ["info", item @ ("name" | "uuid" | "kvm" | "version" | "status"), ..] => {
                extraneous(item, "info ")
            }
            [
                command @ ("stop" | "s" | "cont" | "c" | "system_reset" | "system_powerdown"
                | "quit" | "q"),
                ..,
            ] => extraneous(command, ""),
            ["info", what, ..] => format!("unknown command: 'info {what}'"),
            [command, ..] => format!("unknown command: '{command}'"),
        };
        Ok(line + "\r\n")
    }
}

/// What the human monitor says to arguments where there are none.
fn extraneous(command: &str, of: &str) -> String {
    format!(
        "{command}: extraneous characters at the end of line\r\n\
         Try \"help {of}{command}\" for more information"
    )
}

/// The output of a command that prints nothing when all is well.
fn silent(done: Result<(), impl Into<Error>>) -> Result<String, Error> {
    done.map(|()| String::new()).map_err(Into::into)
}
