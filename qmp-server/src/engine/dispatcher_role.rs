// SPDX-License-Identifier: MIT OR Apache-2.0
//! The role of a server's dispatcher: who has it executes one in-band request.

use std::sync::atomic::{AtomicU8, Ordering};

const FREE: u8 = 0;
/// A handler runs and was not answered yet.
const RUNNING: u8 = 1;
/// A handler runs on, and its request has been answered.
const ANSWERED: u8 = 2;
/// The handler has returned, and its request is answered later.
const AWAITED: u8 = 3;

/// Taken to execute a request; free again when its handler has returned and it was answered, in whichever order. Who
/// comes second frees it.
#[derive(Default)]
pub(super) struct DispatcherRole(AtomicU8);

impl DispatcherRole {
    pub(super) fn try_take(&self) -> bool {
        self.0.compare_exchange(FREE, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(super) fn is_free(&self) -> bool {
        self.0.load(Ordering::SeqCst) == FREE
    }

    /// The request has been answered. Whether this has freed the role.
    pub(super) fn answered(&self) -> bool {
        let running =
            self.0.compare_exchange(RUNNING, ANSWERED, Ordering::SeqCst, Ordering::SeqCst);
        if running.is_err() {
            self.free();
        }
        running.is_err()
    }

    /// The handler has returned. Whether this has freed the role.
    pub(super) fn returned(&self) -> bool {
        let running = self.0.compare_exchange(RUNNING, AWAITED, Ordering::SeqCst, Ordering::SeqCst);
        if running.is_err() {
            self.free();
        }
        running.is_err()
    }

    pub(super) fn free(&self) {
        self.0.store(FREE, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_second_frees_it() {
        let role = DispatcherRole::default();
        assert!(role.try_take() && !role.try_take());
        assert!(!role.answered() && role.returned());
        assert!(role.try_take());
        assert!(!role.returned() && !role.is_free() && role.answered());
        assert!(role.is_free());
    }
}
