// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes lines on a thread of its own, so that a standard error that nobody reads holds up no server. The thread is started when
//! there is something to write, and ends when there has been nothing for a while.

use std::io::{self, Write};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that wait to be written, above which no further line is taken.
const MOST_WAITING: usize = 256 << 10;

/// How long the end of the program waits for the last lines.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// How long the thread waits for another line before it ends.
const PATIENCE: Duration = Duration::from_secs(1);

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
    has_thread: bool,
    /// For the thread, while there is none.
    output: Option<LogOutput>,
    ended: bool,
}

/// Where lines are written.
struct LogOutput {
    to: Box<dyn Write + Send>,
    report: Box<dyn Fn(Instant) -> Option<Instant> + Send>,
}

impl Lines {
    /// Writes to `to` from now on, until the guard is dropped.
    ///
    /// The thread that writes calls `report` before it waits, and again at the time that this returns; it may log.
    pub(super) fn start(
        &self,
        to: impl Write + Send + 'static,
        report: impl Fn(Instant) -> Option<Instant> + Send + 'static,
    ) -> Guard {
        let mut state = self.0.lock();
        state.output = Some(LogOutput { to: Box::new(to), report: Box::new(report) });
        if !state.waiting.is_empty() {
            self.0.tell_thread(state);
        }
        Guard(Arc::clone(&self.0))
    }
}

impl Shared {
    /// Has the thread take what waits: the one that there is, or a new one.
    fn tell_thread(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.has_thread || state.output.is_none() {
            return self.changed.notify_all();
        }
        state.has_thread = true;
        drop(state);
        let shared = Arc::clone(self);
        let spawned = thread::Builder::new().name("qmp-log".into()).spawn(move || shared.write());
        if spawned.is_err() {
            // The next line tries again.
            self.lock().has_thread = false;
        }
    }

    /// What the thread does.
    fn write(&self) {
        let Some(mut output) = self.lock().output.take() else { return };
        loop {
            let lost = take(&mut self.lock().lost);
            if lost > 0 {
                tracing::warn!(lost, "the log was not read fast enough: lines are missing");
            }
            let again = (output.report)(Instant::now());
            let mut state = self.next(again);
            let is_idle = state.waiting.is_empty() && state.lost == 0;
            if is_idle && (state.ended || again.is_none()) {
                state.output = (!state.ended).then_some(output);
                state.has_thread = false;
                return self.changed.notify_all();
            }
            let lines = take(&mut state.waiting);
            state.writing = true;
            drop(state);
            // A standard error that is closed is no reason to end, and there is nowhere to tell.
            let _ = output.to.write_all(&lines);
        }
    }

    /// Waits for lines, until `again` if that is said, and otherwise for a while or until the end.
    fn next(&self, again: Option<Instant>) -> MutexGuard<'_, State> {
        let until = again.unwrap_or_else(|| Instant::now() + PATIENCE);
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        let has_nothing =
            |state: &mut State| state.waiting.is_empty() && state.lost == 0 && !state.ended;
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(state, left, has_nothing);
        waited.unwrap_or_else(PoisonError::into_inner).0
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
            self.0.tell_thread(state);
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
        if !state.has_thread {
            state.output = None;
        }
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
        assert_eq!(lines.0.next(None).waiting, long);
        assert_eq!(lines.0.lock().lost, 1);
    }

    #[test]
    fn everything_is_written_before_the_guard_is_gone() {
        let (to, mut from) = UnixStream::pair().unwrap();
        let mut lines = Lines::default();
        let guard = lines.start(to, |_| None);
        lines.write_all(b"one\n").unwrap();
        lines.write_all(b"two\n").unwrap();
        drop(guard);
        let mut written = [0; 8];
        from.read_exact(&mut written).unwrap();
        assert_eq!(&written, b"one\ntwo\n");
        assert_eq!(from.read(&mut written).unwrap(), 0);
    }

    #[test]
    fn there_is_a_thread_when_there_is_something_to_write() {
        let (to, mut from) = UnixStream::pair().unwrap();
        let mut lines = Lines::default();
        let _guard = lines.start(to, |_| None);
        assert!(!lines.0.lock().has_thread);
        for _ in 0..2 {
            lines.write_all(b"one\n").unwrap();
            assert!(lines.0.lock().has_thread);
            from.read_exact(&mut [0; 4]).unwrap();
            // It leaves when it has waited for a while.
            let state = lines.0.lock();
            drop(lines.0.changed.wait_while(state, |state| state.has_thread).unwrap());
        }
    }
}
