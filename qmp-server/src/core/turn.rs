// SPDX-License-Identifier: MIT OR Apache-2.0
//! The role of the dispatcher: who executes what is queued.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use qmp_queue::Popped;

use super::{Core, WORKS_FOR};
use crate::server::Discipline;
use crate::session::Job;

/// So many commands are executed before the clients are looked at again, so that whoever has just
/// sent one does not wait for all that others keep sending.
const COMMANDS_PER_ROUND: usize = 8;

impl Core {
    /// Executes what is queued, as long as no other thread is doing so, and until it is time to read
    /// from the others again.
    pub(super) fn dispatch(self: &Arc<Self>) {
        if self.embedder.is_none() {
            for _ in 0..COMMANDS_PER_ROUND {
                if !self.execute_next() {
                    return;
                }
            }
        }
    }

    /// Executes one request on the embedder's thread. Whether more can be executed.
    pub(crate) fn dispatch_one(self: &Arc<Self>) -> bool {
        if let Some(signal) = &self.embedder {
            // Before a look at the queue: what comes after that sets it again.
            signal.clear();
        }
        let executed = self.execute_next();
        // It may have been cleared when it had just been set.
        self.tell_embedder();
        executed && self.can_execute()
    }

    /// Executes one request, if no other thread is doing so. Whether it did.
    fn execute_next(self: &Arc<Self>) -> bool {
        if self.queue.is_idle() || self.is_stopping() {
            return false;
        }
        let Some(turn) = Turn::take(self) else { return false };
        let Some(popped) = self.queue.try_pop() else { return false };
        execute(self, popped, turn);
        true
    }

    /// Has another thread mind the time while this one is busy. What waits for it to pass may have come
    /// with the request, and be known to nobody else.
    fn hand_over_time(&self) {
        if self.negotiating.load(Ordering::SeqCst) > 0
            || !self.admission.nobody_waits()
            || self.accept_again.load(Ordering::Acquire)
            || self.dispatcher.timeout().is_some()
        {
            self.poller.wake();
        }
    }

    fn can_execute(&self) -> bool {
        !self.queue.is_idle() && !self.dispatching.load(Ordering::SeqCst) && !self.is_stopping()
    }

    /// Has a thread look at the queue, if something can be popped.
    pub(crate) fn tell_of_queue(&self) {
        if self.embedder.is_some() {
            return self.tell_embedder();
        }
        // The server's own threads look at the queue before they wait.
        let own_thread = ptr::eq(WORKS_FOR.get(), ptr::from_ref(self));
        if !own_thread && !self.queue.is_idle() {
            self.poller.wake();
        }
    }

    /// Has the embedder call, if something can be executed or the server is ending.
    pub(super) fn tell_embedder(&self) {
        if let Some(signal) = &self.embedder
            && (self.can_execute() || self.is_stopping())
        {
            signal.set();
        }
    }
}

/// Executes a request whose turn has come. In QEMU's discipline, `turn` ends when it has been
/// answered, else when its handler has returned.
fn execute(core: &Arc<Core>, popped: Popped<Job>, turn: Turn) {
    let Popped { item: Job { session, pending, queued }, resume, ticket, .. } = popped;
    let taken = core.figures().now();
    core.figures().waited.add(taken.saturating_sub(queued));
    session.taken(taken);
    session.dequeued();
    core.hand_over_time();
    // Before the command runs: out-of-band commands may be waiting behind a full queue.
    if resume.is_some() {
        session.resumed();
        core.read_on(&session);
    }
    let monitor = Arc::clone(&session.monitor);
    let had_oob = monitor.is_oob_enabled();
    let execution = Execution::begin(core, taken);
    match core.discipline() {
        Discipline::OneAtATime => {
            let done = move || {
                session.answered(execution, ticket, had_oob);
                drop(turn);
            };
            monitor.execute(pending, done);
        }
        Discipline::OnePerMonitor => {
            let core = Arc::clone(core);
            let done = move || {
                session.answered(execution, ticket, had_oob);
                // The next one of this monitor is no longer held back.
                core.tell_of_queue();
            };
            monitor.execute(pending, done);
            drop(turn);
        }
    }
}

/// The role of the dispatcher: whoever has it executes one in-band request, and has it until that
/// has been answered.
pub(crate) struct Turn {
    core: Arc<Core>,
}

impl Turn {
    /// `None` if somebody has it.
    fn take(core: &Arc<Core>) -> Option<Turn> {
        // Made only when the role was free: dropping it frees the role.
        let free = !core.dispatching.swap(true, Ordering::SeqCst);
        free.then(|| Turn { core: Arc::clone(core) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Not just a store: whoever failed to take the turn has queued something, which is seen below.
        self.core.dispatching.swap(false, Ordering::SeqCst);
        self.core.tell_of_queue();
    }
}

/// One in-band request that is being executed, until it has been answered.
pub(crate) struct Execution {
    core: Arc<Core>,
    /// When its turn came.
    taken: Duration,
}

impl Execution {
    pub(crate) fn begin(core: &Arc<Core>, taken: Duration) -> Execution {
        core.executing.fetch_add(1, Ordering::SeqCst);
        Execution { core: Arc::clone(core), taken }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.core.executing.fetch_sub(1, Ordering::SeqCst);
        let figures = self.core.figures();
        figures.executed.add(figures.now().saturating_sub(self.taken));
        if self.core.is_stopping() {
            self.core.tell_change();
        }
    }
}
