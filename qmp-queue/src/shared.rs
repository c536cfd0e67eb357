// SPDX-License-Identifier: MIT OR Apache-2.0
//! The discipline behind a lock, and everybody's way of hearing of it.
//!
//! Nothing of the user's runs while the lock is held: no hook, and no `Drop` of an item or hook. So
//! a panic of theirs finds the structure whole, and they may call back into the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{PoisonError, TryLockError};

use crossbeam_channel::{Receiver, Sender};

use crate::fair::{Fair, Resumed};
use crate::outcome::{ProducerId, Resume};
use crate::sync::{Condvar, Mutex, MutexGuard};

pub(crate) type WakeHook = Box<dyn Fn() + Send + Sync>;

pub(crate) struct State<T> {
    pub(crate) fair: Fair<T>,
    /// How many threads sleep in a blocking pop.
    pub(crate) sleepers: usize,
}

pub(crate) struct Shared<T> {
    state: Mutex<State<T>>,
    pub(crate) pushed: Condvar,
    pub(crate) wakeups: Receiver<()>,
    /// Gone once the queue is closed, which disconnects `wakeups`.
    waker: Mutex<Option<Sender<()>>>,
    wake_hook: Option<WakeHook>,
    pub(crate) service_times: bool,
}

impl<T> Shared<T> {
    pub(crate) fn new(wake_hook: Option<WakeHook>, service_times: bool) -> Self {
        let (waker, wakeups) = crossbeam_channel::bounded(1);
        Self {
            state: Mutex::new(State { fair: Fair::new(), sleepers: 0 }),
            pushed: Condvar::new(),
            wakeups,
            waker: Mutex::new(Some(waker)),
            wake_hook,
            service_times,
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Also says whether somebody else had the lock.
    #[inline]
    pub(crate) fn lock_contended(&self) -> (MutexGuard<'_, State<T>>, bool) {
        match self.state.try_lock() {
            Ok(state) => (state, false),
            Err(TryLockError::Poisoned(poisoned)) => (poisoned.into_inner(), false),
            Err(TryLockError::WouldBlock) => (self.lock(), true),
        }
    }

    /// The queue has gone from idle to busy. Called without the lock.
    #[inline]
    pub(crate) fn wake(&self, token_is_out: bool) {
        if !token_is_out
            && let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner)
        {
            // Full means that a token is out again, and whoever takes that one will look.
            let _ = waker.try_send(());
        }
        if let Some(hook) = &self.wake_hook {
            contain(hook);
        }
    }

    /// Everybody who waits for items learns that none will come. Called without the lock.
    pub(crate) fn wake_all_for_good(&self) {
        self.pushed.notify_all();
        drop(self.waker.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Hands a resume to the producer's hook or, for want of one, to the caller. Called without the
/// lock.
#[inline]
pub(crate) fn deliver(producer: ProducerId, resumed: Option<Resumed>) -> Option<Resume> {
    let Resumed(hook) = resumed?;
    let resume = Resume { producer };
    let Some(hook) = hook else {
        return Some(resume);
    };
    contain(|| hook(resume));
    None
}

/// A hook runs in the middle of somebody else's operation, whose outcome its panic must not
/// swallow. The panic has been reported by the panic hook by the time it is caught.
fn contain(hook: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(hook));
}
