// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;
use std::sync::{Arc, PoisonError};

use crossbeam_channel::Receiver;

use crate::fair::{Remains, ResumeHook, Taken};
use crate::outcome::{Closed, Popped, Resume};
use crate::shared::{Shared, State, WakeHook, deliver};
use crate::sync::MutexGuard;
use crate::{Mode, Producer, ProducerStats, Ticket};

/// The consumer's handle: registers producers and pops their items, those of the least recently
/// served producer first.
///
/// A clone is another handle to the same queue. When the last one is dropped, the queue is
/// [closed](Queue::close) and what was queued is dropped, since nobody could pop it any more.
/// Producers and tickets do not keep a queue open.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
    handles: Arc<Handles<T>>,
}

/// Shared by all handles, so that its `Drop` runs with the last one.
struct Handles<T>(Arc<Shared<T>>);

impl<T> Drop for Handles<T> {
    fn drop(&mut self) {
        let _ = close(&self.0);
    }
}

impl<T> Queue<T> {
    /// Creates a queue without producers.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// Creates a queue that calls `hook` once each time it goes from idle (nothing can be popped) to
    /// busy, for consumers that sleep in a poll loop of their own: the hook writes to an eventfd or
    /// a pipe, for example.
    ///
    /// The thread whose operation made the queue busy calls the hook, after the item has become
    /// visible to consumers and without any lock held, so the hook may use the queue. If it panics,
    /// Rust's panic hook reports that, and the operation succeeds all the same.
    pub fn with_wake_hook(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::with(Some(Box::new(hook)))
    }

    fn with(wake_hook: Option<WakeHook>) -> Self {
        let shared = Arc::new(Shared::new(wake_hook));
        let handles = Arc::new(Handles(Arc::clone(&shared)));
        Queue { shared, handles }
    }

    /// Registers a producer, ahead of all others in the order of service.
    ///
    /// Its [`Resume`]s are returned by the operations that cause them. Where nothing is returned (a
    /// [`Ticket`] or a [`Producer`] is dropped, or the last [`Queue`] handle) they are lost, though
    /// [`Producer::is_suspended`] is always correct. If that may happen, use
    /// [`register_with_hook`](Queue::register_with_hook).
    ///
    /// On a queue that is closed or finished, the producer is closed from the start.
    pub fn register(&self, mode: Mode) -> Producer<T> {
        self.register_as(None, mode, None)
    }

    /// Registers a producer like [`register`](Queue::register), in a group. Groups are served in turn, the least recently
    /// served first, however many producers they have; within a group, its producers are served as without groups.
    /// Producers that are registered without one are a group of their own.
    pub fn register_in(&self, group: u64, mode: Mode) -> Producer<T> {
        self.register_as(Some(group), mode, None)
    }

    /// Registers a producer like [`register`](Queue::register) whose every [`Resume`] is passed to
    /// `hook` and never returned, whatever caused it: an item popped from a full queue, a [`Ticket`]
    /// dropped by a consumer that unwinds, the end of the queue.
    ///
    /// The thread whose operation resumes the producer calls the hook, without any lock held, so
    /// the hook may use the queue and the producer. Other operations may have suspended the producer
    /// again by then. If the hook panics, Rust's panic hook reports that, and the operation succeeds
    /// all the same.
    pub fn register_with_hook(
        &self,
        mode: Mode,
        hook: impl Fn(Resume) + Send + Sync + 'static,
    ) -> Producer<T> {
        self.register_as(None, mode, Some(Arc::new(hook)))
    }

    fn register_as(&self, group: Option<u64>, mode: Mode, hook: Option<ResumeHook>) -> Producer<T> {
        let key = self.shared.lock().fair.register(group, mode, hook);
        Producer::new(Arc::clone(&self.shared), key)
    }

    /// Takes the oldest item of the least recently served producer that has one. Returns `None` if
    /// nothing can be popped.
    // `inline(always)`, here and further down: returning an item through memory costs as much as
    // locking does.
    #[inline(always)]
    pub fn try_pop(&self) -> Option<Popped<T>> {
        let mut state = self.shared.lock();
        let taken = state.fair.pop()?;
        Some(self.popped(state, taken))
    }

    /// Takes an item like [`try_pop`](Queue::try_pop), and waits until there is one. Returns `None`
    /// when there will never be one: the queue is [closed](Queue::close), or
    /// [finished](Queue::finish) and empty.
    pub fn pop(&self) -> Option<Popped<T>> {
        let mut state = self.shared.lock();
        loop {
            if let Some(taken) = state.fair.pop() {
                return Some(self.popped(state, taken));
            }
            if state.fair.is_exhausted() {
                return None;
            }
            state.sleepers += 1;
            state = self.shared.pushed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleepers -= 1;
        }
    }

    #[inline(always)]
    fn popped(&self, state: MutexGuard<'_, State<T>>, taken: Taken<T>) -> Popped<T> {
        // A push wakes one sleeper. If another push came before that one had woken up, this wakes
        // the next.
        let wakes_another = taken.more && state.sleepers > 0;
        self.shared.wake_if_exhausted(state);
        if wakes_another {
            self.shared.pushed.notify_one();
        }
        let open = taken.in_progress.then(|| (Arc::clone(&self.shared), taken.producer));
        Popped {
            item: taken.item,
            producer: taken.producer.id,
            more: taken.more,
            resume: deliver(taken.resumed),
            ticket: Ticket::new(open),
        }
    }

    /// Returns a channel that receives a token each time the queue has gone from idle to busy, for
    /// consumers that wait in a `select!`.
    ///
    /// The channel has room for one token, and a token that finds it full is dropped. So a token
    /// does not say how many items there are: after receiving one, [pop](Queue::try_pop) until
    /// there are [no more](Popped::more). There may be none if another consumer was faster.
    ///
    /// The channel is disconnected when there will never be anything to pop: the queue is
    /// [closed](Queue::close), or [finished](Queue::finish) and empty.
    ///
    /// ```
    /// use crossbeam_channel::{select, unbounded};
    /// use qmp_queue::{Mode, Queue};
    ///
    /// let queue = Queue::new();
    /// let producer = queue.register(Mode::default());
    /// for n in 1..=3 {
    ///     let _ = producer.push(n)?;
    /// }
    /// queue.finish();
    ///
    /// let (_other_sender, other_work) = unbounded::<i32>();
    /// let mut sum = 0;
    /// loop {
    ///     select! {
    ///         recv(queue.wakeups()) -> token => match token {
    ///             Ok(()) => while let Some(popped) = queue.try_pop() {
    ///                 sum += popped.item;
    ///             },
    ///             Err(_disconnected) => break,
    ///         },
    ///         recv(other_work) -> n => sum += n?,
    ///     }
    /// }
    /// assert_eq!(sum, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wakeups(&self) -> &Receiver<()> {
        self.shared.wakeups()
    }

    /// Makes something of each queued item, and leaves the items where they are. Those of a producer come together, in their
    /// order.
    ///
    /// `look` is called with the queue locked: it must neither block nor use the queue.
    ///
    /// ```
    /// use qmp_queue::{Mode, Queue};
    ///
    /// let queue = Queue::new();
    /// let producer = queue.register(Mode::default());
    /// producer.push("stop").unwrap();
    /// assert_eq!(queue.look(|item| item.len()), [4]);
    /// ```
    pub fn look<R>(&self, look: impl FnMut(&T) -> R) -> Vec<R> {
        self.shared.lock().fair.items().map(look).collect()
    }

    /// Returns the number of queued items of all producers.
    pub fn len(&self) -> usize {
        self.shared.lock().fair.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing can be popped: nothing is queued, or all that is queued is
    /// [held back](Mode::Serial).
    pub fn is_idle(&self) -> bool {
        self.shared.lock().fair.is_idle()
    }

    /// Whether pushes fail, after [`close`](Queue::close) or [`finish`](Queue::finish).
    pub fn is_closed(&self) -> bool {
        self.shared.lock().fair.finished()
    }

    /// Closes the queue and all its producers at once, and returns what was queued.
    ///
    /// From now on, pushes fail with [`PushError::Closed`](crate::PushError::Closed). Threads that
    /// wait in a pop wake up with nothing, [`wakeups`](Queue::wakeups) is disconnected, and every
    /// suspended producer is resumed, even if one of its items is in progress. Closing a closed
    /// queue does nothing.
    pub fn close(&self) -> Closed<T> {
        close(&self.shared)
    }

    /// Closes the queue to new items and producers, and leaves what is queued to be popped.
    ///
    /// From now on, pushes fail with [`PushError::Closed`](crate::PushError::Closed). Suspended
    /// producers are resumed as their items are popped and done. Once everything has been popped,
    /// pops return nothing and [`wakeups`](Queue::wakeups) is disconnected.
    pub fn finish(&self) {
        let mut state = self.shared.lock();
        state.fair.finish();
        self.shared.wake_if_exhausted(state);
    }

    /// Iterates over snapshots of all producers, in no particular order.
    ///
    /// Each snapshot is consistent, but different producers' are taken at different times: the lock
    /// is held for a few producers at a time and never while the caller looks at one, however many
    /// there are. A producer that is registered or closed meanwhile may be missed.
    pub fn stats(&self) -> impl Iterator<Item = ProducerStats> + '_ {
        let mut next = Some(0);
        let mut page = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(stats) = page.next() {
                    return Some(stats);
                }
                let mut fresh = Vec::new();
                next = self.shared.lock().fair.stats_from(next?, &mut fresh);
                page = fresh.into_iter();
            }
        })
    }
}

fn close<T>(shared: &Shared<T>) -> Closed<T> {
    let mut state = shared.lock();
    let Remains { items, resumed, _hooks } = state.fair.close();
    shared.wake_if_exhausted(state);
    let resumes = resumed.into_iter().filter_map(|resumed| deliver(Some(resumed))).collect();
    Closed { items, resumes }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), handles: Arc::clone(&self.handles) }
    }
}

/// [`Queue::new`].
impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
