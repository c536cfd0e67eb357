// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes lines on a thread of its own, so that a standard error that nobody reads holds up no server.

use std::io::{self, Write};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that wait to be written, above which no further line is taken.
const MOST_WAITING: usize = 256 << 10;

/// How long the end of the program waits for the last lines.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// Where lines are left to be written. Never blocks.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines: at most [`MOST_WAITING`] bytes, and the line that exceeded them.
    waiting: Vec<u8>,
    /// The thread writes what it has taken from `waiting`.
    writing: bool,
    /// Lines that found no room and have not been reported.
    lost: u64,
    ended: bool,
}

impl Lines {
    /// Writes to `to` on a new thread, until the guard is dropped.
    ///
    /// The thread calls `report` before it waits, and again at the time that this returns; it may log.
    pub(super) fn start(
        &self,
        to: impl Write + Send + 'static,
        report: impl Fn(Instant) -> Option<Instant> + Send + 'static,
    ) -> io::Result<Guard> {
        let shared = Arc::clone(&self.0);
        let work = move || shared.write(to, report);
        thread::Builder::new().name("qmp-log".into()).spawn(work)?;
        Ok(Guard(Arc::clone(&self.0)))
    }
}

impl Shared {
    fn write(&self, mut to: impl Write, report: impl Fn(Instant) -> Option<Instant>) {
        loop {
            let lost = take(&mut self.lock().lost);
            if lost > 0 {
                tracing::warn!(lost, "the log was not read fast enough: lines are missing");
            }
            let again = report(Instant::now());
            let Some(lines) = self.next(again) else { return };
            // A standard error that is closed is no reason to end, and there is nowhere to tell.
            let _ = to.write_all(&lines);
        }
    }

    /// Waits for lines, at most until `again`. `None` at the end.
    fn next(&self, again: Option<Instant>) -> Option<Vec<u8>> {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        while state.waiting.is_empty() && state.lost == 0 {
            if state.ended {
                return None;
            }
            let Some(again) = again else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = again.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.writing = true;
        Some(take(&mut state.waiting))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Lines {
    /// Takes a whole line, or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.waiting.len() >= MOST_WAITING {
            state.lost += 1;
        } else {
            state.waiting.extend_from_slice(line);
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends the thread when dropped, once everything is written or a second has passed.
pub(crate) struct Guard(Arc<Shared>);

impl Guard {
    /// Waits until everything is written or a second has passed.
    pub(crate) fn flush(&self) {
        self.0.wait_until_written(self.0.lock());
    }
}

impl Shared {
    fn wait_until_written(&self, state: MutexGuard<'_, State>) {
        let unwritten = |state: &mut State| state.writing || !state.waiting.is_empty();
        let _ = self.changed.wait_timeout_while(state, END_DEADLINE, unwritten);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        self.0.changed.notify_all();
        self.0.wait_until_written(state);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    const LINE: &[u8] = &[b'x'; 1000];

    #[test]
    fn lines_that_nobody_reads_are_bounded() {
        let mut lines = Lines::default();
        for _ in 0..10 * MOST_WAITING / LINE.len() {
            lines.write_all(LINE).unwrap();
        }
        let state = lines.0.lock();
        assert!(state.waiting.capacity() <= 2 * (MOST_WAITING + LINE.len()));
        let taken = state.waiting.len() / LINE.len();
        assert_eq!(taken as u64 + state.lost, (10 * MOST_WAITING / LINE.len()) as u64);
    }

    #[test]
    fn a_line_longer_than_the_bound_is_written_whole() {
        let mut lines = Lines::default();
        let long = vec![b'y'; 3 * MOST_WAITING];
        lines.write_all(&long).unwrap();
        lines.write_all(LINE).unwrap();
        assert_eq!(lines.0.next(None), Some(long));
        assert_eq!(lines.0.lock().lost, 1);
    }

    #[test]
    fn everything_is_written_before_the_guard_is_gone() {
        let (to, mut from) = UnixStream::pair().unwrap();
        let mut lines = Lines::default();
        let guard = lines.start(to, |_| None).unwrap();
        lines.write_all(b"one\n").unwrap();
        lines.write_all(b"two\n").unwrap();
        drop(guard);
        let mut written = [0; 8];
        from.read_exact(&mut written).unwrap();
        assert_eq!(&written, b"one\ntwo\n");
        assert_eq!(from.read(&mut written).unwrap(), 0);
    }
}
