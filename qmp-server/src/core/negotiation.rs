// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that come while a command blocks: to see what it is, or to end it. They would wait for just
//! that, for negotiation waits for its turn as any command does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Core;

/// How long negotiation waits for its turn while a command is being executed.
const PATIENCE: Duration = Duration::from_millis(200);

impl Core {
    /// How many clients wait to complete negotiation.
    pub(crate) fn negotiating(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.negotiating)
    }

    /// When it is to be looked for clients that wait for too long, if any may.
    pub(super) fn negotiation_timeout(&self) -> Option<Duration> {
        self.negotiation_is_held_up().then_some(PATIENCE)
    }

    /// Has clients complete negotiation that have waited for long enough.
    pub(super) fn negotiate(&self) {
        if !self.negotiation_is_held_up() {
            return;
        }
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        for session in &sessions {
            if session.negotiate(PATIENCE) {
                self.read(session);
            }
        }
    }

    fn negotiation_is_held_up(&self) -> bool {
        self.negotiating.load(Ordering::SeqCst) > 0 && self.dispatching.load(Ordering::SeqCst)
    }
}
