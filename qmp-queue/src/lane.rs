// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a producer's items are while the queue's lock is in demand.
//!
//! A push that has to wait for the queue's lock, and some after it, lend their producers' items to
//! lanes, each of which has a lock of its own. As long as the loan lasts, its producer keeps a place
//! in the line, so it can push without touching the queue, even if there is nothing in the lane for
//! a while. A pop that comes by and finds nothing ends the loan, as does everything else but pushing
//! and popping. A queue whose lock is never contended never lends, and pays for one lock only.
//!
//! Lock order: the queue's, then a lane's.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, PoisonError};

use crate::outcome::Resume;
use crate::sync::{AtomicU8, Mutex, MutexGuard, Ordering};

pub(crate) type ResumeHook = Arc<dyn Fn(Resume) + Send + Sync>;

const NOT_LENT: u8 = 0;
const OPEN: u8 = 1;
const FULL: u8 = 2;

pub(crate) struct Lane<T> {
    /// What `loan` amounts to, for those who can do without its lock then. Written under the lock
    /// only.
    hint: AtomicU8,
    loan: Mutex<Option<Loan<T>>>,
    /// The producer's own, kept here as it is seldom needed.
    hook: Option<ResumeHook>,
}

pub(crate) struct Loan<T> {
    pub(crate) items: VecDeque<T>,
    /// This many items suspend the producer.
    pub(crate) limit: NonZeroUsize,
}

/// What became of an item that was offered to a lane.
pub(crate) enum Offer<T> {
    Accepted {
        suspended: bool,
    },
    Full(T),
    /// The items are with the queue, and this one belongs there too.
    NotLent(T),
}

/// An item taken from a lane.
pub(crate) struct FromLane<T> {
    pub(crate) item: T,
    /// The lane was full.
    pub(crate) resumed: bool,
}

impl<T> Lane<T> {
    pub(crate) fn new(hook: Option<ResumeHook>) -> Self {
        Self { hint: AtomicU8::new(NOT_LENT), loan: Mutex::new(None), hook }
    }

    pub(crate) fn hook(&self) -> Option<ResumeHook> {
        self.hook.clone()
    }

    #[inline(always)]
    pub(crate) fn offer(&self, item: T) -> Offer<T> {
        match self.hint.load(Ordering::Relaxed) {
            NOT_LENT => return Offer::NotLent(item),
            FULL => return Offer::Full(item),
            _ => {}
        }
        match &mut *self.lock() {
            None => Offer::NotLent(item),
            Some(loan) if loan.is_full() => Offer::Full(item),
            Some(loan) => {
                loan.items.push_back(item);
                let suspended = loan.is_full();
                if suspended {
                    self.hint.store(FULL, Ordering::Relaxed);
                }
                Offer::Accepted { suspended }
            }
        }
    }

    pub(crate) fn lend(&self, loan: Loan<T>) {
        let mut guard = self.lock();
        self.hint.store(if loan.is_full() { FULL } else { OPEN }, Ordering::Relaxed);
        *guard = Some(loan);
    }

    pub(crate) fn take_back(&self) -> Option<Loan<T>> {
        let mut guard = self.lock();
        self.hint.store(NOT_LENT, Ordering::Relaxed);
        guard.take()
    }

    /// Takes the oldest item. If there is none, the loan has ended and is handed back.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Result<FromLane<T>, Option<Loan<T>>> {
        let mut guard = self.lock();
        let Some(loan) = guard.as_mut() else {
            return Err(None);
        };
        let was_full = loan.is_full();
        let Some(item) = loan.items.pop_front() else {
            self.hint.store(NOT_LENT, Ordering::Relaxed);
            return Err(guard.take());
        };
        let resumed = was_full && !loan.is_full();
        if resumed {
            self.hint.store(OPEN, Ordering::Relaxed);
        }
        Ok(FromLane { item, resumed })
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |loan| loan.items.len())
    }

    #[inline(always)]
    fn lock(&self) -> MutexGuard<'_, Option<Loan<T>>> {
        self.loan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Loan<T> {
    #[inline(always)]
    fn is_full(&self) -> bool {
        self.items.len() >= self.limit.get()
    }
}
