// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands for operators, named as the QMP specification wants those of downstream to be.

use std::time::Duration;

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Control;

/// Registers commands with which operators look into a [`Server`](crate::Server):
///
/// - `__org.qmp-server_query-server`: the [`ServerStatus`];
/// - `__org.qmp-server_query-clients`: the [`ClientStatus`] of each client;
/// - `__org.qmp-server_query-metrics`: the [`Metrics`](crate::Metrics), as text (feature `metrics`).
///
/// They can be executed out-of-band, so that a command that blocks is no obstacle. QEMU has no such
/// commands. Whoever may execute them sees all clients; [`Roles`](crate::Roles) say who may.
///
/// ```
/// use qmp_dispatch::Registry;
/// use qmp_server::register_status;
///
/// let mut registry = Registry::new();
/// register_status(&mut registry)?;
/// assert!(registry.find_command("__org.qmp-server_query-clients").is_some());
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
///
/// # Errors
///
/// [`RegisterError`] if the registry has commands of these names already.
pub fn register_status(registry: &mut Registry) -> Result<(), RegisterError> {
    registry
        .command("__org.qmp-server_query-server", query_server)?
        .allow_oob()
        .allow_preconfig()
        .documented("What the server does, in whole.");
    registry
        .command("__org.qmp-server_query-clients", query_clients)?
        .allow_oob()
        .allow_preconfig()
        .documented("Who is connected, and what each client does.");
    #[cfg(feature = "metrics")]
    crate::metrics::register(registry)?;
    Ok(())
}

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

fn query_server(context: &Context) -> Result<ServerStatus, Error> {
    control(context).and_then(Control::status).ok_or_else(no_server)
}

fn query_clients(context: &Context) -> Result<Vec<ClientStatus>, Error> {
    Ok(control(context).ok_or_else(no_server)?.clients())
}

pub(crate) fn control<'m>(context: &Context<'m>) -> Option<&'m Control> {
    context.monitor().local()
}

/// The monitor is not one of a server, or that has ended meanwhile.
pub(crate) fn no_server() -> Error {
    Error::generic("there is no server to tell of")
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
