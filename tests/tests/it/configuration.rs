// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration file.

use std::fs;

use tempfile::TempDir;
use tests::process::run;
use tests::server::{LIMIT, Server, qmp_server};

/// A directory with a configuration file.
fn directory_with(text: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("qmp-server.toml"), text).unwrap();
    dir
}

const EVERYTHING: &str = r#"
listen = ["unix:qmp.sock,mode=0600"]
allow-user = ["0"]
allow-group = ["0"]
insecure = false
metrics = "unix:metrics.sock"
log = "json"
log-filter = "info"
trace = ["handle_*"]

[serve]
name = "from the file"
uuid = "550E8400-e29b-41d4-a716-446655440000"
paused = true
"#;

#[test]
fn everything_can_be_said_in_the_file() {
    let dir = directory_with(EVERYTHING);
    // The user that runs the test may connect.
    let user = rustix::process::geteuid().as_raw().to_string();
    let arguments = ["serve", "--config", "qmp-server.toml", "--allow-user", &user];
    let mut server = Server::start_in(dir, arguments);
    let mut client = server.negotiated();
    assert_eq!(client.execute("query-name").to_string(), r#"{"name": "from the file"}"#);
    let status = client.execute("query-status").to_string();
    assert_eq!(status, r#"{"status": "prelaunch", "running": false}"#);
    let log = loop {
        // Written by another thread.
        let log = server.process().stderr();
        if log.contains("query-status") {
            break log;
        }
        client.execute("query-uuid");
    };
    assert!(log.lines().next().is_some_and(|line| line.starts_with('{')), "{log}");
}

#[test]
fn flags_go_before_the_file() {
    let dir = directory_with(EVERYTHING);
    let user = rustix::process::geteuid().as_raw().to_string();
    let flags = ["--name", "from the flag", "--paused=false", "--allow-user", &user];
    let listen = ["--listen", "unix:{sock}"];
    let arguments = ["serve", "--config", "qmp-server.toml"].into_iter().chain(flags).chain(listen);
    let server = Server::start_in(dir, arguments);
    let mut client = server.negotiated();
    assert_eq!(client.execute("query-name").to_string(), r#"{"name": "from the flag"}"#);
    let status = client.execute("query-status").to_string();
    assert_eq!(status, r#"{"status": "running", "running": true}"#);
    let uuid = client.execute("query-uuid").to_string();
    assert_eq!(uuid, r#"{"UUID": "550e8400-e29b-41d4-a716-446655440000"}"#);
}

#[test]
fn checking_the_configuration_starts_nothing() {
    let dir = directory_with(EVERYTHING);
    let mut program = qmp_server(["--config", "qmp-server.toml", "--check-config"]);
    let finished = run(program.current_dir(dir.path()), "", LIMIT).unwrap();
    assert!(finished.status.success(), "{finished:#?}");
    assert_eq!(finished.stderr, "");
    assert!(!dir.path().join("qmp.sock").exists());
}
