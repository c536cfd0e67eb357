// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server status`: what a server of ours does, for people and for scripts.

mod screen;
mod table;

use std::io;
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::{Band, Capability, DecodeError, ErrorClass, Json};
use qmp_server::{Client, ClientError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::screen::Screen;
use crate::Failure;
use crate::arguments::StatusOptions;
use crate::client::{connect, print};

/// More often would not be readable.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

pub(crate) fn status(options: &StatusOptions) -> Result<(), Failure> {
    let address = &options.server.address;
    let broken = |error: ClientError| match error {
        ClientError::Command(error) => Failure::command(error),
        error => Failure::usage(format_args!("{address}: {error}")),
    };
    // In-band, a command that hangs would be in the way.
    let oob = vec![Capability::OOB];
    let client = connect(&options.server, &options.tls, options.timeout, oob);
    let mut client = client.map_err(broken)?;
    let band = if client.has_oob() { Band::OutOfBand } else { Band::InBand };
    let mut is_mux = true;
    let mut look = || -> Result<String, Failure> {
        client.set_deadline(Some(Instant::now() + options.timeout));
        let report = Report::query(&mut client, band, is_mux).map_err(broken)?;
        // Not asked again for what it does not have: it counts what fails.
        is_mux = report.upstream.is_some();
        if options.json { Ok(report.json()) } else { report.table().map_err(broken) }
    };
    let Some(period) = options.watch else { return print(&look()?) };
    end_on_signals().map_err(Failure::usage)?;
    let mut screen = Screen::new(options.json);
    while screen.show(&look()?).map_err(Failure::usage)? {
        thread::sleep(period.max(SHORTEST_PERIOD));
    }
    Ok(())
}

/// Whoever watches has seen enough. Nothing is left to be put in order.
fn end_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let wait = move || {
        if signals.forever().next().is_some() {
            exit(0);
        }
    };
    thread::Builder::new().name("qmp-signals".into()).spawn(wait).map(drop)
}

/// What the server says.
struct Report {
    server: Json,
    clients: Json,
    /// Only a mux has one.
    upstream: Option<Json>,
}

impl Report {
    fn query(client: &mut Client, band: Band, is_mux: bool) -> Result<Report, ClientError> {
        let mut ask =
            |what: &str| client.execute(&format!("__org.qmp-server_query-{what}"), None, band);
        let server = ask("server")?;
        let clients = ask("clients")?;
        let upstream = match is_mux.then(|| ask("upstream")).transpose() {
            Err(ClientError::Command(error)) if error.class == ErrorClass::CommandNotFound => None,
            upstream => upstream?,
        };
        client.forget_events();
        Ok(Report { server, clients, upstream })
    }

    /// On one line.
    fn json(&self) -> String {
        let mut text = format!(
            "{{\"server\": {}, \"clients\": {}",
            self.server.as_str(),
            self.clients.as_str()
        );
        if let Some(upstream) = &self.upstream {
            text.push_str(", \"upstream\": ");
            text.push_str(upstream.as_str());
        }
        text + "}"
    }

    fn table(&self) -> Result<String, ClientError> {
        let invalid =
            |reason: DecodeError| ClientError::Unreadable { name: "the status".to_owned(), reason };
        let server = self.server.decode().map_err(invalid)?;
        let clients: Vec<_> = self.clients.decode().map_err(invalid)?;
        let upstream = self.upstream.as_ref().map(Json::decode).transpose().map_err(invalid)?;
        Ok(table::render(&server, &clients, upstream.as_ref()))
    }
}
