// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds where our side answers otherwise than QEMU does.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use qmp_proto::Dialect;
use tests::command_line;
use tests::difffuzz::peer::Subject;
use tests::difffuzz::{Options, Outcome, arguments, files, messages};

/// Send random inputs to QEMU and to our server, and compare all answers.
///
/// Any messages go to the storage daemon of QEMU 10.0 and of QEMU 11.1, commands with any arguments to their
/// qemu-system-x86_64.
///
/// Exits with 0 if there is no difference, with 1 if there is one, and with 2 if the comparison fails.
#[derive(Debug, Parser)]
#[command(name = "difffuzz")]
struct Arguments {
    /// Number of messages
    #[arg(long, value_name = "N", default_value = "100000")]
    count: u64,
    /// Number of commands with arguments, if another
    #[arg(long, value_name = "N")]
    arguments: Option<u64>,
    /// Decides which inputs
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Inputs on each connection
    #[arg(long, value_name = "N", default_value = "250", value_parser = clap::value_parser!(u64).range(1..))]
    stream: u64,
    /// Comparisons at a time; most of the time, one waits for QEMU's threads to wake each other
    #[arg(long, value_name = "N", default_value = "8")]
    jobs: u64,
    /// Compare only in this dialect; may be repeated
    #[arg(long, value_name = "VERSION")]
    dialect: Vec<Dialect>,
    /// Compare our mux in front of the same QEMU instead of our server
    #[arg(long)]
    through_mux: bool,
    /// Send the files in this directory instead, whole and up to each of their first 200 bytes, on a connection each
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// Leave our server out: compare how qmp-proto reads messages, and no arguments
    #[arg(long, conflicts_with_all = ["through_mux", "files"])]
    proto: bool,
}

fn main() -> ExitCode {
    let arguments = match command_line::parse::<Arguments>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let dialects = match arguments.dialect[..] {
        [] => &Dialect::ALL[..],
        [..] => &arguments.dialect,
    };
    match dialects.iter().try_for_each(|&dialect| compare(dialect, &arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

fn compare(dialect: Dialect, arguments: &Arguments) -> Result<(), ExitCode> {
    let &Arguments { count, seed, stream, jobs, through_mux, proto, .. } = arguments;
    let subject = if through_mux { Subject::Mux } else { Subject::Server };
    let report = |what: &str, run: &dyn Fn() -> Result<Outcome, String>| {
        let what = match through_mux {
            true => format!("{what} of {dialect} through the mux"),
            false => format!("{what} of {dialect}"),
        };
        report(&what, seed, run)
    };
    if let Some(directory) = &arguments.files {
        return report("files", &|| files::run(dialect, directory, jobs, subject));
    }
    let options = Options { count, seed, stream, jobs };
    let of_messages = (!proto).then_some(subject);
    report("messages", &|| messages::run(dialect, &options, of_messages))?;
    if proto {
        return Ok(());
    }
    let options = Options { count: arguments.arguments.unwrap_or(count), ..options };
    report("arguments", &|| arguments::run(dialect, &options, subject))
}

fn report(
    what: &str,
    seed: u64,
    run: &dyn Fn() -> Result<Outcome, String>,
) -> Result<(), ExitCode> {
    let started = Instant::now();
    match run() {
        Ok(Outcome::Same { inputs, answers }) => {
            let seconds = started.elapsed().as_secs_f64();
            println!(
                "{what}: {inputs} inputs, {answers} answers, no difference (seed {seed}, {seconds:.0} s)"
            );
            Ok(())
        }
        Ok(Outcome::Different(difference)) => {
            println!("{what}: {difference}\n(seed {seed})");
            Err(ExitCode::from(1))
        }
        Err(error) => {
            eprintln!("difffuzz: {error}");
            Err(ExitCode::from(2))
        }
    }
}
