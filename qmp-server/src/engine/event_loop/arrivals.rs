// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients come: a listener accepts one, and it is identified before it is greeted.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::{Loop, Posted, Source, TRY_AGAIN, Timer};
use crate::access::{Groups, HANDSHAKE_DEADLINE, Origin, Refused, Verdict, groups_of};
use crate::engine::gate::Gate;
use crate::engine::hosted::Hosted;
use crate::engine::timers::Key;
use crate::engine::work::Work;
use crate::io::{Interest, Token, look_up_aside};
use crate::observe::Refusal;
use crate::transport::{Peer, Transport};

/// Clients that a listener accepts before others get their turn.
const ACCEPTS_PER_STEP: usize = 4;

/// How often the log tells of a lack of descriptors, at most.
const TELL_AGAIN: std::time::Duration = std::time::Duration::from_secs(60);

/// Look-ups of groups are one owner's: a slow user database holds up no other look-up.
const LOOK_UPS: u64 = 0;

/// A client that was not greeted yet.
pub(super) struct Arrival {
    pub(super) transport: Box<dyn Transport>,
    pub(super) origin: Origin,
    server: Token,
    pub(super) hosted: Arc<Hosted>,
    deadline: Key,
    /// Who it is, while its groups are looked up.
    peer: Option<Peer>,
}

impl Arrival {
    /// Whether it has come in by a door with notices.
    pub(super) fn has_notices(&self) -> bool {
        self.origin.notices
    }
}

impl Loop {
    /// Accepts clients that wait at a listener.
    pub(super) fn accept(&mut self, token: Token) {
        for _ in 0..ACCEPTS_PER_STEP {
            let Some(Source::Listener(listener)) = self.sources.get_mut(token) else { return };
            let server = listener.server;
            if listener.later || listener.in_line {
                return;
            }
            let place = listener.listening.origin.listener;
            let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
            let hosted = Arc::clone(&tenant.hosted);
            if let Some(why) = hosted.accounts.cannot_refuse(place) {
                let error = io::Error::new(io::ErrorKind::QuotaExceeded, why);
                return self.accept_later(token, server, &error);
            }
            let Some(Source::Listener(listener)) = self.sources.get_mut(token) else { return };
            let is_open = hosted.gate.find(&mut listener.listening.origin) == Gate::Open;
            match listener.listening.listener.accept() {
                Ok(transport) if is_open => {
                    let origin = listener.listening.origin.clone();
                    self.arrive(&hosted, transport, origin);
                }
                Ok(transport) => {
                    let (server, listener) = (hosted, place);
                    self.work.push_back(Work::End { server, transport, listener });
                }
                // It does not listen.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput && !is_open => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return self.accept_later(token, server, &error),
            }
        }
        if let Some(Source::Listener(listener)) = self.sources.get_mut(token) {
            listener.in_line = true;
            self.again.push_back(token);
        }
    }

    /// Most likely there are no descriptors left, for now.
    fn accept_later(&mut self, token: Token, server: Token, error: &io::Error) {
        if let Some(Source::Listener(listener)) = self.sources.get_mut(token) {
            listener.later = true;
            self.timers.set(Instant::now() + TRY_AGAIN, Timer::Again(token));
        }
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        tenant.hosted.counters.accept_failures.count();
        let now = Instant::now();
        if tenant.told_of_accept.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
            tenant.told_of_accept = Some(now);
            let span = &tenant.hosted.span;
            span.in_scope(|| {
                tracing::warn!(%error, "cannot accept clients, which wait until that is over");
            });
        }
    }

    /// Lets a client in, if it is known who that is and that it may come.
    pub(super) fn arrive(
        &mut self,
        hosted: &Arc<Hosted>,
        transport: Box<dyn Transport>,
        origin: Origin,
    ) {
        let hosted = Arc::clone(hosted);
        let token = hosted.registration.token().filter(|_| !hosted.is_stopping());
        let Some(server) = token.filter(|&token| self.sources.get_mut(token).is_some()) else {
            let listener = origin.listener;
            return self.work.push_back(Work::End { server: hosted, transport, listener });
        };
        // Its panic is not that of the listener it came from.
        let judged = catch_unwind(AssertUnwindSafe(|| hosted.admission.judge(&*transport)));
        let Ok(verdict) = judged else {
            tracing::error!("the code of a transport has panicked, and its connection is ended");
            let listener = origin.listener;
            return self.work.push_back(Work::End { server: hosted, transport, listener });
        };
        match verdict {
            Verdict::Admitted(peer) => self.admit(&hosted, server, transport, origin, peer, None),
            Verdict::Refused(refused) => {
                self.refuse(hosted, transport, origin.listener, refused);
            }
            Verdict::Gone => self.end_of_gone(hosted, transport, origin),
            verdict @ (Verdict::NotReady | Verdict::LookUp(..)) => {
                self.wait_for_arrival(server, hosted, transport, origin, verdict);
            }
        }
    }

    fn wait_for_arrival(
        &mut self,
        server: Token,
        hosted: Arc<Hosted>,
        transport: Box<dyn Transport>,
        origin: Origin,
        verdict: Verdict,
    ) {
        let at = Instant::now() + HANDSHAKE_DEADLINE;
        let limit = hosted.options.limits.handshakes;
        let arrival = Arrival {
            transport,
            origin,
            server,
            hosted,
            // Set below, when the token is known.
            deadline: (at, 0),
            peer: None,
        };
        let token = self.sources.insert(Source::Arrival(Box::new(arrival)));
        let deadline = self.timers.set(at, Timer::Handshake(token));
        if let Some(Source::Arrival(arrival)) = self.sources.get_mut(token) {
            arrival.deadline = deadline;
            let fd = arrival.transport.as_fd();
            if self.poll.register(fd, token, Interest::ReadableWritable).is_err() {
                return self.end_arrival(token);
            }
        }
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        tenant.arrivals.insert(deadline, token);
        if tenant.arrivals.len() > limit
            && let Some((_, oldest)) = tenant.arrivals.pop_first()
        {
            self.refuse_arrival(oldest, "too many clients are not identified yet");
        }
        match verdict {
            Verdict::LookUp(peer, uid) => self.look_up(token, peer, uid),
            // For what was reported before it was registered.
            _ => self.guard(token, |this| this.arrival_ready(token)),
        }
    }

    /// Goes on with a handshake.
    pub(super) fn arrival_ready(&mut self, token: Token) {
        let Some(Source::Arrival(arrival)) = self.sources.get_mut(token) else { return };
        if arrival.peer.is_some() {
            return;
        }
        match arrival.hosted.admission.judge(&*arrival.transport) {
            Verdict::NotReady => {}
            Verdict::LookUp(peer, uid) => self.look_up(token, peer, uid),
            verdict => self.decided(token, verdict, None),
        }
    }

    fn look_up(&mut self, token: Token, peer: Peer, uid: u32) {
        let Some(Source::Arrival(arrival)) = self.sources.get_mut(token) else { return };
        arrival.peer = Some(peer);
        let server = arrival.server;
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        if tenant.looking_up.contains(&uid) {
            return;
        }
        if tenant.looking_up.len() >= tenant.hosted.options.limits.handshakes {
            return self.refuse_arrival(token, "too many users are looked up already");
        }
        tenant.looking_up.insert(uid);
        let (posted, mailbox) = (Arc::clone(&self.posted), Arc::clone(&self.mailbox));
        look_up_aside(LOOK_UPS, move || {
            let found = Posted::LookedUp { server, uid, groups: Groups(groups_of(uid)) };
            posted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(found);
            mailbox.wake();
        });
    }

    /// The groups of a user are known, for all arrivals of that user.
    pub(super) fn looked_up(&mut self, server: Token, uid: u32, groups: &Groups) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        tenant.looking_up.remove(&uid);
        let arrivals: Vec<Token> = tenant.arrivals.values().copied().collect();
        for token in arrivals {
            let Some(Source::Arrival(arrival)) = self.sources.get_mut(token) else { continue };
            let is_of_user =
                |peer: &mut Peer| matches!(peer, Peer::Process { uid: of, .. } if *of == uid);
            let Some(peer) = arrival.peer.take_if(is_of_user) else { continue };
            let verdict = arrival.hosted.admission.judge_member(peer, groups);
            self.decided(token, verdict, Some(groups.clone()));
        }
    }

    fn decided(&mut self, token: Token, verdict: Verdict, groups: Option<Groups>) {
        let Some(arrival) = self.take_arrival(token) else { return };
        let Arrival { transport, origin, server, hosted, .. } = *arrival;
        match verdict {
            Verdict::Admitted(peer) => self.admit(&hosted, server, transport, origin, peer, groups),
            Verdict::Refused(refused) => {
                self.refuse(hosted, transport, origin.listener, refused);
            }
            Verdict::Gone => self.end_of_gone(hosted, transport, origin),
            Verdict::NotReady | Verdict::LookUp(..) => {}
        }
    }

    /// Ends the connection of a client that has left before it was known who it is.
    fn end_of_gone(
        &mut self,
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        Origin { listener, .. }: Origin,
    ) {
        tracing::debug!("a client has left before it was identified");
        self.work.push_back(Work::End { server, transport, listener });
    }

    fn admit(
        &mut self,
        hosted: &Arc<Hosted>,
        server: Token,
        transport: Box<dyn Transport>,
        origin: Origin,
        peer: Peer,
        groups: Option<Groups>,
    ) {
        let hosted = Arc::clone(hosted);
        match hosted.admit(peer) {
            Ok(admitted) => {
                if let Some(Source::Server(tenant)) = self.sources.get_mut(server) {
                    tenant.connecting += 1;
                }
                let server = hosted;
                self.work.push_back(Work::Connect { server, transport, origin, admitted, groups });
            }
            Err(refused) => self.refuse(hosted, transport, origin.listener, refused),
        }
    }

    fn refuse(
        &mut self,
        server: Arc<Hosted>,
        transport: Box<dyn Transport>,
        listener: Option<usize>,
        refused: Refused,
    ) {
        self.work.push_back(Work::Refuse { server, transport, listener, refused });
    }

    pub(super) fn handshake_overdue(&mut self, token: Token) {
        self.refuse_arrival(token, "the handshake takes too long");
    }

    fn refuse_arrival(&mut self, token: Token, reason: &str) {
        let Some(arrival) = self.take_arrival(token) else { return };
        let Arrival { transport, hosted, peer, origin, .. } = *arrival;
        let peer = peer.or_else(|| transport.peer().ok());
        let refused = Refused { peer, why: Refusal::Handshake, reason: reason.to_owned() };
        self.refuse(hosted, transport, origin.listener, refused);
    }

    pub(super) fn end_arrival(&mut self, token: Token) {
        if let Some(arrival) = self.take_arrival(token) {
            let Arrival { hosted: server, transport, origin, .. } = *arrival;
            let listener = origin.listener;
            self.work.push_back(Work::End { server, transport, listener });
        }
    }

    fn take_arrival(&mut self, token: Token) -> Option<Box<Arrival>> {
        let Some(Source::Arrival(arrival)) = self.sources.remove(token) else { return None };
        self.poll.deregister(arrival.transport.as_fd());
        self.timers.cancel(arrival.deadline);
        if let Some(Source::Server(tenant)) = self.sources.get_mut(arrival.server) {
            tenant.arrivals.remove(&arrival.deadline);
        }
        Some(arrival)
    }

    pub(super) fn end_listener(&mut self, token: Token) {
        let Some(Source::Listener(mut listener)) = self.sources.remove(token) else { return };
        self.poll.deregister(listener.listening.listener.as_fd());
        // At once: nobody is to find a server that ends.
        listener.listening.clean_up();
        if let Some(Source::Server(tenant)) = self.sources.get_mut(listener.server) {
            tenant.listeners.retain(|&listener| listener != token);
        }
        self.work.push_back(Work::EndListener(listener.listening));
    }
}
