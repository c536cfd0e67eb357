// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines on their way to the writer, which nobody waits for.

use std::collections::VecDeque;
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
    /// The writer has taken some, and has not come back for more.
    writing: bool,
    /// How many lines are missing behind the last one.
    lost: u64,
    reopen: bool,
    /// Nothing more is taken, and by this time all is to be over.
    end: Option<Instant>,
    /// The writer has gone.
    over: bool,
}

impl Backlog {
    /// Says where lines are missing, if some are. How many.
    fn tell_lost(&mut self) -> u64 {
        let lost = std::mem::take(&mut self.lost);
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

/// What the writer is to do.
pub(super) enum Task {
    Write(String),
    Reopen,
    End,
}

impl Queue {
    pub(super) fn push(&self, line: String) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        if state.bytes + line.len() > MOST_WAITING {
            state.lost += 1;
            if state.lost == 1 {
                drop(state);
                tracing::error!("the audit cannot be written fast enough, and has a gap from here");
            }
            return;
        }
        let lost = state.tell_lost();
        state.add(line);
        drop(state);
        self.changed.notify_all();
        log_gap(lost);
    }

    pub(super) fn reopen(&self) {
        self.state().reopen = true;
        self.changed.notify_all();
    }

    /// Ends the writer, and waits until it has ended, or for so long.
    pub(super) fn finish(&self, patience: Duration) {
        let mut state = self.state();
        state.end.get_or_insert_with(|| Instant::now() + patience);
        self.changed.notify_all();
        let patience = patience + Duration::from_millis(100);
        let waited = self.changed.wait_timeout_while(state, patience, |state| !state.over);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until all that was pushed has been written, or for so long.
    pub(super) fn flush(&self, patience: Duration) {
        let unwritten =
            |state: &mut Backlog| !state.over && (state.writing || !state.lines.is_empty());
        let waited = self.changed.wait_timeout_while(self.state(), patience, unwritten);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for something to do.
    pub(super) fn next(&self) -> Task {
        let idle = |state: &mut Backlog| {
            state.lines.is_empty() && state.lost == 0 && !state.reopen && state.end.is_none()
        };
        let mut state = self.state();
        if std::mem::take(&mut state.writing) {
            self.changed.notify_all();
        }
        let waited = self.changed.wait_while(state, idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut state.reopen) {
            return Task::Reopen;
        }
        let lost = if state.lines.is_empty() { state.tell_lost() } else { 0 };
        let mut batch = String::new();
        while batch.len() < BATCH
            && let Some(line) = state.lines.pop_front()
        {
            state.bytes -= line.len();
            batch.push_str(&line);
        }
        state.writing = !batch.is_empty();
        drop(state);
        log_gap(lost);
        if batch.is_empty() { Task::End } else { Task::Write(batch) }
    }

    /// Waits for a while before something that has failed is tried again, or until it may go better.
    /// Whether there is still time; and whether to reopen first.
    pub(super) fn pause(&self, pause: Duration) -> (bool, bool) {
        let state = self.state();
        let ending = state.end.is_some();
        let same = |state: &mut Backlog| !state.reopen && state.end.is_some() == ending;
        let waited = self.changed.wait_timeout_while(state, pause, same);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let in_time = state.end.is_none_or(|end| Instant::now() < end);
        (in_time, std::mem::take(&mut state.reopen))
    }

    /// How many lines wait, or have found no room.
    pub(super) fn left(&self) -> u64 {
        let state = self.state();
        state.lost + state.lines.len() as u64
    }

    /// The writer has ended.
    pub(super) fn end(&self) {
        self.state().over = true;
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

    fn written(task: Task) -> String {
        match task {
            Task::Write(lines) => lines,
            Task::Reopen => "reopen".to_owned(),
            Task::End => "end".to_owned(),
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_where_it_is_missing() {
        let queue = Queue::default();
        let line = format!("{}\n", "x".repeat(BATCH - 1));
        for _ in 0..MOST_WAITING / BATCH {
            queue.push(line.clone());
        }
        queue.push("lost\n".to_owned());
        queue.push("lost as well\n".to_owned());
        assert_eq!(written(queue.next()), line);
        queue.push("late\n".to_owned());
        for _ in 1..MOST_WAITING / BATCH {
            assert_eq!(written(queue.next()), line);
        }
        let end = written(queue.next());
        let lines: Vec<_> = end.lines().collect();
        assert!(lines[0].ends_with(r#""kind": "lost", "count": 2}"#), "{end}");
        assert_eq!(lines[1..], ["late"]);
    }

    #[test]
    fn a_gap_at_the_end_is_told_too() {
        let queue = Queue::default();
        queue.push("x".repeat(MOST_WAITING + 1));
        assert!(written(queue.next()).contains(r#""count": 1}"#));
        queue.reopen();
        assert_eq!(written(queue.next()), "reopen");
        queue.push("last\n".to_owned());
        queue.finish(Duration::ZERO);
        queue.push("later\n".to_owned());
        assert_eq!(written(queue.next()), "last\n");
        assert_eq!(written(queue.next()), "end");
    }
}
