// SPDX-License-Identifier: MIT OR Apache-2.0
//! Output that has not been sent to the client yet.
//!
//! Responses may wait for what follows, so that several go to a client in one write: if the thread that executed their requests
//! [may cork](Corking), which is before handlers that are known to be quick. Nothing overtakes them: whatever is written
//! at once writes the corked responses of all clients first, in the order in which they were made.

#[cfg(feature = "mux")]
mod frozen;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use std::{io, mem, ptr};

use qmp_dispatch::Output;
use qmp_dispatch::proto::Layout;

#[cfg(feature = "mux")]
pub(crate) use self::frozen::{OutboxState, SharedTexts, TextsTaken};
use super::missed::notice;
use crate::access::{Charge, Ledger};
use crate::io::{Mailbox, Notice, Registration};
use crate::observe::Counters;
use crate::transport::Transport;

/// Events of at least this size are kept once for all clients that have not read them; smaller ones are copied.
const SHARED_FROM: usize = 4 << 10;

/// Writes to the client what it takes at once, and keeps the rest. Any thread may transmit.
pub(crate) struct Outbox {
    /// For the list of `cork`.
    me: Weak<Outbox>,
    cork: Arc<Cork>,
    registration: Arc<Registration>,
    layout: Layout,
    /// A client that leaves more than this unsent is not read from, and gets no events.
    full: usize,
    state: Mutex<Buffer>,
    /// A [`Missed`].
    missed: AtomicU8,
    /// `Buffer::unsent`, for a look without the lock.
    unsent: AtomicUsize,
    counters: Arc<Counters>,
}

struct Buffer {
    /// `None` once nothing is to be written any more: the client has gone, or shall get nothing.
    transport: Option<Arc<dyn Transport>>,
    /// What is to be written, from `written` of the first piece on. No piece is empty, and none is wholly written.
    pieces: VecDeque<Piece>,
    written: usize,
    /// The sum of all pieces without `written`.
    unsent: usize,
    /// The part of it that is events.
    unsent_events: usize,
    /// For the pieces that are this client's own; brought up to date when something has been written.
    charge: Charge,
    own: usize,
    /// Since when the client has taken nothing while something is unsent. Set exactly while the client has not taken
    /// all that was tried to write. The loop has been told then, and it alone writes, when there is room.
    blocked_since: Option<Instant>,
    /// Since the client was last told. While there are any, all events are missed.
    missed_events: u64,
    /// The log has a line about it.
    missing_logged: bool,
    missed_in_all: u64,
    bytes_sent: u64,
    /// Nothing is added to what is unsent: the client gets that, and then the end.
    finished: bool,
    /// The client would have missed an event, which [never](Missed::Never) is so: it gets nothing more.
    overrun: bool,
}

/// What becomes of events that a client would miss because it does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Missed {
    /// They are counted, and an event tells the client.
    Told,
    /// They are counted, and the client may not be told: that is an event, too.
    Untold,
    /// There are none: the client is disconnected.
    Never,
}

enum Piece {
    Own { bytes: Vec<u8>, kind: Kind },
    Shared(SharedPiece),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Response,
    Event,
}

/// A text that other outboxes may keep, too.
struct SharedPiece {
    text: Arc<str>,
    ledger: Arc<Ledger>,
}

impl Drop for SharedPiece {
    fn drop(&mut self) {
        self.ledger.drop_shared(&self.text);
    }
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Own { bytes, .. } => bytes,
            Piece::Shared(shared) => shared.text.as_bytes(),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Piece::Own { kind, .. } => *kind,
            Piece::Shared(_) => Kind::Event,
        }
    }
}

/// What a client has been sent, and what not.
pub(crate) struct Sent {
    pub(crate) bytes: u64,
    pub(crate) unsent: usize,
    pub(crate) events_missed: u64,
}

/// What has come of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing is unsent.
    All,
    /// The other end takes no more at the moment.
    Some,
}

impl Buffer {
    fn append(&mut self, text: &[u8], of: Kind) {
        match self.pieces.back_mut() {
            Some(Piece::Own { bytes, kind }) if *kind == of => bytes.extend_from_slice(text),
            _ => self.pieces.push_back(Piece::Own { bytes: text.to_vec(), kind: of }),
        }
        self.own += text.len();
        self.unsent += text.len();
        if of == Kind::Event {
            self.unsent_events += text.len();
        }
    }

    fn append_shared(&mut self, text: &Arc<str>) {
        let ledger = Arc::clone(self.charge.ledger());
        ledger.keep_shared(text);
        self.pieces.push_back(Piece::Shared(SharedPiece { text: Arc::clone(text), ledger }));
        self.unsent += text.len();
        self.unsent_events += text.len();
    }

    /// Whether nothing is added to what is unsent any more.
    fn is_closed(&self) -> bool {
        self.transport.is_none() || self.finished || self.overrun
    }

    /// Writes what the client takes. An error says that it takes nothing any more.
    fn write(&mut self) -> io::Result<()> {
        // Taken out for as long as it is used: another reference would cost more.
        let Some(transport) = self.transport.take() else { return Ok(()) };
        let written = self.write_to(&*transport);
        self.transport = Some(transport);
        written
    }

    fn write_to(&mut self, transport: &dyn Transport) -> io::Result<()> {
        while let Some(first) = self.pieces.front_mut() {
            let sent = match transport.send(&first.bytes()[self.written..]) {
                Ok(sent) => sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.bytes_sent += sent as u64;
            self.written += sent;
            self.unsent -= sent;
            if first.kind() == Kind::Event {
                self.unsent_events -= sent;
            }
            if self.written == first.bytes().len() {
                self.written = 0;
                self.pop();
            } else if let Piece::Own { bytes, .. } = first
                && self.written > bytes.len() - self.written
            {
                // Not sooner: moving what is left would take longer than writing it.
                bytes.drain(..self.written);
                self.own -= mem::take(&mut self.written);
            }
        }
        Ok(())
    }

    /// Drops the first piece, which has been written. An idle client keeps no memory for output.
    fn pop(&mut self) {
        if let Some(Piece::Own { bytes, .. }) = self.pieces.pop_front() {
            self.own -= bytes.len();
        }
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }

    /// Writes what the client takes of a text, past the buffer: nothing is unsent. How much that was.
    fn write_directly(&mut self, text: &str) -> io::Result<usize> {
        let Some(transport) = &self.transport else { return Ok(text.len()) };
        let sent = match transport.send(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            sent => sent?,
        };
        self.bytes_sent += sent as u64;
        Ok(sent)
    }
}

impl Outbox {
    pub(crate) fn new(
        registration: Arc<Registration>,
        transport: Arc<dyn Transport>,
        layout: Layout,
        full: usize,
        ledger: &Arc<Ledger>,
        counters: Arc<Counters>,
        cork: &Arc<Cork>,
    ) -> Arc<Outbox> {
        let state = Buffer {
            transport: Some(transport),
            pieces: VecDeque::new(),
            written: 0,
            unsent: 0,
            unsent_events: 0,
            charge: ledger.charge_bytes(0),
            own: 0,
            blocked_since: None,
            missed_events: 0,
            missing_logged: false,
            missed_in_all: 0,
            bytes_sent: 0,
            finished: false,
            overrun: false,
        };
        let (state, unsent) = (Mutex::new(state), AtomicUsize::new(0));
        let missed = AtomicU8::new(Missed::Untold as u8);
        Arc::new_cyclic(|me| Outbox {
            me: Weak::clone(me),
            cork: Arc::clone(cork),
            registration,
            layout,
            full,
            state,
            missed,
            unsent,
            counters,
        })
    }

    /// Says what becomes of events that the client would miss. To be called before there are any.
    pub(crate) fn set_missed(&self, missed: Missed) {
        self.missed.store(missed as u8, Ordering::Relaxed);
    }

    fn has_missed(&self, missed: Missed) -> bool {
        self.missed.load(Ordering::Relaxed) == missed as u8
    }

    /// Takes nothing more: the client gets what is unsent or corked, and then the end.
    pub(crate) fn finish(&self) {
        self.cork.flush();
        self.lock().finished = true;
    }

    pub(crate) fn sent(&self) -> Sent {
        let state = self.lock();
        Sent { bytes: state.bytes_sent, unsent: state.unsent, events_missed: state.missed_in_all }
    }

    /// Whether so much is unsent that the client's requests should wait.
    pub(crate) fn is_full(&self) -> bool {
        self.unsent.load(Ordering::Acquire) > self.full
    }

    /// Whether the client has been sent everything, what was corked included.
    pub(crate) fn has_sent_all(&self) -> bool {
        self.cork.flush();
        self.unsent.load(Ordering::Acquire) == 0
    }

    /// Writes responses that were corked. Logs nothing: others may wait for this with a lock. If the transport's code panics,
    /// that is the end of this output alone: no other's waits with it, and whoever writes is nobody who could be ended for it.
    fn uncork(&self, text: &str) {
        let mut state = self.lock();
        let write = AssertUnwindSafe(|| self.write_behind(&mut state, text));
        if catch_unwind(write).is_err() {
            self.broken(&mut state);
        }
    }

    /// Since when the client has taken nothing, though something is unsent.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.lock().blocked_since
    }

    /// Writes more, because the transport has room: what the loop does for a client that is blocked.
    pub(crate) fn write_more(&self) -> Written {
        let mut state = self.lock();
        let before = state.unsent;
        self.write(&mut state);
        if state.missed_events > 0 && state.unsent <= self.full / 2 {
            let missed = mem::take(&mut state.missed_events);
            state.missing_logged = false;
            if self.has_missed(Missed::Told) {
                state.append(notice(missed, self.layout).as_bytes(), Kind::Event);
            }
            self.write(&mut state);
        }
        if state.unsent == 0 {
            state.blocked_since = None;
            return Written::All;
        }
        if state.unsent < before {
            state.blocked_since = Some(Instant::now());
        }
        Written::Some
    }

    /// Drops what is unsent and all that is yet to come, and lets go of the transport: whoever may answer later holds
    /// no descriptor.
    pub(crate) fn close(&self) -> Option<Arc<dyn Transport>> {
        self.bury(&mut self.lock())
    }

    fn bury(&self, state: &mut Buffer) -> Option<Arc<dyn Transport>> {
        state.pieces = VecDeque::new();
        (state.written, state.unsent, state.own, state.unsent_events) = (0, 0, 0, 0);
        state.blocked_since = None;
        state.missed_events = 0;
        state.overrun = false;
        self.account(state);
        state.transport.take()
    }

    fn write(&self, state: &mut Buffer) {
        let before = state.bytes_sent;
        let written = state.write();
        self.counters.bytes_sent.add(state.bytes_sent - before);
        match written {
            Ok(()) => self.account(state),
            Err(_) => self.broken(state),
        }
    }

    /// Nothing can be written any more. What the client has sent is still executed as after a half-close, until the
    /// system reports its end.
    fn broken(&self, state: &mut Buffer) {
        drop(self.bury(state));
        self.registration.post(Notice::Broken);
    }

    /// Writes what is unsent and then the text, unless the client gets nothing more.
    fn write_behind(&self, state: &mut Buffer, text: &str) {
        if state.is_closed() {
            return;
        }
        let mut sent = 0;
        if state.unsent == 0 {
            match state.write_directly(text) {
                Ok(written) => sent = written,
                Err(_) => return self.broken(state),
            }
            self.counters.bytes_sent.add(sent as u64);
        }
        if sent < text.len() {
            state.append(&text.as_bytes()[sent..], Kind::Response);
            self.write_or_keep(state);
        }
    }

    /// Writes what is unsent, or leaves it to the loop if the client is blocked.
    fn write_or_keep(&self, state: &mut Buffer) {
        if state.blocked_since.is_some() {
            return self.account(state);
        }
        self.write(state);
        if state.unsent > 0 {
            state.blocked_since = Some(Instant::now());
            self.registration.post(Notice::Blocked);
        }
    }

    /// The same, and says in the log that the client misses events, or tells the loop that it is not to miss any.
    fn write_out(&self, mut state: MutexGuard<'_, Buffer>) {
        if state.overrun {
            drop(state);
            return self.registration.post(Notice::Overrun);
        }
        self.write_or_keep(&mut state);
        self.tell_of_missed(state);
    }

    fn tell_of_missed(&self, mut state: MutexGuard<'_, Buffer>) {
        let misses = state.missed_events > 0 && !mem::replace(&mut state.missing_logged, true);
        drop(state);
        if misses {
            tracing::warn!("a client does not read, and misses events");
        }
    }

    fn account(&self, state: &mut Buffer) {
        self.unsent.store(state.unsent, Ordering::Release);
        let own = state.own;
        state.charge.set_bytes(own);
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for Outbox {
    fn transmit(&self, text: &str) {
        // Written with the next flush, but before that what was made before it.
        self.cork.flush();
        let mut state = self.lock();
        if !state.is_closed() {
            state.append(text.as_bytes(), Kind::Response);
        }
    }

    fn transmit_event(&self, text: &Arc<str>) {
        // Now: behind a corked response, the event would be written with it, and before those of other clients.
        self.cork.flush();
        let mut state = self.lock();
        if state.is_closed() {
            return;
        }
        if self.has_missed(Missed::Never) {
            // Responses do not count: the client may be reading a long one.
            state.overrun = state.unsent_events > self.full;
            if state.overrun {
                return;
            }
        } else if state.unsent > self.full || state.missed_events > 0 {
            // Once events are missed, all are until the client has been told how many.
            state.missed_events += 1;
            state.missed_in_all += 1;
            self.counters.events_dropped.count();
            return;
        }
        self.counters.events_sent.count();
        match text.len() < SHARED_FROM {
            true => state.append(text.as_bytes(), Kind::Event),
            false => state.append_shared(text),
        }
    }

    fn respond(&self, text: &str) {
        if Corking::is_allowed(&self.cork)
            && Cork::is_for(text.len())
            && let Some(me) = self.me.upgrade()
        {
            return self.cork.add(me, text);
        }
        self.cork.flush();
        let mut state = self.lock();
        self.write_behind(&mut state, text);
        self.tell_of_missed(state);
    }

    fn respond_delimited(&self, text: &str) {
        self.cork.flush();
        let mut state = self.lock();
        if !state.is_closed() {
            state.append(b"\xFF", Kind::Response);
            state.append(text.as_bytes(), Kind::Response);
            self.write_or_keep(&mut state);
        }
    }

    fn flush(&self) {
        self.cork.flush();
        self.write_out(self.lock());
    }
}

/// Responses of at most so many bytes wait, of all clients of an engine together: so they need no account.
const AT_MOST: usize = 16 << 10;

/// The responses of an engine that wait.
pub(crate) struct Cork {
    /// Whether any response waits or is being written, for a look without the lock.
    any: AtomicBool,
    /// Those that are being written. Held meanwhile, for who writes something later waits for it; empty otherwise. Locked
    /// before an outbox.
    writing: Mutex<Corked>,
    /// Never held while anything else is locked.
    waiting: Mutex<Corked>,
    /// Of the loop that writes them before it sleeps.
    mailbox: Arc<Mailbox>,
}

/// Responses in the order in which they were made.
#[derive(Default)]
struct Corked {
    text: String,
    /// To whom each part of the text goes, and where the part ends.
    parts: Vec<(Arc<Outbox>, usize)>,
}

impl Cork {
    pub(crate) fn new(mailbox: &Arc<Mailbox>) -> Cork {
        Cork {
            any: AtomicBool::new(false),
            writing: Mutex::default(),
            waiting: Mutex::default(),
            mailbox: Arc::clone(mailbox),
        }
    }

    /// Whether a response waits or is being written.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Lets a response wait that is short enough.
    fn add(&self, outbox: Arc<Outbox>, response: &str) {
        let mut waiting = self.lock();
        while !waiting.parts.is_empty() && waiting.text.len() + response.len() > AT_MOST {
            drop(waiting);
            self.flush();
            waiting = self.lock();
        }
        waiting.text.push_str(response);
        let end = waiting.text.len();
        match waiting.parts.last_mut() {
            Some((last, last_end)) if Arc::ptr_eq(last, &outbox) => *last_end = end,
            _ => waiting.parts.push((outbox, end)),
        }
        self.any.store(true, Ordering::SeqCst);
        drop(waiting);
        // Of a run that goes on though another thread has stepped in.
        self.mailbox.rouse();
    }

    /// Writes all responses that wait.
    pub(crate) fn flush(&self) {
        if !self.any() {
            return;
        }
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut waiting = self.lock();
            if waiting.parts.is_empty() {
                return self.any.store(false, Ordering::SeqCst);
            }
            mem::swap(&mut *waiting, &mut *writing);
            drop(waiting);
            let Corked { text, parts } = &mut *writing;
            let mut begin = 0;
            for (outbox, end) in parts.drain(..) {
                outbox.uncork(&text[begin..end]);
                begin = end;
            }
            text.clear();
        }
    }

    /// Whether a response of so many bytes may wait.
    fn is_for(bytes: usize) -> bool {
        bytes <= AT_MOST
    }

    fn lock(&self) -> MutexGuard<'_, Corked> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// The address of the cork that this thread may use, or 0. Others are those of other engines, whose loops would not
    /// know that something waits.
    static MAY_CORK: Cell<usize> = const { Cell::new(0) };
}

/// As long as this lives, responses that this thread makes for clients of the cork's engine may wait.
pub(crate) struct Corking<'a>(PhantomData<&'a Cork>);

impl<'a> Corking<'a> {
    pub(crate) fn allow(cork: &'a Cork) -> Corking<'a> {
        MAY_CORK.set(ptr::from_ref(cork).addr());
        Corking(PhantomData)
    }

    /// Whether this thread may use this cork.
    fn is_allowed(cork: &Cork) -> bool {
        MAY_CORK.get() == ptr::from_ref(cork).addr()
    }
}

impl Drop for Corking<'_> {
    fn drop(&mut self) {
        MAY_CORK.set(0);
    }
}
