// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of any QMP server, with one command at a time.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::client::{Ids, Received, RequestTooLarge, Session, SessionError, Stage};
use qmp_dispatch::proto::{Band, Capability, Error, Event, Json, Layout, Object};
use qmp_server::{Connect, ConnectTls, Transport};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Failure;
use crate::arguments::TlsOptions;

/// Bytes of events that are kept for a caller that waits for a response.
const MOST_EVENTS: usize = 64 << 20;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    TooLarge(#[from] RequestTooLarge<()>),
    #[error("the server has closed the connection{0}")]
    Closed(&'static str),
    #[error("{0}")]
    Silent(String),
    #[error("the server does not offer out-of-band execution")]
    NoOutOfBand,
    #[error("the server sends more events than can be kept while it executes a command")]
    TooManyEvents,
    #[error("{0}")]
    Invalid(String),
}

/// One connection, used by one thread.
pub(crate) struct Client {
    transport: Box<dyn Transport>,
    session: Session,
    unsent: Unsent,
    buffer: Vec<u8>,
    events: Events,
    /// When the current call must be over.
    deadline: Instant,
    /// The same as a duration, for messages.
    timeout: Duration,
}

/// What the server has not taken yet.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    at: usize,
}

/// Events that nobody has asked for yet.
#[derive(Default)]
struct Events {
    texts: VecDeque<String>,
    bytes: usize,
    /// The machine has shut down, so that the end of the connection is no surprise.
    shut_down: bool,
}

/// Whether a client wants commands to be executed out-of-band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutOfBand {
    No,
    Needed,
    IfOffered,
}

impl Client {
    /// Connects and negotiates. All that is done with the client must be over in this time, or
    /// [renewed](Client::renew).
    pub(crate) fn connect(
        connect: &Connect,
        tls: &TlsOptions,
        timeout: Duration,
        oob: OutOfBand,
    ) -> Result<Client, Broken> {
        let deadline = Instant::now() + timeout;
        let transport = connect_in_time(with_flags(connect, tls)?, timeout)?;
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(io::Error::from)?;
        let wanted = if oob == OutOfBand::No { Vec::new() } else { vec![Capability::OOB] };
        let mut client = Client {
            transport,
            // An answer to a client before us has another id.
            session: Session::new(Ids::random(u32::from_ne_bytes(random)), wanted),
            unsent: Unsent::default(),
            buffer: vec![0; 64 << 10],
            events: Events::default(),
            deadline,
            timeout,
        };
        while client.session.stage() != Stage::Ready {
            client.exchange()?;
        }
        // Those before are about what another client has done.
        client.forget_events();
        match oob == OutOfBand::Needed && !client.has_oob() {
            true => Err(Broken::NoOutOfBand),
            false => Ok(client),
        }
    }

    /// Whether commands can be executed out-of-band.
    pub(crate) fn has_oob(&self) -> bool {
        self.session.has_enabled(&Capability::OOB)
    }

    /// Gives what is done from now on the whole time again.
    pub(crate) fn renew(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    /// Executes a command, and waits for its response. Events that come before are kept.
    pub(crate) fn execute(
        &mut self,
        command: &str,
        arguments: &Object,
        band: Band,
    ) -> Result<Result<Json, Error>, Broken> {
        let arguments = (!arguments.is_empty()).then(|| Json::from(arguments));
        self.session.request(command, arguments.as_ref(), band, ())?;
        loop {
            if let Some(result) = self.exchange()? {
                return Ok(result);
            }
        }
    }

    /// Forgets the events that have come.
    pub(crate) fn forget_events(&mut self) {
        self.events = Events { shut_down: self.events.shut_down, ..Events::default() };
    }

    /// Returns the text of the next event; `None` at the deadline, or if the server ends as the machine has shut down.
    pub(crate) fn next_event(&mut self, deadline: Instant) -> Result<Option<String>, Broken> {
        self.deadline = deadline;
        loop {
            if let Some(text) = self.events.texts.pop_front() {
                self.events.bytes -= text.len();
                return Ok(Some(text));
            }
            match self.exchange() {
                Ok(_) => {}
                Err(Broken::Silent(_)) => return Ok(None),
                Err(Broken::Closed(_)) if self.events.shut_down => return Ok(None),
                Err(broken) => return Err(broken),
            }
        }
    }

    /// Sends what is unsent, and handles what has come in the meantime. Waits, and returns a response if there is one.
    fn exchange(&mut self) -> Result<Option<Result<Json, Error>>, Broken> {
        if let Some(text) = self.session.transmit() {
            self.unsent.bytes.extend_from_slice(text.as_bytes());
        }
        // A server that has closed the connection may have said why before.
        self.unsent.send(&*self.transport);
        self.wait()?;
        let received = match self.transport.receive_bytes(&mut self.buffer) {
            Ok(received) => received.bytes,
            Err(error) if is_temporary(&error) => return Ok(None),
            Err(error) if is_closed(&error) => 0,
            Err(error) => return Err(error.into()),
        };
        if received == 0 {
            return Err(self.closed());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.receive(&buffer[..received]);
        self.buffer = buffer;
        result
    }

    fn receive(&mut self, mut input: &[u8]) -> Result<Option<Result<Json, Error>>, Broken> {
        let mut response = None;
        while let Some(received) = self.session.read(&mut input) {
            match received? {
                Received::Response { result, .. } => response = Some(result),
                // After negotiation it can only be about our request, which the server could not read.
                Received::ErrorWithoutId(error) if self.session.stage() == Stage::Ready => {
                    let ours = self.session.take_pending().pop();
                    response = response.or_else(|| ours.map(|()| Err(error)));
                }
                Received::Event(event) => self.events.add(&event)?,
                // The greeting makes the session negotiate; the rest is for a client before us.
                _ => {}
            }
        }
        Ok(response)
    }

    /// Waits until the server can be read from, or written to if something is unsent.
    fn wait(&self) -> Result<(), Broken> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Silent(self.silence()));
        }
        let room = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
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

    fn closed(&self) -> Broken {
        Broken::Closed(match self.session.stage() {
            Stage::Greeting => " without a greeting",
            Stage::Negotiation => " without a response to the negotiation",
            _ if self.session.pending().next().is_some() => " without a response",
            _ => "",
        })
    }
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Sends as much as the server takes. What is wrong shows when it is read from.
    fn send(&mut self, transport: &dyn Transport) {
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

impl Events {
    fn add(&mut self, event: &Event) -> Result<(), Broken> {
        let mut text = String::new();
        event.write(Layout::Compact, &mut text);
        self.shut_down |= event.name == "SHUTDOWN";
        self.bytes += text.len();
        self.texts.push_back(text);
        match self.bytes > MOST_EVENTS {
            true => Err(Broken::TooManyEvents),
            false => Ok(()),
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// These only say how the end has come.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
    )
}

/// What is said behind the address, and for the rest what the flags say.
fn with_flags(connect: &Connect, flags: &TlsOptions) -> Result<Connect, Broken> {
    let mut connect = connect.clone();
    if flags.are_given() {
        let TlsOptions { ca, cert, key, server_name } = flags.clone();
        let tls: &mut ConnectTls = connect.tls.get_or_insert_default();
        tls.ca = ca.unwrap_or_else(|| std::mem::take(&mut tls.ca));
        tls.cert = cert.or_else(|| tls.cert.take());
        tls.key = key.or_else(|| tls.key.take());
        tls.server_name = server_name.or_else(|| tls.server_name.take());
    }
    connect.verify()?;
    Ok(connect)
}

/// Connects on a thread of its own, which is left alone if that takes too long: names are looked up without a timeout.
fn connect_in_time(connect: Connect, timeout: Duration) -> Result<Box<dyn Transport>, Broken> {
    let (send, connected) = channel();
    thread::Builder::new()
        .name("qmp-connect".into())
        .spawn(move || send.send(connect.connect(timeout)))?;
    match connected.recv_timeout(timeout + CONNECT_GRACE) {
        Ok(transport) => Ok(transport?),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(Broken::Silent(format!("no connection within {} s", timeout.as_secs_f64())))
        }
    }
}

/// For the thread to say better what has taken so long.
const CONNECT_GRACE: Duration = Duration::from_millis(100);

/// Writes a text to standard output, unless nobody reads it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::usage(error)),
        _ => Ok(()),
    }
}
