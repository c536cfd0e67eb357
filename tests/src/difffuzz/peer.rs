// SPDX-License-Identifier: MIT OR Apache-2.0
//! The servers that are compared.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use qmp_proto::Dialect;
use tempfile::TempDir;

use super::model::Mode;
use crate::process::Process;
use crate::programs::Oracle;
use crate::server::{LIMIT, qmp_server};
use crate::waiting::retry;

/// A request without command, whose answer shows that all before it have been answered.
const LAST: &[u8] = b"{\"id\": \"the last one\"}";
const LAST_ANSWER: &[u8] =
    b"{\"id\": \"the last one\", \"error\": {\"class\": \"GenericError\", \"desc\": \"QMP input lacks member 'execute'\"}}\r\n";

/// QEMU's smallest program with a monitor.
const STORAGE_DAEMON: &str = "qemu-storage-daemon";
/// QEMU with a machine.
const MACHINE: &str = "qemu-system-x86_64";

/// The name of the reference machine.
const NAME: &str = "confvm";

fn oracle(dialect: Dialect, name: &str) -> Result<PathBuf, String> {
    Oracle::of(dialect).program(name).ok_or_else(|| format!("no {name} of QEMU {dialect}"))
}

/// The programs of ours that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Server,
    /// Our mux, in front of the same program of QEMU's.
    Mux,
}

impl Subject {
    /// Starts it; `upstream` starts what a mux is put in front of.
    pub fn start(
        self,
        dialect: Dialect,
        upstream: impl FnOnce(Dialect) -> Result<Peer, String>,
    ) -> Result<Peer, String> {
        match self {
            Self::Server => Peer::our_server(dialect),
            Self::Mux => Peer::mux(upstream(dialect)?),
        }
    }
}

#[derive(Debug)]
pub struct Peer {
    name: &'static str,
    socket: PathBuf,
    _process: Process,
    /// The server behind it, if it is a mux.
    _upstream: Option<Box<Peer>>,
    _dir: TempDir,
}

impl Peer {
    /// QEMU's smallest program with a monitor.
    pub fn storage_daemon(dialect: Dialect) -> Result<Self, String> {
        let program = oracle(dialect, STORAGE_DAEMON)?;
        Self::start(STORAGE_DAEMON, |socket| {
            let mut command = Command::new(&program);
            command
                .arg("--chardev")
                .arg(format!("socket,id=c,path={},server=on,wait=off", socket.display()));
            command.args(["--monitor", "chardev=c"]);
            command
        })
    }

    /// QEMU with the reference machine.
    pub fn machine(dialect: Dialect) -> Result<Self, String> {
        let program = oracle(dialect, MACHINE)?;
        Self::start(MACHINE, |socket| {
            let mut command = Command::new(&program);
            command.args(["-machine", "none", "-nodefaults", "-nographic", "-S"]);
            command.args(["-name", NAME, "-qmp"]);
            command.arg(format!("unix:{},server=on,wait=off", socket.display()));
            command
        })
    }

    /// Our own server, with the same machine.
    pub fn our_server(dialect: Dialect) -> Result<Self, String> {
        Self::start("qmp-server", |socket| {
            let listen = format!("unix:{}", socket.display());
            let dialect = dialect.name();
            qmp_server([
                "serve",
                "--dialect",
                dialect,
                "--paused",
                "--name",
                NAME,
                "--listen",
                &listen,
            ])
        })
    }

    /// Our mux in front of one of the others, whose dialect it takes.
    pub fn mux(upstream: Peer) -> Result<Self, String> {
        let greeting = upstream.greeting()?;
        let mut mux = Self::start("qmp-server mux", |socket| {
            let [upstream, listen] =
                [&upstream.socket, socket].map(|path| format!("unix:{}", path.display()));
            qmp_server(["mux", "--upstream", &upstream, "--listen", &listen])
        })?;
        mux._upstream = Some(Box::new(upstream));
        let connected = || {
            let its = mux.greeting().map_err(io::Error::other)?;
            if its == greeting { Ok(()) } else { Err(io::Error::other(its)) }
        };
        retry(LIMIT, connected).map_err(|error| format!("the mux is not connected: {error}"))?;
        Ok(mux)
    }

    fn start(name: &'static str, command: impl Fn(&Path) -> Command) -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix("qmp-difffuzz-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let socket = dir.path().join("qmp.sock");
        let process = Process::start(command(&socket).stdin(Stdio::null()).stdout(Stdio::null()))
            .map_err(|error| format!("{name} does not start: {error}"))?;
        let peer = Self { name, socket, _process: process, _upstream: None, _dir: dir };
        peer.connect()?;
        Ok(peer)
    }

    /// The name of the program.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn commands(&self) -> Result<Vec<String>, String> {
        let lines = self.answers(Mode::Negotiated, b"{\"execute\": \"query-commands\"}")?;
        let names = lines
            .concat()
            .split("\"name\": \"")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
            .collect();
        Ok(names)
    }

    /// Its greeting, with the end of the line.
    fn greeting(&self) -> Result<String, String> {
        let mut line = String::new();
        let read = BufReader::new(self.connect()?).read_line(&mut line);
        read.map(|_| line).map_err(|error| format!("{} does not greet: {error}", self.name))
    }

    /// What it says, line by line, when `input` is all that comes after negotiation, until it closes the connection:
    /// nothing is sent behind the input, the connection is half-closed.
    pub fn answers_until_end(&self, input: &[u8]) -> Result<Vec<String>, String> {
        let failed = |error: io::Error| format!("{}: {error}", self.name);
        let stream = self.connect()?;
        let mut reader = BufReader::new(&stream);
        (&stream).write_all(Mode::Negotiated.negotiation()).map_err(failed)?;
        for _ in ["greeting", "answer to the negotiation"] {
            if reader.read_line(&mut String::new()).map_err(failed)? == 0 {
                return Err(format!("{} has closed the connection", self.name));
            }
        }
        let mut received = Vec::new();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (&stream).write_all(input)?;
                stream.shutdown(Shutdown::Write)
            });
            reader.read_to_end(&mut received).map_err(failed)?;
            writer.join().map_err(|_| "the writer has panicked")?.map_err(failed)
        })?;
        let text = String::from_utf8_lossy(&received);
        Ok(text.split_inclusive('\n').map(str::to_owned).collect())
    }

    /// What it answers to `input` on a new connection in this mode, line by line.
    pub fn answers(&self, mode: Mode, input: &[u8]) -> Result<Vec<String>, String> {
        let stream = self.connect()?;
        let bytes = [mode.negotiation(), input, LAST].concat();
        let mut received = Vec::new();
        std::thread::scope(|scope| {
            // A server may stop reading for as long as we do not read.
            let writer = scope.spawn(|| (&stream).write_all(&bytes));
            let mut chunk = [0; 1 << 16];
            while !received.ends_with(LAST_ANSWER) {
                match (&stream).read(&mut chunk) {
                    Ok(0) => return Err(format!("{} has closed the connection", self.name)),
                    Ok(count) => received.extend_from_slice(&chunk[..count]),
                    Err(error) => return Err(format!("{} does not answer: {error}", self.name)),
                }
            }
            writer
                .join()
                .map_err(|_| "the writer has panicked")?
                .map_err(|error| format!("{}: {error}", self.name))
        })?;
        let text = String::from_utf8_lossy(&received);
        let answered = text.split_inclusive('\n').map(str::to_owned);
        let before = if mode == Mode::Fresh { 1 } else { 2 };
        let mut lines: Vec<String> = answered.skip(before).collect();
        lines.pop();
        Ok(lines)
    }

    fn connect(&self) -> Result<UnixStream, String> {
        let stream = retry(LIMIT, || UnixStream::connect(&self.socket))
            .map_err(|error| format!("cannot connect to {}: {error}", self.name))?;
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .map_err(|error| error.to_string())?;
        Ok(stream)
    }
}
