// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds where our side answers otherwise than QEMU does.

use std::process::ExitCode;

use clap::Parser;
use tests::difffuzz::{Options, Outcome, messages};

/// Send random inputs to QEMU's storage daemon and to our server, and compare all answers.
///
/// Exits with 0 if there is no difference, with 1 if there is one, and with 2 if the comparison fails.
#[derive(Debug, Parser)]
#[command(name = "difffuzz")]
struct Arguments {
    /// Number of inputs
    #[arg(long, value_name = "N", default_value = "100000")]
    count: u64,
    /// Decides which inputs
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Comparisons at a time
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: u64,
    /// Leave our server out: compare qmp-proto alone
    #[arg(long)]
    proto: bool,
}

fn main() -> ExitCode {
    let Arguments { count, seed, jobs, proto } = Arguments::parse();
    match messages::run(&Options { count, seed, jobs }, !proto) {
        Ok(Outcome::Same { inputs, answers }) => {
            println!("{inputs} inputs, {answers} answers, no difference (seed {seed})");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Different(difference)) => {
            println!("{difference}\n(seed {seed})");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("difffuzz: {error}");
            ExitCode::from(2)
        }
    }
}
