// SPDX-License-Identifier: MIT OR Apache-2.0

use std::num::NonZeroUsize;

/// How many items a producer may have queued or in progress before it is suspended.
///
/// Whether a producer is suspended is never stored, only derived from its mode, the number of its
/// queued items and the number of its items in progress. So a change of mode takes effect at once,
/// whatever is queued.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// One item at a time: suspended while an item of this producer is queued or in progress.
    ///
    /// An item is in progress from being popped in this mode until its [`Ticket`](crate::Ticket) is
    /// done. An item popped in mode [`UpTo`](Mode::UpTo) never counts as in progress.
    OneInProgress,
    /// Suspended while this many items or more are queued. Popped items do not count.
    UpTo(NonZeroUsize),
    /// Suspended like [`UpTo`](Mode::UpTo), but items are processed one after the other: while one
    /// is in progress, those queued after it are held back, and other producers are served.
    ///
    /// When the [`Ticket`](crate::Ticket) is done, the producer is where it belongs in the order of
    /// service.
    Serial(NonZeroUsize),
}

impl Mode {
    /// The limit of [`Mode::default`]: eight items.
    pub const DEFAULT_LIMIT: NonZeroUsize = NonZeroUsize::new(8).unwrap();

    #[inline]
    pub(crate) fn suspends(self, queued: usize, in_progress: usize) -> bool {
        match self {
            Mode::OneInProgress => queued + in_progress > 0,
            Mode::UpTo(limit) | Mode::Serial(limit) => queued >= limit.get(),
        }
    }

    /// Whether a popped item counts until it is done.
    #[inline]
    pub(crate) fn counts_progress(self) -> bool {
        !matches!(self, Mode::UpTo(_))
    }

    /// Whether queued items cannot be popped.
    #[inline]
    pub(crate) fn holds_back(self, in_progress: usize) -> bool {
        in_progress > 0 && matches!(self, Mode::Serial(_))
    }
}

/// [`Mode::UpTo`] [`Mode::DEFAULT_LIMIT`].
impl Default for Mode {
    fn default() -> Self {
        Mode::UpTo(Self::DEFAULT_LIMIT)
    }
}
