// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operators are told of a server and its clients.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a server does, in whole. Figures are since it has begun, unless they say something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ServerStatus {
    /// The version of the server, as people write it.
    pub version: String,
    /// For how many milliseconds it has been there.
    pub uptime_ms: u64,
    /// How many clients are connected now.
    pub clients: u64,
    /// How many of them are suspended now.
    pub suspended: u64,
    /// How many in-band requests wait now.
    pub queued: u64,
    /// How many in-band requests are executed now.
    pub executing: u64,
    /// How many clients were greeted.
    pub greeted: u64,
    /// How many clients were not.
    pub refused: u64,
    /// How many in-band requests were read.
    pub in_band: u64,
    /// How many out-of-band requests were read.
    pub out_of_band: u64,
    /// How many requests were answered with an error.
    pub failed: u64,
    /// How many commands were not answered in time.
    pub deadlines_passed: u64,
    /// How many answers came after that, and were dropped.
    pub late_answers: u64,
    /// How many events were emitted.
    pub events: u64,
    /// How many of them a rate limit did not let through at once, or at all.
    pub events_held_back: u64,
    /// How often a client got an event.
    pub events_sent: u64,
    /// How often a client missed one, because it did not read.
    pub events_dropped: u64,
}

/// What one client does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct ClientStatus {
    /// The number of its monitor, as in the log.
    pub monitor: u64,
    /// Who it is, as far as the transport can tell.
    pub peer: String,
    /// The role that it has, if there are roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where it has connected; not there if it did not come through a listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// For how many milliseconds it has been connected.
    pub connected_ms: u64,
    /// Whether it has completed negotiation.
    pub negotiated: bool,
    /// Whether it has enabled out-of-band execution.
    pub oob: bool,
    /// Whether its monitor is suspended: no more of its requests are read.
    pub suspended: bool,
    /// How many in-band requests of it wait.
    pub queued: u64,
    /// What is executed for it in-band, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningCommand>,
    /// How many in-band requests of it have had their turn.
    pub in_band: u64,
    /// How many out-of-band requests it has sent.
    pub out_of_band: u64,
    /// How many bytes have been received from it.
    pub received_bytes: u64,
    /// How many bytes have been sent to it.
    pub sent_bytes: u64,
    /// How many bytes wait for being read by it.
    pub unread_bytes: u64,
    /// How many events it has missed, because it did not read.
    pub events_dropped: u64,
}

/// A command that has been begun and is not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct RunningCommand {
    /// Its name.
    pub command: String,
    /// For how many milliseconds it has been running.
    pub running_ms: u64,
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
