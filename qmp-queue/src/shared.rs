// SPDX-License-Identifier: MIT OR Apache-2.0
//! The discipline behind a lock, and everybody's way of hearing of it.
//!
//! Nothing of the user's runs while the lock is held: no hook, and no `Drop` of an item or hook. So
//! a panic of theirs finds the structure whole, and they may call back into the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{OnceLock, PoisonError, TryLockError};

use crossbeam_channel::{Receiver, Sender};

use crate::fair::{Fair, Resumed};
use crate::outcome::{ProducerId, Resume};
use crate::sync::{Condvar, Mutex, MutexGuard};

pub(crate) type WakeHook = Box<dyn Fn() + Send + Sync>;

pub(crate) struct State<T> {
    pub(crate) fair: Fair<T>,
    /// How many threads sleep in a blocking pop.
    pub(crate) sleepers: usize,
    /// How many more pushes lend, though they have not waited themselves.
    pub(crate) lending: u32,
    /// Once somebody has asked for wake-ups, and until the queue is closed.
    waker: Option<Sender<()>>,
}

pub(crate) struct Shared<T> {
    state: Mutex<State<T>>,
    pub(crate) pushed: Condvar,
    wakeups: OnceLock<Receiver<()>>,
    wake_hook: Option<WakeHook>,
    pub(crate) service_times: bool,
}

impl<T> Shared<T> {
    pub(crate) fn new(wake_hook: Option<WakeHook>, service_times: bool) -> Self {
        Self {
            state: Mutex::new(State { fair: Fair::new(), sleepers: 0, lending: 0, waker: None }),
            pushed: Condvar::new(),
            wakeups: OnceLock::new(),
            wake_hook,
            service_times,
        }
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Also says whether somebody else had the lock.
    #[inline(always)]
    pub(crate) fn lock_contended(&self) -> (MutexGuard<'_, State<T>>, bool) {
        match self.state.try_lock() {
            Ok(state) => (state, false),
            Err(TryLockError::Poisoned(poisoned)) => (poisoned.into_inner(), false),
            Err(TryLockError::WouldBlock) => (self.lock(), true),
        }
    }

    pub(crate) fn wakeups(&self) -> &Receiver<()> {
        self.wakeups.get_or_init(|| {
            let (waker, wakeups) = crossbeam_channel::bounded(1);
            let mut state = self.lock();
            if !state.fair.finished() {
                if !state.fair.is_idle() {
                    // It went from idle to busy when nobody had asked yet.
                    let _ = waker.try_send(());
                }
                state.waker = Some(waker);
            }
            wakeups
        })
    }

    /// When there is more to pop: releases the lock, then wakes whoever is to hear of it.
    #[inline(always)]
    pub(crate) fn wake(&self, state: MutexGuard<'_, State<T>>, was_idle: bool) {
        let somebody_sleeps = state.sleepers > 0;
        // Looked at under the lock, so that a consumer that takes this very token later is sure to
        // find the item.
        let waker = match &state.waker {
            Some(waker) if was_idle && !waker.is_full() => Some(waker.clone()),
            _ => None,
        };
        drop(state);
        if somebody_sleeps {
            self.pushed.notify_one();
        }
        if let Some(waker) = waker {
            // If it is full by now there is a token, and whoever takes that one will look.
            let _ = waker.try_send(());
        }
        if was_idle && let Some(hook) = &self.wake_hook {
            contain(hook);
        }
    }

    /// After items have gone: releases the lock, then tells those who wait for some if there will
    /// never be any.
    #[inline(always)]
    pub(crate) fn wake_if_exhausted(&self, state: MutexGuard<'_, State<T>>) {
        let in_vain = state.sleepers > 0 && state.fair.is_exhausted();
        drop(state);
        if in_vain {
            self.pushed.notify_all();
        }
    }

    /// After closing: releases the lock, then tells everybody who waits for items.
    pub(crate) fn wake_for_good(&self, mut state: MutexGuard<'_, State<T>>) {
        let waker = state.waker.take();
        drop(state);
        drop(waker);
        self.pushed.notify_all();
    }
}

/// Hands a resume to the producer's hook or, for want of one, to the caller. Called without the
/// lock.
#[inline(always)]
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
