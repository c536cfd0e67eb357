// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is due when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::io::Token;

/// What happens when a time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// An arrival has taken too long.
    Handshake(Token),
    /// A session's client may have read nothing for too long.
    Stalled(Token),
    /// A session may have waited too long to complete negotiation.
    Negotiation(Token),
    /// A session that drains has had its time.
    Drained(Token),
    /// A session or a listener that found no descriptors is to be tried again.
    Again(Token),
    /// A server's dispatcher has a timeout.
    Dispatcher(Token),
    /// What a server that ends still executes has had its time.
    Answers(Token),
    /// A link has asked for it.
    Link(Token),
}

impl Timer {
    /// The source that it is for.
    pub(super) fn token(self) -> Token {
        match self {
            Timer::Handshake(token)
            | Timer::Stalled(token)
            | Timer::Negotiation(token)
            | Timer::Drained(token)
            | Timer::Again(token)
            | Timer::Dispatcher(token)
            | Timer::Answers(token)
            | Timer::Link(token) => token,
        }
    }
}

/// All timers of a loop, the earliest first.
#[derive(Default)]
pub(super) struct Timers {
    due: BTreeMap<Key, Timer>,
    set: u64,
}

/// Names a timer that was set: its time, and how many had been set before, so that no two are equal.
pub(super) type Key = (Instant, u64);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) -> Key {
        self.set += 1;
        let key = (at, self.set);
        self.due.insert(key, timer);
        key
    }

    pub(super) fn cancel(&mut self, key: Key) {
        self.due.remove(&key);
    }

    /// How long until the next one is due, or until `other` has come.
    pub(super) fn next_timeout(&self, other: Option<Instant>) -> Option<Duration> {
        let first = self.due.first_key_value().map(|(&(at, _), _)| at);
        let at = first.into_iter().chain(other).min()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// Takes the next one that is due at this time.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let first = self.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_the_order_of_their_times() {
        let now = Instant::now();
        let token = |index| Token { index, generation: 0 };
        let mut timers = Timers::default();
        let second = Duration::from_secs(1);
        timers.set(now + 2 * second, Timer::Again(token(2)));
        timers.set(now + second, Timer::Again(token(1)));
        let cancelled = timers.set(now, Timer::Again(token(0)));
        timers.set(now + second, Timer::Stalled(token(1)));
        timers.cancel(cancelled);
        assert_eq!(timers.take_due(now), None);
        assert!(timers.next_timeout(None).is_some_and(|timeout| timeout <= second));
        assert_eq!(timers.next_timeout(Some(now)), Some(Duration::ZERO));
        let at = now + second;
        let due: Vec<_> = std::iter::from_fn(|| timers.take_due(at)).collect();
        assert_eq!(due, [Timer::Again(token(1)), Timer::Stalled(token(1))]);
        assert!(timers.next_timeout(None).is_some());
    }
}
