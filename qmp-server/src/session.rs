// SPDX-License-Identifier: MIT OR Apache-2.0
//! One client: its requests on the way to the queue.
//!
//! ```text
//!  (a handshake, identification: access/admission.rs)
//!        | greeted
//!        v
//!   Negotiating --- negotiated ---> Commands
//!        |                             |
//!        |      read_closed            |      a half-close: what was sent is executed and answered
//!        +------------+----------------+
//!        |            v                |
//!        |        HalfClosed           |
//!        |            |                |
//!        +------------+----------------+---- drain -------> Draining     the server ends, or its machine has:
//!        |            | all answered   |                       |         what is unsent is sent, nothing is read
//!        | hung_up    | and sent       | hung_up               | all sent, or the time is over
//!        v            v                v                       v
//!     Closed       Closed           Closed                  Closed
//! ```
//!
//! A session is plain fields, touched by the thread that leads the loop. Other threads have the [`ConnectedClient`]. It knows
//! neither the loop nor other sessions: what it wants of them it returns as [`Effects`].

mod client;
mod descriptors;
mod effects;
#[cfg(feature = "mux")]
mod handover;
mod input;
mod missed;
mod on_leave;
mod outbox;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::{Band, Dialect, Limits};
use qmp_dispatch::{Monitor, Pending};
use qmp_queue::{Mode, Producer, Pushed, Queue};

pub(crate) use self::client::{Charges, ConnectedClient, QueuedRequest};
pub(crate) use self::descriptors::charged;
pub use self::descriptors::{Descriptor, Descriptors};
pub(crate) use self::effects::{Effects, Next, Pass, Run};
#[cfg(feature = "mux")]
pub(crate) use self::handover::{CameBy, SessionState};
use self::input::Input;
pub(crate) use self::input::{Complete, Large};
pub use self::missed::{EVENTS_MISSED, EventsMissed};
pub(crate) use self::on_leave::OnLeave;
pub(crate) use self::outbox::{Cork, Corking, Missed, Outbox, Written};
#[cfg(feature = "mux")]
pub(crate) use self::outbox::{SharedTexts, TextsTaken};
use crate::access::{Charge, Ledger, Origin};
use crate::io::{Event, Registration};
use crate::observe::{ClientCounters, Counters, trace};
use crate::transport::{MAX_DESCRIPTORS, Received, Transport};

/// In-band requests that QEMU queues for a client with out-of-band execution.
const QUEUED_WITH_OOB: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// The mode of a client's producer once out-of-band execution is enabled. Serial in either [`Discipline`]: while an async
/// command waits, the next request of its client does, too.
const MODE_WITH_OOB: Mode = Mode::Serial(QUEUED_WITH_OOB);

/// A request of up to so many bytes is not charged for them. A client has at most as many as its queue takes.
const SMALL: usize = 512;

/// What a client has sent that is disconnected is thrown away in so many reads at most.
const READS_TO_DISCARD: usize = 16;

/// What goes beyond this of a message is read without the leadership. To find the tokens of 4 KiB, to parse them and to check
/// the arguments takes up to half a millisecond if there are many, and hardly anybody sends more.
const READ_AT_ONCE: usize = 4 << 10;

/// What takes more memory than this is dropped without the leadership.
const LARGE: usize = 16 << 10;

/// Names of the server's own commands and events begin like this. The commands need no place among the requests, so that a
/// full account hides nothing from operators.
pub(crate) const OWN_NAMES: &str = "__org.qmp-server_";

/// How many in-band commands are executed at a time. Out-of-band commands are executed at once in either discipline, and
/// the in-band responses of one monitor come in the order of its requests.
///
/// It makes a difference for commands that [answer later](qmp_dispatch::Registry::deferred_command): handlers are called
/// one at a time in both. While an [async command](qmp_dispatch::Registry::async_command) waits, the commands of other
/// clients are executed in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Discipline {
    /// One in the whole server, as in QEMU: no other is begun before it has been answered.
    #[default]
    OneAtATime,
    /// One of each monitor: while an answer is awaited, the commands of others are executed.
    OnePerMonitor,
}

/// See the diagram at the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Negotiating,
    Commands,
    HalfClosed,
    Draining,
    Closed,
}

pub(crate) struct Session {
    client: Arc<ConnectedClient>,
    transport: Arc<dyn Transport>,
    state: Phase,
    input: Input,
    /// For what `input` keeps.
    kept: Charge,
    /// There may be something to receive: the last read found something and did not find the end of it.
    readable: bool,
    /// The system has reported the end of the stream, which comes after what there is to receive.
    read_closed: bool,
    /// A request has suspended the monitor or is parked, and the queue was not found to be open since.
    may_be_suspended: bool,
    /// In-band requests that wait for a place in an account. They stand before everything in `input`.
    parked: VecDeque<Parked>,
    /// Requests that another program has read. They stand between those that are parked and `input`.
    resumed: VecDeque<Pending>,
    /// An out-of-band request was not answered yet, or a large message is being read: what was sent after it waits.
    running: bool,
    /// A request may be begun that had waited until the client has read.
    released: bool,
    /// The server ends: nothing more is read.
    halted: bool,
}

/// Whether what was charged for a request is so much that to drop it takes long.
fn is_large(bytes: Option<&Charge>) -> bool {
    bytes.is_some_and(|charge| charge.amount() > LARGE)
}

struct Parked {
    pending: Pending,
    bytes: Option<Charge>,
    queued: Duration,
}

/// What was taken from received bytes.
#[derive(Default)]
struct Taken {
    messages: usize,
    run: Option<Run>,
    queued: bool,
    /// A message has become large, and goes on.
    is_large: bool,
}

/// What a session is made of.
pub(crate) struct Parts {
    pub(crate) registration: Arc<Registration>,
    pub(crate) origin: Origin,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) dialect: Dialect,
    pub(crate) limits: Limits,
}

impl Session {
    pub(crate) fn new(parts: Parts, queue: &Queue<QueuedRequest>) -> Session {
        let Parts { registration, origin, transport, monitor, outbox, ledger, .. } = parts;
        let producer: Producer<QueuedRequest> =
            queue.register_in(ledger.owner(), Mode::OneInProgress);
        let kept = ledger.charge_bytes(0);
        let client = ConnectedClient {
            registration,
            origin,
            monitor,
            outbox,
            ledger,
            counters: ClientCounters::new(parts.counters.now()),
            server: parts.counters,
            producer,
            unanswered: AtomicUsize::new(0),
            held_back: AtomicBool::new(false),
            unread: Mutex::new(None),
            is_unread: AtomicBool::new(false),
            left: OnceLock::new(),
        };
        Session {
            client: Arc::new(client),
            transport,
            state: Phase::Negotiating,
            input: Input::new(parts.dialect, parts.limits),
            kept,
            readable: true,
            read_closed: false,
            may_be_suspended: false,
            parked: VecDeque::new(),
            resumed: VecDeque::new(),
            running: false,
            released: false,
            halted: false,
        }
    }

    pub(crate) fn client(&self) -> &Arc<ConnectedClient> {
        &self.client
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }

    /// The transport has become ready: there is something to [read](Session::read), or room to write.
    pub(crate) fn ready(&mut self, event: Event, pass: &mut Pass) -> Effects {
        // Of who has gone, nothing is executed that has not begun: QEMU drops its queue then, too.
        if event.hung_up && self.transport.reports_hang_up() {
            return Effects::next(Next::Close);
        }
        self.readable = true;
        self.read_closed |= event.read_closed;
        if self.state == Phase::Draining {
            return Effects::next(self.drained());
        }
        self.read(pass)
    }

    /// Writes more of what is unsent.
    pub(crate) fn write_more(&mut self) -> Written {
        let written = self.client.outbox.write_more();
        self.released |= self.client.has_read();
        written
    }

    /// Nothing more can be sent to the client, or is to be.
    pub(crate) fn broken(&mut self, pass: &mut Pass) -> Effects {
        // Nothing is unread any more.
        self.released |= self.client.has_read();
        match self.state {
            Phase::Draining | Phase::Closed => Effects::next(Next::Close),
            _ => self.read(pass),
        }
    }

    /// Reads until the monitor is suspended, an out-of-band request is to be executed, or there is nothing more.
    pub(crate) fn read(&mut self, pass: &mut Pass) -> Effects {
        let unparked = self.unpark();
        let mut effects = self.read_on(pass);
        effects.queued |= unparked | mem::take(&mut self.released);
        let kept = self.input.kept();
        self.kept.set_bytes(kept);
        if effects.next == Next::Wait && self.is_finished() {
            effects.next = Next::Close;
        }
        effects
    }

    fn read_on(&mut self, pass: &mut Pass) -> Effects {
        let mut effects = Effects::next(Next::Wait);
        let mut has_read = false;
        while self.accepts_input() {
            let taken = if let Some(pending) = self.resumed.pop_front() {
                let mut taken = Taken::default();
                let bytes = pending.heap_size();
                self.take(pending, bytes, pass.now, &mut taken);
                taken
            } else if !self.input.is_read() {
                let piece = self.input.next_piece();
                if piece.end == self.input.unread.len() && !self.input.descriptors.is_empty() {
                    self.let_wait();
                }
                let unread = mem::take(&mut self.input.unread);
                let mut rest = &unread[piece.clone()];
                let taken = self.take_messages(&mut rest, pass.now);
                self.input.at = piece.end - rest.len();
                self.input.unread = unread;
                taken
            } else {
                self.input.unread = Vec::new();
                self.input.at = 0;
                if !self.readable || self.state == Phase::HalfClosed {
                    break;
                }
                if mem::replace(&mut has_read, true) {
                    effects.next = Next::Again;
                    break;
                }
                match self.receive(pass) {
                    Ok(Some(taken)) => taken,
                    Ok(None) => break,
                    Err(next) => {
                        effects.next = next;
                        break;
                    }
                }
            };
            effects.queued |= taken.queued;
            effects.run =
                if taken.is_large { Some(Run::Read(self.input.lend())) } else { taken.run };
            if effects.run.is_some() {
                self.running = true;
                break;
            }
        }
        effects
    }

    /// Receives bytes and takes messages from them; what is left over waits in `input`. `None` if there is nothing.
    fn receive(&mut self, pass: &mut Pass) -> Result<Option<Taken>, Next> {
        let answered = self.client.unanswered.load(Ordering::SeqCst) == 0;
        let has_room = self.client.ledger.has_room_for_descriptors(MAX_DESCRIPTORS);
        let one_by_one = answered && has_room && self.input.comes_one_by_one();
        let mut came: Vec<OwnedFd> = Vec::new();
        let received = match (has_room, one_by_one) {
            (false, _) => self.transport.receive_bytes(&mut pass.scratch),
            (true, false) => self.transport.receive(&mut pass.scratch, &mut came),
            (true, true) => self.transport.receive_message(&mut pass.scratch, &mut came),
        };
        let received = match received {
            Ok(Received { bytes: 0, .. }) => {
                self.state = Phase::HalfClosed;
                return Ok(None);
            }
            Ok(received) => received,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.readable = false;
                        Ok(None)
                    }
                    io::ErrorKind::Interrupted => Ok(Some(Taken::default())),
                    io::ErrorKind::QuotaExceeded => Err(Next::Later),
                    _ => Err(Next::Close),
                };
            }
        };
        let Received { bytes, may_be_more } = received;
        self.readable = may_be_more || self.read_closed;
        self.client.server.bytes_received.add_alone(bytes as u64);
        self.client.counters.bytes_received.add_alone(bytes as u64);
        let mut rest = &pass.scratch[..bytes];
        if !came.is_empty() {
            self.input.descriptors = charged(came, &self.client.ledger);
            self.input.came(false);
            if !one_by_one {
                self.input.unread = rest.to_vec();
                return Ok(Some(Taken::default()));
            }
            self.let_wait();
        }
        let taken = self.take_messages(&mut rest, pass.now);
        let is_message = taken.messages == 1 && rest.is_empty() && self.input.reader.is_idle();
        self.input.came(answered && is_message);
        self.input.unread = rest.to_vec();
        Ok(Some(taken))
    }

    /// Takes messages from `bytes` until the monitor is suspended, or one is to be executed out-of-band.
    fn take_messages(&mut self, bytes: &mut &[u8], now: Instant) -> Taken {
        let mut taken = Taken::default();
        loop {
            let most = READ_AT_ONCE.saturating_sub(self.input.of_message);
            let piece = &bytes[..bytes.len().min(most)];
            let mut rest = piece;
            let message = self.input.reader.read(&mut rest);
            let length = piece.len() - rest.len();
            *bytes = &bytes[length..];
            self.input.of_message += length;
            let Some(message) = message else {
                if !self.input.reader.is_idle() {
                    taken.is_large = !bytes.is_empty();
                    break;
                }
                // White space.
                self.input.of_message = 0;
                if bytes.is_empty() {
                    break;
                }
                continue;
            };
            taken.messages += 1;
            let pending = self.client.monitor.receive(message);
            let bytes = mem::take(&mut self.input.of_message).max(pending.heap_size());
            self.take(pending, bytes, now, &mut taken);
            if taken.run.is_some() || self.may_be_suspended || self.client.outbox.is_full() {
                break;
            }
        }
        // Most clients end a message with a line end: without it, there is nothing to read on for.
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        if self.input.reader.is_idle() && bytes.iter().all(is_blank) {
            let nothing = self.input.reader.read(bytes);
            debug_assert!(nothing.is_none());
        }
        taken
    }

    /// Has a request executed, at once or in its turn.
    fn take(&mut self, pending: Pending, bytes: usize, now: Instant, taken: &mut Taken) {
        match pending.band() {
            Band::OutOfBand => {
                self.client.counters.out_of_band.add_alone(1);
                self.client.server.out_of_band.add_alone(1);
                taken.run = Some(Run::Execute(pending));
            }
            Band::InBand => taken.queued |= self.take_in_band(pending, bytes, now),
        }
    }

    /// More of a large message has been read; `complete` if that was the end of it.
    pub(crate) fn has_read(
        &mut self,
        large: Box<Large>,
        complete: Option<Complete>,
        now: Instant,
    ) -> Effects {
        self.running = false;
        if self.halted || self.state == Phase::Draining {
            return Effects { run: Some(Run::Discard(large, complete)), ..self.executed() };
        }
        self.input.put_back(large);
        self.kept.set_bytes(self.input.kept());
        let mut taken = Taken::default();
        if let Some(Complete { pending, bytes }) = complete {
            self.take(pending, bytes, now, &mut taken);
        }
        if taken.run.is_some() {
            self.running = true;
            return Effects { run: taken.run, ..Effects::next(Next::Wait) };
        }
        // What comes next waits for its turn: a client that sends large messages without end must not keep the loop from pausing.
        Effects { queued: taken.queued, ..Effects::next(Next::Again) }
    }

    /// Queues an in-band request, or parks it if its accounts have no room. Whether it was queued.
    fn take_in_band(&mut self, pending: Pending, bytes: usize, now: Instant) -> bool {
        let client = &self.client;
        client.server.in_band.add_alone(1);
        client.unanswered.fetch_add(1, Ordering::SeqCst);
        let queued = client.server.at(now);
        let bytes = (bytes > SMALL).then(|| client.ledger.charge_bytes(bytes));
        if self.state == Phase::Negotiating && client.monitor.is_negotiated() {
            self.state = Phase::Commands;
        }
        let needs_place = client.ledger.limits_requests()
            && client.monitor.is_negotiated()
            && !pending.command().is_some_and(|command| command.starts_with(OWN_NAMES));
        if !needs_place {
            return self.push(pending, bytes, None, queued);
        }
        if self.parked.is_empty()
            && let Some(request) = self.charge_request()
        {
            return self.push(pending, bytes, Some(request), queued);
        }
        self.parked.push_back(Parked { pending, bytes, queued });
        self.may_be_suspended = true;
        false
    }

    fn push(
        &mut self,
        pending: Pending,
        bytes: Option<Charge>,
        request: Option<Charge>,
        queued: Duration,
    ) -> bool {
        let client = Arc::clone(&self.client);
        trace::monitor_qmp_in_band_enqueue(client.monitor.id(), &client.producer);
        let charges = Charges { bytes, _request: request };
        match self.client.producer.push(QueuedRequest { client, pending, charges, queued }) {
            Ok(Pushed::Ready) => true,
            Ok(Pushed::Suspended) => {
                self.may_be_suspended = true;
                self.client.server.suspensions.add_alone(1);
                trace::monitor_suspend(self.client.monitor.id(), 1);
                true
            }
            // The queue is closed because the server ends, and nobody is left to be answered.
            Err(_) => {
                self.client.unanswered.fetch_sub(1, Ordering::SeqCst);
                false
            }
        }
    }

    /// A place is kept for a request that waits for one.
    pub(crate) fn room(&mut self, pass: &mut Pass) -> Effects {
        let effects = self.read(pass);
        if self.parked.is_empty() {
            self.wait_for_no_place();
        }
        effects
    }

    /// Queues parked requests for which there is a place. Whether any was queued.
    fn unpark(&mut self) -> bool {
        let mut queued = false;
        while !self.parked.is_empty() && !self.client.producer.is_suspended() {
            let Some(charge) = self.charge_request() else { break };
            let Some(Parked { pending, bytes, queued: at }) = self.parked.pop_front() else {
                break;
            };
            queued |= self.push(pending, bytes, Some(charge), at);
        }
        queued
    }

    fn charge_request(&self) -> Option<Charge> {
        self.client.ledger.charge_request(self.client.registration.token()?)
    }

    fn wait_for_no_place(&self) {
        if let Some(token) = self.client.registration.token() {
            self.client.ledger.withdraw(token);
        }
    }

    /// Whether reading may go on. If not, what ends the obstacle is an input: the monitor is resumed when its request
    /// has been taken or answered, the client takes its output, there is room for the request that is parked.
    fn accepts_input(&mut self) -> bool {
        if self.running || self.halted || matches!(self.state, Phase::Draining | Phase::Closed) {
            return false;
        }
        if self.client.outbox.is_full() {
            return false;
        }
        if self.may_be_suspended && self.parked.is_empty() && self.unanswered() == 0 {
            self.may_be_suspended = false;
        }
        if self.may_be_suspended {
            // The usual client sends no more before it is answered: then nobody has to be told.
            if !self.has_more() {
                return false;
            }
            // Set first: an answer that comes between this and the look sees it.
            self.client.held_back.store(true, Ordering::SeqCst);
            self.may_be_suspended = self.is_suspended();
            if !self.may_be_suspended {
                self.client.held_back.store(false, Ordering::SeqCst);
            }
        }
        !self.may_be_suspended
    }

    /// Whether there is something to do once the monitor is resumed, though the transport may report nothing.
    fn has_more(&self) -> bool {
        let waits = !self.input.is_read() || !self.parked.is_empty() || !self.resumed.is_empty();
        waits || self.readable || self.read_closed || self.state == Phase::HalfClosed
    }

    /// Whether the client has as many requests waiting as it may.
    fn is_suspended(&self) -> bool {
        if self.parked.is_empty() {
            return self.client.producer.is_suspended();
        }
        let most = if self.client.monitor.is_oob_enabled() { QUEUED_WITH_OOB.get() } else { 1 };
        self.client.unanswered.load(Ordering::SeqCst) >= most
    }

    /// The out-of-band request has been answered.
    pub(crate) fn executed(&mut self) -> Effects {
        self.running = false;
        Effects::next(match self.state {
            Phase::Draining => self.drained(),
            _ => Next::Again,
        })
    }

    /// The client has sent all, and has been answered and sent all.
    fn is_finished(&self) -> bool {
        let is_read = self.input.is_read() && self.resumed.is_empty();
        if self.state != Phase::HalfClosed || self.running || !is_read {
            return false;
        }
        self.client.held_back.store(true, Ordering::SeqCst);
        self.client.unanswered.load(Ordering::SeqCst) == 0 && self.client.outbox.has_sent_all()
    }

    /// Whether the client waits to complete negotiation.
    pub(crate) fn negotiates(&self) -> bool {
        self.state == Phase::Negotiating
            && !self.client.monitor.is_negotiated()
            && self.client.unanswered.load(Ordering::SeqCst) > 0
    }

    /// Takes what a client that negotiates has in the queue, to be executed out of turn.
    pub(crate) fn take_queued(&mut self) -> Vec<QueuedRequest> {
        self.client.producer.clear().items
    }

    /// Reads nothing more, because the server ends.
    pub(crate) fn halt(&mut self) {
        self.halted = true;
    }

    /// Reads nothing more, and returns the requests that will not be executed.
    pub(crate) fn refuse(&mut self) -> Vec<Pending> {
        self.halt();
        let queued = self.client.producer.close().items.into_iter().map(|job| job.pending);
        let parked = self.parked.drain(..).map(|parked| parked.pending);
        let refused = queued.chain(parked).chain(self.resumed.drain(..)).collect();
        self.forget_input();
        refused
    }

    /// From now on the client gets what is unsent, and then the end.
    pub(crate) fn drain(&mut self) -> Next {
        self.state = Phase::Draining;
        self.client.outbox.finish();
        self.drained()
    }

    /// What a session that drains is to do next.
    fn drained(&self) -> Next {
        if self.client.outbox.has_sent_all() { Next::Close } else { Next::Wait }
    }

    /// In-band requests that were read and not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.client.unanswered.load(Ordering::SeqCst)
    }

    /// Ends the connection: what was queued or received is dropped, and what it took is given back.
    pub(crate) fn close(&mut self, scratch: &mut [u8]) {
        if self.state == Phase::Draining {
            self.discard_input(scratch);
        }
        self.state = Phase::Closed;
        self.transport.shutdown();
        drop(self.client.outbox.close());
        self.kept.set_bytes(0);
        if let Some(descriptors) = self.client.monitor.local::<Descriptors>() {
            descriptors.clear();
        }
        self.client.ledger.leave();
        self.wait_for_no_place();
    }

    fn forget_input(&mut self) {
        drop(self.input.clear());
        self.kept.set_bytes(0);
    }

    /// Throws away what the client has sent and nobody will read, so that it sees a clean end of file and no reset.
    fn discard_input(&self, scratch: &mut [u8]) {
        for _ in 0..READS_TO_DISCARD {
            match self.transport.receive_bytes(scratch) {
                Ok(Received { bytes: 1.., may_be_more: true }) => {}
                Ok(_) | Err(_) => break,
            }
        }
    }

    /// Lets the descriptors that came wait for a command that takes one, in place of the one that did.
    fn let_wait(&mut self) {
        let descriptors = mem::take(&mut self.input.descriptors);
        if let Some(local) = self.client.monitor.local::<Descriptors>() {
            local.arrive(descriptors);
        }
    }

    /// What is left of a closed session, to be dropped without the leadership: its monitor, whose end calls foreign
    /// code, its requests, and its transport, in which descriptors of the client may still be.
    pub(crate) fn into_remains(self) -> Remains {
        let jobs = self.client.producer.close().items;
        Remains {
            jobs,
            parked: self.parked,
            input: self.input,
            client: self.client,
            transport: self.transport,
            resumed: self.resumed,
        }
    }
}

/// See [`Session::into_remains`].
pub(crate) struct Remains {
    jobs: Vec<QueuedRequest>,
    parked: VecDeque<Parked>,
    resumed: VecDeque<Pending>,
    input: Input,
    pub(crate) client: Arc<ConnectedClient>,
    transport: Arc<dyn Transport>,
}

impl Remains {
    /// Drops what the client has sent; where it holds up nobody, if that is much.
    pub(crate) fn drop_all_but_transport(self) -> Arc<dyn Transport> {
        let Remains { jobs, parked, resumed, input, client, transport } = self;
        let is_large = input.kept() > LARGE
            || !resumed.is_empty()
            || jobs.iter().any(|job| job.charges.are_large())
            || parked.iter().any(|parked| is_large(parked.bytes.as_ref()));
        if is_large {
            client.discard((jobs, parked, resumed, input));
        }
        transport
    }
}
