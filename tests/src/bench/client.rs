// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that does as little as can be done, so that what is measured is the server.
//!
//! Every response is known beforehand: the same request always has the same answer, so counting bytes is enough
//! to find where one ends. The last one is looked at. A client that is [`parsing`](Client::parsing) does what programs
//! do instead: it writes each request anew and parses each response.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use qmp_proto::{Reader, Request, ServerMessage, Value};

/// The command that is measured. Every QMP server has it.
const REQUEST: &[u8] = b"{\"execute\": \"query-version\", \"id\": 1}\n";

/// Least size of a read.
const SMALLEST_BUFFER: usize = 1 << 10;
/// Largest size of a read.
const LARGEST_BUFFER: usize = 1 << 18;

/// How long a server may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// The capabilities that a client negotiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One command at a time.
    InBand,
    /// Out-of-band execution, and with it eight commands that are queued.
    OutOfBand,
}

/// A connection that has been negotiated.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    request: &'static [u8],
    response: Vec<u8>,
    /// Bytes of a response that is not complete yet.
    partial: usize,
    buffer: Box<[u8]>,
    parser: Option<Box<Parser>>,
}

/// The state of a client that parses.
#[derive(Debug, Default)]
struct Parser {
    reader: Reader,
    request: String,
}

impl Client {
    /// Connects, negotiates, and learns what the answer to the request is.
    pub fn connect(socket: &Path, mode: Mode) -> io::Result<Client> {
        Client::connect_asking(socket, mode, REQUEST)
    }

    /// The same for another request.
    pub fn connect_asking(socket: &Path, mode: Mode, request: &'static [u8]) -> io::Result<Client> {
        let socket = UnixStream::connect(socket)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let buffer = vec![0; SMALLEST_BUFFER].into();
        let mut client =
            Client { socket, request, response: Vec::new(), partial: 0, buffer, parser: None };
        client.line()?;
        let negotiation: &[u8] = match mode {
            Mode::InBand => b"{\"execute\": \"qmp_capabilities\"}\n",
            Mode::OutOfBand => {
                b"{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}\n"
            }
        };
        client.socket.write_all(negotiation)?;
        client.line()?;
        client.socket.write_all(request)?;
        client.response = client.line()?;
        let size = client.response.len().clamp(SMALLEST_BUFFER, LARGEST_BUFFER);
        client.buffer = vec![0; size].into();
        Ok(client)
    }

    /// From now on, requests are written anew each time, and responses parsed.
    pub fn parsing(mut self) -> Client {
        self.parser = Some(Box::default());
        self
    }

    /// The answer to the request, line end included.
    pub fn response(&self) -> &[u8] {
        &self.response
    }

    /// Asks and waits for the answer; how long that took.
    pub fn round_trip(&mut self) -> io::Result<Duration> {
        let started = Instant::now();
        self.ask(1)?;
        while self.receive()? == 0 {}
        Ok(started.elapsed())
    }

    /// Sends this number of requests in one write, without waiting for answers.
    pub fn ask(&mut self, requests: usize) -> io::Result<()> {
        match (requests, &mut self.parser) {
            (0, _) => Ok(()),
            (1, None) => self.socket.write_all(self.request),
            (more, None) => self.socket.write_all(&self.request.repeat(more)),
            (more, Some(parser)) => {
                (0..more).try_for_each(|_| self.socket.write_all(parser.request()))
            }
        }
    }

    /// Asks until the server takes no more, because nothing of its answers is read.
    pub fn ask_without_reading(&mut self) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        let mut refused_since: Option<Instant> = None;
        // A server that is only slow takes more within this time.
        while refused_since.is_none_or(|since| since.elapsed() < Duration::from_millis(50)) {
            match self.socket.write(self.request) {
                Ok(_) => refused_since = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    refused_since.get_or_insert_with(Instant::now);
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
        self.socket.set_nonblocking(false)
    }

    /// Waits until something comes; how many answers that completes.
    pub fn receive(&mut self) -> io::Result<usize> {
        let received = self.socket.read(&mut self.buffer)?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(parser) = &mut self.parser {
            return parser.responses(&self.buffer[..received]);
        }
        let length = self.response.len();
        let complete = (self.partial + received) / length;
        self.partial = (self.partial + received) % length;
        let (tail, known) = match (complete, self.partial) {
            // Several at once: the last byte of the last one is enough.
            (2.., 0) => (&self.buffer[received - 1..received], &self.response[length - 1..]),
            (1, 0) if received == length => (&self.buffer[..received], &self.response[..]),
            _ => (&[][..], &[][..]),
        };
        if tail != known {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another answer than before"));
        }
        Ok(complete)
    }

    /// Reads a line. Nothing may follow it, because the buffer is dropped.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            match self.socket.read(&mut self.buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                received => line.extend_from_slice(&self.buffer[..received]),
            }
        }
        Ok(line)
    }
}

impl Parser {
    fn request(&mut self) -> &[u8] {
        let mut request = Request::new("query-version");
        request.id = Some(Value::from(1));
        self.request.clear();
        request.write(&mut self.request);
        self.request.as_bytes()
    }

    fn responses(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let invalid =
            |reason: &dyn ToString| io::Error::new(io::ErrorKind::InvalidData, reason.to_string());
        let mut complete = 0;
        while let Some(message) = self.reader.read(&mut bytes) {
            let message = message.map_err(|error| invalid(&error))?;
            match ServerMessage::parse(&message) {
                Ok(ServerMessage::Response(response)) if response.result.is_ok() => complete += 1,
                other => return Err(invalid(&format!("no answer: {other:?}"))),
            }
        }
        Ok(complete)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
