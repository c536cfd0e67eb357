// SPDX-License-Identifier: MIT OR Apache-2.0
//! Notices: what other threads tell the loop about its sources.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::PoisonError;

use super::sync::{AtomicBool, Mutex, MutexGuard, Ordering};
use super::{Token, Waker};

/// What has happened to a source on another thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A session: it may read on, because one of its requests was answered or taken.
    Resumed,
    /// A session: its out-of-band request was answered.
    Executed,
    /// A session: its client does not take all of its output.
    Blocked,
    /// A session: nothing more can be or is to be written to its client.
    Broken,
    /// A session: its client does not read, and would miss events.
    Overrun,
    /// A session: there may be room in an account that it waits for.
    Room,
    /// A server: its queue may have something to pop.
    Queued,
    /// A server: its dispatcher has an earlier timeout than before.
    Timeout,
    /// A server: its clients take more than they may.
    Excess,
    /// A server: it has been shut down.
    Stop,
    /// A link: somebody wants it to look at its state.
    Wake,
}

/// Where notices are posted from any thread, and taken by the thread that leads the loop.
///
/// The loop announces that it will sleep, then looks once more: so a poster needs a system call only if the loop
/// sleeps, and no notice is left lying.
pub(crate) struct Mailbox {
    posted: Mutex<Vec<(Token, Notice)>>,
    /// Something was posted and not taken. Set after the push, cleared before the take.
    any: AtomicBool,
    /// The loop sleeps or is about to, and has not been woken since.
    sleeping: AtomicBool,
    pub(super) waker: Waker,
}

impl Mailbox {
    pub(crate) fn new() -> io::Result<Mailbox> {
        Ok(Mailbox {
            posted: Mutex::default(),
            any: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            waker: Waker::new()?,
        })
    }

    pub(crate) fn post(&self, token: Token, notice: Notice) {
        self.lock().push((token, notice));
        self.wake();
    }

    /// Makes the loop look at what has changed, even if no notice says so.
    pub(crate) fn wake(&self) {
        self.any.store(true, Ordering::SeqCst);
        self.rouse();
    }

    /// Makes the loop do once more what it does before it sleeps, if it does.
    pub(crate) fn rouse(&self) {
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }

    /// Whether there is anything to take.
    pub(crate) fn has_any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Moves all that was posted into `into`, which must be empty.
    pub(crate) fn take(&self, into: &mut Vec<(Token, Notice)>) {
        self.any.store(false, Ordering::SeqCst);
        mem::swap(&mut *self.lock(), into);
    }

    /// Announces that the loop will sleep. Returns `false` if it must not, because there is something to take.
    pub(crate) fn announce_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        !self.has_any() || {
            self.sleeping.store(false, Ordering::SeqCst);
            false
        }
    }

    /// The loop is awake again.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Token, Notice)>> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readable, as an edge, when a sleeping loop has been woken.
impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}
