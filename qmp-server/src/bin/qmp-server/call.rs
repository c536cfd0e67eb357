// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server call`: one command on any QMP server.

mod stream;
mod tls;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use qmp_dispatch::proto::{
    Band, Capability, Event, Json, Layout, Reader, Request, Response, ServerMessage, Value,
};

use self::stream::{SHORTEST, Stream, connect};
use crate::Failure;
use crate::arguments::CallOptions;

pub(crate) fn call(options: &CallOptions) -> Result<(), Failure> {
    let mut request = Request::new(&options.command);
    for argument in &options.arguments {
        let (name, value) = parse_argument(argument)?;
        if request.arguments.insert(name, value).is_some() {
            return Err(Failure::usage(format_args!("argument '{name}' is given twice")));
        }
    }
    if options.oob {
        request.band = Band::OutOfBand;
    }
    let broken = |error| Failure::usage(format_args!("{}: {error}", options.address));
    let mut client = Client::connect(options).map_err(broken)?;
    client.negotiate(options.oob).map_err(broken)?.map_err(|refused| broken(invalid(refused)))?;
    let result = client.execute(request).map_err(broken)??;
    print(result.as_str())?;
    if let Some(duration) = options.events {
        let deadline = Instant::now() + duration;
        while let Some(event) = client.next_event(deadline).map_err(broken)? {
            print(&event)?;
        }
    }
    Ok(())
}

fn print(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    match writeln!(out, "{}", line.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::usage(error)),
        _ => Ok(()),
    }
}

/// Reads `NAME=TEXT` or `NAME:=JSON`.
fn parse_argument(argument: &str) -> Result<(&str, Value), Failure> {
    let wrong = |reason: &str| Failure::usage(format_args!("argument '{argument}': {reason}"));
    let (name, value) =
        argument.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE or NAME:=JSON"))?;
    let Some(name) = name.strip_suffix(':') else {
        return Ok((name, value.into()));
    };
    // A blank, so that a number or word at the end is complete.
    let text = format!("{value} ");
    let mut reader = Reader::default();
    let mut input = text.as_bytes();
    let parsed = match reader.read(&mut input) {
        Some(message) => message.and_then(|message| message.value()),
        None => return Err(wrong("the value is not complete")),
    };
    let value = parsed.map_err(|error| wrong(&error.to_string()))?;
    if !input.trim_ascii().is_empty() {
        return Err(wrong("there is something behind the value"));
    }
    Ok((name, value))
}

/// One connection, used by one thread, with one command at a time.
struct Client {
    stream: Box<dyn Stream>,
    timeout: Duration,
    reader: Reader,
    received: Vec<u8>,
    /// Messages that have been received and not been asked for.
    waiting: VecDeque<ServerMessage>,
}

/// What the server said, if it is an error response.
type Refused<T> = Result<T, Failure>;

impl Client {
    fn connect(options: &CallOptions) -> io::Result<Client> {
        let timeout = options.timeout;
        let stream = connect(&options.address, &options.tls, timeout)?;
        stream.set_write_timeout(Some(timeout.max(SHORTEST)))?;
        Ok(Client {
            stream,
            timeout,
            reader: Reader::default(),
            received: vec![0; 64 << 10],
            waiting: VecDeque::new(),
        })
    }

    fn negotiate(&mut self, oob: bool) -> io::Result<Refused<()>> {
        let deadline = Instant::now() + self.timeout;
        let greeting = match self.next(deadline)? {
            Some(ServerMessage::Greeting(greeting)) => greeting,
            Some(_) => return Err(invalid("the server does not greet as QMP servers do")),
            None => return Err(silent("no greeting; is another client connected?")),
        };
        let mut request = Request::new("qmp_capabilities");
        if oob {
            if !greeting.capabilities.contains(&Capability::Oob) {
                return Ok(Err(Failure::usage("the server does not offer out-of-band execution")));
            }
            request.arguments.insert("enable", vec![Value::from("oob")]);
        }
        Ok(self.execute(request)?.map(drop))
    }

    /// Sends a request and waits for its response. Events that come before are kept.
    fn execute(&mut self, mut request: Request) -> io::Result<Refused<Json>> {
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
                Some(ServerMessage::Response(Response { id: got, result }))
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
        Ok(result.map_err(Failure::command))
    }

    /// The text of the next event; `None` when the deadline has passed or the server has ended.
    fn next_event(&mut self, deadline: Instant) -> io::Result<Option<String>> {
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

fn invalid(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

fn silent(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}
