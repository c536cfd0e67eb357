// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has been received from a client and was not taken as messages yet.

use std::mem;
use std::ops::Range;

use qmp_dispatch::proto::{Dialect, Limits, Reader};
use qmp_dispatch::{Monitor, Pending};

use super::descriptors::Descriptor;

pub(super) struct Input {
    pub(super) reader: Reader,
    /// Bytes of the current message that `reader` has read.
    pub(super) of_message: usize,
    /// Bytes that were kept when a [`Large`] was made of this, until it is back.
    lent: usize,
    /// What has been received and not been read, from `at` on: because the monitor is suspended, or because
    /// descriptors came with its last byte.
    pub(super) unread: Vec<u8>,
    pub(super) at: usize,
    /// Came with the last byte of `unread`.
    pub(super) descriptors: Vec<Descriptor>,
    /// How many messages in a row came alone, each when the one before it had been answered; at most [`ENOUGH`].
    one_by_one: u8,
}

/// After this many messages that came alone, the client is taken for one that waits for each answer.
const ENOUGH: u8 = 16;

impl Input {
    pub(super) fn new(dialect: Dialect, limits: Limits) -> Input {
        Input {
            reader: Reader::new(dialect, limits),
            of_message: 0,
            lent: 0,
            unread: Vec::new(),
            at: 0,
            descriptors: Vec::new(),
            one_by_one: 0,
        }
    }

    /// Whether everything that has been received has been read.
    pub(super) fn is_read(&self) -> bool {
        self.at == self.unread.len()
    }

    /// What can be read next: the byte that descriptors came with is a piece of its own.
    pub(super) fn next_piece(&self) -> Range<usize> {
        let end = self.unread.len();
        let before_last = end.saturating_sub(1);
        if self.descriptors.is_empty() || self.at == before_last {
            self.at..end
        } else {
            self.at..before_last
        }
    }

    /// Whether the client probably sends one message, and nothing more until that is answered.
    pub(super) fn comes_one_by_one(&self) -> bool {
        self.one_by_one == ENOUGH
    }

    /// Notes whether what has been received was one message and nothing else.
    pub(super) fn came(&mut self, one_message: bool) {
        self.one_by_one = if one_message { ENOUGH.min(self.one_by_one + 1) } else { 0 };
    }

    /// Bytes that are kept for the client.
    pub(super) fn kept(&self) -> usize {
        self.lent + self.reader.kept() + self.unread.capacity()
    }

    /// Takes out what the current message is to be read from, until it is [put back](Input::put_back).
    pub(super) fn lend(&mut self) -> Box<Large> {
        self.lent = self.kept();
        let piece = self.next_piece();
        self.at = 0;
        let (reader, unread) = (mem::take(&mut self.reader), mem::take(&mut self.unread));
        Box::new(Large { reader, unread, piece })
    }

    pub(super) fn put_back(&mut self, large: Box<Large>) {
        self.lent = 0;
        self.reader = large.reader;
        self.unread = large.unread;
        self.at = large.piece.start;
        if self.reader.is_idle() {
            self.of_message = 0;
        }
    }

    /// Forgets all of it. Nothing more is read.
    pub(super) fn clear(&mut self) -> Input {
        let nothing = Input {
            reader: Reader::default(),
            unread: Vec::new(),
            at: 0,
            descriptors: Vec::new(),
            ..*self
        };
        mem::replace(self, nothing)
    }
}

/// A large message that is complete. Its size is known, because to look for it takes long.
pub(crate) struct Complete {
    pub(super) pending: Pending,
    pub(super) bytes: usize,
}

/// A message that has become large, and what has come of it, for a thread where reading it holds up nobody else.
pub(crate) struct Large {
    reader: Reader,
    unread: Vec<u8>,
    /// What of `unread` is to be read.
    piece: Range<usize>,
}

impl Large {
    /// Reads to the end of the message, or of what there is of it; if it is complete, parses it and checks its arguments.
    pub(crate) fn read(&mut self, monitor: &Monitor) -> Option<Complete> {
        let mut rest = &self.unread[self.piece.clone()];
        let message = self.reader.read(&mut rest);
        // Also if a tracing subscriber panics below: nothing is read twice.
        self.piece.start = self.piece.end - rest.len();
        let mut pending = monitor.receive(message?);
        monitor.check_arguments(&mut pending);
        // Here, because it takes long, too: the reader lets go of what the message has taken.
        let nothing = self.reader.read(&mut &[][..]);
        debug_assert!(nothing.is_none());
        Some(Complete { bytes: pending.heap_size(), pending })
    }
}
