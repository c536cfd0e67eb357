// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one client has done, and what it is doing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::figures::Counter;

pub(crate) struct Tally {
    /// When it connected. Times here are those of the server's [`Figures`](crate::figures::Figures).
    pub(crate) connected: Duration,
    pub(crate) out_of_band: Counter,
    pub(crate) bytes_received: Counter,
    /// Since when a request waits that is to complete negotiation, likewise.
    negotiating: AtomicU64,
    /// When the in-band request was taken that is being executed, in nanoseconds; or [`NOTHING`].
    taken: AtomicU64,
}

const NOTHING: u64 = u64::MAX;

impl Tally {
    pub(crate) fn new(connected: Duration) -> Tally {
        Tally {
            connected,
            out_of_band: Counter::default(),
            bytes_received: Counter::default(),
            negotiating: AtomicU64::new(NOTHING),
            taken: AtomicU64::new(NOTHING),
        }
    }

    /// A request has been queued that is to complete negotiation.
    pub(crate) fn negotiating(&self, at: Duration) {
        self.negotiating.store(nanoseconds(at), Ordering::SeqCst);
    }

    /// It waits no more. Whether it did.
    pub(crate) fn negotiated(&self) -> bool {
        // Not written to without need: this is asked for every request.
        self.negotiating.load(Ordering::Relaxed) != NOTHING
            && self.negotiating.swap(NOTHING, Ordering::SeqCst) != NOTHING
    }

    pub(crate) fn negotiating_since(&self) -> Option<Duration> {
        time(&self.negotiating)
    }

    /// An in-band request has its turn.
    pub(crate) fn taken(&self, at: Duration) {
        self.taken.store(nanoseconds(at), Ordering::Relaxed);
    }

    /// It has been answered.
    pub(crate) fn answered(&self) {
        self.taken.store(NOTHING, Ordering::Relaxed);
    }

    /// When the turn of the request began that is being executed, if one is.
    pub(crate) fn running_since(&self) -> Option<Duration> {
        time(&self.taken)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(NOTHING)
}

fn time(nanoseconds: &AtomicU64) -> Option<Duration> {
    match nanoseconds.load(Ordering::SeqCst) {
        NOTHING => None,
        nanoseconds => Some(Duration::from_nanos(nanoseconds)),
    }
}
