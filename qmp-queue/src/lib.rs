// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fair popping from many bounded queues, with back-pressure.

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
