// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client has at the upstream server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use qmp_queue::{Mode, Producer};

use super::names::Names;
use super::request::Request;
use super::upstream::Upstream;

/// So many out-of-band requests of a client may be unanswered; there is nothing else to hold them up.
const MOST_OUT_OF_BAND: usize = 64;

/// A [local](qmp_dispatch::Monitor::local) of every monitor of a mux.
pub(super) struct Client {
    pub(super) names: Names,
    /// Its place in the line for the upstream server.
    line: Producer<Box<Request>>,
    out_of_band: Arc<AtomicUsize>,
    upstream: Weak<Upstream>,
}

impl Client {
    pub(super) fn new(upstream: &Arc<Upstream>, prefix: String) -> Client {
        Client {
            names: Names::new(prefix),
            line: upstream.line().register(Mode::default()),
            out_of_band: Arc::default(),
            upstream: Arc::downgrade(upstream),
        }
    }

    /// Has the client's request wait in line. Another one that does so already has passed its deadline,
    /// as a client has only one in-band request in progress, and will not be sent any more.
    pub(super) fn queue(&self, request: Request) {
        drop(self.line.clear());
        // Refused only when all has ended; then its answer says so.
        drop(self.line.push(Box::new(request)));
    }

    /// Counts an out-of-band request until what is returned is dropped; `None` if there are too many.
    pub(super) fn out_of_band(&self) -> Option<OutOfBand> {
        let counted = OutOfBand(Arc::clone(&self.out_of_band));
        (self.out_of_band.fetch_add(1, Ordering::Relaxed) < MOST_OUT_OF_BAND).then_some(counted)
    }
}

/// One out-of-band request that is unanswered.
pub(super) struct OutOfBand(Arc<AtomicUsize>);

impl Drop for OutOfBand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When nothing of the client is in progress any more, its descriptors are closed.
impl Drop for Client {
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.upgrade() {
            upstream.close_descriptors(self.names.take_all());
        }
    }
}
