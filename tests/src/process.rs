// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child process that cannot outlive its test.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags};
use tempfile::TempDir;

use crate::endpoint::Endpoint;
use crate::waiting::wait_for;

pub use rustix::process::Signal;

/// Time for a process to end after SIGTERM, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A running child; dropping it ends it. Its standard error is kept for failure messages.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stderr: PathBuf,
    _stderr_dir: TempDir,
}

impl Process {
    /// Starts the command, with its standard error kept.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let stderr_dir = tempfile::Builder::new().prefix("qmp-stderr-").tempdir()?;
        let stderr = stderr_dir.path().join("stderr.txt");
        let child = command.stderr(File::create(&stderr)?).spawn()?;
        Ok(Self { child, stderr, _stderr_dir: stderr_dir })
    }

    /// The child, for its standard input and output.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Returns its standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Waits until its standard error contains a text.
    #[track_caller]
    pub fn expect_log(&self, text: &str) {
        wait_for(|| {
            let log = self.stderr();
            if log.contains(text) { Ok(()) } else { Err(format!("no '{text}' in: {log}")) }
        });
    }

    /// Waits until it accepts connections at this endpoint.
    #[track_caller]
    pub fn expect_ready(&mut self, endpoint: &Endpoint) {
        wait_for(|| {
            let Err(error) = endpoint.try_connect() else { return Ok(()) };
            let exited = self.child.try_wait().expect("the child can be waited for");
            assert!(exited.is_none(), "the process has exited ({exited:?}): {}", self.stderr());
            Err(format!("no connection is accepted ({error}): {}", self.stderr()))
        });
    }

    /// Waits for its exit, this long at most.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(Some(status));
        }
        let handle =
            rustix::process::pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let timeout = limit.try_into().map_err(io::Error::other)?;
        rustix::event::poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout))?;
        self.child.try_wait()
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Ends it: with SIGTERM, and if that does not help, by force.
    pub fn stop(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            self.signal(Signal::TERM)?;
            if self.wait(GRACE)?.is_none() {
                self.child.kill()?;
                self.child.wait()?;
            }
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.stop().is_err() {
            drop(self.child.kill());
        }
    }
}

/// The result of a program that ran to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end with this text as its standard input.
pub fn run(command: &mut Command, input: &str, limit: Duration) -> io::Result<Finished> {
    let mut stdin = tempfile::tempfile()?;
    stdin.write_all(input.as_bytes())?;
    stdin.rewind()?;
    let mut stdout = tempfile::tempfile()?;
    let mut process =
        Process::start(command.stdin(stdin).stdout(Stdio::from(stdout.try_clone()?)))?;
    let status = process.wait(limit)?;
    stdout.rewind()?;
    let stdout = io::read_to_string(stdout)?;
    let stderr = process.stderr();
    match status {
        Some(status) => Ok(Finished { status, stdout, stderr }),
        None => {
            let message = format!("{command:?} took more than {limit:?}; output: {stdout}{stderr}");
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn the_exit_status_and_standard_error_can_be_had() {
        let mut process = shell("echo no such luck >&2; exit 3");
        assert_eq!(process.wait(GRACE).unwrap().unwrap().code(), Some(3));
        assert_eq!(process.stderr(), "no such luck\n");
    }

    #[test]
    fn a_program_is_run_to_its_end() {
        let finished = run(&mut Command::new("cat"), "one\ntwo\n", GRACE).unwrap();
        assert!(finished.status.success());
        assert_eq!(finished.stdout, "one\ntwo\n");
        assert!(run(Command::new("sleep").arg("1000"), "", Duration::from_millis(1)).is_err());
    }

    #[test]
    fn waiting_has_a_limit_and_stopping_works() {
        let mut process = shell("exec sleep 1000");
        assert_eq!(process.wait(Duration::from_millis(1)).unwrap(), None);
        process.stop().unwrap();
        assert!(process.wait(GRACE).unwrap().is_some());
    }
}
