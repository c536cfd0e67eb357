// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the operations answer.

use std::fmt;
use std::num::NonZeroU64;

use thiserror::Error;

use crate::Ticket;

/// Names a producer: unique within its queue, and never used again after the producer is gone.
///
/// Ids are ordered by registration.
///
/// ```
/// let queue = qmp_queue::Queue::<()>::new();
/// let (first, second) = (queue.register(Default::default()), queue.register(Default::default()));
/// assert!(first.id() < second.id());
/// assert_eq!(second.id().to_string(), "2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub(crate) NonZeroU64);

/// The serial number of the registration, from 1.
impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An item was accepted. Says whether its producer may go on.
///
/// ```
/// use qmp_queue::{Mode, Pushed, Queue};
///
/// let queue = Queue::new();
/// let producer = queue.register(Mode::UpTo(2.try_into().unwrap()));
/// let mut lines = "a\nb\nc".lines();
/// for line in lines.by_ref() {
///     match producer.push(line)? {
///         Pushed::Ready => continue,
///         Pushed::Suspended => break,
///     }
/// }
/// assert_eq!(lines.next(), Some("c"), "is not read until the producer is resumed");
/// # Ok::<(), qmp_queue::PushError<&str>>(())
/// ```
#[must_use = "a suspended producer is to stop reading its input until it is resumed"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pushed {
    /// The producer may push more.
    Ready,
    /// The producer is suspended now: the next push would be refused as [`PushError::Full`].
    Suspended,
}

/// An item was not accepted, and is handed back.
///
/// ```
/// use qmp_queue::{Mode, PushError, Queue};
///
/// let queue = Queue::new();
/// let producer = queue.register(Mode::OneInProgress);
/// let _ = producer.push("first")?;
/// let kept = match producer.push("second") {
///     Err(PushError::Full(item)) => Some(item),
///     _ => None,
/// };
/// assert_eq!(kept, Some("second"), "to be pushed when the producer is resumed");
/// # Ok::<(), PushError<&str>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum PushError<T> {
    /// The producer is suspended.
    #[error("the producer is suspended")]
    Full(T),
    /// The producer or the queue is closed.
    #[error("the producer or its queue is closed")]
    Closed(T),
}

impl<T> PushError<T> {
    /// The item that was not accepted.
    ///
    /// ```
    /// let queue = qmp_queue::Queue::new();
    /// let producer = queue.register(Default::default());
    /// let _ = queue.close();
    /// assert_eq!(producer.push("late").unwrap_err().into_inner(), "late");
    /// ```
    pub fn into_inner(self) -> T {
        match self {
            PushError::Full(item) | PushError::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "Full(..)",
            PushError::Closed(_) => "Closed(..)",
        })
    }
}

/// No item came within the time given: [`Queue::pop_timeout`](crate::Queue::pop_timeout).
///
/// ```
/// use std::time::Duration;
///
/// use qmp_queue::{PopTimeoutError, Queue};
///
/// fn work(queue: &Queue<String>, mut look_around: impl FnMut()) {
///     loop {
///         match queue.pop_timeout(Duration::from_millis(1)) {
///             Ok(popped) => println!("{}", popped.item),
///             Err(PopTimeoutError::Timeout) => look_around(),
///             Err(PopTimeoutError::Closed) => break,
///         }
///     }
/// }
///
/// let queue = Queue::new();
/// work(&queue, || _ = queue.close());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum PopTimeoutError {
    /// The time is over and nothing is queued.
    #[error("nothing was queued within the time given")]
    Timeout,
    /// The queue is closed and nothing is queued, so nothing will come any more.
    #[error("the queue is closed")]
    Closed,
}

/// A producer that was suspended no longer is: tell it to go on.
///
/// There is exactly one of these each time a producer goes from suspended to not suspended. It is
/// returned by the operation that brought this about, except for a producer with a
/// [resume hook](crate::Queue::register_with_hook), where it always goes to the hook instead.
///
/// ```
/// use std::collections::HashMap;
///
/// use qmp_queue::{Mode, Queue, Resume};
///
/// let queue = Queue::new();
/// let producer = queue.register(Mode::UpTo(1.try_into().unwrap()));
/// let mut is_reading = HashMap::from([(producer.id(), true)]);
/// let mut go_on = |resume: Resume| is_reading.insert(resume.producer(), true);
///
/// let _ = producer.push("item")?;
/// let popped = queue.try_pop().unwrap();
/// popped.resume.map(&mut go_on);
/// popped.ticket.done().map(&mut go_on);
/// # Ok::<(), qmp_queue::PushError<&str>>(())
/// ```
#[must_use = "the producer stays silent until somebody tells it to go on"]
#[derive(Debug, PartialEq, Eq)]
pub struct Resume {
    pub(crate) producer: ProducerId,
}

impl Resume {
    /// Whom to resume.
    pub fn producer(&self) -> ProducerId {
        self.producer
    }
}

/// An item, taken from the queue.
///
/// ```
/// let queue = qmp_queue::Queue::new();
/// let producer = queue.register(Default::default());
/// let _ = producer.push('a')?;
/// let _ = producer.push('b')?;
///
/// let popped = queue.try_pop().unwrap();
/// assert_eq!((popped.item, popped.producer, popped.more), ('a', producer.id(), true));
/// assert_eq!(popped.resume, None, "it was not suspended");
/// # Ok::<(), qmp_queue::PushError<char>>(())
/// ```
#[must_use = "this holds the item, and perhaps a producer to resume"]
#[non_exhaustive]
pub struct Popped<T> {
    /// The item itself.
    pub item: T,
    /// Who pushed it.
    pub producer: ProducerId,
    /// Whether more items may be queued, from any producer. While this is true nobody is woken, so
    /// pop again before going to sleep. It may be true for nothing where several threads push.
    pub more: bool,
    /// The producer is to be resumed right away, before the item is dealt with.
    pub resume: Option<Resume>,
    /// To be [done](Ticket::done) or dropped when the item has been dealt with.
    pub ticket: Ticket<T>,
}

impl<T: fmt::Debug> fmt::Debug for Popped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Popped")
            .field("item", &self.item)
            .field("producer", &self.producer)
            .field("more", &self.more)
            .field("resume", &self.resume)
            .finish_non_exhaustive()
    }
}

/// What a producer had queued, taken back by [`clear`](crate::Producer::clear) or
/// [`close`](crate::Producer::close).
///
/// ```
/// let queue = qmp_queue::Queue::new();
/// let (old, new) = (queue.register(Default::default()), queue.register(Default::default()));
/// let _ = old.push("item")?;
/// for item in old.close().items {
///     let _ = new.push(item)?;
/// }
/// assert_eq!(queue.try_pop().unwrap().producer, new.id());
/// # Ok::<(), qmp_queue::PushError<&str>>(())
/// ```
#[must_use = "this holds the items that will never be popped, and perhaps a producer to resume"]
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cleared<T> {
    /// The items, oldest first.
    pub items: Vec<T>,
    /// The producer was suspended and no longer is.
    pub resume: Option<Resume>,
}

/// What was queued by all producers when the queue was [closed](crate::Queue::close).
///
/// ```
/// let queue = qmp_queue::Queue::new();
/// let producer = queue.register(Default::default());
/// let _ = producer.push("item")?;
/// for (who, item) in queue.close().items {
///     assert_eq!(format!("sorry, {who}: {item}"), "sorry, 1: item");
/// }
/// # Ok::<(), qmp_queue::PushError<&str>>(())
/// ```
#[must_use = "this holds the items that will never be popped, and the producers to resume"]
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed<T> {
    /// The items and who pushed them, in the order in which they would have been popped.
    pub items: Vec<(ProducerId, T)>,
    /// The producers that were suspended and no longer are.
    pub resumes: Vec<Resume>,
}
