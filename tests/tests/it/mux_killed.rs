// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server is killed and started again, five times: each of the clients that we test with sees through the mux what it
//! sees on the server itself.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use qapi::qmp::blockdev_del;
use qapi::{ExecuteError, Qmp, Stream};
use tests::process::{Process, Signal};
use tests::programs::find_python;
use tests::server::LIMIT;
use tests::upstream::{Muxed, Program, SOCKET};
use tests::waiting::wait_for;

const ROUNDS: usize = 5;
const COMMANDS: usize = 20;

/// What a client sees at a socket, whose server is killed when it is ready. Each answer must be to its own command.
type Client = fn(socket: &Path, kill: &mut dyn FnMut()) -> Vec<String>;

#[track_caller]
fn check(client: Client) {
    let dir = tempfile::Builder::new().prefix("qmp-killed-").tempdir().unwrap();
    let options = ["--upstream-lost", "disconnect"];
    let Some(mut muxed) = Muxed::start(Program::StorageDaemon, &options) else { return };
    for round in 0..ROUNDS {
        let Some(direct) = Program::StorageDaemon.start_in(dir.path()) else { return };
        let directly = client(&dir.path().join(SOCKET), &mut || kill(&direct));
        let socket = muxed.mux.socket();
        let through = client(&socket, &mut || kill(&muxed.upstream));
        assert_eq!(through, directly, "round {round}");
        muxed.restart();
    }
}

fn kill(server: &Process) {
    server.signal(Signal::KILL).unwrap();
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

fn raw(socket: &Path, kill: &mut dyn FnMut()) -> Vec<String> {
    let mut stream = BufReader::new(connect(socket));
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    };
    assert!(line().contains("QMP"));
    let mut writer = UnixStream::try_clone(stream.get_ref()).unwrap();
    writer.write_all(b"{'execute': 'qmp_capabilities'}\n").unwrap();
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    };
    line();
    for number in 0..COMMANDS {
        writer.write_all(format!("{{'execute': 'no-{number}'}}\n").as_bytes()).unwrap();
        assert!(line().contains(&format!("The command no-{number} has not been found")));
    }
    kill();
    let mut rest = String::new();
    let end = match stream.read_to_string(&mut rest) {
        Ok(0) => "the end".to_owned(),
        Ok(_) => rest,
        Err(error) => name(error.kind()),
    };
    vec![end, connecting(socket)]
}

fn by_qapi(socket: &Path, kill: &mut dyn FnMut()) -> Vec<String> {
    let reader = connect(socket);
    let writer = reader.try_clone().unwrap();
    let mut client = Qmp::new(Stream::new(BufReader::new(reader), writer));
    client.handshake().unwrap();
    for number in 0..COMMANDS {
        let node_name = format!("no-{number}");
        let expected = format!("Failed to find node with node-name='{node_name}'");
        match client.execute(&blockdev_del { node_name }) {
            Err(ExecuteError::Qapi(error)) => assert_eq!(error.desc, expected),
            other => panic!("not an error response: {other:?}"),
        }
    }
    kill();
    let end = match client.execute(&blockdev_del { node_name: "last".to_owned() }) {
        Err(ExecuteError::Io(error)) => name(error.kind()),
        other => format!("{other:?}"),
    };
    vec![end, connecting(socket)]
}

fn by_python(socket: &Path, kill: &mut dyn FnMut()) -> Vec<String> {
    let Some(python) = find_python("python") else { return Vec::new() };
    // It does not try again.
    drop(connect(socket));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/killed_client.py");
    let mut command = Command::new(python);
    command.arg(script).arg(socket).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::start(&mut command).unwrap();
    let mut stdout = BufReader::new(process.child().stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "{}", process.stderr());
    kill();
    connecting(socket);
    process.child().stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut output = String::new();
    stdout.read_to_string(&mut output).unwrap();
    assert!(process.wait(LIMIT).unwrap().unwrap().success(), "{}", process.stderr());
    output.lines().map(str::to_owned).collect()
}

#[test]
fn a_raw_client_sees_no_difference() {
    check(raw);
}

#[test]
fn the_client_of_rust_programs_sees_no_difference() {
    check(by_qapi);
}

#[test]
fn qemus_own_client_sees_no_difference() {
    check(by_python);
}
