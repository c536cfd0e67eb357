// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is notified of connections that are refused.

use crate::Peer;
use crate::figures::Refusal;

/// Notified of each connection that is refused, with its reason. Must not block.
pub(crate) struct Doorkeeper(Box<Notify>);

type Notify = dyn Fn(Option<&Peer>, Refusal, &str) + Send + Sync;

impl Doorkeeper {
    #[cfg(feature = "audit")]
    pub(crate) fn new(
        notify: impl Fn(Option<&Peer>, Refusal, &str) + Send + Sync + 'static,
    ) -> Doorkeeper {
        Doorkeeper(Box::new(notify))
    }

    pub(crate) fn refused(&self, peer: Option<&Peer>, why: Refusal, reason: &str) {
        (self.0)(peer, why, reason);
    }
}
