// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has been received from a client, and is not a message yet.

use std::ops::Range;
use std::os::fd::OwnedFd;

use qmp_dispatch::proto::{Limits, Reader};

pub(crate) struct Input {
    pub(crate) reader: Reader,
    /// What has been received and not been read, from `at` on: because the monitor is suspended, or
    /// because descriptors came with its last byte.
    pub(crate) unread: Vec<u8>,
    pub(crate) at: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// How many messages in a row came one at a time, each when the last one had been answered.
    one_by_one: u8,
}

/// So many tell that a client always waits for its answers.
const ENOUGH: u8 = 16;

impl Input {
    pub(crate) fn new(limits: Limits) -> Input {
        Input {
            reader: Reader::new(limits),
            unread: Vec::new(),
            at: 0,
            descriptors: Vec::new(),
            one_by_one: 0,
        }
    }

    /// Whether everything that has been received has been read.
    pub(crate) fn is_read(&self) -> bool {
        self.at == self.unread.len()
    }

    /// What can be read next: not together with what descriptors came with.
    pub(crate) fn next_piece(&self) -> Range<usize> {
        let end = self.unread.len();
        let before_last = end.saturating_sub(1);
        if self.descriptors.is_empty() || self.at == before_last {
            self.at..end
        } else {
            self.at..before_last
        }
    }

    /// Whether the client can be expected to send a message, and then nothing until that is answered.
    pub(crate) fn comes_one_by_one(&self) -> bool {
        self.one_by_one == ENOUGH
    }

    /// What has been received was one message and nothing else, or it was not.
    pub(crate) fn came(&mut self, one_message: bool) {
        self.one_by_one = if one_message { ENOUGH.min(self.one_by_one + 1) } else { 0 };
    }

    /// How many bytes are kept for the client.
    pub(crate) fn kept(&self) -> usize {
        self.reader.kept() + self.unread.len()
    }
}
