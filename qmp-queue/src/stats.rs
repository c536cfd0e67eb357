// SPDX-License-Identifier: MIT OR Apache-2.0

use crate::{Mode, ProducerId};

/// A snapshot of one producer, from [`Producer::stats`](crate::Producer::stats) or
/// [`Queue::stats`](crate::Queue::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// The producer.
    pub producer: ProducerId,
    /// Its mode.
    pub mode: Mode,
    /// Number of its queued items.
    pub queued: usize,
    /// Number of its items that were popped in a [`Mode`] that counts them and are not done yet.
    pub in_progress: usize,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Number of its items that have been popped since it was registered.
    pub served: u64,
}
