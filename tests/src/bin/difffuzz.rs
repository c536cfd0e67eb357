// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds where our side answers otherwise than QEMU does.

use std::process::ExitCode;

use clap::Parser;
use qmp_proto::Dialect;
use tests::difffuzz::{Options, Outcome, arguments, messages};

/// Send random inputs to QEMU and to our server, and compare all answers.
///
/// Any messages go to the storage daemon of QEMU 10.0 and of QEMU 11.1, commands with any arguments to their
/// qemu-system-x86_64.
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
    /// Number of arguments, if another
    #[arg(long, value_name = "N")]
    arguments: Option<u64>,
    /// Compare only in this dialect; may be repeated
    #[arg(long, value_name = "VERSION")]
    dialect: Vec<Dialect>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let dialects = match arguments.dialect[..] {
        [] => &Dialect::ALL[..],
        [..] => &arguments.dialect,
    };
    for &dialect in dialects {
        let code = compare(dialect, &arguments);
        if code != ExitCode::SUCCESS {
            return code;
        }
    }
    ExitCode::SUCCESS
}

fn compare(dialect: Dialect, arguments: &Arguments) -> ExitCode {
    let &Arguments { count, seed, jobs, proto, .. } = arguments;
    let options = Options { count, seed, jobs };
    let what = format!("messages of {dialect}");
    let code = report(&what, seed, messages::run(dialect, &options, !proto));
    if code != ExitCode::SUCCESS || proto {
        return code;
    }
    let options = Options { count: arguments.arguments.unwrap_or(count), ..options };
    report(&format!("arguments of {dialect}"), seed, arguments::run(dialect, &options))
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
