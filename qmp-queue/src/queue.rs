// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::fair::{Remains, Taken};
use crate::lane::{Lane, ResumeHook};
use crate::outcome::{Closed, PopTimeoutError, Popped, Resume};
use crate::shared::{Shared, State, WakeHook, deliver};
use crate::sync::MutexGuard;
use crate::{Mode, Producer, ProducerStats, Ticket};

/// The consumer's handle: registers producers and takes their items, the least recently served
/// producer's first.
///
/// A clone is another handle to the same queue. When the last one is dropped the queue is
/// [closed](Queue::close), and what was queued is dropped: without a handle nobody could ever pop
/// it. Producers and tickets do not keep it open.
///
/// ```
/// use qmp_queue::{Mode, Queue};
///
/// let queue = Queue::new();
/// let busy = queue.register(Mode::default());
/// let other = queue.register(Mode::default());
/// for n in 0..3 {
///     let _ = busy.push(format!("busy {n}"))?;
/// }
/// let _ = other.push("other 0".to_owned())?;
///
/// let order: Vec<_> = std::iter::from_fn(|| queue.try_pop()).map(|popped| popped.item).collect();
/// assert_eq!(order, ["other 0", "busy 0", "busy 1", "busy 2"]);
/// # Ok::<(), qmp_queue::PushError<String>>(())
/// ```
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
    handles: Arc<Handles<T>>,
}

/// Counts the handles, by being shared by them.
struct Handles<T>(Arc<Shared<T>>);

impl<T> Drop for Handles<T> {
    fn drop(&mut self) {
        let _ = close(&self.0);
    }
}

/// Makes a [`Queue`] with other than the default properties.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let wakeups = Arc::new(AtomicUsize::new(0));
/// let counter = Arc::clone(&wakeups);
/// let queue = qmp_queue::QueueBuilder::new()
///     .wake_hook(move || _ = counter.fetch_add(1, Ordering::Relaxed))
///     .service_times(true)
///     .build();
///
/// let producer = queue.register(qmp_queue::Mode::default());
/// let _ = producer.push("busy now")?;
/// let _ = producer.push("still busy")?;
/// assert_eq!(wakeups.load(Ordering::Relaxed), 1);
/// # Ok::<(), qmp_queue::PushError<&str>>(())
/// ```
#[derive(Default)]
pub struct QueueBuilder {
    wake_hook: Option<WakeHook>,
    service_times: bool,
}

impl QueueBuilder {
    /// The default properties.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `hook` once each time the queue goes from idle (nothing queued) to busy, for consumers
    /// that sleep in a poll loop of their own: let it write to an eventfd or a pipe, say.
    ///
    /// The thread that pushed calls it, after the item has become visible to poppers and without
    /// any lock held, so it may use the queue. Should it panic, the panic is caught and dropped
    /// after Rust's panic hook has reported it, and the push stands.
    ///
    /// By default, there is none.
    #[must_use]
    pub fn wake_hook(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.wake_hook = Some(Box::new(hook));
        self
    }

    /// Keeps the time of each producer's last serving for [`ProducerStats::last_served`]. This
    /// reads the clock at every pop, which may well double what a pop costs.
    ///
    /// By default, this is off.
    #[must_use]
    pub fn service_times(mut self, keep: bool) -> Self {
        self.service_times = keep;
        self
    }

    /// The queue.
    pub fn build<T>(self) -> Queue<T> {
        let shared = Arc::new(Shared::new(self.wake_hook, self.service_times));
        let handles = Arc::new(Handles(Arc::clone(&shared)));
        Queue { shared, handles }
    }
}

impl fmt::Debug for QueueBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder")
            .field("wake_hook", &self.wake_hook.is_some())
            .field("service_times", &self.service_times)
            .finish()
    }
}

impl<T> Queue<T> {
    /// A queue without producers.
    pub fn new() -> Self {
        QueueBuilder::new().build()
    }

    /// A queue that calls `hook` once per idle-to-busy transition, as described at
    /// [`QueueBuilder::wake_hook`].
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// let (wake, wakeups) = mpsc::channel();
    /// let queue = qmp_queue::Queue::with_wake_hook(move || _ = wake.send(()));
    /// let producer = queue.register(Default::default());
    /// let _ = producer.push("busy now")?;
    /// assert!(wakeups.try_recv().is_ok());
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
    pub fn with_wake_hook(hook: impl Fn() + Send + Sync + 'static) -> Self {
        QueueBuilder::new().wake_hook(hook).build()
    }

    /// Registers a producer, ahead of all others in the order of service.
    ///
    /// Its [`Resume`]s are returned by the operations that bring them about. Where such an
    /// operation has nobody to return them to (a [`Ticket`] or a [`Producer`] that is just dropped,
    /// the last [`Queue`] handle that goes away) they are lost, though [`Producer::is_suspended`]
    /// always tells the truth; if that may happen, use
    /// [`register_with_hook`](Queue::register_with_hook).
    ///
    /// On a queue that is closed or finished, the producer is closed from the start.
    ///
    /// ```
    /// let queue = qmp_queue::Queue::new();
    /// let old = queue.register(Default::default());
    /// let _ = old.push("old")?;
    /// let new = queue.register(Default::default());
    /// let _ = new.push("new")?;
    /// assert_eq!(queue.try_pop().unwrap().item, "new");
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If there are as many producers as a `u32` can number.
    pub fn register(&self, mode: Mode) -> Producer<T> {
        self.register_as(mode, None)
    }

    /// Registers a producer like [`register`](Queue::register), whose every [`Resume`] goes to
    /// `hook`, whatever brought it about, and is never returned: an item popped from a full queue,
    /// a [`Ticket`] dropped by a consumer that unwinds, the end of the queue.
    ///
    /// The thread whose operation resumes the producer calls the hook, without any lock held, so it
    /// may use the queue and the producer. By then other operations may have suspended the producer
    /// again. Should the hook panic, the panic is caught and dropped after Rust's panic hook has
    /// reported it, and the operation stands.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use qmp_queue::{Mode, Pushed, Queue};
    ///
    /// let (resumed, resumes) = mpsc::channel();
    /// let queue = Queue::new();
    /// let producer = queue.register_with_hook(Mode::OneInProgress, move |resume| _ = resumed.send(resume.producer()));
    ///
    /// assert_eq!(producer.push("item")?, Pushed::Suspended);
    /// let popped = queue.try_pop().unwrap();
    /// drop(popped);
    /// assert_eq!(resumes.try_recv(), Ok(producer.id()));
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
    pub fn register_with_hook(
        &self,
        mode: Mode,
        hook: impl Fn(Resume) + Send + Sync + 'static,
    ) -> Producer<T> {
        self.register_as(mode, Some(Arc::new(hook)))
    }

    fn register_as(&self, mode: Mode, hook: Option<ResumeHook>) -> Producer<T> {
        let lane = Arc::new(Lane::new(hook));
        let key = self.shared.lock().fair.register(mode, Arc::clone(&lane));
        Producer::new(Arc::clone(&self.shared), key, lane)
    }

    /// Takes the oldest item of the least recently served producer that has one; `None` if nothing
    /// can be popped.
    ///
    /// ```
    /// let queue = qmp_queue::Queue::new();
    /// let producer = queue.register(Default::default());
    /// assert!(queue.try_pop().is_none());
    /// let _ = producer.push("item")?;
    /// assert_eq!(queue.try_pop().unwrap().item, "item");
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
    // By force, here and further down: handing an item up in memory costs as much as a lock.
    #[inline(always)]
    pub fn try_pop(&self) -> Option<Popped<T>> {
        let mut state = self.shared.lock();
        let taken = state.fair.pop(self.now())?;
        Some(self.popped(state, taken))
    }

    /// Takes an item like [`try_pop`](Queue::try_pop), and sleeps until there is one. `None` when
    /// the queue is [closed](Queue::close), or [finished](Queue::finish) and empty.
    ///
    /// ```
    /// let queue = qmp_queue::Queue::new();
    /// let worker = {
    ///     let queue = queue.clone();
    ///     std::thread::spawn(move || std::iter::from_fn(|| queue.pop()).map(|popped| popped.item).sum())
    /// };
    /// let producer = queue.register(Default::default());
    /// let _ = producer.push(3)?;
    /// let _ = producer.push(4)?;
    /// queue.finish();
    /// assert_eq!(worker.join().ok(), Some(7));
    /// # Ok::<(), qmp_queue::PushError<i32>>(())
    /// ```
    pub fn pop(&self) -> Option<Popped<T>> {
        let mut state = self.shared.lock();
        loop {
            if let Some(taken) = state.fair.pop(self.now()) {
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

    /// Takes an item like [`pop`](Queue::pop), but sleeps no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// [`PopTimeoutError::Timeout`] if nothing was queued in that time, [`PopTimeoutError::Closed`]
    /// where [`pop`](Queue::pop) says `None`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use qmp_queue::{PopTimeoutError, Queue};
    ///
    /// let queue = Queue::<()>::new();
    /// let waited = queue.pop_timeout(Duration::from_millis(1));
    /// assert_eq!(waited.unwrap_err(), PopTimeoutError::Timeout);
    /// queue.finish();
    /// let waited = queue.pop_timeout(Duration::MAX);
    /// assert_eq!(waited.unwrap_err(), PopTimeoutError::Closed);
    /// ```
    pub fn pop_timeout(&self, timeout: Duration) -> Result<Popped<T>, PopTimeoutError> {
        // A time too far off to be represented is never reached.
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.shared.lock();
        loop {
            if let Some(taken) = state.fair.pop(self.now()) {
                return Ok(self.popped(state, taken));
            }
            if state.fair.is_exhausted() {
                return Err(PopTimeoutError::Closed);
            }
            let left = deadline
                .map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(PopTimeoutError::Timeout);
            }
            state.sleepers += 1;
            state = self
                .shared
                .pushed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.sleepers -= 1;
        }
    }

    #[inline(always)]
    fn now(&self) -> Option<Instant> {
        self.shared.service_times.then(Instant::now)
    }

    #[inline(always)]
    fn popped(&self, state: MutexGuard<'_, State<T>>, taken: Taken<T>) -> Popped<T> {
        // A push into a busy queue may have woken nobody, and one that found it idle wakes only one
        // of several sleepers.
        let somebody_sleeps = taken.more && state.sleepers > 0;
        self.shared.wake_if_exhausted(state);
        if somebody_sleeps {
            self.shared.pushed.notify_one();
        }
        let resume = deliver(taken.producer.id, taken.resumed);
        let open =
            if taken.in_progress { Some((Arc::clone(&self.shared), taken.producer)) } else { None };
        Popped {
            item: taken.item,
            producer: taken.producer.id,
            more: taken.more,
            resume,
            ticket: Ticket::new(open),
        }
    }

    /// Receives a token each time the queue has gone from idle to busy, for consumers that wait in
    /// a `select!`.
    ///
    /// The channel has room for one token and a token that finds it full is dropped, so a token
    /// says "look", not how much there is: after receiving one, [pop](Queue::try_pop) until there
    /// is [no more](Popped::more), or see to it that somebody does. Nothing else takes tokens out,
    /// so there may be one though all has been popped meanwhile. Once the queue is
    /// [closed](Queue::close) or [finished](Queue::finish), the channel is disconnected.
    ///
    /// ```
    /// use crossbeam_channel::{never, select};
    /// use qmp_queue::{Mode, Queue};
    ///
    /// let queue = Queue::new();
    /// let producer = queue.register(Mode::default());
    /// for n in 1..=3 {
    ///     let _ = producer.push(n)?;
    /// }
    ///
    /// let (mut sum, other_work) = (0, never::<()>());
    /// select! {
    ///     recv(queue.wakeups()) -> _ => while let Some(popped) = queue.try_pop() {
    ///         sum += popped.item;
    ///     },
    ///     recv(other_work) -> _ => {}
    /// }
    /// assert_eq!(sum, 6);
    /// # Ok::<(), qmp_queue::PushError<i32>>(())
    /// ```
    pub fn wakeups(&self) -> &Receiver<()> {
        self.shared.wakeups()
    }

    /// How many items are queued, from all producers together.
    pub fn len(&self) -> usize {
        self.shared.lock().fair.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing can be popped: nothing is queued, or what is waits for items of its producers
    /// [in progress](Mode::Serial).
    ///
    /// ```
    /// use qmp_queue::{Mode, Queue};
    ///
    /// let queue = Queue::new();
    /// let producer = queue.register(Mode::Serial(Mode::DEFAULT_LIMIT));
    /// let _ = producer.push("first")?;
    /// let _ = producer.push("second")?;
    /// let first = queue.try_pop();
    /// assert!(queue.is_idle(), "the second waits for the first");
    /// assert_eq!(queue.len(), 1);
    /// drop(first);
    /// assert!(!queue.is_idle());
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
    pub fn is_idle(&self) -> bool {
        self.shared.lock().fair.nothing_to_pop()
    }

    /// Whether pushes are refused, after [`close`](Queue::close) or [`finish`](Queue::finish).
    pub fn is_closed(&self) -> bool {
        self.shared.lock().fair.finished()
    }

    /// Closes the queue and all its producers at once, and hands back what was queued.
    ///
    /// Pushes are refused as [`PushError::Closed`](crate::PushError::Closed) from now on, whoever
    /// sleeps in a pop wakes up with nothing, [`wakeups`](Queue::wakeups) is disconnected, and
    /// every suspended producer is resumed, though one of its items be in progress. Closing a
    /// closed queue does nothing.
    ///
    /// ```
    /// let queue = qmp_queue::Queue::new();
    /// let producer = queue.register(qmp_queue::Mode::OneInProgress);
    /// let _ = producer.push("never done")?;
    ///
    /// let closed = queue.close();
    /// assert_eq!(closed.items, [(producer.id(), "never done")]);
    /// assert_eq!(closed.resumes[0].producer(), producer.id());
    /// assert!(producer.push("late").is_err() && queue.pop().is_none());
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
    pub fn close(&self) -> Closed<T> {
        close(&self.shared)
    }

    /// Closes the queue to new items and producers, and leaves what is queued to be popped.
    ///
    /// Pushes are refused as [`PushError::Closed`](crate::PushError::Closed) from now on. Whoever
    /// sleeps in a pop wakes up with nothing, and later pops answer so, once all is popped.
    /// [`wakeups`](Queue::wakeups) is disconnected. Suspended producers are resumed as their items
    /// are popped and done.
    ///
    /// ```
    /// let queue = qmp_queue::Queue::new();
    /// let producer = queue.register(Default::default());
    /// let _ = producer.push("the last one")?;
    /// queue.finish();
    /// assert!(producer.push("late").is_err());
    /// assert_eq!(queue.pop().unwrap().item, "the last one");
    /// assert!(queue.pop().is_none(), "and none will come");
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
    pub fn finish(&self) {
        let mut state = self.shared.lock();
        state.fair.finish();
        self.shared.wake_for_good(state);
    }

    /// Looks at every producer, in no particular order.
    ///
    /// Each producer's figures are of one moment, those of different producers of different
    /// moments: the lock is taken for a few producers at a time and never while the caller looks at
    /// one, however many there are. One that is registered or closed meanwhile may be missed.
    ///
    /// ```
    /// let queue = qmp_queue::Queue::new();
    /// let busy = queue.register(Default::default());
    /// let _idle = queue.register(Default::default());
    /// let _ = busy.push("item")?;
    /// let queued: Vec<_> = queue.stats().filter(|stats| stats.queued > 0).collect();
    /// assert_eq!(queued.len(), 1);
    /// assert_eq!(queued[0].producer, busy.id());
    /// # Ok::<(), qmp_queue::PushError<&str>>(())
    /// ```
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
    let Remains { items, resumed, _lanes } = state.fair.close();
    shared.wake_for_good(state);
    let resumes = resumed
        .into_iter()
        .filter_map(|(producer, resumed)| deliver(producer, Some(resumed)))
        .collect();
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
