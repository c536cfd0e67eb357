// SPDX-License-Identifier: MIT OR Apache-2.0
//! A blocking client of any QMP server, with one command at a time.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use qmp_dispatch::CommandType;
use qmp_dispatch::proto::client::{
    AgentError, Ids, Received, RequestTooLarge, Session, SessionError, Stage,
};
use qmp_dispatch::proto::{
    Band, Capability, DecodeError, EncodeError, Error, Event, EventType, Json,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use serde::de::DeserializeOwned;

use crate::transport::LONGEST_TIMEOUT;
use crate::{Connect, Transport};

/// Bytes of events that are kept until they are asked for.
const MOST_EVENTS: usize = 64 << 20;

/// Bytes that an event takes, beside its name and its data.
const EVENT_OVERHEAD: usize = 128;

/// Bytes that are received at once.
pub(crate) const BUFFER: usize = 64 << 10;

/// The shortest wait for an event.
const SHORTEST: Duration = Duration::from_millis(1);

/// For the thread that connects to say better what has taken this long.
const CONNECT_GRACE: Duration = Duration::from_millis(100);

/// A blocking client of any QMP server, used by one thread, with one command at a time.
///
/// Events that come while it waits for a response are kept, up to 64 MiB; the oldest are then dropped, and
/// [counted](Client::missed_events). Members of results and of events that are not known to their types are ignored.
///
/// ```
/// use std::time::Duration;
///
/// use qmp_server::dispatch::{Context, Dispatcher, EventType, Registry, command_types};
/// use qmp_server::{Address, Client, Connect, Listen, Server, system_time, version};
///
/// command_types! {
///     Add = "x-add" { left: i64, right: i64 } -> i64;
/// }
/// const ADDED: EventType<()> = EventType::new("X_ADDED");
///
/// let mut registry = Registry::new();
/// registry.event(&ADDED)?;
/// registry.serve::<Add>(|context: &Context, Add { left, right }| {
///     context.emit(&ADDED, &()).map(|()| left + right)
/// })?;
/// # let folder = tempfile::tempdir()?;
/// # let address = Address::Unix(folder.path().join("qmp.sock"));
/// let dispatcher = Dispatcher::new(registry, version(), system_time);
/// let server = Server::new(dispatcher).listen(&Listen::new(address.clone()))?.spawn()?;
///
/// let timeout = Duration::from_secs(10);
/// let mut client = Client::connect(&Connect::new(address), timeout)?;
/// assert_eq!(client.call::<Add>(&Add { left: 40, right: 2 })?, 42);
/// assert_eq!(client.wait_for(&ADDED, timeout)?, Some(()));
/// # drop(client);
/// # server.control().shutdown();
/// # server.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    transport: Box<dyn Transport>,
    /// Keeps the number of each request.
    session: Session<u64>,
    last_request: u64,
    unsent: Unsent,
    buffer: Vec<u8>,
    events: KeptEvents,
    timeout: Duration,
    /// When all has to be over, if the caller has said so.
    deadline: Option<Instant>,
}

/// Why a [`Client`] has no result of a command, or no event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The command has failed. All other errors are about the connection or the types.
    #[error(transparent)]
    Command(#[from] Error),
    /// The system reports an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server does not speak QMP.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A guest agent does not speak QMP.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The request is beyond QEMU's limits, and has not been sent.
    #[error(transparent)]
    TooLarge(#[from] RequestTooLarge<()>),
    /// The server has closed the connection.
    #[error("the server has closed the connection{0}")]
    Closed(Closed),
    /// The server did not respond in time; the text says what is missing.
    #[error("{0}")]
    TimedOut(String),
    /// The server has not enabled out-of-band execution.
    #[error("the server does not offer out-of-band execution")]
    NoOutOfBand,
    /// Arguments cannot be written as JSON.
    #[error("the arguments of {command} cannot be written: {reason}")]
    Arguments {
        /// The name of the command.
        command: String,
        /// What is wrong with the arguments.
        reason: EncodeError,
    },
    /// A result or the data of an event is not of its type.
    #[error("what the server sent of {name} cannot be read: {reason}")]
    Unreadable {
        /// The name of the command or event.
        name: String,
        /// What is wrong with it.
        reason: DecodeError,
    },
}

/// What was missing when a server closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Closed {
    /// The greeting.
    BeforeGreeting,
    /// The response to the negotiation.
    BeforeNegotiation,
    /// The response to a command.
    BeforeResponse,
    /// Nothing.
    Idle,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Closed::BeforeGreeting => " without a greeting",
            Closed::BeforeNegotiation => " without a response to the negotiation",
            Closed::BeforeResponse => " without a response",
            Closed::Idle => "",
        })
    }
}

/// The number of a request, and the response to it.
type Answer = (u64, Result<Json, Error>);

/// What the server has not taken yet.
#[derive(Default)]
pub(crate) struct Unsent {
    pub(crate) bytes: Vec<u8>,
    at: usize,
}

/// Events that have not been asked for yet.
#[derive(Default)]
struct KeptEvents {
    kept: VecDeque<Event>,
    bytes: usize,
    missed: u64,
}

impl Client {
    /// Connects and negotiates, within the timeout; each command has as much. Out-of-band execution is enabled if the server
    /// offers it.
    ///
    /// # Errors
    ///
    /// [`ClientError`], among them that of [`Connect::connect`].
    pub fn connect(connect: &Connect, timeout: Duration) -> Result<Client, ClientError> {
        Client::connect_with(connect, timeout, vec![Capability::OOB])
    }

    /// Like [`connect`](Client::connect), and enables those of these capabilities that the server offers.
    ///
    /// # Errors
    ///
    /// As [`connect`](Client::connect).
    pub fn connect_with(
        connect: &Connect,
        timeout: Duration,
        capabilities: Vec<Capability>,
    ) -> Result<Client, ClientError> {
        connect.verify()?;
        let timeout = timeout.min(LONGEST_TIMEOUT);
        let deadline = Instant::now() + timeout;
        let transport = connect_in_time(connect.clone(), timeout)?;
        Client::negotiate(transport, timeout, deadline, capabilities)
    }

    /// Negotiates over a connection that has been made, like [`connect_with`](Client::connect_with).
    ///
    /// # Errors
    ///
    /// As [`connect`](Client::connect).
    pub fn over(
        transport: Box<dyn Transport>,
        timeout: Duration,
        capabilities: Vec<Capability>,
    ) -> Result<Client, ClientError> {
        let timeout = timeout.min(LONGEST_TIMEOUT);
        Client::negotiate(transport, timeout, Instant::now() + timeout, capabilities)
    }

    fn negotiate(
        transport: Box<dyn Transport>,
        timeout: Duration,
        deadline: Instant,
        capabilities: Vec<Capability>,
    ) -> Result<Client, ClientError> {
        let mut random = [0; 4];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(io::Error::from)?;
        let mut client = Client {
            transport,
            // The response to a request of an earlier client has another id.
            session: Session::new(Ids::random(u32::from_ne_bytes(random)), capabilities),
            last_request: 0,
            unsent: Unsent::default(),
            buffer: vec![0; BUFFER],
            events: KeptEvents::default(),
            timeout,
            deadline: None,
        };
        while client.session.stage() != Stage::Ready {
            client.exchange(deadline)?;
        }
        // Earlier ones are about what another client has done.
        client.events = KeptEvents::default();
        Ok(client)
    }

    /// Whether commands can be executed out-of-band.
    pub fn has_oob(&self) -> bool {
        self.session.has_enabled(&Capability::OOB)
    }

    /// Sets when all commands from now on have to be over, in place of a timeout for each of them; `None` restores that.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    /// Executes a command in-band, and returns its result.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn call<C: CommandType>(
        &mut self,
        arguments: &C::Arguments,
    ) -> Result<C::Result, ClientError> {
        self.typed::<C>(arguments, Band::InBand)
    }

    /// Executes a command out-of-band, like [`call`](Client::call): also while another client's command is being executed.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn call_oob<C: CommandType>(
        &mut self,
        arguments: &C::Arguments,
    ) -> Result<C::Result, ClientError> {
        self.typed::<C>(arguments, Band::OutOfBand)
    }

    fn typed<C: CommandType>(
        &mut self,
        arguments: &C::Arguments,
        band: Band,
    ) -> Result<C::Result, ClientError> {
        let name = || C::NAME.to_owned();
        let arguments = C::encode_arguments(arguments)
            .map_err(|reason| ClientError::Arguments { command: name(), reason })?;
        let result = self.execute(C::NAME, arguments.as_ref(), band)?;
        C::decode_result(&result).map_err(|reason| ClientError::Unreadable { name: name(), reason })
    }

    /// Executes a command by its name, and returns its result. `arguments` is an object.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. After one that is not [`ClientError::Command`], a response that comes later is ignored.
    pub fn execute(
        &mut self,
        command: &str,
        arguments: Option<&Json>,
        band: Band,
    ) -> Result<Json, ClientError> {
        if band == Band::OutOfBand && !self.has_oob() {
            return Err(ClientError::NoOutOfBand);
        }
        let deadline = self.deadline.unwrap_or_else(|| Instant::now() + self.timeout);
        self.last_request += 1;
        let number = self.last_request;
        self.session
            .request(command, arguments, band, number)
            .map_err(|RequestTooLarge { limit, .. }| RequestTooLarge { request: (), limit })?;
        loop {
            if let Some((of, result)) = self.exchange(deadline)?
                && of == number
            {
                return Ok(result?);
            }
        }
    }

    /// Returns the next event, or `None` if there is none within the timeout.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the connection has ended.
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<Event>, ClientError> {
        self.find_event(timeout, |_| true)
    }

    /// Returns the data of the next event of this kind, or `None` if there is none within the timeout. Other events are kept.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the connection has ended, or if the data is not of its type.
    pub fn wait_for<T: DeserializeOwned + 'static>(
        &mut self,
        kind: &EventType<T>,
        timeout: Duration,
    ) -> Result<Option<T>, ClientError> {
        let event = self.find_event(timeout, |event| event.name == *kind.name())?;
        let read = event.and_then(|event| kind.read(&event)).transpose();
        read.map_err(|reason| ClientError::Unreadable { name: kind.name().to_string(), reason })
    }

    /// Drops the events that have not been asked for.
    pub fn forget_events(&mut self) {
        self.events = KeptEvents { missed: self.events.missed, ..KeptEvents::default() };
    }

    /// Returns how many events have been dropped because too many had not been asked for.
    pub fn missed_events(&self) -> u64 {
        self.events.missed
    }

    fn find_event(
        &mut self,
        timeout: Duration,
        is_wanted: impl Fn(&Event) -> bool,
    ) -> Result<Option<Event>, ClientError> {
        // What has arrived already is looked at.
        let deadline = Instant::now() + timeout.clamp(SHORTEST, LONGEST_TIMEOUT);
        // The number of the next event to look at: of those kept, and of those missed before them.
        let mut next = self.events.missed;
        loop {
            let from = next.saturating_sub(self.events.missed);
            if let Some(event) = self.events.take(from as usize, &is_wanted) {
                return Ok(Some(event));
            }
            next = self.events.missed + self.events.kept.len() as u64;
            match self.exchange(deadline) {
                Err(ClientError::TimedOut(_)) => return Ok(None),
                exchanged => _ = exchanged?,
            }
        }
    }

    /// Sends what is unsent, waits, and handles what has come. Returns a response, and the number of its request.
    fn exchange(&mut self, deadline: Instant) -> Result<Option<Answer>, ClientError> {
        if let Some(text) = self.session.transmit() {
            self.unsent.bytes.extend_from_slice(text.as_bytes());
        }
        // A server that has closed the connection may have said why before.
        self.unsent.send(&*self.transport);
        self.wait(deadline)?;
        let received = match self.transport.receive_bytes(&mut self.buffer) {
            Ok(received) => received.bytes,
            Err(error) if is_temporary(&error) => return Ok(None),
            Err(error) if is_closed(&error) => 0,
            Err(error) => return Err(error.into()),
        };
        if received == 0 {
            return Err(ClientError::Closed(self.closed()));
        }
        let mut input = &self.buffer[..received];
        let mut response = None;
        while let Some(received) = self.session.read(&mut input) {
            match received? {
                // Those to earlier requests, which have timed out, come before.
                Received::Response { request, result } => response = Some((request, result)),
                // After negotiation it can only be about our request, which the server could not read.
                Received::ErrorWithoutId(error) if self.session.stage() == Stage::Ready => {
                    let ours = self.session.take_pending().into_iter().max();
                    response = response.or_else(|| ours.map(|request| (request, Err(error))));
                }
                Received::Event(event) => self.events.add(event),
                // The greeting makes the session negotiate; the rest is for an earlier client.
                _ => {}
            }
        }
        Ok(response)
    }

    /// Waits until the server can be read from, or written to if something is unsent.
    fn wait(&self, deadline: Instant) -> Result<(), ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::TimedOut(self.silence()));
        }
        let room = if self.unsent.bytes.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut waiting = [PollFd::from_borrowed_fd(self.transport.as_fd(), PollFlags::IN | room)];
        match poll(&mut waiting, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// What is missing at the deadline.
    fn silence(&self) -> String {
        let seconds = self.timeout.as_secs_f64();
        match (self.session.stage(), self.session.suspect()) {
            (_, Some(foreign)) => foreign.to_string(),
            (Stage::Greeting, None) => "no greeting; is another client connected?".to_owned(),
            (Stage::Negotiation, None) => {
                format!(
                    "the server greets, and does not respond to the negotiation within {seconds} s"
                )
            }
            _ => format!("no response within {seconds} s"),
        }
    }

    fn closed(&self) -> Closed {
        match self.session.stage() {
            Stage::Greeting => Closed::BeforeGreeting,
            Stage::Negotiation => Closed::BeforeNegotiation,
            _ if self.session.pending().next().is_some() => Closed::BeforeResponse,
            _ => Closed::Idle,
        }
    }
}

/// The connection: readable when there may be an event to [read](Client::next_event).
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("stage", &self.session.stage()).finish_non_exhaustive()
    }
}

impl Unsent {
    /// Sends as much as the server takes. What is wrong shows when it is read from.
    pub(crate) fn send(&mut self, transport: &dyn Transport) {
        while self.at < self.bytes.len() {
            match transport.send(&self.bytes[self.at..]) {
                Ok(sent) => self.at += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        *self = Unsent::default();
    }
}

impl KeptEvents {
    fn add(&mut self, event: Event) {
        self.bytes += size(&event);
        self.kept.push_back(event);
        while self.bytes > MOST_EVENTS
            && let Some(oldest) = self.kept.pop_front()
        {
            self.bytes -= size(&oldest);
            self.missed += 1;
        }
    }

    /// Takes the first one that is wanted; those before this index are not.
    fn take(&mut self, from: usize, is_wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let at = from + self.kept.iter().skip(from).position(is_wanted)?;
        let event = self.kept.remove(at)?;
        self.bytes -= size(&event);
        Some(event)
    }
}

fn size(event: &Event) -> usize {
    let data = event.data.as_ref().map_or(0, |data| data.as_str().len());
    EVENT_OVERHEAD + event.name.len() + data
}

pub(crate) fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// These only say how the end has come.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
    )
}

/// Connects on a thread of its own, which is left alone if that takes too long: names are looked up without a timeout.
pub(crate) fn connect_in_time(
    connect: Connect,
    timeout: Duration,
) -> Result<Box<dyn Transport>, ClientError> {
    let (send, connected) = channel();
    thread::Builder::new()
        .name("qmp-connect".into())
        .spawn(move || send.send(connect.connect(timeout)))?;
    match connected.recv_timeout(timeout + CONNECT_GRACE) {
        Ok(transport) => Ok(transport?),
        Err(_) => {
            let seconds = timeout.as_secs_f64();
            Err(ClientError::TimedOut(format!("no connection within {seconds} s")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    use std::thread::JoinHandle;

    use qmp_dispatch::proto::Timestamp;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);
    const STOP: EventType<()> = EventType::new("STOP");

    /// Connects a client to a server that negotiates and then sends each of these texts after a request; the id of the
    /// request is in place of `ID`.
    fn client(
        capabilities: &str,
        texts: &'static [&'static str],
    ) -> (Client, JoinHandle<Vec<String>>) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let greeting =
            format!("{{\"QMP\": {{\"version\": {{}}, \"capabilities\": {capabilities}}}}}\n");
        let server = thread::spawn(move || {
            (&far).write_all(greeting.as_bytes()).unwrap();
            let mut lines = BufReader::new(&far).lines().map_while(Result::ok);
            let mut seen = Vec::new();
            for text in [r#"{"return": {}, "id": ID}"#].iter().chain(texts) {
                let Some(line) = lines.next() else { break };
                let (_, id) = line.rsplit_once("\"id\":").unwrap();
                let text = text.replace("ID", id.trim_end_matches('}'));
                (&far).write_all(format!("{text}\n").as_bytes()).unwrap();
                seen.push(line);
            }
            seen.extend(lines);
            seen
        });
        let client = Client::over(Box::new(near), TIMEOUT, vec![Capability::OOB]);
        (client.unwrap(), server)
    }

    #[test]
    fn events_wait_until_they_are_asked_for() {
        let (mut client, server) = client(
            "[]",
            &[
                r#"{"event": "RESUME", "x": 1} {"event": "STOP", "data": {"x": 1}} {"return": 7, "x": 2, "id": ID}"#,
            ],
        );
        let result = client.execute("x", None, Band::InBand).unwrap();
        assert_eq!(result.as_str(), "7");
        assert_eq!(client.wait_for(&STOP, TIMEOUT).unwrap(), Some(()));
        assert_eq!(client.next_event(TIMEOUT).unwrap().unwrap().name, "RESUME");
        assert_eq!(client.next_event(Duration::ZERO).unwrap(), None);
        drop(client);
        assert_eq!(server.join().unwrap().len(), 2);
    }

    #[test]
    fn a_late_response_is_not_taken_for_that_of_the_next_command() {
        let (mut client, server) =
            client("[]", &["", r#"{"return": "other", "id": 1} {"return": "ours", "id": ID}"#]);
        client.set_deadline(Some(Instant::now()));
        let error = client.execute("first", None, Band::InBand).unwrap_err();
        assert!(matches!(error, ClientError::TimedOut(_)), "{error}");
        client.set_deadline(None);
        // What was not sent before the deadline is sent now.
        let result = client.execute("second", None, Band::InBand).unwrap();
        assert_eq!(result.as_str(), "\"ours\"");
        drop(client);
        assert_eq!(server.join().unwrap().len(), 3);
    }

    #[test]
    fn out_of_band_needs_the_capability() {
        let (mut client, server) = client("[]", &[]);
        let error = client.execute("x", None, Band::OutOfBand).unwrap_err();
        assert!(matches!(error, ClientError::NoOutOfBand), "{error}");
        drop(client);
        assert_eq!(server.join().unwrap().len(), 1, "nothing was sent");

        let (mut client, server) =
            self::client("[\"oob\"]", &[r#"{"error": {"class": "New", "desc": "no"}, "id": ID}"#]);
        let error = client.execute("x", None, Band::OutOfBand).unwrap_err();
        assert_eq!(error.to_string(), "GenericError: no");
        drop(client);
        let seen = server.join().unwrap();
        assert!(seen[0].contains("oob") && seen[1].contains("exec-oob"), "{seen:?}");
    }

    #[test]
    fn no_timeout_is_too_long() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        (&far).write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n").unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        let error = Client::over(Box::new(near), Duration::MAX, Vec::new()).unwrap_err();
        assert!(matches!(error, ClientError::Closed(Closed::BeforeNegotiation)), "{error}");
        let dir = tempfile::tempdir().unwrap();
        let nowhere = crate::Address::Unix(dir.path().join("qmp.sock"));
        let error = Client::connect(&Connect::new(nowhere), Duration::MAX).unwrap_err();
        assert!(matches!(error, ClientError::Io(_)), "{error}");
    }

    #[test]
    fn the_end_of_the_connection_is_told() {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        drop(far);
        let error = Client::over(Box::new(near), TIMEOUT, Vec::new()).unwrap_err();
        assert!(matches!(error, ClientError::Closed(Closed::BeforeGreeting)), "{error}");
    }

    #[test]
    fn the_oldest_events_are_dropped_when_there_are_too_many() {
        let mut events = KeptEvents::default();
        let event = |name: String| Event::new(name, None, Timestamp::UNKNOWN);
        let most = MOST_EVENTS / EVENT_OVERHEAD;
        let count = most + 10;
        for number in 0..count {
            events.add(event(number.to_string()));
        }
        assert!(events.bytes <= MOST_EVENTS && events.kept.len() > most / 2);
        assert_eq!(events.missed as usize + events.kept.len(), count);
        let first = events.take(0, |_| true).unwrap();
        assert_eq!(first.name, events.missed.to_string());
        while events.take(0, |_| true).is_some() {}
        assert_eq!(events.bytes, 0);
    }
}
