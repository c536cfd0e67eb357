// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server serve`: the reference machine behind sockets.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use qmp_dispatch::{Dispatcher, Registry};
use qmp_server::{
    Access, Address, Control, Listen, MachineOptions, Server, ShutdownCause, TracePoints,
    register_machine, shut_down, system_time, version,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::arguments::ServeOptions;
use crate::log::{self, LogFormat};
use crate::options::ServerOptions;
use crate::{Failure, complain};

/// Where to listen if nothing else is said.
const DEFAULT_SOCKET: &str = "qmp.sock";

pub(crate) fn serve(options: ServeOptions) -> Result<(), Failure> {
    let ServeOptions { server: options, machine } = options;
    let trace_points = Arc::new(TracePoints::default());
    for pattern in &options.trace {
        if !trace_points.enable_matching(pattern) {
            return Err(Failure::usage(format_args!("no trace point is called '{pattern}'")));
        }
    }
    let _log = log::start(
        options.log,
        options.log_filter.clone().unwrap_or_default(),
        Arc::clone(&trace_points),
    );

    let mut registry = Registry::new();
    let machine = MachineOptions {
        name: machine.name,
        uuid: machine.uuid,
        paused: machine.paused,
        trace_points,
    };
    register_machine(&mut registry, machine).map_err(Failure::usage)?;
    let dispatcher = Dispatcher::new(registry, version(), system_time);

    // Before there is a socket to remove.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(Failure::usage)?;
    let mut access = Access::default();
    for user in &options.allow_user {
        access.allow_user(user).map_err(Failure::usage)?;
    }
    for group in &options.allow_group {
        access.allow_group(group).map_err(Failure::usage)?;
    }
    let server = Server::new(dispatcher.clone()).allow(access);
    let server = listen(server, &options)?.spawn();
    let server = server.map_err(Failure::usage)?;
    end_on_signals(signals, dispatcher, server.control()).map_err(Failure::usage)?;
    server.wait();
    Ok(())
}

fn listen(mut server: Server, options: &ServerOptions) -> Result<Server, Failure> {
    for listen in &options.listen {
        let mut listen = listen.clone();
        listen.insecure |= options.insecure;
        server = server.listen(&listen).map_err(Failure::usage)?;
    }
    if options.listen.is_empty() {
        let path = Path::new(DEFAULT_SOCKET);
        let address = Address::Unix(path.to_owned());
        server = server.listen(&Listen::new(address)).map_err(Failure::usage)?;
        let line = format!("Listening at unix:{DEFAULT_SOCKET}; try: {}", command_to_try());
        writeln!(io::stdout(), "{line}").map_err(Failure::usage)?;
    } else {
        for address in server.addresses() {
            match options.log {
                LogFormat::Text => complain(&format_args!("qmp-server: listening at {address}")),
                LogFormat::Json => tracing::info!(%address, "listening"),
            }
        }
    }
    Ok(server)
}

/// A command that works in another shell in the same directory.
fn command_to_try() -> String {
    let program = std::env::current_exe()
        .map_or_else(|_| "qmp-server".to_owned(), |path| path.display().to_string());
    format!("{program} call unix:{DEFAULT_SOCKET} query-status")
}

fn end_on_signals(
    mut signals: Signals,
    dispatcher: Dispatcher,
    control: Control,
) -> io::Result<()> {
    let wait = move || {
        if signals.forever().next().is_some() {
            // The event is declared with the machine, and its data is text.
            let _ = shut_down(&dispatcher, ShutdownCause::HostSignal);
            control.shutdown();
        }
    };
    thread::Builder::new().name("qmp-signals".into()).spawn(wait).map(drop)
}
