// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doors of a server are opened and shut, as what it stands for comes and goes.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Loop, Source, TRY_AGAIN, Timer};
use crate::access::Origin;
use crate::engine::gate::Gate;
use crate::engine::hosted::{Hosted, Whom};
use crate::engine::work::Work;
use crate::io::{Interest, Token};
use crate::transport::Transport;

impl Loop {
    /// Opens or shuts the doors. Who has come in by doors that are shut is disconnected, unless that client gets notices.
    pub(super) fn set_gate(&mut self, server: Token, gate: Gate) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        if !tenant.is_running() || !tenant.hosted.gate.set(gate) {
            return;
        }
        let hosted = Arc::clone(&tenant.hosted);
        let listeners = tenant.listeners.clone();
        let early = match gate {
            Gate::Open | Gate::Shut => std::mem::take(&mut tenant.early),
            Gate::Waiting | Gate::Early => Vec::new(),
        };
        // First, so that nobody who is disconnected can come again.
        for listener in listeners {
            self.guard(listener, |this| this.set_door(listener));
        }
        match gate {
            Gate::Open => {
                for (transport, mut origin) in early {
                    hosted.gate.find(&mut origin);
                    self.arrive(&hosted, transport, origin);
                }
            }
            Gate::Shut => {
                self.end_uninformed_arrivals(server);
                self.disconnect(server, Whom::Uninformed);
                self.end_early(server, early);
                self.end_if_nobody_is_left(server);
            }
            Gate::Waiting | Gate::Early => {}
        }
    }

    /// Makes one door what it should be, and tries that again later if it cannot be opened.
    pub(super) fn set_door(&mut self, token: Token) {
        let Err(error) = self.move_door(token) else { return };
        let Some(Source::Listener(listener)) = self.sources.get_mut(token) else { return };
        if !listener.to_open {
            let (server, address) = (listener.server, listener.listening.listener.address());
            if let Some(Source::Server(tenant)) = self.sources.get_mut(server) {
                let span = &tenant.hosted.span;
                span.in_scope(|| {
                    tracing::error!(%address, %error, "cannot listen; this is tried again");
                });
            }
        }
        let Some(Source::Listener(listener)) = self.sources.get_mut(token) else { return };
        (listener.to_open, listener.later) = (true, true);
        self.timers.set(Instant::now() + TRY_AGAIN, Timer::Again(token));
    }

    /// Makes a door what it should be. An error says that it cannot be opened.
    pub(super) fn move_door(&mut self, token: Token) -> io::Result<()> {
        let Some(Source::Listener(listener)) = self.sources.get_mut(token) else { return Ok(()) };
        let server = listener.server;
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return Ok(()) };
        let hosted = Arc::clone(&tenant.hosted);
        let Some(Source::Listener(listener)) = self.sources.get_mut(token) else { return Ok(()) };
        let door = hosted.gate.find(&mut listener.listening.origin);
        // By the descriptor that it has now.
        self.poll.deregister(listener.listening.listener.as_fd());
        match door {
            Gate::Open | Gate::Waiting => {
                listener.listening.open()?;
                listener.to_open = false;
            }
            Gate::Early => {}
            Gate::Shut => {
                listener.to_open = false;
                if let Err(error) = listener.listening.shut()
                    && error.kind() != io::ErrorKind::Unsupported
                {
                    let address = listener.listening.listener.address();
                    hosted.span.in_scope(|| {
                        tracing::warn!(%address, %error, "clients cannot be refused, and are disconnected");
                    });
                }
            }
        }
        match door {
            // Those who can be accepted though the door is shut are disconnected.
            Gate::Open | Gate::Shut => {
                // An embedder may have left it blocking, and then accepting would hold up everybody.
                rustix::io::ioctl_fionbio(listener.listening.listener.as_fd(), true)?;
                let fd = listener.listening.listener.as_fd();
                self.poll.register(fd, token, Interest::Readable)
            }
            Gate::Waiting | Gate::Early => Ok(()),
        }
    }

    /// A connection comes that may have to wait until the doors are opened.
    pub(super) fn come_early(
        &mut self,
        hosted: Arc<Hosted>,
        transport: Box<dyn Transport>,
        mut origin: Origin,
    ) {
        let gate = hosted.gate.find(&mut origin);
        let tenant =
            hosted.registration.token().and_then(|token| match self.sources.get_mut(token) {
                Some(Source::Server(tenant)) if tenant.is_running() => Some(tenant),
                _ => None,
            });
        match (gate, tenant) {
            (Gate::Waiting | Gate::Early, Some(tenant)) => tenant.early.push((transport, origin)),
            (Gate::Open, Some(_)) => self.arrive(&hosted, transport, origin),
            _ => {
                let listener = origin.listener;
                self.work.push_back(Work::End { server: hosted, transport, listener });
            }
        }
    }

    /// Ends connections that have waited for the doors to be opened.
    pub(super) fn end_early(&mut self, server: Token, early: Vec<(Box<dyn Transport>, Origin)>) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        for (transport, Origin { listener, .. }) in early {
            let server = Arc::clone(&tenant.hosted);
            self.work.push_back(Work::End { server, transport, listener });
        }
    }

    /// Ends the connections of those who are not identified yet and have come in by doors that are shut.
    fn end_uninformed_arrivals(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        let arrivals: Vec<Token> = tenant.arrivals.values().copied().collect();
        for token in arrivals {
            if let Some(Source::Arrival(arrival)) = self.sources.get_mut(token)
                && !arrival.has_notices()
            {
                self.end_arrival(token);
            }
        }
    }
}
