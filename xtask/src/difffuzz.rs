// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask difffuzz`: compares our server with QEMU on random input, by the crate `tests`.

use crate::command::{Outcome, cargo, hand_over, run as run_command};
use crate::oracles;
use crate::workspace::{PROGRAM, release_server};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    run_command(&mut cargo(["build", "--release", "--package", PROGRAM]))?;
    let oracles = oracles::environment()?;
    hand_over("difffuzz", &["--release"], |difffuzz| {
        difffuzz.envs(oracles).env("QMP_SERVER_BIN", release_server()).args(arguments);
    })
}
