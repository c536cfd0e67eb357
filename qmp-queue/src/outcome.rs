// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results of queue operations.

use std::fmt;
use std::num::NonZeroU64;

use thiserror::Error;

use crate::Ticket;

/// Identifies a producer. Unique within its queue, never reused, and ordered by registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub(crate) NonZeroU64);

/// The number of the registration, from 1.
impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The result of a push: the item was accepted.
#[must_use = "a suspended producer has to stop reading its input until it is resumed"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pushed {
    /// The producer may push more.
    Ready,
    /// The producer is suspended now: the next push would fail with [`PushError::Full`].
    Suspended,
}

/// An item was not accepted. It is handed back.
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
    /// Returns the item that was not accepted.
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

/// A producer that was suspended no longer is: it may continue.
///
/// There is exactly one of these each time a producer goes from suspended to not suspended. The
/// operation that caused it returns it, unless the producer has a
/// [resume hook](crate::Queue::register_with_hook): then it always goes to the hook instead.
#[must_use = "the producer stays silent until it is told to continue"]
#[derive(Debug, PartialEq, Eq)]
pub struct Resume {
    pub(crate) producer: ProducerId,
}

impl Resume {
    /// Returns the producer that may continue.
    pub fn producer(&self) -> ProducerId {
        self.producer
    }
}

/// An item taken from the queue.
#[must_use = "this holds the item, and perhaps a producer to resume"]
#[non_exhaustive]
pub struct Popped<T> {
    /// The item itself.
    pub item: T,
    /// The producer that pushed it.
    pub producer: ProducerId,
    /// Whether more items can be popped, from any producer. While this is true, no wake-up is sent,
    /// so pop again before going to sleep.
    pub more: bool,
    /// A producer to resume at once, before the item is processed.
    pub resume: Option<Resume>,
    /// To be marked [done](Ticket::done) or dropped when the item has been processed.
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

/// The queued items of one producer, returned by [`clear`](crate::Producer::clear) and
/// [`close`](crate::Producer::close).
#[must_use = "this holds items that will never be popped, and perhaps a producer to resume"]
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cleared<T> {
    /// The items, oldest first.
    pub items: Vec<T>,
    /// `Some` if the producer was suspended and no longer is.
    pub resume: Option<Resume>,
}

/// The queued items of all producers, returned when the queue is [closed](crate::Queue::close).
#[must_use = "this holds items that will never be popped, and the producers to resume"]
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed<T> {
    /// The items with their producers, in the order in which they would have been popped.
    pub items: Vec<(ProducerId, T)>,
    /// The producers that were suspended and no longer are.
    pub resumes: Vec<Resume>,
}
