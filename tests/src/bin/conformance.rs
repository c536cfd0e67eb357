// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds a QMP server against recorded cases.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Parser, ValueEnum};
use qmp_proto::Dialect;
use tests::conformance::our_server::{OurServer, Transport};
use tests::conformance::runner::{self, Options};
use tests::conformance::selection::{Flavor, Glob, Selection};
use tests::conformance::target::{Launch, split_words};
use tests::endpoint::Endpoint;

/// Hold a QMP server against recorded cases.
///
/// Exits with 0 if all cases passed, with 1 if any failed, and with 2 if they could not be run.
#[derive(Debug, Parser)]
#[command(name = "conformance", group(ArgGroup::new("server").required(true).args(["connect", "spawn", "ours"])))]
struct Arguments {
    /// Server to test: unix:PATH or tcp:HOST:PORT
    #[arg(long, value_name = "ADDR")]
    connect: Option<Endpoint>,
    /// A second, pretty-printing monitor of that server
    #[arg(long, value_name = "ADDR", requires = "connect")]
    pretty: Option<Endpoint>,
    /// Start the server; {sock} and {pretty} stand for the paths of the sockets to listen on
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    spawn: Option<Command>,
    /// Put this qmp-server in front of that server, as a mux
    #[arg(long, value_name = "PROGRAM", requires = "spawn")]
    through: Option<PathBuf>,
    /// Start this qmp-server
    #[arg(long, value_name = "PROGRAM")]
    ours: Option<PathBuf>,
    /// How that is to be reached
    #[arg(long, value_enum, default_value = "unix", requires = "ours")]
    over: Transport,
    /// The QEMU whose answers are right, which our server takes after
    #[arg(long, value_name = "VERSION", default_value_t)]
    dialect: Dialect,
    /// Directory or file of cases, in place of those of the dialect
    #[arg(long, value_name = "PATH")]
    cases: Vec<PathBuf>,
    /// File of cases that replace those of the same category/name
    #[arg(long, value_name = "PATH")]
    deviations: Vec<PathBuf>,
    /// Run only cases whose category/name matches
    #[arg(long, value_name = "GLOB", value_parser = Glob::new)]
    only: Vec<Glob>,
    /// Kind of server, decides which cases apply
    #[arg(long, value_enum, default_value = "any")]
    flavor: FlavorName,
    /// Also run the cases that take real QEMU long
    #[arg(long)]
    slow: bool,
    /// Seconds to wait in one step
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    timeout: Duration,
    /// Seconds to wait for a connection
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    patience: Duration,
    /// List the selected cases and exit
    #[arg(long)]
    list: bool,
    /// Report passing cases too, and the traffic of failing ones
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Debug)]
struct Command(Vec<String>);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FlavorName {
    Any,
    Qemu,
    Qsd,
}

fn parse_command(text: &str) -> Result<Command, String> {
    split_words(text).map(Command)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl Arguments {
    fn into_options(self) -> Options {
        let launch = match (self.connect, self.ours, self.spawn) {
            (Some(main), ..) => Launch::Connect { main, pretty: self.pretty },
            (None, Some(program), _) => {
                Launch::Ours(OurServer { program, over: self.over, dialect: self.dialect })
            }
            (None, None, command) => {
                let words = command.map(|Command(words)| words).unwrap_or_default();
                match self.through {
                    Some(mux) => Launch::Through { mux, upstream: words },
                    None => Launch::Spawn(words),
                }
            }
        };
        let flavor = match self.flavor {
            FlavorName::Any => Flavor::Any,
            FlavorName::Qemu => Flavor::Qemu,
            FlavorName::Qsd => Flavor::StorageDaemon,
        };
        let defaults = Options::new(self.dialect, launch);
        let (cases, newer) = match self.cases.is_empty() {
            true => (defaults.cases, defaults.newer),
            false => (self.cases, Vec::new()),
        };
        Options {
            cases,
            newer,
            deviations: self.deviations,
            selection: Selection {
                only: self.only,
                flavor,
                slow: self.slow,
                ..Selection::default()
            },
            step_limit: self.timeout,
            patience: self.patience,
            verbose: self.verbose,
            ..defaults
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let list = arguments.list;
    let options = arguments.into_options();
    let mut out = std::io::stdout();
    let outcome = runner::with_deep_stack(|| {
        if list {
            for case in options.select()?.chosen {
                writeln!(out, "{:<40} {}", case.title(), case.why)
                    .map_err(|error| error.to_string())?;
            }
            return Ok(0);
        }
        runner::run(&options, &mut out).map(|summary| summary.total.failed)
    });
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}
