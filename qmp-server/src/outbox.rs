// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client is still to be sent.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qmp_dispatch::Output;

use crate::Transport;

/// A client that leaves more than this unread is not read from, and gets no events.
const FULL: usize = 256 << 10;

/// Writes to a client at once what it takes, and keeps the rest.
pub(crate) struct Outbox {
    transport: Arc<dyn Transport>,
    state: Mutex<State>,
    /// `State::backlog`, for a look without the lock.
    backlog: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// What is to be written, from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// Nothing is written any more: the client is gone, or shall get nothing.
    dead: bool,
    dropped_events: u64,
}

impl State {
    fn backlog(&self) -> usize {
        self.pending.len() - self.written
    }
}

impl Outbox {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Outbox {
        Outbox { transport, state: Mutex::default(), backlog: AtomicUsize::new(0) }
    }

    /// Whether the client has left so much unread that its requests should wait.
    pub(crate) fn is_full(&self) -> bool {
        self.backlog.load(Ordering::Acquire) > FULL
    }

    /// Whether the client has been sent everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.backlog.load(Ordering::Acquire) == 0
    }

    /// Writes more of what is pending.
    pub(crate) fn flush(&self) {
        let mut state = self.lock();
        self.write_pending(&mut state);
    }

    /// Drops what is pending, and all that is yet to come.
    pub(crate) fn kill(&self) {
        self.bury(&mut self.lock());
    }

    fn send(&self, text: &str, may_drop: bool) {
        let mut state = self.lock();
        if state.dead {
            return;
        }
        if may_drop && state.backlog() > FULL {
            state.dropped_events += 1;
            if state.dropped_events == 1 {
                tracing::warn!("a client does not read: events to it are dropped");
            }
            return;
        }
        let idle = state.backlog() == 0;
        state.pending.extend_from_slice(text.as_bytes());
        if idle {
            self.write_pending(&mut state);
        } else {
            self.backlog.store(state.backlog(), Ordering::Release);
        }
    }

    fn write_pending(&self, state: &mut State) {
        while state.backlog() > 0 {
            match self.transport.send(&state.pending[state.written..]) {
                Ok(sent) => state.written += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What the client has sent is still read: it may hold commands, and ends soon.
                Err(_) => return self.bury(state),
            }
        }
        if state.backlog() == 0 {
            state.pending.clear();
            state.written = 0;
            // An idle client does not hold memory.
            state.pending.shrink_to(1 << 10);
        } else if state.written > state.backlog() {
            // Not sooner: moving what is left would take longer than writing it.
            state.pending.drain(..state.written);
            state.written = 0;
        }
        self.backlog.store(state.backlog(), Ordering::Release);
    }

    fn bury(&self, state: &mut State) {
        *state = State { dead: true, ..State::default() };
        self.backlog.store(0, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for Outbox {
    fn transmit(&self, text: &str) {
        self.send(text, false);
    }

    fn transmit_event(&self, text: &str) {
        self.send(text, true);
    }
}
