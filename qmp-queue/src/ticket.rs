// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;
use std::sync::Arc;

use crate::fair::{Changed, Key};
use crate::outcome::Resume;
use crate::shared::{Shared, deliver};

/// A popped item that is being processed.
///
/// In [`Mode::OneInProgress`](crate::Mode::OneInProgress), the item's producer is suspended until
/// the ticket is [done](Ticket::done), on any thread and at any time; in
/// [`Mode::Serial`](crate::Mode::Serial), its other items are held back until then. Dropping a
/// ticket marks the item done, too, so a consumer that panics blocks nobody; the [`Resume`] then
/// goes to the producer's [hook](crate::Queue::register_with_hook), if it has one.
#[must_use = "dropping a ticket marks its item as done"]
pub struct Ticket<T> {
    /// `Some` until the item is done, if its producer counts items in progress.
    open: Option<(Arc<Shared<T>>, Key)>,
}

impl<T> Ticket<T> {
    #[inline(always)]
    pub(crate) fn new(open: Option<(Arc<Shared<T>>, Key)>) -> Self {
        Self { open }
    }

    /// Marks the item as done. Returns a [`Resume`] if that ends a suspension of its producer.
    #[must_use = "the producer stays silent until it is told to continue"]
    #[inline(always)]
    pub fn done(mut self) -> Option<Resume> {
        self.settle()
    }

    #[inline(always)]
    fn settle(&mut self) -> Option<Resume> {
        let (shared, producer) = self.open.take()?;
        done(&shared, producer)
    }
}

fn done<T>(shared: &Shared<T>, producer: Key) -> Option<Resume> {
    let mut state = shared.lock();
    let Changed { resumed, was_idle } = state.fair.done(producer);
    if was_idle {
        shared.wake(state, true);
    } else {
        drop(state);
    }
    deliver(resumed)
}

impl<T> Drop for Ticket<T> {
    #[inline(always)]
    fn drop(&mut self) {
        let _ = self.settle();
    }
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("open", &self.open.is_some()).finish()
    }
}
