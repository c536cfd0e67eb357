// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `serve` and `mux` have in common: who is served where, and what is written down about it.

use std::sync::Arc;

use qmp_dispatch::Registry;
use qmp_server::{Access, Server, TracePoints};
use tracing_appender::non_blocking::WorkerGuard;

use crate::log::{self, LogFormat};
use crate::options::ServerOptions;
use crate::{Failure, complain};

/// Logs until the guard is dropped.
pub(crate) fn start_log(
    options: &ServerOptions,
    trace_points: &Arc<TracePoints>,
) -> Result<WorkerGuard, Failure> {
    for pattern in &options.trace {
        if !trace_points.enable_matching(pattern) {
            return Err(Failure::usage(format_args!("no trace point is called '{pattern}'")));
        }
    }
    let filter = options.log_filter.clone().unwrap_or_default();
    Ok(log::start(options.log, filter, Arc::clone(trace_points)))
}

pub(crate) fn set_deadlines(registry: &mut Registry, options: &ServerOptions) {
    for deadline in &options.deadline {
        match &deadline.command {
            Some(command) => registry.set_deadline(command, deadline.after),
            None => registry.set_default_deadline(deadline.after),
        }
    }
}

/// Lets in who may connect.
pub(crate) fn allow(server: Server, options: &ServerOptions) -> Result<Server, Failure> {
    let mut access = Access::default();
    for user in &options.allow_user {
        access.allow_user(user).map_err(Failure::usage)?;
    }
    for group in &options.allow_group {
        access.allow_group(group).map_err(Failure::usage)?;
    }
    Ok(server.allow(access))
}

/// Listens wherever it is said, and says so.
pub(crate) fn listen(mut server: Server, options: &ServerOptions) -> Result<Server, Failure> {
    for listen in &options.listen {
        let mut listen = listen.clone();
        listen.insecure |= options.insecure;
        server = server.listen(&listen).map_err(Failure::usage)?;
    }
    for address in server.addresses() {
        match options.log {
            LogFormat::Text => complain(&format_args!("qmp-server: listening at {address}")),
            LogFormat::Json => tracing::info!(%address, "listening"),
        }
    }
    Ok(server)
}
