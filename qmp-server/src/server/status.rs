// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands for operators, named as the QMP specification wants those of downstream to be.

use qmp_dispatch::proto::Error;
use qmp_dispatch::{Context, RegisterError, Registry};

use super::Control;
use crate::observe::{ClientStatus, ServerStatus};

/// Registers commands with which operators look into a [`Server`](crate::Server):
///
/// - `__org.qmp-server_query-server`: the [`ServerStatus`];
/// - `__org.qmp-server_query-clients`: the [`ClientStatus`] of each client.
///
/// They can be executed out-of-band, so that a command that blocks is no obstacle. QEMU has no such
/// commands. Whoever may execute them sees all clients; [`Roles`](crate::Roles) say who may.
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
    Ok(())
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
