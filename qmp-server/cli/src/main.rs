// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program `qmp-server`: serves a reference machine, shares a QMP server, or calls a command of any QMP server.

mod addresses;
mod arguments;
mod attach;
mod call;
mod client;
mod clients;
mod config;
mod config_file;
mod deadline;
mod exec;
mod generate;
mod limit;
mod log;
mod mux;
mod named;
mod notify;
mod options;
mod path_pattern;
mod role;
mod serve;
mod status;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use arguments::Task;

/// Exit status of a command that has failed on the server.
const COMMAND_FAILED: u8 = 1;

/// Exit status when the user is wrong, or something is not there.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    qmp_dispatch::install_panic_hook();
    let task = match arguments::parse() {
        Ok(task) => task,
        Err(code) => return code,
    };
    let done = match task {
        Task::Serve(options) => serve::serve(*options),
        Task::Mux(options) => mux::mux(*options),
        Task::Attach(options) => mux::attach(*options),
        Task::Call(options) => call::call(&options),
        Task::Status(options) => status::status(&options),
        Task::Completions { shell } => generate::completions(arguments::command(), shell),
        Task::Man { subcommand } => generate::man(arguments::command(), subcommand.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(failure.status)
        }
    }
}

/// Exit status of a mux that has ended because its upstream server was lost.
const UPSTREAM_LOST: u8 = 3;

/// Why the program ends before its time: one line for people, and an exit status for programs.
#[derive(Debug)]
struct Failure {
    what: String,
    status: u8,
}

impl Failure {
    fn usage(what: impl std::fmt::Display) -> Failure {
        Failure { what: what.to_string(), status: USAGE }
    }

    /// The upstream server has gone, and was to take the mux along.
    fn upstream_lost() -> Failure {
        let what = "the upstream server was lost".to_owned();
        Failure { what, status: UPSTREAM_LOST }
    }

    /// An error response, as it is: `Class: description`.
    fn command(error: impl std::fmt::Display) -> Failure {
        Failure { what: error.to_string(), status: COMMAND_FAILED }
    }

    /// What is wrong, for those who know which program says it.
    fn what(&self) -> &str {
        &self.what
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.status != COMMAND_FAILED {
            f.write_str("qmp-server: ")?;
        }
        // One line, and nothing that a terminal would obey, whatever was quoted in it.
        self.what.chars().try_for_each(|character| match character {
            '\n' => f.write_char(' '),
            control if control.is_control() => write!(f, "{}", control.escape_unicode()),
            character => f.write_char(character),
        })
    }
}

/// Writes a line to standard error, if anybody can be told at all. As a whole: standard error has no buffer, and would get
/// each part of the line by a system call of its own, with other programs' lines in between.
fn complain(line: &dyn std::fmt::Display) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
