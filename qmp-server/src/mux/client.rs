// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client has at the upstream server.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use qmp_queue::{Mode, Producer};

use super::names::Names;
use super::request::Request;
use super::upstream::Upstream;
use crate::access::Notices;
use crate::io::Owner;

/// Limit of unanswered out-of-band requests per client; there is nothing else to hold them up.
const MOST_OUT_OF_BAND: usize = 64;

/// A user whose request is longer than this gives up one of its turns for each as many bytes: that is about what it takes QEMU to
/// read them, byte by byte, in place of other users' requests.
const BYTES_PER_TURN: usize = 64;

/// Requests move through the queue in a box: they are large.
pub(super) type Boxed = Box<Request>;

/// A client, for as long as it is connected or something of it is at the upstream server. It holds neither the monitor
/// nor anything that waits for an answer.
pub(super) struct Client {
    pub(super) names: Names,
    /// Its place in the line for the upstream server.
    line: Producer<Box<Request>>,
    out_of_band: Arc<AtomicUsize>,
    /// Whether it stays when the upstream server has gone. Set when it has a monitor.
    notices: OnceLock<Notices>,
    /// The number of the connection to the upstream server when it came.
    since: u64,
    /// It has left. Set before its requests are dropped; a request is queued before this is looked at: one of the two
    /// sees the other.
    gone: AtomicBool,
}

impl Client {
    /// A client whose requests are sent in turn with those of other users.
    pub(super) fn new(upstream: &Upstream, user: Owner, names: Names) -> Client {
        Client {
            names,
            line: upstream.line().register_in(user, Mode::default()),
            out_of_band: Arc::default(),
            notices: OnceLock::new(),
            since: upstream.connections.get(),
            gone: AtomicBool::new(false),
        }
    }

    /// Whether it gets the mux's own events, and stays when the upstream server has gone.
    pub(super) fn has_notices(&self) -> bool {
        self.notices.get().is_some_and(Notices::are_on)
    }

    pub(super) fn set_notices(&self, notices: Notices) {
        let _ = self.notices.set(notices);
    }

    /// Whether it came after the connection of this number had been made, and before the next one.
    pub(super) fn is_of_connection(&self, number: u64) -> bool {
        self.since == number
    }

    /// Makes the client's request wait in line. Returns those that did so already: they have passed their deadlines, as
    /// a client has only one in-band request in progress, and will not be sent any more.
    pub(super) fn queue(&self, request: Request) -> Vec<Boxed> {
        let overdue = self.clear();
        // Refused only when all has ended; then its answer says so.
        drop(self.line.push(Box::new(request)));
        overdue
    }

    /// Makes its user pay for so many bytes of a request that is sent, by turns.
    pub(super) fn charge(&self, bytes: usize) {
        self.line.charge(u32::try_from(bytes / BYTES_PER_TURN).unwrap_or(u32::MAX));
    }

    /// Makes a request for a client that has left wait in line.
    pub(super) fn queue_own(&self, request: Request) {
        drop(self.line.push(Box::new(request)));
    }

    /// Takes back what waits in line.
    pub(super) fn clear(&self) -> Vec<Boxed> {
        self.line.clear().items
    }

    /// Counts one that has been let in before.
    pub(super) fn out_of_band_again(&self) -> OutOfBand {
        self.out_of_band.fetch_add(1, Ordering::Relaxed);
        OutOfBand(Arc::clone(&self.out_of_band))
    }

    /// Counts an out-of-band request until what is returned is dropped; `None` if there are too many.
    pub(super) fn out_of_band(&self) -> Option<OutOfBand> {
        let counted = OutOfBand(Arc::clone(&self.out_of_band));
        (self.out_of_band.fetch_add(1, Ordering::Relaxed) < MOST_OUT_OF_BAND).then_some(counted)
    }

    /// Whether an out-of-band request is unanswered.
    pub(super) fn has_out_of_band(&self) -> bool {
        self.out_of_band.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Notes that it has left. Returns whether that was known.
    pub(super) fn set_gone(&self) -> bool {
        self.gone.swap(true, Ordering::SeqCst)
    }
}

/// One out-of-band request that is unanswered.
pub(super) struct OutOfBand(Arc<AtomicUsize>);

impl Drop for OutOfBand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A [local](qmp_dispatch::Monitor::local) of every monitor of a mux: its client, which has left at the latest when this
/// is dropped.
pub(super) struct Place {
    pub(super) client: Arc<Client>,
    upstream: Arc<Upstream>,
}

impl Place {
    pub(super) fn new(client: &Arc<Client>, upstream: &Arc<Upstream>) -> Place {
        Place { client: Arc::clone(client), upstream: Arc::clone(upstream) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.upstream.leave(&self.client);
    }
}
