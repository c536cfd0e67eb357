// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask soak`: unruly clients for our server, by the crate `tests`.

use crate::command::{Outcome, cargo, run as run_command};
use crate::workspace::{PROGRAM, release_server};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    run_command(&mut cargo(["build", "--release", "--package", PROGRAM]))?;
    let program = ["run", "--quiet", "--release", "--package", "tests", "--bin", "soak", "--"];
    run_command(cargo(program).args(arguments).env("QMP_SERVER_BIN", release_server()))
}
