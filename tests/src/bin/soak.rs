// SPDX-License-Identifier: MIT OR Apache-2.0
//! Has clients of every bad sort come to our server for as long as one likes.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::chaos::{Scale, run};

/// Have unruly clients come and go while polite ones check every answer, in rounds; after each, the server must hold
/// as little memory and as many descriptors as before the first.
///
/// Exits with 0 if all was well, and with 1 if not.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How long to go on; there is one round in any case
    #[arg(long, value_name = "N", default_value = "60")]
    seconds: u64,
    /// Decides what the clients do
    #[arg(long, value_name = "S", default_value = "1")]
    seed: u64,
    /// Unruly clients at a time
    #[arg(long, value_name = "N", default_value = "12")]
    clients: usize,
    /// How often each of them comes in a round
    #[arg(long, value_name = "N", default_value = "200")]
    visits: usize,
}

fn main() -> ExitCode {
    let Arguments { seconds, seed, clients, visits } = Arguments::parse();
    let scale = Scale { seed, unruly: clients, visits, time: Duration::from_secs(seconds) };
    match run(&scale, |round| println!("{round}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("soak: {reason}");
            ExitCode::FAILURE
        }
    }
}
