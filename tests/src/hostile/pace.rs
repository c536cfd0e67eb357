// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processor time of attackers, capped.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Tells threads to stop, also while they pause.
#[derive(Debug, Default)]
pub(super) struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(super) fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for this long. Returns `true` if it has been set.
    pub(super) fn is_set_within(&self, time: Duration) -> bool {
        let guard = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(guard, time, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Keeps one thread within its share of a processor.
#[derive(Debug)]
pub(super) struct Pace {
    share: f64,
    used: Duration,
}

impl Pace {
    pub(super) fn new(share: f64) -> Pace {
        Pace { share, used: processor_time() }
    }

    /// How long to rest after what has been used since the last time.
    pub(super) fn rest(&mut self) -> Duration {
        let now = processor_time();
        let used = now.saturating_sub(std::mem::replace(&mut self.used, now));
        used.mul_f64((1.0 / self.share - 1.0).max(0.0))
    }
}

pub(super) fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_share_means_long_rests() {
        let mut pace = Pace { share: 0.1, used: Duration::ZERO };
        let before = processor_time();
        let rest = pace.rest();
        assert!(rest >= before.mul_f64(9.0), "{rest:?} after {before:?}");
        assert_eq!(Pace { share: 1.0, used: Duration::ZERO }.rest(), Duration::ZERO);
    }

    #[test]
    fn a_pause_ends_when_it_is_over_or_stopped() {
        let stop = Stop::default();
        assert!(!stop.is_set_within(Duration::ZERO));
        stop.set();
        assert!(stop.is_set_within(Duration::from_secs(1000)));
    }
}
