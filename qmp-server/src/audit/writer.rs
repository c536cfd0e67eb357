// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that writes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::queue::{Queue, Task};

/// How long to wait before something that has failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    path: PathBuf,
    /// `None` if it is a pipe that nobody reads.
    file: Option<File>,
    queue: Arc<Queue>,
    /// It is known that lines cannot be written.
    failing: bool,
}

impl Writer {
    pub(super) fn open(path: &Path, queue: Arc<Queue>) -> io::Result<Writer> {
        let file = open_file(path)?;
        Ok(Writer { path: path.to_owned(), file, queue, failing: false })
    }

    pub(super) fn run(mut self) {
        let mut left = 0;
        loop {
            match self.queue.next() {
                Task::Reopen => self.reopen(),
                Task::Write(lines) => {
                    left = self.write(&lines);
                    if left > 0 {
                        break;
                    }
                }
                Task::End => break,
            }
        }
        left += self.queue.left();
        if left > 0 {
            tracing::error!(lost = left, "the end of the audit could not be written");
        }
        // The program may be over with this.
        self.queue.end();
    }

    fn reopen(&mut self) {
        match open_file(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                tracing::error!(%error, file = %self.path.display(), "the audit's old file goes on");
            }
        }
    }

    /// Writes all lines, however long that takes. How many are left when there is no more time.
    fn write(&mut self, lines: &str) -> u64 {
        let mut written = 0;
        while written < lines.len() {
            let error = match self.write_some(&lines.as_bytes()[written..]) {
                Ok(some) => {
                    written += some;
                    continue;
                }
                Err(error) => error,
            };
            let full = error.kind() == io::ErrorKind::WouldBlock;
            if error.kind() == io::ErrorKind::Interrupted || (full && self.wait_for_room()) {
                continue;
            }
            if !self.failing {
                self.failing = true;
                tracing::error!(%error, file = %self.path.display(), "the audit cannot be written");
            }
            let pause = if full { Duration::ZERO } else { PAUSE };
            let (in_time, reopen) = self.queue.pause(pause);
            if reopen {
                self.reopen();
            }
            if reopen || self.file.is_none() {
                // What is half in the old file is to be whole in the new one.
                written = lines[..written].rfind('\n').map_or(0, |end| end + 1);
            }
            if !in_time {
                return lines[written..].lines().count() as u64;
            }
        }
        if std::mem::take(&mut self.failing) {
            tracing::warn!(file = %self.path.display(), "the audit is written again");
        }
        0
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() {
            self.file = open_file(&self.path)?;
        }
        let Some(file) = &mut self.file else { return Err(Errno::NXIO.into()) };
        let written = file.write(bytes);
        match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.file = None;
                Err(error)
            }
            written => written,
        }
    }

    /// Waits until the pipe has room again, for a while. Whether it has.
    fn wait_for_room(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let mut fds = [PollFd::new(file, PollFlags::OUT)];
        let timeout = Timespec::try_from(PAUSE).unwrap_or_default();
        poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
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
