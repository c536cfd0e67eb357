// SPDX-License-Identifier: MIT OR Apache-2.0
//! The standard input and output of a program that is started for this connection.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use rustix::io::ioctl_fionbio;

use super::{Channel, READ_SIZE, no_descriptors};
use crate::process::Process;

/// A program that serves its standard input and output. Dropping it ends it.
#[derive(Debug)]
pub struct Program {
    /// `None` after a half-close.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    process: Process,
}

impl Program {
    pub fn start(command: &[String]) -> io::Result<Program> {
        let nothing = || io::Error::new(io::ErrorKind::InvalidInput, "no program to start");
        let (name, arguments) = command.split_first().ok_or_else(nothing)?;
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stdin = process.child().stdin.take().ok_or_else(nothing)?;
        let stdout = process.child().stdout.take().ok_or_else(nothing)?;
        ioctl_fionbio(&stdin, true)?;
        ioctl_fionbio(&stdout, true)?;
        Ok(Program { stdin: Some(stdin), stdout, process })
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Channel for Program {
    fn readable(&self) -> BorrowedFd<'_> {
        self.stdout.as_fd()
    }

    fn writable(&self) -> BorrowedFd<'_> {
        self.stdin.as_ref().map_or(self.stdout.as_fd(), AsFd::as_fd)
    }

    fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        match &mut self.stdin {
            _ if !descriptors.is_empty() => no_descriptors(),
            Some(stdin) => stdin.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn receive(&mut self, received: &mut Vec<u8>) -> io::Result<usize> {
        let mut chunk = [0; READ_SIZE];
        let count = self.stdout.read(&mut chunk)?;
        received.extend(&chunk[..count]);
        Ok(count)
    }

    fn half_close(&mut self) -> io::Result<()> {
        self.stdin = None;
        Ok(())
    }
}
