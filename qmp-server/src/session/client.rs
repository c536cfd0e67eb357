// SPDX-License-Identifier: MIT OR Apache-2.0
//! What other threads may use of a session.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use qmp_dispatch::{Monitor, Pending};
use qmp_queue::{Producer, Resume, Ticket};

use super::MODE_WITH_OOB;
use super::outbox::{Outbox, Sent};
use crate::access::{BeingClosed, Charge, GivenRole, Ledger, Notices, Origin};
use crate::io::{Notice, Registration, large_message_aside};
use crate::observe::{ClientCounters, ClientStatus, Counters, RunningCommand, milliseconds, trace};
use crate::transport::Peer;

/// An in-band request that waits for its turn.
pub(crate) struct QueuedRequest {
    pub(crate) client: Arc<ConnectedClient>,
    pub(crate) pending: Pending,
    /// What it takes, until it has been answered.
    pub(crate) charges: Charges,
    /// When it was read.
    pub(crate) queued: Duration,
}

/// What one request is charged for.
pub(crate) struct Charges {
    /// `None` if it is small.
    pub(super) bytes: Option<Charge>,
    /// `None` for negotiation and for the server's own commands, which need no place.
    pub(super) _request: Option<Charge>,
}

impl Charges {
    /// Whether the request is so large that to drop it takes long.
    pub(crate) fn are_large(&self) -> bool {
        super::is_large(self.bytes.as_ref())
    }
}

/// A client, for the threads that answer it, that look at it, or that disconnect it.
pub(crate) struct ConnectedClient {
    pub(crate) registration: Arc<Registration>,
    pub(crate) origin: Origin,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counters: ClientCounters,
    pub(super) server: Arc<Counters>,
    pub(super) producer: Producer<QueuedRequest>,
    /// In-band requests that were read and not answered yet.
    pub(super) unanswered: AtomicUsize,
    /// The session cannot read on, or end, until a request is answered or taken. The loop sets this and then looks at
    /// the queue and at `unanswered` once more; who changes those looks at this afterwards: one of them sees the other.
    pub(super) held_back: AtomicBool,
    /// That of a request which has been answered while the client left too much unread: until it has read, no other
    /// request of it is begun. So it is kept one answer for beyond what makes its output full, however many requests
    /// it has queued.
    pub(super) unread: Mutex<Option<Ticket<QueuedRequest>>>,
    /// Whether there is one. Whoever sets this looks at the output afterwards, and whoever has written output looks at
    /// this afterwards: one of them sees the other.
    pub(super) is_unread: AtomicBool,
    /// Set if it has left while a request is executed, which may take long and be followed by more such clients: until
    /// the answer, its connection counts as one that is being closed.
    pub(super) left: OnceLock<BeingClosed>,
}

impl ConnectedClient {
    /// An in-band request has been taken from the queue, and is executed from now on.
    pub(crate) fn taken(&self, at: Duration, resume: Option<&Resume>) {
        self.counters.taken(at);
        trace::monitor_qmp_in_band_dequeue(self.monitor.id(), &self.producer);
        if resume.is_some() {
            self.resumed();
        }
    }

    /// An in-band request has been answered: the monitor may be resumed. `had_oob` says whether out-of-band execution
    /// was enabled before it.
    pub(crate) fn answered(&self, ticket: Option<Ticket<QueuedRequest>>, had_oob: bool) {
        self.counters.answered();
        let begins = !had_oob && self.monitor.is_oob_enabled();
        // Both, in this order: more may wait, and then one less is in progress.
        let resumed = begins.then(|| self.producer.set_mode(MODE_WITH_OOB)).flatten();
        let ticket = ticket.and_then(|ticket| self.keep_until_read(ticket));
        let resumed = resumed.or(ticket.and_then(Ticket::done));
        if resumed.is_some() {
            self.resumed();
        }
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        self.let_read_on();
    }

    /// Keeps the ticket of a request that was answered if the client has left too much unread.
    fn keep_until_read(&self, ticket: Ticket<QueuedRequest>) -> Option<Ticket<QueuedRequest>> {
        if !self.outbox.is_full() {
            return Some(ticket);
        }
        *self.unread() = Some(ticket);
        self.is_unread.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.outbox.is_full() { None } else { self.take_read() }
    }

    /// Output has been written. Returns whether the client's next request may be begun because of that.
    pub(super) fn has_read(&self) -> bool {
        fence(Ordering::SeqCst);
        if !self.is_unread.load(Ordering::SeqCst) || self.outbox.is_full() {
            return false;
        }
        let Some(ticket) = self.take_read() else { return false };
        if ticket.done().is_some() {
            self.resumed();
        }
        true
    }

    fn take_read(&self) -> Option<Ticket<QueuedRequest>> {
        self.is_unread.store(false, Ordering::SeqCst);
        self.unread().take()
    }

    fn unread(&self) -> MutexGuard<'_, Option<Ticket<QueuedRequest>>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has left, and what it waited for has been notified.
    pub(crate) fn leave(&self) {
        if self.unanswered.load(Ordering::SeqCst) > 0 {
            let _ = self.left.set(self.ledger.close());
        }
    }

    /// Whether another request of it waits, besides the one that is taken from the queue now.
    pub(crate) fn has_more(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) > 1 || self.held_back.load(Ordering::SeqCst)
    }

    fn resumed(&self) {
        trace::monitor_suspend(self.monitor.id(), -1);
    }

    /// Tells the loop, if the session waits for this.
    pub(crate) fn let_read_on(&self) {
        if self.held_back.load(Ordering::SeqCst) && self.held_back.swap(false, Ordering::SeqCst) {
            self.registration.post(Notice::Resumed);
        }
    }

    /// Whether it gets the server's own events, and stays when what is served has gone.
    pub(crate) fn has_notices(&self) -> bool {
        self.monitor.local().is_some_and(Notices::are_on)
    }

    /// Drops something large of this client on another thread.
    pub(crate) fn discard(&self, large: impl Send + 'static) {
        large_message_aside(self.ledger.owner(), move || drop(large));
    }

    /// Sends nothing more, and ends the connection. The session follows.
    pub(crate) fn abort(&self) {
        if let Some(transport) = self.outbox.close() {
            transport.shutdown();
        }
        self.registration.post(Notice::Broken);
    }

    /// What operators see of it, but for the address of its listener.
    pub(crate) fn status(&self) -> ClientStatus {
        let ConnectedClient { monitor, counters, .. } = self;
        let now = self.server.now();
        let queue = self.producer.stats();
        let Sent { bytes, unsent, events_missed } = self.outbox.sent();
        let running = counters.running_since().and_then(|since| {
            let running_ms = milliseconds(now.saturating_sub(since));
            Some(RunningCommand { command: monitor.last_command()?, running_ms })
        });
        ClientStatus {
            monitor: monitor.id().into(),
            peer: monitor.local::<Peer>().map(Peer::to_string).unwrap_or_default(),
            role: monitor.local().and_then(GivenRole::name).map(|role| role.as_ref().to_owned()),
            listener: None,
            connected_ms: milliseconds(now.saturating_sub(counters.connected)),
            negotiated: monitor.is_negotiated(),
            oob: monitor.is_oob_enabled(),
            suspended: queue.as_ref().is_some_and(|queue| queue.suspended),
            queued: queue.as_ref().map_or(0, |queue| queue.queued as u64),
            running,
            in_band: queue.map_or(0, |queue| queue.served),
            out_of_band: counters.out_of_band.get(),
            received_bytes: counters.bytes_received.get(),
            sent_bytes: bytes,
            unread_bytes: unsent as u64,
            events_dropped: events_missed,
        }
    }
}
