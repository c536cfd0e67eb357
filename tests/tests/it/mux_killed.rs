// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server is killed and started again, five times: each of the clients that we test with sees through the mux what it
//! sees on the server itself.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use qapi::qmp::blockdev_del;
use qapi::{ExecuteError, Qmp, Stream};
use tempfile::TempDir;
use tests::process::{Process, Signal};
use tests::programs::{find_node, find_python};
use tests::server::LIMIT;
use tests::upstream::{Muxed, Program, SOCKET};
use tests::waiting::wait_for;

const ROUNDS: usize = 5;
/// Commands that a client executes before the server is killed; it goes on with others until it fails.
const COMMANDS: usize = 20;

/// A server at a socket.
trait Site {
    fn socket(&self) -> PathBuf;
    fn process(&self) -> &Process;
    fn restart(&mut self);

    fn kill(&self) {
        self.process().signal(Signal::KILL).unwrap();
    }
}

impl Site for Muxed {
    fn socket(&self) -> PathBuf {
        self.mux.socket()
    }

    fn process(&self) -> &Process {
        &self.upstream
    }

    fn restart(&mut self) {
        Muxed::restart(self);
    }
}

/// The server itself.
struct Direct {
    dir: TempDir,
    process: Process,
}

impl Direct {
    fn start() -> Option<Direct> {
        let dir = tempfile::Builder::new().prefix("qmp-killed-").tempdir().unwrap();
        let process = Program::StorageDaemon.start_in(dir.path())?;
        Some(Direct { dir, process })
    }
}

impl Site for Direct {
    fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn restart(&mut self) {
        self.process.stop().unwrap();
        self.process = Program::StorageDaemon.start_in(self.dir.path()).unwrap();
    }
}

/// Returns what a client sees in all rounds. Each answer must be to its own command, whenever the server is killed.
type Client = fn(&mut dyn Site) -> Vec<String>;

#[track_caller]
fn check(client: Client) {
    let Some(mut direct) = Direct::start() else { return };
    let options = ["--upstream-lost", "disconnect"];
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &options) else { return };
    assert_eq!(client(&mut muxed), client(&mut direct));
}

fn connect(socket: &Path) -> UnixStream {
    let stream = wait_for(|| UnixStream::connect(socket).map_err(|error| error.to_string()));
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// What it is to write to, or to read from, a connection that has ended depends on who is faster.
fn name(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
            "the end".to_owned()
        }
        kind => format!("{kind:?}"),
    }
}

/// How connecting fails, once what was killed has gone.
fn connecting(socket: &Path) -> String {
    wait_for(|| match UnixStream::connect(socket) {
        Ok(_) => Err("it is accepted".to_owned()),
        Err(error) => Ok(name(error.kind())),
    })
}

/// Executes commands, one after the other, until that fails, for which the server is killed. Returns how it has failed.
fn ask(site: &dyn Site, mut execute: impl FnMut(&str) -> Result<String, ErrorKind>) -> String {
    for number in 0.. {
        if number == COMMANDS {
            site.kill();
        }
        let node = format!("no-{number}");
        match execute(&node) {
            Ok(answer) => {
                assert_eq!(answer, format!("Failed to find node with node-name='{node}'"));
            }
            Err(kind) => return name(kind),
        }
    }
    unreachable!()
}

fn by_qapi(site: &mut dyn Site) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let reader = connect(&site.socket());
        let writer = reader.try_clone().unwrap();
        let mut client = Qmp::new(Stream::new(BufReader::new(reader), writer));
        client.handshake().unwrap();
        seen.push(ask(site, |node| {
            match client.execute(&blockdev_del { node_name: node.to_owned() }) {
                Err(ExecuteError::Qapi(error)) => Ok(error.desc),
                Err(ExecuteError::Io(error)) => Err(error.kind()),
                other => panic!("not an error response: {other:?}"),
            }
        }));
        seen.push(connecting(&site.socket()));
        site.restart();
    }
    seen
}

/// What a script of `interop` prints.
fn by_script(command: Option<Command>, site: &mut dyn Site) -> Vec<String> {
    let Some(mut command) = command else { return Vec::new() };
    let socket = site.socket();
    command.arg(&socket).args([ROUNDS, COMMANDS].map(|number| number.to_string()));
    // It does not try again.
    drop(connect(&socket));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start(&mut command).unwrap();
    let mut stdin = process.child().stdin.take().unwrap();
    let mut lines = BufReader::new(process.child().stdout.take().unwrap()).lines();
    let mut line = || lines.next().map(Result::unwrap);
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let ready = line();
        assert_eq!(ready.as_deref(), Some("ready"), "{}", process.stderr());
        site.kill();
        connecting(&socket);
        stdin.write_all(b"refused\n").unwrap();
        let end = |line: &String| line != "done";
        seen.extend(std::iter::from_fn(&mut line).take_while(end));
        site.restart();
        drop(connect(&socket));
        stdin.write_all(b"restarted\n").unwrap();
    }
    drop(stdin);
    assert!(process.wait(LIMIT).unwrap().unwrap().success(), "{}", process.stderr());
    seen
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

fn by_python(site: &mut dyn Site) -> Vec<String> {
    let command = find_python("python").map(|python| {
        let mut command = Command::new(python);
        command.arg(script("killed_client.py"));
        command
    });
    by_script(command, site)
}

fn node(package: &str) -> Option<Command> {
    let (node, packages) = find_node()?;
    let mut command = Command::new(node);
    command.arg(script("killed_client.cjs")).arg(packages.join(package));
    Some(command)
}

#[test]
fn the_client_of_rust_programs_sees_no_difference() {
    check(by_qapi);
}

#[test]
fn qemus_own_client_sees_no_difference() {
    check(by_python);
}

#[test]
fn the_clients_of_node_programs_see_no_difference() {
    check(|site| by_script(node("node-qemu"), site));
    check(|site| by_script(node("qemu-qmp"), site));
}
