// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts steps in tests, where time cannot be trusted: what clients send must take a number of steps that is
//! linear in its size.

/// Notes that this many steps are taken.
#[inline(always)]
pub(crate) fn count(steps: usize) {
    #[cfg(test)]
    tests::STEPS.set(tests::STEPS.get() + steps);
    let _ = steps;
}

#[cfg(test)]
pub(crate) use tests::{assert_linear, steps_of};

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    thread_local! {
        pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// The steps that `run` takes on this thread.
    pub(crate) fn steps_of(run: impl FnOnce()) -> usize {
        let before = STEPS.get();
        run();
        STEPS.get() - before
    }

    /// Twice the size takes about twice the steps.
    #[track_caller]
    pub(crate) fn assert_linear(size: usize, steps: impl Fn(usize) -> usize) {
        let (once, twice) = (steps(size), steps(2 * size));
        let is_linear = once > 0 && 10 * twice <= 23 * once;
        assert!(is_linear, "{once} steps for {size}, {twice} for {}", 2 * size);
    }
}
