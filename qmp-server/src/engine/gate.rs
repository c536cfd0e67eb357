// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether clients are let in to a server that stands for another one, at all of its doors but those with notices.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::access::Origin;

/// What becomes of clients that come to a server, unless they come in by a door with
/// [notices](crate::Listen::notices): there they are always let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mux"), allow(dead_code, reason = "other servers are open"))]
pub(crate) enum Gate {
    /// They are let in.
    Open,
    /// They wait until they are let in.
    Waiting,
    /// They are refused by the system. Where that is not possible they wait.
    Early,
    /// They are refused by the system. Where that is not possible they are disconnected.
    Shut,
}

/// The gate of one server. The loop changes them, any thread looks at them.
pub(crate) struct GateState(Mutex<Now>);

struct Now {
    gate: Gate,
    /// How often that has changed: a client that came in before belongs to what was there before.
    changes: u64,
}

impl GateState {
    pub(super) fn new(gate: Gate) -> GateState {
        GateState(Mutex::new(Now { gate, changes: 0 }))
    }

    /// What a client of this origin finds, which is noted in it.
    pub(super) fn find(&self, origin: &mut Origin) -> Gate {
        let now = self.lock();
        origin.opening = now.changes;
        if origin.notices { Gate::Open } else { now.gate }
    }

    /// Whether a client that has found it open is still to be served.
    pub(super) fn is_still_open(&self, origin: &Origin) -> bool {
        origin.notices || self.lock().changes == origin.opening
    }

    /// Returns `false` if nothing has changed.
    pub(super) fn set(&self, gate: Gate) -> bool {
        let mut now = self.lock();
        let changes = now.gate != gate;
        now.gate = gate;
        now.changes += u64::from(changes);
        changes
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
