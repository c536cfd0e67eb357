// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions: their inputs go in, and the effects are applied.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::servers::ServerStage;
use super::{Loop, Source, TRY_AGAIN, Timer};
use crate::access::{DoorRole, GivenRole};
use crate::engine::hosted::Hosted;
use crate::engine::timers::Key;
use crate::engine::work::Work;
use crate::io::{Interest, Token};
use crate::observe::CutOff;
use crate::session::{Complete, ConnectedClient, Large, Session};

/// How long negotiation waits for its turn while a command is executed. A client that comes to see what blocks would
/// wait for just that.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// A session, and what the loop keeps for it.
pub(super) struct SessionSlot {
    pub(super) session: Session,
    pub(super) hosted: Arc<Hosted>,
    pub(super) server: Token,
    /// Its client does not take all output: the transport is watched for room.
    pub(super) blocked: bool,
    /// Set exactly while `blocked`, if there is a limit.
    pub(super) stalled: Option<Key>,
    pub(super) negotiation: Option<Key>,
    /// It is in `Loop::again`, at most once.
    pub(super) in_line: bool,
    /// It reads again when this is due, because there was no room for descriptors.
    pub(super) later: Option<Key>,
    pub(super) drained: Option<Key>,
}

impl Loop {
    /// Takes in a client that was greeted.
    pub(super) fn add_session(&mut self, hosted: Arc<Hosted>, mut session: Session) {
        let token = hosted.registration.token();
        let tenant = token.and_then(|token| match self.sources.get_mut(token) {
            Some(Source::Server(tenant)) => Some((token, tenant)),
            _ => None,
        });
        let Some((server, tenant)) = tenant else {
            session.close(&mut self.pass.scratch);
            let remains = Box::new(session.into_remains());
            return self.work.push_back(Work::Forget { server: hosted, remains });
        };
        tenant.connecting = tenant.connecting.saturating_sub(1);
        let is_running = tenant.stage == ServerStage::Running;
        let client = Arc::clone(session.client());
        let served = SessionSlot {
            session,
            hosted,
            server,
            blocked: false,
            stalled: None,
            negotiation: None,
            later: None,
            in_line: false,
            drained: None,
        };
        let token = self.sources.insert(Source::Session(Box::new(served)));
        if let Some(Source::Server(tenant)) = self.sources.get_mut(server) {
            tenant.sessions.insert(token);
        }
        client.registration.set_token(token);
        let given = || client.monitor.local().and_then(GivenRole::name);
        let is_missing = |DoorRole(role): &&DoorRole| given().as_ref() != Some(role);
        let missing = client.origin.role.as_ref().filter(is_missing);
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if let Some(DoorRole(role)) = missing {
            let span = &served.hosted.span;
            span.in_scope(|| tracing::error!(%role, "a client is refused: there is no such role"));
        }
        let registered = self.poll.register(served.session.fd(), token, Interest::Readable);
        // Those that it has come in by may have been shut since.
        let may_stay = served.hosted.gate.is_still_open(&client.origin);
        if missing.is_some() || !is_running || !may_stay || registered.is_err() {
            return self.close(token);
        }
        // What was posted before it had a token.
        if client.outbox.blocked_since().is_some() {
            self.blocked(token);
        }
        // What came with the end of the handshake is not reported.
        self.guard(token, |this| this.read(token));
    }

    /// A client that was let in could not be greeted.
    pub(super) fn not_connected(&mut self, server: Token) {
        if let Some(Source::Server(tenant)) = self.sources.get_mut(server) {
            tenant.connecting = tenant.connecting.saturating_sub(1);
        }
        self.end_if_nobody_is_left(server);
    }

    pub(super) fn room(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        let effects = served.session.room(&mut self.pass);
        self.effects(token, effects);
    }

    pub(super) fn broken(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        let effects = served.session.broken(&mut self.pass);
        self.effects(token, effects);
    }

    /// The client gets nothing more, because it would miss events and not know of it.
    pub(super) fn overrun(&mut self, token: Token) {
        let reason = "it does not read, and too many events wait for it";
        self.cut_off(token, CutOff::Events, reason);
    }

    /// More of a large message of a client has been read.
    pub(super) fn has_read(
        &mut self,
        client: &ConnectedClient,
        large: Box<Large>,
        complete: Option<Complete>,
    ) {
        let token = client.registration.token();
        let session = token.and_then(|token| match self.sources.get_mut(token) {
            Some(Source::Session(served)) => Some((token, &mut served.session)),
            _ => None,
        });
        match session {
            Some((token, session)) => {
                let effects = session.has_read(large, complete, self.pass.now);
                self.effects(token, effects);
            }
            None => client.discard((large, complete)),
        }
    }

    pub(super) fn read_later(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if served.later.is_none() {
            served.later = Some(self.timers.set(Instant::now() + TRY_AGAIN, Timer::Again(token)));
        }
    }

    /// The client does not take all of its output.
    pub(super) fn blocked(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if std::mem::replace(&mut served.blocked, true) {
            return;
        }
        if let Some(stalled) = served.hosted.options.limits.stalled {
            served.stalled = Instant::now()
                .checked_add(stalled)
                .map(|at| self.timers.set(at, Timer::Stalled(token)));
        }
        // Reported at once, if there is room by now.
        let _ = self.poll.reregister(served.session.fd(), token, Interest::ReadableWritable);
    }

    /// Disconnects a client that has read nothing for too long.
    pub(super) fn look_for_stall(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        served.stalled = None;
        let Some(at_most) = served.hosted.options.limits.stalled else { return };
        let Some(since) = served.session.client().outbox.blocked_since() else { return };
        let at = since + at_most;
        if at > Instant::now() {
            served.stalled = Some(self.timers.set(at, Timer::Stalled(token)));
            return;
        }
        self.cut_off(token, CutOff::Stalled, &format!("it has not read for {at_most:?}"));
    }

    /// Lets a client complete negotiation out of its turn, if a command is in its way.
    pub(super) fn look_for_negotiation(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        served.negotiation = None;
        if !served.session.negotiates() {
            return;
        }
        if served.hosted.role.is_free() {
            let key = self.timers.set(Instant::now() + PATIENCE, Timer::Negotiation(token));
            served.negotiation = Some(key);
            return;
        }
        let (server, jobs) = (Arc::clone(&served.hosted), served.session.take_queued());
        self.work.push_back(Work::Negotiate { server, jobs });
    }

    /// Disconnects those clients of a server that take most, until the others do not take too much.
    pub(super) fn relieve(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        tenant.hosted.accounts.take_excess();
        let mut largest: Vec<(Reverse<usize>, Token)> = Vec::new();
        for client in tenant.hosted.list() {
            if client.ledger.is_exceeded()
                && let Some(token) = client.registration.token()
            {
                largest.push((Reverse(client.ledger.bytes()), token));
            }
        }
        largest.sort_unstable();
        for (Reverse(bytes), token) in largest {
            let Some(Source::Session(served)) = self.sources.get_mut(token) else { continue };
            if !served.session.client().ledger.is_exceeded() {
                continue;
            }
            let reason = format!("{bytes} bytes are kept for it, and too many in all");
            self.cut_off(token, CutOff::Bytes, &reason);
        }
    }

    /// What was left of a session has been dropped.
    pub(super) fn forgotten(&mut self, server: Token) {
        if let Some(Source::Server(tenant)) = self.sources.get_mut(server) {
            tenant.leaving -= 1;
        }
        self.end_if_nobody_is_left(server);
    }

    fn cut_off(&mut self, token: Token, why: CutOff, reason: &str) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        served.hosted.counters.cut_off(why).count();
        let monitor = served.session.client().monitor.id();
        let span = &served.hosted.span;
        span.in_scope(|| tracing::warn!(%monitor, "a client is disconnected: {reason}"));
        self.close(token);
    }

    /// Ends a connection and forgets it.
    pub(super) fn close(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.remove(token) else { return };
        let SessionSlot {
            mut session, hosted, server, stalled, negotiation, later, drained, ..
        } = *served;
        for timer in [stalled, negotiation, later, drained].into_iter().flatten() {
            self.timers.cancel(timer);
        }
        self.poll.deregister(session.fd());
        session.close(&mut self.pass.scratch);
        let remains = Box::new(session.into_remains());
        self.work.push_back(Work::Forget { server: hosted, remains });
        if let Some(Source::Server(tenant)) = self.sources.get_mut(server) {
            tenant.sessions.remove(&token);
            tenant.leaving += 1;
        }
        self.end_if_nobody_is_left(server);
    }
}
