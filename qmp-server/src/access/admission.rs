// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that have connected and were not greeted yet: their handshake, and whether they are let in.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use super::users::{Access, Decision, Groups, groups_of};
use crate::observe::{Counters, Refusal};
use crate::transport::{Peer, Transport};

/// How long a client may take for what its transport wants before the greeting, and until it is known who it is.
pub(crate) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Refusals of one user that are logged in a [`WINDOW`], so that who knocks all the time hides no other in the log.
const MOST_LINES: u32 = 10;

const WINDOW: Duration = Duration::from_secs(60);

/// Users that are told apart like this in a window. When there are more, it begins anew.
const MOST_USERS: usize = 1024;

/// Is called for each client that is not let in: who it is, if that is known, and why.
pub(crate) type RefusalHook = Box<dyn Fn(Option<&Peer>, Refusal, &str) + Send + Sync>;

/// Decides who is let in to one server.
pub(crate) struct Admission {
    pub(crate) policy: RwLock<Policy>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) refusal_hook: Option<RefusalHook>,
    pub(crate) logged: Logged,
}

/// Who may connect. It may change while the server runs.
pub(crate) struct Policy {
    pub(crate) access: Access,
    /// Groups are looked up for every process, because roles depend on them.
    pub(crate) look_up_groups: bool,
}

/// How many refusals of each user were logged since when.
#[derive(Default)]
pub(crate) struct Logged(Mutex<(Option<Instant>, HashMap<String, u32>)>);

impl Logged {
    /// Counts one more of this user. Returns what its line in the log ends with, if it is to have one.
    pub(crate) fn line(&self, user: &str) -> Option<&'static str> {
        match self.count(user.to_owned(), Instant::now()) {
            ..MOST_LINES => Some(""),
            MOST_LINES => Some("; more are not logged for a while"),
            _ => None,
        }
    }

    /// How many there are now of this user.
    fn count(&self, user: String, now: Instant) -> u32 {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, users) = &mut *logged;
        let is_over = began.is_none_or(|began| now.duration_since(began) >= WINDOW);
        if is_over || users.len() >= MOST_USERS {
            *began = Some(now);
            users.clear();
        }
        let lines = users.entry(user).or_default();
        *lines = lines.saturating_add(1);
        *lines
    }
}

/// What has become of a client that wants to be let in.
pub(crate) enum Verdict {
    Admitted(Peer),
    /// The transport must become ready first.
    NotReady,
    /// The groups of this user must be looked up first.
    LookUp(Peer, u32),
    /// The client has left, and there is nobody to be let in.
    Gone,
    Refused(Refused),
}

/// Why a client is not let in. The log, the counters and the hook are told by [`Admission::tell`], without the leadership:
/// they call foreign code.
pub(crate) struct Refused {
    pub(crate) peer: Option<Peer>,
    pub(crate) why: Refusal,
    pub(crate) reason: String,
}

impl Admission {
    /// Goes on with the handshake, and decides when it is over.
    pub(crate) fn judge(&self, transport: &dyn Transport) -> Verdict {
        let peer = match transport.handshake().and_then(|()| transport.peer()) {
            Ok(peer) => peer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Verdict::NotReady,
            // So says TCP when it is asked for the peer of a connection that was reset.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Verdict::Gone,
            Err(error) => return refused(transport.peer().ok(), Refusal::Handshake, error),
        };
        let policy = self.policy();
        match (policy.access.decide(&peer), &peer) {
            (Decision::ByGroups(uid), _) => Verdict::LookUp(peer, uid),
            (Decision::Yes, &Peer::Process { uid, .. }) if policy.look_up_groups => {
                Verdict::LookUp(peer, uid)
            }
            (Decision::Yes, _) => Verdict::Admitted(peer),
            (Decision::No, _) => not_allowed(peer),
        }
    }

    /// Decides about a process whose groups have been looked up.
    pub(crate) fn judge_member(&self, peer: Peer, groups: &Groups) -> Verdict {
        let policy = self.policy();
        match policy.access.decide(&peer) {
            Decision::Yes => Verdict::Admitted(peer),
            Decision::ByGroups(_) if policy.access.admits_member(&groups.0) => {
                Verdict::Admitted(peer)
            }
            Decision::ByGroups(_) | Decision::No => not_allowed(peer),
        }
    }

    /// Whether a client that was let in would be let in now. Looks its groups up if that matters and they are not known, which
    /// may take long.
    pub(crate) fn still_admits(&self, peer: &Peer, groups: Option<&Groups>) -> bool {
        let policy = self.policy();
        match (policy.access.decide(peer), groups) {
            (Decision::Yes, _) => true,
            (Decision::No, _) => false,
            (Decision::ByGroups(_), Some(Groups(groups))) => policy.access.admits_member(groups),
            (Decision::ByGroups(uid), None) => policy.access.admits_member(&groups_of(uid)),
        }
    }

    pub(crate) fn set_policy(&self, policy: Policy) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn policy(&self) -> RwLockReadGuard<'_, Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a client that is not let in.
    pub(crate) fn tell(&self, Refused { peer, why, reason }: &Refused) {
        let user = peer.as_ref().map(Peer::user).unwrap_or_default();
        if let Some(last) = self.logged.line(&user) {
            match peer {
                Some(peer) => tracing::warn!("client {peer} is refused: {reason}{last}"),
                None => tracing::warn!("a client is refused: {reason}{last}"),
            }
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

    fn admission(access: Access) -> Admission {
        let counters = Arc::new(Counters::new());
        let logged = Logged::default();
        let policy = RwLock::new(Policy { access, look_up_groups: false });
        Admission { policy, counters, refusal_hook: None, logged }
    }

    #[test]
    fn one_user_that_is_refused_hides_no_other_in_the_log() {
        let logged = Logged::default();
        let now = Instant::now();
        for line in 1..=1000 {
            assert_eq!(logged.count("uid 1".to_owned(), now), line);
        }
        assert_eq!(logged.count("uid 2".to_owned(), now), 1);
        assert_eq!(logged.count("uid 1".to_owned(), now + WINDOW), 1, "a new window");
        for user in 0..10 * MOST_USERS {
            logged.count(user.to_string(), now + WINDOW);
            assert!(logged.0.lock().unwrap().1.len() <= MOST_USERS);
        }
    }

    #[test]
    fn a_client_that_has_left_is_not_refused() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (transport, _) = listener.accept().unwrap();
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        // The reset has come when this returns.
        let _ = std::io::Read::read(&mut &transport, &mut [0]);
        assert!(matches!(admission(Access::default()).judge(&transport), Verdict::Gone));
    }

    #[test]
    fn a_process_of_another_user_is_refused() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own = nix::unistd::Uid::effective().as_raw();
        let mut access = Access::default();
        access.allow_user(&(own + 1).to_string()).unwrap();
        let refused = admission(access);
        let Verdict::Refused(why) = refused.judge(&ours) else { panic!("it is let in") };
        assert_eq!(why.why, Refusal::Access);
        refused.tell(&why);
        assert_eq!(refused.counters.refused(Refusal::Access).get(), 1);
        let verdict = admission(Access::default()).judge(&ours);
        assert!(matches!(verdict, Verdict::Admitted(Peer::Process { uid, .. }) if uid == own));
    }

    #[test]
    fn groups_decide_when_they_have_been_looked_up() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut access = Access::default();
        access.allow_group("4712").unwrap();
        let admission = admission(access);
        let Verdict::LookUp(peer, _) = admission.judge(&ours) else { panic!("it is decided") };
        let member = admission.judge_member(peer.clone(), &Groups(vec![4711, 4712]));
        assert!(matches!(member, Verdict::Admitted(_)));
        assert!(matches!(admission.judge_member(peer, &Groups(vec![4711])), Verdict::Refused(_)));
    }
}
