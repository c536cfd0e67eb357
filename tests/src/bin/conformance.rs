// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds a QMP server against recorded cases.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Parser, ValueEnum};
use qmp_proto::Dialect;
use tests::command_line;
use tests::conformance::case::{Case, Need};
use tests::conformance::junit;
use tests::conformance::our_server::{OurServer, Transport};
use tests::conformance::runner::{self, Options, Summary};
use tests::conformance::selection::{Glob, Selection};
use tests::conformance::target::{Launch, split_words};
use tests::endpoint::Endpoint;

/// Hold a QMP server against recorded cases.
///
/// Exits with 0 if all cases passed, with 1 if any failed, and with 2 if they could not be run. docs/conformance.md says
/// what the server must have.
#[derive(Debug, Parser)]
#[command(
    name = "conformance",
    group(ArgGroup::new("server").args(["connect", "spawn", "ours"]))
)]
struct Arguments {
    /// Server to test: unix:PATH or tcp:HOST:PORT
    #[arg(long, value_name = "ADDRESS", required_unless_present_any = ["spawn", "ours", "list", "categories"])]
    connect: Option<Endpoint>,
    /// A second, pretty-printing monitor of that server
    #[arg(long, value_name = "ADDRESS", requires = "connect")]
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
    /// How to reach that server
    #[arg(long, value_enum, default_value = "unix", requires = "ours")]
    over: Transport,
    /// The QEMU whose answers are expected
    #[arg(long, value_name = "VERSION", default_value_t)]
    dialect: Dialect,
    /// Directory or file of cases, in place of those of the dialect
    #[arg(long, value_name = "PATH")]
    cases: Vec<PathBuf>,
    /// File of cases that replace those of the same category/name
    #[arg(long, value_name = "PATH")]
    deviations: Vec<PathBuf>,
    /// Run only cases of this category; may be repeated
    #[arg(long, value_name = "NAME")]
    category: Vec<String>,
    /// Run only cases whose category/name matches; may be repeated
    #[arg(long, value_name = "GLOB", value_parser = Glob::new)]
    only: Vec<Glob>,
    /// Run no cases whose category/name matches; may be repeated
    #[arg(long, value_name = "GLOB", value_parser = Glob::new)]
    except: Vec<Glob>,
    /// Kind of server, decides which cases apply
    #[arg(long, value_enum, default_value = "any")]
    flavor: Flavor,
    /// Leave out cases that need what the server does not have: machine, pretty, oob, fd-passing; may be repeated
    #[arg(long, value_name = "FEATURE", value_parser = Need::parse)]
    without: Vec<Need>,
    /// Also run the cases that take real QEMU long
    #[arg(long)]
    slow: bool,
    /// Seconds to wait in one step
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    timeout: Duration,
    /// Seconds to wait for a connection
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    patience: Duration,
    /// Also write the results to this file, as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// List the selected cases and exit
    #[arg(long)]
    list: bool,
    /// List the categories and exit
    #[arg(long)]
    categories: bool,
    /// Report passing cases too, and the traffic of failing ones
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Clone, Debug)]
struct Command(Vec<String>);

/// The kind of server, as far as it decides which features to presume.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Flavor {
    /// Any server but QEMU
    Any,
    /// QEMU's system emulator
    Qemu,
    /// QEMU's storage daemon
    Qsd,
}

impl Flavor {
    fn lacks(self) -> &'static [Need] {
        match self {
            Self::Any => &[Need::QemuTiming],
            Self::Qemu => &[],
            Self::Qsd => &[Need::Machine, Need::QemuTiming],
        }
    }
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
        let defaults = Options::new(self.dialect, launch);
        let (cases, newer) = match self.cases.is_empty() {
            true => (defaults.cases, defaults.newer),
            false => (self.cases, Vec::new()),
        };
        let without = self.without.iter().chain(self.flavor.lacks()).copied().collect();
        let selection = Selection {
            categories: self.category,
            only: self.only,
            except: self.except,
            without,
            slow: self.slow,
            ..Selection::default()
        };
        Options {
            cases,
            newer,
            deviations: self.deviations,
            selection,
            step_limit: self.timeout,
            patience: self.patience,
            verbose: self.verbose,
            ..defaults
        }
    }
}

/// The number of cases of each category.
fn categories(cases: &[Case]) -> BTreeMap<&str, usize> {
    let mut categories = BTreeMap::new();
    for case in cases {
        *categories.entry(case.category.as_str()).or_default() += 1;
    }
    categories
}

fn check_categories(options: &Options) -> Result<(), String> {
    if options.selection.categories.is_empty() {
        return Ok(());
    }
    let cases = options.load()?;
    let known = categories(&cases);
    match options.selection.categories.iter().find(|name| !known.contains_key(name.as_str())) {
        Some(unknown) => {
            let known: Vec<_> = known.into_keys().collect();
            Err(format!("no category '{unknown}', there are {}", known.join(", ")))
        }
        None => Ok(()),
    }
}

/// What to print instead of running anything.
#[derive(Clone, Copy)]
enum Listing {
    Cases,
    Categories,
}

fn list(listing: Listing, options: &Options) -> Result<String, String> {
    Ok(match listing {
        Listing::Cases => {
            let cases = options.selection.apply(options.load()?).chosen;
            cases.iter().map(|case| format!("{:<40} {}\n", case.title(), case.why)).collect()
        }
        Listing::Categories => categories(&options.load()?)
            .into_iter()
            .map(|(name, count)| format!("{name:<12} {count:>4} cases\n"))
            .collect(),
    })
}

fn test(options: &Options, junit: Option<PathBuf>) -> Result<Summary, String> {
    let summary = runner::run(options, &mut std::io::stdout())?;
    if let Some(path) = junit {
        let written = std::fs::write(&path, junit::report(&summary));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(summary)
}

fn main() -> ExitCode {
    let arguments = match command_line::parse::<Arguments>() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let listing = match (arguments.list, arguments.categories) {
        (true, _) => Some(Listing::Cases),
        (_, true) => Some(Listing::Categories),
        _ => None,
    };
    let junit = arguments.junit.clone();
    let options = arguments.into_options();
    let outcome = runner::with_deep_stack(|| {
        check_categories(&options)?;
        match listing {
            Some(listing) => {
                // A reader that has seen enough is not a failure.
                let _ = std::io::stdout().write_all(list(listing, &options)?.as_bytes());
                Ok(0)
            }
            None => test(&options, junit).map(|summary| summary.total().failed),
        }
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
