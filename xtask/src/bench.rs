// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: what a crate costs by itself, and what the server costs from a client's point of view.

use crate::command::{Failure, Outcome, cargo, run as run_command, step};
use crate::workspace::{LIBRARIES, release_server, root};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (wanted, options) =
        arguments.split_first().map_or(("all", &[][..]), |(wanted, rest)| (wanted.as_str(), rest));
    let chosen: Vec<_> = LIBRARIES
        .into_iter()
        .filter(|name| wanted == "all" || *name == format!("qmp-{wanted}"))
        .collect();
    if wanted == "mux" {
        return step("bench mux", || bench_server(&["mux"], options));
    }
    if chosen.is_empty() {
        return Err(Failure::Usage(format!(
            "bench takes queue, proto, dispatch, server, mux or all, not '{wanted}'"
        )));
    }
    if wanted != "server" && !options.is_empty() {
        return Err(Failure::Usage("only bench server and bench mux take options".to_owned()));
    }
    chosen.into_iter().try_for_each(|name| {
        step(&format!("bench {name}"), || match root().join(name).join("benches").is_dir() {
            true => run_command(&mut cargo(["bench", "--package", name, "--benches"])),
            false => bench_server(&[], options),
        })
    })
}

/// As another process, by the crate `tests`.
fn bench_server(task: &[&str], options: &[String]) -> Outcome {
    run_command(&mut cargo(["build", "--release", "--package", "qmp-server"]))?;
    let program = ["run", "--quiet", "--release", "--package", "tests", "--bin", "bench-server"];
    run_command(
        cargo(program).arg("--").args(task).args(options).env("QMP_SERVER_BIN", release_server()),
    )
}
