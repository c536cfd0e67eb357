// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other stacks for remote calls beside ours: each has its own server and client, which ask for the same.
//!
//! Their programs are a project of their own (`tests/peers`). Our client writes and parses its messages here, as theirs
//! do; the floor's does not.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::client::{Client, Mode};
use super::crowd::Crowd;
use super::figures::Spread;
use super::floor::Way;
use super::peer::{Floor, Kind, Peer};
use super::report::Section;
use super::speed::{latencies, per_second};
use super::stats::median;
use super::{Scale, cannot};
use crate::process::Process;

/// The other stacks: their names and those of their programs.
pub const STACKS: [(&str, &str); 3] =
    [("zlink", "zlink"), ("zbus, peer to peer", "zbus"), ("jsonrpsee, WebSocket", "jsonrpsee")];

const CLIENTS: [usize; 3] = [1, 8, 64];

pub(super) fn measure(
    section: &mut Section,
    scale: &Scale,
    floor: &Floor,
    programs: &Path,
) -> Result<(), String> {
    let ours = [Kind::Ours, Kind::Floor(Way::Epoll)].into_iter().map(|kind| {
        let driver = Local::new(kind, floor).map_err(cannot(&format!("connect to {kind}")))?;
        Ok(Contestant::new(kind.name(), Box::new(driver)))
    });
    let mut contestants = ours.collect::<Result<Vec<_>, String>>()?;
    for (name, program) in STACKS {
        let program = programs.join(program);
        if program.is_file() {
            let driver = Foreign::start(&program).map_err(cannot(&format!("start {name}")))?;
            contestants.push(Contestant::new(name, Box::new(driver)));
        } else {
            section.notes.push(format!("{name} has not been built, and is left out"));
        }
    }
    for _ in 0..scale.rounds {
        for contestant in &mut contestants {
            let name = contestant.name;
            contestant.round(scale).map_err(cannot(&format!("measure {name}")))?;
        }
    }
    for Contestant { name, p50, per_second, .. } in contestants {
        section.figure_of("1 client: p50", name, "µs", Spread::of(p50));
        for (clients, values) in CLIENTS.into_iter().zip(per_second) {
            let what = format!("{clients} {}", if clients == 1 { "client" } else { "clients" });
            section.figure_of(&what, name, "k/s", Spread::of(values));
        }
    }
    Ok(())
}

trait Driver {
    /// So many clients ask for one slice of time: the median of how long an answer takes in microseconds, where it is
    /// known, and how many thousands there are in a second.
    fn round(&mut self, clients: usize, scale: &Scale) -> io::Result<(f64, f64)>;
}

struct Contestant {
    name: &'static str,
    driver: Box<dyn Driver>,
    p50: Vec<f64>,
    per_second: [Vec<f64>; CLIENTS.len()],
}

impl Contestant {
    fn new(name: &'static str, driver: Box<dyn Driver>) -> Contestant {
        Contestant { name, driver, p50: Vec::new(), per_second: Default::default() }
    }

    fn round(&mut self, scale: &Scale) -> io::Result<()> {
        for (clients, values) in CLIENTS.into_iter().zip(&mut self.per_second) {
            let (p50, per_second) = self.driver.round(clients, scale)?;
            values.push(per_second);
            if clients == 1 {
                self.p50.push(p50);
            }
        }
        Ok(())
    }
}

/// Clients in this process.
struct Local {
    _peer: Peer,
    lone: Client,
    crowds: [Crowd; CLIENTS.len()],
}

impl Local {
    fn new(kind: Kind, floor: &Floor) -> io::Result<Local> {
        let peer = Peer::start(kind, 1, floor).map_err(io::Error::other)?;
        let connect = || {
            let client = Client::connect(peer.socket(0), Mode::InBand)?;
            Ok(if kind == Kind::Ours { client.parsing() } else { client })
        };
        let crowd =
            |clients| Crowd::new((0..clients).map(|_| connect()).collect::<io::Result<_>>()?, 1);
        let [one, some, many] = CLIENTS;
        let crowds = [crowd(one)?, crowd(some)?, crowd(many)?];
        Ok(Local { lone: connect()?, crowds, _peer: peer })
    }
}

impl Driver for Local {
    fn round(&mut self, clients: usize, scale: &Scale) -> io::Result<(f64, f64)> {
        let p50 = match clients {
            1 => median(&mut latencies(&mut self.lone, scale)?),
            _ => f64::NAN,
        };
        let crowd = CLIENTS.iter().position(|&number| number == clients).unwrap_or_default();
        Ok((p50, per_second(&mut self.crowds[crowd], scale)? / 1e3))
    }
}

/// A program of `tests/peers`, twice: as the server, and as its clients.
struct Foreign {
    _server: Process,
    _dir: TempDir,
    clients: Process,
    orders: ChildStdin,
    results: BufReader<ChildStdout>,
}

impl Foreign {
    fn start(program: &Path) -> io::Result<Foreign> {
        let dir = tempfile::Builder::new().prefix("qmp-bench-").tempdir()?;
        let start = |task: &str, argument: &OsStr| {
            let mut command = Command::new(program);
            let piped =
                command.arg(task).arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped());
            Process::start(piped)
        };
        let no_pipe = || io::Error::other("it has no pipe");
        let mut server = start("serve", dir.path().as_os_str())?;
        let mut address = String::new();
        let stdout = server.child().stdout.take().ok_or_else(no_pipe)?;
        BufReader::new(stdout).read_line(&mut address)?;
        let mut clients = start("call", address.trim_end().as_ref())?;
        let orders = clients.child().stdin.take().ok_or_else(no_pipe)?;
        let results = BufReader::new(clients.child().stdout.take().ok_or_else(no_pipe)?);
        Ok(Foreign { _server: server, _dir: dir, clients, orders, results })
    }
}

impl Driver for Foreign {
    fn round(&mut self, clients: usize, scale: &Scale) -> io::Result<(f64, f64)> {
        writeln!(self.orders, "{clients} {}", scale.slice.as_millis())?;
        let mut line = String::new();
        self.results.read_line(&mut line)?;
        let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[p50, calls, nanos]) => Ok((p50 / 1e3, calls / nanos * 1e6)),
            _ => Err(io::Error::other(format!(
                "its clients say '{}': {}",
                line.trim_end(),
                self.clients.stderr()
            ))),
        }
    }
}
