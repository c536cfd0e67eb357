// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients come and go: a listener accepts one, it is identified, greeted, served, and forgotten.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qmp_dispatch::Locals;
use qmp_queue::Mode;

use super::Core;
use crate::admission::{Candidate, Verdict};
use crate::control::Control;
use crate::descriptors::Descriptors;
use crate::entrance::{DoorRole, Entrance, GivenRole};
use crate::figures::Refusal;
use crate::outbox::Outbox;
use crate::poller::{Place, Token, Wanted};
use crate::session::Session;
use crate::{Limits, Listener, Peer, Transport};

/// A listener, and how its monitors are to be.
pub(crate) struct Listening {
    pub(crate) listener: Box<dyn Listener>,
    pub(crate) entrance: Entrance,
    cleaned_up: AtomicBool,
}

impl Listening {
    pub(crate) fn new(listener: Box<dyn Listener>, entrance: Entrance) -> Listening {
        Listening { listener, entrance, cleaned_up: AtomicBool::new(false) }
    }

    pub(super) fn clean_up(&self) {
        if !self.cleaned_up.swap(true, Ordering::AcqRel) {
            self.listener.clean_up();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.clean_up();
    }
}

impl Core {
    /// Accepts the clients that wait at the listener of this token.
    pub(super) fn accept(self: &Arc<Self>, token: Token) {
        let Some(index) = usize::try_from(token).ok() else { return };
        let Some(listening) = self.listening.get(index) else { return };
        loop {
            let entrance = Entrance { listener: Some(index), ..listening.entrance.clone() };
            let accepted =
                listening.listener.accept().and_then(|transport| self.connect(transport, entrance));
            match accepted {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Most likely there are no descriptors left, for now.
                    tracing::debug!(%error, "cannot accept a client");
                    self.figures().accept_failures.count();
                    self.accept_again.store(true, Ordering::Release);
                    return;
                }
            }
        }
    }

    /// Serves a client that has connected, once it is known who that is.
    pub(crate) fn connect(
        self: &Arc<Self>,
        transport: Box<dyn Transport>,
        entrance: Entrance,
    ) -> io::Result<()> {
        let candidate = Candidate::new(transport, entrance);
        match self.admission.judge(&candidate) {
            Verdict::Refused => Ok(()),
            Verdict::Admitted(peer) => self.greet(candidate, peer, None),
            Verdict::Undecided => {
                let token = self.last_token.fetch_add(1, Ordering::Relaxed);
                let wanted = Wanted::InputAndRoom;
                self.poller.add(candidate.transport.as_fd(), token, wanted)?;
                self.admission.put(token, candidate);
                // What was told before it could be found.
                self.readmit(token);
                Ok(())
            }
        }
    }

    /// Looks again at a client that has not been greeted yet.
    pub(super) fn readmit(self: &Arc<Self>, token: Token) {
        match self.admission.judge_again(token) {
            Some((candidate, Verdict::Admitted(peer))) => {
                let _ = self.greet(candidate, peer, Some(token));
            }
            Some((candidate, _)) => self.poller.remove(candidate.transport.as_fd()),
            None => {}
        }
    }

    /// Makes a client a session. It has a token if it is being polled already.
    fn greet(
        self: &Arc<Self>,
        candidate: Candidate,
        peer: Peer,
        polled: Option<Token>,
    ) -> io::Result<()> {
        let Candidate { transport, entrance: Entrance { layout, listener, role }, .. } = candidate;
        let share = match self.usage.admit(&peer.user()) {
            Ok(share) => share,
            Err(reason) => {
                if polled.is_some() {
                    self.poller.remove(transport.as_fd());
                }
                self.admission.refuse(&*transport, Some(&peer), Refusal::Limit, &reason);
                return Ok(());
            }
        };
        let transport: Arc<dyn Transport> = transport.into();
        let Limits { unread, .. } = self.options.limits;
        let token = polled.unwrap_or_else(|| self.last_token.fetch_add(1, Ordering::Relaxed));
        let (outlet, blocked) = (Arc::clone(&transport), Arc::clone(&self.blocked));
        let place = Place { poller: Arc::clone(&self.poller), token };
        let figures = Arc::clone(self.figures());
        let outbox = Outbox::new(outlet, place, layout, unread, share, blocked, figures);
        let outbox = Arc::new(outbox);
        let control = Control::new(Arc::downgrade(self));
        tracing::debug!(%peer, "client connected");
        self.figures().greeted.count();
        let mut locals = Locals::default().with(Descriptors::default()).with(control).with(peer);
        if let Some(role) = &role {
            locals = locals.with(role.clone());
        }
        let monitor = self.dispatcher.connect(outbox.clone(), layout, locals);
        let producer = self.queue.register(Mode::OneInProgress);
        let session = Session::new(token, listener, transport, outbox, monitor, producer, self);
        let session = Arc::new(session);
        self.sessions().insert(token, Arc::clone(&session));
        let added = session.be_polled(polled.is_some());
        let given = session.monitor.local().map(|GivenRole(given)| given);
        let missing = role.filter(|DoorRole(role)| given != Some(role));
        if let Some(DoorRole(role)) = &missing {
            tracing::error!(%role, "a client is refused: there is no such role");
        }
        if added.is_err() || missing.is_some() {
            self.close(&session);
        } else {
            // For what has come with the end of the handshake, of which nobody tells.
            self.read(&session);
        }
        added
    }

    /// Ends a connection and forgets it.
    pub(super) fn close(&self, session: &Arc<Session>) {
        self.poller.remove(session.transport.as_fd());
        if !session.close() {
            return;
        }
        let mut sessions = self.sessions();
        sessions.remove(&session.token);
        let nobody_left = sessions.is_empty();
        drop(sessions);
        if nobody_left {
            self.stop_if_nobody_can_come();
        }
    }

    /// The listeners that accept clients, by their index.
    pub(crate) fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Ends all connections of a listener at once: nothing more is sent to them.
    pub(crate) fn abort_connections(&self, listener: usize) {
        let sessions: Vec<_> = self.sessions().values().cloned().collect();
        for session in sessions.iter().filter(|session| session.listener == Some(listener)) {
            session.kill_output();
            self.close(session);
        }
    }
}
