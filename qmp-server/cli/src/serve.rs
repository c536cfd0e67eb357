// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server serve`: the reference machine behind sockets.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use qmp_dispatch::proto::Version;
use qmp_dispatch::{Dispatcher, Registry};
use qmp_server::{
    Address, Listen, MachineOptions, SHUTDOWN, Server, Shutdown, ShutdownCause, TracePoints,
    register_machine, register_metrics, register_status, system_time, version,
};

use crate::arguments::ServeOptions;
use crate::clients::{Audits, Ending, Woken};
use crate::named::Named;
use crate::{Failure, addresses, clients};

/// Where to listen if nothing else is said.
const DEFAULT_SOCKET: &str = "qmp.sock";

pub(crate) fn serve(options: ServeOptions) -> Result<(), Failure> {
    let ServeOptions { config, server: mut options, machine } = options;
    options.serve = machine;
    let options = config.complete(options)?;
    addresses::check(&options)?;
    if config.check_config {
        return clients::check(&options);
    }
    let trace_points = Arc::new(TracePoints::default());
    clients::prepare()?;
    let _log = clients::start_log(&options, &trace_points)?;

    let mut registry = Registry::new();
    let mut audits = Audits::default();
    let audit = audits.start(&mut registry, &options, None)?;
    let mut machine = MachineOptions::default();
    machine.name.clone_from(&options.serve.name);
    machine.uuid = options.serve.uuid.clone().map(String::from);
    machine.paused = options.serve.paused.unwrap_or_default();
    machine.trace_points = trace_points;
    let dialect = options.serve.dialect.map(|Named(dialect)| dialect).unwrap_or_default();
    machine.dialect = dialect;
    register_machine(&mut registry, machine).map_err(Failure::usage)?;
    register_status(&mut registry).map_err(Failure::usage)?;
    register_metrics(&mut registry).map_err(Failure::usage)?;
    clients::set_roles(&mut registry, &options)?;
    clients::set_deadline_profile(&mut registry, &options);
    clients::set_deadlines(&mut registry, &options);
    let version = Version { qemu: dialect.version(), ..version() };
    let dispatcher = Dispatcher::new(registry, version, system_time);

    // Before there is a socket to remove.
    let mut ending = Ending::new()?;
    let server = Server::new(dispatcher.clone()).dialect(dialect);
    let server = clients::allow(server, &options, audit.as_ref())?;
    let server = clients::listen(server, &options)?;
    let metrics = clients::serve_metrics(|listen| server.metrics().serve(listen), &options)?;
    clients::announce(&server, None, &options);
    clients::announce_metrics(metrics.as_ref(), &options);
    let server = match options.listen.is_empty() {
        true => listen_here(server)?,
        false => server,
    };
    let running = ending.running();
    let server = server.on_end(move || drop(running)).spawn().map_err(Failure::usage)?;
    let woken = loop {
        match ending.wait(&[]) {
            Woken::HangUp => audits.reopen(),
            Woken::Upgrade => {
                tracing::warn!("SIGUSR2: only `mux` can be upgraded while it runs");
            }
            woken => break woken,
        }
    };
    if let Woken::Signal { .. } = woken {
        // The event is declared with the machine, and its data is text.
        let reason = ShutdownCause::HostSignal;
        let _ = dispatcher.emit(&SHUTDOWN, &Shutdown { guest: false, reason });
        server.control().shutdown();
    }
    server.wait();
    audits.finish();
    Ok(())
}

fn listen_here(server: Server) -> Result<Server, Failure> {
    let address = Address::Unix(Path::new(DEFAULT_SOCKET).to_owned());
    let server = server.listen(&Listen::new(address)).map_err(Failure::usage)?;
    let line = format!("Listening at unix:{DEFAULT_SOCKET}; try: {}", command_to_try());
    writeln!(io::stdout(), "{line}").map_err(Failure::usage)?;
    Ok(server)
}

/// A command that works in another shell in the same directory.
fn command_to_try() -> String {
    let program = std::env::current_exe()
        .map_or_else(|_| "qmp-server".to_owned(), |path| path.display().to_string());
    format!("{program} call unix:{DEFAULT_SOCKET} query-status")
}
