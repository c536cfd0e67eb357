// SPDX-License-Identifier: MIT OR Apache-2.0
//! Readiness and wake-ups, in mio's words: interest, event, token, waker.

mod aside;
mod clock;
mod epoll;
mod mailbox;
mod registration;
pub(crate) mod sync;
mod token;
mod waker;

pub(crate) use aside::{
    Owner, STRANGERS, close_aside, close_foreign, large_message_aside, look_up_aside,
};
pub use clock::system_time;
pub(crate) use epoll::{Event, Events, Interest, Poll};
pub(crate) use mailbox::{Mailbox, Notice};
pub(crate) use registration::Registration;
pub(crate) use token::Token;
pub(crate) use waker::Waker;
