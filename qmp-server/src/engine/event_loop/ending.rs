// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a server, in order: nobody new finds it, what is executed is answered, what waits is refused, everybody
//! gets what is left for them. Each is a stage with a timer; nothing waits here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::servers::ServerStage;
use super::{Loop, Source, Timer};
use crate::engine::hosted::Whom;
use crate::engine::work::Work;
use crate::io::Token;
use crate::session::Next;

/// How long clients may take to read what is left for them.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

impl Loop {
    /// The server has been shut down, or what it executed then has been answered.
    pub(super) fn stop(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        if tenant.stage == ServerStage::Running {
            tenant.stage = ServerStage::Answering;
            let at = Instant::now().checked_add(tenant.hosted.options.shutdown_deadline);
            let listeners = std::mem::take(&mut tenant.listeners);
            let arrivals = std::mem::take(&mut tenant.arrivals);
            let early = std::mem::take(&mut tenant.early);
            let sessions: Vec<Token> = tenant.sessions.iter().copied().collect();
            if let Some(at) = at {
                self.timers.set(at, Timer::Answers(server));
            }
            for token in sessions {
                if let Some(Source::Session(served)) = self.sources.get_mut(token) {
                    served.session.halt();
                }
            }
            listeners.into_iter().for_each(|listener| self.end_listener(listener));
            arrivals.into_values().for_each(|arrival| self.end_arrival(arrival));
            self.end_early(server, early);
        }
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        if tenant.hosted.executing() == 0 {
            self.refuse_waiting(server);
        }
    }

    /// Answers what waits with an error.
    pub(super) fn refuse_waiting(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        if tenant.stage != ServerStage::Answering {
            return;
        }
        tenant.stage = ServerStage::Refusing;
        let hosted = Arc::clone(&tenant.hosted);
        let sessions: Vec<Token> = tenant.sessions.iter().copied().collect();
        let mut requests = Vec::new();
        for token in sessions {
            let Some(Source::Session(served)) = self.sources.get_mut(token) else { continue };
            let owed = served.session.unanswered();
            let waiting = served.session.refuse();
            let client = served.session.client();
            // Nothing may overtake an answer that is still owed.
            if owed > waiting.len() || hosted.was_ended_by(client) {
                self.work.push_back(Work::Drop(Box::new(waiting)));
            } else {
                requests.push((Arc::clone(client), waiting));
            }
        }
        self.work.push_back(Work::AnswerEnding { server, requests });
    }

    /// Sends clients what is left for them.
    pub(super) fn flush_ending(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        tenant.stage = ServerStage::Flushing;
        let sessions: Vec<Token> = tenant.sessions.iter().copied().collect();
        sessions.into_iter().for_each(|token| self.flush(token));
        self.end_if_nobody_is_left(server);
    }

    /// Disconnects clients of a server when they have what is left for them.
    pub(super) fn disconnect(&mut self, server: Token, whom: Whom) {
        let Some(Source::Server(tenant)) = self.sources.get(server) else { return };
        let all = || tenant.sessions.iter().copied();
        let sessions: Vec<Token> = match &whom {
            Whom::All => all().collect(),
            Whom::Uninformed => all().filter(|&token| !self.has_notices(token)).collect(),
            Whom::These(clients) => {
                clients.iter().filter_map(|client| client.registration.token()).collect()
            }
        };
        sessions.into_iter().for_each(|session| self.disconnect_session(session));
    }

    fn has_notices(&self, session: Token) -> bool {
        match self.sources.get(session) {
            Some(Source::Session(served)) => served.session.client().has_notices(),
            _ => false,
        }
    }

    /// Disconnects a client when it has what is left for it.
    pub(super) fn disconnect_session(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        let waiting = served.session.refuse();
        self.work.push_back(Work::Drop(Box::new(waiting)));
        self.flush(token);
    }

    /// Closes a session that drains, at once or when its client has read what is left for it.
    fn flush(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if served.session.drain() == Next::Close {
            return self.close(token);
        }
        if served.drained.is_none() {
            let key = self.timers.set(Instant::now() + FLUSH_DEADLINE, Timer::Drained(token));
            served.drained = Some(key);
        }
    }

    /// Goes on with the end of a server when its last client has left, or begins with it if nobody can come any more.
    pub(super) fn end_if_nobody_is_left(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        if !tenant.sessions.is_empty() {
            return;
        }
        match tenant.stage {
            ServerStage::Running => {
                let nobody_comes = tenant.listeners.is_empty()
                    && tenant.arrivals.is_empty()
                    && tenant.early.is_empty()
                    && tenant.connecting == 0;
                if nobody_comes && !tenant.hosted.options.stay {
                    tenant.hosted.stop();
                }
            }
            // Foreign code may still be told of the last ones that have left.
            ServerStage::Flushing if tenant.leaving == 0 => self.remove_server(server),
            ServerStage::Flushing | ServerStage::Answering | ServerStage::Refusing => {}
        }
    }
}
