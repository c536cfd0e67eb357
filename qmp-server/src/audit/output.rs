// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where audits are written: their files, the lines on their way there, and the one thread that writes all of them. It is
//! started by whoever opens the first one, for what it may do to files is what that thread may (by seccomp, for instance), and
//! ends with the last one.

use std::io;
use std::mem::take;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::queue::Queue;
use super::writer::{PAUSE, Writer};
use crate::io::Waker;

/// What the last handle of an audit ends.
pub(super) struct Output {
    queue: Queue,
    /// For the thread that writes.
    writer: Mutex<Writer>,
}

/// What an audit is to do next.
enum Progress {
    /// There is more to write.
    More,
    /// It cannot be written now: later, or when the pipe has room.
    Later,
    /// Nothing, until something is pushed.
    Idle,
}

impl Output {
    pub(super) fn open(path: &Path) -> io::Result<Arc<Output>> {
        let writer = Mutex::new(Writer::open(path)?);
        Ok(Arc::new(Output { queue: Queue::default(), writer }))
    }

    pub(super) fn push(self: &Arc<Self>, line: String) {
        if self.queue.push(line) {
            write_soon(self);
        }
    }

    pub(super) fn reopen(self: &Arc<Self>) {
        if self.queue.reopen() {
            write_soon(self);
        }
    }

    /// Waits until all that was pushed has been written, or for so long.
    pub(super) fn flush(&self, patience: Duration) {
        self.queue.flush(patience);
    }

    /// Takes nothing more, and waits until all has been written, or for so long.
    pub(super) fn finish(self: &Arc<Self>, patience: Duration) {
        if self.queue.end_within(patience) {
            write_soon(self);
        }
        self.queue.wait_for_end(patience);
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes some of what is to be written.
    fn write(&self) -> Progress {
        let mut writer = self.writer();
        if self.queue.take_reopen() {
            writer.reopen();
        }
        if writer.has_written() {
            match self.queue.next() {
                Some(lines) => writer.add(lines),
                None => return Progress::Idle,
            }
        }
        if writer.write() {
            self.queue.written();
            return Progress::More;
        }
        if !self.queue.is_late() {
            return Progress::Later;
        }
        let left = writer.left() + self.queue.left();
        tracing::error!(lost = left, "the end of the audit could not be written");
        writer.add(String::new());
        // The program may be over with this.
        self.queue.end();
        Progress::Idle
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
fn write_soon(audit: &Arc<Output>) {
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
        let full = writers.iter().filter_map(|writer| writer.full());
        let mut fds: Vec<_> = full.map(|file| PollFd::new(file, PollFlags::OUT)).collect();
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
                Progress::More => true,
                Progress::Later => {
                    late.push(Arc::clone(audit));
                    false
                }
                Progress::Idle => false,
            });
        }
        BUSY.wait(&late);
    }
}
