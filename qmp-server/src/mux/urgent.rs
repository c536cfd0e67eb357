// SPDX-License-Identifier: MIT OR Apache-2.0
//! Out-of-band requests that wait for being sent, before all others.

use std::collections::VecDeque;
use std::sync::Arc;

use super::request::{MuxClient, Request};

/// Out-of-band requests of all clients that may be unanswered: those of clients that have gone count, too.
const MOST_UNANSWERED: usize = 1024;

/// Bytes of out-of-band requests that may wait for a server that does not read.
const MOST_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Urgent {
    requests: VecDeque<Request>,
    /// Bytes of their texts.
    bytes: usize,
}

impl Urgent {
    /// Whether one more may wait, if this many are in flight.
    pub(super) fn has_room(&self, in_flight: usize) -> bool {
        in_flight + self.requests.len() < MOST_UNANSWERED && self.bytes <= MOST_BYTES
    }

    pub(super) fn push(&mut self, request: Request) {
        self.bytes += request.text.len();
        self.requests.push_back(request);
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        let request = self.requests.pop_front()?;
        self.bytes -= request.text.len();
        Some(request)
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter()
    }

    /// Takes all of them.
    pub(super) fn take(&mut self) -> VecDeque<Request> {
        std::mem::take(self).requests
    }

    /// Takes those of a client.
    pub(super) fn take_those_of(&mut self, client: &Arc<MuxClient>) -> VecDeque<Request> {
        let (taken, kept): (VecDeque<_>, VecDeque<_>) =
            self.take().into_iter().partition(|request| request.is_of(client));
        kept.into_iter().for_each(|request| self.push(request));
        taken
    }
}
