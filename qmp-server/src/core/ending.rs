// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a server, in order: what is being executed is answered, and everybody gets what is
//! left for them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Core, Listening, SCRATCH_SIZE, lock};
use crate::session::Session;

/// How long the clients of a server that ends may take to read what is left for them.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

impl Core {
    /// Makes the threads return, each when it has done what it is doing.
    pub(crate) fn stop(&self) {
        if let Some(monitor) = qmp_dispatch::current() {
            let _ = self.ended_by.set(monitor.id());
        }
        self.stopping.store(true, Ordering::SeqCst);
        self.tell_change();
        self.poller.stop();
        self.tell_embedder();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn tell_change(&self) {
        // Not between a look at what has changed and the wait that follows.
        drop(lock(&self.change));
        self.changed.notify_all();
    }

    /// Waits until somebody has [stopped](Core::stop) the server.
    pub(crate) fn wait_for_stop(&self) {
        let waited = self.changed.wait_while(lock(&self.change), |()| !self.is_stopping());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the commands that are being executed have been answered, or have had their time.
    pub(super) fn wait_for_answer(&self) {
        let at_most = self.shutdown_deadline();
        let executing = |(): &mut ()| self.executing.load(Ordering::SeqCst) > 0;
        let waited = self.changed.wait_timeout_while(lock(&self.change), at_most, executing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Stops when nobody is left, and nobody can come any more.
    pub(super) fn stop_if_nobody_can_come(&self) {
        if self.listening.is_empty() && !self.options.stay {
            self.stop();
        }
    }

    /// Lets no more clients find the server, answers what they wait for with an error, sends them
    /// what is left for them, for a while, and ends all connections.
    pub(crate) fn finish(&self) {
        // Not left to the end of `self`: a thread that hangs in a command keeps it.
        self.listening.iter().for_each(Listening::clean_up);
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        // Who has ended the server expects no more answers: in QEMU, what comes behind `quit` is ignored.
        let others = |session: &&Arc<Session>| Some(&session.monitor.id()) != self.ended_by.get();
        sessions.iter().filter(others).for_each(|session| session.refuse_waiting());
        self.disconnect(&sessions);
    }

    /// Ends all connections; others may come.
    pub(crate) fn disconnect_clients(&self) {
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        self.disconnect(&sessions);
    }

    /// Sends clients what is left for them, for a while, and ends their connections.
    fn disconnect(&self, sessions: &[Arc<Session>]) {
        let deadline = Instant::now() + FLUSH_DEADLINE;
        loop {
            // All of them at a time: who does not read must not take the time of who does.
            let unsent: Vec<_> = sessions.iter().filter(|session| !session.flush()).collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if unsent.is_empty() || left.is_zero() {
                break;
            }
            let mut fds: Vec<_> = unsent
                .iter()
                .map(|session| PollFd::from_borrowed_fd(session.transport.as_fd(), PollFlags::OUT))
                .collect();
            let timeout = Timespec::try_from(left).unwrap_or_default();
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let mut scratch = vec![0; SCRATCH_SIZE];
        for session in sessions {
            session.discard_input(&mut scratch);
            self.close(session);
        }
    }
}
