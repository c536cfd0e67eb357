// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;
use std::sync::Arc;

use crate::fair::{Changed, Key, Removed};
use crate::outcome::{Cleared, ProducerId, PushError, Pushed, Resume};
use crate::shared::{Shared, deliver};
use crate::{Mode, ProducerStats};

/// One producer's end of the queue, made by [`Queue::register`](crate::Queue::register).
///
/// Dropping it closes it: its queued items are dropped, and nobody else's. Items that have been
/// popped are not affected.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    key: Key,
}

impl<T> Producer<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, key: Key) -> Self {
        Self { shared, key }
    }

    /// Returns the id of this producer.
    pub fn id(&self) -> ProducerId {
        self.key.id
    }

    /// Queues an item after this producer's others. Returns whether that suspends the producer.
    ///
    /// If another thread pops, it may have the [`Resume`] of a suspension before this returns. So
    /// a caller that stops reading its input on [`Pushed::Suspended`] has to check
    /// [`is_suspended`](Producer::is_suspended) once it has stopped, or to remember a resume that
    /// came early.
    ///
    /// # Errors
    ///
    /// The item comes back as [`PushError::Full`] while the producer is suspended, and as
    /// [`PushError::Closed`] once the producer or the queue is closed or
    /// [finished](crate::Queue::finish).
    #[inline]
    pub fn push(&self, item: T) -> Result<Pushed, PushError<T>> {
        let mut state = self.shared.lock();
        let accepted = state.fair.push(self.key, item)?;
        self.shared.wake(state, accepted.was_idle);
        Ok(if accepted.suspended { Pushed::Suspended } else { Pushed::Ready })
    }

    /// Changes the mode, whatever is queued or in progress. Does nothing on a closed producer.
    ///
    /// Returns a [`Resume`] if that ends a suspension. If it begins one, only
    /// [`is_suspended`](Producer::is_suspended) shows it.
    #[must_use = "the producer stays silent until it is told to continue"]
    pub fn set_mode(&self, mode: Mode) -> Option<Resume> {
        let mut state = self.shared.lock();
        let Changed { resumed, was_idle } = state.fair.set_mode(self.key, mode);
        self.shared.wake(state, was_idle);
        deliver(resumed)
    }

    /// Whether a push would fail with [`PushError::Full`], were the queue not finished. A closed
    /// producer is never suspended.
    pub fn is_suspended(&self) -> bool {
        self.shared.lock().fair.suspended(self.key)
    }

    /// Whether pushes fail with [`PushError::Closed`]: this producer is closed, or the queue is
    /// closed or [finished](crate::Queue::finish).
    pub fn is_closed(&self) -> bool {
        let state = self.shared.lock();
        state.fair.finished() || !state.fair.contains(self.key)
    }

    /// Returns a snapshot of this producer, or `None` once it or the queue is closed. A queue that
    /// is only [finished](crate::Queue::finish) still has one.
    pub fn stats(&self) -> Option<ProducerStats> {
        self.shared.lock().fair.stats(self.key)
    }

    /// Takes back the queued items. The producer stays open and keeps its place in the order of
    /// service, and its items in progress stay so.
    pub fn clear(&self) -> Cleared<T> {
        let mut state = self.shared.lock();
        let removed = state.fair.clear(self.key);
        self.shared.wake_if_exhausted(state);
        cleared(removed)
    }

    /// Closes this producer and takes back its queued items. From now on, pushes fail with
    /// [`PushError::Closed`].
    ///
    /// A suspended producer is resumed, even if one of its items is in progress. Closing a closed
    /// producer does nothing.
    pub fn close(&self) -> Cleared<T> {
        let mut state = self.shared.lock();
        let removed = state.fair.remove(self.key);
        self.shared.wake_if_exhausted(state);
        cleared(removed)
    }
}

fn cleared<T>(removed: Removed<T>) -> Cleared<T> {
    Cleared { items: removed.items, resume: deliver(removed.resumed) }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("id", &self.id())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
