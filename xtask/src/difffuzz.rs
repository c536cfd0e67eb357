// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask difffuzz`: random input for our server and for QEMU, by the crate `tests`.

use crate::command::{Outcome, cargo, run as run_command};
use crate::oracles;
use crate::workspace::{PROGRAM, release_server};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    run_command(&mut cargo(["build", "--release", "--package", PROGRAM]))?;
    let program = ["run", "--quiet", "--release", "--package", "tests", "--bin", "difffuzz", "--"];
    let mut difffuzz = cargo(program);
    difffuzz.envs(oracles::environment()?).env("QMP_SERVER_BIN", release_server());
    run_command(difffuzz.args(arguments))
}
