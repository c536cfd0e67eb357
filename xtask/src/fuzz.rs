// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: runs the fuzz targets of the crate `tests`.

use crate::command::{Outcome, cargo, run as run_command};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let program = ["run", "--quiet", "--release", "--package", "tests", "--bin", "fuzz", "--"];
    run_command(cargo(program).args(arguments))
}
