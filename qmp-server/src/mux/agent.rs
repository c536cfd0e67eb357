// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest agent as the upstream server: one command at a time, and no command before the agent has synchronised.
//!
//! ```text
//!                    the agent synchronises             a command is sent
//!   Synchronising ────────────────────────▶ In step ◀───────────────────▶ Executing
//!        ▲  ▲                                  │          it answers           │
//!        │  │    it sends what was not asked   │                               │ it does not answer in time,
//!        │  └──────────────────────────────────┘                               │ or with what is no answer
//!        └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The connection outlives the agent where a virtual machine is between the two: that the agent has gone, or another one has come,
//! is found out by its silence. It is a program of the guest, and may send anything: nothing that it sends makes more grow
//! than one message within the limits.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::client::{AgentReceived, AgentSession, AgentSessionState};
use qmp_dispatch::proto::{Error, Limits};
use qmp_dispatch::{Context, RegisterError, Registry, Responder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::upstream::Upstream;
use super::wire::{Wire, WireState};
use crate::engine::LinkInput;
use crate::transport::connect::stream::Stream;
use crate::transport::{Luggage, Packing, invalid};

/// How long a command may take of which nothing else is said.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// An agent that has not answered a synchronisation for so long does not answer: what waits is refused.
const SILENCE: Duration = Duration::from_secs(5);

/// What an agent may answer: what `guest-exec-status` has at most, and little more.
const LIMITS: Limits = Limits { token_bytes: 48 << 20, tokens: 1 << 20, nesting: 1024 };

/// After so many bytes that were not an answer to anything, the agent is not read from for a while. An answer that comes too
/// late has fewer.
const MOST_UNHEEDED: usize = 64 << 20;
const REST: Duration = Duration::from_secs(1);

/// What is told of an error that the agent has made, in characters: it may have chosen them.
const LONGEST_REASON: usize = 200;

/// A connection to a guest agent.
pub(super) struct AgentConnection {
    pub(super) wire: Wire,
    session: AgentSession,
    executing: Option<Executing>,
    /// When the agent was last asked to synchronise.
    asked: Instant,
    /// The session is to synchronise again, when the agent has taken what was sent before: until then, what comes is dropped.
    /// So however much comes, one synchronisation at a time waits for being sent.
    out_of_step: bool,
    /// The agent has not answered. It is asked again when somebody waits for it.
    given_up: bool,
    /// Bytes that have come since the agent has last done what it was asked.
    unheeded: usize,
    rests_until: Option<Instant>,
    /// The log has said that the agent sends what it should not, and it has answered nothing since.
    complained: bool,
    /// The log has said that the agent does not answer.
    told: bool,
}

/// The command that is executed.
struct Executing {
    number: u64,
    command: String,
    until: Instant,
    after: Duration,
}

/// An [`AgentConnection`] as data.
#[derive(Serialize, Deserialize)]
pub(super) struct AgentConnectionState {
    #[serde(flatten)]
    wire: WireState,
    session: AgentSessionState,
    /// Number and name of the command that is executed, how long it may take, and how much of that is left.
    executing: Option<(u64, String, Duration, Duration)>,
    out_of_step: bool,
}

impl AgentConnection {
    pub(super) fn new(stream: Stream, now: Instant) -> AgentConnection {
        let session = AgentSession::with_limits(super::random() as u32, LIMITS);
        AgentConnection::with(Wire::new(stream), session, now)
    }

    fn with(wire: Wire, session: AgentSession, now: Instant) -> AgentConnection {
        AgentConnection {
            wire,
            session,
            executing: None,
            asked: now,
            out_of_step: false,
            given_up: false,
            unheeded: 0,
            rests_until: None,
            complained: false,
            told: false,
        }
    }

    /// The connection as it is; `None` when it is lost, and with TLS.
    pub(super) fn state(
        &self,
        packing: &mut Packing,
        now: Instant,
    ) -> io::Result<Option<AgentConnectionState>> {
        let Some(wire) = self.wire.state(packing)? else { return Ok(None) };
        let executing = self.executing.as_ref().map(|executing| {
            let Executing { number, command, until, after } = executing;
            (*number, command.clone(), *after, until.saturating_duration_since(now))
        });
        let (session, out_of_step) = (self.session.state(), self.out_of_step);
        Ok(Some(AgentConnectionState { wire, session, executing, out_of_step }))
    }

    /// Goes on with a connection that another program had.
    pub(super) fn resume(
        state: AgentConnectionState,
        luggage: &mut Luggage,
        now: Instant,
    ) -> io::Result<AgentConnection> {
        let AgentConnectionState { wire, session, executing, out_of_step } = state;
        let session = AgentSession::resume(session, LIMITS);
        let session = session.ok_or_else(|| invalid("it is not sound"))?;
        let wire = Wire::resume(wire, luggage)?;
        let executing = executing.map(|(number, command, after, left)| {
            let until = now.checked_add(left).unwrap_or(now + ANSWER_WITHIN);
            Executing { number, command, until, after }
        });
        let connection = AgentConnection::with(wire, session, now);
        Ok(AgentConnection { executing, out_of_step, ..connection })
    }

    /// Whether there is more to receive now.
    pub(super) fn is_readable(&self) -> bool {
        self.wire.is_readable() && self.rests_until.is_none()
    }

    /// When it wants to be looked at again, whatever happens.
    pub(super) fn timer(&self) -> Option<Instant> {
        let silent_at = (self.synchronises() && !self.given_up).then(|| self.asked + SILENCE);
        let late_at = self.executing.as_ref().map(|executing| executing.until);
        silent_at.into_iter().chain(late_at).chain(self.rests_until).min()
    }

    /// Passes on what the agent sends, and sends what waits. `patience` is how long a command may take.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub(super) fn exchange(
        &mut self,
        upstream: &Upstream,
        input: LinkInput,
        now: Instant,
        patience: impl Fn(&str) -> Duration,
    ) -> io::Result<()> {
        if let Some(event) = input.event {
            self.wire.ready(event);
        }
        self.rests_until = self.rests_until.filter(|&until| now < until);
        self.receive(upstream, input.room, now)?;
        self.look_at_time(upstream, now);
        self.send(upstream, now, patience);
        match self.wire.write_closed && !self.is_readable() {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }

    /// Whether commands wait for the agent to synchronise.
    fn synchronises(&self) -> bool {
        self.out_of_step || self.session.is_synchronising()
    }

    fn receive(&mut self, upstream: &Upstream, room: usize, now: Instant) -> io::Result<()> {
        if room == 0 || !self.is_readable() {
            return Ok(());
        }
        let mut buffer = Vec::new();
        self.wire.receive(&mut buffer, room)?;
        self.unheeded += buffer.len();
        let mut input = &buffer[..];
        while !self.out_of_step
            && let Some(received) = self.session.read(&mut input)
        {
            match received {
                Ok(received) => self.received(received, upstream, now),
                Err(error) => self.fail(&error.to_string(), upstream, now),
            }
        }
        if self.unheeded > MOST_UNHEEDED {
            self.unheeded = 0;
            self.rests_until = Some(now + REST);
        }
        Ok(())
    }

    fn received(&mut self, received: AgentReceived, upstream: &Upstream, now: Instant) {
        let executing = self.executing.take();
        // Not by a synchronisation: the agent could have any number of those.
        if executing.is_some() {
            self.unheeded = 0;
        }
        match (received, executing) {
            (AgentReceived::Response(result), Some(Executing { number, .. })) => {
                self.complained = false;
                upstream.answered(number, result);
            }
            // It was not answered, because it has succeeded.
            (_, Some(Executing { number, .. })) => upstream.unanswered(number, None),
            _ => {}
        }
        // After an answer to a command that is followed by a synchronisation.
        (self.asked, self.given_up) = (now, false);
        if self.session.is_idle() {
            upstream.set_hangs(false);
            if std::mem::take(&mut self.told) {
                tracing::warn!("the guest agent answers again");
            }
        }
    }

    /// The agent has sent what is no answer.
    fn fail(&mut self, error: &str, upstream: &Upstream, now: Instant) {
        let reason: String =
            error.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!("{reason}");
        }
        if let Some(Executing { number, command, .. }) = self.executing.take() {
            let error = format!("The command {command} was sent and not answered: {reason}");
            upstream.unanswered(number, Some(Error::generic(error)));
        }
        self.lose_step(now);
    }

    /// What comes is an answer to nobody, until the agent has synchronised again.
    fn lose_step(&mut self, now: Instant) {
        self.out_of_step = true;
        (self.asked, self.given_up) = (now, false);
    }

    fn look_at_time(&mut self, upstream: &Upstream, now: Instant) {
        if let Some(Executing { number, command, after, .. }) =
            self.executing.take_if(|executing| executing.until <= now)
        {
            let seconds = after.as_secs_f64();
            tracing::warn!(command, seconds, "the guest agent has not answered a command in time");
            let error = format!(
                "The guest agent has not answered the command {command} within {seconds} seconds"
            );
            upstream.unanswered(number, Some(Error::generic(error)));
            self.lose_step(now);
        }
        if !self.synchronises() {
            return;
        }
        if !self.given_up && self.asked + SILENCE <= now {
            self.given_up = true;
            upstream.set_hangs(true);
            // A guest that has no agent, or is not there yet, is nothing to tell of before somebody wants it.
            if upstream.refuse_waiting("the guest agent does not answer") && !self.told {
                self.told = true;
                tracing::warn!(
                    "the guest agent does not answer; does it run, and is another client connected?"
                );
            }
        } else if self.given_up && upstream.is_waited_for() {
            self.lose_step(now);
        }
    }

    fn send(&mut self, upstream: &Upstream, now: Instant, patience: impl Fn(&str) -> Duration) {
        self.wire.flush();
        if self.out_of_step && self.wire.has_sent_all() {
            self.session.resynchronise();
            self.out_of_step = false;
        }
        self.transmit();
        if self.synchronises() {
            return;
        }
        upstream.answer_synchronisations();
        // What is there already is not an answer to what is sent now.
        if !self.session.is_idle() || self.wire.is_readable() || !self.wire.has_sent_all() {
            return;
        }
        if let Some((number, text)) = upstream.next(true, now) {
            let taken = self.session.request(&text.command, text.arguments.as_ref());
            debug_assert!(taken, "the session is idle");
            let after = patience(&text.command);
            let until = now.checked_add(after).unwrap_or(now + ANSWER_WITHIN);
            let command = upstream.name_in_flight(number);
            self.executing = Some(Executing { number, command, until, after });
            self.transmit();
        }
    }

    fn transmit(&mut self) {
        if let Some(bytes) = self.session.transmit() {
            self.wire.add(bytes, None);
        }
        self.wire.flush();
    }
}

#[derive(Deserialize, JsonSchema)]
struct Synchronisation {
    id: i64,
}

/// Registers what the mux answers itself.
pub(super) fn register(
    registry: &mut Registry,
    upstream: &Arc<Upstream>,
) -> Result<(), RegisterError> {
    let synchronise = |upstream: &Arc<Upstream>| {
        let upstream = Arc::clone(upstream);
        move |context: &Context, arguments: Synchronisation, responder: Responder<i64>| {
            upstream.synchronise(context, arguments.id, responder);
        }
    };
    registry.deferred_command("guest-sync", synchronise(upstream))?;
    registry.deferred_command("guest-sync-delimited", synchronise(upstream))?.delimited();
    Ok(())
}

#[cfg(test)]
mod tests;
