// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running programs, and their errors.

use std::fmt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::workspace;

/// Why a task failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command line of xtask is wrong.
    Usage(String),
    /// A step of the task failed.
    Task(String),
    /// A program that has printed its own error exited with this status.
    Status(u8),
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Task(_) => ExitCode::FAILURE,
            Self::Status(status) => ExitCode::from(*status),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Task(text) => f.write_str(text),
            Self::Status(status) => write!(f, "exit status {status}"),
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Task(text)
    }
}

/// Fails if a task that takes no arguments was given some.
pub(crate) fn no_arguments(task: &str, arguments: &[String]) -> Outcome {
    match arguments.first() {
        None => Ok(()),
        Some(first) => {
            Err(Failure::Usage(format!("{task} takes no arguments, not even '{first}'")))
        }
    }
}

/// Cargo, in the root of the workspace. It compiles all of a crate at once: a build from nothing, as in CI, then takes a quarter
/// less of the processor, and does not replace what incremental builds have made.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace::root()).env("CARGO_INCREMENTAL", "0");
    command
}

/// Runs a program that has to succeed.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Task(format!("{} has failed ({status})", base_name(&program)))),
        Err(error) => Err(Failure::Task(format!("{program} cannot be started: {error}"))),
    }
}

/// Runs a program of the crate `tests` in the current directory. Its exit status becomes the one of the task.
pub(crate) fn hand_over(
    program: &str,
    profile: &[&str],
    prepare: impl FnOnce(&mut Command),
) -> Outcome {
    let mut command = cargo(["run", "--quiet", "--manifest-path"]);
    command.arg(workspace::root().join("Cargo.toml")).args(profile);
    command.args(["--package", "tests", "--bin", program, "--"]);
    let here = std::env::current_dir()
        .map_err(|error| Failure::Task(format!("no current directory: {error}")))?;
    command.current_dir(here);
    prepare(&mut command);
    let status = command
        .status()
        .map_err(|error| Failure::Task(format!("cargo cannot be started: {error}")))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Status(u8::try_from(code).unwrap_or(1))),
        None => Err(Failure::Task(format!("{program} has failed ({status})"))),
    }
}

/// Runs a program that has to succeed, and returns its output.
pub(crate) fn output_of(command: &mut Command) -> Outcome<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Failure::Task(format!("{program} has failed ({}): {complaint}", output.status)))
        }
        Err(error) => Err(Failure::Task(format!("{program} cannot be started: {error}"))),
    }
}

fn base_name(program: &str) -> String {
    Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a program of this name is on the search path.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a step of a task: prints its name and its duration, and names it in the error.
pub(crate) fn step(name: &str, action: impl FnOnce() -> Outcome) -> Outcome {
    println!("==> {name}");
    let started = Instant::now();
    action().map_err(|failure| Failure::Task(format!("step '{name}': {failure}")))?;
    println!("    {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
