// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operators can know of the upstream server.

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::Shared;
#[cfg(feature = "metrics")]
use super::Speaks;
use super::request::Asker;
use super::upstream::Presence;
#[cfg(feature = "metrics")]
use crate::metrics::Exposition;
use crate::observe::milliseconds;

/// What the server behind a [`Mux`](crate::Mux) does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct UpstreamStatus {
    /// The [name](crate::Mux::named) of the machine, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Where it is.
    pub address: String,
    /// Whether there is a connection to it.
    pub connected: bool,
    /// For how many milliseconds there has been one, or none.
    pub since_ms: u64,
    /// If there is none, what has become of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The server's version, as people write it; that of the last one if there is no connection, and
    /// not there if there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it executes commands out-of-band.
    pub oob: bool,
    /// How often there was a connection again.
    pub reconnects: u64,
    /// How many requests wait for being sent.
    pub queued: u64,
    /// How many milliseconds ago the oldest command was sent that is unanswered; not there if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// Whether it is unanswered for so long that the server is taken to [hang](crate::Mux::hang_after). Of a [guest
    /// agent](crate::Mux::for_agent), whether it does not answer.
    #[serde(default)]
    pub hangs: bool,
    /// What it has been sent and has not answered, what was sent first before the others.
    pub in_flight: Vec<InFlightCommand>,
}

/// A command that the upstream server has not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct InFlightCommand {
    /// Its name.
    pub command: String,
    /// The monitor that waits for the answer; not there if its deadline has passed, or the command is
    /// the mux's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<u64>,
    /// How many milliseconds ago it was sent.
    pub sent_ms: u64,
}

pub(super) fn register(registry: &mut Registry, shared: &Arc<Shared>) -> Result<(), RegisterError> {
    registry
        .with(Arc::clone(shared))
        .command("__org.qmp-server_query-upstream", query_upstream)?
        .allow_oob()
        .allow_preconfig()
        .documented("What the server behind the mux does.");
    Ok(())
}

fn query_upstream(shared: &Shared, _: &Context) -> Result<UpstreamStatus, Error> {
    Ok(shared.status())
}

impl Shared {
    pub(super) fn status(&self) -> UpstreamStatus {
        let upstream = &self.upstream;
        let state = upstream.state();
        let queued = upstream.queued(&state) as u64;
        let (connected, oob, reason) = match &state.connection {
            Presence::Present { oob } => (true, *oob, None),
            Presence::Absent { why } => (false, false, Some(why.clone())),
        };
        let in_flight = state.in_flight.values().map(|in_flight| InFlightCommand {
            command: in_flight.command.clone(),
            monitor: in_flight.after.asker.as_ref().and_then(Asker::monitor).map(u64::from),
            sent_ms: milliseconds(in_flight.sent.elapsed()),
        });
        UpstreamStatus {
            machine: self.name.clone(),
            address: self.connect.address.to_string(),
            connected,
            since_ms: milliseconds(state.since.elapsed()),
            reason,
            version: state.version.clone(),
            oob,
            reconnects: upstream.connections.get().saturating_sub(1),
            queued,
            oldest_ms: state.oldest().map(|oldest| milliseconds(oldest.sent.elapsed())),
            hangs: state.hangs,
            in_flight: in_flight.collect(),
        }
    }
}

#[cfg(feature = "metrics")]
impl Shared {
    pub(super) fn tell(&self, exposition: &mut Exposition) {
        let upstream = &self.upstream;
        let state = upstream.state();
        let connected = matches!(state.connection, Presence::Present { .. });
        let (in_flight, queued) = (state.in_flight.len(), upstream.queued(&state));
        let oldest = state.oldest().map(|oldest| oldest.sent.elapsed()).unwrap_or_default();
        let hangs = state.hangs;
        drop(state);
        let (connected, hangs) = (u8::from(connected), u8::from(hangs));
        let reconnects = upstream.connections.get().saturating_sub(1);
        let oldest = oldest.as_secs_f64();
        if self.speaks == Speaks::Agent {
            let clients = self.server().map_or(0, |server| server.gauges().clients);
            exposition.gauge("agent_clients", "Clients of the guest agent.", clients);
            exposition.gauge(
                "agent_connected",
                "Whether there is a connection to the channel of the guest agent.",
                connected,
            );
            exposition.counter(
                "agent_reconnects",
                "How often there was a connection to the channel of the guest agent again.",
                reconnects,
            );
            exposition.gauge(
                "agent_executing_requests",
                "Requests that were sent to the guest agent and are not answered yet.",
                in_flight,
            );
            exposition.gauge(
                "agent_queued_requests",
                "Requests that wait for being sent to the guest agent.",
                queued,
            );
            exposition.gauge(
                "agent_oldest_request_seconds",
                "How long ago the oldest request was sent to the guest agent that is not answered yet.",
                oldest,
            );
            exposition.gauge("agent_hangs", "Whether the guest agent does not answer.", hangs);
            return;
        }
        exposition.gauge(
            "upstream_connected",
            "Whether there is a connection to the upstream server.",
            connected,
        );
        exposition.counter(
            "upstream_reconnects",
            "How often there was a connection again.",
            reconnects,
        );
        exposition.gauge(
            "upstream_executing_requests",
            "Requests that were sent to the upstream server and are not answered yet.",
            in_flight,
        );
        exposition.gauge(
            "upstream_queued_requests",
            "Requests that wait for being sent there.",
            queued,
        );
        exposition.gauge(
            "upstream_oldest_request_seconds",
            "How long ago the oldest request was sent there that is not answered yet.",
            oldest,
        );
        exposition.gauge(
            "upstream_hangs",
            "Whether that is so long that the upstream server hangs.",
            hangs,
        );
    }
}
