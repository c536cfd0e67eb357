// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client is still to be sent.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use qmp_dispatch::Output;
use qmp_dispatch::proto::Layout;

use crate::Transport;
use crate::figures::Figures;
use crate::missed::notice;
use crate::poller::{Place, Wanted};
use crate::usage::Share;

/// Writes to a client at once what it takes, and keeps the rest.
pub(crate) struct Outbox {
    transport: Arc<dyn Transport>,
    place: Place,
    layout: Layout,
    /// Who leaves more than this unread is not read from, and gets no events.
    full: usize,
    state: Mutex<State>,
    /// `State::backlog`, for a look without the lock.
    backlog: AtomicUsize,
    share: Share,
    /// How many clients of the server are being waited for.
    blocked: Arc<AtomicUsize>,
    figures: Arc<Figures>,
}

/// What a client has been sent, and what not.
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    /// Bytes that wait for it to read.
    pub(crate) unread: usize,
    pub(crate) events_missed: u64,
}

#[derive(Default)]
struct State {
    /// What is to be written, from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// Nothing is written any more: the client is gone, or shall get nothing.
    dead: bool,
    /// Since the client was last told.
    missed_events: u64,
    missed_in_all: u64,
    bytes_sent: u64,
    /// Since when the client has read nothing, though something waits for it.
    blocked_since: Option<Instant>,
}

impl State {
    fn backlog(&self) -> usize {
        self.pending.len() - self.written
    }

    fn wanted(&self) -> Wanted {
        if self.blocked_since.is_some() { Wanted::InputAndRoom } else { Wanted::Input }
    }
}

impl Outbox {
    pub(crate) fn new(
        transport: Arc<dyn Transport>,
        place: Place,
        layout: Layout,
        full: usize,
        share: Share,
        blocked: Arc<AtomicUsize>,
        figures: Arc<Figures>,
    ) -> Outbox {
        Outbox {
            transport,
            place,
            layout,
            full,
            state: Mutex::default(),
            backlog: AtomicUsize::new(0),
            share,
            blocked,
            figures,
        }
    }

    pub(crate) fn share(&self) -> &Share {
        &self.share
    }

    pub(crate) fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    pub(crate) fn sent(&self) -> Sent {
        let state = self.lock();
        Sent {
            bytes: state.bytes_sent,
            unread: state.backlog(),
            events_missed: state.missed_in_all,
        }
    }

    /// Whether the client has left so much unread that its requests should wait.
    pub(crate) fn is_full(&self) -> bool {
        self.backlog.load(Ordering::Acquire) > self.full
    }

    /// Whether the client has been sent everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.backlog.load(Ordering::Acquire) == 0
    }

    /// Whether the client has read nothing for this long, though something waits for it.
    pub(crate) fn is_stalled(&self, at_least: Duration) -> bool {
        !self.is_empty() && self.lock().blocked_since.is_some_and(|at| at.elapsed() >= at_least)
    }

    /// Has the poller tell what the client is ready for, from now on.
    pub(crate) fn be_polled(&self, polled_before: bool) -> io::Result<()> {
        let state = self.lock();
        if polled_before {
            return self.want(&state);
        }
        self.place.poller.add(self.transport.as_fd(), self.place.token, state.wanted())
    }

    fn want(&self, state: &State) -> io::Result<()> {
        self.place.poller.change(self.transport.as_fd(), self.place.token, state.wanted())
    }

    /// Writes more of what is pending.
    pub(crate) fn flush(&self) {
        let mut state = self.lock();
        self.write_pending(&mut state);
        if state.missed_events > 0 && state.backlog() <= self.full / 2 {
            let missed = std::mem::take(&mut state.missed_events);
            tracing::warn!("a client reads again, and has missed {missed} events");
            state.pending.extend_from_slice(notice(missed, self.layout).as_bytes());
            self.write_pending(&mut state);
        }
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
        // Once events are missed, all are until the client has been told how many.
        if may_drop && (state.backlog() > self.full || state.missed_events > 0) {
            state.missed_events += 1;
            state.missed_in_all += 1;
            self.figures.events_dropped.count();
            if state.missed_events == 1 {
                tracing::warn!("a client does not read: events to it are dropped");
            }
            return;
        }
        if may_drop {
            self.figures.events_sent.count();
        }
        let idle = state.backlog() == 0;
        state.pending.extend_from_slice(text.as_bytes());
        if idle {
            self.write_pending(&mut state);
        } else {
            self.tell_backlog(&state);
        }
    }

    fn write_pending(&self, state: &mut State) {
        let before = state.backlog();
        while state.backlog() > 0 {
            match self.transport.send(&state.pending[state.written..]) {
                Ok(sent) => {
                    self.figures.bytes_sent.add(sent as u64);
                    state.bytes_sent += sent as u64;
                    state.written += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What the client has sent is still read: it may hold commands, and ends soon.
                Err(_) => return self.bury(state),
            }
        }
        let read_some = state.backlog() < before;
        self.note_blocked(state, read_some);
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
        self.tell_backlog(state);
    }

    fn note_blocked(&self, state: &mut State, read_some: bool) {
        let blocked = state.backlog() > 0;
        let was_blocked = state.blocked_since.is_some();
        if !blocked {
            state.blocked_since = None;
        } else if read_some || !was_blocked {
            state.blocked_since = Some(Instant::now());
        }
        match (was_blocked, blocked) {
            (false, true) => {
                self.blocked.fetch_add(1, Ordering::SeqCst);
                // Somebody has to look after the client, though nothing may ever happen again.
                self.place.poller.wake();
            }
            (true, false) => _ = self.blocked.fetch_sub(1, Ordering::SeqCst),
            _ => return,
        }
        // Fails if the client is not polled yet, or no more.
        let _ = self.want(state);
    }

    fn tell_backlog(&self, state: &State) {
        let before = self.backlog.swap(state.backlog(), Ordering::AcqRel);
        self.share.replace(before, state.backlog());
    }

    fn bury(&self, state: &mut State) {
        state.pending = Vec::new();
        state.written = 0;
        state.dead = true;
        state.missed_events = 0;
        self.note_blocked(state, false);
        self.tell_backlog(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.kill();
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
