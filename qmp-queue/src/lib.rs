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
//! Each producer has a FIFO queue of its own and a place in the order of service. A pop serves the
//! first producer that has an item, and moves it to the end. A producer with nothing queued keeps
//! its place, and a new producer goes first.
//!
//! ```text
//!                first                                    last
//!            ┌─────────────┬────────────┬───────────┬────────────┐
//!            │      C      │     A      │     D     │     B      │
//!            │ just        │ waits      │ has       │ was served │
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
//! Between two servings of a producer that always has items, every other producer is served at most
//! once. New producers go first, so limit how many there can be: a client that keeps reconnecting is
//! always served ahead of one that stays. The order is that of a list that is scanned from its head,
//! but nothing is scanned: a pop looks only at producers that have items, and takes as long with a
//! hundred thousand idle ones as with none.
//!
//! # Back-pressure
//!
//! A [`Mode`] limits what a producer may have in the queue: a number of queued items (eight by
//! default), which may be processed [one after the other](Mode::Serial), or a single item until it
//! has been processed. The push that reaches the limit is accepted and returns that the producer is
//! now [suspended](Pushed::Suspended), so it should stop reading its input. A push while suspended
//! hands the item back. The operation that makes room, typically a pop, returns whom to [`Resume`],
//! exactly once for each suspension, or calls the producer's [hook](Queue::register_with_hook).
//!
//! # Example
//!
//! A print server: a client that prints a whole book does not keep others from printing a page.
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
//! - A thread waits in [`Queue::pop`].
//! - A `select!` loop has [`Queue::wakeups`] among its channels (`examples/select.rs`).
//! - Any other poll loop has a [wake-up hook](Queue::with_wake_hook) that writes to a descriptor.
//!
//! The latter two are woken once when the queue goes from idle to busy, so they have to pop until
//! there is [no more](Popped::more). A pop takes one item, so they can do other things in between.
//!
//! # Alternatives
//!
//! | | whose item is next | who has to wait | cost of a pop |
//! |---|---|---|---|
//! | one shared bounded channel | the oldest, so mostly of the client that pushes most | everybody, once one client has filled it | constant |
//! | a channel each, round-robin by index | the next by index; a producer that comes or goes shifts the others' turns | the client that has filled its own | grows with idle producers |
//! | QEMU's list of monitors | of the least recently served, new ones first | the client that has filled its own | grows with idle producers, under a global lock |
//! | this crate | of the least recently served, new ones first | the client that has filled its own | constant |
//!
//! # Promises
//!
//! - **No item is lost.** Every item is popped, handed back, or dropped with its [`Producer`] or the
//!   last [`Queue`] handle.
//! - **No user code under a lock.** Hooks are called and items are dropped without any lock held.
//!   They may use the queue, and panic.
//! - **No mistaken identity.** A [`ProducerId`] is never reused, and a ticket that outlives its
//!   producer does nothing.
//! - **Memory.** An idle producer takes at most 256 bytes, its handle included and its hook not.
//!   After a burst, only the producers' own memory is kept, and 64 empty buffers.
//! - **Complexity.** Push and pop are O(log r) for r producers with items, and O(1) as long as those
//!   are served in turn. The number of idle producers does not matter.
//!
//! Not included: priorities, weights, deadlines of items, and an `async` interface (a
//! [hook](Queue::with_wake_hook) that wakes a task takes a few lines).

mod fair;
mod mode;
mod outcome;
mod producer;
mod queue;
mod ready;
mod shared;
mod stats;
mod sync;
mod ticket;

pub use mode::Mode;
pub use outcome::{Cleared, Closed, Popped, ProducerId, PushError, Pushed, Resume};
pub use producer::Producer;
pub use queue::Queue;
pub use stats::ProducerStats;
pub use ticket::Ticket;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
