// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace points with QEMU's names, and the log.

use std::path::Path;
use std::process::{Command, Stdio};

use tests::endpoint::Endpoint;
use tests::json::Json;
use tests::process::Process;
use tests::programs::Oracle;
use tests::server::{Client, LIMIT, Server};

/// Requests, and the number of messages that each gets. They are received before the next request is sent.
const SCRIPT: [(&str, usize); 8] = [
    (r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#, 1),
    (r#"{"execute": "query-status", "id": 1}"#, 1),
    (r#"{"exec-oob": "query-status", "id": [2]}"#, 1),
    (r#"{"exec-oob": "query-status", "arguments": 0}"#, 1),
    (r#"{"execute": "cont"}"#, 2),
    (r#"nonsense "#, 1),
    (r#"{"execute": "query-status", "no-such-member": 1}"#, 1),
    (r#"{"execute": "quit"}"#, 2),
];

/// The names at the beginning of these lines, or behind this, of trace points of the monitor.
fn names(log: &str, behind: Option<&str>) -> Vec<String> {
    let said = log.lines().filter_map(|line| match behind {
        Some(text) => line.split_once(text).map(|(_, rest)| rest),
        None => Some(line),
    });
    said.filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("monitor_") || *name == "handle_qmp_command")
        .map(str::to_owned)
        .collect()
}

fn run_script(endpoint: &Endpoint) {
    let mut client = Client::connect(endpoint);
    client.receive();
    for (text, replies) in SCRIPT {
        client.send(text);
        (0..replies).for_each(|_| drop(client.receive()));
    }
    client.expect_end();
}

fn our_names() -> Vec<String> {
    let mut server = Server::start_with(["--listen", "unix:{sock}", "--paused", "--trace", "*"]);
    run_script(&server.endpoint());
    assert!(server.wait().success());
    let log = server.process().stderr();
    // Monitor 1 was the harness, which connects once to see that the server is ready.
    let log: Vec<&str> = log.lines().filter(|line| !line.contains("monitor=1 ")).collect();
    names(&log.join("\n"), Some(": "))
}

/// Returns the names in QEMU's log; `None` if this QEMU is missing.
fn qemus_names(dir: &Path) -> Option<Vec<String>> {
    let program = Oracle::V10_0.program("qemu-system-x86_64")?;
    let path = dir.join("qmp.sock");
    let qmp = format!("unix:{},server=on,wait=off", path.display());
    let mut command = Command::new(program);
    command
        .args(["-machine", "none", "-nodefaults", "-nographic", "-S", "-qmp", &qmp])
        .args(["-trace", "monitor_*", "-trace", "handle_qmp_command"])
        .stdin(Stdio::null());
    let mut qemu = Process::start(&mut command).unwrap();
    let endpoint = Endpoint::Unix(path);
    // The first client only shows that QEMU is ready.
    drop(Client::connect(&endpoint).receive());
    run_script(&endpoint);
    assert!(qemu.wait(LIMIT).unwrap().is_some_and(|status| status.success()), "{}", qemu.stderr());
    let mut names = names(&qemu.stderr(), None);
    assert_eq!(names.remove(0), "monitor_qmp_respond", "the greeting of the first client");
    Some(names)
}

/// QEMU traces the suspension of a monitor before the request that causes it is queued; our server after.
fn with_suspension_behind(mut names: Vec<String>) -> Vec<String> {
    for at in 1..names.len() {
        if names[at - 1] == "monitor_suspend" && names[at] == "monitor_qmp_in_band_enqueue" {
            names.swap(at - 1, at);
        }
    }
    names
}

fn quit(mut client: Client) {
    client.send(r#"{"execute": "quit"}"#);
    client.expect_event("SHUTDOWN");
    client.expect(r#"{"return": {}}"#);
}

#[test]
fn the_way_of_a_request_is_told_in_qemus_words() {
    let ours = our_names();
    for expected in [
        "handle_qmp_command",
        "monitor_qmp_in_band_enqueue",
        "monitor_qmp_in_band_dequeue",
        "monitor_qmp_cmd_in_band",
        "monitor_qmp_cmd_out_of_band",
        "monitor_qmp_err_in_band",
        "monitor_qmp_respond",
        "monitor_protocol_event_queue",
        "monitor_protocol_event_emit",
        "monitor_suspend",
    ] {
        assert!(ours.iter().any(|name| name == expected), "{expected}: {ours:#?}");
    }
    let dir = tempfile::tempdir().unwrap();
    if let Some(qemus) = qemus_names(dir.path()) {
        assert_eq!(ours, with_suspension_behind(qemus));
    }
}

#[test]
fn trace_points_are_switched_while_the_server_runs() {
    let mut server = Server::start();
    let mut client = server.negotiated();
    let switch = |enable: bool| {
        let arguments = format!(r#"{{"name": "handle_*", "enable": {enable}}}"#);
        format!(r#"{{"execute": "trace-event-set-state", "arguments": {arguments}}}"#)
    };
    client.execute("query-name");
    client.send(&switch(true));
    client.expect(r#"{"return": {}}"#);
    client.execute("query-uuid");
    client.send(&switch(false));
    client.expect(r#"{"return": {}}"#);
    client.execute("query-status");
    quit(client);
    assert!(server.wait().success());
    let log = server.process().stderr();
    let commands = names(&log, Some(": "));
    assert_eq!(commands, ["handle_qmp_command", "handle_qmp_command"], "{log}");
    assert!(log.contains("query-uuid") && !log.contains("query-status"), "{log}");
}

#[test]
fn every_line_of_a_log_in_json_is_an_object() {
    let arguments = ["--listen", "unix:{sock}", "--log", "json", "--log-filter", "info"];
    let mut server = Server::start_with(arguments.into_iter().chain(["--trace", "handle_*"]));
    quit(server.negotiated());
    assert!(server.wait().success());
    let log = server.process().stderr();
    let lines: Vec<Json> = log
        .lines()
        .map(|line| Json::parse(line).unwrap_or_else(|error| panic!("{error:?}: {line}")))
        .collect();
    let messages = lines
        .iter()
        .filter_map(|line| line.get("fields")?.get("message")?.as_str())
        .collect::<Vec<_>>();
    assert_eq!(messages.len(), lines.len(), "{log}");
    assert!(messages.contains(&"handle_qmp_command"), "{log}");
}
