// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends our server unruly clients, or attackers, for any length of time.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use qmp_proto::Dialect;
use tests::bench::floor;
use tests::chaos;
use tests::hostile::{self, Kind, Target};
use tests::programs::Oracle;
use tests::qemus;
use tests::stdio;
use tests::upgrades;
use tests::upstream::Program;

/// How often one of the QEMUs ends.
const ENDS: usize = 10;

/// Send unruly clients while polite ones check every answer, in rounds; after each, the server must hold as little
/// memory and as many descriptors as before the first.
///
/// With --hostile, attackers of every known kind come instead, all at once, first to `serve`, then to `mux` in front of a
/// QEMU. The 99th percentile of a polite client's latency is compared with that of a bare echo under the same attack.
///
/// With --upgrades, a mux is executed anew, restarted and told to read its file again under load: every reply has to come once,
/// in its order and in time, and descriptors that were passed before must be good for use.
///
/// With --qemus, so many real QEMUs are shared: one stands still, one ends ten times, and the others have to answer.
///
/// With --stdio, a mux is started at standard input and output again and again, and no byte may be lost.
///
/// Exits with 0 if all was well, and with 1 if not.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,
    /// Duration; there is one round in any case [default: 60, with --hostile 600 for each server]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Decides what the clients do
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Unruly clients at a time
    #[arg(long, value_name = "N", default_value = "12")]
    clients: usize,
    /// How often each of them comes in a round
    #[arg(long, value_name = "N", default_value = "200")]
    visits: usize,
    /// Attack instead
    #[arg(long)]
    hostile: bool,
    /// Upgrade a mux under load instead: this often in place, this often by a restart, and twice as often it reads its
    /// file again
    #[arg(long, value_name = "N", conflicts_with = "hostile")]
    upgrades: Option<usize>,
    /// Share so many QEMUs instead
    #[arg(long, value_name = "N", conflicts_with_all = ["hostile", "upgrades"], value_parser = clap::value_parser!(u16).range(3..))]
    qemus: Option<u16>,
    /// Machines of the mux that is upgraded
    #[arg(long, value_name = "N", default_value = "20")]
    machines: usize,
    /// Start a mux at standard input and output instead, this often, and miss no byte
    #[arg(long, value_name = "N", conflicts_with_all = ["hostile", "upgrades"])]
    stdio: Option<usize>,
    /// Attack this only: serve or mux
    #[arg(long, value_name = "KIND", requires = "hostile")]
    only: Option<Kind>,
    /// The release of QEMU behind the mux: 10.0 or 11.1
    #[arg(long, value_name = "RELEASE", default_value = "10.0")]
    qemu: Dialect,
    /// Share of one processor for all attackers of a server together
    #[arg(long, value_name = "SHARE", default_value = "0.15")]
    share: f64,
    /// Only these attackers: those whose names contain one of the texts
    #[arg(long, value_name = "TEXT,...", requires = "hostile")]
    attackers: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Be the attackers, until the standard input ends
    #[command(hide = true)]
    Attack {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        share: f64,
        #[arg(long)]
        attackers: Option<String>,
    },
    /// Be the bare echo
    #[command(hide = true)]
    Echo { socket: PathBuf, line: String },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.task {
        Some(Task::Attack { target, seed, share, attackers }) => {
            let attackers = attackers.as_deref().unwrap_or_default();
            hostile::attack(target, *seed, *share, attackers).map_err(|error| error.to_string())
        }
        Some(Task::Echo { socket, line }) => {
            floor::serve(floor::Way::Epoll, socket, line).map_err(|error| error.to_string())
        }
        None if arguments.hostile => attack(&arguments),
        None if arguments.qemus.is_some() => share(&arguments),
        None => match (arguments.upgrades, arguments.stdio) {
            (Some(upgrades), _) => upgrade(upgrades, arguments.machines),
            (_, Some(runs)) => {
                converse(runs, arguments.qemu);
                Ok(())
            }
            (None, None) => soak(&arguments),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("soak: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn soak(arguments: &Arguments) -> Result<(), String> {
    let scale = chaos::Scale {
        seed: arguments.seed,
        unruly: arguments.clients,
        visits: arguments.visits,
        time: Duration::from_secs(arguments.seconds.unwrap_or(60)),
    };
    chaos::run(&scale, |round| println!("{round}"))
}

fn upgrade(upgrades: usize, machines: usize) -> Result<(), String> {
    let began = Instant::now();
    let plan = upgrades::Plan {
        machines,
        executed: upgrades,
        restarted: upgrades,
        reloaded: 2 * upgrades,
    };
    let upgrades::Seen { replies, longest } = upgrades::run(plan);
    let took = began.elapsed();
    println!(
        "{upgrades} upgrades in place, {upgrades} restarts and {} reloads of {machines} machines in {took:.1?}: \
         {replies} replies, none lost, doubled or out of order; the longest took {longest:.1?}",
        plan.reloaded
    );
    if longest > upgrades::BOUND {
        return Err(format!("a reply took longer than {:?}", upgrades::BOUND));
    }
    Ok(())
}

fn share(arguments: &Arguments) -> Result<(), String> {
    let machines = usize::from(arguments.qemus.unwrap_or_default());
    let Some(qemu) = Oracle::of(arguments.qemu).program("qemu-system-x86_64") else {
        return Ok(());
    };
    let qemus::Seen { answers, longest } = qemus::run(&qemu, machines, ENDS);
    println!(
        "{machines} QEMUs, one stopped and one ended {ENDS} times: {answers} answers of the others, \
         the longest took {longest:.1?}"
    );
    Ok(())
}

fn converse(runs: usize, qemu: Dialect) {
    let began = Instant::now();
    let held = stdio::converse(qemu, runs.div_ceil(3));
    println!(
        "{held} muxes at standard input and output in {:.1?}: no byte was lost",
        began.elapsed()
    );
}

fn attack(arguments: &Arguments) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let scale = hostile::Scale {
        seed: arguments.seed,
        time: Duration::from_secs(arguments.seconds.unwrap_or(600)),
        share: arguments.share,
        attackers: arguments.attackers.clone().unwrap_or_default(),
        program,
        compares_latency: true,
    };
    let mut wrong = Vec::new();
    for kind in [Kind::Serve, Kind::Mux] {
        if arguments.only.is_some_and(|only| only != kind) {
            continue;
        }
        let name = if kind == Kind::Mux { "mux" } else { "serve" };
        let qemu = match kind {
            Kind::Mux => match Program::Emulator.command_of(arguments.qemu, hostile::UPSTREAM) {
                Some(words) => Some(words),
                None => continue,
            },
            _ => None,
        };
        let time = scale.time.as_secs();
        println!("attack on {name} for {time} s, seed {}, share {}", scale.seed, scale.share);
        let outcome = hostile::run(kind, qemu, &scale).and_then(|outcome| {
            println!("{outcome}");
            outcome.check(&scale)
        });
        if let Err(reason) = outcome {
            wrong.push(format!("{name}, seed {}: {reason}", scale.seed));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}
