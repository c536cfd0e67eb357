// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection: its input on the way to the queue, its output on the way to the client.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::Duration;

use qmp_dispatch::proto::{Band, Error, Reader};
use qmp_dispatch::{Monitor, Pending};
use qmp_queue::{Cleared, Mode, Producer, Pushed, Resume, Ticket};

use crate::core::{Core, Execution};
use crate::descriptors::Descriptors;
use crate::entrance::GivenRole;
use crate::figures::Figures;
use crate::input::Input;
use crate::outbox::{Outbox, Sent};
use crate::poller::{Ready, Token};
use crate::server::Discipline;
use crate::status::milliseconds;
use crate::tally::Tally;
use crate::trace;
use crate::usage::Share;
use crate::{ClientStatus, Peer, Received, RunningCommand, Transport};

/// As many in-band requests as QEMU queues for a client with out-of-band execution.
const QUEUED_WITH_OOB: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// One reading does no more than this before others get their turn.
const READS_PER_TURN: usize = 16;
const OUT_OF_BAND_PER_TURN: usize = 64;

/// An in-band request that waits for its turn.
pub(crate) struct Job {
    pub(crate) session: Arc<Session>,
    pub(crate) pending: Pending,
    /// When it was read.
    pub(crate) queued: Duration,
}

pub(crate) struct Session {
    pub(crate) token: Token,
    core: Weak<Core>,
    /// Which of the server's listeners the client has connected to.
    pub(crate) listener: Option<usize>,
    pub(crate) transport: Arc<dyn Transport>,
    outbox: Arc<Outbox>,
    pub(crate) monitor: Arc<Monitor>,
    producer: Producer<Job>,
    /// How many clients of the server wait to complete negotiation.
    negotiating: Arc<AtomicUsize>,
    /// The mode of `producer` once out-of-band execution is enabled.
    mode_with_oob: Mode,
    input: Mutex<Input>,
    /// What `input` keeps, as the [`Share`] has been told.
    kept: AtomicUsize,
    /// Something has happened that may let reading go on.
    attention: AtomicBool,
    /// There may be something to receive.
    readable: AtomicBool,
    /// There is something in `input` that has been received and not been read.
    unread: AtomicBool,
    /// Behind what is there to read comes the end, which is not told again.
    ends: AtomicBool,
    /// The client sends no more. In one order with `unanswered` for all threads: of the one that
    /// finds the end and the one that gives the last answer, at least one sees both.
    ended: AtomicBool,
    closed: AtomicBool,
    /// In-band requests that are queued or being executed.
    unanswered: AtomicUsize,
    tally: Tally,
}

/// What is to be done with a session when a thread has done its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait until something happens.
    Wait,
    /// Go on after others have had their turn.
    Again,
    /// Close it: the client has sent all and been sent all.
    Close,
}

/// How many messages have been taken from what was received.
#[derive(Default)]
struct Taken {
    messages: usize,
    out_of_band: usize,
}

impl Session {
    pub(crate) fn new(
        token: Token,
        listener: Option<usize>,
        transport: Arc<dyn Transport>,
        outbox: Arc<Outbox>,
        monitor: Arc<Monitor>,
        producer: Producer<Job>,
        core: &Arc<Core>,
    ) -> Session {
        let tally = Tally::new(outbox.figures().now());
        Session {
            token,
            core: Arc::downgrade(core),
            listener,
            transport,
            outbox,
            monitor,
            producer,
            negotiating: core.negotiating(),
            mode_with_oob: match core.discipline() {
                Discipline::OneAtATime => Mode::UpTo(QUEUED_WITH_OOB),
                Discipline::OnePerMonitor => Mode::Serial(QUEUED_WITH_OOB),
            },
            input: Mutex::new(Input::new(core.limits().message)),
            kept: AtomicUsize::new(0),
            attention: AtomicBool::new(false),
            readable: AtomicBool::new(true),
            unread: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            unanswered: AtomicUsize::new(0),
            tally,
        }
    }

    /// The transport has become ready: there is room to write, or something to
    /// [read](Session::read).
    pub(crate) fn ready(&self, ready: Ready) {
        if ready.ended {
            self.ends.store(true, Ordering::Release);
        }
        self.readable.store(true, Ordering::Release);
        // Whatever it seems to hold: a thread may just have found that no more fits, and this is not
        // told again.
        if ready.writable {
            self.outbox.flush();
        }
    }

    /// Has the poller tell what the client is ready for, from now on.
    pub(crate) fn be_polled(&self, polled_before: bool) -> io::Result<()> {
        self.outbox.be_polled(polled_before)
    }

    /// Reads until the monitor is suspended or there is nothing more. Executes what is out-of-band,
    /// queues what is in-band.
    pub(crate) fn read(self: &Arc<Self>, scratch: &mut [u8]) -> Next {
        self.attention.store(true, Ordering::SeqCst);
        loop {
            fence(Ordering::SeqCst);
            let mut input = match self.input.try_lock() {
                Ok(input) => input,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // Whoever holds it sees that attention is due.
                Err(TryLockError::WouldBlock) => return Next::Wait,
            };
            let mut next = Next::Wait;
            while next == Next::Wait && self.attention.swap(false, Ordering::AcqRel) {
                next = self.read_input(&mut input, scratch);
            }
            self.keep(input.kept());
            drop(input);
            // Whoever found it locked has set this before, and is seen here.
            fence(Ordering::SeqCst);
            if next != Next::Wait || !self.attention.load(Ordering::Acquire) {
                return next;
            }
        }
    }

    fn read_input(self: &Arc<Self>, input: &mut Input, scratch: &mut [u8]) -> Next {
        let mut reads = 0;
        let mut out_of_band = 0;
        while self.goes_on(input) {
            if reads == READS_PER_TURN || out_of_band >= OUT_OF_BAND_PER_TURN {
                return Next::Again;
            }
            if !input.is_read() {
                let piece = input.next_piece();
                if piece.end == input.unread.len() {
                    self.let_wait(std::mem::take(&mut input.descriptors));
                }
                let unread = std::mem::take(&mut input.unread);
                let mut rest = &unread[piece.clone()];
                out_of_band += self.take_messages(&mut input.reader, &mut rest).out_of_band;
                input.at = piece.end - rest.len();
                input.unread = unread;
                continue;
            }
            input.unread = Vec::new();
            input.at = 0;
            if self.ended.load(Ordering::SeqCst) || !self.readable.swap(false, Ordering::AcqRel) {
                break;
            }
            reads += 1;
            let answered = self.unanswered.load(Ordering::SeqCst) == 0;
            let one_by_one = answered && input.comes_one_by_one();
            let Some(received) = self.receive(one_by_one, scratch, &mut input.descriptors) else {
                break;
            };
            let mut rest = &scratch[..received];
            if !input.descriptors.is_empty() {
                input.came(false);
                if !one_by_one {
                    input.unread = rest.to_vec();
                    continue;
                }
                self.let_wait(std::mem::take(&mut input.descriptors));
            }
            let taken = self.take_messages(&mut input.reader, &mut rest);
            let is_message = taken.messages == 1 && rest.is_empty() && input.reader.is_idle();
            input.came(answered && is_message);
            out_of_band += taken.out_of_band;
            input.unread = rest.to_vec();
        }
        if input.is_read() && self.is_finished() { Next::Close } else { Next::Wait }
    }

    /// Whether reading goes on from here.
    fn goes_on(&self, input: &Input) -> bool {
        // First: whoever lets it go on again looks at this then.
        self.unread.store(!input.is_read(), Ordering::Release);
        self.accepts_input()
    }

    /// Whether there may be something to [read](Session::read), now that the monitor has been resumed.
    pub(crate) fn has_input(&self) -> bool {
        self.unread.load(Ordering::Acquire) || self.readable.load(Ordering::Acquire)
    }

    /// Whether reading may go on. A monitor that is suspended is resumed when its request has been
    /// taken or answered, a client that does not read when it does, and one that takes part in too
    /// many requests when one of them has been answered.
    fn accepts_input(&self) -> bool {
        !self.producer.is_suspended()
            && !self.outbox.is_full()
            && !self.closed.load(Ordering::Acquire)
            && self.share().has_room(self.token)
    }

    /// What the client takes of the server.
    pub(crate) fn share(&self) -> &Share {
        self.outbox.share()
    }

    fn figures(&self) -> &Arc<Figures> {
        self.outbox.figures()
    }

    fn keep(&self, bytes: usize) {
        self.share().replace(self.kept.swap(bytes, Ordering::AcqRel), bytes);
    }

    /// The client has sent all and been sent all.
    fn is_finished(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
            && self.unanswered.load(Ordering::SeqCst) == 0
            && self.outbox.is_empty()
    }

    /// Lets descriptors wait for a command that takes them, in place of those that did.
    fn let_wait(&self, descriptors: Vec<OwnedFd>) {
        if !descriptors.is_empty()
            && let Some(local) = self.monitor.local::<Descriptors>()
        {
            local.arrive(descriptors);
        }
    }

    /// Receives bytes, and the descriptors that came with the last of them or, if messages come
    /// `one_by_one`, with any; `None` if there are none.
    fn receive(
        &self,
        one_by_one: bool,
        scratch: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> Option<usize> {
        let received = match one_by_one {
            true => self.transport.receive_message(scratch, descriptors),
            false => self.transport.receive(scratch, descriptors),
        };
        match received {
            Ok(Received { bytes: 0, .. }) => self.ended.store(true, Ordering::SeqCst),
            Ok(Received { bytes, may_be_more }) => {
                self.figures().bytes_received.add(bytes as u64);
                self.tally.bytes_received.add(bytes as u64);
                if may_be_more || self.ends.load(Ordering::Acquire) {
                    self.readable.store(true, Ordering::Release);
                }
                return Some(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.readable.store(true, Ordering::Release);
                return Some(0);
            }
            Err(_) => {
                self.outbox.kill();
                self.ended.store(true, Ordering::SeqCst);
            }
        }
        None
    }

    /// Takes messages from `bytes` until the monitor is suspended.
    fn take_messages(self: &Arc<Self>, reader: &mut Reader, bytes: &mut &[u8]) -> Taken {
        let mut taken = Taken::default();
        while let Some(message) = reader.read(bytes) {
            taken.messages += 1;
            let pending = self.monitor.receive(message);
            match pending.band() {
                Band::OutOfBand => {
                    taken.out_of_band += 1;
                    let figures = Arc::clone(self.figures());
                    figures.out_of_band.count();
                    self.tally.out_of_band.count();
                    let began = figures.now();
                    let done = move || {
                        figures.executed_out_of_band.add(figures.now().saturating_sub(began));
                    };
                    self.monitor.execute(pending, done);
                }
                Band::InBand => {
                    self.figures().in_band.count();
                    self.unanswered.fetch_add(1, Ordering::AcqRel);
                    self.share().requested();
                    let queued = self.figures().now();
                    if !self.monitor.is_negotiated() {
                        self.tally.negotiating(queued);
                        self.negotiating.fetch_add(1, Ordering::SeqCst);
                    }
                    let job = Job { session: Arc::clone(self), pending, queued };
                    trace::monitor_qmp_in_band_enqueue(self.monitor.id(), &self.producer);
                    match self.producer.push(job) {
                        Ok(Pushed::Ready) => {}
                        Ok(Pushed::Suspended) => {
                            self.suspended();
                            break;
                        }
                        // Closed while it was read: nobody is left to be answered.
                        Err(_) => {
                            self.forget(1);
                            break;
                        }
                    }
                }
            }
            if taken.out_of_band >= OUT_OF_BAND_PER_TURN || !self.accepts_input() {
                break;
            }
        }
        taken
    }

    /// Executes what was sent to complete negotiation, if that has waited for its turn for so long. Whether
    /// the session is to be [read](Session::read) from: whoever tried meanwhile has left it to us.
    pub(crate) fn negotiate(&self, at_least: Duration) -> bool {
        let is_due = |since| self.figures().now() >= since + at_least;
        let waits = || self.tally.negotiating_since().is_some_and(is_due);
        if !waits() || self.monitor.is_negotiated() {
            return false;
        }
        // No more is queued while this is locked, and so what is cannot be anything else.
        let Ok(_input) = self.input.try_lock() else { return false };
        if !waits() || self.monitor.is_negotiated() {
            return true;
        }
        let Cleared { items, resume, .. } = self.producer.clear();
        let negotiated = items.len();
        for Job { pending, queued, .. } in items {
            let (figures, began) = (Arc::clone(self.figures()), self.figures().now());
            self.left_queue();
            figures.waited.add(began.saturating_sub(queued));
            let done = move || figures.executed.add(figures.now().saturating_sub(began));
            self.monitor.execute(pending, done);
            self.unanswered.fetch_sub(1, Ordering::SeqCst);
        }
        let resumed = self.enable_oob(false).or(resume);
        if resumed.is_some() {
            self.resumed();
        }
        self.give_room(negotiated);
        true
    }

    /// Lets more requests wait if the client has just enabled out-of-band execution.
    fn enable_oob(&self, had_oob: bool) -> Option<Resume> {
        let has_begun = !had_oob && self.monitor.is_oob_enabled();
        has_begun.then(|| self.producer.set_mode(self.mode_with_oob)).flatten()
    }

    /// One request of a client that negotiates waits no more, if any did.
    fn left_queue(&self) {
        if self.tally.negotiated() {
            self.negotiating.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Sends nothing more, not even what is pending.
    pub(crate) fn kill_output(&self) {
        self.outbox.kill();
    }

    /// Ends the connection. Returns whether it had not been ended before.
    pub(crate) fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        if first {
            self.transport.shutdown();
            self.forget(self.producer.close().items.len());
            self.share().leave();
        }
        first
    }

    /// Answers what is queued with an error, because the server ends.
    pub(crate) fn refuse_waiting(&self) {
        let waiting = self.producer.close().items;
        self.forget(waiting.len());
        // Nothing may overtake an answer that is still owed.
        if self.unanswered.load(Ordering::SeqCst) > waiting.len() {
            return;
        }
        for job in waiting {
            self.monitor.refuse(job.pending, Error::generic("The server is shutting down"));
        }
    }

    /// So many requests will not be executed.
    fn forget(&self, requests: usize) {
        self.left_queue();
        self.give_room(requests);
    }

    /// So many requests take no room any more: whoever waits for some is read from.
    fn give_room(&self, requests: usize) {
        let core = self.core.upgrade();
        for _ in 0..requests {
            let waiting = self.share().answered();
            if let Some(core) = &core {
                core.read_again(&waiting);
            }
        }
    }

    /// Whether the client has read nothing for this long, though something waits to be read by it.
    pub(crate) fn is_stalled(&self, at_least: Duration) -> bool {
        self.outbox.is_stalled(at_least)
    }

    /// Writes what is pending, as far as the client takes it; whether that was all.
    pub(crate) fn flush(&self) -> bool {
        self.outbox.flush();
        self.outbox.is_empty()
    }

    /// Throws away what the client has sent and nobody will read, so that it sees a clean end of
    /// file and no reset.
    pub(crate) fn discard_input(&self, scratch: &mut [u8]) {
        for _ in 0..READS_PER_TURN {
            match self.transport.receive(scratch, &mut Vec::new()) {
                Ok(Received { bytes: 1.., may_be_more: true }) => {}
                Ok(_) | Err(_) => break,
            }
        }
    }

    /// An in-band request of this monitor has its turn.
    pub(crate) fn taken(&self, at: Duration) {
        self.left_queue();
        self.tally.taken(at);
    }

    /// What operators see of it, but for where it came in.
    pub(crate) fn status(&self) -> ClientStatus {
        let Session { monitor, tally, .. } = self;
        let now = self.figures().now();
        let queue = self.producer.stats();
        let Sent { bytes, unread, events_missed } = self.outbox.sent();
        let running = tally.running_since().and_then(|since| {
            let running_ms = milliseconds(now.saturating_sub(since));
            Some(RunningCommand { command: monitor.last_command()?, running_ms })
        });
        ClientStatus {
            monitor: monitor.id().into(),
            peer: monitor.local::<Peer>().map(Peer::to_string).unwrap_or_default(),
            role: monitor.local().map(|GivenRole(role)| role.to_string()),
            listener: None,
            connected_ms: milliseconds(now.saturating_sub(tally.connected)),
            negotiated: monitor.is_negotiated(),
            oob: monitor.is_oob_enabled(),
            suspended: queue.as_ref().is_some_and(|queue| queue.suspended),
            queued: queue.as_ref().map_or(0, |queue| queue.queued as u64),
            running,
            in_band: queue.map_or(0, |queue| queue.served),
            out_of_band: tally.out_of_band.get(),
            received_bytes: tally.bytes_received.get(),
            sent_bytes: bytes,
            unread_bytes: unread as u64,
            events_dropped: events_missed,
        }
    }

    /// A request of this monitor has been taken from the queue.
    pub(crate) fn dequeued(&self) {
        trace::monitor_qmp_in_band_dequeue(self.monitor.id(), &self.producer);
    }

    /// The monitor is not read from until it is resumed.
    fn suspended(&self) {
        self.figures().suspensions.count();
        trace::monitor_suspend(self.monitor.id(), 1);
    }

    pub(crate) fn resumed(&self) {
        trace::monitor_suspend(self.monitor.id(), -1);
    }

    /// An in-band request has been answered: the monitor may be resumed, and the next one executed.
    pub(crate) fn answered(
        self: Arc<Self>,
        execution: Execution,
        ticket: Ticket<Job>,
        had_oob: bool,
    ) {
        self.tally.answered();
        let core = execution.core();
        // Both, in this order: the second one must not be left out.
        let resumed = self.enable_oob(had_oob);
        let resumed = resumed.or(ticket.done());
        if resumed.is_some() {
            self.resumed();
        }
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        core.read_again(&self.share().answered());
        if self.ended.load(Ordering::SeqCst) {
            core.read(&self);
        } else if resumed.is_some() {
            core.read_on(&self);
        }
    }
}
