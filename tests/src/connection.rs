// SPDX-License-Identifier: MIT OR Apache-2.0
//! One client connection, byte for byte.
//!
//! Reading and writing never wait for each other: what the server sends while it is slow to take our input is collected
//! meanwhile. Every wait has a deadline.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::json::{Json, Layout};

const SHOWN_CHARACTERS: usize = 300;
const TRANSCRIPT_ENTRIES: usize = 400;
const TRANSCRIPT_ENTRY_BYTES: usize = 2000;

/// An unexpected result; has what was expected and what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody accepts connections.
    Unreachable(String),
    /// The server did something else than expected.
    Unexpected(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) | Self::Unexpected(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

pub(crate) fn unexpected<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Unexpected(text.into()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// End of file.
    Closed,
    Reset,
}

/// A message as it came, without its final line end, which was CR LF. Line ends inside it, CR LF as well, are `\n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The text. Bytes beyond ASCII have become the characters with their numbers.
    pub text: String,
    layout: Layout,
}

impl Message {
    /// The value, provided that it is laid out and escaped as QMP servers do.
    pub fn json(&self) -> Result<Json, Failure> {
        let value = match Json::parse(&self.text) {
            Ok(value) => value,
            Err(error) => return unexpected(format!("not JSON ({error}): {}", shown(&self.text))),
        };
        let canonical = value.to_text(self.layout);
        if canonical != self.text {
            return unexpected(format!(
                "formatted differently: expected {}, received {}",
                shown(&canonical),
                shown(&self.text)
            ));
        }
        Ok(value)
    }
}

/// A text on one line, printable and shortened.
pub fn shown(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars().take(SHOWN_CHARACTERS) {
        if matches!(character, ' '..='~') {
            line.push(character);
        } else {
            line.extend(character.escape_default());
        }
    }
    match text.chars().count() {
        count if count > SHOWN_CHARACTERS => format!("{line}... ({count} characters)"),
        _ => line,
    }
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

#[derive(Debug)]
pub struct Connection {
    channel: Box<dyn Channel>,
    layout: Layout,
    received: Vec<u8>,
    /// That many bytes of `received` are known to hold no line end.
    scanned: usize,
    end: Option<End>,
    transcript: Vec<String>,
}

impl Connection {
    /// Connects to a monitor with this layout of messages.
    pub fn open(endpoint: &Endpoint, layout: Layout, patience: Duration) -> Result<Self, Failure> {
        match endpoint.connect(patience) {
            Ok(channel) => Ok(Self::new(channel, layout)),
            Err(error) => {
                Err(Failure::Unreachable(format!("cannot connect to {endpoint}: {error}")))
            }
        }
    }

    /// Speaks QMP over something that is connected and does not block.
    pub fn new(channel: Box<dyn Channel>, layout: Layout) -> Self {
        Self {
            channel,
            layout,
            received: Vec::new(),
            scanned: 0,
            end: None,
            transcript: Vec::new(),
        }
    }

    /// What was sent (`>`) and received (`<`), shortened.
    pub fn transcript(&self) -> &[String] {
        &self.transcript
    }

    /// Sends `bytes`, and `descriptors` along with the first of them.
    pub fn send(
        &mut self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.note('>', bytes);
        let mut left = bytes;
        let mut descriptors = descriptors;
        while !left.is_empty() {
            let sent = self.channel.send(left, descriptors);
            if let Some(sent) = self.unless_blocked(sent, deadline)? {
                left = &left[sent..];
                descriptors = &[];
            }
        }
        loop {
            let flushed = self.channel.flush();
            if self.unless_blocked(flushed, deadline)?.is_some() {
                return Ok(());
            }
        }
    }

    /// Waits and gives `None` if there was no room.
    fn unless_blocked<T>(
        &mut self,
        result: io::Result<T>,
        deadline: Instant,
    ) -> Result<Option<T>, Failure> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wait(Interest::Writing, deadline, "the server does not read our input")?;
                Ok(None)
            }
            Err(error) => unexpected(format!("connection closed while sending: {error}")),
        }
    }

    /// Ends our side; the server's answers can still be read.
    pub fn half_close(&mut self) -> Result<(), Failure> {
        self.channel.half_close().map_err(|error| {
            Failure::Unexpected(format!("cannot shut down the sending side: {error}"))
        })
    }

    /// Reads one message: a line, or on a pretty-printing monitor all lines up to a lone closing brace.
    pub fn read_message(&mut self, deadline: Instant) -> Result<Message, Failure> {
        let mut data = self.take_line(deadline)?;
        if self.layout == Layout::Pretty {
            while !ends_with_lone_brace(&data) {
                data.extend(self.take_line(deadline)?);
            }
        }
        self.note('<', &data);
        let text = latin_1(&data);
        match text.strip_suffix("\r\n") {
            Some(body) if !body.replace("\r\n", "").contains('\n') => {
                Ok(Message { text: body.replace("\r\n", "\n"), layout: self.layout })
            }
            _ => unexpected(format!("a line that does not end with CR LF: {}", shown(&text))),
        }
    }

    /// Checks that nothing comes for this long.
    pub fn expect_silence(&mut self, duration: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + duration;
        loop {
            if !self.received.is_empty() {
                return unexpected(format!(
                    "expected silence, received {}",
                    shown(&latin_1(&self.received))
                ));
            }
            if self.end.is_some() {
                return unexpected("expected silence, received end of file");
            }
            if Instant::now() >= deadline {
                return Ok(());
            }
            self.poll(Interest::Reading, deadline)?;
        }
    }

    /// Waits for the server to close the connection, and returns how it did.
    pub fn expect_end(&mut self, deadline: Instant) -> Result<End, Failure> {
        loop {
            match self.end {
                Some(_) if !self.received.is_empty() => {
                    return unexpected(format!(
                        "expected end of file, received {}",
                        shown(&latin_1(&self.received))
                    ));
                }
                Some(end) => return Ok(end),
                None => self.wait(
                    Interest::Reading,
                    deadline,
                    "expected end of file, connection stays open",
                )?,
            }
        }
    }

    fn take_line(&mut self, deadline: Instant) -> Result<Vec<u8>, Failure> {
        loop {
            if let Some(at) = self.received[self.scanned..].iter().position(|&byte| byte == b'\n') {
                let rest = self.received.split_off(self.scanned + at + 1);
                self.scanned = 0;
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            self.scanned = self.received.len();
            if self.end.is_some() {
                return unexpected(match self.received.as_slice() {
                    [] => "end of file".to_owned(),
                    rest => format!("end of file after {}", shown(&latin_1(rest))),
                });
            }
            self.wait(Interest::Reading, deadline, "nothing in time")?;
        }
    }

    fn wait(
        &mut self,
        interest: Interest,
        deadline: Instant,
        complaint: &str,
    ) -> Result<(), Failure> {
        if Instant::now() >= deadline {
            return unexpected(complaint);
        }
        self.poll(interest, deadline)
    }

    /// Waits until the socket is ready or the deadline has come, and collects what has arrived.
    fn poll(&mut self, interest: Interest, deadline: Instant) -> Result<(), Failure> {
        let (mut reading, mut writing) = (PollFlags::empty(), PollFlags::empty());
        reading.set(PollFlags::IN, self.end.is_none());
        writing.set(PollFlags::OUT, interest == Interest::Writing);
        let mut polled = [
            PollFd::from_borrowed_fd(self.channel.readable(), reading),
            PollFd::from_borrowed_fd(self.channel.writable(), writing),
        ];
        let polled = &mut polled[..if interest == Interest::Writing { 2 } else { 1 }];
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left
            .try_into()
            .map_err(|_| Failure::Unexpected("time limit out of range".to_owned()))?;
        match rustix::event::poll(polled, Some(&timeout)) {
            Err(error) if error != Errno::INTR => {
                return unexpected(format!("cannot poll: {error}"));
            }
            _ => {}
        }
        if self.end.is_none()
            && polled[0].revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
        {
            self.receive()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Failure> {
        match self.channel.receive(&mut self.received) {
            Ok(0) => self.end = Some(End::Closed),
            Ok(_) => {}
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                io::ErrorKind::ConnectionReset => self.end = Some(End::Reset),
                _ => return unexpected(format!("cannot read: {error}")),
            },
        }
        Ok(())
    }

    fn note(&mut self, direction: char, bytes: &[u8]) {
        if self.transcript.len() < TRANSCRIPT_ENTRIES {
            let start = &bytes[..bytes.len().min(TRANSCRIPT_ENTRY_BYTES)];
            self.transcript.push(format!("{direction} {}", start.escape_ascii()));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Interest {
    Reading,
    Writing,
}

fn ends_with_lone_brace(data: &[u8]) -> bool {
    let body = data.strip_suffix(b"\n").unwrap_or(data);
    let body = body.strip_suffix(b"\r").unwrap_or(body);
    body == b"}" || body.ends_with(b"\n}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn pair(layout: Layout) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Connection::new(Box::new(OwnedFd::from(ours)), layout), theirs)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[track_caller]
    fn check_messages(layout: Layout, sent: &str, expected: &[&str]) {
        let (mut connection, mut server) = pair(layout);
        server.write_all(sent.as_bytes()).unwrap();
        drop(server);
        for text in expected {
            assert_eq!(connection.read_message(soon()).unwrap().text, *text);
        }
        assert_eq!(connection.expect_end(soon()), Ok(End::Closed));
    }

    #[test]
    fn a_message_is_a_line() {
        check_messages(Layout::Compact, "{}\r\n[]\r\n", &["{}", "[]"]);
    }

    #[test]
    fn a_pretty_message_ends_with_a_lone_brace() {
        check_messages(
            Layout::Pretty,
            "{\r\n    \"return\": {\r\n    }\r\n}\r\n{\r\n}\r\n",
            &["{\n    \"return\": {\n    }\n}", "{\n}"],
        );
    }

    #[test]
    fn every_line_must_end_with_cr_lf() {
        for (layout, text) in [(Layout::Compact, "{}\n"), (Layout::Pretty, "{\n}\r\n")] {
            let (mut connection, mut server) = pair(layout);
            server.write_all(text.as_bytes()).unwrap();
            assert!(connection.read_message(soon()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn other_layouts_than_a_servers_are_refused() {
        for text in ["{\"a\":1}", "\"\\u00e9\"", "\"\u{e9}\"", "\"\\/\"", "[ ]"] {
            let message = Message { text: text.to_owned(), layout: Layout::Compact };
            assert!(message.json().is_err(), "{text}");
        }
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let (mut connection, _server) = pair(Layout::Compact);
        let limit = Duration::from_millis(20);
        assert!(connection.read_message(Instant::now() + limit).is_err());
        assert!(connection.expect_end(Instant::now() + limit).is_err());
        assert!(connection.send(&vec![b' '; 16 << 20], &[], Instant::now() + limit).is_err());
        assert_eq!(connection.expect_silence(limit), Ok(()));
    }
}
