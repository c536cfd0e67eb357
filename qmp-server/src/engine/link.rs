// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sources of wings: links to upstream servers.

#[cfg(feature = "mux")]
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

#[cfg(feature = "mux")]
use super::frozen::Freezing;
use crate::io::{Event, Interest, Registration};

/// A source that is lent out for each of its inputs, so that what it does may call foreign code. What happens to it
/// meanwhile is noted, and is its next input.
pub(crate) trait Link: Send {
    /// The registration by which other threads [wake](crate::io::Notice::Wake) it.
    fn registration(&self) -> &Arc<Registration>;

    /// The socket, if there is one.
    fn socket(&self) -> Option<BorrowedFd<'_>>;

    /// Handles an input, without blocking.
    fn handle(&mut self, input: LinkInput) -> LinkNext;

    /// Adds what another program needs to go on with this.
    ///
    /// # Errors
    ///
    /// If it cannot be handed over, or not now.
    #[cfg(feature = "mux")]
    fn freeze(&self, freezing: &mut Freezing) -> io::Result<()>;
}

/// What a link may receive in a turn: some eighty events, or one larger response.
pub(super) const ROOM: usize = 8 << 10;

/// What a link may receive in a turn if others would wait for it again and again: a few events.
pub(super) const ROOM_IN_LINE: usize = 256;

/// What has happened to a link. Several things may have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinkInput {
    /// Its socket has become ready.
    pub(crate) event: Option<Event>,
    /// The time that it has asked for has come.
    pub(crate) timer: bool,
    /// Somebody has woken it, or it was taken in.
    pub(crate) woken: bool,
    /// How many bytes it may receive. Nothing if what it has received unasked has taken more time than others can spare: then
    /// its turn comes later.
    pub(crate) room: usize,
}

/// What a link wants after an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkNext {
    /// It has another socket than before, or none any more.
    pub(crate) new_socket: bool,
    /// What it waits for at its socket.
    pub(crate) interest: Interest,
    /// When it wants its next input at the latest.
    pub(crate) timer: Option<Instant>,
    /// It has more to do in its next [turn](LinkInput::is_turn), when others have had theirs.
    pub(crate) again: bool,
    /// What it has done was more for what its peer has sent unasked than for anybody's requests.
    pub(crate) unasked: bool,
    /// It is to be dropped.
    pub(crate) ended: bool,
}

impl LinkInput {
    /// Nothing has happened, and it may receive.
    #[cfg(feature = "mux")]
    pub(crate) fn of_turn() -> LinkInput {
        LinkInput { room: ROOM, ..LinkInput::default() }
    }

    /// Whether it may do what it could do without end: a little of it.
    pub(crate) fn is_turn(&self) -> bool {
        self.room > 0
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.event.is_none() && !self.timer && !self.woken && !self.is_turn()
    }

    /// Whether it cannot wait for the link's turn to receive.
    pub(super) fn is_urgent(&self) -> bool {
        self.woken || self.timer || self.event.is_some_and(|event| event.writable)
    }

    pub(super) fn add_event(&mut self, event: Event) {
        let before = self.event.get_or_insert(event);
        before.writable |= event.writable;
        before.read_closed |= event.read_closed;
        before.hung_up |= event.hung_up;
    }
}
