// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one client has done, and what it is doing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Counter;

/// Times are those of the server's [`Counters`](super::Counters).
pub(crate) struct ClientCounters {
    pub(crate) connected: Duration,
    pub(crate) out_of_band: Counter,
    pub(crate) bytes_received: Counter,
    /// When the in-band request was taken that is being executed.
    taken: Moment,
}

impl ClientCounters {
    pub(crate) fn new(connected: Duration) -> ClientCounters {
        ClientCounters {
            connected,
            out_of_band: Counter::default(),
            bytes_received: Counter::default(),
            taken: Moment::default(),
        }
    }

    /// An in-band request is being executed from now on.
    pub(crate) fn taken(&self, at: Duration) {
        self.taken.set(Some(at));
    }

    /// It has been answered.
    pub(crate) fn answered(&self) {
        self.taken.set(None);
    }

    pub(crate) fn running_since(&self) -> Option<Duration> {
        self.taken.get()
    }
}

/// A time that may be unset, in nanoseconds.
struct Moment(AtomicU64);

const UNSET: u64 = u64::MAX;

impl Default for Moment {
    fn default() -> Moment {
        Moment(AtomicU64::new(UNSET))
    }
}

impl Moment {
    fn set(&self, at: Option<Duration>) {
        let nanoseconds = at.map_or(UNSET, |at| at.as_nanos().try_into().unwrap_or(UNSET));
        self.0.store(nanoseconds, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        let nanoseconds = self.0.load(Ordering::Relaxed);
        (nanoseconds != UNSET).then(|| Duration::from_nanos(nanoseconds))
    }
}
