// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that writes all audits of the process. It is started by whoever opens the first one, for what it may do to files is
//! what that thread may (by seccomp, for instance), and ends with the last one.

use std::fs::File;
use std::io::{self, Write};
use std::mem::take;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::output::Output;
use crate::io::Waker;

/// How long to wait before something that has failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);

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

/// What an audit is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// There is more to write.
    More,
    /// It cannot be written now: later, or when the pipe has room.
    Later,
    /// Nothing, until something is pushed.
    Idle,
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

/// The audits that have something to write.
struct Busy {
    audits: Mutex<BusyAudits>,
    /// Wakes the thread.
    waker: io::Result<Waker>,
}

#[derive(Default)]
struct BusyAudits {
    /// Those that the thread has not taken yet.
    new: Vec<Arc<Output>>,
    /// How many there are, with and without something to write.
    open: usize,
    is_running: bool,
}

static BUSY: LazyLock<Busy> =
    LazyLock::new(|| Busy { audits: Mutex::default(), waker: Waker::new() });

/// Has the thread there for one more audit.
pub(super) fn begin() -> io::Result<()> {
    let mut busy = BUSY.lock();
    if !busy.is_running {
        thread::Builder::new().name("qmp-audit".into()).spawn(write_all)?;
        busy.is_running = true;
    }
    busy.open += 1;
    Ok(())
}

/// An audit has ended.
pub(super) fn end() {
    BUSY.lock().open -= 1;
    BUSY.wake();
}

/// Has the thread write what an audit has to write. Never blocks.
pub(super) fn write_soon(audit: &Arc<Output>) {
    BUSY.lock().new.push(Arc::clone(audit));
    BUSY.wake();
}

impl Busy {
    fn lock(&self) -> MutexGuard<'_, BusyAudits> {
        self.audits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.waker.iter().for_each(Waker::wake);
    }

    /// Waits until an audit has something to write or has ended, or those that could not be written are to be tried again.
    fn wait(&self, late: &[Arc<Output>]) {
        let writers: Vec<_> = late.iter().map(|audit| audit.writer()).collect();
        let files = writers.iter().filter(|writer| writer.full_since.is_some());
        let files = files.filter_map(|writer| writer.file.as_ref());
        let mut fds: Vec<_> = files.map(|file| PollFd::new(file, PollFlags::OUT)).collect();
        fds.extend(self.waker.iter().map(|waker| PollFd::new(waker, PollFlags::IN)));
        // Without a waker, what is new is looked for.
        let looks = !late.is_empty() || self.waker.is_err();
        let timeout = looks.then(|| Timespec::try_from(PAUSE).unwrap_or_default());
        // If it fails, it is tried again at once.
        let _ = poll(&mut fds, timeout.as_ref());
        self.waker.iter().for_each(Waker::reset);
    }
}

/// What the thread does.
fn write_all() {
    let mut late = Vec::new();
    loop {
        let mut busy = BUSY.lock();
        if busy.open == 0 {
            busy.is_running = false;
            return;
        }
        let mut line = take(&mut busy.new);
        drop(busy);
        line.append(&mut late);
        while !line.is_empty() {
            // Each writes so much before the others have their turn.
            line.retain(|audit| match audit.write() {
                Next::More => true,
                Next::Later => {
                    late.push(Arc::clone(audit));
                    false
                }
                Next::Idle => false,
            });
        }
        BUSY.wait(&late);
    }
}
