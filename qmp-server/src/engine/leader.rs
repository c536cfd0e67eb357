// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may touch the loop: leader and followers.
//!
//! One thread at a time leads. It lets go before it runs code that may block, and takes the leadership back afterwards
//! if nobody has it. A follower stands by and steps in when the leadership has been let go by one and the same run for
//! a whole period of the alarm:
//!
//! ```text
//!            lead                    let_go                      retake
//!  follower ------> leader ------------------------> runner ------------> leader
//!     ^       free             armed, if it was not    |
//!     |                                                | another leads
//!     +------------------------------------------------+
//! ```
//!
//! No I/O here: what waits and what measures time is an [`Alarm`], so that schedules can be explored.

use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::io::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};

/// What followers wait for.
pub(crate) trait Alarm {
    /// Makes one [`wait`](Alarm::wait) return [`Waited::Expired`] a period from now.
    fn arm(&self);

    /// Waits for the alarm, at most until this time if there is one.
    fn wait(&self, until: Option<Instant>) -> Waited;

    /// Makes all waits return, now and from now on.
    fn release(&self);
}

/// Why a wait for an [`Alarm`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Expired,
    /// The time was over.
    Gave,
}

/// The leadership of a loop `L`.
pub(crate) struct Leadership<L, A> {
    /// Only ever tried, never waited for.
    led: Mutex<L>,
    /// Odd while a run goes on that has let go of the leadership, and another number for each. Written only with
    /// `led` locked.
    runs: AtomicU64,
    /// The alarm is armed, or a follower is looking at what it has expired for. Whoever lets go writes `runs` and then
    /// reads this; a follower clears this and then reads `runs`: one of them sees the other.
    armed: AtomicBool,
    /// The run during which the alarm was last armed: if it still goes on when the alarm expires, it has taken a whole
    /// period. Written before the alarm is armed, by whoever has set `armed` or has been woken by the alarm.
    armed_in: AtomicU64,
    /// Followers that wait, or are about to.
    standing_by: AtomicUsize,
    ended: AtomicBool,
    alarm: A,
}

/// The loop, led by this thread.
pub(crate) struct Lead<'a, L>(MutexGuard<'a, L>);

impl<L> Deref for Lead<'_, L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.0
    }
}

impl<L> DerefMut for Lead<'_, L> {
    fn deref_mut(&mut self) -> &mut L {
        &mut self.0
    }
}

impl<L, A: Alarm> Leadership<L, A> {
    pub(crate) fn new(led: L, alarm: A) -> Leadership<L, A> {
        Leadership {
            led: Mutex::new(led),
            runs: AtomicU64::new(0),
            armed: AtomicBool::new(false),
            armed_in: AtomicU64::new(0),
            standing_by: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            alarm,
        }
    }

    /// Takes the leadership if nobody has it.
    pub(crate) fn try_lead(&self) -> Option<Lead<'_, L>> {
        let lead = match self.led.try_lock() {
            Ok(guard) => Lead(guard),
            Err(TryLockError::Poisoned(poisoned)) => Lead(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => return None,
        };
        let runs = self.runs.load(Ordering::SeqCst);
        if runs % 2 == 1 {
            self.runs.store(runs + 1, Ordering::SeqCst);
        }
        Some(lead)
    }

    /// Lets go of the leadership, because this thread will run something that may block.
    pub(crate) fn let_go(&self, lead: Lead<'_, L>) {
        let runs = self.runs.load(Ordering::SeqCst);
        self.runs.store(runs + 1, Ordering::SeqCst);
        drop(lead);
        if !self.armed.load(Ordering::SeqCst) && !self.armed.swap(true, Ordering::SeqCst) {
            self.arm_in(runs + 1);
        }
    }

    fn arm_in(&self, run: u64) {
        self.armed_in.store(run, Ordering::SeqCst);
        self.alarm.arm();
    }

    /// Stands by until the leadership is this thread's; `None` if there is nothing to lead any more, or if another
    /// follower stands by and nobody has needed this one for as long as `patience`.
    pub(crate) fn stand_by(&self, patience: Duration) -> Option<Lead<'_, L>> {
        // Whatever the alarm expires for meanwhile: that is often, when there is much to do.
        let until = Instant::now() + patience;
        self.standing_by.fetch_add(1, Ordering::SeqCst);
        loop {
            if self.has_ended() {
                self.standing_by.fetch_sub(1, Ordering::SeqCst);
                return None;
            }
            let surplus = self.standing_by.load(Ordering::SeqCst) > 1;
            match self.alarm.wait(surplus.then_some(until)) {
                Waited::Gave => {
                    let leave = |standing_by| (standing_by > 1).then(|| standing_by - 1);
                    let (set, get) = (Ordering::SeqCst, Ordering::SeqCst);
                    if self.standing_by.fetch_update(set, get, leave).is_ok() {
                        return None;
                    }
                }
                Waited::Expired => {
                    let run = self.runs.load(Ordering::SeqCst);
                    if run % 2 == 1 {
                        if run == self.armed_in.load(Ordering::SeqCst)
                            && let Some(lead) = self.step_in()
                        {
                            // Others may run for long, too.
                            self.alarm.arm();
                            return Some(lead);
                        }
                        self.arm_in(run);
                        continue;
                    }
                    self.armed.store(false, Ordering::SeqCst);
                    // A run that began meanwhile has found the alarm armed.
                    let run = self.runs.load(Ordering::SeqCst);
                    if run % 2 == 1 && !self.armed.swap(true, Ordering::SeqCst) {
                        self.arm_in(run);
                    }
                }
            }
        }
    }

    /// Takes the leadership, and this thread out of those that stand by: out first, for two others must not both leave
    /// because each sees this one beside itself.
    fn step_in(&self) -> Option<Lead<'_, L>> {
        self.standing_by.fetch_sub(1, Ordering::SeqCst);
        let lead = self.try_lead();
        if lead.is_none() {
            self.standing_by.fetch_add(1, Ordering::SeqCst);
        }
        lead
    }

    /// Whether a follower waits.
    pub(crate) fn has_follower(&self) -> bool {
        self.standing_by.load(Ordering::SeqCst) > 0
    }

    /// Makes all followers return, now and from now on.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.alarm.release();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}
