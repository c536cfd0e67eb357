// SPDX-License-Identifier: MIT OR Apache-2.0
//! The servers that are compared, each a process of its own.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use tempfile::TempDir;

use super::client::{Client, Mode};
use super::floor::Way;
use crate::process::Process;
use crate::server::qmp_server;
use crate::waiting::retry;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `qmp-server serve`.
    Ours,
    /// See [`floor`](super::floor).
    Floor(Way),
    /// `qemu-system-x86_64` with no machine.
    Qemu,
    /// `qemu-storage-daemon`.
    StorageDaemon,
    /// `qmp-server mux` in front of one of these.
    Mux,
}

impl Kind {
    /// All that serve by themselves.
    pub const ALL: [Kind; 6] = [
        Kind::Ours,
        Kind::Floor(Way::Epoll),
        Kind::Floor(Way::PlainLoop),
        Kind::Floor(Way::Threads),
        Kind::Qemu,
        Kind::StorageDaemon,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ours => "qmp-server",
            Kind::Floor(Way::Epoll) => "epoll echo",
            Kind::Floor(Way::PlainLoop) => "plain loop",
            Kind::Floor(Way::Threads) => "threads",
            Kind::Floor(Way::Relay) => "relay",
            Kind::Qemu => "qemu-system-x86_64",
            Kind::StorageDaemon => "qemu-storage-daemon",
            Kind::Mux => "qmp-server mux",
        }
    }

    /// Whether it is there; ours and the floor always are.
    pub fn is_installed(self) -> bool {
        match self {
            Kind::Ours | Kind::Floor(_) | Kind::Mux => true,
            Kind::Qemu | Kind::StorageDaemon => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&path).any(|dir| dir.join(self.name()).is_file())
            }
        }
    }

    /// Whether one of its sockets serves one client at a time only.
    fn one_client_per_socket(self) -> bool {
        matches!(self, Kind::Qemu | Kind::StorageDaemon)
    }

    /// For a mux and a relay, the second socket is the one of the server behind it.
    fn command(self, sockets: &[PathBuf], floor: &Floor) -> Command {
        match self {
            Kind::Mux => qmp_server([
                OsString::from("mux"),
                "--upstream".into(),
                joined("unix:", &sockets[1], ""),
                "--listen".into(),
                joined("unix:", &sockets[0], ""),
            ]),
            Kind::Ours => qmp_server([
                OsString::from("serve"),
                "--listen".into(),
                joined("unix:", &sockets[0], ""),
            ]),
            Kind::Floor(way) => {
                let mut command = Command::new(&floor.program);
                let name = way.to_possible_value().map(|way| way.get_name().to_owned());
                command.arg("floor").arg(name.unwrap_or_default());
                command.arg(&sockets[0]);
                match way {
                    Way::Relay => command.arg(&sockets[1]),
                    _ => command.arg(&floor.line),
                };
                command
            }
            Kind::Qemu => {
                let mut command = Command::new(self.name());
                command.args(["-machine", "none", "-nodefaults", "-display", "none"]);
                for socket in sockets {
                    command.arg("-qmp").arg(joined("unix:", socket, ",server=on,wait=off"));
                }
                command
            }
            Kind::StorageDaemon => {
                let mut command = Command::new(self.name());
                for (number, socket) in sockets.iter().enumerate() {
                    let options = format!(",server=on,wait=off,id=c{number}");
                    command.arg("--chardev").arg(joined("socket,path=", socket, &options));
                    command.arg("--monitor").arg(format!("chardev=c{number}"));
                }
                command
            }
        }
    }
}

fn joined(before: &str, path: &Path, after: &str) -> OsString {
    let mut text = OsString::from(before);
    text.push(path);
    text.push(after);
    text
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How the floor is started.
#[derive(Clone, Debug)]
pub struct Floor {
    /// A program whose task `floor WAY SOCKET LINE` is [`floor::serve`](super::floor::serve).
    pub program: PathBuf,
    /// What it answers.
    pub line: String,
}

/// A server that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Peer {
    process: Process,
    sockets: Vec<PathBuf>,
    _dir: TempDir,
}

impl Peer {
    /// Starts one for up to `clients` clients, and waits until it has served one.
    pub fn start(kind: Kind, clients: usize, floor: &Floor) -> Result<Peer, String> {
        let count = if kind.one_client_per_socket() { clients } else { 1 };
        let (dir, sockets) = sockets(count)?;
        let command = kind.command(&sockets, floor);
        Peer::run(kind, command, dir, sockets)
    }

    /// Starts a mux in front of the server at `upstream`, and waits until it has served one client.
    pub fn start_mux(upstream: &Path) -> Result<Peer, String> {
        let unknown = Floor { program: PathBuf::new(), line: String::new() };
        Peer::start_before(Kind::Mux, upstream, &unknown)
    }

    /// As [`start_mux`](Peer::start_mux), a mux or a relay.
    pub(super) fn start_before(kind: Kind, upstream: &Path, floor: &Floor) -> Result<Peer, String> {
        let (dir, sockets) = sockets(1)?;
        let command = kind.command(&[sockets[0].clone(), upstream.to_owned()], floor);
        Peer::run(kind, command, dir, sockets)
    }

    fn run(
        kind: Kind,
        mut command: Command,
        dir: TempDir,
        sockets: Vec<PathBuf>,
    ) -> Result<Peer, String> {
        let process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()))
            .map_err(|error| format!("{kind} does not start: {error}"))?;
        let peer = Peer { process, sockets, _dir: dir };
        match retry(START_LIMIT, || Client::connect(&peer.sockets[0], Mode::InBand)) {
            Ok(_) => Ok(peer),
            Err(error) => {
                Err(format!("{kind} does not answer ({error}): {}", peer.process.stderr()))
            }
        }
    }

    /// Where client `number` connects: each to a socket of its own, or all to one.
    pub fn socket(&self, number: usize) -> &Path {
        &self.sockets[number % self.sockets.len()]
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Creates a directory, and returns it with this number of paths in it.
fn sockets(count: usize) -> Result<(TempDir, Vec<PathBuf>), String> {
    let dir = tempfile::Builder::new().prefix("qmp-bench-").tempdir();
    let dir = dir.map_err(|error| format!("cannot make a directory: {error}"))?;
    let sockets = (0..count).map(|n| dir.path().join(format!("{n}.sock"))).collect();
    Ok((dir, sockets))
}
