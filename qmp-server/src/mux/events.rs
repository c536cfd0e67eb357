// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients are told of the connection behind the mux.

use qmp_dispatch::proto::Version;
use qmp_dispatch::{EventType, RegisterError, Registry};
use schemars::JsonSchema;
use serde::Serialize;

pub(super) const UPSTREAM_CONNECTED: EventType<Connected> =
    EventType::new("__org.qmp-server_UPSTREAM_CONNECTED");

pub(super) const UPSTREAM_DISCONNECTED: EventType<Disconnected> =
    EventType::new("__org.qmp-server_UPSTREAM_DISCONNECTED");

/// There is a server again. It may be another one.
#[derive(Serialize, JsonSchema)]
pub(super) struct Connected {
    /// Its version, as people write it.
    version: String,
}

/// The server has gone.
#[derive(Serialize, JsonSchema)]
pub(super) struct Disconnected {
    /// What happened to the connection.
    pub(super) reason: String,
}

impl Connected {
    pub(super) fn to(version: &Version) -> Connected {
        Connected { version: version.to_string() }
    }
}

pub(super) fn register(registry: &mut Registry) -> Result<(), RegisterError> {
    registry.event(&UPSTREAM_CONNECTED)?;
    registry.event(&UPSTREAM_DISCONNECTED)?;
    Ok(())
}
