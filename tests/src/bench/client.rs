// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that does as little as can be done, so that what is measured is the server.
//!
//! Every response is known beforehand: the same request always has the same answer, so counting bytes is enough
//! to find where one ends. The last one is looked at.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is asked, again and again. Every QMP server knows it.
const REQUEST: &[u8] = b"{\"execute\": \"query-version\", \"id\": 1}\n";

/// What is read at a time, at least.
const SMALLEST_BUFFER: usize = 1 << 10;
/// And at most.
const LARGEST_BUFFER: usize = 1 << 18;

/// How long a server may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a client negotiates.
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
}

impl Client {
    /// Connects, negotiates, and learns what the answer to the request is.
    ///
    /// # Errors
    ///
    /// If the server is not there, or says something else than QMP servers do.
    pub fn connect(socket: &Path, mode: Mode) -> io::Result<Client> {
        Client::connect_asking(socket, mode, REQUEST)
    }

    /// The same for another request.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn connect_asking(socket: &Path, mode: Mode, request: &'static [u8]) -> io::Result<Client> {
        let socket = UnixStream::connect(socket)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let buffer = vec![0; SMALLEST_BUFFER].into();
        let mut client = Client { socket, request, response: Vec::new(), partial: 0, buffer };
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

    /// The answer to the request, line end included.
    #[must_use]
    pub fn response(&self) -> &[u8] {
        &self.response
    }

    /// Asks and waits for the answer; how long that took.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or the answer is another one.
    pub fn round_trip(&mut self) -> io::Result<Duration> {
        let started = Instant::now();
        self.socket.write_all(self.request)?;
        while self.receive()? == 0 {}
        Ok(started.elapsed())
    }

    /// Asks without waiting. So many requests are one write.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub fn ask(&mut self, requests: usize) -> io::Result<()> {
        match requests {
            0 => Ok(()),
            1 => self.socket.write_all(self.request),
            more => self.socket.write_all(&self.request.repeat(more)),
        }
    }

    /// Waits until something comes; how many answers that completes.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or an answer is another one than the first.
    pub fn receive(&mut self) -> io::Result<usize> {
        let received = self.socket.read(&mut self.buffer)?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
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

    /// Reads a line. Nothing comes behind it that was not asked for.
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

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
