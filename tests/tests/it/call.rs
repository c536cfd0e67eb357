// SPDX-License-Identifier: MIT OR Apache-2.0

use std::process::{Command, Stdio};

use tempfile::TempDir;
use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::{Finished, Process, run};
use tests::programs::find;
use tests::server::{LIMIT, Server, qmp_server};

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
