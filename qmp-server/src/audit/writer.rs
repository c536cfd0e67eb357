// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file to which lines are appended, without ever waiting.

use std::fs::File;
use std::io::{self, Write};
use std::mem::take;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

/// How long to wait before something that has failed is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// What becomes of lines that have been taken from an audit's queue.
pub(super) struct Writer {
    path: PathBuf,
    /// `None` if it is a pipe that nobody reads.
    file: Option<File>,
    lines: String,
    /// How much of them has been written.
    written: usize,
    /// Since when the pipe has no room, if it has none.
    full_since: Option<Instant>,
    /// It is known that lines cannot be written.
    failing: bool,
}

impl Writer {
    pub(super) fn open(path: &Path) -> io::Result<Writer> {
        let file = open_file(path)?;
        let path = path.to_owned();
        let (lines, written) = (String::new(), 0);
        Ok(Writer { path, file, lines, written, full_since: None, failing: false })
    }

    /// Goes on with these lines when the ones before are written.
    pub(super) fn add(&mut self, lines: String) {
        (self.lines, self.written) = (lines, 0);
    }

    pub(super) fn reopen(&mut self) {
        match open_file(&self.path) {
            Ok(file) => {
                self.file = file;
                self.begin_line_again();
            }
            Err(error) => {
                tracing::error!(%error, file = %self.path.display(), "the audit's old file goes on");
            }
        }
    }

    /// What is half in the old file is to be whole in the new one.
    fn begin_line_again(&mut self) {
        self.written = self.lines[..self.written].rfind('\n').map_or(0, |end| end + 1);
    }

    /// The pipe, while it has no room.
    pub(super) fn full(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| self.full_since.is_some())
    }

    /// How many lines are not written yet.
    pub(super) fn left(&self) -> u64 {
        self.lines[self.written..].lines().count() as u64
    }

    pub(super) fn has_written(&self) -> bool {
        self.lines.is_empty()
    }

    /// Writes what it can. Returns whether all is written.
    pub(super) fn write(&mut self) -> bool {
        while self.written < self.lines.len() {
            match self.write_some() {
                Ok(some) => {
                    self.written += some;
                    self.full_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed(&error);
                    return false;
                }
            }
        }
        self.add(String::new());
        if take(&mut self.failing) {
            tracing::warn!(file = %self.path.display(), "the audit is written again");
        }
        true
    }

    fn failed(&mut self, error: &io::Error) {
        if self.file.is_none() {
            self.begin_line_again();
        }
        let is_full = error.kind() == io::ErrorKind::WouldBlock;
        let full_since = is_full.then(|| *self.full_since.get_or_insert_with(Instant::now));
        self.full_since = full_since;
        let is_short = full_since.is_some_and(|since| since.elapsed() < PAUSE);
        if !is_short && !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, file = %self.path.display(), "the audit cannot be written");
        }
    }

    fn write_some(&mut self) -> io::Result<usize> {
        if self.file.is_none() {
            self.file = open_file(&self.path)?;
        }
        let Some(file) = &mut self.file else { return Err(Errno::NXIO.into()) };
        match file.write(&self.lines.as_bytes()[self.written..]) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.file = None;
                Err(error)
            }
            written => written,
        }
    }
}

/// Never waits. `None` if it is a pipe that nobody reads.
fn open_file(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    match open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
