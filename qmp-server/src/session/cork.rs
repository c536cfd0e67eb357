// SPDX-License-Identifier: MIT OR Apache-2.0
//! Responses that wait for what follows, so that several go to a client in one write.
//!
//! A response waits only if the thread that executed its request [may cork](Corking): before handlers that are known to
//! be quick. Nothing overtakes it: whatever is written at once writes the corked responses of all clients first, in the
//! order in which they were made.

use std::cell::Cell;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outbox::Outbox;

/// The outboxes of an engine that have corked responses.
#[derive(Default)]
pub(crate) struct Cork {
    /// Whether any response waits or is being written, for a look without the lock.
    any: AtomicBool,
    /// Held while responses are written: who writes something later waits for it. Locked before an outbox.
    writing: Mutex<()>,
    /// Each once, in the order of their responses. Locked after an outbox, never before one.
    outboxes: Mutex<Vec<Arc<Outbox>>>,
}

impl Cork {
    /// Whether a response waits or is being written.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Whether one more response in this outbox would be written after all that were made before it.
    pub(super) fn keeps_order(&self, outbox: &Outbox) -> bool {
        if !self.any() {
            return true;
        }
        let corked = self.lock();
        let others = corked.iter().rev().skip_while(|last| std::ptr::eq(&***last, outbox));
        others.into_iter().all(|other| !std::ptr::eq(&**other, outbox))
    }

    pub(super) fn add(&self, outbox: Arc<Outbox>) {
        let mut corked = self.lock();
        if !corked.last().is_some_and(|last| Arc::ptr_eq(last, &outbox)) {
            corked.push(outbox);
        }
        self.any.store(true, Ordering::SeqCst);
    }

    /// Writes all responses that wait.
    pub(crate) fn flush(&self) {
        if !self.any() {
            return;
        }
        let _in_turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut corked = self.lock();
            if corked.is_empty() {
                return self.any.store(false, Ordering::SeqCst);
            }
            let outboxes = mem::take(&mut *corked);
            drop(corked);
            outboxes.iter().for_each(|outbox| outbox.uncork());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Outbox>>> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static MAY_CORK: Cell<bool> = const { Cell::new(false) };
}

/// As long as this lives, responses that this thread makes may wait.
pub(crate) struct Corking(());

impl Corking {
    pub(crate) fn allow() -> Corking {
        MAY_CORK.set(true);
        Corking(())
    }

    /// Whether this thread may cork.
    pub(super) fn is_allowed() -> bool {
        MAY_CORK.get()
    }
}

impl Drop for Corking {
    fn drop(&mut self) {
        MAY_CORK.set(false);
    }
}
