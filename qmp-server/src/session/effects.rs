// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a step of a session is given by the loop, and what it asks it to do.

use std::time::Instant;

use qmp_dispatch::Pending;

use super::input::{Complete, Large};

/// What the loop has for the steps of all its sessions.
pub(crate) struct Pass {
    /// What a session reads into. Nothing stays here when it has had its step.
    pub(crate) scratch: Box<[u8]>,
    /// When the loop last looked what time it is: after it has waited, and whenever something may have taken long since. So
    /// the clock is read less than once for each request.
    pub(crate) now: Instant,
}

/// Effects of one input to a session.
#[must_use = "what a session asks for is done by the loop"]
pub(crate) struct Effects {
    /// What is to be done with the session itself.
    pub(crate) next: Next,
    /// Something to be done without the leadership. The session reads on when it has been.
    pub(crate) run: Option<Run>,
    /// A request was queued.
    pub(crate) queued: bool,
}

/// What a session has done elsewhere.
pub(crate) enum Run {
    /// Execute an out-of-band request, until it [has been](super::Session::executed) answered: in QEMU, what the client
    /// sends after it waits, too.
    Execute(Pending),
    /// Read a large message, for [`Session::has_read`](super::Session::has_read): others would wait for it.
    Read(Box<Large>),
    /// Drop a large message that will not be executed.
    Discard(Box<Large>, Option<Complete>),
}

/// What is to be done with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait for the next input.
    Wait,
    /// Let it read again when others have had their turn.
    Again,
    /// Let it read again a little later: there is no room for descriptors now.
    Later,
    /// Close it.
    Close,
}

impl Effects {
    pub(super) fn next(next: Next) -> Effects {
        Effects { next, run: None, queued: false }
    }
}
