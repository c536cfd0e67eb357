// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters of what a dispatcher has done.

use std::sync::atomic::{AtomicU64, Ordering};

use qmp_proto::{Error, ErrorClass, Json};

/// What a [`Dispatcher`](crate::Dispatcher) has done since it was made; from
/// [`Dispatcher::stats`](crate::Dispatcher::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DispatcherStats {
    /// Requests that have succeeded, with or without a response.
    pub succeeded: u64,
    /// Error responses by their class, in the order of [`ErrorClass::ALL`].
    errors: [u64; ErrorClass::ALL.len()],
    /// Events that have been emitted or [relayed](crate::Dispatcher::relay), however many monitors
    /// got them. Those that the policy hides do not count.
    pub events: u64,
    /// Those of them that were not sent at once, because of a rate limit. The last one of each
    /// interval is sent later.
    pub events_held_back: u64,
    /// Commands that were answered with an error because they had passed their deadline.
    pub deadlines_passed: u64,
    /// Answers that came after that, and went nowhere.
    pub late_answers: u64,
}

impl DispatcherStats {
    /// Error responses, those to what is no request included.
    pub fn failed(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Error responses of this class.
    pub fn failed_with(&self, class: ErrorClass) -> u64 {
        self.errors[index(class)]
    }
}

/// Counts where things happen.
#[derive(Default)]
pub(crate) struct Counters {
    succeeded: Counter,
    errors: [Counter; ErrorClass::ALL.len()],
    pub(crate) events: Counter,
    pub(crate) events_held_back: Counter,
    pub(crate) deadlines_passed: Counter,
    pub(crate) late_answers: Counter,
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn answered(&self, result: &Result<Json, Error>) {
        match result {
            Ok(_) => self.succeeded.count(),
            Err(error) => self.errors[index(error.class)].count(),
        }
    }

    pub(crate) fn read(&self) -> DispatcherStats {
        DispatcherStats {
            succeeded: self.succeeded.get(),
            errors: self.errors.each_ref().map(Counter::get),
            events: self.events.get(),
            events_held_back: self.events_held_back.get(),
            deadlines_passed: self.deadlines_passed.get(),
            late_answers: self.late_answers.get(),
        }
    }
}

fn index(class: ErrorClass) -> usize {
    ErrorClass::ALL.iter().position(|other| *other == class).unwrap_or_default()
}
