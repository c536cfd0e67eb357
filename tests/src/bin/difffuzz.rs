// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds where our side answers otherwise than QEMU does.

use std::process::ExitCode;

use clap::Parser;
use tests::difffuzz::{Options, Outcome, arguments, messages};

/// Send random inputs to QEMU and to our server, and compare all answers.
///
/// Any messages go to QEMU's storage daemon. Commands with any arguments go to qemu-system-x86_64, if it is there.
///
/// Exits with 0 if there is no difference, with 1 if there is one, and with 2 if the comparison fails.
#[derive(Debug, Parser)]
#[command(name = "difffuzz")]
struct Arguments {
    /// Number of inputs of either kind
    #[arg(long, value_name = "N", default_value = "100000")]
    count: u64,
    /// Decides which inputs
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Comparisons at a time
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: u64,
    /// Leave our server out: compare how qmp-proto reads messages, and no arguments
    #[arg(long)]
    proto: bool,
}

fn main() -> ExitCode {
    let Arguments { count, seed, jobs, proto } = Arguments::parse();
    let options = Options { count, seed, jobs };
    let code = report("messages", seed, messages::run(&options, !proto));
    if code != ExitCode::SUCCESS || proto {
        return code;
    }
    if let Some(obstacle) = arguments::obstacle() {
        println!("arguments: left out, {obstacle}");
        return code;
    }
    report("arguments", seed, arguments::run(&options))
}

fn report(what: &str, seed: u64, result: Result<Outcome, String>) -> ExitCode {
    match result {
        Ok(Outcome::Same { inputs, answers }) => {
            println!("{what}: {inputs} inputs, {answers} answers, no difference (seed {seed})");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Different(difference)) => {
            println!("{what}: {difference}\n(seed {seed})");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("difffuzz: {error}");
            ExitCode::from(2)
        }
    }
}
