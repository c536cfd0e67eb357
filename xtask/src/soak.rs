// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask soak`: runs misbehaving clients, or attackers, against our server, by the crate `tests`.

use crate::command::{Outcome, cargo, run as run_command};
use crate::oracles;
use crate::workspace::{PROGRAM, release_server};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    run_command(&mut cargo(["build", "--release", "--package", PROGRAM]))?;
    let program = ["run", "--quiet", "--release", "--package", "tests", "--bin", "soak", "--"];
    let mut soak = cargo(program);
    let needs_qemu = ["--hostile", "--qemus", "--stdio"];
    if arguments.iter().any(|argument| needs_qemu.contains(&argument.as_str())) {
        soak.envs(oracles::environment()?);
    }
    run_command(soak.args(arguments).env("QMP_SERVER_BIN", release_server()))
}
