// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server status`: what a server of ours does, for people and for scripts.

mod screen;
mod table;

use std::io;
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

use qmp_dispatch::proto::{Band, Capability, CommandType, DecodeError, ErrorClass, Json};
use qmp_server::{Client, ClientError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::screen::Screen;
use crate::Failure;
use crate::arguments::StatusOptions;
use crate::client::{connect, print};
use crate::mux::{MachineStatus, QueryMachines};

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
    let mut kind = None;
    let mut look = || -> Result<String, Failure> {
        client.set_deadline(Some(Instant::now() + options.timeout));
        let report = Report::query(&mut client, band, kind).map_err(broken)?;
        // Not asked again for what it does not have: it counts what fails.
        kind = Some(report.kind());
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
    behind: Backing,
}

/// What there is behind a server.
enum Backing {
    Nothing,
    /// Of a mux: the server that it shares.
    Upstream(Json),
    /// Of the control socket of a mux: all its machines.
    Machines(Json),
}

/// Which of them there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lone,
    Mux,
    Control,
}

impl Report {
    /// `kind` is what the server was before, if that is known.
    fn query(client: &mut Client, band: Band, kind: Option<Kind>) -> Result<Report, ClientError> {
        let mut ask = |command: &str| client.execute(command, None, band);
        let server = ask("__org.qmp-server_query-server")?;
        let clients = ask("__org.qmp-server_query-clients")?;
        let mut ask_if = |is_asked: bool, command: &str| match is_asked.then(|| ask(command)) {
            Some(Err(ClientError::Command(error)))
                if error.class == ErrorClass::CommandNotFound =>
            {
                Ok(None)
            }
            answer => answer.transpose(),
        };
        let may_be = |this: Kind| kind.is_none_or(|kind| kind == this);
        let upstream = ask_if(may_be(Kind::Mux), "__org.qmp-server_query-upstream")?;
        let is_asked = upstream.is_none() && may_be(Kind::Control);
        let machines = ask_if(is_asked, QueryMachines::NAME)?;
        client.forget_events();
        let behind = match (upstream, machines) {
            (Some(upstream), _) => Backing::Upstream(upstream),
            (None, Some(machines)) => Backing::Machines(machines),
            (None, None) => Backing::Nothing,
        };
        Ok(Report { server, clients, behind })
    }

    fn kind(&self) -> Kind {
        match self.behind {
            Backing::Nothing => Kind::Lone,
            Backing::Upstream(_) => Kind::Mux,
            Backing::Machines(_) => Kind::Control,
        }
    }

    /// On one line.
    fn json(&self) -> String {
        let behind = match &self.behind {
            Backing::Nothing => String::new(),
            Backing::Upstream(upstream) => format!(", \"upstream\": {}", upstream.as_str()),
            Backing::Machines(machines) => format!(", \"machines\": {}", machines.as_str()),
        };
        let (server, clients) = (self.server.as_str(), self.clients.as_str());
        format!("{{\"server\": {server}, \"clients\": {clients}{behind}}}")
    }

    fn table(&self) -> Result<String, ClientError> {
        let invalid =
            |reason: DecodeError| ClientError::Unreadable { name: "the status".to_owned(), reason };
        let server = self.server.decode().map_err(invalid)?;
        let clients: Vec<_> = self.clients.decode().map_err(invalid)?;
        let behind = match &self.behind {
            Backing::Nothing => String::new(),
            Backing::Upstream(upstream) => {
                table::upstream_summary(&upstream.decode().map_err(invalid)?)
            }
            Backing::Machines(machines) => {
                let machines: Vec<MachineStatus> = machines.decode().map_err(invalid)?;
                format!("\n{}", table::machines(&machines))
            }
        };
        Ok(table::summary(&server) + &behind + "\n" + &table::clients(&clients))
    }
}
