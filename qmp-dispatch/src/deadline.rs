// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that must have been answered by some time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::reply::WeakReply;

/// Names an answer among those with a deadline.
pub(crate) type DeadlineKey = (Duration, u64);

/// The answers that are owed, by the time at which an error is sent in their place.
#[derive(Default)]
pub(crate) struct Deadlines {
    owed: BTreeMap<DeadlineKey, WeakReply>,
    last: u64,
}

impl Deadlines {
    pub(crate) fn add(&mut self, at: Duration, reply: WeakReply) -> DeadlineKey {
        self.last += 1;
        let key = (at, self.last);
        self.owed.insert(key, reply);
        key
    }

    /// The answer has been given.
    pub(crate) fn remove(&mut self, key: DeadlineKey) {
        self.owed.remove(&key);
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.owed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out those whose time has come.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<WeakReply> {
        let later = self.owed.split_off(&(now.saturating_add(Duration::from_nanos(1)), 0));
        std::mem::replace(&mut self.owed, later).into_values().collect()
    }
}
