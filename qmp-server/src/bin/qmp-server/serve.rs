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
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::arguments::ServeOptions;
use crate::{Failure, complain};

/// Where to listen if nothing else is said.
const DEFAULT_SOCKET: &str = "qmp.sock";

pub(crate) fn serve(options: ServeOptions) -> Result<(), Failure> {
    let trace_points = Arc::new(TracePoints::default());
    let _log = log_to_stderr(Arc::clone(&trace_points));

    let mut registry = Registry::new();
    let machine = MachineOptions {
        name: options.name,
        uuid: options.uuid,
        paused: options.paused,
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
    let server = listen(server, &options.listen, options.insecure)?.spawn();
    let server = server.map_err(Failure::usage)?;
    end_on_signals(signals, dispatcher, server.control()).map_err(Failure::usage)?;
    server.wait();
    Ok(())
}

fn listen(mut server: Server, listen: &[Listen], insecure: bool) -> Result<Server, Failure> {
    for listen in listen {
        let mut listen = listen.clone();
        listen.insecure |= insecure;
        server = server.listen(&listen).map_err(Failure::usage)?;
    }
    if listen.is_empty() {
        let path = Path::new(DEFAULT_SOCKET);
        let address = Address::Unix(path.to_owned());
        server = server.listen(&Listen::new(address)).map_err(Failure::usage)?;
        let line = format!("Listening at unix:{DEFAULT_SOCKET}; try: {}", command_to_try());
        writeln!(io::stdout(), "{line}").map_err(Failure::usage)?;
    } else {
        for address in server.addresses() {
            complain(&format_args!("qmp-server: listening at {address}"));
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

/// Logs warnings, and what enabled trace points say. Should nobody read standard error, lines are
/// dropped and the server goes on. What is left is written when the guard is dropped.
fn log_to_stderr(trace_points: Arc<TracePoints>) -> WorkerGuard {
    let wanted = dynamic_filter_fn(move |metadata: &Metadata<'_>, _| {
        *metadata.level() <= LevelFilter::WARN || trace_points.is_enabled(metadata.name())
    });
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let log = tracing_subscriber::fmt::layer().with_writer(writer).with_filter(wanted);
    tracing_subscriber::registry().with(log).init();
    guard
}
