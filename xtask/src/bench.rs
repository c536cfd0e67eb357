// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`.

use crate::command::{Failure, Outcome, cargo, run as run_command, step};
use crate::workspace::{LIBRARIES, root};

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let wanted = match arguments {
        [] => "all",
        [one] => one,
        _ => return Err(Failure::Usage("bench takes the name of one crate, or all".to_owned())),
    };
    let chosen: Vec<_> = LIBRARIES
        .into_iter()
        .filter(|name| wanted == "all" || *name == format!("qmp-{wanted}"))
        .collect();
    if chosen.is_empty() {
        return Err(Failure::Usage(format!(
            "bench takes queue, proto, dispatch, server or all, not '{wanted}'"
        )));
    }
    let (with, without): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|name| root().join(name).join("benches").is_dir());
    for name in without {
        println!("{name} has no benchmarks");
    }
    with.into_iter().try_for_each(|name| {
        step(&format!("bench {name}"), || {
            run_command(&mut cargo(["bench", "--package", name, "--benches"]))
        })
    })
}
