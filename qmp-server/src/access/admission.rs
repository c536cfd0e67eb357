// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that have connected and were not greeted yet: their handshake, and whether they are let in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::users::{Access, Decision, Groups};
use crate::observe::{Counters, Refusal};
use crate::transport::{Peer, Transport};

/// How long a client may take for what its transport wants before the greeting, and until it is known who it is.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Is called for each client that is not let in: who it is, if that is known, and why.
pub(crate) type RefusalHook = Box<dyn Fn(Option<&Peer>, Refusal, &str) + Send + Sync>;

/// Decides who is let in to one server.
pub(crate) struct Door {
    pub(crate) access: Access,
    /// Groups are looked up for every process, because roles depend on them.
    pub(crate) look_up_groups: bool,
    pub(crate) counters: Arc<Counters>,
    pub(crate) refusal_hook: Option<RefusalHook>,
}

/// What has become of a client that wants to be let in.
pub(crate) enum Verdict {
    Admitted(Peer),
    /// The transport must become ready first.
    NotReady,
    /// The groups of this user must be looked up first.
    LookUp(Peer, u32),
    Refused(Refused),
}

/// Why a client is not let in. The log, the counters and the hook are told by [`Door::tell`], without the leadership:
/// they call foreign code.
pub(crate) struct Refused {
    pub(crate) peer: Option<Peer>,
    pub(crate) why: Refusal,
    pub(crate) reason: String,
}

impl Door {
    /// Goes on with the handshake, and decides when it is over.
    pub(crate) fn judge(&self, transport: &dyn Transport) -> Verdict {
        let peer = match transport.handshake().and_then(|()| transport.peer()) {
            Ok(peer) => peer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Verdict::NotReady,
            Err(error) => return refused(transport.peer().ok(), Refusal::Handshake, error),
        };
        match (self.access.decide(&peer), &peer) {
            (Decision::ByGroups(uid), _) => Verdict::LookUp(peer, uid),
            (Decision::Yes, &Peer::Process { uid, .. }) if self.look_up_groups => {
                Verdict::LookUp(peer, uid)
            }
            (Decision::Yes, _) => Verdict::Admitted(peer),
            (Decision::No, _) => not_allowed(peer),
        }
    }

    /// Decides about a process whose groups have been looked up.
    pub(crate) fn judge_member(&self, peer: Peer, groups: &Groups) -> Verdict {
        match self.access.decide(&peer) {
            Decision::Yes => Verdict::Admitted(peer),
            Decision::ByGroups(_) if self.access.admits_member(&groups.0) => {
                Verdict::Admitted(peer)
            }
            Decision::ByGroups(_) | Decision::No => not_allowed(peer),
        }
    }

    /// Tells of a client that is not let in.
    pub(crate) fn tell(&self, Refused { peer, why, reason }: &Refused) {
        match peer {
            Some(peer) => tracing::warn!("client {peer} is refused: {reason}"),
            None => tracing::warn!("a client is refused: {reason}"),
        }
        self.counters.refused(*why).count();
        if let Some(hook) = &self.refusal_hook {
            hook(peer.as_ref(), *why, reason);
        }
    }
}

fn not_allowed(peer: Peer) -> Verdict {
    refused(Some(peer), Refusal::Access, "its user and groups are not allowed")
}

fn refused(peer: Option<Peer>, why: Refusal, reason: impl ToString) -> Verdict {
    Verdict::Refused(Refused { peer, why, reason: reason.to_string() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn door(access: Access) -> Door {
        let counters = Arc::new(Counters::new());
        Door { access, look_up_groups: false, counters, refusal_hook: None }
    }

    #[test]
    fn a_process_of_another_user_is_refused() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own = nix::unistd::Uid::effective().as_raw();
        let mut access = Access::default();
        access.allow_user(&(own + 1).to_string()).unwrap();
        let refused = door(access);
        let Verdict::Refused(why) = refused.judge(&ours) else { panic!("it is let in") };
        assert_eq!(why.why, Refusal::Access);
        refused.tell(&why);
        assert_eq!(refused.counters.refused(Refusal::Access).get(), 1);
        let verdict = door(Access::default()).judge(&ours);
        assert!(matches!(verdict, Verdict::Admitted(Peer::Process { uid, .. }) if uid == own));
    }

    #[test]
    fn groups_decide_when_they_have_been_looked_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut access = Access::default();
        access.allow_group("4712").unwrap();
        let door = door(access);
        let Verdict::LookUp(peer, _) = door.judge(&ours) else { panic!("it is decided") };
        let member = door.judge_member(peer.clone(), &Groups(vec![4711, 4712]));
        assert!(matches!(member, Verdict::Admitted(_)));
        assert!(matches!(door.judge_member(peer, &Groups(vec![4711])), Verdict::Refused(_)));
    }
}
