// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way of requests through the loop: from a session into the queue of its server, and out of there in its turn.

use std::sync::Arc;
use std::time::Instant;

use super::servers::ServerStage;
use super::sessions::PATIENCE;
use super::{COMMANDS_PER_PASS, Loop, Source, TIME_OF_COMMANDS, Timer};
use crate::engine::work::Work;
use crate::io::{Event, Interest, Token};
use crate::session::{Effects, Next, Run, Written};

impl Loop {
    /// Something has come from a client, or there is room for output.
    pub(super) fn session_event(&mut self, event: Event) {
        let token = event.token;
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if served.blocked && event.writable && served.session.write_more() == Written::All {
            served.blocked = false;
            if let Some(stalled) = served.stalled.take() {
                self.timers.cancel(stalled);
            }
            let _ = self.poll.reregister(served.session.fd(), token, Interest::Readable);
        }
        let effects = served.session.ready(event, &mut self.pass);
        self.effects(token, effects);
    }

    /// Lets a session read, because what was in its way may be gone.
    pub(super) fn read(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if let Some(later) = served.later.take() {
            self.timers.cancel(later);
        }
        let effects = served.session.read(&mut self.pass);
        self.effects(token, effects);
    }

    /// An out-of-band request of the session has been executed. What it sends next waits for its turn: the client may send
    /// such requests without end.
    pub(super) fn executed(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        let effects = served.session.executed();
        self.effects(token, effects);
    }

    /// Does what a session asks for.
    pub(super) fn effects(&mut self, token: Token, effects: Effects) {
        let Effects { next, run, queued } = effects;
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if let Some(run) = run {
            let client = Arc::clone(served.session.client());
            match run {
                Run::Execute(pending) => {
                    let server = Arc::clone(&served.hosted);
                    self.work.push_back(Work::ExecuteOutOfBand { server, client, pending });
                }
                Run::Read(large) => {
                    self.parsing += 1;
                    served.hosted.read(client, large);
                }
                Run::Discard(large, complete) => client.discard((large, complete)),
            }
        }
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if queued {
            if served.negotiation.is_none() && served.session.negotiates() {
                let key = self.timers.set(Instant::now() + PATIENCE, Timer::Negotiation(token));
                served.negotiation = Some(key);
            }
            let server = served.server;
            self.server_ready(server);
        }
        match next {
            Next::Wait => {}
            Next::Again => self.read_in_turn(token),
            Next::Later => self.read_later(token),
            Next::Close => self.close(token),
        }
    }

    fn read_in_turn(&mut self, token: Token) {
        let Some(Source::Session(served)) = self.sources.get_mut(token) else { return };
        if !std::mem::replace(&mut served.in_line, true) {
            self.again.push_back(token);
        }
    }

    /// Requests of a server can be executed, maybe.
    pub(super) fn server_ready(&mut self, server: Token) {
        let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { return };
        if tenant.hosted.embedder.is_some() {
            tenant.hosted.wake_embedder();
        } else if !tenant.is_ready {
            tenant.is_ready = true;
            self.ready.push_back(server);
        }
    }

    /// The next request to be executed: of the server that has waited longest for its turn.
    pub(super) fn next_command(&mut self) -> Option<Work> {
        let may_begin = |this: &Loop| match this.commands_left {
            0 => false,
            COMMANDS_PER_PASS => true,
            _ => this.pass.now < this.commands_until,
        };
        while may_begin(self)
            && let Some(server) = self.ready.pop_front()
        {
            let Some(Source::Server(tenant)) = self.sources.get_mut(server) else { continue };
            let popped = match tenant.stage {
                ServerStage::Running => tenant.hosted.next(),
                _ => None,
            };
            // If there is no more or the role is taken, whoever changes that makes the server ready again.
            tenant.is_ready = popped.as_ref().is_some_and(|popped| popped.more);
            let Some(popped) = popped else { continue };
            if popped.more {
                self.ready.push_back(server);
            }
            let hosted = Arc::clone(&tenant.hosted);
            if self.commands_left == COMMANDS_PER_PASS {
                // After all that has been read.
                self.look_at_clock();
                self.commands_until = self.pass.now + TIME_OF_COMMANDS;
            }
            self.commands_left -= 1;
            // Before the command runs: out-of-band requests may stand behind a full queue.
            if popped.resume.is_some()
                && let Some(session) = popped.item.client.registration.token()
            {
                self.guard(session, |this| this.step(session));
            }
            let slot = hosted.among_others(&popped);
            let execute = Work::Execute { server: hosted, popped, slot, at: self.pass.now };
            let Some(first) = self.work.pop_front() else { return Some(execute) };
            self.work.push_back(execute);
            return Some(first);
        }
        None
    }
}
