// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `serve` and `mux` have in common: who is served where, and what is written down about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use qmp_dispatch::Registry;
use qmp_server::{Audit, Metrics, MetricsEndpoint, Server, TracePoints};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use crate::config::Sourced;
use crate::log::{self, Guard, LogFormat};
use crate::options::ServerOptions;
use crate::role::{Pattern, roles};
use crate::{Failure, complain};

/// Logs until the guard is dropped. The trace points that were asked for are enabled.
pub(crate) fn start_log(
    options: &ServerOptions,
    trace_points: &Arc<TracePoints>,
) -> Result<Guard, Failure> {
    options.enable_trace_points(trace_points);
    let filter = options.log_filter.clone().unwrap_or_default();
    log::start(options.log.unwrap_or_default(), filter, Arc::clone(trace_points))
        .map_err(Failure::usage)
}

pub(crate) fn set_deadlines(registry: &mut Registry, options: &ServerOptions) {
    for deadline in &options.deadline {
        match &deadline.command {
            Some(command) => registry.set_deadline(command, deadline.after),
            None => registry.set_default_deadline(deadline.after),
        }
    }
}

/// Opens the audit, if there is to be one. Comes before everything else that intercepts.
pub(crate) fn start_audit(
    registry: &mut Registry,
    options: &ServerOptions,
) -> Result<Option<Arc<Audit>>, Failure> {
    let Some(sourced) = &options.audit else { return Ok(None) };
    let mut audit = Audit::open(&sourced.value).map_err(|error| blame_audit(sourced, &error))?;
    for Pattern(pattern) in &options.audit_secret {
        audit.hide(pattern).map_err(Failure::usage)?;
    }
    audit.register(registry);
    Ok(Some(Arc::new(audit)))
}

fn blame_audit(sourced: &Sourced<PathBuf>, error: &io::Error) -> Failure {
    sourced.blame("audit", format_args!("{}: {error}", sourced.value.display()))
}

/// Waits for what is still to be written down.
pub(crate) fn finish(audit: Option<&Audit>) {
    audit.into_iter().for_each(Audit::finish);
}

/// Waits for a signal that ends the server. SIGHUP does not: it says that files have been moved away.
pub(crate) fn wait_for_end(signals: &mut Signals, audit: Option<&Audit>) {
    for signal in signals.forever() {
        match (signal, audit) {
            (SIGHUP, Some(audit)) => audit.reopen(),
            (SIGHUP, None) => tracing::info!("SIGHUP: there is no audit to be opened anew"),
            _ => return,
        }
    }
}

/// Gives clients their roles, if any were spoken of.
pub(crate) fn set_roles(registry: &mut Registry, options: &ServerOptions) -> Result<(), Failure> {
    if let Some(roles) = roles(options)? {
        roles.register(registry);
    }
    Ok(())
}

/// Lets as many clients come as the system allows: at first it is fewer, for the sake of programs that use `select`.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of descriptors cannot be raised");
    }
}

/// Lets in who may connect, for as much as they may take. Others are told of in the audit.
pub(crate) fn allow(
    server: Server,
    options: &ServerOptions,
    audit: Option<&Audit>,
) -> Result<Server, Failure> {
    raise_descriptor_limit();
    let access = options.access().map_err(Failure::usage)?;
    let server = server.access(access).limits(options.limits());
    let server = match roles(options)? {
        Some(roles) if roles.depend_on_groups() => server.look_up_groups(),
        _ => server,
    };
    Ok(match audit {
        Some(audit) => server.audit(audit),
        None => server,
    })
}

/// Says what would fail of what can be tried without anybody noticing.
pub(crate) fn check(options: &ServerOptions) -> Result<(), Failure> {
    roles(options)?;
    if let Some(sourced) = &options.audit {
        Audit::verify(&sourced.value).map_err(|error| blame_audit(sourced, &error))?;
    }
    for sourced in &options.listen {
        let listen = options.complete(&sourced.value);
        listen.verify().map_err(|error| sourced.blame("listen", error))?;
    }
    if let Some(sourced) = &options.metrics {
        let listen = options.complete(&sourced.value);
        Metrics::verify(&listen).map_err(|error| sourced.blame("metrics", error))?;
    }
    Ok(())
}

/// Serves metrics until what is returned is dropped, if anybody wants them.
pub(crate) fn serve_metrics(
    metrics: &Metrics,
    options: &ServerOptions,
) -> Result<Option<MetricsEndpoint>, Failure> {
    let Some(sourced) = &options.metrics else { return Ok(None) };
    let listen = options.complete(&sourced.value);
    metrics.serve(&listen).map(Some).map_err(|error| sourced.blame("metrics", error))
}

/// Listens wherever it is said.
pub(crate) fn listen(mut server: Server, options: &ServerOptions) -> Result<Server, Failure> {
    for sourced in &options.listen {
        let listen = options.complete(&sourced.value);
        server = server.listen(&listen).map_err(|error| sourced.blame("listen", error))?;
    }
    Ok(server)
}

/// Says where the server listens, and where it serves metrics.
pub(crate) fn announce(
    server: &Server,
    metrics: Option<&MetricsEndpoint>,
    options: &ServerOptions,
) {
    let metrics = metrics.map(|endpoint| ("metrics", endpoint.address().clone()));
    for (what, address) in server.addresses().map(|address| ("listening", address)).chain(metrics) {
        match options.log.unwrap_or_default() {
            LogFormat::Text => complain(&format_args!("qmp-server: {what} at {address}")),
            LogFormat::Json => tracing::info!(%address, "{what}"),
        }
    }
}
