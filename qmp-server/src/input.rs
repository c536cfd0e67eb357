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
}

impl Input {
    pub(crate) fn new(limits: Limits) -> Input {
        Input { reader: Reader::new(limits), unread: Vec::new(), at: 0, descriptors: Vec::new() }
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

    /// How many bytes are kept for the client.
    pub(crate) fn kept(&self) -> usize {
        self.reader.kept() + self.unread.len()
    }
}
