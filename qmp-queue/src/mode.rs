// SPDX-License-Identifier: MIT OR Apache-2.0

use std::num::NonZeroUsize;

/// How many items a producer may have with the queue before it is suspended.
///
/// Whether a producer is suspended is never stored, only derived from its mode, the number of its
/// queued items and the number of its items in progress. So a change of mode takes effect at once,
/// whatever is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One item at a time: suspended while an item of this producer is queued or in progress.
    ///
    /// An item is in progress from being popped in this mode until its [`Ticket`](crate::Ticket) is
    /// done. An item popped while its producer was in the other mode never counts as in progress.
    OneInProgress,
    /// Suspended while this many items, or more, are queued. What has been popped no longer counts.
    UpTo(NonZeroUsize),
}

impl Mode {
    /// The number of queued items that suspends a producer unless it asks for another one.
    pub const DEFAULT_LIMIT: NonZeroUsize = NonZeroUsize::new(8).unwrap();

    #[inline]
    pub(crate) fn suspends(self, queued: usize, in_progress: usize) -> bool {
        match self {
            Mode::OneInProgress => queued + in_progress > 0,
            Mode::UpTo(limit) => queued >= limit.get(),
        }
    }
}

/// [`Mode::UpTo`] [eight](Mode::DEFAULT_LIMIT) items.
impl Default for Mode {
    fn default() -> Self {
        Mode::UpTo(Self::DEFAULT_LIMIT)
    }
}
