// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an audit is written: its file, and the lines on their way there.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::queue::Queue;
use super::writer::{Next, Writer, write_soon};

/// What the last handle of an audit ends.
pub(super) struct Output {
    queue: Queue,
    /// For the thread that writes.
    writer: Mutex<Writer>,
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

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes some of what is to be written.
    pub(super) fn write(&self) -> Next {
        let mut writer = self.writer();
        if self.queue.take_reopen() {
            writer.reopen();
        }
        if writer.has_written() {
            match self.queue.next() {
                Some(lines) => writer.add(lines),
                None => return Next::Idle,
            }
        }
        if writer.write() {
            self.queue.written();
            return Next::More;
        }
        if !self.queue.is_late() {
            return Next::Later;
        }
        let left = writer.left() + self.queue.left();
        tracing::error!(lost = left, "the end of the audit could not be written");
        writer.add(String::new());
        // The program may be over with this.
        self.queue.end();
        Next::Idle
    }
}
