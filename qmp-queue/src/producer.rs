// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;
use std::sync::Arc;

use crate::fair::{Changed, Key, Refused};
use crate::lane::{Lane, Offer};
use crate::outcome::{Cleared, ProducerId, PushError, Pushed, Resume};
use crate::shared::{Shared, deliver};
use crate::{Mode, ProducerStats};

/// Where one push had to wait for the queue, others will: so many of the next lend too.
const LENDING: u32 = 64;

/// One producer's end of the queue, made by [`Queue::register`](crate::Queue::register).
///
/// Dropping it closes it: its queued items are dropped, nobody else's. Items already popped are not
/// affected.
///
/// ```
/// use qmp_queue::{Mode, PushError, Pushed, Queue};
///
/// let queue = Queue::new();
/// let producer = queue.register(Mode::UpTo(2.try_into().unwrap()));
/// assert_eq!(producer.push('a'), Ok(Pushed::Ready));
/// assert_eq!(producer.push('b'), Ok(Pushed::Suspended));
/// assert_eq!(producer.push('c'), Err(PushError::Full('c')));
///
/// let popped = queue.try_pop().unwrap();
/// assert_eq!(popped.item, 'a');
/// assert_eq!(popped.resume.unwrap().producer(), producer.id());
/// assert_eq!(producer.push('c'), Ok(Pushed::Suspended));
///
/// drop(producer);
/// assert!(queue.is_empty());
/// ```
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    key: Key,
    lane: Arc<Lane<T>>,
}

impl<T> Producer<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, key: Key, lane: Arc<Lane<T>>) -> Self {
        Self { shared, key, lane }
    }

    /// This producer's name.
    pub fn id(&self) -> ProducerId {
        self.key.id
    }

    /// Queues an item behind this producer's others, and says whether that suspends the producer.
    ///
    /// Where another thread pops, the [`Resume`] of a suspension may be with that thread before
    /// this returns. Whoever stops reading on [`Pushed::Suspended`] is to look at
    /// [`is_suspended`](Producer::is_suspended) once it has stopped, or to keep in mind a resume
    /// that came early.
    ///
    /// ```
    /// use qmp_queue::{Mode, PushError, Pushed, Queue};
    ///
    /// let queue = Queue::new();
    /// let producer = queue.register(Mode::OneInProgress);
    /// assert_eq!(producer.push("one"), Ok(Pushed::Suspended));
    /// assert_eq!(producer.push("two"), Err(PushError::Full("two")));
    /// queue.finish();
    /// assert_eq!(producer.push("three"), Err(PushError::Closed("three")));
    /// ```
    ///
    /// # Errors
    ///
    /// The item comes back as [`PushError::Full`] while the producer is suspended, and as
    /// [`PushError::Closed`] once the producer or the queue is closed.
    #[inline]
    pub fn push(&self, item: T) -> Result<Pushed, PushError<T>> {
        let item = match self.lane.offer(item) {
            Offer::Accepted { suspended: true } => return Ok(Pushed::Suspended),
            Offer::Accepted { suspended: false } => return Ok(Pushed::Ready),
            Offer::Full(item) => return Err(PushError::Full(item)),
            Offer::NotLent(item) => item,
        };
        let (mut state, contended) = self.shared.lock_contended();
        let accepted = match state.fair.push(self.key, item) {
            Ok(accepted) => accepted,
            Err(Refused::Full(item)) => return Err(PushError::Full(item)),
            Err(Refused::Closed(item)) => return Err(PushError::Closed(item)),
        };
        if contended {
            state.lending = LENDING;
        }
        if state.lending > 0 {
            state.lending -= 1;
            state.fair.lend(self.key);
        }
        self.shared.wake(state, accepted.was_idle);
        Ok(if accepted.suspended { Pushed::Suspended } else { Pushed::Ready })
    }

    /// Changes the mode, whatever is queued or in progress. Answers a [`Resume`] if that ends a
    /// suspension; one that it begins shows in [`is_suspended`](Producer::is_suspended). Nothing
    /// happens on a closed producer.
    ///
    /// ```
    /// use qmp_queue::{Mode, Pushed, Queue};
    ///
    /// let queue = Queue::new();
    /// let producer = queue.register(Mode::OneInProgress);
    /// assert_eq!(producer.push("negotiate"), Ok(Pushed::Suspended));
    ///
    /// let popped = queue.try_pop().unwrap();
    /// let resume = producer.set_mode(Mode::default());
    /// assert_eq!(resume.unwrap().producer(), producer.id());
    /// assert_eq!(popped.ticket.done(), None, "resumed already");
    /// ```
    #[must_use = "the producer stays silent until somebody tells it to go on"]
    pub fn set_mode(&self, mode: Mode) -> Option<Resume> {
        let mut state = self.shared.lock();
        let Changed { resumed, was_idle } = state.fair.set_mode(self.key, mode);
        self.shared.wake(state, was_idle);
        deliver(self.id(), resumed)
    }

    /// Whether a push would be refused as [`PushError::Full`]. A closed producer is never
    /// suspended; one of a queue that is only [finished](crate::Queue::finish) is until its items
    /// are popped.
    pub fn is_suspended(&self) -> bool {
        self.shared.lock().fair.suspended(self.key)
    }

    /// Whether pushes are refused as [`PushError::Closed`]: this producer is closed, or the queue is
    /// closed or [finished](crate::Queue::finish).
    ///
    /// ```
    /// let queue = qmp_queue::Queue::<()>::new();
    /// let producer = queue.register(Default::default());
    /// assert!(!producer.is_closed());
    /// drop(queue);
    /// assert!(producer.is_closed(), "nobody is left to pop");
    /// ```
    pub fn is_closed(&self) -> bool {
        let state = self.shared.lock();
        state.fair.finished() || !state.fair.contains(self.key)
    }

    /// This producer's figures; `None` once it or the queue is closed. A queue that is
    /// [finished](crate::Queue::finish) still has them.
    ///
    /// ```
    /// let queue = qmp_queue::Queue::new();
    /// let producer = queue.register(Default::default());
    /// let _ = producer.push('a')?;
    /// let _ = producer.push('b')?;
    /// let _ = queue.try_pop();
    ///
    /// let stats = producer.stats().unwrap();
    /// assert_eq!((stats.served, stats.queued, stats.suspended), (1, 1, false));
    /// let _ = producer.close();
    /// assert_eq!(producer.stats(), None);
    /// # Ok::<(), qmp_queue::PushError<char>>(())
    /// ```
    pub fn stats(&self) -> Option<ProducerStats> {
        self.shared.lock().fair.stats(self.key)
    }

    /// Takes back what is queued. The producer stays open, and where it is in the order of service.
    /// An item in progress stays so.
    ///
    /// ```
    /// use qmp_queue::{Mode, Pushed, Queue};
    ///
    /// let queue = Queue::new();
    /// let producer = queue.register(Mode::UpTo(2.try_into().unwrap()));
    /// let _ = producer.push('a')?;
    /// assert_eq!(producer.push('b')?, Pushed::Suspended);
    ///
    /// let cleared = producer.clear();
    /// assert_eq!(cleared.items, ['a', 'b']);
    /// assert_eq!(cleared.resume.unwrap().producer(), producer.id());
    /// assert_eq!(producer.push('c')?, Pushed::Ready);
    /// # Ok::<(), qmp_queue::PushError<char>>(())
    /// ```
    pub fn clear(&self) -> Cleared<T> {
        let mut state = self.shared.lock();
        let removed = state.fair.clear(self.key);
        self.shared.wake_if_exhausted(state);
        Cleared { items: removed.items, resume: deliver(self.id(), removed.resumed) }
    }

    /// Closes this producer and takes back what it has queued. Pushes are refused as
    /// [`PushError::Closed`] from now on. A suspended producer is resumed, though one of its items
    /// be in progress. Closing a closed producer does nothing.
    ///
    /// ```
    /// use qmp_queue::{PushError, Queue};
    ///
    /// let queue = Queue::new();
    /// let (leaving, staying) = (queue.register(Default::default()), queue.register(Default::default()));
    /// let _ = leaving.push("mine")?;
    /// let _ = staying.push("not mine")?;
    ///
    /// assert_eq!(leaving.close().items, ["mine"]);
    /// assert_eq!(leaving.push("late"), Err(PushError::Closed("late")));
    /// assert_eq!(queue.try_pop().unwrap().item, "not mine");
    /// # Ok::<(), PushError<&str>>(())
    /// ```
    pub fn close(&self) -> Cleared<T> {
        let mut state = self.shared.lock();
        let removed = state.fair.remove(self.key);
        self.shared.wake_if_exhausted(state);
        Cleared { items: removed.items, resume: deliver(self.id(), removed.resumed) }
    }
}

#[cfg(test)]
impl<T> Producer<T> {
    /// What a push does that has to wait for the queue.
    pub(crate) fn lend(&self) {
        self.shared.lock().fair.lend(self.key);
    }
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
