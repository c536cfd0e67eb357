// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many threads wait for clients. One is enough as long as requests keep coming and none of them
//! takes long: with two, a request would often be told to the one that has not answered the last, and
//! have the system switch between them. So the others stand by, and step in when that one is held up.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Core, lock};

/// Who has done nothing for so long is held up, or has nothing to do.
const HELD_UP: Duration = Duration::from_millis(4);

/// What the threads of a server know of each other.
#[derive(Default)]
pub(super) struct Standby {
    /// How many do not stand by.
    active: AtomicUsize,
    /// How often one of them has had something to do.
    rounds: AtomicU64,
}

/// What one of the threads knows of the others. It is active, but for when it [stands by](Core::stand_by).
pub(super) struct Watch<'c> {
    standby: &'c Standby,
    own_rounds: u64,
    /// Those of others when this thread last looked.
    others_rounds: u64,
}

impl Watch<'_> {
    pub(super) fn new(core: &Core) -> Watch<'_> {
        let standby = &core.standby;
        standby.active.fetch_add(1, Ordering::SeqCst);
        Watch { standby, own_rounds: 0, others_rounds: 0 }
    }

    /// Does what is waiting for clients.
    pub(super) fn wait<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        let waited = wait();
        self.standby.rounds.fetch_add(1, Ordering::Relaxed);
        self.own_rounds += 1;
        waited
    }

    /// Whether others have had something to do since this was last asked.
    fn others_get_on(&mut self) -> bool {
        let rounds = self.standby.rounds.load(Ordering::Relaxed);
        let others_rounds = rounds.wrapping_sub(self.own_rounds);
        std::mem::replace(&mut self.others_rounds, others_rounds) != others_rounds
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.standby.active.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Core {
    /// Returns when one more thread should wait for clients: because the others are held up, or have
    /// nothing to do, and whoever comes first is not to be left waiting by a command that blocks.
    pub(super) fn stand_by(&self, watch: &mut Watch<'_>) {
        if !watch.others_get_on() {
            return;
        }
        // Not all of them at a time.
        if self.standby.active.fetch_sub(1, Ordering::SeqCst) > 1 {
            let runs = |(): &mut ()| !self.is_stopping();
            loop {
                let waited = self.changed.wait_timeout_while(lock(&self.change), HELD_UP, runs);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                if self.is_stopping() || !watch.others_get_on() {
                    break;
                }
            }
        }
        self.standby.active.fetch_add(1, Ordering::SeqCst);
    }
}
