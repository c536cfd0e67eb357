// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server status`: what a server of ours does, for people and for scripts.

mod screen;
mod table;

use std::io;
use std::process::exit;
use std::thread;
use std::time::Duration;

use qmp_dispatch::proto::{Band, DecodeError, ErrorClass, Json, Object};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::screen::Screen;
use crate::Failure;
use crate::arguments::StatusOptions;
use crate::client::{Broken, Client, OutOfBand, print};

/// More often would not be readable.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

pub(crate) fn status(options: &StatusOptions) -> Result<(), Failure> {
    let address = &options.server.address;
    let broken = |error: Broken| Failure::usage(format_args!("{address}: {error}"));
    // In-band, a command that hangs would be in the way.
    let oob = OutOfBand::IfOffered;
    let client = Client::connect(&options.server, &options.tls, options.timeout, oob);
    let mut client = client.map_err(broken)?;
    let band = if client.has_oob() { Band::OutOfBand } else { Band::InBand };
    let mut is_mux = true;
    let mut look = || -> Result<String, Failure> {
        client.renew();
        let report = Report::query(&mut client, band, is_mux, &broken)?;
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
    fn query(
        client: &mut Client,
        band: Band,
        is_mux: bool,
        broken: &dyn Fn(Broken) -> Failure,
    ) -> Result<Report, Failure> {
        let mut ask = |what: &str| {
            let command = format!("__org.qmp-server_query-{what}");
            client.execute(&command, &Object::new(), band).map_err(broken)
        };
        let server = ask("server")?.map_err(Failure::command)?;
        let clients = ask("clients")?.map_err(Failure::command)?;
        let upstream = match is_mux.then(|| ask("upstream")).transpose()? {
            Some(Ok(upstream)) => Some(upstream),
            Some(Err(error)) if error.class != ErrorClass::CommandNotFound => {
                return Err(Failure::command(error));
            }
            Some(Err(_)) | None => None,
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

    fn table(&self) -> Result<String, Broken> {
        let invalid = |error: DecodeError| Broken::Invalid(error.to_string());
        let server = self.server.decode().map_err(invalid)?;
        let clients: Vec<_> = self.clients.decode().map_err(invalid)?;
        let upstream = self.upstream.as_ref().map(Json::decode).transpose().map_err(invalid)?;
        Ok(table::render(&server, &clients, upstream.as_ref()))
    }
}
