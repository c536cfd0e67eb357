// SPDX-License-Identifier: MIT OR Apache-2.0
//! One connection to the upstream server: the wire, and the session over it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use qmp_dispatch::proto::client::{self, Ids, Session, SessionError, SessionState, Stage};
use qmp_dispatch::proto::{Capability, Event as QmpEvent, Greeting};

use serde::{Deserialize, Serialize};

use super::wire::{Wire, WireState};
use crate::io::{Event, Interest};
use crate::session::{Descriptor, Written};
use crate::transport::connect::stream::Stream;
use crate::transport::{Luggage, Packing, Peer, Transport, invalid};

pub(super) struct Connection {
    wire: Wire,
    /// Requests are kept by their numbers in [`InFlight`](super::upstream::Traffic::in_flight).
    pub(super) session: Session<u64>,
    /// What the server has greeted with, until it has answered negotiation.
    pub(super) greeting: Option<Greeting>,
    /// The server has said that it ends.
    pub(super) ending: bool,
}

/// A [`Connection`] as data.
#[derive(Serialize, Deserialize)]
pub(super) struct ConnectionState {
    #[serde(flatten)]
    wire: WireState,
    session: SessionState<u64>,
    ending: bool,
}

/// Why there is no connection, or not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) why: String,
    /// The server has ended because it was told to: by `quit`, or as the guest or somebody else has
    /// shut the machine down.
    pub(super) orderly: bool,
}

impl End {
    /// On one line: the server may have a say in this, and it gets into the log.
    pub(super) fn broken(why: impl ToString) -> End {
        End { why: why.to_string().replace(char::is_control, " "), orderly: false }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => End::broken("it has closed the connection"),
            _ => End::broken(error),
        }
    }
}

impl From<SessionError> for End {
    fn from(error: SessionError) -> End {
        match error {
            SessionError::Invalid(invalid) => {
                End::broken(format_args!("it sends rubbish: {invalid}"))
            }
            SessionError::SecondGreeting => End::broken("it greets twice"),
            SessionError::NegotiationRefused(error) => {
                End::broken(format_args!("negotiation failed: {error}"))
            }
            error => End::broken(error),
        }
    }
}

impl Connection {
    /// What goes over this stream. `number` says how many connections there were before.
    pub(super) fn new(stream: Stream, number: u64) -> Connection {
        let ids = Ids::nth_connection(number, super::random() as u32);
        Connection {
            wire: Wire::new(stream),
            session: Session::new(ids, vec![Capability::OOB]),
            greeting: None,
            ending: false,
        }
    }

    /// The connection as it is, once commands can be executed; `None` before, when it is lost, and with TLS.
    pub(super) fn state(&self, packing: &mut Packing) -> io::Result<Option<ConnectionState>> {
        let Some(session) = self.session.state() else { return Ok(None) };
        let Some(wire) = self.wire.state(packing)? else { return Ok(None) };
        Ok(Some(ConnectionState { wire, session, ending: self.ending }))
    }

    /// Goes on with a connection that another program had.
    pub(super) fn resume(state: ConnectionState, luggage: &mut Luggage) -> io::Result<Connection> {
        let ConnectionState { wire, session, ending } = state;
        Ok(Connection {
            wire: Wire::resume(wire, luggage)?,
            session: Session::resume(session).ok_or_else(|| invalid("it is not sound"))?,
            greeting: None,
            ending,
        })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.wire.socket()
    }

    /// Notes what has been reported.
    pub(super) fn ready(&mut self, event: Event) {
        self.wire.ready(event);
    }

    pub(super) fn is_readable(&self) -> bool {
        self.wire.is_readable()
    }

    pub(super) fn interest(&self) -> Interest {
        self.wire.interest()
    }

    /// Receives what is there, at most `room` bytes, and passes each message on. Returns how many bytes there were.
    ///
    /// # Errors
    ///
    /// If the connection has ended, or is not worth going on with.
    pub(super) fn receive_messages(
        &mut self,
        room: usize,
        mut received: impl FnMut(&mut Connection, client::Received<u64>) -> Result<(), End>,
    ) -> Result<usize, End> {
        let mut buffer = Vec::new();
        if room > 0 && self.wire.is_readable() {
            self.wire.receive(&mut buffer, room)?;
            let mut input = &buffer[..];
            while let Some(message) = self.session.read(&mut input) {
                received(self, message?)?;
            }
        }
        match self.wire.write_closed && !self.wire.is_readable() {
            true => Err(End::broken("it does not read any more")),
            false => Ok(buffer.len()),
        }
    }

    /// Goes on with what comes before the greeting; see [`Transport::handshake`](crate::Transport::handshake).
    pub(super) fn handshake(&self) -> io::Result<()> {
        self.wire.stream().transport().map_or(Ok(()), Transport::handshake)
    }

    /// Who is at the other end of TLS.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.wire.stream().transport()?.peer().ok()
    }

    /// Whether commands can be executed.
    pub(super) fn is_ready(&self) -> bool {
        self.session.stage() == Stage::Ready
    }

    /// Notes whether the event says that the machine, and so its server, is about to end, or that it is not.
    pub(super) fn note_end(&mut self, event: &QmpEvent) {
        match &*event.name {
            "SHUTDOWN" => self.ending = true,
            // With -no-shutdown the machine is stopped instead, and can be started again.
            "STOP" | "RESET" | "RESUME" => self.ending = false,
            _ => {}
        }
    }

    /// Makes what the session has to transmit a message of its own, with which the descriptor goes.
    pub(super) fn queue(&mut self, descriptor: Option<Arc<Descriptor>>) {
        if let Some(text) = self.session.transmit() {
            self.wire.add(text.into_bytes(), descriptor);
        }
    }

    /// Sends what is unsent, together what goes without a descriptor.
    pub(super) fn flush(&mut self) -> Written {
        self.queue(None);
        self.wire.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use qmp_dispatch::proto::Band;
    use qmp_dispatch::proto::client::Received;
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

    use super::*;

    /// One packet, which is one write.
    fn packet(socket: &OwnedFd) -> String {
        let mut bytes = [0; 1024];
        let (length, _) = recv(socket, &mut bytes[..], RecvFlags::DONTWAIT).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn requests_go_together_unless_one_is_to_go_by_itself() {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None)
                .unwrap();
        let mut connection = Connection::new(Stream::Socket(near), 0);
        let mut greeting =
            br#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}}, "capabilities": []}}"#
                .as_slice();
        assert!(matches!(connection.session.read(&mut greeting), Some(Ok(Received::Greeting(_)))));
        connection.flush();
        let negotiation = packet(&far);
        let (_, id) = negotiation.split_once(r#""id":"#).unwrap();
        let id = id.trim_end().trim_end_matches('}');
        let response = format!(r#"{{"return": {{}}, "id": {id}}}"#);
        assert!(matches!(
            connection.session.read(&mut response.as_bytes()),
            Some(Ok(Received::Ready))
        ));

        let request = |connection: &mut Connection, number| {
            connection.session.request("stop", None, Band::InBand, number).unwrap();
        };
        request(&mut connection, 0);
        request(&mut connection, 1);
        connection.queue(None);
        request(&mut connection, 2);
        connection.queue(None);
        request(&mut connection, 3);
        assert!(connection.flush() == Written::All);
        let written = [packet(&far), packet(&far), packet(&far)];
        assert_eq!(written.map(|text| text.matches("stop").count()), [2, 1, 1]);
    }
}
