// SPDX-License-Identifier: MIT OR Apache-2.0
//! What other threads have for the main thread, which alone changes the table of machines.

use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::orders::Order;
use crate::Failure;

/// Readable when there is something to [take](Inbox::take).
pub(super) struct Inbox {
    /// `None` once it is closed. A client has at most two orders here, one of them out-of-band: it waits for their answers.
    messages: Mutex<Option<Vec<Message>>>,
    waker: OwnedFd,
}

pub(super) enum Message {
    /// The machine of this name has ended.
    Ended(Option<String>),
    /// An operator wants something.
    Order(Order),
}

impl Inbox {
    pub(super) fn new() -> Result<Inbox, Failure> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Inbox { messages: Mutex::new(Some(Vec::new())), waker: waker.map_err(Failure::usage)? })
    }

    /// Leaves a message. If the inbox is closed, it is dropped, and an order is answered with an error by that.
    pub(super) fn post(&self, message: Message) {
        if let Some(messages) = &mut *self.messages() {
            messages.push(message);
            let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
        }
    }

    pub(super) fn take(&self) -> Vec<Message> {
        // First, so that what is left after they have been taken wakes again.
        let _ = rustix::io::read(&self.waker, &mut [0; 8]);
        self.messages().as_mut().map(take).unwrap_or_default()
    }

    /// Drops all that is there, and all that comes.
    pub(super) fn close(&self) {
        let messages = self.messages().take();
        // Without the lock: answers call into the server.
        drop(messages);
    }

    fn messages(&self) -> MutexGuard<'_, Option<Vec<Message>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}
