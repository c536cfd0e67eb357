// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask bench`: benchmarks of each crate, and of the server from a client's point of view.

mod all;
mod criterion;
mod stacks;

use std::process::Command;

use crate::command::{Failure, Outcome, cargo, run as run_command, step};
use crate::workspace::{PROGRAM, dist_server, root};

/// What can be measured.
const LAYERS: [Layer; 5] = [
    Layer::Crate("proto"),
    Layer::Crate("queue"),
    Layer::Crate("dispatch"),
    Layer::Server,
    Layer::Mux,
];

#[derive(Clone, Copy)]
enum Layer {
    /// The benchmarks of a crate, named without its prefix.
    Crate(&'static str),
    /// The server as a process, measured by the crate `tests`.
    Server,
    /// The mux in front of another server, measured by the crate `tests`.
    Mux,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (wanted, options) = match arguments.split_first() {
        Some((first, rest)) if !first.starts_with('-') => (first.as_str(), rest),
        _ => ("all", arguments),
    };
    if wanted == "all" {
        return all::run(options);
    }
    if wanted == "counted" {
        return counted(options);
    }
    if wanted == "machines" {
        Layer::Mux.build()?;
        let mut command = Layer::Server.command();
        command.arg("machines");
        return step("bench machines", || run_command(command.args(options)));
    }
    let Some(layer) = LAYERS.into_iter().find(|layer| layer.name() == wanted) else {
        let names = LAYERS.map(Layer::name).join(", ");
        return Err(Failure::Usage(format!(
            "bench takes {names}, machines, counted or all, not '{wanted}'"
        )));
    };
    layer.build()?;
    step(&format!("bench {wanted}"), || run_command(layer.command().args(options)))
}

/// Counts the work of a request. Without options, compares it with the recorded count, and fails if it is more.
pub(crate) fn counted(options: &[String]) -> Outcome {
    Layer::Server.build()?;
    let mut command = Layer::Server.command();
    command.arg("counted");
    if options.is_empty() {
        command.arg("--before").arg(root().join("tests/counted.json"));
    }
    step("bench counted", || run_command(command.args(options)))
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Crate(name) => name,
            Self::Server => "server",
            Self::Mux => "mux",
        }
    }

    fn build(self) -> Outcome {
        match self {
            Self::Crate(name) => {
                let package = format!("qmp-{name}");
                run_command(&mut cargo(["bench", "--no-run", "--benches", "--package", &package]))
            }
            Self::Server | Self::Mux => {
                let profile = ["--profile", "dist"];
                run_command(cargo(["build", "--package", PROGRAM]).args(profile))?;
                run_command(&mut cargo(["build", "--release", "--package", "tests", "--bins"]))
            }
        }
    }

    /// The command that measures it; options can be added.
    fn command(self) -> Command {
        match self {
            Self::Crate(name) => {
                let package = format!("qmp-{name}");
                cargo(["bench", "--quiet", "--benches", "--package", &package, "--"])
            }
            Self::Server | Self::Mux => {
                let program = ["run", "--quiet", "--release", "--package", "tests"];
                let mut command = cargo(program);
                command.args(["--bin", "bench-server", "--"]);
                if matches!(self, Self::Mux) {
                    command.arg("mux");
                }
                command.env("QMP_SERVER_BIN", dist_server());
                command
            }
        }
    }

    /// The unit of its figures, if criterion measures it.
    fn unit(self) -> Option<&'static str> {
        match self {
            Self::Crate("proto") => Some("µs"),
            Self::Crate(_) => Some("ns"),
            Self::Server | Self::Mux => None,
        }
    }

    /// The options for one of several runs, which may be shorter.
    fn one_of_several(self, quick: bool) -> &'static [&'static str] {
        match (self, quick) {
            (Self::Crate(_), false) => &[],
            (Self::Crate(_), true) => &["--quick"],
            (Self::Server | Self::Mux, false) => &["--rounds", "3"],
            (Self::Server | Self::Mux, true) => &["--rounds", "3", "--slice", "40"],
        }
    }
}
