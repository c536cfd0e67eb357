// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that have connected, until it is known which machine they are of: a source of the loop that accepts them, and
//! speaks to each until it could be served.
//!
//! ```text
//!   accepted ──▶ Handshake ──▶ Speaking: greeting, negotiation ──▶ one machine may be meant ─────────▶ its seat, if vacant
//!                 (of TLS)                                     └─▶ several may be: query-name ──▶ the one of this name ─┘
//! ```
//!
//! Nothing is relayed before the end of that, and a machine is free for others as long as it has not got there: who only
//! connects keeps nobody out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::client::Received;
use qmp_dispatch::proto::{Band, Json};

use super::super::connection::{Connection, End};
use super::super::random;
use super::{Choice, DialInSocket, Seat};
use crate::engine::{Freezing, Link, LinkInput, LinkNext};
use crate::io::{Events, Interest, Poll, Registration};
use crate::transport::connect::stream::Stream;
use crate::transport::{Listener, Peer, Transport};

/// How long a server may take from connecting to telling its name. A QEMU that starts answers when its memory is there.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is received of one in a turn: a greeting is shorter.
const ROOM: usize = 4 << 10;

/// What a server may send in this time, in bytes.
const MOST_BYTES: usize = 256 << 10;

/// Servers of one user or address that may be on their way, beyond one for each machine. The oldest makes room.
const SPARE: usize = 8;

/// The same for all users and addresses together, beyond two for each machine.
const SPARE_OF_ALL: usize = 64;

/// Servers that are accepted before those that have come have their turn.
const ACCEPTS_PER_INPUT: usize = 16;

/// How long no server is accepted when the system, or those that are being closed, leave no room for one.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Refused connections that may be closing at a time.
const MOST_CLOSING: usize = 64;

const UNKNOWN: &str = "it is not known who it is";

/// The listener among the events of [`DialInLink::poll`]. Arrivals have other numbers.
const LISTENER: u64 = 0;

/// A server that has connected.
struct ArrivingServer {
    /// Who is to blame for it, as far as is known at first.
    owner: String,
    /// `None` during the handshake of TLS.
    peer: Option<Peer>,
    connection: Box<Connection>,
    /// What it has sent, in bytes.
    received: usize,
    /// It was asked for its name.
    asked: bool,
    until: Instant,
}

pub(super) struct DialInLink {
    registration: Arc<Registration>,
    socket: Arc<DialInSocket>,
    /// `None` when it is closed.
    listener: Option<Arc<dyn Listener>>,
    /// Has the listener and all arrivals.
    poll: Poll,
    /// By their numbers, which are in the order in which they came.
    arrivals: BTreeMap<u64, ArrivingServer>,
    /// The same, by who is to blame.
    owners: HashMap<String, BTreeSet<u64>>,
    /// The number of the last one.
    last: u64,
    /// How many connections there have been, from a random number on.
    connections: u64,
    /// Those that have sent more than was read in one turn.
    more: Vec<u64>,
    /// More may wait to be accepted.
    accepts: bool,
    /// None is accepted before.
    accepts_at: Option<Instant>,
}

impl Link for DialInLink {
    fn registration(&self) -> &Arc<Registration> {
        &self.registration
    }

    /// Readable when anything in the set is ready.
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.listener.is_some().then(|| self.poll.as_fd())
    }

    fn handle(&mut self, input: LinkInput) -> LinkNext {
        let now = Instant::now();
        if self.socket.close_if_left(&mut self.listener) {
            return self.next(false);
        }
        if !input.is_turn() {
            self.refuse_late(now);
            return self.next(true);
        }
        let mut events = Events::new();
        if let Err(error) = self.poll.wait(Some(Duration::ZERO), &mut events) {
            tracing::error!(%error, "cannot watch servers that have connected");
        }
        for number in std::mem::take(&mut self.more) {
            self.go_on(number);
        }
        for event in &events {
            match u64::from(event.token) {
                LISTENER => self.accepts = true,
                number => {
                    if let Some(arrival) = self.arrivals.get_mut(&number) {
                        arrival.connection.ready(*event);
                    }
                    self.go_on(number);
                }
            }
        }
        self.refuse_late(now);
        if self.accepts_at.is_none_or(|at| at <= now) {
            self.accepts |= self.accepts_at.take().is_some();
            self.accept(now);
        }
        // The set is reported when something becomes ready, and not again for what is.
        let again = !events.is_empty() || !self.more.is_empty();
        self.next(again || (self.accepts && self.accepts_at.is_none()))
    }

    /// Servers that have connected and are not served yet connect anew.
    fn freeze(&self, freezing: &mut Freezing) -> io::Result<()> {
        if let Some(listener) = &self.listener {
            let socket = freezing.packing.add(listener.as_fd())?;
            freezing.links.push(Box::new(self.socket.frozen(&**listener, socket)));
        }
        Ok(())
    }
}

/// Also if it ends by a panic: nobody waits for the end of a socket at which nobody accepts, nor for strangers' connections.
impl Drop for DialInLink {
    fn drop(&mut self) {
        self.socket.abandon(&mut self.listener);
        for arrival in std::mem::take(&mut self.arrivals).into_values() {
            self.socket.close_aside(arrival.connection);
        }
    }
}

impl DialInLink {
    pub(super) fn new(
        registration: Arc<Registration>,
        socket: Arc<DialInSocket>,
        listener: Arc<dyn Listener>,
    ) -> io::Result<DialInLink> {
        let poll = Poll::new()?;
        poll.register(listener.as_fd(), LISTENER.into(), Interest::Readable)?;
        Ok(DialInLink {
            registration,
            socket,
            listener: Some(listener),
            poll,
            arrivals: BTreeMap::new(),
            owners: HashMap::new(),
            last: LISTENER,
            connections: random() >> 1,
            more: Vec::new(),
            accepts: true,
            accepts_at: None,
        })
    }

    fn next(&self, again: bool) -> LinkNext {
        let oldest = self.arrivals.values().next().map(|arrival| arrival.until);
        LinkNext {
            new_socket: false,
            interest: Interest::Readable,
            timer: oldest.into_iter().chain(self.accepts_at).min(),
            again,
            unasked: true,
            ended: self.listener.is_none(),
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_INPUT {
            let Some(listener) = self.listener.as_ref().filter(|_| self.accepts) else { return };
            if self.socket.closing.load(Ordering::Relaxed) >= MOST_CLOSING {
                self.accepts_at = Some(now + TRY_AGAIN);
                return;
            }
            match listener.accept() {
                Ok(transport) => self.arrive(transport, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.accepts = false,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        if let Some(last) = self.socket.logged.line("") {
                            tracing::warn!(%error, "cannot accept servers, which wait until that is over{last}");
                        }
                        self.accepts_at = Some(now + TRY_AGAIN);
                        return;
                    }
                },
            }
        }
    }

    fn arrive(&mut self, transport: Box<dyn Transport>, now: Instant) {
        let peer = transport.peer().ok();
        let owner = peer.as_ref().map(Peer::user).unwrap_or_default();
        let has_tls = self.socket.listen.tls.is_some();
        let known = match &peer {
            // It proves who it is only in the handshake.
            _ if has_tls => Ok(None),
            Some(peer) => self.socket.choose(peer, None).map(|_| Some(peer.clone())),
            None => Err(UNKNOWN.to_owned()),
        };
        let stream = known.and_then(|known| Ok((known, stream_of(&*transport, has_tls)?)));
        let (known, stream) = match stream {
            Ok((known, Some(socket))) => (known, Stream::Socket(socket)),
            #[cfg(feature = "tls")]
            Ok((known, None)) => (known, Stream::Tls(transport)),
            #[cfg(not(feature = "tls"))]
            Ok((_, None)) => return,
            Err(reason) => {
                self.socket.tell(peer.as_ref(), &owner, &reason);
                return self.socket.close_aside(transport);
            }
        };
        self.connections += 1;
        let connection = Box::new(Connection::new(stream, self.connections));
        self.last += 1;
        let number = self.last;
        let (fd, interest) = (connection.socket(), Interest::ReadableWritable);
        if let Err(error) = self.poll.register(fd, number.into(), interest) {
            self.socket.tell(peer.as_ref(), &owner, &error.to_string());
            return self.socket.close_aside(connection);
        }
        self.owners.entry(owner.clone()).or_default().insert(number);
        let (received, asked, until) = (0, false, now + PATIENCE);
        let arrival = ArrivingServer { owner, peer: known, connection, received, asked, until };
        self.arrivals.insert(number, arrival);
        self.make_room(number);
        self.go_on(number);
    }

    /// Disconnects the oldest server of the same owner, or of all, if there are more than may be.
    fn make_room(&mut self, number: u64) {
        let machines = self.socket.state().seats.len();
        let its = self.arrivals.get(&number).and_then(|arrival| self.owners.get(&arrival.owner));
        let of_owner = its.filter(|its| its.len() > machines + SPARE).and_then(BTreeSet::first);
        let are_many = self.arrivals.len() > 2 * machines + SPARE_OF_ALL;
        let of_all = self.arrivals.keys().next().filter(|_| are_many);
        if let Some(&oldest) = of_owner.or(of_all) {
            self.refuse(oldest, "others have connected before it was ready");
        }
    }

    fn refuse_late(&mut self, now: Instant) {
        let is_late = |(_, oldest): &(&u64, &ArrivingServer)| oldest.until <= now;
        while let Some((&number, _)) = self.arrivals.first_key_value().filter(is_late) {
            self.refuse(number, "it does not greet and negotiate");
        }
    }

    fn refuse(&mut self, number: u64, reason: &str) {
        let Some(ArrivingServer { owner, peer, connection, .. }) = self.take(number) else {
            return;
        };
        self.socket.tell(peer.or_else(|| connection.peer()).as_ref(), &owner, reason);
        self.socket.close_aside(connection);
    }

    /// Takes a server out, which is not watched any more then.
    fn take(&mut self, number: u64) -> Option<ArrivingServer> {
        let arrival = self.arrivals.remove(&number)?;
        if let Some(its) = self.owners.get_mut(&arrival.owner) {
            its.remove(&number);
            if its.is_empty() {
                self.owners.remove(&arrival.owner);
            }
        }
        self.poll.deregister(arrival.connection.socket());
        Some(arrival)
    }

    /// Goes on with a server.
    fn go_on(&mut self, number: u64) {
        let Some(arrival) = self.arrivals.get_mut(&number) else { return };
        match arrival.step(&self.socket) {
            Ok(None) => {
                let has_more = arrival.peer.is_some() && arrival.connection.is_readable();
                self.more.extend(has_more.then_some(number));
            }
            Err(reason) => self.refuse(number, &reason),
            Ok(Some(seat)) => {
                // Before the mux's thread watches it.
                let Some(arrival) = self.take(number) else { return };
                if let Err(connection) = seat.offer(arrival.connection) {
                    self.socket.tell(arrival.peer.as_ref(), &arrival.owner, &seat.has_server());
                    self.socket.close_aside(connection);
                }
            }
        }
    }
}

impl ArrivingServer {
    /// Goes on as far as there is input. Returns the place that is the server's, once that is known.
    fn step(&mut self, socket: &DialInSocket) -> Result<Option<Arc<Seat>>, String> {
        let peer = match &self.peer {
            Some(peer) => peer,
            None => {
                match self.connection.handshake() {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(error) => return Err(error.to_string()),
                }
                let peer = self.connection.peer().ok_or(UNKNOWN)?;
                // At once, if it may not.
                socket.choose(&peer, None)?;
                self.peer.insert(peer)
            }
        };
        let mut name = None;
        let received = self.connection.receive_messages(ROOM, |connection, message| {
            match message {
                Received::Greeting(greeting) => connection.greeting = Some(greeting),
                Received::Event(event) => connection.note_end(&event),
                Received::Response { result, .. } => name = Some(name_of(result.ok())),
                Received::ErrorWithoutId(_) | Received::Unmatched(_) if connection.is_ready() => {
                    return Err(End::broken("it answers what it was not asked"));
                }
                _ => {}
            }
            Ok(())
        });
        self.received += received.map_err(|end| end.why)?;
        if self.received > MOST_BYTES {
            return Err("it sends too much before its name is known".to_owned());
        }
        self.connection.flush();
        if !self.connection.is_ready() || (self.asked && name.is_none()) {
            return Ok(None);
        }
        match socket.choose(peer, name.as_ref().map(Option::as_deref))? {
            Choice::This(seat) => Ok(Some(seat)),
            Choice::ByName => {
                self.asked = true;
                let session = &mut self.connection.session;
                let asking = session.request("query-name", None, Band::InBand, 0);
                asking.map_err(|_| "its name cannot be asked for")?;
                self.connection.flush();
                Ok(None)
            }
        }
    }
}

/// The socket itself, unless what is said goes through TLS.
fn stream_of(transport: &dyn Transport, has_tls: bool) -> Result<Option<OwnedFd>, String> {
    let duplicate = (!has_tls).then(|| transport.as_fd().try_clone_to_owned());
    duplicate.transpose().map_err(|error| error.to_string())
}

/// What `query-name` has returned. A server that does not know the command has no name.
fn name_of(result: Option<Json>) -> Option<String> {
    Some(result?.to_value().as_object()?.get("name")?.as_str()?.to_owned())
}
