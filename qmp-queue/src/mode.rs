// SPDX-License-Identifier: MIT OR Apache-2.0

use std::num::NonZeroUsize;

/// How many items a producer may have with the queue before it is suspended.
///
/// Whether a producer is suspended is never stored, only derived from its mode, the number of its
/// queued items and the number of its items in progress. So a change of mode takes effect at once,
/// whatever is queued.
///
/// ```
/// use qmp_queue::{Mode, Queue};
///
/// assert_eq!(Mode::default(), Mode::UpTo(8.try_into().unwrap()));
///
/// let queue = Queue::new();
/// let producer = queue.register(Mode::OneInProgress);
/// let _ = producer.push("item")?;
/// let popped = queue.try_pop().unwrap();
/// assert!(producer.is_suspended(), "in progress");
/// let _ = producer.set_mode(Mode::default());
/// assert!(!producer.is_suspended(), "what has been popped does not count in this mode");
/// # Ok::<(), qmp_queue::PushError<&str>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// One item at a time: suspended while an item of this producer is queued or in progress.
    ///
    /// An item is in progress from being popped in this mode until its [`Ticket`](crate::Ticket) is
    /// done. An item popped in mode [`UpTo`](Mode::UpTo) never counts as in progress.
    OneInProgress,
    /// Suspended while this many items, or more, are queued. What has been popped no longer counts.
    UpTo(NonZeroUsize),
    /// Suspended like [`UpTo`](Mode::UpTo), but its items are dealt with one after the other: while
    /// one is in progress, those queued behind it are held back, and others are served.
    ///
    /// When the [`Ticket`](crate::Ticket) is done, the producer is back where it belongs in the
    /// order of service.
    ///
    /// ```
    /// use qmp_queue::{Mode, Queue};
    ///
    /// let queue = Queue::new();
    /// let producer = queue.register(Mode::Serial(Mode::DEFAULT_LIMIT));
    /// let _ = producer.push("first")?;
    /// let _ = producer.push("second")?;
    ///
    /// let first = queue.try_pop().unwrap();
    /// assert!(queue.try_pop().is_none(), "held back");
    /// let _ = first.ticket.done();
    /// assert_eq!(queue.try_pop().unwrap().item, "second");
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
    Serial(NonZeroUsize),
}

impl Mode {
    /// The number of queued items that suspends a producer unless it asks for another one.
    pub const DEFAULT_LIMIT: NonZeroUsize = NonZeroUsize::new(8).unwrap();

    #[inline]
    pub(crate) fn suspends(self, queued: usize, in_progress: usize) -> bool {
        match self {
            Mode::OneInProgress => queued + in_progress > 0,
            Mode::UpTo(limit) | Mode::Serial(limit) => queued >= limit.get(),
        }
    }

    /// Whether what is popped counts until it is done.
    #[inline]
    pub(crate) fn counts_progress(self) -> bool {
        !matches!(self, Mode::UpTo(_))
    }

    /// Whether what is queued cannot be popped.
    #[inline]
    pub(crate) fn holds_back(self, in_progress: usize) -> bool {
        in_progress > 0 && matches!(self, Mode::Serial(_))
    }
}

/// [`Mode::UpTo`] [eight](Mode::DEFAULT_LIMIT) items.
impl Default for Mode {
    fn default() -> Self {
        Mode::UpTo(Self::DEFAULT_LIMIT)
    }
}
