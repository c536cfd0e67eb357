// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks for input that `qmp-proto` or `qmp-server` cannot cope with.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::fuzz::{TARGETS, check, run};
use tests::inputs::seeds;

/// Feed the fuzz targets: reader, request, writer, audit, roles, addresses, configuration.
///
/// Exits with 0 if nothing was found, with 1 if something was, and with 2 if the inputs cannot be had.
#[derive(Debug, Parser)]
#[command(name = "fuzz")]
struct Arguments {
    /// Target to feed; all of them in turn if there is none
    target: Option<String>,
    /// Time for all targets together
    #[arg(long, value_name = "N", default_value = "60")]
    seconds: u64,
    /// Decides which inputs
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Feed this file instead
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    match fuzz(&Arguments::parse()) {
        Ok(found) => ExitCode::from(u8::from(found)),
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether anything was found.
fn fuzz(arguments: &Arguments) -> Result<bool, String> {
    let wanted = |name: &str| arguments.target.as_ref().is_none_or(|target| target == name);
    let targets: Vec<_> = TARGETS.iter().filter(|target| wanted(target.name)).collect();
    if targets.is_empty() {
        return Err("there is no such target".to_owned());
    }
    let seeds = seeds::from_cases()?;
    let time = Duration::from_secs(arguments.seconds) / targets.len() as u32;
    for target in targets {
        let outcome = match &arguments.input {
            Some(path) => {
                let input =
                    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                check(target, &input).map(|()| 1)
            }
            None => run(target, time, arguments.seed, &seeds),
        };
        match outcome {
            Ok(count) => println!("{}: {count} inputs, nothing found", target.name),
            Err(failure) => {
                println!(
                    "{}: {} on \"{}\"",
                    target.name,
                    failure.reason,
                    failure.input.escape_ascii()
                );
                return Ok(true);
            }
        }
    }
    Ok(false)
}
