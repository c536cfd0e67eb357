// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fair popping from many bounded queues, with back-pressure.
//!
//! Many producers (clients, connections, tenants) put items into a queue each, and one or more
//! consumers take them out, one at a time. This crate decides *whose item is next*, so that a busy
//! producer cannot starve a quiet one, and *who has to wait*, so that no producer can make memory
//! grow. It knows nothing of what the items are, and does no I/O.
//!
//! # The discipline
//!
//! Each producer has a FIFO queue of its own, and a place in line. A pop serves the first in line
//! that has an item, and the one just served goes to the end of the line. Whoever has nothing
//! queued keeps its place, and a producer that has just been registered goes first.
//!
//! ```text
//!             first in line                          last in line
//!            ┌─────────────┬────────────┬───────────┬────────────┐
//!            │      C      │     A      │     D     │     B      │
//!            │ just        │ waits the  │ has       │ was served │
//!            │ registered  │ longest    │ nothing   │ last       │
//!            ├─────────────┼────────────┼───────────┼────────────┤
//!    queued  │             │ a3 a4 a5   │           │ b7 b8      │
//!            └─────────────┴────────────┴───────────┴────────────┘
//!
//!    pop: a3, and A goes to the end      C  D  B  A
//!    pop: b7, and B goes to the end      C  D  A  B
//!    D pushes d1
//!    pop: d1, before a4 and b8           C  A  B  D
//! ```
//!
//! Between two servings of a producer that has items all the while, every other producer is served
//! at most once. Newcomers go first, so bound how many there can be: clients that connect again and
//! again are served before those that stay. It is the order of a list that is scanned from its head, but nothing is scanned: a
//! pop looks at producers that have items only, and takes as long with a hundred thousand idle ones
//! as with none.
//!
//! # Back-pressure
//!
//! A [`Mode`] says how much a producer may have with the queue: up to so many items queued (eight
//! by default), dealt with [one after the other](Mode::Serial) if that is wanted, or one item until
//! it has been dealt with. The push that reaches the bound is accepted and answers that the producer is now [suspended](Pushed::Suspended): let it stop
//! reading its input. A push while suspended hands the item back. The operation that makes room,
//! typically a pop, answers whom to [`Resume`], exactly once per suspension; or calls the
//! producer's [hook](Queue::register_with_hook).
//!
//! # Example
//!
//! A print server: whoever sends a whole book does not keep the others from printing a page.
//!
//! ```
//! use qmp_queue::{Mode, Pushed, Queue};
//!
//! let printer = Queue::new();
//! let author = printer.register(Mode::UpTo(3.try_into().unwrap()));
//! let visitor = printer.register(Mode::default());
//!
//! let mut book = ["chapter 1", "chapter 2", "chapter 3", "chapter 4"].into_iter();
//! while author.push(book.next().unwrap())? == Pushed::Ready {}
//! assert!(author.is_suspended(), "three chapters are enough for now");
//! assert_eq!(visitor.push("ticket")?, Pushed::Ready);
//!
//! let mut printed = Vec::new();
//! while let Some(popped) = printer.try_pop() {
//!     printed.push(popped.item);
//!     if popped.resume.is_some_and(|resume| resume.producer() == author.id()) {
//!         if let Some(chapter) = book.next() {
//!             let _ = author.push(chapter)?;
//!         }
//!     }
//! }
//! assert_eq!(printed, ["ticket", "chapter 1", "chapter 2", "chapter 3", "chapter 4"]);
//! # Ok::<(), qmp_queue::PushError<&str>>(())
//! ```
//!
//! # Waiting for items
//!
//! - A thread sleeps in [`Queue::pop`] or [`Queue::pop_timeout`].
//! - A `select!` loop has [`Queue::wakeups`] among its channels.
//! - A poll loop of whatever kind has a [wake-up hook](QueueBuilder::wake_hook) that writes to a
//!   descriptor.
//!
//! The latter two are woken once when the queue goes from idle to busy, so they go on popping while
//! there is [more](Popped::more). As a pop takes one item only, they can look after other things in
//! between.
//!
//! # What else one might use
//!
//! | | whose item is next | who has to wait | a pop costs |
//! |---|---|---|---|
//! | one shared bounded channel | whoever pushed first, so whoever pushes most | everybody, once one client has filled it | the same always |
//! | a channel each, round-robin by index | the next by index; a producer that comes or goes moves the others' turns | who has filled their own | more with every idle one |
//! | QEMU's list of monitors | the least recently served, new ones first | who has filled their own | more with every idle one, under a global lock |
//! | this crate | the least recently served, new ones first | who has filled their own | the same always |
//!
//! # What it promises
//!
//! - **Nothing is lost.** Every item is popped, handed back, or dropped because somebody asked for
//!   it: by dropping its [`Producer`], or the last [`Queue`] handle.
//! - **No user code under a lock.** Hooks are called, and items dropped, when no lock is held. They
//!   may use the queue, and panic.
//! - **No mistaken identity.** A [`ProducerId`] is never used again, and a ticket that outlives its
//!   producer does nothing.
//! - **Memory.** An idle producer takes at most 256 bytes, its handle included and its hook not.
//!   What items are kept in passes from producer to producer; after a burst, only what producers
//!   themselves take is kept for the next.
//! - **Complexity.** Push and pop are O(log r) for r producers with items at worst, and O(1) if
//!   those are served in turn. After contention, a pop may also look once at each of the producers
//!   that were served meanwhile and have nothing any more, which those servings pay for.
//!
//! Not included: priorities, weights, time limits for items, and an `async` interface (a
//! [hook](QueueBuilder::wake_hook) that wakes a task is a few lines).

mod fair;
mod lane;
#[cfg(test)]
mod laws;
mod mode;
mod outcome;
mod producer;
mod queue;
mod ready;
mod shared;
mod slab;
mod stats;
mod sync;
mod ticket;

pub use mode::Mode;
pub use outcome::{
    Cleared, Closed, PopTimeoutError, Popped, ProducerId, PushError, Pushed, Resume,
};
pub use producer::Producer;
pub use queue::{Queue, QueueBuilder};
pub use stats::ProducerStats;
pub use ticket::Ticket;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
