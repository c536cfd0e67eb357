// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines on their way to the writer, which nobody waits for.

use std::collections::VecDeque;
use std::mem::{replace, take};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::record::Record;

/// So many bytes may wait.
const MOST_WAITING: usize = 8 << 20;

/// The writer takes about so many bytes at a time.
const BATCH: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<Backlog>,
    changed: Condvar,
}

#[derive(Default)]
struct Backlog {
    lines: VecDeque<String>,
    bytes: usize,
    /// The writer has taken some, and has not written them all yet.
    writing: bool,
    /// The writer knows that there is something for it.
    told: bool,
    /// How many lines are missing behind the last one.
    lost: u64,
    reopen: bool,
    /// Nothing more is taken, and by this time all is to be over.
    end: Option<Instant>,
    /// Nothing more is written.
    over: bool,
}

impl Backlog {
    /// Says where lines are missing, if some are. How many.
    fn tell_lost(&mut self) -> u64 {
        let lost = take(&mut self.lost);
        if lost > 0 {
            self.add(Record::lost(lost).to_line());
        }
        lost
    }

    fn add(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }
}

impl Queue {
    /// Adds a line. Returns whether the writer is to be told.
    pub(super) fn push(&self, line: String) -> bool {
        let mut state = self.state();
        if state.end.is_some() {
            return false;
        }
        if state.bytes + line.len() > MOST_WAITING {
            state.lost += 1;
            if state.lost == 1 {
                drop(state);
                tracing::error!("the audit cannot be written fast enough, and has a gap from here");
            }
            return false;
        }
        let lost = state.tell_lost();
        state.add(line);
        let is_new = !replace(&mut state.told, true);
        drop(state);
        log_gap(lost);
        is_new
    }

    /// Has the file opened anew. Returns whether the writer is to be told.
    pub(super) fn reopen(&self) -> bool {
        let mut state = self.state();
        state.reopen = true;
        !replace(&mut state.told, true)
    }

    pub(super) fn take_reopen(&self) -> bool {
        take(&mut self.state().reopen)
    }

    /// Takes nothing more, and is over after this time at the latest. Returns whether the writer is to be told.
    pub(super) fn end_within(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.end.get_or_insert_with(|| Instant::now() + patience);
        !state.over && !replace(&mut state.told, true)
    }

    /// Waits until all is over, or for a little longer than this.
    pub(super) fn wait_for_end(&self, patience: Duration) {
        let patience = patience + Duration::from_millis(200);
        let waited = self.changed.wait_timeout_while(self.state(), patience, |state| !state.over);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until all that was pushed has been written, or for so long.
    pub(super) fn flush(&self, patience: Duration) {
        let unwritten =
            |state: &mut Backlog| !state.over && (state.writing || !state.lines.is_empty());
        let waited = self.changed.wait_timeout_while(self.state(), patience, unwritten);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes lines to write. If there are none, the writer is to be told of the next ones, and all is over if nothing more is
    /// taken.
    pub(super) fn next(&self) -> Option<String> {
        let mut state = self.state();
        let lost = if state.lines.is_empty() { state.tell_lost() } else { 0 };
        let mut batch = String::new();
        while batch.len() < BATCH
            && let Some(line) = state.lines.pop_front()
        {
            state.bytes -= line.len();
            batch.push_str(&line);
        }
        // No lines are lines, too, if the file is to be opened anew meanwhile: the writer comes again.
        if batch.is_empty() && !state.reopen {
            state.told = false;
            state.over |= state.end.is_some();
            self.changed.notify_all();
            return None;
        }
        state.writing = true;
        drop(state);
        log_gap(lost);
        Some(batch)
    }

    /// What was taken has been written.
    pub(super) fn written(&self) {
        self.state().writing = false;
        self.changed.notify_all();
    }

    /// Whether all should be over by now.
    pub(super) fn is_late(&self) -> bool {
        self.state().end.is_some_and(|end| end <= Instant::now())
    }

    /// How many lines wait, or have found no room.
    pub(super) fn left(&self) -> u64 {
        let state = self.state();
        state.lost + state.lines.len() as u64
    }

    /// Nothing more is written.
    pub(super) fn end(&self) {
        let mut state = self.state();
        *state = Backlog { end: state.end, over: true, ..Backlog::default() };
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, Backlog> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_gap(lost: u64) {
    if lost > 0 {
        tracing::warn!(lost, "the audit goes on, with a gap");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_where_it_is_missing() {
        let queue = Queue::default();
        let line = format!("{}\n", "x".repeat(BATCH - 1));
        for _ in 0..MOST_WAITING / BATCH {
            queue.push(line.clone());
        }
        queue.push("lost\n".to_owned());
        queue.push("lost as well\n".to_owned());
        assert_eq!(queue.next().as_ref(), Some(&line));
        queue.push("late\n".to_owned());
        for _ in 1..MOST_WAITING / BATCH {
            assert_eq!(queue.next().as_ref(), Some(&line));
        }
        let end = queue.next().unwrap();
        let lines: Vec<_> = end.lines().collect();
        assert!(lines[0].ends_with(r#""kind": "lost", "count": 2}"#), "{end}");
        assert_eq!(lines[1..], ["late"]);
    }

    #[test]
    fn a_gap_at_the_end_is_told_too() {
        let queue = Queue::default();
        queue.push("x".repeat(MOST_WAITING + 1));
        assert!(queue.next().unwrap().contains(r#""count": 1}"#));
        queue.push("last\n".to_owned());
        queue.end_within(Duration::ZERO);
        queue.push("later\n".to_owned());
        assert_eq!(queue.next().as_deref(), Some("last\n"));
        assert_eq!(queue.next(), None);
        queue.wait_for_end(Duration::from_secs(600));
    }

    #[test]
    fn the_writer_is_told_when_it_has_found_nothing_more() {
        let queue = Queue::default();
        assert!(queue.push("one\n".to_owned()));
        assert!(!queue.push("two\n".to_owned()));
        assert_eq!(queue.next().as_deref(), Some("one\ntwo\n"));
        assert!(!queue.push("three\n".to_owned()), "it comes for more when it has written these");
        assert_eq!(queue.next().as_deref(), Some("three\n"));
        assert_eq!(queue.next(), None);
        assert!(queue.reopen());
        assert!(!queue.end_within(Duration::ZERO), "it is about to come");
        assert_eq!(queue.next().as_deref(), Some(""), "it has not seen that yet");
        assert!(queue.take_reopen());
        assert_eq!(queue.next(), None);
    }
}
