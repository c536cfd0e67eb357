// SPDX-License-Identifier: MIT OR Apache-2.0
//! The discipline behind a lock, and the ways in which consumers are woken.
//!
//! No user code runs while the lock is held: no hook, and no `Drop` of an item or hook. So a panic
//! in user code cannot leave the structure half changed, and user code may call back into the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{OnceLock, PoisonError};

use crossbeam_channel::{Receiver, Sender};

use crate::fair::{Fair, Resumed};
use crate::outcome::Resume;
use crate::sync::{Condvar, Mutex, MutexGuard};

pub(crate) type WakeHook = Box<dyn Fn() + Send + Sync>;

pub(crate) struct State<T> {
    pub(crate) fair: Fair<T>,
    /// Number of threads that wait for `Shared::pushed`.
    pub(crate) sleepers: usize,
    /// `None` until `Shared::wakeups` is called for the first time, and again once the queue is
    /// exhausted: that disconnects the channel. Its token is sent and looked at under the lock, so
    /// a consumer that receives it finds the item that it was sent for.
    waker: Option<Sender<()>>,
}

pub(crate) struct Shared<T> {
    state: Mutex<State<T>>,
    pub(crate) pushed: Condvar,
    wakeups: OnceLock<Receiver<()>>,
    wake_hook: Option<WakeHook>,
}

impl<T> Shared<T> {
    pub(crate) fn new(wake_hook: Option<WakeHook>) -> Self {
        Self {
            state: Mutex::new(State { fair: Fair::new(), sleepers: 0, waker: None }),
            pushed: Condvar::new(),
            wakeups: OnceLock::new(),
            wake_hook,
        }
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wakeups(&self) -> &Receiver<()> {
        self.wakeups.get_or_init(|| {
            let (waker, wakeups) = crossbeam_channel::bounded(1);
            let mut state = self.lock();
            if !state.fair.is_idle() {
                // The queue became busy before there was a channel.
                let _ = waker.try_send(());
            }
            state.waker = (!state.fair.is_exhausted()).then_some(waker);
            wakeups
        })
    }

    /// To be called when there may be more to pop. Releases the lock and wakes a consumer.
    #[inline(always)]
    pub(crate) fn wake(&self, state: MutexGuard<'_, State<T>>, was_idle: bool) {
        let wakes_sleeper = state.sleepers > 0;
        if was_idle && let Some(waker) = &state.waker {
            // A full channel has a token already.
            let _ = waker.try_send(());
        }
        drop(state);
        if wakes_sleeper {
            self.pushed.notify_one();
        }
        if was_idle && let Some(hook) = &self.wake_hook {
            contain(hook);
        }
    }

    /// To be called when items are gone or the queue is finished. Releases the lock, and tells all
    /// consumers if there will never be anything to pop.
    #[inline(always)]
    pub(crate) fn wake_if_exhausted(&self, mut state: MutexGuard<'_, State<T>>) {
        if state.fair.is_exhausted() {
            state.waker = None;
            drop(state);
            self.pushed.notify_all();
        }
    }
}

/// Passes a resume to the producer's hook, or returns it if there is none. To be called without the
/// lock.
#[inline(always)]
pub(crate) fn deliver(resumed: Option<Resumed>) -> Option<Resume> {
    let Resumed { producer, hook } = resumed?;
    let resume = Resume { producer };
    let Some(hook) = hook else {
        return Some(resume);
    };
    contain(|| hook(resume));
    None
}

/// Runs a hook. A panic in it must not take the result of the operation that calls it; Rust's panic
/// hook has reported the panic by the time it is caught here.
fn contain(hook: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(hook));
}
