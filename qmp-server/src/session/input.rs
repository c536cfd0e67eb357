// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has been received from a client and was not taken as messages yet.

use std::ops::Range;

use qmp_dispatch::proto::{Dialect, Limits, Reader};

use super::descriptors::Descriptor;

pub(super) struct Input {
    pub(super) reader: Reader,
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
        self.reader.kept() + self.unread.capacity()
    }

    /// Forgets all of it. Nothing more is read.
    pub(super) fn clear(&mut self) {
        *self = Input {
            reader: Reader::default(),
            unread: Vec::new(),
            at: 0,
            descriptors: Vec::new(),
            ..*self
        };
    }
}
