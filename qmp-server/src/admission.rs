// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that have connected and are not known well enough yet to be greeted.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::doorkeeper::Doorkeeper;
use crate::entrance::Entrance;
use crate::figures::{Figures, Refusal};
use crate::poller::Token;
use crate::{Access, Peer, Transport};

/// How long a client may take for what its transport wants of it first.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// How often it is looked for clients that take longer.
pub(crate) const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// A client that waits to be greeted.
pub(crate) struct Candidate {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) entrance: Entrance,
    deadline: Instant,
}

impl Candidate {
    pub(crate) fn new(transport: Box<dyn Transport>, entrance: Entrance) -> Candidate {
        Candidate { transport, entrance, deadline: Instant::now() + HANDSHAKE_DEADLINE }
    }
}

/// What has become of a candidate.
pub(crate) enum Verdict {
    Admitted(Peer),
    /// The transport must become ready first.
    Undecided,
    Refused,
}

pub(crate) struct Admission {
    access: Access,
    figures: Arc<Figures>,
    doorkeeper: Option<Doorkeeper>,
    waiting: Mutex<HashMap<Token, Candidate>>,
    /// How many wait, for a look without the lock.
    count: AtomicUsize,
}

impl Admission {
    pub(crate) fn new(
        access: Access,
        figures: Arc<Figures>,
        doorkeeper: Option<Doorkeeper>,
    ) -> Admission {
        let (waiting, count) = (Mutex::default(), AtomicUsize::new(0));
        Admission { access, figures, doorkeeper, waiting, count }
    }

    pub(crate) fn judge(&self, candidate: &Candidate) -> Verdict {
        let transport = &candidate.transport;
        let reason = match transport.handshake().and_then(|()| transport.peer()) {
            Ok(peer) if self.access.admits(&peer) => return Verdict::Admitted(peer),
            Ok(peer) => {
                let reason = "its user and groups are not allowed";
                self.refuse(&**transport, Some(&peer), Refusal::Access, reason);
                return Verdict::Refused;
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => error.to_string(),
            Err(_) if Instant::now() < candidate.deadline => return Verdict::Undecided,
            Err(_) => "the handshake takes too long".to_owned(),
        };
        let peer = transport.peer().ok();
        self.refuse(&**transport, peer.as_ref(), Refusal::Handshake, &reason);
        Verdict::Refused
    }

    /// Ends a connection, and tells of it.
    pub(crate) fn refuse(
        &self,
        transport: &dyn Transport,
        peer: Option<&Peer>,
        why: Refusal,
        reason: &str,
    ) {
        transport.shutdown();
        match peer {
            Some(peer) => tracing::warn!("client {peer} is refused: {reason}"),
            None => tracing::warn!("a client is refused: {reason}"),
        }
        self.figures.refused(why).count();
        if let Some(doorkeeper) = &self.doorkeeper {
            doorkeeper.refused(peer, why, reason);
        }
    }

    pub(crate) fn nobody_waits(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub(crate) fn put(&self, token: Token, candidate: Candidate) {
        let mut waiting = self.lock();
        waiting.insert(token, candidate);
        self.count.store(waiting.len(), Ordering::Release);
    }

    /// Judges one that waits, and hands it out when that is done.
    pub(crate) fn judge_again(&self, token: Token) -> Option<(Candidate, Verdict)> {
        // Locked all the time: else readiness that is told meanwhile would find nobody.
        let mut waiting = self.lock();
        let verdict = match self.judge(waiting.get(&token)?) {
            Verdict::Undecided => return None,
            verdict => verdict,
        };
        let candidate = waiting.remove(&token)?;
        self.count.store(waiting.len(), Ordering::Release);
        Some((candidate, verdict))
    }

    /// Those whose time is over.
    pub(crate) fn overdue(&self) -> Vec<Token> {
        let now = Instant::now();
        let waiting = self.lock();
        let overdue = waiting.iter().filter(|(_, candidate)| candidate.deadline <= now);
        overdue.map(|(&token, _)| token).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, Candidate>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_process_of_another_user_is_disconnected() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let own = nix::unistd::Uid::effective().as_raw();
        let mut access = Access::default();
        access.allow_user(&(own + 1).to_string()).unwrap();
        let candidate = Candidate::new(Box::new(ours), Entrance::default());
        let figures = Arc::new(Figures::new());
        let verdict = Admission::new(access, Arc::clone(&figures), None).judge(&candidate);
        assert!(matches!(verdict, Verdict::Refused));
        assert_eq!(figures.refused(Refusal::Access).get(), 1);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        let admitted = Admission::new(Access::default(), figures, None).judge(&candidate);
        assert!(matches!(admitted, Verdict::Admitted(Peer::Process { uid, .. }) if uid == own));
    }
}
