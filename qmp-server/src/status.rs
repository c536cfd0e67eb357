// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands for operators, named as the QMP specification wants those of downstream to be.

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};
use schemars::JsonSchema;
use serde::Serialize;

use crate::Control;

/// Registers commands with which operators look into a [`Server`](crate::Server):
///
/// - `__org.qmp-server_query-metrics`: its [`Metrics`](crate::Metrics), as text.
///
/// They can be executed out-of-band, so that a command that blocks is no obstacle. QEMU has no such
/// commands.
///
/// ```
/// use qmp_dispatch::Registry;
/// use qmp_server::register_status;
///
/// let mut registry = Registry::new();
/// register_status(&mut registry)?;
/// assert!(registry.command_names().any(|name| name == "__org.qmp-server_query-metrics"));
/// # Ok::<(), qmp_dispatch::RegisterError>(())
/// ```
///
/// # Errors
///
/// [`RegisterError`] if the registry has commands of these names already.
pub fn register_status(registry: &mut Registry) -> Result<(), RegisterError> {
    registry
        .command("__org.qmp-server_query-metrics", query_metrics)?
        .allow_oob()
        .allow_preconfig()
        .documented("What the server does, in figures.");
    Ok(())
}

#[derive(Serialize, JsonSchema)]
struct MetricsInfo {
    /// In Prometheus' text format, version 0.0.4.
    text: String,
}

fn query_metrics(context: &Context) -> Result<MetricsInfo, Error> {
    let control = context.monitor().local::<Control>();
    let metrics = control.and_then(Control::metrics).ok_or_else(no_server)?;
    Ok(MetricsInfo { text: metrics.text() })
}

/// The monitor is not one of a server, or that has ended meanwhile.
fn no_server() -> Error {
    Error::generic("there is no server to tell of")
}
