// SPDX-License-Identifier: MIT OR Apache-2.0
//! Servers that connect to a manager which listens, as `libqtest` and others expect of QEMU: ours and QEMU alike.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use qmp_proto::Dialect;
use rustix::event::{PollFd, PollFlags, poll};
use tests::process::{Process, Signal};
use tests::programs::Oracle;
use tests::scripted::Scripted;
use tests::server::{LIMIT, Server, program, qmp_server, refusal};
use tests::upstream::{Program, SOCKET};
use tests::waiting::wait_until;

/// A server that connects to this address, in QEMU's text.
type Dialler = Box<dyn Fn(&str) -> Command>;

/// Our server, and each QEMU that is there.
fn diallers() -> Vec<Dialler> {
    let ours = |address: &str| {
        let mut command = Command::new(program());
        command.args(["serve", "--listen", address]);
        command
    };
    let mut all: Vec<Dialler> = vec![Box::new(ours)];
    for dialect in Dialect::ALL {
        let Some(qemu) = Oracle::of(dialect).program("qemu-system-x86_64") else { continue };
        all.push(Box::new(move |address: &str| {
            let mut command = Command::new(&qemu);
            command.args(["-machine", "none", "-nodefaults", "-display", "none", "-S"]);
            command.args(["-qmp", address]);
            command
        }));
    }
    all
}

fn start(command: &mut Command) -> Process {
    Process::start(command.stdin(Stdio::null()).stdout(Stdio::null())).unwrap()
}

/// Waits for a server.
fn accept_any(manager: &UnixListener) -> UnixStream {
    let limit = LIMIT.try_into().unwrap();
    assert_eq!(poll(&mut [PollFd::new(manager, PollFlags::IN)], Some(&limit)), Ok(1));
    let (stream, _) = manager.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Waits for the server, which must greet and execute a command.
fn accept(manager: &UnixListener) -> UnixStream {
    let stream = accept_any(manager);
    let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with(r#"{"QMP": "#));
    (&stream).write_all(br#"{"execute": "qmp_capabilities"} {"execute": "query-status"}"#).unwrap();
    assert_eq!(lines.next().unwrap(), r#"{"return": {}}"#);
    assert!(lines.next().unwrap().contains("running"));
    drop(lines);
    stream
}

fn listen(dir: &Path) -> (UnixListener, String) {
    let path = dir.join("manager.sock");
    let address = format!("unix:path={},server=off", path.display());
    (UnixListener::bind(path).unwrap(), address)
}

#[test]
fn a_manager_that_listens_is_connected_to() {
    for dialler in diallers() {
        let dir = tempfile::tempdir().unwrap();
        let (manager, address) = listen(dir.path());
        let mut process = start(&mut dialler(&address));
        let stream = accept(&manager);
        (&stream).write_all(br#"{"execute": "quit"}"#).unwrap();
        (&stream).read_to_string(&mut String::new()).unwrap();
        let status = process.wait(LIMIT).unwrap();
        assert!(status.is_some_and(|status| status.success()), "{}", process.stderr());
    }
}

/// The manager may come later, and again.
#[test]
fn a_manager_is_connected_to_again_and_again() {
    for dialler in diallers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager.sock");
        let address = format!("unix:{},server=off,reconnect-ms=5", path.display());
        let _process = start(&mut dialler(&address));
        let manager = UnixListener::bind(&path).unwrap();
        for _ in 0..3 {
            drop(accept(&manager));
        }
        drop(manager);
        std::fs::remove_file(&path).unwrap();
        let manager = UnixListener::bind(&path).unwrap();
        drop(accept(&manager));
    }
}

#[test]
fn without_a_manager_there_is_no_server() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, address) = listen(dir.path());
    drop(manager);
    for dialler in diallers() {
        let mut process = start(&mut dialler(&address));
        let status = process.wait(LIMIT).unwrap().and_then(|status| status.code());
        assert!(status.is_some_and(|code| code > 0), "{}", process.stderr());
        assert!(process.stderr().contains("Connection refused"), "{}", process.stderr());
    }
    let line = refusal(&["--listen", &address]);
    assert!(line.contains("with server=off the client has to listen there"), "{line}");
}

#[test]
fn a_mux_connects_to_its_managers_and_serves_others_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = Scripted::listen(&dir.path().join("upstream.sock"));
    let (manager, address) = listen(dir.path());
    let mux = Server::start_in(
        dir,
        [
            "mux",
            "--upstream",
            "unix:upstream.sock",
            "--listen",
            "unix:{sock},notices=on",
            "--listen",
            &format!("{address},reconnect-ms=5"),
        ],
    );
    let mut peer = upstream.accept_and_negotiate("[]");
    let client = accept_any(&manager);
    let mut lines = BufReader::new(&client).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("scripted"));
    (&client).write_all(br#"{"execute": "qmp_capabilities"} {"execute": "stop"}"#).unwrap();
    assert_eq!(lines.next().unwrap(), r#"{"return": {}}"#);
    let request = peer.expect("stop");
    peer.answer(&request, "{}");
    assert_eq!(lines.next().unwrap(), r#"{"return": {}}"#);
    let mut other = mux.negotiated();
    other.send_command("cont");
    peer.expect("cont");
}

/// As `libqtest` has it: one connection, which ends with the server, and the mux of a server that is gone goes, too.
#[test]
fn a_manager_sees_the_end_of_a_server_that_is_killed_through_the_mux_as_well() {
    for program in Program::ALL {
        for _ in 0..5 {
            let dir = tempfile::tempdir().unwrap();
            let (manager, address) = listen(dir.path());
            let mut command = qmp_server(["mux", "--upstream", "unix:upstream.sock"]);
            command.args(["--upstream-lost", "exit", "--listen", &address]).current_dir(dir.path());
            let Some(upstream) = program.start_in(dir.path()) else { return };
            // A client that is there before its server is waits for a limited time.
            wait_until(|| dir.path().join(SOCKET).exists());
            let mut mux = start(&mut command);
            let stream = accept_any(&manager);
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            assert!(lines.next().unwrap().starts_with(r#"{"QMP": "#));
            (&stream).write_all(br#"{"execute": "qmp_capabilities"}"#).unwrap();
            assert_eq!(lines.next().unwrap(), r#"{"return": {}}"#);
            for number in 0.. {
                if number == 20 {
                    upstream.signal(Signal::KILL).unwrap();
                }
                let command = format!(r#"{{"execute": "no-{number}"}}"#);
                let sent = (&stream).write_all(command.as_bytes());
                let Some(answer) = lines.next().filter(|_| sent.is_ok()) else { break };
                assert!(answer.contains(&format!("The command no-{number} has not")), "{answer}");
            }
            let status = mux.wait(LIMIT).unwrap();
            assert_eq!(status.and_then(|status| status.code()), Some(3), "{}", mux.stderr());
        }
    }
}
