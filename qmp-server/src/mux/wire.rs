// SPDX-License-Identifier: MIT OR Apache-2.0
//! The socket of a connection to the upstream server, and the bytes on their way to it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::io::{Event, Interest};
use crate::session::{Descriptor, Written};
use crate::transport::connect::stream::Stream;
use crate::transport::{Luggage, Packing, Received};

pub(super) struct Wire {
    stream: Stream,
    /// What the server has not taken all of. The next requests are not chosen before it has: so what waits can still be
    /// taken back.
    outgoing: VecDeque<Outgoing>,
    /// There may be something to receive: the last read found something and did not find the end of it.
    readable: bool,
    /// The system has reported the end of the stream, which comes after what there is to receive.
    read_closed: bool,
    /// Nothing more can be sent. That the connection has ended is said when all that has come was read.
    pub(super) write_closed: bool,
}

/// A [`Wire`] as data.
#[derive(Serialize, Deserialize)]
pub(super) struct WireState {
    socket: u32,
    #[serde(with = "qmp_dispatch::proto::bytes_as_text")]
    outgoing: Vec<u8>,
}

/// Messages, of which the server has taken what is before `at`. The descriptor goes with the first byte.
struct Outgoing {
    bytes: Vec<u8>,
    at: usize,
    descriptor: Option<Arc<Descriptor>>,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Wire {
        Wire {
            stream,
            outgoing: VecDeque::new(),
            readable: true,
            read_closed: false,
            write_closed: false,
        }
    }

    /// The wire as it is; `None` when nothing can be sent any more, and with TLS.
    pub(super) fn state(&self, packing: &mut Packing) -> io::Result<Option<WireState>> {
        let mut outgoing = Vec::new();
        for message in &self.outgoing {
            if message.descriptor.is_some() {
                return Err(io::Error::other("a descriptor has not been sent"));
            }
            outgoing.extend_from_slice(&message.bytes[message.at..]);
        }
        let socket = match &self.stream {
            _ if self.write_closed => return Ok(None),
            Stream::Socket(socket) => socket,
            #[cfg(feature = "tls")]
            Stream::Tls(_) => return Ok(None),
        };
        Ok(Some(WireState { socket: packing.add(socket.as_fd())?, outgoing }))
    }

    /// Goes on with a wire that another program had.
    pub(super) fn resume(state: WireState, luggage: &mut Luggage) -> io::Result<Wire> {
        let mut wire = Wire::new(Stream::Socket(luggage.take(state.socket)?));
        if !state.outgoing.is_empty() {
            wire.add(state.outgoing, None);
        }
        Ok(wire)
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Notes what has been reported.
    pub(super) fn ready(&mut self, event: Event) {
        self.readable = true;
        self.read_closed |= event.read_closed;
    }

    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(super) fn interest(&self) -> Interest {
        match self.has_sent_all() {
            true => Interest::Readable,
            false => Interest::ReadableWritable,
        }
    }

    /// Whether the server has taken all that was to be sent.
    pub(super) fn has_sent_all(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Receives what is there into `buffer`, which must be empty, at most `room` bytes. Nothing is received when there is
    /// nothing.
    ///
    /// # Errors
    ///
    /// If the connection has ended; an error of kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the server has
    /// ended it.
    pub(super) fn receive(&mut self, buffer: &mut Vec<u8>, room: usize) -> io::Result<()> {
        buffer.reserve_exact(room);
        match self.stream.receive(buffer) {
            Ok(Received { bytes: 0, .. }) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Received { may_be_more, .. }) => {
                self.readable = may_be_more || self.read_closed;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Adds a message to what is to be sent, with which the descriptor goes.
    pub(super) fn add(&mut self, bytes: Vec<u8>, descriptor: Option<Arc<Descriptor>>) {
        self.outgoing.push_back(Outgoing { bytes, at: 0, descriptor });
    }

    /// Sends what is unsent.
    pub(super) fn flush(&mut self) -> Written {
        while let Some(outgoing) = self.outgoing.front_mut() {
            match outgoing.send(&self.stream) {
                Ok(()) if outgoing.at == outgoing.bytes.len() => drop(self.outgoing.pop_front()),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Written::Some,
                Err(_) => {
                    self.outgoing.clear();
                    self.write_closed = true;
                    self.readable = true;
                }
            }
        }
        if self.write_closed { Written::Some } else { Written::All }
    }
}

impl Outgoing {
    fn send(&mut self, stream: &Stream) -> io::Result<()> {
        let descriptor = self.descriptor.as_ref().map(|descriptor| descriptor.as_fd());
        self.at += stream.send(&self.bytes[self.at..], descriptor)?;
        if let Some(descriptor) = self.descriptor.take() {
            descriptor.pass_on();
        }
        Ok(())
    }
}
