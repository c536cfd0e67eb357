// SPDX-License-Identifier: MIT OR Apache-2.0
//! `qmp-server call`, with our server and with QEMU's.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tests::certificates::{Authority, Identity};
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::{Finished, Process, run};
use tests::programs::find;
use tests::server::{LIMIT, Server, qmp_server, refusal};

fn call(endpoint: &Endpoint, arguments: &[&str]) -> Finished {
    let address = endpoint.to_string();
    let arguments = ["call", &address].into_iter().chain(arguments.iter().copied());
    run(&mut qmp_server(arguments), "", LIMIT).unwrap_or_else(|error| panic!("{error}"))
}

/// The call must succeed and print this value.
#[track_caller]
fn check_result(endpoint: &Endpoint, arguments: &[&str], expected: &str) {
    let finished = call(endpoint, arguments);
    assert_eq!(finished.status.code(), Some(0), "{arguments:?}: {finished:#?}");
    let printed =
        Json::parse(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:#?}"));
    assert_eq!(printed.to_string(), expected, "{arguments:?}");
    assert_eq!(finished.stderr, "", "{arguments:?}");
}

/// The server must answer the call with this error.
#[track_caller]
fn check_error(endpoint: &Endpoint, arguments: &[&str], expected: &str) {
    let finished = call(endpoint, arguments);
    assert_eq!(finished.status.code(), Some(1), "{arguments:?}: {finished:#?}");
    assert_eq!(finished.stdout, "", "{arguments:?}");
    assert_eq!(finished.stderr.trim_end(), expected, "{arguments:?}");
}

#[test]
fn the_result_is_printed_as_json() {
    let server = Server::start();
    let endpoint = server.endpoint();
    check_result(&endpoint, &["query-name"], r#"{"name": "confvm"}"#);
    check_result(&endpoint, &["query-status"], r#"{"status": "prelaunch", "running": false}"#);
    check_result(&endpoint, &["stop"], "{}");
}

#[test]
fn arguments_are_texts_or_json() {
    let server = Server::start();
    let endpoint = server.endpoint();
    check_result(&endpoint, &["watchdog-set-action", "action=pause"], "{}");
    let pattern = "name=handle_qmp_command";
    check_result(&endpoint, &["trace-event-set-state", pattern, "enable:=true"], "{}");
    let enabled = r#"[{"name": "handle_qmp_command", "state": "enabled"}]"#;
    check_result(&endpoint, &["trace-event-get-state", pattern], enabled);
    let wrong = "GenericError: Invalid parameter type for 'enable', expected: boolean";
    check_error(&endpoint, &["trace-event-set-state", pattern, "enable=true"], wrong);
}

#[test]
fn an_error_response_goes_to_standard_error() {
    let server = Server::start();
    let endpoint = server.endpoint();
    let not_found = "CommandNotFound: The command no-such-command has not been found";
    check_error(&endpoint, &["no-such-command"], not_found);
    check_error(&endpoint, &["getfd"], "GenericError: Parameter 'fdname' is missing");
}

#[test]
fn out_of_band_is_negotiated_on_demand() {
    let server = Server::start();
    let endpoint = server.endpoint();
    check_result(&endpoint, &["yank", "instances:=[]", "--oob"], "{}");
    let refusal = "GenericError: The command query-name does not support OOB";
    check_error(&endpoint, &["query-name", "--oob"], refusal);
}

#[test]
fn events_are_printed_too() {
    let server = Server::start();
    let finished = call(&server.endpoint(), &["cont", "--events", "0.2"]);
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
    assert!(finished.stdout.contains(r#""event": "RESUME""#), "{finished:#?}");
}

#[test]
fn nobody_at_the_address_is_a_failure_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let finished = call(&Endpoint::Unix(dir.path().join("missing.sock")), &["query-name"]);
    assert_eq!(finished.status.code(), Some(2), "{finished:#?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
}

/// The call must fail before anything is executed, with one line, which is returned.
#[track_caller]
fn check_failure(arguments: &[&str]) -> String {
    refusal(&[&["call"], arguments].concat())
}

#[test]
fn names_in_no_file_system_can_be_called() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("unix-abstract:{}", dir.path().display());
    let _server = Server::start_with(["--listen", &address, "--listen", "unix:{sock}"]);
    let finished = run(&mut qmp_server(["call", &address, "query-kvm"]), "", LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:?}");
}

#[test]
fn servers_with_tls_can_be_called() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority").unwrap();
    let stranger = Authority::new(dir.path(), "stranger").unwrap();
    let server = authority.issue("server", &["localhost"]).unwrap();
    let [alice, mallory] = [authority.issue("alice", &[]), stranger.issue("alice", &[])];
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let [cert, key] = [&server.cert, &server.key].map(|path| text(path));
    let [ca, wrong_ca] = [&authority, &stranger].map(|authority| text(&authority.certificate()));
    let listen = format!("tls:127.0.0.1:0,cert={cert},key={key},client-ca={ca}");
    let running = Server::start_with(["--listen", &listen, "--listen", "unix:{sock}"]);
    let address = format!("tls:localhost:{}", running.ports()[0]);
    let by_number = format!("tls:127.0.0.1:{}", running.ports()[0]);
    let own = |identity: &io::Result<Identity>| {
        let Identity { cert, key } = identity.as_ref().unwrap();
        ["--cert".to_owned(), text(cert), "--key".to_owned(), text(key)]
    };
    let [alice, mallory] = [own(&alice), own(&mallory)];
    let [alice, mallory] = [&alice, &mallory].map(|own| own.each_ref().map(String::as_str));
    let call = [&["call", &address, "query-kvm", "--ca", &ca], &alice[..]].concat();
    let finished = run(&mut qmp_server(&call), "", LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:?}");
    let named = [&["call", &by_number, "query-kvm", "--ca", &ca], &alice[..]].concat();
    let named = [&named[..], &["--server-name", "localhost"]].concat();
    let finished = run(&mut qmp_server(&named), "", LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:?}");

    for (address, options, complaint) in [
        (&address, [&["--ca", &wrong_ca], &alice[..]].concat(), "is not from the authority (ca)"),
        (&by_number, [&["--ca", &ca], &alice[..]].concat(), "not valid for name"),
        (&address, [&["--ca", &ca], &mallory[..]].concat(), "the server refuses the connection"),
        (&address, vec!["--ca", &ca], "the server wants a certificate"),
        (&address, alice.to_vec(), "TLS needs ca=FILE"),
        (&address, vec!["--ca", &key], "holds no certificate"),
        (&address, vec!["--ca", "/no/such/file"], "/no/such/file"),
        (&address, vec!["--ca", &ca, "--cert", &cert], "--key"),
        (&address, vec!["--ca", &ca, "--server-name", "no name"], "'no name' is not a name"),
    ] {
        let line = check_failure(&[&[address, "query-kvm"], &options[..]].concat());
        assert!(line.contains(complaint), "{options:?}: {line}");
    }
    let plain = running.endpoint().to_string();
    let line = check_failure(&[&plain, "query-kvm", "--ca", &ca]);
    assert!(line.contains("are for tls:HOST:PORT"), "{line}");
}

#[test]
fn a_server_without_tls_is_told_from_one_with() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new(dir.path(), "authority").unwrap().certificate();
    let server = Server::start_with(["--listen", "tcp:127.0.0.1:0", "--listen", "unix:{sock}"]);
    let address = format!("tls:localhost:{}", server.ports()[0]);
    let line = check_failure(&[&address, "query-kvm", "--ca", ca.to_str().unwrap()]);
    assert!(line.contains("does not speak TLS"), "{line}");
}

#[test]
fn where_nobody_can_be_called_is_told() {
    for address in ["stdio", "fd:3", "systemd", "vsock:1:1", "tls:localhost:1"] {
        check_failure(&[address, "query-kvm", "--timeout", "5"]);
    }
}

/// QEMU's storage daemon with a QMP socket.
struct StorageDaemon {
    endpoint: Endpoint,
    _process: Process,
    _dir: TempDir,
}

impl StorageDaemon {
    fn start() -> Option<Self> {
        let program = find("qemu-storage-daemon", "apt-get install qemu-utils")?;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp.sock");
        let chardev = format!("socket,id=qmp,path={},server=on,wait=off", path.display());
        let mut command = Command::new(program);
        command.args(["--chardev", &chardev, "--monitor", "chardev=qmp"]).stdin(Stdio::null());
        let process = Process::start(&mut command).unwrap();
        let endpoint = Endpoint::Unix(path);
        endpoint.connect(LIMIT).unwrap_or_else(|error| panic!("{error}: {}", process.stderr()));
        Some(Self { endpoint, _process: process, _dir: dir })
    }
}

#[test]
fn qemus_storage_daemon_can_be_called() {
    let Some(daemon) = StorageDaemon::start() else { return };
    check_result(&daemon.endpoint, &["query-named-block-nodes"], "[]");
    let null = ["blockdev-add", "driver=null-co", "node-name=n0", "size:=65536", "read-only:=true"];
    check_result(&daemon.endpoint, &null, "{}");
    let finished = call(&daemon.endpoint, &["query-named-block-nodes"]);
    assert!(finished.stdout.contains(r#""node-name": "n0""#), "{finished:#?}");
    let missing = "CommandNotFound: The command query-name has not been found";
    check_error(&daemon.endpoint, &["query-name"], missing);
}
