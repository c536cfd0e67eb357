// SPDX-License-Identifier: MIT OR Apache-2.0

use std::time::{Duration, Instant};

use crate::{Mode, ProducerId};

/// What an operator may want to know of one producer, as of one moment.
///
/// From [`Producer::stats`](crate::Producer::stats) for one, from
/// [`Queue::stats`](crate::Queue::stats) for all.
///
/// ```
/// use qmp_queue::{Mode, Queue};
///
/// let queue = Queue::new();
/// let producer = queue.register(Mode::OneInProgress);
/// let _ = producer.push("item")?;
/// let _popped = queue.try_pop();
///
/// let stats = producer.stats().unwrap();
/// assert_eq!((stats.queued, stats.in_progress, stats.served), (0, 1, 1));
/// assert!(stats.suspended);
/// # Ok::<(), qmp_queue::PushError<&str>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Whose figures these are.
    pub producer: ProducerId,
    /// Its mode.
    pub mode: Mode,
    /// How many of its items are queued.
    pub queued: usize,
    /// How many of its items, popped in a [`Mode`] that counts them, are not done yet.
    pub in_progress: usize,
    /// Whether it is suspended.
    pub suspended: bool,
    /// How many of its items have been popped since it was registered.
    pub served: u64,
    /// When its last item was popped. `None` if none was, or if the queue was not told to
    /// [keep service times](crate::QueueBuilder::service_times).
    pub last_served: Option<Instant>,
}

impl ProducerStats {
    /// The time since this producer's last item was popped; `None` where
    /// [`last_served`](Self::last_served) is.
    ///
    /// ```
    /// use qmp_queue::{PushError, QueueBuilder};
    ///
    /// let queue = QueueBuilder::new().service_times(true).build();
    /// let producer = queue.register(Default::default());
    /// let _ = producer.push("item")?;
    /// assert_eq!(producer.stats().unwrap().since_served(), None, "not served yet");
    /// let _ = queue.try_pop();
    /// assert!(producer.stats().unwrap().since_served().is_some());
    /// # Ok::<(), PushError<&str>>(())
    /// ```
    pub fn since_served(&self) -> Option<Duration> {
        self.last_served.map(|at| at.elapsed())
    }
}
