// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures our server against the floor and QEMU.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tests::bench::counted::{self, Counts};
use tests::bench::{Scale, floor, machines, run, run_machines, run_mux};

/// Measure latency, throughput, memory and fairness of our server, beside a bare echo and QEMU where it is installed.
///
/// Exits with 0 if everything was measured, whatever came out, and with 2 if it could not be.
#[derive(Debug, Parser)]
#[command(name = "bench-server")]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    /// Write the figures to this file, too
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often each server is measured
    #[arg(long, global = true, value_name = "N", default_value_t = Scale::default().rounds)]
    rounds: usize,
    /// How long a measurement takes in a round
    #[arg(long, global = true, value_name = "MS", default_value_t = Scale::default().slice.as_millis() as u64)]
    slice: u64,
    /// How many clients are many
    #[arg(long, value_name = "N", default_value_t = Scale::default().clients)]
    clients: usize,
    /// How many monitors one server is to have
    #[arg(long, global = true, value_name = "N", default_value_t = Scale::default().monitors)]
    monitors: usize,
    /// Where the programs of other stacks are (see tests/peers), to measure those that are there, too
    #[arg(long, value_name = "DIRECTORY")]
    stacks: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure the mux in front of QEMU's programs, and these without it
    Mux,
    /// Measure one mux for a thousand machines, and for some beside others that misbehave
    Machines,
    /// Be upstream servers of a mux
    #[command(hide = true)]
    Upstream {
        /// How they behave
        way: machines::Way,
        /// Where they listen
        sockets: Vec<PathBuf>,
    },
    /// Count what our server does for a request: instructions by valgrind, system calls by strace
    Counted {
        /// Exit with 1 if a figure is more than 5 % above the one in this file
        #[arg(long, value_name = "FILE")]
        before: Option<PathBuf>,
    },
    /// Be a floor: the least that a server or a mux can do
    Floor {
        /// How it serves
        way: floor::Way,
        /// Where to listen
        socket: PathBuf,
        /// The answer; for a relay, the socket of the server behind
        line: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.task {
        Some(Task::Floor { way, socket, line }) => {
            floor::serve(*way, socket, line).map_err(|error| error.to_string())
        }
        Some(Task::Counted { before }) => match count(&arguments, before.as_deref()) {
            Ok(larger) if larger.is_empty() => Ok(()),
            Ok(larger) => {
                eprint!("bench-server: more work than before\n{larger}");
                return ExitCode::FAILURE;
            }
            Err(error) => Err(error),
        },
        Some(Task::Upstream { way, sockets }) => {
            machines::serve(*way, sockets).map_err(|error| error.to_string())
        }
        Some(Task::Mux | Task::Machines) | None => bench(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-server: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns the figures that are larger than before.
fn count(arguments: &Arguments, before: Option<&Path>) -> Result<String, String> {
    let at = |path: &Path, error: &dyn Display| format!("{}: {error}", path.display());
    let before = before.map(|path| {
        let text = std::fs::read_to_string(path).map_err(|error| at(path, &error))?;
        serde_json::from_str::<Counts>(&text).map_err(|error| at(path, &error))
    });
    let before = before.transpose()?;
    let counts = counted::count()?;
    for (what, count) in &counts {
        println!("{what:<60} {count:>10.2} a request");
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&counts).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| at(path, &error))?;
    }
    Ok(before.map(|before| counted::larger(&before, &counts)).unwrap_or_default())
}

fn bench(arguments: &Arguments) -> Result<(), String> {
    let scale = Scale {
        rounds: arguments.rounds,
        slice: Duration::from_millis(arguments.slice),
        clients: arguments.clients,
        monitors: arguments.monitors,
    };
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let report = match arguments.task {
        Some(Task::Mux) => run_mux(&scale, program)?,
        Some(Task::Machines) => run_machines(&scale, &program)?,
        _ => run(&scale, program, arguments.stacks.as_deref())?,
    };
    report.record();
    print!("{report}");
    if let Some(path) = &arguments.json {
        let written = std::fs::write(path, report.to_json());
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
