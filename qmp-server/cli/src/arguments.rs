// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use qmp_server::Connect;

use crate::attach::ThroughOptions;
use crate::config_file::ConfigOptions;
use crate::deadline::seconds;
use crate::exec::ExecOptions;
use crate::options::{MachineOptions, ServerOptions, UpstreamOptions};
use crate::{Failure, USAGE, complain};

/// The version, with the commit that `cargo xtask dist` has built it from.
const VERSION: &str = match option_env!("QMP_SERVER_BUILD") {
    Some(build) => build,
    None => env!("CARGO_PKG_VERSION"),
};

/// What one may want to know besides.
const NOTES: &str = "\
Configuration file:
  What is said for all subcommands that serve stands at the top, what one of them
  has for itself in a table of its name, such as [serve]. Options have the names of
  the flags, and a flag goes before what the file says. Instead of a list of strings,
  listen may be tables: [[listen]] with an address and its options.

Exit status:
  0 if all went well, 1 if a command has failed on the server, 2 if the command line
  or the configuration file is wrong, or something is not there, 3 if a mux with
  --upstream-lost=exit has lost its server, and that was not told to end.";

/// A server of the QEMU Machine Protocol, and a client for scripts
#[derive(Parser)]
#[command(name = "qmp-server", version = VERSION, args_conflicts_with_subcommands = true, after_long_help = NOTES)]
struct CommandLine {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    serve: ServeOptions,
}

/// What the program is to do.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Serve a reference machine (this is what happens without a subcommand)
    Serve(Box<ServeOptions>),
    /// Share one QMP server, such as QEMU, among many clients
    Mux(Box<MuxOptions>),
    /// Share a QEMU that runs, from 11.1 on: add a monitor, share it, and take it away again
    Attach(Box<AttachOptions>),
    /// Run one command on any QMP server and print its result
    Call(CallOptions),
    /// Show what a `serve` or `mux` does, and its clients
    Status(StatusOptions),
    /// Print a script that makes a shell complete this program's arguments
    Completions {
        /// For which shell
        shell: Shell,
    },
    /// Print the manual page, in roff
    Man {
        /// That of a subcommand
        subcommand: Option<String>,
    },
}

/// Options of `serve`.
#[derive(Args)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
}

/// Options of `mux`.
#[derive(Args)]
pub(crate) struct MuxOptions {
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
    #[command(flatten)]
    pub(crate) server: ServerOptions,
    #[command(flatten)]
    pub(crate) upstream: UpstreamOptions,
    #[command(flatten)]
    pub(crate) exec: ExecOptions,
    /// Only says whether what a running mux hands over in this format is understood
    #[arg(long, hide = true, value_name = "NUMBER", requires = "check_config")]
    pub(crate) hand_over_format: Option<u32>,
}

/// Options of `attach`.
#[derive(Args)]
pub(crate) struct AttachOptions {
    #[command(flatten)]
    pub(crate) through: ThroughOptions,
    #[command(flatten)]
    pub(crate) config: ConfigOptions,
    #[command(flatten)]
    pub(crate) server: ServerOptions,
}

#[derive(Args)]
pub(crate) struct CallOptions {
    /// The server: unix:PATH, a path with a slash, unix-abstract:NAME, tcp:HOST:PORT, tls:HOST:PORT,
    /// vsock:CID:PORT or fd:NUMBER
    #[arg(value_name = "ADDR")]
    pub(crate) server: Connect,
    /// The command
    pub(crate) command: String,
    /// Arguments: NAME=TEXT for a string, NAME:=JSON for any value
    #[arg(value_name = "NAME=VALUE | NAME:=JSON")]
    pub(crate) arguments: Vec<String>,
    /// Execute the command out-of-band
    #[arg(long)]
    pub(crate) oob: bool,
    /// The server is the channel of a guest agent, such as qemu-ga, which neither greets nor sends
    /// events
    #[arg(long, conflicts_with_all = ["oob", "events"])]
    pub(crate) agent: bool,
    /// Print the events of so many seconds after the result; a server that dies meanwhile is an error
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) events: Option<Duration>,
    /// Give up if there is no result after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
}

#[derive(Args)]
pub(crate) struct StatusOptions {
    /// The server, as for `call`
    #[arg(value_name = "ADDR")]
    pub(crate) server: Connect,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on, and show it anew each time so many seconds have passed; 2 if nothing is said
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    pub(crate) watch: Option<Duration>,
    /// Give up if there is nothing to show after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
}

/// What a client of a TLS server needs. All files are in PEM.
#[derive(Args, Clone)]
pub(crate) struct TlsOptions {
    /// TLS: the authority that the server's certificate must be from
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// TLS: our own certificate, if the server wants one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// TLS: the key of our certificate
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// TLS: the name that the server's certificate must have, if it is not the host
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
}

impl TlsOptions {
    pub(crate) fn are_given(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some() || self.server_name.is_some()
    }
}

/// The description of the command line.
pub(crate) fn command() -> Command {
    CommandLine::command()
}

/// Reads the command line. Help and version are printed here; a mistake gets one line.
pub(crate) fn parse() -> Result<Task, ExitCode> {
    match CommandLine::try_parse() {
        Ok(line) => Ok(line.task.unwrap_or_else(|| Task::Serve(Box::new(line.serve)))),
        Err(error) => Err(explain(&error)),
    }
}

fn explain(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nothing can be done about a standard output that is closed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // The first paragraph says what is wrong; the others are usage and advice.
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line: Vec<&str> = paragraph.split_whitespace().collect();
    let line = line.join(" ");
    complain(&Failure::usage(line.strip_prefix("error: ").unwrap_or(&line)));
    ExitCode::from(USAGE)
}
