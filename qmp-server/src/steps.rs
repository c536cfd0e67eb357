// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps of loops over what clients bring, counted for tests: that work is linear is shown by steps, not by time.

#[cfg(any(test, feature = "fuzzing"))]
mod counter {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    pub(crate) fn count(steps: usize) {
        STEPS.set(STEPS.get() + steps as u64);
    }

    /// How many steps of this thread `work` takes.
    pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, u64) {
        let before = STEPS.get();
        let result = work();
        (result, STEPS.get() - before)
    }
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use counter::{count, during};

/// Counts steps where tests want to know, and does nothing elsewhere.
#[cfg(not(any(test, feature = "fuzzing")))]
#[inline(always)]
pub(crate) fn count(_steps: usize) {}
