// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server mux`: one QMP server for many clients.

use std::io;
use std::sync::Arc;
use std::thread;

use qmp_dispatch::Dispatcher;
use qmp_server::{Audit, Discipline, Engine, Mux, Server, TracePoints, system_time, version};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::arguments::MuxOptions;
use crate::options::QemuDialect;
use crate::{Failure, addresses, clients};

pub(crate) fn mux(options: MuxOptions) -> Result<(), Failure> {
    let MuxOptions { config, server: mut options, upstream } = options;
    options.mux = upstream;
    let options = &config.complete(options)?;
    let Some(upstream) = &options.mux.upstream else {
        return Err(Failure::usage("mux needs --upstream"));
    };
    if options.listen.is_empty() {
        return Err(Failure::usage("mux needs --listen"));
    }
    let mux = upstream.value.verify().and_then(|()| Mux::new(upstream.value.address.clone()));
    let mux = Arc::new(mux.map_err(|error| upstream.blame("upstream", error))?);
    addresses::check(options)?;
    if config.check_config {
        return clients::check(options);
    }
    let _log = clients::start_log(options, &Arc::new(TracePoints::default()))?;

    let mut registry = mux.registry().map_err(Failure::usage)?;
    let audit = clients::start_audit(&mut registry, options)?;
    clients::set_deadlines(&mut registry, options);
    clients::set_roles(&mut registry, options)?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);

    // Before there is a socket to remove.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(Failure::usage)?;
    let server = Server::new(dispatcher.clone()).discipline(Discipline::OnePerMonitor);
    let server = match options.mux.dialect {
        Some(QemuDialect(dialect)) => server.dialect(dialect),
        None => server.dialect_of_greeting(),
    };
    let server = clients::allow(server, options, audit.as_deref())?;
    let server = clients::listen(server, options)?;
    let metrics = server.metrics();
    mux.report_to(&metrics);
    let metrics = clients::serve_metrics(&metrics, options)?;
    clients::announce(&server, metrics.as_ref(), options);
    let engine = Engine::new().map_err(Failure::usage)?;
    mux.start_on(&engine, dispatcher).map_err(Failure::usage)?;
    end_on_signals(signals, Arc::clone(&mux), audit.clone()).map_err(Failure::usage)?;
    // Who connects before that waits, as for QEMU while it has another client.
    if mux.wait_for_greeting() {
        let server = server.spawn_on(&engine).map_err(Failure::usage)?;
        mux.attach(server.control());
        server.wait();
    }
    clients::finish(audit.as_deref());
    Ok(())
}

fn end_on_signals(
    mut signals: Signals,
    mux: Arc<Mux>,
    audit: Option<Arc<Audit>>,
) -> io::Result<()> {
    let wait = move || {
        clients::wait_for_end(&mut signals, audit.as_deref());
        mux.shutdown();
    };
    thread::Builder::new().name("qmp-signals".into()).spawn(wait).map(drop)
}
