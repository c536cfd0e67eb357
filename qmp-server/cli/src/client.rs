// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of any QMP server.

mod stream;
mod tls;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::{
    Capability, Error, Event, Json, Layout, Reader, Request, Response, ServerMessage, Value,
};
use qmp_server::Address;

use self::stream::{SHORTEST, Stream, connect};
use crate::Failure;
use crate::arguments::TlsOptions;

/// One connection, used by one thread, with one command at a time.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    timeout: Duration,
    reader: Reader,
    received: Vec<u8>,
    /// Messages that have been received and not been asked for.
    waiting: VecDeque<ServerMessage>,
}

/// Whether a client wants commands to be executed out-of-band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutOfBand {
    No,
    Needed,
    IfOffered,
}

impl Client {
    pub(crate) fn connect(
        address: &Address,
        tls: &TlsOptions,
        timeout: Duration,
    ) -> io::Result<Client> {
        let stream = connect(address, tls, timeout)?;
        stream.set_write_timeout(Some(timeout.max(SHORTEST)))?;
        Ok(Client {
            stream,
            timeout,
            reader: Reader::default(),
            received: vec![0; 64 << 10],
            waiting: VecDeque::new(),
        })
    }

    /// Whether out-of-band execution has been enabled, or the error response.
    pub(crate) fn negotiate(&mut self, oob: OutOfBand) -> io::Result<Result<bool, Error>> {
        let deadline = Instant::now() + self.timeout;
        let greeting = match self.next(deadline)? {
            Some(ServerMessage::Greeting(greeting)) => greeting,
            Some(_) => return Err(invalid("the server does not greet as QMP servers do")),
            None => return Err(silent("no greeting; is another client connected?")),
        };
        let offered = greeting.capabilities.contains(&Capability::OOB);
        if oob == OutOfBand::Needed && !offered {
            return Err(invalid("the server does not offer out-of-band execution"));
        }
        let enable = offered && oob != OutOfBand::No;
        let mut request = Request::new("qmp_capabilities");
        if enable {
            request.arguments.insert("enable", vec![Value::from("oob")]);
        }
        Ok(self.execute(request)?.map(|_| enable))
    }

    /// Sends a request and waits for its response. Events that come before are kept.
    pub(crate) fn execute(&mut self, mut request: Request) -> io::Result<Result<Json, Error>> {
        let id = Value::from("qmp-server");
        request.id = Some(id.clone());
        let mut text = String::new();
        request.write(&mut text);
        self.stream.write_all(text.as_bytes())?;
        let mut events = VecDeque::new();
        let result = loop {
            let deadline = Instant::now() + self.timeout;
            match self.next(deadline)? {
                // Without an id it is about something that the server could not read.
                Some(ServerMessage::Response(Response { id: got, result, .. }))
                    if got.is_none() || got.as_ref() == Some(&id) =>
                {
                    break result;
                }
                Some(event @ ServerMessage::Event(_)) => events.push_back(event),
                Some(_) => return Err(invalid("a message that was not expected")),
                None => return Err(silent("no response")),
            }
        };
        self.waiting.append(&mut events);
        Ok(result)
    }

    /// Nobody will ask for the events that have come.
    pub(crate) fn forget_events(&mut self) {
        self.waiting.clear();
    }

    /// The text of the next event; `None` when the deadline has passed or the server has ended.
    pub(crate) fn next_event(&mut self, deadline: Instant) -> io::Result<Option<String>> {
        loop {
            let message = match self.next(deadline) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                message => message?,
            };
            match message {
                None => return Ok(None),
                Some(ServerMessage::Event(event)) => return Ok(Some(event_text(&event))),
                Some(_) => {}
            }
        }
    }

    /// The next message; `None` when the deadline has passed.
    fn next(&mut self, deadline: Instant) -> io::Result<Option<ServerMessage>> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(Some(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut self.received) {
                Ok(0) => {
                    let ended = "the server has closed the connection";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ended));
                }
                Ok(received) => {
                    let mut bytes = &self.received[..received];
                    while let Some(message) = self.reader.read(&mut bytes) {
                        let message = message.map_err(invalid)?;
                        let message = ServerMessage::parse(&message).map_err(invalid)?;
                        self.waiting.push_back(message);
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn event_text(event: &Event) -> String {
    let mut text = String::new();
    event.write(Layout::Compact, &mut text);
    text
}

pub(crate) fn invalid(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

fn silent(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

/// Writes a text to standard output, unless nobody reads it.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::usage(error)),
        _ => Ok(()),
    }
}
