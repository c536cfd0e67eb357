// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done when clients take more than they may.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Core;
use crate::figures::CutOff;
use crate::poller::Token;
use crate::session::Session;

/// How often it is looked for clients that are stalled.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Core {
    /// When the [bounds](Core::keep_bounds) are to be looked after, if anything is close to them.
    pub(super) fn bounds_timeout(&self) -> Option<Duration> {
        (self.blocked.load(Ordering::Relaxed) > 0).then_some(LOOK_AGAIN)
    }

    /// Disconnects clients that have been stalled for too long, and those that take most of what is
    /// too much.
    pub(super) fn keep_bounds(&self) {
        if self.usage.take_excess() {
            self.relieve();
        }
        if let Some(at_least) = self.options.limits.stalled
            && self.blocked.load(Ordering::Relaxed) > 0
        {
            let sessions: Vec<_> = self.sessions().values().cloned().collect();
            for session in sessions.iter().filter(|session| session.is_stalled(at_least)) {
                self.cut_off(
                    session,
                    CutOff::Stalled,
                    &format!("it has not read for {at_least:?}"),
                );
            }
        }
    }

    /// Those who take most go first, until what the others take is not too much.
    fn relieve(&self) {
        let mut sessions: Vec<_> = self.sessions().values().cloned().collect();
        sessions.retain(|session| session.share().is_exceeded());
        sessions.sort_by_cached_key(|session| Reverse(session.share().bytes()));
        for session in sessions {
            if session.share().is_exceeded() {
                let bytes = session.share().bytes();
                self.cut_off(
                    &session,
                    CutOff::Bytes,
                    &format!("{bytes} bytes are kept for it, and too many in all"),
                );
            }
        }
    }

    fn cut_off(&self, session: &Arc<Session>, why: CutOff, reason: &str) {
        self.figures().cut_off(why).count();
        tracing::warn!(monitor = %session.monitor.id(), "a client is disconnected: {reason}");
        session.kill_output();
        self.close(session);
    }

    /// Has a thread read from these sessions again.
    pub(crate) fn read_again(&self, tokens: &[Token]) {
        for token in tokens {
            let session = self.sessions().get(token).cloned();
            if let Some(session) = session {
                self.read_later(&session);
            }
        }
    }
}
