// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server has done, counted where it is done. Never with a lock: requests come by here.

use std::time::{Duration, Instant};

use super::counter::Counter;
use super::histogram::Histogram;

/// What a server counts: figures that only grow.
pub(crate) struct Counters {
    began: Instant,
    pub(crate) greeted: Counter,
    refused: [Counter; Refusal::ALL.len()],
    cut_off: [Counter; CutOff::ALL.len()],
    /// How often a client could not be accepted.
    pub(crate) accept_failures: Counter,
    /// Requests that have been read.
    pub(crate) in_band: Counter,
    pub(crate) out_of_band: Counter,
    pub(crate) suspensions: Counter,
    /// How long in-band requests have waited for their turn.
    pub(crate) waited: Histogram,
    /// How long requests took from their turn to their answer.
    pub(crate) executed: Histogram,
    pub(crate) executed_out_of_band: Histogram,
    /// Each event as often as it went to a client, or did not.
    pub(crate) events_sent: Counter,
    pub(crate) events_dropped: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
}

/// Figures of a server that go up and down.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) clients: usize,
    pub(crate) suspended: usize,
    pub(crate) queued: usize,
    pub(crate) executing: usize,
    pub(crate) kept_bytes: usize,
}

/// Why a client was not greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not among those who may connect.
    Access,
    /// Its transport did not get as far as that, or not in time.
    Handshake,
    /// There are too many others.
    Limit,
}

impl Refusal {
    pub(crate) const ALL: [Refusal; 3] = [Refusal::Access, Refusal::Handshake, Refusal::Limit];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Refusal::Access => "access",
            Refusal::Handshake => "handshake",
            Refusal::Limit => "limit",
        }
    }
}

/// Why a client was disconnected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutOff {
    /// It has not read anything for too long.
    Stalled,
    /// Too many bytes were kept.
    Bytes,
    /// It did not read, and would have missed events.
    Events,
}

impl CutOff {
    pub(crate) const ALL: [CutOff; 3] = [CutOff::Stalled, CutOff::Bytes, CutOff::Events];

    pub(crate) fn name(self) -> &'static str {
        match self {
            CutOff::Stalled => "stalled",
            CutOff::Bytes => "bytes",
            CutOff::Events => "events",
        }
    }
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            began: Instant::now(),
            greeted: Counter::default(),
            refused: Default::default(),
            cut_off: Default::default(),
            accept_failures: Counter::default(),
            in_band: Counter::default(),
            out_of_band: Counter::default(),
            suspensions: Counter::default(),
            waited: Histogram::default(),
            executed: Histogram::default(),
            executed_out_of_band: Histogram::default(),
            events_sent: Counter::default(),
            events_dropped: Counter::default(),
            bytes_received: Counter::default(),
            bytes_sent: Counter::default(),
        }
    }

    /// What time it is, from when the figures began.
    pub(crate) fn now(&self) -> Duration {
        self.at(Instant::now())
    }

    /// The same for a time that is known.
    pub(crate) fn at(&self, time: Instant) -> Duration {
        time.saturating_duration_since(self.began)
    }

    pub(crate) fn refused(&self, why: Refusal) -> &Counter {
        &self.refused[why as usize]
    }

    pub(crate) fn cut_off(&self, why: CutOff) -> &Counter {
        &self.cut_off[why as usize]
    }
}
